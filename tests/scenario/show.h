/* SPDX-License-Identifier: Apache-2.0 */
/* show.h - everything visible of a core, as lines of text: for transcripts, and for the paths that exploration finds. */
#ifndef LOCKSTEP_TESTS_SCENARIO_SHOW_H
#define LOCKSTEP_TESTS_SCENARIO_SHOW_H

#include <stdio.h>

#include "raft/raft.h"

/* What earlier steps of a core have shown: a step shows what differs. */
struct show_before {
    raft_index commit;
    uint64_t ready, failed;
};

/* "APPEND", "leader"; "?" for what has no name. */
const char *show_type(uint8_t type);
const char *show_role(enum raft_role role);

/* "VOTE term 2, for 2, last 3/1", and the line's end. */
void show_message(FILE *out, const struct raft_message *m);

/* "1 voter, 2 voter, 4 learner" */
void show_configuration(FILE *out, const struct raft_configuration *configuration);

/* All that a step and the take after it made visible, a line each. out may be NULL: then only `before` moves on. */
void show_step(FILE *out, raft_member id, const struct raft *raft, const struct raft_result *result,
               const struct raft_effects *fx, struct show_before *before);

#endif
