/* SPDX-License-Identifier: Apache-2.0 */
/* endpoint.c - addresses and connections: one connection an endpoint, dialled when somebody waits for it.
 * Thread: the owner's. Owns: sockets, codecs, send buffers.
 * 1  A connection takes calls only after the server's settings have come: what is no lockstep server is found before
 *    a command was given to it, so that the command's fate stays known.
 * 2  A dial that takes long does not hold the others up: the next endpoint is dialled beside it, and the first that
 *    greets is used.
 * 3  A connection that owes answers and has been silent for a second is passed by while another endpoint is there (its
 *    node may hang). What was sent on it and may be sent again is given up there; the rest waits for its deadline.
 * 4  Nothing here waits: a name is looked up beside the owner's thread. An endpoint has one lookup at a time; one that
 *    outlives its dial serves the next. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/assert.h"
#include "client/internal.h"

/* --- addresses --- */

/* Cut HOST:PORT or [HOST]:PORT into its two halves, without the brackets. */
static bool split(const char *address, char host[LOCKSTEP_ENDPOINT_BYTES_MAX], char port[8])
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address) return false;
    const char *host_begin = address, *host_end = colon;
    if (address[0] == '[') {
        if (colon[-1] != ']') return false;
        host_begin++;
        host_end--;
    } else if (memchr(address, ':', (size_t)(colon - address)) != NULL) {
        return false; /* a bare IPv6 address: where does the port begin? */
    }
    size_t digits = strspn(colon + 1, "0123456789");
    if (digits == 0 || digits > 5 || colon[1 + digits] != 0) return false;
    long number = strtol(colon + 1, NULL, 10);
    if (number < 1 || number > 65535) return false;
    size_t host_bytes = (size_t)(host_end - host_begin);
    if (host_bytes == 0 || host_bytes >= LOCKSTEP_ENDPOINT_BYTES_MAX) return false;
    memcpy(host, host_begin, host_bytes);
    host[host_bytes] = 0;
    memcpy(port, colon + 1, digits + 1);
    return true;
}

/* The learnt endpoint that nobody uses and that was dialled longest ago; NULL: there is none. The leader that was named
 * last stays, though it does not answer: whether a node may forward depends on it. */
static struct endpoint *least_used(struct lockstep_client *client)
{
    struct endpoint *ret = NULL;
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        struct endpoint *endpoint = &client->endpoints[i];
        bool used = endpoint->state != ENDPOINT_IDLE || endpoint->owed > 0;
        if (endpoint->listed || used || endpoint == client->leader_hint) continue;
        if (ret == NULL || endpoint->dialled_ns < ret->dialled_ns) ret = endpoint;
    }
    return ret;
}

/* Its place is another address's from now on: nobody may take that for the one that it had asked. */
static void forget(struct endpoint *endpoint)
{
    struct lockstep_client *client = endpoint->client;
    for (uint32_t i = 0; i < client->heap_count; i++)
        if (client->heap[i]->at == endpoint) client->heap[i]->at = NULL;
    for (struct lockstep_stream *s = client->streams; s != NULL; s = s->next)
        if (s->at == endpoint) s->at = NULL;
    if (endpoint->lookup == NULL) return;
    (void)epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, lookup_fd(endpoint->lookup), NULL);
    lookup_drop(endpoint->lookup);
}

int endpoint_add(struct lockstep_client *client, const char *address, bool listed, struct endpoint **ret, char *why,
                 size_t why_room)
{
    char host[LOCKSTEP_ENDPOINT_BYTES_MAX], port[8];
    if (strlen(address) >= LOCKSTEP_ENDPOINT_BYTES_MAX || !split(address, host, port)) {
        snprintf(why, why_room, "endpoint '%.64s': not HOST:PORT; write it as 127.0.0.1:7401 or [::1]:7401", address);
        return LOCKSTEP_EINVAL;
    }
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        if (strcmp(client->endpoints[i].address, address) != 0) continue;
        *ret = &client->endpoints[i];
        return 0;
    }
    struct endpoint *endpoint;
    if (client->endpoint_count < LOCKSTEP_ENDPOINTS_MAX) {
        endpoint = &client->endpoints[client->endpoint_count++];
    } else if ((endpoint = least_used(client)) != NULL) {
        forget(endpoint);
    } else {
        snprintf(why, why_room, "endpoint '%s': more than %d endpoints", address, LOCKSTEP_ENDPOINTS_MAX);
        return listed ? LOCKSTEP_EINVAL : LOCKSTEP_EFULL;
    }
    *endpoint = (struct endpoint){.client = client, .listed = listed, .fd = -1};
    snprintf(endpoint->address, sizeof endpoint->address, "%s", address);
    *ret = endpoint;
    return 0;
}

