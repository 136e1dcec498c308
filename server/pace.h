/* SPDX-License-Identifier: Apache-2.0 */
/* pace.h - long work that nobody waits for gives way to what somebody waits for: it rests as long as it worked, in small
 * steps. A thread that wakes waits until another one's time slice ends or it sleeps, however low that one's priority is, so a
 * low priority alone was not enough: tests/bench/README.md has the figures. (The kernel's idle class gives way at once, but
 * starves where the processors are never idle, and a process without privileges does not get out of it.) */
#ifndef LOCKSTEP_SERVER_PACE_H
#define LOCKSTEP_SERVER_PACE_H

#include <stdint.h>

#define PACE_STEP_NS     UINT64_C(50000)     /* about what a wake-up takes: shorter steps would mostly rest */
#define PACE_REST_NS_MAX UINT64_C(100000000) /* a disk that stood still, a host that slept */

/* How long to rest after so much work without one; 0 = work on. */
static inline uint64_t pace_rest_ns(uint64_t worked_ns)
{
    if (worked_ns < PACE_STEP_NS) return 0;
    return worked_ns < PACE_REST_NS_MAX ? worked_ns : PACE_REST_NS_MAX;
}

#endif
