/* SPDX-License-Identifier: Apache-2.0 */
/* front.c - the client port: one listener, connections, what is read and written, who is closed and why.
 * Thread: loop. Owns: the sockets, the pool that all client memory comes from.
 *
 *   accept -> SNIFFING -> GRPC (grpc_conn)  -> flushed every turn -> closed
 *                      -> HTTP1 (http_work) ->
 *
 *   - What is read goes at once through the codec; commands are copied into the node's open block from there, which is no
 *     consensus yet. Everything that is written is written by front_flush(), once a turn.
 *   - Every connection is bounded in memory (grpc_server.h, and the pool) and in time: who asks nothing, who reads
 *     nothing, who has had no call for long is closed and counted.
 *   - A write that the socket does not take whole is copied once and finished by libuv; until then nothing more is taken
 *     from the codec, so that one write is all that a deaf client costs beyond the codec's bounds. */
#include "server/front.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/front_internal.h"
#include "transport/tcp.h"

enum { BACKLOG = 1024, SCAN_MS = 1000, KEEPALIVE_SECONDS = 60 };

uint64_t front_now_ns(const struct front *front)
{
    return uv_now(front->options.loop) * FRONT_MS;
}

static void handle_closed(struct front *front)
{
    lk_assert(front->handles > 0);
    if (--front->handles > 0) return;
    lk_assert(front->closing);
    stream_forget(front);
    lk_assert(front->budget.bytes == 0);
    pool_close(&front->pool);
    arena_close(&front->unpack);
    free(front->works);
    free(front);
}

/* ---- closing ---- */

static void on_connection_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    struct front *front = connection->front;
    pool_give(&front->budget, connection->write_bytes);
    free(connection);
    handle_closed(front);
}

static void dirty_remove(struct connection *connection)
{
    struct connection **at = &connection->front->dirty;
    if (!connection->dirty) return;
    while (*at != connection) at = &(*at)->next_dirty;
    *at = connection->next_dirty;
    connection->dirty = false;
}

/* Not from inside a callback of its codec. */
static void connection_close(struct connection *connection)
{
    struct front *front = connection->front;
    if (connection->closing) return;
    connection->closing = true;
    grpc_conn_close(connection->grpc); /* cancels its calls */
    connection->grpc = NULL;
    buffer_close(&connection->in);
    buffer_close(&connection->out);
    lk_assert(connection->held.bytes == 0 && connection->answers.bytes == 0);
    work_disown(connection);
    dirty_remove(connection);
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        front->connections = connection->next;
    if (connection->next != NULL) connection->next->previous = connection->previous;
    front->connection_count--;
    uv_close((uv_handle_t *)&connection->tcp, on_connection_closed);
}

void connection_touch(struct connection *connection)
{
    struct front *front = connection->front;
    if (connection->dirty || connection->closing) return;
    connection->dirty = true;
    connection->next_dirty = front->dirty;
    front->dirty = connection;
}

/* ---- reading ---- */

static void broke_protocol(struct connection *connection)
{
    connection->front->counters.protocol_errors++;
    connection->last_answer = true; /* what there is to say (GOAWAY) is said, then the socket is closed */
    connection_touch(connection);
}

static bool grpc_begin(struct connection *connection)
{
    struct front *front = connection->front;
    const struct grpc_conn_limits limits = {.calls_max = FRONT_CALLS_MAX,
                                            .message_bytes_max = front->options.grpc_message_bytes_max,
                                            .call_window_bytes = FRONT_CALL_WINDOW_BYTES,
                                            .call_send_bytes_max = FRONT_CALL_SEND_BYTES_MAX,
                                            .conn_send_bytes_max = FRONT_CONN_SEND_BYTES_MAX,
                                            .messages_bytes_max = FRONT_CONN_SEND_BYTES_MAX +
                                                                  4 * (size_t)front->options.grpc_message_bytes_max,
                                            .untouched = {grpc_text("lockstep-outcome"), grpc_text("not-appended")}};
    connection->kind = CONNECTION_GRPC;
    connection->active_ns = front_now_ns(front);
    if (grpc_conn_open(&front->pool, &limits, &service_ops, connection, &connection->grpc) != 0) return false;
    if (front->stopping) grpc_conn_drain(connection->grpc);
    connection_touch(connection);
    return true;
}

