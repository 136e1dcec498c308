/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_codec.c - what the server's side of gRPC costs, without sockets: unary calls, and streams with many commands a
 * message. A client codec makes the requests and takes the answers; only the server's time counts.
 * Usage: bench_grpc_codec [CALLS_IN_FLIGHT] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "proto/grpc_client.h"
#include "proto/grpc_server.h"
#include "proto/messages.h"

enum { COMMAND_BYTES = 64, COMMANDS_A_MESSAGE = 64, BUFFER_BYTES = 1 << 20 };

static struct {
    struct grpc_conn *server;
    struct grpc_client *client;
    uint64_t commands, ended, answered;
} bench;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void call_open(void *owner, struct grpc_call *call, const struct grpc_request *request)
{
    (void)owner;
    static int stream_tag;
    if (grpc_text_equals(request->path, "/lockstep.v1.Lockstep/ProposeStream")) grpc_call_user_set(call, &stream_tag);
}

static void unary_message(struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    struct propose_request request;
    lk_assert(propose_request_read(bytes, n, &request) == 0);
    bench.commands++;
    grpc_call_consumed(call, n);
    struct propose_response response = {.reply = request.command,
                                        .reply_bytes = 4,
                                        .index = bench.commands,
                                        .position = bench.commands,
                                        .durability = 1};
    uint8_t *to;
    lk_assert(grpc_call_claim(call, propose_response_bytes(&response), &to) == 0);
    grpc_call_commit(call, (size_t)(propose_response_put(to, &response) - to));
    grpc_call_finish(call, GRPC_OK, grpc_text(""), NULL, 0);
}

static void stream_message(struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    struct wire wire = wire_of(bytes, n);
    struct propose_request request;
    uint8_t *to, *begin;
    lk_assert(grpc_call_claim(call, COMMANDS_A_MESSAGE * 48, &begin) == 0);
    to = begin;
    while (propose_stream_request_next(&wire, &request) == 1) {
        bench.commands++;
        struct propose_result result = {.outcome = PROPOSE_APPLIED,
                                        .response = {.reply = request.command,
                                                     .reply_bytes = 4,
                                                     .index = bench.commands,
                                                     .position = bench.commands,
                                                     .durability = 1}};
        to = propose_stream_response_item_put(to, &result);
    }
    grpc_call_commit(call, (size_t)(to - begin));
    grpc_call_consumed(call, n);
}

static void call_message(void *owner, struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    (void)owner;
    if (grpc_call_user(call) != NULL)
        stream_message(call, bytes, n);
    else
        unary_message(call, bytes, n);
}

static void call_nothing(void *owner, struct grpc_call *call)
{
    (void)owner;
    (void)call;
}

static void answer(void *owner, struct grpc_client_call *call, const uint8_t *bytes, size_t n)
{
    (void)owner;
    (void)bytes;
    bench.answered++;
    grpc_client_consumed(call, n);
}

static void ended(void *owner, struct grpc_client_call *call, const struct grpc_client_result *result)
{
    (void)owner;
    (void)call;
    if (result->status == GRPC_OK) bench.ended++;
}

static uint8_t buffer[BUFFER_BYTES];

/* One turn: everything from the client, everything back. ret  the server's CPU time */
static uint64_t turn(void)
{
    uint64_t spent_ns = 0;
    for (bool moved = true; moved;) {
        size_t n = grpc_client_send(bench.client, buffer, sizeof buffer);
        uint64_t begin_ns = now_ns();
        if (n > 0) lk_assert(grpc_conn_receive(bench.server, buffer, n) == 0);
        size_t back = grpc_conn_send(bench.server, buffer, sizeof buffer);
        spent_ns += now_ns() - begin_ns;
        if (back > 0) lk_assert(grpc_client_receive(bench.client, buffer, back) == 0);
        moved = n > 0 || back > 0;
    }
    return spent_ns;
}

