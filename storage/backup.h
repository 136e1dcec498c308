/* SPDX-License-Identifier: Apache-2.0 */
/* backup.h - what a cluster had committed, in one file: its birth record, the newest snapshot, and the blocks behind it.
 *
 *   head    0 magic u32  4 crc u32 (bytes 8..)  8 version u32  12 bytes u32  16 made_ns u64  24 member_id u64  32 node[64]
 *          96 snapshot: base (40 bytes), bytes u64, checksum u32, zero u32   152 last u64  160 configuration_index u64
 *         168 birth_bytes u32  172 configuration_bytes u32   176 the birth record, the configuration
 *   part    0 magic u32  4 crc u32 (bytes 8.., what it holds too)  8 kind u32  12 bytes u32  16 number u64, from 1
 *          24 the bytes: a piece of the snapshot | a block | the end
 *   end     0 blocks u64   8 the base behind the last block (40 bytes)
 *   base    0 index u64  8 term u64  16 next_position u64  24 time_ns u64  32 crc u32  36 zero u32
 * One head; pieces of the snapshot in order; blocks, each following the one before; one end, and nothing behind it.
 * Magic, crc and version of the head stay where they are in every later version.
 * Only committed blocks are in it: what was not known to be committed may not have been.
 * Thread: the caller's. Allocates. What is read is outside data. */
#ifndef LOCKSTEP_STORAGE_BACKUP_H
#define LOCKSTEP_STORAGE_BACKUP_H

#include <stddef.h>
#include <stdint.h>

#include "storage/disk.h"
#include "storage/identity.h"
#include "storage/inspect.h"
#include "storage/snapshot.h"

enum { BACKUP_VERSION = 1, BACKUP_SNAPSHOT_PIECE_BYTES_MAX = SNAPSHOT_PIECE_BYTES_MAX };

struct backup_head {
    uint32_t version;                   /* with EVERSION it alone is set */
    uint64_t made_ns;                   /* wall clock */
    raft_member member_id;              /* of the directory that it was made from */
    char node[IDENTITY_NAME_BYTES_MAX]; /* and its name */
    struct birth_record birth;
    struct storage_snapshot snapshot;           /* index 0 = none */
    raft_index last;                            /* the newest block that it holds, or stands for */
    struct storage_configuration configuration; /* that counted at the snapshot; index 0 = the birth record's */
};

struct backup_summary {
    struct backup_head head;
    uint64_t blocks, bytes;                     /* of the file */
    struct block_base base;                     /* behind the last block */
    struct storage_configuration configuration; /* that counts there; index 0 = the birth record's */
};

/* Write the directory's committed state to a file that is not there yet: as PATH.new, flushed, renamed.
 * Only of a directory without findings. ret: what was written.
 * EEXIST, ECORRUPT, EINVAL (it never was part of a cluster), EIO, ENOSPC, ENOMEM. why: a sentence. */
int backup_create(struct inspection *inspection, const struct disk *disk, const char *path, uint64_t now_ns,
                  struct backup_summary *ret, char *why, size_t why_room);

/* Who takes what is read; an error from it ends the reading and is returned. Any of them may be NULL. */
struct backup_sink {
    void *context;
    int (*head)(void *context, const struct backup_head *head);
    int (*piece)(void *context, const uint8_t *bytes, size_t count);
    int (*snapshot_end)(void *context);
    int (*block)(void *context, const uint8_t *block, const struct block_header *header);
};

/* Where a backup is read from. Short reads at its end set *ret_count. */
struct backup_source {
    void *context;
    int (*read)(void *context, void *to, size_t bytes, uint64_t offset, size_t *ret_count);
};

/* Read all of it, checked; what was handed out before an error was whole by itself.
 * ECORRUPT (where, in why; *ret_offset), EVERSION (both numbers), EIO, ENOMEM, and the sink's. */
int backup_read(const struct backup_source *source, const struct backup_sink *sink, struct backup_summary *ret,
                uint64_t *ret_offset, char *why, size_t why_room);
/* The same of a file. ENOTFOUND besides. */
int backup_read_file(const struct disk *disk, const char *path, const struct backup_sink *sink,
                     struct backup_summary *ret, uint64_t *ret_offset, char *why, size_t why_room);

#endif
