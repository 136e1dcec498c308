/* SPDX-License-Identifier: Apache-2.0 */
/* test_fds.c - packets and descriptors over a Unix socket: what was sent arrives, what nobody asked for is closed. */
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fds.h"
#include "lockstep/errors.h"
#include "tests/support/unit.h"

static int ends[2];

static void set_up(void)
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void tear_down(void)
{
    close(ends[0]);
    close(ends[1]);
}

START_TEST(a_packet_arrives_whole_with_its_descriptors)
{
    int pipe_ends[2], got[2] = {-1, -1};
    char text[16] = "";
    ck_assert_int_eq(pipe(pipe_ends), 0);
    ck_assert_int_eq(fds_send(ends[0], "both", 4, pipe_ends, 2), 0);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, got, 2), 4);
    ck_assert_str_eq(text, "both");
    ck_assert_int_ne(got[0], pipe_ends[0]);
    ck_assert_int_eq(fcntl(got[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    ck_assert_int_eq(write(got[1], "x", 1), 1);
    ck_assert_int_eq(read(pipe_ends[0], text, 1), 1);
    for (unsigned i = 0; i < 2; i++) {
        close(got[i]);
        close(pipe_ends[i]);
    }
}
END_TEST

START_TEST(nothing_there_is_no_wait_though_the_socket_would_block)
{
    char text[4];
    ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), LOCKSTEP_EUNAVAILABLE);
}
END_TEST

START_TEST(a_full_socket_is_an_answer_though_it_would_block)
{
    unsigned sent = 0;
    int rc;
    while ((rc = fds_send(ends[0], "!", 1, NULL, 0)) == 0) ck_assert_uint_lt(++sent, 1000000);
    ck_assert_int_eq(rc, LOCKSTEP_EFULL);
    ck_assert_uint_gt(sent, 0);
}
END_TEST

START_TEST(uninvited_descriptors_are_closed_and_the_packet_is_refused)
{
    char text[4];
    int got = -1, four[4] = {0, 1, 2, 0};
    int before = unit_next_descriptor();
    for (unsigned count = 1; count <= 4; count++) {
        ck_assert_int_eq(fds_send(ends[0], "a", 1, four, count), 0);
        ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), LOCKSTEP_EPROTO);
        ck_assert_int_eq(unit_next_descriptor(), before);
    }
    ck_assert_int_eq(fds_send(ends[0], "b", 1, four, 2), 0); /* one too many */
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, &got, 1), LOCKSTEP_EPROTO);
    ck_assert_int_eq(got, -1);
    ck_assert_int_eq(fds_send(ends[0], "c", 1, four, 1), 0); /* one too few */
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, four, 2), LOCKSTEP_EPROTO);
    ck_assert_int_eq(unit_next_descriptor(), before);
}
END_TEST

START_TEST(more_descriptors_than_anybody_has_room_for_are_closed_too)
{
    enum { MANY = 100 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(MANY * sizeof(int))];
    } control = {.room = {0}};
    char text[4] = "m";
    struct iovec iov = {.iov_base = text, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(MANY * sizeof(int));
    int fd = 0;
    for (unsigned i = 0; i < MANY; i++) memcpy(CMSG_DATA(header) + i * sizeof fd, &fd, sizeof fd);
    int before = unit_next_descriptor();
    ck_assert_int_eq(sendmsg(ends[0], &message, MSG_DONTWAIT), 1);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), LOCKSTEP_EPROTO);
    ck_assert_int_eq(unit_next_descriptor(), before);
}
END_TEST

START_TEST(where_this_process_may_open_no_more_descriptors_the_other_side_is_not_blamed)
{
    struct rlimit before, low;
    char text[4];
    int pair[2] = {0, 1}, got[2] = {-1, -1}, first_free = unit_next_descriptor();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (rlim_t left = 0; left <= 2; left++) {
        ck_assert_int_eq(fds_send(ends[0], "two", 3, pair, 2), 0);
        low = before;
        if (left < 2) low.rlim_cur = (rlim_t)first_free + left;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        ssize_t bytes = fds_receive(ends[1], text, sizeof text, got, 2);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        ck_assert_int_eq(bytes, left < 2 ? LOCKSTEP_ENOMEM : 3);
        if (left == 2) close(got[0]), close(got[1]);
        ck_assert_int_eq(unit_next_descriptor(), first_free);
    }
}
END_TEST

START_TEST(a_packet_larger_than_the_room_is_refused_and_the_next_one_is_whole)
{
    char text[4] = "";
    ck_assert_int_eq(fds_send(ends[0], "too long", 8, NULL, 0), 0);
    ck_assert_int_eq(fds_send(ends[0], "fit", 3, NULL, 0), 0);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), LOCKSTEP_EPROTO);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), 3);
    ck_assert_mem_eq(text, "fit", 3);
}
END_TEST

START_TEST(the_other_side_is_gone_for_both_directions)
{
    char text[4];
    ck_assert_int_eq(fds_send(ends[0], "last", 4, NULL, 0), 0);
    close(ends[0]);
    ends[0] = dup(ends[1]);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), 4);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), LOCKSTEP_ECLOSED);
    ck_assert_int_eq(fds_send(ends[1], "no", 2, NULL, 0), LOCKSTEP_ECLOSED);
}
END_TEST

START_TEST(an_empty_packet_counts_as_an_end)
{
    char text[4];
    ck_assert_int_eq(send(ends[0], "", 0, 0), 0);
    ck_assert_int_eq(fds_receive(ends[1], text, sizeof text, NULL, 0), LOCKSTEP_ECLOSED);
}
END_TEST

START_TEST(the_other_side_is_of_our_user_or_it_is_not) /* whoever may not change users has only his own to look at */
{
    int others[2];
    uid_t us = geteuid(), other = us == 0 ? 65534 : us;
    ck_assert(fds_is_same_user(ends[0]));
    if (seteuid(other) != 0) other = us; /* a container with one user */
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, others), 0);
    ck_assert_int_eq(seteuid(us), 0);
    ck_assert_int_eq(fds_is_same_user(others[0]), other == us);
    close(others[0]);
    close(others[1]);
    ck_assert(!fds_is_same_user(-1));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_packet_arrives_whole_with_its_descriptors);
    tcase_add_test(tests, nothing_there_is_no_wait_though_the_socket_would_block);
    tcase_add_test(tests, a_full_socket_is_an_answer_though_it_would_block);
    tcase_add_test(tests, uninvited_descriptors_are_closed_and_the_packet_is_refused);
    tcase_add_test(tests, more_descriptors_than_anybody_has_room_for_are_closed_too);
    tcase_add_test(tests, where_this_process_may_open_no_more_descriptors_the_other_side_is_not_blamed);
    tcase_add_test(tests, a_packet_larger_than_the_room_is_refused_and_the_next_one_is_whole);
    tcase_add_test(tests, the_other_side_is_gone_for_both_directions);
    tcase_add_test(tests, an_empty_packet_counts_as_an_end);
    tcase_add_test(tests, the_other_side_is_of_our_user_or_it_is_not);
}

int main(void)
{
    return unit_main("fds", add);
}
