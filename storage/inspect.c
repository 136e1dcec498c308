/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - see inspect.h.
 * What a start does, without its writes: identity, boot, state record, journal page, replay of the journal over the log
 * (recovery.c). Where a start would end at the first thing that is wrong, this notes it and goes on with what does not
 * depend on it. */
#include "storage/inspect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/advice.h"
#include "storage/recovery.h"
#include "storage/snapshot_file.h"
#include "storage/state.h"

enum { FINDINGS_MAX = 1000 };

struct inspection {
    struct inspect_options options;
    struct identity_directory *directory;
    struct kv_map *map;
    struct kv_txn *txn;
    struct journal journal;
    struct recovery recovery;
    struct block_base stored; /* behind the log's last block; of a damaged one index and crc alone are known */
    struct inspect_view view;
    uint8_t *block; /* BLOCK_BYTES_MAX: one of the journal's, or a piece of a snapshot */
    char snapshot_name[SNAPSHOT_NAME_BYTES];
    struct inspect_finding *findings;
    size_t finding_count;
};

/* More than FINDINGS_MAX are not kept: nobody reads them, and the first ones say what to do. */
__attribute__((format(printf, 6, 7))) static void found(struct inspection *i, int error, const char *file,
                                                        uint64_t offset, raft_index index, const char *format, ...)
{
    if (i->finding_count == FINDINGS_MAX) return;
    struct inspect_finding *finding = &i->findings[i->finding_count++];
    *finding = (struct inspect_finding){.error = error, .file = file, .offset = offset, .index = index};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->text, sizeof finding->text, format, arguments);
    va_end(arguments);
}

static void found_format(struct inspection *i, const char *file, uint64_t offset, raft_index index, const char *what,
                         uint32_t format, uint32_t known)
{
    found(i, LOCKSTEP_EVERSION, file, offset, index,
          format > known ? "%s of a newer version of lockstep (format %" PRIu32 ", this one reads up to %" PRIu32
                           "); look at it with that version"
                         : "%s of an older version of lockstep (format %" PRIu32 ", this one reads %" PRIu32
                           "); look at it with that version",
          what, format, known);
}

/* --- frames --------------------------------------------------------------------------------------------------------- */

int inspect_frames(struct inspection *i, void (*frame)(void *context, const struct inspect_frame *frame), void *context)
{
    const struct table_state *table = &i->view.table;
    if (!i->view.has_table || !i->view.has_journal) return 0;
    struct journal_place at = table->q;
    for (;;) {
        uint8_t page[FRAME_PAGE_BYTES];
        struct inspect_frame now = {0};
        uint64_t lap;
        size_t count = 0;
        journal_next(&table->shape, &at, &lap, &now.offset);
        int rc = i->options.disk->pread(i->journal.file, page, sizeof page, now.offset, &count);
        if (rc != 0) return rc;
        struct frame_header *h = &now.header;
        if (frame_header_read(page, count, h) != 0) return 0;
        now.bytes = frame_bytes(h);
        if (h->journal_id != table->journal_id || h->boot != table->boot || h->lap != lap || h->seq != at.seq + 1 ||
            h->previous_crc != at.crc || now.bytes > table->shape.frame_bytes_max)
            return 0;
        at = (struct journal_place){
            .seq = h->seq, .boot = h->boot, .lap = lap, .offset = now.offset + now.bytes, .crc = h->header_crc};
        frame(context, &now);
    }
}

/* --- reading the parts ---------------------------------------------------------------------------------------------- */

