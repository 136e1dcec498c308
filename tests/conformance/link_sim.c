/* SPDX-License-Identifier: Apache-2.0 */
/* link_sim.c - the suite against the simulated host; and what only that one can do: be late, refuse and break. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "tests/conformance/link.h"
#include "tests/support/sim_link.h"
#include "tests/support/unit.h"

enum { TURN_NS = 1000000, TURNS_MAX = 100000 };

static struct random randomness;
static struct sim_links *links_now;
static uint64_t now_ns, begin_ns;

static uint64_t clock_of(const void *context)
{
    (void)context;
    return now_ns;
}

static void world_begin(uint64_t seed, struct local_link *ret_links[2])
{
    random_seed(&randomness, seed);
    links_now = sim_links_open(&randomness, &now_ns);
    for (unsigned i = 0; i < 2; i++) ret_links[i] = sim_link_open(links_now, i, 7, clock_of, NULL);
    begin_ns = now_ns;
}

void conformance_link_begin(struct local_link *ret_links[2])
{
    world_begin(1, ret_links);
    sim_links_faults_set(links_now, &(struct sim_link_faults){.delay_ns_min = 1000, .delay_ns_max = 3 * TURN_NS});
}

void conformance_link_end(struct local_link *links[2])
{
    for (unsigned i = 0; i < 2; i++)
        if (links[i] != NULL) links[i]->ops->close(links[i]);
    sim_links_close(links_now);
}

uint64_t conformance_link_cluster(void)
{
    return 5;
}

bool conformance_link_turn(void)
{
    now_ns += TURN_NS;
    for (unsigned i = 0; i < 2; i++) sim_link_work(links_now, i);
    return now_ns < begin_ns + (uint64_t)TURNS_MAX * TURN_NS;
}

/* --- faults ------------------------------------------------------------------------------------------------------- */

static struct {
    unsigned wakes, judged, granted, ended;
    uint64_t granted_ns;
} seen[2];
static int memory;

static void on_wake(void *context)
{
    seen[*(unsigned *)context].wakes++;
}

static int on_judge(void *context, unsigned connection, const struct local_hello *hello, struct local_reply *ret_reply,
                    struct local_grant *ret_grant)
{
    (void)connection;
    (void)hello;
    seen[*(unsigned *)context].judged++;
    *ret_reply = (struct local_reply){0};
    *ret_grant = (struct local_grant){.ring_fd = memory, .slot_fd = memory};
    return 0;
}

static int on_granted(void *context, unsigned connection, const struct local_reply *reply,
                      const struct local_grant *grant)
{
    (void)connection;
    (void)reply;
    seen[*(unsigned *)context].granted++;
    seen[*(unsigned *)context].granted_ns = now_ns;
    close(grant->ring_fd);
    close(grant->slot_fd);
    return 0;
}

static int on_packet(void *context, unsigned connection, const uint8_t *bytes, size_t count)
{
    (void)context;
    (void)connection;
    (void)bytes;
    (void)count;
    return 0;
}

static void on_ended(void *context, unsigned connection, const char *why)
{
    (void)connection;
    (void)why;
    seen[*(unsigned *)context].ended++;
}

static const struct local_hello hello = {
    .kind = LOCAL_FOLLOWER, .group = 1, .cluster_id = 5, .member_id = 1, .boot = 1, .wanted_id = 2};
static struct local_link *two[2];
static unsigned numbers[2] = {0, 1};

static void faults_begin(uint64_t seed, const struct sim_link_faults *faults)
{
    world_begin(seed, two);
    memset(seen, 0, sizeof seen);
    memory = memfd_create("test", MFD_CLOEXEC);
    ck_assert_int_ge(memory, 0);
    for (unsigned i = 0; i < 2; i++)
        two[i]->ops->attach(two[i], &(struct local_link_owner){.context = &numbers[i],
                                                               .wake = on_wake,
                                                               .judge = on_judge,
                                                               .granted = on_granted,
                                                               .packet = on_packet,
                                                               .ended = on_ended});
    ck_assert_int_eq(two[1]->ops->listen(two[1], 5, 2), 0);
    sim_links_faults_set(links_now, faults);
}

static void faults_end(void)
{
    conformance_link_end(two);
    close(memory);
}

static void turns(unsigned count)
{
    while (count-- > 0) (void)conformance_link_turn();
}

