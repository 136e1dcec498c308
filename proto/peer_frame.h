/* SPDX-License-Identifier: Apache-2.0 */
/* peer_frame.h - the header of everything that one node says to another. Little-endian.
 *
 *    0 magic u32     4 crc u32 (bytes 8..31 and the fields)     8 version u16   10 type u16
 *   12 group u32    16 bytes u32 (the whole frame)             20 fields_bytes u32
 *   24 body_crc u32 (0 where the body is blocks, which carry their own checksums)   28 zero u32
 *
 *   | header 32 | fields, fields_bytes | body, to the frame's end |
 *
 * The fields are short: header and fields are checked before anything waits for a body, so that a hostile or damaged
 * length never makes a node wait for bytes that do not come.
 * Any thread; pure functions. */
#ifndef LOCKSTEP_PROTO_PEER_FRAME_H
#define LOCKSTEP_PROTO_PEER_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "proto/block.h"

enum {
    PEER_FRAME_MAGIC = 0x4650534c, /* "LSPF" */
    PEER_FRAME_VERSION = 1,
    PEER_FRAME_HEADER_BYTES = 32,
    PEER_FRAME_FIELDS_BYTES_MAX = 1024,
    PEER_FRAME_BODY_BYTES_MAX =
        BLOCK_BYTES_MAX + 4096, /* the largest block, or a command with what goes along with it */
    PEER_FRAME_BYTES_MAX = PEER_FRAME_HEADER_BYTES + PEER_FRAME_FIELDS_BYTES_MAX + PEER_FRAME_BODY_BYTES_MAX,
};

struct peer_frame_header {
    uint32_t magic;
    uint32_t crc;
    uint16_t version;
    uint16_t type;
    uint32_t group;
    uint32_t bytes;
    uint32_t fields_bytes;
    uint32_t body_crc;
    uint32_t zero;
};
_Static_assert(sizeof(struct peer_frame_header) == PEER_FRAME_HEADER_BYTES, "the header is its bytes on the wire");

static inline size_t peer_frame_body_bytes(const struct peer_frame_header *header)
{
    return header->bytes - PEER_FRAME_HEADER_BYTES - header->fields_bytes;
}

/* Complete a frame whose fields (fields_bytes) lie behind `at`: writes the header there.
 * body_bytes  of what follows the fields: at most PEER_FRAME_BODY_BYTES_MAX
 * body_crc    crc32c of the body, 0 if it is blocks or empty */
void peer_frame_seal(uint8_t *at, uint16_t type, uint32_t group, size_t fields_bytes, size_t body_bytes,
                     uint32_t body_crc);

/* Copy the header at `at` out and check it together with the fields behind it.
 * room    bytes readable at `at`
 * Errors  LOCKSTEP_EINVAL: good so far, but header and fields are not all here: come back with more
 *         LOCKSTEP_ECORRUPT: not a frame or damaged: framing is lost
 *         LOCKSTEP_EVERSION: a newer format
 * The body is not looked at. */
int peer_frame_header_read(const uint8_t *at, size_t room, struct peer_frame_header *ret);

/* Check the body of a whole frame at `at` against body_crc. Errors: LOCKSTEP_ECORRUPT. O(bytes). */
int peer_frame_body_check(const uint8_t *at, const struct peer_frame_header *header);

#endif
