/* SPDX-License-Identifier: Apache-2.0 */
/* bench_load.c - see bench_load.h. One client a connection; all of them in one epoll set, by their descriptors.
 * Answers start the next send from inside the callback, so that a turn of the client carries answers in and commands
 * out with one system call each. */
#include "cli/bench_load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/assert.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "lockstep/client.h"

enum { LOAD_PROGRESS_NS = 500000000, LOAD_DRAIN_NS = 2000000000, LOAD_STREAM_MESSAGES_MAX = 4096 };

enum phase { PHASE_WARMING, PHASE_MEASURING, PHASE_DRAINING };

struct load;

/* One unary command in flight. */
struct slot {
    struct connection *connection;
    uint64_t sent_ns;
};

struct connection {
    struct load *load;
    uint32_t number;
    uint32_t next_key;
    struct lockstep_client *client;
    struct lockstep_stream *stream;
    struct slot *slots; /* unary */
    uint32_t slot_count, idle_count;
    struct slot **idle;     /* that could not be sent */
    uint64_t *sent_ns;      /* streams: by tag */
    uint64_t next_tag;      /* sent */
    uint64_t answered_tags; /* answered */
    uint8_t *commands;      /* batch * bytes: rewritten in place, message by message */
    struct lockstep_proposal *proposals;
};

struct load {
    const struct bench_options *options;
    struct bench_result *result;
    enum phase phase;
    uint64_t running; /* commands */
    uint64_t ever_applied;
    struct connection *connections;
    int last_error;
    char *why;
    size_t why_room;
};

/* --- commands --- */

enum { KEY_DIGITS = 5 };

/* `put bN-00000 xxxx...`: as many bytes as were asked for. Only the digits change later. */
static int make_commands(struct connection *connection)
{
    const struct bench_options *o = connection->load->options;
    size_t bytes = o->command != NULL ? strlen(o->command) : o->bytes;
    connection->commands = malloc(bytes * o->batch + 1);
    connection->proposals = calloc(o->batch, sizeof connection->proposals[0]);
    if (connection->commands == NULL || connection->proposals == NULL) return LOCKSTEP_ENOMEM;
    for (uint32_t i = 0; i < o->batch; i++) {
        uint8_t *command = connection->commands + i * bytes;
        connection->proposals[i] = (struct lockstep_proposal){.command = command, .command_bytes = bytes};
        if (o->command != NULL) {
            memcpy(command, o->command, bytes);
            continue;
        }
        char head[32];
        bool kv = strcmp(o->machine, "kv") == 0;
        int head_bytes = snprintf(head, sizeof head, kv ? "put b%" PRIu32 "-00000 " : "add 1", connection->number);
        lk_assert(head_bytes > 0 && (size_t)head_bytes < bytes);
        memset(command, 'x', bytes);
        memcpy(command, head, (size_t)head_bytes);
        if (!kv) connection->proposals[i].command_bytes = (size_t)head_bytes; /* counter: always the same */
    }
    return 0;
}

static void next_key(struct connection *connection, uint32_t at)
{
    const struct bench_options *o = connection->load->options;
    if (o->command != NULL || o->machine[0] != 'k') return;
    uint32_t key = connection->next_key;
    connection->next_key = key + 1 == BENCH_KEYS ? 0 : key + 1;
    uint8_t *digits = (uint8_t *)memchr(connection->commands + (size_t)at * o->bytes, '-', 16) + KEY_DIGITS;
    for (int i = 0; i < KEY_DIGITS; i++, key /= 10) *digits-- = (uint8_t)('0' + key % 10);
}

/* --- answers --- */

static void count_failed(struct load *load, const struct lockstep_result *result)
{
    if (load->last_error == 0) snprintf(load->why, load->why_room, "%s", result->text);
    load->last_error = result->error;
    if (load->phase == PHASE_DRAINING) return;
    if (result->fate == LOCKSTEP_UNKNOWN)
        load->result->unknown++;
    else
        load->result->not_appended++;
}

static void count_applied(struct load *load, const struct lockstep_result *result, uint64_t took_ns)
{
    load->ever_applied++;
    if (load->phase != PHASE_MEASURING) return;
    load->result->applied++;
    if (result->code != 0) load->result->refused++;
    histogram_record(&load->result->latency, took_ns);
}

/* --- unary --- */

static void propose_next(struct slot *slot);

