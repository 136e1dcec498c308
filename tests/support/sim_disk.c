/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/sim_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/random.h"
#include "lockstep/errors.h"

enum { SECTOR_BYTES = 512, PATH_BYTES = 4096 };

/* What a sector is, besides the same as on the medium. */
enum sector_state {
    SECTOR_CLEAN = 0,
    SECTOR_DIRTY = 1, /* written since the last flush */
    SECTOR_STALE = 2, /* its flush failed: the cache shows what the medium does not hold, and no flush will write it */
};

/* A file's content, whatever its names are. */
struct inode {
    struct inode *next; /* all of a disk, for the end */
    uint8_t *now, *medium;
    uint8_t *dirty; /* one byte a sector: enum sector_state */
    uint64_t room;  /* of now, medium; zero behind the sizes */
    uint64_t bytes, medium_bytes;
    uint64_t dirty_from, dirty_to; /* sectors outside are clean */
    uint64_t reserved;             /* bytes of the disk that are this file's, written or not */
    bool locked;
};

/* A directory entry, or what became of it: inode NULL = removed. Changes lie in a list until flushed. */
struct name {
    char path[PATH_BYTES];
    struct inode *inode;
    bool directory;
};

struct names {
    struct name *list;
    size_t count, room;
};

struct disk_file {
    struct sim_disk *sim;
    struct inode *inode;
    bool read_only, locks;
};

struct sim_disk {
    struct disk disk;
    struct random random;
    struct inode *inodes;
    struct names now, medium, changes; /* medium + changes, in order = now */
    bool powered;
    uint64_t power_cuts; /* that were followed by a start of the host */
    bool killed;         /* no power cut: what is cached stays */
    bool lies, cannot_reserve;
    enum sim_disk_full_at full_at;
    uint64_t operations, flush_operations, cut_at, flushes, fail_flush_at, capacity;
    struct sim_disk_watch watch;
};

static struct name *names_find(struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->list[i].path, path) == 0) return &names->list[i];
    return NULL;
}

static void names_add(struct names *names, const char *path, struct inode *inode, bool directory)
{
    if (names->count == names->room) {
        names->room = names->room == 0 ? 16 : 2 * names->room;
        names->list = realloc(names->list, names->room * sizeof *names->list);
        lk_assert(names->list != NULL);
    }
    struct name *name = &names->list[names->count++];
    snprintf(name->path, sizeof name->path, "%s", path);
    name->inode = inode;
    name->directory = directory;
}

static void names_remove(struct names *names, size_t i)
{
    memmove(&names->list[i], &names->list[i + 1], (names->count - i - 1) * sizeof *names->list);
    names->count--;
}

static void names_set(struct names *names, const char *path, struct inode *inode, bool directory)
{
    struct name *name = names_find(names, path);
    if (name != NULL && inode == NULL && !directory)
        names_remove(names, (size_t)(name - names->list));
    else if (name != NULL)
        name->inode = inode;
    else if (inode != NULL || directory)
        names_add(names, path, inode, directory);
}

static void name_change(struct sim_disk *sim, const char *path, struct inode *inode, bool directory)
{
    names_set(&sim->now, path, inode, directory);
    names_add(&sim->changes, path, inode, directory);
}

static void watched(struct sim_disk *sim, enum sim_disk_operation_kind kind, uint64_t offset, uint64_t bytes)
{
    if (sim->watch.operation != NULL) sim->watch.operation(sim->watch.context, kind, offset, bytes);
}

bool sim_disk_operation(struct sim_disk *sim, bool *ret_happened)
{
    *ret_happened = false;
    if (!sim->powered) return false;
    if (sim->operations++ != sim->cut_at) {
        *ret_happened = true;
        return true;
    }
    *ret_happened = random_chance(&sim->random, 1, 2);
    return false;
}

/* After the last operation that may have happened. */
static int operation_end(struct sim_disk *sim, bool alive)
{
    if (alive) return 0;
    if (sim->powered) sim_disk_power_cut(sim);
    return LOCKSTEP_EIO;
}

static void inode_reserve(struct inode *inode, uint64_t bytes)
{
    if (bytes <= inode->room) return;
    uint64_t room = inode->room == 0 ? 65536 : inode->room;
    while (room < bytes) room *= 2;
    inode->now = realloc(inode->now, room);
    inode->medium = realloc(inode->medium, room);
    inode->dirty = realloc(inode->dirty, room / SECTOR_BYTES);
    lk_assert(inode->now != NULL && inode->medium != NULL && inode->dirty != NULL);
    memset(inode->now + inode->room, 0, room - inode->room);
    memset(inode->medium + inode->room, 0, room - inode->room);
    memset(inode->dirty + inode->room / SECTOR_BYTES, 0, (room - inode->room) / SECTOR_BYTES);
    inode->room = room;
}

