/* SPDX-License-Identifier: Apache-2.0 */
/* ring.c - see ring.h; the layout of what other processes map is proto/ring_segment.h.
 * Thread: the loop writes; any thread reads under a pin. Owns: the segment and its mappings.
 *
 * Head and pins (S6: the writer never waits). The head moves only when a claim needs room, so that old blocks stay
 * readable as long as possible. Writer: store head (seq_cst), then look at the pins. Reader: store pin (seq_cst), then
 * look at the head. In the one order of these four one of both sees the other: either the reader sees that it came too
 * late, or the writer sees the pin and leaves the bytes alone (hazard pointers, Michael 2004). So what the writer once
 * found free stays free, whatever pins come: it looks again only when that is used up.
 *
 * The machine's batch (M4) is a pin with an end. When the tail comes round to it, the next block is put behind it:
 *
 *      tail                 held                                limit
 *       |  free: what fits   |  batch, as it was laps before     |  free  |
 *       +-- dead if the block does not fit ----------------------+
 *
 * The gap needs no padding frame: every reader finds blocks by their index, and a cut leaves such gaps, too.
 *
 * Readers in other processes hold no pin: they copy, and look at the head again behind it (ring_copy() says why that is
 * enough).
 *
 * Slots off the loop: a reader takes the index, the fields, and the index again; the writer clears the index, writes
 * the fields and sets the index; so a slot that is being overwritten shows another index.
 * Source: Aeron's log buffers (positions, never pointers), LMAX (sequence claims), io_uring (mapped rings). */
#include "storage/ring.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>

#include "base/assert.h"
#include "lockstep/errors.h"

/* A pin holds everything at and above its position; this value holds nothing. */
static const ring_pos PIN_NONE = UINT64_MAX;

struct ring {
    uint8_t *mapping;
    size_t mapping_bytes;
    struct ring_segment *segment;
    struct ring_map_slot *slots;
    uint8_t *bytes_at;
    int fd;
    uint64_t bytes;
    uint32_t slot_count, block_bytes_max;
    bool sealed; /* may be handed out */

    /* The loop's own. Blocks first..last.index are held; those up to released may go when room is needed. */
    ring_pos head, tail;
    struct block_base before_first, last;
    raft_index first, released, commit;
    uint64_t held_bytes;        /* of blocks first..last */
    uint64_t live_bytes;        /* of blocks above released */
    uint64_t uncommitted_bytes; /* of blocks above commit */
    uint64_t claimed_bytes;     /* 0 = no open claim */
    ring_pos claimed_pos;
    ring_pos cut_end; /* no bytes of cut blocks lie at or above it */
    /* What the last look at the pins found free behind the tail: up to limit, without held..held_end. */
    ring_pos limit, held, held_end;

    _Atomic uint64_t pins[RING_PINS];
    _Atomic uint64_t batch_end; /* of the machine's pin */
};

static struct ring_map_slot *slot_of(const struct ring *ring, raft_index index)
{
    return &ring->slots[index % ring->slot_count];
}

/* A block that the loop knows to be held. */
static struct ring_slot held_slot(const struct ring *ring, raft_index index)
{
    struct ring_slot slot;
    bool found = ring_map_read(slot_of(ring, index), index, &slot);
    lk_assert(found);
    return slot;
}

static int reserve_memory(struct ring *ring, uint64_t bytes_at)
{
    ring->fd = ring_segment_make("lockstep-ring", bytes_at + ring->bytes);
    if (ring->fd < 0) return LOCKSTEP_ENOMEM;
    ring->mapping = ring_segment_map(ring->fd, bytes_at, ring->bytes, true);
    if (ring->mapping == NULL) return LOCKSTEP_ENOMEM;
    ring->mapping_bytes = ring_segment_map_bytes(bytes_at, ring->bytes);
    /* What is mapped for writing stays so; nobody who is handed the descriptor can write, or take memory away under a reader.
     * A kernel before 5.1 knows no FUTURE_WRITE: then nobody is handed it. */
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
    ring->sealed = fcntl(ring->fd, F_ADD_SEALS, seals) == 0;
    return 0;
}

