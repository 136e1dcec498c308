/* SPDX-License-Identifier: Apache-2.0 */
/* cut.c - crash images of a process that was recorded from its first start on:
 *   cut TRACE FOLDER COUNT SEED [flushes-lie]
 *   cut TRACE FOLDER @TIME SEED
 * COUNT points, spread over the recording by the seed, in order. For each the image is FOLDER/NUMBER; then one line
 * `NUMBER TIME` goes to stdout, TIME being CLOCK_MONOTONIC in ns of the last call before the cut, and a line on stdin is waited
 * for: the caller looks at the image, and removes it. @TIME: one image, FOLDER/0, of what had happened by then. flushes-lie: of a disk whose flushes do nothing, on which whoever judges
 * the images has to find something. Thread: one. Exit: 0; 1 with a line on stderr. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "base/text.h"
#include "tests/powercut/medium.h"

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "cut: %s: %s\n", what, why);
    return 1;
}

static int image(const struct medium *medium, const char *folder, uint64_t number, uint64_t seed, uint64_t time_ns)
{
    char path[1024], line[16];
    snprintf(path, sizeof path, "%s/%" PRIu64, folder, number);
    if (mkdir(path, 0700) != 0) return fail(path, "cannot be made");
    medium_image(medium, seed, path);
    printf("%" PRIu64 " %" PRIu64 "\n", number, time_ns);
    fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL ? 0 : fail("stdin", "ended early");
}

/* A recording, and where to go on with it. */
struct replay {
    const uint8_t *bytes;
    size_t count, at;
    struct medium *medium;
};

static const struct trace_record *next(const struct replay *replay)
{
    return replay->at < replay->count ? (const void *)(replay->bytes + replay->at) : NULL;
}

static uint64_t take_next(struct replay *replay)
{
    const struct trace_record *record = next(replay);
    medium_take(replay->medium, record);
    replay->at += trace_record_bytes(record);
    return record->time_ns;
}

static int cut_often(struct replay *replay, const char *folder, uint64_t images, uint64_t seed)
{
    uint64_t records = 0, taken = 0, time_ns = 0;
    struct random dice;
    random_seed(&dice, seed);
    for (size_t at = 0; at < replay->count; records++) at += trace_record_bytes((const void *)(replay->bytes + at));
    for (uint64_t number = 0; number < images; number++) {
        uint64_t point = records * number / images + random_below(&dice, records / images + 1);
        for (; taken <= point && next(replay) != NULL; taken++) time_ns = take_next(replay);
        int rc = image(replay->medium, folder, number, random_u64(&dice), time_ns);
        if (rc != 0) return rc;
    }
    return 0;
}

static int cut_at(struct replay *replay, const char *folder, uint64_t time_ns, uint64_t seed)
{
    while (next(replay) != NULL && next(replay)->time_ns <= time_ns) take_next(replay);
    return image(replay->medium, folder, 0, seed, time_ns);
}

int main(int count, char **words)
{
    uint64_t number, seed;
    struct stat status;
    bool lie = count == 6 && strcmp(words[5], "flushes-lie") == 0;
    bool at_time = count == 5 && words[3][0] == '@';
    if ((count != 5 && !lie) || !text_parse_u64(words[3] + at_time, &number) || number == 0 ||
        !text_parse_u64(words[4], &seed))
        return fail("usage", "cut TRACE FOLDER COUNT|@TIME SEED [flushes-lie]");
    int descriptor = open(words[1], O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &status) != 0 || status.st_size == 0) return fail(words[1], "no trace");
    struct replay replay = {.count = (size_t)status.st_size};
    replay.bytes = mmap(NULL, replay.count, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (replay.bytes == MAP_FAILED) return fail(words[1], "cannot be mapped");
    replay.medium = medium_new(next(&replay)->inode, lie ? MEDIUM_FLUSHES_LIE : MEDIUM_HONEST);
    int code = at_time ? cut_at(&replay, words[2], number, seed) : cut_often(&replay, words[2], number, seed);
    medium_close(replay.medium);
    return code;
}
