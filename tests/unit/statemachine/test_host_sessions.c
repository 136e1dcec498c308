/* SPDX-License-Identifier: Apache-2.0 */
/* test_host_sessions.c - what the actor does with sessions: what a machine sees of them, and what clients are told (M1). */
#include "tests/support/unit.h"
#include "tests/unit/statemachine/world.h"

#include <string.h>

#include "lockstep/errors.h"

static struct world world;

static void start(void)
{
    world_open(&world, 1 << 20);
    world_start(&world);
}

static void run(void)
{
    world_commit(&world);
    world_run(&world);
}

/* A block with one command. Returns its position. */
static log_position put(uint16_t kind, uint64_t session, uint64_t seq, const char *text)
{
    world.kind = kind;
    world.session = session;
    world.seq = seq;
    log_position position = world.last.next_position;
    block(&world, text);
    world.kind = 0;
    world.session = world.seq = 0;
    return position;
}

static struct host_answer answer;

static void expect(log_position position, int error, log_position first, const char *reply)
{
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_int_eq(answer.type, HOST_ANSWER_APPLIED);
    ck_assert_uint_eq(answer.position, position);
    ck_assert_int_eq(answer.error, error);
    if (error == 0) ck_assert_uint_eq(answer.first_position, first);
    if (error == 0) ck_assert_uint_eq(answer.first_index, first); /* one command a block here */
    ck_assert_uint_eq(answer.reply_bytes, strlen(reply));
    ck_assert_mem_eq(answer.reply, reply, answer.reply_bytes);
}

START_TEST(a_repeated_command_reaches_the_machine_once_and_is_answered_alike) /* T59 */
{
    start();
    host_answer_from(world.host, 1);
    log_position session = put(COMMAND_SESSION_OPEN, 0, 0, "");
    ck_assert_uint_eq(session, 1);
    put(0, session, 1, "eone");
    put(0, session, 1, "eone");
    put(0, 0, 0, "eno session");
    put(0, session, 2, "rtwo");
    put(0, session, 2, "rtwo");
    put(0, session, 1, "eone");
    run();
    ck_assert_uint_eq(world_probe()->applied, 3);
    ck_assert_uint_eq(world_probe()->seen[0].session, session);
    ck_assert_uint_eq(world_probe()->seen[0].seq, 1);
    ck_assert_uint_eq(world_probe()->seen[2].position, 5);
    expect(1, 0, 1, "");
    expect(2, 0, 2, "one");
    expect(3, 0, 2, "one");
    expect(4, 0, 4, "no session");
    expect(5, 0, 5, "two");
    ck_assert_int_eq(answer.code, 7);
    expect(6, 0, 5, "two");
    ck_assert_int_eq(answer.code, 7);
    expect(7, 0, 2, "one");
    ck_assert_uint_eq(world_status(&world).commands, 7);
    ck_assert_uint_eq(world_status(&world).repeated, 3);
    ck_assert_uint_eq(world_status(&world).applied_index, 7);
    ck_assert_uint_eq(world_status(&world).applied_position, 7);
    world_close(&world);
}
END_TEST

START_TEST(a_machine_is_not_called_for_what_is_not_its)
{
    start();
    log_position session = put(COMMAND_SESSION_OPEN, 0, 0, "");
    put(COMMAND_SESSION_KEEP, session, 0, "");
    put(COMMAND_SESSION_KEEP, session + 1, 0, "");
    put(0, 12345, 1, "e");
    put(COMMAND_SESSION_CLOSE, session, 0, "");
    run();
    ck_assert_uint_eq(world_probe()->batches, 0);
    ck_assert_uint_eq(world_status(&world).commands, 5);
    ck_assert_uint_eq(host_applied_index(world.host), 5);
    world_close(&world);
}
END_TEST

