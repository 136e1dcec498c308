/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

enum { SLEEP_NS_MAX = 50000000 };

struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t bell;
    bool woken;
    uint64_t (*work)(struct storage *storage, uint64_t now_ns);
};

static struct worker workers[3]; /* by enum storage_part */
static struct storage *storage;
static _Atomic bool done;

uint64_t workers_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void workers_wake(void *context, enum storage_part part)
{
    (void)context;
    struct worker *worker = &workers[part];
    pthread_mutex_lock(&worker->lock);
    worker->woken = true;
    pthread_cond_signal(&worker->bell);
    pthread_mutex_unlock(&worker->lock);
}

static void sleep_for(struct worker *worker, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    if (ns > SLEEP_NS_MAX) ns = SLEEP_NS_MAX;
    uint64_t nsec = (uint64_t)until.tv_nsec + ns;
    until.tv_sec += (time_t)(nsec / 1000000000u);
    until.tv_nsec = (long)(nsec % 1000000000u);
    pthread_mutex_lock(&worker->lock);
    while (!worker->woken && pthread_cond_timedwait(&worker->bell, &worker->lock, &until) == 0) {
    }
    worker->woken = false;
    pthread_mutex_unlock(&worker->lock);
}

void workers_sleep(uint64_t ns)
{
    sleep_for(&workers[STORAGE_LOOP], ns);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    while (!atomic_load(&done)) {
        uint64_t wait_ns = worker->work(storage, workers_now_ns());
        if (wait_ns != 0) sleep_for(worker, wait_ns);
    }
    return NULL;
}

void workers_prepare(void)
{
    for (int i = 0; i < 3; i++) {
        pthread_mutex_init(&workers[i].lock, NULL);
        pthread_cond_init(&workers[i].bell, NULL);
    }
    workers[STORAGE_JOURNAL].work = storage_journal_work;
    workers[STORAGE_LOG].work = storage_log_work;
}

void workers_start(struct storage *of)
{
    storage = of;
    atomic_store(&done, false);
    for (int i = STORAGE_JOURNAL; i <= STORAGE_LOG; i++)
        pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
}

void workers_stop(void)
{
    atomic_store(&done, true);
    for (int i = STORAGE_JOURNAL; i <= STORAGE_LOG; i++) {
        workers_wake(NULL, (enum storage_part)i);
        pthread_join(workers[i].thread, NULL);
    }
}
