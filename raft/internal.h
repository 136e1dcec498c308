/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h - the core's state, and what its files call of each other. Included by raft/ alone.
 * Thread: the core's.
 *
 *   raft.c         open, the switch of raft_step, raft_take, status, check
 *   election.c     roles: pre-vote, vote, becoming leader or follower, check-quorum
 *   follower.c     appends and heartbeats from a leader, acks
 *   replication.c  sending to peers, acks from them, commit, R10
 *   snapshot.c     snapshots for peers that need compacted blocks; taking one in place of our log
 *   read.c         ReadIndex rounds            transfer.c  handing leadership over
 *   membership.c   the configuration in force, changes    configuration.c   what configurations say
 *   progress.c     one peer as its leader sees it
 *   log.c          terms by index              persist.c   what is durable        quorum.c  majorities */
#ifndef LOCKSTEP_RAFT_INTERNAL_H
#define LOCKSTEP_RAFT_INTERNAL_H

#include "base/assert.h"
#include "base/random.h"
#include "lockstep/errors.h"
#include "raft/log.h"
#include "raft/persist.h"
#include "raft/progress.h"
#include "raft/quorum.h"
#include "raft/raft.h"

enum {
    REPLIES_MAX = 2 * RAFT_MEMBERS_MAX, /* messages that wait for the next take, requests to all aside */
    REPLIES_PER_STEP_MAX = 2,
    LEASE_ROUNDS = 64, /* whose time is remembered: a lease from an older one would hardly be one any more */
};

enum vote_answer { VOTE_NOT_ASKED, VOTE_ASK, VOTE_ASKED, VOTE_GRANTED, VOTE_REFUSED };

struct member {
    struct progress progress; /* while we lead */
    uint8_t vote;             /* enum vote_answer, while we campaign */
};

/* What the next ack to the leader of this term will say. All zero at every new term. */
struct ack_due {
    bool due;
    bool rejected, full;
    raft_index rejected_index, hint_index;
    raft_term hint_term;
    uint64_t round; /* newest seen from this leader; stays */
};

/* Reads wait for a round that leaves after they came; one round with reads is on its way at a time.
 *   ready | joined the round on its way: round_tickets | waiting: newest */
struct reads {
    uint64_t newest; /* last ticket handed out */
    uint64_t joined; /* these are answered, refused, or part of the round on its way */
    uint64_t ready, failed;
    raft_index ready_index;
    uint64_t round; /* on its way; 0 = none */
    raft_index round_index;
    uint64_t sent_ns[LEASE_ROUNDS]; /* when round k was begun, in place k % LEASE_ROUNDS; of the newest ones */
    bool lease_over;                /* a successor was asked for in this term */
};

struct transfer {
    raft_member target; /* 0 = none runs */
    uint64_t deadline_ns;
    bool asked; /* TIMEOUT_NOW is sent or due */
    bool ask_due;
    int done; /* for the next take */
};

/* A leader hands over by itself to a voter of higher priority. */
struct handover {
    uint64_t due_ns, wait_ns; /* not before; and so long after the next attempt */
};

struct raft {
    struct raft_options options;
    uint64_t now_ns; /* never falls */
    struct random random;
    bool disk_failed;
    bool abstains;    /* RAFT_EVENT_ABSTAIN */
    bool stands_back; /* RAFT_EVENT_STAND_BACK */

    enum raft_role role;
    struct raft_hard_state hard; /* in memory; persists.durable is what may be promised */
    raft_member leader;
    uint64_t contact_ns; /* when the leader was last heard */
    bool leader_hung_up; /* since then */
    uint64_t promise_ns; /* until then no vote for others than promised_to: with leases, or after a process with them */
    raft_member promised_to;
    uint64_t election_deadline_ns; /* followers and candidates */
    uint64_t ask_again_ns;         /* candidates: repeat unanswered requests */
    bool campaign_transfer;        /* the leader asked for this campaign */
    raft_member grant_to;          /* a grant of this term that waits for the disk; 0 = none */

    struct raft_log log;
    struct raft_persists persists;
    raft_index commit;
    raft_index commit_floor; /* what it was when this term, or our leadership in it, began or ended */

    /* following */
    raft_index validated; /* R2's v */
    struct ack_due ack;
    raft_index installing; /* between INSTALL and INSTALLED; 0 = not */
    bool install_ack_due;
    struct raft_install_ack install_ack;

    /* leading */
    raft_index term_first_index; /* this term's first block; last + 1 until it is proposed */
    uint64_t heartbeat_due_ns;
    uint64_t quorum_due_ns; /* next look at who was heard */
    uint64_t round;         /* id of the newest heartbeat round; never reused */
    uint64_t uncommitted_bytes;
    raft_index recent_index, recent_next_index; /* last_index one to two heartbeats ago, and since then */
    uint64_t recent_due_ns;
    struct reads reads;
    struct transfer transfer;
    struct handover handover;

    struct raft_configuration configuration, configuration_before; /* R6: effective; and what a cut goes back to */
    raft_index configuration_index, configuration_before_index;
    bool configuration_changed;              /* since the last take */
    struct member members[RAFT_MEMBERS_MAX]; /* beside configuration.members */
    uint32_t appends_inflight_max;

    /* towards the next take */
    bool must_take;
    uint32_t reply_count;
    struct raft_message replies[REPLIES_MAX];
    struct {
        enum raft_role role;
        raft_term term;
        raft_member leader;
    } shown; /* by the last take */
};

/* raft.c */
struct raft_message raft_message_to(const struct raft *r, raft_member to, enum raft_message_type type);
/* Queue a reply for the next take; its term must be durable. */
void raft_reply(struct raft *r, const struct raft_message *message);
void raft_emit(struct raft_effects *fx, const struct raft_message *message);

