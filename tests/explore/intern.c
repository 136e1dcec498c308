/* SPDX-License-Identifier: Apache-2.0 */
/* intern.c - see intern.h. */
#include "tests/explore/intern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { CHUNK_BYTES = 1 << 20 };

void *explore_resize(void *memory, size_t bytes)
{
    void *ret = realloc(memory, bytes);
    if (ret == NULL) {
        fprintf(stderr, "explore: no memory for %zu bytes\n", bytes);
        exit(2);
    }
    return ret;
}

void *explore_allocate(size_t bytes)
{
    return memset(explore_resize(NULL, bytes), 0, bytes);
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 32)) * 0xd6e8feb86659fd93;
    z = (z ^ (z >> 29)) * 0x9fb21c651e98df25;
    return z ^ (z >> 32);
}

struct hash128 hash_bytes(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    uint64_t a = 0x9e3779b97f4a7c15 ^ length, b = 0xc2b2ae3d27d4eb4f + length, word;
    for (; length >= sizeof word; length -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        a = mix(a ^ word);
        b = mix((b + word) * 0x9e3779b97f4a7c15);
    }
    word = 0;
    memcpy(&word, at, length);
    a = mix(a ^ word);
    b = mix((b + word) * 0x9e3779b97f4a7c15);
    return (struct hash128){.high = mix(a + b), .low = mix(b ^ (a << 1))};
}

static uint32_t slot_of(const struct intern *in, const void *bytes, uint32_t length)
{
    uint32_t at = (uint32_t)hash_bytes(bytes, length).low & (in->table_size - 1);
    while (in->table[at] != 0) {
        const struct intern_item *item = &in->items[in->table[at] - 1];
        if (item->length == length && memcmp(item->bytes, bytes, length) == 0) break;
        at = (at + 1) & (in->table_size - 1);
    }
    return at;
}

static void grow(struct intern *in)
{
    in->table_size = in->table_size == 0 ? 1024 : in->table_size * 2;
    free(in->table);
    in->table = explore_allocate(in->table_size * sizeof in->table[0]);
    for (uint32_t i = 0; i < in->count; i++) in->table[slot_of(in, in->items[i].bytes, in->items[i].length)] = i + 1;
}

uint32_t intern_add(struct intern *in, const void *bytes, uint32_t length, bool *ret_new)
{
    lk_assert(length <= CHUNK_BYTES);
    if (2 * (in->count + 1) > in->table_size) grow(in);
    uint32_t at = slot_of(in, bytes, length);
    *ret_new = in->table[at] == 0;
    if (!*ret_new) return in->table[at] - 1;
    if (in->count == in->items_max) {
        in->items_max = in->items_max == 0 ? 256 : in->items_max * 2;
        in->items = explore_resize(in->items, in->items_max * sizeof in->items[0]);
    }
    if (in->chunk_count == 0 || in->chunk_used + length > CHUNK_BYTES) {
        in->chunks = explore_resize(in->chunks, (in->chunk_count + 1) * sizeof in->chunks[0]);
        in->chunks[in->chunk_count++] = explore_allocate(CHUNK_BYTES);
        in->chunk_used = 0;
    }
    uint8_t *place = in->chunks[in->chunk_count - 1] + in->chunk_used;
    memcpy(place, bytes, length);
    in->chunk_used += (length + 7) & ~7u;
    in->items[in->count] = (struct intern_item){.bytes = place, .length = length};
    in->table[at] = ++in->count;
    return in->count - 1;
}

struct intern_item intern_get(const struct intern *in, uint32_t number)
{
    lk_assert(number < in->count);
    return in->items[number];
}

void intern_clear(struct intern *in)
{
    for (uint32_t i = 0; i < in->chunk_count; i++) free(in->chunks[i]);
    free(in->chunks);
    free(in->items);
    free(in->table);
    *in = (struct intern){0};
}
