/* SPDX-License-Identifier: Apache-2.0 */
/* recorder.c - below the program, above the kernel: every call that changes a file of one directory is performed and put
 * down (trace.h). Preloaded, so that what libraries do is seen as well: LMDB writes its data with pwrite and writev, and
 * its meta pages through a second descriptor that is opened O_DSYNC.
 * Thread: any. A mutex makes the order of the records that of the effects; flushes run outside of it, and say what they
 * cover.
 * What it cannot see it refuses, loudly: shared writable maps, links, appending. What it does not know of (stdio, new
 * calls) shows when the files are compared with the records (medium_compare). Files whose name ends in "-lock" are left
 * out: LMDB keeps them in a map, for living processes only, and crash images hold garbage in their place. */
#undef _FILE_OFFSET_BITS /* it would turn `open` into `open64`: both names are defined here, and are one on 64 bits */
#include "tests/powercut/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tests/powercut/trace.h"

enum { DESCRIPTORS_MAX = 1024, PATH_BYTES = 512, PARTS_MAX = 1024 };

/* What a descriptor is open on. */
struct watched {
    bool is, is_directory, dsync;
    uint64_t inode;
    char path[PATH_BYTES];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char directory[PATH_BYTES]; /* "" = nothing is recorded */
static int trace_descriptor = -1;
static uint64_t records, operations, kill_before = UINT64_MAX;
static const char *kill_while; /* a path; NULL */
static struct watched descriptors[DESCRIPTORS_MAX];

__attribute__((noreturn)) static void refuse(const char *call, const char *path)
{
    char text[PATH_BYTES + 256];
    int bytes = snprintf(text, sizeof text, "recorder: %s of %s cannot be recorded\n", call, path);
    (void)!syscall(SYS_write, STDERR_FILENO, text, (size_t)bytes);
    abort();
}

static bool is_scratch(const char *path)
{
    size_t bytes = strlen(path);
    return bytes >= 5 && strcmp(path + bytes - 5, "-lock") == 0;
}

/* Whether a path is watched; then its place below the directory, "." for itself. */
static bool below(const char *path, char to[PATH_BYTES])
{
    char whole[2 * PATH_MAX];
    if (directory[0] == '\0') return false;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char here[PATH_MAX];
        if (syscall(SYS_getcwd, here, sizeof here) < 0) refuse("getcwd", path);
        snprintf(whole, sizeof whole, "%s/%s", here, path);
    }
    if (strstr(whole, "..") != NULL) { /* as it is without */
        char real[PATH_MAX];
        if (realpath(whole, real) == NULL) return false;
        memcpy(whole, real, sizeof real);
    }
    size_t bytes = strlen(directory);
    if (strncmp(whole, directory, bytes) != 0 || (whole[bytes] != '/' && whole[bytes] != '\0')) return false;
    const char *rest = whole + bytes;
    while (*rest == '/') rest++;
    if (strlen(rest) >= PATH_BYTES) refuse("so long a path", path);
    snprintf(to, PATH_BYTES, "%s", *rest == '\0' ? "." : rest);
    return !is_scratch(to);
}

/* --- records; the caller holds the mutex -------------------------------------------------------------------------- */

static void put(struct trace_record *record, const struct iovec *parts, int count)
{
    static const uint8_t zeros[8];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct iovec all[PARTS_MAX + 2] = {{.iov_base = record, .iov_len = sizeof *record}};
    uint64_t bytes = 0, used = 0, wanted = record->bytes;
    int n = 1;
    record->time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    for (int i = 0; i < count && used < wanted; i++, n++) {
        all[n] = parts[i];
        if (all[n].iov_len > wanted - used) all[n].iov_len = wanted - used; /* a short write */
        used += all[n].iov_len;
    }
    all[n++] = (struct iovec){.iov_base = (void *)(uintptr_t)zeros,
                              .iov_len = trace_record_bytes(record) - sizeof *record - record->bytes};
    for (int i = 0; i < n; i++) bytes += all[i].iov_len;
    if (syscall(SYS_writev, trace_descriptor, all, n) != (long)bytes) refuse("more", "the trace");
    records++;
}

