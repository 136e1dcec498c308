/* SPDX-License-Identifier: Apache-2.0 */
/* test_grpc.c - the two gRPC codecs against each other: what a good client and a good server do. */
#include "tests/unit/proto/grpc_pair.h"

#include <stdlib.h>
#include <string.h>

#include "lockstep/errors.h"
#include "tests/support/unit.h"

static struct pair pair;

static void set_up(void)
{
    pair_init(&pair);
    pair_open(&pair);
}

static uint8_t *pattern(size_t n, unsigned salt)
{
    uint8_t *bytes = malloc(n + 1);
    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(i * 7 + salt);
    return bytes;
}

START_TEST(a_unary_call_is_answered)
{
    set_up();
    struct grpc_client_call *call = pair_start(&pair, 0, "/lockstep.v1.Lockstep/Propose");
    ck_assert_int_eq(grpc_client_message(call, (const uint8_t *)"hello", 5), 0);
    grpc_client_half_close(call);
    ck_assert(pair_run(&pair));
    ck_assert_str_eq(pair.at_server[0].path, "/lockstep.v1.Lockstep/Propose");
    ck_assert_uint_eq(pair.at_server[0].messages, 1);
    ck_assert_uint_eq(pair.at_server[0].half_closes, 1);
    ck_assert_uint_eq(pair.at_server[0].cancels, 0);
    ck_assert_uint_eq(pair.at_client[0].messages, 1);
    ck_assert_mem_eq(pair.at_client[0].last, "hello", 5);
    ck_assert_uint_eq(pair.at_client[0].ends, 1);
    ck_assert_int_eq(pair.at_client[0].status, GRPC_OK);
    ck_assert(pair.at_client[0].from_server);
    ck_assert_uint_eq(grpc_conn_call_count(pair.server), 0);
    ck_assert_uint_eq(grpc_client_call_count(pair.client), 0);
    pair_close(&pair);
}
END_TEST

START_TEST(bytes_may_come_in_pieces_of_any_size)
{
    for (size_t fragment = 1; fragment <= 40; fragment++) {
        set_up();
        pair.fragment = fragment;
        uint8_t *bytes = pattern(300, (unsigned)fragment);
        struct grpc_client_call *call = pair_start(&pair, 0, "/echo");
        for (size_t n = 0; n <= 300; n += 50) ck_assert_int_eq(grpc_client_message(call, bytes, n), 0);
        grpc_client_half_close(call);
        ck_assert(pair_run(&pair));
        ck_assert_uint_eq(pair.at_server[0].messages, 7);
        ck_assert_uint_eq(pair.at_client[0].messages, 7);
        ck_assert_uint_eq(pair.at_client[0].bytes, 50 + 100 + 150 + 200 + 250 + 300);
        ck_assert_mem_eq(pair.at_client[0].last, bytes, 256);
        ck_assert_int_eq(pair.at_client[0].status, GRPC_OK);
        free(bytes);
        pair_close(&pair);
    }
}
END_TEST

START_TEST(thousands_of_calls_leave_no_memory_behind)
{
    set_up();
    size_t held = 0;
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 100; i++) {
            pair.opened = 0;
            struct grpc_client_call *call = pair_start(&pair, i, "/echo");
            ck_assert_int_eq(grpc_client_message(call, (const uint8_t *)"x", 1), 0);
            grpc_client_half_close(call);
        }
        pair.opened = 0;
        ck_assert(pair_run(&pair));
        if (round == 5) held = pair.pool.bytes;
        if (round > 5) ck_assert_uint_eq(pair.pool.bytes, held); /* the free lists feed themselves */
    }
    pair_close(&pair);
}
END_TEST

START_TEST(metadata_and_deadline_arrive)
{
    set_up();
    const struct grpc_pair pairs[] = {{grpc_text("lockstep-forward"), grpc_text("no")},
                                      {grpc_text("other"), grpc_text("dropped")}};
    struct grpc_client_call *call;
    ck_assert_int_eq(grpc_client_start(pair.client, "/echo", 1500000000, pairs, 2, &pair.at_client[0], &call), 0);
    pair.at_client[0].started = call;
    ck_assert(pair_run(&pair));
    ck_assert_str_eq(pair.at_server[0].forward, "no");
    ck_assert_uint_eq(pair.at_server[0].timeout_ns, 1500000000);
    pair_close(&pair);
    ck_assert_uint_eq(pair.at_server[0].cancels, 1); /* the connection died under it */
    ck_assert_int_eq(pair.at_client[0].status, GRPC_UNAVAILABLE);
    ck_assert(!pair.at_client[0].from_server);
    ck_assert(!pair.at_client[0].untouched);
}
END_TEST

