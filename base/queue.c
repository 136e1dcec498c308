/* SPDX-License-Identifier: Apache-2.0 */
/* queue.c - see queue.h. */
#include "base/queue.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics without a lock");

enum { RECORD_BYTES_MAX = 65536 };

static uint64_t power_of_two_from(uint64_t count)
{
    lk_assert(count > 0);
    lk_assert(count <= UINT64_C(1) << 31);
    uint64_t power = 1;
    while (power < count) power *= 2;
    return power;
}

static uint8_t *allocate(uint64_t count, size_t each_bytes)
{
    size_t line = QUEUE_CACHE_LINE_BYTES;
    size_t bytes = ((size_t)count * each_bytes + line - 1) / line * line;
    uint8_t *memory = aligned_alloc(line, bytes);
    if (memory != NULL) memset(memory, 0, bytes); /* touched now: no page faults on the data path */
    return memory;
}

bool spsc_open(struct spsc *queue, uint64_t capacity, size_t record_bytes)
{
    lk_assert(record_bytes > 0);
    lk_assert(record_bytes <= RECORD_BYTES_MAX);
    memset(queue, 0, sizeof *queue);
    uint64_t rounded = power_of_two_from(capacity);
    queue->records = allocate(rounded, record_bytes);
    if (queue->records == NULL) return false;
    queue->capacity = rounded;
    queue->record_bytes = record_bytes;
    return true;
}

void spsc_close(struct spsc *queue)
{
    free(queue->records);
    memset(queue, 0, sizeof *queue);
}

static uint8_t *spsc_record(const struct spsc *queue, uint64_t number)
{
    return queue->records + (number & (queue->capacity - 1)) * queue->record_bytes;
}

uint64_t spsc_room(struct spsc *queue)
{
    uint64_t pushed = atomic_load_explicit(&queue->pushed, memory_order_relaxed); /* our own */
    /* acquire: pairs with the release in spsc_try_pop(); the consumer has copied the record out before we overwrite it */
    queue->popped_seen = atomic_load_explicit(&queue->popped, memory_order_acquire);
    lk_assert(pushed - queue->popped_seen <= queue->capacity);
    return queue->capacity - (pushed - queue->popped_seen);
}

bool spsc_try_push(struct spsc *queue, const void *record)
{
    uint64_t pushed = atomic_load_explicit(&queue->pushed, memory_order_relaxed); /* our own */
    if (pushed - queue->popped_seen == queue->capacity && spsc_room(queue) == 0) return false;
    memcpy(spsc_record(queue, pushed), record, queue->record_bytes);
    /* release: pairs with the acquire in spsc_try_pop(); the record must be visible before the counter */
    atomic_store_explicit(&queue->pushed, pushed + 1, memory_order_release);
    return true;
}

bool spsc_try_pop(struct spsc *queue, void *ret_record)
{
    uint64_t popped = atomic_load_explicit(&queue->popped, memory_order_relaxed); /* our own */
    if (popped == queue->pushed_seen) {
        /* acquire: pairs with the release in spsc_try_push() */
        queue->pushed_seen = atomic_load_explicit(&queue->pushed, memory_order_acquire);
        if (popped == queue->pushed_seen) return false;
    }
    memcpy(ret_record, spsc_record(queue, popped), queue->record_bytes);
    /* release: pairs with the acquire in spsc_room(); the record is copied before its place is given back */
    atomic_store_explicit(&queue->popped, popped + 1, memory_order_release);
    return true;
}

uint64_t spsc_count(const struct spsc *queue)
{
    /* popped first: it cannot overtake a pushed that is read later. Acquire keeps the two loads in this order. */
    uint64_t popped = atomic_load_explicit(&queue->popped, memory_order_acquire);
    uint64_t pushed = atomic_load_explicit(&queue->pushed, memory_order_relaxed);
    uint64_t count = pushed - popped;
    return count < queue->capacity ? count
                                   : queue->capacity; /* pops between the two loads can make it look over-full */
}

/* An mpsc slot's turn says whose it is: number = free for push `number`; number + 1 = holds that record. After the pop
 * it becomes number + capacity: free for the push one lap later. */
static _Atomic uint64_t *mpsc_turn(const struct mpsc *queue, uint64_t number)
{
    return (_Atomic uint64_t *)(void *)(queue->slots + (number & (queue->capacity - 1)) * queue->slot_bytes);
}

static uint8_t *mpsc_record(const struct mpsc *queue, uint64_t number)
{
    return (uint8_t *)mpsc_turn(queue, number) + sizeof(uint64_t);
}

bool mpsc_open(struct mpsc *queue, uint64_t capacity, size_t record_bytes)
{
    lk_assert(record_bytes > 0);
    lk_assert(record_bytes <= RECORD_BYTES_MAX);
    memset(queue, 0, sizeof *queue);
    uint64_t rounded = power_of_two_from(capacity);
    if (rounded < 2) rounded = 2; /* with one slot, "holds record n" and "free for push n + 1" would be one number */
    size_t slot_bytes = sizeof(uint64_t) + (record_bytes + 7) / 8 * 8;
    queue->slots = allocate(rounded, slot_bytes);
    if (queue->slots == NULL) return false;
    queue->capacity = rounded;
    queue->record_bytes = record_bytes;
    queue->slot_bytes = slot_bytes;
    for (uint64_t i = 0; i < rounded; i++) atomic_init(mpsc_turn(queue, i), i);
    return true;
}

void mpsc_close(struct mpsc *queue)
{
    free(queue->slots);
    memset(queue, 0, sizeof *queue);
}

bool mpsc_try_push(struct mpsc *queue, const void *record)
{
    uint64_t number = atomic_load_explicit(&queue->claimed, memory_order_relaxed); /* a guess; the exchange checks it */
    for (;;) {
        /* acquire: pairs with the release in mpsc_try_pop(); the consumer has copied the old record out */
        uint64_t turn = atomic_load_explicit(mpsc_turn(queue, number), memory_order_acquire);
        if (turn == number) {
            /* relaxed: the claim orders nothing, the turn does; on failure number is the newer count */
            if (atomic_compare_exchange_weak_explicit(&queue->claimed, &number, number + 1, memory_order_relaxed,
                                                      memory_order_relaxed)) {
                break;
            }
        } else if (turn < number) {
            return false; /* still holds the record of one lap ago */
        } else {
            number = atomic_load_explicit(&queue->claimed, memory_order_relaxed); /* another producer was faster */
        }
    }
    memcpy(mpsc_record(queue, number), record, queue->record_bytes);
    /* release: pairs with the acquire in mpsc_try_pop(); the record must be visible before its turn */
    atomic_store_explicit(mpsc_turn(queue, number), number + 1, memory_order_release);
    return true;
}

bool mpsc_try_pop(struct mpsc *queue, void *ret_record)
{
    uint64_t number = queue->popped;
    /* acquire: pairs with the release in mpsc_try_push() */
    if (atomic_load_explicit(mpsc_turn(queue, number), memory_order_acquire) != number + 1) return false;
    memcpy(ret_record, mpsc_record(queue, number), queue->record_bytes);
    /* release: pairs with the acquire in mpsc_try_push(); the record is copied before its slot is given back */
    atomic_store_explicit(mpsc_turn(queue, number), number + queue->capacity, memory_order_release);
    queue->popped = number + 1;
    return true;
}
