/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot_file.h - one snapshot as a file: what its bytes mean, and how it is written, found and read.
 *
 *   head    one page of 4 KiB: 0 magic u32  4 crc u32 (bytes 8..)  8 version u32  12 group u32  16 the snapshot (48 bytes)
 *           64 piece_bytes u32, then zeros
 *   pieces  of one zstd stream: 0 crc u32 (bytes 4..)  4 number u32  8 count u32  12 zero u32  16 the bytes: piece_bytes of them, fewer in the last
 *   the snapshot  0 base: index, term, next_position, time_ns, crc (u32)  36 bytes u64  44 checksum u32
 *
 * So every piece has its place, carries its checksum, and is read alone; the head names the whole. Magic, crc and version
 * stay where they are in every later version.
 *   snapshot.taken     being written here            gone at the next start
 *   snapshot.incoming  a leader's, as far as it came  goes on at the next start
 *   snapshot-INDEX     whole and flushed             removed unless the log's state record names it
 * Knows directories and files alone, no storage that is open: offline readers use it too. Thread: one a file. */
#ifndef LOCKSTEP_STORAGE_SNAPSHOT_FILE_H
#define LOCKSTEP_STORAGE_SNAPSHOT_FILE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/disk.h"
#include "storage/snapshot.h"

enum {
    SNAPSHOT_FILE_VERSION = 1,
    SNAPSHOT_FILE_HEAD_BYTES = 4096,
    SNAPSHOT_PIECE_HEAD_BYTES = 16,
    SNAPSHOT_NAME_BYTES = 32, /* with the final 0 */
};

#define SNAPSHOT_NAME_TAKEN    "snapshot.taken"
#define SNAPSHOT_NAME_INCOMING "snapshot.incoming"

/* A base and a snapshot as they are written, here and in the log's state record. */
struct base_bytes {
    uint64_t index, term, next_position, time_ns;
    uint32_t crc;
} __attribute__((packed));

struct snapshot_bytes {
    struct base_bytes base;
    uint64_t bytes;
    uint32_t checksum;
} __attribute__((packed));
static_assert(sizeof(struct snapshot_bytes) == 48, "as documented");

struct base_bytes base_to_bytes(const struct block_base *base);
struct block_base base_from_bytes(const struct base_bytes *bytes);
struct snapshot_bytes snapshot_to_bytes(const struct storage_snapshot *snapshot);
struct storage_snapshot snapshot_from_bytes(const struct snapshot_bytes *bytes);
bool snapshot_same(const struct storage_snapshot *a, const struct storage_snapshot *b);

struct snapshot_file_head {
    uint32_t version, group, piece_bytes;
    struct storage_snapshot is;
};

/* snapshot-INDEX. */
void snapshot_file_name(char to[SNAPSHOT_NAME_BYTES], raft_index index);
/* False: the name is none of those. */
bool snapshot_file_index(const char *name, raft_index *ret);

struct snapshot_file;

/* A new file; what had the name goes. Allocates. EIO, ENOSPC, EINVAL, ENOMEM. */
int snapshot_file_create(const struct disk *disk, const char *directory, const char *name, struct snapshot_file **ret);
/* The head is read and checked. writable: more pieces may follow. Allocates.
 * ENOTFOUND; ECORRUPT; EVERSION (ret_head->version is the file's); EIO, EINVAL, ENOMEM. */
int snapshot_file_open(const struct disk *disk, const char *directory, const char *name, bool writable,
                       struct snapshot_file **ret, struct snapshot_file_head *ret_head);
void snapshot_file_close(struct snapshot_file *file); /* takes NULL */

/* Write the head, or piece `number` of a file with such pieces. After ENOSPC it can be written again. Flush behind each piece:
 * a commit's flush waits for all that others have written to this disk. EIO, ENOSPC. */
int snapshot_file_write_head(struct snapshot_file *file, const struct snapshot_file_head *head);
int snapshot_file_write(struct snapshot_file *file, uint32_t piece_bytes, uint32_t number, const void *bytes,
                        uint32_t count);
/* All of it, and its size. EIO, ENOSPC: whatever it was, the file holds no more what was written, and another flush would
 * not say so (R8): remove it. */
int snapshot_file_flush(struct snapshot_file *file);
/* Give it its name for good, durably. It was flushed. ENOSPC: it has the name that it had. EIO. */
int snapshot_file_publish(const struct disk *disk, const char *directory, const char *name, raft_index index);
/* ENOTFOUND is no error here. EIO. */
int snapshot_file_remove(const struct disk *disk, const char *directory, const char *name);

/* The piece at `offset`, checked. to: room for piece_bytes. ENOTFOUND: no piece begins there; ECORRUPT; EIO. */
int snapshot_file_read(struct snapshot_file *file, const struct snapshot_file_head *head, uint64_t offset, void *to,
                       size_t *ret_count);
/* How far the pieces are whole, from the first one on, and the checksum of that. buffer: room for piece_bytes. EIO. */
int snapshot_file_scan(struct snapshot_file *file, const struct snapshot_file_head *head, void *buffer,
                       uint64_t *ret_offset, uint32_t *ret_checksum);
/* What is cached and was not written by this process is read from the disk again (J3). EIO. */
int snapshot_file_refresh(struct snapshot_file *file);

#endif
