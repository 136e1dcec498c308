/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_leases.c - whole nodes with raft.lease_reads, clocks that drift included. The core's part is in test_lease.c.
 * The election timeout is 300 ms, so a lease lasts 270 ms by the leader's clock and a voter's promise 300 ms by its own. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/server/nodes.h"

enum { ALL = 7, PERCENT = 10000 /* of a clock, in millionths */ };

static struct cluster *start(uint64_t seed, unsigned nodes_with_leases)
{
    return nodes_start(&(struct cluster_options){.nodes = 3, .seed = seed, .lease_reads = nodes_with_leases});
}

/* The leader, after 16 commands that all have applied. */
static unsigned lead(struct cluster *cluster)
{
    int leader = cluster_run_until_writable(cluster, 20 * SECOND);
    ck_assert_int_ge(leader, 0);
    for (unsigned k = 0; k < 16; k++) cluster_propose(cluster, (unsigned)leader, false);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    return (unsigned)leader;
}

static const struct cluster_query *read_within_a_millisecond(struct cluster *cluster, unsigned node)
{
    uint32_t q = cluster_query(cluster, node, NODE_LINEARIZABLE, false);
    cluster_run(cluster, CLUSTER_MS);
    return cluster_query_result(cluster, q);
}

START_TEST(a_leader_with_a_lease_answers_reads_without_a_round)
{
    struct cluster *cluster = start(unit_seed(1), ALL);
    unsigned leader = lead(cluster);
    for (unsigned i = 0; i < 3; i++) sim_net_cut(cluster_net(cluster), i, leader, true); /* no answer comes any more */
    const struct cluster_query *read = read_within_a_millisecond(cluster, leader);
    ck_assert(read->done);
    ck_assert_int_eq(read->error, 0);
    ck_assert_uint_eq(read->applied_count, 16);
    cluster_run(cluster, 270 * CLUSTER_MS);
    read = read_within_a_millisecond(cluster, leader);
    ck_assert(!read->done || read->error != 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_leader_without_a_lease_asks_a_majority_for_every_read)
{
    struct cluster *cluster = start(unit_seed(2), 0);
    unsigned leader = lead(cluster);
    for (unsigned i = 0; i < 3; i++) sim_net_cut(cluster_net(cluster), i, leader, true);
    ck_assert(!read_within_a_millisecond(cluster, leader)->done);
    cluster_close(cluster);
}
END_TEST

static uint64_t newest_acknowledged(const struct cluster *cluster, uint32_t *seen, uint64_t newest)
{
    for (uint32_t p = *seen; p < cluster_proposal_count(cluster); p++) {
        const struct cluster_proposal *proposal = cluster_proposal(cluster, p);
        if (proposal->state == PROPOSAL_APPLIED && proposal->position > newest) newest = proposal->position;
    }
    while (*seen < cluster_proposal_count(cluster) && cluster_proposal(cluster, *seen)->state != PROPOSAL_WAITING)
        (*seen)++;
    return newest;
}

/* The leader's clock and the voters' go wrong by so much; the leader is cut off, whole, while its voters hear the end of its
 * connections and elect another one. It is asked all the time: returns how many of its reads missed what the other one had
 * acknowledged before. */
static unsigned count_stale_reads(uint64_t seed, int leader_percent, int voters_percent)
{
    struct cluster *cluster = start(seed, ALL);
    unsigned old = lead(cluster), others[] = {(old + 1) % 3, (old + 2) % 3}, stale = 0;
    cluster_clock_drift(cluster, old, leader_percent * PERCENT);
    for (unsigned k = 0; k < 2; k++) cluster_clock_drift(cluster, others[k], voters_percent * PERCENT);
    cluster_run(cluster, SECOND + random_below(cluster_random(cluster), 60) * CLUSTER_MS);
    int leader = cluster_run_until_writable(cluster, SECOND);
    ck_assert_int_eq(leader, (int)old);
    for (unsigned k = 0; k < 2; k++) sim_net_hang_up(cluster_net(cluster), old, others[k]);
    cluster_run(cluster, CLUSTER_MS);
    for (unsigned k = 0; k < 2; k++) {
        sim_net_cut(cluster_net(cluster), others[k], old, true);
        sim_net_cut(cluster_net(cluster), old, others[k], true);
    }
    uint64_t acknowledged = 16;
    uint32_t seen = 16;
    for (unsigned ms = 0; ms < 1500; ms++) {
        acknowledged = newest_acknowledged(cluster, &seen, acknowledged);
        for (unsigned k = 0; k < 2; k++) cluster_propose(cluster, others[k], false);
        const struct cluster_query *read = read_within_a_millisecond(cluster, old);
        if (read->done && read->error == 0 && read->applied_count < acknowledged) stale++;
    }
    ck_assert_uint_gt(acknowledged, 16); /* the others did go on */
    cluster_close(cluster);
    return stale;
}

START_TEST(a_leader_that_was_cut_off_reads_nothing_old_by_its_lease) /* T17 */
{
    uint64_t seed = unit_seed(10);
    for (uint64_t k = 0; k < unit_rounds(4); k++) ck_assert_uint_eq(count_stale_reads(seed + k, 0, 0), 0);
}
END_TEST

START_TEST(no_read_is_old_while_clocks_drift_within_the_bound) /* T17: by 5 %, in whichever direction */
{
    uint64_t seed = unit_seed(100);
    for (uint64_t k = 0; k < unit_rounds(4); k++) {
        ck_assert_uint_eq(count_stale_reads(seed + k, -5, 5), 0); /* the worst of them: its lease is the longest, the */
        ck_assert_uint_eq(count_stale_reads(~seed - k, 5, -5), 0); /* promise to it the shortest */
    }
}
END_TEST

START_TEST(
    old_reads_are_seen_here_when_clocks_drift_beyond_the_bound) /* the two tests above can see what they look for */
{
    uint64_t seed = unit_seed(300);
    unsigned stale = 0;
    for (uint64_t k = 0; k < 4; k++) stale += count_stale_reads(seed + k, -40, 5);
    ck_assert_uint_gt(stale, 0);
}
END_TEST

/* A read by its lease after the two others, started anew with a shorter timeout, could elect one of them. */
START_TEST(a_lease_holds_though_its_voters_start_with_a_shorter_timeout)
{
    struct cluster *cluster =
        cluster_open(&(struct cluster_options){.nodes = 3, .seed = unit_seed(5), .lease_reads = ALL});
    for (unsigned i = 0; i < 3; i++) {
        cluster_election_timeout(cluster, i, 5 * SECOND);
        ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
    }
    unsigned old = lead(cluster), others[] = {(old + 1) % 3, (old + 2) % 3};
    for (unsigned k = 0; k < 2; k++) {
        cluster_crash(cluster, others[k]);
        cluster_election_timeout(cluster, others[k], 300 * CLUSTER_MS);
        ck_assert_msg(cluster_start(cluster, others[k]), "%s", cluster_why(cluster));
    }
    for (unsigned ms = 0; ms < 10000; ms++) {
        cluster_run(cluster, CLUSTER_MS);
        for (unsigned k = 0; k < 2; k++) ck_assert_uint_ne(node_leader(cluster_node(cluster, others[k])), others[k]);
        if (ms == 3000) { /* it does read by its lease */
            const struct cluster_query *read = read_within_a_millisecond(cluster, old);
            ck_assert(read->done && read->error == 0);
        }
    }
    cluster_crash(cluster, old);
    ck_assert_int_ge(cluster_run_until_writable(cluster, 5 * SECOND), 0);
    cluster_run(cluster, SECOND);
    for (unsigned k = 0; k < 2; k++) { /* the long promise is over: from now on they wait for the short one alone */
        cluster_crash(cluster, others[k]);
        ck_assert_msg(cluster_start(cluster, others[k]), "%s", cluster_why(cluster));
    }
    ck_assert_int_ge(cluster_run_until_writable(cluster, 3 * SECOND), 0);
    cluster_close(cluster);
}
END_TEST

/* Node 3 refuses node 1, and says so. */
static void expect_no_birth(struct cluster_options options, const char *why)
{
    options.nodes = 3;
    options.seed = unit_seed(3);
    struct cluster *cluster = nodes_start(&options);
    cluster_run(cluster, 2 * SECOND);
    struct node_status status;
    node_status_read(cluster_node(cluster, 0), &status);
    ck_assert(!status.born);
    ck_assert_msg(strstr(status.members[2].note, why) != NULL, "%s", status.members[2].note);
    cluster_close(cluster);
}

START_TEST(nodes_that_differ_in_lease_reads_refuse_each_other)
{
    expect_no_birth((struct cluster_options){.lease_reads = 3}, "n1 has raft.lease_reads on, n3 has it off");
}
END_TEST

START_TEST(with_leases_nodes_that_differ_in_their_election_timeout_refuse_each_other)
{
    expect_no_birth((struct cluster_options){.lease_reads = ALL, .longer_timeouts = 4},
                    "n1 has an election timeout of 300 ms, n3 of 500 ms");
}
END_TEST

START_TEST(without_leases_every_node_may_have_its_own_election_timeout)
{
    struct cluster *cluster =
        nodes_start(&(struct cluster_options){.nodes = 3, .seed = unit_seed(4), .longer_timeouts = 4});
    lead(cluster);
    cluster_close(cluster);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_leader_with_a_lease_answers_reads_without_a_round);
    tcase_add_test(tests, a_leader_without_a_lease_asks_a_majority_for_every_read);
    tcase_add_test(tests, a_leader_that_was_cut_off_reads_nothing_old_by_its_lease);
    tcase_add_test(tests, no_read_is_old_while_clocks_drift_within_the_bound);
    tcase_add_test(tests, old_reads_are_seen_here_when_clocks_drift_beyond_the_bound);
    tcase_add_test(tests, a_lease_holds_though_its_voters_start_with_a_shorter_timeout);
    tcase_add_test(tests, nodes_that_differ_in_lease_reads_refuse_each_other);
    tcase_add_test(tests, with_leases_nodes_that_differ_in_their_election_timeout_refuse_each_other);
    tcase_add_test(tests, without_leases_every_node_may_have_its_own_election_timeout);
    tcase_set_timeout(tests, 0);
}

int main(void)
{
    return unit_main("server node leases", add);
}