static void look_at_boot(struct inspection *i)
{
    struct boot boot;
    int rc = boot_read(i->options.disk, i->options.directory, &boot);
    const struct inspect_view *v = &i->view;
    switch (rc) {
    case 0: break;
    case LOCKSTEP_ENOTFOUND:
        if (v->has_identity && v->identity.state == IDENTITY_COMPLETE)
            found(i, LOCKSTEP_ECORRUPT, "boot", UINT64_MAX, 0,
                  "is missing, and the node was part of a cluster: it never started, or promises were lost; %s",
                  ADVICE_LOST);
        return;
    case LOCKSTEP_ECORRUPT: found(i, rc, "boot", 0, 0, "is damaged; %s", ADVICE_LOST); return;
    case LOCKSTEP_EVERSION: found_format(i, "boot", 0, 0, "is", boot.version, BOOT_VERSION); return;
    default:
        found(i, rc, "boot", UINT64_MAX, 0, "cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
        return;
    }
    i->view.has_boot = true;
    i->view.boot = boot;
    uint64_t host_boot = 0;
    enum durability_level level = v->has_identity ? (enum durability_level)v->identity.birth.configuration.level : 0;
    (void)i->options.disk->host_boot(i->options.disk->context, &host_boot);
    if (boot.complete && boot_counts_as_wiped(&boot, level, host_boot))
        found(
            i, LOCKSTEP_ECORRUPT, "boot", UINT64_MAX, 0,
            "the host started anew without a clean stop of this node, or the directory was copied from a host where "
            "it was not stopped: what it promised last was not flushed, and it counts as wiped; give the node an empty "
            "directory and run member replace");
    if (v->has_identity && boot.member_id != v->identity.member_id)
        found(i, LOCKSTEP_EFOREIGN, "boot", 0, 0,
              "belongs to member %016" PRIx64 ", the directory to %016" PRIx64 "; %s", boot.member_id,
              v->identity.member_id, ADVICE_LOST);
}

static void look_at_table(struct inspection *i)
{
    const struct kv *kv = i->options.kv;
    char why[512];
    int rc = kv->open(kv->context, i->options.directory, KV_READ, 0, TABLES, &i->map, why, sizeof why);
    if (rc == LOCKSTEP_ENOTFOUND && !(i->view.has_boot && i->view.boot.complete)) return; /* no start came so far */
    if (rc != 0) {
        found(i, rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc, "data.mdb", 0, 0, "%s", why);
        return;
    }
    i->view.data_bytes = kv->file_bytes(i->map);
    rc = kv->begin_read(i->map, &i->txn);
    struct table_state table = {0};
    if (rc == 0) rc = table_state_read(kv, i->txn, &table);
    switch (rc) {
    case 0: break;
    case LOCKSTEP_ENOTFOUND:
        if (i->view.has_boot && i->view.boot.complete)
            found(i, LOCKSTEP_ECORRUPT, "data.mdb", UINT64_MAX, 0, "is empty: the log was lost; %s", ADVICE_LOST);
        return;
    case LOCKSTEP_EVERSION:
        found_format(i, "data.mdb", UINT64_MAX, 0, "its state record is", table.format, STORAGE_FORMAT);
        return;
    case LOCKSTEP_ECORRUPT:
        found(i, rc, "data.mdb", UINT64_MAX, 0, "its state record is damaged, votes may be lost; %s", ADVICE_LOST);
        return;
    default:
        found(i, rc, "data.mdb", UINT64_MAX, 0, "cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
        return;
    }
    struct inspect_view *v = &i->view;
    v->has_table = true;
    v->table = table;
    v->first = table.base.index + 1;
    v->stored = v->last = v->commit = table.last_index;
    v->hard_state = table.hard_state;
    v->journal = table.shape;
    i->stored = table.base;
    if (v->has_identity && table.member_id != v->identity.member_id)
        found(i, LOCKSTEP_EFOREIGN, "data.mdb", UINT64_MAX, 0,
              "belongs to member %016" PRIx64 ", the directory to %016" PRIx64 "; %s", table.member_id,
              v->identity.member_id, ADVICE_LOST);
    if (v->has_boot && table.boot > v->boot.boot)
        found(i, LOCKSTEP_ECORRUPT, "boot", UINT64_MAX, 0,
              "counts to %" PRIu64 ", but data.mdb knows boot %" PRIu64 ": the files are from different times; %s",
              v->boot.boot, table.boot, ADVICE_LOST);
    raft_index snapshot = table.snapshot.base.index;
    if (table.base.index > snapshot || snapshot > table.last_index)
        found(i, LOCKSTEP_ECORRUPT, "data.mdb", UINT64_MAX, 0,
              "its log begins behind block %" PRIu64 ", and it has no snapshot of it; %s", table.base.index,
              ADVICE_LOST);
    if (table.last_index == table.base.index) return;
    const uint8_t *block;
    struct block_header header;
    i->stored = (struct block_base){.index = table.last_index, .crc = table.last_crc};
    if (table_block_read(kv, i->txn, table.last_index, &block, &header) == 0) i->stored = block_base_after(&header);
}

static void look_at_journal(struct inspection *i)
{
    struct inspect_view *v = &i->view;
    const char *directory = i->options.journal_directory;
    int rc = journal_open(&i->journal, i->options.disk, directory, true);
    switch (rc) {
    case 0: break;
    case LOCKSTEP_ENOTFOUND:
        if (v->has_table)
            found(i, LOCKSTEP_ECORRUPT, "journal", UINT64_MAX, 0,
                  "is not in %s; if the configuration names a journal_dir, give --journal with the node's folder in "
                  "it; if not, promises were lost: %s",
                  directory, ADVICE_LOST);
        return;
    case LOCKSTEP_ECORRUPT: found(i, rc, "journal", 0, 0, "its first page is damaged; %s", ADVICE_LOST); return;
    case LOCKSTEP_EVERSION: found_format(i, "journal", 0, 0, "is", i->journal.version, JOURNAL_VERSION); return;
    default:
        found(i, rc, "journal", UINT64_MAX, 0, "cannot be read: %s; %s", lockstep_error_text(rc), ADVICE_DISK);
        return;
    }
    v->has_journal = true;
    if (!v->has_table) return;
    if (i->journal.id != v->table.journal_id) {
        found(i, LOCKSTEP_EFOREIGN, "journal", 0, 0, "belongs to another directory; name the right one, or %s",
              ADVICE_LOST);
        v->has_journal = false;
        return;
    }
    char why[512] = "";
    rc = recovery_replay(&i->journal, i->options.kv, i->txn, &v->table, &i->stored, NULL, 0, &i->recovery, why,
                         sizeof why);
    if (rc != 0) {
        uint64_t lap, offset;
        journal_next(&v->table.shape, &i->recovery.end, &lap, &offset); /* of the frame that it could not pass */
        /* its sentences begin with the file that is meant */
        bool log = strncmp(why, "log: ", 5) == 0;
        const char *text = log ? why + 5 : strncmp(why, "journal: ", 9) == 0 ? why + 9 : why;
        found(i, rc, log ? "data.mdb" : "journal", log ? UINT64_MAX : offset, 0, "%s", text);
        return;
    }
    v->has_tail = true;
    v->hard_state = i->recovery.hard_state;
    v->commit = i->recovery.commit;
    v->last = v->stored + i->recovery.block_count;
    v->tail_bytes = i->recovery.blocks_bytes;
    v->journal_end_seq = i->recovery.end.seq;
}

/* The newest configuration that can be read: of the journal's tail, of the log, of birth. */
static void look_at_configuration(struct inspection *i)
{
    struct inspect_view *v = &i->view;
    struct storage_configuration *to = &v->configuration;
    if (v->has_identity && v->identity.state == IDENTITY_COMPLETE) to->configuration = v->identity.birth.configuration;
    if (v->has_identity && v->identity.joined.index != 0) *to = v->identity.joined;
    if (!v->has_table) return;
    struct configuration read;
    raft_index index = v->table.configuration_index;
    int rc = index != 0 ? table_configuration_read(i->options.kv, i->txn, index, &read) : LOCKSTEP_ENOTFOUND;
    if (rc == 0 && index >= to->index) *to = (struct storage_configuration){.index = index, .configuration = read};
    if (rc == LOCKSTEP_ECORRUPT)
        found(i, rc, "data.mdb", UINT64_MAX, index, "the configuration of block %" PRIu64 " is damaged or missing; %s",
              index, ADVICE_LOST);
    if (rc == LOCKSTEP_EVERSION) {
        const void *value;
        size_t count;
        if (i->options.kv->get(i->txn, TABLE_CONFIGURATIONS, index, &value, &count) == 0)
            found_format(i, "data.mdb", i->options.kv->offset_of(i->txn, value), index, "a configuration is",
                         configuration_version(value), CONFIGURATION_VERSION);
    }
    v->committed = *to; /* the log's own */
    for (index = v->stored + 1; index <= v->last; index++) {
        const uint8_t *block;
        struct block_header header;
        if (inspect_block(i, index, &block, &header, NULL, NULL) != 0 || header.type != BLOCK_CONFIGURATION) continue;
        if (configuration_read(block + BLOCK_HEADER_BYTES, header.bytes - BLOCK_HEADER_BYTES, &read) == 0)
            *to = (struct storage_configuration){.index = index, .configuration = read};
        if (index <= v->commit) v->committed = *to;
    }
}

int inspect_open(const struct inspect_options *options, struct inspection **ret, char *why, size_t why_room)
{
    struct inspection *i = calloc(1, sizeof *i);
    if (i != NULL) i->block = malloc(BLOCK_BYTES_MAX);
    if (i != NULL) i->findings = calloc(FINDINGS_MAX, sizeof *i->findings);
    if (i == NULL || i->block == NULL || i->findings == NULL) {
        snprintf(why, why_room, "out of memory; free some");
        inspect_close(i);
        return LOCKSTEP_ENOMEM;
    }
    i->options = *options;
    if (i->options.journal_directory == NULL) i->options.journal_directory = i->options.directory;
    int rc = identity_look(options->disk, options->directory, &i->directory, &i->view.identity, why, why_room);
    if (i->directory == NULL) {
        inspect_close(i);
        return rc;
    }
    i->view.has_identity = rc == 0;
    if (rc != 0) found(i, rc, "identity", rc == LOCKSTEP_EIO ? UINT64_MAX : 0, 0, "%s", why);
    look_at_boot(i);
    look_at_table(i);
    look_at_journal(i);
    look_at_configuration(i);
    *ret = i;
    return 0;
}

void inspect_close(struct inspection *i)
{
    if (i == NULL) return;
    recovery_free(&i->recovery);
    journal_close(&i->journal);
    i->options.kv->abort(i->txn);
    i->options.kv->close(i->map);
    identity_close(i->directory);
    free(i->block);
    free(i->findings);
    free(i);
}

const struct inspect_view *inspect_view(const struct inspection *i)
{
    return &i->view;
}

const struct inspect_finding *inspect_findings(const struct inspection *i, size_t *ret_count)
{
    *ret_count = i->finding_count;
    return i->findings;
}

/* --- blocks ------------------------------------------------------------------------------------------------ */

/* One that the journal alone holds. */
static int tail_block(struct inspection *i, raft_index index, const uint8_t **ret_block,
                      struct block_header *ret_header, uint64_t *ret_offset)
{
    const struct recovery_block *from = &i->recovery.blocks[index - i->view.stored - 1];
    size_t count = 0;
    struct block_header header;
    int rc = i->options.disk->pread(i->journal.file, i->block, from->bytes, from->offset, &count);
    if (rc == 0) rc = block_header_read(i->block, count, &header);
    if (rc == 0) rc = header.header_crc == from->crc ? block_body_check(i->block, &header) : LOCKSTEP_ECORRUPT;
    if (rc != 0) return rc;
    *ret_block = i->block;
    *ret_header = header;
    *ret_offset = from->offset;
    return 0;
}

int inspect_block(struct inspection *i, raft_index index, const uint8_t **ret_block, struct block_header *ret_header,
                  const char **ret_file, uint64_t *ret_offset)
{
    const struct inspect_view *v = &i->view;
    if (!v->has_table || index < v->first || index > v->last) return LOCKSTEP_ENOTFOUND;
    bool in_log = index <= v->stored;
    uint64_t offset = UINT64_MAX;
    int rc;
    if (in_log) {
        rc = table_block_read(i->options.kv, i->txn, index, ret_block, ret_header);
        if (rc == LOCKSTEP_ENOTFOUND) rc = LOCKSTEP_ECORRUPT;
        if (rc == 0 && ret_offset != NULL) offset = i->options.kv->offset_of(i->txn, *ret_block);
    } else {
        rc = tail_block(i, index, ret_block, ret_header, &offset);
    }
    if (ret_file != NULL) *ret_file = in_log ? "data.mdb" : "journal";
    if (ret_offset != NULL) *ret_offset = offset;
    return rc;
}

void inspect_configuration(struct inspection *i, raft_index at, struct storage_configuration *ret)
{
    uint64_t index = 0;
    *ret = (struct storage_configuration){.configuration = i->view.identity.birth.configuration};
    if (!i->view.has_table) return;
    while (i->options.kv->seek(i->txn, TABLE_CONFIGURATIONS, index + 1, &index) == 0 && index <= at) {
        struct configuration read;
        if (table_configuration_read(i->options.kv, i->txn, index, &read) == 0)
            *ret = (struct storage_configuration){.index = index, .configuration = read};
    }
}

/* --- verify ----------------------------------------------------------------------------------------------------------- */

static void found_block(struct inspection *i, raft_index index, int rc, const struct block_header *header)
{
    const void *value = NULL;
    size_t count = 0;
    uint64_t offset = UINT64_MAX;
    if (i->options.kv->get(i->txn, TABLE_BLOCKS, index, &value, &count) == 0)
        offset = i->options.kv->offset_of(i->txn, value);
    if (rc == LOCKSTEP_EVERSION)
        found_format(i, "data.mdb", offset, index, "a block is", header->version, BLOCK_VERSION);
    else if (rc == LOCKSTEP_EIO)
        found(i, rc, "data.mdb", offset, index, "block %" PRIu64 " cannot be read; look at the disk", index);
    else
        found(i, LOCKSTEP_ECORRUPT, "data.mdb", offset, index, "block %" PRIu64 " is %s; %s", index,
              value == NULL ? "missing" : "damaged", ADVICE_LOST);
}

/* What the log says beside a block: its term's run, the row of its configuration. */
static void verify_beside(struct inspection *i, const uint8_t *block, const struct block_header *header, bool new_term,
                          const struct storage_term_run **run, const struct storage_term_run *end)
{
    while (*run < end && (*run)->first_index < header->index) ++*run;
    if (new_term && end != NULL &&
        (*run == end || (*run)->first_index != header->index || (*run)->term != header->term))
        found(i, LOCKSTEP_ECORRUPT, "data.mdb", UINT64_MAX, header->index,
              "term %" PRIu64 ", which begins with block %" PRIu64 ", is not in the table of terms; %s", header->term,
              header->index, ADVICE_LOST);
    if (header->type != BLOCK_CONFIGURATION) return;
    const void *row = NULL;
    size_t count = 0;
    int rc = i->options.kv->get(i->txn, TABLE_CONFIGURATIONS, header->index, &row, &count);
    if (rc != 0 || count != header->bytes - BLOCK_HEADER_BYTES || memcmp(row, block + BLOCK_HEADER_BYTES, count) != 0)
        found(i, LOCKSTEP_ECORRUPT, "data.mdb", rc == 0 ? i->options.kv->offset_of(i->txn, row) : UINT64_MAX,
              header->index, "the configuration kept beside block %" PRIu64 " is not the one in it; %s", header->index,
              ADVICE_LOST);
}

static int verify_log(struct inspection *i)
{
    const struct inspect_view *v = &i->view;
    struct storage_term_run *runs = NULL;
    int rc = table_runs_read(i->options.kv, i->txn, &v->table, 0, &runs);
    if (rc == LOCKSTEP_ENOMEM) return rc;
    if (rc != 0) found(i, rc, "data.mdb", UINT64_MAX, 0, "the table of terms is damaged; %s", ADVICE_LOST);
    const struct storage_term_run *run = runs, *end = runs != NULL ? runs + v->table.run_count : NULL;
    struct block_base base = v->table.base;
    bool chained = true;
    uint64_t bytes = 0, last = 0;
    for (raft_index index = v->first; index <= v->stored; index++) {
        const uint8_t *block;
        struct block_header header = {0};
        rc = table_block_read(i->options.kv, i->txn, index, &block, &header);
        if (rc != 0) {
            found_block(i, index, rc, &header);
            chained = false;
            continue;
        }
        if (chained && block_chain_check(&base, &header) != 0)
            found(i, LOCKSTEP_ECORRUPT, "data.mdb", i->options.kv->offset_of(i->txn, block), index,
                  "block %" PRIu64 " does not follow block %" PRIu64 "; %s", index, index - 1, ADVICE_LOST);
        verify_beside(i, block, &header, chained && header.term != base.term, &run, end);
        base = block_base_after(&header);
        chained = true;
        bytes += header.bytes;
    }
    free(runs);
    if (v->stored >= v->first && chained && base.crc != v->table.last_crc)
        found(i, LOCKSTEP_ECORRUPT, "data.mdb", UINT64_MAX, v->stored,
              "block %" PRIu64 " is not the one that the state record names; %s", v->stored, ADVICE_LOST);
    if (i->options.kv->last(i->txn, TABLE_BLOCKS, &last) == 0 && last > v->stored)
        found(i, LOCKSTEP_ECORRUPT, "data.mdb", UINT64_MAX, last,
              "block %" PRIu64 " lies behind the last one that the state record names, %" PRIu64 "; %s", last,
              v->stored, ADVICE_LOST);
    if (i->finding_count == 0 && bytes != v->table.blocks_bytes)
        found(i, LOCKSTEP_ECORRUPT, "data.mdb", UINT64_MAX, 0,
              "its blocks have %" PRIu64 " bytes, the state record says %" PRIu64 "; %s", bytes, v->table.blocks_bytes,
              ADVICE_LOST);
    return 0;
}

static int no_piece(void *context, const uint8_t *bytes, size_t count)
{
    (void)context;
    (void)bytes;
    (void)count;
    return 0;
}

/* The file `name`, which has to be the snapshot `is`. */
static int snapshot_read(struct inspection *i, const char *name, const struct storage_snapshot *is,
                         int (*piece)(void *context, const uint8_t *bytes, size_t count), void *context,
                         struct snapshot_file_head *ret_head, uint64_t *ret_offset)
{
    struct snapshot_file *file = NULL;
    uint32_t checksum = 0;
    *ret_offset = 0;
    int rc = snapshot_file_open(i->options.disk, i->options.directory, name, false, &file, ret_head);
    if (rc == 0 && !snapshot_same(&ret_head->is, is)) rc = LOCKSTEP_ECORRUPT;
    while (rc == 0 && *ret_offset < is->bytes) {
        size_t count = 0;
        rc = snapshot_file_read(file, ret_head, *ret_offset, i->block, &count);
        if (rc == 0) rc = piece(context, i->block, count);
        if (rc != 0) break;
        checksum = crc32c_extend(checksum, i->block, count);
        *ret_offset += count;
    }
    snapshot_file_close(file);
    if (rc != 0 || checksum == is->checksum) return rc;
    *ret_offset = 0; /* every piece is whole: they are not those of this record */
    return LOCKSTEP_ECORRUPT;
}

void inspect_verify_snapshot(struct inspection *i)
{
    struct storage_snapshot is;
    struct snapshot_file_head head = {0};
    uint64_t held, offset = UINT64_MAX;
    inspect_snapshot(i, STORAGE_SNAPSHOT_NEWEST, &is, &held);
    if (is.base.index == 0) return;
    snapshot_file_name(i->snapshot_name, is.base.index);
    int rc = snapshot_read(i, i->snapshot_name, &is, no_piece, NULL, &head, &offset);
    if (rc == 0) return;
    if (rc == LOCKSTEP_EVERSION) {
        found_format(i, i->snapshot_name, 0, 0, "is", head.version, SNAPSHOT_FILE_VERSION);
        return;
    }
    if (rc == LOCKSTEP_ENOTFOUND) {
        found(i, LOCKSTEP_ECORRUPT, i->snapshot_name, UINT64_MAX, is.base.index,
              "is missing, and data.mdb names it; %s", ADVICE_LOST);
        return;
    }
    uint64_t at = 0; /* of the piece in the file */
    if (head.piece_bytes != 0)
        at = SNAPSHOT_FILE_HEAD_BYTES + offset / head.piece_bytes * (SNAPSHOT_PIECE_HEAD_BYTES + head.piece_bytes);
    found(i, rc, i->snapshot_name, at, is.base.index,
          "the state behind block %" PRIu64 " is damaged at its byte %" PRIu64 "; %s", is.base.index, offset,
          ADVICE_LOST);
}

int inspect_verify(struct inspection *i)
{
    const struct inspect_view *v = &i->view;
    if (!v->has_table) return 0;
    int rc = verify_log(i);
    if (rc != 0) return rc;
    for (raft_index index = v->stored + 1; index <= v->last; index++) { /* chained when they were replayed */
        const uint8_t *block;
        struct block_header header;
        uint64_t offset = UINT64_MAX;
        rc = inspect_block(i, index, &block, &header, NULL, &offset);
        if (rc != 0)
            found(i, LOCKSTEP_ECORRUPT, "journal", offset, index, "block %" PRIu64 " is damaged; %s", index,
                  ADVICE_LOST);
    }
    inspect_verify_snapshot(i);
    return 0;
}

/* --- snapshots ---------------------------------------------------------------------------------------------------------- */

void inspect_snapshot(struct inspection *i, enum storage_which which, struct storage_snapshot *ret,
                      uint64_t *ret_held_bytes)
{
    struct snapshot_file *file = NULL;
    struct snapshot_file_head head;
    uint32_t checksum;
    *ret = (struct storage_snapshot){0};
    *ret_held_bytes = 0;
    if (which == STORAGE_SNAPSHOT_NEWEST) {
        if (i->view.has_table) *ret = i->view.table.snapshot;
        *ret_held_bytes = ret->bytes;
        return;
    }
    int rc = snapshot_file_open(i->options.disk, i->options.directory, SNAPSHOT_NAME_INCOMING, false, &file, &head);
    if (rc == 0) rc = snapshot_file_scan(file, &head, i->block, ret_held_bytes, &checksum);
    if (rc == 0) *ret = head.is;
    snapshot_file_close(file);
}

int inspect_snapshot_read(struct inspection *i, enum storage_which which,
                          int (*piece)(void *context, const uint8_t *bytes, size_t count), void *context,
                          uint64_t *ret_offset)
{
    struct storage_snapshot is;
    struct snapshot_file_head head;
    char name[SNAPSHOT_NAME_BYTES] = SNAPSHOT_NAME_INCOMING;
    uint64_t held;
    *ret_offset = 0;
    inspect_snapshot(i, which, &is, &held);
    if (is.base.index == 0 || held != is.bytes) return LOCKSTEP_ENOTFOUND;
    if (which == STORAGE_SNAPSHOT_NEWEST) snapshot_file_name(name, is.base.index);
    int rc = snapshot_read(i, name, &is, piece, context, &head, ret_offset);
    return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc; /* the file is gone */
}
