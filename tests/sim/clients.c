/* SPDX-License-Identifier: Apache-2.0 */
/* clients.c - who asks for what, what they were told, and whether that could be.
 * An operation is what a client wants; a call is one try of it at one node. A call that was surely not appended is
 * tried again elsewhere. One whose outcome is unknown ends the operation as unknown, unless the client has a session:
 * then it asks again with the same seq, wherever, until it knows.
 * L1  Every call that a node took is answered once, or the node dies.
 * L2  What a client is told stands in the log at that position, with that reply.
 * L3  It stands behind everything that any client was told before the call began: real-time order, for any machine. So
 *     does the answer of a read at LINEARIZABLE and FOLLOWER; at BOUNDED_STALE it is behind all that was told so long
 *     before; and at any level behind the min_index that it asked for.
 * L4  With kv, each key's history is linearizable (linearizable.h), whatever positions the nodes claim. A BOUNDED_STALE
 *     read stands in it as one that began so much earlier; a LOCAL one, which promises nothing, does not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tests/sim/linearizable.h"
#include "tests/sim/workload.h"
#include "tests/sim/world.h"

enum { CLIENT_RESTS = 1, CLIENT_WAITS, CLIENT_HEARS, CLIENT_BACKS_OFF };
enum { CALL_TRAVELS = 1, CALL_WAITS, CALL_ENDED };
#define LINEARIZABLE_STEPS_MAX UINT64_C(300000)

struct call {
    uint8_t state, client, node;
    bool outcome; /* it only asks what became of the command */
    uint32_t operation;
    uint64_t timeout_ns;
    uint64_t arrived_ns;
    raft_index min_index;   /* asked for */
    raft_index floor_index; /* promised by a read's level */
    /* How it ended. */
    int error;
    int32_t code;
    raft_index index;
    log_position position;
    uint8_t reply[WORKLOAD_REPLY_BYTES_MAX];
    uint32_t reply_bytes;
};

struct operation {
    struct workload_operation what;
    uint16_t kind; /* enum command_kind; other than 0: about the session itself */
    uint64_t session, seq;
    uint64_t command_hash; /* as checks.c sees the command */
    uint32_t calls;
    uint32_t travelling; /* calls on their way to a node */
    uint32_t possible;   /* calls that may have brought it into the log */
    uint64_t called_ns;
    log_position floor_position; /* known to somebody when it began */
    raft_index floor_index;
};

static void *grow(void *items, uint32_t count, uint32_t *room, size_t bytes)
{
    if (count < *room) return items;
    *room = *room == 0 ? 1024 : 2 * *room;
    items = realloc(items, *room * bytes);
    lk_assert(items != NULL);
    return items;
}

struct floor {
    uint64_t since_ns;
    raft_index index;
};

/* A client was told of this block. */
static void told(struct world *world, raft_index index)
{
    if (index <= world->floor_index) return;
    world->floor_index = index;
    world->floors = grow(world->floors, world->floor_count, &world->floor_room, sizeof *world->floors);
    world->floors[world->floor_count++] = (struct floor){.since_ns = world->now_ns, .index = index};
}

/* The newest block that any client had been told of at that time. */
static raft_index floor_at(const struct world *world, uint64_t at_ns)
{
    uint32_t i = world->floor_count;
    while (i > 0 && world->floors[i - 1].since_ns > at_ns) i--;
    return i > 0 ? world->floors[i - 1].index : 0;
}

/* What was told until then, this read sees. The node counts the staleness by its own clock, which may be slow. */
static uint64_t oldest_ns(const struct world *world, const struct call *c)
{
    uint64_t ns = world->operations[c->operation].what.max_staleness_ns;
    ns += ns * world->plan.drift_ppm_max / (1000000 - world->plan.drift_ppm_max) + (ns > 0);
    return c->arrived_ns > ns ? c->arrived_ns - ns : 0;
}

static uint64_t travel(struct world *world)
{
    const struct sim_plan *plan = &world->plan;
    return world->now_ns + random_between(&world->random, plan->delay_ns_min, plan->delay_ns_max);
}

