/* SPDX-License-Identifier: Apache-2.0 */
/* membership.c - which configuration is in force, and how a leader changes it.
 * Thread: the core's. Owns: the effective configuration and the one that it replaced.
 * R6  A configuration takes effect when its block is appended, here and at the leader alike, and stays until the next
 *     one or until its block is cut: then the one before is in force again (T31, T32).
 * - A leader starts a change only when the change before is committed, and joint no more, and a block of its own term is
 *   committed (T30). Hence in every log all configurations but the newest are committed, no cut can reach them, and two
 *   are all that has to be remembered. A leader that cuts deeper is damage: EPROTO, like every contradiction.
 * - Voters change through a joint configuration alone; its leader ends it, and if that one fails the next leader does (T36).
 * - Who becomes a voter was a learner and holds what our log had a heartbeat ago: it can ack the next block in
 *   time (T36; thesis 4.2.1 asks for a last round shorter than an election timeout).
 * Source: Raft paper, section 6; thesis chapter 4. */
#include <string.h>

#include "raft/internal.h"

/* Put members[] beside the new configuration: who stays keeps all, who comes starts with nothing (T25). */
static void change(struct raft *r, const struct raft_configuration *next, raft_index index)
{
    struct member before[RAFT_MEMBERS_MAX]; /* about 70 KiB, now and then */
    memcpy(before, r->members, r->configuration.count * sizeof before[0]);
    for (uint32_t i = 0; i < next->count; i++) {
        uint32_t was = raft_configuration_find(&r->configuration, next->members[i].id);
        if (was < r->configuration.count) {
            r->members[i] = before[was];
        } else {
            memset(&r->members[i], 0, sizeof r->members[i]);
            if (r->role == RAFT_LEADER) raft_lead_welcome(r, i, index);
        }
    }
    r->configuration = *next;
    r->configuration_index = index;
    r->configuration_changed = true;
}

void raft_membership_append(struct raft *r, raft_index index, const struct raft_configuration *next)
{
    lk_assert(raft_configuration_is_valid(next) && raft_configuration_may_follow(&r->configuration, next));
    lk_assert(index > r->configuration_index || index == r->log.last_index);
    r->configuration_before = r->configuration;
    r->configuration_before_index = r->configuration_index;
    change(r, next, index);
}

void raft_membership_cut(struct raft *r, raft_index first)
{
    if (r->configuration_index < first) return;
    lk_assert(r->configuration_before_index < first);
    struct raft_configuration before = r->configuration_before;
    change(r, &before, r->configuration_before_index);
    /* It was replaced once, so it is committed: no cut goes below it. Which one it replaced is not known here any more. */
    r->configuration_before = (struct raft_configuration){0};
    r->configuration_before_index = r->configuration_index;
}

void raft_membership_install(struct raft *r, raft_index index, const struct raft_configuration *installed)
{
    lk_assert(index <= r->log.base_index && r->log.base_index == r->log.last_index);
    change(r, installed, index);
    r->configuration_before = (struct raft_configuration){0};
    r->configuration_before_index = 0;
}

bool raft_membership_may_accept(const struct raft *r, const struct raft_entry *entries, uint32_t count)
{
    const struct raft_configuration *before =
        entries[0].index <= r->configuration_index ? &r->configuration_before : &r->configuration;
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].configuration == NULL) continue;
        if (!raft_configuration_may_follow(before, entries[i].configuration)) return false;
        before = entries[i].configuration;
    }
    return true;
}

bool raft_membership_is_committed(const struct raft *r)
{
    return r->configuration_index <= r->commit;
}

void raft_configuration_read(const struct raft *r, bool committed, struct raft_configuration *ret)
{
    bool before = committed && !raft_membership_is_committed(r) && r->configuration_before.count > 0;
    *ret = before ? r->configuration_before : r->configuration;
}

bool raft_membership_leaves_joint(const struct raft *r)
{
    return raft_lead_established(r) && r->transfer.target == 0 && raft_membership_is_committed(r) &&
           raft_configuration_is_joint(&r->configuration);
}

