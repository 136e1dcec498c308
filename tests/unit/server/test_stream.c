/* SPDX-License-Identifier: Apache-2.0 */
/* test_stream.c - ProposeStream over real sockets, with a played node: order, back-pressure, what a stream's end says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lockstep/machine.h"
#include "proto/messages.h"
#include "tests/support/unit.h"
#include "tests/unit/server/front_rig.h"

static struct rig rig;
static struct client *client;
static struct grpc_client_call *call;

#define STREAM "/lockstep.v1.Lockstep/ProposeStream"

enum { MESSAGE_BYTES_MAX = 1 << 16 };

/* A message of `count` commands "c<first>", "c<first + 1>", ... */
static size_t message_of(uint8_t *to, unsigned first, unsigned count)
{
    uint8_t *at = to;
    for (unsigned i = first; i < first + count; i++) {
        char text[16];
        int n = snprintf(text, sizeof text, "c%u", i);
        struct propose_request request = {.command = (const uint8_t *)text, .command_bytes = (size_t)n, .seq = i};
        at = propose_stream_request_item_put(at, &request);
    }
    return (size_t)(at - to);
}

static void send_commands(unsigned first, unsigned count)
{
    static uint8_t bytes[MESSAGE_BYTES_MAX];
    ck_assert_int_eq(grpc_client_message(call, bytes, message_of(bytes, first, count)), 0);
}

static void set_up(void)
{
    rig_init(&rig);
    rig_open(&rig);
    client = client_open(&rig, 0);
    client->calls[0] = (struct client_call){0};
    ck_assert_int_eq(grpc_client_start(client->grpc, STREAM, 0, NULL, 0, &client->calls[0], &call), 0);
    client->calls[0].call = call;
}

static const struct client_call *seen(void)
{
    return &client->calls[0];
}

/* The nth result of the last answer. */
static struct propose_result result_of(unsigned nth)
{
    struct wire wire = wire_of(seen()->last, seen()->last_bytes);
    struct propose_result result;
    for (unsigned i = 0; i <= nth; i++) ck_assert_int_eq(propose_stream_response_next(&wire, &result), 1);
    return result;
}

static unsigned result_count(void)
{
    struct wire wire = wire_of(seen()->last, seen()->last_bytes);
    struct propose_result result;
    unsigned count = 0;
    while (propose_stream_response_next(&wire, &result) == 1) count++;
    return count;
}

START_TEST(messages_are_answered_in_the_order_sent_when_all_their_outcomes_are_known)
{
    set_up();
    send_commands(1, 3);
    send_commands(4, 2);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 5);
    ck_assert(!rig.node.asked[0].may_forward); /* the leader alone serves streams */
    for (unsigned i = 0; i < 5; i++) ck_assert_uint_eq(rig.node.asked[i].command.seq, i + 1);
    fake_answer(&rig.node, 2, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 0);
    fake_answer(&rig.node, 2, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 1);
    ck_assert_uint_eq(result_count(), 3);
    ck_assert_uint_eq(result_of(0).outcome, PROPOSE_APPLIED);
    ck_assert_uint_eq(result_of(2).response.position, 3);
    ck_assert_mem_eq(result_of(2).response.reply, "c3", 2);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 2);
    ck_assert_uint_eq(result_of(1).response.position, 5);
    ck_assert_uint_eq(seen()->ends, 0);
    grpc_client_half_close(call);
    rig_settle(&rig);
    ck_assert_int_eq(seen()->status, GRPC_OK);
    rig_close(&rig);
}
END_TEST

START_TEST(a_half_closed_stream_ends_behind_its_last_answer)
{
    set_up();
    send_commands(1, 3);
    grpc_client_half_close(call);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->ends, 0);
    fake_answer(&rig.node, 3, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 1);
    ck_assert_int_eq(seen()->status, GRPC_OK);
    rig_close(&rig);
}
END_TEST

START_TEST(an_empty_message_has_an_empty_answer)
{
    set_up();
    ck_assert_int_eq(grpc_client_message(call, NULL, 0), 0);
    ck_assert_int_eq(grpc_client_message(call, (const uint8_t *)"\x98\x06\x01", 3), 0); /* an unknown field alone */
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 2);
    ck_assert_uint_eq(seen()->last_bytes, 0);
    rig_close(&rig);
}
END_TEST

