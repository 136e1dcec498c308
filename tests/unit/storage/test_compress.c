/* SPDX-License-Identifier: Apache-2.0 */
/* test_compress.c - a stream smaller and back: the same bytes however they are cut, and never long at once. */
#include <stdint.h>
#include <string.h>

#include "base/random.h"
#include "storage/compress.h"
#include "tests/support/unit.h"

enum { BYTES = 300000, ROOM = BYTES + 4096 };

static uint8_t content[BYTES], small[ROOM], again[ROOM], back[BYTES];

/* Half of it noise, half of it text that shrinks. */
static void fill(uint64_t seed)
{
    struct random random;
    random_seed(&random, seed);
    random_fill(&random, content, BYTES);
    for (size_t i = 0; i < BYTES; i++)
        if (i / 40000 % 2 == 1) content[i] = (uint8_t) "lockstep"[i % 8];
}

/* Compress all of it, given in parts of at most `most_in` and taken in parts of at most `most_out`. How many bytes. */
static size_t compress_in_parts(struct random *random, size_t most_in, size_t most_out, uint8_t to[ROOM])
{
    struct compress *stream;
    size_t taken = 0, filled = 0;
    bool ended = false;
    ck_assert_int_eq(compress_open(&stream), 0);
    while (!ended) {
        size_t count = random_between(random, 1, most_in), room = random_between(random, 1, most_out);
        if (count > BYTES - taken) count = BYTES - taken;
        struct compress_in in = {.bytes = content + taken, .count = count};
        struct compress_out out = {.bytes = to + filled, .room = room < ROOM - filled ? room : ROOM - filled};
        ck_assert_int_eq(compress_work(stream, &in, &out, taken + count == BYTES, &ended), 0);
        ck_assert(ended || in.done == in.count || out.done == out.room);
        taken += in.done;
        filled += out.done;
        ck_assert_uint_lt(filled, ROOM);
    }
    ck_assert_uint_eq(taken, BYTES);
    compress_close(stream);
    return filled;
}

START_TEST(equal_bytes_in_give_equal_bytes_out_however_they_are_cut)
{
    struct random random;
    uint64_t seed = unit_seed(1);
    random_seed(&random, seed);
    fill(seed);
    size_t count = compress_in_parts(&random, BYTES, ROOM, small);
    for (uint64_t round = 0; round < unit_rounds(20); round++) {
        size_t most_in = (size_t)1 << random_below(&random, 19), most_out = (size_t)16 << random_below(&random, 14);
        ck_assert_uint_eq(compress_in_parts(&random, most_in, most_out, again), count);
        ck_assert_mem_eq(again, small, count);
    }
    struct expand *stream;
    struct compress_in in = {.bytes = small, .count = count};
    struct compress_out out = {.bytes = back, .room = BYTES};
    bool ended;
    ck_assert_int_eq(expand_open(&stream), 0);
    ck_assert_int_eq(expand_work(stream, &in, &out, &ended), 0);
    ck_assert(ended);
    ck_assert_mem_eq(back, content, BYTES);
    expand_close(stream);
}
END_TEST

START_TEST(a_call_compresses_its_own_bytes_and_not_those_of_many_before)
{
    struct compress *stream;
    struct expand *reads;
    size_t filled = 0, expanded = 0;
    bool ended;
    fill(1);
    ck_assert_int_eq(compress_open(&stream), 0);
    ck_assert_int_eq(expand_open(&reads), 0);
    for (size_t taken = 0; taken + 1000 <= BYTES; taken += 1000) {
        struct compress_in in = {.bytes = content + taken, .count = 1000};
        struct compress_out out = {.bytes = small + filled, .room = ROOM - filled};
        ck_assert_int_eq(compress_work(stream, &in, &out, false, &ended), 0);
        struct compress_in written = {.bytes = small + filled, .count = out.done};
        struct compress_out found = {.bytes = back + expanded, .room = BYTES - expanded};
        if (out.done > 0) ck_assert_int_eq(expand_work(reads, &written, &found, &ended), 0);
        filled += out.done;
        expanded += found.done;
        ck_assert_uint_ge(expanded, (taken + 1000) / COMPRESS_BLOCK_BYTES * COMPRESS_BLOCK_BYTES);
    }
    compress_close(stream);
    expand_close(reads);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, equal_bytes_in_give_equal_bytes_out_however_they_are_cut);
    tcase_add_test(tests, a_call_compresses_its_own_bytes_and_not_those_of_many_before);
}

int main(void)
{
    return unit_main("storage compress", add);
}
