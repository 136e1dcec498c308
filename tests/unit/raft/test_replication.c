/* SPDX-License-Identifier: Apache-2.0 */
/* test_replication.c - a leader's blocks reach the others and commit. Core 1 leads unless said otherwise. */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;
static struct cluster *c;
static struct cluster_core *lead;

static void open_led(uint32_t count)
{
    c = cluster_open_led(count);
    lead = cluster_core(c, 1);
}

static void propose(uint32_t count, uint32_t bytes)
{
    for (uint32_t i = 0; i < count; i++) ck_assert_int_eq(cluster_propose(lead, bytes, true), 0);
    cluster_take(lead);
}

static int peer_of(const struct raft_status *status, raft_member id)
{
    for (uint32_t i = 0; i < status->peer_count; i++)
        if (status->peers[i].id == id) return (int)i;
    return -1;
}

static void drop_to(raft_member to, enum raft_message_type type)
{
    for (uint32_t i = 0; i < c->message_count;)
        if (c->messages[i]->message.to == to && c->messages[i]->message.type == type)
            cluster_drop(c, i);
        else
            i++;
}

START_TEST(what_a_leader_proposes_commits_everywhere)
{
    open_led(3);
    propose(100, 100);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 101);
    cluster_pass(c, 60 * MS, true);
    for (raft_member id = 1; id <= 3; id++) {
        ck_assert_uint_eq(cluster_status(c, id).commit, 101);
        ck_assert_uint_eq(cluster_status(c, id).durable_index, 101);
    }
    cluster_close(c);
}
END_TEST

START_TEST(nothing_but_heartbeats_leaves_before_the_terms_first_block) /* T24; one round trip saved */
{
    c = cluster_open(3, 0, 1);
    c->propose_at_once = false;
    cluster_start_all(c);
    c->now_ns += 600 * MS;
    cluster_time(cluster_core(c, 1));
    while (cluster_status(c, 1).role != RAFT_LEADER) {
        if (c->message_count > 0) cluster_deliver(c, 0, false, false);
        for (raft_member id = 1; id <= 3; id++)
            if (cluster_core(c, id)->pending_count > 0) cluster_disk_done(cluster_core(c, id), false);
    }
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 2, RAFT_HEARTBEAT));
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_APPEND));
    ck_assert(raft_may_propose(cluster_core(c, 1)->raft, 64));
    cluster_propose(cluster_core(c, 1), 64, false);
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 2, RAFT_APPEND));
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 3, RAFT_APPEND));
    cluster_close(c);
}
END_TEST

START_TEST(two_followers_commit_without_the_leaders_disk)
{
    open_led(3);
    propose(1, 100);
    for (uint32_t i = 0; i < 20; i++) {
        if (c->message_count > 0) cluster_deliver(c, 0, false, false);
        for (raft_member id = 2; id <= 3; id++)
            if (cluster_core(c, id)->pending_count > 0) cluster_disk_done(cluster_core(c, id), false);
    }
    ck_assert_uint_eq(cluster_status(c, 1).durable_index, 1);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_leaders_own_block_counts_once_durable) /* T28 */
{
    open_led(3);
    propose(1, 100);
    drop_to(3, RAFT_APPEND);
    cluster_deliver_to(c, 2);
    cluster_disk_done(cluster_core(c, 2), false);
    cluster_deliver_to(c, 1);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 1); /* one disk of three */
    cluster_disk_done(lead, false);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_single_voter_commits_by_its_disk_alone_and_not_before) /* T28 */
{
    open_led(1);
    propose(3, 100);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 1);
    cluster_disk_done(lead, false);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 4);
    cluster_close(c);
}
END_TEST