void clients_open(struct world *world)
{
    for (unsigned c = 0; c < world->plan.clients; c++) {
        world->clients[c].state = CLIENT_RESTS;
        world->clients[c].node = (unsigned)random_below(&world->random, world->plan.nodes);
        world->clients[c].due_ns = world->now_ns + random_below(&world->random, 2 * SIM_S);
        world->clients[c].has_sessions = random_chance(&world->random, world->plan.sessions_per_100, 100);
    }
}

void clients_close(struct world *world)
{
    for (uint32_t i = 0; i < world->operation_count; i++) free(world->operations[i].what.payload);
    free(world->operations);
    free(world->calls);
    free(world->floors);
}

uint64_t clients_next_ns(const struct world *world)
{
    uint64_t next = SIM_NEVER;
    for (unsigned c = 0; c < world->plan.clients; c++)
        if (world->clients[c].due_ns < next) next = world->clients[c].due_ns;
    return next;
}

bool clients_idle(const struct world *world)
{
    for (unsigned c = 0; c < world->plan.clients; c++)
        if (world->clients[c].state != CLIENT_RESTS) return false;
    return true;
}

/* --- the client's side ---------------------------------------------------------------------------------------- */

static void rest(struct world *world, struct client *client)
{
    client->state = CLIENT_RESTS;
    client->due_ns = world->clients_rest
                         ? SIM_NEVER
                         : world->now_ns + random_between(&world->random, SIM_US, world->plan.think_ns_max);
}

static void back_off(struct world *world, struct client *client, bool elsewhere)
{
    client->state = CLIENT_BACKS_OFF;
    client->due_ns = world->now_ns + random_between(&world->random, SIM_MS, 50 * SIM_MS);
    if (elsewhere) client->node = (unsigned)random_below(&world->random, world->plan.nodes);
}

/* One try, at the node that the client believes in. */
static void call(struct world *world, struct client *client)
{
    struct operation *operation = &world->operations[client->operation];
    struct member *m = &world->members[client->node];
    world->calls = grow(world->calls, world->call_count, &world->call_room, sizeof *world->calls);
    client->call = world->call_count++;
    struct call *c = &world->calls[client->call];
    memset(c, 0, sizeof *c);
    c->client = (uint8_t)(client - world->clients);
    c->node = (uint8_t)client->node;
    c->operation = client->operation;
    c->timeout_ns = world->now_ns + world->plan.client_timeout_ns;
    if (operation->what.has_min_index) c->min_index = world->floor_index + operation->what.blocks_ahead;
    c->outcome = operation->seq != 0 && operation->calls++ > 0 && random_chance(&world->random, 1, 4);
    if (m->node == NULL || m->calls_tail - m->calls_head == SIM_CALLS_WAITING_MAX) { /* nobody listens */
        c->state = CALL_ENDED;
        back_off(world, client, true);
        return;
    }
    c->state = CALL_TRAVELS;
    operation->travelling++;
    m->calls[m->calls_tail % SIM_CALLS_WAITING_MAX].call = client->call;
    m->calls[m->calls_tail % SIM_CALLS_WAITING_MAX].due_ns = travel(world);
    m->calls_tail++;
    client->state = CLIENT_WAITS;
    client->due_ns = c->timeout_ns;
}

static void begin(struct world *world, struct client *client)
{
    world->operations =
        grow(world->operations, world->operation_count, &world->operation_room, sizeof *world->operations);
    client->operation = world->operation_count++;
    struct operation *operation = &world->operations[client->operation];
    memset(operation, 0, sizeof *operation);
    operation->called_ns = world->now_ns;
    operation->floor_position = world->floor_position;
    operation->floor_index = world->floor_index;
    if (client->has_sessions && client->session == 0) {
        operation->kind = COMMAND_SESSION_OPEN;
    } else if (client->has_sessions && random_chance(&world->random, 1, 16)) {
        operation->kind = random_chance(&world->random, 1, 3) ? COMMAND_SESSION_CLOSE : COMMAND_SESSION_KEEP;
        operation->session = client->session;
    } else {
        workload_make(world->workload, &world->random, &world->plan, client->operation, &operation->what);
        if (client->has_sessions && !operation->what.query) {
            operation->session = client->session;
            operation->seq = ++client->seq;
        }
    }
    operation->command_hash =
        checks_command_hash(operation->session, operation->seq, operation->what.payload, operation->what.payload_bytes);
    client->give_up_ns = world->now_ns + 3 * world->plan.client_timeout_ns;
    call(world, client);
}

