/* SPDX-License-Identifier: Apache-2.0 */
/* arena.c - see arena.h. Under AddressSanitizer, memory that is not handed out is poisoned. */
#include "base/arena.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISON 1
#endif
#endif

#ifdef ARENA_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

static size_t aligned(size_t bytes)
{
    return (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

bool arena_open(struct arena *arena, size_t limit_bytes)
{
    lk_assert(limit_bytes > 0);
    lk_assert(limit_bytes <= SIZE_MAX / 2);
    memset(arena, 0, sizeof *arena);
    arena->memory = aligned_alloc(ARENA_ALIGNMENT, aligned(limit_bytes));
    if (arena->memory == NULL) return false;
    arena->limit_bytes = aligned(limit_bytes);
    ASAN_POISON_MEMORY_REGION(arena->memory, arena->limit_bytes);
    return true;
}

void arena_close(struct arena *arena)
{
    if (arena->memory != NULL) ASAN_UNPOISON_MEMORY_REGION(arena->memory, arena->limit_bytes);
    free(arena->memory);
    memset(arena, 0, sizeof *arena);
}

void *arena_allocate(struct arena *arena, size_t bytes)
{
    size_t room = arena->limit_bytes - arena->used_bytes;
    if (bytes == 0) bytes = 1;
    if (bytes > room) return NULL; /* before rounding up, which could overflow */
    uint8_t *piece = arena->memory + arena->used_bytes;
    arena->used_bytes += aligned(bytes);
    lk_assert(arena->used_bytes <= arena->limit_bytes); /* room is a multiple of the alignment */
    ASAN_UNPOISON_MEMORY_REGION(piece, bytes);
    return piece;
}

void arena_reset(struct arena *arena)
{
    arena->used_bytes = 0;
    ASAN_POISON_MEMORY_REGION(arena->memory, arena->limit_bytes);
}
