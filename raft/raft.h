/* SPDX-License-Identifier: Apache-2.0 */
/* raft.h - consensus as a computation: events in, effects out.
 * Does no I/O, reads no clock, allocates nothing, holds no bytes of blocks: indexes and terms only.
 * Thread: the one that owns the struct (the loop). Time is CLOCK_BOOTTIME-like nanoseconds, given with every event.
 *
 * Use, once a turn:   while events: raft_step(r, &event, &result)
 *                         after it, if raft_must_take(r): raft_take() and perform, before the next step
 *                     raft_take(r, now, &effects); perform them
 * A step mutates the state; what must leave (messages, persists, commit, reads) is collected by raft_take, merged
 * over all steps since the last one. A change of role or term, or a truncation, closes the merge (raft_must_take).
 * Effects cannot fail: the caller reserved room first.
 *
 * Every message in the effects may leave at once: the core itself holds back what must wait for the disk.
 *  R1  A message leaves before the disk write only if its term is already durable here and it promises nothing.
 *  R2  Storage is FIFO; a stale completion proves nothing. An ack says min(v, durable mark).
 *  R3  A follower's commit never passes v, the last index this term's leader validated here.
 *  R4  Only blocks of the current term are committed by counting.
 *  R5  No read before a block of the leader's own term is committed; a read joins only a round sent after it came.
 *  R6  A configuration takes effect when appended.
 *  R7  Votes and acks leave after the disk; the vote check uses the log in memory, blocks in flight included.
 *  R9  Only monotonic time decides. */
#ifndef LOCKSTEP_RAFT_RAFT_H
#define LOCKSTEP_RAFT_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "raft/message.h"

