/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - a data directory looked at from outside: what it holds, and whether all of it is whole.
 *   - Nothing in the directory is written, and nothing in it is recovered: what is shown is what the next start finds.
 *   - Its lock is held meanwhile, so that no node runs there.
 *   - Damage is no error: it becomes a finding, and what can still be read is read.
 * Thread: the caller's; one at a time. Owns: the lock, and the files open for reading. Allocates. */
#ifndef LOCKSTEP_STORAGE_INSPECT_H
#define LOCKSTEP_STORAGE_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/block.h"
#include "storage/boot.h"
#include "storage/configuration.h"
#include "storage/disk.h"
#include "storage/identity.h"
#include "storage/journal.h"
#include "storage/kv.h"
#include "storage/snapshot.h"
#include "storage/table.h"

struct inspection;

struct inspect_options {
    const char *directory;
    const char *journal_directory; /* NULL = directory */
    const struct disk *disk;
    const struct kv *kv;
};

/* One thing that is wrong. */
struct inspect_finding {
    int error; /* ECORRUPT: damage; EVERSION: a newer format; EIO: it cannot be read; EFOREIGN: of another directory */
    const char *file; /* its name in the directory */
    uint64_t offset;  /* in it; UINT64_MAX = it concerns the whole file, or the place is not known */
    raft_index index; /* of the block that is damaged; 0 = none, or not known */
    char text[512];   /* what is wrong, and what to do */
};

/* What was read. A part is there only if its flag says so; if not, a finding says why, or the node never got so far. */
struct inspect_view {
    bool has_identity, has_boot, has_table, has_journal;
    bool has_tail; /* the journal was replayed: hard_state, commit and last are what the next start finds */
    struct identity identity;
    struct boot boot;
    struct table_state table;
    struct journal_shape journal; /* as written last */
    uint64_t journal_end_seq;     /* the newest good frame */
    uint64_t data_bytes;          /* of data.mdb */
    struct storage_hard_state hard_state;
    raft_index first, stored, last, commit;     /* blocks first..last; those up to stored are in data.mdb */
    uint64_t tail_bytes;                        /* of the blocks that the journal alone holds */
    struct storage_configuration configuration; /* the newest, committed or not; index 0 = the birth record's */
    struct storage_configuration committed;     /* the newest that is known to be committed */
};

/* Errors  ELOCKED, ENOTFOUND (no data directory), EINVAL, ENOMEM, with a sentence in why. */
int inspect_open(const struct inspect_options *options, struct inspection **ret, char *why, size_t why_room);
void inspect_close(struct inspection *inspection); /* takes NULL */

/* Both valid until inspect_close; findings grow by inspect_verify. */
const struct inspect_view *inspect_view(const struct inspection *inspection);
const struct inspect_finding *inspect_findings(const struct inspection *inspection, size_t *ret_count);

/* Read everything that was written and still counts, and check it: each block of the log and that it follows the one
 * before, term runs, configurations, the snapshot's bytes. O(bytes). ENOMEM. */
int inspect_verify(struct inspection *inspection);
/* The snapshot alone. */
void inspect_verify_snapshot(struct inspection *inspection);

/* A block, checked by itself, valid until the next call. ret_file, ret_offset (may be NULL): where it lies.
 * ENOTFOUND: not in first..last; ECORRUPT: damaged or missing; EVERSION; EIO. */
int inspect_block(struct inspection *inspection, raft_index index, const uint8_t **ret_block,
                  struct block_header *ret_header, const char **ret_file, uint64_t *ret_offset);

/* The committed configuration that counts at a block that data.mdb holds or has compacted; index 0 = the birth record's. */
void inspect_configuration(struct inspection *inspection, raft_index at, struct storage_configuration *ret);

/* The journal's frames behind Q, in order: those that the next start replays. Ends where one does not chain: at the end, or
 * at a damaged one, which inspect_verify tells apart. */
struct inspect_frame {
    struct frame_header header;
    uint64_t offset, bytes;
};
int inspect_frames(struct inspection *inspection, void (*frame)(void *context, const struct inspect_frame *frame),
                   void *context);

/* The snapshots of the directory; index 0 = there is none. INCOMING: the leader's, as far as it came. */
void inspect_snapshot(struct inspection *inspection, enum storage_which which, struct storage_snapshot *ret,
                      uint64_t *ret_held_bytes);
/* The snapshot's bytes, piece by piece and in order; the last call of `piece` has the last. Checked as they come; the whole
 * is checked at the end.
 * piece  an error from it ends the reading and is returned
 * ENOTFOUND: there is none, or it did not come whole; ECORRUPT, with *ret_offset the damaged piece's; EIO. */
int inspect_snapshot_read(struct inspection *inspection, enum storage_which which,
                          int (*piece)(void *context, const uint8_t *bytes, size_t count), void *context,
                          uint64_t *ret_offset);

#endif
