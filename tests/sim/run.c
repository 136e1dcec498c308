/* SPDX-License-Identifier: Apache-2.0 */
/* run.c - one seed from birth to judgement.
 *   birth      the nodes become a cluster; without faults, in most seeds
 *   safety     faults as the plan says; nothing that must hold may break, however little gets on
 *   liveness   the faults stop for a majority: it has to take and apply new commands within a bound
 *   end        they stop for all: everybody has to catch up; then the histories are judged */
#include <string.h>

#include "tests/sim/world.h"

static struct world world_now; /* one at a time; large */

const struct trace *run_trace(void)
{
    return &world_now.trace;
}

static uint64_t bound_ns(const struct world *world)
{
    return 20 * SIM_S + 20 * world->plan.election_timeout_ns + 4 * world->plan.client_timeout_ns;
}

static bool born(const struct world *world)
{
    for (unsigned i = 0; i < world->plan.listed; i++)
        if (world->members[i].seen.commit == 0) return false;
    return true;
}

static bool any_given_up(const struct world *world)
{
    for (unsigned i = 0; i < world->plan.nodes; i++)
        if (world->members[i].given_up) return true;
    return false;
}

/* Everybody who has to has applied all that is committed. */
static bool level(struct world *world)
{
    for (unsigned i = 0; i < world->plan.nodes; i++) {
        struct member *m = &world->members[i];
        struct node_status status;
        if (m->given_up || checks_role(world, i) == 0) continue;
        if (m->node == NULL || m->seen.commit != checks_committed(world)) return false;
        node_status_read(m->node, &status);
        if (!status.born || status.host.applied_index != checks_committed(world)) return false;
    }
    /* Level memory: whoever was started anew has been replaced by itself. */
    return world->plan.level != DURABILITY_LEVEL_MEMORY || any_given_up(world) || !checks_strangers(world);
}

static void phase(struct world *world, const char *name, uint64_t number)
{
    world->phase = name;
    trace_event(&world->trace, world->now_ns, TRACE_WORLD, TRACE_PHASE, number);
}

static void run_birth(struct world *world)
{
    phase(world, "birth", 0);
    uint64_t end_ns = world->now_ns + bound_ns(world);
    const struct sim_plan *plan = &world->plan;
    sim_net_faults_set(
        world->net, &(struct sim_net_faults){.delay_ns_min = plan->delay_ns_min, .delay_ns_max = plan->delay_ns_max});
    sim_links_faults_set(
        world->links, &(struct sim_link_faults){.delay_ns_min = plan->bell_ns_min, .delay_ns_max = plan->bell_ns_max});
    if (plan->faults_from_birth) return;
    while (!born(world) && world_step(world, end_ns)) {
    }
    if (!born(world))
        world_violated(world, "no cluster is born in %llu s", (unsigned long long)(bound_ns(world) / SIM_S));
}

static void run_safety(struct world *world)
{
    phase(world, "safety", 1);
    faults_begin(world);
    uint64_t end_ns = world->now_ns + world->plan.safety_ns;
    while (world_step(world, end_ns)) {
    }
}

/* Whether a command that was asked for since then was applied, and everybody who has to knows. */
static void run_until_progress(struct world *world, const char *whose)
{
    uint64_t begin_ns = world->now_ns, end_ns = begin_ns + bound_ns(world);
    world->clients_rest = false;
    for (unsigned c = 0; c < world->plan.clients; c++)
        if (world->clients[c].due_ns == SIM_NEVER) world->clients[c].due_ns = world->now_ns;
    while (world->newest_known_call_ns < begin_ns && world_step(world, end_ns)) {
    }
    if (world->newest_known_call_ns < begin_ns)
        world_violated(world, "%s take no command for %llu s though nothing is broken any more", whose,
                       (unsigned long long)(bound_ns(world) / SIM_S));
    world->clients_rest = true;
    end_ns = world->now_ns + bound_ns(world);
    while (!(clients_idle(world) && level(world) && observers_level(world)) && world_step(world, end_ns)) {
    }
    if (!observers_level(world))
        world_violated(world, "C11: an observer of %s is not level after %llu s though nothing is broken any more",
                       whose, (unsigned long long)(bound_ns(world) / SIM_S));
    if (!clients_idle(world) || !level(world))
        world_violated(world, "%s are not level after %llu s though nothing is broken any more", whose,
                       (unsigned long long)(bound_ns(world) / SIM_S));
}

void run_seed(const struct sim_plan *plan, struct copies *copies, struct workload *workload, bool print,
              struct run_result *ret)
{
    struct world *world = &world_now;
    world_open(world, plan, copies, workload, print);
    run_birth(world);
    run_safety(world);
    phase(world, "liveness", 2);
    faults_end(world);
    uint64_t mended_ns = world->now_ns;
    run_until_progress(world, "a majority of the nodes");
    uint64_t recovery_ns = world->now_ns - mended_ns;
    phase(world, "end", 3);
    faults_end(world);
    run_until_progress(world, "the nodes");
    clients_judge(world);
    checks_observed_all(world);
    memset(ret, 0, sizeof *ret);
    ret->hash = world->trace.hash;
    ret->steps = world->steps;
    ret->events = world->trace.count;
    ret->simulated_ns = world->now_ns;
    ret->operations = world->applied_operations;
    ret->undecided = world->undecided;
    ret->recovery_ns = recovery_ns;
    ret->repaired = world->repaired;
    ret->committed = checks_committed(world);
    for (unsigned i = 0; i < plan->nodes; i++) ret->starts += world->members[i].starts;
    world_close(world);
    ret->memory = world->memory;
}
