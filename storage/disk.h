/* SPDX-License-Identifier: Apache-2.0 */
/* disk.h - the door to the disk: what the journal and the small files need of a file system, and no more.
 * Two implementations: the real one (disk_posix.c) and the simulator's. Any thread; one file belongs to one thread.
 * Every call returns 0 or a negative LOCKSTEP_E*: EIO, ENOSPC, ENOTFOUND, EEXIST, ELOCKED, EINVAL.
 * Rule R8: after the first failed write or flush of a file nothing more is expected of it by anyone. */
#ifndef LOCKSTEP_STORAGE_DISK_H
#define LOCKSTEP_STORAGE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum disk_open_flags {
    DISK_CREATE = 1,    /* make it if it is not there */
    DISK_EXCLUSIVE = 2, /* with CREATE: EEXIST if it is there */
    DISK_READ_ONLY = 4,
    DISK_LOCK = 8, /* exclusive, held until close: ELOCKED if another process has it */
};

struct disk_file;

struct disk {
    void *context;
    int (*open)(void *context, const char *path, int flags, struct disk_file **ret);
    void (*close)(struct disk_file *file); /* takes NULL; drops the lock */
    int (*size)(struct disk_file *file, uint64_t *ret);
    /* Short reads at the end of the file set *ret_bytes; damaged media is EIO. */
    int (*pread)(struct disk_file *file, void *to, size_t bytes, uint64_t offset, size_t *ret_bytes);
    /* All of it or an error. */
    int (*pwritev)(struct disk_file *file, const struct iovec *parts, int count, uint64_t offset);
    int (*flush)(struct disk_file *file, bool metadata); /* fdatasync, or fsync with metadata */
    int (*drop_cache)(struct disk_file *file);           /* the clean cached pages, so that reads come from the disk */
    /* Take space for the file's first `bytes`, so that writing there does not run out of it; size and content stay.
     * ENOSPC. 0 also where the file system cannot promise it. */
    int (*reserve)(struct disk_file *file, uint64_t bytes);
    int (*rename)(void *context, const char *from, const char *to);
    int (*unlink)(void *context, const char *path);
    int (*make_directory)(void *context, const char *path); /* 0 also if it is there */
    int (*flush_directory)(void *context, const char *path);
    int (*exists)(void *context, const char *path, bool *ret);
    /* Call `each` with the name of everything in a directory, in any order. Nothing is changed in there meanwhile. */
    int (*list)(void *context, const char *path, void (*each)(void *each_context, const char *name),
                void *each_context);
    /* A number that is another one after the host has started anew: then what was written and not flushed may be gone. */
    int (*host_boot)(void *context, uint64_t *ret);
    /* The type of the file system, as "ext4" or "tmpfs"; for people and for refusing tmpfs. */
    int (*file_system)(void *context, const char *path, char *ret, size_t room);
};

/* The real one. Static. */
const struct disk *disk_posix(void);

#endif
