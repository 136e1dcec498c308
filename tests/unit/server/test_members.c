/* SPDX-License-Identifier: Apache-2.0 */
/* test_members.c - members come and go on whole nodes, over a simulated network, disk and clock: from a seed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/server/nodes.h"

enum { COMPACT_AFTER_BYTES = 20000 };

/* `listed` nodes are born together and lead; the others run and wait. */
static struct cluster *start_compacting(unsigned nodes, unsigned listed, uint64_t seed, uint64_t snapshot_after_bytes)
{
    struct cluster_options options = {.nodes = nodes,
                                      .listed = listed,
                                      .seed = unit_seed(seed),
                                      .payload_bytes = 100,
                                      .snapshot_after_bytes = snapshot_after_bytes};
    struct cluster *cluster = nodes_start(&options);
    ck_assert_int_ge(cluster_run_until_writable(cluster, 5 * SECOND), 0);
    return cluster;
}

static struct cluster *start(unsigned nodes, unsigned listed, uint64_t seed)
{
    return start_compacting(nodes, listed, seed, 0); /* the whole log is kept */
}

static void propose_some(struct cluster *cluster, unsigned count)
{
    for (unsigned k = 0; k < count; k++) {
        cluster_propose(cluster, leader_of(cluster), false);
        cluster_run(cluster, CLUSTER_MS);
    }
}

/* Ask whoever leads until it is done, as a client does that retries. */
static int change(struct cluster *cluster, enum node_change_kind kind, unsigned member)
{
    int rc = LOCKSTEP_EUNAVAILABLE;
    for (unsigned attempt = 0; attempt < 50; attempt++) {
        rc = cluster_change_kind(cluster, leader_of(cluster), kind, member, 20 * SECOND);
        rc = cluster_change_wait(cluster, rc, 30 * SECOND);
        if (rc != LOCKSTEP_EUNAVAILABLE && rc != LOCKSTEP_ENOTLEADER && rc != LOCKSTEP_EUNKNOWN &&
            rc != LOCKSTEP_EUNREACHABLE)
            break;
        cluster_run(cluster, 50 * CLUSTER_MS);
    }
    return kind == NODE_CHANGE_REMOVE && rc == LOCKSTEP_ENOTFOUND ? 0 : rc; /* gone, by what was asked before */
}

/* What the leader's configuration says of node i; 0: it does not know it. */
static uint8_t role_of(struct cluster *cluster, unsigned i)
{
    unsigned leader = leader_of(cluster);
    const struct node_options *options = node_options_of(cluster_node(cluster, leader));
    struct node_status status = status_of(cluster, leader);
    char name[16];
    snprintf(name, sizeof name, "n%u", i + 1);
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
        if (strcmp(options->members[slot].name, name) == 0 && status.members[slot].role != 0)
            return status.members[slot].role;
    return 0;
}

static const char *why_of(struct cluster *cluster, int number)
{
    return cluster_change_result(cluster, number)->result.why;
}

START_TEST(new_node_waits_and_tries_no_birth) /* I2 */
{
    struct cluster *cluster = start(4, 3, 1);
    cluster_run(cluster, 2 * SECOND);
    struct node_status status = status_of(cluster, 3);
    ck_assert(!status.born);
    ck_assert_ptr_nonnull(strstr(status.not_ready, "lockstep member add n4 --client n4:1 --peer 3:2"));
    ck_assert_str_eq(status.warnings[0], status.not_ready); /* `status` shows it */
    ck_assert_uint_eq(role_of(cluster, 3), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(added_node_learns_catches_up_and_votes) /* T36: learner first */
{
    struct cluster *cluster = start(4, 3, 2);
    propose_some(cluster, 200);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    ck_assert_uint_eq(role_of(cluster, 3), CONFIGURATION_VOTER);
    propose_some(cluster, 50);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, 3), cluster_applied_count(cluster, 0));
    /* It counts: with two of the old ones gone, two of four are no majority; with one gone, three are. */
    unsigned leader = leader_of(cluster), gone = (leader + 1) % 3;
    cluster_crash(cluster, gone);
    propose_some(cluster, 10);
    cluster_crash(cluster, leader);
    ck_assert_int_eq(cluster_run_until_writable(cluster, 3 * SECOND), -1);
    ck_assert(cluster_start(cluster, leader));
    propose_some(cluster, 10);
    cluster_close(cluster);
}
END_TEST

START_TEST(learner_holds_the_log_and_counts_for_nothing)
{
    struct cluster *cluster = start(4, 3, 3);
    struct node_change_request request = {.kind = NODE_CHANGE_ADD,
                                          .name = "n4",
                                          .client = "n4:1",
                                          .peer = "3:2",
                                          .learner = true,
                                          .timeout_ns = 60 * SECOND};
    int number = cluster_change(cluster, leader_of(cluster), &request);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), 0);
    ck_assert_uint_eq(role_of(cluster, 3), CONFIGURATION_LEARNER);
    propose_some(cluster, 20);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    unsigned leader = leader_of(cluster);
    cluster_crash(cluster, (leader + 1) % 3);
    cluster_crash(cluster, (leader + 2) % 3);
    ck_assert_int_eq(cluster_run_until_writable(cluster, CLUSTER_MS), (int)leader);
    cluster_run(cluster, 2 * SECOND); /* the leader has no quorum, though two nodes are up */
    ck_assert_int_eq(cluster_run_until_writable(cluster, CLUSTER_MS), -1);
    cluster_crash(cluster, leader);
    cluster_run(cluster, 3 * SECOND);
    ck_assert_uint_eq(status_of(cluster, 3).counters.elections, 0); /* T11: it never asks for votes */
    for (unsigned i = 0; i < 3; i++) ck_assert(cluster_start(cluster, i));
    ck_assert_int_eq(change(cluster, NODE_CHANGE_PROMOTE, 3), 0);
    ck_assert_uint_eq(role_of(cluster, 3), CONFIGURATION_VOTER);
    cluster_close(cluster);
}
END_TEST