int ring_open(const struct ring_options *options, struct ring **ret)
{
    bool power_of_two = options->bytes != 0 && (options->bytes & (options->bytes - 1)) == 0;
    if (!power_of_two || options->bytes < RING_BYTES_MIN || options->bytes > RING_BYTES_MAX) return LOCKSTEP_EINVAL;
    if (options->block_bytes_max < BLOCK_HEADER_BYTES || options->block_bytes_max > options->bytes / 2) {
        return LOCKSTEP_EINVAL;
    }
    struct ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) return LOCKSTEP_ENOMEM;
    ring->fd = -1;
    ring->bytes = options->bytes;
    ring->block_bytes_max = options->block_bytes_max;
    ring->slot_count = ring_segment_slots(options->bytes);
    uint64_t bytes_at = ring_segment_bytes_at(ring->slot_count);
    int rc = reserve_memory(ring, bytes_at);
    if (rc != 0) goto fail;
    ring->segment = (struct ring_segment *)(void *)ring->mapping;
    ring->slots = (struct ring_map_slot *)(void *)(ring->mapping + RING_SEGMENT_PAGE_BYTES);
    ring->bytes_at = ring->mapping + bytes_at;
    ring->segment->magic = RING_SEGMENT_MAGIC;
    ring->segment->version = RING_SEGMENT_VERSION;
    ring->segment->group = options->group;
    ring->segment->slot_count = ring->slot_count;
    ring->segment->bytes = ring->bytes;
    ring->segment->bytes_at = bytes_at;
    ring->segment->cluster_id = options->cluster_id;
    ring->segment->member_id = options->member_id;
    ring->segment->boot = options->boot;
    ring_word_store(&ring->segment->epoch, 2); /* 0 is a reader's for "none" */
    for (unsigned i = 0; i < RING_PINS; i++) atomic_init(&ring->pins[i], PIN_NONE);
    ring_start(ring, &(struct block_base){.next_position = 1});
    *ret = ring;
    return 0;
fail:
    ring_close(ring);
    return rc;
}

void ring_close(struct ring *ring)
{
    if (ring == NULL) return;
    if (ring->mapping != NULL) munmap(ring->mapping, ring->mapping_bytes);
    if (ring->fd >= 0) close(ring->fd);
    free(ring);
}

/* What is free behind the tail as head and pins stand now. The head is visible already. */
static void look_at_pins(struct ring *ring)
{
    ring_pos lowest = ring->head;
    for (unsigned i = 0; i < RING_PINS; i++) {
        if (i == RING_PIN_MACHINE) continue;
        /* seq_cst: pairs with ring_pin(), see the head of this file. */
        ring_pos pin = atomic_load(&ring->pins[i]);
        if (pin < lowest) lowest = pin;
    }
    ring->limit = lowest + ring->bytes;
    ring->held = ring->held_end = PIN_NONE;
    ring_pos batch = atomic_load(&ring->pins[RING_PIN_MACHINE]);
    if (batch == PIN_NONE) return;
    /* seq_cst, and after the pin: ring_pin_batch() stores them the other way round, so this end is not too low. */
    ring_pos batch_end = atomic_load(&ring->batch_end);
    lk_assert(batch_end <= ring->tail);
    /* The same bytes of memory, where the tail meets them next. */
    uint64_t laps = ((ring->tail - batch_end) / ring->bytes + 1) * ring->bytes;
    ring->held = batch + laps;
    ring->held_end = batch_end + laps;
}

void ring_start(struct ring *ring, const struct block_base *base)
{
    lk_assert(ring->tail == 0);
    lk_assert(ring->claimed_bytes == 0);
    ring->before_first = *base;
    ring->last = *base;
    ring->first = base->index + 1;
    ring->released = base->index;
    ring->commit = base->index;
    look_at_pins(ring);
    ring_word_store(&ring->segment->last_index, base->index);
    ring_word_store(&ring->segment->commit, base->index);
}

