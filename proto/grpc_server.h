/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_server.h - the server's side of one HTTP/2 connection that carries gRPC, as a codec: bytes in, bytes out.
 * No socket, no clock, no thread: the owner reads and writes the socket and keeps the deadlines.
 * Thread: the owner's, one at a time. Owns: its calls, and what they hold of the pool.
 * 1  Callbacks come only from inside grpc_conn_receive(), grpc_conn_send() and grpc_conn_close(). In them every
 *    grpc_call_* function may be called; receive, send and close may not.
 * 2  An opened call ends for the owner exactly once: by its own grpc_call_finish(), or by call_cancel. After that its
 *    pointer is dead and no callback mentions it.
 * 3  A request message's credit goes back only by grpc_call_consumed(): back-pressure is HTTP/2 flow control on the
 *    stream. The connection's credit goes back as bytes come in, because partial messages of many calls could use all
 *    of it and then wait for each other for ever; what partial messages hold is bounded by the budget instead, and the
 *    call that would pass it is refused.
 * 4  Memory of one connection is bounded twice: messages by limits.messages_bytes_max, where passing the bound fails
 *    the call (RESOURCE_EXHAUSTED), and the protocol, nghttp2's memory included, by GRPC_CONN_BYTES + calls_max *
 *    GRPC_CALL_BYTES, where it ends the connection. A good client never comes to the second.
 * 5  What a client sends is answered in the call (a status) where the call can be told, else ends the connection. */
#ifndef LOCKSTEP_PROTO_GRPC_SERVER_H
#define LOCKSTEP_PROTO_GRPC_SERVER_H

#include "proto/grpc.h"
#include "proto/pool.h"

struct grpc_conn;
struct grpc_call;

enum { GRPC_CONN_BYTES = 512 << 10, GRPC_CALL_BYTES = 4096 };

struct grpc_conn_limits {
    uint32_t calls_max;         /* open at a time; more are refused by RST_STREAM(REFUSED_STREAM) */
    size_t message_bytes_max;   /* a longer request ends its call with RESOURCE_EXHAUSTED */
    size_t call_window_bytes;   /* credit for request bytes that the owner has not consumed, a call */
    size_t call_send_bytes_max; /* replies that wait, a call; one reply always fits */
    size_t conn_send_bytes_max; /* replies that wait, all calls; one reply always fits */
    size_t messages_bytes_max;  /* of the pool: requests that have come in part, and replies that wait */
    struct grpc_pair untouched; /* trailer of calls that this codec ends before the owner got a message; static */
};

/* What the request's headers said. Views, valid until the call ends. */
struct grpc_request {
    struct grpc_text path;         /* "/lockstep.v1.Lockstep/Propose" */
    uint64_t timeout_ns;           /* 0 = none given */
    const struct grpc_pair *pairs; /* metadata whose name begins with "lockstep-" */
    size_t pair_count;
};

struct grpc_conn_ops {
    /* A call whose headers are in order. May finish it at once (UNIMPLEMENTED). */
    void (*call_open)(void *owner, struct grpc_call *call, const struct grpc_request *request);
    /* One complete message; bytes are valid during the callback only. Later: grpc_call_consumed(call, n). */
    void (*call_message)(void *owner, struct grpc_call *call, const uint8_t *bytes, size_t n);
    /* The client sends no more messages. */
    void (*call_half_close)(void *owner, struct grpc_call *call);
    /* The client, the connection or this codec gave the call up; the pointer dies when this returns. */
    void (*call_cancel)(void *owner, struct grpc_call *call);
    /* A call that answered LOCKSTEP_EFULL has room again. */
    void (*call_writable)(void *owner, struct grpc_call *call);
};

/* A connection whose first bytes are the HTTP/2 preface. The settings are ready to send. ops and limits are copied.
 * Errors  LOCKSTEP_ENOMEM. Allocates: one piece from the host, the rest from the pool. */
int grpc_conn_open(struct pool *pool, const struct grpc_conn_limits *limits, const struct grpc_conn_ops *ops,
                   void *owner, struct grpc_conn **ret);
/* Cancels every open call through call_cancel, then frees all. NULL is allowed. */
void grpc_conn_close(struct grpc_conn *conn);

/* Bytes from the socket. Errors  LOCKSTEP_EPROTO or LOCKSTEP_ENOMEM: send what is left to send, then close. */
int grpc_conn_receive(struct grpc_conn *conn, const uint8_t *bytes, size_t n);
/* Bytes for the socket: fills up to room bytes and returns how many; 0 = nothing to send now. */
size_t grpc_conn_send(struct grpc_conn *conn, uint8_t *to, size_t room);

/* Take no new calls (GOAWAY), let the open ones finish. */
void grpc_conn_drain(struct grpc_conn *conn);
/* True when nothing more will come or go: close the socket. */
bool grpc_conn_finished(const struct grpc_conn *conn);

/* Calls that are open for the owner. */
uint32_t grpc_conn_call_count(const struct grpc_conn *conn);
/* Replies that wait because the client does not read, and what the connection holds of the pool. */
size_t grpc_conn_queued_bytes(const struct grpc_conn *conn);
size_t grpc_conn_held_bytes(const struct grpc_conn *conn);

/* The owner's own pointer, NULL at first. */
void grpc_call_user_set(struct grpc_call *call, void *user);
void *grpc_call_user(const struct grpc_call *call);

/* Queue one message. Errors  LOCKSTEP_EFULL: wait for call_writable, or finish; LOCKSTEP_ENOMEM: finish. */
int grpc_call_reply(struct grpc_call *call, const uint8_t *bytes, size_t n);
/* The same without a copy: claim room for a message of at most bytes_max, fill it, commit what was used. Nothing else
 * may be done with the call in between; a claim that is not committed is forgotten. Errors  as grpc_call_reply. */
int grpc_call_claim(struct grpc_call *call, size_t bytes_max, uint8_t **ret);
void grpc_call_commit(struct grpc_call *call, size_t bytes);

/* End the call behind the replies that wait. The pointer is dead for the owner.
 * message  UTF-8, empty = none; pairs  at most GRPC_PAIRS_MAX trailers; all copied, cut at the limits of grpc.h */
void grpc_call_finish(struct grpc_call *call, enum grpc_status status, struct grpc_text message,
                      const struct grpc_pair *pairs, size_t pair_count);

/* Give credit back for n bytes of delivered messages. */
void grpc_call_consumed(struct grpc_call *call, size_t n);

#endif
