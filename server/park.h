/* SPDX-License-Identifier: Apache-2.0 */
/* park.h - where a thread sleeps until it is woken or its time has come.
 * A wake-up is never lost: one that comes while the thread works makes its next sleep return at once. Waking a thread
 * that is awake costs one atomic exchange and no system call.
 *   AWAKE -> ASLEEP [park_sleep]   ASLEEP -> WOKEN -> AWAKE [park_wake, park_sleep returns]   AWAKE -> WOKEN [park_wake]
 * Thread: one sleeps, any wakes. Source: futex(2). */
#ifndef LOCKSTEP_SERVER_PARK_H
#define LOCKSTEP_SERVER_PARK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct park {
    _Atomic uint32_t state;
};

void park_open(struct park *park);
/* Sleep until woken, or for at most ns. UINT64_MAX: until woken. */
void park_sleep(struct park *park, uint64_t ns);
void park_wake(struct park *park);

/* Start a thread that has this name and takes no signals: those are the loop's. ret 0, or errno's value. */
int park_thread_start(pthread_t *ret, const char *name, void *(*body)(void *context), void *context);

#endif
