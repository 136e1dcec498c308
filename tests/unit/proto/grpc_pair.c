/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_pair.c - see grpc_pair.h. */
#include "tests/unit/proto/grpc_pair.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static void keep(struct pair_call *seen, const uint8_t *bytes, size_t n)
{
    seen->messages++;
    seen->bytes += n;
    seen->last_bytes = n;
    memcpy(seen->last, bytes, n < sizeof seen->last ? n : sizeof seen->last);
}

static void text_copy(char *to, size_t room, struct grpc_text text)
{
    snprintf(to, room, "%.*s", (int)text.bytes, text.at);
}

static const char *value_of(const struct grpc_pair *pairs, size_t count, const char *name, size_t *ret_bytes)
{
    for (size_t i = 0; i < count; i++) {
        if (!grpc_text_equals(pairs[i].name, name)) continue;
        *ret_bytes = pairs[i].value.bytes;
        return pairs[i].value.at;
    }
    *ret_bytes = 0;
    return "";
}

static void served_open(void *owner, struct grpc_call *call, const struct grpc_request *request)
{
    struct pair *pair = owner;
    ck_assert_uint_lt(pair->opened, PAIR_CALLS_MAX);
    struct pair_call *seen = &pair->at_server[pair->opened++];
    struct grpc_text forward;
    seen->served = call;
    seen->timeout_ns = request->timeout_ns;
    text_copy(seen->path, sizeof seen->path, request->path);
    forward.at = value_of(request->pairs, request->pair_count, "lockstep-forward", &forward.bytes);
    text_copy(seen->forward, sizeof seen->forward, forward);
    grpc_call_user_set(call, seen);
    if (grpc_text_equals(request->path, "/unknown")) {
        seen->served = NULL;
        grpc_call_finish(call, GRPC_UNIMPLEMENTED, grpc_text("there is no such method"), NULL, 0);
    }
}

static void served_message(void *owner, struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    struct pair *pair = owner;
    struct pair_call *seen = grpc_call_user(call);
    keep(seen, bytes, n);
    if (pair->echo) ck_assert_int_eq(grpc_call_reply(call, bytes, n), 0);
    if (!pair->hold) grpc_call_consumed(call, n);
}

static void served_half_close(void *owner, struct grpc_call *call)
{
    struct pair *pair = owner;
    struct pair_call *seen = grpc_call_user(call);
    seen->half_closes++;
    if (!pair->echo) return;
    seen->served = NULL;
    grpc_call_finish(call, GRPC_OK, grpc_text(""), NULL, 0);
}

static void served_cancel(void *owner, struct grpc_call *call)
{
    (void)owner;
    struct pair_call *seen = grpc_call_user(call);
    ck_assert_ptr_eq(seen->served, call);
    seen->cancels++;
    seen->served = NULL;
}

static void served_writable(void *owner, struct grpc_call *call)
{
    (void)owner;
    struct pair_call *seen = grpc_call_user(call);
    ck_assert_ptr_eq(seen->served, call);
    seen->writables++;
}

static void started_message(void *owner, struct grpc_client_call *call, const uint8_t *bytes, size_t n)
{
    struct pair *pair = owner;
    struct pair_call *seen = grpc_client_user(call);
    ck_assert_ptr_eq(seen->started, call);
    keep(seen, bytes, n);
    if (!pair->client_hold) grpc_client_consumed(call, n);
}

static void started_end(void *owner, struct grpc_client_call *call, const struct grpc_client_result *result)
{
    (void)owner;
    struct pair_call *seen = grpc_client_user(call);
    struct grpc_text leader;
    ck_assert_ptr_eq(seen->started, call);
    seen->started = NULL;
    seen->ends++;
    seen->status = result->status;
    seen->from_server = result->from_server;
    seen->untouched = result->untouched;
    text_copy(seen->message, sizeof seen->message, result->message);
    leader.at = value_of(result->pairs, result->pair_count, "lockstep-leader", &leader.bytes);
    text_copy(seen->leader, sizeof seen->leader, leader);
}

static void started_writable(void *owner, struct grpc_client_call *call)
{
    (void)owner;
    struct pair_call *seen = grpc_client_user(call);
    seen->writables++;
}

