/* SPDX-License-Identifier: Apache-2.0 */
/* kv_store.h - the state of the machine `kv`: bytes to bytes, with a hash over all of it that is always up to date.
 * Thread: the machine's. */
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
/* False: no such key. */
bool kv_store_delete(struct kv_store *store, struct kv_bytes key);

uint64_t kv_store_count(const struct kv_store *store);
/* Equal contents give equal hashes, however they came about. O(1). */
struct lockstep_hash kv_store_hash(const struct kv_store *store);

/* --- snapshots: kv_snapshot.c --- */

struct kv_snapshot;

/* Copy the state: O(state), no sorting; some 0.2 s a million keys. NULL: out of memory. */
struct kv_snapshot *kv_snapshot_make(const struct kv_store *store);
/* Write it out, sorted by key: equal states give equal bytes. Beside changes of the store it was made from. */
int kv_snapshot_write(struct kv_snapshot *snapshot, struct lockstep_writer *writer);
void kv_snapshot_free(struct kv_snapshot *snapshot); /* takes NULL */
/* Fill an empty store. Anything but what kv_snapshot_write() writes is refused: negative. */
int kv_snapshot_restore(struct kv_store *store, struct lockstep_reader *reader);

/* Bytes of all keys and values. */
uint64_t kv_store_bytes(const struct kv_store *store);
/* Call `each` with every entry, in no order that means anything. The store must not change meanwhile. */
void kv_store_each(const struct kv_store *store,
                   void (*each)(void *context, struct kv_bytes key, struct kv_bytes value), void *context);

#endif
