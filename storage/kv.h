/* SPDX-License-Identifier: Apache-2.0 */
/* kv.h - the door to the ordered map with transactions. Two implementations: LMDB (kv_lmdb.c) and the simulator's.
 * Keys are (table, u64): tables are small numbers. One write transaction at a time; it is fully synced when commit
 * returns 0. Any error from commit is final (R8). Read transactions are cheap and see one committed state; values
 * they return are valid until the transaction ends and have no alignment. Check what you read: the map finds no damage. */
#ifndef LOCKSTEP_STORAGE_KV_H
#define LOCKSTEP_STORAGE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What may be done to the directory. KV_READ: nothing; the caller makes sure that no other process has it open. */
enum kv_mode { KV_READ, KV_WRITE, KV_CREATE };

struct kv_map; /* an open map */
struct kv_txn; /* a transaction, read or write */

struct kv {
    void *context;
    /* Open the map in a directory. What is there was flushed before it is read (J3).
     * map_bytes  address space; without meaning to KV_READ
     * why: a sentence for people. ENOTFOUND (there is none, and it may not be made), ECORRUPT (its pages lead astray), EVERSION, EIO, ENOSPC, ENOMEM, EINVAL. Allocates. */
    int (*open)(void *context, const char *directory, enum kv_mode mode, uint64_t map_bytes, uint32_t tables,
                struct kv_map **ret, char *why, size_t why_room);
    void (*close)(struct kv_map *map); /* takes NULL */
    /* The map of a directory goes, for good; nobody has it open. 0 also if there is none. EIO, EINVAL. */
    int (*remove)(void *context, const char *directory);
    int (*begin_write)(struct kv_map *map, struct kv_txn **ret);
    int (*begin_read)(struct kv_map *map, struct kv_txn **ret);
    /* A read transaction may be put to sleep and renewed, which is cheaper than ending and beginning. */
    void (*reset)(struct kv_txn *txn);
    int (*renew)(struct kv_txn *txn);
    /* ENOSPC: the map or the disk is full; abort, nothing is lost. */
    int (*put)(struct kv_txn *txn, uint32_t table, uint64_t key, const void *value, size_t bytes);
    int (*get)(struct kv_txn *txn, uint32_t table, uint64_t key, const void **ret, size_t *ret_bytes); /* ENOTFOUND */
    int (*erase)(struct kv_txn *txn, uint32_t table, uint64_t key);                                    /* ENOTFOUND */
    int (*first)(struct kv_txn *txn, uint32_t table, uint64_t *ret_key); /* ENOTFOUND: empty */
    int (*last)(struct kv_txn *txn, uint32_t table, uint64_t *ret_key);
    int (*seek)(struct kv_txn *txn, uint32_t table, uint64_t key, uint64_t *ret_key); /* the first at or above key */
    int (*commit)(struct kv_txn *txn);                                                /* ends it in any case */
    void (*abort)(struct kv_txn *txn);                                                /* takes NULL */
    /* Have `bytes` of zero-filled, flushed file behind what is used (J6), so that a transaction finds its space and no
     * commit depends on a grown size. The writer's thread, no transaction open. ENOSPC: nothing happened; EIO. */
    int (*grow)(struct kv_map *map, uint64_t bytes);
    uint64_t (*file_bytes)(struct kv_map *map);
    /* Where in its file a value lies that a read transaction returned, for people; UINT64_MAX: it cannot be told. */
    uint64_t (*offset_of)(struct kv_txn *txn, const void *value);
    /* Without growing: bytes of file behind what is used, where a transaction surely finds its space, and bytes of free
     * pages among what is used, which it takes first but which may lie in pieces. O(free pages). As grow. */
    int (*room)(struct kv_map *map, uint64_t *ret_behind, uint64_t *ret_free);
};

/* LMDB. Static. */
const struct kv *kv_lmdb(void);

#endif
