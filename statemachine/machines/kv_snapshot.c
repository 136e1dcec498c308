/* SPDX-License-Identifier: Apache-2.0 */
/* kv_snapshot.c - the state of the machine `kv` as bytes, and back.
 *
 *    0 magic u32   4 version u32   8 entries u64, then that many, ascending by key (bytes, then length):
 *        0 key_bytes u32   4 value_bytes u32   8 key, value
 *
 * Thread: restore the machine's; write any other, beside it. Why sorted: where an entry lies depends on what was there before it
 * (growth, removals), and equal states must give equal bytes.
 * What is read was written by another process: lengths are checked before anything is allocated for them. */
#include <stdlib.h>
#include <string.h>

#include "statemachine/machines/kv_store.h"

enum { MAGIC = 0x3153564b /* "KVS1" */, VERSION = 1, HEAD_BYTES = 16, ENTRY_HEAD_BYTES = 8 };

/* An entry of a frozen state: its value lies behind its key. */
struct place {
    const uint8_t *key;
    uint32_t key_bytes, value_bytes;
};

struct places {
    uint64_t count;
    struct place *list;
};

static void put32(uint8_t *to, uint32_t value)
{
    memcpy(to, &value, sizeof value); /* little-endian hosts only, as the log is */
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void note_entry(void *context, struct kv_bytes key, uint32_t value_bytes)
{
    struct places *places = context;
    places->list[places->count++] = (struct place){key.at, (uint32_t)key.count, value_bytes};
}

static int compare_keys(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    if (order != 0) return order;
    return a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return compare_keys(x->key, x->key_bytes, y->key, y->key_bytes);
}

int kv_snapshot_write(const struct kv_frozen *frozen, struct lockstep_writer *writer)
{
    uint8_t head[HEAD_BYTES], entry_head[ENTRY_HEAD_BYTES];
    struct places places = {.list = malloc((kv_frozen_count(frozen) + 1) * sizeof(struct place))};
    if (places.list == NULL) return -1;
    kv_frozen_each(frozen, note_entry, &places);
    qsort(places.list, places.count, sizeof *places.list, compare_places);
    put32(head, MAGIC);
    put32(head + 4, VERSION);
    memcpy(head + 8, &places.count, sizeof places.count);
    int rc = writer->write(writer, head, sizeof head);
    for (uint64_t i = 0; i < places.count && rc == 0; i++) {
        const struct place *place = &places.list[i];
        put32(entry_head, place->key_bytes);
        put32(entry_head + 4, place->value_bytes);
        rc = writer->write(writer, entry_head, sizeof entry_head);
        if (rc == 0) rc = writer->write(writer, place->key, (size_t)place->key_bytes + place->value_bytes);
    }
    free(places.list);
    return rc;
}

/* Exactly so many bytes. Negative: there are fewer, or the reader's error. */
static int read_all(struct lockstep_reader *reader, uint8_t *to, size_t bytes)
{
    while (bytes > 0) {
        size_t count = 0;
        int rc = reader->read(reader, to, bytes, &count);
        if (rc != 0) return rc;
        if (count == 0 || count > bytes) return -1;
        to += count;
        bytes -= count;
    }
    return 0;
}

/* One entry, whose key lies behind `before`. room: what two keys and a value take. */
static int restore_entry(struct kv_store *store, struct lockstep_reader *reader, uint8_t *room, uint8_t *before,
                         size_t *before_bytes)
{
    uint8_t head[ENTRY_HEAD_BYTES];
    int rc = read_all(reader, head, sizeof head);
    if (rc != 0) return rc;
    size_t key_bytes = get32(head), value_bytes = get32(head + 4);
    if (key_bytes == 0 || key_bytes > KV_KEY_BYTES_MAX || value_bytes > KV_VALUE_BYTES_MAX) return -1;
    rc = read_all(reader, room, key_bytes + value_bytes);
    if (rc != 0) return rc;
    if (*before_bytes > 0 && compare_keys(before, *before_bytes, room, key_bytes) >= 0) return -1;
    memcpy(before, room, key_bytes);
    *before_bytes = key_bytes;
    bool stored =
        kv_store_put(store, (struct kv_bytes){room, key_bytes}, (struct kv_bytes){room + key_bytes, value_bytes});
    return stored ? 0 : -1;
}

int kv_snapshot_restore(struct kv_store *store, struct lockstep_reader *reader)
{
    uint8_t head[HEAD_BYTES], before[KV_KEY_BYTES_MAX], behind;
    size_t before_bytes = 0, more = 0;
    uint64_t count;
    int rc = read_all(reader, head, sizeof head);
    if (rc != 0) return rc;
    if (get32(head) != MAGIC || get32(head + 4) != VERSION) return -1;
    memcpy(&count, head + 8, sizeof count);
    uint8_t *room = malloc(KV_KEY_BYTES_MAX + KV_VALUE_BYTES_MAX);
    if (room == NULL) return -1;
    for (; count > 0 && rc == 0; count--) rc = restore_entry(store, reader, room, before, &before_bytes);
    free(room);
    if (rc == 0) rc = reader->read(reader, &behind, 1, &more);
    if (rc == 0 && more != 0) rc = -1;
    return rc;
}