/* From `old`, whose voters are the old ones, to `target`; false if there is no room for those who leave. */
static bool join(const struct raft_configuration *old, const struct raft_configuration *target,
                 struct raft_configuration *ret)
{
    *ret = *target;
    for (uint32_t i = 0; i < target->count; i++) {
        bool voted = raft_configuration_is_voter(old, target->members[i].id);
        bool votes = target->members[i].role == RAFT_VOTER;
        if (voted != votes) ret->members[i].role = votes ? RAFT_INCOMING : RAFT_OUTGOING;
    }
    for (uint32_t i = 0; i < old->count; i++) {
        if (old->members[i].role != RAFT_VOTER) continue;
        if (raft_configuration_find(target, old->members[i].id) < target->count) continue;
        if (ret->count == RAFT_MEMBERS_MAX) return false;
        ret->members[ret->count] = old->members[i];
        ret->members[ret->count++].role = RAFT_LEAVING;
    }
    return true;
}

/* Whether majorities of old and new voters were heard lately; else *ret_silent is a voter that was not. */
static bool quorum_is_active(const struct raft *r, const struct raft_configuration *next, raft_member *ret_silent)
{
    uint64_t heard[RAFT_MEMBERS_MAX];
    raft_member silent = 0;
    for (uint32_t i = 0; i < next->count; i++) {
        heard[i] = next->members[i].id == r->options.self || raft_lead_hears(r, next->members[i].id);
        if (heard[i] == 0 && next->members[i].role != RAFT_LEARNER) silent = next->members[i].id;
    }
    if (raft_quorum_reached(next, heard) == 1) return true;
    *ret_silent = silent;
    return false;
}

enum raft_change raft_change_plan(const struct raft *r, const struct raft_configuration *target, bool forced,
                                  struct raft_configuration *ret, raft_member *ret_member)
{
    struct raft_configuration next;
    *ret_member = 0;
    if (r->role != RAFT_LEADER) return RAFT_CHANGE_NOT_LEADER;
    if (!raft_lead_established(r) || r->transfer.target != 0) return RAFT_CHANGE_NOT_YET;
    if (!raft_membership_is_committed(r) || raft_configuration_is_joint(&r->configuration)) return RAFT_CHANGE_RUNS;
    if (!raft_configuration_is_valid(target) || raft_configuration_is_joint(target)) return RAFT_CHANGE_INVALID;
    if (raft_configuration_is_same(target, &r->configuration)) return RAFT_CHANGE_SAME;
    if (!join(&r->configuration, target, &next)) return RAFT_CHANGE_INVALID;
    for (uint32_t i = 0; i < next.count; i++) {
        if (next.members[i].role != RAFT_INCOMING) continue;
        uint32_t now = raft_configuration_find(&r->configuration, next.members[i].id);
        *ret_member = next.members[i].id;
        if (now == r->configuration.count) return RAFT_CHANGE_NO_LEARNER;
        if (!forced && !(raft_lead_hears(r, *ret_member) && raft_lead_is_caught_up(r, now))) return RAFT_CHANGE_LAGS;
        *ret_member = 0;
    }
    if (!forced && raft_configuration_is_joint(&next) && !quorum_is_active(r, &next, ret_member))
        return RAFT_CHANGE_LOSES_QUORUM;
    lk_assert(raft_configuration_may_follow(&r->configuration, &next));
    *ret = next;
    return RAFT_CHANGE_MAY;
}

void raft_membership_check(const struct raft *r)
{
    const struct raft_configuration *now = &r->configuration, *before = &r->configuration_before;
    lk_assert(now->count == 0 || raft_configuration_is_valid(now));
    lk_assert(r->configuration_index <= r->log.last_index);
    lk_assert(r->configuration_before_index <= r->configuration_index);
    if (before->count > 0) lk_assert(raft_configuration_is_valid(before) && raft_configuration_may_follow(before, now));
    if (raft_lead_established(r)) lk_assert(r->configuration_before_index <= r->commit); /* one change at a time */
}