/* election.c */
/* With raft_campaign the only ways to change role or term. leader 0 = not known. A lower term than ours is a bug. */
void raft_become_follower(struct raft *r, raft_term term, raft_member leader);
void raft_campaign(struct raft *r, bool transfer);
/* Only voters do (T11). */
bool raft_may_campaign(const struct raft *r);
void raft_election_open(struct raft *r, uint64_t promise_ns);
void raft_election_prevote(struct raft *r, const struct raft_message *m);
void raft_election_vote(struct raft *r, const struct raft_message *m);
void raft_election_reply(struct raft *r, const struct raft_message *m);
void raft_election_hear_leader(struct raft *r);
void raft_election_hangup(struct raft *r, raft_member from);
void raft_election_time(struct raft *r);
void raft_election_persisted(struct raft *r);
void raft_election_take(struct raft *r, struct raft_effects *fx);
uint64_t raft_election_deadline(const struct raft *r);

/* follower.c */
/* The message's term is at least ours; follow its sender. EPROTO: this term has another leader. */
int raft_follow(struct raft *r, const struct raft_message *m);
void raft_follow_round(struct raft *r, uint64_t round);
/* Block index here is this term's leader's: v is at least that. */
void raft_follow_validate(struct raft *r, raft_index index);
void raft_follow_commit(struct raft *r, raft_index leader_commit);
/* What may never be contradicted in this term: the committed, and what the same leader showed to match. A configuration
 * that was replaced is committed, whether we know it or not. */
raft_index raft_follow_settled(const struct raft *r);
int raft_follow_append(struct raft *r, const struct raft_event *event, struct raft_result *ret);
int raft_follow_heartbeat(struct raft *r, const struct raft_message *m);
void raft_follow_persisted(struct raft *r, raft_index durable_before);
void raft_follow_take(struct raft *r, struct raft_effects *fx);

/* replication.c */
void raft_lead_start(struct raft *r);
int raft_lead_propose(struct raft *r, raft_index index, uint32_t bytes, const struct raft_configuration *configuration);
/* members[i] joins with the configuration block at index. */
void raft_lead_welcome(struct raft *r, uint32_t i, raft_index index);
/* It answered us within an election timeout. False for who is no member. */
bool raft_lead_hears(const struct raft *r, raft_member id);
/* members[i] holds durably all that our log had a heartbeat ago. */
bool raft_lead_is_caught_up(const struct raft *r, uint32_t i);
int raft_lead_ack(struct raft *r, const struct raft_message *m);
/* Bytes of blocks first..last, all of them held by the ring because they were not committed until now. */
uint64_t raft_lead_bytes_of(const struct raft *r, raft_index first, raft_index last);
void raft_lead_loaded(struct raft *r, const struct raft_event *event);
/* Count again what a majority holds durably. */
void raft_lead_commit(struct raft *r);
void raft_lead_take(struct raft *r, struct raft_effects *fx);
uint64_t raft_lead_deadline(const struct raft *r);
/* R5: whether a block of this leadership is committed. */
bool raft_lead_established(const struct raft *r);

/* snapshot.c */
/* Whether this peer needs blocks that only a snapshot has. */
bool raft_install_needed(const struct raft *r, const struct progress *p);
void raft_install_send(struct raft *r, uint32_t i, struct raft_effects *fx);
void raft_install_piece(struct raft *r, const struct raft_event *event);
/* Something came from this peer; before heard_ns is moved. */
void raft_install_heard(const struct raft *r, struct progress *p);
int raft_install_acked(struct raft *r, const struct raft_message *m);
uint64_t raft_install_deadline(const struct raft *r, uint32_t i);
int raft_install_receive(struct raft *r, const struct raft_message *m, struct raft_result *ret);
int raft_install_begin(struct raft *r, const struct raft_event *event);
void raft_install_end(struct raft *r, const struct raft_event *event);
void raft_install_take(struct raft *r, struct raft_effects *fx);

/* membership.c */
/* The block at index was appended and carries `next`, which is valid and may follow. */
void raft_membership_append(struct raft *r, raft_index index, const struct raft_configuration *next);
/* Blocks >= first are cut. */
void raft_membership_cut(struct raft *r, raft_index first);
/* The log is empty behind a new base: `installed`, of the block at index, is the configuration there. */
void raft_membership_install(struct raft *r, raft_index index, const struct raft_configuration *installed);
/* Whether the configurations in entries, which are new here or contradict what is here, follow each other. */
bool raft_membership_may_accept(const struct raft *r, const struct raft_entry *entries, uint32_t count);
bool raft_membership_is_committed(const struct raft *r);
bool raft_membership_leaves_joint(const struct raft *r);
void raft_membership_check(const struct raft *r);

/* read.c */
uint64_t raft_read_ask(struct raft *r);
bool raft_read_wants_round(const struct raft *r);
/* A new round id: messages carry it from now on. */
void raft_read_round_begin(struct raft *r);
void raft_read_round_sent(struct raft *r);
void raft_read_confirm(struct raft *r);
void raft_read_fail_all(struct raft *r);

/* transfer.c */
void raft_transfer_lead_start(struct raft *r);
int raft_transfer_start(struct raft *r, raft_member target);
/* A leader that has to go: no voter any more, for sure (T35), or one that stands back. */
bool raft_transfer_is_retired(const struct raft *r);
void raft_transfer_acked(struct raft *r);
void raft_transfer_time(struct raft *r);
void raft_transfer_end(struct raft *r, int done);
void raft_transfer_timeout_now(struct raft *r, const struct raft_message *m);
void raft_transfer_take(struct raft *r, struct raft_effects *fx);

#endif
