/* SPDX-License-Identifier: Apache-2.0 */
/* journal.c - see journal.h.
 * Why a frame never crosses the file's end: readers and the writer find the next frame by one rule, without looking.
 * Why the same rule needs frame_bytes_max and not the frame's own size: the reader does not know that size yet. */
#include "storage/journal.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "proto/block.h"
#include "storage/record_file.h"

enum {
    HEADER_MAGIC = 0x4e4a534c, /* "LSJN" */
    FIRST_OFFSET = FRAME_PAGE_BYTES,
};

struct file_header {
    uint32_t magic, crc, version, zero;
    uint64_t journal_id;
    uint8_t zeros[FRAME_PAGE_BYTES - 24];
};
static_assert(sizeof(struct file_header) == FRAME_PAGE_BYTES, "one page");

static uint32_t file_header_crc(const struct file_header *header)
{
    return crc32c(&header->version, sizeof *header - offsetof(struct file_header, version));
}

static uint8_t zeros[JOURNAL_FILL_STEP_BYTES]; /* never written */

static uint64_t page_up(uint64_t bytes)
{
    return (bytes + FRAME_PAGE_BYTES - 1) & ~(uint64_t)(FRAME_PAGE_BYTES - 1);
}

struct journal_shape journal_shape(uint64_t bytes, uint32_t block_bytes_max)
{
    bytes &= ~(uint64_t)(FRAME_PAGE_BYTES - 1);
    uint64_t least = page_up(FRAME_HEADER_BYTES_MAX + (uint64_t)block_bytes_max);
    uint64_t frame_bytes_max = bytes / 16 & ~(uint64_t)(FRAME_PAGE_BYTES - 1);
    if (frame_bytes_max > JOURNAL_FRAME_BYTES_MAX) frame_bytes_max = JOURNAL_FRAME_BYTES_MAX;
    if (frame_bytes_max < least) frame_bytes_max = least;
    return (struct journal_shape){.bytes = bytes, .frame_bytes_max = frame_bytes_max};
}

uint64_t journal_span(const struct journal_shape *shape)
{
    return shape->bytes - FIRST_OFFSET;
}

uint64_t journal_linear(const struct journal_shape *shape, uint64_t lap, uint64_t offset)
{
    return lap * journal_span(shape) + offset - FIRST_OFFSET;
}

void journal_next(const struct journal_shape *shape, const struct journal_place *last, uint64_t *ret_lap,
                  uint64_t *ret_offset)
{
    bool wraps = last->offset + shape->frame_bytes_max > shape->bytes;
    *ret_lap = wraps ? last->lap + 1 : last->lap;
    *ret_offset = wraps ? FIRST_OFFSET : last->offset;
}

struct journal_place journal_birth(void)
{
    return (struct journal_place){.lap = 1, .offset = FIRST_OFFSET};
}

int journal_create(const struct disk *disk, const char *directory, uint64_t id)
{
    struct file_header header = {.magic = HEADER_MAGIC, .version = JOURNAL_VERSION, .journal_id = id};
    header.crc = file_header_crc(&header);
    return record_file_replace(disk, directory, "journal", &header, sizeof header);
}

int journal_open(struct journal *journal, const struct disk *disk, const char *directory, bool read_only)
{
    char path[STORAGE_PATH_BYTES_MAX];
    struct file_header header;
    size_t count = 0;
    uint32_t version = 0;
    *journal = (struct journal){.disk = disk};
    int rc = storage_path(path, directory, "journal");
    if (rc != 0) return rc;
    /* Its directory is locked; but a copy of that one would name the same journal, where it lies elsewhere. */
    rc = disk->open(disk->context, path, read_only ? DISK_READ_ONLY : DISK_LOCK, &journal->file);
    if (rc != 0) return rc;
    rc = disk->flush(journal->file, true);
    if (rc != 0) goto fail;
    rc = disk->drop_cache(journal->file);
    if (rc != 0) goto fail;
    rc = disk->size(journal->file, &journal->filled_bytes);
    if (rc != 0) goto fail;
    rc = disk->pread(journal->file, &header, sizeof header, 0, &count);
    if (rc != 0) goto fail;
    rc = LOCKSTEP_ECORRUPT;
    if (count != sizeof header || header.magic != HEADER_MAGIC || header.crc != file_header_crc(&header)) goto fail;
    version = header.version;
    rc = LOCKSTEP_EVERSION;
    if (version > JOURNAL_VERSION) goto fail;
    journal->id = header.journal_id;
    journal->version = version;
    return 0;
fail:
    journal_close(journal);
    journal->version = version;
    return rc;
}

