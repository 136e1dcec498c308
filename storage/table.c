/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - see table.h. Values have no alignment in the map: they are copied out, checked, then used. */
#include "storage/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"

enum {
    STATE_MAGIC = 0x5453534c, /* "LSST" */
    STATE_KEY = 1,
    CRC_FROM = 8,
};

struct place_bytes {
    uint64_t seq, boot, lap, offset;
    uint32_t crc;
} __attribute__((packed));

struct state_bytes {
    uint32_t magic, crc, format, group;
    uint64_t member_id, journal_id, boot, journal_bytes, frame_bytes_max, term, vote;
    struct base_bytes base;
    uint32_t last_crc;
    uint64_t last_index;
    struct place_bytes q;
    uint32_t zero;
    uint64_t flushed_seq, run_count, configuration_index, blocks_bytes, install_index;
    struct snapshot_bytes snapshot;
} __attribute__((packed));
static_assert(offsetof(struct state_bytes, base) == 72, "as documented");
static_assert(offsetof(struct state_bytes, last_index) == 112, "as documented");
static_assert(offsetof(struct state_bytes, flushed_seq) == 160, "as documented");
static_assert(offsetof(struct state_bytes, snapshot) == 200, "as documented");
static_assert(sizeof(struct state_bytes) == 248, "as documented");

struct run_bytes {
    uint64_t term;
    uint32_t crc, zero;
};

static uint32_t state_crc(const struct state_bytes *bytes)
{
    return crc32c((const uint8_t *)bytes + CRC_FROM, sizeof *bytes - CRC_FROM);
}

static uint32_t run_crc(const struct storage_term_run *run)
{
    const uint64_t words[2] = {run->first_index, run->term};
    return crc32c(words, sizeof words);
}

int table_state_read(const struct kv *kv, struct kv_txn *txn, struct table_state *ret)
{
    const void *value = NULL;
    size_t count = 0;
    struct state_bytes bytes;
    int rc = kv->get(txn, TABLE_STATE, STATE_KEY, &value, &count);
    if (rc != 0) return rc;
    if (count < CRC_FROM + sizeof bytes.format) return LOCKSTEP_ECORRUPT;
    memset(&bytes, 0, sizeof bytes);
    memcpy(&bytes, value, count < sizeof bytes ? count : sizeof bytes);
    /* Magic, crc and format stay where they are: one of another format is named, however long it is. */
    if (bytes.magic != STATE_MAGIC || bytes.crc != crc32c((const uint8_t *)value + CRC_FROM, count - CRC_FROM))
        return LOCKSTEP_ECORRUPT;
    *ret = (struct table_state){.format = bytes.format};
    if (bytes.format != STORAGE_FORMAT) return LOCKSTEP_EVERSION;
    if (count != sizeof bytes || bytes.zero != 0) return LOCKSTEP_ECORRUPT;
    *ret = (struct table_state){.format = bytes.format,
                                .group = bytes.group,
                                .member_id = bytes.member_id,
                                .journal_id = bytes.journal_id,
                                .boot = bytes.boot,
                                .shape = {.bytes = bytes.journal_bytes, .frame_bytes_max = bytes.frame_bytes_max},
                                .hard_state = {.term = bytes.term, .vote = bytes.vote},
                                .base = base_from_bytes(&bytes.base),
                                .last_index = bytes.last_index,
                                .last_crc = bytes.last_crc,
                                .q = {.seq = bytes.q.seq,
                                      .boot = bytes.q.boot,
                                      .lap = bytes.q.lap,
                                      .offset = bytes.q.offset,
                                      .crc = bytes.q.crc},
                                .flushed_seq = bytes.flushed_seq,
                                .run_count = bytes.run_count,
                                .configuration_index = bytes.configuration_index,
                                .blocks_bytes = bytes.blocks_bytes,
                                .install_index = bytes.install_index,
                                .snapshot = snapshot_from_bytes(&bytes.snapshot)};
    return 0;
}

int table_state_write(const struct kv *kv, struct kv_txn *txn, const struct table_state *state)
{
    struct state_bytes bytes = {.magic = STATE_MAGIC,
                                .format = STORAGE_FORMAT,
                                .group = state->group,
                                .member_id = state->member_id,
                                .journal_id = state->journal_id,
                                .boot = state->boot,
                                .journal_bytes = state->shape.bytes,
                                .frame_bytes_max = state->shape.frame_bytes_max,
                                .term = state->hard_state.term,
                                .vote = state->hard_state.vote,
                                .base = base_to_bytes(&state->base),
                                .last_crc = state->last_crc,
                                .last_index = state->last_index,
                                .q = {.seq = state->q.seq,
                                      .boot = state->q.boot,
                                      .lap = state->q.lap,
                                      .offset = state->q.offset,
                                      .crc = state->q.crc},
                                .flushed_seq = state->flushed_seq,
                                .run_count = state->run_count,
                                .configuration_index = state->configuration_index,
                                .blocks_bytes = state->blocks_bytes,
                                .install_index = state->install_index,
                                .snapshot = snapshot_to_bytes(&state->snapshot)};
    bytes.crc = state_crc(&bytes);
    return kv->put(txn, TABLE_STATE, STATE_KEY, &bytes, sizeof bytes);
}

