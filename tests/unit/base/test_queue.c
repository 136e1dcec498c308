/* SPDX-License-Identifier: Apache-2.0 */
/* test_queue.c - records arrive once, whole and in order, and a full queue refuses (queue.h Q1 to Q3). */
#include "base/queue.h"

#include "tests/support/unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

struct record {
    uint64_t producer, number, copies[3]; /* all copies equal number, or the record was torn */
};

static struct record make(uint64_t producer, uint64_t number)
{
    return (struct record){producer, number, {number, number, number}};
}

START_TEST(spsc_gives_back_in_order_what_was_pushed_and_refuses_when_full)
{
    struct spsc queue;
    ck_assert(spsc_open(&queue, 5, sizeof(struct record))); /* rounded up to 8 */
    struct record record;
    for (uint64_t lap = 0; lap < 3; lap++) {
        ck_assert(!spsc_try_pop(&queue, &record));
        ck_assert_uint_eq(spsc_room(&queue), 8);
        for (uint64_t i = 0; i < 8; i++) ck_assert(spsc_try_push(&queue, &(struct record){.number = lap * 8 + i}));
        ck_assert_uint_eq(spsc_room(&queue), 0);
        ck_assert_uint_eq(spsc_count(&queue), 8);
        ck_assert(!spsc_try_push(&queue, &(struct record){.number = 999}));
        for (uint64_t i = 0; i < 8; i++) {
            ck_assert(spsc_try_pop(&queue, &record));
            ck_assert_uint_eq(record.number, lap * 8 + i);
        }
        ck_assert_uint_eq(spsc_count(&queue), 0);
    }
    spsc_close(&queue);
    spsc_close(&queue); /* zeroed by the first */
}
END_TEST

START_TEST(mpsc_gives_back_in_order_what_was_pushed_and_refuses_when_full)
{
    for (uint64_t capacity = 1; capacity <= 8; capacity *= 2) { /* 1 becomes 2 */
        struct mpsc queue;
        ck_assert(mpsc_open(&queue, capacity, sizeof(struct record)));
        uint64_t room = capacity < 2 ? 2 : capacity;
        struct record record;
        for (uint64_t lap = 0; lap < 3; lap++) {
            ck_assert(!mpsc_try_pop(&queue, &record));
            for (uint64_t i = 0; i < room; i++)
                ck_assert(mpsc_try_push(&queue, &(struct record){.number = lap * room + i}));
            ck_assert(!mpsc_try_push(&queue, &(struct record){.number = 999}));
            for (uint64_t i = 0; i < room; i++) {
                ck_assert(mpsc_try_pop(&queue, &record));
                ck_assert_uint_eq(record.number, lap * room + i);
            }
        }
        mpsc_close(&queue);
    }
}
END_TEST

START_TEST(records_of_any_size_come_back_whole)
{
    static const size_t sizes[] = {1, 3, 8, 20, 64, 1000};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct spsc one;
        struct mpsc many;
        ck_assert(spsc_open(&one, 4, sizes[s]));
        ck_assert(mpsc_open(&many, 4, sizes[s]));
        for (int lap = 0; lap < 9; lap++) {
            uint8_t in[1000], out[1000] = {0};
            for (size_t i = 0; i < sizes[s]; i++) in[i] = (uint8_t)(i * 7 + (size_t)lap);
            ck_assert(spsc_try_push(&one, in) && spsc_try_pop(&one, out));
            ck_assert_mem_eq(in, out, sizes[s]);
            ck_assert(mpsc_try_push(&many, in) && mpsc_try_pop(&many, out));
            ck_assert_mem_eq(in, out, sizes[s]);
        }
        spsc_close(&one);
        mpsc_close(&many);
    }
}
END_TEST

/* Two ends of one queue under a scheduler that may have a single core: whoever finds nothing to do yields. */
struct spsc_run {
    struct spsc queue;
    uint64_t count;
};

