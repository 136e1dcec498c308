/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - reading committed blocks: from the ring by position, from LMDB by index, zero-copy.
 * This is what machines and senders see of storage. What is read here is final: only committed blocks are in LMDB.
 * Thread: a reader belongs to one thread. Check what you use: storage_read() does. */
#ifndef LOCKSTEP_STORAGE_LOG_H
#define LOCKSTEP_STORAGE_LOG_H

#include <stdint.h>

#include "base/ids.h"
#include "proto/block.h"
#include "storage/ring.h"

struct storage;
struct storage_reader;

/* The hot end. Valid until storage_close. */
struct ring *storage_ring(struct storage *storage);
/* The newest block in LMDB. Any thread. */
raft_index storage_stored(const struct storage *storage);

/* ENOMEM, EFULL (too many readers). Allocates. */
int storage_reader_open(struct storage *storage, struct storage_reader **ret);
void storage_reader_close(struct storage_reader *reader); /* takes NULL; before storage_close */
/* The block as it lies in LMDB's map, checked: header, body, index. It has no alignment and is valid until the next call
 * on this reader.
 * ENOTFOUND: not stored yet; EGONE: compacted; ECORRUPT: damaged, or missing in the middle; EIO. */
int storage_read(struct storage_reader *reader, raft_index index, const uint8_t **ret_block,
                 struct block_header *ret_header);
/* Done for now: LMDB's pages are held no longer. */
void storage_read_end(struct storage_reader *reader);

#endif