/* While bytes of cut blocks lie among the uncommitted ones, room is kept to publish those once more (R10): else blocks
 * that cannot be stored yet would hold dead bytes in place for ever. Without such bytes there is nothing to win by it,
 * and a cut that makes some finds at least the three quarters of the ring that R10's bound leaves to others. What the
 * tail stepped over does not count: it is at most a batch and a block. */
static uint64_t reserve_bytes(const struct ring *ring)
{
    if (ring->commit == ring->last.index) return 0;
    return held_slot(ring, ring->commit + 1).pos < ring->cut_end ? ring->uncommitted_bytes : 0;
}

static ring_pos first_held_pos(const struct ring *ring)
{
    return ring->first <= ring->last.index ? held_slot(ring, ring->first).pos : ring->tail;
}

/* The oldest held block gives its place up, and the dead bytes behind it go with it. */
static void drop_first(struct ring *ring)
{
    lk_assert(ring->first <= ring->released);
    struct ring_slot slot = held_slot(ring, ring->first);
    struct block_header header;
    memcpy(&header, ring_at(ring, slot.pos), sizeof header);
    ring->before_first = block_base_after(&header);
    ring_map_clear(slot_of(ring, ring->first));
    ring->held_bytes -= slot.bytes;
    ring->first++;
    ring->head = first_held_pos(ring);
}

static bool slots_full(const struct ring *ring)
{
    return ring->last.index + 1 - ring->first >= ring->slot_count;
}

/* How many bytes surely fit behind the tail, in one block or in many of any size. Where the machine's batch lies between,
 * the last block in front of it may not fit there. */
static uint64_t free_bytes(const struct ring *ring)
{
    ring_pos tail = ring->tail, limit = ring->limit;
    if (limit <= tail) return 0;
    if (ring->held >= limit || ring->held_end <= tail) return limit - tail;
    uint64_t before = ring->held > tail ? ring->held - tail : 0;
    uint64_t behind = limit > ring->held_end ? limit - ring->held_end : 0;
    uint64_t most = before > behind ? before : behind, less = before + behind - most;
    return less > ring->block_bytes_max ? before + behind - ring->block_bytes_max : most;
}

/* Where the next block of `bytes` goes: at the tail, or behind the machine's batch. */
static ring_pos next_pos(const struct ring *ring, uint64_t bytes)
{
    bool meets = ring->held_end > ring->tail && ring->held < ring->tail + bytes;
    return meets ? ring->held_end : ring->tail;
}

/* Move the head until `bytes` are free behind the tail and the slot of the next block is, or until it may go no further. */
static void make_room(struct ring *ring, uint64_t bytes)
{
    uint64_t room = free_bytes(ring), span = bytes; /* between head and the head of the next lap */
    if (room >= bytes && !slots_full(ring)) return;
    for (;;) {
        ring->head = first_held_pos(ring);
        while (ring->first <= ring->released && (ring->tail + span - ring->head > ring->bytes || slots_full(ring))) {
            drop_first(ring);
        }
        ring_word_store(&ring->segment->head, ring->head); /* seq_cst, before the pins are read */
        look_at_pins(ring);
        room = free_bytes(ring);
        bool pins_are_lower = ring->limit < ring->head + ring->bytes;
        if (room >= bytes || ring->first > ring->released || pins_are_lower) return;
        span = ring->limit - ring->tail + (bytes - room); /* the machine's batch takes some of it */
    }
}

