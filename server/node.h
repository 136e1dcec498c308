/* SPDX-License-Identifier: Apache-2.0 */
/* node.h - the whole node behind open, close, propose, query, drain.
 * Knows no sockets, no threads, no libuv: time, wake-ups, peers, disk and map come in through four doors (node_env.h,
 * transport.h, disk.h, kv.h), so that the same node runs in the server and, from a seed, in the simulator.
 * Thread: the loop calls everything but node_work. Callbacks come out of node_drain, never out of the call that asked.
 *
 * A turn (node_drain): step all received events, perform effects; then seal, propose and publish, only if still
 * leader; then send. Nothing reacts inside an I/O callback. */
#ifndef LOCKSTEP_SERVER_NODE_H
#define LOCKSTEP_SERVER_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "lockstep/errors.h"
#include "raft/raft.h"
#include "server/node_env.h"
#include "statemachine/host.h"
#include "statemachine/plugin.h"
#include "storage/identity.h"
#include "storage/storage.h"
#include "transport/transport.h"

enum { NODE_ADDRESS_BYTES_MAX = 272, NODE_WHY_BYTES_MAX = 1024 };

struct node_member_options {
    char name[IDENTITY_NAME_BYTES_MAX];
    char client[NODE_ADDRESS_BYTES_MAX]; /* HOST:PORT, as told to clients */
    char peer[NODE_ADDRESS_BYTES_MAX];
};

struct node_options {
    char cluster[IDENTITY_NAME_BYTES_MAX];
    uint32_t member_count;
    uint32_t self; /* slot of this node */
    /* What node_open takes: as the configuration file lists them, member_count of them. What node_options_of shows: the
     * slots as they are now, the log's members among them; a free one has no name. */
    struct node_member_options members[RAFT_MEMBERS_MAX];
    char data_directory[4096];
    char journal_directory[4096]; /* "" = data_directory */
    uint64_t election_timeout_ns, heartbeat_ns;
    bool lease_reads; /* R5: linearizable reads without a round, as long as clocks drift by less than 5 % */
    uint32_t command_bytes_max, block_bytes_max;
    uint64_t ring_bytes, journal_bytes, map_bytes;
    uint64_t append_inflight_bytes_max;
    uint32_t proposals_max; /* waiting for their outcome, at most; a power of two */
    uint32_t queries_max;
    struct session_limits sessions; /* with which a cluster is born; a born one keeps its own. 0 = the usual ones */
    uint64_t snapshot_after_bytes;  /* of blocks, the next snapshot is taken; 0 = none, and the whole log is kept */
    uint64_t snapshot_age_ns; /* of log time behind the last snapshot the next is taken, too; 0 = by bytes alone */
    uint32_t piece_bytes;     /* of snapshots, for tests; 0 = the usual ones */
    uint64_t replies_bytes, queries_bytes; /* of the machine's queues, as host_options; 0 = 16 MiB */
    enum durability_level level;
    const struct plugin *plugin;
    const struct disk *disk;
    const struct kv *kv;
};

/* How a proposal ended. */
struct node_outcome {
    /* 0 applied · EUNKNOWN appended, outcome unknown · ENOTLEADER, EFULL, EUNAVAILABLE, ETOOBIG, EINVAL: surely nothing
     * came of it · ENOTFOUND, EWINDOW, EREPLIED: the session's answer (sessions_judge): this copy was not applied, an
     * earlier one may have been, with EREPLIED one was. */
    int error;
    int32_t code;
    raft_index index; /* of the copy that was applied, also where this one came later */
    log_position position;
    const uint8_t *reply; /* valid during the callback */
    uint32_t reply_bytes;
};

struct node_answer {
    int error; /* 0 · ENOTLEADER, EUNAVAILABLE, EFULL, ETOOBIG, EINVAL (the machine has no query); about a session's
                  command also those of sessions_find() */
    int32_t code;
    raft_index index;      /* applied when it ran; about a session's command: that one's, as its position */
    log_position position; /* 0 = the session does not know the command */
    const uint8_t *reply;  /* valid during the callback */
    uint32_t reply_bytes;
};

enum node_change_kind { NODE_CHANGE_ADD = 1, NODE_CHANGE_PROMOTE, NODE_CHANGE_REMOVE, NODE_CHANGE_REPLACE };

