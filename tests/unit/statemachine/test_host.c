/* SPDX-License-Identifier: Apache-2.0 */
/* test_host.c - the actor on one thread: what is applied, answered, hashed, and when it stops (M2, M4, M6, H1 to H4). */
#include "tests/support/unit.h"
#include "tests/unit/statemachine/world.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lockstep/errors.h"

enum { RING_BYTES = 1 << 20 };

static struct world world;

static void open_world(void)
{
    world_open(&world, RING_BYTES);
}

static void start_world(void)
{
    open_world();
    world_start(&world);
}

/* The next answer is this one. */
static void expect_applied(log_position position, int32_t code, const char *reply)
{
    struct host_answer answer;
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_int_eq(answer.type, HOST_ANSWER_APPLIED);
    ck_assert_int_eq(answer.error, 0);
    ck_assert_uint_eq(answer.position, position);
    ck_assert_int_eq(answer.code, code);
    ck_assert_uint_eq(answer.reply_bytes, strlen(reply));
    ck_assert_mem_eq(answer.reply, reply, answer.reply_bytes);
}

static void expect_query(uint64_t tag, int error, int32_t code, raft_index index, const char *reply)
{
    struct host_answer answer;
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_int_eq(answer.type, HOST_ANSWER_QUERY);
    ck_assert_uint_eq(answer.tag, tag);
    ck_assert_int_eq(answer.error, error);
    ck_assert_int_eq(answer.code, code);
    ck_assert_uint_eq(answer.index, index);
    ck_assert_uint_eq(answer.reply_bytes, strlen(reply));
    ck_assert_mem_eq(answer.reply, reply, answer.reply_bytes);
}

static void expect_no_answer(void)
{
    struct host_answer answer;
    ck_assert(!host_answer_next(world.host, &answer));
}

static int ask(uint64_t tag, raft_index min_index, const char *query)
{
    return host_query(world.host, tag, 5, min_index, (const uint8_t *)query, (uint32_t)strlen(query));
}

static bool hash_equal(struct lockstep_hash a, struct lockstep_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* --- applying --- */

START_TEST(committed_commands_are_applied_in_order_each_with_its_place)
{
    start_world();
    world.seq = 22; /* of no session: nothing but a number */
    world.entity = 33;
    block(&world, "ea", "ebc");
    block(&world, "e");
    raft_index last = block(&world, "edef");
    ring_commit(world.storage.ring, last);
    host_commit(world.host, 2); /* not all of it */
    ck_assert_uint_eq(world.machine_wakes, 1);
    ck_assert_uint_eq(world_run(&world), 1);
    ck_assert_uint_eq(host_applied_index(world.host), 2);
    ck_assert_uint_eq(world_probe()->applied, 3);
    host_commit(world.host, 3);
    host_commit(world.host, 2); /* an older one changes nothing */
    host_commit(world.host, 3);
    ck_assert_uint_eq(world.machine_wakes, 2);
    world_run(&world);
    static const struct {
        raft_index index;
        size_t bytes;
    } expected[] = {{1, 2}, {1, 3}, {2, 1}, {3, 4}};
    ck_assert_uint_eq(world_probe()->applied, 4);
    for (unsigned i = 0; i < 4; i++) {
        const struct probe_seen *seen = &world_probe()->seen[i];
        ck_assert_uint_eq(seen->index, expected[i].index);
        ck_assert_uint_eq(seen->position, i + 1);
        ck_assert_uint_eq(seen->payload_bytes, expected[i].bytes);
        ck_assert_uint_eq(seen->term, 3);
        ck_assert_uint_eq(seen->time_ns, 1000 * expected[i].index);
        ck_assert_uint_eq(seen->session, 0);
        ck_assert_uint_eq(seen->seq, 22);
        ck_assert_uint_eq(seen->entity, 33);
    }
    ck_assert_uint_eq(world_status(&world).applied_position, 4);
    ck_assert_uint_eq(world_status(&world).commands, 4);
    ck_assert_uint_eq(world_status(&world).batches, 2);
    world_close(&world);
}
END_TEST

START_TEST(payloads_are_read_where_they_lie)
{
    start_world();
    block(&world, "ea", "eb");
    world_commit(&world);
    world_run(&world);
    const uint8_t *ring = ring_at(world.storage.ring, 0);
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t *payload = world_probe()->seen[i].payload;
        ck_assert(payload >= ring);
        ck_assert(payload < ring + RING_BYTES);
    }
    world_close(&world);
}
END_TEST

START_TEST(blocks_without_commands_pass_and_nothing_is_applied)
{
    start_world();
    block_empty(&world, BLOCK_TERM);
    block_empty(&world, BLOCK_CONFIGURATION);
    block_empty(&world, BLOCK_COMMANDS);
    block_empty(&world, BLOCK_TYPE_IGNORABLE | 77);
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(host_applied_index(world.host), 4);
    ck_assert_uint_eq(world_probe()->batches, 0);
    block(&world, "ex");
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(world_probe()->applied, 1);
    ck_assert_uint_eq(world_probe()->seen[0].position, 1);
    world_close(&world);
}
END_TEST

