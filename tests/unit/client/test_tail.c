/* SPDX-License-Identifier: Apache-2.0 */
/* test_tail.c - a tail against a node that is this test: a real ring, a socket, and a log that answers as it likes.
 * Both run in one thread, in turns: what the tail sees is what the test did. Processes: tests/system/test_tail.py. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fds.h"
#include "client/internal.h"
#include "client/tail.h"
#include "proto/local_packet.h"
#include "proto/ring_reader.h"
#include "storage/ring.h"
#include "tests/support/blocks.h"
#include "tests/support/unit.h"

enum { RING_BYTES = 65536, BLOCKS_MAX = 4096, COMMANDS = 3, PAYLOAD = 40 };

/* --- the node -------------------------------------------------------------------------------------------------------- */

static uint64_t cluster_id;
static const raft_member member_id = 0x3e;
#define NOWHERE "127.0.0.1:1" /* the client port: not asked where the member is known, and not the environment's */

static struct {
    struct ring *ring;
    uint64_t boot;
    int listener, connection;
    int slot_fd;
    int fake_fd; /* handed out instead of the ring's; -1 = none */
    const struct ring_reader_slot *slot;
    uint8_t *blocks[BLOCKS_MAX]; /* by index: what was appended */
    struct block_header headers[BLOCKS_MAX];
    raft_index compacted, stored; /* the log has what lies between */
    int refuses;                  /* an error to answer hellos with */
    struct local_reply says;      /* who it is */
    bool answers;                 /* questions, as a node does */
    unsigned asked;               /* questions so far */
} node;

static struct lockstep_tail *tail;

static void node_up(const struct block_base *base)
{
    const struct ring_options options = {.bytes = RING_BYTES,
                                         .block_bytes_max = RING_BYTES / 4,
                                         .cluster_id = cluster_id,
                                         .member_id = member_id,
                                         .boot = ++node.boot};
    struct sockaddr_un address;
    socklen_t bytes = local_address(cluster_id, member_id, &address);
    ck_assert_int_eq(ring_open(&options, &node.ring), 0);
    ring_start(node.ring, base);
    node.says = (struct local_reply){.cluster_id = cluster_id, .member_id = member_id, .boot = node.boot};
    node.connection = -1;
    node.slot_fd = -1;
    node.fake_fd = -1;
    node.answers = true;
    node.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(node.listener, 0);
    ck_assert_int_eq(bind(node.listener, (const struct sockaddr *)&address, bytes), 0);
    ck_assert_int_eq(listen(node.listener, 8), 0);
}

static void hang_up(void)
{
    if (node.connection >= 0) close(node.connection);
    node.connection = -1;
    ring_reader_slot_unmap(node.slot);
    node.slot = NULL;
    if (node.slot_fd >= 0) close(node.slot_fd);
    node.slot_fd = -1;
}

static void node_down(void)
{
    hang_up();
    if (node.listener >= 0) close(node.listener);
    node.listener = -1;
    ring_close(node.ring);
    node.ring = NULL;
}

static void setup(void)
{
    memset(&node, 0, sizeof node);
    cluster_id = unit_cluster_id();
    node_up(&(struct block_base){.next_position = 1});
}

static void teardown(void)
{
    lockstep_tail_close(tail);
    tail = NULL;
    node_down();
    for (int i = 0; i < BLOCKS_MAX; i++) free(node.blocks[i]);
}

/* A block with `commands` commands behind the last one; the first payload word of command n of the log is n. */
static raft_index append_sized(raft_term term, uint32_t commands, uint32_t payload)
{
    struct block_base base = ring_last(node.ring);
    uint8_t *to;
    uint32_t bytes = blocks_bytes(commands, payload);
    raft_index index = base.index + 1;
    ck_assert_uint_lt(index, BLOCKS_MAX);
    ck_assert_int_eq(ring_claim(node.ring, bytes, &to), 0);
    blocks_make(to, &base, term, commands, payload, base.next_position, &node.headers[index]);
    free(node.blocks[index]);
    node.blocks[index] = malloc(bytes);
    ck_assert_ptr_nonnull(node.blocks[index]);
    memcpy(node.blocks[index], to, bytes);
    ring_publish(node.ring, &node.headers[index]);
    return index;
}

static raft_index append(void)
{
    return append_sized(1, COMMANDS, PAYLOAD);
}

static void commit(raft_index index)
{
    ring_commit(node.ring, index);
}

static void store(raft_index index)
{
    ring_release(node.ring, index);
    node.stored = index;
}

/* So many that the ring has passed what it held before. */
static void lap(void)
{
    for (uint64_t bytes = 0; bytes <= 2 * RING_BYTES; bytes += blocks_bytes(COMMANDS, PAYLOAD)) {
        raft_index index = append();
        commit(index);
        store(index);
    }
}