/* Sectors first..last differ from the medium. */
static void inode_mark(struct inode *inode, uint64_t first, uint64_t last)
{
    memset(inode->dirty + first, SECTOR_DIRTY, last - first + 1);
    if (inode->dirty_from == inode->dirty_to) inode->dirty_from = inode->dirty_to = first;
    if (first < inode->dirty_from) inode->dirty_from = first;
    if (last + 1 > inode->dirty_to) inode->dirty_to = last + 1;
}

static int disk_open(void *context, const char *path, int flags, struct disk_file **ret)
{
    struct sim_disk *sim = context;
    bool happened;
    if (!sim->powered) return LOCKSTEP_EIO;
    struct name *name = names_find(&sim->now, path);
    if (name != NULL && name->directory) return LOCKSTEP_EINVAL;
    if (name != NULL && (flags & DISK_CREATE) && (flags & DISK_EXCLUSIVE)) return LOCKSTEP_EEXIST;
    if (name == NULL && !(flags & DISK_CREATE)) return LOCKSTEP_ENOTFOUND;
    if (name != NULL && (flags & DISK_LOCK) && name->inode->locked) return LOCKSTEP_ELOCKED;
    struct inode *inode = name != NULL ? name->inode : NULL;
    if (inode == NULL) {
        bool alive = sim_disk_operation(sim, &happened);
        if (happened) {
            inode = calloc(1, sizeof *inode);
            lk_assert(inode != NULL);
            inode->next = sim->inodes;
            sim->inodes = inode;
            inode_reserve(inode, 1);
            name_change(sim, path, inode, false);
        }
        int rc = operation_end(sim, alive);
        if (rc != 0) return rc;
    }
    struct disk_file *file = calloc(1, sizeof *file);
    lk_assert(file != NULL);
    *file =
        (struct disk_file){.sim = sim, .inode = inode, .read_only = flags & DISK_READ_ONLY, .locks = flags & DISK_LOCK};
    if (file->locks) inode->locked = true;
    *ret = file;
    return 0;
}

static void disk_close(struct disk_file *file)
{
    if (file == NULL) return;
    if (file->locks) file->inode->locked = false;
    free(file);
}

static int disk_size(struct disk_file *file, uint64_t *ret)
{
    if (!file->sim->powered) return LOCKSTEP_EIO;
    *ret = file->inode->bytes;
    return 0;
}

static int disk_pread(struct disk_file *file, void *to, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    const struct inode *inode = file->inode;
    if (!file->sim->powered) return LOCKSTEP_EIO;
    *ret_bytes = 0;
    if (offset >= inode->bytes) return 0;
    *ret_bytes = bytes < inode->bytes - offset ? bytes : (size_t)(inode->bytes - offset);
    memcpy(to, inode->now + offset, *ret_bytes);
    return 0;
}

static uint64_t taken_bytes(const struct inode *inode)
{
    return inode->bytes > inode->reserved ? inode->bytes : inode->reserved;
}

static uint64_t used_bytes(const struct sim_disk *sim)
{
    uint64_t used = 0;
    for (size_t i = 0; i < sim->now.count; i++)
        if (sim->now.list[i].inode != NULL) used += taken_bytes(sim->now.list[i].inode);
    return used;
}

/* Whether the file may be so long. */
static bool may_take(const struct disk_file *file, uint64_t end)
{
    const struct sim_disk *sim = file->sim;
    uint64_t taken = taken_bytes(file->inode);
    if (!sim->powered || end <= taken || sim->capacity == UINT64_MAX) return true;
    return used_bytes(sim) + (end - taken) <= sim->capacity;
}

static int disk_pwritev(struct disk_file *file, const struct iovec *parts, int count, uint64_t offset)
{
    struct sim_disk *sim = file->sim;
    struct inode *inode = file->inode;
    uint64_t bytes = 0;
    bool happened;
    lk_assert(!file->read_only);
    for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
    if (!may_take(file, offset + bytes)) return LOCKSTEP_ENOSPC;
    bool alive = sim_disk_operation(sim, &happened);
    if (happened && bytes > 0) {
        inode_reserve(inode, offset + bytes);
        uint64_t at = offset;
        for (int i = 0; i < count; i++) {
            if (parts[i].iov_len > 0) memcpy(inode->now + at, parts[i].iov_base, parts[i].iov_len);
            at += parts[i].iov_len;
        }
        if (at > inode->bytes) inode->bytes = at;
        inode_mark(inode, offset / SECTOR_BYTES, (at - 1) / SECTOR_BYTES);
    }
    watched(sim, SIM_DISK_WRITE, offset, bytes);
    return operation_end(sim, alive);
}

