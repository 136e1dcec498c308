/* SPDX-License-Identifier: Apache-2.0 */
/* powercut.c - the real storage on real files loses its power at every point of what it does, recovery included.
 *
 *   world ── life ── life ── ...      a process that works on the directory and is killed, its calls recorded
 *             │ point, point, ...     after each recorded call: one crash image, opened by the real recovery, twice
 *             │  └─ point, ...        of some of these openings the calls are recorded too, and cut again; and again
 *             ▼
 *            the next life goes on from what the cache holds (kill -9), or from a crash image (power cut)
 *
 * What a node does and what may be found: tests/support/lives.h. What an image may look like: medium.h. World 0 is J3's: a
 * process is killed between a write and its flush, the next one shows what the cache holds, and then the power goes.
 * Thread: one; every opening is a process of its own, so that whatever happens to it is told and the next one begins clean.
 * An image is named WORLD/LIFE/POINT[/POINT...]: numbers decide all of its choices, so that its name replays it. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/random.h"
#include "lockstep/errors.h"
#include "storage/identity.h"
#include "tests/powercut/medium.h"
#include "tests/powercut/recorder.h"
#include "tests/support/lives.h"

enum {
    DEPTH_MAX = 3, /* of power cuts in a row, all but the first during recovery */
    LIVES_MAX = 8, /* a world's */
    NAME_MAX_ = 4 + DEPTH_MAX,
    PATH_BYTES = 512,
    CHILD_SECONDS_MAX = 120,
    FIRST_START_CALLS = 40,
    FREE_BYTES_MIN = 128 << 20, /* a handful of small directories lie there at a time */
    RECORDED_ONE_IN = 80,       /* openings; they make as many calls. Half as many further down */
    NOTE_IDENTITY = 100,
};

/* What else is promised: who the directory is. */
struct identity_note {
    uint32_t type, state;
    raft_member member;
};

struct promised {
    struct lives_promise lives;
    struct identity_note identity;
};

/* An image's name, as numbers. */
struct image_name {
    uint64_t numbers[NAME_MAX_];
    int count;
};

static struct {
    uint64_t images_wanted, world_first, every;
    enum medium_lie lie;
    struct image_name replay; /* count 0: all */
    bool quiet;               /* failures are what is wanted */
    char base[PATH_BYTES / 4];
    uint64_t images, images_in_recovery, lives, failures;
    uint64_t acknowledged, installs, bases_moved; /* what the lives reached */
} run = {.world_first = 1};

static struct store store;
static struct lives lives = {.store = &store};

/* --- a process on the directory ------------------------------------------------------------------------------------- */

static void note_lives(void *context, const struct lives_note *note)
{
    (void)context;
    if (recorder_note != NULL) recorder_note(note, (uint32_t)lives_note_bytes(note));
}

__attribute__((noreturn)) static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    _exit(1);
}

static void promise_identity(struct promised *promised, const struct identity *identity, bool recorded)
{
    struct identity_note note = {
        .type = NOTE_IDENTITY, .state = (uint32_t)identity->state, .member = identity->member_id};
    const struct identity_note *before = &promised->identity;
    if (before->member != 0 && (note.member != before->member || note.state < before->state))
        give_up("identity", "it is not the one that was stored");
    promised->identity = note;
    if (recorded) recorder_note(&note, sizeof note);
}

static struct birth_record birth_of(raft_member member)
{
    return (struct birth_record){.cluster_id = 7,
                                 .time_ns = 1000,
                                 .cluster = "c",
                                 .machine = "kv",
                                 .configuration = {.uncommitted_bytes_max = 16384,
                                                   .level = DURABILITY_LEVEL_FSYNC,
                                                   .member_count = 1,
                                                   .members = {{.id = member,
                                                                .role = CONFIGURATION_VOTER,
                                                                .name = "n1",
                                                                .client = "127.0.0.1:1",
                                                                .peer = "127.0.0.1:2"}}}};
}

