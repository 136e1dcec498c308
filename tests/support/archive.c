/* SPDX-License-Identifier: Apache-2.0 */
/* archive.c - see archive.h. */
#include "tests/support/archive.h"

#include <check.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lockstep/errors.h"

enum { ARCHIVE_MAX = 2048, ROUNDS_MAX = 100 };

static struct storage_patch archive[ARCHIVE_MAX];
static uint32_t archived;

void archive_forget(void)
{
    while (archived > 0) free((void *)(uintptr_t)archive[--archived].block);
}

void archive_ring(const struct store *store, raft_index first)
{
    struct ring_slot slot;
    for (raft_index i = first; i <= ring_last(store->ring).index; i++) {
        if (ring_find(store->ring, i, &slot) != 0) continue;
        uint8_t *copy = malloc(slot.bytes);
        memcpy(copy, ring_at(store->ring, slot.pos), slot.bytes);
        ck_assert_uint_lt(archived, ARCHIVE_MAX);
        archive[archived++] =
            (struct storage_patch){.index = i, .crc = slot.header_crc, .bytes = slot.bytes, .block = copy};
    }
}

static const struct storage_patch *find(const struct storage_missing *missing, const char *why)
{
    uint32_t a = 0;
    while (a < archived && (archive[a].index != missing->index || archive[a].crc != missing->crc)) a++;
    ck_assert_msg(a < archived, "nobody ever had block %" PRIu64 " %x: %s", missing->index, missing->crc, why);
    return &archive[a];
}

int archive_open(struct store *store, uint32_t *ret_asked)
{
    static struct storage_patch patches[ARCHIVE_MAX];
    uint32_t count = 0;
    store->options.patches = patches;
    for (int rounds = 0;; rounds++) {
        ck_assert_int_lt(rounds, ROUNDS_MAX);
        store->options.patch_count = count;
        int rc = store_open(store);
        if (rc != LOCKSTEP_ECORRUPT || store->recovered.missing_count == 0) {
            store->options.patch_count = 0;
            *ret_asked = count;
            return rc;
        }
        for (uint32_t m = 0; m < store->recovered.missing_count; m++) {
            struct storage_missing missing = store->recovered.missing[m];
            ck_assert(missing.first <= missing.index && missing.first > 0);
            while (missing.index >= missing.first) {
                struct block_header header;
                ck_assert_uint_lt(count, ARCHIVE_MAX);
                patches[count] = *find(&missing, store->why);
                ck_assert_int_eq(block_header_read(patches[count].block, patches[count].bytes, &header), 0);
                count++;
                missing.index--;
                missing.crc = header.previous_crc;
            }
        }
    }
}
