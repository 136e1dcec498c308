/* SPDX-License-Identifier: Apache-2.0 */
/* test_ring.c - the ring: claim, publish, cut, release, pins; and that readers on other threads see whole blocks. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "storage/ring.h"
#include "tests/support/blocks.h"
#include "tests/support/unit.h"

enum { RING_BYTES = 65536, BLOCK_MAX = 16384 };

static struct ring *ring;

static void setup(void)
{
    const struct ring_options options = {.bytes = RING_BYTES, .block_bytes_max = BLOCK_MAX};
    ck_assert_int_eq(ring_open(&options, &ring), 0);
    ring_start(ring, &(struct block_base){.next_position = 1});
}

static void teardown(void)
{
    ring_close(ring);
    ring = NULL;
}

/* One block of header + one command, `bytes` altogether. 0 or EFULL. */
static int append(raft_term term, uint32_t bytes)
{
    uint8_t *at = NULL;
    int rc = ring_claim(ring, bytes, &at);
    if (rc != 0) return rc;
    struct block_base base = ring_last(ring);
    struct block_header header;
    blocks_make(at, &base, term, 1, bytes - BLOCK_HEADER_BYTES - COMMAND_HEADER_BYTES, base.index + 1, &header);
    ck_assert_uint_eq(header.bytes, bytes);
    ring_publish(ring, &header);
    return 0;
}

static void append_many(int count, uint32_t bytes)
{
    for (int i = 0; i < count; i++) ck_assert_int_eq(append(1, bytes), 0);
}

static void cut(raft_index index)
{
    ring_epoch_begin(ring);
    ring_cut(ring, index);
    ring_epoch_end(ring, 1, false);
}

static void store_up_to(raft_index index)
{
    ring_commit(ring, index);
    ring_release(ring, index);
}

static bool block_is_whole(const struct ring_slot *slot)
{
    struct block_header header;
    const uint8_t *block = ring_at(ring, slot->pos);
    return block_header_read(block, slot->bytes, &header) == 0 && header.index == slot->index &&
           header.term == slot->term && header.bytes == slot->bytes && header.header_crc == slot->header_crc &&
           block_body_check(block, &header) == 0;
}

START_TEST(published_block_is_found_whole)
{
    append_many(3, 1024);
    struct ring_slot slot;
    for (raft_index i = 1; i <= 3; i++) {
        ck_assert_int_eq(ring_find(ring, i, &slot), 0);
        ck_assert(block_is_whole(&slot));
    }
    ck_assert_int_eq(ring_find(ring, 4, &slot), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(ring_find(ring, 0, &slot), LOCKSTEP_ENOTFOUND);
    ck_assert_uint_eq(ring_last(ring).index, 3);
}
END_TEST

START_TEST(claim_is_invisible_until_published)
{
    uint8_t *at;
    struct ring_status before, after;
    ring_status_read(ring, &before);
    ck_assert_int_eq(ring_claim(ring, 1024, &at), 0);
    ring_status_read(ring, &after);
    ck_assert_uint_eq(before.tail, after.tail);
    ring_abandon(ring);
    append_many(1, 1024);
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(ring, 1, &slot), 0);
    ck_assert_uint_eq(slot.pos, before.tail);
}
END_TEST

START_TEST(publish_takes_less_than_was_claimed)
{
    uint8_t *at;
    struct block_base base = ring_last(ring);
    struct block_header header;
    ck_assert_int_eq(ring_claim(ring, BLOCK_MAX, &at), 0);
    ck_assert_uint_eq((uintptr_t)at % 8, 0);
    blocks_make(at, &base, 1, 1, 8, 1, &header);
    ring_publish(ring, &header);
    struct ring_status status;
    ring_status_read(ring, &status);
    ck_assert_uint_eq(status.tail, header.bytes);
}
END_TEST

START_TEST(full_ring_refuses_until_blocks_are_released)
{
    append_many(64, 1024);
    ck_assert_int_eq(append(1, 1024), LOCKSTEP_EFULL);
    ck_assert_uint_eq(ring_room(ring, 1024), 0);
    store_up_to(2);
    ck_assert_uint_eq(ring_room(ring, 4096), 2048);
    ck_assert_int_eq(append(1, 2048), 0);
    ck_assert_int_eq(append(1, 1024), LOCKSTEP_EFULL);
}
END_TEST

