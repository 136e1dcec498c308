/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.h - the state behind a block, kept beside the log, so that the log up to there may go.
 * A snapshot is a file (snapshot_file.h), written under another name, flushed, and renamed; then one transaction of the log
 * names it in the state record, and only by that it counts; compaction follows. Two others may be under way beside the one
 * that counts: one being taken, one coming from the leader.
 * Threads: taking is one producer's; installing is the loop's; reading, anybody's with a reader of its own.
 * Source: thesis 5; etcd writes snapshots as files, and names them in its log. */
#ifndef LOCKSTEP_STORAGE_SNAPSHOT_H
#define LOCKSTEP_STORAGE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/block.h"
#include "storage/configuration.h"

struct storage;
struct storage_reader;

/* The last piece of a snapshot is shorter. The usual size is also what is flushed at once, and what a commit's flush may have to
 * wait for. */
enum { SNAPSHOT_PIECE_BYTES = 128 << 10, SNAPSHOT_PIECE_BYTES_MAX = 1 << 20 };
/* What storage_snapshot_write() is given at once by who works in short steps. */
enum { SNAPSHOT_STEP_BYTES = 16 << 10 };

/* Equal records mean equal bytes. */
struct storage_snapshot {
    struct block_base base; /* the last block that it stands for; index 0 = there is none */
    uint64_t bytes;         /* of its pieces, compressed */
    uint32_t checksum;      /* crc32c of all those */
};

/* --- taking one: one thread that may wait for the disk --- */

/* Begin. EFULL: the one before does not count yet. ENOMEM, ENOSPC; EIO is final. Allocates. */
int storage_snapshot_begin(struct storage *storage, const struct block_base *base);
/* The next bytes. They are compressed on their way (zstd). ENOSPC, ENOMEM: end it; EIO is final. */
int storage_snapshot_write(struct storage *storage, const void *bytes, size_t count);
/* That was all; or it is to be forgotten. Flushed when this returns; it counts once its block is in the log's table too.
 * The error of any call since the beginning: then it is forgotten. */
int storage_snapshot_end(struct storage *storage, bool keep);
/* Whether one is being taken, or waits until it counts. Any thread. */
bool storage_snapshot_busy(const struct storage *storage);

/* --- reading --- */

enum storage_which { STORAGE_SNAPSHOT_NEWEST, STORAGE_SNAPSHOT_INCOMING };

/* The piece at `offset`, checked.
 * to            room for SNAPSHOT_PIECE_BYTES_MAX
 * ret_snapshot  which one is there now: a newer one may have taken the place of the one that the caller is reading
 * ENOTFOUND: there is none, or `offset` is not where a piece of it begins; ECORRUPT: damaged or missing, also where the
 * incoming one is not complete; EVERSION; EIO. Any thread. Opens the file each time: what is replaced is held by nobody. */
int storage_piece_read(struct storage_reader *reader, enum storage_which which, uint64_t offset,
                       struct storage_snapshot *ret_snapshot, void *to, size_t *ret_count);

/* What was written, from its beginning: the pieces expanded. One reader has one open. Allocates some 2 MiB. ENOMEM */
struct storage_content;
int storage_content_open(struct storage_reader *reader, enum storage_which which, struct storage_content **ret);
void storage_content_close(struct storage_content *content); /* takes NULL */
/* *ret_count = 0: the end. As storage_piece_read(); ECORRUPT also where the pieces are whole and do not expand; EGONE: another
 * one has taken its place. */
int storage_content_read(struct storage_content *content, void *to, size_t room, size_t *ret_count);

/* --- installing: the loop --- */

/* A piece of the leader's came. It is copied; storage_incoming() shows when it is written (STORAGE_LOOP is woken).
 * EEXIST: it is not the next one: storage_incoming() says what is held, of which snapshot.
 * EFULL: the one before is still being stored: dropped. EINVAL: a length that cannot be. ENOMEM. */
int storage_install_piece(struct storage *storage, const struct storage_snapshot *snapshot, uint64_t offset,
                          const uint8_t *bytes, size_t count);

struct storage_incoming {
    struct storage_snapshot snapshot; /* base.index 0 = none */
    uint64_t offset;                  /* written up to here; a crash may take some of it back, and is found out */
    bool complete;                    /* all of it, flushed, and the checksum is right */
    uint32_t discarded;               /* how many came whole and were damaged, since start */
};
/* What is held of the leader's snapshot. False: a command is under way, *ret is untouched. */
bool storage_incoming(const struct storage *storage, struct storage_incoming *ret);

/* Forget it: it is not needed any more. Not while a command is under way. */
void storage_install_drop(struct storage *storage);

/* The configuration that counts at the snapshot's block (R6), as in its block; index 0: the birth record's. */
struct storage_install_configuration {
    raft_index index;
    uint32_t count;
    uint8_t bytes[CONFIGURATION_BYTES_MAX];
};

/* Make it the beginning of the log, which is empty behind it: the loop publishes no block from here on until
 * storage_install_done(). The snapshot's block is above the commit. */
void storage_install(struct storage *storage, const struct storage_install_configuration *configuration);
/* True once, when it is durable. Then ring and journal have begun anew behind *ret. The caller stands between
 * ring_epoch_begin and ring_epoch_end. */
bool storage_install_done(struct storage *storage, struct block_base *ret);
bool storage_installing(const struct storage *storage);

#endif
