/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - one node's storage under a long load: commands of 160 B to 1 MiB, a snapshot every 64 MiB, so that the log's prefix
 * goes all the time. Is commit time flat, is data.mdb bounded by what is live, what does the log thread cost a persist?
 * Usage: bench_log [DIRECTORY] [COMMANDS]. 1 million commands if not said (some 450 MB are written twice). The directory is
 * made and removed. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/histogram.h"
#include "base/random.h"
#include "storage/snapshot.h"
#include "storage/snapshot_file.h"
#include "storage/storage.h"
#include "tests/support/blocks.h"
#include "tests/support/workers.h"

enum { DEPTH = 16, ROWS = 10, ROUNDS = 5, SNAPSHOT_EVERY = 64 << 20, PHASE_BYTES = 24 << 20, PHASE_PAYLOAD = 16 << 10 };

/* Of 1,000 blocks so many have so many commands of so many bytes: 467 bytes a command. */
static const struct {
    uint32_t of_1000, commands, payload_bytes;
} kinds[] = {{900, 64, 160}, {70, 16, 4096}, {25, 4, 65536}, {5, 1, 1 << 20}};

static struct storage *storage;
static struct histogram persists;
static struct random dice;
static uint64_t seq, commands_done, since_snapshot;
static char directory[256];

/* The log thread's commits. Two histograms: the one is filled while the other is read. */
static struct histogram commits[2];
static _Atomic unsigned commits_now;
static const struct kv *lmdb;
static struct kv timed;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_log: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static int timed_commit(struct kv_txn *txn)
{
    uint64_t from_ns = workers_now_ns();
    int rc = lmdb->commit(txn);
    histogram_record(&commits[atomic_load(&commits_now) % 2], workers_now_ns() - from_ns);
    return rc;
}

static double us(const struct histogram *of, unsigned percent)
{
    return (double)histogram_quantile(of, percent, 100) / 1e3;
}

static void snapshot_take(void)
{
    static const uint8_t state[64 << 10];
    struct block_base base = ring_last(storage_ring(storage));
    if (storage_snapshot_begin(storage, &base) != 0) return; /* the one before does not count yet */
    int rc = storage_snapshot_write(storage, state, sizeof state);
    int error = storage_snapshot_end(storage, rc == 0);
    if (rc != 0 || error != 0) die("snapshot", "failed");
    since_snapshot = 0;
}

static bool submit(uint32_t commands, uint32_t payload_bytes)
{
    struct ring *ring = storage_ring(storage);
    struct block_base base = ring_last(ring);
    struct block_header header;
    uint8_t *at = NULL;
    uint32_t bytes = blocks_bytes(commands, payload_bytes);
    if (!storage_persist_fits(storage, bytes) || ring_claim(ring, bytes, &at) != 0) return false;
    blocks_make(at, &base, 1, commands, payload_bytes, base.index, &header);
    ring_publish(ring, &header);
    storage_persist(storage, &(struct storage_persist){.seq = ++seq, .first = header.index, .last = header.index});
    since_snapshot += bytes;
    return true;
}

/* Blocks until so many commands, or so many bytes of blocks of one size, are durable. commit: at once; else not at all. */
static void load(uint64_t commands, uint64_t bytes, bool commit)
{
    uint64_t sent_ns[DEPTH], acked = seq, kind = sizeof kinds / sizeof kinds[0];
    while (commands > 0 || bytes > 0 || acked < seq) {
        while ((commands > 0 || bytes > 0) && seq - acked < DEPTH) {
            uint32_t count = 1, payload_bytes = PHASE_PAYLOAD;
            if (commands > 0) {
                uint64_t pick = random_below(&dice, 1000);
                if (kind == sizeof kinds / sizeof kinds[0])
                    for (kind = 0; pick >= kinds[kind].of_1000; kind++) pick -= kinds[kind].of_1000;
                count = kinds[kind].commands;
                payload_bytes = kinds[kind].payload_bytes;
            }
            uint64_t now_ns = workers_now_ns();
            if (!submit(count, payload_bytes)) break; /* the log is behind: the same block again, later */
            sent_ns[seq % DEPTH] = now_ns;
            kind = sizeof kinds / sizeof kinds[0];
            commands_done += count;
            commands -= count < commands ? count : commands;
            bytes -= payload_bytes < bytes ? payload_bytes : bytes;
        }
        workers_sleep(1000000);
        uint64_t durable = storage_persisted(storage), now_ns = workers_now_ns();
        for (; acked < durable; acked++) histogram_record(&persists, now_ns - sent_ns[(acked + 1) % DEPTH]);
        if (commit) storage_commit(storage, acked); /* persist number n is block n */
        storage_reclaim(storage);
        if (commit && since_snapshot >= SNAPSHOT_EVERY) snapshot_take();
        const char *why = NULL;
        if (storage_failed(storage, &why) != 0) die("storage", why);
    }
}

