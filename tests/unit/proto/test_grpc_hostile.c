/* SPDX-License-Identifier: Apache-2.0 */
/* test_grpc_hostile.c - the server's codec against hand-made frames: what is refused, how, and that memory stays
 * bounded. Sources: RFC 9113; the gRPC project's PROTOCOL-HTTP2 document; CVE-2023-44487 (rapid reset), CVE-2024-28182
 * (CONTINUATION flood). */
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/proto/grpc_pair.h"

static struct pair pair;

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, CONTINUATION = 9 };
enum { END_STREAM = 1, END_HEADERS = 4 };

static uint8_t out[1 << 20];
static size_t out_bytes;

static void frame(int type, int flags, uint32_t stream, const void *payload, size_t n)
{
    uint8_t *to = out + out_bytes;
    ck_assert_uint_lt(out_bytes + n + 9, sizeof out);
    const uint8_t head[] = {(uint8_t)(n >> 16),      (uint8_t)(n >> 8),      (uint8_t)n,
                            (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
                            (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(to, head, sizeof head);
    if (n > 0) memcpy(to + sizeof head, payload, n);
    out_bytes += sizeof head + n;
}

/* HPACK: a literal without indexing, lengths below 127. */
static size_t header(uint8_t *to, const char *name, const char *value)
{
    size_t name_bytes = strlen(name), value_bytes = strlen(value), used = 0;
    to[used++] = 0;
    to[used++] = (uint8_t)name_bytes;
    memcpy(to + used, name, name_bytes);
    used += name_bytes;
    to[used++] = (uint8_t)value_bytes;
    memcpy(to + used, value, value_bytes);
    return used + value_bytes;
}

struct request {
    const char *method, *path, *content_type, *extra_name, *extra_value;
};

static size_t header_block(uint8_t *to, struct request r)
{
    size_t n = header(to, ":method", r.method != NULL ? r.method : "POST");
    n += header(to + n, ":scheme", "http");
    n += header(to + n, ":path", r.path != NULL ? r.path : "/echo");
    n += header(to + n, ":authority", "a");
    n += header(to + n, "content-type", r.content_type != NULL ? r.content_type : "application/grpc");
    if (r.extra_name != NULL) n += header(to + n, r.extra_name, r.extra_value);
    return n;
}

static void request(uint32_t stream, int flags, struct request r)
{
    uint8_t block[1024];
    frame(HEADERS, END_HEADERS | flags, stream, block, header_block(block, r));
}

static int feed(void)
{
    int rc = pair_feed(&pair, out, out_bytes);
    out_bytes = 0;
    return rc;
}

/* All that the server has to say, as one run of bytes. */
static uint8_t said[1 << 20];
static size_t said_bytes;

static void listen_to_server(void)
{
    said_bytes = 0;
    for (size_t n; (n = grpc_conn_send(pair.server, said + said_bytes, sizeof said - said_bytes)) > 0;) said_bytes += n;
}

/* The nth frame (from 0) of a type in what the server said. */
static const uint8_t *frame_said(int type, unsigned nth, size_t *ret_bytes)
{
    for (size_t at = 0; at + 9 <= said_bytes;) {
        size_t n = (size_t)said[at] << 16 | (size_t)said[at + 1] << 8 | said[at + 2];
        if (said[at + 3] == type && nth-- == 0) {
            *ret_bytes = n;
            return said + at;
        }
        at += 9 + n;
    }
    return NULL;
}

static bool said_text(const char *text)
{
    return memmem(said, said_bytes, text, strlen(text)) != NULL;
}

static void set_up(void)
{
    pair_init(&pair);
    out_bytes = 0;
    pair_open_raw(&pair);
}

/* A client codec that is fed what the server said after hand-made frames would lose track of HPACK; so what the server
 * answers is read by a client codec that made the same request itself. */
static const struct pair_call *status_of(struct request r, const void *data, size_t n)
{
    pair_init(&pair);
    pair_open(&pair);
    const struct grpc_pair extra = {grpc_text(r.extra_name != NULL ? r.extra_name : "x"),
                                    grpc_text(r.extra_value != NULL ? r.extra_value : "y")};
    struct grpc_client_call *call;
    ck_assert_int_eq(
        grpc_client_start(pair.client, r.path != NULL ? r.path : "/echo", 0, &extra, 1, &pair.at_client[0], &call), 0);
    pair.at_client[0].started = call;
    ck_assert(pair_run(&pair));
    if (pair.at_client[0].ends == 0) {
        frame(DATA, 0, 1, data, n); /* the first call's stream is 1 */
        ck_assert_int_eq(feed(), 0);
        ck_assert(pair_run(&pair));
    }
    return &pair.at_client[0];
}

START_TEST(garbage_closes_the_connection)
{
    pair_init(&pair);
    pair_open(&pair);
    ck_assert_int_eq(pair_feed(&pair, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27), LOCKSTEP_EPROTO);
    ck_assert_int_eq(pair_feed(&pair, "PRI", 3), LOCKSTEP_EPROTO);
    pair_drop(&pair);
    ck_assert(grpc_conn_finished(pair.server));
    pair_close(&pair);

    set_up();
    uint8_t noise[4096];
    struct random random;
    random_seed(&random, 7);
    random_fill(&random, noise, sizeof noise);
    if (pair_feed(&pair, noise, sizeof noise) == 0) pair_drop(&pair);
    pair_drop(&pair);
    ck_assert(grpc_conn_finished(pair.server));
    ck_assert_uint_eq(pair.opened, 0);
    pair_close(&pair);
}
END_TEST

START_TEST(another_content_type_is_415)
{
    static const char *const refused[] = {"application/json", "application/grpc-web", "application/grpc+json",
                                          "text/plain"};
    for (size_t i = 0; i < 4; i++) {
        set_up();
        request(1, 0, (struct request){.content_type = refused[i]});
        ck_assert_int_eq(feed(), 0);
        listen_to_server();
        ck_assert_uint_eq(pair.opened, 0);
        ck_assert(said_text("415") ||
                  said_text("\x03"
                            "415") ||
                  said_bytes > 0);
        size_t n;
        const uint8_t *headers = frame_said(HEADERS, 0, &n);
        ck_assert_ptr_nonnull(headers);
        ck_assert_int_eq(headers[4], END_STREAM | END_HEADERS);
        ck_assert_ptr_nonnull(frame_said(RST_STREAM, 0, &n)); /* the request goes on: told to stop */
        pair_close(&pair);
    }
    static const char *const taken[] = {"application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"};
    for (size_t i = 0; i < 3; i++) {
        set_up();
        request(1, 0, (struct request){.content_type = taken[i]});
        ck_assert_int_eq(feed(), 0);
        ck_assert_uint_eq(pair.opened, 1);
        pair_close(&pair);
    }
}
END_TEST

START_TEST(another_method_is_405)
{
    set_up();
    request(1, END_STREAM, (struct request){.method = "GET"});
    ck_assert_int_eq(feed(), 0);
    listen_to_server();
    ck_assert_uint_eq(pair.opened, 0);
    size_t n;
    ck_assert_ptr_nonnull(frame_said(HEADERS, 0, &n));
    ck_assert_ptr_null(frame_said(RST_STREAM, 0, &n)); /* the request was complete */
    pair_close(&pair);
}
END_TEST

START_TEST(a_message_over_the_limit_is_refused_by_its_length)
{
    const struct pair_call *call = status_of((struct request){0},
                                             "\0\xff\xff\xff\xff"
                                             "abc",
                                             8);
    ck_assert_int_eq(call->status, GRPC_RESOURCE_EXHAUSTED);
    ck_assert(call->from_server);
    ck_assert_uint_eq(pair.at_server[0].cancels, 1);
    ck_assert_uint_lt(pair.pool.bytes, 1 << 20); /* nothing was allocated for it */
    pair_close(&pair);
    call = status_of((struct request){0}, "\0\0\x40\0\1", 5); /* one byte over 4 MiB */
    ck_assert_int_eq(call->status, GRPC_RESOURCE_EXHAUSTED);
    pair_close(&pair);
}
END_TEST

START_TEST(an_announced_message_costs_nothing_until_it_comes)
{
    set_up();
    for (uint32_t i = 0; i < 500; i++) {
        request(2 * i + 1, 0, (struct request){0});
        frame(DATA, 0, 2 * i + 1,
              "\0\0\x40\0\0"
              "abc",
              8); /* 4 MiB each */
        ck_assert_int_eq(feed(), 0);
        pair_drop(&pair);
    }
    ck_assert_uint_eq(grpc_conn_call_count(pair.server), 500);
    ck_assert_uint_lt(grpc_conn_held_bytes(pair.server), 2 << 20);
    pair_close(&pair);
}
END_TEST

START_TEST(compressed_messages_are_refused_by_the_right_status)
{
    const struct pair_call *call =
        status_of((struct request){.extra_name = "grpc-encoding", .extra_value = "gzip"}, "\1\0\0\0\1x", 6);
    ck_assert_int_eq(call->status, GRPC_UNIMPLEMENTED);
    pair_close(&pair);
    call = status_of((struct request){0}, "\1\0\0\0\1x", 6);
    ck_assert_int_eq(call->status, GRPC_INTERNAL);
    pair_close(&pair);
    call = status_of((struct request){0}, "\2\0\0\0\1x", 6);
    ck_assert_int_eq(call->status, GRPC_INTERNAL);
    pair_close(&pair);
}
END_TEST

START_TEST(a_request_that_ends_inside_a_message_is_refused)
{
    set_up();
    request(1, 0, (struct request){0});
    frame(DATA, END_STREAM, 1, "\0\0\0\0\5ab", 7);
    ck_assert_int_eq(feed(), 0);
    ck_assert_uint_eq(pair.at_server[0].cancels, 1);
    ck_assert_uint_eq(pair.at_server[0].half_closes, 0);
    listen_to_server();
    ck_assert_uint_gt(said_bytes, 0);
    pair_close(&pair);
}
END_TEST

START_TEST(a_bad_timeout_and_a_long_path_are_refused)
{
    const struct pair_call *call =
        status_of((struct request){.extra_name = "grpc-timeout", .extra_value = "123456789m"}, "", 0);
    ck_assert_int_eq(call->status, GRPC_INVALID_ARGUMENT);
    pair_close(&pair);
    char path[140];
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[139] = 0;
    call = status_of((struct request){.path = path}, "", 0);
    ck_assert_int_eq(call->status, GRPC_UNIMPLEMENTED);
    pair_close(&pair);
}
END_TEST

START_TEST(a_header_list_over_8_KiB_is_refused)
{
    pair_init(&pair);
    pair_open(&pair);
    char *value = malloc(9000);
    ck_assert_ptr_nonnull(value);
    memset(value, 'v', 9000);
    const struct grpc_pair large = {grpc_text("x-large"), {value, 9000}};
    struct grpc_client_call *call;
    ck_assert_int_eq(grpc_client_start(pair.client, "/echo", 0, &large, 1, &pair.at_client[0], &call), 0);
    pair.at_client[0].started = call;
    ck_assert(pair_run(&pair));
    ck_assert_int_eq(pair.at_client[0].status, GRPC_RESOURCE_EXHAUSTED);
    ck_assert_uint_eq(pair.opened, 0);
    free(value);
    pair_close(&pair);
}
END_TEST

/* CVE-2024-28182: nghttp2's limit is a few CONTINUATION frames. */
START_TEST(a_continuation_flood_ends_the_connection)
{
    set_up();
    uint8_t block[1024];
    size_t n = header_block(block, (struct request){0});
    frame(HEADERS, 0, 1, block, n);
    for (unsigned i = 0; i < 100; i++) frame(CONTINUATION, 0, 1, "", 0);
    feed();
    pair_drop(&pair);
    ck_assert(grpc_conn_finished(pair.server));
    ck_assert_uint_eq(pair.opened, 0);
    pair_close(&pair);
}
END_TEST

/* CVE-2023-44487: streams that are reset as soon as they are opened. */
START_TEST(a_rapid_reset_ends_the_connection)
{
    pair_init(&pair);
    pair.server_limits.calls_max = 100;
    out_bytes = 0;
    pair_open_raw(&pair);
    unsigned resets = 0;
    for (uint32_t stream = 1; resets < 1500 && !grpc_conn_finished(pair.server); stream += 2, resets++) {
        request(stream, 0, (struct request){0});
        frame(RST_STREAM, 0, stream, "\0\0\0\x08", 4);
        if (feed() != 0) break;
        pair_drop(&pair);
    }
    ck_assert_uint_lt(resets, 1000);
    ck_assert_uint_gt(resets, 300); /* a good client whose deadlines all pass stays */
    pair_close(&pair);
}
END_TEST

START_TEST(more_calls_than_allowed_are_refused)
{
    pair_init(&pair);
    pair.server_limits.calls_max = 10;
    out_bytes = 0;
    pair_open_raw(&pair);
    for (uint32_t i = 0; i < 12; i++) request(2 * i + 1, 0, (struct request){0});
    feed();
    ck_assert_uint_eq(pair.opened, 10);
    pair_close(&pair);
}
END_TEST

/* A client that sends and never reads: replies, settings and ping acks all stay. */
START_TEST(a_deaf_client_is_bounded)
{
    pair_init(&pair);
    pair.echo = false;
    pair.server_limits.messages_bytes_max = 4 << 20;
    pair.server_limits.conn_send_bytes_max = 1 << 20;
    out_bytes = 0;
    pair_open_raw(&pair);
    static uint8_t reply[10000];
    int rc = 0;
    unsigned full = 0;
    for (uint32_t i = 0; i < 200; i++) {
        request(2 * i + 1, 0, (struct request){0});
        rc = feed();
        if (rc != 0) break;
        while (grpc_call_reply(pair.at_server[i].served, reply, sizeof reply) == 0) {
        }
        full++;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_uint_eq(full, 200);
    ck_assert_uint_le(grpc_conn_queued_bytes(pair.server), 1 << 20);
    ck_assert_uint_le(grpc_conn_held_bytes(pair.server), 4 << 20);
    for (unsigned i = 0; i < 100000 && rc == 0; i++) {
        frame(PING, 0, 0, "12345678", 8);
        rc = feed();
    }
    ck_assert_int_ne(rc, 0); /* nghttp2's limit of unsent acks, or the budget */
    ck_assert_uint_le(grpc_conn_held_bytes(pair.server), 4 << 20);
    pair_close(&pair);
    ck_assert_uint_eq(pair.at_server[0].cancels, 1);
}
END_TEST

/* Partial messages of many calls: the call that would pass the budget is refused, the connection lives. */
START_TEST(unfinished_messages_are_bounded_by_the_budget)
{
    pair_init(&pair);
    pair.server_limits.messages_bytes_max = 2 << 20;
    out_bytes = 0;
    pair_open_raw(&pair);
    static uint8_t part[16000] = {0, 0, 0x3f, 0, 0}; /* of a message of 4 MB */
    for (uint32_t i = 0; i < 200; i++) {
        request(2 * i + 1, 0, (struct request){0});
        frame(DATA, 0, 2 * i + 1, part, sizeof part);
        ck_assert_int_eq(feed(), 0);
        pair_drop(&pair);
    }
    ck_assert_uint_eq(pair.opened, 200);
    ck_assert_uint_lt(grpc_conn_call_count(pair.server), 150);
    ck_assert_uint_gt(grpc_conn_call_count(pair.server), 10);
    ck_assert_uint_le(grpc_conn_held_bytes(pair.server), (2 << 20) + GRPC_CONN_BYTES + 200 * GRPC_CALL_BYTES);
    pair_close(&pair);
}
END_TEST

START_TEST(a_good_request_is_taken_at_every_byte_border_and_cut_off_anywhere)
{
    uint8_t all[4096];
    out_bytes = 0;
    request(1, 0, (struct request){.extra_name = "grpc-timeout", .extra_value = "5S"});
    frame(DATA, 0, 1, "\0\0\0\0\3abc\0", 9);
    frame(DATA, END_STREAM, 1, "\0\0\0\0", 4);
    size_t n = out_bytes;
    memcpy(all, out, n);
    for (size_t cut = 1; cut < n; cut++) {
        set_up();
        ck_assert_int_eq(pair_feed(&pair, all, cut), 0);
        ck_assert_uint_eq(pair.at_server[0].half_closes, 0);
        ck_assert_int_eq(pair_feed(&pair, all + cut, n - cut), 0);
        ck_assert_uint_eq(pair.at_server[0].messages, 2);
        ck_assert_uint_eq(pair.at_server[0].half_closes, 1);
        ck_assert_uint_eq(pair.at_server[0].timeout_ns, 5000000000);
        pair_close(&pair);
        set_up();
        ck_assert_int_eq(pair_feed(&pair, all, cut), 0);
        pair_close(&pair);
    }
}
END_TEST

/* Every byte of a good conversation, changed: nothing crashes, memory comes back. */
START_TEST(changed_bytes_never_break_the_codec)
{
    struct random random;
    random_seed(&random, unit_seed(0xedce));
    uint8_t all[4096];
    out_bytes = 0;
    for (uint32_t stream = 1; stream < 12; stream += 2) {
        request(stream, 0, (struct request){.extra_name = "lockstep-forward", .extra_value = "no"});
        frame(DATA, END_STREAM, stream, "\0\0\0\0\3abc", 8);
    }
    size_t n = out_bytes;
    memcpy(all, out, n);
    for (uint64_t round = 0; round < unit_rounds(5000); round++) {
        uint8_t changed[4096];
        memcpy(changed, all, n);
        for (uint64_t i = random_between(&random, 1, 6); i > 0; i--)
            changed[random_below(&random, n)] = (uint8_t)random_u64(&random);
        set_up();
        pair_feed(&pair, changed, n);
        pair_drop(&pair);
        pair_close(&pair);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, garbage_closes_the_connection);
    tcase_add_test(tests, another_content_type_is_415);
    tcase_add_test(tests, another_method_is_405);
    tcase_add_test(tests, a_message_over_the_limit_is_refused_by_its_length);
    tcase_add_test(tests, an_announced_message_costs_nothing_until_it_comes);
    tcase_add_test(tests, compressed_messages_are_refused_by_the_right_status);
    tcase_add_test(tests, a_request_that_ends_inside_a_message_is_refused);
    tcase_add_test(tests, a_bad_timeout_and_a_long_path_are_refused);
    tcase_add_test(tests, a_header_list_over_8_KiB_is_refused);
    tcase_add_test(tests, a_continuation_flood_ends_the_connection);
    tcase_add_test(tests, a_rapid_reset_ends_the_connection);
    tcase_add_test(tests, more_calls_than_allowed_are_refused);
    tcase_add_test(tests, a_deaf_client_is_bounded);
    tcase_add_test(tests, unfinished_messages_are_bounded_by_the_budget);
    tcase_add_test(tests, a_good_request_is_taken_at_every_byte_border_and_cut_off_anywhere);
    tcase_add_test(tests, changed_bytes_never_break_the_codec);
}

int main(void)
{
    return unit_main("grpc hostile", add);
}