START_TEST(asking_for_what_is_so_already_succeeds_and_changes_nothing)
{
    struct cluster *cluster = start(4, 3, 4);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    raft_index index = status_of(cluster, leader_of(cluster)).configuration_index;
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_PROMOTE, 3), 0);
    ck_assert_uint_eq(status_of(cluster, leader_of(cluster)).configuration_index, index);
    cluster_close(cluster);
}
END_TEST

START_TEST(grows_from_three_to_five_and_shrinks_again)
{
    struct cluster *cluster = start(5, 3, 5);
    for (unsigned i = 3; i < 5; i++) {
        propose_some(cluster, 50);
        ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, i), 0);
    }
    propose_some(cluster, 50);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, 4), 150);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(change(cluster, NODE_CHANGE_REMOVE, i), 0);
        propose_some(cluster, 20);
        ck_assert_uint_eq(role_of(cluster, i), 0);
    }
    cluster_run(cluster, 3 * SECOND);
    ck_assert(!cluster_runs(cluster, 0)); /* told, and ended */
    ck_assert(!cluster_runs(cluster, 1));
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    cluster_close(cluster);
}
END_TEST

START_TEST(one_node_becomes_three_and_one_again) /* T28 */
{
    struct cluster *cluster = start(3, 1, 18);
    propose_some(cluster, 20);
    for (unsigned i = 1; i < 3; i++) ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, i), 0);
    propose_some(cluster, 20);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, 2), 40);
    for (unsigned i = 0; i < 2; i++) ck_assert_int_eq(change(cluster, NODE_CHANGE_REMOVE, i), 0);
    propose_some(cluster, 20);
    ck_assert_uint_eq(leader_of(cluster), 2);
    int number = cluster_change_kind(cluster, 2, NODE_CHANGE_REMOVE, 2, 5 * SECOND);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 5 * SECOND), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why_of(cluster, number), "at least one voter"));
    cluster_close(cluster);
}
END_TEST

START_TEST(removed_leader_hands_over_when_that_is_committed) /* T35 */
{
    struct cluster *cluster = start(3, 3, 6);
    unsigned leader = leader_of(cluster);
    propose_some(cluster, 20);
    int number = cluster_change_kind(cluster, leader, NODE_CHANGE_REMOVE, leader, 10 * SECOND);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 10 * SECOND), 0);
    ck_assert_uint_ne(leader_of(cluster), leader);
    propose_some(cluster, 20);
    cluster_run(cluster, 3 * SECOND);
    ck_assert(!cluster_runs(cluster, leader));
    ck_assert_uint_eq(role_of(cluster, leader), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(removed_node_that_comes_back_disturbs_nobody_and_is_told) /* T12 */
{
    struct cluster *cluster = start(4, 4, 7);
    unsigned leader = leader_of(cluster), victim = (leader + 1) % 4;
    cluster_crash(cluster, victim);
    cluster_run(cluster, SECOND);
    struct node_change_request request = {.kind = NODE_CHANGE_REMOVE, .force = true, .timeout_ns = 60 * SECOND};
    snprintf(request.name, sizeof request.name, "n%u", victim + 1);
    int number = cluster_change(cluster, leader_of(cluster), &request);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 10 * SECOND), 0);
    propose_some(cluster, 10);
    leader = leader_of(cluster);
    raft_term term = status_of(cluster, leader).raft.term;
    ck_assert(cluster_start(cluster, victim));
    cluster_run(cluster, 5 * SECOND);
    ck_assert(!cluster_runs(cluster, victim));
    ck_assert_ptr_nonnull(strstr(cluster_why(cluster), "was removed"));
    ck_assert_uint_eq(leader_of(cluster), leader);
    ck_assert_uint_eq(status_of(cluster, leader).raft.term, term);
    cluster_close(cluster);
}
END_TEST

START_TEST(removed_and_added_again_it_is_somebody_else) /* T25, T34, R11: ids are never used again */
{
    struct cluster *cluster = start(3, 3, 8);
    unsigned victim = (leader_of(cluster) + 1) % 3;
    raft_member before = status_of(cluster, victim).identity.member_id;
    ck_assert_int_eq(change(cluster, NODE_CHANGE_REMOVE, victim), 0);
    cluster_run(cluster, 3 * SECOND);
    ck_assert(!cluster_runs(cluster, victim));
    ck_assert(cluster_start(cluster, victim)); /* with its old directory: it is not fresh */
    int number = cluster_change_kind(cluster, leader_of(cluster), NODE_CHANGE_ADD, victim, 3 * SECOND);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 5 * SECOND), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why_of(cluster, number), "empty"));
    cluster_run(cluster, 3 * SECOND);
    if (cluster_runs(cluster, victim)) cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    propose_some(cluster, 10);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, victim), 0);
    propose_some(cluster, 10);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_uint_ne(status_of(cluster, victim).identity.member_id, before);
    ck_assert_uint_eq(role_of(cluster, victim), CONFIGURATION_VOTER);
    cluster_close(cluster);
}
END_TEST

START_TEST(wiped_node_is_replaced_under_its_name) /* I2, T52 */
{
    struct cluster *cluster = start(3, 3, 9);
    unsigned victim = (leader_of(cluster) + 1) % 3;
    propose_some(cluster, 100);
    cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    cluster_run(cluster, SECOND);
    ck_assert(!status_of(cluster, victim).born);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_REPLACE, victim), 0);
    propose_some(cluster, 20);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, victim), 120);
    struct node_status status = status_of(cluster, leader_of(cluster));
    unsigned voters = 0;
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) voters += status.members[slot].role == CONFIGURATION_VOTER;
    ck_assert_uint_eq(voters, 3);
    cluster_close(cluster);
}
END_TEST

