/* SPDX-License-Identifier: Apache-2.0 */
/* front_http.c - HTTP/1.1 on the client port. Thread: loop.
 *   /livez    200 while the loop turns; it never asks about the quorum
 *   /readyz   200 when commands and queries can be served from here, else 503 with the reason
 *   /metrics  Prometheus' text format: base units, _total on counters, labels bounded by the number of members */
#include <inttypes.h>
#include <string.h>

#include "server/front_internal.h"

static void line(struct buffer *to, const char *type, const char *name, const char *help, uint64_t value)
{
    buffer_print(to, "# HELP lockstep_%s %s\n# TYPE lockstep_%s %s\nlockstep_%s %" PRIu64 "\n", name, help, name, type,
                 name, value);
}

static void counter(struct buffer *to, const char *name, const char *help, uint64_t value)
{
    line(to, "counter", name, help, value);
}

static void gauge(struct buffer *to, const char *name, const char *help, uint64_t value)
{
    line(to, "gauge", name, help, value);
}

static void node_metrics(struct front *front, struct buffer *to)
{
    const struct node_status *s = &front->status;
    gauge(to, "is_leader", "1 while this node leads.", s->raft.role == RAFT_LEADER);
    gauge(to, "ready", "1 while commands and queries can be served from here.", s->ready);
    gauge(to, "term", "Current term.", s->raft.term);
    gauge(to, "last_index", "Last block in this node's log.", s->raft.last_index);
    gauge(to, "commit_index", "Last committed block.", s->raft.commit);
    gauge(to, "durable_index", "Last block that is durable here.", s->raft.durable_index);
    gauge(to, "stored_index", "Last block in LMDB.", s->storage.stored);
    gauge(to, "applied_index", "Last block that the machine has applied.", s->host.applied_index);
    gauge(to, "applied_position", "Last command that the machine has applied.", s->host.applied_position);
    gauge(to, "machine_stopped", "1 after the machine or its host stopped for good.", s->host.error != 0);
    gauge(to, "journal_bytes", "Size of the journal.", s->storage.journal_bytes);
    gauge(to, "journal_used_bytes", "Bytes of the journal that cannot be reused yet.", s->storage.journal_used_bytes);
    counter(to, "commands_appended_total", "Commands that this node appended as leader.",
            s->counters.commands_appended);
    counter(to, "blocks_appended_total", "Blocks that this node appended as leader.", s->counters.blocks_appended);
    counter(to, "appended_bytes_total", "Bytes of those blocks.", s->counters.bytes_appended);
    counter(to, "appends_sent_total", "Append messages sent to peers.", s->counters.appends_sent);
    counter(to, "elections_total", "Elections that this node started.", s->counters.elections);
    counter(to, "rejected_full_total", "Commands and queries refused for want of room.", s->counters.rejected_full);
    counter(to, "frames_refused_total", "Damaged or malformed frames of peers.", s->counters.frames_refused);
    counter(to, "flushes_total", "Flushes of the journal.", s->storage.flushes);
    counter(to, "journal_written_bytes_total", "Bytes written to the journal.", s->storage.bytes);
    counter(to, "lmdb_transactions_total", "Transactions of LMDB.", s->storage.transactions);
    counter(to, "commands_applied_total", "Commands that the machine applied.", s->host.commands);
    counter(to, "commands_repeated_total", "Commands dropped because they had been applied before.", s->host.repeated);
    gauge(to, "sessions", "Open sessions.", s->host.sessions);
    counter(to, "queries_total", "Queries that the machine answered.", s->host.queries);
}

static void member_metrics(struct front *front, struct buffer *to)
{
    const struct node_options *options = node_options_of(front->node);
    buffer_print(to, "# HELP lockstep_peer_connected 1 while the peer is connected.\n"
                     "# TYPE lockstep_peer_connected gauge\n");
    for (unsigned slot = 0; slot < options->member_count; slot++)
        if (slot != options->self && options->members[slot].name[0] != 0)
            buffer_print(to, "lockstep_peer_connected{peer=\"%s\"} %d\n", options->members[slot].name,
                         front->status.members[slot].connected);
}

