/* SPDX-License-Identifier: Apache-2.0 */
/* test_ring_stress.c - a node that writes, laps, cuts and changes its term as fast as it can, and readers of its ring, on
 * processors as they are: threads that sleep and wake each other, and processes that are killed at any instruction.
 * What a reader gets is checked against itself: blocks are whole, those of one epoch are one chain, and what was committed
 * once stays; the node looks up each block that an ack speaks of. `./dev ring` goes through all orders of a few steps, this
 * through some orders of many. And a hostile node writes nonsense while it is read.
 * Under ThreadSanitizer it watches everything else: node and reader have mappings of their own, so that it does not know
 * that their words are the same. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "proto/ring_reader.h"
#include "storage/ring.h"
#include "tests/support/blocks.h"
#include "tests/support/unit.h"

enum { BYTES = RING_BYTES_MIN, BLOCK_MAX = 8192, READERS = 3, PROOFS = 256, KEPT = 1024 };

/* What a reader tells with its ack, in its page behind the slot: which block it means. For this test alone. */
struct page {
    struct ring_reader_slot slot;
    ring_word proofs[PROOFS]; /* header_crc of the block with this index, modulo */
};
static_assert(sizeof(struct page) <= RING_SEGMENT_PAGE_BYTES, "in the slot's page");

struct shared {
    _Atomic bool stop;
    _Atomic uint64_t read, lapped, acked, broken;
    char what[128]; /* the first thing that was broken */
};

static struct ring *ring;
static struct shared *shared;
static const struct page *pages_seen[READERS];
static struct page *pages[READERS];
static int bells[1 + READERS][2]; /* of the node, of the readers: [0] is the sleeper's end */

static bool broken(const char *what)
{
    if (atomic_fetch_add(&shared->broken, 1) == 0) snprintf(shared->what, sizeof shared->what, "%s", what);
    atomic_store(&shared->stop, true);
    return false;
}