static void put_path(enum trace_type type, uint64_t inode, const char *path)
{
    struct trace_record record = {.type = type, .bytes = (uint32_t)strlen(path) + 1, .inode = inode};
    put(&record, &(struct iovec){.iov_base = (void *)(uintptr_t)path, .iov_len = record.bytes}, 1);
}

/* Before each operation; the caller holds the mutex. */
static void begin_operation(void)
{
    bool now = kill_while != NULL && syscall(SYS_faccessat, AT_FDCWD, kill_while, F_OK) == 0;
    if (operations++ == kill_before || now) kill(getpid(), SIGKILL);
}

static void lock(void)
{
    pthread_mutex_lock(&mutex);
    begin_operation();
}

static void unlock(void)
{
    int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
}

static struct watched *watched(int descriptor)
{
    if (descriptor < 0 || descriptor >= DESCRIPTORS_MAX || !descriptors[descriptor].is) return NULL;
    return &descriptors[descriptor];
}

static uint64_t inode_of(int descriptor)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0) refuse("fstat", "a descriptor");
    return status.st_ino;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static int open_at(int at, const char *path, int flags, mode_t mode)
{
    char relative[PATH_BYTES];
    if ((at != AT_FDCWD && path[0] != '/') || !below(path, relative))
        return (int)syscall(SYS_openat, at, path, flags, mode);
    if ((flags & O_APPEND) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
        refuse("appending, or a file without a name", path);
    bool may_create = (flags & O_CREAT) != 0;
    if (may_create || (flags & O_TRUNC) != 0)
        lock();
    else
        pthread_mutex_lock(&mutex);
    bool there = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int descriptor = (int)syscall(SYS_openat, at, path, flags, mode);
    if (descriptor >= DESCRIPTORS_MAX) refuse("so many open files", path);
    if (descriptor >= 0) {
        struct watched *w = &descriptors[descriptor];
        *w = (struct watched){.is = true, .dsync = (flags & O_DSYNC) != 0, .inode = inode_of(descriptor)};
        memcpy(w->path, relative, sizeof relative);
        struct stat status;
        w->is_directory = fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
        if (may_create && !there) put_path(TRACE_CREATE, w->inode, relative);
        if (there && (flags & O_TRUNC) != 0 && (flags & O_ACCMODE) != O_RDONLY)
            put(&(struct trace_record){.type = TRACE_SIZE, .inode = w->inode}, NULL, 0);
    }
    unlock();
    return descriptor;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int openat(int at, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_at(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) __attribute__((alias("openat")));

int creat(const char *path, mode_t mode)
{
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode) __attribute__((alias("creat")));

int close(int descriptor)
{
    pthread_mutex_lock(&mutex);
    struct watched *w = watched(descriptor);
    if (w != NULL) w->is = false;
    pthread_mutex_unlock(&mutex);
    return (int)syscall(SYS_close, descriptor);
}

int mkdir(const char *path, mode_t mode)
{
    char relative[PATH_BYTES];
    if (!below(path, relative)) return (int)syscall(SYS_mkdir, path, mode);
    lock();
    struct stat status;
    int rc = (int)syscall(SYS_mkdir, path, mode);
    if (rc == 0 && stat(path, &status) == 0) put_path(TRACE_DIRECTORY, status.st_ino, relative);
    unlock();
    return rc;
}

int rename(const char *from, const char *to)
{
    char paths[2 * PATH_BYTES], relative_to[PATH_BYTES];
    bool is_below = below(from, paths);
    if (is_below != below(to, relative_to)) refuse("a rename into or out of the directory", from);
    if (!is_below) return (int)syscall(SYS_rename, from, to);
    lock();
    int rc = (int)syscall(SYS_rename, from, to);
    if (rc == 0) {
        size_t from_bytes = strlen(paths) + 1, to_bytes = strlen(relative_to) + 1;
        memcpy(paths + from_bytes, relative_to, to_bytes);
        struct trace_record record = {.type = TRACE_RENAME, .bytes = (uint32_t)(from_bytes + to_bytes)};
        put(&record, &(struct iovec){.iov_base = paths, .iov_len = record.bytes}, 1);
    }
    unlock();
    return rc;
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    if (from_at == AT_FDCWD && to_at == AT_FDCWD) return rename(from, to);
    refuse("renameat", from);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    if (flags == 0) return renameat(from_at, from, to_at, to);
    refuse("renameat2", from);
}

static int unlink_by(long number, const char *path, int flags)
{
    char relative[PATH_BYTES];
    bool is_below = below(path, relative);
    if (is_below) lock();
    int rc = (int)(number == SYS_unlinkat ? syscall(number, AT_FDCWD, path, flags) : syscall(number, path));
    if (is_below) {
        if (rc == 0) put_path(TRACE_UNLINK, 0, relative);
        unlock();
    }
    return rc;
}

int unlink(const char *path)
{
    return unlink_by(SYS_unlink, path, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    if (at != AT_FDCWD && path[0] != '/') return (int)syscall(SYS_unlinkat, at, path, flags);
    return unlink_by(SYS_unlinkat, path, flags);
}

int rmdir(const char *path)
{
    return unlink_by(SYS_rmdir, path, 0);
}

int remove(const char *path)
{
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) return rmdir(path);
    return unlink(path);
}

int link(const char *from, const char *to)
{
    char relative[PATH_BYTES];
    if (below(to, relative)) refuse("a link", to);
    return (int)syscall(SYS_link, from, to);
}

/* --- content ------------------------------------------------------------------------------------------------------ */

/* offset -1: where the descriptor stands. */
static ssize_t write_parts(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    struct watched *w = watched(descriptor);
    bool here = offset == -1;
    if (w == NULL)
        return here ? syscall(SYS_writev, descriptor, parts, count)
                    : syscall(SYS_pwritev, descriptor, parts, count, offset, 0);
    if (count > PARTS_MAX) refuse("so many parts", w->path);
    lock();
    if (here) offset = syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
    ssize_t n = here ? syscall(SYS_writev, descriptor, parts, count)
                     : syscall(SYS_pwritev, descriptor, parts, count, offset, 0);
    if (n > 0) {
        struct trace_record record = {
            .type = TRACE_WRITE, .bytes = (uint32_t)n, .inode = w->inode, .offset = (uint64_t)offset};
        put(&record, parts, count);
        if (w->dsync) { /* two operations: it may be in the cache alone; once it returns it is flushed, and nothing else */
            begin_operation();
            record = (struct trace_record){.type = TRACE_FLUSH_RANGE,
                                           .inode = w->inode,
                                           .offset = (uint64_t)offset,
                                           .count = (uint64_t)n,
                                           .covers = records};
            put(&record, NULL, 0);
        }
    }
    unlock();
    return n;
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    return write_parts(descriptor, parts, count, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off_t offset) __attribute__((alias("pwritev")));

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset)
{
    const struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = count};
    return write_parts(descriptor, &part, 1, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off_t offset) __attribute__((alias("pwrite")));

ssize_t write(int descriptor, const void *bytes, size_t count)
{
    const struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = count};
    if (watched(descriptor) == NULL) return syscall(SYS_write, descriptor, bytes, count);
    return write_parts(descriptor, &part, 1, -1);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    return write_parts(descriptor, parts, count, -1);
}

/* The size is about to be `bytes`, by the system call that the caller makes. */
static int resize(const struct watched *w, uint64_t bytes, long number, long a, long b, long c, long d)
{
    lock();
    int rc = (int)syscall(number, a, b, c, d);
    if (rc == 0) put(&(struct trace_record){.type = TRACE_SIZE, .inode = w->inode, .offset = bytes}, NULL, 0);
    unlock();
    return rc;
}

int ftruncate(int descriptor, off_t bytes)
{
    const struct watched *w = watched(descriptor);
    if (w == NULL) return (int)syscall(SYS_ftruncate, descriptor, bytes);
    return resize(w, (uint64_t)bytes, SYS_ftruncate, descriptor, bytes, 0, 0);
}

int ftruncate64(int descriptor, off_t bytes) __attribute__((alias("ftruncate")));

int truncate(const char *path, off_t bytes)
{
    char relative[PATH_BYTES];
    if (below(path, relative)) refuse("a truncation by name", path);
    return (int)syscall(SYS_truncate, path, bytes);
}

int truncate64(const char *path, off_t bytes) __attribute__((alias("truncate")));

int fallocate(int descriptor, int mode, off_t offset, off_t bytes)
{
    const struct watched *w = watched(descriptor);
    struct stat status;
    if (w == NULL) return (int)syscall(SYS_fallocate, descriptor, mode, offset, bytes);
    if (mode == FALLOC_FL_KEEP_SIZE) /* space ahead: neither size nor content */
        return (int)syscall(SYS_fallocate, descriptor, mode, offset, bytes);
    if (mode != 0) refuse("fallocate with a mode", w->path);
    if (fstat(descriptor, &status) != 0) return -1;
    off_t end = offset + bytes > status.st_size ? offset + bytes : status.st_size;
    return resize(w, (uint64_t)end, SYS_fallocate, descriptor, mode, offset, bytes);
}

int fallocate64(int descriptor, int mode, off_t offset, off_t bytes) __attribute__((alias("fallocate")));

int posix_fallocate(int descriptor, off_t offset, off_t bytes)
{
    int error = errno;
    int rc = fallocate(descriptor, 0, offset, bytes) == 0 ? 0 : errno;
    errno = error;
    return rc;
}

int posix_fallocate64(int descriptor, off_t offset, off_t bytes) __attribute__((alias("posix_fallocate")));

void *mmap(void *at, size_t bytes, int protection, int flags, int descriptor, off_t offset)
{
    const struct watched *w = watched(descriptor);
    if (w != NULL && (protection & PROT_WRITE) != 0 && (flags & MAP_TYPE) != MAP_PRIVATE)
        refuse("a shared, writable map", w->path);
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, descriptor, offset);
}

void *mmap64(void *at, size_t bytes, int protection, int flags, int descriptor, off_t offset)
    __attribute__((alias("mmap")));

ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t bytes, unsigned flags)
{
    if (watched(to) != NULL) refuse("copy_file_range", watched(to)->path);
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, bytes, flags);
}

