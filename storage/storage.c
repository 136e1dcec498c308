/* SPDX-License-Identifier: Apache-2.0 */
/* storage.c - the loop's side of storage: persist, commit, reclaim, and the reader.
 * Thread: loop, but for the calls marked in the headers. Owns: the ring as its writer, the journal's pin, tickets.
 * J5  What is accepted can always be written once more, packed: storage_persist_fits() keeps that room free. */
#include "storage/storage.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/state.h"

enum { JOURNAL_OVERHEAD_BYTES = FRAME_HEADER_BYTES_MAX + FRAME_PAGE_BYTES }; /* a frame's header and padding */

struct ring *storage_ring(struct storage *s)
{
    return s->ring;
}

/* --- persist ---------------------------------------------------------------------------------------------------- */

static uint64_t blocks_in_frame_max(const struct storage *s)
{
    return s->shape.frame_bytes_max - FRAME_HEADER_BYTES_MAX;
}

/* Journal bytes that so many bytes of blocks take at most, as frames that are as full as blocks allow: two frames in a
 * row hold more than one frame can. */
static uint64_t journal_room_bytes(const struct storage *s, uint64_t blocks_bytes)
{
    uint64_t frames = 2 * (blocks_bytes / blocks_in_frame_max(s)) + 1;
    return blocks_bytes + frames * JOURNAL_OVERHEAD_BYTES;
}

/* J5: the room to write the live blocks once more. A lap may end with an unused piece. It is kept twice: for a pack, and
 * for the start after a crash that came before Q could pass what the pack made superfluous. */
static uint64_t packed_room_bytes(const struct storage *s, uint64_t live_bytes)
{
    return journal_room_bytes(s, live_bytes) + s->shape.frame_bytes_max;
}

bool storage_persist_fits(struct storage *s, uint64_t block_bytes)
{
    uint64_t outstanding = s->ticket - atomic_load_explicit(&s->durable_ticket, memory_order_acquire);
    uint64_t parts = block_bytes / blocks_in_frame_max(s) + 2;
    if (outstanding + parts > STORAGE_REQUESTS_BUSY) return false;

    /* taken first, end after it: what moved from one to the other meanwhile is counted twice, never missed. */
    uint64_t taken = atomic_load_explicit(&s->taken_room_bytes, memory_order_acquire);
    uint64_t end = atomic_load_explicit(&s->journal_end, memory_order_acquire);
    uint64_t span = journal_span(&s->shape);
    uint64_t used = end - atomic_load_explicit(&s->reclaimed, memory_order_relaxed) + s->submitted_room_bytes - taken;
    struct ring_status ring;
    ring_status_read(s->ring, &ring);
    uint64_t unsubmitted = ring.tail - s->submitted_pos; /* published in this turn */
    used += journal_room_bytes(s, unsubmitted) + journal_room_bytes(s, block_bytes);
    uint64_t packed = packed_room_bytes(s, ring.live_bytes + block_bytes);
    if (used + 2 * packed + storage_hard_state_room_bytes(s) <= span) return true;
    /* It may sleep, and where nothing more is written nothing else wakes it: a new leader waits here for its first block. */
    if (!atomic_exchange(&s->room_wanted, true)) s->wake(s->wake_context, STORAGE_LOG);
    return false;
}

static void submit(struct storage *s, struct request *request)
{
    request->ticket = ++s->ticket;
    struct ring_status ring;
    ring_status_read(s->ring, &ring);
    request->room_bytes = request->bytes + JOURNAL_OVERHEAD_BYTES;
    request->reserve_bytes = (request->pack ? 1 : 2) * packed_room_bytes(s, ring.live_bytes);
    s->submitted_room_bytes += request->room_bytes;
    s->tickets[s->ticket % STORAGE_REQUESTS_MAX] = (struct ticket){
        .persist_seq = s->persist_seq, .pos = request->count == 0 || request->pack ? UINT64_MAX : request->pos};
    bool pushed = spsc_try_push(&s->requests, request);
    lk_assert(pushed); /* storage_persist_fits() was asked */
}

/* Blocks first..last as requests of one contiguous range each. The caller's fields of *request go with each; those of a
 * whole persist (its seq) only with the last. Returns how many; submits none if `dry`. */
