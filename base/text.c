/* SPDX-License-Identifier: Apache-2.0 */
/* text.c - see text.h. */
#include "base/text.h"

#include <stddef.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit sizes[] = {
    {"B", 1},
    {"KiB", UINT64_C(1) << 10},
    {"MiB", UINT64_C(1) << 20},
    {"GiB", UINT64_C(1) << 30},
    {"TiB", UINT64_C(1) << 40},
};

static const struct unit durations[] = {
    {"ns", 1},
    {"us", 1000},
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", UINT64_C(60) * 1000000000},
    {"h", UINT64_C(3600) * 1000000000},
    {"d", UINT64_C(86400) * 1000000000},
};

/* Digits at the front of text; ret_rest stands behind them. */
static bool parse_digits(const char *text, uint64_t *ret, const char **ret_rest)
{
    uint64_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (number > (UINT64_MAX - digit) / 10) return false;
        number = number * 10 + digit;
    }
    if (at == text) return false;
    *ret = number;
    *ret_rest = at;
    return true;
}

static bool parse_with_unit(const char *text, const struct unit *units, size_t unit_count, uint64_t *ret)
{
    uint64_t number = 0;
    const char *rest = NULL;
    if (!parse_digits(text, &number, &rest)) return false;
    for (size_t i = 0; i < unit_count; i++) {
        if (strcmp(rest, units[i].name) != 0) continue;
        if (number > UINT64_MAX / units[i].factor) return false;
        *ret = number * units[i].factor;
        return true;
    }
    return false;
}

bool text_parse_u64(const char *text, uint64_t *ret)
{
    uint64_t number = 0;
    const char *rest = NULL;
    if (!parse_digits(text, &number, &rest) || *rest != '\0') return false;
    *ret = number;
    return true;
}

bool text_parse_bytes(const char *text, uint64_t *ret_bytes)
{
    return parse_with_unit(text, sizes, sizeof sizes / sizeof sizes[0], ret_bytes);
}

bool text_parse_duration(const char *text, uint64_t *ret_ns)
{
    return parse_with_unit(text, durations, sizeof durations / sizeof durations[0], ret_ns);
}

enum { WORD_BYTES_MAX = 63 };

/* Optimal string alignment: Levenshtein's distance with swaps of neighbours as one. O(product of the lengths). */
static size_t distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    size_t rows[3][WORD_BYTES_MAX + 1]; /* of i - 2, i - 1 and i letters of a */
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_bytes; j++) before[j] = last[j] = j;
    for (size_t i = 1; i <= a_bytes; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_bytes; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[b_bytes];
}

const char *text_nearest(const char *word, const char *const *words, size_t count)
{
    size_t word_bytes = strlen(word), best = SIZE_MAX;
    const char *nearest = NULL;
    if (word_bytes > WORD_BYTES_MAX) return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t bytes = strlen(words[i]);
        if (bytes > WORD_BYTES_MAX) continue;
        size_t allowed = bytes / 3 > 1 ? bytes / 3 : 1;
        size_t far = distance(word, word_bytes, words[i], bytes);
        if (far > allowed || far >= best) continue;
        best = far;
        nearest = words[i];
    }
    return nearest;
}
