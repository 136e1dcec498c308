/* SPDX-License-Identifier: Apache-2.0 */
/* test_mailbox.c - records arrive once, whole and in order; full is an answer; a sleeper is woken (B1, B2). */
#include "statemachine/mailbox.h"

#include "tests/support/unit.h"

#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "base/random.h"

/* A record of `bytes` bytes that tells its number in each of them. */
static bool push(struct mailbox *box, uint64_t claim, uint64_t bytes, uint64_t number)
{
    uint8_t *to = mailbox_claim(box, claim);
    if (to == NULL) return false;
    ck_assert_uint_eq((uintptr_t)to % 8, 0);
    memset(to, (int)(number & 0xff), bytes);
    mailbox_publish(box, bytes);
    return true;
}

static void check(const uint8_t *at, uint64_t bytes, uint64_t number)
{
    bool same = true;
    for (uint64_t i = 0; i < bytes; i++) same = same && at[i] == (number & 0xff);
    ck_assert(same);
}

START_TEST(records_come_out_whole_and_in_order_whatever_their_lengths)
{
    struct mailbox box;
    struct random random;
    random_seed(&random, unit_seed(0x6d61696c));
    ck_assert(mailbox_open(&box, 4096));
    static uint64_t lengths[1 << 16];
    uint64_t pushed = 0, popped = 0, bytes, rounds = unit_rounds(50000);
    while (popped < rounds) {
        if (random_below(&random, 2) == 0) {
            uint64_t claim = random_below(&random, mailbox_record_bytes_max(4096) + 1);
            uint64_t length = random_below(&random, claim + 1);
            lengths[pushed % (1 << 16)] = length;
            if (push(&box, claim, length, pushed)) pushed++;
        } else {
            const uint8_t *at = mailbox_peek(&box, &bytes);
            ck_assert_int_eq(at != NULL, pushed != popped);
            if (at == NULL) continue;
            ck_assert_uint_eq(bytes, lengths[popped % (1 << 16)]);
            check(at, bytes, popped++);
            ck_assert(!mailbox_pop(&box)); /* nobody sleeps */
        }
    }
    mailbox_close(&box);
    mailbox_close(&box); /* zeroed by the first */
}
END_TEST

START_TEST(a_full_mailbox_refuses_and_stays_as_it_was)
{
    struct mailbox box;
    uint64_t bytes;
    ck_assert(mailbox_open(&box, 256));
    for (uint64_t i = 0; i < 8; i++) ck_assert(push(&box, 24, 24, i));
    ck_assert(!push(&box, 0, 0, 99));
    for (uint64_t i = 0; i < 8; i++) {
        check(mailbox_peek(&box, &bytes), 24, i);
        ck_assert_uint_eq(bytes, 24);
        mailbox_pop(&box);
    }
    ck_assert_ptr_null(mailbox_peek(&box, &bytes));
    mailbox_close(&box);
}
END_TEST

START_TEST(the_longest_record_fits_behind_every_gap)
{
    for (uint64_t before = 0; before < 512; before += 8) {
        struct mailbox box;
        uint64_t bytes;
        ck_assert(mailbox_open(&box, 512));
        for (uint64_t i = 0; i < before; i += 8) { /* move head and tail on, 8 bytes each */
            ck_assert(push(&box, 0, 0, 0));
            ck_assert_ptr_nonnull(mailbox_peek(&box, &bytes));
            mailbox_pop(&box);
        }
        ck_assert(push(&box, mailbox_record_bytes_max(512), mailbox_record_bytes_max(512), 7));
        check(mailbox_peek(&box, &bytes), mailbox_record_bytes_max(512), 7);
        mailbox_pop(&box);
        ck_assert_ptr_null(mailbox_peek(&box, &bytes));
        mailbox_close(&box);
    }
}
END_TEST

START_TEST(a_claim_that_is_not_published_is_never_seen)
{
    struct mailbox box;
    uint64_t bytes;
    ck_assert(mailbox_open(&box, 128));
    ck_assert(push(&box, 56, 56, 1));
    mailbox_peek(&box, &bytes);
    mailbox_pop(&box);
    ck_assert_ptr_nonnull(mailbox_claim(&box, 56)); /* behind a gap of nothing */
    ck_assert_ptr_null(mailbox_peek(&box, &bytes));
    ck_assert(push(&box, 8, 8, 2));                 /* claims again */
    ck_assert_ptr_nonnull(mailbox_claim(&box, 56)); /* would leave a gap of 48 bytes */
    check(mailbox_peek(&box, &bytes), 8, 2);
    mailbox_pop(&box);
    ck_assert_ptr_null(mailbox_peek(&box, &bytes));
    ck_assert(push(&box, 56, 56, 3));
    check(mailbox_peek(&box, &bytes), 56, 3);
    mailbox_close(&box);
}
END_TEST

