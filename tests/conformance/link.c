/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/link.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "tests/support/unit.h"

/* One process: what it was told. */
struct side {
    struct local_link *link;
    int refuse; /* every hello, with this error */
    int disown; /* every grant */
    unsigned wakes, judged, granted, ended, packets;
    unsigned connection; /* the newest one judged or granted */
    struct local_hello hello;
    struct local_reply reply;
    struct local_grant grant;
    char why[LOCAL_WHY_BYTES_MAX];
    uint8_t packet[64];
    size_t packet_bytes;
    bool in_call; /* into the link: nothing may be told now */
};

static struct side sides[2];
static int memory[2]; /* what is granted: ring, slot */
static uint64_t cluster;

static void told(const struct side *side)
{
    ck_assert(!side->in_call);
}

static void on_wake(void *context)
{
    struct side *side = context;
    told(side);
    side->wakes++;
}

static int on_judge(void *context, unsigned connection, const struct local_hello *hello, struct local_reply *ret_reply,
                    struct local_grant *ret_grant)
{
    struct side *side = context;
    told(side);
    side->judged++;
    side->connection = connection;
    side->hello = *hello;
    *ret_reply = (struct local_reply){.cluster_id = cluster, .member_id = hello->wanted_id, .boot = 3, .group = 9};
    if (side->refuse != 0) snprintf(ret_reply->why, sizeof ret_reply->why, "not today");
    *ret_grant = (struct local_grant){.ring_fd = memory[0], .slot_fd = memory[1]};
    return side->refuse;
}

static void grant_close(struct side *side)
{
    if (side->granted == 0) return;
    close(side->grant.ring_fd);
    close(side->grant.slot_fd);
}

static int on_granted(void *context, unsigned connection, const struct local_reply *reply,
                      const struct local_grant *grant)
{
    struct side *side = context;
    told(side);
    grant_close(side);
    side->granted++;
    side->connection = connection;
    side->reply = *reply;
    side->grant = *grant;
    return side->disown;
}

static int on_packet(void *context, unsigned connection, const uint8_t *bytes, size_t count)
{
    struct side *side = context;
    told(side);
    ck_assert_uint_eq(connection, side->connection);
    side->packets++;
    side->packet_bytes = count;
    memcpy(side->packet, bytes, count < sizeof side->packet ? count : sizeof side->packet);
    return bytes[0] == '?' ? LOCKSTEP_EPROTO : 0;
}

static void on_ended(void *context, unsigned connection, const char *why)
{
    struct side *side = context;
    told(side);
    (void)connection;
    side->ended++;
    snprintf(side->why, sizeof side->why, "%s", why);
}

static void set_up(void)
{
    struct local_link *links[2];
    memset(sides, 0, sizeof sides);
    cluster = conformance_link_cluster();
    conformance_link_begin(links);
    for (unsigned i = 0; i < 2; i++) {
        const struct local_link_owner owner = {.context = &sides[i],
                                               .wake = on_wake,
                                               .judge = on_judge,
                                               .granted = on_granted,
                                               .packet = on_packet,
                                               .ended = on_ended};
        sides[i].link = links[i];
        links[i]->ops->attach(links[i], &owner);
        memory[i] = memfd_create("test", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(memory[i], 4096), 0);
    }
}

static void tear_down(void)
{
    struct local_link *links[2] = {sides[0].link, sides[1].link};
    conformance_link_end(links);
    for (unsigned i = 0; i < 2; i++) {
        grant_close(&sides[i]);
        close(memory[i]);
    }
}

static bool turn_until(const unsigned *count, unsigned enough)
{
    while (*count < enough && conformance_link_turn()) {
    }
    return *count >= enough;
}

static void turns(unsigned count)
{
    while (count-- > 0) (void)conformance_link_turn();
}

static int listen_as(struct side *side, raft_member member)
{
    side->in_call = true;
    int rc = side->link->ops->listen(side->link, cluster, member);
    side->in_call = false;
    return rc;
}

static int dial(unsigned *ret_connection)
{
    const struct local_hello hello = {.kind = LOCAL_FOLLOWER,
                                      .group = 9,
                                      .cluster_id = cluster,
                                      .member_id = 1,
                                      .boot = 5,
                                      .wanted_id = 2,
                                      .wanted_boot = 3};
    sides[0].in_call = true;
    int rc = sides[0].link->ops->dial(sides[0].link, &hello, ret_connection);
    sides[0].in_call = false;
    return rc;
}

static void end(struct side *side, unsigned connection)
{
    side->in_call = true;
    side->link->ops->end(side->link, connection);
    side->in_call = false;
}

/* Side 0 dials side 1, and both know each other. */
static void connect_sides(void)
{
    unsigned connection;
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
    ck_assert_int_eq(dial(&connection), 0);
    ck_assert(turn_until(&sides[0].granted, 1));
    ck_assert_uint_eq(sides[0].connection, connection);
    ck_assert_uint_eq(sides[1].judged, 1);
}

