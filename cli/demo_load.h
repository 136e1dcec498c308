/* SPDX-License-Identifier: Apache-2.0 */
/* demo_load.h - the load of the demo, and its memory: every command that was ever sent, what was said of it, and
 * whether the logs agree. Thread: main.
 * D1  Every command's bytes are unique and follow from its number, so that a log can be read without a copy of what was
 *     sent.
 * D2  A command that was answered is kept with the position that the answer named.
 * D3  Streams have sessions: what the dead leader left unanswered is sent again with the same session and seq. So a command
 *     may stand in the log twice, under one name; the first is the one that counts, and that the answer has to name. */
#ifndef LOCKSTEP_CLI_DEMO_LOAD_H
#define LOCKSTEP_CLI_DEMO_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lockstep/client.h"
#include "proto/block.h"

enum {
    DEMO_STREAMS = 4,
    DEMO_BATCH = 64,    /* commands in a message */
    DEMO_MESSAGES = 16, /* in flight on a stream */
    DEMO_COMMAND_BYTES_MAX = 64,
    DEMO_DEADLINE_MS = 60000, /* a slow host is no reason to give a command up */
};

struct demo_load;

/* total  commands that are to be acknowledged at least; room for twice as many is taken. LOCKSTEP_ENOMEM, EINVAL */
int demo_load_open(const char *endpoints, uint64_t total, struct demo_load **ret);
void demo_load_close(struct demo_load *load); /* takes NULL */

/* Send and receive for up to wait_ms. sending: false = only wait for what is out. */
int demo_load_turn(struct demo_load *load, bool sending, int wait_ms);

struct demo_counts {
    uint64_t sent, acknowledged, not_appended, unknown, refused;
    uint64_t in_flight; /* sent, and nothing was said yet */
};
struct demo_counts demo_load_counts(const struct demo_load *load);

/* From now on: when was the first command acknowledged that was sent after this call? 0 = none yet. */
void demo_load_mark(struct demo_load *load);
uint64_t demo_load_marked_ns(const struct demo_load *load);

/* What the library said last about a lost stream; "" = nothing. */
const char *demo_load_trouble(const struct demo_load *load);

/* The newest acknowledged command of a stream as a query for its value, and that value. false: none. */
bool demo_load_newest(const struct demo_load *load, uint32_t stream, char query[DEMO_COMMAND_BYTES_MAX],
                      char value[DEMO_COMMAND_BYTES_MAX]);

/* --- looking for every command in a node's log --- */

enum { DEMO_NODES_MAX = 16 };

struct demo_found {
    uint64_t commands;       /* in this log */
    uint64_t acknowledged;   /* found where their answer said, byte for byte */
    uint64_t repeated;       /* that stand there once more, under the same session and seq */
    uint64_t unknown;        /* found though their outcome was unknown: they had been committed */
    char false_because[256]; /* "" = everything holds so far */
};

/* Begin with a node's log, hand over its commands in order , then judge: every
 * acknowledged command must have been found; every log must have the same commands at the same positions. */
void demo_check_begin(struct demo_load *load, uint32_t node);
bool demo_check_command(void *load, const struct command_view *view);
void demo_check_end(struct demo_load *load, struct demo_found *ret);

/* For the test that a false line is noticed: the memory of one acknowledged command is made wrong. */
void demo_load_falsify(struct demo_load *load);

#endif
