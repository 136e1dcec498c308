/* SPDX-License-Identifier: Apache-2.0 */
/* test_storage.c - ring, journal and LMDB together, on the real disk: what was persisted comes back, what was committed
 * moves, and a directory that is not ours is refused and named. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "tests/support/blocks.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

static char directory[64];
static struct store store;

static void setup(void)
{
    snprintf(directory, sizeof directory, "/tmp/lockstep-storage-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    store_options(&store, directory, disk_posix(), kv_lmdb());
}

static void teardown(void)
{
    store_close(&store);
    unit_folder_remove(directory);
}

static void open_store(void)
{
    int rc = store_open(&store);
    ck_assert_msg(rc == 0, "%d %s", rc, store.why);
}

static void reopen(void)
{
    store_close(&store);
    open_store();
}

static void append(int count, raft_term term, uint32_t payload_bytes)
{
    for (int i = 0; i < count; i++) ck_assert(store_append(&store, term, payload_bytes, 7));
}

static void append_durable(int count, raft_term term, uint32_t payload_bytes)
{
    raft_index first = ring_last(store.ring).index + 1;
    append(count, term, payload_bytes);
    uint64_t seq = store_persist(&store, first, false);
    store_run_journal(&store, 0);
    ck_assert_uint_eq(storage_persisted(store.storage), seq);
}

START_TEST(new_directory_is_born_empty)
{
    open_store();
    ck_assert_uint_eq(store.recovered.boot, 1);
    ck_assert_uint_eq(store.recovered.last.index, 0);
    ck_assert_uint_eq(store.recovered.stored, 0);
    ck_assert_uint_eq(store.recovered.hard_state.term, 0);
    ck_assert_uint_eq(store.recovered.run_count, 0);
    reopen();
    ck_assert_uint_eq(store.recovered.boot, 2); /* I1, J3 */
    ck_assert_uint_eq(store.recovered.last.index, 0);
}
END_TEST

START_TEST(nothing_is_durable_before_the_flush)
{
    open_store();
    append(1, 1, 100);
    uint64_t seq = store_persist(&store, 1, false);
    ck_assert_uint_lt(storage_persisted(store.storage), seq);
    store_run_journal(&store, 0);
    ck_assert_uint_eq(storage_persisted(store.storage), seq);
}
END_TEST

START_TEST(blocks_and_hard_state_come_back)
{
    open_store();
    store.hard_state = (struct storage_hard_state){.term = 3, .vote = 77};
    append(5, 3, 500);
    struct block_base last = ring_last(store.ring);
    store_persist(&store, 1, true);
    store_run_journal(&store, 0);
    reopen();
    ck_assert_uint_eq(store.recovered.hard_state.term, 3);
    ck_assert_uint_eq(store.recovered.hard_state.vote, 77);
    ck_assert_uint_eq(store.recovered.last.index, 5);
    ck_assert_uint_eq(store.recovered.last.crc, last.crc);
    ck_assert_uint_eq(store.recovered.run_count, 1);
    ck_assert_uint_eq(store.recovered.runs[0].term, 3);
    ck_assert_uint_eq(ring_first_index(store.ring), 1);
    append_durable(3, 4, 500); /* and the log goes on behind it */
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 8);
    ck_assert_uint_eq(store.recovered.run_count, 2);
    ck_assert_uint_eq(store.recovered.runs[1].first_index, 6);
}
END_TEST

START_TEST(everything_queued_becomes_one_frame) /* J1: group commit */
{
    open_store();
    struct storage_status before, after;
    storage_status_read(store.storage, &before);
    for (raft_index i = 1; i <= 10; i++) {
        append(1, 1, 64);
        store_persist(&store, i, false);
    }
    store_run_journal(&store, 0);
    storage_status_read(store.storage, &after);
    ck_assert_uint_eq(after.flushes - before.flushes, 1);
    ck_assert_uint_eq(after.blocks - before.blocks, 10);
    ck_assert_uint_eq(storage_persisted(store.storage), store.seq);
}
END_TEST

