/* SPDX-License-Identifier: Apache-2.0 */
/* faults.c - what goes wrong, and when: each kind comes again after a time that the seed draws around its mean. */
#include "base/assert.h"
#include "tests/sim/world.h"

enum { LOG_ROOM_TO_START = 1 << 20 };

static uint64_t length(struct world *world)
{
    return random_between(&world->random, SIM_MS, world->plan.fault_length_ns_max);
}

static void schedule(struct world *world, unsigned kind)
{
    uint64_t mean = world->plan.fault_ns[kind];
    world->fault_due_ns[kind] = mean == 0 ? SIM_NEVER : world->now_ns + random_between(&world->random, 1, 2 * mean);
}

/* The earliest of all times, for those who ask at every step. */
static void look(struct world *world)
{
    uint64_t next = SIM_NEVER;
    for (unsigned kind = 0; kind < FAULTS; kind++)
        if (world->fault_due_ns[kind] < next) next = world->fault_due_ns[kind];
    if (world->rot.on && world->rot.undo_ns < next) next = world->rot.undo_ns;
    for (unsigned from = 0; from < world->plan.nodes; from++) {
        const struct member *m = &world->members[from];
        if (m->full_until_ns != 0 && m->full_until_ns < next) next = m->full_until_ns;
        if (m->away_until_ns != 0 && m->away_until_ns < next) next = m->away_until_ns;
        for (unsigned to = 0; to < world->plan.nodes; to++) {
            uint64_t until_ns = world->cuts[from][to].until_ns;
            if (until_ns != 0 && until_ns < next) next = until_ns;
        }
    }
    world->faults_next_ns = next;
}

void faults_begin(struct world *world)
{
    const struct sim_plan *plan = &world->plan;
    world->faults_on = true;
    sim_net_faults_set(world->net, &(struct sim_net_faults){.delay_ns_min = plan->delay_ns_min,
                                                            .delay_ns_max = plan->delay_ns_max,
                                                            .loss_per_1000 = plan->loss_per_1000,
                                                            .duplicate_per_1000 = plan->duplicate_per_1000});
    sim_links_faults_set(world->links, &(struct sim_link_faults){.delay_ns_min = plan->bell_ns_min,
                                                                 .delay_ns_max = plan->bell_ns_max,
                                                                 .refused_per_1000 = plan->refused_per_1000,
                                                                 .late_per_1000 = plan->late_per_1000,
                                                                 .hang_up_per_1000 = plan->broken_per_1000});
    for (unsigned kind = 0; kind < FAULTS; kind++) schedule(world, kind);
    look(world);
}

/* --- links ---------------------------------------------------------------------------------------------------- */

static void cut(struct world *world, unsigned from, unsigned to, uint64_t until_ns)
{
    if (from == to || until_ns <= world->cuts[from][to].until_ns) return;
    if (world->cuts[from][to].until_ns == 0) {
        trace_event(&world->trace, world->now_ns, from, TRACE_LINK_CUT, to);
        sim_net_cut(world->net, from, to, true);
    }
    world->cuts[from][to].until_ns = until_ns;
}

static void heal(struct world *world, unsigned from, unsigned to)
{
    trace_event(&world->trace, world->now_ns, from, TRACE_LINK_HEALED, to);
    world->cuts[from][to].until_ns = 0;
    sim_net_cut(world->net, from, to, false);
}

/* ways  1: it is not heard, 2: it hears nothing, 3: both */
static void isolate(struct world *world, unsigned i, unsigned ways, uint64_t until_ns)
{
    for (unsigned k = 0; k < world->plan.nodes; k++) {
        if (ways & 1) cut(world, i, k, until_ns);
        if (ways & 2) cut(world, k, i, until_ns);
    }
}

static void split(struct world *world, uint64_t until_ns)
{
    uint64_t side = random_u64(&world->random);
    for (unsigned from = 0; from < world->plan.nodes; from++)
        for (unsigned to = 0; to < world->plan.nodes; to++)
            if ((side >> from & 1) != (side >> to & 1)) cut(world, from, to, until_ns);
}

/* --- one fault ------------------------------------------------------------------------------------------------ */

static void pause_node(struct world *world, unsigned i, uint64_t ns)
{
    trace_event(&world->trace, world->now_ns, i, TRACE_PAUSE, ns / SIM_MS);
    for (enum node_part part = NODE_LOOP; part < NODE_PARTS; part++) world_block(world, i, part, ns);
}

static bool anybody_stands_still(const struct world *world)
{
    for (unsigned i = 0; i < world->plan.nodes; i++)
        if (world->members[i].node != NULL && world_paused(&world->members[i])) return true;
    return false;
}

static void slow(struct world *world, unsigned i, enum node_part part)
{
    uint64_t ns = length(world);
    trace_event(&world->trace, world->now_ns, i, TRACE_SLOW, part, ns / SIM_MS);
    world_block(world, i, part, ns);
}

