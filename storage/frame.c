/* SPDX-License-Identifier: Apache-2.0 */
/* frame.c - see frame.h. Everything read here comes from a disk: copied out, checked, then used. */
#include "storage/frame.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"

static_assert(FRAME_HEADER_BYTES_MAX <= 512, "a header is one sector: whole or not there");
static_assert(FRAME_FIXED_BYTES % 8 == 0 && FRAME_GROUP_BYTES % 8 == 0, "blocks behind it are 8-byte aligned");

enum { CRC_FROM = 8 };

struct fixed {
    uint32_t magic, header_crc;
    uint16_t version, type, header_bytes;
    uint8_t groups, repeats;
    uint64_t journal_id, lap, boot, seq, flushed_seq;
    uint32_t blocks_bytes, block_count, previous_crc, zero;
};
static_assert(sizeof(struct fixed) == FRAME_FIXED_BYTES, "the struct is its bytes on disk");
static_assert(sizeof(struct frame_group) == FRAME_GROUP_BYTES, "the struct is its bytes on disk");

uint32_t frame_header_bytes(const struct frame_header *header)
{
    return FRAME_FIXED_BYTES + ((uint32_t)header->has_group + (uint32_t)header->has_repeat) * FRAME_GROUP_BYTES;
}

uint64_t frame_bytes(const struct frame_header *header)
{
    uint64_t bytes = (uint64_t)frame_header_bytes(header) + header->blocks_bytes;
    return (bytes + FRAME_PAGE_BYTES - 1) & ~(uint64_t)(FRAME_PAGE_BYTES - 1);
}

void frame_header_write(struct frame_header *header, uint8_t to[FRAME_HEADER_BYTES_MAX])
{
    header->header_bytes = frame_header_bytes(header);
    struct fixed fixed = {.magic = FRAME_MAGIC,
                          .version = FRAME_VERSION,
                          .type = header->type,
                          .header_bytes = (uint16_t)header->header_bytes,
                          .groups = header->has_group,
                          .repeats = header->has_repeat,
                          .journal_id = header->journal_id,
                          .lap = header->lap,
                          .boot = header->boot,
                          .seq = header->seq,
                          .flushed_seq = header->flushed_seq,
                          .blocks_bytes = header->blocks_bytes,
                          .block_count = header->block_count,
                          .previous_crc = header->previous_crc};
    uint8_t *at = to;
    memcpy(at, &fixed, sizeof fixed);
    at += sizeof fixed;
    if (header->has_group) {
        memcpy(at, &header->group, sizeof header->group);
        at += sizeof header->group;
    }
    if (header->has_repeat) memcpy(at, &header->repeat, sizeof header->repeat);
    header->header_crc = crc32c(to + CRC_FROM, header->header_bytes - CRC_FROM);
    memcpy(to + offsetof(struct fixed, header_crc), &header->header_crc, sizeof header->header_crc);
}

int frame_header_read(const uint8_t *at, size_t room, struct frame_header *ret)
{
    if (room < FRAME_FIXED_BYTES) return LOCKSTEP_ECORRUPT;
    struct fixed fixed;
    memcpy(&fixed, at, sizeof fixed);
    if (fixed.magic != FRAME_MAGIC) return LOCKSTEP_ECORRUPT;
    if (fixed.header_bytes < FRAME_FIXED_BYTES || fixed.header_bytes > room) return LOCKSTEP_ECORRUPT;
    if (fixed.header_crc != crc32c(at + CRC_FROM, fixed.header_bytes - CRC_FROM)) return LOCKSTEP_ECORRUPT;
    if (fixed.version > FRAME_VERSION) {
        *ret = (struct frame_header){.version = fixed.version};
        return LOCKSTEP_EVERSION;
    }
    if (fixed.version < FRAME_VERSION || fixed.groups > 1 || fixed.repeats > 1 || fixed.zero != 0) {
        return LOCKSTEP_ECORRUPT;
    }
    if (fixed.type != FRAME_RECORDS && fixed.type != FRAME_MARKER && fixed.type != FRAME_PACK &&
        fixed.type != FRAME_INSTALL)
        return LOCKSTEP_ECORRUPT;
    struct frame_header header = {.version = fixed.version,
                                  .type = fixed.type,
                                  .has_group = fixed.groups != 0,
                                  .has_repeat = fixed.repeats != 0,
                                  .journal_id = fixed.journal_id,
                                  .lap = fixed.lap,
                                  .boot = fixed.boot,
                                  .seq = fixed.seq,
                                  .flushed_seq = fixed.flushed_seq,
                                  .blocks_bytes = fixed.blocks_bytes,
                                  .block_count = fixed.block_count,
                                  .previous_crc = fixed.previous_crc,
                                  .header_bytes = fixed.header_bytes,
                                  .header_crc = fixed.header_crc};
    if (frame_header_bytes(&header) != fixed.header_bytes) return LOCKSTEP_ECORRUPT;
    if (header.flushed_seq >= header.seq) return LOCKSTEP_ECORRUPT;
    if (!header.has_group && (header.block_count != 0 || header.type == FRAME_INSTALL)) return LOCKSTEP_ECORRUPT;
    if (header.type == FRAME_INSTALL && header.block_count != 0) return LOCKSTEP_ECORRUPT;
    at += FRAME_FIXED_BYTES;
    if (header.has_group) {
        memcpy(&header.group, at, sizeof header.group);
        at += sizeof header.group;
    }
    if (header.has_repeat) memcpy(&header.repeat, at, sizeof header.repeat);
    *ret = header;
    return 0;
}
