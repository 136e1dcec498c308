/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c - see snapshot.h.
 * Threads: marked by section. Owns: the pieces table, the log's base, what has come of a snapshot.
 *
 *   control  begin, write, end ── taken (SPSC of pieces) ──> log thread: pieces, then the record that makes them count
 *   loop     one command at a time: a piece, drop, install ──> log thread ── incoming_shown ──> loop
 *
 * One unit of work is one transaction of at most STORAGE_TRANSACTION_BYTES_MAX, so blocks never wait for long.
 * - A snapshot counts only once the log holds its block: then the log reaches every base that it can have.
 * - The base moves in the transaction that erases the blocks below it, a bounded number at a time, and never past the
 *   newest snapshot. `keep_bytes` of blocks stay in front of it for peers that are a little behind.
 * - An install makes the base jump; the blocks that it leaves below are erased afterwards.
 * - base_index is shown before the transaction commits: a reader that finds a block missing looks again.
 * - J8: no space for pieces ends the snapshot, and nothing else. */
#include "storage/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/state.h"

enum {
    COMPACT_BLOCKS_MAX = 1024, /* in one transaction */
    SWEEP_PIECES_MAX = 64,
    GROW_SLACK_BYTES = 1 << 20,
};

enum taken_kind { TAKEN_BEGIN = 1, TAKEN_PIECE, TAKEN_END, TAKEN_FORGET };

/* Control to log thread. */
struct taken {
    uint32_t kind, count;
    uint8_t *bytes;             /* a PIECE's, in memory to free() */
    struct storage_snapshot is; /* BEGIN: its base; END: all of it */
};

int storage_snapshot_open(struct storage *s)
{
    s->install.bytes = malloc(SNAPSHOT_PIECE_BYTES);
    return s->install.bytes != NULL && spsc_open(&s->taken, STORAGE_TAKEN_MAX, sizeof(struct taken)) ? 0
                                                                                                     : LOCKSTEP_ENOMEM;
}

void storage_snapshot_close(struct storage *s)
{
    struct taken taken;
    while (s->taken.records != NULL && spsc_try_pop(&s->taken, &taken)) free(taken.bytes);
    spsc_close(&s->taken);
    free(s->taking.piece);
    free(s->install.bytes);
}

/* --- taking: control thread -------------------------------------------------------------------------------------- */

int storage_snapshot_begin(struct storage *s, const struct block_base *base)
{
    /* acquire: pairs with the release when the log thread is done; its generation is free again. */
    if (atomic_load_explicit(&s->snapshot_busy, memory_order_acquire)) return LOCKSTEP_EFULL;
    uint8_t *piece = malloc(s->piece_bytes);
    if (piece == NULL) return LOCKSTEP_ENOMEM;
    s->taking.piece = piece;
    s->taking.count = 0;
    s->taking.error = 0;
    s->taking.is = (struct storage_snapshot){.base = *base};
    atomic_store_explicit(&s->snapshot_failed, false, memory_order_relaxed);
    atomic_store_explicit(&s->snapshot_busy, true, memory_order_relaxed);
    bool pushed = spsc_try_push(&s->taken, &(struct taken){.kind = TAKEN_BEGIN, .is = s->taking.is});
    lk_assert(pushed); /* nothing is being taken: the queue is empty */
    return 0;
}

static int push_piece(struct storage *s)
{
    if (spsc_room(&s->taken) < 2) return LOCKSTEP_EFULL; /* one is left for the end */
    uint8_t *next = malloc(s->piece_bytes);
    if (next == NULL) return LOCKSTEP_ENOMEM;
    struct taken taken = {.kind = TAKEN_PIECE, .count = s->taking.count, .bytes = s->taking.piece};
    bool pushed = spsc_try_push(&s->taken, &taken);
    lk_assert(pushed);
    s->taking.piece = next;
    s->taking.count = 0;
    s->wake(s->wake_context, STORAGE_LOG);
    return 0;
}