/* --- the codec's callbacks --- */

static void call_message(void *owner, struct grpc_client_call *call, const uint8_t *bytes, size_t n)
{
    (void)owner;
    enum call_owner *user = grpc_client_user(call);
    if (*user == CALL_OPERATION) {
        operation_answer((struct operation *)user, bytes, n);
        grpc_client_consumed(call, n);
    } else if (*user == CALL_NOBODY) {
        grpc_client_consumed(call, n);
    } else {
        /* Credit first: an answer's callback may close another stream, never this one. */
        grpc_client_consumed(call, n);
        stream_answer((struct lockstep_stream *)user, bytes, n);
    }
}

static void call_end(void *owner, struct grpc_client_call *call, const struct grpc_client_result *result)
{
    (void)owner;
    enum call_owner *user = grpc_client_user(call);
    if (*user == CALL_OPERATION)
        operation_call_end((struct operation *)user, result);
    else if (*user == CALL_STREAM)
        stream_call_end((struct lockstep_stream *)user, result);
}

void endpoint_drain(struct endpoint *endpoint)
{
    endpoint->draining = true;
    snprintf(endpoint->cause, sizeof endpoint->cause, "connection: the node is going away");
}

static void draining(void *owner)
{
    endpoint_drain(owner);
}

static const struct grpc_client_ops codec_ops = {
    .call_message = call_message,
    .call_end = call_end,
    .draining = draining,
};

/* --- connections --- */

static void watch(struct endpoint *endpoint, int operation, bool for_writing)
{
    struct epoll_event event = {.events = EPOLLIN | (for_writing ? EPOLLOUT : 0u), .data.ptr = endpoint};
    int rc = epoll_ctl(endpoint->client->epoll_fd, operation, endpoint->fd, &event);
    lk_assert(rc == 0 || errno == ENOMEM || errno == ENOSPC); /* a socket that we opened: else a bug of ours */
    endpoint->watched_for_writing = for_writing;
}

void endpoint_close(struct endpoint *endpoint)
{
    struct grpc_client *codec = endpoint->codec;
    endpoint->codec = NULL;
    endpoint->state = ENDPOINT_IDLE;
    endpoint->draining = false;
    if (endpoint->fd >= 0) close(endpoint->fd); /* leaves the epoll set by that */
    endpoint->fd = -1;
    free(endpoint->out);
    endpoint->out = NULL;
    endpoint->out_at = endpoint->out_end = 0;
    grpc_client_close(codec); /* last: its calls end here, and their callbacks find an endpoint without connection */
}

void endpoint_fail(struct endpoint *endpoint, const char *phase, const char *cause, uint64_t now_ns)
{
    bool dialled = endpoint->state != ENDPOINT_READY;
    if (phase != NULL) snprintf(endpoint->cause, sizeof endpoint->cause, "%s: %.200s", phase, cause);
    if (dialled) {
        uint64_t pause_ms = (uint64_t)CLIENT_DIAL_BACKOFF_MS_MIN << (endpoint->failures < 8 ? endpoint->failures : 8);
        if (pause_ms > CLIENT_DIAL_BACKOFF_MS_MAX) pause_ms = CLIENT_DIAL_BACKOFF_MS_MAX;
        endpoint->failures++;
        endpoint->failed_ns = now_ns;
        endpoint->retry_ns = now_ns + pause_ms * CLIENT_MS_NS;
    }
    endpoint_close(endpoint);
    struct lockstep_client *client = endpoint->client;
    if (&client->endpoints[client->current] == endpoint) endpoint_pass(endpoint, (struct grpc_text){NULL, 0});
}

