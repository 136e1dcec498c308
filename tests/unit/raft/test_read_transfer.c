/* SPDX-License-Identifier: Apache-2.0 */
/* test_read_transfer.c - linearizable reads without a block, and handing leadership over. Core 1 leads unless said otherwise.
 * That an answered read covers all that was committed when it came is checked by the cluster itself. */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;
static struct cluster *c;
static struct cluster_core *lead;

static void open_led(uint32_t count)
{
    c = cluster_open_led(count);
    lead = cluster_core(c, 1);
}

/* Core 1 of three leads term 2 and its first block is on its way; block 1 of term 1 is on all disks. */
static void open_leading_uncommitted(void)
{
    c = cluster_open(3, 0, 1);
    cluster_lead_uncommitted(c);
    lead = cluster_core(c, 1);
}

START_TEST(a_read_is_answered_after_a_round_that_left_after_it) /* R5, thesis 6.4 */
{
    open_led(3);
    uint64_t ticket;
    ck_assert_int_eq(cluster_read(lead, &ticket), 0);
    const struct raft_message *m = cluster_sent(c, 1, 2, RAFT_HEARTBEAT); /* at once */
    ck_assert_ptr_nonnull(m);
    ck_assert_uint_lt(lead->reads_ready, ticket);
    cluster_settle(c);
    ck_assert_uint_eq(lead->reads_ready, ticket);
    cluster_close(c);
}
END_TEST

START_TEST(an_answer_to_an_earlier_round_serves_no_later_read) /* R5; T47: a round that was asked before the read */
{
    open_led(3);
    uint64_t first, second;
    cluster_read(lead, &first);
    cluster_read(lead, &second); /* the first round is on its way */
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_HEARTBEAT), 1);
    cluster_deliver_to(c, 2);
    cluster_deliver_to(c, 1);
    ck_assert_uint_eq(lead->reads_ready, first);
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 2, RAFT_HEARTBEAT)); /* the next left at once */
    cluster_settle(c);
    ck_assert_uint_eq(lead->reads_ready, second);
    cluster_close(c);
}
END_TEST

START_TEST(a_read_needs_a_majority_and_a_repeated_answer_is_one) /* T47: RedisLabs/raft 34 */
{
    open_led(5);
    uint64_t ticket;
    cluster_read(lead, &ticket);
    cluster_deliver_to(c, 2);
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t k = 0; k < c->message_count; k++)
            if (c->messages[k]->message.to == 1) cluster_deliver(c, k, true, false);
    ck_assert_uint_lt(lead->reads_ready, ticket);
    cluster_deliver_to(c, 3);
    cluster_deliver_to(c, 1);
    ck_assert_uint_eq(lead->reads_ready, ticket);
    cluster_close(c);
}
END_TEST

START_TEST(learners_confirm_no_read) /* T17 */
{
    c = cluster_open(4, 2, 1);
    cluster_start_all(c);
    cluster_elect(c, 1);
    lead = cluster_core(c, 1);
    cluster_crash(c, 2, 0);
    uint64_t ticket;
    cluster_read(lead, &ticket);
    cluster_settle(c);
    ck_assert_uint_lt(lead->reads_ready, ticket);
    cluster_close(c);
}
END_TEST

