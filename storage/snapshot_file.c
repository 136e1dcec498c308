/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot_file.c - see snapshot_file.h.
 * Owns: one open file. A name is given only to what was flushed, so a whole name means a whole file. */
#include "storage/snapshot_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/record_file.h"

enum { MAGIC = 0x4653534c /* "LSSF" */, HEAD_CRC_FROM = 8, PIECE_CRC_FROM = 4 };

struct head_bytes {
    uint32_t magic, crc, version, group;
    struct snapshot_bytes is;
    uint32_t piece_bytes;
    uint8_t zero[SNAPSHOT_FILE_HEAD_BYTES - 68];
} __attribute__((packed));
static_assert(sizeof(struct head_bytes) == SNAPSHOT_FILE_HEAD_BYTES, "as documented");

struct piece_head {
    uint32_t crc, number, count, zero;
};
static_assert(sizeof(struct piece_head) == SNAPSHOT_PIECE_HEAD_BYTES, "as documented");

struct snapshot_file {
    const struct disk *disk;
    struct disk_file *file;
};

/* --- as bytes ------------------------------------------------------------------------------------------------------ */

struct base_bytes base_to_bytes(const struct block_base *base)
{
    return (struct base_bytes){.index = base->index,
                               .term = base->term,
                               .next_position = base->next_position,
                               .time_ns = base->time_ns,
                               .crc = base->crc};
}

struct block_base base_from_bytes(const struct base_bytes *bytes)
{
    return (struct block_base){.index = bytes->index,
                               .term = bytes->term,
                               .crc = bytes->crc,
                               .next_position = bytes->next_position,
                               .time_ns = bytes->time_ns};
}

struct snapshot_bytes snapshot_to_bytes(const struct storage_snapshot *snapshot)
{
    return (struct snapshot_bytes){
        .base = base_to_bytes(&snapshot->base), .bytes = snapshot->bytes, .checksum = snapshot->checksum};
}

struct storage_snapshot snapshot_from_bytes(const struct snapshot_bytes *bytes)
{
    return (struct storage_snapshot){
        .base = base_from_bytes(&bytes->base), .bytes = bytes->bytes, .checksum = bytes->checksum};
}

bool snapshot_same(const struct storage_snapshot *a, const struct storage_snapshot *b)
{
    struct snapshot_bytes x = snapshot_to_bytes(a), y = snapshot_to_bytes(b);
    return memcmp(&x, &y, sizeof x) == 0;
}

static uint32_t head_crc(const struct head_bytes *head)
{
    return crc32c((const uint8_t *)head + HEAD_CRC_FROM, sizeof *head - HEAD_CRC_FROM);
}

static uint32_t piece_crc(const struct piece_head *head, const void *bytes)
{
    uint32_t crc = crc32c((const uint8_t *)head + PIECE_CRC_FROM, sizeof *head - PIECE_CRC_FROM);
    return crc32c_extend(crc, bytes, head->count);
}

static uint64_t piece_place(uint32_t piece_bytes, uint64_t number)
{
    return SNAPSHOT_FILE_HEAD_BYTES + number * (SNAPSHOT_PIECE_HEAD_BYTES + (uint64_t)piece_bytes);
}

/* --- names --------------------------------------------------------------------------------------------------------- */

static const char PREFIX[] = "snapshot-";

void snapshot_file_name(char to[SNAPSHOT_NAME_BYTES], raft_index index)
{
    int bytes = snprintf(to, SNAPSHOT_NAME_BYTES, "%s%" PRIu64, PREFIX, index);
    lk_assert(bytes > 0 && bytes < SNAPSHOT_NAME_BYTES);
}

bool snapshot_file_index(const char *name, raft_index *ret)
{
    char again[SNAPSHOT_NAME_BYTES];
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0) return false;
    *ret = strtoull(name + sizeof PREFIX - 1, NULL, 10);
    snapshot_file_name(again, *ret);
    return strcmp(name, again) == 0;
}

/* --- files --------------------------------------------------------------------------------------------------------- */

static int file_open(const struct disk *disk, const char *directory, const char *name, int flags,
                     struct snapshot_file **ret)
{
    char path[STORAGE_PATH_BYTES_MAX];
    int rc = storage_path(path, directory, name);
    if (rc != 0) return rc;
    struct snapshot_file *file = calloc(1, sizeof *file);
    if (file == NULL) return LOCKSTEP_ENOMEM;
    file->disk = disk;
    rc = disk->open(disk->context, path, flags, &file->file);
    if (rc != 0) {
        free(file);
        return rc;
    }
    *ret = file;
    return 0;
}

int snapshot_file_create(const struct disk *disk, const char *directory, const char *name, struct snapshot_file **ret)
{
    int rc = snapshot_file_remove(disk, directory, name);
    return rc != 0 ? rc : file_open(disk, directory, name, DISK_CREATE | DISK_EXCLUSIVE, ret);
}

