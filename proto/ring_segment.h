/* SPDX-License-Identifier: Apache-2.0 */
/* ring_segment.h - the two pieces of memory that processes of one host share, and the only accesses to them.
 *
 * The ring's segment, a sealed memfd. Its node writes it (storage/ring.c); all others map it read-only (ring_reader.c):
 *     0          struct ring_segment: one page
 *     4096       index map: slot_count slots of 32 bytes, block i in slot i % slot_count
 *     bytes_at   the bytes, `bytes` of them, a power of two; the place of a position is position % bytes
 * A reader's slot, a sealed memfd of one page. The ring's node makes it and maps it read-only; its reader writes it.
 *
 * Every word has one writer, and all accesses are seq_cst: there is one order of them all, and `./dev ring` goes through
 * those that are possible. Nothing here is a lock: whoever dies or stops at any instruction leaves nobody waiting (S4).
 * S1  Bytes that were copied are used only after the head was looked at again. See ring_copy().
 * S2  The epoch is odd while term, role or a cut is being changed. An ack counts under the epoch it was written for.
 * S5  The other side may be anything: a reader checks every number before it uses it.
 * S7  Publish, then look whether somebody sleeps; say that one sleeps, then look whether something was published.
 * Source: Aeron's broadcast receiver (looks again after the copy), Lamport's "Concurrent Reading and Writing" (the epoch),
 * io_uring's NEED_WAKEUP (who sleeps). */
#ifndef LOCKSTEP_PROTO_RING_SEGMENT_H
#define LOCKSTEP_PROTO_RING_SEGMENT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/ids.h"

enum {
    RING_SEGMENT_MAGIC = 0x4752534c, /* "LSRG" */
    RING_SEGMENT_VERSION = 2,
    RING_SEGMENT_PAGE_BYTES = 4096,
    RING_BYTES_MIN = 65536,
    RING_BYTES_PER_SLOT = 256, /* 1/8 of the ring for the map: 2^18 slots of 32 bytes for 64 MiB */
};
#define RING_BYTES_MAX ((uint64_t)1 << 39)
static_assert(RING_BYTES_MAX / RING_BYTES_PER_SLOT <= UINT32_MAX,
              "its slots are counted in 32 bits: cut off, they were 0");

/* --- words -------------------------------------------------------------------------------------------------------- */

typedef _Atomic uint64_t ring_word;

#ifdef RING_STEPPED /* `./dev ring`: between any two accesses another process may go on */
uint64_t ring_word_load(const ring_word *word);
void ring_word_store(ring_word *word, uint64_t value);
uint64_t ring_word_copy(const ring_word *word);
#else
static inline uint64_t ring_word_load(const ring_word *word)
{
    return atomic_load(word);
}

static inline void ring_word_store(ring_word *word, uint64_t value)
{
    atomic_store(word, value);
}

static inline uint64_t ring_word_copy(const ring_word *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}
#endif