static void grpc_take(struct connection *connection, const uint8_t *bytes, size_t n)
{
    if (grpc_conn_receive(connection->grpc, bytes, n) != 0) broke_protocol(connection);
    connection_touch(connection);
}

/* ret  false: close it */
static bool sniff(struct connection *connection, const uint8_t *bytes, size_t n)
{
    if (!buffer_append(&connection->in, bytes, n)) return false;
    switch (proto_sniff(buffer_bytes(&connection->in), buffer_count(&connection->in))) {
    case SNIFF_MORE: return true;
    case SNIFF_HTTP1: connection->kind = CONNECTION_HTTP1; return http_work(connection);
    case SNIFF_HTTP2: break;
    }
    if (!grpc_begin(connection)) return false;
    grpc_take(connection, buffer_bytes(&connection->in), buffer_count(&connection->in));
    buffer_close(&connection->in);
    return true;
}

static void on_read_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    (void)suggested;
    struct connection *connection = handle->data;
    *ret = uv_buf_init((char *)connection->front->in, FRONT_IN_BYTES); /* used up before the next read */
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;
    struct front *front = connection->front;
    if (n == UV_EOF && connection->kind == CONNECTION_HTTP1) {
        connection->last_answer = true; /* a client may close its side behind its request, and read the answer */
        connection_touch(connection);
        return;
    }
    if (n < 0) {
        connection_close(connection);
        return;
    }
    if (n == 0 || connection->last_answer) return;
    const uint8_t *bytes = (const uint8_t *)buffer->base;
    bool good = true;
    switch (connection->kind) {
    case CONNECTION_SNIFFING: good = sniff(connection, bytes, (size_t)n); break;
    case CONNECTION_HTTP1: good = buffer_append(&connection->in, bytes, (size_t)n) && http_work(connection); break;
    case CONNECTION_GRPC: grpc_take(connection, bytes, (size_t)n); break;
    }
    /* Half a request is no activity: a slow HTTP/1.1 client has the time of a silent one for all of it. Nor are frames of
     * HTTP/2: who sends PINGs for ever asks nothing. A call is. */
    if (connection->kind != CONNECTION_GRPC && buffer_count(&connection->in) == 0)
        connection->active_ns = front_now_ns(front);
    if (!good) {
        front->counters.protocol_errors++;
        connection_close(connection);
    }
}

/* ---- writing ---- */

static size_t produce(struct connection *connection, uint8_t *to, size_t room)
{
    if (connection->kind == CONNECTION_GRPC) return grpc_conn_send(connection->grpc, to, room);
    size_t n = buffer_count(&connection->out);
    if (n > room) n = room;
    if (n > 0) memcpy(to, buffer_bytes(&connection->out), n);
    buffer_consume(&connection->out, n);
    return n;
}

static bool has_output(const struct connection *connection)
{
    if (connection->writing) return true;
    return connection->kind == CONNECTION_GRPC ? grpc_conn_queued_bytes(connection->grpc) > 0
                                               : buffer_count(&connection->out) > 0;
}

static void on_written(uv_write_t *write, int status)
{
    struct connection *connection = write->data;
    struct front *front = connection->front;
    connection->writing = false;
    if (connection->closing) return; /* its memory goes with the handle */
    pool_give(&front->budget, connection->write_bytes);
    connection->write_bytes = NULL;
    connection->moved_ns = front_now_ns(front);
    if (status != 0)
        connection_close(connection);
    else
        connection_touch(connection); /* the turn's flush goes on */
}

