/* SPDX-License-Identifier: Apache-2.0 */
/* bad_disk.c - preloaded into a node (LD_PRELOAD): its disk is slow, hangs or fails, while files of these names exist.
 *   BAD_DISK_FLUSH_US   every fdatasync takes so many microseconds longer, always
 *   BAD_DISK_HANG       path: no fdatasync returns while this file exists
 *   BAD_DISK_FAIL       path: fdatasync fails with EIO
 *   BAD_DISK_FAIL_WRITE path: a write at an offset does, unless through a descriptor that was opened O_DSYNC */
#undef _FILE_OFFSET_BITS /* both names of each call are wanted, with and without 64 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void sleep_us(long us)
{
    struct timespec wait = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&wait, NULL);
}

static bool is_on(const char *name)
{
    const char *path = getenv(name);
    return path != NULL && access(path, F_OK) == 0;
}

static bool write_fails(int descriptor)
{
    if (!is_on("BAD_DISK_FAIL_WRITE") || (fcntl(descriptor, F_GETFL) & O_DSYNC) != 0) return false;
    errno = EIO;
    return true;
}

int fdatasync(int descriptor)
{
    const char *text = getenv("BAD_DISK_FLUSH_US");
    sleep_us(text == NULL ? 0 : strtol(text, NULL, 10));
    while (is_on("BAD_DISK_HANG")) sleep_us(10000);
    if (is_on("BAD_DISK_FAIL")) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, descriptor);
}

ssize_t pwrite64(int descriptor, const void *from, size_t bytes, off64_t offset)
{
    return write_fails(descriptor) ? -1 : syscall(SYS_pwrite64, descriptor, from, bytes, offset);
}

ssize_t pwrite(int descriptor, const void *from, size_t bytes, off_t offset)
{
    return pwrite64(descriptor, from, bytes, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset)
{
    return write_fails(descriptor) ? -1 : syscall(SYS_pwritev, descriptor, parts, (long)count, offset, 0l);
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    return pwritev64(descriptor, parts, count, offset);
}
