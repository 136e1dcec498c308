/* SPDX-License-Identifier: Apache-2.0 */
/* identity.c - see identity.h.
 * Thread: loop, at start. Owns: the lock, held until identity_close().
 *
 * identity    0 magic u32    4 crc u32 (bytes 8..)    8 format u32    12 bytes u32 (whole record)
 *            16 member_id u64   24 state u32   28 birth_bytes u32   32 name[64]   96 joined.index u64
 *           104 joined_bytes u32   108 zero u32   112 birth record, if there is one, joined.configuration, if so
 * birth       0 magic u32    4 crc u32 (bytes 8..)    8 version u32   12 bytes u32 (whole record)
 *            16 cluster_id u64   24 time_ns u64   32 cluster[64]   96 machine[64]   160 configuration (configuration.c)
 * Names are padded with zeros to their 64 bytes, the last of which is 0. */
#include "storage/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/little.h"
#include "lockstep/errors.h"
#include "storage/record_file.h"

enum {
    IDENTITY_MAGIC = 0x4449534c, /* "LSID" */
    IDENTITY_HEADER_BYTES = 112,
    BIRTH_MAGIC = 0x5442534c, /* "LSBT" */
    BIRTH_VERSION = 1,
    BIRTH_HEADER_BYTES = 160,
    CRC_FROM = 8,
};
static_assert((int)BIRTH_RECORD_BYTES_MAX == BIRTH_HEADER_BYTES + (int)CONFIGURATION_BYTES_MAX,
              "the header promises room for every record");
static_assert(IDENTITY_HEADER_BYTES + (int)BIRTH_RECORD_BYTES_MAX + (int)CONFIGURATION_BYTES_MAX <=
                  (int)RECORD_FILE_BYTES_MAX,
              "fits its file");

struct identity_directory {
    const struct disk *disk;
    struct disk_file *lock;
    enum identity_state state; /* as stored */
    char path[STORAGE_PATH_BYTES_MAX];
};

static void put_name(uint8_t *at, const char *name)
{
    size_t bytes = strlen(name);
    lk_assert(bytes < IDENTITY_NAME_BYTES_MAX);
    memset(at, 0, IDENTITY_NAME_BYTES_MAX);
    memcpy(at, name, bytes);
}

static int get_name(const uint8_t *at, char ret[IDENTITY_NAME_BYTES_MAX])
{
    const uint8_t *end = memchr(at, 0, IDENTITY_NAME_BYTES_MAX);
    if (end == NULL) return LOCKSTEP_ECORRUPT;
    for (const uint8_t *p = end; p < at + IDENTITY_NAME_BYTES_MAX; p++) {
        if (*p != 0) return LOCKSTEP_ECORRUPT;
    }
    memcpy(ret, at, IDENTITY_NAME_BYTES_MAX);
    return 0;
}

struct block_base birth_record_base(const struct birth_record *record)
{
    return (struct block_base){.next_position = 1, .time_ns = record->time_ns};
}

uint32_t birth_record_write(const struct birth_record *record, uint8_t to[BIRTH_RECORD_BYTES_MAX])
{
    uint32_t bytes = BIRTH_HEADER_BYTES + configuration_write(&record->configuration, to + BIRTH_HEADER_BYTES);
    little_put32(to, BIRTH_MAGIC);
    little_put32(to + 8, BIRTH_VERSION);
    little_put32(to + 12, bytes);
    little_put64(to + 16, record->cluster_id);
    little_put64(to + 24, record->time_ns);
    put_name(to + 32, record->cluster);
    put_name(to + 96, record->machine);
    little_put32(to + 4, crc32c(to + CRC_FROM, bytes - CRC_FROM));
    return bytes;
}

int birth_record_read(const uint8_t *at, uint32_t bytes, struct birth_record *ret)
{
    if (bytes < BIRTH_HEADER_BYTES || little_get32(at) != BIRTH_MAGIC) return LOCKSTEP_ECORRUPT;
    if (little_get32(at + 12) != bytes || little_get32(at + 4) != crc32c(at + CRC_FROM, bytes - CRC_FROM)) {
        return LOCKSTEP_ECORRUPT;
    }
    if (little_get32(at + 8) > BIRTH_VERSION) return LOCKSTEP_EVERSION;
    struct birth_record record = {.cluster_id = little_get64(at + 16), .time_ns = little_get64(at + 24)};
    int rc = get_name(at + 32, record.cluster);
    if (rc == 0) rc = get_name(at + 96, record.machine);
    if (rc == 0) rc = configuration_read(at + BIRTH_HEADER_BYTES, bytes - BIRTH_HEADER_BYTES, &record.configuration);
    if (rc == 0) *ret = record;
    return rc;
}

