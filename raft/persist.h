/* SPDX-License-Identifier: Apache-2.0 */
/* persist.h - what is durable here, and what is on its way to the disk.
 * Thread: the core's. Owns: the queue of persists handed out and not yet reported.
 *
 *   index   1 .. durable_index | in the queue .. handed_index | not handed out .. last_index
 *
 * R2  Storage is FIFO: completion of seq means completion of all before it. A cut at i lowers the durable mark, the
 *     handed mark and every queued persist to at most i - 1: a write of a cut block that completes later proves
 *     nothing about the block that took its place (T22).
 * R7  The durable hard state is kept beside the current one: grants wait for it.
 * Source: etcd raft's async storage writes, whose append race this queue rules out. */
#ifndef LOCKSTEP_RAFT_PERSIST_H
#define LOCKSTEP_RAFT_PERSIST_H

#include "raft/raft.h"

struct raft_persist {
    uint64_t seq;
    raft_index last_index;             /* durable at least this far once done; lowered by cuts */
    struct raft_hard_state hard_state; /* durable once done */
};

struct raft_persists {
    raft_index durable_index, handed_index;
    struct raft_hard_state durable, handed;
    uint64_t newest_seq;
    uint32_t head, count;
    struct raft_persist queue[RAFT_PERSISTS_MAX];
};

void raft_persists_open(struct raft_persists *p, const struct raft_start *start);
uint32_t raft_persists_room(const struct raft_persists *p);

/* Hand out what is not handed out yet: the hard state where it differs, blocks handed_index + 1..last_index. Fills the
 * persist fields of the effects; persist_seq = 0 if there is nothing, or no room in the queue: then it stays due. */
void raft_persists_take(struct raft_persists *p, const struct raft_hard_state *current, raft_index last_index,
                        struct raft_effects *ret);
/* seq and all before it are durable. Unknown or old seqs change nothing. */
void raft_persists_done(struct raft_persists *p, uint64_t seq);
/* A snapshot took the place of the whole log: it is durable up to index, and what is queued proves nothing about blocks. */
void raft_persists_reset(struct raft_persists *p, raft_index index);
/* Blocks >= index are dead. */
void raft_persists_cut(struct raft_persists *p, raft_index index);

void raft_persists_check(const struct raft_persists *p, raft_index last_index);

#endif