ssize_t sendfile(int to, int from, off_t *offset, size_t bytes)
{
    if (watched(to) != NULL) refuse("sendfile", watched(to)->path);
    return syscall(SYS_sendfile, to, from, offset, bytes);
}

ssize_t sendfile64(int to, int from, off_t *offset, size_t bytes) __attribute__((alias("sendfile")));

/* --- flushes ------------------------------------------------------------------------------------------------------ */

static int flush(long number, int descriptor)
{
    const struct watched *w = watched(descriptor);
    if (w == NULL) return (int)syscall(number, descriptor);
    lock();
    struct trace_record record = {
        .type = w->is_directory ? TRACE_FLUSH_NAMES : TRACE_FLUSH, .inode = w->inode, .covers = records};
    unlock();
    int rc = (int)syscall(number, descriptor); /* others go on writing: not a byte of that counts as flushed */
    if (rc != 0) return rc;
    pthread_mutex_lock(&mutex);
    put(&record, NULL, 0);
    pthread_mutex_unlock(&mutex);
    return 0;
}

int fsync(int descriptor)
{
    return flush(SYS_fsync, descriptor);
}

int fdatasync(int descriptor)
{
    return flush(SYS_fdatasync, descriptor);
}

/* --- the program's side ------------------------------------------------------------------------------------------- */