START_TEST(learners_hold_blocks_but_commit_none)
{
    c = cluster_open(3, 1, 3); /* 3 learns */
    cluster_start_all(c);
    cluster_elect(c, 1);
    lead = cluster_core(c, 1);
    cluster_crash(c, 2, 0);
    propose(1, 100);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 3).durable_index, 2);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 1);
    cluster_start(c, 2);
    cluster_pass(c, 200 * MS, true);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 2);
    ck_assert_uint_eq(cluster_status(c, 3).commit, 2);
    cluster_close(c);
}
END_TEST

START_TEST(older_terms_are_not_committed_by_counting) /* R4; thesis 3.6.2, figure 8; T18 */
{
    c = cluster_open(3, 0, 1);
    c->propose_at_once = false;
    cluster_lay_log(c, 1, (raft_term[]){1, 2}, 2, 1, (struct raft_hard_state){.term = 2});
    cluster_lay_log(c, 2, (raft_term[]){1, 2}, 2, 1, (struct raft_hard_state){.term = 2});
    cluster_lay_log(c, 3, (raft_term[]){1}, 1, 1, (struct raft_hard_state){.term = 2});
    c->committed[1] = cluster_core(c, 1)->disk[1];
    c->committed_last = 1;
    cluster_start_all(c);
    c->now_ns += 600 * MS;
    cluster_time(cluster_core(c, 1));
    cluster_settle(c);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_LEADER);
    for (uint32_t i = 0; i < 5; i++) cluster_pass(c, 60 * MS, true);
    cluster_propose(cluster_core(c, 1), 64, false);
    for (uint32_t i = 0; i < 4; i++) { /* 3 takes block 2 alone: the probe. No disk but its own works. */
        cluster_deliver_to(c, 3);
        if (cluster_core(c, 3)->pending_count > 0) cluster_disk_done(cluster_core(c, 3), false);
        if (cluster_core(c, 3)->disk_last == 3) break;
        cluster_deliver_to(c, 1);
        struct raft_status status = cluster_status(c, 1);
        if (status.peers[peer_of(&status, 3)].match == 2) break;
    }
    ck_assert_uint_eq(cluster_core(c, 3)->disk_last, 2);
    ck_assert_uint_eq(cluster_status(c, 1).durable_index, 2);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 1); /* block 2 is on three disks, and may still be overwritten */
    ck_assert(!cluster_status(c, 1).writable);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 3); /* and now cannot */
    ck_assert(cluster_status(c, 1).writable);
    cluster_close(c);
}
END_TEST

START_TEST(appends_are_pipelined_and_carry_what_fits) /* thesis 10.2.1 */
{
    open_led(3);
    propose(40, 1000); /* four fit into one append of 4,096 bytes */
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_APPEND), 10);
    ck_assert_uint_eq(cluster_status(c, 1).appends_inflight_max, 10);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 41);
    cluster_close(c);
}
END_TEST

START_TEST(one_take_sends_a_bounded_number_of_appends)
{
    open_led(3);
    propose(30, 3000);
    ck_assert_uint_le(cluster_sent_count(c, 1, 2, RAFT_APPEND), RAFT_APPENDS_PER_PEER_MAX);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 31);
    cluster_close(c);
}
END_TEST

START_TEST(bytes_in_flight_are_bounded_per_peer_and_one_large_block_always_passes)
{
    c = cluster_open(3, 0, 3);
    c->options.append_inflight_bytes_max = 5000;
    cluster_start_all(c);
    cluster_elect(c, 1);
    lead = cluster_core(c, 1);
    propose(10, 1500);
    struct raft_status status = cluster_status(c, 1);
    ck_assert_uint_le(status.peers[peer_of(&status, 2)].inflight_bytes, 5000);
    ck_assert_uint_ge(status.peers[peer_of(&status, 2)].inflight_bytes, 3500);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 11);
    propose(2, 9000);
    status = cluster_status(c, 1);
    ck_assert_uint_eq(status.peers[peer_of(&status, 2)].inflight_appends, 1);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 13);
    cluster_close(c);
}
END_TEST

