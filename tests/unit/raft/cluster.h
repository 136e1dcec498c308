/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.h - several cores with modelled logs, disks and a network, for the tests of raft/.
 * Thread: the test's. Owns: all cores, their volatile and durable logs, messages on their way.
 *
 * A core's block is (term, bytes, chain): chain names the block and all before it, so that equal chains at an index
 * mean equal logs up to there. A disk is the durable log and hard state, and a FIFO of persists not yet done.
 * cluster_* calls step one core and check it; they check at every step, whoever drives:
 * A core's snapshot stands for its log up to an index: SNAPSHOT_PIECES pieces of one byte; its checksum names the chain.
 * cluster_compact drops the blocks below; what is installed is what was committed.
 *   one leader a term; logs with the same (index, term) are the same; a leader holds all that was ever committed;
 *   a committed block never changes; a leader's commit is durable on a majority's disks; commit never falls within one
 *   life; no message leaves with a term that is not on disk (R1), no grant and no ack before what it promises is
 *   (R7, R2); one vote a term and voter, over all lives; a read's index covers what was committed when it came (R5).
 * R6: the configuration in force is that of the newest block that carries one, and commits are durable on its disks.
 * Each block names the configuration in force with it, by its number in a table of all that were ever proposed.
 * A broken one aborts through lk_assert, with the seed printed before by the test. */
#ifndef LOCKSTEP_TESTS_UNIT_RAFT_CLUSTER_H
#define LOCKSTEP_TESTS_UNIT_RAFT_CLUSTER_H

#include "raft/raft.h"

enum {
    CLUSTER_CORES_MAX = 7,
    CLUSTER_BLOCKS_MAX = 8192,
    CLUSTER_MESSAGES_MAX = 4096,
    CLUSTER_TERMS_MAX = 4096,
    CLUSTER_READS_MAX = 4096,
    CLUSTER_ENTRIES_MAX = 64, /* in one append */
    CLUSTER_SNAPSHOT_PIECES = 3,
    CLUSTER_CONFIGURATIONS_MAX = 1024,
};

struct cluster_block {
    raft_term term;
    uint32_t bytes;
    uint32_t configuration; /* in force here; [.] of cluster.configurations, 0 = that of the birth */
    uint64_t chain;
};

/* The block at index carries it, and it replaced [before]. */
struct cluster_configuration {
    struct raft_configuration configuration;
    raft_index index;
    uint32_t before;
};

struct cluster_message {
    struct raft_message message;
    uint32_t entry_count;
    struct cluster_block blocks[CLUSTER_ENTRIES_MAX];
    uint64_t deliver_at_ns;
};

struct cluster_persist {
    uint64_t seq;
    bool hard_state_due;
    struct raft_hard_state hard_state;
    raft_index first, last;
    struct cluster_block *blocks; /* owned */
    raft_index commit;
    uint64_t done_at_ns;
};

struct cluster_core {
    struct cluster *cluster;
    raft_member id; /* 1.. */
    bool up;
    struct raft *raft;
    void *memory;
    struct raft_effects *effects;
    uint64_t deadline_ns;

    struct cluster_block *log; /* volatile; [1..last] */
    raft_index last, commit;
    raft_index ring_first; /* blocks before it have to be loaded */
    uint64_t room_bytes;   /* of the ring, told with every message */

    struct cluster_block *disk; /* durable; [1..disk_last] */
    raft_index disk_last, disk_commit;
    struct raft_hard_state disk_hard;
    struct cluster_persist pending[RAFT_PERSISTS_MAX];
    uint32_t pending_count;
    uint64_t persists; /* ever handed out */

    raft_index base, disk_base;    /* compacted up to here: the newest snapshot stands there */
    struct raft_snapshot incoming; /* a snapshot of which pieces are durable here; index 0 = none */
    uint64_t incoming_offset;
    bool installing, piece_kept;
    struct raft_piece pieces[CLUSTER_CORES_MAX]; /* by peer; peer 0 = none asked */
    uint64_t installs;                           /* ever made */

    struct raft_load loads[CLUSTER_CORES_MAX]; /* by peer; peer 0 = none asked */

    uint64_t reads_at[CLUSTER_READS_MAX]; /* by ticket % max: the commit that the read has to see, + 1 */
    uint64_t reads_ready, reads_failed;
    bool leads;
    int last_error; /* of the last step */
    struct raft_result last_result;
};

struct cluster {
    uint32_t count;
    uint64_t now_ns;
    struct raft_options options;             /* for every core; change before cluster_start */
    struct raft_configuration configuration; /* of the birth; cores that are no members of it start without any */
    struct cluster_configuration configurations[CLUSTER_CONFIGURATIONS_MAX]; /* [1..configuration_count] */
    uint32_t configuration_count;
    struct cluster_core cores[CLUSTER_CORES_MAX]; /* [id - 1] */

    struct cluster_message *messages[CLUSTER_MESSAGES_MAX]; /* on their way, oldest first; owned */
    uint32_t message_count;
    bool cut[CLUSTER_CORES_MAX][CLUSTER_CORES_MAX]; /* [from - 1][to - 1]: what is sent there is lost */

    struct cluster_block *committed; /* [1..committed_last], by whoever committed it first */
    raft_term *committed_in;         /* by a leader of which term */
    raft_index committed_last;
    raft_member leaders[CLUSTER_TERMS_MAX];
    raft_member votes[CLUSTER_CORES_MAX][CLUSTER_TERMS_MAX];
    uint64_t contents; /* makes proposed blocks differ */
    uint64_t reads_answered, reads_refused;