void recorder_start(const char *path, int trace)
{
    struct stat status;
    if (path[0] != '/' || strlen(path) >= PATH_BYTES || stat(path, &status) != 0) refuse("the directory", path);
    pthread_mutex_lock(&mutex);
    snprintf(directory, sizeof directory, "%s", path);
    trace_descriptor = trace;
    put(&(struct trace_record){.type = TRACE_BEGIN, .inode = status.st_ino}, NULL, 0);
    pthread_mutex_unlock(&mutex);
}

void recorder_note(const void *bytes, uint32_t count)
{
    pthread_mutex_lock(&mutex);
    struct trace_record record = {.type = TRACE_NOTE, .bytes = count};
    put(&record, &(struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = count}, 1);
    pthread_mutex_unlock(&mutex);
}

void recorder_kill_after(uint64_t count)
{
    pthread_mutex_lock(&mutex);
    kill_before = operations + count;
    pthread_mutex_unlock(&mutex);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("RECORDER_DIRECTORY"), *trace = getenv("RECORDER_TRACE");
    if (path == NULL || trace == NULL) return;
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (descriptor < 0) refuse("the environment's RECORDER_TRACE", trace);
    kill_while = getenv("RECORDER_KILL_WHILE");
    recorder_start(path, descriptor);
}
