/* SPDX-License-Identifier: Apache-2.0 */
/* test_ring_reader.c - another process's ring: what may be mapped, what a reader sees of it, and that nothing its writer
 * does makes it read elsewhere (S1, S2, S3, S5, S7). What happens between two accesses is `./dev ring`'s affair. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "proto/ring_reader.h"
#include "storage/ring.h"
#include "tests/support/blocks.h"
#include "tests/support/unit.h"

enum { BYTES = 65536, BLOCK_MAX = 16384, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE };

static struct ring *ring;
static struct ring_reader *reader;
static uint8_t buffer[2 * BYTES];

static void setup(void)
{
    const struct ring_options options = {
        .bytes = BYTES, .block_bytes_max = BLOCK_MAX, .group = 3, .cluster_id = 0xc1, .member_id = 0x3e, .boot = 7};
    ck_assert_int_eq(ring_open(&options, &ring), 0);
    ring_start(ring, &(struct block_base){.next_position = 1});
    ck_assert_int_eq(ring_reader_open(ring_fd(ring), &reader), 0);
}

static void teardown(void)
{
    ring_reader_close(reader);
    ring_close(ring);
    reader = NULL;
    ring = NULL;
}

static void append(raft_term term, uint32_t bytes)
{
    uint8_t *at = NULL;
    ck_assert_int_eq(ring_claim(ring, bytes, &at), 0);
    struct block_base base = ring_last(ring);
    struct block_header header;
    blocks_make(at, &base, term, 1, bytes - BLOCK_HEADER_BYTES - COMMAND_HEADER_BYTES, base.index + 1, &header);
    ring_publish(ring, &header);
}

static void append_many(int count, uint32_t bytes)
{
    for (int i = 0; i < count; i++) append(1, bytes);
}

static void store_all(void)
{
    ring_commit(ring, ring_last(ring).index);
    ring_release(ring, ring_last(ring).index);
}

static struct ring_view look(void)
{
    struct ring_view view;
    ck_assert_int_eq(ring_reader_look(reader, &view), 0);
    return view;
}

static int copy(const struct ring_view *view, raft_index first, size_t room, struct ring_blocks *ret)
{
    return ring_reader_copy(reader, view, first, view->last_index, buffer, room, ret);
}

/* What was copied are the blocks first.. of this ring, whole. */
static void expect_blocks(raft_index first, const struct ring_blocks *blocks)
{
    size_t at = 0;
    for (raft_index i = first; i <= blocks->last; i++) {
        struct block_header header;
        ck_assert_int_eq(block_header_read(buffer + at, blocks->bytes - at, &header), 0);
        ck_assert_uint_eq(header.index, i);
        ck_assert_int_eq(block_body_check(buffer + at, &header), 0);
        at += header.bytes;
    }
    ck_assert_uint_eq(at, blocks->bytes);
}

/* --- what is seen ------------------------------------------------------------------------------------------------- */

START_TEST(reader_knows_whose_ring_it_is)
{
    struct ring_identity identity = ring_reader_identity(reader);
    ck_assert_uint_eq(identity.group, 3);
    ck_assert_uint_eq(identity.cluster_id, 0xc1);
    ck_assert_uint_eq(identity.member_id, 0x3e);
    ck_assert_uint_eq(identity.boot, 7);
    ck_assert_uint_eq(identity.bytes, BYTES);
}
END_TEST

START_TEST(published_blocks_are_seen_and_copied_whole)
{
    struct ring_view view = look();
    ck_assert_uint_ne(view.epoch, 0);
    ck_assert_uint_eq(view.last_index, 0);
    ring_epoch_begin(ring);
    ring_epoch_end(ring, 5, true);
    append_many(3, 1024);
    ring_commit(ring, 2);
    ck_assert(ring_reader_moved(reader, &view));
    view = look();
    ck_assert(!ring_reader_moved(reader, &view));
    ck_assert_uint_eq(view.epoch, ring_epoch(ring));
    ck_assert_uint_eq(view.term, 5);
    ck_assert(view.leads);
    ck_assert_uint_eq(view.last_index, 3);
    ck_assert_uint_eq(view.commit, 2);
    ck_assert_uint_eq(view.tail, 3072);
    struct ring_blocks blocks;
    ck_assert_int_eq(copy(&view, 1, sizeof buffer, &blocks), 0);
    ck_assert_uint_eq(blocks.last, 3);
    ck_assert_uint_eq(blocks.last_term, 1);
    ck_assert_uint_eq(blocks.end, 3072);
    expect_blocks(1, &blocks);
    ck_assert_int_eq(copy(&view, 4, sizeof buffer, &blocks), LOCKSTEP_ENOTFOUND);
}
END_TEST

