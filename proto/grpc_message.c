/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_message.c - five bytes of prefix, then the message. */
#include "proto/grpc_message.h"

#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Once the whole prefix is here: what it says, checked. */
static int prefix_check(struct grpc_inbox *inbox, size_t message_bytes_max)
{
    const uint8_t *p = inbox->prefix;
    inbox->length = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    if (p[0] != 0) return LOCKSTEP_EINVAL;
    if (inbox->length > message_bytes_max) return LOCKSTEP_ETOOBIG;
    return 0;
}

static int prefix_take(struct grpc_inbox *inbox, size_t message_bytes_max, const uint8_t **at, size_t *n)
{
    size_t count = smaller(GRPC_PREFIX_BYTES - (size_t)inbox->prefix_bytes, *n);
    memcpy(inbox->prefix + inbox->prefix_bytes, *at, count);
    inbox->prefix_bytes = (uint8_t)(inbox->prefix_bytes + count);
    *at += count;
    *n -= count;
    return inbox->prefix_bytes < GRPC_PREFIX_BYTES ? 0 : prefix_check(inbox, message_bytes_max);
}

enum { ASSEMBLY_BYTES_MIN = 1024 };

static int body_hold(struct grpc_inbox *inbox, struct pool_budget *budget, const uint8_t **at, size_t *n)
{
    size_t count = smaller(inbox->length - inbox->held, *n);
    size_t needed = inbox->held + count;
    if (needed > inbox->room) {
        size_t room = 2 * needed;
        if (room < ASSEMBLY_BYTES_MIN) room = ASSEMBLY_BYTES_MIN;
        room = smaller(room, inbox->length);
        uint8_t *bytes = pool_resize(budget, inbox->bytes, room);
        if (bytes == NULL) return LOCKSTEP_ENOMEM;
        inbox->bytes = bytes;
        inbox->room = room;
    }
    memcpy(inbox->bytes + inbox->held, *at, count);
    inbox->held += count;
    *at += count;
    *n -= count;
    return 0;
}

int grpc_inbox_next(struct grpc_inbox *inbox, struct pool_budget *budget, size_t message_bytes_max, const uint8_t **at,
                    size_t *n, const uint8_t **message, size_t *message_bytes)
{
    if (inbox->delivered) grpc_inbox_close(inbox, budget);
    if (inbox->prefix_bytes < GRPC_PREFIX_BYTES) {
        if (*n == 0) return 0;
        int rc = prefix_take(inbox, message_bytes_max, at, n);
        if (rc != 0) return rc;
        if (inbox->prefix_bytes < GRPC_PREFIX_BYTES) return 0;
    }
    if (inbox->held == 0 && *n >= inbox->length) { /* whole, where it lies */
        *message = *at;
        *message_bytes = inbox->length;
        *at += inbox->length;
        *n -= inbox->length;
        inbox->prefix_bytes = 0;
        return 1;
    }
    if (*n == 0) return 0;
    int rc = body_hold(inbox, budget, at, n);
    if (rc != 0) return rc;
    if (inbox->held < inbox->length) return 0;
    *message = inbox->bytes;
    *message_bytes = inbox->length;
    inbox->prefix_bytes = 0;
    inbox->delivered = true;
    return 1;
}

size_t grpc_inbox_expected(const struct grpc_inbox *inbox)
{
    return inbox->prefix_bytes == GRPC_PREFIX_BYTES ? (size_t)inbox->length + GRPC_PREFIX_BYTES : 0;
}

bool grpc_inbox_idle(const struct grpc_inbox *inbox)
{
    return inbox->prefix_bytes == 0;
}

void grpc_inbox_close(struct grpc_inbox *inbox, struct pool_budget *budget)
{
    pool_give(budget, inbox->bytes);
    *inbox = (struct grpc_inbox){0};
}

struct grpc_chunk {
    struct grpc_chunk *next;
    uint32_t begin, end; /* of the bytes that wait */
    uint32_t room;
    uint8_t bytes[];
};

/* The first chunk fits its message, because most calls send one small message; later ones leave room for more. */
enum { CHUNK_ROOM = 4096 - 16 - sizeof(struct grpc_chunk) };

int grpc_outbox_claim(struct grpc_outbox *outbox, struct pool_budget *budget, size_t bytes_max, uint8_t **ret)
{
    lk_assert(bytes_max <= UINT32_MAX - GRPC_PREFIX_BYTES);
    size_t needed = bytes_max + GRPC_PREFIX_BYTES;
    struct grpc_chunk *chunk = outbox->last;
    if (chunk == NULL || chunk->room - chunk->end < needed) {
        size_t room = outbox->first == NULL || needed > CHUNK_ROOM ? needed : CHUNK_ROOM;
        chunk = pool_take(budget, sizeof *chunk + room);
        if (chunk == NULL) return LOCKSTEP_ENOMEM;
        *chunk = (struct grpc_chunk){.room = (uint32_t)room};
        if (outbox->last == NULL)
            outbox->first = chunk;
        else
            outbox->last->next = chunk;
        outbox->last = chunk;
    }
    *ret = chunk->bytes + chunk->end + GRPC_PREFIX_BYTES;
    return 0;
}

void grpc_outbox_commit(struct grpc_outbox *outbox, size_t bytes)
{
    struct grpc_chunk *chunk = outbox->last;
    lk_assert(chunk != NULL);
    lk_assert(bytes + GRPC_PREFIX_BYTES <= chunk->room - chunk->end);
    uint8_t *prefix = chunk->bytes + chunk->end;
    prefix[0] = 0;
    prefix[1] = (uint8_t)(bytes >> 24);
    prefix[2] = (uint8_t)(bytes >> 16);
    prefix[3] = (uint8_t)(bytes >> 8);
    prefix[4] = (uint8_t)bytes;
    chunk->end += (uint32_t)bytes + GRPC_PREFIX_BYTES;
    outbox->bytes += bytes + GRPC_PREFIX_BYTES;
}

static void drop_first(struct grpc_outbox *outbox, struct pool_budget *budget)
{
    struct grpc_chunk *chunk = outbox->first;
    outbox->first = chunk->next;
    if (outbox->first == NULL) outbox->last = NULL;
    pool_give(budget, chunk);
}

size_t grpc_outbox_read(struct grpc_outbox *outbox, struct pool_budget *budget, uint8_t *to, size_t room)
{
    size_t used = 0;
    while (used < room && outbox->bytes > 0) {
        struct grpc_chunk *chunk = outbox->first;
        size_t count = smaller(chunk->end - chunk->begin, room - used);
        memcpy(to + used, chunk->bytes + chunk->begin, count);
        chunk->begin += (uint32_t)count;
        used += count;
        outbox->bytes -= count;
        if (chunk->begin == chunk->end) drop_first(outbox, budget);
    }
    return used;
}

void grpc_outbox_close(struct grpc_outbox *outbox, struct pool_budget *budget)
{
    while (outbox->first != NULL) drop_first(outbox, budget);
    outbox->bytes = 0;
}
