/* SPDX-License-Identifier: Apache-2.0 */
/* driver.c - runs a fuzz target as a normal test, without libFuzzer: the files of its corpus, all their beginnings,
 * mutations of them and random bytes, from a seed. Argument: the corpus folder, which may be missing.
 * LOCKSTEP_SEED changes the mutations. With LOCKSTEP_FUZZ_FILE set, runs that file alone: to look at a finding. */
#include "base/random.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { INPUTS_MAX = 1024, INPUT_BYTES_MAX = 65536, BEGINNINGS_MAX = 512 };

struct input {
    uint8_t *bytes;
    size_t count;
};

static struct input inputs[INPUTS_MAX];
static size_t input_count;

/* Each run gets memory of exactly its size, so that AddressSanitizer sees a read behind it. */
static void run(const uint8_t *bytes, size_t count)
{
    uint8_t *copy = malloc(count > 0 ? count : 1);
    if (copy == NULL) abort();
    if (count > 0) memcpy(copy, bytes, count);
    LLVMFuzzerTestOneInput(copy, count);
    free(copy);
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || input_count == INPUTS_MAX) {
        fprintf(stderr, "%s: cannot be read, or more than %d files\n", path, INPUTS_MAX);
        exit(EXIT_FAILURE);
    }
    uint8_t *bytes = malloc(INPUT_BYTES_MAX);
    if (bytes == NULL) abort();
    inputs[input_count++] = (struct input){bytes, fread(bytes, 1, INPUT_BYTES_MAX, file)};
    fclose(file);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* not the locale's order: the same everywhere */
}

static void load_folder(const char *folder)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, by_name);
    for (int i = 0; i < count; i++) {
        char path[4096];
        if (entries[i]->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
            load(path);
        }
        free(entries[i]);
    }
    free(entries);
}

/* One change: a bit, a byte, a cut, a piece doubled, a piece of another input, a number at its edge. */
static size_t mutate(struct random *r, uint8_t *bytes, size_t count)
{
    size_t at = random_between(r, 0, count), length = random_between(r, 0, count - at);
    switch (random_below(r, 6)) {
    case 0:
        if (at < count) bytes[at] ^= (uint8_t)(1u << random_below(r, 8));
        return count;
    case 1:
        if (at < count) bytes[at] = (uint8_t)random_u64(r);
        return count;
    case 2: memmove(bytes + at, bytes + at + length, count - at - length); return count - length;
    case 3:
        if (length > INPUT_BYTES_MAX - count) return count;
        memmove(bytes + at + length, bytes + at, count - at);
        return count + length;
    case 4: {
        if (input_count == 0) return count;
        const struct input *other = &inputs[random_below(r, input_count)];
        size_t from = random_between(r, 0, other->count), piece = random_between(r, 0, other->count - from);
        if (piece > count - at) piece = count - at;
        memcpy(bytes + at, other->bytes + from, piece);
        return count;
    }
    default: {
        static const uint64_t edges[] = {0,      1,          0x7f,       0x80,       0xff,
                                         0xffff, 0x7fffffff, 0x80000000, UINT32_MAX, UINT64_MAX};
        uint64_t edge = edges[random_below(r, sizeof edges / sizeof edges[0])];
        size_t width = (size_t)1 << random_below(r, 4);
        for (size_t i = 0; i < width && at + i < count; i++) bytes[at + i] = (uint8_t)(edge >> (8 * i));
        return count;
    }
    }
}

int main(int argc, char **argv)
{
    const char *single = getenv("LOCKSTEP_FUZZ_FILE");
    if (single != NULL) {
        load(single);
        run(inputs[0].bytes, inputs[0].count);
        free(inputs[0].bytes);
        return EXIT_SUCCESS;
    }
    const char *text = getenv("LOCKSTEP_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    struct random r;
    random_seed(&r, seed);
    if (argc > 1) load_folder(argv[1]);
    printf("LOCKSTEP_SEED=0x%" PRIx64 ", %zu files\n", seed, input_count);

    run(NULL, 0);
    for (size_t i = 0; i < input_count; i++) {
        run(inputs[i].bytes, inputs[i].count);
        for (size_t cut = 0; cut < inputs[i].count && cut < BEGINNINGS_MAX; cut++) run(inputs[i].bytes, cut);
    }
    uint64_t rounds = getenv("LOCKSTEP_FULL") != NULL ? 200000 : getenv("LOCKSTEP_SHORT") != NULL ? 5000 : 20000;
    static uint8_t bytes[INPUT_BYTES_MAX];
    for (uint64_t round = 0; round < rounds; round++) {
        size_t count = 0;
        if (input_count > 0 && !random_chance(&r, 1, 10)) {
            const struct input *input = &inputs[random_below(&r, input_count)];
            memcpy(bytes, input->bytes, input->count);
            count = input->count;
        } else {
            count = random_below(&r, 512);
            random_fill(&r, bytes, count);
        }
        for (uint64_t changes = random_below(&r, 8); changes > 0; changes--) count = mutate(&r, bytes, count);
        run(bytes, count);
    }
    for (size_t i = 0; i < input_count; i++) free(inputs[i].bytes);
    return EXIT_SUCCESS;
}
