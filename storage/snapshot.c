/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c - see snapshot.h.
 * Threads: marked by section. Owns: the snapshot files, the log's base.
 *
 *   taking   snapshot.taken: pieces, flushes, head, flush ── TAKEN_WHOLE ──> log thread: rename, then the record that counts
 *   loop     one command at a time: a piece, drop, install ──> log thread ── incoming_shown ──> loop
 *
 * A unit of the log thread's work is one piece, or one transaction of at most STORAGE_TRANSACTION_BYTES_MAX, so blocks never
 * wait for long.
 * - The log thread alone gives names, and takes files away: first the name, durably, then the transaction that says so,
 *   then the older file goes. Crash anywhere, and the record names a whole file; what it does not name goes at the start.
 * - A snapshot counts only once the log holds its block: then the log reaches every base that it can have.
 * - The base moves in the transaction that erases the blocks below it, a bounded number at a time, and never past the
 *   newest snapshot. `keep_bytes` of blocks stay in front of it for peers that are a little behind, but
 *   none that is older than it by `keep_ns` of log time.
 * - An install makes the base jump; the blocks that it leaves below are erased afterwards.
 * - base_index is shown before the transaction commits: a reader that finds a block missing looks again.
 * - J8: no space for its pieces ends the snapshot, and nothing else. R8: any other error of its file is final. */
#include "storage/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/state.h"

enum {
    COMPACT_BLOCKS_MAX = 1024, /* in one transaction */
};

int storage_snapshot_open(struct storage *s)
{
    s->install.bytes = malloc(SNAPSHOT_PIECE_BYTES_MAX);
    return s->install.bytes != NULL ? 0 : LOCKSTEP_ENOMEM;
}

static void taking_free(struct storage *s)
{
    snapshot_file_close(s->taking.file);
    compress_close(s->taking.stream);
    free(s->taking.piece);
    s->taking.file = NULL;
    s->taking.stream = NULL;
    s->taking.piece = NULL;
}

void storage_snapshot_close(struct storage *s)
{
    snapshot_file_close(s->incoming.file);
    taking_free(s);
    free(s->install.bytes);
}

/* What a file's error means here: lack of space passes (J8), the rest is final (R8). Any thread. */
static int file_error(struct storage *s, int rc)
{
    if (rc == 0 || rc == LOCKSTEP_ENOSPC || rc == LOCKSTEP_ENOMEM) return rc;
    storage_fail(
        s, LOCKSTEP_EIO,
        "a snapshot's file could not be written, flushed, renamed or removed: replace the disk, then start again");
    s->wake(s->wake_context, STORAGE_LOOP);
    return LOCKSTEP_EIO;
}

static int file_remove(struct storage *s, const char *name)
{
    return file_error(s, snapshot_file_remove(s->disk, s->directory, name));
}

/* --- taking: one thread -------------------------------------------------------------------------------------------- */

int storage_snapshot_begin(struct storage *s, const struct block_base *base)
{
    /* acquire: pairs with the release when the log thread is done with the one before, and its name is free again. */
    if (atomic_load_explicit(&s->taken, memory_order_acquire) != TAKEN_NONE) return LOCKSTEP_EFULL;
    s->taking.piece = malloc(s->piece_bytes);
    int rc = s->taking.piece != NULL ? compress_open(&s->taking.stream) : LOCKSTEP_ENOMEM;
    if (rc == 0) rc = snapshot_file_create(s->disk, s->directory, SNAPSHOT_NAME_TAKEN, &s->taking.file);
    if (rc != 0) {
        taking_free(s);
        return file_error(s, rc);
    }
    s->taking.number = s->taking.count = 0;
    s->taking.error = 0;
    s->taking.is = (struct storage_snapshot){.base = *base};
    atomic_store_explicit(&s->snapshot_failed, false, memory_order_relaxed);
    atomic_store_explicit(&s->taken, TAKEN_WRITING, memory_order_relaxed);
    return 0;
}

static int taken_piece(struct storage *s)
{
    int rc = snapshot_file_write(s->taking.file, s->piece_bytes, s->taking.number++, s->taking.piece, s->taking.count);
    s->taking.is.checksum = crc32c_extend(s->taking.is.checksum, s->taking.piece, s->taking.count);
    s->taking.is.bytes += s->taking.count;
    s->taking.count = 0;
    return rc == 0 ? snapshot_file_flush(s->taking.file) : rc;
}