void journal_close(struct journal *journal)
{
    if (journal->file != NULL) journal->disk->close(journal->file);
    *journal = (struct journal){0};
}

void journal_start(struct journal *journal, const struct journal_shape *shape, const struct journal_place *place,
                   uint64_t boot)
{
    journal->shape = *shape;
    journal->last = *place;
    journal->last.boot = boot;
    journal->flushed_seq = place->seq;
    journal->last_has_group = false;
}

uint64_t journal_end_after(const struct journal *journal, uint64_t bytes)
{
    uint64_t lap, offset;
    journal_next(&journal->shape, &journal->last, &lap, &offset);
    return journal_linear(&journal->shape, lap, offset + bytes);
}

/* Zeros up to `end`, so that the pages of a frame are allocated and written before it comes. */
static int fill_up_to(struct journal *journal, uint64_t end)
{
    if (end <= journal->filled_bytes) return 0;
    while (journal->filled_bytes < end) {
        uint64_t step = JOURNAL_FILL_STEP_BYTES;
        if (step > journal->shape.bytes - journal->filled_bytes) step = journal->shape.bytes - journal->filled_bytes;
        const struct iovec part = {.iov_base = zeros, .iov_len = step};
        int rc = journal->disk->pwritev(journal->file, &part, 1, journal->filled_bytes);
        if (rc != 0) return rc;
        journal->filled_bytes += step;
    }
    return journal->unflushed ? 0 : journal->disk->flush(journal->file, true); /* with the new size */
}

int journal_append(struct journal *journal, struct frame_header *header, struct iovec *parts, int part_count)
{
    uint64_t lap, offset;
    journal_next(&journal->shape, &journal->last, &lap, &offset);
    header->journal_id = journal->id;
    header->lap = lap;
    header->boot = journal->last.boot;
    header->seq = journal->last.seq + 1;
    header->flushed_seq = journal->flushed_seq;
    header->previous_crc = journal->last.crc;
    header->has_repeat = journal->last_has_group;
    header->repeat = journal->last_group;
    uint64_t bytes = frame_bytes(header);
    lk_assert(part_count <= JOURNAL_PARTS_MAX);
    lk_assert(bytes <= journal->shape.frame_bytes_max);
    lk_assert(offset + bytes <= journal->shape.bytes);
    lk_assert(journal->flushed_seq == journal->last.seq); /* one frame a flush */

    uint8_t header_bytes[FRAME_HEADER_BYTES_MAX];
    frame_header_write(header, header_bytes);
    parts[0] = (struct iovec){.iov_base = header_bytes, .iov_len = header->header_bytes};
    uint64_t padding = bytes - header->header_bytes - header->blocks_bytes;
    parts[part_count + 1] = (struct iovec){.iov_base = zeros, .iov_len = padding};
    int rc = fill_up_to(journal, offset + bytes);
    if (rc != 0) return rc;
    rc = journal->disk->pwritev(journal->file, parts, part_count + 2, offset);
    if (rc != 0) return rc;
    if (!journal->unflushed) rc = journal->disk->flush(journal->file, false);
    if (rc != 0) return rc;
    journal->last = (struct journal_place){
        .seq = header->seq, .boot = header->boot, .lap = lap, .offset = offset + bytes, .crc = header->header_crc};
    journal->flushed_seq = header->seq;
    journal->last_has_group = header->has_group;
    journal->last_group = header->group;
    return 0;
}

int journal_flush(struct journal *journal)
{
    return journal->disk->flush(journal->file, true);
}

bool journal_wants_fill(const struct journal *journal)
{
    uint64_t want = journal->last.offset + JOURNAL_FILL_AHEAD_BYTES;
    if (want > journal->shape.bytes) want = journal->shape.bytes;
    return journal->filled_bytes < want;
}

int journal_fill(struct journal *journal)
{
    uint64_t end = journal->filled_bytes + JOURNAL_FILL_STEP_BYTES;
    return fill_up_to(journal, end < journal->shape.bytes ? end : journal->shape.bytes);
}
