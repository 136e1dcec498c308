/* SPDX-License-Identifier: Apache-2.0 */
/* observers.c - processes of a host that follow what a node commits: what a tail reads with (client/tail_reader.h), over the
 * simulated door. They dial whom they find, stand still, are lapped, are killed and begin again behind the last command that
 * they kept, or elsewhere. What is handed out must be the committed commands, one behind the other, each once (C11).
 *
 *   LOOKING -> GREETING [dial] -> FOLLOWING [granted] -> LOOKING [ended]     killed: LOOKING, as another process */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "client/tail_reader.h"
#include "server/node_internal.h"
#include "tests/sim/world.h"

enum { RETRY_MS = 100, FAULT_ONE_IN = 300 };

enum observer_state { LOOKING, GREETING, FOLLOWING };

struct observer {
    struct world *world;
    unsigned k, host;
    enum observer_state state;
    uint64_t due_ns, stands_until_ns;
    uint64_t slow_ns_max; /* between two looks */
    struct local_link *link;
    unsigned connection;
    unsigned node; /* whom it dialled; */
    uint64_t life; /* the starts of that one then */
    uint64_t cluster_id;
    raft_member member;
    struct tail_reader reader;
    uint64_t lapped; /* of the reader, counted */
    bool asking;
    size_t packet_bytes;    /* the answer; 0 = it has not come */
    log_position next;      /* that must come; 0 = whichever comes first */
    log_position handed[2]; /* in this step: the first, the last; 0 = none */
    uint8_t packet[LOCAL_ANSWER_BYTES_MAX];
};

struct observers {
    struct observer all[SIM_OBSERVERS_MAX];
};

static unsigned end_of(const struct observer *o)
{
    return SIM_NODES_MAX + o->k;
}

static struct member *whom(const struct observer *o)
{
    return &o->world->members[o->node];
}

/* Whether the process that it dialled still runs. */
static bool is_alive(const struct observer *o)
{
    return whom(o)->node != NULL && whom(o)->starts == o->life;
}

static void note(struct observer *o, enum trace_kind what, uint64_t number)
{
    trace_event(&o->world->trace, o->world->now_ns, o->node, what, o->k, number);
}

/* --- what the door tells ---------------------------------------------------------------------------------------------- */

static void woken(void *context)
{
    (void)context; /* its step follows */
}

static int judge(void *context, unsigned connection, const struct local_hello *hello, struct local_reply *ret_reply,
                 struct local_grant *ret_grant)
{
    (void)context, (void)connection, (void)hello, (void)ret_reply, (void)ret_grant;
    lk_unreachable(); /* it does not listen */
}

static int granted(void *context, unsigned connection, const struct local_reply *reply, const struct local_grant *grant)
{
    struct observer *o = context;
    lk_assert(o->state == GREETING && connection == o->connection);
    int rc = tail_reader_attach(&o->reader, reply, grant->ring_fd, grant->slot_fd);
    close(grant->ring_fd);
    close(grant->slot_fd);
    if (rc != 0 || reply->member_id != o->member || reply->cluster_id != o->cluster_id)
        world_violated(o->world, "C11: an observer is granted what is not n%u's ring: error %d", o->node + 1, rc);
    o->state = FOLLOWING;
    return 0;
}

static int packet(void *context, unsigned connection, const uint8_t *bytes, size_t count)
{
    struct observer *o = context;
    if (!o->asking || o->packet_bytes != 0)
        world_violated(o->world, "C11: n%u tells an observer what it did not ask for", o->node + 1);
    lk_assert(connection == o->connection && count <= sizeof o->packet);
    memcpy(o->packet, bytes, count);
    o->packet_bytes = count;
    return 0;
}

static void look_again(struct observer *o)
{
    tail_reader_detach(&o->reader);
    o->state = LOOKING;
    o->asking = false;
    o->packet_bytes = 0;
    o->due_ns = o->world->now_ns + RETRY_MS * SIM_MS;
}

static void ended(void *context, unsigned connection, const char *why)
{
    struct observer *o = context;
    (void)why;
    lk_assert(connection == o->connection);
    look_again(o);
}

static uint64_t clock_of(const void *context)
{
    return ((const struct observer *)context)->world->now_ns;
}

/* --- a process -------------------------------------------------------------------------------------------------------- */

