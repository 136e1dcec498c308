/* SPDX-License-Identifier: Apache-2.0 */
/* front_rig.c - see front_rig.h. */
#include "tests/unit/server/front_rig.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/unit.h"

static void before_sleep(uv_prepare_t *prepare)
{
    struct rig *rig = prepare->data;
    fake_drain(&rig->node);
    front_flush(rig->front);
}

static void log_nothing(void *context, enum node_log_level level, const char *part, const char *text)
{
    (void)context;
    (void)level;
    (void)part;
    (void)text;
}

static uint64_t recover(void *context)
{
    struct rig *rig = context;
    rig->recoveries++;
    return 4711;
}

void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    for (int i = 0; i < 4; i++) rig->clients[i].fd = -1;
    ck_assert_int_eq(uv_loop_init(&rig->loop), 0);
    uv_prepare_init(&rig->loop, &rig->prepare);
    rig->prepare.data = rig;
    rig->port = unit_free_port();
    snprintf(rig->address, sizeof rig->address, "127.0.0.1:%d", rig->port);
    rig->options = (struct front_options){.loop = &rig->loop,
                                          .listen = rig->address,
                                          .connections_max = 2000,
                                          .grpc_message_bytes_max = 4 << 20,
                                          .proposals_max = 1024,
                                          .queries_max = 64,
                                          .recover_context = rig,
                                          .recover = recover,
                                          .log = log_nothing};
    pool_open(&rig->pool, 256 << 20);
    fake_node_init(&rig->node);
}

void rig_open(struct rig *rig)
{
    char why[256];
    ck_assert_int_eq(front_open(&rig->options, &rig->front, why, sizeof why), 0);
    rig->node.owner = front_node_owner(rig->front);
    front_attach(rig->front, &rig->node);
    uv_prepare_start(&rig->prepare, before_sleep);
}

void rig_close(struct rig *rig)
{
    for (int i = 0; i < 4; i++) client_close(&rig->clients[i]);
    uv_close((uv_handle_t *)&rig->prepare, NULL);
    front_close(rig->front);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&rig->loop), 0);
    pool_close(&rig->pool);
}

static bool client_pump(struct client *client)
{
    static uint8_t bytes[65536];
    bool moved = false;
    if (client->fd < 0 || client->grpc == NULL) return false;
    for (size_t n; (n = grpc_client_send(client->grpc, bytes, sizeof bytes)) > 0; moved = true)
        for (size_t at = 0; at < n;) {
            ssize_t sent = send(client->fd, bytes + at, n - at, MSG_NOSIGNAL);
            if (sent < 0) { /* closed, or full: these tests never fill it but on purpose */
                client->closed |= errno != EAGAIN;
                return moved;
            }
            at += (size_t)sent;
        }
    while (!client->deaf && !client->closed) {
        ssize_t n = recv(client->fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN) break;
        client->closed = n <= 0;
        if (n > 0) grpc_client_receive(client->grpc, bytes, (size_t)n);
        moved = true;
    }
    return moved;
}

void rig_turn(struct rig *rig)
{
    uv_run(&rig->loop, UV_RUN_NOWAIT);
}

/* On a busy host even loopback takes its time: quiet means that nothing came for a few short pauses. */
void rig_settle(struct rig *rig)
{
    for (int quiet = 0; quiet < 8; quiet++) {
        const struct timespec pause = {.tv_nsec = 200000};
        if (quiet > 3) nanosleep(&pause, NULL);
        rig_turn(rig);
        for (int i = 0; i < 4; i++)
            if (client_pump(&rig->clients[i])) quiet = 0;
    }
}

void rig_wait(struct rig *rig, unsigned ms)
{
    uint64_t end_ns = uv_hrtime() + ms * UINT64_C(1000000);
    while (uv_hrtime() < end_ns) {
        const struct timespec pause = {.tv_nsec = 2000000};
        rig_settle(rig);
        nanosleep(&pause, NULL);
    }
    rig_settle(rig);
}

int rig_connect(struct rig *rig)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)rig->port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    const int on = 1;
    ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    return fd;
}

static void text_copy(char *to, size_t room, struct grpc_text text)
{
    snprintf(to, room, "%.*s", (int)text.bytes, text.at != NULL ? text.at : "");
}

