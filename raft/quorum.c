/* SPDX-License-Identifier: Apache-2.0 */
/* quorum.c - see quorum.h. */
#include "raft/quorum.h"

uint64_t raft_quorum_reached(const struct raft_configuration *configuration, const uint64_t *values)
{
    uint64_t sorted[RAFT_MEMBERS_MAX]; /* descending */
    uint32_t voters = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        if (configuration->members[i].role != RAFT_VOTER) continue;
        uint32_t at = voters++;
        for (; at > 0 && sorted[at - 1] < values[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = values[i];
    }
    return voters > 0 ? sorted[voters / 2] : 0; /* voters / 2 + 1 of them are at least this: a majority */
}

uint32_t raft_configuration_find(const struct raft_configuration *configuration, raft_member id)
{
    uint32_t i = 0;
    while (i < configuration->count && configuration->members[i].id != id) i++;
    return i;
}

bool raft_configuration_is_voter(const struct raft_configuration *configuration, raft_member id)
{
    uint32_t i = raft_configuration_find(configuration, id);
    return i < configuration->count && configuration->members[i].role == RAFT_VOTER;
}
