/* SPDX-License-Identifier: Apache-2.0 */
/* test_local_unix.c - the door to processes of this host: who does not say what it should costs nothing. What everybody else
 * gets is tests/conformance/link.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fds.h"
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "transport/local_unix.h"

/* One node's side: what it was told, in order of kind. */
struct side {
    struct local_link *link;
    unsigned wakes, judged, granted, ended, packets;
    unsigned connection; /* the newest one judged or granted */
    struct local_grant grant;
    char why[LOCAL_WHY_BYTES_MAX];
};

static uv_loop_t loop;
static uv_timer_t ticker;
static struct side sides[2];
static int memory[2]; /* what is granted */
static uint64_t cluster;

static void nothing(uv_timer_t *timer)
{
    (void)timer;
}

static void on_wake(void *context)
{
    struct side *side = context;
    side->wakes++;
}

static int on_judge(void *context, unsigned connection, const struct local_hello *hello, struct local_reply *ret_reply,
                    struct local_grant *ret_grant)
{
    struct side *side = context;
    side->judged++;
    side->connection = connection;
    *ret_reply = (struct local_reply){.cluster_id = cluster, .member_id = hello->wanted_id, .boot = 3, .group = 9};
    *ret_grant = (struct local_grant){.ring_fd = memory[0], .slot_fd = memory[1]};
    return 0;
}

static int on_granted(void *context, unsigned connection, const struct local_reply *reply,
                      const struct local_grant *grant)
{
    struct side *side = context;
    (void)reply;
    side->granted++;
    side->connection = connection;
    if (side->granted > 1) {
        close(side->grant.ring_fd);
        close(side->grant.slot_fd);
    }
    side->grant = *grant;
    return 0;
}

static int on_packet(void *context, unsigned connection, const uint8_t *bytes, size_t count)
{
    struct side *side = context;
    (void)connection;
    (void)bytes;
    (void)count;
    side->packets++;
    return 0;
}

static void on_ended(void *context, unsigned connection, const char *why)
{
    struct side *side = context;
    (void)connection;
    side->ended++;
    snprintf(side->why, sizeof side->why, "%s", why);
}

static void set_up(void)
{
    ck_assert_int_eq(uv_loop_init(&loop), 0);
    ck_assert_int_eq(uv_timer_init(&loop, &ticker), 0);
    ck_assert_int_eq(uv_timer_start(&ticker, nothing, 2, 2), 0);
    cluster = unit_cluster_id();
    memset(sides, 0, sizeof sides);
    for (unsigned i = 0; i < 2; i++) {
        const struct local_link_owner owner = {.context = &sides[i],
                                               .wake = on_wake,
                                               .judge = on_judge,
                                               .granted = on_granted,
                                               .packet = on_packet,
                                               .ended = on_ended};
        ck_assert_int_eq(local_unix_open(&loop, &sides[i].link), 0);
        sides[i].link->ops->attach(sides[i].link, &owner);
        memory[i] = memfd_create("test", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(memory[i], 4096), 0);
    }
}

static void tear_down(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (sides[i].link != NULL) sides[i].link->ops->close(sides[i].link);
        if (sides[i].granted > 0) {
            close(sides[i].grant.ring_fd);
            close(sides[i].grant.slot_fd);
        }
        close(memory[i]);
    }
    uv_close((uv_handle_t *)&ticker, NULL);
    ck_assert_int_eq(uv_run(&loop, UV_RUN_DEFAULT), 0);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}

/* Turns of the loop until *count has reached at least `enough`. */
static bool run_until(const unsigned *count, unsigned enough)
{
    uint64_t end_ns = uv_hrtime() + UINT64_C(60000000000);
    while (*count < enough && uv_hrtime() < end_ns) uv_run(&loop, UV_RUN_ONCE);
    return *count >= enough;
}

static bool run_until_refused(const struct side *side, uint64_t enough)
{
    uint64_t end_ns = uv_hrtime() + UINT64_C(60000000000);
    while (side->link->ops->refused(side->link) < enough && uv_hrtime() < end_ns) uv_run(&loop, UV_RUN_ONCE);
    return side->link->ops->refused(side->link) >= enough;
}

static void run_turns(unsigned turns)
{
    while (turns-- > 0) uv_run(&loop, UV_RUN_ONCE);
}