START_TEST(no_read_before_a_block_of_the_own_term_is_committed) /* R5; T46 */
{
    open_leading_uncommitted();
    uint64_t ticket;
    ck_assert_int_eq(cluster_read(lead, &ticket), 0);
    cluster_pass(c, 200 * MS, true);
    ck_assert_uint_lt(lead->reads_ready, ticket); /* all answered every heartbeat */
    cluster_propose(lead, 64, false);
    cluster_settle(c);
    ck_assert_uint_eq(lead->reads_ready, ticket);
    ck_assert_uint_eq(lead->effects->reads_index, 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_read_takes_the_commit_of_when_its_round_left) /* and does not wait for what came later */
{
    open_led(3);
    uint64_t ticket;
    cluster_read(lead, &ticket);
    raft_index commit = cluster_status(c, 1).commit;
    cluster_propose(lead, 100, false);
    for (uint32_t i = 0; i < 40 && lead->reads_ready < ticket; i++) {
        for (raft_member id = 1; id <= 3; id++)
            if (cluster_core(c, id)->pending_count > 0) cluster_disk_done(cluster_core(c, id), false);
        if (c->message_count > 0) cluster_deliver(c, 0, false, false);
    }
    ck_assert_uint_eq(lead->effects->reads_index, commit);
    cluster_close(c);
}
END_TEST

START_TEST(a_lost_round_is_made_good_by_the_next_heartbeat)
{
    open_led(3);
    uint64_t ticket;
    cluster_read(lead, &ticket);
    cluster_drop_all(c);
    cluster_pass(c, 60 * MS, true);
    ck_assert_uint_eq(lead->reads_ready, ticket);
    cluster_close(c);
}
END_TEST

START_TEST(reads_are_refused_where_nobody_leads_and_when_leadership_ends) /* T46: an error, not silence */
{
    open_led(3);
    ck_assert_int_eq(cluster_read(cluster_core(c, 2), NULL), LOCKSTEP_ENOTLEADER);
    uint64_t first, second;
    cluster_read(lead, &first);
    cluster_read(lead, &second);
    cluster_drop_all(c);
    struct raft_message newer = {.type = RAFT_HEARTBEAT, .from = 2, .to = 1, .term = 9};
    cluster_inject(lead, &newer, NULL, 0);
    ck_assert_uint_lt(lead->reads_ready, first);
    ck_assert_uint_eq(lead->reads_failed, second);
    cluster_close(c);
}
END_TEST

START_TEST(a_deposed_leader_answers_no_read) /* T26, T47 */
{
    open_led(3);
    /* 2 and 3 go on without 1, which does not know yet */
    c->now_ns += 299 * MS;
    cluster_drop_all(c);
    cluster_core(c, 1)->deadline_ns = UINT64_MAX;
    struct cluster_core *two = cluster_core(c, 2);
    c->now_ns = two->deadline_ns > cluster_core(c, 3)->deadline_ns ? two->deadline_ns : cluster_core(c, 3)->deadline_ns;
    cluster_time(two);
    while (cluster_status(c, 2).role != RAFT_LEADER || c->committed_last < 2) {
        for (uint32_t i = 0; i < c->message_count; i++)
            if (c->messages[i]->message.to == 1) cluster_drop(c, i--);
        for (raft_member id = 2; id <= 3; id++)
            if (cluster_core(c, id)->pending_count > 0) cluster_disk_done(cluster_core(c, id), false);
        if (c->message_count > 0) cluster_deliver(c, 0, false, false);
    }
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER); /* it thinks */
    uint64_t ticket;
    ck_assert_int_eq(cluster_read(lead, &ticket), 0);
    cluster_settle(c);
    ck_assert_uint_lt(lead->reads_ready, ticket);
    ck_assert_uint_eq(lead->reads_failed, ticket);
    cluster_close(c);
}
END_TEST

START_TEST(a_single_voter_reads_at_once)
{
    open_led(1);
    uint64_t ticket;
    ck_assert_int_eq(cluster_read(lead, &ticket), 0);
    ck_assert_uint_eq(lead->reads_ready, ticket);
    cluster_close(c);
}
END_TEST

START_TEST(the_ids_of_rounds_grow_also_from_term_to_term) /* R5, T47 */
{
    open_led(3);
    cluster_read(lead, NULL);
    uint64_t before = cluster_sent(c, 1, 2, RAFT_HEARTBEAT)->as.heartbeat.round;
    cluster_settle(c);
    ck_assert_int_eq(cluster_transfer(lead, 2), 0);
    cluster_settle(c);
    ck_assert_int_eq(cluster_transfer(cluster_core(c, 2), 1), 0);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_leader(c), 1);
    cluster_read(lead, NULL);
    ck_assert_uint_gt(cluster_sent(c, 1, 2, RAFT_HEARTBEAT)->as.heartbeat.round, before);
    cluster_close(c);
}
END_TEST

START_TEST(
    leadership_goes_to_the_target_at_once_though_all_hear_the_old_leader) /* thesis 3.10; T15: leases, pre-vote */
{
    open_led(3);
    raft_term term = cluster_status(c, 1).term;
    ck_assert_int_eq(cluster_transfer(lead, 3), 0);
    cluster_settle(c); /* no time passes */
    ck_assert_uint_eq(cluster_leader(c), 3);
    ck_assert_uint_eq(cluster_status(c, 3).term, term + 1);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    cluster_close(c);
}
END_TEST

