/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_sessions.c - exactly-once over whole nodes: clients that send again across leaders that die, sessions that
 * end by log time (M1; T29, T59, T60, T64; Raft thesis 6.3). That no command is applied twice, and that every
 * acknowledged one stands where its answer said, is checked by cluster_check() after every step. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/server/nodes.h"

static struct cluster *start_with(unsigned nodes, uint64_t seed, uint64_t expiry_ns, uint64_t snapshot_after_bytes)
{
    struct cluster_options options = {.nodes = nodes,
                                      .seed = seed,
                                      .sessions = session_limits_usual(),
                                      .payload_bytes = 64,
                                      .snapshot_after_bytes = snapshot_after_bytes};
    options.sessions.expiry_ns = expiry_ns;
    options.sessions.replies_bytes = 1 << 16;
    return nodes_start(&options);
}

static struct cluster *start(unsigned nodes, uint64_t seed, uint64_t expiry_ns)
{
    return start_with(nodes, unit_seed(seed), expiry_ns, 0);
}

static const struct cluster_proposal *ended(struct cluster *cluster, uint32_t number)
{
    for (unsigned i = 0; i < 2000 && cluster_proposal(cluster, number)->state == PROPOSAL_WAITING; i++)
        cluster_run(cluster, CLUSTER_MS);
    ck_assert_int_ne(cluster_proposal(cluster, number)->state, PROPOSAL_WAITING);
    return cluster_proposal(cluster, number);
}

static uint64_t open_session(struct cluster *cluster)
{
    for (unsigned i = 0; i < 100; i++) {
        const struct cluster_proposal *p =
            ended(cluster, cluster_propose_kind(cluster, leader_of(cluster), COMMAND_SESSION_OPEN, 0));
        if (p->state == PROPOSAL_APPLIED) return p->position;
    }
    ck_abort_msg("no session");
    return 0;
}

static struct host_status host_of(struct cluster *cluster, unsigned i)
{
    static struct node_status status;
    node_status_read(cluster_node(cluster, i), &status);
    return status.host;
}

/* Both ways. */
static void cut(struct cluster *cluster, unsigned a, unsigned b, bool is_cut)
{
    sim_net_cut(cluster_net(cluster), a, b, is_cut);
    sim_net_cut(cluster_net(cluster), b, a, is_cut);
}

START_TEST(a_session_is_opened_by_a_command_and_known_to_every_replica)
{
    struct cluster *cluster = start(3, 1, 60 * SECOND);
    uint64_t a = open_session(cluster), b = open_session(cluster);
    ck_assert_uint_lt(a, b);
    ck_assert_int_eq(ended(cluster, cluster_propose_in(cluster, leader_of(cluster), false, b, 1))->error, 0);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(host_of(cluster, i).sessions, 2);
    ended(cluster, cluster_propose_kind(cluster, leader_of(cluster), COMMAND_SESSION_CLOSE, a));
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(host_of(cluster, i).sessions, 1);
    ck_assert_int_eq(ended(cluster, cluster_propose_in(cluster, leader_of(cluster), false, a, 1))->error,
                     LOCKSTEP_ENOTFOUND);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_command_that_is_in_flight_twice_is_applied_once) /* T59 */
{
    struct cluster *cluster = start(3, 2, 60 * SECOND);
    uint64_t session = open_session(cluster);
    unsigned leader = leader_of(cluster), follower = (leader + 1) % 3;
    uint32_t first = cluster_propose_in(cluster, leader, false, session, 1);
    uint32_t again = cluster_propose_again(cluster, first, leader, false);
    uint32_t forwarded = cluster_propose_again(cluster, first, follower, true);
    const struct cluster_proposal *p = ended(cluster, first);
    ck_assert_int_eq(p->error, 0);
    log_position position = p->position;
    ck_assert_uint_eq(ended(cluster, again)->position, position);
    ck_assert_uint_eq(ended(cluster, forwarded)->position, position);
    ck_assert_uint_eq(host_of(cluster, leader).repeated, 2);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_session_without_a_seq_and_a_seq_without_a_session_are_refused)
{
    struct cluster *cluster = start(3, 8, 60 * SECOND);
    uint64_t session = open_session(cluster);
    const struct cluster_proposal *p =
        ended(cluster, cluster_propose_in(cluster, leader_of(cluster), false, session, 0));
    ck_assert(p->state == PROPOSAL_NOT_APPENDED && p->error == LOCKSTEP_EINVAL);
    p = ended(cluster, cluster_propose_in(cluster, leader_of(cluster), false, 0, 1));
    ck_assert(p->state == PROPOSAL_NOT_APPENDED && p->error == LOCKSTEP_EINVAL);
    cluster_close(cluster);
}
END_TEST

