/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_disk.c - whole nodes on disks that are full or do not return (J8, T55, T57). */
#include <stdio.h>
#include <string.h>

#include "tests/unit/server/nodes.h"

static struct cluster *start(unsigned nodes, uint64_t seed)
{
    return nodes_start(&(struct cluster_options){
        .nodes = nodes, .seed = unit_seed(seed), .ring_bytes = 1 << 20, .payload_bytes = 8000});
}

static const char *not_ready(struct cluster *cluster, unsigned i)
{
    static struct node_status status;
    node_status_read(cluster_node(cluster, i), &status);
    return status.not_ready == NULL ? "" : status.not_ready;
}

static bool leads(struct cluster *cluster, unsigned i)
{
    struct node_status status;
    node_status_read(cluster_node(cluster, i), &status);
    return status.raft.role == RAFT_LEADER;
}

/* `count` commands at whoever leads; how many were applied. */
static unsigned propose(struct cluster *cluster, unsigned count)
{
    unsigned leader = leader_of(cluster), applied = 0;
    uint32_t first = cluster_proposal_count(cluster);
    for (unsigned k = 0; k < count; k++) {
        cluster_propose(cluster, leader, false);
        cluster_run(cluster, CLUSTER_MS);
    }
    cluster_run(cluster, 500 * CLUSTER_MS);
    for (uint32_t p = first; p < cluster_proposal_count(cluster); p++)
        applied += cluster_proposal(cluster, p)->state == PROPOSAL_APPLIED;
    return applied;
}

/* One more flush returns; the one behind it takes so long. */
static void disk_stops(struct cluster *cluster, unsigned i, uint64_t ns)
{
    cluster_disk_delay(cluster, i, ns);
    cluster_propose(cluster, i, false);
    cluster_run(cluster, 10 * CLUSTER_MS);
    cluster_disk_delay(cluster, i, 100000);
}

START_TEST(leader_whose_flush_does_not_return_gives_leadership_up_and_comes_back) /* J8 */
{
    struct cluster *cluster = start(3, 31);
    unsigned old = leader_of(cluster);
    ck_assert_uint_eq(propose(cluster, 20), 20);
    disk_stops(cluster, old, 60 * SECOND);
    uint32_t p = cluster_propose(cluster, old, false); /* the others commit it without this disk */
    cluster_run(cluster, SECOND);
    ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_APPLIED);
    ck_assert(leads(cluster, old)); /* not yet */
    ck_assert_str_eq(not_ready(cluster, old), "");
    cluster_run(cluster, 9 * SECOND);
    ck_assert(!leads(cluster, old));
    ck_assert_msg(strstr(not_ready(cluster, old), "journal") != NULL, "%s", not_ready(cluster, old));
    ck_assert_uint_ne(leader_of(cluster), old);
    ck_assert_uint_eq(propose(cluster, 20), 20);
    cluster_run(cluster, 70 * SECOND);
    ck_assert_str_eq(not_ready(cluster, old), "");
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
    cluster_check(cluster);
    cluster_close(cluster);
}
END_TEST