static int seen_done;
static void watch_done(struct cluster_core *core, const struct raft_result *result, const struct raft_effects *effects)
{
    (void)core;
    (void)result;
    if (effects->transfer_done != 0) seen_done = effects->transfer_done;
}

START_TEST(a_transfer_says_how_it_ended)
{
    open_led(3);
    c->watch = watch_done;
    seen_done = 0;
    cluster_transfer(lead, 2);
    cluster_settle(c);
    ck_assert_int_eq(seen_done, 1);
    lead = cluster_core(c, 2);
    seen_done = 0;
    cluster_crash(c, 3, 0);
    cluster_transfer(lead, 3);
    for (uint32_t i = 0; i < 40; i++) cluster_pass(c, 10 * MS, true);
    ck_assert_int_eq(seen_done, -1);
    cluster_close(c);
}
END_TEST

START_TEST(nothing_is_proposed_while_leadership_is_handed_over) /* T15: hashicorp 581 */
{
    open_led(3);
    cluster_drop_all(c);
    cluster_transfer(lead, 2);
    ck_assert(!raft_may_propose(lead->raft, 1));
    ck_assert(!cluster_status(c, 1).writable);
    struct raft_event event = {
        .type = RAFT_EVENT_PROPOSE, .now_ns = c->now_ns, .as.propose = {.index = lead->last + 1, .bytes = 64}};
    struct raft_result result;
    raft_step(lead->raft, &event, &result);
    ck_assert_int_eq(result.error, LOCKSTEP_EUNAVAILABLE);
    cluster_close(c);
}
END_TEST

START_TEST(leadership_is_not_handed_on_before_its_first_block_is_committed)
{
    open_leading_uncommitted();
    ck_assert_int_eq(cluster_transfer(lead, 2), LOCKSTEP_EUNAVAILABLE);
    ck_assert_int_eq(cluster_propose(lead, 64, false), 0); /* and this is not refused */
    ck_assert_int_eq(cluster_transfer(lead, 2), LOCKSTEP_EUNAVAILABLE);
    cluster_settle(c);
    ck_assert_int_eq(cluster_transfer(lead, 2), 0);
    cluster_close(c);
}
END_TEST

START_TEST(the_target_is_asked_once_it_holds_everything_durably) /* T15: a lagging target */
{
    open_led(3);
    cluster_propose(lead, 100, false);
    cluster_transfer(lead, 2);
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_TIMEOUT_NOW));
    cluster_deliver_to(c, 2);
    cluster_deliver_to(c, 1);
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_TIMEOUT_NOW)); /* held, not durable */
    cluster_disk_done(cluster_core(c, 2), false);
    cluster_deliver_to(c, 1);
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_TIMEOUT_NOW), 1);
    cluster_close(c);
}
END_TEST

START_TEST(a_dead_target_wedges_nothing) /* T16 */
{
    open_led(3);
    cluster_crash(c, 3, 0);
    ck_assert_int_eq(cluster_transfer(lead, 3), 0); /* heard until just now */
    ck_assert(!raft_may_propose(lead->raft, 1));
    for (uint32_t i = 0; i < 35; i++) cluster_pass(c, 10 * MS, true); /* one election timeout and a little */
    ck_assert_uint_eq(cluster_leader(c), 1);
    ck_assert(raft_may_propose(lead->raft, 1));
    ck_assert_int_eq(cluster_transfer(lead, 3), LOCKSTEP_EUNAVAILABLE); /* known to be silent by now */
    ck_assert_int_eq(cluster_transfer(lead, 0), 0);                     /* somebody else */
    cluster_settle(c);
    ck_assert_uint_eq(cluster_leader(c), 2);
    cluster_close(c);
}
END_TEST

START_TEST(without_a_target_the_most_caught_up_voter_is_taken)
{
    open_led(3);
    cluster_propose(lead, 100, false);
    for (uint32_t i = 0; i < c->message_count; i++)
        if (c->messages[i]->message.to == 2) cluster_drop(c, i--);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 2).last_index, 1);
    cluster_transfer(lead, 0);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_leader(c), 3);
    cluster_close(c);
}
END_TEST