static void peer_metric(struct front *front, struct buffer *to, const char *type, const char *name, const char *help,
                        uint64_t (*value)(const struct node_status *status, unsigned slot))
{
    const struct node_options *options = node_options_of(front->node);
    buffer_print(to, "# HELP lockstep_%s %s\n# TYPE lockstep_%s %s\n", name, help, name, type);
    for (unsigned slot = 0; slot < options->member_count; slot++)
        if (slot != options->self && options->members[slot].name[0] != 0)
            buffer_print(to, "lockstep_%s{peer=\"%s\"} %" PRIu64 "\n", name, options->members[slot].name,
                         value(&front->status, slot));
}

static uint64_t peer_shares(const struct node_status *status, unsigned slot)
{
    return status->members[slot].shared_memory;
}

static uint64_t peer_lag(const struct node_status *status, unsigned slot)
{
    return status->members[slot].lag_bytes;
}

static uint64_t peer_lapped(const struct node_status *status, unsigned slot)
{
    return status->members[slot].lapped;
}

static uint64_t peer_bells(const struct node_status *status, unsigned slot)
{
    return status->members[slot].bells;
}

static uint64_t peer_bells_spared(const struct node_status *status, unsigned slot)
{
    return status->members[slot].bells_spared;
}

static void ring_metrics(struct front *front, struct buffer *to)
{
    static const char *const holders[NODE_HOLDERS] = {[NODE_HOLDER_JOURNAL] = "journal",
                                                      [NODE_HOLDER_MACHINE] = "machine",
                                                      [NODE_HOLDER_LOG] = "log",
                                                      [NODE_HOLDER_PEERS] = "peers"};
    const struct node_status *s = &front->status;
    gauge(to, "ring_size_bytes", "Size of the ring.", s->ring.bytes);
    gauge(to, "ring_bytes", "Bytes in the ring that are not flushed and in LMDB yet.", s->ring.live_bytes);
    gauge(to, "ring_dead_bytes", "Bytes in the ring of blocks that were cut.", s->ring.dead_bytes);
    buffer_print(to, "# HELP lockstep_ring_held_bytes Bytes from the oldest block that is held to the newest.\n"
                     "# TYPE lockstep_ring_held_bytes gauge\n");
    for (unsigned i = 0; i < NODE_HOLDERS; i++)
        buffer_print(to, "lockstep_ring_held_bytes{by=\"%s\"} %" PRIu64 "\n", holders[i], s->holds[i].bytes);
    buffer_print(to, "# HELP lockstep_ring_held_seconds How long the oldest block that is held has been that.\n"
                     "# TYPE lockstep_ring_held_seconds gauge\n");
    for (unsigned i = 0; i < NODE_HOLDERS; i++)
        buffer_print(to, "lockstep_ring_held_seconds{by=\"%s\"} %" PRIu64 ".%03" PRIu64 "\n", holders[i],
                     s->holds[i].held_ns / 1000000000, s->holds[i].held_ns / 1000000 % 1000);
}

static void shared_memory_metrics(struct front *front, struct buffer *to)
{
    peer_metric(front, to, "gauge", "peer_shared_memory", "1 while one of the two reads the other's ring.",
                peer_shares);
    peer_metric(front, to, "gauge", "peer_lag_bytes", "Bytes of the ring that its reader has not read.", peer_lag);
    peer_metric(front, to, "counter", "peer_lapped_total", "Times that the reader came too late for the ring.",
                peer_lapped);
    peer_metric(front, to, "counter", "peer_bells_total", "Bells rung, to wake the peer.", peer_bells);
    peer_metric(front, to, "counter", "peer_bells_spared_total",
                "Bells not rung: the peer was awake, or was rung already.", peer_bells_spared);
}

static void observer_metrics(const struct front *front, struct buffer *to)
{
    const struct transport_observers *o = &front->status.observers;
    gauge(to, "observers", "Processes of this host that follow what is committed.", o->count);
    gauge(to, "observer_lag_bytes", "Bytes of the ring that the last of them has not read.", o->lag_bytes);
    counter(to, "observer_lapped_total", "Times that observers came too late for the ring.", o->lapped);
    counter(to, "observer_blocks_total", "Blocks told to observers out of the log.",
            front->status.counters.observer_blocks);
    counter(to, "observer_bells_total", "Bells rung, to wake observers.", o->bells);
    counter(to, "observer_bells_spared_total", "Bells not rung: the observer was awake, or was rung already.",
            o->bells_spared);
}

