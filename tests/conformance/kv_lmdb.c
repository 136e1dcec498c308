/* SPDX-License-Identifier: Apache-2.0 */
/* kv_lmdb.c - the map suite against LMDB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lockstep/errors.h"
#include "tests/conformance/kv.h"
#include "tests/support/unit.h"

static char at[64];

const struct kv *conformance_kv_begin(char directory[256])
{
    snprintf(at, sizeof at, "/tmp/lockstep-kv-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(at));
    snprintf(directory, 256, "%s", at);
    return kv_lmdb();
}

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", at, name);
    return path;
}

void conformance_kv_end(void)
{
    unit_folder_remove(at);
}

START_TEST(file_is_grown_ahead_and_the_map_bounds_it) /* J6 */
{
    char directory[256], why[512];
    struct kv_map *map = NULL;
    struct stat status;
    const struct kv *kv = conformance_kv_begin(directory);
    ck_assert_int_eq(kv->open(kv->context, directory, KV_CREATE, 8 << 20, 2, &map, why, sizeof why), 0);
    ck_assert_int_eq(kv->grow(map, 1 << 20), 0);
    ck_assert_int_eq(stat(path_of("data.mdb"), &status), 0);
    ck_assert_int_ge(status.st_size, 1 << 20);
    ck_assert_int_ge((int64_t)status.st_blocks * 512, 1 << 20); /* written, not a hole */
    ck_assert_uint_eq(kv->file_bytes(map), (uint64_t)status.st_size);
    ck_assert_int_eq(kv->grow(map, 9 << 20), LOCKSTEP_ENOSPC);
    kv->close(map);
    conformance_kv_end();
}
END_TEST

START_TEST(full_map_is_said_and_nothing_is_lost) /* T57 */
{
    enum { VALUE = 100000 };
    static uint8_t bytes[VALUE];
    char directory[256], why[512];
    struct kv_map *map = NULL;
    struct kv_txn *txn = NULL;
    const void *value;
    size_t count;
    const struct kv *kv = conformance_kv_begin(directory);
    ck_assert_int_eq(kv->open(kv->context, directory, KV_CREATE, 1 << 20, 2, &map, why, sizeof why), 0);
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    ck_assert_int_eq(kv->put(txn, 0, 1, bytes, VALUE), 0);
    ck_assert_int_eq(kv->commit(txn), 0);
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    int rc = 0;
    for (uint64_t key = 2; rc == 0 && key < 100; key++) rc = kv->put(txn, 0, key, bytes, VALUE);
    ck_assert_int_eq(rc, LOCKSTEP_ENOSPC);
    kv->abort(txn);
    ck_assert_int_eq(kv->begin_read(map, &txn), 0);
    ck_assert_int_eq(kv->get(txn, 0, 1, &value, &count), 0);
    ck_assert_int_eq(kv->get(txn, 0, 2, &value, &count), LOCKSTEP_ENOTFOUND);
    kv->abort(txn);
    kv->close(map);
    conformance_kv_end();
}
END_TEST

START_TEST(map_without_address_space_says_what_to_lower)
{
    static const uint64_t MORE_THAN_THERE_IS = UINT64_C(1) << 47;
    char directory[256], why[512];
    struct kv_map *map = NULL;
    const struct kv *kv = conformance_kv_begin(directory);
    ck_assert_int_eq(kv->open(kv->context, directory, KV_CREATE, MORE_THAN_THERE_IS, 2, &map, why, sizeof why),
                     LOCKSTEP_ENOMEM);
    ck_assert_ptr_nonnull(strstr(why, "lower storage.map"));
    ck_assert_int_eq(kv->open(kv->context, directory, KV_CREATE, 1 << 20, 2, &map, why, sizeof why), 0);
    kv->close(map);
    ck_assert_int_eq(kv->open(kv->context, directory, KV_WRITE, MORE_THAN_THERE_IS, 2, &map, why, sizeof why),
                     LOCKSTEP_ENOMEM);
    ck_assert_ptr_nonnull(strstr(why, "lower storage.map"));
    conformance_kv_end();
}
END_TEST

static void add_lmdb(TCase *tests)
{
    tcase_add_test(tests, file_is_grown_ahead_and_the_map_bounds_it);
    tcase_add_test(tests, full_map_is_said_and_nothing_is_lost);
    tcase_add_test(tests, map_without_address_space_says_what_to_lower);
}

int main(void)
{
    int suite = unit_main("kv: LMDB", conformance_kv_add);
    int own = unit_main("kv: LMDB, its file", add_lmdb);
    return suite != 0 ? suite : own;
}