static void on_message(void *owner, struct grpc_client_call *call, const uint8_t *bytes, size_t n)
{
    (void)owner;
    struct client_call *seen = grpc_client_user(call);
    seen->messages++;
    seen->bytes += n;
    seen->last_bytes = n;
    if (n >= sizeof seen->tail) memcpy(seen->tail, bytes + n - sizeof seen->tail, sizeof seen->tail);
    memcpy(seen->last, bytes, n < sizeof seen->last ? n : sizeof seen->last);
    grpc_client_consumed(call, n);
}

static void on_end(void *owner, struct grpc_client_call *call, const struct grpc_client_result *result)
{
    (void)owner;
    struct client_call *seen = grpc_client_user(call);
    seen->call = NULL;
    seen->ends++;
    seen->status = result->status;
    seen->from_server = result->from_server;
    text_copy(seen->message, sizeof seen->message, result->message);
    for (size_t i = 0; i < result->pair_count; i++) {
        struct grpc_pair pair = result->pairs[i];
        if (grpc_text_equals(pair.name, "lockstep-leader")) text_copy(seen->leader, sizeof seen->leader, pair.value);
        if (grpc_text_equals(pair.name, "lockstep-outcome")) text_copy(seen->outcome, sizeof seen->outcome, pair.value);
        if (grpc_text_equals(pair.name, "lockstep-retry-after-ms"))
            text_copy(seen->retry_after, sizeof seen->retry_after, pair.value);
    }
}

static void on_draining(void *owner)
{
    struct client *client = owner;
    client->drains++;
}

struct client *client_open(struct rig *rig, unsigned index)
{
    static const struct grpc_client_ops ops = {.call_message = on_message, .call_end = on_end, .draining = on_draining};
    const struct grpc_client_limits limits = {.message_bytes_max = 8 << 20,
                                              .call_window_bytes = 1 << 20,
                                              .call_send_bytes_max = 8 << 20,
                                              .messages_bytes_max = 64 << 20};
    struct client *client = &rig->clients[index];
    client->fd = rig_connect(rig);
    ck_assert_int_eq(grpc_client_open(&rig->pool, &limits, &ops, client, rig->address, &client->grpc), 0);
    rig_settle(rig);
    return client;
}

void client_close(struct client *client)
{
    if (client->fd < 0) return;
    grpc_client_close(client->grpc);
    client->grpc = NULL;
    close(client->fd);
    client->fd = -1;
}

struct grpc_client_call *client_call_with(struct client *client, unsigned index, const char *path, const void *bytes,
                                          size_t n, uint64_t timeout_ns, bool no_forward)
{
    const struct grpc_pair pair = {grpc_text("lockstep-forward"), grpc_text("no")};
    struct client_call *seen = &client->calls[index];
    memset(seen, 0, sizeof *seen);
    ck_assert_int_eq(grpc_client_start(client->grpc, path, timeout_ns, &pair, no_forward ? 1 : 0, seen, &seen->call),
                     0);
    ck_assert_int_eq(grpc_client_message(seen->call, bytes, n), 0);
    return seen->call;
}

struct grpc_client_call *client_call(struct client *client, unsigned index, const char *path, const void *bytes,
                                     size_t n, bool more)
{
    struct grpc_client_call *call = client_call_with(client, index, path, bytes, n, 0, false);
    if (!more) grpc_client_half_close(call);
    return call;
}

const char *rig_http(struct rig *rig, const char *request, bool *ret_closed)
{
    static char answer[65536];
    size_t used = 0;
    int fd = rig_connect(rig);
    ck_assert_int_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
    rig_settle(rig);
    bool closed = false;
    for (int i = 0; i < 20 && !closed; i++) {
        ssize_t n = recv(fd, answer + used, sizeof answer - 1 - used, 0);
        if (n > 0)
            used += (size_t)n;
        else
            closed = n == 0 || errno != EAGAIN;
        rig_turn(rig);
    }
    answer[used] = 0;
    if (ret_closed != NULL) *ret_closed = closed;
    close(fd);
    rig_settle(rig);
    return answer;
}

long rig_metric(struct rig *rig, const char *name)
{
    char line[128];
    const char *text = rig_http(rig, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
    snprintf(line, sizeof line, "\nlockstep_%s ", name);
    const char *at = strstr(text, line);
    ck_assert_msg(at != NULL, "%s", name);
    return strtol(at + strlen(line), NULL, 10);
}