static void bell_ring(unsigned of)
{
    (void)send(bells[of][1], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* EAGAIN: bells enough */
}

static void bell_wait(unsigned of)
{
    struct pollfd pollfd = {.fd = bells[of][0], .events = POLLIN};
    char byte;
    while (poll(&pollfd, 1, -1) < 0 && errno == EINTR) continue;
    while (recv(bells[of][0], &byte, 1, MSG_DONTWAIT) > 0) continue;
}

/* --- a reader ----------------------------------------------------------------------------------------------------- */

struct follower {
    unsigned self;
    bool sleeps;
    struct ring_reader *reader;
    struct random random;
    uint64_t epoch, rung;
    raft_index next;
    struct block_base behind; /* the last block of this epoch; index 0 = none yet */
    struct {
        raft_index index;
        uint32_t crc;
    } committed[KEPT];
    uint8_t bytes[2 * BLOCK_MAX];
};

static bool follower_check(struct follower *f, const struct ring_view *view, raft_index first,
                           const struct ring_blocks *blocks)
{
    size_t at = 0;
    for (raft_index i = first; i <= blocks->last; i++) {
        struct block_header header;
        if (block_header_read(f->bytes + at, blocks->bytes - at, &header) != 0 || header.index != i ||
            block_body_check(f->bytes + at, &header) != 0)
            return broken("S1: a block that is not whole, or another one");
        if (f->behind.index + 1 == i && f->behind.index != 0 && block_chain_check(&f->behind, &header) != 0)
            return broken("S3: blocks of one epoch that do not chain");
        f->behind = block_base_after(&header);
        if (i <= view->commit) {
            if (f->committed[i % KEPT].index == i && f->committed[i % KEPT].crc != header.header_crc)
                return broken("a committed block became another one");
            f->committed[i % KEPT].index = i;
            f->committed[i % KEPT].crc = header.header_crc;
        }
        ring_word_store(&pages[f->self]->proofs[i % PROOFS], header.header_crc);
        at += header.bytes;
    }
    return true;
}

static bool follower_ack(struct follower *f, const struct ring_view *view, raft_index last)
{
    if (!view->leads) return true;
    const struct ring_ack ack = {.epoch = view->epoch, .durable = last, .validated = last, .round = view->round};
    ring_ack_store(&pages[f->self]->slot, &ack);
    if (f->sleeps && ring_sleeps_look(ring_reader_writer_sleeps(f->reader), &f->rung)) bell_ring(0);
    return true;
}

/* One look, and what there is to copy. False: something is broken. */
static bool follower_turn(struct follower *f, struct ring_view *view, bool *ret_idle)
{
    *ret_idle = true;
    int rc = ring_reader_look(f->reader, view);
    if (rc == LOCKSTEP_EUNAVAILABLE) {
        view->epoch = 0; /* moved, whatever it is now */
        return true;
    }
    if (rc != 0) return broken("S5: an honest node's view is called corrupt");
    if (view->epoch != f->epoch) {
        f->epoch = view->epoch;
        f->behind.index = 0;
        if (f->next > view->last_index) f->next = view->last_index; /* the last one once more, under this epoch */
        if (f->next == 0) f->next = 1;
    }
    if (f->next > view->last_index) return true;
    *ret_idle = false;
    struct ring_blocks blocks;
    size_t room = BLOCK_MAX + random_below(&f->random, BLOCK_MAX);
    rc = ring_reader_copy(f->reader, view, f->next, view->last_index, f->bytes, room, &blocks);
    switch (rc) {
    case 0:
        if (!follower_check(f, view, f->next, &blocks)) return false;
        f->next = blocks.last + 1;
        atomic_fetch_add(&shared->read, 1);
        return follower_ack(f, view, blocks.last);
    case LOCKSTEP_ELAPPED:
        atomic_fetch_add(&shared->lapped, 1);
        f->behind.index = 0;
        *ret_idle = f->next == view->last_index; /* all that was above it has been cut */
        f->next = view->last_index - random_below(&f->random, view->last_index - f->next + 1);
        return true;
    case LOCKSTEP_EUNAVAILABLE: return true;
    default: return broken("S5: an honest node's block is called corrupt, or is not there");
    }
}

static void *follower_run(void *argument)
{
    struct follower *f = argument;
    while (!atomic_load(&shared->stop)) {
        struct ring_view view;
        bool idle;
        if (!follower_turn(f, &view, &idle)) break;
        if (!idle) continue;
        if (!f->sleeps || view.epoch == 0) {
            sched_yield();
            continue;
        }
        ring_sleeps_store(&pages[f->self]->slot.sleeps, true);
        if (!ring_reader_moved(f->reader, &view) && !atomic_load(&shared->stop)) bell_wait(1 + f->self);
        ring_sleeps_store(&pages[f->self]->slot.sleeps, false);
    }
    if (atomic_load(&shared->broken) != 0) bell_ring(0);
    return NULL;
}

/* --- the node ----------------------------------------------------------------------------------------------------- */

struct node {
    struct random random;
    bool sleeps;
    raft_term term;
    raft_index commit;
    uint64_t rung[READERS];
};

static void node_bells(struct node *n)
{
    for (unsigned i = 0; n->sleeps && i < READERS; i++) {
        if (ring_sleeps_look(&pages_seen[i]->slot.sleeps, &n->rung[i])) bell_ring(1 + i);
    }
}

static void node_commit(struct node *n, raft_index index)
{
    n->commit = index;
    ring_commit(ring, index);
    ring_release(ring, index);
}

static void node_publish(struct node *n, uint32_t bytes)
{
    uint8_t *at = NULL;
    struct block_base base = ring_last(ring);
    struct block_header header;
    if (ring_claim(ring, bytes, &at) != 0) {
        node_commit(n, base.index);
        if (ring_claim(ring, bytes, &at) != 0) {
            broken("S6: no room though all of it may go");
            return;
        }
    }
    blocks_make(at, &base, n->term, 1, bytes - BLOCK_HEADER_BYTES - COMMAND_HEADER_BYTES, random_u64(&n->random),
                &header);
    ring_publish(ring, &header);
}

static void node_change(struct node *n, bool leads, raft_index cut)
{
    n->term++;
    ring_epoch_begin(ring);
    if (cut != 0) ring_cut(ring, cut);
    ring_epoch_end(ring, n->term, leads);
}

static void node_step(struct node *n)
{
    raft_index last = ring_last(ring).index;
    uint64_t roll = random_below(&n->random, 100);
    if (roll < 75) {
        uint32_t most = random_chance(&n->random, 1, 10) ? BLOCK_MAX : 512;
        node_publish(n, (uint32_t)random_between(&n->random, 12, most / 8) * 8);
    } else if (roll < 85) {
        node_commit(n, random_between(&n->random, n->commit, last));
    } else if (roll < 90) {
        ring_beat(ring, random_u64(&n->random));
    } else if (roll < 95 && last > n->commit) {
        node_change(n, random_chance(&n->random, 1, 2), random_between(&n->random, n->commit + 1, last));
    } else if (roll < 98 && last > n->commit) {
        ring_epoch_begin(ring);
        (void)ring_republish(ring, n->commit + 1); /* EFULL: not now */
        ring_epoch_end(ring, n->term, true);
    } else {
        node_change(n, random_chance(&n->random, 1, 2), 0);
    }
}

/* Whether this reader has all, under this epoch; what it says is looked up. */
static bool node_count(unsigned i)
{
    struct ring_ack ack;
    struct ring_slot slot;
    if (!ring_ack_load(&pages_seen[i]->slot, ring_epoch(ring), &ack)) return false;
    raft_index last = ring_last(ring).index;
    if (ack.durable > last || ack.durable > ack.validated) broken("S2: an ack of what is not there");
    if (ack.durable != last || last == 0) return false;
    if (ring_find(ring, last, &slot) != 0) return false;
    /* A reader that goes on may be at an index 256 higher only when there is one. */
    if (ring_word_load(&pages_seen[i]->proofs[last % PROOFS]) != slot.header_crc) broken("S2: an ack of another block");
    atomic_fetch_add(&shared->acked, 1);
    return true;
}

static bool node_all_have_it(void)
{
    for (unsigned i = 0; i < READERS; i++) {
        if (!node_count(i)) return atomic_load(&shared->broken) != 0;
    }
    return true;
}

/* S7: it waits, asleep, until all have it: a bell that nobody rings is a test that does not end. */
static void node_wait(struct node *n)
{
    node_change(n, true, 0);
    node_publish(n, 96);
    node_bells(n);
    while (!node_all_have_it()) {
        ring_sleeps(ring, true);
        if (!node_all_have_it()) bell_wait(0);
        ring_sleeps(ring, false);
    }
}

/* --- both --------------------------------------------------------------------------------------------------------- */

static void open_all(void)
{
    const struct ring_options options = {.bytes = BYTES, .block_bytes_max = BLOCK_MAX};
    ck_assert_int_eq(ring_open(&options, &ring), 0);
    ring_start(ring, &(struct block_base){.next_position = 1});
    for (unsigned i = 0; i < READERS; i++) {
        const struct ring_reader_slot *seen;
        struct ring_reader_slot *slot;
        int fd;
        ck_assert_int_eq(ring_reader_slot_make(&fd, &seen), 0);
        ck_assert_int_eq(ring_reader_slot_map(fd, &slot), 0);
        pages_seen[i] = (const struct page *)(const void *)seen;
        pages[i] = (struct page *)(void *)slot;
        close(fd);
    }
    for (unsigned i = 0; i < 1 + READERS; i++)
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, bells[i]), 0);
    void *at = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    shared = at;
}

