/* SPDX-License-Identifier: Apache-2.0 */
/* host.h - the machine as an actor: identity, mailbox, behaviour, private state.
 * Two sides. The loop raises the high-water index, puts queries in, takes answers out. The machine's thread runs
 * host_work(): it handles what is in the mailbox, applies at most one batch a step, and returns without waiting.
 * M1  The sessions are the host's: a command that was applied before is not handed to the machine again, and is answered
 *     as it was then; opening, keeping and closing are commands of their own kind, which the machine never sees.
 * M2  Outcomes: OK, REJECT, FATAL; never skip and go on.
 * M4  The mailbox is bounded and holds a high-water index and queries, never blocks; full is LOCKSTEP_EFULL. A hung
 *     machine pins at most one batch of the ring; when the ring has passed it, it reads from the log.
 * M6  XXH3-128 folded over (index, replies), and the machine's hash(), both comparable by index. */
#ifndef LOCKSTEP_STATEMACHINE_HOST_H
#define LOCKSTEP_STATEMACHINE_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "statemachine/plugin.h"
#include "statemachine/sessions.h"
#include "storage/log.h"

struct host;

/* Two of the largest answers, so that one always fits behind a gap at the queue's end. */
enum { HOST_REPLIES_BYTES_MIN = 4 * LOCKSTEP_REPLY_BYTES_MAX };

/* The newest configuration block that was applied, as its body; the host does not look into it. */
enum { HOST_CONFIGURATION_BYTES_MAX = 16384 };
struct host_configuration {
    raft_index index; /* 0 = none: the birth record's counts */
    uint32_t count;
    uint8_t bytes[HOST_CONFIGURATION_BYTES_MAX];
};

struct host_options {
    const struct plugin *plugin;     /* outlives the host */
    struct storage *storage;         /* blocks: from its ring, else through a reader of its own */
    raft_index start_index;          /* the first block to apply (last compacted + 1) */
    uint64_t replies_bytes;          /* of the answer queue; a power of two, at least HOST_REPLIES_BYTES_MIN */
    uint64_t queries_bytes;          /* of the query queue; a power of two; a query takes at most half of it */
    uint32_t batch_bytes_max;        /* of blocks applied in one step of host_work; one block always fits */
    struct session_limits sessions;  /* the group's */
    uint64_t snapshot_after_bytes;   /* of blocks behind the last snapshot the next is due (N1); 0 = none is taken */
    uint64_t snapshot_age_ns;        /* of log time, too; 0 = by bytes alone */
    struct lockstep_reader *restore; /* a snapshot to start from instead of start_index; NULL = none */
    /* Answers lie ready for the loop. Machine's thread. */
    void (*wake_loop)(void *context);
    /* Something lies ready for the machine. Loop. */
    void (*wake_machine)(void *context);
    /* A snapshot lies ready to be written; may be NULL where none is taken. Machine's thread. */
    void (*wake_snapshots)(void *context);
    /* A line from the machine. Machine's thread, or whose calls on this host are. */
    void (*log)(void *context, const char *line);
    void *context;
};

/* Make the actor and its machine. Allocates all that it will ever need; before its thread starts.
 * ENOMEM · EINVAL a size out of range, or the machine's open failed · with restore, what host_state_read says */
int host_open(const struct host_options *options, struct host **ret);
void host_close(struct host *host); /* after its thread has ended; takes NULL */

/* --- loop's side --- */

/* Blocks up to commit may be applied. */
void host_commit(struct host *host, raft_index commit);
/* From this position on, answers are wanted (this node appended the commands); UINT64_MAX = none. Call it before the
 * first such block is committed. Answers below it are only folded into the hash. */
void host_answer_from(struct host *host, log_position first);
/* Run a query on a state that has applied min_index, which is committed: queries wait in order. Bytes are copied.
 * EFULL: retry later; ETOOBIG: longer than half of the queue. */
int host_query(struct host *host, uint64_t tag, uint64_t entity, raft_index min_index, const uint8_t *query,
               uint32_t bytes);
/* The same, about a session's command: what became of it? */
int host_outcome(struct host *host, uint64_t tag, uint64_t session, uint64_t seq, raft_index min_index);

enum host_answer_type { HOST_ANSWER_APPLIED = 1, HOST_ANSWER_QUERY = 2, HOST_ANSWER_OUTCOME = 3 };

