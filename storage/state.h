/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - what the three threads of one storage share, and which of them may touch what. Private to storage/.
 *
 *   loop --requests--> journal thread --frames[]--> log thread --stored, reclaimed--> loop and journal thread
 *
 * Numbers only grow: a ticket counts requests, a frame seq counts frames, linear places count the journal's bytes.
 * Everything that crosses is an atomic counter, or a record that such a counter hands over with release. */
#ifndef LOCKSTEP_STORAGE_STATE_H
#define LOCKSTEP_STORAGE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/queue.h"
#include "storage/boot.h"
#include "storage/compress.h"
#include "storage/journal.h"
#include "storage/record_file.h"
#include "storage/snapshot_file.h"
#include "storage/storage.h"
#include "storage/table.h"

enum {
    /* 1,024 persists may be outstanding; those with blocks are refused while half of the queue is taken, which leaves
     * room for the parts of large ones, for a pack, and for all hard states. */
    STORAGE_REQUESTS_MAX = 4096,
    STORAGE_REQUESTS_BUSY = STORAGE_REQUESTS_MAX / 2,
    STORAGE_TRANSACTION_BYTES_MAX = 4 << 20,
    STORAGE_HARD_STATE_ROOM_BYTES = 4 << 20, /* J5: kept free for hard state and installs */
    STORAGE_GROW_SLACK_BYTES = 1 << 20,
    STORAGE_TRANSACTION_BYTES_FULL = 1 << 20, /* while the disk is full */
    /* J8: of data.mdb, for transactions that only move Q and hard state, or compact; and, on a full disk, for one that
     * stores blocks, should the free pages that it is to fill lie in pieces. */
    STORAGE_KEPT_BACK_BYTES = 2 * (STORAGE_TRANSACTION_BYTES_FULL + STORAGE_GROW_SLACK_BYTES),
};

/* Loop to journal thread. Part of a persist, or of a pack: one contiguous range of the ring, small enough for a frame. */
struct request {
    uint64_t ticket;
    bool has_hard_state, pack, pack_last;
    bool install; /* a frame of its own: the log is empty behind block `last` */
    struct storage_hard_state hard_state;
    raft_index first, last; /* 0, 0 = no blocks */
    uint32_t last_crc;
    ring_pos pos;
    uint32_t bytes, count;
    raft_index commit;
    uint64_t room_bytes;    /* of the journal, at most */
    uint64_t reserve_bytes; /* J5: to be kept free behind it, for live blocks once more */
};

/* Journal thread to log thread: one flushed frame. live_last is the log thread's own. */
struct frame_entry {
    struct journal_place place;
    uint64_t linear_end;
    struct storage_hard_state hard_state; /* after the frame */
    raft_index cut;                       /* lowest index that the frame's blocks cut; UINT64_MAX = none */
    raft_index last;                      /* highest block in the frame, 0 = none */
    uint64_t pack_from_seq;               /* the last frame of a pack names its first; 0 */
    raft_index pack_first;
    raft_index install_index; /* of an install's record; 0 */
    raft_index live_last;     /* no frame up to this one holds a live block above */
};

/* Loop to log thread, one at a time. */
enum install_command { INSTALL_NONE, INSTALL_PIECE, INSTALL_DROP, INSTALL_ALL };

/* A snapshot that is taken here: its own thread's while it is written, the log thread's when it is whole. */
enum taken { TAKEN_NONE, TAKEN_WRITING, TAKEN_WHOLE };

/* What has come of a leader's snapshot. The log thread's. */
struct incoming {
    struct snapshot_file *file; /* NULL = there is none */
    struct snapshot_file_head head;
    uint64_t offset;
    uint32_t checksum; /* of the bytes up to offset */
    bool published;    /* it has its name for good, and the transaction that counts on it has not happened yet */
};

/* The loop's note of a request. */
struct ticket {
    uint64_t persist_seq; /* what is durable when the request is */
    ring_pos pos;         /* where its new blocks begin; UINT64_MAX = it has none */
};