static uint32_t submit_ranges(struct storage *s, struct request *request, raft_index first, raft_index last, bool dry,
                              uint64_t last_persist_seq)
{
    uint32_t parts = 0;
    while (first <= last) {
        struct ring_slot slot, end;
        raft_index range_last = 0;
        uint64_t bytes = ring_pack(s->ring, first, last, blocks_in_frame_max(s), &range_last);
        lk_assert(bytes != 0 && bytes <= blocks_in_frame_max(s));
        parts++;
        if (!dry) {
            int rc = ring_find(s->ring, first, &slot);
            lk_assert(rc == 0);
            rc = ring_find(s->ring, range_last, &end);
            lk_assert(rc == 0);
            request->first = first;
            request->last = range_last;
            request->last_crc = end.header_crc;
            request->pos = slot.pos;
            request->bytes = (uint32_t)bytes;
            request->count = (uint32_t)(range_last - first + 1);
            if (range_last == last) s->persist_seq = last_persist_seq;
            request->pack_last = request->pack && range_last == last;
            submit(s, request);
            if (slot.pos + bytes > s->submitted_pos) s->submitted_pos = slot.pos + bytes;
            request->has_hard_state = false;
        }
        first = range_last + 1;
    }
    return parts;
}

/* Hold what the journal thread still reads: everything from the first block of the oldest request on that has some. */
static void move_pin(struct storage *s)
{
    uint64_t durable = atomic_load_explicit(&s->durable_ticket, memory_order_acquire);
    if (s->pack_ticket != 0 && durable >= s->pack_ticket) {
        s->pack_ticket = 0;
        atomic_store_explicit(&s->pack_queued, false, memory_order_release);
    }
    ring_pos pos = s->pack_ticket != 0 ? s->pack_pos : UINT64_MAX;
    for (uint64_t t = durable + 1; t <= s->ticket; t++) {
        ring_pos low = s->tickets[t % STORAGE_REQUESTS_MAX].pos;
        if (low == UINT64_MAX) continue;
        if (low < pos) pos = low;
        break; /* those behind it lie higher */
    }
    if (pos == UINT64_MAX) {
        ring_unpin(s->ring, RING_PIN_JOURNAL);
        return;
    }
    int rc = ring_pin(s->ring, RING_PIN_JOURNAL, pos);
    lk_assert(rc == 0); /* held since it was submitted, and then it was not released */
}

void storage_submit_install(struct storage *s, const struct block_base *base)
{
    struct request request = {.install = true, .last = base->index, .last_crc = base->crc, .commit = base->index};
    submit(s, &request);
    move_pin(s);
    s->wake(s->wake_context, STORAGE_JOURNAL);
}

void storage_persist(struct storage *s, const struct storage_persist *persist)
{
    lk_assert(persist->seq > s->persist_seq);
    lk_assert(persist->has_hard_state || persist->first != 0);
    struct request request = {
        .has_hard_state = persist->has_hard_state, .hard_state = persist->hard_state, .commit = persist->commit};
    if (persist->has_hard_state) s->hard_state = persist->hard_state;
    if (persist->first == 0) {
        s->persist_seq = persist->seq;
        submit(s, &request);
    } else {
        lk_assert(persist->first <= persist->last);
        lk_assert(persist->first <= s->submitted_last + 1);
        submit_ranges(s, &request, persist->first, persist->last, false, persist->seq);
        s->submitted_last = persist->last;
        s->submitted_crc = request.last_crc;
    }
    move_pin(s);
    s->wake(s->wake_context, STORAGE_JOURNAL);
}

uint64_t storage_persisted(const struct storage *s)
{
    /* acquire: pairs with the release store after the flush. */
    uint64_t durable = atomic_load_explicit(&s->durable_ticket, memory_order_acquire);
    return s->tickets[durable % STORAGE_REQUESTS_MAX].persist_seq;
}

/* --- commit and reclaim ----------------------------------------------------------------------------------------- */

void storage_commit(struct storage *s, raft_index commit)
{
    if (commit <= atomic_load_explicit(&s->commit, memory_order_relaxed)) return;
    ring_commit(s->ring, commit);
    struct ring_slot slot;
    int rc = ring_find(s->ring, commit, &slot);
    lk_assert(rc == 0);
    atomic_store(&s->commit, commit); /* seq_cst, then the flag: the log thread does it the other way round */
    bool enough = slot.pos + slot.bytes - s->log_woken_pos >= storage_enough_bytes(s);
    if (!atomic_exchange(&s->log_idle, false) && !enough) return;
    s->log_woken_pos = slot.pos + slot.bytes;
    s->wake(s->wake_context, STORAGE_LOG);
}

