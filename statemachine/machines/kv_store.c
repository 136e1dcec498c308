/* SPDX-License-Identifier: Apache-2.0 */
/* kv_store.c - an open-addressing hash table over entries in size-class slabs.
 * Thread: the machine's. Owns: tables, slabs, large entries.
 *
 *   slot {hash, entry} -> entry {hash of the value's whole chunks, lengths, key bytes, value bytes, room}
 *
 * K1  The hash is fixed, without a seed: nothing here can differ between replicas. (The price: who may write can choose
 *     keys that collide; then an operation costs O(collisions), and memory stays what it is.)
 * K2  The hash of the state is the sum, lane by lane, of one strong 128-bit hash an entry: no order of insertion, size
 *     of the table or layout of memory enters it, and a change costs the hash of the entry alone.
 * K3  An entry's hash starts from its key's and absorbs 16 bytes of value at a time; the state behind the last whole
 *     chunk is kept, so that an append hashes what was added and taking an entry out hashes its tail alone.
 * K4  A table that grows is not copied at once: each change moves OLD_SLOTS_A_CHANGE slots of the old one. A key is in
 *     exactly one of the two. Growth is at 5/8; the old table is empty before the new one can be that full:
 *     5/8 n changes move at least 4 * 5/8 n > n slots.
 * Source: the mixing step is wyhash's 64x64 -> 128 multiply, with its inputs folded in, so that no word loses them. */
#include "statemachine/machines/kv_store.h"

#include <stdlib.h>
#include <string.h>

__extension__ typedef unsigned __int128 uint128;

enum {
    SLOTS_MIN = 1024,
    OLD_SLOTS_A_CHANGE = 4,
    UNIT_BYTES = 16,      /* sizes of entries are multiples of it */
    SLAB_BYTES = 1 << 20, /* entries are cut from slabs of this size ... */
    SLAB_CLASSES = 44,    /* ... up to 64 KiB; larger ones are malloc's */
    VACATED = 1,          /* the hash of an old table's slot whose entry has moved or gone: probing passes it */
};

struct entry {
    uint64_t low, high; /* K3 */
    uint32_t value_bytes;
    uint16_t key_bytes;
    uint8_t size_class;
    uint8_t bytes[]; /* key, value, room */
};

struct slot {
    uint64_t hash;
    struct entry *entry;
};

struct table {
    struct slot *slots;
    uint64_t mask; /* slots - 1 */
};

struct slab {
    struct slab *next;
    uint64_t unused;
    uint8_t bytes[SLAB_BYTES];
};

struct free_entry {
    struct free_entry *next;
};

struct kv_store {
    struct table table;
    struct table old; /* slots NULL: nothing to move */
    uint64_t old_next;
    uint64_t count;
    uint64_t bytes;           /* of keys and values */
    struct lockstep_hash sum; /* K2 */
    struct slab *slabs;
    size_t slab_used; /* bytes of the first slab */
    struct free_entry *free_entries[SLAB_CLASSES];
};

/* --- hashing --- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint128 product = (uint128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64) ^ a ^ b;
}

static struct lockstep_hash absorb(struct lockstep_hash hash, uint64_t first, uint64_t second)
{
    struct lockstep_hash next;
    next.low = mix(first ^ UINT64_C(0xa0761d6478bd642f), second ^ hash.low);
    next.high = mix(second ^ UINT64_C(0xe7037ed1a0b428db), first ^ hash.high);
    return next;
}

static uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word); /* little-endian hosts only, as the log is */
    return word;
}

/* Absorb the whole chunks of bytes[0..count). */
static struct lockstep_hash absorb_chunks(struct lockstep_hash hash, const uint8_t *bytes, size_t count)
{
    for (; count >= 16; bytes += 16, count -= 16) hash = absorb(hash, word_at(bytes), word_at(bytes + 8));
    return hash;
}

/* The hash of `count` bytes whose whole chunks were absorbed and whose last count % 16 bytes are `tail`. */
static struct lockstep_hash finish(struct lockstep_hash hash, const uint8_t *tail, uint64_t count)
{
    uint8_t last[16] = {0};
    if (count % 16 != 0) memcpy(last, tail, count % 16);
    hash = absorb(hash, word_at(last), word_at(last + 8));
    struct lockstep_hash end;
    end.low = mix(hash.low ^ UINT64_C(0x8ebc6af09c88c6e3), hash.high ^ count);
    end.high = mix(hash.high ^ UINT64_C(0x589965cc75374cc3), hash.low + count);
    return end;
}

