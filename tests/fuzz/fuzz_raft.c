/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_raft.c - any sequence of messages and events at one core: whatever peers say, no assertion of the core may
 * answer it; blocks carry configurations, sane or not, and snapshots are offered, taken and compacted to. What the caller
 * promises the core is kept: it checks configurations, plans changes, answers what it is asked. Numbers are drawn small, so that terms and indexes meet. EPROTO ends a run, as it ends a process. */
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
static struct raft_load load;   /* peer 0 = none */
static struct raft_piece piece; /* likewise */
static struct raft_snapshot offered;
static bool installing;
static struct raft_configuration configurations[ENTRIES_MAX];

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

/* Some members with any roles: mostly a configuration, not always one that may follow. */
static void draw_configuration(struct raft_configuration *ret)
{
    ret->count = 1 + (uint32_t)draw(6);
    for (uint32_t i = 0; i < ret->count; i++) {
        ret->members[i].id = draw(32) == 0 ? draw(4) : i + 1;
        ret->members[i].role = (uint8_t)(draw(4) != 0 ? RAFT_VOTER : draw(7));
        ret->members[i].priority = (uint8_t)draw(3);
    }
}

/* As the one in force, or what it leads to, with another learner or priority. */
static void draw_next_configuration(const struct raft *r, struct raft_configuration *ret)
{
    raft_configuration_read(r, false, ret);
    if (draw(2) == 0) raft_configuration_leave(ret, ret);
    for (uint32_t i = 0; i < ret->count; i++) {
        if (draw(4) == 0) ret->members[i].priority = (uint8_t)draw(3);
        if (draw(8) == 0) ret->members[i].role = (uint8_t)(1 + draw(5));
    }
    if (draw(4) == 0 && ret->count < RAFT_MEMBERS_MAX) {
        ret->members[ret->count].id = 1 + draw(20);
        ret->members[ret->count].priority = 0;
        ret->members[ret->count++].role = RAFT_LEARNER;
    }
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
    case RAFT_INSTALL:
        m->as.install.snapshot.index = number();
        m->as.install.snapshot.term = number();
        m->as.install.snapshot.bytes = draw(4);
        m->as.install.offset = draw(5);
        m->as.install.round = number();
        break;
    case RAFT_INSTALL_ACK:
        m->as.install_ack.index = number();
        m->as.install_ack.offset = draw(5);
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
    if (effects.piece_count > 0) piece = effects.pieces[0];
}

/* A leader changes members, or goes on with a change; false if it may not. */
static bool draw_change(struct raft *r, uint64_t now_ns, struct raft_event *event)
{
    static struct raft_configuration next;
    struct raft_configuration target;
    raft_member about;
    if (raft_must_take(r)) return false;
    take(r, now_ns); /* what it asks for now */
    if (effects.leave_joint) {
        raft_configuration_read(r, false, &target);
        raft_configuration_leave(&target, &next);
    } else {
        bool forced = draw(2);
        if (draw(2) == 0)
            draw_configuration(&target);
        else
            draw_next_configuration(r, &target);
        if (raft_change_plan(r, &target, forced, &next, &about) != RAFT_CHANGE_MAY) return false;
    }
    event->type = RAFT_EVENT_PROPOSE;
    event->as.propose.index = raft_last_index(r) + 1;
    event->as.propose.bytes = BLOCK_BYTES;
    event->as.propose.configuration = &next;
    return true;
}