static void *spsc_produce(void *argument)
{
    struct spsc_run *run = argument;
    for (uint64_t i = 0; i < run->count;) {
        uint64_t room = spsc_room(&run->queue);
        if (room == 0) sched_yield();
        for (; room > 0 && i < run->count; room--, i++) {
            struct record record = make(0, i);
            if (!spsc_try_push(&run->queue, &record)) abort(); /* Q3: the room was ours */
        }
    }
    return NULL;
}

START_TEST(spsc_room_that_the_producer_saw_is_kept_while_the_consumer_runs) /* Q3 */
{
    struct spsc_run run = {.count = unit_rounds(1000000)};
    ck_assert(spsc_open(&run.queue, 64, sizeof(struct record)));
    pthread_t producer;
    ck_assert_int_eq(pthread_create(&producer, NULL, spsc_produce, &run), 0);
    for (uint64_t i = 0; i < run.count;) {
        struct record record;
        if (!spsc_try_pop(&run.queue, &record)) {
            sched_yield();
            continue;
        }
        if (record.number != i || record.copies[0] != i || record.copies[2] != i) ck_abort_msg("torn or out of order");
        if (spsc_count(&run.queue) > 64) ck_abort_msg("more than fit");
        i++;
    }
    pthread_join(producer, NULL);
    ck_assert_uint_eq(spsc_count(&run.queue), 0);
    spsc_close(&run.queue);
}
END_TEST

enum { PRODUCERS = 4 };

struct mpsc_run {
    struct mpsc queue;
    uint64_t count_each;
    _Atomic uint64_t refused;
};

struct mpsc_producer {
    struct mpsc_run *run;
    uint64_t id;
    pthread_t thread;
};

static void *mpsc_produce(void *argument)
{
    struct mpsc_producer *self = argument;
    for (uint64_t i = 0; i < self->run->count_each;) {
        struct record record = make(self->id, i);
        if (mpsc_try_push(&self->run->queue, &record)) {
            i++;
        } else {
            atomic_fetch_add_explicit(&self->run->refused, 1, memory_order_relaxed); /* a statistic */
            sched_yield();
        }
    }
    return NULL;
}

START_TEST(mpsc_keeps_each_producers_order_and_loses_nothing) /* Q1 */
{
    struct mpsc_run run = {.count_each = unit_rounds(200000)};
    ck_assert(mpsc_open(&run.queue, 16, sizeof(struct record)));
    struct mpsc_producer producers[PRODUCERS];
    for (uint64_t p = 0; p < PRODUCERS; p++) {
        producers[p] = (struct mpsc_producer){.run = &run, .id = p};
        ck_assert_int_eq(pthread_create(&producers[p].thread, NULL, mpsc_produce, &producers[p]), 0);
    }
    uint64_t next[PRODUCERS] = {0};
    for (uint64_t popped = 0; popped < PRODUCERS * run.count_each;) {
        struct record record;
        if (!mpsc_try_pop(&run.queue, &record)) {
            sched_yield();
            continue;
        }
        if (record.producer >= PRODUCERS || record.number != next[record.producer] ||
            record.copies[0] != record.number || record.copies[2] != record.number)
            ck_abort_msg("torn, lost or out of order");
        next[record.producer]++;
        popped++;
    }
    for (uint64_t p = 0; p < PRODUCERS; p++) pthread_join(producers[p].thread, NULL);
    struct record record;
    ck_assert(!mpsc_try_pop(&run.queue, &record));
    ck_assert_uint_gt(atomic_load(&run.refused), 0); /* the test did meet a full queue */
    mpsc_close(&run.queue);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, spsc_gives_back_in_order_what_was_pushed_and_refuses_when_full);
    tcase_add_test(tests, mpsc_gives_back_in_order_what_was_pushed_and_refuses_when_full);
    tcase_add_test(tests, records_of_any_size_come_back_whole);
    tcase_add_test(tests, spsc_room_that_the_producer_saw_is_kept_while_the_consumer_runs);
    tcase_add_test(tests, mpsc_keeps_each_producers_order_and_loses_nothing);
}

int main(void)
{
    return unit_main("base queue", add);
}
