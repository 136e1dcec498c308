/* SPDX-License-Identifier: Apache-2.0 */
/* test_damage.c - damage on the disk: found, named, never served as good; and told from a torn tail (J2, T53, T54). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "storage/frame.h"
#include "storage/state.h"
#include "storage/table.h"
#include "tests/support/archive.h"
#include "tests/support/blocks.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

static struct sim_disk *disk;
static struct sim_kv *kv;
static struct store store;

static void setup(void)
{
    disk = sim_disk_open(1);
    kv = sim_kv_open(disk);
    store_options(&store, "d", sim_disk(disk), sim_kv(kv));
}

static void teardown(void)
{
    archive_forget();
    store_close(&store);
    sim_kv_close(kv);
    sim_disk_close(disk);
}

static void open_store(void)
{
    int rc = store_open(&store);
    ck_assert_msg(rc == 0, "%d %s", rc, store.why);
}

static void append_durable(int count, raft_term term, uint32_t payload_bytes)
{
    raft_index first = ring_last(store.ring).index + 1;
    for (int i = 0; i < count; i++) ck_assert(store_append(&store, term, payload_bytes, 7));
    store_persist(&store, first, false);
    store_run_journal(&store, 0);
}

static void term_durable(raft_term term, raft_member vote)
{
    store.hard_state = (struct storage_hard_state){.term = term, .vote = vote};
    store_persist(&store, 0, true);
    store_run_journal(&store, 0);
}

static uint8_t *journal_bytes(uint64_t *ret_bytes)
{
    uint8_t *bytes = sim_disk_bytes(disk, "d/journal", ret_bytes);
    ck_assert_ptr_nonnull(bytes);
    return bytes;
}

/* The n-th frame from the file's beginning (0 = the first one of the first boot). */
static uint64_t frame_at(int n, struct frame_header *ret)
{
    uint64_t bytes, at = FRAME_PAGE_BYTES;
    const uint8_t *file = journal_bytes(&bytes);
    for (;; n--) {
        ck_assert_int_eq(frame_header_read(file + at, (size_t)(bytes - at), ret), 0);
        if (n == 0) return at;
        at += frame_bytes(ret);
    }
}

static void flip(uint64_t at, unsigned bit)
{
    uint64_t bytes;
    journal_bytes(&bytes)[at] ^= (uint8_t)(1u << bit);
}

static void expect_refused(int rc, const char *with)
{
    uint64_t writes = sim_disk_writes(disk);
    int got = store_open(&store);
    ck_assert_msg(got == rc, "%d %s", got, store.why);
    ck_assert_msg(strstr(store.why, with) != NULL, "%s", store.why);
    ck_assert_msg(sim_disk_writes(disk) == writes, "something was written");
}

START_TEST(last_frame_that_nobody_saw_flushed_is_a_torn_tail) /* J2 */
{
    struct frame_header header;
    open_store();
    append_durable(2, 1, 100);
    append_durable(1, 1, 100);
    store_close(&store);
    flip(frame_at(2, &header) + 300, 1); /* in a block; no marker behind it */
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 2);
}
END_TEST

START_TEST(same_frame_is_damage_once_a_marker_says_it_was_flushed) /* J2 */
{
    struct frame_header header;
    open_store();
    append_durable(2, 1, 100);
    append_durable(1, 1, 100);
    store_run_journal(&store, 5000000);
    store_close(&store);
    flip(frame_at(2, &header) + 300, 1);
    expect_refused(LOCKSTEP_ECORRUPT, "block 3 ");
    flip(frame_at(2, &header) + 300, 1);
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 3);
}
END_TEST

START_TEST(same_frame_is_damage_once_the_next_one_was_written) /* J2 */
{
    struct frame_header header;
    open_store();
    append_durable(2, 1, 100);
    append_durable(3, 1, 100);
    append_durable(1, 1, 100);
    store_close(&store);
    uint64_t at = frame_at(2, &header);
    flip(at + header.header_bytes + 200 + BLOCK_HEADER_BYTES, 1); /* in the second block of 3, 4, 5 */
    expect_refused(LOCKSTEP_ECORRUPT, "block 4 (of those up to 5)");
}
END_TEST