int table_block_read(const struct kv *kv, struct kv_txn *txn, raft_index index, const uint8_t **ret_block,
                     struct block_header *ret_header)
{
    const void *value = NULL;
    size_t count = 0;
    struct block_header header;
    int rc = kv->get(txn, TABLE_BLOCKS, index, &value, &count);
    if (rc != 0) return rc;
    rc = block_header_read(value, count, &header);
    if (rc == LOCKSTEP_EVERSION) *ret_header = header;
    if (rc != 0) return rc == LOCKSTEP_EVERSION ? rc : LOCKSTEP_ECORRUPT;
    if (header.bytes != count || header.index != index) return LOCKSTEP_ECORRUPT;
    rc = block_body_check(value, &header);
    if (rc != 0) return rc;
    *ret_block = value;
    *ret_header = header;
    return 0;
}

int table_block_put(const struct kv *kv, struct kv_txn *txn, raft_index index, const void *block, uint32_t bytes)
{
    return kv->put(txn, TABLE_BLOCKS, index, block, bytes);
}

int table_run_put(const struct kv *kv, struct kv_txn *txn, const struct storage_term_run *run)
{
    struct run_bytes bytes = {.term = run->term, .crc = run_crc(run)};
    return kv->put(txn, TABLE_RUNS, run->first_index, &bytes, sizeof bytes);
}

int table_configuration_put(const struct kv *kv, struct kv_txn *txn, raft_index index, const void *body, uint32_t bytes)
{
    return kv->put(txn, TABLE_CONFIGURATIONS, index, body, bytes);
}

int table_configuration_read(const struct kv *kv, struct kv_txn *txn, raft_index index, struct configuration *ret)
{
    const void *value = NULL;
    size_t count = 0;
    int rc = kv->get(txn, TABLE_CONFIGURATIONS, index, &value, &count);
    if (rc == 0) rc = configuration_read(value, count, ret);
    return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;
}

static int run_read(const struct kv *kv, struct kv_txn *txn, raft_index first_index, struct storage_term_run *ret)
{
    const void *value = NULL;
    size_t count = 0;
    struct run_bytes bytes;
    int rc = kv->get(txn, TABLE_RUNS, first_index, &value, &count);
    if (rc != 0) return rc;
    if (count != sizeof bytes) return LOCKSTEP_ECORRUPT;
    memcpy(&bytes, value, sizeof bytes);
    struct storage_term_run run = {.first_index = first_index, .term = bytes.term};
    if (bytes.zero != 0 || bytes.crc != run_crc(&run)) return LOCKSTEP_ECORRUPT;
    *ret = run;
    return 0;
}

int table_runs_trim(const struct kv *kv, struct kv_txn *txn, struct table_state *state, bool everything)
{
    uint64_t first = 0, next = 0;
    while (state->run_count > 0) {
        int rc = kv->first(txn, TABLE_RUNS, &first);
        if (rc == 0 && !everything) {
            rc = kv->seek(txn, TABLE_RUNS, first + 1, &next);
            if (rc == LOCKSTEP_ENOTFOUND || (rc == 0 && next > state->base.index + 1)) return 0;
        }
        if (rc == 0) rc = kv->erase(txn, TABLE_RUNS, first);
        if (rc != 0) return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc;
        state->run_count--;
    }
    return 0;
}

int table_runs_read(const struct kv *kv, struct kv_txn *txn, const struct table_state *state, uint32_t room_for_more,
                    struct storage_term_run **ret)
{
    uint64_t expected = state->run_count;
    if (expected > UINT32_MAX / 2) return LOCKSTEP_ECORRUPT;
    struct storage_term_run *runs = calloc(expected + room_for_more + 1, sizeof *runs);
    if (runs == NULL) return LOCKSTEP_ENOMEM;
    uint64_t found = 0, key = 0;
    int rc = 0;
    while ((rc = kv->seek(txn, TABLE_RUNS, key, &key)) == 0) {
        rc = found == expected ? LOCKSTEP_ECORRUPT : run_read(kv, txn, key, &runs[found]);
        if (rc == 0 && found > 0 && runs[found].term <= runs[found - 1].term) rc = LOCKSTEP_ECORRUPT;
        if (rc != 0) goto fail;
        found++;
        key++;
    }
    if (rc != LOCKSTEP_ENOTFOUND) goto fail;
    rc = LOCKSTEP_ECORRUPT;
    if (found != expected) goto fail;
    *ret = runs;
    return 0;
fail:
    free(runs);
    return rc;
}