static void front_metrics(struct front *front, struct buffer *to)
{
    const struct front_counters *c = &front->counters;
    gauge(to, "client_connections", "Open client connections.", front->connection_count);
    gauge(to, "client_calls", "Open gRPC calls.", front->call_count);
    gauge(to, "client_memory_bytes", "Memory that clients hold.", front->pool.bytes);
    counter(to, "client_connections_total", "Client connections accepted.", c->accepted);
    counter(to, "client_connections_refused_total", "Client connections over the limit.", c->refused);
    counter(to, "client_protocol_errors_total", "Client connections closed for what they sent.", c->protocol_errors);
    counter(to, "client_silent_closed_total", "Client connections closed because nothing was asked.", c->closed_silent);
    counter(to, "client_idle_closed_total", "Client connections closed after a long time without calls.",
            c->closed_idle);
    counter(to, "client_deaf_closed_total", "Client connections closed because they did not read.", c->closed_deaf);
    counter(to, "client_calls_total", "gRPC calls.", c->calls);
    counter(to, "client_http_requests_total", "HTTP/1.1 requests.", c->http_requests);
}

static bool path_is(const struct http1_request *request, const char *path)
{
    return request->path_bytes == strlen(path) && memcmp(request->path, path, request->path_bytes) == 0;
}

/* ret  the HTTP status; the body is in *body */
static int body_of(struct front *front, const struct http1_request *request, struct buffer *body)
{
    if (request->method == HTTP1_POST) {
        buffer_print(body, "GET or HEAD\n");
        return 405;
    }
    if (path_is(request, "/livez")) {
        buffer_print(body, "ok\n");
        return 200;
    }
    if (path_is(request, "/readyz")) {
        node_status_read(front->node, &front->status);
        bool ready = front->status.ready && !front->stopping;
        const char *why = front->status.not_ready != NULL ? front->status.not_ready : "not ready";
        buffer_print(body, "%s\n", ready ? "ok" : front->stopping ? "stopping" : why);
        return ready ? 200 : 503;
    }
    if (path_is(request, "/metrics")) {
        node_status_read(front->node, &front->status);
        node_metrics(front, body);
        member_metrics(front, body);
        ring_metrics(front, body);
        shared_memory_metrics(front, body);
        observer_metrics(front, body);
        front_metrics(front, body);
        return 200;
    }
    buffer_print(body, "there is /livez, /readyz and /metrics; the client API is gRPC on this port\n");
    return 404;
}

static bool answer(struct connection *connection, int status, const struct buffer *body, bool keep_alive, bool head)
{
    char top[HTTP1_RESPONSE_HEAD_BYTES_MAX];
    size_t n =
        http1_response_head(top, status, "text/plain; version=0.0.4; charset=utf-8", buffer_count(body), keep_alive);
    if (!buffer_append(&connection->out, top, n)) return false;
    if (!keep_alive) connection->last_answer = true;
    return head || buffer_append(&connection->out, buffer_bytes(body), buffer_count(body));
}

bool http_work(struct connection *connection)
{
    struct front *front = connection->front;
    bool good = true;
    while (good && !connection->last_answer && buffer_count(&connection->in) > 0) {
        struct http1_request request = {0};
        struct buffer body;
        size_t used = 0;
        int status = http1_parse(buffer_bytes(&connection->in), buffer_count(&connection->in), &request, &used);
        if (status == 0) return true;
        buffer_open(&body, FRONT_HTTP_OUT_BYTES_MAX);
        front->counters.http_requests++;
        if (status == 200) {
            status = body_of(front, &request, &body);
        } else {
            front->counters.protocol_errors++;
            buffer_print(&body, "%s\n", http1_reason(status));
        }
        good = answer(connection, status, &body, used > 0 && request.keep_alive, request.method == HTTP1_HEAD);
        buffer_close(&body);
        buffer_consume(&connection->in, used);
        connection_touch(connection);
    }
    return good;
}
