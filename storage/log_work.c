/* SPDX-License-Identifier: Apache-2.0 */
/* log_work.c - the log thread: committed, durable blocks go from the ring to LMDB; Q follows; the journal is freed.
 * Thread: log. Owns: LMDB's write transactions, live_last of the entries in frames[].
 * J4  One transaction stores blocks, the newest durable hard state, and Q. Q is the last frame of a prefix of which every
 *     block is in the log or dead.
 * J5  Where committed blocks cannot move Q, the live ones are asked for once more behind everything else (a pack).
 * J6  Transactions of at most 4 MiB; small amounts wait for more, but not for long.
 * A block is moved only when the journal has flushed this very version of it: its ring position tells. So the log never
 * holds a block that the journal does not know, and replay finds no contradiction.
 *
 * Deadness, over frames in order: blocks from index c on in an earlier frame are dead once a flushed frame begins with
 * c. live_last is kept as a running maximum, so it never falls from frame to frame, and a cut walks back only over
 * those that it lowers. */
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/state.h"

static const uint64_t LINGER_NS = 100 * 1000000ull;   /* a small amount waits for so long */
static const uint64_t STALL_RETRY_NS = 1000000000ull; /* no space: look again */

static struct frame_entry *entry_of(struct storage *s, uint64_t seq)
{
    return &s->frames[seq % s->frame_room];
}

/* Blocks from `cut` on in frames before `seq` are dead. */
static void frames_cut(struct storage *s, uint64_t seq, raft_index cut)
{
    for (uint64_t i = seq - 1; i > s->table.q.seq && entry_of(s, i)->live_last >= cut; i--) {
        entry_of(s, i)->live_last = cut - 1;
    }
}

void storage_frames_look(struct storage *s)
{
    /* acquire: pairs with the release store in publish_entry(). */
    uint64_t flushed = atomic_load_explicit(&s->frames_flushed, memory_order_acquire);
    while (s->frames_seen < flushed) {
        uint64_t seq = s->frames_seen + 1;
        struct frame_entry *entry = entry_of(s, seq);
        lk_assert(entry->place.seq == seq);
        if (entry->cut != UINT64_MAX) frames_cut(s, seq, entry->cut);
        if (entry->pack_from_seq != 0) frames_cut(s, entry->pack_from_seq, entry->pack_first);
        raft_index before = s->frames_seen > s->table.q.seq ? entry_of(s, s->frames_seen)->live_last : 0;
        entry->live_last = entry->last > before ? entry->last : before;
        s->hard_state_durable = entry->hard_state;
        if (entry->install_index != 0 && entry->install_index == s->table.install_index) s->install_seq = seq;
        s->frames_seen = seq;
    }
}

/* The newest frame that Q may name when blocks up to `stored` are in the log. */
static struct journal_place q_after(struct storage *s, raft_index stored)
{
    struct journal_place q = s->table.q;
    while (q.seq < s->frames_seen && entry_of(s, q.seq + 1)->live_last <= stored) q = entry_of(s, q.seq + 1)->place;
    return q;
}

static uint64_t place_linear(const struct storage *s, const struct journal_place *place)
{
    return journal_linear(&s->shape, place->lap, place->offset);
}

/* The last block, at most `commit`, whose version in the ring lies below `durable`, in at most bytes_max from the first.
 * Returns the bytes; 0: none. */
static uint64_t movable(struct storage *s, raft_index commit, ring_pos durable, uint64_t bytes_max,
                        raft_index *ret_last)
{
    uint64_t bytes = 0;
    raft_index stored = s->table.last_index;
    for (raft_index i = stored + 1; i <= commit; i++) {
        struct ring_slot slot;
        int rc = ring_find(s->ring, i, &slot);
        lk_assert(rc == 0); /* committed and not released */
        if (slot.pos + slot.bytes > durable || (bytes != 0 && bytes + slot.bytes > bytes_max)) break;
        bytes += slot.bytes;
        *ret_last = i;
    }
    return bytes;
}