static void close_all(void)
{
    ring_close(ring);
    for (unsigned i = 0; i < READERS; i++) {
        ring_reader_slot_unmap(&pages_seen[i]->slot);
        ring_reader_slot_unmap(&pages[i]->slot);
    }
    for (unsigned i = 0; i < 1 + READERS; i++) {
        close(bells[i][0]);
        close(bells[i][1]);
    }
    munmap(shared, sizeof *shared);
}

static struct follower *follower_open(unsigned self, uint64_t seed, bool sleeps)
{
    struct follower *f = calloc(1, sizeof *f);
    ck_assert_ptr_nonnull(f);
    f->self = self;
    f->sleeps = sleeps;
    f->next = 1;
    random_seed(&f->random, seed + 1 + self);
    ck_assert_int_eq(ring_reader_open(ring_fd(ring), &f->reader), 0);
    return f;
}

static void follower_close(struct follower *f)
{
    ring_reader_close(f->reader);
    free(f);
}

START_TEST(readers_that_sleep_and_wake_see_one_log_and_miss_no_bell) /* S1, S2, S3, S7 */
{
    struct node node = {.sleeps = true, .term = 1};
    struct follower *followers[READERS];
    pthread_t threads[READERS];
    uint64_t seed = unit_seed(0x5712e55), rounds = unit_rounds(800);
    open_all();
    random_seed(&node.random, seed);
    for (unsigned i = 0; i < READERS; i++) {
        followers[i] = follower_open(i, seed, true);
        ck_assert_int_eq(pthread_create(&threads[i], NULL, follower_run, followers[i]), 0);
    }
    for (uint64_t round = 0; round < rounds && !atomic_load(&shared->stop); round++) {
        for (uint64_t steps = random_below(&node.random, 80); steps > 0; steps--) {
            node_step(&node);
            if (random_chance(&node.random, 1, 4)) node_bells(&node);
        }
        node_wait(&node);
    }
    atomic_store(&shared->stop, true);
    for (unsigned i = 0; i < READERS; i++) bell_ring(1 + i);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        follower_close(followers[i]);
    }
    printf("%llu reads, %llu lapped, %llu acks\n", (unsigned long long)shared->read, (unsigned long long)shared->lapped,
           (unsigned long long)shared->acked);
    ck_assert_msg(atomic_load(&shared->broken) == 0, "%s", shared->what);
    ck_assert_uint_ge(atomic_load(&shared->acked), rounds * READERS);
    close_all();
}
END_TEST