START_TEST(what_became_of_a_command_can_be_asked_of_any_node)
{
    struct cluster *cluster = start(3, 3, 60 * SECOND);
    uint64_t session = open_session(cluster);
    unsigned leader = leader_of(cluster);
    uint32_t applied = cluster_propose_in(cluster, leader, false, session, 1);
    ended(cluster, applied);
    uint32_t never = cluster_propose_in(cluster, (leader + 1) % 3, false, session, 2); /* it does not lead */
    ck_assert_int_eq(ended(cluster, never)->state, PROPOSAL_NOT_APPENDED);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t asked = cluster_query_outcome(cluster, i, applied);
        uint32_t asked_never = cluster_query_outcome(cluster, i, never);
        cluster_run(cluster, SECOND);
        ck_assert(cluster_query_result(cluster, asked)->done);
        ck_assert_int_eq(cluster_query_result(cluster, asked)->error, 0);
        ck_assert_uint_eq(cluster_query_result(cluster, asked)->applied_count,
                          cluster_proposal(cluster, applied)->position);
        ck_assert_uint_eq(cluster_query_result(cluster, asked_never)->applied_count, 0);
    }
    ended(cluster, cluster_propose_kind(cluster, leader, COMMAND_SESSION_CLOSE, session));
    uint32_t asked = cluster_query_outcome(cluster, leader, applied);
    cluster_run(cluster, SECOND);
    ck_assert_int_eq(cluster_query_result(cluster, asked)->error, LOCKSTEP_ENOTFOUND);
    cluster_close(cluster);
}
END_TEST

START_TEST(an_idle_session_ends_though_nobody_proposes_anything) /* R9: log time has to be carried past it */
{
    struct cluster *cluster = start(3, 4, 5 * SECOND);
    uint64_t kept = open_session(cluster), idle = open_session(cluster);
    for (unsigned i = 0; i < 3; i++) {
        cluster_run(cluster, 2 * SECOND);
        ck_assert_int_eq(
            ended(cluster, cluster_propose_kind(cluster, leader_of(cluster), COMMAND_SESSION_KEEP, kept))->error, 0);
    }
    ck_assert_uint_eq(host_of(cluster, leader_of(cluster)).sessions, 1);
    ck_assert_int_eq(ended(cluster, cluster_propose_in(cluster, leader_of(cluster), false, idle, 1))->error,
                     LOCKSTEP_ENOTFOUND);
    struct node_status before, after;
    node_status_read(cluster_node(cluster, leader_of(cluster)), &before);
    cluster_run(cluster, 4 * SECOND);
    ck_assert_uint_eq(host_of(cluster, leader_of(cluster)).sessions, 1);
    cluster_run(cluster, 60 * SECOND);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(host_of(cluster, i).sessions, 0);
    node_status_read(cluster_node(cluster, leader_of(cluster)), &after);
    ck_assert_uint_eq(after.raft.last_index, before.raft.last_index + 1); /* one block for it, and none afterwards */
    cluster_close(cluster);
}
END_TEST