START_TEST(commands_inside_an_ignored_block_take_their_positions_and_are_not_applied)
{
    start_world();
    block_begin(&world);
    block_add(&world, "ex");
    block_add(&world, "ey");
    block_end(&world, BLOCK_TYPE_IGNORABLE | 1);
    block(&world, "ez");
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(world_probe()->applied, 1);
    ck_assert_uint_eq(world_probe()->seen[0].position, 3);
    world_close(&world);
}
END_TEST

START_TEST(an_unknown_block_parks_and_nothing_behind_it_is_applied) /* T61 */
{
    start_world();
    block(&world, "ea");
    block_empty(&world, 9);
    block(&world, "eb");
    ring_commit(world.storage.ring, 3);
    host_commit(world.host, 1);
    world_run(&world);
    ck_assert(!world_status(&world).parked);
    ck_assert_int_eq(ask(1, 1, "count"), 0);
    ck_assert_int_eq(ask(2, 2, "count"), 0);
    ck_assert_int_eq(ask(3, 1, "count"), 0);
    host_commit(world.host, 3);
    unsigned wakes = world.loop_wakes;
    world_run(&world);
    ck_assert(world_status(&world).parked);
    ck_assert_int_eq(world_status(&world).error, 0);
    ck_assert_uint_gt(world.loop_wakes, wakes);
    ck_assert_uint_eq(host_applied_index(world.host), 1);
    ck_assert_uint_eq(world_probe()->applied, 1);
    ck_assert_ptr_nonnull(strstr(world.log, "block 2 is of type 9"));
    expect_query(1, 0, 0, 1, "1");
    expect_query(2, LOCKSTEP_EUNAVAILABLE, 0, 1, ""); /* it never comes: not left waiting */
    expect_query(3, 0, 0, 1, "1");
    expect_no_answer();
    world_run(&world);
    ck_assert_uint_eq(world_probe()->applied, 1);
    world_close(&world);
}
END_TEST

START_TEST(an_unknown_block_inside_a_run_ends_it)
{
    start_world();
    block(&world, "ea");
    block_empty(&world, 9);
    world_commit(&world);
    world_run(&world);
    ck_assert(world_status(&world).parked);
    ck_assert_uint_eq(host_applied_index(world.host), 1);
    world_close(&world);
}
END_TEST

START_TEST(a_step_is_bounded_in_bytes_and_one_block_always_fits)
{
    open_world();
    world.options.batch_bytes_max = 300;
    world_start(&world);
    for (unsigned i = 0; i < 6; i++) block(&world, "ea", "eb"); /* 64 + 2 * 40 = 144 bytes: two a run */
    world_commit(&world);
    ck_assert(host_work(world.host));
    ck_assert_uint_eq(host_applied_index(world.host), 2);
    ck_assert_uint_eq(world_run(&world), 2);
    ck_assert_uint_eq(host_applied_index(world.host), 6);
    ck_assert_uint_eq(world_status(&world).batches, 3);
    world_close(&world);

    open_world();
    world.options.batch_bytes_max = 1;
    world_start(&world);
    for (unsigned i = 0; i < 3; i++) block(&world, "ea", "eb");
    world_commit(&world);
    ck_assert_uint_eq(world_run(&world), 3);
    ck_assert_uint_eq(host_applied_index(world.host), 3);
    world_close(&world);
}
END_TEST

/* --- the log --- */

START_TEST(what_the_ring_has_passed_is_read_from_the_log_and_then_the_ring_again) /* T60, T62 */
{
    start_world();
    for (unsigned i = 0; i < 5; i++) block(&world, "ea", "eb");
    world_store(&world, 5);
    world_flush_ring(&world);
    for (unsigned i = 0; i < 5; i++) block(&world, "ec", "ed");
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(host_applied_index(world.host), 10);
    ck_assert_uint_eq(world_probe()->applied, 20);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_uint_eq(world_probe()->seen[i].position, i + 1);
        ck_assert_uint_eq(world_probe()->seen[i].index, i / 2 + 1);
    }
    ck_assert_uint_eq(world_status(&world).log_reads, 5);
    ck_assert_uint_eq(world_status(&world).batches, 5 + 1); /* one block of the log a run, then all of the ring */
    ck_assert_uint_eq((uintptr_t)world_probe()->seen[0].payload % 2, 1); /* from an odd address */
    world_close(&world);
}
END_TEST