START_TEST(committed_blocks_move_to_the_log_and_stay_readable)
{
    open_store();
    append_durable(6, 1, 700);
    storage_commit(store.storage, 4);
    ck_assert_uint_eq(storage_stored(store.storage), 0); /* a small amount waits */
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 4);
    struct storage_reader *reader = NULL;
    ck_assert_int_eq(storage_reader_open(store.storage, &reader), 0);
    const uint8_t *block;
    struct block_header header;
    for (raft_index i = 1; i <= 4; i++) {
        ck_assert_int_eq(storage_read(reader, i, &block, &header), 0);
        ck_assert_uint_eq(header.index, i);
    }
    ck_assert_int_eq(storage_read(reader, 5, &block, &header), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(storage_read(reader, 0, &block, &header), LOCKSTEP_EGONE);
    storage_reader_close(reader);
    reopen();
    ck_assert_uint_eq(store.recovered.stored, 4);
    ck_assert_uint_ge(store.recovered.commit, 4);
    ck_assert_uint_eq(store.recovered.last.index, 6);
    ck_assert_uint_eq(ring_first_index(store.ring), 5); /* only what LMDB does not have */
}
END_TEST

START_TEST(block_that_is_not_durable_here_does_not_move)
{
    open_store();
    append(3, 1, 700);
    store_persist(&store, 1, false);
    storage_commit(store.storage, 3); /* two others have it */
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 0);
    store_run_journal(&store, 0);
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 3);
}
END_TEST

START_TEST(truncated_blocks_do_not_come_back) /* T50 */
{
    open_store();
    append_durable(7, 1, 300);
    store_cut(&store, 5);
    append_durable(1, 2, 300); /* 5 of term 2: 5, 6, 7 of term 1 are dead */
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 5);
    ck_assert_uint_eq(store.recovered.last.term, 2);
}
END_TEST

START_TEST(
    truncated_blocks_do_not_come_back_when_the_log_has_the_new_ones) /* T50: the cut is at or below LMDB's last */
{
    open_store();
    append_durable(7, 1, 300);
    store_cut(&store, 5);
    append_durable(1, 2, 300);
    storage_commit(store.storage, 5);
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 5);
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 5);
    ck_assert_uint_eq(store.recovered.stored, 5);
    append_durable(2, 2, 300);
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 7);
    ck_assert_uint_eq(store.recovered.last.term, 2);
}
END_TEST

START_TEST(truncated_blocks_do_not_come_back_from_the_frame_that_cut_them) /* T50: old and new in one frame */
{
    open_store();
    append_durable(4, 1, 300);
    append(3, 1, 300); /* 5, 6, 7 of term 1 ... */
    store_persist(&store, 5, false);
    store_cut(&store, 5);
    append(2, 2, 300); /* ... and 5, 6 of term 2, flushed together */
    store_persist(&store, 5, false);
    store_run_journal(&store, 0);
    storage_commit(store.storage, 5);
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 5); /* Q stays before the frame: 6 is live */
    reopen();
    ck_assert_uint_eq(store.recovered.stored, 5);
    ck_assert_uint_eq(store.recovered.last.index, 6);
    ck_assert_uint_eq(store.recovered.last.term, 2);
}
END_TEST

START_TEST(cut_frames_are_reclaimed) /* J4: every block in the log or dead */
{
    open_store();
    append_durable(7, 1, 300);
    store_cut(&store, 5);
    append_durable(1, 2, 300);
    storage_commit(store.storage, 5);
    store_run_log(&store, 1000000000);
    struct storage_status status;
    storage_status_read(store.storage, &status);
    ck_assert_uint_eq(status.journal_used_bytes, 0);
}
END_TEST

