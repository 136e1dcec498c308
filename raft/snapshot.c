/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c - snapshots instead of blocks: bringing one to a peer, taking one in place of our log.
 * Thread: the core's. Owns: every peer's install, the install under way here, the ack of pieces that is due.
 *
 *   leader     next <= base ── ask for a piece ─> ASKED ── PIECE ─> READY ── take ─> SENT ── ack or time ─> ask again
 *              until the peer's log reaches base [an ordinary ack]
 *   follower   each piece: kept beside the log by the caller, acked when durable [INSTALL_STORED]
 *              whole and checked [INSTALL] -> no block is taken, no vote asked for -> durable [INSTALLED]: log = {base}
 *
 * - A snapshot is named by what it holds (index, term, checksum): after any break the peer says how much of it it has, and
 *   that is where it goes on, also behind another leader that holds the same one.
 * - A peer is timed by its progress with the pieces, never by the whole, and by nothing else that comes from it (T39).
 *   Unanswered pieces are sent again, later each time, up to RESEND_TIMEOUTS_MAX election timeouts, and at once when a
 *   silent peer is heard again.
 * - What is committed here, or matches, is never replaced: then the snapshot is an acknowledgement of what we hold (T38).
 *   So an install always finds a log that ends before it or contradicts it, and leaves an empty one.
 * - What the snapshot says is committed; every later leader holds it. So it counts as validated in any term from the
 *   sender's on, and v is set to it.
 * - R6: the configuration as of the snapshot comes with INSTALLED.
 * Source: thesis 5, figure 5.3 (which sends the last configuration and discards the log likewise); etcd raft. */
#include "raft/internal.h"

enum {
    RESEND_TIMEOUTS_MAX = 4, /* election timeouts between two sendings of a piece, at most */
    STALL_TIMEOUTS = 32,     /* without any progress for so long an install holds nothing back here */
};

/* --- leading ------------------------------------------------------------------------------------------------------ */

bool raft_install_needed(const struct raft *r, const struct progress *p)
{
    return p->next <= r->log.base_index;
}

static bool is_silent(const struct raft *r, const struct progress *p)
{
    return r->now_ns - p->heard_ns >= r->options.election_timeout_ns_min;
}

bool raft_installs_run(const struct raft *r)
{
    if (r->role != RAFT_LEADER) return false;
    for (uint32_t i = 0; i < r->configuration.count; i++) {
        const struct progress *p = &r->members[i].progress;
        if (r->configuration.members[i].id == r->options.self || p->install.moved_ns == 0) continue;
        if (raft_install_needed(r, p) &&
            r->now_ns - p->install.moved_ns < STALL_TIMEOUTS * r->options.election_timeout_ns_min)
            return true;
    }
    return false;
}

static void send_piece(struct raft *r, uint32_t i, bool bytes, struct raft_effects *fx)
{
    struct progress_install *in = &r->members[i].progress.install;
    struct raft_message m = raft_message_to(r, r->configuration.members[i].id, RAFT_INSTALL);
    m.as.install = (struct raft_install){.snapshot = in->snapshot, .offset = in->offset, .round = r->round};
    raft_emit(fx, &m);
    fx->sends[fx->send_count - 1].loaded = bytes;
    in->piece = PROGRESS_PIECE_SENT;
    uint64_t least = r->options.election_timeout_ns_min, most = RESEND_TIMEOUTS_MAX * least;
    in->resend_after_ns = in->resend_after_ns == 0 ? least : in->resend_after_ns * 2;
    if (in->resend_after_ns > most) in->resend_after_ns = most;
    in->resend_ns = r->now_ns + in->resend_after_ns;
}

void raft_install_send(struct raft *r, uint32_t i, struct raft_effects *fx)
{
    struct progress *p = &r->members[i].progress;
    struct progress_install *in = &p->install;
    if (in->piece != PROGRESS_PIECE_ASKED && in->snapshot.index < p->next) /* it holds that one and needs another */
        *in = (struct progress_install){0};
    if (p->load == PROGRESS_LOAD_READY) p->load = PROGRESS_LOAD_NONE; /* the peer is behind what was loaded */
    if (in->piece == PROGRESS_PIECE_READY) {
        send_piece(r, i, true, fx);
        return;
    }
    if (in->piece == PROGRESS_PIECE_ASKED || p->load == PROGRESS_LOAD_ASKED) return;
    if (in->piece == PROGRESS_PIECE_SENT && r->now_ns < in->resend_ns) return;
    if (r->now_ns < p->pause_until_ns || is_silent(r, p)) return;
    if (in->snapshot.index != 0 && in->offset == in->snapshot.bytes) { /* it has all: how far is it? */
        send_piece(r, i, false, fx);
        return;
    }
    in->piece = PROGRESS_PIECE_ASKED;
    fx->pieces[fx->piece_count++] = (struct raft_piece){.peer = r->configuration.members[i].id,
                                                        .index = in->snapshot.index,
                                                        .checksum = in->snapshot.checksum,
                                                        .offset = in->offset};
}

static bool same_snapshot(const struct raft_snapshot *a, const struct raft_snapshot *b)
{
    return a->index == b->index && a->term == b->term && a->checksum == b->checksum && a->bytes == b->bytes;
}

