/* SPDX-License-Identifier: Apache-2.0 */
/* backup.c - see backup.h. */
#include "storage/backup.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/record_file.h"
#include "storage/snapshot_file.h"

enum {
    HEAD_MAGIC = 0x4b42534c, /* "LSBK" */
    PART_MAGIC = 0x5042534c, /* "LSBP" */
    CRC_FROM = 8,
    FLUSH_BYTES = 4 << 20, /* so much is written between two flushes: others on this disk wait for no more */
};

enum part_kind { PART_PIECE = 1, PART_BLOCK = 2, PART_END = 3 };

struct head_bytes {
    uint32_t magic, crc, version, bytes;
    uint64_t made_ns, member_id;
    char node[IDENTITY_NAME_BYTES_MAX];
    struct base_bytes snapshot_base;
    uint32_t base_zero;
    uint64_t snapshot_bytes;
    uint32_t snapshot_checksum, zero;
    uint64_t last, configuration_index;
    uint32_t birth_bytes, configuration_bytes;
};
static_assert(sizeof(struct head_bytes) == 176, "as documented");

struct part_head {
    uint32_t magic, crc, kind, bytes;
    uint64_t number;
};
static_assert(sizeof(struct part_head) == 24, "as documented");

struct end_bytes {
    uint64_t blocks;
    struct base_bytes base;
    uint32_t zero;
};
static_assert(sizeof(struct end_bytes) == 48, "as documented");

enum {
    HEAD_BYTES_MAX = (int)sizeof(struct head_bytes) + (int)BIRTH_RECORD_BYTES_MAX + (int)CONFIGURATION_BYTES_MAX,
    PART_BYTES_MAX = BLOCK_BYTES_MAX,
};

static bool base_same(const struct block_base *a, const struct block_base *b)
{
    return a->index == b->index && a->term == b->term && a->next_position == b->next_position &&
           a->time_ns == b->time_ns && a->crc == b->crc;
}