static void wait_stored(void)
{
    struct storage_status status;
    storage_commit(storage, seq);
    do {
        workers_sleep(1000000);
        storage_reclaim(storage);
        storage_status_read(storage, &status);
    } while (status.stored < seq);
}

static double file_mib(const char *name)
{
    char path[512];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return stat(path, &status) == 0 ? (double)status.st_size / 1048576 : 0;
}

static void bench_mixed(uint64_t commands)
{
    printf("%12s %9s %12s %12s %12s %12s %9s %9s\n", "commands", "MB/s", "persist p50", "p99 us", "commit p50",
           "p99 us", "live MiB", "data.mdb");
    struct storage_status status;
    for (unsigned row = 0; row < ROWS; row++) {
        unsigned mine = atomic_load(&commits_now) % 2;
        uint64_t from_ns = workers_now_ns(), from = commands_done;
        histogram_clear(&persists);
        load(commands / ROWS, 0, true);
        atomic_fetch_add(&commits_now, 1);
        wait_stored(); /* so no commit is on its way into what is read */
        storage_status_read(storage, &status);
        double seconds = (double)(workers_now_ns() - from_ns) / 1e9;
        printf("%12" PRIu64 " %9.0f %12.0f %12.0f %12.0f %12.0f %9.0f %9.0f\n", commands_done,
               (double)(commands_done - from) * 467 / seconds / 1e6, us(&persists, 50), us(&persists, 99),
               us(&commits[mine], 50), us(&commits[mine], 99), (double)status.log_bytes / 1048576,
               file_mib("data.mdb"));
        fflush(stdout);
        histogram_clear(&commits[mine]);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The same blocks while the log thread has nothing to do, and while it stores them; in turns. */
static void bench_log_thread(void)
{
    double p50[2][ROUNDS], p99[2][ROUNDS];
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned stores = 0; stores < 2; stores++) {
            wait_stored();
            histogram_clear(&persists);
            load(0, PHASE_BYTES, stores == 1);
            p50[stores][round] = us(&persists, 50);
            p99[stores][round] = us(&persists, 99);
        }
    wait_stored();
    for (unsigned stores = 0; stores < 2; stores++) {
        qsort(p50[stores], ROUNDS, sizeof(double), by_size);
        qsort(p99[stores], ROUNDS, sizeof(double), by_size);
        printf("persists of 16 KiB, log thread %s: p50 %.0f us, p99 %.0f us (medians of %d)\n",
               stores == 1 ? "stores" : "idle  ", p50[stores][ROUNDS / 2], p99[stores][ROUNDS / 2], ROUNDS);
    }
}

int main(int argc, char **argv)
{
    char path[512], name[SNAPSHOT_NAME_BYTES], why[512] = "";
    uint64_t commands = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    snprintf(directory, sizeof directory, "%s/bench-log-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    if (mkdtemp(directory) == NULL) die(directory, "cannot be made");
    lmdb = kv_lmdb();
    timed = *lmdb;
    timed.commit = timed_commit;
    random_seed(&dice, 1);
    const struct storage_options options = {.directory = directory,
                                            .ring_bytes = 64 << 20,
                                            .journal_bytes = 256 << 20,
                                            .map_bytes = (uint64_t)1 << 36,
                                            .block_bytes_max = BLOCK_BYTES_MAX,
                                            .keep_bytes = SNAPSHOT_EVERY / 4,
                                            .member_id = 1,
                                            .random_id = workers_now_ns(),
                                            .level = DURABILITY_LEVEL_FSYNC,
                                            .birth = {.next_position = 1},
                                            .disk = disk_posix(),
                                            .kv = &timed,
                                            .wake = workers_wake};
    struct storage_recovered recovered;
    workers_prepare();
    if (storage_open(&options, &storage, &recovered, why, sizeof why) != 0) die("storage", why);
    workers_start(storage);
    bench_mixed(commands);
    bench_log_thread();
    struct storage_status status;
    storage_status_read(storage, &status);
    workers_stop();
    storage_close(storage);
    uint64_t start_ns = workers_now_ns();
    if (storage_open(&options, &storage, &recovered, why, sizeof why) != 0) die("storage", why);
    printf("opened again in %.0f ms\n", (double)(workers_now_ns() - start_ns) / 1e6);
    storage_close(storage);
    static const char *const files[] = {"boot", "journal", "data.mdb", "data.mdb-lock"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, files[i]);
        unlink(path);
    }
    snapshot_file_name(name, status.snapshot);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    unlink(path);
    rmdir(directory);
    return EXIT_SUCCESS;
}
