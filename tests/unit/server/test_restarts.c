/* SPDX-License-Identifier: Apache-2.0 */
/* test_restarts.c - level memory on whole nodes, over a simulated network, disk and clock: a node that was started anew is a
 * new member, and takes the old one's place by itself. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/server/nodes.h"

static struct cluster *start_with(struct cluster_options options)
{
    options.seed = unit_seed(options.seed);
    options.level = DURABILITY_LEVEL_MEMORY;
    options.payload_bytes = 100;
    struct cluster *cluster = nodes_start(&options);
    ck_assert_int_ge(cluster_run_until_writable(cluster, 5 * SECOND), 0);
    return cluster;
}

static struct cluster *start(unsigned nodes, uint64_t seed)
{
    return start_with((struct cluster_options){.nodes = nodes, .seed = seed});
}

static raft_member id_of(struct cluster *cluster, unsigned i)
{
    return status_of(cluster, i).identity.member_id;
}

static void propose_some(struct cluster *cluster, unsigned count)
{
    for (unsigned k = 0; k < count; k++) {
        cluster_propose(cluster, leader_of(cluster), false);
        cluster_run(cluster, CLUSTER_MS);
    }
}

/* Its process ends, and another one begins. */
static void restart(struct cluster *cluster, unsigned i)
{
    cluster_crash(cluster, i);
    ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
}

/* What the leader's committed configuration says of the process that node i is now; 0: nothing. */
static uint8_t role_of(struct cluster *cluster, unsigned i)
{
    int leader = cluster_run_until_writable(cluster, 0);
    if (leader < 0) return 0;
    raft_member id = id_of(cluster, i);
    struct node_status status = status_of(cluster, (unsigned)leader);
    if (status.joint || status.raft.commit < status.configuration_index) return 0;
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
        if (status.members[slot].id == id) return status.members[slot].role;
    return 0;
}

static bool wait_role(struct cluster *cluster, unsigned i, uint8_t role)
{
    for (unsigned k = 0; k < 6000 && role_of(cluster, i) != role; k++) cluster_run(cluster, 5 * CLUSTER_MS);
    return role_of(cluster, i) == role;
}

static unsigned members_of(struct cluster *cluster)
{
    struct node_status status = status_of(cluster, leader_of(cluster));
    unsigned count = 0;
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) count += status.members[slot].role != 0;
    return count;
}

/* All run as voters, and nobody else is a member. */
static void check_whole(struct cluster *cluster, unsigned nodes)
{
    for (unsigned i = 0; i < nodes; i++) ck_assert(wait_role(cluster, i, CONFIGURATION_VOTER));
    ck_assert_uint_eq(members_of(cluster), nodes);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
}

START_TEST(restarted_node_takes_its_own_place_as_a_new_member)
{
    struct cluster *cluster = start(3, 1);
    propose_some(cluster, 100);
    unsigned victim = (leader_of(cluster) + 1) % 3;
    raft_member before = id_of(cluster, victim);
    restart(cluster, victim);
    ck_assert_uint_ne(id_of(cluster, victim), before);
    ck_assert(!status_of(cluster, victim).born); /* it holds nothing: no vote, no block */
    check_whole(cluster, 3);
    ck_assert_uint_eq(cluster_applied_count(cluster, victim), 100);
    cluster_close(cluster);
}
END_TEST

START_TEST(restarted_leader_takes_its_own_place_as_a_new_member)
{
    struct cluster *cluster = start(3, 2);
    propose_some(cluster, 100);
    restart(cluster, leader_of(cluster));
    check_whole(cluster, 3);
    propose_some(cluster, 20);
    check_whole(cluster, 3);
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(cluster_applied_count(cluster, i), 120);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_minority_that_restarts_at_once_is_replaced_one_by_one)
{
    struct cluster *cluster = start(5, 3);
    propose_some(cluster, 50);
    unsigned leader = leader_of(cluster);
    restart(cluster, leader);
    restart(cluster, (leader + 2) % 5);
    check_whole(cluster, 5);
    for (unsigned i = 0; i < 5; i++) ck_assert_uint_eq(cluster_applied_count(cluster, i), 50);
    cluster_close(cluster);
}
END_TEST