/* For its one writer alone: nobody else changes it, so nothing is to be ordered. */
static inline uint64_t ring_word_own(const ring_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Copy bytes of the ring that its writer may be writing over: what came is used only after the head was looked at again,
 * with ring_word_load(), and was not above the place (S1).
 * Why that is right. Writer: it stores the head, seq_cst, then loads the pins, seq_cst, and only then writes bytes over.
 *   x86   stores become visible in program order.
 *   ARM   the load of a pin (ldar) comes after the store of the head (stlr, both are RCsc), and what stands behind an ldar
 *         is done after it. Another processor that sees a byte of a new lap sees the head that made room for it.
 * Reader: each word is loaded with acquire, so that the load of the head that follows is done after all of them, by the
 * compiler as by the processor. Had one of the words been of a later lap, that head would be above the place.
 * Why words and no memcpy with a fence: a memcpy of what somebody writes is a data race in C11, sanitizers know no fences,
 * and 7 GB/s instead of 10 is more than anybody applies.
 * from, bytes: multiples of 8. */
static inline void ring_copy(uint8_t *to, const uint8_t *from, size_t bytes)
{
    const ring_word *word = (const ring_word *)(const void *)from;
    for (size_t i = 0; i < bytes / sizeof *word; i++) {
        uint64_t value = ring_word_copy(&word[i]);
        memcpy(to + i * sizeof value, &value, sizeof value);
    }
}

/* Its writer writes bytes that nobody may use yet: plain memory. bytes: a multiple of 8. */
static inline void ring_write(uint8_t *to, const uint8_t *from, size_t bytes)
{
#ifdef RING_STEPPED
    for (size_t i = 0; i < bytes; i += sizeof(ring_word)) {
        uint64_t value;
        memcpy(&value, from + i, sizeof value);
        ring_word_store((ring_word *)(void *)(to + i), value);
    }
#else
    memcpy(to, from, bytes);
#endif
}

/* --- the ring ----------------------------------------------------------------------------------------------------- */

/* The header page. What stands before `epoch` never changes. */
struct ring_segment {
    uint32_t magic, version;
    uint32_t group, slot_count;
    uint64_t bytes, bytes_at;
    uint64_t cluster_id; /* 0 = not known to its writer */
    raft_member member_id;
    uint64_t boot;
    /* Between two equal, even loads of the epoch (S3) these belong together. It is never 0. */
    ring_word epoch;
    ring_word term;
    ring_word leads;
    /* Monotone under one epoch, and stored in the order last_index's slot, tail, last_index, commit. */
    ring_word head, tail;
    ring_word commit, last_index;
    ring_word beat;   /* one more for each round of heartbeats; stored after round */
    ring_word round;  /* of the newest heartbeats; 0 = none under this term and role */
    ring_word sleeps; /* odd while the node sleeps: ring the bell, once for each value */
};
static_assert(offsetof(struct ring_segment, epoch) == 56, "version 2");
static_assert(sizeof(struct ring_segment) == 136 && sizeof(struct ring_segment) <= RING_SEGMENT_PAGE_BYTES, "one page");
static_assert(sizeof(ring_word) == 8 && ATOMIC_LLONG_LOCK_FREE == 2,
              "shared with processes that know nothing of our locks");

/* The writer stores 0 as index, the fields, and the index; a reader loads index, fields, index. */
struct ring_map_slot {
    ring_word index; /* 0 = empty or being written */
    ring_word term;
    ring_word pos;
    ring_word bytes_crc; /* bytes in the low half, header_crc in the high half */
};
static_assert(sizeof(struct ring_map_slot) == 32, "as documented");

/* Where a block lies. */
struct ring_slot {
    raft_index index;
    raft_term term;
    ring_pos pos;
    uint32_t bytes;
    uint32_t header_crc;
};

static inline uint32_t ring_segment_slots(uint64_t ring_bytes)
{
    return (uint32_t)(ring_bytes / RING_BYTES_PER_SLOT);
}

static inline uint64_t ring_segment_bytes_at(uint32_t slot_count)
{
    uint64_t end = RING_SEGMENT_PAGE_BYTES + (uint64_t)slot_count * sizeof(struct ring_map_slot);
    return (end + RING_SEGMENT_PAGE_BYTES - 1) & ~(uint64_t)(RING_SEGMENT_PAGE_BYTES - 1);
}

/* Memory that can be handed to another process and sealed, all of it reserved: ftruncate alone succeeds also where there is
 * none, and a later touch is a SIGBUS (T58). The caller closes it. -1: not enough memory, or descriptors. */
int ring_segment_make(const char *name, uint64_t bytes);
/* Map a segment of this geometry, its bytes twice in a row: contiguous at every place. NULL: no memory, or fd does not allow
 * it. munmap() of ring_segment_map_bytes() ends it. */
uint8_t *ring_segment_map(int fd, uint64_t bytes_at, uint64_t bytes, bool write);
size_t ring_segment_map_bytes(uint64_t bytes_at, uint64_t bytes);

static inline void ring_map_clear(struct ring_map_slot *slot)
{
    ring_word_store(&slot->index, 0);
}

static inline void ring_map_write(struct ring_map_slot *slot, const struct ring_slot *from)
{
    ring_map_clear(slot);
    ring_word_store(&slot->term, from->term);
    ring_word_store(&slot->pos, from->pos);
    ring_word_store(&slot->bytes_crc, (uint64_t)from->header_crc << 32 | from->bytes);
    ring_word_store(&slot->index, from->index);
}

/* False: another block, or none, or it is being written. Any thread or process. */
static inline bool ring_map_read(const struct ring_map_slot *slot, raft_index index, struct ring_slot *ret)
{
    if (index == 0 || ring_word_load(&slot->index) != index) return false;
    uint64_t term = ring_word_load(&slot->term), pos = ring_word_load(&slot->pos);
    uint64_t bytes_crc = ring_word_load(&slot->bytes_crc);
    if (ring_word_load(&slot->index) != index) return false;
    *ret = (struct ring_slot){.index = index,
                              .term = term,
                              .pos = pos,
                              .bytes = (uint32_t)bytes_crc,
                              .header_crc = (uint32_t)(bytes_crc >> 32)};
    return true;
}

/* --- a reader's slot ---------------------------------------------------------------------------------------------- */

/* All words are the reader's. Zeros at first: it follows nobody. */
struct ring_reader_slot {
    ring_word epoch; /* of the ring, under which the next three hold; 0 = under none */
    ring_word durable_index, validated_index;
    ring_word round;
    ring_word position; /* how far it has read: lag in bytes is tail - position */
    ring_word lapped;   /* how often it was too late */
    ring_word sleeps;   /* as the ring's */
};
static_assert(sizeof(struct ring_reader_slot) == 56 && sizeof(struct ring_reader_slot) <= RING_SEGMENT_PAGE_BYTES,
              "one page");

/* What a reader has of a ring: durable = min(its durable mark, the last block validated from this ring under this epoch). */
struct ring_ack {
    uint64_t epoch;
    raft_index durable, validated;
    uint64_t round;
};

static inline bool ring_acks_equal(const struct ring_ack *a, const struct ring_ack *b)
{
    return a->epoch == b->epoch && a->durable == b->durable && a->validated == b->validated && a->round == b->round;
}

/* Reader. Under a new epoch the old numbers go before its epoch comes, so that whoever loads the epoch first never sees them
 * under it. epoch 0: nothing counts any more. */
static inline void ring_ack_store(struct ring_reader_slot *slot, const struct ring_ack *ack)
{
    if (ring_word_own(&slot->epoch) != ack->epoch) {
        ring_word_store(&slot->durable_index, 0);
        ring_word_store(&slot->validated_index, 0);
        ring_word_store(&slot->round, 0);
        ring_word_store(&slot->epoch, ack->epoch);
    }
    if (ack->epoch == 0) return;
    ring_word_store(&slot->round, ack->round);
    ring_word_store(&slot->validated_index, ack->validated);
    ring_word_store(&slot->durable_index, ack->durable);
}

/* The ring's node, epoch: its ring's own, even. False: the reader does not follow under it. What comes is the reader's word:
 * to be judged as an ack from the wire. */
static inline bool ring_ack_load(const struct ring_reader_slot *slot, uint64_t epoch, struct ring_ack *ret)
{
    if (ring_word_load(&slot->epoch) != epoch) return false;
    uint64_t durable = ring_word_load(&slot->durable_index), validated = ring_word_load(&slot->validated_index);
    *ret = (struct ring_ack){
        .epoch = epoch, .durable = durable, .validated = validated, .round = ring_word_load(&slot->round)};
    return true;
}

/* --- who sleeps --------------------------------------------------------------------------------------------------- */

/* Its owner: after `true` it looks at everything once more, and only then sleeps; `false` when it is awake. */
static inline void ring_sleeps_store(ring_word *sleeps, bool asleep)
{
    uint64_t value = ring_word_own(sleeps);
    if ((value % 2 == 1) != asleep) ring_word_store(sleeps, value + 1);
}

/* Whoever has published something, after that. *rung: kept for each sleeper, 0 at first. True: ring its bell now. */
static inline bool ring_sleeps_look(const ring_word *sleeps, uint64_t *rung)
{
    uint64_t value = ring_word_load(sleeps);
    if (value % 2 == 0 || value == *rung) return false;
    *rung = value;
    return true;
}

#endif
