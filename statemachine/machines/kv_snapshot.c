/* SPDX-License-Identifier: Apache-2.0 */
/* kv_snapshot.c - the state of the machine `kv` as bytes, and back.
 *
 *    0 magic u32   4 version u32   8 entries u64, then that many, ascending by key (bytes, then length):
 *        0 key_bytes u32   4 value_bytes u32   8 key, value
 *
 * Thread: make and restore the machine's; write any other, beside it. Owns: the copy.
 * Why a copy and no copy-on-write: the table moves its slots and entries in place, and to keep old ones readable from
 * another thread would cost every command something. Why sorted: where an entry lies depends on what was there before it
 * (growth, removals), and equal states must give equal bytes.
 * What is read was written by another process: lengths are checked before anything is allocated for them. */
#include <stdlib.h>
#include <string.h>

#include "statemachine/machines/kv_store.h"

enum { MAGIC = 0x3153564b /* "KVS1" */, VERSION = 1, HEAD_BYTES = 16, ENTRY_HEAD_BYTES = 8 };

struct kv_snapshot {
    uint64_t count;
    uint8_t **entries; /* as they are written, each behind the one that the walk met before it */
    uint8_t *bytes, *end;
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

static void copy_entry(void *context, struct kv_bytes key, struct kv_bytes value)
{
    struct kv_snapshot *snapshot = context;
    uint8_t *at = snapshot->end;
    put32(at, (uint32_t)key.count);
    put32(at + 4, (uint32_t)value.count);
    memcpy(at + ENTRY_HEAD_BYTES, key.at, key.count);
    if (value.count > 0) memcpy(at + ENTRY_HEAD_BYTES + key.count, value.at, value.count);
    snapshot->entries[snapshot->count++] = at;
    snapshot->end += ENTRY_HEAD_BYTES + key.count + value.count;
}

struct kv_snapshot *kv_snapshot_make(const struct kv_store *store)
{
    uint64_t count = kv_store_count(store);
    struct kv_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (snapshot == NULL) return NULL;
    snapshot->entries = malloc((count + 1) * sizeof *snapshot->entries);
    snapshot->bytes = malloc(kv_store_bytes(store) + count * ENTRY_HEAD_BYTES + 1);
    if (snapshot->entries == NULL || snapshot->bytes == NULL) {
        kv_snapshot_free(snapshot);
        return NULL;
    }
    snapshot->end = snapshot->bytes;
    kv_store_each(store, copy_entry, snapshot);
    return snapshot;
}

void kv_snapshot_free(struct kv_snapshot *snapshot)
{
    if (snapshot == NULL) return;
    free(snapshot->entries);
    free(snapshot->bytes);
    free(snapshot);
}

static int compare_keys(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    if (order != 0) return order;
    return a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

static int compare_entries(const void *a, const void *b)
{
    const uint8_t *x = *(uint8_t *const *)a, *y = *(uint8_t *const *)b;
    return compare_keys(x + ENTRY_HEAD_BYTES, get32(x), y + ENTRY_HEAD_BYTES, get32(y));
}

int kv_snapshot_write(struct kv_snapshot *snapshot, struct lockstep_writer *writer)
{
    uint8_t head[HEAD_BYTES];
    put32(head, MAGIC);
    put32(head + 4, VERSION);
    memcpy(head + 8, &snapshot->count, sizeof snapshot->count);
    qsort(snapshot->entries, snapshot->count, sizeof *snapshot->entries, compare_entries);
    int rc = writer->write(writer, head, sizeof head);
    for (uint64_t i = 0; i < snapshot->count && rc == 0; i++) {
        const uint8_t *entry = snapshot->entries[i];
        rc = writer->write(writer, entry, ENTRY_HEAD_BYTES + (size_t)get32(entry) + get32(entry + 4));
    }
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
