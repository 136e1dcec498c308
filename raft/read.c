/* SPDX-License-Identifier: Apache-2.0 */
/* read.c - linearizable reads without a log entry (ReadIndex, thesis 6.4).
 * Thread: the core's. Owns: struct reads.
 * R5  No read before a block of the leader's own term is committed: its commit may be old (T46). A read joins only a
 *     round that leaves after it came, and is answered with the commit of that moment once a majority answered that
 *     round in this term. Round ids come from one counter that only grows, for every heartbeat sent: no two rounds can
 *     be taken for each other (T47). Every ticket is answered or, when leadership ends, refused (T46).
 *
 * Lease reads, an option (lease_ns). Whoever hears a leader promises to it not to elect another one for the shortest election
 * timeout. So for lease_ns from the moment at which a round began that a majority answered, nobody else leads: a read that
 * came before a look at the clock within that time needs no round. It holds under the conditions that
 *   - a majority is one of voters alone, while joint of both (quorum.c; T17), and is counted when the read is asked for;
 *   - the time counts from the begin of the round here, not from its answers, and the clock is looked at after the read came;
 *   - no two clocks drift apart by election_timeout_ns_min - lease_ns in that time (they count the time that a host sleeps);
 *   - nothing shortens the promise: no hang-up; a process that starts promises for a longest timeout, for it may have
 *     promised before, and for longer if that was by a longer timeout; a member's own campaign waits for its election timer, which is longer;
 *   - no successor was asked for: the target of a transfer, and its voters, keep no promise, and it may act at any time
 *     later (T16). So this leadership has no lease any more from then on, whatever became of it. */
#include "raft/internal.h"

/* The newest round that a majority of voters, ourselves among it, has answered. */
static uint64_t confirmed_round(const struct raft *r)
{
    uint64_t rounds[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < r->configuration.count; i++)
        rounds[i] = r->configuration.members[i].id == r->options.self ? r->round : r->members[i].progress.round;
    return raft_quorum_reached(&r->configuration, rounds);
}

static bool lease_holds(const struct raft *r)
{
    if (r->options.lease_ns == 0 || !raft_lead_established(r)) return false;
    if (r->transfer.target != 0 || r->reads.lease_over) return false;
    uint64_t round = confirmed_round(r);
    if (round == 0 || round + LEASE_ROUNDS <= r->round) return false;
    return r->now_ns < r->reads.sent_ns[round % LEASE_ROUNDS] + r->options.lease_ns;
}

uint64_t raft_read_ask(struct raft *r)
{
    lk_assert(r->role == RAFT_LEADER);
    r->reads.newest++;
    if (lease_holds(r)) { /* for those before it as well */
        r->reads.ready = r->reads.joined = r->reads.newest;
        r->reads.ready_index = r->commit;
        r->reads.round = 0;
    }
    return r->reads.newest;
}

void raft_read_round_begin(struct raft *r)
{
    r->round++;
    r->reads.sent_ns[r->round % LEASE_ROUNDS] = r->now_ns;
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
    if (r->reads.round == 0 || confirmed_round(r) < r->reads.round) return;
    r->reads.ready = r->reads.joined;
    r->reads.ready_index = r->reads.round_index;
    r->reads.round = 0;
}

void raft_read_fail_all(struct raft *r)
{
    r->reads.failed = r->reads.joined = r->reads.newest;
    r->reads.round = 0;
}