static void unary_ended(void *context, const struct lockstep_result *result)
{
    struct slot *slot = context;
    struct connection *connection = slot->connection;
    struct load *load = connection->load;
    load->running--;
    if (result->error == 0)
        count_applied(load, result, cli_now_ns() - slot->sent_ns);
    else
        count_failed(load, result);
    /* After a failure the main loop sends the next one: a cluster that refuses at once must not become a busy loop. */
    if (result->error == 0 && load->phase != PHASE_DRAINING)
        propose_next(slot);
    else
        connection->idle[connection->idle_count++] = slot;
}

static void propose_next(struct slot *slot)
{
    struct connection *connection = slot->connection;
    next_key(connection, 0);
    slot->sent_ns = cli_now_ns();
    if (lockstep_propose(connection->client, connection->proposals, unary_ended, slot) == 0)
        connection->load->running++;
    else
        connection->idle[connection->idle_count++] = slot;
}

/* --- streams --- */

static void fill_stream(struct connection *connection)
{
    const struct bench_options *o = connection->load->options;
    while (lockstep_stream_room(connection->stream) > 0) {
        for (uint32_t i = 0; i < o->batch; i++) next_key(connection, i);
        connection->sent_ns[connection->next_tag % LOAD_STREAM_MESSAGES_MAX] = cli_now_ns();
        if (lockstep_stream_send(connection->stream, connection->proposals, o->batch, connection->next_tag) != 0)
            return;
        connection->next_tag++;
        connection->load->running += o->batch;
    }
}

static void stream_answered(void *context, uint64_t tag, const struct lockstep_result *results, uint32_t count)
{
    struct connection *connection = context;
    struct load *load = connection->load;
    lk_assert(tag == connection->answered_tags); /* in the order sent: the library's promise */
    connection->answered_tags++;
    load->running -= count;
    uint64_t took_ns = cli_now_ns() - connection->sent_ns[tag % LOAD_STREAM_MESSAGES_MAX];
    for (uint32_t i = 0; i < count; i++) {
        if (results[i].error == 0)
            count_applied(load, &results[i], took_ns);
        else
            count_failed(load, &results[i]);
    }
    if (load->phase != PHASE_DRAINING) fill_stream(connection);
}

static void stream_lost(void *context, int error, const char *text)
{
    struct connection *connection = context;
    struct load *load = connection->load;
    if (load->last_error == 0) snprintf(load->why, load->why_room, "%s", text);
    load->last_error = error;
}

/* --- the run --- */

static int open_connection(struct load *load, struct connection *connection, uint32_t number)
{
    const struct bench_options *o = load->options;
    connection->load = load;
    connection->number = number;
    struct lockstep_client_options options = {.size = sizeof options,
                                              .endpoints = o->endpoints,
                                              .operations_max = o->inflight + 16,
                                              .no_session = o->no_session};
    int rc = lockstep_client_open(&options, &connection->client, load->why, load->why_room);
    if (rc == 0) rc = make_commands(connection);
    if (rc != 0) return rc;
    if (o->stream) {
        struct lockstep_stream_options stream = {.size = sizeof stream,
                                                 .messages_max = o->inflight,
                                                 .commands_max = o->batch,
                                                 .context = connection,
                                                 .answered = stream_answered,
                                                 .lost = stream_lost};
        connection->sent_ns = calloc(LOAD_STREAM_MESSAGES_MAX, sizeof connection->sent_ns[0]);
        if (connection->sent_ns == NULL) return LOCKSTEP_ENOMEM;
        return lockstep_stream_open(connection->client, &stream, &connection->stream);
    }
    /* The first ones take what does not divide evenly. */
    connection->slot_count = o->inflight / o->connections + (number < o->inflight % o->connections ? 1 : 0);
    connection->slots = calloc(connection->slot_count, sizeof connection->slots[0]);
    connection->idle = calloc(connection->slot_count, sizeof connection->idle[0]);
    if (connection->slots == NULL || connection->idle == NULL) return LOCKSTEP_ENOMEM;
    for (uint32_t i = 0; i < connection->slot_count; i++) {
        connection->slots[i].connection = connection;
        connection->idle[connection->idle_count++] = &connection->slots[i];
    }
    return 0;
}

static void close_connection(struct connection *connection)
{
    lockstep_stream_close(connection->stream);
    lockstep_client_close(connection->client);
    free(connection->slots);
    free(connection->idle);
    free(connection->sent_ns);
    free(connection->commands);
    free(connection->proposals);
}

