/* SPDX-License-Identifier: Apache-2.0 */
/* test_kv_lmdb_check.c - a data.mdb whose pages are damaged is named before LMDB follows them; a whole one never is. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "storage/kv.h"
#include "tests/support/unit.h"

enum { TABLES = 3, PAGE = 4096, MAP_BYTES = 64 << 20, FILE_BYTES_MAX = 1 << 20, VALUE_BYTES_MAX = 40000 };

static char directory[64], path[128], why[512];
static uint8_t value_bytes[VALUE_BYTES_MAX];

static void setup(void)
{
    /* In memory where there is such a folder: thousands of commits, and no power is cut. */
    snprintf(directory, sizeof directory, "%s/lockstep-check-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/data.mdb", directory);
}

static void teardown(void)
{
    unit_folder_remove(directory);
}

static int open_map(struct kv_map **ret)
{
    why[0] = 0;
    return kv_lmdb()->open(NULL, directory, KV_CREATE, MAP_BYTES, TABLES, ret, why, sizeof why);
}

/* One transaction: keys put, written over and erased; sizes on both sides of what a leaf takes. */
static void random_transaction(struct kv_map *map, struct random *dice, uint64_t keys, uint32_t bytes_max,
                               unsigned count)
{
    const struct kv *kv = kv_lmdb();
    struct kv_txn *txn = NULL;
    ck_assert_int_eq(kv->grow(map, (uint64_t)count * bytes_max), 0);
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    for (unsigned i = 0; i < count; i++) {
        uint32_t table = (uint32_t)random_below(dice, TABLES);
        uint64_t key = random_below(dice, keys);
        size_t bytes = 1 + random_below(dice, random_chance(dice, 1, 8) ? bytes_max : 100);
        int rc = random_chance(dice, 1, 3) ? kv->erase(txn, table, key) : kv->put(txn, table, key, value_bytes, bytes);
        ck_assert(rc == 0 || rc == LOCKSTEP_ENOTFOUND);
    }
    ck_assert_int_eq(kv->commit(txn), 0);
}

START_TEST(whole_map_is_taken_whatever_was_done_to_it)
{
    uint64_t seed = unit_seed(0x1a9b), rounds = unit_rounds(60);
    struct random dice;
    struct kv_map *map = NULL;
    for (uint64_t round = 0; round < rounds; round++) {
        random_seed(&dice, seed + round);
        uint64_t keys = UINT64_C(1) << (4 + random_below(&dice, 10));
        for (int opens = 0; opens < 3; opens++) {
            ck_assert_msg(open_map(&map) == 0, "round %lu: %s", (unsigned long)round, why);
            for (uint64_t n = random_below(&dice, 8); n > 0; n--)
                random_transaction(map, &dice, keys, VALUE_BYTES_MAX, 1 + (unsigned)random_below(&dice, 300));
            kv_lmdb()->close(map);
        }
        ck_assert_msg(open_map(&map) == 0, "round %lu: %s", (unsigned long)round, why);
        kv_lmdb()->close(map);
        unlink(path);
    }
}
END_TEST

START_TEST(deep_map_is_taken)
{
    const struct kv *kv = kv_lmdb();
    struct kv_map *map = NULL;
    struct kv_txn *txn = NULL;
    ck_assert_int_eq(open_map(&map), 0);
    ck_assert_int_eq(kv->grow(map, MAP_BYTES / 2), 0);
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    for (uint64_t key = 0; key < 40000; key++) ck_assert_int_eq(kv->put(txn, 1, key * 3, value_bytes, 300), 0);
    ck_assert_int_eq(kv->commit(txn), 0); /* 3,000 leaves: three levels */
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    for (uint64_t key = 0; key < 39000; key++) ck_assert_int_eq(kv->erase(txn, 1, key * 3), 0);
    ck_assert_int_eq(kv->commit(txn), 0); /* one list of free pages, over several pages */
    kv->close(map);
    ck_assert_msg(open_map(&map) == 0, "%s", why);
    kv->close(map);
}
END_TEST

/* --- damage --- */

static uint8_t whole[FILE_BYTES_MAX];
static size_t whole_bytes; /* as far as something was written */
static int fd;

/* A small one that has everything: a branch, leaves, a large value, names, free pages of some transactions. */
static void small_map(void)
{
    struct random dice;
    struct kv_map *map = NULL;
    struct kv_txn *txn = NULL;
    const struct kv *kv = kv_lmdb();
    random_seed(&dice, 7);
    for (size_t i = 0; i < sizeof value_bytes; i++) value_bytes[i] = (uint8_t)(i * 7);
    ck_assert_int_eq(open_map(&map), 0);
    for (int n = 0; n < 4; n++) random_transaction(map, &dice, 60, 300, 50);
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    ck_assert_int_eq(kv->put(txn, 2, 1000, value_bytes, 5000), 0);
    ck_assert_int_eq(kv->commit(txn), 0);
    kv->close(map);
    fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t n = pread(fd, whole, sizeof whole, 0);
    ck_assert_int_gt(n, 8 * PAGE);
    whole_bytes = (size_t)n;
    while (whole[whole_bytes - 1] == 0) whole_bytes--;
    whole_bytes = (whole_bytes + PAGE - 1) / PAGE * PAGE;
}

static void restore(void)
{
    ck_assert_int_eq(pwrite(fd, whole, whole_bytes, 0), (ssize_t)whole_bytes);
    ck_assert_int_eq(ftruncate(fd, (off_t)whole_bytes), 0);
}

struct content {
    uint64_t keys, sum;
};

