/* SPDX-License-Identifier: Apache-2.0 */
/* test_host_snapshot.c - the replicated state as bytes: when it is taken, what it holds, how it is put in place. The machine is
 * kv, through its plugin. Arguments: a folder for the copies, kv.so. */
#include "tests/support/unit.h"
#include "tests/unit/statemachine/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lockstep/errors.h"

static struct plugin kv_plugin;
static struct world world, other;
static unsigned control_wakes;

struct bytes {
    struct lockstep_writer writer;
    struct lockstep_reader reader;
    uint8_t at[1 << 18];
    size_t count, read, piece;
    size_t fail_at; /* writing beyond it fails */
};

static struct bytes first, second;

static int keep(struct lockstep_writer *writer, const void *from, size_t count)
{
    struct bytes *bytes = (struct bytes *)(void *)writer;
    if (bytes->count + count > bytes->fail_at) return LOCKSTEP_ENOSPC;
    ck_assert_uint_le(bytes->count + count, sizeof bytes->at);
    memcpy(bytes->at + bytes->count, from, count);
    bytes->count += count;
    return 0;
}

static int give(struct lockstep_reader *reader, void *to, size_t room, size_t *ret_count)
{
    struct bytes *bytes = (struct bytes *)(void *)((uint8_t *)reader - offsetof(struct bytes, reader));
    size_t count = bytes->count - bytes->read;
    if (count > room) count = room;
    if (count > bytes->piece) count = bytes->piece;
    memcpy(to, bytes->at + bytes->read, count);
    bytes->read += count;
    *ret_count = count;
    return 0;
}

static void bytes_start(struct bytes *bytes)
{
    bytes->writer = (struct lockstep_writer){.size = sizeof bytes->writer, .write = keep};
    bytes->reader = (struct lockstep_reader){.size = sizeof bytes->reader, .read = give};
    bytes->count = bytes->read = 0;
    bytes->piece = 4096;
    bytes->fail_at = sizeof bytes->at;
}

static void wake_snapshots(void *context)
{
    (void)context;
    control_wakes++;
}

static void start(struct world *one, uint64_t after)
{
    world_open(one, 1 << 20);
    one->options.plugin = &kv_plugin;
    one->options.snapshot_after_bytes = after;
    one->options.wake_snapshots = wake_snapshots;
    world_start(one);
    host_snapshot_allow(one->host, true);
    control_wakes = 0;
}

static void run(struct world *one)
{
    world_commit(one);
    world_run(one);
}

/* Take what lies frozen. */
static struct block_base take(struct world *one, struct bytes *to)
{
    struct block_base base;
    bytes_start(to);
    ck_assert(host_snapshot_ready(one->host, &base));
    ck_assert_int_eq(host_snapshot_write(one->host, &to->writer), 0);
    host_snapshot_done(one->host);
    world_run(one);
    ck_assert(!host_snapshot_ready(one->host, &base));
    return base;
}

static void fill(struct world *one, int from, int to)
{
    char text[64];
    for (int i = from; i < to; i++) {
        snprintf(text, sizeof text, "put key%d value%d", i, i * i);
        block(one, text, "append log .");
    }
}

static bool hashes_equal(struct lockstep_hash a, struct lockstep_hash b)
{
    return a.low == b.low && a.high == b.high;
}

static void check_same(void)
{
    struct host_status a = world_status(&world), b = world_status(&other);
    ck_assert_uint_eq(a.applied_index, b.applied_index);
    ck_assert_uint_eq(a.applied_position, b.applied_position);
    ck_assert_uint_eq(a.hash_index, b.hash_index);
    ck_assert(hashes_equal(a.state_hash, b.state_hash));
    ck_assert(hashes_equal(a.reply_hash, b.reply_hash));
}

/* The other world's log is this one's, as far as it goes. */
static void copy_log(raft_index from)
{
    for (raft_index i = from; i <= world.last.index; i++) {
        struct ring_slot slot;
        struct block_header header;
        uint8_t *to;
        ck_assert_int_eq(ring_find(world.storage.ring, i, &slot), 0);
        ck_assert_int_eq(ring_claim(other.storage.ring, slot.bytes, &to), 0);
        memcpy(to, ring_at(world.storage.ring, slot.pos), slot.bytes);
        memcpy(&header, to, sizeof header);
        ring_publish(other.storage.ring, &header);
        other.last = block_base_after(&header);
    }
}

