/* SPDX-License-Identifier: Apache-2.0 */
/* forget.c - see forget.h.
 * The identity goes last: until it does, it says that this directory is to be emptied. */
#include "storage/forget.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/boot.h"
#include "storage/record_file.h"
#include "storage/snapshot_file.h"

struct names {
    char list[16][SNAPSHOT_NAME_BYTES];
    size_t count;
};

static void note_snapshot(void *context, const char *name)
{
    struct names *names = context;
    raft_index index;
    if (names->count == sizeof names->list / sizeof names->list[0]) return; /* the next look finds it */
    if (!snapshot_file_index(name, &index) && strcmp(name, SNAPSHOT_NAME_TAKEN) != 0 &&
        strcmp(name, SNAPSHOT_NAME_INCOMING) != 0)
        return;
    snprintf(names->list[names->count++], sizeof names->list[0], "%s", name);
}

static int remove_snapshots(const struct disk *disk, const char *path)
{
    for (;;) {
        struct names names = {.count = 0};
        int rc = disk->list(disk->context, path, note_snapshot, &names);
        for (size_t i = 0; i < names.count && rc == 0; i++) rc = snapshot_file_remove(disk, path, names.list[i]);
        if (rc != 0 || names.count == 0) return rc;
    }
}

static int remove_file(const struct disk *disk, const char *path, const char *name)
{
    char file[STORAGE_PATH_BYTES_MAX];
    int rc = storage_path(file, path, name);
    if (rc == 0) rc = disk->unlink(disk->context, file);
    return rc == LOCKSTEP_ENOTFOUND ? 0 : rc;
}

/* `boot` last: a journal without it is one that was lost (open.c). */
static int remove_all(const struct disk *disk, const struct kv *kv, const char *path, const char *journal)
{
    const struct {
        const char *directory, *name;
    } files[] = {{journal, "journal"}, {journal, "journal.new"}, {path, "boot"}, {path, "boot.new"}};
    int rc = remove_snapshots(disk, path);
    if (rc == 0) rc = kv->remove(kv->context, path);
    for (size_t i = 0; i < sizeof files / sizeof files[0] && rc == 0; i++) {
        if (i == 2 && journal != path) rc = disk->flush_directory(disk->context, journal);
        if (rc == 0) rc = remove_file(disk, files[i].directory, files[i].name);
    }
    return rc == 0 ? disk->flush_directory(disk->context, path) : rc;
}

int storage_forget(const struct disk *disk, const struct kv *kv, const char *path, const char *journal_directory,
                   struct identity_directory *directory, uint64_t random_id, struct identity *identity, char *why,
                   size_t why_room)
{
    struct boot boot;
    lk_assert(identity->state == IDENTITY_COMPLETE);
    lk_assert(identity->birth.configuration.level == DURABILITY_LEVEL_MEMORY);
    int rc = boot_read(disk, path, &boot);
    if (rc == LOCKSTEP_EVERSION) {
        snprintf(
            why, why_room,
            "data directory %s: its file 'boot' is of a newer version of lockstep (format %u, this one reads up to "
            "%d); install that version",
            path, boot.version, BOOT_VERSION);
        return rc;
    }
    if (rc == 0 && boot.clean && boot.member_id == identity->member_id) return 0;
    struct identity next = {.member_id = random_id, .state = IDENTITY_FRESH};
    memcpy(next.name, identity->name, sizeof next.name);
    rc = remove_all(disk, kv, path, journal_directory != NULL ? journal_directory : path);
    if (rc == 0) rc = identity_renew(directory, &next);
    if (rc != 0) {
        snprintf(why, why_room,
                 "data directory %s: cannot be emptied, as durability \"memory\" needs it: %s; check the disk and its "
                 "permissions",
                 path, lockstep_error_text(rc));
        return rc;
    }
    *identity = next;
    return 0;
}
