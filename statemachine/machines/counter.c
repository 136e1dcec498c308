/* SPDX-License-Identifier: Apache-2.0 */
/* counter.c - the smallest machine: one 64-bit number, in text.
 *   add N   add N (signed, decimal); the reply is the new value
 *   get     the reply is the value; also as a query
 * REJECT: 2 "not a number", 4 "syntax: ...", 6 "out of range" (the sum leaves 64 bits; the number stays as it was). The
 * codes are those of kv. One newline at the end of a command is not part of it.
 * A snapshot is the number in 8 bytes, little-endian.
 * Thread: the machine's; snapshot_write another. Uses the public header alone. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lockstep/machine.h"

enum { REJECT_NOT_A_NUMBER = 2, REJECT_SYNTAX = 4, REJECT_RANGE = 6 };

struct counter {
    int64_t value;
};

static int counter_open(const struct lockstep_host *host, void **ret_machine)
{
    (void)host;
    struct counter *counter = calloc(1, sizeof *counter);
    if (counter == NULL) return -1;
    *ret_machine = counter;
    return 0;
}

static void counter_close(void *machine)
{
    free(machine);
}

static void reject(struct lockstep_replies *replies, int32_t code, const char *text)
{
    replies->answer(replies, LOCKSTEP_REJECT, code, text, strlen(text));
}

static void answer_value(const struct counter *counter, struct lockstep_replies *replies)
{
    char text[24];
    int count = snprintf(text, sizeof text, "%lld", (long long)counter->value);
    replies->answer(replies, LOCKSTEP_OK, 0, text, (size_t)count);
}

/* Decimal with an optional '-', and nothing else. 0, or the code to REJECT with. */
static int32_t parse_number(const uint8_t *text, size_t count, int64_t *ret)
{
    bool negative = count > 0 && text[0] == '-';
    size_t at = negative ? 1 : 0;
    if (at == count) return REJECT_NOT_A_NUMBER;
    int64_t value = 0; /* kept negative: the range below zero is the larger one */
    bool in_range = true;
    for (; at < count; at++) {
        if (text[at] < '0' || text[at] > '9') return REJECT_NOT_A_NUMBER;
        int digit = text[at] - '0';
        if (in_range && value >= (INT64_MIN + digit) / 10)
            value = value * 10 - digit;
        else
            in_range = false;
    }
    if (!in_range || (!negative && value == INT64_MIN)) return REJECT_RANGE;
    *ret = negative ? value : -value;
    return 0;
}

static bool is(const uint8_t *text, size_t count, const char *word)
{
    return count == strlen(word) && memcmp(text, word, count) == 0;
}

static size_t without_newline(const uint8_t *text, size_t count)
{
    return count > 0 && text[count - 1] == '\n' ? count - 1 : count;
}

static void add(struct counter *counter, const uint8_t *text, size_t count, struct lockstep_replies *replies)
{
    int64_t amount = 0;
    int32_t code = parse_number(text, count, &amount);
    if (code == 0) {
        bool fits = amount >= 0 ? counter->value <= INT64_MAX - amount : counter->value >= INT64_MIN - amount;
        if (!fits) code = REJECT_RANGE;
    }
    if (code == REJECT_NOT_A_NUMBER) {
        reject(replies, code, "not a number");
    } else if (code == REJECT_RANGE) {
        reject(replies, code, "out of range");
    } else {
        counter->value += amount;
        answer_value(counter, replies);
    }
}

static int counter_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    struct counter *counter = machine;
    const struct lockstep_command *command;
    while ((command = batch->next(batch)) != NULL) {
        const uint8_t *text = command->payload;
        size_t count = without_newline(text, command->payload_bytes);
        if (is(text, count, "get"))
            answer_value(counter, replies);
        else if (count >= 4 && memcmp(text, "add ", 4) == 0)
            add(counter, text + 4, count - 4, replies);
        else
            reject(replies, REJECT_SYNTAX, "syntax: add N | get");
    }
    return 0;
}

static int counter_query(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                         struct lockstep_replies *replies)
{
    (void)entity;
    if (is(query, without_newline(query, query_bytes), "get"))
        answer_value(machine, replies);
    else
        reject(replies, REJECT_SYNTAX, "syntax: get");
    return 0;
}

static struct lockstep_hash counter_hash(void *machine)
{
    const struct counter *counter = machine;
    struct lockstep_hash hash = {.low = (uint64_t)counter->value, .high = 0};
    return hash;
}

struct frozen {
    uint8_t bytes[8];
};

static int counter_snapshot_begin(void *machine, void **ret_snapshot)
{
    const struct counter *counter = machine;
    struct frozen *frozen = malloc(sizeof *frozen);
    if (frozen == NULL) return -1;
    for (unsigned i = 0; i < sizeof frozen->bytes; i++)
        frozen->bytes[i] = (uint8_t)((uint64_t)counter->value >> (8 * i));
    *ret_snapshot = frozen;
    return 0;
}

static int counter_snapshot_write(void *machine, void *snapshot, struct lockstep_writer *writer)
{
    (void)machine;
    const struct frozen *frozen = snapshot;
    return writer->write(writer, frozen->bytes, sizeof frozen->bytes);
}

static void counter_snapshot_end(void *machine, void *snapshot)
{
    (void)machine;
    free(snapshot);
}

static int counter_restore(void *machine, struct lockstep_reader *reader)
{
    struct counter *counter = machine;
    uint8_t bytes[9]; /* one more than there may be */
    size_t held = 0, count = 0;
    do {
        int rc = reader->read(reader, bytes + held, sizeof bytes - held, &count);
        if (rc != 0) return rc;
        held += count;
    } while (count > 0 && held < sizeof bytes);
    if (held != 8) return -1;
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++) value |= (uint64_t)bytes[i] << (8 * i);
    counter->value = (int64_t)value;
    return 0;
}

const struct lockstep_machine lockstep_machine = {
    .size = sizeof(struct lockstep_machine),
    .abi = LOCKSTEP_MACHINE_ABI,
    .name = "counter",
    .version = "1",
    .open = counter_open,
    .close = counter_close,
    .apply = counter_apply,
    .query = counter_query,
    .hash = counter_hash,
    .snapshot_begin = counter_snapshot_begin,
    .snapshot_write = counter_snapshot_write,
    .snapshot_end = counter_snapshot_end,
    .restore = counter_restore,
};
