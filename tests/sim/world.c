/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { STEPS_WITHOUT_TIME_MAX = 100000 };

struct member *world_opening;

_Noreturn void world_violated(struct world *world, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "VIOLATED in the %s phase, at %llu.%06llu s: %s\n", world->phase,
            (unsigned long long)(world->now_ns / SIM_S), (unsigned long long)(world->now_ns / SIM_US % 1000000), text);
    abort();
}

/* --- clocks: a node's own runs a little faster or slower than the world's ------------------------------------- */

uint64_t world_clock(const struct member *m)
{
    int64_t since = (int64_t)(m->world->now_ns - m->clock_at_ns);
    int64_t drift = since / 1000000 * m->drift_ppm + since % 1000000 * m->drift_ppm / 1000000;
    return m->clock_ns + (uint64_t)(since + drift);
}

/* When its clock will show `ns`. */
static uint64_t clock_when(const struct member *m, uint64_t ns)
{
    if (ns <= m->clock_ns) return m->world->now_ns;
    uint64_t wait = ns - m->clock_ns;
    if (wait > 1000000 * SIM_S) return SIM_NEVER;
    uint64_t ticks = (uint64_t)(1000000 + m->drift_ppm);
    uint64_t since = wait / ticks * 1000000 + wait % ticks * 1000000 / ticks;
    /* Rounded: a late turn is harmless, an early one would come again and again. */
    return m->clock_at_ns + since + SIM_US;
}

static uint64_t env_now(void *context)
{
    return world_clock(context);
}

static uint64_t env_wall(void *context)
{
    const struct member *m = context;
    return UINT64_C(1700000000) * SIM_S + (uint64_t)((int64_t)m->world->now_ns + m->wall_offset_ns);
}

static uint64_t env_random(void *context)
{
    struct member *m = context;
    return random_u64(&m->world->random);
}

void world_wake(struct member *m, enum node_part part)
{
    const struct sim_plan *plan = &m->world->plan;
    if (m->due_ns[part] <= m->world->now_ns + plan->work_ns_min[part]) return;
    uint64_t at =
        m->world->now_ns + random_between(&m->world->random, plan->work_ns_min[part], plan->work_ns_max[part]);
    if (at < m->due_ns[part]) m->due_ns[part] = at;
}

static void env_wake(void *context, enum node_part part)
{
    world_wake(context, part);
}

/* No time passes within a part's work. */
static bool env_pause(void *context, uint64_t ns)
{
    (void)context;
    (void)ns;
    return true;
}

void world_log(struct member *m, const char *part, const char *text)
{
    if (m->world->trace.print)
        printf("%4llu.%06llu n%u %s: %s\n", (unsigned long long)(m->world->now_ns / SIM_S),
               (unsigned long long)(m->world->now_ns / SIM_US % 1000000), m->i + 1, part, text);
}

static void env_log(void *context, enum node_log_level level, const char *part, const char *text)
{
    (void)level;
    world_log(context, part, text);
}

/* --- what the doors tell -------------------------------------------------------------------------------------- */

static void disk_operation(void *context, enum sim_disk_operation_kind kind, uint64_t offset, uint64_t bytes)
{
    struct member *m = context;
    struct world *world = m->world;
    switch (kind) {
    case SIM_DISK_WRITE: trace_event(&world->trace, world->now_ns, m->i, TRACE_WRITE, offset, bytes); break;
    case SIM_DISK_FLUSH: trace_event(&world->trace, world->now_ns, m->i, TRACE_FLUSH, 0); break;
    case SIM_DISK_FLUSH_FAILED:
        trace_event(&world->trace, world->now_ns, m->i, TRACE_FLUSH_FAILED, 0);
        if (m->flush_failed_ns == 0) m->flush_failed_ns = world->now_ns;
        break;
    }
}

/* In the middle of whatever the node is doing: from here on nothing of it leaves. */
static void disk_power_cut(void *context)
{
    struct member *m = context;
    sim_net_mute(m->world->net, m->i);
    sim_link_mute(m->world->links, m->i);
    trace_event(&m->world->trace, m->world->now_ns, m->i, TRACE_POWER_CUT, sim_disk_operations(m->disk), 1);
}

