/* SPDX-License-Identifier: Apache-2.0 */
/* test_local_dial.c - who dials a node of this host: what counts as its answer, and that nothing else leaves a descriptor
 * open here. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fds.h"
#include "lockstep/errors.h"
#include "proto/local_dial.h"
#include "tests/support/unit.h"

static int node, dialler; /* two ends of a connection */
static const struct local_reply granted = {.group = 4, .cluster_id = 0xc1, .member_id = 0x3e, .boot = 7};

static void set_up(void)
{
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    node = ends[0];
    dialler = ends[1];
}

static void tear_down(void)
{
    close(node);
    close(dialler);
}

static void answer(const struct local_reply *reply, unsigned fd_count)
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    const int fds[] = {node, node, node};
    local_reply_write(reply, packet);
    ck_assert_int_eq(fds_send(node, packet, sizeof packet, fds, fd_count), 0);
}

static int greeted(struct local_reply *ret)
{
    int fds[LOCAL_FDS], free_before = unit_next_descriptor(), rc = local_greeted(dialler, ret, fds);
    for (unsigned i = 0; rc == 0 && ret->error == 0 && i < LOCAL_FDS; i++) close(fds[i]);
    ck_assert_int_eq(unit_next_descriptor(), free_before);
    return rc;
}

/* --- greeted -------------------------------------------------------------------------------------------------------- */

START_TEST(a_grant_is_a_reply_with_both_descriptors)
{
    struct local_reply reply;
    ck_assert_int_eq(greeted(&reply), LOCKSTEP_EUNAVAILABLE);
    answer(&granted, LOCAL_FDS);
    ck_assert_int_eq(greeted(&reply), 0);
    ck_assert_int_eq(reply.error, 0);
    ck_assert_uint_eq(reply.cluster_id, granted.cluster_id);
    ck_assert_uint_eq(reply.member_id, granted.member_id);
    ck_assert_uint_eq(reply.boot, granted.boot);
    ck_assert_uint_eq(reply.group, granted.group);
    ck_assert_int_eq(greeted(&reply), LOCKSTEP_EUNAVAILABLE); /* once */
}
END_TEST

START_TEST(a_refusal_says_why_and_brings_nothing)
{
    struct local_reply reply, refusal = {.error = LOCKSTEP_EFULL, .why = "there are 16 observers already"};
    answer(&refusal, 0);
    ck_assert_int_eq(greeted(&reply), 0);
    ck_assert_int_eq(reply.error, LOCKSTEP_EFULL);
    ck_assert_str_eq(reply.why, refusal.why);
}
END_TEST

START_TEST(a_reply_with_other_descriptors_than_its_own_is_none) /* S5 */
{
    struct local_reply reply;
    const struct local_reply refusal = {.error = LOCKSTEP_EFULL};
    const unsigned wrong[] = {0, 1, 3};
    for (unsigned i = 0; i < 3; i++) {
        answer(&granted, wrong[i]);
        ck_assert_int_eq(greeted(&reply), LOCKSTEP_EPROTO);
    }
    answer(&refusal, LOCAL_FDS);
    ck_assert_int_eq(greeted(&reply), LOCKSTEP_EPROTO);
}
END_TEST

START_TEST(a_packet_that_is_no_reply_is_refused) /* S5; bytes, and a version to come */
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    struct local_reply reply;
    for (unsigned i = 0; i < 3; i++) {
        const uint32_t version = LOCAL_PACKET_VERSION + 1;
        local_reply_write(&granted, packet);
        if (i == 0) packet[0]++;
        if (i == 1) memcpy(packet + sizeof version, &version, sizeof version);
        ck_assert_int_eq(fds_send(node, packet, i == 2 ? 20 : sizeof packet, NULL, 0), 0);
        ck_assert_int_eq(greeted(&reply), i == 1 ? LOCKSTEP_EVERSION : LOCKSTEP_EPROTO);
        ck_assert_int_gt(recv(dialler, packet, sizeof packet, MSG_DONTWAIT), 0); /* its owner closes the socket */
    }
}
END_TEST

