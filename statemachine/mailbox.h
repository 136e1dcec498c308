/* SPDX-License-Identifier: Apache-2.0 */
/* mailbox.h - a bounded queue of byte records of any length, from one thread to one other.
 * Thread: one producer, one consumer. Owns: its bytes, allocated and touched at open, never again.
 *
 *      head                       tail
 *   |   |  record | record | record | free   | gap |       a record: {bytes u64, bytes, padding to 8}, contiguous
 *
 * B1  A record is seen once, whole, in order. Its bytes are the consumer's until it is popped.
 * B2  Nothing waits. Full is an answer; who wants to sleep until there is room says so first (mailbox_await_room), and
 *     the consumer's pop tells it when to ring: no wake-up is lost, none is sent for every little record.
 * Why bytes and no records of fixed size (base/queue.h): replies and queries have 0 bytes to 1 MiB.
 * Source: Lamport's ring with cached counters; the sleeper flag of Dekker's kind, as io_uring's NEED_WAKEUP. */
#ifndef LOCKSTEP_STATEMACHINE_MAILBOX_H
#define LOCKSTEP_STATEMACHINE_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mailbox {
    uint8_t *bytes;
    uint64_t capacity; /* a power of two */
    uint8_t gap_before_producer[64];
    _Atomic uint64_t tail;
    _Atomic uint64_t wanted; /* free bytes that the producer sleeps for; 0 = it does not */
    uint64_t head_seen;      /* the producer's last look at head */
    uint64_t claimed, gap;   /* of the open claim: bytes at most, and bytes left unused in front of it */
    uint8_t gap_before_consumer[64];
    _Atomic uint64_t head;
    uint64_t tail_seen; /* the consumer's last look at tail */
    uint8_t gap_behind[64];
};

enum { MAILBOX_RECORD_HEADER_BYTES = 8 };

/* The longest record of a mailbox with this capacity: two always fit, so that one does behind any gap at the end. */
static inline uint64_t mailbox_record_bytes_max(uint64_t capacity)
{
    return capacity / 2 - MAILBOX_RECORD_HEADER_BYTES;
}

/* capacity  bytes; a power of two, at least 64. ret  false: no memory. Allocates. Before the threads start. */
bool mailbox_open(struct mailbox *box, uint64_t capacity);
void mailbox_close(struct mailbox *box); /* takes a zeroed one too */

/* --- the producer --- */

/* Room for a record of up to `bytes` (at most mailbox_record_bytes_max), 8-byte aligned; NULL: none now. Invisible until
 * published; claiming again takes the same place. */
uint8_t *mailbox_claim(struct mailbox *box, uint64_t bytes);
/* The record claimed last is complete; bytes <= what was claimed. */
void mailbox_publish(struct mailbox *box, uint64_t bytes);
/* Call before sleeping for room for a record of `bytes`. True: there is room by now, do not sleep. */
bool mailbox_await_room(struct mailbox *box, uint64_t bytes);

/* --- the consumer --- */

/* The oldest record; NULL: none. It stays there until popped. */
const uint8_t *mailbox_peek(struct mailbox *box, uint64_t *ret_bytes);
/* The record that peek returned is done with. True: the producer sleeps for room and now there is: wake it. */
bool mailbox_pop(struct mailbox *box);

#endif
