/* SPDX-License-Identifier: Apache-2.0 */
/* test_numbers.c - checksums, randomness, histograms, and numbers as people write them. */
#include "base/crc32c.h"
#include "base/histogram.h"
#include "base/random.h"
#include "base/text.h"
#include "tests/support/unit.h"

#include <stdlib.h>
#include <string.h>

START_TEST(crc32c_has_the_standard_values) /* RFC 3720 B.4 and the usual check value */
{
    uint8_t bytes[32];
    ck_assert_uint_eq(crc32c("123456789", 9), 0xe3069283);
    ck_assert_uint_eq(crc32c("", 0), 0);
    memset(bytes, 0, sizeof bytes);
    ck_assert_uint_eq(crc32c(bytes, sizeof bytes), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    ck_assert_uint_eq(crc32c(bytes, sizeof bytes), 0x62a8ab43);
    ck_assert_uint_eq(crc32c_extend_by_table(0, "123456789", 9), 0xe3069283);
}
END_TEST

START_TEST(crc32c_of_pieces_equals_crc32c_of_the_whole_and_the_table_agrees)
{
    struct random r;
    random_seed(&r, unit_seed(0xc3c));
    static uint8_t bytes[5000];
    for (uint64_t i = 0; i < unit_rounds(2000); i++) {
        size_t count = random_below(&r, random_chance(&r, 1, 2) ? 100 : sizeof bytes);
        size_t from = random_between(&r, 0, sizeof bytes - count); /* at any alignment */
        size_t cut = random_between(&r, 0, count);
        random_fill(&r, bytes + from, count);
        uint32_t whole = crc32c(bytes + from, count);
        ck_assert_uint_eq(crc32c_extend(crc32c(bytes + from, cut), bytes + from + cut, count - cut), whole);
        ck_assert_uint_eq(crc32c_extend_by_table(0, bytes + from, count), whole);
    }
}
END_TEST

START_TEST(random_numbers_are_the_published_sequence) /* xoshiro256** from state 1, 2, 3, 4 */
{
    struct random r = {{1, 2, 3, 4}};
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    for (int i = 0; i < 4; i++) ck_assert_uint_eq(random_u64(&r), expected[i]);
}
END_TEST

START_TEST(random_repeats_from_its_seed_and_differs_between_seeds)
{
    struct random a, b, c;
    random_seed(&a, 0);
    random_seed(&b, 0);
    random_seed(&c, 1);
    uint8_t bytes_a[37], bytes_b[37], bytes_c[37];
    random_fill(&a, bytes_a, sizeof bytes_a);
    random_fill(&b, bytes_b, sizeof bytes_b);
    random_fill(&c, bytes_c, sizeof bytes_c);
    ck_assert_mem_eq(bytes_a, bytes_b, sizeof bytes_a);
    ck_assert_mem_ne(bytes_a, bytes_c, sizeof bytes_a);
}
END_TEST

START_TEST(random_below_is_even_and_stays_below)
{
    struct random r;
    random_seed(&r, unit_seed(7));
    uint32_t seen[6] = {0};
    for (int i = 0; i < 60000; i++) {
        uint64_t number = random_below(&r, 6);
        ck_assert_uint_lt(number, 6);
        seen[number]++;
    }
    for (int i = 0; i < 6; i++) ck_assert(seen[i] > 9500 && seen[i] < 10500); /* 5 standard deviations */
    /* 2^63 + 1: a plain remainder would give the lower half of the range twice as often */
    uint64_t limit = (UINT64_C(1) << 63) + 1, low = 0;
    for (int i = 0; i < 10000; i++) low += random_below(&r, limit) < limit / 2;
    ck_assert(low > 4700 && low < 5300);
}
END_TEST

START_TEST(random_between_reaches_both_ends)
{
    struct random r;
    random_seed(&r, 3);
    bool first = false, last = false;
    for (int i = 0; i < 1000; i++) {
        uint64_t number = random_between(&r, 10, 13);
        ck_assert(number >= 10 && number <= 13);
        first = first || number == 10;
        last = last || number == 13;
    }
    ck_assert(first && last);
    ck_assert_uint_eq(random_between(&r, 5, 5), 5);
    random_between(&r, 0, UINT64_MAX);
    ck_assert(random_chance(&r, 1, 1));
    ck_assert(!random_chance(&r, 0, 1));
}
END_TEST

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The histogram's answer against the sorted values': never below, at most 1/128 above. */
static void check_quantiles(const struct histogram *h, uint64_t *values, size_t count)
{
    static const uint64_t fractions[][2] = {{0, 1}, {1, 2}, {9, 10}, {99, 100}, {999, 1000}, {9999, 10000}, {1, 1}};
    qsort(values, count, sizeof values[0], by_value);
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        uint64_t numerator = fractions[i][0], denominator = fractions[i][1];
        uint64_t rank = (count * numerator + denominator - 1) / denominator;
        uint64_t exact = values[rank > 0 ? rank - 1 : 0];
        uint64_t answer = histogram_quantile(h, numerator, denominator);
        ck_assert_uint_ge(answer, exact);
        ck_assert_uint_le(answer - exact, exact / 128);
    }
    ck_assert_uint_eq(h->count, count);
    ck_assert_uint_eq(h->min_ns, values[0]);
    ck_assert_uint_eq(h->max_ns, values[count - 1]);
}

