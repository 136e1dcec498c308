/* SPDX-License-Identifier: Apache-2.0 */
/* disk_posix.c - the real disk behind disk.h.
 * Thread: any; a file belongs to one. Owns: file descriptors.
 * Every error of a write or a flush is reported once and never retried here (R8): after a failed fdatasync the kernel
 * has marked the pages clean, and a second one would "succeed". */
#include "storage/disk.h"

#include <dirent.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lockstep/errors.h"

struct disk_file {
    int fd;
};

static int from_errno(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return LOCKSTEP_ENOSPC;
    case ENOENT: return LOCKSTEP_ENOTFOUND;
    case EEXIST: return LOCKSTEP_EEXIST;
    case EWOULDBLOCK: return LOCKSTEP_ELOCKED;
    case ENOMEM: return LOCKSTEP_ENOMEM;
    case EACCES:
    case EPERM:
    case EROFS:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
    case EINVAL: return LOCKSTEP_EINVAL;
    default: return LOCKSTEP_EIO;
    }
}

static int posix_disk_open(void *context, const char *path, int flags, struct disk_file **ret)
{
    (void)context;
    int mode = O_CLOEXEC | ((flags & DISK_READ_ONLY) != 0 ? O_RDONLY : O_RDWR);
    if ((flags & DISK_CREATE) != 0) mode |= O_CREAT;
    if ((flags & DISK_EXCLUSIVE) != 0) mode |= O_EXCL;
    struct disk_file *file = malloc(sizeof *file);
    if (file == NULL) return LOCKSTEP_ENOMEM;
    file->fd = open(path, mode, 0600);
    if (file->fd < 0) {
        int rc = from_errno(errno);
        free(file);
        return rc;
    }
    /* flock belongs to the open file, so a second open in this process is refused too. */
    if ((flags & DISK_LOCK) != 0 && flock(file->fd, LOCK_EX | LOCK_NB) != 0) {
        int rc = from_errno(errno);
        close(file->fd);
        free(file);
        return rc;
    }
    *ret = file;
    return 0;
}

static void posix_disk_close(struct disk_file *file)
{
    if (file == NULL) return;
    close(file->fd);
    free(file);
}

static int posix_disk_size(struct disk_file *file, uint64_t *ret)
{
    struct stat status;
    if (fstat(file->fd, &status) != 0) return from_errno(errno);
    *ret = (uint64_t)status.st_size;
    return 0;
}

static int posix_disk_pread(struct disk_file *file, void *to, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(file->fd, (uint8_t *)to + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return from_errno(errno);
        if (n == 0) break;
        done += (size_t)n;
    }
    *ret_bytes = done;
    return 0;
}