static size_t identity_write(const struct identity *identity, uint8_t to[RECORD_FILE_BYTES_MAX])
{
    uint32_t birth_bytes = 0, joined_bytes = 0;
    if (identity->state != IDENTITY_FRESH)
        birth_bytes = birth_record_write(&identity->birth, to + IDENTITY_HEADER_BYTES);
    if (identity->state == IDENTITY_COMPLETE && identity->joined.index != 0)
        joined_bytes = configuration_write(&identity->joined.configuration, to + IDENTITY_HEADER_BYTES + birth_bytes);
    uint32_t bytes = IDENTITY_HEADER_BYTES + birth_bytes + joined_bytes;
    memset(to, 0, IDENTITY_HEADER_BYTES);
    little_put32(to, IDENTITY_MAGIC);
    little_put32(to + 8, STORAGE_FORMAT);
    little_put32(to + 12, bytes);
    little_put64(to + 16, identity->member_id);
    little_put32(to + 24, identity->state);
    little_put32(to + 28, birth_bytes);
    put_name(to + 32, identity->name);
    little_put64(to + 96, joined_bytes != 0 ? identity->joined.index : 0);
    little_put32(to + 104, joined_bytes);
    little_put32(to + 4, crc32c(to + CRC_FROM, bytes - CRC_FROM));
    return bytes;
}

static int identity_read(const uint8_t *at, size_t bytes, struct identity *ret)
{
    if (bytes < IDENTITY_HEADER_BYTES || little_get32(at) != IDENTITY_MAGIC) return LOCKSTEP_ECORRUPT;
    if (little_get32(at + 12) != bytes || little_get32(at + 4) != crc32c(at + CRC_FROM, bytes - CRC_FROM)) {
        return LOCKSTEP_ECORRUPT;
    }
    if (little_get32(at + 8) > STORAGE_FORMAT) return LOCKSTEP_EVERSION;
    struct identity identity = {.member_id = little_get64(at + 16)};
    uint32_t state = little_get32(at + 24), birth_bytes = little_get32(at + 28), joined_bytes = little_get32(at + 104);
    if (state > IDENTITY_COMPLETE || little_get32(at + 108) != 0) return LOCKSTEP_ECORRUPT;
    if ((uint64_t)birth_bytes + joined_bytes != bytes - IDENTITY_HEADER_BYTES) return LOCKSTEP_ECORRUPT;
    identity.joined.index = little_get64(at + 96);
    if ((identity.joined.index != 0) != (joined_bytes != 0)) return LOCKSTEP_ECORRUPT;
    if (joined_bytes != 0 && state != IDENTITY_COMPLETE) return LOCKSTEP_ECORRUPT;
    if (identity.member_id == 0 || (state == IDENTITY_FRESH) != (birth_bytes == 0)) return LOCKSTEP_ECORRUPT;
    identity.state = (enum identity_state)state;
    int rc = get_name(at + 32, identity.name);
    if (rc == 0 && birth_bytes != 0) rc = birth_record_read(at + IDENTITY_HEADER_BYTES, birth_bytes, &identity.birth);
    if (rc == 0 && joined_bytes != 0)
        rc = configuration_read(at + IDENTITY_HEADER_BYTES + birth_bytes, joined_bytes, &identity.joined.configuration);
    if (rc == 0) *ret = identity;
    return rc;
}

/* The part of an identity file that is of a newer format. */
static const char *newer_part(const uint8_t *at, uint32_t *ret_format, uint32_t *ret_known)
{
    *ret_format = little_get32(at + 8);
    *ret_known = STORAGE_FORMAT;
    if (*ret_format > *ret_known) return "the record";
    const uint8_t *birth = at + IDENTITY_HEADER_BYTES, *joined = birth + little_get32(at + 28);
    *ret_format = little_get32(birth + 8);
    *ret_known = BIRTH_VERSION;
    if (*ret_format > *ret_known) return "the birth record";
    *ret_format = configuration_version(birth + BIRTH_HEADER_BYTES);
    *ret_known = CONFIGURATION_VERSION;
    if (*ret_format <= *ret_known) *ret_format = configuration_version(joined);
    return "a configuration";
}

/* The first of a node's other files that is there. EEXIST: *ret_name; EIO, EINVAL. */
static int others_absent(const struct identity_directory *directory, const char **ret_name, char *why, size_t why_room)
{
    static const char *const others[] = {"boot", "journal", "data.mdb"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char path[STORAGE_PATH_BYTES_MAX];
        bool there = false;
        int rc = storage_path(path, directory->path, others[i]);
        if (rc == 0) rc = directory->disk->exists(directory->disk->context, path, &there);
        if (rc != 0) {
            snprintf(why, why_room, "data directory %s: cannot look for %s: %s; check the disk and its permissions",
                     directory->path, others[i], lockstep_error_text(rc));
            return rc;
        }
        *ret_name = others[i];
        if (there) return LOCKSTEP_EEXIST;
    }
    return 0;
}

