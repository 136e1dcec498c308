/* SPDX-License-Identifier: Apache-2.0 */
/* test_levels.c - level os: nothing is flushed before it counts; a killed process loses nothing, a host that goes down without
 * a clean stop is a wiped directory, and says so. */
#include <string.h>

#include "lockstep/errors.h"
#include "storage/boot.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

static struct sim_disk *disk;
static struct sim_kv *kv;
static struct store store;

static void setup(void)
{
    disk = sim_disk_open(unit_seed(3));
    kv = sim_kv_open(disk);
    store_options(&store, "d", sim_disk(disk), sim_kv(kv));
    store.options.level = DURABILITY_LEVEL_OS;
    int rc = store_open(&store);
    ck_assert_msg(rc == 0, "%s", store.why);
}

static void teardown(void)
{
    store_close(&store);
    sim_kv_close(kv);
    sim_disk_close(disk);
}

/* Ten blocks that were reported as persisted. */
static void append_ten(void)
{
    raft_index first = ring_last(store.ring).index + 1;
    store.hard_state = (struct storage_hard_state){.term = 2, .vote = 9};
    for (int i = 0; i < 10; i++) ck_assert(store_append(&store, 2, 100, 7));
    uint64_t seq = store_persist(&store, first, true);
    store_run_journal(&store, 0);
    ck_assert_uint_eq(storage_persisted(store.storage), seq);
}

static void check_ten(void)
{
    ck_assert_uint_eq(store.recovered.last.index, 10);
    ck_assert_uint_eq(store.recovered.hard_state.term, 2);
    ck_assert_uint_eq(store.recovered.hard_state.vote, 9);
}

START_TEST(a_frame_is_one_write_and_no_flush)
{
    uint64_t before = sim_disk_operations(disk);
    append_ten();
    uint64_t at_os = sim_disk_operations(disk) - before;
    store_close(&store);
    sim_kv_close(kv);
    sim_disk_close(disk);
    disk = sim_disk_open(3);
    kv = sim_kv_open(disk);
    store_options(&store, "d", sim_disk(disk), sim_kv(kv));
    ck_assert_int_eq(store_open(&store), 0);
    before = sim_disk_operations(disk);
    append_ten();
    ck_assert_uint_gt(sim_disk_operations(disk) - before, at_os);
}
END_TEST

START_TEST(a_killed_process_loses_nothing)
{
    append_ten();
    sim_disk_kill(disk);
    store_close(&store);
    sim_disk_power_on(disk);
    int rc = store_open(&store);
    ck_assert_msg(rc == 0, "%s", store.why);
    check_ten();
}
END_TEST

START_TEST(a_host_that_went_down_without_a_clean_stop_is_a_wiped_directory)
{
    append_ten();
    sim_disk_power_cut(disk);
    store_close(&store);
    sim_disk_power_on(disk);
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(store.why, "counts as wiped"));
    ck_assert_ptr_nonnull(strstr(store.why, "member replace"));
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT); /* and stays one */
}
END_TEST

START_TEST(after_a_clean_stop_the_host_may_go_down)
{
    append_ten();
    store_close(&store);
    sim_disk_power_cut(disk);
    sim_disk_power_on(disk);
    int rc = store_open(&store);
    ck_assert_msg(rc == 0, "%s", store.why);
    check_ten();
}
END_TEST

START_TEST(a_clean_stop_counts_for_one_start_alone)
{
    append_ten();
    store_close(&store);
    ck_assert_int_eq(store_open(&store), 0);
    sim_disk_power_cut(disk);
    store_close(&store);
    sim_disk_power_on(disk);
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
}
END_TEST

START_TEST(a_stop_whose_flush_fails_is_not_clean)
{
    append_ten();
    sim_disk_fail_flush_after(disk, 0);
    store_close(&store);
    struct boot boot;
    sim_disk_kill(disk);
    sim_disk_power_on(disk);
    ck_assert_int_eq(boot_read(sim_disk(disk), "d", &boot), 0);
    ck_assert(!boot.clean);
}
END_TEST

START_TEST(the_longest_promise_is_remembered_until_it_is_over) /* R5 */
{
    static const uint64_t promises[] = {5, 9, 3, 0};
    static const uint64_t longest[] = {5, 9, 9, 3}; /* before the last start it was over */
    for (unsigned i = 0; i < 4; i++) {
        store_close(&store);
        store.options.promise_ns = promises[i];
        ck_assert_int_eq(store_open(&store), 0);
        ck_assert_uint_eq(store.recovered.promise_ns, longest[i]);
        if (i == 2) ck_assert_int_eq(storage_promise_over(store.storage), 0);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_frame_is_one_write_and_no_flush);
    tcase_add_test(tests, the_longest_promise_is_remembered_until_it_is_over);
    tcase_add_test(tests, a_killed_process_loses_nothing);
    tcase_add_test(tests, a_host_that_went_down_without_a_clean_stop_is_a_wiped_directory);
    tcase_add_test(tests, after_a_clean_stop_the_host_may_go_down);
    tcase_add_test(tests, a_clean_stop_counts_for_one_start_alone);
    tcase_add_test(tests, a_stop_whose_flush_fails_is_not_clean);
}

int main(void)
{
    return unit_main("storage levels", add);
}