static void greet(struct endpoint *endpoint, uint64_t now_ns)
{
    static const struct grpc_client_limits limits = {
        .message_bytes_max = LOCKSTEP_MESSAGE_BYTES_MAX + 65536, /* the largest reply and what is around it */
        .call_window_bytes = 4 << 20,
        .call_send_bytes_max = 8 << 20,
        .messages_bytes_max = 128 << 20,
    };
    endpoint->out = malloc(CLIENT_IO_BYTES);
    int rc = endpoint->out == NULL ? LOCKSTEP_ENOMEM
                                   : grpc_client_open(&endpoint->client->pool, &limits, &codec_ops, endpoint,
                                                      endpoint->address, &endpoint->codec);
    if (rc != 0) {
        endpoint_fail(endpoint, "connect", lockstep_error_text(rc), now_ns);
        return;
    }
    endpoint->state = ENDPOINT_GREETING;
    watch(endpoint, EPOLL_CTL_MOD, false);
}

/* A name with several addresses: each dial takes the next one. */
static void connect_to(struct endpoint *endpoint, const struct addrinfo *list, uint64_t now_ns)
{
    uint32_t count = 0;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) count++;
    const struct addrinfo *to = list;
    for (uint32_t skip = endpoint->failures % count; skip > 0; skip--) to = to->ai_next;
    endpoint->state = ENDPOINT_DIALLING;
    endpoint->fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = endpoint->fd < 0 ? -1 : connect(endpoint->fd, to->ai_addr, to->ai_addrlen);
    if (rc != 0 && errno != EINPROGRESS) {
        endpoint_fail(endpoint, "connect", strerror(errno), now_ns);
        return;
    }
    int on = 1;
    (void)setsockopt(endpoint->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(endpoint, EPOLL_CTL_ADD, true);
}

/* The lookup is done, and this dial is the one that wants it. */
static void resolved(struct endpoint *endpoint, uint64_t now_ns)
{
    struct lookup *lookup = endpoint->lookup;
    const struct addrinfo *list;
    int rc = lookup_result(lookup, &list);
    endpoint->lookup = NULL;
    (void)epoll_ctl(endpoint->client->epoll_fd, EPOLL_CTL_DEL, lookup_fd(lookup), NULL);
    if (rc != 0)
        endpoint_fail(endpoint, "resolve", gai_strerror(rc), now_ns);
    else
        connect_to(endpoint, list, now_ns);
    lookup_drop(lookup);
}

static void dial(struct endpoint *endpoint, uint64_t now_ns)
{
    lk_assert(endpoint->state == ENDPOINT_IDLE);
    endpoint->state = ENDPOINT_RESOLVING;
    endpoint->dialled_ns = now_ns;
    if (endpoint->lookup != NULL) { /* of an earlier dial, which did not wait so long */
        if (lookup_done(endpoint->lookup)) resolved(endpoint, now_ns);
        return;
    }
    char host[LOCKSTEP_ENDPOINT_BYTES_MAX], port[8];
    bool is_address = split(endpoint->address, host, port);
    lk_assert(is_address);
    struct addrinfo *numeric = resolve_numeric(host, port);
    if (numeric != NULL) {
        connect_to(endpoint, numeric, now_ns);
        freeaddrinfo(numeric);
        return;
    }
    int rc = lookup_start(host, port, &endpoint->lookup);
    if (rc != 0) {
        endpoint_fail(endpoint, "resolve", strerror(rc), now_ns);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = endpoint};
    rc = epoll_ctl(endpoint->client->epoll_fd, EPOLL_CTL_ADD, lookup_fd(endpoint->lookup), &event);
    lk_assert(rc == 0 || errno == ENOMEM || errno == ENOSPC);
}

static void connected(struct endpoint *endpoint, uint64_t now_ns)
{
    int cause = 0;
    socklen_t bytes = sizeof cause;
    (void)getsockopt(endpoint->fd, SOL_SOCKET, SO_ERROR, &cause, &bytes);
    if (cause != 0)
        endpoint_fail(endpoint, "connect", strerror(cause), now_ns);
    else
        greet(endpoint, now_ns);
}