static void send_idle(struct connection *connection)
{
    if (connection->stream != NULL) {
        fill_stream(connection);
        return;
    }
    for (uint32_t left = connection->idle_count; left > 0; left--) {
        struct slot *slot = connection->idle[--connection->idle_count];
        propose_next(slot);
    }
}

/* One round of all connections; waits up to wait_ms for any of them. */
static int turn(struct load *load, int epoll_fd, int wait_ms)
{
    uint32_t count = load->options->connections;
    if (count == 1) { /* no second wait in front of the client's own */
        if (load->phase != PHASE_DRAINING) send_idle(&load->connections[0]);
        return lockstep_client_poll(load->connections[0].client, wait_ms);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct connection *connection = &load->connections[i];
        if (load->phase != PHASE_DRAINING) send_idle(connection);
        int ms = lockstep_client_timeout_ms(connection->client);
        if (ms != 0) {
            if (ms > 0 && ms < wait_ms) wait_ms = ms;
            continue;
        }
        int rc = lockstep_client_poll(connection->client, 0);
        if (rc != 0) return rc;
        wait_ms = 0;
    }
    struct epoll_event events[64];
    int ready = epoll_wait(epoll_fd, events, 64, wait_ms);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        int rc = lockstep_client_poll(connection->client, 0);
        if (rc != 0) return rc;
    }
    return 0;
}

static int run(struct load *load, int epoll_fd)
{
    const struct bench_options *o = load->options;
    uint64_t began_ns = cli_now_ns(), phase_ns = began_ns, shown_ns = began_ns, shown_applied = 0;
    if (o->warmup_ns == 0) {
        load->phase = PHASE_MEASURING;
        o->window(o->window_context, true);
    }
    for (;;) {
        int rc = turn(load, epoll_fd, 20);
        if (rc != 0) return rc;
        uint64_t now_ns = cli_now_ns();
        if (load->phase == PHASE_WARMING && now_ns >= phase_ns + o->warmup_ns) {
            o->window(o->window_context, true);
            load->phase = PHASE_MEASURING;
            phase_ns = cli_now_ns();
        } else if (load->phase == PHASE_MEASURING && (now_ns >= phase_ns + o->duration_ns || cluster_interrupted())) {
            load->result->window_ns = now_ns - phase_ns;
            o->window(o->window_context, false);
            load->phase = PHASE_DRAINING;
            phase_ns = now_ns;
        } else if (load->phase == PHASE_DRAINING && (load->running == 0 || now_ns >= phase_ns + LOAD_DRAIN_NS)) {
            return 0;
        }
        if (load->ever_applied == 0 && load->last_error == LOCKSTEP_EUNREACHABLE) return LOCKSTEP_EUNREACHABLE;
        if (load->phase == PHASE_DRAINING || now_ns < shown_ns + LOAD_PROGRESS_NS) continue;
        uint64_t rate = (uint64_t)((double)(load->ever_applied - shown_applied) * 1e9 / (double)(now_ns - shown_ns));
        o->progress(o->progress_context, load->phase == PHASE_WARMING, now_ns - phase_ns, rate);
        shown_ns = now_ns;
        shown_applied = load->ever_applied;
    }
}

int bench_load(const struct bench_options *options, struct bench_result *ret, char *why, size_t why_room)
{
    memset(ret, 0, sizeof *ret);
    histogram_clear(&ret->latency);
    snprintf(why, why_room, "nothing was answered");
    struct load load = {.options = options, .result = ret, .why = why, .why_room = why_room};
    int rc = LOCKSTEP_ENOMEM, epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load.connections = calloc(options->connections, sizeof load.connections[0]);
    if (load.connections == NULL || epoll_fd < 0) goto done;
    for (uint32_t i = 0; i < options->connections; i++) {
        struct connection *connection = &load.connections[i];
        rc = open_connection(&load, connection, i);
        if (rc != 0) goto done;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        rc = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, lockstep_client_fd(connection->client), &event) == 0 ? 0 : LOCKSTEP_EIO;
        if (rc != 0) goto done;
    }
    rc = run(&load, epoll_fd);
done:
    load.phase = PHASE_DRAINING; /* callbacks of closing start nothing */
    for (uint32_t i = 0; load.connections != NULL && i < options->connections; i++)
        close_connection(&load.connections[i]);
    free(load.connections);
    if (epoll_fd >= 0) close(epoll_fd);
    return rc;
}
