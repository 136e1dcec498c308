/* SPDX-License-Identifier: Apache-2.0 */
/* sessions.h - exactly-once: which commands of which client were applied, and what they were answered.
 * Replicated state: every function that changes it is called in log order, with what stands in the log alone (positions,
 * log time, session, seq, replies of the machine), so that it is equal on all replicas at equal index.
 * Thread: the machine's. Owns: the table, and a ring of replies; both of a size that is known at the start.
 *
 *   session  {id, last touch, highest seq, which of the W below it were seen}           at most sessions_max
 *   replies  | oldest ... | {session, seq, code, index, position, bytes} | newest |     the last replies_bytes of them
 *
 * E1  A session's id is the position of the command that opened it: unique, and nobody has it before it is committed.
 * E2  Seqs form a set. seq s says that all at or below s - W are answered: what was kept of them goes. A seq at or below
 *     highest - W is refused with EWINDOW, whether it was seen or not. seq 0 is none, and refused.
 * E3  That a seq was seen is known as long as its session lives: it costs a bit, and is never given up for want of room.
 *     Its reply is kept for the last replies_bytes of all replies; later a repetition is told EREPLIED: applied, once.
 * E4  A session that was not touched for expiry_ns of log time ends, at the first block that late. A term's first block
 *     touches every session: a new leader owes its clients the time that finding it took.
 * E5  Full refuses to open (EFULL); nobody is thrown out before its time.
 * E6  Equal states give equal bytes when they are frozen, and equal hashes, also after sessions_read().
 * Why bits apart from replies: being applied once must not depend on room; a reply may.
 * Source: Raft thesis 6.3; RIFL (Lee et al., SOSP 2015). */
#ifndef LOCKSTEP_STATEMACHINE_SESSIONS_H
#define LOCKSTEP_STATEMACHINE_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"
#include "lockstep/machine.h"

enum {
    SESSIONS_WINDOW_MAX = 1024,
    SESSIONS_MAX = 1 << 20,
    SESSIONS_REPLIES_BYTES_MIN = 4096,
};

/* Constants of the group: a replica with others would decide otherwise. */
struct session_limits {
    uint32_t window; /* W: 1..SESSIONS_WINDOW_MAX */
    uint32_t sessions_max;
    uint64_t replies_bytes; /* a power of two; of one reply half of it at most is kept */
    uint64_t expiry_ns;     /* of log time; above 0 */
};

/* Those of a group that asks for no others. */
static inline struct session_limits session_limits_usual(void)
{
    return (struct session_limits){.window = SESSIONS_WINDOW_MAX,
                                   .sessions_max = 65536,
                                   .replies_bytes = 64 << 20,
                                   .expiry_ns = UINT64_C(60000000000)};
}

/* What a command was, or is, answered. */
struct session_answer {
    int error; /* 0 · ENOTFOUND no such session (any more) · EWINDOW (E2) · EREPLIED (E3) · EINVAL seq 0 */
    int32_t code;
    raft_index index;      /* error 0: where the first one stands */
    log_position position; /* error 0 */
    const uint8_t *reply;  /* valid until the table is changed */
    uint32_t reply_bytes;
};

struct sessions;

/* EINVAL: a limit out of range; ENOMEM. Allocates the sum of sessions_max records and buckets, replies_bytes and their
 * buckets (a sixteenth of them): at 65,536 sessions and 64 MiB, 80 MiB, untouched until used. */
int sessions_open(const struct session_limits *limits, struct sessions **ret);
void sessions_close(struct sessions *sessions); /* takes NULL */

/* A block begins: its time is log time from here on; what is due ends. Again for the same block: nothing. */
void sessions_block(struct sessions *sessions, bool first_of_term, uint64_t time_ns);

/* Open the session `id` (E1). EFULL */
int sessions_begin(struct sessions *sessions, log_position id);
/* Touch it; end it. ENOTFOUND */
int sessions_keep(struct sessions *sessions, uint64_t id);
int sessions_end(struct sessions *sessions, uint64_t id);

/* Is (session, seq) to be applied now? True: yes, it counts as seen from here on; sessions_answered() follows. False: no,
 * *ret is its answer. Touches the session. O(1) */
bool sessions_judge(struct sessions *sessions, uint64_t session, uint64_t seq, struct session_answer *ret);
/* What the command just judged was answered; error 0. reply is copied. */
void sessions_answered(struct sessions *sessions, uint64_t session, uint64_t seq, const struct session_answer *answer);

/* What became of (session, seq), changing nothing. True: it was seen, or cannot be any more: *ret says what.
 * False: the session does not know it. */
bool sessions_find(const struct sessions *sessions, uint64_t session, uint64_t seq, struct session_answer *ret);

/* The log time at which the next session ends; UINT64_MAX: there is none. */
uint64_t sessions_due_ns(const struct sessions *sessions);
uint32_t sessions_count(const struct sessions *sessions);
/* Over all sessions, kept up to date; zero for none. */
struct lockstep_hash sessions_hash(const struct sessions *sessions);

/* The whole state as bytes, while commands go on. Freeze it as it is: O(1), but for memory in proportion to the sessions that
 * may be open. Then steps, each of which writes at most so many bytes (of SESSIONS_STEP_BYTES_MIN or more); one that says true
 * has written the last. Then let it go: the bytes are the caller's to free. ENOMEM: it is not frozen. */
enum { SESSIONS_STEP_BYTES_MIN = 256 };
int sessions_freeze(struct sessions *sessions);
bool sessions_freeze_step(struct sessions *sessions, uint64_t bytes);
uint8_t *sessions_thaw(struct sessions *sessions, uint64_t *ret_bytes);
/* Replace the state of an empty table. ECORRUPT; EVERSION: newer; EFOREIGN: other limits. On error it is empty. */
int sessions_read(struct sessions *sessions, const uint8_t *from, uint64_t bytes);

#endif
