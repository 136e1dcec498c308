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

#endif
