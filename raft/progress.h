/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h - what a leader knows of one peer's log, and what it may send next.
 * Thread: the core's. Owns: the window of appends in flight, the state of an install.
 *
 *   1 .. match | sent, not durable there .. next - 1 | not sent .. last_index
 *
 *            the peer holds next - 1 [raft_progress_ack]
 *   PROBE ------------------------------------------> REPLICATE
 *     ^  one block at a time, then wait                   | appends flow, bounded by bytes and count in flight
 *     +---------------------------------------------------+
 *       refused [progress_refused], lost [progress_lost], full [progress_full]
 *
 * Where next is at or below the log's base only a snapshot helps: install (snapshot.c), until an ack says that the peer
 * holds enough. PROBE and REPLICATE are what it comes back to.
 *
 * Invariants: match < next; PROBE has nothing in the window; bytes = sum of the window.
 * Loss: a heartbeat that leaves while blocks are not durable there sets a mark (what was sent, and the round after
 * the heartbeat's). An ack of that round that has not seen the marked block means that it was lost; an ack that has
 * seen it means a slow disk. One round of grace, because a heartbeat may overtake an append (T24).
 * After a silence of an election timeout the first ack is enough.
 * Source: etcd raft's tracker; thesis 10.2.1. */
#ifndef LOCKSTEP_RAFT_PROGRESS_H
#define LOCKSTEP_RAFT_PROGRESS_H

#include "raft/log.h"
#include "raft/raft.h"

enum { PROGRESS_WINDOW_MAX = 256 }; /* appends in flight; blocks that find it full leave together in one append */

enum progress_load { PROGRESS_LOAD_NONE, PROGRESS_LOAD_ASKED, PROGRESS_LOAD_READY };

enum progress_piece {
    PROGRESS_PIECE_NONE,  /* to be asked for */
    PROGRESS_PIECE_ASKED, /* being read */
    PROGRESS_PIECE_READY, /* leaves with the next take */
    PROGRESS_PIECE_SENT,  /* on its way, until an ack or resend_ns */
};

/* A snapshot on its way to the peer, one piece at a time. */
struct progress_install {
    struct raft_snapshot snapshot; /* index 0 = none was chosen yet */
    uint64_t offset;               /* the peer holds so much of it */
    uint8_t piece;                 /* enum progress_piece */
    uint64_t resend_ns, resend_after_ns;
    uint64_t moved_ns; /* when offset last moved; 0 = never */
};

struct progress {
    raft_index match; /* durable there */
    raft_index next;  /* first block not sent */
    uint64_t heard_ns;
    uint64_t active_since_ns; /* never silent for an election timeout since then */
    uint64_t round;           /* newest one answered */
    uint64_t born_round;      /* R11: its membership began with this one; 0 = before our leadership */

    raft_index mark_index; /* was sent before round mark_round - 1 */
    uint64_t mark_round;   /* 0 = no mark */

    uint64_t pause_until_ns; /* nothing is sent before; 0 = no pause */
    uint64_t backoff_ns;

    raft_index load_first, load_last;
    uint64_t load_bytes;
    uint8_t load;  /* enum progress_load */
    uint8_t state; /* PROBE or REPLICATE */
    bool probe_sent;

    struct progress_install install;

    uint32_t window_head, window_count;
    uint64_t window_bytes;
    struct {
        raft_index last_index;
        uint64_t bytes;
    } window[PROGRESS_WINDOW_MAX];
};

/* A new leader knows nothing: PROBE at next. */
void raft_progress_open(struct progress *p, raft_index next, uint64_t now_ns);

/* Whether an append may leave now, bytes aside. */
bool raft_progress_may_send(const struct progress *p, uint64_t now_ns);
/* How many bytes the next append may have; at least one block may always be sent when nothing is in flight. */
uint64_t raft_progress_budget(const struct progress *p, const struct raft_options *options);
/* An append of next..last_index left. */
void raft_progress_sent(struct progress *p, raft_index last_index, uint64_t bytes);
/* A heartbeat of this round left. */
void raft_progress_heartbeat(struct progress *p, uint64_t round);

/* An ack of the current term came. */
void raft_progress_ack(struct progress *p, const struct raft_ack *ack, const struct raft_log *log,
                       const struct raft_options *options, uint64_t now_ns);
/* Blocks load_first..last lie in the load buffer, or could not be read (last < load_first). */
void raft_progress_loaded(struct progress *p, raft_index first, raft_index last, uint64_t bytes, uint64_t retry_at_ns);

void raft_progress_check(const struct progress *p, raft_index last_index);

#endif