/* The log is compacted, a snapshot goes out or comes in; false if nothing of that is to be said now. */
static bool draw_snapshot(struct raft *r, struct raft_event *event)
{
    struct raft_status status;
    static struct raft_configuration installed;
    raft_status_read(r, &status);
    struct raft_snapshot newest = {.index = status.base_index, .term = raft_term_at(r, status.base_index), .bytes = 3};
    switch (draw(4)) {
    case 0:
        if (installing || status.commit == status.base_index || status.durable_index < status.commit) return false;
        event->type = RAFT_EVENT_COMPACTED;
        event->as.compacted.index = status.base_index + 1 + draw(status.commit - status.base_index);
        if (ring_first <= event->as.compacted.index) ring_first = event->as.compacted.index + 1;
        return true;
    case 1:
        if (piece.peer == 0 || newest.index == 0) return false;
        event->type = RAFT_EVENT_PIECE;
        event->as.piece.peer = piece.peer;
        event->as.piece.snapshot = newest;
        event->as.piece.offset = piece.index == newest.index && piece.offset < 3 ? piece.offset : 0;
        event->as.piece.bytes = draw(4) != 0;
        piece.peer = 0;
        return true;
    case 2:
        if (offered.index == 0 || installing) return false;
        event->type = RAFT_EVENT_INSTALL_STORED;
        event->as.install_stored.index = offered.index;
        event->as.install_stored.offset = draw(4);
        return true;
    default:
        if (offered.index == 0) return false;
        event->type = installing ? RAFT_EVENT_INSTALLED : RAFT_EVENT_INSTALL;
        event->as.install.index = offered.index;
        event->as.install.term = offered.term;
        if (!installing) return true;
        do draw_configuration(&installed);
        while (at < end && !raft_configuration_is_valid(&installed));
        if (!raft_configuration_is_valid(&installed))
            installed = (struct raft_configuration){.count = 1, .members = {{1, RAFT_VOTER, 0}}};
        event->as.install.configuration = &installed;
        event->as.install.configuration_index = draw(offered.index + 1);
        if (ring_first <= offered.index) ring_first = offered.index + 1;
        installing = false;
        offered.index = 0;
        return true;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    at = bytes;
    end = bytes + count;
    newest_seq = 0;
    load.peer = piece.peer = 0;
    offered.index = 0;
    installing = false;
    ring_first = 1;
    uint64_t now_ns = 1;
    /* drawn one by one: the order within an initializer is the compiler's choice */
    raft_index last = draw(8), commit = draw(last + 1);
    raft_member vote = draw(4);
    uint64_t seed = draw(256);
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
    };
    draw_configuration(&start.configuration);
    if (!raft_configuration_is_valid(&start.configuration) || draw(4) != 0) {
        uint8_t third = draw(8) ? RAFT_VOTER : RAFT_LEARNER;
        start.configuration =
            (struct raft_configuration){.count = 3, .members = {{1, RAFT_VOTER, 0}, {2, RAFT_VOTER, 0}, {3, third, 0}}};
    }
    start.configuration_index = draw(last + 1);
    if (start.configuration_index > commit) { /* the one before it: itself with another priority will do */
        start.configuration_before = start.configuration;
        start.configuration_before.members[0].priority++;
        if (raft_configuration_is_joint(&start.configuration)) start.configuration_before.count = 0;
        start.configuration_before_index = draw(start.configuration_index);
    }
    struct raft *r = raft_open(memory, &options, &start, now_ns);
    while (at < end) {
        struct raft_event event = {.now_ns = now_ns};
        struct raft_message message;
        struct raft_entry entries[ENTRIES_MAX];
        struct raft_result result;
        switch (draw(18)) {
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
            event.type = draw(64) == 0  ? RAFT_EVENT_DISK_FAILED
                         : draw(2) == 0 ? RAFT_EVENT_ABSTAIN
                                        : RAFT_EVENT_STAND_BACK;
            if (event.type == RAFT_EVENT_ABSTAIN) event.as.abstain.abstains = draw(4) == 0;
            if (event.type == RAFT_EVENT_STAND_BACK) event.as.stand_back.stands_back = draw(4) == 0;
            break;
        case 16:
            if (!draw_change(r, now_ns, &event)) continue;
            break;
        case 17:
            if (!draw_snapshot(r, &event)) continue;
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
                    if (draw(8) != 0) continue;
                    if (draw(8) == 0)
                        draw_configuration(&configurations[i]);
                    else
                        draw_next_configuration(r, &configurations[i]);
                    entries[i].configuration = &configurations[i];
                }
            }
        }
        raft_step(r, &event, &result);
        if (event.type == RAFT_EVENT_INSTALL) installing = result.error == 0;
        if (event.type == RAFT_EVENT_INSTALL && result.error != 0) offered.index = 0;
        if (result.install && !installing) offered = message.as.install.snapshot;
        if (result.error == LOCKSTEP_EPROTO) return 0;
        raft_check(r);
        if (result.cut != 0) lk_assert(result.cut > raft_commit_index(r) || result.cut == result.accept_first);
        bool turn_ends = draw(2) == 0;
        if (turn_ends || raft_must_take(r)) take(r, now_ns);
    }
    return 0;
}
