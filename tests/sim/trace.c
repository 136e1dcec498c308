/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Which numbers of an event are shown, and how they are called. "#": a checksum. */
static const struct {
    const char *name;
    const char *labels[6];
} kinds[TRACE_KINDS] = {
    [TRACE_NOTHING] = {"nothing", {NULL}},
    [TRACE_START] = {"start", {"boot", "term", "last", "commit"}},
    [TRACE_START_FAILED] = {"start failed", {"error"}},
    [TRACE_POWER_CUT] = {"POWER CUT", {"operation", "in_the_middle"}},
    [TRACE_KILL] = {"KILL", {NULL}},
    [TRACE_EXIT] = {"ends by itself", {"error"}},
    [TRACE_STOP] = {"told to stop", {NULL}},
    [TRACE_TURN] = {"turn", {NULL}},
    [TRACE_WORK] = {"work", {"part"}},
    [TRACE_SEND_VOTE] = {"-> vote", {"to", "pre", "campaign", "last", "last_term", "transfer"}},
    [TRACE_SEND_VOTE_REPLY] = {"-> vote reply", {"to", "pre", "campaign", "granted", "term"}},
    [TRACE_SEND_APPEND] = {"-> append", {"to", "term", "previous", "last", "commit", "#"}},
    [TRACE_SEND_HEARTBEAT] = {"-> heartbeat", {"to", "term", "match", "commit", "round"}},
    [TRACE_SEND_ACK] = {"-> ack", {"to", "term", "durable", "validated", "rejected", "full"}},
    [TRACE_SEND_OTHER] = {"-> frame", {"to", "type", "bytes", "#"}},
    [TRACE_ROLE] = {"role", {"role", "term"}},
    [TRACE_CUT] = {"cut", {"last", "was"}},
    [TRACE_COMMIT] = {"commit", {"index", "term", "#"}},
    [TRACE_APPLY] = {"apply", {"position", "index", "#"}},
    [TRACE_WRITE] = {"write", {"offset", "bytes"}},
    [TRACE_FLUSH] = {"flush", {NULL}},
    [TRACE_FLUSH_FAILED] = {"FLUSH FAILED", {NULL}},
    [TRACE_ASK] = {"asked", {"client", "call", "query", "#"}},
    [TRACE_REFUSED] = {"refused", {"client", "call", "error"}},
    [TRACE_ANSWER] = {"answered", {"client", "call", "error", "index", "position", "code"}},
    [TRACE_OUTCOME] = {"operation ends", {"client", "operation", "known"}},
    [TRACE_LINK_CUT] = {"link cut", {"to"}},
    [TRACE_LINK_HEALED] = {"link healed", {"to"}},
    [TRACE_HANG_UP] = {"hang-up", {"to"}},
    [TRACE_PAUSE] = {"paused", {"ms"}},
    [TRACE_SLOW] = {"slow", {"part", "ms"}},
    [TRACE_WALL_JUMP] = {"wall clock jumps", {"ms", "back"}},
    [TRACE_ARMED] = {"armed", {"power_cut_after", "flush_fails_after"}},
    [TRACE_TRANSFER] = {"transfer asked", {"target", "error"}},
    [TRACE_SNAPSHOT] = {"snapshot", {"position", "error"}},
    [TRACE_MEMBERS] = {"change of members asked", {"kind", "to", "error", "force"}},
    [TRACE_MEMBERS_DONE] = {"change of members ends", {"error", "index"}},
    [TRACE_WIPE] = {"DIRECTORY LOST", {NULL}},
    [TRACE_FULL] = {"disk", {"full", "log_alone"}},
    [TRACE_ROT] = {"ROT", {"where", "number", "offset", "bytes"}},
    [TRACE_ROT_UNDONE] = {"rot undone", {"where"}},
    [TRACE_PULL] = {"pulls", {"from", "term", "previous", "last", "commit", "#"}},
    [TRACE_BEAT] = {"sees a heartbeat", {"from", "term", "commit", "round"}},
    [TRACE_SLOT_ACK] = {"sees an ack", {"from", "term", "durable", "validated", "round"}},
    [TRACE_LOCAL_HANG_UP] = {"local hang-up", {"to"}},
    [TRACE_AWAY] = {"shared memory", {"away"}},
    [TRACE_OBSERVER_KILL] = {"observer killed", {"number", "before_position"}},
    [TRACE_OBSERVER_PAUSE] = {"observer paused", {"number", "ms"}},
    [TRACE_OBSERVER_GONE] = {"observer hears of compaction", {"number", "oldest_position"}},
    [TRACE_OBSERVED] = {"is observed", {"by", "from_position", "to_position", "index", "#"}},
    [TRACE_PHASE] = {"PHASE", {"phase"}},
};

