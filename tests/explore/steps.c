/* SPDX-License-Identifier: Apache-2.0 */
/* steps.c - see steps.h. */
#include "tests/explore/steps.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"

enum kind { LOAD, STORE, WAIT, MERGE, END };

struct access {
    uint8_t kind;
    bool glued;
    uint16_t word;
    uint64_t value; /* of a STORE; of a MERGE its key */
};

/* What a process does behind the values that it loaded, up to the next load or merge: accesses[first..first + count). */
struct local {
    uint32_t parent, child, sibling; /* 0 = none; 0 is the start, which is nobody's child */
    uint64_t value;                  /* that was loaded last; or, where it is_merged, the key */
    bool is_merged;                  /* it stands for all with this key, and parent is one of them */
    uint32_t merges;                 /* passed before it */
    uint32_t first, count, depth;    /* depth: accesses before it */
};

enum { MERGED_BUCKETS = 1024 };

struct process {
    const struct steps_process *program;
    struct local *locals;
    uint32_t local_count, local_room;
    struct access *accesses;
    uint32_t access_count, access_room;
    uint32_t merged[MERGED_BUCKETS]; /* by their keys, in lists by `sibling` */
    bool loads[STEPS_WORDS_MAX], stores[STEPS_WORDS_MAX];
};

struct region {
    uintptr_t at;
    size_t bytes;
    uint32_t first_word;
};

struct key {
    uint64_t a, b;
};

/* Where a process is, and the path to the present state. */
struct place {
    uint32_t local, offset;
};
struct taken {
    uint8_t process;
    struct access access;
};

struct written {
    uint16_t word;
    uint64_t value; /* before */
};

enum { REGIONS_MAX = 16, PATH_MAX_STEPS = 65536, FED_MAX = 8192 };

static struct region regions[REGIONS_MAX];
static unsigned region_count;
static uint64_t initial[STEPS_WORDS_MAX], memory[STEPS_WORDS_MAX];
static void (*name_of)(uint32_t word, char *to, size_t room);
static bool (*is_glued)(uint32_t word);

static struct process processes[STEPS_PROCESSES_MAX];
static unsigned process_count;
static struct place places[STEPS_PROCESSES_MAX];
static struct key memory_key;
static struct taken path[PATH_MAX_STEPS];
static uint32_t path_length;
static struct written written[PATH_MAX_STEPS];
static uint32_t written_count;
static struct key *seen; /* a hash table, {0, 0} = free */
static uint64_t seen_count, seen_room;
static uint64_t steps;
static uint32_t accesses_max, longest;
static const char *broken;
static bool learnt;

/* The run that is going on: of this process, fed with these values. */
static bool running;
static struct process *runner;
static uint64_t fed[FED_MAX];
static uint32_t fed_count, fed_at, merges_known, merges_passed; /* what comes behind both is recorded */
static uint16_t head;                                           /* the first word of what is glued */
static jmp_buf run_over;

/* --- words -------------------------------------------------------------------------------------------------------- */

void steps_region(const volatile void *at, size_t bytes, uint32_t first_word)
{
    lk_assert(region_count < REGIONS_MAX && first_word + bytes / 8 <= STEPS_WORDS_MAX);
    regions[region_count++] = (struct region){.at = (uintptr_t)at, .bytes = bytes, .first_word = first_word};
}

void steps_initial(uint32_t word, uint64_t value)
{
    initial[word] = value;
}

void steps_describe(void (*name)(uint32_t, char *, size_t), bool (*glued)(uint32_t))
{
    name_of = name;
    is_glued = glued;
}

void steps_forget(void)
{
    region_count = 0;
    memset(initial, 0, sizeof initial);
}

static uint16_t word_of(const volatile void *at)
{
    for (unsigned i = 0; i < region_count; i++) {
        uintptr_t offset = (uintptr_t)at - regions[i].at;
        if ((uintptr_t)at >= regions[i].at && offset < regions[i].bytes)
            return (uint16_t)(regions[i].first_word + offset / 8);
    }
    lk_unreachable(); /* all that is shared has a region: an access to anything else would be missed */
}

