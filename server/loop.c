/* SPDX-License-Identifier: Apache-2.0 */
/* loop.c - see loop.h.
 * Wake-ups of the loop cost a system call only when it sleeps. Loop: store asleep, look at woken, sleep. Waker: store
 * woken, look at asleep, ring. All four seq_cst: one of both sees the other. On the loop's own thread nobody rings: what
 * a callback of the loop asks for has its turn before the next sleep.
 * Source: Redis's beforeSleep; rule S7 of the doorbell, between threads instead of processes. */
#include "server/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum { SLEEP_MS_MAX = 3600 * 1000 };

struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t timer;
    uv_async_t bell;
    uv_signal_t terminate, interrupt;
    struct loop_owner owner;
    struct node_env env;
    struct threads *threads;
    struct log *log;
    unsigned stops;
    _Atomic bool asleep, woken;
};

static _Thread_local const struct loop *own; /* the loop that runs on this thread */

/* --- node_env --- */

static uint64_t clock_read(clockid_t clock)
{
    struct timespec now;
    int rc = clock_gettime(clock, &now);
    lk_assert(rc == 0);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t env_now_ns(void *context)
{
    (void)context;
    return clock_read(CLOCK_BOOTTIME); /* goes on while the host sleeps: a lease does not outlive a suspend */
}

static uint64_t env_wall_ns(void *context)
{
    (void)context;
    return clock_read(CLOCK_REALTIME);
}

static uint64_t env_random(void *context)
{
    (void)context;
    uint64_t value;
    ssize_t got = getrandom(&value, sizeof value, 0);
    lk_assert(got == (ssize_t)sizeof value); /* up to 256 bytes come whole */
    return value;
}

static void env_wake(void *context, enum node_part part)
{
    struct loop *loop = context;
    if (part != NODE_LOOP) {
        if (loop->threads != NULL) threads_wake(loop->threads, part);
        return;
    }
    bool was_woken = atomic_exchange(&loop->woken, true);
    if (!was_woken && loop != own && atomic_load(&loop->asleep)) (void)uv_async_send(&loop->bell);
}

static bool env_pause(void *context, uint64_t ns)
{
    const struct loop *loop = context;
    (void)nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)}, NULL);
    return !threads_end(loop->threads);
}

static void env_log(void *context, enum node_log_level level, const char *part, const char *text)
{
    struct loop *loop = context;
    log_line(loop->log, level, part, text);
}

/* --- the round --- */

static void nothing(uv_timer_t *timer)
{
    (void)timer; /* it has woken the loop: that was all */
}

static void rung(uv_async_t *bell)
{
    (void)bell;
}

static void before_sleep(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    (void)atomic_exchange(&loop->woken, false); /* what was queued before the wake is visible to this turn */
    uint64_t deadline = loop->owner.turn(loop->owner.context);
    uint64_t now = env_now_ns(loop), ms = 0;
    if (deadline > now) ms = (deadline - now + 999999) / 1000000;
    if (ms > SLEEP_MS_MAX) ms = SLEEP_MS_MAX;
    atomic_store(&loop->asleep, true);
    if (atomic_load(&loop->woken)) ms = 0;
    uv_update_time(&loop->uv); /* else the time of the turn would count as slept already */
    (void)uv_timer_start(&loop->timer, nothing, ms, 0);
}

static void after_sleep(uv_check_t *check)
{
    struct loop *loop = check->data;
    atomic_store(&loop->asleep, false);
}

static void signalled(uv_signal_t *signal, int number)
{
    struct loop *loop = signal->data;
    (void)number;
    loop->owner.stop(loop->owner.context, ++loop->stops);
}

/* --- open, run, close --- */

int loop_open(struct log *log, struct loop **ret)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) return LOCKSTEP_ENOMEM;
    if (uv_loop_init(&loop->uv) != 0) {
        free(loop);
        return LOCKSTEP_EIO;
    }
    if (uv_async_init(&loop->uv, &loop->bell, rung) != 0) {
        (void)uv_loop_close(&loop->uv);
        free(loop);
        return LOCKSTEP_EIO;
    }
    /* These never fail. */
    (void)uv_prepare_init(&loop->uv, &loop->prepare);
    (void)uv_check_init(&loop->uv, &loop->check);
    (void)uv_timer_init(&loop->uv, &loop->timer);
    (void)uv_signal_init(&loop->uv, &loop->terminate);
    (void)uv_signal_init(&loop->uv, &loop->interrupt);
    loop->prepare.data = loop->check.data = loop->terminate.data = loop->interrupt.data = loop;
    loop->log = log;
    loop->env = (struct node_env){
        .context = loop,
        .now_ns = env_now_ns,
        .wall_ns = env_wall_ns,
        .random = env_random,
        .wake = env_wake,
        .pause = env_pause,
        .log = env_log,
    };
    *ret = loop;
    return 0;
}

uv_loop_t *loop_uv(struct loop *loop)
{
    return &loop->uv;
}

const struct node_env *loop_env(struct loop *loop)
{
    return &loop->env;
}

struct threads **loop_threads(struct loop *loop)
{
    return &loop->threads;
}

void loop_run(struct loop *loop, const struct loop_owner *owner)
{
    loop->owner = *owner;
    (void)uv_prepare_start(&loop->prepare, before_sleep);
    (void)uv_check_start(&loop->check, after_sleep);
    (void)uv_signal_start(&loop->terminate, signalled, SIGTERM);
    (void)uv_signal_start(&loop->interrupt, signalled, SIGINT);
    own = loop;
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    own = NULL;
    (void)uv_prepare_stop(&loop->prepare);
    (void)uv_check_stop(&loop->check);
    atomic_store(&loop->asleep, false);
}

void loop_end(struct loop *loop)
{
    uv_stop(&loop->uv);
}

void loop_close(struct loop *loop)
{
    if (loop == NULL) return;
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->bell, NULL);
    uv_close((uv_handle_t *)&loop->terminate, NULL);
    uv_close((uv_handle_t *)&loop->interrupt, NULL);
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&loop->uv);
    lk_assert(rc == 0); /* a handle that nobody closed */
    free(loop);
}
