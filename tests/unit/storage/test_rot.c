/* SPDX-License-Identifier: Apache-2.0 */
/* test_rot.c - the files of a small storage, one flipped bit after the other, on the real doors: nothing is served that was
 * not written, nothing that was promised is missing; what is damaged comes back from others or is named (T54, J7).
 * LOCKSTEP_FULL=1: every single bit. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "tests/support/archive.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

enum { STORED = 12, LAST = 17, FILE_BYTES_MAX = 16 << 20, CHANGED_BYTES_MAX = 256 << 10 };

static char directory[64];
static struct store store;
static uint32_t crcs[LAST + 1]; /* of the blocks, by index */

static void setup(void)
{
    /* In memory where there is such a folder: thousands of starts, and no power is cut. */
    snprintf(directory, sizeof directory, "%s/lockstep-rot-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    store_options(&store, directory, disk_posix(), kv_lmdb());
}

static void teardown(void)
{
    store_close(&store);
    archive_forget();
    unit_folder_remove(directory);
}

static void append(int count, raft_term term, uint32_t payload_bytes)
{
    raft_index first = ring_last(store.ring).index + 1;
    bool newer = term != store.hard_state.term;
    for (int i = 0; i < count; i++) ck_assert(store_append(&store, term, payload_bytes, 7));
    store.hard_state = (struct storage_hard_state){.term = term, .vote = 9};
    store_persist(&store, first, newer);
    store_run_journal(&store, 5000000);
}

/* Two starts, two terms, a tail that was cut; large and small blocks in the log, some in the journal alone. */
static void make(void)
{
    ck_assert_msg(store_open(&store) == 0, "%s", store.why);
    append(8, 1, 40);
    append(2, 1, 6000);
    archive_ring(&store, 1);
    storage_commit(store.storage, 9);
    store_run_log(&store, 1000000000);
    store_close(&store);
    ck_assert_msg(store_open(&store) == 0, "%s", store.why);
    store_cut(&store, 10);
    append(4, 2, 200);
    archive_ring(&store, 10);
    storage_commit(store.storage, STORED);
    store_run_log(&store, 1000000000);
    append(3, 2, 900);
    append(1, 2, 40);
    archive_ring(&store, STORED + 1);
    ck_assert_uint_eq(ring_last(store.ring).index, LAST);
    store_close(&store);
}

/* A file as it was; only its beginning was ever written to, or will be. */
struct file {
    const char *name;
    int fd;
    off_t size;
    size_t used;
    uint8_t *bytes; /* CHANGED_BYTES_MAX more than used; zeros */
};

static void file_open(struct file *file)
{
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", directory, file->name);
    file->fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(fstat(file->fd, &status), 0);
    ck_assert_int_le(status.st_size, FILE_BYTES_MAX);
    file->size = status.st_size;
    file->bytes = calloc(1, (size_t)status.st_size + CHANGED_BYTES_MAX);
    ck_assert_int_eq(pread(file->fd, file->bytes, (size_t)status.st_size, 0), status.st_size);
    file->used = (size_t)status.st_size;
    while (file->bytes[file->used - 1] == 0) file->used--;
}

static void file_restore(const struct file *file)
{
    size_t bytes = file->used + CHANGED_BYTES_MAX;
    if (bytes > (size_t)file->size) bytes = (size_t)file->size;
    ck_assert_int_eq(pwrite(file->fd, file->bytes, bytes, 0), (ssize_t)bytes);
    ck_assert_int_eq(ftruncate(file->fd, file->size), 0);
}

/* Everything that was promised: as it was. */
static void check_content(void)
{
    struct storage_reader *reader = NULL;
    ck_assert_uint_eq(store.recovered.last.index, LAST);
    ck_assert_uint_eq(store.recovered.last.crc, crcs[LAST]);
    ck_assert_uint_eq(store.recovered.hard_state.term, 2);
    ck_assert_uint_eq(store.recovered.hard_state.vote, 9);
    ck_assert_int_eq(storage_reader_open(store.storage, &reader), 0);
    for (raft_index i = 1; i <= LAST; i++) {
        const uint8_t *block;
        struct block_header header;
        struct ring_slot slot;
        if (ring_find(store.ring, i, &slot) == 0) {
            ck_assert_uint_eq(slot.header_crc, crcs[i]);
            continue;
        }
        ck_assert_int_eq(storage_read(reader, i, &block, &header), 0);
        ck_assert_uint_eq(header.header_crc, crcs[i]);
        storage_read_end(reader);
    }
    storage_reader_close(reader);
}

/* Flip, start, judge, and put everything back. */
static void flip_bits(struct file *file, const struct file *files, size_t file_count, uint64_t first, uint64_t step)
{
    uint64_t named = 0, repaired = 0, harmless = 0;
    for (uint64_t bit = first; bit < file->used * 8; bit += step) {
        uint32_t asked;
        uint8_t byte = (uint8_t)(file->bytes[bit / 8] ^ 1u << bit % 8);
        ck_assert_int_eq(pwrite(file->fd, &byte, 1, (off_t)(bit / 8)), 1);
        int rc = archive_open(&store, &asked);
        if (rc == 0) {
            check_content();
            repaired += asked > 0;
            harmless += asked == 0;
            store_close(&store);
        } else {
            ck_assert_msg(rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EVERSION || rc == LOCKSTEP_EFOREIGN,
                          "%s bit %lu: %d %s", file->name, (unsigned long)bit, rc, store.why);
            ck_assert_ptr_nonnull(strstr(store.why, directory));
            named++;
        }
        for (size_t i = 0; i < file_count; i++) file_restore(&files[i]);
    }
    printf("%s, %zu bytes: %lu flipped bits harmless, %lu repaired by others, %lu named\n", file->name, file->used,
           (unsigned long)harmless, (unsigned long)repaired, (unsigned long)named);
    ck_assert_uint_gt(named + repaired, 0);
}

START_TEST(no_flipped_bit_of_any_file_is_served_as_good) /* T54, J7 */
{
    struct file files[] = {{.name = "boot"}, {.name = "journal"}, {.name = "data.mdb"}};
    const size_t count = sizeof files / sizeof files[0];
    bool full = getenv("LOCKSTEP_FULL") != NULL, brief = getenv("LOCKSTEP_SHORT") != NULL;
    uint64_t seed = unit_seed(0);
    make();
    ck_assert_msg(store_open(&store) == 0, "%s", store.why);
    struct storage_reader *reader = NULL;
    ck_assert_int_eq(storage_reader_open(store.storage, &reader), 0);
    for (raft_index i = 1; i <= LAST; i++) {
        struct ring_slot slot;
        const uint8_t *block;
        struct block_header header = {0};
        if (ring_find(store.ring, i, &slot) != 0) {
            ck_assert_int_eq(storage_read(reader, i, &block, &header), 0);
            storage_read_end(reader);
        }
        crcs[i] = header.index == i ? header.header_crc : slot.header_crc;
    }
    storage_reader_close(reader);
    store_close(&store);
    for (size_t i = 0; i < count; i++) file_open(&files[i]);
    for (size_t i = 0; i < count; i++) {
        uint64_t step = full ? 1 : files[i].used / (brief ? 8 : 60) | 1;
        flip_bits(&files[i], files, count, seed * 7919 % step, step);
    }
    for (size_t i = 0; i < count; i++) {
        close(files[i].fd);
        free(files[i].bytes);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, no_flipped_bit_of_any_file_is_served_as_good);
}

int main(void)
{
    return unit_main("storage rot", add);
}