START_TEST(frames_of_a_start_are_damage_since_the_log_knows_they_were_flushed) /* J2, J3 */
{
    open_store();
    append_durable(3, 1, 100);
    store_close(&store);
    open_store(); /* writes 1 to 3 again; no marker follows */
    store_close(&store);
    struct frame_header header;
    flip(frame_at(2, &header) + 300, 1);
    expect_refused(LOCKSTEP_ECORRUPT, "block 1 ");
}
END_TEST

START_TEST(frame_with_a_lost_header_is_named_by_the_next_one) /* J1: repeats */
{
    struct frame_header header;
    open_store();
    append_durable(2, 1, 100);
    append_durable(3, 1, 100);
    append_durable(1, 1, 100);
    store_close(&store);
    flip(frame_at(2, &header) + 20, 0);
    expect_refused(LOCKSTEP_ECORRUPT, "block 3 (of those up to 5)");
}
END_TEST

START_TEST(one_damaged_frame_loses_no_vote) /* J1 */
{
    struct frame_header header;
    open_store();
    append_durable(1, 1, 100);
    storage_commit(store.storage, 1);
    store_run_log(&store, 1000000000);
    term_durable(5, 77); /* its frame will be lost */
    store_run_journal(&store, 5000000);
    store_close(&store);
    flip(frame_at(2, &header) + 100, 3);
    open_store(); /* the marker repeats what it said */
    ck_assert_uint_eq(store.recovered.hard_state.term, 5);
    ck_assert_uint_eq(store.recovered.hard_state.vote, 77);
    ck_assert_uint_eq(store.recovered.last.index, 1);
}
END_TEST

START_TEST(two_damaged_frames_in_a_row_are_refused) /* J1: I3 */
{
    struct frame_header header;
    open_store();
    append_durable(1, 1, 100);
    term_durable(5, 77);
    term_durable(6, 78);
    term_durable(7, 79);
    store_close(&store);
    uint64_t first = frame_at(2, &header), second = frame_at(3, &header);
    flip(first + 100, 3);
    flip(second + 100, 3);
    expect_refused(LOCKSTEP_ECORRUPT, "votes may be lost");
}
END_TEST

START_TEST(damage_in_a_block_that_the_log_holds_is_passed) /* J2: except for blocks that LMDB holds */
{
    struct frame_header header;
    open_store();
    append_durable(4, 1, 100); /* one frame: 1 to 4; Q cannot pass it before all are stored */
    storage_commit(store.storage, 3);
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 3);
    store_run_journal(&store, 5000000);
    store_close(&store);
    uint64_t at = frame_at(1, &header) + header.header_bytes;
    flip(at + 200 + 70, 1); /* block 2's body */
    flip(at + 400 + 5, 1);  /* block 3's header */
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 4);
    ck_assert_uint_eq(store.recovered.stored, 3);
}
END_TEST

START_TEST(damage_in_a_live_block_beside_stored_ones_is_named)
{
    struct frame_header header;
    open_store();
    append_durable(4, 1, 100);
    storage_commit(store.storage, 3);
    store_run_log(&store, 1000000000);
    store_run_journal(&store, 5000000);
    store_close(&store);
    flip(frame_at(1, &header) + header.header_bytes + 600 + 70, 1);
    expect_refused(LOCKSTEP_ECORRUPT, "block 4 ");
}
END_TEST

START_TEST(first_page_of_the_journal_is_checked)
{
    open_store();
    append_durable(1, 1, 100);
    store_close(&store);
    for (uint64_t at = 0; at < FRAME_PAGE_BYTES; at += at < 64 ? 1 : 61) {
        flip(at, at % 8);
        expect_refused(LOCKSTEP_ECORRUPT, "first page of its journal");
        flip(at, at % 8);
    }
    open_store();
}
END_TEST

START_TEST(journal_of_another_directory_is_refused) /* I3 */
{
    open_store();
    store_close(&store);
    uint64_t bytes;
    uint8_t *journal = journal_bytes(&bytes), *other = malloc(FRAME_PAGE_BYTES);
    struct sim_disk *second_disk = sim_disk_open(2);
    struct sim_kv *second_kv = sim_kv_open(second_disk);
    struct store second;
    store_options(&second, "d", sim_disk(second_disk), sim_kv(second_kv));
    second.options.random_id++;
    ck_assert_int_eq(store_open(&second), 0);
    store_close(&second);
    memcpy(other, sim_disk_bytes(second_disk, "d/journal", &bytes), FRAME_PAGE_BYTES);
    sim_kv_close(second_kv);
    sim_disk_close(second_disk);
    memcpy(journal, other, FRAME_PAGE_BYTES);
    free(other);
    expect_refused(LOCKSTEP_EFOREIGN, "belongs to another directory");
}
END_TEST