START_TEST(full_journal_refuses_blocks_and_keeps_room_for_what_it_took) /* J5: one small block a frame fills it first */
{
    open_store();
    raft_index count = 0;
    for (; store_append(&store, 1, 100, 1); count++) {
        store_persist(&store, count + 1, false);
        store_run_journal(&store, 0);
        ck_assert_uint_lt(count, 1000);
    }
    struct ring_status ring;
    ring_status_read(store.ring, &ring);
    ck_assert_uint_lt(ring.live_bytes, ring.bytes / 4); /* the journal refused, not the ring */
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, count);
    append_durable(4, 1, 100); /* packed, they take little */
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, count + 4);
}
END_TEST

START_TEST(hard_states_wait_rather_than_overwrite) /* J5: the log thread does not run */
{
    open_store();
    append_durable(2, 1, 100);
    uint64_t durable = 0;
    for (uint64_t term = 2; term < 200; term++) {
        store.hard_state.term = term;
        store_persist(&store, 0, true);
        store_run_journal(&store, 0);
        if (storage_persisted(store.storage) == store.seq) durable = term;
    }
    ck_assert_uint_gt(durable, 30);
    ck_assert_uint_lt(durable, 70); /* pages of the journal */
    ck_assert_int_eq(storage_failed(store.storage, NULL), 0);
    reopen();
    ck_assert_uint_eq(store.recovered.hard_state.term, durable);
    ck_assert_uint_eq(store.recovered.last.index, 2);
}
END_TEST

/* The real disk, but it notes what came before the first read of the journal. */
static struct disk noting_disk;
static struct {
    int flushes, drops, reads;
} noted;

static int noting_flush(struct disk_file *file, bool metadata)
{
    if (noted.reads == 0) noted.flushes++;
    return disk_posix()->flush(file, metadata);
}

static int noting_drop(struct disk_file *file)
{
    ck_assert_int_gt(noted.flushes, 0);
    noted.drops++;
    return disk_posix()->drop_cache(file);
}

static int noting_pread(struct disk_file *file, void *to, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    noted.reads++;
    ck_assert_int_gt(noted.drops, 0);
    return disk_posix()->pread(file, to, bytes, offset, ret_bytes);
}

static int noting_open(void *context, const char *path, int flags, struct disk_file **ret)
{
    int rc = disk_posix()->open(context, path, flags, ret);
    if (rc == 0 && (flags & ~DISK_LOCK) == 0) memset(&noted, 0, sizeof noted); /* a file to read starts anew */
    return rc;
}

START_TEST(nothing_is_read_before_it_was_flushed_and_dropped_from_the_cache) /* J3: the page cache lies */
{
    open_store();
    append_durable(2, 1, 100);
    store_close(&store);
    noting_disk = *disk_posix();
    noting_disk.open = noting_open;
    noting_disk.flush = noting_flush;
    noting_disk.drop_cache = noting_drop;
    noting_disk.pread = noting_pread;
    store.options.disk = &noting_disk;
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 2);
    ck_assert_int_gt(noted.reads, 0);
}
END_TEST

START_TEST(journal_goes_round_many_times)
{
    open_store();
    for (int round = 0; round < 300; round++) {
        append_durable(2, 1, 3000);
        storage_commit(store.storage, ring_last(store.ring).index);
        store_run_log(&store, 1000000000);
        if (round % 37 == 0) {
            struct block_base last = ring_last(store.ring);
            reopen();
            ck_assert_uint_eq(store.recovered.last.crc, last.crc);
        }
    }
    ck_assert_uint_eq(storage_stored(store.storage), 600);
}
END_TEST

START_TEST(full_storage_refuses_and_goes_on_when_the_log_moves)
{
    open_store();
    int count = 0;
    while (store_append(&store, 1, 3000, 1)) {
        store_persist(&store, ring_last(store.ring).index, false);
        store_run_journal(&store, 0);
        count++;
    }
    ck_assert_int_gt(count, 10);
    ck_assert_int_eq(storage_failed(store.storage, NULL), 0);
    storage_commit(store.storage, ring_last(store.ring).index);
    store_run_log(&store, 1000000000);
    append_durable(4, 1, 3000);
}
END_TEST

