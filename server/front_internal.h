/* SPDX-License-Identifier: Apache-2.0 */
/* front_internal.h - what the files of the client front share: front.c (connections), front_http.c (HTTP/1.1),
 * service.c (calls, errors) and service_*.c (the methods). Thread: loop. */
#ifndef LOCKSTEP_SERVER_FRONT_INTERNAL_H
#define LOCKSTEP_SERVER_FRONT_INTERNAL_H

#include "base/arena.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "proto/grpc_server.h"
#include "proto/http1.h"
#include "proto/messages.h"
#include "server/front.h"

enum {
    FRONT_MS = 1000000,                /* ns */
    FRONT_TICK_MS = 50,                /* how exact deadlines are here; the client keeps its own */
    FRONT_DEADLINE_DEFAULT_MS = 10000, /* of a unary call that names none */
    FRONT_DEADLINE_MAX_MS = 600000,    /* of a unary call that names a longer one: what waits for ever fills the node */
    FRONT_CALLS_MAX = 1024,            /* open at a time, a connection */
    FRONT_CALL_WINDOW_BYTES = 1 << 20, /* request bytes of a call that wait to be proposed */
    FRONT_CALL_SEND_BYTES_MAX = 1 << 20,     /* replies of a call that wait to be sent; one always fits */
    FRONT_CONN_SEND_BYTES_MAX = 16 << 20,    /* the same, all calls of a connection */
    FRONT_CONN_ANSWER_BYTES_MAX = 128 << 20, /* answers of its streams that are not complete, or wait behind others */
    FRONT_CONN_SHARE = 4,                    /* a connection has at most 1 / this of what the node takes at a time */
    FRONT_POOL_BYTES_MAX = 1 << 30,          /* the hard bound of all memory that clients can make this process use */
    FRONT_IN_BYTES = 65536,                  /* read at a time */
    FRONT_OUT_BYTES = 262144,                /* written at a time */
    FRONT_HTTP_OUT_BYTES_MAX = 1 << 20,      /* an answer of HTTP/1.1 */
    FRONT_UNPACK_BYTES_MAX = 65536,          /* memory for decoding a cold message */
};

struct call;
struct method;
struct batch;

enum connection_kind { CONNECTION_SNIFFING, CONNECTION_HTTP1, CONNECTION_GRPC };

/* One client connection. An idle gRPC connection holds this, nghttp2's session (about 40 KiB) and no buffers. */
struct connection {
    uv_tcp_t tcp;
    struct front *front;
    struct connection *previous, *next;
    struct connection *next_dirty;
    enum connection_kind kind;
    bool dirty;       /* in the list of connections to flush */
    bool writing;     /* a write is under way: what follows waits for it */
    bool last_answer; /* close when everything is written */
    bool drained;     /* GOAWAY was sent */
    bool closing;     /* uv_close was called */
    struct grpc_conn *grpc;
    struct buffer in, out;         /* sniffing and HTTP/1.1 alone */
    struct pool_budget held;       /* of messages that wait to be proposed */
    struct pool_budget answers;    /* of what its streams are answered */
    uint32_t asked, asked_queries; /* its commands and queries in the node, also of calls that have ended */
    uv_write_t write;
    uint8_t *write_bytes; /* of the write under way */
    uint64_t active_ns;   /* last whole request of HTTP/1.1; the begin of gRPC, or a call open */
    uint64_t moved_ns;    /* last time that the client took bytes, or that none waited */
    size_t write_left;    /* as of moved_ns */
};

/* What waits for the node: its index is the tag that the node gives back. */
enum work_kind {
    WORK_FREE,
    WORK_PROPOSE,
    WORK_SESSION,
    WORK_BATCH,
    WORK_QUERY,
    WORK_OUTCOME,
    WORK_TRANSFER,
    WORK_CHANGE
};
#define WORK_NONE UINT32_MAX

struct work {
    enum work_kind kind;
    uint32_t next_free;
    struct call *call;             /* NULL: the call ended meanwhile, nobody waits */
    struct connection *connection; /* whose share this is part of; NULL: it is gone */
    struct batch *batch;           /* of WORK_BATCH */
};

/* One open gRPC call, from call_open to its end. */
struct call {
    struct grpc_call *grpc;
    struct connection *connection;
    const struct method *method;
    struct call *previous, *next;
    uint64_t deadline_ns; /* UINT64_MAX: none */
    uint32_t work;        /* of a unary call */
    bool asked;           /* a unary call's message has come */
    bool may_forward;
    enum command_kind session_command; /* of WORK_SESSION */
    /* ProposeStream */
    struct batch *first, *last; /* in the order sent; answered in that order */
    struct batch *unproposed;   /* the first one that waits for room in the node, wholly or in part */
    uint32_t proposed_count;    /* those before it, */
    size_t proposed_bytes;      /* and their messages' bytes */
    uint32_t outstanding;       /* commands that the node has, of all batches */
    struct call *next_waiting;
    bool waiting; /* in the list of streams that have commands the node had no room for */
    bool half_closed;
    bool too_many; /* a message with more commands than one may have ended it */
    int ending;    /* an error: no more is proposed, the call ends with it when what is out is answered */
    /* Watch */
    struct call *next_watch;
    int service;      /* enum health_service; -1: none */
    int watch_status; /* last one told; -1: none */
};

struct method {
    const char *path;
    bool unary;
    void (*message)(struct call *call, const uint8_t *bytes, size_t n);
    void (*half_close)(struct call *call); /* NULL of unary ones */
    void (*writable)(struct call *call);   /* NULL: never full */
    void (*end)(struct call *call);        /* the call is going away; NULL: nothing to let go */
};