static void flip_value(uint32_t table, uint64_t key, size_t at)
{
    size_t bytes = 0;
    uint8_t *value = sim_kv_value(kv, table, key, &bytes);
    ck_assert_ptr_nonnull(value);
    ck_assert_uint_lt(at, bytes);
    value[at] ^= 0x10;
}

START_TEST(damaged_state_record_is_refused) /* I3: damaged hard state = wiped */
{
    size_t bytes = 0;
    open_store();
    append_durable(3, 1, 100);
    store_close(&store);
    ck_assert_ptr_nonnull(sim_kv_value(kv, TABLE_STATE, 1, &bytes));
    for (size_t at = 0; at < bytes; at++) {
        flip_value(TABLE_STATE, 1, at);
        expect_refused(LOCKSTEP_ECORRUPT, "state record");
        flip_value(TABLE_STATE, 1, at);
    }
    open_store();
}
END_TEST

START_TEST(damaged_last_block_of_the_log_is_named)
{
    open_store();
    append_durable(3, 1, 100);
    storage_commit(store.storage, 3);
    store_run_log(&store, 1000000000);
    store_close(&store);
    for (size_t at = 0; at < 200; at++) {
        flip_value(TABLE_BLOCKS, 3, at);
        expect_refused(LOCKSTEP_ECORRUPT, "block 3 ");
        flip_value(TABLE_BLOCKS, 3, at);
    }
    open_store();
}
END_TEST

START_TEST(block_that_the_log_should_not_have_is_refused)
{
    struct kv_map *map = NULL;
    struct kv_txn *txn = NULL;
    open_store();
    append_durable(3, 1, 100);
    storage_commit(store.storage, 3);
    store_run_log(&store, 1000000000);
    store_close(&store);
    const struct kv *door = sim_kv(kv);
    ck_assert_int_eq(door->open(door->context, "d", false, 1 << 20, TABLES, &map, store.why, sizeof store.why), 0);
    ck_assert_int_eq(door->begin_write(map, &txn), 0);
    ck_assert_int_eq(door->put(txn, TABLE_BLOCKS, 5, "x", 1), 0);
    ck_assert_int_eq(door->commit(txn), 0);
    door->close(map);
    expect_refused(LOCKSTEP_ECORRUPT, "block 3 ");
}
END_TEST

START_TEST(damaged_term_run_is_refused)
{
    open_store();
    append_durable(3, 1, 100);
    storage_commit(store.storage, 3);
    store_run_log(&store, 1000000000);
    store_close(&store);
    for (size_t at = 0; at < 16; at++) {
        flip_value(TABLE_RUNS, 1, at);
        expect_refused(LOCKSTEP_ECORRUPT, "terms of the log");
        flip_value(TABLE_RUNS, 1, at);
    }
    open_store();
}
END_TEST