START_TEST(a_block_that_cannot_be_read_stops_the_machine_and_is_named)
{
    static const int errors[] = {LOCKSTEP_ECORRUPT, LOCKSTEP_EIO, LOCKSTEP_EGONE};
    for (unsigned i = 0; i < 3; i++) {
        start_world();
        for (unsigned j = 0; j < 4; j++) block(&world, "ea");
        world_store(&world, 4);
        world_flush_ring(&world);
        world.storage.fail_index = 3;
        world.storage.fail_error = errors[i];
        host_commit(world.host, 4);
        world_run(&world);
        struct host_status status = world_status(&world);
        ck_assert_int_eq(status.error, errors[i]);
        ck_assert_uint_eq(status.error_index, 3);
        ck_assert_uint_eq(status.error_position, 0);
        ck_assert_uint_eq(status.applied_index, 2);
        ck_assert_uint_gt(world.loop_wakes, 0);
        world.storage.fail_index = 0;
        world_run(&world);
        ck_assert_uint_eq(host_applied_index(world.host), 2); /* for good */
        world_close(&world);
    }
}
END_TEST

START_TEST(a_committed_block_that_is_nowhere_is_damage)
{
    start_world();
    block(&world, "ea");
    world_store(&world, 1);
    world_flush_ring(&world);
    atomic_store(&world.storage.stored, 0);
    host_commit(world.host, 1);
    world_run(&world);
    ck_assert_int_eq(world_status(&world).error, LOCKSTEP_ECORRUPT);
    ck_assert_uint_eq(world_status(&world).error_index, 1);
    world_close(&world);
}
END_TEST

START_TEST(a_block_in_the_ring_that_is_not_what_its_slot_says_is_damage)
{
    start_world();
    block(&world, "ea");
    struct ring_slot slot;
    struct block_header header;
    ck_assert_int_eq(ring_find(world.storage.ring, 1, &slot), 0);
    uint8_t *bytes = (uint8_t *)(uintptr_t)ring_at(world.storage.ring, slot.pos);
    ck_assert_int_eq(block_header_read(bytes, slot.bytes, &header), 0);
    header.term++;
    block_seal(bytes, &header); /* a whole block, and another one */
    world_commit(&world);
    world_run(&world);
    ck_assert_int_eq(world_status(&world).error, LOCKSTEP_ECORRUPT);
    ck_assert_uint_eq(world_status(&world).error_index, 1);
    ck_assert_uint_eq(world_probe()->applied, 0);
    world_close(&world);
}
END_TEST

START_TEST(a_gap_in_the_positions_is_damage)
{
    start_world();
    block(&world, "ea", "eb");
    world_store(&world, 1);
    world_commit(&world);
    world_run(&world);
    block(&world, "ec");
    world_store(&world, 2);
    world_flush_ring(&world);
    struct block_header header;
    ck_assert_int_eq(block_header_read(world.storage.blocks[2], 4096, &header), 0);
    header.first_position++;
    block_seal(world.storage.blocks[2], &header);
    host_commit(world.host, 2);
    world_run(&world);
    ck_assert_int_eq(world_status(&world).error, LOCKSTEP_ECORRUPT);
    ck_assert_uint_eq(world_status(&world).error_index, 2);
    ck_assert_uint_eq(world_probe()->applied, 2);
    world_close(&world);
}
END_TEST

START_TEST(applying_begins_behind_the_last_compacted_block)
{
    open_world();
    block(&world, "ea", "eb");
    block(&world, "ec");
    world.options.start_index = 2;
    world_start(&world);
    ck_assert_uint_eq(host_applied_index(world.host), 1);
    ck_assert_uint_eq(world_status(&world).hash_index, 1);
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(world_probe()->applied, 1);
    ck_assert_uint_eq(world_probe()->seen[0].position, 3);
    world_close(&world);
}
END_TEST

/* --- answers --- */

START_TEST(commands_of_this_node_are_answered_in_order_and_others_are_not)
{
    start_world();
    block(&world, "ea", "eb");
    block(&world, "ec", "rno", "n");
    host_answer_from(world.host, 2);
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(world.loop_wakes, 1);
    expect_applied(2, 0, "b");
    expect_applied(3, 0, "c");
    expect_applied(4, 7, "no");
    expect_applied(5, 0, ""); /* not answered by the machine: OK and empty */
    expect_no_answer();
    host_answer_from(world.host, UINT64_MAX);
    block(&world, "ed");
    world_commit(&world);
    world_run(&world);
    expect_no_answer();
    ck_assert_uint_eq(world.loop_wakes, 1);
    world_close(&world);
}
END_TEST

START_TEST(an_answer_carries_index_position_and_up_to_a_mebibyte)
{
    start_world();
    char text[32];
    snprintf(text, sizeof text, "b%d", LOCKSTEP_REPLY_BYTES_MAX);
    host_answer_from(world.host, 1);
    block(&world, "ea");
    block(&world, text);
    world_commit(&world);
    world_run(&world);
    struct host_answer answer;
    expect_applied(1, 0, "a");
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_uint_eq(answer.index, 2);
    ck_assert_uint_eq(answer.reply_bytes, LOCKSTEP_REPLY_BYTES_MAX);
    ck_assert_int_eq(answer.reply[LOCKSTEP_REPLY_BYTES_MAX - 1], 'b');
    world_close(&world);
}
END_TEST