int storage_snapshot_write(struct storage *s, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    if (s->taking.error == 0 && atomic_load_explicit(&s->snapshot_failed, memory_order_relaxed))
        s->taking.error = LOCKSTEP_ENOSPC;
    if (s->taking.error != 0) return s->taking.error;
    s->taking.is.checksum = crc32c_extend(s->taking.is.checksum, bytes, count);
    s->taking.is.bytes += count;
    while (count > 0) {
        if (s->taking.count == s->piece_bytes) s->taking.error = push_piece(s);
        if (s->taking.error != 0) return s->taking.error;
        size_t room = s->piece_bytes - s->taking.count, now = count < room ? count : room;
        memcpy(s->taking.piece + s->taking.count, from, now);
        s->taking.count += (uint32_t)now;
        from += now;
        count -= now;
    }
    return 0;
}

void storage_snapshot_end(struct storage *s, bool keep)
{
    if (keep && s->taking.error == 0 && s->taking.count > 0) s->taking.error = push_piece(s);
    keep = keep && s->taking.error == 0 && s->taking.is.bytes > 0;
    struct taken taken = {.kind = keep ? TAKEN_END : TAKEN_FORGET, .is = s->taking.is};
    free(s->taking.piece);
    s->taking.piece = NULL;
    bool pushed = spsc_try_push(&s->taken, &taken);
    lk_assert(pushed);
    s->wake(s->wake_context, STORAGE_LOG);
}

bool storage_snapshot_busy(const struct storage *s)
{
    return atomic_load_explicit(&s->snapshot_busy, memory_order_acquire);
}

/* --- installing: loop -------------------------------------------------------------------------------------------- */

static bool command_runs(const struct storage *s)
{
    /* acquire: pairs with the release when the log thread is done; incoming_shown is then whole. */
    return atomic_load_explicit(&s->install.command, memory_order_acquire) != INSTALL_NONE;
}

static void command_give(struct storage *s, enum install_command command)
{
    atomic_store_explicit(&s->install.command, command, memory_order_release);
    s->wake(s->wake_context, STORAGE_LOG);
}

static bool same_snapshot(const struct storage_snapshot *a, const struct storage_snapshot *b)
{
    return a->base.index == b->base.index && a->base.term == b->base.term && a->base.crc == b->base.crc &&
           a->base.next_position == b->base.next_position && a->base.time_ns == b->base.time_ns &&
           a->bytes == b->bytes && a->checksum == b->checksum;
}

int storage_install_piece(struct storage *s, const struct storage_snapshot *snapshot, uint64_t offset,
                          const uint8_t *bytes, size_t count)
{
    if (command_runs(s)) return LOCKSTEP_EFULL;
    const struct storage_incoming *held = &s->incoming_shown;
    bool same = same_snapshot(&held->snapshot, snapshot);
    uint64_t held_offset = same ? held->offset : 0;
    if (offset != held_offset || count == 0) return LOCKSTEP_EEXIST;
    uint64_t left = snapshot->bytes - offset, piece_bytes = offset == 0 ? count : s->install.piece_bytes;
    if (count > SNAPSHOT_PIECE_BYTES || count != (left < piece_bytes ? left : piece_bytes)) return LOCKSTEP_EINVAL;
    if (snapshot->bytes / piece_bytes >= TABLE_PIECES_MAX - 1) return LOCKSTEP_EINVAL;
    s->install.piece_bytes = (uint32_t)piece_bytes;
    s->install.snapshot = *snapshot;
    s->install.offset = offset;
    s->install.count = count;
    memcpy(s->install.bytes, bytes, count);
    command_give(s, INSTALL_PIECE);
    return 0;
}

bool storage_incoming(const struct storage *s, struct storage_incoming *ret)
{
    if (command_runs(s)) return false;
    *ret = s->incoming_shown;
    return true;
}

void storage_install_drop(struct storage *s)
{
    lk_assert(!command_runs(s));
    if (s->incoming_shown.snapshot.base.index != 0) command_give(s, INSTALL_DROP);
}

void storage_install(struct storage *s, const struct storage_install_configuration *configuration)
{
    lk_assert(!command_runs(s) && !s->install.begun);
    lk_assert(s->incoming_shown.complete);
    lk_assert(s->incoming_shown.snapshot.base.index > atomic_load_explicit(&s->commit, memory_order_relaxed));
    s->install.configuration = *configuration;
    s->install.begun = true;
    s->install.base = s->incoming_shown.snapshot.base;
    command_give(s, INSTALL_ALL);
}

