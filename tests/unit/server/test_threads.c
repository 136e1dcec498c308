/* SPDX-License-Identifier: Apache-2.0 */
/* test_threads.c - parking, the threads around the node's parts, the loop's turns, and the log: no wake-up is lost, and
 * nobody waits for somebody slow. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/log.h"
#include "server/loop.h"
#include "server/park.h"
#include "server/threads.h"
#include "tests/support/unit.h"

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* --- park --- */

START_TEST(wake_before_sleep_makes_it_return_at_once)
{
    struct park park;
    park_open(&park);
    park_wake(&park);
    uint64_t from = now_ns();
    park_sleep(&park, UINT64_MAX);
    ck_assert_uint_lt(now_ns() - from, UINT64_C(1000000000));
}
END_TEST

START_TEST(sleep_ends_when_its_time_has_come)
{
    struct park park;
    park_open(&park);
    uint64_t from = now_ns();
    park_sleep(&park, 20000000);
    ck_assert_uint_ge(now_ns() - from, 19000000);
}
END_TEST

struct ping {
    struct park here, there;
    _Atomic uint64_t asked, answered;
    uint64_t rounds;
};

static void *answer(void *context)
{
    struct ping *ping = context;
    while (atomic_load(&ping->answered) < ping->rounds) {
        if (atomic_load(&ping->asked) == atomic_load(&ping->answered)) {
            park_sleep(&ping->there, UINT64_MAX);
            continue;
        }
        atomic_fetch_add(&ping->answered, 1);
        park_wake(&ping->here);
    }
    return NULL;
}

START_TEST(no_wake_up_is_lost_between_two_threads)
{
    static struct ping ping;
    pthread_t thread;
    ping.rounds = unit_rounds(20000);
    park_open(&ping.here);
    park_open(&ping.there);
    ck_assert_int_eq(park_thread_start(&thread, "test", answer, &ping), 0);
    for (uint64_t i = 1; i <= ping.rounds; i++) {
        atomic_store(&ping.asked, i);
        park_wake(&ping.there);
        while (atomic_load(&ping.answered) < i) park_sleep(&ping.here, UINT64_MAX); /* lost: hangs, and times out */
    }
    pthread_join(thread, NULL);
}
END_TEST

/* --- threads --- */

struct parts {
    _Atomic uint64_t calls[NODE_PARTS];
    _Atomic uint64_t again_ns; /* what the work returns */
};

static uint64_t count_calls(void *context, enum node_part part)
{
    struct parts *parts = context;
    atomic_fetch_add(&parts->calls[part], 1);
    return atomic_load(&parts->again_ns);
}

START_TEST(each_part_runs_once_at_start_and_once_a_wake)
{
    static struct parts parts;
    struct threads *threads;
    atomic_store(&parts.again_ns, UINT64_MAX);
    ck_assert_int_eq(threads_open(count_calls, &parts, &threads), 0);
    for (enum node_part part = NODE_JOURNAL; part < NODE_PARTS; part++) {
        while (atomic_load(&parts.calls[part]) == 0) sleep_ms(1);
        sleep_ms(5);
        ck_assert_uint_eq(atomic_load(&parts.calls[part]), 1);
        threads_wake(threads, part);
        while (atomic_load(&parts.calls[part]) == 1) sleep_ms(1);
        sleep_ms(5);
        ck_assert_uint_eq(atomic_load(&parts.calls[part]), 2);
    }
    ck_assert_uint_eq(atomic_load(&parts.calls[NODE_LOOP]), 0);
    threads_close(threads);
}
END_TEST

START_TEST(part_runs_again_after_the_time_it_asked_for)
{
    static struct parts parts;
    struct threads *threads;
    atomic_store(&parts.again_ns, 1000000);
    uint64_t from_ns = now_ns();
    ck_assert_int_eq(threads_open(count_calls, &parts, &threads), 0);
    while (atomic_load(&parts.calls[NODE_JOURNAL]) < 10) sleep_ms(1);
    threads_close(threads);
    uint64_t elapsed_ms = (now_ns() - from_ns) / 1000000;
    ck_assert_uint_ge(elapsed_ms, 9);
    ck_assert_uint_le(atomic_load(&parts.calls[NODE_JOURNAL]), elapsed_ms + 2);
}
END_TEST

/* --- loop --- */

