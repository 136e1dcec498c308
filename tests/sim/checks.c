/* SPDX-License-Identifier: Apache-2.0 */
/* checks.c - what must hold after every step, however the faults fell.
 * C1  One leader a term.
 * C2  Log matching: a block is named by (index, term); one such name, one checksum, on every node, at any time. The
 *     checksum covers the one before it, so equal ends are equal logs.
 * C3  What is committed is never another block, on any node, after any crash.
 * C4  Leader completeness: who leads a term has all that was committed in earlier terms.
 * C5  Commit never falls while a process lives.
 * C6  One vote a term, whatever was forgotten in between; the term that a member says never falls.
 * C7  What a node promised to be durable is there after any crash.
 * C8  Equal commands, replies and state at equal positions; a command stands once in the log.
 * C9  A committed block is durable on a majority.
 * C10 What comes out of shared memory was said: a block is one that its leader held, a round one that it asked for, an ack
 *     one that the reader gave to this leader in this term.
 * C11 What an observer is shown are the committed blocks' commands, one behind the other, each once; of a node that has died
 *     also what it alone knew to be committed, if it is so.
 * What is looked at is what is new since the last look, so that the cost is that of the change. Sees the inside of
 * nodes, and changes nothing there. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/client.h"
#include "server/node_internal.h"
#include "storage/table.h"
#include "tests/sim/world.h"

enum { CORE_CHECK_EVERY = 16 };

/* A block that was seen somewhere: (index, term) and its checksum. */
struct block_seen {
    raft_term term;
    uint32_t crc;
    uint32_t next; /* older entry of the same index, + 1; 0 = none */
};

struct block_committed {
    raft_term term;        /* the block's */
    raft_term leader_term; /* in which it was seen committed first */
    uint32_t crc;
};

struct command_applied {
    uint64_t command_hash; /* all of it: index, term, time, payload */
    uint64_t payload_hash;
    uint64_t reply_hash;
    raft_index index;
    struct lockstep_hash state;
    bool there, has_state;
};

/* The most that a node said to another one in a term; and the newest round that a leader asked anybody for. */
struct said {
    raft_member from, to;
    raft_term term;
    raft_index durable, validated;
    uint64_t round;
};
struct asked {
    raft_member from;
    raft_term term;
    uint64_t round;
};

/* A growing array of zeros. */
struct array {
    void *items;
    uint64_t room;
};

/* Number to number; linear probing, key 0 is none. */
struct pair {
    uint64_t key, value;
};
struct map {
    struct pair *pairs;
    uint64_t room, used;
};

struct truth {
    struct array heads; /* uint32_t by index: newest block_seen of the index, + 1 */
    struct array seen;  /* struct block_seen */
    uint32_t seen_count;
    struct array committed; /* struct block_committed by index */
    raft_index committed_last;
    struct array observed; /* uint32_t crc by index: of blocks that nobody else knew to be committed then; 0 = none */
    raft_index observed_last;
    struct array applied; /* struct command_applied by position */
    log_position applied_last;
    struct array leaders;                           /* raft_member by term: who leads */
    struct array votes[SIM_NODES_MAX];              /* raft_member by term */
    raft_term said[SIM_NODES_MAX];                  /* highest term in any message */
    struct said told[SIM_NODES_MAX][SIM_NODES_MAX]; /* acks: from, to */
    struct asked asked[SIM_NODES_MAX];
    struct array chain[SIM_NODES_MAX];       /* uint32_t crc by index: as this node was seen to hold it, in this life */
    struct raft_configuration configuration; /* the newest committed one; empty before the first birth */
    raft_index chain_last[SIM_NODES_MAX];
    struct map attempts; /* payload hash -> how often it may be in the log, minus how often it is */
    struct map queries;  /* (position, query) -> reply hash */
    uint64_t turns;
};

static void *item(struct array *array, uint64_t i, size_t bytes)
{
    if (i >= array->room) {
        uint64_t room = i < 512 ? 1024 : 2 * i;
        array->items = realloc(array->items, room * bytes);
        lk_assert(array->items != NULL);
        memset((uint8_t *)array->items + array->room * bytes, 0, (room - array->room) * bytes);
        array->room = room;
    }
    return (uint8_t *)array->items + i * bytes;
}
#define ITEM(array, i, type) ((type *)item(&(array), (i), sizeof(type)))

static uint64_t *map_find(struct map *map, uint64_t key)
{
    if (key == 0) key = 1;
    if (2 * map->used >= map->room) {
        struct map old = *map;
        map->room = old.room == 0 ? 1024 : 2 * old.room;
        map->used = 0;
        map->pairs = calloc(map->room, sizeof *map->pairs);
        lk_assert(map->pairs != NULL);
        for (uint64_t i = 0; i < old.room; i++)
            if (old.pairs[i].key != 0) *map_find(map, old.pairs[i].key) = old.pairs[i].value;
        free(old.pairs);
    }
    uint64_t at = key & (map->room - 1);
    while (map->pairs[at].key != 0 && map->pairs[at].key != key) at = (at + 1) & (map->room - 1);
    if (map->pairs[at].key == 0) map->used++;
    map->pairs[at].key = key;
    return &map->pairs[at].value;
}

