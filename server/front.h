/* SPDX-License-Identifier: Apache-2.0 */
/* front.h - the client port: connections, gRPC and HTTP/1.1, and what waits for an answer. Thread: loop.
 * Order of a server's life: front_open (binds and listens, accepts nobody) -> node_open with front_node_owner ->
 * front_attach (accepts) -> turns -> front_stop -> front_close -> the loop runs until its handles are closed.
 *
 * In a turn the loop calls node_drain, then front_flush: the node's callbacks note outcomes, front_flush makes answers
 * of them and writes. Commands that become possible by it are proposed there; they are the next turn's. */
#ifndef LOCKSTEP_SERVER_FRONT_H
#define LOCKSTEP_SERVER_FRONT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "server/node.h"

struct front;

struct front_options {
    uv_loop_t *loop;
    const char *listen;              /* HOST:PORT to bind */
    uint32_t connections_max;        /* further ones are closed at once and counted */
    uint32_t grpc_message_bytes_max; /* larger ones are RESOURCE_EXHAUSTED, before anything is allocated */
    uint32_t proposals_max;          /* waiting for their outcome, over all connections: node_options.proposals_max */
    uint32_t queries_max;            /* the same */
    uint64_t silence_ns_max;         /* a connection that has not asked for anything, or a kept HTTP/1.1 one; 0: 10 s */
    uint64_t idle_ns_max;            /* a gRPC connection without calls: then GOAWAY; 0: 15 min */
    uint64_t stall_ns_max;           /* a client that does not take what is sent to it; 0: 30 s */
    /* Begin the recovery that node_recover_check allowed: the new cluster id. What follows comes after this turn. */
    void *recover_context;
    uint64_t (*recover)(void *context);
    /* A line for people, in the form of node_env.log. */
    void *log_context;
    void (*log)(void *context, enum node_log_level level, const char *part, const char *text);
};

/* Bind and listen. Blocks while the address is resolved. Allocates.
 * why  filled on error with a sentence for people
 * EINVAL: the address · EEXIST: in use · EIO: other refusals of the system · ENOMEM */
int front_open(const struct front_options *options, struct front **ret, char *why, size_t why_room);
/* The callbacks for node_open; they name this front. */
struct node_owner front_node_owner(struct front *front);
/* Begin to accept, and to propose to this node. */
void front_attach(struct front *front, struct node *node);
/* Once a turn, after node_drain. */
void front_flush(struct front *front);
/* Take no more connections and no more commands (UNAVAILABLE), say GOAWAY, let what runs finish. */
void front_stop(struct front *front);
/* Nothing waits for an outcome and every answer is written. */
bool front_drained(const struct front *front);
/* Closes everything; frees itself when its handles are closed. Calls the node no more. Takes NULL. */
void front_close(struct front *front);

#endif
