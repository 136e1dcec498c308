/* SPDX-License-Identifier: Apache-2.0 */
/* test_host_threads.c - loop and machine on two threads over the real ring, a third one reading status; a machine that
 * hangs while the ring moves on (M4). Meant for TSan too. */
#include "tests/support/unit.h"
#include "tests/unit/statemachine/world.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/random.h"
#include "lockstep/errors.h"

static struct world world;
static _Atomic bool ending;

/* The machine's thread as the server runs it: sleeps unless there is more to do or the bell rang. */
static void *run_machine(void *argument)
{
    (void)argument;
    while (!atomic_load(&ending)) {
        if (host_work(world.host)) continue;
        sem_wait(&world.machine_bell); /* a lost wake-up hangs here, and the test times out */
    }
    return NULL;
}

static pthread_t start_machine(void)
{
    pthread_t thread;
    atomic_store(&ending, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, run_machine, NULL), 0);
    return thread;
}

static void end_machine(pthread_t thread)
{
    atomic_store(&ending, true);
    sem_post(&world.machine_bell);
    pthread_join(thread, NULL);
}

/* Somebody who looks at status all the time: pairs are whole, and indexes never fall. */
static void *run_observer(void *argument)
{
    _Atomic uint64_t *looks = argument;
    struct host_status before = {.hash_index = 0};
    while (!atomic_load(&ending)) {
        struct host_status now = world_status(&world);
        lk_assert(now.hash_index >= before.hash_index);
        lk_assert(now.applied_index >= before.applied_index);
        lk_assert(now.applied_index >= now.hash_index);
        if (now.hash_index == before.hash_index) {
            lk_assert(now.state_hash.low == before.state_hash.low);
            lk_assert(now.reply_hash.high == before.reply_hash.high);
        } else {
            lk_assert(now.reply_hash.low != before.reply_hash.low || now.hash_index == 0);
        }
        before = now;
        ++*looks;
        sched_yield();
    }
    return NULL;
}

/* One block of the history: small replies, and now and then one so large that the answers' queue fills. */
static void write_block(struct random *history, uint32_t room)
{
    while (!block_try_begin(&world, room)) {
        /* The ring is full of what the machine has not applied, or the log has not stored. */
        world_store(&world, world.last.index);
        sched_yield();
    }
    uint64_t commands = 1 + random_below(history, 8);
    for (uint64_t i = 0; i < commands; i++) {
        char text[64];
        if (random_below(history, 40) == 0)
            snprintf(text, sizeof text, "b%llu", (unsigned long long)random_below(history, 600000));
        else
            snprintf(text, sizeof text, "%c%llu", random_below(history, 2) == 0 ? 'e' : 'r',
                     (unsigned long long)random_below(history, 1000));
        block_add(&world, text);
    }
    block_end(&world, BLOCK_COMMANDS);
}

static uint64_t blocks_of_history;

static struct host_status apply_inline(uint64_t seed)
{
    struct random history;
    random_seed(&history, seed);
    world_open(&world, 1 << 20);
    world_start(&world);
    for (uint64_t i = 0; i < blocks_of_history; i++) {
        write_block(&history, 4096);
        world_commit(&world);
        world_run(&world);
    }
    struct host_status status = world_status(&world);
    world_close(&world);
    return status;
}

