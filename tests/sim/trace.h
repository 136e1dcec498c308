/* SPDX-License-Identifier: Apache-2.0 */
/* trace.h - what happened in a simulated world: one hash over all of it, and the last events as lines for people.
 * An event is a kind and a few numbers, so that it costs nanoseconds: they become text only when somebody reads them.
 * Two runs are the same run if and only if their hashes agree (but for luck of 2^-64). */
#ifndef LOCKSTEP_TESTS_SIM_TRACE_H
#define LOCKSTEP_TESTS_SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRACE_EVENTS_KEPT = 400, TRACE_WORLD = 99 };

enum trace_kind {
    TRACE_NOTHING,
    TRACE_START,
    TRACE_START_FAILED,
    TRACE_POWER_CUT,
    TRACE_KILL,
    TRACE_EXIT,
    TRACE_STOP,
    TRACE_TURN,
    TRACE_WORK,
    TRACE_SEND_VOTE,
    TRACE_SEND_VOTE_REPLY,
    TRACE_SEND_APPEND,
    TRACE_SEND_HEARTBEAT,
    TRACE_SEND_ACK,
    TRACE_SEND_OTHER,
    TRACE_ROLE,
    TRACE_CUT,
    TRACE_COMMIT,
    TRACE_APPLY,
    TRACE_WRITE,
    TRACE_FLUSH,
    TRACE_FLUSH_FAILED,
    TRACE_ASK,
    TRACE_REFUSED,
    TRACE_ANSWER,
    TRACE_OUTCOME,
    TRACE_LINK_CUT,
    TRACE_LINK_HEALED,
    TRACE_HANG_UP,
    TRACE_PAUSE,
    TRACE_SLOW,
    TRACE_WALL_JUMP,
    TRACE_ARMED,
    TRACE_TRANSFER,
    TRACE_SNAPSHOT,
    TRACE_MEMBERS,
    TRACE_MEMBERS_DONE,
    TRACE_WIPE,
    TRACE_FULL,
    TRACE_ROT,
    TRACE_ROT_UNDONE,
    TRACE_PULL,
    TRACE_BEAT,
    TRACE_SLOT_ACK,
    TRACE_LOCAL_HANG_UP,
    TRACE_AWAY,
    TRACE_OBSERVER_KILL,
    TRACE_OBSERVER_PAUSE,
    TRACE_OBSERVER_GONE,
    TRACE_OBSERVED,
    TRACE_PHASE,
    TRACE_KINDS,
};

struct trace_event {
    uint64_t now_ns;
    uint8_t who, kind;
    uint64_t numbers[6];
};

struct trace {
    uint64_t hash, count;
    bool print; /* every event at once, to stdout */
    struct trace_event kept[TRACE_EVENTS_KEPT];
};

/* The hash of some bytes, the same everywhere. */
uint64_t trace_hash(uint64_t before, const void *bytes, size_t count);

void trace_add(struct trace *trace, uint64_t now_ns, unsigned who, enum trace_kind kind, const uint64_t numbers[6]);
#define trace_event(trace, now_ns, who, kind, ...) trace_add(trace, now_ns, who, kind, (const uint64_t[6]){__VA_ARGS__})

/* The last events to a file descriptor. Allocates nothing: used when the program is dying. */
void trace_tail(const struct trace *trace, int fd);

#endif