static struct local_hello hello(void)
{
    return (struct local_hello){.kind = LOCAL_FOLLOWER,
                                .group = 9,
                                .cluster_id = cluster,
                                .member_id = 1,
                                .boot = 5,
                                .wanted_id = 2,
                                .wanted_boot = 3};
}

static void listen_as_2(void)
{
    ck_assert_int_eq(sides[1].link->ops->listen(sides[1].link, cluster, 2), 0);
}

/* A process that knows the name, on a blocking socket. */
static int dial_raw(void)
{
    struct sockaddr_un address;
    socklen_t bytes = local_address(cluster, 2, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, bytes), 0);
    return fd;
}

/* The same, accepted: a follower with its grant in fds. */
static int dial_raw_granted(int fds[LOCAL_FDS])
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    const struct local_hello h = hello();
    int fd = dial_raw();
    unsigned judged = sides[1].judged;
    local_hello_write(&h, packet);
    ck_assert_int_eq(fds_send(fd, packet, LOCAL_HELLO_BYTES, NULL, 0), 0);
    ck_assert(run_until(&sides[1].judged, judged + 1));
    ck_assert_int_eq(fds_receive(fd, packet, sizeof packet, fds, LOCAL_FDS), LOCAL_REPLY_BYTES);
    return fd;
}

static void grant_close(const int fds[LOCAL_FDS])
{
    for (unsigned i = 0; i < LOCAL_FDS; i++) close(fds[i]);
}

/* Somebody who listens under side 1's name and is no node. ret  the accepted connection, its hello read. */
static int answer_raw(int listener)
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(recv(fd, packet, sizeof packet, 0), LOCAL_HELLO_BYTES);
    return fd;
}

static int listen_raw(void)
{
    struct sockaddr_un address;
    socklen_t bytes = local_address(cluster, 2, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, bytes), 0);
    ck_assert_int_eq(listen(fd, 4), 0);
    return fd;
}

START_TEST(garbage_as_hello_is_turned_away_and_the_owner_never_hears_of_it)
{
    uint8_t packets[4][LOCAL_HELLO_BYTES];
    const struct local_hello h = hello();
    listen_as_2();
    for (unsigned i = 0; i < 4; i++) local_hello_write(&h, packets[i]);
    packets[0][0] ^= 1;                    /* magic */
    packets[1][4] ^= 0x40;                 /* version */
    packets[2][8] = 77;                    /* kind */
    packets[3][LOCAL_HELLO_BYTES - 1] = 1; /* what is zero */
    for (unsigned i = 0; i < 6; i++) {
        uint8_t reply[LOCAL_REPLY_BYTES];
        struct local_reply answer;
        int fd = dial_raw();
        if (i < 4) ck_assert_int_eq(send(fd, packets[i], LOCAL_HELLO_BYTES, 0), LOCAL_HELLO_BYTES);
        if (i == 4) ck_assert_int_eq(send(fd, packets[0], 3, 0), 3);
        if (i == 5) ck_assert_int_eq(send(fd, "", 0, 0), 0);
        ck_assert(run_until_refused(&sides[1], i + 1));
        ssize_t got = recv(fd, reply, sizeof reply, 0);
        if (i < 5) {
            ck_assert_int_eq(local_reply_read(reply, (size_t)got, &answer), 0);
            ck_assert_int_eq(answer.error, i == 1 ? LOCKSTEP_EVERSION : LOCKSTEP_EPROTO);
        }
        close(fd);
    }
    ck_assert_uint_eq(sides[1].judged, 0);
    ck_assert_uint_eq(sides[1].ended, 0);
}
END_TEST

START_TEST(descriptors_in_a_hello_are_refused)
{
    uint8_t packet[LOCAL_HELLO_BYTES];
    const struct local_hello h = hello();
    listen_as_2();
    local_hello_write(&h, packet);
    int fd = dial_raw();
    ck_assert_int_eq(fds_send(fd, packet, sizeof packet, memory, 2), 0);
    ck_assert(run_until_refused(&sides[1], 1));
    ck_assert_uint_eq(sides[1].judged, 0);
    close(fd);
}
END_TEST

START_TEST(who_says_nothing_is_turned_away_after_a_while)
{
    listen_as_2();
    int fd = dial_raw();
    ck_assert(run_until_refused(&sides[1], 1));
    close(fd);
}
END_TEST