static uint64_t mixed(uint64_t value)
{
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static void word_set(uint16_t word, uint64_t value)
{
    const uint64_t values[] = {memory[word], value};
    for (int i = 0; i < 2; i++) {
        memory_key.a ^= mixed(values[i] + 0x9e3779b97f4a7c15u * (word + 1u));
        memory_key.b ^= mixed(mixed(values[i]) + 0xd1b54a32d192ed03u * (word + 1u));
    }
    memory[word] = value;
}

/* --- one process by itself ---------------------------------------------------------------------------------------- */

static void record(enum kind kind, uint16_t word, uint64_t value)
{
    struct process *p = runner;
    if (p->access_count == p->access_room) {
        p->access_room = p->access_room == 0 ? 4096 : 2 * p->access_room;
        p->accesses = realloc(p->accesses, p->access_room * sizeof *p->accesses);
        lk_assert(p->accesses != NULL);
    }
    struct access *access = &p->accesses[p->access_count++];
    *access =
        (struct access){.kind = (uint8_t)kind, .glued = kind < MERGE && is_glued(word), .word = word, .value = value};
    if (kind == END || kind == MERGE) return;
    if (kind != STORE && !p->loads[head]) learnt = p->loads[head] = true;
    if (kind != LOAD && !p->stores[head]) learnt = p->stores[head] = true;
}

/* What is glued counts as its first word: both sides divide memory in the same way. */
static uint16_t word_at(const volatile void *at)
{
    uint16_t word = word_of(at);
    if (!is_glued(word)) head = word;
    return word;
}

static uint64_t loaded(enum kind kind, const volatile void *at)
{
    uint16_t word = word_at(at);
    if (fed_at < fed_count) return fed[fed_at++];
    record(kind, word, 0);
    longjmp(run_over, 1);
}

uint64_t ring_word_load(const ring_word *word)
{
    return running ? loaded(LOAD, word) : atomic_load(word);
}

uint64_t ring_word_copy(const ring_word *word)
{
    return ring_word_load(word);
}

void ring_word_store(ring_word *word, uint64_t value)
{
    if (running) {
        uint16_t at = word_at(word);
        if (fed_at == fed_count && merges_passed == merges_known) record(STORE, at, value);
    }
    atomic_store(word, value); /* for its owner, who reads it without asking */
}

void steps_wait(ring_word *word)
{
    if (running) (void)loaded(WAIT, word);
}

void steps_merge(uint64_t key)
{
    if (!running) return;
    if (fed_at < fed_count || merges_passed < merges_known) {
        merges_passed++;
        return;
    }
    record(MERGE, 0, key);
    longjmp(run_over, 1);
}

_Noreturn void steps_broken(const char *what)
{
    lk_assert(running);
    broken = what;
    longjmp(run_over, 2);
}

/* The state behind `parent` (or the start, if there is none yet) with this value; or the one that stands for this key. */
static uint32_t local_make(struct process *p, uint32_t parent, uint64_t value, bool is_merged)
{
    bool start = p->local_count == 0;
    if (p->local_count == p->local_room) {
        p->local_room = p->local_room == 0 ? 1024 : 2 * p->local_room;
        p->locals = realloc(p->locals, p->local_room * sizeof *p->locals);
        lk_assert(p->locals != NULL);
    }
    uint32_t made = p->local_count++;
    struct local *local = &p->locals[made];
    *local = (struct local){.parent = parent, .value = value, .is_merged = is_merged, .first = p->access_count};
    if (!start) {
        uint32_t *list = is_merged ? &p->merged[value % MERGED_BUCKETS] : &p->locals[parent].child;
        local->depth = p->locals[parent].depth + p->locals[parent].count;
        local->merges = p->locals[parent].merges + is_merged;
        local->sibling = *list;
        *list = made;
    }
    fed_count = 0;
    for (uint32_t at = made; at != 0; at = p->locals[at].parent) {
        lk_assert(fed_count < FED_MAX);
        if (!p->locals[at].is_merged) fed[fed_count++] = p->locals[at].value;
    }
    for (uint32_t i = 0; i < fed_count / 2; i++) {
        uint64_t other = fed[i];
        fed[i] = fed[fed_count - 1 - i];
        fed[fed_count - 1 - i] = other;
    }
    fed_at = merges_passed = 0;
    merges_known = local->merges;
    runner = p;
    p->program->reset();
    running = true;
    if (setjmp(run_over) == 0) {
        p->program->run();
        record(END, 0, 0);
    }
    running = false;
    local = &p->locals[made];
    local->count = p->access_count - local->first;
    if (local->depth + local->count > longest) longest = local->depth + local->count;
    if (local->depth + local->count > accesses_max && broken == NULL) broken = "a process does not come to an end";
    return made;
}

static uint32_t local_behind(struct process *p, uint32_t parent, uint64_t value)
{
    for (uint32_t at = p->locals[parent].child; at != 0; at = p->locals[at].sibling) {
        if (p->locals[at].value == value) return at;
    }
    return local_make(p, parent, value, false);
}

static uint32_t local_of_key(struct process *p, uint32_t parent, uint64_t key)
{
    for (uint32_t at = p->merged[key % MERGED_BUCKETS]; at != 0; at = p->locals[at].sibling) {
        if (p->locals[at].value == key) return at;
    }
    return local_make(p, parent, key, true);
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

/* The next access, or NULL: what broke a rule ends where it did. */
static const struct access *next_access(unsigned i)
{
    const struct local *local = &processes[i].locals[places[i].local];
    return places[i].offset < local->count ? &processes[i].accesses[local->first + places[i].offset] : NULL;
}

static bool is_ready(unsigned i)
{
    const struct access *access = next_access(i);
    return access != NULL && access->kind != END && (access->kind != WAIT || memory[access->word] != 0);
}

static bool is_noticed(unsigned i)
{
    const struct access *access = next_access(i);
    for (unsigned other = 0; other < process_count; other++) {
        if (other == i) continue;
        if (processes[other].stores[access->word]) return true;
        if (access->kind != LOAD && processes[other].loads[access->word]) return true;
    }
    return false;
}

/* To go back: where the process was, and how long path and written words were. */
struct undo {
    struct place place;
    uint32_t path_length, written_count;
};

static void take_one(unsigned i)
{
    struct process *p = &processes[i];
    struct access access = *next_access(i);
    lk_assert(path_length < PATH_MAX_STEPS);
    if (access.kind != LOAD) {
        lk_assert(written_count < PATH_MAX_STEPS);
        written[written_count++] = (struct written){.word = access.word, .value = memory[access.word]};
    }
    uint64_t value = memory[access.word];
    if (access.kind == STORE) {
        word_set(access.word, access.value);
        places[i].offset++;
    } else {
        access.value = value;
        if (access.kind == WAIT) word_set(access.word, 0);
    }
    path[path_length++] = (struct taken){.process = (uint8_t)i, .access = access};
    if (access.kind != STORE) places[i] = (struct place){.local = local_behind(p, places[i].local, value)};
}

static void merge(unsigned i)
{
    const struct access *next = next_access(i);
    if (next == NULL || next->kind != MERGE) return;
    places[i] = (struct place){.local = local_of_key(&processes[i], places[i].local, next->value)};
    merge(i);
}

/* One access and those that are glued to it. */
static void take(unsigned i, struct undo *undo)
{
    *undo = (struct undo){.place = places[i], .path_length = path_length, .written_count = written_count};
    const struct access *next;
    do {
        take_one(i);
        merge(i);
        next = next_access(i);
    } while (broken == NULL && next != NULL && next->kind != END && next->glued);
    steps++;
}

static void take_back(unsigned i, const struct undo *undo)
{
    while (written_count > undo->written_count) {
        written_count--;
        word_set(written[written_count].word, written[written_count].value);
    }
    places[i] = undo->place;
    path_length = undo->path_length;
}

static bool seen_put(struct key key)
{
    uint64_t at = key.a & (seen_room - 1);
    while (seen[at].a != 0 || seen[at].b != 0) {
        if (seen[at].a == key.a && seen[at].b == key.b) return false;
        at = (at + 1) & (seen_room - 1);
    }
    seen[at] = key;
    seen_count++;
    return true;
}

/* The present state. False: it was seen before. */
static bool see(void)
{
    if (2 * (seen_count + 1) > seen_room) {
        struct key *old = seen;
        uint64_t old_room = seen_room;
        seen_room = seen_room == 0 ? 1 << 16 : 2 * seen_room;
        seen = calloc(seen_room, sizeof *seen);
        lk_assert(seen != NULL);
        seen_count = 0;
        for (uint64_t i = 0; i < old_room; i++) {
            if (old[i].a != 0 || old[i].b != 0) (void)seen_put(old[i]);
        }
        free(old);
    }
    struct key key = memory_key;
    for (unsigned i = 0; i < process_count; i++) {
        uint64_t place = (uint64_t)places[i].local << 32 | places[i].offset;
        key.a = mixed(key.a + mixed(place + 0x2545f4914f6cdd1du * (i + 1)));
        key.b = mixed(key.b ^ mixed(place + 0x5851f42d4c957f2du * (i + 1)));
    }
    if (key.a == 0 && key.b == 0) key.a = 1;
    return seen_put(key);
}

static void explore_from_here(void)
{
    if (broken != NULL || !see()) return;
    bool ready[STEPS_PROCESSES_MAX], any = false, waits = false;
    int alone = -1;
    for (unsigned i = 0; i < process_count; i++) {
        const struct access *access = next_access(i);
        ready[i] = is_ready(i);
        any |= ready[i];
        waits |= access != NULL && access->kind == WAIT;
        if (ready[i] && alone < 0 && !is_noticed(i)) alone = (int)i;
    }
    if (!any && waits) {
        broken = "S7: a process waits for ever";
        return;
    }
    for (unsigned i = 0; i < process_count; i++) {
        if (!ready[i] || (alone >= 0 && alone != (int)i)) continue;
        struct undo undo;
        take(i, &undo);
        explore_from_here();
        if (broken != NULL) return; /* the path stays for print_path() */
        take_back(i, &undo);
    }
}

static void print_path(void)
{
    static const char *const verbs[] = {"loads", "stores", "wakes by"};
    for (uint32_t i = 0; i < path_length; i++) {
        char name[64];
        const struct taken *t = &path[i];
        name_of(t->access.word, name, sizeof name);
        printf("#   %-8s %-8s %s = %" PRIu64 "\n", processes[t->process].program->name, verbs[t->access.kind], name,
               t->access.value);
    }
    fflush(stdout);
}

/* An assertion of the code itself fails: that is a find as well. */
static void on_abort(int signal_number)
{
    (void)signal_number;
    printf("# broken: an assertion of the code, behind\n");
    print_path();
    _exit(1);
}

static void search(void)
{
    memcpy(memory, initial, sizeof memory);
    memory_key = (struct key){0};
    memset(places, 0, sizeof places);
    path_length = written_count = 0;
    seen_count = 0;
    if (seen != NULL) memset(seen, 0, seen_room * sizeof *seen);
    steps = 0;
    learnt = false;
    for (unsigned i = 0; i < process_count; i++) merge(i);
    explore_from_here();
}

struct steps_result steps_explore(const struct steps_process *programs, unsigned count, uint32_t max)
{
    struct steps_result result = {0};
    process_count = count;
    accesses_max = max;
    longest = 0;
    broken = NULL;
    void (*before)(int) = signal(SIGABRT, on_abort);
    for (unsigned i = 0; i < count; i++) {
        processes[i] = (struct process){.program = &programs[i]};
        local_make(&processes[i], 0, 0, false);
    }
    do {
        search();
    } while (broken == NULL && learnt);
    signal(SIGABRT, before);
    if (broken != NULL) {
        printf("# broken: %s\n", broken);
        print_path();
    }
    result = (struct steps_result){.states = seen_count, .steps = steps, .longest = longest, .broken = broken};
    for (unsigned i = 0; i < count; i++) {
        result.local_states += processes[i].local_count;
        free(processes[i].locals);
        free(processes[i].accesses);
    }
    free(seen);
    seen = NULL;
    seen_count = seen_room = 0;
    return result;
}