/* No identity file. A new directory has no storage in it either. */
static int identity_create(struct identity_directory *directory, const char *name, uint64_t random_id,
                           struct identity *ret, char *why, size_t why_room)
{
    const char *other = NULL;
    int rc = others_absent(directory, &other, why, why_room);
    if (rc == LOCKSTEP_EEXIST) {
        snprintf(why, why_room,
                 "data directory %s: its file 'identity' is gone but '%s' is there; this member cannot be trusted "
                 "any more: restore the file, or give the node an empty directory and run member replace",
                 directory->path, other);
        return LOCKSTEP_ECORRUPT;
    }
    if (rc != 0) return rc;
    struct identity identity = {.member_id = random_id, .state = IDENTITY_FRESH};
    memcpy(identity.name, name, strlen(name) + 1);
    rc = storage_name_flush(directory->disk, directory->path);
    if (rc == 0) rc = identity_store(directory, &identity);
    if (rc != 0) {
        snprintf(why, why_room, "data directory %s: cannot store its identity: %s; check the disk and its permissions",
                 directory->path, lockstep_error_text(rc));
        return rc;
    }
    *ret = identity;
    return 0;
}

/* ENOTFOUND: no such file, and why is left alone. */
static int identity_load(struct identity_directory *directory, struct identity *ret, char *why, size_t why_room)
{
    uint8_t bytes[RECORD_FILE_BYTES_MAX];
    size_t count = 0;
    int rc = record_file_read(directory->disk, directory->path, "identity", bytes, &count);
    if (rc == 0) rc = identity_read(bytes, count, ret);
    uint32_t format, known;
    const char *what;
    switch (rc) {
    case 0:
    case LOCKSTEP_ENOTFOUND: return rc;
    case LOCKSTEP_EVERSION:
        what = newer_part(bytes, &format, &known);
        snprintf(why, why_room,
                 "data directory %s: %s in its file 'identity' was written by a newer version of lockstep (format "
                 "%" PRIu32 ", this one reads up to %" PRIu32 "); install that version",
                 directory->path, what, format, known);
        return rc;
    case LOCKSTEP_ECORRUPT:
        snprintf(why, why_room,
                 "data directory %s: its file 'identity' is damaged; restore the file, or give the node an empty "
                 "directory and run member replace",
                 directory->path);
        return rc;
    default:
        snprintf(why, why_room, "data directory %s: cannot read its identity: %s; check the disk and its permissions",
                 directory->path, lockstep_error_text(rc));
        return rc;
    }
}

/* The identity of the node with this name, made if there is none. */
static int identity_of(struct identity_directory *directory, const char *name, uint64_t random_id, struct identity *ret,
                       char *why, size_t why_room)
{
    struct identity identity;
    int rc = identity_load(directory, &identity, why, why_room);
    if (rc == LOCKSTEP_ENOTFOUND) return identity_create(directory, name, random_id, ret, why, why_room);
    if (rc != 0) return rc;
    if (strcmp(identity.name, name) != 0) {
        snprintf(why, why_room,
                 "data directory %s: belongs to node '%s', but this is node '%s'; start with --node %s, or name "
                 "another directory",
                 directory->path, identity.name, name, identity.name);
        return LOCKSTEP_EFOREIGN;
    }
    directory->state = identity.state;
    *ret = identity;
    return 0;
}

/* flags  for the file `lock` */
static int directory_lock(struct identity_directory *directory, int flags, char *why, size_t why_room)
{
    char path[STORAGE_PATH_BYTES_MAX];
    int rc = storage_path(path, directory->path, "lock");
    if (rc == 0) rc = directory->disk->open(directory->disk->context, path, flags | DISK_LOCK, &directory->lock);
    if (rc == LOCKSTEP_ELOCKED)
        snprintf(why, why_room,
                 "data directory %s: in use by another process, which holds its file 'lock'; stop that one first",
                 directory->path);
    else if (rc != 0)
        snprintf(why, why_room, "data directory %s: cannot be locked: %s; check its permissions", directory->path,
                 lockstep_error_text(rc));
    return rc;
}

static int directory_make(const struct disk *disk, const char *path, struct identity_directory **ret, char *why,
                          size_t why_room)
{
    if (strlen(path) > STORAGE_PATH_BYTES_MAX / 2) {
        snprintf(why, why_room, "data directory: its path is longer than %d bytes; choose a shorter one",
                 STORAGE_PATH_BYTES_MAX / 2);
        return LOCKSTEP_EINVAL;
    }
    struct identity_directory *directory = calloc(1, sizeof *directory);
    if (directory == NULL) {
        snprintf(why, why_room, "data directory %s: out of memory; free some", path);
        return LOCKSTEP_ENOMEM;
    }
    directory->disk = disk;
    memcpy(directory->path, path, strlen(path) + 1);
    *ret = directory;
    return 0;
}