static struct lockstep_hash hash_key(struct kv_bytes key)
{
    struct lockstep_hash start = {UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xc2b2ae3d27d4eb4f)};
    return finish(absorb_chunks(start, key.at, key.count), key.at + key.count / 16 * 16, key.count);
}

static uint8_t *value_of(const struct entry *entry)
{
    return (uint8_t *)(uintptr_t)entry->bytes + entry->key_bytes;
}

static struct lockstep_hash entry_hash(const struct entry *entry)
{
    struct lockstep_hash chunks = {entry->low, entry->high};
    return finish(chunks, value_of(entry) + entry->value_bytes / 16 * 16, entry->value_bytes);
}

static void sum_add(struct kv_store *store, const struct entry *entry)
{
    struct lockstep_hash hash = entry_hash(entry);
    store->bytes += entry->key_bytes + (uint64_t)entry->value_bytes;
    store->sum.low += hash.low;
    store->sum.high += hash.high;
}

static void sum_take(struct kv_store *store, const struct entry *entry)
{
    struct lockstep_hash hash = entry_hash(entry);
    store->bytes -= entry->key_bytes + (uint64_t)entry->value_bytes;
    store->sum.low -= hash.low;
    store->sum.high -= hash.high;
}

/* --- memory: sizes in classes, 16 bytes apart up to 128, then four a doubling --- */

static unsigned class_of(size_t bytes)
{
    uint64_t units = (bytes + UNIT_BYTES - 1) / UNIT_BYTES;
    if (units <= 8) return (unsigned)units - 1;
    unsigned shift = (unsigned)(63 - __builtin_clzll(units - 1)) - 2;
    return 8 + (shift - 1) * 4 + (unsigned)((units - 1) >> shift) - 4;
}

static size_t class_bytes(unsigned size_class)
{
    if (size_class < 8) return (size_class + 1) * (size_t)UNIT_BYTES;
    unsigned shift = (size_class - 8) / 4 + 1;
    return ((size_t)((size_class - 8) % 4 + 5) << shift) * UNIT_BYTES;
}

static void *class_allocate(struct kv_store *store, unsigned size_class)
{
    if (size_class >= SLAB_CLASSES) return malloc(class_bytes(size_class));
    struct free_entry *again = store->free_entries[size_class];
    if (again != NULL) {
        store->free_entries[size_class] = again->next;
        return again;
    }
    if (store->slabs == NULL || SLAB_BYTES - store->slab_used < class_bytes(size_class)) {
        struct slab *slab = malloc(sizeof *slab);
        if (slab == NULL) return NULL;
        slab->next = store->slabs;
        store->slabs = slab;
        store->slab_used = 0;
    }
    void *at = store->slabs->bytes + store->slab_used;
    store->slab_used += class_bytes(size_class);
    return at;
}

static void entry_free(struct kv_store *store, struct entry *entry)
{
    unsigned size_class = entry->size_class;
    if (size_class >= SLAB_CLASSES) {
        free(entry);
        return;
    }
    struct free_entry *again = (struct free_entry *)(void *)entry;
    again->next = store->free_entries[size_class];
    store->free_entries[size_class] = again;
}

static unsigned entry_class(size_t key_bytes, size_t value_bytes)
{
    return class_of(offsetof(struct entry, bytes) + key_bytes + value_bytes);
}

/* An entry for the key with room for a value of value_bytes, which is empty at first. NULL: out of memory. */
static struct entry *entry_make(struct kv_store *store, struct kv_bytes key, struct lockstep_hash key_hash,
                                size_t value_bytes)
{
    unsigned size_class = entry_class(key.count, value_bytes);
    struct entry *entry = class_allocate(store, size_class);
    if (entry == NULL) return NULL;
    entry->low = key_hash.low;
    entry->high = key_hash.high;
    entry->value_bytes = 0;
    entry->key_bytes = (uint16_t)key.count;
    entry->size_class = (uint8_t)size_class;
    memcpy(entry->bytes, key.at, key.count);
    return entry;
}