struct truth *truth_open(void)
{
    struct truth *truth = calloc(1, sizeof *truth);
    lk_assert(truth != NULL);
    return truth;
}

void truth_close(struct truth *truth)
{
    free(truth->heads.items);
    free(truth->seen.items);
    free(truth->committed.items);
    free(truth->observed.items);
    free(truth->applied.items);
    free(truth->leaders.items);
    for (unsigned i = 0; i < SIM_NODES_MAX; i++) {
        free(truth->votes[i].items);
        free(truth->chain[i].items);
    }
    free(truth->attempts.pairs);
    free(truth->queries.pairs);
    free(truth);
}

raft_index checks_committed(const struct world *world)
{
    return world->truth->committed_last;
}

/* --- blocks --------------------------------------------------------------------------------------------------- */

/* Block `index` as node m holds it, in the ring or in LMDB. False: it does not (any more). */
static bool block_of(const struct member *m, raft_index index, raft_term *ret_term, uint32_t *ret_crc)
{
    struct ring_slot slot;
    if (ring_find(m->node->ring, index, &slot) == 0) {
        *ret_term = slot.term;
        *ret_crc = slot.header_crc;
        return true;
    }
    size_t bytes;
    struct block_header header;
    const uint8_t *stored = sim_kv_value(m->kv, TABLE_BLOCKS, index, &bytes);
    if (stored == NULL || block_header_read(stored, bytes, &header) != 0) return false;
    *ret_term = header.term;
    *ret_crc = header.header_crc;
    return true;
}

/* C2. True: this very chain was seen on this node before, and so was all below. */
static bool note_block(struct member *m, raft_index index)
{
    struct truth *truth = m->world->truth;
    raft_term term;
    uint32_t crc;
    if (!block_of(m, index, &term, &crc)) return true;
    uint32_t *chain = ITEM(truth->chain[m->i], index, uint32_t);
    if (*chain == crc) return true;
    *chain = crc;
    uint32_t *head = ITEM(truth->heads, index, uint32_t);
    for (uint32_t at = *head; at != 0; at = ITEM(truth->seen, at - 1, struct block_seen)->next) {
        const struct block_seen *seen = ITEM(truth->seen, at - 1, struct block_seen);
        if (seen->term != term) continue;
        if (seen->crc != crc)
            world_violated(m->world, "C2: n%u holds block %llu of term %llu as %08x, somebody else as %08x", m->i + 1,
                           (unsigned long long)index, (unsigned long long)term, crc, seen->crc);
        return false;
    }
    *ITEM(truth->seen, truth->seen_count, struct block_seen) =
        (struct block_seen){.term = term, .crc = crc, .next = *head};
    *head = ++truth->seen_count;
    return false;
}

static void note_log(struct member *m)
{
    raft_index last = raft_last_index(m->node->raft);
    for (raft_index index = last; index > 0 && !note_block(m, index); index--) {
    }
    /* What it held above is gone: should it come back, then on another chain. */
    raft_index *chain_last = &m->world->truth->chain_last[m->i];
    for (; *chain_last > last; (*chain_last)--) *ITEM(m->world->truth->chain[m->i], *chain_last, uint32_t) = 0;
    *chain_last = last;
    if (last < m->seen.last) trace_event(&m->world->trace, m->world->now_ns, m->i, TRACE_CUT, last, m->seen.last);
    m->seen.last = last;
}

/* C9. Whether node m holds the committed block `index` durably, as far as it says; one that is down, as far as it did. */
static bool holds_durably(const struct member *m, raft_index index, uint32_t crc)
{
    bool lives = m->node != NULL && m->node->raft != NULL;
    raft_index durable = lives ? raft_durable_index(m->node->raft) : m->died_durable;
    return durable >= index && *ITEM(m->world->truth->chain[m->i], index, uint32_t) == crc;
}

static raft_index base_of(const struct member *m)
{
    struct raft_status status;
    raft_status_read(m->node->raft, &status);
    return status.base_index;
}

static void note_commit(struct member *m, raft_index index)
{
    struct world *world = m->world;
    struct truth *truth = world->truth;
    raft_term term;
    uint32_t crc;
    struct block_committed *committed = ITEM(truth->committed, index, struct block_committed);
    uint32_t *chain = ITEM(truth->chain[m->i], index, uint32_t);
    if (index <= truth->committed_last && *chain == committed->crc) return;
    if (!block_of(m, index, &term, &crc)) {
        if (index > truth->committed_last || index > base_of(m))
            world_violated(world, "C3: n%u commits block %llu and does not hold it", m->i + 1,
                           (unsigned long long)index);
        *chain = committed->crc; /* it is in the snapshot that was installed */
        return;
    }
    if (index <= truth->committed_last) {
        if (committed->crc != crc || committed->term != term)
            world_violated(world,
                           "C3: n%u commits block %llu of term %llu, %08x; it was committed with term %llu, %08x",
                           m->i + 1, (unsigned long long)index, (unsigned long long)term, crc,
                           (unsigned long long)committed->term, committed->crc);
        return;
    }
    lk_assert(index == truth->committed_last + 1);
    truth->committed_last = index;
    uint32_t observed = *ITEM(truth->observed, index, uint32_t);
    if (observed != 0 && observed != crc)
        world_violated(world, "C11: an observer was shown another block %llu, %08x, than is committed, %08x",
                       (unsigned long long)index, observed, crc);
    *committed = (struct block_committed){.term = term, .leader_term = raft_current_term(m->node->raft), .crc = crc};
    trace_event(&world->trace, world->now_ns, m->i, TRACE_COMMIT, index, term, crc);
}

