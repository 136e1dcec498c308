/* SPDX-License-Identifier: Apache-2.0 */
/* peer_frame.c - the header of a peer frame: sealed by the sender, checked by the receiver. Any thread; owns nothing.
 * Nothing behind a failed check is looked at; the header is copied out first and the copy is used. */
#include "proto/peer_frame.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats are little-endian and written as they lie");

enum { CRC_FROM = 8 }; /* magic and crc itself are not covered */

void peer_frame_seal(uint8_t *at, uint16_t type, uint32_t group, size_t fields_bytes, size_t body_bytes,
                     uint32_t body_crc)
{
    lk_assert(fields_bytes <= PEER_FRAME_FIELDS_BYTES_MAX);
    lk_assert(body_bytes <= PEER_FRAME_BODY_BYTES_MAX);
    struct peer_frame_header header = {
        .magic = PEER_FRAME_MAGIC,
        .version = PEER_FRAME_VERSION,
        .type = type,
        .group = group,
        .bytes = (uint32_t)(PEER_FRAME_HEADER_BYTES + fields_bytes + body_bytes),
        .fields_bytes = (uint32_t)fields_bytes,
        .body_crc = body_crc,
    };
    memcpy(at, &header, sizeof header);
    header.crc = crc32c(at + CRC_FROM, PEER_FRAME_HEADER_BYTES - CRC_FROM + fields_bytes);
    memcpy(at + offsetof(struct peer_frame_header, crc), &header.crc, sizeof header.crc);
}

int peer_frame_header_read(const uint8_t *at, size_t room, struct peer_frame_header *ret)
{
    struct peer_frame_header header = {0};
    memcpy(&header, at, room < sizeof header ? room : sizeof header);
    /* Garbage is named by its first four bytes, before the rest is waited for. */
    if (room >= sizeof header.magic && header.magic != PEER_FRAME_MAGIC) return LOCKSTEP_ECORRUPT;
    if (room < sizeof header) return LOCKSTEP_EINVAL;
    if (header.version > PEER_FRAME_VERSION) return LOCKSTEP_EVERSION;
    if (header.version != PEER_FRAME_VERSION) return LOCKSTEP_ECORRUPT;
    if (header.fields_bytes > PEER_FRAME_FIELDS_BYTES_MAX) return LOCKSTEP_ECORRUPT;
    if (header.bytes < PEER_FRAME_HEADER_BYTES + header.fields_bytes) return LOCKSTEP_ECORRUPT;
    if (peer_frame_body_bytes(&header) > PEER_FRAME_BODY_BYTES_MAX) return LOCKSTEP_ECORRUPT;
    if (room < PEER_FRAME_HEADER_BYTES + header.fields_bytes) return LOCKSTEP_EINVAL;
    if (crc32c(at + CRC_FROM, PEER_FRAME_HEADER_BYTES - CRC_FROM + header.fields_bytes) != header.crc)
        return LOCKSTEP_ECORRUPT;
    if (header.zero != 0) return LOCKSTEP_ECORRUPT;
    *ret = header;
    return 0;
}

int peer_frame_body_check(const uint8_t *at, const struct peer_frame_header *header)
{
    const uint8_t *body = at + PEER_FRAME_HEADER_BYTES + header->fields_bytes;
    return crc32c(body, peer_frame_body_bytes(header)) == header->body_crc ? 0 : LOCKSTEP_ECORRUPT;
}