START_TEST(uncommitted_bytes_are_bounded_but_a_term_always_gets_its_first_block) /* R10 */
{
    c = cluster_open(3, 0, 3);
    c->options.uncommitted_bytes_max = 1000;
    cluster_start_all(c);
    cluster_elect(c, 1);
    lead = cluster_core(c, 1);
    ck_assert_int_eq(cluster_propose(lead, 5000, false), 0); /* one block at all passes */
    ck_assert(!raft_may_propose(lead->raft, 1));
    struct raft_event event = {
        .type = RAFT_EVENT_PROPOSE, .now_ns = c->now_ns, .as.propose = {.index = lead->last + 1, .bytes = 1}};
    struct raft_result result;
    raft_step(lead->raft, &event, &result);
    ck_assert_int_eq(result.error, LOCKSTEP_EFULL);
    for (uint32_t i = 0; i < c->message_count; i++)
        if (c->messages[i]->message.to != 2) cluster_drop(c, i--);
    cluster_deliver_to(c, 2);
    cluster_crash(c, 2, 9); /* 2 has the block on disk, uncommitted, and will lead */
    cluster_crash(c, 1, 9);
    cluster_start(c, 2);
    c->now_ns += 600 * MS;
    cluster_time(cluster_core(c, 2));
    cluster_drop_all(c);
    cluster_elect(c, 2);
    ck_assert_uint_eq(cluster_status(c, 2).commit, 3);
    ck_assert(raft_may_propose(cluster_core(c, 2)->raft, 900)); /* the sum came down with the commit */
    cluster_close(c);
}
END_TEST

START_TEST(a_new_leader_counts_what_it_inherited_as_uncommitted) /* R10 */
{
    c = cluster_open(3, 0, 1);
    c->options.uncommitted_bytes_max = 1000;
    raft_term terms[10];
    for (uint32_t i = 0; i < 10; i++) terms[i] = 1;
    cluster_lay_log(c, 1, terms, 10, 1, (struct raft_hard_state){.term = 1}); /* 900 bytes not known committed */
    c->committed[1] = cluster_core(c, 1)->disk[1];
    c->committed_last = 1;
    cluster_lay_log(c, 2, terms, 1, 1, (struct raft_hard_state){.term = 1});
    cluster_start(c, 1);
    cluster_start(c, 2);
    c->now_ns += 600 * MS;
    cluster_time(cluster_core(c, 1));
    while (cluster_status(c, 1).role != RAFT_LEADER) {
        for (raft_member id = 1; id <= 2; id++)
            if (cluster_core(c, id)->pending_count > 0) cluster_disk_done(cluster_core(c, id), false);
        if (c->message_count > 0) cluster_deliver(c, 0, false, false);
    }
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 11); /* its first block passed */
    ck_assert(!raft_may_propose(cluster_core(c, 1)->raft, 100));
    ck_assert(raft_may_propose(cluster_core(c, 1)->raft, 30));
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 11);
    ck_assert(raft_may_propose(cluster_core(c, 1)->raft, 1000));
    cluster_close(c);
}
END_TEST

START_TEST(a_lost_append_is_found_and_sent_again) /* T24 */
{
    open_led(3);
    propose(1, 100);
    drop_to(2, RAFT_APPEND);
    drop_to(3, RAFT_APPEND);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 1);
    cluster_pass(c, 4 * 60 * MS, true);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_gap_is_found_by_the_next_append_at_once)
{
    open_led(3);
    propose(1, 100);
    drop_to(2, RAFT_APPEND);
    propose(1, 100);
    cluster_settle(c); /* no time passes */
    ck_assert_uint_eq(cluster_status(c, 2).last_index, 3);
    cluster_close(c);
}
END_TEST

