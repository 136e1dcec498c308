/* SPDX-License-Identifier: Apache-2.0 */
/* test_node.c - whole nodes over simulated doors: birth, proposals, crashes, reads, forwarding, stopping. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/server/nodes.h"

static struct cluster *start(unsigned nodes, uint64_t seed)
{
    return nodes_start(&(struct cluster_options){.nodes = nodes, .seed = unit_seed(seed)});
}

static const char *member_name(struct cluster *cluster, unsigned i)
{
    return node_options_of(cluster_node(cluster, (i + 1) % 3))->members[i].name; /* any node's file says it */
}

static unsigned count_state(const struct cluster *cluster, enum cluster_proposal_state state)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < cluster_proposal_count(cluster); i++)
        if (cluster_proposal(cluster, i)->state == state) count++;
    return count;
}

START_TEST(three_nodes_are_born_once_and_elect_a_leader) /* I2 */
{
    struct cluster *cluster = start(3, 1);
    unsigned leader = leader_of(cluster);
    struct node_status a, b;
    node_status_read(cluster_node(cluster, leader), &a);
    node_status_read(cluster_node(cluster, (leader + 1) % 3), &b);
    ck_assert_uint_eq(a.identity.birth.cluster_id, b.identity.birth.cluster_id);
    ck_assert_uint_ne(a.identity.member_id, b.identity.member_id);
    ck_assert(a.ready);
    cluster_close(cluster);
}
END_TEST

START_TEST(no_cluster_is_born_while_a_listed_node_is_missing) /* I2: all listed ones are asked */
{
    struct cluster *cluster = cluster_open(&(struct cluster_options){.nodes = 3, .seed = unit_seed(2)});
    ck_assert(cluster_start(cluster, 0));
    ck_assert(cluster_start(cluster, 1));
    ck_assert_int_eq(cluster_run_until_writable(cluster, 5 * SECOND), -1);
    ck_assert(cluster_start(cluster, 2));
    leader_of(cluster);
    cluster_close(cluster);
}
END_TEST

START_TEST(birth_survives_a_crash_of_any_node_at_any_moment) /* I2 */
{
    for (uint64_t round = 0; round < unit_rounds(60); round++) {
        struct cluster *cluster = cluster_open(&(struct cluster_options){.nodes = 3, .seed = unit_seed(100) + round});
        for (unsigned i = 0; i < 3; i++) ck_assert(cluster_start(cluster, i));
        unsigned victim = (unsigned)(round % 3);
        cluster_run(cluster, 45 * CLUSTER_MS + round * 1000 * 37);
        if (cluster_runs(cluster, victim)) cluster_crash(cluster, victim);
        cluster_run(cluster, 200 * CLUSTER_MS);
        ck_assert_msg(cluster_start(cluster, victim), "%s", cluster_why(cluster));
        leader_of(cluster);
        ck_assert(cluster_runs(cluster, victim));
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(a_wiped_node_is_no_voter_and_is_told_so) /* I2, T52 */
{
    struct cluster *cluster = start(3, 3);
    unsigned leader = leader_of(cluster), victim = (leader + 1) % 3;
    propose_many(cluster, leader, 32, 16);
    cluster_run(cluster, SECOND);
    cluster_crash(cluster, victim);
    cluster_wipe(cluster, victim);
    ck_assert(cluster_start(cluster, victim));
    cluster_run(cluster, SECOND);
    struct node_status status;
    node_status_read(cluster_node(cluster, victim), &status);
    ck_assert(!status.born);
    ck_assert_ptr_nonnull(strstr(status.not_ready, "no voter"));
    ck_assert_ptr_nonnull(strstr(status.not_ready, "lockstep member replace n"));
    /* A new directory and one that knows everything are not a majority. */
    cluster_crash(cluster, leader);
    ck_assert_int_eq(cluster_run_until_writable(cluster, 3 * SECOND), -1);
    cluster_close(cluster);
}
END_TEST

START_TEST(every_replica_applies_the_same_commands_in_the_same_order)
{
    struct cluster *cluster = start(3, 4);
    unsigned leader = leader_of(cluster);
    propose_many(cluster, leader, 1000, 16);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    ck_assert_uint_eq(count_state(cluster, PROPOSAL_APPLIED), 1000);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(cluster_applied_count(cluster, i), 1000);
        for (uint32_t k = 0; k < 1000; k++)
            ck_assert_uint_eq(cluster_applied(cluster, i, cluster_proposal(cluster, k)->position), k);
    }
    cluster_close(cluster);
}
END_TEST

START_TEST(blocks_grow_while_the_disk_is_busy) /* the block is the unit: consensus and flushes are paid per block */
{
    struct cluster *cluster = start(3, 5);
    unsigned leader = leader_of(cluster);
    struct node_status before, after;
    for (unsigned i = 0; i < 3; i++) cluster_disk_delay(cluster, i, 20 * CLUSTER_MS);
    node_status_read(cluster_node(cluster, leader), &before);
    for (unsigned k = 0; k < 2000; k++) {
        cluster_propose(cluster, leader, false);
        cluster_run(cluster, CLUSTER_MS / 10);
    }
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    node_status_read(cluster_node(cluster, leader), &after);
    uint64_t blocks = after.counters.blocks_appended - before.counters.blocks_appended;
    uint64_t flushes = after.storage.flushes - before.storage.flushes;
    ck_assert_uint_eq(count_state(cluster, PROPOSAL_APPLIED), 2000);
    ck_assert_uint_lt(blocks, 2000 / 4);
    ck_assert_uint_lt(flushes, blocks);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_lone_command_waits_for_nothing) /* at low load a block holds one command */
{
    struct cluster *cluster = start(3, 6);
    unsigned leader = leader_of(cluster);
    struct node_status before, after;
    node_status_read(cluster_node(cluster, leader), &before);
    for (unsigned k = 0; k < 20; k++) {
        uint32_t p = cluster_propose(cluster, leader, false);
        cluster_run(cluster, 2 * CLUSTER_MS); /* two hops of at most 0.2 ms and a flush of 0.1 ms */
        ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_APPLIED);
    }
    node_status_read(cluster_node(cluster, leader), &after);
    ck_assert_uint_eq(after.counters.blocks_appended - before.counters.blocks_appended, 20);
    cluster_close(cluster);
}
END_TEST