START_TEST(released_blocks_stay_readable_until_the_room_is_needed)
{
    append_many(32, 1024);
    store_up_to(32);
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(ring, 1, &slot), 0);
    append_many(32, 1024);
    ck_assert_int_eq(ring_find(ring, 1, &slot), 0);
    append_many(1, 1024);
    ck_assert_int_eq(ring_find(ring, 1, &slot), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(ring_find(ring, 2, &slot), 0);
    ck_assert_uint_eq(ring_first_index(ring), 2);
}
END_TEST

START_TEST(block_across_the_end_of_memory_is_contiguous)
{
    append_many(4, 15000);
    store_up_to(4);
    append_many(1, 15000); /* 60,000 .. 75,000: over the end at 65,536 */
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(ring, 5, &slot), 0);
    ck_assert_uint_lt(slot.pos, RING_BYTES);
    ck_assert_uint_gt(slot.pos + slot.bytes, RING_BYTES);
    ck_assert(block_is_whole(&slot));
}
END_TEST

START_TEST(range_of_blocks_is_packed_within_the_budget)
{
    append_many(8, 1024);
    raft_index last = 0;
    ck_assert_uint_eq(ring_pack(ring, 2, 8, 3000, &last), 2048);
    ck_assert_uint_eq(last, 3);
    ck_assert_uint_eq(ring_pack(ring, 2, 8, 1, &last), 1024); /* one block always */
    ck_assert_uint_eq(last, 2);
    ck_assert_uint_eq(ring_pack(ring, 2, 100, UINT64_MAX, &last), 7 * 1024);
    ck_assert_uint_eq(last, 8);
    ck_assert_uint_eq(ring_pack(ring, 9, 9, UINT64_MAX, &last), 0);
}
END_TEST

START_TEST(range_stops_at_the_gap_that_a_cut_left)
{
    append_many(5, 1024);
    cut(4);
    append_many(2, 1024);
    raft_index last = 0;
    ck_assert_uint_eq(ring_pack(ring, 2, 5, UINT64_MAX, &last), 2 * 1024);
    ck_assert_uint_eq(last, 3);
    ck_assert_uint_eq(ring_pack(ring, 4, 5, UINT64_MAX, &last), 2 * 1024);
    ck_assert_uint_eq(last, 5);
}
END_TEST

START_TEST(cut_blocks_are_gone_and_their_place_is_not_used_twice)
{
    append_many(5, 1024);
    struct ring_slot before, after;
    ck_assert_int_eq(ring_find(ring, 3, &before), 0);
    struct block_header header;
    memcpy(&header, ring_at(ring, before.pos), sizeof header);
    cut(3);
    ck_assert_uint_eq(ring_last(ring).index, 2);
    ck_assert_uint_eq(ring_last(ring).crc, header.previous_crc);
    ck_assert_int_eq(ring_find(ring, 3, &after), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(append(2, 1024), 0);
    ck_assert_int_eq(ring_find(ring, 3, &after), 0);
    ck_assert_uint_gt(after.pos, before.pos);
    ck_assert_uint_eq(after.term, 2);
    ck_assert_int_eq(memcmp(&header, ring_at(ring, before.pos), sizeof header), 0); /* a late send still reads it */
}
END_TEST

START_TEST(everything_uncommitted_may_be_cut_even_if_older_blocks_left_the_ring)
{
    append_many(4, 1024);
    store_up_to(4);
    append_many(60, 1024);
    append_many(4, 1024); /* takes the place of 1..4 */
    ck_assert_uint_eq(ring_first_index(ring), 5);
    cut(5);
    ck_assert_uint_eq(ring_last(ring).index, 4);
    ck_assert_int_eq(append(2, 1024), 0); /* chains to block 4, which is no longer here */
    struct ring_status status;
    ring_status_read(ring, &status);
    ck_assert_uint_eq(status.live_bytes, 1024);
    ck_assert_uint_eq(status.dead_bytes, 0); /* nothing live before them: the head has passed */
}
END_TEST

static struct ring_slot slot_of(raft_index index)
{
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(ring, index, &slot), 0);
    return slot;
}

static void append_and_store(int count, uint32_t bytes)
{
    for (int i = 0; i < count; i++) {
        ck_assert_int_eq(append(1, bytes), 0);
        store_up_to(ring_last(ring).index);
    }
}