static void greet(void)
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    struct local_hello hello;
    struct local_reply reply = node.says;
    ssize_t got = fds_receive(node.connection, packet, sizeof packet, NULL, 0);
    if (got == LOCKSTEP_EUNAVAILABLE) return;
    ck_assert_int_eq(local_hello_read(packet, (size_t)got, &hello), 0);
    ck_assert_uint_eq(hello.kind, LOCAL_OBSERVER);
    ck_assert_uint_eq(hello.wanted_id, member_id);
    reply.error = node.refuses;
    if (node.refuses != 0) snprintf(reply.why, sizeof reply.why, "no");
    local_reply_write(&reply, packet);
    ck_assert_int_eq(ring_reader_slot_make(&node.slot_fd, &node.slot), 0);
    const int fds[LOCAL_FDS] = {node.fake_fd >= 0 ? node.fake_fd : ring_fd(node.ring), node.slot_fd};
    ck_assert_int_eq(fds_send(node.connection, packet, sizeof packet, fds, node.refuses == 0 ? LOCAL_FDS : 0), 0);
    if (node.refuses != 0) hang_up();
}

static void send_answer(struct local_answer answer, const uint8_t *bytes, size_t count)
{
    static uint8_t packet[LOCAL_ANSWER_BYTES_MAX];
    ck_assert_uint_le(count, sizeof packet - LOCAL_ANSWER_BYTES);
    local_answer_write(&answer, packet);
    if (count > 0) memcpy(packet + LOCAL_ANSWER_BYTES, bytes, count);
    ck_assert_int_eq(fds_send(node.connection, packet, LOCAL_ANSWER_BYTES + count, NULL, 0), 0);
}

static bool ask_take(struct local_ask *ret)
{
    uint8_t packet[64];
    ssize_t got = fds_receive(node.connection, packet, sizeof packet, NULL, 0);
    if (got < 0) return false;
    ck_assert_int_eq(local_ask_read(packet, (size_t)got, ret), 0);
    node.asked++;
    return true;
}

/* As the real one: whole blocks, or a part of one. */
static void answer(const struct local_ask *ask)
{
    static uint8_t bytes[LOCAL_ANSWER_BYTES_MAX];
    size_t room = LOCAL_ANSWER_BYTES_MAX - LOCAL_ANSWER_BYTES, count = 0;
    struct local_answer a = {.number = ask->number, .offset = ask->offset, .index = ask->index};
    if (ask->position != 0) {
        a.index = node.compacted + 1;
        while (a.index <= node.stored && block_base_after(&node.headers[a.index]).next_position <= ask->position)
            a.index++;
    }
    if (a.index > node.stored) {
        send_answer((struct local_answer){.number = ask->number, .error = LOCKSTEP_ENOTFOUND, .index = node.stored},
                    NULL, 0);
        return;
    }
    if (a.index <= node.compacted || (ask->position != 0 && ask->position < node.headers[a.index].first_position)) {
        a.error = LOCKSTEP_EGONE;
        a.oldest = node.headers[node.compacted + 1].first_position;
        send_answer(a, NULL, 0);
        return;
    }
    if (node.headers[a.index].bytes - ask->offset > room) {
        send_answer(a, node.blocks[a.index] + ask->offset, room);
        return;
    }
    for (raft_index i = a.index; i <= node.stored; i++) {
        size_t from = i == a.index ? ask->offset : 0, bytes_left = node.headers[i].bytes - from;
        if (bytes_left > room - count) break;
        memcpy(bytes + count, node.blocks[i] + from, bytes_left);
        count += bytes_left;
        if (ask->offset > 0) break;
    }
    send_answer(a, bytes, count);
}

