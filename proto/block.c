/* SPDX-License-Identifier: Apache-2.0 */
/* block.c - see block.h.
 * Pure functions: no state, no allocation, any thread. Everything that is read here may come from a peer or a disk:
 * it is copied out, checked, and the copy is used.
 * Why the body's checksum stands in the header, and the header has its own: a header can be judged before the body is
 * there, and header_crc alone names the block with all its bytes. */
#include "proto/block.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are copied as they lie; add swaps for big-endian");
static_assert(offsetof(struct block_header, body_crc) == 8, "header_crc covers bytes 8..63");
static_assert(offsetof(struct block_header, version) == 16, "as documented");
static_assert(offsetof(struct block_header, index) == 24, "as documented");
static_assert(offsetof(struct block_header, first_position) == 48, "as documented");
static_assert(offsetof(struct block_header, previous_crc) == 60, "as documented");
static_assert(offsetof(struct command_header, session) == 8, "as documented");
static_assert(offsetof(struct command_header, entity) == 24, "as documented");

enum { HEADER_CRC_FROM = offsetof(struct block_header, body_crc) };

static uint32_t header_crc(const struct block_header *header)
{
    return crc32c((const uint8_t *)header + HEADER_CRC_FROM, BLOCK_HEADER_BYTES - HEADER_CRC_FROM);
}

size_t command_write(uint8_t *at, const struct command_header *header, const void *payload)
{
    lk_assert(header->bytes <= BLOCK_BYTES_MAX);
    size_t bytes = command_bytes(header->bytes);
    memcpy(at, header, sizeof *header);
    if (header->bytes != 0) memcpy(at + sizeof *header, payload, header->bytes);
    memset(at + sizeof *header + header->bytes, 0, bytes - sizeof *header - header->bytes);
    return bytes;
}

void block_seal(uint8_t *block, struct block_header *header)
{
    lk_assert(header->bytes >= BLOCK_HEADER_BYTES);
    lk_assert(header->bytes <= BLOCK_BYTES_MAX);
    lk_assert(header->bytes % 8 == 0);
    header->magic = BLOCK_MAGIC;
    header->version = BLOCK_VERSION;
    header->body_crc = crc32c(block + BLOCK_HEADER_BYTES, header->bytes - BLOCK_HEADER_BYTES);
    header->header_crc = header_crc(header);
    memcpy(block, header, sizeof *header);
}

int block_header_read(const uint8_t *at, size_t room, struct block_header *ret)
{
    if (room < BLOCK_HEADER_BYTES) return LOCKSTEP_EINVAL;
    struct block_header header;
    memcpy(&header, at, sizeof header);
    if (header.magic != BLOCK_MAGIC) return LOCKSTEP_ECORRUPT;
    if (header.header_crc != header_crc(&header)) return LOCKSTEP_ECORRUPT;
    /* Behind the checksum: a flipped bit in the version is damage, not a newer format. */
    if (header.version > BLOCK_VERSION) {
        *ret = (struct block_header){.version = header.version};
        return LOCKSTEP_EVERSION;
    }
    if (header.version < BLOCK_VERSION) return LOCKSTEP_ECORRUPT;
    if (header.bytes < BLOCK_HEADER_BYTES || header.bytes > BLOCK_BYTES_MAX) return LOCKSTEP_ECORRUPT;
    if (header.bytes % 8 != 0) return LOCKSTEP_ECORRUPT;
    *ret = header;
    return 0;
}

/* One command at `at`, of which `room` bytes may be read. */
static int command_check(const uint8_t *at, size_t room, size_t *ret_bytes)
{
    if (room < COMMAND_HEADER_BYTES) return LOCKSTEP_ECORRUPT;
    struct command_header command;
    memcpy(&command, at, sizeof command);
    if (command.bytes > room - COMMAND_HEADER_BYTES) return LOCKSTEP_ECORRUPT;
    size_t bytes = command_bytes(command.bytes); /* cannot overflow: command.bytes was bounded above */
    if (bytes > room) return LOCKSTEP_ECORRUPT;
    for (size_t i = COMMAND_HEADER_BYTES + command.bytes; i < bytes; i++) {
        if (at[i] != 0) return LOCKSTEP_ECORRUPT;
    }
    *ret_bytes = bytes;
    return 0;
}

static int commands_check(const uint8_t *at, size_t room, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        size_t bytes = 0;
        int rc = command_check(at, room, &bytes);
        if (rc != 0) return rc;
        at += bytes;
        room -= bytes;
    }
    return room == 0 ? 0 : LOCKSTEP_ECORRUPT;
}

int block_body_check(const uint8_t *block, const struct block_header *header)
{
    lk_assert(header->bytes >= BLOCK_HEADER_BYTES);
    const uint8_t *body = block + BLOCK_HEADER_BYTES;
    size_t body_bytes = header->bytes - BLOCK_HEADER_BYTES;
    if (crc32c(body, body_bytes) != header->body_crc) return LOCKSTEP_ECORRUPT;
    switch (header->type) {
    case BLOCK_COMMANDS: return commands_check(body, body_bytes, header->count);
    case BLOCK_TERM: return header->count == 0 && body_bytes == 0 ? 0 : LOCKSTEP_ECORRUPT;
    case BLOCK_CONFIGURATION: return header->count == 0 ? 0 : LOCKSTEP_ECORRUPT;
    default: return 0; /* its commands, if it has any, are known to those who know the type */
    }
}

int block_chain_check(const struct block_base *base, const struct block_header *next)
{
    if (next->index != base->index + 1) return LOCKSTEP_ECORRUPT;
    if (next->previous_crc != base->crc) return LOCKSTEP_ECORRUPT;
    if (next->first_position != base->next_position) return LOCKSTEP_ECORRUPT;
    if (next->term == 0 || next->term < base->term) return LOCKSTEP_ECORRUPT;
    if (next->time_ns < base->time_ns) return LOCKSTEP_ECORRUPT;
    return 0;
}

struct block_base block_base_after(const struct block_header *header)
{
    return (struct block_base){.index = header->index,
                               .term = header->term,
                               .crc = header->header_crc,
                               .next_position = header->first_position + header->count,
                               .time_ns = header->time_ns};
}

struct block_cursor block_cursor(const uint8_t *block, const struct block_header *header)
{
    /* Only commands are walked: the body of another type is something else. */
    uint32_t bytes = header->type == BLOCK_COMMANDS ? header->bytes : BLOCK_HEADER_BYTES;
    return (struct block_cursor){
        .at = block + BLOCK_HEADER_BYTES, .end = block + bytes, .position = header->first_position};
}

bool block_cursor_next(struct block_cursor *cursor, struct command_view *ret)
{
    lk_assert(cursor->at <= cursor->end);
    if (cursor->at == cursor->end) return false;
    size_t room = (size_t)(cursor->end - cursor->at);
    lk_assert(room >= COMMAND_HEADER_BYTES); /* the block was checked */
    memcpy(&ret->header, cursor->at, sizeof ret->header);
    lk_assert(command_bytes(ret->header.bytes) <= room);
    ret->payload = cursor->at + COMMAND_HEADER_BYTES;
    ret->position = cursor->position++;
    cursor->at += command_bytes(ret->header.bytes);
    return true;
}
