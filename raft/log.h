/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - the shape of the log in memory: which term each index has. No bytes, no durability (persist.h).
 * Thread: the core's. Owns: its array of term runs.
 * Invariants: runs ascend strictly in first_index and in term; the first run starts at base_index + 1 if the log is
 * not empty; base_index <= last_index.
 * Why runs: a log of millions of blocks has few terms, and a look-up must not touch the blocks.
 * Source: CCF's view history; etcd raft keeps every entry's term instead. */
#ifndef LOCKSTEP_RAFT_LOG_H
#define LOCKSTEP_RAFT_LOG_H

#include "raft/raft.h"

struct raft_log {
    raft_index base_index; /* last compacted block */
    raft_term base_term;
    raft_index last_index;
    uint32_t run_count;
    struct raft_term_run runs[RAFT_TERM_RUNS_MAX];
};

void raft_log_open(struct raft_log *log, const struct raft_start *start);

/* Term of the block at index; 0 below base_index, above last_index and for index 0. O(1) in the newest run, else
 * O(log runs). */
raft_term raft_log_term_at(const struct raft_log *log, raft_index index);
raft_term raft_log_last_term(const struct raft_log *log);

/* Whether one more block of this term can be remembered. */
bool raft_log_has_room(const struct raft_log *log, raft_term term);
/* The next block has this term, which is not below the last one's; raft_log_has_room() said yes. */
void raft_log_append(struct raft_log *log, raft_term term);
/* Forget the terms of blocks < index: the log begins behind it; base_index <= index <= last_index. */
void raft_log_compact(struct raft_log *log, raft_index index);
/* Empty behind a block that is not here. */
void raft_log_reset(struct raft_log *log, raft_index base_index, raft_term base_term);
/* Forget blocks >= index; index > base_index. */
void raft_log_cut(struct raft_log *log, raft_index index);

/* The largest index <= `from` whose term is <= `term`: where two logs can agree at best. A `from` at or
 * below base_index comes back as it is: nothing is known there.
 * Skips whole runs, so that a probe needs one message a term, not one a block (thesis 3.5; T27). */
raft_index raft_log_last_at_or_below(const struct raft_log *log, raft_index from, raft_term term);

void raft_log_check(const struct raft_log *log);

#endif