START_TEST(a_full_answer_queue_stops_the_machine_inside_a_block_and_the_loop_wakes_it)
{
    start_world();
    host_answer_from(world.host, 1);
    /* A large answer each: three of four fit, for the fourth the longest might not. */
    block_begin(&world);
    for (unsigned i = 0; i < 9; i++) block_add(&world, "b1000000");
    block_end(&world, BLOCK_COMMANDS);
    block(&world, "eend");
    world_commit(&world);
    ck_assert_int_eq(ask(77, 1, "count"), 0);
    ck_assert_int_eq(ask(78, 0, "count"), 0);
    ck_assert(!host_work(world.host)); /* it sleeps, though there is work */
    uint64_t before = world_probe()->applied;
    ck_assert_uint_gt(before, 0);
    ck_assert_uint_lt(before, 9);
    ck_assert_uint_eq(host_applied_index(world.host), 0); /* H1: half a block is none */
    ck_assert(!host_work(world.host));
    ck_assert_uint_eq(world_probe()->applied, before);
    ck_assert_uint_eq(world.loop_wakes, 1);
    unsigned wakes = world.machine_wakes;
    log_position position = 1;
    struct host_answer answer;
    unsigned rounds = 0;
    while (position <= 9) {
        while (host_answer_next(world.host, &answer)) {
            ck_assert_int_eq(answer.type, HOST_ANSWER_APPLIED); /* no query ran inside the block */
            ck_assert_uint_eq(answer.position, position);
            ck_assert_uint_eq(answer.reply_bytes, 1000000);
            position++;
            if (position > 9) break;
        }
        if (position > 9) break;
        ck_assert_uint_gt(world.machine_wakes, wakes); /* it was woken, and had to be */
        wakes = world.machine_wakes;
        (void)host_work(world.host);
        ck_assert_uint_lt(rounds++, 20);
    }
    world_run(&world);
    expect_applied(10, 0, "end");
    expect_query(77, 0, 0, 2, "10");
    expect_query(78, 0, 0, 2, "10");
    expect_no_answer();
    ck_assert_uint_eq(host_applied_index(world.host), 2);
    ck_assert_uint_eq(world_probe()->applied, 10);
    for (unsigned i = 0; i < 10; i++) ck_assert_uint_eq(world_probe()->seen[i].position, i + 1);
    world_close(&world);
}
END_TEST

static void take_all_answers(void)
{
    struct host_answer answer;
    while (host_answer_next(world.host, &answer)) ck_assert_int_eq(answer.type, HOST_ANSWER_APPLIED);
}

START_TEST(no_query_runs_inside_a_block_though_there_is_room_for_its_answer) /* H1 */
{
    start_world();
    host_answer_from(world.host, 1);
    block_begin(&world);
    for (unsigned i = 0; i < 6; i++) block_add(&world, "b1000000");
    block_end(&world, BLOCK_COMMANDS);
    world_commit(&world);
    ck_assert_int_eq(ask(1, 0, "count"), 0);
    world_probe()->at_end = take_all_answers; /* as the loop might, at the worst moment */
    ck_assert(host_work(world.host));
    ck_assert_uint_gt(world_probe()->applied, 0);
    ck_assert_uint_lt(world_probe()->applied, 6);
    expect_no_answer();
    world_probe()->at_end = NULL;
    world_run(&world);
    struct host_answer answer;
    while (host_answer_next(world.host, &answer) && answer.type == HOST_ANSWER_APPLIED) continue;
    ck_assert_uint_eq(answer.index, 1);
    ck_assert_mem_eq(answer.reply, "6", answer.reply_bytes);
    world_close(&world);
}
END_TEST

START_TEST(a_follower_applies_though_nobody_takes_answers)
{
    start_world();
    for (unsigned i = 0; i < 50; i++) block(&world, "b1000000");
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(host_applied_index(world.host), 50);
    ck_assert_uint_eq(world.loop_wakes, 0);
    world_close(&world);
}
END_TEST

START_TEST(nothing_is_allocated_after_open) /* H5; the log of this test gives out copies made before */
{
    open_world();
    for (unsigned i = 0; i < 300; i++) block(&world, "ea", "rb");
    world_store(&world, 300);
    world_flush_ring(&world);
    for (unsigned i = 0; i < 300; i++) block(&world, "ea", "rb");
    world_start(&world);
    host_answer_from(world.host, 1);
    ck_assert(true); /* check keeps the file of the last assertion: the same one both times */
    struct mallinfo2 before = mallinfo2();
    world_commit(&world);
    for (uint64_t i = 0; i < 20; i++) ck_assert_int_eq(ask(i, 600, "count"), 0);
    world_run(&world);
    struct host_answer answer;
    unsigned answers = 0;
    while (host_answer_next(world.host, &answer)) answers++;
    ck_assert_uint_eq(answers, 1220);
    struct mallinfo2 behind = mallinfo2();
    ck_assert_uint_eq(before.uordblks, behind.uordblks);
    ck_assert_uint_eq(before.hblkhd, behind.hblkhd);
    world_close(&world);
}
END_TEST