/* --- configurations ------------------------------------------------------------------------------------------- */

static const struct member *member_of(const struct world *world, raft_member id)
{
    for (unsigned i = 0; i < world->plan.nodes; i++)
        if (world->members[i].id == id) return &world->members[i];
    return NULL; /* its directory is gone */
}

/* Whether the members for whom `has` says yes are a majority: of the old and of the new voters, where it is joint. */
static bool is_majority(const struct world *world, const struct raft_configuration *c,
                        bool (*has)(const struct member *m, raft_index index, uint32_t crc), raft_index index,
                        uint32_t crc)
{
    unsigned before = 0, after = 0, before_has = 0, after_has = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct member *m = member_of(world, c->members[i].id);
        /* Who lost its directory did hold the block, as far as anybody can tell: what it said came before. */
        bool gone = c->members[i].id == world->lost || (world->plan.level == DURABILITY_LEVEL_MEMORY && m == NULL);
        bool lost = has == holds_durably && gone;
        bool yes = lost || (m != NULL && has(m, index, crc));
        uint8_t role = c->members[i].role;
        bool votes_before = role == RAFT_VOTER || role == RAFT_OUTGOING || role == RAFT_LEAVING;
        bool votes_after = role == RAFT_VOTER || role == RAFT_INCOMING;
        before += votes_before;
        before_has += votes_before && yes;
        after += votes_after;
        after_has += votes_after && yes;
    }
    return before_has > before / 2 && after_has > after / 2;
}

static void check_majority(struct member *m, raft_index index)
{
    struct world *world = m->world;
    struct raft_configuration now, committed;
    if (!raft_is_leader(m->node->raft)) return; /* it was told so; what it was told by is gone */
    uint32_t crc = ITEM(world->truth->committed, index, struct block_committed)->crc;
    raft_configuration_read(m->node->raft, false, &now);
    raft_configuration_read(m->node->raft, true, &committed); /* a new one may have come behind it in this turn */
    if (!is_majority(world, &now, holds_durably, index, crc) &&
        !is_majority(world, &committed, holds_durably, index, crc))
        world_violated(world, "C9: block %llu is committed on n%u, and is not durable on a majority",
                       (unsigned long long)index, m->i + 1);
}

static void note_configuration(struct member *m)
{
    struct truth *truth = m->world->truth;
    raft_configuration_read(m->node->raft, true, &truth->configuration);
    for (uint32_t i = 0; i < truth->configuration.count; i++)
        for (unsigned k = 0; k < m->world->plan.nodes; k++)
            if (m->world->members[k].id == truth->configuration.members[i].id) m->world->members[k].was_member = true;
}

uint8_t checks_role(const struct world *world, unsigned i)
{
    const struct raft_configuration *c = &world->truth->configuration;
    for (uint32_t k = 0; k < c->count; k++)
        if (c->members[k].id == world->members[i].id) return c->members[k].role;
    return 0;
}

bool checks_joint(const struct world *world)
{
    return raft_configuration_is_joint(&world->truth->configuration);
}

/* All configurations that count for somebody, or may again: the committed one first. False: there are no more. */
static bool configuration_next(const struct world *world, unsigned *at, struct raft_configuration *ret)
{
    while (*at <= world->plan.nodes) {
        unsigned i = (*at)++;
        if (i == 0) {
            *ret = world->truth->configuration;
            return true;
        }
        const struct member *m = &world->members[i - 1];
        if (checks_role(world, i - 1) == 0) continue;
        if (m->node != NULL && m->node->raft != NULL)
            raft_configuration_read(m->node->raft, false, ret);
        else if (m->died_configuration.count != 0) /* it may come back with it */
            *ret = m->died_configuration;
        else
            continue;
        return true;
    }
    return false;
}

bool checks_in_use(const struct world *world, raft_member id)
{
    struct raft_configuration c;
    for (unsigned at = 0; configuration_next(world, &at, &c);)
        for (uint32_t i = 0; i < c.count; i++)
            if (c.members[i].id == id) return true;
    return false;
}

bool checks_strangers(const struct world *world)
{
    struct raft_configuration c;
    for (unsigned at = 0; configuration_next(world, &at, &c);)
        for (uint32_t i = 0; i < c.count; i++)
            if (member_of(world, c.members[i].id) == NULL) return true;
    return false;
}

static bool is_left(const struct member *m, raft_index index, uint32_t crc)
{
    (void)index;
    (void)crc;
    return !m->given_up;
}