START_TEST(heartbeats_leave_on_time_whatever_is_stuck) /* T24: redpanda 20801 */
{
    open_led(3);
    propose(30, 4000);
    cluster_drop_all(c);
    for (uint32_t i = 0; i < 4; i++) {
        cluster_pass(c, 60 * MS, false);
        ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_HEARTBEAT), 1);
        cluster_drop_all(c);
    }
    cluster_close(c);
}
END_TEST

START_TEST(a_peer_far_behind_is_served_from_the_log_one_load_at_a_time)
{
    open_led(3);
    cluster_crash(c, 3, 0);
    propose(200, 100);
    cluster_settle(c);
    lead->ring_first = 150;
    cluster_start(c, 3);
    uint32_t loads = 0;
    for (uint32_t i = 0; i < 4000 && cluster_status(c, 3).last_index < 201; i++) {
        if (cluster_load_done(lead, true, false))
            loads++;
        else if (c->message_count > 0)
            cluster_deliver(c, 0, false, false);
        else if (cluster_core(c, 3)->pending_count > 0)
            cluster_disk_done(cluster_core(c, 3), false);
        else
            cluster_pass(c, 10 * MS, false);
    }
    ck_assert_uint_eq(cluster_status(c, 3).last_index, 201);
    ck_assert_uint_ge(loads, 4); /* 4,096 bytes each */
    cluster_close(c);
}
END_TEST

START_TEST(a_load_that_fails_is_asked_again_later)
{
    open_led(3);
    cluster_crash(c, 3, 0);
    propose(20, 100);
    cluster_settle(c);
    lead->ring_first = 10;
    cluster_start(c, 3);
    while (!cluster_load_done(lead, false, false)) {
        if (c->message_count > 0)
            cluster_deliver(c, 0, false, false);
        else
            cluster_pass(c, 10 * MS, false);
    }
    ck_assert(!cluster_load_done(lead, false, false)); /* not at once */
    cluster_pass(c, 300 * MS, true);
    ck_assert_uint_eq(cluster_status(c, 3).last_index, 21);
    cluster_close(c);
}
END_TEST

START_TEST(a_load_that_outlives_the_leadership_is_dropped)
{
    open_led(3);
    cluster_crash(c, 3, 0);
    propose(20, 100);
    cluster_settle(c);
    lead->ring_first = 10;
    cluster_start(c, 3);
    while (lead->loads[2].peer == 0) {
        if (c->message_count > 0)
            cluster_deliver(c, 0, false, false);
        else
            cluster_pass(c, 10 * MS, false);
    }
    struct raft_message newer = {.type = RAFT_HEARTBEAT, .from = 2, .to = 1, .term = 9};
    cluster_drop_all(c);
    cluster_inject(lead, &newer, NULL, 0);
    cluster_drop_all(c);
    ck_assert(cluster_load_done(lead, true, false));
    ck_assert_ptr_null(cluster_sent(c, 1, 3, RAFT_APPEND));
    cluster_close(c);
}
END_TEST