START_TEST(more_than_one_append_is_in_flight_over_a_slow_link) /* pipelining */
{
    struct cluster *cluster = start(3, 7);
    unsigned leader = leader_of(cluster);
    sim_net_faults_set(cluster_net(cluster),
                       &(struct sim_net_faults){.delay_ns_min = 50 * CLUSTER_MS, .delay_ns_max = 50 * CLUSTER_MS});
    for (unsigned k = 0; k < 100; k++) {
        cluster_propose(cluster, leader, false);
        cluster_run(cluster, CLUSTER_MS);
    }
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    struct node_status status;
    node_status_read(cluster_node(cluster, leader), &status);
    ck_assert_uint_gt(status.counters.appends_inflight_max, 1);
    ck_assert_uint_eq(count_state(cluster, PROPOSAL_APPLIED), 100);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_follower_forwards_a_command_once_and_gets_its_reply)
{
    struct cluster *cluster = start(3, 8);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    uint32_t p = cluster_propose(cluster, follower, true);
    uint32_t q = cluster_propose(cluster, follower, false);
    ck_assert_int_eq(cluster_proposal(cluster, q)->error, LOCKSTEP_ENOTLEADER);
    cluster_run(cluster, 50 * CLUSTER_MS);
    ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_APPLIED);
    ck_assert_uint_eq(cluster_proposal(cluster, p)->position, 1);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_forward_whose_leader_is_gone_has_an_unknown_outcome) /* T59 */
{
    struct cluster *cluster = start(3, 9);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    uint32_t p = cluster_propose(cluster, follower, true);
    cluster_crash(cluster, leader);
    leader_of(cluster);
    cluster_run(cluster, SECOND);
    ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_UNKNOWN);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_forward_is_settled_at_once_when_the_leader_hangs_up)
{
    struct cluster *cluster = start(3, 16);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    sim_net_cut(cluster_net(cluster), follower, leader, true); /* the request is lost: no answer will come */
    uint32_t p = cluster_propose(cluster, follower, true);
    uint32_t q = cluster_query(cluster, follower, NODE_LINEARIZABLE, true);
    cluster_run(cluster, CLUSTER_MS);
    ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_WAITING);
    sim_net_hang_up(cluster_net(cluster), leader, follower);
    cluster_run(cluster, CLUSTER_MS);
    ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_UNKNOWN);
    ck_assert(cluster_query_result(cluster, q)->done);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, LOCKSTEP_EUNAVAILABLE);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_reply_meant_for_the_process_before_a_restart_reaches_nobody) /* T59; a storm with seed 0x1424 found it */
{
    struct cluster *cluster = start(3, 17);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3, third = (leader + 2) % 3;
    cluster_disk_delay(cluster, leader, 400 * CLUSTER_MS);
    cluster_disk_delay(cluster, third, 400 * CLUSTER_MS);
    cluster_propose(cluster, leader, false); /* both disks are busy now: what comes next waits */
    cluster_run(cluster, 5 * CLUSTER_MS);
    cluster_propose(cluster, follower, true);
    cluster_run(cluster, 5 * CLUSTER_MS);
    cluster_crash(cluster, follower);
    ck_assert(cluster_start(cluster, follower));
    for (unsigned k = 0; k < 300 && node_leader(cluster_node(cluster, follower)) != leader; k++)
        cluster_run(cluster, CLUSTER_MS);
    sim_net_faults_set(cluster_net(cluster),
                       &(struct sim_net_faults){.delay_ns_min = 50 * CLUSTER_MS, .delay_ns_max = 50 * CLUSTER_MS});
    ck_assert_uint_eq(cluster_applied_count(cluster, leader), 1);
    for (unsigned k = 0; k < 1000 && cluster_applied_count(cluster, leader) == 1; k++) cluster_run(cluster, CLUSTER_MS);
    uint32_t own = cluster_propose(cluster, follower, true); /* its request and the old reply pass each other */
    cluster_run(cluster, 2 * SECOND);                        /* the cluster compares each reply with its proposal */
    ck_assert_int_eq(cluster_proposal(cluster, own)->state, PROPOSAL_APPLIED);
    ck_assert_uint_eq(cluster_proposal(cluster, own)->position, 3);
    cluster_close(cluster);
}
END_TEST