/* From position `from`; 0: from what is committed next. */
static void begin(struct observer *o, log_position from)
{
    struct world *world = o->world;
    int rc = tail_reader_open(&o->reader, from);
    lk_assert(rc == 0);
    o->link = sim_link_open(world->links, end_of(o), o->host, clock_of, o);
    const struct local_link_owner owner = {
        .context = o, .wake = woken, .judge = judge, .granted = granted, .packet = packet, .ended = ended};
    o->link->ops->attach(o->link, &owner);
    o->lapped = 0;
    o->next = from;
    look_again(o);
}

static void end(struct observer *o)
{
    o->link->ops->close(o->link);
    tail_reader_close(&o->reader);
}

/* Killed; the next process goes on behind what this one kept, which may be less than it had, or begins anew. */
static void die(struct observer *o)
{
    struct random *random = &o->world->random;
    log_position applied = checks_applied_last(o->world), from = o->next;
    note(o, TRACE_OBSERVER_KILL, from);
    end(o);
    switch (random_below(random, 8)) {
    case 0: from = LOCKSTEP_TAIL_NOW; break;
    case 1: from = 1; break;
    case 2: from = 1 + random_below(random, applied + 4); break; /* perhaps one that is not there yet */
    case 3: from -= random_below(random, from < 16 ? from + 1 : 16); break;
    default: break;
    }
    begin(o, from);
    o->due_ns = o->world->now_ns + random_below(random, SIM_S);
}

static void stand_still(struct observer *o)
{
    uint64_t ns = random_between(&o->world->random, SIM_MS, o->world->plan.fault_length_ns_max);
    note(o, TRACE_OBSERVER_PAUSE, ns / SIM_MS);
    o->stands_until_ns = o->due_ns = o->world->now_ns + ns;
}

/* False: the connection goes on. */
static bool something_happens(struct observer *o)
{
    struct world *world = o->world;
    if (!world->faults_on || !random_chance(&world->random, 1, FAULT_ONE_IN)) return false;
    switch (random_below(&world->random, 4)) {
    case 0: die(o); return true;
    case 1: sim_link_hang_up(world->links, end_of(o), o->node); return false;
    default: stand_still(o); return true;
    }
}

static bool may_be_found(const struct observer *o, const struct member *m)
{
    if (m->i >= o->world->plan.nodes || o->world->plan.host[m->i] != o->host) return false;
    if (m->node == NULL || !m->node->born) return false;
    /* When nothing is broken any more it is not led to those that are given up. */
    return o->world->faults_on || (!m->given_up && checks_role(o->world, m->i) != 0);
}

static void dial(struct observer *o)
{
    struct world *world = o->world;
    unsigned first = (unsigned)random_below(&world->random, world->plan.nodes);
    o->due_ns = world->now_ns + RETRY_MS * SIM_MS;
    for (unsigned n = 0; n < world->plan.nodes; n++) {
        struct member *m = &world->members[(first + n) % world->plan.nodes];
        if (!may_be_found(o, m)) continue;
        o->node = m->i;
        o->life = m->starts;
        o->cluster_id = m->node->identity.birth.cluster_id;
        o->member = m->node->identity.member_id;
        const struct local_hello hello = {.kind = LOCAL_OBSERVER, .cluster_id = o->cluster_id, .wanted_id = o->member};
        if (o->link->ops->dial(o->link, &hello, &o->connection) != 0) return;
        o->state = GREETING;
        o->due_ns = SIM_NEVER;
        return;
    }
}

/* --- reading ---------------------------------------------------------------------------------------------------------- */

static void stopped(struct observer *o)
{
    struct world *world = o->world;
    log_position oldest = o->reader.oldest_position;
    if (o->reader.error != LOCKSTEP_EGONE)
        world_violated(world, "C11: an observer of n%u cannot go on: error %d: %s", o->node + 1, o->reader.error,
                       o->reader.why);
    checks_observer_gone(is_alive(o) ? whom(o) : NULL, world, o->next, oldest);
    note(o, TRACE_OBSERVER_GONE, oldest);
    end(o);
    begin(o, oldest); /* as one does that has loaded a snapshot */
}

static void hand_out(struct observer *o)
{
    struct lockstep_tail_record record;
    struct world *world = o->world;
    o->handed[0] = 0;
    while (tail_reader_record(&o->reader, &record)) {
        if (o->next != 0 && record.position != o->next)
            world_violated(world, "C11: an observer of n%u is handed position %llu instead of %llu", o->node + 1,
                           (unsigned long long)record.position, (unsigned long long)o->next);
        checks_observed(is_alive(o) ? whom(o) : NULL, world, &record, o->reader.base.crc);
        if (o->handed[0] == 0) o->handed[0] = record.position;
        o->handed[1] = record.position;
        o->next = record.position + 1;
        world->memory.observed++;
    }
    if (o->handed[0] != 0)
        trace_event(&world->trace, world->now_ns, o->node, TRACE_OBSERVED, o->k, o->handed[0], o->handed[1],
                    o->reader.base.index, o->reader.base.crc);
    world->memory.observers_lapped += o->reader.lapped_count - o->lapped;
    o->lapped = o->reader.lapped_count;
}

