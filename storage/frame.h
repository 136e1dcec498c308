/* SPDX-License-Identifier: Apache-2.0 */
/* frame.h - the journal's unit of promise as bytes: one frame, one flush. Codec only: no file, no state. Any thread.
 *
 *    0 magic u32          4 header_crc u32 (bytes 8..header_bytes: all but the blocks)
 *    8 version u16       10 type u16          12 header_bytes u16     14 groups u8    15 repeats u8
 *   16 journal_id u64    24 lap u64           32 boot u64             40 seq u64      48 flushed_seq u64
 *   56 blocks_bytes u32  60 block_count u32   64 previous_crc u32 (header_crc of the frame before)   68 zero u32
 *   72 groups, then repeats, 40 bytes each:
 *        0 group u32   4 last_crc u32   8 term u64   16 vote u64   24 last_index u64   32 commit u64
 *   header_bytes: whole blocks, blocks_bytes of them; zeros up to the next page
 *
 * A frame starts on a page of 4 KiB and its header fits a sector of 512 bytes, so the header is whole or not there.
 * A group's entry is its state after the frame; a repeat is the entry of the frame before, so that one damaged frame
 * loses no vote and its blocks can be named (J1).
 * Little-endian, as the machine: block.c asserts it. */
#ifndef LOCKSTEP_STORAGE_FRAME_H
#define LOCKSTEP_STORAGE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"

enum {
    FRAME_PAGE_BYTES = 4096,
    FRAME_MAGIC = 0x4d46534c, /* "LSFM" */
    FRAME_VERSION = 1,
    FRAME_FIXED_BYTES = 72,
    FRAME_GROUP_BYTES = 40,
    FRAME_HEADER_BYTES_MAX = FRAME_FIXED_BYTES + 2 * FRAME_GROUP_BYTES, /* one group so far */
};

enum frame_type {
    FRAME_RECORDS = 1, /* new blocks and hard state; each block cuts the tail at its index */
    FRAME_MARKER = 2,  /* carries flushed_seq after an idle moment, and repeats */
    FRAME_PACK = 3,    /* live blocks once more: at a start, and where old ones hold the journal */
    FRAME_INSTALL =
        4, /* a snapshot took the place of the log: empty behind the group's last_index. Its state is durable */
};

/* A group's state behind a frame. */
struct frame_group {
    uint32_t group;
    uint32_t last_crc; /* header_crc of block last_index */
    raft_term term;
    raft_member vote;
    raft_index last_index;
    raft_index commit; /* at most the last block that was durable when the frame was made */
};

struct frame_header {
    uint16_t version; /* as read; with EVERSION it alone is set */
    uint16_t type;
    bool has_group, has_repeat;
    uint64_t journal_id, lap, boot, seq, flushed_seq;
    uint32_t blocks_bytes, block_count, previous_crc;
    struct frame_group group, repeat;
    uint32_t header_bytes, header_crc; /* filled by both functions */
};

/* Bytes of a header with so many groups and repeats, and of the whole frame on the disk. */
uint32_t frame_header_bytes(const struct frame_header *header);
uint64_t frame_bytes(const struct frame_header *header);

/* Writes header->header_bytes bytes; sets header_bytes and header_crc. */
void frame_header_write(struct frame_header *header, uint8_t to[FRAME_HEADER_BYTES_MAX]);

/* Copy out and check a header by itself. room: bytes readable at `at`.
 * ECORRUPT: no frame, or damaged; EVERSION: a newer format. Where it belongs is judged by the caller. */
int frame_header_read(const uint8_t *at, size_t room, struct frame_header *ret);

#endif