static void inode_flush(struct inode *inode)
{
    bool stale = false;
    for (uint64_t sector = inode->dirty_from; sector < inode->dirty_to; sector++) {
        if (inode->dirty[sector] == SECTOR_STALE) stale = true;
        if (inode->dirty[sector] != SECTOR_DIRTY) continue;
        memcpy(inode->medium + sector * SECTOR_BYTES, inode->now + sector * SECTOR_BYTES, SECTOR_BYTES);
        inode->dirty[sector] = SECTOR_CLEAN;
    }
    if (!stale) inode->dirty_from = inode->dirty_to = 0;
    inode->medium_bytes = inode->bytes;
}

/* As Linux does it: some pages reached the medium, the others count as clean and are never written again. */
static void inode_flush_failed(struct sim_disk *sim, struct inode *inode)
{
    for (uint64_t sector = inode->dirty_from; sector < inode->dirty_to; sector++) {
        if (inode->dirty[sector] != SECTOR_DIRTY) continue;
        if (random_chance(&sim->random, 1, 2)) {
            memcpy(inode->medium + sector * SECTOR_BYTES, inode->now + sector * SECTOR_BYTES, SECTOR_BYTES);
            inode->dirty[sector] = SECTOR_CLEAN;
        } else {
            inode->dirty[sector] = SECTOR_STALE;
        }
    }
}

/* ENOSPC, this once? */
static bool is_full_at(struct sim_disk *sim, enum sim_disk_full_at at)
{
    if (!sim->powered || sim->full_at != at) return false;
    sim->full_at = SIM_DISK_FULL_NOWHERE;
    return true;
}

static int disk_flush(struct disk_file *file, bool metadata)
{
    struct sim_disk *sim = file->sim;
    bool happened;
    (void)metadata; /* a changed size is data that reading needs: fdatasync writes it too */
    if (is_full_at(sim, SIM_DISK_FULL_AT_FLUSH)) {
        inode_flush_failed(sim, file->inode);
        return LOCKSTEP_ENOSPC;
    }
    if (sim->powered && sim->flushes++ >= sim->fail_flush_at) {
        watched(sim, SIM_DISK_FLUSH_FAILED, 0, 0);
        inode_flush_failed(sim, file->inode);
        return LOCKSTEP_EIO;
    }
    bool alive = sim_disk_operation(sim, &happened);
    sim->flush_operations += sim->powered;
    if (happened && !sim->lies) inode_flush(file->inode);
    watched(sim, SIM_DISK_FLUSH, 0, 0);
    return operation_end(sim, alive);
}

/* Clean pages alone are dropped: what is dirty stays, what a failed flush left comes from the medium again. */
static int disk_drop_cache(struct disk_file *file)
{
    struct inode *inode = file->inode;
    if (!file->sim->powered) return LOCKSTEP_EIO;
    for (uint64_t sector = inode->dirty_from; sector < inode->dirty_to; sector++) {
        if (inode->dirty[sector] != SECTOR_STALE) continue;
        memcpy(inode->now + sector * SECTOR_BYTES, inode->medium + sector * SECTOR_BYTES, SECTOR_BYTES);
        inode->dirty[sector] = SECTOR_CLEAN;
    }
    return 0;
}

static int disk_reserve(struct disk_file *file, uint64_t bytes)
{
    if (!file->sim->powered) return LOCKSTEP_EIO;
    if (file->sim->cannot_reserve || bytes <= file->inode->reserved) return 0;
    if (!may_take(file, bytes)) return LOCKSTEP_ENOSPC;
    file->inode->reserved = bytes;
    return 0;
}

static int disk_rename(void *context, const char *from, const char *to)
{
    struct sim_disk *sim = context;
    bool happened;
    struct name *name = names_find(&sim->now, from);
    if (sim->powered && name == NULL) return LOCKSTEP_ENOTFOUND;
    if (is_full_at(sim, SIM_DISK_FULL_AT_RENAME)) return LOCKSTEP_ENOSPC;
    bool alive = sim_disk_operation(sim, &happened);
    if (happened) {
        struct inode *inode = name->inode;
        /* One change on the medium: never neither name, never half. */
        name_change(sim, to, inode, false);
        names_set(&sim->now, from, NULL, false);
        names_add(&sim->changes, from, NULL, false);
    }
    return operation_end(sim, alive);
}

