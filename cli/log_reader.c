/* SPDX-License-Identifier: Apache-2.0 */
/* log_reader.c - see log_reader.h. Blocks that have reached LMDB are read there; recovery has put the newer ones, which
 * stood in the journal alone, into the ring. */
#include "cli/log_reader.h"

#include <inttypes.h>
#include <stdio.h>

#include "server/server.h"
#include "storage/identity.h"
#include "storage/ring.h"
#include "storage/storage.h"

static void wake(void *context, enum storage_part part)
{
    (void)context;
    (void)part; /* no thread of the storage runs here: it is only read */
}

struct reading {
    struct storage *storage;
    struct storage_reader *reader;
    const struct storage_recovered *recovered;
};

static int read_block(struct reading *reading, raft_index index, const uint8_t **ret_block, struct block_header *ret)
{
    if (index <= reading->recovered->stored) return storage_read(reading->reader, index, ret_block, ret);
    struct ring *ring = storage_ring(reading->storage);
    struct ring_slot slot;
    int rc = ring_find(ring, index, &slot);
    if (rc != 0) return rc;
    *ret_block = ring_at(ring, slot.pos);
    rc = block_header_read(*ret_block, slot.bytes, ret);
    return rc != 0 ? rc : block_body_check(*ret_block, ret);
}

static int read_all(struct reading *reading, bool (*command)(void *context, const struct command_view *view),
                    void *context, struct log_extent *ret, char *why, size_t why_room)
{
    *ret = (struct log_extent){.first = reading->recovered->base.index + 1,
                               .last = reading->recovered->last.index,
                               .commit = reading->recovered->commit};
    struct block_base base = reading->recovered->base;
    for (raft_index index = ret->first; index <= ret->last; index++) {
        const uint8_t *block;
        struct block_header header;
        int rc = read_block(reading, index, &block, &header);
        if (rc == 0) rc = block_chain_check(&base, &header); /* each block follows the one before it */
        if (rc != 0) {
            snprintf(why, why_room, "block %" PRIu64 ": %s", index, lockstep_error_text(rc));
            return rc;
        }
        base = block_base_after(&header);
        ret->blocks++;
        if (header.type != BLOCK_COMMANDS) continue;
        struct block_cursor cursor = block_cursor(block, &header);
        struct command_view view;
        while (block_cursor_next(&cursor, &view)) {
            ret->commands++;
            if (!command(context, &view)) return 0;
        }
    }
    return 0;
}

int log_read(const char *config, const char *node_name, bool (*command)(void *context, const struct command_view *view),
             void *context, struct log_extent *ret, char *why, size_t why_room)
{
    static struct server_options options; /* large */
    char server_why[SERVER_WHY_BYTES_MAX];
    int rc = server_options_read(config, node_name, NULL, 0, &options, server_why);
    if (rc != 0) {
        snprintf(why, why_room, "%s", server_why);
        return rc;
    }
    struct identity_directory *directory;
    struct identity identity;
    const struct node_options *o = &options.node;
    rc = identity_open(disk_posix(), o->data_directory, node_name, 1, &directory, &identity, why, why_room);
    if (rc != 0) return rc;
    struct storage *storage = NULL;
    struct storage_recovered recovered;
    if (identity.state != IDENTITY_COMPLETE) {
        snprintf(why, why_room, "%.200s: holds no complete birth record", o->data_directory);
        rc = LOCKSTEP_EINVAL;
        goto done;
    }
    struct storage_options storage_options = {
        .directory = o->data_directory,
        .journal_directory = o->journal_directory[0] != 0 ? o->journal_directory : NULL,
        .ring_bytes = o->ring_bytes,
        .journal_bytes = o->journal_bytes,
        .map_bytes = o->map_bytes,
        .block_bytes_max = BLOCK_BYTES_MAX,
        .member_id = identity.member_id,
        .random_id = 1, /* of a journal that is first made: this one is there */
        .level = (enum durability_level)identity.birth.configuration.level,
        .birth = {.next_position = 1, .time_ns = identity.birth.time_ns},
        .disk = disk_posix(),
        .kv = kv_lmdb(),
        .wake = wake,
    };
    rc = storage_open(&storage_options, &storage, &recovered, why, why_room);
    if (rc != 0) goto done;
    struct reading reading = {.storage = storage, .recovered = &recovered};
    rc = storage_reader_open(storage, &reading.reader);
    if (rc != 0) {
        snprintf(why, why_room, "reader: %s", lockstep_error_text(rc));
        goto done;
    }
    rc = read_all(&reading, command, context, ret, why, why_room);
    storage_reader_close(reading.reader);
done:
    storage_close(storage);
    identity_close(directory);
    return rc;
}