START_TEST(a_status_without_messages_is_trailers_only)
{
    set_up();
    struct grpc_client_call *call = pair_start(&pair, 0, "/unknown");
    ck_assert_int_eq(grpc_client_message(call, (const uint8_t *)"x", 1), 0);
    ck_assert(pair_run(&pair)); /* not half-closed: the server stops the request by RST_STREAM(NO_ERROR) */
    ck_assert_int_eq(pair.at_client[0].status, GRPC_UNIMPLEMENTED);
    ck_assert_str_eq(pair.at_client[0].message, "there is no such method");
    ck_assert_uint_eq(pair.at_client[0].messages, 0);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(grpc_client_call_count(pair.client), 0);
    pair_close(&pair);
}
END_TEST

START_TEST(trailers_and_message_arrive_behind_the_replies)
{
    set_up();
    pair.echo = false;
    struct grpc_client_call *call = pair_start(&pair, 0, "/stream");
    ck_assert(pair_run(&pair));
    struct grpc_call *served = pair.at_server[0].served;
    const struct grpc_pair leader = {grpc_text("lockstep-leader"), grpc_text("127.0.0.1:7402")};
    for (unsigned i = 0; i < 10; i++) ck_assert_int_eq(grpc_call_reply(served, (const uint8_t *)"reply", 5), 0);
    pair.at_server[0].served = NULL;
    grpc_call_finish(served, GRPC_FAILED_PRECONDITION, grpc_text("nicht der F\xc3\xbchrer: 100%"), &leader, 1);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.at_client[0].messages, 10);
    ck_assert_int_eq(pair.at_client[0].status, GRPC_FAILED_PRECONDITION);
    ck_assert_str_eq(pair.at_client[0].message, "nicht der F\xc3\xbchrer: 100%");
    ck_assert_str_eq(pair.at_client[0].leader, "127.0.0.1:7402");
    (void)call;
    pair_close(&pair);
}
END_TEST

START_TEST(a_finish_after_the_replies_have_left_still_arrives)
{
    set_up();
    pair.echo = false;
    struct grpc_client_call *call = pair_start(&pair, 0, "/stream");
    grpc_client_half_close(call);
    ck_assert(pair_run(&pair));
    struct grpc_call *served = pair.at_server[0].served;
    ck_assert_int_eq(grpc_call_reply(served, (const uint8_t *)"reply", 5), 0);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.at_client[0].messages, 1);
    ck_assert_uint_eq(pair.at_client[0].ends, 0);
    pair.at_server[0].served = NULL;
    grpc_call_finish(served, GRPC_OK, grpc_text(""), NULL, 0);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.at_client[0].ends, 1);
    ck_assert_int_eq(pair.at_client[0].status, GRPC_OK);
    pair_close(&pair);
}
END_TEST

START_TEST(messages_longer_than_the_window_pass)
{
    set_up();
    size_t sizes[] = {100 << 10, 200 << 10, (256 << 10) + 1, 1 << 20, 4 << 20};
    for (unsigned i = 0; i < 5; i++) {
        uint8_t *bytes = pattern(sizes[i], i);
        struct grpc_client_call *call = pair_start(&pair, i, "/echo");
        ck_assert_int_eq(grpc_client_message(call, bytes, 10), 0);
        ck_assert_int_eq(grpc_client_message(call, bytes, sizes[i]), 0);
        grpc_client_half_close(call);
        ck_assert(pair_run(&pair));
        ck_assert_uint_eq(pair.at_server[i].bytes, sizes[i] + 10);
        ck_assert_uint_eq(pair.at_client[i].bytes, sizes[i] + 10);
        ck_assert_mem_eq(pair.at_client[i].last, bytes, 256);
        ck_assert_int_eq(pair.at_client[i].status, GRPC_OK);
        free(bytes);
    }
    pair_close(&pair);
}
END_TEST