static int posix_disk_pwritev(struct disk_file *file, const struct iovec *parts, int count, uint64_t offset)
{
    enum { PARTS_A_CALL = 64 };
    struct iovec now[PARTS_A_CALL];
    size_t done_in_part = 0;
    while (count > 0) {
        if (done_in_part == parts->iov_len) { /* also skips empty parts */
            parts++;
            count--;
            done_in_part = 0;
            continue;
        }
        int now_count = count < PARTS_A_CALL ? count : PARTS_A_CALL;
        memcpy(now, parts, (size_t)now_count * sizeof *now);
        now[0].iov_base = (uint8_t *)now[0].iov_base + done_in_part;
        now[0].iov_len -= done_in_part;
        ssize_t n = pwritev(file->fd, now, now_count, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return from_errno(errno);
        if (n == 0) return LOCKSTEP_EIO;
        offset += (uint64_t)n;
        for (size_t left = (size_t)n; left > 0;) {
            size_t here = parts->iov_len - done_in_part;
            if (left < here) {
                done_in_part += left;
                break;
            }
            left -= here;
            parts++;
            count--;
            done_in_part = 0;
        }
    }
    return 0;
}

static int posix_disk_flush(struct disk_file *file, bool metadata)
{
    int rc = metadata ? fsync(file->fd) : fdatasync(file->fd);
    return rc == 0 ? 0 : from_errno(errno);
}

static int posix_disk_drop_cache(struct disk_file *file)
{
    int error = posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
    return error == 0 ? 0 : from_errno(error);
}

static int posix_disk_reserve(struct disk_file *file, uint64_t bytes)
{
    while (fallocate(file->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) != 0) {
        if (errno == EINTR) continue;
        return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : from_errno(errno);
    }
    return 0;
}

static int posix_disk_rename(void *context, const char *from, const char *to)
{
    (void)context;
    return rename(from, to) == 0 ? 0 : from_errno(errno);
}

static int posix_disk_unlink(void *context, const char *path)
{
    (void)context;
    return unlink(path) == 0 ? 0 : from_errno(errno);
}

static int posix_disk_make_directory(void *context, const char *path)
{
    (void)context;
    if (mkdir(path, 0700) == 0) return 0;
    if (errno != EEXIST) return from_errno(errno);
    struct stat status;
    if (stat(path, &status) != 0) return from_errno(errno);
    return S_ISDIR(status.st_mode) ? 0 : LOCKSTEP_EINVAL;
}

static int posix_disk_flush_directory(void *context, const char *path)
{
    (void)context;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return from_errno(errno);
    int rc = fsync(fd) == 0 ? 0 : from_errno(errno);
    close(fd);
    return rc;
}

static int posix_disk_exists(void *context, const char *path, bool *ret)
{
    (void)context;
    struct stat status;
    if (stat(path, &status) == 0) {
        *ret = true;
        return 0;
    }
    if (errno != ENOENT) return from_errno(errno);
    *ret = false;
    return 0;
}

static int posix_disk_list(void *context, const char *path, void (*each)(void *each_context, const char *name),
                           void *each_context)
{
    (void)context;
    DIR *directory = opendir(path);
    if (directory == NULL) return from_errno(errno);
    const struct dirent *entry;
    for (errno = 0; (entry = readdir(directory)) != NULL; errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(each_context, entry->d_name);
    int rc = errno == 0 ? 0 : from_errno(errno);
    closedir(directory);
    return rc;
}

/* The kernel draws a UUID when it starts. */
static int posix_disk_host_boot(void *context, uint64_t *ret)
{
    char text[64] = "";
    uint64_t value = 0;
    unsigned digits = 0;
    (void)context;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return from_errno(errno);
    ssize_t count = read(fd, text, sizeof text - 1);
    close(fd);
    for (ssize_t i = 0; i < count && digits < 16; i++) {
        if (!isxdigit((unsigned char)text[i])) continue;
        value = value << 4 | (uint64_t)(isdigit((unsigned char)text[i]) ? text[i] - '0' : (text[i] | 32) - 'a' + 10);
        digits++;
    }
    if (digits < 16) return LOCKSTEP_EIO;
    *ret = value;
    return 0;
}

static int posix_disk_file_system(void *context, const char *path, char *ret, size_t room)
{
    (void)context;
    /* The numbers stand in the kernel's linux/magic.h; those that people run a database on, and those they should not. */
    static const struct {
        uint32_t magic;
        const char *name;
    } known[] = {{0xef53, "ext4"},      {0x58465342, "xfs"},       {0x9123683e, "btrfs"}, {0x01021994, "tmpfs"},
                 {0x858458f6, "ramfs"}, {0x794c7630, "overlayfs"}, {0x2fc12fc1, "zfs"},   {0xf2f52010, "f2fs"},
                 {0x6969, "nfs"},       {0xff534d42, "cifs"},      {0x65735546, "fuse"},  {0x01021997, "9p"}};
    struct statfs status;
    if (statfs(path, &status) != 0) return from_errno(errno);
    uint32_t magic = (uint32_t)status.f_type;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].magic != magic) continue;
        snprintf(ret, room, "%s", known[i].name);
        return 0;
    }
    snprintf(ret, room, "0x%x", magic);
    return 0;
}

const struct disk *disk_posix(void)
{
    static const struct disk disk = {.open = posix_disk_open,
                                     .close = posix_disk_close,
                                     .size = posix_disk_size,
                                     .pread = posix_disk_pread,
                                     .pwritev = posix_disk_pwritev,
                                     .flush = posix_disk_flush,
                                     .drop_cache = posix_disk_drop_cache,
                                     .reserve = posix_disk_reserve,
                                     .rename = posix_disk_rename,
                                     .unlink = posix_disk_unlink,
                                     .make_directory = posix_disk_make_directory,
                                     .flush_directory = posix_disk_flush_directory,
                                     .exists = posix_disk_exists,
                                     .list = posix_disk_list,
                                     .host_boot = posix_disk_host_boot,
                                     .file_system = posix_disk_file_system};
    return &disk;
}
