/* SPDX-License-Identifier: Apache-2.0 */
/* test_lease.c - test_lease MACHINE.so: the canary of reads by lease (R5).
 * Clocks that drift by more than the 5 % that leases bear make a leader that hears nobody any more answer with what it had:
 * some seed has to see that (L3, L4). The very same seeds hold with clocks within the bound, and with the wild clocks when
 * reads ask for a round: so it is the lease that is seen, and its bound. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/workload.h"
#include "tests/sim/world.h"

enum { SEEDS = 150, SEEDS_TO_HOLD = 4, BEARABLE_PPM = 49000, WILD_PPM = 700000 };

static struct copies *copies;
static struct workload *workload;

/* Leaders are cut off, and what there is is read and written all the time. */
static void plan_make(struct sim_plan *plan, uint64_t seed, uint32_t drift_ppm, bool leases)
{
    plan_of_seed(plan, seed);
    memset(plan->fault_ns, 0, sizeof plan->fault_ns);
    plan->nodes = plan->listed = 3;
    plan->fault_ns[FAULT_ISOLATE] = 2 * SIM_S;
    plan->fault_ns[FAULT_SPLIT] = 2 * SIM_S;
    plan->fault_ns[FAULT_TRANSFER] = 5 * SIM_S; /* a node with a slow clock wins no election by itself */
    plan->fault_length_ns_max = 4 * SIM_S;
    plan->faults_from_birth = false;
    plan->safety_ns = 40 * SIM_S;
    plan->election_timeout_ns = 1 * SIM_S; /* long beside what clients do */
    plan->heartbeat_ns = 200 * SIM_MS;
    plan->delay_ns_max = plan->delay_ns_min + 200 * SIM_US;
    plan->clients = 10;
    plan->client_timeout_ns = 100 * SIM_MS;
    plan->think_ns_max = 20 * SIM_MS;
    plan->query_per_1000 = 600;
    plan->forward_per_1000 = 0;
    plan->lease_reads = leases;
    plan->drift_ppm_max = drift_ppm;
    plan->shares_memory = false; /* else who is cut off hears its host still */
    plan->observers = 0;
}

/* Whether the seed ends well; if not, what it said. */
static bool holds(uint64_t seed, uint32_t drift_ppm, bool leases, char *said, size_t room)
{
    int ends[2];
    if (pipe(ends) != 0) exit(2);
    pid_t child = fork();
    if (child == 0) {
        struct sim_plan plan;
        struct run_result result;
        dup2(ends[1], STDERR_FILENO);
        plan_make(&plan, seed, drift_ppm, leases);
        run_seed(&plan, copies, workload, false, &result);
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t count;
    while ((count = read(ends[0], said + used, room - 1 - used)) > 0 && used + (size_t)count < room - 1)
        used += (size_t)count;
    said[used] = 0;
    close(ends[0]);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) exit(2);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool is_stale_read(const char *said)
{
    return strstr(said, "L3: query") != NULL || strstr(said, "L4: ") != NULL;
}

int main(int argc, char **argv)
{
    static char said[65536], why[2048];
    unsigned found = 0, failed = 0;
    if (argc != 2 || copies_open(argv[1], SIM_NODES_MAX, &copies, why, sizeof why) != 0) {
        fprintf(stderr, "usage: test_lease MACHINE.so\n%s\n", why);
        return 2;
    }
    workload = workload_open(copies_fresh(copies, 0)->name, NULL, NULL, why, sizeof why);
    if (workload == NULL) return 2;
    for (uint64_t seed = 1; seed <= SEEDS && (found == 0 || seed <= SEEDS_TO_HOLD); seed++) {
        if (seed <= SEEDS_TO_HOLD && !holds(seed, BEARABLE_PPM, true, said, sizeof said)) {
            printf("seed %llu, leases, clocks within the bound: %s\n", (unsigned long long)seed, said);
            failed++;
        }
        if (seed <= SEEDS_TO_HOLD && !holds(seed, WILD_PPM, false, said, sizeof said)) {
            printf("seed %llu, no leases, wild clocks: %s\n", (unsigned long long)seed, said);
            failed++;
        }
        if (found > 0 || holds(seed, WILD_PPM, true, said, sizeof said)) continue;
        if (is_stale_read(said)) {
            printf("found at seed %llu: %s", (unsigned long long)seed, said);
            found++;
        } else {
            printf("seed %llu, leases, wild clocks: %s\n", (unsigned long long)seed, said);
            failed++;
        }
    }
    if (found == 0)
        printf("with leases and clocks beyond the bound %d seeds held: who would see a stale read?\n", SEEDS);
    return found > 0 && failed == 0 ? 0 : 1;
}
