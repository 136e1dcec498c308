/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_journal_frame.c - a frame from a damaged disk: as it is, and with its header's checksum and its first block's made
 * right. What is accepted is written back and has to give the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "storage/frame.h"
#include "storage/recovery.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { BLOCKS_MAX = 64 };

static void look(const uint8_t *bytes, size_t count)
{
    struct frame_header header;
    if (frame_header_read(bytes, count, &header) != 0) return;
    struct frame_header again = header;
    uint8_t written[FRAME_HEADER_BYTES_MAX];
    frame_header_write(&again, written);
    lk_assert(again.header_crc == header.header_crc);
    lk_assert(memcmp(written, bytes, header.header_bytes) == 0);
    lk_assert(frame_bytes(&header) % FRAME_PAGE_BYTES == 0);
    if (header.blocks_bytes > count - header.header_bytes) return;
    struct recovery_block blocks[BLOCKS_MAX];
    uint32_t sum = 0;
    if (recovery_parse_blocks(bytes + header.header_bytes, header.blocks_bytes, header.block_count, header.group.group,
                              blocks, BLOCKS_MAX) != 0)
        return;
    for (uint32_t i = 0; i < header.block_count; i++) sum += blocks[i].bytes;
    lk_assert(sum == header.blocks_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    look(bytes, count);
    if (count < FRAME_HEADER_BYTES_MAX + BLOCK_HEADER_BYTES || count > 65536) return 0;
    uint8_t *sealed = malloc(count);
    if (sealed == NULL) return 0;
    memcpy(sealed, bytes, count);
    /* The fields that decide how the rest is read are the input's, folded into range. */
    const uint32_t magic = FRAME_MAGIC;
    const uint16_t version = FRAME_VERSION, type = (uint16_t)(1 + bytes[10] % 3);
    sealed[14] &= 1;
    sealed[15] &= 1;
    const uint16_t header_bytes = (uint16_t)(FRAME_FIXED_BYTES + (sealed[14] + sealed[15]) * FRAME_GROUP_BYTES);
    const uint32_t zero = 0, blocks_bytes = (uint32_t)(count - header_bytes) & ~7u, block_count = bytes[60] % 3;
    memcpy(sealed, &magic, 4);
    memcpy(sealed + 8, &version, 2);
    memcpy(sealed + 10, &type, 2);
    memcpy(sealed + 12, &header_bytes, 2);
    memcpy(sealed + 56, &blocks_bytes, 4);
    memcpy(sealed + 60, &block_count, 4);
    memcpy(sealed + 68, &zero, 4);
    struct block_header block;
    memcpy(&block, sealed + header_bytes, sizeof block);
    block.bytes = blocks_bytes;
    block.type = 1 + block.type % 3;
    block.count &= 7;
    if (sealed[14]) memcpy(&block.group, sealed + FRAME_FIXED_BYTES, 4);
    block_seal(sealed + header_bytes, &block);
    uint32_t crc = crc32c(sealed + 8, header_bytes - 8u);
    memcpy(sealed + 4, &crc, 4);
    look(sealed, count);
    free(sealed);
    return 0;
}
