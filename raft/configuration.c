/* SPDX-License-Identifier: Apache-2.0 */
/* configuration.c - what one configuration says, and which may follow which. Pure: values in, values out.
 * Thread: any.
 *   before             next                            why a majority of one meets every majority of the other
 *   none               any                             a node that joins: it takes what the group has
 *   any                the same voters                 they are the same majorities
 *   voters V           joint, old voters V             joint needs a majority of V
 *   joint, leads to C  C                               joint needs a majority of C's voters
 * Source: Raft paper, section 6; thesis 4.3. */
#include "raft/quorum.h"

uint32_t raft_configuration_find(const struct raft_configuration *configuration, raft_member id)
{
    uint32_t i = 0;
    while (i < configuration->count && configuration->members[i].id != id) i++;
    return i;
}

bool raft_role_votes(uint8_t role, enum raft_half half)
{
    return role == RAFT_VOTER ||
           (half == RAFT_NEW ? role == RAFT_INCOMING : role == RAFT_OUTGOING || role == RAFT_LEAVING);
}

bool raft_configuration_votes_in(const struct raft_configuration *configuration, raft_member id, enum raft_half half)
{
    uint32_t i = raft_configuration_find(configuration, id);
    return i < configuration->count && raft_role_votes(configuration->members[i].role, half);
}

bool raft_configuration_is_voter(const struct raft_configuration *configuration, raft_member id)
{
    return raft_configuration_votes_in(configuration, id, RAFT_OLD) ||
           raft_configuration_votes_in(configuration, id, RAFT_NEW);
}

bool raft_configuration_is_joint(const struct raft_configuration *configuration)
{
    for (uint32_t i = 0; i < configuration->count; i++)
        if (configuration->members[i].role >= RAFT_INCOMING) return true;
    return false;
}

bool raft_configuration_is_valid(const struct raft_configuration *configuration)
{
    uint32_t old_voters = 0, new_voters = 0;
    if (configuration->count > RAFT_MEMBERS_MAX) return false;
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint8_t role = configuration->members[i].role;
        if (configuration->members[i].id == 0 || role < RAFT_VOTER || role > RAFT_LEAVING) return false;
        if (raft_configuration_find(configuration, configuration->members[i].id) != i) return false;
        old_voters += raft_role_votes(role, RAFT_OLD);
        new_voters += raft_role_votes(role, RAFT_NEW);
    }
    return old_voters > 0 && new_voters > 0;
}

bool raft_configuration_is_same(const struct raft_configuration *one, const struct raft_configuration *other)
{
    if (one->count != other->count) return false;
    for (uint32_t i = 0; i < one->count; i++) {
        uint32_t k = raft_configuration_find(other, one->members[i].id);
        if (k == other->count || other->members[k].role != one->members[i].role ||
            other->members[k].priority != one->members[i].priority)
            return false;
    }
    return true;
}

void raft_configuration_leave(const struct raft_configuration *joint, struct raft_configuration *ret)
{
    struct raft_configuration left = {0};
    for (uint32_t i = 0; i < joint->count; i++) {
        uint8_t role = joint->members[i].role;
        if (role == RAFT_LEAVING) continue;
        left.members[left.count] = joint->members[i];
        left.members[left.count++].role = role == RAFT_VOTER || role == RAFT_INCOMING ? RAFT_VOTER : RAFT_LEARNER;
    }
    *ret = left;
}

/* Whether all of one's voters in a half are voters of the other's half. */
static bool voters_within(const struct raft_configuration *one, enum raft_half half,
                          const struct raft_configuration *other, enum raft_half other_half)
{
    for (uint32_t i = 0; i < one->count; i++)
        if (raft_role_votes(one->members[i].role, half) &&
            !raft_configuration_votes_in(other, one->members[i].id, other_half))
            return false;
    return true;
}

bool raft_configuration_may_follow(const struct raft_configuration *before, const struct raft_configuration *next)
{
    if (before->count == 0) return true; /* a node that joins knows none yet */
    if (raft_configuration_is_joint(before)) {
        struct raft_configuration left;
        raft_configuration_leave(before, &left);
        return raft_configuration_is_same(&left, next);
    }
    return voters_within(before, RAFT_OLD, next, RAFT_OLD) && voters_within(next, RAFT_OLD, before, RAFT_OLD);
}
