/* SPDX-License-Identifier: Apache-2.0 */
/* queue.h - bounded queues of fixed-size records between threads. Records go by value: nothing in a queue is freed by
 * somebody else. A full queue says so and stays as it was; what that means is its owner's written answer.
 * Thread: struct spsc: one producer, one consumer. struct mpsc: any number of producers, one consumer.
 * Owns: the records' memory, allocated at open, sized capacity * record (rounded up), never again.
 * Q1  A record that was pushed is popped once, whole; records of one producer are popped in the order pushed.
 * Q2  push and pop never wait, never allocate.
 * Q3  spsc: room that the producer has seen stays its own until it pushes. So a producer reserves by asking
 *     spsc_room() before it does what must not fail; with several producers there is no such promise.
 * A queue rings no bell: wake a sleeping consumer (eventfd, uv_async_send) after the push.
 * Source: Lamport's single-producer ring with cached counters (as in DPDK and Aeron); Vyukov's bounded MPMC queue,
 * with the consumer's side simplified for one consumer. */
#ifndef LOCKSTEP_BASE_QUEUE_H
#define LOCKSTEP_BASE_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QUEUE_CACHE_LINE_BYTES = 64 };

/* The gaps keep one thread's counters off the other's cache lines. Not alignas: a struct that holds a queue may then
 * come from malloc(). */
struct spsc {
    uint8_t *records;
    uint64_t capacity; /* a power of two */
    size_t record_bytes;
    uint8_t gap_before_producer[QUEUE_CACHE_LINE_BYTES];
    _Atomic uint64_t pushed; /* counters never wrap: 2^64 records do not happen */
    uint64_t popped_seen;    /* the producer's last look at popped: spares the other core's cache line */
    uint8_t gap_before_consumer[QUEUE_CACHE_LINE_BYTES];
    _Atomic uint64_t popped;
    uint64_t pushed_seen; /* the consumer's last look at pushed */
    uint8_t gap_behind[QUEUE_CACHE_LINE_BYTES];
};

struct mpsc {
    uint8_t *slots; /* capacity times {turn u64, record, padding to 8} */
    uint64_t capacity;
    size_t record_bytes, slot_bytes;
    uint8_t gap_before_producers[QUEUE_CACHE_LINE_BYTES];
    _Atomic uint64_t claimed; /* the next slot to fill */
    uint8_t gap_before_consumer[QUEUE_CACHE_LINE_BYTES];
    uint64_t popped;
    uint8_t gap_behind[QUEUE_CACHE_LINE_BYTES];
};

/* capacity      rounded up to a power of two, 1..2^31
 * record_bytes  1..65,536; copied with memcpy, so any struct without pointers that dangle
 * ret           false: no memory. Allocates. Before the threads start. */
bool spsc_open(struct spsc *queue, uint64_t capacity, size_t record_bytes);
bool mpsc_open(struct mpsc *queue, uint64_t capacity, size_t record_bytes);

/* After the threads have ended. Takes a zeroed queue too. */
void spsc_close(struct spsc *queue);
void mpsc_close(struct mpsc *queue);

/* ret     false: full; nothing was stored
 * Thread  spsc: the producer. mpsc: any. O(1). */
bool spsc_try_push(struct spsc *queue, const void *record);
bool mpsc_try_push(struct mpsc *queue, const void *record);

/* ret     false: empty, ret_record untouched. An mpsc queue also looks empty while the oldest push is half done: its
 *         producer rings the bell after it, so the consumer comes back.
 * Thread  the consumer. O(1). */
bool spsc_try_pop(struct spsc *queue, void *ret_record);
bool mpsc_try_pop(struct mpsc *queue, void *ret_record);

/* How many pushes will surely succeed now (Q3). Thread: the producer. */
uint64_t spsc_room(struct spsc *queue);

/* How many records wait, at most a moment old: for metrics and for deciding when to start work. Any thread. */
uint64_t spsc_count(const struct spsc *queue);

#endif
