/* SPDX-License-Identifier: Apache-2.0 */
/* progress.c - see progress.h. */
#include "raft/progress.h"

#include "base/assert.h"

static raft_index index_max(raft_index a, raft_index b)
{
    return a > b ? a : b;
}

static void to_probe(struct progress *p, raft_index next)
{
    p->state = RAFT_PROGRESS_PROBE;
    p->next = index_max(next, p->match + 1);
    p->probe_sent = false;
    p->mark_round = 0;
    p->window_head = p->window_count = 0;
    p->window_bytes = 0;
}

void raft_progress_open(struct progress *p, raft_index next, uint64_t now_ns)
{
    p->match = 0;
    p->heard_ns = p->active_since_ns = now_ns;
    p->round = p->born_round = 0;
    p->pause_until_ns = p->backoff_ns = 0;
    /* a piece, or load, that was asked for will still be answered */
    p->install = (struct progress_install){.piece = p->install.piece == PROGRESS_PIECE_ASKED ? PROGRESS_PIECE_ASKED
                                                                                             : PROGRESS_PIECE_NONE};
    if (p->load == PROGRESS_LOAD_READY) p->load = PROGRESS_LOAD_NONE;
    to_probe(p, next);
}

bool raft_progress_may_send(const struct progress *p, uint64_t now_ns)
{
    if (now_ns < p->pause_until_ns || p->load != PROGRESS_LOAD_NONE) return false;
    return p->state == RAFT_PROGRESS_PROBE ? !p->probe_sent : p->window_count < PROGRESS_WINDOW_MAX;
}

uint64_t raft_progress_budget(const struct progress *p, const struct raft_options *options)
{
    if (p->state == RAFT_PROGRESS_PROBE) return 1; /* one block: it may be refused */
    if (p->window_bytes >= options->append_inflight_bytes_max) return 0;
    uint64_t left = options->append_inflight_bytes_max - p->window_bytes;
    return left < options->append_bytes_max ? left : options->append_bytes_max;
}

void raft_progress_sent(struct progress *p, raft_index last_index, uint64_t bytes)
{
    lk_assert(last_index >= p->next);
    if (p->state == RAFT_PROGRESS_PROBE) {
        p->probe_sent = true; /* next stays: only an answer moves it */
        return;
    }
    lk_assert(p->window_count < PROGRESS_WINDOW_MAX);
    uint32_t at = (p->window_head + p->window_count++) % PROGRESS_WINDOW_MAX;
    p->window[at].last_index = last_index;
    p->window[at].bytes = bytes;
    p->window_bytes += bytes;
    p->next = last_index + 1;
}

void raft_progress_heartbeat(struct progress *p, uint64_t round)
{
    bool outstanding = p->state == RAFT_PROGRESS_PROBE ? p->probe_sent : p->next - 1 > p->match;
    if (!outstanding || p->mark_round != 0) return;
    p->mark_index = p->next - 1;
    p->mark_round = round + 1;
}

static void window_release(struct progress *p)
{
    while (p->window_count > 0 && p->window[p->window_head].last_index <= p->match) {
        p->window_bytes -= p->window[p->window_head].bytes;
        p->window_head = (p->window_head + 1) % PROGRESS_WINDOW_MAX;
        p->window_count--;
    }
}

/* The peer's ring had no room: it dropped the payload. Probe again, each time later, until it takes something. */
static void progress_full(struct progress *p, const struct raft_ack *ack, const struct raft_options *options,
                          uint64_t now_ns)
{
    if (now_ns < p->pause_until_ns) return; /* appends that were on their way when the first one was dropped */
    p->backoff_ns = p->backoff_ns == 0 ? options->heartbeat_ns / 4 + 1 : p->backoff_ns * 2;
    if (p->backoff_ns > options->election_timeout_ns_min) p->backoff_ns = options->election_timeout_ns_min;
    p->pause_until_ns = now_ns + p->backoff_ns;
    to_probe(p, ack->validated_index + 1);
}

