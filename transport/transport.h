/* SPDX-License-Identifier: Apache-2.0 */
/* transport.h - the door to the peers: frames in, frames out. Thread: loop.
 * Peers are slots, 0..RAFT_MEMBERS_MAX-1: who has which is the owner's affair (peer_set, hello_check); what a slot's
 * member id is, its hello says. Connections are one-way: each node dials every other one and sends on what it dialled, and
 * receives on what it accepted; so a cut in one direction is a cut in one direction.
 *
 * Nothing reacts inside an I/O callback: received bytes wait in their connection's bounded buffer until the node asks
 * for frames (transport_next), checked for framing: magic, version, header crc, length. When a buffer is full the
 * socket is not read.
 * A send holds ring positions (pinned for the peer until they are written), never indexes to be looked up later. A
 * frame that finds no room is dropped (Raft repeats what matters) and counted; one that was begun is finished or its
 * connection closed. Outside bytes are copied out, checked, and the copy is used. */
#ifndef LOCKSTEP_TRANSPORT_TRANSPORT_H
#define LOCKSTEP_TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "proto/local_packet.h"
#include "raft/message.h"
#include "storage/ring.h"

enum { TRANSPORT_NAME_BYTES_MAX = 64, TRANSPORT_ADDRESS_BYTES_MAX = 272, TRANSPORT_REASON_BYTES_MAX = 256 };
enum { TRANSPORT_APPEND_BYTES_MAX = 1 << 20 }; /* of blocks in one APPEND; one block always fits */

enum transport_frame_type {
    FRAME_HELLO = 1,       /* first on every connection, from the dialler */
    FRAME_HELLO_REPLY = 2, /* the only frame that flows back: accepted, or refused with the reason */
    FRAME_RAFT = 3,        /* one raft_message; blocks behind it, if it is an APPEND */
    FRAME_BIRTH = 4,       /* birth of the cluster; body is the node's affair */
    FRAME_FORWARD = 5,     /* a client's command or query for the leader */
    FRAME_FORWARD_REPLY = 6,
    FRAME_BLOCK_GET = 7, /* one block is asked for by its name, and given */
    FRAME_BLOCK = 8,
    FRAME_TYPES, /* those above travel */
    /* Made here: the connection on which this peer's frames came has ended (its process died, or closed it), and all
     * whole frames that came on it were handed out. Not made when a newer connection of the peer replaced it, nor when
     * it was closed here. */
    FRAME_HANGUP,
};

/* Who speaks. Two nodes with different cluster, protocol, format or machine do not talk. */
struct transport_hello {
    uint32_t protocol;
    uint32_t format;
    uint32_t feature_level;
    uint32_t level;      /* enum durability_level */
    uint64_t cluster_id; /* 0 = not born yet */
    raft_member member_id;
    uint64_t boot;                  /* a lower one than seen is a copied directory */
    raft_index configuration_index; /* of the newest configuration that it knows to be committed */
    uint64_t promise_ns;            /* to whom it hears lead: no vote for others so long; 0 = lease reads are off */
    char cluster[TRANSPORT_NAME_BYTES_MAX];
    char name[TRANSPORT_NAME_BYTES_MAX];
    char machine[TRANSPORT_NAME_BYTES_MAX];
    char machine_version[TRANSPORT_NAME_BYTES_MAX];
    char address[TRANSPORT_ADDRESS_BYTES_MAX]; /* its peer port, HOST:PORT: where to dial it back */
};

/* A received frame, whole, unless `partial`: then only header and message are here (once per large frame; the body
 * follows as a frame of its own later). Pointers die at transport_consume. */
struct transport_frame {
    unsigned slot;         /* who, by its hello */
    raft_member member_id; /* of that hello */
    uint8_t type;          /* enum transport_frame_type: all but the hellos */
    bool partial;
    struct raft_message message; /* RAFT */
    const uint8_t *body;         /* RAFT: blocks, unchecked; else the frame's body */
    size_t body_bytes;
};

/* A frame to send. parts are copied at once; [ring_from, ring_from + ring_bytes) is sent straight from the ring, or
 * `blocks` straight from memory that stays as it is until transport_blocks_idle(slot). */
struct transport_send {
    unsigned slot;
    uint8_t type;
    const struct raft_message *message; /* RAFT */
    const void *body;                   /* copied; with RAFT, blocks that lie in no ring */
    size_t body_bytes;
    const void *more; /* and this behind it, copied too */
    size_t more_bytes;
    ring_pos ring_from;
    uint64_t ring_bytes;
    const uint8_t *blocks;
    size_t blocks_bytes;
};

