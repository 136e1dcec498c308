/* SPDX-License-Identifier: Apache-2.0 */
/* test_election.c - who may lead, and what a vote waits for. Core 1 is usually the one looked at; the others either run
 * or only speak through messages made here. */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;
static struct cluster *c; /* of the running test */

static void open_started(uint32_t count, uint32_t started)
{
    c = cluster_open(count, 0, 7);
    for (raft_member id = 1; id <= started; id++) cluster_start(c, id);
}

static struct raft_message vote(raft_member from, raft_term term, raft_index last, raft_term last_term)
{
    return (struct raft_message){
        .type = RAFT_VOTE,
        .from = from,
        .to = 1,
        .term = term,
        .as.vote = {.campaign_term = term, .last_index = last, .last_term = last_term},
    };
}

static struct raft_message prevote(raft_member from, raft_term term, raft_index last, raft_term last_term)
{
    struct raft_message m = vote(from, term, last, last_term);
    m.type = RAFT_PREVOTE;
    m.as.vote.campaign_term = term + 1;
    return m;
}

static struct raft_message heartbeat(raft_member from, raft_term term)
{
    return (struct raft_message){.type = RAFT_HEARTBEAT, .from = from, .to = 1, .term = term};
}

static struct raft_message answer(enum raft_message_type type, raft_member from, raft_term term,
                                  raft_term campaign_term, bool granted)
{
    return (struct raft_message){
        .type = (uint8_t)type,
        .from = from,
        .to = 1,
        .term = term,
        .as.vote_reply = {.campaign_term = campaign_term, .granted = granted},
    };
}

static int inject(struct raft_message m)
{
    return cluster_inject(cluster_core(c, 1), &m, NULL, 0);
}

static void flush(void)
{
    while (cluster_core(c, 1)->pending_count > 0) cluster_disk_done(cluster_core(c, 1), false);
}

/* Core 1's timer runs out. */
static void time_out(void)
{
    c->now_ns += 600 * MS;
    cluster_time(cluster_core(c, 1));
}

static bool granted(raft_member to)
{
    const struct raft_message *m = cluster_sent(c, 1, to, RAFT_VOTE_REPLY);
    return m != NULL && m->as.vote_reply.granted;
}

static bool prevote_granted(raft_member to)
{
    const struct raft_message *m = cluster_sent(c, 1, to, RAFT_PREVOTE_REPLY);
    ck_assert_ptr_nonnull(m);
    return m->as.vote_reply.granted;
}

START_TEST(a_core_that_hears_nobody_asks_before_it_campaigns) /* thesis 9.6 */
{
    open_started(3, 1);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    time_out();
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_PRECANDIDATE);
    ck_assert_uint_eq(cluster_status(c, 1).term, 0);
    const struct raft_message *m = cluster_sent(c, 1, 2, RAFT_PREVOTE);
    ck_assert_ptr_nonnull(m);
    ck_assert_uint_eq(m->as.vote.campaign_term, 1);
    ck_assert_uint_eq(m->term, 0);
    ck_assert_uint_eq(cluster_core(c, 1)->pending_count, 0); /* a question needs no disk */
    cluster_close(c);
}
END_TEST

START_TEST(timeouts_are_drawn_from_one_to_two_times_the_shortest_and_differ) /* thesis 3.4 */
{
    uint64_t least = UINT64_MAX, most = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        c = cluster_open(3, 0, seed);
        cluster_start(c, 1);
        uint64_t timeout = cluster_core(c, 1)->deadline_ns - c->now_ns;
        ck_assert_uint_ge(timeout, 300 * MS);
        ck_assert_uint_lt(timeout, 600 * MS);
        if (timeout < least) least = timeout;
        if (timeout > most) most = timeout;
        cluster_close(c);
    }
    ck_assert_uint_lt(least, 320 * MS);
    ck_assert_uint_gt(most, 580 * MS);
}
END_TEST

START_TEST(vote_requests_wait_until_the_own_vote_is_durable) /* R1, R7 */
{
    open_started(3, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_VOTE));
    flush();
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 2, RAFT_VOTE));
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 3, RAFT_VOTE));
    cluster_close(c);
}
END_TEST

START_TEST(a_grant_leaves_after_the_disk_and_survives_a_crash) /* R7, T7: votes persisted lazily */
{
    open_started(3, 1);
    inject(vote(2, 5, 0, 0));
    ck_assert(!granted(2));
    cluster_crash(c, 1, 0); /* before the write: the vote was never given */
    cluster_start(c, 1);
    inject(vote(3, 5, 0, 0));
    ck_assert(!granted(3));
    flush();
    ck_assert(granted(3));
    cluster_crash(c, 1, 0);
    cluster_start(c, 1);
    inject(vote(2, 5, 0, 0));
    flush();
    ck_assert(!granted(2));
    cluster_close(c);
}
END_TEST

