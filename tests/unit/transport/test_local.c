/* SPDX-License-Identifier: Apache-2.0 */
/* test_local.c - followers that read the leader's ring: what Raft sees is what it would see on a wire, or is lost, late or
 * twice, as there; rules S1 to S7. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/transport/local_rig.h"

static const uint64_t MS = UINT64_C(1000000);

#define GOT(node)  rig[node].got, rig[node].got_count
#define SENT(node) rig[node].sent, rig[node].sent_count

/* --- who finds whom ------------------------------------------------------------------------------------------------- */

START_TEST(peers_that_the_transport_beneath_knows_find_each_other)
{
    rig_settle();
    for (unsigned i = 0; i < RIG_NODES; i++)
        for (unsigned j = 0; j < RIG_NODES; j++)
            if (i != j) ck_assert_uint_ne(rig_dialled(i, j), LOCAL_CONNECTIONS_MAX);
    ck_assert_uint_eq(rig[0].listens, 1);
    ck_assert(!rig_status(0, 1).shared_memory);
}
END_TEST

START_TEST(who_is_not_connected_beneath_is_neither_dialled_nor_granted)
{
    rig[1].status[0].connected_in = false;  /* node 0 is no peer of node 1's yet */
    rig[0].status[2].connected_out = false; /* and node 2 none of node 0's */
    rig_settle();
    ck_assert_uint_eq(rig_dialled(0, 1), LOCAL_CONNECTIONS_MAX);
    ck_assert_uint_eq(rig_dialled(0, 2), LOCAL_CONNECTIONS_MAX);
    ck_assert_uint_ne(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX);
    ck_assert_uint_eq(rig[0].reports, 1); /* said once, tried each second */
    rig[1].status[0].connected_in = true;
    rig[0].status[2].connected_out = true;
    rig_now_ns += LOCAL_RETRY_MS * MS;
    rig_settle();
    ck_assert_uint_ne(rig_dialled(0, 1), LOCAL_CONNECTIONS_MAX);
    ck_assert_uint_ne(rig_dialled(0, 2), LOCAL_CONNECTIONS_MAX);
}
END_TEST

START_TEST(another_member_id_or_start_than_beneath_is_refused)
{
    rig[1].status[0].boot = 99;                  /* it knows a later start of node 0 */
    rig[1].status[2].member_id = rig_member(77); /* and somebody else in node 2's slot */
    rig_settle();
    ck_assert_uint_eq(rig_dialled(0, 1), LOCAL_CONNECTIONS_MAX);
    ck_assert_uint_eq(rig_dialled(2, 1), LOCAL_CONNECTIONS_MAX);
    ck_assert_ptr_nonnull(strstr(rig[0].report, "no such member is connected to this node"));
}
END_TEST

START_TEST(another_cluster_member_start_or_group_is_refused)
{
    const struct local_hello good = {.kind = LOCAL_FOLLOWER,
                                     .cluster_id = RIG_CLUSTER,
                                     .member_id = rig_member(1),
                                     .boot = 11,
                                     .wanted_id = rig_member(0),
                                     .wanted_boot = 10};
    rig_settle();
    for (unsigned i = 0; i < 6; i++) {
        struct local_hello hello = good;
        struct local_reply reply;
        struct local_grant grant;
        if (i == 1) hello.cluster_id++;
        if (i == 2) hello.wanted_id++;
        if (i == 3) hello.wanted_boot++;
        if (i == 4) hello.group++;
        if (i == 5) hello.member_id = 0;
        int rc = rig[0].link_owner.judge(rig[0].link_owner.context, 40 + i, &hello, &reply, &grant);
        ck_assert_int_eq(rc, i == 0 ? 0 : LOCKSTEP_EFOREIGN);
        ck_assert_uint_eq(reply.member_id, rig_member(0));
        ck_assert(i == 0 || reply.why[0] != 0);
    }
    rig[0].link_owner.ended(rig[0].link_owner.context, 40, "");
}
END_TEST

START_TEST(before_birth_nobody_is_found_and_nothing_is_touched)
{
    for (unsigned i = 0; i < RIG_NODES; i++) {
        const struct transport_hello unborn = {.member_id = rig_member(i)};
        rig[i].transport->ops->hello_set(rig[i].transport, &unborn);
        rig[i].ring_shown = NULL;
    }
    rig_settle();
    ck_assert_uint_eq(rig[0].listens + rig[0].dials, 0);
    ck_assert_uint_gt(rig[0].inner_flushes, 0);
    for (unsigned i = 0; i < RIG_NODES; i++) { /* born */
        const struct transport_hello hello = {.cluster_id = RIG_CLUSTER, .member_id = rig_member(i), .boot = 10 + i};
        rig[i].ring_shown = rig[i].ring;
        rig[i].transport->ops->hello_set(rig[i].transport, &hello);
    }
    rig_settle();
    ck_assert_uint_ne(rig_dialled(0, 1), LOCAL_CONNECTIONS_MAX);
}
END_TEST

START_TEST(a_name_that_is_taken_is_said_once_and_tried_again)
{
    rig[0].listen_refused = true;
    rig_settle();
    ck_assert_uint_eq(rig[0].listens, 2);
    ck_assert_uint_eq(rig[0].reports, 1);
    ck_assert_ptr_nonnull(strstr(rig[0].report, "has this node's local name"));
    ck_assert_uint_eq(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX);
    ck_assert_uint_ne(rig_dialled(0, 1), LOCAL_CONNECTIONS_MAX); /* it finds the others */
    rig[0].listen_refused = false;
    rig_now_ns += LOCAL_RETRY_MS * MS;
    rig_settle();
    ck_assert_uint_ne(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX);
}
END_TEST

/* Level memory: the same node under another member id; a slot that goes to another peer; a peer that is removed. */
START_TEST(a_slot_that_goes_to_another_member_loses_its_connections)
{
    rig_follow(3);
    ck_assert_int_eq(rig[0].transport->ops->peer_set(rig[0].transport, 1, "=", ""), 0);
    ck_assert_int_eq(rig[0].transport->ops->peer_set(rig[0].transport, 1, "!", ""), LOCKSTEP_EINVAL);
    ck_assert(rig_status(0, 1).shared_memory);
    ck_assert_int_eq(rig[0].transport->ops->peer_set(rig[0].transport, 1, "n9", ""), 0);
    ck_assert(!rig_status(0, 1).shared_memory);
    ck_assert_int_eq(rig_append(0, 1, 1, 3), 0);
    ck_assert_uint_eq(rig_count(SENT(0), RAFT_APPEND), 1);
    rig_turn(0);
    ck_assert_uint_eq(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX);
    ck_assert(!rig_status(1, 0).shared_memory);
    ck_assert_uint_eq(rig_dialled(0, 1), LOCAL_CONNECTIONS_MAX);
    ck_assert(rig_status(0, 2).shared_memory); /* others do not notice */
}
END_TEST