bool storage_installing(const struct storage *s)
{
    return s->install.begun;
}

bool storage_install_done(struct storage *s, struct block_base *ret)
{
    if (!s->install.begun || command_runs(s)) return false;
    if (atomic_load_explicit(&s->failed, memory_order_acquire) != 0) return false;
    *ret = s->install.base;
    s->install.begun = false;
    ring_restart(s->ring, ret);
    struct ring_status ring;
    ring_status_read(s->ring, &ring);
    s->submitted_pos = ring.tail;
    s->submitted_last = ret->index;
    s->submitted_crc = ret->crc;
    atomic_store(&s->commit, ret->index);
    storage_submit_install(s, ret);
    return true;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

int storage_piece_find(const struct kv *kv, struct kv_txn *txn, enum storage_which which, uint64_t offset,
                       struct storage_snapshot *ret_snapshot, const uint8_t **ret_bytes, size_t *ret_count)
{
    struct table_snapshot snapshot = {0};
    if (which == STORAGE_SNAPSHOT_NEWEST) {
        struct table_state state;
        int rc = table_state_read(kv, txn, &state);
        if (rc != 0) return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;
        snapshot = state.snapshot;
    } else {
        struct table_incoming incoming;
        int rc = table_incoming_read(kv, txn, &incoming);
        if (rc != 0) return rc;
        if (incoming.offset == incoming.snapshot.is.bytes) snapshot = incoming.snapshot;
    }
    if (snapshot.generation == 0 || offset >= snapshot.is.bytes || offset % snapshot.piece_bytes != 0)
        return LOCKSTEP_ENOTFOUND;
    int rc = table_piece_read(kv, txn, snapshot.generation, offset / snapshot.piece_bytes, ret_bytes, ret_count);
    if (rc != 0) return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;
    uint64_t left = snapshot.is.bytes - offset;
    if (*ret_count != (left < snapshot.piece_bytes ? left : snapshot.piece_bytes)) return LOCKSTEP_ECORRUPT;
    *ret_snapshot = snapshot.is;
    return 0;
}

/* --- the log thread ------------------------------------------------------------------------------------------------ */

/* What a unit of work puts into its transaction. next: the state record as it will be. */
typedef int fill(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context);

/* One transaction. ENOSPC: nothing happened. Everything else is final. */
static int transact(struct storage *s, uint64_t bytes, fill *fill_it, void *context)
{
    struct table_state next = s->table;
    struct kv_txn *txn = NULL;
    next.hard_state = s->hard_state_durable;
    next.flushed_seq = s->frames_seen;
    int rc = s->kv->grow(s->map, 2 * bytes + GROW_SLACK_BYTES);
    if (rc == LOCKSTEP_ENOSPC && bytes == 0) rc = 0; /* it gives space back: try with what there is */
    if (rc == 0) rc = s->kv->begin_write(s->map, &txn);
    if (rc == 0) rc = fill_it(s, txn, &next, context);
    if (rc == 0) rc = table_state_write(s->kv, txn, &next);
    if (rc != 0) {
        s->kv->abort(txn);
        s->snapshot_stalled |= rc == LOCKSTEP_ENOSPC;
        if (rc == LOCKSTEP_ENOSPC) return rc;
    } else {
        rc = s->kv->commit(txn);
        if (rc == LOCKSTEP_ENOSPC) rc = LOCKSTEP_EIO; /* a commit's error is final, whatever it is */
    }
    if (rc == 0) {
        s->table = next;
        atomic_fetch_add_explicit(&s->transactions, 1, memory_order_relaxed);
        return 0;
    }
    storage_fail(s, rc,
                 rc == LOCKSTEP_ECORRUPT
                     ? "a block or a term in data.mdb that was to be compacted is damaged or missing; the other nodes "
                       "have it: keep this directory and look at its disk"
                     : "data.mdb could not be written or flushed: the log is not safe on this disk; replace the disk, "
                       "then start again");
    s->wake(s->wake_context, STORAGE_LOOP);
    return rc;
}

static void show_snapshot(struct storage *s)
{
    atomic_store_explicit(&s->base_index, s->table.base.index, memory_order_release);
    atomic_store_explicit(&s->snapshot_index, s->table.snapshot.is.base.index, memory_order_relaxed);
    atomic_store_explicit(&s->blocks_bytes, s->table.blocks_bytes, memory_order_relaxed);
    s->wake(s->wake_context, STORAGE_LOOP);
}

/* The pieces that one transaction stores. */
struct pieces {
    struct taken list[16];
    uint32_t count, bytes;
};

static int fill_pieces(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    const struct pieces *pieces = context;
    (void)next;
    for (uint32_t i = 0; i < pieces->count; i++) {
        int rc = table_piece_put(s->kv, txn, s->storing.generation, s->storing_pieces + i, pieces->list[i].bytes,
                                 pieces->list[i].count);
        if (rc != 0) return rc;
    }
    return 0;
}

static int fill_snapshot(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    (void)txn;
    (void)context;
    next->snapshot = s->storing;
    return 0;
}

static void storing_done(struct storage *s)
{
    s->storing = (struct table_snapshot){0};
    s->sweep_due = true;
    atomic_store_explicit(&s->snapshot_busy, false, memory_order_release);
    s->wake(s->wake_context, STORAGE_LOOP);
}

/* The whole snapshot is here. False: the log does not hold its block yet. */
static bool storing_end(struct storage *s)
{
    const struct block_base *base = &s->storing.is.base;
    if (base->index > s->table.last_index) return false;
    bool newer = base->index > s->table.snapshot.is.base.index; /* else an install overtook it (T41) */
    if (newer && transact(s, 0, fill_snapshot, NULL) == 0) {
        uint64_t bytes = s->table.blocks_bytes;
        s->compact_bytes_due = bytes > s->keep_bytes ? bytes - s->keep_bytes : 0;
        atomic_fetch_add_explicit(&s->snapshots, 1, memory_order_relaxed);
        show_snapshot(s);
    }
    s->storing_whole = false;
    storing_done(s);
    return true;
}

/* One unit of what the control thread has taken. */
static bool store_taken(struct storage *s)
{
    struct pieces pieces = {0};
    struct taken taken;
    if (s->storing_whole) return storing_end(s);
    while (pieces.count < sizeof pieces.list / sizeof pieces.list[0] &&
           pieces.bytes + s->piece_bytes <= STORAGE_TRANSACTION_BYTES_MAX && spsc_try_pop(&s->taken, &taken)) {
        if (taken.kind == TAKEN_PIECE) {
            pieces.list[pieces.count++] = taken;
            pieces.bytes += taken.count;
            continue;
        }
        if (taken.kind == TAKEN_BEGIN) {
            s->storing = (struct table_snapshot){
                .generation = ++s->generation_newest, .is = taken.is, .piece_bytes = s->piece_bytes};
            s->storing_pieces = 0;
            continue;
        }
        s->storing.is = taken.is;
        s->storing_whole = taken.kind == TAKEN_END;
        s->storing_forgotten = taken.kind == TAKEN_FORGET;
        break;
    }
    bool failed = atomic_load_explicit(&s->snapshot_failed, memory_order_relaxed);
    if (pieces.count > 0 && !failed) failed = transact(s, pieces.bytes, fill_pieces, &pieces) != 0;
    for (uint32_t i = 0; i < pieces.count; i++) free(pieces.list[i].bytes);
    s->storing_pieces += pieces.count;
    if (failed) { /* J8: nothing but this snapshot ends */
        atomic_store_explicit(&s->snapshot_failed, true, memory_order_relaxed);
        s->storing_forgotten |= s->storing_whole;
        s->storing_whole = false;
    }
    if (s->storing_forgotten) {
        s->storing_forgotten = false;
        storing_done(s);
        return true;
    }
    return pieces.count > 0 || s->storing_whole;
}

static int fill_incoming(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    const struct table_incoming *incoming = context;
    (void)next;
    uint64_t number = s->install.offset / s->install.piece_bytes;
    int rc = 0;
    if (incoming->snapshot.generation != 0)
        rc = table_piece_put(s->kv, txn, incoming->snapshot.generation, number, s->install.bytes, s->install.count);
    if (rc == 0) rc = table_incoming_write(s->kv, txn, incoming);
    return rc;
}

void storage_incoming_show(struct storage *s)
{
    const struct table_incoming *in = &s->incoming;
    s->incoming_shown.snapshot = in->snapshot.is;
    s->incoming_shown.offset = in->offset;
    s->incoming_shown.complete = in->snapshot.generation != 0 && in->offset == in->snapshot.is.bytes;
    if (in->snapshot.generation == 0) s->incoming_shown.snapshot = (struct storage_snapshot){0};
}

/* A piece that is the next one. No space: it is as if it had not come. */
static void command_piece(struct storage *s)
{
    struct table_incoming next = s->incoming;
    bool other = next.snapshot.generation == 0 || !same_snapshot(&next.snapshot.is, &s->install.snapshot);
    if (other)
        next = (struct table_incoming){.snapshot = {.generation = s->generation_newest + 1,
                                                    .is = s->install.snapshot,
                                                    .piece_bytes = s->install.piece_bytes}};
    next.offset += s->install.count;
    next.checksum = crc32c_extend(next.checksum, s->install.bytes, s->install.count);
    bool damaged = next.offset == next.snapshot.is.bytes && next.checksum != next.snapshot.is.checksum;
    uint64_t generation = next.snapshot.generation;
    if (damaged) next = (struct table_incoming){0};
    if (transact(s, s->install.count, fill_incoming, &next) != 0) return;
    if (other) s->generation_newest = generation;
    s->sweep_due |= other || damaged;
    s->incoming_shown.discarded += damaged;
    s->incoming = next;
}

static void command_drop(struct storage *s)
{
    struct table_incoming none = {0};
    if (transact(s, 0, fill_incoming, &none) != 0) return;
    s->incoming = none;
    s->sweep_due = true;
}

static int fill_install(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    const struct storage_install_configuration *configuration = &s->install.configuration;
    const struct table_incoming none = {0};
    (void)context;
    next->snapshot = s->incoming.snapshot;
    next->base = next->snapshot.is.base;
    next->last_index = next->base.index;
    next->last_crc = next->base.crc;
    next->blocks_bytes = 0;
    next->install_index = next->base.index;
    next->configuration_index = configuration->index;
    int rc = table_runs_trim(s->kv, txn, next, true);
    if (rc == 0 && configuration->index != 0)
        rc = table_configuration_put(s->kv, txn, configuration->index, configuration->bytes, configuration->count);
    if (rc == 0) rc = table_incoming_write(s->kv, txn, &none);
    return rc;
}

/* False: no space now; tried again. */
static bool command_install(struct storage *s)
{
    raft_index base_before = atomic_load_explicit(&s->base_index, memory_order_relaxed);
    atomic_store_explicit(&s->base_index, s->incoming.snapshot.is.base.index, memory_order_release);
    int rc = transact(s, 1, fill_install, NULL);
    if (rc != 0) {
        atomic_store_explicit(&s->base_index, base_before, memory_order_release);
        return rc != LOCKSTEP_ENOSPC;
    }
    s->incoming = (struct table_incoming){0};
    s->install_seq = 0;
    s->stored_base = s->table.base;
    s->dead_blocks_due = s->sweep_due = true;
    s->compact_bytes_due = 0;
    atomic_store_explicit(&s->stored, s->table.last_index, memory_order_release);
    atomic_fetch_add_explicit(&s->installs, 1, memory_order_relaxed);
    show_snapshot(s);
    return true;
}

static bool run_command(struct storage *s)
{
    /* acquire: pairs with the release in command_give(). */
    int command = atomic_load_explicit(&s->install.command, memory_order_acquire);
    if (command == INSTALL_NONE) return false;
    if (command == INSTALL_PIECE) command_piece(s);
    if (command == INSTALL_DROP) command_drop(s);
    if (command == INSTALL_ALL && !command_install(s)) return false;
    storage_incoming_show(s);
    atomic_store_explicit(&s->install.command, INSTALL_NONE, memory_order_release);
    s->wake(s->wake_context, STORAGE_LOOP);
    return true;
}

static int fill_sweep(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    const uint64_t kept[] = {next->snapshot.generation, s->incoming.snapshot.generation, s->storing.generation};
    return table_pieces_sweep(s->kv, txn, kept, 3, SWEEP_PIECES_MAX, context);
}

static int fill_dead_blocks(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    uint32_t *erased = context;
    uint64_t key = 0;
    int rc = 0;
    while (*erased < COMPACT_BLOCKS_MAX && (rc = s->kv->first(txn, TABLE_BLOCKS, &key)) == 0) {
        if (key > next->base.index) break;
        rc = s->kv->erase(txn, TABLE_BLOCKS, key);
        if (rc != 0) return rc;
        ++*erased;
    }
    return rc == LOCKSTEP_ENOTFOUND ? 0 : rc;
}

/* Move the base over blocks that the snapshot stands for, and erase them. */
static int fill_compact(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    uint64_t *due = context;
    for (uint32_t i = 0; i < COMPACT_BLOCKS_MAX && next->base.index < next->snapshot.is.base.index; i++) {
        const void *value = NULL;
        size_t count = 0;
        struct block_header header;
        int rc = s->kv->get(txn, TABLE_BLOCKS, next->base.index + 1, &value, &count);
        if (rc == 0) rc = block_header_read(value, count, &header);
        if (rc == 0) rc = block_chain_check(&next->base, &header);
        if (rc != 0) return rc == LOCKSTEP_EIO ? rc : LOCKSTEP_ECORRUPT;
        if (header.bytes > *due) {
            *due = 0;
            break;
        }
        *due -= header.bytes;
        next->blocks_bytes -= header.bytes;
        next->base = block_base_after(&header);
        rc = s->kv->erase(txn, TABLE_BLOCKS, header.index);
        if (rc != 0) return rc;
        /* before the commit: a reader that finds the block missing sees why */
        atomic_store_explicit(&s->base_index, next->base.index, memory_order_release);
    }
    if (next->base.index == next->snapshot.is.base.index) *due = 0;
    return table_runs_trim(s->kv, txn, next, false);
}

static bool clean_up(struct storage *s)
{
    uint32_t erased = 0;
    if (s->dead_blocks_due) {
        if (transact(s, 0, fill_dead_blocks, &erased) != 0) return false;
        s->dead_blocks_due = erased > 0;
        return true;
    }
    if (s->sweep_due) {
        if (transact(s, 0, fill_sweep, &erased) != 0) return false;
        s->sweep_due = erased > 0;
        return true;
    }
    uint64_t due = s->compact_bytes_due;
    if (due == 0) return false;
    if (transact(s, 0, fill_compact, &due) != 0) {
        show_snapshot(s); /* base_index as it is */
        return false;
    }
    s->compact_bytes_due = due;
    show_snapshot(s);
    return true;
}

int storage_snapshot_recover(struct storage *s, struct kv_txn *txn)
{
    struct table_state *table = &s->table;
    uint64_t key = 0;
    int rc = table_incoming_read(s->kv, txn, &s->incoming);
    if (rc == LOCKSTEP_ENOTFOUND || rc == LOCKSTEP_ECORRUPT) { /* it can be brought again */
        s->incoming = (struct table_incoming){0};
        rc = 0;
    }
    s->install.piece_bytes = s->incoming.snapshot.piece_bytes;
    if (rc == 0) rc = table_generation_newest(s->kv, txn, &s->generation_newest);
    if (rc != 0) return rc;
    if (s->generation_newest < s->incoming.snapshot.generation) s->generation_newest = s->incoming.snapshot.generation;
    s->sweep_due = s->generation_newest != 0;
    rc = s->kv->first(txn, TABLE_BLOCKS, &key);
    s->dead_blocks_due = rc == 0 && key <= table->base.index;
    if (table->blocks_bytes > s->keep_bytes && table->base.index < table->snapshot.is.base.index)
        s->compact_bytes_due = table->blocks_bytes - s->keep_bytes;
    storage_incoming_show(s);
    return rc == LOCKSTEP_ENOTFOUND ? 0 : rc;
}

bool storage_snapshot_work(struct storage *s)
{
    return run_command(s) || store_taken(s) || clean_up(s);
}