START_TEST(batch_of_a_machine_that_hangs_is_stepped_over_lap_after_lap) /* M4 */
{
    append_and_store(64, 1024);
    struct ring_slot first = slot_of(10), second = slot_of(11);
    ck_assert_int_eq(ring_pin_batch(ring, first.pos, first.pos + first.bytes), 0);
    ck_assert_int_eq(ring_pin_batch(ring, first.pos, second.pos + second.bytes), 0);
    for (uint32_t i = 0; i < 1000; i++) {
        append_and_store(1, 96 + i % 400 * 8);
        struct ring_slot last = slot_of(ring_last(ring).index);
        ck_assert(block_is_whole(&last));
        ck_assert(block_is_whole(&first));
        ck_assert(block_is_whole(&second));
    }
    ck_assert_uint_gt(slot_of(ring_last(ring).index).pos, 10 * RING_BYTES);
    ring_unpin(ring, RING_PIN_MACHINE);
    append_and_store(100, 1024);
    struct ring_status status;
    ring_status_read(ring, &status);
    ck_assert_uint_eq(status.dead_bytes, 0); /* nothing is stepped over any more */
    ck_assert(!block_is_whole(&first));
}
END_TEST

START_TEST(range_stops_at_the_gap_that_a_batch_left)
{
    append_and_store(64, 1024);
    struct ring_slot held = slot_of(3);
    ck_assert_int_eq(ring_pin_batch(ring, held.pos, held.pos + held.bytes), 0);
    append_many(4, 1024); /* 65, 66, gap, 67, 68 */
    raft_index last = 0;
    ck_assert_uint_eq(ring_pack(ring, 65, 68, UINT64_MAX, &last), 2 * 1024);
    ck_assert_uint_eq(last, 66);
    ck_assert_uint_eq(slot_of(67).pos, slot_of(66).pos + 2 * 1024);
    ck_assert_uint_eq(ring_pack(ring, 67, 68, UINT64_MAX, &last), 2 * 1024);
}
END_TEST

START_TEST(batch_grows_until_the_head_has_passed_what_is_behind_it)
{
    append_and_store(64, 1024);
    struct ring_slot first = slot_of(1), second = slot_of(2);
    ck_assert_int_eq(ring_pin_batch(ring, first.pos, first.pos + first.bytes), 0);
    append_and_store(1, 1024); /* over block 1 to where block 2 was */
    ck_assert_int_eq(ring_pin_batch(ring, first.pos, second.pos + second.bytes), LOCKSTEP_ELAPPED);
    append_and_store(64, 1024);
    ck_assert(block_is_whole(&first));
    ring_unpin(ring, RING_PIN_MACHINE);
    ck_assert_int_eq(ring_pin_batch(ring, second.pos, second.pos + second.bytes), LOCKSTEP_ELAPPED);
    append_and_store(128, 1024);
    struct ring_status status;
    ring_status_read(ring, &status);
    ck_assert_uint_eq(status.dead_bytes, 0); /* a refused pin holds nothing */
}
END_TEST

START_TEST(room_that_was_promised_is_there_for_blocks_of_any_size_around_a_batch)
{
    struct random random;
    random_seed(&random, unit_seed(0x40a3));
    append_and_store(64, 1024);
    raft_index before = 0;
    for (uint64_t round = 0; round < unit_rounds(2000); round++) {
        raft_index low = ring_first_index(ring), last = ring_last(ring).index;
        if (low <= before) low = before + 1; /* batches go up */
        if (low > last) {
            append_and_store(1, 1024);
            continue;
        }
        before = random_between(&random, low, last);
        struct ring_slot held = slot_of(before);
        ck_assert_int_eq(ring_pin_batch(ring, held.pos, held.pos + held.bytes), 0);
        for (uint64_t turn = random_below(&random, 12); turn > 0; turn--) {
            uint64_t asked = random_below(&random, 2 * RING_BYTES), room = ring_room(ring, asked);
            ck_assert_uint_ge(room, asked < RING_BYTES / 8 ? asked : RING_BYTES / 8);
            while (room >= 96) {
                uint64_t bytes = random_between(&random, 12, room < BLOCK_MAX ? room / 8 : BLOCK_MAX / 8) * 8;
                if (append(1, (uint32_t)bytes) != 0) ck_abort_msg("round %d: %d bytes", (int)round, (int)bytes);
                room -= bytes;
            }
            ck_assert(block_is_whole(&held));
            store_up_to(ring_last(ring).index);
        }
        ring_unpin(ring, RING_PIN_MACHINE);
    }
}
END_TEST

