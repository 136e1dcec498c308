/* SPDX-License-Identifier: Apache-2.0 */
/* open.c - from a directory to a storage that may promise again.
 * Thread: the one that opens; the others do not run yet.
 * J3  Nothing that is read counts as durable before this process has flushed it. Each file is flushed, its cached pages
 *     dropped, and then read. The boot counter is raised durably; the live tail is written, packed, into frames of this
 *     boot behind the last good frame, and flushed; then one transaction names {boot, Q}. Until that transaction the old
 *     tail is the truth: frames of a boot that LMDB does not name are ignored and written over.
 *
 *   boot       the counter, and whether the first start came to its end
 *   data.mdb   the log; names the journal by id and the boot whose frames count
 *   journal    frames
 *
 * A first start: boot{1, not complete}, empty data.mdb, empty journal, one frame, the first transaction, boot{1,
 * complete}. A crash anywhere in between leaves "not complete", and nothing was promised: it starts over. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/advice.h"
#include "storage/boot.h"
#include "storage/recovery.h"
#include "storage/state.h"

/* What storage_open() works with until it is done. */
struct opening {
    const struct storage_options *options;
    const char *journal_directory;
    struct storage *storage;
    struct boot boot;
    uint64_t host_boot; /* 0 = not known */
    bool has_table;     /* data.mdb holds a state record */
    struct kv_txn *txn;
    struct recovery recovery;
    struct storage_missing missing[STORAGE_MISSING_MAX];
    uint32_t missing_count;
    char *why;
    size_t why_room;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct opening *o, int rc, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = snprintf(o->why, o->why_room, "data directory %s: ", o->options->directory);
    if (count > 0 && (size_t)count < o->why_room)
        vsnprintf(o->why + count, o->why_room - (size_t)count, format, arguments);
    va_end(arguments);
    return rc;
}

static int refuse_format(struct opening *o, const char *what, uint32_t format, uint32_t known)
{
    return refuse(o, LOCKSTEP_EVERSION,
                  format > known ? "%s of a newer version of lockstep (format %" PRIu32
                                   ", this one reads up to %" PRIu32 "); install that version"
                                 : "%s of an older version of lockstep (format %" PRIu32 ", this one reads %" PRIu32
                                   "); install that version",
                  what, format, known);
}

/* --- boot --------------------------------------------------------------------------------------------------------- */

/* A first start writes `boot` before any other file: where one is there without it, the directory lost what it promised, and
 * the journal may be all that is left. */
static int first_start_check(struct opening *o)
{
    const struct {
        const char *directory, *name;
    } others[] = {
        {o->options->directory, "data.mdb"}, {o->options->directory, "journal"}, {o->journal_directory, "journal"}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char path[STORAGE_PATH_BYTES_MAX];
        bool there = false;
        int rc = storage_path(path, others[i].directory, others[i].name);
        if (rc == 0) rc = o->options->disk->exists(o->options->disk->context, path, &there);
        if (rc != 0)
            return refuse(o, rc, "cannot look for %s/%s: %s; %s", others[i].directory, others[i].name,
                          lockstep_error_text(rc), ADVICE_DISK);
        if (there && others[i].directory != o->options->directory)
            return refuse(o, LOCKSTEP_ECORRUPT,
                          "never started, or its file 'boot' is gone, but there is a journal in %s: if it is another "
                          "node's, name another journal_dir; if it is this one's, move it away, give the node an empty "
                          "directory and run member replace",
                          others[i].directory);
        if (there)
            return refuse(o, LOCKSTEP_ECORRUPT, "its file 'boot' is gone but '%s' is there: promises were lost; %s",
                          others[i].name, ADVICE_LOST);
    }
    return 0;
}

