/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/plan.h"

#include <inttypes.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t in_of_100; /* seeds that have it */
    uint32_t mean_ms_min, mean_ms_max;
} faults[FAULTS] = {
    [FAULT_POWER_CUT] = {"power", 60, 800, 10000},  [FAULT_KILL] = {"kill", 50, 800, 10000},
    [FAULT_ALL_DOWN] = {"all", 20, 5000, 30000},    [FAULT_STOP] = {"stop", 20, 2000, 20000},
    [FAULT_FLUSH] = {"flush", 20, 2000, 20000},     [FAULT_FULL] = {"full", 20, 2000, 20000},
    [FAULT_ISOLATE] = {"isolate", 50, 1000, 10000}, [FAULT_SPLIT] = {"split", 30, 2000, 10000},
    [FAULT_LINK] = {"link", 50, 300, 5000},         [FAULT_HANG_UP] = {"hang-up", 30, 200, 5000},
    [FAULT_PAUSE] = {"pause", 40, 1000, 10000},     [FAULT_SLOW_DISK] = {"disk", 40, 300, 5000},
    [FAULT_SLOW_PART] = {"part", 40, 300, 5000},    [FAULT_WALL_CLOCK] = {"clock", 30, 1000, 10000},
    [FAULT_TRANSFER] = {"transfer", 40, 500, 8000}, [FAULT_MEMBERS] = {"members", 40, 300, 6000},
    [FAULT_ROT] = {"rot", 25, 500, 8000},           [FAULT_LOCAL] = {"local", 50, 200, 5000},
    [FAULT_AWAY] = {"away", 40, 1000, 10000},
};

/* Small numbers are likelier: each power of two as likely as the next. */
static uint64_t spread(struct random *r, uint64_t min, uint64_t max)
{
    unsigned doublings = 0;
    while (doublings < 40 && min << (doublings + 1) <= max) doublings++;
    uint64_t top = min << random_below(r, doublings + 1u);
    if (top > max) top = max;
    uint64_t end = 2 * top < max ? 2 * top : max;
    return random_between(r, top, end);
}

static void plan_sizes(struct sim_plan *plan, struct random *r)
{
    uint64_t pick = random_below(r, 100);
    plan->nodes = pick < 8 ? 1 : pick < 62 ? 3 : pick < 94 ? 5 : 7;
    plan->listed = plan->nodes;
    plan->ring_bytes = UINT64_C(65536) << (random_below(r, 4) & random_below(r, 4));
    plan->journal_bytes = plan->ring_bytes * random_between(r, 4, 8);
    plan->block_bytes_max = (uint32_t)(plan->ring_bytes / 4 >> random_below(r, 3));
    if (random_chance(r, 3, 4)) plan->snapshot_after_bytes = spread(r, 4096, 4 * plan->ring_bytes);
    plan->piece_bytes = (uint32_t)spread(r, 512, 65536);
    plan->command_bytes_max = plan->block_bytes_max / 2;
}

static void plan_delays(struct sim_plan *plan, struct random *r)
{
    plan->election_timeout_ns = random_between(r, 2, 10) * 100 * SIM_MS;
    plan->heartbeat_ns = plan->election_timeout_ns / random_between(r, 3, 6);
    plan->delay_ns_min = spread(r, 10 * SIM_US, 2 * SIM_MS);
    plan->delay_ns_max = plan->delay_ns_min + spread(r, 10 * SIM_US, plan->election_timeout_ns / 8);
    if (random_chance(r, 1, 2)) plan->loss_per_1000 = (uint32_t)spread(r, 1, 100);
    if (random_chance(r, 1, 2)) plan->duplicate_per_1000 = (uint32_t)spread(r, 1, 100);
    for (unsigned part = 0; part < NODE_PARTS; part++) {
        plan->work_ns_min[part] = spread(r, SIM_US, 50 * SIM_US);
        plan->work_ns_max[part] = plan->work_ns_min[part] + spread(r, SIM_US, 500 * SIM_US);
    }
    plan->work_ns_max[NODE_LOOP] = plan->work_ns_min[NODE_LOOP] + 20 * SIM_US;
    plan->work_ns_max[NODE_JOURNAL] += spread(r, 50 * SIM_US, 20 * SIM_MS);
    if (random_chance(r, 1, 3)) plan->work_ns_max[NODE_MACHINE] += spread(r, 1 * SIM_MS, 200 * SIM_MS);
    plan->work_ns_max[NODE_LOG] += spread(r, 50 * SIM_US, 50 * SIM_MS);
    plan->lease_reads = random_chance(r, 1, 3);
    plan->drift_ppm_max = random_chance(r, 1, 2) ? 0 : (uint32_t)spread(r, 10, plan->lease_reads ? 49000 : 1000);
}