START_TEST(node_that_runs_with_the_directory_that_is_to_go_is_not_replaced)
{
    struct cluster *cluster = start(3, 3, 31);
    unsigned leader = leader_of(cluster), still = (leader + 1) % 3;
    uint64_t id = status_of(cluster, still).identity.member_id;
    struct node_change_request replace = {.kind = NODE_CHANGE_REPLACE, .timeout_ns = 20 * SECOND};
    snprintf(replace.name, sizeof replace.name, "n%u", still + 1);
    snprintf(replace.old_name, sizeof replace.old_name, "%016" PRIx64, id);
    int number = cluster_change(cluster, leader, &replace);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), LOCKSTEP_EINVAL);
    ck_assert_msg(strstr(why_of(cluster, number), "the directory that is to go") != NULL, "%s",
                  why_of(cluster, number));
    ck_assert_uint_eq(role_of(cluster, still), CONFIGURATION_VOTER);
    cluster_crash(cluster, still);
    cluster_wipe(cluster, still);
    ck_assert(cluster_start(cluster, still));
    for (int again = 0; again < 2; again++) { /* it was done, and its first answer lost */
        number = cluster_change(cluster, leader, &replace);
        ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), 0);
    }
    ck_assert_uint_ne(status_of(cluster, still).identity.member_id, id);
    ck_assert_uint_eq(role_of(cluster, still), CONFIGURATION_VOTER);
    cluster_close(cluster);
}
END_TEST

/* The second half of the change never came to it, and the new node's log has it: the two need each other. */
START_TEST(replacement_is_answered_by_who_knows_the_joint_configuration_only) /* found by tests/sim: seed 0x312a3 */
{
    struct cluster *cluster = start(3, 3, 30);
    unsigned leader = leader_of(cluster), victim = (leader + 1) % 3, other = (leader + 2) % 3;
    cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    cluster_run(cluster, SECOND);
    int number = cluster_change_kind(cluster, leader, NODE_CHANGE_REPLACE, victim, 20 * SECOND);
    for (struct node_status status = {0}; !status.joint || status.raft.commit < status.configuration_index;) {
        cluster_run(cluster, CLUSTER_MS / 1000);
        status = status_of(cluster, leader);
        ck_assert(!cluster_change_result(cluster, number)->done);
    }
    sim_net_cut(cluster_net(cluster), leader, other, true);
    sim_net_cut(cluster_net(cluster), victim, other, true);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), 0);
    ck_assert(status_of(cluster, other).joint);
    cluster_crash(cluster, leader);
    sim_net_cut(cluster_net(cluster), victim, other, false);
    ck_assert_int_eq(cluster_run_until_writable(cluster, 10 * SECOND), (int)victim);
    propose_some(cluster, 10);
    cluster_close(cluster);
}
END_TEST

START_TEST(silent_voter_is_removed_by_force_only)
{
    struct cluster *cluster = start(3, 3, 10);
    unsigned leader = leader_of(cluster), victim = (leader + 1) % 3;
    cluster_crash(cluster, victim);
    cluster_run(cluster, 2 * SECOND);
    int number = cluster_change_kind(cluster, leader, NODE_CHANGE_REMOVE, victim, 5 * SECOND);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 5 * SECOND), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why_of(cluster, number), "is not heard"));
    struct node_change_request request = {.kind = NODE_CHANGE_REMOVE, .force = true, .timeout_ns = 60 * SECOND};
    snprintf(request.name, sizeof request.name, "n%u", victim + 1);
    number = cluster_change(cluster, leader, &request);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 5 * SECOND), 0);
    propose_some(cluster, 5);
    cluster_close(cluster);
}
END_TEST

START_TEST(change_that_would_lose_the_quorum_is_refused_also_by_force) /* T36 */
{
    struct cluster *cluster = start(3, 3, 11);
    unsigned leader = leader_of(cluster), dead = (leader + 1) % 3, alive = (leader + 2) % 3;
    cluster_crash(cluster, dead);
    cluster_run(cluster, 2 * SECOND);
    for (int force = 0; force < 2; force++) {
        struct node_change_request request = {
            .kind = NODE_CHANGE_REMOVE, .force = force == 1, .timeout_ns = 60 * SECOND};
        snprintf(request.name, sizeof request.name, "n%u", alive + 1);
        int number = cluster_change(cluster, leader_of(cluster), &request);
        ck_assert_int_eq(cluster_change_wait(cluster, number, 5 * SECOND), LOCKSTEP_EINVAL);
        ck_assert_ptr_nonnull(strstr(why_of(cluster, number), "quorum would be lost"));
    }
    propose_some(cluster, 5);
    cluster_close(cluster);
}
END_TEST

START_TEST(what_cannot_be_is_refused_with_the_reason)
{
    struct cluster *cluster = start(3, 3, 12);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    int number = cluster_change_kind(cluster, leader, NODE_CHANGE_REMOVE, 6, SECOND);
    ck_assert_int_eq(cluster_change_wait(cluster, number, SECOND), LOCKSTEP_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(why_of(cluster, number), "no member is called n7"));
    struct node_change_request taken = {
        .kind = NODE_CHANGE_ADD, .name = "n9", .client = "n9:1", .peer = "1:2", .timeout_ns = 60 * SECOND};
    number = cluster_change(cluster, leader, &taken);
    ck_assert_int_eq(cluster_change_wait(cluster, number, SECOND), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why_of(cluster, number), "the member n2 has this name or address already"));
    number = cluster_change_kind(cluster, leader, NODE_CHANGE_REPLACE, leader, SECOND);
    ck_assert_int_eq(cluster_change_wait(cluster, number, SECOND), LOCKSTEP_EINVAL);
    ck_assert_int_eq(cluster_change_kind(cluster, follower, NODE_CHANGE_REMOVE, 0, SECOND), LOCKSTEP_ENOTLEADER);
    cluster_close(cluster);
}
END_TEST

