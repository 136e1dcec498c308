/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_grpc.c - any bytes at the gRPC server's and client's codecs. The first byte chooses: raw bytes behind the preface;
 * frames that the rest of the input only fills in, which come further; or bytes at the client with a call under way.
 * A service echoes what it gets. Every piece of memory must have come back at the end. */
#include <string.h>

#include "base/assert.h"
#include "proto/grpc_client.h"
#include "proto/grpc_server.h"
#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static unsigned open_calls;

static void call_open(void *owner, struct grpc_call *call, const struct grpc_request *request)
{
    (void)owner;
    if (request->path.bytes % 7 == 6)
        grpc_call_finish(call, GRPC_UNIMPLEMENTED, request->path, NULL, 0);
    else
        open_calls++;
}

static void call_message(void *owner, struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    (void)owner;
    struct wire wire = wire_of(bytes, n);
    struct propose_request request;
    while (propose_stream_request_next(&wire, &request) == 1) {
    }
    grpc_call_reply(call, bytes, n);
    grpc_call_consumed(call, n);
}

static void call_half_close(void *owner, struct grpc_call *call)
{
    (void)owner;
    open_calls--;
    grpc_call_finish(call, GRPC_OK, grpc_text(""), NULL, 0);
}

static void call_cancel(void *owner, struct grpc_call *call)
{
    (void)owner;
    (void)call;
    open_calls--;
}

static void call_writable(void *owner, struct grpc_call *call)
{
    (void)owner;
    (void)call;
}

static uint8_t sink[65536];

static void drop(struct grpc_conn *conn)
{
    while (grpc_conn_send(conn, sink, sizeof sink) > 0) {
    }
}

static size_t frame(uint8_t *to, uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *payload, size_t n)
{
    const uint8_t head[] = {0, (uint8_t)(n >> 8),      (uint8_t)n,     type, flags, 0,
                            0, (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(to, head, sizeof head);
    if (n > 0) memcpy(to + sizeof head, payload, n);
    return sizeof head + n;
}

/* POST, http, and literals for path, authority and content type. */
static const char good_headers[] = "\x83\x86\x44\x02/a\x41\x01h\x5f\x10"
                                   "application/grpc";

/* {type, stream, flags, length} and a payload, again and again; type 1 with a short payload becomes a good request. */
static int feed_frames(struct grpc_conn *conn, const uint8_t *at, size_t n)
{
    uint8_t out[9 + 256];
    while (n >= 4) {
        uint8_t type = at[0] % 11, flags = at[2];
        uint32_t stream = at[1];
        size_t length = at[3] < n - 4 ? at[3] : n - 4;
        size_t made = type == 1 && length < 8 ? frame(out, 1, (uint8_t)((flags & 1) | 4), stream | 1,
                                                      (const uint8_t *)good_headers, sizeof good_headers - 1)
                                              : frame(out, type, flags, stream, at + 4, length);
        if (grpc_conn_receive(conn, out, made) != 0) return -1;
        if (flags & 0x40) drop(conn);
        at += 4 + length;
        n -= 4 + length;
    }
    return 0;
}

static void fuzz_server(struct pool *pool, const uint8_t *bytes, size_t count, bool framed)
{
    const struct grpc_conn_limits limits = {.calls_max = 16,
                                            .message_bytes_max = 100000,
                                            .call_window_bytes = 65535,
                                            .call_send_bytes_max = 10000,
                                            .conn_send_bytes_max = 50000,
                                            .messages_bytes_max = 200000};
    const struct grpc_conn_ops ops = {call_open, call_message, call_half_close, call_cancel, call_writable};
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    struct grpc_conn *conn;
    lk_assert(grpc_conn_open(pool, &limits, &ops, NULL, &conn) == 0);
    lk_assert(grpc_conn_receive(conn, (const uint8_t *)preface, sizeof preface) == 0);
    if (framed)
        feed_frames(conn, bytes, count);
    else
        grpc_conn_receive(conn, bytes, count);
    drop(conn);
    lk_assert(open_calls == grpc_conn_call_count(conn));
    grpc_conn_close(conn);
    lk_assert(open_calls == 0);
}

static void client_message(void *owner, struct grpc_client_call *call, const uint8_t *bytes, size_t n)
{
    (void)owner;
    (void)bytes;
    grpc_client_consumed(call, n);
}

static void client_end(void *owner, struct grpc_client_call *call, const struct grpc_client_result *result)
{
    (void)owner;
    (void)call;
    (void)result;
    open_calls--;
}

static void fuzz_client(struct pool *pool, const uint8_t *bytes, size_t count)
{
    const struct grpc_client_limits limits = {.message_bytes_max = 100000,
                                              .call_window_bytes = 65535,
                                              .call_send_bytes_max = 10000,
                                              .messages_bytes_max = 200000};
    const struct grpc_client_ops ops = {.call_message = client_message, .call_end = client_end};
    struct grpc_client *client;
    struct grpc_client_call *call;
    lk_assert(grpc_client_open(pool, &limits, &ops, NULL, "h", &client) == 0);
    for (int i = 0; i < 2; i++) {
        lk_assert(grpc_client_start(client, "/a", 0, NULL, 0, NULL, &call) == 0);
        lk_assert(grpc_client_message(call, (const uint8_t *)"x", 1) == 0);
        if (i == 0) grpc_client_half_close(call);
        open_calls++;
    }
    while (grpc_client_send(client, sink, sizeof sink) > 0) {
    }
    static const uint8_t settings[9] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
    lk_assert(grpc_client_receive(client, settings, sizeof settings) == 0);
    grpc_client_receive(client, bytes, count);
    while (grpc_client_send(client, sink, sizeof sink) > 0) {
    }
    grpc_client_close(client);
    lk_assert(open_calls == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (count == 0) return 0;
    struct pool pool;
    pool_open(&pool, 64 << 20);
    switch (bytes[0] % 3) {
    case 0: fuzz_server(&pool, bytes + 1, count - 1, false); break;
    case 1: fuzz_server(&pool, bytes + 1, count - 1, true); break;
    default: fuzz_client(&pool, bytes + 1, count - 1); break;
    }
    pool_close(&pool);
    return 0;
}