    uint64_t promise_ns;  /* of cores that start from now on */
    bool propose_at_once; /* a new leader proposes its term's first block */
    bool leave_at_once;   /* a leader that is asked to leave a joint configuration does */
    /* Told about everything visible; may be NULL. */
    void (*watch)(struct cluster_core *core, const struct raft_result *result, const struct raft_effects *effects);
};

/* The last `learners` of `count` cores are learners. Nothing runs yet; logs may be laid with cluster_lay_log. */
struct cluster *cluster_open(uint32_t count, uint32_t learners, uint64_t seed);
void cluster_close(struct cluster *c); /* takes NULL */
/* Take the last `count` cores out of the birth's configuration: they run and wait to be added. */
void cluster_leave_out(struct cluster *c, uint32_t count);
/* Give a core that is down a durable log of these terms, and a hard state. */
void cluster_lay_log(struct cluster *c, raft_member id, const raft_term *terms, uint32_t count, raft_index commit,
                     struct raft_hard_state hard);
/* Its block at index carries this; all cores that are given the same number hold the same block. */
void cluster_lay_configuration(struct cluster *c, raft_member id, raft_index index, uint32_t configuration);
/* A configuration for the table, carried by the block at index; its number. */
uint32_t cluster_configuration_add(struct cluster *c, const struct raft_configuration *configuration, raft_index index,
                                   uint32_t before);
const struct raft_configuration *cluster_configuration(const struct cluster *c, uint32_t number);
void cluster_start(struct cluster *c, raft_member id); /* also after a crash: from the disk */
void cluster_start_all(struct cluster *c);
/* The first `persists_done` pending persists reach the disk, the rest and all volatile state are lost. */
void cluster_crash(struct cluster *c, raft_member id, uint32_t persists_done);

struct cluster_core *cluster_core(struct cluster *c, raft_member id);
struct raft_status cluster_status(struct cluster *c, raft_member id);
raft_member cluster_leader(struct cluster *c); /* newest term's leader that is up, 0 = none */

/* Each steps one event and, unless told to merge, takes and performs the effects. Returns result.error. */
int cluster_step(struct cluster_core *core, struct raft_event *event, bool merge);
void cluster_take(struct cluster_core *core);
int cluster_time(struct cluster_core *core);
int cluster_propose(struct cluster_core *core, uint32_t bytes, bool merge);
/* Plan the way to `target` and, if it may be, propose its first block. */
enum raft_change cluster_change(struct cluster_core *core, const struct raft_configuration *target, bool forced);
/* Change one member: give it this role, RAFT_LEAVING = none, and keep all else. */
enum raft_change cluster_change_role(struct cluster_core *core, raft_member id, enum raft_member_role role);
/* Propose the configuration that leaves the joint one; the effects asked for it. */
void cluster_leave_joint(struct cluster_core *core);
int cluster_read(struct cluster_core *core, uint64_t *ret_ticket);
int cluster_transfer(struct cluster_core *core, raft_member target);
/* The oldest pending persist is done. */
void cluster_disk_done(struct cluster_core *core, bool merge);
/* The log has read what was asked for some peer, or could not; false if nothing was asked. */
bool cluster_load_done(struct cluster_core *core, bool readable, bool merge);
/* Blocks up to index, which is committed, are in a snapshot only. */
void cluster_compact(struct cluster_core *core, raft_index index);
/* The piece that was asked for some peer has been read, or could not be; false if nothing was asked. */
bool cluster_piece_done(struct cluster_core *core, bool readable, bool merge);
/* A complete incoming snapshot goes one step on: INSTALL, then INSTALLED; false if there is none. */
bool cluster_install_step(struct cluster_core *core, bool merge);
/* Deliver message `at` of c->messages and forget it, or keep it (a duplicate). Ignored if the target is down. */
int cluster_deliver(struct cluster *c, uint32_t at, bool keep, bool merge);
void cluster_drop(struct cluster *c, uint32_t at);

/* The newest message of this type on its way, NULL if there is none; count them; forget all that is on its way. */
const struct raft_message *cluster_sent(const struct cluster *c, raft_member from, raft_member to,
                                        enum raft_message_type type);
uint32_t cluster_sent_count(const struct cluster *c, raft_member from, raft_member to, enum raft_message_type type);
void cluster_drop_all(struct cluster *c);
/* Deliver, in order, all that is on its way to `to`. */
void cluster_deliver_to(struct cluster *c, raft_member to);

/* Step a message that no core sent. */
int cluster_inject(struct cluster_core *core, const struct raft_message *message, const struct raft_entry *entries,
                   uint32_t entry_count);

/* Run until nothing is on its way: deliver in order, complete disks at once. No time passes. */
void cluster_settle(struct cluster *c);
/* Let core `id` time out and win, everything settled; its term's first block committed. */
void cluster_elect(struct cluster *c, raft_member id);
/* A cluster of `count` voters that core 1 leads; a heartbeat has told all the commit. */
struct cluster *cluster_open_led(uint32_t count);
/* All cores start with block 1, of term 1, on their disks; core 1 wins term 2, whose first block it has not proposed yet. */
void cluster_lead_uncommitted(struct cluster *c);
/* Move time by ns; cores whose deadline passed are stepped in order; settle after each if `settle`. */
void cluster_pass(struct cluster *c, uint64_t ns, bool settle);

#endif
