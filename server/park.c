/* SPDX-License-Identifier: Apache-2.0 */
/* park.c - see park.h. */
#include "server/park.h"

#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { AWAKE, ASLEEP, WOKEN };

void park_open(struct park *park)
{
    atomic_init(&park->state, AWAKE);
}

void park_sleep(struct park *park, uint64_t ns)
{
    uint32_t awake = AWAKE;
    /* acquire, here and below: pairs with park_wake's release; what was queued before the wake is visible. */
    if (atomic_compare_exchange_strong_explicit(&park->state, &awake, ASLEEP, memory_order_acq_rel,
                                                memory_order_acquire)) {
        struct timespec time = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
        /* Returns at once if the state is no longer ASLEEP. Too early for any reason is harmless: the caller looks. */
        (void)syscall(SYS_futex, &park->state, FUTEX_WAIT_PRIVATE, ASLEEP, ns == UINT64_MAX ? NULL : &time, NULL, 0);
    }
    (void)atomic_exchange_explicit(&park->state, AWAKE, memory_order_acq_rel);
}

void park_wake(struct park *park)
{
    if (atomic_exchange_explicit(&park->state, WOKEN, memory_order_acq_rel) == ASLEEP)
        (void)syscall(SYS_futex, &park->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

int park_thread_start(pthread_t *ret, const char *name, void *(*body)(void *context), void *context)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    /* A fault is raised at the thread that made it; blocked, it would kill without a word. */
    (void)sigdelset(&all, SIGSEGV);
    (void)sigdelset(&all, SIGBUS);
    (void)sigdelset(&all, SIGILL);
    (void)sigdelset(&all, SIGFPE);
    (void)sigdelset(&all, SIGABRT);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(ret, NULL, body, context);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) (void)pthread_setname_np(*ret, name);
    return rc;
}