START_TEST(one_vote_a_term_and_the_same_candidate_is_answered_again) /* T10 */
{
    open_started(3, 1);
    inject(vote(2, 5, 0, 0));
    flush();
    ck_assert(granted(2));
    cluster_drop_all(c);
    inject(vote(3, 5, 0, 0));
    flush();
    ck_assert(!granted(3));
    inject(vote(2, 5, 0, 0));
    ck_assert(granted(2));
    ck_assert_uint_eq(cluster_core(c, 1)->pending_count, 0); /* nothing new to write */
    cluster_close(c);
}
END_TEST

START_TEST(a_vote_outlives_the_pre_vote_of_the_same_term) /* T1 */
{
    open_started(3, 1);
    inject(vote(2, 5, 0, 0));
    flush();
    time_out();
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_PRECANDIDATE);
    ck_assert_uint_eq(cluster_status(c, 1).vote, 2);
    inject(vote(3, 5, 0, 0));
    flush();
    ck_assert(!granted(3));
    cluster_close(c);
}
END_TEST

START_TEST(a_vote_outlives_stepping_down_in_the_same_term) /* T1 */
{
    open_started(3, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    flush();
    inject(heartbeat(3, 1)); /* somebody else won term 1 */
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    ck_assert_uint_eq(cluster_status(c, 1).vote, 1);
    inject(vote(2, 1, 0, 0));
    flush();
    ck_assert(!granted(2));
    cluster_close(c);
}
END_TEST

START_TEST(logs_are_compared_by_last_term_then_by_length) /* thesis 3.6.1; T9 */
{
    static const struct {
        raft_index last;
        raft_term last_term;
        bool up_to_date;
    } cases[] = {
        {3, 4, true}, {4, 4, true}, {2, 4, false}, {1, 5, true}, {9, 3, false}, {0, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        c = cluster_open(3, 0, 1);
        cluster_lay_log(c, 1, (raft_term[]){1, 4, 4}, 3, 0, (struct raft_hard_state){.term = 4});
        cluster_start(c, 1);
        inject(prevote(2, 6, cases[i].last, cases[i].last_term));
        ck_assert(prevote_granted(2) == cases[i].up_to_date); /* T8: as strict as the vote */
        inject(vote(2, 7, cases[i].last, cases[i].last_term));
        flush();
        ck_assert(granted(2) == cases[i].up_to_date);
        ck_assert_uint_eq(cluster_status(c, 1).term, 7);
        cluster_close(c);
    }
}
END_TEST

START_TEST(blocks_in_flight_to_the_disk_count_in_the_vote_check) /* R7 */
{
    open_started(3, 1);
    struct raft_message append = {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 1, .as.append = {.last_index = 2}};
    struct raft_entry entries[] = {{1, 1, 100, NULL}, {2, 1, 100, NULL}};
    ck_assert_int_eq(cluster_inject(cluster_core(c, 1), &append, entries, 2), 0);
    c->now_ns += 700 * MS; /* its leader is gone; nothing was flushed */
    inject(vote(3, 2, 1, 1));
    flush();
    ck_assert(!granted(3));
    cluster_close(c);
}
END_TEST

START_TEST(a_pre_vote_changes_nothing_where_it_is_asked) /* T6; T4: nor does granting one count as contact */
{
    open_started(3, 1);
    uint64_t deadline = cluster_core(c, 1)->deadline_ns;
    struct raft_status before = cluster_status(c, 1);
    c->now_ns += 100 * MS;
    inject(prevote(2, 40, 0, 0));
    ck_assert(prevote_granted(2));
    struct raft_status after = cluster_status(c, 1);
    ck_assert_uint_eq(after.term, before.term);
    ck_assert_uint_eq(after.vote, before.vote);
    ck_assert_int_eq(after.role, before.role);
    ck_assert_uint_eq(cluster_core(c, 1)->deadline_ns, deadline);
    ck_assert_uint_eq(cluster_core(c, 1)->pending_count, 0);
    cluster_close(c);
}
END_TEST

START_TEST(who_hears_a_leader_refuses_pre_vote_and_vote) /* thesis 4.2.3; T5, T12 */
{
    open_started(3, 1);
    inject(heartbeat(2, 1));
    flush();
    cluster_drop_all(c);
    c->now_ns += 299 * MS;
    inject(prevote(3, 1, 9, 1));
    ck_assert(!prevote_granted(3));
    inject(vote(3, 2, 9, 1));
    ck_assert_uint_eq(cluster_status(c, 1).term, 1); /* the leader is not deposed */
    ck_assert_ptr_null(cluster_sent(c, 1, 3, RAFT_VOTE_REPLY));
    c->now_ns += 1 * MS;
    inject(prevote(3, 1, 9, 1));
    ck_assert(prevote_granted(3));
    cluster_close(c);
}
END_TEST

START_TEST(the_frame_header_of_a_large_append_counts_as_contact) /* R10 */
{
    open_started(3, 1);
    inject(heartbeat(2, 1));
    flush();
    c->now_ns += 250 * MS;
    struct raft_event contact = {.type = RAFT_EVENT_CONTACT, .as.contact = {.from = 2, .term = 1}};
    cluster_step(cluster_core(c, 1), &contact, false);
    ck_assert_uint_ge(cluster_core(c, 1)->deadline_ns, c->now_ns + 300 * MS);
    c->now_ns += 250 * MS;
    inject(prevote(3, 1, 9, 1));
    ck_assert(!prevote_granted(3));
    uint64_t deadline = cluster_core(c, 1)->deadline_ns;
    contact.as.contact.from = 3; /* not our leader */
    cluster_step(cluster_core(c, 1), &contact, false);
    ck_assert_uint_eq(cluster_core(c, 1)->deadline_ns, deadline);
    contact = (struct raft_event){.type = RAFT_EVENT_CONTACT, .as.contact = {.from = 2, .term = 0}};
    cluster_step(cluster_core(c, 1), &contact, false); /* of an old term */
    ck_assert_uint_eq(cluster_core(c, 1)->deadline_ns, deadline);
    cluster_close(c);
}
END_TEST

static void hang_up(raft_member at, raft_member from)
{
    struct raft_event event = {.type = RAFT_EVENT_HANGUP, .as.hangup = {.from = from}};
    cluster_step(cluster_core(c, at), &event, false);
}

START_TEST(who_was_hung_up_on_by_its_leader_refuses_no_longer_and_asks_soon) /* thesis 4.2.3, 9.6 */
{
    open_started(3, 1);
    inject(heartbeat(3, 1));
    flush();
    cluster_drop_all(c);
    hang_up(1, 2); /* not our leader */
    inject(prevote(2, 1, 9, 1));
    ck_assert(!prevote_granted(2));
    hang_up(1, 3);
    inject(prevote(2, 1, 9, 1));
    ck_assert(prevote_granted(2));
    ck_assert_uint_eq(cluster_status(c, 1).leader, 3); /* it may be heard again */
    ck_assert_uint_le(cluster_core(c, 1)->deadline_ns, c->now_ns + 30 * MS);
    c->now_ns = cluster_core(c, 1)->deadline_ns;
    cluster_time(cluster_core(c, 1));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_PRECANDIDATE);
    ck_assert_uint_eq(cluster_status(c, 1).term, 1); /* it only asks */
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 2, RAFT_PREVOTE));
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 3, RAFT_PREVOTE));
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_heard_again_after_its_hang_up_is_followed_on)
{
    open_started(3, 1);
    inject(heartbeat(2, 1));
    flush();
    hang_up(1, 2);
    inject(heartbeat(2, 1));
    ck_assert_uint_ge(cluster_core(c, 1)->deadline_ns, c->now_ns + 300 * MS);
    cluster_drop_all(c);
    inject(prevote(3, 1, 9, 1));
    ck_assert(!prevote_granted(3));
    hang_up(1, 2);
    struct raft_event contact = {.type = RAFT_EVENT_CONTACT, .as.contact = {.from = 2, .term = 1}};
    cluster_step(cluster_core(c, 1), &contact, false);
    ck_assert_uint_ge(cluster_core(c, 1)->deadline_ns, c->now_ns + 300 * MS);
    cluster_close(c);
}
END_TEST