struct node_change_request {
    enum node_change_kind kind;
    char name[IDENTITY_NAME_BYTES_MAX];     /* of whom it is about; PROMOTE, REMOVE: or its id, 16 hexadecimal digits */
    char old_name[IDENTITY_NAME_BYTES_MAX]; /* REPLACE: the member that goes, or its id */
    char client[NODE_ADDRESS_BYTES_MAX];    /* ADD; REPLACE: "" = as the old one */
    char peer[NODE_ADDRESS_BYTES_MAX];
    bool learner; /* ADD: it stays one */
    bool force;   /* REMOVE: though it is not heard */
    uint8_t priority;
    uint64_t timeout_ns; /* the change ends then; what it did until then stays */
};

struct node_change_result {
    /* 0 · EINVAL refused, for the reason in why · ENOTFOUND nobody has that name · EUNAVAILABLE, ETIMEDOUT ask again:
     * it goes on where it stopped */
    int error;
    raft_member id;   /* of the member that came */
    raft_index index; /* of the newest configuration */
    char why[NODE_WHY_BYTES_MAX];
};

/* The client front's side. All calls come out of node_drain; they note what happened and never call the node (but
 * node_leader, node_status_read and the like): what they lead to is proposed or asked after the turn. */
struct node_owner {
    void *context;
    void (*proposed)(void *context, uint64_t tag, const struct node_outcome *outcome);
    void (*queried)(void *context, uint64_t tag, const struct node_answer *answer);
    /* error 0: the target leads (none was named: another member), and node_leader is who. ETIMEDOUT: it does not. */
    void (*transferred)(void *context, uint64_t tag, int error);
    void (*member_changed)(void *context, uint64_t tag, const struct node_change_result *result);
    /* Leader, or readiness changed: health watchers want to know. */
    void (*changed)(void *context);
};

struct node;

/* Make a node: lock the directory, read identity, recover storage if born, load nothing else. Blocks; before the loop.
 * why  a sentence for people on error. Errors as storage_open and identity_open, EINVAL. */
int node_open(const struct node_options *options, const struct node_env *env, const struct node_owner *owner,
              struct node **ret, char *why, size_t why_room);
/* The transport is the caller's: made after node_open with this owner and hello, attached before the first drain,
 * closed before node_close, after the last drain. */
struct transport_owner node_transport_owner(struct node *node);
void node_transport_hello(const struct node *node, struct transport_hello *ret);
void node_attach(struct node *node, struct transport *transport);
void node_close(struct node *node); /* after the threads have ended; not the transport; takes NULL */

/* One turn. */
void node_drain(struct node *node);
/* node_drain is due no later than this. */
uint64_t node_deadline_ns(const struct node *node);
/* The body of a thread: handle what is queued, return without waiting. Returns ns until it wants to run again though
 * nobody woke it, 0 = at once, UINT64_MAX = when woken. Not for NODE_LOOP. */
uint64_t node_work(struct node *node, enum node_part part);

struct node_command {
    uint16_t kind, flags; /* enum command_kind */
    uint64_t session, seq, entity;
    const uint8_t *payload;
    uint32_t payload_bytes;
};

/* Propose one command. Its bytes are copied (into the open block, or into a frame for the leader) before it returns.
 * A turn is due then: this call, and the others that ask for something, wake NODE_LOOP.
 * may_forward  on a follower: send it to the leader, once
 * 0: `proposed` will be called with this tag exactly once. Otherwise surely not appended:
 * ENOTLEADER (node_leader says who) · EFULL back off · EUNAVAILABLE no leader, starting, draining, or this leader hands
 * leadership over (node_hands_over) · ETOOBIG · EINVAL */
int node_propose(struct node *node, const struct node_command *command, bool may_forward, uint64_t tag);

enum node_consistency {
    NODE_LINEARIZABLE = 0, /* the leader's state, confirmed by a read round or the lease */
    NODE_LOCAL = 1,        /* this node's state as it is */
    NODE_FOLLOWER = 2,     /* linearizable, from this node's state: the leader is asked for an index alone */
    NODE_BOUNDED_STALE =
        3, /* this node's state, if it shows all that was acknowledged max_staleness_ns ago; else as FOLLOWER */
};
struct node_query {
    uint64_t entity;
    enum node_consistency consistency;
    raft_index min_index;      /* and at least this: waited for until its time is over, then ETIMEDOUT */
    uint64_t max_staleness_ns; /* BOUNDED_STALE */
    uint64_t timeout_ns;       /* from now; 0: 10 s */
    uint64_t session, seq;     /* session not 0: the question is what became of this command; no query then */
    const uint8_t *query;
    uint32_t query_bytes;
};
/* As node_propose; `queried` is called. */
int node_query(struct node *node, const struct node_query *query, bool may_forward, uint64_t tag);

