/* SPDX-License-Identifier: Apache-2.0 */
/* direct.c - see direct.h. */
#include "tests/support/direct.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

static const struct lockstep_command *take(struct lockstep_batch *batch)
{
    struct direct *direct = (struct direct *)(void *)((uint8_t *)batch - offsetof(struct direct, batch));
    if (direct->taken++ > 0) return NULL;
    return &direct->command;
}

static void answer(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code, const void *bytes,
                   size_t count)
{
    struct direct *direct = (struct direct *)(void *)((uint8_t *)replies - offsetof(struct direct, replies));
    lk_assert(direct->answered++ == 0);
    lk_assert(count <= LOCKSTEP_REPLY_BYTES_MAX);
    lk_assert(outcome != LOCKSTEP_OK || code == 0);
    lk_assert(outcome != LOCKSTEP_REJECT || code > 0);
    direct->outcome = outcome;
    direct->code = code;
    direct->reply_bytes = count;
    if (count > 0) memcpy(direct->reply, bytes, count);
    direct->reply[count] = 0;
}

static void log_line(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "machine: %s\n", line);
}

void direct_open(struct direct *direct, const struct lockstep_machine *table)
{
    memset(direct, 0, sizeof *direct);
    direct->table = table;
    direct->host = (struct lockstep_host){.size = sizeof direct->host, .abi = LOCKSTEP_MACHINE_ABI, .log = log_line};
    direct->batch = (struct lockstep_batch){.size = sizeof direct->batch, .next = take};
    direct->replies = (struct lockstep_replies){.size = sizeof direct->replies, .answer = answer};
    int rc = table->open(&direct->host, &direct->machine);
    lk_assert(rc == 0);
}

void direct_close(struct direct *direct)
{
    direct->table->close(direct->machine);
}

/* A copy whose first byte has an odd address and behind whose last byte the buffer ends. *ret_buffer is for free(). */
static uint8_t *odd_copy(const void *bytes, size_t count, void **ret_buffer)
{
    uint8_t *buffer = malloc(count + 1);
    lk_assert(buffer != NULL);
    if (count > 0) memcpy(buffer + 1, bytes, count);
    *ret_buffer = buffer;
    return buffer + 1;
}

static void begin(struct direct *direct)
{
    direct->taken = direct->answered = 0;
    direct->outcome = LOCKSTEP_OK;
    direct->code = 0;
    direct->reply_bytes = 0;
    direct->reply[0] = 0;
}

void direct_apply(struct direct *direct, const void *payload, size_t bytes)
{
    void *buffer;
    begin(direct);
    direct->position++;
    direct->command = (struct lockstep_command){
        .size = sizeof direct->command,
        .index = direct->position,
        .position = direct->position,
        .term = 1,
        .time_ns = direct->position * 1000,
        .payload = odd_copy(payload, bytes, &buffer),
        .payload_bytes = bytes,
    };
    int rc = direct->table->apply(direct->machine, &direct->batch, &direct->replies);
    free(buffer);
    lk_assert(rc == 0);
    lk_assert(direct->taken == 2); /* until NULL */
    lk_assert(direct->answered == 1);
}

void direct_query(struct direct *direct, const void *query, size_t bytes)
{
    void *buffer;
    begin(direct);
    uint8_t *copy = odd_copy(query, bytes, &buffer);
    int rc = direct->table->query(direct->machine, 0, copy, bytes, &direct->replies);
    free(buffer);
    lk_assert(rc == 0);
    lk_assert(direct->answered == 1);
}

struct lockstep_hash direct_hash(struct direct *direct)
{
    return direct->table->hash(direct->machine);
}

int32_t direct_say(struct direct *direct, const char *command)
{
    direct_apply(direct, command, strlen(command));
    return direct->code;
}

int32_t direct_ask(struct direct *direct, const char *query)
{
    direct_query(direct, query, strlen(query));
    return direct->code;
}

struct sink {
    struct lockstep_writer face; /* first */
    uint8_t *bytes;
    size_t count, room;
};

static int sink_write(struct lockstep_writer *writer, const void *bytes, size_t count)
{
    struct sink *sink = (struct sink *)(void *)writer;
    if (sink->count + count > sink->room) {
        sink->room = 2 * (sink->count + count);
        sink->bytes = realloc(sink->bytes, sink->room);
        lk_assert(sink->bytes != NULL);
    }
    memcpy(sink->bytes + sink->count, bytes, count);
    sink->count += count;
    return 0;
}

void *direct_freeze(struct direct *direct)
{
    void *frozen = NULL;
    int rc = direct->table->snapshot_begin(direct->machine, &frozen);
    lk_assert(rc == 0);
    return frozen;
}

uint8_t *direct_frozen_bytes(struct direct *direct, void *frozen, size_t *ret_bytes)
{
    struct sink sink = {.face = {.size = sizeof sink.face, .write = sink_write}};
    int rc = direct->table->snapshot_write(direct->machine, frozen, &sink.face);
    lk_assert(rc == 0);
    direct->table->snapshot_end(direct->machine, frozen);
    *ret_bytes = sink.count;
    return sink.bytes;
}

uint8_t *direct_snapshot(struct direct *direct, size_t *ret_bytes)
{
    return direct_frozen_bytes(direct, direct_freeze(direct), ret_bytes);
}

struct source {
    struct lockstep_reader face; /* first */
    const uint8_t *at;
    size_t left, piece;
};

static int source_read(struct lockstep_reader *reader, void *to, size_t room, size_t *ret_count)
{
    struct source *source = (struct source *)(void *)reader;
    size_t count = room < source->left ? room : source->left;
    if (count > source->piece) count = source->piece;
    memcpy(to, source->at, count);
    source->at += count;
    source->left -= count;
    *ret_count = count;
    return 0;
}

int direct_restore(struct direct *direct, const uint8_t *bytes, size_t count, size_t piece)
{
    struct source source = {
        .face = {.size = sizeof source.face, .read = source_read}, .at = bytes, .left = count, .piece = piece};
    return direct->table->restore(direct->machine, &source.face);
}