START_TEST(who_waits_for_room_is_woken_once_when_half_is_free)
{
    struct mailbox box;
    uint64_t bytes;
    ck_assert(mailbox_open(&box, 256));
    for (uint64_t i = 0; i < 8; i++) ck_assert(push(&box, 24, 24, i));
    ck_assert(!mailbox_await_room(&box, 24));
    for (uint64_t i = 1; i <= 8; i++) {
        mailbox_peek(&box, &bytes);
        ck_assert_int_eq(mailbox_pop(&box), i == 4); /* 32 bytes each, and only this once */
    }
    for (uint64_t i = 0; i < 8; i++) ck_assert(push(&box, 24, 24, i));
    ck_assert(!mailbox_await_room(&box, 120)); /* 128 bytes: half is just enough */
    for (uint64_t i = 1; i <= 8; i++) {
        mailbox_peek(&box, &bytes);
        ck_assert_int_eq(mailbox_pop(&box), i == 4);
    }
    ck_assert(mailbox_await_room(&box, 120)); /* there is room by now: do not sleep */
    ck_assert(push(&box, 24, 24, 1));
    mailbox_peek(&box, &bytes);
    ck_assert(!mailbox_pop(&box)); /* and nobody sleeps */
    mailbox_close(&box);
}
END_TEST

START_TEST(who_waits_is_woken_by_the_last_pop_when_a_gap_needs_it_all)
{
    struct mailbox box;
    uint64_t bytes;
    ck_assert(mailbox_open(&box, 256));
    ck_assert(push(&box, 88, 88, 1));          /* 0..96 */
    ck_assert(push(&box, 88, 88, 2));          /* 96..192 */
    ck_assert(!mailbox_await_room(&box, 120)); /* a gap of 64, then 128: 192 of 256 */
    mailbox_peek(&box, &bytes);
    ck_assert(!mailbox_pop(&box)); /* 160 are free: more than half, and not enough */
    mailbox_peek(&box, &bytes);
    ck_assert(mailbox_pop(&box));
    ck_assert(push(&box, 120, 120, 3));
    mailbox_close(&box);
}
END_TEST

struct threads {
    struct mailbox box;
    sem_t producer, consumer; /* each is a doorbell */
    uint64_t rounds, sleeps;
};

static void *produce(void *argument)
{
    struct threads *threads = argument;
    struct random random;
    random_seed(&random, 1);
    for (uint64_t i = 0; i < threads->rounds;) {
        uint64_t claim = random_below(&random, 1000);
        uint8_t *to = mailbox_claim(&threads->box, claim);
        if (to != NULL) {
            uint64_t length = claim < 8 ? 8 : claim;
            if (claim < 8) continue;
            memcpy(to, &i, 8);
            memset(to + 8, (int)(i & 0xff), length - 8);
            mailbox_publish(&threads->box, length);
            i++;
            sem_post(&threads->consumer);
            continue;
        }
        if (mailbox_await_room(&threads->box, claim)) continue;
        threads->sleeps++;
        sem_wait(&threads->producer); /* a lost wake-up hangs here, and the test times out */
    }
    return NULL;
}

START_TEST(two_threads_lose_no_record_and_no_wake_up)
{
    static struct threads threads;
    memset(&threads, 0, sizeof threads);
    ck_assert(mailbox_open(&threads.box, 4096));
    threads.rounds = unit_rounds(200000);
    sem_init(&threads.producer, 0, 0);
    sem_init(&threads.consumer, 0, 0);
    pthread_t producer;
    ck_assert_int_eq(pthread_create(&producer, NULL, produce, &threads), 0);
    for (uint64_t popped = 0; popped < threads.rounds;) {
        uint64_t bytes, number;
        const uint8_t *at = mailbox_peek(&threads.box, &bytes);
        if (at == NULL) {
            sem_wait(&threads.consumer);
            continue;
        }
        memcpy(&number, at, 8);
        ck_assert_uint_eq(number, popped);
        check(at + 8, bytes - 8, popped);
        popped++;
        if (mailbox_pop(&threads.box)) sem_post(&threads.producer);
    }
    pthread_join(producer, NULL);
    ck_assert_uint_gt(threads.sleeps, 0);
    sem_destroy(&threads.producer);
    sem_destroy(&threads.consumer);
    mailbox_close(&threads.box);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, records_come_out_whole_and_in_order_whatever_their_lengths);
    tcase_add_test(tests, a_full_mailbox_refuses_and_stays_as_it_was);
    tcase_add_test(tests, the_longest_record_fits_behind_every_gap);
    tcase_add_test(tests, a_claim_that_is_not_published_is_never_seen);
    tcase_add_test(tests, who_waits_for_room_is_woken_once_when_half_is_free);
    tcase_add_test(tests, who_waits_is_woken_by_the_last_pop_when_a_gap_needs_it_all);
    tcase_add_test(tests, two_threads_lose_no_record_and_no_wake_up);
}

int main(void)
{
    return unit_main("mailbox", add);
}
