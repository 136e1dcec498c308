/* SPDX-License-Identifier: Apache-2.0 */
/* local_link.h - the door to the processes of this host: who is there, memory that is handed over, bells.
 * Thread: loop. What goes through the shared memory itself is not here: local.c reads and writes it, with this real door
 * (local_unix.h) as with the simulator's.
 *
 * A connection is a number, below LOCAL_CONNECTIONS_MAX. Who dials is granted the ring of whom it dialled, and a slot of its
 * own in which it answers; both ring each other's bell on the same connection. Members dial each other, so there are two
 * connections between two nodes; observers only dial.
 *
 *   dial --> granted | ended            listen --> judge --> (0) ... packets of observers ... --> ended
 *
 * Callbacks come from the loop, between the turns of the node, never out of a call into the link; none of them calls the
 * link, but for the time. A connection that its owner has ended says nothing more. Its number is free at once.
 * Descriptors that go out stay the caller's and are copied; those that come in are the callee's. */
#ifndef LOCKSTEP_TRANSPORT_LOCAL_LINK_H
#define LOCKSTEP_TRANSPORT_LOCAL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"
#include "proto/local_packet.h"

enum {
    LOCAL_OBSERVERS_MAX = 16,
    LOCAL_STRANGERS_MAX = 8, /* dialled us, and have not said who they are */
    LOCAL_CONNECTIONS_MAX = 2 * RAFT_MEMBERS_MAX + LOCAL_OBSERVERS_MAX + LOCAL_STRANGERS_MAX,
};

struct local_grant {
    int ring_fd, slot_fd;
};

struct local_link_owner {
    void *context;
    /* A bell was rung, or a connection came or went: a turn is due. */
    void (*wake)(void *context);
    /* Somebody of the same user says hello. 0: connection is his from now on, and he is sent *ret_grant. Else he is told
     * ret_reply->why, and forgotten. ret_reply is filled in all cases; error is the return value. */
    int (*judge)(void *context, unsigned connection, const struct local_hello *hello, struct local_reply *ret_reply,
                 struct local_grant *ret_grant);
    /* Whom we dialled has granted us what we asked for. Not 0: it is not what we want; the link ends it, silently. */
    int (*granted)(void *context, unsigned connection, const struct local_reply *reply,
                   const struct local_grant *grant);
    /* A packet that is no bell. Not 0: nonsense; the link ends it, and says so by `ended`. */
    int (*packet)(void *context, unsigned connection, const uint8_t *bytes, size_t count);
    /* The other side ended it, refused us, is too slow or broke the protocol; why is for people. */
    void (*ended)(void *context, unsigned connection, const char *why);
};

struct local_link;

struct local_link_ops {
    /* Who it works for; once, before all else. Copied. */
    void (*attach)(struct local_link *link, const struct local_link_owner *owner);
    /* Be found under this name instead of the one before. cluster_id 0: under none. EEXIST: somebody has that name; EIO. */
    int (*listen)(struct local_link *link, uint64_t cluster_id, raft_member member_id);
    /* 0: granted or ended follows, within some seconds. EUNREACHABLE: nobody of this host and user has that name. EFULL. */
    int (*dial)(struct local_link *link, const struct local_hello *hello, unsigned *ret_connection);
    /* Never blocks. Where a bell is on its way already, another one is not needed. False: the system had no memory for it; ring
     * again. */
    bool (*bell)(struct local_link *link, unsigned connection);
    /* To an observer: at most LOCAL_ANSWER_BYTES_MAX. EFULL: it has not read what it was sent before; ECLOSED, EIO. */
    int (*send)(struct local_link *link, unsigned connection, const void *bytes, size_t count);
    void (*end)(struct local_link *link, unsigned connection);
    uint64_t (*now_ns)(struct local_link *link); /* monotonic */
    /* Strangers that were turned away, connections that broke the protocol: since start. */
    uint64_t (*refused)(const struct local_link *link);
    void (*close)(struct local_link *link); /* no callbacks any more */
};

struct local_link {
    const struct local_link_ops *ops;
};

#endif