/* At any moment of its own replacement it may be started anew again, and the leader may change. */
START_TEST(any_restarts_lose_nothing_while_a_majority_lives)
{
    uint64_t seed = unit_seed(4);
    for (uint64_t round = 0; round < unit_rounds(8); round++) {
        struct cluster_options options = {.nodes = round % 2 == 0 ? 3 : 5, .seed = seed + round};
        if (round % 3 == 0) options.snapshot_after_bytes = 20000;
        struct cluster *cluster = start_with(options);
        struct random *random = cluster_random(cluster);
        bool refused = false; /* the last transfer: no answer comes */
        for (unsigned k = 0; k < 12; k++) {
            unsigned victim = (unsigned)random_below(random, options.nodes);
            for (uint64_t again = random_between(random, 1, 3); again > 0; again--) {
                restart(cluster, victim);
                for (uint64_t n = random_below(random, 40); n > 0; n--) {
                    cluster_propose(cluster, (victim + 1) % options.nodes, true);
                    cluster_run(cluster, random_below(random, 20 * CLUSTER_MS));
                }
                int leader = cluster_run_until_writable(cluster, 0);
                bool runs = !refused && cluster_transfer_result(cluster) == 1;
                if (leader >= 0 && random_chance(random, 1, 3) && !runs)
                    refused = cluster_transfer(cluster, (unsigned)leader, "") != 0;
            }
            ck_assert(wait_role(cluster, victim, CONFIGURATION_VOTER)); /* a majority lives, always */
        }
        propose_some(cluster, 10);
        check_whole(cluster, options.nodes);
        for (uint32_t n = 0; n < cluster_proposal_count(cluster); n++) {
            const struct cluster_proposal *p = cluster_proposal(cluster, n);
            if (p->state == PROPOSAL_APPLIED) ck_assert_uint_eq(cluster_applied(cluster, 0, p->position), p->number);
        }
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(restarted_learner_is_a_learner_again)
{
    struct cluster *cluster = start_with((struct cluster_options){.nodes = 4, .listed = 3, .seed = 5});
    struct node_change_request request = {.kind = NODE_CHANGE_ADD,
                                          .name = "n4",
                                          .client = "n4:1",
                                          .peer = "3:2",
                                          .learner = true,
                                          .priority = 7,
                                          .timeout_ns = 60 * SECOND};
    int number = cluster_change(cluster, leader_of(cluster), &request);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), 0);
    for (unsigned k = 0; k < 3; k++) {
        propose_some(cluster, 10);
        restart(cluster, 3);
        cluster_run(cluster, 200 * CLUSTER_MS * k * k);
    }
    ck_assert(wait_role(cluster, 3, CONFIGURATION_LEARNER));
    for (unsigned k = 0; k < 1000 && members_of(cluster) != 4; k++) cluster_run(cluster, 10 * CLUSTER_MS);
    ck_assert_uint_eq(members_of(cluster), 4);
    ck_assert_uint_eq(role_of(cluster, 3), CONFIGURATION_LEARNER);
    struct node_status status = status_of(cluster, leader_of(cluster));
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
        if (status.members[slot].role == CONFIGURATION_LEARNER) ck_assert_uint_eq(status.members[slot].priority, 7);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    cluster_close(cluster);
}
END_TEST

START_TEST(who_asks_for_the_replacement_that_runs_hears_its_end)
{
    struct cluster *cluster = start(3, 6);
    propose_some(cluster, 50);
    unsigned victim = (leader_of(cluster) + 1) % 3;
    restart(cluster, victim);
    while (status_of(cluster, leader_of(cluster)).change[0] == 0) cluster_run(cluster, CLUSTER_MS);
    int number = cluster_change_kind(cluster, leader_of(cluster), NODE_CHANGE_REPLACE, victim, 20 * SECOND);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), 0);
    ck_assert_uint_eq(role_of(cluster, victim), CONFIGURATION_VOTER);
    check_whole(cluster, 3);
    cluster_close(cluster);
}
END_TEST

START_TEST(without_a_majority_nothing_goes_on_and_everybody_says_what_to_do)
{
    struct cluster *cluster = start(3, 7);
    propose_some(cluster, 50);
    unsigned lives = leader_of(cluster);
    restart(cluster, (lives + 1) % 3);
    restart(cluster, (lives + 2) % 3);
    cluster_run(cluster, 5 * SECOND);
    ck_assert_int_eq(cluster_run_until_writable(cluster, SECOND), -1);
    struct node_status status = status_of(cluster, lives);
    ck_assert(status.born);
    ck_assert_ptr_nonnull(strstr(status.warnings[0], "2 of the voters were started anew"));
    ck_assert_ptr_nonnull(strstr(status.warnings[0], "lockstep recover --online"));
    ck_assert_uint_eq(cluster_applied_count(cluster, lives), 50);
    for (unsigned i = 1; i < 3; i++) {
        status = status_of(cluster, (lives + i) % 3);
        ck_assert(!status.born); /* and no cluster of their own, though a majority of the listed is empty */
        ck_assert_ptr_nonnull(strstr(status.not_ready, "lockstep recover --online"));
    }
    cluster_close(cluster);
}
END_TEST