START_TEST(a_new_leader_gives_every_session_its_whole_time) /* T64 */
{
    struct cluster *cluster = start(3, 5, 3 * SECOND);
    uint64_t session = open_session(cluster);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    unsigned leader = leader_of(cluster);
    for (unsigned i = 0; i < 3; i++) cluster_pause(cluster, i, true);
    cluster_run(cluster, 3600 * SECOND); /* nobody leads, and nobody can keep anything alive */
    cluster_crash(cluster, leader);
    for (unsigned i = 0; i < 3; i++)
        if (i != leader) cluster_pause(cluster, i, false);
    ck_assert_int_eq(ended(cluster, cluster_propose_in(cluster, leader_of(cluster), false, session, 1))->error, 0);
    cluster_run(cluster, 4 * SECOND);
    ck_assert_int_eq(ended(cluster, cluster_propose_in(cluster, leader_of(cluster), false, session, 2))->error,
                     LOCKSTEP_ENOTFOUND);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_session_opened_by_a_leader_that_is_cut_off_never_was) /* T29 */
{
    struct cluster *cluster = start(3, 6, 60 * SECOND);
    open_session(cluster);
    ck_assert(cluster_run_until_level(cluster, 5 * SECOND));
    unsigned old = leader_of(cluster);
    for (unsigned i = 0; i < 3; i++)
        if (i != old) cut(cluster, old, i, true);
    uint32_t lost = cluster_propose_kind(cluster, old, COMMAND_SESSION_OPEN, 0);
    cluster_run(cluster, 5 * SECOND); /* the others elect one of them */
    ck_assert_int_eq(ended(cluster, lost)->state, PROPOSAL_UNKNOWN);
    unsigned leader = leader_of(cluster);
    ck_assert_uint_ne(leader, old);
    uint64_t session = open_session(cluster); /* the same position as the lost one's */
    ck_assert_int_eq(ended(cluster, cluster_propose_in(cluster, leader, false, session, 1))->error, 0);
    for (unsigned i = 0; i < 3; i++)
        if (i != old) cut(cluster, old, i, false);
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(host_of(cluster, i).sessions, 2);
    struct host_status a = host_of(cluster, old), b = host_of(cluster, leader);
    ck_assert_uint_eq(a.hash_index, b.hash_index);
    ck_assert_mem_eq(&a.reply_hash, &b.reply_hash, sizeof a.reply_hash);
    cluster_close(cluster);
}
END_TEST

/* --- clients that send again until they know --- */

enum { CLIENTS = 4, OPEN_MAX = 12 };

struct client {
    uint64_t session, next_seq;
    unsigned count;
    struct {
        uint32_t first, last; /* proposals: of the command, and the attempt that runs */
    } open[OPEN_MAX];
    unsigned acknowledged;
};

static void client_turn(struct cluster *cluster, struct client *client, bool takes_new)
{
    struct random *random = cluster_random(cluster);
    unsigned node = (unsigned)random_below(random, 3);
    for (unsigned k = 0; k < client->count;) {
        const struct cluster_proposal *p = cluster_proposal(cluster, client->open[k].last);
        ck_assert_int_ne(p->error, LOCKSTEP_ENOTFOUND);
        ck_assert_int_ne(p->error, LOCKSTEP_EWINDOW);
        if (p->state == PROPOSAL_APPLIED) {
            client->acknowledged++;
            client->open[k] = client->open[--client->count];
            continue;
        }
        /* Sometimes a client loses its patience, too. */
        if (p->state != PROPOSAL_WAITING || random_below(random, 50) == 0)
            client->open[k].last = cluster_propose_again(cluster, client->open[k].first, node, true);
        k++;
    }
    if (!takes_new || client->count == OPEN_MAX || random_below(random, 2) == 0) return;
    uint32_t first = cluster_propose_in(cluster, node, true, client->session, client->next_seq++);
    client->open[client->count].first = client->open[client->count].last = first;
    client->count++;
}