static void net_sent(void *context, unsigned from, unsigned to, const struct transport_send *send)
{
    checks_sent(context, from, to, send);
}

/* --- life and death ------------------------------------------------------------------------------------------- */

static void doors_open(struct member *m)
{
    m->disk = sim_disk_open(random_u64(&m->world->random));
    m->kv = sim_kv_open(m->disk);
    sim_disk_watch_set(
        m->disk, &(struct sim_disk_watch){.context = m, .operation = disk_operation, .power_cut = disk_power_cut});
    sim_disk_lie(m->disk, m->world->plan.lying_disk);
}

void world_open(struct world *world, const struct sim_plan *plan, struct copies *copies, struct workload *workload,
                bool print)
{
    memset(world, 0, sizeof *world);
    world->plan = *plan;
    world->copies = copies;
    world->workload = workload;
    world->trace.print = print;
    world->phase = "birth";
    random_seed(&world->random, plan->seed ^ UINT64_C(0x6c6f636b73746570));
    world->now_ns = 1 * SIM_S;
    world->net = sim_net_open(&world->random, &world->now_ns);
    world->links = sim_links_open(&world->random, &world->now_ns);
    sim_net_watch_set(world->net, &(struct sim_net_watch){.context = world, .sent = net_sent});
    world->truth = truth_open();
    for (unsigned i = 0; i < plan->nodes; i++) {
        struct member *m = &world->members[i];
        m->world = world;
        m->i = i;
        doors_open(m);
        m->restart_ns = world->now_ns + random_below(&world->random, 100 * SIM_MS);
        m->clock_at_ns = world->now_ns;
        m->clock_ns = random_between(&world->random, 1 * SIM_S, 100000 * SIM_S);
        if (plan->drift_ppm_max != 0)
            m->drift_ppm =
                (int64_t)random_below(&world->random, 2 * plan->drift_ppm_max + 1) - (int64_t)plan->drift_ppm_max;
    }
    for (unsigned kind = 0; kind < FAULTS; kind++) world->fault_due_ns[kind] = SIM_NEVER;
    world->faults_next_ns = SIM_NEVER;
    clients_open(world);
    observers_open(world);
}

void world_close(struct world *world)
{
    for (unsigned i = 0; i < world->plan.nodes; i++) {
        struct member *m = &world->members[i];
        if (m->node != NULL) m->transport->ops->close(m->transport);
        node_close(m->node);
        sim_kv_close(m->kv);
        sim_disk_close(m->disk);
    }
    observers_close(world);
    sim_links_close(world->links);
    sim_net_close(world->net);
    clients_close(world);
    truth_close(world->truth);
}

/* As a configuration file does. */
static void member_describe(struct node_member_options *member, unsigned i)
{
    snprintf(member->name, sizeof member->name, "n%u", i + 1);
    snprintf(member->client, sizeof member->client, "n%u:1", i + 1);
    snprintf(member->peer, sizeof member->peer, "%u:2", i); /* sim_net's */
}

static void options_of(const struct member *m, struct node_options *options)
{
    const struct sim_plan *plan = &m->world->plan;
    *options = (struct node_options){
        .cluster = "sim",
        .member_count = plan->listed,
        .self = m->i < plan->listed ? m->i : plan->listed,
        .election_timeout_ns = plan->election_timeout_ns,
        .heartbeat_ns = plan->heartbeat_ns,
        .command_bytes_max = plan->command_bytes_max,
        .block_bytes_max = plan->block_bytes_max,
        .ring_bytes = plan->ring_bytes,
        .journal_bytes = plan->journal_bytes,
        .map_bytes = 1 << 30,
        .append_inflight_bytes_max = plan->ring_bytes / 4,
        .proposals_max = 4096,
        .queries_max = 256,
        .snapshot_after_bytes = plan->snapshot_after_bytes,
        .snapshot_age_ns = plan->snapshot_age_ns,
        .piece_bytes = plan->piece_bytes,
        .sessions = plan->sessions,
        .lease_reads = plan->lease_reads,
        .replies_bytes = HOST_REPLIES_BYTES_MIN,
        .queries_bytes = 256 << 10,
        .level = plan->level,
        .plugin = &m->plugin,
        .disk = sim_disk(m->disk),
        .kv = sim_kv(m->kv),
    };
    snprintf(options->data_directory, sizeof options->data_directory, "n%u", m->i + 1);
    for (unsigned k = 0; k < plan->listed; k++) member_describe(&options->members[k], k);
    if (m->i >= plan->listed) member_describe(&options->members[options->member_count++], m->i);
}

