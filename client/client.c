/* SPDX-License-Identifier: Apache-2.0 */
/* client.c - open, close, and one turn of the client: what is due, what waits, what the sockets have.
 * Thread: the owner's. Owns: the epoll set, the memory pool, endpoints, operations, streams.
 * 1  Nothing moves outside lockstep_client_poll() and lockstep_client_close(): a call that starts something only
 *    queues it, so that its callback can never run inside it.
 * 2  The descriptor given to other loops is the epoll set itself; it is readable when any socket has something to do,
 *    and what no socket shows (a new operation, bytes to write) is said by lockstep_client_timeout_ms() == 0. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "client/internal.h"

uint64_t client_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* "HOST:PORT,HOST:PORT": spaces around an address are allowed. */
static int add_listed(struct lockstep_client *client, const char *endpoints, char *why, size_t why_room)
{
    const char *at = endpoints;
    for (;;) {
        size_t bytes = strcspn(at, ",");
        const char *next = at[bytes] == ',' ? at + bytes + 1 : NULL;
        while (bytes > 0 && at[0] == ' ') at++, bytes--;
        while (bytes > 0 && at[bytes - 1] == ' ') bytes--;
        char address[LOCKSTEP_ENDPOINT_BYTES_MAX];
        if (bytes >= sizeof address) {
            snprintf(why, why_room, "endpoint '%.40s...': longer than %d bytes", at, LOCKSTEP_ENDPOINT_BYTES_MAX - 1);
            return LOCKSTEP_EINVAL;
        }
        memcpy(address, at, bytes);
        address[bytes] = 0;
        struct endpoint *endpoint;
        int rc = endpoint_add(client, address, true, &endpoint, why, why_room);
        if (rc != 0) return rc;
        if (next == NULL) return 0;
        at = next;
    }
}

static void out_of_memory(size_t bytes, char *why, size_t why_room)
{
    snprintf(why, why_room, "no memory for the %zu KiB of a client; free some, or raise the limit (ulimit -v)",
             bytes / 1024);
}

int lockstep_client_open(const struct lockstep_client_options *options, struct lockstep_client **ret, char *why,
                         size_t why_room)
{
    char unused[CLIENT_WHY_BYTES_MAX];
    if (why == NULL) {
        why = unused;
        why_room = sizeof unused;
    }
    struct lockstep_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        out_of_memory(sizeof *client, why, why_room);
        return LOCKSTEP_ENOMEM;
    }
    struct lockstep_client_options *o = &client->options;
    if (options != NULL) memcpy(o, options, options->size < sizeof *o ? options->size : sizeof *o);
    if (o->deadline_ms == 0) o->deadline_ms = LOCKSTEP_DEADLINE_MS_DEFAULT;
    if (o->operations_max == 0) o->operations_max = 65536;
    if (o->memory_bytes_max == 0) o->memory_bytes_max = (size_t)256 << 20;
    if (o->endpoints == NULL) o->endpoints = getenv("LOCKSTEP_ENDPOINTS");
    if (o->endpoints == NULL || o->endpoints[0] == 0) o->endpoints = "127.0.0.1:7401";

    pool_open(&client->pool, o->memory_bytes_max);
    client->requests = (struct pool_budget){.pool = &client->pool, .bytes_max = o->memory_bytes_max};
    client->epoll_fd = -1;
    client->dial_ms = CLIENT_DIAL_MS;
    client->quiet_ms = CLIENT_QUIET_MS;
    session_init(&client->session, client, NULL);
    int rc = add_listed(client, o->endpoints, why, why_room);
    o->endpoints = NULL; /* the owner's memory: copied, and not looked at again */
    if (rc != 0) goto fail;
    rc = LOCKSTEP_ENOMEM;
    client->in = malloc(CLIENT_IO_BYTES);
    if (client->in == NULL) {
        out_of_memory(CLIENT_IO_BYTES, why, why_room);
        goto fail;
    }
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (client->epoll_fd < 0) {
        snprintf(why, why_room,
                 "epoll_create1: %s; close what is not needed, or raise the limit of open files (ulimit -n)",
                 strerror(errno));
        goto fail;
    }
    *ret = client;
    return 0;
fail:
    lockstep_client_close(client);
    return rc;
}

