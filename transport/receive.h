/* SPDX-License-Identifier: Apache-2.0 */
/* receive.h - one peer's received bytes, and the frames in them. No sockets in it: bytes in, frames out.
 * Thread: loop. Owns: one lazily committed mapping, large enough for a maximal frame and more, so that reading goes on
 * while a large frame waits to be consumed. Frames are handed out where they lie.
 *
 *   bytes:  | consumed | whole frames, part of one | free |
 *                      head                        tail
 *
 * Bytes are moved to the front only when the room behind the tail gets short; in the usual case everything was
 * consumed before the next read, and head and tail go back to 0 (the same cache lines again and again). */
#ifndef LOCKSTEP_TRANSPORT_RECEIVE_H
#define LOCKSTEP_TRANSPORT_RECEIVE_H

#include "proto/peer_frame.h"
#include "transport/transport.h"

enum {
    RECEIVE_READ_BYTES_MIN = 256 << 10, /* room for one read, unless unconsumed frames are in the way */
    RECEIVE_BYTES = 2 * PEER_FRAME_BYTES_MAX,
};

struct receive {
    uint8_t *bytes;
    size_t head, tail;
    bool checked;       /* header and fields of the frame at head were checked: they are below */
    bool partial_given; /* the frame at head was handed out as partial */
    struct peer_frame_header header;
    struct raft_message message;
};

/* Allocates. ENOMEM. */
int receive_open(struct receive *receive);
void receive_close(struct receive *receive); /* takes a half-built or closed one */
void receive_reset(struct receive *receive); /* another connection begins: forget all bytes */

/* Where the next bytes go, and how many fit. 0: frames have to be consumed first. Pointers of frames handed out die. */
uint8_t *receive_room(struct receive *receive, size_t *ret_room);
void receive_filled(struct receive *receive, size_t bytes);
/* More than half of it is free: worth reading again after it was full. */
bool receive_has_room(const struct receive *receive);

/* The frame at the head.
 * ret 1: *ret is filled, but for slot and member_id; again the same until consumed, but a partial only once.
 * ret 0: nothing that was not handed out. Negative: framing is lost (ECORRUPT, EVERSION, EPROTO): close. */
int receive_next(struct receive *receive, struct transport_frame *ret);
/* Let the whole frame at the head go. */
void receive_consume(struct receive *receive);

#endif
