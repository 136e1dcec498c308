/* SPDX-License-Identifier: Apache-2.0 */
/* test_lease.c - reads by lease: when they need no round, and what keeps another leader away meanwhile. Core 1 leads. The
 * lease is 270 ms of an election timeout of 300. That an answered read covers all that was committed when it came is checked
 * by the cluster itself, also at random (test_random). */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;
static struct cluster *c;
static struct cluster_core *lead;

static void open_led_beating(uint32_t count, uint32_t learners, uint64_t heartbeat_ns)
{
    c = cluster_open(count, learners, 3);
    c->options.lease_ns = 270 * MS;
    c->options.heartbeat_ns = heartbeat_ns;
    cluster_start_all(c);
    c->now_ns += 600 * MS; /* who starts grants nothing before */
    cluster_elect(c, 1);
    lead = cluster_core(c, 1);
    cluster_pass(c, 61 * MS, true);
}

static void open_led(uint32_t count, uint32_t learners)
{
    open_led_beating(count, learners, 60 * MS);
}

static bool is_read_at_once(void)
{
    uint64_t ticket;
    ck_assert_int_eq(cluster_read(lead, &ticket), 0);
    return lead->reads_ready >= ticket;
}

static void isolate(raft_member id, bool cut)
{
    for (uint32_t k = 0; k < c->count; k++) c->cut[id - 1][k] = c->cut[k][id - 1] = cut;
}

START_TEST(a_read_within_the_lease_needs_no_round) /* thesis 6.4.1 */
{
    open_led(3, 0);
    ck_assert(is_read_at_once());
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_HEARTBEAT), 0);
    cluster_close(c);
}
END_TEST

START_TEST(a_lease_counts_from_the_begin_of_the_round_and_ends)
{
    open_led(3, 0);
    cluster_pass(c, 61 * MS, false); /* a round leaves now */
    uint64_t begun_ns = c->now_ns;
    c->now_ns += 100 * MS;
    cluster_deliver_to(c, 2);
    cluster_deliver_to(c, 1); /* and is answered late */
    isolate(1, true);
    c->now_ns = begun_ns + 200 * MS;
    ck_assert(is_read_at_once());
    c->now_ns = begun_ns + 270 * MS;
    ck_assert(!is_read_at_once());
    cluster_close(c);
}
END_TEST

START_TEST(a_lease_of_a_round_whose_time_is_forgotten_is_none)
{
    open_led_beating(3, 0, 3 * MS); /* more than 64 rounds begin within a lease */
    ck_assert(is_read_at_once());
    isolate(1, true);
    cluster_pass(c, 280 * MS, true);
    ck_assert(raft_is_leader(lead->raft));
    ck_assert(!is_read_at_once());
    cluster_close(c);
}
END_TEST

START_TEST(reads_that_wait_for_a_round_are_answered_by_a_lease_that_comes)
{
    open_led(3, 0);
    c->now_ns += 290 * MS;
    ck_assert(!is_read_at_once());
    cluster_settle(c);
    ck_assert(is_read_at_once());
    ck_assert_uint_eq(c->reads_answered, 2);
    cluster_close(c);
}
END_TEST

START_TEST(learners_give_no_lease) /* T17 */
{
    open_led(5, 2);
    isolate(2, true);
    isolate(3, true);
    cluster_pass(c, 280 * MS, true); /* both learners answer all the time */
    ck_assert(!is_read_at_once());
    cluster_close(c);
}
END_TEST

START_TEST(a_lease_in_a_joint_configuration_needs_both_majorities) /* T17 */
{
    open_led(5, 2);
    /* 1, 2, 3 -> 1, 4, 5: joint until it is committed by both. */
    struct raft_configuration target = c->configuration;
    for (uint32_t i = 0; i < 5; i++) target.members[i].role = i == 0 || i >= 3 ? RAFT_VOTER : RAFT_LEARNER;
    c->leave_at_once = false;
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    cluster_settle(c);
    cluster_pass(c, 61 * MS, true);
    ck_assert(is_read_at_once());
    isolate(4, true);
    isolate(5, true);
    cluster_pass(c, 275 * MS, true); /* the old majority answers, the new one does not */
    ck_assert(!is_read_at_once());
    cluster_close(c);
}
END_TEST

