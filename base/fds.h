/* SPDX-License-Identifier: Apache-2.0 */
/* fds.h - one packet over a connected Unix socket (SOCK_SEQPACKET), and the descriptors that travel with it.
 * Any thread; owns nothing. Never blocks, whatever flags the socket has: MSG_DONTWAIT is of the call, not of the open file,
 * which the other process shares. What comes along uninvited is closed and the packet refused: descriptors cost room in
 * this process's table, and another process must not be able to fill it.
 * Source: unix(7), recv(2), cmsg(3). */
#ifndef LOCKSTEP_BASE_FDS_H
#define LOCKSTEP_BASE_FDS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { FDS_MAX = 4 }; /* of one packet */

/* Send one packet with fd_count descriptors (0..FDS_MAX); they stay the caller's, the other side gets copies.
 * 0: it is in the socket, whole. EFULL: it takes none now; ECLOSED: the other side is gone; ETOOBIG; EIO: anything else. */
int fds_send(int socket, const void *bytes, size_t count, const int *fds, unsigned fd_count);

/* Receive one packet into `room` bytes, which must bring exactly fd_count descriptors (0..FDS_MAX).
 * ret_fds  from now on the caller's, close-on-exec; untouched unless the packet is good
 * ret      its bytes, at least 1. EUNAVAILABLE: none now; ECLOSED: the other side is gone (an empty packet counts as that);
 *          EPROTO: more bytes than room, or other descriptors than those; ENOMEM: this process may open no more descriptors
 *          (RLIMIT_NOFILE), which is not the other side's fault: all were closed, the packet is lost; EIO. */
ssize_t fds_receive(int socket, void *to, size_t room, int *ret_fds, unsigned fd_count);

/* Whether the process that connected or listens at the other end did so as this one's effective user (SO_PEERCRED): nobody else
 * may read a log, or be believed to give one. */
bool fds_is_same_user(int socket);

#endif
