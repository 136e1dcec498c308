/* SPDX-License-Identifier: Apache-2.0 */
/* follower.c - what a leader sends, judged against our log; what we acknowledge.
 * Thread: the core's. Owns: validated (R2's v), the ack that is due.
 * R2  v is 0 at every new term and is raised by what this term's leader shows to match; no cut reaches it. An ack says
 *     min(v, durable mark): never what an earlier leader left here, never what is not on disk (T19, T21).
 * R3  Our commit never passes v.
 * R10 What the ring cannot take is dropped and the ack says so. The log is never cut without the block that takes the
 *     cut one's place.
 * - Only a block that contradicts cuts: late and repeated appends leave what matches alone (T20).
 * R6  A configuration is in force from the moment its block is taken, and until it is cut.
 * - A contradiction at or below commit, or below v within a term, or a second leader in one term, is damage: EPROTO,
 *   nothing is changed (T14).
 * - One ack a take, however many messages came and flushes completed; none for blocks that wait for the disk: the flush
 *   acks them. Heartbeats are acked at once, and say how far we are. */
#include "raft/internal.h"

int raft_follow(struct raft *r, const struct raft_message *m)
{
    if (m->term == r->hard.term && r->leader != 0 && r->leader != m->from) return LOCKSTEP_EPROTO;
    raft_become_follower(r, m->term, m->from);
    raft_election_hear_leader(r);
    return 0;
}

void raft_follow_validate(struct raft *r, raft_index index)
{
    lk_assert(index <= r->log.last_index);
    if (r->validated < index) r->validated = index;
}

void raft_follow_commit(struct raft *r, raft_index leader_commit)
{
    raft_index commit = leader_commit < r->validated ? leader_commit : r->validated;
    if (r->commit < commit) r->commit = commit;
}

void raft_follow_round(struct raft *r, uint64_t round)
{
    if (r->ack.round < round) r->ack.round = round;
}

static bool is_well_formed(const struct raft_message *m, const struct raft_entry *entries, uint32_t count)
{
    const struct raft_append *a = &m->as.append;
    if (a->previous_term > m->term || a->last_index < a->previous_index) return false;
    if (count > a->last_index - a->previous_index) return false;
    raft_term term = a->previous_term;
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].index != a->previous_index + 1 + i) return false;
        if (entries[i].term < term || entries[i].term > m->term || entries[i].term == 0) return false;
        if (entries[i].configuration != NULL && !raft_configuration_is_valid(entries[i].configuration)) return false;
        term = entries[i].term;
    }
    return true;
}

static void refuse(struct raft *r, const struct raft_append *a)
{
    r->ack.rejected = true;
    r->ack.rejected_index = a->previous_index;
    r->ack.hint_index = raft_log_last_at_or_below(&r->log, a->previous_index, a->previous_term);
    r->ack.hint_term = raft_log_term_at(&r->log, r->ack.hint_index);
}

raft_index raft_follow_settled(const struct raft *r)
{
    raft_index settled = r->commit > r->validated ? r->commit : r->validated;
    return settled > r->configuration_before_index ? settled : r->configuration_before_index;
}

/* These entries are new here, or contradict what is here from the first on: take as many as there is room for. */
static void accept(struct raft *r, const struct raft_entry *entries, uint32_t count, uint64_t room_bytes,
                   struct raft_result *ret)
{
    raft_index first = entries[0].index;
    uint32_t taken = 0;
    lk_assert(first > raft_follow_settled(r)); /* so a cut never has to lower v */
    while (taken < count && entries[taken].bytes <= room_bytes && raft_log_has_room(&r->log, entries[taken].term)) {
        if (taken == 0 && first <= r->log.last_index) {
            raft_log_cut(&r->log, first);
            raft_persists_cut(&r->persists, first);
            raft_membership_cut(r, first);
            ret->cut = first;
            r->must_take = true;
        }
        raft_log_append(&r->log, entries[taken].term);
        if (entries[taken].configuration != NULL)
            raft_membership_append(r, entries[taken].index, entries[taken].configuration);
        room_bytes -= entries[taken].bytes;
        taken++;
    }
    r->ack.full |= taken < count;
    if (taken == 0) return;
    ret->accept_first = first;
    ret->accept_last = r->log.last_index;
    raft_follow_validate(r, r->log.last_index);
}