/* Credit is the back-pressure: the connection's window must not be used up by calls that wait for each other. */
START_TEST(a_thousand_half_sent_messages_do_not_stop_each_other)
{
    set_up();
    enum { CALLS = 200, BYTES = 60000 }; /* 12 MB, three times the connection's window */
    uint8_t *bytes = pattern(BYTES, 3);
    for (unsigned i = 0; i < CALLS; i++) {
        if (i == 100) ck_assert(pair_run(&pair)); /* from here the server's settings are known: more than 100 calls */
        struct grpc_client_call *call = pair_start(&pair, i, "/echo");
        ck_assert_int_eq(grpc_client_message(call, bytes, BYTES), 0);
        grpc_client_half_close(call);
    }
    ck_assert(pair_run(&pair));
    for (unsigned i = 0; i < CALLS; i++) ck_assert_int_eq(pair.at_client[i].status, GRPC_OK);
    for (unsigned i = 0; i < CALLS; i++) ck_assert_uint_eq(pair.at_client[i].bytes, BYTES);
    free(bytes);
    pair_close(&pair);
}
END_TEST

START_TEST(a_client_stops_when_the_server_gives_no_credit_back)
{
    set_up();
    pair.echo = false;
    pair.hold = true;
    uint8_t *bytes = pattern(10000, 3);
    struct grpc_client_call *call = pair_start(&pair, 0, "/stream");
    for (unsigned i = 0; i < 100; i++) ck_assert_int_eq(grpc_client_message(call, bytes, 10000), 0);
    ck_assert(pair_run(&pair));
    ck_assert_uint_le(pair.at_server[0].bytes, 256 << 10);
    ck_assert_uint_ge(pair.at_server[0].bytes, 240 << 10);
    size_t before = pair.at_server[0].messages;
    grpc_call_consumed(pair.at_server[0].served, pair.at_server[0].bytes);
    ck_assert(pair_run(&pair));
    ck_assert_uint_gt(pair.at_server[0].messages, before);
    while (pair.at_server[0].messages < 100) {
        before = pair.at_server[0].bytes;
        grpc_call_consumed(pair.at_server[0].served, 10000);
        ck_assert(pair_run(&pair));
    }
    free(bytes);
    pair_close(&pair);
}
END_TEST

START_TEST(a_server_is_full_and_then_writable_again)
{
    set_up();
    pair.echo = false;
    pair.client_hold = true;
    pair_start(&pair, 0, "/stream");
    ck_assert(pair_run(&pair));
    struct grpc_call *served = pair.at_server[0].served;
    uint8_t *bytes = pattern(10000, 3);
    unsigned sent = 0;
    for (;;) { /* the client gives no credit, so that what is sent stops and then the queue fills */
        int rc = grpc_call_reply(served, bytes, 10000);
        if (rc == LOCKSTEP_EFULL) break;
        ck_assert_int_eq(rc, 0);
        sent++;
        ck_assert(pair_run(&pair));
        ck_assert_uint_lt(sent, 1000);
    }
    ck_assert_uint_le(grpc_conn_queued_bytes(pair.server), 256 << 10);
    ck_assert_uint_eq(pair.at_server[0].writables, 0);
    grpc_client_consumed(pair.at_client[0].started, pair.at_client[0].bytes);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.at_server[0].writables, 1);
    ck_assert_int_eq(grpc_call_reply(served, bytes, 10000), 0);
    free(bytes);
    pair_close(&pair);
}
END_TEST

START_TEST(a_client_is_full_and_then_writable_again)
{
    pair_init(&pair);
    pair.client_limits.call_send_bytes_max = 100000;
    pair_open(&pair);
    uint8_t *bytes = pattern(10000, 3);
    struct grpc_client_call *call = pair_start(&pair, 0, "/echo");
    unsigned queued = 0;
    while (grpc_client_message(call, bytes, 10000) == 0) queued++;
    ck_assert_uint_eq(queued, 9);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.at_client[0].writables, 1);
    ck_assert_int_eq(grpc_client_message(call, bytes, 10000), 0);
    free(bytes);
    pair_close(&pair);
}
END_TEST

START_TEST(a_cancelled_call_is_cancelled_at_the_server)
{
    set_up();
    pair.echo = false;
    struct grpc_client_call *call = pair_start(&pair, 0, "/stream");
    ck_assert(pair_run(&pair));
    pair.at_client[0].started = NULL;
    grpc_client_cancel(call);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.at_server[0].cancels, 1);
    ck_assert_uint_eq(pair.at_client[0].ends, 0);
    ck_assert_uint_eq(grpc_conn_call_count(pair.server), 0);
    call = pair_start(&pair, 1, "/stream"); /* and one that never leaves */
    pair.at_client[1].started = NULL;
    grpc_client_cancel(call);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.opened, 1);
    pair_close(&pair);
}
END_TEST

