/* SPDX-License-Identifier: Apache-2.0 */
/* epoch.h - a cluster begins again, with one member and what is left: from a backup, or from the directory of a survivor.
 *   - It is another cluster from then on: a new cluster id, so that no member of the old one is ever listened to again (I1),
 *     whatever it held.
 *   - Its log goes on where the old one's ended, with the configurations that leave this one node; the others are admitted,
 *     empty, as new members. The birth record's members stay the old ones: the log's history is what it was.
 *   - What is taken over counts as committed.
 * Thread: the caller's. Waits for the disk; allocates. */
#ifndef LOCKSTEP_STORAGE_EPOCH_H
#define LOCKSTEP_STORAGE_EPOCH_H

#include <stddef.h>
#include <stdint.h>

#include "storage/backup.h"
#include "storage/storage.h"

struct epoch_options {
    struct storage_options storage; /* member_id, random_id, level and birth are filled in */
    const char *cluster, *node;     /* names */
    const char *client, *peer;      /* addresses of the node */
    uint64_t cluster_id, random_id; /* new, and random */
};

struct epoch_result {
    struct birth_record birth;
    raft_member member_id;
    struct configuration configuration; /* with the one member */
    struct block_base last;             /* its block */
};

/* Build the directory of a backup. It must be new or hold no node's files; it becomes the node's with the last step, so that
 * a directory that was only half built is refused by every start.
 * EEXIST; ECORRUPT: the backup is damaged, nothing was made; EVERSION, EIO, ENOSPC, EINVAL, ENOMEM. */
int epoch_restore(const struct epoch_options *options, const char *backup, struct backup_summary *ret_backup,
                  struct epoch_result *ret, char *why, size_t why_room);

/* Make the directory's node the only member. The cluster's id is replaced first: cut short, it needs the old members, who
 * refuse it, so it leads nothing; and it can be run again. Errors as storage_open and identity_open. */
int epoch_recover(const struct epoch_options *options, struct epoch_result *ret, char *why, size_t why_room);

#endif
