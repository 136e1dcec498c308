/* SPDX-License-Identifier: Apache-2.0 */
/* threads.c - see threads.h. */
#include "server/threads.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "server/park.h"

struct thread {
    struct threads *threads;
    enum node_part part;
    struct park park;
    pthread_t id;
};

struct threads {
    threads_work *work;
    void *context;
    _Atomic bool ending;
    unsigned started; /* parts below it, NODE_LOOP excepted */
    struct thread thread[NODE_PARTS];
};

enum { SNAPSHOTS_NICE = 10 }; /* so much work at once, and nobody waits for it: the others get the processor first */

bool threads_end(const struct threads *threads)
{
    /* acquire: pairs with the release in threads_close. */
    return atomic_load_explicit(&threads->ending, memory_order_acquire);
}

static void *run(void *context)
{
    struct thread *thread = context;
    struct threads *threads = thread->threads;
    if (thread->part == NODE_SNAPSHOTS)
        setpriority(PRIO_PROCESS, (id_t)gettid(), SNAPSHOTS_NICE); /* Linux: a thread's */
    while (!threads_end(threads)) {
        uint64_t ns = threads->work(threads->context, thread->part);
        if (ns > 0) park_sleep(&thread->park, ns);
    }
    return NULL;
}

int threads_open(threads_work *work, void *context, struct threads **ret)
{
    static const char *const names[NODE_PARTS] = {[NODE_JOURNAL] = "ls-journal",
                                                  [NODE_LOG] = "ls-log-lmdb",
                                                  [NODE_MACHINE] = "ls-machine",
                                                  [NODE_CONTROL] = "ls-control",
                                                  [NODE_SNAPSHOTS] = "ls-snapshots"};
    struct threads *threads = calloc(1, sizeof *threads);
    if (threads == NULL) return LOCKSTEP_ENOMEM;
    threads->work = work;
    threads->context = context;
    for (enum node_part part = NODE_LOOP; part < NODE_PARTS; part++) park_open(&threads->thread[part].park);
    *ret = threads; /* before the threads run: they may wake each other */
    threads->started = NODE_LOOP + 1;
    for (enum node_part part = NODE_LOOP + 1; part < NODE_PARTS; part++) {
        struct thread *thread = &threads->thread[part];
        thread->threads = threads;
        thread->part = part;
        if (park_thread_start(&thread->id, names[part], run, thread) != 0) {
            threads_close(threads);
            *ret = NULL;
            return LOCKSTEP_ENOMEM;
        }
        threads->started++;
    }
    return 0;
}

void threads_close(struct threads *threads)
{
    if (threads == NULL) return;
    /* release: pairs with the acquire load in threads_end(). */
    atomic_store_explicit(&threads->ending, true, memory_order_release);
    for (unsigned part = NODE_LOOP + 1; part < threads->started; part++) park_wake(&threads->thread[part].park);
    for (unsigned part = NODE_LOOP + 1; part < threads->started; part++) {
        int rc = pthread_join(threads->thread[part].id, NULL);
        lk_assert(rc == 0);
    }
    free(threads);
}

void threads_wake(struct threads *threads, enum node_part part)
{
    lk_assert(part > NODE_LOOP);
    lk_assert(part < NODE_PARTS);
    park_wake(&threads->thread[part].park);
}