START_TEST(live_blocks_are_written_again_when_they_hold_the_journal) /* J5 */
{
    open_store();
    append_durable(2, 1, 3000); /* never committed: Q cannot pass them by itself */
    for (uint64_t term = 2; term < 500; term++) {
        store.hard_state.term = term;
        store_persist(&store, 0, true);
        store_run_journal(&store, 0);
        store_run_log(&store, 0);
        ck_assert_uint_eq(storage_persisted(store.storage), store.seq);
    }
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 2);
    ck_assert_uint_eq(store.recovered.hard_state.term, 499);
}
END_TEST

static bool log_woken;

static void note_wake(void *context, enum storage_part part)
{
    (void)context;
    if (part == STORAGE_LOG) log_woken = true;
}

/* Nothing is committed, nothing else is written: a new leader waits for room for its first block. */
START_TEST(refused_block_wakes_the_log_thread_until_there_is_room) /* J5; found by tests/sim: seed 0x30e9b */
{
    store.options.wake = note_wake;
    open_store();
    append_durable(2, 1, 3000);
    while (storage_persist_fits(store.storage, 3000)) {
        store.hard_state.term++;
        store_persist(&store, 0, true);
        store_run_journal(&store, 0);
    }
    for (int turn = 0; turn < 5 && log_woken; turn++) {
        log_woken = false;
        store_run_log(&store, 0);
        store_run_journal(&store, 0);
        (void)storage_persist_fits(store.storage, 3000);
    }
    ck_assert(!log_woken); /* nor does it go round for ever */
    append_durable(1, store.hard_state.term, 3000);
}
END_TEST

START_TEST(live_tail_that_fills_the_journal_is_not_packed_for_ever) /* J5 */
{
    store.options.wake = note_wake;
    open_store();
    while (store_append(&store, 1, 3000, 1)) {
        store_persist(&store, ring_last(store.ring).index, false);
        store_run_journal(&store, 0);
    }
    for (int turn = 0; turn < 10; turn++) {
        log_woken = false;
        store_run_log(&store, 0);
        store_run_journal(&store, 0);
        (void)storage_persist_fits(store.storage, 3000);
    }
    ck_assert(!log_woken);
    struct storage_status status;
    storage_status_read(store.storage, &status);
    ck_assert_uint_le(status.packs, 2);
}
END_TEST

START_TEST(marker_follows_after_an_idle_moment) /* J2 */
{
    open_store();
    store_run_journal(&store, 10000000);
    struct storage_status before, after;
    storage_status_read(store.storage, &before);
    append_durable(1, 1, 64);
    store_run_journal(&store, 999999);
    storage_status_read(store.storage, &after);
    ck_assert_uint_eq(after.frames - before.frames, 1);
    store_run_journal(&store, 2000000);
    store_run_journal(&store, 100000000);
    storage_status_read(store.storage, &after);
    ck_assert_uint_eq(after.frames - before.frames, 2); /* one, not one each ms */
}
END_TEST

START_TEST(ring_made_smaller_than_the_live_tail_names_both_sizes) /* J5 */
{
    store.options.ring_bytes = 4 * 65536;
    store.options.journal_bytes = 16 * 65536;
    open_store();
    append_durable(30, 1, 3000);
    store_close(&store);
    store.options.ring_bytes = 65536;
    ck_assert_int_eq(store_open(&store), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(store.why, "92880 bytes (30 blocks)"));
    ck_assert_ptr_nonnull(strstr(store.why, "the ring has 65536"));
    store.options.ring_bytes = 4 * 65536;
    open_store(); /* untouched */
    ck_assert_uint_eq(store.recovered.last.index, 30);
}
END_TEST

