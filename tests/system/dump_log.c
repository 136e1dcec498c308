/* SPDX-License-Identifier: Apache-2.0 */
/* dump_log.c - write out every command that a stopped node's data directory holds: dump_log DIRECTORY NODE FILE RING JOURNAL
 * For each command in the order of the log: index u64, position u64, payload bytes u32, 0 u32, payload. Little-endian.
 * The directory is opened as the node itself opens it, lock and recovery included; what lies behind the commit of the
 * node is written out too: whoever compares knows up to which index nodes have to agree.
 * Thread: one. Exit: 0; 1 with a line on stderr. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "lockstep/errors.h"
#include "storage/storage.h"

static void wake(void *context, enum storage_part part)
{
    (void)context;
    (void)part;
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "dump_log: %s: %s\n", what, why);
    return 1;
}

static bool dump_block(FILE *file, const uint8_t *block, const struct block_header *header)
{
    if (header->type != BLOCK_COMMANDS) return true;
    struct block_cursor cursor = block_cursor(block, header);
    struct command_view command;
    while (block_cursor_next(&cursor, &command)) {
        uint64_t head[3] = {header->index, command.position, command.header.bytes};
        if (fwrite(head, sizeof head, 1, file) != 1) return false;
        if (command.header.bytes > 0 && fwrite(command.payload, command.header.bytes, 1, file) != 1) return false;
    }
    return true;
}

/* Blocks up to `stored` are read from LMDB, those above it from the ring, where recovery has put them. */
static int dump(struct storage *storage, const struct storage_recovered *recovered, FILE *file)
{
    struct storage_reader *reader;
    int rc = storage_reader_open(storage, &reader);
    if (rc != 0) return fail("reader", lockstep_error_text(rc));
    for (raft_index index = recovered->base.index + 1; index <= recovered->last.index; index++) {
        const uint8_t *block;
        struct block_header header;
        struct ring_slot slot;
        char what[64];
        snprintf(what, sizeof what, "block %" PRIu64, index);
        if (index <= recovered->stored) {
            rc = storage_read(reader, index, &block, &header);
        } else {
            rc = ring_find(storage_ring(storage), index, &slot);
            if (rc == 0) {
                block = ring_at(storage_ring(storage), slot.pos);
                rc = block_header_read(block, slot.bytes, &header);
                if (rc == 0) rc = block_body_check(block, &header);
            }
        }
        if (rc == 0 && header.index != index) rc = LOCKSTEP_ECORRUPT;
        if (rc != 0) {
            storage_reader_close(reader);
            return fail(what, lockstep_error_text(rc));
        }
        if (!dump_block(file, block, &header)) {
            storage_reader_close(reader);
            return fail(what, "cannot be written");
        }
    }
    storage_reader_close(reader);
    fprintf(stderr, "dump_log: base %" PRIu64 " stored %" PRIu64 " commit %" PRIu64 " last %" PRIu64 "\n",
            recovered->base.index, recovered->stored, recovered->commit, recovered->last.index);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t ring_bytes, journal_bytes;
    if (argc != 6 || !text_parse_u64(argv[4], &ring_bytes) || !text_parse_u64(argv[5], &journal_bytes))
        return fail("usage", "dump_log DIRECTORY NODE FILE RING_BYTES JOURNAL_BYTES");
    char why[1024] = "";
    struct identity_directory *directory;
    struct identity identity;
    int rc = identity_open(disk_posix(), argv[1], argv[2], 1, &directory, &identity, why, sizeof why);
    if (rc != 0) return fail(argv[1], why);
    if (identity.state != IDENTITY_COMPLETE) {
        identity_close(directory);
        return fail(argv[1], "holds no complete birth record");
    }
    struct storage_options options = {
        .directory = argv[1],
        .ring_bytes = ring_bytes,
        .journal_bytes = journal_bytes,
        .map_bytes = UINT64_C(16) << 30,
        .block_bytes_max = BLOCK_BYTES_MAX,
        .member_id = identity.member_id,
        .random_id = 1,
        .level = (enum durability_level)identity.birth.configuration.level,
        .birth = {.next_position = 1, .time_ns = identity.birth.time_ns},
        .disk = disk_posix(),
        .kv = kv_lmdb(),
        .wake = wake,
    };
    struct storage *storage = NULL;
    struct storage_recovered recovered;
    int code = 1;
    rc = storage_open(&options, &storage, &recovered, why, sizeof why);
    if (rc != 0) {
        fail(argv[1], why);
    } else {
        FILE *file = fopen(argv[3], "wb");
        if (file == NULL) {
            fail(argv[3], "cannot be made");
        } else {
            code = dump(storage, &recovered, file);
            if (fclose(file) != 0) code = fail(argv[3], "cannot be written");
        }
    }
    storage_close(storage);
    identity_close(directory);
    return code;
}