START_TEST(followers_of_a_dead_leader_ask_in_turn_and_do_not_split_their_votes) /* thesis 3.4 */
{
    for (raft_member dead = 1; dead <= 5; dead++) {
        open_started(5, 5);
        cluster_elect(c, dead);
        cluster_pass(c, 100 * MS, true);
        raft_term term = cluster_status(c, dead).term;
        cluster_crash(c, dead, 0);
        for (raft_member id = 1; id <= 5; id++)
            if (id != dead) hang_up(id, dead);
        cluster_pass(c, 10 * MS, true);
        ck_assert_uint_eq(cluster_leader(c), dead % 5 + 1); /* the next in order */
        ck_assert_uint_eq(cluster_status(c, cluster_leader(c)).term, term + 1);
        cluster_close(c);
    }
}
END_TEST

START_TEST(when_the_first_follower_in_turn_cannot_win_the_next_one_does)
{
    open_started(5, 5);
    cluster_elect(c, 5);
    cluster_crash(c, 1, 0); /* is first after 5 */
    cluster_propose(cluster_core(c, 5), 100, false);
    cluster_settle(c);
    cluster_start(c, 1); /* hears nobody: it has no leader, and an older log */
    cluster_crash(c, 5, 0);
    for (raft_member id = 1; id <= 4; id++) hang_up(id, 5);
    cluster_pass(c, 25 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 2);
    cluster_close(c);
}
END_TEST