struct turns {
    struct loop *loop;
    const struct node_env *env;
    uint64_t turns, end_at;
    uint64_t deadline_ns; /* after the turn; 0 = none */
    unsigned stops;
    uint64_t wakes_left;
};

static uint64_t take_turn(void *context)
{
    struct turns *t = context;
    if (++t->turns >= t->end_at) loop_end(t->loop);
    if (t->wakes_left > 0) {
        t->wakes_left--;
        t->env->wake(t->env->context, NODE_LOOP);
    }
    return t->deadline_ns == 0 ? UINT64_MAX : t->env->now_ns(t->env->context) + t->deadline_ns;
}

static void take_stop(void *context, unsigned count)
{
    struct turns *t = context;
    t->stops = count;
    t->end_at = 0;
}

static struct log *quiet_log(void)
{
    struct log *log;
    ck_assert_int_eq(log_open("n1", open("/dev/null", O_WRONLY | O_CLOEXEC), false, &log), 0);
    return log;
}

static struct turns turns_open(struct log *log)
{
    struct turns t = {.end_at = UINT64_MAX};
    ck_assert_int_eq(loop_open(log, &t.loop), 0);
    t.env = loop_env(t.loop);
    return t;
}

static void turns_run(struct turns *t)
{
    loop_run(t->loop, &(struct loop_owner){.context = t, .turn = take_turn, .stop = take_stop});
}

START_TEST(turn_comes_at_its_deadline)
{
    struct log *log = quiet_log();
    struct turns t = turns_open(log);
    t.deadline_ns = 5000000;
    t.end_at = 11;
    uint64_t from = now_ns();
    turns_run(&t);
    ck_assert_uint_ge(now_ns() - from, 10 * UINT64_C(4000000));
    loop_close(t.loop);
    log_close(log);
}
END_TEST

START_TEST(wake_within_a_turn_makes_another_turn)
{
    struct log *log = quiet_log();
    struct turns t = turns_open(log);
    t.wakes_left = 1000;
    t.end_at = 1001; /* without deadline: only wakes make turns */
    turns_run(&t);
    ck_assert_uint_eq(t.turns, 1001);
    loop_close(t.loop);
    log_close(log);
}
END_TEST

struct asker {
    struct turns *turns;
    uv_async_t reader; /* stands for a socket: called back in the middle of the loop's sleep */
    uint64_t asked;
};

static void send_request(uv_timer_t *timer)
{
    struct asker *a = timer->data;
    (void)uv_async_send(&a->reader);
}

static void ask(uv_async_t *reader)
{
    struct asker *a = reader->data;
    a->asked++;
    a->turns->env->wake(a->turns->env->context, NODE_LOOP);
    if (a->asked == 20) loop_end(a->turns->loop);
}

START_TEST(what_a_callback_asks_for_costs_one_turn)
{
    struct log *log = quiet_log();
    struct turns t = turns_open(log);
    struct asker a = {.turns = &t};
    uv_timer_t timer;
    ck_assert_int_eq(uv_async_init(loop_uv(t.loop), &a.reader, ask), 0);
    ck_assert_int_eq(uv_timer_init(loop_uv(t.loop), &timer), 0);
    a.reader.data = timer.data = &a;
    ck_assert_int_eq(uv_timer_start(&timer, send_request, 5, 5), 0);
    turns_run(&t);
    ck_assert_uint_eq(a.asked, 20);
    ck_assert_uint_le(t.turns, 2 * a.asked + 2); /* one before the request came, one for it */
    uv_close((uv_handle_t *)&a.reader, NULL);
    uv_close((uv_handle_t *)&timer, NULL);
    loop_close(t.loop);
    log_close(log);
}
END_TEST

struct knocker {
    const struct node_env *env;
    const uint64_t rounds;
    _Atomic uint64_t knocks;
    uint64_t seen;
    struct loop *loop;
};

static void *knock(void *context)
{
    struct knocker *k = context;
    for (uint64_t i = 1; i <= k->rounds; i++) {
        atomic_fetch_add(&k->knocks, 1);
        k->env->wake(k->env->context, NODE_LOOP);
        if (i % 64 == 0) sleep_ms(1); /* let it fall asleep now and then */
    }
    return NULL;
}

static uint64_t hear(void *context)
{
    struct knocker *k = context;
    k->seen = atomic_load(&k->knocks);
    if (k->seen == k->rounds) loop_end(k->loop); /* a lost wake-up: it sleeps for ever, and the test times out */
    return UINT64_MAX;
}

