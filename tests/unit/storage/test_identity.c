/* SPDX-License-Identifier: Apache-2.0 */
/* test_identity.c - who a data directory is (I1 to I3): born once, locked, and refused by name when it is not ours. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/identity.h"
#include "tests/support/unit.h"

static char parent[64], path[128], file_path[160], why[512];
static struct identity_directory *directory;
static struct identity identity;

static void setup(void)
{
    snprintf(parent, sizeof parent, "/tmp/lockstep-identity-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(parent));
    snprintf(path, sizeof path, "%s/n1", parent);
    snprintf(file_path, sizeof file_path, "%s/identity", path);
    directory = NULL;
    why[0] = '\0';
}

static void teardown(void)
{
    identity_close(directory);
    unit_folder_remove(parent);
}

static int open_as(const char *name)
{
    return identity_open(disk_posix(), path, name, 0xabcdef, &directory, &identity, why, sizeof why);
}

static void reopen(void)
{
    identity_close(directory);
    directory = NULL;
    ck_assert_int_eq(open_as("n1"), 0);
}

static struct birth_record birth(void)
{
    struct birth_record record = {
        .cluster_id = 42,
        .time_ns = 1700000000000000000,
        .configuration = {.uncommitted_bytes_max = 16 << 20, .level = DURABILITY_LEVEL_FSYNC, .member_count = 3},
        .cluster = "demo",
        .machine = "kv"};
    for (uint32_t i = 0; i < 3; i++) {
        struct configuration_member *member = &record.configuration.members[i];
        member->id = 100 + i;
        member->role = CONFIGURATION_VOTER;
        snprintf(member->name, sizeof member->name, "n%u", i + 1);
        snprintf(member->client, sizeof member->client, "127.0.0.1:740%u", i + 1);
        snprintf(member->peer, sizeof member->peer, "127.0.0.1:750%u", i + 1);
    }
    return record;
}

static size_t read_file(uint8_t to[4096])
{
    int fd = open(file_path, O_RDONLY);
    ssize_t n = read(fd, to, 4096);
    close(fd);
    ck_assert_int_gt(n, 0);
    return (size_t)n;
}

static void write_file(const uint8_t *from, size_t bytes)
{
    int fd = open(file_path, O_WRONLY | O_TRUNC);
    ck_assert_int_eq(write(fd, from, bytes), (ssize_t)bytes);
    close(fd);
}

START_TEST(new_directory_is_fresh_and_keeps_its_member_id) /* I1 */
{
    ck_assert_int_eq(open_as("n1"), 0);
    ck_assert_int_eq(identity.state, IDENTITY_FRESH);
    ck_assert_uint_eq(identity.member_id, 0xabcdef);
    identity_close(directory);
    directory = NULL;
    ck_assert_int_eq(identity_open(disk_posix(), path, "n1", 0x999, &directory, &identity, why, sizeof why), 0);
    ck_assert_uint_eq(identity.member_id, 0xabcdef); /* the second random id is not used */
}
END_TEST

/* The real disk, and which directories were flushed. */
static char flushed[1024];

static int watch_flush_directory(void *context, const char *name)
{
    size_t at = strlen(flushed);
    snprintf(flushed + at, sizeof flushed - at, "%s;", name);
    return disk_posix()->flush_directory(context, name);
}

START_TEST(names_are_flushed_before_anybody_hears_of_them) /* I1, J3; ./dev powercut found both */
{
    static struct disk disk; /* outlives the test: teardown closes through it */
    char expected[400];
    disk = *disk_posix();
    disk.flush_directory = watch_flush_directory;
    flushed[0] = '\0';
    ck_assert_int_eq(identity_open(&disk, path, "n1", 0xabcdef, &directory, &identity, why, sizeof why), 0);
    snprintf(expected, sizeof expected, "%s/..;%s;", path, path); /* its own name, above it; then the file's */
    ck_assert_str_eq(flushed, expected);
    identity_close(directory);
    directory = NULL;
    flushed[0] = '\0'; /* the one before may have been killed between its rename and its flush */
    ck_assert_int_eq(identity_open(&disk, path, "n1", 0xabcdef, &directory, &identity, why, sizeof why), 0);
    snprintf(expected, sizeof expected, "%s;", path);
    ck_assert_str_eq(flushed, expected);
}
END_TEST

START_TEST(birth_is_pending_then_complete_and_survives) /* I2 */
{
    ck_assert_int_eq(open_as("n1"), 0);
    identity.state = IDENTITY_PENDING;
    identity.birth = birth();
    ck_assert_int_eq(identity_store(directory, &identity), 0);
    reopen();
    ck_assert_int_eq(identity.state, IDENTITY_PENDING);
    identity.birth.cluster_id = 43; /* a newer pending one replaces it */
    ck_assert_int_eq(identity_store(directory, &identity), 0);
    identity.state = IDENTITY_COMPLETE;
    ck_assert_int_eq(identity_store(directory, &identity), 0);
    reopen();
    ck_assert_int_eq(identity.state, IDENTITY_COMPLETE);
    ck_assert_uint_eq(identity.birth.cluster_id, 43);
    ck_assert_uint_eq(identity.birth.configuration.member_count, 3);
    ck_assert_str_eq(identity.birth.configuration.members[2].name, "n3");
    ck_assert_str_eq(identity.birth.machine, "kv");
}
END_TEST