START_TEST(who_alone_lost_its_connection_does_not_depose_the_leader) /* thesis 4.2.3; T5, T12 */
{
    for (raft_member alone = 2; alone <= 3; alone++) {
        open_started(3, 3);
        cluster_elect(c, 1);
        raft_term term = cluster_status(c, 1).term;
        c->cut[0][alone - 1] = true; /* until the leader has connected again */
        hang_up(alone, 1);
        cluster_pass(c, 200 * MS, true);
        ck_assert_int_eq(cluster_status(c, alone).role, RAFT_PRECANDIDATE);
        c->cut[0][alone - 1] = false;
        cluster_pass(c, 100 * MS, true);
        ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
        ck_assert_uint_eq(cluster_status(c, 1).term, term);
        ck_assert_uint_eq(cluster_status(c, alone).leader, 1);
        cluster_close(c);
    }
}
END_TEST

START_TEST(a_hang_up_makes_no_learner_and_no_leader_campaign) /* T11 */
{
    c = cluster_open(4, 1, 1);
    cluster_start_all(c);
    cluster_elect(c, 1);
    uint64_t deadline = cluster_core(c, 4)->deadline_ns;
    hang_up(4, 1);
    ck_assert_uint_eq(cluster_core(c, 4)->deadline_ns, deadline);
    for (raft_member id = 2; id <= 4; id++) hang_up(1, id);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_that_asks_for_a_pre_vote_leads_no_more) /* T4: its own followers would refuse it */
{
    open_started(3, 1);
    inject(heartbeat(2, 1));
    flush();
    inject(prevote(2, 1, 0, 0));
    ck_assert(prevote_granted(2));
    inject(prevote(3, 1, 0, 0));
    ck_assert(!prevote_granted(3));
    cluster_close(c);
}
END_TEST

START_TEST(a_request_from_a_member_not_known_yet_is_judged_by_its_log) /* T11, T12 */
{
    open_started(3, 1);
    inject(vote(99, 1, 0, 0));
    flush();
    ck_assert(granted(99));
    cluster_close(c);
}
END_TEST

