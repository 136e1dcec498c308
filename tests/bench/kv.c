/* SPDX-License-Identifier: Apache-2.0 */
/* kv.c - how fast kv applies: one thread, no host, batches of 1,000 commands laid out beforehand.
 * bench_kv [KEYS [VALUE_BYTES]], a million keys of 64 bytes if not given. Prints million commands a second of processor time. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "lockstep/machine.h"

enum { BATCH = 1000, TEXT_BYTES = 128 };

struct feed {
    struct lockstep_batch face;
    struct lockstep_command command;
    uint8_t *texts;
    size_t *lengths;
    unsigned next, rejected;
};

static uint64_t keys = 1000000;
static unsigned value_bytes = 64;

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const struct lockstep_command *next(struct lockstep_batch *batch)
{
    struct feed *feed = (struct feed *)(void *)batch;
    if (feed->next == BATCH) return NULL;
    feed->command.payload = feed->texts + feed->next * (size_t)(TEXT_BYTES + value_bytes);
    feed->command.payload_bytes = feed->lengths[feed->next++];
    feed->command.position++;
    return &feed->command;
}

static unsigned rejected;

static void answer(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code, const void *bytes,
                   size_t count)
{
    (void)replies;
    (void)code;
    (void)bytes;
    (void)count;
    if (outcome != LOCKSTEP_OK) rejected++;
}

/* Apply `batches` batches of commands that write(number) makes; only apply is timed. */
static void measure(void *machine, struct feed *feed, const char *name, uint64_t batches,
                    int (*write)(char *to, uint64_t number))
{
    struct lockstep_replies replies = {.size = sizeof replies, .answer = answer};
    double seconds = 0, slowest = 0;
    rejected = 0;
    for (uint64_t i = 0; i < batches; i++) {
        for (unsigned j = 0; j < BATCH; j++) {
            char *to = (char *)feed->texts + j * (size_t)(TEXT_BYTES + value_bytes);
            feed->lengths[j] = (size_t)write(to, i * BATCH + j);
        }
        feed->next = 0;
        double start = now_s();
        if (lockstep_machine.apply(machine, &feed->face, &replies) != 0) abort();
        double took = now_s() - start;
        seconds += took;
        if (took > slowest) slowest = took;
    }
    printf("%-28s %6.2f M/s, slowest 1,000 commands %7.0f us, %u rejected\n", name,
           (double)(batches * BATCH) / seconds / 1e6, slowest * 1e6, rejected);
}

static struct random source;
static char value[65536];

static int put_new(char *to, uint64_t number)
{
    return sprintf(to, "put key%" PRIu64 " %.*s", number, (int)value_bytes, value);
}

static int put_again(char *to, uint64_t number)
{
    (void)number;
    return sprintf(to, "put key%" PRIu64 " %.*s", random_below(&source, keys), (int)value_bytes, value);
}

static int get_any(char *to, uint64_t number)
{
    (void)number;
    return sprintf(to, "get key%" PRIu64, random_below(&source, keys));
}

static int incr_few(char *to, uint64_t number)
{
    (void)number;
    return sprintf(to, "incr n%" PRIu64 " 1", random_below(&source, 1000));
}

static int append_one(char *to, uint64_t number)
{
    return sprintf(to, "append log%" PRIu64 " 0123456789", number / 50000);
}

static int delete_all(char *to, uint64_t number)
{
    return sprintf(to, "del key%" PRIu64, number);
}

static uint64_t written;

static int swallow(struct lockstep_writer *writer, const void *bytes, size_t count)
{
    (void)writer;
    (void)bytes;
    written += count;
    return 0;
}

static void measure_snapshot(void *machine)
{
    struct lockstep_writer writer = {.size = sizeof writer, .write = swallow};
    void *snapshot;
    double start = now_s();
    if (lockstep_machine.snapshot_begin(machine, &snapshot) != 0) abort();
    double begun = now_s();
    if (lockstep_machine.snapshot_write(machine, snapshot, &writer) != 0) abort();
    double end = now_s();
    lockstep_machine.snapshot_end(machine, snapshot);
    printf("snapshot of %.0f MiB          begin (in the machine's turn) %.0f ms, write (beside it) %.0f ms\n",
           (double)written / (1 << 20), (begun - start) * 1e3, (end - begun) * 1e3);
}

int main(int argc, char **argv)
{
    if (argc > 1) keys = strtoull(argv[1], NULL, 10);
    if (argc > 2) value_bytes = (unsigned)strtoul(argv[2], NULL, 10);
    if (keys < BATCH || value_bytes > sizeof value) return 2;
    memset(value, 'v', sizeof value);
    random_seed(&source, 1);
    struct lockstep_host host = {.size = sizeof host, .abi = LOCKSTEP_MACHINE_ABI};
    void *machine;
    struct feed feed = {.face = {.size = sizeof feed.face, .next = next},
                        .command = {.size = sizeof feed.command},
                        .texts = malloc(BATCH * (size_t)(TEXT_BYTES + value_bytes)),
                        .lengths = malloc(BATCH * sizeof(size_t))};
    if (feed.texts == NULL || feed.lengths == NULL || lockstep_machine.open(&host, &machine) != 0) return 1;
    printf("%" PRIu64 " keys, %u bytes a value\n", keys, value_bytes);
    measure(machine, &feed, "put, new keys", keys / BATCH, put_new);
    measure(machine, &feed, "put, existing keys", keys / BATCH, put_again);
    measure(machine, &feed, "get", keys / BATCH, get_any);
    measure_snapshot(machine);
    measure(machine, &feed, "incr, 1,000 keys", keys / BATCH, incr_few);
    measure(machine, &feed, "append, to half a MiB", 200, append_one);
    measure(machine, &feed, "del, all keys", keys / BATCH, delete_all);
    lockstep_machine.close(machine);
    free(feed.texts);
    free(feed.lengths);
    return 0;
}
