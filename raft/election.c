/* SPDX-License-Identifier: Apache-2.0 */
/* election.c - roles and terms: pre-vote, vote, check-quorum.
 * Thread: the core's. Owns: role, hard state, leader, election timers.
 *
 *   FOLLOWER, PRECANDIDATE, CANDIDATE -> PRECANDIDATE: a voter heard no leader for a timeout, or its leader hung up and
 *                                                      is not heard again soon [prevote_start]
 *   PRECANDIDATE -> CANDIDATE: a majority would vote for us [raft_campaign]
 *   FOLLOWER -> CANDIDATE: the leader hands over [raft_campaign, transfer]
 *   CANDIDATE -> LEADER: a majority granted durably, we among it [become_leader]
 *   LEADER -> FOLLOWER: no majority heard for a timeout [check_quorum]
 *   any -> FOLLOWER: a higher term, or this term's leader is heard [raft_become_follower]
 *
 * - Only raft_become_follower and raft_campaign change the term. Within a term a vote is given once and is kept, also
 *   when a role is lost or a pre-vote starts (T1).
 * - Pre-vote asks without any effect on the asked (T6), with the same log check as the vote (T8, T9). Its messages
 *   carry the durable term and leave at once; a refusal with a higher term brings the asker up to it (T3).
 * - R7: a candidate's requests leave, and its own vote counts, once {term, self} is durable; a grant leaves once it
 *   is durable. A retried request is answered again (T10).
 * - Whoever heard a leader within the shortest timeout, or leads, refuses: a node that was cut off cannot depose a
 *   working leader (thesis 4.2.3; T5, T12). The leader itself may ask its followers (T4), and so may its transfer.
 * - With lease reads that refusal is a promise: to the leader that was heard last, for the shortest timeout by our clock,
 *   whatever else we hear, hang-ups included. Who starts promises nobody in particular for a longest timeout,
 *   or for as long as what the process before promised by another setting may last (raft_start.promise_ns).
 * - A leader's hang-up is a hint of its death, no proof: it ends this node's own refusal and brings its pre-vote
 *   forward, nothing else. Whoever alone lost its connection is refused by the others and by the leader.
 * - Requests are judged by these rules whoever sent them: the asker may be a voter that we do not know of yet (T11).
 *   Answers count only from voters of our configuration (T12).
 * Source: thesis 3.4, 4.2.3, 9.6; etcd raft. */
#include "raft/internal.h"

static bool is_up_to_date(const struct raft *r, const struct raft_vote_request *vote)
{
    raft_term ours = raft_log_last_term(&r->log);
    if (vote->last_term != ours) return vote->last_term > ours;
    return vote->last_index >= r->log.last_index;
}

/* To a leader that may read by its lease, or by the process before this one. Whatever we heard since: only time ends it. */
static bool has_promised_others(const struct raft *r, raft_member asker)
{
    return r->now_ns < r->promise_ns && asker != r->promised_to;
}

static bool has_leader_apart_from(const struct raft *r, raft_member asker)
{
    if (r->role == RAFT_LEADER || has_promised_others(r, asker)) return true;
    if (r->leader == 0 || r->leader == asker || r->leader_hung_up) return false;
    return r->now_ns - r->contact_ns < r->options.election_timeout_ns_min;
}

static uint8_t own_priority(const struct raft *r)
{
    uint32_t i = raft_configuration_find(&r->configuration, r->options.self);
    return i < r->configuration.count ? r->configuration.members[i].priority : 0;
}

/* Whether a voter has more priority than we. */
static bool is_outranked(const struct raft *r)
{
    for (uint32_t i = 0; i < r->configuration.count; i++)
        if (r->configuration.members[i].role != RAFT_LEARNER && r->configuration.members[i].priority > own_priority(r))
            return true;
    return false;
}

/* [T, 2T), and [2T, 3T) for who is outranked: no longer, however many are, so that it costs one T at most. */
static void restart_election_timer(struct raft *r)
{
    uint64_t shortest = r->options.election_timeout_ns_min;
    r->election_deadline_ns =
        r->now_ns + shortest + (is_outranked(r) ? shortest : 0) + random_below(&r->random, shortest);
}

