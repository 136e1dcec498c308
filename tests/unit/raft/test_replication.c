/* SPDX-License-Identifier: Apache-2.0 */
/* test_replication.c - a leader's blocks reach the others and commit. */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

START_TEST(three_cores_elect_a_leader_and_commit_what_it_proposes)
{
    struct cluster *c = cluster_open(3, 0, 1);
    for (raft_member id = 1; id <= 3; id++) cluster_start(c, id);
    cluster_elect(c, 2);
    for (uint32_t i = 0; i < 100; i++) ck_assert_int_eq(cluster_propose(cluster_core(c, 2), 100, true), 0);
    cluster_take(cluster_core(c, 2));
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 2).commit, 101);
    cluster_pass(c, 100000000, true);
    for (raft_member id = 1; id <= 3; id++) {
        ck_assert_uint_eq(cluster_status(c, id).commit, 101);
        ck_assert_uint_eq(cluster_status(c, id).durable_index, 101);
    }
    cluster_close(c);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, three_cores_elect_a_leader_and_commit_what_it_proposes);
}

int main(void)
{
    return unit_main("raft replication", add);
}