START_TEST(answers_from_outside_the_configuration_do_not_count) /* T12, I1 */
{
    open_started(3, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 99, 0, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_PRECANDIDATE);
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    flush();
    inject(answer(RAFT_VOTE_REPLY, 99, 1, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    inject(answer(RAFT_VOTE_REPLY, 3, 1, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    cluster_close(c);
}
END_TEST

START_TEST(pre_votes_are_not_votes_and_old_answers_count_for_nothing) /* T2 */
{
    open_started(3, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    flush();
    inject(answer(RAFT_PREVOTE_REPLY, 3, 0, 1, true)); /* late */
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    ck_assert_uint_eq(cluster_status(c, 1).term, 1);
    inject(answer(RAFT_VOTE_REPLY, 3, 1, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    inject(answer(RAFT_PREVOTE_REPLY, 2, 1, 2, true)); /* after winning: no new campaign */
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    ck_assert_uint_eq(cluster_status(c, 1).term, 1);
    cluster_close(c);
}
END_TEST

START_TEST(answers_to_an_older_campaign_count_for_nothing) /* T2 */
{
    c = cluster_open(3, 0, 7);
    cluster_lay_log(c, 1, NULL, 0, 0, (struct raft_hard_state){.term = 5});
    cluster_start(c, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 4, 5, true)); /* it asked for 5 once; now it asks for 6 */
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_PRECANDIDATE);
    inject(answer(RAFT_PREVOTE_REPLY, 2, 5, 6, true));
    flush();
    inject(answer(RAFT_VOTE_REPLY, 2, 5, 5, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    inject(answer(RAFT_VOTE_REPLY, 2, 6, 6, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    cluster_close(c);
}
END_TEST

START_TEST(nobody_leads_before_its_own_vote_is_durable) /* R7; fuzz_raft found it */
{
    open_started(3, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    inject(answer(RAFT_VOTE_REPLY, 2, 1, 1, true)); /* to a question that was not asked yet */
    inject(answer(RAFT_VOTE_REPLY, 3, 1, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    flush();
    inject(answer(RAFT_VOTE_REPLY, 3, 1, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    cluster_close(c);
}
END_TEST

START_TEST(one_voter_answering_twice_is_one_vote)
{
    open_started(5, 1);
    time_out();
    for (uint32_t i = 0; i < 3; i++) inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_PRECANDIDATE);
    inject(answer(RAFT_PREVOTE_REPLY, 3, 0, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    flush();
    for (uint32_t i = 0; i < 3; i++) inject(answer(RAFT_VOTE_REPLY, 2, 1, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    cluster_close(c);
}
END_TEST

/* Nothing but time passes until core 1 asks again. */
static void ask_again(void)
{
    cluster_drop_all(c);
    ck_assert_uint_eq(cluster_core(c, 1)->deadline_ns, c->now_ns + 60 * MS);
    c->now_ns += 60 * MS;
    cluster_time(cluster_core(c, 1));
}

START_TEST(unanswered_requests_are_repeated_and_refused_votes_are_not)
{
    open_started(5, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    ask_again();
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_PREVOTE));
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 3, RAFT_PREVOTE));
    inject(answer(RAFT_PREVOTE_REPLY, 3, 0, 1, true));
    flush();
    inject(answer(RAFT_VOTE_REPLY, 2, 1, 1, false));
    ask_again();
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_VOTE));
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 3, RAFT_VOTE));
    cluster_close(c);
}
END_TEST

START_TEST(a_refused_pre_vote_is_asked_for_again_soon) /* the asked one may have missed its leader a little later */
{
    open_started(3, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, false));
    ask_again();
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 2, RAFT_PREVOTE));
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    cluster_close(c);
}
END_TEST

START_TEST(a_candidate_whose_vote_times_out_asks_again_before_the_next_term) /* T10 */
{
    open_started(3, 1);
    time_out();
    inject(answer(RAFT_PREVOTE_REPLY, 2, 0, 1, true));
    flush();
    time_out();
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_PRECANDIDATE);
    ck_assert_uint_eq(cluster_status(c, 1).term, 1);
    cluster_close(c);
}
END_TEST

START_TEST(a_refusal_with_a_higher_term_brings_the_asker_up_to_it) /* T3 */
{
    c = cluster_open(3, 0, 1);
    /* 1 has the longer log and the lower term, 2 the higher term and a shorter log; 3 is down */
    cluster_lay_log(c, 1, (raft_term[]){1, 1, 2}, 3, 0, (struct raft_hard_state){.term = 2});
    cluster_lay_log(c, 2, (raft_term[]){1}, 1, 0, (struct raft_hard_state){.term = 9});
    cluster_start(c, 1);
    cluster_start(c, 2);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 1);
    ck_assert_uint_gt(cluster_status(c, 1).term, 9);
    ck_assert_uint_eq(cluster_status(c, 2).commit, 4);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_of_the_past_hears_of_the_newer_term) /* T3: or it and the stray would wait for ever */
{
    c = cluster_open(3, 0, 1);
    cluster_lay_log(c, 1, NULL, 0, 0, (struct raft_hard_state){.term = 9});
    cluster_start(c, 1);
    inject(heartbeat(2, 4));
    const struct raft_message *m = cluster_sent(c, 1, 2, RAFT_ACK);
    ck_assert_ptr_nonnull(m);
    ck_assert_uint_eq(m->term, 9);
    ck_assert_uint_eq(m->as.ack.durable_index, 0);
    ck_assert_uint_eq(cluster_status(c, 1).leader, 0);
    cluster_close(c);
}
END_TEST

START_TEST(a_single_voter_leads_once_its_vote_is_durable) /* T28 */
{
    open_started(1, 1);
    time_out();
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_CANDIDATE);
    cluster_disk_done(cluster_core(c, 1), false);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 0);
    flush();
    ck_assert_uint_eq(cluster_status(c, 1).commit, 1);
    cluster_close(c);
}
END_TEST

START_TEST(a_learner_never_campaigns_but_votes_when_asked) /* T11 */
{
    c = cluster_open(3, 1, 1);
    cluster_start(c, 3);
    for (uint32_t i = 0; i < 20; i++) {
        c->now_ns += 600 * MS;
        cluster_time(cluster_core(c, 3));
    }
    ck_assert_int_eq(cluster_status(c, 3).role, RAFT_FOLLOWER);
    ck_assert_uint_eq(c->message_count, 0);
    struct raft_message m = vote(2, 1, 0, 0);
    m.to = 3;
    cluster_inject(cluster_core(c, 3), &m, NULL, 0);
    cluster_disk_done(cluster_core(c, 3), false);
    ck_assert(cluster_sent(c, 3, 2, RAFT_VOTE_REPLY)->as.vote_reply.granted);
    m = (struct raft_message){.type = RAFT_HEARTBEAT, .from = 2, .to = 3, .term = 1};
    cluster_inject(cluster_core(c, 3), &m, NULL, 0);
    m.type = RAFT_TIMEOUT_NOW;
    cluster_inject(cluster_core(c, 3), &m, NULL, 0);
    ck_assert_int_eq(cluster_status(c, 3).role, RAFT_FOLLOWER);
    cluster_close(c);
}
END_TEST

START_TEST(a_node_without_a_configuration_never_campaigns) /* before its birth record is complete */
{
    c = cluster_open(1, 0, 1);
    c->configuration.count = 0;
    cluster_start(c, 1);
    for (uint32_t i = 0; i < 5; i++) time_out();
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_that_hears_no_majority_steps_down_and_forgets_that_it_led) /* thesis 6.2; T5 */
{
    open_started(5, 5);
    cluster_elect(c, 1);
    cluster_crash(c, 3, 0);
    cluster_crash(c, 4, 0);
    cluster_pass(c, 2000 * MS, true); /* 1, 2, 5 are a majority */
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    cluster_crash(c, 5, 0);
    uint64_t since = c->now_ns;
    for (uint32_t i = 0; i < 100 && cluster_status(c, 1).role == RAFT_LEADER; i++) cluster_pass(c, 10 * MS, true);
    ck_assert_uint_ge(c->now_ns - since, 240 * MS); /* last heard up to a heartbeat before */
    ck_assert_uint_le(c->now_ns - since, 320 * MS);
    ck_assert_int_ne(cluster_status(c, 1).role, RAFT_LEADER);
    ck_assert_uint_eq(cluster_status(c, 1).leader, 0);
    cluster_close(c);
}
END_TEST

START_TEST(learners_do_not_keep_a_leader_in_office) /* T17 */
{
    c = cluster_open(5, 2, 1);
    cluster_start_all(c);
    cluster_elect(c, 1);
    cluster_crash(c, 2, 0);
    cluster_crash(c, 3, 0);
    cluster_pass(c, 500 * MS, true);
    ck_assert_int_ne(cluster_status(c, 1).role, RAFT_LEADER);
    cluster_close(c);
}
END_TEST

START_TEST(two_leaders_in_one_term_are_reported_and_nothing_is_done) /* T14 */
{
    open_started(3, 1);
    inject(heartbeat(2, 1));
    flush();
    ck_assert_int_eq(inject(heartbeat(3, 1)), LOCKSTEP_EPROTO);
    ck_assert_uint_eq(cluster_status(c, 1).leader, 2);
    struct raft_message append = {.type = RAFT_APPEND, .from = 3, .to = 1, .term = 1, .as.append = {.last_index = 1}};
    struct raft_entry entry = {1, 1, 100, NULL};
    ck_assert_int_eq(cluster_inject(cluster_core(c, 1), &append, &entry, 1), LOCKSTEP_EPROTO);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 0);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_that_hears_another_of_its_own_term_reports_it) /* T14 */
{
    open_started(3, 3);
    cluster_elect(c, 1);
    ck_assert_int_eq(inject(heartbeat(2, 1)), LOCKSTEP_EPROTO);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    cluster_close(c);
}
END_TEST

START_TEST(nothing_is_promised_once_the_disk_has_failed) /* R8 */
{
    open_started(3, 3);
    cluster_elect(c, 1);
    struct cluster_core *core = cluster_core(c, 1);
    ck_assert_int_eq(cluster_read(core, NULL), 0);
    cluster_drop_all(c);
    struct raft_event failed = {.type = RAFT_EVENT_DISK_FAILED};
    cluster_step(core, &failed, false);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    ck_assert_uint_eq(core->reads_failed, 1);
    ck_assert_int_eq(inject(vote(2, 9, 99, 9)), LOCKSTEP_EIO);
    ck_assert_int_eq(inject(heartbeat(2, 10)), LOCKSTEP_EIO);
    c->now_ns += 5000 * MS;
    ck_assert_int_eq(cluster_time(core), LOCKSTEP_EIO);
    ck_assert_uint_eq(c->message_count, 0);
    ck_assert_uint_eq(core->pending_count, 0);
    ck_assert_uint_eq(core->deadline_ns, UINT64_MAX);
    cluster_close(c);
}
END_TEST

START_TEST(a_disk_that_fails_under_a_grant_keeps_it_for_ever) /* R8, R7 */
{
    open_started(3, 1);
    inject(vote(2, 5, 0, 0));
    struct raft_event failed = {.type = RAFT_EVENT_DISK_FAILED};
    cluster_step(cluster_core(c, 1), &failed, false);
    cluster_disk_done(cluster_core(c, 1), false); /* "success" after a failure proves nothing */
    ck_assert(!granted(2));
    cluster_close(c);
}
END_TEST

static void abstain(struct cluster_core *core, bool abstains)
{
    struct raft_event event = {.type = RAFT_EVENT_ABSTAIN, .as.abstain.abstains = abstains};
    cluster_step(core, &event, false);
}

START_TEST(who_abstains_stops_leading_and_the_others_elect_another) /* J7, J8 */
{
    open_started(3, 3);
    cluster_elect(c, 1);
    struct cluster_core *core = cluster_core(c, 1);
    abstain(core, true);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    ck_assert_uint_eq(cluster_status(c, 1).term, 1); /* no new term for it */
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 0);
    ck_assert_uint_ne(cluster_leader(c), 1);
    raft_index last = cluster_status(c, cluster_leader(c)).last_index;
    ck_assert_int_eq(cluster_propose(cluster_core(c, cluster_leader(c)), 100, false), 0);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).durable_index, last + 1); /* it follows */
    cluster_crash(c, cluster_leader(c), 0);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 0); /* the third has no majority without its vote */
    abstain(core, false);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 0);
    cluster_close(c);
}
END_TEST