void raft_election_open(struct raft *r, uint64_t promise_ns)
{
    uint64_t longest_ns = r->options.lease_ns != 0 ? 2 * r->options.election_timeout_ns_min : 0;
    random_seed(&r->random, r->options.random_seed);
    restart_election_timer(r);
    r->promise_ns = r->now_ns + (promise_ns > longest_ns ? promise_ns : longest_ns);
    r->election_deadline_ns += promise_ns; /* nor does its own vote come earlier */
}

static bool is_majority_granted(const struct raft *r)
{
    uint64_t granted[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < r->configuration.count; i++) granted[i] = r->members[i].vote == VOTE_GRANTED;
    return raft_quorum_reached(&r->configuration, granted) == 1;
}

bool raft_may_campaign(const struct raft *r)
{
    /* Who leaves campaigns until it knows that to be committed: it may be the one that holds the block (thesis 4.2.2). */
    bool voter =
        raft_configuration_is_voter(&r->configuration, r->options.self) ||
        (!raft_membership_is_committed(r) && raft_configuration_is_voter(&r->configuration_before, r->options.self));
    /* the term's first block takes a term run: without one left a leader could do nothing */
    return r->installing == 0 && /* T13, T40 */
           !r->abstains && !r->stands_back && voter && raft_log_has_room(&r->log, r->hard.term + 1);
}

static void ask_all(struct raft *r)
{
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        bool ask =
            r->configuration.members[i].role != RAFT_LEARNER && r->configuration.members[i].id != r->options.self;
        r->members[i].vote = ask ? VOTE_ASK : VOTE_NOT_ASKED;
    }
    r->ask_again_ns = r->now_ns + r->options.heartbeat_ns;
}

static void grant_own_vote(struct raft *r)
{
    uint32_t i = raft_configuration_find(&r->configuration, r->options.self);
    if (i < r->configuration.count) r->members[i].vote = VOTE_GRANTED;
}

static void set_term(struct raft *r, raft_term term, raft_member vote)
{
    lk_assert(term > r->hard.term);
    r->hard = (struct raft_hard_state){.term = term, .vote = vote};
    r->commit_floor = r->commit;
    r->validated = 0;
    r->ack = (struct ack_due){0};
    r->install_ack_due = false;
    r->grant_to = 0;
    r->must_take = true;
}

static void set_role(struct raft *r, enum raft_role role, raft_member leader)
{
    if (r->role == role && r->leader == leader) return;
    if (r->role == RAFT_LEADER) {
        r->commit_floor = r->commit;
        raft_read_fail_all(r);
        raft_transfer_end(r, -1);
    }
    if (r->role != role) {
        r->role = role;
        restart_election_timer(r);
    }
    r->leader = leader;
    r->must_take = true;
}

void raft_become_follower(struct raft *r, raft_term term, raft_member leader)
{
    lk_assert(term >= r->hard.term);
    if (term > r->hard.term) {
        raft_transfer_end(r, 1); /* deposed: the target is on its way, or somebody else */
        set_term(r, term, 0);
    }
    set_role(r, RAFT_FOLLOWER, leader);
}

static void become_leader(struct raft *r)
{
    lk_assert(r->role == RAFT_CANDIDATE);
    lk_assert(r->persists.durable.term == r->hard.term && r->persists.durable.vote == r->options.self);
    set_role(r, RAFT_LEADER, r->options.self);
    r->quorum_due_ns = r->now_ns + r->options.election_timeout_ns_min;
    raft_lead_start(r);
}

static void count_votes(struct raft *r)
{
    if (!is_majority_granted(r)) return;
    if (r->role == RAFT_PRECANDIDATE)
        raft_campaign(r, false);
    else
        become_leader(r);
}

void raft_campaign(struct raft *r, bool transfer)
{
    set_term(r, r->hard.term + 1, r->options.self);
    set_role(r, RAFT_CANDIDATE, 0);
    restart_election_timer(r);
    r->campaign_transfer = transfer;
    ask_all(r);
}