/* The machine's next bytes, smaller, into pieces. end: there are no more. */
static int taken_compress(struct storage *s, const void *bytes, size_t count, bool end)
{
    struct compress_in in = {.bytes = bytes, .count = count};
    bool ended = false;
    int rc = 0;
    while (rc == 0 && (end ? !ended : in.done < in.count)) {
        struct compress_out out = {.bytes = s->taking.piece, .room = s->piece_bytes, .done = s->taking.count};
        rc = compress_work(s->taking.stream, &in, &out, end, &ended);
        s->taking.count = (uint32_t)out.done;
        if (rc == 0 && (out.done == out.room || (ended && out.done > 0))) rc = taken_piece(s);
    }
    return file_error(s, rc);
}

int storage_snapshot_write(struct storage *s, const void *bytes, size_t count)
{
    if (s->taking.error == 0) s->taking.error = taken_compress(s, bytes, count, false);
    return s->taking.error;
}

/* Whole and flushed. */
static int taken_finish(struct storage *s)
{
    const struct storage_snapshot *is = &s->taking.is;
    int rc = taken_compress(s, NULL, 0, true);
    if (rc != 0) return rc;
    struct snapshot_file_head head = {.version = SNAPSHOT_FILE_VERSION, .group = s->group, .is = *is};
    head.piece_bytes = is->bytes < s->piece_bytes ? (uint32_t)is->bytes : s->piece_bytes;
    rc = snapshot_file_write_head(s->taking.file, &head);
    if (rc == 0) rc = snapshot_file_flush(s->taking.file);
    return file_error(s, rc);
}

int storage_snapshot_end(struct storage *s, bool keep)
{
    if (keep && s->taking.error == 0) s->taking.error = taken_finish(s);
    int rc = s->taking.error;
    bool whole = keep && rc == 0;
    taking_free(s);
    if (!whole) (void)file_remove(s, SNAPSHOT_NAME_TAKEN);
    atomic_store_explicit(&s->snapshot_failed, rc != 0, memory_order_relaxed);
    /* release: pairs with the acquire in taken_count(), and in storage_snapshot_begin(). */
    atomic_store_explicit(&s->taken, whole ? TAKEN_WHOLE : TAKEN_NONE, memory_order_release);
    s->wake(s->wake_context, whole ? STORAGE_LOG : STORAGE_LOOP);
    return rc;
}

