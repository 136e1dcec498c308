/* SPDX-License-Identifier: Apache-2.0 */
/* random.h - small seeded randomness: election timeouts, back-off, simulated worlds, test data. The same seed gives the
 * same numbers on every machine: integers only. Not for secrets, and not for identities (those come from getrandom()).
 * Thread: one owner each. Source: xoshiro256** by Blackman and Vigna, seeded by splitmix64. */
#ifndef LOCKSTEP_BASE_RANDOM_H
#define LOCKSTEP_BASE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t state[4];
};

/* Any seed will do, 0 too. */
void random_seed(struct random *r, uint64_t seed);

uint64_t random_u64(struct random *r);

/* Evenly in [0, limit); limit > 0. */
uint64_t random_below(struct random *r, uint64_t limit);

/* Evenly in [first, last], both included; first <= last. */
uint64_t random_between(struct random *r, uint64_t first, uint64_t last);

/* true in numerator of denominator cases; numerator <= denominator, denominator > 0. */
bool random_chance(struct random *r, uint64_t numerator, uint64_t denominator);

void random_fill(struct random *r, void *bytes, size_t count);

#endif