static int put_blocks(struct storage *s, struct kv_txn *txn, raft_index last, struct table_state *next,
                      struct block_base *base)
{
    for (raft_index i = s->table.last_index + 1; i <= last; i++) {
        struct ring_slot slot;
        struct block_header header;
        int rc = ring_find(s->ring, i, &slot);
        lk_assert(rc == 0);
        const uint8_t *block = ring_at(s->ring, slot.pos);
        memcpy(&header, block, sizeof header);
        lk_assert(block_chain_check(base, &header) == 0);
        rc = table_block_put(s->kv, txn, i, block, header.bytes);
        if (rc != 0) return rc;
        next->blocks_bytes += header.bytes;
        if (header.term != base->term || next->run_count == 0) {
            const struct storage_term_run run = {.first_index = i, .term = header.term};
            rc = table_run_put(s->kv, txn, &run);
            if (rc != 0) return rc;
            next->run_count++;
        }
        if (header.type == BLOCK_CONFIGURATION) {
            rc = table_configuration_put(s->kv, txn, i, block + BLOCK_HEADER_BYTES, header.bytes - BLOCK_HEADER_BYTES);
            if (rc != 0) return rc;
            next->configuration_index = i;
        }
        *base = block_base_after(&header);
    }
    next->last_index = base->index;
    next->last_crc = base->crc;
    return 0;
}

int storage_transaction(struct storage *s, raft_index last)
{
    struct table_state next = s->table;
    struct block_base base = s->stored_base;
    struct kv_txn *txn = NULL;
    next.hard_state = s->hard_state_durable;
    next.q = q_after(s, last);
    next.flushed_seq = s->frames_seen;
    if (next.install_index != 0 && s->install_seq != 0 && next.q.seq >= s->install_seq) next.install_index = 0;
    int rc = s->kv->begin_write(s->map, &txn);
    if (rc != 0) return rc;
    rc = put_blocks(s, txn, last, &next, &base);
    if (rc == 0) rc = table_state_write(s->kv, txn, &next);
    if (rc != 0) {
        s->kv->abort(txn);
        return rc;
    }
    rc = s->kv->commit(txn);
    if (rc != 0) return rc == LOCKSTEP_ENOSPC ? LOCKSTEP_EIO : rc; /* a commit's error is final, whatever it is */
    s->table = next;
    s->stored_base = base;
    atomic_fetch_add_explicit(&s->transactions, 1, memory_order_relaxed);
    atomic_store_explicit(&s->blocks_bytes, next.blocks_bytes, memory_order_relaxed);
    atomic_store_explicit(&s->stored, last, memory_order_release);
    /* seq_cst: pairs with journal_has_room(), which sets the flag and looks at reclaimed again. */
    atomic_store(&s->reclaimed, place_linear(s, &next.q));
    return 0;
}

/* Values take whole pages, and the tree is copied where it changes. */
static uint64_t transaction_room_bytes(uint64_t bytes)
{
    return 2 * bytes + STORAGE_GROW_SLACK_BYTES;
}

int storage_grow(struct storage *s, uint64_t bytes)
{
    uint64_t need = transaction_room_bytes(bytes), behind = 0, free_bytes = 0;
    if (bytes == 0) return s->kv->grow(s->map, need);
    int rc = s->kv->grow(s->map, need + STORAGE_KEPT_BACK_BYTES);
    if (rc != LOCKSTEP_ENOSPC) return rc;
    /* Compaction has given pages back: a transaction fits into those, and what is kept back stands in where they lie in
     * pieces. */
    rc = s->kv->room(s->map, &behind, &free_bytes);
    if (rc != 0) return rc;
    bool fits = free_bytes >= 2 * need && behind >= need + STORAGE_GROW_SLACK_BYTES;
    return fits ? 0 : LOCKSTEP_ENOSPC;
}

/* One transaction of blocks up to `last`. False: not now. */
static bool move(struct storage *s, raft_index last, uint64_t bytes, uint64_t now_ns)
{
    if (last > s->table.last_index) {
        ring_pos pos;
        struct ring_slot slot;
        int found = ring_find(s->ring, s->table.last_index + 1, &slot);
        lk_assert(found == 0);
        pos = slot.pos;
        int held = ring_pin(s->ring, RING_PIN_LOG, pos);
        lk_assert(held == 0); /* only this thread lets blocks be released */
    }
    int rc = storage_grow(s, bytes);
    if (rc == 0) rc = storage_transaction(s, last);
    ring_unpin(s->ring, RING_PIN_LOG);
    if (rc == LOCKSTEP_ENOSPC) {
        /* Nothing is lost: blocks stay in ring and journal until there is space, and appends are refused when those are
         * full. */
        atomic_store_explicit(&s->log_stalled, true, memory_order_relaxed);
        s->stalled_until_ns = now_ns + STALL_RETRY_NS;
        return false;
    }
    if (rc != 0) {
        storage_fail(
            s, rc,
            "data.mdb could not be written or flushed: the log is not safe on this disk; replace the disk, then "
            "start again");
        s->wake(s->wake_context, STORAGE_LOOP);
        return false;
    }
    atomic_store_explicit(&s->log_stalled, false, memory_order_relaxed);
    atomic_store(&s->room_wanted, false);
    s->wake(s->wake_context, STORAGE_LOOP);
    if (atomic_exchange(&s->journal_waits, false)) s->wake(s->wake_context, STORAGE_JOURNAL);
    return true;
}