/* Full is no error of a stream: the commands wait, in order, and so does the client. */
START_TEST(commands_wait_for_room_and_keep_their_order)
{
    set_up();
    rig.node.room = 4;
    send_commands(1, 6);
    send_commands(7, 3);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 4);
    fake_answer(&rig.node, 4, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 0);
    rig.node.room = 1; /* the counts begin anew: everything asked was answered */
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 1);
    ck_assert_uint_eq(rig.node.asked[0].command.seq, 5);
    rig.node.room = UINT32_MAX;
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 5);
    for (unsigned i = 0; i < 5; i++) ck_assert_uint_eq(rig.node.asked[i].command.seq, 5 + i);
    ck_assert_mem_eq(rig.node.asked[4].bytes, "c9", 2);
    fake_answer(&rig.node, 5, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 2);
    ck_assert_uint_eq(result_count(), 3);
    rig_close(&rig);
}
END_TEST

START_TEST(commands_wait_while_leadership_is_handed_over)
{
    set_up();
    rig.node.refuse = LOCKSTEP_EUNAVAILABLE;
    rig.node.hands_over = true;
    send_commands(1, 3);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->ends, 0);
    rig.node.refuse = 0; /* nobody took it */
    rig.node.hands_over = false;
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 3);
    fake_answer(&rig.node, 3, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(result_count(), 3);
    rig.node.refuse = LOCKSTEP_EUNAVAILABLE;
    rig.node.hands_over = true;
    send_commands(4, 1);
    rig_settle(&rig);
    rig.node.refuse = LOCKSTEP_ENOTLEADER; /* somebody did */
    rig.node.hands_over = false;
    rig.node.leader = 1;
    rig_settle(&rig);
    ck_assert_int_eq(seen()->status, GRPC_FAILED_PRECONDITION);
    ck_assert_str_eq(seen()->leader, "127.0.0.1:7402");
    rig_close(&rig);
}
END_TEST

START_TEST(streams_that_wait_are_served_first_come_first_served)
{
    set_up();
    struct client *other = client_open(&rig, 1);
    struct grpc_client_call *second;
    uint8_t bytes[256];
    other->calls[0] = (struct client_call){0};
    ck_assert_int_eq(grpc_client_start(other->grpc, STREAM, 0, NULL, 0, &other->calls[0], &second), 0);
    other->calls[0].call = second;
    rig.node.room = 0;
    send_commands(1, 2);
    rig_settle(&rig);
    ck_assert_int_eq(grpc_client_message(second, bytes, message_of(bytes, 101, 2)), 0);
    rig_settle(&rig);
    rig.node.room = 3;
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 3);
    ck_assert_uint_eq(rig.node.asked[0].command.seq, 1);
    ck_assert_uint_eq(rig.node.asked[1].command.seq, 2);
    ck_assert_uint_eq(rig.node.asked[2].command.seq, 101);
    rig_close(&rig);
}
END_TEST

START_TEST(a_client_that_sends_more_than_there_is_room_for_is_stopped_by_flow_control)
{
    static uint8_t bytes[MESSAGE_BYTES_MAX];
    set_up();
    rig.node.room = 0;
    size_t n = message_of(bytes, 1, 1000), sent = 0;
    while (sent < 4 << 20 && grpc_client_message(call, bytes, n) == 0) sent += n;
    rig_settle(&rig);
    long held = rig_metric(&rig, "client_memory_bytes");
    ck_assert_int_lt(held, 4 << 20); /* the window, in pieces of the pool: the rest stays at the client */
    ck_assert_int_gt(held, 512 << 10);
    rig_close(&rig);
}
END_TEST

START_TEST(at_a_follower_a_stream_names_the_leader)
{
    set_up();
    rig.node.refuse = LOCKSTEP_ENOTLEADER;
    rig.node.leader = 2;
    send_commands(1, 2);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 1);
    ck_assert_uint_eq(result_count(), 2);
    ck_assert_uint_eq(result_of(1).outcome, PROPOSE_NOT_APPENDED);
    ck_assert_int_eq(seen()->status, GRPC_FAILED_PRECONDITION);
    ck_assert_str_eq(seen()->leader, "127.0.0.1:7403");
    ck_assert_str_eq(seen()->outcome, "not-appended");
    rig_close(&rig);
}
END_TEST

