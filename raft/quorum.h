/* SPDX-License-Identifier: Apache-2.0 */
/* quorum.h - what a majority of voters has reached. The one place that knows how votes are counted.
 * Every question is the same: commit (who has which block), reads (who answered which round), check-quorum (who was
 * heard when), elections (who granted). In a joint configuration it is the smaller of two such answers. */
#ifndef LOCKSTEP_RAFT_QUORUM_H
#define LOCKSTEP_RAFT_QUORUM_H

#include "raft/raft.h"

/* The largest x such that a majority of voters has a value >= x, while joint a majority of the old and one of the new
 * voters; values[i] belongs to members[i], learners' are skipped. 0 if there is no voter. O(members^2), members <= 16. */
uint64_t raft_quorum_reached(const struct raft_configuration *configuration, const uint64_t *values);

/* The two sets of voters; without a joint configuration they are one. */
enum raft_half { RAFT_OLD, RAFT_NEW };

bool raft_role_votes(uint8_t role, enum raft_half half);
bool raft_configuration_votes_in(const struct raft_configuration *configuration, raft_member id, enum raft_half half);
/* The member's place in the configuration; configuration->count if it is none. */
uint32_t raft_configuration_find(const struct raft_configuration *configuration, raft_member id);
/* Of the old ones, of the new ones, or of both. */
bool raft_configuration_is_voter(const struct raft_configuration *configuration, raft_member id);

#endif
