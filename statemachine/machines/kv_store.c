/* SPDX-License-Identifier: Apache-2.0 */
/* kv_store.c - an open-addressing hash table, in chunks, over entries in size-class slabs.
 * Thread: the machine's; a frozen state is read by any other. Owns: tables, slabs, large entries.
 *
 *   table -> chunks of slots {hash, entry} -> entry {hash of the value's whole chunks, lengths, key bytes, value bytes, room}
 *
 * K1  The hash is fixed, without a seed: nothing here can differ between replicas. (The price: who may write can choose
 *     keys that collide; then an operation costs O(collisions), and memory stays what it is.)
 * K2  The hash of the state is the sum, lane by lane, of one strong 128-bit hash an entry: no order of insertion, size
 *     of the table or layout of memory enters it, and a change costs the hash of the entry alone.
 * K3  An entry's hash starts from its key's and absorbs 16 bytes of value at a time; the state behind the last whole
 *     chunk is kept, so that an append hashes what was added and taking an entry out hashes its tail alone.
 * K4  A table that grows is not copied at once: each change moves OLD_SLOTS_A_CHANGE slots of the old one. A key is in
 *     exactly one of the two. Growth is at 5/8; the old table is empty before the new one can be that full:
 *     5/8 n changes move at least 4 * 5/8 n > n slots, and then drop a chunk each. The larger one's chunks are made when
 *     they are first used.
 * K5  Freezing copies the list of chunks, 8 bytes for 1,024 slots, and nothing else. While a state is frozen, what it
 *     shows is not changed: a chunk older than it is copied before its first change, an entry older than it is replaced
 *     and never written to. What was replaced is retired; after the thaw each change frees a few of those.
 * Source: the mixing step is wyhash's 64x64 -> 128 multiply, with its inputs folded in, so that no word loses them. */
#include "statemachine/machines/kv_store.h"

#include <stdlib.h>
#include <string.h>

__extension__ typedef unsigned __int128 uint128;

enum {
    CHUNK_SLOTS = 1024,
    SLOTS_MIN = CHUNK_SLOTS,
    OLD_SLOTS_A_CHANGE = 4,
    RETIRED_A_BLOCK = 510,
    FREED_A_CHANGE = 4,
    UNIT_BYTES = 16,      /* sizes of entries are multiples of it */
    SLAB_BYTES = 1 << 20, /* entries are cut from slabs of this size ... */
    SLAB_CLASSES = 44,    /* ... up to 64 KiB; larger ones are malloc's */
    VACATED = 1,          /* the hash of an old table's slot whose entry has gone: probing passes it */
};

struct entry {
    uint64_t low, high; /* K3 */
    uint32_t value_bytes;
    uint32_t epoch; /* of the store when it was made: K5 */
    uint16_t key_bytes;
    uint8_t size_class;
    uint8_t bytes[]; /* key, value, room */
};

struct slot {
    uint64_t hash;
    struct entry *entry;
};

struct chunk {
    uint32_t epoch;
    struct slot slots[CHUNK_SLOTS];
};

struct table {
    struct chunk **chunks; /* NULL among them: all its slots are empty */
    uint64_t mask;         /* slots - 1 */
};

/* What a frozen state may still show, to be freed later. Bit 0 of an item: a chunk, else an entry. */
struct retired {
    struct retired *next;
    uint64_t count;
    uintptr_t items[RETIRED_A_BLOCK];
};

struct retired_list {
    struct retired *first, *last;
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
    struct table old;  /* chunks NULL: nothing to move */
    uint64_t old_next; /* slots of the old one below it have moved; beyond its end it counts the chunks that are gone */
    uint32_t epoch;    /* how often it was frozen */
    bool frozen;
    struct retired_list retired; /* since it was frozen */
    struct retired_list free;    /* shown by nobody any more */
    uint64_t count;
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
    store->sum.low += hash.low;
    store->sum.high += hash.high;
}

