/* SPDX-License-Identifier: Apache-2.0 */
/* node_env.h - the node's door to time, randomness and wake-ups. The real one is in loop.c; the simulator has its own. */
#ifndef LOCKSTEP_SERVER_NODE_ENV_H
#define LOCKSTEP_SERVER_NODE_ENV_H

#include <stdbool.h>
#include <stdint.h>

/* Whose work function is meant; each but NODE_LOOP runs node_work() on a thread of its own, or inline. */
enum node_part { NODE_LOOP, NODE_JOURNAL, NODE_LOG, NODE_MACHINE, NODE_CONTROL, NODE_SNAPSHOTS, NODE_PARTS };

enum node_log_level { NODE_LOG_ERROR, NODE_LOG_WARN, NODE_LOG_INFO, NODE_LOG_DEBUG };

struct node_env {
    void *context;
    uint64_t (*now_ns)(void *context);  /* CLOCK_BOOTTIME: elections, leases, timeouts (R9) */
    uint64_t (*wall_ns)(void *context); /* for the birth record and for slewing log time; decides nothing else */
    uint64_t (*random)(void *context);  /* 64 bits */
    /* There is something to do for `part`. Any thread; cheap when it is awake already. */
    void (*wake)(void *context, enum node_part part);
    /* Let others work for so long. Not the loop. False: the process ends, so the rest of the work is not worth doing. */
    bool (*pause)(void *context, uint64_t ns);
    /* One line `key=value ...` for people. Any thread; never blocks. */
    void (*log)(void *context, enum node_log_level level, const char *part, const char *text);
};

#endif
