/* SPDX-License-Identifier: Apache-2.0 */
/* direct.h - call a machine without a host: one command or query in, its answer out.
 * Payloads lie at an odd address in a buffer that ends where they end, so that sanitizers see a machine that reads
 * numbers in place or reads too far. A breach of the contract (no answer, two answers, a bad code) fails the test. */
#ifndef LOCKSTEP_TESTS_SUPPORT_DIRECT_H
#define LOCKSTEP_TESTS_SUPPORT_DIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lockstep/machine.h"

struct direct {
    const struct lockstep_machine *table;
    void *machine;
    struct lockstep_host host;
    uint64_t position; /* of the last command; one block a command */

    /* The last answer. */
    enum lockstep_outcome outcome;
    int32_t code;
    size_t reply_bytes;
    uint8_t reply[LOCKSTEP_REPLY_BYTES_MAX + 1]; /* ends with a zero, for text */

    struct lockstep_batch batch; /* the call under way */
    struct lockstep_replies replies;
    struct lockstep_command command;
    unsigned taken, answered;
};

void direct_open(struct direct *direct, const struct lockstep_machine *table);
void direct_close(struct direct *direct);

void direct_apply(struct direct *direct, const void *payload, size_t bytes);
void direct_query(struct direct *direct, const void *query, size_t bytes);
struct lockstep_hash direct_hash(struct direct *direct);

/* The bytes of a snapshot that begins, is written and ends now. Returns them in memory to free(). */
uint8_t *direct_snapshot(struct direct *direct, size_t *ret_bytes);
/* The same in steps: `begin` freezes, `write` writes out what was frozen and lets it go. */
void *direct_freeze(struct direct *direct);
uint8_t *direct_frozen_bytes(struct direct *direct, void *frozen, size_t *ret_bytes);
/* Restore into a newly opened machine; the bytes come in pieces of at most `piece`. Returns what restore says. */
int direct_restore(struct direct *direct, const uint8_t *bytes, size_t count, size_t piece);

/* The same for text; returns the code. The reply stands in direct->reply. */
int32_t direct_say(struct direct *direct, const char *command);
int32_t direct_ask(struct direct *direct, const char *query);

#endif
