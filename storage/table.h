/* SPDX-License-Identifier: Apache-2.0 */
/* table.h - what the log keeps in the ordered map: committed blocks by index, term runs by first index, configurations by
 * the index of their block, and one state record, always written in the same transaction as the blocks it speaks of (J4).
 * Every value carries a checksum, because the map finds no damage by itself; a gap in the indexes is damage too.
 *
 * state   0 magic u32  4 crc u32 (bytes 8..)  8 format u32  12 group u32  16 member_id  24 journal_id  32 boot
 *        40 journal bytes  48 frame_bytes_max  56 term  64 vote
 *        72 base: index, term, next_position, time_ns, crc (u32)   108 last_crc u32  112 last_index
 *       120 Q: seq, boot, lap, offset, crc (u32)  156 zero u32  160 flushed_seq  168 run_count
 *       176 configuration_index  184 blocks_bytes  192 install_index  200 snapshot (snapshot_file.h)
 * run     0 term u64  8 crc u32 (first index, term)  12 zero u32
 * configuration: as in its block, and kept though the block be compacted (R6) */
#ifndef LOCKSTEP_STORAGE_TABLE_H
#define LOCKSTEP_STORAGE_TABLE_H

#include <stdint.h>

#include "proto/block.h"
#include "storage/journal.h"
#include "storage/kv.h"
#include "storage/snapshot_file.h"
#include "storage/storage.h"

enum {
    TABLE_STATE = 0,
    TABLE_BLOCKS = 1,
    TABLE_RUNS = 2,
    TABLE_CONFIGURATIONS = 3,
    TABLES = 4,
};

struct table_state {
    uint32_t format; /* as read; with EVERSION it alone is set */
    uint32_t group;
    raft_member member_id;
    uint64_t journal_id;
    uint64_t boot; /* the only one whose frames recovery reads (J3) */
    struct journal_shape shape;
    struct storage_hard_state hard_state;
    struct block_base base;
    raft_index last_index; /* newest block here; base.index if there is none */
    uint32_t last_crc;
    struct journal_place q; /* up to here every block is here or dead, every hard state older than the one above */
    uint64_t flushed_seq;   /* newest frame known to be flushed: a bad one at or below it is damage */
    uint64_t run_count;     /* the first may begin at or below the base */
    raft_index configuration_index; /* of the newest configuration here; 0 = the birth record has it */
    uint64_t blocks_bytes;          /* of blocks base + 1 .. last_index */
    raft_index install_index;       /* frames up to the record of this install hold dead blocks; 0 = Q has passed it */
    struct storage_snapshot snapshot; /* the file that counts; index 0 = none */
};

/* ENOTFOUND: never written; ECORRUPT; EVERSION: ret->format is what it is. */
int table_state_read(const struct kv *kv, struct kv_txn *txn, struct table_state *ret);
/* ENOSPC; EIO final. */
int table_state_write(const struct kv *kv, struct kv_txn *txn, const struct table_state *state);

/* A stored block, checked. It lies in the map: valid until the transaction ends. ENOTFOUND; ECORRUPT; EIO;
 * EVERSION: ret_header->version says which. */
int table_block_read(const struct kv *kv, struct kv_txn *txn, raft_index index, const uint8_t **ret_block,
                     struct block_header *ret_header);
int table_block_put(const struct kv *kv, struct kv_txn *txn, raft_index index, const void *block, uint32_t bytes);

int table_run_put(const struct kv *kv, struct kv_txn *txn, const struct storage_term_run *run);
/* Erase runs that lie wholly at or below the base; all of them, with everything set. */
int table_runs_trim(const struct kv *kv, struct kv_txn *txn, struct table_state *state, bool everything);
/* All of them, ascending, in memory to free(). ECORRUPT: damaged, or not state->run_count of them. ENOMEM. */
int table_runs_read(const struct kv *kv, struct kv_txn *txn, const struct table_state *state, uint32_t room_for_more,
                    struct storage_term_run **ret);

/* The row of the configuration block at this index. */
int table_configuration_put(const struct kv *kv, struct kv_txn *txn, raft_index index, const void *body,
                            uint32_t bytes);
/* ECORRUPT: damaged or missing; EVERSION; EIO. */
int table_configuration_read(const struct kv *kv, struct kv_txn *txn, raft_index index, struct configuration *ret);

#endif
