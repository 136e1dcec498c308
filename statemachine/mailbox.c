/* SPDX-License-Identifier: Apache-2.0 */
/* mailbox.c - see mailbox.h. */
#include "statemachine/mailbox.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

/* Stands where a record's length would: skip to the beginning of the bytes. */
static const uint64_t GAP = UINT64_MAX;

bool mailbox_open(struct mailbox *box, uint64_t capacity)
{
    lk_assert(capacity >= 64);
    lk_assert((capacity & (capacity - 1)) == 0);
    memset(box, 0, sizeof *box);
    box->bytes = malloc(capacity); /* pages come as they are used: most of a large one never are */
    if (box->bytes == NULL) return false;
    box->capacity = capacity;
    return true;
}

void mailbox_close(struct mailbox *box)
{
    free(box->bytes);
    memset(box, 0, sizeof *box);
}

/* Bytes that a record takes. */
static uint64_t record_bytes(uint64_t bytes)
{
    return MAILBOX_RECORD_HEADER_BYTES + ((bytes + 7) & ~UINT64_C(7));
}

static uint8_t *place(const struct mailbox *box, uint64_t position)
{
    return box->bytes + (position & (box->capacity - 1));
}

/* Bytes to the end that a record of `bytes` would not fit into, and leaves unused. */
static uint64_t gap_before(const struct mailbox *box, uint64_t position, uint64_t bytes)
{
    uint64_t to_end = box->capacity - (position & (box->capacity - 1));
    return to_end < record_bytes(bytes) ? to_end : 0;
}

uint8_t *mailbox_claim(struct mailbox *box, uint64_t bytes)
{
    lk_assert(bytes <= mailbox_record_bytes_max(box->capacity));
    uint64_t tail = atomic_load_explicit(&box->tail, memory_order_relaxed); /* our own */
    uint64_t gap = gap_before(box, tail, bytes);
    uint64_t end = tail + gap + record_bytes(bytes);
    if (end - box->head_seen > box->capacity) {
        /* acquire: pairs with the store in mailbox_pop(); the consumer has read the bytes before we overwrite them */
        box->head_seen = atomic_load_explicit(&box->head, memory_order_acquire);
        if (end - box->head_seen > box->capacity) return NULL;
    }
    box->claimed = bytes;
    box->gap = gap;
    return place(box, tail + gap) + MAILBOX_RECORD_HEADER_BYTES;
}

void mailbox_publish(struct mailbox *box, uint64_t bytes)
{
    lk_assert(bytes <= box->claimed);
    uint64_t tail = atomic_load_explicit(&box->tail, memory_order_relaxed); /* our own */
    if (box->gap > 0) memcpy(place(box, tail), &GAP, sizeof GAP);
    tail += box->gap;
    box->claimed = box->gap = 0;
    memcpy(place(box, tail), &bytes, sizeof bytes);
    /* release: pairs with the acquire in mailbox_peek(); gap and record must be visible before the tail, and both at
     * once: a gap is never the last thing in the queue, so a pop behind which nothing is left leaves all of it free */
    atomic_store_explicit(&box->tail, tail + record_bytes(bytes), memory_order_release);
}

bool mailbox_await_room(struct mailbox *box, uint64_t bytes)
{
    uint64_t tail = atomic_load_explicit(&box->tail, memory_order_relaxed); /* our own */
    uint64_t wanted = gap_before(box, tail, bytes) + record_bytes(bytes);
    /* seq_cst, both: set the flag, then look at the head. The consumer moves the head, then looks at the flag. In the
     * one order of these four at least one side sees the other. */
    atomic_store(&box->wanted, wanted);
    box->head_seen = atomic_load(&box->head);
    if (box->capacity - (tail - box->head_seen) < wanted) return false;
    atomic_store(&box->wanted, 0);
    return true;
}

const uint8_t *mailbox_peek(struct mailbox *box, uint64_t *ret_bytes)
{
    uint64_t head = atomic_load_explicit(&box->head, memory_order_relaxed); /* our own */
    for (;;) {
        if (head == box->tail_seen) {
            /* acquire: pairs with the release in mailbox_publish() */
            box->tail_seen = atomic_load_explicit(&box->tail, memory_order_acquire);
            if (head == box->tail_seen) return NULL;
        }
        memcpy(ret_bytes, place(box, head), sizeof *ret_bytes);
        if (*ret_bytes != GAP) return place(box, head) + MAILBOX_RECORD_HEADER_BYTES;
        head += box->capacity - (head & (box->capacity - 1));
        /* release: the mark was read before its place is given back */
        atomic_store_explicit(&box->head, head, memory_order_release);
    }
}

bool mailbox_pop(struct mailbox *box)
{
    uint64_t head = atomic_load_explicit(&box->head, memory_order_relaxed); /* our own */
    lk_assert(head != box->tail_seen);
    uint64_t bytes;
    memcpy(&bytes, place(box, head), sizeof bytes);
    head += record_bytes(bytes);
    atomic_store(&box->head, head); /* seq_cst, before the flag is read: see mailbox_await_room() */
    uint64_t wanted = atomic_load(&box->wanted);
    if (wanted == 0) return false;
    /* Half empty before it is woken: else it would be woken for every record. An empty box is always enough. */
    uint64_t free_bytes = box->capacity - (atomic_load_explicit(&box->tail, memory_order_acquire) - head);
    if (free_bytes < wanted || free_bytes < box->capacity / 2) return false;
    atomic_store(&box->wanted, 0);
    return true;
}