START_TEST(a_member_that_says_another_id_beneath_is_dialled_anew)
{
    rig_follow(3);
    rig[0].status[1].member_id = rig_member(1) + 0x100;
    rig_now_ns += LOCAL_LOOK_MS * MS;
    rig_turn(0);
    ck_assert(!rig_status(0, 1).shared_memory);
    ck_assert_uint_eq(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX);
}
END_TEST

START_TEST(another_identity_of_this_node_ends_everything)
{
    rig_follow(3);
    const struct transport_hello other = {.cluster_id = RIG_CLUSTER, .member_id = rig_member(0), .boot = 11};
    rig[0].transport->ops->hello_set(rig[0].transport, &other);
    rig_turn(0);
    ck_assert_uint_eq(rig[0].listens, 2);
    for (unsigned i = 1; i < RIG_NODES; i++) {
        ck_assert_uint_eq(rig_dialled(i, 0), LOCAL_CONNECTIONS_MAX);
        ck_assert(!rig_status(i, 0).shared_memory);
    }
}
END_TEST

START_TEST(a_peer_that_closes_and_one_that_is_closed_leave_the_others_alone)
{
    rig_follow(3);
    rig_node_close(2);
    rig_publish(0, 1, 8);
    rig_turn(0);
    rig_turn(1);
    ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 1);
    ck_assert(!rig_status(0, 2).shared_memory);
    rig_node_close(0);
    rig_turn(1);
    ck_assert(!rig_status(1, 0).shared_memory);
}
END_TEST

/* --- following ------------------------------------------------------------------------------------------------------- */

START_TEST(a_pull_begins_with_an_ack_that_matches_and_brings_what_lies_behind)
{
    rig_settle();
    rig_role(0, 5, true);
    for (unsigned i = 0; i < 4; i++) rig_publish(0, 5, 100);
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 0); /* nothing is pulled before it */
    rig_ack(1, 0, 5, 2, 1, 3);
    ck_assert_uint_eq(rig[1].sent_count, 0); /* it stands in the slot */
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 1);
    const struct rig_frame *f = &rig[1].got[0];
    ck_assert_uint_eq(f->slot, 0);
    ck_assert_uint_eq(f->message.type, RAFT_APPEND);
    ck_assert_uint_eq(f->message.from, rig_member(0));
    ck_assert_uint_eq(f->message.to, rig_member(1));
    ck_assert_uint_eq(f->message.term, 5);
    ck_assert_uint_eq(f->message.as.append.previous_index, 2);
    ck_assert_uint_eq(f->message.as.append.previous_term, 5);
    ck_assert_uint_eq(f->message.as.append.last_index, 4);
    struct ring_slot third;
    ck_assert_int_eq(ring_find(rig[0].ring, 3, &third), 0);
    ck_assert_uint_eq(f->body_bytes, 2 * third.bytes);
    ck_assert_mem_eq(f->body, ring_at(rig[0].ring, third.pos), f->body_bytes);
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 1); /* once */

    rig_turn(0);
    const struct rig_frame *ack = rig_last(GOT(0), RAFT_ACK);
    ck_assert_ptr_nonnull(ack);
    ck_assert_uint_eq(ack->slot, 1);
    ck_assert_uint_eq(ack->message.from, rig_member(1));
    ck_assert_uint_eq(ack->message.to, rig_member(0));
    ck_assert_uint_eq(ack->message.term, 5);
    ck_assert_uint_eq(ack->message.as.ack.validated_index, 2);
    ck_assert_uint_eq(ack->message.as.ack.durable_index, 1);
    ck_assert_uint_eq(ack->message.as.ack.round, 3);
    ck_assert(rig_status(0, 1).shared_memory && rig_status(1, 0).shared_memory);
}
END_TEST

START_TEST(acks_that_do_not_match_a_leading_ring_go_by_the_transport_beneath)
{
    rig_settle();
    rig_role(0, 5, true);
    for (unsigned i = 0; i < 4; i++) rig_publish(0, 5, 100);
    rig_ack(1, 0, 4, 2, 1, 3); /* another term */
    rig_ack(1, 0, 6, 2, 1, 3);
    rig_ack(1, 0, 5, 5, 1, 3); /* more than it has */
    rig_ack(1, 0, 5, 0, 0, 3); /* nothing matches yet */
    rig_ack(1, 2, 5, 2, 1, 3); /* node 2 does not lead */
    struct raft_message m = {.type = RAFT_ACK, .from = rig_member(1), .to = rig_member(0), .term = 5};
    m.as.ack = (struct raft_ack){.validated_index = 2, .full = true};
    ck_assert_int_eq(rig_send(1, 0, &m, 0, 0), 0);
    m.as.ack = (struct raft_ack){.validated_index = 2, .rejected = true, .rejected_index = 3};
    ck_assert_int_eq(rig_send(1, 0, &m, 0, 0), 0);
    rig_role(0, 5, false); /* it stepped down */
    rig_ack(1, 0, 5, 2, 1, 3);
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 8);
    rig_turn(1);
    rig_turn(0);
    ck_assert_uint_eq(rig[0].got_count + rig[1].got_count, 0);
}
END_TEST

START_TEST(the_leader_sends_nothing_that_its_reader_finds_in_memory)
{
    rig_follow(3);
    rig_publish(0, 1, 8);
    ck_assert_int_eq(rig_append(0, 1, 1, 4), 0);
    ck_assert_int_eq(rig_heartbeat(0, 1, 1, 9), 0);
    ck_assert_uint_eq(rig[0].sent_count, 0);
    /* but what it does not find there */
    struct raft_message m = {.type = RAFT_APPEND, .from = rig_member(0), .to = rig_member(1), .term = 1};
    ck_assert_int_eq(rig_send(0, 1, &m, 0, 64), 0); /* old blocks, from the log */
    m.type = RAFT_INSTALL;
    ck_assert_int_eq(rig_send(0, 1, &m, 0, 64), 0);
    m.type = RAFT_TIMEOUT_NOW;
    ck_assert_int_eq(rig_send(0, 1, &m, 0, 0), 0);
    m.type = RAFT_VOTE;
    ck_assert_int_eq(rig_send(0, 1, &m, 0, 0), 0);
    ck_assert_uint_eq(rig[0].sent_count, 4);
}
END_TEST