START_TEST(refusals_of_sessions_are_told_and_are_no_ones_end)
{
    start();
    host_answer_from(world.host, 1);
    put(0, 99, 1, "e");
    log_position session = put(COMMAND_SESSION_OPEN, 0, 0, "");
    put(0, session, 0, "e");
    put(0, session, 20, "e");
    put(0, session, 12, "e");
    put(COMMAND_SESSION_CLOSE, session, 0, "");
    put(COMMAND_SESSION_CLOSE, session, 0, "");
    put(COMMAND_SESSION_KEEP, session, 0, "");
    put(0, session, 21, "e");
    put(0, 0, 0, "eon");
    run();
    expect(1, LOCKSTEP_ENOTFOUND, 0, "");
    expect(2, 0, 2, "");
    expect(3, LOCKSTEP_EINVAL, 0, "");
    expect(4, 0, 4, "");
    expect(5, LOCKSTEP_EWINDOW, 0, "");
    expect(6, 0, 6, "");
    expect(7, LOCKSTEP_ENOTFOUND, 0, "");
    expect(8, LOCKSTEP_ENOTFOUND, 0, "");
    expect(9, LOCKSTEP_ENOTFOUND, 0, "");
    expect(10, 0, 10, "on");
    ck_assert_uint_eq(world_probe()->applied, 2);
    for (unsigned i = 0; i < 16; i++) put(COMMAND_SESSION_OPEN, 0, 0, "");
    run();
    for (unsigned i = 11; i < 27; i++) expect(i, 0, i, "");
    ck_assert_uint_eq(world_status(&world).sessions, 16);
    put(COMMAND_SESSION_OPEN, 0, 0, "");
    run();
    expect(27, LOCKSTEP_EFULL, 0, "");
    world_close(&world);
}
END_TEST

START_TEST(a_session_ends_at_the_first_block_that_is_late_also_an_empty_one) /* R9, T64 */
{
    start();
    host_answer_from(world.host, 1);
    ck_assert_uint_eq(host_session_due_ns(world.host), UINT64_MAX);
    log_position session = put(COMMAND_SESSION_OPEN, 0, 0, ""); /* at 1000 ns; they live 100000 */
    run();
    ck_assert_uint_eq(host_session_due_ns(world.host), 101000);
    block_begin(&world);
    world.open.time_ns = 500000;
    block_end(&world, BLOCK_TERM);
    run();
    ck_assert_uint_eq(world_status(&world).sessions, 1);
    ck_assert_uint_eq(host_session_due_ns(world.host), 600000);
    block_begin(&world);
    world.open.time_ns = 600000;
    block_end(&world, BLOCK_COMMANDS);
    run();
    ck_assert_uint_eq(world_status(&world).sessions, 0);
    ck_assert_uint_eq(host_session_due_ns(world.host), UINT64_MAX);
    block_begin(&world);
    world.session = session;
    world.seq = 1;
    block_add(&world, "e");
    world.open.time_ns = 600000;
    block_end(&world, BLOCK_COMMANDS);
    run();
    expect(1, 0, 1, "");
    expect(2, LOCKSTEP_ENOTFOUND, 0, "");
    world_close(&world);
}
END_TEST

START_TEST(what_became_of_a_command_can_be_asked)
{
    start();
    log_position session = put(COMMAND_SESSION_OPEN, 0, 0, "");
    put(0, session, 1, "rone");
    run();
    ck_assert_int_eq(host_outcome(world.host, 5, session, 1, 2), 0);
    ck_assert_int_eq(host_outcome(world.host, 6, session, 2, 3), 0); /* waits for block 3 */
    ck_assert_int_eq(host_outcome(world.host, 7, session + 1, 1, 2), 0);
    ck_assert_int_eq(host_outcome(world.host, 8, 0, 1, 2), LOCKSTEP_EINVAL);
    world_run(&world);
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_int_eq(answer.type, HOST_ANSWER_OUTCOME);
    ck_assert_uint_eq(answer.tag, 5);
    ck_assert_int_eq(answer.error, 0);
    ck_assert_int_eq(answer.code, 7);
    ck_assert_uint_eq(answer.first_position, 2);
    ck_assert_uint_eq(answer.first_index, 2);
    ck_assert_uint_eq(answer.reply_bytes, 3);
    ck_assert_mem_eq(answer.reply, "one", 3);
    ck_assert(!host_answer_next(world.host, &answer));
    put(0, 0, 0, "e");
    run();
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_uint_eq(answer.tag, 6);
    ck_assert_int_eq(answer.error, 0);
    ck_assert_uint_eq(answer.first_position, 0); /* not known */
    ck_assert(host_answer_next(world.host, &answer));
    ck_assert_uint_eq(answer.tag, 7);
    ck_assert_int_eq(answer.error, LOCKSTEP_ENOTFOUND);
    world_close(&world);
}
END_TEST

