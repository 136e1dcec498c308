/* SPDX-License-Identifier: Apache-2.0 */
/* random.c - see random.h. */
#include "base/random.h"

#include "base/assert.h"

#include <string.h>

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void random_seed(struct random *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) r->state[i] = splitmix64(&seed); /* never all zero, which would stay zero for ever */
}

static uint64_t rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

uint64_t random_u64(struct random *r)
{
    uint64_t *s = r->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t random_below(struct random *r, uint64_t limit)
{
    lk_assert(limit > 0);
    /* The lowest 2^64 mod limit numbers are thrown again, so that every remainder is equally likely. */
    uint64_t uneven = (UINT64_MAX % limit + 1) % limit;
    uint64_t number = random_u64(r);
    while (number < uneven) number = random_u64(r);
    return number % limit;
}

uint64_t random_between(struct random *r, uint64_t first, uint64_t last)
{
    lk_assert(first <= last);
    uint64_t span = last - first;
    return span == UINT64_MAX ? random_u64(r) : first + random_below(r, span + 1);
}

bool random_chance(struct random *r, uint64_t numerator, uint64_t denominator)
{
    lk_assert(numerator <= denominator);
    return random_below(r, denominator) < numerator;
}

void random_fill(struct random *r, void *bytes, size_t count)
{
    uint8_t *at = bytes;
    while (count > 0) {
        uint64_t number = random_u64(r);
        size_t piece = count < sizeof number ? count : sizeof number;
        for (size_t i = 0; i < piece; i++) at[i] = (uint8_t)(number >> (8 * i)); /* the same on either byte order */
        at += piece;
        count -= piece;
    }
}
