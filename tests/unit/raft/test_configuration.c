/* SPDX-License-Identifier: Apache-2.0 */
/* test_configuration.c - what configurations say, which may follow which, and what majorities of them have in common. */
#include "base/random.h"
#include "raft/quorum.h"
#include "tests/support/unit.h"

static struct raft_configuration of(uint32_t count, const uint8_t *roles)
{
    struct raft_configuration c = {.count = count};
    for (uint32_t i = 0; i < count; i++) {
        c.members[i].id = 10 + i;
        c.members[i].role = roles[i];
    }
    return c;
}
#define OF(...) of(sizeof((uint8_t[]){__VA_ARGS__}), (uint8_t[]){__VA_ARGS__})

START_TEST(only_what_can_be_a_configuration_is_valid)
{
    struct raft_configuration c = OF(RAFT_VOTER, RAFT_LEARNER);
    ck_assert(raft_configuration_is_valid(&c));
    c.members[1].id = 10; /* twice */
    ck_assert(!raft_configuration_is_valid(&c));
    c.members[1].id = 0;
    ck_assert(!raft_configuration_is_valid(&c));
    c = OF(RAFT_VOTER, 0);
    ck_assert(!raft_configuration_is_valid(&c));
    c = OF(RAFT_VOTER, RAFT_LEAVING + 1);
    ck_assert(!raft_configuration_is_valid(&c));
    c = OF(RAFT_LEARNER, RAFT_LEARNER); /* nobody votes */
    ck_assert(!raft_configuration_is_valid(&c));
    c = OF(RAFT_LEARNER, RAFT_LEAVING); /* nobody after */
    ck_assert(!raft_configuration_is_valid(&c));
    c = OF(RAFT_LEARNER, RAFT_INCOMING); /* nobody before */
    ck_assert(!raft_configuration_is_valid(&c));
    c = OF(RAFT_INCOMING, RAFT_OUTGOING);
    ck_assert(raft_configuration_is_valid(&c));
    c = (struct raft_configuration){0};
    ck_assert(!raft_configuration_is_valid(&c));
    c = OF(RAFT_VOTER);
    c.count = RAFT_MEMBERS_MAX + 1; /* of outside data */
    ck_assert(!raft_configuration_is_valid(&c));
}
END_TEST

START_TEST(a_joint_configuration_leads_to_its_new_voters) /* paper, section 6 */
{
    struct raft_configuration joint = OF(RAFT_VOTER, RAFT_LEAVING, RAFT_OUTGOING, RAFT_INCOMING, RAFT_LEARNER), left;
    joint.members[3].priority = 7;
    ck_assert(raft_configuration_is_joint(&joint));
    raft_configuration_leave(&joint, &left);
    ck_assert(!raft_configuration_is_joint(&left));
    ck_assert_uint_eq(left.count, 4);
    ck_assert_uint_eq(raft_configuration_find(&left, 11), 4);
    ck_assert_uint_eq(left.members[raft_configuration_find(&left, 12)].role, RAFT_LEARNER);
    ck_assert_uint_eq(left.members[raft_configuration_find(&left, 13)].role, RAFT_VOTER);
    ck_assert_uint_eq(left.members[raft_configuration_find(&left, 13)].priority, 7);
    ck_assert(raft_configuration_may_follow(&joint, &left));
    left.members[0].priority = 1; /* not what was agreed */
    ck_assert(!raft_configuration_may_follow(&joint, &left));
    ck_assert(!raft_configuration_may_follow(&joint, &joint));
}
END_TEST

START_TEST(order_and_place_of_members_mean_nothing)
{
    struct raft_configuration one = OF(RAFT_VOTER, RAFT_LEARNER), other = one;
    other.members[0] = one.members[1];
    other.members[1] = one.members[0];
    ck_assert(raft_configuration_is_same(&one, &other));
    other.members[0].role = RAFT_VOTER;
    ck_assert(!raft_configuration_is_same(&one, &other));
    other = one;
    other.members[1].priority = 1;
    ck_assert(!raft_configuration_is_same(&one, &other));
    other = one;
    other.members[1].id = 99;
    ck_assert(!raft_configuration_is_same(&one, &other));
    other.count = 1;
    ck_assert(!raft_configuration_is_same(&one, &other));
}
END_TEST

static bool follows(struct raft_configuration before, struct raft_configuration next)
{
    return raft_configuration_may_follow(&before, &next);
}