START_TEST(nobody_there_is_told_and_nothing_appended)
{
    struct cluster *cluster = start(4, 3, 13);
    cluster_crash(cluster, 3);
    raft_index index = status_of(cluster, leader_of(cluster)).configuration_index;
    int number = cluster_change_kind(cluster, leader_of(cluster), NODE_CHANGE_ADD, 3, 20 * SECOND);
    cluster_run(cluster, SECOND);
    ck_assert_ptr_nonnull(
        strstr(status_of(cluster, leader_of(cluster)).change, "dialling n4 at 3:2: connection refused"));
    ck_assert_int_eq(cluster_change_wait(cluster, number, 10 * SECOND), LOCKSTEP_EUNAVAILABLE);
    ck_assert_uint_eq(status_of(cluster, leader_of(cluster)).configuration_index, index);
    ck_assert_uint_eq(role_of(cluster, 3), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(two_changes_at_once_are_one_after_the_other) /* T30 */
{
    struct cluster *cluster = start(5, 3, 14);
    unsigned leader = leader_of(cluster);
    int first = cluster_change_kind(cluster, leader, NODE_CHANGE_ADD, 3, 20 * SECOND);
    ck_assert_int_eq(cluster_change_kind(cluster, leader, NODE_CHANGE_ADD, 4, 20 * SECOND), LOCKSTEP_EUNAVAILABLE);
    cluster_run(cluster, 2 * CLUSTER_MS);
    ck_assert_int_eq(cluster_change_kind(cluster, leader, NODE_CHANGE_REMOVE, 0, 20 * SECOND), LOCKSTEP_EUNAVAILABLE);
    int again = cluster_change_kind(cluster, leader, NODE_CHANGE_ADD, 3, 20 * SECOND); /* the same: it hears the end */
    ck_assert_int_eq(cluster_change_wait(cluster, first, SECOND), LOCKSTEP_EUNAVAILABLE);
    ck_assert_int_eq(cluster_change_wait(cluster, again, 20 * SECOND), 0);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 4), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(change_goes_on_after_its_leader_died_at_any_moment) /* T30, T31, T35, T36, T37 */
{
    for (unsigned round = 0; round < unit_rounds(12); round++) {
        struct cluster *cluster = start(4, 3, 0x200 + round);
        struct random *random = cluster_random(cluster);
        propose_some(cluster, 20);
        unsigned leader = leader_of(cluster);
        unsigned victim = (leader + 1) % 3;
        bool remove = random_chance(random, 1, 3);
        if (remove) ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
        leader = leader_of(cluster);
        if (victim == leader) victim = (leader + 1) % 3;
        (void)cluster_change_kind(cluster, leader, remove ? NODE_CHANGE_REMOVE : NODE_CHANGE_ADD, remove ? victim : 3,
                                  20 * SECOND);
        cluster_run(cluster, random_between(random, 0, 100) * CLUSTER_MS / 10);
        cluster_crash(cluster, leader);
        cluster_run(cluster, random_between(random, 0, 1000) * CLUSTER_MS);
        ck_assert(cluster_start(cluster, leader));
        int rc = change(cluster, remove ? NODE_CHANGE_REMOVE : NODE_CHANGE_ADD, remove ? victim : 3);
        ck_assert_int_eq(rc, 0);
        propose_some(cluster, 20);
        cluster_run(cluster, 2 * SECOND);
        ck_assert_uint_eq(role_of(cluster, remove ? victim : 3), remove ? 0 : CONFIGURATION_VOTER);
        ck_assert(!status_of(cluster, leader_of(cluster)).joint);
        ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(change_in_a_partition_loses_nothing_that_was_acknowledged) /* T37 */
{
    for (unsigned round = 0; round < unit_rounds(6); round++) {
        struct cluster *cluster = start(4, 3, 0x300 + round);
        unsigned leader = leader_of(cluster);
        propose_some(cluster, 20);
        int number = cluster_change_kind(cluster, leader, NODE_CHANGE_ADD, 3, 20 * SECOND);
        cluster_run(cluster, random_between(cluster_random(cluster), 0, 60) * CLUSTER_MS / 10);
        for (unsigned i = 0; i < 3; i++) { /* the leader and the new node on one side, two voters on the other */
            if (i == leader) continue;
            for (int way = 0; way < 2; way++) {
                sim_net_cut(cluster_net(cluster), way ? leader : i, way ? i : leader, true);
                sim_net_cut(cluster_net(cluster), way ? 3 : i, way ? i : 3, true);
            }
        }
        for (unsigned k = 0; k < 20; k++) cluster_propose(cluster, leader, false);
        cluster_run(cluster, 3 * SECOND);
        propose_some(cluster, 20); /* at the other side's leader */
        for (unsigned i = 0; i < 4; i++)
            for (unsigned j = 0; j < 4; j++) sim_net_cut(cluster_net(cluster), i, j, false);
        (void)cluster_change_wait(cluster, number, 5 * SECOND);
        ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
        propose_some(cluster, 10);
        ck_assert(cluster_run_until_level(cluster, 10 * SECOND)); /* every step compared replicas with what was acked */
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(members_and_addresses_come_from_the_log_after_a_restart) /* R6 */
{
    struct cluster *cluster = start(4, 3, 15);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    for (unsigned i = 0; i < 4; i++) cluster_crash(cluster, i);
    for (unsigned i = 0; i < 4; i++) ck_assert(cluster_start(cluster, i)); /* the files of n1 to n3 do not know n4 */
    propose_some(cluster, 10);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, 3), 10);
    struct node_status status = status_of(cluster, 0);
    bool said = false;
    for (uint32_t i = 0; i < status.warning_count; i++)
        said = said || strstr(status.warnings[i], "member n4 is not in the configuration file") != NULL;
    ck_assert(said);
    cluster_close(cluster);
}
END_TEST

START_TEST(
    node_that_slept_through_many_changes_finds_back) /* T35: an old configuration, other members, other leaders */
{
    struct cluster *cluster = start(6, 3, 16);
    propose_some(cluster, 10);
    cluster_crash(cluster, 2);
    cluster_run(cluster, SECOND);
    for (unsigned i = 3; i < 6; i++) ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, i), 0);
    for (unsigned i = 0; i < 2; i++) ck_assert_int_eq(change(cluster, NODE_CHANGE_REMOVE, i), 0);
    cluster_run(cluster, 2 * SECOND);
    ck_assert(!cluster_runs(cluster, 0)); /* nobody whom n3 knows is a member any more */
    ck_assert(!cluster_runs(cluster, 1));
    ck_assert(cluster_start(cluster, 2));
    propose_some(cluster, 10);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, 2), 20);
    cluster_close(cluster);
}
END_TEST

