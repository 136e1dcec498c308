/* SPDX-License-Identifier: Apache-2.0 */
/* recovery.h - what a journal says, read back: the live blocks above the log, hard state, commit.
 * Thread: the one that opens. Reads only; what is found becomes durable by what storage_open() does next (J3).
 * J2  A bad frame s is a torn tail unless a valid page of the same boot behind it, or the log, knows a flushed_seq >= s;
 *     then it is damage, except for what the log holds. J7: what it left behind as the last block is known from its group
 *     entry or the next frame's repetition: blocks up to that one are missing until patches give them.
 * J4  All frames behind Q in order; each block first cuts the tail at its index, also at or below the log's last; the
 *     higher term wins, within a term a vote over none. What remains above the log must chain to it. */
#ifndef LOCKSTEP_STORAGE_RECOVERY_H
#define LOCKSTEP_STORAGE_RECOVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/journal.h"
#include "storage/kv.h"
#include "storage/table.h"

/* Where a live block lies in the journal. */
struct recovery_block {
    raft_index index;
    raft_term term;
    uint64_t offset;
    uint32_t bytes, crc, previous_crc; /* bytes 0: it is missing, and so may be its crc */
    bool crc_known;
    bool dead;            /* cut by a later block of its frame */
    const uint8_t *patch; /* instead of what lies at offset; NULL */
};

struct recovery {
    struct storage_hard_state hard_state;
    raft_index commit;
    struct journal_place end;      /* behind the last good frame; also on error */
    struct recovery_block *blocks; /* those above the log, in order; free() */
    size_t block_count;
    uint64_t blocks_bytes;
    struct storage_missing missing; /* with ECORRUPT: what has to be given; index 0 = nothing would help */
};

/* Replay the journal behind state->q over the log that txn shows. stored: the base behind the log's last block.
 * why   on error a sentence for people that names what is damaged
 * ECORRUPT, EVERSION, EIO, ENOMEM. Allocates. */
int recovery_replay(const struct journal *journal, const struct kv *kv, struct kv_txn *txn,
                    const struct table_state *state, const struct block_base *stored,
                    const struct storage_patch *patches, uint32_t patch_count, struct recovery *ret, char *why,
                    size_t why_room);
void recovery_free(struct recovery *recovery);

/* One good frame's blocks, for the fuzzer and for replay: fills at most `room` entries (offsets relative to `blocks`).
 * bytes  blocks_bytes of the frame. ECORRUPT: not exactly `count` whole blocks of this group, each chained to the last. */
int recovery_parse_blocks(const uint8_t *blocks, uint32_t bytes, uint32_t count, uint32_t group,
                          struct recovery_block *ret, size_t room);

#endif