struct transport_peer_status {
    bool connected_out; /* our hello was accepted */
    bool connected_in;
    raft_member member_id;                   /* 0 = no hello seen */
    uint64_t boot;                           /* of that hello; 0 = not known */
    int refused, refuses;                    /* the code with which our hello was refused, or we did; 0 = not so */
    char reason[TRANSPORT_REASON_BYTES_MAX]; /* why not connected: dial error, or the refusal's words */
    uint64_t sent_bytes, received_bytes, frames_dropped;
    bool shared_memory;           /* one of us reads the other's ring: appends, heartbeats and acks go that way */
    uint64_t lag_bytes;           /* of the ring that the reader has not read; 0 without shared memory */
    uint64_t lapped;              /* how often the reader was too late, and went on by TCP */
    uint64_t bells, bells_spared; /* rung; not rung: the other side was awake, or was rung already */
};

/* Processes of this host that follow what is committed: how many are there now; the rest since start, or as they say
 * themselves. */
struct transport_observers {
    uint32_t count;
    uint64_t lag_bytes; /* of the ring that the last of them has not read */
    uint64_t lapped;    /* how often they were too late for the ring, and asked for the log */
    uint64_t bells, bells_spared;
};

/* An observer wants blocks of the log. */
struct transport_question {
    uint64_t ticket; /* names it in the answer; never used twice */
    struct local_ask ask;
};

struct transport;

struct transport_ops {
    /* 0: taken. EFULL: no room, dropped and counted. EUNREACHABLE: not connected. */
    int (*send)(struct transport *t, const struct transport_send *send);
    /* Bytes of ring and memory blocks taken for this slot but not yet written. */
    uint64_t (*queued_bytes)(struct transport *t, unsigned slot);
    bool (*blocks_idle)(struct transport *t, unsigned slot);
    /* The next received frame, round robin over peers. False: none now. consume, called after each, lets its bytes
     * go (a partial one's stay, and come again whole). Pointers hold until then. */
    bool (*next)(struct transport *t, struct transport_frame *ret);
    void (*consume)(struct transport *t);
    /* Write out what was queued this turn: called once, at the end of a turn. */
    void (*flush)(struct transport *t);
    /* Give a slot to a peer, or to another one, or to none (name ""): its connections end, what waited for it is dropped.
     * The same name and address again change nothing. address "": it is not dialled. Not between next and consume.
     * EINVAL: not HOST:PORT; ENOMEM: nothing changed then. Allocates at a slot's first use; the strings are copied. */
    int (*peer_set)(struct transport *t, unsigned slot, const char *name, const char *address);
    /* What we say of ourselves changed: later connections say it. With another cluster id (birth) or member id existing
     * ones are made anew. */
    void (*hello_set)(struct transport *t, const struct transport_hello *hello);
    void (*peer_status)(struct transport *t, unsigned slot, struct transport_peer_status *ret);
    /* Damaged or malformed frames and connections refused, since start. */
    uint64_t (*frames_refused)(struct transport *t);
    /* NULL, as the two below: a transport that knows no observers. */
    void (*observers)(struct transport *t, struct transport_observers *ret);
    /* They ask for what the ring holds no more. asked: the next question, in turns, one of an observer at a time. False: none now. */
    bool (*asked)(struct transport *t, struct transport_question *ret);
    /* Exactly once for each: one packet, copied. Who is gone, or did not take what was sent before, gets none. */
    void (*answer)(struct transport *t, uint64_t ticket, const void *packet, size_t bytes);
    void (*close)(struct transport *t);
};

/* The head of every transport: tcp, fault filter, the simulator's. */
struct transport {
    const struct transport_ops *ops;
};

/* What the owner (the node) gives to a transport. */
struct transport_owner {
    void *context;
    /* Frames, or a change of connections: node_drain is due this turn. Never calls back into the transport. */
    void (*wake)(void *context);
    /* The ring that sends refer to; NULL before birth, when nobody refers to it. */
    struct ring *(*ring)(void *context);
    /* Judge a hello. slot: which one was dialled; RAFT_MEMBERS_MAX, if the connection was accepted: then the owner says
     * whose it is. 0, or a refusal with the reason; code and reason are answered to the dialler and stand in its status. */
    int (*hello_check)(void *context, unsigned *slot, const struct transport_hello *hello,
                       char reason[TRANSPORT_REASON_BYTES_MAX]);
};

#endif
