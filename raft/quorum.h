/* SPDX-License-Identifier: Apache-2.0 */
/* quorum.h - what a majority of voters has reached. The one place that knows how votes are counted.
 * Every question is the same: commit (who has which block), reads (who answered which round), check-quorum (who was
 * heard when), elections (who granted). Joint consensus makes this the smaller of two such answers. */
#ifndef LOCKSTEP_RAFT_QUORUM_H
#define LOCKSTEP_RAFT_QUORUM_H

#include "raft/raft.h"

/* The largest x such that a majority of voters has a value >= x; values[i] belongs to members[i], learners' are
 * skipped. 0 if there is no voter. O(members^2) with members <= 16. */
uint64_t raft_quorum_reached(const struct raft_configuration *configuration, const uint64_t *values);

/* The member's place in the configuration; configuration->count if it is none. */
uint32_t raft_configuration_find(const struct raft_configuration *configuration, raft_member id);
bool raft_configuration_is_voter(const struct raft_configuration *configuration, raft_member id);

#endif