static int boot_look(struct opening *o)
{
    struct boot boot;
    int rc = o->options->disk->host_boot(o->options->disk->context, &o->host_boot);
    if (rc != 0 && o->options->level == DURABILITY_LEVEL_OS)
        return refuse(o, rc,
                      "the system does not tell when its host was started (/proc/sys/kernel/random/boot_id): %s; "
                      "durability \"os\" needs it",
                      lockstep_error_text(rc));
    rc = boot_read(o->options->disk, o->options->directory, &boot);
    switch (rc) {
    case 0: break;
    case LOCKSTEP_ENOTFOUND: return first_start_check(o); /* the counter is 0 */
    case LOCKSTEP_ECORRUPT: return refuse(o, rc, "its file 'boot' is damaged; %s", ADVICE_LOST);
    case LOCKSTEP_EVERSION: return refuse_format(o, "its file 'boot' is", boot.version, BOOT_VERSION);
    default: return refuse(o, rc, "its file 'boot' cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
    }
    if (boot.member_id != o->options->member_id)
        return refuse(o, LOCKSTEP_EFOREIGN,
                      "its file 'boot' belongs to member %016" PRIx64 ", this is %016" PRIx64 "; %s", boot.member_id,
                      o->options->member_id, ADVICE_LOST);
    if (boot.complete && boot_counts_as_wiped(&boot, o->options->level, o->host_boot))
        return refuse(
            o, LOCKSTEP_ECORRUPT,
            "its host started anew without a clean stop of this node: what it promised last was not flushed and may be "
            "lost, and it counts as wiped; give it an empty directory and run member replace");
    o->boot = boot;
    return 0;
}

static int boot_store(struct opening *o, uint64_t boot, bool complete)
{
    /* A shorter setting does not shorten what was promised: that has to end first. */
    uint64_t promise_ns = o->options->promise_ns > o->boot.promise_ns ? o->options->promise_ns : o->boot.promise_ns;
    const struct boot next = {.boot = boot,
                              .complete = complete,
                              .member_id = o->options->member_id,
                              .host_boot = o->host_boot,
                              .promise_ns = promise_ns};
    int rc = boot_write(o->options->disk, o->options->directory, &next);
    if (rc != 0)
        return refuse(o, rc, "its file 'boot' cannot be written: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
    o->boot = next;
    return 0;
}

/* --- the log ------------------------------------------------------------------------------------------------------ */

static int table_open(struct opening *o)
{
    struct storage *s = o->storage;
    const struct storage_options *options = o->options;
    int rc = options->kv->open(options->kv->context, options->directory, o->boot.complete ? KV_WRITE : KV_CREATE,
                               options->map_bytes, TABLES, &s->map, o->why, o->why_room);
    if (rc != 0) return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;
    rc = options->kv->begin_read(s->map, &o->txn);
    if (rc != 0) return refuse(o, rc, "data.mdb cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
    rc = table_state_read(options->kv, o->txn, &s->table);
    if (rc == LOCKSTEP_ENOTFOUND && !o->boot.complete) return 0;
    switch (rc) {
    case 0: break;
    case LOCKSTEP_ENOTFOUND:
        return refuse(o, LOCKSTEP_ECORRUPT, "its log was lost: data.mdb is empty; %s", ADVICE_LOST);
    case LOCKSTEP_EVERSION: return refuse_format(o, "the state record in data.mdb is", s->table.format, STORAGE_FORMAT);
    default: return refuse(o, rc, "the state record in data.mdb is damaged, votes may be lost; %s", ADVICE_LOST);
    }
    if (s->table.member_id != options->member_id || s->table.group != options->group)
        return refuse(o, LOCKSTEP_EFOREIGN,
                      "data.mdb belongs to member %016" PRIx64 ", group %" PRIu32 ", this is %016" PRIx64
                      ", group %" PRIu32 "; %s",
                      s->table.member_id, s->table.group, options->member_id, options->group, ADVICE_LOST);
    if (s->table.boot > o->boot.boot)
        return refuse(o, LOCKSTEP_ECORRUPT,
                      "data.mdb knows boot %" PRIu64 ", but the counter in 'boot' says %" PRIu64
                      ": the files are from different times; %s",
                      s->table.boot, o->boot.boot, ADVICE_LOST);
    const struct table_state *table = &s->table;
    raft_index snapshot = table->snapshot.base.index;
    if (table->base.index > snapshot || snapshot > table->last_index)
        return refuse(o, LOCKSTEP_ECORRUPT,
                      "data.mdb has compacted its log up to block %" PRIu64 " and has no snapshot of it; %s",
                      table->base.index, ADVICE_LOST);
    o->has_table = true;
    return 0;
}

static int snapshots_check(struct opening *o)
{
    char name[SNAPSHOT_NAME_BYTES] = "";
    uint32_t version = 0;
    if (!o->has_table) return 0;
    int rc = storage_snapshot_check(o->storage, name, &version);
    switch (rc) {
    case 0: return 0;
    case LOCKSTEP_EVERSION: {
        char what[sizeof name + 8];
        snprintf(what, sizeof what, "%s is", name);
        return refuse_format(o, what, version, SNAPSHOT_FILE_VERSION);
    }
    case LOCKSTEP_ECORRUPT: return refuse(o, rc, "%s is damaged or missing; %s", name, ADVICE_LOST);
    default: return refuse(o, rc, "%s cannot be read: %s; %s", name, lockstep_error_text(rc), ADVICE_DISK);
    }
}

static int snapshots_recover(struct opening *o)
{
    int rc = storage_snapshot_recover(o->storage);
    if (rc == 0) return 0;
    return refuse(o, rc, "what was left of snapshots cannot be read or removed: %s; %s", lockstep_error_text(rc),
                  ADVICE_DISK);
}

static void table_birth(struct opening *o)
{
    const struct storage_options *options = o->options;
    o->storage->table = (struct table_state){.group = options->group,
                                             .member_id = options->member_id,
                                             .journal_id = options->random_id,
                                             .base = options->birth,
                                             .last_index = options->birth.index,
                                             .last_crc = options->birth.crc,
                                             .q = journal_birth()};
}

static void missing_add(struct opening *o, const struct storage_missing *missing)
{
    if (o->missing_count < STORAGE_MISSING_MAX) o->missing[o->missing_count++] = *missing;
}

/* Patches for blocks that the log holds damaged, or has lost. They are what the state record and the blocks behind them
 * say stood there. */
static int log_patch(struct opening *o)
{
    struct storage *s = o->storage;
    const struct table_state *table = &s->table;
    for (uint32_t i = 0; o->has_table && i < o->options->patch_count; i++) {
        const struct storage_patch *patch = &o->options->patches[i];
        const uint8_t *block = NULL;
        struct block_header header;
        struct kv_txn *txn = NULL;
        if (patch->index <= table->base.index || patch->index > table->last_index) continue;
        if (table_block_read(s->kv, o->txn, patch->index, &block, &header) == 0) continue;
        s->kv->abort(o->txn); /* it would keep the log's old pages */
        o->txn = NULL;
        int rc = storage_grow(s, patch->bytes);
        if (rc == 0) rc = s->kv->begin_write(s->map, &txn);
        if (rc == 0) rc = table_block_put(s->kv, txn, patch->index, patch->block, patch->bytes);
        if (rc == 0) {
            rc = s->kv->commit(txn);
            txn = NULL;
        }
        s->kv->abort(txn);
        if (rc == 0) rc = s->kv->begin_read(s->map, &o->txn);
        if (rc != 0)
            return refuse(o, rc, "block %" PRIu64 " in data.mdb was damaged and cannot be put right: %s; %s",
                          patch->index, lockstep_error_text(rc), ADVICE_LOST);
    }
    return 0;
}

/* All of the log, from its end down: what is damaged or gone is named by the block behind it. It is read before anybody
 * counts on it, as the machine's replay would read it anyway. */
static int log_check(struct opening *o)
{
    struct storage *s = o->storage;
    const struct table_state *table = &s->table;
    struct storage_missing run = {0};
    uint32_t expected = table->last_crc;
    raft_index bad = 0;
    for (raft_index i = table->last_index; o->has_table && i > table->base.index; i--) {
        const uint8_t *block = NULL;
        struct block_header header;
        int rc = table_block_read(s->kv, o->txn, i, &block, &header);
        if (rc == LOCKSTEP_EVERSION) return refuse_format(o, "data.mdb holds a block", header.version, BLOCK_VERSION);
        if (rc == LOCKSTEP_EIO || rc == LOCKSTEP_ENOMEM)
            return refuse(o, rc, "data.mdb cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
        bool good = rc == 0 && (run.index != 0 || header.header_crc == expected);
        if (good && run.index != 0) missing_add(o, &run);
        if (good) {
            run.index = 0;
            expected = header.previous_crc;
            continue;
        }
        bad = i;
        if (run.index == 0) run = (struct storage_missing){.index = i, .crc = expected};
        run.first = i;
    }
    if (run.index != 0) missing_add(o, &run);
    if (bad == 0 && o->has_table && expected != table->base.crc)
        bad = table->base.index + 1; /* and nobody knows which */
    if (bad == 0) return 0;
    return refuse(o, LOCKSTEP_ECORRUPT, "block %" PRIu64 " in data.mdb is damaged or missing; %s", bad, ADVICE_LOST);
}

/* The log's last block, and that it is the one the state record names: a tail that the map lost shows here. */
static int table_last(struct opening *o)
{
    struct storage *s = o->storage;
    uint64_t last = 0;
    if (!o->has_table || s->table.last_index == s->table.base.index) {
        s->stored_base = s->table.base;
        return 0;
    }
    int rc = s->kv->last(o->txn, TABLE_BLOCKS, &last);
    const uint8_t *block = NULL;
    struct block_header header;
    if (rc == 0) rc = table_block_read(s->kv, o->txn, s->table.last_index, &block, &header);
    if (rc == LOCKSTEP_EVERSION) return refuse_format(o, "data.mdb holds a block", header.version, BLOCK_VERSION);
    if (rc == LOCKSTEP_EIO)
        return refuse(o, rc, "data.mdb cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
    if (rc != 0 || last != s->table.last_index || header.header_crc != s->table.last_crc)
        return refuse(o, LOCKSTEP_ECORRUPT, "block %" PRIu64 " in data.mdb is damaged or missing; %s",
                      s->table.last_index, ADVICE_LOST);
    s->stored_base = block_base_after(&header);
    return 0;
}

/* --- the journal -------------------------------------------------------------------------------------------------- */

static int journal_find(struct opening *o)
{
    struct storage *s = o->storage;
    const struct disk *disk = o->options->disk;
    int rc = 0;
    if (!o->has_table && o->journal_directory != o->options->directory)
        rc = storage_name_flush(disk, o->journal_directory);
    if (rc == 0 && !o->has_table) rc = journal_create(disk, o->journal_directory, s->table.journal_id);
    if (rc == 0) rc = journal_open(&s->journal, disk, o->journal_directory, false);
    switch (rc) {
    case 0: break;
    case LOCKSTEP_ENOTFOUND:
        if (o->journal_directory != o->options->directory)
            return refuse(
                o, LOCKSTEP_ECORRUPT,
                "there is no journal in %s: mount its disk, or name the right journal_dir; if it is lost, so is "
                "what was promised: give the node an empty directory and run member replace",
                o->journal_directory);
        return refuse(o, LOCKSTEP_ECORRUPT, "its journal is gone: promises were lost; %s", ADVICE_LOST);
    case LOCKSTEP_ELOCKED:
        return refuse(
            o, rc,
            "its journal in %s is in use by another process, which runs in a copy of this directory; stop that "
            "one first, and keep one of the two",
            o->journal_directory);
    case LOCKSTEP_ECORRUPT: return refuse(o, rc, "the first page of its journal is damaged; %s", ADVICE_LOST);
    case LOCKSTEP_EVERSION: return refuse_format(o, "its journal is", s->journal.version, JOURNAL_VERSION);
    default:
        return refuse(o, rc, "its journal in %s cannot be opened: %s; %s", o->journal_directory,
                      lockstep_error_text(rc), ADVICE_DISK);
    }
    if (s->journal.id != s->table.journal_id)
        return refuse(o, LOCKSTEP_EFOREIGN,
                      "the journal in %s belongs to another directory; name the right journal_dir, or %s",
                      o->journal_directory, ADVICE_LOST);
    return 0;
}

/* Its space is taken at once: no disk that fills up later can stop promises (J8). */
static int journal_reserve(struct opening *o)
{
    struct storage *s = o->storage;
    int rc = s->journal.disk->reserve(s->journal.file, s->shape.bytes);
    if (rc == 0) return 0;
    return refuse(o, rc, "no room for a journal of %" PRIu64 " bytes in %s: %s; free some or lower [storage] journal",
                  s->shape.bytes, o->journal_directory, lockstep_error_text(rc));
}

/* What the journal says above the log. */
static int replay(struct opening *o)
{
    struct storage *s = o->storage;
    if (!o->has_table) {
        o->recovery.end = s->table.q;
        o->recovery.commit = s->table.base.index;
        return 0;
    }
    char why[512] = "";
    int rc = recovery_replay(&s->journal, s->kv, o->txn, &s->table, &s->stored_base, o->options->patches,
                             o->options->patch_count, &o->recovery, why, sizeof why);
    if (o->recovery.missing.index != 0) missing_add(o, &o->recovery.missing);
    return rc == 0 ? 0 : refuse(o, rc, "%s", why);
}

/* --- configurations ----------------------------------------------------------------------------------------------- */

/* Room for one more; NULL: no memory. */
static struct storage_configuration *configuration_add(struct storage *s, raft_index index)
{
    struct storage_configuration *more =
        realloc(s->configurations, (s->configuration_count + 1) * sizeof *s->configurations);
    if (more == NULL) return NULL;
    s->configurations = more;
    struct storage_configuration *added = &more[s->configuration_count++];
    added->index = index;
    return added;
}

/* The newest one that the log holds: it is committed, what stands above it may be cut. */
static int configuration_stored(struct opening *o)
{
    struct storage *s = o->storage;
    if (!o->has_table || s->table.configuration_index == 0) return 0;
    struct storage_configuration *stored = configuration_add(s, s->table.configuration_index);
    if (stored == NULL) return refuse(o, LOCKSTEP_ENOMEM, "out of memory; free some");
    int rc = table_configuration_read(s->kv, o->txn, stored->index, &stored->configuration);
    if (rc == 0) return 0;
    const void *value = NULL;
    size_t count = 0;
    if (rc == LOCKSTEP_EVERSION && s->kv->get(o->txn, TABLE_CONFIGURATIONS, stored->index, &value, &count) == 0)
        return refuse_format(o, "data.mdb holds a configuration", configuration_version(value), CONFIGURATION_VERSION);
    return refuse(o, rc, "the configuration of block %" PRIu64 " in data.mdb is damaged or missing; %s", stored->index,
                  ADVICE_LOST);
}

/* --- the ring ----------------------------------------------------------------------------------------------------- */

/* Read the live blocks from the journal into the ring, checked once more. */
static int ring_fill(struct opening *o)
{
    struct storage *s = o->storage;
    const struct recovery *recovery = &o->recovery;
    for (size_t i = 0; i < recovery->block_count; i++) {
        const struct recovery_block *from = &recovery->blocks[i];
        struct block_header header;
        uint8_t *to = NULL;
        size_t count = 0;
        struct block_base last = ring_last(s->ring);
        int rc = from->bytes <= o->options->block_bytes_max ? ring_claim(s->ring, from->bytes, &to) : LOCKSTEP_EFULL;
        if (rc != 0)
            return refuse(o, LOCKSTEP_EINVAL,
                          "its live blocks take %" PRIu64 " bytes (%zu blocks), the ring has %" PRIu64
                          "; set [limits] ring to its old, larger size",
                          recovery->blocks_bytes, recovery->block_count, s->ring_bytes);
        rc = 0;
        count = from->bytes;
        if (from->patch != NULL)
            memcpy(to, from->patch, from->bytes);
        else
            rc = s->journal.disk->pread(s->journal.file, to, from->bytes, from->offset, &count);
        if (rc != 0) return refuse(o, rc, "its journal cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
        rc = block_header_read(to, count, &header);
        if (rc == 0) rc = header.header_crc == from->crc ? block_body_check(to, &header) : LOCKSTEP_ECORRUPT;
        if (rc == 0) rc = block_chain_check(&last, &header);
        if (rc == 0 && header.type == BLOCK_CONFIGURATION) {
            struct storage_configuration *configuration = configuration_add(s, header.index);
            if (configuration == NULL) return refuse(o, LOCKSTEP_ENOMEM, "out of memory; free some");
            rc = configuration_read(to + BLOCK_HEADER_BYTES, header.bytes - BLOCK_HEADER_BYTES,
                                    &configuration->configuration);
            if (rc == LOCKSTEP_EVERSION)
                return refuse_format(o, "its journal holds a configuration",
                                     configuration_version(to + BLOCK_HEADER_BYTES), CONFIGURATION_VERSION);
        }
        if (rc != 0)
            return refuse(o, LOCKSTEP_ECORRUPT, "block %" PRIu64 " in its journal is damaged; %s", from->index,
                          ADVICE_LOST);
        ring_publish(s->ring, &header);
    }
    return 0;
}

/* --- this boot ---------------------------------------------------------------------------------------------------- */

/* The live tail, packed, into frames of this boot; the hard state in each of them. At least one frame. */
static int pack(struct opening *o)
{
    struct storage *s = o->storage;
    struct block_base last = ring_last(s->ring);
    raft_index first = s->stored_base.index + 1;
    uint64_t limit = journal_linear(&s->shape, s->table.q.lap, s->table.q.offset) + journal_span(&s->shape);
    struct request request = {
        .has_hard_state = true, .hard_state = o->recovery.hard_state, .commit = o->recovery.commit, .pack = true};
    s->group_now = (struct frame_group){.group = s->table.group,
                                        .term = o->recovery.hard_state.term,
                                        .vote = o->recovery.hard_state.vote,
                                        .last_index = last.index,
                                        .last_crc = last.crc,
                                        .commit = o->recovery.commit};
    do {
        if (first <= last.index) {
            struct ring_slot slot;
            int found = ring_find(s->ring, first, &slot);
            lk_assert(found == 0);
            request.first = first;
            request.pos = slot.pos;
            request.bytes = (uint32_t)ring_pack(s->ring, first, last.index,
                                                s->shape.frame_bytes_max - FRAME_HEADER_BYTES_MAX, &request.last);
            request.count = (uint32_t)(request.last - first + 1);
            first = request.last + 1;
        }
        storage_batch_add(s, &request);
        if (journal_end_after(&s->journal, FRAME_HEADER_BYTES_MAX + request.bytes + FRAME_PAGE_BYTES) > limit)
            return refuse(o, LOCKSTEP_ENOSPC,
                          "its journal of %" PRIu64 " bytes has no room for the %" PRIu64
                          " bytes of live blocks; set [storage] journal to a larger size",
                          s->shape.bytes, o->recovery.blocks_bytes);
        int rc = storage_frame_write(s);
        if (rc != 0)
            return refuse(o, rc, "its journal cannot be written: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
    } while (first <= last.index);
    s->pack_from_seq = 0;
    return 0;
}

/* The boot begins to count: from here on recovery reads the frames that pack() wrote. */
static int boot_commit(struct opening *o)
{
    struct storage *s = o->storage;
    s->kv->abort(o->txn); /* it would keep the log's old pages */
    o->txn = NULL;
    struct table_state next = s->table;
    next.boot = o->boot.boot;
    next.shape = s->shape;
    next.q = o->recovery.end;
    next.hard_state = o->recovery.hard_state;
    next.flushed_seq = s->journal.flushed_seq;
    next.install_index = 0; /* frames that it speaks of are those of the boot before */
    struct kv_txn *txn = NULL;
    int rc = s->kv->grow(s->map, 1 << 18);
    if (rc == 0) rc = s->kv->begin_write(s->map, &txn);
    if (rc == 0) rc = table_state_write(s->kv, txn, &next);
    if (rc == 0) {
        rc = s->kv->commit(txn);
        txn = NULL;
    }
    s->kv->abort(txn);
    if (rc != 0) return refuse(o, rc, "data.mdb cannot be written: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
    s->table = next;
    return 0;
}

/* --- all of it ------------------------------------------------------------------------------------------------------ */

static int check_options(struct opening *o)
{
    const struct storage_options *options = o->options;
    lk_assert(options->member_id != 0);
    if (options->journal_bytes < 4 * options->ring_bytes)
        return refuse(o, LOCKSTEP_EINVAL,
                      "a journal of %" PRIu64 " bytes is smaller than 4 rings of %" PRIu64
                      "; raise [storage] journal or lower [limits] ring",
                      options->journal_bytes, options->ring_bytes);
    return 0;
}

/* The boot that begins here, before it is stored. */
static uint64_t boot_of_this(const struct opening *o)
{
    return o->has_table ? o->boot.boot + 1 : o->boot.boot;
}

static int memory_open(struct opening *o, uint32_t block_bytes_max)
{
    struct storage *s = o->storage;
    const struct ring_options ring_options = {.bytes = o->options->ring_bytes,
                                              .block_bytes_max = block_bytes_max,
                                              .group = o->options->group,
                                              .cluster_id = o->options->cluster_id,
                                              .member_id = o->options->member_id,
                                              .boot = boot_of_this(o)};
    int rc = ring_open(&ring_options, &s->ring);
    if (rc == LOCKSTEP_EINVAL)
        return refuse(o, rc, "a ring of %" PRIu64 " bytes is no power of two from 64KiB on; change [limits] ring",
                      o->options->ring_bytes);
    /* Frames that may lie between Q and the newest: each takes a page at least. */
    s->frame_room = journal_span(&s->shape) / FRAME_PAGE_BYTES + 2;
    s->frames = calloc(s->frame_room, sizeof *s->frames);
    if (rc != 0 || s->frames == NULL || !spsc_open(&s->requests, STORAGE_REQUESTS_MAX, sizeof(struct request)) ||
        storage_snapshot_open(s) != 0)
        return refuse(o, LOCKSTEP_ENOMEM, "no memory for a ring of %" PRIu64 " bytes; free some or lower [limits] ring",
                      o->options->ring_bytes);
    return 0;
}

/* Everything that other threads and the loop start from. */
static void counters_start(struct opening *o)
{
    struct storage *s = o->storage;
    struct ring_status ring;
    ring_status_read(s->ring, &ring);
    struct block_base last = ring_last(s->ring);
    s->submitted_pos = ring.tail;
    s->submitted_last = last.index;
    s->submitted_crc = last.crc;
    s->hard_state = o->recovery.hard_state;
    s->hard_state_durable = o->recovery.hard_state;
    s->frames_seen = s->table.q.seq;
    storage_frames_look(s);
    atomic_store(&s->durable_pos, ring.tail);
    atomic_store(&s->taken_room_bytes, 0);
    atomic_store(&s->durable_ticket, 0);
    atomic_store(&s->stored, s->stored_base.index);
    atomic_store(&s->commit, s->stored_base.index);
    atomic_store(&s->base_index, s->table.base.index);
    atomic_store(&s->snapshot_index, s->table.snapshot.base.index);
    atomic_store(&s->blocks_bytes, s->table.blocks_bytes);
    atomic_store(&s->reclaimed, journal_linear(&s->shape, s->table.q.lap, s->table.q.offset));
}

static int recovered_runs(struct opening *o, uint32_t *ret_count)
{
    struct storage *s = o->storage;
    const struct recovery *recovery = &o->recovery;
    int rc = table_runs_read(s->kv, o->txn, &s->table, (uint32_t)recovery->block_count, &s->runs);
    if (rc == LOCKSTEP_ENOMEM) return refuse(o, rc, "out of memory; free some");
    uint32_t count = (uint32_t)s->table.run_count;
    raft_index base = s->table.base.index;
    raft_term term = count != 0 && rc == 0 ? s->runs[count - 1].term : s->table.base.term;
    if (rc != 0 || term != s->stored_base.term)
        return refuse(o, LOCKSTEP_ECORRUPT, "the terms of the log in data.mdb are damaged; %s", ADVICE_LOST);
    /* Runs are kept whole in the map: what lies at or below the base goes. */
    uint32_t gone = 0;
    while (gone < count && (gone + 1 < count ? s->runs[gone + 1].first_index - 1 : s->stored_base.index) <= base)
        gone++;
    count -= gone;
    memmove(s->runs, s->runs + gone, count * sizeof *s->runs);
    if (count != 0 && s->runs[0].first_index <= base) s->runs[0].first_index = base + 1;
    for (size_t i = 0; i < recovery->block_count; i++) {
        const struct recovery_block *block = &recovery->blocks[i];
        if (count != 0 && s->runs[count - 1].term == block->term) continue;
        s->runs[count++] = (struct storage_term_run){.first_index = block->index, .term = block->term};
    }
    *ret_count = count;
    return 0;
}

static int open_steps(struct opening *o, struct storage_recovered *ret)
{
    const struct storage_options *options = o->options;
    struct storage *s = o->storage;
    /* A ring holds at least 4 of its largest blocks. */
    uint64_t quarter = options->ring_bytes / 4;
    uint32_t block_bytes_max = quarter < options->block_bytes_max ? (uint32_t)quarter : options->block_bytes_max;
    uint32_t run_count = 0;
    int rc = check_options(o);
    if (rc == 0) rc = boot_look(o);
    if (rc == 0 && o->boot.boot == 0) rc = boot_store(o, 1, false);
    if (rc == 0) rc = table_open(o);
    if (rc == 0) rc = snapshots_check(o);
    if (rc != 0) return rc;
    if (!o->has_table) table_birth(o);
    /* The journal keeps the size it has: a smaller one in the configuration does not cut it. */
    uint64_t bytes = options->journal_bytes > s->table.shape.bytes ? options->journal_bytes : s->table.shape.bytes;
    s->shape = journal_shape(bytes, block_bytes_max);
    if (s->shape.frame_bytes_max < s->table.shape.frame_bytes_max)
        s->shape.frame_bytes_max = s->table.shape.frame_bytes_max;
    rc = log_patch(o);
    if (rc == 0) rc = log_check(o);
    if (rc == 0) rc = table_last(o);
    if (rc == 0) rc = journal_find(o);
    if (rc == 0) rc = replay(o);
    if (rc == 0) rc = recovered_runs(o, &run_count);
    if (rc == 0) rc = memory_open(o, block_bytes_max);
    if (rc != 0) return rc;
    ring_start(s->ring, &s->stored_base);
    rc = configuration_stored(o);
    if (rc == 0) rc = ring_fill(o);
    if (rc == 0) rc = journal_reserve(o);
    if (rc == 0) rc = boot_store(o, boot_of_this(o), o->boot.complete);
    if (rc != 0) return rc;
    journal_start(&s->journal, &s->shape, &o->recovery.end, o->boot.boot);
    s->journal.unflushed = options->level != DURABILITY_LEVEL_FSYNC;
    s->leaves_clean = options->level == DURABILITY_LEVEL_OS;
    rc = pack(o);
    if (rc == 0) rc = boot_commit(o);
    if (rc == 0) rc = boot_commit(o); /* again: a map that is one transaction old, by a flipped bit, names it too */
    if (rc == 0 && !o->boot.complete) rc = boot_store(o, o->boot.boot, true);
    if (rc == 0) rc = snapshots_recover(o);
    if (rc != 0) return rc;
    s->boot = o->boot;
    s->promise_ns = options->promise_ns;
    counters_start(o);
    *ret = (struct storage_recovered){.hard_state = o->recovery.hard_state,
                                      .base = s->table.base,
                                      .snapshot = s->table.snapshot,
                                      .last = ring_last(s->ring),
                                      .commit = o->recovery.commit,
                                      .stored = s->stored_base.index,
                                      .boot = o->boot.boot,
                                      .promise_ns = o->boot.promise_ns,
                                      .runs = s->runs,
                                      .run_count = run_count,
                                      .configurations = s->configurations,
                                      .configuration_count = s->configuration_count};
    return 0;
}

int storage_open(const struct storage_options *options, struct storage **ret, struct storage_recovered *ret_recovered,
                 char *why, size_t why_room)
{
    struct opening o = {.options = options,
                        .journal_directory =
                            options->journal_directory != NULL ? options->journal_directory : options->directory,
                        .why = why,
                        .why_room = why_room};
    o.storage = calloc(1, sizeof *o.storage);
    if (o.storage == NULL) return refuse(&o, LOCKSTEP_ENOMEM, "out of memory; free some");
    o.storage->kv = options->kv;
    o.storage->disk = options->disk;
    if (snprintf(o.storage->directory, sizeof o.storage->directory, "%s", options->directory) >=
        (int)sizeof o.storage->directory) {
        free(o.storage);
        return refuse(&o, LOCKSTEP_EINVAL, "its path is too long; give it a shorter one");
    }
    o.storage->ring_bytes = options->ring_bytes;
    o.storage->group = options->group;
    o.storage->wake = options->wake;
    o.storage->wake_context = options->wake_context;
    o.storage->piece_bytes = options->piece_bytes != 0 ? options->piece_bytes : SNAPSHOT_PIECE_BYTES;
    o.storage->keep_bytes = options->keep_bytes;
    o.storage->keep_ns = options->keep_ns;
    lk_assert(o.storage->piece_bytes <= SNAPSHOT_PIECE_BYTES_MAX);
    int rc = open_steps(&o, ret_recovered);
    if (o.txn != NULL) options->kv->abort(o.txn);
    recovery_free(&o.recovery);
    if (rc != 0) {
        *ret_recovered = (struct storage_recovered){0};
        if (rc == LOCKSTEP_ECORRUPT) {
            ret_recovered->boot = o.boot.boot + 1;
            ret_recovered->missing_count = o.missing_count;
            memcpy(ret_recovered->missing, o.missing, sizeof o.missing);
        }
        storage_close(o.storage);
        return rc;
    }
    *ret = o.storage;
    return 0;
}

int storage_promise_over(struct storage *s)
{
    s->boot.promise_ns = s->promise_ns;
    return boot_write(s->disk, s->directory, &s->boot);
}

/* At level os a clean stop is what makes the next start of the host harmless. Where it fails, the next start is told so. At
 * memory nobody may take over what a member held: forget.h. */
static void leave_clean(struct storage *s)
{
    struct boot boot = s->boot;
    if (!s->leaves_clean || !boot.complete || atomic_load(&s->failed) != 0) return;
    boot.clean = true;
    if (journal_flush(&s->journal) == 0) (void)boot_write(s->disk, s->directory, &boot);
}

void storage_close(struct storage *s)
{
    if (s == NULL) return;
    leave_clean(s);
    journal_close(&s->journal);
    if (s->map != NULL) s->kv->close(s->map);
    spsc_close(&s->requests);
    storage_snapshot_close(s);
    ring_close(s->ring);
    free(s->frames);
    free(s->runs);
    free(s->configurations);
    free(s);
}