void raft_install_piece(struct raft *r, const struct raft_event *event)
{
    uint32_t i = raft_configuration_find(&r->configuration, event->as.piece.peer);
    if (i == r->configuration.count) return;
    struct progress *p = &r->members[i].progress;
    struct progress_install *in = &p->install;
    if (in->piece != PROGRESS_PIECE_ASKED) return;
    in->piece = PROGRESS_PIECE_NONE;
    if (event->as.piece.bytes == 0) {
        p->pause_until_ns = r->now_ns + r->options.heartbeat_ns;
        return;
    }
    if (!raft_install_needed(r, p)) return;
    if (!same_snapshot(&in->snapshot, &event->as.piece.snapshot)) {
        *in = (struct progress_install){.snapshot = event->as.piece.snapshot, .moved_ns = r->now_ns};
        in->offset = event->as.piece.offset;
    }
    if (in->offset != event->as.piece.offset) return; /* the peer has spoken meanwhile */
    in->piece = PROGRESS_PIECE_READY;
}

void raft_install_heard(const struct raft *r, struct progress *p)
{
    if (!is_silent(r, p)) return;
    p->active_since_ns = r->now_ns;
    p->install.resend_ns = r->now_ns;
    p->install.resend_after_ns = 0;
}

int raft_install_acked(struct raft *r, const struct raft_message *m)
{
    const struct raft_install_ack *ack = &m->as.install_ack;
    uint32_t i = raft_configuration_find(&r->configuration, m->from);
    if (i == r->configuration.count) return 0;
    struct progress *p = &r->members[i].progress;
    struct progress_install *in = &p->install;
    raft_install_heard(r, p);
    p->heard_ns = r->now_ns;
    if (in->snapshot.index != ack->index || in->snapshot.checksum != ack->checksum) return 0; /* of another one */
    if (ack->offset > in->snapshot.bytes) return LOCKSTEP_EINVAL;
    /* A peer that has it all and works on it gets on, too. */
    if (ack->offset > in->offset || ack->offset == in->snapshot.bytes) in->moved_ns = r->now_ns;
    if (ack->offset == in->offset) return 0; /* asked again by the clock alone: an echo never makes two of one */
    in->offset = ack->offset;
    in->resend_after_ns = 0;
    if (in->piece == PROGRESS_PIECE_ASKED) return 0; /* that answer is dropped, then the right piece is asked for */
    in->piece = PROGRESS_PIECE_NONE;
    if (in->offset == in->snapshot.bytes) { /* asked how far it is a while from now */
        in->piece = PROGRESS_PIECE_SENT;
        in->resend_ns = r->now_ns + r->options.election_timeout_ns_min;
    }
    return 0;
}

uint64_t raft_install_deadline(const struct raft *r, uint32_t i)
{
    const struct progress *p = &r->members[i].progress;
    if (r->configuration.members[i].id == r->options.self || !raft_install_needed(r, p)) return UINT64_MAX;
    return p->install.piece == PROGRESS_PIECE_SENT && !is_silent(r, p) ? p->install.resend_ns : UINT64_MAX;
}

/* --- following ---------------------------------------------------------------------------------------------------- */

/* Whether our log reaches the snapshot's block, and is the same up to it. EPROTO: it contradicts what is settled. */
static int holds(const struct raft *r, raft_index index, raft_term term, bool *ret)
{
    const struct raft_log *log = &r->log;
    raft_term ours = raft_log_term_at(log, index);
    bool known = index >= log->base_index && index <= log->last_index;
    if (known && ours != term && index <= raft_follow_settled(r)) return LOCKSTEP_EPROTO;
    *ret = index <= r->commit || (known && ours == term);
    return 0;
}

int raft_install_receive(struct raft *r, const struct raft_message *m, struct raft_result *ret)
{
    const struct raft_snapshot *s = &m->as.install.snapshot;
    bool held = false;
    int rc = raft_follow(r, m);
    if (rc == 0) rc = holds(r, s->index, s->term, &held);
    if (rc != 0) return rc;
    raft_follow_round(r, m->as.install.round);
    if (held) {
        raft_follow_validate(r, s->index);
        raft_follow_commit(r, s->index);
        r->ack.due = true;
    } else if (r->installing == 0) {
        ret->install = true;
    }
    return 0;
}

int raft_install_begin(struct raft *r, const struct raft_event *event)
{
    bool held = false;
    int rc = holds(r, event->as.install.index, event->as.install.term, &held);
    if (rc != 0) return rc;
    if (held || r->role == RAFT_LEADER) return LOCKSTEP_EEXIST;
    /* Its term must be durable before the log that begins with it is. */
    if (event->as.install.term > r->persists.durable.term) return LOCKSTEP_EUNAVAILABLE;
    if (r->role != RAFT_FOLLOWER) raft_become_follower(r, r->hard.term, 0);
    r->installing = event->as.install.index;
    return 0;
}

void raft_install_end(struct raft *r, const struct raft_event *event)
{
    raft_index index = event->as.install.index;
    lk_assert(r->installing == index && r->role == RAFT_FOLLOWER);
    lk_assert(index > r->commit);
    raft_log_reset(&r->log, index, event->as.install.term);
    raft_persists_reset(&r->persists, index);
    raft_membership_install(r, event->as.install.configuration_index, event->as.install.configuration);
    r->commit = r->validated = index;
    r->installing = 0;
    r->install_ack_due = false;
    r->ack = (struct ack_due){.due = true, .round = r->ack.round};
    r->must_take = true;
}

void raft_install_take(struct raft *r, struct raft_effects *fx)
{
    if (!r->install_ack_due || r->role != RAFT_FOLLOWER || r->leader == 0) return;
    if (r->persists.durable.term != r->hard.term) return; /* R1: due until then */
    struct raft_message m = raft_message_to(r, r->leader, RAFT_INSTALL_ACK);
    m.as.install_ack = r->install_ack;
    raft_emit(fx, &m);
    r->install_ack_due = false;
}