START_TEST(leader_that_nobody_can_replace_stops_all_the_same) /* J8: what it led could end nowhere */
{
    struct cluster *cluster = start(1, 32);
    ck_assert_uint_eq(propose(cluster, 5), 5);
    disk_stops(cluster, 0, 30 * SECOND);
    uint32_t p = cluster_propose(cluster, 0, false);
    cluster_run(cluster, 15 * SECOND);
    ck_assert(!leads(cluster, 0));
    ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_UNKNOWN);
    cluster_run(cluster, 30 * SECOND);
    ck_assert_uint_eq(propose(cluster, 5), 5);
    ck_assert_uint_eq(cluster_applied_count(cluster, 0), 12);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_command_during_a_handover_is_refused_as_such_and_counts_as_none_that_found_no_room)
{
    struct cluster *cluster = start(3, 36);
    unsigned leader = leader_of(cluster);
    struct node_status status;
    ck_assert_uint_eq(propose(cluster, 20), 20);
    cluster_log_full(cluster, leader, true); /* J8: leadership is offered, nobody asked for it */
    for (unsigned k = 0; k < 100000; k++) {
        if (k % 1000 == 0) cluster_propose(cluster, leader, false);
        cluster_run(cluster, CLUSTER_MS / 20);
        node_status_read(cluster_node(cluster, leader), &status);
        if (status.raft.transferring) break;
    }
    ck_assert(status.raft.transferring);
    ck_assert(node_hands_over(cluster_node(cluster, leader)));
    uint32_t p = cluster_propose(cluster, leader, false);
    ck_assert_int_eq(cluster_proposal(cluster, p)->error, LOCKSTEP_EUNAVAILABLE);
    node_status_read(cluster_node(cluster, leader), &status);
    ck_assert_uint_eq(status.counters.rejected_full, 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(leader_with_a_full_disk_hands_over_to_who_has_room) /* J8, T55 */
{
    struct cluster *cluster = start(3, 33);
    unsigned old = leader_of(cluster), other = (old + 1) % 3;
    ck_assert_uint_eq(propose(cluster, 20), 20);
    cluster_log_full(cluster, old, true);
    cluster_log_full(cluster, other, true);
    for (int i = 0; i < 40 && leader_of(cluster) != 3 - old - other; i++) {
        propose(cluster, 1);
        cluster_run(cluster, SECOND);
    }
    ck_assert_uint_eq(leader_of(cluster), 3 - old - other);
    ck_assert_msg(strstr(not_ready(cluster, old), "full") != NULL, "%s", not_ready(cluster, old));
    cluster_log_full(cluster, other, false);
    cluster_run(cluster, 3 * SECOND);
    ck_assert_uint_eq(propose(cluster, 1000), 1000); /* more than the full one can hold: two of three go on */
    ck_assert(cluster_runs(cluster, old));
    cluster_log_full(cluster, old, false);
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
    ck_assert_str_eq(not_ready(cluster, old), "");
    cluster_check(cluster);
    cluster_close(cluster);
}
END_TEST

START_TEST(all_disks_full_refuse_commands_answer_queries_elect_and_go_on_with_room) /* J8, T55 */
{
    struct cluster *cluster = start(3, 34);
    ck_assert_uint_eq(propose(cluster, 20), 20);
    for (unsigned i = 0; i < 3; i++) cluster_log_full(cluster, i, true);
    unsigned applied = 0, refused = 0;
    for (int i = 0; i < 100 && refused < 5; i++) { /* whoever leads: leadership is offered around */
        unsigned more = propose(cluster, 20);
        refused = more == 0 ? refused + 1 : 0;
        applied += more;
    }
    ck_assert_uint_eq(refused, 5);
    ck_assert_int_eq(cluster_proposal(cluster, cluster_proposal_count(cluster) - 1)->error, LOCKSTEP_EFULL);
    unsigned leader = leader_of(cluster);
    uint32_t q = cluster_query(cluster, leader, NODE_LINEARIZABLE, false);
    cluster_run(cluster, SECOND);
    ck_assert(cluster_query_result(cluster, q)->done);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
    ck_assert_uint_eq(cluster_query_result(cluster, q)->applied_count, 20 + applied);
    cluster_crash(cluster, leader); /* the others can still elect */
    cluster_run(cluster, 10 * SECOND);
    ck_assert(leads(cluster, (leader + 1) % 3) || leads(cluster, (leader + 2) % 3));
    ck_assert_msg(cluster_start(cluster, leader), "%s", cluster_why(cluster)); /* and a start needs no room */
    for (unsigned i = 0; i < 3; i++) cluster_log_full(cluster, i, false);
    ck_assert(cluster_run_until_level(cluster, 60 * SECOND));
    cluster_run(cluster, 3 * SECOND);
    ck_assert_uint_eq(propose(cluster, 20), 20);
    for (unsigned i = 0; i < 3; i++) ck_assert_str_eq(not_ready(cluster, i), "");
    cluster_check(cluster);
    cluster_close(cluster);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, leader_whose_flush_does_not_return_gives_leadership_up_and_comes_back);
    tcase_add_test(tests, leader_that_nobody_can_replace_stops_all_the_same);
    tcase_add_test(tests, a_command_during_a_handover_is_refused_as_such_and_counts_as_none_that_found_no_room);
    tcase_add_test(tests, leader_with_a_full_disk_hands_over_to_who_has_room);
    tcase_add_test(tests, all_disks_full_refuse_commands_answer_queries_elect_and_go_on_with_room);
}

int main(void)
{
    return unit_main("node on a bad disk", add);
}
