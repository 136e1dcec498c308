/* SPDX-License-Identifier: Apache-2.0 */
/* pool.c - free lists by size class. A piece is a 16-byte head and its bytes; the head holds the piece's size, so that
 * giving back needs no lookup. */
#include "proto/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

/* Under AddressSanitizer every piece goes back to the allocator, so that a use after the giving is seen. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define POOL_SANITIZED 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define POOL_SANITIZED 1
#endif
#ifdef POOL_SANITIZED
static const bool keeps_pieces = false;
#else
static const bool keeps_pieces = true;
#endif

struct pool_piece {
    size_t bytes; /* head included */
    union {
        struct pool_piece *next;   /* on a free list */
        struct pool_budget *owner; /* handed out */
    } as;
};
_Static_assert(sizeof(struct pool_piece) == 16, "keeps what follows aligned for anything");

/* Class k holds pieces of 64 << k bytes, head included. */
static size_t class_of(size_t bytes)
{
    size_t units = (bytes - 1) / POOL_PIECE_BYTES_MIN;
    return units == 0 ? 0 : 64 - (size_t)__builtin_clzll(units);
}

_Static_assert(((size_t)POOL_PIECE_BYTES_MIN << (POOL_CLASSES - 1)) == POOL_PIECE_BYTES_MAX, "the last class");

void pool_open(struct pool *pool, size_t bytes_max)
{
    *pool = (struct pool){.bytes_max = bytes_max};
}

static void release(struct pool *pool, struct pool_piece *piece)
{
    lk_assert(pool->bytes >= piece->bytes);
    pool->bytes -= piece->bytes;
    free(piece);
}

static void trim(struct pool *pool)
{
    for (size_t i = 0; i < POOL_CLASSES; i++) {
        while (pool->free[i] != NULL) {
            struct pool_piece *piece = pool->free[i];
            pool->free[i] = piece->as.next;
            release(pool, piece);
        }
    }
}

void pool_close(struct pool *pool)
{
    trim(pool);
    lk_assert(pool->bytes == 0);
}

void *pool_take(struct pool_budget *budget, size_t bytes)
{
    struct pool *pool = budget->pool;
    if (bytes > budget->bytes_max) return NULL; /* keeps the sums below from wrapping */
    size_t total = bytes + sizeof(struct pool_piece);
    size_t class = POOL_CLASSES;
    if (total <= POOL_PIECE_BYTES_MAX) {
        class = class_of(total);
        total = (size_t)POOL_PIECE_BYTES_MIN << class;
    }
    if (total > budget->bytes_max - budget->bytes) return NULL;
    struct pool_piece *piece = class < POOL_CLASSES ? pool->free[class] : NULL;
    if (piece != NULL) {
        pool->free[class] = piece->as.next;
    } else {
        if (total > pool->bytes_max - pool->bytes) {
            trim(pool); /* what lies on other lists may make room; rare, so its cost does not matter */
            if (total > pool->bytes_max - pool->bytes) return NULL;
        }
        piece = malloc(total);
        if (piece == NULL) return NULL;
        pool->bytes += total;
        piece->bytes = total;
    }
    piece->as.owner = budget;
    budget->bytes += total;
    return piece + 1;
}

void pool_give(struct pool_budget *budget, void *bytes)
{
    if (bytes == NULL) return;
    struct pool *pool = budget->pool;
    struct pool_piece *piece = (struct pool_piece *)bytes - 1;
    lk_assert(piece->as.owner == budget);
    lk_assert(budget->bytes >= piece->bytes);
    budget->bytes -= piece->bytes;
    if (!keeps_pieces || piece->bytes > POOL_PIECE_BYTES_MAX) {
        release(pool, piece);
        return;
    }
    size_t class = class_of(piece->bytes);
    piece->as.next = pool->free[class];
    pool->free[class] = piece;
}

void *pool_resize(struct pool_budget *budget, void *bytes, size_t count)
{
    if (bytes == NULL) return pool_take(budget, count);
    size_t held = ((struct pool_piece *)bytes - 1)->bytes - sizeof(struct pool_piece);
    if (count <= held) return bytes;
    void *larger = pool_take(budget, count);
    if (larger == NULL) return NULL;
    memcpy(larger, bytes, held);
    pool_give(budget, bytes);
    return larger;
}
