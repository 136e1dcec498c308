/* SPDX-License-Identifier: Apache-2.0 */
/* raft.c - the doors of the core: open, step, take, looks inside.
 * Thread: the core's. Owns: the struct, in memory that the caller gave.
 * raft_step() switches and leaves compute; raft_take() collects. Nothing else calls between the files' halves. */
#include <string.h>

#include "raft/internal.h"

static_assert(RAFT_SENDS_MAX >= REPLIES_MAX + 1 + (RAFT_MEMBERS_MAX - 1) * (RAFT_APPENDS_PER_PEER_MAX + 1),
              "one take: replies, one TIMEOUT_NOW, and appends and a heartbeat to each peer");

static const uint64_t NUMBER_MAX = UINT64_MAX / 4; /* terms and indexes beyond are damage, and sums stay in range */

size_t raft_bytes(void)
{
    return sizeof(struct raft);
}

struct raft *raft_open(void *memory, const struct raft_options *options, const struct raft_start *start,
                       uint64_t now_ns)
{
    lk_assert(options->self != 0);
    lk_assert(options->election_timeout_ns_min > options->heartbeat_ns && options->heartbeat_ns > 0);
    lk_assert(options->append_bytes_max > 0 && options->append_inflight_bytes_max > 0);
    lk_assert(options->blocks_pack != NULL);
    lk_assert(start->configuration.count <= RAFT_MEMBERS_MAX);
    lk_assert(start->configuration_index <= start->last_index);
    lk_assert(start->base_index <= start->commit && start->commit <= start->last_index);

    struct raft *r = memory;
    /* All but 1 MiB of term runs: those behind run_count are never read. */
    size_t runs_at = offsetof(struct raft, log.runs), runs_end = runs_at + sizeof r->log.runs;
    memset(r, 0, runs_at);
    memset((uint8_t *)memory + runs_end, 0, sizeof *r - runs_end);
    r->options = *options;
    r->now_ns = now_ns;
    r->role = RAFT_FOLLOWER;
    r->hard = start->hard_state;
    raft_log_open(&r->log, start);
    lk_assert(raft_log_last_term(&r->log) <= start->hard_state.term);
    raft_persists_open(&r->persists, start);
    r->commit = r->commit_floor = start->commit;
    r->configuration = start->configuration;
    r->configuration_index = start->configuration_index;
    r->configuration_before = start->configuration_before;
    r->configuration_before_index = start->configuration_before_index;
    raft_election_open(r, start->promise_ns);
    r->shown.role = r->role;
    r->shown.term = r->hard.term;
    return r;
}

struct raft_message raft_message_to(const struct raft *r, raft_member to, enum raft_message_type type)
{
    return (struct raft_message){.type = (uint8_t)type, .from = r->options.self, .to = to, .term = r->hard.term};
}

void raft_reply(struct raft *r, const struct raft_message *message)
{
    lk_assert(r->reply_count < REPLIES_MAX);
    lk_assert(message->term <= r->persists.durable.term);
    r->replies[r->reply_count++] = *message;
}

void raft_emit(struct raft_effects *fx, const struct raft_message *message)
{
    lk_assert(fx->send_count < RAFT_SENDS_MAX);
    struct raft_send *s = &fx->sends[fx->send_count++];
    s->message = *message;
    s->first = s->last = 0;
    s->loaded = false;
}

/* A leader of the past: tell it the term that is durable here, so that it stops and catches up (T3). */
static void answer_old_leader(struct raft *r, const struct raft_message *m)
{
    if (r->persists.durable.term <= m->term) return;
    struct raft_message out = raft_message_to(r, m->from, RAFT_ACK);
    out.term = r->persists.durable.term;
    raft_reply(r, &out);
}