/* Members that were removed are told so, and end. */
static bool was_removed(const struct member *m)
{
    return m->was_member && checks_role(m->world, m->i) == 0;
}

/* The process could not start, or died while it started. */
static void start_failed(struct member *m, int error, const char *why)
{
    struct world *world = m->world;
    trace_event(&world->trace, world->now_ns, m->i, TRACE_START_FAILED, (uint64_t)(int64_t)error);
    bool power_cut = !sim_disk_powered(m->disk);
    bool full = error == LOCKSTEP_ENOSPC && m->full_until_ns != 0;
    bool rotten = !power_cut && rot_excuses(m, error);
    if (!power_cut && m->flush_failed_ns == 0 && !full && !was_removed(m) && !rotten)
        world_violated(world, "n%u does not start on its own data: error %d: %s", m->i + 1, error, why);
    if (!power_cut) sim_disk_kill(m->disk);
    sim_disk_power_on(m->disk);
    if (rotten) rot_undo(world);
    m->flush_fails = false;
    m->flush_failed_ns = 0;
    m->restart_ns = world->now_ns + random_between(&world->random, SIM_MS, 500 * SIM_MS);
}

void world_start(struct world *world, unsigned i)
{
    struct member *m = &world->members[i];
    lk_assert(m->node == NULL);
    /* Level memory: it would be empty, also where it was removed. */
    if (world->plan.level == DURABILITY_LEVEL_MEMORY && m->starts > 0 && i < world->plan.listed &&
        checks_committed(world) > 0 && members_another_birth(world, i)) {
        m->restart_ns = world->now_ns + SIM_S;
        return;
    }
    m->restart_ns = SIM_NEVER;
    for (unsigned part = 0; part < NODE_PARTS; part++) {
        m->due_ns[part] = SIM_NEVER;
        m->blocked_ns[part] = 0;
    }
    m->stopping = false;
    m->starts++;
    memset(&m->seen, 0, sizeof m->seen);
    witness_open(m, copies_fresh(world->copies, i));
    struct node_options options;
    options_of(m, &options);
    struct node_env env = {.context = m,
                           .now_ns = env_now,
                           .wall_ns = env_wall,
                           .random = env_random,
                           .wake = env_wake,
                           .pause = env_pause,
                           .log = env_log};
    struct node_owner owner = clients_owner(m);
    char why[NODE_WHY_BYTES_MAX] = "";
    world_opening = m;
    int rc = node_open(&options, &env, &owner, &m->node, why, sizeof why);
    if (rc == 0 && !sim_disk_powered(m->disk)) { /* the very last write: it was open for no time */
        node_close(m->node);
        rc = LOCKSTEP_EIO;
    }
    if (rc != 0) {
        m->node = NULL;
        start_failed(m, rc, why);
        return;
    }
    struct transport_owner transport_owner = node_transport_owner(m->node);
    struct transport_hello hello;
    node_transport_hello(m->node, &hello);
    m->transport = sim_net_attach(world->net, i, &transport_owner, &hello);
    /* As tcp does it: a slot that nobody was given is nobody's, and nobody dials himself. */
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
        if (slot >= options.member_count || slot == options.self)
            (void)m->transport->ops->peer_set(m->transport, slot, "", "");
    if (world->plan.shares_memory) m->transport = memory_open(m, m->transport, &transport_owner, &hello);
    node_attach(m->node, m->transport);
    checks_started(m);
    m->due_ns[NODE_LOOP] = world->now_ns;
    m->deadline_ns = world->now_ns;
}

