/* SPDX-License-Identifier: Apache-2.0 */
/* workload.h - what clients ask a machine for.
 *   kv        numbers under a few keys: put, get, cas, incr, del, as commands and as queries, with histories
 *   counter   add and get
 *   others    lines of a file (--commands, --queries), or random bytes: a machine has to bear any
 * In a line, {A..B} becomes a number from A to B, and {id} the operation's own. */
#ifndef LOCKSTEP_TESTS_SIM_WORKLOAD_H
#define LOCKSTEP_TESTS_SIM_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random.h"
#include "server/node.h"
#include "tests/sim/linearizable.h"
#include "tests/sim/plan.h"

enum { WORKLOAD_REPLY_BYTES_MAX = 64 }; /* of a reply, what is understood */

struct workload;

struct workload_operation {
    uint8_t *payload; /* owned by the operation; NULL when it has ended */
    uint32_t payload_bytes;
    bool query;
    enum node_consistency consistency; /* of a query, and what follows */
    uint64_t max_staleness_ns;         /* BOUNDED_STALE */
    bool has_min_index;                /* it has to see all that is known when it is asked, */
    uint32_t blocks_ahead;             /* and so many blocks more */
    bool has_history;
    uint64_t key;
    struct linearizable_operation seen;
};

/* machine: its name. Files may be NULL. NULL: why says why. Allocates. */
struct workload *workload_open(const char *machine, const char *commands_path, const char *queries_path, char *why,
                               size_t why_room);
void workload_close(struct workload *workload); /* takes NULL */
/* The operation with this number. Allocates its payload. */
void workload_make(struct workload *workload, struct random *r, const struct sim_plan *plan, uint32_t number,
                   struct workload_operation *ret);
/* What the reply says about an operation that has a history. */
void workload_understand(const struct workload *workload, struct workload_operation *operation, int32_t code,
                         const uint8_t *reply, uint32_t reply_bytes);

#endif