/* What was sealed is unknown, what was not is surely not appended; the stream ends behind both. */
START_TEST(a_lost_leadership_ends_the_stream_behind_every_outcome)
{
    set_up();
    send_commands(1, 3);
    rig_settle(&rig);
    rig.node.refuse = LOCKSTEP_ENOTLEADER;
    rig.node.leader = 1;
    send_commands(4, 1);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 0);
    fake_answer(&rig.node, 1, 0);
    fake_answer(&rig.node, 1, LOCKSTEP_EUNKNOWN);
    fake_answer(&rig.node, 1, LOCKSTEP_ENOTLEADER);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 2);
    ck_assert_uint_eq(result_of(0).outcome, PROPOSE_NOT_APPENDED); /* of the last message */
    ck_assert_int_eq(seen()->status, GRPC_FAILED_PRECONDITION);
    ck_assert_str_eq(seen()->leader, "127.0.0.1:7402");
    rig_close(&rig);
}
END_TEST

START_TEST(each_outcome_of_a_message_is_told)
{
    set_up();
    send_commands(1, 3);
    rig_settle(&rig);
    fake_answer(&rig.node, 1, 0);
    fake_answer(&rig.node, 1, LOCKSTEP_EUNKNOWN);
    fake_answer(&rig.node, 1, LOCKSTEP_ENOTLEADER);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 1);
    ck_assert_uint_eq(result_of(0).outcome, PROPOSE_APPLIED);
    ck_assert_uint_eq(result_of(1).outcome, PROPOSE_UNKNOWN);
    ck_assert_uint_eq(result_of(1).status, GRPC_ABORTED);
    ck_assert_uint_gt(result_of(1).error_bytes, 10);
    ck_assert_uint_eq(result_of(2).outcome, PROPOSE_NOT_APPENDED);
    ck_assert_int_eq(seen()->status, GRPC_UNAVAILABLE);
    rig_close(&rig);
}
END_TEST

START_TEST(what_a_session_answers_is_a_result_and_the_stream_goes_on) /* M1 */
{
    set_up();
    send_commands(1, 4);
    rig_settle(&rig);
    fake_answer(&rig.node, 1, LOCKSTEP_ENOTFOUND);
    fake_answer(&rig.node, 1, LOCKSTEP_EWINDOW);
    fake_answer(&rig.node, 1, LOCKSTEP_EREPLIED);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 1);
    ck_assert_uint_eq(result_of(0).outcome, PROPOSE_UNKNOWN); /* an earlier copy may have been applied */
    ck_assert_uint_eq(result_of(0).status, GRPC_NOT_FOUND);
    ck_assert_uint_eq(result_of(1).outcome, PROPOSE_UNKNOWN);
    ck_assert_uint_eq(result_of(1).status, GRPC_OUT_OF_RANGE);
    ck_assert_uint_eq(result_of(2).outcome, PROPOSE_REPLY_DROPPED);
    ck_assert_uint_eq(result_of(2).status, GRPC_ALREADY_EXISTS);
    ck_assert_uint_gt(result_of(2).error_bytes, 10);
    ck_assert_uint_eq(result_of(3).outcome, PROPOSE_APPLIED);
    send_commands(5, 1);
    rig_settle(&rig);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 2);
    ck_assert_uint_eq(seen()->ends, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(many_streams_of_one_connection_leave_room_for_others)
{
    rig_init(&rig);
    rig.options.proposals_max = 64; /* a connection's share: 16 */
    rig_open(&rig);
    client = client_open(&rig, 0);
    uint8_t bytes[256];
    struct grpc_client_call *calls[4];
    for (unsigned i = 0; i < 4; i++) {
        client->calls[i] = (struct client_call){0};
        ck_assert_int_eq(grpc_client_start(client->grpc, STREAM, 0, NULL, 0, &client->calls[i], &calls[i]), 0);
        client->calls[i].call = calls[i];
        ck_assert_int_eq(grpc_client_message(calls[i], bytes, message_of(bytes, 10 * i, 10)), 0);
    }
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 16);
    const struct propose_request request = {.command = (const uint8_t *)"x", .command_bytes = 1};
    size_t n = (size_t)(propose_request_put(bytes, &request) - bytes);
    client_call(client, 4, "/lockstep.v1.Lockstep/Propose", bytes, n, 0);
    rig_settle(&rig);
    ck_assert_int_eq(client->calls[4].status, GRPC_RESOURCE_EXHAUSTED);
    ck_assert_str_eq(client->calls[4].retry_after, "25");
    struct client *other = client_open(&rig, 1);
    client_call(other, 0, "/lockstep.v1.Lockstep/Propose", bytes, n, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 17);
    /* A stream that is cancelled gives nothing back before its commands are answered. */
    grpc_client_cancel(calls[0]);
    client->calls[0].call = NULL;
    client_call(client, 4, "/lockstep.v1.Lockstep/Propose", bytes, n, 0);
    rig_settle(&rig);
    ck_assert_int_eq(client->calls[4].status, GRPC_RESOURCE_EXHAUSTED);
    while (rig.node.answered_count < rig.node.asked_count) {
        fake_answer(&rig.node, 1, 0);
        rig_settle(&rig);
    }
    ck_assert_uint_eq(rig.node.position, 41); /* in the end all of them, and the other's */
    for (unsigned i = 1; i < 4; i++) ck_assert_uint_eq(client->calls[i].messages, 1);
    ck_assert_uint_eq(other->calls[0].messages, 1);
    rig_close(&rig);
}
END_TEST

