/* SPDX-License-Identifier: Apache-2.0 */
/* test_tcp.c - peers over loopback: what is sent arrives, whole and in order; what is hostile is bounded and counted. */
#include "tests/unit/transport/ends.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "proto/peer_frame.h"
#include "tests/support/unit.h"
#include "transport/wire.h"

static struct ends ends;

static void set_up(void)
{
    ends_open(&ends, 2);
}

static void tear_down(void)
{
    ends_close(&ends);
}

struct expected {
    const struct end *end;
    unsigned frames;
};

static bool frames_arrived(struct ends *unused, const void *context)
{
    (void)unused;
    const struct expected *expected = context;
    return end_whole_frames(expected->end) >= expected->frames;
}

static bool arrive(const struct end *end, unsigned frames)
{
    return ends_run(&ends, frames_arrived, &(struct expected){end, frames});
}

static struct raft_message heartbeat(unsigned from, unsigned to, uint64_t round)
{
    struct raft_message message = {.type = RAFT_HEARTBEAT, .from = end_member(from), .to = end_member(to), .term = 3};
    message.as.heartbeat.round = round;
    return message;
}

START_TEST(both_ends_connect_and_know_each_others_member_id)
{
    ends_connect(&ends);
    ck_assert_uint_eq(end_status(&ends.end[0], 1).member_id, end_member(1));
    ck_assert_uint_eq(end_status(&ends.end[1], 0).member_id, end_member(0));
    ck_assert_str_eq(end_status(&ends.end[0], 1).reason, "");
    ck_assert_uint_gt(ends.end[0].wakes, 0);
}
END_TEST

START_TEST(frames_of_all_types_arrive_in_order_with_their_sender)
{
    ends_connect(&ends);
    struct raft_message message = heartbeat(0, 1, 99);
    ck_assert_int_eq(end_send_body(&ends.end[0], 1, FRAME_BIRTH, "born", 4), 0);
    ck_assert_int_eq(end_send(&ends.end[0], 1, &message), 0);
    ck_assert_int_eq(end_send_body(&ends.end[0], 1, FRAME_FORWARD, "put a 1", 7), 0);
    const struct transport_send two_parts = {
        .slot = 1, .type = FRAME_FORWARD_REPLY, .body = "he", .body_bytes = 2, .more = "ad", .more_bytes = 2};
    ck_assert_int_eq(ends.end[0].transport->ops->send(ends.end[0].transport, &two_parts), 0);
    ck_assert(arrive(&ends.end[1], 4));
    const struct ends_frame *f = ends.end[1].frames;
    ck_assert_uint_eq(f[0].type, FRAME_BIRTH);
    ck_assert_mem_eq(f[0].body, "born", 4);
    ck_assert_uint_eq(f[1].type, FRAME_RAFT);
    ck_assert_uint_eq(f[1].message.as.heartbeat.round, 99);
    ck_assert_uint_eq(f[1].message.term, 3);
    ck_assert_uint_eq(f[2].type, FRAME_FORWARD);
    ck_assert_uint_eq(f[2].body_bytes, 7);
    ck_assert_uint_eq(f[3].type, FRAME_FORWARD_REPLY);
    ck_assert_mem_eq(f[3].body, "head", 4);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(f[i].slot, 0);
        ck_assert_uint_eq(f[i].member_id, end_member(0));
    }
}
END_TEST

START_TEST(send_to_a_peer_that_is_not_connected_is_refused)
{
    end_open(&ends.end[0]);
    struct raft_message message = heartbeat(0, 1, 1);
    ck_assert_int_eq(end_send(&ends.end[0], 1, &message), LOCKSTEP_EUNREACHABLE);
}
END_TEST

START_TEST(blocks_sent_from_the_ring_arrive_byte_for_byte_over_many_wraps)
{
    struct random r;
    random_seed(&r, unit_seed(0x52494e47));
    ends_connect(&ends);
    struct end *from = &ends.end[0];
    uint64_t rounds = unit_rounds(300);
    for (uint64_t round = 0; round < rounds; round++) {
        raft_index first = from->last_index + 1;
        uint64_t blocks = random_between(&r, 1, 4);
        for (uint64_t i = 0; i < blocks; i++) ck_assert_int_eq(end_publish(from, (uint32_t)random_below(&r, 30000)), 0);
        ck_assert_int_eq(end_append(from, 1, first, from->last_index), 0);
        ck_assert(arrive(&ends.end[1], 1));
        const struct ends_frame *f = &ends.end[1].frames[ends.end[1].frame_count - 1];
        struct ring_slot slot;
        ck_assert_int_eq(ring_find(from->ring, first, &slot), 0);
        ck_assert_uint_eq(f->message.as.append.last_index, from->last_index);
        ck_assert_mem_eq(f->body, ring_at(from->ring, slot.pos), f->body_bytes);
        end_forget(&ends.end[1]);
        ring_commit(from->ring, from->last_index);
        ring_release(from->ring, from->last_index);
    }
}
END_TEST