bool checks_majority_left(const struct world *world)
{
    struct raft_configuration c;
    for (unsigned at = 0; configuration_next(world, &at, &c);)
        if (!is_majority(world, &c, is_left, 0, 0)) return false;
    return true;
}

static void note_commits(struct member *m)
{
    raft_index commit = raft_commit_index(m->node->raft);
    if (commit < m->seen.commit)
        world_violated(m->world, "C5: n%u's commit falls from %llu to %llu", m->i + 1,
                       (unsigned long long)m->seen.commit, (unsigned long long)commit);
    if (commit == m->seen.commit) return;
    bool news = commit > m->world->truth->committed_last;
    for (raft_index index = m->seen.commit + 1; index <= commit; index++) note_commit(m, index);
    m->seen.commit = commit;
    if (news) check_majority(m, commit);
    if (commit == m->world->truth->committed_last) note_configuration(m);
}

/* --- roles ---------------------------------------------------------------------------------------------------- */

static void note_role(struct member *m)
{
    struct world *world = m->world;
    struct truth *truth = world->truth;
    raft_term term = raft_current_term(m->node->raft);
    if (term < m->seen.term)
        world_violated(world, "C6: n%u's term falls from %llu to %llu", m->i + 1, (unsigned long long)m->seen.term,
                       (unsigned long long)term);
    m->seen.term = term;
    if (!raft_is_leader(m->node->raft) || m->seen.role_term == term) return;
    m->seen.role_term = term;
    trace_event(&world->trace, world->now_ns, m->i, TRACE_ROLE, RAFT_LEADER, term);
    raft_member *leader = ITEM(truth->leaders, term, raft_member);
    if (*leader != 0 && *leader != m->id)
        world_violated(world, "C1: n%u leads term %llu, as %016llx does", m->i + 1, (unsigned long long)term,
                       (unsigned long long)*leader);
    *leader = m->id;
    raft_index index = truth->committed_last;
    while (index > 0 && ITEM(truth->committed, index, struct block_committed)->leader_term >= term) index--;
    if (index == 0) return;
    raft_term held_term;
    uint32_t held;
    if (index <= base_of(m)) return;
    bool holds = raft_last_index(m->node->raft) >= index && block_of(m, index, &held_term, &held);
    if (!holds || held != ITEM(truth->committed, index, struct block_committed)->crc)
        world_violated(world, "C4: n%u leads term %llu without the committed block %llu", m->i + 1,
                       (unsigned long long)term, (unsigned long long)index);
}

/* --- death and start ------------------------------------------------------------------------------------------ */

void checks_dies(struct member *m)
{
    if (m->node->raft == NULL) return;
    struct raft_status status;
    raft_status_read(m->node->raft, &status);
    note_log(m); /* chain[] keeps what it holds */
    m->died_term = status.term;
    m->died_durable = status.durable_index;
    raft_configuration_read(m->node->raft, false, &m->died_configuration);
    /* A leader has promised to itself, a follower what its leader validated. */
    m->died_promised = status.durable_index;
    if (status.role != RAFT_LEADER && status.validated_index < m->died_promised)
        m->died_promised = status.validated_index;
}

/* The newest block that is committed and was durable on this node when it died. */
static raft_index committed_here(const struct member *m)
{
    struct truth *truth = m->world->truth;
    raft_index index = m->died_durable < truth->committed_last ? m->died_durable : truth->committed_last;
    while (index > 0 &&
           *ITEM(truth->chain[m->i], index, uint32_t) != ITEM(truth->committed, index, struct block_committed)->crc)
        index--;
    return index;
}

void checks_wiped(struct member *m)
{
    struct truth *truth = m->world->truth;
    struct array *arrays[] = {&truth->votes[m->i], &truth->chain[m->i]};
    for (unsigned i = 0; i < 2; i++) {
        free(arrays[i]->items);
        *arrays[i] = (struct array){0};
    }
    truth->said[m->i] = 0;
    truth->chain_last[m->i] = 0;
    m->died_term = 0;
    m->died_durable = m->died_promised = 0;
    m->died_configuration.count = 0;
    m->id = 0;
    m->was_member = false;
}

/* Its log is open: at its start, at its birth, or when the others have given back what was damaged. */
static void check_memory(struct member *m)
{
    struct world *world = m->world;
    struct truth *truth = world->truth;
    struct raft_status status;
    raft_status_read(m->node->raft, &status);
    trace_event(&world->trace, world->now_ns, m->i, TRACE_START, m->node->boot, status.term, status.last_index,
                status.commit);
    if (status.term < truth->said[m->i])
        world_violated(world, "C6: n%u starts in term %llu and has spoken in term %llu", m->i + 1,
                       (unsigned long long)status.term, (unsigned long long)truth->said[m->i]);
    raft_member *vote = ITEM(truth->votes[m->i], status.term, raft_member);
    if (*vote != 0 && *vote != status.vote)
        world_violated(world, "C6: n%u has forgotten its vote of term %llu", m->i + 1, (unsigned long long)status.term);
    if (status.term == m->died_term && status.last_index < m->died_promised)
        world_violated(world, "C7: n%u starts with block %llu as its last and had promised %llu", m->i + 1,
                       (unsigned long long)status.last_index, (unsigned long long)m->died_promised);
    raft_index index = committed_here(m);
    if (index <= status.base_index) index = 0; /* compacted */
    raft_term term;
    uint32_t crc;
    if (index > 0 && (status.last_index < index || !block_of(m, index, &term, &crc) ||
                      crc != ITEM(truth->committed, index, struct block_committed)->crc))
        world_violated(world, "C7: n%u has lost the committed block %llu, which was durable there", m->i + 1,
                       (unsigned long long)index);
}

