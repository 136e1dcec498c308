/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_snapshot.c - whole nodes from a seed whose logs are compacted: a member that was away comes back by an install, while
 * commands go on; crashes, cuts and changes of leader in the middle of it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/server/nodes.h"

enum { AFTER_BYTES = 20000 };

static struct cluster *start(unsigned nodes, uint64_t seed)
{
    return nodes_start(&(struct cluster_options){
        .nodes = nodes, .seed = unit_seed(seed), .snapshot_after_bytes = AFTER_BYTES, .payload_bytes = 100});
}

/* Until i was given a snapshot, or time is up. */
static bool run_until_installed(struct cluster *cluster, unsigned i, uint64_t ns)
{
    for (uint64_t end = 0; end < ns; end += CLUSTER_MS) {
        if (cluster_runs(cluster, i) && status_of(cluster, i).storage.installs > 0) return true;
        cluster_run(cluster, CLUSTER_MS);
    }
    return false;
}

static void check_level(struct cluster *cluster)
{
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
    cluster_check(cluster);
}

START_TEST(logs_are_compacted_behind_snapshots_and_restarts_start_from_them) /* J5, T48, T51 */
{
    struct cluster *cluster = start(3, 0x51);
    unsigned leader = leader_of(cluster);
    propose_many(cluster, leader, 1500, 4);
    check_level(cluster);
    cluster_run(cluster, SECOND);
    for (unsigned i = 0; i < 3; i++) {
        struct node_status status = status_of(cluster, i);
        ck_assert_uint_gt(status.storage.snapshot, 100);
        ck_assert_uint_gt(status.storage.base, 100);
        ck_assert_uint_eq(status.raft.base_index, status.storage.base);
        ck_assert_uint_lt(status.storage.log_bytes, 4 * AFTER_BYTES);
    }
    for (unsigned i = 0; i < 3; i++) cluster_crash(cluster, i);
    for (unsigned i = 0; i < 3; i++) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
    leader = leader_of(cluster);
    propose_many(cluster, leader, 100, 4);
    check_level(cluster);
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_ge(cluster_applied_count(cluster, i), 1500);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_follower_behind_a_dropped_log_comes_back_by_an_install_while_commands_go_on) /* T27, T39 */
{
    struct cluster *cluster = start(3, 0x52);
    unsigned leader = leader_of(cluster), away = (leader + 1) % 3;
    propose_many(cluster, leader, 50, 4);
    cluster_crash(cluster, away);
    propose_many(cluster, leader, 1500, 4);
    ck_assert_uint_gt(status_of(cluster, leader).raft.base_index, 100);
    ck_assert(cluster_start(cluster, away));
    propose_many(cluster, leader, 400, 4);
    ck_assert(run_until_installed(cluster, away, 5 * SECOND));
    propose_many(cluster, leader, 100, 4);
    check_level(cluster);
    struct node_status status = status_of(cluster, away), other = status_of(cluster, leader);
    ck_assert_uint_eq(status.storage.installs, 1);
    ck_assert_uint_eq(status.host.hash_index, other.host.hash_index);
    ck_assert_uint_eq(status.host.state_hash.high, other.host.state_hash.high);
    ck_assert_uint_eq(status.host.reply_hash.low, other.host.reply_hash.low);
    cluster_crash(cluster, away);
    ck_assert_msg(cluster_start(cluster, away), "%s", cluster_why(cluster));
    check_level(cluster);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_snapshots_writer_rests_as_long_as_it_works)
{
    struct cluster *cluster = start(3, 0x61);
    unsigned leader = leader_of(cluster);
    cluster_writer_works(cluster, leader, CLUSTER_MS, false);
    cluster_writer_works(cluster, (leader + 1) % 3, CLUSTER_MS / 1000, false);
    cluster_writer_works(cluster, (leader + 2) % 3, 3600 * SECOND, false);
    propose_many(cluster, leader, 300, 4);
    check_level(cluster);
    uint64_t usual_ns = cluster_writer_rested_ns(cluster, leader);
    uint64_t long_ns = cluster_writer_rested_ns(cluster, (leader + 2) % 3), rest_max_ns = 100 * CLUSTER_MS;
    ck_assert_uint_eq(usual_ns % CLUSTER_MS, 0);
    ck_assert_uint_ge(usual_ns / CLUSTER_MS, 10); /* head, heads of sections, runs: a rest each */
    ck_assert_uint_eq(cluster_writer_rested_ns(cluster, (leader + 1) % 3), 0); /* done before one was due */
    ck_assert_uint_eq(long_ns % rest_max_ns, 0);
    ck_assert_uint_ge(long_ns / rest_max_ns, 10);
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_gt(status_of(cluster, i).storage.snapshot, 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_node_that_ends_gives_its_snapshot_up_and_takes_one_when_it_runs_again)
{
    struct cluster *cluster = start(3, 0x62);
    unsigned leader = leader_of(cluster), ends = (leader + 1) % 3;
    cluster_writer_works(cluster, ends, CLUSTER_MS, true);
    propose_many(cluster, leader, 300, 4);
    check_level(cluster);
    ck_assert_uint_gt(status_of(cluster, leader).storage.snapshot, 0);
    ck_assert_uint_eq(status_of(cluster, ends).storage.snapshot, 0);
    ck_assert_uint_eq(cluster_writer_rested_ns(cluster, ends) % CLUSTER_MS, 0);
    cluster_crash(cluster, ends);
    cluster_writer_works(cluster, ends, 0, false);
    ck_assert_msg(cluster_start(cluster, ends), "%s", cluster_why(cluster));
    propose_many(cluster, leader, 300, 4);
    check_level(cluster);
    ck_assert_uint_gt(status_of(cluster, ends).storage.snapshot, 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(an_install_goes_on_where_it_was_after_the_follower_crashed) /* resume; T40 */
{
    uint64_t resumed = 0;
    for (uint64_t round = 0; round < unit_rounds(4); round++) {
        struct cluster *cluster = start(3, 0x53 + round);
        unsigned leader = leader_of(cluster), away = (leader + 1) % 3;
        cluster_crash(cluster, away);
        propose_many(cluster, leader, 2000, 4); /* some 8,000 bytes of state: 30 pieces */
        ck_assert(cluster_start(cluster, away));
        unsigned lives = 0;
        while (!run_until_installed(cluster, away,
                                    5 * CLUSTER_MS + random_below(cluster_random(cluster), 20 * CLUSTER_MS)) &&
               lives < 40) {
            struct node_status status = status_of(cluster, leader);
            for (uint32_t i = 0; i < status.raft.peer_count; i++)
                if (status.raft.peers[i].state == RAFT_PROGRESS_SNAPSHOT && status.raft.peers[i].install_offset > 0)
                    resumed++;
            if (cluster_runs(cluster, away)) cluster_crash(cluster, away);
            lives++;
            ck_assert_msg(cluster_start(cluster, away), "%s", cluster_why(cluster));
        }
        check_level(cluster);
        cluster_close(cluster);
    }
    printf("crashes with part of a snapshot held: %" PRIu64 "\n", resumed);
    ck_assert_uint_gt(resumed, 0);
}
END_TEST

START_TEST(another_leader_in_the_middle_takes_the_install_over) /* T39, T63 */
{
    for (uint64_t round = 0; round < unit_rounds(4); round++) {
        struct cluster *cluster = start(5, 0x530 + round);
        unsigned leader = leader_of(cluster), away = (leader + 1) % 5;
        cluster_crash(cluster, away);
        propose_many(cluster, leader, 1500, 4);
        ck_assert(cluster_start(cluster, away));
        cluster_run(cluster, random_below(cluster_random(cluster), 400 * CLUSTER_MS));
        if (cluster_runs(cluster, leader)) cluster_crash(cluster, leader);
        unsigned next = leader_of(cluster);
        propose_many(cluster, next, 200, 4);
        ck_assert(cluster_start(cluster, leader));
        check_level(cluster);
        ck_assert(cluster_runs(cluster, away));
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(installs_survive_loss_cuts_and_crashes_on_every_side)
{
    uint64_t installs = 0;
    for (uint64_t round = 0; round < unit_rounds(6); round++) {
        struct cluster *cluster = start(3, 0x5300 + round);
        struct random *dice = cluster_random(cluster);
        sim_net_faults_set(cluster_net(cluster), &(struct sim_net_faults){.delay_ns_min = 20000,
                                                                          .delay_ns_max = 3 * CLUSTER_MS,
                                                                          .loss_per_1000 = 30,
                                                                          .duplicate_per_1000 = 30});
        for (unsigned act = 0; act < 60; act++) {
            int leader = cluster_run_until_writable(cluster, 100 * CLUSTER_MS);
            if (leader >= 0) propose_many(cluster, (unsigned)leader, (unsigned)random_below(dice, 120), 4);
            unsigned i = (unsigned)random_below(dice, 3);
            uint64_t face = random_below(dice, 10);
            if (face < 4 && cluster_runs(cluster, i)) {
                installs += status_of(cluster, i).storage.installs;
                cluster_crash(cluster, i);
            } else if (face < 8 && !cluster_runs(cluster, i)) {
                ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
            } else {
                sim_net_cut(cluster_net(cluster), i, (i + 1) % 3, random_chance(dice, 1, 2));
            }
            cluster_run(cluster, random_below(dice, 60 * CLUSTER_MS));
        }
        sim_net_faults_set(cluster_net(cluster),
                           &(struct sim_net_faults){.delay_ns_min = 20000, .delay_ns_max = 200000});
        for (unsigned i = 0; i < 3; i++) {
            sim_net_cut(cluster_net(cluster), i, (i + 1) % 3, false);
            if (!cluster_runs(cluster, i)) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
        }
        check_level(cluster);
        for (unsigned i = 0; i < 3; i++) installs += status_of(cluster, i).storage.installs;
        cluster_close(cluster);
    }
    printf("installs: %" PRIu64 "\n", installs);
    ck_assert_uint_gt(installs, 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, logs_are_compacted_behind_snapshots_and_restarts_start_from_them);
    tcase_add_test(tests, a_follower_behind_a_dropped_log_comes_back_by_an_install_while_commands_go_on);
    tcase_add_test(tests, a_snapshots_writer_rests_as_long_as_it_works);
    tcase_add_test(tests, a_node_that_ends_gives_its_snapshot_up_and_takes_one_when_it_runs_again);
    tcase_add_test(tests, an_install_goes_on_where_it_was_after_the_follower_crashed);
    tcase_add_test(tests, another_leader_in_the_middle_takes_the_install_over);
    tcase_add_test(tests, installs_survive_loss_cuts_and_crashes_on_every_side);
}

int main(void)
{
    return unit_main("node snapshot", add);
}