START_TEST(who_abstains_grants_nothing_not_even_what_is_on_its_way_to_the_disk) /* J7 */
{
    open_started(3, 1);
    inject(vote(2, 5, 0, 0));
    abstain(cluster_core(c, 1), true);
    cluster_disk_done(cluster_core(c, 1), false);
    ck_assert(!granted(2));
    cluster_drop_all(c);
    inject(vote(2, 6, 99, 5));
    cluster_disk_done(cluster_core(c, 1), false);
    ck_assert(!granted(2));
    abstain(cluster_core(c, 1), false);
    inject(vote(2, 6, 99, 5)); /* asked again, by whom it had not refused in that term */
    while (cluster_core(c, 1)->pending_count > 0) cluster_disk_done(cluster_core(c, 1), false);
    ck_assert(granted(2));
    cluster_close(c);
}
END_TEST

static void stand_back(struct cluster_core *core, bool stands_back)
{
    struct raft_event event = {.type = RAFT_EVENT_STAND_BACK, .as.stand_back.stands_back = stands_back};
    cluster_step(core, &event, false);
}

START_TEST(who_stands_back_hands_over_and_votes_and_campaigns_no_more) /* M5 */
{
    open_started(3, 3);
    cluster_elect(c, 1);
    cluster_pass(c, 100 * MS, true);
    stand_back(cluster_core(c, 1), true);
    cluster_pass(c, 100 * MS, true); /* no timeout: it was handed over */
    raft_member next = cluster_leader(c), other = next == 2 ? 3 : 2;
    ck_assert(next == 2 || next == 3);
    cluster_crash(c, next, 0);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), other); /* by its vote */
    cluster_crash(c, other, 0);
    cluster_start(c, next);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 1);
    cluster_close(c);
}
END_TEST