START_TEST(a_command_of_an_unknown_kind_is_never_passed_over) /* T61 */
{
    start();
    put(0, 0, 0, "e");
    put(9, 0, 0, "e");
    put(0, 0, 0, "e");
    run();
    struct host_status status = world_status(&world);
    ck_assert_int_eq(status.error, LOCKSTEP_EVERSION);
    ck_assert_uint_eq(status.error_position, 2);
    ck_assert_uint_eq(world_probe()->applied, 1);
    world_close(&world);
}
END_TEST

static struct lockstep_hash reply_hash_of(uint64_t second_seq, uint64_t third_seq)
{
    start();
    log_position session = put(COMMAND_SESSION_OPEN, 0, 0, "");
    put(0, session, 5, "e");
    put(0, session, second_seq, "e");
    put(0, session, third_seq, "e");
    run();
    struct lockstep_hash hash = world_status(&world).reply_hash;
    world_close(&world);
    return hash;
}

START_TEST(the_reply_hash_covers_the_table) /* M6 */
{
    struct lockstep_hash hash = reply_hash_of(2, 3), same = reply_hash_of(2, 3), other = reply_hash_of(3, 2);
    ck_assert_uint_eq(hash.low, same.low);
    ck_assert_uint_eq(hash.high, same.high);
    ck_assert_uint_ne(hash.low, other.low); /* the same positions, replies and set: but not on the way */
    other = reply_hash_of(2, 4);
    ck_assert_uint_ne(hash.low, other.low);
}
END_TEST

START_TEST(a_run_that_ends_inside_a_block_judges_no_command_twice)
{
    start();
    world.options.replies_bytes = HOST_REPLIES_BYTES_MIN;
    host_answer_from(world.host, 1);
    log_position session = put(COMMAND_SESSION_OPEN, 0, 0, "");
    block_begin(&world);
    world.session = session;
    for (world.seq = 1; world.seq <= 8; world.seq++) block_add(&world, "b1000000"); /* fills the queue of answers */
    block_end(&world, BLOCK_COMMANDS);
    world_commit(&world);
    unsigned answers = 0;
    while (answers < 9) {
        world_run(&world);
        while (host_answer_next(world.host, &answer)) {
            ck_assert_int_eq(answer.error, 0);
            ck_assert_uint_eq(answer.first_position, ++answers);
        }
    }
    ck_assert_uint_eq(world_status(&world).repeated, 0);
    ck_assert_uint_eq(world_probe()->applied, 8);
    world_close(&world);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_repeated_command_reaches_the_machine_once_and_is_answered_alike);
    tcase_add_test(tests, a_machine_is_not_called_for_what_is_not_its);
    tcase_add_test(tests, refusals_of_sessions_are_told_and_are_no_ones_end);
    tcase_add_test(tests, a_session_ends_at_the_first_block_that_is_late_also_an_empty_one);
    tcase_add_test(tests, what_became_of_a_command_can_be_asked);
    tcase_add_test(tests, a_command_of_an_unknown_kind_is_never_passed_over);
    tcase_add_test(tests, the_reply_hash_covers_the_table);
    tcase_add_test(tests, a_run_that_ends_inside_a_block_judges_no_command_twice);
}

int main(void)
{
    return unit_main("statemachine host sessions", add);
}