/* Both sides are this process. */
START_TEST(who_stood_still_itself_waits_anew)
{
    const struct local_hello h = hello();
    unsigned connection;
    listen_as_2();
    int fd = dial_raw();
    run_turns(3); /* accepted, and waited for */
    ck_assert_int_eq(sides[0].link->ops->dial(sides[0].link, &h, &connection), 0);
    uint8_t packet[LOCAL_HELLO_BYTES];
    local_hello_write(&h, packet);
    ck_assert_int_eq(fds_send(fd, packet, sizeof packet, NULL, 0), 0);
    uv_sleep(2200);
    ck_assert(run_until(&sides[1].judged, 2));
    ck_assert(run_until(&sides[0].granted, 1));
    close(fd);
}
END_TEST

START_TEST(many_strangers_crowd_each_other_out_and_a_member_still_gets_in)
{
    int fds[3 * LOCAL_STRANGERS_MAX];
    listen_as_2();
    for (unsigned i = 0; i < 3 * LOCAL_STRANGERS_MAX; i++) fds[i] = dial_raw();
    const struct local_hello h = hello();
    unsigned connection;
    ck_assert_int_eq(sides[0].link->ops->dial(sides[0].link, &h, &connection), 0);
    ck_assert(run_until(&sides[0].granted, 1));
    ck_assert_uint_ge(sides[1].link->ops->refused(sides[1].link), 2 * LOCAL_STRANGERS_MAX - 1);
    for (unsigned i = 0; i < 3 * LOCAL_STRANGERS_MAX; i++) close(fds[i]);
}
END_TEST

START_TEST(where_no_descriptor_is_free_the_listener_rests_and_goes_on)
{
    uint8_t packet[LOCAL_HELLO_BYTES];
    const struct local_hello h = hello();
    struct rlimit before, low;
    listen_as_2();
    local_hello_write(&h, packet);
    int fd = dial_raw();
    ck_assert_int_eq(fds_send(fd, packet, sizeof packet, NULL, 0), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)unit_next_descriptor();
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    /* It waits in the listener, and the loop would sleep all the same. */
    struct pollfd waits = {.fd = uv_backend_fd(&loop), .events = POLLIN};
    uint64_t end_ns = uv_hrtime() + UINT64_C(60000000000);
    bool rests = false;
    while (!rests && uv_hrtime() < end_ns) {
        run_turns(1);
        rests = poll(&waits, 1, 0) == 0;
    }
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert(rests);
    ck_assert_uint_eq(sides[1].judged, 0);
    ck_assert(run_until(&sides[1].judged, 1));
    ck_assert_uint_eq(sides[1].link->ops->refused(sides[1].link), 0);
    close(fd);
}
END_TEST

START_TEST(a_flood_of_bells_ends_the_connection_and_a_few_do_not)
{
    static const uint8_t bell = LOCAL_BELL;
    int grant[LOCAL_FDS];
    listen_as_2();
    int fd = dial_raw_granted(grant);
    for (unsigned i = 0; i < 20; i++) ck_assert_int_eq(fds_send(fd, &bell, 1, NULL, 0), 0);
    run_turns(3);
    ck_assert_uint_eq(sides[1].ended, 0);
    uint64_t end_ns = uv_hrtime() + UINT64_C(60000000000);
    while (sides[1].ended == 0 && uv_hrtime() < end_ns) { /* as many as it takes: a slow machine reads few at once */
        while (fds_send(fd, &bell, 1, NULL, 0) == 0) {
        }
        run_turns(1);
    }
    ck_assert_uint_eq(sides[1].ended, 1);
    ck_assert_str_eq(sides[1].why, "it rings without end");
    close(fd);
    grant_close(grant);
}
END_TEST

/* S6: why a bell is no eventfd. Whatever it does to its own end, no call of ours waits. */
START_TEST(a_peer_that_never_reads_its_bells_makes_nobody_wait)
{
    int grant[LOCAL_FDS];
    listen_as_2();
    int fd = dial_raw_granted(grant);
    const int small = 1;
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
    for (unsigned i = 0; i < 100000; i++) sides[1].link->ops->bell(sides[1].link, sides[1].connection);
    run_turns(3);
    ck_assert_uint_eq(sides[1].ended, 0);
    close(fd);
    ck_assert(run_until(&sides[1].ended, 1));
    grant_close(grant);
}
END_TEST

