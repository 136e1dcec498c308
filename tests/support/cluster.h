/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.h - whole nodes in one thread, from a seed: the real node, core, ring, journal, log and machine host over a
 * simulated network, disk, map and clock. The threads' work functions run in an order that the seed decides.
 * The machine remembers every command that it applied, so that replicas can be compared command by command. */
#ifndef LOCKSTEP_TESTS_SUPPORT_CLUSTER_H
#define LOCKSTEP_TESTS_SUPPORT_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "server/node.h"
#include "tests/support/sim_net.h"

enum { CLUSTER_NODES_MAX = 8 };
#define CLUSTER_MS UINT64_C(1000000)

struct cluster_options {
    unsigned nodes;
    unsigned listed; /* in the file of all nodes, 0 = all; each one behind them has its own section in its own file */
    uint64_t seed;
    uint64_t ring_bytes;            /* 0 = 4 MiB */
    uint64_t snapshot_after_bytes;  /* 0 = the log is kept */
    enum durability_level level;    /* 0 = fsync */
    unsigned lease_reads;           /* bit i: at node i */
    unsigned longer_timeouts;       /* bit i: node i has an election timeout of 500 ms, and not 300 */
    uint32_t payload_bytes;         /* of a proposal; at least 8, its number */
    struct session_limits sessions; /* 0 = the usual ones */
};

enum cluster_proposal_state { PROPOSAL_WAITING = 1, PROPOSAL_APPLIED, PROPOSAL_UNKNOWN, PROPOSAL_NOT_APPENDED };

struct cluster_proposal {
    uint8_t state;
    uint8_t node; /* that was asked */
    int error;
    log_position position; /* with APPLIED */
    struct node_command command;
    uint32_t number; /* of the command: the first proposal's that had it */
};

struct cluster;

struct cluster *cluster_open(const struct cluster_options *options);
void cluster_close(struct cluster *cluster);

/* Start node i on its disk as it is. False: it refused; cluster_why says why. */
bool cluster_start(struct cluster *cluster, unsigned i);
const char *cluster_why(const struct cluster *cluster);
/* The machine is gone at this instant; of what was not flushed, the seed decides what is left. */
void cluster_crash(struct cluster *cluster, unsigned i);
/* Its data directory is empty afterwards. Not while it runs. */
void cluster_wipe(struct cluster *cluster, unsigned i);
bool cluster_runs(const struct cluster *cluster, unsigned i);
/* It runs no more until resumed; time goes on for the others. */
void cluster_pause(struct cluster *cluster, unsigned i, bool paused);

struct node *cluster_node(struct cluster *cluster, unsigned i);
struct sim_net *cluster_net(struct cluster *cluster);
struct random *cluster_random(struct cluster *cluster);
/* Flip a bit in its stored copy of block `index`; reading it is what finds that. */
void cluster_damage(struct cluster *cluster, unsigned i, raft_index index);
/* A file of its data directory, as it is now; valid until it changes. */
uint8_t *cluster_file(struct cluster *cluster, unsigned i, const char *name, uint64_t *ret_bytes);
/* So many more readers of its log find memory. */
void cluster_readers_left(struct cluster *cluster, unsigned i, uint32_t count);
/* From now on its clock gains so many millionths of the time that passes, or loses them. */
void cluster_clock_drift(struct cluster *cluster, unsigned i, int64_t ppm);
/* Its log has no space to grow, or has. */
void cluster_log_full(struct cluster *cluster, unsigned i, bool full);
/* From its next start on. */
void cluster_election_timeout(struct cluster *cluster, unsigned i, uint64_t ns);
/* Its flushes take this long. */
void cluster_disk_delay(struct cluster *cluster, unsigned i, uint64_t ns);

/* Whoever writes its snapshots works so long between two looks at the clock; ends: its rests say that the process ends. */
void cluster_writer_works(struct cluster *cluster, unsigned i, uint64_t ns, bool ends);
/* For how long they rested. */
uint64_t cluster_writer_rested_ns(const struct cluster *cluster, unsigned i);