static void payload_free(struct operation *operation)
{
    free(operation->what.payload);
    operation->what.payload = NULL;
}

/* No try of it did anything, and none is on its way. */
static bool is_surely_none(const struct operation *operation)
{
    return operation->possible == 0 && operation->travelling == 0;
}

/* It ends: its effect is known, or unknown, or surely none. */
static void end(struct world *world, struct client *client, bool known, bool none)
{
    struct operation *operation = &world->operations[client->operation];
    unsigned number = (unsigned)(client - world->clients);
    trace_event(&world->trace, world->now_ns, TRACE_WORLD, TRACE_OUTCOME, number, client->operation, known);
    if (none) operation->what.has_history = false;
    operation->what.seen.called_ns = operation->called_ns;
    operation->what.seen.returned_ns = world->now_ns;
    operation->what.seen.known = false;
    if (operation->kind == COMMAND_SESSION_CLOSE && !none) client->session = 0;
    if (known) {
        const struct call *c = &world->calls[client->call];
        if (operation->kind == COMMAND_SESSION_OPEN) {
            client->session = c->position;
            client->seq = 0;
        }
        workload_understand(world->workload, &operation->what, c->code, c->reply, c->reply_bytes);
        operation->what.seen.known = true;
        if (operation->what.consistency == NODE_BOUNDED_STALE) operation->what.seen.called_ns = oldest_ns(world, c);
        if (c->position > world->floor_position) world->floor_position = c->position;
        told(world, c->index);
        world->applied_operations++;
        /* The other reads may be answered by a node alone: they show no progress. */
        if (operation->what.consistency == NODE_LINEARIZABLE || operation->what.consistency == NODE_FOLLOWER)
            world->newest_known_call_ns = operation->called_ns;
    }
    if (operation->travelling == 0) payload_free(operation);
    rest(world, client);
}

static void hear(struct world *world, struct client *client)
{
    const struct call *c = &world->calls[client->call];
    const struct operation *operation = &world->operations[c->operation];
    bool late = world->now_ns >= client->give_up_ns;
    bool again = operation->what.query || operation->seq != 0;
    /* No room for one more session: that, too, was found by applying it. */
    if (c->error == LOCKSTEP_EFULL && c->position != 0) world->newest_known_call_ns = operation->called_ns;
    if (c->error == 0) {
        end(world, client, true, false);
    } else if (c->error == LOCKSTEP_ENOTFOUND || c->error == LOCKSTEP_EWINDOW || c->error == LOCKSTEP_EREPLIED) {
        /* The session is gone, or the reply is: whether an earlier try was applied nobody says any more. */
        if (c->error == LOCKSTEP_ENOTFOUND) client->session = 0;
        end(world, client, false, false);
    } else if (late || (c->error == LOCKSTEP_EUNKNOWN && !again)) {
        end(world, client, false, is_surely_none(operation));
    } else {
        unsigned leader = SIM_NODES_MAX;
        struct member *m = &world->members[c->node];
        if (m->node != NULL && c->error == LOCKSTEP_ENOTLEADER) leader = world_leader(m);
        back_off(world, client, leader >= world->plan.nodes);
        if (leader < world->plan.nodes) client->node = leader;
    }
}

