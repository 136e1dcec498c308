/* SPDX-License-Identifier: Apache-2.0 */
/* disk_sim.c - the disk suite against the simulated one; and what only that one can do: lose power. */
#include <stdio.h>
#include <string.h>

#include "lockstep/errors.h"
#include "tests/conformance/disk.h"
#include "tests/support/sim_disk.h"
#include "tests/support/unit.h"

static struct sim_disk *sim;

const struct disk *conformance_disk_begin(char directory[256])
{
    sim = sim_disk_open(7);
    snprintf(directory, 256, "d");
    const struct disk *disk = sim_disk(sim);
    ck_assert_int_eq(disk->make_directory(disk->context, "d"), 0);
    return disk;
}

void conformance_disk_end(void)
{
    sim_disk_close(sim);
    sim = NULL;
}

/* Two sectors: the first flushed, the second not. What does the medium hold after a power cut? */
static void write_and_cut(uint64_t seed, char after[2])
{
    char bytes[1024];
    struct disk_file *file = NULL;
    sim = sim_disk_open(seed);
    const struct disk *disk = sim_disk(sim);
    ck_assert_int_eq(disk->open(disk->context, "f", DISK_CREATE, &file), 0);
    ck_assert_int_eq(disk->flush_directory(disk->context, "."), 0);
    memset(bytes, 'a', sizeof bytes);
    const struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    ck_assert_int_eq(disk->pwritev(file, &part, 1, 0), 0);
    ck_assert_int_eq(disk->flush(file, false), 0);
    memset(bytes, 'b', sizeof bytes);
    ck_assert_int_eq(disk->pwritev(file, &part, 1, 0), 0);
    sim_disk_power_cut(sim);
    size_t count = 0;
    ck_assert_int_eq(disk->pread(file, bytes, sizeof bytes, 0, &count), LOCKSTEP_EIO);
    disk->close(file);
    sim_disk_power_on(sim);
    ck_assert_int_eq(disk->open(disk->context, "f", 0, &file), 0);
    ck_assert_int_eq(disk->pread(file, bytes, sizeof bytes, 0, &count), 0);
    ck_assert_uint_eq(count, sizeof bytes);
    after[0] = bytes[0];
    after[1] = bytes[512];
    disk->close(file);
    sim_disk_close(sim);
    sim = NULL;
}

START_TEST(unflushed_sectors_are_kept_dropped_and_torn_as_the_seed_decides)
{
    unsigned seen = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        char after[2], again[2];
        write_and_cut(seed, after);
        write_and_cut(seed, again);
        ck_assert_mem_eq(after, again, 2);
        seen |= 1u << ((after[0] == 'b') + 2 * (after[1] == 'b'));
    }
    ck_assert_uint_eq(seen, 15);
}
END_TEST

static void add_power(TCase *tests)
{
    tcase_add_test(tests, unflushed_sectors_are_kept_dropped_and_torn_as_the_seed_decides);
}

int main(void)
{
    int suite = unit_main("disk: sim", conformance_disk_add);
    int power = unit_main("disk: sim, power", add_power);
    return suite != 0 ? suite : power;
}
