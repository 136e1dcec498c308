/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_raft.c - any sequence of messages and events at one core: whatever peers say, no assertion of the core may
 * answer it. Numbers are drawn small, so that terms and indexes meet. EPROTO ends a run, as it ends a process. */
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "raft/raft.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { SELF = 1, BLOCK_BYTES = 100, ENTRIES_MAX = 8 };

static const uint8_t *at, *end;
static uint8_t memory[4 << 20] __attribute__((aligned(16)));
static struct raft_effects effects;
static uint64_t newest_seq;
static raft_index ring_first;
static struct raft_load load; /* peer 0 = none */

static uint64_t draw(uint64_t below)
{
    return at < end ? *at++ % below : 0;
}

/* Mostly small; now and then as large as it gets. */
static uint64_t number(void)
{
    uint64_t n = draw(256);
    return n < 240 ? n % 12 : n < 248 ? 100 + n : UINT64_MAX - (n % 4);
}

static uint64_t pack(void *context, raft_index first, raft_index last, uint64_t budget, raft_index *ret_last)
{
    (void)context;
    if (first < ring_first) return 0;
    raft_index to = first + (budget > 8 * BLOCK_BYTES ? 7 : budget / BLOCK_BYTES);
    *ret_last = to < last ? to : last;
    return (*ret_last - first + 1) * BLOCK_BYTES;
}

static void fill(struct raft_message *m)
{
    memset(m, 0, sizeof *m);
    m->type = (uint8_t)draw(RAFT_MESSAGE_TYPES + 2);
    m->from = draw(6);
    m->to = draw(16) == 0 ? 2 : SELF;
    m->term = number();
    switch ((enum raft_message_type)m->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        m->as.vote.campaign_term = draw(8) == 0 ? number() : m->term + (m->type == RAFT_PREVOTE);
        m->as.vote.last_index = number();
        m->as.vote.last_term = number();
        m->as.vote.transfer = draw(2);
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
        m->as.vote_reply.campaign_term = number();
        m->as.vote_reply.granted = draw(4) != 0;
        break;
    case RAFT_APPEND:
        m->as.append.previous_index = number();
        m->as.append.previous_term = number();
        m->as.append.last_index = m->as.append.previous_index + draw(ENTRIES_MAX + 1);
        m->as.append.commit = number();
        m->as.append.round = number();
        break;
    case RAFT_HEARTBEAT:
        m->as.heartbeat.match_index = number();
        m->as.heartbeat.match_term = number();
        m->as.heartbeat.commit = number();
        m->as.heartbeat.round = number();
        break;
    case RAFT_ACK:
        m->as.ack.durable_index = number();
        m->as.ack.validated_index = number();
        m->as.ack.rejected_index = number();
        m->as.ack.hint_index = number();
        m->as.ack.hint_term = number();
        m->as.ack.round = number();
        m->as.ack.rejected = draw(2);
        m->as.ack.full = draw(4) == 0;
        break;
    default: break;
    }
}