/* The codec has no more use for this connection. */
static void give_up(struct endpoint *endpoint, uint64_t now_ns)
{
    if (endpoint->state == ENDPOINT_GREETING)
        endpoint_fail(endpoint, "protocol", "this is no lockstep server: it does not speak HTTP/2", now_ns);
    else if (endpoint->draining)
        endpoint_fail(endpoint, "connection", "the node is going away", now_ns);
    else
        endpoint_fail(endpoint, "protocol", lockstep_error_text(LOCKSTEP_EPROTO), now_ns);
}

static void read_socket(struct endpoint *endpoint, uint64_t now_ns)
{
    struct lockstep_client *client = endpoint->client;
    bool greeting = endpoint->state == ENDPOINT_GREETING;
    ssize_t n = recv(endpoint->fd, client->in, CLIENT_IO_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        const char *cause = n == 0 ? "closed by the other side" : strerror(errno);
        endpoint_fail(endpoint, greeting ? "connect" : "connection", cause, now_ns);
        return;
    }
    endpoint->heard_ns = now_ns;
    int rc = grpc_client_receive(endpoint->codec, client->in, (size_t)n);
    if (rc != 0) {
        give_up(endpoint, now_ns);
    } else if (greeting && grpc_client_greeted(endpoint->codec)) {
        endpoint->state = ENDPOINT_READY;
        endpoint->failures = 0;
        endpoint->cause[0] = 0;
    }
}

void endpoint_write(struct endpoint *endpoint)
{
    if (endpoint->codec == NULL) return;
    for (;;) {
        if (endpoint->out_at == endpoint->out_end) {
            endpoint->out_at = 0;
            endpoint->out_end = grpc_client_send(endpoint->codec, endpoint->out, CLIENT_IO_BYTES);
            if (endpoint->out_end == 0) break;
        }
        ssize_t n =
            send(endpoint->fd, endpoint->out + endpoint->out_at, endpoint->out_end - endpoint->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            endpoint_fail(endpoint, "connection", strerror(errno), client_now_ns());
            return;
        }
        endpoint->out_at += (size_t)n;
    }
    bool blocked = endpoint->out_at < endpoint->out_end;
    if (blocked != endpoint->watched_for_writing) watch(endpoint, EPOLL_CTL_MOD, blocked);
}

void endpoint_ready(struct endpoint *endpoint, uint32_t events)
{
    if (endpoint->state == ENDPOINT_RESOLVING && lookup_done(endpoint->lookup)) {
        resolved(endpoint, client_now_ns());
        return;
    }
    if (endpoint->fd < 0) return; /* closed by a callback of an earlier event of the same poll */
    uint64_t now_ns = client_now_ns();
    if (endpoint->state == ENDPOINT_DIALLING) {
        if ((events & ~(uint32_t)EPOLLIN) != 0) connected(endpoint, now_ns);
        return;
    }
    if ((events & EPOLLOUT) != 0) endpoint_write(endpoint);
    if (endpoint->fd >= 0 && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) read_socket(endpoint, now_ns);
}

/* --- which one is asked --- */

void endpoint_pass(struct endpoint *endpoint, struct grpc_text leader)
{
    struct lockstep_client *client = endpoint->client;
    uint32_t self = (uint32_t)(endpoint - client->endpoints);
    char address[LOCKSTEP_ENDPOINT_BYTES_MAX], why[CLIENT_WHY_BYTES_MAX];
    if (leader.bytes > 0 && leader.bytes < sizeof address) {
        memcpy(address, leader.at, leader.bytes);
        address[leader.bytes] = 0;
        struct endpoint *to;
        /* What a server says is input: an address that is none is passed over. */
        if (endpoint_add(client, address, false, &to, why, sizeof why) == 0 && to != endpoint) {
            client->leader_hint = to;
            client->current = (uint32_t)(to - client->endpoints);
            return;
        }
    }
    if (client->current == self) client->current = (self + 1) % client->endpoint_count;
}

void endpoint_owe(struct endpoint *endpoint, uint64_t now_ns)
{
    if (endpoint->owed++ == 0) endpoint->heard_ns = now_ns;
}

void endpoint_paid(struct endpoint *endpoint, uint32_t count)
{
    lk_assert(endpoint->owed >= count);
    endpoint->owed -= count;
}

