/* SPDX-License-Identifier: Apache-2.0 */
/* test_priority.c - who should rather lead: a hint that costs at most one election timeout, and never a leader. */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;
static struct cluster *c;

/* `count` cores, core 1 with this priority, 2 with that, ...; the rest with 0. */
static void open_started(uint32_t count, uint8_t first, uint8_t second)
{
    c = cluster_open(count, 0, 5);
    c->configuration.members[0].priority = first;
    if (count > 1) c->configuration.members[1].priority = second;
    cluster_start_all(c);
}

static void set_up(raft_member id, bool up)
{
    for (uint32_t i = 0; i < c->count; i++) c->cut[i][id - 1] = c->cut[id - 1][i] = !up;
}

START_TEST(the_highest_priority_campaigns_before_all_others)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        c = cluster_open(5, 0, seed);
        raft_member preferred = seed % 5 + 1;
        c->configuration.members[preferred - 1].priority = 1;
        cluster_start_all(c);
        for (raft_member id = 1; id <= 5; id++) {
            uint64_t wait = cluster_core(c, id)->deadline_ns - c->now_ns;
            ck_assert_uint_ge(wait, id == preferred ? 300 * MS : 600 * MS);
            ck_assert_uint_lt(wait, id == preferred ? 600 * MS : 900 * MS);
        }
        cluster_pass(c, 1000 * MS, true);
        ck_assert_uint_eq(cluster_leader(c), preferred);
        cluster_close(c);
    }
}
END_TEST

START_TEST(a_dead_preferred_member_costs_one_timeout_at_most)
{
    open_started(5, 9, 3);
    cluster_crash(c, 1, 0);
    cluster_crash(c, 2, 0);
    cluster_pass(c, 1000 * MS, true); /* 3 T, and a little for the vote */
    ck_assert_uint_ge(cluster_leader(c), 3);
    cluster_close(c);
}
END_TEST

START_TEST(a_learner_of_high_priority_delays_nobody)
{
    c = cluster_open(3, 1, 5);
    c->configuration.members[2].priority = 9;
    cluster_start_all(c);
    ck_assert_uint_lt(cluster_core(c, 1)->deadline_ns, c->now_ns + 600 * MS);
    cluster_elect(c, 1);
    cluster_pass(c, 10000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 1);
    cluster_close(c);
}
END_TEST

START_TEST(followers_of_a_dead_leader_ask_by_priority)
{
    open_started(5, 0, 0);
    struct raft_configuration target = c->configuration;
    cluster_elect(c, 1);
    cluster_pass(c, 61 * MS, true);
    target.members[3].priority = 2;
    ck_assert_int_eq(cluster_change(cluster_core(c, 1), &target, false), RAFT_CHANGE_MAY);
    cluster_settle(c);
    cluster_crash(c, 1, 0);
    for (raft_member id = 2; id <= 5; id++) {
        struct raft_event event = {.type = RAFT_EVENT_HANGUP, .as.hangup = {.from = 1}};
        cluster_step(cluster_core(c, id), &event, false);
    }
    for (raft_member id = 2; id <= 5; id++)
        if (id != 4) ck_assert_uint_gt(cluster_core(c, id)->deadline_ns, cluster_core(c, 4)->deadline_ns);
    cluster_pass(c, 10 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 4);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_hands_over_to_a_voter_of_higher_priority_after_a_while)
{
    open_started(3, 0, 5);
    cluster_elect(c, 1);
    cluster_pass(c, 2900 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 1); /* not before 10 T */
    cluster_pass(c, 300 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 2);
    raft_term term = cluster_status(c, 2).term;
    cluster_pass(c, 20000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 2); /* and it stays there */
    ck_assert_uint_eq(cluster_status(c, 2).term, term);
    cluster_close(c);
}
END_TEST

