/* SPDX-License-Identifier: Apache-2.0 */
/* tail_reader.h - what of a tail needs no socket and no clock: blocks out of a node's ring, or out of its log by way of questions,
 * checked and taken apart into commands. What carries the questions is the owner's affair: tail.c, and the simulator.
 * Thread: the owner's. Owns: one buffer; while it is attached the ring, mapped read-only, and our slot there.
 *
 *   attached --pull--> blocks in the buffer --record--> commands
 *       |  ^
 *       ask  told
 *
 * S1, S3  Blocks are copied out of the ring up to its commit (ring_reader_copy looks again behind the copy). What was copied,
 *     or came from the log, is then checked as if it came from a stranger: header, chain to the block before, body. A
 *     command is handed out of a block that passed, and the copy stays ours: no other process can change it (S5).
 * A block that the log has no more, and that holds nothing that is wanted, is no loss: it goes on by position.
 * Never a gap, never a repetition: `next_index` and the base that it chains to move when a block is opened, and outlive the
 * attachment; the ring that comes back is read from there on, or the log is. */
#ifndef LOCKSTEP_CLIENT_TAIL_READER_H
#define LOCKSTEP_CLIENT_TAIL_READER_H

#include <stdbool.h>

#include "lockstep/client.h"
#include "proto/block.h"
#include "proto/local_packet.h"
#include "proto/ring_reader.h"

struct tail_reader {
    uint64_t from_position;
    struct ring_reader *ring; /* NULL: not attached */
    struct ring_reader_slot *slot;

    raft_index next_index; /* of the next block; 0 = not known yet */
    bool chained;          /* base is that of the block before it */
    struct block_base base;
    uint64_t ask_number;
    bool lapped; /* what is asked for has left the ring under our eyes */

    uint8_t *buffer;                /* BLOCK_BYTES_MAX */
    size_t buffer_at, buffer_bytes; /* blocks that are not opened yet */
    size_t part_bytes;              /* of a block larger than a packet, while the rest is asked for */
    raft_index block_index;         /* the one that is handed out */
    raft_term block_term;
    uint64_t block_time_ns;
    struct block_cursor cursor;
    uint64_t handed_position; /* of the last record; 0 = none */

    raft_index commit_index; /* of the node, when it was looked at last */
    uint64_t lapped_count, oldest_position;
    int error; /* 0, or why it goes on no more: ECORRUPT, EPROTO, EVERSION, EGONE */
    char why[LOCKSTEP_TEXT_BYTES_MAX];
};

enum tail_move {
    TAIL_NOTHING, /* nothing is there now */
    TAIL_MOVED,   /* something is, or was learnt: look for records, then again */
    TAIL_ASK,     /* *ret_ask has to be answered first: tail_reader_told() */
    TAIL_STOPPED, /* error and why say what is wrong; final */
};

int tail_reader_open(struct tail_reader *reader, uint64_t from_position); /* ENOMEM. Allocates BLOCK_BYTES_MAX */
void tail_reader_close(struct tail_reader *reader);

/* To the memory that came with a node's reply; again, after a detachment. The descriptors stay the caller's.
 * EPROTO, EINVAL: it is no ring of its own; EVERSION: of another layout; ENOMEM. It is not attached then. */
int tail_reader_attach(struct tail_reader *reader, const struct local_reply *reply, int ring_fd, int slot_fd);
/* What was asked is not answered any more. */
void tail_reader_detach(struct tail_reader *reader);

/* Attached, nothing is being asked, and there are no records: blocks out of the ring. */
enum tail_move tail_reader_pull(struct tail_reader *reader, struct local_ask *ret_ask);
/* The packet that came for the question. */
enum tail_move tail_reader_told(struct tail_reader *reader, const uint8_t *packet, size_t bytes,
                                struct local_ask *ret_ask);

/* The next command; payload is valid until the next call on the reader. False: there is none, or error says why not. */
bool tail_reader_record(struct tail_reader *reader, struct lockstep_tail_record *ret);
/* Whether there is more to hand out without pull. */
bool tail_reader_has_more(const struct tail_reader *reader);

/* S7: say that we sleep, then look once more. False: there is something; do not. */
bool tail_reader_sleep(struct tail_reader *reader);
void tail_reader_wake(struct tail_reader *reader); /* also while it is not attached */

#endif