bool endpoint_is_quiet(const struct endpoint *endpoint, uint64_t now_ns, uint32_t quiet_ms)
{
    return endpoint->owed > 0 && now_ns > endpoint->heard_ns + quiet_ms * CLIENT_MS_NS;
}

struct endpoint *endpoint_choose(struct lockstep_client *client, uint64_t now_ns)
{
    struct endpoint *quiet = NULL;
    bool dialling = false;                  /* a dial runs that is too young to be given up on */
    uint64_t again_ns = UINT64_MAX;         /* when another answer is possible though nothing was received */
    const uint32_t first = client->current; /* dial() may change it */
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        uint32_t at = (first + i) % client->endpoint_count;
        struct endpoint *endpoint = &client->endpoints[at];
        if (endpoint->state == ENDPOINT_IDLE && !dialling && now_ns >= endpoint->retry_ns) dial(endpoint, now_ns);
        uint64_t young_ns = endpoint->dialled_ns + CLIENT_DIAL_NEXT_MS * CLIENT_MS_NS;
        switch (endpoint->state) {
        case ENDPOINT_READY:
            /* What an idle connection was told meanwhile (GOAWAY, the end) is heard before a command is given to it. */
            if (endpoint->owed == 0) read_socket(endpoint, now_ns);
            if (endpoint->state != ENDPOINT_READY || endpoint->draining) break;
            if (endpoint_is_quiet(endpoint, now_ns, client->quiet_ms)) {
                if (quiet == NULL) quiet = endpoint;
                break;
            }
            /* Any ready one serves, unless the one that is wanted more (it comes earlier) will be ready soon. */
            if (dialling) break;
            client->current = at;
            client->choose_again_ns = UINT64_MAX;
            return endpoint;
        case ENDPOINT_IDLE:
            if (endpoint->retry_ns > now_ns && endpoint->retry_ns < again_ns) again_ns = endpoint->retry_ns;
            break;
        case ENDPOINT_RESOLVING:
        case ENDPOINT_DIALLING:
        case ENDPOINT_GREETING:
            if (now_ns >= young_ns) break;
            dialling = true;
            if (young_ns < again_ns) again_ns = young_ns;
            break;
        }
    }
    client->choose_again_ns = again_ns;
    return dialling ? NULL : quiet;
}

static bool is_dialling(const struct endpoint *endpoint)
{
    return endpoint->state != ENDPOINT_IDLE && endpoint->state != ENDPOINT_READY;
}

bool endpoint_any_hope(const struct lockstep_client *client)
{
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        const struct endpoint *endpoint = &client->endpoints[i];
        if (is_dialling(endpoint)) return true;
        if (endpoint->state == ENDPOINT_READY && !endpoint->draining) return true;
    }
    return false;
}

uint64_t endpoint_all_failed_ns(const struct lockstep_client *client)
{
    uint64_t oldest_ns = UINT64_MAX;
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        const struct endpoint *endpoint = &client->endpoints[i];
        if (endpoint->listed && endpoint->failed_ns < oldest_ns) oldest_ns = endpoint->failed_ns;
    }
    return oldest_ns;
}

void endpoint_turn(struct endpoint *endpoint, uint64_t now_ns)
{
    if (is_dialling(endpoint) && now_ns >= endpoint->dialled_ns + endpoint->client->dial_ms * CLIENT_MS_NS) {
        if (endpoint->state == ENDPOINT_GREETING)
            endpoint_fail(endpoint, "protocol",
                          "connected, but no greeting in time: the node hangs, or this is no lockstep server", now_ns);
        else
            endpoint_fail(endpoint, endpoint->state == ENDPOINT_RESOLVING ? "resolve" : "connect", "no answer in time",
                          now_ns);
    }
    if (endpoint->codec != NULL && grpc_client_finished(endpoint->codec)) give_up(endpoint, now_ns);
}

uint64_t endpoint_deadline_ns(const struct endpoint *endpoint)
{
    if (is_dialling(endpoint)) return endpoint->dialled_ns + endpoint->client->dial_ms * CLIENT_MS_NS;
    /* Somebody queued bytes since the last turn. */
    if (endpoint->codec != NULL && !endpoint->watched_for_writing && grpc_client_wants_write(endpoint->codec)) return 0;
    return UINT64_MAX;
}
