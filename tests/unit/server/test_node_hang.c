/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_hang.c - whole nodes over simulated doors, with a machine that hangs: it stands in a thread of its own. */
#include "tests/unit/server/nodes.h"

static unsigned count_applied(const struct cluster *cluster)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < cluster_proposal_count(cluster); i++)
        if (cluster_proposal(cluster, i)->state == PROPOSAL_APPLIED) count++;
    return count;
}

static raft_index commit_of(struct cluster *cluster, unsigned node)
{
    struct node_status status;
    node_status_read(cluster_node(cluster, node), &status);
    return status.raft.commit;
}

START_TEST(a_machine_that_hangs_for_ever_holds_up_nobody_and_goes_on_where_it_stood) /* M4 */
{
    for (unsigned leads = 0; leads < 2; leads++) { /* on a follower, on the leader */
        struct cluster *cluster = cluster_open(&(struct cluster_options){
            .nodes = 3, .seed = unit_seed(0x4a) + leads, .ring_bytes = 1 << 19, .payload_bytes = 4000});
        for (unsigned i = 0; i < 3; i++) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
        unsigned leader = leader_of(cluster), victim = leads ? leader : (leader + 1) % 3;
        cluster_machine_hang(cluster, victim, true);
        uint64_t applied = 0;
        for (unsigned k = 0; k < 1500; k++) { /* 12 laps of the ring */
            cluster_propose(cluster, leader, false);
            if (k % 8 == 7) cluster_run(cluster, 2 * CLUSTER_MS);
            if (k == 100) applied = cluster_applied_count(cluster, victim);
        }
        cluster_run(cluster, SECOND);
        ck_assert_int_eq(cluster_run_until_writable(cluster, 0), (int)leader);
        ck_assert_uint_eq(cluster_applied_count(cluster, victim), applied); /* it does hang */
        ck_assert_uint_eq(cluster_applied_count(cluster, (victim + 1) % 3), 1500);
        ck_assert_uint_eq(commit_of(cluster, victim), commit_of(cluster, (victim + 1) % 3));
        cluster_machine_hang(cluster, victim, false);
        ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
        ck_assert_uint_eq(count_applied(cluster), 1500);
        cluster_close(cluster);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_machine_that_hangs_for_ever_holds_up_nobody_and_goes_on_where_it_stood);
}

int main(void)
{
    return unit_main("node hang", add);
}