START_TEST(copy_takes_what_fits_and_ends_at_a_gap)
{
    append_many(4, 1024);
    ring_epoch_begin(ring);
    ring_cut(ring, 4);
    ring_epoch_end(ring, 1, false);
    append_many(2, 1024);
    struct ring_view view = look();
    struct ring_blocks blocks;
    ck_assert_int_eq(copy(&view, 1, 2500, &blocks), 0);
    ck_assert_uint_eq(blocks.last, 2);
    expect_blocks(1, &blocks);
    ck_assert_int_eq(copy(&view, 2, sizeof buffer, &blocks), 0);
    ck_assert_uint_eq(blocks.last, 3); /* dead bytes behind it */
    ck_assert_int_eq(copy(&view, 4, sizeof buffer, &blocks), 0);
    ck_assert_uint_eq(blocks.last, 5);
    ck_assert_int_eq(ring_reader_copy(reader, &view, 4, 4, buffer, sizeof buffer, &blocks), 0);
    ck_assert_uint_eq(blocks.last, 4);
    ck_assert_int_eq(copy(&view, 1, 1023, &blocks), LOCKSTEP_ETOOBIG);
    ck_assert_uint_eq(blocks.bytes, 1024);
}
END_TEST

START_TEST(block_across_the_end_of_memory_is_copied_in_one)
{
    append_many(4, 15000);
    store_all();
    append_many(1, 15000);
    struct ring_view view = look();
    struct ring_blocks blocks;
    ck_assert_int_eq(copy(&view, 5, sizeof buffer, &blocks), 0);
    ck_assert_uint_gt(blocks.end, BYTES);
    expect_blocks(5, &blocks);
}
END_TEST

START_TEST(heartbeats_are_seen_and_their_rounds_end_with_the_term)
{
    struct ring_view before = look();
    ring_beat(ring, 17);
    ck_assert(ring_reader_moved(reader, &before));
    struct ring_view view = look();
    ck_assert_uint_eq(view.beat, before.beat + 1);
    ck_assert_uint_eq(view.round, 17);
    ring_epoch_begin(ring); /* a cut, say */
    ring_epoch_end(ring, view.term, view.leads);
    ck_assert_uint_eq(look().round, 17);
    ring_epoch_begin(ring);
    ring_epoch_end(ring, view.term + 1, true);
    ck_assert_uint_eq(look().round, 0);
}
END_TEST

/* --- too late, or in the middle of a change ----------------------------------------------------------------------- */

START_TEST(lapped_reader_is_told_so) /* S1 */
{
    append_many(64, 1024);
    store_all();
    struct ring_view view = look();
    struct ring_blocks blocks;
    struct ring_slot slot;
    ck_assert_int_eq(copy(&view, 1, 1024, &blocks), 0);
    append_many(2, 1024); /* over blocks 1 and 2 */
    ck_assert_int_eq(copy(&view, 2, 1024, &blocks), LOCKSTEP_ELAPPED);
    ck_assert_int_eq(ring_reader_find(reader, &view, 2, &slot), LOCKSTEP_ELAPPED);
    ck_assert_int_eq(copy(&view, 3, 1024, &blocks), 0);
    expect_blocks(3, &blocks);
}
END_TEST