int raft_follow_append(struct raft *r, const struct raft_event *event, struct raft_result *ret)
{
    const struct raft_message *m = event->as.message.message;
    const struct raft_append *a = &m->as.append;
    const struct raft_entry *entries = event->as.message.entries;
    uint32_t count = event->as.message.entry_count;
    const struct raft_log *log = &r->log;

    if (!is_well_formed(m, entries, count)) return LOCKSTEP_EINVAL;
    int rc = raft_follow(r, m);
    if (rc != 0) return rc;
    raft_follow_round(r, a->round);
    if (r->installing != 0) { /* the log is about to be replaced: the leader asks again */
        r->ack.full = r->ack.due = true;
        return 0;
    }

    if (a->previous_index > log->last_index) {
        refuse(r, a);
    } else if (a->previous_index >= log->base_index && raft_log_term_at(log, a->previous_index) != a->previous_term) {
        if (a->previous_index <= raft_follow_settled(r)) return LOCKSTEP_EPROTO;
        refuse(r, a);
    } else {
        uint32_t same = 0;
        for (; same < count && entries[same].index <= log->last_index; same++) {
            if (entries[same].index < log->base_index) continue; /* compacted, hence committed, hence the same */
            if (raft_log_term_at(log, entries[same].index) != entries[same].term) break;
        }
        bool contradicts = same < count && entries[same].index <= log->last_index;
        if (contradicts && entries[same].index <= raft_follow_settled(r)) return LOCKSTEP_EPROTO;
        if (same < count && !raft_membership_may_accept(r, entries + same, count - same)) return LOCKSTEP_EPROTO;
        raft_follow_validate(r, a->previous_index + same);
        if (same < count) accept(r, entries + same, count - same, event->as.message.room_bytes, ret);
    }
    raft_follow_commit(r, a->commit);
    /* blocks that were taken are acked by their flush; all else has nothing to wait for */
    if (ret->accept_first == 0 || r->ack.full) r->ack.due = true;
    return 0;
}

int raft_follow_heartbeat(struct raft *r, const struct raft_message *m)
{
    const struct raft_heartbeat *h = &m->as.heartbeat;
    if (h->match_term > m->term) return LOCKSTEP_EINVAL;
    int rc = raft_follow(r, m);
    if (rc != 0) return rc;
    raft_follow_round(r, h->round);
    /* the leader speaks of what we acked in this term: it must still be here */
    if (h->match_index >= r->log.base_index &&
        (h->match_index > r->log.last_index || raft_log_term_at(&r->log, h->match_index) != h->match_term))
        return LOCKSTEP_EPROTO;
    raft_follow_validate(r, h->match_index);
    raft_follow_commit(r, h->commit);
    r->ack.due = true;
    return 0;
}

static raft_index durable_validated(const struct raft *r, raft_index durable)
{
    return r->validated < durable ? r->validated : durable;
}

void raft_follow_persisted(struct raft *r, raft_index durable_before)
{
    if (durable_validated(r, r->persists.durable_index) > durable_validated(r, durable_before)) r->ack.due = true;
}

void raft_follow_take(struct raft *r, struct raft_effects *fx)
{
    if (!r->ack.due || r->role != RAFT_FOLLOWER || r->leader == 0) return;
    if (r->persists.durable.term != r->hard.term) return; /* R1: due until then */
    struct raft_message m = raft_message_to(r, r->leader, RAFT_ACK);
    m.as.ack = (struct raft_ack){
        .durable_index = durable_validated(r, r->persists.durable_index),
        .validated_index = r->validated,
        .rejected = r->ack.rejected,
        .rejected_index = r->ack.rejected_index,
        .hint_index = r->ack.hint_index,
        .hint_term = r->ack.hint_term,
        .full = r->ack.full,
        .round = r->ack.round,
    };
    raft_emit(fx, &m);
    r->ack = (struct ack_due){.round = r->ack.round};
}
