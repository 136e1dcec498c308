/* SPDX-License-Identifier: Apache-2.0 */
/* threads.h - a thread for each part of the node that is not the loop, around node_work.
 * A part's work never waits; between two calls its thread sleeps until it is woken or until the time that the call
 * returned. Thread: the loop's opens and closes; any wakes. Owns: the threads. */
#ifndef LOCKSTEP_SERVER_THREADS_H
#define LOCKSTEP_SERVER_THREADS_H

#include <stdbool.h>

#include "server/node_env.h"

struct threads;

/* What a thread runs: as node_work. */
typedef uint64_t threads_work(void *context, enum node_part part);

/* Start all; each calls work once before it first sleeps. Allocates. ENOMEM. */
int threads_open(threads_work *work, void *context, struct threads **ret);
/* Let each end its present call, and join it. Takes NULL. */
void threads_close(struct threads *threads);

/* Whether threads_close() waits for the callers' present calls. One of the threads. */
bool threads_end(const struct threads *threads);

/* Any thread. Not for NODE_LOOP. */
void threads_wake(struct threads *threads, enum node_part part);

#endif