START_TEST(nothing_acknowledged_is_lost_when_the_leader_dies_under_load)
{
    for (uint64_t round = 0; round < unit_rounds(20); round++) {
        struct cluster *cluster = start(3, 200 + round);
        unsigned old = leader_of(cluster);
        for (unsigned k = 0; k < 200; k++) cluster_propose(cluster, old, false);
        cluster_run(cluster, random_below(cluster_random(cluster), 2 * CLUSTER_MS));
        for (unsigned k = 0; k < 100; k++) cluster_propose(cluster, old, false);
        cluster_crash(cluster, old);
        unsigned acked = count_state(cluster, PROPOSAL_APPLIED);
        unsigned new = leader_of(cluster);
        ck_assert_uint_ne(old, new);
        propose_many(cluster, new, 100, 16);
        ck_assert(cluster_start(cluster, old));
        ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
        cluster_check(cluster);
        ck_assert_uint_ge(cluster_applied_count(cluster, old), acked + 100);
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(a_leader_whose_process_died_is_replaced_at_once) /* its connections end: nobody waits for a timeout */
{
    for (uint64_t round = 0; round < unit_rounds(60); round++) {
        unsigned nodes = round % 3 == 2 ? 5 : 3;
        struct cluster *cluster = start(nodes, 1000 + round);
        unsigned old = leader_of(cluster);
        for (unsigned k = 0; k < 100; k++) cluster_propose(cluster, old, false);
        cluster_run(cluster, random_below(cluster_random(cluster), 200 * CLUSTER_MS));
        for (unsigned k = 0; k < 10; k++) cluster_propose(cluster, old, false);
        cluster_crash(cluster, old);
        int new = cluster_run_until_writable(cluster, 100 * CLUSTER_MS);
        ck_assert_msg(new >= 0, "round %u", (unsigned)round);
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(a_leader_that_is_cut_off_hangs_up_on_nobody) /* nothing tells a cut from silence: a timeout has to */
{
    struct cluster *cluster = start(3, 18);
    unsigned old = leader_of(cluster);
    for (unsigned i = 0; i < 3; i++) sim_net_cut(cluster_net(cluster), old, i, true);
    cluster_crash(cluster, old);
    ck_assert_int_eq(cluster_run_until_writable(cluster, 200 * CLUSTER_MS), -1);
    ck_assert_int_ge(cluster_run_until_writable(cluster, 2 * SECOND), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_leader_that_one_follower_lost_leads_on) /* thesis 4.2.3; T5, T12 */
{
    for (uint64_t round = 0; round < unit_rounds(20); round++) {
        struct cluster *cluster = start(3, 1100 + round);
        unsigned leader = leader_of(cluster), alone = (leader + 1 + (unsigned)round % 2) % 3;
        struct node_status before, after, asking;
        cluster_run(cluster, random_below(cluster_random(cluster), 200 * CLUSTER_MS));
        node_status_read(cluster_node(cluster, leader), &before);
        sim_net_hang_up(cluster_net(cluster), leader, alone);
        cluster_run(cluster, CLUSTER_MS);
        sim_net_cut(cluster_net(cluster), leader, alone, true); /* until it has dialled again */
        for (int ms = 0; ms < 1000; ms++) { /* at once, or a timeout later where it was heard once more */
            cluster_run(cluster, CLUSTER_MS);
            node_status_read(cluster_node(cluster, alone), &asking);
            if (asking.raft.role == RAFT_PRECANDIDATE) break;
        }
        ck_assert_int_eq(asking.raft.role, RAFT_PRECANDIDATE);
        uint32_t meanwhile = cluster_propose(cluster, leader, false);
        sim_net_cut(cluster_net(cluster), leader, alone, false);
        cluster_run(cluster, 100 * CLUSTER_MS);
        node_status_read(cluster_node(cluster, leader), &after);
        ck_assert_int_eq(after.raft.role, RAFT_LEADER);
        ck_assert_uint_eq(after.raft.term, before.raft.term);
        ck_assert_uint_eq(node_leader(cluster_node(cluster, alone)), leader);
        ck_assert_int_eq(cluster_proposal(cluster, meanwhile)->state, PROPOSAL_APPLIED);
        cluster_close(cluster);
    }
}
END_TEST

START_TEST(a_restart_of_all_nodes_replays_the_log)
{
    struct cluster *cluster = start(3, 10);
    propose_many(cluster, leader_of(cluster), 500, 16);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    for (unsigned i = 0; i < 3; i++) cluster_crash(cluster, i);
    for (unsigned i = 0; i < 3; i++) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
    leader_of(cluster);
    cluster_run(cluster, SECOND);
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(cluster_applied_count(cluster, i), 500);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_node_that_missed_more_than_the_ring_holds_catches_up_from_the_log)
{
    struct cluster *cluster = nodes_start(
        &(struct cluster_options){.nodes = 3, .seed = unit_seed(11), .ring_bytes = 1 << 20, .payload_bytes = 4000});
    unsigned leader = leader_of(cluster), lagging = (leader + 1) % 3;
    cluster_crash(cluster, lagging);
    for (unsigned k = 0; k < 1500; k++) { /* 6 MB through a ring of 1 MiB */
        cluster_propose(cluster, leader, false);
        if (k % 4 == 3) cluster_run(cluster, CLUSTER_MS);
    }
    cluster_run(cluster, SECOND);
    ck_assert_uint_eq(count_state(cluster, PROPOSAL_APPLIED), 1500);
    ck_assert(cluster_start(cluster, lagging));
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, lagging), 1500);
    cluster_close(cluster);
}
END_TEST

/* Its uncommitted blocks are all that R10 allows, and a block of the smallest size is to replace them. */
START_TEST(
    a_leader_that_was_cut_off_with_as_much_as_it_may_append_follows_again) /* R10; found by tests/sim: seed 0xf6be5 */
{
    struct cluster *cluster = nodes_start(
        &(struct cluster_options){.nodes = 3, .seed = unit_seed(21), .ring_bytes = 1 << 19, .payload_bytes = 1000});
    unsigned old = leader_of(cluster);
    for (unsigned i = 0; i < 3; i++) sim_net_cut(cluster_net(cluster), old, i, i != old);
    uint32_t number;
    do {
        number = cluster_propose(cluster, old, false);
        cluster_run(cluster, CLUSTER_MS);
    } while (cluster_proposal(cluster, number)->state == PROPOSAL_WAITING);
    ck_assert_int_eq(cluster_proposal(cluster, number)->error, LOCKSTEP_EFULL);
    cluster_run(cluster, 3 * SECOND);
    ck_assert_int_ne(leader_of(cluster), (int)old);
    for (unsigned i = 0; i < 3; i++) sim_net_cut(cluster_net(cluster), old, i, false);
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
    cluster_close(cluster);
}
END_TEST

/* A first lack of memory is the start's error; what is up reads old blocks for a peer without asking for more. */
START_TEST(a_node_that_starts_has_all_that_it_needs_to_serve_a_peer_that_lags)
{
    struct cluster *cluster = nodes_start(
        &(struct cluster_options){.nodes = 3, .seed = unit_seed(18), .ring_bytes = 1 << 19, .payload_bytes = 4000});
    leader_of(cluster);
    for (unsigned i = 0; i < 3; i++) {
        cluster_crash(cluster, i);
        for (uint32_t readers = 0;; readers++) {
            cluster_readers_left(cluster, i, readers);
            if (cluster_start(cluster, i)) break;
            ck_assert_uint_lt(readers, 10);
        }
    }
    unsigned leader = leader_of(cluster), lagging = (leader + 1) % 3;
    sim_net_cut(cluster_net(cluster), leader, lagging, true);
    sim_net_cut(cluster_net(cluster), lagging, leader, true);
    for (unsigned k = 0; k < 400; k++) { /* 1.6 MB through a ring of 512 KiB */
        cluster_propose(cluster, leader, false);
        if (k % 4 == 3) cluster_run(cluster, CLUSTER_MS);
    }
    cluster_run(cluster, SECOND);
    sim_net_cut(cluster_net(cluster), leader, lagging, false);
    sim_net_cut(cluster_net(cluster), lagging, leader, false);
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, lagging), cluster_applied_count(cluster, leader));
    cluster_close(cluster);
}
END_TEST

START_TEST(a_leader_that_cannot_read_its_log_names_the_block_and_goes) /* J7: it does not lead with it */
{
    struct cluster *cluster = nodes_start(
        &(struct cluster_options){.nodes = 3, .seed = unit_seed(12), .ring_bytes = 1 << 20, .payload_bytes = 4000});
    unsigned leader = leader_of(cluster), lagging = (leader + 1) % 3;
    propose_many(cluster, leader, 4, 16);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    struct node_status status;
    node_status_read(cluster_node(cluster, lagging), &status);
    raft_index damaged = status.raft.last_index + 2; /* the second one that it will miss */
    cluster_crash(cluster, lagging);
    for (unsigned k = 0; k < 1500; k++) {
        cluster_propose(cluster, leader, false);
        if (k % 4 == 3) cluster_run(cluster, CLUSTER_MS);
    }
    cluster_run(cluster, SECOND);
    cluster_damage(cluster, leader, damaged);
    ck_assert(cluster_start(cluster, lagging));
    cluster_run(cluster, 5 * SECOND);
    ck_assert(!cluster_runs(cluster, leader));
    char name[32];
    snprintf(name, sizeof name, "block %llu of the log", (unsigned long long)damaged);
    ck_assert_msg(strstr(cluster_why(cluster), name) != NULL, "%s", cluster_why(cluster));
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND)); /* the other one has it */
    ck_assert_uint_eq(cluster_applied_count(cluster, lagging), 1504);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_leader_that_is_cut_off_says_unknown_and_acknowledges_nothing)
{
    struct cluster *cluster = start(3, 12);
    unsigned old = leader_of(cluster);
    for (unsigned i = 0; i < 3; i++) {
        if (i == old) continue;
        sim_net_cut(cluster_net(cluster), old, i, true);
        sim_net_cut(cluster_net(cluster), i, old, true);
    }
    uint32_t p = cluster_propose(cluster, old, false);
    cluster_run(cluster, 5 * SECOND);
    ck_assert_int_eq(cluster_proposal(cluster, p)->state, PROPOSAL_UNKNOWN);
    unsigned new = leader_of(cluster);
    ck_assert_uint_ne(new, old);
    propose_many(cluster, new, 50, 16);
    for (unsigned i = 0; i < 3; i++) {
        sim_net_cut(cluster_net(cluster), old, i, false);
        sim_net_cut(cluster_net(cluster), i, old, false);
    }
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, old), 50);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_linearizable_query_sees_what_was_acknowledged_before_it) /* R5 */
{
    struct cluster *cluster = start(3, 13);
    unsigned leader = leader_of(cluster);
    propose_many(cluster, leader, 64, 16);
    cluster_run(cluster, 20 * CLUSTER_MS);
    unsigned acked = count_state(cluster, PROPOSAL_APPLIED);
    ck_assert_uint_eq(acked, 64);
    for (unsigned i = 0; i < 3; i++) { /* followers forward it */
        uint32_t q = cluster_query(cluster, i, NODE_LINEARIZABLE, true);
        cluster_run(cluster, 20 * CLUSTER_MS);
        ck_assert(cluster_query_result(cluster, q)->done);
        ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
        ck_assert_uint_ge(cluster_query_result(cluster, q)->applied_count, acked);
    }
    cluster_close(cluster);
}
END_TEST