START_TEST(live_blocks_move_behind_dead_bytes_and_a_batch) /* R10, M4 */
{
    append_and_store(64, 1024);
    struct ring_slot held = slot_of(20);
    ck_assert_int_eq(ring_pin_batch(ring, held.pos, held.pos + held.bytes), 0);
    append_many(8, 1024); /* never committed */
    for (int i = 0; i < 300; i++) {
        int rc = append(1, 4096);
        if (rc == LOCKSTEP_EFULL) {
            ring_epoch_begin(ring);
            ck_assert_int_eq(ring_republish(ring, 65), 0); /* room for this was kept */
            ring_epoch_end(ring, 1, false);
            rc = append(1, 4096);
        }
        ck_assert_int_eq(rc, 0);
        cut(73);
    }
    for (raft_index i = 65; i <= 72; i++) {
        struct ring_slot slot = slot_of(i);
        ck_assert(block_is_whole(&slot));
    }
    ck_assert(block_is_whole(&held));
}
END_TEST

START_TEST(pinned_bytes_are_not_reused)
{
    append_many(64, 1024);
    store_up_to(64);
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(ring, 2, &slot), 0);
    ck_assert_int_eq(ring_pin(ring, RING_PIN_LOG, slot.pos), 0);
    ck_assert_int_eq(append(1, 1024), 0);              /* in the place of block 1 */
    ck_assert_int_eq(append(1, 1024), LOCKSTEP_EFULL); /* would be block 2's */
    ck_assert(block_is_whole(&slot));
    ring_unpin(ring, RING_PIN_LOG);
    ck_assert_int_eq(append(1, 1024), 0);
}
END_TEST

START_TEST(pin_below_the_head_is_refused_and_the_old_one_stays)
{
    append_many(64, 1024);
    store_up_to(64);
    ck_assert_int_eq(append(1, 1024), 0); /* head at 1024 */
    ck_assert_int_eq(ring_pin(ring, RING_PIN_PEER, 0), LOCKSTEP_ELAPPED);
    ck_assert_int_eq(ring_pin(ring, RING_PIN_PEER, 2048), 0);
    ck_assert_int_eq(ring_pin(ring, RING_PIN_PEER, 0), LOCKSTEP_ELAPPED);
    ck_assert_int_eq(append(1, 1024), 0);
    ck_assert_int_eq(append(1, 1024), LOCKSTEP_EFULL);        /* still held at 2048, though the head may go on */
    ck_assert_int_eq(ring_pin(ring, RING_PIN_PEER, 3072), 0); /* up: always */
    ck_assert_int_eq(append(1, 1024), 0);
}
END_TEST

START_TEST(room_that_was_promised_survives_a_later_pin)
{
    append_many(64, 1024);
    store_up_to(64);
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(ring, 1, &slot), 0);
    ck_assert_uint_eq(ring_room(ring, 4096), 4096);
    ck_assert_int_eq(ring_pin(ring, RING_PIN_LOG, slot.pos), LOCKSTEP_ELAPPED);
    ck_assert_int_eq(ring_pin_batch(ring, slot.pos, slot.pos + slot.bytes), LOCKSTEP_ELAPPED);
    append_many(4, 1024);
}
END_TEST

START_TEST(index_map_bounds_the_blocks_that_are_not_released)
{
    int count = 0;
    while (append(1, 96) == 0) count++;
    ck_assert_int_eq(count, RING_BYTES / 256);
    ck_assert_uint_eq(ring_room(ring, 96), 0);
    store_up_to(1);
    ck_assert_uint_eq(ring_room(ring, 4096), 64); /* one slot: room for one block of the smallest size */
    ck_assert_int_eq(append(1, 96), 0);
}
END_TEST

