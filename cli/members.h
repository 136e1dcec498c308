/* SPDX-License-Identifier: Apache-2.0 */
/* members.h - all members of a cluster as they describe themselves, and what follows from it.
 * Used by status, and by demo, which must show the same. Thread: main. */
#ifndef LOCKSTEP_CLI_MEMBERS_H
#define LOCKSTEP_CLI_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "lockstep/client.h"

struct member_view {
    struct lockstep_member listed; /* as the node that was asked first lists it */
    bool reachable;
    char trouble[1024];            /* why not */
    struct lockstep_status status; /* of itself, if reachable */
};

struct members {
    uint32_t count;
    struct member_view members[LOCKSTEP_MEMBERS_MAX];
    const struct member_view
        *leader;        /* NULL = nobody leads, or its leadership is not confirmed by a majority's terms */
    uint32_t may_lose;  /* voters that may fail now, one after the other, before commands stop */
    char diverged[512]; /* "" , or which nodes differ, where, in what */
};

/* Ask every member that `from` lists, all at the same time. Blocks for deadline_ms at most, and opens connections. */
void members_ask(const struct lockstep_status *from, uint32_t deadline_ms, struct members *ret);
/* Fill leader, may_lose and diverged from the rest. A node of another cluster counts as unreachable. Pure. */
void members_judge(struct members *members, uint64_t cluster_id);
/* The table for people. */
void members_print(const struct members *members, FILE *to);

#endif