/* Give libuv what the socket did not take. ret  false: no memory, or the socket is broken */
static bool write_later(struct connection *connection, const uint8_t *bytes, size_t n)
{
    struct front *front = connection->front;
    connection->write_bytes = pool_take(&front->budget, n);
    if (connection->write_bytes == NULL) return false;
    memcpy(connection->write_bytes, bytes, n);
    uv_buf_t buffer = uv_buf_init((char *)connection->write_bytes, (unsigned)n);
    connection->write.data = connection;
    if (uv_write(&connection->write, (uv_stream_t *)&connection->tcp, &buffer, 1, on_written) != 0) return false;
    connection->writing = true;
    connection->moved_ns = front_now_ns(front);
    connection->write_left = n;
    return true;
}

/* ret  false: close it */
static bool connection_flush(struct connection *connection)
{
    struct front *front = connection->front;
    while (!connection->writing) {
        size_t n = produce(connection, front->out, sizeof front->out);
        if (n == 0) break;
        connection->moved_ns = front_now_ns(front);
        uv_buf_t buffer = uv_buf_init((char *)front->out, (unsigned)n);
        int taken = uv_try_write((uv_stream_t *)&connection->tcp, &buffer, 1);
        if (taken == UV_EAGAIN) taken = 0;
        if (taken < 0) return false;
        if ((size_t)taken < n && !write_later(connection, front->out + taken, n - (size_t)taken)) return false;
    }
    if (connection->writing) return true;
    if (connection->last_answer) return false;
    return connection->kind != CONNECTION_GRPC || !grpc_conn_finished(connection->grpc);
}

/* ---- accepting ---- */

static void on_connection(uv_stream_t *listener, int status)
{
    struct front *front = listener->data;
    if (status != 0 || front->stopping) return;
    /* libuv offers a connection once and then waits for uv_accept: one that cannot be taken now is taken later. */
    struct connection *connection = front->attached ? calloc(1, sizeof *connection) : NULL;
    front->offered = connection == NULL;
    if (front->offered) return;
    connection->front = front;
    uv_tcp_init(front->options.loop, &connection->tcp);
    front->handles++;
    connection->tcp.data = connection;
    connection->held =
        (struct pool_budget){.pool = &front->pool, .bytes_max = 2 * (size_t)front->options.grpc_message_bytes_max};
    connection->answers = (struct pool_budget){.pool = &front->pool, .bytes_max = FRONT_CONN_ANSWER_BYTES_MAX};
    connection->active_ns = connection->moved_ns = front_now_ns(front);
    buffer_open(&connection->in, HTTP1_HEAD_BYTES_MAX + HTTP1_BODY_BYTES_MAX + FRONT_IN_BYTES);
    buffer_open(&connection->out, 2 * FRONT_HTTP_OUT_BYTES_MAX);
    connection->next = front->connections;
    if (front->connections != NULL) front->connections->previous = connection;
    front->connections = connection;
    front->connection_count++;
    if (uv_accept(listener, (uv_stream_t *)&connection->tcp) != 0) {
        connection_close(connection);
        return;
    }
    if (front->connection_count > front->options.connections_max) {
        front->counters.refused++;
        connection_close(connection);
        return;
    }
    front->counters.accepted++;
    uv_tcp_nodelay(&connection->tcp, 1);
    uv_tcp_keepalive(&connection->tcp, 1, KEEPALIVE_SECONDS);
    if (uv_read_start((uv_stream_t *)&connection->tcp, on_read_buffer, on_read) != 0) connection_close(connection);
}

/* ---- time ---- */

static bool is_deaf(struct connection *connection, uint64_t now_ns)
{
    if (!has_output(connection)) {
        connection->moved_ns = now_ns;
        return false;
    }
    if (connection->writing) {
        size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&connection->tcp);
        if (left != connection->write_left) connection->moved_ns = now_ns;
        connection->write_left = left;
    }
    return now_ns - connection->moved_ns > connection->front->options.stall_ns_max;
}