static void prevote_start(struct raft *r)
{
    set_role(r, RAFT_PRECANDIDATE, 0); /* whom we followed is no leader any more (T5) */
    restart_election_timer(r);
    ask_all(r);
    grant_own_vote(r);
    count_votes(r);
}

/* An answer about campaign_term. Must carry a durable term: says no promise if refused, one that is kept if granted. */
static void answer(struct raft *r, const struct raft_message *m, enum raft_message_type type, bool granted)
{
    struct raft_message out = raft_message_to(r, m->from, type);
    out.term = r->persists.durable.term;
    out.as.vote_reply = (struct raft_vote_reply){.campaign_term = m->as.vote.campaign_term, .granted = granted};
    raft_reply(r, &out);
}

void raft_election_prevote(struct raft *r, const struct raft_message *m)
{
    bool granted = m->as.vote.campaign_term > r->hard.term && is_up_to_date(r, &m->as.vote) &&
                   !has_leader_apart_from(r, m->from) && !r->abstains;
    answer(r, m, RAFT_PREVOTE_REPLY, granted);
}

void raft_election_vote(struct raft *r, const struct raft_message *m)
{
    if (!m->as.vote.transfer && has_promised_others(r, m->from)) return;
    if (m->term > r->hard.term) {
        if (!m->as.vote.transfer && has_leader_apart_from(r, m->from)) return;
        raft_become_follower(r, m->term, 0);
    }
    bool may = m->term == r->hard.term && (r->hard.vote == m->from || (r->hard.vote == 0 && r->leader == 0));
    if (may && !r->abstains && is_up_to_date(r, &m->as.vote)) {
        if (r->hard.vote == 0) {
            set_role(r, RAFT_FOLLOWER, 0);
            r->hard.vote = m->from;
        }
        restart_election_timer(r);
        if (r->persists.durable.term == r->hard.term && r->persists.durable.vote == m->from)
            answer(r, m, RAFT_VOTE_REPLY, true);
        else
            r->grant_to = m->from;
    } else if (r->persists.durable.term >= m->term) {
        answer(r, m, RAFT_VOTE_REPLY, false);
    } /* else: it will ask again, and our term is durable by then (R1) */
}

void raft_election_reply(struct raft *r, const struct raft_message *m)
{
    if (m->term > r->hard.term) {
        raft_become_follower(r, m->term, 0);
        return;
    }
    bool pre = m->type == RAFT_PREVOTE_REPLY;
    if (r->role != (pre ? RAFT_PRECANDIDATE : RAFT_CANDIDATE)) return;
    if (m->as.vote_reply.campaign_term != r->hard.term + pre) return; /* an older campaign's (T2) */
    if (!pre && r->persists.durable.term != r->hard.term) return;     /* we have not asked yet */
    uint32_t i = raft_configuration_find(&r->configuration, m->from);
    if (i == r->configuration.count) return;
    r->members[i].vote = m->as.vote_reply.granted ? VOTE_GRANTED : VOTE_REFUSED;
    count_votes(r);
}

void raft_election_hear_leader(struct raft *r)
{
    r->contact_ns = r->now_ns;
    r->leader_hung_up = false;
    uint64_t promise_ns = r->options.lease_ns != 0 ? r->now_ns + r->options.election_timeout_ns_min : 0;
    if (r->promise_ns < promise_ns) r->promise_ns = promise_ns;
    r->promised_to = r->leader;
    restart_election_timer(r);
}

/* Voters whose leader hung up ask one after another, by priority and then in the configuration's order from the leader
 * on: followers that lose it at the same moment do not split their votes, and the first waits for the others to notice
 * too. */
static uint64_t turn_after_hangup_ns(const struct raft *r)
{
    const struct raft_configuration *c = &r->configuration;
    uint32_t leader = raft_configuration_find(c, r->leader), voters_before = 0;
    bool is_behind_us = false;
    for (uint32_t k = 1; k <= c->count; k++) {
        uint32_t i = (leader + k) % c->count;
        if (c->members[i].id == r->options.self) is_behind_us = true;
        if (c->members[i].role == RAFT_LEARNER || i == leader || c->members[i].id == r->options.self) continue;
        if (c->members[i].priority > own_priority(r) || (c->members[i].priority == own_priority(r) && !is_behind_us))
            voters_before++;
    }
    return (1 + 2 * voters_before) * r->options.heartbeat_ns / 8;
}

