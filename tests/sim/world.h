/* SPDX-License-Identifier: Apache-2.0 */
/* world.h - whole nodes in one thread, from a seed: the real node, core, ring, journal, recovery, log thread and machine
 * host, over a simulated disk, map, network and clock.
 *
 *   world.c    nodes: start, die, clocks, and which part of which node works next
 *   faults.c   what goes wrong, and when
 *   members.c  somebody who changes the members
 *   memory.c   nodes of one host, which share memory
 *   observers.c  other processes of a host, which follow what is committed
 *   clients.c  who asks for what, what they were told, and their histories
 *   witness.c  stands between host and machine, and sees every command and reply
 *   checks.c   what must hold after every step
 *   run.c      one seed: birth, safety phase, liveness phase, end
 *
 * Each part of a node (enum node_part) is a thread in the server; here it is a time at which it works next. A wake-up
 * sets that time a little ahead, as the seed decides; slowness moves it further. The world does what is due next, and
 * the clock jumps there: idle time costs nothing. No floating point, no address and no order of a hash table decides
 * anything, so that a seed is one run, byte for byte, on every host and compiler. */
#ifndef LOCKSTEP_TESTS_SIM_WORLD_H
#define LOCKSTEP_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "server/node.h"
#include "tests/sim/copies.h"
#include "tests/sim/plan.h"
#include "tests/sim/trace.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"
#include "tests/support/sim_link.h"
#include "tests/support/sim_net.h"

enum { SIM_CLIENTS_MAX = 32, SIM_CALLS_WAITING_MAX = 256 };
#define SIM_NEVER UINT64_MAX

struct world;
struct truth;
struct observers;
struct workload;

/* What this process's life so far has shown of a node; from zero at each start. */
struct seen {
    raft_term term, role_term; /* role_term: of the newest leadership noted */
    enum raft_role role;
    raft_index last, commit;
    uint32_t last_crc;
    bool alive; /* its log is open */
};

struct member {
    struct world *world;
    unsigned i;
    struct node *node; /* NULL: it does not run */
    struct transport *transport;
    struct sim_disk *disk;
    struct sim_kv *kv;
    struct plugin plugin; /* the witness in front of this node's copy of the machine */
    const struct plugin *inner;

    /* Time. */
    uint64_t due_ns[NODE_PARTS];     /* when a part works next; SIM_NEVER: when woken */
    uint64_t blocked_ns[NODE_PARTS]; /* but not before */
    uint64_t deadline_ns;            /* the loop's, on the world's clock */
    uint64_t restart_ns;             /* while it does not run */
    uint64_t clock_at_ns, clock_ns;  /* at clock_at_ns of the world its clock showed clock_ns */
    int64_t drift_ppm, wall_offset_ns;

    /* Faults that are under way. */
    bool flush_fails;         /* was armed: it may end by itself */
    uint64_t flush_failed_ns; /* a flush has failed: it has to end by itself soon; 0 = none */
    uint64_t full_until_ns;   /* its disk; 0 = it is not */
    uint64_t away_until_ns;   /* from its host's shared memory; 0 = it is not */
    bool stopping;            /* was told to */
    bool given_up;            /* in the liveness phase: not among those that must get on */

    /* Calls of clients that travel to it; first in, first out. */
    struct {
        uint32_t call;
        uint64_t due_ns;
    } calls[SIM_CALLS_WAITING_MAX];
    uint32_t calls_head, calls_tail;

    struct seen seen;
    /* What it held when it died last: it may not have forgotten. */
    raft_term died_term;
    raft_index died_durable;                      /* durable here */
    raft_index died_promised;                     /* and said so to the leader of died_term */
    struct raft_configuration died_configuration; /* the newest in its log, committed or not */
    uint64_t starts;

    raft_member id;  /* of its directory, since it was opened first */
    bool was_member; /* of the cluster, with this directory */
};

/* A client: one operation at a time. */
struct client {
    uint8_t state;
    unsigned node; /* asked last */
    uint64_t due_ns;
    uint32_t call; /* under way */
    uint32_t operation;
    uint64_t give_up_ns; /* the operation */
    bool has_sessions;   /* it works with sessions: what is unknown is asked for again */
    uint64_t session, seq;
};