static bool is_configuration_there(const struct backup_head *head)
{
    return head->configuration.index != 0;
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

struct writing {
    const struct disk *disk;
    struct disk_file *file;
    uint64_t offset, flushed, number;
    int error; /* of the file that is written */
};

static int write_bytes(struct writing *w, const void *first, size_t first_bytes, const void *second,
                       size_t second_bytes)
{
    const struct iovec parts[] = {{.iov_base = (void *)(uintptr_t)first, .iov_len = first_bytes},
                                  {.iov_base = (void *)(uintptr_t)second, .iov_len = second_bytes}};
    w->error = w->disk->pwritev(w->file, parts, 2, w->offset);
    if (w->error != 0) return w->error;
    w->offset += first_bytes + second_bytes;
    if (w->offset - w->flushed < FLUSH_BYTES) return 0;
    w->flushed = w->offset;
    return w->error = w->disk->flush(w->file, false);
}

static int write_head(struct writing *w, const struct backup_head *head)
{
    uint8_t bytes[HEAD_BYTES_MAX];
    struct head_bytes h = {.magic = HEAD_MAGIC,
                           .version = BACKUP_VERSION,
                           .made_ns = head->made_ns,
                           .member_id = head->member_id,
                           .snapshot_base = base_to_bytes(&head->snapshot.base),
                           .snapshot_bytes = head->snapshot.bytes,
                           .snapshot_checksum = head->snapshot.checksum,
                           .last = head->last,
                           .configuration_index = head->configuration.index};
    memcpy(h.node, head->node, strlen(head->node));
    h.birth_bytes = birth_record_write(&head->birth, bytes + sizeof h);
    if (is_configuration_there(head))
        h.configuration_bytes =
            configuration_write(&head->configuration.configuration, bytes + sizeof h + h.birth_bytes);
    h.bytes = (uint32_t)sizeof h + h.birth_bytes + h.configuration_bytes;
    memcpy(bytes, &h, sizeof h);
    h.crc = crc32c(bytes + CRC_FROM, h.bytes - CRC_FROM);
    memcpy(bytes, &h, sizeof h);
    return write_bytes(w, bytes, h.bytes, NULL, 0);
}

static uint32_t part_crc(const struct part_head *part, const void *bytes)
{
    return crc32c_extend(crc32c((const uint8_t *)part + CRC_FROM, sizeof *part - CRC_FROM), bytes, part->bytes);
}

static int write_part(struct writing *w, enum part_kind kind, const void *bytes, size_t count)
{
    struct part_head part = {
        .magic = PART_MAGIC, .kind = (uint32_t)kind, .bytes = (uint32_t)count, .number = ++w->number};
    part.crc = part_crc(&part, bytes);
    return write_bytes(w, &part, sizeof part, bytes, count);
}

static int write_piece(void *context, const uint8_t *bytes, size_t count)
{
    return write_part(context, PART_PIECE, bytes, count);
}

static int write_all(struct writing *w, struct inspection *inspection, struct backup_summary *summary, char *why,
                     size_t why_room)
{
    const struct backup_head *head = &summary->head;
    uint64_t offset = 0;
    int rc = write_head(w, head);
    if (rc == 0 && head->snapshot.base.index != 0) {
        rc = inspect_snapshot_read(inspection, STORAGE_SNAPSHOT_NEWEST, write_piece, w, &offset);
        if (rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_ENOTFOUND) {
            snprintf(why, why_room, "its snapshot is damaged at byte %" PRIu64 "; make the backup from another node",
                     offset);
            return LOCKSTEP_ECORRUPT;
        }
        if (rc != 0 && w->error == 0) {
            snprintf(why, why_room,
                     "its snapshot cannot be read at byte %" PRIu64 ": %s; look at the disk, and make the backup from "
                     "another node",
                     offset, lockstep_error_text(rc));
            return rc;
        }
    }
    for (raft_index index = summary->base.index + 1; rc == 0 && index <= head->last; index++) {
        const uint8_t *block;
        struct block_header header;
        rc = inspect_block(inspection, index, &block, &header, NULL, NULL);
        if (rc == 0) rc = block_chain_check(&summary->base, &header);
        if (rc != 0) {
            snprintf(why, why_room, "block %" PRIu64 ": %s; make the backup from another node", index,
                     lockstep_error_text(rc));
            return rc;
        }
        rc = write_part(w, PART_BLOCK, block, header.bytes);
        summary->base = block_base_after(&header);
        summary->blocks++;
    }
    const struct end_bytes end = {.blocks = summary->blocks, .base = base_to_bytes(&summary->base)};
    if (rc == 0) rc = write_part(w, PART_END, &end, sizeof end);
    if (rc == 0) rc = w->disk->flush(w->file, true);
    if (rc != 0) snprintf(why, why_room, "cannot be written: %s; check the disk", lockstep_error_text(rc));
    return rc;
}

int backup_create(struct inspection *inspection, const struct disk *disk, const char *path, uint64_t now_ns,
                  struct backup_summary *ret, char *why, size_t why_room)
{
    const struct inspect_view *v = inspect_view(inspection);
    size_t findings;
    (void)inspect_findings(inspection, &findings);
    if (findings != 0) {
        snprintf(why, why_room,
                 "the directory is damaged: 'lockstep log verify' says where; make the backup from another node");
        return LOCKSTEP_ECORRUPT;
    }
    if (!v->has_tail || v->identity.state != IDENTITY_COMPLETE) {
        snprintf(why, why_room, "the node was never part of a cluster; there is nothing to back up");
        return LOCKSTEP_EINVAL;
    }
    struct backup_summary summary = {.head = {.made_ns = now_ns,
                                              .version = BACKUP_VERSION,
                                              .member_id = v->identity.member_id,
                                              .birth = v->identity.birth,
                                              .last = v->commit},
                                     .configuration = v->committed};
    memcpy(summary.head.node, v->identity.name, sizeof summary.head.node);
    uint64_t held;
    inspect_snapshot(inspection, STORAGE_SNAPSHOT_NEWEST, &summary.head.snapshot, &held);
    summary.base = summary.head.snapshot.base;
    if (summary.base.index == 0) summary.base = birth_record_base(&summary.head.birth);
    inspect_configuration(inspection, summary.base.index, &summary.head.configuration);

    char path_new[STORAGE_PATH_BYTES_MAX], directory[STORAGE_PATH_BYTES_MAX];
    bool there = false, has_name = false;
    int count = snprintf(path_new, sizeof path_new, "%s.new", path);
    if (count < 0 || (size_t)count >= sizeof path_new) {
        snprintf(why, why_room, "the file's path is longer than %zu bytes; choose a shorter one",
                 sizeof path_new - sizeof ".new");
        return LOCKSTEP_EINVAL;
    }
    int rc = disk->exists(disk->context, path, &there);
    if (rc != 0) {
        snprintf(why, why_room, "%s: cannot be looked for: %s; check the folder and its permissions", path,
                 lockstep_error_text(rc));
        return rc;
    }
    if (there) {
        snprintf(why, why_room, "%s: is there already; name another file", path);
        return LOCKSTEP_EEXIST;
    }
    const char *slash = strrchr(path, '/');
    snprintf(directory, sizeof directory, "%.*s", slash == NULL ? 1 : (int)(slash - path + 1),
             slash == NULL ? "." : path);
    rc = disk->unlink(disk->context, path_new); /* left over from a crash */
    struct writing w = {.disk = disk};
    if (rc == 0 || rc == LOCKSTEP_ENOTFOUND)
        rc = disk->open(disk->context, path_new, DISK_CREATE | DISK_EXCLUSIVE, &w.file);
    if (rc != 0) {
        snprintf(why, why_room, "%s: cannot be made: %s; check the folder and its permissions", path_new,
                 lockstep_error_text(rc));
        return rc;
    }
    char reason[512] = "";
    rc = write_all(&w, inspection, &summary, reason, sizeof reason);
    disk->close(w.file);
    if (rc == 0) {
        rc = disk->rename(disk->context, path_new, path);
        has_name = rc == 0;
        if (rc == 0) rc = disk->flush_directory(disk->context, directory);
        if (rc != 0)
            snprintf(reason, sizeof reason, "cannot be given its name: %s; check the disk", lockstep_error_text(rc));
    }
    if (rc != 0) {
        (void)disk->unlink(disk->context, has_name ? path : path_new);
        snprintf(why, why_room, "%s: %s", path, reason);
        return rc;
    }
    summary.bytes = w.offset;
    *ret = summary;
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------------------------------- */

struct reading {
    const struct backup_source *source;
    const struct backup_sink *sink;
    struct backup_summary summary;
    uint64_t offset, number, snapshot_bytes;
    uint32_t snapshot_checksum;
    bool ended;
    uint8_t *buffer; /* what was read last */
    size_t room;
    char *why;
    size_t why_room;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct reading *r, int rc, const char *format, ...)
{
    va_list arguments;
    int count = snprintf(r->why, r->why_room, "at byte %" PRIu64 ": ", r->offset);
    if (count < 0 || (size_t)count >= r->why_room) return rc;
    va_start(arguments, format);
    vsnprintf(r->why + count, r->why_room - (size_t)count, format, arguments);
    va_end(arguments);
    return rc;
}

static int damaged(struct reading *r, const char *what)
{
    return refuse(r, LOCKSTEP_ECORRUPT, "%s; take another backup", what);
}

/* The sink's refusal; it has its own words. */
static int refused(struct reading *r, int rc)
{
    r->why[0] = 0;
    return rc;
}

/* Room in the buffer, at most PART_BYTES_MAX. */
static int reserve(struct reading *r, size_t bytes)
{
    if (bytes <= r->room) return 0;
    uint8_t *more = realloc(r->buffer, bytes);
    if (more == NULL) return refuse(r, LOCKSTEP_ENOMEM, "out of memory; free some");
    r->buffer = more;
    r->room = bytes;
    return 0;
}

/* All of `bytes`, or it is damage. */
static int read_exactly(struct reading *r, void *to, size_t bytes, uint64_t offset)
{
    size_t count = 0;
    int rc = r->source->read(r->source->context, to, bytes, offset, &count);
    if (rc != 0) return refuse(r, rc, "cannot be read: %s; look at the disk", lockstep_error_text(rc));
    return count == bytes ? 0 : damaged(r, "it ends here: it was cut off, or never finished");
}

static bool name_valid(const char *name, size_t room)
{
    size_t bytes = strnlen(name, room);
    for (size_t i = 0; i < bytes; i++)
        if (name[i] <= ' ' || name[i] > '~') return false;
    return bytes != 0 && bytes < room;
}

static int read_head(struct reading *r)
{
    struct backup_head *head = &r->summary.head;
    struct head_bytes h;
    int rc = read_exactly(r, &h, sizeof h, 0);
    if (rc != 0) return rc;
    if (h.magic != HEAD_MAGIC) return refuse(r, LOCKSTEP_ECORRUPT, "this is no backup of lockstep; name another file");
    if (h.bytes < sizeof h || h.bytes > HEAD_BYTES_MAX) return damaged(r, "its head is damaged");
    rc = reserve(r, h.bytes);
    if (rc == 0) rc = read_exactly(r, r->buffer, h.bytes, 0);
    if (rc != 0) return rc;
    const uint8_t *bytes = r->buffer;
    memcpy(&h, bytes, sizeof h);
    if (h.crc != crc32c(bytes + CRC_FROM, h.bytes - CRC_FROM)) return damaged(r, "its head is damaged");
    head->version = h.version;
    if (h.version != BACKUP_VERSION)
        return refuse(r, LOCKSTEP_EVERSION,
                      "made by another version of lockstep (format %" PRIu32 ", this one knows %d); use that version",
                      h.version, BACKUP_VERSION);
    if ((uint64_t)sizeof h + h.birth_bytes + h.configuration_bytes != h.bytes || h.zero != 0 || h.base_zero != 0 ||
        !name_valid(h.node, sizeof h.node) || (h.configuration_index != 0) != (h.configuration_bytes != 0))
        return damaged(r, "its head is damaged");
    head->made_ns = h.made_ns;
    head->member_id = h.member_id;
    memcpy(head->node, h.node, sizeof head->node);
    head->snapshot = (struct storage_snapshot){
        .base = base_from_bytes(&h.snapshot_base), .bytes = h.snapshot_bytes, .checksum = h.snapshot_checksum};
    head->last = h.last;
    head->configuration.index = h.configuration_index;
    rc = birth_record_read(bytes + sizeof h, h.birth_bytes, &head->birth);
    if (rc == 0 && h.configuration_bytes != 0)
        rc = configuration_read(bytes + sizeof h + h.birth_bytes, h.configuration_bytes,
                                &head->configuration.configuration);
    if (rc != 0) return damaged(r, "the birth record or the configuration in its head is damaged");
    if ((head->snapshot.base.index == 0) != (head->snapshot.bytes == 0) || head->snapshot.base.index > head->last)
        return damaged(r, "its head is damaged");
    r->summary.configuration = head->configuration;
    if (head->configuration.index > head->snapshot.base.index) return damaged(r, "its head is damaged");
    if (head->configuration.index == 0) r->summary.configuration.configuration = head->birth.configuration;
    r->summary.base = head->snapshot.base;
    if (r->summary.base.index == 0) r->summary.base = birth_record_base(&head->birth);
    if (r->sink != NULL && r->sink->head != NULL) {
        rc = r->sink->head(r->sink->context, head);
        if (rc != 0) return refused(r, rc);
    }
    r->offset = h.bytes;
    return 0;
}

static int take_piece(struct reading *r, uint32_t count)
{
    const struct storage_snapshot *is = &r->summary.head.snapshot;
    if (r->summary.blocks != 0 || count == 0 || count > BACKUP_SNAPSHOT_PIECE_BYTES_MAX ||
        count > is->bytes - r->snapshot_bytes)
        return damaged(r, "a piece of the snapshot where none can be");
    r->snapshot_checksum = crc32c_extend(r->snapshot_checksum, r->buffer, count);
    r->snapshot_bytes += count;
    bool last = r->snapshot_bytes == is->bytes;
    if (last && r->snapshot_checksum != is->checksum)
        return damaged(r, "the snapshot is not the one that the head names");
    int rc = 0;
    if (r->sink != NULL && r->sink->piece != NULL) rc = r->sink->piece(r->sink->context, r->buffer, count);
    if (rc == 0 && last && r->sink != NULL && r->sink->snapshot_end != NULL)
        rc = r->sink->snapshot_end(r->sink->context);
    return rc == 0 ? 0 : refused(r, rc);
}

static int take_block(struct reading *r, uint32_t count)
{
    struct block_header header;
    if (r->snapshot_bytes != r->summary.head.snapshot.bytes) return damaged(r, "the end of the snapshot is missing");
    int rc = block_header_read(r->buffer, count, &header);
    if (rc == LOCKSTEP_EVERSION)
        return refuse(r, rc,
                      "a block of a newer version of lockstep (format %d, this one reads up to %d); use that version",
                      header.version, BLOCK_VERSION);
    if (rc != 0 || header.bytes != count || block_body_check(r->buffer, &header) != 0)
        return damaged(r, "a block is damaged");
    if (block_chain_check(&r->summary.base, &header) != 0)
        return refuse(r, LOCKSTEP_ECORRUPT, "block %" PRIu64 " does not follow block %" PRIu64 "; take another backup",
                      header.index, r->summary.base.index);
    if (header.type == BLOCK_CONFIGURATION) {
        rc = configuration_read(r->buffer + BLOCK_HEADER_BYTES, count - BLOCK_HEADER_BYTES,
                                &r->summary.configuration.configuration);
        if (rc != 0) return damaged(r, "a configuration is damaged");
        r->summary.configuration.index = header.index;
    }
    r->summary.base = block_base_after(&header);
    r->summary.blocks++;
    if (r->sink == NULL || r->sink->block == NULL) return 0;
    rc = r->sink->block(r->sink->context, r->buffer, &header);
    return rc == 0 ? 0 : refused(r, rc);
}

static int take_end(struct reading *r, uint32_t count)
{
    struct end_bytes end;
    if (count != sizeof end) return damaged(r, "its end is damaged");
    memcpy(&end, r->buffer, sizeof end);
    struct block_base base = base_from_bytes(&end.base);
    if (end.zero != 0 || end.blocks != r->summary.blocks || !base_same(&base, &r->summary.base) ||
        base.index != r->summary.head.last || r->snapshot_bytes != r->summary.head.snapshot.bytes)
        return damaged(r, "it is not all that its head names");
    r->ended = true;
    return 0;
}

static int read_part(struct reading *r)
{
    struct part_head part;
    int rc = read_exactly(r, &part, sizeof part, r->offset);
    if (rc != 0) return rc;
    if (part.magic != PART_MAGIC || part.bytes > PART_BYTES_MAX || part.number != r->number + 1)
        return damaged(r, "a part is damaged or missing");
    rc = reserve(r, part.bytes);
    if (rc == 0) rc = read_exactly(r, r->buffer, part.bytes, r->offset + sizeof part);
    if (rc != 0) return rc;
    if (part.crc != part_crc(&part, r->buffer)) return damaged(r, "a part is damaged");
    switch (part.kind) {
    case PART_PIECE: rc = take_piece(r, part.bytes); break;
    case PART_BLOCK: rc = take_block(r, part.bytes); break;
    case PART_END: rc = take_end(r, part.bytes); break;
    default: rc = damaged(r, "a part of an unknown kind");
    }
    if (rc != 0) return rc;
    r->number = part.number;
    r->offset += sizeof part + part.bytes;
    return 0;
}

int backup_read(const struct backup_source *source, const struct backup_sink *sink, struct backup_summary *ret,
                uint64_t *ret_offset, char *why, size_t why_room)
{
    struct reading r = {.source = source, .sink = sink, .why = why, .why_room = why_room};
    int rc = read_head(&r);
    while (rc == 0 && !r.ended) rc = read_part(&r);
    uint8_t more;
    size_t count = 0;
    if (rc == 0) rc = source->read(source->context, &more, 1, r.offset, &count);
    if (rc == 0 && count != 0) rc = damaged(&r, "there is more behind its end");
    free(r.buffer);
    r.summary.bytes = r.offset;
    *ret = r.summary;
    *ret_offset = r.offset;
    return rc;
}

struct file_source {
    const struct disk *disk;
    struct disk_file *file;
};

static int read_file(void *context, void *to, size_t bytes, uint64_t offset, size_t *ret_count)
{
    const struct file_source *from = context;
    return from->disk->pread(from->file, to, bytes, offset, ret_count);
}

int backup_read_file(const struct disk *disk, const char *path, const struct backup_sink *sink,
                     struct backup_summary *ret, uint64_t *ret_offset, char *why, size_t why_room)
{
    struct file_source from = {.disk = disk};
    int rc = disk->open(disk->context, path, DISK_READ_ONLY, &from.file);
    if (rc != 0) {
        snprintf(why, why_room, "cannot be opened: %s; check its path and its permissions", lockstep_error_text(rc));
        return rc;
    }
    const struct backup_source source = {.context = &from, .read = read_file};
    rc = backup_read(&source, sink, ret, ret_offset, why, why_room);
    disk->close(from.file);
    return rc;
}
