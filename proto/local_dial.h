/* SPDX-License-Identifier: Apache-2.0 */
/* local_dial.h - who dials a node of this host: a follower's node, an observer. The first two packets of local_packet.h.
 * Any thread; owns nothing. Never waits. */
#ifndef LOCKSTEP_PROTO_LOCAL_DIAL_H
#define LOCKSTEP_PROTO_LOCAL_DIAL_H

#include "proto/local_packet.h"

/* Connect to the member that the hello wants, and say hello.
 * ret_socket  the caller's: SOCK_SEQPACKET, close-on-exec, non-blocking. The reply comes on it: local_greeted()
 * EUNREACHABLE: nobody of this host and network namespace has that name, or it is busy; EFOREIGN: somebody has, and runs as
 * another user; ECLOSED: it hung up at once; ENOMEM: this process gets no socket, errno says why. */
int local_dial(const struct local_hello *hello, int *ret_socket);

/* The node's reply to it. 0: a reply that can be; with ret->error 0 it brought what it should, the ring and the slot:
 * ret_fds  from now on the caller's, close-on-exec; untouched with ret->error != 0
 * EUNAVAILABLE: none yet; ECLOSED: it hung up without one; EVERSION, EPROTO: as local_reply_read(), also other descriptors
 * than those; ENOMEM: this process may open no more descriptors. After an error close the socket, but for EUNAVAILABLE. */
int local_greeted(int socket, struct local_reply *ret, int ret_fds[LOCAL_FDS]);

#endif