static bool is_sane(const struct raft *r, const struct raft_message *m)
{
    if (m->from == 0 || m->from == r->options.self || m->to != r->options.self || m->term > NUMBER_MAX) return false;
    switch (m->type) {
    case RAFT_PREVOTE: return m->as.vote.campaign_term > m->term && m->as.vote.campaign_term <= NUMBER_MAX;
    case RAFT_VOTE: return m->as.vote.campaign_term == m->term && m->as.vote.last_term < m->term;
    case RAFT_APPEND:
        return m->as.append.last_index <= NUMBER_MAX &&
               (m->as.append.previous_index == 0) == (m->as.append.previous_term == 0);
    case RAFT_INSTALL: {
        const struct raft_snapshot *s = &m->as.install.snapshot;
        return s->index > 0 && s->index <= NUMBER_MAX && s->term > 0 && s->term <= m->term && s->bytes <= NUMBER_MAX &&
               m->as.install.offset <= s->bytes;
    }
    case RAFT_HEARTBEAT: return (m->as.heartbeat.match_index == 0) == (m->as.heartbeat.match_term == 0);
    default: return true;
    }
}

static int step_message(struct raft *r, const struct raft_event *event, struct raft_result *ret)
{
    const struct raft_message *m = event->as.message.message;
    if (!is_sane(r, m)) return LOCKSTEP_EINVAL;
    switch ((enum raft_message_type)m->type) {
    case RAFT_PREVOTE: raft_election_prevote(r, m); return 0;
    case RAFT_VOTE: raft_election_vote(r, m); return 0;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY: raft_election_reply(r, m); return 0;
    case RAFT_APPEND:
    case RAFT_HEARTBEAT:
    case RAFT_INSTALL:
        if (m->term < r->hard.term) {
            answer_old_leader(r, m);
            return 0;
        }
        if (m->type == RAFT_INSTALL) return raft_install_receive(r, m, ret);
        return m->type == RAFT_APPEND ? raft_follow_append(r, event, ret) : raft_follow_heartbeat(r, m);
    case RAFT_ACK:
    case RAFT_INSTALL_ACK:
        if (m->term > r->hard.term) raft_become_follower(r, m->term, 0);
        if (m->term < r->hard.term || r->role != RAFT_LEADER) return 0;
        return m->type == RAFT_ACK ? raft_lead_ack(r, m) : raft_install_acked(r, m);
    case RAFT_TIMEOUT_NOW: raft_transfer_timeout_now(r, m); return 0;
    case RAFT_MESSAGE_TYPES: break;
    }
    return LOCKSTEP_EINVAL;
}

static void step_persisted(struct raft *r, uint64_t seq)
{
    raft_index durable_before = r->persists.durable_index;
    raft_persists_done(&r->persists, seq);
    raft_election_persisted(r);
    raft_follow_persisted(r, durable_before);
    if (r->role == RAFT_LEADER) raft_lead_commit(r);
}

/* R8: nothing that needs the disk is promised any more. The caller ends the process. */
static void step_disk_failed(struct raft *r)
{
    r->disk_failed = true;
    raft_become_follower(r, r->hard.term, 0);
    r->grant_to = 0;
    r->ack.due = r->install_ack_due = false;
    r->reply_count = 0;
}

/* The log or the disk is not what a leader's and a voter's has to be. A grant that was not said yet is not said: that is
 * always allowed. */
static void step_abstain(struct raft *r, bool abstains)
{
    r->abstains = abstains;
    if (!abstains) return;
    if (r->role != RAFT_FOLLOWER) raft_become_follower(r, r->hard.term, 0);
    r->grant_to = 0;
}

/* What it would lead with is behind the others (M5): its vote is as good as theirs. A leader goes with the next passing of
 * time. */
static void step_stand_back(struct raft *r, bool stands_back)
{
    r->stands_back = stands_back;
    if (stands_back && r->role != RAFT_LEADER) raft_become_follower(r, r->hard.term, r->leader);
}

