/* SPDX-License-Identifier: Apache-2.0 */
/* kv_store.h - the state of the machine `kv`: bytes to bytes, with a hash over all of it that is always up to date, and
 * that can be frozen while changes go on. Thread: the machine's, where nothing else is said. */
#ifndef LOCKSTEP_STATEMACHINE_MACHINES_KV_STORE_H
#define LOCKSTEP_STATEMACHINE_MACHINES_KV_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lockstep/machine.h"

enum {
    KV_KEY_BYTES_MAX = 1024,                       /* at least 1 */
    KV_VALUE_BYTES_MAX = LOCKSTEP_REPLY_BYTES_MAX, /* so that get can always answer */
};

struct kv_store;

struct kv_bytes {
    const uint8_t *at;
    size_t count;
};

struct kv_store *kv_store_open(void); /* NULL: out of memory */
void kv_store_close(struct kv_store *store);

/* The value of a key; good until the next change. False: no such key. */
bool kv_store_get(const struct kv_store *store, struct kv_bytes key, struct kv_bytes *ret_value);
/* Set a value. False: out of memory, and the state is what it was. `value` must not lie in the store. */
bool kv_store_put(struct kv_store *store, struct kv_bytes key, struct kv_bytes value);
/* Add bytes to the end of a value, making the key if need be. The sum is at most KV_VALUE_BYTES_MAX.
 * O(bytes added), amortised. False: out of memory. */
bool kv_store_append(struct kv_store *store, struct kv_bytes key, struct kv_bytes bytes);
/* 1: deleted; 0: no such key; -1: out of memory. */
int kv_store_delete(struct kv_store *store, struct kv_bytes key);

/* Equal contents give equal hashes, however they came about. O(1). */
struct lockstep_hash kv_store_hash(const struct kv_store *store);

/* --- frozen: what the store holds now, for another thread, while it changes --- */

struct kv_frozen;

/* O(1) but for a copy of 8 bytes for each 1,024 slots: some 10 us a million keys. One at a time. NULL: out of memory, or
 * one is frozen. Each change costs a little more until it is thawed. Then what was kept for it is freed, a little a change. */
struct kv_frozen *kv_store_freeze(struct kv_store *store);
void kv_store_thaw(struct kv_store *store, struct kv_frozen *frozen); /* takes NULL; before the store is closed */

/* Any thread: how many entries; call `each` with every one, in no order that means anything. Its value lies behind its key,
 * and both stay where they are until the thaw. */
uint64_t kv_frozen_count(const struct kv_frozen *frozen);
void kv_frozen_each(const struct kv_frozen *frozen,
                    void (*each)(void *context, struct kv_bytes key, uint32_t value_bytes), void *context);

/* --- snapshots: kv_snapshot.c --- */

/* Write a frozen state out, sorted by key: equal states give equal bytes. Any thread. Allocates 16 bytes a key; negative: it
 * could not, or the writer's error. */
int kv_snapshot_write(const struct kv_frozen *frozen, struct lockstep_writer *writer);
/* Fill an empty store. Anything but what kv_snapshot_write() writes is refused: negative. */
int kv_snapshot_restore(struct kv_store *store, struct lockstep_reader *reader);

#endif
