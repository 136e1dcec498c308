/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - the reader: every length is checked against what is left before it is used. */
#include "proto/wire.h"

#include "lockstep/errors.h"

static int take_varint(struct wire *wire, uint64_t *ret)
{
    uint64_t value = 0;
    if (wire->at < wire->end && *wire->at < 0x80) { /* most tags, lengths and numbers */
        *ret = *wire->at++;
        return 0;
    }
    for (unsigned shift = 0; shift < 70 && wire->at < wire->end; shift += 7) {
        uint8_t byte = *wire->at++;
        if (shift == 63 && byte > 1) return LOCKSTEP_EINVAL;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = value;
            return 0;
        }
    }
    return LOCKSTEP_EINVAL;
}

static int take_fixed(struct wire *wire, unsigned count, uint64_t *ret)
{
    if ((size_t)(wire->end - wire->at) < count) return LOCKSTEP_EINVAL;
    uint64_t value = 0;
    for (unsigned i = 0; i < count; i++) value |= (uint64_t)wire->at[i] << 8 * i;
    wire->at += count;
    *ret = value;
    return 0;
}

static int take_bytes(struct wire *wire, struct wire_field *field)
{
    uint64_t count;
    if (take_varint(wire, &count) != 0) return LOCKSTEP_EINVAL;
    if (count > (size_t)(wire->end - wire->at)) return LOCKSTEP_EINVAL;
    field->bytes = wire->at;
    field->count = (size_t)count;
    wire->at += count;
    return 0;
}

int wire_next(struct wire *wire, struct wire_field *ret)
{
    if (wire->at == wire->end) return 0;
    uint64_t tag;
    if (take_varint(wire, &tag) != 0) return LOCKSTEP_EINVAL;
    if (tag >> 3 == 0 || tag > UINT32_MAX) return LOCKSTEP_EINVAL;
    struct wire_field field = {.number = (uint32_t)(tag >> 3), .type = (enum wire_type)(tag & 7)};
    int rc;
    switch (tag & 7) {
    case WIRE_VARINT: rc = take_varint(wire, &field.value); break;
    case WIRE_FIXED64: rc = take_fixed(wire, 8, &field.value); break;
    case WIRE_BYTES: rc = take_bytes(wire, &field); break;
    case WIRE_FIXED32: rc = take_fixed(wire, 4, &field.value); break;
    default: rc = LOCKSTEP_EINVAL; break;
    }
    if (rc != 0) return rc;
    *ret = field;
    return 1;
}