START_TEST(a_leader_without_a_quorum_answers_no_linearizable_query) /* R5, T46 */
{
    struct cluster *cluster = start(3, 14);
    unsigned leader = leader_of(cluster);
    for (unsigned i = 0; i < 3; i++)
        if (i != leader) sim_net_cut(cluster_net(cluster), leader, i, true);
    uint32_t read = cluster_query(cluster, leader, NODE_LINEARIZABLE, false);
    uint32_t local = cluster_query(cluster, leader, NODE_LOCAL, false);
    cluster_run(cluster, 5 * SECOND);
    ck_assert(cluster_query_result(cluster, read)->done); /* an error, not silence */
    ck_assert_int_ne(cluster_query_result(cluster, read)->error, 0);
    ck_assert_int_eq(cluster_query_result(cluster, local)->error, 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_follower_read_sees_what_was_acknowledged_before_it) /* R5 */
{
    struct cluster *cluster = start(3, 31);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    for (unsigned k = 0; k < 200; k++) {
        uint32_t p = cluster_propose(cluster, leader, false);
        if (k % 3 == 0) cluster_propose(cluster, leader, false);
        while (cluster_proposal(cluster, p)->state == PROPOSAL_WAITING) cluster_run(cluster, CLUSTER_MS / 10);
        uint32_t q = cluster_query(cluster, follower, NODE_FOLLOWER, false);
        for (unsigned i = 0; i < 1000 && !cluster_query_result(cluster, q)->done; i++) cluster_run(cluster, CLUSTER_MS);
        ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
        ck_assert_uint_ge(cluster_query_result(cluster, q)->applied_count, cluster_proposal(cluster, p)->position);
    }
    /* At the leader it is the same as LINEARIZABLE. */
    uint32_t q = cluster_query(cluster, leader, NODE_FOLLOWER, false);
    cluster_run(cluster, SECOND);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
    cluster_close(cluster);
}
END_TEST

static void isolate(struct cluster *cluster, unsigned node)
{
    for (unsigned i = 0; i < 3; i++) {
        sim_net_cut(cluster_net(cluster), i, node, true);
        sim_net_cut(cluster_net(cluster), node, i, true);
    }
}

START_TEST(a_follower_read_joins_no_question_that_is_on_its_way) /* R5 */
{
    struct cluster *cluster = start(3, 34);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    for (unsigned k = 0; k < 50; k++) {
        uint32_t p = cluster_propose(cluster, leader, false);
        while (cluster_proposal(cluster, p)->state == PROPOSAL_WAITING) { /* the leader is asked all the time */
            cluster_query(cluster, follower, NODE_FOLLOWER, false);
            cluster_run(cluster, CLUSTER_MS / 10);
        }
        uint32_t q = cluster_query(cluster, follower, NODE_FOLLOWER, false);
        for (unsigned i = 0; i < 1000 && !cluster_query_result(cluster, q)->done; i++) cluster_run(cluster, CLUSTER_MS);
        ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
        ck_assert_uint_ge(cluster_query_result(cluster, q)->applied_count, cluster_proposal(cluster, p)->position);
    }
    cluster_close(cluster);
}
END_TEST

START_TEST(a_follower_that_hears_nothing_answers_no_follower_read)
{
    struct cluster *cluster = start(3, 32);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    propose_many(cluster, leader, 16, 16);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    isolate(cluster, follower);
    uint32_t q = cluster_query(cluster, follower, NODE_FOLLOWER, false);
    cluster_propose(cluster, leader, false); /* the others go on */
    cluster_run(cluster, 2 * SECOND);
    ck_assert(cluster_query_result(cluster, q)->done);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, LOCKSTEP_EUNAVAILABLE);
    q = cluster_query(cluster, follower, NODE_FOLLOWER, false); /* it knows no leader now */
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, LOCKSTEP_EUNAVAILABLE);
    q = cluster_query(cluster, follower, NODE_LOCAL, false);
    cluster_run(cluster, SECOND);
    ck_assert_uint_eq(cluster_query_result(cluster, q)->applied_count, 16);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_bounded_stale_read_is_answered_by_what_is_known_until_that_is_too_old)
{
    struct cluster *cluster = start(3, 33);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    const struct node_query stale = {.consistency = NODE_BOUNDED_STALE, .max_staleness_ns = 5 * SECOND};
    const struct node_query fresh = {.consistency = NODE_BOUNDED_STALE};
    propose_many(cluster, leader, 16, 16);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    uint32_t q = cluster_query_with(cluster, follower, &fresh, false); /* the leader is asked */
    cluster_run(cluster, SECOND);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
    isolate(cluster, follower);
    cluster_run(cluster, 2 * SECOND);
    q = cluster_query_with(cluster, follower, &stale, false); /* 3 s old: good for 5 */
    cluster_run(cluster, CLUSTER_MS);
    ck_assert(cluster_query_result(cluster, q)->done);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
    ck_assert_uint_eq(cluster_query_result(cluster, q)->applied_count, 16);
    cluster_run(cluster, 3 * SECOND);
    q = cluster_query_with(cluster, follower, &stale, false);
    cluster_run(cluster, SECOND);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, LOCKSTEP_EUNAVAILABLE);
    cluster_close(cluster);
}
END_TEST