static void power_cut_soon(struct world *world, struct member *m)
{
    uint64_t operations = random_below(&world->random, 12);
    trace_event(&world->trace, world->now_ns, m->i, TRACE_ARMED, operations, SIM_NEVER);
    sim_disk_power_cut_after(m->disk, operations);
}

static void flush_fails_soon(struct world *world, struct member *m)
{
    uint64_t flushes = random_below(&world->random, 12);
    trace_event(&world->trace, world->now_ns, m->i, TRACE_ARMED, SIM_NEVER, flushes);
    sim_disk_fail_flush_after(m->disk, flushes);
}

/* What a start and the log's own book-keeping need is left, or nothing at all. */
static void disk_full(struct world *world, struct member *m, uint64_t until_ns)
{
    bool log_alone = random_chance(&world->random, 1, 2);
    trace_event(&world->trace, world->now_ns, m->i, TRACE_FULL, 1, log_alone);
    if (!log_alone) sim_disk_capacity(m->disk, 0);
    sim_kv_capacity(m->kv, sim_kv_bytes(m->kv) + LOG_ROOM_TO_START);
    m->full_until_ns = until_ns;
}

static void disk_freed(struct world *world, struct member *m)
{
    trace_event(&world->trace, world->now_ns, m->i, TRACE_FULL, 0);
    sim_disk_capacity(m->disk, UINT64_MAX);
    sim_kv_capacity(m->kv, UINT64_MAX);
    m->full_until_ns = 0;
}

static void memory_away(struct world *world, struct member *m, uint64_t until_ns)
{
    if (until_ns <= m->away_until_ns) return;
    trace_event(&world->trace, world->now_ns, m->i, TRACE_AWAY, 1);
    sim_link_away(world->links, m->i, true);
    m->away_until_ns = until_ns;
}

static void memory_back(struct world *world, struct member *m)
{
    trace_event(&world->trace, world->now_ns, m->i, TRACE_AWAY, 0);
    sim_link_away(world->links, m->i, false);
    m->away_until_ns = 0;
}

static void all_down(struct world *world)
{
    for (unsigned i = 0; i < world->plan.nodes; i++)
        if (world->members[i].node != NULL) world_crash(world, i, true, world->now_ns + length(world));
}

static void transfer(struct world *world, struct member *m)
{
    unsigned target = (unsigned)random_below(&world->random, world->plan.nodes + 1);
    char name[8] = "";
    if (target < world->plan.nodes) {
        name[0] = 'n';
        name[1] = (char)('1' + target);
    }
    int rc = node_transfer(m->node, name, 0);
    trace_event(&world->trace, world->now_ns, m->i, TRACE_TRANSFER, target, (uint64_t)(int64_t)rc);
}

static void happen(struct world *world, enum plan_fault kind)
{
    unsigned i = (unsigned)random_below(&world->random, world->plan.nodes);
    struct member *m = &world->members[i];
    /* Half of the time whoever leads is meant: that is where most is at stake. */
    if (random_chance(&world->random, 1, 2) && m->node != NULL) {
        unsigned leader = world_leader(m);
        if (leader < world->plan.nodes) m = &world->members[i = leader];
    }
    unsigned other = (unsigned)random_below(&world->random, world->plan.nodes);
    uint64_t until_ns = world->now_ns + length(world);
    bool runs = m->node != NULL;
    switch (kind) {
    case FAULT_POWER_CUT: power_cut_soon(world, m); break; /* also while it starts */
    case FAULT_KILL:
        if (runs) world_crash(world, i, false, until_ns);
        break;
    case FAULT_ALL_DOWN: all_down(world); break;
    case FAULT_STOP:
        if (runs && !m->stopping) {
            trace_event(&world->trace, world->now_ns, i, TRACE_STOP, 0);
            m->stopping = true;
            node_stop(m->node);
        }
        break;
    case FAULT_FLUSH: flush_fails_soon(world, m); break;
    case FAULT_FULL: disk_full(world, m, until_ns); break;
    case FAULT_ISOLATE: isolate(world, i, 1 + (unsigned)random_below(&world->random, 3), until_ns); break;
    case FAULT_SPLIT: split(world, until_ns); break;
    case FAULT_LINK: cut(world, i, other, until_ns); break;
    case FAULT_HANG_UP:
        if (i != other && runs) {
            trace_event(&world->trace, world->now_ns, i, TRACE_HANG_UP, other);
            sim_net_hang_up(world->net, i, other);
        }
        break;
    case FAULT_PAUSE:
        if (!world->plan.laps)
            pause_node(world, i, length(world));
        else if (!anybody_stands_still(world)) /* else nothing goes on, and nobody is lapped */
            pause_node(world, other, length(world));
        break;
    case FAULT_SLOW_DISK: slow(world, i, NODE_JOURNAL); break;
    case FAULT_SLOW_PART: slow(world, i, NODE_LOG + (enum node_part)random_below(&world->random, 3)); break;
    case FAULT_WALL_CLOCK: {
        int64_t jump = (int64_t)random_below(&world->random, 20 * SIM_S) - (int64_t)(10 * SIM_S);
        trace_event(&world->trace, world->now_ns, i, TRACE_WALL_JUMP, (uint64_t)(jump < 0 ? -jump : jump) / SIM_MS,
                    jump < 0);
        m->wall_offset_ns += jump;
        break;
    }
    case FAULT_TRANSFER:
        if (runs && !world_paused(m)) transfer(world, m);
        break;
    case FAULT_MEMBERS: members_operate(world); break;
    case FAULT_ROT: rot_happen(world, m, until_ns); break;
    case FAULT_LOCAL:
        if (i == other) break;
        trace_event(&world->trace, world->now_ns, i, TRACE_LOCAL_HANG_UP, other);
        sim_link_hang_up(world->links, i, other);
        break;
    case FAULT_AWAY: memory_away(world, m, until_ns); break;
    case FAULTS: lk_unreachable();
    }
}

