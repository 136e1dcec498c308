/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_sessions.c - sessions of the client library against a cluster of another implementation: what is unknown is
 * sent again with the same number, and applied once (M1; C2, C3, C5 are client.h's rules). The cluster's window is 8. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/unit.h"
#include "tests/unit/client/fake.h"

enum { WINDOW = 8 };

static struct lockstep_client *client;

static void set_up(void)
{
    client = client_with(fake.all, true);
}

static void tear_down(void)
{
    lockstep_client_close(client);
    tell("sessions 1000");
    tell("refusals 1000000");
    callbacks_were_right();
}

static void sessions_are(int *opened, int *kept, int *closed)
{
    char text[64];
    ask("totals", text, sizeof text);
    ck_assert_int_eq(sscanf(text, "%d opened %d kept %d closed", opened, kept, closed), 3);
}

START_TEST(a_session_is_opened_for_the_first_proposal_and_serves_all)
{
    int before, after, kept, closed;
    sessions_are(&before, &kept, &closed);
    check_reply(query(client, "hello", LOCKSTEP_LOCAL), "local"); /* needs none */
    sessions_are(&after, &kept, &closed);
    ck_assert_int_eq(after, before);
    for (uint64_t i = 1; i <= 20; i++) { /* more than the window */
        struct lockstep_result result = propose(client, "echo a", 0);
        check_reply(result, "a");
        ck_assert_uint_ne(result.session, 0);
        ck_assert_uint_eq(result.seq, i);
    }
    sessions_are(&after, &kept, &closed);
    ck_assert_int_eq(after, before + 1);
}
END_TEST

START_TEST(what_is_unknown_is_sent_again_and_applied_once) /* C2, T59 */
{
    check_reply(propose(client, "lost1 x", 0), "once");
    ck_assert_int_eq(seen("lost1 x"), 2);
    ck_assert_int_eq(applied("lost1 x"), 1);
    check_reply(propose(client, "gone1 x", 0), "x");
    ck_assert_int_eq(seen("gone1 x"), 2);
    ck_assert_int_eq(applied("gone1 x"), 1);
}
END_TEST

START_TEST(a_node_that_hangs_is_left_for_another_try) /* a proposal does not wait for its deadline there */
{
    as_it_ships(client);
    uint64_t begin_ms = now_ms();
    check_reply(propose(client, "hang1 x", 0), "once");
    ck_assert_int_eq(applied("hang1 x"), 1);
    ck_assert_uint_ge(now_ms() - begin_ms, 900);
}
END_TEST

START_TEST(unknown_is_left_for_the_deadline) /* C2 */
{
    check_reply(propose(client, "echo a", 0), "a");
    struct lockstep_result result;
    do {
        result = propose(client, "lost", 700);
        ck_assert_int_eq(result.fate, LOCKSTEP_UNKNOWN);
        ck_assert_int_eq(result.error, LOCKSTEP_ETIMEDOUT);
        ck_assert_str_ne(result.text, "");
    } while (seen("lost") <= 2 && result.seq < 10);
    ck_assert_int_gt(seen("lost"), 2);
    struct lockstep_result what;
    lockstep_outcome_wait(client, result.session, result.seq, 0, &what);
    ck_assert_int_eq(what.error, 0);
    ck_assert_int_eq(what.fate, LOCKSTEP_UNKNOWN); /* it was not applied */
    struct lockstep_result known = propose(client, "echo b", 0);
    uint64_t position = known.position;
    lockstep_outcome_wait(client, known.session, known.seq, 0, &what);
    check_reply(what, "b");
    ck_assert_int_eq(what.fate, LOCKSTEP_APPLIED);
    ck_assert_uint_eq(what.position, position);
    ck_assert_int_eq(lockstep_outcome_wait(client, 123456, 1, 0, &what), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(lockstep_outcome_wait(client, 0, 1, 0, &what), LOCKSTEP_EINVAL);
}
END_TEST

START_TEST(a_connection_that_breaks_loses_nothing)
{
    check_reply(propose(client, "echo warm", 0), "warm");
    struct lockstep_proposal proposal = {.command = "hang1 break", .command_bytes = 11};
    struct lockstep_result result = {0};
    tell("leader 1");
    check_reply(propose(client, "echo moved", 0), "moved"); /* the client is connected to node 1 now */
    tell("leader 0");
    tell("stop 1");
    as_it_ships(client);
    ck_assert_int_eq(lockstep_propose_wait(client, &proposal, &result), 0);
    ck_assert_int_eq(applied("hang1 break"), 1);
    tell("start 1");
}
END_TEST

START_TEST(a_session_that_ended_is_replaced_for_what_surely_was_not_applied) /* C5 */
{
    struct lockstep_result first = propose(client, "echo a", 0), second;
    uint64_t session = first.session;
    second = propose(client, "expire x", 0); /* it ended before this came */
    check_reply(second, "x");
    ck_assert_uint_ne(second.session, session);
    ck_assert_uint_eq(second.seq, 1);
    ck_assert_int_eq(seen("expire x"), 2);
    ck_assert_int_eq(applied("expire x"), 1);
}
END_TEST

START_TEST(a_session_that_ended_is_told_to_what_may_have_been_applied) /* C5: never silently a new one */
{
    struct lockstep_result result = propose(client, "expire1 x", 0);
    ck_assert_int_eq(result.error, LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(result.fate, LOCKSTEP_UNKNOWN);
    ck_assert_int_eq(applied("expire1 x"), 1);
    check_reply(propose(client, "echo after", 0), "after");
}
END_TEST

START_TEST(an_idle_session_is_kept) /* at a third of its 600 ms */
{
    int opened, before, after, closed;
    tell("expiry 600");
    struct lockstep_result result = propose(client, "echo a", 0);
    tell("expiry 60000");
    uint64_t session = result.session;
    sessions_are(&opened, &before, &closed);
    uint64_t until_ms = now_ms() + 20000;
    do {
        ck_assert_uint_lt(now_ms(), until_ms);
        for (uint64_t end_ms = now_ms() + 300; now_ms() < end_ms;) lockstep_client_poll(client, 50);
        sessions_are(&opened, &after, &closed);
    } while (after < before + 3);
    ck_assert_uint_eq(lockstep_client_running(client), 0); /* what it does by itself does not count */
    ck_assert_uint_eq(propose(client, "echo b", 0).session, session);
}
END_TEST

/* Not before it has once been refused, which may take a machine that stalls longer than the deadline. */
static int ends_with_full_once_in_ten(void)
{
    struct lockstep_result result = {0};
    for (int i = 0; i < 10 && result.error != LOCKSTEP_EFULL; i++) {
        result = propose(client, "echo a", 300);
        ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    }
    return result.error;
}

START_TEST(no_more_sessions_is_waited_for_and_told_at_the_deadline)
{
    tell("sessions 0");
    ck_assert_int_eq(ends_with_full_once_in_ten(), LOCKSTEP_EFULL);
    tell("sessions 1000");
    check_reply(propose(client, "echo a", 0), "a");
}
END_TEST

START_TEST(no_more_sessions_is_told_even_while_it_is_asked_again) /* not that this question has no answer yet */
{
    tell("sessions 0");
    tell("refusals 1"); /* of this client: what it asks then is not answered */
    ck_assert_int_eq(ends_with_full_once_in_ten(), LOCKSTEP_EFULL);
}
END_TEST

struct window_test {
    int out, most, ended;
};

static void window_ended(void *context, const struct lockstep_result *result)
{
    struct window_test *t = context;
    expect(result->error == 0, "an error", result->error, result->text);
    t->ended++;
}

START_TEST(no_more_commands_run_than_the_window_holds) /* M1: seq s only when all at or below s - W are answered */
{
    struct window_test t = {0};
    struct lockstep_proposal proposal = {.command = "echo w", .command_bytes = 6};
    for (int i = 0; i < 100; i++) ck_assert_int_eq(lockstep_propose(client, &proposal, window_ended, &t), 0);
    proposal = (struct lockstep_proposal){.command = "lost1 w", .command_bytes = 7};
    ck_assert_int_eq(lockstep_propose(client, &proposal, window_ended, &t), 0);
    POLL_UNTIL(client, t.ended == 101);
    ck_assert_int_eq(applied("echo w"), 100);
    ck_assert_int_eq(applied("lost1 w"), 1);
}
END_TEST

START_TEST(an_applications_own_numbers_are_repeated_as_well)
{
    struct lockstep_client *bare = client_with(fake.all, false);
    struct lockstep_result first = propose(client, "echo a", 0), result;
    struct lockstep_proposal proposal = {
        .command = "lost1 own", .command_bytes = 9, .session = first.session, .seq = first.seq + 1};
    ck_assert_int_eq(lockstep_propose_wait(bare, &proposal, &result), 0);
    ck_assert_int_eq(seen("lost1 own"), 2);
    ck_assert_int_eq(applied("lost1 own"), 1);
    lockstep_client_close(bare);
}
END_TEST

/* --- streams --- */

struct stream_test {
    struct lockstep_stream *stream;
    uint64_t next_tag, last_position, last_seq;
    int applied, unknown, not_appended, losses, last_error, last_loss;
};

static void stream_answered(void *context, uint64_t tag, const struct lockstep_result *results, uint32_t count)
{
    struct stream_test *t = context;
    expect(tag == t->next_tag, "not the next message", (int64_t)tag, "");
    t->next_tag++;
    for (uint32_t i = 0; i < count; i++) {
        if (results[i].fate == LOCKSTEP_APPLIED) t->applied++;
        if (results[i].fate == LOCKSTEP_UNKNOWN) t->unknown++;
        if (results[i].fate == LOCKSTEP_NOT_APPENDED) t->not_appended++;
        if (results[i].error != 0) t->last_error = results[i].error;
        if (results[i].error != 0) continue;
        expect(results[i].position > t->last_position, "a position not behind the last", (int64_t)results[i].position,
               "");
        t->last_position = results[i].position;
        t->last_seq = results[i].seq;
    }
}

static void stream_was_lost(void *context, int error, const char *text)
{
    struct stream_test *t = context;
    expect(text[0] != 0, "lost without a word", error, text);
    t->losses++;
    t->last_loss = error;
}

static void stream_open(struct stream_test *t, uint32_t deadline_ms)
{
    *t = (struct stream_test){0};
    struct lockstep_stream_options options = {.size = sizeof options,
                                              .messages_max = 4,
                                              .commands_max = 2,
                                              .context = t,
                                              .deadline_ms = deadline_ms,
                                              .answered = stream_answered,
                                              .lost = stream_was_lost};
    ck_assert_int_eq(lockstep_stream_open(client, &options, &t->stream), 0);
}

static void send_two(struct stream_test *t, uint64_t tag, const char *first, const char *second)
{
    struct lockstep_proposal proposals[2] = {{.command = first, .command_bytes = strlen(first)},
                                             {.command = second, .command_bytes = strlen(second)}};
    POLL_UNTIL(client, lockstep_stream_room(t->stream) > 0);
    ck_assert_int_eq(lockstep_stream_send(t->stream, proposals, 2, tag), 0);
}

START_TEST(a_stream_sends_again_what_was_unanswered_when_it_lost_its_server) /* C3 */
{
    struct stream_test t;
    stream_open(&t, 0);
    send_two(&t, 0, "echo s1", "echo s2");
    send_two(&t, 1, "end1 s3", "echo s4"); /* the call ends here: s3 is in the log, s4 is not */
    send_two(&t, 2, "echo s5", "echo s6");
    send_two(&t, 3, "echo s7", "lost1 s8");
    POLL_UNTIL(client, t.next_tag == 4);
    ck_assert_int_eq(t.applied, 8);
    ck_assert_int_ge(t.losses, 1);
    static const char *const commands[] = {"echo s1", "echo s2", "end1 s3", "echo s4",
                                           "echo s5", "echo s6", "echo s7", "lost1 s8"};
    for (int i = 0; i < 8; i++) ck_assert_msg(applied(commands[i]) == 1, "%s", commands[i]);
    ck_assert_uint_eq(t.last_seq, 8);
    lockstep_stream_close(t.stream);
}
END_TEST

START_TEST(a_stream_survives_the_death_of_its_node_with_every_command_applied_once) /* C3, T59 */
{
    struct stream_test t;
    char command[32];
    stream_open(&t, 0);
    int dead = -1;
    for (uint64_t tag = 0; tag < 60; tag++) {
        if (tag % 20 == 10) { /* the leader dies, and another one takes over */
            int leader = (int)(tag / 20) % NODES;
            tell("leader %d", (leader + 1) % NODES);
            tell("stop %d", leader);
            if (dead >= 0) tell("start %d", dead);
            dead = leader;
        }
        snprintf(command, sizeof command, "echo d%d", (int)tag);
        send_two(&t, tag, command, "echo d");
    }
    POLL_UNTIL(client, t.next_tag == 60);
    ck_assert_int_eq(t.applied, 120);
    ck_assert_int_eq(t.unknown, 0);
    lockstep_stream_close(t.stream);
    tell("start %d", dead);
    tell("leader 0");
    for (int tag = 0; tag < 60; tag++) {
        snprintf(command, sizeof command, "echo d%d", tag);
        ck_assert_int_eq(applied(command), 1);
    }
    ck_assert_int_eq(applied("echo d"), 60);
}
END_TEST

START_TEST(a_streams_message_that_is_late_is_unknown_and_the_others_go_on)
{
    struct stream_test t;
    as_it_ships(client);
    stream_open(&t, 1200);
    send_two(&t, 0, "hang", "echo l1"); /* every copy of it hangs */
    POLL_UNTIL(client, t.next_tag == 1);
    ck_assert_int_eq(t.unknown, 2);
    for (uint64_t tag = 1; tag < 10 && t.applied == 0; tag++) {
        send_two(&t, tag, "echo l2", "echo l3");
        POLL_UNTIL(client, t.next_tag == tag + 1);
    }
    ck_assert_int_eq(t.applied, 2);
    lockstep_stream_close(t.stream);
}
END_TEST

START_TEST(a_stream_whose_session_ended_says_so_and_goes_on_in_another) /* C5 */
{
    struct stream_test t;
    stream_open(&t, 0);
    send_two(&t, 0, "echo e1", "expire e2");
    POLL_UNTIL(client, t.next_tag == 1);
    ck_assert_int_eq(t.applied, 1);
    ck_assert_int_eq(t.not_appended, 1);
    ck_assert_int_eq(t.last_error, LOCKSTEP_ENOTFOUND);
    send_two(&t, 1, "echo e3", "echo e4");
    POLL_UNTIL(client, t.next_tag == 2);
    ck_assert_int_eq(t.applied, 3);
    ck_assert_uint_eq(t.last_seq, 2); /* of the new one */
    lockstep_stream_close(t.stream);
}
END_TEST

START_TEST(a_stream_that_is_refused_a_session_says_so_and_goes_on_when_it_gets_one) /* C4 */
{
    struct stream_test t;
    tell("sessions -1");
    stream_open(&t, 0);
    POLL_UNTIL(client, t.losses >= 2 && t.last_loss == LOCKSTEP_EINVAL);
    ck_assert_uint_eq(lockstep_stream_room(t.stream), 0);
    tell("sessions 1000");
    send_two(&t, 0, "echo r1", "echo r2");
    POLL_UNTIL(client, t.next_tag == 1);
    ck_assert_int_eq(t.applied, 2);
    lockstep_stream_close(t.stream);
}
END_TEST

START_TEST(a_closed_stream_says_goodbye)
{
    int opened, kept, before, after = 0;
    struct stream_test t;
    stream_open(&t, 0);
    send_two(&t, 0, "echo g1", "echo g2");
    POLL_UNTIL(client, t.next_tag == 1);
    sessions_are(&opened, &kept, &before);
    lockstep_stream_close(t.stream);
    for (int i = 0; i < 300 && after != before + 1; i++) {
        lockstep_client_poll(client, 10);
        sessions_are(&opened, &kept, &after);
    }
    ck_assert_int_eq(after, before + 1);
}
END_TEST

START_TEST(a_stream_keeps_to_its_sessions_window)
{
    struct stream_test t;
    stream_open(&t, 0);
    POLL_UNTIL(client, lockstep_stream_room(t.stream) > 0);
    ck_assert_uint_eq(lockstep_stream_room(t.stream), WINDOW / 2);
    struct lockstep_proposal own = {.command = "echo o", .command_bytes = 6, .session = 5, .seq = 1};
    ck_assert_int_eq(lockstep_stream_send(t.stream, &own, 1, 0), LOCKSTEP_EINVAL);
    send_two(&t, 0, "echo o1", "echo o2");
    ck_assert_uint_eq(lockstep_stream_room(t.stream), WINDOW / 2 - 1);
    POLL_UNTIL(client, t.next_tag == 1);
    lockstep_stream_close(t.stream);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 110);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_session_is_opened_for_the_first_proposal_and_serves_all);
    tcase_add_test(tests, what_is_unknown_is_sent_again_and_applied_once);
    tcase_add_test(tests, a_node_that_hangs_is_left_for_another_try);
    tcase_add_test(tests, unknown_is_left_for_the_deadline);
    tcase_add_test(tests, a_connection_that_breaks_loses_nothing);
    tcase_add_test(tests, a_session_that_ended_is_replaced_for_what_surely_was_not_applied);
    tcase_add_test(tests, a_session_that_ended_is_told_to_what_may_have_been_applied);
    tcase_add_test(tests, an_idle_session_is_kept);
    tcase_add_test(tests, no_more_sessions_is_waited_for_and_told_at_the_deadline);
    tcase_add_test(tests, no_more_sessions_is_told_even_while_it_is_asked_again);
    tcase_add_test(tests, no_more_commands_run_than_the_window_holds);
    tcase_add_test(tests, an_applications_own_numbers_are_repeated_as_well);
    tcase_add_test(tests, a_stream_sends_again_what_was_unanswered_when_it_lost_its_server);
    tcase_add_test(tests, a_stream_survives_the_death_of_its_node_with_every_command_applied_once);
    tcase_add_test(tests, a_streams_message_that_is_late_is_unknown_and_the_others_go_on);
    tcase_add_test(tests, a_stream_whose_session_ended_says_so_and_goes_on_in_another);
    tcase_add_test(tests, a_stream_that_is_refused_a_session_says_so_and_goes_on_when_it_gets_one);
    tcase_add_test(tests, a_closed_stream_says_goodbye);
    tcase_add_test(tests, a_stream_keeps_to_its_sessions_window);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "use: test_client_sessions fake_cluster.py PROTO_DIR\n");
        return 2;
    }
    fake_start(argv[1], argv[2]);
    int rc = unit_main("client sessions", add);
    fake_stop();
    return rc;
}