void raft_election_hangup(struct raft *r, raft_member from)
{
    if (r->role != RAFT_FOLLOWER || r->leader == 0 || r->leader != from) return;
    if (r->options.lease_ns != 0) return; /* the leader may live, and reads by our promise */
    r->leader_hung_up = true;
    if (!raft_may_campaign(r)) return;
    uint64_t turn_ns = r->now_ns + turn_after_hangup_ns(r);
    if (turn_ns < r->election_deadline_ns) r->election_deadline_ns = turn_ns;
}

/* A leader that no majority answers may have been replaced without knowing: it stops (thesis 6.2). */
static void check_quorum(struct raft *r)
{
    uint64_t heard[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < r->configuration.count; i++)
        heard[i] = r->configuration.members[i].id == r->options.self ? r->now_ns : r->members[i].progress.heard_ns;
    uint64_t quorum_heard_ns = raft_quorum_reached(&r->configuration, heard);
    if (r->now_ns - quorum_heard_ns >= r->options.election_timeout_ns_min)
        raft_become_follower(r, r->hard.term, 0);
    else
        r->quorum_due_ns = quorum_heard_ns + r->options.election_timeout_ns_min;
}

void raft_election_time(struct raft *r)
{
    if (r->role == RAFT_LEADER) {
        if (r->now_ns >= r->quorum_due_ns) check_quorum(r);
        return;
    }
    if (r->now_ns >= r->election_deadline_ns) {
        if (raft_may_campaign(r))
            prevote_start(r);
        else
            restart_election_timer(r);
    } else if (r->role != RAFT_FOLLOWER && r->now_ns >= r->ask_again_ns) {
        /* a vote refused is refused for its term; a pre-vote only until the asked one misses its leader as well */
        for (uint32_t i = 0; i < r->configuration.count; i++)
            if (r->members[i].vote == VOTE_ASKED ||
                (r->members[i].vote == VOTE_REFUSED && r->role == RAFT_PRECANDIDATE))
                r->members[i].vote = VOTE_ASK;
        r->ask_again_ns = r->now_ns + r->options.heartbeat_ns;
    }
}

void raft_election_persisted(struct raft *r)
{
    if (r->persists.durable.term != r->hard.term) return;
    if (r->grant_to != 0 && r->persists.durable.vote == r->grant_to) {
        struct raft_message m = raft_message_to(r, r->grant_to, RAFT_VOTE_REPLY);
        m.as.vote_reply = (struct raft_vote_reply){.campaign_term = r->hard.term, .granted = true};
        raft_reply(r, &m);
        r->grant_to = 0;
    }
    if (r->role == RAFT_CANDIDATE && r->persists.durable.vote == r->options.self) {
        grant_own_vote(r);
        count_votes(r);
    }
}

void raft_election_take(struct raft *r, struct raft_effects *fx)
{
    if (r->role != RAFT_PRECANDIDATE && r->role != RAFT_CANDIDATE) return;
    bool pre = r->role == RAFT_PRECANDIDATE;
    if (!pre && r->persists.durable.term != r->hard.term) return; /* R1: our term first */
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        if (r->members[i].vote != VOTE_ASK) continue;
        struct raft_message m = raft_message_to(r, r->configuration.members[i].id, pre ? RAFT_PREVOTE : RAFT_VOTE);
        m.term = r->persists.durable.term;
        m.as.vote = (struct raft_vote_request){
            .campaign_term = r->hard.term + pre,
            .last_index = r->log.last_index,
            .last_term = raft_log_last_term(&r->log),
            .transfer = !pre && r->campaign_transfer,
        };
        raft_emit(fx, &m);
        r->members[i].vote = VOTE_ASKED;
    }
}

uint64_t raft_election_deadline(const struct raft *r)
{
    if (r->role == RAFT_LEADER) return r->quorum_due_ns;
    if (r->role == RAFT_FOLLOWER || r->election_deadline_ns < r->ask_again_ns) return r->election_deadline_ns;
    return r->ask_again_ns;
}