START_TEST(only_another_voter_can_be_a_target_and_one_transfer_runs_at_a_time) /* T15: demoted target */
{
    c = cluster_open(3, 1, 1);
    cluster_start_all(c);
    cluster_elect(c, 1);
    lead = cluster_core(c, 1);
    ck_assert_int_eq(cluster_transfer(lead, 3), LOCKSTEP_ENOTFOUND); /* a learner */
    ck_assert_int_eq(cluster_transfer(lead, 1), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(cluster_transfer(lead, 99), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(cluster_transfer(cluster_core(c, 2), 1), LOCKSTEP_ENOTLEADER);
    ck_assert_int_eq(cluster_transfer(lead, 2), 0);
    ck_assert_int_eq(cluster_transfer(lead, 2), LOCKSTEP_EUNAVAILABLE);
    cluster_close(c);
}
END_TEST

START_TEST(a_transfer_to_anybody_finds_nobody_where_no_other_one_votes)
{
    c = cluster_open(2, 1, 1); /* and a learner */
    cluster_start_all(c);
    cluster_elect(c, 1);
    ck_assert_int_eq(cluster_transfer(cluster_core(c, 1), 0), LOCKSTEP_ENOTFOUND);
    cluster_close(c);
}
END_TEST

START_TEST(only_the_leader_can_ask_for_an_election) /* T11 */
{
    open_led(3);
    struct raft_message m = {.type = RAFT_TIMEOUT_NOW, .from = 3, .to = 2, .term = cluster_status(c, 1).term};
    cluster_inject(cluster_core(c, 2), &m, NULL, 0);
    ck_assert_int_eq(cluster_status(c, 2).role, RAFT_FOLLOWER);
    m.from = 1;
    m.term--;
    cluster_inject(cluster_core(c, 2), &m, NULL, 0);
    ck_assert_int_eq(cluster_status(c, 2).role, RAFT_FOLLOWER);
    cluster_close(c);
}
END_TEST

START_TEST(reads_go_on_while_leadership_is_handed_over) /* T16: by rounds, never by a lease */
{
    open_led(3);
    cluster_crash(c, 3, 0);
    cluster_transfer(lead, 3);
    uint64_t ticket;
    ck_assert_int_eq(cluster_read(lead, &ticket), 0);
    cluster_settle(c);
    ck_assert_uint_eq(lead->reads_ready, ticket);
    cluster_close(c);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_read_is_answered_after_a_round_that_left_after_it);
    tcase_add_test(tests, an_answer_to_an_earlier_round_serves_no_later_read);
    tcase_add_test(tests, a_read_needs_a_majority_and_a_repeated_answer_is_one);
    tcase_add_test(tests, learners_confirm_no_read);
    tcase_add_test(tests, no_read_before_a_block_of_the_own_term_is_committed);
    tcase_add_test(tests, a_read_takes_the_commit_of_when_its_round_left);
    tcase_add_test(tests, a_lost_round_is_made_good_by_the_next_heartbeat);
    tcase_add_test(tests, reads_are_refused_where_nobody_leads_and_when_leadership_ends);
    tcase_add_test(tests, a_deposed_leader_answers_no_read);
    tcase_add_test(tests, a_single_voter_reads_at_once);
    tcase_add_test(tests, the_ids_of_rounds_grow_also_from_term_to_term);
    tcase_add_test(tests, leadership_goes_to_the_target_at_once_though_all_hear_the_old_leader);
    tcase_add_test(tests, a_transfer_says_how_it_ended);
    tcase_add_test(tests, nothing_is_proposed_while_leadership_is_handed_over);
    tcase_add_test(tests, leadership_is_not_handed_on_before_its_first_block_is_committed);
    tcase_add_test(tests, the_target_is_asked_once_it_holds_everything_durably);
    tcase_add_test(tests, a_dead_target_wedges_nothing);
    tcase_add_test(tests, without_a_target_the_most_caught_up_voter_is_taken);
    tcase_add_test(tests, a_transfer_to_anybody_finds_nobody_where_no_other_one_votes);
    tcase_add_test(tests, only_another_voter_can_be_a_target_and_one_transfer_runs_at_a_time);
    tcase_add_test(tests, only_the_leader_can_ask_for_an_election);
    tcase_add_test(tests, reads_go_on_while_leadership_is_handed_over);
}

int main(void)
{
    return unit_main("raft read and transfer", add);
}
