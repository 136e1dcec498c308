/* SPDX-License-Identifier: Apache-2.0 */
/* builder.h - a storage that is written from one thread, while no node runs: what restore and recover make a directory with.
 * It goes the way of every block: ring, journal, log. So what it leaves is what a node leaves, in today's formats.
 * Thread: the caller's is loop, journal and log thread in turn. Allocates; waits for the disk. */
#ifndef LOCKSTEP_STORAGE_BUILDER_H
#define LOCKSTEP_STORAGE_BUILDER_H

#include <stddef.h>
#include <stdint.h>

#include "storage/storage.h"

struct builder;

/* storage_open(), with its errors. The caller holds the directory's lock. options->wake is not asked.
 * birth  the configuration at index 0 */
int builder_open(const struct storage_options *options, const struct configuration *birth, struct builder **ret,
                 char *why, size_t why_room);
void builder_close(struct builder *builder); /* takes NULL */

/* The next piece of a snapshot, in order: all of piece_bytes but the last. */
int builder_snapshot(struct builder *builder, const struct storage_snapshot *snapshot, const uint8_t *bytes,
                     size_t count);
/* They were all: the log begins behind it. ECORRUPT: they were not what the record says. */
int builder_install(struct builder *builder, const struct storage_snapshot *snapshot,
                    const struct storage_install_configuration *configuration);

/* One whole, checked block. ECORRUPT: it does not follow the last one. EFULL: larger than the ring takes. */
int builder_block(struct builder *builder, const uint8_t *block, const struct block_header *header);
/* Configurations behind the last block, in a term of their own, that lead by legal steps from the newest one to one with this
 * member alone: every node that takes the log later can follow them (R6). It voted for itself.
 * EFULL: so many voters that there is no room for another. */
int builder_alone(struct builder *builder, const struct configuration_member *self);
/* Everything is committed and in the log's own file, durably. ret: the last block. */
int builder_finish(struct builder *builder, struct block_base *ret);

/* All return EIO, ENOSPC, ENOMEM besides; this is a sentence about the last error. */
const char *builder_why(const struct builder *builder);

#endif