/* --- a hostile node ----------------------------------------------------------------------------------------------- */

struct scribbler {
    uint8_t *segment;
    uint64_t seed;
};

/* Numbers that lead far, and numbers that are nonsense, wherever a reader looks. */
static void *scribble(void *argument)
{
    const struct scribbler *s = argument;
    struct ring_segment *segment = (struct ring_segment *)(void *)s->segment;
    struct ring_map_slot *slots = (struct ring_map_slot *)(void *)(s->segment + RING_SEGMENT_PAGE_BYTES);
    ring_word *const words[] = {&segment->epoch, &segment->head, &segment->tail, &segment->commit,
                                &segment->last_index};
    struct random random;
    random_seed(&random, s->seed);
    while (!atomic_load(&shared->stop)) {
        uint64_t any = random_u64(&random), place = random_below(&random, 64 * BYTES) & ~(uint64_t)7;
        raft_index index = random_below(&random, 64);
        struct ring_map_slot *slot = &slots[index];
        if (random_chance(&random, 1, 32)) {
            bool far = random_chance(&random, 1, 2);
            ring_word_store(words[random_below(&random, 5)], far ? any : place);
        }
        ring_word_store(&segment->epoch, 2);
        ring_word_store(&segment->head, 0);
        ring_word_store(&segment->tail, (uint64_t)128 * BYTES);
        ring_word_store(&segment->last_index, 64);
        ring_word_store(&segment->commit, 1);
        ring_word_store(&slot->index, index);
        ring_word_store(&slot->pos, random_chance(&random, 1, 8) ? any : place);
        ring_word_store(&slot->bytes_crc, random_chance(&random, 1, 8) ? any : random_between(&random, 8, 512) * 8);
    }
    return NULL;
}

