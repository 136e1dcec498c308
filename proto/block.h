/* SPDX-License-Identifier: Apache-2.0 */
/* block.h - the unit of the log: 0..N commands under one 64-byte header. One Raft entry is one block.
 * A block is the same bytes in the ring, on the wire, in the journal and as LMDB value. Little-endian.
 *
 *    0 magic u32         4 header_crc u32 (bytes 8..63)   8 body_crc u32    12 bytes u32 (header included)
 *   16 version u16      18 type u16                      20 count u32      24 index u64
 *   32 term u64         40 time_ns u64                   48 first_position u64
 *   56 group u32        60 previous_crc u32 (header_crc of the block before it)
 *
 * A command is a 32-byte header and its payload, padded with zeros (which are checked) to 8:
 *    0 bytes u32 (payload without padding)  4 kind u16  6 flags u16  8 session u64  16 seq u64  24 entity u64
 *
 * Invariants: nothing behind a failed check is parsed; the header is copied out, checked, and the copy is used.
 * Since header_crc covers body_crc and previous_crc, one header_crc names a block and all that came before it. */
#ifndef LOCKSTEP_PROTO_BLOCK_H
#define LOCKSTEP_PROTO_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"

enum {
    BLOCK_MAGIC = 0x4b4c534c, /* "LSLK" */
    BLOCK_VERSION = 1,
    BLOCK_HEADER_BYTES = 64,
    COMMAND_HEADER_BYTES = 32,
    BLOCK_BYTES_MAX = 4 << 20, /* the largest block ever accepted; configuration only lowers what is sealed */
};

enum block_type {
    BLOCK_COMMANDS = 1,            /* count may be 0 */
    BLOCK_TERM = 2,                /* a term's first block, no commands */
    BLOCK_CONFIGURATION = 3,       /* a membership configuration as body */
    BLOCK_TYPE_IGNORABLE = 0x8000, /* an unknown type with this bit may be ignored; without it the node parks */
};

/* Whose a command is: the machine's, or the host's, which keeps the sessions (their payload is empty). */
enum command_kind {
    COMMAND_MACHINE = 0,
    COMMAND_SESSION_OPEN = 1,  /* its position becomes the session's id */
    COMMAND_SESSION_KEEP = 2,  /* session: which one */
    COMMAND_SESSION_CLOSE = 3, /* session: which one */
};

struct block_header {
    uint32_t magic;
    uint32_t header_crc;
    uint32_t body_crc;
    uint32_t bytes;
    uint16_t version;
    uint16_t type;
    uint32_t count;
    raft_index index;
    raft_term term;
    uint64_t time_ns;
    log_position first_position;
    uint32_t group;
    uint32_t previous_crc;
};
_Static_assert(sizeof(struct block_header) == BLOCK_HEADER_BYTES, "the header is its bytes on disk");

struct command_header {
    uint32_t bytes;
    uint16_t kind;
    uint16_t flags;
    uint64_t session;
    uint64_t seq;
    uint64_t entity;
};
_Static_assert(sizeof(struct command_header) == COMMAND_HEADER_BYTES, "the header is its bytes on disk");

/* The last block before a log begins: what the next one must chain to. Index 0 is the cluster's birth. */
struct block_base {
    raft_index index;
    raft_term term;
    uint32_t crc; /* header_crc of that block, 0 at birth */
    log_position next_position;
    uint64_t time_ns;
};

/* One command of a checked block. payload points into the block and dies with it; it has no alignment. */
struct command_view {
    struct command_header header;
    const uint8_t *payload;
    log_position position;
};

/* Bytes that a command with this payload takes in a block, padding included. */
static inline size_t command_bytes(size_t payload_bytes)
{
    return COMMAND_HEADER_BYTES + ((payload_bytes + 7) & ~(size_t)7);
}

/* Append one command to a block's body. `at` has room for command_bytes(header->bytes). Returns the bytes written. */
size_t command_write(uint8_t *at, const struct command_header *header, const void *payload);

/* Complete a block whose body (header->bytes - 64 bytes) lies behind `block`: fills magic, version and both
 * checksums and writes the header there. The caller filled everything else. */
void block_seal(uint8_t *block, struct block_header *header);

/* Copy the header at `at` out and check it by itself: magic, version, checksum, length range.
 * room         bytes readable at `at`
 * Errors       LOCKSTEP_EINVAL: fewer than 64 bytes; LOCKSTEP_ECORRUPT: not a block header or damaged, or its length
 *              is below 64, above BLOCK_BYTES_MAX or no multiple of 8; LOCKSTEP_EVERSION: a newer format,
 *              ret->version says which
 * Any thread. The body behind it is not looked at. */
int block_header_read(const uint8_t *at, size_t room, struct block_header *ret);

/* Check a whole block of header->bytes at `block`: body checksum, and for BLOCK_COMMANDS that the commands fill the
 * body exactly, are `count` many, and padding is zero. Errors: LOCKSTEP_ECORRUPT. Any thread, O(bytes). */
int block_body_check(const uint8_t *block, const struct block_header *header);

/* Whether `next` may follow `base`: index, previous_crc, first_position, term and time_ns.
 * Errors: LOCKSTEP_ECORRUPT. */
int block_chain_check(const struct block_base *base, const struct block_header *next);

/* The base that the block after `header` must chain to. */
struct block_base block_base_after(const struct block_header *header);

/* Walk the commands of a checked block:  struct block_cursor c = block_cursor(block, &header);
 *                                        while (block_cursor_next(&c, &command)) ... */
struct block_cursor {
    const uint8_t *at, *end;
    log_position position;
};
struct block_cursor block_cursor(const uint8_t *block, const struct block_header *header);
bool block_cursor_next(struct block_cursor *cursor, struct command_view *ret);

#endif