START_TEST(member_that_slept_behind_a_compacted_log_goes_by_the_members_of_the_snapshot) /* T33, R6 */
{
    struct cluster *cluster = start_compacting(4, 3, 26, COMPACT_AFTER_BYTES);
    unsigned gone = (leader_of(cluster) + 1) % 3;
    cluster_crash(cluster, gone);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    propose_some(cluster, 400); /* the configuration with n4 is compacted */
    struct node_status leader = status_of(cluster, leader_of(cluster));
    ck_assert_uint_gt(leader.raft.base_index, leader.configuration_index);
    ck_assert(cluster_start(cluster, gone));
    propose_some(cluster, 10);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    struct node_status status = status_of(cluster, gone);
    ck_assert_uint_gt(status.storage.installs, 0);
    ck_assert_uint_eq(status.configuration_index, leader.configuration_index);
    cluster_close(cluster);
}
END_TEST

START_TEST(newcomer_behind_a_compacted_log_gets_the_members_with_the_snapshot) /* T33, T35, R6 */
{
    struct cluster *cluster = start_compacting(5, 3, 17, COMPACT_AFTER_BYTES);
    propose_some(cluster, 400);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    propose_some(cluster, 400); /* the configuration with n4 is compacted, too */
    ck_assert_uint_gt(status_of(cluster, leader_of(cluster)).raft.base_index,
                      status_of(cluster, leader_of(cluster)).configuration_index);
    unsigned leader = leader_of(cluster), gone = (leader + 1) % 3;
    cluster_crash(cluster, gone);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 4), 0);
    propose_some(cluster, 50);
    struct node_status status = status_of(cluster, 4);
    ck_assert_uint_gt(status.storage.installs, 0);
    ck_assert_uint_eq(status.configuration_index, status_of(cluster, leader_of(cluster)).configuration_index);
    propose_some(cluster, 400);
    for (unsigned i = 0; i < 5; i++)
        if (cluster_runs(cluster, i)) cluster_crash(cluster, i);
    for (unsigned i = 0; i < 5; i++) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
    propose_some(cluster, 10);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    for (unsigned i = 0; i < 5; i++) ck_assert_uint_eq(role_of(cluster, i), CONFIGURATION_VOTER);
    cluster_close(cluster);
}
END_TEST

/* --- a stranger at the network, who says what it likes ------------------------------------------------------------- */

static void stranger_wake(void *context)
{
    (void)context;
}

static struct ring *stranger_ring(void *context)
{
    (void)context;
    return NULL;
}

static int stranger_check(void *context, unsigned *slot, const struct transport_hello *hello,
                          char reason[TRANSPORT_REASON_BYTES_MAX])
{
    (void)context;
    (void)hello;
    (void)reason;
    if (*slot == RAFT_MEMBERS_MAX) *slot = 0;
    return 0;
}

static struct transport *stranger_attach(struct cluster *cluster, unsigned end, const struct transport_hello *hello)
{
    static const struct transport_owner owner = {
        .wake = stranger_wake, .ring = stranger_ring, .hello_check = stranger_check};
    return sim_net_attach(cluster_net(cluster), end, &owner, hello);
}

START_TEST(birth_frames_of_any_bytes_change_nothing) /* I2: outside data is checked, then used */
{
    struct cluster *cluster = start(4, 3, 19);
    struct random *random = cluster_random(cluster);
    struct transport_hello hello;
    propose_some(cluster, 5);
    cluster_crash(cluster,
                  2); /* the stranger speaks in its name, from a new directory, to members and to n4, which waits */
    node_transport_hello(cluster_node(cluster, 3), &hello);
    hello.member_id = 0x5717;
    snprintf(hello.name, sizeof hello.name, "n3");
    struct transport *stranger = stranger_attach(cluster, 2, &hello);
    struct birth_record record = {.cluster_id = 9,
                                  .configuration = {.level = DURABILITY_LEVEL_FSYNC, .member_count = 1}};
    struct configuration_member *member = &record.configuration.members[0];
    *member = (struct configuration_member){
        .id = 0x5717, .role = CONFIGURATION_VOTER, .name = "n3", .client = "c", .peer = "p"};
    snprintf(record.cluster, sizeof record.cluster, "test");
    snprintf(record.machine, sizeof record.machine, "witness");
    for (unsigned k = 0; k < 2000; k++) {
        uint8_t bytes[8 + BIRTH_RECORD_BYTES_MAX + 64] = {(uint8_t)random_between(random, 0, 8)};
        uint32_t count = birth_record_write(&record, bytes + 8);
        memcpy(bytes + 4, &count, sizeof count);
        count += 8 + (uint32_t)random_below(random, 64);
        for (uint64_t flips = random_below(random, 4); flips > 0; flips--)
            bytes[random_below(random, count)] ^= (uint8_t)(1 << random_below(random, 8));
        unsigned cut = random_chance(random, 1, 3) ? (unsigned)random_below(random, count + 1) : count;
        const struct transport_send send = {
            .slot = k % 2 == 0 ? 0 : 3, .type = FRAME_BIRTH, .body = bytes, .body_bytes = cut};
        (void)stranger->ops->send(stranger, &send);
        if (k % 16 == 0) cluster_run(cluster, CLUSTER_MS);
    }
    cluster_run(cluster, SECOND);
    ck_assert(!status_of(cluster, 3).born);
    ck_assert_uint_gt(status_of(cluster, 0).counters.frames_refused, 0);
    sim_net_detach(cluster_net(cluster), 2);
    ck_assert(cluster_start(cluster, 2));
    propose_some(cluster, 5);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(hello_of_nobody_and_of_too_many_takes_no_members_place)
{
    struct cluster *cluster = start(4, 3, 20);
    for (unsigned i = 0; i < 3; i++) {
        struct transport_owner owner = node_transport_owner(cluster_node(cluster, i));
        struct transport_hello hello;
        node_transport_hello(cluster_node(cluster, i), &hello);
        hello.configuration_index = UINT64_MAX; /* whatever is known, it claims to know more */
        for (unsigned k = 0; k < 40; k++) {
            char reason[TRANSPORT_REASON_BYTES_MAX];
            unsigned slot = RAFT_MEMBERS_MAX;
            hello.member_id = 0x9000 + k;
            snprintf(hello.name, sizeof hello.name, "x%u", k);
            if (k == 0) hello.name[0] = 0;
            int rc = owner.hello_check(owner.context, &slot, &hello, reason);
            ck_assert_int_eq(rc, k == 0 ? LOCKSTEP_EINVAL : k <= RAFT_MEMBERS_MAX - 3 ? 0 : LOCKSTEP_EFULL);
        }
    }
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0); /* who is admitted finds a place, at every member */
    propose_some(cluster, 10);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    for (unsigned i = 0; i < 3; i++) {
        struct node_status status = status_of(cluster, i);
        unsigned known = 0;
        for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) known += status.members[slot].role != 0;
        ck_assert_uint_eq(known, 4);
    }
    cluster_close(cluster);
}
END_TEST

