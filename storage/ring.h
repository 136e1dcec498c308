/* SPDX-License-Identifier: Apache-2.0 */
/* ring.h - the hot end of the log: blocks, each written once, held by position by everyone else.
 * Thread: the loop is the only writer (claim, publish, cut, release). Any thread reads under a pin.
 * Owns: a sealed memfd, reserved at start, that other processes of the host may map and read: proto/ring_segment.h says
 * what lies where, proto/ring_reader.h reads it.
 *
 *   head                          tail
 *    |  committed, stored | live  |  claim (invisible) |
 *
 * Positions only grow; a place is position modulo size. A block is contiguous in memory. Bytes of cut blocks are
 * dead: they stay until the head passes, no position is ever used twice.
 * Bytes below the head are reused only where no pin stands (checked at claim). The writer never waits for a reader.
 * M4  The machine pins one batch, which has an end: the tail steps over it, so a machine that hangs costs its batch.
 * S2  The epoch is odd while term, role or a cut is being changed, and changes before anything of a new term touches
 *     the ring.
 * S5  Nothing read from another process is trusted; in this process a pin makes the bytes safe. */
#ifndef LOCKSTEP_STORAGE_RING_H
#define LOCKSTEP_STORAGE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "proto/block.h"
#include "proto/ring_segment.h" /* struct ring_slot */

struct ring;

struct ring_options {
    uint64_t bytes;           /* a power of two */
    uint32_t block_bytes_max; /* largest claim */
    uint32_t group;
    /* For readers in other processes: whose ring it is. 0 = not known. */
    uint64_t cluster_id;
    raft_member member_id;
    uint64_t boot;
};

/* Who may hold bytes in place. */
enum ring_pin_owner {
    RING_PIN_JOURNAL, /* submitted, not flushed */
    RING_PIN_MACHINE, /* the batch being applied: ring_pin_batch */
    RING_PIN_LOG,     /* the transaction being written */
    RING_PIN_PEER,    /* + peer slot: a running send */
    RING_PINS = RING_PIN_PEER + RAFT_MEMBERS_MAX,
};

int ring_open(const struct ring_options *options, struct ring **ret); /* EINVAL, ENOMEM */
void ring_close(struct ring *ring);                                   /* takes NULL */

/* Start empty behind `base`: the next block published must chain to it. Loop, before the first claim. */
void ring_start(struct ring *ring, const struct block_base *base);

/* Claim room for one block of at most `bytes` (header included) at the tail; invisible to readers until published.
 * ret  8-byte aligned, contiguous, still owned by the ring. One open claim at a time.
 * Bytes that only the machine's batch holds are stepped over; they stay as a gap, as cut blocks do.
 * EFULL: bytes still needed are in the way, or the index map is full. Loop. Never blocks, never allocates. */
int ring_claim(struct ring *ring, uint32_t bytes, uint8_t **ret);
/* The claimed block is sealed and whole: header->bytes <= claimed bytes. It becomes index last + 1. Loop. */
void ring_publish(struct ring *ring, const struct block_header *header);
void ring_abandon(struct ring *ring);

/* How many of `bytes` surely can be claimed now, by one claim or by many in a row. The head moves for them, so that a pin
 * that comes meanwhile cannot take the room away. A cut can: it makes dead bytes, and then room is kept to publish the
 * uncommitted blocks once more (R10). Loop. */
uint64_t ring_room(struct ring *ring, uint64_t bytes);
/* The same for bytes alone, however many blocks they are. */
uint64_t ring_room_bytes(struct ring *ring, uint64_t bytes);

/* Blocks at or above index are dead. The caller stands between ring_epoch_begin and ring_epoch_end. Loop. */
void ring_cut(struct ring *ring, raft_index index);
/* Everything held is dead; the next block published must chain to base, which is above the commit and counts as
 * committed. Between epoch_begin and epoch_end, no claim open, and nobody reads by index any more. Loop. */
void ring_restart(struct ring *ring, const struct block_base *base);
/* Publish the blocks first..last, all above the commit, again behind the dead bytes, so that the head can pass those (rule R10).
 * Between epoch_begin and epoch_end. EFULL: no room even for that. Loop. */
int ring_republish(struct ring *ring, raft_index first);

void ring_epoch_begin(struct ring *ring);                           /* odd */
void ring_epoch_end(struct ring *ring, raft_term term, bool leads); /* even, with the new term and role */
uint64_t ring_epoch(const struct ring *ring);                       /* never 0. Loop */
void ring_commit(struct ring *ring, raft_index commit);

/* For readers in other processes. Loop, each O(1). */
int ring_fd(const struct ring *ring); /* stays the ring's; -1: this kernel cannot seal it, it is handed to nobody */
void ring_beat(struct ring *ring, uint64_t round); /* a round of heartbeats, instead of sending it */
/* S7: after `true` the loop looks at everything once more, and only then sleeps. */
void ring_sleeps(struct ring *ring, bool asleep);

/* Blocks up to index are flushed and in LMDB: the head may pass them. Loop. */
void ring_release(struct ring *ring, raft_index stored);

/* Look up a block. ENOTFOUND: not (or no longer) in the ring. Any thread; off the loop only for committed blocks. */
int ring_find(const struct ring *ring, raft_index index, struct ring_slot *ret);
/* The last published block, or the base it started behind. Loop. */
struct block_base ring_last(const struct ring *ring);
raft_index ring_first_index(const struct ring *ring); /* oldest block held; last + 1 if none */
/* Bytes of blocks first..*ret_last within budget, at least one block; 0 if first is not in the ring. Loop.
 * Blocks lie behind each other without gaps in this range (*ret_last stops at a gap): one range of bytes. */
uint64_t ring_pack(const struct ring *ring, raft_index first, raft_index last, uint64_t budget_bytes,
                   raft_index *ret_last);

/* The bytes at a position, contiguous for a whole block, and for a whole range that ring_pack returned. */
const uint8_t *ring_at(const struct ring *ring, ring_pos pos);

/* Hold everything at and above pos. One pin an owner, not the machine; a second call moves it. Up is always possible, also past the head:
 * what is held stays readable however far the head has gone. ELAPPED: pos lies below the head and below the present
 * pin; the present pin, if there is one, stays. Any thread, one thread an owner. */
int ring_pin(struct ring *ring, unsigned owner, ring_pos pos);
void ring_unpin(struct ring *ring, unsigned owner);
/* The machine's pin: hold pos..end, a whole block or several. Called again with the same pos and a higher end, it grows.
 * After ring_unpin the next batch lies higher. ELAPPED: the head has passed what is new; what was held stays held.
 * Machine's thread. */
int ring_pin_batch(struct ring *ring, ring_pos pos, ring_pos end);

/* The lowest position that this owner holds; UINT64_MAX: it holds nothing. Any thread. */
ring_pos ring_pinned(const struct ring *ring, unsigned owner);

struct ring_status {
    ring_pos head, tail;
    uint64_t bytes, live_bytes, dead_bytes;
};
void ring_status_read(const struct ring *ring, struct ring_status *ret);

#endif
