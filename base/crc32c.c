/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c.c - see crc32c.h. ISA-L's crc32_iscsi() leaves the inversions before and after to its caller. */
#include "base/crc32c.h"

#ifdef LOCKSTEP_HAVE_ISAL
#include <isa-l/crc.h>
#endif

#define NIBBLE(n)      NIBBLE_STEP(NIBBLE_STEP(NIBBLE_STEP(NIBBLE_STEP((uint32_t)(n)))))
#define NIBBLE_STEP(c) (((c) >> 1) ^ (((c)&1u) != 0 ? 0x82f63b78u : 0u)) /* the polynomial 0x1edc6f41, bits reversed */

/* Half a byte at a time: 64 bytes of table, made by the compiler, so that nothing needs to be started. */
static const uint32_t nibbles[16] = {
    NIBBLE(0), NIBBLE(1), NIBBLE(2),  NIBBLE(3),  NIBBLE(4),  NIBBLE(5),  NIBBLE(6),  NIBBLE(7),
    NIBBLE(8), NIBBLE(9), NIBBLE(10), NIBBLE(11), NIBBLE(12), NIBBLE(13), NIBBLE(14), NIBBLE(15),
};

uint32_t crc32c_extend_by_table(uint32_t crc, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    uint32_t c = ~crc;
    for (size_t i = 0; i < count; i++) {
        c ^= at[i];
        c = (c >> 4) ^ nibbles[c & 15];
        c = (c >> 4) ^ nibbles[c & 15];
    }
    return ~c;
}

uint32_t crc32c_extend(uint32_t crc, const void *bytes, size_t count)
{
#ifdef LOCKSTEP_HAVE_ISAL
    const size_t piece_max = 1u << 30;                     /* its length is an int */
    unsigned char *at = (unsigned char *)(uintptr_t)bytes; /* its parameter lacks a const; it only reads */
    while (count > piece_max) {
        crc = ~crc32_iscsi(at, (int)piece_max, ~crc);
        at += piece_max;
        count -= piece_max;
    }
    return ~crc32_iscsi(at, (int)count, ~crc);
#else
    return crc32c_extend_by_table(crc, bytes, count);
#endif
}

uint32_t crc32c(const void *bytes, size_t count)
{
    return crc32c_extend(0, bytes, count);
}