START_TEST(blocks_sent_from_memory_are_idle_when_written)
{
    ends_connect(&ends);
    struct transport *t = ends.end[0].transport;
    uint8_t *blocks = malloc(1 << 20);
    memset(blocks, 0x5a, 1 << 20);
    struct raft_message message = {.type = RAFT_APPEND, .from = end_member(0), .to = end_member(1), .term = 1};
    const struct transport_send send = {
        .slot = 1, .type = FRAME_RAFT, .message = &message, .blocks = blocks, .blocks_bytes = 1 << 20};
    ck_assert_int_eq(t->ops->send(t, &send), 0);
    ck_assert(!t->ops->blocks_idle(t, 1));
    ck_assert_uint_eq(t->ops->queued_bytes(t, 1), 1 << 20);
    ck_assert(arrive(&ends.end[1], 1));
    ck_assert(t->ops->blocks_idle(t, 1));
    ck_assert_uint_eq(t->ops->queued_bytes(t, 1), 0);
    const struct ends_frame *f = &ends.end[1].frames[ends.end[1].frame_count - 1];
    ck_assert_uint_eq(f->body_bytes, 1 << 20);
    ck_assert_mem_eq(f->body, blocks, 1 << 20);
    free(blocks);
}
END_TEST

static bool is_queued(struct ends *unused, const void *context)
{
    (void)unused;
    struct transport *t = ends.end[0].transport;
    (void)context;
    return t->ops->queued_bytes(t, 1) > 0;
}

/* Nobody takes frames at the other end: its buffer fills, then the socket, then our queue, then EFULL. The bytes that
 * wait stay pinned in the ring: it refuses claims rather than change them. */
START_TEST(queue_of_a_deaf_peer_is_bounded_and_pins_the_ring)
{
    ends.queued_bytes_max = 512 << 10;
    ends_connect(&ends);
    struct end *from = &ends.end[0];
    ends.end[1].deaf = true;
    unsigned sent = 0;
    ck_assert_int_eq(end_publish(from, 200 << 10), 0);
    int rc = 0;
    while (sent < 2000 && (rc = end_append(from, 1, 1, 1)) == 0) {
        sent++;
        ends_run_ms(&ends, 0);
        uv_run(&ends.loop, UV_RUN_NOWAIT);
    }
    /* No turn from here on: where the kernel was only slow to move bytes, the socket would take what waits. */
    ck_assert_int_eq(rc, LOCKSTEP_EFULL);
    ck_assert_uint_eq(end_status(from, 1).frames_dropped, 1);
    ck_assert(is_queued(&ends, NULL));
    ck_assert_uint_le(from->transport->ops->queued_bytes(from->transport, 1), ends.queued_bytes_max);

    ring_commit(from->ring, 1);
    ring_release(from->ring, 1); /* the head may pass it; the pin holds it */
    int full = 0;
    for (unsigned i = 0; i < 20 && full == 0; i++) {
        full = end_publish(from, 100 << 10);
        if (full != 0) break;
        ring_commit(from->ring, from->last_index);
        ring_release(from->ring, from->last_index);
    }
    ck_assert_int_eq(full, LOCKSTEP_EFULL);

    ends.end[1].deaf = false;
    ck_assert(arrive(&ends.end[1], sent));
    for (unsigned i = 0; i < ends.end[1].frame_count; i++) {
        const struct ends_frame *f = &ends.end[1].frames[i];
        struct block_header header;
        if (f->partial) continue;
        ck_assert_int_eq(block_header_read(f->body, f->body_bytes, &header), 0);
        ck_assert_int_eq(block_body_check(f->body, &header), 0);
    }
    ck_assert_int_eq(end_publish(from, 100 << 10), 0); /* written: nothing is pinned any more */
}
END_TEST

START_TEST(one_block_larger_than_the_queue_is_still_taken)
{
    ends.queued_bytes_max = 1000;
    ends_connect(&ends);
    ck_assert_int_eq(end_publish(&ends.end[0], 50000), 0);
    ck_assert_int_eq(end_append(&ends.end[0], 1, 1, 1), 0);
    ck_assert_int_eq(end_append(&ends.end[0], 1, 1, 1), LOCKSTEP_EFULL);
    ck_assert(arrive(&ends.end[1], 1));
    ck_assert_int_eq(end_append(&ends.end[0], 1, 1, 1), 0);
}
END_TEST