/* Damage of a member's files, as long as nobody knows how it ended. */
struct rot {
    bool on;
    unsigned i;
    unsigned where;
    uint64_t number, offset; /* which value or file, and where in it */
    uint32_t count;
    uint8_t was[512], is[512];
    uint64_t undo_ns; /* nobody could help: a copy does */
};

/* What went through shared memory. */
struct memory_counts {
    uint64_t blocks, beats, acks;
    uint64_t lapped, falls;                    /* to TCP, of who read a ring in this term */
    uint64_t observed;                         /* commands handed to observers */
    uint64_t observers_lapped, observers_told; /* told: answers out of the log */
};

struct world {
    struct sim_plan plan;
    struct random random; /* of everything but the nodes' own */
    uint64_t now_ns;
    struct trace trace;
    struct copies *copies;
    struct sim_net *net;
    struct sim_links *links;
    struct memory_counts memory;
    struct member members[SIM_NODES_MAX];
    struct observers *observers;
    struct truth *truth;
    struct workload *workload;

    struct client clients[SIM_CLIENTS_MAX];
    bool clients_rest; /* no new operations */
    struct operation *operations;
    uint32_t operation_count, operation_room;
    struct call *calls;
    uint32_t call_count, call_room;
    log_position floor_position; /* of all that any client was told */
    raft_index floor_index;
    struct floor *floors; /* each floor_index there was, and since when */
    uint32_t floor_count, floor_room;
    uint64_t applied_operations;
    uint64_t newest_known_call_ns; /* when the operation that ended last, known, began */

    bool faults_on;
    struct rot rot;
    uint64_t repaired; /* blocks that others gave */
    raft_member lost;  /* whose directory was taken away while it was a voter; 0 = nobody's */
    unsigned lost_i;
    unsigned changes; /* of members, asked for and not ended */
    uint64_t changes_until_ns;
    uint64_t fault_due_ns[FAULTS], faults_next_ns;
    struct {
        uint64_t until_ns;
    } cuts[SIM_NODES_MAX][SIM_NODES_MAX];

    const char *phase;
    uint64_t steps;
    uint64_t undecided; /* histories that were too hard to judge */
};