START_TEST(a_long_run_wakes_the_loop_before_its_end)
{
    start_world();
    host_answer_from(world.host, 1);
    for (unsigned i = 0; i < 100; i++) block(&world, "ea", "eb", "ec", "ed", "ee", "ef");
    world_commit(&world);
    ck_assert_uint_eq(world_run(&world), 1);
    ck_assert_uint_eq(world.loop_wakes, 600 / 256 + 1);
    world_close(&world);
}
END_TEST

/* --- queries --- */

START_TEST(a_query_waits_for_its_index_and_the_others_wait_behind_it) /* T48 */
{
    start_world();
    block(&world, "ea");
    block(&world, "eb");
    ring_commit(world.storage.ring, 2);
    ck_assert_int_eq(ask(1, 0, "count"), 0);
    ck_assert_int_eq(ask(2, 2, "count"), 0);
    ck_assert_int_eq(ask(3, 0, "echo:third"), 0);
    world_run(&world);
    expect_query(1, 0, 0, 0, "0");
    expect_no_answer();
    host_commit(world.host, 1);
    world_run(&world);
    expect_no_answer();
    host_commit(world.host, 2);
    world_run(&world);
    expect_query(2, 0, 0, 2, "2");
    expect_query(3, 0, 0, 2, "third");
    expect_no_answer();
    ck_assert_uint_eq(world_status(&world).queries, 3);
    world_close(&world);
}
END_TEST

START_TEST(a_query_of_a_committed_index_is_answered_in_the_step_that_applies_it)
{
    start_world();
    block(&world, "ea");
    world_commit(&world);
    ck_assert_int_eq(ask(1, 1, "count"), 0);
    ck_assert(!host_work(world.host));
    expect_query(1, 0, 0, 1, "1");
    world_close(&world);
}
END_TEST

START_TEST(a_query_that_fails_fails_alone)
{
    start_world();
    static const char *const failing[] = {"E", "2", "F", "n", "L"};
    for (uint64_t i = 0; i < 5; i++) ck_assert_int_eq(ask(i, 0, failing[i]), 0);
    ck_assert_int_eq(ask(5, 0, "r"), 0);
    ck_assert_int_eq(ask(6, 0, "echo:"), 0);
    world_run(&world);
    for (uint64_t i = 0; i < 5; i++) expect_query(i, LOCKSTEP_EINVAL, 0, 0, "");
    expect_query(5, 0, 7, 0, "entity 5");
    expect_query(6, 0, 0, 0, "");
    ck_assert_int_eq(world_status(&world).error, 0);
    block(&world, "ea");
    world_commit(&world);
    world_run(&world);
    ck_assert_uint_eq(host_applied_index(world.host), 1);
    world_close(&world);
}
END_TEST

START_TEST(a_machine_without_query_says_so)
{
    open_world();
    world.plugin.machine.query = NULL;
    world_start(&world);
    ck_assert_int_eq(ask(1, 0, "count"), 0);
    world_run(&world);
    expect_query(1, LOCKSTEP_EINVAL, 0, 0, "");
    world_close(&world);
}
END_TEST

START_TEST(a_full_query_queue_refuses_and_a_query_too_long_for_it_too)
{
    start_world();
    static uint8_t bytes[4096];
    memcpy(bytes, "echo:", 5);
    ck_assert_int_eq(host_query(world.host, 1, 0, 0, bytes, 2048), LOCKSTEP_ETOOBIG);
    ck_assert_int_eq(host_query(world.host, 1, 0, 0, bytes, UINT32_MAX), LOCKSTEP_ETOOBIG);
    unsigned taken = 0;
    while (host_query(world.host, taken, 0, 0, bytes, 200) == 0) taken++;
    ck_assert_uint_gt(taken, 10);
    ck_assert_int_eq(host_query(world.host, 99, 0, 0, bytes, 200), LOCKSTEP_EFULL);
    world_run(&world);
    ck_assert_int_eq(host_query(world.host, 100, 0, 0, bytes, 200), 0);
    for (unsigned i = 0; i < taken; i++) {
        struct host_answer answer;
        ck_assert(host_answer_next(world.host, &answer));
        ck_assert_uint_eq(answer.tag, i);
        ck_assert_uint_eq(answer.reply_bytes, 195);
    }
    world_close(&world);
}
END_TEST

START_TEST(queries_wait_for_room_for_their_answers)
{
    start_world();
    for (uint64_t i = 0; i < 9; i++) ck_assert_int_eq(ask(i, 0, "b"), 0);
    ck_assert(!host_work(world.host));
    uint64_t tag = 0;
    struct host_answer answer;
    for (unsigned rounds = 0; tag < 9; rounds++) {
        ck_assert_uint_lt(rounds, 20);
        while (host_answer_next(world.host, &answer)) {
            ck_assert_uint_eq(answer.tag, tag++);
            ck_assert_uint_eq(answer.reply_bytes, LOCKSTEP_REPLY_BYTES_MAX);
        }
        (void)host_work(world.host);
    }
    expect_no_answer();
    world_close(&world);
}
END_TEST

