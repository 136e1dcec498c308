/* SPDX-License-Identifier: Apache-2.0 */
/* local_packet.h - what processes of one host say to each other over a node's Unix socket, before and beside memory.
 * Pure; any thread; owns nothing.
 *
 *   who dials                                   the node
 *   hello {who, whom, which group} ------------>
 *            <------------ reply {who} + descriptors: its ring, and the dialler's slot; or the reason why not
 *   bell  <------------------------------------> bell         one byte: look at the memory
 *   ask {what is not in the ring any more} ----->             an observer, one question at a time
 *                        <------------ answer {blocks of the log, or a part of one}
 *
 * The socket is SOCK_SEQPACKET with an abstract name: a packet comes whole or not at all, nothing is left behind in the
 * file system by who is killed, and a process in another network namespace does not see it.
 * Numbers lie as they are in memory: both sides are the same machine. What is read comes from outside and is checked. */
#ifndef LOCKSTEP_PROTO_LOCAL_PACKET_H
#define LOCKSTEP_PROTO_LOCAL_PACKET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/ids.h"

enum {
    LOCAL_PACKET_VERSION = 1,
    LOCAL_HELLO_BYTES = 64,
    LOCAL_WHY_BYTES_MAX = 128,
    LOCAL_REPLY_BYTES = 48 + LOCAL_WHY_BYTES_MAX,
    LOCAL_FDS = 2, /* of a reply that accepts: the ring, the slot */
    LOCAL_BELL = 1,
    LOCAL_ASK_BYTES = 40,
    LOCAL_ANSWER_BYTES = 48, /* and what is told, behind it */
    LOCAL_ANSWER_BYTES_MAX = 64 << 10,
};

enum local_kind {
    LOCAL_FOLLOWER = 1, /* a member of the cluster */
    LOCAL_OBSERVER = 2, /* any process of the same user: reads what is committed */
};

struct local_hello {
    uint32_t kind, group;
    uint64_t cluster_id;
    raft_member member_id; /* who speaks; an observer: 0 */
    uint64_t boot;
    raft_member wanted_id; /* whom it speaks to */
    uint64_t wanted_boot;  /* 0 = whichever */
};

struct local_reply {
    int error; /* 0, or why not: an error of errors.h */
    uint32_t group;
    uint64_t cluster_id;
    raft_member member_id;
    uint64_t boot;
    char why[LOCAL_WHY_BYTES_MAX]; /* for people; "" with 0 */
};

/* Where to begin: at the block that holds a position, or at a block and `offset` bytes of it. */
struct local_ask {
    uint64_t number;       /* comes back with the answer */
    log_position position; /* 0 = by index */
    raft_index index;
    uint32_t offset;
};

/* 0: bytes of the log, from `offset` of block `index` on: whole blocks behind each other, or a part of a larger one.
 * ENOTFOUND: it is not in the log yet: the ring has what lies above block `index`. EGONE: compacted; `oldest` is the
 * position with which the log begins. EINVAL: the block has no such offset. Anything else: ask again. */
struct local_answer {
    int error;
    uint32_t offset;
    uint64_t number;
    raft_index index;
    log_position oldest;
};

/* The address on which member_id of cluster_id listens. */
socklen_t local_address(uint64_t cluster_id, raft_member member_id, struct sockaddr_un *ret);

void local_hello_write(const struct local_hello *hello, uint8_t to[LOCAL_HELLO_BYTES]);
void local_reply_write(const struct local_reply *reply, uint8_t to[LOCAL_REPLY_BYTES]);
/* EVERSION: another version of this protocol; EPROTO: no such packet. */
int local_hello_read(const uint8_t *at, size_t bytes, struct local_hello *ret);
int local_reply_read(const uint8_t *at, size_t bytes, struct local_reply *ret);

void local_ask_write(const struct local_ask *ask, uint8_t to[LOCAL_ASK_BYTES]);
void local_answer_write(const struct local_answer *answer, uint8_t to[LOCAL_ANSWER_BYTES]);
/* EVERSION, EPROTO as above. Of an answer's packet what is told stands behind LOCAL_ANSWER_BYTES; none, unless error is 0. */
int local_ask_read(const uint8_t *at, size_t bytes, struct local_ask *ret);
int local_answer_read(const uint8_t *at, size_t bytes, struct local_answer *ret);

#endif