START_TEST(live_blocks_move_behind_dead_bytes) /* R10 */
{
    append_many(8, 1024); /* 1..8, never committed: hold the head */
    for (int i = 0; i < 100; i++) {
        int rc = append(1, 4096);
        if (rc == LOCKSTEP_EFULL) {
            struct ring_status status;
            ring_status_read(ring, &status);
            ck_assert_uint_gt(status.dead_bytes, 0);
            ring_epoch_begin(ring);
            ck_assert_int_eq(ring_republish(ring, 1), 0); /* room for this was kept */
            ring_epoch_end(ring, 1, false);
            rc = append(1, 4096);
        }
        ck_assert_int_eq(rc, 0);
        cut(9);
    }
    struct ring_slot slot;
    for (raft_index i = 1; i <= 8; i++) {
        ck_assert_int_eq(ring_find(ring, i, &slot), 0);
        ck_assert(block_is_whole(&slot));
    }
    ck_assert_uint_eq(ring_last(ring).index, 8);
}
END_TEST

START_TEST(ring_goes_on_behind_any_base)
{
    const struct block_base base = {.index = 1000, .term = 7, .crc = 99, .next_position = 5001, .time_ns = 12};
    ring_start(ring, &base);
    ck_assert_uint_eq(ring_first_index(ring), 1001);
    ck_assert_int_eq(append(7, 1024), 0);
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(ring, 1001, &slot), 0);
    ck_assert_int_eq(ring_find(ring, 1000, &slot), LOCKSTEP_ENOTFOUND);
}
END_TEST

START_TEST(bad_sizes_are_refused)
{
    struct ring *bad = NULL;
    ck_assert_int_eq(ring_open(&(struct ring_options){.bytes = 65535, .block_bytes_max = 4096}, &bad), LOCKSTEP_EINVAL);
    ck_assert_int_eq(ring_open(&(struct ring_options){.bytes = 4096, .block_bytes_max = 64}, &bad), LOCKSTEP_EINVAL);
    ck_assert_int_eq(ring_open(&(struct ring_options){.bytes = 65536, .block_bytes_max = 65536}, &bad),
                     LOCKSTEP_EINVAL);
    ck_assert_int_eq(ring_open(&(struct ring_options){.bytes = 65536, .block_bytes_max = 8}, &bad), LOCKSTEP_EINVAL);
}
END_TEST

/* --- readers on other threads ---------------------------------------------------------------------------------- */

static _Atomic uint64_t shared_commit;
static _Atomic bool writer_done;

struct reader {
    pthread_t thread;
    unsigned owner; /* the machine goes up block by block, in batches; others look anywhere */
    uint64_t seed, read, lapped, torn;
};

/* The oldest block of the batch is looked at again at the end, whatever the writer did meanwhile. */
static void *machine_main(void *argument)
{
    struct reader *reader = argument;
    struct random random;
    random_seed(&random, reader->seed);
    raft_index next = 1;
    while (!atomic_load(&writer_done)) {
        uint64_t commit = atomic_load_explicit(&shared_commit, memory_order_acquire);
        if (next > commit) continue;
        struct ring_slot first, slot;
        if (ring_find(ring, next, &first) != 0 || ring_pin_batch(ring, first.pos, first.pos + first.bytes) != 0) {
            reader->lapped++;
            next = commit > 60 ? commit - 60 : commit;
            continue;
        }
        next++;
        for (uint64_t left = random_below(&random, 20); left > 0 && next <= commit; left--, next++) {
            if (ring_find(ring, next, &slot) != 0 || ring_pin_batch(ring, first.pos, slot.pos + slot.bytes) != 0) break;
            if (!block_is_whole(&slot)) reader->torn++;
        }
        if (random_chance(&random, 1, 64)) usleep(1000); /* hangs for some laps */
        if (block_is_whole(&first))
            reader->read++;
        else
            reader->torn++;
        ring_unpin(ring, RING_PIN_MACHINE);
    }
    return NULL;
}

static void *reader_main(void *argument)
{
    struct reader *reader = argument;
    struct random random;
    random_seed(&random, reader->seed);
    while (!atomic_load(&writer_done)) {
        uint64_t commit = atomic_load_explicit(&shared_commit, memory_order_acquire);
        if (commit == 0) continue;
        raft_index back = random_below(&random, 200);
        raft_index index = commit > back ? commit - back : 1;
        struct ring_slot slot;
        if (ring_find(ring, index, &slot) != 0 || ring_pin(ring, reader->owner, slot.pos) != 0) {
            reader->lapped++;
            continue;
        }
        if (block_is_whole(&slot))
            reader->read++;
        else
            reader->torn++;
        ring_unpin(ring, reader->owner);
    }
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
}