/* The other world begins behind that snapshot, which stands at base. */
static void start_other_from(struct bytes *snapshot, const struct block_base *base, uint64_t after)
{
    const struct ring_options ring_options = {.bytes = 1 << 20, .block_bytes_max = 1 << 18};
    world_open(&other, 1 << 20);
    other.options.plugin = &kv_plugin;
    other.options.snapshot_after_bytes = after;
    other.options.wake_snapshots = wake_snapshots;
    snapshot->read = 0;
    other.options.restore = &snapshot->reader;
    ring_close(other.storage.ring);
    ck_assert_int_eq(ring_open(&ring_options, &other.storage.ring), 0);
    ring_start(other.storage.ring, base);
    other.last = *base;
    world_start(&other);
}

START_TEST(a_snapshot_is_due_after_so_many_bytes_and_stands_at_a_blocks_end)
{
    struct block_base base;
    start(&world, 1500);
    fill(&world, 0, 5);
    run(&world);
    ck_assert(!host_snapshot_ready(world.host, &base));
    fill(&world, 5, 40);
    run(&world);
    base = take(&world, &first);
    ck_assert_uint_eq(control_wakes, 1);
    ck_assert_uint_gt(base.index, 5);
    ck_assert_uint_lt(base.index, 20);
    ck_assert_uint_eq(world_status(&world).applied_index, 40); /* it did not wait for the snapshot */
    fill(&world, 40, 41);
    run(&world);
    ck_assert_uint_gt(take(&world, &first).index, base.index); /* the next one was due meanwhile */
    world_close(&world);
}
END_TEST

START_TEST(the_next_snapshot_waits_until_the_log_is_four_times_the_last_ones_size) /* thesis 5.1.2 */
{
    struct block_base base;
    start(&world, 100);
    fill(&world, 0, 1);
    run(&world);
    take(&world, &first);
    ck_assert_uint_gt(4 * first.count, 100);
    ck_assert_uint_eq(host_snapshot_interval(world.host), 4 * first.count);
    struct ring_slot slot;
    uint64_t since = 0;
    for (int i = 1; !host_snapshot_ready(world.host, &base); i++) {
        ck_assert_uint_lt(since, 4 * first.count);
        fill(&world, i, i + 1);
        ck_assert_int_eq(ring_find(world.storage.ring, world.last.index, &slot), 0);
        since += slot.bytes;
        run(&world);
    }
    ck_assert_uint_ge(since, 4 * first.count);
    base = take(&world, &second);
    start_other_from(&second, &base, 100); /* who starts from it waits as long */
    ck_assert_uint_eq(host_snapshot_interval(other.host), 4 * second.count);
    ck_assert_uint_eq(host_snapshot_interval(world.host), 4 * second.count);
    world_close(&other);
    world_close(&world);
}
END_TEST

START_TEST(a_snapshot_is_due_at_the_first_block_that_is_so_much_log_time_behind_the_last_one) /* R9: log time */
{
    struct block_base base;
    world_open(&world, 1 << 20);
    world.options.plugin = &kv_plugin;
    world.options.snapshot_after_bytes = 1 << 20;
    world.options.snapshot_age_ns = 5000; /* a block is 1,000 */
    world.options.wake_snapshots = wake_snapshots;
    world_start(&world);
    host_snapshot_allow(world.host, true);
    fill(&world, 0, 5);
    run(&world);
    ck_assert(!host_snapshot_ready(world.host, &base));
    fill(&world, 5, 9);
    run(&world);
    base = take(&world, &first);
    ck_assert_uint_eq(base.index, 6); /* the first block's time counts as that of a snapshot */
    fill(&world, 9, 10);
    run(&world);
    ck_assert(!host_snapshot_ready(world.host, &base));
    fill(&world, 10, 20);
    run(&world);
    ck_assert_uint_eq(take(&world, &second).index, 11);
    world_close(&world);
}
END_TEST