/* 100 ms each way: the leader fixes the index after 100 ms, a majority confirms it after 300, and the follower has it after
 * 400. What is acknowledged between is not in it, and not older than it either: an age that counted from the answer would
 * show that command too late. */
START_TEST(the_age_of_what_is_known_counts_from_when_it_was_asked_for) /* R5 */
{
    struct cluster *cluster = start(3, 35);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    const struct node_query stale = {.consistency = NODE_BOUNDED_STALE, .max_staleness_ns = 5 * SECOND};
    propose_many(cluster, leader, 16, 16);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    sim_net_faults_set(cluster_net(cluster),
                       &(struct sim_net_faults){.delay_ns_min = 100 * CLUSTER_MS, .delay_ns_max = 100 * CLUSTER_MS});
    uint32_t q = cluster_query_with(cluster, follower, &stale, false);
    cluster_run(cluster, 150 * CLUSTER_MS);
    uint32_t p = cluster_propose(cluster, leader, false);
    uint64_t since_ack_ns = 0;
    for (unsigned k = 0; k < 1000 && !cluster_query_result(cluster, q)->done; k++) {
        if (cluster_proposal(cluster, p)->state == PROPOSAL_APPLIED) since_ack_ns += CLUSTER_MS;
        cluster_run(cluster, CLUSTER_MS);
    }
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
    ck_assert_uint_gt(since_ack_ns, 20 * CLUSTER_MS);
    isolate(cluster, follower);
    cluster_run(cluster, 5 * SECOND + 10 * CLUSTER_MS - since_ack_ns);
    ck_assert_uint_eq(cluster_applied_count(cluster, follower), 16); /* what was acknowledged 5 s ago is not here */
    q = cluster_query_with(cluster, follower, &stale, false);
    cluster_run(cluster, 2 * SECOND);
    ck_assert(cluster_query_result(cluster, q)->done);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, LOCKSTEP_EUNAVAILABLE);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_query_waits_for_its_min_index_until_its_deadline)
{
    struct cluster *cluster = start(3, 34);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    struct node_status status;
    node_status_read(cluster_node(cluster, leader), &status);
    const raft_index next = status.raft.last_index + 1;
    for (unsigned i = 0; i < 2; i++) { /* at a follower, at the leader */
        const struct node_query ahead = {.min_index = next + i, .consistency = i ? NODE_LINEARIZABLE : NODE_LOCAL};
        unsigned at = i == 0 ? follower : leader;
        uint32_t q = cluster_query_with(cluster, at, &ahead, false);
        uint32_t other = cluster_query(cluster, at, NODE_LOCAL, false);
        cluster_run(cluster, SECOND);
        ck_assert(!cluster_query_result(cluster, q)->done);
        ck_assert_int_eq(cluster_query_result(cluster, other)->error, 0); /* it holds up nobody */
        cluster_propose(cluster, leader, false);
        cluster_run(cluster, SECOND);
        ck_assert(cluster_query_result(cluster, q)->done);
        ck_assert_int_eq(cluster_query_result(cluster, q)->error, 0);
        ck_assert_uint_ge(cluster_query_result(cluster, q)->index, next + i);
    }
    const struct node_query never = {.min_index = UINT64_MAX, .consistency = NODE_LOCAL};
    uint32_t q = cluster_query_with(cluster, follower, &never, false);
    cluster_run(cluster, 9 * SECOND);
    ck_assert(!cluster_query_result(cluster, q)->done);
    cluster_run(cluster, 2 * SECOND);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, LOCKSTEP_ETIMEDOUT);
    const struct node_query hasty = {.min_index = UINT64_MAX, .consistency = NODE_LOCAL, .timeout_ns = 40 * CLUSTER_MS};
    q = cluster_query_with(cluster, follower, &hasty, false);
    cluster_run(cluster, 20 * CLUSTER_MS);
    ck_assert(!cluster_query_result(cluster, q)->done);
    cluster_run(cluster, 40 * CLUSTER_MS);
    ck_assert_int_eq(cluster_query_result(cluster, q)->error, LOCKSTEP_ETIMEDOUT);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_stopping_leader_finishes_its_work_and_hands_over)
{
    struct cluster *cluster = start(3, 15);
    unsigned leader = leader_of(cluster);
    for (unsigned k = 0; k < 100; k++) cluster_propose(cluster, leader, false);
    node_stop(cluster_node(cluster, leader));
    uint32_t late = cluster_propose(cluster, leader, false);
    ck_assert_int_eq(cluster_proposal(cluster, late)->error, LOCKSTEP_EUNAVAILABLE);
    for (unsigned k = 0; k < 500 && !node_drained(cluster_node(cluster, leader)); k++) cluster_run(cluster, CLUSTER_MS);
    ck_assert(node_drained(cluster_node(cluster, leader)));
    ck_assert_uint_eq(count_state(cluster, PROPOSAL_APPLIED), 100);
    cluster_crash(cluster, leader);
    ck_assert_int_ge(cluster_run_until_writable(cluster, 100 * CLUSTER_MS), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_stopping_leader_that_nobody_could_take_over_from_waits_for_nobody)
{
    struct cluster *cluster = start(1, 39);
    struct node *node = cluster_node(cluster, leader_of(cluster));
    for (unsigned k = 0; k < 100; k++) cluster_propose(cluster, 0, false);
    node_stop(node);
    for (unsigned k = 0; k < 500 && !node_drained(node); k++) cluster_run(cluster, CLUSTER_MS);
    ck_assert(node_drained(node));
    ck_assert_uint_eq(count_state(cluster, PROPOSAL_APPLIED), 100);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_stop_waits_until_what_came_before_it_is_on_this_disk)
{
    struct cluster *cluster = start(3, 26);
    unsigned leader = leader_of(cluster), slow = (leader + 1) % 3;
    cluster_disk_delay(cluster, slow, 300 * CLUSTER_MS);
    for (unsigned k = 0; k < 20; k++) {
        cluster_propose(cluster, leader, false);
        cluster_run(cluster, 5 * CLUSTER_MS);
    }
    ck_assert(
        cluster_run_until_level(cluster, 200 * CLUSTER_MS)); /* committed by the others' disks, applied here too */
    struct node *node = cluster_node(cluster, slow);
    struct node_status status;
    node_status_read(node, &status);
    raft_index last = status.raft.last_index;
    ck_assert_uint_lt(status.raft.durable_index, last);
    node_stop(node);
    for (unsigned k = 0; k < 1000 && !node_drained(node); k++) {
        node_status_read(node, &status);
        cluster_run(cluster, CLUSTER_MS);
    }
    ck_assert(node_drained(node));
    node_status_read(node, &status);
    ck_assert_uint_ge(status.raft.durable_index, last);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_stop_that_waits_for_its_disk_makes_no_turns_for_nothing)
{
    struct cluster *cluster = start(3, 38);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    cluster_disk_delay(cluster, follower, 60 * SECOND);
    for (unsigned k = 0; k < 4; k++) { /* the first one's flush is the last that returns */
        cluster_propose(cluster, leader, false);
        cluster_run(cluster, 5 * CLUSTER_MS);
    }
    node_stop(cluster_node(cluster, follower));
    cluster_run(cluster, 4500 * CLUSTER_MS); /* its first time is over, what it appended is not durable */
    ck_assert(!node_drained(cluster_node(cluster, follower)));
    ck_assert_uint_gt(node_deadline_ns(cluster_node(cluster, follower)) + SECOND,
                      node_deadline_ns(cluster_node(cluster, leader))); /* not in the past: all clocks are the same */
    cluster_run(cluster, 2000 * CLUSTER_MS);
    ck_assert(node_drained(cluster_node(cluster, follower)));
    cluster_close(cluster);
}
END_TEST

START_TEST(a_leader_that_stops_before_its_term_is_established_hands_over_once_it_is)
{
    struct cluster *cluster = start(3, 18);
    for (unsigned i = 0; i < 3; i++) cluster_disk_delay(cluster, i, 50 * CLUSTER_MS);
    unsigned leader = 3;
    for (unsigned k = 0; k < 3000 && leader == 3; k++) {
        cluster_run(cluster, CLUSTER_MS);
        for (unsigned i = 0; i < 3; i++) {
            struct node_status status;
            node_status_read(cluster_node(cluster, i), &status);
            if (status.born && status.raft.role == RAFT_LEADER && !status.raft.writable) leader = i;
        }
    }
    ck_assert_uint_lt(leader, 3);
    node_stop(cluster_node(cluster, leader));
    cluster_run(cluster, CLUSTER_MS);
    ck_assert(!node_drained(cluster_node(cluster, leader)));
    for (unsigned k = 0; k < 1000 && !node_drained(cluster_node(cluster, leader)); k++)
        cluster_run(cluster, CLUSTER_MS);
    ck_assert(node_drained(cluster_node(cluster, leader)));
    struct node_status status;
    node_status_read(cluster_node(cluster, leader), &status);
    ck_assert_int_ne(status.raft.role, RAFT_LEADER);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_transfer_succeeds_when_whom_it_names_leads)
{
    struct cluster *cluster = start(3, 36);
    unsigned leader = leader_of(cluster), target = (leader + 1) % 3;
    for (unsigned i = 0; i < 2; i++) { /* by name; whoever is best */
        ck_assert_int_eq(cluster_transfer(cluster, leader, i == 0 ? member_name(cluster, target) : ""), 0);
        for (unsigned ms = 0; ms < 5000 && cluster_transfer_result(cluster) == 1; ms++)
            cluster_run(cluster, CLUSTER_MS);
        ck_assert_int_eq(cluster_transfer_result(cluster), 0);
        ck_assert_uint_ne(node_leader(cluster_node(cluster, leader)), leader);
        if (i == 0) ck_assert_uint_eq(node_leader(cluster_node(cluster, leader)), target);
        leader = leader_of(cluster);
    }
    cluster_close(cluster);
}
END_TEST

/* The term moves on all the same, with somebody else as its leader. */
START_TEST(a_transfer_fails_when_another_one_than_it_names_leads)
{
    struct cluster *cluster = start(5, 37);
    unsigned leader = leader_of(cluster), target = (leader + 1) % 5;
    cluster_run(cluster, 100 * CLUSTER_MS);
    cluster_crash(cluster, target);
    ck_assert_int_eq(cluster_transfer(cluster, leader, member_name(cluster, target)), 0); /* it was heard just now */
    cluster_pause(cluster, leader, true);
    cluster_run(cluster, 5 * SECOND); /* the others elect one of them */
    cluster_pause(cluster, leader, false);
    cluster_run(cluster, SECOND);
    unsigned other = node_leader(cluster_node(cluster, leader));
    ck_assert_uint_lt(other, 5);
    ck_assert(other != leader && other != target);
    ck_assert_int_eq(cluster_transfer_result(cluster), LOCKSTEP_ETIMEDOUT);
    cluster_close(cluster);
}
END_TEST

START_TEST(five_nodes_go_on_without_two)
{
    struct cluster *cluster = start(5, 16);
    unsigned leader = leader_of(cluster);
    propose_many(cluster, leader, 100, 16);
    cluster_crash(cluster, leader);
    leader = leader_of(cluster);
    propose_many(cluster, leader, 100, 16);
    cluster_crash(cluster, leader);
    leader = leader_of(cluster);
    propose_many(cluster, leader, 100, 16);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    cluster_crash(cluster, leader);
    ck_assert_int_eq(cluster_run_until_writable(cluster, 3 * SECOND), -1);
    cluster_close(cluster);
}
END_TEST

/* Anything may happen for a while, then all is well: nothing acknowledged is lost, nothing happens twice, and the
 * cluster takes commands again. */
static void storm(unsigned nodes, uint64_t seed)
{
    struct cluster *cluster = cluster_open(
        &(struct cluster_options){.nodes = nodes, .seed = seed, .ring_bytes = 1 << 20, .payload_bytes = 200});
    struct random *random = cluster_random(cluster);
    for (unsigned i = 0; i < nodes; i++) ck_assert(cluster_start(cluster, i));
    leader_of(cluster);
    sim_net_faults_set(cluster_net(cluster),
                       &(struct sim_net_faults){.delay_ns_min = 10000,
                                                .delay_ns_max = random_between(random, 20000, 20 * CLUSTER_MS),
                                                .loss_per_1000 = (uint32_t)random_below(random, 50),
                                                .duplicate_per_1000 = 20});
    for (unsigned round = 0; round < 150; round++) {
        unsigned i = (unsigned)random_below(random, nodes), k = (unsigned)random_below(random, nodes);
        switch (random_below(random, 13)) {
        case 0:
            if (cluster_runs(cluster, i)) cluster_crash(cluster, i);
            break;
        case 1:
        case 2:
            if (!cluster_runs(cluster, i)) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
            break;
        case 3: sim_net_cut(cluster_net(cluster), i, k, true); break;
        case 4:
        case 5: sim_net_cut(cluster_net(cluster), i, k, false); break;
        case 6: cluster_pause(cluster, i, true); break;
        case 7: cluster_pause(cluster, i, false); break;
        case 12: sim_net_hang_up(cluster_net(cluster), i, k); break;
        case 8: cluster_disk_delay(cluster, i, random_between(random, 10000, 30 * CLUSTER_MS)); break;
        default:
            for (uint64_t n = random_below(random, 40); n > 0; n--)
                cluster_propose(cluster, (unsigned)random_below(random, nodes), true);
        }
        cluster_run(cluster, random_below(random, 100 * CLUSTER_MS));
    }
    sim_net_faults_set(cluster_net(cluster), &(struct sim_net_faults){.delay_ns_min = 10000, .delay_ns_max = 100000});
    for (unsigned i = 0; i < nodes; i++) {
        for (unsigned k = 0; k < nodes; k++) sim_net_cut(cluster_net(cluster), i, k, false);
        cluster_pause(cluster, i, false);
        cluster_disk_delay(cluster, i, 100000);
        if (!cluster_runs(cluster, i)) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
    }
    unsigned leader = leader_of(cluster);
    cluster_run(cluster, SECOND);
    uint32_t last = cluster_propose(cluster, leader, true);
    cluster_run(cluster, SECOND);
    ck_assert(cluster_run_until_level(cluster, 30 * SECOND));
    ck_assert_int_eq(cluster_proposal(cluster, last)->state, PROPOSAL_APPLIED);
    cluster_check(cluster);
    cluster_close(cluster);
}

START_TEST(storms_lose_nothing_and_end)
{
    uint64_t seed = unit_seed(5000), rounds = unit_rounds(40);
    for (uint64_t i = 0; i < rounds; i++) storm(i % 4 == 3 ? 5 : 3, seed + i);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 0); /* meson's bound holds */
    tcase_add_test(tests, three_nodes_are_born_once_and_elect_a_leader);
    tcase_add_test(tests, no_cluster_is_born_while_a_listed_node_is_missing);
    tcase_add_test(tests, birth_survives_a_crash_of_any_node_at_any_moment);
    tcase_add_test(tests, a_wiped_node_is_no_voter_and_is_told_so);
    tcase_add_test(tests, every_replica_applies_the_same_commands_in_the_same_order);
    tcase_add_test(tests, blocks_grow_while_the_disk_is_busy);
    tcase_add_test(tests, a_lone_command_waits_for_nothing);
    tcase_add_test(tests, more_than_one_append_is_in_flight_over_a_slow_link);
    tcase_add_test(tests, a_follower_forwards_a_command_once_and_gets_its_reply);
    tcase_add_test(tests, a_forward_whose_leader_is_gone_has_an_unknown_outcome);
    tcase_add_test(tests, a_forward_is_settled_at_once_when_the_leader_hangs_up);
    tcase_add_test(tests, a_reply_meant_for_the_process_before_a_restart_reaches_nobody);
    tcase_add_test(tests, nothing_acknowledged_is_lost_when_the_leader_dies_under_load);
    tcase_add_test(tests, a_leader_whose_process_died_is_replaced_at_once);
    tcase_add_test(tests, a_leader_that_is_cut_off_hangs_up_on_nobody);
    tcase_add_test(tests, a_leader_that_one_follower_lost_leads_on);
    tcase_add_test(tests, a_restart_of_all_nodes_replays_the_log);
    tcase_add_test(tests, a_node_that_missed_more_than_the_ring_holds_catches_up_from_the_log);
    tcase_add_test(tests, a_leader_that_was_cut_off_with_as_much_as_it_may_append_follows_again);
    tcase_add_test(tests, a_node_that_starts_has_all_that_it_needs_to_serve_a_peer_that_lags);
    tcase_add_test(tests, a_leader_that_cannot_read_its_log_names_the_block_and_goes);
    tcase_add_test(tests, a_leader_that_is_cut_off_says_unknown_and_acknowledges_nothing);
    tcase_add_test(tests, a_linearizable_query_sees_what_was_acknowledged_before_it);
    tcase_add_test(tests, a_leader_without_a_quorum_answers_no_linearizable_query);
    tcase_add_test(tests, a_follower_read_sees_what_was_acknowledged_before_it);
    tcase_add_test(tests, a_follower_read_joins_no_question_that_is_on_its_way);
    tcase_add_test(tests, a_follower_that_hears_nothing_answers_no_follower_read);
    tcase_add_test(tests, a_bounded_stale_read_is_answered_by_what_is_known_until_that_is_too_old);
    tcase_add_test(tests, the_age_of_what_is_known_counts_from_when_it_was_asked_for);
    tcase_add_test(tests, a_query_waits_for_its_min_index_until_its_deadline);
    tcase_add_test(tests, a_stopping_leader_finishes_its_work_and_hands_over);
    tcase_add_test(tests, a_stopping_leader_that_nobody_could_take_over_from_waits_for_nobody);
    tcase_add_test(tests, a_stop_waits_until_what_came_before_it_is_on_this_disk);
    tcase_add_test(tests, a_stop_that_waits_for_its_disk_makes_no_turns_for_nothing);
    tcase_add_test(tests, a_leader_that_stops_before_its_term_is_established_hands_over_once_it_is);
    tcase_add_test(tests, a_transfer_succeeds_when_whom_it_names_leads);
    tcase_add_test(tests, a_transfer_fails_when_another_one_than_it_names_leads);
    tcase_add_test(tests, five_nodes_go_on_without_two);
    tcase_add_test(tests, storms_lose_nothing_and_end);
}

int main(void)
{
    return unit_main("node", add);
}