START_TEST(cut_ends_what_was_seen_before_it) /* S3 */
{
    append_many(3, 1024);
    struct ring_view view = look();
    struct ring_blocks blocks;
    struct ring_slot slot;
    ring_epoch_begin(ring);
    ring_cut(ring, 3);
    ring_epoch_end(ring, 1, false);
    ck_assert_int_eq(copy(&view, 3, 1024, &blocks), LOCKSTEP_EUNAVAILABLE);
    ck_assert_int_eq(copy(&view, 1, 1024, &blocks), LOCKSTEP_EUNAVAILABLE);
    ck_assert_int_eq(ring_reader_find(reader, &view, 1, &slot), LOCKSTEP_EUNAVAILABLE);
    view = look();
    ck_assert_uint_eq(view.last_index, 2);
    ck_assert_int_eq(copy(&view, 3, 1024, &blocks), LOCKSTEP_ENOTFOUND);
}
END_TEST

START_TEST(published_again_is_found_at_its_new_place) /* R10 */
{
    append_many(3, 1024);
    ring_commit(ring, 1);
    struct ring_view view = look();
    struct ring_slot before, after;
    struct ring_blocks blocks;
    ck_assert_int_eq(ring_reader_find(reader, &view, 2, &before), 0);
    ring_epoch_begin(ring);
    ck_assert_int_eq(ring_republish(ring, 2), 0);
    ring_epoch_end(ring, 1, true);
    ck_assert_int_eq(copy(&view, 2, 1024, &blocks), LOCKSTEP_EUNAVAILABLE);
    view = look();
    ck_assert_int_eq(ring_reader_find(reader, &view, 2, &after), 0);
    ck_assert_uint_gt(after.pos, before.pos);
    ck_assert_uint_eq(after.header_crc, before.header_crc);
    ck_assert_int_eq(copy(&view, 2, sizeof buffer, &blocks), 0);
    ck_assert_uint_eq(blocks.last, 3);
    expect_blocks(2, &blocks);
}
END_TEST

START_TEST(restart_behind_a_snapshot_leaves_nothing_of_before)
{
    append_many(3, 1024);
    struct ring_view view = look();
    struct ring_blocks blocks;
    const struct block_base base = {.index = 100, .term = 2, .crc = 1, .next_position = 50};
    ring_epoch_begin(ring);
    ring_restart(ring, &base);
    ring_epoch_end(ring, 2, false);
    ck_assert_int_eq(copy(&view, 1, 1024, &blocks), LOCKSTEP_EUNAVAILABLE);
    view = look();
    ck_assert_uint_eq(view.last_index, 100);
    ck_assert_uint_eq(view.commit, 100);
    ck_assert_int_eq(copy(&view, 100, 1024, &blocks), LOCKSTEP_ELAPPED);
}
END_TEST

START_TEST(epoch_that_stays_odd_holds_nobody) /* S4 */
{
    append_many(1, 1024);
    struct ring_view view = look(), other;
    struct ring_blocks blocks;
    ring_epoch_begin(ring); /* and its writer is stopped here */
    ck_assert_int_eq(ring_reader_look(reader, &other), LOCKSTEP_EUNAVAILABLE);
    ck_assert_int_eq(copy(&view, 1, 1024, &blocks), LOCKSTEP_EUNAVAILABLE);
    ck_assert(ring_reader_moved(reader, &view));
    ring_epoch_end(ring, 1, false);
    ck_assert_int_eq(ring_reader_look(reader, &other), 0);
}
END_TEST

/* --- what may be mapped ------------------------------------------------------------------------------------------- */

START_TEST(nobody_who_is_handed_the_ring_can_write_to_it_or_take_its_memory)
{
    int fd = ring_fd(ring);
    char path[64];
    ck_assert_int_ge(fd, 0);
    ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    ck_assert_int_eq(errno, EPERM);
    ck_assert_int_lt(pwrite(fd, "x", 1, 0), 0);
    ck_assert_int_ne(ftruncate(fd, 4096), 0);
    ck_assert_int_ne(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    ck_assert_int_ne(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    void *at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    ck_assert_int_ne(mprotect(at, 4096, PROT_READ | PROT_WRITE), 0);
    munmap(at, 4096);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR);
    if (again >= 0) {
        ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0), MAP_FAILED);
        ck_assert_int_lt(pwrite(again, "x", 1, 0), 0);
        close(again);
    }
    append_many(1, 1024); /* its writer can */
}
END_TEST