void raft_step(struct raft *r, const struct raft_event *event, struct raft_result *ret)
{
    lk_assert(!r->must_take);
    *ret = (struct raft_result){0};
    if (r->now_ns < event->now_ns) r->now_ns = event->now_ns;
    if (r->disk_failed) {
        ret->error = LOCKSTEP_EIO;
        return;
    }
    switch ((enum raft_event_type)event->type) {
    case RAFT_EVENT_TIME:
        raft_election_time(r);
        if (r->role == RAFT_LEADER) raft_transfer_time(r);
        break;
    case RAFT_EVENT_MESSAGE: ret->error = step_message(r, event, ret); break;
    case RAFT_EVENT_PROPOSE:
        ret->error =
            raft_lead_propose(r, event->as.propose.index, event->as.propose.bytes, event->as.propose.configuration);
        break;
    case RAFT_EVENT_PERSISTED: step_persisted(r, event->as.persisted.seq); break;
    case RAFT_EVENT_LOADED: raft_lead_loaded(r, event); break;
    case RAFT_EVENT_CONTACT:
        if (r->role == RAFT_FOLLOWER && event->as.contact.term == r->hard.term && event->as.contact.from == r->leader &&
            r->leader != 0)
            raft_election_hear_leader(r);
        break;
    case RAFT_EVENT_HANGUP: raft_election_hangup(r, event->as.hangup.from); break;
    case RAFT_EVENT_READ:
        if (r->role == RAFT_LEADER)
            ret->read_ticket = raft_read_ask(r);
        else
            ret->error = LOCKSTEP_ENOTLEADER;
        break;
    case RAFT_EVENT_TRANSFER: ret->error = raft_transfer_start(r, event->as.transfer.target); break;
    case RAFT_EVENT_COMPACTED: raft_log_compact(&r->log, event->as.compacted.index); break;
    case RAFT_EVENT_PIECE: raft_install_piece(r, event); break;
    case RAFT_EVENT_INSTALL_STORED:
        r->install_ack = event->as.install_stored;
        r->install_ack_due = true;
        break;
    case RAFT_EVENT_INSTALL: ret->error = raft_install_begin(r, event); break;
    case RAFT_EVENT_INSTALLED: raft_install_end(r, event); break;
    case RAFT_EVENT_ABSTAIN: step_abstain(r, event->as.abstain.abstains); break;
    case RAFT_EVENT_STAND_BACK: step_stand_back(r, event->as.stand_back.stands_back); break;
    case RAFT_EVENT_DISK_FAILED: step_disk_failed(r); break;
    default: lk_unreachable();
    }
}

bool raft_must_take(const struct raft *r)
{
    return r->must_take || r->reply_count + REPLIES_PER_STEP_MAX > REPLIES_MAX;
}

static uint64_t deadline(const struct raft *r)
{
    if (r->disk_failed) return UINT64_MAX;
    uint64_t election = raft_election_deadline(r);
    if (r->role != RAFT_LEADER) return election;
    uint64_t lead = raft_lead_deadline(r);
    return lead < election ? lead : election;
}

/* What leaves now: the rules that a message could break, looked at where all messages pass. */
static void check_sends(const struct raft *r, const struct raft_effects *fx)
{
    const struct raft_hard_state *durable = &r->persists.durable;
    for (uint32_t i = 0; i < fx->send_count; i++) {
        const struct raft_message *m = &fx->sends[i].message;
        lk_assert(m->term <= durable->term); /* R1 */
        switch ((enum raft_message_type)m->type) {
        case RAFT_VOTE: lk_assert(m->term == durable->term && durable->vote == r->options.self); break; /* R7 */
        case RAFT_VOTE_REPLY:
            if (m->as.vote_reply.granted) lk_assert(durable->term > m->term || durable->vote == m->to); /* R7 */
            break;
        case RAFT_ACK: /* R2; one of an older term says nothing but ours */
            lk_assert(m->as.ack.durable_index <= r->persists.durable_index);
            lk_assert(m->as.ack.durable_index <= m->as.ack.validated_index);
            break;
        case RAFT_APPEND:
        case RAFT_HEARTBEAT:
        case RAFT_INSTALL:
        case RAFT_TIMEOUT_NOW: lk_assert(r->role == RAFT_LEADER && m->term == r->hard.term); break;
        default: break;
        }
    }
}