START_TEST(no_flipped_bit_in_the_journal_is_served_as_good_and_others_repair_it) /* T54, J7 */
{
    struct frame_header header;
    uint64_t refused = 0, repaired = 0, harmless = 0;
    int step = getenv("LOCKSTEP_SHORT") != NULL ? 29 : 1;
    for (int n = 0; n < 5; n++) { /* the boot's own frame, three with content, the marker */
        for (uint64_t bit = 0;; bit += (uint64_t)step) {
            open_store();
            append_durable(2, 1, 40);
            term_durable(4, 9);
            append_durable(1, 4, 40);
            store_run_journal(&store, 5000000);
            struct block_base last = ring_last(store.ring);
            archive_ring(&store, 1);
            store_close(&store);
            uint64_t at = frame_at(n, &header);
            if (bit >= ((uint64_t)header.header_bytes + header.blocks_bytes) * 8) break;
            flip(at + bit / 8, bit % 8);
            uint32_t asked;
            int rc = archive_open(&store, &asked);
            if (rc != 0) {
                ck_assert_msg(rc == LOCKSTEP_ECORRUPT, "frame %d bit %lu: %d %s", n, (unsigned long)bit, rc, store.why);
                ck_assert_ptr_nonnull(strstr(store.why, "damaged"));
                refused++;
            } else {
                ck_assert_uint_eq(store.recovered.last.crc, last.crc);
                ck_assert_uint_eq(store.recovered.hard_state.term, 4);
                ck_assert_uint_eq(store.recovered.hard_state.vote, 9);
                repaired += asked != 0;
                harmless += asked == 0;
            }
            teardown();
            setup();
        }
        teardown();
        setup();
    }
    printf("refused %" PRIu64 ", repaired %" PRIu64 ", harmless %" PRIu64 "\n", refused, repaired, harmless);
    ck_assert_uint_eq(refused, 0); /* one frame loses no vote, and its blocks can be named */
    ck_assert_uint_gt(repaired, 0);
    ck_assert_uint_gt(harmless, 0); /* a marker, and the frame without content */
}
END_TEST

/* Blocks, votes, cuts, commits, packs at random; all of it flushed, and known to be. False: a cut found no room for what
 * was to follow it, and no node does that. */
static bool random_history(struct random *dice)
{
    raft_index commit = 0;
    uint64_t turns = 5 + random_below(dice, 40);
    for (uint64_t turn = 0; turn < turns; turn++) {
        raft_index last = ring_last(store.ring).index, first = last + 1;
        bool term = random_chance(dice, 1, 4), vote = random_chance(dice, 1, 4);
        if (term || vote) {
            store.hard_state.term += term;
            store.hard_state.vote = term ? random_below(dice, 2) * 9 : 9;
        }
        if (term && last > commit && random_chance(dice, 1, 2)) {
            first = commit + 1 + random_below(dice, last - commit);
            store_cut(&store, first);
        }
        bool any = false;
        for (uint64_t n = 1 + random_below(dice, 4); n > 0 && store.hard_state.term > 0; n--)
            any |= store_append(&store, store.hard_state.term, 20 + (uint32_t)random_below(dice, 2500), turn);
        if (any) archive_ring(&store, first);
        if (any || term || vote) store_persist(&store, any ? first : 0, term || vote);
        if (!any && first <= last) return false;
        if (random_chance(dice, 1, 3)) continue; /* one frame with the next turn's */
        store_run_journal(&store, random_chance(dice, 1, 3) ? 5000000 : 0);
        last = ring_last(store.ring).index;
        if (last > commit && random_chance(dice, 1, 3)) commit += 1 + random_below(dice, last - commit);
        if (commit > 0) storage_commit(store.storage, commit);
        if (random_chance(dice, 1, 3)) store_run_log(&store, 200000000);
    }
    store_run_journal(&store, 5000000);
    return storage_persisted(store.storage) == store.seq; /* the journal may be full */
}

/* One place of the journal, or one block of the log. */
static void random_damage(struct random *dice, uint64_t journal_end)
{
    size_t count = 0;
    raft_index stored = store.recovered.stored;
    if (stored > 0 && random_chance(dice, 1, 3)) {
        raft_index index = 1 + random_below(dice, stored);
        uint8_t *value = sim_kv_value(kv, TABLE_BLOCKS, index, &count);
        if (value != NULL) value[random_below(dice, count)] ^= (uint8_t)(1u << random_below(dice, 8));
        return;
    }
    uint64_t bytes, at = FRAME_PAGE_BYTES + random_below(dice, journal_end - FRAME_PAGE_BYTES);
    uint8_t *file = journal_bytes(&bytes);
    uint64_t length = random_chance(dice, 1, 2) ? 1 : 512;
    if (length > 1) at &= ~UINT64_C(511);
    for (uint64_t k = 0; k < length; k++) file[at + k] ^= (uint8_t)(1 + random_below(dice, 255));
}