struct host_answer {
    uint8_t type;
    /* Of a command: 0, or nothing came of it, or nothing new: ENOTFOUND, EWINDOW, EREPLIED, EINVAL as sessions_judge()
     * says, EFULL: no more sessions. Of a query: EINVAL (no query in this machine, or it said so), EUNAVAILABLE (the
     * machine has stopped or parked before min_index). Of an outcome: these, and those of sessions_find(). */
    int error;
    int32_t code;          /* 0 = OK, else the machine's */
    uint64_t tag;          /* of a query or an outcome */
    raft_index index;      /* of the block; of a query or outcome: what was applied when it ran */
    log_position position; /* of a command */
    /* Where the command stands that was applied: itself, or the one that this one repeats. Of an outcome: 0 = the session
     * does not know it. */
    raft_index first_index;
    log_position first_position;
    const uint8_t *reply; /* valid until host_answer_next is called again */
    uint32_t reply_bytes;
};
/* The next answer, in order of application. False: none now. */
bool host_answer_next(struct host *host, struct host_answer *ret);

/* --- machine's thread --- */

/* Handle what the mailbox holds, a bounded amount. Returns true if there is more to do at once. */
bool host_work(struct host *host);

/* --- snapshots ---
 * The machine's thread freezes the state behind the block that makes one due (so that replicas that are allowed to freeze at
 * the same blocks), another thread writes it out beside apply, the machine's thread lets it go.
 * A snapshot that came from a leader is read into a machine of its own, beside the one that still answers; then the
 * machine's thread puts it in the other's place, in one step. */

/* Whether one may be taken now. Loop. */
void host_snapshot_allow(struct host *host, bool allow);
/* So many bytes of blocks lie between the newest snapshot and the next one. Any thread. */
uint64_t host_snapshot_interval(const struct host *host);
/* A frozen state lies ready; *ret is its block. The writer's thread. */
bool host_snapshot_ready(struct host *host, struct block_base *ret);
/* Write the frozen state out: equal states, equal bytes. The writer's error, or the machine's (negative). The writer's. */
int host_snapshot_write(struct host *host, struct lockstep_writer *writer);
/* It is needed no longer, written or not. The writer's thread. */
void host_snapshot_done(struct host *host);

struct host_state;
/* Read a snapshot into a new machine, and check that its hash is the one that the snapshot names. Any thread; allocates.
 * ECORRUPT: not a snapshot, damaged, or the machine refuses it; EFOREIGN: another machine's, or of a group with other
 * session limits; EVERSION; EINVAL: the machine has no restore; ENOMEM; or the reader's error. */
int host_state_read(struct host *host, struct lockstep_reader *reader, struct host_state **ret, char *why,
                    size_t why_room);
void host_state_free(struct host *host, struct host_state *state); /* takes NULL */
struct block_base host_state_base(const struct host_state *state);
const struct host_configuration *host_state_configuration(const struct host_state *state);

/* From now on nothing is applied; queries are answered still. Loop. Then, once host_halted(): */
void host_halt(struct host *host);
bool host_halted(const struct host *host);
/* Whether it applies: no halt was asked for, or what host_replace() brought is in its place. The loop is woken when it is. */
bool host_goes_on(const struct host *host);
/* Put this state, which lies ahead, in place of the machine's, and go on behind it. Takes it over. Loop. */
void host_replace(struct host *host, struct host_state *state);

/* --- any thread --- */

struct host_status {
    raft_index applied_index;
    log_position applied_position;
    raft_index
        hash_index; /* of both hashes; the last one that the machine reached when it was idle or a multiple of 1,024 */
    struct lockstep_hash state_hash, reply_hash;
    bool has_state_hash;
    /* Nonzero: the machine stopped for good. EINVAL: it said FATAL; ECORRUPT, EIO: a block could not be read; EVERSION: a
     * command of a kind that this version does not know. */
    int error;
    raft_index error_index;
    log_position error_position;
    bool parked; /* an unknown block type without the ignorable bit: voting goes on, applying does not */
    uint64_t queries, commands, batches, log_reads;
    bool can_snapshot;       /* the machine has snapshots; else the whole log is kept */
    uint64_t repeated;       /* commands that had been applied before */
    uint32_t sessions;       /* that are open */
    uint64_t session_due_ns; /* log time at which the next one ends if nothing touches it; UINT64_MAX = none */
};
void host_status_read(const struct host *host, struct host_status *ret);
raft_index host_applied_index(const struct host *host);
uint64_t host_session_due_ns(const struct host *host); /* as in the status */

#endif