struct storage {
    struct ring *ring;
    const struct kv *kv;
    struct kv_map *map;
    struct journal_shape shape;
    struct boot boot;    /* as stored; not complete until the storage is open */
    uint64_t promise_ns; /* this process's */
    const struct disk *disk;
    char directory[STORAGE_PATH_BYTES_MAX];
    uint64_t ring_bytes;
    uint32_t group;
    uint32_t piece_bytes; /* of snapshots taken here */
    uint64_t keep_bytes;  /* of blocks in front of a snapshot */
    uint64_t keep_ns;     /* of log time in front of it, at most; 0 = however long */
    bool leaves_clean;    /* level os: everything is flushed at the close, and boot says so */
    void (*wake)(void *context, enum storage_part part);
    void *wake_context;
    struct storage_term_run *runs; /* what recovery found; for the caller, until close */
    struct storage_configuration *configurations;
    uint32_t configuration_count;

    /* --- loop --- */
    uint64_t ticket; /* of the newest request */
    uint64_t persist_seq;
    ring_pos submitted_pos; /* end of the newest range that was submitted */
    uint64_t submitted_room_bytes;
    uint64_t pack_ticket; /* 0 = no pack is under way */
    ring_pos pack_pos;
    struct storage_hard_state hard_state; /* newest submitted */
    raft_index submitted_last;            /* and its crc, which names all that was submitted and still counts */
    uint32_t submitted_crc;
    ring_pos log_woken_pos;
    struct ticket tickets[STORAGE_REQUESTS_MAX];

    /* --- loop to others --- */
    struct spsc requests;
    _Atomic uint64_t commit;
    _Atomic bool pack_queued; /* hard states ahead of it may use the room that is kept for them */
    _Atomic bool room_wanted; /* blocks were refused for want of room in the journal */

    /* A snapshot that comes from the leader. The loop's while the command is INSTALL_NONE, else the log thread's. */
    struct {
        _Atomic int command;
        uint32_t piece_bytes;
        struct storage_snapshot snapshot;
        uint64_t offset;
        size_t count;
        uint8_t *bytes; /* SNAPSHOT_PIECE_BYTES_MAX */
        struct storage_install_configuration configuration;
        bool begun; /* the loop's own: from storage_install to storage_install_done */
        struct block_base base;
    } install;
    struct storage_incoming incoming_shown; /* handed over with the command */

    /* --- the thread that takes snapshots; `is` is handed over with TAKEN_WHOLE --- */
    struct {
        struct snapshot_file *file;
        struct compress *stream;
        uint8_t *piece;
        uint32_t number, count;
        int error;
        struct storage_snapshot is;
    } taking;
    _Atomic int taken;

    /* --- journal thread --- */
    struct journal journal;
    struct request batch[JOURNAL_PARTS_MAX]; /* taken from the queue, not written yet */
    uint32_t batch_count;
    uint64_t batch_bytes;
    bool has_next; /* taken, belongs to the next frame */
    struct request next;
    struct frame_group group_now; /* state behind the last frame */
    uint64_t pack_from_seq;
    raft_index pack_first;
    uint64_t last_frame_ns;
    bool marker_due;
    uint64_t last_reserve_bytes; /* a marker keeps it free too */

    /* --- journal thread to others --- */
    _Atomic uint64_t durable_ticket;
    _Atomic uint64_t durable_pos;      /* ring bytes below are in flushed frames, or dead */
    _Atomic uint64_t frames_flushed;   /* seq of the newest entry in frames[] */
    _Atomic uint64_t journal_end;      /* linear */
    _Atomic uint64_t taken_room_bytes; /* of submitted_room_bytes, what has become part of journal_end */
    _Atomic bool journal_waits;        /* for reclaimed to grow */
    struct frame_entry *frames;        /* entry of frame seq at seq % frame_room */
    uint64_t frame_room;