START_TEST(however_a_handshake_breaks_no_side_is_left_with_half_of_it)
{
    const struct sim_link_faults faults = {
        .delay_ns_max = 50 * TURN_NS, .refused_per_1000 = 200, .late_per_1000 = 300, .hang_up_per_1000 = 300};
    unsigned whole = 0, broken = 0, refused = 0, late = 0;
    for (uint64_t seed = 0; seed < unit_rounds(500); seed++) {
        unsigned connection;
        faults_begin(seed, &faults);
        uint64_t dialled_ns = now_ns;
        if (two[0]->ops->dial(two[0], &hello, &connection) != 0) {
            refused++;
        } else {
            turns((unsigned)random_below(&randomness, 200));
            if (random_chance(&randomness, 1, 4)) sim_link_hang_up(links_now, 1, 0);
            turns(8000);
            bool here = seen[0].granted > seen[0].ended, there = seen[1].judged > seen[1].ended;
            ck_assert_uint_eq(here, there);
            ck_assert(here || seen[0].ended == 1);
            whole += here;
            broken += !here;
            late += here && seen[0].granted_ns > dialled_ns + 1000 * TURN_NS;
        }
        faults_end();
    }
    ck_assert_uint_gt(whole, 0);
    ck_assert_uint_gt(broken, 0);
    ck_assert_uint_gt(refused, 0);
    ck_assert_uint_gt(late, 0);
}
END_TEST

START_TEST(a_bell_waits_for_a_process_that_stands_still)
{
    unsigned connection;
    faults_begin(1, &(struct sim_link_faults){.delay_ns_max = TURN_NS});
    ck_assert_int_eq(two[0]->ops->dial(two[0], &hello, &connection), 0);
    turns(10);
    ck_assert_uint_eq(seen[0].granted, 1);
    unsigned before = seen[1].wakes;
    for (unsigned i = 0; i < 5; i++) two[0]->ops->bell(two[0], connection);
    now_ns += 1000 * (uint64_t)TURN_NS;
    sim_link_work(links_now, 0);
    ck_assert_uint_eq(seen[1].wakes, before);
    ck_assert_uint_le(sim_link_first_ns(links_now, 1), now_ns);
    sim_link_work(links_now, 1);
    ck_assert_uint_eq(seen[1].wakes, before + 1); /* five are one */
    ck_assert_uint_eq(sim_link_first_ns(links_now, 1), UINT64_MAX);
    faults_end();
}
END_TEST

START_TEST(memory_that_is_taken_away_ends_connections_and_can_be_given_back)
{
    unsigned connection;
    faults_begin(1, &(struct sim_link_faults){.delay_ns_max = TURN_NS});
    ck_assert_int_eq(two[0]->ops->dial(two[0], &hello, &connection), 0);
    turns(10);
    for (unsigned i = 0; i < 2; i++) {
        sim_link_away(links_now, i, true);
        turns(10);
        ck_assert_uint_eq(seen[0].ended, i + 1);
        ck_assert_uint_eq(seen[1].ended, i + 1);
        ck_assert_int_eq(two[0]->ops->dial(two[0], &hello, &connection), LOCKSTEP_EUNREACHABLE);
        sim_link_away(links_now, i, false);
        ck_assert_int_eq(two[0]->ops->dial(two[0], &hello, &connection), 0);
        turns(10);
        ck_assert_uint_eq(seen[0].granted, i + 2);
    }
    faults_end();
}
END_TEST

START_TEST(who_lives_on_another_host_is_not_found)
{
    unsigned connection;
    faults_begin(1, &(struct sim_link_faults){0});
    struct local_link *third = sim_link_open(links_now, 2, 8, clock_of, NULL);
    ck_assert_int_eq(third->ops->dial(third, &hello, &connection), LOCKSTEP_EUNREACHABLE);
    ck_assert_int_eq(third->ops->listen(third, 5, 2), 0); /* names are a host's */
    third->ops->close(third);
    faults_end();
}
END_TEST

static void add_faults(TCase *tests)
{
    tcase_add_test(tests, however_a_handshake_breaks_no_side_is_left_with_half_of_it);
    tcase_add_test(tests, a_bell_waits_for_a_process_that_stands_still);
    tcase_add_test(tests, memory_that_is_taken_away_ends_connections_and_can_be_given_back);
    tcase_add_test(tests, who_lives_on_another_host_is_not_found);
}

int main(void)
{
    int suite = unit_main("link: sim", conformance_link_add);
    int faults = unit_main("link: sim, faults", add_faults);
    return suite != 0 ? suite : faults;
}