START_TEST(one_beat_a_turn_tells_all_readers_of_a_round)
{
    rig_follow(3);
    ck_assert_int_eq(rig_heartbeat(0, 1, 1, 9), 0);
    ck_assert_int_eq(rig_heartbeat(0, 2, 1, 9), 0);
    rig_turn(0);
    for (unsigned i = 1; i < RIG_NODES; i++) {
        rig_turn(i);
        ck_assert_uint_eq(rig[i].got_count, 1);
        ck_assert_uint_eq(rig[i].got[0].message.type, RAFT_HEARTBEAT);
        ck_assert_uint_eq(rig[i].got[0].message.as.heartbeat.round, 9);
        ck_assert_uint_eq(rig[i].got[0].message.as.heartbeat.match_index, 0);
        ck_assert_uint_eq(rig[i].got[0].message.as.heartbeat.match_term, 0);
        rig_ack(i, 0, 1, 3, 3, 9);
        rig_turn(i);
    }
    rig_forget();
    rig_turn(0);
    ck_assert_uint_eq(rig_count(GOT(0), RAFT_ACK), 2);
    ck_assert_uint_eq(rig[0].got[0].message.as.ack.round, 9);
}
END_TEST

/* R5: an ack of a round must not wait for the disk behind blocks. */
START_TEST(a_heartbeat_that_comes_with_blocks_is_a_frame_of_its_own)
{
    rig_follow(3);
    rig_publish(0, 1, 8);
    ck_assert_int_eq(rig_heartbeat(0, 1, 1, 9), 0);
    rig_turn(0);
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 2);
    ck_assert_uint_eq(rig[1].got[0].message.type, RAFT_HEARTBEAT);
    ck_assert_uint_eq(rig[1].got[1].message.type, RAFT_APPEND);
}
END_TEST

START_TEST(a_commit_reaches_its_readers_without_a_message)
{
    rig_follow(3);
    ring_commit(rig[0].ring, 2);
    rig_turn(0);
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 1);
    ck_assert_uint_eq(rig[1].got[0].message.as.heartbeat.commit, 2);
    ck_assert_uint_eq(rig[0].sent_count, 0);
}
END_TEST

START_TEST(an_ack_that_says_nothing_new_is_not_said)
{
    rig_follow(3);
    rig_ack(1, 0, 1, 3, 2, 1);
    rig_turn(1);
    rig_turn(0);
    rig_ack(1, 0, 1, 3, 2, 1);
    rig_turn(1);
    rig_turn(0);
    ck_assert_uint_eq(rig_count(GOT(0), RAFT_ACK), 1);
    ck_assert_uint_eq(rig[1].sent_count, 0);
}
END_TEST

START_TEST(blocks_that_came_by_tcp_meanwhile_are_not_pulled_again)
{
    rig_settle();
    rig_role(0, 1, true);
    for (unsigned i = 0; i < 6; i++) rig_publish(0, 1, 8);
    rig_ack(1, 0, 1, 2, 0, 0);
    rig_ack(1, 0, 1, 5, 0, 0);
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 1);
    ck_assert_uint_eq(rig[1].got[0].message.as.append.previous_index, 5);
}
END_TEST

START_TEST(large_blocks_come_one_by_one_and_small_ones_together)
{
    rig_follow(3);
    for (unsigned i = 0; i < 5; i++) rig_publish(0, 1, 100 << 10);
    rig_turn(1);
    ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 1);
    ck_assert_uint_eq(rig[1].got[0].message.as.append.last_index, 8);
    ck_assert_uint_gt(rig[1].got[0].body_bytes, 5 * (100 << 10));
}
END_TEST

START_TEST(a_ring_that_moves_without_end_keeps_nobody_from_another_one) /* an old leader's, or of who means ill */
{
    rig_follow(1);
    rig_role(2, 2, true);
    for (unsigned i = 0; i < 3; i++) rig_publish(2, 2, 100);
    rig_ack(1, 2, 2, 1, 0, 0);
    struct transport *t = rig[1].transport;
    struct transport_frame frame;
    unsigned frames = 0, of_the_new_leader = 0;
    for (uint64_t round = 1; ring_beat(rig[0].ring, round), t->ops->next(t, &frame); round++) {
        frames++;
        if (frame.slot == 2 && frame.message.type == RAFT_APPEND) of_the_new_leader++;
        t->ops->consume(t);
    }
    t->ops->flush(t);
    ck_assert_uint_eq(of_the_new_leader, 1);
    ck_assert_uint_lt(frames, 16); /* nor the node from its turn's end */
}
END_TEST

/* Every block once, in order, with the right one before it, over many laps. */
START_TEST(blocks_arrive_byte_for_byte_over_many_laps)
{
    struct random r;
    random_seed(&r, unit_seed(0x4c4f43));
    rig_follow(1);
    raft_index last = 1;
    uint64_t rounds = unit_rounds(400);
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t blocks = random_between(&r, 1, 5);
        for (uint64_t i = 0; i < blocks; i++) rig_publish(0, 1, (uint32_t)random_below(&r, 20000));
        rig_turn(0);
        rig_turn(1);
        for (unsigned i = 0; i < rig[1].got_count; i++) {
            const struct rig_frame *f = &rig[1].got[i];
            struct ring_slot slot;
            if (f->message.type != RAFT_APPEND) continue;
            ck_assert_uint_eq(f->message.as.append.previous_index, last);
            ck_assert_int_eq(ring_find(rig[0].ring, last + 1, &slot), 0);
            ck_assert_mem_eq(f->body, ring_at(rig[0].ring, slot.pos), f->body_bytes);
            last = f->message.as.append.last_index;
        }
        ck_assert_uint_eq(last, rig[0].last_index);
        rig_ack(1, 0, 1, last, last, 0);
        rig_turn(1);
        rig_turn(0);
        ring_commit(rig[0].ring, last);
        ring_release(rig[0].ring, last);
        rig_forget();
    }
    ck_assert(rig_status(0, 1).shared_memory);
    ck_assert_uint_eq(rig_status(0, 1).lapped, 0);
}
END_TEST

START_TEST(lag_is_what_the_reader_has_not_read)
{
    rig_follow(3);
    ck_assert_uint_eq(rig_status(0, 1).lag_bytes, 0);
    rig_publish(0, 1, 8);
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(rig[0].ring, 4, &slot), 0);
    ck_assert_uint_eq(rig_status(0, 1).lag_bytes, slot.bytes);
    ck_assert_uint_eq(rig_status(1, 0).lag_bytes, slot.bytes);
    rig_turn(1);
    ck_assert_uint_eq(rig_status(0, 1).lag_bytes, 0);
    ck_assert_uint_eq(rig_status(1, 0).lag_bytes, 0);
}
END_TEST