START_TEST(without_a_joint_configuration_voters_stay) /* T30: not even one may come or go */
{
    struct raft_configuration before = OF(RAFT_VOTER, RAFT_VOTER, RAFT_LEARNER);
    struct raft_configuration learners = OF(RAFT_VOTER, RAFT_VOTER, RAFT_LEARNER, RAFT_LEARNER);
    ck_assert(raft_configuration_may_follow(&before, &learners));
    ck_assert(raft_configuration_may_follow(&learners, &before));
    learners.members[0].priority = 3;
    ck_assert(raft_configuration_may_follow(&before, &learners));
    ck_assert(!follows(before, OF(RAFT_VOTER, RAFT_VOTER, RAFT_VOTER)));
    ck_assert(!follows(before, OF(RAFT_VOTER, RAFT_LEARNER)));
    ck_assert(!follows(before, OF(RAFT_VOTER)));
    ck_assert(follows(before, OF(RAFT_VOTER, RAFT_OUTGOING, RAFT_INCOMING)));
    ck_assert(follows(before, OF(RAFT_VOTER, RAFT_LEAVING)));
    ck_assert(!follows(before, OF(RAFT_VOTER, RAFT_INCOMING))); /* 11 was one of the old */
    ck_assert(!follows(before, OF(RAFT_VOTER, RAFT_VOTER, RAFT_LEAVING)));
}
END_TEST

/* Whether the members of `set` are majorities of the configuration's halves, counted anew. */
static bool is_quorum(const struct raft_configuration *c, uint32_t set)
{
    uint32_t old_all = 0, old_in = 0, new_all = 0, new_in = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        uint8_t role = c->members[i].role;
        bool in = set >> (c->members[i].id - 10) & 1;
        bool old_voter = role == RAFT_VOTER || role == RAFT_OUTGOING || role == RAFT_LEAVING;
        bool new_voter = role == RAFT_VOTER || role == RAFT_INCOMING;
        old_all += old_voter, old_in += old_voter && in;
        new_all += new_voter, new_in += new_voter && in;
    }
    return 2 * old_in > old_all && 2 * new_in > new_all;
}

static struct raft_configuration draw_configuration(struct random *random, uint32_t ids)
{
    struct raft_configuration c = {0};
    for (uint32_t i = 0; i < ids; i++) {
        if (random_below(random, 4) == 0) continue;
        c.members[c.count].id = 10 + i;
        c.members[c.count++].role = (uint8_t)(1 + random_below(random, random_below(random, 2) == 0 ? 2 : 5));
    }
    return c;
}

START_TEST(
    majorities_of_configurations_that_may_follow_each_other_meet) /* paper, section 6: the whole safety argument */
{
    struct random random;
    random_seed(&random, unit_seed(0x10e));
    uint32_t followed = 0;
    for (uint64_t n = unit_rounds(20000); n > 0; n--) {
        struct raft_configuration before = draw_configuration(&random, 5), next = draw_configuration(&random, 5);
        if (raft_configuration_is_joint(&before) && random_below(&random, 2) == 0)
            raft_configuration_leave(&before, &next);
        if (!raft_configuration_is_valid(&before) || !raft_configuration_is_valid(&next)) continue;
        for (uint32_t set = 0; set < 32; set++) {
            uint64_t values[RAFT_MEMBERS_MAX];
            for (uint32_t i = 0; i < next.count; i++) values[i] = set >> (next.members[i].id - 10) & 1;
            ck_assert_int_eq(raft_quorum_reached(&next, values) == 1, is_quorum(&next, set));
        }
        if (!raft_configuration_may_follow(&before, &next)) continue;
        followed++;
        for (uint32_t one = 0; one < 32; one++)
            for (uint32_t other = 0; other < 32; other++)
                if (is_quorum(&before, one) && is_quorum(&next, other)) ck_assert_uint_ne(one & other, 0);
    }
    ck_assert_uint_gt(followed, 50);
}
END_TEST

START_TEST(while_joint_both_majorities_have_to_reach_a_value) /* T36, thesis 4.3 */
{
    struct raft_configuration joint =
        OF(RAFT_VOTER, RAFT_LEAVING, RAFT_LEAVING, RAFT_INCOMING, RAFT_INCOMING, RAFT_LEARNER);
    ck_assert_uint_eq(raft_quorum_reached(&joint, (uint64_t[]){9, 8, 7, 2, 1, 99}), 2);
    ck_assert_uint_eq(raft_quorum_reached(&joint, (uint64_t[]){9, 1, 2, 7, 8, 99}), 2);
    ck_assert_uint_eq(raft_quorum_reached(&joint, (uint64_t[]){0, 5, 6, 7, 8, 99}), 5);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, only_what_can_be_a_configuration_is_valid);
    tcase_add_test(tests, a_joint_configuration_leads_to_its_new_voters);
    tcase_add_test(tests, order_and_place_of_members_mean_nothing);
    tcase_add_test(tests, without_a_joint_configuration_voters_stay);
    tcase_add_test(tests, majorities_of_configurations_that_may_follow_each_other_meet);
    tcase_add_test(tests, while_joint_both_majorities_have_to_reach_a_value);
}

int main(void)
{
    return unit_main("raft configuration", add);
}