START_TEST(journal_under_four_rings_is_refused) /* J5 */
{
    store.options.journal_bytes = 3 * 65536;
    ck_assert_int_eq(store_open(&store), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(store.why, "smaller than 4 rings"));
}
END_TEST

START_TEST(journal_may_grow_between_starts)
{
    open_store();
    for (int i = 0; i < 20; i++) {
        append_durable(2, 1, 3000);
        storage_commit(store.storage, ring_last(store.ring).index);
        store_run_log(&store, 1000000000);
    }
    append_durable(3, 1, 3000);
    store.options.journal_bytes = 64 * 65536;
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 43);
    append_durable(3, 1, 3000);
    store.options.journal_bytes = 4 * 65536; /* and stays as large as it is */
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 46);
    struct storage_status status;
    storage_status_read(store.storage, &status);
    ck_assert_uint_eq(status.journal_bytes, 64 * 65536);
}
END_TEST

START_TEST(files_of_another_member_are_refused) /* I3 */
{
    open_store();
    append_durable(1, 1, 64);
    store_close(&store);
    store.options.member_id++;
    ck_assert_int_eq(store_open(&store), LOCKSTEP_EFOREIGN);
    ck_assert_ptr_nonnull(strstr(store.why, directory));
    store.options.member_id--;
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 1);
}
END_TEST

static void move_file(const char *from, const char *to)
{
    char from_path[128], to_path[128];
    snprintf(from_path, sizeof from_path, "%s/%s", directory, from);
    snprintf(to_path, sizeof to_path, "%s/%s", directory, to);
    ck_assert_int_eq(rename(from_path, to_path), 0);
}

START_TEST(lost_file_is_named_and_nothing_takes_its_place) /* I3: wiped */
{
    static const char *const files[] = {"data.mdb", "journal"};
    open_store();
    append_durable(2, 1, 64);
    store_close(&store);
    for (size_t i = 0; i < 2; i++) {
        move_file(files[i], "kept");
        ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
        ck_assert_msg(strstr(store.why, files[i]) != NULL, "%s", store.why);
        ck_assert_msg(strstr(store.why, "member replace") != NULL, "%s", store.why);
        char path[128];
        snprintf(path, sizeof path, "%s/%s", directory, files[i]);
        ck_assert_int_ne(access(path, F_OK), 0);
        move_file("kept", files[i]);
    }
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 2);
}
END_TEST

START_TEST(
    without_its_boot_counter_a_directory_is_new_or_lost) /* I3, J3: a first start writes `boot` before all others */
{
    static const char *const others[][2] = {{"data.mdb", "journal"}, {"journal", "data.mdb"}};
    char elsewhere[128], command[512];
    open_store();
    append_durable(2, 1, 64);
    store_close(&store);
    move_file("boot", "kept");
    for (size_t i = 0; i < 2; i++) {
        move_file(others[i][1], "kept too");
        ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
        ck_assert_msg(strstr(store.why, "'boot' is gone") != NULL, "%s", store.why);
        ck_assert_msg(strstr(store.why, others[i][0]) != NULL, "%s", store.why);
        ck_assert_msg(strstr(store.why, "member replace") != NULL, "%s", store.why);
        move_file("kept too", others[i][1]);
    }
    move_file("kept", "boot");
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 2);
    store_close(&store);
    /* A journal that somebody has in the folder that is named for this one's. */
    snprintf(elsewhere, sizeof elsewhere, "%s/of-another", directory);
    snprintf(command, sizeof command, "mkdir %s && mv %s/journal %s/ && rm %s/boot %s/data.mdb", elsewhere, directory,
             elsewhere, directory, directory);
    ck_assert_int_eq(system(command), 0);
    store.options.journal_directory = elsewhere;
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
    ck_assert_msg(strstr(store.why, elsewhere) != NULL && strstr(store.why, "journal_dir") != NULL, "%s", store.why);
    snprintf(command, sizeof command, "rm -r %s", elsewhere);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

