/* SPDX-License-Identifier: Apache-2.0 */
/* pace.h - long work that nobody waits for gives way to what somebody waits for: it rests as long as it worked, in small
 * steps. A thread that wakes waits for the end of another's time slice, however low that one's priority is, so a low priority
 * alone was not enough: tests/bench/README.md has the figures. */
#ifndef LOCKSTEP_SERVER_PACE_H
#define LOCKSTEP_SERVER_PACE_H

#include <stdint.h>

#define PACE_STEP_NS     UINT64_C(1000000)   /* shorter steps rest longer than they work: a wake-up takes its time */
#define PACE_REST_NS_MAX UINT64_C(100000000) /* a disk that stood still, a host that slept */

/* How long to rest after so much work without one; 0 = work on. */
static inline uint64_t pace_rest_ns(uint64_t worked_ns)
{
    if (worked_ns < PACE_STEP_NS) return 0;
    return worked_ns < PACE_REST_NS_MAX ? worked_ns : PACE_REST_NS_MAX;
}

#endif