static void plan_fault(struct sim_plan *plan, struct random *r, enum plan_fault kind)
{
    uint64_t mean_ns = spread(r, faults[kind].mean_ms_min, faults[kind].mean_ms_max) * SIM_MS;
    if (random_below(r, 100) < faults[kind].in_of_100) plan->fault_ns[kind] = mean_ns;
}

static void plan_faults(struct sim_plan *plan, struct random *r)
{
    for (enum plan_fault kind = 0; kind < FAULT_ROT; kind++) plan_fault(plan, r, kind);
    if (plan->fault_ns[FAULT_MEMBERS] != 0) {
        plan->nodes += (unsigned)random_below(r, 4);
        if (plan->nodes > SIM_NODES_MAX) plan->nodes = SIM_NODES_MAX;
    }
    plan->fault_length_ns_max = spread(r, 50 * SIM_MS, 8 * SIM_S);
    plan->faults_from_birth = random_chance(r, 1, 4);
    plan->safety_ns = random_between(r, 8, 40) * SIM_S;
}

static void plan_clients(struct sim_plan *plan, struct random *r)
{
    plan->clients = (unsigned)spread(r, 1, 24);
    bool busy = random_chance(r, 1, 10); /* few simulated seconds, but full ones */
    plan->think_ns_max = busy ? spread(r, 1 * SIM_MS, 20 * SIM_MS) : spread(r, 200 * SIM_MS, 5 * SIM_S);
    if (busy) plan->safety_ns /= 4;
    if (random_chance(r, 1, 4)) plan->large_per_1000 = (uint32_t)spread(r, 1, 400);
    plan->query_per_1000 = (uint32_t)random_between(r, 0, 600);
    plan->forward_per_1000 = (uint32_t)random_between(r, 0, 500);
    plan->sessions_per_100 = (uint32_t)random_below(r, 3) * 50;
    plan->sessions.window = (uint32_t)spread(r, 1, SESSIONS_WINDOW_MAX);
    plan->sessions.sessions_max = (uint32_t)spread(r, 8, 64);
    plan->sessions.replies_bytes = (uint64_t)SESSIONS_REPLIES_BYTES_MIN << random_below(r, 5);
    plan->sessions.expiry_ns = spread(r, 2 * SIM_S, 60 * SIM_S);
    plan->client_timeout_ns = spread(r, 200 * SIM_MS, 10 * SIM_S);
}

/* Level memory: of a group at most a minority may be started anew before it is replaced. members.c sees to it; kills, power
 * cuts and the like know nothing of it. */
static void plan_level(struct sim_plan *plan, struct random *r)
{
    static const enum plan_fault ends[] = {FAULT_POWER_CUT, FAULT_KILL, FAULT_ALL_DOWN, FAULT_STOP, FAULT_FLUSH};
    plan->level = DURABILITY_LEVEL_FSYNC;
    if (plan->listed < 3 || !random_chance(r, 1, 6)) return;
    plan->level = DURABILITY_LEVEL_MEMORY;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) plan->fault_ns[ends[i]] = 0;
    if (plan->fault_ns[FAULT_MEMBERS] == 0) plan->fault_ns[FAULT_MEMBERS] = random_between(r, 300, 3000) * SIM_MS;
}

/* Who stands still while others fill a whole ring is lapped, if its leader stays. */
static void plan_laps(struct sim_plan *plan, struct random *r)
{
    plan->laps = true;
    plan->refused_per_1000 = plan->late_per_1000 = plan->broken_per_1000 = 0;
    plan->ring_bytes = 65536;
    plan->block_bytes_max = (uint32_t)(plan->ring_bytes / 4 >> random_below(r, 3));
    plan->command_bytes_max = plan->block_bytes_max / 2;
    plan->clients = (unsigned)random_between(r, 8, 24);
    plan->think_ns_max = spread(r, 2 * SIM_MS, 40 * SIM_MS);
    plan->large_per_1000 = (uint32_t)random_between(r, 200, 800);
    plan->query_per_1000 /= 4;
    plan->safety_ns /= 3;
    for (unsigned kind = 0; kind < FAULTS; kind++)
        if (kind != FAULT_SLOW_DISK && kind != FAULT_SLOW_PART && kind != FAULT_WALL_CLOCK) plan->fault_ns[kind] = 0;
    plan->fault_ns[FAULT_PAUSE] = random_between(r, 200, 2000) * SIM_MS;
    if (plan->fault_length_ns_max < 4 * SIM_S) plan->fault_length_ns_max = 4 * SIM_S;
}