/* A segment of a hostile writer: its own descriptor, mapped for writing before it was sealed. */
struct hostile {
    int fd;
    struct ring_segment *segment;
    struct ring_map_slot *slots;
    size_t bytes;
};

static struct hostile hostile_make(const struct ring_segment *header, size_t bytes, int seals)
{
    struct hostile h = {.fd = ring_segment_make("hostile", bytes), .bytes = bytes};
    ck_assert_int_ge(h.fd, 0);
    ck_assert_int_eq(pwrite(h.fd, header, sizeof *header, 0), sizeof *header);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, h.fd, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    h.segment = at;
    h.slots = (struct ring_map_slot *)(void *)((uint8_t *)at + RING_SEGMENT_PAGE_BYTES);
    ck_assert_int_eq(fcntl(h.fd, F_ADD_SEALS, seals), 0);
    return h;
}

static void hostile_end(struct hostile *h)
{
    munmap(h->segment, h->bytes);
    close(h->fd);
}

static struct ring_segment good_header(void)
{
    struct ring_segment header = {.magic = RING_SEGMENT_MAGIC,
                                  .version = RING_SEGMENT_VERSION,
                                  .slot_count = BYTES / RING_BYTES_PER_SLOT,
                                  .bytes = BYTES,
                                  .bytes_at = ring_segment_bytes_at(BYTES / RING_BYTES_PER_SLOT)};
    atomic_init(&header.epoch, 2);
    return header;
}

static int open_with(const struct ring_segment *header, size_t bytes, int seals)
{
    struct hostile h = hostile_make(header, bytes, seals);
    struct ring_reader *other = NULL;
    int rc = ring_reader_open(h.fd, &other);
    ring_reader_close(other);
    hostile_end(&h);
    return rc;
}

START_TEST(memory_that_could_go_away_is_not_mapped) /* S5: no SIGBUS */
{
    const struct ring_segment header = good_header();
    size_t bytes = header.bytes_at + header.bytes;
    ck_assert_int_eq(open_with(&header, bytes, SEALS), 0);
    ck_assert_int_eq(open_with(&header, bytes, SEALS | F_SEAL_SEAL), 0);
    ck_assert_int_eq(open_with(&header, bytes, SEALS & ~F_SEAL_SHRINK), LOCKSTEP_EINVAL);
    ck_assert_int_eq(open_with(&header, bytes, SEALS & ~F_SEAL_GROW), LOCKSTEP_EINVAL);
    ck_assert_int_eq(open_with(&header, bytes, SEALS & ~F_SEAL_FUTURE_WRITE), LOCKSTEP_EINVAL);
    int pipes[2], zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
    struct ring_reader *other = NULL;
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    ck_assert_int_eq(ring_reader_open(zero, &other), LOCKSTEP_EINVAL);
    ck_assert_int_eq(ring_reader_open(pipes[0], &other), LOCKSTEP_EINVAL);
    ck_assert_int_eq(ring_reader_open(-1, &other), LOCKSTEP_EINVAL);
    close(zero);
    close(pipes[0]);
    close(pipes[1]);
    int holes = ring_segment_make("holes", bytes);
    ck_assert_int_eq(pwrite(holes, &header, sizeof header, 0), sizeof header);
    ck_assert_int_eq(fallocate(holes, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)bytes - 4096, 4096), 0);
    ck_assert_int_eq(fcntl(holes, F_ADD_SEALS, SEALS), 0);
    ck_assert_int_eq(ring_reader_open(holes, &other), LOCKSTEP_EINVAL);
    close(holes);
    int huge = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (huge >= 0 && ftruncate(huge, 2 << 20) == 0 && fcntl(huge, F_ADD_SEALS, SEALS) == 0)
        ck_assert_int_eq(ring_reader_open(huge, &other), LOCKSTEP_EINVAL);
    if (huge >= 0) close(huge);
}
END_TEST