static char flushed_directories[1024];

static int note_flush_directory(void *context, const char *path)
{
    size_t used = strlen(flushed_directories);
    snprintf(flushed_directories + used, sizeof flushed_directories - used, "%s ", path);
    return disk_posix()->flush_directory(context, path);
}

START_TEST(name_of_a_journals_own_folder_is_durable_before_anything_is_promised) /* J3, I1 */
{
    char elsewhere[128], above[160];
    struct disk disk = *disk_posix();
    disk.flush_directory = note_flush_directory;
    snprintf(elsewhere, sizeof elsewhere, "%s/fast", directory);
    snprintf(above, sizeof above, "%s/.. ", elsewhere);
    ck_assert_int_eq(mkdir(elsewhere, 0700), 0);
    store.options.journal_directory = elsewhere;
    store.options.disk = &disk;
    flushed_directories[0] = 0;
    open_store();
    ck_assert_msg(strstr(flushed_directories, above) != NULL, "%s", flushed_directories);
    store_close(&store);
    char command[512];
    snprintf(command, sizeof command, "rm -r %s", elsewhere);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(old_copy_of_one_file_beside_newer_ones_is_refused) /* I3: copied */
{
    open_store();
    append_durable(2, 1, 64);
    store_close(&store);
    char command[512];
    snprintf(command, sizeof command, "cp %s/boot %s/old", directory, directory);
    ck_assert_int_eq(system(command), 0);
    open_store();
    store_close(&store);
    move_file("old", "boot");
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(store.why, "different times"));
}
END_TEST

START_TEST(truncated_map_is_named_not_a_signal)
{
    open_store();
    append_durable(2, 1, 3000);
    storage_commit(store.storage, 2);
    store_run_log(&store, 1000000000);
    store_close(&store);
    char path[128];
    snprintf(path, sizeof path, "%s/data.mdb", directory);
    static const off_t sizes[] = {20000, 8192, 4096, 100, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ck_assert_int_eq(truncate(path, sizes[i]), 0);
        ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
        ck_assert_ptr_nonnull(strstr(store.why, "data.mdb"));
    }
}
END_TEST

START_TEST(damaged_block_in_the_map_is_found_and_named) /* libraries find no damage: every block is checked when read */
{
    open_store();
    append_durable(3, 1, 3000);
    storage_commit(store.storage, 3);
    store_run_log(&store, 1000000000);
    char path[128];
    snprintf(path, sizeof path, "%s/data.mdb", directory);
    int fd = open(path, O_RDWR);
    static uint8_t bytes[1 << 22];
    ssize_t count = pread(fd, bytes, sizeof bytes, 0);
    int flipped = 0;
    for (ssize_t at = 0; at + 64 < count; at++) { /* block 2's body, wherever it lies */
        struct block_header header;
        if (block_header_read(bytes + at, (size_t)(count - at), &header) != 0 || header.index != 2) continue;
        uint8_t flip = bytes[at + 1000] ^ 4;
        ck_assert_int_eq(pwrite(fd, &flip, 1, at + 1000), 1);
        flipped++;
    }
    close(fd);
    ck_assert_int_gt(flipped, 0);
    struct storage_reader *reader = NULL;
    const uint8_t *block;
    struct block_header header;
    ck_assert_int_eq(storage_reader_open(store.storage, &reader), 0);
    ck_assert_int_eq(storage_read(reader, 1, &block, &header), 0);
    ck_assert_int_eq(storage_read(reader, 2, &block, &header), LOCKSTEP_ECORRUPT);
    ck_assert_int_eq(storage_read(reader, 3, &block, &header), 0);
    storage_reader_close(reader);
}
END_TEST