/* The directory as a node opens it: the lock, who it is, its storage. A new one is born first. */
static struct identity_directory *open_node(const char *root, uint64_t seed, struct promised *promised, bool recorded)
{
    static char directory[PATH_BYTES];
    struct identity_directory *held = NULL;
    struct identity identity;
    char why[1024];
    snprintf(directory, sizeof directory, "%s/node", root);
    int rc = identity_open(disk_posix(), directory, "n1", seed | 1, &held, &identity, why, sizeof why);
    if (rc != 0) give_up("identity", why);
    promise_identity(promised, &identity, recorded);
    while (identity.state != IDENTITY_COMPLETE) {
        identity.state = identity.state == IDENTITY_FRESH ? IDENTITY_PENDING : IDENTITY_COMPLETE;
        identity.birth = birth_of(identity.member_id);
        rc = identity_store(held, &identity);
        if (rc != 0) give_up("birth", lockstep_error_text(rc));
        promise_identity(promised, &identity, recorded);
    }
    store_options(&store, directory, disk_posix(), kv_lmdb());
    lives_options(&store);
    store.options.member_id = identity.member_id;
    rc = store_open(&store);
    if (rc != 0) give_up("open", store.why);
    lives.promise = &promised->lives;
    lives.noted = recorded ? note_lives : NULL;
    lives_begin(&lives);
    return held;
}

static void close_node(struct identity_directory *held)
{
    store_close(&store);
    identity_close(held);
}

/* A life: until it is killed, or its turns are over. A world's first one is killed while it starts, at another call in each
 * world. */
static void live(const char *root, uint64_t world, uint64_t life, uint64_t seed, struct promised *promised)
{
    struct random dice;
    random_seed(&dice, seed);
    lives.dice = &dice;
    uint64_t turns = random_between(&dice, 5, 300);
    if (life == 0)
        recorder_kill_after(world % FIRST_START_CALLS);
    else if (random_chance(&dice, 7, 8))
        recorder_kill_after(random_below(&dice, random_chance(&dice, 1, 2) ? 60 : 400));
    struct identity_directory *held = open_node(root, seed, promised, true);
    for (uint64_t i = 0; i < turns && lives_goes_on(&lives); i++) {
        lives_turn(&lives);
        const char *why = NULL;
        if (storage_failed(store.storage, &why) != 0) give_up("failed", why);
    }
    close_node(held);
}

/* J3's first life is killed between a frame's write and its flush; its second one only shows what it found. */
static void live_j3(const char *root, uint64_t life, struct promised *promised)
{
    struct random dice;
    random_seed(&dice, life);
    lives.dice = &dice;
    struct identity_directory *held = open_node(root, 3, promised, true);
    if (life == 0) {
        store.hard_state = (struct storage_hard_state){.term = 5, .vote = 2};
        lives_persist(&lives, 0, true);
        store_run_journal(&store, 0);
        lives_note_acked(&lives);
        store_append(&store, 5, 100, 1);
        store_append(&store, 5, 100, 2);
        lives_persist(&lives, 1, false);
        recorder_kill_after(1); /* the write, and not the flush */
        store_run_journal(&store, 0);
        give_up("J3", "the frame was not written and flushed in two calls");
    }
    if (promised->lives.opened.last != 2) give_up("J3", "what the cache holds was not found after kill -9");
    close_node(held);
}

/* What recovery makes of an image, and of what recovery made of it. */
static void examine_here(const char *root, uint64_t seed, struct promised *promised, bool recorded)
{
    struct random dice;
    random_seed(&dice, seed);
    lives.dice = &dice;
    close_node(open_node(root, seed, promised, recorded));
    close_node(open_node(root, seed, promised, recorded));
}

/* --- directories and traces --------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status;
    (void)type;
    (void)at;
    return remove(path);
}

static void clear_directory(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void new_directory(char to[PATH_BYTES], const char *name, int number)
{
    snprintf(to, PATH_BYTES, "%s/%s%d", run.base, name, number);
    clear_directory(to);
    if (mkdir(to, 0700) == 0) return;
    fprintf(stderr, "%s: cannot be made: %s\n", to, strerror(errno));
    exit(2);
}

/* LMDB's lock file after a power cut: of any content. */
static void scatter_garbage(const char *root, uint64_t seed)
{
    char path[PATH_BYTES + 32];
    uint8_t garbage[8192];
    struct random dice;
    random_seed(&dice, seed);
    random_fill(&dice, garbage, sizeof garbage);
    snprintf(path, sizeof path, "%s/node/data.mdb-lock", root);
    int descriptor = random_chance(&dice, 1, 2) ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (descriptor < 0) return;
    ssize_t n = write(descriptor, garbage, random_below(&dice, sizeof garbage));
    lk_assert(n >= 0);
    close(descriptor);
}

struct trace {
    uint8_t *bytes;
    size_t count;
};

