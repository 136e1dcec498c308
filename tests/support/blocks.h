/* SPDX-License-Identifier: Apache-2.0 */
/* blocks.h - blocks for tests: whole, chained, with recognisable payloads. */
#ifndef LOCKSTEP_TESTS_SUPPORT_BLOCKS_H
#define LOCKSTEP_TESTS_SUPPORT_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/block.h"

/* A block behind *base with `commands` commands of payload_bytes each, filled from `fill`. `to` has room. *base moves on.
 * Returns the block's bytes. */
uint32_t blocks_make(uint8_t *to, struct block_base *base, raft_term term, uint32_t commands, uint32_t payload_bytes,
                     uint64_t fill, struct block_header *ret_header);

/* Bytes that blocks_make() will write. */
uint32_t blocks_bytes(uint32_t commands, uint32_t payload_bytes);

#endif