START_TEST(large_frame_is_announced_once_before_it_is_whole)
{
    ends_connect(&ends);
    ends.end[1].deaf = true;
    uint8_t *blocks = calloc(1, BLOCK_BYTES_MAX);
    struct raft_message message = {.type = RAFT_APPEND, .from = end_member(0), .to = end_member(1), .term = 9};
    const struct transport_send send = {
        .slot = 1, .type = FRAME_RAFT, .message = &message, .blocks = blocks, .blocks_bytes = BLOCK_BYTES_MAX};
    struct transport *t = ends.end[0].transport;
    ck_assert_int_eq(t->ops->send(t, &send), 0);
    ends.end[1].deaf = false;
    ck_assert(arrive(&ends.end[1], 1));
    ck_assert_uint_eq(ends.end[1].frame_count, 2);
    ck_assert(ends.end[1].frames[0].partial);
    ck_assert_uint_eq(ends.end[1].frames[0].message.term, 9);
    ck_assert_uint_eq(ends.end[1].frames[0].body_bytes, 0);
    ck_assert_uint_eq(ends.end[1].frames[1].body_bytes, BLOCK_BYTES_MAX);
    free(blocks);
}
END_TEST

static bool not_connected(struct ends *unused, const void *context)
{
    (void)unused;
    (void)context;
    return !end_status(&ends.end[0], 1).connected_out && !end_status(&ends.end[0], 1).connected_in;
}

static bool is_connected_out(struct ends *unused, const void *context)
{
    (void)unused;
    (void)context;
    return end_status(&ends.end[0], 1).connected_out;
}

static bool has_lost_n1(struct ends *unused, const void *context)
{
    (void)unused;
    (void)context;
    return !end_status(&ends.end[1], 0).connected_in;
}

START_TEST(restarted_peer_is_dialled_again_and_the_queue_starts_empty)
{
    ends_connect(&ends);
    end_close(&ends.end[1]);
    ck_assert(ends_run(&ends, not_connected, NULL));
    ck_assert_uint_gt(strlen(end_status(&ends.end[0], 1).reason), 0);
    uint64_t from_ns = uv_hrtime();
    end_open(&ends.end[1]);
    ck_assert(ends_run(&ends, ends_connected, NULL));
    ck_assert_uint_lt(uv_hrtime() - from_ns, UINT64_C(1500000000));
    struct raft_message message = heartbeat(0, 1, 5);
    ck_assert_int_eq(end_send(&ends.end[0], 1, &message), 0);
    ck_assert(arrive(&ends.end[1], 1));
    ck_assert_uint_eq(ends.end[1].frames[0].message.as.heartbeat.round, 5);
}
END_TEST

/* A process that is stopped, or hangs: its kernel goes on acknowledging until its buffer is full, then nothing moves. */
START_TEST(peer_that_stops_reading_is_given_up_within_seconds)
{
    int listener = unit_listen(ends.end[1].port);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    end_open(&ends.end[0]);
    int fd = -1;
    while (fd < 0) {
        ends_run_ms(&ends, 1);
        fd = accept(listener, NULL, NULL);
    }
    uint8_t frame[PEER_FRAME_HEADER_BYTES + WIRE_HELLO_REPLY_BYTES];
    struct wire_hello_reply reply = {.accepted = true, .hello = {.cluster_id = 7, .name = "n2"}};
    wire_hello_reply_write(&reply, frame + PEER_FRAME_HEADER_BYTES);
    peer_frame_seal(frame, FRAME_HELLO_REPLY, 0, WIRE_HELLO_REPLY_BYTES, 0, 0);
    for (uint8_t byte; recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 1;) ends_run_ms(&ends, 1); /* its hello */
    ck_assert_int_eq(send(fd, frame, sizeof frame, MSG_NOSIGNAL), (ssize_t)sizeof frame);
    ck_assert(ends_run(&ends, is_connected_out, NULL));

    ck_assert_int_eq(end_publish(&ends.end[0], 200 << 10), 0);
    int rc = 0;
    for (unsigned i = 0; i < 1000 && rc == 0; i++) {
        rc = end_append(&ends.end[0], 1, 1, 1);
        ends_run_ms(&ends, 0);
    }
    ck_assert_int_eq(rc, LOCKSTEP_EFULL);
    uint64_t from_ns = uv_hrtime();
    while (end_status(&ends.end[0], 1).connected_out && uv_hrtime() - from_ns < UINT64_C(15000000000))
        ends_run_ms(&ends, 20);
    ck_assert(!end_status(&ends.end[0], 1).connected_out);
    ck_assert_ptr_nonnull(strstr(end_status(&ends.end[0], 1).reason, "timed out"));
    ck_assert_uint_eq(ends.end[0].transport->ops->queued_bytes(ends.end[0].transport, 1), 0);
    close(fd);
    close(listener);
}
END_TEST