START_TEST(who_dials_is_granted_memory_that_both_see)
{
    connect_sides();
    ck_assert_uint_eq(sides[1].hello.kind, LOCAL_FOLLOWER);
    ck_assert_uint_eq(sides[1].hello.cluster_id, cluster);
    ck_assert_uint_eq(sides[1].hello.member_id, 1);
    ck_assert_uint_eq(sides[1].hello.boot, 5);
    ck_assert_uint_eq(sides[1].hello.wanted_boot, 3);
    ck_assert_uint_eq(sides[1].hello.group, 9);
    ck_assert_uint_eq(sides[0].reply.member_id, 2);
    ck_assert_uint_eq(sides[0].reply.boot, 3);
    char text[2][8] = {"", ""};
    ck_assert_int_eq(pwrite(memory[0], "ring", 4, 0), 4);
    ck_assert_int_eq(pwrite(memory[1], "slot", 4, 0), 4);
    ck_assert_int_eq(pread(sides[0].grant.ring_fd, text[0], 4, 0), 4);
    ck_assert_int_eq(pread(sides[0].grant.slot_fd, text[1], 4, 0), 4);
    ck_assert_str_eq(text[0], "ring");
    ck_assert_str_eq(text[1], "slot");
    ck_assert_uint_gt(sides[0].wakes, 0);
    ck_assert_uint_gt(sides[1].wakes, 0);
}
END_TEST

START_TEST(bells_go_both_ways_and_wake)
{
    connect_sides();
    turns(3);
    for (unsigned i = 0; i < 2; i++) {
        struct side *from = &sides[i], *to = &sides[1 - i];
        for (unsigned again = 0; again < 3; again++) {
            unsigned before = to->wakes;
            from->in_call = true;
            from->link->ops->bell(from->link, from->connection);
            from->in_call = false;
            ck_assert(turn_until(&to->wakes, before + 1));
        }
        ck_assert_uint_eq(to->packets, 0);
    }
}
END_TEST

START_TEST(many_bells_at_once_are_as_good_as_one)
{
    connect_sides();
    turns(3);
    unsigned before = sides[1].wakes;
    for (unsigned i = 0; i < 50; i++) sides[0].link->ops->bell(sides[0].link, sides[0].connection);
    ck_assert(turn_until(&sides[1].wakes, before + 1));
    turns(3);
    ck_assert_uint_eq(sides[1].ended, 0);
}
END_TEST

START_TEST(a_refusal_is_told_with_its_reason_and_is_no_connection)
{
    unsigned connection, again;
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
    sides[1].refuse = LOCKSTEP_EFOREIGN;
    ck_assert_int_eq(dial(&connection), 0);
    ck_assert(turn_until(&sides[0].ended, 1));
    ck_assert_str_eq(sides[0].why, "not today");
    ck_assert_uint_eq(sides[0].granted, 0);
    ck_assert_uint_eq(sides[1].ended, 0);
    sides[1].refuse = 0;
    ck_assert_int_eq(dial(&again), 0);
    ck_assert_uint_eq(again, connection); /* its number is free */
    ck_assert(turn_until(&sides[0].granted, 1));
}
END_TEST

START_TEST(nobody_there_is_known_at_once)
{
    unsigned connection;
    ck_assert_int_eq(dial(&connection), LOCKSTEP_EUNREACHABLE);
    ck_assert_int_eq(listen_as(&sides[1], 3), 0);
    ck_assert_int_eq(dial(&connection), LOCKSTEP_EUNREACHABLE);
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);                         /* instead */
    ck_assert_int_eq(sides[1].link->ops->listen(sides[1].link, 0, 0), 0); /* under none any more */
    ck_assert_int_eq(dial(&connection), LOCKSTEP_EUNREACHABLE);
}
END_TEST

START_TEST(a_name_that_somebody_has_is_an_answer_and_free_when_he_is_gone)
{
    ck_assert_int_eq(listen_as(&sides[0], 2), 0);
    ck_assert_int_eq(listen_as(&sides[1], 2), LOCKSTEP_EEXIST);
    sides[0].link->ops->close(sides[0].link);
    sides[0].link = NULL;
    turns(3);
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
}
END_TEST

START_TEST(who_stops_listening_before_it_has_read_a_hello_is_gone_for_the_dialler)
{
    unsigned connection;
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
    ck_assert_int_eq(dial(&connection), 0);
    ck_assert_int_eq(sides[1].link->ops->listen(sides[1].link, 0, 0), 0);
    ck_assert(turn_until(&sides[0].ended, 1));
    ck_assert_uint_eq(sides[1].judged, 0);
}
END_TEST

START_TEST(who_is_granted_what_it_does_not_want_ends_it_and_the_other_side_hears)
{
    unsigned connection;
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
    sides[0].disown = LOCKSTEP_EFOREIGN;
    ck_assert_int_eq(dial(&connection), 0);
    ck_assert(turn_until(&sides[1].ended, 1));
    ck_assert_uint_eq(sides[0].ended, 0);
    ck_assert_uint_eq(sides[0].link->ops->refused(sides[0].link), 1);
}
END_TEST

