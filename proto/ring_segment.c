/* SPDX-License-Identifier: Apache-2.0 */
/* ring_segment.c - see ring_segment.h: how a segment lies in an address space, its writer's as a reader's.
 *     segment as it is in the file | the bytes once more
 * Why twice: a block, and any range of blocks, is contiguous at every place; there is no padding at the end, and a range
 * is one iovec for the socket, one for the disk, and one copy. */
#include "proto/ring_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* since Linux 6.3, where a system may refuse memory that could be run as a program */
#endif

enum { RESERVE_BYTES = 256 << 10 }; /* at once: older kernels take back what a call reserved that meets a signal */

int ring_segment_make(const char *name, uint64_t bytes)
{
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create(name, flags);
    if (fd < 0) return -1;
    int error = ftruncate(fd, (off_t)bytes) == 0 ? 0 : errno;
    for (uint64_t at = 0; at < bytes && error == 0;) {
        uint64_t count = bytes - at < RESERVE_BYTES ? bytes - at : RESERVE_BYTES;
        error = posix_fallocate(fd, (off_t)at, (off_t)count);
        if (error == 0) at += count;
        if (error == EINTR) error = 0;
    }
    if (error == 0) return fd;
    close(fd);
    return -1;
}

size_t ring_segment_map_bytes(uint64_t bytes_at, uint64_t bytes)
{
    return (size_t)(bytes_at + 2 * bytes);
}

uint8_t *ring_segment_map(int fd, uint64_t bytes_at, uint64_t bytes, bool write)
{
    size_t all = ring_segment_map_bytes(bytes_at, bytes), once = (size_t)(bytes_at + bytes);
    int protection = write ? PROT_READ | PROT_WRITE : PROT_READ;
    void *at = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return NULL;
    uint8_t *mapping = at;
    if (mmap(mapping, once, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
        mmap(mapping + once, (size_t)bytes, protection, MAP_SHARED | MAP_FIXED, fd, (off_t)bytes_at) == MAP_FAILED) {
        munmap(mapping, all);
        return NULL;
    }
    return mapping;
}
