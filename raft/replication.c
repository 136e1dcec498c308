/* SPDX-License-Identifier: Apache-2.0 */
/* replication.c - the leader's side: proposals, sending, acks, commit.
 * Thread: the core's. Owns: every member's progress, the commit of a leader, the sum of uncommitted bytes.
 * R4  Commit moves only to a block of our own term that a majority holds durably; older ones come with it (T18). Our
 *     own part is our durable mark, no more (T28), and is not waited for when others are a majority.
 * R10 Uncommitted bytes are bounded; a term's first block and one block at all always pass.
 * - Before the term's first block is proposed only heartbeats leave: a probe would have nothing to carry.
 * - A heartbeat leaves on its own time, whatever else is sent or stuck (T24), and each is a read round. */
#include "raft/internal.h"

uint64_t raft_lead_bytes_of(const struct raft *r, raft_index first, raft_index last)
{
    uint64_t sum = 0;
    while (first <= last) {
        raft_index packed_last = 0;
        uint64_t bytes = r->options.blocks_pack(r->options.blocks_context, first, last, UINT64_MAX, &packed_last);
        if (bytes == 0) break;
        lk_assert(packed_last >= first && packed_last <= last);
        sum += bytes;
        first = packed_last + 1;
    }
    return sum;
}

static bool is_self(const struct raft *r, uint32_t i)
{
    return r->configuration.members[i].id == r->options.self;
}

void raft_lead_start(struct raft *r)
{
    r->term_first_index = r->log.last_index + 1;
    r->heartbeat_due_ns = r->now_ns; /* tell the others at once */
    r->recent_index = r->recent_next_index = r->log.last_index;
    r->recent_due_ns = r->now_ns + r->options.heartbeat_ns;
    raft_transfer_lead_start(r);
    r->reads.lease_over = false;
    r->uncommitted_bytes = raft_lead_bytes_of(r, r->commit + 1, r->log.last_index);
    for (uint32_t i = 0; i < r->configuration.count; i++)
        raft_progress_open(&r->members[i].progress, r->log.last_index + 1, r->now_ns);
}

void raft_lead_welcome(struct raft *r, uint32_t i, raft_index index)
{
    raft_progress_open(&r->members[i].progress, index, r->now_ns);
    raft_read_round_begin(r);
    r->members[i].progress.born_round = r->round; /* every message to it from now on carries at least this one */
}

bool raft_lead_hears(const struct raft *r, raft_member id)
{
    uint32_t i = raft_configuration_find(&r->configuration, id);
    return i < r->configuration.count && r->members[i].progress.round > 0 &&
           r->now_ns - r->members[i].progress.heard_ns < r->options.election_timeout_ns_min;
}

bool raft_lead_is_caught_up(const struct raft *r, uint32_t i)
{
    return r->members[i].progress.match >= r->recent_index;
}

static void note_recent(struct raft *r)
{
    if (r->now_ns < r->recent_due_ns) return;
    r->recent_index = r->recent_next_index;
    r->recent_next_index = r->log.last_index;
    r->recent_due_ns = r->now_ns + r->options.heartbeat_ns;
}

bool raft_lead_established(const struct raft *r)
{
    return r->role == RAFT_LEADER && r->commit >= r->term_first_index;
}

bool raft_may_propose(const struct raft *r, uint32_t bytes)
{
    if (r->role != RAFT_LEADER || r->transfer.target != 0) return false;
    if (r->log.last_index < r->term_first_index || r->uncommitted_bytes == 0) return true;
    return r->uncommitted_bytes + bytes <= r->options.uncommitted_bytes_max;
}

int raft_lead_propose(struct raft *r, raft_index index, uint32_t bytes, const struct raft_configuration *configuration)
{
    if (r->role != RAFT_LEADER) return LOCKSTEP_ENOTLEADER;
    if (r->transfer.target != 0) return LOCKSTEP_EUNAVAILABLE;
    if (configuration == NULL && !raft_may_propose(r, bytes)) return LOCKSTEP_EFULL;
    lk_assert(index == r->log.last_index + 1);
    if (configuration != NULL) lk_assert(raft_membership_is_committed(r) && raft_lead_established(r)); /* T30 */
    raft_log_append(&r->log, r->hard.term);
    r->uncommitted_bytes += bytes;
    if (configuration == NULL) return 0;
    raft_membership_append(r, index, configuration);
    raft_lead_commit(r); /* fewer may be enough now (T28) */
    raft_read_confirm(r);
    return 0;
}

void raft_lead_commit(struct raft *r)
{
    uint64_t match[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < r->configuration.count; i++)
        match[i] = is_self(r, i) ? r->persists.durable_index : r->members[i].progress.match;
    raft_index reached = raft_quorum_reached(&r->configuration, match);
    if (reached <= r->commit || reached < r->term_first_index) return; /* R4: all from there on are of our term */
    uint64_t bytes = raft_lead_bytes_of(r, r->commit + 1, reached);
    r->uncommitted_bytes -= bytes < r->uncommitted_bytes ? bytes : r->uncommitted_bytes;
    lk_assert(reached <= r->log.last_index && raft_log_term_at(&r->log, reached) == r->hard.term); /* R4 */
    r->commit = reached;
}

int raft_lead_ack(struct raft *r, const struct raft_message *m)
{
    const struct raft_ack *ack = &m->as.ack;
    uint32_t i = raft_configuration_find(&r->configuration, m->from);
    if (i == r->configuration.count) return 0; /* counts for nothing (T12, T25) */
    if (ack->durable_index > ack->validated_index || ack->validated_index > r->log.last_index || ack->round > r->round)
        return LOCKSTEP_EINVAL;
    struct progress *p = &r->members[i].progress;
    if (ack->round < p->born_round) return 0; /* R11: of an earlier membership (T25) */
    raft_index match = p->match;
    uint64_t round = p->round;
    raft_install_heard(r, p);
    raft_progress_ack(p, ack, &r->log, &r->options, r->now_ns);
    if (p->match > match) {
        raft_lead_commit(r);
        raft_transfer_acked(r);
    }
    if (p->round > round) raft_read_confirm(r);
    return 0;
}