static void node_turn(void)
{
    struct local_ask ask;
    if (node.listener < 0) return;
    if (node.connection < 0) {
        node.connection = accept4(node.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        return;
    }
    if (node.slot == NULL)
        greet();
    else if (node.answers && ask_take(&ask))
        answer(&ask);
}

/* --- the tail -------------------------------------------------------------------------------------------------------- */

static void tail_from(uint64_t position)
{
    const struct lockstep_tail_options options = {
        .size = sizeof options, .endpoint = NOWHERE, .from_position = position};
    char why[256];
    ck_assert_msg(tail_open_member(&options, cluster_id, member_id, &tail, why, sizeof why) == 0, "%s", why);
}

/* The next record, while the node has its turns; its error if there is none in a while. */
static int next(struct lockstep_tail_record *ret)
{
    int rc = LOCKSTEP_EUNAVAILABLE;
    for (int i = 0; i < 400 && rc == LOCKSTEP_EUNAVAILABLE; i++) {
        node_turn();
        rc = lockstep_tail_next(tail, ret, i < 20 ? 0 : 1);
    }
    return rc;
}

static void settle(void)
{
    struct lockstep_tail_record record;
    for (int i = 0; i < 20; i++) {
        node_turn();
        ck_assert_int_eq(lockstep_tail_next(tail, &record, 0), LOCKSTEP_EUNAVAILABLE);
    }
}

/* Exactly the commands from `first` to the last of block `last`, one after the other, and none behind. */
static void expect(log_position first, raft_index last)
{
    struct lockstep_tail_record record;
    log_position end = block_base_after(&node.headers[last]).next_position;
    for (log_position position = first; position < end; position++) {
        int rc = next(&record);
        ck_assert_msg(rc == 0, "position %llu: %d %s", (unsigned long long)position, rc, lockstep_tail_text(tail));
        ck_assert_uint_eq(record.position, position);
        const struct block_header *header = &node.headers[record.index];
        ck_assert_uint_ge(position, header->first_position);
        ck_assert_uint_lt(position, header->first_position + header->count);
        ck_assert_uint_eq(record.term, header->term);
        ck_assert_uint_eq(record.time_ns, header->time_ns);
        struct block_cursor cursor = block_cursor(node.blocks[record.index], header);
        struct command_view view;
        do ck_assert(block_cursor_next(&cursor, &view));
        while (view.position < position);
        ck_assert_uint_eq(record.payload_bytes, view.header.bytes);
        ck_assert_mem_eq(record.payload, view.payload, view.header.bytes);
        ck_assert_uint_eq(record.session, view.header.session);
        ck_assert_uint_eq(record.seq, view.header.seq);
    }
    settle();
}

static void expect_end(int error)
{
    struct lockstep_tail_record record;
    ck_assert_int_eq(next(&record), error);
    ck_assert_str_ne(lockstep_tail_text(tail), "");
    ck_assert_int_eq(lockstep_tail_next(tail, &record, 0), error); /* final */
}

static struct lockstep_tail_status status(void)
{
    struct lockstep_tail_status s;
    lockstep_tail_status(tail, &s);
    return s;
}

/* --- out of the ring --------------------------------------------------------------------------------------------------- */

START_TEST(what_is_committed_is_handed_out_once_in_order_and_nothing_above_it) /* S3 */
{
    append(), append();
    commit(1);
    tail_from(1);
    expect(1, 1);
    commit(2);
    expect(1 + COMMANDS, 2);
    for (int i = 0; i < 50; i++) append();
    commit(40);
    expect(1 + 2 * COMMANDS, 40);
    ck_assert_uint_eq(status().next_position, 1 + 40 * COMMANDS);
    ck_assert_uint_eq(status().next_index, 41);
    ck_assert_uint_eq(status().commit_index, 40);
    ck_assert_uint_eq(status().lapped, 0);
}
END_TEST

START_TEST(without_a_position_it_begins_behind_what_is_committed)
{
    for (int i = 0; i < 10; i++) append();
    commit(7);
    tail_from(LOCKSTEP_TAIL_NOW);
    settle();
    ck_assert(status().attached);
    commit(10);
    expect(1 + 7 * COMMANDS, 10);
    ck_assert_uint_eq(node.asked, 0);
}
END_TEST

START_TEST(a_position_in_the_middle_of_a_block_is_the_first_that_comes)
{
    for (int i = 0; i < 10; i++) append();
    commit(10);
    tail_from(2 + 5 * COMMANDS);
    expect(2 + 5 * COMMANDS, 10);
}
END_TEST

START_TEST(a_position_that_is_not_there_yet_is_waited_for)
{
    append();
    commit(1);
    tail_from(3 + 4 * COMMANDS);
    settle();
    while (append() < 8) {
    }
    commit(8);
    expect(3 + 4 * COMMANDS, 8);
}
END_TEST

START_TEST(blocks_that_were_cut_are_never_seen_and_epochs_cost_nothing) /* S2, S3 */
{
    tail_from(1);
    log_position first = 1;
    for (raft_term term = 1; term < 30; term++) {
        raft_index kept = append_sized(term, COMMANDS, PAYLOAD);
        append_sized(term, COMMANDS, PAYLOAD), append_sized(term, COMMANDS, PAYLOAD);
        commit(kept);
        if (term % 2 == 0) {
            expect(first, kept);
            first = block_base_after(&node.headers[kept]).next_position;
        }
        ring_epoch_begin(node.ring);
        if (term % 3 == 0) settle(); /* it is just being changed */
        ring_cut(node.ring, kept + 1);
        ring_epoch_end(node.ring, term + 1, term % 2 == 0);
    }
    expect(first, ring_last(node.ring).index);
    ck_assert_uint_eq(status().lapped, 0);
}
END_TEST

START_TEST(who_sleeps_says_so_and_looks_once_more) /* S7 */
{
    struct lockstep_tail_record record;
    tail_from(1);
    settle();
    append();
    ck_assert_int_eq(lockstep_tail_timeout_ms(tail), -1);
    ck_assert_uint_eq(ring_word_load(&node.slot->sleeps) % 2, 1);
    commit(1);
    ck_assert_int_eq(lockstep_tail_timeout_ms(tail), 0);
    ck_assert_int_eq(lockstep_tail_next(tail, &record, 0), 0);
    ck_assert_uint_eq(ring_word_load(&node.slot->sleeps) % 2, 0);
    ck_assert_int_eq(lockstep_tail_timeout_ms(tail), 0); /* there is more in the block */
    while (lockstep_tail_next(tail, &record, 0) == 0) {
    }
    const uint8_t bell = LOCAL_BELL;
    int soon = -1;
    for (int i = 0; i < 10000 && soon == -1; i++) { /* one bell a millisecond; on a slow host that is over already */
        ck_assert_int_eq(fds_send(node.connection, &bell, 1, NULL, 0), 0);
        ck_assert_int_eq(lockstep_tail_next(tail, &record, 0), LOCKSTEP_EUNAVAILABLE);
        soon = lockstep_tail_timeout_ms(tail);
    }
    ck_assert_int_eq(soon, 1);
    ck_assert_uint_eq(ring_word_load(&node.slot->sleeps) % 2, 0);
}
END_TEST

START_TEST(it_tells_how_far_it_is)
{
    struct ring_status ring;
    for (int i = 0; i < 10; i++) append();
    commit(10);
    tail_from(LOCKSTEP_TAIL_NOW);
    settle(); /* there is nothing to read, so nothing behind it */
    ring_status_read(node.ring, &ring);
    ck_assert_uint_eq(ring_word_load(&node.slot->position), ring.tail);
    append(), append();
    commit(11);
    expect(1 + 10 * COMMANDS, 11);
    commit(12);
    ring_status_read(node.ring, &ring);
    ck_assert_uint_lt(ring_word_load(&node.slot->position), ring.tail + 1);
    expect(1 + 11 * COMMANDS, 12);
    ck_assert_uint_eq(ring_word_load(&node.slot->position), ring.tail);
}
END_TEST

/* --- out of the log ------------------------------------------------------------------------------------------------------ */

START_TEST(lapped_it_goes_on_from_the_log_and_then_from_the_ring) /* S1 */
{
    struct lockstep_tail_record record;
    tail_from(1);
    for (int i = 0; i < 10; i++) append();
    commit(10);
    ck_assert_int_eq(next(&record), 0);
    ck_assert_uint_eq(record.position, 1); /* and the others of what was copied are in its hands */
    lap();
    raft_index last = ring_last(node.ring).index;
    expect(2, last);
    ck_assert_uint_eq(status().lapped, 1);
    ck_assert_uint_eq(ring_word_load(&node.slot->lapped), 1);
    ck_assert_uint_gt(node.asked, 0);
    unsigned asked = node.asked;
    for (int i = 0; i < 10; i++) append();
    commit(last + 10);
    expect(block_base_after(&node.headers[last]).next_position, last + 10);
    ck_assert_uint_eq(node.asked, asked);
    ck_assert_uint_eq(status().lapped, 1);
    hang_up();
    lap();
    expect(block_base_after(&node.headers[last + 10]).next_position, ring_last(node.ring).index);
    ck_assert_uint_gt(status().lapped, 1);
    ck_assert_uint_eq(ring_word_load(&node.slot->lapped), 1); /* the node has counted the first */
}
END_TEST

START_TEST(it_may_begin_in_the_log)
{
    lap();
    raft_index last = ring_last(node.ring).index;
    tail_from(2);
    expect(2, last);
}
END_TEST

START_TEST(a_block_larger_than_a_packet_comes_in_parts)
{
    node_down();
    struct block_base base = {.next_position = 1};
    for (raft_index i = 1; i <= 3; i++) {
        node.blocks[i] = malloc(blocks_bytes(2, 200000));
        ck_assert_ptr_nonnull(node.blocks[i]);
        blocks_make(node.blocks[i], &base, 1, 2, i == 2 ? 200000 : 100, i, &node.headers[i]);
    }
    node_up(&base);
    commit(3);
    node.stored = 3;
    tail_from(1);
    expect(1, 3);
    ck_assert_uint_ge(node.asked, 8);
}
END_TEST

START_TEST(a_position_that_is_compacted_is_refused_with_the_oldest_one)
{
    lap();
    node.compacted = 20;
    tail_from(20 * COMMANDS);
    expect_end(LOCKSTEP_EGONE);
    ck_assert_uint_eq(status().oldest_position, 1 + 20 * COMMANDS);
    lockstep_tail_close(tail);
    hang_up();
    tail_from(1 + 20 * COMMANDS);
    expect(1 + 20 * COMMANDS, ring_last(node.ring).index);
}
END_TEST

START_TEST(a_log_that_is_empty_begins_in_the_ring) /* a snapshot took its place */
{
    node_down();
    node.compacted = node.stored = 50;
    node_up(&(struct block_base){.index = 50, .next_position = 151});
    tail_from(1);
    settle();
    append();
    commit(51);
    expect_end(LOCKSTEP_EGONE);
    ck_assert_uint_eq(status().oldest_position, 151);
}
END_TEST

START_TEST(an_observer_that_slept_while_the_log_was_compacted_is_told_so)
{
    tail_from(1);
    append();
    commit(1);
    expect(1, 1);
    lap();
    node.compacted = 20;
    expect_end(LOCKSTEP_EGONE);
    ck_assert_uint_eq(status().oldest_position, 1 + 20 * COMMANDS);
}
END_TEST

START_TEST(compacted_blocks_without_commands_that_are_wanted_lose_nothing) /* the simulator found it */
{
    tail_from(1);
    append();
    commit(1);
    expect(1, 1);
    append_sized(1, 0, 0); /* a term begins with such a block */
    append_sized(1, 0, 0);
    lap();
    node.compacted = 3;
    expect(1 + COMMANDS, ring_last(node.ring).index);
}
END_TEST

START_TEST(what_is_compacted_below_the_position_that_is_waited_for_loses_nothing)
{
    append();
    commit(1);
    store(1);
    tail_from(2 + 10 * COMMANDS);
    settle();
    lap();
    node.compacted = 10; /* block 11 holds it */
    expect(2 + 10 * COMMANDS, ring_last(node.ring).index);
}
END_TEST

START_TEST(what_is_compacted_of_blocks_that_are_passed_over_loses_nothing)
{
    append();
    commit(1);
    tail_from(2 + 10 * COMMANDS);
    settle();
    append();
    commit(2);
    settle(); /* block 2 is read, and lies below the position */
    lap();
    node.compacted = 10;
    expect(2 + 10 * COMMANDS, ring_last(node.ring).index);
}
END_TEST

/* --- again --------------------------------------------------------------------------------------------------------------- */

START_TEST(after_a_restart_it_goes_on_behind_what_it_handed_out)
{
    struct lockstep_tail_record record;
    tail_from(1);
    for (int i = 0; i < 10; i++) append();
    commit(10);
    store(6);
    for (log_position p = 1; p <= 4; p++) { /* in the middle of block 2 */
        ck_assert_int_eq(next(&record), 0);
        ck_assert_uint_eq(record.position, p);
    }
    struct block_base base = block_base_after(&node.headers[6]);
    node_down();
    node_up(&base); /* with less than was committed: the others have it, and it comes again */
    commit(6);
    expect(5, 10);
    for (int i = 7; i <= 12; i++) append();
    commit(12);
    expect(1 + 10 * COMMANDS, 12);
    ck_assert_uint_eq(status().restarts, 1);
    ck_assert_uint_eq(status().boot, 2);
}
END_TEST

START_TEST(a_hang_up_alone_costs_nothing)
{
    tail_from(1);
    for (raft_index i = 1; i <= 5; i++) {
        append();
        commit(i);
        expect(1 + (i - 1) * COMMANDS, i);
        hang_up();
    }
}
END_TEST

START_TEST(another_log_under_the_same_name_is_noticed)
{
    tail_from(1);
    for (int i = 0; i < 5; i++) append();
    commit(5);
    expect(1, 5);
    node_down();
    node_up(&(struct block_base){.next_position = 1});
    for (int i = 0; i < 6; i++) append_sized(2, COMMANDS, PAYLOAD + 8);
    commit(6);
    expect_end(LOCKSTEP_ECORRUPT);
}
END_TEST

/* --- refusals, and nodes that are none (S5) ---------------------------------------------------------------------------------- */

START_TEST(a_node_with_all_observers_that_it_takes_is_named)
{
    node.refuses = LOCKSTEP_EFULL;
    tail_from(1);
    expect_end(LOCKSTEP_EFULL);
}
END_TEST

START_TEST(another_version_is_named)
{
    node.refuses = LOCKSTEP_EVERSION;
    tail_from(1);
    expect_end(LOCKSTEP_EVERSION);
}
END_TEST

/* What it hands over is its own, of this start, and it is who was asked for. */
START_TEST(a_ring_of_somebody_else_is_not_followed)
{
    for (int kind = 0; kind < 6; kind++) {
        struct ring_options options = {.bytes = RING_BYTES,
                                       .block_bytes_max = RING_BYTES / 4,
                                       .cluster_id = cluster_id,
                                       .member_id = member_id,
                                       .boot = node.boot};
        struct ring *other;
        struct local_reply before = node.says;
        if (kind == 0 || kind == 4) options.cluster_id++;
        if (kind == 1 || kind == 5) options.member_id++;
        if (kind == 2) options.boot++;
        if (kind == 3) options.group++;
        if (kind == 4) node.says.cluster_id++; /* so they agree with each other, and not with whom it looked for */
        if (kind == 5) node.says.member_id++;
        ck_assert_int_eq(ring_open(&options, &other), 0);
        ring_start(other, &(struct block_base){.next_position = 1});
        node.fake_fd = ring_fd(other);
        tail_from(1);
        expect_end(LOCKSTEP_EPROTO);
        lockstep_tail_close(tail);
        tail = NULL;
        hang_up();
        ring_close(other);
        node.fake_fd = -1;
        node.says = before;
    }
}
END_TEST

START_TEST(a_node_that_is_not_on_this_host_is_named_with_what_to_do)
{
    const struct lockstep_tail_options options = {.size = sizeof options, .endpoint = NOWHERE, .deadline_ms = 50};
    struct lockstep_tail_record record;
    char why[256];
    uint64_t from_ns;
    int rc;
    do { /* who stands still for longer than it waits for a node that answers hears that end instead */
        from_ns = client_now_ns();
        ck_assert_int_eq(tail_open_member(&options, cluster_id, member_id + 1, &tail, why, sizeof why), 0);
        rc = lockstep_tail_next(tail, &record, -1);
        ck_assert_ptr_nonnull(strstr(lockstep_tail_text(tail), "run this on the node's host"));
        lockstep_tail_close(tail);
    } while (rc == LOCKSTEP_EUNREACHABLE && client_now_ns() - from_ns > 1000 * CLIENT_MS_NS);
    ck_assert_int_eq(rc, LOCKSTEP_ETIMEDOUT);
    const struct lockstep_tail_options patient = {.size = sizeof patient, .endpoint = NOWHERE};
    ck_assert_int_eq(tail_open_member(&patient, cluster_id, member_id + 1, &tail, why, sizeof why), 0);
    ck_assert_int_eq(lockstep_tail_next(tail, &record, -1), LOCKSTEP_EUNREACHABLE);
}
END_TEST

START_TEST(a_port_where_nobody_listens_and_an_address_that_is_none_are_named)
{
    struct lockstep_tail_options options = {.size = sizeof options, .endpoint = "127.0.0.1:1"};
    struct lockstep_tail_record record;
    char why[256] = "";
    ck_assert_int_eq(lockstep_tail_open(&options, &tail, why, sizeof why), 0);
    ck_assert_int_eq(lockstep_tail_next(tail, &record, -1), LOCKSTEP_EUNREACHABLE);
    ck_assert_ptr_nonnull(strstr(lockstep_tail_text(tail), "127.0.0.1:1"));
    lockstep_tail_close(tail);
    tail = NULL;
    options.endpoint = "127.0.0.1:1,127.0.0.1:2";
    ck_assert_int_eq(lockstep_tail_open(&options, &tail, why, sizeof why), LOCKSTEP_EINVAL);
    options.endpoint = "nonsense";
    ck_assert_int_eq(lockstep_tail_open(&options, &tail, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_str_ne(why, "");
}
END_TEST

/* From now on the process may open no more descriptors. ret  the limit that it had, to be set again. */
static struct rlimit descriptors_end(void)
{
    struct rlimit before, low;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)unit_next_descriptor();
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    return before;
}

START_TEST(descriptors_of_ones_own_that_are_used_up_are_named_and_no_fault_of_the_node)
{
    struct lockstep_tail_record record;
    for (int greeted = 0; greeted < 2; greeted++) { /* for its socket; then for what the node hands over */
        tail_from(1);
        if (greeted) {
            ck_assert_int_eq(lockstep_tail_next(tail, &record, 0), LOCKSTEP_EUNAVAILABLE);
            while (node.slot == NULL) node_turn();
        }
        struct rlimit before = descriptors_end();
        int rc = lockstep_tail_next(tail, &record, 0);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        ck_assert_int_eq(rc, LOCKSTEP_ENOMEM);
        ck_assert_ptr_nonnull(strstr(lockstep_tail_text(tail), "ulimit -n"));
        lockstep_tail_close(tail);
        tail = NULL;
        hang_up();
    }
}
END_TEST

START_TEST(a_damaged_block_is_never_handed_out)
{
    tail_from(1);
    append(), append();
    uint8_t *bytes = (uint8_t *)(uintptr_t)ring_at(node.ring, 0);
    bytes[node.headers[1].bytes + BLOCK_HEADER_BYTES + COMMAND_HEADER_BYTES] ^= 1;
    commit(2);
    struct lockstep_tail_record record;
    for (int i = 0; i < COMMANDS; i++) ck_assert_int_eq(next(&record), 0);
    expect_end(LOCKSTEP_ECORRUPT);
}
END_TEST

START_TEST(a_log_that_tells_damaged_blocks_is_not_believed)
{
    lap();
    for (unsigned at = 0; at < node.headers[1].bytes; at += 7) {
        node.blocks[1][at] ^= 0x10;
        tail_from(1);
        expect_end(LOCKSTEP_ECORRUPT);
        node.blocks[1][at] ^= 0x10;
        lockstep_tail_close(tail);
        tail = NULL;
        hang_up();
    }
}
END_TEST

/* The tail's question, which the node does not answer. */
static struct local_ask next_question(void)
{
    struct lockstep_tail_record record;
    struct local_ask question;
    bool asked = false;
    node.answers = false;
    for (int i = 0; i < 400 && !asked; i++) {
        (void)lockstep_tail_next(tail, &record, i < 20 ? 0 : 1);
        node_turn();
        if (node.slot != NULL) asked = ask_take(&question);
    }
    ck_assert(asked);
    return question;
}

START_TEST(a_block_that_ends_behind_what_was_told_is_not_looked_for_there)
{
    enum { ROOM = LOCAL_ANSWER_BYTES_MAX - LOCAL_ANSWER_BYTES };
    struct lockstep_tail_record record;
    struct block_base base = {.next_position = 1};
    struct block_header large;
    static uint8_t bytes[2 * LOCAL_ANSWER_BYTES_MAX];
    lap();
    const uint32_t first_bytes = node.headers[1].bytes;
    tail_from(1);
    struct local_ask question = next_question(); /* a part of a block in which a whole one lies */
    blocks_make(bytes, &base, 1, 1, ROOM, 0, &large);
    memcpy(bytes + first_bytes, node.blocks[2], node.headers[2].bytes);
    send_answer((struct local_answer){.number = question.number, .index = 1}, bytes, ROOM);
    ck_assert_uint_eq(next_question().offset, ROOM);
    hang_up();
    question = next_question(); /* the header alone of what lies there still */
    ck_assert_uint_eq(question.offset, 0);
    memcpy(bytes, node.blocks[1], first_bytes);
    send_answer((struct local_answer){.number = question.number, .index = 1}, bytes, first_bytes + BLOCK_HEADER_BYTES);
    for (int i = 0; i < COMMANDS; i++) ck_assert_int_eq(next(&record), 0);
    expect_end(LOCKSTEP_ECORRUPT);
}
END_TEST

START_TEST(answers_that_fit_no_question_end_it)
{
    lap();
    for (int kind = 0; kind < 6; kind++) {
        struct lockstep_tail_record record;
        tail_from(1);
        struct local_ask ask = next_question();
        struct local_answer a = {.number = ask.number, .index = 1};
        const uint8_t *bytes = node.blocks[1];
        size_t count = node.headers[1].bytes;
        switch (kind) {
        case 0: a.number++; break;
        case 1: a.offset = 8; break;
        case 2: a.index = 0; break;
        case 3: a.index = 2; break;
        case 4: count = 1; break;
        default: a.error = 5; break;
        }
        send_answer(a, bytes, count);
        int rc = next(&record);
        ck_assert_msg(rc == LOCKSTEP_EPROTO || rc == LOCKSTEP_ECORRUPT, "kind %d: %d", kind, rc);
        lockstep_tail_close(tail);
        tail = NULL;
        hang_up();
    }
}
END_TEST

START_TEST(a_block_that_the_node_has_otherwise_than_it_was_begun_ends_it)
{
    lap();
    tail_from(1);
    struct local_ask question = next_question();
    send_answer((struct local_answer){.number = question.number, .error = LOCKSTEP_EINVAL}, NULL, 0);
    expect_end(LOCKSTEP_ECORRUPT);
}
END_TEST

static void on_alarm(int number)
{
    (void)number;
}

START_TEST(a_signal_ends_the_waiting_so_that_its_owner_may_end)
{
    struct lockstep_tail_record record;
    const struct sigaction interrupts = {.sa_handler = on_alarm};
    /* again and again: the first may come before the waiting */
    const struct itimerval often = {.it_interval = {.tv_usec = 10000}, .it_value = {.tv_usec = 10000}}, never = {0};
    struct sigaction before;
    tail_from(1);
    settle();
    ck_assert_int_eq(sigaction(SIGALRM, &interrupts, &before), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    int rc = lockstep_tail_next(tail, &record, -1);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
    ck_assert_int_eq(sigaction(SIGALRM, &before, NULL), 0);
    ck_assert_int_eq(rc, LOCKSTEP_EUNAVAILABLE);
    ck_assert_str_eq(lockstep_tail_text(tail), "");
    append();
    commit(1);
    expect(1, 1);
}
END_TEST

START_TEST(packets_that_nobody_asked_for_end_it_and_bells_without_end_the_connection)
{
    struct lockstep_tail_record record;
    tail_from(1);
    settle();
    const uint8_t bell = LOCAL_BELL;
    for (int i = 0; i < 200; i++) (void)fds_send(node.connection, &bell, 1, NULL, 0);
    settle();
    ck_assert(!status().attached || status().restarts > 0);
    hang_up();
    for (int i = 0; i < 400 && !status().attached; i++) {
        node_turn();
        (void)lockstep_tail_next(tail, &record, 1);
    }
    ck_assert(status().attached);
    ck_assert_int_eq(fds_send(node.connection, "nonsense", 8, NULL, 0), 0);
    expect_end(LOCKSTEP_EPROTO);
}
END_TEST

/* The ring's memory once more, in memory that the test may write to. */
static uint64_t *garbage_make(size_t *ret_words)
{
    off_t bytes = lseek(ring_fd(node.ring), 0, SEEK_END);
    ck_assert_int_gt(bytes, 0);
    node.fake_fd = memfd_create("garbage", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_ge(node.fake_fd, 0);
    ck_assert_int_eq(ftruncate(node.fake_fd, bytes), 0);
    void *at = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, node.fake_fd, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    ck_assert_int_eq(pread(ring_fd(node.ring), at, (size_t)bytes, 0), bytes);
    ck_assert_int_eq(fcntl(node.fake_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE), 0);
    *ret_words = (size_t)bytes / 8;
    return at;
}

static void garbage_drop(uint64_t *garbage, size_t words)
{
    munmap(garbage, words * 8);
    close(node.fake_fd);
    node.fake_fd = -1;
}

START_TEST(the_first_block_has_to_be_the_one_that_was_looked_for) /* S5: it chains to none that could tell */
{
    enum { MAP = RING_SEGMENT_PAGE_BYTES / 8, MAP_SLOT = sizeof(struct ring_map_slot) / 8, POS = 2 };
    size_t words;
    for (int i = 0; i < 10; i++) append();
    commit(7);
    uint64_t *garbage = garbage_make(&words);
    tail_from(LOCKSTEP_TAIL_NOW);
    settle();
    ck_assert(status().attached);
    garbage[MAP + 8 * MAP_SLOT + POS] = garbage[MAP + 9 * MAP_SLOT + POS]; /* whole, committed, and another one */
    garbage[offsetof(struct ring_segment, commit) / 8] = 9;
    expect_end(LOCKSTEP_ECORRUPT);
    garbage_drop(garbage, words);
}
END_TEST

/* Words that no node writes. Whatever is handed out is what was appended, from the first on. */
START_TEST(a_ring_of_garbage_leads_nowhere)
{
    enum { BLOCKS = 20, WORDS_OF_HEADER = 17, WORDS_OF_MAP = 4 * (BLOCKS + 2) };
    uint64_t seed = unit_seed(0x7a11);
    for (int i = 0; i < BLOCKS; i++) append();
    commit(BLOCKS);
    for (uint64_t round = 0; round < unit_rounds(300); round++) {
        struct lockstep_tail_record record;
        size_t words;
        uint64_t *garbage = garbage_make(&words);
        tail_from(1);
        for (int i = 0; i < 3; i++) { /* attached, and perhaps not further */
            node_turn();
            ck_assert_int_eq(lockstep_tail_next(tail, &record, 0), LOCKSTEP_EUNAVAILABLE);
        }
        for (int k = 0; k < 3; k++) {
            const size_t spans[] = {WORDS_OF_HEADER, WORDS_OF_MAP, 2000}, begins[] = {0, 512, words - RING_BYTES / 8};
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t kind = (size_t)(seed >> 60) % 3, word = begins[kind] + (size_t)(seed >> 33) % spans[kind];
            garbage[word] = seed >> 20 & 1 ? seed >> 12 : garbage[word] + (seed >> 21) % 64;
        }
        log_position expected = 1;
        for (int i = 0; i < 100; i++) {
            node_turn();
            if (lockstep_tail_next(tail, &record, 0) != 0) continue;
            ck_assert_uint_eq(record.position, expected++);
            struct block_cursor cursor = block_cursor(node.blocks[record.index], &node.headers[record.index]);
            struct command_view view;
            do ck_assert(block_cursor_next(&cursor, &view));
            while (view.position < record.position);
            ck_assert_mem_eq(record.payload, view.payload, view.header.bytes);
        }
        lockstep_tail_close(tail);
        tail = NULL;
        hang_up();
        garbage_drop(garbage, words);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 100);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, what_is_committed_is_handed_out_once_in_order_and_nothing_above_it);
    tcase_add_test(tests, without_a_position_it_begins_behind_what_is_committed);
    tcase_add_test(tests, a_position_in_the_middle_of_a_block_is_the_first_that_comes);
    tcase_add_test(tests, a_position_that_is_not_there_yet_is_waited_for);
    tcase_add_test(tests, blocks_that_were_cut_are_never_seen_and_epochs_cost_nothing);
    tcase_add_test(tests, who_sleeps_says_so_and_looks_once_more);
    tcase_add_test(tests, it_tells_how_far_it_is);
    tcase_add_test(tests, lapped_it_goes_on_from_the_log_and_then_from_the_ring);
    tcase_add_test(tests, it_may_begin_in_the_log);
    tcase_add_test(tests, a_block_larger_than_a_packet_comes_in_parts);
    tcase_add_test(tests, a_position_that_is_compacted_is_refused_with_the_oldest_one);
    tcase_add_test(tests, a_log_that_is_empty_begins_in_the_ring);
    tcase_add_test(tests, an_observer_that_slept_while_the_log_was_compacted_is_told_so);
    tcase_add_test(tests, compacted_blocks_without_commands_that_are_wanted_lose_nothing);
    tcase_add_test(tests, what_is_compacted_below_the_position_that_is_waited_for_loses_nothing);
    tcase_add_test(tests, what_is_compacted_of_blocks_that_are_passed_over_loses_nothing);
    tcase_add_test(tests, after_a_restart_it_goes_on_behind_what_it_handed_out);
    tcase_add_test(tests, a_hang_up_alone_costs_nothing);
    tcase_add_test(tests, another_log_under_the_same_name_is_noticed);
    tcase_add_test(tests, a_node_with_all_observers_that_it_takes_is_named);
    tcase_add_test(tests, another_version_is_named);
    tcase_add_test(tests, a_ring_of_somebody_else_is_not_followed);
    tcase_add_test(tests, a_node_that_is_not_on_this_host_is_named_with_what_to_do);
    tcase_add_test(tests, a_port_where_nobody_listens_and_an_address_that_is_none_are_named);
    tcase_add_test(tests, descriptors_of_ones_own_that_are_used_up_are_named_and_no_fault_of_the_node);
    tcase_add_test(tests, a_damaged_block_is_never_handed_out);
    tcase_add_test(tests, a_log_that_tells_damaged_blocks_is_not_believed);
    tcase_add_test(tests, a_block_that_ends_behind_what_was_told_is_not_looked_for_there);
    tcase_add_test(tests, answers_that_fit_no_question_end_it);
    tcase_add_test(tests, a_block_that_the_node_has_otherwise_than_it_was_begun_ends_it);
    tcase_add_test(tests, a_signal_ends_the_waiting_so_that_its_owner_may_end);
    tcase_add_test(tests, packets_that_nobody_asked_for_end_it_and_bells_without_end_the_connection);
    tcase_add_test(tests, the_first_block_has_to_be_the_one_that_was_looked_for);
    tcase_add_test(tests, a_ring_of_garbage_leads_nowhere);
}

int main(void)
{
    return unit_main("client tail", add);
}