void checks_turned(struct member *m)
{
    struct truth *truth = m->world->truth;
    if (m->node->raft == NULL) return; /* not born, or its log is not open */
    if (!m->seen.alive) check_memory(m);
    m->seen.alive = true;
    rot_survived(m);
    note_log(m);
    note_role(m);
    note_commits(m);
    if (truth->turns++ % CORE_CHECK_EVERY == 0) raft_check(m->node->raft);
}

void checks_started(struct member *m)
{
    struct world *world = m->world;
    if (m->id == 0) m->id = m->node->identity.member_id;
    if (m->id != m->node->identity.member_id) world_violated(world, "n%u has forgotten who it is", m->i + 1);
    if (m->node->raft == NULL && m->died_term != 0 && !m->node->repair.opening)
        world_violated(world, "C7: n%u has forgotten its birth", m->i + 1);
    checks_turned(m);
}

/* --- messages ------------------------------------------------------------------------------------------------- */

static void note_vote(struct world *world, unsigned voter, raft_term term, raft_member candidate)
{
    raft_member *vote = ITEM(world->truth->votes[voter], term, raft_member);
    if (*vote != 0 && *vote != candidate)
        world_violated(world, "C6: n%u votes twice in term %llu", voter + 1, (unsigned long long)term);
    *vote = candidate;
}

static void note_message(struct world *world, unsigned from, unsigned to, const struct raft_message *message,
                         uint64_t bytes)
{
    struct trace *trace = &world->trace;
    raft_term *said = &world->truth->said[from];
    if (message->term < *said)
        world_violated(world, "C6: n%u says term %llu after term %llu", from + 1, (unsigned long long)message->term,
                       (unsigned long long)*said);
    *said = message->term;
    switch (message->type) {
    case RAFT_VOTE:
    case RAFT_PREVOTE:
        if (message->type == RAFT_VOTE) note_vote(world, from, message->term, message->from);
        trace_event(trace, world->now_ns, from, TRACE_SEND_VOTE, to, message->type == RAFT_PREVOTE,
                    message->as.vote.campaign_term, message->as.vote.last_index, message->as.vote.last_term,
                    message->as.vote.transfer);
        break;
    case RAFT_VOTE_REPLY:
    case RAFT_PREVOTE_REPLY:
        if (message->type == RAFT_VOTE_REPLY && message->as.vote_reply.granted)
            note_vote(world, from, message->as.vote_reply.campaign_term, message->to);
        trace_event(trace, world->now_ns, from, TRACE_SEND_VOTE_REPLY, to, message->type == RAFT_PREVOTE_REPLY,
                    message->as.vote_reply.campaign_term, message->as.vote_reply.granted, message->term);
        break;
    case RAFT_APPEND:
        trace_event(trace, world->now_ns, from, TRACE_SEND_APPEND, to, message->term, message->as.append.previous_index,
                    message->as.append.last_index, message->as.append.commit, bytes);
        break;
    case RAFT_HEARTBEAT:
        trace_event(trace, world->now_ns, from, TRACE_SEND_HEARTBEAT, to, message->term,
                    message->as.heartbeat.match_index, message->as.heartbeat.commit, message->as.heartbeat.round);
        break;
    case RAFT_ACK:
        trace_event(trace, world->now_ns, from, TRACE_SEND_ACK, to, message->term, message->as.ack.durable_index,
                    message->as.ack.validated_index, message->as.ack.rejected_index * 2 + message->as.ack.rejected,
                    message->as.ack.full);
        break;
    default: trace_event(trace, world->now_ns, from, TRACE_SEND_OTHER, to, 100u + message->type, bytes, 0);
    }
}

void checks_sent(struct world *world, unsigned from, unsigned to, const struct transport_send *send)
{
    uint64_t hash = 0, bytes = send->body_bytes + send->more_bytes + send->ring_bytes + send->blocks_bytes;
    if (send->body_bytes > 0) hash = trace_hash(hash, send->body, send->body_bytes);
    if (send->more_bytes > 0) hash = trace_hash(hash, send->more, send->more_bytes);
    if (send->ring_bytes > 0)
        hash = trace_hash(hash, ring_at(world->members[from].node->ring, send->ring_from), send->ring_bytes);
    if (send->blocks_bytes > 0 && send->blocks != NULL) hash = trace_hash(hash, send->blocks, send->blocks_bytes);
    if (send->type == FRAME_RAFT)
        note_message(world, from, to, send->message, hash);
    else
        trace_event(&world->trace, world->now_ns, from, TRACE_SEND_OTHER, to, send->type, bytes, hash);
}

/* --- shared memory -------------------------------------------------------------------------------------------- */