START_TEST(calls_over_the_servers_limit_wait_at_the_client)
{
    pair_init(&pair);
    pair.server_limits.calls_max = 3;
    pair.echo = false;
    pair_open(&pair);
    ck_assert(pair_run(&pair));
    for (unsigned i = 0; i < 3; i++) pair_start(&pair, i, "/stream");
    struct grpc_client_call *call;
    ck_assert_int_eq(grpc_client_start(pair.client, "/stream", 0, NULL, 0, NULL, &call), LOCKSTEP_EFULL);
    pair_close(&pair);
}
END_TEST

START_TEST(a_draining_server_finishes_what_it_has)
{
    set_up();
    pair.echo = false;
    struct grpc_client_call *call = pair_start(&pair, 0, "/stream");
    grpc_client_half_close(call);
    ck_assert(pair_run(&pair));
    grpc_conn_drain(pair.server);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.drains, 1);
    ck_assert_int_eq(grpc_client_start(pair.client, "/stream", 0, NULL, 0, NULL, &call), LOCKSTEP_ECLOSED);
    ck_assert(!grpc_conn_finished(pair.server));
    struct grpc_call *served = pair.at_server[0].served;
    pair.at_server[0].served = NULL;
    grpc_call_finish(served, GRPC_OK, grpc_text(""), NULL, 0);
    ck_assert(pair_run(&pair));
    ck_assert_int_eq(pair.at_client[0].status, GRPC_OK);
    ck_assert(grpc_conn_finished(pair.server));
    ck_assert(grpc_client_finished(pair.client));
    pair_close(&pair);
}
END_TEST

/* A call that a GOAWAY overtakes was surely not looked at: the client may send it again. */
START_TEST(a_call_behind_a_goaway_is_untouched)
{
    set_up();
    ck_assert(pair_run(&pair));
    grpc_conn_drain(pair.server);
    uint8_t bytes[256];
    size_t n = grpc_conn_send(pair.server, bytes, sizeof bytes);
    struct grpc_client_call *call = pair_start(&pair, 0, "/echo");
    ck_assert_int_eq(grpc_client_message(call, (const uint8_t *)"x", 1), 0);
    grpc_client_half_close(call);
    uint8_t out[1024];
    size_t sent = grpc_client_send(pair.client, out, sizeof out);
    ck_assert_int_eq(grpc_client_receive(pair.client, bytes, n), 0);
    ck_assert_uint_eq(pair.at_client[0].ends, 1);
    ck_assert_int_eq(pair.at_client[0].status, GRPC_UNAVAILABLE);
    ck_assert(pair.at_client[0].untouched);
    ck_assert_int_eq(grpc_conn_receive(pair.server, out, sent), 0);
    ck_assert_uint_eq(pair.opened, 0);
    pair_close(&pair);
}
END_TEST

START_TEST(calls_that_never_left_are_untouched_when_the_connection_is_lost)
{
    set_up();
    pair_start(&pair, 0, "/echo");
    ck_assert(pair_run(&pair));
    pair_start(&pair, 1, "/echo");
    pair_close(&pair);
    ck_assert(!pair.at_client[0].untouched);
    ck_assert(pair.at_client[1].untouched);
}
END_TEST

START_TEST(an_answer_over_the_clients_limit_ends_its_call_alone)
{
    pair_init(&pair);
    pair.client_limits.message_bytes_max = 1000;
    pair_open(&pair);
    uint8_t *bytes = pattern(1001, 3);
    struct grpc_client_call *call = pair_start(&pair, 0, "/echo");
    ck_assert_int_eq(grpc_client_message(call, bytes, 1001), 0);
    struct grpc_client_call *other = pair_start(&pair, 1, "/echo");
    ck_assert_int_eq(grpc_client_message(other, bytes, 1000), 0);
    grpc_client_half_close(other);
    ck_assert(pair_run(&pair));
    ck_assert_int_eq(pair.at_client[0].status, GRPC_RESOURCE_EXHAUSTED);
    ck_assert(!pair.at_client[0].from_server);
    ck_assert_int_eq(pair.at_client[1].status, GRPC_OK);
    ck_assert_uint_eq(pair.at_server[0].cancels, 1);
    free(bytes);
    pair_close(&pair);
}
END_TEST

