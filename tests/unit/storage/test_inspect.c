/* SPDX-License-Identifier: Apache-2.0 */
/* test_inspect.c - a directory looked at from outside, on the real disk and LMDB: all that counts is shown, damage is named by
 * file, place and block, a newer format with both numbers, and nothing is ever written. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/inspect.h"
#include "tests/support/blocks.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

enum { BLOCKS = 40, STORED = 30, PAYLOAD_BYTES = 200, RECORD_ROOM = 4096 };

static char directory[64], path[384], why[1024];
static struct inspection *inspection;
static struct identity identity;

static const char *path_of(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void teardown(void)
{
    inspect_close(inspection);
    inspection = NULL;
    unit_folder_remove(directory);
}

static void born(void)
{
    struct identity_directory *own;
    int rc = identity_open(disk_posix(), directory, "n1", 0xabcdef, &own, &identity, why, sizeof why);
    ck_assert_int_eq(rc, 0);
    identity.state = IDENTITY_COMPLETE;
    identity.birth = (struct birth_record){.cluster_id = 42,
                                           .time_ns = 1000,
                                           .cluster = "demo",
                                           .machine = "kv",
                                           .configuration = {.level = DURABILITY_LEVEL_FSYNC,
                                                             .member_count = 1,
                                                             .members = {{.id = identity.member_id,
                                                                          .role = CONFIGURATION_VOTER,
                                                                          .name = "n1",
                                                                          .client = "a:1",
                                                                          .peer = "a:2"}}}};
    ck_assert_int_eq(identity_store(own, &identity), 0);
    identity_close(own);
}

/* A node with BLOCKS blocks, STORED of them in data.mdb, block 20 a configuration, that ended without a clean stop. */
static void setup(void)
{
    struct store store;
    inspection = NULL;
    snprintf(directory, sizeof directory, "/tmp/lockstep-inspect-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    born();
    store_options(&store, directory, disk_posix(), kv_lmdb());
    store.options.member_id = identity.member_id;
    ck_assert_int_eq(store_open(&store), 0);
    store.hard_state = (struct storage_hard_state){.term = 3, .vote = identity.member_id};
    for (uint64_t i = 1; i <= BLOCKS; i++) {
        if (i == 20) {
            uint8_t *at, bytes[CONFIGURATION_BYTES_MAX];
            uint32_t count = configuration_write(&identity.birth.configuration, bytes);
            struct block_base base = ring_last(store.ring);
            struct block_header header = {.type = BLOCK_CONFIGURATION,
                                          .bytes = BLOCK_HEADER_BYTES + count,
                                          .index = i,
                                          .term = 2,
                                          .time_ns = base.time_ns,
                                          .first_position = base.next_position,
                                          .previous_crc = base.crc};
            ck_assert_int_eq(ring_claim(store.ring, header.bytes, &at), 0);
            memcpy(at + BLOCK_HEADER_BYTES, bytes, count);
            block_seal(at, &header);
            ring_publish(store.ring, &header);
        } else {
            ck_assert(store_append(&store, i < 10 ? 1 : i < 35 ? 2 : 3, PAYLOAD_BYTES, i));
        }
        if (i % 5 != 0) continue;
        store_persist(&store, i - 4, true);
        store_run_journal(&store, 0);
        if (i > STORED) continue;
        storage_commit(store.storage, i);
        store_run_log(&store, 1000000000);
    }
    store_run_journal(&store, 2000000); /* a marker: all of it was flushed */
    ck_assert_uint_eq(storage_stored(store.storage), STORED);
    store_close(&store);
}

static const struct inspect_view *look(void)
{
    const struct inspect_options options = {.directory = directory, .disk = disk_posix(), .kv = kv_lmdb()};
    int rc = inspect_open(&options, &inspection, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
    ck_assert_int_eq(inspect_verify(inspection), 0);
    return inspect_view(inspection);
}

static void check_whole(void)
{
    size_t count;
    const struct inspect_finding *findings = inspect_findings(inspection, &count);
    ck_assert_msg(count == 0, "%s: %s", findings[0].file, findings[0].text);
}

/* The finding about this file whose text has these words. */
static const struct inspect_finding *found(const char *file, const char *words)
{
    size_t count;
    const struct inspect_finding *findings = inspect_findings(inspection, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(findings[i].file, file) == 0 && strstr(findings[i].text, words) != NULL) return &findings[i];
    for (size_t i = 0; i < count; i++) printf("found: %s: %s\n", findings[i].file, findings[i].text);
    ck_abort_msg("nothing about %s says \"%s\"", file, words);
}

static void flip(const char *name, uint64_t offset)
{
    uint8_t byte;
    int fd = open(path_of(name), O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

/* Put a format number at `at` of a record that begins at `from`, and make its checksum right again. */
static void patch_file(const char *name, uint64_t from, uint64_t bytes, uint64_t at, uint32_t format,
                       size_t format_bytes)
{
    uint8_t record[RECORD_ROOM];
    int fd = open(path_of(name), O_RDWR);
    ck_assert_uint_le(bytes, sizeof record);
    ck_assert_int_eq(pread(fd, record, bytes, (off_t)from), (ssize_t)bytes);
    memcpy(record + at, &format, format_bytes);
    uint32_t crc = crc32c(record + 8, bytes - 8);
    memcpy(record + 4, &crc, sizeof crc);
    ck_assert_int_eq(pwrite(fd, record, bytes, (off_t)from), (ssize_t)bytes);
    close(fd);
}

/* The same of a value in data.mdb; crc_bytes: what its checksum covers, 0 = all of it. */
static void patch_value(uint32_t table, uint64_t key, size_t at, uint32_t format, size_t format_bytes, size_t crc_bytes)
{
    const struct kv *kv = kv_lmdb();
    struct kv_map *map;
    struct kv_txn *txn;
    const void *value;
    size_t count;
    uint8_t copy[RECORD_ROOM];
    ck_assert_int_eq(kv->open(kv->context, directory, KV_WRITE, 1 << 30, TABLES, &map, why, sizeof why), 0);
    ck_assert_int_eq(kv->begin_write(map, &txn), 0);
    ck_assert_int_eq(kv->get(txn, table, key, &value, &count), 0);
    ck_assert_uint_le(count, sizeof copy);
    memcpy(copy, value, count);
    memcpy(copy + at, &format, format_bytes);
    uint32_t crc = crc32c(copy + 8, (crc_bytes != 0 ? crc_bytes : count) - 8);
    memcpy(copy + 4, &crc, sizeof crc);
    ck_assert_int_eq(kv->put(txn, table, key, copy, count), 0);
    ck_assert_int_eq(kv->commit(txn), 0);
    kv->close(map);
}

/* Names, sizes and times of all files. */
static uint32_t fingerprint(void)
{
    uint32_t sum = 0;
    DIR *list = opendir(directory);
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        struct stat s;
        if (entry->d_name[0] == '.') continue;
        ck_assert_int_eq(stat(path_of(entry->d_name), &s), 0);
        uint32_t one = crc32c(entry->d_name, strlen(entry->d_name));
        const uint64_t numbers[] = {(uint64_t)s.st_size, (uint64_t)s.st_mtim.tv_sec, (uint64_t)s.st_mtim.tv_nsec,
                                    (uint64_t)s.st_ctim.tv_nsec, (uint64_t)s.st_ino};
        sum += crc32c_extend(one, numbers, sizeof numbers); /* in any order */
    }
    closedir(list);
    return sum;
}

START_TEST(a_whole_directory_is_shown_as_the_next_start_finds_it)
{
    uint32_t before = fingerprint();
    const struct inspect_view *v = look();
    check_whole();
    ck_assert(v->has_identity && v->has_boot && v->has_table && v->has_journal && v->has_tail);
    ck_assert_str_eq(v->identity.name, "n1");
    ck_assert_uint_eq(v->boot.boot, 1);
    ck_assert_uint_eq(v->hard_state.term, 3);
    ck_assert_uint_eq(v->hard_state.vote, identity.member_id);
    ck_assert_uint_eq(v->first, 1);
    ck_assert_uint_eq(v->stored, STORED);
    ck_assert_uint_eq(v->last, BLOCKS);
    ck_assert_uint_eq(v->configuration.index, 20);
    for (raft_index i = 1; i <= BLOCKS; i++) {
        const uint8_t *block;
        const char *file;
        uint64_t offset;
        uint8_t there[BLOCK_HEADER_BYTES];
        struct block_header header;
        ck_assert_int_eq(inspect_block(inspection, i, &block, &header, &file, &offset), 0);
        ck_assert_uint_eq(header.index, i);
        ck_assert_str_eq(file, i <= STORED ? "data.mdb" : "journal");
        int fd = open(path_of(file), O_RDONLY);
        ck_assert_int_eq(pread(fd, there, sizeof there, (off_t)offset), sizeof there);
        close(fd);
        ck_assert_mem_eq(there, block, sizeof there); /* it lies where it is said to lie */
    }
    inspect_close(inspection);
    inspection = NULL;
    ck_assert_uint_eq(fingerprint(), before);
}
END_TEST

static void count_frame(void *context, const struct inspect_frame *frame)
{
    uint64_t *blocks = context;
    *blocks += frame->header.block_count;
}

START_TEST(frames_are_those_that_the_next_start_replays)
{
    uint64_t blocks = 0;
    look();
    ck_assert_int_eq(inspect_frames(inspection, count_frame, &blocks), 0);
    ck_assert_uint_eq(blocks, BLOCKS - STORED);
}
END_TEST

START_TEST(a_directory_in_use_is_refused_by_its_lock)
{
    struct identity_directory *own;
    struct identity there;
    ck_assert_int_eq(identity_open(disk_posix(), directory, "n1", 1, &own, &there, why, sizeof why), 0);
    const struct inspect_options options = {.directory = directory, .disk = disk_posix(), .kv = kv_lmdb()};
    ck_assert_int_eq(inspect_open(&options, &inspection, why, sizeof why), LOCKSTEP_ELOCKED);
    ck_assert_ptr_nonnull(strstr(why, "'lock'"));
    identity_close(own);
    look(); /* and its own lock goes with it */
    inspect_close(inspection);
    look();
}
END_TEST

START_TEST(a_folder_that_is_no_data_directory_stays_empty)
{
    char other[64];
    snprintf(other, sizeof other, "/tmp/lockstep-inspect-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(other));
    const struct inspect_options options = {.directory = other, .disk = disk_posix(), .kv = kv_lmdb()};
    ck_assert_int_eq(inspect_open(&options, &inspection, why, sizeof why), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(rmdir(other), 0);
}
END_TEST

START_TEST(a_damaged_block_in_the_log_is_named_with_its_place_and_others_are_read) /* T53 */
{
    const uint8_t *block;
    struct block_header header;
    uint64_t offset;
    look();
    ck_assert_int_eq(inspect_block(inspection, 7, &block, &header, NULL, &offset), 0);
    inspect_close(inspection);
    flip("data.mdb", offset + BLOCK_HEADER_BYTES + 50);
    look();
    const struct inspect_finding *finding = found("data.mdb", "block 7 is damaged");
    ck_assert_uint_eq(finding->index, 7);
    ck_assert_uint_eq(finding->offset, offset);
    ck_assert_int_eq(finding->error, LOCKSTEP_ECORRUPT);
    ck_assert_int_eq(inspect_block(inspection, 7, &block, &header, NULL, NULL), LOCKSTEP_ECORRUPT);
    ck_assert_int_eq(inspect_block(inspection, 8, &block, &header, NULL, NULL), 0);
}
END_TEST

START_TEST(every_damaged_block_is_named_not_the_first_alone)
{
    uint64_t offset[3];
    static const raft_index damaged[] = {3, 4, STORED};
    const uint8_t *block;
    struct block_header header;
    size_t count;
    look();
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(inspect_block(inspection, damaged[i], &block, &header, NULL, &offset[i]), 0);
    inspect_close(inspection);
    for (int i = 0; i < 3; i++) flip("data.mdb", offset[i] + 20);
    look();
    const struct inspect_finding *findings = inspect_findings(inspection, &count);
    uint64_t seen = 0;
    for (size_t i = 0; i < count; i++)
        for (int k = 0; k < 3; k++)
            if (findings[i].index == damaged[k] && findings[i].offset == offset[k]) seen |= 1u << k;
    ck_assert_uint_eq(seen, 7);
}
END_TEST

START_TEST(a_damaged_frame_that_was_flushed_is_named_with_its_place) /* J2 */
{
    const uint8_t *block;
    struct block_header header;
    uint64_t offset;
    look();
    ck_assert_int_eq(inspect_block(inspection, STORED + 7, &block, &header, NULL, &offset), 0);
    inspect_close(inspection);
    flip("journal", offset + 70);
    look();
    const struct inspect_finding *finding = found("journal", "damaged");
    ck_assert(finding->offset <= offset && offset < finding->offset + 4096);
    ck_assert_ptr_nonnull(strstr(finding->text, "block 37"));
}
END_TEST

START_TEST(files_that_are_missing_are_named)
{
    static const char *const names[] = {"boot", "journal", "data.mdb"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char away[400], there[384];
        snprintf(there, sizeof there, "%s", path_of(names[i]));
        snprintf(away, sizeof away, "%s.away", there);
        ck_assert_int_eq(rename(there, away), 0);
        look();
        size_t count;
        ck_assert_ptr_nonnull(inspect_findings(inspection, &count));
        ck_assert_uint_ge(count, 1);
        ck_assert_int_eq(found(names[i], "")->error, LOCKSTEP_ECORRUPT);
        inspect_close(inspection);
        inspection = NULL;
        ck_assert_int_eq(rename(away, there), 0);
    }
    look();
    check_whole();
}
END_TEST

START_TEST(damage_to_small_files_is_named_and_the_log_is_still_read)
{
    flip("identity", 40);
    flip("boot", 20);
    const struct inspect_view *v = look();
    ck_assert_int_eq(found("identity", "damaged")->error, LOCKSTEP_ECORRUPT);
    ck_assert_int_eq(found("boot", "damaged")->error, LOCKSTEP_ECORRUPT);
    ck_assert(v->has_tail);
    ck_assert_uint_eq(v->last, BLOCKS);
}
END_TEST

/* --- formats: an unknown one is refused with both numbers ------------------------------------------------------------- */

/* A start refuses with both numbers and changes nothing; a look names the file. */
static void check_refused(const char *file, unsigned format, unsigned known)
{
    char both[96];
    struct identity_directory *own = NULL;
    struct identity there;
    struct store store;
    snprintf(both, sizeof both, "(format %u, this one reads %s%u)", format, format > known ? "up to " : "", known);
    int rc = identity_open(disk_posix(), directory, "n1", 1, &own, &there, why, sizeof why);
    if (rc == 0) {
        store_options(&store, directory, disk_posix(), kv_lmdb());
        store.options.member_id = identity.member_id;
        rc = store_open(&store);
        snprintf(why, sizeof why, "%s", store.why);
        identity_close(own);
    }
    ck_assert_msg(rc == LOCKSTEP_EVERSION, "%s: %d %s", file, rc, why);
    ck_assert_msg(strstr(why, both) != NULL, "%s", why);
    ck_assert_msg(strstr(why, file) != NULL, "%s does not name %s", why, file);
    look();
    ck_assert_int_eq(found(file, both)->error, LOCKSTEP_EVERSION);
}

START_TEST(a_newer_identity_is_refused_with_both_numbers)
{
    patch_file("identity", 0, 112 + 160 + 48 + 624, 8, 9, 4);
    check_refused("identity", 9, STORAGE_FORMAT);
}
END_TEST

START_TEST(a_newer_birth_record_is_refused_with_both_numbers)
{
    patch_file("identity", 112, 160 + 48 + 624, 8, 7, 4);
    patch_file("identity", 0, 112 + 160 + 48 + 624, 0, 0, 0);
    check_refused("identity", 7, 1);
}
END_TEST

START_TEST(a_newer_configuration_in_the_birth_record_is_refused_with_both_numbers)
{
    patch_file("identity", 112 + 160, 48 + 624, 8, 5, 4);
    patch_file("identity", 112, 160 + 48 + 624, 0, 0, 0);
    patch_file("identity", 0, 112 + 160 + 48 + 624, 0, 0, 0);
    check_refused("identity", 5, CONFIGURATION_VERSION);
}
END_TEST

START_TEST(a_newer_boot_counter_is_refused_with_both_numbers)
{
    patch_file("boot", 0, 56, 8, 4, 4);
    check_refused("boot", 4, BOOT_VERSION);
}
END_TEST

START_TEST(a_newer_journal_is_refused_with_both_numbers)
{
    patch_file("journal", 0, 4096, 8, 4, 4);
    check_refused("journal", 4, JOURNAL_VERSION);
}
END_TEST

static void first_frame(void *context, const struct inspect_frame *frame)
{
    struct inspect_frame *first = context;
    if (first->bytes == 0) *first = *frame;
}

START_TEST(a_newer_frame_is_refused_with_both_numbers)
{
    struct inspect_frame first = {0};
    look();
    ck_assert_int_eq(inspect_frames(inspection, first_frame, &first), 0);
    inspect_close(inspection);
    patch_file("journal", first.offset, first.header.header_bytes, 8, 6, 2);
    check_refused("journal", 6, FRAME_VERSION);
}
END_TEST

START_TEST(a_newer_block_in_the_journal_is_refused_with_both_numbers)
{
    const uint8_t *block;
    struct block_header header;
    uint64_t offset;
    look();
    ck_assert_int_eq(inspect_block(inspection, STORED + 4, &block, &header, NULL, &offset), 0);
    inspect_close(inspection);
    patch_file("journal", offset, BLOCK_HEADER_BYTES, 16, 3, 2);
    check_refused("journal", 3, BLOCK_VERSION);
}
END_TEST

START_TEST(a_newer_state_record_is_refused_with_both_numbers)
{
    patch_value(TABLE_STATE, 1, 8, 8, 4, 0);
    check_refused("data.mdb", 8, STORAGE_FORMAT);
}
END_TEST

START_TEST(an_older_state_record_is_refused_with_both_numbers) /* another layout, not damage */
{
    patch_value(TABLE_STATE, 1, 8, 1, 4, 0);
    check_refused("data.mdb", 1, STORAGE_FORMAT);
}
END_TEST

START_TEST(a_newer_block_in_the_log_is_refused_with_both_numbers)
{
    patch_value(TABLE_BLOCKS, STORED, 16, 2, 2, BLOCK_HEADER_BYTES);
    check_refused("data.mdb", 2, BLOCK_VERSION);
}
END_TEST

START_TEST(a_newer_configuration_in_the_log_is_refused_with_both_numbers)
{
    patch_value(TABLE_CONFIGURATIONS, 20, 8, 3, 4, 0);
    check_refused("data.mdb", 3, CONFIGURATION_VERSION);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_whole_directory_is_shown_as_the_next_start_finds_it);
    tcase_add_test(tests, frames_are_those_that_the_next_start_replays);
    tcase_add_test(tests, a_directory_in_use_is_refused_by_its_lock);
    tcase_add_test(tests, a_folder_that_is_no_data_directory_stays_empty);
    tcase_add_test(tests, a_damaged_block_in_the_log_is_named_with_its_place_and_others_are_read);
    tcase_add_test(tests, every_damaged_block_is_named_not_the_first_alone);
    tcase_add_test(tests, a_damaged_frame_that_was_flushed_is_named_with_its_place);
    tcase_add_test(tests, files_that_are_missing_are_named);
    tcase_add_test(tests, damage_to_small_files_is_named_and_the_log_is_still_read);
    tcase_add_test(tests, a_newer_identity_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_birth_record_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_configuration_in_the_birth_record_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_boot_counter_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_journal_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_frame_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_block_in_the_journal_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_state_record_is_refused_with_both_numbers);
    tcase_add_test(tests, an_older_state_record_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_block_in_the_log_is_refused_with_both_numbers);
    tcase_add_test(tests, a_newer_configuration_in_the_log_is_refused_with_both_numbers);
}

int main(void)
{
    return unit_main("storage inspect", add);
}