static void report(const char *what, uint64_t count, uint64_t spent_ns)
{
    printf("%-28s %9.0f k/s  %6.0f ns each\n", what, (double)count / (double)spent_ns * 1e6,
           (double)spent_ns / (double)count);
}

static void bench_unary(unsigned in_flight)
{
    uint8_t command[COMMAND_BYTES], message[COMMAND_BYTES + 64];
    memset(command, 'x', sizeof command);
    struct propose_request request = {.command = command, .command_bytes = sizeof command, .session = 1, .seq = 1};
    size_t bytes = (size_t)(propose_request_put(message, &request) - message);
    uint64_t spent_ns = 0, rounds = 400000 / in_flight;
    for (uint64_t round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < in_flight; i++) {
            struct grpc_client_call *call;
            lk_assert(grpc_client_start(bench.client, "/lockstep.v1.Lockstep/Propose", 10000000000u, NULL, 0, NULL,
                                        &call) == 0);
            lk_assert(grpc_client_message(call, message, bytes) == 0);
            grpc_client_half_close(call);
        }
        spent_ns += turn();
    }
    lk_assert(bench.ended == rounds * in_flight);
    report("unary, 64 B", bench.commands, spent_ns);
}

static void bench_stream(unsigned messages)
{
    static uint8_t message[COMMANDS_A_MESSAGE * 128];
    uint8_t command[COMMAND_BYTES], *to = message;
    memset(command, 'x', sizeof command);
    struct propose_request request = {.command = command, .command_bytes = sizeof command, .session = 1, .seq = 1};
    for (int i = 0; i < COMMANDS_A_MESSAGE; i++) to = propose_stream_request_item_put(to, &request);
    struct grpc_client_call *call;
    lk_assert(grpc_client_start(bench.client, "/lockstep.v1.Lockstep/ProposeStream", 0, NULL, 0, NULL, &call) == 0);
    uint64_t spent_ns = 0;
    bench.commands = 0;
    for (int round = 0; round < 4000; round++) {
        for (unsigned i = 0; i < messages; i++)
            lk_assert(grpc_client_message(call, message, (size_t)(to - message)) == 0);
        spent_ns += turn();
    }
    report("stream, 64 commands of 64 B", bench.commands, spent_ns);
}

int main(int argc, char **argv)
{
    unsigned in_flight = argc > 1 ? (unsigned)atoi(argv[1]) : 64;
    if (in_flight < 1 || in_flight > 1024) return 2;
    struct pool pool;
    const struct grpc_conn_limits server_limits = {.calls_max = 1024,
                                                   .message_bytes_max = 4 << 20,
                                                   .call_window_bytes = 256 << 10,
                                                   .call_send_bytes_max = 256 << 10,
                                                   .conn_send_bytes_max = 8 << 20,
                                                   .messages_bytes_max = 32 << 20};
    const struct grpc_client_limits client_limits = {.message_bytes_max = 4 << 20,
                                                     .call_window_bytes = 256 << 10,
                                                     .call_send_bytes_max = 8 << 20,
                                                     .messages_bytes_max = 64 << 20};
    const struct grpc_conn_ops server_ops = {.call_open = call_open,
                                             .call_message = call_message,
                                             .call_half_close = call_nothing,
                                             .call_cancel = call_nothing,
                                             .call_writable = call_nothing};
    const struct grpc_client_ops client_ops = {.call_message = answer, .call_end = ended};
    pool_open(&pool, 256 << 20);
    lk_assert(grpc_conn_open(&pool, &server_limits, &server_ops, NULL, &bench.server) == 0);
    lk_assert(grpc_client_open(&pool, &client_limits, &client_ops, NULL, "127.0.0.1:7401", &bench.client) == 0);
    turn();
    bench_unary(in_flight);
    bench_stream(4);
    grpc_client_close(bench.client);
    grpc_conn_close(bench.server);
    pool_close(&pool);
    return 0;
}
