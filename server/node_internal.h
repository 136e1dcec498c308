/* SPDX-License-Identifier: Apache-2.0 */
/* node_internal.h - the inside of a node, shared by the files node*.c and nobody else.
 *   node.c            open, close, the turn, effects, status
 *   node_birth.c      how a cluster comes to be, once (I2)
 *   node_members.c    configurations as the log has them, slots, who may say hello
 *   node_members_change.c  members are added, promoted, removed and replaced
 *   node_restarts.c   level memory: members that were started anew are replaced
 *   node_peers.c      frames of peers, blocks taken over from the leader, old blocks loaded for peers that lag
 *   node_blocks.c     single blocks for members that ask for them
 *   node_observers.c  old blocks for processes of this host that follow what is committed
 *   node_snapshot.c   snapshots: taken, brought to peers, taken in place of the log; the log's base
 *   node_proposals.c  the open block, sealing, outcomes
 *   node_reads.c      queries, and what each waits for
 *   node_disk.c       a disk that is full or does not return: who leads then, what is said
 *   node_repair.c     damaged blocks come back from the others, before the node is alive
 *   node_forward.c    commands and queries sent on to the leader
 * Thread: loop, but for node_control_work and node_snapshots_work. */
#ifndef LOCKSTEP_SERVER_NODE_INTERNAL_H
#define LOCKSTEP_SERVER_NODE_INTERNAL_H

#include <assert.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "server/node.h"

enum {
    NODE_SEALED_MAX = 4,      /* sealed blocks neither committed nor durable here; above it the open one grows */
    NODE_ENTRIES_MAX = 16384, /* blocks of one APPEND */
    NODE_FORWARDS_MAX = 4096, /* commands and queries at the leader, at most */
    NODE_FRAMES_A_TURN_MAX = 256,
    NODE_PERSIST_ROOM_TO_READ = 8, /* persists that a turn's frames may need; without, they wait where they are */
    NODE_PERSIST_ROOM_TO_SEAL = 2 * NODE_PERSIST_ROOM_TO_READ, /* a leader whose disk hangs does not go deaf by it */
    NODE_READY_LAG_BLOCKS = 4096,                              /* applied may be so far behind commit on a ready node */
    NODE_PROTOCOL = 1,                                         /* of peers; a node talks to its own number only */
    NODE_FEATURE_LEVEL = 1,
    NODE_REFUSALS_REMEMBERED = 8,
    NODE_ENTRY_CONFIGURATIONS_MAX = TRANSPORT_APPEND_BYTES_MAX / (BLOCK_HEADER_BYTES + CONFIGURATION_BYTES_MIN) + 1,
    NODE_ORIGIN_HERE = 0xff, /* not a peer's slot: this node's own front asked */
};

static_assert(NODE_ENTRIES_MAX >= TRANSPORT_APPEND_BYTES_MAX / BLOCK_HEADER_BYTES, "an APPEND of empty blocks");

#define NODE_MS                 UINT64_C(1000000)
#define NODE_FORWARD_TIMEOUT_NS (15000 * NODE_MS) /* longer than any default deadline: the front gave up before */
#define NODE_READ_WAIT_NS       (10000 * NODE_MS) /* for min_index, if the query does not say */
#define NODE_FORWARD_SWEEP_NS   (100 * NODE_MS)
#define NODE_BIRTH_RETRY_NS     (50 * NODE_MS)
#define NODE_MEMBERS_LOOK_NS    (250 * NODE_MS)
#define NODE_CHANGE_DIAL_NS     (5000 * NODE_MS)
#define NODE_CHANGE_LOOK_NS     (20 * NODE_MS)
#define NODE_RESTARTS_NS        (60000 * NODE_MS) /* one try to replace a member that was started anew */
#define NODE_RESTARTS_AGAIN_NS  (1000 * NODE_MS)  /* and so long after it the next */
#define NODE_REMOVED_LINGER_NS  (1000 * NODE_MS)
#define NODE_REPAIR_RETRY_NS    (200 * NODE_MS)
#define NODE_STALL_TIMEOUTS     10                /* election timeouts without a completed write */
#define NODE_HAND_OVER_NS_MAX   (60000 * NODE_MS) /* between two attempts to give leadership to somebody with room */
#define NODE_STOP_NS            (3000 * NODE_MS)  /* a drain that takes longer is cut off */