int ring_claim(struct ring *ring, uint32_t bytes, uint8_t **ret)
{
    lk_assert(ring->claimed_bytes == 0);
    lk_assert(bytes >= BLOCK_HEADER_BYTES);
    lk_assert(bytes <= ring->block_bytes_max);
    uint64_t claim = ((uint64_t)bytes + 7) & ~(uint64_t)7;
    uint64_t reserve = reserve_bytes(ring);
    uint64_t need = reserve == 0 ? claim : reserve + 2 * claim; /* the new block would be published again too */
    make_room(ring, need);
    if (free_bytes(ring) < need || slots_full(ring)) return LOCKSTEP_EFULL;
    ring->claimed_bytes = claim;
    ring->claimed_pos = next_pos(ring, claim);
    lk_assert(ring->claimed_pos + claim <= ring->limit);
    *ret = ring->bytes_at + ring->claimed_pos % ring->bytes;
    return 0;
}

/* The block lies at pos, at the tail or behind it: give it its slot and move the tail. */
static void publish_at(struct ring *ring, ring_pos pos, const struct block_header *header)
{
    struct ring_slot slot = {.index = header->index,
                             .term = header->term,
                             .pos = pos,
                             .bytes = header->bytes,
                             .header_crc = header->header_crc};
    ring->tail = pos + header->bytes;
    ring->last = block_base_after(header);
    ring->held_bytes += header->bytes;
    ring->live_bytes += header->bytes;
    ring->uncommitted_bytes += header->bytes;
    ring_map_write(slot_of(ring, header->index), &slot);
    /* The block and its slot, then the tail, then the index: whoever loads it finds all that it speaks of. */
    ring_word_store(&ring->segment->tail, ring->tail);
    ring_word_store(&ring->segment->last_index, header->index);
}

void ring_publish(struct ring *ring, const struct block_header *header)
{
    lk_assert(ring->claimed_bytes != 0);
    lk_assert(header->bytes <= ring->claimed_bytes);
    lk_assert(header->bytes % 8 == 0);
    lk_assert(block_chain_check(&ring->last, header) == 0);
    lk_assert(memcmp(ring->bytes_at + ring->claimed_pos % ring->bytes, header, sizeof *header) == 0);
    ring->claimed_bytes = 0;
    publish_at(ring, ring->claimed_pos, header);
}

void ring_abandon(struct ring *ring)
{
    lk_assert(ring->claimed_bytes != 0);
    ring->claimed_bytes = 0;
}

uint64_t ring_room_bytes(struct ring *ring, uint64_t bytes)
{
    uint64_t reserve = reserve_bytes(ring);
    bytes = (bytes + 7) & ~(uint64_t)7;
    if (bytes > ring->bytes) bytes = ring->bytes;
    make_room(ring, reserve == 0 ? bytes : reserve + 2 * bytes);
    uint64_t room = free_bytes(ring);
    if (reserve != 0) room = room > reserve ? (room - reserve) / 2 : 0; /* as in ring_claim() */
    room &= ~(uint64_t)7;
    return room < bytes ? room : bytes;
}

uint64_t ring_room(struct ring *ring, uint64_t bytes)
{
    uint64_t room = ring_room_bytes(ring, bytes);
    /* The smallest blocks take the most slots. Released blocks give theirs up one by one as claims come. */
    uint64_t slots = ring->slot_count - (ring->last.index - ring->released);
    return room < slots * BLOCK_HEADER_BYTES ? room : slots * BLOCK_HEADER_BYTES;
}

static void assert_epoch_odd(const struct ring *ring)
{
    lk_assert(ring_word_own(&ring->segment->epoch) % 2 == 1);
}

void ring_cut(struct ring *ring, raft_index index)
{
    assert_epoch_odd(ring);
    lk_assert(ring->claimed_bytes == 0);
    lk_assert(index > ring->commit);
    ring->cut_end = ring->tail;
    for (raft_index i = ring->last.index; i >= index; i--) {
        struct ring_slot slot = held_slot(ring, i);
        ring_map_clear(slot_of(ring, i));
        ring->held_bytes -= slot.bytes;
        ring->live_bytes -= slot.bytes;
        ring->uncommitted_bytes -= slot.bytes;
    }
    if (index > ring->last.index) return;
    ring_word_store(&ring->segment->last_index, index - 1);
    if (index == ring->first) {
        ring->last = ring->before_first;
        return;
    }
    struct block_header header;
    memcpy(&header, ring_at(ring, held_slot(ring, index - 1).pos), sizeof header);
    ring->last = block_base_after(&header);
}

