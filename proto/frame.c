/* SPDX-License-Identifier: Apache-2.0 */
/* frame.c - the header of a peer frame: sealed by the sender, checked by the receiver. Any thread; owns nothing.
 * Nothing behind a failed check is looked at; the header is copied out first and the copy is used. */
#include "proto/frame.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats are little-endian and written as they lie");

enum { CRC_FROM = 8 }; /* magic and crc itself are not covered */

void frame_seal(uint8_t *at, uint16_t type, uint32_t group, size_t fields_bytes, size_t body_bytes, uint32_t body_crc)
{
    lk_assert(fields_bytes <= FRAME_FIELDS_BYTES_MAX);
    lk_assert(body_bytes <= FRAME_BODY_BYTES_MAX);
    struct frame_header header = {
        .magic = FRAME_MAGIC,
        .version = FRAME_VERSION,
        .type = type,
        .group = group,
        .bytes = (uint32_t)(FRAME_HEADER_BYTES + fields_bytes + body_bytes),
        .fields_bytes = (uint32_t)fields_bytes,
        .body_crc = body_crc,
    };
    memcpy(at, &header, sizeof header);
    header.crc = crc32c(at + CRC_FROM, FRAME_HEADER_BYTES - CRC_FROM + fields_bytes);
    memcpy(at + offsetof(struct frame_header, crc), &header.crc, sizeof header.crc);
}

int frame_header_read(const uint8_t *at, size_t room, struct frame_header *ret)
{
    struct frame_header header = {0};
    memcpy(&header, at, room < sizeof header ? room : sizeof header);
    /* Garbage is named by its first four bytes, before the rest is waited for. */
    if (room >= sizeof header.magic && header.magic != FRAME_MAGIC) return LOCKSTEP_ECORRUPT;
    if (room < sizeof header) return LOCKSTEP_EINVAL;
    if (header.version > FRAME_VERSION) return LOCKSTEP_EVERSION;
    if (header.version != FRAME_VERSION) return LOCKSTEP_ECORRUPT;
    if (header.fields_bytes > FRAME_FIELDS_BYTES_MAX) return LOCKSTEP_ECORRUPT;
    if (header.bytes < FRAME_HEADER_BYTES + header.fields_bytes) return LOCKSTEP_ECORRUPT;
    if (frame_body_bytes(&header) > FRAME_BODY_BYTES_MAX) return LOCKSTEP_ECORRUPT;
    if (room < FRAME_HEADER_BYTES + header.fields_bytes) return LOCKSTEP_EINVAL;
    if (crc32c(at + CRC_FROM, FRAME_HEADER_BYTES - CRC_FROM + header.fields_bytes) != header.crc)
        return LOCKSTEP_ECORRUPT;
    if (header.zero != 0) return LOCKSTEP_ECORRUPT;
    *ret = header;
    return 0;
}

int frame_body_check(const uint8_t *at, const struct frame_header *header)
{
    const uint8_t *body = at + FRAME_HEADER_BYTES + header->fields_bytes;
    return crc32c(body, frame_body_bytes(header)) == header->body_crc ? 0 : LOCKSTEP_ECORRUPT;
}