START_TEST(flipped_bit_in_the_age_of_the_map_takes_nothing_back) /* J3, T54: the older meta page counts then */
{
    enum { PAGE_BYTES = 4096, AGE_AT = 144, BIT = 2 /* any other one is found by itself */ };
    char path[128];
    snprintf(path, sizeof path, "%s/data.mdb", directory);
    int taken = 0;
    for (int round = 0; round < 8; round++) {
        open_store();
        if (round % 3 == 0) { /* another transaction */
            storage_commit(store.storage, store.recovered.last.index);
            store_run_log(&store, 1000000000);
        }
        append_durable(1, 1, 100);
        store_close(&store);
        raft_index last = (raft_index)round + 1;
        off_t at = AGE_AT + round % 2 * PAGE_BYTES;
        uint8_t age, flipped;
        int fd = open(path, O_RDWR);
        ck_assert_int_eq(pread(fd, &age, 1, at), 1);
        flipped = age ^ BIT;
        ck_assert_int_eq(pwrite(fd, &flipped, 1, at), 1);
        int rc = store_open(&store);
        if (rc == 0) {
            ck_assert_uint_eq(store.recovered.last.index, last);
            taken++;
        } else {
            ck_assert_int_eq(rc, LOCKSTEP_ECORRUPT);
            ck_assert_int_eq(pwrite(fd, &age, 1, at), 1);
        }
        close(fd);
        store_close(&store);
    }
    ck_assert_int_gt(taken, 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, new_directory_is_born_empty);
    tcase_add_test(tests, nothing_is_durable_before_the_flush);
    tcase_add_test(tests, blocks_and_hard_state_come_back);
    tcase_add_test(tests, everything_queued_becomes_one_frame);
    tcase_add_test(tests, committed_blocks_move_to_the_log_and_stay_readable);
    tcase_add_test(tests, block_that_is_not_durable_here_does_not_move);
    tcase_add_test(tests, truncated_blocks_do_not_come_back);
    tcase_add_test(tests, truncated_blocks_do_not_come_back_when_the_log_has_the_new_ones);
    tcase_add_test(tests, truncated_blocks_do_not_come_back_from_the_frame_that_cut_them);
    tcase_add_test(tests, cut_frames_are_reclaimed);
    tcase_add_test(tests, full_journal_refuses_blocks_and_keeps_room_for_what_it_took);
    tcase_add_test(tests, hard_states_wait_rather_than_overwrite);
    tcase_add_test(tests, nothing_is_read_before_it_was_flushed_and_dropped_from_the_cache);
    tcase_add_test(tests, journal_goes_round_many_times);
    tcase_add_test(tests, full_storage_refuses_and_goes_on_when_the_log_moves);
    tcase_add_test(tests, live_blocks_are_written_again_when_they_hold_the_journal);
    tcase_add_test(tests, refused_block_wakes_the_log_thread_until_there_is_room);
    tcase_add_test(tests, live_tail_that_fills_the_journal_is_not_packed_for_ever);
    tcase_add_test(tests, marker_follows_after_an_idle_moment);
    tcase_add_test(tests, ring_made_smaller_than_the_live_tail_names_both_sizes);
    tcase_add_test(tests, journal_under_four_rings_is_refused);
    tcase_add_test(tests, journal_may_grow_between_starts);
    tcase_add_test(tests, files_of_another_member_are_refused);
    tcase_add_test(tests, lost_file_is_named_and_nothing_takes_its_place);
    tcase_add_test(tests, without_its_boot_counter_a_directory_is_new_or_lost);
    tcase_add_test(tests, name_of_a_journals_own_folder_is_durable_before_anything_is_promised);
    tcase_add_test(tests, old_copy_of_one_file_beside_newer_ones_is_refused);
    tcase_add_test(tests, truncated_map_is_named_not_a_signal);
    tcase_add_test(tests, damaged_block_in_the_map_is_found_and_named);
    tcase_add_test(tests, flipped_bit_in_the_age_of_the_map_takes_nothing_back);
}

int main(void)
{
    return unit_main("storage", add);
}
