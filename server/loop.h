/* SPDX-License-Identifier: Apache-2.0 */
/* loop.h - the real node_env, and the libuv loop that gives a node its turns.
 * A turn comes once in each round of the loop, just before it would sleep: after every socket's callback has queued what
 * came. The loop sleeps until the turn's deadline, an event or a wake-up.
 * Thread: the one that calls loop_run is the loop's; wake and log of the env are for any. */
#ifndef LOCKSTEP_SERVER_LOOP_H
#define LOCKSTEP_SERVER_LOOP_H

#include <uv.h>

#include "server/log.h"
#include "server/node_env.h"
#include "server/threads.h"

struct loop;

struct loop_owner {
    void *context;
    /* One turn. Returns when the next is due at the latest, in the env's now_ns. */
    uint64_t (*turn)(void *context);
    /* SIGTERM or SIGINT, the count-th since the start. A turn follows. */
    void (*stop)(void *context, unsigned count);
};

/* Allocates. ENOMEM, EIO (no epoll, no eventfd). */
int loop_open(struct log *log, struct loop **ret);
uv_loop_t *loop_uv(struct loop *loop);
/* Valid until loop_close. Wake-ups for parts before loop_threads are dropped: a thread looks when it starts. */
const struct node_env *loop_env(struct loop *loop);
/* Who else is woken. Place for threads_open's ret, so that parts which wake each other at once find it. */
struct threads **loop_threads(struct loop *loop);

/* Turns until loop_end. */
void loop_run(struct loop *loop, const struct loop_owner *owner);
/* From a turn or a callback: loop_run returns after this round. */
void loop_end(struct loop *loop);
/* Runs on until every handle of it is closed, those of transports and fronts that are closing too. No turns any more.
 * Takes NULL. */
void loop_close(struct loop *loop);

#endif
