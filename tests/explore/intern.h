/* SPDX-License-Identifier: Apache-2.0 */
/* intern.h - equal bytes get equal numbers: 0, 1, 2, ... in the order of their first coming.
 * What has been seen is compared in full, never by its hash alone. Allocates as it grows. All zero is an empty one. */
#ifndef LOCKSTEP_TESTS_EXPLORE_INTERN_H
#define LOCKSTEP_TESTS_EXPLORE_INTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct intern {
    uint32_t count;
    struct intern_item {
        const uint8_t *bytes;
        uint32_t length;
    } * items;
    uint32_t items_max;
    uint32_t *table; /* number + 1; 0 = free */
    uint32_t table_size;
    uint8_t **chunks; /* bytes are copied into chunks that never move */
    uint32_t chunk_count;
    uint32_t chunk_used; /* of the last */
};

struct hash128 {
    uint64_t high, low;
};

struct hash128 hash_bytes(const void *bytes, size_t length);

/* Memory, or the end of the program with a message. */
void *explore_allocate(size_t bytes);
void *explore_resize(void *memory, size_t bytes);

/* The number of these bytes; *ret_new: they came for the first time. */
uint32_t intern_add(struct intern *in, const void *bytes, uint32_t length, bool *ret_new);
/* They stay where they are until intern_clear. */
struct intern_item intern_get(const struct intern *in, uint32_t number);
void intern_clear(struct intern *in);

#endif