/* A proposal in the log (or in the open block) whose outcome somebody waits for. */
struct node_pending {
    uint64_t tag;
    uint8_t origin; /* NODE_ORIGIN_HERE, or the slot it was forwarded from */
};

struct node_proposals {
    struct node_pending *table; /* proposals_max entries, by position */
    log_position answered;      /* positions below it have had their outcome */
    log_position next;          /* the next command's position; answered..next-1 wait */
    uint8_t *open;              /* the claimed block, or NULL */
    uint32_t open_bytes;
    uint32_t open_count;
    log_position open_first; /* first position in the open block */
    bool term_block_due;     /* this leader has not yet published its term's first block */
    uint64_t last_append_ns; /* when this process published the newest block; its start, for recovered ones */
    uint64_t session_due_ns; /* now_ns at which a block is due, for a session to end; UINT64_MAX = none */
    uint64_t session_served; /* the log time that it was sealed for last */
};

enum node_query_state { NODE_QUERY_FREE, NODE_QUERY_WAITING, NODE_QUERY_RUNNING };

struct node_query_entry {
    uint64_t tag;
    uint8_t origin;
    uint8_t state;
    uint32_t next_free;
};

/* A query that waits; its bytes stand behind it in the queue. */
struct node_read {
    uint64_t ticket;      /* 0 = nothing asked for yet */
    uint64_t asked_ns;    /* when that was asked for */
    uint64_t deadline_ns; /* of waiting for min_index to be committed here */
    uint64_t entity;
    raft_index min_index;
    uint64_t session, seq;
    uint32_t query; /* entry in the table; UINT32_MAX: none any more */
    uint32_t bytes;
    bool index_only; /* a follower asks: the index is the answer */
};

enum { NODE_READS_ROUNDS, NODE_READS_INDEXES, NODE_READS_PARKED, NODE_READ_QUEUES };

struct node_read_queue {
    uint8_t *bytes;                /* a ring of struct node_read + query, each contiguous */
    uint64_t head, tail, ticketed; /* positions: ticketed = first read without a ticket */
};

struct node_reads {
    struct node_query_entry *table; /* queries_max */
    uint32_t free;                  /* first free entry, UINT32_MAX = none */
    struct node_read_queue queues[NODE_READ_QUEUES];
    uint64_t index_ticket;  /* of the newest question for an index */
    bool index_asked;       /* and it is on its way */
    raft_index known_index; /* shows all that was acknowledged before known_ns; 0 = nothing known */
    uint64_t known_ns;
    raft_index parked_commit; /* as of the last look at what is parked */
    uint64_t parked_due_ns;   /* the earliest deadline there */
};

/* A command or query that waits for the leader's answer. */
struct node_forward_entry {
    uint64_t id; /* 0 = free; echoed by the leader; never reused */
    uint64_t tag;
    uint64_t sent_ns;
    uint8_t kind;
    uint8_t slot;
};

/* Where the leader's snapshot stands, from the first piece to the machine that runs on it. */
enum node_install_step {
    NODE_INSTALL_NONE,    /* pieces come, if any: they lie beside the log, and everything goes on */
    NODE_INSTALL_READING, /* it is whole: the thread snapshots reads it into a machine of its own */
    NODE_INSTALL_READ,    /* done, or failed */
    NODE_INSTALL_HALTING, /* the core has agreed: no block is taken, the machine stops applying */
    NODE_INSTALL_STORING, /* the log thread puts it in place of the log */
};

struct node_install {
    _Atomic int step;              /* loop, but for READING -> READ: snapshots, release */
    bool storing;                  /* a piece is on its way to the disk, then it is acked */
    struct raft_snapshot snapshot; /* whose pieces are stored, or acked */
    struct host_state *state;
    int error;
    char why[NODE_WHY_BYTES_MAX];
};

enum node_load_state { NODE_LOAD_IDLE, NODE_LOAD_WANTED, NODE_LOAD_READING, NODE_LOAD_DONE };