/* No answer in time: a command may be appended still. */
static void no_answer(struct world *world, struct client *client)
{
    struct operation *operation = &world->operations[client->operation];
    client->node = (unsigned)random_below(&world->random, world->plan.nodes);
    if (operation->seq != 0 && world->now_ns < client->give_up_ns)
        call(world, client);
    else
        end(world, client, false, operation->what.query);
}

void clients_work(struct world *world)
{
    for (unsigned i = 0; i < world->plan.clients; i++) {
        struct client *client = &world->clients[i];
        if (client->due_ns > world->now_ns) continue;
        switch (client->state) {
        case CLIENT_RESTS:
            if (world->clients_rest)
                client->due_ns = SIM_NEVER;
            else
                begin(world, client);
            break;
        case CLIENT_WAITS: no_answer(world, client); break;
        case CLIENT_HEARS: hear(world, client); break;
        case CLIENT_BACKS_OFF:
            if (world->now_ns >= client->give_up_ns)
                end(world, client, false, is_surely_none(&world->operations[client->operation]));
            else
                call(world, client);
            break;
        }
    }
}

/* --- the node's side ------------------------------------------------------------------------------------------ */

static void answered(struct world *world, uint32_t number, int error, int32_t code, raft_index index,
                     log_position position, const uint8_t *reply, uint32_t reply_bytes)
{
    struct call *c = &world->calls[number];
    if (c->state != CALL_WAITS) world_violated(world, "L1: call %u is answered twice", number);
    trace_event(&world->trace, world->now_ns, c->node, TRACE_ANSWER, c->client, number, (uint64_t)(int64_t)error, index,
                position, (uint64_t)(int64_t)code);
    c->state = CALL_ENDED;
    c->error = error;
    c->code = code;
    c->index = index;
    c->position = position;
    c->reply_bytes = reply_bytes < sizeof c->reply ? reply_bytes : (uint32_t)sizeof c->reply;
    if (c->reply_bytes > 0) memcpy(c->reply, reply, c->reply_bytes);
    struct client *client = &world->clients[c->client];
    if (client->state != CLIENT_WAITS || client->call != number) return; /* it has given up */
    client->state = CLIENT_HEARS;
    client->due_ns = travel(world);
}

/* One more call may bring the command into the log, or one surely does not. However many do: it may stand there once. */
static void perhaps(struct world *world, struct operation *operation)
{
    if (operation->possible++ == 0 && operation->kind == COMMAND_MACHINE)
        checks_attempt(world, operation->command_hash, 1);
}

static void surely_not(struct world *world, struct operation *operation)
{
    lk_assert(operation->possible > 0);
    if (--operation->possible == 0 && operation->kind == COMMAND_MACHINE)
        checks_attempt(world, operation->command_hash, -1);
}

static bool leaves(const struct member *m)
{
    return sim_disk_powered(m->disk); /* the power went in the middle of this turn: nobody hears this any more */
}

static void owner_proposed(void *context, uint64_t tag, const struct node_outcome *outcome)
{
    struct member *m = context;
    struct world *world = m->world;
    if (!leaves(m)) return;
    struct operation *operation = &world->operations[world->calls[tag].operation];
    if (outcome->error == 0) {
        if (operation->kind == COMMAND_MACHINE)
            checks_told(world, outcome->position, outcome->index, operation->command_hash, outcome->code,
                        outcome->reply, outcome->reply_bytes);
        if (outcome->position <= operation->floor_position || outcome->index <= operation->floor_index)
            world_violated(world,
                           "L3: call %llu began when position %llu (block %llu) was known, and stands at position %llu "
                           "(block %llu)",
                           (unsigned long long)tag, (unsigned long long)operation->floor_position,
                           (unsigned long long)operation->floor_index, (unsigned long long)outcome->position,
                           (unsigned long long)outcome->index);
    } else if (outcome->error != LOCKSTEP_EUNKNOWN) {
        surely_not(world, operation);
    }
    answered(world, (uint32_t)tag, outcome->error, outcome->code, outcome->index, outcome->position, outcome->reply,
             outcome->reply_bytes);
}

