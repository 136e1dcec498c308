/* SPDX-License-Identifier: Apache-2.0 */
/* test_snapshot.c - snapshots beside the log on the real disk and LMDB: what counts when, what stays in front of one, what
 * comes of a leader's. Crashes at every instruction are test_crash.c's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/random.h"
#include "lockstep/errors.h"
#include "storage/state.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

static char directory[64];
static struct store store;
static struct storage_reader *reader;
static uint8_t content[1 << 16];

static void open_store(void)
{
    int rc = store_open(&store);
    ck_assert_msg(rc == 0, "%d %s", rc, store.why);
    ck_assert_int_eq(storage_reader_open(store.storage, &reader), 0);
}

static void close_store(void)
{
    storage_reader_close(reader);
    reader = NULL;
    store_close(&store);
}

static void reopen(void)
{
    close_store();
    open_store();
}

static void setup(void)
{
    snprintf(directory, sizeof directory, "/tmp/lockstep-snapshot-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    store_options(&store, directory, disk_posix(), kv_lmdb());
    store.options.piece_bytes = 4096;
    store.options.keep_bytes = 2000;
    for (size_t i = 0; i < sizeof content; i++) content[i] = (uint8_t)(i * 7 + (i >> 8));
    open_store();
}

static void teardown(void)
{
    close_store();
    unit_folder_remove(directory);
}

/* `count` more blocks of 400 bytes or so, committed and stored. */
static void log_grow(int count, raft_term term)
{
    if (store.hard_state.term < term) {
        store.hard_state.term = term;
        store_persist(&store, 0, true);
    }
    for (int i = 0; i < count; i++) {
        raft_index first = ring_last(store.ring).index + 1;
        ck_assert(store_append(&store, term, 300, 7));
        store_persist(&store, first, false);
        store_run_journal(&store, 0);
        storage_commit(store.storage, ring_last(store.ring).index);
        store_run_log(&store, 1000000000);
    }
}

static void take(const struct block_base *base, size_t bytes)
{
    ck_assert_int_eq(storage_snapshot_begin(store.storage, base), 0);
    ck_assert_int_eq(storage_snapshot_write(store.storage, content, bytes), 0);
    ck_assert_int_eq(storage_snapshot_end(store.storage, true), 0);
    store_run_log(&store, 1000000000);
}

/* The names of all files of snapshots, sorted, with a blank behind each. */
struct names {
    char list[16][64];
    size_t count;
};