void raft_lead_loaded(struct raft *r, const struct raft_event *event)
{
    uint32_t i = raft_configuration_find(&r->configuration, event->as.loaded.peer);
    if (i == r->configuration.count) return; /* removed meanwhile */
    struct progress *p = &r->members[i].progress;
    if (p->load != PROGRESS_LOAD_ASKED) return;          /* asked for in an earlier membership */
    bool ours = p->load_first == event->as.loaded.first; /* else that as well: ask again */
    raft_progress_loaded(p, p->load_first, ours ? event->as.loaded.last : p->load_first - 1, event->as.loaded.bytes,
                         r->now_ns + r->options.heartbeat_ns);
}

static void send_append(struct raft *r, uint32_t i, raft_index last, uint64_t bytes, bool loaded,
                        struct raft_effects *fx)
{
    struct progress *p = &r->members[i].progress;
    lk_assert(fx->send_count < RAFT_SENDS_MAX);
    struct raft_send *s = &fx->sends[fx->send_count++];
    s->message = raft_message_to(r, r->configuration.members[i].id, RAFT_APPEND);
    s->message.as.append = (struct raft_append){
        .previous_index = p->next - 1,
        .previous_term = raft_log_term_at(&r->log, p->next - 1),
        .last_index = last,
        .commit = r->commit,
        .round = r->round,
    };
    s->first = p->next;
    s->last = last;
    s->loaded = loaded;
    raft_progress_sent(p, last, bytes);
    if (r->appends_inflight_max < p->window_count) r->appends_inflight_max = p->window_count;
}

static void send_blocks(struct raft *r, uint32_t i, struct raft_effects *fx)
{
    struct progress *p = &r->members[i].progress;
    if (raft_install_needed(r, p)) {
        raft_install_send(r, i, fx);
        return;
    }
    if (p->install.piece == PROGRESS_PIECE_READY) p->install.piece = PROGRESS_PIECE_NONE; /* its buffer is the loads' */
    if (p->load == PROGRESS_LOAD_READY) {
        p->load = PROGRESS_LOAD_NONE;
        if (p->load_first == p->next && raft_progress_may_send(p, r->now_ns))
            send_append(r, i, p->load_last, p->load_bytes, true, fx);
    }
    for (uint32_t sent = 0; sent < RAFT_APPENDS_PER_PEER_MAX - 1 && p->next <= r->log.last_index; sent++) {
        if (!raft_progress_may_send(p, r->now_ns)) return;
        uint64_t budget = raft_progress_budget(p, &r->options);
        if (budget == 0) return;
        raft_index last = 0;
        uint64_t bytes = r->options.blocks_pack(r->options.blocks_context, p->next, r->log.last_index, budget, &last);
        if (bytes == 0) {
            lk_assert(p->next <= r->commit);                      /* only what LMDB has leaves the ring */
            if (p->install.piece == PROGRESS_PIECE_ASKED) return; /* one at a time is read for a peer */
            p->load = PROGRESS_LOAD_ASKED;
            p->load_first = p->next;
            p->load_last = r->commit;
            fx->loads[fx->load_count++] = (struct raft_load){
                .peer = r->configuration.members[i].id, .first = p->next, .last = r->commit, .bytes_max = budget};
            return;
        }
        lk_assert(last >= p->next && last <= r->log.last_index);
        if (bytes > budget && p->window_count > 0) return; /* one block, larger than what is left */
        send_append(r, i, last, bytes, false, fx);
    }
}

static void send_heartbeats(struct raft *r, struct raft_effects *fx)
{
    raft_read_round_begin(r);
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        if (is_self(r, i)) continue;
        struct progress *p = &r->members[i].progress;
        raft_index match = p->match >= r->log.base_index ? p->match : 0; /* below it the term is not known */
        struct raft_message m = raft_message_to(r, r->configuration.members[i].id, RAFT_HEARTBEAT);
        m.as.heartbeat = (struct raft_heartbeat){
            .match_index = match,
            .match_term = raft_log_term_at(&r->log, match),
            .commit = r->commit,
            .round = r->round,
        };
        raft_emit(fx, &m);
        raft_progress_heartbeat(p, r->round);
    }
    r->heartbeat_due_ns = r->now_ns + r->options.heartbeat_ns;
    raft_read_round_sent(r);
    raft_read_confirm(r); /* a single voter is its own majority */
}

void raft_lead_take(struct raft *r, struct raft_effects *fx)
{
    note_recent(r);
    if (r->now_ns >= r->heartbeat_due_ns || raft_read_wants_round(r)) send_heartbeats(r, fx);
    if (r->log.last_index < r->term_first_index) return;
    for (uint32_t i = 0; i < r->configuration.count; i++)
        if (!is_self(r, i)) send_blocks(r, i, fx);
}

uint64_t raft_lead_deadline(const struct raft *r)
{
    if (raft_transfer_is_retired(r) && r->transfer.target == 0) return r->now_ns;
    uint64_t deadline = r->heartbeat_due_ns;
    if (r->transfer.target != 0 && r->transfer.deadline_ns < deadline) deadline = r->transfer.deadline_ns;
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        uint64_t pause = r->members[i].progress.pause_until_ns;
        if (pause > r->now_ns && pause < deadline) deadline = pause;
        uint64_t install = raft_install_deadline(r, i);
        if (install > r->now_ns && install < deadline) deadline = install;
    }
    return deadline;
}
