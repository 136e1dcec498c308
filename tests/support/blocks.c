/* SPDX-License-Identifier: Apache-2.0 */
/* blocks.c - see blocks.h. */
#include "tests/support/blocks.h"

#include <string.h>

#include "base/assert.h"

enum { PAYLOAD_BYTES_MAX = 1 << 20 };

uint32_t blocks_bytes(uint32_t commands, uint32_t payload_bytes)
{
    return (uint32_t)(BLOCK_HEADER_BYTES + commands * command_bytes(payload_bytes));
}

uint32_t blocks_make(uint8_t *to, struct block_base *base, raft_term term, uint32_t commands, uint32_t payload_bytes,
                     uint64_t fill, struct block_header *ret_header)
{
    static uint8_t payload[PAYLOAD_BYTES_MAX];
    lk_assert(payload_bytes <= PAYLOAD_BYTES_MAX);
    uint8_t *at = to + BLOCK_HEADER_BYTES;
    for (uint32_t i = 0; i < commands; i++) {
        uint64_t word = fill * 0x9e3779b97f4a7c15 + i;
        for (uint32_t j = 0; j < payload_bytes; j++) payload[j] = (uint8_t)(word >> (j % 8 * 8)) ^ (uint8_t)j;
        const struct command_header command = {.bytes = payload_bytes, .kind = 1, .entity = fill};
        at += command_write(at, &command, payload);
    }
    struct block_header header = {.bytes = (uint32_t)(at - to),
                                  .type = BLOCK_COMMANDS,
                                  .count = commands,
                                  .index = base->index + 1,
                                  .term = term,
                                  .time_ns = base->time_ns + 1,
                                  .first_position = base->next_position,
                                  .previous_crc = base->crc};
    block_seal(to, &header);
    *base = block_base_after(&header);
    if (ret_header != NULL) *ret_header = header;
    return header.bytes;
}
