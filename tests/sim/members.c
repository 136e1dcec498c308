/* SPDX-License-Identifier: Apache-2.0 */
/* members.c - somebody who changes the members: adds, promotes, removes and replaces them, at any time, and sometimes
 * because a directory is gone for good. What Raft cannot bear is not done: of the voters of any configuration in use at
 * most one has lost its directory, and until that one is replaced nobody else is taken away: a leader refuses to lose the
 * quorum, but it cannot know that somebody whom it heard a moment ago will never come back. */
#include <stdio.h>

#include "tests/sim/world.h"

static void ask(struct world *world, enum node_change_kind kind, unsigned i)
{
    struct member *m = &world->members[random_below(&world->random, world->plan.nodes)];
    if (m->node == NULL) return;
    unsigned leader = world_leader(m);
    if (leader < world->plan.nodes) m = &world->members[leader];
    if (m->node == NULL || world_paused(m)) return;
    struct node_change_request request = {.kind = kind};
    snprintf(request.name, sizeof request.name, "n%u", i + 1);
    if (kind == NODE_CHANGE_REPLACE) snprintf(request.old_name, sizeof request.old_name, "n%u", i + 1);
    if (kind == NODE_CHANGE_ADD) {
        snprintf(request.client, sizeof request.client, "n%u:1", i + 1);
        snprintf(request.peer, sizeof request.peer, "%u:2", i); /* sim_net's */
        request.learner = random_chance(&world->random, 1, 4);
    }
    request.force = kind == NODE_CHANGE_REMOVE && random_chance(&world->random, 1, 3);
    request.priority = (uint8_t)random_below(&world->random, 3);
    uint64_t length_ns = random_between(&world->random, 100 * SIM_MS, 10 * SIM_S);
    uint64_t until_ns = world->now_ns + length_ns + SIM_S; /* clocks differ */
    request.timeout_ns = length_ns;
    int rc = node_change_members(m->node, &request, 0);
    if (rc == 0) {
        world->changes++;
        if (until_ns > world->changes_until_ns) world->changes_until_ns = until_ns;
    }
    world_wake(m, NODE_LOOP);
    trace_event(&world->trace, world->now_ns, m->i, TRACE_MEMBERS, kind, i, (uint64_t)(int64_t)rc, request.force);
}

bool members_another_birth(const struct world *world, unsigned i)
{
    bool memory = world->plan.level == DURABILITY_LEVEL_MEMORY; /* who was removed ends, and comes back with nothing */
    for (unsigned k = 0; k < world->plan.listed; k++) {
        if (k == i || (memory && checks_role(world, k) == 0)) continue;
        if (world->members[k].was_member && world->members[k].seen.commit > 0) return false;
    }
    return true;
}

static void take_directory(struct world *world, unsigned i)
{
    if (members_another_birth(world, i)) return;
    if (world->members[i].node != NULL) world_crash(world, i, false, SIM_NEVER);
    if (world->plan.level != DURABILITY_LEVEL_MEMORY) world_wipe(world, i); /* else the next process does it */
    world->members[i].restart_ns = world->now_ns + random_between(&world->random, SIM_MS, 2 * SIM_S);
}

bool members_change_runs(struct world *world)
{
    if (world->now_ns >= world->changes_until_ns) world->changes = 0; /* who asked has died, or the leader has */
    return world->changes > 0;
}

void members_operate(struct world *world)
{
    unsigned i = (unsigned)random_below(&world->random, world->plan.nodes);
    struct member *m = &world->members[i];
    bool memory = world->plan.level == DURABILITY_LEVEL_MEMORY;
    if (world->lost != 0 && !(memory ? checks_strangers(world) : checks_in_use(world, world->lost))) world->lost = 0;
    uint8_t role = checks_role(world, i);
    if (m->id == 0) return;                                 /* its directory is empty still */
    if (memory && world->lost != 0 && i == world->lost_i) { /* the leader replaces it by itself */
        if (random_chance(&world->random, 1, 2)) take_directory(world, i);
        return;
    }
    if (role == 0 && m->was_member) {
        take_directory(world, i); /* removed, and of no more use */
    } else if (role == 0 && world->lost != 0 && i == world->lost_i) {
        ask(world, NODE_CHANGE_REPLACE, i);
    } else if (role == 0) {
        ask(world, NODE_CHANGE_ADD, i);
    } else if (role == RAFT_LEARNER && !random_chance(&world->random, 1, 4)) {
        ask(world, NODE_CHANGE_PROMOTE, i);
    } else if (role == RAFT_VOTER && world->lost == 0 && random_chance(&world->random, 1, 2)) {
        m->given_up = true; /* as if */
        bool may = checks_majority_left(world);
        m->given_up = false;
        if (!may || members_another_birth(world, i) || members_change_runs(world)) return;
        world->lost = m->id;
        world->lost_i = i;
        take_directory(world, i);
    } else if (world->lost == 0) {
        ask(world, NODE_CHANGE_REMOVE, i);
    }
}

void members_changed(struct member *m, const struct node_change_result *result)
{
    if (m->world->changes > 0) m->world->changes--;
    trace_event(&m->world->trace, m->world->now_ns, m->i, TRACE_MEMBERS_DONE, (uint64_t)(int64_t)result->error,
                result->index);
}