START_TEST(uncommitted_configuration_admits_nobody_and_is_undone_also_after_a_restart) /* R6, R11; T32 */
{
    struct cluster *cluster = start(4, 3, 24);
    unsigned lonely = leader_of(cluster);
    propose_some(cluster, 5);
    for (unsigned i = 0; i < 3; i++)
        for (int way = 0; way < 2 && i != lonely; way++)
            sim_net_cut(cluster_net(cluster), way ? lonely : i, way ? i : lonely, true);
    (void)cluster_change_kind(cluster, lonely, NODE_CHANGE_ADD, 3, SECOND);
    for (unsigned k = 0; k < 100 && status_of(cluster, lonely).configuration_index == 0; k++)
        cluster_run(cluster, CLUSTER_MS);
    struct node_status status = status_of(cluster, lonely);
    ck_assert_uint_gt(status.configuration_index, status.raft.commit); /* n4 stands in a log, and in no majority's */
    cluster_run(cluster, SECOND);
    ck_assert(!status_of(cluster, 3).born);
    for (int way = 0; way < 2; way++) sim_net_cut(cluster_net(cluster), way ? lonely : 3, way ? 3 : lonely, true);
    cluster_crash(cluster, lonely);
    ck_assert(cluster_start(cluster, lonely));
    propose_some(cluster, 5); /* at the other side's leader */
    for (unsigned i = 0; i < 4; i++)
        for (unsigned j = 0; j < 4; j++) sim_net_cut(cluster_net(cluster), i, j, false);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    ck_assert_uint_eq(status_of(cluster, lonely).configuration_index, 0);
    for (unsigned k = 0; k < 30 && leader_of(cluster) != lonely; k++) { /* and it can lead by what it went back to */
        unsigned leader = leader_of(cluster);
        cluster_crash(cluster, leader);
        propose_some(cluster, 1);
        ck_assert(cluster_start(cluster, leader));
        ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    }
    status = status_of(cluster, lonely);
    ck_assert_uint_eq(leader_of(cluster), lonely);
    ck_assert_uint_eq(status.raft.peer_count, 2);
    ck_assert(!status_of(cluster, 3).born);
    cluster_close(cluster);
}
END_TEST

START_TEST(older_boot_than_was_seen_is_a_copied_directory) /* I1 */
{
    struct cluster *cluster = start(3, 3, 25);
    cluster_crash(cluster, 2);
    ck_assert(cluster_start(cluster, 2));
    cluster_run(cluster, SECOND);
    struct transport_owner owner = node_transport_owner(cluster_node(cluster, 0));
    struct transport_hello hello;
    char reason[TRANSPORT_REASON_BYTES_MAX];
    unsigned slot = RAFT_MEMBERS_MAX;
    node_transport_hello(cluster_node(cluster, 2), &hello);
    ck_assert_int_eq(owner.hello_check(owner.context, &slot, &hello, reason), 0);
    hello.boot--;
    ck_assert_int_eq(owner.hello_check(owner.context, &slot, &hello, reason), LOCKSTEP_EFOREIGN);
    ck_assert_ptr_nonnull(strstr(reason, "its directory is an old copy"));
    cluster_close(cluster);
}
END_TEST

START_TEST(learner_that_lost_its_directory_is_removed_by_its_id_and_replaced_again)
{
    struct cluster *cluster = start(3, 3, 23);
    unsigned victim = (leader_of(cluster) + 1) % 3;
    cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    int number = cluster_change_kind(cluster, leader_of(cluster), NODE_CHANGE_REPLACE, victim, 3 * SECOND);
    while (status_of(cluster, leader_of(cluster)).raft.peer_count < 3) /* until its successor is a learner */
        cluster_run(cluster, CLUSTER_MS);
    cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    ck_assert_int_eq(cluster_change_wait(cluster, number, 5 * SECOND), LOCKSTEP_ETIMEDOUT);
    const char *hint = strstr(why_of(cluster, number), "lockstep member remove ");
    ck_assert_ptr_nonnull(hint);
    struct node_change_request remove = {.kind = NODE_CHANGE_REMOVE, .timeout_ns = 5 * SECOND};
    ck_assert_int_eq(sscanf(hint, "lockstep member remove %16s", remove.name), 1);
    number = cluster_change(cluster, leader_of(cluster), &remove);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 5 * SECOND), 0);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_REPLACE, victim), 0);
    propose_some(cluster, 5);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_uint_eq(status_of(cluster, leader_of(cluster)).raft.peer_count, 2);
    cluster_close(cluster);
}
END_TEST