/* One look; what it brought is handed out. */
static void follow(struct observer *o)
{
    struct world *world = o->world;
    struct local_ask question;
    enum tail_move move;
    tail_reader_wake(&o->reader);
    if (!o->asking) {
        move = tail_reader_pull(&o->reader, &question);
    } else if (o->packet_bytes != 0) {
        o->asking = false;
        move = tail_reader_told(&o->reader, o->packet, o->packet_bytes, &question);
        o->packet_bytes = 0;
        world->memory.observers_told++;
    } else { /* a bell */
        o->due_ns = SIM_NEVER;
        return;
    }
    if (move == TAIL_MOVED) hand_out(o);
    if (o->reader.error != 0) {
        stopped(o);
        return;
    }
    o->due_ns = world->now_ns + random_between(&world->random, SIM_US, o->slow_ns_max);
    if (move == TAIL_ASK) {
        uint8_t bytes[LOCAL_ASK_BYTES];
        local_ask_write(&question, bytes);
        o->asking = true;
        (void)o->link->ops->send(o->link, o->connection, bytes, sizeof bytes); /* else its end is on the way */
        o->due_ns = SIM_NEVER;
    }
    if (move == TAIL_NOTHING && tail_reader_sleep(&o->reader)) o->due_ns = SIM_NEVER; /* S7: until it is rung */
}

static void step(struct observer *o)
{
    struct world *world = o->world;
    o->due_ns = SIM_NEVER;
    sim_link_work(world->links, end_of(o));
    if (something_happens(o)) return;
    switch (o->state) {
    case LOOKING:
        if (o->due_ns == SIM_NEVER) dial(o); /* else it was hung up just now */
        break;
    case GREETING: o->due_ns = SIM_NEVER; break;
    case FOLLOWING: follow(o); break;
    }
}

/* --- the world's ------------------------------------------------------------------------------------------------------ */

void observers_open(struct world *world)
{
    world->observers = calloc(1, sizeof *world->observers);
    lk_assert(world->observers != NULL);
    for (unsigned k = 0; k < world->plan.observers; k++) {
        struct observer *o = &world->observers->all[k];
        o->world = world;
        o->k = k;
        o->host = world->plan.host[random_below(&world->random, world->plan.nodes)];
        o->slow_ns_max = random_between(&world->random, 2 * SIM_US, world->plan.observer_ns_max);
        begin(o, random_below(&world->random, 2));
    }
}

void observers_close(struct world *world)
{
    for (unsigned k = 0; k < world->plan.observers; k++) end(&world->observers->all[k]);
    free(world->observers);
}

static uint64_t next_ns(const struct observer *o)
{
    uint64_t news_ns = sim_link_first_ns(o->world->links, end_of(o));
    uint64_t due_ns = news_ns < o->due_ns ? news_ns : o->due_ns;
    return due_ns < o->stands_until_ns ? o->stands_until_ns : due_ns;
}

uint64_t observers_next_ns(const struct world *world)
{
    uint64_t first_ns = SIM_NEVER;
    for (unsigned k = 0; k < world->plan.observers; k++) {
        uint64_t ns = next_ns(&world->observers->all[k]);
        if (ns < first_ns) first_ns = ns;
    }
    return first_ns;
}

void observers_work(struct world *world)
{
    for (unsigned k = 0; k < world->plan.observers; k++)
        if (next_ns(&world->observers->all[k]) <= world->now_ns) step(&world->observers->all[k]);
}

static bool is_level(const struct observer *o)
{
    const struct member *m = whom(o);
    if (o->state == FOLLOWING && is_alive(o)) {
        bool excused = m->given_up || checks_role(o->world, m->i) == 0;
        return excused || o->reader.next_index > checks_committed(o->world);
    }
    for (unsigned i = 0; i < o->world->plan.nodes; i++)
        if (may_be_found(o, &o->world->members[i])) return false;
    return true; /* there is nobody whom it could follow */
}

bool observers_level(const struct world *world)
{
    for (unsigned k = 0; k < world->plan.observers; k++)
        if (!is_level(&world->observers->all[k])) return false;
    return true;
}