void faults_work(struct world *world)
{
    for (unsigned i = 0; i < world->plan.nodes; i++) {
        struct member *m = &world->members[i];
        if (m->full_until_ns != 0 && m->full_until_ns <= world->now_ns) disk_freed(world, m);
        if (m->away_until_ns != 0 && m->away_until_ns <= world->now_ns) memory_back(world, m);
    }
    for (unsigned from = 0; from < world->plan.nodes; from++)
        for (unsigned to = 0; to < world->plan.nodes; to++)
            if (world->cuts[from][to].until_ns != 0 && world->cuts[from][to].until_ns <= world->now_ns)
                heal(world, from, to);
    rot_work(world);
    for (unsigned kind = 0; kind < FAULTS; kind++) {
        if (world->fault_due_ns[kind] > world->now_ns) continue;
        schedule(world, kind);
        happen(world, (enum plan_fault)kind);
    }
    look(world);
}

/* What a node that is given up does from now on. */
static void give_up(struct world *world, struct member *m)
{
    m->given_up = true;
    unsigned how = (unsigned)random_below(&world->random, 4);
    if (how == 0 && world->plan.level == DURABILITY_LEVEL_MEMORY && members_another_birth(world, m->i)) how = 1;
    switch (how) {
    case 0:
        if (m->node != NULL) world_crash(world, m->i, true, SIM_NEVER);
        m->restart_ns = SIM_NEVER;
        break;
    case 1: pause_node(world, m->i, 1000 * SIM_S); break;
    default: /* also from its host: else it could lead those whom it reaches there, and nobody would make up for the rest */
        isolate(world, m->i, 1 + (unsigned)random_below(&world->random, 3), SIM_NEVER - 1);
        if (world->plan.shares_memory) memory_away(world, m, SIM_NEVER - 1);
    }
}

static void mend(struct world *world, struct member *m)
{
    m->given_up = false;
    if (m->full_until_ns != 0) disk_freed(world, m);
    if (m->away_until_ns != 0) memory_back(world, m);
    sim_disk_power_cut_after(m->disk, UINT64_MAX - sim_disk_operations(m->disk));
    if (m->flush_failed_ns == 0) sim_disk_fail_flush_after(m->disk, UINT64_MAX);
    for (unsigned part = 0; part < NODE_PARTS; part++) m->blocked_ns[part] = world->now_ns;
    if (m->node == NULL && m->restart_ns > world->now_ns + SIM_S)
        m->restart_ns = world->now_ns + random_below(&world->random, SIM_S);
}

void faults_end(struct world *world)
{
    const struct sim_plan *plan = &world->plan;
    bool first = world->faults_on;
    world->faults_on = false;
    for (unsigned kind = 0; kind < FAULTS; kind++) world->fault_due_ns[kind] = SIM_NEVER;
    sim_net_faults_set(
        world->net, &(struct sim_net_faults){.delay_ns_min = plan->delay_ns_min, .delay_ns_max = plan->delay_ns_max});
    sim_links_faults_set(
        world->links, &(struct sim_link_faults){.delay_ns_min = plan->bell_ns_min, .delay_ns_max = plan->bell_ns_max});
    bool all_born = true;
    rot_end(world);
    for (unsigned from = 0; from < plan->nodes; from++) {
        mend(world, &world->members[from]);
        if (from < plan->listed && world->members[from].starts > 0 && !world->members[from].was_member)
            all_born = false;
        for (unsigned to = 0; to < plan->nodes; to++)
            if (world->cuts[from][to].until_ns != 0) heal(world, from, to);
    }
    /* A leader that was asked for a change begins it with those that it heard a heartbeat ago: it could not know. */
    bool may_lose = first && all_born && !members_change_runs(world);
    unsigned lost = may_lose ? (unsigned)random_below(&world->random, (plan->listed + 1) / 2) : 0;
    for (unsigned k = 0; k < lost; k++) {
        struct member *m = &world->members[random_below(&world->random, plan->nodes)];
        m->given_up = true;
        if (checks_majority_left(world))
            give_up(world, m);
        else
            m->given_up = false;
    }
    look(world);
}