START_TEST(memory_is_reserved_though_signals_come) /* older kernels take a reservation back that one interrupts */
{
    const struct ring_options large = {.bytes = 64 << 20, .block_bytes_max = 4 << 20};
    const struct sigaction handled = {.sa_handler = on_signal};
    const struct itimerval each_ms = {.it_interval = {.tv_usec = 1000}, .it_value = {.tv_usec = 1000}}, never = {0};
    struct sigaction before;
    ck_assert_int_eq(sigaction(SIGALRM, &handled, &before), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &each_ms, NULL), 0);
    for (int i = 0; i < 5; i++) {
        struct ring *one;
        ck_assert_int_eq(ring_open(&large, &one), 0);
        ring_close(one);
    }
    ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
    ck_assert_int_eq(sigaction(SIGALRM, &before, NULL), 0);
}
END_TEST

START_TEST(readers_on_other_threads_see_whole_blocks_or_none)
{
    enum { READERS = 3 };
    struct reader readers[READERS] = {0};
    struct random random;
    uint64_t seed = unit_seed(0x51a9), rounds = unit_rounds(40000), full = 0;
    random_seed(&random, seed);
    atomic_store(&shared_commit, 0);
    atomic_store(&writer_done, false);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.owner = RING_PIN_MACHINE + i, .seed = seed + i + 1};
        void *(*run)(void *) = readers[i].owner == RING_PIN_MACHINE ? machine_main : reader_main;
        pthread_create(&readers[i].thread, NULL, run, &readers[i]);
    }
    for (uint64_t i = 0; i < rounds; i++) {
        uint32_t bytes = (uint32_t)random_between(&random, 12, 500) * 8;
        if (append(1, bytes) != 0) full++; /* a pin in the way, nothing waits for it */
        raft_index last = ring_last(ring).index;
        if (random_chance(&random, 1, 8) && last > atomic_load(&shared_commit) + 1) {
            cut(last); /* uncommitted */
            last--;
        }
        if (last > atomic_load(&shared_commit) + 2) {
            store_up_to(last - 2);
            atomic_store_explicit(&shared_commit, last - 2, memory_order_release);
        }
    }
    atomic_store(&writer_done, true);
    uint64_t read = 0;
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        ck_assert_uint_eq(readers[i].torn, 0);
        read += readers[i].read;
    }
    ck_assert_uint_gt(read, 0);
    ck_assert_uint_lt(full, rounds);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, published_block_is_found_whole);
    tcase_add_test(tests, claim_is_invisible_until_published);
    tcase_add_test(tests, publish_takes_less_than_was_claimed);
    tcase_add_test(tests, full_ring_refuses_until_blocks_are_released);
    tcase_add_test(tests, released_blocks_stay_readable_until_the_room_is_needed);
    tcase_add_test(tests, block_across_the_end_of_memory_is_contiguous);
    tcase_add_test(tests, range_of_blocks_is_packed_within_the_budget);
    tcase_add_test(tests, range_stops_at_the_gap_that_a_cut_left);
    tcase_add_test(tests, cut_blocks_are_gone_and_their_place_is_not_used_twice);
    tcase_add_test(tests, everything_uncommitted_may_be_cut_even_if_older_blocks_left_the_ring);
    tcase_add_test(tests, batch_of_a_machine_that_hangs_is_stepped_over_lap_after_lap);
    tcase_add_test(tests, range_stops_at_the_gap_that_a_batch_left);
    tcase_add_test(tests, batch_grows_until_the_head_has_passed_what_is_behind_it);
    tcase_add_test(tests, room_that_was_promised_is_there_for_blocks_of_any_size_around_a_batch);
    tcase_add_test(tests, live_blocks_move_behind_dead_bytes_and_a_batch);
    tcase_add_test(tests, pinned_bytes_are_not_reused);
    tcase_add_test(tests, pin_below_the_head_is_refused_and_the_old_one_stays);
    tcase_add_test(tests, room_that_was_promised_survives_a_later_pin);
    tcase_add_test(tests, index_map_bounds_the_blocks_that_are_not_released);
    tcase_add_test(tests, live_blocks_move_behind_dead_bytes);
    tcase_add_test(tests, ring_goes_on_behind_any_base);
    tcase_add_test(tests, bad_sizes_are_refused);
    tcase_add_test(tests, memory_is_reserved_though_signals_come);
    tcase_add_test(tests, readers_on_other_threads_see_whole_blocks_or_none);
}

int main(void)
{
    return unit_main("storage ring", add);
}
