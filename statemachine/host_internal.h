/* SPDX-License-Identifier: Apache-2.0 */
/* host_internal.h - the inside of a host, shared by the files host*.c and nobody else.
 *   host.c            applying, queries, hashes, the loop's side
 *   host_snapshot.c   the state as bytes: taken at a block's end, restored into a new machine, put in its place */
#ifndef LOCKSTEP_STATEMACHINE_HOST_INTERNAL_H
#define LOCKSTEP_STATEMACHINE_HOST_INTERNAL_H

#include <assert.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "statemachine/host.h"
#include "statemachine/mailbox.h"

enum {
    HASH_EVERY = 1024,
    HASH_SLOTS = 4,
    QUERIES_A_STEP_MAX = 256,
    ANSWERS_A_WAKE = 256, /* a slow machine's first answers do not wait for the end of its run */
};

/* In the queues, with the query's or the reply's bytes behind it. */
struct query_record {
    uint64_t tag, entity;
    raft_index min_index;
    uint64_t session, seq; /* of an outcome: it is none of the machine's */
};

struct answer_record {
    int32_t type, error, code;
    uint32_t unused;
    uint64_t tag;
    raft_index index, first_index;
    log_position position, first_position;
};

enum { ANSWER_BYTES_MAX = sizeof(struct answer_record) + LOCKSTEP_REPLY_BYTES_MAX };

static_assert(ANSWER_BYTES_MAX + MAILBOX_RECORD_HEADER_BYTES <= HOST_REPLIES_BYTES_MIN / 2, "one always fits");

/* One published pair of hashes. The slot after the newest is written, then counted: a reader has HASH_SLOTS - 1
 * publications of time to copy. */
struct hash_slot {
    _Atomic uint64_t index, state_low, state_high, reply_low, reply_high;
};

struct run {
    struct lockstep_batch face; /* what the machine holds; first */
    struct host *host;
    raft_index limit; /* the last block that may be applied */
    uint64_t bytes_left;
    log_position answer_from;
    bool pinned, from_log;
    ring_pos pin;
    /* The block that apply stands in. */
    bool in_block;
    const uint8_t *block;
    struct block_header header;
    struct block_cursor cursor;
    /* The command taken last. */
    struct lockstep_command command;
    bool staged;      /* it waits for the machine to take it */
    bool taken;       /* and not done with yet */
    bool answered;    /* by the machine */
    uint8_t *answer;  /* room for its answer; NULL: none is wanted */
    bool ended;       /* next has returned NULL */
    bool out_of_room; /* ... because of the answers */
};

struct query_run {
    struct lockstep_replies face; /* first */
    uint8_t *answer;
    bool answered, failed;
    int32_t code;
    size_t reply_bytes;
};

/* A state by itself: what a snapshot holds, read into a machine of its own. */
struct host_state {
    void *machine;
    struct sessions *sessions;
    struct block_base base; /* of the last block applied */
    struct lockstep_hash reply_hash;
    struct host_configuration configuration;
    uint64_t bytes; /* that it was read from */
};

/* machine: NONE -> FREEZING (its sessions become bytes, step by step) -> READY -> writer: WRITTEN -> machine: NONE */
enum frozen { FROZEN_NONE, FROZEN_FREEZING, FROZEN_READY, FROZEN_WRITTEN };

struct host {
    struct host_options options;
    const struct lockstep_machine *table;
    void *machine;
    struct lockstep_host services;
    struct ring *ring;
    struct storage_reader *reader;
    struct mailbox queries, answers;

    /* The loop writes, the machine's thread reads. */
    _Atomic raft_index commit;
    _Atomic log_position answer_from;
    /* The loop's own. */
    bool answer_held; /* host_answer_next has handed out the oldest answer */

    /* The machine's thread's own. */
    raft_index next_index;
    uint32_t next_offset;       /* in that block, of the next command; BLOCK_HEADER_BYTES = at its beginning */
    log_position next_position; /* 0 = not known before the first block */
    bool stopped;
    struct run run;
    struct lockstep_replies replies; /* of apply */
    struct query_run query;
    struct lockstep_hash reply_hash;
    struct sessions *sessions;
    uint32_t unannounced; /* answers that the loop was not woken for */

    /* The machine's thread writes, anyone reads. */
    _Atomic raft_index applied_index;
    _Atomic log_position applied_position;
    _Atomic int error; /* release: pairs with the acquire in host_status_read(); written last */
    _Atomic raft_index error_index;
    _Atomic log_position error_position;
    _Atomic bool parked;
    _Atomic uint64_t queries_run, commands, batches, log_reads, repeated;
    _Atomic uint32_t session_count;
    _Atomic uint64_t session_due_ns;
    /* Snapshots. The frozen state belongs to its writer while it is READY, else to the machine's thread. */
    _Atomic int frozen;   /* release and acquire hand over what follows */
    void *frozen_machine; /* of snapshot_begin */
    uint8_t *frozen_sessions;
    uint64_t frozen_sessions_bytes;
    struct {
        struct block_base base;
        struct lockstep_hash state_hash, sessions_hash, reply_hash;
        struct host_configuration configuration;
        uint64_t bytes; /* of the snapshot; control sets it when all is written */
    } frozen_is;
    _Atomic uint64_t snapshot_interval; /* the next one is due so many bytes of blocks behind the last one */
    _Atomic bool snapshot_allowed, halt, halted;
    _Atomic(struct host_state *) replacement; /* given by the loop, taken by the machine's thread */
    /* The machine's thread's own. */
    struct block_base base; /* of the last block applied; index 0 = birth */
    struct host_configuration configuration;
    uint64_t bytes_since; /* of blocks applied since the last snapshot */
    uint64_t snapshot_ns; /* log time of the last snapshot, or of the first block; 0 = there is neither */
    bool snapshot_due;

    struct hash_slot hashes[HASH_SLOTS];
    _Atomic uint64_t hashes_published; /* the newest stands in slot hashes_published % HASH_SLOTS */
};

/* host.c */
void host_log(struct host *host, const char *format, ...) __attribute__((format(printf, 2, 3)));
void host_publish_hashes(struct host *host, raft_index index);
void host_publish_applied(struct host *host);
/* M2: the machine is called no more. The first reason stays. */
void host_stop(struct host *host, int error, raft_index index, log_position position);

/* host_snapshot.c; the machine's thread */
/* A block was applied. True: a snapshot is due here, the run ends behind this block. */
bool host_snapshot_after(struct host *host, const struct block_header *header, const uint8_t *block);
/* Behind a run, at a block's end: freeze the state if that is due, let a written one go, put a new state in the old one's place.
 * True: there is more to do at once. */
bool host_snapshot_step(struct host *host);
bool host_is_halted(struct host *host);
/* What host_open and host_close have to do. */
int host_snapshot_open(struct host *host);
void host_snapshot_close(struct host *host);

#endif