START_TEST(a_peer_that_needs_compacted_blocks_is_shown_as_unserved) /* T27, until snapshots are installed */
{
    static char memory[4 << 20] __attribute__((aligned(16)));
    static struct raft_effects fx;
    c = cluster_open(3, 0, 1);
    struct raft_options options = c->options;
    options.self = 1;
    options.blocks_context = cluster_core(c, 1);
    cluster_core(c, 1)->last = 12;
    for (raft_index i = 11; i <= 13; i++) cluster_core(c, 1)->log[i].bytes = 64;
    struct raft_term_run run = {11, 1};
    struct raft_start start = {.hard_state = {.term = 1},
                               .base_index = 10,
                               .base_term = 1,
                               .last_index = 12,
                               .commit = 10,
                               .runs = &run,
                               .run_count = 1,
                               .configuration = c->configuration};
    struct raft *r = raft_open(memory, &options, &start, 0);
    struct raft_result result;
    struct raft_message m = {.type = RAFT_PREVOTE_REPLY, .from = 2, .to = 1, .term = 1, .as.vote_reply = {2, true}};
    struct raft_event event = {.type = RAFT_EVENT_TIME, .now_ns = 600 * MS};
    raft_step(r, &event, &result);
    raft_take(r, 600 * MS, &fx);
    event.type = RAFT_EVENT_MESSAGE;
    event.as.message.message = &m;
    raft_step(r, &event, &result);
    raft_take(r, 600 * MS, &fx);
    raft_step(r, &(struct raft_event){.type = RAFT_EVENT_PERSISTED, .as.persisted = {fx.persist_seq}}, &result);
    m.type = RAFT_VOTE_REPLY;
    m.term = 2;
    raft_step(r, &event, &result);
    raft_take(r, 600 * MS, &fx);
    ck_assert_int_eq(fx.role, RAFT_LEADER);
    cluster_core(c, 1)->last = 13;
    raft_step(r, &(struct raft_event){.type = RAFT_EVENT_PROPOSE, .as.propose = {.index = 13, .bytes = 64}}, &result);
    raft_take(r, 600 * MS, &fx);
    m = (struct raft_message){.type = RAFT_ACK,
                              .from = 3,
                              .to = 1,
                              .term = 2,
                              .as.ack = {.rejected = true, .rejected_index = 12, .hint_index = 4, .hint_term = 1}};
    raft_step(r, &event, &result);
    raft_take(r, 600 * MS, &fx);
    raft_check(r);
    ck_assert_uint_eq(fx.send_count, 0);
    ck_assert_uint_eq(fx.load_count, 0);
    struct raft_status status;
    raft_status_read(r, &status);
    ck_assert_int_eq(status.peers[peer_of(&status, 3)].state, RAFT_PROGRESS_SNAPSHOT);
    ck_assert_int_eq(status.peers[peer_of(&status, 2)].state, RAFT_PROGRESS_PROBE);
    cluster_core(c, 1)->last = 0;
    cluster_close(c);
}
END_TEST

START_TEST(acks_from_strangers_and_impossible_acks_commit_nothing) /* T12, T21, T25, I1 */
{
    open_led(3);
    propose(1, 100);
    cluster_disk_done(lead, false); /* one more would be a majority */
    struct raft_message m = {
        .type = RAFT_ACK, .from = 99, .to = 1, .term = 1, .as.ack = {2, 2, 0, 0, 0, 0, false, false}};
    ck_assert_int_eq(cluster_inject(lead, &m, NULL, 0), 0);
    m.from = 2;
    m.as.ack.durable_index = m.as.ack.validated_index = 3; /* what was never sent */
    ck_assert_int_eq(cluster_inject(lead, &m, NULL, 0), LOCKSTEP_EINVAL);
    m.as.ack.validated_index = 1;
    m.as.ack.durable_index = 2;
    ck_assert_int_eq(cluster_inject(lead, &m, NULL, 0), LOCKSTEP_EINVAL);
    m.as.ack.validated_index = 2;
    m.as.ack.round = 1u << 30; /* a round that never left */
    ck_assert_int_eq(cluster_inject(lead, &m, NULL, 0), LOCKSTEP_EINVAL);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 1);
    cluster_close(c);
}
END_TEST

START_TEST(acks_of_an_older_term_commit_nothing) /* T21, T26 */
{
    open_led(3);
    cluster_pass(c, 300 * MS, true);
    cluster_transfer(lead, 2);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_leader(c), 2);
    lead = cluster_core(c, 2);
    raft_term term = cluster_status(c, 2).term;
    propose(1, 100);
    cluster_drop_all(c);
    raft_index last = lead->last;
    struct raft_message m = {
        .type = RAFT_ACK, .from = 3, .to = 2, .term = term - 1, .as.ack = {last, last, 0, 0, 0, 0, false, false}};
    ck_assert_int_eq(cluster_inject(lead, &m, NULL, 0), 0);
    cluster_disk_done(lead, false);
    ck_assert_uint_lt(cluster_status(c, 2).commit, last);
    cluster_close(c);
}
END_TEST