START_TEST(replicas_take_the_same_snapshots_at_the_same_blocks) /* T44 */
{
    start(&world, 3000);
    start(&other, 3000);
    fill(&world, 0, 30);
    copy_log(1);
    for (raft_index i = 1; i <= 30; i++) { /* block by block here, at once there */
        host_commit(world.host, i);
        world_run(&world);
    }
    run(&other);
    struct block_base base = take(&world, &first), same = take(&other, &second);
    ck_assert_uint_eq(base.index, same.index);
    ck_assert_uint_eq(first.count, second.count);
    ck_assert_mem_eq(first.at, second.at, first.count);
    world_close(&world);
    world_close(&other);
}
END_TEST

START_TEST(nothing_is_taken_unless_it_is_allowed)
{
    struct block_base base;
    start(&world, 1);
    host_snapshot_allow(world.host, false);
    fill(&world, 0, 10);
    run(&world);
    ck_assert(!host_snapshot_ready(world.host, &base));
    host_snapshot_allow(world.host, true);
    fill(&world, 10, 11);
    run(&world);
    ck_assert_uint_eq(take(&world, &first).index, 11);
    world_close(&world);
}
END_TEST

START_TEST(a_machine_without_snapshots_takes_none_and_says_so)
{
    struct block_base base;
    world_open(&world, 1 << 20);
    world.options.snapshot_after_bytes = 1;
    world_start(&world); /* the probe has none */
    host_snapshot_allow(world.host, true);
    block(&world, "e1");
    run(&world);
    ck_assert(!host_snapshot_ready(world.host, &base));
    ck_assert(!world_status(&world).can_snapshot);
    world_close(&world);
    start(&world, 1);
    ck_assert(world_status(&world).can_snapshot);
    world_close(&world);
}
END_TEST

START_TEST(a_host_that_starts_from_a_snapshot_goes_on_as_if_it_had_applied_all) /* T48, T51 */
{
    start(&world, 3000);
    fill(&world, 0, 60);
    run(&world);
    struct block_base base = take(&world, &first);
    for (size_t piece = 1; piece < 5000; piece = piece * 7 + 1) {
        first.piece = piece;
        start_other_from(&first, &base, 3000);
        ck_assert_uint_eq(world_status(&other).applied_index, base.index);
        ck_assert_uint_eq(world_status(&other).applied_position, base.next_position - 1);
        copy_log(base.index + 1);
        run(&other);
        check_same();
        world_close(&other);
    }
    world_close(&world);
}
END_TEST

START_TEST(a_repeated_command_is_known_after_a_restore) /* M1, T59 */
{
    struct host_answer answer;
    start(&world, 1);
    world.kind = COMMAND_SESSION_OPEN;
    block(&world, "");
    world.kind = 0;
    world.session = 1;
    world.seq = 5;
    host_snapshot_allow(world.host, false);
    block(&world, "incr n 3");
    run(&world);
    host_snapshot_allow(world.host, true);
    block_empty(&world, BLOCK_TERM);
    run(&world);
    take(&world, &first);
    struct host_state *state;
    char why[256] = "";
    ck_assert_msg(host_state_read(world.host, &first.reader, &state, why, sizeof why) == 0, "%s", why);
    ck_assert_uint_eq(host_state_base(state).index, 3);
    start(&other, 0);
    ck_assert(host_goes_on(other.host));
    host_halt(other.host);
    world_run(&other);
    ck_assert(host_halted(other.host));
    ring_epoch_begin(other.storage.ring);
    struct block_base base = host_state_base(state);
    ring_restart(other.storage.ring, &base);
    ring_epoch_end(other.storage.ring, 3, false);
    other.last = base;
    host_replace(other.host, state);
    ck_assert(!host_goes_on(other.host)); /* the machine is slow: the next install waits (tests/sim: seed 0x186ad) */
    world_run(&other);
    ck_assert(host_goes_on(other.host));
    ck_assert(!host_halted(other.host));
    ck_assert_uint_eq(world_status(&other).applied_index, 3);
    host_answer_from(other.host, 1);
    other.session = 1;
    other.seq = 5;
    block(&other, "incr n 3");
    other.session = other.seq = 0;
    block(&other, "get n");
    run(&other);
    ck_assert(host_answer_next(other.host, &answer));
    ck_assert_uint_eq(answer.first_position, 2);
    ck_assert_uint_eq(answer.reply_bytes, 1);
    ck_assert_uint_eq(answer.reply[0], '3');
    ck_assert(host_answer_next(other.host, &answer));
    ck_assert_uint_eq(answer.reply[0], '3'); /* and not 6 */
    world_close(&world);
    world_close(&other);
}
END_TEST