START_TEST(segment_that_contradicts_itself_is_not_mapped) /* S5 */
{
    const struct ring_segment good = good_header();
    const size_t bytes = good.bytes_at + good.bytes;
    struct ring_segment header = good;
    header.magic++;
    ck_assert_int_eq(open_with(&header, bytes, SEALS), LOCKSTEP_EINVAL);
    header = good;
    header.version++;
    ck_assert_int_eq(open_with(&header, bytes, SEALS), LOCKSTEP_EVERSION);
    const uint64_t sizes[] = {0,       1,          4096,       BYTES / 2,         BYTES + 8,         BYTES * 2,
                              1 << 20, 1ull << 40, 1ull << 41, (uint64_t)1 << 63, UINT64_MAX - 4096, UINT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        header = good;
        header.bytes = sizes[i];
        ck_assert_int_eq(open_with(&header, bytes, SEALS), LOCKSTEP_EINVAL);
        header.slot_count = ring_segment_slots(sizes[i]); /* consistent with itself, not with the file */
        header.bytes_at = ring_segment_bytes_at(header.slot_count);
        ck_assert_int_eq(open_with(&header, bytes, SEALS), LOCKSTEP_EINVAL);
        header = good;
        header.bytes_at = sizes[i];
        ck_assert_int_eq(open_with(&header, bytes, SEALS), LOCKSTEP_EINVAL);
        header = good;
        header.slot_count = (uint32_t)sizes[i];
        ck_assert_int_eq(open_with(&header, bytes, SEALS), LOCKSTEP_EINVAL);
    }
    ck_assert_int_eq(open_with(&good, bytes - 4096, SEALS), LOCKSTEP_EINVAL);
    ck_assert_int_eq(open_with(&good, bytes + 4096, SEALS), LOCKSTEP_EINVAL);
    ck_assert_int_eq(open_with(&good, sizeof good, SEALS), LOCKSTEP_EINVAL);
}
END_TEST

START_TEST(
    ring_larger_than_its_slots_can_be_counted_is_not_mapped) /* S5: of 1 TiB, of holes, they were 0: a division */
{
    struct ring_segment header = good_header();
    struct ring_reader *other = NULL;
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    header.bytes = (uint64_t)1 << 40;
    header.slot_count = (uint32_t)(header.bytes / RING_BYTES_PER_SLOT);
    header.bytes_at = ring_segment_bytes_at(header.slot_count);
    ck_assert_int_eq(pwrite(fd, &header, sizeof header, 0), sizeof header);
    ck_assert_int_eq(ftruncate(fd, (off_t)(header.bytes_at + header.bytes)), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, SEALS), 0);
    ck_assert_int_eq(ring_reader_open(fd, &other), LOCKSTEP_EINVAL);
    close(fd);
}
END_TEST

START_TEST(numbers_that_cannot_be_are_refused) /* S5 */
{
    const struct ring_segment header = good_header();
    struct hostile h = hostile_make(&header, header.bytes_at + header.bytes, SEALS);
    struct ring_reader *other = NULL;
    struct ring_view view;
    ck_assert_int_eq(ring_reader_open(h.fd, &other), 0);
    ck_assert_int_eq(ring_reader_look(other, &view), 0);

    atomic_store(&h.segment->epoch, 0);
    ck_assert_int_eq(ring_reader_look(other, &view), LOCKSTEP_ECORRUPT);
    atomic_store(&h.segment->epoch, 2);
    atomic_store(&h.segment->head, 8);
    ck_assert_int_eq(ring_reader_look(other, &view), LOCKSTEP_ECORRUPT);
    atomic_store(&h.segment->head, 0);
    atomic_store(&h.segment->tail, 1025);
    ck_assert_int_eq(ring_reader_look(other, &view), LOCKSTEP_ECORRUPT);
    atomic_store(&h.segment->tail, UINT64_MAX - 7);
    atomic_store(&h.segment->commit, 1);
    ck_assert_int_eq(ring_reader_look(other, &view), LOCKSTEP_ECORRUPT);
    atomic_store(&h.segment->last_index, UINT64_MAX);
    ck_assert_int_eq(ring_reader_look(other, &view), 0);

    struct ring_map_slot *slot = &h.slots[1];
    struct ring_blocks blocks;
    struct ring_slot found;
    const struct {
        uint64_t pos, bytes;
    } bad[] = {{0, 0},
               {0, 63},
               {0, 65},
               {0, BLOCK_BYTES_MAX + 8},
               {0, 0xfffffff8},
               {0, BYTES + 8},
               {4, 64},
               {UINT64_MAX - 7, 64},
               {UINT64_MAX - 63, 64},
               {UINT64_MAX - 70, 64},
               {UINT64_MAX, 64},
               {UINT64_MAX - 3, 4}};
    atomic_store(&slot->index, 1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        atomic_store(&slot->pos, bad[i].pos);
        atomic_store(&slot->bytes_crc, bad[i].bytes);
        ck_assert_int_eq(ring_reader_find(other, &view, 1, &found), LOCKSTEP_ECORRUPT);
        ck_assert_int_eq(ring_reader_copy(other, &view, 1, 1, buffer, sizeof buffer, &blocks), LOCKSTEP_ECORRUPT);
    }
    atomic_store(&h.segment->epoch, 4); /* it may be a change that was seen half */
    ck_assert_int_eq(ring_reader_find(other, &view, 1, &found), LOCKSTEP_EUNAVAILABLE);
    ring_reader_close(other);
    hostile_end(&h);
}
END_TEST

