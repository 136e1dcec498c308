/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h - the memory of the client edge: size classes with free lists under one bound, a budget for each connection.
 * Thread: the one that owns the pool (the loop; a client library's caller). Owns: every piece it handed out.
 * 1  A pool never holds more than bytes_max from the allocator: beyond it, and beyond a budget, the answer is NULL,
 *    and the connection that asked is closed by its codec. So a hostile connection is bounded by its own budget, and
 *    all of them together by the pool.
 * 2  Pieces of up to POOL_PIECE_BYTES_MAX are kept on free lists when they come back: in the steady state nothing is
 *    allocated. Larger ones (long messages) go to the allocator and back.
 * Why: nghttp2 allocates a dozen small pieces for every request; from these lists they cost a few ns each. */
#ifndef LOCKSTEP_PROTO_POOL_H
#define LOCKSTEP_PROTO_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { POOL_CLASSES = 11, POOL_PIECE_BYTES_MIN = 64, POOL_PIECE_BYTES_MAX = 65536 };

struct pool_piece;

struct pool {
    size_t bytes_max;
    size_t bytes; /* taken from the allocator, free lists included */
    struct pool_piece *free[POOL_CLASSES];
};

/* What one connection may hold of a pool. */
struct pool_budget {
    struct pool *pool;
    size_t bytes_max;
    size_t bytes;
};

void pool_open(struct pool *pool, size_t bytes_max);
/* Every piece must have come back. */
void pool_close(struct pool *pool);

/* ret NULL when the budget, the pool or the host has no more. 16-byte aligned, not cleared. */
void *pool_take(struct pool_budget *budget, size_t bytes);
/* NULL is allowed. */
void pool_give(struct pool_budget *budget, void *piece);
/* Like realloc(): on NULL the old piece is untouched. */
void *pool_resize(struct pool_budget *budget, void *piece, size_t bytes);

#endif