/* The sum behind GRPC_CONN_BYTES and GRPC_CALL_BYTES: all calls at once, each with metadata, replies and trailers. */
START_TEST(a_good_client_never_comes_to_the_protocols_bound)
{
    enum { CALLS = 500 };
    pair_init(&pair);
    pair.server_limits.calls_max = CALLS;
    pair.echo = false;
    pair_open(&pair);
    ck_assert(pair_run(&pair));
    const struct grpc_pair forward = {grpc_text("lockstep-forward"), grpc_text("no")};
    const struct grpc_pair leader = {grpc_text("lockstep-leader"), grpc_text("127.0.0.1:7402")};
    for (unsigned i = 0; i < CALLS; i++) {
        struct grpc_client_call *call;
        ck_assert_int_eq(grpc_client_start(pair.client, "/x", 0, &forward, 1, &pair.at_client[i], &call), 0);
        pair.at_client[i].started = call;
        ck_assert_int_eq(grpc_client_message(call, (const uint8_t *)"x", 1), 0);
    }
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(grpc_conn_call_count(pair.server), CALLS);
    for (unsigned i = 0; i < CALLS; i++) {
        struct grpc_call *served = pair.at_server[i].served;
        pair.at_server[i].served = NULL;
        ck_assert_int_eq(grpc_call_reply(served, (const uint8_t *)"y", 1), 0);
        grpc_call_finish(served, GRPC_ABORTED, grpc_text("a message"), &leader, 1);
    }
    ck_assert_uint_lt(grpc_conn_held_bytes(pair.server), GRPC_CONN_BYTES + CALLS * GRPC_CALL_BYTES);
    ck_assert(pair_run(&pair));
    for (unsigned i = 0; i < CALLS; i++) ck_assert_int_eq(pair.at_client[i].status, GRPC_ABORTED);
    pair_close(&pair);
}
END_TEST

START_TEST(a_claim_is_filled_in_place)
{
    set_up();
    pair.echo = false;
    pair_start(&pair, 0, "/stream");
    ck_assert(pair_run(&pair));
    struct grpc_call *served = pair.at_server[0].served;
    uint8_t *to;
    ck_assert_int_eq(grpc_call_claim(served, 1000, &to), 0); /* forgotten */
    ck_assert_int_eq(grpc_call_claim(served, 100, &to), 0);
    memcpy(to, "abc", 3);
    grpc_call_commit(served, 3);
    ck_assert(pair_run(&pair));
    ck_assert_uint_eq(pair.at_client[0].messages, 1);
    ck_assert_uint_eq(pair.at_client[0].last_bytes, 3);
    ck_assert_mem_eq(pair.at_client[0].last, "abc", 3);
    pair_close(&pair);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_unary_call_is_answered);
    tcase_add_test(tests, bytes_may_come_in_pieces_of_any_size);
    tcase_add_test(tests, thousands_of_calls_leave_no_memory_behind);
    tcase_add_test(tests, metadata_and_deadline_arrive);
    tcase_add_test(tests, a_status_without_messages_is_trailers_only);
    tcase_add_test(tests, trailers_and_message_arrive_behind_the_replies);
    tcase_add_test(tests, a_finish_after_the_replies_have_left_still_arrives);
    tcase_add_test(tests, messages_longer_than_the_window_pass);
    tcase_add_test(tests, a_thousand_half_sent_messages_do_not_stop_each_other);
    tcase_add_test(tests, a_client_stops_when_the_server_gives_no_credit_back);
    tcase_add_test(tests, a_server_is_full_and_then_writable_again);
    tcase_add_test(tests, a_client_is_full_and_then_writable_again);
    tcase_add_test(tests, a_cancelled_call_is_cancelled_at_the_server);
    tcase_add_test(tests, calls_over_the_servers_limit_wait_at_the_client);
    tcase_add_test(tests, a_draining_server_finishes_what_it_has);
    tcase_add_test(tests, a_call_behind_a_goaway_is_untouched);
    tcase_add_test(tests, calls_that_never_left_are_untouched_when_the_connection_is_lost);
    tcase_add_test(tests, an_answer_over_the_clients_limit_ends_its_call_alone);
    tcase_add_test(tests, a_good_client_never_comes_to_the_protocols_bound);
    tcase_add_test(tests, a_claim_is_filled_in_place);
}

int main(void)
{
    return unit_main("grpc", add);
}