void ring_restart(struct ring *ring, const struct block_base *base)
{
    assert_epoch_odd(ring);
    lk_assert(ring->claimed_bytes == 0);
    lk_assert(base->index > ring->commit);
    for (raft_index i = ring->first; i <= ring->last.index; i++) ring_map_clear(slot_of(ring, i));
    ring->before_first = ring->last = *base;
    ring->first = base->index + 1;
    ring->released = ring->commit = base->index;
    ring->held_bytes = ring->live_bytes = ring->uncommitted_bytes = 0;
    ring->cut_end = ring->tail;
    ring_word_store(&ring->segment->last_index, base->index);
    ring_word_store(&ring->segment->commit, base->index);
}

int ring_republish(struct ring *ring, raft_index first)
{
    assert_epoch_odd(ring);
    lk_assert(ring->claimed_bytes == 0);
    lk_assert(first > ring->commit);
    raft_index last = ring->last.index;
    uint64_t bytes = 0;
    for (raft_index i = first; i <= last; i++) bytes += held_slot(ring, i).bytes;
    make_room(ring, bytes);
    if (free_bytes(ring) < bytes) return LOCKSTEP_EFULL;
    for (raft_index i = first; i <= last; i++) {
        struct ring_slot slot = held_slot(ring, i);
        struct block_header header;
        ring_pos pos = next_pos(ring, slot.bytes);
        ring_write(ring->bytes_at + pos % ring->bytes, ring_at(ring, slot.pos), slot.bytes);
        memcpy(&header, ring_at(ring, pos), sizeof header);
        ring->held_bytes -= slot.bytes;
        ring->live_bytes -= slot.bytes;
        ring->uncommitted_bytes -= slot.bytes;
        publish_at(ring, pos, &header);
    }
    return 0;
}

void ring_epoch_begin(struct ring *ring)
{
    uint64_t epoch = ring_epoch(ring);
    lk_assert(epoch % 2 == 0);
    ring_word_store(&ring->segment->epoch, epoch + 1);
}

void ring_epoch_end(struct ring *ring, raft_term term, bool leads)
{
    assert_epoch_odd(ring);
    struct ring_segment *segment = ring->segment;
    /* Rounds are counted anew where somebody else begins to lead. */
    if (term != ring_word_own(&segment->term) || leads != ring_word_own(&segment->leads)) {
        ring_word_store(&segment->round, 0);
    }
    ring_word_store(&segment->term, term);
    ring_word_store(&segment->leads, leads);
    ring_word_store(&segment->epoch, ring_epoch(ring) + 1);
}

uint64_t ring_epoch(const struct ring *ring)
{
    return ring_word_own(&ring->segment->epoch);
}

void ring_beat(struct ring *ring, uint64_t round)
{
    ring_word_store(&ring->segment->round, round);
    ring_word_store(&ring->segment->beat, ring_word_own(&ring->segment->beat) + 1);
}

void ring_sleeps(struct ring *ring, bool asleep)
{
    ring_sleeps_store(&ring->segment->sleeps, asleep);
}

int ring_fd(const struct ring *ring)
{
    return ring->sealed ? ring->fd : -1;
}

void ring_commit(struct ring *ring, raft_index commit)
{
    lk_assert(commit <= ring->last.index);
    if (commit <= ring->commit) return;
    while (ring->commit < commit) {
        ring->commit++;
        ring->uncommitted_bytes -= held_slot(ring, ring->commit).bytes;
    }
    ring_word_store(&ring->segment->commit, commit);
}

void ring_release(struct ring *ring, raft_index stored)
{
    lk_assert(stored <= ring->commit);
    while (ring->released < stored) {
        ring->released++;
        ring->live_bytes -= held_slot(ring, ring->released).bytes;
    }
}