START_TEST(last_words_of_a_peer_that_closes_are_still_read) /* a leader hands over, then exits */
{
    ends_connect(&ends);
    struct raft_message message = {.type = RAFT_TIMEOUT_NOW, .from = end_member(0), .to = end_member(1), .term = 2};
    ck_assert_int_eq(end_send(&ends.end[0], 1, &message), 0);
    ends.end[0].transport->ops->flush(ends.end[0].transport);
    end_close(&ends.end[0]);
    ends.end[1].deaf = true;
    ck_assert(ends_run(&ends, has_lost_n1, NULL));
    ends.end[1].deaf = false;
    ck_assert(arrive(&ends.end[1], 1));
    ck_assert_uint_eq(ends.end[1].frames[0].message.type, RAFT_TIMEOUT_NOW);
}
END_TEST

static unsigned hangups(const struct end *end)
{
    unsigned count = 0;
    for (unsigned i = 0; i < end->frame_count; i++) count += end->frames[i].type == FRAME_HANGUP;
    return count;
}

START_TEST(hang_up_of_a_peer_is_handed_out_once_behind_its_last_frame) /* its process died */
{
    ends_connect(&ends);
    ends.end[1].deaf = true;
    struct raft_message message = heartbeat(0, 1, 1);
    for (unsigned i = 0; i < 100; i++) ck_assert_int_eq(end_send(&ends.end[0], 1, &message), 0);
    ends.end[0].transport->ops->flush(ends.end[0].transport);
    end_close(&ends.end[0]);
    ck_assert(ends_run(&ends, has_lost_n1, NULL));
    ends.end[1].deaf = false;
    ck_assert(arrive(&ends.end[1], 101));
    ends_run_ms(&ends, 50);
    ck_assert_uint_eq(ends.end[1].frame_count, 101);
    ck_assert_uint_eq(hangups(&ends.end[1]), 1);
    const struct ends_frame *last = &ends.end[1].frames[100];
    ck_assert_uint_eq(last->type, FRAME_HANGUP);
    ck_assert_uint_eq(last->slot, 0);
    ck_assert_uint_eq(last->member_id, end_member(0));
    ck_assert_uint_eq(last->body_bytes, 0);
    end_open(&ends.end[0]);
    ck_assert(ends_run(&ends, ends_connected, NULL));
    ck_assert_int_eq(end_send(&ends.end[0], 1, &message), 0);
    ck_assert(arrive(&ends.end[1], 102));
    ck_assert_uint_eq(ends.end[1].frames[101].type, FRAME_RAFT);
}
END_TEST

static bool has_reason(struct ends *unused, const void *context)
{
    (void)unused;
    return strstr(end_status(&ends.end[0], 1).reason, context) != NULL;
}

START_TEST(refused_hello_is_answered_with_the_reason)
{
    ends.end[1].refuse = "n1 belongs to cluster \"other\"";
    end_open(&ends.end[0]);
    end_open(&ends.end[1]);
    ck_assert(ends_run(&ends, has_reason, "n1 belongs to cluster \"other\""));
    ck_assert(!end_status(&ends.end[0], 1).connected_out);
    ck_assert_uint_gt(ends.end[1].transport->ops->frames_refused(ends.end[1].transport), 0);
}
END_TEST

START_TEST(dialler_judges_who_answers_too)
{
    ends.end[0].refuse = "n2 is not what it was";
    end_open(&ends.end[0]);
    end_open(&ends.end[1]);
    ck_assert(ends_run(&ends, has_reason, "n2 is not what it was"));
    ck_assert(!end_status(&ends.end[0], 1).connected_out);
}
END_TEST

START_TEST(address_where_another_node_answers_is_named)
{
    char why[256], third[64];
    struct tcp_options options = end_options(&ends.end[0]);
    snprintf(third, sizeof third, "%s", options.peers[1].address);
    options.peer_count = 3;
    options.peers[2].name = "n3";
    options.peers[2].address = third; /* where n2 is */
    ck_assert_int_eq(tcp_open(&options, &ends.end[0].transport, why, sizeof why), 0);
    end_open(&ends.end[1]);
    ck_assert(ends_run(&ends, ends_connected, NULL));
    struct transport_peer_status status = end_status(&ends.end[0], 2);
    ck_assert_ptr_nonnull(strstr(status.reason, "answers as node n2, not n3"));
}
END_TEST

START_TEST(new_hello_is_said_on_new_connections)
{
    ends_connect(&ends);
    struct transport_hello hello = end_options(&ends.end[0]).hello;
    hello.member_id = 0x77;
    ends.end[0].transport->ops->hello_set(ends.end[0].transport, &hello);
    ck_assert(!end_status(&ends.end[0], 1).connected_out);
    ck_assert(ends_run(&ends, ends_connected, NULL));
    ck_assert_uint_eq(end_status(&ends.end[1], 0).member_id, 0x77);
}
END_TEST

static bool lost_both_ways(struct ends *unused, const void *context)
{
    (void)unused;
    (void)context;
    struct transport_peer_status status = end_status(&ends.end[1], 0);
    return !status.connected_in && !status.connected_out;
}