/* Old blocks for one peer, read by the control thread. */
struct node_load {
    _Atomic int state; /* loop: IDLE/DONE -> WANTED -> READING; control: READING -> DONE (release) */
    raft_index first, last;
    uint64_t bytes_max;
    uint8_t *buffer; /* allocated at the peer's first load */
    uint64_t buffer_bytes;
    raft_index ret_last;
    uint64_t ret_bytes;
    bool is_piece; /* of a snapshot; else blocks */
    struct raft_piece piece;
    struct storage_snapshot ret_snapshot;
    uint64_t ret_offset;
    int ret_error;   /* of reading block ret_last + 1, or the piece: damage, or a disk that fails */
    bool on_its_way; /* the buffer belongs to the transport until it says idle */
    bool dropped;    /* something was asked for meanwhile: when this is done, the core has to ask for it again */
};

/* A block on the wire: in BLOCK_GET, and in front of what BLOCK gives. */
struct node_block_name {
    uint32_t group;
    uint32_t header_crc;
    raft_index index;
};
static_assert(sizeof(struct node_block_name) == 16, "no padding on the wire");

/* What a member has asked for. */
struct node_block_question {
    raft_member from;
    raft_index index; /* 0 = nothing */
    uint32_t header_crc;
};

struct node_blocks {
    struct node_block_question asked[RAFT_MEMBERS_MAX];
    _Atomic int state;                  /* enum node_load_state; loop: IDLE/DONE -> READING; control: READING -> DONE */
    unsigned slot;                      /* whose question is read, or was last */
    struct node_block_question reading; /* control's while READING, as what follows */
    uint8_t *buffer;                    /* allocated at the first question */
    uint32_t ret_bytes;                 /* 0: not held under that name */
    int ret_error;                      /* damage, or a disk that fails */
};

struct node_observers {
    _Atomic int state;                  /* as node_blocks' */
    struct transport_question question; /* control's while READING, as what follows */
    raft_index base, stored;            /* the log held what lies between when it was asked */
    raft_index low, high;               /* where the position is searched for; with ret_error low is the block */
    struct local_answer answer;
    uint32_t ret_bytes;
    uint32_t ret_blocks; /* that end in them */
    int ret_error;
    uint8_t packet[LOCAL_ANSWER_BYTES_MAX];
};

struct node_birth {
    uint64_t retry_ns;
    bool refused; /* a cluster exists and does not know this directory: not_ready says what to do */
    char waits[NODE_WHY_BYTES_MAX];
    struct {
        bool answered;
        raft_member id;
        bool stored; /* has our pending record durably */
    } peers[RAFT_MEMBERS_MAX];
};

enum node_slot_kind {
    NODE_SLOT_FREE,
    NODE_SLOT_LISTED,  /* in the file; before birth */
    NODE_SLOT_MEMBER,  /* in the newest configuration */
    NODE_SLOT_GUEST,   /* speaks for a configuration that we do not have yet */
    NODE_SLOT_JOINING, /* dialled in order to be admitted */
};

struct node_slot {
    uint8_t kind;
    uint64_t hello_cluster_id; /* of its last hello: 0 = it has no complete birth record */
    raft_index guest_index;    /* of that newer configuration */
    uint64_t hello_number;     /* of the last hello that had this member's id, counted over all; 0 = none */
};

struct node_members {
    /* Ascending: the newest that is committed, then all above it. A change is rare: the list grows by realloc. */
    struct storage_configuration *configurations;
    uint32_t count, room;
    struct node_slot slots[RAFT_MEMBERS_MAX]; /* beside options.members; the node's own has its name */
    uint64_t hello_count;
    bool slots_due, hello_due; /* at the end of this turn */
    bool removed;              /* for good: ids are never used again */
    uint64_t removed_ns, look_ns;
    uint32_t refused_said[NODE_REFUSALS_REMEMBERED]; /* checksums of what the log had lately: not said again */
    unsigned refused_next;
};

