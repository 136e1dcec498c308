/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/sim_kv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum { TABLES_MAX = 16 };

struct value {
    uint32_t references;
    size_t bytes;
    uint8_t data[];
};

struct pair {
    uint64_t key;
    struct value *value;
};

/* One committed state; transactions hold references to it. */
struct version {
    uint32_t references;
    struct {
        struct pair *pairs; /* by key */
        size_t count, room;
    } tables[TABLES_MAX];
};

struct kv_map {
    struct sim_kv *sim;
    uint32_t tables;
};

struct kv_txn {
    struct kv_map *map;
    struct version *version; /* a write transaction's own copy; NULL: put to sleep */
    bool write;
};

struct sim_kv {
    struct kv kv;
    struct sim_disk *disk;
    struct version *committed;
    bool writing;
    uint64_t capacity;
    bool exists; /* something was committed once */
    uint32_t readers_left;
};

static void value_release(struct value *value)
{
    if (--value->references == 0) free(value);
}

static void version_release(struct version *version)
{
    if (version == NULL || --version->references > 0) return;
    for (uint32_t t = 0; t < TABLES_MAX; t++) {
        for (size_t i = 0; i < version->tables[t].count; i++) value_release(version->tables[t].pairs[i].value);
        free(version->tables[t].pairs);
    }
    free(version);
}

static struct version *version_copy(const struct version *from)
{
    struct version *to = calloc(1, sizeof *to);
    lk_assert(to != NULL);
    to->references = 1;
    for (uint32_t t = 0; t < TABLES_MAX; t++) {
        size_t count = from->tables[t].count;
        to->tables[t].count = count;
        to->tables[t].room = count + 64;
        to->tables[t].pairs = malloc(to->tables[t].room * sizeof(struct pair));
        lk_assert(to->tables[t].pairs != NULL);
        if (count > 0) memcpy(to->tables[t].pairs, from->tables[t].pairs, count * sizeof(struct pair));
        for (size_t i = 0; i < count; i++) to->tables[t].pairs[i].value->references++;
    }
    return to;
}