START_TEST(two_threads_answer_everything_in_order_and_end_with_the_hashes_of_one)
{
    uint64_t seed = unit_seed(0x7477327468);
    blocks_of_history = unit_rounds(4000);
    struct host_status expected = apply_inline(seed);

    struct random history, way;
    random_seed(&history, seed);
    random_seed(&way, seed + 1);
    world_open(&world, 1 << 17); /* small: the machine often finds that the ring has passed it */
    world_start(&world);
    host_answer_from(world.host, 1);
    pthread_t machine = start_machine(), observer;
    _Atomic uint64_t looks = 0;
    uint64_t queries_asked = 0, queries_answered = 0;
    ck_assert_int_eq(pthread_create(&observer, NULL, run_observer, &looks), 0);
    while (atomic_load(&looks) == 0) sched_yield(); /* it may be long until a new thread runs */
    log_position answered = 0, appended = 0;
    for (uint64_t written = 0;
         answered < appended || written < blocks_of_history || queries_answered < queries_asked;) {
        if (written < blocks_of_history) {
            write_block(&history, 4096);
            written++;
            appended = world.last.next_position - 1;
            if (random_below(&way, 3) == 0 || written == blocks_of_history) world_commit(&world);
            if (random_below(&way, 8) == 0) {
                world_store(&world, world.last.index);
                host_commit(world.host, world.last.index);
                (void)ring_room(world.storage.ring, random_below(&way, 1 << 17));
            }
            char query[24];
            snprintf(query, sizeof query, "echo:%llu", (unsigned long long)queries_asked);
            raft_index min_index = random_below(&way, host_applied_index(world.host) + 1);
            if (random_below(&way, 4) == 0 && host_query(world.host, queries_asked, 0, min_index,
                                                         (const uint8_t *)query, (uint32_t)strlen(query)) == 0)
                queries_asked++;
            if (random_below(&way, 10) != 0) continue;
        }
        struct host_answer answer;
        while (host_answer_next(world.host, &answer)) {
            ck_assert_int_eq(answer.error, 0);
            if (answer.type == HOST_ANSWER_APPLIED) {
                ck_assert_uint_eq(answer.position, answered + 1);
                answered++;
            } else {
                char echo[24];
                snprintf(echo, sizeof echo, "%llu", (unsigned long long)answer.tag);
                ck_assert_uint_eq(answer.tag, queries_answered++);
                ck_assert_uint_eq(answer.reply_bytes, strlen(echo));
                ck_assert_mem_eq(answer.reply, echo, answer.reply_bytes);
            }
        }
    }
    while (world_status(&world).hash_index < blocks_of_history) sched_yield(); /* answered is a little before hashed */
    end_machine(machine);
    pthread_join(observer, NULL);
    struct host_status status = world_status(&world);
    ck_assert_uint_eq(status.applied_index, blocks_of_history);
    ck_assert_uint_eq(status.hash_index, expected.hash_index);
    ck_assert_uint_eq(status.state_hash.low, expected.state_hash.low);
    ck_assert_uint_eq(status.state_hash.high, expected.state_hash.high);
    ck_assert_uint_eq(status.reply_hash.low, expected.reply_hash.low);
    ck_assert_uint_eq(status.reply_hash.high, expected.reply_hash.high);
    ck_assert_uint_gt(queries_answered, 0);
    world_close(&world);
}
END_TEST

START_TEST(a_machine_that_hangs_holds_one_batch_and_nobody_waits_for_it) /* M4 */
{
    enum { RING_BYTES = 1 << 20, BATCH_BYTES = 4096 };
    world_open(&world, RING_BYTES);
    world.options.batch_bytes_max = BATCH_BYTES;
    world_start(&world);
    pthread_t machine = start_machine();
    block(&world, "ebefore");
    block(&world, "h");
    world_commit(&world);
    probe_await_hanging();

    /* The loop goes on: status, queries, and blocks until the ring has nothing left but what is pinned. */
    ck_assert_int_eq(host_query(world.host, 1, 0, 2, (const uint8_t *)"count", 5), 0);
    uint64_t bytes = 0;
    while (world.last.index < WORLD_BLOCKS_MAX / 2 && block_try_begin(&world, 4096)) {
        for (unsigned i = 0; i < 40; i++) block_add(&world, "ea filler, that is not so short as others");
        bytes += world.open.bytes;
        world_store(&world, block_end(&world, BLOCK_COMMANDS));
        host_commit(world.host, world.last.index);
        ck_assert_uint_le(host_applied_index(world.host), 1);
    }
    ck_assert_uint_ge(bytes, RING_BYTES - 2 * BATCH_BYTES);

    probe_release();
    while (host_applied_index(world.host) < world.last.index) sched_yield();
    ck_assert_uint_eq(world_status(&world).applied_position, world.last.next_position - 1);
    struct host_answer answer;
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_uint_eq(answer.tag, 1);
    ck_assert_int_eq(answer.error, 0);
    ck_assert(!host_answer_next(world.host, &answer));
    end_machine(machine);
    ck_assert_uint_eq(world_probe()->applied, world.last.next_position - 1);
    world_fill_ring(&world); /* and the pin is gone */
    world_close(&world);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, two_threads_answer_everything_in_order_and_end_with_the_hashes_of_one);
    tcase_add_test(tests, a_machine_that_hangs_holds_one_batch_and_nobody_waits_for_it);
}

int main(void)
{
    return unit_main("host threads", add);
}