static void owner_queried(void *context, uint64_t tag, const struct node_answer *answer)
{
    struct member *m = context;
    struct world *world = m->world;
    if (!leaves(m)) return;
    const struct call *c = &world->calls[tag];
    const struct operation *operation = &world->operations[c->operation];
    if (c->outcome) {
        bool known = answer->error == 0 && answer->position != 0;
        if (known)
            checks_told(world, answer->position, answer->index, operation->command_hash, answer->code, answer->reply,
                        answer->reply_bytes);
        /* Not known to the session yet: a try may still be on its way. */
        answered(world, (uint32_t)tag, answer->error == 0 && !known ? LOCKSTEP_EUNAVAILABLE : answer->error,
                 answer->code, answer->index, answer->position, answer->reply, answer->reply_bytes);
        return;
    }
    static const char *const levels[] = {"linearizable", "local", "follower's", "bounded-stale"};
    const char *level = levels[operation->what.consistency];
    if (answer->error == 0 && answer->index < c->floor_index)
        world_violated(world, "L3: query %llu, a %s one, has to see block %llu, and is answered behind block %llu",
                       (unsigned long long)tag, level, (unsigned long long)c->floor_index,
                       (unsigned long long)answer->index);
    if (answer->error == 0 && answer->index < c->min_index)
        world_violated(world, "L3: query %llu, a %s one, asked for block %llu, and is answered behind block %llu",
                       (unsigned long long)tag, level, (unsigned long long)c->min_index,
                       (unsigned long long)answer->index);
    answered(world, (uint32_t)tag, answer->error, answer->code, answer->index, 0, answer->reply, answer->reply_bytes);
}

static void owner_transferred(void *context, uint64_t tag, int error)
{
    (void)context;
    (void)tag;
    (void)error;
}

static void owner_member_changed(void *context, uint64_t tag, const struct node_change_result *result)
{
    (void)tag;
    members_changed(context, result);
}

static void owner_changed(void *context)
{
    (void)context;
}

struct node_owner clients_owner(struct member *m)
{
    return (struct node_owner){.context = m,
                               .proposed = owner_proposed,
                               .queried = owner_queried,
                               .transferred = owner_transferred,
                               .member_changed = owner_member_changed,
                               .changed = owner_changed};
}

void clients_arrive(struct world *world, struct member *m)
{
    uint32_t number = m->calls[m->calls_head++ % SIM_CALLS_WAITING_MAX].call;
    struct call *c = &world->calls[number];
    struct operation *operation = &world->operations[c->operation];
    const struct workload_operation *what = &operation->what;
    lk_assert(c->state == CALL_TRAVELS);
    lk_assert(operation->travelling > 0);
    operation->travelling--;
    c->state = CALL_WAITS;
    c->arrived_ns = world->now_ns;
    trace_event(&world->trace, world->now_ns, m->i, TRACE_ASK, c->client, number, what->query, operation->command_hash);
    bool forward = random_chance(&world->random, world->plan.forward_per_1000, 1000);
    int rc;
    if (c->outcome) {
        struct node_query query = {.session = operation->session, .seq = operation->seq};
        rc = node_query(m->node, &query, forward, number);
    } else if (what->query) {
        struct node_query query = {.consistency = what->consistency,
                                   .min_index = c->min_index,
                                   .max_staleness_ns = what->max_staleness_ns,
                                   .query = what->payload,
                                   .query_bytes = what->payload_bytes};
        c->floor_index = what->consistency == NODE_LOCAL ? 0 : floor_at(world, oldest_ns(world, c));
        rc = node_query(m->node, &query, forward && what->consistency == NODE_LINEARIZABLE, number);
    } else {
        struct node_command command = {.kind = operation->kind,
                                       .session = operation->session,
                                       .seq = operation->seq,
                                       .payload = what->payload,
                                       .payload_bytes = what->payload_bytes};
        perhaps(world, operation);
        rc = node_propose(m->node, &command, forward, number);
        if (rc != 0) surely_not(world, operation);
    }
    world_wake(m, NODE_LOOP);
    const struct client *client = &world->clients[c->client];
    /* Its client has turned to something else, and no other try needs it. */
    bool ended = client->state == CLIENT_RESTS || client->operation != c->operation;
    if (ended && operation->travelling == 0) payload_free(&world->operations[c->operation]);
    if (rc == 0) return;
    c = &world->calls[number];
    trace_event(&world->trace, world->now_ns, m->i, TRACE_REFUSED, c->client, number, (uint64_t)(int64_t)rc);
    answered(world, number, rc, 0, 0, 0, NULL, 0);
}