static int directory_make_there(struct identity_directory *directory, char *why, size_t why_room)
{
    int rc = directory->disk->make_directory(directory->disk->context, directory->path);
    if (rc != 0)
        snprintf(why, why_room,
                 "data directory %s: cannot be made: %s; check that the folder above it exists and may "
                 "be written",
                 directory->path, lockstep_error_text(rc));
    return rc;
}

int identity_open(const struct disk *disk, const char *path, const char *name, uint64_t random_id,
                  struct identity_directory **ret, struct identity *ret_identity, char *why, size_t why_room)
{
    lk_assert(random_id != 0);
    size_t name_bytes = strlen(name);
    if (name_bytes == 0 || name_bytes >= IDENTITY_NAME_BYTES_MAX) {
        snprintf(why, why_room, "node name '%s': must have 1 to %d bytes; choose another", name,
                 IDENTITY_NAME_BYTES_MAX - 1);
        return LOCKSTEP_EINVAL;
    }
    struct identity_directory *directory;
    int rc = directory_make(disk, path, &directory, why, why_room);
    if (rc != 0) return rc;
    rc = directory_make_there(directory, why, why_room);
    if (rc == 0) rc = directory_lock(directory, DISK_CREATE, why, why_room);
    if (rc == 0) rc = identity_of(directory, name, random_id, ret_identity, why, why_room);
    if (rc != 0) goto fail;
    *ret = directory;
    return 0;
fail:
    identity_close(directory);
    return rc;
}

int identity_claim(const struct disk *disk, const char *path, struct identity_directory **ret, char *why,
                   size_t why_room)
{
    struct identity_directory *directory;
    const char *other = "identity";
    char file[STORAGE_PATH_BYTES_MAX];
    bool there = false;
    int rc = directory_make(disk, path, &directory, why, why_room);
    if (rc != 0) return rc;
    rc = directory_make_there(directory, why, why_room);
    if (rc == 0) rc = directory_lock(directory, DISK_CREATE, why, why_room);
    if (rc != 0) goto fail;
    rc = storage_name_flush(directory->disk, directory->path);
    if (rc == 0) rc = storage_path(file, path, other);
    if (rc == 0) rc = disk->exists(disk->context, file, &there);
    if (rc != 0)
        snprintf(why, why_room, "data directory %s: cannot be looked at: %s; check its permissions", path,
                 lockstep_error_text(rc));
    else
        rc = there ? LOCKSTEP_EEXIST : others_absent(directory, &other, why, why_room);
    if (rc == LOCKSTEP_EEXIST)
        snprintf(why, why_room,
                 "data directory %s: holds a node's files already ('%s'); nothing was changed: name an empty or a new "
                 "directory",
                 path, other);
    if (rc != 0) goto fail;
    *ret = directory;
    return 0;
fail:
    identity_close(directory);
    return rc;
}

int identity_look(const struct disk *disk, const char *path, struct identity_directory **ret,
                  struct identity *ret_identity, char *why, size_t why_room)
{
    struct identity_directory *directory;
    *ret = NULL;
    int rc = directory_make(disk, path, &directory, why, why_room);
    if (rc != 0) return rc;
    rc = directory_lock(directory, DISK_READ_ONLY, why, why_room);
    if (rc == LOCKSTEP_ENOTFOUND) rc = 0; /* a copy without it: nobody runs there */
    if (rc == 0) rc = identity_load(directory, ret_identity, why, why_room);
    if (rc == LOCKSTEP_ENOTFOUND)
        snprintf(why, why_room,
                 "data directory %s: holds no file 'identity': no node was ever started there; name the folder that "
                 "'data' names in the node's configuration",
                 path);
    bool is_one = rc == 0 || rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EVERSION || rc == LOCKSTEP_EIO;
    if (!is_one) identity_close(directory);
    *ret = is_one ? directory : NULL;
    return rc;
}

void identity_close(struct identity_directory *directory)
{
    if (directory == NULL) return;
    directory->disk->close(directory->lock);
    free(directory);
}

int identity_store(struct identity_directory *directory, const struct identity *identity)
{
    lk_assert(directory->state != IDENTITY_COMPLETE);
    return identity_renew(directory, identity);
}

int identity_renew(struct identity_directory *directory, const struct identity *identity)
{
    uint8_t bytes[RECORD_FILE_BYTES_MAX];
    size_t count = identity_write(identity, bytes);
    int rc = record_file_replace(directory->disk, directory->path, "identity", bytes, count);
    if (rc == 0) directory->state = identity->state;
    return rc;
}