static int disk_unlink(void *context, const char *path)
{
    struct sim_disk *sim = context;
    bool happened;
    if (sim->powered && names_find(&sim->now, path) == NULL) return LOCKSTEP_ENOTFOUND;
    bool alive = sim_disk_operation(sim, &happened);
    if (happened) name_change(sim, path, NULL, false);
    return operation_end(sim, alive);
}

static int disk_make_directory(void *context, const char *path)
{
    struct sim_disk *sim = context;
    bool happened;
    if (sim->powered && names_find(&sim->now, path) != NULL) return 0;
    bool alive = sim_disk_operation(sim, &happened);
    if (happened) name_change(sim, path, NULL, true);
    return operation_end(sim, alive);
}

/* Every name change so far becomes durable: the disk has few directories, and one journal for their names. */
static int disk_flush_directory(void *context, const char *path)
{
    struct sim_disk *sim = context;
    bool happened;
    (void)path;
    if (is_full_at(sim, SIM_DISK_FULL_AT_NAMES)) return LOCKSTEP_ENOSPC;
    bool alive = sim_disk_operation(sim, &happened);
    sim->flush_operations += sim->powered;
    if (happened) {
        for (size_t i = 0; i < sim->changes.count; i++) {
            const struct name *change = &sim->changes.list[i];
            names_set(&sim->medium, change->path, change->inode, change->directory);
        }
        sim->changes.count = 0;
    }
    return operation_end(sim, alive);
}

static int disk_exists(void *context, const char *path, bool *ret)
{
    struct sim_disk *sim = context;
    if (!sim->powered) return LOCKSTEP_EIO;
    *ret = names_find(&sim->now, path) != NULL;
    return 0;
}

static int disk_list(void *context, const char *path, void (*each)(void *each_context, const char *name),
                     void *each_context)
{
    struct sim_disk *sim = context;
    size_t bytes = strlen(path);
    if (!sim->powered) return LOCKSTEP_EIO;
    for (size_t i = 0; i < sim->now.count; i++) {
        const char *name = sim->now.list[i].path;
        if (strncmp(name, path, bytes) != 0 || name[bytes] != '/') continue;
        if (strchr(name + bytes + 1, '/') == NULL) each(each_context, name + bytes + 1);
    }
    return 0;
}

static int disk_host_boot(void *context, uint64_t *ret)
{
    const struct sim_disk *sim = context;
    *ret = 1 + sim->power_cuts;
    return 0;
}

static int disk_file_system(void *context, const char *path, char *ret, size_t room)
{
    (void)context;
    (void)path;
    snprintf(ret, room, "sim");
    return 0;
}

struct sim_disk *sim_disk_open(uint64_t seed)
{
    struct sim_disk *sim = calloc(1, sizeof *sim);
    lk_assert(sim != NULL);
    random_seed(&sim->random, seed);
    sim->powered = true;
    sim->cut_at = sim->fail_flush_at = sim->capacity = UINT64_MAX;
    sim->disk = (struct disk){
        .context = sim,
        .open = disk_open,
        .close = disk_close,
        .size = disk_size,
        .pread = disk_pread,
        .pwritev = disk_pwritev,
        .flush = disk_flush,
        .drop_cache = disk_drop_cache,
        .reserve = disk_reserve,
        .rename = disk_rename,
        .unlink = disk_unlink,
        .make_directory = disk_make_directory,
        .flush_directory = disk_flush_directory,
        .exists = disk_exists,
        .list = disk_list,
        .host_boot = disk_host_boot,
        .file_system = disk_file_system,
    };
    return sim;
}

void sim_disk_close(struct sim_disk *sim)
{
    if (sim == NULL) return;
    while (sim->inodes != NULL) {
        struct inode *inode = sim->inodes;
        sim->inodes = inode->next;
        free(inode->now);
        free(inode->medium);
        free(inode->dirty);
        free(inode);
    }
    free(sim->now.list);
    free(sim->medium.list);
    free(sim->changes.list);
    free(sim);
}

const struct disk *sim_disk(struct sim_disk *sim)
{
    return &sim->disk;
}