START_TEST(a_state_takes_the_machines_place_in_one_step_behind_a_halt) /* T40, T48 */
{
    struct host_state *state;
    char why[256];
    start(&world, 3000);
    fill(&world, 0, 60);
    run(&world);
    struct block_base base = take(&world, &first);
    start(&other, 0);
    block(&other, "put old state");
    run(&other);
    ck_assert_int_eq(host_state_read(world.host, &first.reader, &state, why, sizeof why), 0);
    first.read = 0;
    host_state_free(world.host, state);
    ck_assert_int_eq(host_state_read(other.host, &first.reader, &state, why, sizeof why), 0);
    host_halt(other.host);
    block(&other, "put never applied");
    run(&other);
    ck_assert(host_halted(other.host));
    ck_assert_uint_eq(world_status(&other).applied_index, 1);
    ck_assert_int_eq(host_query(other.host, 1, 0, 1, (const uint8_t *)"get old", 7), 0); /* the old state answers */
    world_run(&other);
    struct host_answer answer;
    ck_assert(host_answer_next(other.host, &answer));
    ck_assert_uint_eq(answer.reply_bytes, 5);
    ck_assert(!host_answer_next(other.host, &answer));
    ring_epoch_begin(other.storage.ring);
    ring_cut(other.storage.ring, 3);
    ring_restart(other.storage.ring, &base);
    ring_epoch_end(other.storage.ring, 3, false);
    other.last = base;
    host_replace(other.host, state);
    host_commit(other.host, base.index);
    world_run(&other);
    ck_assert_uint_eq(world_status(&other).hash_index, base.index);
    copy_log(base.index + 1);
    run(&other);
    check_same();
    ck_assert_int_eq(host_query(other.host, 2, 0, 1, (const uint8_t *)"get old", 7), 0);
    world_run(&other);
    ck_assert(host_answer_next(other.host, &answer));
    ck_assert_int_eq(answer.code, 1); /* no such key */
    world_close(&world);
    world_close(&other);
}
END_TEST

START_TEST(a_state_waits_until_the_old_machines_snapshot_is_let_go) /* T41 */
{
    struct host_state *state;
    struct block_base base;
    char why[256], large[2048] = "put large ";
    memset(large + strlen(large), 'x', sizeof large - strlen(large) - 1);
    start(&world, 1);
    fill(&world, 0, 1);
    run(&world);
    take(&world, &first);
    block(&world, large, "append log .");
    run(&world);
    ck_assert(host_snapshot_ready(world.host, &base)); /* control is still to write it */
    ck_assert_int_eq(host_state_read(world.host, &first.reader, &state, why, sizeof why), 0);
    host_halt(world.host);
    world_run(&world);
    host_replace(world.host, state);
    world_run(&world);
    ck_assert(host_halted(world.host));
    bytes_start(&second);
    ck_assert_int_eq(host_snapshot_write(world.host, &second.writer), 0);
    host_snapshot_done(world.host);
    world_run(&world);
    ck_assert(!host_halted(world.host));
    ck_assert_uint_eq(world_status(&world).applied_index, 2); /* it went on behind block 1 */
    world_close(&world);
}
END_TEST

