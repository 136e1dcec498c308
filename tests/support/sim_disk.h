/* SPDX-License-Identifier: Apache-2.0 */
/* sim_disk.h - a disk in memory behind storage/disk.h, that can lose power at any operation.
 * What is not flushed is kept apart, sector by sector (512 bytes): when the power goes, the seed decides for each
 * whether it reached the medium, so that writes are dropped, kept, reordered and torn. Names (create, rename, unlink)
 * are durable once their directory is flushed; of those that are not, a prefix chosen by the seed is. One thread. */
#ifndef LOCKSTEP_TESTS_SUPPORT_SIM_DISK_H
#define LOCKSTEP_TESTS_SUPPORT_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/disk.h"

struct sim_disk;

struct sim_disk *sim_disk_open(uint64_t seed);
void sim_disk_close(struct sim_disk *sim); /* takes NULL */
const struct disk *sim_disk(struct sim_disk *sim);

/* The power goes now: every later call fails with EIO, closing changes nothing. */
void sim_disk_power_cut(struct sim_disk *sim);
/* The process that uses it is killed, and the machine lives on: the same, but power_on finds all that was written,
 * still unflushed. */
void sim_disk_kill(struct sim_disk *sim);
/* The power goes at the n-th changing operation from now (write, flush, rename, unlink, create, a commit of
 * the map that shares it): 0 = at the next one. It may or may not have happened. */
void sim_disk_power_cut_after(struct sim_disk *sim, uint64_t operations);
/* Come back with what is on the medium. All files must have been closed. */
void sim_disk_power_on(struct sim_disk *sim);
bool sim_disk_powered(const struct sim_disk *sim);
/* Changing operations since sim_disk_open. */
uint64_t sim_disk_operations(const struct sim_disk *sim);
/* Of these, all that are no flush of a file or a directory. */
uint64_t sim_disk_writes(const struct sim_disk *sim);
/* Count one such operation of somebody who shares the power. False: the power is gone, or went at this very one; then
 * *ret_happened says whether it still reached the medium. */
bool sim_disk_operation(struct sim_disk *sim, bool *ret_happened);

/* Faults. The n-th flush from now fails with EIO, and all later ones. UINT64_MAX = none. Part of what it should have
 * written is lost, though reads show it until the cache is dropped. */
void sim_disk_fail_flush_after(struct sim_disk *sim, uint64_t flushes);
/* Flushes of files report success and do nothing: no storage survives this, and a test of tests must see that. */
void sim_disk_lie(struct sim_disk *sim, bool lies);
/* No file may grow the disk beyond this: ENOSPC. UINT64_MAX = no limit. */
void sim_disk_capacity(struct sim_disk *sim, uint64_t bytes);
/* The next such operation, once, is ENOSPC: file systems find the room for what was written late. A flush loses part of it,
 * as one that fails with EIO. */
enum sim_disk_full_at {
    SIM_DISK_FULL_NOWHERE,
    SIM_DISK_FULL_AT_FLUSH,
    SIM_DISK_FULL_AT_RENAME,
    SIM_DISK_FULL_AT_NAMES
};
void sim_disk_full_at(struct sim_disk *sim, enum sim_disk_full_at at); /* NAMES: the flush of a directory */
/* From now on it is one of those that take no space ahead of what is written. */
void sim_disk_cannot_reserve(struct sim_disk *sim);

enum sim_disk_operation_kind { SIM_DISK_WRITE = 1, SIM_DISK_FLUSH, SIM_DISK_FLUSH_FAILED };
/* Is told, in the middle of the call, of what is done to files, and of a power cut. */
struct sim_disk_watch {
    void *context;
    void (*operation)(void *context, enum sim_disk_operation_kind kind, uint64_t offset, uint64_t bytes);
    void (*power_cut)(void *context);
};
void sim_disk_watch_set(struct sim_disk *sim, const struct sim_disk_watch *watch);

/* A file's bytes as they are now, for tests that damage them; NULL = no such file. Valid until it changes. */
uint8_t *sim_disk_bytes(struct sim_disk *sim, const char *path, uint64_t *ret_bytes);

#endif