START_TEST(last_index_that_comes_after_its_tail_is_seen) /* `./dev ring` found it: a reader slept on a block */
{
    const struct ring_segment header = good_header();
    struct hostile h = hostile_make(&header, header.bytes_at + header.bytes, SEALS);
    struct ring_reader *other = NULL;
    struct ring_view view;
    ck_assert_int_eq(ring_reader_open(h.fd, &other), 0);
    atomic_store(&h.segment->tail, 1024);
    ck_assert_int_eq(ring_reader_look(other, &view), 0);
    ck_assert(!ring_reader_moved(other, &view));
    atomic_store(&h.segment->last_index, 1);
    ck_assert(ring_reader_moved(other, &view));
    ring_reader_close(other);
    hostile_end(&h);
}
END_TEST

START_TEST(longest_copy_stays_within_the_ring_and_the_buffer) /* S5 */
{
    const struct ring_segment header = good_header();
    struct hostile h = hostile_make(&header, header.bytes_at + header.bytes, SEALS);
    struct ring_reader *other = NULL;
    struct ring_view view;
    struct ring_blocks blocks;
    ck_assert_int_eq(ring_reader_open(h.fd, &other), 0);
    atomic_store(&h.segment->last_index, UINT64_MAX);
    atomic_store(&h.segment->tail, 100 * BYTES);
    /* Blocks without an end, from the last place of the ring on. */
    const ring_pos first = BYTES - 8;
    for (uint64_t i = 0; i < header.slot_count; i++) {
        atomic_store(&h.slots[i].index, i == 0 ? header.slot_count : i);
        atomic_store(&h.slots[i].pos, first + ((i == 0 ? header.slot_count : i) - 1) * 4096);
        atomic_store(&h.slots[i].bytes_crc, 4096);
    }
    ck_assert_int_eq(ring_reader_look(other, &view), 0);
    ck_assert_int_eq(ring_reader_copy(other, &view, 1, UINT64_MAX, buffer, sizeof buffer, &blocks), 0);
    ck_assert_uint_eq(blocks.bytes, BYTES);
    ck_assert_uint_eq(blocks.last, BYTES / 4096);
    memset(buffer, 0xee, sizeof buffer);
    ck_assert_int_eq(ring_reader_copy(other, &view, 1, UINT64_MAX, buffer, 9000, &blocks), 0);
    ck_assert_uint_eq(blocks.bytes, 8192);
    ck_assert_uint_eq(buffer[8192], 0xee);
    ring_reader_close(other);
    hostile_end(&h);
}
END_TEST

/* --- a reader's slot ---------------------------------------------------------------------------------------------- */

