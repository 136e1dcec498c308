/* SPDX-License-Identifier: Apache-2.0 */
/* histogram.c - see histogram.h.
 * value < 128: bucket = value. Else, with its highest bit at e (7..63) and shift = e - 7, value >> shift is 128..255,
 * and bucket = (shift + 1) * 128 + (value >> shift) - 128. */
#include "base/histogram.h"

#include "base/assert.h"

#include <string.h>

enum { STEPS = 1 << HISTOGRAM_STEP_BITS };

static uint32_t bucket_of(uint64_t value)
{
    if (value < STEPS) return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return (shift << HISTOGRAM_STEP_BITS) + (uint32_t)(value >> shift);
}

static uint64_t bucket_last(uint32_t bucket)
{
    if (bucket < STEPS) return bucket;
    uint32_t shift = (bucket >> HISTOGRAM_STEP_BITS) - 1;
    uint64_t first = (uint64_t)(STEPS + (bucket & (STEPS - 1))) << shift;
    return first + ((UINT64_C(1) << shift) - 1);
}

void histogram_clear(struct histogram *h)
{
    memset(h, 0, sizeof *h);
    h->min_ns = UINT64_MAX;
}

void histogram_record(struct histogram *h, uint64_t value_ns)
{
    h->buckets[bucket_of(value_ns)]++;
    h->count++;
    h->sum_ns += value_ns;
    if (value_ns < h->min_ns) h->min_ns = value_ns;
    if (value_ns > h->max_ns) h->max_ns = value_ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    if (from->min_ns < into->min_ns) into->min_ns = from->min_ns;
    if (from->max_ns > into->max_ns) into->max_ns = from->max_ns;
}

uint64_t histogram_quantile(const struct histogram *h, uint64_t numerator, uint64_t denominator)
{
    lk_assert(denominator > 0);
    lk_assert(denominator <= 1000000);
    lk_assert(numerator <= denominator);
    if (h->count == 0) return 0;
    /* count * numerator / denominator, rounded up, in two parts that cannot overflow */
    uint64_t rank = h->count / denominator * numerator;
    rank += (h->count % denominator * numerator + denominator - 1) / denominator;
    if (rank == 0) return h->min_ns;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank) return bucket_last(i) < h->max_ns ? bucket_last(i) : h->max_ns;
    }
    lk_unreachable(); /* the buckets' sum is count */
}
