/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_client.h - the client's side of one HTTP/2 connection that carries gRPC, as a codec: bytes in, bytes out.
 * No socket, no clock, no thread: the owner reads and writes the socket and keeps the deadlines.
 * Thread: the owner's, one at a time. Owns: its calls, and what they hold of the pool.
 * 1  Callbacks come only from inside grpc_client_receive(), grpc_client_send() and grpc_client_close(). In them every
 *    grpc_client_* function but receive, send and close may be called.
 * 2  Every started call ends exactly once: by call_end, or by the owner's grpc_client_cancel(), after which no
 *    callback mentions it. Its pointer is dead then.
 * 3  A response message's flow-control credit goes back only by grpc_client_consumed(): a slow owner is a slow sender
 *    on the other side, never memory here.
 * 4  What waits to be sent is bounded for each call: LOCKSTEP_EFULL, and call_writable when there is room again. */
#ifndef LOCKSTEP_PROTO_GRPC_CLIENT_H
#define LOCKSTEP_PROTO_GRPC_CLIENT_H

#include "proto/grpc.h"
#include "proto/pool.h"

struct grpc_client;
struct grpc_client_call;

struct grpc_client_limits {
    size_t message_bytes_max;   /* a longer response ends its call with RESOURCE_EXHAUSTED */
    size_t call_window_bytes;   /* credit for response bytes that the owner has not consumed, a call */
    size_t call_send_bytes_max; /* queued request bytes, a call; one message always fits */
    size_t messages_bytes_max;  /* of the pool, for all messages of this connection */
};

/* How a call ended. Views, valid during the callback. */
struct grpc_client_result {
    int status;                    /* enum grpc_status, or what the server sent */
    struct grpc_text message;      /* percent-decoded */
    bool from_server;              /* the server sent this status; else this side made it (connection lost, reset) */
    bool untouched;                /* the server surely did not look at the call (refused, or behind a GOAWAY) */
    const struct grpc_pair *pairs; /* metadata and trailers whose name begins with "lockstep-" */
    size_t pair_count;
};

struct grpc_client_ops {
    /* One complete message; bytes are valid during the callback only. Later: grpc_client_consumed(call, n). */
    void (*call_message)(void *owner, struct grpc_client_call *call, const uint8_t *bytes, size_t n);
    /* The end; the call's pointer dies when this returns. */
    void (*call_end)(void *owner, struct grpc_client_call *call, const struct grpc_client_result *result);
    /* A call that answered LOCKSTEP_EFULL has room again. May be NULL. */
    void (*call_writable)(void *owner, struct grpc_client_call *call);
    /* The server takes no new calls on this connection (GOAWAY); the running ones go on. May be NULL. */
    void (*draining)(void *owner);
};

/* Open the codec of a connection whose socket is connected (or will be): the preface and settings are ready to send.
 * authority  host:port, for every call; copied
 * Errors  LOCKSTEP_ENOMEM. Allocates from the pool. */
int grpc_client_open(struct pool *pool, const struct grpc_client_limits *limits, const struct grpc_client_ops *ops,
                     void *owner, const char *authority, struct grpc_client **ret);

/* Ends every call with UNAVAILABLE (from_server false) through call_end, then frees all. NULL is allowed. */
void grpc_client_close(struct grpc_client *client);

/* Bytes from the socket. Errors  LOCKSTEP_EPROTO: the connection is of no more use -> close it;
 * LOCKSTEP_ENOMEM: a budget is spent -> close it. */
int grpc_client_receive(struct grpc_client *client, const uint8_t *bytes, size_t n);

/* Bytes for the socket: fills up to room bytes and returns how many; 0 = nothing to send now. */
size_t grpc_client_send(struct grpc_client *client, uint8_t *to, size_t room);
bool grpc_client_wants_write(const struct grpc_client *client);

/* True once the server's first settings have come: it speaks HTTP/2, and its limits are known. A call that is started
 * before that may go to anything that listens there. */
bool grpc_client_greeted(const struct grpc_client *client);

/* True when the connection is of no more use: it failed, or a GOAWAY was received and the last call has ended. */
bool grpc_client_finished(const struct grpc_client *client);

/* Calls that have started and not ended. */
uint32_t grpc_client_call_count(const struct grpc_client *client);

/* Start a call. Nothing leaves before grpc_client_send().
 * path        "/lockstep.v1.Lockstep/Propose"; static text
 * timeout_ns  for the grpc-timeout header; 0 = none. This codec has no clock: when the time is over the owner cancels.
 * pairs       metadata to send, copied; at most GRPC_PAIRS_MAX
 * user        given back by grpc_client_user()
 * Errors  LOCKSTEP_EFULL: the server's limit of concurrent calls is reached, or the budget is spent -> wait for a
 *         call_end; LOCKSTEP_ECLOSED: the connection drains or failed -> open another */
int grpc_client_start(struct grpc_client *client, const char *path, uint64_t timeout_ns, const struct grpc_pair *pairs,
                      size_t pair_count, void *user, struct grpc_client_call **ret);
void *grpc_client_user(const struct grpc_client_call *call);

/* Queue one message. Errors  LOCKSTEP_EFULL: wait for call_writable; LOCKSTEP_ENOMEM: the budget is spent -> cancel. */
int grpc_client_message(struct grpc_client_call *call, const uint8_t *bytes, size_t n);

/* The same without a copy: claim room for a message of at most bytes_max, fill it, then commit what was used. Nothing
 * else may be done with the call in between; a claim that is not committed is forgotten. Errors  as grpc_client_message. */
int grpc_client_claim(struct grpc_client_call *call, size_t bytes_max, uint8_t **ret);
void grpc_client_commit(struct grpc_client_call *call, size_t bytes);

/* No more messages from this side. */
void grpc_client_half_close(struct grpc_client_call *call);

/* Give credit back for n bytes of delivered messages. */
void grpc_client_consumed(struct grpc_client_call *call, size_t n);

/* Give the call up: RST_STREAM(CANCEL); the pointer is dead, no callback follows. */
void grpc_client_cancel(struct grpc_client_call *call);

#endif