START_TEST(the_newest_configuration_goes_along) /* R6 */
{
    struct host_state *state;
    char why[256];
    start(&world, 1);
    host_snapshot_allow(world.host, false);
    block(&world, "put a b");
    ck_assert(block_try_begin(&world, 4096));
    memcpy(world.claim + world.open.bytes, "members!", 8);
    world.open.bytes += 8;
    block_end(&world, BLOCK_CONFIGURATION);
    run(&world);
    host_snapshot_allow(world.host, true);
    block(&world, "put a c");
    run(&world);
    take(&world, &first);
    ck_assert_int_eq(host_state_read(world.host, &first.reader, &state, why, sizeof why), 0);
    const struct host_configuration *configuration = host_state_configuration(state);
    ck_assert_uint_eq(configuration->index, 2);
    ck_assert_uint_eq(configuration->count, 8);
    ck_assert_mem_eq(configuration->bytes, "members!", 8);
    host_state_free(world.host, state);
    world_close(&world);
}
END_TEST

START_TEST(damaged_foreign_and_newer_snapshots_are_refused)
{
    struct host_state *state;
    char why[256];
    start(&world, 200);
    fill(&world, 0, 4);
    run(&world);
    take(&world, &first);
    for (size_t cut = 0; cut < first.count; cut++) {
        bytes_start(&second);
        memcpy(second.at, first.at, cut);
        second.count = cut;
        ck_assert_int_ne(host_state_read(world.host, &second.reader, &state, why, sizeof why), 0);
    }
    for (size_t at = 0; at < first.count; at++) {
        bytes_start(&second);
        memcpy(second.at, first.at, first.count);
        second.count = first.count;
        second.at[at] ^= (uint8_t)(1 << at % 8);
        int rc = host_state_read(world.host, &second.reader, &state, why, sizeof why);
        ck_assert_msg(rc != 0, "byte %zu of %zu", at, first.count);
    }
    bytes_start(&second);
    memcpy(second.at, first.at, first.count);
    second.count = first.count;
    world_open(&other, 1 << 20);
    world_start(&other); /* of the probe */
    ck_assert_int_eq(host_state_read(other.host, &second.reader, &state, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "probe"));
    world_close(&other);
    world_close(&world);
}
END_TEST

START_TEST(a_writer_that_fails_ends_the_snapshot)
{
    struct block_base base;
    start(&world, 1);
    fill(&world, 0, 1);
    run(&world);
    bytes_start(&first);
    first.fail_at = 200;
    ck_assert(host_snapshot_ready(world.host, &base));
    ck_assert_int_eq(host_snapshot_write(world.host, &first.writer), LOCKSTEP_ENOSPC);
    host_snapshot_done(world.host);
    world_run(&world);
    fill(&world, 1, 2);
    run(&world);
    ck_assert_uint_eq(take(&world, &first).index, 2);
    world_close(&world);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_snapshot_is_due_after_so_many_bytes_and_stands_at_a_blocks_end);
    tcase_add_test(tests, the_next_snapshot_waits_until_the_log_is_four_times_the_last_ones_size);
    tcase_add_test(tests, a_snapshot_is_due_at_the_first_block_that_is_so_much_log_time_behind_the_last_one);
    tcase_add_test(tests, replicas_take_the_same_snapshots_at_the_same_blocks);
    tcase_add_test(tests, nothing_is_taken_unless_it_is_allowed);
    tcase_add_test(tests, a_machine_without_snapshots_takes_none_and_says_so);
    tcase_add_test(tests, a_host_that_starts_from_a_snapshot_goes_on_as_if_it_had_applied_all);
    tcase_add_test(tests, a_repeated_command_is_known_after_a_restore);
    tcase_add_test(tests, a_state_takes_the_machines_place_in_one_step_behind_a_halt);
    tcase_add_test(tests, a_state_waits_until_the_old_machines_snapshot_is_let_go);
    tcase_add_test(tests, the_newest_configuration_goes_along);
    tcase_add_test(tests, damaged_foreign_and_newer_snapshots_are_refused);
    tcase_add_test(tests, a_writer_that_fails_ends_the_snapshot);
}

int main(int argc, char **argv)
{
    char why[1024];
    if (argc != 3) return 2;
    if (plugin_load(argv[2], argv[1], "kv", &kv_plugin, why, sizeof why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    return unit_main("host snapshot", add);
}