/* --- back to the transport beneath, and forth again ------------------------------------------------------------------ */

static bool goes_beneath(unsigned node, unsigned to, raft_term term)
{
    unsigned before = rig[node].sent_count;
    ck_assert_int_eq(rig_append(node, to, term, 1), 0);
    return rig[node].sent_count > before;
}

START_TEST(an_ack_that_refuses_goes_beneath_and_so_does_what_follows_until_one_that_matches)
{
    for (unsigned full = 0; full < 2; full++) {
        rig_close();
        rig_open();
        rig_follow(3);
        struct raft_message m = {.type = RAFT_ACK, .from = rig_member(1), .to = rig_member(0), .term = 1};
        m.as.ack = (struct raft_ack){
            .validated_index = 3, .rejected = full == 0, .rejected_index = full == 0 ? 4 : 0, .full = full == 1};
        ck_assert_int_eq(rig_send(1, 0, &m, 0, 0), 0);
        ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
        ck_assert(goes_beneath(0, 1, 1));
        ck_assert(!goes_beneath(0, 2, 1));
        rig_publish(0, 1, 8);
        rig_turn(1);
        ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 0);
        rig_ack(1, 0, 1, 3, 3, 0);
        ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
        ck_assert(!goes_beneath(0, 1, 1));
        rig_turn(1);
        ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 1);
    }
}
END_TEST

/* Damage, or anything else that the node does not take and says nothing of: it must not be taken for delivered. */
START_TEST(blocks_that_the_node_did_not_take_are_the_transports_beneath_again)
{
    rig_follow(3);
    rig_publish(0, 1, 8);
    rig_turn(1); /* block 4 is handed out */
    rig_ack(1, 0, 1, 3, 3, 7);
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
    ck_assert(goes_beneath(0, 1, 1));
    /* but in the turn that hands it out an ack may have left before it was judged */
    rig_ack(1, 0, 1, 3, 3, 8); /* begins anew */
    struct transport_frame frame;
    ck_assert(rig[1].transport->ops->next(rig[1].transport, &frame));
    rig[1].transport->ops->consume(rig[1].transport);
    rig_ack(1, 0, 1, 3, 3, 9);
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
    ck_assert(!goes_beneath(0, 1, 1));
}
END_TEST

START_TEST(a_lapped_reader_goes_on_beneath_and_is_counted)
{
    rig_follow(3);
    for (unsigned i = 0; i < 40; i++) { /* more than the ring holds, and node 1 does not look */
        rig_publish(0, 1, 60000);
        ring_commit(rig[0].ring, rig[0].last_index);
        ring_release(rig[0].ring, rig[0].last_index);
    }
    rig_turn(1);
    ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 0);
    ck_assert(!rig_status(1, 0).shared_memory);
    ck_assert_uint_eq(rig_status(1, 0).lapped, 1);
    ck_assert(goes_beneath(0, 1, 1));
    rig_ack(1, 0, 1, 3, 3, 9); /* still too old */
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
    rig_ack(1, 0, 1, rig[0].last_index - 1, 3, 9); /* TCP has brought the rest */
    rig_turn(1);
    ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 1);
    ck_assert(!goes_beneath(0, 1, 1));
    ck_assert_uint_eq(rig_status(0, 1).lapped, 1); /* as its reader says */
}
END_TEST

/* S2: nothing of an epoch that is over counts, also where the same node leads again. */
START_TEST(a_leader_that_steps_down_and_leads_again_takes_no_old_ack)
{
    rig_follow(3);
    rig_ack(1, 0, 1, 3, 3, 4); /* stands in the slot; the leader has not looked */
    rig_role(0, 2, false);
    rig_turn(0);
    ck_assert_uint_eq(rig_count(GOT(0), RAFT_ACK), 0);
    rig_role(0, 3, true);
    rig_turn(0);
    ck_assert_uint_eq(rig_count(GOT(0), RAFT_ACK), 0);
    ck_assert(goes_beneath(0, 1, 3));
    rig_turn(1);
    ck_assert(!rig_status(1, 0).shared_memory);
    rig_ack(1, 0, 1, 3, 3, 4); /* of the old term: beneath */
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
    rig_publish(0, 3, 8);
    rig_ack(1, 0, 3, 3, 3, 5);
    rig_turn(0);
    ck_assert_uint_eq(rig_count(GOT(0), RAFT_ACK), 1);
    ck_assert_uint_eq(rig_last(GOT(0), RAFT_ACK)->message.term, 3);
    rig_turn(1);
    ck_assert_uint_eq(rig_last(GOT(1), RAFT_APPEND)->message.term, 3);
    ck_assert_uint_eq(rig_last(GOT(1), RAFT_APPEND)->message.as.append.previous_term, 1);
}
END_TEST

START_TEST(an_epoch_that_never_ends_makes_nobody_wait_or_spin)
{
    rig_follow(3);
    ring_epoch_begin(rig[0].ring); /* and the process stops here (S4) */
    rig_turn(1);
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 0);
    ck_assert_uint_eq(rig[1].wakes, 0);
    ring_epoch_end(rig[0].ring, 1, true);
}
END_TEST

START_TEST(a_follower_of_a_higher_term_says_so_beneath)
{
    rig_follow(3);
    rig_ack(1, 0, 2, 0, 0, 0);
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
    ck_assert(!rig_status(1, 0).shared_memory);
    ck_assert(goes_beneath(0, 1, 1));
}
END_TEST

START_TEST(hang_up_of_a_reader_gives_its_leader_the_transport_beneath_back)
{
    rig_follow(3);
    rig_hang_up(1, rig_dialled(1, 0));
    ck_assert(goes_beneath(0, 1, 1));
    ck_assert(!goes_beneath(0, 2, 1));
    rig_ack(1, 0, 1, 3, 3, 0);
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
    rig_turn(1);
    ck_assert_uint_eq(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX); /* not at once */
    rig_now_ns += LOCAL_RETRY_MS * MS;
    rig_settle();
    ck_assert_uint_ne(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX);
    rig_ack(1, 0, 1, 3, 3, 0);
    ck_assert_uint_eq(rig_count(SENT(1), RAFT_ACK), 1);
    ck_assert(!goes_beneath(0, 1, 1));
}
END_TEST

/* A hint of its leader's death must not be undone by what still lies in the dead one's memory. */
START_TEST(nothing_is_pulled_behind_a_hang_up_beneath)
{
    rig_follow(3);
    rig[1].come[rig[1].come_count++] =
        (struct transport_frame){.slot = 0, .member_id = rig_member(0), .type = FRAME_HANGUP};
    struct transport_frame frame;
    ck_assert(rig[1].transport->ops->next(rig[1].transport, &frame));
    ck_assert_uint_eq(frame.type, FRAME_HANGUP);
    rig[1].transport->ops->consume(rig[1].transport);
    rig_publish(0, 1, 8);
    rig_turn(1);
    ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 0);
    ck_assert_uint_eq(rig_dialled(1, 0), LOCAL_CONNECTIONS_MAX);
}
END_TEST