START_TEST(directory_in_use_is_refused) /* I3 */
{
    ck_assert_int_eq(open_as("n1"), 0);
    struct identity_directory *second = NULL;
    struct identity other;
    ck_assert_int_eq(identity_open(disk_posix(), path, "n1", 1, &second, &other, why, sizeof why), LOCKSTEP_ELOCKED);
    ck_assert_ptr_nonnull(strstr(why, path));
    ck_assert_ptr_nonnull(strstr(why, "in use by another process"));
}
END_TEST

START_TEST(directory_of_another_node_is_refused) /* I3 */
{
    ck_assert_int_eq(open_as("n1"), 0);
    identity_close(directory);
    directory = NULL;
    ck_assert_int_eq(open_as("n2"), LOCKSTEP_EFOREIGN);
    ck_assert_ptr_nonnull(strstr(why, "belongs to node 'n1'"));
    ck_assert_int_eq(open_as("n1"), 0); /* untouched */
}
END_TEST

START_TEST(every_flipped_bit_is_found_and_nothing_is_touched) /* I3 */
{
    ck_assert_int_eq(open_as("n1"), 0);
    identity.state = IDENTITY_PENDING;
    identity.birth = birth();
    ck_assert_int_eq(identity_store(directory, &identity), 0);
    identity_close(directory);
    directory = NULL;
    uint8_t good[4096], bad[4096];
    size_t bytes = read_file(good);
    for (size_t bit = 0; bit < bytes * 8; bit += 7) { /* 7: every bit of a byte in turn, an eighth of the work */
        memcpy(bad, good, bytes);
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        write_file(bad, bytes);
        ck_assert_int_eq(open_as("n1"), LOCKSTEP_ECORRUPT);
        ck_assert_ptr_null(directory);
        uint8_t after[4096];
        ck_assert_uint_eq(read_file(after), bytes);
        ck_assert_mem_eq(after, bad, bytes);
    }
    write_file(good, bytes / 2);
    ck_assert_int_eq(open_as("n1"), LOCKSTEP_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(why, "member replace"));
    write_file(good, bytes);
    ck_assert_int_eq(open_as("n1"), 0);
}
END_TEST

START_TEST(wiped_identity_beside_a_log_is_refused) /* I3 */
{
    ck_assert_int_eq(open_as("n1"), 0);
    identity_close(directory);
    directory = NULL;
    unlink(file_path);
    char boot[192];
    snprintf(boot, sizeof boot, "%s/boot", path);
    close(open(boot, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(open_as("n1"), LOCKSTEP_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(why, "'identity' is gone"));
    ck_assert_int_ne(access(file_path, F_OK), 0);
}
END_TEST

START_TEST(newer_format_is_refused_by_version) /* I3 */
{
    ck_assert_int_eq(open_as("n1"), 0);
    identity_close(directory);
    directory = NULL;
    uint8_t bytes[4096];
    size_t count = read_file(bytes);
    uint32_t format = STORAGE_FORMAT + 1, crc;
    memcpy(bytes + 8, &format, 4);
    crc = crc32c(bytes + 8, count - 8);
    memcpy(bytes + 4, &crc, 4);
    write_file(bytes, count);
    ck_assert_int_eq(open_as("n1"), LOCKSTEP_EVERSION);
    ck_assert_ptr_nonnull(strstr(why, "newer version"));
}
END_TEST

START_TEST(directory_that_cannot_be_made_is_named)
{
    snprintf(path, sizeof path, "%s/missing/n1", parent);
    ck_assert_int_ne(open_as("n1"), 0);
    ck_assert_ptr_nonnull(strstr(why, path));
}
END_TEST

START_TEST(birth_record_travels_as_bytes)
{
    uint8_t bytes[BIRTH_RECORD_BYTES_MAX];
    struct birth_record record = birth(), read;
    uint32_t count = birth_record_write(&record, bytes);
    ck_assert_int_eq(birth_record_read(bytes, count, &read), 0);
    uint8_t again[BIRTH_RECORD_BYTES_MAX];
    ck_assert_uint_eq(birth_record_write(&read, again), count);
    ck_assert_mem_eq(bytes, again, count);
    for (uint32_t cut = 0; cut < count; cut++)
        ck_assert_int_eq(birth_record_read(bytes, cut, &read), LOCKSTEP_ECORRUPT);
    for (uint32_t bit = 0; bit < count * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_int_eq(birth_record_read(bytes, count, &read), LOCKSTEP_ECORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, new_directory_is_fresh_and_keeps_its_member_id);
    tcase_add_test(tests, names_are_flushed_before_anybody_hears_of_them);
    tcase_add_test(tests, birth_is_pending_then_complete_and_survives);
    tcase_add_test(tests, directory_in_use_is_refused);
    tcase_add_test(tests, directory_of_another_node_is_refused);
    tcase_add_test(tests, every_flipped_bit_is_found_and_nothing_is_touched);
    tcase_add_test(tests, wiped_identity_beside_a_log_is_refused);
    tcase_add_test(tests, newer_format_is_refused_by_version);
    tcase_add_test(tests, directory_that_cannot_be_made_is_named);
    tcase_add_test(tests, birth_record_travels_as_bytes);
}

int main(void)
{
    return unit_main("storage identity", add);
}