START_TEST(who_hangs_up_without_a_reply_is_told_apart)
{
    struct local_reply reply;
    ck_assert_int_eq(shutdown(node, SHUT_RDWR), 0);
    ck_assert_int_eq(greeted(&reply), LOCKSTEP_ECLOSED);
}
END_TEST

/* --- dial ----------------------------------------------------------------------------------------------------------- */

static struct local_hello hello(void)
{
    static uint64_t cluster;
    if (cluster == 0) cluster = unit_cluster_id();
    return (struct local_hello){.kind = LOCAL_OBSERVER, .cluster_id = cluster, .wanted_id = 9};
}

static int listen_as_wanted(int backlog)
{
    struct sockaddr_un address;
    const struct local_hello h = hello();
    socklen_t bytes = local_address(h.cluster_id, h.wanted_id, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, bytes), 0);
    ck_assert_int_eq(listen(fd, backlog), 0);
    return fd;
}

START_TEST(a_dial_arrives_as_its_hello)
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    struct local_hello heard;
    const struct local_hello h = hello();
    int fd, listener = listen_as_wanted(1);
    ck_assert_int_eq(local_dial(&h, &fd), 0);
    int accepted = accept(listener, NULL, NULL);
    ssize_t got = fds_receive(accepted, packet, sizeof packet, NULL, 0);
    ck_assert_int_eq(got, LOCAL_HELLO_BYTES);
    ck_assert_int_eq(local_hello_read(packet, (size_t)got, &heard), 0);
    ck_assert_uint_eq(heard.kind, LOCAL_OBSERVER);
    ck_assert_uint_eq(heard.wanted_id, h.wanted_id);
    close(accepted);
    close(fd);
    close(listener);
}
END_TEST

START_TEST(where_nobody_listens_or_nobody_accepts_a_dial_waits_for_nothing)
{
    const struct local_hello h = hello();
    int free_before = unit_next_descriptor(), fd = -1, rc = 0, fds[16];
    unsigned count = 0;
    ck_assert_int_eq(local_dial(&h, &fd), LOCKSTEP_EUNREACHABLE);
    int listener = listen_as_wanted(1);
    while (count < 16 && (rc = local_dial(&h, &fds[count])) == 0) count++;
    ck_assert_int_eq(rc, LOCKSTEP_EUNREACHABLE);
    while (count > 0) close(fds[--count]);
    close(listener);
    ck_assert_int_eq(fd, -1);
    ck_assert_int_eq(unit_next_descriptor(), free_before);
}
END_TEST

START_TEST(where_no_descriptor_is_free_errno_says_why)
{
    const struct local_hello h = hello();
    struct rlimit before, low;
    int fd = -1, listener = listen_as_wanted(1);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)unit_next_descriptor();
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    errno = 0;
    int rc = local_dial(&h, &fd), number = errno;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(rc, LOCKSTEP_ENOMEM);
    ck_assert_int_eq(number, EMFILE);
    close(listener);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_grant_is_a_reply_with_both_descriptors);
    tcase_add_test(tests, a_refusal_says_why_and_brings_nothing);
    tcase_add_test(tests, a_reply_with_other_descriptors_than_its_own_is_none);
    tcase_add_test(tests, a_packet_that_is_no_reply_is_refused);
    tcase_add_test(tests, who_hangs_up_without_a_reply_is_told_apart);
    tcase_add_test(tests, a_dial_arrives_as_its_hello);
    tcase_add_test(tests, where_nobody_listens_or_nobody_accepts_a_dial_waits_for_nothing);
    tcase_add_test(tests, where_no_descriptor_is_free_errno_says_why);
}

int main(void)
{
    return unit_main("proto local_dial", add);
}