START_TEST(no_lease_before_a_block_of_the_own_term_is_committed) /* T46 */
{
    c = cluster_open(3, 0, 3);
    c->options.lease_ns = 270 * MS;
    cluster_lead_uncommitted(c);
    lead = cluster_core(c, 1);
    ck_assert(!is_read_at_once());
    cluster_close(c);
}
END_TEST

START_TEST(no_lease_read_once_a_successor_was_asked_for_in_this_term) /* T16 */
{
    open_led(3, 0);
    ck_assert(is_read_at_once());
    ck_assert_int_eq(cluster_transfer(lead, 2), 0);
    ck_assert(!is_read_at_once());
    cluster_drop_all(c); /* nobody ever hears of it */
    cluster_pass(c, 400 * MS, true);
    ck_assert(!cluster_status(c, 1).transferring);
    ck_assert(raft_is_leader(lead->raft));
    ck_assert(!is_read_at_once()); /* the request might still be on its way */
    cluster_settle(c);
    ck_assert_uint_eq(c->reads_refused, 0);
    cluster_close(c);
}
END_TEST

START_TEST(no_lease_read_while_the_target_catches_up) /* T16 */
{
    open_led(3, 0);
    c->cut[0][1] = true;
    cluster_propose(lead, 100, false);
    cluster_settle(c);
    ck_assert_int_eq(cluster_transfer(lead, 2), 0);
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_TIMEOUT_NOW));
    ck_assert(!is_read_at_once());
    cluster_close(c);
}
END_TEST

START_TEST(a_hangup_makes_no_candidate_of_who_has_promised)
{
    open_led(3, 0);
    c->cut[0][2] = c->cut[2][0] = true; /* 3 hears nothing and would vote for anybody: 2 alone gives the lease */
    cluster_pass(c, 700 * MS, true);
    ck_assert(is_read_at_once());
    isolate(1, true);
    struct raft_event hangup = {.type = RAFT_EVENT_HANGUP, .as.hangup.from = 1};
    cluster_step(cluster_core(c, 2), &hangup, false);
    cluster_pass(c, 200 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 1);
    ck_assert(is_read_at_once());
    cluster_pass(c, 2000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 1);
    cluster_close(c);
}
END_TEST

START_TEST(who_hears_a_leader_votes_for_nobody_else_in_its_time) /* the promise that a lease stands on */
{
    open_led(3, 0);
    cluster_pass(c, 61 * MS, true);
    isolate(1, true);
    /* Not even when the leader seems to be gone, ... */
    struct raft_event hangup = {.type = RAFT_EVENT_HANGUP, .as.hangup.from = 1};
    cluster_step(cluster_core(c, 2), &hangup, false);
    cluster_step(cluster_core(c, 3), &hangup, false);
    cluster_pass(c, 200 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 1);
    ck_assert(is_read_at_once());
    /* ... or the term has grown past it. */
    const struct raft_message reply = {
        .type = RAFT_VOTE_REPLY, .from = 3, .to = 2, .term = 9, .as.vote_reply.campaign_term = 9};
    const struct raft_message vote = {.type = RAFT_VOTE,
                                      .from = 3,
                                      .to = 2,
                                      .term = 9,
                                      .as.vote = {.campaign_term = 9, .last_index = 99, .last_term = 8}};
    cluster_inject(cluster_core(c, 2), &reply, NULL, 0);
    ck_assert_uint_eq(cluster_status(c, 2).term, 9);
    cluster_inject(cluster_core(c, 2), &vote, NULL, 0);
    ck_assert_uint_eq(cluster_status(c, 2).vote, 0);
    c->now_ns += 300 * MS;
    cluster_inject(cluster_core(c, 2), &vote, NULL, 0);
    ck_assert_uint_eq(cluster_status(c, 2).vote, 3);
    cluster_close(c);
}
END_TEST