struct front_counters {
    uint64_t accepted, refused, protocol_errors, closed_silent, closed_idle, closed_deaf;
    uint64_t calls, http_requests;
};

struct front {
    struct front_options options;
    uv_tcp_t listener;
    uv_timer_t tick;
    unsigned handles; /* of front and connections; the last one to close frees the front */
    bool attached, stopping, closing;
    bool offered; /* a connection waits to be accepted */
    struct node *node;
    struct pool pool;
    struct pool_budget budget; /* calls, batches, writes: bounded by the pool */
    struct connection *connections, *dirty;
    uint32_t connection_count;
    struct call *calls; /* all, for their deadlines */
    uint32_t call_count;
    struct work *works;
    uint32_t work_free, work_count;
    uint32_t works_waiting; /* that have a call */
    struct call *waiting_first, *waiting_last;
    struct call *watches;
    bool changed; /* the node said so: who waits for it is told at the next flush */
    uint64_t scanned_ns;
    struct arena unpack;
    struct front_counters counters;
    struct node_status status; /* scratch: large */
    uint8_t in[FRONT_IN_BYTES];
    uint8_t out[FRONT_OUT_BYTES];
};

/* front.c */
uint64_t front_now_ns(const struct front *front);
void connection_touch(struct connection *connection); /* flush it at the next turn */

/* front_http.c: take what complete requests are in connection->in, answer into connection->out.
 * ret  false: the connection is to be closed at once */
bool http_work(struct connection *connection);

/* service.c */
extern const struct grpc_conn_ops service_ops; /* owner: the connection */
void service_tick(struct front *front, uint64_t now_ns);
/* Whether the node has all that it may have of this connection: others shall find room. */
bool has_its_share(const struct connection *connection);
/* One thing asked of the node, but WORK_BATCH, which counts its commands itself. WORK_NONE: full, or its share is used up. */
uint32_t work_take(struct front *front, enum work_kind kind, struct call *call);
void work_free(struct front *front, uint32_t work);
/* The connection is going away: what it asked for is answered to nobody. */
void work_disown(struct connection *connection);
/* How long the node may take for it, from now, so that what it says still arrives: until answer_ms before the deadline,
 * but half of what is left at least. Never 0. A time that lasts, because the node goes by a clock of its own. */
uint64_t call_left_ns(const struct call *call, unsigned answer_ms);
/* The call ends; its pointer is dead. */
void call_finish(struct call *call, enum grpc_status status, const char *message);
/* The call ends with an error of the node: status, message and trailers as the table of errors says.
 * what  the subject of the message: "the command", "the query" */
void call_fail(struct call *call, int error, const char *what);
/* The call ends because something is full that empties slowly: come back in a second. Nothing came of it. */
void call_fail_full(struct call *call, const char *message);
/* One message, then OK. */
void call_answer(struct call *call, const uint8_t *bytes, size_t n);
/* The text of an error, as in call_fail; a static string or in the caller's room. */
enum { FRONT_ERROR_TEXT_BYTES_MAX = 512 };
const char *error_text(struct front *front, int error, const char *what, char room[FRONT_ERROR_TEXT_BYTES_MAX]);
/* True of errors after which the command surely stands in no log. */
bool error_is_not_appended(int error);
enum grpc_status error_status(const struct front *front, int error);
/* What became of a command, as enum propose_outcome. */
uint32_t error_outcome(int error);
/* What durability the cluster promises, as enum Durability. */
uint32_t front_durability(const struct front *front);

/* service_lockstep.c */
void propose_message(struct call *call, const uint8_t *bytes, size_t n);
void query_message(struct call *call, const uint8_t *bytes, size_t n);
void propose_answered(struct front *front, struct work *work, const struct node_outcome *outcome);
void query_answered(struct front *front, struct work *work, const struct node_answer *answer);

/* service_sessions.c */
void open_session_message(struct call *call, const uint8_t *bytes, size_t n);
void keep_alive_message(struct call *call, const uint8_t *bytes, size_t n);
void close_session_message(struct call *call, const uint8_t *bytes, size_t n);
void outcome_message(struct call *call, const uint8_t *bytes, size_t n);
void session_answered(struct front *front, struct work *work, const struct node_outcome *outcome);
void outcome_answered(struct front *front, struct work *work, const struct node_answer *answer);

/* service_stream.c */
void stream_message(struct call *call, const uint8_t *bytes, size_t n);
void stream_half_close(struct call *call);
void stream_writable(struct call *call);
void stream_end(struct call *call);
void stream_answered(struct front *front, uint32_t work, const struct node_outcome *outcome);
void stream_propose_waiting(struct front *front);
/* The node will not answer any more: free what waits for it. No call is open. */
void stream_forget(struct front *front);

/* service_admin.c */
void status_message(struct call *call, const uint8_t *bytes, size_t n);
void transfer_message(struct call *call, const uint8_t *bytes, size_t n);
void transfer_answered(struct front *front, struct work *work, int error);

/* service_recover.c */
void recover_message(struct call *call, const uint8_t *bytes, size_t n);

/* service_members.c */
void change_member_message(struct call *call, const uint8_t *bytes, size_t n);
void change_answered(struct front *front, struct work *work, const struct node_change_result *result);

/* service_health.c */
void health_check_message(struct call *call, const uint8_t *bytes, size_t n);
void health_watch_message(struct call *call, const uint8_t *bytes, size_t n);
void health_watch_half_close(struct call *call);
void health_watch_writable(struct call *call);
void health_watch_end(struct call *call);
void health_tell(struct front *front);

/* service_reflection.c */
void reflection_message(struct call *call, const uint8_t *bytes, size_t n);
void reflection_half_close(struct call *call);

#endif
