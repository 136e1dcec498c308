/* SPDX-License-Identifier: Apache-2.0 */
/* read.c - linearizable reads without a log entry (ReadIndex, thesis 6.4).
 * Thread: the core's. Owns: struct reads.
 * R5  No read before a block of the leader's own term is committed: its commit may be old (T46). A read joins only a
 *     round that leaves after it came, and is answered with the commit of that moment once a majority answered that
 *     round in this term. Round ids come from one counter that only grows, for every heartbeat sent: no two rounds can
 *     be taken for each other (T47). Every ticket is answered or, when leadership ends, refused (T46). */
#include "raft/internal.h"

uint64_t raft_read_ask(struct raft *r)
{
    lk_assert(r->role == RAFT_LEADER);
    return ++r->reads.newest;
}

bool raft_read_wants_round(const struct raft *r)
{
    return r->reads.newest > r->reads.joined && r->reads.round == 0 && raft_lead_established(r);
}

/* Round r->round is leaving: what waits joins it, unless an earlier one is still on its way. */
void raft_read_round_sent(struct raft *r)
{
    if (!raft_read_wants_round(r)) return;
    r->reads.round = r->round;
    r->reads.round_index = r->commit;
    r->reads.joined = r->reads.newest;
}

void raft_read_confirm(struct raft *r)
{
    if (r->reads.round == 0) return;
    uint64_t rounds[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < r->configuration.count; i++)
        rounds[i] = r->configuration.members[i].id == r->options.self ? r->round : r->members[i].progress.round;
    if (raft_quorum_reached(&r->configuration, rounds) < r->reads.round) return;
    r->reads.ready = r->reads.joined;
    r->reads.ready_index = r->reads.round_index;
    r->reads.round = 0;
}

void raft_read_fail_all(struct raft *r)
{
    r->reads.failed = r->reads.joined = r->reads.newest;
    r->reads.round = 0;
}