/* Move leadership to the member with this name ("" = the most caught-up). ENOTLEADER, ENOTFOUND, EUNAVAILABLE, EEXIST
 * (it leads already). */
int node_transfer(struct node *node, const char *target, uint64_t tag);

/* Change the members; the leader does. One change runs at a time; the same asked for again takes the running one over.
 * Asking for what is so already succeeds. 0: `member_changed` is called with this tag exactly once. ENOTLEADER,
 * EUNAVAILABLE (no leader, starting, draining, another change runs). */
int node_change_members(struct node *node, const struct node_change_request *request, uint64_t tag);

/* This leader hands leadership over, and takes commands again within an election timeout if nobody takes it: who has time
 * may wait for how that ends. */
bool node_hands_over(const struct node *node);

/* Whether this node may begin a new epoch of its cluster alone, as far as it can see: it is a member that runs, and hears
 * neither a leader nor a majority of the voters. EINVAL: why says why not. */
int node_recover_check(const struct node *node, char *why, size_t why_room);

/* The leader's slot, or RAFT_MEMBERS_MAX if none is known. */
unsigned node_leader(const struct node *node);
/* Back-off hint for EFULL. */
uint32_t node_retry_after_ms(const struct node *node);

/* Stop taking proposals, hand leadership over, let what is appended finish. node_drained: it may be closed. */
void node_stop(struct node *node);
bool node_drained(const struct node *node);

/* Whether this node was removed from its cluster, and what had to be said to the others was: it has nothing to do any
 * more. node_stop it. */
bool node_removed(const struct node *node);

/* 0, or the error that ends this process (R8, damage, FATAL); why is a sentence for people. */
int node_failed(const struct node *node, const char **why);

struct node_counters {
    uint64_t commands_appended, blocks_appended, bytes_appended;
    uint64_t appends_sent, elections, rejected_full, frames_refused;
    uint64_t observer_blocks; /* told to observers out of the log */
    uint32_t appends_inflight_max;
};

/* Who keeps blocks in the ring from being overwritten. */
enum node_holder { NODE_HOLDER_JOURNAL, NODE_HOLDER_MACHINE, NODE_HOLDER_LOG, NODE_HOLDER_PEERS, NODE_HOLDERS };

struct node_status {
    bool born;
    bool ready;            /* /readyz: a leader is known and this node has applied up to a recent commit */
    const char *not_ready; /* why not; of the node */
    struct raft_status raft;
    struct storage_status storage;
    struct host_status host;
    struct identity identity;
    struct node_counters counters;
    struct ring_status ring;
    struct node_hold {
        uint64_t bytes;   /* of the ring, from the oldest byte held to the tail; 0 = nothing is held */
        uint64_t held_ns; /* so long it has been the oldest byte */
    } holds[NODE_HOLDERS];
    unsigned leader_slot;
    struct {
        raft_member id;         /* 0 = not known yet */
        uint8_t role, priority; /* enum configuration_role; 0 = no member, or not yet */
        bool voter, connected;
        bool joining; /* it is being asked whether it may be admitted */
        raft_index match;
        bool shared_memory; /* the rest: transport_peer_status */
        uint64_t lag_bytes, lapped, bells, bells_spared;
        char note[TRANSPORT_REASON_BYTES_MAX];
    } members[RAFT_MEMBERS_MAX]; /* by slot */
    struct transport_observers observers;
    raft_term last_term;            /* of the last block */
    raft_index configuration_index; /* of the block that says who the members are; 0 = the birth record */
    bool joint;
    char change[TRANSPORT_REASON_BYTES_MAX]; /* what the change of members that runs does; "" = none runs here */
    char warnings[4][TRANSPORT_REASON_BYTES_MAX];
    uint32_t warning_count;
};
void node_status_read(struct node *node, struct node_status *ret);
const struct node_options *node_options_of(const struct node *node);
/* The group's, once it is born; else those that the configuration says. */
const struct session_limits *node_sessions(const struct node *node);

#endif