void raft_take(struct raft *r, uint64_t now_ns, struct raft_effects *ret)
{
    if (r->now_ns < now_ns) r->now_ns = now_ns;
    ret->send_count = ret->load_count = ret->piece_count = 0;
    ret->transfer_done = r->transfer.done;
    r->transfer.done = 0;

    for (uint32_t i = 0; i < r->reply_count; i++) raft_emit(ret, &r->replies[i]);
    r->reply_count = 0;
    ret->persist_seq = 0;
    if (!r->disk_failed) {
        if (r->role == RAFT_LEADER) {
            raft_transfer_take(r, ret);
            raft_lead_take(r, ret);
        }
        raft_election_take(r, ret);
        raft_follow_take(r, ret);
        raft_install_take(r, ret);
        raft_persists_take(&r->persists, &r->hard, r->log.last_index, ret);
    }
    check_sends(r, ret);

    ret->commit = r->commit;
    ret->reads_ready = r->reads.ready;
    ret->reads_failed = r->reads.failed;
    ret->reads_index = r->reads.ready_index;
    ret->configuration_changed = r->configuration_changed;
    r->configuration_changed = false;
    ret->leave_joint = raft_membership_leaves_joint(r);
    ret->role_changed = r->shown.role != r->role || r->shown.term != r->hard.term || r->shown.leader != r->leader;
    ret->role = r->shown.role = r->role;
    ret->term = r->shown.term = r->hard.term;
    ret->leader = r->shown.leader = r->leader;
    ret->deadline_ns = deadline(r);
    r->must_take = false;
}

uint32_t raft_persist_room(const struct raft *r)
{
    return raft_persists_room(&r->persists);
}

bool raft_is_leader(const struct raft *r)
{
    return r->role == RAFT_LEADER;
}

bool raft_is_transferring(const struct raft *r)
{
    return r->role == RAFT_LEADER && r->transfer.target != 0;
}

raft_term raft_current_term(const struct raft *r)
{
    return r->hard.term;
}

raft_index raft_last_index(const struct raft *r)
{
    return r->log.last_index;
}

raft_index raft_commit_index(const struct raft *r)
{
    return r->commit;
}

raft_term raft_term_at(const struct raft *r, raft_index index)
{
    return raft_log_term_at(&r->log, index);
}

raft_index raft_durable_index(const struct raft *r)
{
    return r->persists.durable_index;
}

void raft_status_read(const struct raft *r, struct raft_status *ret)
{
    *ret = (struct raft_status){
        .role = r->role,
        .term = r->hard.term,
        .vote = r->hard.vote,
        .leader = r->leader,
        .base_index = r->log.base_index,
        .last_index = r->log.last_index,
        .commit = r->commit,
        .durable_index = r->persists.durable_index,
        .validated_index = r->validated,
        .writable = raft_lead_established(r) && r->transfer.target == 0,
        .transferring = r->transfer.target != 0,
        .abstains = r->abstains,
        .installing = r->installing != 0,
        .configuration_index = r->configuration_index,
        .joint = raft_configuration_is_joint(&r->configuration),
        .appends_inflight_max = r->appends_inflight_max,
    };
    if (r->role != RAFT_LEADER) return;
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        const struct progress *p = &r->members[i].progress;
        if (r->configuration.members[i].id == r->options.self) continue;
        uint32_t at = ret->peer_count++;
        ret->peers[at].id = r->configuration.members[i].id;
        ret->peers[at].role = r->configuration.members[i].role;
        ret->peers[at].priority = r->configuration.members[i].priority;
        ret->peers[at].caught_up = raft_lead_is_caught_up(r, i);
        ret->peers[at].match = p->match;
        ret->peers[at].next = p->next;
        ret->peers[at].inflight_appends = p->window_count;
        ret->peers[at].inflight_bytes = p->window_bytes;
        ret->peers[at].recently_active = r->now_ns - p->heard_ns < r->options.election_timeout_ns_min;
        ret->peers[at].state = p->state;
        if (!raft_install_needed(r, p)) continue;
        ret->peers[at].state = RAFT_PROGRESS_SNAPSHOT;
        ret->peers[at].install_index = p->install.snapshot.index;
        ret->peers[at].install_offset = p->install.offset;
        ret->peers[at].install_bytes = p->install.snapshot.bytes;
    }
}