START_TEST(a_follower_with_a_full_ring_catches_up_once_there_is_room) /* R10 */
{
    open_led(3);
    cluster_core(c, 3)->room_bytes = 0;
    propose(50, 100);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 51); /* it holds nobody up */
    ck_assert_uint_eq(cluster_status(c, 3).last_index, 1);
    uint64_t before = c->now_ns;
    uint32_t probes = 0;
    while (c->now_ns - before < 3000 * MS) {
        cluster_pass(c, 10 * MS, false);
        probes += cluster_sent_count(c, 1, 3, RAFT_APPEND);
        cluster_settle(c);
    }
    ck_assert_uint_ge(probes, 5);
    ck_assert_uint_le(probes, 20); /* back-off up to one election timeout */
    ck_assert_int_eq(cluster_status(c, 3).role, RAFT_FOLLOWER);
    cluster_core(c, 3)->room_bytes = UINT64_MAX;
    cluster_pass(c, 500 * MS, true);
    ck_assert_uint_eq(cluster_status(c, 3).commit, 51);
    cluster_close(c);
}
END_TEST

START_TEST(a_slow_disk_of_one_follower_holds_nobody_up)
{
    open_led(3);
    for (uint32_t i = 0; i < 50; i++) {
        propose(1, 100);
        while (c->message_count > 0) cluster_deliver(c, 0, false, false);
        cluster_disk_done(lead, false);
        cluster_disk_done(cluster_core(c, 2), false);
        while (c->message_count > 0) cluster_deliver(c, 0, false, false);
    }
    ck_assert_uint_eq(cluster_status(c, 1).commit, 51);
    ck_assert_uint_eq(cluster_status(c, 3).commit, 50); /* applied before it is durable here: others have it */
    ck_assert_uint_eq(cluster_status(c, 3).durable_index, 1);
    struct raft_status status = cluster_status(c, 1);
    ck_assert_int_eq(status.peers[peer_of(&status, 3)].state, RAFT_PROGRESS_REPLICATE);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_status(c, 3).durable_index, 51);
    cluster_close(c);
}
END_TEST

