/* SPDX-License-Identifier: Apache-2.0 */
/* local_source.h - the ring of a peer of this host that a follower reads, and the slot in which it answers there: a part of
 * local.c. Thread: loop.
 *
 *   IDLE -> PULLS   [source_speak] our node says to L, in term T: our logs match up to v; L's ring leads in T and holds v
 *   PULLS -> IDLE   [source_stop]  refused, full, not taken, lapped, another epoch or term, hung up
 *
 * S1  Blocks are copied (ring_reader_copy looks again behind the copy); the node checks and uses the copy.
 * S2  What is said counts under the epoch that the slot names: the one under which it pulls.
 * S3  A ring is followed while it leads in the term in which our own node acknowledges to it. */
#ifndef LOCKSTEP_TRANSPORT_LOCAL_SOURCE_H
#define LOCKSTEP_TRANSPORT_LOCAL_SOURCE_H

#include "proto/ring_reader.h"
#include "transport/transport.h"

struct source {
    unsigned connection; /* this and the next three are local.c's own; granted when reader is there */
    uint64_t retry_ns;   /* not dialled before */
    bool told;           /* people know why it is not there */
    uint64_t rung;       /* the value of the ring's sleep word for which we rang */

    raft_member member; /* whose ring it is */
    struct ring_reader *reader;
    struct ring_reader_slot *slot; /* ours, in memory that the ring's node made */

    uint64_t epoch; /* under which we pull; 0 = we do not */
    raft_term term;
    raft_index last; /* handed to the node, or known to be there */
    raft_term last_term;
    ring_pos position;   /* behind it */
    raft_index settled;  /* last, when the turn before ended: our node must have it by now */
    raft_index commit;   /* told to the node */
    uint64_t beat;       /* told to the node */
    struct ring_ack ack; /* what stands in the slot */
    bool spoke;          /* the slot has news since the last flush */
};

/* It pulls no more, and says so in its slot. Nothing, where it did not. */
void source_stop(struct source *source);

/* What our node says to this peer. True: it stands in the slot; else it has to go another way. */
bool source_speak(struct source *source, const struct raft_message *ack);

/* Whether source_pull() would bring something. */
bool source_has_news(const struct source *source);

/* The next frame of what moved in the ring; one that pulls. self: our node's id.
 * buffer  BLOCK_BYTES_MAX, for the frame's body
 * ret     slot is the caller's to say
 * EUNAVAILABLE: nothing now. ELAPPED: too late; it pulls no more. Anything else: nonsense in the ring, end its connection. */
int source_pull(struct source *source, raft_member self, uint8_t *buffer, struct transport_frame *ret);

#endif