START_TEST(ack_counts_under_its_epoch_alone) /* S2 */
{
    const struct ring_reader_slot *seen;
    struct ring_reader_slot *slot;
    struct ring_ack ack;
    int fd;
    ck_assert_int_eq(ring_reader_slot_make(&fd, &seen), 0);
    ck_assert_int_eq(ring_reader_slot_map(fd, &slot), 0);
    close(fd);
    ck_assert(!ring_ack_load(seen, 2, &ack));
    ring_ack_store(slot, &(struct ring_ack){.epoch = 2, .durable = 5, .validated = 6, .round = 7});
    ck_assert(ring_ack_load(seen, 2, &ack));
    ck_assert_uint_eq(ack.durable, 5);
    ck_assert_uint_eq(ack.validated, 6);
    ck_assert_uint_eq(ack.round, 7);
    ck_assert(!ring_ack_load(seen, 4, &ack));
    ring_ack_store(slot, &(struct ring_ack){.epoch = 0});
    ck_assert(!ring_ack_load(seen, 2, &ack));
    ck_assert_uint_eq(ring_word_load(&seen->durable_index), 0);
    ring_reader_slot_unmap(slot);
    ring_reader_slot_unmap(seen);
}
END_TEST

START_TEST(slot_is_one_sealed_page)
{
    const struct {
        off_t bytes;
        int seals, rc;
    } cases[] = {{4096, F_SEAL_SHRINK | F_SEAL_GROW, 0},
                 {4096, F_SEAL_SHRINK, LOCKSTEP_EINVAL},
                 {4096, F_SEAL_GROW, LOCKSTEP_EINVAL},
                 {8192, F_SEAL_SHRINK | F_SEAL_GROW, LOCKSTEP_EINVAL},
                 {0, F_SEAL_SHRINK | F_SEAL_GROW, LOCKSTEP_EINVAL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ring_reader_slot *slot = NULL;
        int fd = ring_segment_make("slot", (uint64_t)cases[i].bytes);
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, cases[i].seals), 0);
        ck_assert_int_eq(ring_reader_slot_map(fd, &slot), cases[i].rc);
        ring_reader_slot_unmap(slot);
        close(fd);
    }
}
END_TEST

START_TEST(bell_is_rung_once_for_each_sleep) /* S7 */
{
    const ring_word *sleeps = ring_reader_writer_sleeps(reader);
    uint64_t rung = 0;
    ck_assert(!ring_sleeps_look(sleeps, &rung));
    ring_sleeps(ring, true);
    ring_sleeps(ring, true);
    ck_assert(ring_sleeps_look(sleeps, &rung));
    ck_assert(!ring_sleeps_look(sleeps, &rung));
    ring_sleeps(ring, false);
    ck_assert(!ring_sleeps_look(sleeps, &rung));
    ring_sleeps(ring, true);
    ck_assert(ring_sleeps_look(sleeps, &rung));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, reader_knows_whose_ring_it_is);
    tcase_add_test(tests, published_blocks_are_seen_and_copied_whole);
    tcase_add_test(tests, copy_takes_what_fits_and_ends_at_a_gap);
    tcase_add_test(tests, block_across_the_end_of_memory_is_copied_in_one);
    tcase_add_test(tests, heartbeats_are_seen_and_their_rounds_end_with_the_term);
    tcase_add_test(tests, lapped_reader_is_told_so);
    tcase_add_test(tests, cut_ends_what_was_seen_before_it);
    tcase_add_test(tests, published_again_is_found_at_its_new_place);
    tcase_add_test(tests, restart_behind_a_snapshot_leaves_nothing_of_before);
    tcase_add_test(tests, epoch_that_stays_odd_holds_nobody);
    tcase_add_test(tests, nobody_who_is_handed_the_ring_can_write_to_it_or_take_its_memory);
    tcase_add_test(tests, memory_that_could_go_away_is_not_mapped);
    tcase_add_test(tests, segment_that_contradicts_itself_is_not_mapped);
    tcase_add_test(tests, ring_larger_than_its_slots_can_be_counted_is_not_mapped);
    tcase_add_test(tests, numbers_that_cannot_be_are_refused);
    tcase_add_test(tests, last_index_that_comes_after_its_tail_is_seen);
    tcase_add_test(tests, longest_copy_stays_within_the_ring_and_the_buffer);
    tcase_add_test(tests, ack_counts_under_its_epoch_alone);
    tcase_add_test(tests, slot_is_one_sealed_page);
    tcase_add_test(tests, bell_is_rung_once_for_each_sleep);
}

int main(void)
{
    return unit_main("proto ring_reader", add);
}
