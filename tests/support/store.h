/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - one storage for tests, driven by hand: the loop's calls, and the two threads' work when the test says so.
 * Time is a number that the test moves. Asserts (check) on what must not fail. */
#ifndef LOCKSTEP_TESTS_SUPPORT_STORE_H
#define LOCKSTEP_TESTS_SUPPORT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/storage.h"

struct store {
    struct storage_options options;
    struct storage *storage;
    struct storage_recovered recovered;
    struct ring *ring;
    uint64_t seq; /* of the newest persist */
    struct storage_hard_state hard_state;
    uint64_t now_ns;
    char why[1024];
};

/* Sensible options for a small store in `directory`; disk and kv are the caller's. */
void store_options(struct store *store, const char *directory, const struct disk *disk, const struct kv *kv);
/* storage_open with them. Returns its code; `why` is filled on error. */
int store_open(struct store *store);
void store_close(struct store *store);

/* Publish one block behind the last, `payload_bytes` of one command. False: ring or journal is full. */
bool store_append(struct store *store, raft_term term, uint32_t payload_bytes, uint64_t fill);
/* Cut the ring at index, as a follower does that is contradicted. */
void store_cut(struct store *store, raft_index index);
/* Submit blocks first..the last one, and the hard state if with_hard_state. Returns the persist's seq. */
uint64_t store_persist(struct store *store, raft_index first, bool with_hard_state);
/* Run the journal's, or the log's work until it has none; time moves on as far as they ask, up to `ns`. */
void store_run_journal(struct store *store, uint64_t ns);
void store_run_log(struct store *store, uint64_t ns);

#endif