static uint64_t journal_used(const struct storage *s)
{
    return atomic_load_explicit(&s->journal_end, memory_order_acquire) -
           atomic_load_explicit(&s->reclaimed, memory_order_relaxed);
}

/* Nothing to move, yet the journal fills: Q alone, or the live blocks once more. */
static bool relieve_journal(struct storage *s, uint64_t now_ns)
{
    uint64_t span = journal_span(&s->shape), used = journal_used(s);
    bool waits = atomic_load(&s->journal_waits) || atomic_load(&s->room_wanted);
    if (used < span / 4 && !waits) return false;
    struct journal_place q = q_after(s, s->table.last_index);
    uint64_t gain = place_linear(s, &q) - atomic_load_explicit(&s->reclaimed, memory_order_relaxed);
    if (gain >= span / 16 || (waits && gain > 0)) return move(s, s->table.last_index, 0, now_ns);
    if ((used >= span / 2 || waits) && !atomic_exchange(&s->pack_wanted, true)) s->wake(s->wake_context, STORAGE_LOOP);
    return false;
}

/* One transaction of blocks, if it is worth one. */
static uint64_t blocks_work(struct storage *s, uint64_t now_ns)
{
    if (now_ns < s->stalled_until_ns) { /* promises that are no blocks go on */
        storage_frames_look(s);
        return relieve_journal(s, now_ns) ? 0 : s->stalled_until_ns - now_ns;
    }
    s->stalled_until_ns = 0;
    /* seq_cst: the flag before the look at commit; storage_commit() does it the other way round. */
    atomic_store(&s->log_idle, true);
    raft_index commit = atomic_load(&s->commit);
    /* acquire, and before the look at the frames: those that made these bytes durable, and killed others by it, are then
     * known, so that Q passes what died. */
    ring_pos durable = atomic_load_explicit(&s->durable_pos, memory_order_acquire);
    storage_frames_look(s);
    raft_index last = 0;
    bool full = atomic_load_explicit(&s->log_stalled, memory_order_relaxed);
    uint64_t bytes_max = full ? STORAGE_TRANSACTION_BYTES_FULL : STORAGE_TRANSACTION_BYTES_MAX;
    uint64_t bytes = movable(s, commit, durable, bytes_max, &last);
    if (bytes == 0) {
        s->pending = false;
        if (relieve_journal(s, now_ns)) return 0;
        if (s->stalled_until_ns != 0) return STALL_RETRY_NS;
        if (commit == s->table.last_index) return UINT64_MAX;
        return LINGER_NS; /* committed by others, not flushed here yet */
    }
    atomic_store(&s->log_idle, false);
    if (!s->pending) s->pending_since_ns = now_ns;
    s->pending = true;
    struct journal_place q = q_after(s, last);
    bool filling = journal_used(s) >= journal_span(&s->shape) / 4 && q.seq > s->table.q.seq;
    uint64_t due_ns = s->pending_since_ns + LINGER_NS;
    if (bytes < storage_enough_bytes(s) && !filling && now_ns < due_ns) return due_ns - now_ns;
    if (!move(s, last, bytes, now_ns)) return s->stalled_until_ns != 0 ? STALL_RETRY_NS : UINT64_MAX;
    s->pending = false;
    return 0;
}

uint64_t storage_log_work(struct storage *s, uint64_t now_ns)
{
    if (atomic_load_explicit(&s->failed, memory_order_acquire) != 0) return UINT64_MAX;
    uint64_t wait_ns = blocks_work(s, now_ns);
    if (atomic_load_explicit(&s->failed, memory_order_acquire) != 0) return UINT64_MAX;
    s->snapshot_stalled = false;
    if (storage_snapshot_work(s)) return 0;
    return s->snapshot_stalled && wait_ns > STALL_RETRY_NS ? STALL_RETRY_NS : wait_ns;
}