static void look_at(struct connection *connection, uint64_t now_ns)
{
    struct front *front = connection->front;
    uint64_t quiet_ns = now_ns - connection->active_ns;
    if (is_deaf(connection, now_ns)) {
        front->counters.closed_deaf++;
        connection_close(connection);
    } else if (connection->kind != CONNECTION_GRPC) {
        if (quiet_ns <= front->options.silence_ns_max) return;
        front->counters.closed_silent++;
        connection_close(connection);
    } else if (grpc_conn_call_count(connection->grpc) > 0) {
        connection->active_ns = now_ns;
    } else if (quiet_ns > front->options.idle_ns_max && !connection->drained) {
        front->counters.closed_idle++;
        connection->drained = true;
        grpc_conn_drain(connection->grpc); /* closed when that is sent: no call is open */
        connection_touch(connection);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct front *front = timer->data;
    uint64_t now_ns = front_now_ns(front);
    if (front->offered) on_connection((uv_stream_t *)&front->listener, 0);
    service_tick(front, now_ns);
    front->changed |= front->watches != NULL; /* a leader becomes writable without a change of role */
    if (now_ns - front->scanned_ns < (uint64_t)SCAN_MS * FRONT_MS) return;
    front->scanned_ns = now_ns;
    struct connection *next;
    for (struct connection *connection = front->connections; connection != NULL; connection = next) {
        next = connection->next;
        look_at(connection, now_ns);
    }
}

/* ---- the node's callbacks: only note, and make answers of what was waited for ---- */

static struct work *work_of(struct front *front, uint64_t tag)
{
    lk_assert(tag < front->work_count);
    lk_assert(front->works[tag].kind != WORK_FREE);
    return &front->works[tag];
}

static void on_proposed(void *context, uint64_t tag, const struct node_outcome *outcome)
{
    struct front *front = context;
    struct work *work = work_of(front, tag);
    if (work->kind == WORK_BATCH) {
        stream_answered(front, (uint32_t)tag, outcome);
        return;
    }
    if (work->call != NULL && work->kind == WORK_SESSION)
        session_answered(front, work, outcome);
    else if (work->call != NULL)
        propose_answered(front, work, outcome);
    work_free(front, (uint32_t)tag);
}

static void on_queried(void *context, uint64_t tag, const struct node_answer *answer)
{
    struct front *front = context;
    struct work *work = work_of(front, tag);
    if (work->call != NULL && work->kind == WORK_OUTCOME)
        outcome_answered(front, work, answer);
    else if (work->call != NULL)
        query_answered(front, work, answer);
    work_free(front, (uint32_t)tag);
}

static void on_transferred(void *context, uint64_t tag, int error)
{
    struct front *front = context;
    struct work *work = work_of(front, tag);
    if (work->call != NULL) transfer_answered(front, work, error);
    work_free(front, (uint32_t)tag);
}

static void on_member_changed(void *context, uint64_t tag, const struct node_change_result *result)
{
    struct front *front = context;
    struct work *work = work_of(front, tag);
    if (work->call != NULL) change_answered(front, work, result);
    work_free(front, (uint32_t)tag);
}

static void on_changed(void *context)
{
    struct front *front = context;
    front->changed = true;
}

struct node_owner front_node_owner(struct front *front)
{
    return (struct node_owner){.context = front,
                               .proposed = on_proposed,
                               .queried = on_queried,
                               .transferred = on_transferred,
                               .member_changed = on_member_changed,
                               .changed = on_changed};
}

/* ---- open, turn, stop, close ---- */

static void on_front_handle_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static int bind_to(struct front *front, const char *address, char *why, size_t why_room)
{
    char host[256], port[8];
    struct addrinfo *found = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    if (!tcp_address_split(address, host, port)) {
        (void)snprintf(why, why_room, "client address %s: not HOST:PORT; write it like 127.0.0.1:7401", address);
        return LOCKSTEP_EINVAL;
    }
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) {
        (void)snprintf(why, why_room,
                       "client address %s: cannot resolve it: %s; write listen_client with an address of this host",
                       address, gai_strerror(error));
        return LOCKSTEP_EINVAL;
    }
    int rc = uv_tcp_bind(&front->listener, found->ai_addr, 0);
    freeaddrinfo(found);
    if (rc == 0) rc = uv_listen((uv_stream_t *)&front->listener, BACKLOG, on_connection);
    if (rc == 0) return 0;
    (void)snprintf(why, why_room, "client address %s: cannot listen: %s; %s", address, uv_strerror(rc),
                   rc == UV_EADDRINUSE ? "end the process that has it, or give this node another port"
                                       : "write listen_client with an address of this host");
    return rc == UV_EADDRINUSE ? LOCKSTEP_EEXIST : LOCKSTEP_EIO;
}

