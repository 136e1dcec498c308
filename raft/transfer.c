/* SPDX-License-Identifier: Apache-2.0 */
/* transfer.c - handing leadership to another voter (thesis 3.10).
 * Thread: the core's. Owns: struct transfer.
 *
 *   none -> waiting, proposals refused [raft_transfer_start]
 *   waiting -> asked: the target holds all of our log durably, TIMEOUT_NOW leaves [raft_transfer_acked]
 *   waiting, asked -> none: a higher term deposed us (done = 1), the deadline passed or leadership was lost (-1)
 *                     [raft_transfer_end]
 *
 * A leadership begins with its first block committed, not with being handed on. No proposal is taken meanwhile (T15). The wait ends after one election timeout, so that a dead target wedges nothing
 * (T16). The target campaigns without a pre-vote, and its requests say so: no lease stops them. */
#include "raft/internal.h"

static bool is_other_voter(const struct raft *r, uint32_t i)
{
    return raft_role_votes(r->configuration.members[i].role, RAFT_NEW) &&
           r->configuration.members[i].id != r->options.self;
}

static bool is_heard(const struct raft *r, uint32_t i)
{
    return r->now_ns - r->members[i].progress.heard_ns < r->options.election_timeout_ns_min;
}

/* The most caught-up voter that is alive; count if there is none. */
static uint32_t best_target(const struct raft *r)
{
    uint32_t best = r->configuration.count;
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        if (!is_other_voter(r, i) || !is_heard(r, i)) continue;
        if (best == r->configuration.count || r->members[i].progress.match > r->members[best].progress.match) best = i;
    }
    return best;
}

int raft_transfer_start(struct raft *r, raft_member target)
{
    if (r->role != RAFT_LEADER) return LOCKSTEP_ENOTLEADER;
    if (r->transfer.target != 0 || !raft_lead_established(r)) return LOCKSTEP_EUNAVAILABLE;
    uint32_t i = target != 0 ? raft_configuration_find(&r->configuration, target) : best_target(r);
    if (i == r->configuration.count) return target != 0 ? LOCKSTEP_ENOTFOUND : LOCKSTEP_EUNAVAILABLE;
    if (!is_other_voter(r, i)) return LOCKSTEP_ENOTFOUND;
    if (!is_heard(r, i)) return LOCKSTEP_EUNAVAILABLE;
    r->transfer = (struct transfer){
        .target = r->configuration.members[i].id,
        .deadline_ns = r->now_ns + r->options.election_timeout_ns_min,
        .done = r->transfer.done,
    };
    raft_transfer_acked(r);
    return 0;
}

void raft_transfer_acked(struct raft *r)
{
    if (r->transfer.target == 0 || r->transfer.asked) return;
    uint32_t i = raft_configuration_find(&r->configuration, r->transfer.target);
    if (r->members[i].progress.match < r->log.last_index) return;
    r->transfer.asked = r->transfer.ask_due = true;
}

void raft_transfer_time(struct raft *r)
{
    if (r->transfer.target != 0 && r->now_ns >= r->transfer.deadline_ns) raft_transfer_end(r, -1);
}

void raft_transfer_end(struct raft *r, int done)
{
    if (r->transfer.target == 0) return;
    r->transfer = (struct transfer){.done = done};
}

/* Only our leader may ask, and only a voter campaigns (T11). */
void raft_transfer_timeout_now(struct raft *r, const struct raft_message *m)
{
    if (r->role != RAFT_FOLLOWER || m->term != r->hard.term || m->from != r->leader) return;
    if (raft_may_campaign(r)) raft_campaign(r, true);
}

void raft_transfer_take(struct raft *r, struct raft_effects *fx)
{
    if (r->transfer.ask_due) {
        struct raft_message m = raft_message_to(r, r->transfer.target, RAFT_TIMEOUT_NOW);
        raft_emit(fx, &m);
        r->transfer.ask_due = false;
    }
}