/* In every other round logs are compacted: the table goes through snapshots and installs. */
START_TEST(clients_that_send_again_across_dying_leaders_have_every_command_applied_once) /* T44, T59, T60 */
{
    uint64_t seed = unit_seed(0x73657373), rounds = unit_rounds(4);
    for (uint64_t round = 0; round < rounds; round++) {
        struct cluster *cluster = start_with(3, seed + round, 600 * SECOND, round % 2 == 0 ? 8000 : 0);
        struct random *random = cluster_random(cluster);
        struct client clients[CLIENTS] = {0};
        for (unsigned c = 0; c < CLIENTS; c++) clients[c] = (struct client){open_session(cluster), 1, .count = 0};
        for (unsigned step = 0; step < 400; step++) {
            for (unsigned c = 0; c < CLIENTS; c++) client_turn(cluster, &clients[c], true);
            cluster_run(cluster, random_below(random, 20 * CLUSTER_MS));
            unsigned i = (unsigned)random_below(random, 3);
            switch (random_below(random, 25)) {
            case 0:
                if (cluster_runs(cluster, i)) cluster_crash(cluster, i);
                break;
            case 1:
            case 2: sim_net_cut(cluster_net(cluster), i, (i + 1) % 3, random_below(random, 2) == 0); break;
            default: break;
            }
            for (unsigned k = 0; k < 3; k++)
                if (!cluster_runs(cluster, k) && random_below(random, 20) == 0)
                    ck_assert_msg(cluster_start(cluster, k), "%s", cluster_why(cluster));
        }
        for (unsigned i = 0; i < 3; i++) {
            cut(cluster, i, (i + 1) % 3, false);
            if (!cluster_runs(cluster, i)) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
        }
        uint64_t commands = 0, acknowledged = 0;
        bool busy = true;
        for (unsigned step = 0; step < 4000 && busy; step++) {
            busy = false;
            for (unsigned c = 0; c < CLIENTS; c++) {
                client_turn(cluster, &clients[c], false);
                busy = busy || clients[c].count > 0;
            }
            cluster_run(cluster, 5 * CLUSTER_MS);
        }
        ck_assert(!busy);
        ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
        for (unsigned c = 0; c < CLIENTS; c++) {
            commands += clients[c].next_seq - 1;
            acknowledged += clients[c].acknowledged;
        }
        ck_assert_uint_eq(acknowledged, commands);
        uint64_t applied = 0;
        for (log_position at = 1; at <= cluster_applied_count(cluster, 0); at++)
            if (cluster_applied(cluster, 0, at) != CLUSTER_NOTHING) applied++;
        ck_assert_uint_eq(applied, commands);
        struct node_status status;
        node_status_read(cluster_node(cluster, 0), &status);
        if (round % 2 == 0) ck_assert_uint_gt(status.storage.base, 0);
        struct host_status first = host_of(cluster, 0);
        for (unsigned i = 1; i < 3; i++) {
            struct host_status other = host_of(cluster, i);
            ck_assert_uint_eq(other.hash_index, first.hash_index);
            ck_assert_mem_eq(&other.reply_hash, &first.reply_hash, sizeof other.reply_hash);
        }
        cluster_close(cluster);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_session_is_opened_by_a_command_and_known_to_every_replica);
    tcase_add_test(tests, a_command_that_is_in_flight_twice_is_applied_once);
    tcase_add_test(tests, a_session_without_a_seq_and_a_seq_without_a_session_are_refused);
    tcase_add_test(tests, what_became_of_a_command_can_be_asked_of_any_node);
    tcase_add_test(tests, an_idle_session_ends_though_nobody_proposes_anything);
    tcase_add_test(tests, a_new_leader_gives_every_session_its_whole_time);
    tcase_add_test(tests, a_session_opened_by_a_leader_that_is_cut_off_never_was);
    tcase_add_test(tests, clients_that_send_again_across_dying_leaders_have_every_command_applied_once);
}

int main(void)
{
    return unit_main("node sessions", add);
}
