/* SPDX-License-Identifier: Apache-2.0 */
/* slow_flush.c - a disk whose flushes take SLOW_FLUSH_US microseconds longer. Preloaded into a node (LD_PRELOAD): what
 * depends on a slow disk can then be shown on a fast one, and beside other work. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int descriptor)
{
    const char *text = getenv("SLOW_FLUSH_US");
    long us = text == NULL ? 0 : strtol(text, NULL, 10);
    struct timespec wait = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&wait, NULL);
    return (int)syscall(SYS_fdatasync, descriptor);
}
