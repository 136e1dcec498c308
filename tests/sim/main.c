/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - the program lockstep-sim: runs a machine on whole simulated clusters, seed after seed.
 * Seeds run in worker processes: whatever ends one, an assertion of the node included, is that seed's failure, and the
 * others go on. Before the first seed a canary runs: nodes whose disks lie. If that is not found, nothing else means
 * anything. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "tests/sim/workload.h"
#include "tests/sim/world.h"

enum { JOBS_MAX = 64, CANARY_SEEDS = 40, SEED_SECONDS_MAX = 300, SHARING_SEEDS_MIN = 10 };

struct options {
    const char *machine, *commands, *queries;
    uint64_t first_seed, seeds, minutes;
    bool one_seed, trace, verbose, keep_going;
    unsigned jobs;
};

/* Shared with the workers. */
struct shared {
    _Atomic uint64_t next; /* seed, counted from the first */
    _Atomic uint64_t done, failed, undecided, repaired, operations, committed, starts, steps;
    _Atomic uint64_t simulated_us, cpu_us, recovery_us_max;
    _Atomic uint64_t sharing; /* seeds in which nodes share memory */
    _Atomic uint64_t pulled, beats, slot_acks, lapped, falls;
    _Atomic uint64_t observing, observed, observers_told, observers_lapped;
    _Atomic uint64_t hash; /* sum over seeds: their order means nothing */
    _Atomic uint64_t running[JOBS_MAX];
};

static struct options options;
static struct shared *shared;
static struct copies *copies; /* for the life of the process */
static struct workload *workload;
static uint64_t seed_now;

static void usage(FILE *to)
{
    fputs(
        "usage: lockstep-sim --machine FILE.so [OPTIONS]\n"
        "  runs the machine on whole clusters, with everything around it simulated, and breaks what can break\n"
        "  --seed N           this one, with what it chose\n"
        "  --seeds N          so many (default 100)\n"
        "  --first-seed S     from this one on (default 1)\n"
        "  --minutes M        no new seed begins after so many minutes\n"
        "  --commands FILE    lines, one of which is a command's payload; {1..9} becomes a number, {id} an unused one\n"
        "  --queries FILE     the same for queries\n"
        "  --jobs N           processes (default: as many as there are processors)\n"
        "  --keep-going       after a failure too\n"
        "  --trace            print everything that happens\n"
        "  --verbose          a line for each seed\n"
        "Exit: 0 all held, 1 something did not (the seed and how to replay it are printed), 2 usage or machine.\n",
        to);
}

static uint64_t now_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- one seed, in a worker ------------------------------------------------------------------------------------ */

/* The program is dying: say of which seed. */
static void died(int number)
{
    char text[4096];
    signal(number, SIG_DFL);
    trace_tail(run_trace(), STDERR_FILENO);
    int used = snprintf(text, sizeof text,
                        "%sseed 0x%" PRIx64 " failed. To replay it: lockstep-sim --machine %s%s%s%s%s --seed 0x%" PRIx64
                        " --trace\n",
                        number == SIGALRM   ? "it hangs\n"
                        : number == SIGABRT ? ""
                                            : "a fault of memory\n",
                        seed_now, options.machine, options.commands != NULL ? " --commands " : "",
                        options.commands != NULL ? options.commands : "", options.queries != NULL ? " --queries " : "",
                        options.queries != NULL ? options.queries : "", seed_now);
    ssize_t written = write(STDERR_FILENO, text, (size_t)used);
    (void)written;
    raise(number);
}

static void catch_death(void)
{
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) signal(numbers[i], died);
}

static void seed_run(uint64_t seed)
{
    struct sim_plan plan;
    struct run_result result;
    plan_of_seed(&plan, seed);
    seed_now = seed;
    if (options.one_seed || options.trace) {
        plan_print(&plan, stdout);
        fflush(stdout);
    }
    alarm(SEED_SECONDS_MAX);
    uint64_t begin_us = now_us(CLOCK_PROCESS_CPUTIME_ID);
    run_seed(&plan, copies, workload, options.trace, &result);
    uint64_t cpu_us = now_us(CLOCK_PROCESS_CPUTIME_ID) - begin_us;
    alarm(0);
    if (options.one_seed || options.verbose)
        printf("seed 0x%" PRIx64 ": hash %016" PRIx64 " %" PRIu64 " s in %" PRIu64 " ms; %u nodes, %" PRIu64
               " starts, %" PRIu64 " steps, %" PRIu64 " blocks committed, %" PRIu64 " operations, recovery %" PRIu64
               " ms, %" PRIu64 " blocks pulled%s\n",
               seed, result.hash, result.simulated_ns / SIM_S, cpu_us / 1000, plan.nodes, result.starts, result.steps,
               result.committed, result.operations, result.recovery_ns / SIM_MS, result.memory.blocks,
               result.undecided > 0 ? ", a history too hard to judge" : "");
    uint64_t pair[2] = {seed, result.hash};
    shared->hash += trace_hash(0, pair, sizeof pair);
    shared->undecided += result.undecided;
    shared->repaired += result.repaired;
    shared->operations += result.operations;
    shared->committed += result.committed;
    shared->starts += result.starts;
    shared->steps += result.steps;
    shared->simulated_us += result.simulated_ns / 1000;
    shared->cpu_us += cpu_us;
    shared->sharing += plan.shares_memory;
    shared->pulled += result.memory.blocks;
    shared->beats += result.memory.beats;
    shared->slot_acks += result.memory.acks;
    shared->lapped += result.memory.lapped;
    shared->falls += result.memory.falls;
    shared->observing += plan.observers > 0;
    shared->observed += result.memory.observed;
    shared->observers_told += result.memory.observers_told;
    shared->observers_lapped += result.memory.observers_lapped;
    uint64_t recovery_us = result.recovery_ns / 1000, most = shared->recovery_us_max;
    while (recovery_us > most && !atomic_compare_exchange_weak(&shared->recovery_us_max, &most, recovery_us)) {
    }
    shared->done++;
}