START_TEST(who_starts_grants_nothing_for_a_longest_election_timeout) /* it may have promised before */
{
    open_led(3, 0);
    cluster_crash(c, 2, RAFT_PERSISTS_MAX);
    isolate(1, true);
    cluster_start(c, 2);
    const struct raft_message ask = {.type = RAFT_PREVOTE,
                                     .from = 3,
                                     .to = 2,
                                     .term = 1,
                                     .as.vote = {.campaign_term = 9, .last_index = 99, .last_term = 8}};
    cluster_inject(cluster_core(c, 2), &ask, NULL, 0);
    ck_assert(!cluster_sent(c, 2, 3, RAFT_PREVOTE_REPLY)->as.vote_reply.granted);
    cluster_drop_all(c);
    c->now_ns += 599 * MS;
    cluster_inject(cluster_core(c, 2), &ask, NULL, 0);
    ck_assert(!cluster_sent(c, 2, 3, RAFT_PREVOTE_REPLY)->as.vote_reply.granted);
    cluster_drop_all(c);
    c->now_ns += 2 * MS;
    cluster_inject(cluster_core(c, 2), &ask, NULL, 0);
    ck_assert(cluster_sent(c, 2, 3, RAFT_PREVOTE_REPLY)->as.vote_reply.granted);
    cluster_close(c);
}
END_TEST

/* B and C start anew with a shorter timeout: what they told A before lasts as long as it did. */
START_TEST(who_starts_keeps_the_promise_of_the_process_before_it_whatever_the_setting_is_now)
{
    for (int leases = 0; leases < 2; leases++) {
        open_led(3, 0);
        isolate(1, true);
        c->options.lease_ns = leases ? 270 * MS : 0;
        c->promise_ns = 5000 * MS;
        for (raft_member id = 2; id <= 3; id++) {
            cluster_crash(c, id, RAFT_PERSISTS_MAX);
            cluster_start(c, id);
        }
        for (unsigned ms = 0; ms < 4990; ms += 10) {
            cluster_pass(c, 10 * MS, true);
            ck_assert(!raft_is_leader(cluster_core(c, 2)->raft) && !raft_is_leader(cluster_core(c, 3)->raft));
        }
        cluster_pass(c, 3000 * MS, true);
        ck_assert(raft_is_leader(cluster_core(c, 2)->raft) || raft_is_leader(cluster_core(c, 3)->raft));
        cluster_close(c);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_read_within_the_lease_needs_no_round);
    tcase_add_test(tests, a_lease_counts_from_the_begin_of_the_round_and_ends);
    tcase_add_test(tests, a_lease_of_a_round_whose_time_is_forgotten_is_none);
    tcase_add_test(tests, reads_that_wait_for_a_round_are_answered_by_a_lease_that_comes);
    tcase_add_test(tests, learners_give_no_lease);
    tcase_add_test(tests, a_lease_in_a_joint_configuration_needs_both_majorities);
    tcase_add_test(tests, no_lease_before_a_block_of_the_own_term_is_committed);
    tcase_add_test(tests, no_lease_read_once_a_successor_was_asked_for_in_this_term);
    tcase_add_test(tests, no_lease_read_while_the_target_catches_up);
    tcase_add_test(tests, a_hangup_makes_no_candidate_of_who_has_promised);
    tcase_add_test(tests, who_hears_a_leader_votes_for_nobody_else_in_its_time);
    tcase_add_test(tests, who_starts_grants_nothing_for_a_longest_election_timeout);
    tcase_add_test(tests, who_starts_keeps_the_promise_of_the_process_before_it_whatever_the_setting_is_now);
}

int main(void)
{
    return unit_main("raft lease", add);
}
