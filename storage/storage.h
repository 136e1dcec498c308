/* SPDX-License-Identifier: Apache-2.0 */
/* storage.h - one log in three places, behind one face for the node.
 *   ring     (memory)   every live block, by position
 *   journal  (file)     what this node promised, in order, one flush a frame:  storage_journal_work
 *   log      (LMDB)     committed blocks only, in large transactions:          storage_log_work
 * Threads: the loop calls everything without another mark; the two work functions run on their own threads (or
 * inline) and return without waiting. Requests and completions are records by value in bounded queues.
 * Any error from journal or LMDB is final (R8): storage_failed() says which; the process has to end. */
#ifndef LOCKSTEP_STORAGE_STORAGE_H
#define LOCKSTEP_STORAGE_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"
#include "proto/block.h"
#include "storage/configuration.h"
#include "storage/disk.h"
#include "storage/identity.h"
#include "storage/kv.h"
#include "storage/log.h"
#include "storage/ring.h"
#include "storage/snapshot.h"

enum storage_part { STORAGE_LOOP, STORAGE_JOURNAL, STORAGE_LOG };

/* J7: a block that is damaged or missing here, and that other nodes have: header_crc names it whoever gives it. With it all
 * blocks from `first` on may be given: each names the one before it. */
struct storage_missing {
    raft_index index, first;
    uint32_t crc;
};
/* One that was given, whole and checked. */
struct storage_patch {
    raft_index index;
    uint32_t crc, bytes;
    const uint8_t *block;
};
enum { STORAGE_MISSING_MAX = 16 /* told at a time */ };

struct storage_options {
    const char *directory;         /* locked by identity_open */
    const char *journal_directory; /* NULL = directory */
    uint64_t ring_bytes;
    uint64_t journal_bytes; /* at least 4 rings */
    uint64_t map_bytes;
    uint32_t block_bytes_max; /* largest accepted, BLOCK_BYTES_MAX */
    uint32_t piece_bytes;     /* of snapshots taken here; 0 = SNAPSHOT_PIECE_BYTES; at most SNAPSHOT_PIECE_BYTES_MAX */
    uint64_t keep_bytes;      /* of blocks stay in front of a snapshot, for peers that are a little behind */
    uint64_t keep_ns;         /* but none that is older than it by so much log time; 0 = however old */
    uint32_t group;
    uint64_t cluster_id; /* said in the ring's header */
    raft_member member_id;
    uint64_t
        random_id; /* names the journal when it is first made: nobody can write a payload that looks like a frame */
    enum durability_level level;
    uint64_t promise_ns;     /* R5: so long a leader may count on what this process tells it; 0 = no leases */
    struct block_base birth; /* base at index 0, from the birth record */
    const struct disk *disk;
    const struct kv *kv;
    /* Somebody has something to do: a request was queued for JOURNAL or LOG, a completion for LOOP. Any thread. */
    void (*wake)(void *context, enum storage_part part);
    void *wake_context;
    const struct storage_patch *patches; /* instead of what is damaged */
    uint32_t patch_count;
};

struct storage_hard_state {
    raft_term term;
    raft_member vote;
};

struct storage_term_run {
    raft_index first_index;
    raft_term term;
};

/* What recovery stands on; all of it is durable when storage_open returns (J3). */
struct storage_recovered {
    struct storage_hard_state hard_state;
    struct block_base base;           /* last compacted block, or birth */
    struct storage_snapshot snapshot; /* at or above the base; index 0 = none. The machine starts from it */
    struct block_base last;           /* last live block */
    raft_index commit;                /* known committed: LMDB's last, or the newest frame's commit */
    raft_index stored;                /* LMDB's last */
    uint64_t boot;                    /* this process's boot counter, raised durably */
    uint64_t promise_ns;              /* the longest of this process and those before whose promises may last still */
    const struct storage_term_run *runs; /* base+1..last; owned by storage, valid until storage_close */
    uint32_t run_count;
    /* R6: ascending, all that a truncation can go back to: the newest one that LMDB holds, and those above it. The birth
     * record's stands below them all. Owned by storage, valid until storage_close. */
    const struct storage_configuration *configurations;
    uint32_t configuration_count;
    /* With ECORRUPT alone: what would do, as patches at the next attempt; none = nothing can. And `boot`, what this start's
     * will be. */
    struct storage_missing missing[STORAGE_MISSING_MAX];
    uint32_t missing_count;
};

/* Open, recover, and make durable what was recovered. Blocks behind `stored` are in the ring, published.
 * why: a sentence for people on error. ECORRUPT (damage, the block is named), EVERSION, EFOREIGN, EIO, ENOSPC, EINVAL
 * (journal under 4 rings; a live tail larger than the ring: both sizes are named), ENOMEM. Blocks; before the loop. */
int storage_open(const struct storage_options *options, struct storage **ret, struct storage_recovered *ret_recovered,
                 char *why, size_t why_room);
/* The promises of the processes before are over: the next start need not wait for them. Durable when it returns 0; if not,
 * that one waits longer than it has to. Blocks. Thread: any one but the loop, once. */
int storage_promise_over(struct storage *storage);
void storage_close(struct storage *storage); /* after the threads have ended; takes NULL */

struct storage_persist {
    uint64_t seq; /* ascending */
    bool has_hard_state;
    struct storage_hard_state hard_state;
    raft_index first, last; /* published blocks; 0, 0 = none. They stay pinned until flushed. */
    raft_index commit;      /* known when submitted */
};
/* Whether one more persist with blocks of this many bytes fits queue and journal (J5's room included). Where the journal is
 * what is full, the log thread is asked to free what it can: STORAGE_LOOP is woken when it has. */
bool storage_persist_fits(struct storage *storage, uint64_t block_bytes);
/* Queue it. The caller asked storage_persist_fits before the event that led here was stepped; hard state alone
 * always fits while fewer than STORAGE_PERSISTS_MAX are outstanding. */
enum { STORAGE_PERSISTS_MAX = 1024 };
void storage_persist(struct storage *storage, const struct storage_persist *persist);
/* The newest seq that is durable. */
uint64_t storage_persisted(const struct storage *storage);

/* Blocks up to commit may go to LMDB; the ring is told too. */
void storage_commit(struct storage *storage, raft_index commit);
/* Once a turn: let the ring's head pass what is stored and flushed. */
void storage_reclaim(struct storage *storage);

/* 0, or the final error; why (may be NULL) points to a static sentence. Any thread. */
int storage_failed(const struct storage *storage, const char **why);

/* The thread bodies: handle what is queued, return. Return: ns until they want to be called again though nothing
 * is queued (the marker frame after 1 ms idle), UINT64_MAX = only when woken. */
uint64_t storage_journal_work(struct storage *storage, uint64_t now_ns);
uint64_t storage_log_work(struct storage *storage, uint64_t now_ns);

struct storage_status {
    raft_index stored;
    uint64_t flushes, frames, blocks, bytes; /* journal, since start */
    uint64_t transactions;                   /* LMDB, since start */
    raft_index base, snapshot;               /* last compacted block; the newest snapshot's, 0 = none */
    uint64_t log_bytes;                      /* of blocks in LMDB */
    uint64_t snapshots, installs;            /* since start */
    bool snapshot_failed;                    /* the newest attempt: no space */
    uint64_t packs;                          /* live blocks were written once more, because they held the journal */
    uint64_t journal_bytes, journal_used_bytes;
    bool
        log_stalled; /* no space for data.mdb to grow: blocks stay in ring and journal, appends are refused when full */
};
void storage_status_read(const struct storage *storage, struct storage_status *ret);

#endif