START_TEST(peers_come_and_go_while_it_runs) /* members are added and removed */
{
    ends_connect(&ends);
    struct transport *t = ends.end[0].transport;
    char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%d", ends.end[1].port);
    struct raft_message message = {.type = RAFT_TIMEOUT_NOW, .from = end_member(0), .to = end_member(1)};
    ck_assert_int_eq(t->ops->peer_set(t, 1, "n2", address), 0); /* the same again: nothing happens */
    ck_assert(end_status(&ends.end[0], 1).connected_out);

    ends.end[0].refuse = "n2 is no member any more";
    ck_assert_int_eq(t->ops->peer_set(t, 1, "", ""), 0);
    ck_assert_int_eq(end_send(&ends.end[0], 1, &message), LOCKSTEP_EUNREACHABLE);
    ck_assert(ends_run(&ends, lost_both_ways, NULL));
    struct transport_peer_status status = end_status(&ends.end[1], 0);
    ck_assert(!status.connected_out);

    ends.end[0].refuse = NULL;
    ck_assert_int_eq(t->ops->peer_set(t, 1, "n2", address), 0);
    ck_assert(ends_run(&ends, ends_connected, NULL));
    ck_assert_int_eq(end_send(&ends.end[0], 1, &message), 0);
}
END_TEST

START_TEST(peer_in_a_slot_that_was_never_used_is_dialled)
{
    char why[256], address[64];
    struct tcp_options options = end_options(&ends.end[0]);
    snprintf(address, sizeof address, "%s", options.peers[1].address);
    options.peers[1].name = "";
    ck_assert_int_eq(tcp_open(&options, &ends.end[0].transport, why, sizeof why), 0);
    struct transport *t = ends.end[0].transport;
    ck_assert_uint_eq(t->ops->queued_bytes(t, 1), 0);
    ck_assert(t->ops->blocks_idle(t, 1));
    ck_assert_int_eq(t->ops->peer_set(t, 1, "n2", "nonsense"), LOCKSTEP_EINVAL);
    ck_assert_int_eq(t->ops->peer_set(t, 1, "n2", address), 0);
    end_open(&ends.end[1]);
    ck_assert(ends_run(&ends, ends_connected, NULL));
}
END_TEST

static bool refused_as_gone(struct ends *unused, const void *context)
{
    (void)unused;
    (void)context;
    return end_status(&ends.end[0], 1).refused == LOCKSTEP_EFOREIGN;
}

START_TEST(code_of_a_refusal_is_told_and_forgotten_when_accepted)
{
    ends.end[1].refuse = "not now";
    end_open(&ends.end[0]);
    end_open(&ends.end[1]);
    ck_assert(ends_run(&ends, refused_as_gone, NULL));
    ends.end[1].refuse = NULL;
    ck_assert(ends_run(&ends, ends_connected, NULL));
    ck_assert_int_eq(end_status(&ends.end[0], 1).refused, 0);
}
END_TEST

/* --- strangers --- */

/* Run the loop until the other side has closed this socket; ret  whether it did within patience. */
struct stranger {
    int fd;
    uint8_t got[2048];
    size_t filled;
};

static bool is_closed(struct ends *unused, const void *context)
{
    (void)unused;
    struct stranger *s = (struct stranger *)(uintptr_t)context;
    ssize_t n = recv(s->fd, s->got + s->filled, sizeof s->got - s->filled, MSG_DONTWAIT);
    if (n > 0) s->filled += (size_t)n;
    return n == 0 || (n < 0 && errno != EAGAIN);
}

static uint64_t refused(void)
{
    return ends.end[1].transport->ops->frames_refused(ends.end[1].transport);
}

static void closed_after(const void *bytes, size_t count)
{
    struct stranger s = {.fd = end_dial_raw(&ends.end[1])};
    uint64_t before = refused();
    if (count > 0) ck_assert_int_eq(send(s.fd, bytes, count, MSG_NOSIGNAL), (ssize_t)count);
    ck_assert(ends_run(&ends, is_closed, &s));
    ck_assert_uint_eq(refused(), before + 1);
    close(s.fd);
    ck_assert(ends_connected(&ends, NULL)); /* nobody else notices */
}

static size_t hello_frame(uint8_t *frame, const char *name)
{
    struct transport_hello hello = {.protocol = 1, .cluster_id = 7, .member_id = 42, .boot = 1};
    snprintf(hello.name, sizeof hello.name, "%s", name);
    wire_hello_write(&hello, frame + PEER_FRAME_HEADER_BYTES);
    peer_frame_seal(frame, FRAME_HELLO, 0, WIRE_HELLO_BYTES, 0, 0);
    return PEER_FRAME_HEADER_BYTES + WIRE_HELLO_BYTES;
}