static struct trace trace_read(int descriptor)
{
    struct stat status;
    int rc = fstat(descriptor, &status);
    lk_assert(rc == 0 && status.st_size > 0);
    struct trace trace = {.count = (size_t)status.st_size};
    trace.bytes = mmap(NULL, trace.count, PROT_READ, MAP_PRIVATE, descriptor, 0);
    lk_assert(trace.bytes != MAP_FAILED);
    return trace;
}

static int trace_new(void)
{
    int descriptor = memfd_create("trace", MFD_CLOEXEC);
    lk_assert(descriptor >= 0);
    return descriptor;
}

/* --- images ------------------------------------------------------------------------------------------------------- */

static uint64_t seed_of(const struct image_name *name, uint64_t what)
{
    struct random dice;
    uint64_t seed = what;
    for (int i = 0; i < name->count; i++) {
        random_seed(&dice, seed ^ (name->numbers[i] * 0x9e3779b97f4a7c15));
        seed = random_u64(&dice);
    }
    return seed;
}

static bool wanted(const struct image_name *name)
{
    if (run.replay.count == 0) return true;
    int count = name->count < run.replay.count ? name->count : run.replay.count;
    return memcmp(name->numbers, run.replay.numbers, (size_t)count * sizeof name->numbers[0]) == 0;
}

static struct image_name name_below(const struct image_name *name, uint64_t number)
{
    struct image_name below = *name;
    lk_assert(below.count < NAME_MAX_);
    below.numbers[below.count++] = number;
    return below;
}

static void failed(const struct image_name *name, const char *what)
{
    run.failures++;
    if (run.quiet) return;
    printf("FAILED: %s; replay it: ./dev powercut --replay ", what);
    for (int i = 0; i < name->count; i++) printf("%s%" PRIu64, i == 0 ? "" : "/", name->numbers[i]);
    printf("\n");
}