START_TEST(hang_up_is_told_to_the_side_that_stays_and_to_nobody_else)
{
    struct side *goes = &sides[_i], *stays = &sides[1 - _i];
    connect_sides();
    end(goes, goes->connection);
    ck_assert(turn_until(&stays->ended, 1));
    turns(3);
    ck_assert_uint_eq(goes->ended, 0);
    ck_assert_str_eq(stays->why, "it closed the connection");
}
END_TEST

START_TEST(a_dialler_that_gives_up_is_no_connection_for_the_other_side)
{
    unsigned connection;
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
    ck_assert_int_eq(dial(&connection), 0);
    end(&sides[0], connection);
    turns(20); /* it may be judged, and then it ends */
    while (sides[1].ended < sides[1].judged && conformance_link_turn()) {
    }
    ck_assert_uint_eq(sides[1].ended, sides[1].judged);
    ck_assert_uint_eq(sides[0].granted + sides[0].ended, 0);
}
END_TEST

START_TEST(a_link_that_closes_hangs_up)
{
    connect_sides();
    sides[1].link->ops->close(sides[1].link);
    sides[1].link = NULL;
    ck_assert(turn_until(&sides[0].ended, 1));
}
END_TEST

START_TEST(packets_of_observers_are_handed_on_and_answered)
{
    connect_sides();
    ck_assert_int_eq(sides[0].link->ops->send(sides[0].link, sides[0].connection, "blocks please", 13), 0);
    ck_assert(turn_until(&sides[1].packets, 1));
    ck_assert_uint_eq(sides[1].packet_bytes, 13);
    ck_assert_mem_eq(sides[1].packet, "blocks please", 13);
    static uint8_t large[LOCAL_ANSWER_BYTES_MAX];
    memset(large, 7, sizeof large);
    ck_assert_int_eq(sides[1].link->ops->send(sides[1].link, sides[1].connection, large, sizeof large), 0);
    ck_assert(turn_until(&sides[0].packets, 1));
    ck_assert_uint_eq(sides[0].packet_bytes, sizeof large);
    /* who does not read is told apart from who reads */
    int rc = 0;
    for (unsigned i = 0; i < 1000 && rc == 0; i++)
        rc = sides[1].link->ops->send(sides[1].link, sides[1].connection, large, sizeof large);
    ck_assert_int_eq(rc, LOCKSTEP_EFULL);
}
END_TEST

START_TEST(a_packet_that_its_owner_refuses_ends_the_connection)
{
    connect_sides();
    ck_assert_int_eq(sides[0].link->ops->send(sides[0].link, sides[0].connection, "??", 2), 0);
    ck_assert(turn_until(&sides[1].ended, 1));
    ck_assert(turn_until(&sides[0].ended, 1));
    ck_assert_uint_eq(sides[1].link->ops->refused(sides[1].link), 1);
}
END_TEST

/* Numbers are used again at once. */
START_TEST(connections_that_come_and_go_leave_nothing_behind)
{
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
    uint64_t rounds = unit_rounds(300);
    for (unsigned i = 0; i < rounds; i++) {
        unsigned connection;
        ck_assert_int_eq(dial(&connection), 0);
        ck_assert(turn_until(&sides[0].granted, i + 1));
        ck_assert_uint_eq(connection, 0);
        end(&sides[0], connection);
        ck_assert(turn_until(&sides[1].ended, i + 1));
    }
}
END_TEST

START_TEST(dialling_has_a_limit)
{
    unsigned connection, count = 0;
    int rc = 0;
    ck_assert_int_eq(listen_as(&sides[1], 2), 0);
    while ((rc = dial(&connection)) == 0) {
        count++;
        ck_assert(turn_until(&sides[0].granted, count));
    }
    ck_assert_int_eq(rc, LOCKSTEP_EFULL);
    ck_assert_uint_eq(count, LOCAL_CONNECTIONS_MAX);
}
END_TEST

void conformance_link_add(TCase *tests)
{
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, who_dials_is_granted_memory_that_both_see);
    tcase_add_test(tests, bells_go_both_ways_and_wake);
    tcase_add_test(tests, many_bells_at_once_are_as_good_as_one);
    tcase_add_test(tests, a_refusal_is_told_with_its_reason_and_is_no_connection);
    tcase_add_test(tests, nobody_there_is_known_at_once);
    tcase_add_test(tests, a_name_that_somebody_has_is_an_answer_and_free_when_he_is_gone);
    tcase_add_test(tests, who_stops_listening_before_it_has_read_a_hello_is_gone_for_the_dialler);
    tcase_add_test(tests, who_is_granted_what_it_does_not_want_ends_it_and_the_other_side_hears);
    tcase_add_loop_test(tests, hang_up_is_told_to_the_side_that_stays_and_to_nobody_else, 0, 2);
    tcase_add_test(tests, a_dialler_that_gives_up_is_no_connection_for_the_other_side);
    tcase_add_test(tests, a_link_that_closes_hangs_up);
    tcase_add_test(tests, packets_of_observers_are_handed_on_and_answered);
    tcase_add_test(tests, a_packet_that_its_owner_refuses_ends_the_connection);
    tcase_add_test(tests, connections_that_come_and_go_leave_nothing_behind);
    tcase_add_test(tests, dialling_has_a_limit);
}