START_TEST(garbage_is_closed_and_counted)
{
    ends_connect(&ends);
    closed_after("GET / HTTP/1.1\r\n\r\n", 18);
    uint8_t noise[5000];
    struct random r;
    random_seed(&r, unit_seed(0x4e4f4953));
    for (unsigned i = 0; i < 20; i++) {
        random_fill(&r, noise, sizeof noise);
        closed_after(noise, sizeof noise);
    }
}
END_TEST

START_TEST(silent_stranger_is_closed_at_its_deadline)
{
    ends_connect(&ends);
    closed_after(NULL, 0);
}
END_TEST

START_TEST(hello_with_hostile_lengths_or_damage_is_closed_at_once)
{
    ends_connect(&ends);
    uint8_t frame[2048];
    size_t bytes = hello_frame(frame, "n1");
    for (unsigned bit = 32; bit < 8 * PEER_FRAME_HEADER_BYTES;
         bit++) { /* behind the magic: length, type, version, crc */
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        closed_after(frame, bytes);
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (bit >= 64) bit += 6; /* a sample of the rest */
    }
    peer_frame_seal(frame, FRAME_RAFT, 0, WIRE_HELLO_BYTES, 0, 0); /* first frame is no hello */
    closed_after(frame, bytes);
    peer_frame_seal(frame, FRAME_HELLO, 0, WIRE_HELLO_BYTES, 100, 0); /* a hello has no body */
    closed_after(frame, bytes);
    memset(frame + PEER_FRAME_HEADER_BYTES + 56, 'a', 64); /* a name that does not end */
    peer_frame_seal(frame, FRAME_HELLO, 0, WIRE_HELLO_BYTES, 0, 0);
    closed_after(frame, bytes);
}
END_TEST

START_TEST(hello_in_small_pieces_is_read)
{
    ends_connect(&ends);
    uint8_t frame[2048];
    size_t bytes = hello_frame(frame, "nobody");
    struct stranger s = {.fd = end_dial_raw(&ends.end[1])};
    for (size_t i = 0, piece; i < bytes; i += piece) {
        piece = i < PEER_FRAME_HEADER_BYTES + 16 ? 1 : 32; /* it has two seconds to say who it is */
        if (piece > bytes - i) piece = bytes - i;
        ck_assert_int_eq(send(s.fd, frame + i, piece, MSG_NOSIGNAL), (ssize_t)piece);
        ends_run_ms(&ends, 1);
    }
    ck_assert(ends_run(&ends, is_closed, &s));
    struct wire_hello_reply reply;
    ck_assert_uint_eq(s.filled, PEER_FRAME_HEADER_BYTES + WIRE_HELLO_REPLY_BYTES);
    ck_assert_int_eq(wire_hello_reply_read(s.got + PEER_FRAME_HEADER_BYTES, WIRE_HELLO_REPLY_BYTES, &reply), 0);
    ck_assert(!reply.accepted);
    ck_assert_str_eq(reply.reason, "not one of us");
    ck_assert_str_eq(reply.hello.name, "n2");
    close(s.fd);
}
END_TEST

static bool has_refused_a_crowd(struct ends *unused, const void *context)
{
    (void)unused;
    (void)context;
    return refused() >= 100 - 32;
}

START_TEST(crowd_of_strangers_does_not_keep_a_member_out)
{
    end_open(&ends.end[1]);
    int crowd[100];
    for (unsigned i = 0; i < 100; i++) crowd[i] = end_dial_raw(&ends.end[1]);
    ck_assert(ends_run(&ends, has_refused_a_crowd, NULL));
    end_open(&ends.end[0]);
    ck_assert(ends_run(&ends, ends_connected, NULL));
    for (unsigned i = 0; i < 100; i++) close(crowd[i]);
}
END_TEST