static uint64_t values[20000];
static struct histogram whole, half;

START_TEST(histogram_quantiles_are_within_one_percent_of_the_exact_ones)
{
    struct random r;
    random_seed(&r, unit_seed(0x415));
    for (uint64_t lap = 0; lap < unit_rounds(20); lap++) {
        size_t count = random_between(&r, 1, 20000);
        histogram_clear(&whole);
        uint64_t sum = 0;
        for (size_t i = 0; i < count; i++) {
            values[i] = random_u64(&r) >> random_between(&r, 0, 63); /* all magnitudes alike */
            histogram_record(&whole, values[i]);
            sum += values[i];
        }
        check_quantiles(&whole, values, count);
        ck_assert_uint_eq(whole.sum_ns, sum);
    }
}
END_TEST

START_TEST(histogram_is_exact_for_small_values_and_at_the_edges)
{
    static const uint64_t edges[] = {0, 1, 127, 128, 129, 255, UINT64_MAX};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        histogram_clear(&whole);
        histogram_record(&whole, edges[i]);
        histogram_record(&whole, UINT64_MAX);
        ck_assert_uint_eq(histogram_quantile(&whole, 1, 2), edges[i]);
    }
    histogram_clear(&whole);
    ck_assert_uint_eq(histogram_quantile(&whole, 1, 2), 0);
}
END_TEST

START_TEST(merged_histograms_answer_as_one)
{
    struct random r;
    random_seed(&r, unit_seed(0x3e));
    histogram_clear(&whole);
    histogram_clear(&half);
    for (size_t i = 0; i < 1000; i++) {
        values[i] = random_below(&r, 1000000);
        histogram_record(i % 3 == 0 ? &half : &whole, values[i]);
    }
    histogram_merge(&whole, &half);
    check_quantiles(&whole, values, 1000);
    histogram_clear(&half);
    histogram_merge(&whole, &half); /* an empty one changes nothing */
    check_quantiles(&whole, values, 1000);
}
END_TEST