static uint64_t mix(uint64_t hash, uint64_t number)
{
    hash = (hash ^ number) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 29);
}

uint64_t trace_hash(uint64_t before, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    uint64_t hash = mix(before, count), word;
    for (; count >= sizeof word; count -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word); /* lockstep's hosts are little-endian, as its formats are */
        hash = mix(hash, word);
    }
    word = 0;
    if (count > 0) memcpy(&word, at, count);
    return mix(hash, word);
}

static int line_of(const struct trace_event *event, char *line, size_t room)
{
    int used =
        snprintf(line, room, "%4" PRIu64 ".%06" PRIu64 " ", event->now_ns / 1000000000, event->now_ns / 1000 % 1000000);
    if (event->who == TRACE_WORLD)
        used += snprintf(line + used, room - (size_t)used, "-- %s", kinds[event->kind].name);
    else
        used += snprintf(line + used, room - (size_t)used, "n%u %s", event->who + 1u, kinds[event->kind].name);
    for (unsigned i = 0; i < 6 && kinds[event->kind].labels[i] != NULL; i++) {
        const char *label = kinds[event->kind].labels[i];
        if (label[0] == '#')
            used += snprintf(line + used, room - (size_t)used, " #%08" PRIx64, event->numbers[i] & 0xffffffff);
        else if (strcmp(label, "to") == 0 || strcmp(label, "from") == 0)
            used += snprintf(line + used, room - (size_t)used, " %sn%" PRIu64, label[0] == 'f' ? "from " : "",
                             event->numbers[i] + 1);
        else if (strcmp(label, "error") == 0)
            used += snprintf(line + used, room - (size_t)used, " error=%" PRId64, (int64_t)event->numbers[i]);
        else
            used += snprintf(line + used, room - (size_t)used, " %s=%" PRIu64, label, event->numbers[i]);
    }
    return used + snprintf(line + used, room - (size_t)used, "\n");
}

void trace_add(struct trace *trace, uint64_t now_ns, unsigned who, enum trace_kind kind, const uint64_t numbers[6])
{
    struct trace_event *event = &trace->kept[trace->count % TRACE_EVENTS_KEPT];
    trace->count++;
    event->now_ns = now_ns;
    event->who = (uint8_t)who;
    event->kind = (uint8_t)kind;
    memcpy(event->numbers, numbers, sizeof event->numbers);
    uint64_t hash = mix(mix(trace->hash, now_ns), (uint64_t)who << 8 | kind);
    for (unsigned i = 0; i < 6 && kinds[kind].labels[i] != NULL; i++) hash = mix(hash, numbers[i]);
    trace->hash = hash;
    if (trace->print) {
        char line[512];
        line_of(event, line, sizeof line);
        fputs(line, stdout);
    }
}

void trace_tail(const struct trace *trace, int fd)
{
    uint64_t first = trace->count > TRACE_EVENTS_KEPT ? trace->count - TRACE_EVENTS_KEPT : 0;
    for (uint64_t i = first; i < trace->count; i++) {
        char line[512];
        int used = line_of(&trace->kept[i % TRACE_EVENTS_KEPT], line, sizeof line);
        if (write(fd, line, (size_t)used) != used) return;
    }
}
