/* SPDX-License-Identifier: Apache-2.0 */
/* store.c - see store.h. */
#include "tests/support/store.h"

#include <check.h>

#include "tests/support/blocks.h"

static void no_wake(void *context, enum storage_part part)
{
    (void)context;
    (void)part;
}

void store_options(struct store *store, const char *directory, const struct disk *disk, const struct kv *kv)
{
    *store = (struct store){.options = {.directory = directory,
                                        .ring_bytes = 65536,
                                        .journal_bytes = 4 * 65536,
                                        .map_bytes = 1 << 30,
                                        .block_bytes_max = BLOCK_BYTES_MAX,
                                        .member_id = 0x1234,
                                        .random_id = 0x5678,
                                        .level = DURABILITY_LEVEL_FSYNC,
                                        .birth = {.next_position = 1, .time_ns = 1000},
                                        .disk = disk,
                                        .kv = kv,
                                        .wake = no_wake}};
}

int store_open(struct store *store)
{
    store->seq = 0;
    int rc = storage_open(&store->options, &store->storage, &store->recovered, store->why, sizeof store->why);
    if (rc != 0) {
        store->storage = NULL;
        return rc;
    }
    store->ring = storage_ring(store->storage);
    store->hard_state = store->recovered.hard_state;
    storage_commit(store->storage, store->recovered.commit);
    return 0;
}

void store_close(struct store *store)
{
    storage_close(store->storage);
    store->storage = NULL;
}

bool store_append(struct store *store, raft_term term, uint32_t payload_bytes, uint64_t fill)
{
    uint8_t *at = NULL;
    struct block_header header;
    struct block_base base = ring_last(store->ring);
    uint32_t bytes = blocks_bytes(1, payload_bytes);
    if (!storage_persist_fits(store->storage, bytes) || ring_claim(store->ring, bytes, &at) != 0) return false;
    blocks_make(at, &base, term, 1, payload_bytes, fill, &header);
    ring_publish(store->ring, &header);
    return true;
}

void store_cut(struct store *store, raft_index index)
{
    ring_epoch_begin(store->ring);
    ring_cut(store->ring, index);
    ring_epoch_end(store->ring, store->hard_state.term, false);
}

uint64_t store_persist(struct store *store, raft_index first, bool with_hard_state)
{
    struct storage_persist persist = {
        .seq = ++store->seq, .has_hard_state = with_hard_state, .hard_state = store->hard_state};
    if (first != 0) {
        persist.first = first;
        persist.last = ring_last(store->ring).index;
    }
    storage_persist(store->storage, &persist);
    return persist.seq;
}

void store_run_journal(struct store *store, uint64_t ns)
{
    for (uint64_t end_ns = store->now_ns + ns;;) {
        uint64_t wait_ns = storage_journal_work(store->storage, store->now_ns);
        if (wait_ns == UINT64_MAX || store->now_ns + wait_ns > end_ns) break;
        store->now_ns += wait_ns;
    }
    storage_reclaim(store->storage);
}

void store_run_log(struct store *store, uint64_t ns)
{
    for (uint64_t end_ns = store->now_ns + ns;;) {
        uint64_t wait_ns = storage_log_work(store->storage, store->now_ns);
        if (wait_ns == UINT64_MAX || store->now_ns + wait_ns > end_ns) break;
        store->now_ns += wait_ns;
    }
    storage_reclaim(store->storage);
}