static struct said *said_between(struct world *world, raft_member from, raft_member to)
{
    const struct member *a = member_of(world, from), *b = member_of(world, to);
    return a == NULL || b == NULL ? NULL : &world->truth->told[a->i][b->i]; /* NULL: a directory that is gone */
}

static void raise(uint64_t *mark, uint64_t to)
{
    if (*mark < to) *mark = to;
}

static void note_round(struct member *m, const struct raft_message *message, uint64_t round)
{
    struct asked *asked = &m->world->truth->asked[m->i];
    if (asked->from != message->from || asked->term != message->term)
        *asked = (struct asked){.from = message->from, .term = message->term};
    raise(&asked->round, round);
}

void checks_said(struct member *m, const struct raft_message *message)
{
    struct said *said = said_between(m->world, message->from, message->to);
    if (message->type == RAFT_APPEND) note_round(m, message, message->as.append.round);
    if (message->type == RAFT_HEARTBEAT) note_round(m, message, message->as.heartbeat.round);
    if (message->type != RAFT_ACK || said == NULL) return;
    if (said->from != message->from || said->to != message->to || said->term != message->term)
        *said = (struct said){.from = message->from, .to = message->to, .term = message->term};
    raise(&said->durable, message->as.ack.durable_index);
    raise(&said->validated, message->as.ack.validated_index);
    raise(&said->round, message->as.ack.round);
}

/* C10. A block that the leader was seen to hold, whole. */
static void check_pulled_block(struct member *m, const struct block_header *header, const uint8_t *block)
{
    struct truth *truth = m->world->truth;
    if (block_body_check(block, header) != 0)
        world_violated(m->world, "C10: n%u pulls block %llu, and its body is damaged", m->i + 1,
                       (unsigned long long)header->index);
    for (uint32_t at = *ITEM(truth->heads, header->index, uint32_t); at != 0;) {
        const struct block_seen *seen = ITEM(truth->seen, at - 1, struct block_seen);
        if (seen->term == header->term && seen->crc == header->header_crc) return;
        at = seen->next;
    }
    world_violated(m->world, "C10: n%u pulls block %llu of term %llu, which nobody holds", m->i + 1,
                   (unsigned long long)header->index, (unsigned long long)header->term);
}

static uint64_t check_pulled(struct member *m, const struct transport_frame *frame)
{
    const struct raft_append *append = &frame->message.as.append;
    raft_index index = append->previous_index;
    uint64_t hash = 0;
    for (size_t at = 0; at < frame->body_bytes;) {
        struct block_header header;
        int rc = block_header_read(frame->body + at, frame->body_bytes - at, &header);
        if (rc != 0 || header.bytes > frame->body_bytes - at || header.index != index + 1)
            world_violated(m->world, "C10: n%u pulls nonsense behind block %llu", m->i + 1, (unsigned long long)index);
        check_pulled_block(m, &header, frame->body + at);
        hash = header.header_crc;
        index = header.index;
        at += header.bytes;
    }
    if (index != append->last_index || index == append->previous_index)
        world_violated(m->world, "C10: n%u pulls blocks up to %llu, and is told %llu", m->i + 1,
                       (unsigned long long)index, (unsigned long long)append->last_index);
    return hash;
}

/* C10. It was given to this leader in this term. What was said in an older one may come still, but is not known any more. */
static void check_slot_ack(struct member *m, const struct raft_message *message)
{
    const struct raft_ack *ack = &message->as.ack;
    const struct said *newest = said_between(m->world, message->from, message->to);
    struct said said = {0};
    if (newest == NULL || newest->term > message->term) return;
    if (newest->from == message->from && newest->to == message->to && newest->term == message->term) said = *newest;
    if (ack->durable_index > said.durable || ack->validated_index > said.validated || ack->round > said.round)
        world_violated(m->world, "C10: n%u counts an ack of term %llu that was never given", m->i + 1,
                       (unsigned long long)message->term);
}

static void check_round(struct member *m, const struct member *from, const struct raft_message *message, uint64_t round)
{
    if (from == NULL) return; /* its directory is gone */
    const struct asked *asked = &m->world->truth->asked[from->i];
    bool same = asked->from == message->from && asked->term == message->term;
    if (round > (same ? asked->round : 0))
        world_violated(m->world, "C10: n%u hears of round %llu, which was never asked for", m->i + 1,
                       (unsigned long long)round);
}