START_TEST(an_answer_stays_below_what_clients_take_and_says_which_replies_are_left_out)
{
    set_up();
    uint8_t *reply = calloc(1, LOCKSTEP_REPLY_BYTES_MAX);
    ck_assert_ptr_nonnull(reply);
    rig.node.reply = reply;
    rig.node.reply_bytes = LOCKSTEP_REPLY_BYTES_MAX;
    send_commands(1, 6);
    rig_settle(&rig);
    fake_answer(&rig.node, 6, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 1);
    ck_assert_uint_gt(seen()->bytes, 3 * LOCKSTEP_REPLY_BYTES_MAX);
    ck_assert_uint_le(seen()->bytes, 4 << 20);
    ck_assert_ptr_nonnull(memmem(seen()->tail, sizeof seen()->tail, "left out", 8));
    free(reply);
    rig_close(&rig);
}
END_TEST

START_TEST(a_message_of_too_many_commands_is_refused_whole)
{
    set_up();
    enum { COUNT = 16385 };
    uint8_t *bytes = calloc(COUNT, 2), *at = bytes; /* empty commands: tag, length 0 */
    ck_assert_ptr_nonnull(bytes);
    for (unsigned i = 0; i < COUNT; i++) at = propose_stream_request_item_put(at, &(struct propose_request){0});
    ck_assert_int_eq(grpc_client_message(call, bytes, (size_t)(at - bytes)), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 0);
    ck_assert_int_eq(seen()->status, GRPC_INVALID_ARGUMENT);
    ck_assert_str_eq(seen()->outcome, "not-appended");
    ck_assert_ptr_nonnull(strstr(seen()->message, "more than 16384 commands"));
    free(bytes);
    rig_close(&rig);
}
END_TEST

