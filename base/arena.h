/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h - memory that is handed out piece by piece and taken back all at once: one decode, one file. Its limit is the
 * byte budget of that work: hostile input gets NULL, not the machine's memory.
 * Thread: one owner each. Owns: one piece of memory, allocated at open. */
#ifndef LOCKSTEP_BASE_ARENA_H
#define LOCKSTEP_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARENA_ALIGNMENT = 16 }; /* what malloc() promises */

struct arena {
    uint8_t *memory;
    size_t used_bytes, limit_bytes;
};

/* ret  false: no memory. Allocates limit_bytes (rounded up to ARENA_ALIGNMENT); pages are touched as they are used. */
bool arena_open(struct arena *arena, size_t limit_bytes);

/* Takes a zeroed arena too. */
void arena_close(struct arena *arena);

/* ret  ARENA_ALIGNMENT-aligned bytes, not cleared, valid until reset or close; NULL: over the limit. A piece of 0 bytes
 *      has an address of its own. Never allocates, O(1). */
void *arena_allocate(struct arena *arena, size_t bytes);

/* Takes every piece back. */
void arena_reset(struct arena *arena);

#endif