START_TEST(sizes_and_durations_are_read_as_written)
{
    static const struct {
        const char *text;
        uint64_t value;
    } sizes[] = {{"0B", 0},
                 {"1B", 1},
                 {"64KiB", 65536},
                 {"64MiB", UINT64_C(64) << 20},
                 {"3GiB", UINT64_C(3) << 30},
                 {"1TiB", UINT64_C(1) << 40}},
      durations[] = {{"0s", 0},
                     {"15ns", 15},
                     {"7us", 7000},
                     {"300ms", 300000000},
                     {"10s", UINT64_C(10000000000)},
                     {"2m", UINT64_C(120000000000)},
                     {"1h", UINT64_C(3600000000000)},
                     {"1d", UINT64_C(86400000000000)}};
    uint64_t value;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ck_assert(text_parse_bytes(sizes[i].text, &value));
        ck_assert_uint_eq(value, sizes[i].value);
    }
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        ck_assert(text_parse_duration(durations[i].text, &value));
        ck_assert_uint_eq(value, durations[i].value);
    }
    ck_assert(text_parse_u64("18446744073709551615", &value));
    ck_assert_uint_eq(value, UINT64_MAX);
}
END_TEST

START_TEST(numbers_that_are_not_quite_right_are_refused_and_change_nothing)
{
    static const char *const bad[] = {"",      "64",     "MiB",    "64MB",  "64mib", "64 MiB", " 64MiB",
                                      "-1MiB", "+1MiB",  "1.5MiB", "0x1B",  "1MiB ", "1MiBx",  "99999999999999999999B",
                                      "1e3B",  "1_000B", "ms",     "1.5ms", "300MS", "1min",   "300",
                                      "-3s",   "213504d"};
    uint64_t value = 77;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(!text_parse_bytes(bad[i], &value), "%s", bad[i]);
        ck_assert_msg(!text_parse_duration(bad[i], &value), "%s", bad[i]);
    }
    ck_assert(!text_parse_bytes("16777216TiB", &value)); /* 2^64 */
    ck_assert(!text_parse_u64("18446744073709551616", &value));
    ck_assert(!text_parse_u64("12x", &value));
    ck_assert(!text_parse_u64("", &value));
    ck_assert_uint_eq(value, 77);
}
END_TEST

START_TEST(mistyped_word_finds_the_nearest_or_none)
{
    static const char *const words[] = {"heartbeat", "election_timeout", "ring", "block", "map"};
    static const char *const meant[][2] = {
        {"heartbeet", "heartbeat"},
        {"hartbeat", "heartbeat"},
        {"heatrbeat", "heartbeat"},
        {"rnig", "ring"},
        {"rings", "ring"},
        {"blokc", "block"},
        {"map", "map"},
        {"electiontimeout", "election_timeout"},
        {"journal", NULL},
        {"", NULL},
        {"rg", NULL},
    };
    for (size_t i = 0; i < sizeof meant / sizeof *meant; i++) {
        const char *nearest = text_nearest(meant[i][0], words, 5);
        if (meant[i][1] == NULL)
            ck_assert_msg(nearest == NULL, "%s", meant[i][0]);
        else
            ck_assert_str_eq(nearest, meant[i][1]);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, mistyped_word_finds_the_nearest_or_none);
    tcase_add_test(tests, crc32c_has_the_standard_values);
    tcase_add_test(tests, crc32c_of_pieces_equals_crc32c_of_the_whole_and_the_table_agrees);
    tcase_add_test(tests, random_numbers_are_the_published_sequence);
    tcase_add_test(tests, random_repeats_from_its_seed_and_differs_between_seeds);
    tcase_add_test(tests, random_below_is_even_and_stays_below);
    tcase_add_test(tests, random_between_reaches_both_ends);
    tcase_add_test(tests, histogram_quantiles_are_within_one_percent_of_the_exact_ones);
    tcase_add_test(tests, histogram_is_exact_for_small_values_and_at_the_edges);
    tcase_add_test(tests, merged_histograms_answer_as_one);
    tcase_add_test(tests, sizes_and_durations_are_read_as_written);
    tcase_add_test(tests, numbers_that_are_not_quite_right_are_refused_and_change_nothing);
}

int main(void)
{
    return unit_main("base numbers", add);
}