/* Behind this, the value is longer by bytes.count; there is room. */
static void entry_extend(struct entry *entry, struct kv_bytes bytes)
{
    if (bytes.count == 0) return;
    uint8_t *value = value_of(entry);
    size_t hashed = entry->value_bytes / 16 * 16;
    memcpy(value + entry->value_bytes, bytes.at, bytes.count);
    entry->value_bytes += (uint32_t)bytes.count;
    struct lockstep_hash chunks = {entry->low, entry->high};
    chunks = absorb_chunks(chunks, value + hashed, entry->value_bytes - hashed);
    entry->low = chunks.low;
    entry->high = chunks.high;
}

/* --- the table --- */

static struct slot *table_find(const struct table *table, uint64_t hash, struct kv_bytes key)
{
    for (uint64_t i = hash & table->mask;; i = (i + 1) & table->mask) {
        struct slot *slot = &table->slots[i];
        if (slot->entry == NULL) {
            if (slot->hash == VACATED) continue;
            return NULL;
        }
        if (slot->hash == hash && slot->entry->key_bytes == key.count &&
            memcmp(slot->entry->bytes, key.at, key.count) == 0)
            return slot;
    }
}

static struct slot *find(const struct kv_store *store, uint64_t hash, struct kv_bytes key)
{
    struct slot *slot = table_find(&store->table, hash, key);
    if (slot == NULL && store->old.slots != NULL) slot = table_find(&store->old, hash, key);
    return slot;
}

/* The key is not in the table. */
static void table_insert(struct table *table, uint64_t hash, struct entry *entry)
{
    uint64_t i = hash & table->mask;
    while (table->slots[i].entry != NULL) i = (i + 1) & table->mask;
    table->slots[i].hash = hash;
    table->slots[i].entry = entry;
}

/* Empty a slot of the live table; what had been pushed behind it moves up, so that no probe ends too early. */
static void table_remove(struct table *table, struct slot *slot)
{
    uint64_t hole = (uint64_t)(slot - table->slots);
    for (uint64_t i = (hole + 1) & table->mask; table->slots[i].entry != NULL; i = (i + 1) & table->mask) {
        uint64_t home = table->slots[i].hash & table->mask;
        if (((i - home) & table->mask) < ((i - hole) & table->mask)) continue; /* its home lies behind the hole */
        table->slots[hole] = table->slots[i];
        hole = i;
    }
    table->slots[hole].hash = 0;
    table->slots[hole].entry = NULL;
}

static void move_old_slots(struct kv_store *store)
{
    if (store->old.slots == NULL) return;
    for (unsigned i = 0; i < OLD_SLOTS_A_CHANGE && store->old_next <= store->old.mask; i++) {
        struct slot *slot = &store->old.slots[store->old_next++];
        if (slot->entry == NULL) continue; /* an empty slot stays empty: it is what ends a probe */
        table_insert(&store->table, slot->hash, slot->entry);
        slot->hash = VACATED;
        slot->entry = NULL;
    }
    if (store->old_next <= store->old.mask) return;
    free(store->old.slots);
    store->old.slots = NULL;
}

/* Room for one more key. False: out of memory. */
static bool make_room(struct kv_store *store)
{
    uint64_t slots = store->table.mask + 1;
    if ((store->count + 1) * 8 <= slots * 5) return true;
    struct slot *larger = calloc(slots * 2, sizeof *larger);
    if (larger == NULL) return false;
    store->old = store->table; /* nothing is being moved: K4 */
    store->old_next = 0;
    store->table.slots = larger;
    store->table.mask = slots * 2 - 1;
    return true;
}

/* --- operations --- */

struct kv_store *kv_store_open(void)
{
    struct kv_store *store = calloc(1, sizeof *store);
    if (store == NULL) return NULL;
    store->table.slots = calloc(SLOTS_MIN, sizeof *store->table.slots);
    store->table.mask = SLOTS_MIN - 1;
    if (store->table.slots == NULL) {
        free(store);
        return NULL;
    }
    return store;
}

static void table_close(struct table *table)
{
    if (table->slots == NULL) return;
    for (uint64_t i = 0; i <= table->mask; i++) {
        struct entry *entry = table->slots[i].entry;
        if (entry != NULL && entry->size_class >= SLAB_CLASSES) free(entry);
    }
    free(table->slots);
}