/* The change of members that runs; a leader's. */
struct node_change {
    bool begins;  /* asked for since the last turn */
    bool is_own;  /* nobody asked for it: see node_restarts.c */
    uint8_t step; /* 0 = none runs */
    struct node_change_request request;
    uint64_t tag;
    bool superseded; /* another call asks for the same */
    uint64_t superseded_tag;
    raft_member id, old_id; /* who comes, who goes; 0 = nobody */
    bool votes;             /* who comes; known with the step that makes it vote */
    unsigned slot;          /* JOINING */
    uint64_t dial_deadline_ns, hear_deadline_ns, deadline_ns;
    uint64_t own_again_ns;  /* not before */
    raft_index waits_index; /* of the configuration that this step appended; 0 = not yet */
    char progress[NODE_WHY_BYTES_MAX];
};

/* What is wrong with the disk, and since when. */
struct node_disk {
    uint64_t asked_seq;           /* of the newest persist */
    uint64_t done_seq;            /* durable at the last turn */
    uint64_t journal_ns, log_ns;  /* so long it has not got on, though there is something to do */
    raft_index stored;            /* at the last turn */
    uint64_t turn_ns;             /* the last turn */
    uint64_t since_ns;            /* of the trouble */
    bool abstains;                /* told to the core */
    bool handing_over;            /* before it: leadership is offered to the others once */
    uint32_t offers;              /* of leadership, of this trouble */
    uint64_t offer_ns;            /* when the next is due */
    char why[NODE_WHY_BYTES_MAX]; /* for people; "" = all is well */
};

struct node_repair {
    bool opening; /* the storage is not open: something of it is damaged */
    struct storage_missing missing[STORAGE_MISSING_MAX];
    uint32_t missing_count;
    struct storage_patch *patches; /* what was given; memory of their own */
    uint32_t patch_count, patch_room;
    uint64_t repaired; /* blocks, since start */
    uint64_t due_ns;   /* asked again */
    unsigned slot;     /* who was asked last */
    bool answered;     /* and gave what was asked for */
    char why[NODE_WHY_BYTES_MAX];
};

struct node {
    struct node_options options; /* members: the slots as they are now; a free one has no name */
    uint32_t listed_count;       /* members as the file has them */
    struct node_member_options listed[RAFT_MEMBERS_MAX];
    struct node_env env;
    struct node_owner owner;
    struct transport *transport;
    uint64_t now_ns; /* this turn's */
    bool in_turn;    /* inside node_drain: nobody may propose or ask */

    struct identity_directory *directory;
    struct identity identity;
    struct node_birth birth;
    struct node_members members;
    struct node_change change;

    _Atomic bool born; /* release: everything below is made; pairs with the acquire load in node_work */
    struct storage *storage;
    struct ring *ring;
    struct host *host;
    struct raft *raft;
    void *raft_memory;
    uint64_t boot;
    raft_member slot_id[RAFT_MEMBERS_MAX]; /* by slot; 0 = not known */
    uint64_t boot_seen[RAFT_MEMBERS_MAX];

    struct session_limits sessions; /* the group's */
    struct raft_effects effects;
    struct raft_entry *entries;                      /* NODE_ENTRIES_MAX */
    struct raft_configuration *entry_configurations; /* NODE_ENTRY_CONFIGURATIONS_MAX */
    struct {
        ring_pos pos; /* UINT64_MAX: nothing is held */
        uint64_t since_ns;
    } holds[NODE_HOLDERS];
    raft_term ring_term; /* what the ring's header says */
    bool ring_leads;
    uint64_t persisted_seq;
    uint64_t deadline_ns;
    raft_member leader;

    struct node_proposals proposals;
    struct node_reads reads;
    struct node_forward_entry *forwards; /* NODE_FORWARDS_MAX */
    uint64_t forward_id;
    uint32_t forward_count;
    uint64_t forward_sweep_ns;
    struct node_load loads[RAFT_MEMBERS_MAX];
    struct node_blocks blocks;
    struct node_observers observers;
    struct storage_reader *load_reader;     /* control's */
    struct storage_reader *snapshot_reader; /* the thread snapshots' */
    struct node_install install;
    struct node_disk disk;
    struct node_repair repair;
    raft_index base_told, snapshot_told;       /* to the core; to people */
    raft_index install_told[RAFT_MEMBERS_MAX]; /* by slot: of which people know that it is brought */

    uint64_t promise_over_ns;  /* then the promise of the process before is; 0 = there is nothing to say of it */
    _Atomic bool promise_over; /* loop: false -> true (release); control: true -> false */