START_TEST(a_node_may_go_on_alone_only_while_it_hears_neither_a_leader_nor_a_majority)
{
    struct cluster *cluster = start(3, 10);
    char text[NODE_WHY_BYTES_MAX];
    unsigned leader = leader_of(cluster), other = (leader + 1) % 3, third = (leader + 2) % 3;
    cluster_run(cluster, SECOND);
    ck_assert_int_eq(node_recover_check(cluster_node(cluster, leader), text, sizeof text), LOCKSTEP_EINVAL);
    ck_assert_int_eq(node_recover_check(cluster_node(cluster, other), text, sizeof text), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(text, "has a leader"));
    cluster_crash(cluster, leader); /* the two that are left elect one, but have not yet */
    for (unsigned k = 0; k < 10000 && status_of(cluster, other).leader_slot < RAFT_MEMBERS_MAX; k++)
        cluster_run(cluster, CLUSTER_MS / 100);
    ck_assert_int_eq(node_recover_check(cluster_node(cluster, other), text, sizeof text), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(text, "a majority of the voters"));
    restart(cluster, third);
    ck_assert(cluster_start(cluster, leader));
    cluster_run(cluster, 5 * SECOND); /* two that are connected, and are others */
    ck_assert_int_eq(node_recover_check(cluster_node(cluster, other), text, sizeof text), 0);
    ck_assert_int_eq(node_recover_check(cluster_node(cluster, third), text, sizeof text), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(text, "no member that runs"));
    cluster_close(cluster);
}
END_TEST

START_TEST(when_all_were_restarted_an_empty_cluster_is_born)
{
    struct cluster *cluster = start(3, 8);
    uint64_t before = status_of(cluster, 0).identity.birth.cluster_id;
    for (unsigned i = 0; i < 3; i++) cluster_crash(cluster, i);
    for (unsigned i = 0; i < 3; i++) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
    propose_some(cluster, 10);
    check_whole(cluster, 3);
    ck_assert_uint_ne(status_of(cluster, 0).identity.birth.cluster_id, before);
    ck_assert_uint_eq(cluster_applied_count(cluster, 1), 10);
    cluster_close(cluster);
}
END_TEST

START_TEST(at_other_levels_nobody_is_replaced_unasked)
{
    struct cluster_options options = {.nodes = 3, .seed = unit_seed(9)};
    struct cluster *cluster = cluster_open(&options);
    for (unsigned i = 0; i < 3; i++) ck_assert(cluster_start(cluster, i));
    unsigned victim = (leader_of(cluster) + 1) % 3;
    cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    cluster_run(cluster, 5 * SECOND);
    ck_assert_uint_eq(status_of(cluster, leader_of(cluster)).configuration_index, 0);
    ck_assert_ptr_nonnull(strstr(status_of(cluster, victim).not_ready, "lockstep member replace"));
    cluster_close(cluster);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 240);
    tcase_add_test(tests, restarted_node_takes_its_own_place_as_a_new_member);
    tcase_add_test(tests, restarted_leader_takes_its_own_place_as_a_new_member);
    tcase_add_test(tests, a_minority_that_restarts_at_once_is_replaced_one_by_one);
    tcase_add_test(tests, any_restarts_lose_nothing_while_a_majority_lives);
    tcase_add_test(tests, restarted_learner_is_a_learner_again);
    tcase_add_test(tests, who_asks_for_the_replacement_that_runs_hears_its_end);
    tcase_add_test(tests, without_a_majority_nothing_goes_on_and_everybody_says_what_to_do);
    tcase_add_test(tests, a_node_may_go_on_alone_only_while_it_hears_neither_a_leader_nor_a_majority);
    tcase_add_test(tests, when_all_were_restarted_an_empty_cluster_is_born);
    tcase_add_test(tests, at_other_levels_nobody_is_replaced_unasked);
}

int main(void)
{
    return unit_main("restarts", add);
}