START_TEST(queries_do_not_keep_commands_waiting)
{
    open_world();
    world.options.queries_bytes = 1 << 20;
    world_start(&world);
    for (uint64_t i = 0; i < 2000; i++) ck_assert_int_eq(ask(i, 0, "count"), 0);
    block(&world, "ea");
    world_commit(&world);
    ck_assert(host_work(world.host)); /* a bounded number a step */
    ck_assert_uint_eq(host_applied_index(world.host), 1);
    ck_assert_uint_lt(world_status(&world).queries, 1000);
    world_run(&world);
    ck_assert_uint_eq(world_status(&world).queries, 2000);
    world_close(&world);
}
END_TEST

/* --- stopping --- */

static const struct breach {
    const char *command, *says;
} breaches[] = {
    {"F", "outcome 3, code 42: out of memory"},
    {"P", "outcome 2, code 0"}, /* POISON is FATAL while nobody supervises */
    {"U", "outcome 99"},
    {"E", "apply returned an error"},
    {"2", "answered a command twice"},
    {"c", "OK with a code"},
    {"0", "REJECT without a code"},
    {"L", "longer than LOCKSTEP_REPLY_BYTES_MAX"},
    {"N", "NULL, and not empty"},
    {"q", "before the end of the batch"},
};

START_TEST(fatal_and_each_breach_of_the_contract_stop_the_machine_for_good)
{
    for (size_t i = 0; i < sizeof breaches / sizeof breaches[0]; i++) {
        start_world();
        host_answer_from(world.host, 1);
        block(&world, "ea");
        block(&world, "eb", breaches[i].command, "ec");
        block(&world, "ed");
        world_commit(&world);
        ck_assert_int_eq(ask(9, 3, "count"), 0);
        ck_assert(!host_work(world.host));
        struct host_status status = world_status(&world);
        ck_assert_int_eq(status.error, LOCKSTEP_EINVAL);
        ck_assert_uint_eq(status.error_index, 2);
        ck_assert_uint_eq(status.error_position, 3);
        ck_assert_uint_eq(status.applied_index, 1); /* H1 */
        ck_assert_msg(strstr(world.log, breaches[i].says) != NULL, "\"%s\" is not in: %s", breaches[i].says, world.log);
        ck_assert_ptr_nonnull(strstr(world.log, "probe 1 stops at index 2, position 3"));
        ck_assert_uint_eq(world_probe()->applied, 3);
        ck_assert_uint_eq(world.loop_wakes, 1);
        expect_applied(1, 0, "a"); /* what was applied before stays answered */
        expect_applied(2, 0, "b");
        struct host_answer answer;
        while (host_answer_next(world.host, &answer) && answer.type == HOST_ANSWER_APPLIED)
            ck_assert_uint_eq(answer.position, 3); /* the first of two answers, say */
        ck_assert_int_eq(answer.error, LOCKSTEP_EUNAVAILABLE);
        ck_assert_uint_eq(answer.tag, 9);

        block(&world, "ee");
        world_commit(&world);
        ck_assert_int_eq(ask(10, 0, "count"), 0);
        ck_assert(!host_work(world.host));
        expect_query(10, LOCKSTEP_EUNAVAILABLE, 0, 1, ""); /* the state may be half of block 2 */
        ck_assert_uint_eq(world_probe()->applied, 3);
        ck_assert_uint_eq(host_applied_index(world.host), 1);
        world_fill_ring(&world); /* the pin is gone */
        world_close(&world);
    }
}
END_TEST

START_TEST(an_answer_without_a_command_stops_the_machine)
{
    start_world();
    block(&world, "ea", "a");
    world_commit(&world);
    world_run(&world);
    ck_assert_int_eq(world_status(&world).error, LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(world.log, "answered no command"));
    world_close(&world);
}
END_TEST

START_TEST(an_apply_that_fails_before_it_takes_a_command_names_the_first)
{
    start_world();
    block(&world, "ea");
    world_commit(&world);
    world_run(&world);
    block(&world, "eb");
    world_probe()->fails_at_once = true;
    world_commit(&world);
    world_run(&world);
    ck_assert_int_eq(world_status(&world).error, LOCKSTEP_EINVAL);
    ck_assert_uint_eq(world_status(&world).error_index, 2);
    ck_assert_uint_eq(world_status(&world).error_position, 2);
    world_close(&world);
}
END_TEST

static int open_fails(const struct lockstep_host *host, void **ret_machine)
{
    ck_assert_uint_eq(host->abi, LOCKSTEP_MACHINE_ABI);
    ck_assert_uint_eq(host->size, sizeof *host);
    *ret_machine = &world;
    return -1;
}

START_TEST(a_machine_that_does_not_open_is_an_error_and_is_not_closed)
{
    open_world();
    world.plugin.machine.open = open_fails;
    struct host *host = NULL;
    ck_assert_int_eq(host_open(&world.options, &host), LOCKSTEP_EINVAL);
    ck_assert_ptr_null(host);
    world_close(&world);
}
END_TEST