int ring_find(const struct ring *ring, raft_index index, struct ring_slot *ret)
{
    return ring_map_read(slot_of(ring, index), index, ret) ? 0 : LOCKSTEP_ENOTFOUND;
}

struct block_base ring_last(const struct ring *ring)
{
    return ring->last;
}

raft_index ring_first_index(const struct ring *ring)
{
    return ring->first;
}

uint64_t ring_pack(const struct ring *ring, raft_index first, raft_index last, uint64_t budget_bytes,
                   raft_index *ret_last)
{
    if (first < ring->first || first > ring->last.index || last < first) return 0;
    if (last > ring->last.index) last = ring->last.index;
    struct ring_slot slot = held_slot(ring, first);
    ring_pos start = slot.pos, end = slot.pos + slot.bytes;
    raft_index index = first;
    while (index < last) {
        slot = held_slot(ring, index + 1);
        if (slot.pos != end || slot.pos + slot.bytes - start > budget_bytes) break;
        end = slot.pos + slot.bytes;
        index++;
    }
    *ret_last = index;
    return end - start;
}

const uint8_t *ring_at(const struct ring *ring, ring_pos pos)
{
    return ring->bytes_at + pos % ring->bytes;
}

int ring_pin(struct ring *ring, unsigned owner, ring_pos pos)
{
    lk_assert(owner < RING_PINS && owner != RING_PIN_MACHINE);
    lk_assert(pos != PIN_NONE);
    ring_pos before = atomic_load_explicit(&ring->pins[owner], memory_order_relaxed);
    /* seq_cst: the store before the load of the head; see the head of this file. Giving bytes up is a release too: the
     * owner's reads of them come before the writer, who loads the pin, overwrites them. */
    atomic_store(&ring->pins[owner], pos);
    if (before <= pos) return 0; /* held all along */
    if (ring_word_load(&ring->segment->head) <= pos) return 0;
    atomic_store(&ring->pins[owner], before);
    return LOCKSTEP_ELAPPED;
}

int ring_pin_batch(struct ring *ring, ring_pos pos, ring_pos end)
{
    ring_pos before = atomic_load_explicit(&ring->pins[RING_PIN_MACHINE], memory_order_relaxed);
    ring_pos end_before = atomic_load_explicit(&ring->batch_end, memory_order_relaxed);
    lk_assert(before == PIN_NONE || before == pos);
    lk_assert(end_before <= end && pos < end);
    ring_pos new_from = before == PIN_NONE ? pos : end_before;
    /* The end first: a writer that sees this pin sees an end that covers it. All seq_cst, as in ring_pin(). */
    atomic_store(&ring->batch_end, end);
    if (before == PIN_NONE) atomic_store(&ring->pins[RING_PIN_MACHINE], pos);
    if (ring_word_load(&ring->segment->head) <= new_from) return 0;
    if (before == PIN_NONE) {
        ring_unpin(ring, RING_PIN_MACHINE);
    } else {
        atomic_store(&ring->batch_end, end_before);
    }
    return LOCKSTEP_ELAPPED;
}

void ring_unpin(struct ring *ring, unsigned owner)
{
    lk_assert(owner < RING_PINS);
    atomic_store(&ring->pins[owner], PIN_NONE);
}

ring_pos ring_pinned(const struct ring *ring, unsigned owner)
{
    lk_assert(owner < RING_PINS);
    return atomic_load_explicit(&ring->pins[owner], memory_order_relaxed); /* for people: nothing follows from it */
}

void ring_status_read(const struct ring *ring, struct ring_status *ret)
{
    ring_pos head = first_held_pos(ring);
    *ret = (struct ring_status){.head = head,
                                .tail = ring->tail,
                                .bytes = ring->bytes,
                                .live_bytes = ring->live_bytes,
                                .dead_bytes = ring->tail - head - ring->held_bytes};
}