    bool stands_back; /* told to the core: the machine is parked (M5) */

    bool transfer_waits;
    bool transfer_left;          /* leadership was given up for it, and the new leader is not known yet */
    raft_member transfer_target; /* 0 = whoever is best */
    uint64_t transfer_tag;
    bool stopping, stop_transfer_asked;
    uint64_t stop_deadline_ns;
    raft_index stop_index; /* last block when the stop began: durable here before the node is drained */
    bool changed;

    int failed;
    char failed_why[NODE_WHY_BYTES_MAX];
    struct node_counters counters;
    uint64_t frames_refused; /* by the node; the transport counts its own */
};

/* node.c */
void node_log(struct node *node, enum node_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void node_fail(struct node *node, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
unsigned node_slot_of(const struct node *node, raft_member id); /* RAFT_MEMBERS_MAX: nobody's */
void node_step(struct node *node, const struct raft_event *event, struct raft_result *ret);
/* Everything the core has collected: send, persist, apply, answer. Nothing of it can fail. */
void node_take_and_perform(struct node *node);
/* Ring epoch around a change of term, role or a cut. */
void node_ring_follow_raft(struct node *node, raft_index cut);
/* Open storage, machine and core behind a complete birth record. */
int node_come_alive(struct node *node, char *why, size_t why_room);

/* node_birth.c */
void node_birth_turn(struct node *node);
void node_birth_frame(struct node *node, const struct transport_frame *frame);
void node_birth_refused(struct node *node, bool wiped); /* a cluster exists; wiped: and knows our name by another id */

/* node_members.c */
void node_members_open(struct node *node); /* the file's members have their slots */
void node_members_close(struct node *node);
int node_members_wait(struct node *node); /* the log cannot be read yet: the birth record's; ENOMEM */
int node_members_recover(struct node *node, const struct storage_recovered *recovered); /* ENOMEM */
void node_members_turn(struct node *node); /* its end: transport and hello follow */
/* The newest one in the log; and the newest known at all, which a node that joins may have before its log does. */
const struct storage_configuration *node_configuration(const struct node *node);
const struct storage_configuration *node_configuration_known(const struct node *node);
int node_configuration_push(struct node *node, raft_index index,
                            const struct configuration *configuration);                         /* ENOMEM */
void node_configuration_core(const struct configuration *from, struct raft_configuration *ret); /* as the core has it */
void node_configurations_cut(struct node *node, raft_index cut);
void node_configurations_commit(struct node *node, raft_index commit);
/* A snapshot took the place of the log: this is its configuration, and the only one. */
void node_configuration_install(struct node *node, raft_index index, const struct configuration *configuration);
void node_members_status(struct node *node, struct node_status *ret); /* fills members, warnings; after ret->raft */
void node_members_gone(struct node *node);                            /* this node is a member no more */
/* A free slot for somebody who is no member yet; RAFT_MEMBERS_MAX: none, or no HOST:PORT. */
unsigned node_slot_take(struct node *node, enum node_slot_kind kind, const char *name, const char *client,
                        const char *peer);
void node_slot_release(struct node *node, unsigned slot); /* of kind JOINING */
int node_hello_check(void *context, unsigned *slot, const struct transport_hello *hello,
                     char reason[TRANSPORT_REASON_BYTES_MAX]);

/* node_members_change.c */
void node_change_begin_turn(struct node *node); /* before the turn's steps: what was asked for since */
void node_change_turn(struct node *node);
raft_member node_member_named(const struct node *node, const char *name); /* or by its id; 0: nobody */
void node_members_lead_turn(struct node *node); /* end a joint configuration; before the take */
uint64_t node_change_deadline_ns(const struct node *node);
/* A change that nobody asked for: false while another one runs. It may be given up while nothing of it is under way. */
bool node_change_own(struct node *node, const struct node_change_request *request);
void node_change_own_end(struct node *node, const char *why);

/* node_restarts.c */
void node_restarts_look(struct node *node);
/* Level memory: the voters that were started anew; they count for nothing until they are replaced. */
uint32_t node_restarted_voters(const struct node *node);

/* node_peers.c */
void node_peers_receive(struct node *node);
void node_peers_send(struct node *node, const struct raft_effects *effects);
void node_loads_turn(struct node *node);
void node_control_work(struct node *node);
/* J7: who cannot read its log does not lead with it. */
void node_log_unreadable(struct node *node, raft_index index, int error);

/* node_blocks.c */
void node_block_get_frame(struct node *node, const struct transport_frame *frame);
void node_blocks_turn(struct node *node);
void node_blocks_control_work(struct node *node);
void node_blocks_close(struct node *node);

/* node_observers.c */
void node_observers_turn(struct node *node);
void node_observers_control_work(struct node *node);

/* node_snapshot.c */
/* The machine starts from the snapshot that recovery found: a reader of it, to free(); NULL: no memory. */
struct lockstep_reader *node_snapshot_reader(struct storage_reader *reader, enum storage_which which);
void node_snapshot_reader_close(struct lockstep_reader *reader); /* takes NULL */
void node_snapshots_piece(struct node *node, const struct raft_message *message, const uint8_t *bytes, size_t count);
void node_snapshots_loaded(struct node *node, unsigned slot);
void node_snapshots_turn(struct node *node);
/* Control's thread. */
void node_snapshots_load(struct node *node, struct node_load *load);
void node_snapshots_work(struct node *node); /* the thread snapshots */

/* node_proposals.c */
int node_proposals_open(struct node *node);
void node_proposals_close(struct node *node);
int node_propose_from(struct node *node, const struct node_command *command, uint8_t origin, uint64_t tag);
void node_proposals_seal_turn(struct node *node);
/* Seal what is open, so that a configuration may be planned and appended. EFULL, EUNAVAILABLE: not in this turn. */
int node_proposals_clear(struct node *node);
/* Append it as a block of its own; nothing is open. EFULL, ENOMEM: nothing happened. */
int node_propose_configuration(struct node *node, const struct configuration *configuration);
void node_proposals_sessions_turn(struct node *node); /* seal an empty block when a session falls due */
void node_proposals_lead(struct node *node);          /* leadership begins */
void node_proposals_lose(struct node *node);          /* it ended: every waiting proposal gets its outcome */
void node_proposals_answer(struct node *node, const struct host_answer *answer);
bool node_proposals_idle(const struct node *node);

/* node_reads.c */
int node_reads_open(struct node *node);
void node_reads_close(struct node *node);
int node_query_from(struct node *node, const struct node_query *query, uint8_t origin, uint64_t tag);
void node_reads_ask_round(struct node *node);
/* A follower asks what this leader has committed: the answer's index. */
int node_index_from(struct node *node, uint8_t origin, uint64_t tag);
/* The leader's answer to the question with this ticket, or none. */
void node_reads_index(struct node *node, uint64_t ticket, int error, raft_index index);
void node_reads_turn(struct node *node);
uint64_t node_reads_deadline_ns(const struct node *node);
void node_reads_release(struct node *node, uint64_t ready_ticket, uint64_t failed_ticket, raft_index index);
void node_reads_answer(struct node *node, const struct host_answer *answer);

/* node_repair.c */
/* The storage named what is missing: ask for it. False: nobody can help. */
bool node_repair_begin(struct node *node, const struct storage_recovered *recovered, const char *why);
void node_repair_turn(struct node *node); /* while it is opening */
void node_repair_block_frame(struct node *node, const struct transport_frame *frame);
void node_repair_close(struct node *node);

/* node_disk.c */
void node_disk_turn(struct node *node);

/* node_forward.c */
int node_forwards_open(struct node *node);
void node_forwards_close(struct node *node);
int node_forward_command(struct node *node, const struct node_command *command, uint64_t tag);
int node_forward_query(struct node *node, const struct node_query *query, uint64_t tag);
int node_forward_index(struct node *node, uint64_t ticket);
void node_forward_frame(struct node *node, const struct transport_frame *frame);
void node_forward_outcome(struct node *node, uint8_t origin, uint64_t id, const struct node_outcome *outcome);
void node_forward_answer(struct node *node, uint8_t origin, uint64_t id, const struct node_answer *answer);
void node_forwards_turn(struct node *node); /* time-outs */
void node_forwards_leader_changed(struct node *node);
void node_forwards_hangup(struct node *node, unsigned slot); /* no answer comes from there any more */

#endif
