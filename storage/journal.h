/* SPDX-License-Identifier: Apache-2.0 */
/* journal.h - the write-ahead file: frames one behind the other, lap after lap.
 * Thread: the journal thread (at start: the one that opens). Owns: the file and its place in it.
 *
 *   page 0   {magic u32, crc u32, version u32, zero u32, journal_id u64, zero}; written once, by rename
 *   page 1.. frames; where less than frame_bytes_max is left before the end, the next lap begins at page 1
 *
 * J1  One frame a flush, on fresh pages: an acknowledged sector is never rewritten before its frame is reclaimed.
 * J2  Frames of another lap, boot or journal never chain: seq, lap, boot, id and previous_crc all have to fit.
 * R8  After the first error from here nothing more is written by this process.
 * Zero-filled in steps ahead of the first lap: a flush of a file that grows costs almost twice as much. */
#ifndef LOCKSTEP_STORAGE_JOURNAL_H
#define LOCKSTEP_STORAGE_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "storage/disk.h"
#include "storage/frame.h"

enum {
    JOURNAL_VERSION = 1, /* of page 0 */
    JOURNAL_FRAME_BYTES_MAX = 8 << 20,
    JOURNAL_PARTS_MAX = 256, /* ranges of blocks in one frame */
    JOURNAL_FILL_STEP_BYTES = 1 << 20,
    JOURNAL_FILL_AHEAD_BYTES = 8 << 20,
};

/* A place behind a frame: what Q is made of. */
struct journal_place {
    uint64_t seq, boot, lap;
    uint64_t offset; /* of the frame's end */
    uint32_t crc;    /* the frame's header_crc */
};

/* What decides where frames lie. Stored with the boot that wrote them. */
struct journal_shape {
    uint64_t bytes; /* of the whole file, when its first lap is done */
    uint64_t frame_bytes_max;
};

struct journal {
    const struct disk *disk;
    struct disk_file *file;
    bool unflushed;   /* level os: what is written counts, until journal_flush() nothing is flushed */
    uint32_t version; /* of page 0; alone it is set with EVERSION */
    uint64_t id;
    struct journal_shape shape;
    struct journal_place last; /* behind the last frame written */
    uint64_t flushed_seq;
    uint64_t filled_bytes; /* the file is zero-filled or written up to here */
    bool last_has_group;
    struct frame_group last_group; /* what the next frame repeats */
};

/* The shape of a journal of so many bytes in which a block of block_bytes_max fits a frame. */
struct journal_shape journal_shape(uint64_t bytes, uint32_t block_bytes_max);
/* Bytes that frames may use, and the linear place of an offset in a lap: it only grows from frame to frame, so that a
 * difference of two is what lies between them, the unused end of a lap included. */
uint64_t journal_span(const struct journal_shape *shape);
uint64_t journal_linear(const struct journal_shape *shape, uint64_t lap, uint64_t offset);
/* Where the frame behind `last` begins. */
void journal_next(const struct journal_shape *shape, const struct journal_place *last, uint64_t *ret_lap,
                  uint64_t *ret_offset);
/* The place before the first frame of a new journal. */
struct journal_place journal_birth(void);

/* Make an empty journal that replaces any at `path`. EIO, ENOSPC, EINVAL. Does not open it. */
int journal_create(const struct disk *disk, const char *directory, uint64_t id);
/* Open: flushed, its cached pages dropped, then read (J3). read_only: to be looked at alone.
 * ENOTFOUND, ECORRUPT (no journal), EVERSION, EIO, ENOMEM. */
int journal_open(struct journal *journal, const struct disk *disk, const char *directory, bool read_only);
void journal_close(struct journal *journal); /* takes a zeroed one too */
/* Frames go on behind `place`, in this shape and boot. */
void journal_start(struct journal *journal, const struct journal_shape *shape, const struct journal_place *place,
                   uint64_t boot);

/* Write one frame and flush it. The header's type, group and counts are the caller's; everything about its place is
 * filled in. parts: JOURNAL_PARTS_MAX + 2 of them, the blocks from parts[1] on, part_count of them.
 * The caller made sure that nothing needed lies there. EIO, ENOSPC: final. */
int journal_append(struct journal *journal, struct frame_header *header, struct iovec *parts, int part_count);

/* Everything written is durable. EIO. */
int journal_flush(struct journal *journal);

/* Linear place of the end of a frame of so many bytes if it were appended now. */
uint64_t journal_end_after(const struct journal *journal, uint64_t frame_bytes);

/* Whether more should be zero-filled ahead, and one step of that. EIO, ENOSPC: final. */
bool journal_wants_fill(const struct journal *journal);
int journal_fill(struct journal *journal);

#endif