START_TEST(numbers_that_change_under_the_check_lead_nowhere) /* S5 */
{
    const uint32_t slot_count = ring_segment_slots(BYTES);
    const uint64_t bytes_at = ring_segment_bytes_at(slot_count);
    const struct ring_segment header = {.magic = RING_SEGMENT_MAGIC,
                                        .version = RING_SEGMENT_VERSION,
                                        .slot_count = slot_count,
                                        .bytes = BYTES,
                                        .bytes_at = bytes_at};
    uint64_t seed = unit_seed(0x5c21b), rounds = unit_rounds(100000), copied = 0;
    struct ring_reader *reader = NULL;
    struct random random;
    pthread_t thread;
    open_all();
    random_seed(&random, seed);
    int fd = ring_segment_make("hostile", bytes_at + BYTES);
    ck_assert_int_eq(pwrite(fd, &header, sizeof header, 0), sizeof header);
    struct scribbler scribbler = {.segment = ring_segment_map(fd, bytes_at, BYTES, true), .seed = seed};
    ck_assert_ptr_nonnull(scribbler.segment);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE), 0);
    ck_assert_int_eq(ring_reader_open(fd, &reader), 0);
    close(fd);
    ck_assert_int_eq(pthread_create(&thread, NULL, scribble, &scribbler), 0);
    for (uint64_t round = 0; round < rounds || copied < 100; round++) {
        struct ring_view view;
        struct ring_blocks blocks;
        size_t room = 64 + random_below(&random, 8192);
        if (ring_reader_look(reader, &view) != 0) continue;
        uint8_t *to = malloc(room); /* of this size: AddressSanitizer sees a write behind it */
        ck_assert_ptr_nonnull(to);
        raft_index first = random_below(&random, 64);
        if (ring_reader_copy(reader, &view, first, UINT64_MAX, to, room, &blocks) == 0) {
            ck_assert_uint_le(blocks.bytes, room);
            copied++;
        }
        free(to);
    }
    atomic_store(&shared->stop, true);
    pthread_join(thread, NULL);
    printf("%llu copied\n", (unsigned long long)copied);
    ring_reader_close(reader);
    munmap(scribbler.segment, ring_segment_map_bytes(bytes_at, BYTES));
    close_all();
}
END_TEST

#if !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ONE_PROCESS 1
#endif
#endif
#else
#define ONE_PROCESS 1
#endif

#ifndef ONE_PROCESS /* ThreadSanitizer follows no process into another */

static pid_t node_fork(uint64_t seed, uint64_t steps)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid != 0) return pid;
    struct node node = {.sleeps = false, .term = 1};
    random_seed(&node.random, seed);
    for (uint64_t step = 0; step < steps && !atomic_load(&shared->stop); step++) {
        node_step(&node);
        for (unsigned i = 0; i < READERS; i++) (void)node_count(i);
    }
    _exit(0);
}

static pid_t follower_fork(unsigned self, uint64_t seed)
{
    struct follower *f = follower_open(self, seed, false);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        follower_run(f);
        _exit(0);
    }
    follower_close(f);
    return pid;
}

static void expect_end(pid_t pid, bool killed)
{
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    bool by_us = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && killed;
    if (!by_us && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) ck_abort_msg("ended with status 0x%x", status);
}

/* One node and its readers; one of them is killed at some moment. The others come to their end: a node goes through all its
 * steps, a reader of a node that stopped anywhere, in an odd epoch too, still answers when it is told to stop. */
static void episode(struct random *random, uint64_t seed)
{
    pid_t pids[1 + READERS];
    unsigned victim = (unsigned)random_below(random, 1 + READERS);
    uint64_t delay_us = random_below(random, 8000);
    open_all();
    for (unsigned i = 0; i < READERS; i++) pids[1 + i] = follower_fork(i, seed);
    pids[0] = node_fork(seed, 20000);
    usleep((useconds_t)delay_us);
    kill(pids[victim], SIGKILL);
    expect_end(pids[0], victim == 0);
    atomic_store(&shared->stop, true);
    for (unsigned i = 0; i < READERS; i++) expect_end(pids[1 + i], victim == 1 + i);
    if (atomic_load(&shared->broken) != 0) ck_abort_msg("seed 0x%llx: %s", (unsigned long long)seed, shared->what);
    close_all();
}

START_TEST(processes_that_are_killed_at_any_instruction_hold_nobody) /* S4, S6 */
{
    struct random random;
    uint64_t seed = unit_seed(0xdead), rounds = unit_rounds(25);
    random_seed(&random, seed);
    for (uint64_t i = 0; i < rounds; i++) episode(&random, seed + i);
}
END_TEST

#endif

static void add(TCase *tests)
{
    tcase_add_test(tests, readers_that_sleep_and_wake_see_one_log_and_miss_no_bell);
    tcase_add_test(tests, numbers_that_change_under_the_check_lead_nowhere);
#ifndef ONE_PROCESS
    tcase_add_test(tests, processes_that_are_killed_at_any_instruction_hold_nobody);
#endif
}

int main(void)
{
    return unit_main("proto ring_stress", add);
}
