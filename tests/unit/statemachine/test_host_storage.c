/* SPDX-License-Identifier: Apache-2.0 */
/* test_host_storage.c - host, kv and the real storage together: ring, journal and LMDB on the real disk. The machine runs
 * on its own thread and is lapped by the ring; after a restart it comes to the same hashes (T51, T62). */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/random.h"
#include "statemachine/host.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

static char directory[64];
static struct store store;
static struct plugin kv_plugin;
static struct host *host;
static sem_t machine_bell;
static _Atomic bool ending;

static void setup(void)
{
    snprintf(directory, sizeof directory, "/tmp/lockstep-host-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    store_options(&store, directory, disk_posix(), kv_lmdb());
    snprintf(kv_plugin.name, sizeof kv_plugin.name, "kv");
    kv_plugin.machine = lockstep_machine; /* kv is linked in */
    sem_init(&machine_bell, 0, 0);
}

static void teardown(void)
{
    unit_folder_remove(directory);
    sem_destroy(&machine_bell);
}

static void wake_machine(void *context)
{
    (void)context;
    sem_post(&machine_bell);
}

static void wake_loop(void *context)
{
    (void)context;
}

static void log_line(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

static void *run_machine(void *argument)
{
    (void)argument;
    while (!atomic_load(&ending))
        if (!host_work(host)) sem_wait(&machine_bell);
    return NULL;
}

static pthread_t start(void)
{
    int rc = store_open(&store);
    ck_assert_msg(rc == 0, "%d %s", rc, store.why);
    struct host_options options = {
        .plugin = &kv_plugin,
        .storage = store.storage,
        .start_index = store.recovered.base.index + 1,
        .replies_bytes = HOST_REPLIES_BYTES_MIN,
        .queries_bytes = 65536,
        .batch_bytes_max = 16384,
        .sessions = {.window = 8, .sessions_max = 16, .replies_bytes = 1 << 16, .expiry_ns = 100000},
        .wake_loop = wake_loop,
        .wake_machine = wake_machine,
        .log = log_line,
    };
    ck_assert_int_eq(host_open(&options, &host), 0);
    pthread_t machine;
    atomic_store(&ending, false);
    ck_assert_int_eq(pthread_create(&machine, NULL, run_machine, NULL), 0);
    return machine;
}

static struct host_status status(void)
{
    struct host_status now;
    host_status_read(host, &now);
    return now;
}

static struct host_status await(raft_index index)
{
    while (status().hash_index < index) {
        lk_assert(status().error == 0);
        sched_yield();
    }
    return status();
}

static void end(pthread_t machine)
{
    atomic_store(&ending, true);
    sem_post(&machine_bell);
    pthread_join(machine, NULL);
    host_close(host);
    store_close(&store);
}

/* One block of kv commands behind the last. False: there is no room. */
static bool append(struct random *random)
{
    uint8_t *block;
    if (!storage_persist_fits(store.storage, 2048) || ring_claim(store.ring, 2048, &block) != 0) return false;
    struct block_base last = ring_last(store.ring);
    struct block_header header = {
        .bytes = BLOCK_HEADER_BYTES,
        .type = BLOCK_COMMANDS,
        .index = last.index + 1,
        .term = 1,
        .time_ns = last.time_ns + 1,
        .first_position = last.next_position,
        .previous_crc = last.crc,
    };
    for (uint64_t i = random_below(random, 12); i > 0; i--) {
        char text[128];
        uint64_t key = random_below(random, 500), kind = random_below(random, 4), number = random_below(random, 1000);
        if (kind == 0)
            snprintf(text, sizeof text, "put k%llu %llu", (unsigned long long)key, (unsigned long long)number);
        if (kind == 1)
            snprintf(text, sizeof text, "incr k%llu %llu", (unsigned long long)key, (unsigned long long)number);
        if (kind == 2) snprintf(text, sizeof text, "append k%llu 0", (unsigned long long)key);
        if (kind == 3) snprintf(text, sizeof text, "del k%llu", (unsigned long long)key);
        struct command_header command = {.bytes = (uint32_t)strlen(text)};
        header.bytes += (uint32_t)command_write(block + header.bytes, &command, text);
        header.count++;
    }
    block_seal(block, &header);
    ring_publish(store.ring, &header);
    return true;
}

START_TEST(a_machine_that_the_ring_laps_and_one_that_restarts_come_to_the_same_hashes)
{
    struct random random;
    random_seed(&random, unit_seed(0x73746f7265));
    uint64_t blocks = 1500 + unit_rounds(1500); /* laps the ring, also when loops are short */
    pthread_t machine = start();
    for (uint64_t written = 0; written < blocks;) {
        raft_index first = ring_last(store.ring).index + 1;
        uint64_t turn = 1 + random_below(&random, 40);
        while (turn > 0 && written < blocks && append(&random)) turn--, written++;
        if (ring_last(store.ring).index >= first) store_persist(&store, first, false);
        store_run_journal(&store, 0);
        storage_commit(store.storage, ring_last(store.ring).index);
        store_run_log(&store, 20000000);
        /* Late on purpose: what the machine is told of lies in LMDB alone (surely after the first half, which is larger
         * than the ring), or in both, or not yet there. */
        if (written > blocks / 2 && random_below(&random, 3) == 0) host_commit(host, ring_last(store.ring).index);
    }
    host_commit(host, blocks);
    struct host_status before = await(blocks);
    ck_assert_uint_eq(before.applied_index, blocks);
    ck_assert_uint_gt(before.log_reads, 0);
    ck_assert_uint_lt(before.log_reads, blocks); /* the others came from the ring */
    end(machine);

    machine = start();
    ck_assert_uint_eq(store.recovered.last.index, blocks);
    host_commit(host, blocks);
    struct host_status behind = await(blocks);
    ck_assert_uint_eq(behind.hash_index, before.hash_index);
    ck_assert_uint_eq(behind.state_hash.low, before.state_hash.low);
    ck_assert_uint_eq(behind.state_hash.high, before.state_hash.high);
    ck_assert_uint_eq(behind.reply_hash.low, before.reply_hash.low);
    ck_assert_uint_eq(behind.reply_hash.high, before.reply_hash.high);
    ck_assert_uint_eq(behind.applied_position, before.applied_position);
    end(machine);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_machine_that_the_ring_laps_and_one_that_restarts_come_to_the_same_hashes);
}

int main(void)
{
    return unit_main("host storage", add);
}