void world_crash(struct world *world, unsigned i, bool power, uint64_t restart_ns)
{
    struct member *m = &world->members[i];
    lk_assert(m->node != NULL);
    checks_dies(m);
    m->transport->ops->close(m->transport);
    if (sim_disk_powered(m->disk)) { /* before close: nothing that close does reaches the disk */
        if (power)
            sim_disk_power_cut(m->disk);
        else
            sim_disk_kill(m->disk);
        if (!power) trace_event(&world->trace, world->now_ns, i, TRACE_KILL, 0);
    }
    node_close(m->node);
    m->node = NULL;
    sim_disk_power_on(m->disk);
    clients_node_died(world, m);
    m->flush_fails = false;
    m->flush_failed_ns = 0;
    m->restart_ns = restart_ns;
    if (world->plan.level == DURABILITY_LEVEL_MEMORY) checks_wiped(m); /* the next process is somebody else */
    if (power && random_chance(&world->random, 1, 2)) { /* the host started anew, and with it its clock */
        m->clock_at_ns = world->now_ns;
        m->clock_ns = random_between(&world->random, 1 * SIM_S, 100 * SIM_S);
    }
}

void world_wipe(struct world *world, unsigned i)
{
    struct member *m = &world->members[i];
    lk_assert(m->node == NULL);
    trace_event(&world->trace, world->now_ns, i, TRACE_WIPE, 0);
    sim_kv_close(m->kv);
    sim_disk_close(m->disk);
    doors_open(m);
    m->full_until_ns = 0;
    if (world->rot.i == i) world->rot.on = false;
    checks_wiped(m);
}

unsigned world_leader(const struct member *m)
{
    unsigned slot = node_leader(m->node);
    if (slot >= RAFT_MEMBERS_MAX) return SIM_NODES_MAX;
    const char *name = node_options_of(m->node)->members[slot].name;
    return name[0] == 'n' ? (unsigned)(name[1] - '1') : SIM_NODES_MAX;
}

void world_block(struct world *world, unsigned i, enum node_part part, uint64_t ns)
{
    struct member *m = &world->members[i];
    if (m->blocked_ns[part] < world->now_ns + ns) m->blocked_ns[part] = world->now_ns + ns;
}

/* --- steps ---------------------------------------------------------------------------------------------------- */

static uint64_t restart_soon(struct world *world)
{
    return world->now_ns + random_between(&world->random, SIM_MS, world->plan.fault_length_ns_max);
}

/* The process ended by itself: it must have had a reason. */
static void ended(struct member *m, int error, const char *why)
{
    struct world *world = m->world;
    trace_event(&world->trace, world->now_ns, m->i, TRACE_EXIT, (uint64_t)(int64_t)error);
    bool unborn = error == LOCKSTEP_ENOSPC && m->full_until_ns != 0 && m->seen.term == 0;
    bool rotten = rot_excuses(m, error);
    if (m->flush_failed_ns == 0 && !m->stopping && !unborn && !was_removed(m) && !rotten)
        world_violated(world, "n%u ends by itself: error %d: %s", m->i + 1, error, why);
    world_crash(world, m->i, false, restart_soon(world));
    if (rotten) rot_undo(world);
}

static void loop_turn(struct member *m)
{
    struct world *world = m->world;
    trace_event(&world->trace, world->now_ns, m->i, TRACE_TURN, 0);
    node_drain(m->node);
    if (!sim_disk_powered(m->disk)) {
        world_crash(world, m->i, true, restart_soon(world));
        return;
    }
    checks_turned(m);
    const char *why = "told to stop";
    int error = node_failed(m->node, &why);
    if (node_removed(m->node) && !m->stopping) { /* as the server does */
        m->stopping = true;
        node_stop(m->node);
    }
    if (error != 0 || (m->stopping && node_drained(m->node))) {
        ended(m, error, why);
        return;
    }
    /* R8: a failed flush ends the process, and it takes no long thought. */
    if (m->flush_failed_ns != 0 && world->now_ns > m->flush_failed_ns + SIM_S)
        world_violated(world, "n%u goes on after a failed flush", m->i + 1);
    m->deadline_ns = clock_when(m, node_deadline_ns(m->node));
}