START_TEST(sizes_out_of_range_are_refused_before_the_machine_is_opened)
{
    open_world();
    struct host *host = NULL;
    struct host_options options = world.options;
    options.replies_bytes = HOST_REPLIES_BYTES_MIN / 2;
    ck_assert_int_eq(host_open(&options, &host), LOCKSTEP_EINVAL);
    options.replies_bytes = HOST_REPLIES_BYTES_MIN + 8;
    ck_assert_int_eq(host_open(&options, &host), LOCKSTEP_EINVAL);
    options = world.options;
    options.queries_bytes = 5000;
    ck_assert_int_eq(host_open(&options, &host), LOCKSTEP_EINVAL);
    options = world.options;
    options.start_index = 0;
    ck_assert_int_eq(host_open(&options, &host), LOCKSTEP_EINVAL);
    ck_assert_ptr_null(host);
    host_close(NULL);
    world_close(&world);
}
END_TEST

START_TEST(a_line_of_the_machine_reaches_the_log)
{
    start_world();
    world_probe()->host->log(world_probe()->host->context, "a line");
    ck_assert_str_eq(world.log, "a line\n");
    world_close(&world);
}
END_TEST

/* --- hashes --- */

/* The same random history each time, applied in another way; ends at rest. Returns what status then says. */
static struct host_status apply_history(uint64_t seed, struct random *way, bool answered)
{
    struct random history;
    random_seed(&history, seed);
    open_world();
    world.options.batch_bytes_max = (uint32_t)random_between(way, 1, 5000);
    world_start(&world);
    if (answered) host_answer_from(world.host, random_between(way, 1, 100));
    for (unsigned i = 0; i < 1500; i++) {
        uint64_t commands = random_below(&history, 4);
        block_begin(&world);
        for (uint64_t j = 0; j < commands; j++) {
            char text[32];
            static const char kinds[] = "ern";
            snprintf(text, sizeof text, "%c%llu", kinds[random_below(&history, 3)],
                     (unsigned long long)random_below(&history, 1000));
            block_add(&world, text);
        }
        block_end(&world, BLOCK_COMMANDS);
        if (random_below(way, 40) == 0) {
            world_store(&world, world.last.index);
            world_flush_ring(&world);
        }
        if (random_below(way, 10) == 0) world_commit(&world);
        if (random_below(way, 10) == 0) (void)host_work(world.host);
        struct host_answer answer;
        if (random_below(way, 20) == 0)
            while (host_answer_next(world.host, &answer)) continue;
    }
    world_commit(&world);
    world_run(&world);
    struct host_status status = world_status(&world);
    world_close(&world);
    return status;
}

START_TEST(hashes_do_not_depend_on_how_the_log_was_cut_into_runs)
{
    uint64_t seed = unit_seed(0x68617368);
    struct random way;
    random_seed(&way, seed + 1);
    struct host_status first = apply_history(seed, &way, false);
    ck_assert_uint_eq(first.hash_index, 1500);
    ck_assert(first.has_state_hash);
    for (uint64_t i = 0; i < unit_rounds(20); i++) {
        struct host_status again = apply_history(seed, &way, i % 2 == 0);
        ck_assert_uint_eq(again.applied_index, first.applied_index);
        ck_assert_uint_eq(again.hash_index, first.hash_index);
        ck_assert(hash_equal(again.state_hash, first.state_hash));
        ck_assert(hash_equal(again.reply_hash, first.reply_hash));
    }
    struct host_status other = apply_history(seed + 7, &way, false);
    ck_assert(!hash_equal(other.state_hash, first.state_hash));
    ck_assert(!hash_equal(other.reply_hash, first.reply_hash));
}
END_TEST

static struct lockstep_hash reply_hash_of(const char *first, const char *second)
{
    start_world();
    block(&world, first, second);
    world_commit(&world);
    world_run(&world);
    struct lockstep_hash hash = world_status(&world).reply_hash;
    world_close(&world);
    return hash;
}

START_TEST(the_reply_hash_sees_bytes_codes_and_order)
{
    struct lockstep_hash hash = reply_hash_of("ea", "eb");
    ck_assert(hash_equal(hash, reply_hash_of("ea", "eb")));
    ck_assert(!hash_equal(hash, reply_hash_of("eb", "ea")));
    ck_assert(!hash_equal(hash, reply_hash_of("ea", "rb"))); /* another code, the same bytes */
    ck_assert(!hash_equal(hash, reply_hash_of("eab", "e")));
    ck_assert(!hash_equal(hash, reply_hash_of("ea", "ec")));
    ck_assert(hash_equal(reply_hash_of("n", "ea"), reply_hash_of("e", "ea"))); /* no answer is OK and empty */
}
END_TEST