raft_index storage_stored(const struct storage *s)
{
    return atomic_load_explicit(&s->stored, memory_order_acquire);
}

/* What a pack makes superfluous of the journal. */
static uint64_t pack_frees(const struct storage *s)
{
    struct ring_status ring;
    ring_status_read(s->ring, &ring);
    uint64_t used = atomic_load_explicit(&s->journal_end, memory_order_acquire) -
                    atomic_load_explicit(&s->reclaimed, memory_order_relaxed);
    uint64_t packed = packed_room_bytes(s, ring.live_bytes);
    return used > packed ? used - packed : 0;
}

/* The log thread cannot move Q: all blocks that it does not have go to the journal's end once more (J5). */
static void pack(struct storage *s)
{
    if (s->pack_ticket != 0 || s->install.begun) return;
    raft_index stored = storage_stored(s);
    struct request request = {.has_hard_state = true,
                              .hard_state = s->hard_state,
                              .commit = atomic_load_explicit(&s->commit, memory_order_relaxed),
                              .pack = true};
    struct block_base last = ring_last(s->ring);
    if (last.index != s->submitted_last || last.crc != s->submitted_crc)
        return;                 /* a turn's work is half done: the next */
    if (stored >= last.index) { /* nothing is live: Q can move by itself */
        atomic_store_explicit(&s->pack_wanted, false, memory_order_relaxed);
        return;
    }
    struct ring_slot slot;
    int rc = ring_find(s->ring, stored + 1, &slot);
    lk_assert(rc == 0);
    uint64_t outstanding = s->ticket - atomic_load_explicit(&s->durable_ticket, memory_order_acquire);
    uint32_t parts = submit_ranges(s, &request, stored + 1, s->submitted_last, true, s->persist_seq);
    if (outstanding + parts > STORAGE_REQUESTS_BUSY) return; /* each that completes gives a turn */
    atomic_store_explicit(&s->pack_wanted, false, memory_order_relaxed);
    if (!atomic_load(&s->journal_waits) && pack_frees(s) < journal_span(&s->shape) / 16)
        return; /* nearly all is live */
    s->pack_pos = slot.pos;
    s->pack_ticket = s->ticket + parts;
    atomic_fetch_add_explicit(&s->packs, 1, memory_order_relaxed);
    submit_ranges(s, &request, stored + 1, s->submitted_last, false, s->persist_seq);
    atomic_store_explicit(&s->pack_queued, true, memory_order_release);
    s->wake(s->wake_context, STORAGE_JOURNAL);
}

void storage_reclaim(struct storage *s)
{
    move_pin(s);
    if (atomic_load_explicit(&s->pack_wanted, memory_order_acquire)) {
        pack(s);
        move_pin(s);
    }
    /* While an install is under way, what is stored may be ahead of what the ring knows. */
    if (!s->install.begun) ring_release(s->ring, storage_stored(s));
}

int storage_failed(const struct storage *s, const char **why)
{
    int error = atomic_load_explicit(&s->failed, memory_order_acquire);
    if (error != 0 && why != NULL) *why = atomic_load_explicit(&s->failed_why, memory_order_relaxed);
    return error;
}

void storage_status_read(const struct storage *s, struct storage_status *ret)
{
    *ret = (struct storage_status){
        .stored = storage_stored(s),
        .flushes = atomic_load_explicit(&s->flushes, memory_order_relaxed),
        .frames = atomic_load_explicit(&s->frame_count, memory_order_relaxed),
        .blocks = atomic_load_explicit(&s->block_count, memory_order_relaxed),
        .bytes = atomic_load_explicit(&s->block_bytes, memory_order_relaxed),
        .transactions = atomic_load_explicit(&s->transactions, memory_order_relaxed),
        .packs = atomic_load_explicit(&s->packs, memory_order_relaxed),
        .base = atomic_load_explicit(&s->base_index, memory_order_relaxed),
        .snapshot = atomic_load_explicit(&s->snapshot_index, memory_order_relaxed),
        .log_bytes = atomic_load_explicit(&s->blocks_bytes, memory_order_relaxed),
        .snapshots = atomic_load_explicit(&s->snapshots, memory_order_relaxed),
        .installs = atomic_load_explicit(&s->installs, memory_order_relaxed),
        .snapshot_failed = atomic_load_explicit(&s->snapshot_failed, memory_order_relaxed),
        .journal_bytes = s->shape.bytes,
        .journal_used_bytes = atomic_load_explicit(&s->journal_end, memory_order_relaxed) -
                              atomic_load_explicit(&s->reclaimed, memory_order_relaxed),
        .log_stalled = atomic_load_explicit(&s->log_stalled, memory_order_relaxed),
    };
}