enum raft_role { RAFT_FOLLOWER = 1, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

struct raft_hard_state {
    raft_term term;
    raft_member vote; /* 0 = none in this term */
};

/* Written in configuration blocks: the numbers stay. A configuration with any of the last three is joint: the old and
 * the new voters each have to agree, until the configuration that it leads to takes its place. */
enum raft_member_role {
    RAFT_VOTER = 1, /* while joint: before and after */
    RAFT_LEARNER,   /* holds blocks, never campaigns, counts for nothing */
    RAFT_INCOMING,  /* a voter of the new ones alone */
    RAFT_OUTGOING,  /* a voter of the old ones alone; a learner after */
    RAFT_LEAVING,   /* a voter of the old ones alone; no member after */
};

struct raft_configuration {
    uint32_t count;
    struct {
        raft_member id;
        uint8_t role;
        uint8_t priority; /* voters with more of it campaign earlier, and are handed leadership to; 0 is usual */
    } members[RAFT_MEMBERS_MAX];
};

/* Whether it can be one at all: at most RAFT_MEMBERS_MAX, ids not 0 and each once, known roles, at least one voter of
 * the old and of the new ones. Outside data is asked this before the core sees it. */
bool raft_configuration_is_valid(const struct raft_configuration *configuration);
bool raft_configuration_is_joint(const struct raft_configuration *configuration);
/* The same members with the same roles and priorities, in any order. */
bool raft_configuration_is_same(const struct raft_configuration *one, const struct raft_configuration *other);
/* What a joint configuration leads to; any other leads to itself. */
void raft_configuration_leave(const struct raft_configuration *joint, struct raft_configuration *ret);
/* Whether `next` may replace `before` without a majority of one missing the other: the voters stay (learners and
 * priorities are free), or `next` is joint and its old voters are those of `before`, or `next` is what the joint
 * `before` leads to. */
bool raft_configuration_may_follow(const struct raft_configuration *before, const struct raft_configuration *next);

/* One term's blocks start at first_index. */
struct raft_term_run {
    raft_index first_index;
    raft_term term;
};

struct raft_options {
    raft_member self;
    uint64_t election_timeout_ns_min; /* drawn from [min, 2 * min) */
    uint64_t heartbeat_ns;
    uint64_t append_bytes_max;          /* of one APPEND's blocks; one block always fits */
    uint64_t append_inflight_bytes_max; /* per peer, unacknowledged */
    uint64_t uncommitted_bytes_max;     /* R10 */
    uint64_t lease_ns;                  /* 0: no lease reads. Else the same on all members, and so far below
                                         * election_timeout_ns_min that no clock drifts by the difference in it (T17) */
    uint64_t random_seed;
    /* Pure look-up into the ring's index map: how many bytes blocks first..*ret_last take, where *ret_last <= last is
     * the largest index such that the sum is <= budget (at least one block). 0: first is no longer in the ring, it
     * has to be loaded from the log. */
    uint64_t (*blocks_pack)(void *context, raft_index first, raft_index last, uint64_t budget_bytes,
                            raft_index *ret_last);
    void *blocks_context;
};

/* What recovery found, given to raft_open. */
struct raft_start {
    struct raft_hard_state hard_state; /* durable */
    raft_index base_index;             /* last compacted block, 0 = none */
    raft_term base_term;
    raft_index last_index; /* all of base_index+1..last_index is durable */
    raft_index commit;     /* durable and known committed */
    uint64_t promise_ns;   /* R5: so long from now nobody gets a vote, nor asks this node for one, for the sake of
                                       * what the process before promised by a longer timeout; 0 = it did not */
    const struct raft_term_run *runs; /* of base_index+1..last_index, ascending; copied */
    uint32_t run_count;
    /* R6: the newest configuration of blocks up to last_index, or of the base record, the birth record; and the one
     * that it replaced, to which a cut goes back: it may be left out (count 0) where the newest is committed. A node
     * that joins starts with none (count 0). Valid ones: the caller checked. */
    struct raft_configuration configuration, configuration_before;
    raft_index configuration_index, configuration_before_index; /* of their blocks; 0 = the birth record's */
};

/* One checked block of an APPEND. */
struct raft_entry {
    raft_index index;
    raft_term term;
    uint32_t bytes;
    const struct raft_configuration *configuration; /* that it carries, valid; copied if taken. NULL = none */
};

enum raft_event_type {
    RAFT_EVENT_TIME = 1,  /* nothing but time passed */
    RAFT_EVENT_MESSAGE,   /* from a peer; blocks of an APPEND were checked one by one */
    RAFT_EVENT_PROPOSE,   /* leader only: block last_index + 1 was sealed in the current term */
    RAFT_EVENT_PERSISTED, /* the persist with this seq, and all before it, is durable */
    RAFT_EVENT_LOADED,    /* blocks asked for by a load effect lie ready: the next raft_take sends them, or they may
                           * be dropped */
    RAFT_EVENT_CONTACT,   /* a valid frame header of the current term came from the leader; its body is not here yet */
    RAFT_EVENT_HANGUP,    /* the connection on which a member's messages come has ended, after all that came on it */
    RAFT_EVENT_READ,      /* somebody wants a linearizable read: result.read_ticket */
    RAFT_EVENT_TRANSFER,  /* hand leadership to target (0: the most caught-up voter): result.error */
    RAFT_EVENT_COMPACTED, /* the log begins behind this committed block now: what lies at or below it is only in snapshots */
    RAFT_EVENT_PIECE, /* the piece that an install effect asked for lies ready, as with LOADED; or cannot be read now */
    RAFT_EVENT_INSTALL_STORED, /* so much of a snapshot that result.install took is durable here: the leader is told */
    RAFT_EVENT_INSTALL,   /* it is complete, checked and restorable: result.error says whether it is still wanted */
    RAFT_EVENT_INSTALLED, /* it is durable as the beginning of the log: the log is empty behind it */
    RAFT_EVENT_ABSTAIN, /* J7, J8: from now on it neither leads, campaigns nor grants; it follows and acks. Or it does again */
    RAFT_EVENT_STAND_BACK, /* M5: from now on it hands leadership over and campaigns no more; it votes. Or it leads again */
    RAFT_EVENT_DISK_FAILED, /* R8: no more leading, granting, acking; for the rest of this process */
};

struct raft_event {
    uint8_t type;
    uint64_t now_ns;
    union {
        struct {
            const struct raft_message *message;
            const struct raft_entry *entries; /* of an APPEND, ascending and dense from previous_index + 1 */
            uint32_t entry_count;
            uint64_t room_bytes; /* what the ring can take now */
        } message;
        struct {
            raft_index index;
            uint32_t bytes;
            const struct raft_configuration *configuration; /* that it carries, as raft_change_plan or
                                                             * effects.leave_joint said; copied. NULL = none */
        } propose;
        struct {
            uint64_t seq;
        } persisted;
        struct {
            raft_member peer;
            raft_index first, last; /* first > last: could not be read, ask again later */
            uint64_t bytes;
        } loaded;
        struct {
            raft_member from;
            raft_term term;
        } contact;
        struct {
            raft_member from;
        } hangup;
        struct {
            raft_member target;
        } transfer;
        struct {
            raft_index index; /* at most commit */
        } compacted;
        struct {
            raft_member peer;
            struct raft_snapshot snapshot; /* the newest here; the peer's may be older: then offset is 0 */
            uint64_t offset, bytes;        /* bytes 0: not now, ask again later */
        } piece;
        struct raft_install_ack install_stored;
        struct {
            bool abstains;
        } abstain;
        struct {
            bool stands_back;
        } stand_back;
        struct {
            raft_index index;
            raft_term term;
            /* INSTALLED: R6, the configuration that the snapshot carries, valid, copied; and its block, at most index. */
            const struct raft_configuration *configuration;
            raft_index configuration_index;
        } install; /* INSTALL, INSTALLED */
    } as;
};

/* What the caller must do at once with the step's input. */
struct raft_result {
    /* PROPOSE, READ, TRANSFER refused: ENOTLEADER; EFULL (R10); EUNAVAILABLE (a transfer runs already, the term's
     * first block is not committed yet, or nothing is heard of the target); ENOTFOUND (the target is no other voter, or there is none); EIO (the disk failed).
     * INSTALL: EEXIST, it is not needed any more: drop it. EUNAVAILABLE: ask again when a persist is done. 0: until INSTALLED no block is taken, nobody is asked for votes.
     * MESSAGE: EINVAL, malformed or of no meaning here: dropped, count it.
     * MESSAGE: EPROTO, a proof that safety is lost somewhere: two leaders in one term, a committed block that a
     * leader contradicts, a block that we acked and no longer hold. Nothing was done with it; log it and exit:
     * carrying on would hide the damage (T14). */
    int error;
    raft_index cut; /* nonzero: the log was truncated, blocks >= cut are dead (this closes the merge) */
    raft_index accept_first, accept_last; /* copy these entries of the message into the ring; 0, 0 = none */
    uint64_t read_ticket;
    bool install; /* MESSAGE: keep this piece of a snapshot, and say INSTALL_STORED, whatever there was before */
};

/* Blocks first..last for peer `send.to`, bytes from ring (or from the load buffer, if loaded). */
struct raft_send {
    struct raft_message message;
    raft_index first, last; /* of an APPEND with blocks; 0, 0 = none */
    bool loaded;            /* also a piece of an INSTALL */
};

struct raft_load {
    raft_member peer;
    raft_index first, last;
    uint64_t bytes_max;
};

/* Read the piece at `offset` of this snapshot; of the newest one, from its beginning, if that is another by now. */
struct raft_piece {
    raft_member peer;
    raft_index index; /* 0 = none was chosen yet */
    uint32_t checksum;
    uint64_t offset;
};

enum {
    RAFT_APPENDS_PER_PEER_MAX = 16, /* in one raft_take */
    RAFT_SENDS_MAX = RAFT_MEMBERS_MAX * (RAFT_APPENDS_PER_PEER_MAX + 3),
    RAFT_PERSISTS_MAX =
        1024, /* outstanding; the caller stops stepping appends and proposals before that: raft_persist_room */
    RAFT_TERM_RUNS_MAX = 65536,
};

struct raft_effects {
    /* Persist, as one request: hard state and/or blocks first..last (the first cuts what is at or above it). */
    uint64_t persist_seq; /* 0 = nothing to persist */
    bool persist_hard_state;
    struct raft_hard_state hard_state;
    raft_index persist_first, persist_last; /* 0, 0 = no blocks */