/* At the next command the machine hangs in the middle of apply; false: it goes on. A crash or the close ends it, too. */
void cluster_machine_hang(struct cluster *cluster, unsigned i, bool hangs);

/* Ask node i to hand leadership to the member of this name ("" = the best one); one at a time. Not 0: it refused.
 * The result is what it ended with; 1 until then. */
int cluster_transfer(struct cluster *cluster, unsigned i, const char *target);
int cluster_transfer_result(const struct cluster *cluster);

/* Ask node i to change the members. `number` < 0: it refused at once, with that error. */
int cluster_change(struct cluster *cluster, unsigned i, const struct node_change_request *request);
/* The same for node `member` (its name and addresses), within `ns`. */
int cluster_change_kind(struct cluster *cluster, unsigned i, enum node_change_kind kind, unsigned member, uint64_t ns);
struct cluster_change {
    bool done;
    unsigned node; /* that was asked */
    struct node_change_result result;
};
const struct cluster_change *cluster_change_result(const struct cluster *cluster, int number);
/* Until it has ended; then its error, or ETIMEDOUT after `ns`. A negative number is its own error. */
int cluster_change_wait(struct cluster *cluster, int number, uint64_t ns);

/* Let simulated time pass. */
void cluster_run(struct cluster *cluster, uint64_t ns);
/* Until somebody leads and takes proposals; its number, or -1 after `ns`. */
int cluster_run_until_writable(struct cluster *cluster, uint64_t ns);
/* Until somebody leads and all running members have applied all of its log. */
bool cluster_run_until_level(struct cluster *cluster, uint64_t ns);

/* Propose command number `proposals so far`, at node i. Returns the number; its state is tracked. */
uint32_t cluster_propose(struct cluster *cluster, unsigned i, bool may_forward);
/* The same as the session's command seq; as an opening, keeping or closing; again, what proposal `number` had. */
uint32_t cluster_propose_in(struct cluster *cluster, unsigned i, bool may_forward, uint64_t session, uint64_t seq);
uint32_t cluster_propose_kind(struct cluster *cluster, unsigned i, enum command_kind kind, uint64_t session);
uint32_t cluster_propose_again(struct cluster *cluster, uint32_t number, unsigned i, bool may_forward);
uint32_t cluster_proposal_count(const struct cluster *cluster);
const struct cluster_proposal *cluster_proposal(const struct cluster *cluster, uint32_t number);

/* A query at node i: answered with the number of commands that the machine has applied. */
uint32_t cluster_query(struct cluster *cluster, unsigned i, enum node_consistency consistency, bool may_forward);
uint32_t cluster_query_with(struct cluster *cluster, unsigned i, const struct node_query *query, bool may_forward);
struct cluster_query {
    bool done;
    bool of_command; /* cluster_query_outcome() */
    int error;
    uint64_t applied_count;
    raft_index index; /* applied when it ran */
};
/* What became of the command that proposal `number` had? The answer is the query's error; applied_count its position. */
uint32_t cluster_query_outcome(struct cluster *cluster, unsigned i, uint32_t number);
const struct cluster_query *cluster_query_result(const struct cluster *cluster, uint32_t query);

/* What replica i applied: the proposal's number at each position, from 1; CLUSTER_NOTHING where the machine saw none. */
#define CLUSTER_NOTHING UINT32_MAX
uint64_t cluster_applied_count(const struct cluster *cluster, unsigned i);
uint32_t cluster_applied(const struct cluster *cluster, unsigned i, log_position position);

/* Everything that must hold at any time: replicas agree on every position both have applied; every acknowledged
 * proposal stands at its position; no proposal stands twice; one leader a term. Aborts with the seed. */
void cluster_check(struct cluster *cluster);

#endif