static void progress_refused(struct progress *p, const struct raft_ack *ack, const struct raft_log *log)
{
    if (ack->rejected_index <= p->match) return; /* what it refused it holds by now: an old message */
    if (p->state == RAFT_PROGRESS_PROBE && ack->rejected_index != p->next - 1) return; /* answers an older probe */
    if (ack->rejected_index >= p->next) return;                                        /* of an older sending */
    raft_index fits = ack->hint_index < ack->rejected_index ? ack->hint_index : ack->rejected_index - 1;
    fits = raft_log_last_at_or_below(log, fits, ack->hint_term);
    to_probe(p, index_max(fits, ack->validated_index) + 1);
}

static void progress_lost(struct progress *p, const struct raft_ack *ack)
{
    if (p->state == RAFT_PROGRESS_PROBE)
        p->probe_sent = false; /* the same probe again */
    else
        to_probe(p, ack->validated_index + 1);
}

void raft_progress_ack(struct progress *p, const struct raft_ack *ack, const struct raft_log *log,
                       const struct raft_options *options, uint64_t now_ns)
{
    bool was_silent = now_ns - p->heard_ns >= options->election_timeout_ns_min;
    lk_assert(p->match < p->next);
    lk_assert(ack->durable_index <= ack->validated_index && ack->validated_index <= log->last_index);
    p->heard_ns = now_ns;
    if (p->round < ack->round) p->round = ack->round;
    if (p->match < ack->durable_index) p->match = ack->durable_index; /* old and repeated acks are normal */
    window_release(p);

    if (p->state == RAFT_PROGRESS_PROBE) {
        bool took = ack->validated_index >= p->next, fits = ack->validated_index >= p->next - 1;
        if (took) p->backoff_ns = p->pause_until_ns = 0;
        if (took ||
            (fits && !p->probe_sent && p->pause_until_ns == 0)) { /* else the block is on its way, or unwelcome */
            p->state = RAFT_PROGRESS_REPLICATE;
            p->mark_round = 0;
        }
    }
    p->next = index_max(p->next, index_max(p->match, ack->validated_index) + 1);

    if (ack->full)
        progress_full(p, ack, options, now_ns);
    else if (ack->rejected)
        progress_refused(p, ack, log);
    else if (was_silent && (p->state == RAFT_PROGRESS_PROBE || ack->validated_index < p->next - 1))
        progress_lost(p, ack); /* it was away: what was sent meanwhile went nowhere */
    else if (p->mark_round != 0 && ack->round >= p->mark_round) {
        p->mark_round = 0;
        if (p->state == RAFT_PROGRESS_PROBE || ack->validated_index < p->mark_index) progress_lost(p, ack);
    }
    lk_assert(p->match < p->next);
}

void raft_progress_loaded(struct progress *p, raft_index first, raft_index last, uint64_t bytes, uint64_t retry_at_ns)
{
    lk_assert(p->load == PROGRESS_LOAD_ASKED && p->load_first == first);
    if (last < first || last > p->load_last) {
        p->load = PROGRESS_LOAD_NONE;
        p->pause_until_ns = retry_at_ns;
        return;
    }
    p->load = PROGRESS_LOAD_READY;
    p->load_last = last;
    p->load_bytes = bytes;
}

void raft_progress_check(const struct progress *p, raft_index last_index)
{
    lk_assert(p->match < p->next);
    lk_assert(p->next <= last_index + 1);
    lk_assert(p->state == RAFT_PROGRESS_PROBE || p->state == RAFT_PROGRESS_REPLICATE);
    if (p->state == RAFT_PROGRESS_PROBE) lk_assert(p->window_count == 0);
    uint64_t bytes = 0;
    raft_index before = p->match;
    for (uint32_t i = 0; i < p->window_count; i++) {
        uint32_t at = (p->window_head + i) % PROGRESS_WINDOW_MAX;
        lk_assert(p->window[at].last_index > before);
        before = p->window[at].last_index;
        bytes += p->window[at].bytes;
    }
    lk_assert(before < p->next);
    lk_assert(bytes == p->window_bytes);
}