void lockstep_client_close(struct lockstep_client *client)
{
    if (client == NULL) return;
    lk_assert(!client->polling);
    client->polling = true; /* callbacks that come now find a client that takes nothing new */
    client->closing = true;
    while (client->streams != NULL) lockstep_stream_close(client->streams);
    session_close(&client->session);
    operation_close_all(client);
    for (uint32_t i = 0; i < client->endpoint_count; i++) endpoint_write(&client->endpoints[i]);
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        endpoint_close(&client->endpoints[i]);
        lookup_drop(client->endpoints[i].lookup);
    }
    lk_assert(client->running == 0);
    operation_free_all(client);
    pool_close(&client->pool);
    if (client->epoll_fd >= 0) close(client->epoll_fd);
    free(client->kept.reply);
    free(client->in);
    free(client);
}

static void turn(struct lockstep_client *client)
{
    uint64_t now_ns = client_now_ns();
    for (uint32_t i = 0; i < client->endpoint_count; i++) endpoint_turn(&client->endpoints[i], now_ns);
    /* Its callbacks may close any other stream, also the next one, but not this one. */
    for (struct lockstep_stream *s = client->streams; s != NULL; s = s->next) stream_turn(s, now_ns);
    operation_turn(client, now_ns);
    operation_place(client, now_ns);
    for (uint32_t i = 0; i < client->endpoint_count; i++) endpoint_write(&client->endpoints[i]);
}

/* The moment at which a turn has something to do though no socket says so. */
static uint64_t deadline_ns(const struct lockstep_client *client)
{
    if (client->fresh) return 0;
    uint64_t deadline = UINT64_MAX;
    if (client->heap_count > 0) deadline = client->heap[0]->due_ns;
    if (client->waiting.first != NULL && client->choose_again_ns < deadline) deadline = client->choose_again_ns;
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        uint64_t due_ns = endpoint_deadline_ns(&client->endpoints[i]);
        if (due_ns < deadline) deadline = due_ns;
    }
    uint64_t session_due_ns = session_deadline_ns(&client->session, client->unnumbered.first != NULL);
    if (session_due_ns < deadline) deadline = session_due_ns;
    for (const struct lockstep_stream *s = client->streams; s != NULL; s = s->next) {
        uint64_t due_ns = stream_deadline_ns(s);
        if (due_ns < deadline) deadline = due_ns;
    }
    return deadline;
}

int lockstep_client_timeout_ms(const struct lockstep_client *client)
{
    uint64_t deadline = deadline_ns(client);
    if (deadline == UINT64_MAX) return -1;
    if (deadline == 0) return 0;
    uint64_t now_ns = client_now_ns();
    if (deadline <= now_ns) return 0;
    uint64_t ms = (deadline - now_ns + CLIENT_MS_NS - 1) / CLIENT_MS_NS;
    return ms > 60000 ? 60000 : (int)ms;
}

int lockstep_client_poll(struct lockstep_client *client, int timeout_ms)
{
    enum { EVENTS = 32 };
    lk_assert(!client->polling);
    client->polling = true;
    client->told = false;
    turn(client);
    int wait_ms = lockstep_client_timeout_ms(client);
    if (client->told)
        wait_ms = 0; /* a name that does not resolve, a deadline: it has happened, and may have been all there was */
    else if (wait_ms < 0 || (timeout_ms >= 0 && timeout_ms < wait_ms))
        wait_ms = timeout_ms;
    struct epoll_event events[EVENTS];
    int count = epoll_wait(client->epoll_fd, events, EVENTS, wait_ms);
    if (count < 0 && errno != EINTR) {
        client->polling = false;
        return LOCKSTEP_EIO;
    }
    for (int i = 0; i < count; i++) endpoint_ready(events[i].data.ptr, events[i].events);
    turn(client);
    client->polling = false;
    return 0;
}

int lockstep_client_fd(const struct lockstep_client *client)
{
    return client->epoll_fd;
}

uint32_t lockstep_client_running(const struct lockstep_client *client)
{
    return client->running - client->internal;
}

const char *lockstep_client_trouble(struct lockstep_client *client)
{
    size_t at = 0;
    client->trouble[0] = 0;
    for (uint32_t i = 0; i < client->endpoint_count && at + 1 < sizeof client->trouble; i++) {
        const struct endpoint *e = &client->endpoints[i];
        if (e->cause[0] == 0) continue;
        int n = snprintf(client->trouble + at, sizeof client->trouble - at, "%s%s: %s", at > 0 ? "; " : "", e->address,
                         e->cause);
        if (n > 0) at += (size_t)n;
    }
    return client->trouble;
}