static void draining(void *owner)
{
    struct pair *pair = owner;
    pair->drains++;
}

static const struct grpc_conn_ops server_ops = {.call_open = served_open,
                                                .call_message = served_message,
                                                .call_half_close = served_half_close,
                                                .call_cancel = served_cancel,
                                                .call_writable = served_writable};

static const struct grpc_client_ops client_ops = {
    .call_message = started_message, .call_end = started_end, .call_writable = started_writable, .draining = draining};

void pair_init(struct pair *pair)
{
    memset(pair, 0, sizeof *pair);
    pair->server_limits = (struct grpc_conn_limits){.calls_max = 1024,
                                                    .message_bytes_max = 4 << 20,
                                                    .call_window_bytes = 256 << 10,
                                                    .call_send_bytes_max = 256 << 10,
                                                    .conn_send_bytes_max = 8 << 20,
                                                    .messages_bytes_max = 32 << 20};
    pair->client_limits = (struct grpc_client_limits){.message_bytes_max = 4 << 20,
                                                      .call_window_bytes = 256 << 10,
                                                      .call_send_bytes_max = 8 << 20,
                                                      .messages_bytes_max = 64 << 20};
    pool_open(&pair->pool, 256 << 20);
    pair->echo = true;
}

void pair_open(struct pair *pair)
{
    ck_assert_int_eq(grpc_conn_open(&pair->pool, &pair->server_limits, &server_ops, pair, &pair->server), 0);
    ck_assert_int_eq(
        grpc_client_open(&pair->pool, &pair->client_limits, &client_ops, pair, "127.0.0.1:7401", &pair->client), 0);
}

void pair_close(struct pair *pair)
{
    grpc_client_close(pair->client);
    grpc_conn_close(pair->server);
    pair->client = NULL;
    pair->server = NULL;
    pool_close(&pair->pool); /* asserts that every piece came back */
}

static uint8_t wire_bytes[1 << 16];

static int hand_over(struct pair *pair, bool to_server, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t count = pair->fragment != 0 && pair->fragment < n - at ? pair->fragment : n - at;
        int rc = to_server ? grpc_conn_receive(pair->server, wire_bytes + at, count)
                           : grpc_client_receive(pair->client, wire_bytes + at, count);
        if (rc != 0) return rc;
        at += count;
    }
    return 0;
}

bool pair_run(struct pair *pair)
{
    for (bool moved = true; moved;) {
        moved = false;
        size_t n = grpc_client_send(pair->client, wire_bytes, sizeof wire_bytes);
        pair->to_server_bytes += n;
        moved |= n > 0;
        if (hand_over(pair, true, n) != 0) return false;
        if (pair->client_deaf) continue;
        n = grpc_conn_send(pair->server, wire_bytes, sizeof wire_bytes);
        pair->to_client_bytes += n;
        moved |= n > 0;
        if (hand_over(pair, false, n) != 0) return false;
    }
    return true;
}

struct grpc_client_call *pair_start(struct pair *pair, unsigned index, const char *path)
{
    struct grpc_client_call *call;
    ck_assert_int_eq(grpc_client_start(pair->client, path, 0, NULL, 0, &pair->at_client[index], &call), 0);
    pair->at_client[index].started = call;
    return call;
}

int pair_feed(struct pair *pair, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;
    size_t step = pair->fragment != 0 ? pair->fragment : n;
    for (size_t i = 0; i < n; i += step) {
        int rc = grpc_conn_receive(pair->server, at + i, step < n - i ? step : n - i);
        if (rc != 0) return rc;
    }
    return 0;
}

size_t pair_drop(struct pair *pair)
{
    size_t dropped = 0;
    for (;;) {
        size_t n = grpc_conn_send(pair->server, wire_bytes, sizeof wire_bytes);
        if (n == 0) return dropped;
        dropped += n;
    }
}

void pair_open_raw(struct pair *pair)
{
    static const char preface[] =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        "\0\0\0\4\0\0\0\0"; /* and an empty SETTINGS; the string's own zero is its last byte */
    ck_assert_int_eq(grpc_conn_open(&pair->pool, &pair->server_limits, &server_ops, pair, &pair->server), 0);
    ck_assert_int_eq(pair_feed(pair, preface, sizeof preface), 0);
    pair_drop(pair);
}