START_TEST(damage_anywhere_is_harmless_repaired_or_refused) /* T53, T54, J7 */
{
    uint64_t seed = unit_seed(0xda3a6e), refused = 0, repaired = 0, harmless = 0;
    for (uint64_t round = 0; round < unit_rounds(400); round++) {
        struct random dice;
        random_seed(&dice, seed + round);
        open_store();
        if (!random_history(&dice)) {
            teardown();
            setup();
            continue;
        }
        struct storage_status status;
        storage_status_read(store.storage, &status);
        struct block_base last = ring_last(store.ring);
        struct storage_hard_state hard_state = store.hard_state;
        store.recovered.stored = status.stored;
        uint64_t journal_end = store.storage->journal.last.offset;
        store_close(&store);
        random_damage(&dice, journal_end);
        uint32_t asked;
        int rc = archive_open(&store, &asked);
        if (rc != 0) {
            ck_assert_msg(rc == LOCKSTEP_ECORRUPT, "round %lu: %d %s", (unsigned long)round, rc, store.why);
            refused++;
        } else {
            ck_assert_msg(store.recovered.last.index == last.index && store.recovered.last.crc == last.crc,
                          "round %lu: block %lu, not %lu", (unsigned long)round,
                          (unsigned long)store.recovered.last.index, (unsigned long)last.index);
            ck_assert_uint_eq(store.recovered.hard_state.term, hard_state.term);
            ck_assert_uint_eq(store.recovered.hard_state.vote, hard_state.vote);
            repaired += asked != 0;
            harmless += asked == 0;
            store_close(&store); /* and nothing is missing any more */
            ck_assert_int_eq(archive_open(&store, &asked), 0);
            ck_assert_uint_eq(asked, 0);
            ck_assert_uint_eq(store.recovered.last.crc, last.crc);
        }
        teardown();
        setup();
    }
    printf("refused %" PRIu64 ", repaired %" PRIu64 ", harmless %" PRIu64 "\n", refused, repaired, harmless);
    ck_assert_uint_gt(repaired, 0);
}
END_TEST

/* Hard states over live blocks, until the log thread asks for those once more. */
static void fill_until_pack_is_wanted(void)
{
    struct storage_status status;
    do {
        store.hard_state.term++;
        store_persist(&store, 0, true);
        store_run_journal(&store, 0);
        storage_status_read(store.storage, &status);
        ck_assert_uint_lt(store.hard_state.term, 200);
    } while (status.journal_used_bytes < status.journal_bytes / 2 + 2 * FRAME_PAGE_BYTES &&
             storage_persisted(store.storage) == store.seq);
    while (storage_log_work(store.storage, store.now_ns) == 0) {
    } /* Q first passes what it can */
}

START_TEST(half_a_pack_takes_nothing_away) /* J5, J4: a block that is held already cuts nothing, also in the log */
{
    for (uint64_t operations = 0; operations < 10; operations++) { /* the pack's frames, and what is queued before it */
        open_store();
        store.hard_state.term = 1;
        append_durable(3, 1, 3000);
        append_durable(6, 1, 3000); /* together more than a frame holds */
        for (struct storage_status status = {0}; status.packs == 0; storage_status_read(store.storage, &status)) {
            fill_until_pack_is_wanted();
            storage_reclaim(store.storage); /* the pack is queued: 1 to 9 */
        }
        storage_commit(store.storage, 3);
        store_run_log(&store, 1000000000);
        ck_assert_uint_eq(storage_stored(store.storage), 3); /* meanwhile */
        sim_disk_power_cut_after(disk, operations);
        store_run_journal(&store, 0);
        store_close(&store);
        if (sim_disk_powered(disk)) sim_disk_power_cut(disk);
        sim_disk_power_on(disk);
        open_store();
        ck_assert_uint_eq(store.recovered.last.index, 9);
        ck_assert_uint_eq(store.recovered.stored, 3);
        teardown();
        setup();
    }
}
END_TEST

START_TEST(pack_makes_durable_what_was_published_again) /* R10 and J5 together */
{
    open_store();
    store.hard_state.term = 1;
    append_durable(4, 1, 1000);
    ring_epoch_begin(store.ring);
    ck_assert_int_eq(ring_republish(store.ring, 1), 0);
    ring_epoch_end(store.ring, 1, false);
    fill_until_pack_is_wanted();
    storage_reclaim(store.storage);
    store_run_journal(&store, 0);
    storage_commit(store.storage, 4);
    store_run_log(&store, 1000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 4);
}
END_TEST