void kv_store_close(struct kv_store *store)
{
    if (store == NULL) return;
    table_close(&store->table);
    table_close(&store->old);
    while (store->slabs != NULL) {
        struct slab *slab = store->slabs;
        store->slabs = slab->next;
        free(slab);
    }
    free(store);
}

bool kv_store_get(const struct kv_store *store, struct kv_bytes key, struct kv_bytes *ret_value)
{
    const struct slot *slot = find(store, hash_key(key).low, key);
    if (slot == NULL) return false;
    ret_value->at = value_of(slot->entry);
    ret_value->count = slot->entry->value_bytes;
    return true;
}

/* What `key` holds becomes the first kept_bytes of its present value and `bytes` behind them. */
static bool change(struct kv_store *store, struct kv_bytes key, bool keep_value, struct kv_bytes bytes)
{
    move_old_slots(store);
    struct lockstep_hash key_hash = hash_key(key);
    struct slot *slot = find(store, key_hash.low, key);
    struct entry *entry = slot != NULL ? slot->entry : NULL;
    size_t kept = keep_value && entry != NULL ? entry->value_bytes : 0;
    unsigned size_class = entry_class(key.count, kept + bytes.count);
    if (entry == NULL && !make_room(store)) return false;

    struct entry *target = entry;
    if (entry == NULL || entry->size_class != size_class) {
        target = entry_make(store, key, key_hash, kept + bytes.count);
        if (target == NULL) return false;
    }
    if (entry != NULL) sum_take(store, entry);
    if (target == entry && kept == 0) {
        entry->low = key_hash.low;
        entry->high = key_hash.high;
        entry->value_bytes = 0;
    } else if (target != entry && kept > 0) {
        memcpy(value_of(target), value_of(entry), kept);
        target->low = entry->low;
        target->high = entry->high;
        target->value_bytes = (uint32_t)kept;
    }
    entry_extend(target, bytes);
    sum_add(store, target);

    if (slot == NULL) {
        table_insert(&store->table, key_hash.low, target);
        store->count++;
    } else if (target != entry) {
        slot->entry = target;
        entry_free(store, entry);
    }
    return true;
}

bool kv_store_put(struct kv_store *store, struct kv_bytes key, struct kv_bytes value)
{
    return change(store, key, false, value);
}

bool kv_store_append(struct kv_store *store, struct kv_bytes key, struct kv_bytes bytes)
{
    return change(store, key, true, bytes);
}

bool kv_store_delete(struct kv_store *store, struct kv_bytes key)
{
    move_old_slots(store);
    uint64_t hash = hash_key(key).low;
    struct slot *slot = table_find(&store->table, hash, key);
    bool in_old = slot == NULL && store->old.slots != NULL;
    if (in_old) slot = table_find(&store->old, hash, key);
    if (slot == NULL) return false;
    struct entry *entry = slot->entry;
    sum_take(store, entry);
    if (in_old) {
        slot->hash = VACATED;
        slot->entry = NULL;
    } else {
        table_remove(&store->table, slot);
    }
    entry_free(store, entry);
    store->count--;
    return true;
}

uint64_t kv_store_count(const struct kv_store *store)
{
    return store->count;
}

struct lockstep_hash kv_store_hash(const struct kv_store *store)
{
    struct lockstep_hash hash = store->sum;
    return finish(absorb(hash, store->count, 0), NULL, 0);
}

uint64_t kv_store_bytes(const struct kv_store *store)
{
    return store->bytes;
}

static void table_each(const struct table *table, void (*each)(void *, struct kv_bytes, struct kv_bytes), void *context)
{
    if (table->slots == NULL) return;
    for (uint64_t i = 0; i <= table->mask; i++) {
        const struct entry *entry = table->slots[i].entry;
        if (entry == NULL) continue;
        each(context, (struct kv_bytes){entry->bytes, entry->key_bytes},
             (struct kv_bytes){value_of(entry), entry->value_bytes});
    }
}

void kv_store_each(const struct kv_store *store,
                   void (*each)(void *context, struct kv_bytes key, struct kv_bytes value), void *context)
{
    table_each(&store->table, each, context);
    table_each(&store->old, each, context);
}