    struct raft_send sends[RAFT_SENDS_MAX];
    uint32_t send_count;
    struct raft_load loads[RAFT_MEMBERS_MAX];
    uint32_t load_count;
    struct raft_piece pieces[RAFT_MEMBERS_MAX]; /* one a peer at a time, and none while a load is asked for */
    uint32_t piece_count;

    raft_index commit; /* current */

    /* Reads with a ticket <= reads_ready may run once reads_index is applied; those <= reads_failed that were not
     * ready before are refused: leadership was lost. */
    uint64_t reads_ready, reads_failed;
    raft_index reads_index;

    /* R6: the newest configuration of the log is in force, committed or not: raft_configuration_read. */
    bool configuration_changed; /* since the take before */
    /* Leader, the joint configuration is committed: seal a block that carries what it leads to
     * (raft_configuration_leave) and propose it. Said again at every take until that is done. */
    bool leave_joint;

    bool role_changed; /* role, term or leader differ from the take before */
    enum raft_role role;
    raft_term term;
    raft_member leader; /* 0 = none known */

    /* 1: a transfer ended in a higher term, the target's or another one's: who leads there shows who took over.
     * -1: it timed out, or leadership ended within the term. 0: nothing */
    int transfer_done;
    uint64_t deadline_ns; /* call again with RAFT_EVENT_TIME no later than this */
};

enum raft_progress_state {
    RAFT_PROGRESS_PROBE = 1, /* one block at a time, until the peer says where its log fits */
    RAFT_PROGRESS_REPLICATE, /* appends flow, bounded by bytes in flight */
    RAFT_PROGRESS_SNAPSHOT,  /* needs blocks at or below base_index: only a snapshot has them */
};

/* What a person or a test may see; copied out. */
struct raft_status {
    enum raft_role role;
    raft_term term;
    raft_member vote, leader;
    raft_index base_index, last_index, commit, durable_index, validated_index;
    bool writable; /* leader whose term's first block is committed and that is not transferring */
    bool transferring;
    bool abstains;
    raft_index configuration_index; /* effective; at or below commit: committed */
    bool joint;
    uint32_t peer_count;
    struct {
        raft_member id;
        uint8_t role, priority;
        bool caught_up; /* holds durably all that our log had a heartbeat ago */
        raft_index match, next;
        uint32_t inflight_appends;
        uint64_t inflight_bytes;
        bool recently_active;
        uint8_t state;            /* enum raft_progress_state */
        raft_index install_index; /* with SNAPSHOT: which one, and how far the peer is */
        uint64_t install_offset, install_bytes;
    } peers[RAFT_MEMBERS_MAX];
    bool installing; /* between INSTALL and INSTALLED */
    uint32_t appends_inflight_max;
};

/* May the leader change the configuration, and if not, why. */
enum raft_change {
    RAFT_CHANGE_MAY = 0,
    RAFT_CHANGE_NOT_LEADER,
    RAFT_CHANGE_NOT_YET,     /* no block of this term is committed, or leadership is being handed over: ask again */
    RAFT_CHANGE_RUNS,        /* the change before is not committed, or joint still: ask again */
    RAFT_CHANGE_SAME,        /* this is the configuration already */
    RAFT_CHANGE_INVALID,     /* not valid, or joint; or too many members, counted with those that leave */
    RAFT_CHANGE_NO_LEARNER,  /* `member` would vote and is no member: add it as a learner first (T36) */
    RAFT_CHANGE_LAGS,        /* `member` would vote and is silent, or does not hold what our log had a heartbeat ago */
    RAFT_CHANGE_LOSES_QUORUM /* too few of the voters, old or new, were heard within an election timeout: `member` is
                              * a silent one; nothing could be committed */
};

struct raft;

/* Bytes of memory that a core needs; 16-byte aligned. */
size_t raft_bytes(void);
/* Make a core in `memory`, as a follower that knows no leader. Takes a copy of all options. Never fails. */
struct raft *raft_open(void *memory, const struct raft_options *options, const struct raft_start *start,
                       uint64_t now_ns);

void raft_step(struct raft *r, const struct raft_event *event, struct raft_result *ret);
bool raft_must_take(const struct raft *r);
/* Collect what is due. Valid until the next call; large (about 60 KiB): keep one, reuse it. */
void raft_take(struct raft *r, uint64_t now_ns, struct raft_effects *ret);

/* Persists that may still be made before one has to complete. */
uint32_t raft_persist_room(const struct raft *r);
/* Cheap reads for the turn. */
bool raft_is_leader(const struct raft *r);
bool raft_is_transferring(const struct raft *r); /* a leader that hands leadership over: nothing may be proposed */
bool raft_may_propose(const struct raft *r, uint32_t bytes); /* leader, not transferring, R10's bound allows it */
raft_term raft_current_term(const struct raft *r);
raft_index raft_last_index(const struct raft *r);
raft_index raft_commit_index(const struct raft *r);
raft_term raft_term_at(const struct raft *r, raft_index index); /* 0 = not known here; what tests look through */
raft_index raft_durable_index(const struct raft *r);
/* Whether a peer is being brought a snapshot and got on with it lately: who takes a new one now, and compacts, sends it
 * back to the beginning. */
bool raft_installs_run(const struct raft *r);
/* The effective configuration (committed = false), or the newest committed one that is known here. Copied out.
 * What tests and the simulator look through: a driver has the configurations in its blocks. */
void raft_configuration_read(const struct raft *r, bool committed, struct raft_configuration *ret);
/* What a leader has to propose in order to get to `target`, which is not joint: a joint configuration where voters
 * change, else the target itself. Changes nothing. If the answer is RAFT_CHANGE_MAY: seal a block that carries *ret
 * and propose it before the next event.
 * forced      LAGS and LOSES_QUORUM do not count: the operator knows better. All else does: safety.
 * ret         untouched unless RAFT_CHANGE_MAY
 * ret_member  whom the answer is about, 0 = nobody */
enum raft_change raft_change_plan(const struct raft *r, const struct raft_configuration *target, bool forced,
                                  struct raft_configuration *ret, raft_member *ret_member);
void raft_status_read(const struct raft *r, struct raft_status *ret);
/* All invariants, O(n): debug builds, tests, the simulator. Aborts. */
void raft_check(const struct raft *r);

#endif
