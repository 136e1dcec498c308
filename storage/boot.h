/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - the file `boot`: how often a process has taken this directory over, and whether its first start came to its end.
 * J3  The counter is raised durably before anything of a start counts.
 * Thread: the one that opens, or looks. */
#ifndef LOCKSTEP_STORAGE_BOOT_H
#define LOCKSTEP_STORAGE_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"
#include "storage/disk.h"

enum { BOOT_VERSION = 1 };

struct boot {
    uint64_t boot; /* 0 = never started */
    bool complete; /* false: nothing was promised yet, and the directory's other files may be missing */
    raft_member member_id;
    uint32_t version; /* of the file that was read; with EVERSION it alone is set */
};

/* ENOTFOUND: never started; ECORRUPT; EVERSION; EIO; EINVAL. */
int boot_read(const struct disk *disk, const char *directory, struct boot *ret);
/* Durable when it returns 0. EIO, ENOSPC, EINVAL. */
int boot_write(const struct disk *disk, const char *directory, const struct boot *boot);

#endif