void clients_node_died(struct world *world, struct member *m)
{
    for (; m->calls_head != m->calls_tail; m->calls_head++) {
        const struct call *c = &world->calls[m->calls[m->calls_head % SIM_CALLS_WAITING_MAX].call];
        world->operations[c->operation].travelling--;
    }
    for (unsigned i = 0; i < world->plan.clients; i++) {
        struct client *client = &world->clients[i];
        if (client->state != CLIENT_WAITS) continue;
        struct call *c = &world->calls[client->call];
        if (c->node != m->i) continue;
        c->state = CALL_ENDED;
        c->error = LOCKSTEP_EUNKNOWN;
        client->state = CLIENT_HEARS;
        client->due_ns = travel(world);
        client->node = (unsigned)random_below(&world->random, world->plan.nodes);
    }
}

/* --- judgement ------------------------------------------------------------------------------------------------ */

static int by_key(const void *left, const void *right)
{
    const struct operation *a = *(struct operation *const *)left, *b = *(struct operation *const *)right;
    if (a->what.key != b->what.key) return a->what.key < b->what.key ? -1 : 1;
    return a < b ? -1 : a > b; /* both in one array: the order of their beginning */
}

static void judge_key(struct world *world, struct operation **list, uint32_t count)
{
    static struct linearizable_operation history[LINEARIZABLE_OPERATIONS_MAX];
    if (count > LINEARIZABLE_OPERATIONS_MAX) {
        world->undecided++;
        return;
    }
    for (uint32_t i = 0; i < count; i++) history[i] = list[i]->what.seen;
    switch (linearizable(history, count, LINEARIZABLE_STEPS_MAX)) {
    case LINEARIZABLE_YES: return;
    case LINEARIZABLE_UNDECIDED: world->undecided++; return;
    case LINEARIZABLE_NO: break;
    }
    for (uint32_t i = 0; i < count; i++) {
        static const char *const kinds[] = {"get", "put", "del", "cas", "incr"};
        const struct linearizable_operation *op = &history[i];
        fprintf(stderr, "  %4llu.%06llu .. %4llu.%06llu  %-4s %lld %lld: ", (unsigned long long)(op->called_ns / SIM_S),
                (unsigned long long)(op->called_ns / SIM_US % 1000000), (unsigned long long)(op->returned_ns / SIM_S),
                (unsigned long long)(op->returned_ns / SIM_US % 1000000), kinds[op->kind], (long long)op->a,
                (long long)op->b);
        if (op->known)
            fprintf(stderr, "%s %lld\n", op->done ? "yes" : "no", (long long)op->result);
        else
            fprintf(stderr, "unknown\n");
    }
    world_violated(world, "L4: what clients saw of key %llu cannot have happened one after the other",
                   (unsigned long long)list[0]->what.key);
}

void clients_judge(struct world *world)
{
    struct operation **list = calloc(world->operation_count + 1, sizeof(struct operation *));
    uint32_t count = 0;
    lk_assert(list != NULL);
    for (uint32_t i = 0; i < world->operation_count; i++)
        if (world->operations[i].what.has_history) list[count++] = &world->operations[i];
    qsort(list, count, sizeof(struct operation *), by_key);
    for (uint32_t first = 0, last; first < count; first = last) {
        for (last = first; last < count && list[last]->what.key == list[first]->what.key;) last++;
        judge_key(world, list + first, last - first);
    }
    free(list);
}
