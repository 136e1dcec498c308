/* SPDX-License-Identifier: Apache-2.0 */
/* failing_meta.c - a disk that fails LMDB's meta pages, and nothing else. LMDB writes them through a second descriptor, opened
 * O_DSYNC: each such write is a write and a flush, which a failing fdatasync does not reach. Preloaded into a node
 * (LD_PRELOAD): while the file FAIL_META_WHILE exists, such writes end with FAIL_META, an errno as a number.
 * open, pwrite: LMDB's names for them; the program's own are open64 and pwrite64. */
#undef _FILE_OFFSET_BITS
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 4096 };

static _Atomic char is_meta[DESCRIPTORS_MAX]; /* by descriptor */

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX) is_meta[descriptor] = (flags & O_DSYNC) != 0;
    return descriptor;
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset)
{
    const char *error = getenv("FAIL_META"), *path = getenv("FAIL_META_WHILE");
    if (error != NULL && path != NULL && descriptor < DESCRIPTORS_MAX && is_meta[descriptor] &&
        access(path, F_OK) == 0) {
        errno = (int)strtol(error, NULL, 10);
        return -1;
    }
    return syscall(SYS_pwrite64, descriptor, bytes, count, offset);
}