/* The child's end. False: something was wrong, and is told. */
static bool wait_for(pid_t child, bool may_be_killed, const struct image_name *name)
{
    char what[64];
    int status = 0;
    while (waitpid(child, &status, 0) < 0) lk_assert(errno == EINTR);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    if (may_be_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
    snprintf(what, sizeof what, WIFSIGNALED(status) ? "ended by signal %d" : "exit %d",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    failed(name, what);
    return false;
}

static pid_t fork_child(void)
{
    fflush(NULL);
    pid_t child = fork();
    lk_assert(child >= 0);
    if (child != 0) return child;
    alarm(CHILD_SECONDS_MAX);
    if (run.quiet) {
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        lk_assert(nowhere >= 0);
        dup2(nowhere, STDERR_FILENO);
    }
    return 0;
}

static void explore(const struct trace *trace, struct medium *medium, struct promised *promised,
                    const struct image_name *name, int depth);

/* One image of the medium as it is now, opened; of some, the opening is recorded, and cut at every point as well. */
static void examine(const struct medium *medium, const struct promised *promised, const struct image_name *name,
                    int depth)
{
    char root[PATH_BYTES];
    uint64_t seed = seed_of(name, 1);
    struct random dice;
    random_seed(&dice, seed_of(name, 2));
    bool recorded = depth + 1 < DEPTH_MAX && random_chance(&dice, 1, RECORDED_ONE_IN * (1 + (uint64_t)depth));
    new_directory(root, "image", depth);
    medium_image(medium, seed, root);
    struct medium *again = recorded ? medium_open(root, run.lie) : NULL;
    scatter_garbage(root, seed);
    int trace_descriptor = recorded ? trace_new() : -1;
    struct promised *now = malloc(sizeof *now);
    lk_assert(now != NULL);
    memcpy(now, promised, sizeof *now);
    pid_t child = fork_child();
    if (child == 0) {
        if (recorded) recorder_start(root, trace_descriptor);
        examine_here(root, seed, now, recorded);
        _exit(0);
    }
    run.images++;
    run.images_in_recovery += depth > 0;
    bool good = wait_for(child, false, name);
    if (good && recorded) {
        struct trace trace = trace_read(trace_descriptor);
        explore(&trace, again, now, name, depth + 1);
        munmap(trace.bytes, trace.count);
    }
    if (recorded) close(trace_descriptor);
    medium_close(again);
    free(now);
}

static void count_note(const struct lives_promise *before, const struct lives_note *note)
{
    if (note->type == LIVES_ACKED) run.acknowledged += note->acked_count - before->acked_count;
    if (note->type == LIVES_INSTALL_DONE) run.installs++;
    if (note->type == LIVES_OPENED && note->view.base > before->opened.base) run.bases_moved++;
}

static void take_note(struct promised *promised, const struct trace_record *record, const struct image_name *name)
{
    static struct lives_note note;
    char why[512];
    uint32_t type;
    memcpy(&type, trace_payload(record), sizeof type);
    if (type == NOTE_IDENTITY) {
        memcpy(&promised->identity, trace_payload(record), sizeof promised->identity);
        return;
    }
    memset(&note, 0, sizeof note);
    memcpy(&note, trace_payload(record), record->bytes < sizeof note ? record->bytes : sizeof note);
    count_note(&promised->lives, &note);
    if (!lives_promise_take(&promised->lives, &note, why, sizeof why)) failed(name, why);
}

/* Replay a recording, with an image at every point of it. Medium and promise are then those of its end. */
static void explore(const struct trace *trace, struct medium *medium, struct promised *promised,
                    const struct image_name *name, int depth)
{
    uint64_t point = 0, phase = seed_of(name, 3) % run.every;
    for (size_t at = 0; at < trace->count && run.failures == 0;) {
        const struct trace_record *record = (const void *)(trace->bytes + at);
        at += trace_record_bytes(record);
        medium_take(medium, record);
        if (record->type == TRACE_NOTE) {
            take_note(promised, record, name);
            continue;
        }
        struct image_name image = name_below(name, point);
        bool skipped = run.replay.count == 0 && (point % run.every != phase || run.images >= run.images_wanted);
        point++;
        if (skipped || !wanted(&image)) continue;
        examine(medium, promised, &image, depth);
    }
}

/* --- worlds ------------------------------------------------------------------------------------------------------- */

/* One life in `root`, recorded, then cut at every point. */
static void run_life(const char *root, struct medium *medium, struct promised *promised, const struct image_name *name)
{
    char why[PATH_BYTES];
    int trace_descriptor = trace_new();
    uint64_t life = name->numbers[1];
    pid_t child = fork_child();
    if (child == 0) {
        recorder_start(root, trace_descriptor);
        if (name->numbers[0] == 0)
            live_j3(root, life, promised);
        else
            live(root, name->numbers[0], life, seed_of(name, 4), promised);
        _exit(0);
    }
    run.lives++;
    if (wait_for(child, true, name)) {
        struct trace trace = trace_read(trace_descriptor);
        explore(&trace, medium, promised, name, 0);
        munmap(trace.bytes, trace.count);
        if (run.failures == 0 && !medium_compare(medium, root, why, sizeof why)) failed(name, why);
    }
    close(trace_descriptor);
}

static void run_world(uint64_t world)
{
    char root[PATH_BYTES];
    struct image_name name = {.numbers = {world}, .count = 1};
    int place = 0, lives_max = world == 0 ? 2 : LIVES_MAX;
    struct promised *promised = calloc(1, sizeof *promised);
    lk_assert(promised != NULL);
    new_directory(root, "live", place);
    struct medium *medium = medium_open(root, run.lie);
    for (int life = 0;
         life < lives_max && run.failures == 0 && (run.replay.count != 0 || run.images < run.images_wanted); life++) {
        struct image_name now = name_below(&name, (uint64_t)life);
        if (run.replay.count != 0 && (uint64_t)life > run.replay.numbers[1]) break;
        run_life(root, medium, promised, &now);
        if (world == 0 || life == 0 || seed_of(&now, 5) % 3 == 0)
            continue; /* kill -9: the cache stays, and what it owes the disk */
        place = 1 - place;
        new_directory(root, "live", place);
        medium_image(medium, seed_of(&now, 6), root);
        scatter_garbage(root, seed_of(&now, 6));
        medium_close(medium);
        medium = medium_open(root, run.lie);
    }
    medium_close(medium);
    free(promised);
}

static void run_worlds(void)
{
    if (run.replay.count != 0) {
        run_world(run.replay.numbers[0]);
        return;
    }
    run_world(0);
    for (uint64_t world = run.world_first; run.images < run.images_wanted && run.failures == 0; world++)
        run_world(world);
}

static int canary(void)
{
    static const struct {
        enum medium_lie lie;
        const char *what;
    } lies[] = {{MEDIUM_FLUSHES_LIE, "flushes"}, {MEDIUM_DSYNC_LIES, "O_DSYNC writes"}};
    run.quiet = true;
    run.images_wanted = 2000; /* it ends with the first that is found */
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        run.lie = lies[i].lie;
        run.images = run.failures = 0;
        run_worlds();
        printf("a disk whose %s do nothing: %s after %" PRIu64 " images\n", lies[i].what,
               run.failures != 0 ? "found" : "NOT FOUND", run.images);
        if (run.failures == 0) return 1;
    }
    return 0;
}

/* --- the program -------------------------------------------------------------------------------------------------- */

static int usage(void)
{
    fprintf(stderr,
            "usage: powercut [--images N] [--first-seed S] [--every K] [--canary | --replay WORLD/LIFE/POINT...]\n");
    return 2;
}

static bool parse_name(const char *text, struct image_name *ret)
{
    for (;;) {
        char *end;
        if (ret->count == NAME_MAX_) return false;
        ret->numbers[ret->count++] = strtoull(text, &end, 0);
        if (end == text || (*end != '/' && *end != '\0')) return false;
        if (*end == '\0') return ret->count >= 2;
        text = end + 1;
    }
}

static bool parse(int count, char **words, bool *ret_canary)
{
    for (int i = 1; i < count; i++) {
        char *end = NULL;
        if (strcmp(words[i], "--canary") == 0) {
            *ret_canary = true;
            continue;
        }
        if (i + 1 == count) return false;
        const char *option = words[i++];
        if (strcmp(option, "--replay") == 0) {
            if (!parse_name(words[i], &run.replay)) return false;
            continue;
        }
        uint64_t number = strtoull(words[i], &end, 0);
        if (*end != '\0' || number == 0) return false;
        if (strcmp(option, "--images") == 0)
            run.images_wanted = number;
        else if (strcmp(option, "--first-seed") == 0)
            run.world_first = number;
        else if (strcmp(option, "--every") == 0)
            run.every = number;
        else
            return false;
    }
    return true;
}

/* A short run looks at every seventh point, so that it sees more than one or two worlds. */
static void choose_length(void)
{
    uint64_t usual = getenv("LOCKSTEP_FULL") != NULL ? 10000 : getenv("LOCKSTEP_SHORT") != NULL ? 60 : 250;
    if (run.images_wanted == 0) run.images_wanted = usual;
    if (run.every == 0) run.every = run.images_wanted < 2000 ? 7 : 1;
}

/* In memory where there is some: what is flushed here is thrown away a moment later. */
static bool make_base(void)
{
    const char *folders[] = {getenv("LOCKSTEP_POWERCUT_DIR"), "/dev/shm", "/tmp"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        struct statvfs status;
        if (folders[i] == NULL || statvfs(folders[i], &status) != 0) continue;
        if ((uint64_t)status.f_bavail * status.f_frsize < FREE_BYTES_MIN) continue;
        snprintf(run.base, sizeof run.base, "%s/lockstep-powercut-XXXXXX", folders[i]);
        if (mkdtemp(run.base) != NULL) return true;
    }
    return false;
}

int main(int count, char **words)
{
    bool is_canary = false;
    if (!parse(count, words, &is_canary)) return usage();
    choose_length();
    if (recorder_start == NULL) {
        fprintf(stderr, "powercut: the recorder is not preloaded; start it by ./dev powercut\n");
        return 2;
    }
    if (!make_base()) {
        perror("powercut: no temporary directory");
        return 2;
    }
    int status = 0;
    if (is_canary) {
        status = canary();
    } else {
        printf("first seed %" PRIu64 "\n", run.world_first);
        run_worlds();
        printf("%" PRIu64 " lives: %" PRIu64 " steps acknowledged, %" PRIu64 " installs, the base moved %" PRIu64
               " times\n%" PRIu64 " images, %" PRIu64 " of them in a recovery; %" PRIu64 " failed\n",
               run.lives, run.acknowledged, run.installs, run.bases_moved, run.images, run.images_in_recovery,
               run.failures);
        bool enough = run.images < 5000 || (run.installs > 0 && run.bases_moved > 0);
        if (!enough) printf("the lives reached too little to say anything\n");
        status = run.failures != 0 || !enough;
    }
    if (run.failures == 0 || is_canary)
        clear_directory(run.base);
    else
        printf("what was found is left in %s\n", run.base);
    return status;
}
