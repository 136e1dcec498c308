/* SPDX-License-Identifier: Apache-2.0 */
/* lives.h - what a node does to its storage, by a seed, and what may be found there after any crash.
 *
 * The promise is the list of what was submitted, one step a hard state or a block, in order. After any crash the log and
 * the hard state have to be those after some prefix of it, and at least after what was reported durable: so nothing that
 * was acknowledged is lost (R7), nothing that was truncated returns (T50), no vote goes back (T1), and no half of a
 * frame is seen (T53). What LMDB held before, it holds after.
 *
 * Snapshots are taken and the log is compacted behind them; what is found is then compared from the base on, and the
 * snapshot's bytes must be those of its block (T43). A leader's snapshot may take the place of the whole log, at most once a
 * life: from the moment it was asked for the log may be empty behind it, from the moment it was reported it must be, and
 * nothing of the old log comes back, however much of the journal was not flushed (J4, T38, T40, T50).
 *
 * A promise changes by notes alone: who holds the notes that were made up to some moment knows what was promised then.
 * Over any disk: the simulated one (tests/unit/storage/test_crash.c), the real one (tests/powercut). What must not be is told
 * on stderr and aborts. One thread. */
#ifndef LOCKSTEP_TESTS_SUPPORT_LIVES_H
#define LOCKSTEP_TESTS_SUPPORT_LIVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random.h"
#include "tests/support/store.h"

enum { LIVES_LOG_MAX = 4096, LIVES_STEPS_MAX = 16384, LIVES_CONTENT_BYTES_MAX = 4096 };

/* One step of what was submitted. */
struct lives_step {
    raft_index index; /* 0 = a hard state */
    uint32_t crc;
    struct storage_hard_state hard_state;
    uint64_t seq; /* of its persist */
    bool install; /* the log is empty behind index */
};

/* What an opened storage shows. */
struct lives_view {
    raft_index base, last, stored, commit;
    struct storage_hard_state hard_state;
    uint32_t crcs[LIVES_LOG_MAX];
};

enum lives_note_type {
    LIVES_OPENED = 1, /* view: durable from now on */
    LIVES_STEP,
    LIVES_ACKED,         /* acked_count: so many steps of this life are durable */
    LIVES_COMMIT,        /* commit: as far as blocks may be in LMDB */
    LIVES_INSTALL_ASKED, /* install: it may take the place of the log */
    LIVES_INSTALL_DONE,  /* it has, durably */
};

struct lives_note {
    enum lives_note_type type;
    union {
        struct lives_step step;
        uint32_t acked_count;
        raft_index commit;
        struct block_base install;
        struct lives_view view;
    };
};

struct lives_promise {
    struct lives_view opened; /* what was durable when the life began */
    struct lives_step steps[LIVES_STEPS_MAX];
    uint32_t step_count, acked_count;
    raft_index commit;
    struct {
        struct block_base base;
        bool asked, done;
        uint32_t steps_before; /* when it was done */
    } install;
};

/* The promise after one more note. False: what was opened (`why` says what) is not what may be found; nothing changes. */
bool lives_promise_take(struct lives_promise *promise, const struct lives_note *note, char *why, size_t why_room);
/* How many of a note's bytes say something. */
size_t lives_note_bytes(const struct lives_note *note);

/* What the lives went through, so that a test that reaches nothing does not pass. */
struct lives_counts {
    uint64_t snapshots, installs, resumed, frames, packs, refusals;
};

struct lives {
    struct store *store;
    struct random *dice;
    struct lives_promise *promise;
    /* Is told each note, after the promise has taken it. May be NULL. */
    void (*noted)(void *context, const struct lives_note *note);
    void *context;
    struct lives_counts counts;

    /* private */
    struct {
        uint32_t term, cut, commit, republish, log, journal, idle, append, snapshot, install, block_bytes_max;
    } mood;                                      /* weights: how this life goes; each makes other states likely */
    struct block_base known[LIVES_LOG_MAX + 64]; /* what a block's base is, by index: of the version submitted last */
    struct storage_snapshot offered;             /* the leader's, of this life; index 0 = none */
    raft_term durable_term;
};

/* Options of the store that make small things large: pieces of 512 bytes, a few blocks kept. */
void lives_options(struct store *store);
/* What the storage that was just opened shows, all of it checked: blocks, chain, term runs, the snapshot's bytes. */
void lives_read(struct lives *lives, struct lives_view *view);
/* The storage was opened: note what it shows, and begin a life in a mood by the dice. Aborts when it is not what was promised. */
void lives_begin(struct lives *lives);
/* One thing that a node does, by the dice. */
void lives_turn(struct lives *lives);
/* Submit blocks first..the last one (0: none), and the store's hard state if with_hard_state. */
void lives_persist(struct lives *lives, raft_index first, bool with_hard_state);
/* Take notice of what has become durable. */
void lives_note_acked(struct lives *lives);
/* Room for another turn. */
bool lives_goes_on(const struct lives *lives);
/* Before the storage is closed: what this life reached, into counts. */
void lives_end(struct lives *lives);

#endif