START_TEST(frames_of_the_transport_beneath_are_handed_on_and_consumed_there)
{
    rig_follow(3);
    rig[1].come[rig[1].come_count++] = (struct transport_frame){.slot = 2, .type = FRAME_FORWARD};
    rig_publish(0, 1, 8);
    rig_turn(1);
    ck_assert_uint_eq(rig[1].got_count, 2);
    ck_assert_uint_eq(rig[1].got[1].type, FRAME_FORWARD);
    ck_assert_uint_eq(rig[1].inner_consumed, 1);
    const struct transport_ops *ops = rig[1].transport->ops;
    ck_assert_uint_eq(ops->queued_bytes(rig[1].transport, 2), 102);
    ck_assert(ops->blocks_idle(rig[1].transport, 2) && !ops->blocks_idle(rig[1].transport, 0));
    ck_assert_uint_eq(ops->frames_refused(rig[1].transport), 7);
    const struct transport_send forward = {.slot = 2, .type = FRAME_FORWARD, .body = "x", .body_bytes = 1};
    ck_assert_int_eq(ops->send(rig[1].transport, &forward), 0);
    ck_assert_uint_eq(rig[1].sent[0].type, FRAME_FORWARD);
}
END_TEST

/* --- bells -------------------------------------------------------------------------------------------------------------- */

static unsigned bells_at(unsigned node)
{
    unsigned bells = 0;
    for (unsigned c = 0; c < LOCAL_CONNECTIONS_MAX; c++) bells += rig[node].connections[c].bells;
    return bells;
}

START_TEST(who_sleeps_is_rung_once_and_who_is_awake_is_not)
{
    rig_follow(3);
    for (unsigned i = 0; i < 3; i++) { /* node 1 sleeps since its last turn */
        rig_publish(0, 1, 8);
        rig_turn(0);
    }
    ck_assert_uint_eq(bells_at(1), 1);
    struct transport_frame frame;
    ck_assert(rig[1].transport->ops->next(rig[1].transport, &frame)); /* awake, in the middle of a turn */
    rig[1].transport->ops->consume(rig[1].transport);
    rig_publish(0, 1, 8);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1), 1);
    ck_assert_uint_gt(rig_status(0, 1).bells_spared, 0);
    rig_turn(1);
    rig_publish(0, 1, 8);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1), 2); /* it slept anew */
    ck_assert_uint_eq(bells_at(0), 0);
}
END_TEST

START_TEST(a_beat_wakes_who_sleeps) /* else it would believe that nobody leads any more */
{
    rig_follow(3);
    ck_assert_int_eq(rig_heartbeat(0, 1, 1, 5), 0);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1), 1);
}
END_TEST

START_TEST(a_bell_that_the_system_had_no_memory_for_is_rung_by_what_moves_next) /* S7 */
{
    rig_follow(3);
    rig[0].bells_refused = true;
    ck_assert_int_eq(rig_heartbeat(0, 1, 1, 5), 0);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1), 0);
    rig[0].bells_refused = false;
    ck_assert_int_eq(rig_heartbeat(0, 1, 1, 6), 0);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1), 1);
}
END_TEST

START_TEST(a_commit_alone_wakes_nobody)
{
    rig_follow(3);
    ring_commit(rig[0].ring, 2);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1) + bells_at(2), 0);
}
END_TEST

START_TEST(an_ack_rings_the_leader_if_it_sleeps)
{
    rig_follow(3);
    rig_turn(0);
    rig_ack(1, 0, 1, 3, 1, 0);
    rig_turn(1);
    ck_assert_uint_eq(bells_at(0), 1);
    rig_ack(1, 0, 1, 3, 2, 0);
    rig_turn(1);
    ck_assert_uint_eq(bells_at(0), 1); /* that one is on its way */
    rig_turn(0);
    rig_turn(1);
    ck_assert_uint_eq(bells_at(0), 1); /* there is nothing new */
    rig_ack(1, 0, 1, 3, 3, 0);
    rig_turn(1);
    ck_assert_uint_eq(bells_at(0), 2);
}
END_TEST

START_TEST(a_change_of_epoch_rings_those_who_followed_and_nobody_else)
{
    rig_follow(3);
    rig_role(0, 2, false);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1) + bells_at(2), 2);
    rig_turn(1);
    rig_turn(2);
    rig_forget();
    rig_role(0, 3, false);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1) + bells_at(2), 0);
}
END_TEST

START_TEST(a_follower_rings_nobody_when_its_own_ring_moves)
{
    rig_follow(3);
    rig_publish(2, 1, 8);
    rig_turn(2);
    ck_assert_uint_eq(bells_at(0) + bells_at(1), 0);
}
END_TEST

/* S7: between the last look and the sleep nothing gets lost. */
START_TEST(what_comes_between_the_look_and_the_sleep_wakes)
{
    struct transport_frame frame;
    rig_follow(3);
    ck_assert(!rig[1].transport->ops->next(rig[1].transport, &frame)); /* it has looked */
    rig_publish(0, 1, 8);
    rig_turn(0);
    ck_assert_uint_eq(bells_at(1), 0); /* it is awake: it looks again */
    ck_assert_uint_eq(rig[1].wakes, 0);
    rig[1].transport->ops->flush(rig[1].transport);
    ck_assert_uint_eq(rig[1].wakes, 1);

    rig_turn(1);
    rig_forget();
    ck_assert(!rig[0].transport->ops->next(rig[0].transport, &frame)); /* and the leader likewise */
    rig_ack(1, 0, 1, 4, 4, 0);
    rig_turn(1);
    ck_assert_uint_eq(bells_at(0), 0);
    rig[0].transport->ops->flush(rig[0].transport);
    ck_assert_uint_eq(rig[0].wakes, 1);
}
END_TEST

