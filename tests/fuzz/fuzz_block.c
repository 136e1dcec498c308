/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_block.c - a block from a stranger: as it is, and with its checksums made right, so that what lies behind them is
 * reached. What passes the checks is walked to its last byte, under the sanitizers. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/block.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void walk(const uint8_t *block, const struct block_header *header)
{
    struct block_cursor cursor = block_cursor(block, header);
    struct command_view view;
    uint64_t commands = 0, sum = 0;
    while (block_cursor_next(&cursor, &view)) {
        lk_assert(view.position == header->first_position + commands);
        commands++;
        for (uint32_t i = 0; i < view.header.bytes; i++) sum += view.payload[i];
    }
    if (header->type == BLOCK_COMMANDS) lk_assert(commands == header->count);
    lk_assert(sum <= (uint64_t)header->bytes * 255);
}

static void look(const uint8_t *bytes, size_t count)
{
    struct block_header header;
    if (block_header_read(bytes, count, &header) != 0 || header.bytes > count) return;
    struct block_base base = block_base_after(&header);
    (void)block_chain_check(&base, &header);
    if (block_body_check(bytes, &header) == 0) walk(bytes, &header);
}

/* Commands that run over the end are made shorter, so that several in a row are reached; their count is made right. */
static void fold_commands(uint8_t *block, struct block_header *header)
{
    uint32_t at = BLOCK_HEADER_BYTES;
    header->type = BLOCK_COMMANDS;
    header->count = 0;
    while (header->bytes - at >= COMMAND_HEADER_BYTES) {
        struct command_header command;
        memcpy(&command, block + at, sizeof command);
        uint32_t room = header->bytes - at - COMMAND_HEADER_BYTES;
        if (command.bytes > room) command.bytes %= room + 1;
        memcpy(block + at, &command, sizeof command);
        uint32_t end = at + COMMAND_HEADER_BYTES + command.bytes;
        at += (uint32_t)command_bytes(command.bytes);
        memset(block + end, 0, at - end);
        header->count++;
    }
    header->bytes = at;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    look(bytes, count);
    if (count < BLOCK_HEADER_BYTES || count > BLOCK_BYTES_MAX) return 0;
    uint8_t *sealed = malloc(count);
    if (sealed == NULL) return 0;
    struct block_header header;
    memcpy(sealed, bytes, count);
    memcpy(&header, bytes, sizeof header);
    header.bytes = (uint32_t)count & ~7u;
    header.type &= 3;
    header.count &= 15;
    if (bytes[4] % 4 != 0) fold_commands(sealed, &header);
    block_seal(sealed, &header);
    look(sealed, count);
    free(sealed);
    return 0;
}