static void part_work(struct member *m, enum node_part part)
{
    struct world *world = m->world;
    if (part == NODE_LOOP && world->plan.shares_memory) sim_link_work(world->links, m->i);
    m->due_ns[part] = SIM_NEVER;
    m->blocked_ns[part] = world->now_ns + SIM_US; /* nothing takes no time */
    world_opening = m;                            /* birth opens the machine in the middle of a turn */
    if (part == NODE_LOOP) {
        loop_turn(m);
        return;
    }
    trace_event(&world->trace, world->now_ns, m->i, TRACE_WORK, part);
    uint64_t again_ns = node_work(m->node, part);
    if (!sim_disk_powered(m->disk)) {
        world_crash(world, m->i, true, restart_soon(world));
        return;
    }
    if (again_ns != UINT64_MAX && world->now_ns + again_ns + SIM_US < m->due_ns[part])
        m->due_ns[part] = world->now_ns + again_ns + SIM_US;
}

static uint64_t part_due(const struct member *m, enum node_part part)
{
    uint64_t due = m->due_ns[part];
    if (part == NODE_LOOP) {
        uint64_t frame = sim_net_first_ns(m->world->net, m->i);
        if (m->deadline_ns < due) due = m->deadline_ns;
        uint64_t local = sim_link_first_ns(m->world->links, m->i);
        if (frame < due) due = frame;
        if (local < due) due = local;
    }
    return due < m->blocked_ns[part] ? m->blocked_ns[part] : due;
}

enum { DUE_NOTHING, DUE_PART, DUE_START, DUE_CALL, DUE_CLIENTS, DUE_OBSERVERS, DUE_FAULTS };

struct due {
    uint64_t at_ns;
    uint8_t what, part;
    struct member *m;
};

static void earlier(struct due *due, uint64_t at_ns, uint8_t what, struct member *m, uint8_t part)
{
    if (at_ns < due->at_ns) *due = (struct due){.at_ns = at_ns, .what = what, .part = part, .m = m};
}

static struct due next_due(struct world *world)
{
    struct due due = {.at_ns = SIM_NEVER};
    for (unsigned i = 0; i < world->plan.nodes; i++) {
        struct member *m = &world->members[i];
        if (m->node == NULL) {
            earlier(&due, m->restart_ns, DUE_START, m, 0);
            continue;
        }
        for (enum node_part part = NODE_LOOP; part < NODE_PARTS; part++)
            earlier(&due, part_due(m, part), DUE_PART, m, (uint8_t)part);
        if (m->calls_head != m->calls_tail) {
            uint64_t at_ns = m->calls[m->calls_head % SIM_CALLS_WAITING_MAX].due_ns;
            if (at_ns < m->blocked_ns[NODE_LOOP]) at_ns = m->blocked_ns[NODE_LOOP];
            earlier(&due, at_ns, DUE_CALL, m, 0);
        }
    }
    earlier(&due, clients_next_ns(world), DUE_CLIENTS, NULL, 0);
    earlier(&due, observers_next_ns(world), DUE_OBSERVERS, NULL, 0);
    earlier(&due, world->faults_next_ns, DUE_FAULTS, NULL, 0);
    return due;
}

bool world_step(struct world *world, uint64_t end_ns)
{
    struct due due = next_due(world);
    if (due.at_ns > end_ns) {
        world->now_ns = end_ns;
        return false;
    }
    static uint64_t without_time;
    if (due.at_ns > world->now_ns) {
        world->now_ns = due.at_ns;
        without_time = 0;
    } else if (++without_time > STEPS_WITHOUT_TIME_MAX) {
        world_violated(world, "steps without end while no time passes");
    }
    world->steps++;
    switch (due.what) {
    case DUE_PART: part_work(due.m, due.part); break;
    case DUE_START: world_start(world, due.m->i); break;
    case DUE_CALL: clients_arrive(world, due.m); break;
    case DUE_CLIENTS: clients_work(world); break;
    case DUE_OBSERVERS: observers_work(world); break;
    case DUE_FAULTS: faults_work(world); break;
    default: lk_unreachable();
    }
    return true;
}