START_TEST(pack_waits_for_the_end_of_a_turn)
{
    struct storage_status before, after;
    open_store();
    store.hard_state.term = 1;
    append_durable(4, 1, 1000);
    fill_until_pack_is_wanted();
    storage_status_read(store.storage, &before);
    store.hard_state.term++;
    store_cut(&store, 3);
    ck_assert(store_append(&store, store.hard_state.term, 1000, 8)); /* published, not submitted */
    ck_assert(store_append(&store, store.hard_state.term, 1000, 8));
    storage_reclaim(store.storage);
    storage_status_read(store.storage, &after);
    ck_assert_uint_eq(after.packs, before.packs);
    store_persist(&store, 3, true);
    (void)storage_log_work(store.storage, store.now_ns);
    storage_reclaim(store.storage);
    storage_status_read(store.storage, &after);
    ck_assert_uint_eq(after.packs, before.packs + 1);
}
END_TEST

START_TEST(failed_flush_is_final) /* R8, T52 */
{
    open_store();
    append_durable(1, 1, 100);
    sim_disk_fail_flush_after(disk, 0);
    ck_assert(store_append(&store, 1, 100, 1));
    uint64_t seq = store_persist(&store, 2, false);
    store_run_journal(&store, 0);
    const char *why = NULL;
    ck_assert_int_eq(storage_failed(store.storage, &why), LOCKSTEP_EIO);
    ck_assert_ptr_nonnull(strstr(why, "journal"));
    ck_assert_uint_lt(storage_persisted(store.storage), seq);
    sim_disk_fail_flush_after(disk, UINT64_MAX); /* the disk seems well again: nothing is retried */
    store_run_journal(&store, 10000000);
    ck_assert_uint_lt(storage_persisted(store.storage), seq);
}
END_TEST

START_TEST(space_of_the_journal_is_taken_at_the_start) /* J8, T55 */
{
    store.options.journal_bytes = 4 << 20;
    sim_disk_capacity(disk, 4 << 20);
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ENOSPC);
    ck_assert_msg(strstr(store.why, "a journal of 4194304 bytes") != NULL, "%s", store.why);
    sim_disk_capacity(disk, UINT64_MAX);
    open_store();
    sim_disk_capacity(disk, 0); /* others fill the disk: promises go on, lap after lap */
    for (int i = 0; i < 5000; i++) {
        store.hard_state.term++;
        uint64_t seq = store_persist(&store, 0, true);
        store_run_journal(&store, 0);
        store_run_log(&store, 0);
        ck_assert_uint_eq(storage_persisted(store.storage), seq);
    }
    ck_assert_int_eq(storage_failed(store.storage, NULL), 0);
}
END_TEST

START_TEST(
    full_disk_under_the_journal_is_final) /* R8, T55: where a file system takes no space ahead of what is written */
{
    store.options.journal_bytes = 16 << 20;
    sim_disk_cannot_reserve(disk);
    open_store();
    sim_disk_capacity(disk, 3 << 20);
    for (int i = 0; i < 5000 && storage_failed(store.storage, NULL) == 0; i++) {
        store.hard_state.term++;
        uint64_t seq = store_persist(&store, 0, true);
        store_run_journal(&store, 0);
        ck_assert(storage_failed(store.storage, NULL) != 0 || storage_persisted(store.storage) == seq);
    }
    ck_assert_int_eq(storage_failed(store.storage, NULL), LOCKSTEP_ENOSPC);
    store_close(&store);
    sim_disk_capacity(disk, UINT64_MAX);
    open_store(); /* what was promised before is there */
    ck_assert_uint_ge(store.recovered.hard_state.term + 1, store.hard_state.term);
}
END_TEST

START_TEST(full_map_stops_the_log_and_nothing_else) /* R8: only growing data.mdb may run out of space */
{
    open_store();
    append_durable(2, 1, 3000);
    sim_kv_capacity(kv, 0);
    storage_commit(store.storage, 2);
    store_run_log(&store, 1000000000);
    struct storage_status status;
    storage_status_read(store.storage, &status);
    ck_assert(status.log_stalled);
    ck_assert_int_eq(storage_failed(store.storage, NULL), 0);
    append_durable(1, 1, 3000); /* goes on while there is room */
    while (store_append(&store, 1, 3000, 1)) {
        store_persist(&store, ring_last(store.ring).index, false);
        store_run_journal(&store, 0);
    }
    ck_assert_uint_eq(storage_stored(store.storage), 0);
    sim_kv_capacity(kv, UINT64_MAX);
    store_run_log(&store, 3000000000);
    ck_assert_uint_eq(storage_stored(store.storage), 2);
    storage_status_read(store.storage, &status);
    ck_assert(!status.log_stalled);
}
END_TEST