void checks_shared(struct member *m, const struct transport_frame *frame)
{
    struct world *world = m->world;
    const struct raft_message *message = &frame->message;
    const struct raft_append *append = &message->as.append;
    const struct raft_heartbeat *heartbeat = &message->as.heartbeat;
    const struct raft_ack *ack = &message->as.ack;
    const struct member *from = member_of(world, message->from);
    unsigned i = from == NULL ? TRACE_WORLD : from->i;
    if (message->to != m->id || message->from != frame->member_id)
        world_violated(world, "C10: n%u finds a message in memory that is not for it", m->i + 1);
    bool lives = from != NULL && from->node != NULL && from->node->raft != NULL;
    /* Its ring shows what it is now; that of a process that has died, also while the next one lives, what it was. */
    if (lives && message->type != RAFT_ACK && from->seen.role_term == message->term &&
        (!raft_is_leader(from->node->raft) || raft_current_term(from->node->raft) != message->term))
        world_violated(world, "C10: n%u follows the ring of n%u, which does not lead in term %llu", m->i + 1, i + 1,
                       (unsigned long long)message->term);
    if (*ITEM(world->truth->leaders, message->term, raft_member) !=
        (message->type == RAFT_ACK ? message->to : message->from))
        world_violated(world, "C10: n%u follows a ring, or counts acks, in term %llu, which another one leads",
                       m->i + 1, (unsigned long long)message->term);
    /* A full block is sealed while a client asks, before the leader's turn. */
    if (lives) note_log(&world->members[i]);
    switch (message->type) {
    case RAFT_APPEND:
        trace_event(&world->trace, world->now_ns, m->i, TRACE_PULL, i, message->term, append->previous_index,
                    append->last_index, append->commit, check_pulled(m, frame));
        check_round(m, from, message, append->round);
        break;
    case RAFT_HEARTBEAT:
        trace_event(&world->trace, world->now_ns, m->i, TRACE_BEAT, i, message->term, heartbeat->commit,
                    heartbeat->round);
        check_round(m, from, message, heartbeat->round);
        break;
    case RAFT_ACK:
        trace_event(&world->trace, world->now_ns, m->i, TRACE_SLOT_ACK, i, message->term, ack->durable_index,
                    ack->validated_index, ack->round);
        check_slot_ack(m, message);
        break;
    default: world_violated(world, "C10: a message of type %u comes from memory", message->type);
    }
}

/* --- commands ------------------------------------------------------------------------------------------------- */

static uint64_t reply_hash_of(int outcome, int32_t code, const void *reply, size_t reply_bytes)
{
    uint64_t head[2] = {(uint64_t)outcome, (uint64_t)(int64_t)code};
    return trace_hash(trace_hash(0, head, sizeof head), reply, reply_bytes);
}

uint64_t checks_command_hash(uint64_t session, uint64_t seq, const void *payload, size_t payload_bytes)
{
    uint64_t head[2] = {session, session != 0 ? seq : 0};
    return trace_hash(trace_hash(0, head, sizeof head), payload, payload_bytes);
}

/* Some positions are no commands of the machine (sessions), or were dropped as repetitions: on every node the same. */
void checks_skipped(struct member *m, log_position last, log_position next)
{
    struct truth *truth = m->world->truth;
    if (next <= last)
        world_violated(m->world, "C8: n%u's machine is given position %llu behind %llu", m->i + 1,
                       (unsigned long long)next, (unsigned long long)last);
    for (log_position position = last + 1; position < next && position <= truth->applied_last; position++)
        if (ITEM(truth->applied, position, struct command_applied)->there)
            world_violated(m->world, "C8: n%u's machine is not given position %llu, which others applied", m->i + 1,
                           (unsigned long long)position);
}

void checks_attempt(struct world *world, uint64_t payload_hash, int change)
{
    int64_t left = (int64_t)*map_find(&world->truth->attempts, payload_hash) + change;
    if (left < 0) world_violated(world, "C8: a command is in the log that was said to be surely not appended");
    *map_find(&world->truth->attempts, payload_hash) = (uint64_t)left;
}

void checks_applied(struct member *m, const struct lockstep_command *command, int outcome, int32_t code,
                    const void *reply, size_t reply_bytes)
{
    struct world *world = m->world;
    struct truth *truth = world->truth;
    if (outcome == LOCKSTEP_FATAL)
        world_violated(world, "n%u's machine says FATAL at position %llu", m->i + 1,
                       (unsigned long long)command->position);
    uint64_t payload_hash =
        checks_command_hash(command->session, command->seq, command->payload, command->payload_bytes);
    uint64_t head[6] = {command->index,  command->term,    command->time_ns,
                        command->entity, command->session, command->seq};
    struct command_applied here = {
        .command_hash = trace_hash(payload_hash, head, sizeof head),
        .payload_hash = payload_hash,
        .reply_hash = reply_hash_of(outcome, code, reply, reply_bytes),
        .index = command->index,
        .there = true,
    };
    log_position position = command->position;
    struct command_applied *applied = ITEM(truth->applied, position, struct command_applied);
    if (position <= truth->applied_last) {
        if (!applied->there)
            world_violated(world, "C8: n%u applies position %llu, which others did not", m->i + 1,
                           (unsigned long long)position);
        if (applied->command_hash != here.command_hash)
            world_violated(world, "C8: n%u applies another command at position %llu than others did", m->i + 1,
                           (unsigned long long)position);
        if (applied->reply_hash != here.reply_hash)
            world_violated(world,
                           "C8: n%u's machine replies otherwise at position %llu (block %llu) than others did: is it "
                           "deterministic? Its reply has %zu bytes: %.*s",
                           m->i + 1, (unsigned long long)position, (unsigned long long)command->index, reply_bytes,
                           reply_bytes < 200 ? (int)reply_bytes : 200, reply != NULL ? (const char *)reply : "");
        return;
    }
    truth->applied_last = position;
    *applied = here;
    int64_t left = (int64_t)*map_find(&truth->attempts, payload_hash) - 1;
    if (left < 0)
        world_violated(world, "C8: the command at position %llu was never asked for, or is in the log too often",
                       (unsigned long long)position);
    *map_find(&truth->attempts, payload_hash) = (uint64_t)left;
    trace_event(&world->trace, world->now_ns, m->i, TRACE_APPLY, position, command->index, here.reply_hash);
}