/* Everything there is to read, from its beginning to its end. */
static struct content read_all(struct kv_map *map)
{
    const struct kv *kv = kv_lmdb();
    struct kv_txn *txn = NULL;
    struct content content = {0};
    ck_assert_int_eq(kv->begin_read(map, &txn), 0);
    for (uint32_t table = 0; table < TABLES; table++) {
        uint64_t key;
        int rc = kv->first(txn, table, &key);
        while (rc == 0) {
            const void *value;
            size_t bytes;
            ck_assert_int_eq(kv->get(txn, table, key, &value, &bytes), 0);
            for (size_t i = 0; i < bytes; i++) content.sum += ((const uint8_t *)value)[i];
            content.sum += bytes * 1000003;
            content.sum += (key + 1) * (table + 1);
            content.keys++;
            rc = key == UINT64_MAX ? LOCKSTEP_ENOTFOUND : kv->seek(txn, table, key + 1, &key);
        }
        ck_assert_int_eq(rc, LOCKSTEP_ENOTFOUND);
    }
    kv->abort(txn);
    return content;
}

/* What is damaged is named, or is taken, read, written to, and whole again afterwards. True: it was taken. */
static bool open_damaged(struct content *ret)
{
    struct kv_map *map = NULL;
    struct random dice;
    int rc = open_map(&map);
    if (rc != 0) {
        ck_assert_msg(rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EVERSION, "%d %s", rc, why);
        ck_assert_ptr_nonnull(strstr(why, path));
        return false;
    }
    *ret = read_all(map);
    random_seed(&dice, 11);
    for (int n = 0; n < 2; n++) random_transaction(map, &dice, 100, 6000, 40);
    kv_lmdb()->close(map);
    ck_assert_msg(open_map(&map) == 0, "%s", why);
    kv_lmdb()->close(map);
    return true;
}

START_TEST(no_flipped_bit_sends_a_reader_or_a_writer_astray) /* T54 */
{
    small_map();
    struct content good, now;
    ck_assert(open_damaged(&good));
    restore();
    bool full = getenv("LOCKSTEP_FULL") != NULL;
    uint64_t named = 0, harmless = 0, in_content = 0, step = full ? 1 : 331;
    if (!full && getenv("LOCKSTEP_SHORT") != NULL) step = 3307;
    for (uint64_t bit = unit_seed(0) % step; bit < whole_bytes * 8; bit += step) {
        uint8_t byte = (uint8_t)(whole[bit / 8] ^ (1u << bit % 8));
        ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
        if (open_damaged(&now)) {
            /* as many as there are, in order; what a key or a value says is its reader's to check */
            ck_assert_msg(now.keys == good.keys, "bit %lu of page %lu", (unsigned long)(bit % (PAGE * 8)),
                          (unsigned long)(bit / (PAGE * 8)));
            in_content += now.sum != good.sum;
            harmless += now.sum == good.sum;
            restore();
        } else {
            ck_assert_int_eq(pwrite(fd, &whole[bit / 8], 1, (off_t)(bit / 8)), 1);
            named++;
        }
    }
    printf("%lu pages: %lu flipped bits named, %lu in keys and values, %lu harmless\n",
           (unsigned long)(whole_bytes / PAGE), (unsigned long)named, (unsigned long)in_content,
           (unsigned long)harmless);
    ck_assert_uint_gt(named, 0);
    ck_assert_uint_gt(in_content, 0);
    close(fd);
}
END_TEST

START_TEST(no_damage_sends_a_reader_or_a_writer_astray) /* T54 */
{
    small_map();
    uint64_t seed = unit_seed(0xdead), named = 0, rounds = unit_rounds(400);
    struct content now;
    for (uint64_t round = 0; round < rounds; round++) {
        struct random dice;
        random_seed(&dice, seed + round);
        uint8_t noise[PAGE];
        for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)random_below(&dice, 256);
        for (uint64_t n = 1 + random_below(&dice, 3); n > 0; n--) {
            uint64_t page = random_below(&dice, whole_bytes / PAGE), other = random_below(&dice, whole_bytes / PAGE);
            switch (random_below(&dice, 4)) {
            case 0: /* some bytes, of what leads elsewhere */
                ck_assert_int_gt(
                    pwrite(fd, noise, 1 + random_below(&dice, 16), (off_t)(page * PAGE + random_below(&dice, 200))), 0);
                break;
            case 1: /* a sector */
                ck_assert_int_eq(pwrite(fd, noise, 512, (off_t)(page * PAGE + 512 * random_below(&dice, 8))), 512);
                break;
            case 2: /* a page that went to another place; its number is put right, as one of another time would have it */
                memcpy(noise, whole + other * PAGE, PAGE);
                memcpy(noise, &page, sizeof page);
                ck_assert_int_eq(pwrite(fd, noise, PAGE, (off_t)(page * PAGE)), PAGE);
                break;
            default: /* the end is gone */
                ck_assert_int_eq(ftruncate(fd, (off_t)(page * PAGE + random_below(&dice, PAGE))), 0);
            }
        }
        named += !open_damaged(&now);
        restore();
    }
    printf("%lu of %lu damages named\n", (unsigned long)named, (unsigned long)rounds);
    ck_assert_uint_gt(named, 0);
    close(fd);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, whole_map_is_taken_whatever_was_done_to_it);
    tcase_add_test(tests, deep_map_is_taken);
    tcase_add_test(tests, no_flipped_bit_sends_a_reader_or_a_writer_astray);
    tcase_add_test(tests, no_damage_sends_a_reader_or_a_writer_astray);
}

int main(void)
{
    return unit_main("LMDB's pages", add);
}
