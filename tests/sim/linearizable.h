/* SPDX-License-Identifier: Apache-2.0 */
/* linearizable.h - whether what clients saw of one register could have happened one after the other.
 * A register holds a number or nothing. An operation took effect at one instant between its call and its return; one
 * whose outcome nobody knows may have taken effect at any time after its call, or never. Searches for such an order.
 * Source: Wing and Gong 1993, with Lowe's memory of (set done, state) 2017; as in porcupine and Knossos. */
#ifndef LOCKSTEP_TESTS_SIM_LINEARIZABLE_H
#define LOCKSTEP_TESTS_SIM_LINEARIZABLE_H

#include <stdbool.h>
#include <stdint.h>

enum linearizable_kind {
    LINEARIZABLE_GET,
    LINEARIZABLE_PUT, /* a */
    LINEARIZABLE_DEL,
    LINEARIZABLE_CAS, /* from a to b */
    LINEARIZABLE_ADD, /* a; to nothing: as if it were 0 */
};

struct linearizable_operation {
    uint8_t kind;
    bool known; /* it returned with `done` and `result`; else both are unknown and returned_ns means nothing */
    bool done;  /* GET, DEL: there was a number; CAS: it was `a`; PUT, ADD: always */
    int64_t a, b;
    int64_t result; /* GET: the number; ADD: the sum */
    uint64_t called_ns, returned_ns;
};

enum linearizable_verdict { LINEARIZABLE_YES, LINEARIZABLE_NO, LINEARIZABLE_UNDECIDED };

enum { LINEARIZABLE_OPERATIONS_MAX = 512 };

/* count      at most LINEARIZABLE_OPERATIONS_MAX; the register holds nothing at first
 * steps_max  of the search: UNDECIDED when they do not do
 * Allocates. */
enum linearizable_verdict linearizable(const struct linearizable_operation *operations, uint32_t count,
                                       uint64_t steps_max);

#endif