bool storage_snapshot_busy(const struct storage *s)
{
    return atomic_load_explicit(&s->taken, memory_order_acquire) != TAKEN_NONE;
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

int storage_install_piece(struct storage *s, const struct storage_snapshot *snapshot, uint64_t offset,
                          const uint8_t *bytes, size_t count)
{
    if (command_runs(s)) return LOCKSTEP_EFULL;
    const struct storage_incoming *held = &s->incoming_shown;
    bool same = snapshot_same(&held->snapshot, snapshot);
    uint64_t held_offset = same ? held->offset : 0;
    if (offset != held_offset || count == 0) return LOCKSTEP_EEXIST;
    uint64_t left = snapshot->bytes - offset, piece_bytes = offset == 0 ? count : s->install.piece_bytes;
    if (count > SNAPSHOT_PIECE_BYTES_MAX || count != (left < piece_bytes ? left : piece_bytes)) return LOCKSTEP_EINVAL;
    if (snapshot->base.index == 0 || (snapshot->bytes - 1) / piece_bytes > UINT32_MAX) return LOCKSTEP_EINVAL;
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
    int rc = storage_grow(s, bytes);
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
    storage_fail(
        s, rc,
        rc == LOCKSTEP_ECORRUPT
            ? "a block or a term in data.mdb that was to be compacted is damaged or missing; the other nodes "
              "have it: keep this directory for looking at its disk, give the node an empty one and run member replace"
            : "data.mdb could not be written or flushed: the log is not safe on this disk; replace the disk, "
              "then start again");
    s->wake(s->wake_context, STORAGE_LOOP);
    return rc;
}

static void show_snapshot(struct storage *s)
{
    atomic_store_explicit(&s->base_index, s->table.base.index, memory_order_release);
    atomic_store_explicit(&s->snapshot_index, s->table.snapshot.base.index, memory_order_relaxed);
    atomic_store_explicit(&s->blocks_bytes, s->table.blocks_bytes, memory_order_relaxed);
    s->wake(s->wake_context, STORAGE_LOOP);
}

/* The file of a snapshot that another one has replaced. */
static void file_replaced(struct storage *s, const struct storage_snapshot *snapshot)
{
    char name[SNAPSHOT_NAME_BYTES];
    if (snapshot->base.index == 0) return;
    snapshot_file_name(name, snapshot->base.index);
    (void)file_remove(s, name);
}

static int fill_snapshot(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    (void)txn;
    (void)context;
    next->snapshot = s->taking.is;
    return 0;
}

/* Blocks may go. */
static void compact_begin(struct storage *s)
{
    const struct table_state *table = &s->table;
    s->compact_bytes_due = table->blocks_bytes > s->keep_bytes ? table->blocks_bytes - s->keep_bytes : 0;
    s->compact_due = table->base.index < table->snapshot.base.index && (s->compact_bytes_due > 0 || s->keep_ns != 0);
}

/* The one that was taken here begins to count. False: the log does not hold its block yet. */
static bool taken_count(struct storage *s)
{
    /* acquire: pairs with the release in storage_snapshot_end(). */
    if (atomic_load_explicit(&s->taken, memory_order_acquire) != TAKEN_WHOLE) return false;
    const struct block_base *base = &s->taking.is.base;
    struct storage_snapshot before = s->table.snapshot;
    if (base->index > s->table.last_index) return false;
    if (base->index <= before.base.index) { /* an install overtook it (T41) */
        (void)file_remove(s, SNAPSHOT_NAME_TAKEN);
    } else if (file_error(s, snapshot_file_publish(s->disk, s->directory, SNAPSHOT_NAME_TAKEN, base->index)) != 0) {
        atomic_store_explicit(&s->snapshot_failed, true, memory_order_relaxed);
        (void)file_remove(s, SNAPSHOT_NAME_TAKEN);
    } else {
        int rc = transact(s, 0, fill_snapshot, NULL);
        if (rc == LOCKSTEP_ENOSPC) {
            atomic_store_explicit(&s->snapshot_failed, true, memory_order_relaxed);
            file_replaced(s, &s->taking.is);
        }
        if (rc == 0) {
            file_replaced(s, &before);
            compact_begin(s);
            atomic_fetch_add_explicit(&s->snapshots, 1, memory_order_relaxed);
            show_snapshot(s);
        }
    }
    atomic_store_explicit(&s->taken, TAKEN_NONE, memory_order_release);
    s->wake(s->wake_context, STORAGE_LOOP);
    return true;
}

void storage_incoming_show(struct storage *s)
{
    const struct incoming *in = &s->incoming;
    s->incoming_shown.snapshot = in->file != NULL ? in->head.is : (struct storage_snapshot){0};
    s->incoming_shown.offset = in->offset;
    s->incoming_shown.complete = in->file != NULL && in->offset == in->head.is.bytes;
}

static int incoming_drop(struct storage *s)
{
    snapshot_file_close(s->incoming.file);
    s->incoming = (struct incoming){0};
    return file_remove(s, SNAPSHOT_NAME_INCOMING);
}

/* Another snapshot comes: what is held of one before is not needed any more. */
static int incoming_begin(struct storage *s)
{
    struct incoming *in = &s->incoming;
    struct snapshot_file_head head = {.version = SNAPSHOT_FILE_VERSION,
                                      .group = s->group,
                                      .piece_bytes = s->install.piece_bytes,
                                      .is = s->install.snapshot};
    int rc = incoming_drop(s);
    if (rc == 0) rc = snapshot_file_create(s->disk, s->directory, SNAPSHOT_NAME_INCOMING, &in->file);
    if (rc == 0) rc = snapshot_file_write_head(in->file, &head);
    if (rc == 0) rc = s->disk->flush_directory(s->disk->context, s->directory);
    if (rc == 0) in->head = head;
    return rc;
}

/* Count the piece that was written, and flush what is due. Nothing of a file whose flush failed is used (R8). */
static int piece_count(struct storage *s)
{
    struct incoming *in = &s->incoming;
    uint64_t offset = in->offset + s->install.count;
    uint32_t checksum = crc32c_extend(in->checksum, s->install.bytes, s->install.count);
    bool whole = offset == in->head.is.bytes;
    if (whole && checksum != in->head.is.checksum) {
        s->incoming_shown.discarded++;
        return incoming_drop(s);
    }
    int rc = snapshot_file_flush(in->file);
    if (rc != 0) {
        (void)incoming_drop(s);
        return rc;
    }
    in->offset = offset;
    in->checksum = checksum;
    return 0;
}

/* A piece that is the next one. No space to write it: it is as if it had not come. */
static void command_piece(struct storage *s)
{
    struct incoming *in = &s->incoming;
    bool other = in->file == NULL || !snapshot_same(&in->head.is, &s->install.snapshot);
    int rc = other ? incoming_begin(s) : 0;
    if (rc == 0)
        rc = snapshot_file_write(in->file, in->head.piece_bytes, (uint32_t)(in->offset / in->head.piece_bytes),
                                 s->install.bytes, (uint32_t)s->install.count);
    if (rc == 0)
        rc = piece_count(s);
    else if (other)
        (void)incoming_drop(s);
    (void)file_error(s, rc);
}

static int fill_install(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    const struct storage_install_configuration *configuration = &s->install.configuration;
    (void)context;
    next->snapshot = s->incoming.head.is;
    next->base = next->snapshot.base;
    next->last_index = next->base.index;
    next->last_crc = next->base.crc;
    next->blocks_bytes = 0;
    next->install_index = next->base.index;
    next->configuration_index = configuration->index;
    int rc = table_runs_trim(s->kv, txn, next, true);
    if (rc == 0 && configuration->index != 0)
        rc = table_configuration_put(s->kv, txn, configuration->index, configuration->bytes, configuration->count);
    return rc;
}

/* False: no space now; tried again. */
static bool command_install(struct storage *s)
{
    struct incoming *in = &s->incoming;
    struct storage_snapshot before = s->table.snapshot;
    if (!in->published) {
        int rc = snapshot_file_publish(s->disk, s->directory, SNAPSHOT_NAME_INCOMING, in->head.is.base.index);
        if (file_error(s, rc) == LOCKSTEP_EIO) return true;
        s->snapshot_stalled = rc != 0;
        if (rc != 0) return false;
        in->published = true;
    }
    raft_index base_before = atomic_load_explicit(&s->base_index, memory_order_relaxed);
    atomic_store_explicit(&s->base_index, in->head.is.base.index, memory_order_release);
    int rc = transact(s, 1, fill_install, NULL);
    if (rc != 0) {
        atomic_store_explicit(&s->base_index, base_before, memory_order_release);
        return rc != LOCKSTEP_ENOSPC;
    }
    snapshot_file_close(in->file);
    *in = (struct incoming){0};
    file_replaced(s, &before);
    s->install_seq = 0;
    s->stored_base = s->table.base;
    s->dead_blocks_due = true;
    s->compact_due = false;
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
    if (command == INSTALL_DROP) (void)incoming_drop(s);
    if (command == INSTALL_ALL && !command_install(s)) return false;
    storage_incoming_show(s);
    atomic_store_explicit(&s->install.command, INSTALL_NONE, memory_order_release);
    s->wake(s->wake_context, STORAGE_LOOP);
    return true;
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

/* How far compaction came. */
struct compaction {
    bool due;
    uint64_t bytes_due;
};

/* Move the base over blocks that the snapshot stands for, and erase them. */
static int fill_compact(struct storage *s, struct kv_txn *txn, struct table_state *next, void *context)
{
    struct compaction *going = context;
    for (uint32_t i = 0; i < COMPACT_BLOCKS_MAX && next->base.index < next->snapshot.base.index; i++) {
        const void *value = NULL;
        size_t count = 0;
        struct block_header header;
        int rc = s->kv->get(txn, TABLE_BLOCKS, next->base.index + 1, &value, &count);
        if (rc == 0) rc = block_header_read(value, count, &header);
        if (rc == 0) rc = block_chain_check(&next->base, &header);
        if (rc != 0) return rc == LOCKSTEP_EIO ? rc : LOCKSTEP_ECORRUPT;
        bool is_old = s->keep_ns != 0 && next->snapshot.base.time_ns - header.time_ns >= s->keep_ns;
        if (header.bytes > going->bytes_due && !is_old) {
            going->due = false;
            break;
        }
        going->bytes_due -= header.bytes < going->bytes_due ? header.bytes : going->bytes_due;
        next->blocks_bytes -= header.bytes;
        next->base = block_base_after(&header);
        rc = s->kv->erase(txn, TABLE_BLOCKS, header.index);
        if (rc != 0) return rc;
        /* before the commit: a reader that finds the block missing sees why */
        atomic_store_explicit(&s->base_index, next->base.index, memory_order_release);
    }
    if (next->base.index == next->snapshot.base.index) going->due = false;
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
    if (!s->compact_due) return false;
    struct compaction going = {.due = true, .bytes_due = s->compact_bytes_due};
    if (transact(s, 0, fill_compact, &going) != 0) {
        show_snapshot(s); /* base_index as it is */
        return false;
    }
    s->compact_due = going.due;
    s->compact_bytes_due = going.bytes_due;
    show_snapshot(s);
    return true;
}

/* --- opening -------------------------------------------------------------------------------------------------------- */

int storage_snapshot_check(struct storage *s, char name[SNAPSHOT_NAME_BYTES], uint32_t *ret_version)
{
    struct snapshot_file *file = NULL;
    struct snapshot_file_head head = {0};
    int rc = 0;
    if (s->table.snapshot.base.index != 0) {
        snapshot_file_name(name, s->table.snapshot.base.index);
        rc = snapshot_file_open(s->disk, s->directory, name, false, &file, &head);
        if (rc == 0 && (head.group != s->group || !snapshot_same(&head.is, &s->table.snapshot))) rc = LOCKSTEP_ECORRUPT;
        snapshot_file_close(file);
        file = NULL;
    }
    if (rc == 0) {
        rc = snapshot_file_open(s->disk, s->directory, SNAPSHOT_NAME_INCOMING, false, &file, &head);
        snapshot_file_close(file);
        if (rc == LOCKSTEP_EVERSION)
            snprintf(name, SNAPSHOT_NAME_BYTES, "%s", SNAPSHOT_NAME_INCOMING);
        else if (rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_ENOTFOUND)
            return 0; /* it can be brought again */
    }
    *ret_version = head.version;
    return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;
}

struct leftovers {
    raft_index named, index[64]; /* what is beyond goes at the next start */
    unsigned count;
};

static void note_leftover(void *context, const char *name)
{
    struct leftovers *left = context;
    raft_index index;
    if (!snapshot_file_index(name, &index) || index == left->named) return;
    if (left->count < sizeof left->index / sizeof left->index[0]) left->index[left->count++] = index;
}

static int files_clean(struct storage *s)
{
    char name[SNAPSHOT_NAME_BYTES];
    struct leftovers left = {.named = s->table.snapshot.base.index};
    int rc = snapshot_file_remove(s->disk, s->directory, SNAPSHOT_NAME_TAKEN);
    if (rc == 0) rc = s->disk->list(s->disk->context, s->directory, note_leftover, &left);
    for (unsigned i = 0; i < left.count && rc == 0; i++) {
        snapshot_file_name(name, left.index[i]);
        rc = snapshot_file_remove(s->disk, s->directory, name);
    }
    return rc;
}

/* What is there of a leader's snapshot goes on behind its last whole piece. */
static int incoming_recover(struct storage *s)
{
    struct incoming *in = &s->incoming;
    int rc = snapshot_file_open(s->disk, s->directory, SNAPSHOT_NAME_INCOMING, true, &in->file, &in->head);
    if (rc == 0) rc = snapshot_file_refresh(in->file);
    if (rc == 0) rc = snapshot_file_scan(in->file, &in->head, s->install.bytes, &in->offset, &in->checksum);
    bool usable = rc == 0 && in->offset > 0 && in->head.group == s->group &&
                  (in->offset < in->head.is.bytes || in->checksum == in->head.is.checksum);
    if (rc == LOCKSTEP_ENOTFOUND) return 0;
    if (rc == LOCKSTEP_ECORRUPT || (rc == 0 && !usable)) return incoming_drop(s);
    s->install.piece_bytes = in->head.piece_bytes;
    return rc;
}

int storage_snapshot_recover(struct storage *s)
{
    const struct table_state *table = &s->table;
    struct kv_txn *txn = NULL;
    uint64_t key = 0;
    int rc = files_clean(s);
    if (rc == 0) rc = incoming_recover(s);
    if (rc == 0) rc = s->kv->begin_read(s->map, &txn);
    if (rc != 0) return rc;
    rc = s->kv->first(txn, TABLE_BLOCKS, &key);
    s->kv->abort(txn);
    s->dead_blocks_due = rc == 0 && key <= table->base.index;
    compact_begin(s);
    storage_incoming_show(s);
    return rc == LOCKSTEP_ENOTFOUND ? 0 : rc;
}

bool storage_snapshot_work(struct storage *s)
{
    return run_command(s) || taken_count(s) || clean_up(s);
}