START_TEST(a_divergent_tail_is_replaced_in_few_messages) /* T27: async-raft livelock; thesis 3.5 */
{
    c = cluster_open(3, 0, 1);
    raft_term old[300], newer[120];
    for (uint32_t i = 0; i < 300; i++) old[i] = i < 100 ? 1 : 2;
    for (uint32_t i = 0; i < 120; i++) newer[i] = i < 100 ? 1 : 3;
    cluster_lay_log(c, 1, newer, 120, 100, (struct raft_hard_state){.term = 3});
    cluster_lay_log(c, 2, newer, 120, 100, (struct raft_hard_state){.term = 3});
    cluster_lay_log(c, 3, old, 300, 100, (struct raft_hard_state){.term = 3});
    for (raft_index i = 1; i <= 100; i++) c->committed[i] = cluster_core(c, 1)->disk[i];
    c->committed_last = 100;
    cluster_start_all(c);
    c->now_ns += 600 * MS;
    cluster_time(cluster_core(c, 1));
    uint32_t refusals = 0;
    while (c->message_count > 0 || cluster_core(c, 3)->pending_count > 0) {
        for (raft_member id = 1; id <= 3; id++)
            while (cluster_core(c, id)->pending_count > 0) cluster_disk_done(cluster_core(c, id), false);
        if (c->message_count == 0) break;
        const struct raft_message *m = &c->messages[0]->message;
        refusals += m->type == RAFT_ACK && m->as.ack.rejected;
        cluster_deliver(c, 0, false, false);
    }
    ck_assert_uint_eq(cluster_status(c, 3).last_index, 121);
    ck_assert_uint_eq(cluster_status(c, 3).validated_index, 121);
    ck_assert_uint_le(refusals, 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_restart_with_an_older_commit_finds_it_again) /* T49 */
{
    open_led(3);
    propose(10, 100);
    cluster_settle(c);
    for (raft_member id = 1; id <= 3; id++) {
        cluster_crash(c, id, 99);
        cluster_core(c, id)->disk_commit = 2;
    }
    cluster_start_all(c);
    ck_assert_uint_eq(cluster_status(c, 2).commit, 2);
    for (uint32_t i = 1; i <= 3; i++) cluster_core(c, i)->commit = 2;
    cluster_elect(c, 2);
    ck_assert_uint_eq(cluster_status(c, 2).commit, 12);
    cluster_close(c);
}
END_TEST

START_TEST(replies_to_many_strangers_close_the_turn_before_they_overflow)
{
    open_led(3);
    struct raft_message m = {.type = RAFT_PREVOTE, .to = 1, .term = 5, .as.vote = {.campaign_term = 6}};
    for (raft_member from = 100; from < 200; from++) {
        m.from = from;
        struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_ns = c->now_ns, .as.message = {.message = &m}};
        cluster_step(lead, &event, true);
    }
    cluster_take(lead);
    uint32_t replies = 0;
    for (raft_member from = 100; from < 200; from++) replies += cluster_sent_count(c, 1, from, RAFT_PREVOTE_REPLY);
    ck_assert_uint_eq(replies, 100);
    cluster_close(c);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, what_a_leader_proposes_commits_everywhere);
    tcase_add_test(tests, nothing_but_heartbeats_leaves_before_the_terms_first_block);
    tcase_add_test(tests, two_followers_commit_without_the_leaders_disk);
    tcase_add_test(tests, a_leaders_own_block_counts_once_durable);
    tcase_add_test(tests, a_single_voter_commits_by_its_disk_alone_and_not_before);
    tcase_add_test(tests, learners_hold_blocks_but_commit_none);
    tcase_add_test(tests, older_terms_are_not_committed_by_counting);
    tcase_add_test(tests, appends_are_pipelined_and_carry_what_fits);
    tcase_add_test(tests, one_take_sends_a_bounded_number_of_appends);
    tcase_add_test(tests, bytes_in_flight_are_bounded_per_peer_and_one_large_block_always_passes);
    tcase_add_test(tests, uncommitted_bytes_are_bounded_but_a_term_always_gets_its_first_block);
    tcase_add_test(tests, a_new_leader_counts_what_it_inherited_as_uncommitted);
    tcase_add_test(tests, a_lost_append_is_found_and_sent_again);
    tcase_add_test(tests, a_gap_is_found_by_the_next_append_at_once);
    tcase_add_test(tests, heartbeats_leave_on_time_whatever_is_stuck);
    tcase_add_test(tests, a_peer_far_behind_is_served_from_the_log_one_load_at_a_time);
    tcase_add_test(tests, a_load_that_fails_is_asked_again_later);
    tcase_add_test(tests, a_load_that_outlives_the_leadership_is_dropped);
    tcase_add_test(tests, a_peer_that_needs_compacted_blocks_is_shown_as_unserved);
    tcase_add_test(tests, acks_from_strangers_and_impossible_acks_commit_nothing);
    tcase_add_test(tests, acks_of_an_older_term_commit_nothing);
    tcase_add_test(tests, a_follower_with_a_full_ring_catches_up_once_there_is_room);
    tcase_add_test(tests, a_slow_disk_of_one_follower_holds_nobody_up);
    tcase_add_test(tests, a_divergent_tail_is_replaced_in_few_messages);
    tcase_add_test(tests, a_restart_with_an_older_commit_finds_it_again);
    tcase_add_test(tests, replies_to_many_strangers_close_the_turn_before_they_overflow);
}

int main(void)
{
    return unit_main("raft replication", add);
}