START_TEST(learner_is_replaced_by_a_learner)
{
    struct cluster *cluster = start(5, 3, 21);
    struct node_change_request add = {.kind = NODE_CHANGE_ADD,
                                      .name = "n4",
                                      .client = "n4:1",
                                      .peer = "3:2",
                                      .learner = true,
                                      .timeout_ns = 60 * SECOND};
    int number = cluster_change(cluster, leader_of(cluster), &add);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), 0);
    ck_assert_str_eq(why_of(cluster, number), "done");
    cluster_crash(cluster, 3);
    struct node_change_request replace = {.kind = NODE_CHANGE_REPLACE,
                                          .name = "n5",
                                          .old_name = "n4",
                                          .client = "n5:1",
                                          .peer = "4:2",
                                          .timeout_ns = 10 * SECOND};
    number = cluster_change(cluster, leader_of(cluster), &replace);
    ck_assert_int_eq(cluster_change_wait(cluster, number, 20 * SECOND), 0);
    ck_assert_uint_eq(role_of(cluster, 3), 0);
    ck_assert_uint_eq(role_of(cluster, 4), CONFIGURATION_LEARNER);
    cluster_close(cluster);
}
END_TEST

START_TEST(what_was_done_is_done_when_it_is_asked_for_again)
{
    struct cluster *cluster = start(5, 3, 22);
    unsigned victim = (leader_of(cluster) + 1) % 3;
    cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    for (int again = 0; again < 2; again++) {
        int number = cluster_change_kind(cluster, leader_of(cluster), NODE_CHANGE_REPLACE, victim, 20 * SECOND);
        ck_assert_int_eq(cluster_change_wait(cluster, number, 30 * SECOND), 0);
        raft_member id = status_of(cluster, victim).identity.member_id;
        ck_assert_uint_eq(cluster_change_result(cluster, number)->result.id, id);
        propose_some(cluster, 5);
        ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
        for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(role_of(cluster, i), CONFIGURATION_VOTER);
    }
    cluster_crash(cluster, victim);
    struct node_change_request replace = {
        .kind = NODE_CHANGE_REPLACE, .name = "n4", .client = "n4:1", .peer = "3:2", .timeout_ns = 20 * SECOND};
    snprintf(replace.old_name, sizeof replace.old_name, "n%u", victim + 1);
    for (int again = 0; again < 2; again++) {
        int number = cluster_change(cluster, leader_of(cluster), &replace);
        ck_assert_msg(cluster_change_wait(cluster, number, 30 * SECOND) == 0, "%d: %s", again, why_of(cluster, number));
        ck_assert_uint_eq(role_of(cluster, 3), CONFIGURATION_VOTER);
        ck_assert_uint_eq(role_of(cluster, victim), 0);
    }
    cluster_close(cluster);
}
END_TEST

/* Ask a node, whoever leads, for a change that may or may not make sense. */
static void ask_for_something(struct cluster *cluster, struct random *random)
{
    struct node_change_request request = {.timeout_ns = random_between(random, 1, 5) * SECOND};
    unsigned member = (unsigned)random_below(random, 6);
    request.kind = (enum node_change_kind)random_between(random, NODE_CHANGE_ADD, NODE_CHANGE_REPLACE);
    request.force = random_chance(random, 1, 2);
    request.learner = random_chance(random, 1, 4);
    snprintf(request.name, sizeof request.name, "n%u", member + 1);
    snprintf(request.old_name, sizeof request.old_name, "n%u", (unsigned)random_below(random, 6) + 1);
    if (random_chance(random, 1, 2)) memcpy(request.old_name, request.name, sizeof request.old_name);
    snprintf(request.client, sizeof request.client, "n%u:1", member + 1);
    snprintf(request.peer, sizeof request.peer, "%u:2", member);
    for (unsigned i = 0; i < 6; i++) /* also one that leads no more and does not know it */
        if (cluster_runs(cluster, i) && status_of(cluster, i).raft.role == RAFT_LEADER)
            (void)cluster_change(cluster, i, &request);
}

static void hurt_something(struct cluster *cluster, struct random *random, bool removed[6])
{
    unsigned i = (unsigned)random_below(random, 6), j = (unsigned)random_below(random, 6);
    switch (random_below(random, 4)) {
    case 0:
        if (cluster_runs(cluster, i)) cluster_crash(cluster, i);
        break;
    case 1:
        if (cluster_runs(cluster, i)) break;
        if (removed[i]) cluster_wipe(cluster, i); /* may be admitted again, as somebody else */
        removed[i] = false;
        (void)cluster_start(cluster, i);
        break;
    default: sim_net_cut(cluster_net(cluster), i, j, i != j && random_chance(random, 1, 3)); break;
    }
}

