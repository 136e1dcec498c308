/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - the file `boot`: how often a process has taken this directory over, whether its first start came to its end, and
 * whether it left everything flushed.
 * J3  The counter is raised durably before anything of a start counts.
 * Thread: the one that opens, or looks. */
#ifndef LOCKSTEP_STORAGE_BOOT_H
#define LOCKSTEP_STORAGE_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"
#include "storage/configuration.h"
#include "storage/disk.h"

enum { BOOT_VERSION = 3 /* 1 had no host_boot and no clean, 2 no promise_ns */ };

struct boot {
    uint64_t boot; /* 0 = never started */
    bool complete; /* false: nothing was promised yet, and the directory's other files may be missing */
    raft_member member_id;
    uint64_t host_boot; /* of the host when it was written (disk.h); 0 = not known */
    bool clean;         /* everything was flushed when the process ended, or nothing needed it */
    uint64_t
        promise_ns; /* so long a leader may count on what a process of this directory told it last (R5); 0 = no leases */
    uint32_t version; /* of the file that was read; with EVERSION it alone is set */
};

/* Whether the directory's promises may be lost, because they were only in the host's memory when it ended. */
bool boot_counts_as_wiped(const struct boot *boot, enum durability_level level, uint64_t host_boot);

/* ENOTFOUND: never started; ECORRUPT; EVERSION; EIO; EINVAL. */
int boot_read(const struct disk *disk, const char *directory, struct boot *ret);
/* Durable when it returns 0. EIO, ENOSPC, EINVAL. */
int boot_write(const struct disk *disk, const char *directory, const struct boot *boot);

#endif
