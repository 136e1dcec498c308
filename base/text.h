/* SPDX-License-Identifier: Apache-2.0 */
/* text.h - numbers, sizes and durations as people write them: "64MiB", "300ms"; what they meant when they mistyped.
 * Pure; any thread.
 * Whole numbers only, no spaces, no sign. On failure ret is untouched, and the caller names what it wanted. */
#ifndef LOCKSTEP_BASE_TEXT_H
#define LOCKSTEP_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal digits, 0..2^64-1. ret  false: anything else */
bool text_parse_u64(const char *text, uint64_t *ret);

/* A number and B, KiB, MiB, GiB or TiB (powers of 1,024). No unit is refused, so that 64 is never taken for 64 MiB.
 * KB and MB are refused: people disagree what they mean. */
bool text_parse_bytes(const char *text, uint64_t *ret_bytes);

/* A number and ns, us, ms, s, m, h or d. No unit is refused. */
bool text_parse_duration(const char *text, uint64_t *ret_ns);

/* The word that was probably meant: the one of words with the fewest letters inserted, left out, changed or swapped with
 * their neighbour, if that is at most one in three letters of it, or one; else NULL. Words over 63 bytes are passed over. */
const char *text_nearest(const char *word, const char *const *words, size_t count);

/* What an error message says is allowed. */
#define TEXT_BYTES_FORM    "a whole number with B, KiB, MiB, GiB or TiB, such as \"64MiB\""
#define TEXT_DURATION_FORM "a whole number with ns, us, ms, s, m, h or d, such as \"300ms\""

#endif