/* The place of key, or where it would stand. */
static size_t pair_place(const struct version *version, uint32_t table, uint64_t key)
{
    size_t low = 0, high = version->tables[table].count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (version->tables[table].pairs[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct pair *pair_find(const struct version *version, uint32_t table, uint64_t key)
{
    size_t place = pair_place(version, table, key);
    if (place == version->tables[table].count || version->tables[table].pairs[place].key != key) return NULL;
    return &version->tables[table].pairs[place];
}

static int kv_open(void *context, const char *directory, enum kv_mode mode, uint64_t map_bytes, uint32_t tables,
                   struct kv_map **ret, char *why, size_t why_room)
{
    struct sim_kv *sim = context;
    (void)map_bytes;
    lk_assert(tables <= TABLES_MAX);
    if (!sim_disk_powered(sim->disk)) {
        snprintf(why, why_room, "%s: no power", directory);
        return LOCKSTEP_EIO;
    }
    if (mode != KV_CREATE && !sim->exists) {
        snprintf(why, why_room, "%s: there is no map", directory);
        return LOCKSTEP_ENOTFOUND;
    }
    struct kv_map *map = calloc(1, sizeof *map);
    lk_assert(map != NULL);
    *map = (struct kv_map){.sim = sim, .tables = tables};
    *ret = map;
    return 0;
}

static void kv_close(struct kv_map *map)
{
    free(map);
}

static int kv_remove(void *context, const char *directory)
{
    struct sim_kv *sim = context;
    (void)directory;
    if (!sim_disk_powered(sim->disk)) return LOCKSTEP_EIO;
    version_release(sim->committed);
    sim->committed = calloc(1, sizeof *sim->committed);
    lk_assert(sim->committed != NULL);
    sim->committed->references = 1;
    sim->exists = false;
    return 0;
}

static int begin(struct kv_map *map, bool write, struct kv_txn **ret)
{
    struct sim_kv *sim = map->sim;
    if (!sim_disk_powered(sim->disk)) return LOCKSTEP_EIO;
    struct kv_txn *txn = calloc(1, sizeof *txn);
    lk_assert(txn != NULL);
    *txn = (struct kv_txn){.map = map, .write = write};
    if (write) {
        lk_assert(!sim->writing);
        sim->writing = true;
        txn->version = version_copy(sim->committed);
    } else {
        txn->version = sim->committed;
        txn->version->references++;
    }
    *ret = txn;
    return 0;
}

static int kv_begin_write(struct kv_map *map, struct kv_txn **ret)
{
    return begin(map, true, ret);
}

static int kv_begin_read(struct kv_map *map, struct kv_txn **ret)
{
    if (map->sim->readers_left == 0) return LOCKSTEP_ENOMEM;
    map->sim->readers_left--;
    return begin(map, false, ret);
}

static void kv_reset(struct kv_txn *txn)
{
    lk_assert(!txn->write);
    version_release(txn->version);
    txn->version = NULL;
}

static int kv_renew(struct kv_txn *txn)
{
    lk_assert(!txn->write && txn->version == NULL);
    if (!sim_disk_powered(txn->map->sim->disk)) return LOCKSTEP_EIO;
    txn->version = txn->map->sim->committed;
    txn->version->references++;
    return 0;
}

static int kv_put(struct kv_txn *txn, uint32_t table, uint64_t key, const void *bytes, size_t count)
{
    lk_assert(txn->write && table < txn->map->tables);
    struct version *version = txn->version;
    struct value *value = calloc(1, sizeof *value + count + 1);
    lk_assert(value != NULL);
    value->references = 1;
    value->bytes = count;
    if (count > 0) memcpy(value->data, bytes, count);
    struct pair *pair = pair_find(version, table, key);
    if (pair != NULL) {
        value_release(pair->value);
        pair->value = value;
    } else {
        if (version->tables[table].count == version->tables[table].room) {
            version->tables[table].room *= 2;
            version->tables[table].pairs =
                realloc(version->tables[table].pairs, version->tables[table].room * sizeof(struct pair));
            lk_assert(version->tables[table].pairs != NULL);
        }
        size_t place = pair_place(version, table, key);
        struct pair *pairs = version->tables[table].pairs;
        memmove(&pairs[place + 1], &pairs[place], (version->tables[table].count - place) * sizeof(struct pair));
        pairs[place] = (struct pair){.key = key, .value = value};
        version->tables[table].count++;
    }
    return 0;
}

static int kv_get(struct kv_txn *txn, uint32_t table, uint64_t key, const void **ret, size_t *ret_bytes)
{
    lk_assert(table < txn->map->tables);
    struct pair *pair = pair_find(txn->version, table, key);
    if (pair == NULL) return LOCKSTEP_ENOTFOUND;
    *ret = pair->value->data;
    *ret_bytes = pair->value->bytes;
    return 0;
}

static int kv_erase(struct kv_txn *txn, uint32_t table, uint64_t key)
{
    lk_assert(txn->write);
    struct pair *pair = pair_find(txn->version, table, key);
    if (pair == NULL) return LOCKSTEP_ENOTFOUND;
    value_release(pair->value);
    struct pair *pairs = txn->version->tables[table].pairs;
    size_t place = (size_t)(pair - pairs);
    memmove(pair, pair + 1, (txn->version->tables[table].count - place - 1) * sizeof *pair);
    txn->version->tables[table].count--;
    return 0;
}

static int kv_first(struct kv_txn *txn, uint32_t table, uint64_t *ret_key)
{
    if (txn->version->tables[table].count == 0) return LOCKSTEP_ENOTFOUND;
    *ret_key = txn->version->tables[table].pairs[0].key;
    return 0;
}

static int kv_last(struct kv_txn *txn, uint32_t table, uint64_t *ret_key)
{
    size_t count = txn->version->tables[table].count;
    if (count == 0) return LOCKSTEP_ENOTFOUND;
    *ret_key = txn->version->tables[table].pairs[count - 1].key;
    return 0;
}

static int kv_seek(struct kv_txn *txn, uint32_t table, uint64_t key, uint64_t *ret_key)
{
    size_t place = pair_place(txn->version, table, key);
    if (place == txn->version->tables[table].count) return LOCKSTEP_ENOTFOUND;
    *ret_key = txn->version->tables[table].pairs[place].key;
    return 0;
}

static void kv_abort(struct kv_txn *txn)
{
    if (txn == NULL) return;
    if (txn->write) txn->map->sim->writing = false;
    version_release(txn->version);
    free(txn);
}

static int kv_commit(struct kv_txn *txn)
{
    struct sim_kv *sim = txn->map->sim;
    bool happened;
    lk_assert(txn->write);
    bool alive = sim_disk_operation(sim->disk, &happened);
    if (happened) {
        struct version *old = sim->committed;
        sim->committed = txn->version;
        sim->committed->references++;
        sim->exists = true;
        version_release(old);
    }
    kv_abort(txn);
    if (alive) return 0;
    if (sim_disk_powered(sim->disk)) sim_disk_power_cut(sim->disk);
    return LOCKSTEP_EIO;
}

static uint64_t version_bytes(const struct version *version)
{
    uint64_t bytes = 0;
    for (uint32_t t = 0; t < TABLES_MAX; t++)
        for (size_t i = 0; i < version->tables[t].count; i++) bytes += version->tables[t].pairs[i].value->bytes;
    return bytes;
}

static uint64_t value_bytes(const struct kv_map *map)
{
    return version_bytes(map->sim->committed);
}

/* The map's bytes lie on no simulated disk; what it may take is set by sim_kv_capacity(). */
static int kv_grow(struct kv_map *map, uint64_t bytes)
{
    if (!sim_disk_powered(map->sim->disk)) return LOCKSTEP_EIO;
    return value_bytes(map) + bytes > map->sim->capacity ? LOCKSTEP_ENOSPC : 0;
}

static uint64_t kv_offset_of(struct kv_txn *txn, const void *value)
{
    (void)txn;
    (void)value;
    return UINT64_MAX;
}

static uint64_t kv_file_bytes(struct kv_map *map)
{
    return value_bytes(map);
}

static int kv_room(struct kv_map *map, uint64_t *ret_behind, uint64_t *ret_free)
{
    if (!sim_disk_powered(map->sim->disk)) return LOCKSTEP_EIO;
    uint64_t used = value_bytes(map), capacity = map->sim->capacity;
    *ret_behind = capacity > used ? capacity - used : 0;
    *ret_free = 0;
    return 0;
}

struct sim_kv *sim_kv_open(struct sim_disk *disk)
{
    struct sim_kv *sim = calloc(1, sizeof *sim);
    lk_assert(sim != NULL);
    sim->disk = disk;
    sim->capacity = UINT64_MAX;
    sim->readers_left = UINT32_MAX;
    sim->committed = calloc(1, sizeof *sim->committed);
    lk_assert(sim->committed != NULL);
    sim->committed->references = 1;
    sim->kv = (struct kv){
        .context = sim,
        .open = kv_open,
        .close = kv_close,
        .remove = kv_remove,
        .begin_write = kv_begin_write,
        .begin_read = kv_begin_read,
        .reset = kv_reset,
        .renew = kv_renew,
        .put = kv_put,
        .get = kv_get,
        .erase = kv_erase,
        .first = kv_first,
        .last = kv_last,
        .seek = kv_seek,
        .commit = kv_commit,
        .abort = kv_abort,
        .grow = kv_grow,
        .file_bytes = kv_file_bytes,
        .offset_of = kv_offset_of,
        .room = kv_room,
    };
    return sim;
}

void sim_kv_close(struct sim_kv *sim)
{
    if (sim == NULL) return;
    version_release(sim->committed);
    free(sim);
}

const struct kv *sim_kv(struct sim_kv *sim)
{
    return &sim->kv;
}

void sim_kv_capacity(struct sim_kv *sim, uint64_t bytes)
{
    sim->capacity = bytes;
}

uint64_t sim_kv_bytes(const struct sim_kv *sim)
{
    return version_bytes(sim->committed);
}

void sim_kv_readers_left(struct sim_kv *sim, uint32_t count)
{
    sim->readers_left = count;
}

uint8_t *sim_kv_value(struct sim_kv *sim, uint32_t table, uint64_t key, size_t *ret_bytes)
{
    struct pair *pair = pair_find(sim->committed, table, key);
    if (pair == NULL) return NULL;
    *ret_bytes = pair->value->bytes;
    return pair->value->data;
}
