/* SPDX-License-Identifier: Apache-2.0 */
/* ring_reader.h - reads the ring of another process of this host, and trusts none of it.
 * Thread: one at a time. Owns: read-only mappings of the segment; of a slot, one page.
 * S1  A block is handed out only after head and epoch were looked at again, behind its copy.
 * S3  What belongs together is read between two equal, even loads of the epoch.
 * S5  Every number is checked before it is used: whatever the other process writes, nothing outside the mapping is read, no
 *     buffer overflows, nothing loops. The seals make sure that the memory stays. What the copied bytes are, nobody has
 *     said: they are checked as if they came from a socket.
 * S6  Reading stores nothing: the writer knows of no reader here, and waits for none. */
#ifndef LOCKSTEP_PROTO_RING_READER_H
#define LOCKSTEP_PROTO_RING_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "proto/ring_segment.h"

struct ring_reader;

/* Whose ring it is. Read once, when it was opened. */
struct ring_identity {
    uint32_t group;
    uint64_t cluster_id;
    raft_member member_id;
    uint64_t boot;
    uint64_t bytes;
};

/* Map the segment behind fd, which stays the caller's (it may be closed at once). Allocates.
 * EINVAL: no memfd sealed with SHRINK, GROW and FUTURE_WRITE, or one with holes, or what it says of itself contradicts its
 * size; EVERSION: a segment of another layout; ENOMEM. */
int ring_reader_open(int fd, struct ring_reader **ret);
void ring_reader_close(struct ring_reader *reader); /* takes NULL */
struct ring_identity ring_reader_identity(const struct ring_reader *reader);

/* The ring at one moment: all of it under one epoch; commit <= last_index, head <= tail, and last_index ends at or below tail. */
struct ring_view {
    uint64_t epoch; /* even, not 0 */
    raft_term term;
    bool leads;
    ring_pos head, tail;
    raft_index commit, last_index;
    uint64_t beat, round;
};

/* EUNAVAILABLE: it is being changed, or its writer stopped in the middle of that; look again later. ECORRUPT: nonsense;
 * end the connection. O(1), a bounded number of tries. */
int ring_reader_look(const struct ring_reader *reader, struct ring_view *ret);

/* Where block `index` lies.
 * ENOTFOUND: above view->last_index; ELAPPED: not in the ring any more, it is in the log; EUNAVAILABLE: the epoch is not
 * view's any more, look again; ECORRUPT as above. O(1). */
int ring_reader_find(const struct ring_reader *reader, const struct ring_view *view, raft_index index,
                     struct ring_slot *ret);

struct ring_blocks {
    raft_index last;
    raft_term last_term;
    size_t bytes; /* of blocks first..last, behind each other */
    ring_pos end; /* of the last one, in the ring */
};

/* Copy the blocks first..last, as many whole ones as lie behind each other without a gap and within room, into `to`.
 * last     at most view->last_index; an observer's is view->commit
 * Errors   as ring_reader_find; ETOOBIG: not even the first one fits; ret->bytes says what it takes (<= BLOCK_BYTES_MAX).
 *          `to` is garbage after any error.
 * O(bytes). */
int ring_reader_copy(const struct ring_reader *reader, const struct ring_view *view, raft_index first, raft_index last,
                     uint8_t *to, size_t room, struct ring_blocks *ret);

/* For who is about to sleep: whether anything moved since view was taken. */
bool ring_reader_moved(const struct ring_reader *reader, const struct ring_view *view);
/* The writer's sleep word: see ring_sleeps_look(). */
const ring_word *ring_reader_writer_sleeps(const struct ring_reader *reader);

/* A reader's slot. The ring's node makes it, keeps it mapped read-only and hands the descriptor on; both are the caller's. */
int ring_reader_slot_make(int *ret_fd, const struct ring_reader_slot **ret); /* ENOMEM */
/* Its reader maps it. EINVAL: not one sealed page (SHRINK, GROW); ENOMEM. fd stays the caller's. */
int ring_reader_slot_map(int fd, struct ring_reader_slot **ret);
void ring_reader_slot_unmap(const struct ring_reader_slot *slot); /* takes NULL */

#endif
