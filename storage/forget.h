/* SPDX-License-Identifier: Apache-2.0 */
/* forget.h - level memory: what a member holds ends with its process, and so does the member.
 * What it promised was never made durable, so a process that comes after it knows nothing and is somebody else: another
 * member id, and an empty directory. Only a directory that was written as a whole for the start to come, by restore or
 * recover, is taken over; boot.h calls it clean, for one start.
 * Thread: the one that opens. Waits for the disk. */
#ifndef LOCKSTEP_STORAGE_FORGET_H
#define LOCKSTEP_STORAGE_FORGET_H

#include <stddef.h>

#include "storage/identity.h"
#include "storage/kv.h"

/* Empty the directory of a member that was born at level memory, unless it is clean. Cut short, the next start does it.
 * journal_directory  NULL = path
 * identity  in: as the directory has it; out: with `random_id` for its member id, and fresh, if it was emptied
 * EIO, ENOSPC, EINVAL; EVERSION: what `boot` says cannot be read, nothing was changed. */
int storage_forget(const struct disk *disk, const struct kv *kv, const char *path, const char *journal_directory,
                   struct identity_directory *directory, uint64_t random_id, struct identity *identity, char *why,
                   size_t why_room);

#endif
