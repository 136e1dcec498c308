/* SPDX-License-Identifier: Apache-2.0 */
/* identity.h - who a data directory is: its lock, its member id, its birth record.
 * I1  The member id is the directory's incarnation: 64 random bits, stored durably before anybody hears of them.
 * I2  Birth happens once. fresh = no complete birth record. A pending record is stored durably before it is
 *     acknowledged; a complete one is never replaced.
 * I3  Two processes on one directory, another cluster's directory, a newer format: named, refused, untouched.
 * Files: `lock`, `identity` (one checksummed record, replaced by rename + directory flush). Thread: loop, at start. */
#ifndef LOCKSTEP_STORAGE_IDENTITY_H
#define LOCKSTEP_STORAGE_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "proto/block.h"
#include "storage/configuration.h"
#include "storage/disk.h"

enum {
    IDENTITY_NAME_BYTES_MAX = CONFIGURATION_NAME_BYTES_MAX, /* cluster, node and machine names, with their final 0 */
    STORAGE_FORMAT = 2,                                     /* 1 kept snapshots in data.mdb */
};

enum identity_state { IDENTITY_FRESH = 0, IDENTITY_PENDING = 1, IDENTITY_COMPLETE = 2 };

/* The base record at index 0, identical on all members, also on those that joined later. */
struct birth_record {
    uint64_t cluster_id;
    uint64_t time_ns; /* wall clock, once */
    char cluster[IDENTITY_NAME_BYTES_MAX];
    char machine[IDENTITY_NAME_BYTES_MAX];
    struct configuration configuration; /* the first one */
};

struct identity {
    raft_member member_id;              /* of this directory */
    char name[IDENTITY_NAME_BYTES_MAX]; /* this node's, as first started */
    enum identity_state state;
    struct birth_record birth; /* with PENDING and COMPLETE */
    /* With COMPLETE, of a member that the birth record does not name: the committed configuration that admitted it, which
     * says where the others are before the log does. Its index is 0 for those that the birth record names. */
    struct storage_configuration joined;
};

struct identity_directory;

/* Lock the directory (created if missing) and read who it is; a new one gets member_id `random_id` durably.
 * why   filled on error with a sentence for people: what, why, what to do
 * ELOCKED, EVERSION, ECORRUPT, EFOREIGN (another node's), EIO, ENOSPC, EINVAL (path, name), ENOMEM. On error nothing
 * was changed. */
int identity_open(const struct disk *disk, const char *path, const char *name, uint64_t random_id,
                  struct identity_directory **ret, struct identity *ret_identity, char *why, size_t why_room);
/* Look at a directory, of whatever node, without changing anything. It stays locked until identity_close().
 * ret  also set on ECORRUPT, EVERSION and EIO: the rest of the directory can be looked at; else NULL on error
 * ELOCKED, ENOTFOUND (no data directory), ECORRUPT, EVERSION, EIO, EINVAL, ENOMEM. */
int identity_look(const struct disk *disk, const char *path, struct identity_directory **ret,
                  struct identity *ret_identity, char *why, size_t why_room);
void identity_close(struct identity_directory *directory); /* releases the lock; takes NULL */

/* Take a directory in which no node ever was: made if it is not there, and locked. It becomes a node's by identity_store()
 * alone; until then a start refuses it as soon as it holds anything.
 * EEXIST: a node's files are in it; ELOCKED, EIO, ENOSPC, EINVAL, ENOMEM. */
int identity_claim(const struct disk *disk, const char *path, struct identity_directory **ret, char *why,
                   size_t why_room);

/* Store state and birth durably. EIO, ENOSPC. COMPLETE is final: lk_asserts that none is replaced. */
int identity_store(struct identity_directory *directory, const struct identity *identity);
/* The same, and a complete record may be replaced: by `recover`, which begins a new epoch of the cluster, and by
 * storage_forget(). */
int identity_renew(struct identity_directory *directory, const struct identity *identity);

/* What the first block of the log follows. */
struct block_base birth_record_base(const struct birth_record *record);

/* The birth record as bytes, for frames and files: little-endian, versioned, checksummed. */
enum { BIRTH_RECORD_BYTES_MAX = 32 + 2 * IDENTITY_NAME_BYTES_MAX + CONFIGURATION_BYTES_MAX };
uint32_t birth_record_write(const struct birth_record *record, uint8_t to[BIRTH_RECORD_BYTES_MAX]);
int birth_record_read(const uint8_t *at, uint32_t bytes, struct birth_record *ret); /* ECORRUPT, EVERSION */

#endif
