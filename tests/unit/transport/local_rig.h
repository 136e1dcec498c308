/* SPDX-License-Identifier: Apache-2.0 */
/* local_rig.h - nodes' ends of the filter for peers of one host: real rings and real shared memory, but a transport beneath
 * that only notes what it is given, and a link between the nodes that only does what the test says.
 * Thread: the test's main thread. */
#ifndef LOCKSTEP_TESTS_UNIT_TRANSPORT_LOCAL_RIG_H
#define LOCKSTEP_TESTS_UNIT_TRANSPORT_LOCAL_RIG_H

#include "proto/ring_reader.h"
#include "transport/local.h"

enum { RIG_NODES = 3, RIG_FRAMES_MAX = 512, RIG_CLUSTER = 7, RIG_BLOCK_BYTES_MAX = 128 << 10 };

struct rig_frame {
    unsigned slot; /* who sent it, or to whom */
    uint8_t type;
    struct raft_message message;
    uint8_t *body; /* received blocks */
    size_t body_bytes;
    uint64_t ring_bytes, blocks_bytes; /* sent */
};

struct rig_connection {
    bool used, granted;
    unsigned node, connection; /* the other end */
    struct local_hello hello;  /* dialled and not judged yet: !granted */
    unsigned bells;            /* rung here */
};

struct rig_node {
    struct transport inner;
    struct local_link link;
    unsigned slot;
    struct transport *transport; /* NULL: closed */
    struct ring *ring;
    struct ring *ring_shown; /* what the owner says it is: NULL before birth */
    raft_index last_index;
    uint32_t last_crc;
    log_position next_position;

    struct transport_peer_status status[RIG_NODES]; /* of the transport beneath */
    struct rig_frame sent[RIG_FRAMES_MAX];          /* through the transport beneath */
    unsigned sent_count;
    struct transport_frame come[16]; /* lie there, to be handed out */
    unsigned come_count, inner_consumed, inner_flushes;

    struct rig_frame got[RIG_FRAMES_MAX]; /* handed to the node */
    unsigned got_count;

    struct local_link_owner link_owner;
    struct rig_connection connections[LOCAL_CONNECTIONS_MAX];
    bool listening, listen_refused;
    bool send_refused;  /* packets find no room */
    bool bells_refused; /* the system has no memory for them */
    unsigned packets;
    unsigned listens, dials, ends, wakes, reports;
    char report[512];
};

extern struct rig_node rig[RIG_NODES];
extern uint64_t rig_now_ns;
extern uint64_t rig_spin_ns;           /* of nodes that are opened from now on */
extern void (*rig_clock_looked)(void); /* whenever somebody looks at the clock; NULL = nothing happens */

/* All nodes know each other through the transport beneath; nobody leads. */
void rig_open(void);
void rig_close(void);
raft_member rig_member(unsigned node);
void rig_node_close(unsigned node); /* hangs up */

/* The frames that there are for this node, taken, and its turn's end. */
void rig_turn(unsigned node);
/* Dialled connections are judged and granted or refused. */
void rig_link_turn(void);
/* Turns of all and of the link, until there is nothing new. */
void rig_settle(void);
void rig_hang_up(unsigned node, unsigned connection);
/* The connection that `node` dialled to `to`; LOCAL_CONNECTIONS_MAX: none. */
unsigned rig_dialled(unsigned node, unsigned to);

/* Its node becomes leader, or follower, of this term. */
void rig_role(unsigned node, raft_term term, bool leads);
/* One block with this payload, term as the ring's, at the end of the node's ring. */
void rig_publish(unsigned node, raft_term term, uint32_t payload_bytes);
/* What its core says. */
void rig_ack(unsigned node, unsigned to, raft_term term, raft_index validated, raft_index durable, uint64_t round);
int rig_send(unsigned node, unsigned to, const struct raft_message *message, uint64_t ring_bytes,
             uint64_t blocks_bytes);
int rig_append(unsigned node, unsigned to, raft_term term, raft_index first);
int rig_heartbeat(unsigned node, unsigned to, raft_term term, uint64_t round);

struct transport_peer_status rig_status(unsigned node, unsigned peer);
void rig_forget(void); /* what was sent, handed out and rung so far */
unsigned rig_count(const struct rig_frame *frames, unsigned count, uint8_t raft_type);
const struct rig_frame *rig_last(const struct rig_frame *frames, unsigned count, uint8_t raft_type); /* or NULL */

/* Node 0 leads in term 1, has `blocks` blocks, and nodes 1 and 2 pull from it, all read. */
void rig_follow(unsigned blocks);

#endif
