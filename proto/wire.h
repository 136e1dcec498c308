/* SPDX-License-Identifier: Apache-2.0 */
/* wire.h - protobuf's wire format, field by field: reading without memory, and writing into room that was sized before.
 * Pure; any thread. Nothing here recurses: a nested message is a field whose bytes the caller may read in turn.
 * Why by hand: protobuf-c allocates and copies every bytes field, and the hot messages go straight into the log.
 * Source: the protobuf project's encoding document. */
#ifndef LOCKSTEP_PROTO_WIRE_H
#define LOCKSTEP_PROTO_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* The bytes of a message that are still to be read. */
struct wire {
    const uint8_t *at, *end;
};

struct wire_field {
    uint32_t number; /* 1..2^29-1 */
    enum wire_type type;
    uint64_t value;       /* of a varint, fixed32 or fixed64 */
    const uint8_t *bytes; /* WIRE_BYTES: where they lie */
    size_t count;
};

static inline struct wire wire_of(const uint8_t *bytes, size_t count)
{
    return (struct wire){bytes, bytes + count};
}

/* ret  1: *ret is the next field; 0: the message is complete
 * Errors  LOCKSTEP_EINVAL: truncated, a varint over 64 bits, field number 0, or a group (which proto3 does not have) */
int wire_next(struct wire *wire, struct wire_field *ret);

enum { WIRE_VARINT_BYTES_MAX = 10 };

static inline size_t wire_varint_bytes(uint64_t value)
{
    return (size_t)(70 - __builtin_clzll(value | 1)) / 7; /* ceil(significant bits / 7) */
}

static inline uint8_t *wire_put_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

/* Fields with a number up to 15, whose tag is one byte: all of the hot messages. A field that holds its default (zero,
 * empty) is not written, as proto3 wants it; its size then is 0. */
static inline size_t wire_uint_bytes(uint64_t value)
{
    return value == 0 ? 0 : 1 + wire_varint_bytes(value);
}

static inline uint8_t *wire_put_uint(uint8_t *to, uint32_t number, uint64_t value)
{
    if (value == 0) return to;
    *to++ = (uint8_t)(number << 3 | WIRE_VARINT);
    return wire_put_varint(to, value);
}

static inline size_t wire_fixed64_bytes(uint64_t value)
{
    return value == 0 ? 0 : 9;
}

static inline uint8_t *wire_put_fixed64(uint8_t *to, uint32_t number, uint64_t value)
{
    if (value == 0) return to;
    *to++ = (uint8_t)(number << 3 | WIRE_FIXED64);
    for (int i = 0; i < 8; i++) to[i] = (uint8_t)(value >> 8 * i);
    return to + 8;
}

/* The tag and length of a bytes field or nested message, written also when count is 0. */
static inline size_t wire_head_bytes(size_t count)
{
    return 1 + wire_varint_bytes(count);
}

static inline uint8_t *wire_put_head(uint8_t *to, uint32_t number, size_t count)
{
    *to++ = (uint8_t)(number << 3 | WIRE_BYTES);
    return wire_put_varint(to, count);
}

static inline size_t wire_bytes_bytes(size_t count)
{
    return count == 0 ? 0 : wire_head_bytes(count) + count;
}

static inline uint8_t *wire_put_bytes(uint8_t *to, uint32_t number, const void *bytes, size_t count)
{
    if (count == 0) return to;
    to = wire_put_head(to, number, count);
    memcpy(to, bytes, count);
    return to + count;
}

#endif