static void no_stop(void *context, unsigned count)
{
    (void)context;
    (void)count;
}

START_TEST(no_wake_up_of_the_loop_is_lost)
{
    struct log *log = quiet_log();
    struct knocker k = {.rounds = unit_rounds(20000)};
    pthread_t thread;
    ck_assert_int_eq(loop_open(log, &k.loop), 0);
    k.env = loop_env(k.loop);
    ck_assert_int_eq(park_thread_start(&thread, "test", knock, &k), 0);
    loop_run(k.loop, &(struct loop_owner){.context = &k, .turn = hear, .stop = no_stop});
    ck_assert_uint_eq(k.seen, k.rounds);
    pthread_join(thread, NULL);
    loop_close(k.loop);
    log_close(log);
}
END_TEST

static void *send_sigterm(void *context)
{
    (void)context;
    sleep_ms(20);
    kill(getpid(), SIGTERM);
    return NULL;
}

START_TEST(sigterm_is_told_and_ends_nothing_by_itself)
{
    struct log *log = quiet_log();
    struct turns t = turns_open(log);
    pthread_t thread;
    ck_assert_int_eq(park_thread_start(&thread, "test", send_sigterm, NULL), 0);
    turns_run(&t);
    ck_assert_uint_eq(t.stops, 1);
    pthread_join(thread, NULL);
    loop_close(t.loop);
    log_close(log);
}
END_TEST

struct pauses {
    const struct node_env *env;
    _Atomic uint64_t count;
    uint64_t shortest_ns;
    bool ended;
};

static uint64_t pause_until_the_end(void *context, enum node_part part)
{
    struct pauses *p = context;
    if (part != NODE_SNAPSHOTS) return UINT64_MAX;
    while (!p->ended) {
        uint64_t from = now_ns();
        p->ended = !p->env->pause(p->env->context, 2000000);
        if (now_ns() - from < p->shortest_ns) p->shortest_ns = now_ns() - from;
        atomic_fetch_add(&p->count, 1);
    }
    return UINT64_MAX;
}

START_TEST(a_pause_takes_its_time_and_says_when_the_threads_end)
{
    struct log *log = quiet_log();
    struct turns t = turns_open(log);
    static struct pauses p = {.shortest_ns = UINT64_MAX};
    p.env = t.env;
    ck_assert_int_eq(threads_open(pause_until_the_end, &p, loop_threads(t.loop)), 0);
    while (atomic_load(&p.count) < 3) sleep_ms(1);
    threads_close(*loop_threads(t.loop));
    ck_assert(p.ended);
    ck_assert_uint_ge(p.shortest_ns, 2000000);
    loop_close(t.loop);
    log_close(log);
}
END_TEST

START_TEST(clocks_and_randomness_are_real)
{
    struct log *log = quiet_log();
    struct turns t = turns_open(log);
    uint64_t before = t.env->now_ns(t.env->context);
    sleep_ms(2);
    ck_assert_uint_ge(t.env->now_ns(t.env->context), before + 1000000);
    ck_assert_uint_ge(t.env->wall_ns(t.env->context), UINT64_C(1600000000000000000));
    ck_assert_uint_ne(t.env->random(t.env->context), t.env->random(t.env->context));
    loop_close(t.loop);
    log_close(log);
}
END_TEST

/* --- log --- */

static size_t read_all(int fd, char *text, size_t room)
{
    size_t at = 0;
    ssize_t n;
    while (at < room - 1 && (n = read(fd, text + at, room - 1 - at)) > 0) at += (size_t)n;
    text[at] = 0;
    return at;
}

START_TEST(line_has_time_level_node_part_and_text)
{
    int ends[2];
    char text[4096];
    struct log *log;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(log_open("n2", ends[1], false, &log), 0);
    log_line(log, NODE_LOG_DEBUG, "node", "not shown");
    log_format(log, NODE_LOG_INFO, "node", "elected: term=%d", 7);
    log_line(log, NODE_LOG_ERROR, "journal", "a\nb\x1b[31m");
    log_close(log);
    close(ends[1]);
    read_all(ends[0], text, sizeof text);
    close(ends[0]);
    int year, month, day, hour, minute, second, ms, used = 0;
    ck_assert_int_eq(
        sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &ms, &used), 7);
    ck_assert_int_eq(strncmp(text + used, " info n2 node: elected: term=7\n", 31), 0);
    ck_assert_ptr_nonnull(strstr(text, " error n2 journal: a b [31m\n"));
}
END_TEST