static uint64_t end_us; /* no seed begins later */

static _Noreturn void work(unsigned job)
{
    catch_death();
    for (;;) {
        if (shared->failed > 0 && !options.keep_going) break;
        if (now_us(CLOCK_MONOTONIC) >= end_us) break;
        uint64_t i = shared->next++;
        if (i >= options.seeds) break;
        shared->running[job] = options.first_seed + i;
        seed_run(options.first_seed + i);
    }
    exit(0);
}

/* --- the canary ----------------------------------------------------------------------------------------------- */

/* Disks whose flushes do nothing, and power that goes often: somebody must notice. */
static void canary_plan(struct sim_plan *plan, uint64_t seed)
{
    plan_of_seed(plan, seed);
    plan->nodes = 3;
    plan->lying_disk = true;
    plan->faults_from_birth = false;
    plan->fault_ns[FAULT_POWER_CUT] = 2 * SIM_S;
    plan->fault_ns[FAULT_ALL_DOWN] = 5 * SIM_S;
}

/* The number of the canary's seed that was found, 0 = none was. */
static uint64_t canary(void)
{
    for (uint64_t seed = 1; seed <= CANARY_SEEDS; seed++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            struct sim_plan plan;
            struct run_result result;
            if (freopen("/dev/null", "w", stderr) == NULL) _exit(0);
            canary_plan(&plan, seed);
            run_seed(&plan, copies, workload, false, &result);
            _exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child) return 0;
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) return seed;
    }
    return 0;
}

/* --- all seeds ------------------------------------------------------------------------------------------------ */

static pid_t spawn(unsigned job)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) work(job);
    if (child < 0) perror("lockstep-sim: fork");
    return child;
}

static void run_all(void)
{
    pid_t jobs[JOBS_MAX];
    unsigned alive = 0;
    for (unsigned job = 0; job < options.jobs; job++) {
        jobs[job] = spawn(job);
        if (jobs[job] > 0) alive++;
    }
    if (alive == 0) shared->failed++;
    while (alive > 0) {
        int status;
        pid_t child = waitpid(-1, &status, 0);
        if (child < 0) break;
        for (unsigned job = 0; job < options.jobs; job++) {
            if (jobs[job] != child) continue;
            alive--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
            shared->failed++;
            printf("failed: seed 0x%" PRIx64 "\n", (uint64_t)shared->running[job]);
            if (!options.keep_going) break;
            jobs[job] = spawn(job);
            if (jobs[job] > 0) alive++;
            break;
        }
    }
}

static void summary(uint64_t real_us)
{
    uint64_t simulated_s = shared->simulated_us / 1000000;
    printf("%" PRIu64 " seeds, %" PRIu64 " failed; %" PRIu64 " simulated s in %" PRIu64 ".%" PRIu64 " s, %" PRIu64
           " a second and core; %" PRIu64 " starts, %" PRIu64 " blocks, %" PRIu64 " repaired, %" PRIu64
           " operations; slowest recovery %" PRIu64 " ms; %" PRIu64 " histories undecided; hash %016" PRIx64 "\n",
           shared->done + shared->failed, (uint64_t)shared->failed, simulated_s, real_us / 1000000,
           real_us / 100000 % 10, shared->cpu_us > 0 ? shared->simulated_us / shared->cpu_us : 0,
           (uint64_t)shared->starts, (uint64_t)shared->committed, (uint64_t)shared->repaired,
           (uint64_t)shared->operations, shared->recovery_us_max / 1000, (uint64_t)shared->undecided,
           (uint64_t)shared->hash);
    printf("shared memory: %" PRIu64 " seeds; %" PRIu64 " blocks pulled, %" PRIu64 " heartbeats, %" PRIu64
           " acks by slot; lapped %" PRIu64 " times, fell to TCP %" PRIu64 " times\n",
           (uint64_t)shared->sharing, (uint64_t)shared->pulled, (uint64_t)shared->beats, (uint64_t)shared->slot_acks,
           (uint64_t)shared->lapped, (uint64_t)shared->falls);
    printf("observers: %" PRIu64 " seeds; %" PRIu64 " commands handed out, lapped %" PRIu64 " times, %" PRIu64
           " answers out of the log\n",
           (uint64_t)shared->observing, (uint64_t)shared->observed, (uint64_t)shared->observers_lapped,
           (uint64_t)shared->observers_told);
}

