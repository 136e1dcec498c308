/* SPDX-License-Identifier: Apache-2.0 */
/* test_threads.c - the storage as it runs: loop, journal thread, log thread and a reader, on the real disk. Made for
 * ThreadSanitizer; elsewhere it shows that nothing hangs and that every committed block can be read all the time. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/blocks.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"
#include "tests/support/workers.h"

static struct store store;
static _Atomic bool done; /* the machine ends */
static _Atomic uint64_t commit;

/* A machine: every committed block in order, from the ring, or from LMDB when the ring has passed it.
 * (check's assertions belong to the main thread.) */
static void *machine_main(void *argument)
{
    uint64_t *from_log = argument;
    struct storage_reader *reader = NULL;
    lk_assert(storage_reader_open(store.storage, &reader) == 0);
    raft_index next = 1;
    while (!atomic_load(&done)) {
        if (next > atomic_load_explicit(&commit, memory_order_acquire)) continue;
        struct ring_slot slot;
        struct block_header header;
        const uint8_t *block;
        if (ring_find(store.ring, next, &slot) == 0 &&
            ring_pin_batch(store.ring, slot.pos, slot.pos + slot.bytes) == 0) {
            block = ring_at(store.ring, slot.pos);
            lk_assert(block_header_read(block, slot.bytes, &header) == 0);
            lk_assert(block_body_check(block, &header) == 0);
            ring_unpin(store.ring, RING_PIN_MACHINE);
        } else {
            lk_assert(storage_read(reader, next, &block, &header) == 0);
            storage_read_end(reader);
            (*from_log)++;
            usleep(50); /* falls behind */
        }
        lk_assert(header.index == next);
        next++;
    }
    storage_reader_close(reader);
    return NULL;
}

START_TEST(all_threads_work_together)
{
    char directory[64];
    struct random random;
    uint64_t rounds = unit_rounds(4000), from_log = 0;
    pthread_t machine;
    random_seed(&random, unit_seed(0x7115));
    snprintf(directory, sizeof directory, "/tmp/lockstep-threads-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    store_options(&store, directory, disk_posix(), kv_lmdb());
    store.options.wake = workers_wake;
    workers_prepare();
    ck_assert_msg(store_open(&store) == 0, "%s", store.why);
    workers_start(store.storage);
    pthread_create(&machine, NULL, machine_main, &from_log);

    struct {
        uint64_t seq;
        raft_index last;
    } waiting[STORAGE_PERSISTS_MAX];
    uint64_t first_waiting = 0, end_waiting = 0, refused = 0;
    store.hard_state.term = 1;
    for (uint64_t round = 0; round < rounds;) {
        ck_assert_int_eq(storage_failed(store.storage, NULL), 0);
        raft_index first = ring_last(store.ring).index + 1;
        if (end_waiting - first_waiting < STORAGE_PERSISTS_MAX - 1 &&
            store_append(&store, 1, (uint32_t)random_below(&random, 2000), round)) {
            uint64_t seq = store_persist(&store, first, random_chance(&random, 1, 50));
            waiting[end_waiting % STORAGE_PERSISTS_MAX].seq = seq;
            waiting[end_waiting % STORAGE_PERSISTS_MAX].last = first;
            end_waiting++;
            round++;
        } else {
            refused++;
            workers_sleep(1000000);
        }
        uint64_t durable = storage_persisted(store.storage);
        raft_index last = 0;
        while (first_waiting < end_waiting && waiting[first_waiting % STORAGE_PERSISTS_MAX].seq <= durable)
            last = waiting[first_waiting++ % STORAGE_PERSISTS_MAX].last;
        if (last != 0) {
            storage_commit(store.storage, last);
            atomic_store_explicit(&commit, last, memory_order_release);
        }
        storage_reclaim(store.storage);
        struct storage_status status;
        storage_status_read(store.storage, &status);
        ck_assert_uint_le(status.journal_used_bytes, status.journal_bytes);
    }
    while (storage_persisted(store.storage) != store.seq) workers_sleep(1000000);
    struct block_base last = ring_last(store.ring);
    storage_commit(store.storage, last.index);
    while (storage_stored(store.storage) != last.index) {
        ck_assert_int_eq(storage_failed(store.storage, NULL), 0);
        storage_reclaim(store.storage);
        workers_sleep(1000000);
    }
    atomic_store(&done, true);
    workers_stop();
    pthread_join(machine, NULL);
    printf("refused for a moment %lu, read from the log %lu\n", (unsigned long)refused, (unsigned long)from_log);
    store_close(&store);
    ck_assert_int_eq(store_open(&store), 0);
    ck_assert_uint_eq(store.recovered.last.crc, last.crc);
    store_close(&store);
    unit_folder_remove(directory);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, all_threads_work_together);
}

int main(void)
{
    return unit_main("storage threads", add);
}
