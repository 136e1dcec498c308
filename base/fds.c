/* SPDX-License-Identifier: Apache-2.0 */
/* fds.c - see fds.h. */
#include "base/fds.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"

/* Room for more than anybody may send: what the kernel would have to cut off it hands over, to be closed here. */
enum { RECEIVED_MAX = 16 };

static int error_of(int error)
{
    switch (error) {
    case EAGAIN: return LOCKSTEP_EFULL;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN: return LOCKSTEP_ECLOSED;
    case EMSGSIZE: return LOCKSTEP_ETOOBIG;
    default: return LOCKSTEP_EIO;
    }
}

int fds_send(int socket, const void *bytes, size_t count, const int *fds, unsigned fd_count)
{
    union {
        struct cmsghdr header; /* its alignment */
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    /* an iovec has no const; nobody writes through it */
    struct iovec iov = {.iov_base = (void *)(size_t)bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    lk_assert(fd_count <= FDS_MAX);
    lk_assert(count > 0);
    if (fd_count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) return error_of(errno);
    return (size_t)sent == count ? 0 : LOCKSTEP_EIO;
}

/* All descriptors that came, of however many control messages. */
static unsigned received_fds(struct msghdr *message, int ret[RECEIVED_MAX])
{
    unsigned count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= bytes && count < RECEIVED_MAX; at += sizeof(int))
            memcpy(&ret[count++], CMSG_DATA(c) + at, sizeof(int));
    }
    return count;
}

ssize_t fds_receive(int socket, void *to, size_t room, int *ret_fds, unsigned fd_count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(RECEIVED_MAX * sizeof(int))];
    } control;
    int fds[RECEIVED_MAX];
    struct iovec iov = {.iov_base = to, .iov_len = room};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count > 0) { /* else whatever comes along is cut off */
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
    }
    lk_assert(fd_count <= FDS_MAX);
    ssize_t got;
    do {
        got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return errno == EAGAIN ? LOCKSTEP_EUNAVAILABLE : error_of(errno);
    unsigned count = received_fds(&message, fds);
    bool cut_off = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0; /* what the kernel cut off it has closed */
    /* cut off though there was room */
    bool no_descriptor = fd_count > 0 && (message.msg_flags & MSG_CTRUNC) != 0 && count < RECEIVED_MAX;
    if (got > 0 && !cut_off && count == fd_count) {
        if (fd_count > 0) memcpy(ret_fds, fds, fd_count * sizeof(int));
        return got;
    }
    for (unsigned i = 0; i < count; i++) close(fds[i]);
    if (got == 0) return LOCKSTEP_ECLOSED;
    return no_descriptor ? LOCKSTEP_ENOMEM : LOCKSTEP_EPROTO;
}

bool fds_is_same_user(int socket)
{
    struct ucred user;
    socklen_t bytes = sizeof user;
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &user, &bytes) == 0 && user.uid == geteuid();
}