START_TEST(nothing_behind_a_refused_command_is_proposed)
{
    set_up();
    rig.node.options.command_bytes_max = 2;
    uint8_t bytes[256];
    size_t n = message_of(bytes, 8, 4); /* c8, c9, c10, c11: the third is too long */
    ck_assert_int_eq(grpc_client_message(call, bytes, n), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 2);
    fake_answer(&rig.node, 2, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(result_count(), 4);
    ck_assert_uint_eq(result_of(1).outcome, PROPOSE_APPLIED);
    ck_assert_uint_eq(result_of(2).outcome, PROPOSE_NOT_APPENDED);
    ck_assert_uint_eq(result_of(2).status, GRPC_INVALID_ARGUMENT); /* as a call of its own would say */
    ck_assert_uint_eq(result_of(3).outcome, PROPOSE_NOT_APPENDED);
    ck_assert_int_eq(seen()->status, GRPC_INVALID_ARGUMENT);
    rig_close(&rig);
}
END_TEST

START_TEST(a_malformed_message_appends_nothing_and_ends_the_stream_behind_the_others)
{
    set_up();
    send_commands(1, 2);
    uint8_t bytes[64];
    size_t n = message_of(bytes, 3, 1);
    memcpy(bytes + n, "\x0a\x05", 2);
    ck_assert_int_eq(grpc_client_message(call, bytes, n + 2), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 2);
    ck_assert_uint_eq(seen()->ends, 0);
    fake_answer(&rig.node, 2, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen()->messages, 1);
    ck_assert_int_eq(seen()->status, GRPC_INVALID_ARGUMENT);
    rig_close(&rig);
}
END_TEST

START_TEST(a_cancelled_stream_leaves_its_commands)
{
    set_up();
    rig.node.room = 2;
    send_commands(1, 3); /* one waits */
    send_commands(4, 3);
    rig_settle(&rig);
    grpc_client_cancel(call);
    rig_settle(&rig);
    rig.node.room = UINT32_MAX;
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 2); /* what waited is not proposed any more */
    fake_answer(&rig.node, 2, 0);
    rig_settle(&rig);
    ck_assert(front_drained(rig.front));
    rig_close(&rig);
}
END_TEST

START_TEST(a_connection_that_closes_with_commands_out_leaves_nothing_behind)
{
    set_up();
    send_commands(1, 3);
    rig_settle(&rig);
    rig_close(&rig); /* the pool asserts that all memory came back */
}
END_TEST

/* Many messages under way, answers in bursts: all come, in order. */
START_TEST(a_busy_stream_stays_in_order)
{
    static uint8_t bytes[MESSAGE_BYTES_MAX];
    set_up();
    rig.node.auto_answer = true;
    unsigned sent = 0;
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 4; i++, sent += 64)
            ck_assert_int_eq(grpc_client_message(call, bytes, message_of(bytes, sent + 1, 64)), 0);
        rig_settle(&rig);
        ck_assert_uint_eq(seen()->messages, 4 * (round + 1));
        ck_assert_uint_eq(result_of(63).response.position, sent);
    }
    rig_close(&rig);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, messages_are_answered_in_the_order_sent_when_all_their_outcomes_are_known);
    tcase_add_test(tests, a_half_closed_stream_ends_behind_its_last_answer);
    tcase_add_test(tests, an_empty_message_has_an_empty_answer);
    tcase_add_test(tests, commands_wait_for_room_and_keep_their_order);
    tcase_add_test(tests, commands_wait_while_leadership_is_handed_over);
    tcase_add_test(tests, streams_that_wait_are_served_first_come_first_served);
    tcase_add_test(tests, a_client_that_sends_more_than_there_is_room_for_is_stopped_by_flow_control);
    tcase_add_test(tests, at_a_follower_a_stream_names_the_leader);
    tcase_add_test(tests, a_lost_leadership_ends_the_stream_behind_every_outcome);
    tcase_add_test(tests, each_outcome_of_a_message_is_told);
    tcase_add_test(tests, what_a_session_answers_is_a_result_and_the_stream_goes_on);
    tcase_add_test(tests, many_streams_of_one_connection_leave_room_for_others);
    tcase_add_test(tests, an_answer_stays_below_what_clients_take_and_says_which_replies_are_left_out);
    tcase_add_test(tests, a_message_of_too_many_commands_is_refused_whole);
    tcase_add_test(tests, nothing_behind_a_refused_command_is_proposed);
    tcase_add_test(tests, a_malformed_message_appends_nothing_and_ends_the_stream_behind_the_others);
    tcase_add_test(tests, a_cancelled_stream_leaves_its_commands);
    tcase_add_test(tests, a_connection_that_closes_with_commands_out_leaves_nothing_behind);
    tcase_add_test(tests, a_busy_stream_stays_in_order);
}

int main(void)
{
    return unit_main("stream", add);
}
