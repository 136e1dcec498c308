/* SPDX-License-Identifier: Apache-2.0 */
/* transfer.c - handing leadership to another voter (thesis 3.10).
 * Thread: the core's. Owns: struct transfer.
 *
 *   none -> waiting, proposals refused [raft_transfer_start]
 *   waiting -> asked: the target holds all of our log durably, TIMEOUT_NOW leaves [raft_transfer_acked]
 *   waiting, asked -> none: a higher term deposed us (done = 1), the deadline passed or leadership was lost (-1)
 *                     [raft_transfer_end]
 *
 * A leader starts one by itself:
 *   - when a configuration is committed in which it is no voter, or it is told to stand back; if nobody takes over it stops
 *     all the same (T35);
 *   - when a voter of higher priority is caught up and was heard for STABLE_TIMEOUTS election timeouts without a silence. Each
 *     attempt of a leadership is followed by a longer wait: what keeps failing costs an ever smaller part of the time.
 * A leadership begins with its first block committed, not with being handed on. No proposal is taken meanwhile (T15). The wait ends after one election timeout, so that a dead target wedges nothing
 * (T16). The target campaigns without a pre-vote, and its requests say so: no promise to a leader
 * stops them. */
#include "raft/internal.h"

enum {
    STABLE_TIMEOUTS = 10,         /* election timeouts before, and between the first two attempts of, a handover */
    HANDOVER_TIMEOUTS_MAX = 1000, /* between the last ones, about */
};

static bool is_other_voter(const struct raft *r, uint32_t i)
{
    return raft_role_votes(r->configuration.members[i].role, RAFT_NEW) &&
           r->configuration.members[i].id != r->options.self;
}

static bool has_other_voter(const struct raft *r)
{
    for (uint32_t i = 0; i < r->configuration.count; i++)
        if (is_other_voter(r, i)) return true;
    return false;
}

static bool is_heard(const struct raft *r, uint32_t i)
{
    return r->now_ns - r->members[i].progress.heard_ns < r->options.election_timeout_ns_min;
}

/* The most caught-up voter that is alive, by priority among equals; count if there is none. */
static uint32_t best_target(const struct raft *r)
{
    uint32_t best = r->configuration.count;
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        if (!is_other_voter(r, i) || !is_heard(r, i)) continue;
        raft_index match = r->members[i].progress.match;
        raft_index best_match = best < r->configuration.count ? r->members[best].progress.match : 0;
        if (best == r->configuration.count || match > best_match ||
            (match == best_match && r->configuration.members[i].priority > r->configuration.members[best].priority))
            best = i;
    }
    return best;
}

/* The voter of highest priority, if that is more than ours, and it was always heard for a while and is caught up. */
static uint32_t preferred_target(const struct raft *r)
{
    uint32_t best = raft_configuration_find(&r->configuration, r->options.self);
    for (uint32_t i = 0; i < r->configuration.count && best < r->configuration.count; i++) {
        if (!is_other_voter(r, i) || !is_heard(r, i) || !raft_lead_is_caught_up(r, i)) continue;
        if (r->now_ns - r->members[i].progress.active_since_ns < STABLE_TIMEOUTS * r->options.election_timeout_ns_min)
            continue;
        if (r->configuration.members[i].priority > r->configuration.members[best].priority) best = i;
    }
    bool found = best < r->configuration.count && r->configuration.members[best].id != r->options.self;
    return found ? best : r->configuration.count;
}

int raft_transfer_start(struct raft *r, raft_member target)
{
    if (r->role != RAFT_LEADER) return LOCKSTEP_ENOTLEADER;
    if (r->transfer.target != 0 || !raft_lead_established(r)) return LOCKSTEP_EUNAVAILABLE;
    uint32_t i = target != 0 ? raft_configuration_find(&r->configuration, target) : best_target(r);
    if (i == r->configuration.count)
        return target != 0 || !has_other_voter(r) ? LOCKSTEP_ENOTFOUND : LOCKSTEP_EUNAVAILABLE;
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
    r->reads.lease_over = true;
}

void raft_transfer_lead_start(struct raft *r)
{
    r->handover.wait_ns = STABLE_TIMEOUTS * r->options.election_timeout_ns_min;
    r->handover.due_ns = r->now_ns + r->handover.wait_ns;
}

bool raft_transfer_is_retired(const struct raft *r)
{
    if (r->role != RAFT_LEADER) return false;
    return r->stands_back ||
           (raft_membership_is_committed(r) && !raft_configuration_is_voter(&r->configuration, r->options.self));
}

static void hand_over(struct raft *r)
{
    uint32_t i = preferred_target(r);
    if (i == r->configuration.count || raft_transfer_start(r, r->configuration.members[i].id) != 0) return;
    r->handover.due_ns = r->now_ns + r->handover.wait_ns;
    if (r->handover.wait_ns < HANDOVER_TIMEOUTS_MAX * r->options.election_timeout_ns_min) r->handover.wait_ns *= 2;
}

void raft_transfer_time(struct raft *r)
{
    bool tried = r->transfer.target != 0 && r->now_ns >= r->transfer.deadline_ns;
    if (tried) raft_transfer_end(r, -1);
    if (r->transfer.target != 0) return;
    if (raft_transfer_is_retired(r)) {
        if (tried || raft_transfer_start(r, 0) != 0) raft_become_follower(r, r->hard.term, 0);
    } else if (r->now_ns >= r->handover.due_ns && raft_membership_is_committed(r) &&
               !raft_configuration_is_joint(&r->configuration)) {
        hand_over(r);
    }
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