/* --- the reader --------------------------------------------------------------------------------------------------- */

struct storage_reader {
    const struct storage *storage;
    struct kv_txn *txn;
    bool active;
};

int storage_reader_open(struct storage *s, struct storage_reader **ret)
{
    struct storage_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) return LOCKSTEP_ENOMEM;
    reader->storage = s;
    int rc = s->kv->begin_read(s->map, &reader->txn);
    if (rc != 0) {
        free(reader);
        return rc;
    }
    s->kv->reset(reader->txn);
    *ret = reader;
    return 0;
}

void storage_reader_close(struct storage_reader *reader)
{
    if (reader == NULL) return;
    reader->storage->kv->abort(reader->txn);
    free(reader);
}

void storage_read_end(struct storage_reader *reader)
{
    if (reader->active) reader->storage->kv->reset(reader->txn);
    reader->active = false;
}

static bool is_gone(const struct storage *s, raft_index index)
{
    /* acquire: pairs with the release before the transaction that erases it. */
    return index <= atomic_load_explicit(&s->base_index, memory_order_acquire);
}

int storage_read(struct storage_reader *reader, raft_index index, const uint8_t **ret_block,
                 struct block_header *ret_header)
{
    const struct storage *s = reader->storage;
    /* stored first: what it says is in every view that begins after it. */
    raft_index stored = storage_stored(s);
    storage_read_end(reader);
    if (index > stored) return LOCKSTEP_ENOTFOUND;
    if (is_gone(s, index)) return LOCKSTEP_EGONE;
    int rc = s->kv->renew(reader->txn);
    if (rc != 0) return rc;
    reader->active = true;
    rc = table_block_read(s->kv, reader->txn, index, ret_block, ret_header);
    if (rc == LOCKSTEP_ENOTFOUND && is_gone(s, index)) return LOCKSTEP_EGONE; /* compacted meanwhile */
    return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;                 /* a gap is damage, never the end */
}

/* The snapshot that counts now. ENOTFOUND: there is none. */
static int snapshot_newest(struct storage_reader *reader, struct storage_snapshot *ret)
{
    const struct storage *s = reader->storage;
    struct table_state state;
    storage_read_end(reader);
    int rc = s->kv->renew(reader->txn);
    if (rc != 0) return rc;
    rc = table_state_read(s->kv, reader->txn, &state);
    s->kv->reset(reader->txn);
    if (rc != 0) return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;
    *ret = state.snapshot;
    return state.snapshot.base.index != 0 ? 0 : LOCKSTEP_ENOTFOUND;
}

/* Its file. One that is gone was replaced since the state record was read, or is lost. */
static int newest_open(struct storage_reader *reader, struct snapshot_file **ret, struct snapshot_file_head *ret_head)
{
    const struct storage *s = reader->storage;
    struct storage_snapshot newest, before = {0};
    char name[SNAPSHOT_NAME_BYTES];
    for (;;) {
        int rc = snapshot_newest(reader, &newest);
        if (rc != 0) return rc;
        if (snapshot_same(&newest, &before)) return LOCKSTEP_ECORRUPT;
        snapshot_file_name(name, newest.base.index);
        rc = snapshot_file_open(s->disk, s->directory, name, false, ret, ret_head);
        if (rc == 0 && !snapshot_same(&ret_head->is, &newest)) {
            snapshot_file_close(*ret);
            return LOCKSTEP_ECORRUPT;
        }
        if (rc != LOCKSTEP_ENOTFOUND) return rc;
        before = newest;
    }
}

int storage_piece_read(struct storage_reader *reader, enum storage_which which, uint64_t offset,
                       struct storage_snapshot *ret_snapshot, void *to, size_t *ret_count)
{
    const struct storage *s = reader->storage;
    struct snapshot_file *file = NULL;
    struct snapshot_file_head head;
    int rc = which == STORAGE_SNAPSHOT_NEWEST
                 ? newest_open(reader, &file, &head)
                 : snapshot_file_open(s->disk, s->directory, SNAPSHOT_NAME_INCOMING, false, &file, &head);
    if (rc != 0) return rc;
    rc = snapshot_file_read(file, &head, offset, to, ret_count);
    snapshot_file_close(file);
    *ret_snapshot = head.is;
    return rc;
}