START_TEST(who_stands_back_and_finds_no_successor_stops_leading_all_the_same) /* M5 */
{
    open_started(3, 3);
    cluster_elect(c, 1);
    cluster_pass(c, 100 * MS, true);
    for (raft_member id = 1; id <= 3; id++) stand_back(cluster_core(c, id), true);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 0);
    stand_back(cluster_core(c, 1), false);
    cluster_pass(c, 5000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 1);
    cluster_close(c);
}
END_TEST

START_TEST(malformed_messages_are_refused_and_change_nothing)
{
    open_started(3, 1);
    struct raft_message bad[] = {
        {.type = 0, .from = 2, .to = 1, .term = 1},
        {.type = RAFT_MESSAGE_TYPES, .from = 2, .to = 1, .term = 1},
        {.type = 255, .from = 2, .to = 1, .term = 1},
        {.type = RAFT_HEARTBEAT, .from = 1, .to = 1, .term = 1},
        {.type = RAFT_HEARTBEAT, .from = 0, .to = 1, .term = 1},
        {.type = RAFT_HEARTBEAT, .from = 2, .to = 3, .term = 1},
        {.type = RAFT_HEARTBEAT, .from = 2, .to = 1, .term = UINT64_MAX},
        {.type = RAFT_HEARTBEAT, .from = 2, .to = 1, .term = 1, .as.heartbeat = {.match_term = 2}},
        {.type = RAFT_VOTE, .from = 2, .to = 1, .term = 1, .as.vote = {.campaign_term = 2}},
        {.type = RAFT_VOTE, .from = 2, .to = 1, .term = 1, .as.vote = {.campaign_term = 1, .last_term = 1}},
        {.type = RAFT_PREVOTE, .from = 2, .to = 1, .term = 1, .as.vote = {.campaign_term = 1}},
        {.type = RAFT_PREVOTE, .from = 2, .to = 1, .term = 1, .as.vote = {.campaign_term = UINT64_MAX}},
        {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 1, .as.append = {.previous_index = 5, .last_index = 4}},
        {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 1, .as.append = {.previous_term = 2}},
        {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 1, .as.append = {.last_index = UINT64_MAX}},
        {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 1, .as.append = {.previous_term = 1}},
        {.type = RAFT_HEARTBEAT, .from = 2, .to = 1, .term = 1, .as.heartbeat = {.match_term = 1}},
        {.type = RAFT_HEARTBEAT, .from = 2, .to = 1, .term = 1, .as.heartbeat = {.match_index = 1}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(inject(bad[i]), LOCKSTEP_EINVAL);
        ck_assert_uint_eq(cluster_status(c, 1).term, 0);
        ck_assert_uint_eq(c->message_count, 0);
    }
    cluster_close(c);
}
END_TEST

START_TEST(cores_cut_off_in_one_direction_do_not_disturb_the_others) /* T5: the partial partition */
{
    open_started(5, 5);
    cluster_elect(c, 1);
    raft_term term = cluster_status(c, 1).term;
    /* 5 hears nobody, the others hear 5 */
    for (uint32_t i = 0; i < 400; i++) {
        cluster_pass(c, 10 * MS, false);
        for (uint32_t k = 0; k < c->message_count;)
            if (c->messages[k]->message.to == 5)
                cluster_drop(c, k);
            else
                k++;
        cluster_settle(c);
    }
    ck_assert_uint_eq(cluster_leader(c), 1);
    ck_assert_uint_eq(cluster_status(c, 1).term, term);
    ck_assert_int_eq(cluster_status(c, 5).role, RAFT_PRECANDIDATE);
    cluster_close(c);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_core_that_hears_nobody_asks_before_it_campaigns);
    tcase_add_test(tests, timeouts_are_drawn_from_one_to_two_times_the_shortest_and_differ);
    tcase_add_test(tests, vote_requests_wait_until_the_own_vote_is_durable);
    tcase_add_test(tests, a_grant_leaves_after_the_disk_and_survives_a_crash);
    tcase_add_test(tests, one_vote_a_term_and_the_same_candidate_is_answered_again);
    tcase_add_test(tests, a_vote_outlives_the_pre_vote_of_the_same_term);
    tcase_add_test(tests, a_vote_outlives_stepping_down_in_the_same_term);
    tcase_add_test(tests, logs_are_compared_by_last_term_then_by_length);
    tcase_add_test(tests, blocks_in_flight_to_the_disk_count_in_the_vote_check);
    tcase_add_test(tests, a_pre_vote_changes_nothing_where_it_is_asked);
    tcase_add_test(tests, who_hears_a_leader_refuses_pre_vote_and_vote);
    tcase_add_test(tests, the_frame_header_of_a_large_append_counts_as_contact);
    tcase_add_test(tests, who_was_hung_up_on_by_its_leader_refuses_no_longer_and_asks_soon);
    tcase_add_test(tests, a_leader_heard_again_after_its_hang_up_is_followed_on);
    tcase_add_test(tests, followers_of_a_dead_leader_ask_in_turn_and_do_not_split_their_votes);
    tcase_add_test(tests, when_the_first_follower_in_turn_cannot_win_the_next_one_does);
    tcase_add_test(tests, who_alone_lost_its_connection_does_not_depose_the_leader);
    tcase_add_test(tests, a_hang_up_makes_no_learner_and_no_leader_campaign);
    tcase_add_test(tests, a_leader_that_asks_for_a_pre_vote_leads_no_more);
    tcase_add_test(tests, a_request_from_a_member_not_known_yet_is_judged_by_its_log);
    tcase_add_test(tests, answers_from_outside_the_configuration_do_not_count);
    tcase_add_test(tests, pre_votes_are_not_votes_and_old_answers_count_for_nothing);
    tcase_add_test(tests, answers_to_an_older_campaign_count_for_nothing);
    tcase_add_test(tests, nobody_leads_before_its_own_vote_is_durable);
    tcase_add_test(tests, one_voter_answering_twice_is_one_vote);
    tcase_add_test(tests, unanswered_requests_are_repeated_and_refused_votes_are_not);
    tcase_add_test(tests, a_refused_pre_vote_is_asked_for_again_soon);
    tcase_add_test(tests, a_candidate_whose_vote_times_out_asks_again_before_the_next_term);
    tcase_add_test(tests, a_refusal_with_a_higher_term_brings_the_asker_up_to_it);
    tcase_add_test(tests, a_leader_of_the_past_hears_of_the_newer_term);
    tcase_add_test(tests, a_single_voter_leads_once_its_vote_is_durable);
    tcase_add_test(tests, a_learner_never_campaigns_but_votes_when_asked);
    tcase_add_test(tests, a_node_without_a_configuration_never_campaigns);
    tcase_add_test(tests, a_leader_that_hears_no_majority_steps_down_and_forgets_that_it_led);
    tcase_add_test(tests, learners_do_not_keep_a_leader_in_office);
    tcase_add_test(tests, two_leaders_in_one_term_are_reported_and_nothing_is_done);
    tcase_add_test(tests, a_leader_that_hears_another_of_its_own_term_reports_it);
    tcase_add_test(tests, nothing_is_promised_once_the_disk_has_failed);
    tcase_add_test(tests, a_disk_that_fails_under_a_grant_keeps_it_for_ever);
    tcase_add_test(tests, who_abstains_stops_leading_and_the_others_elect_another);
    tcase_add_test(tests, who_stands_back_hands_over_and_votes_and_campaigns_no_more);
    tcase_add_test(tests, who_stands_back_and_finds_no_successor_stops_leading_all_the_same);
    tcase_add_test(tests, who_abstains_grants_nothing_not_even_what_is_on_its_way_to_the_disk);
    tcase_add_test(tests, malformed_messages_are_refused_and_change_nothing);
    tcase_add_test(tests, cores_cut_off_in_one_direction_do_not_disturb_the_others);
}

int main(void)
{
    return unit_main("raft election", add);
}