START_TEST(a_preferred_member_that_comes_and_goes_is_not_handed_to)
{
    open_started(3, 0, 5);
    cluster_elect(c, 1);
    for (uint32_t i = 0; i < 10; i++) {
        set_up(2, i % 2 == 1);
        cluster_pass(c, i % 2 == 1 ? 2000 * MS : 400 * MS, true);
        ck_assert_uint_eq(cluster_leader(c), 1);
    }
    set_up(2, true);
    cluster_pass(c, 4000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_preferred_member_that_lags_is_not_handed_to)
{
    open_started(3, 0, 5);
    cluster_elect(c, 1);
    cluster_core(c, 2)->room_bytes = 0;
    for (uint32_t i = 0; i < 100; i++) {
        ck_assert_int_eq(cluster_propose(cluster_core(c, 1), 64, false), 0); /* never refused for a hand-over */
        cluster_pass(c, 100 * MS, true);
    }
    ck_assert_uint_eq(cluster_leader(c), 1);
    cluster_core(c, 2)->room_bytes = UINT64_MAX;
    cluster_pass(c, 4000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 2);
    cluster_close(c);
}
END_TEST

START_TEST(hand_overs_that_fail_are_tried_ever_more_rarely)
{
    open_started(3, 0, 5);
    cluster_elect(c, 1);
    struct cluster_core *lead = cluster_core(c, 1);
    uint32_t tries = 0;
    bool before = false;
    for (uint64_t ms = 0; ms < 100000; ms += 20) {
        cluster_pass(c, 20 * MS, false);
        for (uint32_t i = 0; i < c->message_count;) /* core 2 does all it should, but never hears TIMEOUT_NOW */
            if (c->messages[i]->message.type == RAFT_TIMEOUT_NOW)
                cluster_drop(c, i);
            else
                i++;
        cluster_settle(c);
        bool transferring = cluster_status(c, 1).transferring;
        tries += transferring && !before;
        before = transferring;
    }
    ck_assert(raft_is_leader(lead->raft));
    ck_assert_uint_ge(tries, 3);
    ck_assert_uint_le(tries, 6); /* at 3, 6, 12, 24, 48, 96 s */
    cluster_close(c);
}
END_TEST

START_TEST(nobody_hands_over_while_a_change_of_members_runs)
{
    c = cluster_open(4, 1, 5);
    c->configuration.members[1].priority = 5;
    cluster_start_all(c);
    cluster_elect(c, 1);
    cluster_pass(c, 200 * MS, true);
    c->leave_at_once = false;
    ck_assert_int_eq(cluster_change_role(cluster_core(c, 1), 4, RAFT_VOTER), RAFT_CHANGE_MAY);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 1);
    cluster_leave_joint(cluster_core(c, 1));
    cluster_pass(c, 500 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 2);
    cluster_close(c);
}
END_TEST

START_TEST(among_equals_the_one_of_higher_priority_is_the_target_of_a_transfer)
{
    c = cluster_open(4, 0, 5);
    c->configuration.members[2].priority = 5;
    cluster_start_all(c);
    cluster_elect(c, 1);
    cluster_pass(c, 61 * MS, true);
    ck_assert_int_eq(cluster_transfer(cluster_core(c, 1), 0), 0);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_leader(c), 3);
    cluster_close(c);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, the_highest_priority_campaigns_before_all_others);
    tcase_add_test(tests, a_dead_preferred_member_costs_one_timeout_at_most);
    tcase_add_test(tests, a_learner_of_high_priority_delays_nobody);
    tcase_add_test(tests, followers_of_a_dead_leader_ask_by_priority);
    tcase_add_test(tests, a_leader_hands_over_to_a_voter_of_higher_priority_after_a_while);
    tcase_add_test(tests, a_preferred_member_that_comes_and_goes_is_not_handed_to);
    tcase_add_test(tests, a_preferred_member_that_lags_is_not_handed_to);
    tcase_add_test(tests, hand_overs_that_fail_are_tried_ever_more_rarely);
    tcase_add_test(tests, nobody_hands_over_while_a_change_of_members_runs);
    tcase_add_test(tests, among_equals_the_one_of_higher_priority_is_the_target_of_a_transfer);
}

int main(void)
{
    return unit_main("raft priority", add);
}
