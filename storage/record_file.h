/* SPDX-License-Identifier: Apache-2.0 */
/* record_file.h - small files that hold one record and are replaced as a whole: identity, boot counter.
 * A crash at any instruction leaves the old record or the new one. Thread: any, one a file. */
#ifndef LOCKSTEP_STORAGE_RECORD_FILE_H
#define LOCKSTEP_STORAGE_RECORD_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "storage/disk.h"

enum {
    RECORD_FILE_BYTES_MAX = 32768,
    STORAGE_PATH_BYTES_MAX = 1024, /* with the final 0 */
};

/* directory/name. EINVAL: longer than STORAGE_PATH_BYTES_MAX; to holds "" then. */
int storage_path(char to[STORAGE_PATH_BYTES_MAX], const char *directory, const char *name);

/* Read directory/name whole. Its pages and its name are flushed first, and the pages dropped, so what is returned is on the
 * disk (J3).
 * ENOTFOUND: no such file. ECORRUPT: longer than RECORD_FILE_BYTES_MAX. EIO, EINVAL. What the bytes mean is checked by
 * the caller. */
int record_file_read(const struct disk *disk, const char *directory, const char *name,
                     uint8_t to[RECORD_FILE_BYTES_MAX], size_t *ret_bytes);

/* A directory's own name is in the one above it: flush that. 0 also where that one may not be read (EINVAL): others made the
 * directory. EIO, ENOSPC */
int storage_name_flush(const struct disk *disk, const char *directory);

/* Replace directory/name durably: written as name.new, flushed, renamed, the directory flushed. EIO, ENOSPC, EINVAL */
int record_file_replace(const struct disk *disk, const char *directory, const char *name, const void *bytes,
                        size_t count);

#endif