START_TEST(long_line_is_cut_and_stays_one_line)
{
    int ends[2];
    char text[8192], line[3000];
    struct log *log;
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = 0;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(log_open("n2", ends[1], false, &log), 0);
    log_line(log, NODE_LOG_INFO, "node", line);
    log_close(log);
    close(ends[1]);
    ck_assert_uint_eq(read_all(ends[0], text, sizeof text), LOG_LINE_BYTES_MAX + 1);
    ck_assert_ptr_eq(strchr(text, '\n'), text + LOG_LINE_BYTES_MAX);
    close(ends[0]);
}
END_TEST

START_TEST(blocked_stderr_drops_lines_counts_them_and_stalls_nobody)
{
    int ends[2];
    char *text = calloc(1, 4 << 20);
    struct log *log;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(log_open("n2", ends[1], false, &log), 0);
    uint64_t from = now_ns();
    for (unsigned i = 0; i < 5000; i++) log_format(log, NODE_LOG_INFO, "node", "line %u %0500d", i, 0);
    ck_assert_uint_lt(now_ns() - from, UINT64_C(2000000000));

    /* Somebody reads again: what was kept comes, and the count. */
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    size_t at = 0;
    for (unsigned i = 0; i < 2000 && strstr(text, "lines dropped: count=") == NULL; i++) {
        ssize_t n = read(ends[0], text + at, (4u << 20) - 1 - at);
        if (n > 0) at += (size_t)n;
        text[at] = 0;
        if (n <= 0) sleep_ms(1);
    }
    ck_assert_ptr_nonnull(strstr(text, "node: line 0 "));
    const char *said = " warn n2 log: lines dropped: count=", *dropped = strstr(text, said);
    ck_assert_ptr_nonnull(dropped);
    ck_assert_uint_gt(strtoul(dropped + strlen(said), NULL, 10), 1000);
    log_close(log);
    close(ends[0]);
    close(ends[1]);
    free(text);
}
END_TEST

START_TEST(closing_a_log_that_nobody_reads_does_not_hang)
{
    int ends[2];
    struct log *log;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(log_open("n2", ends[1], false, &log), 0);
    for (unsigned i = 0; i < 500; i++) log_format(log, NODE_LOG_INFO, "node", "%0500d", i);
    uint64_t from = now_ns();
    log_close(log);
    ck_assert_uint_lt(now_ns() - from, UINT64_C(3000000000));
    char sink[65536];
    fcntl(ends[0], F_SETFL, O_NONBLOCK); /* let its thread end, so that nothing is leaked */
    for (unsigned i = 0; i < 200; i++) {
        (void)!read(ends[0], sink, sizeof sink);
        sleep_ms(1);
    }
    close(ends[0]);
    close(ends[1]);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, wake_before_sleep_makes_it_return_at_once);
    tcase_add_test(tests, sleep_ends_when_its_time_has_come);
    tcase_add_test(tests, no_wake_up_is_lost_between_two_threads);
    tcase_add_test(tests, each_part_runs_once_at_start_and_once_a_wake);
    tcase_add_test(tests, part_runs_again_after_the_time_it_asked_for);
    tcase_add_test(tests, turn_comes_at_its_deadline);
    tcase_add_test(tests, wake_within_a_turn_makes_another_turn);
    tcase_add_test(tests, what_a_callback_asks_for_costs_one_turn);
    tcase_add_test(tests, no_wake_up_of_the_loop_is_lost);
    tcase_add_test(tests, sigterm_is_told_and_ends_nothing_by_itself);
    tcase_add_test(tests, clocks_and_randomness_are_real);
    tcase_add_test(tests, a_pause_takes_its_time_and_says_when_the_threads_end);
    tcase_add_test(tests, line_has_time_level_node_part_and_text);
    tcase_add_test(tests, long_line_is_cut_and_stays_one_line);
    tcase_add_test(tests, blocked_stderr_drops_lines_counts_them_and_stalls_nobody);
    tcase_add_test(tests, closing_a_log_that_nobody_reads_does_not_hang);
}

int main(void)
{
    return unit_main("server threads", add);
}
