/* SPDX-License-Identifier: Apache-2.0 */
/* storage.c - what a promise costs on this disk: fdatasync alone, and persists through the journal thread with 1 and 64
 * in flight. Usage: bench_storage [DIRECTORY] [SECONDS]. The directory is made and removed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/histogram.h"
#include "storage/storage.h"
#include "tests/support/blocks.h"
#include "tests/support/workers.h"

enum { PAYLOAD_BYTES = 64, FLUSHES = 1000, FILE_BYTES = 4 << 20, PAGE = 4096 };

static struct storage *storage;
static struct histogram latency;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_storage: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void print_latency(const char *name, uint64_t count, double seconds)
{
    printf("%-24s %9.0f/s   p50 %6.0f us   p99 %6.0f us   max %6.0f us\n", name, (double)count / seconds,
           (double)histogram_quantile(&latency, 50, 100) / 1e3, (double)histogram_quantile(&latency, 99, 100) / 1e3,
           (double)latency.max_ns / 1e3);
}

/* A zero-filled file, one page and one flush after the other: what the journal cannot beat. */
static void bench_flush(const char *directory)
{
    char path[512];
    static uint8_t zeros[FILE_BYTES];
    const struct disk *disk = disk_posix();
    struct disk_file *file = NULL;
    snprintf(path, sizeof path, "%s/flush", directory);
    if (disk->open(disk->context, path, DISK_CREATE, &file) != 0) die(path, "cannot be made");
    const struct iovec all = {.iov_base = zeros, .iov_len = FILE_BYTES}, page = {.iov_base = zeros, .iov_len = PAGE};
    if (disk->pwritev(file, &all, 1, 0) != 0 || disk->flush(file, true) != 0) die(path, "cannot be written");
    histogram_clear(&latency);
    uint64_t start_ns = workers_now_ns();
    for (uint64_t i = 0; i < FLUSHES; i++) {
        uint64_t from_ns = workers_now_ns();
        if (disk->pwritev(file, &page, 1, i % (FILE_BYTES / PAGE) * PAGE) != 0 || disk->flush(file, false) != 0)
            die(path, "cannot be flushed");
        histogram_record(&latency, workers_now_ns() - from_ns);
    }
    print_latency("fdatasync of a page", FLUSHES, (double)(workers_now_ns() - start_ns) / 1e9);
    disk->close(file);
    unlink(path);
}

/* One block a persist, `depth` of them in flight, each committed as soon as it is durable. */
static void bench_persists(uint32_t depth, uint64_t seconds, uint64_t *seq)
{
    struct ring *ring = storage_ring(storage);
    struct storage_status before, after;
    uint64_t sent_ns[64], count = 0, first = *seq + 1;
    raft_index index_of_first = ring_last(ring).index + 1;
    storage_status_read(storage, &before);
    histogram_clear(&latency);
    uint64_t start_ns = workers_now_ns(), end_ns = start_ns + seconds * 1000000000u;
    for (uint64_t acked = *seq; workers_now_ns() < end_ns || acked < *seq;) {
        while (*seq - acked < depth && workers_now_ns() < end_ns) {
            struct block_base base = ring_last(ring);
            uint8_t *at = NULL;
            uint32_t bytes = blocks_bytes(1, PAYLOAD_BYTES);
            if (!storage_persist_fits(storage, bytes) || ring_claim(ring, bytes, &at) != 0) break;
            struct block_header header;
            blocks_make(at, &base, 1, 1, PAYLOAD_BYTES, base.index, &header);
            ring_publish(ring, &header);
            const struct storage_persist persist = {.seq = ++*seq, .first = header.index, .last = header.index};
            sent_ns[*seq % 64] = workers_now_ns();
            storage_persist(storage, &persist);
        }
        workers_sleep(1000000);
        uint64_t durable = storage_persisted(storage), at_ns = workers_now_ns();
        for (; acked < durable; acked++, count++) histogram_record(&latency, at_ns - sent_ns[(acked + 1) % 64]);
        if (acked >= first) storage_commit(storage, index_of_first + (acked - first));
        storage_reclaim(storage);
        const char *why = NULL;
        if (storage_failed(storage, &why) != 0) die("storage", why);
    }
    char name[64];
    snprintf(name, sizeof name, "persists, %u in flight", depth);
    print_latency(name, count, (double)(workers_now_ns() - start_ns) / 1e9);
    storage_status_read(storage, &after);
    printf("%-24s %9" PRIu64 "     a flush carries %.1f blocks, %" PRIu64 " transactions\n", "  flushes",
           after.flushes - before.flushes, (double)count / (double)(after.flushes - before.flushes),
           after.transactions - before.transactions);
}

int main(int argc, char **argv)
{
    char directory[256], path[512], why[512] = "", kind[32] = "";
    uint64_t seconds = argc > 2 ? strtoull(argv[2], NULL, 10) : 3, seq = 0;
    snprintf(directory, sizeof directory, "%s/bench-storage-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    if (mkdtemp(directory) == NULL) die(directory, "cannot be made");
    const struct storage_options options = {.directory = directory,
                                            .ring_bytes = 64 << 20,
                                            .journal_bytes = 256 << 20,
                                            .map_bytes = (uint64_t)1 << 36,
                                            .block_bytes_max = BLOCK_BYTES_MAX,
                                            .member_id = 1,
                                            .random_id = workers_now_ns(),
                                            .level = DURABILITY_LEVEL_FSYNC,
                                            .birth = {.next_position = 1},
                                            .disk = disk_posix(),
                                            .kv = kv_lmdb(),
                                            .wake = workers_wake};
    struct storage_recovered recovered;
    workers_prepare();
    disk_posix()->file_system(NULL, directory, kind, sizeof kind);
    printf("%s on %s, %d bytes of payload\n", directory, kind, PAYLOAD_BYTES);
    bench_flush(directory);
    uint64_t start_ns = workers_now_ns();
    if (storage_open(&options, &storage, &recovered, why, sizeof why) != 0) die("storage", why);
    printf("%-24s %9.1f ms\n", "first start", (double)(workers_now_ns() - start_ns) / 1e6);
    workers_start(storage);
    bench_persists(1, seconds, &seq);
    bench_persists(64, seconds, &seq);
    workers_stop();
    storage_close(storage);
    start_ns = workers_now_ns();
    if (storage_open(&options, &storage, &recovered, why, sizeof why) != 0) die("storage", why);
    printf("%-24s %9.1f ms, %" PRIu64 " blocks, %" PRIu64 " of them live\n", "second start",
           (double)(workers_now_ns() - start_ns) / 1e6, recovered.last.index, recovered.last.index - recovered.stored);
    storage_close(storage);
    static const char *const files[] = {"boot", "journal", "data.mdb", "data.mdb-lock"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, files[i]);
        unlink(path);
    }
    rmdir(directory);
    return EXIT_SUCCESS;
}
