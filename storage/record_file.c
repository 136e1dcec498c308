/* SPDX-License-Identifier: Apache-2.0 */
/* record_file.c - see record_file.h.
 * Why rename and not a write in place: a torn write of the only copy would lose who this directory is. */
#include "storage/record_file.h"

#include <stdbool.h>
#include <stdio.h>

#include "base/assert.h"
#include "lockstep/errors.h"

int storage_path(char to[STORAGE_PATH_BYTES_MAX], const char *directory, const char *name)
{
    int bytes = snprintf(to, STORAGE_PATH_BYTES_MAX, "%s/%s", directory, name);
    if (bytes > 0 && bytes < STORAGE_PATH_BYTES_MAX) return 0;
    to[0] = '\0';
    return LOCKSTEP_EINVAL;
}

int record_file_read(const struct disk *disk, const char *directory, const char *name,
                     uint8_t to[RECORD_FILE_BYTES_MAX], size_t *ret_bytes)
{
    char path[STORAGE_PATH_BYTES_MAX];
    int rc = storage_path(path, directory, name);
    if (rc != 0) return rc;
    struct disk_file *file = NULL;
    rc = disk->open(disk->context, path, DISK_READ_ONLY, &file);
    if (rc != 0) return rc;
    uint64_t size = 0;
    rc = disk->flush(file, true);
    if (rc != 0) goto out;
    /* And under this name: who replaced it may have been killed before it could flush the directory. */
    rc = disk->flush_directory(disk->context, directory);
    if (rc != 0) goto out;
    rc = disk->drop_cache(file);
    if (rc != 0) goto out;
    rc = disk->size(file, &size);
    if (rc != 0) goto out;
    if (size > RECORD_FILE_BYTES_MAX) {
        rc = LOCKSTEP_ECORRUPT;
        goto out;
    }
    rc = disk->pread(file, to, (size_t)size, 0, ret_bytes);
out:
    disk->close(file);
    return rc;
}

int storage_name_flush(const struct disk *disk, const char *directory)
{
    char above[STORAGE_PATH_BYTES_MAX];
    int rc = storage_path(above, directory, "..");
    if (rc == 0) rc = disk->flush_directory(disk->context, above);
    return rc == LOCKSTEP_EINVAL ? 0 : rc;
}

int record_file_replace(const struct disk *disk, const char *directory, const char *name, const void *bytes,
                        size_t count)
{
    lk_assert(count <= RECORD_FILE_BYTES_MAX);
    char path[STORAGE_PATH_BYTES_MAX], path_new[STORAGE_PATH_BYTES_MAX], name_new[64];
    int rc = storage_path(path, directory, name);
    if (rc != 0) return rc;
    int name_bytes = snprintf(name_new, sizeof name_new, "%s.new", name);
    lk_assert(name_bytes > 0 && name_bytes < (int)sizeof name_new);
    rc = storage_path(path_new, directory, name_new);
    if (rc != 0) return rc;
    struct disk_file *file = NULL;
    /* Left over from a crash, and perhaps, half-way through a rename, a second name of the record itself: it is removed
     * and never written to. */
    rc = disk->unlink(disk->context, path_new);
    if (rc != 0 && rc != LOCKSTEP_ENOTFOUND) return rc;
    rc = disk->open(disk->context, path_new, DISK_CREATE | DISK_EXCLUSIVE, &file);
    if (rc != 0) return rc;
    const struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = count};
    rc = disk->pwritev(file, &part, 1, 0);
    if (rc != 0) goto out;
    rc = disk->flush(file, true);
    if (rc != 0) goto out;
    rc = disk->rename(disk->context, path_new, path);
    if (rc != 0) goto out;
    rc = disk->flush_directory(disk->context, directory);
out:
    disk->close(file);
    return rc;
}
