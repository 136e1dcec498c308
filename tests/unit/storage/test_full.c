/* SPDX-License-Identifier: Apache-2.0 */
/* test_full.c - a full disk under data.mdb, the real one (J8): no file of this process may grow beyond RLIMIT_FSIZE. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

static char directory[64];
static struct store store;
static struct random dice;

static void disk_limit(uint64_t bytes)
{
    const struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static uint64_t log_file_bytes(void)
{
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, "%s/data.mdb", directory);
    ck_assert_int_eq(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}

static void setup(void)
{
    signal(SIGXFSZ, SIG_IGN);
    random_seed(&dice, unit_seed(0xf011));
    snprintf(directory, sizeof directory, "/tmp/lockstep-full-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    store_options(&store, directory, disk_posix(), kv_lmdb());
    store.options.ring_bytes = 1 << 20;
    store.options.journal_bytes = 4 << 20;
    store.options.piece_bytes = 4096;
    ck_assert_int_eq(store_open(&store), 0);
}

static void teardown(void)
{
    store_close(&store);
    disk_limit(RLIM_INFINITY);
    unit_folder_remove(directory);
}

static bool log_stalled(void)
{
    struct storage_status status;
    storage_status_read(store.storage, &status);
    ck_assert_int_eq(storage_failed(store.storage, NULL), 0);
    return status.log_stalled;
}

static void run(void)
{
    store_run_journal(&store, 0);
    storage_commit(store.storage, ring_last(store.ring).index);
    store.now_ns += 2000000000;
    store_run_log(&store, 200000000);
}

/* One more committed block. False: ring or journal is full. */
static bool append(uint32_t payload_bytes)
{
    if (!store_append(&store, 1, payload_bytes, 7)) return false;
    store_persist(&store, ring_last(store.ring).index, false);
    run();
    return true;
}

static uint32_t some_bytes(void)
{
    return random_chance(&dice, 1, 4) ? 60000 + (uint32_t)random_below(&dice, 100000)
                                      : 100 + (uint32_t)random_below(&dice, 9000);
}

static void snapshot(void)
{
    struct block_base base = ring_last(store.ring);
    ck_assert_int_eq(storage_snapshot_begin(store.storage, &base), 0);
    ck_assert_int_eq(storage_snapshot_write(store.storage, "state", 5), 0);
    storage_snapshot_end(store.storage, true);
    run();
}

START_TEST(promises_go_on_while_the_log_has_no_space) /* J8, T55 */
{
    disk_limit(4 << 20);
    while (append(some_bytes())) continue;
    ck_assert(log_stalled());
    raft_index stored = storage_stored(store.storage);
    ck_assert_uint_lt(stored, ring_last(store.ring).index);
    for (int i = 0; i < 300; i++) { /* votes: more than a lap of the journal has pages for */
        store.hard_state.term++;
        uint64_t seq = store_persist(&store, 0, true);
        for (int turn = 0; turn < 4 && storage_persisted(store.storage) != seq; turn++) {
            store_run_journal(&store, 0);
            store_run_log(&store, 0);
        }
        ck_assert_uint_eq(storage_persisted(store.storage), seq);
    }
    raft_index last = ring_last(store.ring).index;
    raft_term term = store.hard_state.term;
    store_close(&store); /* and a start does not need space either */
    ck_assert_int_eq(store_open(&store), 0);
    ck_assert_uint_eq(store.recovered.last.index, last);
    ck_assert_uint_eq(store.recovered.hard_state.term, term);
    run();
    ck_assert(log_stalled());
    disk_limit(RLIM_INFINITY);
    run();
    ck_assert(!log_stalled());
    ck_assert_uint_eq(storage_stored(store.storage), last);
    ck_assert(append(1000));
}
END_TEST

START_TEST(what_compaction_gives_back_is_used_before_the_file_grows) /* J8: a disk that stays full */
{
    uint64_t taken = 0;
    store_persist(&store, 0, true);
    while (taken < 24 << 20) {
        uint32_t bytes = some_bytes();
        ck_assert(append(bytes));
        taken += bytes;
    }
    snapshot(); /* of all of it: the file is mostly free pages now */
    struct storage_status status;
    storage_status_read(store.storage, &status);
    ck_assert_uint_eq(status.base, ring_last(store.ring).index);
    uint64_t size = log_file_bytes(), again = 0;
    disk_limit(size);
    raft_index before = storage_stored(store.storage);
    for (uint32_t bytes = some_bytes(); !log_stalled() && append(bytes); bytes = some_bytes()) again += bytes;
    while (append(some_bytes())) continue; /* and then it refuses */
    ck_assert(log_stalled());
    printf("24 MiB compacted, a file of %lu MiB that may not grow: %lu MiB more in %lu blocks\n",
           (unsigned long)(size >> 20), (unsigned long)(again >> 20),
           (unsigned long)(storage_stored(store.storage) - before));
    ck_assert_uint_gt(again, 8 << 20);
    ck_assert_uint_eq(log_file_bytes(), size);
    disk_limit(RLIM_INFINITY);
    run();
    ck_assert(!log_stalled());
    ck_assert_uint_eq(storage_stored(store.storage), ring_last(store.ring).index);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, promises_go_on_while_the_log_has_no_space);
    tcase_add_test(tests, what_compaction_gives_back_is_used_before_the_file_grows);
}

int main(void)
{
    return unit_main("storage on a full disk", add);
}