/* Without room in the core the node leaves frames lying and comes back by itself: it must not turn in circles until then. */
START_TEST(a_node_that_leaves_frames_lying_is_not_woken_for_them)
{
    rig_follow(3);
    rig_publish(0, 1, 8);
    rig[1].transport->ops->flush(rig[1].transport); /* a turn that asks for nothing */
    ck_assert_uint_eq(rig[1].wakes, 0);
    struct transport_frame frame;
    rig_publish(0, 1, 8);
    ck_assert(rig[1].transport->ops->next(rig[1].transport, &frame)); /* one that asks for one frame */
    rig[1].transport->ops->consume(rig[1].transport);
    rig_publish(0, 1, 8);
    rig[1].transport->ops->flush(rig[1].transport);
    ck_assert_uint_eq(rig[1].wakes, 0);
    rig_turn(1);
    ck_assert_uint_eq(rig_last(GOT(1), RAFT_APPEND)->message.as.append.last_index, 6);
}
END_TEST

static unsigned looks;

static void clock_ticks(void)
{
    rig_now_ns += 1000;
    if (++looks == 5) { /* while node 1 looks at the memory and does not sleep yet */
        rig_publish(0, 1, 8);
        rig[0].transport->ops->flush(rig[0].transport);
    }
}

START_TEST(who_spins_sees_what_comes_without_a_bell_and_sleeps_when_nothing_does)
{
    rig_close();
    rig_spin_ns = 20000;
    rig_clock_looked = clock_ticks;
    looks = 1000;
    rig_open();
    rig_spin_ns = 0;
    rig_follow(3);
    looks = 0;
    uint64_t begin = rig_now_ns;
    rig_turn(1);
    ck_assert_uint_eq(rig[1].wakes, 1);
    ck_assert_uint_eq(bells_at(1), 0);
    rig_turn(1); /* takes it, spins, and nothing comes */
    ck_assert_uint_eq(rig_count(GOT(1), RAFT_APPEND), 1);
    ck_assert_uint_eq(rig[1].wakes, 1);
    ck_assert_uint_gt(looks, 20);
    ck_assert_uint_lt(rig_now_ns - begin, 200000); /* and it has an end */
    rig_clock_looked = NULL;
    rig_publish(0, 1, 8);
    rig[0].transport->ops->flush(rig[0].transport);
    ck_assert_uint_eq(bells_at(1), 1);
}
END_TEST

/* --- garbage (S5) --------------------------------------------------------------------------------------------------------- */

/* A follower of node 0 that is no node: with a slot in which it may write anything. ret  its connection at node 0. */
static unsigned stranger(unsigned connection, struct ring_reader_slot **ret_slot)
{
    const struct local_hello hello = {.kind = LOCAL_FOLLOWER,
                                      .cluster_id = RIG_CLUSTER,
                                      .member_id = rig_member(1),
                                      .boot = 11,
                                      .wanted_id = rig_member(0),
                                      .wanted_boot = 10};
    struct local_reply reply;
    struct local_grant grant;
    ck_assert_int_eq(rig[0].link_owner.judge(rig[0].link_owner.context, connection, &hello, &reply, &grant), 0);
    ck_assert_int_eq(ring_reader_slot_map(grant.slot_fd, ret_slot), 0);
    return connection;
}

START_TEST(a_slot_full_of_garbage_makes_acks_for_the_core_to_refuse_and_nothing_else)
{
    struct random r;
    struct ring_reader_slot *slot;
    random_seed(&r, unit_seed(0x47415242));
    rig_role(0, 1, true);
    for (unsigned i = 0; i < 3; i++) rig_publish(0, 1, 8);
    rig[1].listen_refused = rig[2].listen_refused = true;
    rig_now_ns += LOCAL_LOOK_MS * MS;
    rig_turn(0);
    rig_forget();
    unsigned connection = stranger(50, &slot);
    rig[0].connections[connection].used = true; /* the stranger is on no rig: bells go into the void */
    rig[0].connections[connection].granted = true;
    rig[0].connections[connection].node = 2;
    uint64_t rounds = unit_rounds(20000);
    for (uint64_t i = 0; i < rounds; i++) {
        ring_word *words = (ring_word *)(void *)slot;
        for (unsigned w = 0; w < sizeof *slot / sizeof *words; w++)
            atomic_store(&words[w], random_chance(&r, 1, 3)   ? ring_epoch(rig[0].ring)
                                    : random_chance(&r, 1, 2) ? random_below(&r, 5)
                                                              : random_u64(&r));
        rig_turn(0);
        (void)rig_status(0, 1);
        (void)goes_beneath(0, 1, 1);
        ck_assert_uint_le(rig[0].got_count, 1);
        if (rig[0].got_count > 0) ck_assert_uint_eq(rig[0].got[0].message.from, rig_member(1));
        rig_forget();
    }
    ring_reader_slot_unmap(slot);
    rig[0].link_owner.ended(rig[0].link_owner.context, connection, "");
    rig[0].connections[connection].used = false;
}
END_TEST

START_TEST(a_grant_that_is_no_ring_or_another_ones_is_refused_and_its_descriptors_are_closed)
{
    rig[0].listen_refused = true; /* nobody there but who is handed in here */
    rig[0].status[2].connected_out = false;
    rig_settle();
    unsigned dialled = rig_dialled(1, 2);
    ck_assert_uint_ne(dialled, LOCAL_CONNECTIONS_MAX);
    rig_hang_up(1, dialled);
    int before = dup(0);
    close(before);
    for (unsigned i = 0; i < 6; i++) {
        int slot_fd;
        const struct ring_reader_slot *slot;
        rig_now_ns += LOCAL_RETRY_MS * MS;
        rig_turn(1); /* dials node 2 anew */
        unsigned connection = rig_dialled(1, 2);
        ck_assert_uint_ne(connection, LOCAL_CONNECTIONS_MAX);
        struct local_reply reply = {.cluster_id = RIG_CLUSTER, .member_id = rig_member(2), .boot = 12};
        ck_assert_int_eq(ring_reader_slot_make(&slot_fd, &slot), 0);
        struct local_grant grant = {.ring_fd = dup(ring_fd(rig[2].ring)), .slot_fd = slot_fd};
        if (i == 0) reply.cluster_id++;
        if (i == 1) reply.member_id++;
        if (i == 2) reply.boot++;
        if (i == 3) { /* another member's ring */
            close(grant.ring_fd);
            grant.ring_fd = dup(ring_fd(rig[0].ring));
        }
        if (i == 4) { /* no ring */
            close(grant.ring_fd);
            grant.ring_fd = memfd_create("nothing", MFD_CLOEXEC);
        }
        if (i == 5) { /* no slot */
            close(grant.slot_fd);
            grant.slot_fd = memfd_create("nothing", MFD_CLOEXEC);
        }
        ck_assert_int_ne(rig[1].link_owner.granted(rig[1].link_owner.context, connection, &reply, &grant), 0);
        rig[1].connections[connection].used = false;
        ring_reader_slot_unmap(slot);
        int after = dup(0);
        close(after);
        ck_assert_int_eq(after, before);
    }
}
END_TEST