static void check_reads(const struct raft *r)
{
    const struct reads *reads = &r->reads;
    lk_assert(reads->joined <= reads->newest);
    lk_assert(reads->ready <= reads->joined && reads->failed <= reads->joined);
    if (reads->round == 0)
        lk_assert(reads->joined == reads->ready || reads->joined == reads->failed);
    else
        lk_assert(raft_lead_established(r) && reads->round <= r->round &&
                  reads->round_index >= r->term_first_index); /* R5 */
}

/* What waits for the next take may leave with it. */
static void check_replies(const struct raft *r)
{
    const struct raft_hard_state *durable = &r->persists.durable;
    for (uint32_t i = 0; i < r->reply_count; i++) {
        const struct raft_message *m = &r->replies[i];
        lk_assert(m->term <= durable->term); /* R1 */
        if (m->type != RAFT_VOTE_REPLY || !m->as.vote_reply.granted) continue;
        lk_assert(durable->term > m->term || durable->vote == m->to); /* R7 */
    }
}

static void check_leader(const struct raft *r)
{
    lk_assert(r->persists.durable.term == r->hard.term && r->persists.durable.vote == r->options.self); /* R7 */
    lk_assert(r->validated == 0);
    lk_assert(r->commit == r->commit_floor || raft_log_term_at(&r->log, r->commit) == r->hard.term); /* R4 */
    lk_assert(r->uncommitted_bytes == raft_lead_bytes_of(r, r->commit + 1, r->log.last_index));      /* R10 */
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        const struct progress *p = &r->members[i].progress;
        if (r->configuration.members[i].id == r->options.self) continue;
        raft_progress_check(p, r->log.last_index);
        lk_assert(p->born_round <= r->round && p->round <= r->round);
        if (p->round != 0 || p->match != 0) lk_assert(p->round >= p->born_round); /* R11 */
    }
    if (r->transfer.target != 0)
        lk_assert(raft_configuration_votes_in(&r->configuration, r->transfer.target, RAFT_NEW)); /* T15 */
}

void raft_check(const struct raft *r)
{
    raft_log_check(&r->log);
    raft_persists_check(&r->persists, r->log.last_index); /* R2 */
    check_reads(r);
    check_replies(r);
    raft_membership_check(r); /* R6 */
    lk_assert(r->hard.term >= r->persists.handed.term);
    lk_assert(raft_log_last_term(&r->log) <= r->hard.term);
    lk_assert(r->log.base_index <= r->commit && r->commit <= r->log.last_index);
    lk_assert(r->commit_floor <= r->commit);
    lk_assert(r->validated <= r->log.last_index);
    if (r->installing != 0) lk_assert(r->role == RAFT_FOLLOWER && r->installing > r->commit);
    lk_assert((r->role == RAFT_LEADER) == (r->leader == r->options.self));
    if (r->grant_to != 0) lk_assert(r->hard.vote == r->grant_to);
    if (r->abstains) lk_assert(r->role == RAFT_FOLLOWER && r->grant_to == 0);                           /* J7 */
    if (r->stands_back) lk_assert(r->role == RAFT_FOLLOWER || r->role == RAFT_LEADER);                  /* M5 */
    if (r->disk_failed) lk_assert(r->role == RAFT_FOLLOWER && r->grant_to == 0 && r->reply_count == 0); /* R8 */
    switch (r->role) {
    case RAFT_FOLLOWER: break;
    case RAFT_PRECANDIDATE: lk_assert(r->leader == 0); break;
    case RAFT_CANDIDATE: lk_assert(r->leader == 0 && r->hard.vote == r->options.self); break;
    case RAFT_LEADER: check_leader(r); break;
    }
    if (r->role == RAFT_LEADER) return;
    lk_assert(r->commit <= r->commit_floor || r->commit <= r->validated); /* R3 */
    lk_assert(r->transfer.target == 0 && r->reads.joined == r->reads.newest);
}