/* A third of the seeds has no shared memory: what goes by TCP stays as well tried as it was. */
static void plan_hosts(struct sim_plan *plan, struct random *r)
{
    uint64_t pick = random_below(r, 100);
    plan->shares_memory = pick >= 33 && plan->nodes > 1;
    for (unsigned i = 0; i < SIM_NODES_MAX; i++) plan->host[i] = pick < 75 ? 0 : (uint8_t)random_below(r, 2);
    plan->bell_ns_min = spread(r, 1 * SIM_US, 100 * SIM_US);
    plan->bell_ns_max = plan->bell_ns_min + spread(r, 10 * SIM_US, plan->election_timeout_ns / 8);
    plan->refused_per_1000 = random_chance(r, 1, 2) ? (uint32_t)spread(r, 10, 500) : 0;
    plan->late_per_1000 = random_chance(r, 1, 2) ? (uint32_t)spread(r, 10, 500) : 0;
    plan->broken_per_1000 = random_chance(r, 1, 2) ? (uint32_t)spread(r, 10, 300) : 0;
    bool laps = random_chance(r, 1, 5);
    if (!plan->shares_memory) return;
    if (laps) {
        plan_laps(plan, r);
    } else {
        plan_fault(plan, r, FAULT_LOCAL);
        plan_fault(plan, r, FAULT_AWAY);
    }
    if (random_chance(r, 1, 2)) plan->observers = 1 + (unsigned)random_below(r, SIM_OBSERVERS_MAX);
    plan->observer_ns_max = spread(r, 10 * SIM_US, 100 * SIM_MS);
}

void plan_of_seed(struct sim_plan *plan, uint64_t seed)
{
    struct random r;
    random_seed(&r, seed);
    memset(plan, 0, sizeof *plan);
    plan->seed = seed;
    plan_sizes(plan, &r);
    plan_delays(plan, &r);
    plan_faults(plan, &r);
    plan_clients(plan, &r);
    plan_level(plan, &r);
    /* The others give back what is damaged; level memory has nothing that could be. */
    if (plan->listed >= 3 && plan->level == DURABILITY_LEVEL_FSYNC) plan_fault(plan, &r, FAULT_ROT);
    random_seed(&r, ~seed); /* chosen apart, so that all else stays what it was for a seed */
    if (random_chance(&r, 1, 3)) plan->snapshot_age_ns = spread(&r, 1 * SIM_S, 20 * SIM_S);
    plan_hosts(plan, &r);
}

void plan_print(const struct sim_plan *plan, FILE *to)
{
    fprintf(to,
            "seed 0x%" PRIx64 ": nodes=%u of %u ring=%" PRIu64 "KiB journal=%" PRIu64
            "KiB block=%uKiB snapshot=%" PRIu64 "KiB age=%" PRIu64 "s piece=%u election=%" PRIu64
            "ms heartbeat=%" PRIu64 "ms delay=%" PRIu64 "..%" PRIu64 "us loss=%u/1000 twice=%u/1000 flush<=%" PRIu64
            "us drift=%uppm%s%s clients=%u think<=%" PRIu64
            "ms large=%u/1000 queries=%u/1000 sessions=%u%% faults=%" PRIu64 "s%s:",
            plan->seed, plan->listed, plan->nodes, plan->ring_bytes / 1024, plan->journal_bytes / 1024,
            plan->block_bytes_max / 1024, plan->snapshot_after_bytes / 1024, plan->snapshot_age_ns / SIM_S,
            plan->piece_bytes, plan->election_timeout_ns / SIM_MS, plan->heartbeat_ns / SIM_MS,
            plan->delay_ns_min / SIM_US, plan->delay_ns_max / SIM_US, plan->loss_per_1000, plan->duplicate_per_1000,
            plan->work_ns_max[NODE_JOURNAL] / SIM_US, plan->drift_ppm_max, plan->lease_reads ? " leases" : "",
            plan->level == DURABILITY_LEVEL_MEMORY ? " memory" : "", plan->clients, plan->think_ns_max / SIM_MS,
            plan->large_per_1000, plan->query_per_1000, plan->sessions_per_100, plan->safety_ns / SIM_S,
            plan->faults_from_birth ? " from birth" : "");
    if (plan->shares_memory) {
        fprintf(to, " hosts=");
        for (unsigned i = 0; i < plan->nodes; i++) fputc('a' + plan->host[i], to);
        fprintf(to, " bell<=%" PRIu64 "us refused=%u/1000 late=%u/1000 broken=%u/1000", plan->bell_ns_max / SIM_US,
                plan->refused_per_1000, plan->late_per_1000, plan->broken_per_1000);
        if (plan->observers > 0)
            fprintf(to, " observers=%u look<=%" PRIu64 "us", plan->observers, plan->observer_ns_max / SIM_US);
    }
    for (unsigned kind = 0; kind < FAULTS; kind++)
        if (plan->fault_ns[kind] != 0)
            fprintf(to, " %s/%" PRIu64 ".%" PRIu64 "s", faults[kind].name, plan->fault_ns[kind] / SIM_S,
                    plan->fault_ns[kind] / (100 * SIM_MS) % 10);
    fprintf(to, " each<=%" PRIu64 "ms\n", plan->fault_length_ns_max / SIM_MS);
}
