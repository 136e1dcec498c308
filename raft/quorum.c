/* SPDX-License-Identifier: Apache-2.0 */
/* quorum.c - see quorum.h. */
#include "raft/quorum.h"

static uint64_t half_reached(const struct raft_configuration *configuration, const uint64_t *values,
                             enum raft_half half)
{
    uint64_t sorted[RAFT_MEMBERS_MAX]; /* descending */
    uint32_t voters = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        if (!raft_role_votes(configuration->members[i].role, half)) continue;
        uint32_t at = voters++;
        for (; at > 0 && sorted[at - 1] < values[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = values[i];
    }
    return voters > 0 ? sorted[voters / 2] : 0; /* voters / 2 + 1 of them are at least this: a majority */
}

uint64_t raft_quorum_reached(const struct raft_configuration *configuration, const uint64_t *values)
{
    uint64_t of_old = half_reached(configuration, values, RAFT_OLD);
    uint64_t of_new = half_reached(configuration, values, RAFT_NEW);
    return of_old < of_new ? of_old : of_new;
}