/* It must not be: prints seed, time, what, the last events and the command that replays it, and ends the process. */
_Noreturn void world_violated(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* world.c */
void world_open(struct world *world, const struct sim_plan *plan, struct copies *copies, struct workload *workload,
                bool print);
void world_close(struct world *world);
/* Do what is due next, if it is due by `end_ns`; the clock goes there. False: nothing is, and it is end_ns now. */
bool world_step(struct world *world, uint64_t end_ns);
void world_start(struct world *world, unsigned i);
/* Its process is gone. power: of what was not flushed, the seed decides what is left; else all of it stays. */
void world_crash(struct world *world, unsigned i, bool power, uint64_t restart_ns);
/* A part does nothing for so long. */
void world_block(struct world *world, unsigned i, enum node_part part, uint64_t ns);
void world_wake(struct member *m, enum node_part part);
/* An empty directory takes the place of its old one. Not while it runs. */
void world_wipe(struct world *world, unsigned i);
uint64_t world_clock(const struct member *m); /* its own, monotonic */
void world_log(struct member *m, const char *part, const char *text);
/* Whom this node believes to lead; SIM_NODES_MAX: nobody. */
unsigned world_leader(const struct member *m);
static inline bool world_paused(const struct member *m)
{
    return m->blocked_ns[NODE_LOOP] > m->world->now_ns;
}
/* The node whose machine is being opened: a machine's open knows no node. */
extern struct member *world_opening;

/* faults.c */
void faults_begin(struct world *world);
/* No more of them; what is broken is mended, but for the nodes that are given up. */
void faults_end(struct world *world);
void faults_work(struct world *world);

/* rot.c */
void rot_happen(struct world *world, struct member *m, uint64_t until_ns); /* it dies of it, and starts again then */
bool rot_excuses(const struct member *m, int error);                       /* that it ends, or does not start */
void rot_undo(struct world *world);
void rot_survived(struct member *m); /* it is alive */
void rot_work(struct world *world);
void rot_end(struct world *world);

/* members.c */
void members_operate(struct world *world);
/* With empty directories on all listed nodes there would be another birth: then somebody must change the list first. Who was
 * admitted and has not heard of it has an empty one still. */
bool members_another_birth(const struct world *world, unsigned i);
bool members_change_runs(struct world *world); /* one was asked for, and has not ended as far as anybody knows */
void members_changed(struct member *m, const struct node_change_result *result);

/* memory.c */
/* Over `beneath`, which is closed with it. */
struct transport *memory_open(struct member *m, struct transport *beneath, const struct transport_owner *owner,
                              const struct transport_hello *hello);

/* observers.c */
void observers_open(struct world *world);
void observers_close(struct world *world); /* before the links */
uint64_t observers_next_ns(const struct world *world);
void observers_work(struct world *world);
/* Each that follows somebody who has to be level was handed all that is committed. */
bool observers_level(const struct world *world);

/* clients.c */
void clients_open(struct world *world);
void clients_close(struct world *world);
uint64_t clients_next_ns(const struct world *world);
void clients_work(struct world *world);
/* The first call that travels to this node has come. */
void clients_arrive(struct world *world, struct member *m);
void clients_node_died(struct world *world, struct member *m);
struct node_owner clients_owner(struct member *m);
/* Judge all histories. */
void clients_judge(struct world *world);
/* Operations that ended, known, since the beginning. */
bool clients_idle(const struct world *world);

/* witness.c */
void witness_open(struct member *m, const struct plugin *inner);

/* checks.c */
struct truth *truth_open(void);
void truth_close(struct truth *truth);
void checks_started(struct member *m);
void checks_dies(struct member *m);
void checks_turned(struct member *m);
void checks_sent(struct world *world, unsigned from, unsigned to, const struct transport_send *send);
void checks_wiped(struct member *m);
/* What a node says to a peer, whichever way it goes; and what comes out of shared memory: it must have been said. */
void checks_said(struct member *m, const struct raft_message *message);
void checks_shared(struct member *m, const struct transport_frame *frame);
/* What node i is in the newest committed configuration: enum raft_member_role, 0 = no member. */
uint8_t checks_role(const struct world *world, unsigned i);
bool checks_joint(const struct world *world);
/* Whether a configuration that counts for somebody names one that no node is any more. */
bool checks_strangers(const struct world *world);
/* Whether this id is still in a configuration that somebody uses, or used when it died, or that is committed. */
bool checks_in_use(const struct world *world, raft_member id);
/* Whether the nodes that are neither given up nor lost are a majority in all of those. */
bool checks_majority_left(const struct world *world);
raft_index checks_committed(const struct world *world);
/* The name of a command in what follows: where there is a session, its (session, seq) is part of it. */
uint64_t checks_command_hash(uint64_t session, uint64_t seq, const void *payload, size_t payload_bytes);
struct lockstep_tail_record;
/* An observer is handed a command, of a block with this checksum; m: whom it follows, NULL where that process has ended. */
void checks_observed(const struct member *m, struct world *world, const struct lockstep_tail_record *record,
                     uint32_t crc);
/* It is told that a position is compacted away, and which is the oldest. */
void checks_observer_gone(const struct member *m, struct world *world, log_position wanted, log_position oldest);
/* At the end: all that was shown is committed. */
void checks_observed_all(struct world *world);
log_position checks_applied_last(const struct world *world);
/* A machine is given position `next` after `last`. */
void checks_skipped(struct member *m, log_position last, log_position next);
/* A machine applied a command: it must be the one that every other one applied there, with the same reply. */
void checks_applied(struct member *m, const struct lockstep_command *command, int outcome, int32_t code,
                    const void *reply, size_t reply_bytes);
void checks_state(struct member *m, log_position position, struct lockstep_hash hash);
void checks_snapshot(struct member *m, log_position position, int error);
void checks_queried(struct member *m, log_position position, uint64_t query_hash, uint64_t reply_hash);
/* A command may be in the log once more, or once less: it was handed in, or is surely not appended. */
void checks_attempt(struct world *world, uint64_t payload_hash, int change);
/* What a client was told about a command. */
void checks_told(struct world *world, log_position position, raft_index index, uint64_t payload_hash, int32_t code,
                 const void *reply, size_t reply_bytes);

/* run.c */
struct run_result {
    uint64_t hash, steps, events, simulated_ns, operations, undecided, recovery_ns, starts, repaired;
    struct memory_counts memory;
    raft_index committed;
};
/* The world that is running, for those who report its end. */
const struct trace *run_trace(void);
void run_seed(const struct sim_plan *plan, struct copies *copies, struct workload *workload, bool print,
              struct run_result *ret);

#endif