START_TEST(descriptors_behind_the_hello_end_the_connection)
{
    static const uint8_t bell = LOCAL_BELL;
    int grant[LOCAL_FDS];
    listen_as_2();
    int fd = dial_raw_granted(grant);
    ck_assert_int_eq(fds_send(fd, &bell, 1, memory, 2), 0);
    ck_assert(run_until(&sides[1].ended, 1));
    ck_assert_str_eq(sides[1].why, "it broke the local protocol");
    close(fd);
    grant_close(grant);
}
END_TEST

START_TEST(an_answer_that_is_none_ends_the_dialling)
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    const struct local_hello h = hello();
    int listener = listen_raw();
    for (unsigned i = 0; i < 6; i++) {
        unsigned connection, ended = sides[0].ended;
        struct local_reply reply = {.cluster_id = cluster, .member_id = 2};
        ck_assert_int_eq(sides[0].link->ops->dial(sides[0].link, &h, &connection), 0);
        int fd = answer_raw(listener);
        local_reply_write(&reply, packet);
        const int three[3] = {memory[0], memory[1], memory[0]};
        if (i == 1) memset(packet, 0x55, sizeof packet);
        if (i == 5) memset(packet + 48, '\n', 3); /* control characters in a text that goes into logs */
        if (i > 0) ck_assert_int_eq(fds_send(fd, packet, i == 4 ? 5 : sizeof packet, three, i == 2 ? 3 : 1), 0);
        if (i == 0) close(fd);
        ck_assert(run_until(&sides[0].ended, ended + 1));
        if (i != 0) close(fd);
    }
    ck_assert_uint_eq(sides[0].granted, 0);
    close(listener);
}
END_TEST

START_TEST(a_grant_that_no_descriptor_is_free_for_is_no_fault_of_who_gave_it)
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    const struct local_hello h = hello();
    const struct local_reply reply = {.cluster_id = cluster, .member_id = 2};
    struct rlimit before, low;
    unsigned connection;
    int listener = listen_raw();
    ck_assert_int_eq(sides[0].link->ops->dial(sides[0].link, &h, &connection), 0);
    int fd = answer_raw(listener);
    local_reply_write(&reply, packet);
    ck_assert_int_eq(fds_send(fd, packet, sizeof packet, memory, 2), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)unit_next_descriptor() + 1;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    bool ended = run_until(&sides[0].ended, 1);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert(ended);
    ck_assert_ptr_nonnull(strstr(sides[0].why, "ulimit -n"));
    ck_assert_uint_eq(sides[0].link->ops->refused(sides[0].link), 0);
    ck_assert_uint_eq(sides[0].granted, 0);
    close(fd);
    close(listener);
}
END_TEST

START_TEST(a_hello_that_nobody_answers_has_an_end)
{
    const struct local_hello h = hello();
    unsigned connection;
    int listener = listen_raw();
    ck_assert_int_eq(sides[0].link->ops->dial(sides[0].link, &h, &connection), 0);
    ck_assert(run_until(&sides[0].ended, 1));
    ck_assert_str_eq(sides[0].why, "it does not answer");
    close(listener);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, garbage_as_hello_is_turned_away_and_the_owner_never_hears_of_it);
    tcase_add_test(tests, descriptors_in_a_hello_are_refused);
    tcase_add_test(tests, who_says_nothing_is_turned_away_after_a_while);
    tcase_add_test(tests, who_stood_still_itself_waits_anew);
    tcase_add_test(tests, many_strangers_crowd_each_other_out_and_a_member_still_gets_in);
    tcase_add_test(tests, where_no_descriptor_is_free_the_listener_rests_and_goes_on);
    tcase_add_test(tests, a_flood_of_bells_ends_the_connection_and_a_few_do_not);
    tcase_add_test(tests, a_peer_that_never_reads_its_bells_makes_nobody_wait);
    tcase_add_test(tests, descriptors_behind_the_hello_end_the_connection);
    tcase_add_test(tests, an_answer_that_is_none_ends_the_dialling);
    tcase_add_test(tests, a_grant_that_no_descriptor_is_free_for_is_no_fault_of_who_gave_it);
    tcase_add_test(tests, a_hello_that_nobody_answers_has_an_end);
}

int main(void)
{
    return unit_main("local unix", add);
}