START_TEST(
    any_changes_under_any_faults_lose_nothing_and_end) /* every step compares replicas with what was acknowledged */
{
    unsigned changes = 0;
    for (unsigned round = 0; round < unit_rounds(10); round++) {
        struct cluster *cluster = start_compacting(6, 3, 0x400 + round, round % 2 == 0 ? COMPACT_AFTER_BYTES : 0);
        bool removed[6] = {false}; /* told so, and ended */
        struct random *random = cluster_random(cluster);
        sim_net_faults_set(cluster_net(cluster), &(struct sim_net_faults){.delay_ns_min = 20000,
                                                                          .delay_ns_max = 3 * CLUSTER_MS,
                                                                          .loss_per_1000 = 20,
                                                                          .duplicate_per_1000 = 10});
        for (unsigned step = 0; step < 60; step++) {
            if (random_chance(random, 1, 3)) ask_for_something(cluster, random);
            if (random_chance(random, 1, 2)) hurt_something(cluster, random, removed);
            for (unsigned k = 0; k < 5; k++) cluster_propose(cluster, (unsigned)random_below(random, 6), true);
            bool ran[6];
            for (unsigned i = 0; i < 6; i++) ran[i] = cluster_runs(cluster, i);
            cluster_run(cluster, random_between(random, 0, 300) * CLUSTER_MS);
            for (unsigned i = 0; i < 6; i++) {
                if (!ran[i] || cluster_runs(cluster, i)) continue;
                ck_assert_msg(strstr(cluster_why(cluster), "was removed") != NULL, "%s", cluster_why(cluster));
                removed[i] = true;
            }
        }
        sim_net_faults_set(cluster_net(cluster),
                           &(struct sim_net_faults){.delay_ns_min = 20000, .delay_ns_max = 200000});
        for (unsigned i = 0; i < 6; i++) {
            for (unsigned j = 0; j < 6; j++) sim_net_cut(cluster_net(cluster), i, j, false);
            if (!cluster_runs(cluster, i)) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
        }
        ck_assert_int_ge(cluster_run_until_writable(cluster, 20 * SECOND), 0);
        cluster_run(cluster, 8 * SECOND); /* a change that runs ends, removed ones are told */
        propose_some(cluster, 10);
        ck_assert(!status_of(cluster, leader_of(cluster)).joint);
        ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
        changes += status_of(cluster, leader_of(cluster)).configuration_index > 0;
        cluster_close(cluster);
    }
    if (getenv("LOCKSTEP_SEED") == NULL) ck_assert_uint_gt(changes, 0); /* else they are all the same one */
}
END_TEST

START_TEST(leadership_is_handed_over_between_the_two_halves_of_a_change) /* found by tests/sim: seed 0x19058 */
{
    struct cluster *cluster = start(4, 3, 17);
    unsigned leader = leader_of(cluster);
    ck_assert_int_ge(cluster_change_kind(cluster, leader, NODE_CHANGE_ADD, 3, 20 * SECOND), 0);
    bool asked = false;
    for (unsigned k = 0; k < 1000000 && !asked; k++) {
        cluster_run(cluster, CLUSTER_MS / 1000); /* the joint configuration is committed, and not left yet */
        struct node_status status = status_of(cluster, leader);
        if (!status.joint || status.raft.commit < status.configuration_index) continue;
        asked = cluster_transfer(cluster, leader, "") == 0;
    }
    ck_assert(asked);
    ck_assert_int_eq(change(cluster, NODE_CHANGE_ADD, 3), 0);
    ck_assert_uint_eq(role_of(cluster, 3), CONFIGURATION_VOTER);
    cluster_close(cluster);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 240);
    tcase_add_test(tests, new_node_waits_and_tries_no_birth);
    tcase_add_test(tests, added_node_learns_catches_up_and_votes);
    tcase_add_test(tests, learner_holds_the_log_and_counts_for_nothing);
    tcase_add_test(tests, asking_for_what_is_so_already_succeeds_and_changes_nothing);
    tcase_add_test(tests, grows_from_three_to_five_and_shrinks_again);
    tcase_add_test(tests, one_node_becomes_three_and_one_again);
    tcase_add_test(tests, removed_leader_hands_over_when_that_is_committed);
    tcase_add_test(tests, removed_node_that_comes_back_disturbs_nobody_and_is_told);
    tcase_add_test(tests, removed_and_added_again_it_is_somebody_else);
    tcase_add_test(tests, wiped_node_is_replaced_under_its_name);
    tcase_add_test(tests, node_that_runs_with_the_directory_that_is_to_go_is_not_replaced);
    tcase_add_test(tests, replacement_is_answered_by_who_knows_the_joint_configuration_only);
    tcase_add_test(tests, silent_voter_is_removed_by_force_only);
    tcase_add_test(tests, change_that_would_lose_the_quorum_is_refused_also_by_force);
    tcase_add_test(tests, what_cannot_be_is_refused_with_the_reason);
    tcase_add_test(tests, leadership_is_handed_over_between_the_two_halves_of_a_change);
    tcase_add_test(tests, nobody_there_is_told_and_nothing_appended);
    tcase_add_test(tests, two_changes_at_once_are_one_after_the_other);
    tcase_add_test(tests, change_goes_on_after_its_leader_died_at_any_moment);
    tcase_add_test(tests, change_in_a_partition_loses_nothing_that_was_acknowledged);
    tcase_add_test(tests, member_that_slept_behind_a_compacted_log_goes_by_the_members_of_the_snapshot);
    tcase_add_test(tests, newcomer_behind_a_compacted_log_gets_the_members_with_the_snapshot);
    tcase_add_test(tests, birth_frames_of_any_bytes_change_nothing);
    tcase_add_test(tests, hello_of_nobody_and_of_too_many_takes_no_members_place);
    tcase_add_test(tests, uncommitted_configuration_admits_nobody_and_is_undone_also_after_a_restart);
    tcase_add_test(tests, older_boot_than_was_seen_is_a_copied_directory);
    tcase_add_test(tests, learner_that_lost_its_directory_is_removed_by_its_id_and_replaced_again);
    tcase_add_test(tests, learner_is_replaced_by_a_learner);
    tcase_add_test(tests, what_was_done_is_done_when_it_is_asked_for_again);
    tcase_add_test(tests, any_changes_under_any_faults_lose_nothing_and_end);
    tcase_add_test(tests, members_and_addresses_come_from_the_log_after_a_restart);
    tcase_add_test(tests, node_that_slept_through_many_changes_finds_back);
}

int main(void)
{
    return unit_main("members", add);
}