void sim_disk_power_cut(struct sim_disk *sim)
{
    if (!sim->powered) return;
    sim->powered = false;
    for (struct inode *inode = sim->inodes; inode != NULL; inode = inode->next) {
        /* A third of the cuts keeps all, a third nothing, a third some: files differ. */
        uint64_t mood = random_below(&sim->random, 3);
        for (uint64_t sector = inode->dirty_from; sector < inode->dirty_to; sector++) {
            if (inode->dirty[sector] == SECTOR_CLEAN) continue;
            bool reached = mood == 0 || (mood == 1 && random_chance(&sim->random, 1, 2));
            if (reached && inode->dirty[sector] == SECTOR_DIRTY)
                memcpy(inode->medium + sector * SECTOR_BYTES, inode->now + sector * SECTOR_BYTES, SECTOR_BYTES);
            else /* memory follows the medium now, so that coming back copies nothing that is the same */
                memcpy(inode->now + sector * SECTOR_BYTES, inode->medium + sector * SECTOR_BYTES, SECTOR_BYTES);
            inode->dirty[sector] = SECTOR_CLEAN;
        }
        inode->dirty_from = inode->dirty_to = 0;
        uint64_t end = inode->bytes > inode->medium_bytes ? inode->bytes : inode->medium_bytes;
        if (inode->bytes != inode->medium_bytes && random_chance(&sim->random, 1, 2))
            inode->medium_bytes = inode->bytes;
        memset(inode->medium + inode->medium_bytes, 0, end - inode->medium_bytes);
        memset(inode->now + inode->medium_bytes, 0, end - inode->medium_bytes);
        inode->bytes = inode->medium_bytes;
    }
    size_t kept = sim->changes.count == 0 ? 0 : (size_t)random_below(&sim->random, sim->changes.count + 1);
    for (size_t i = 0; i < kept; i++) {
        const struct name *change = &sim->changes.list[i];
        names_set(&sim->medium, change->path, change->inode, change->directory);
    }
    sim->changes.count = 0;
    if (sim->watch.power_cut != NULL) sim->watch.power_cut(sim->watch.context);
}

void sim_disk_kill(struct sim_disk *sim)
{
    lk_assert(sim->powered);
    sim->powered = false;
    sim->killed = true;
}

void sim_disk_power_cut_after(struct sim_disk *sim, uint64_t operations)
{
    sim->cut_at = sim->operations + operations;
}

void sim_disk_power_on(struct sim_disk *sim)
{
    lk_assert(!sim->powered);
    sim->powered = true;
    sim->cut_at = sim->fail_flush_at = UINT64_MAX;
    for (struct inode *inode = sim->inodes; inode != NULL; inode = inode->next) lk_assert(!inode->locked);
    bool killed = sim->killed;
    sim->killed = false;
    if (killed) return;
    sim->power_cuts++;
    sim->now.count = 0;
    for (size_t i = 0; i < sim->medium.count; i++) {
        const struct name *name = &sim->medium.list[i];
        names_add(&sim->now, name->path, name->inode, name->directory);
    }
}

bool sim_disk_powered(const struct sim_disk *sim)
{
    return sim->powered;
}

uint64_t sim_disk_operations(const struct sim_disk *sim)
{
    return sim->operations;
}

uint64_t sim_disk_writes(const struct sim_disk *sim)
{
    return sim->operations - sim->flush_operations;
}

void sim_disk_fail_flush_after(struct sim_disk *sim, uint64_t flushes)
{
    sim->fail_flush_at = flushes == UINT64_MAX ? UINT64_MAX : sim->flushes + flushes;
}

void sim_disk_lie(struct sim_disk *sim, bool lies)
{
    sim->lies = lies;
}

void sim_disk_watch_set(struct sim_disk *sim, const struct sim_disk_watch *watch)
{
    sim->watch = *watch;
}

void sim_disk_capacity(struct sim_disk *sim, uint64_t bytes)
{
    sim->capacity = bytes;
}

void sim_disk_full_at(struct sim_disk *sim, enum sim_disk_full_at at)
{
    sim->full_at = at;
}

void sim_disk_cannot_reserve(struct sim_disk *sim)
{
    sim->cannot_reserve = true;
}

uint8_t *sim_disk_bytes(struct sim_disk *sim, const char *path, uint64_t *ret_bytes)
{
    struct name *name = names_find(&sim->now, path);
    if (name == NULL || name->inode == NULL) return NULL;
    *ret_bytes = name->inode->bytes;
    return name->inode->now;
}