START_TEST(at_rest_the_hash_is_that_of_the_commit_index_however_it_was_reached)
{
    for (unsigned way = 0; way < 3; way++) {
        start_world();
        ck_assert_uint_eq(world_status(&world).hash_index, 0); /* before the first block, too */
        for (unsigned i = 1; i <= 2100; i++) {
            block_empty(&world, BLOCK_TERM);
            ring_commit(world.storage.ring, i);
            if (way == 0) host_commit(world.host, i);
            if (way == 0 || (way == 1 && i % 100 == 0)) world_run(&world);
            if (way == 0) ck_assert_uint_eq(world_status(&world).hash_index, i);
        }
        host_commit(world.host, 2100);
        world_run(&world);
        ck_assert_uint_eq(world_status(&world).hash_index, 2100);
        world_close(&world);
    }
}
END_TEST

START_TEST(a_replica_that_never_rests_shows_multiples_of_1024)
{
    start_world();
    for (unsigned i = 1; i <= 4000; i++) block_empty(&world, BLOCK_TERM);
    world_commit(&world);
    for (raft_index expected = 1024; expected <= 3072; expected += 1024) {
        ck_assert(host_work(world.host));
        ck_assert_uint_eq(world_status(&world).hash_index, expected);
        ck_assert_uint_eq(host_applied_index(world.host), expected); /* hashed exactly there */
    }
    world_run(&world);
    ck_assert_uint_eq(world_status(&world).hash_index, 4000);
    world_close(&world);
}
END_TEST

START_TEST(a_machine_without_hash_has_none)
{
    open_world();
    world.plugin.machine.hash = NULL;
    world_start(&world);
    block(&world, "ea");
    world_commit(&world);
    world_run(&world);
    ck_assert(!world_status(&world).has_state_hash);
    ck_assert_uint_eq(world_status(&world).hash_index, 1);
    world_close(&world);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, committed_commands_are_applied_in_order_each_with_its_place);
    tcase_add_test(tests, payloads_are_read_where_they_lie);
    tcase_add_test(tests, blocks_without_commands_pass_and_nothing_is_applied);
    tcase_add_test(tests, commands_inside_an_ignored_block_take_their_positions_and_are_not_applied);
    tcase_add_test(tests, an_unknown_block_parks_and_nothing_behind_it_is_applied);
    tcase_add_test(tests, an_unknown_block_inside_a_run_ends_it);
    tcase_add_test(tests, a_step_is_bounded_in_bytes_and_one_block_always_fits);
    tcase_add_test(tests, what_the_ring_has_passed_is_read_from_the_log_and_then_the_ring_again);
    tcase_add_test(tests, a_block_that_cannot_be_read_stops_the_machine_and_is_named);
    tcase_add_test(tests, a_committed_block_that_is_nowhere_is_damage);
    tcase_add_test(tests, a_block_in_the_ring_that_is_not_what_its_slot_says_is_damage);
    tcase_add_test(tests, a_gap_in_the_positions_is_damage);
    tcase_add_test(tests, applying_begins_behind_the_last_compacted_block);
    tcase_add_test(tests, commands_of_this_node_are_answered_in_order_and_others_are_not);
    tcase_add_test(tests, an_answer_carries_index_position_and_up_to_a_mebibyte);
    tcase_add_test(tests, a_full_answer_queue_stops_the_machine_inside_a_block_and_the_loop_wakes_it);
    tcase_add_test(tests, no_query_runs_inside_a_block_though_there_is_room_for_its_answer);
    tcase_add_test(tests, a_follower_applies_though_nobody_takes_answers);
    tcase_add_test(tests, nothing_is_allocated_after_open);
    tcase_add_test(tests, a_long_run_wakes_the_loop_before_its_end);
    tcase_add_test(tests, a_query_waits_for_its_index_and_the_others_wait_behind_it);
    tcase_add_test(tests, a_query_of_a_committed_index_is_answered_in_the_step_that_applies_it);
    tcase_add_test(tests, a_query_that_fails_fails_alone);
    tcase_add_test(tests, a_machine_without_query_says_so);
    tcase_add_test(tests, a_full_query_queue_refuses_and_a_query_too_long_for_it_too);
    tcase_add_test(tests, queries_wait_for_room_for_their_answers);
    tcase_add_test(tests, queries_do_not_keep_commands_waiting);
    tcase_add_test(tests, fatal_and_each_breach_of_the_contract_stop_the_machine_for_good);
    tcase_add_test(tests, an_answer_without_a_command_stops_the_machine);
    tcase_add_test(tests, an_apply_that_fails_before_it_takes_a_command_names_the_first);
    tcase_add_test(tests, a_machine_that_does_not_open_is_an_error_and_is_not_closed);
    tcase_add_test(tests, sizes_out_of_range_are_refused_before_the_machine_is_opened);
    tcase_add_test(tests, a_line_of_the_machine_reaches_the_log);
    tcase_add_test(tests, hashes_do_not_depend_on_how_the_log_was_cut_into_runs);
    tcase_add_test(tests, the_reply_hash_sees_bytes_codes_and_order);
    tcase_add_test(tests, at_rest_the_hash_is_that_of_the_commit_index_however_it_was_reached);
    tcase_add_test(tests, a_replica_that_never_rests_shows_multiples_of_1024);
    tcase_add_test(tests, a_machine_without_hash_has_none);
}

int main(void)
{
    return unit_main("host", add);
}
