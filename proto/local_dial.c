/* SPDX-License-Identifier: Apache-2.0 */
/* local_dial.c - see local_dial.h. */
#include "proto/local_dial.h"

#include <errno.h>
#include <unistd.h>

#include "base/fds.h"
#include "lockstep/errors.h"

int local_dial(const struct local_hello *hello, int *ret_socket)
{
    struct sockaddr_un address;
    uint8_t packet[LOCAL_HELLO_BYTES];
    socklen_t bytes = local_address(hello->cluster_id, hello->wanted_id, &address);
    int rc, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return LOCKSTEP_ENOMEM;
    /* It is connected at once or not at all: a full backlog is EAGAIN, and there is nothing to wait for. */
    rc = connect(fd, (const struct sockaddr *)&address, bytes) == 0 ? 0 : LOCKSTEP_EUNREACHABLE;
    if (rc == 0 && !fds_is_same_user(fd)) rc = LOCKSTEP_EFOREIGN;
    local_hello_write(hello, packet);
    if (rc == 0 && fds_send(fd, packet, sizeof packet, NULL, 0) != 0) rc = LOCKSTEP_ECLOSED;
    if (rc != 0) {
        close(fd);
        return rc;
    }
    *ret_socket = fd;
    return 0;
}

int local_greeted(int socket, struct local_reply *ret, int ret_fds[LOCAL_FDS])
{
    uint8_t packet[LOCAL_REPLY_BYTES];
    struct local_reply reply;
    /* A refusal brings no descriptors: so the packet is looked at before it is taken. */
    ssize_t there = recv(socket, packet, sizeof packet, MSG_PEEK | MSG_DONTWAIT);
    if (there < 0 && (errno == EAGAIN || errno == EINTR)) return LOCKSTEP_EUNAVAILABLE;
    if (there <= 0) return LOCKSTEP_ECLOSED;
    int rc = local_reply_read(packet, (size_t)there, &reply);
    if (rc != 0) return rc;
    ssize_t got = fds_receive(socket, packet, sizeof packet, ret_fds, reply.error == 0 ? LOCAL_FDS : 0);
    if (got < 0) return got == LOCKSTEP_ENOMEM ? LOCKSTEP_ENOMEM : LOCKSTEP_EPROTO;
    *ret = reply;
    return 0;
}