static void defaults(struct front_options *options)
{
    const uint64_t second_ns = 1000 * (uint64_t)FRONT_MS;
    if (options->silence_ns_max == 0) options->silence_ns_max = 10 * second_ns;
    if (options->idle_ns_max == 0) options->idle_ns_max = 900 * second_ns;
    if (options->stall_ns_max == 0) options->stall_ns_max = 30 * second_ns;
}

int front_open(const struct front_options *options, struct front **ret, char *why, size_t why_room)
{
    struct front *front = calloc(1, sizeof *front);
    if (front == NULL) return LOCKSTEP_ENOMEM;
    front->options = *options;
    defaults(&front->options);
    pool_open(&front->pool, FRONT_POOL_BYTES_MAX);
    front->budget = (struct pool_budget){.pool = &front->pool, .bytes_max = FRONT_POOL_BYTES_MAX};
    front->work_count = options->proposals_max + options->queries_max +
                        3; /* and a transfer, a change of members, and the same asked again */
    front->works = calloc(front->work_count, sizeof *front->works);
    if (front->works == NULL || !arena_open(&front->unpack, FRONT_UNPACK_BYTES_MAX)) {
        free(front->works);
        free(front);
        return LOCKSTEP_ENOMEM;
    }
    for (uint32_t i = 0; i < front->work_count; i++)
        front->works[i].next_free = i + 1 < front->work_count ? i + 1 : WORK_NONE;
    uv_tcp_init(options->loop, &front->listener); /* neither can fail: no socket is made yet */
    uv_timer_init(options->loop, &front->tick);
    front->listener.data = front->tick.data = front;
    front->handles = 2;
    int rc = bind_to(front, options->listen, why, why_room);
    if (rc != 0) {
        front_close(front);
        return rc;
    }
    *ret = front;
    return 0;
}

void front_attach(struct front *front, struct node *node)
{
    lk_assert(!front->attached);
    front->node = node;
    front->attached = true;
    uv_timer_start(&front->tick, on_tick, FRONT_TICK_MS, FRONT_TICK_MS);
    if (front->offered) on_connection((uv_stream_t *)&front->listener, 0);
}

void front_flush(struct front *front)
{
    if (!front->attached) return;
    stream_propose_waiting(front);
    if (front->changed) {
        front->changed = false;
        health_tell(front);
    }
    while (front->dirty != NULL) { /* a flush may make a full call writable, and its connection dirty again */
        struct connection *connection = front->dirty;
        front->dirty = connection->next_dirty;
        connection->dirty = false;
        if (!connection_flush(connection)) connection_close(connection);
    }
}

void front_stop(struct front *front)
{
    if (front->stopping) return;
    front->stopping = true;
    front->changed = true; /* watchers are told that this node stops serving */
    uv_close((uv_handle_t *)&front->listener, on_front_handle_closed);
    for (struct connection *connection = front->connections; connection != NULL; connection = connection->next) {
        if (connection->grpc != NULL) grpc_conn_drain(connection->grpc);
        connection->drained = true;
        connection_touch(connection);
    }
}

bool front_drained(const struct front *front)
{
    if (front->works_waiting > 0 || front->dirty != NULL) return false;
    for (const struct connection *connection = front->connections; connection != NULL; connection = connection->next)
        if (has_output(connection)) return false;
    return true;
}

void front_close(struct front *front)
{
    if (front == NULL || front->closing) return;
    front_stop(front);
    front->closing = true;
    while (front->connections != NULL) connection_close(front->connections);
    uv_close((uv_handle_t *)&front->tick, on_front_handle_closed);
}