START_TEST(whoever_is_handed_a_ring_cannot_write_it)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd(rig[0].ring), 0);
    ck_assert_ptr_eq(page, MAP_FAILED);
    ck_assert_int_eq(errno, EPERM);
}
END_TEST

/* --- observers --------------------------------------------------------------------------------------------------------- */

START_TEST(observers_are_bounded_and_take_no_followers_place)
{
    rig_settle();
    const struct local_hello hello = {.kind = LOCAL_OBSERVER, .cluster_id = RIG_CLUSTER, .wanted_id = rig_member(0)};
    struct local_reply reply;
    struct local_grant grant;
    for (unsigned i = 0; i <= LOCAL_OBSERVERS_MAX; i++) {
        int rc = rig[0].link_owner.judge(rig[0].link_owner.context, 30 + i, &hello, &reply, &grant);
        ck_assert_int_eq(rc, i < LOCAL_OBSERVERS_MAX ? 0 : LOCKSTEP_EFULL);
    }
    rig_role(0, 1, true);
    for (unsigned i = 0; i < 3; i++) rig_publish(0, 1, 8);
    rig_ack(1, 0, 1, 2, 2, 0);
    ck_assert(!goes_beneath(0, 1, 1));
    for (unsigned i = 0; i < LOCAL_OBSERVERS_MAX; i++) rig[0].link_owner.ended(rig[0].link_owner.context, 30 + i, "");
}
END_TEST

/* A connection with a hello that was accepted, without a process at its end. */
static void observer_come(unsigned connection)
{
    const struct local_hello hello = {.kind = LOCAL_OBSERVER, .cluster_id = RIG_CLUSTER, .wanted_id = rig_member(0)};
    struct local_reply reply;
    struct local_grant grant;
    ck_assert_int_eq(rig[0].link_owner.judge(rig[0].link_owner.context, connection, &hello, &reply, &grant), 0);
    rig[0].connections[connection] = (struct rig_connection){.used = true};
}

static struct transport_observers observers(void)
{
    struct transport_observers o;
    rig[0].transport->ops->observers(rig[0].transport, &o);
    return o;
}

START_TEST(observers_are_counted_with_what_they_say_of_themselves)
{
    const struct local_hello hello = {.kind = LOCAL_OBSERVER, .cluster_id = RIG_CLUSTER, .wanted_id = rig_member(0)};
    struct local_reply reply;
    struct local_grant grant;
    struct ring_reader_slot *slots[2];
    struct ring_status ring;
    rig_settle();
    rig_role(0, 1, true);
    for (unsigned i = 0; i < 3; i++) rig_publish(0, 1, 8);
    ck_assert_uint_eq(observers().count, 0);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(rig[0].link_owner.judge(rig[0].link_owner.context, 30 + i, &hello, &reply, &grant), 0);
        ck_assert_int_eq(ring_reader_slot_map(grant.slot_fd, &slots[i]), 0);
    }
    ring_status_read(rig[0].ring, &ring);
    ck_assert_uint_eq(observers().count, 2);
    ck_assert_uint_eq(observers().lag_bytes, ring.tail); /* neither has read anything */
    ring_word_store(&slots[0]->position, ring.tail - 8);
    ring_word_store(&slots[1]->position, ring.tail - 64);
    ck_assert_uint_eq(observers().lag_bytes, 64); /* the last one's */
    ring_word_store(&slots[1]->position, UINT64_MAX);
    ck_assert_uint_eq(observers().lag_bytes, 8);
    ring_word_store(&slots[0]->lapped, 3);
    ring_word_store(&slots[1]->lapped, 4);
    ck_assert_uint_eq(observers().lapped, 7);
    ck_assert_uint_eq(rig_status(0, 1).lapped, 0); /* no member's */
    rig[0].link_owner.ended(rig[0].link_owner.context, 31, "");
    ck_assert_uint_eq(observers().count, 1);
    ck_assert_uint_eq(observers().lapped, 7); /* for good */
    rig[0].link_owner.ended(rig[0].link_owner.context, 30, "");
    ck_assert_uint_eq(observers().count, 0);
    ck_assert_uint_eq(observers().lag_bytes, 0);
    ck_assert_uint_eq(observers().lapped, 7);
    for (unsigned i = 0; i < 2; i++) ring_reader_slot_unmap(slots[i]);
}
END_TEST

static int observer_asks(unsigned connection, raft_index index)
{
    uint8_t packet[LOCAL_ASK_BYTES];
    local_ask_write(&(struct local_ask){.index = index}, packet);
    return rig[0].link_owner.packet(rig[0].link_owner.context, connection, packet, sizeof packet);
}

static raft_index asked(uint64_t *ret_ticket)
{
    struct transport_question question;
    if (!rig[0].transport->ops->asked(rig[0].transport, &question)) return 0;
    *ret_ticket = question.ticket;
    return question.ask.index;
}

START_TEST(observers_have_one_question_each_and_turns) /* S6 */
{
    uint64_t first, second, third;
    rig_settle();
    observer_come(30);
    observer_come(31);
    ck_assert_int_eq(observer_asks(30, 5), 0);
    ck_assert_uint_eq(asked(&first), 5);
    ck_assert_uint_eq(asked(&second), 0); /* it is being answered */
    ck_assert_int_eq(observer_asks(30, 6), LOCKSTEP_EPROTO);
    rig[0].transport->ops->answer(rig[0].transport, first, "answer", 6);
    ck_assert_uint_eq(rig[0].packets, 1);
    ck_assert_int_eq(observer_asks(30, 7), 0);
    ck_assert_int_eq(observer_asks(31, 8), 0);
    ck_assert_uint_eq(asked(&second), 8); /* the other one's turn */
    ck_assert_uint_eq(asked(&third), 7);
    ck_assert(first != second && second != third && first != third);
    rig[0].link_owner.ended(rig[0].link_owner.context, 31, "");
    rig[0].connections[31].used = false;
    rig[0].transport->ops->answer(rig[0].transport, second, "answer", 6);
    ck_assert_uint_eq(rig[0].packets, 1); /* to nobody */
    rig[0].send_refused = true;
    rig[0].transport->ops->answer(rig[0].transport, third, "answer", 6);
    ck_assert(rig[0].connections[30].used); /* in a turn alone is anything ended */
    rig_turn(0);
    ck_assert(!rig[0].connections[30].used); /* who takes no answer */
    observer_come(30);
    ck_assert_int_eq(observer_asks(30, 9), 0); /* and its place is free, and nothing of it left */
    ck_assert_uint_eq(asked(&first), 9);
    rig[0].link_owner.ended(rig[0].link_owner.context, 30, "");
    rig[0].connections[30].used = false;
}
END_TEST