static void take(struct raft *r, uint64_t now_ns)
{
    raft_take(r, now_ns, &effects);
    raft_check(r);
    lk_assert(effects.send_count <= RAFT_SENDS_MAX && effects.load_count <= RAFT_MEMBERS_MAX);
    if (effects.persist_seq != 0) newest_seq = effects.persist_seq;
    if (effects.load_count > 0) load = effects.loads[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    at = bytes;
    end = bytes + count;
    newest_seq = 0;
    load.peer = 0;
    ring_first = 1;
    uint64_t now_ns = 1;
    /* drawn one by one: the order within an initializer is the compiler's choice */
    raft_index last = draw(8), commit = draw(last + 1);
    raft_member vote = draw(4);
    uint64_t seed = draw(256);
    uint8_t third = draw(8) ? RAFT_VOTER : RAFT_LEARNER;
    struct raft_term_run runs[] = {{1, 1}, {4, 3}};
    struct raft_options options = {
        .self = SELF,
        .election_timeout_ns_min = 100,
        .heartbeat_ns = 20,
        .append_bytes_max = 3 * BLOCK_BYTES,
        .append_inflight_bytes_max = 9 * BLOCK_BYTES,
        .uncommitted_bytes_max = 20 * BLOCK_BYTES,
        .random_seed = seed,
        .blocks_pack = pack,
    };
    struct raft_start start = {
        .hard_state = {.term = 3, .vote = vote},
        .last_index = last,
        .commit = commit,
        .runs = runs,
        .run_count = last == 0  ? 0
                     : last < 4 ? 1
                                : 2,
        .configuration = {.count = 3, .members = {{1, RAFT_VOTER}, {2, RAFT_VOTER}, {3, third}}},
    };
    struct raft *r = raft_open(memory, &options, &start, now_ns);
    while (at < end) {
        struct raft_event event = {.now_ns = now_ns};
        struct raft_message message;
        struct raft_entry entries[ENTRIES_MAX];
        struct raft_result result;
        switch (draw(16)) {
        case 0:
        case 1:
            now_ns += draw(256);
            event.now_ns = now_ns;
            event.type = RAFT_EVENT_TIME;
            break;
        case 2:
            event.type = RAFT_EVENT_PERSISTED;
            event.as.persisted.seq = newest_seq - draw(newest_seq + 1 < 3 ? newest_seq + 1 : 3);
            break;
        case 3:
            if (!raft_is_leader(r)) continue;
            event.type = RAFT_EVENT_PROPOSE;
            event.as.propose.index = raft_last_index(r) + 1;
            event.as.propose.bytes = BLOCK_BYTES;
            break;
        case 4: event.type = RAFT_EVENT_READ; break;
        case 5:
            event.type = RAFT_EVENT_TRANSFER;
            event.as.transfer.target = draw(5);
            break;
        case 6:
            event.type = RAFT_EVENT_CONTACT;
            event.as.contact.from = draw(4);
            event.as.contact.term = number();
            break;
        case 7:
            if (load.peer == 0) {
                if (ring_first <= raft_commit_index(r)) ring_first += draw(3); /* blocks went to the log */
                if (ring_first > raft_commit_index(r) + 1) ring_first = raft_commit_index(r) + 1;
                continue;
            }
            event.type = RAFT_EVENT_LOADED;
            event.as.loaded.peer = load.peer;
            event.as.loaded.first = load.first;
            event.as.loaded.last = draw(4) == 0 ? load.first - 1 : load.first;
            event.as.loaded.bytes = BLOCK_BYTES;
            load.peer = 0;
            break;
        case 8:
            if (draw(64) != 0) continue;
            event.type = RAFT_EVENT_DISK_FAILED;
            break;
        case 9:
            event.type = RAFT_EVENT_HANGUP;
            event.as.hangup.from = draw(6);
            break;
        default:
            event.type = RAFT_EVENT_MESSAGE;
            fill(&message);
            event.as.message.message = &message;
            event.as.message.entries = entries;
            event.as.message.room_bytes = draw(4) == 0 ? draw(4) * BLOCK_BYTES : UINT64_MAX;
            if (message.type == RAFT_APPEND) {
                raft_term term = message.as.append.previous_term;
                event.as.message.entry_count = (uint32_t)draw(ENTRIES_MAX);
                for (uint32_t i = 0; i < event.as.message.entry_count; i++) {
                    term += draw(4) == 0;
                    entries[i] = (struct raft_entry){message.as.append.previous_index + 1 + i, term, BLOCK_BYTES, NULL};
                }
            }
        }
        raft_step(r, &event, &result);
        if (result.error == LOCKSTEP_EPROTO) return 0;
        raft_check(r);
        if (result.cut != 0) lk_assert(result.cut > raft_commit_index(r) || result.cut == result.accept_first);
        bool turn_ends = draw(2) == 0;
        if (turn_ends || raft_must_take(r)) take(r, now_ns);
    }
    return 0;
}
