/* SPDX-License-Identifier: Apache-2.0 */
/* front_rig.h - a client front on a real loop and real sockets, with a played node behind it and clients before it, all
 * in one thread: rig_settle() lets everything happen that can happen now. */
#ifndef LOCKSTEP_TESTS_UNIT_SERVER_FRONT_RIG_H
#define LOCKSTEP_TESTS_UNIT_SERVER_FRONT_RIG_H

#include "proto/grpc_client.h"
#include "server/front.h"
#include "tests/unit/server/fake_node.h"

enum { CLIENT_CALLS_MAX = 64, CLIENT_LAST_BYTES = 8192, CLIENT_TAIL_BYTES = 192 };

struct client_call {
    struct grpc_client_call *call; /* NULL when over */
    unsigned messages, ends;
    uint8_t last[CLIENT_LAST_BYTES]; /* the beginning of the last message, and its end: */
    uint8_t tail[CLIENT_TAIL_BYTES];
    size_t last_bytes, bytes;
    int status;
    bool from_server;
    char message[400];
    char leader[80], retry_after[16], outcome[32]; /* trailers */
};

struct client {
    int fd;      /* -1: none */
    bool closed; /* by the server */
    bool deaf;   /* does not read */
    struct grpc_client *grpc;
    unsigned drains;
    struct client_call calls[CLIENT_CALLS_MAX];
};

struct rig {
    uv_loop_t loop;
    uv_prepare_t prepare;
    char address[32];
    int port;
    struct front_options options; /* change between rig_init and rig_open */
    struct front *front;
    struct node node;
    struct pool pool;
    struct client clients[4];
    unsigned recoveries; /* that were begun */
};

void rig_init(struct rig *rig);
void rig_open(struct rig *rig);
void rig_close(struct rig *rig);
void rig_turn(struct rig *rig);
void rig_settle(struct rig *rig);
/* Turns until so many milliseconds are over. */
void rig_wait(struct rig *rig, unsigned ms);

/* A connected socket, non-blocking. */
int rig_connect(struct rig *rig);
/* Connect a gRPC client. */
struct client *client_open(struct rig *rig, unsigned index);
void client_close(struct client *client);
/* A call with one message; `more` leaves the request open. */
struct grpc_client_call *client_call(struct client *client, unsigned index, const char *path, const void *bytes,
                                     size_t n, bool more);
/* The same with metadata lockstep-forward: no, or a timeout. */
struct grpc_client_call *client_call_with(struct client *client, unsigned index, const char *path, const void *bytes,
                                          size_t n, uint64_t timeout_ns, bool no_forward);

/* Send a text, settle, return what came back; *ret_closed says whether the server closed. */
const char *rig_http(struct rig *rig, const char *request, bool *ret_closed);
/* The value of a metric of /metrics. */
long rig_metric(struct rig *rig, const char *name);

#endif
