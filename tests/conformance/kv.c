/* SPDX-License-Identifier: Apache-2.0 */
/* kv.c - see kv.h. */
#include "tests/conformance/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/unit.h"

enum { TABLES = 3, MAP_BYTES = 1 << 28 };

static char directory[256], why[512];
static const struct kv *kv;
static struct kv_map *map;

static void map_open(void)
{
    int rc = kv->open(kv->context, directory, KV_CREATE, MAP_BYTES, TABLES, &map, why, sizeof why);
    ck_assert_msg(rc == 0, "%d %s", rc, why);
}

static void setup(void)
{
    kv = conformance_kv_begin(directory);
    map = NULL;
}

static void teardown(void)
{
    kv->close(map);
    conformance_kv_end();
}

static void put(uint32_t table, uint64_t key, const char *text)
{
    struct kv_txn *txn = NULL;
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    ck_assert_int_eq(kv->put(txn, table, key, text, strlen(text)), 0);
    ck_assert_int_eq(kv->commit(txn), 0);
}

static void expect(struct kv_txn *txn, uint32_t table, uint64_t key, const char *text)
{
    const void *value = NULL;
    size_t bytes = 0;
    int rc = kv->get(txn, table, key, &value, &bytes);
    if (text == NULL) {
        ck_assert_int_eq(rc, LOCKSTEP_ENOTFOUND);
        return;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_uint_eq(bytes, strlen(text));
    ck_assert_mem_eq(value, text, bytes);
}

START_TEST(missing_map_is_made_only_if_it_may_be)
{
    ck_assert_int_eq(kv->open(kv->context, directory, KV_WRITE, MAP_BYTES, TABLES, &map, why, sizeof why),
                     LOCKSTEP_ENOTFOUND);
    ck_assert_uint_gt(strlen(why), 0);
    map = NULL;
    map_open();
    put(0, 1, "x");
    kv->close(map);
    map = NULL;
    ck_assert_int_eq(kv->open(kv->context, directory, KV_WRITE, MAP_BYTES, TABLES, &map, why, sizeof why), 0);
}
END_TEST

START_TEST(committed_values_survive_and_aborted_ones_do_not)
{
    struct kv_txn *txn = NULL;
    map_open();
    put(1, 7, "seven");
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    ck_assert_int_eq(kv->put(txn, 1, 8, "eight", 5), 0);
    expect(txn, 1, 8, "eight"); /* its own writes are seen */
    kv->abort(txn);
    kv->close(map);
    map = NULL;
    map_open();
    ck_assert_int_eq(kv->begin_read(map, &txn), 0);
    expect(txn, 1, 7, "seven");
    expect(txn, 1, 8, NULL);
    expect(txn, 0, 7, NULL); /* tables are apart */
    kv->abort(txn);
}
END_TEST

START_TEST(reader_sees_one_state_until_it_renews)
{
    struct kv_txn *reader = NULL;
    map_open();
    put(0, 1, "old");
    ck_assert_int_eq(kv->begin_read(map, &reader), 0);
    put(0, 1, "newer");
    put(0, 2, "two");
    expect(reader, 0, 1, "old");
    expect(reader, 0, 2, NULL);
    kv->reset(reader);
    ck_assert_int_eq(kv->renew(reader), 0);
    expect(reader, 0, 1, "newer");
    expect(reader, 0, 2, "two");
    kv->abort(reader);
}
END_TEST

START_TEST(keys_are_ordered_as_numbers)
{
    static const uint64_t keys[] = {UINT64_MAX, 256, 1, 255, 65536, 2};
    struct kv_txn *txn = NULL;
    uint64_t key = 0;
    map_open();
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    ck_assert_int_eq(kv->first(txn, 2, &key), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(kv->last(txn, 2, &key), LOCKSTEP_ENOTFOUND);
    for (size_t i = 0; i < 6; i++) ck_assert_int_eq(kv->put(txn, 2, keys[i], "v", 1), 0);
    ck_assert_int_eq(kv->first(txn, 2, &key), 0);
    ck_assert_uint_eq(key, 1);
    ck_assert_int_eq(kv->commit(txn), 0);
    ck_assert_int_eq(kv->begin_read(map, &txn), 0);
    ck_assert_int_eq(kv->last(txn, 2, &key), 0);
    ck_assert_uint_eq(key, UINT64_MAX);
    ck_assert_int_eq(kv->seek(txn, 2, 3, &key), 0);
    ck_assert_uint_eq(key, 255);
    ck_assert_int_eq(kv->seek(txn, 2, 256, &key), 0);
    ck_assert_uint_eq(key, 256);
    ck_assert_int_eq(kv->seek(txn, 1, 0, &key), LOCKSTEP_ENOTFOUND);
    kv->abort(txn);
}
END_TEST

START_TEST(erased_keys_are_gone)
{
    struct kv_txn *txn = NULL;
    map_open();
    put(0, 1, "one");
    put(0, 2, "two");
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    ck_assert_int_eq(kv->erase(txn, 0, 1), 0);
    ck_assert_int_eq(kv->erase(txn, 0, 1), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(kv->commit(txn), 0);
    ck_assert_int_eq(kv->begin_read(map, &txn), 0);
    expect(txn, 0, 1, NULL);
    expect(txn, 0, 2, "two");
    kv->abort(txn);
}
END_TEST

START_TEST(growing_ahead_changes_nothing_that_is_read)
{
    struct kv_txn *txn = NULL;
    map_open();
    put(0, 1, "one");
    ck_assert_int_eq(kv->grow(map, 1 << 20), 0);
    ck_assert_int_eq(kv->grow(map, 1 << 20), 0);
    put(0, 2, "two");
    kv->close(map);
    map = NULL;
    map_open();
    ck_assert_int_eq(kv->begin_read(map, &txn), 0);
    expect(txn, 0, 1, "one");
    expect(txn, 0, 2, "two");
    kv->abort(txn);
}
END_TEST

/* Random work against a plain array. Values up to a few pages, since those lie elsewhere in LMDB. */
START_TEST(removed_map_is_gone_and_may_be_made_anew)
{
    struct kv_txn *txn = NULL;
    uint64_t key;
    map_open();
    put(0, 1, "x");
    kv->close(map);
    map = NULL;
    ck_assert_int_eq(kv->remove(kv->context, directory), 0);
    ck_assert_int_eq(kv->remove(kv->context, directory), 0); /* there is none any more */
    ck_assert_int_eq(kv->open(kv->context, directory, KV_WRITE, MAP_BYTES, TABLES, &map, why, sizeof why),
                     LOCKSTEP_ENOTFOUND);
    map = NULL;
    map_open();
    ck_assert_int_eq(kv->begin_read(map, &txn), 0);
    ck_assert_int_eq(kv->first(txn, 0, &key), LOCKSTEP_ENOTFOUND);
    kv->abort(txn);
}
END_TEST

START_TEST(long_random_work_ends_as_it_should)
{
    enum { KEYS = 64, VALUE_MAX = 20000 };
    static uint8_t bytes[VALUE_MAX];
    size_t sizes[KEYS] = {0}, sizes_before[KEYS];
    struct random random;
    random_seed(&random, unit_seed(0xc0f));
    map_open();
    for (uint64_t round = 0; round < unit_rounds(100); round++) {
        struct kv_txn *txn = NULL;
        memcpy(sizes_before, sizes, sizeof sizes);
        ck_assert_int_eq(kv->begin_write(map, &txn), 0);
        for (uint64_t i = random_below(&random, 20); i > 0; i--) {
            uint64_t key = random_below(&random, KEYS);
            if (random_chance(&random, 1, 4)) {
                ck_assert_int_eq(kv->erase(txn, 0, key), sizes[key] != 0 ? 0 : LOCKSTEP_ENOTFOUND);
                sizes[key] = 0;
            } else {
                sizes[key] = (size_t)random_between(&random, 1, VALUE_MAX);
                memset(bytes, (int)(sizes[key] % 251), sizes[key]);
                ck_assert_int_eq(kv->put(txn, 0, key, bytes, sizes[key]), 0);
            }
        }
        if (random_chance(&random, 1, 3)) {
            kv->abort(txn);
            memcpy(sizes, sizes_before, sizeof sizes);
        } else {
            ck_assert_int_eq(kv->commit(txn), 0);
        }
        ck_assert_int_eq(kv->begin_read(map, &txn), 0);
        for (uint64_t key = 0; key < KEYS; key++) {
            const void *value = NULL;
            size_t count = 0;
            int rc = kv->get(txn, 0, key, &value, &count);
            ck_assert_int_eq(rc, sizes[key] != 0 ? 0 : LOCKSTEP_ENOTFOUND);
            if (rc != 0) continue;
            ck_assert_uint_eq(count, sizes[key]);
            ck_assert_uint_eq(((const uint8_t *)value)[count - 1], count % 251);
        }
        kv->abort(txn);
        if (random_chance(&random, 1, 20)) {
            kv->close(map);
            map = NULL;
            map_open();
        }
    }
}
END_TEST

void conformance_kv_add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, missing_map_is_made_only_if_it_may_be);
    tcase_add_test(tests, committed_values_survive_and_aborted_ones_do_not);
    tcase_add_test(tests, reader_sees_one_state_until_it_renews);
    tcase_add_test(tests, keys_are_ordered_as_numbers);
    tcase_add_test(tests, erased_keys_are_gone);
    tcase_add_test(tests, growing_ahead_changes_nothing_that_is_read);
    tcase_add_test(tests, removed_map_is_gone_and_may_be_made_anew);
    tcase_add_test(tests, long_random_work_ends_as_it_should);
}
