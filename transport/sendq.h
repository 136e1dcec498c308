/* SPDX-License-Identifier: Apache-2.0 */
/* sendq.h - what waits to be written to one peer. No sockets in it: frames in, iovecs out.
 * Thread: loop. Owns: a lazily committed buffer for what is copied (headers, fields, bodies), a table of segments, and
 * the peer's pin in the ring.
 *
 *   segments:  | copied 112 | ring 4096..9216 | copied 112 | ring 9216.. |     in the order of the wire
 *
 * The pin stands on the lowest ring position that is not yet written. Frames are not merged or reordered.
 * Bounded: copied bytes by the buffer, ring and memory blocks by bytes_max; an empty queue takes any one frame. */
#ifndef LOCKSTEP_TRANSPORT_SENDQ_H
#define LOCKSTEP_TRANSPORT_SENDQ_H

#include <sys/uio.h>

#include "transport/transport.h"

struct sendq;

/* pin  the ring's pin owner of this peer. Allocates. ENOMEM. */
int sendq_open(unsigned pin, uint64_t bytes_max, struct sendq **ret);
void sendq_close(struct sendq *queue); /* leaves the ring alone: it may be gone; takes NULL */

/* Take one frame. ring: the one that ring_from refers to; may be NULL if there is no such part.
 * EFULL: no room; ELAPPED: the ring's bytes are gone. Nothing was taken then. */
int sendq_put(struct sendq *queue, struct ring *ring, const struct transport_send *send);
/* The bytes to write next, at most iov_max pieces. 0: nothing waits. They stay until sendq_written or sendq_clear. */
size_t sendq_peek(struct sendq *queue, const struct ring *ring, struct iovec *iov, size_t iov_max);
void sendq_written(struct sendq *queue, struct ring *ring, size_t bytes);
/* The connection is gone: forget everything, hold nothing. */
void sendq_clear(struct sendq *queue, struct ring *ring);

bool sendq_empty(const struct sendq *queue);
uint64_t sendq_blocks_queued_bytes(const struct sendq *queue); /* of ring and memory blocks */
bool sendq_memory_idle(const struct sendq *queue);             /* no memory block waits */

#endif
