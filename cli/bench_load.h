/* SPDX-License-Identifier: Apache-2.0 */
/* bench_load.h - the load that bench makes: so many commands in flight for so long, measured. Thread: main. */
#ifndef LOCKSTEP_CLI_BENCH_LOAD_H
#define LOCKSTEP_CLI_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/histogram.h"

enum {
    BENCH_BYTES_MIN = 20, /* `put b1023-09999 x`, and some */
    BENCH_BATCH_MAX = 4096,
    BENCH_WINDOW = 1024, /* of a session */
    BENCH_KEYS = 10000,  /* that a connection writes over and over */
};

struct bench_options {
    const char *endpoints;
    const char *machine; /* kv or counter; else command says what to propose */
    const char *command; /* NULL = made for the machine */
    uint32_t connections;
    uint32_t inflight; /* unary: commands, over all connections; streams: messages on each */
    uint32_t bytes;    /* of a command */
    uint32_t batch;    /* commands in a message */
    bool stream;
    bool no_session;
    uint64_t warmup_ns, duration_ns;
    void *progress_context;
    void (*progress)(void *context, bool warming, uint64_t since_ns, uint64_t rate); /* about twice a second */
    void *window_context;
    void (*window)(void *context, bool begins); /* the measurement begins, ends */
};

/* What was answered within the window. */
struct bench_result {
    uint64_t window_ns;
    uint64_t applied;                        /* refused ones included: they took the same way */
    uint64_t refused, not_appended, unknown; /* the last two over the whole run */
    struct histogram latency;
};

/* Ends early when cluster_interrupted().
 * ret  0, though it may be that nothing was applied: why then says what the library said last. EUNREACHABLE, ENOMEM,
 * EIO. Allocates at its start. */
int bench_load(const struct bench_options *options, struct bench_result *ret, char *why, size_t why_room);

#endif
