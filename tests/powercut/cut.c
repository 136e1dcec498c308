/* SPDX-License-Identifier: Apache-2.0 */
/* cut.c - crash images of a process that was recorded from its first start on: cut TRACE FOLDER COUNT SEED [flushes-lie]
 * COUNT points, spread over the recording by the seed, in order. For each the image is FOLDER/NUMBER; then one line
 * `NUMBER TIME` goes to stdout, TIME being CLOCK_MONOTONIC in ns of the last call before the cut, and a line on stdin is waited
 * for: the caller looks at the image, and removes it. flushes-lie: of a disk whose flushes do nothing, on which whoever judges
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

int main(int count, char **words)
{
    uint64_t images, seed;
    struct stat status;
    bool lie = count == 6 && strcmp(words[5], "flushes-lie") == 0;
    if ((count != 5 && !lie) || !text_parse_u64(words[3], &images) || images == 0 || !text_parse_u64(words[4], &seed))
        return fail("usage", "cut TRACE FOLDER COUNT SEED [flushes-lie]");
    int descriptor = open(words[1], O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &status) != 0 || status.st_size == 0) return fail(words[1], "no trace");
    size_t bytes = (size_t)status.st_size;
    const uint8_t *trace = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (trace == MAP_FAILED) return fail(words[1], "cannot be mapped");

    uint64_t records = 0, record = 0;
    for (size_t at = 0; at < bytes; at += trace_record_bytes((const void *)(trace + at))) records++;
    struct random dice;
    random_seed(&dice, seed);
    const struct trace_record *first = (const void *)trace;
    struct medium *medium = medium_new(first->inode, lie ? MEDIUM_FLUSHES_LIE : MEDIUM_HONEST);
    uint64_t number = 0, point = random_below(&dice, records / images + 1);
    int code = 0;
    for (size_t at = 0; at < bytes && number < images && code == 0; record++) {
        const struct trace_record *now = (const void *)(trace + at);
        at += trace_record_bytes(now);
        medium_take(medium, now);
        if (record < point && at < bytes) continue;
        code = image(medium, words[2], number, random_u64(&dice), now->time_ns);
        number++;
        point = records * number / images + random_below(&dice, records / images + 1);
    }
    medium_close(medium);
    return code;
}
