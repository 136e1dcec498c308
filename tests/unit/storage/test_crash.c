/* SPDX-License-Identifier: Apache-2.0 */
/* test_crash.c - ring, journal and log over a disk that loses power at any operation, for ever opened again.
 * What a node does meanwhile, and what may be found, stands in tests/support/lives.h. Crashes hit recovery itself, again and
 * again (J3). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/lives.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"
#include "tests/support/unit.h"

static struct sim_disk *disk;
static struct sim_kv *kv;
static struct store store;
static struct random dice;
static struct lives_promise promise;
static struct lives lives = {.store = &store, .dice = &dice, .promise = &promise};
static uint64_t crashes, recovery_crashes, bases_moved, laps;

/* Open until it succeeds; the power may go again in the middle. Then compare with what was promised. */
static void open_and_check(void)
{
    raft_index base = promise.opened.base;
    sim_kv_capacity(kv, UINT64_MAX);
    for (;;) {
        if (random_chance(&dice, 1, 2)) sim_disk_power_cut_after(disk, random_below(&dice, 24));
        int rc = store_open(&store);
        if (rc == 0) break;
        ck_assert_msg(!sim_disk_powered(disk), "open failed with power on: %d %s", rc, store.why);
        sim_disk_power_on(disk);
        recovery_crashes++;
    }
    sim_disk_power_cut_after(disk, UINT64_MAX - sim_disk_operations(disk));
    lives_begin(&lives);
    if (promise.opened.base > base) bases_moved++;
}

/* One process's life, until the power goes, or it is killed: then what the page cache holds survives. */
static void live(void)
{
    bool power = random_chance(&dice, 3, 4);
    uint64_t turns = random_between(&dice, 5, 300);
    sim_kv_capacity(kv, random_chance(&dice, 1, 8) ? 0 : UINT64_MAX); /* or: no space for the log */
    if (power) sim_disk_power_cut_after(disk, random_below(&dice, random_chance(&dice, 1, 2) ? 40 : 400));
    for (uint64_t i = 0; i < turns && lives_goes_on(&lives); i++) {
        lives_turn(&lives);
        if (storage_failed(store.storage, NULL) != 0) break;
    }
    ck_assert_msg(storage_failed(store.storage, NULL) == 0 || !sim_disk_powered(disk), "failed with power on");
    if (power && sim_disk_powered(disk)) sim_disk_power_cut(disk);
    lives_note_acked(&lives);
    lives_end(&lives);
    store_close(&store);
    if (!sim_disk_powered(disk)) sim_disk_power_on(disk);
    crashes++;
}

static void world_open(uint64_t seed)
{
    random_seed(&dice, seed);
    disk = sim_disk_open(random_u64(&dice));
    kv = sim_kv_open(disk);
    store_options(&store, "d", sim_disk(disk), sim_kv(kv));
    lives_options(&store);
    ck_assert_int_eq(sim_disk(disk)->make_directory(sim_disk(disk)->context, "d"), 0);
    ck_assert_int_eq(sim_disk(disk)->flush_directory(sim_disk(disk)->context, "."), 0);
    memset(&promise, 0, sizeof promise);
}

static void world_close(void)
{
    store_close(&store);
    sim_kv_close(kv);
    sim_disk_close(disk);
}

START_TEST(every_crash_leaves_a_prefix_with_all_that_was_acknowledged) /* J1 to J5, T49, T50, T52, T53 */
{
    uint64_t seed = unit_seed(0x5eed41), worlds = unit_rounds(60);
    if (worlds > 1 && worlds < 20) worlds = 20; /* fewer see too little of what is counted below */
    for (uint64_t world = 0; world < worlds; world++) {
        if (worlds > 1) printf("world seed 0x%lx\n", (unsigned long)(seed + world));
        uint64_t frames_before = lives.counts.frames;
        world_open(seed + world);
        for (int i = 0; i < 25; i++) {
            open_and_check();
            if (!lives_goes_on(&lives)) break;
            live();
        }
        open_and_check();
        laps += (lives.counts.frames - frames_before) * 4096 / store.options.journal_bytes;
        world_close();
    }
    printf("crashes %lu, in recovery %lu, frames %lu, laps at least %lu, packs %lu, ends with a full journal %lu\n",
           (unsigned long)crashes, (unsigned long)recovery_crashes, (unsigned long)lives.counts.frames,
           (unsigned long)laps, (unsigned long)lives.counts.packs, (unsigned long)lives.counts.refusals);
    printf("snapshots %lu, bases moved %lu, installs %lu, taken up again %lu\n", (unsigned long)lives.counts.snapshots,
           (unsigned long)bases_moved, (unsigned long)lives.counts.installs, (unsigned long)lives.counts.resumed);
    ck_assert_uint_gt(recovery_crashes, 0);
    ck_assert_uint_gt(laps, 0);
    ck_assert_uint_gt(lives.counts.packs, 0);
    ck_assert_uint_gt(lives.counts.refusals, 0);
    ck_assert_uint_gt(bases_moved, 0);
    ck_assert_uint_gt(lives.counts.installs, 0);
    ck_assert(lives.counts.resumed > 0 || worlds < 60); /* a leader seldom offers the same one again */
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, every_crash_leaves_a_prefix_with_all_that_was_acknowledged);
}

int main(void)
{
    return unit_main("storage crash", add);
}