    /* --- log thread --- */
    struct table_state table; /* as last committed */
    struct block_base stored_base;
    uint64_t frames_seen;
    struct storage_hard_state hard_state_durable;
    uint64_t pending_since_ns;
    bool pending;
    uint64_t stalled_until_ns;
    struct incoming incoming;
    uint64_t install_seq; /* of the newest install's frame, 0 = not flushed yet */
    bool compact_due;
    uint64_t compact_bytes_due; /* of blocks at or below the snapshot */
    bool dead_blocks_due;
    bool snapshot_stalled; /* no space: look again a while later */

    /* --- log thread to others --- */
    _Atomic uint64_t stored;
    _Atomic uint64_t reclaimed; /* linear end of Q */
    _Atomic bool log_idle;      /* sleeps until woken */
    _Atomic bool pack_wanted;
    _Atomic bool log_stalled;
    _Atomic uint64_t base_index; /* blocks at or below it are gone, or going */
    _Atomic uint64_t snapshot_index, blocks_bytes;
    _Atomic bool snapshot_failed; /* the newest one that was taken: no space */

    /* --- anybody --- */
    _Atomic int failed;
    _Atomic(const char *) failed_why;
    _Atomic uint64_t flushes, frame_count, block_count, block_bytes, transactions, packs, snapshots, installs;
};

/* Kept free for hard state and installs (J5). */
static inline uint64_t storage_hard_state_room_bytes(const struct storage *storage)
{
    uint64_t span = journal_span(&storage->shape);
    return span / 8 < STORAGE_HARD_STATE_ROOM_BYTES ? span / 8 : STORAGE_HARD_STATE_ROOM_BYTES;
}

/* So much waiting for the log is worth a transaction at once. */
static inline uint64_t storage_enough_bytes(const struct storage *storage)
{
    return storage->ring_bytes / 8 < 1 << 20 ? storage->ring_bytes / 8 : 1 << 20;
}

/* The first final error wins (R8). why: static. */
void storage_fail(struct storage *storage, int error, const char *why);

/* snapshot.c */
int storage_snapshot_open(struct storage *storage); /* ENOMEM */
void storage_snapshot_close(struct storage *storage);
/* Whether the files are there and what the state record says. The opener. ECORRUPT, EVERSION, EIO, EINVAL, ENOMEM: `name` is
 * whose, *ret_version what it is on EVERSION. */
int storage_snapshot_check(struct storage *storage, char name[SNAPSHOT_NAME_BYTES], uint32_t *ret_version);
/* What was under way when the directory was left goes on, or goes. The opener, when nothing is refused any more.
 * EIO, EINVAL. */
int storage_snapshot_recover(struct storage *storage);
/* One bounded unit of snapshots and compaction. False: there is nothing to do. Log thread. */
bool storage_snapshot_work(struct storage *storage);
/* What is held of an incoming snapshot, for the loop. Log thread, while a command is under way, and the opener. */
void storage_incoming_show(struct storage *storage);
/* storage.c: the install's record goes to the journal. Loop. */
void storage_submit_install(struct storage *storage, const struct block_base *base);

/* Write the batch as one frame. Journal thread, and the opener. EIO, ENOSPC: final. */
int storage_frame_write(struct storage *storage);
/* Put a request into the batch if it fits the frame that the batch will be. */
bool storage_batch_add(struct storage *storage, const struct request *request);

/* Take notice of the frames that were flushed since the last look. Log thread, and the opener. */
void storage_frames_look(struct storage *storage);
/* Have the space of a transaction that stores so many bytes of values; 0: one that only moves Q, or gives space back,
 * which alone may use what is kept back for it. Log thread. ENOSPC: not now. */
int storage_grow(struct storage *storage, uint64_t bytes);
/* One transaction: blocks up to `last` (in the ring, held), the newest durable hard state, Q. Log thread.
 * ENOSPC: nothing happened; all else is final. */
int storage_transaction(struct storage *storage, raft_index last);

#endif