static void sum_take(struct kv_store *store, const struct entry *entry)
{
    struct lockstep_hash hash = entry_hash(entry);
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
    entry->epoch = store->epoch;
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

/* --- what a frozen state shows --- */

static bool is_shown(const struct kv_store *store, uint32_t epoch)
{
    return store->frozen && epoch != store->epoch;
}

/* Room to retire two more. False: out of memory. */
static bool retire_room(struct kv_store *store)
{
    struct retired_list *list = &store->retired;
    if (list->first != NULL && list->first->count + 2 <= RETIRED_A_BLOCK) return true;
    struct retired *block = malloc(sizeof *block);
    if (block == NULL) return false;
    block->count = 0;
    block->next = list->first;
    list->first = block;
    if (list->last == NULL) list->last = block;
    return true;
}

static void retire(struct kv_store *store, uintptr_t item)
{
    struct retired *block = store->retired.first;
    block->items[block->count++] = item;
}

static void free_item(struct kv_store *store, uintptr_t item)
{
    if (item & 1)
        free((void *)(item & ~(uintptr_t)1));
    else
        entry_free(store, (struct entry *)item);
}

/* A few of what nobody shows any more. */
static void free_some(struct kv_store *store)
{
    struct retired_list *list = &store->free;
    for (unsigned i = 0; i < FREED_A_CHANGE && list->first != NULL; i++) {
        struct retired *block = list->first;
        if (block->count > 0) free_item(store, block->items[--block->count]);
        if (block->count > 0) continue;
        list->first = block->next;
        if (list->first == NULL) list->last = NULL;
        free(block);
    }
}

/* There is room to retire. */
static void chunk_drop(struct kv_store *store, struct chunk *chunk)
{
    if (chunk != NULL && is_shown(store, chunk->epoch))
        retire(store, (uintptr_t)chunk | 1);
    else
        free(chunk);
}

static void entry_drop(struct kv_store *store, struct entry *entry)
{
    if (is_shown(store, entry->epoch))
        retire(store, (uintptr_t)entry);
    else
        entry_free(store, entry);
}

/* --- the table --- */

static const struct slot *slot_at(const struct table *table, uint64_t i)
{
    static const struct slot empty;
    const struct chunk *chunk = table->chunks[i / CHUNK_SLOTS];
    return chunk != NULL ? &chunk->slots[i % CHUNK_SLOTS] : &empty;
}

/* The slot, to be changed. NULL: out of memory. One is left of the room to retire. */
static struct slot *slot_writable(struct kv_store *store, struct table *table, uint64_t i)
{
    struct chunk **chunk = &table->chunks[i / CHUNK_SLOTS];
    if (*chunk == NULL) {
        *chunk = calloc(1, sizeof **chunk);
        if (*chunk == NULL) return NULL;
        (*chunk)->epoch = store->epoch;
    } else if (is_shown(store, (*chunk)->epoch)) {
        struct chunk *copy = retire_room(store) ? malloc(sizeof *copy) : NULL;
        if (copy == NULL) return NULL;
        memcpy(copy, *chunk, sizeof *copy);
        copy->epoch = store->epoch;
        chunk_drop(store, *chunk);
        *chunk = copy;
    }
    return &(*chunk)->slots[i % CHUNK_SLOTS];
}

/* Where the key is. moved: entries in slots below it are not there any more. */
static bool table_find(const struct table *table, uint64_t moved, uint64_t hash, struct kv_bytes key, uint64_t *ret)
{
    for (uint64_t i = hash & table->mask;; i = (i + 1) & table->mask) {
        const struct slot *slot = slot_at(table, i);
        if (slot->entry == NULL) {
            if (slot->hash == VACATED) continue;
            return false;
        }
        if (i >= moved && slot->hash == hash && slot->entry->key_bytes == key.count &&
            memcmp(slot->entry->bytes, key.at, key.count) == 0) {
            *ret = i;
            return true;
        }
    }
}

/* The table that holds the key; NULL: none. */
static const struct table *find(const struct kv_store *store, uint64_t hash, struct kv_bytes key, uint64_t *ret)
{
    if (table_find(&store->table, 0, hash, key, ret)) return &store->table;
    if (store->old.chunks != NULL && store->old_next <= store->old.mask &&
        table_find(&store->old, store->old_next, hash, key, ret))
        return &store->old;
    return NULL;
}

/* The slot for a key that is not there. NULL: out of memory. */
static struct slot *slot_for(struct kv_store *store, uint64_t hash)
{
    uint64_t i = hash & store->table.mask;
    while (slot_at(&store->table, i)->entry != NULL) i = (i + 1) & store->table.mask;
    return slot_writable(store, &store->table, i);
}

/* Empty a slot of the live table; what had been pushed behind it moves up, so that no probe ends too early. False: out of
 * memory, and nothing has moved. */
static bool table_remove(struct kv_store *store, uint64_t hole)
{
    struct table *table = &store->table;
    for (uint64_t i = hole; slot_at(table, i)->entry != NULL; i = (i + 1) & table->mask)
        if ((i == hole || i % CHUNK_SLOTS == 0) && slot_writable(store, table, i) == NULL) return false;
    for (uint64_t i = (hole + 1) & table->mask; slot_at(table, i)->entry != NULL; i = (i + 1) & table->mask) {
        uint64_t home = slot_at(table, i)->hash & table->mask;
        if (((i - home) & table->mask) < ((i - hole) & table->mask)) continue; /* its home lies behind the hole */
        *slot_writable(store, table, hole) = *slot_at(table, i);
        hole = i;
    }
    *slot_writable(store, table, hole) = (struct slot){0};
    return true;
}

/* A few slots of the old table; when all have moved, one chunk of it a change. False: out of memory. */
static bool move_old_slots(struct kv_store *store)
{
    struct table *old = &store->old;
    if (old->chunks == NULL) return true;
    if (store->old_next > old->mask) {
        if (store->frozen && !retire_room(store)) return false;
        chunk_drop(store, old->chunks[store->old_next++ - old->mask - 1]);
        if (store->old_next - old->mask - 1 <= old->mask / CHUNK_SLOTS) return true;
        free(old->chunks);
        old->chunks = NULL;
        return true;
    }
    for (unsigned i = 0; i < OLD_SLOTS_A_CHANGE && store->old_next <= old->mask; i++) {
        const struct slot *slot = slot_at(old, store->old_next);
        if (slot->entry != NULL) { /* an empty slot stays empty: it is what ends a probe */
            struct slot *to = slot_for(store, slot->hash);
            if (to == NULL) return false;
            *to = *slot;
        }
        store->old_next++;
    }
    return true;
}

/* Room for one more key. False: out of memory. */
static bool make_room(struct kv_store *store)
{
    uint64_t slots = store->table.mask + 1;
    if ((store->count + 1) * 8 <= slots * 5) return true;
    struct chunk **larger = calloc(slots * 2 / CHUNK_SLOTS, sizeof(struct chunk *));
    if (larger == NULL) return false;
    store->old = store->table; /* nothing is being moved: K4 */
    store->old_next = 0;
    store->table.chunks = larger;
    store->table.mask = slots * 2 - 1;
    return true;
}

/* --- operations --- */

struct kv_store *kv_store_open(void)
{
    struct kv_store *store = calloc(1, sizeof *store);
    if (store == NULL) return NULL;
    store->table.chunks = calloc(SLOTS_MIN / CHUNK_SLOTS, sizeof(struct chunk *));
    store->table.mask = SLOTS_MIN - 1;
    if (store->table.chunks == NULL) {
        free(store);
        return NULL;
    }
    return store;
}

static void table_close(struct table *table, uint64_t moved)
{
    if (table->chunks == NULL) return;
    for (uint64_t i = moved; i <= table->mask; i++) {
        struct entry *entry = slot_at(table, i)->entry;
        if (entry != NULL && entry->size_class >= SLAB_CLASSES) free(entry);
    }
    uint64_t gone = moved > table->mask ? moved - table->mask - 1 : 0;
    for (uint64_t i = gone; i <= table->mask / CHUNK_SLOTS; i++) free(table->chunks[i]);
    free(table->chunks);
}

void kv_store_close(struct kv_store *store)
{
    if (store == NULL) return;
    while (store->free.first != NULL) free_some(store);
    table_close(&store->table, 0);
    table_close(&store->old, store->old_next);
    while (store->slabs != NULL) {
        struct slab *slab = store->slabs;
        store->slabs = slab->next;
        free(slab);
    }
    free(store);
}

bool kv_store_get(const struct kv_store *store, struct kv_bytes key, struct kv_bytes *ret_value)
{
    uint64_t i;
    const struct table *table = find(store, hash_key(key).low, key, &i);
    if (table == NULL) return false;
    const struct entry *entry = slot_at(table, i)->entry;
    ret_value->at = value_of(entry);
    ret_value->count = entry->value_bytes;
    return true;
}

/* What every change begins with. False: out of memory. */
static bool prepare(struct kv_store *store)
{
    free_some(store);
    return move_old_slots(store) && (!store->frozen || retire_room(store));
}

/* What `key` holds becomes its present value, if it is kept, and `bytes` behind it. */
static bool change(struct kv_store *store, struct kv_bytes key, bool keep_value, struct kv_bytes bytes)
{
    if (!prepare(store)) return false;
    struct lockstep_hash key_hash = hash_key(key);
    uint64_t i = 0;
    const struct table *table = find(store, key_hash.low, key, &i);
    struct entry *entry = table != NULL ? slot_at(table, i)->entry : NULL;
    size_t kept = keep_value && entry != NULL ? entry->value_bytes : 0;
    unsigned size_class = entry_class(key.count, kept + bytes.count);
    if (entry == NULL && !make_room(store)) return false;

    struct entry *target = entry;
    struct slot *slot = NULL;
    if (entry == NULL || entry->size_class != size_class || is_shown(store, entry->epoch)) {
        slot = entry == NULL ? slot_for(store, key_hash.low)
                             : slot_writable(store, table == &store->old ? &store->old : &store->table, i);
        if (slot != NULL) target = entry_make(store, key, key_hash, kept + bytes.count);
        if (slot == NULL || target == NULL) return false;
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

    if (slot == NULL) return true;
    *slot = (struct slot){.hash = key_hash.low, .entry = target};
    if (entry == NULL)
        store->count++;
    else
        entry_drop(store, entry);
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

int kv_store_delete(struct kv_store *store, struct kv_bytes key)
{
    if (!prepare(store)) return -1;
    uint64_t i, hash = hash_key(key).low;
    const struct table *table = find(store, hash, key, &i);
    if (table == NULL) return 0;
    struct entry *entry = slot_at(table, i)->entry;
    if (table == &store->old) {
        struct slot *slot = slot_writable(store, &store->old, i);
        if (slot == NULL) return -1;
        *slot = (struct slot){.hash = VACATED};
    } else if (!table_remove(store, i)) {
        return -1;
    }
    sum_take(store, entry);
    entry_drop(store, entry);
    store->count--;
    return 1;
}

struct lockstep_hash kv_store_hash(const struct kv_store *store)
{
    struct lockstep_hash hash = store->sum;
    return finish(absorb(hash, store->count, 0), NULL, 0);
}

/* --- freezing --- */

struct kv_frozen {
    struct table table, old;
    uint64_t old_next, count;
};

static bool table_share(const struct table *from, struct table *to)
{
    if (from->chunks == NULL) return true;
    size_t bytes = (from->mask / CHUNK_SLOTS + 1) * sizeof(struct chunk *);
    to->mask = from->mask;
    to->chunks = malloc(bytes);
    if (to->chunks == NULL) return false;
    memcpy(to->chunks, from->chunks, bytes);
    return true;
}

static void frozen_free(struct kv_frozen *frozen)
{
    free(frozen->table.chunks);
    free(frozen->old.chunks);
    free(frozen);
}

struct kv_frozen *kv_store_freeze(struct kv_store *store)
{
    if (store->frozen) return NULL;
    struct kv_frozen *frozen = calloc(1, sizeof *frozen);
    if (frozen == NULL) return NULL;
    if (!table_share(&store->table, &frozen->table) || !table_share(&store->old, &frozen->old)) {
        frozen_free(frozen);
        return NULL;
    }
    frozen->old_next = store->old_next;
    frozen->count = store->count;
    store->frozen = true;
    store->epoch++;
    return frozen;
}

void kv_store_thaw(struct kv_store *store, struct kv_frozen *frozen)
{
    if (frozen == NULL) return;
    store->frozen = false;
    struct retired_list *list = &store->retired;
    if (list->first != NULL) { /* all of them in front of what is left of the time before */
        list->last->next = store->free.first;
        if (store->free.last == NULL) store->free.last = list->last;
        store->free.first = list->first;
        *list = (struct retired_list){0};
    }
    frozen_free(frozen);
}

uint64_t kv_frozen_count(const struct kv_frozen *frozen)
{
    return frozen->count;
}

static void table_each(const struct table *table, uint64_t moved, void (*each)(void *, struct kv_bytes, uint32_t),
                       void *context)
{
    if (table->chunks == NULL) return;
    for (uint64_t i = moved; i <= table->mask; i++) {
        const struct entry *entry = slot_at(table, i)->entry;
        if (entry != NULL) each(context, (struct kv_bytes){entry->bytes, entry->key_bytes}, entry->value_bytes);
    }
}

void kv_frozen_each(const struct kv_frozen *frozen,
                    void (*each)(void *context, struct kv_bytes key, uint32_t value_bytes), void *context)
{
    table_each(&frozen->table, 0, each, context);
    table_each(&frozen->old, frozen->old_next, each, context);
}
