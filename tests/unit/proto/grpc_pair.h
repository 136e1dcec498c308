/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_pair.h - a client codec and a server codec against each other in memory, and what each of them reported.
 * The server answers by itself, as a small service: see pair_server_*. Thread: the test's. */
#ifndef LOCKSTEP_TESTS_UNIT_PROTO_GRPC_PAIR_H
#define LOCKSTEP_TESTS_UNIT_PROTO_GRPC_PAIR_H

#include "proto/grpc_client.h"
#include "proto/grpc_server.h"

enum { PAIR_CALLS_MAX = 512 };

/* What one side saw of one call. */
struct pair_call {
    struct grpc_call *served;         /* server side; NULL when over */
    struct grpc_client_call *started; /* client side; NULL when over */
    unsigned messages;
    size_t bytes;      /* of all messages */
    uint8_t last[256]; /* the beginning of the last message */
    size_t last_bytes;
    unsigned half_closes, cancels, ends, writables;
    char path[160];
    uint64_t timeout_ns;
    char forward[64]; /* metadata lockstep-forward */
    int status;
    char message[256];
    bool from_server, untouched;
    char leader[64]; /* trailer lockstep-leader */
};

struct pair {
    struct pool pool;
    struct grpc_conn *server;
    struct grpc_client *client;
    struct grpc_conn_limits server_limits;
    struct grpc_client_limits client_limits;
    bool echo;        /* the server answers every message with itself, and the half-close with OK */
    bool hold;        /* the server does not give credit back */
    bool client_hold; /* the client does not give credit back */
    size_t fragment;  /* bytes handed over at a time; 0 = all */
    bool client_deaf; /* what the server sends stays with it */
    unsigned opened, drains;
    struct pair_call at_server[PAIR_CALLS_MAX]; /* in the order opened */
    struct pair_call at_client[PAIR_CALLS_MAX]; /* by the index given to pair_start */
    uint64_t to_server_bytes, to_client_bytes;
};

/* Limits that the tests start from; change them in pair->..._limits between init and open. */
void pair_init(struct pair *pair);
void pair_open(struct pair *pair);
void pair_close(struct pair *pair);

/* Hand bytes over in both directions until nothing moves. ret  false: a codec refused its bytes */
bool pair_run(struct pair *pair);

/* Start call number `index`. */
struct grpc_client_call *pair_start(struct pair *pair, unsigned index, const char *path);

/* Feed the server with bytes of a hand-made client. ret what grpc_conn_receive said */
int pair_feed(struct pair *pair, const void *bytes, size_t n);

/* A server alone, with preface and settings received and all its output dropped. */
void pair_open_raw(struct pair *pair);
/* All the server has to send, dropped; ret how many bytes. */
size_t pair_drop(struct pair *pair);

#endif