static void note_name(void *context, const char *name)
{
    struct names *names = context;
    if (strncmp(name, "snapshot", 8) != 0) return;
    ck_assert_uint_lt(names->count, sizeof names->list / sizeof names->list[0]);
    ck_assert_uint_lt(strlen(name), sizeof names->list[0]);
    strcpy(names->list[names->count++], name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static const char *files_in(const struct disk *disk, const char *in)
{
    static char all[16 * 65 + 1];
    struct names names = {.count = 0};
    ck_assert_int_eq(disk->list(disk->context, in, note_name, &names), 0);
    qsort(names.list, names.count, sizeof names.list[0], compare_names);
    all[0] = 0;
    for (size_t i = 0; i < names.count; i++) {
        strcat(all, names.list[i]);
        strcat(all, " ");
    }
    return all;
}

static const char *files(void)
{
    return files_in(disk_posix(), directory);
}

static struct storage_status status(void)
{
    struct storage_status status;
    storage_status_read(store.storage, &status);
    return status;
}

static uint8_t piece[SNAPSHOT_PIECE_BYTES_MAX];

static void check_content(enum storage_which which, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        struct storage_snapshot is;
        size_t count;
        ck_assert_int_eq(storage_piece_read(reader, which, at, &is, piece, &count), 0);
        ck_assert_uint_eq(is.bytes, bytes);
        ck_assert_uint_eq(is.checksum, crc32c(content, bytes));
        ck_assert_mem_eq(piece, content + at, count);
        at += count;
    }
    ck_assert_uint_eq(at, bytes);
}

/* What was written here, out of the pieces that it was compressed into. */
static void check_taken(size_t bytes)
{
    static uint8_t to[sizeof content + 1];
    struct storage_content *from;
    size_t at = 0, count;
    ck_assert_int_eq(storage_content_open(reader, STORAGE_SNAPSHOT_NEWEST, &from), 0);
    do {
        size_t room = sizeof to - at < 777 ? sizeof to - at : 777;
        ck_assert_int_eq(storage_content_read(from, to + at, room, &count), 0);
        at += count;
    } while (count > 0);
    ck_assert_uint_eq(at, bytes);
    ck_assert_mem_eq(to, content, bytes);
    storage_content_close(from);
}

static int read_block(raft_index index)
{
    const uint8_t *block;
    struct block_header header;
    return storage_read(reader, index, &block, &header);
}

START_TEST(the_log_behind_a_snapshot_goes_but_for_a_tail) /* J5 */
{
    log_grow(30, 1);
    struct block_base base = ring_last(store.ring);
    take(&base, 10000);
    struct storage_status s = status();
    ck_assert_uint_eq(s.snapshot, 30);
    ck_assert_uint_ge(s.base, 20);
    ck_assert_uint_lt(s.base, 30);
    ck_assert_uint_le(s.log_bytes, 2000 + 400);
    ck_assert_int_eq(read_block(s.base), LOCKSTEP_EGONE);
    ck_assert_int_eq(read_block(s.base + 1), 0);
    check_taken(10000);
    reopen();
    ck_assert_uint_eq(store.recovered.base.index, s.base);
    ck_assert_uint_eq(store.recovered.snapshot.base.index, 30);
    ck_assert_uint_eq(store.recovered.snapshot.base.crc, base.crc);
    ck_assert_uint_eq(store.recovered.stored, 30);
    check_taken(10000);
    log_grow(3, 1);
    ck_assert_int_eq(read_block(33), 0);
}
END_TEST

START_TEST(blocks_older_than_the_snapshot_by_so_much_go_however_few_they_are) /* J5 */
{
    close_store();
    store.options.keep_bytes = 1 << 20;
    store.options.keep_ns = 10; /* a block is 1 */
    open_store();
    log_grow(30, 1);
    struct block_base base = ring_last(store.ring);
    log_grow(5, 1);
    take(&base, 10000);
    ck_assert_uint_eq(status().base, 20);
    ck_assert_int_eq(read_block(20), LOCKSTEP_EGONE);
    ck_assert_int_eq(read_block(21), 0);
    reopen();
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(status().base, 20);
    close_store();
    store.options.keep_ns = 3; /* asked for at a start: blocks go at once */
    open_store();
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(status().base, 27);
    close_store();
    store.options.keep_ns = 0;
    store.options.keep_bytes = 2000;
    open_store();
    ck_assert_uint_eq(store.recovered.base.index, 27);
}
END_TEST

START_TEST(a_snapshot_counts_only_when_the_log_holds_its_block) /* T41, T43 */
{
    log_grow(5, 1);
    ck_assert(store_append(&store, 1, 300, 7));
    store_persist(&store, 6, false);
    store_run_journal(&store, 0);
    struct block_base base = ring_last(store.ring);
    take(&base, 100);
    ck_assert_uint_eq(status().snapshot, 0);
    ck_assert(storage_snapshot_busy(store.storage));
    ck_assert_int_eq(storage_snapshot_begin(store.storage, &base), LOCKSTEP_EFULL);
    storage_commit(store.storage, 6);
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(status().snapshot, 6);
    ck_assert(!storage_snapshot_busy(store.storage));
}
END_TEST

START_TEST(a_newer_snapshot_takes_the_older_ones_place_and_its_file_goes)
{
    log_grow(10, 1);
    struct block_base base = ring_last(store.ring);
    take(&base, 50000);
    ck_assert_str_eq(files(), "snapshot-10 ");
    log_grow(10, 2);
    base = ring_last(store.ring);
    take(&base, 9000);
    check_taken(9000);
    struct kv_txn *txn;
    uint64_t key, runs = 0;
    ck_assert_int_eq(store.storage->kv->begin_read(store.storage->map, &txn), 0);
    for (key = 0; store.storage->kv->seek(txn, TABLE_RUNS, key, &key) == 0; key++) runs++;
    store.storage->kv->abort(txn);
    ck_assert_str_eq(files(), "snapshot-20 ");
    ck_assert_uint_eq(runs, 1); /* the run of term 1 lies below the base */
}
END_TEST

START_TEST(a_snapshot_that_is_broken_off_leaves_nothing)
{
    log_grow(10, 1);
    struct block_base base = ring_last(store.ring);
    ck_assert_int_eq(storage_snapshot_begin(store.storage, &base), 0);
    ck_assert_int_eq(storage_snapshot_write(store.storage, content, 20000), 0);
    ck_assert_str_eq(files(), "snapshot.taken ");
    ck_assert_int_eq(storage_snapshot_end(store.storage, false), 0);
    store_run_log(&store, 1000000000);
    ck_assert_str_eq(files(), "");
    ck_assert_uint_eq(status().snapshot, 0);
    ck_assert(!storage_snapshot_busy(store.storage));
    take(&base, 100);
    ck_assert_uint_eq(status().snapshot, 10);
}
END_TEST

static struct storage_snapshot offered(size_t bytes, raft_index index)
{
    return (struct storage_snapshot){
        .base = {.index = index, .term = 1, .crc = 77, .next_position = 500, .time_ns = 99999},
        .bytes = bytes,
        .checksum = crc32c(content, bytes)};
}

static struct storage_incoming held(void)
{
    struct storage_incoming held;
    store_run_log(&store, 0);
    ck_assert(storage_incoming(store.storage, &held));
    return held;
}

static int offer(const struct storage_snapshot *is, uint64_t offset, size_t count)
{
    return storage_install_piece(store.storage, is, offset, content + offset, count);
}

START_TEST(pieces_of_a_leaders_snapshot_outlive_a_restart) /* T40 */
{
    log_grow(3, 1);
    struct storage_snapshot is = offered(10000, 40);
    ck_assert_int_eq(offer(&is, 4096, 4096), LOCKSTEP_EEXIST); /* not the next one */
    ck_assert_int_eq(offer(&is, 0, 4096), 0);
    ck_assert_int_eq(offer(&is, 4096, 4096), LOCKSTEP_EFULL); /* one at a time */
    ck_assert_uint_eq(held().offset, 4096);
    ck_assert_int_eq(offer(&is, 4096, 4000), LOCKSTEP_EINVAL); /* all but the last have one length */
    ck_assert_int_eq(offer(&is, 4096, 4096), 0);
    ck_assert_uint_eq(held().offset, 8192);
    ck_assert(!held().complete);
    reopen();
    ck_assert_uint_eq(held().offset, 8192);
    ck_assert_int_eq(offer(&is, 0, 4096), LOCKSTEP_EEXIST);
    ck_assert_int_eq(offer(&is, 8192, 10000 - 8192), 0);
    ck_assert(held().complete);
    check_content(STORAGE_SNAPSHOT_INCOMING, 10000);
    ck_assert_uint_eq(status().snapshot, 0); /* the log is what it was */
    ck_assert_int_eq(read_block(3), 0);
}
END_TEST

START_TEST(
    half_a_piece_is_asked_for_again) /* T40, T42: a crash in the middle of a write, or behind one that was not flushed */
{
    struct storage_snapshot is = offered(10000, 40);
    char path[512];
    ck_assert_int_eq(offer(&is, 0, 4096), 0);
    ck_assert_uint_eq(held().offset, 4096);
    ck_assert_int_eq(offer(&is, 4096, 4096), 0);
    ck_assert_uint_eq(held().offset, 8192);
    close_store();
    snprintf(path, sizeof path, "%s/%s", directory, SNAPSHOT_NAME_INCOMING);
    ck_assert_int_eq(truncate(path, SNAPSHOT_FILE_HEAD_BYTES + 2 * (SNAPSHOT_PIECE_HEAD_BYTES + 4096) - 1), 0);
    open_store();
    ck_assert_uint_eq(held().offset, 4096);
    ck_assert_int_eq(offer(&is, 4096, 4096), 0);
    ck_assert_uint_eq(held().offset, 8192);
    ck_assert_int_eq(offer(&is, 8192, 10000 - 8192), 0);
    ck_assert(held().complete);
    close_store();
    ck_assert_int_eq(truncate(path, 100), 0); /* not even a head */
    open_store();
    ck_assert_uint_eq(held().offset, 0);
    ck_assert_str_eq(files(), "");
}
END_TEST

static void write_file(const char *name, const void *bytes, size_t count)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(what_a_crash_left_goes_at_the_next_start) /* J4, T43: what the state record does not name does not count */
{
    log_grow(30, 1);
    struct block_base base = ring_last(store.ring);
    take(&base, 10000);
    close_store();
    write_file(SNAPSHOT_NAME_TAKEN, content, 5000);
    write_file("snapshot-7", content, 5000);
    write_file("snapshot-99", content, 5000);
    write_file("snapshot-of-the-harbour", content, 5000); /* somebody else's */
    ck_assert_str_eq(files(), "snapshot-30 snapshot-7 snapshot-99 snapshot-of-the-harbour snapshot.taken ");
    open_store();
    ck_assert_str_eq(files(), "snapshot-30 snapshot-of-the-harbour ");
    check_taken(10000);
}
END_TEST

START_TEST(a_snapshot_of_another_format_is_refused_with_both_numbers) /* and untouched */
{
    log_grow(30, 1);
    struct block_base base = ring_last(store.ring);
    take(&base, 10000);
    char path[512], name[32];
    uint8_t head[SNAPSHOT_FILE_HEAD_BYTES];
    uint32_t version = 77;
    for (int incoming = 0; incoming < 2; incoming++) {
        struct storage_snapshot is = offered(10000, 40);
        if (incoming) ck_assert_int_eq(offer(&is, 0, 4096), 0);
        if (incoming) ck_assert_uint_eq(held().offset, 4096);
        close_store();
        snprintf(name, sizeof name, "%s", incoming ? SNAPSHOT_NAME_INCOMING : "snapshot-30");
        snprintf(path, sizeof path, "%s/%s", directory, name);
        FILE *file = fopen(path, "r+");
        ck_assert_ptr_nonnull(file);
        ck_assert_uint_eq(fread(head, 1, sizeof head, file), sizeof head);
        uint8_t before[sizeof head];
        memcpy(before, head, sizeof head);
        memcpy(head + 8, &version, sizeof version);
        uint32_t crc = crc32c(head + 8, sizeof head - 8);
        memcpy(head + 4, &crc, sizeof crc);
        rewind(file);
        ck_assert_uint_eq(fwrite(head, 1, sizeof head, file), sizeof head);
        ck_assert_int_eq(fclose(file), 0);
        write_file("snapshot-7", content, 5);
        ck_assert_int_eq(store_open(&store), LOCKSTEP_EVERSION);
        ck_assert_msg(strstr(store.why, name) != NULL && strstr(store.why, "format 77") != NULL &&
                          strstr(store.why, "reads up to 1") != NULL,
                      "%s", store.why);
        ck_assert_ptr_nonnull(strstr(files(), "snapshot-7 "));
        file = fopen(path, "r+");
        ck_assert_uint_eq(fwrite(before, 1, sizeof before, file), sizeof before);
        ck_assert_int_eq(fclose(file), 0);
        open_store();
    }
}
END_TEST

START_TEST(a_snapshot_that_is_gone_is_named) /* T43: the log in front of it is gone, too */
{
    char path[512];
    log_grow(30, 1);
    struct block_base base = ring_last(store.ring);
    take(&base, 10000);
    snprintf(path, sizeof path, "%s/snapshot-30", directory);
    ck_assert_int_eq(unlink(path), 0);
    struct storage_snapshot is;
    size_t count;
    ck_assert_int_eq(storage_piece_read(reader, STORAGE_SNAPSHOT_NEWEST, 0, &is, piece, &count), LOCKSTEP_ECORRUPT);
    close_store();
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
    ck_assert_msg(strstr(store.why, "snapshot-30 is damaged or missing") != NULL, "%s", store.why);
    reader = NULL;
}
END_TEST

START_TEST(a_snapshot_with_another_checksum_is_thrown_away) /* T42 */
{
    struct storage_snapshot is = offered(5000, 40);
    is.checksum++;
    ck_assert_int_eq(offer(&is, 0, 4096), 0);
    ck_assert_uint_eq(held().offset, 4096);
    ck_assert_int_eq(offer(&is, 4096, 5000 - 4096), 0);
    struct storage_incoming none = held();
    ck_assert(!none.complete);
    ck_assert_uint_eq(none.snapshot.base.index, 0);
    ck_assert_uint_eq(none.discarded, 1);
    ck_assert_int_eq(offer(&is, 0, 4096), 0); /* from the beginning */
}
END_TEST

START_TEST(another_snapshot_starts_from_its_beginning)
{
    struct storage_snapshot first = offered(10000, 40), second = offered(9000, 50);
    ck_assert_int_eq(offer(&first, 0, 4096), 0);
    ck_assert_uint_eq(held().offset, 4096);
    ck_assert_int_eq(offer(&second, 4096, 4096), LOCKSTEP_EEXIST);
    ck_assert_int_eq(offer(&second, 0, 4096), 0);
    ck_assert_uint_eq(held().snapshot.base.index, 50);
    ck_assert_int_eq(offer(&first, 4096, 4096), LOCKSTEP_EEXIST);
}
END_TEST

static void install_all(const struct storage_snapshot *is)
{
    static struct storage_install_configuration none;
    struct block_base base;
    for (uint64_t at = 0; at < is->bytes; at += 4096) {
        ck_assert_int_eq(offer(is, at, is->bytes - at < 4096 ? is->bytes - at : 4096), 0);
        store_run_log(&store, 0);
    }
    ck_assert(held().complete);
    storage_install(store.storage, &none);
    ck_assert(!storage_install_done(store.storage, &base));
    store_run_log(&store, 0);
    ring_epoch_begin(store.ring);
    ck_assert(storage_install_done(store.storage, &base));
    ring_epoch_end(store.ring, 1, false);
    ck_assert_uint_eq(base.index, is->base.index);
}

START_TEST(an_install_leaves_an_empty_log_that_goes_on_behind_it) /* J4, T38, T45 */
{
    log_grow(20, 1);
    ck_assert(store_append(&store, 1, 300, 9)); /* not committed, durable: dead afterwards */
    store_persist(&store, 21, false);
    store_run_journal(&store, 0);
    ck_assert(store_append(&store, 1, 300, 9)); /* submitted, not durable */
    store_persist(&store, 22, false);
    struct storage_snapshot is = offered(10000, 40);
    install_all(&is);
    ck_assert_uint_eq(ring_last(store.ring).index, 40);
    ck_assert_int_eq(read_block(20), LOCKSTEP_EGONE);
    ck_assert_int_eq(read_block(40), LOCKSTEP_EGONE);
    ck_assert_int_eq(read_block(41), LOCKSTEP_ENOTFOUND);
    log_grow(3, 2);
    ck_assert_int_eq(read_block(43), 0);
    for (int i = 0; i < 2; i++) {
        reopen();
        ck_assert_uint_eq(store.recovered.base.index, 40);
        ck_assert_uint_eq(store.recovered.snapshot.base.next_position, 500);
        ck_assert_uint_eq(store.recovered.last.index, 43);
        ck_assert_uint_eq(store.recovered.runs[0].first_index, 41);
        ck_assert_uint_eq(store.recovered.runs[0].term, 2);
        check_content(STORAGE_SNAPSHOT_NEWEST, 10000);
    }
    store_run_log(&store, 1000000000);
    struct kv_txn *txn;
    uint64_t key;
    ck_assert_int_eq(store.storage->kv->begin_read(store.storage->map, &txn), 0);
    ck_assert_int_eq(store.storage->kv->first(txn, TABLE_BLOCKS, &key), 0);
    store.storage->kv->abort(txn);
    ck_assert_uint_eq(key, 41); /* what lay below is erased */
}
END_TEST

START_TEST(a_snapshot_being_taken_while_another_is_installed_is_forgotten) /* T41 */
{
    log_grow(10, 1);
    struct block_base base = ring_last(store.ring);
    ck_assert_int_eq(storage_snapshot_begin(store.storage, &base), 0);
    ck_assert_int_eq(storage_snapshot_write(store.storage, content, 20000), 0);
    struct storage_snapshot is = offered(10000, 40);
    install_all(&is);
    ck_assert_int_eq(storage_snapshot_end(store.storage, true), 0);
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(status().snapshot, 40);
    ck_assert(!storage_snapshot_busy(store.storage));
    check_content(STORAGE_SNAPSHOT_NEWEST, 10000);
}
END_TEST

START_TEST(the_configuration_of_an_install_is_the_newest_one) /* R6, T33 */
{
    log_grow(3, 1);
    static struct storage_install_configuration with = {.index = 37};
    struct configuration configuration = {
        .level = DURABILITY_LEVEL_FSYNC, .member_count = 1, .uncommitted_bytes_max = 77};
    configuration.members[0] = (struct configuration_member){
        .id = 9, .role = CONFIGURATION_VOTER, .name = "n9", .client = "c:1", .peer = "p:1"};
    with.count = configuration_write(&configuration, with.bytes);
    struct storage_snapshot is = offered(4000, 40);
    struct block_base base;
    ck_assert_int_eq(offer(&is, 0, 4000), 0);
    ck_assert(held().complete);
    storage_install(store.storage, &with);
    store_run_log(&store, 0);
    ring_epoch_begin(store.ring);
    ck_assert(storage_install_done(store.storage, &base));
    ring_epoch_end(store.ring, 1, false);
    reopen();
    ck_assert_uint_eq(store.recovered.configuration_count, 1);
    ck_assert_uint_eq(store.recovered.configurations[0].index, 37);
    ck_assert_uint_eq(store.recovered.configurations[0].configuration.uncommitted_bytes_max, 77);
}
END_TEST

START_TEST(figures_of_taking_and_installing) /* printed, not asserted */
{
    static uint8_t megabyte[1 << 20];
    uint64_t rounds = unit_rounds(16);
    struct timespec from, to;
    close_store();
    store.options.piece_bytes = SNAPSHOT_PIECE_BYTES;
    open_store();
    log_grow(3, 1);
    struct block_base base = ring_last(store.ring), done;
    clock_gettime(CLOCK_MONOTONIC, &from);
    ck_assert_int_eq(storage_snapshot_begin(store.storage, &base), 0);
    for (uint64_t i = 0; i < rounds; i++) {
        ck_assert_int_eq(storage_snapshot_write(store.storage, megabyte, sizeof megabyte), 0);
        store_run_log(&store, 0);
    }
    ck_assert_int_eq(storage_snapshot_end(store.storage, true), 0);
    store_run_log(&store, 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double taken_ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
    struct storage_snapshot is = {.base = {.index = 9, .term = 1, .crc = 5, .next_position = 9, .time_ns = 99999},
                                  .bytes = rounds << 20};
    for (uint64_t i = 0; i < rounds; i++) is.checksum = crc32c_extend(is.checksum, megabyte, sizeof megabyte);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (uint64_t i = 0; i < rounds; i++) {
        ck_assert_int_eq(storage_install_piece(store.storage, &is, i << 20, megabyte, sizeof megabyte), 0);
        store_run_log(&store, 0);
    }
    static struct storage_install_configuration none;
    storage_install(store.storage, &none);
    store_run_log(&store, 0);
    ring_epoch_begin(store.ring);
    ck_assert(storage_install_done(store.storage, &done));
    ring_epoch_end(store.ring, 1, false);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double installed_ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
    printf("a snapshot of %lu MiB: stored in %.0f ms (%.0f MiB/s), received piece by piece and installed in %.0f ms "
           "(%.0f MiB/s)\n",
           (unsigned long)rounds, taken_ms, (double)rounds * 1e3 / taken_ms, installed_ms,
           (double)rounds * 1e3 / installed_ms);
}
END_TEST

/* A store of its own on a simulated disk; its block is in the journal. */
static void open_with_a_block(struct store *small, struct sim_disk *disk, struct sim_kv *kv, uint32_t piece_bytes)
{
    store_options(small, "d", sim_disk(disk), sim_kv(kv));
    small->options.piece_bytes = piece_bytes;
    ck_assert_int_eq(sim_disk(disk)->make_directory(sim_disk(disk)->context, "d"), 0);
    ck_assert_int_eq(store_open(small), 0);
    small->hard_state.term = 1;
    store_persist(small, 0, true);
    ck_assert(store_append(small, 1, 300, 7));
    store_persist(small, 1, false);
    store_run_journal(small, 0);
}

/* What is written between two flushes is what a commit's flush may have to wait for. */
struct between {
    uint64_t unflushed, most;
};

static void note_unflushed(void *context, enum sim_disk_operation_kind kind, uint64_t offset, uint64_t bytes)
{
    struct between *between = context;
    (void)offset;
    between->unflushed = kind == SIM_DISK_WRITE ? between->unflushed + bytes : 0;
    if (between->unflushed > between->most) between->most = between->unflushed;
}

START_TEST(no_more_than_a_piece_is_written_between_two_flushes)
{
    struct sim_disk *disk = sim_disk_open(1);
    struct sim_kv *kv = sim_kv_open(disk);
    struct store small;
    struct between between = {0};
    struct random random;
    static uint8_t noise[4 * SNAPSHOT_PIECE_BYTES];
    random_seed(&random, 1);
    random_fill(&random, noise, sizeof noise);
    open_with_a_block(&small, disk, kv, 0);
    struct block_base base = ring_last(small.ring);
    sim_disk_watch_set(disk, &(struct sim_disk_watch){.context = &between, .operation = note_unflushed});
    ck_assert_int_eq(storage_snapshot_begin(small.storage, &base), 0);
    ck_assert_int_eq(storage_snapshot_write(small.storage, noise, sizeof noise), 0);
    ck_assert_int_eq(storage_snapshot_end(small.storage, true), 0);
    uint64_t piece_bytes = SNAPSHOT_PIECE_HEAD_BYTES + SNAPSHOT_PIECE_BYTES;
    ck_assert_uint_ge(between.most, piece_bytes);
    ck_assert_uint_le(between.most, piece_bytes + SNAPSHOT_FILE_HEAD_BYTES); /* the last piece, and the head */
    between.most = 0;
    /* A leader's. */
    struct storage_snapshot is = {.base = {.index = 9, .term = 1, .crc = 5, .next_position = 9, .time_ns = 99999},
                                  .bytes = sizeof noise,
                                  .checksum = crc32c(noise, sizeof noise)};
    for (size_t at = 0; at < sizeof noise; at += SNAPSHOT_PIECE_BYTES) {
        ck_assert_int_eq(storage_install_piece(small.storage, &is, at, noise + at, SNAPSHOT_PIECE_BYTES), 0);
        store_run_log(&small, 0);
    }
    ck_assert_uint_ge(between.most, piece_bytes);
    ck_assert_uint_le(between.most, piece_bytes + SNAPSHOT_FILE_HEAD_BYTES);
    sim_disk_watch_set(disk, &(struct sim_disk_watch){.context = NULL});
    store_close(&small);
    sim_kv_close(kv);
    sim_disk_close(disk);
}
END_TEST

START_TEST(no_space_ends_the_snapshot_and_nothing_else) /* J8, T43, T55 */
{
    struct sim_disk *disk = sim_disk_open(1);
    struct sim_kv *kv = sim_kv_open(disk);
    struct store small;
    struct storage_status s;
    open_with_a_block(&small, disk, kv, 4096);
    storage_commit(small.storage, 1);
    store_run_log(&small, 1000000000);
    struct block_base base = ring_last(small.ring);
    sim_disk_capacity(disk, 0);
    ck_assert_int_eq(storage_snapshot_begin(small.storage, &base), 0);
    (void)storage_snapshot_write(small.storage, content, 20000); /* it may all be in the compressor still */
    ck_assert_int_eq(storage_snapshot_end(small.storage, true), LOCKSTEP_ENOSPC);
    store_run_log(&small, 0);
    storage_status_read(small.storage, &s);
    ck_assert(s.snapshot_failed && s.snapshot == 0 && s.base == 0);
    ck_assert_str_eq(files_in(sim_disk(disk), "d"), "");
    ck_assert_int_eq(storage_failed(small.storage, NULL), 0);
    struct storage_snapshot is = offered(10000, 40);
    struct storage_incoming comes;
    /* A leader's: as if the piece had not come. */
    ck_assert_int_eq(storage_install_piece(small.storage, &is, 0, content, 4096), 0);
    store_run_log(&small, 0);
    ck_assert(storage_incoming(small.storage, &comes) && comes.offset == 0);
    sim_disk_capacity(disk, UINT64_MAX);
    ck_assert_int_eq(storage_install_piece(small.storage, &is, 0, content, 4096), 0);
    store_run_log(&small, 0);
    sim_disk_capacity(disk, 0);
    ck_assert_int_eq(storage_install_piece(small.storage, &is, 4096, content + 4096, 4096), 0);
    store_run_log(&small, 0);
    ck_assert(storage_incoming(small.storage, &comes) && comes.offset == 4096);
    ck_assert_int_eq(storage_failed(small.storage, NULL), 0);
    sim_disk_capacity(disk, UINT64_MAX);
    ck_assert_int_eq(storage_snapshot_begin(small.storage, &base), 0);
    ck_assert_int_eq(storage_snapshot_write(small.storage, content, 20000), 0);
    ck_assert_int_eq(storage_snapshot_end(small.storage, true), 0);
    store_run_log(&small, 1000000000);
    storage_status_read(small.storage, &s);
    ck_assert(!s.snapshot_failed && s.snapshot == 1 && s.base == 1);
    store_close(&small);
    sim_kv_close(kv);
    sim_disk_close(disk);
}
END_TEST

/* A store of its own on a simulated disk, with one stored block. */
struct simulated {
    struct sim_disk *disk;
    struct sim_kv *kv;
    struct store store;
};

static void simulated_open(struct simulated *on)
{
    on->disk = sim_disk_open(1);
    on->kv = sim_kv_open(on->disk);
    store_options(&on->store, "d", sim_disk(on->disk), sim_kv(on->kv));
    on->store.options.piece_bytes = 4096;
    ck_assert_int_eq(sim_disk(on->disk)->make_directory(sim_disk(on->disk)->context, "d"), 0);
    ck_assert_int_eq(store_open(&on->store), 0);
    on->store.hard_state.term = 1;
    store_persist(&on->store, 0, true);
    ck_assert(store_append(&on->store, 1, 300, 7));
    store_persist(&on->store, 1, false);
    store_run_journal(&on->store, 0);
    storage_commit(on->store.storage, 1);
    store_run_log(&on->store, 1000000000);
}

static void simulated_close(struct simulated *on)
{
    store_close(&on->store);
    sim_kv_close(on->kv);
    sim_disk_close(on->disk);
}

/* What is held once the piece at `offset` was looked at. */
static struct storage_incoming simulated_piece(struct simulated *on, const struct storage_snapshot *is, uint64_t offset)
{
    size_t count = is->bytes - offset < 4096 ? is->bytes - offset : 4096;
    struct storage_incoming held;
    ck_assert_int_eq(storage_install_piece(on->store.storage, is, offset, content + offset, count), 0);
    store_run_log(&on->store, 0);
    ck_assert(storage_incoming(on->store.storage, &held));
    ck_assert_int_eq(storage_failed(on->store.storage, NULL), 0);
    return held;
}

static void simulated_check(struct simulated *on, const struct storage_snapshot *is)
{
    struct storage_reader *its;
    struct storage_snapshot seen;
    size_t count = 0;
    ck_assert_int_eq(storage_reader_open(on->store.storage, &its), 0);
    for (size_t at = 0; at < is->bytes; at += count) {
        ck_assert_int_eq(storage_piece_read(its, STORAGE_SNAPSHOT_NEWEST, at, &seen, piece, &count), 0);
        ck_assert_uint_eq(seen.base.index, is->base.index);
        ck_assert_mem_eq(piece, content + at, count);
    }
    storage_reader_close(its);
}

START_TEST(
    no_space_at_a_flush_throws_a_leaders_snapshot_away) /* R8: a second flush would not write what the first lost */
{
    for (uint64_t fails_at = 3; fails_at < 6; fails_at += 2) { /* the one every 4 pieces, the one at the end */
        struct simulated on;
        struct storage_snapshot is = offered(5 * 4096 + 100, 40);
        simulated_open(&on);
        for (uint64_t i = 0; i < fails_at; i++)
            ck_assert_uint_eq(simulated_piece(&on, &is, i * 4096).offset, (i + 1) * 4096);
        sim_disk_full_at(on.disk, SIM_DISK_FULL_AT_FLUSH);
        struct storage_incoming held = simulated_piece(&on, &is, fails_at * 4096);
        ck_assert_msg(!held.complete && held.offset == 0 && held.snapshot.base.index == 0, "piece %d: %d %d",
                      (int)fails_at, (int)held.offset, held.complete);
        for (uint64_t at = 0; at < is.bytes; at += 4096) held = simulated_piece(&on, &is, at);
        ck_assert(held.complete);
        simulated_close(&on);
    }
}
END_TEST

START_TEST(an_install_that_finds_no_space_for_a_name_is_tried_again) /* J8, T43 */
{
    static struct storage_install_configuration none;
    const enum sim_disk_full_at full[] = {SIM_DISK_FULL_AT_RENAME, SIM_DISK_FULL_AT_NAMES};
    for (unsigned i = 0; i < sizeof full / sizeof full[0]; i++) {
        struct simulated on;
        struct storage_snapshot is = offered(10000, 40);
        struct storage_status s;
        struct block_base base;
        simulated_open(&on);
        for (uint64_t at = 0; at < is.bytes; at += 4096) (void)simulated_piece(&on, &is, at);
        sim_disk_full_at(on.disk, full[i]);
        storage_install(on.store.storage, &none);
        uint64_t wait_ns = storage_log_work(on.store.storage, on.store.now_ns);
        ck_assert_msg(wait_ns > 0 && wait_ns < UINT64_MAX, "%u: not to be looked at again", i);
        ck_assert(!storage_install_done(on.store.storage, &base));
        storage_status_read(on.store.storage, &s);
        ck_assert_uint_eq(s.snapshot, 0);
        ck_assert_str_eq(files_in(sim_disk(on.disk), "d"), "snapshot.incoming ");
        store_run_log(&on.store, 5000000000);
        ring_epoch_begin(on.store.ring);
        ck_assert(storage_install_done(on.store.storage, &base));
        ring_epoch_end(on.store.ring, 1, false);
        ck_assert_uint_eq(base.index, 40);
        store_run_journal(&on.store, 0);
        store_run_log(&on.store, 1000000000);
        ck_assert_int_eq(storage_failed(on.store.storage, NULL), 0);
        store_close(&on.store);
        sim_disk_power_cut(on.disk);
        sim_disk_power_on(on.disk);
        ck_assert_msg(store_open(&on.store) == 0, "%s", on.store.why);
        ck_assert_uint_eq(on.store.recovered.base.index, 40);
        simulated_check(&on, &is);
        simulated_close(&on);
    }
}
END_TEST

START_TEST(a_snapshot_that_finds_no_space_for_its_name_is_told) /* J8 */
{
    const enum sim_disk_full_at full[] = {SIM_DISK_FULL_AT_RENAME, SIM_DISK_FULL_AT_NAMES};
    for (unsigned i = 0; i < sizeof full / sizeof full[0]; i++) {
        struct simulated on;
        struct storage_status s;
        simulated_open(&on);
        struct block_base base = ring_last(on.store.ring);
        for (int again = 0; again < 2; again++) {
            ck_assert_int_eq(storage_snapshot_begin(on.store.storage, &base), 0);
            ck_assert_int_eq(storage_snapshot_write(on.store.storage, content, 20000), 0);
            ck_assert_int_eq(storage_snapshot_end(on.store.storage, true), 0);
            if (!again) sim_disk_full_at(on.disk, full[i]);
            store_run_log(&on.store, 1000000000);
            storage_status_read(on.store.storage, &s);
            ck_assert_int_eq(s.snapshot_failed, !again);
            ck_assert_uint_eq(s.snapshot, again ? 1 : 0);
            ck_assert_str_eq(files_in(sim_disk(on.disk), "d"), again ? "snapshot-1 " : "");
            ck_assert_int_eq(storage_failed(on.store.storage, NULL), 0);
        }
        simulated_close(&on);
    }
}
END_TEST

START_TEST(pieces_that_are_whole_and_do_not_expand_are_damage) /* T42: what a peer says is checked, then used */
{
    struct storage_content *from;
    uint8_t to[4096];
    size_t count = 0;
    struct storage_snapshot is = offered(10000, 40);
    for (uint64_t at = 0; at < is.bytes; at += 4096) {
        ck_assert_int_eq(offer(&is, at, is.bytes - at < 4096 ? is.bytes - at : 4096), 0);
        store_run_log(&store, 0);
    }
    ck_assert(held().complete);
    ck_assert_int_eq(storage_content_open(reader, STORAGE_SNAPSHOT_INCOMING, &from), 0);
    ck_assert_int_eq(storage_content_read(from, to, sizeof to, &count), LOCKSTEP_ECORRUPT);
    ck_assert_uint_eq(count, 0);
    storage_content_close(from);
}
END_TEST

START_TEST(a_damaged_piece_is_found_and_never_served) /* J7 */
{
    struct sim_disk *disk = sim_disk_open(1);
    struct sim_kv *kv = sim_kv_open(disk);
    struct store small;
    store_options(&small, "d", sim_disk(disk), sim_kv(kv));
    ck_assert_int_eq(sim_disk(disk)->make_directory(sim_disk(disk)->context, "d"), 0);
    ck_assert_int_eq(store_open(&small), 0);
    struct storage_snapshot is = offered(5000, 40), seen;
    ck_assert_int_eq(storage_install_piece(small.storage, &is, 0, content, 5000), 0);
    store_run_log(&small, 0);
    struct storage_reader *its;
    size_t count;
    uint64_t size = 0;
    ck_assert_int_eq(storage_reader_open(small.storage, &its), 0);
    uint8_t *bytes = sim_disk_bytes(disk, "d/" SNAPSHOT_NAME_INCOMING, &size);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(size, SNAPSHOT_FILE_HEAD_BYTES + SNAPSHOT_PIECE_HEAD_BYTES + 5000);
    for (size_t at = 0; at < size; at += 1) {
        for (unsigned bit = at < 200 || (at > 4090 && at < 4200) ? 0 : 7; bit < 8; bit++) {
            bytes[at] ^= (uint8_t)(1u << bit);
            int rc = storage_piece_read(its, STORAGE_SNAPSHOT_INCOMING, 0, &seen, piece, &count);
            ck_assert_msg(rc == LOCKSTEP_ECORRUPT, "byte %zu bit %u: %d", at, bit, rc);
            bytes[at] ^= (uint8_t)(1u << bit);
        }
    }
    ck_assert_int_eq(storage_piece_read(its, STORAGE_SNAPSHOT_INCOMING, 0, &seen, piece, &count), 0);
    storage_reader_close(its);
    store_close(&small);
    sim_kv_close(kv);
    sim_disk_close(disk);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, the_log_behind_a_snapshot_goes_but_for_a_tail);
    tcase_add_test(tests, blocks_older_than_the_snapshot_by_so_much_go_however_few_they_are);
    tcase_add_test(tests, a_snapshot_counts_only_when_the_log_holds_its_block);
    tcase_add_test(tests, a_newer_snapshot_takes_the_older_ones_place_and_its_file_goes);
    tcase_add_test(tests, a_snapshot_that_is_broken_off_leaves_nothing);
    tcase_add_test(tests, pieces_of_a_leaders_snapshot_outlive_a_restart);
    tcase_add_test(tests, half_a_piece_is_asked_for_again);
    tcase_add_test(tests, what_a_crash_left_goes_at_the_next_start);
    tcase_add_test(tests, a_snapshot_of_another_format_is_refused_with_both_numbers);
    tcase_add_test(tests, a_snapshot_that_is_gone_is_named);
    tcase_add_test(tests, a_snapshot_with_another_checksum_is_thrown_away);
    tcase_add_test(tests, another_snapshot_starts_from_its_beginning);
    tcase_add_test(tests, an_install_leaves_an_empty_log_that_goes_on_behind_it);
    tcase_add_test(tests, a_snapshot_being_taken_while_another_is_installed_is_forgotten);
    tcase_add_test(tests, the_configuration_of_an_install_is_the_newest_one);
    tcase_add_test(tests, figures_of_taking_and_installing);
    tcase_add_test(tests, no_more_than_a_piece_is_written_between_two_flushes);
    tcase_add_test(tests, no_space_ends_the_snapshot_and_nothing_else);
    tcase_add_test(tests, no_space_at_a_flush_throws_a_leaders_snapshot_away);
    tcase_add_test(tests, an_install_that_finds_no_space_for_a_name_is_tried_again);
    tcase_add_test(tests, a_snapshot_that_finds_no_space_for_its_name_is_told);
    tcase_add_test(tests, pieces_that_are_whole_and_do_not_expand_are_damage);
    tcase_add_test(tests, a_damaged_piece_is_found_and_never_served);
}

int main(void)
{
    return unit_main("storage snapshot", add);
}