/* --- observers ------------------------------------------------------------------------------------------------ */

static void check_observed_command(struct world *world, const struct lockstep_tail_record *record)
{
    const struct command_applied *applied = ITEM(world->truth->applied, record->position, struct command_applied);
    if (!applied->there) return; /* not yet, or not the machine's */
    uint64_t hash = checks_command_hash(record->session, record->seq, record->payload, record->payload_bytes);
    uint64_t head[6] = {record->index, record->term, record->time_ns, record->entity, record->session, record->seq};
    if (trace_hash(hash, head, sizeof head) != applied->command_hash)
        world_violated(world, "C11: an observer is handed another command at position %llu than was applied",
                       (unsigned long long)record->position);
}

void checks_observed(const struct member *m, struct world *world, const struct lockstep_tail_record *record,
                     uint32_t crc)
{
    struct truth *truth = world->truth;
    raft_index index = record->index;
    check_observed_command(world, record);
    if (index <= truth->committed_last) {
        const struct block_committed *committed = ITEM(truth->committed, index, struct block_committed);
        if (committed->crc != crc || committed->term != record->term)
            world_violated(world, "C11: an observer is shown block %llu of term %llu, %08x; committed is %08x",
                           (unsigned long long)index, (unsigned long long)record->term, crc, committed->crc);
        return;
    }
    if (m != NULL)
        world_violated(world, "C11: an observer of n%u is shown block %llu, which is not committed", m->i + 1,
                       (unsigned long long)index);
    *ITEM(truth->observed, index, uint32_t) = crc;
    if (index > truth->observed_last) truth->observed_last = index;
}

void checks_observer_gone(const struct member *m, struct world *world, log_position wanted, log_position oldest)
{
    const struct command_applied *applied = ITEM(world->truth->applied, wanted, struct command_applied);
    bool kept = m != NULL && m->node->raft != NULL && applied->there && applied->index > base_of(m);
    if (oldest <= wanted || kept)
        world_violated(world, "C11: an observer hears that position %llu is gone, and %llu the oldest one",
                       (unsigned long long)wanted, (unsigned long long)oldest);
}

void checks_observed_all(struct world *world)
{
    if (world->truth->observed_last > world->truth->committed_last)
        world_violated(world, "C11: an observer was shown block %llu, and %llu is the last one committed",
                       (unsigned long long)world->truth->observed_last,
                       (unsigned long long)world->truth->committed_last);
}

log_position checks_applied_last(const struct world *world)
{
    return world->truth->applied_last;
}

void checks_state(struct member *m, log_position position, struct lockstep_hash hash)
{
    struct command_applied *applied = ITEM(m->world->truth->applied, position, struct command_applied);
    if (position == 0) return;
    if (!applied->has_state) {
        applied->has_state = true;
        applied->state = hash;
    } else if (applied->state.low != hash.low || applied->state.high != hash.high) {
        world_violated(m->world,
                       "C8: n%u's machine has another state behind position %llu than others had: is it "
                       "deterministic?",
                       m->i + 1, (unsigned long long)position);
    }
}

void checks_snapshot(struct member *m, log_position position, int error)
{
    trace_event(&m->world->trace, m->world->now_ns, m->i, TRACE_SNAPSHOT, position, (uint64_t)(int64_t)error);
}

void checks_queried(struct member *m, log_position position, uint64_t query_hash, uint64_t reply_hash)
{
    uint64_t *seen = map_find(&m->world->truth->queries, trace_hash(query_hash, &position, sizeof position));
    if (*seen != 0 && *seen != reply_hash)
        world_violated(m->world, "C8: n%u's machine answers a query behind position %llu otherwise than others did",
                       m->i + 1, (unsigned long long)position);
    *seen = reply_hash;
}

void checks_told(struct world *world, log_position position, raft_index index, uint64_t payload_hash, int32_t code,
                 const void *reply, size_t reply_bytes)
{
    struct truth *truth = world->truth;
    if (position == 0 || position > truth->applied_last)
        world_violated(world, "a client is told position %llu, which nobody has applied", (unsigned long long)position);
    const struct command_applied *applied = ITEM(truth->applied, position, struct command_applied);
    if (!applied->there || applied->payload_hash != payload_hash || applied->index != index)
        world_violated(world, "a client is told position %llu, where another command stands",
                       (unsigned long long)position);
    if (applied->reply_hash != reply_hash_of(code == 0 ? LOCKSTEP_OK : LOCKSTEP_REJECT, code, reply, reply_bytes))
        world_violated(world, "a client is told another reply than the machine's at position %llu",
                       (unsigned long long)position);
}
