/* SPDX-License-Identifier: Apache-2.0 */
/* histogram.h - how long things took, in fixed memory: counts in buckets whose width grows with the value, so that
 * every reported number is at most 1/128 (0.8%) above the true one, from 0 to 2^64-1 ns. Below 256 ns it is exact.
 * Thread: one owner each; merge after the owners have ended, or on one thread.
 * Source: HdrHistogram's log-linear layout. Recording costs one count-leading-zeros and one increment. */
#ifndef LOCKSTEP_BASE_HISTOGRAM_H
#define LOCKSTEP_BASE_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_STEP_BITS = 7, /* 128 steps in each doubling */
    HISTOGRAM_BUCKETS = (64 - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS,
};

struct histogram {
    uint64_t count, sum_ns, min_ns, max_ns; /* exact; min_ns is UINT64_MAX and max_ns 0 while count is 0 */
    uint64_t buckets[HISTOGRAM_BUCKETS];    /* 59 KiB: not for a stack with many of them */
};

void histogram_clear(struct histogram *h);
void histogram_record(struct histogram *h, uint64_t value_ns);

/* into += from. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The smallest value that at least numerator/denominator of all recorded values do not exceed, rounded up to its
 * bucket's end, never above max_ns. p99.9 is (999, 1000). Integers: 99.9 has no exact double.
 * ret  0 where nothing was recorded */
uint64_t histogram_quantile(const struct histogram *h, uint64_t numerator, uint64_t denominator);

#endif