/* A stranger that greets as n1 and then says `bytes`. */
static struct stranger impostor(void)
{
    uint8_t frame[2048];
    size_t bytes = hello_frame(frame, "n1");
    struct stranger s = {.fd = end_dial_raw(&ends.end[1])};
    ck_assert_int_eq(send(s.fd, frame, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
    while (s.filled < PEER_FRAME_HEADER_BYTES + WIRE_HELLO_REPLY_BYTES) {
        ends_run_ms(&ends, 1);
        ck_assert(!is_closed(&ends, &s));
    }
    return s;
}

START_TEST(second_connection_of_a_member_replaces_the_first)
{
    end_open(&ends.end[1]);
    struct stranger first = impostor();
    struct stranger second = impostor();
    ck_assert(ends_run(&ends, is_closed, &first));
    struct transport_peer_status status = end_status(&ends.end[1], 0);
    ck_assert(status.connected_in);
    ck_assert_uint_eq(hangups(&ends.end[1]), 0); /* it lives */
    uint8_t frame[128];
    struct raft_message message = {.type = RAFT_TIMEOUT_NOW, .from = 42, .to = end_member(1), .term = 8};
    size_t fields = wire_message_write(&message, frame + PEER_FRAME_HEADER_BYTES);
    peer_frame_seal(frame, FRAME_RAFT, 0, fields, 0, 0);
    ck_assert_int_eq(send(second.fd, frame, PEER_FRAME_HEADER_BYTES + fields, 0),
                     (ssize_t)(PEER_FRAME_HEADER_BYTES + fields));
    ck_assert(arrive(&ends.end[1], 1));
    ck_assert_uint_eq(ends.end[1].frames[0].member_id, 42);
    close(first.fd);
    close(second.fd);
}
END_TEST

START_TEST(damaged_frame_of_a_member_closes_its_connection_and_is_counted)
{
    end_open(&ends.end[1]);
    uint8_t frame[128];
    struct raft_message message = {.type = RAFT_TIMEOUT_NOW, .from = 42, .to = end_member(1), .term = 8};
    size_t fields = wire_message_write(&message, frame + PEER_FRAME_HEADER_BYTES);
    size_t bytes = PEER_FRAME_HEADER_BYTES + fields;
    for (unsigned bit = 0; bit < 8 * bytes; bit += 13) {
        struct stranger s = impostor();
        uint64_t before = refused();
        peer_frame_seal(frame, FRAME_RAFT, 0, fields, 0, 0);
        frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_int_eq(send(s.fd, frame, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
        /* A longer fields_bytes that is still in range waits for bytes that then fail the checksum. */
        uint8_t more[PEER_FRAME_FIELDS_BYTES_MAX] = {0};
        (void)!send(s.fd, more, sizeof more, MSG_NOSIGNAL);
        ck_assert(ends_run(&ends, is_closed, &s));
        ck_assert_uint_eq(refused(), before + 1);
        ck_assert(!end_status(&ends.end[1], 0).connected_in);
        close(s.fd);
    }
    ck_assert_uint_eq(end_whole_frames(&ends.end[1]), 0);
}
END_TEST

START_TEST(hang_up_in_the_middle_of_a_frame_is_noticed_and_an_unread_one_ends_with_the_next_connection)
{
    end_open(&ends.end[1]);
    uint8_t frame[128];
    struct raft_message message = {.type = RAFT_TIMEOUT_NOW, .from = 42, .to = end_member(1), .term = 8};
    size_t fields = wire_message_write(&message, frame + PEER_FRAME_HEADER_BYTES);
    peer_frame_seal(frame, FRAME_RAFT, 0, fields, 0, 0);
    struct stranger first = impostor();
    ck_assert_int_eq(send(first.fd, frame, 40, 0), 40);
    close(first.fd);
    ck_assert(arrive(&ends.end[1], 1));
    ck_assert_uint_eq(ends.end[1].frames[0].type, FRAME_HANGUP);
    ck_assert_uint_eq(ends.end[1].frames[0].member_id, 42);

    struct stranger second = impostor();
    ends.end[1].deaf = true;
    close(second.fd);
    ck_assert(ends_run(&ends, has_lost_n1, NULL));
    struct stranger third = impostor();
    ends.end[1].deaf = false;
    ends_run_ms(&ends, 50);
    ck_assert_uint_eq(ends.end[1].frame_count, 1);
    close(third.fd);
}
END_TEST

START_TEST(a_hang_up_sent_as_a_frame_is_refused) /* it is made here, never received */
{
    end_open(&ends.end[1]);
    struct stranger s = impostor();
    uint8_t frame[PEER_FRAME_HEADER_BYTES];
    uint64_t before = refused();
    peer_frame_seal(frame, FRAME_HANGUP, 0, 0, 0, 0);
    ck_assert_int_eq(send(s.fd, frame, sizeof frame, MSG_NOSIGNAL), (ssize_t)sizeof frame);
    ck_assert(ends_run(&ends, is_closed, &s));
    ck_assert_uint_eq(refused(), before + 1);
    ck_assert_uint_eq(ends.end[1].frame_count, 0);
    close(s.fd);
}
END_TEST

START_TEST(damaged_body_of_a_forwarded_command_is_refused)
{
    end_open(&ends.end[1]);
    struct stranger s = impostor();
    uint8_t frame[PEER_FRAME_HEADER_BYTES + 8] = {0};
    uint64_t before = refused();
    peer_frame_seal(frame, FRAME_FORWARD, 0, 0, 8, 0x12345678);
    ck_assert_int_eq(send(s.fd, frame, sizeof frame, MSG_NOSIGNAL), (ssize_t)sizeof frame);
    ck_assert(ends_run(&ends, is_closed, &s));
    ck_assert_uint_eq(refused(), before + 1);
    close(s.fd);
}
END_TEST

/* --- addresses --- */

START_TEST(addresses_are_split_or_refused)
{
    char host[256], port[8];
    ck_assert(tcp_address_split("127.0.0.1:7501", host, port));
    ck_assert_str_eq(host, "127.0.0.1");
    ck_assert_str_eq(port, "7501");
    ck_assert(tcp_address_split("[::1]:80", host, port));
    ck_assert_str_eq(host, "::1");
    ck_assert(tcp_address_split("db-1.example.org:0", host, port));
    const char *const wrong[] = {"",           ":",      "host",    "host:", ":80",     "host:80a",
                                 "host:65536", "::1:80", "[::1]80", "[]:80", "host:-1", "host: 80"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_msg(!tcp_address_split(wrong[i], host, port), "%s", wrong[i]);
}
END_TEST

START_TEST(address_in_use_and_bad_addresses_are_named)
{
    char why[256];
    struct transport *t;
    end_open(&ends.end[0]);
    struct tcp_options options = end_options(&ends.end[0]);
    ck_assert_int_eq(tcp_open(&options, &t, why, sizeof why), LOCKSTEP_EEXIST);
    ck_assert_ptr_nonnull(strstr(why, options.listen));
    ck_assert_ptr_nonnull(strstr(why, "in use"));
    options.peers[1].address = "nowhere";
    ck_assert_int_eq(tcp_open(&options, &t, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_str_eq(why, "peer address nowhere of node n2: not HOST:PORT; write it like 127.0.0.1:7501");
}
END_TEST

START_TEST(host_name_is_resolved_when_dialled)
{
    char why[256], name[64];
    struct tcp_options options = end_options(&ends.end[0]);
    snprintf(name, sizeof name, "localhost:%d", ends.end[1].port);
    options.peers[1].address = name;
    ck_assert_int_eq(tcp_open(&options, &ends.end[0].transport, why, sizeof why), 0);
    end_open(&ends.end[1]);
    ck_assert(ends_run(&ends, ends_connected, NULL));
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, both_ends_connect_and_know_each_others_member_id);
    tcase_add_test(tests, frames_of_all_types_arrive_in_order_with_their_sender);
    tcase_add_test(tests, send_to_a_peer_that_is_not_connected_is_refused);
    tcase_add_test(tests, blocks_sent_from_the_ring_arrive_byte_for_byte_over_many_wraps);
    tcase_add_test(tests, blocks_sent_from_memory_are_idle_when_written);
    tcase_add_test(tests, queue_of_a_deaf_peer_is_bounded_and_pins_the_ring);
    tcase_add_test(tests, one_block_larger_than_the_queue_is_still_taken);
    tcase_add_test(tests, large_frame_is_announced_once_before_it_is_whole);
    tcase_add_test(tests, restarted_peer_is_dialled_again_and_the_queue_starts_empty);
    tcase_add_test(tests, peer_that_stops_reading_is_given_up_within_seconds);
    tcase_add_test(tests, last_words_of_a_peer_that_closes_are_still_read);
    tcase_add_test(tests, hang_up_of_a_peer_is_handed_out_once_behind_its_last_frame);
    tcase_add_test(tests, refused_hello_is_answered_with_the_reason);
    tcase_add_test(tests, dialler_judges_who_answers_too);
    tcase_add_test(tests, address_where_another_node_answers_is_named);
    tcase_add_test(tests, new_hello_is_said_on_new_connections);
    tcase_add_test(tests, garbage_is_closed_and_counted);
    tcase_add_test(tests, silent_stranger_is_closed_at_its_deadline);
    tcase_add_test(tests, peers_come_and_go_while_it_runs);
    tcase_add_test(tests, peer_in_a_slot_that_was_never_used_is_dialled);
    tcase_add_test(tests, code_of_a_refusal_is_told_and_forgotten_when_accepted);
    tcase_add_test(tests, hello_with_hostile_lengths_or_damage_is_closed_at_once);
    tcase_add_test(tests, hello_in_small_pieces_is_read);
    tcase_add_test(tests, crowd_of_strangers_does_not_keep_a_member_out);
    tcase_add_test(tests, second_connection_of_a_member_replaces_the_first);
    tcase_add_test(tests, damaged_frame_of_a_member_closes_its_connection_and_is_counted);
    tcase_add_test(tests, hang_up_in_the_middle_of_a_frame_is_noticed_and_an_unread_one_ends_with_the_next_connection);
    tcase_add_test(tests, a_hang_up_sent_as_a_frame_is_refused);
    tcase_add_test(tests, damaged_body_of_a_forwarded_command_is_refused);
    tcase_add_test(tests, addresses_are_split_or_refused);
    tcase_add_test(tests, address_in_use_and_bad_addresses_are_named);
    tcase_add_test(tests, host_name_is_resolved_when_dialled);
}

int main(void)
{
    return unit_main("transport tcp", add);
}
