/* SPDX-License-Identifier: Apache-2.0 */
/* disk.c - see disk.h. */
#include "tests/conformance/disk.h"

#include <stdio.h>
#include <string.h>

#include "lockstep/errors.h"

static char directory[256];
static const struct disk *disk;
static struct disk_file *file;

static void setup(void)
{
    disk = conformance_disk_begin(directory);
    file = NULL;
}

static void teardown(void)
{
    disk->close(file);
    conformance_disk_end();
}

static const char *path_of(const char *name)
{
    static char path[2][512];
    static unsigned turn;
    char *to = path[turn++ % 2];
    snprintf(to, sizeof path[0], "%s/%s", directory, name);
    return to;
}

static void open_new(const char *name)
{
    ck_assert_int_eq(disk->open(disk->context, path_of(name), DISK_CREATE | DISK_EXCLUSIVE, &file), 0);
}

static void write_text(const char *text, uint64_t offset)
{
    const struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    ck_assert_int_eq(disk->pwritev(file, &part, 1, offset), 0);
}

static size_t read_some(void *to, size_t bytes, uint64_t offset)
{
    size_t count = 12345;
    ck_assert_int_eq(disk->pread(file, to, bytes, offset, &count), 0);
    return count;
}

START_TEST(missing_file_is_not_found)
{
    ck_assert_int_eq(disk->open(disk->context, path_of("none"), 0, &file), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(disk->unlink(disk->context, path_of("none")), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(disk->rename(disk->context, path_of("none"), path_of("other")), LOCKSTEP_ENOTFOUND);
    bool there = true;
    ck_assert_int_eq(disk->exists(disk->context, path_of("none"), &there), 0);
    ck_assert(!there);
}
END_TEST

START_TEST(exclusive_create_refuses_what_is_there)
{
    open_new("f");
    struct disk_file *second = NULL;
    ck_assert_int_eq(disk->open(disk->context, path_of("f"), DISK_CREATE | DISK_EXCLUSIVE, &second), LOCKSTEP_EEXIST);
    ck_assert_int_eq(disk->open(disk->context, path_of("f"), DISK_CREATE, &second), 0);
    disk->close(second);
    bool there = false;
    ck_assert_int_eq(disk->exists(disk->context, path_of("f"), &there), 0);
    ck_assert(there);
}
END_TEST

START_TEST(what_is_written_is_read_and_gaps_are_zero)
{
    char bytes[64];
    uint64_t size = 0;
    open_new("f");
    write_text("hello", 0);
    write_text("there", 20);
    ck_assert_int_eq(disk->size(file, &size), 0);
    ck_assert_uint_eq(size, 25);
    ck_assert_uint_eq(read_some(bytes, sizeof bytes, 0), 25); /* short at the end */
    ck_assert_mem_eq(bytes, "hello\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0there", 25);
    ck_assert_uint_eq(read_some(bytes, 3, 21), 3);
    ck_assert_mem_eq(bytes, "her", 3);
    ck_assert_uint_eq(read_some(bytes, 8, 25), 0);
    ck_assert_uint_eq(read_some(bytes, 8, 1000), 0);
}
END_TEST

START_TEST(parts_are_written_in_order_empty_ones_too)
{
    enum { PARTS = 200 };
    struct iovec parts[PARTS];
    char bytes[PARTS], read[PARTS];
    for (int i = 0; i < PARTS; i++) {
        bytes[i] = (char)('a' + i % 26);
        parts[i] = (struct iovec){.iov_base = &bytes[i], .iov_len = i % 7 != 0};
    }
    open_new("f");
    ck_assert_int_eq(disk->pwritev(file, parts, PARTS, 10), 0);
    size_t expected = 0;
    for (int i = 0; i < PARTS; i++) {
        if (i % 7 != 0) bytes[expected++] = bytes[i];
    }
    ck_assert_uint_eq(read_some(read, PARTS, 10), expected);
    ck_assert_mem_eq(read, bytes, expected);
}
END_TEST

START_TEST(flush_and_drop_keep_what_was_written)
{
    char bytes[8];
    open_new("f");
    write_text("hello", 0);
    ck_assert_int_eq(disk->flush(file, false), 0);
    ck_assert_int_eq(disk->flush(file, true), 0);
    ck_assert_int_eq(disk->drop_cache(file), 0);
    ck_assert_uint_eq(read_some(bytes, 8, 0), 5);
    ck_assert_mem_eq(bytes, "hello", 5);
}
END_TEST

START_TEST(reserved_space_changes_neither_size_nor_content)
{
    char text[16];
    uint64_t bytes = 0;
    open_new("f");
    write_text("hello", 0);
    ck_assert_int_eq(disk->reserve(file, 1 << 20), 0);
    ck_assert_int_eq(disk->reserve(file, 4096), 0);
    ck_assert_int_eq(disk->size(file, &bytes), 0);
    ck_assert_uint_eq(bytes, 5);
    ck_assert_uint_eq(read_some(text, sizeof text, 0), 5);
    ck_assert_mem_eq(text, "hello", 5);
}
END_TEST

START_TEST(renamed_file_replaces_the_other)
{
    char bytes[16];
    open_new("old");
    write_text("old", 0);
    disk->close(file);
    open_new("new");
    write_text("newer", 0);
    ck_assert_int_eq(disk->rename(disk->context, path_of("new"), path_of("old")), 0);
    ck_assert_int_eq(disk->flush_directory(disk->context, directory), 0);
    disk->close(file);
    file = NULL;
    ck_assert_int_eq(disk->open(disk->context, path_of("new"), 0, &file), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(disk->open(disk->context, path_of("old"), DISK_READ_ONLY, &file), 0);
    ck_assert_uint_eq(read_some(bytes, 16, 0), 5);
    ck_assert_mem_eq(bytes, "newer", 5);
}
END_TEST

START_TEST(unlinked_file_is_gone)
{
    open_new("f");
    ck_assert_int_eq(disk->unlink(disk->context, path_of("f")), 0);
    struct disk_file *again = NULL;
    ck_assert_int_eq(disk->open(disk->context, path_of("f"), 0, &again), LOCKSTEP_ENOTFOUND);
}
END_TEST

START_TEST(lock_is_held_until_close) /* I3 */
{
    struct disk_file *second = NULL;
    ck_assert_int_eq(disk->open(disk->context, path_of("lock"), DISK_CREATE | DISK_LOCK, &file), 0);
    ck_assert_int_eq(disk->open(disk->context, path_of("lock"), DISK_CREATE | DISK_LOCK, &second), LOCKSTEP_ELOCKED);
    disk->close(file);
    file = NULL;
    ck_assert_int_eq(disk->open(disk->context, path_of("lock"), DISK_LOCK, &second), 0);
    disk->close(second);
}
END_TEST

START_TEST(directory_is_made_once_and_may_be_there)
{
    ck_assert_int_eq(disk->make_directory(disk->context, path_of("sub")), 0);
    ck_assert_int_eq(disk->make_directory(disk->context, path_of("sub")), 0);
    ck_assert_int_eq(disk->flush_directory(disk->context, path_of("sub")), 0);
    ck_assert_int_eq(disk->open(disk->context, path_of("sub/f"), DISK_CREATE, &file), 0);
    disk->close(file);
    file = NULL;
    ck_assert_int_eq(disk->unlink(disk->context, path_of("sub/f")), 0);
}
END_TEST

static void note(void *context, const char *name)
{
    char *all = context;
    strcat(strcat(all, name), " ");
}

START_TEST(everything_in_a_directory_is_listed_once)
{
    char all[64] = "";
    open_new("f");
    ck_assert_int_eq(disk->make_directory(disk->context, path_of("sub")), 0);
    ck_assert_int_eq(disk->list(disk->context, directory, note, all), 0);
    ck_assert_msg(strcmp(all, "f sub ") == 0 || strcmp(all, "sub f ") == 0, "%s", all);
    all[0] = 0;
    ck_assert_int_eq(disk->list(disk->context, path_of("sub"), note, all), 0);
    ck_assert_str_eq(all, "");
}
END_TEST

START_TEST(its_kind_can_be_asked)
{
    char name[32] = "";
    ck_assert_int_eq(disk->file_system(disk->context, directory, name, sizeof name), 0);
    ck_assert_uint_gt(strlen(name), 0);
}
END_TEST

START_TEST(the_host_was_started_once)
{
    uint64_t one = 0, again = 0;
    ck_assert_int_eq(disk->host_boot(disk->context, &one), 0);
    ck_assert_int_eq(disk->host_boot(disk->context, &again), 0);
    ck_assert_uint_ne(one, 0);
    ck_assert_uint_eq(one, again);
}
END_TEST

void conformance_disk_add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, missing_file_is_not_found);
    tcase_add_test(tests, exclusive_create_refuses_what_is_there);
    tcase_add_test(tests, what_is_written_is_read_and_gaps_are_zero);
    tcase_add_test(tests, parts_are_written_in_order_empty_ones_too);
    tcase_add_test(tests, flush_and_drop_keep_what_was_written);
    tcase_add_test(tests, reserved_space_changes_neither_size_nor_content);
    tcase_add_test(tests, renamed_file_replaces_the_other);
    tcase_add_test(tests, unlinked_file_is_gone);
    tcase_add_test(tests, lock_is_held_until_close);
    tcase_add_test(tests, directory_is_made_once_and_may_be_there);
    tcase_add_test(tests, everything_in_a_directory_is_listed_once);
    tcase_add_test(tests, its_kind_can_be_asked);
    tcase_add_test(tests, the_host_was_started_once);
}