static int head_read(struct snapshot_file *file, struct snapshot_file_head *ret)
{
    struct head_bytes bytes;
    size_t count = 0;
    int rc = file->disk->pread(file->file, &bytes, sizeof bytes, 0, &count);
    if (rc != 0) return rc;
    if (count != sizeof bytes || bytes.magic != MAGIC || bytes.crc != head_crc(&bytes)) return LOCKSTEP_ECORRUPT;
    *ret = (struct snapshot_file_head){.version = bytes.version};
    if (bytes.version != SNAPSHOT_FILE_VERSION) return LOCKSTEP_EVERSION;
    ret->group = bytes.group;
    ret->piece_bytes = bytes.piece_bytes;
    ret->is = snapshot_from_bytes(&bytes.is);
    if (ret->is.base.index == 0 || ret->is.bytes == 0 || ret->piece_bytes == 0) return LOCKSTEP_ECORRUPT;
    if (ret->piece_bytes > SNAPSHOT_PIECE_BYTES_MAX || ret->piece_bytes > ret->is.bytes) return LOCKSTEP_ECORRUPT;
    return (ret->is.bytes - 1) / ret->piece_bytes > UINT32_MAX ? LOCKSTEP_ECORRUPT : 0;
}

int snapshot_file_open(const struct disk *disk, const char *directory, const char *name, bool writable,
                       struct snapshot_file **ret, struct snapshot_file_head *ret_head)
{
    struct snapshot_file *file = NULL;
    int rc = file_open(disk, directory, name, writable ? 0 : DISK_READ_ONLY, &file);
    if (rc == 0) rc = head_read(file, ret_head);
    if (rc != 0) {
        snapshot_file_close(file);
        return rc;
    }
    *ret = file;
    return 0;
}

void snapshot_file_close(struct snapshot_file *file)
{
    if (file == NULL) return;
    file->disk->close(file->file);
    free(file);
}

int snapshot_file_write_head(struct snapshot_file *file, const struct snapshot_file_head *head)
{
    struct head_bytes bytes = {.magic = MAGIC,
                               .version = head->version,
                               .group = head->group,
                               .is = snapshot_to_bytes(&head->is),
                               .piece_bytes = head->piece_bytes};
    bytes.crc = head_crc(&bytes);
    const struct iovec part = {.iov_base = &bytes, .iov_len = sizeof bytes};
    return file->disk->pwritev(file->file, &part, 1, 0);
}

int snapshot_file_write(struct snapshot_file *file, uint32_t piece_bytes, uint32_t number, const void *bytes,
                        uint32_t count)
{
    struct piece_head head = {.number = number, .count = count};
    head.crc = piece_crc(&head, bytes);
    const struct iovec parts[] = {{.iov_base = &head, .iov_len = sizeof head},
                                  {.iov_base = (void *)(uintptr_t)bytes, .iov_len = count}};
    int rc = file->disk->pwritev(file->file, parts, 2, piece_place(piece_bytes, number));
    return rc;
}

int snapshot_file_flush(struct snapshot_file *file)
{
    return file->disk->flush(file->file, true);
}

int snapshot_file_publish(const struct disk *disk, const char *directory, const char *name, raft_index index)
{
    char from[STORAGE_PATH_BYTES_MAX], to[STORAGE_PATH_BYTES_MAX], name_now[SNAPSHOT_NAME_BYTES];
    snapshot_file_name(name_now, index);
    int rc = storage_path(from, directory, name);
    if (rc == 0) rc = storage_path(to, directory, name_now);
    if (rc == 0) rc = disk->rename(disk->context, from, to);
    if (rc != 0) return rc;
    rc = disk->flush_directory(disk->context, directory);
    if (rc != 0 && disk->rename(disk->context, to, from) != 0) return LOCKSTEP_EIO;
    return rc;
}

int snapshot_file_remove(const struct disk *disk, const char *directory, const char *name)
{
    char path[STORAGE_PATH_BYTES_MAX];
    int rc = storage_path(path, directory, name);
    if (rc == 0) rc = disk->unlink(disk->context, path);
    return rc == LOCKSTEP_ENOTFOUND ? 0 : rc;
}

int snapshot_file_read(struct snapshot_file *file, const struct snapshot_file_head *head, uint64_t offset, void *to,
                       size_t *ret_count)
{
    if (offset >= head->is.bytes || offset % head->piece_bytes != 0) return LOCKSTEP_ENOTFOUND;
    uint64_t left = head->is.bytes - offset, number = offset / head->piece_bytes;
    uint64_t place = piece_place(head->piece_bytes, number);
    size_t expected = left < head->piece_bytes ? (size_t)left : head->piece_bytes, count = 0;
    struct piece_head piece;
    int rc = file->disk->pread(file->file, &piece, sizeof piece, place, &count);
    if (rc != 0) return rc;
    if (count != sizeof piece || piece.number != number || piece.count != expected || piece.zero != 0)
        return LOCKSTEP_ECORRUPT;
    rc = file->disk->pread(file->file, to, expected, place + sizeof piece, &count);
    if (rc != 0) return rc;
    if (count != expected || piece.crc != piece_crc(&piece, to)) return LOCKSTEP_ECORRUPT;
    *ret_count = expected;
    return 0;
}

int snapshot_file_scan(struct snapshot_file *file, const struct snapshot_file_head *head, void *buffer,
                       uint64_t *ret_offset, uint32_t *ret_checksum)
{
    *ret_offset = 0;
    *ret_checksum = 0;
    while (*ret_offset < head->is.bytes) {
        size_t count = 0;
        int rc = snapshot_file_read(file, head, *ret_offset, buffer, &count);
        if (rc == LOCKSTEP_ECORRUPT) return 0;
        if (rc != 0) return rc;
        *ret_checksum = crc32c_extend(*ret_checksum, buffer, count);
        *ret_offset += count;
    }
    return 0;
}

int snapshot_file_refresh(struct snapshot_file *file)
{
    int rc = snapshot_file_flush(file);
    return rc == 0 ? file->disk->drop_cache(file->file) : rc;
}