START_TEST(packets_of_members_and_those_that_are_no_questions_are_nonsense)
{
    uint8_t packet[LOCAL_ASK_BYTES + 8] = {0};
    rig_settle();
    unsigned member = rig_dialled(1, 0);
    ck_assert_uint_ne(member, LOCAL_CONNECTIONS_MAX);
    ck_assert_int_eq(observer_asks(rig[1].connections[member].connection, 1), LOCKSTEP_EPROTO);
    ck_assert_int_eq(observer_asks(member, 1), LOCKSTEP_EPROTO);
    observer_come(30);
    for (unsigned i = 0; i < LOCAL_ASK_BYTES; i++) { /* the number may be anything */
        local_ask_write(&(struct local_ask){.index = i == 24 ? 0 : 1, .position = i == 24 ? 0 : i == 16}, packet);
        if (i < 8 || i >= 36) packet[i] ^= 0x40;
        bool good = i >= 8 && i != 16 && i != 24 && i < 36;
        int rc = rig[0].link_owner.packet(rig[0].link_owner.context, 30, packet, LOCAL_ASK_BYTES);
        ck_assert_msg((rc == 0) == good, "byte %u: %d", i, rc);
        uint64_t ticket;
        if (good) ck_assert_uint_eq(asked(&ticket), 1);
        if (good) rig[0].transport->ops->answer(rig[0].transport, ticket, "answer", 6);
    }
    local_ask_write(&(struct local_ask){.index = 1}, packet);
    const size_t counts[] = {2, LOCAL_ASK_BYTES - 1, LOCAL_ASK_BYTES + 1, sizeof packet};
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_ne(rig[0].link_owner.packet(rig[0].link_owner.context, 30, packet, counts[i]), 0);
    rig[0].link_owner.ended(rig[0].link_owner.context, 30, "");
    rig[0].connections[30].used = false;
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, rig_open, rig_close);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, peers_that_the_transport_beneath_knows_find_each_other);
    tcase_add_test(tests, who_is_not_connected_beneath_is_neither_dialled_nor_granted);
    tcase_add_test(tests, another_member_id_or_start_than_beneath_is_refused);
    tcase_add_test(tests, another_cluster_member_start_or_group_is_refused);
    tcase_add_test(tests, before_birth_nobody_is_found_and_nothing_is_touched);
    tcase_add_test(tests, a_name_that_is_taken_is_said_once_and_tried_again);
    tcase_add_test(tests, a_slot_that_goes_to_another_member_loses_its_connections);
    tcase_add_test(tests, a_member_that_says_another_id_beneath_is_dialled_anew);
    tcase_add_test(tests, another_identity_of_this_node_ends_everything);
    tcase_add_test(tests, a_peer_that_closes_and_one_that_is_closed_leave_the_others_alone);
    tcase_add_test(tests, a_pull_begins_with_an_ack_that_matches_and_brings_what_lies_behind);
    tcase_add_test(tests, acks_that_do_not_match_a_leading_ring_go_by_the_transport_beneath);
    tcase_add_test(tests, the_leader_sends_nothing_that_its_reader_finds_in_memory);
    tcase_add_test(tests, one_beat_a_turn_tells_all_readers_of_a_round);
    tcase_add_test(tests, a_heartbeat_that_comes_with_blocks_is_a_frame_of_its_own);
    tcase_add_test(tests, a_commit_reaches_its_readers_without_a_message);
    tcase_add_test(tests, an_ack_that_says_nothing_new_is_not_said);
    tcase_add_test(tests, blocks_that_came_by_tcp_meanwhile_are_not_pulled_again);
    tcase_add_test(tests, large_blocks_come_one_by_one_and_small_ones_together);
    tcase_add_test(tests, a_ring_that_moves_without_end_keeps_nobody_from_another_one);
    tcase_add_test(tests, blocks_arrive_byte_for_byte_over_many_laps);
    tcase_add_test(tests, lag_is_what_the_reader_has_not_read);
    tcase_add_test(tests, an_ack_that_refuses_goes_beneath_and_so_does_what_follows_until_one_that_matches);
    tcase_add_test(tests, blocks_that_the_node_did_not_take_are_the_transports_beneath_again);
    tcase_add_test(tests, a_lapped_reader_goes_on_beneath_and_is_counted);
    tcase_add_test(tests, a_leader_that_steps_down_and_leads_again_takes_no_old_ack);
    tcase_add_test(tests, an_epoch_that_never_ends_makes_nobody_wait_or_spin);
    tcase_add_test(tests, a_follower_of_a_higher_term_says_so_beneath);
    tcase_add_test(tests, hang_up_of_a_reader_gives_its_leader_the_transport_beneath_back);
    tcase_add_test(tests, nothing_is_pulled_behind_a_hang_up_beneath);
    tcase_add_test(tests, frames_of_the_transport_beneath_are_handed_on_and_consumed_there);
    tcase_add_test(tests, who_sleeps_is_rung_once_and_who_is_awake_is_not);
    tcase_add_test(tests, a_beat_wakes_who_sleeps);
    tcase_add_test(tests, a_bell_that_the_system_had_no_memory_for_is_rung_by_what_moves_next);
    tcase_add_test(tests, a_commit_alone_wakes_nobody);
    tcase_add_test(tests, an_ack_rings_the_leader_if_it_sleeps);
    tcase_add_test(tests, a_change_of_epoch_rings_those_who_followed_and_nobody_else);
    tcase_add_test(tests, a_follower_rings_nobody_when_its_own_ring_moves);
    tcase_add_test(tests, what_comes_between_the_look_and_the_sleep_wakes);
    tcase_add_test(tests, a_node_that_leaves_frames_lying_is_not_woken_for_them);
    tcase_add_test(tests, who_spins_sees_what_comes_without_a_bell_and_sleeps_when_nothing_does);
    tcase_add_test(tests, a_slot_full_of_garbage_makes_acks_for_the_core_to_refuse_and_nothing_else);
    tcase_add_test(tests, a_grant_that_is_no_ring_or_another_ones_is_refused_and_its_descriptors_are_closed);
    tcase_add_test(tests, whoever_is_handed_a_ring_cannot_write_it);
    tcase_add_test(tests, observers_are_bounded_and_take_no_followers_place);
    tcase_add_test(tests, observers_are_counted_with_what_they_say_of_themselves);
    tcase_add_test(tests, observers_have_one_question_each_and_turns);
    tcase_add_test(tests, packets_of_members_and_those_that_are_no_questions_are_nonsense);
}

int main(void)
{
    return unit_main("local", add);
}