/* A path that nobody takes any more is one that nothing can be said of. */
static bool memory_is_idle(void)
{
    bool idle = (shared->sharing >= SHARING_SEEDS_MIN && (shared->pulled == 0 || shared->slot_acks == 0)) ||
                (shared->observing >= SHARING_SEEDS_MIN && (shared->observed == 0 || shared->observers_told == 0));
    if (idle) printf("nobody followed through shared memory: nothing can be said of it\n");
    return idle;
}

static bool number(const char *text, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == 0 && text[0] != '-';
}

static bool read_options(int argc, char **argv)
{
    static const struct option longs[] = {
        {"machine", required_argument, NULL, 'm'},
        {"seed", required_argument, NULL, 's'},
        {"seeds", required_argument, NULL, 'n'},
        {"first-seed", required_argument, NULL, 'f'},
        {"minutes", required_argument, NULL, 't'},
        {"commands", required_argument, NULL, 'c'},
        {"queries", required_argument, NULL, 'q'},
        {"jobs", required_argument, NULL, 'j'},
        {"keep-going", no_argument, NULL, 'k'},
        {"trace", no_argument, NULL, 'T'},
        {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t jobs = processors > 0 ? (uint64_t)processors : 1;
    options = (struct options){.first_seed = 1, .seeds = 100};
    int option;
    bool good = true;
    while (good && (option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 'm': options.machine = optarg; break;
        case 's':
            good = number(optarg, &options.first_seed);
            options.one_seed = true;
            break;
        case 'n': good = number(optarg, &options.seeds); break;
        case 'f': good = number(optarg, &options.first_seed); break;
        case 't': good = number(optarg, &options.minutes); break;
        case 'c': options.commands = optarg; break;
        case 'q': options.queries = optarg; break;
        case 'j': good = number(optarg, &jobs); break;
        case 'k': options.keep_going = true; break;
        case 'T':
            options.trace = true;
            setvbuf(stdout, NULL, _IOLBF, 0); /* the end of it is what matters, however the end comes */
            break;
        case 'v': options.verbose = true; break;
        case 'h': usage(stdout); exit(0);
        default: good = false;
        }
        if (!good && option != '?') fprintf(stderr, "lockstep-sim: --%s: a number is wanted\n", argv[optind - 2] + 2);
    }
    if (options.one_seed) options.seeds = 1;
    if (jobs > options.seeds) jobs = options.seeds;
    options.jobs = (unsigned)(jobs < 1 ? 1 : jobs > JOBS_MAX ? JOBS_MAX : jobs);
    if (good && optind < argc) fprintf(stderr, "lockstep-sim: %s: what is this?\n", argv[optind]);
    if (good && options.machine == NULL) fprintf(stderr, "lockstep-sim: --machine FILE.so is missing\n");
    return good && optind == argc && options.machine != NULL;
}

int main(int argc, char **argv)
{
    char why[2048] = "";
    if (!read_options(argc, argv)) {
        usage(stderr);
        return 2;
    }
    if (copies_open(options.machine, SIM_NODES_MAX, &copies, why, sizeof why) != 0) {
        fprintf(stderr, "lockstep-sim: %s\n", why);
        return 2;
    }
    workload = workload_open(copies_fresh(copies, 0)->name, options.commands, options.queries, why, sizeof why);
    if (workload == NULL) {
        fprintf(stderr, "lockstep-sim: %s\n", why);
        return 2;
    }
    /* Worlds come and go: what one gave back, the next one takes, without asking the kernel for fresh pages. */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("lockstep-sim: mmap");
        return 2;
    }
    uint64_t begin_us = now_us(CLOCK_MONOTONIC);
    end_us = options.minutes > 0 ? begin_us + options.minutes * 60000000 : UINT64_MAX;
    if (options.one_seed) {
        catch_death();
        seed_run(options.first_seed);
        return 0;
    }
    uint64_t found = canary();
    if (found == 0) {
        printf("the canary was not found: with disks that lie %d seeds held. Nothing can be said\n", CANARY_SEEDS);
        return 1;
    }
    printf("machine %s %s; the canary (disks that lie) was found at its seed %" PRIu64 "\n",
           copies_fresh(copies, 0)->name, copies_fresh(copies, 0)->version, found);
    run_all();
    summary(now_us(CLOCK_MONOTONIC) - begin_us);
    return shared->failed == 0 && !memory_is_idle() ? 0 : 1;
}