START_TEST(frame_that_cuts_what_it_holds_may_be_the_first_one_read) /* J4 */
{
    open_store();
    term_durable(1, 9);
    append_durable(3, 1, 100);
    storage_commit(store.storage, 3);
    store_run_log(&store, 1000000000);
    append_durable(3, 1, 100); /* 4 to 6 */
    ck_assert(store_append(&store, 1, 100, 7));
    store_persist(&store, 7, false);
    store_cut(&store, 4);
    for (int i = 0; i < 3; i++) ck_assert(store_append(&store, 2, 100, 8));
    store.hard_state.term = 2;
    store_persist(&store, 4, true);
    store_run_journal(&store, 5000000); /* one frame: 7, then 4 to 6 of another term */
    storage_commit(store.storage, 4);
    store_run_log(&store, 1000000000); /* Q passes the frame that 7 followed */
    struct block_base last = ring_last(store.ring);
    store_close(&store);
    open_store();
    ck_assert_uint_eq(store.recovered.last.crc, last.crc);
}
END_TEST

START_TEST(what_a_shorter_log_cut_does_not_come_back) /* J4, T50 */
{
    open_store();
    term_durable(1, 9);
    append_durable(6, 1, 100);
    store_cut(&store, 4);
    ck_assert(store_append(&store, 2, 100, 8));
    store.hard_state.term = 2;
    store_persist(&store, 4, true);
    store_run_journal(&store, 0);
    struct block_base last = ring_last(store.ring);
    store_close(&store);
    open_store();
    ck_assert_uint_eq(store.recovered.last.index, 4);
    ck_assert_uint_eq(store.recovered.last.crc, last.crc);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, frame_that_cuts_what_it_holds_may_be_the_first_one_read);
    tcase_add_test(tests, what_a_shorter_log_cut_does_not_come_back);
    tcase_add_test(tests, last_frame_that_nobody_saw_flushed_is_a_torn_tail);
    tcase_add_test(tests, same_frame_is_damage_once_a_marker_says_it_was_flushed);
    tcase_add_test(tests, same_frame_is_damage_once_the_next_one_was_written);
    tcase_add_test(tests, frames_of_a_start_are_damage_since_the_log_knows_they_were_flushed);
    tcase_add_test(tests, frame_with_a_lost_header_is_named_by_the_next_one);
    tcase_add_test(tests, one_damaged_frame_loses_no_vote);
    tcase_add_test(tests, two_damaged_frames_in_a_row_are_refused);
    tcase_add_test(tests, damage_in_a_block_that_the_log_holds_is_passed);
    tcase_add_test(tests, damage_in_a_live_block_beside_stored_ones_is_named);
    tcase_add_test(tests, first_page_of_the_journal_is_checked);
    tcase_add_test(tests, journal_of_another_directory_is_refused);
    tcase_add_test(tests, damaged_state_record_is_refused);
    tcase_add_test(tests, damaged_last_block_of_the_log_is_named);
    tcase_add_test(tests, block_that_the_log_should_not_have_is_refused);
    tcase_add_test(tests, damaged_term_run_is_refused);
    tcase_add_test(tests, no_flipped_bit_in_the_journal_is_served_as_good_and_others_repair_it);
    tcase_add_test(tests, damage_anywhere_is_harmless_repaired_or_refused);
    tcase_add_test(tests, half_a_pack_takes_nothing_away);
    tcase_add_test(tests, pack_makes_durable_what_was_published_again);
    tcase_add_test(tests, pack_waits_for_the_end_of_a_turn);
    tcase_add_test(tests, failed_flush_is_final);
    tcase_add_test(tests, space_of_the_journal_is_taken_at_the_start);
    tcase_add_test(tests, full_disk_under_the_journal_is_final);
    tcase_add_test(tests, full_map_stops_the_log_and_nothing_else);
}

int main(void)
{
    return unit_main("storage damage", add);
}
