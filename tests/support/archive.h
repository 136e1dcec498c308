/* SPDX-License-Identifier: Apache-2.0 */
/* archive.h - what other nodes have, for tests of one storage: every block that was ever appended, by its name (J7). */
#ifndef LOCKSTEP_TESTS_SUPPORT_ARCHIVE_H
#define LOCKSTEP_TESTS_SUPPORT_ARCHIVE_H

#include "tests/support/store.h"

/* What the ring holds from `first` on. */
void archive_ring(const struct store *store, raft_index first);
void archive_forget(void);

/* store_open, with what is missing given as a peer would: the block by its name, and those that it leads to. Returns the
 * last attempt's code. ret_asked: blocks that were missing. */
int archive_open(struct store *store, uint32_t *ret_asked);

#endif
