/* SPDX-License-Identifier: Apache-2.0 */
/* tcp.c - peers over TCP. Thread: loop. Owns: the listener, every connection, each peer's queues.
 *
 *   dialled (we send)                                       accepted (we receive)
 *   IDLE -> RESOLVING   [dial: a host name]                 FREE -> STRANGER     [accept_all]
 *   IDLE -> CONNECTING  [dial: numbers]                     STRANGER -> IN       [stranger_hello: accepted, answered]
 *   RESOLVING -> CONNECTING [resolved]                      STRANGER -> CLOSING  [refused, slow, garbage, crowded out]
 *   CONNECTING -> GREETING  [connected: HELLO written]      IN -> CLOSING        [end, error, bad frame, replaced]
 *   GREETING -> OUT     [greeted: HELLO_REPLY accepts]
 *   any -> CLOSING -> IDLE  [peer_lost], dialled again after a back-off
 *
 * Why plain sockets under uv_poll and not uv_tcp: bytes go from the ring to the socket with one sendmsg a turn, a
 * partial write is our own bookkeeping (it moves the pin), reads go where they will lie, and nothing is allocated.
 * Every wait has an end: connecting and greeting CONNECT_MS, a stranger's hello HELLO_MS, unacknowledged bytes
 * PROGRESS_MS (TCP_USER_TIMEOUT), a silent dead host the keepalive.
 * Source: tcp(7); Raft thesis 10.2 (pipelining keeps several appends on the wire). */
#include "transport/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/random.h"
#include "lockstep/errors.h"
#include "transport/receive.h"
#include "transport/sendq.h"
#include "transport/wire.h"

enum {
    CONNECT_MS = 1000, /* from connect() to the accepted hello */
    HELLO_MS = 2000,   /* a stranger's time to say who it is */
    PROGRESS_MS = 3000,
    KEEPALIVE_IDLE_S = 2,
    KEEPALIVE_INTERVAL_S = 1,
    KEEPALIVE_PROBES = 3,
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 1000,
    LISTEN_PAUSE_MS = 100, /* no file descriptor was left */
    STRANGERS_MAX = 32,
    ACCEPTS_A_TURN_MAX = 32,
    BACKLOG = 128,
    READ_BYTES_MAX = 1 << 20, /* of one peer a turn, so that the others have theirs */
    IOV_MAX_A_WRITE = 64,
    /* one in and one out a peer, the strangers, and as many again that are being closed in this turn */
    CONNECTIONS_MAX = 2 * (2 * RAFT_MEMBERS_MAX + STRANGERS_MAX),
    HELLO_FRAME_BYTES = PEER_FRAME_HEADER_BYTES + WIRE_HELLO_BYTES,
    REPLY_FRAME_BYTES = PEER_FRAME_HEADER_BYTES + WIRE_HELLO_REPLY_BYTES,
};

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_CONNECTING,
    CONNECTION_GREETING,
    CONNECTION_OUT,
    CONNECTION_STRANGER,
    CONNECTION_IN,
    CONNECTION_CLOSING,
};

struct tcp;

struct connection {
    uv_poll_t poll;
    struct tcp *tcp;
    enum connection_state state;
    int fd;
    int events;           /* polled for */
    unsigned slot;        /* but for a STRANGER */
    uint64_t deadline_ms; /* CONNECTING, GREETING, STRANGER */
    size_t filled;        /* of greeting */
    uint8_t greeting[REPLY_FRAME_BYTES];
};

struct peer {
    struct tcp *tcp;
    unsigned slot;
    char name[TRANSPORT_NAME_BYTES_MAX]; /* "" = nobody has this slot */
    char address[TRANSPORT_ADDRESS_BYTES_MAX];

    struct connection *out;
    uv_getaddrinfo_t resolving;
    bool is_resolving, resolving_stale; /* stale: for an address that is this peer's no more */
    uint32_t attempts;                  /* picks among the addresses of a host name */
    uint64_t dialled_ms, retry_ms;
    uint32_t backoff_ms;
    struct sendq *queue; /* NULL = the slot was never used: no memory yet */

    struct connection *in; /* NULL: what is in `receive` is all there will be */
    raft_member in_member; /* who the frames in `receive` are from */
    bool hung_up;          /* next() says so once `receive` holds no whole frame */
    struct receive receive;
    struct transport_peer_status status;
};

struct tcp {
    struct transport base;
    uv_loop_t *loop;
    struct transport_owner owner;
    struct transport_hello hello;
    unsigned self;
    uint64_t queued_bytes_max;
    struct peer peers[RAFT_MEMBERS_MAX];
    unsigned cursor;   /* next() looks here first */
    bool cursor_whole; /* what next() gave was a whole frame: consume lets it go */

    uv_poll_t listener;
    int listen_fd;
    uint64_t listen_paused_until_ms; /* 0 = it listens */
    uv_timer_t timer;
    struct connection connections[CONNECTIONS_MAX];
    unsigned stranger_count;
    uint64_t refused;
    struct random jitter;
    bool closing;
    unsigned handles; /* open handles and requests: the last one frees this */
};

static void poll_event(uv_poll_t *poll, int status, int events);
static void timer_arm(struct tcp *tcp);

/* --- addresses --- */

bool tcp_address_split(const char *address, char host[256], char port[8])
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL) return false;
    const char *from = address;
    size_t length = (size_t)(colon - address);
    if (*from == '[') {
        if (length < 3 || colon[-1] != ']') return false;
        from++;
        length -= 2;
    } else if (memchr(from, ':', length) != NULL) {
        return false; /* an IPv6 address without brackets: where the port begins is a guess */
    }
    size_t digits = strlen(colon + 1);
    if (length == 0 || length > 255 || digits == 0 || digits > 5) return false;
    if (strspn(colon + 1, "0123456789") != digits) return false;
    if (strtoul(colon + 1, NULL, 10) > 65535) return false;
    memcpy(host, from, length);
    host[length] = 0;
    memcpy(port, colon + 1, digits + 1);
    return true;
}

static void socket_tune(int fd)
{
    /* Failures here cost latency or the time until a dead host is noticed, never correctness: not checked. */
    const int on = 1, progress = PROGRESS_MS;
    const int idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &progress, sizeof progress);
}

/* --- connections: a fixed table --- */

static void handle_gone(struct tcp *tcp)
{
    lk_assert(tcp->handles > 0);
    if (--tcp->handles > 0 || !tcp->closing) return;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        sendq_close(tcp->peers[i].queue);
        receive_close(&tcp->peers[i].receive);
    }
    free(tcp);
}

static void connection_closed(uv_handle_t *handle)
{
    struct connection *c = handle->data;
    lk_assert(c->state == CONNECTION_CLOSING);
    c->state = CONNECTION_FREE;
    handle_gone(c->tcp);
}

/* Takes the fd over, also on failure (NULL): then it is closed. */
static struct connection *connection_open(struct tcp *tcp, int fd, enum connection_state state, int events)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &tcp->connections[i];
        if (c->state != CONNECTION_FREE) continue;
        if (uv_poll_init(tcp->loop, &c->poll, fd) != 0) break;
        c->poll.data = c;
        c->tcp = tcp;
        c->state = state;
        c->fd = fd;
        c->slot = 0;
        c->filled = 0;
        c->events = events;
        tcp->handles++;
        if (state == CONNECTION_STRANGER) tcp->stranger_count++;
        (void)uv_poll_start(&c->poll, events, poll_event);
        return c;
    }
    close(fd);
    return NULL;
}

static void connection_close(struct connection *c)
{
    lk_assert(c->state != CONNECTION_FREE);
    lk_assert(c->state != CONNECTION_CLOSING);
    if (c->state == CONNECTION_STRANGER) c->tcp->stranger_count--;
    c->state = CONNECTION_CLOSING;
    uv_close((uv_handle_t *)&c->poll, connection_closed); /* stops polling at once: the fd may go */
    close(c->fd);
    c->fd = -1;
}

static void connection_poll(struct connection *c, int events)
{
    if (c->events == events) return;
    c->events = events;
    if (events == 0)
        (void)uv_poll_stop(&c->poll);
    else
        (void)uv_poll_start(&c->poll, events, poll_event);
}

static int socket_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
    return error;
}

/* --- dialled connections --- */

static struct ring *the_ring(struct tcp *tcp)
{
    return tcp->owner.ring(tcp->owner.context);
}

static void wake(struct tcp *tcp)
{
    tcp->owner.wake(tcp->owner.context);
}

__attribute__((format(printf, 2, 3))) static void peer_reason(struct peer *peer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(peer->status.reason, sizeof peer->status.reason, format, arguments);
    va_end(arguments);
}

/* The time between attempts counts from their beginning, so that a cut link is tried once a second, however long each
 * attempt takes to fail. Jitter: half of it, so that nodes that lost each other together do not dial together. */
static void peer_retry_later(struct peer *peer)
{
    struct tcp *tcp = peer->tcp;
    peer->retry_ms = peer->dialled_ms + random_between(&tcp->jitter, peer->backoff_ms / 2, peer->backoff_ms);
    if (peer->retry_ms <= uv_now(tcp->loop)) peer->retry_ms = uv_now(tcp->loop) + 1;
    peer->backoff_ms = peer->backoff_ms * 2 > BACKOFF_MS_MAX ? BACKOFF_MS_MAX : peer->backoff_ms * 2;
    timer_arm(tcp);
}

/* Whether this slot's peer is to be dialled, now or when its time comes. */
static bool peer_dialled(const struct tcp *tcp, const struct peer *peer)
{
    return peer->slot != tcp->self && peer->name[0] != 0 && peer->address[0] != 0 && !peer->is_resolving;
}

/* The dialled connection is over, for the reason that stands in the status. */
static void peer_lost(struct peer *peer)
{
    struct tcp *tcp = peer->tcp;
    if (peer->out != NULL) {
        connection_close(peer->out);
        peer->out = NULL;
    }
    if (!sendq_empty(peer->queue)) sendq_clear(peer->queue, the_ring(tcp));
    if (peer->status.connected_out) wake(tcp);
    peer->status.connected_out = false;
    peer_retry_later(peer);
}

static void peer_connect(struct peer *peer, const struct sockaddr *address, socklen_t bytes)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        peer_reason(peer, "no socket: %s", strerror(errno));
        peer_lost(peer);
        return;
    }
    socket_tune(fd);
    if (connect(fd, address, bytes) != 0 && errno != EINPROGRESS) {
        peer_reason(peer, "cannot connect to %s: %s", peer->address, strerror(errno));
        close(fd);
        peer_lost(peer);
        return;
    }
    peer->out = connection_open(peer->tcp, fd, CONNECTION_CONNECTING, UV_WRITABLE);
    if (peer->out == NULL) {
        peer_reason(peer, "too many connections are being closed");
        peer_lost(peer);
        return;
    }
    peer->out->slot = peer->slot;
    peer->out->deadline_ms = uv_now(peer->tcp->loop) + CONNECT_MS;
    timer_arm(peer->tcp);
}

static void resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct peer *peer = request->data;
    struct tcp *tcp = peer->tcp;
    peer->is_resolving = false;
    if (peer->resolving_stale) {
        peer->resolving_stale = false;
        if (!tcp->closing) timer_arm(tcp);
    } else if (!tcp->closing && status == 0) {
        uint32_t count = 0;
        for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) count++;
        const struct addrinfo *a = found;
        for (uint32_t skip = peer->attempts++ % count; skip > 0; skip--) a = a->ai_next;
        peer_connect(peer, a->ai_addr, a->ai_addrlen);
    } else if (!tcp->closing) {
        peer_reason(peer, "cannot resolve %s: %s", peer->address, uv_strerror(status));
        peer_lost(peer);
    }
    uv_freeaddrinfo(found);
    handle_gone(tcp);
}

static void dial(struct peer *peer)
{
    struct tcp *tcp = peer->tcp;
    char host[256], port[8];
    lk_assert(peer->out == NULL);
    lk_assert(!peer->is_resolving);
    peer->dialled_ms = uv_now(tcp->loop);
    bool split = tcp_address_split(peer->address, host, port);
    lk_assert(split); /* tcp_open has checked it */

    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        peer_connect(peer, (const struct sockaddr *)&v4, sizeof v4);
    } else if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        peer_connect(peer, (const struct sockaddr *)&v6, sizeof v6);
    } else {
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
        peer->resolving.data = peer;
        int rc = uv_getaddrinfo(tcp->loop, &peer->resolving, resolved, host, port, &hints);
        if (rc != 0) {
            peer_reason(peer, "cannot resolve %s: %s", peer->address, uv_strerror(rc));
            peer_lost(peer);
            return;
        }
        peer->is_resolving = true;
        tcp->handles++;
    }
}

/* The socket is open: say who we are. A fresh socket's buffer takes a hello whole, or something is wrong with it. */
static void connected(struct peer *peer)
{
    int error = socket_error(peer->out->fd);
    if (error != 0) {
        peer_reason(peer, "cannot connect to %s: %s", peer->address, strerror(error));
        peer_lost(peer);
        return;
    }
    uint8_t frame[HELLO_FRAME_BYTES];
    wire_hello_write(&peer->tcp->hello, frame + PEER_FRAME_HEADER_BYTES);
    peer_frame_seal(frame, FRAME_HELLO, 0, WIRE_HELLO_BYTES, 0, 0);
    if (send(peer->out->fd, frame, sizeof frame, MSG_NOSIGNAL) != (ssize_t)sizeof frame) {
        peer_reason(peer, "cannot greet %s: %s", peer->address, strerror(errno));
        peer_lost(peer);
        return;
    }
    peer->status.sent_bytes += sizeof frame;
    peer->out->state = CONNECTION_GREETING;
    connection_poll(peer->out, UV_READABLE);
}

/* Read on in a greeting. 1: it is whole (header in *ret); 0: not yet; LOCKSTEP_ECLOSED, or framing is lost. */
static int greeting_read(struct connection *c, uint16_t type, size_t whole_bytes, struct peer_frame_header *ret)
{
    ssize_t got = recv(c->fd, c->greeting + c->filled, whole_bytes - c->filled, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return LOCKSTEP_ECLOSED;
    c->filled += (size_t)got;
    int rc = peer_frame_header_read(c->greeting, c->filled, ret);
    if (rc == LOCKSTEP_EINVAL) return c->filled < whole_bytes ? 0 : LOCKSTEP_EPROTO;
    if (rc != 0) return rc;
    if (ret->type != type || ret->bytes != whole_bytes || ret->fields_bytes != whole_bytes - PEER_FRAME_HEADER_BYTES)
        return LOCKSTEP_EPROTO;
    return 1;
}

static void greeted(struct peer *peer)
{
    struct tcp *tcp = peer->tcp;
    struct peer_frame_header header;
    struct wire_hello_reply reply = {0};
    char reason[TRANSPORT_REASON_BYTES_MAX] = "";
    unsigned slot = peer->slot;
    int rc = greeting_read(peer->out, FRAME_HELLO_REPLY, REPLY_FRAME_BYTES, &header);
    if (rc == 0) return;
    if (rc == 1) rc = wire_hello_reply_read(peer->out->greeting + PEER_FRAME_HEADER_BYTES, header.fields_bytes, &reply);
    if (rc == LOCKSTEP_ECLOSED) {
        peer_reason(peer, "%s closed the connection without an answer", peer->address);
    } else if (rc != 0) {
        peer_reason(peer, "%s does not speak lockstep's peer protocol", peer->address);
        tcp->refused++;
    } else if (!reply.accepted) {
        peer_reason(peer, "%s", reply.reason);
        peer->status.refused = reply.code;
        wake(tcp);
    } else if (strcmp(reply.hello.name, peer->name) != 0) {
        peer_reason(peer, "%s answers as node %s, not %s", peer->address, reply.hello.name, peer->name);
    } else if ((peer->status.refuses = tcp->owner.hello_check(tcp->owner.context, &slot, &reply.hello, reason)) != 0) {
        peer_reason(peer, "%s", reason);
        wake(tcp);
    } else {
        peer->out->state = CONNECTION_OUT;
        peer->status.connected_out = true;
        peer->status.member_id = reply.hello.member_id;
        peer->status.boot = reply.hello.boot;
        peer->status.refused = 0;
        peer->status.reason[0] = 0;
        peer->backoff_ms = BACKOFF_MS_MIN;
        wake(tcp);
        return;
    }
    peer_lost(peer);
}

/* Nothing flows back on a dialled connection after the reply: readable means that it ended. */
static void out_readable(struct peer *peer)
{
    uint8_t byte;
    ssize_t got = recv(peer->out->fd, &byte, 1, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0)
        peer_reason(peer, "%s sent on a connection that is not its own", peer->address);
    else if (got == 0)
        peer_reason(peer, "%s closed the connection", peer->address);
    else
        peer_reason(peer, "connection to %s lost: %s", peer->address, strerror(errno));
    peer_lost(peer);
}

/* Write what the socket takes. What it does not take waits for it to become writable. */
static void out_write(struct peer *peer)
{
    struct ring *ring = the_ring(peer->tcp);
    while (!sendq_empty(peer->queue)) {
        struct iovec iov[IOV_MAX_A_WRITE];
        size_t offered = 0;
        struct msghdr message = {.msg_iov = iov};
        message.msg_iovlen = sendq_peek(peer->queue, ring, iov, IOV_MAX_A_WRITE);
        for (size_t i = 0; i < message.msg_iovlen; i++) offered += iov[i].iov_len;
        ssize_t written = sendmsg(peer->out->fd, &message, MSG_NOSIGNAL);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && errno != EAGAIN && errno != ENOBUFS) {
            peer_reason(peer, "connection to %s lost: %s", peer->address, strerror(errno));
            peer_lost(peer);
            return;
        }
        if (written > 0) {
            sendq_written(peer->queue, ring, (size_t)written);
            peer->status.sent_bytes += (uint64_t)written;
        }
        if (written < 0 || (size_t)written < offered) break;
    }
    connection_poll(peer->out, sendq_empty(peer->queue) ? UV_READABLE : UV_READABLE | UV_WRITABLE);
}

/* --- accepted connections --- */

static void stranger_refuse(struct connection *c)
{
    c->tcp->refused++;
    connection_close(c);
}

/* Room for one more: the oldest stranger goes. A member says hello at once, so it is never the oldest for long. */
static void strangers_crowd_out(struct tcp *tcp)
{
    struct connection *oldest = NULL;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &tcp->connections[i];
        if (c->state != CONNECTION_STRANGER) continue;
        if (oldest == NULL || c->deadline_ms < oldest->deadline_ms) oldest = c;
    }
    lk_assert(oldest != NULL);
    stranger_refuse(oldest);
}

static void accept_all(struct tcp *tcp)
{
    for (unsigned i = 0; i < ACCEPTS_A_TURN_MAX; i++) {
        int fd = accept4(tcp->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == ECONNABORTED || errno == EINTR) continue;
            if (errno != EAGAIN) { /* no file descriptors, no memory: level-triggered, it would spin */
                (void)uv_poll_stop(&tcp->listener);
                tcp->listen_paused_until_ms = uv_now(tcp->loop) + LISTEN_PAUSE_MS;
                timer_arm(tcp);
            }
            return;
        }
        socket_tune(fd);
        if (tcp->stranger_count == STRANGERS_MAX) strangers_crowd_out(tcp);
        struct connection *c = connection_open(tcp, fd, CONNECTION_STRANGER, UV_READABLE);
        if (c == NULL) {
            tcp->refused++;
            return; /* all are closing: they are free when this turn ends */
        }
        c->deadline_ms = uv_now(tcp->loop) + HELLO_MS;
        timer_arm(tcp);
    }
}

/* No more bytes will come from this peer. Whole frames that are here already stay: a last word counts. */
static void in_lost(struct peer *peer)
{
    connection_close(peer->in);
    peer->in = NULL;
    peer->status.connected_in = false;
    wake(peer->tcp);
}

/* The other side ended it. */
static void in_hung_up(struct peer *peer)
{
    peer->hung_up = true;
    in_lost(peer);
}

static void stranger_hello(struct connection *c)
{
    struct tcp *tcp = c->tcp;
    struct peer_frame_header header;
    struct transport_hello hello;
    int rc = greeting_read(c, FRAME_HELLO, HELLO_FRAME_BYTES, &header);
    if (rc == 0) return;
    if (rc == 1) rc = wire_hello_read(c->greeting + PEER_FRAME_HEADER_BYTES, header.fields_bytes, &hello);
    if (rc != 0) {
        stranger_refuse(c);
        return;
    }
    struct wire_hello_reply reply = {.hello = tcp->hello};
    unsigned slot = RAFT_MEMBERS_MAX;
    reply.code = tcp->owner.hello_check(tcp->owner.context, &slot, &hello, reply.reason);
    reply.accepted = reply.code == 0;
    lk_assert(!reply.accepted || (slot < RAFT_MEMBERS_MAX && slot != tcp->self));
    lk_assert(!reply.accepted || tcp->peers[slot].name[0] != 0); /* the owner accepts whom it gave a slot */
    uint8_t frame[REPLY_FRAME_BYTES];
    wire_hello_reply_write(&reply, frame + PEER_FRAME_HEADER_BYTES);
    peer_frame_seal(frame, FRAME_HELLO_REPLY, 0, WIRE_HELLO_REPLY_BYTES, 0, 0);
    bool answered = send(c->fd, frame, sizeof frame, MSG_NOSIGNAL) == (ssize_t)sizeof frame;
    if (!reply.accepted || !answered) {
        stranger_refuse(c);
        return;
    }
    struct peer *peer = &tcp->peers[slot];
    if (peer->in != NULL) in_lost(peer); /* the newer one is the living one */
    tcp->stranger_count--;
    c->state = CONNECTION_IN;
    c->slot = slot;
    peer->in = c;
    peer->in_member = hello.member_id;
    peer->hung_up = false;
    receive_reset(&peer->receive);
    peer->status.connected_in = true;
    peer->status.member_id = hello.member_id;
    peer->status.boot = hello.boot;
    peer->status.received_bytes += HELLO_FRAME_BYTES;
    if (peer_dialled(tcp, peer) && peer->out == NULL) { /* it lives: do not wait for the back-off to end */
        peer->backoff_ms = BACKOFF_MS_MIN;
        peer->retry_ms = uv_now(tcp->loop);
        timer_arm(tcp);
    }
    wake(tcp);
}

static void in_readable(struct peer *peer)
{
    size_t room;
    uint8_t *at = receive_room(&peer->receive, &room);
    if (room == 0) { /* frames wait to be consumed: the socket is not read meanwhile */
        connection_poll(peer->in, 0);
        return;
    }
    ssize_t got = recv(peer->in->fd, at, room < READ_BYTES_MAX ? room : READ_BYTES_MAX, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        in_hung_up(peer);
        return;
    }
    receive_filled(&peer->receive, (size_t)got);
    peer->status.received_bytes += (uint64_t)got;
    wake(peer->tcp);
}

/* --- events --- */

static void poll_event(uv_poll_t *poll, int status, int events)
{
    struct connection *c = poll->data;
    struct peer *peer = &c->tcp->peers[c->slot];
    /* An error stops the polling; the socket calls below find out which one it was. */
    if (status != 0) events = UV_READABLE;
    switch (c->state) {
    case CONNECTION_CONNECTING: connected(peer); break;
    case CONNECTION_GREETING: greeted(peer); break;
    case CONNECTION_OUT:
        if (events & UV_READABLE) out_readable(peer);
        if ((events & UV_WRITABLE) && peer->out == c) out_write(peer);
        break;
    case CONNECTION_STRANGER: stranger_hello(c); break;
    case CONNECTION_IN: in_readable(peer); break;
    default: lk_unreachable();
    }
    if (status == 0 || c->state == CONNECTION_CLOSING) return;
    peer = &c->tcp->peers[c->slot]; /* a stranger has its slot since its hello */
    /* Polling has stopped and the socket knows of no error: it cannot be served any more. */
    if (c->state == CONNECTION_STRANGER) {
        stranger_refuse(c);
    } else if (c->state == CONNECTION_IN) {
        in_hung_up(peer);
    } else {
        peer_reason(peer, "connection to %s failed", peer->address);
        peer_lost(peer);
    }
}

static void listener_event(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    accept_all(poll->data);
}

static void tick(uv_timer_t *timer)
{
    struct tcp *tcp = timer->data;
    uint64_t now = uv_now(tcp->loop);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct peer *peer = &tcp->peers[i];
        if (!peer_dialled(tcp, peer)) continue;
        if (peer->out == NULL) {
            if (now >= peer->retry_ms) dial(peer);
        } else if (peer->out->state != CONNECTION_OUT && now >= peer->out->deadline_ms) {
            peer_reason(peer, "%s does not answer", peer->address);
            peer_lost(peer);
        }
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &tcp->connections[i];
        if (c->state == CONNECTION_STRANGER && now >= c->deadline_ms) stranger_refuse(c);
    }
    if (tcp->listen_paused_until_ms != 0 && now >= tcp->listen_paused_until_ms) {
        tcp->listen_paused_until_ms = 0;
        (void)uv_poll_start(&tcp->listener, UV_READABLE, listener_event);
    }
    timer_arm(tcp);
}

/* One timer for everything that has an end: armed for the earliest. */
static void timer_arm(struct tcp *tcp)
{
    uint64_t due = UINT64_MAX, now = uv_now(tcp->loop);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        const struct peer *peer = &tcp->peers[i];
        if (!peer_dialled(tcp, peer)) continue;
        uint64_t at = UINT64_MAX;
        if (peer->out == NULL)
            at = peer->retry_ms;
        else if (peer->out->state != CONNECTION_OUT)
            at = peer->out->deadline_ms;
        if (at < due) due = at;
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX && tcp->stranger_count > 0; i++) {
        const struct connection *c = &tcp->connections[i];
        if (c->state == CONNECTION_STRANGER && c->deadline_ms < due) due = c->deadline_ms;
    }
    if (tcp->listen_paused_until_ms != 0 && tcp->listen_paused_until_ms < due) due = tcp->listen_paused_until_ms;
    if (due == UINT64_MAX)
        (void)uv_timer_stop(&tcp->timer);
    else
        (void)uv_timer_start(&tcp->timer, tick, due > now ? due - now : 0, 0);
}

/* --- transport_ops --- */

static struct tcp *tcp_of(struct transport *t)
{
    return (struct tcp *)t; /* base is the first member */
}

static struct peer *peer_of(struct transport *t, unsigned slot)
{
    struct tcp *tcp = tcp_of(t);
    lk_assert(slot < RAFT_MEMBERS_MAX);
    lk_assert(slot != tcp->self);
    return &tcp->peers[slot];
}

static int op_send(struct transport *t, const struct transport_send *send)
{
    struct peer *peer = peer_of(t, send->slot);
    lk_assert(send->type >= FRAME_RAFT && send->type < FRAME_TYPES);
    if (!peer->status.connected_out) return LOCKSTEP_EUNREACHABLE;
    int rc = sendq_put(peer->queue, send->ring_bytes > 0 ? the_ring(peer->tcp) : NULL, send);
    if (rc != 0) peer->status.frames_dropped++;
    return rc;
}

static uint64_t op_queued_bytes(struct transport *t, unsigned slot)
{
    struct peer *peer = peer_of(t, slot);
    return peer->queue != NULL ? sendq_blocks_queued_bytes(peer->queue) : 0;
}

static bool op_blocks_idle(struct transport *t, unsigned slot)
{
    struct peer *peer = peer_of(t, slot);
    return peer->queue == NULL || sendq_memory_idle(peer->queue);
}

static bool op_next(struct transport *t, struct transport_frame *ret)
{
    struct tcp *tcp = tcp_of(t);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        unsigned slot = (tcp->cursor + i) % RAFT_MEMBERS_MAX;
        struct peer *peer = &tcp->peers[slot];
        if (peer->name[0] == 0 || slot == tcp->self) continue;
        int rc = receive_next(&peer->receive, ret);
        if (rc < 0) {
            tcp->refused++;
            receive_reset(&peer->receive);
            if (peer->in != NULL) in_lost(peer);
        }
        if (rc != 1) {
            if (!peer->hung_up) continue;
            peer->hung_up = false;
            *ret = (struct transport_frame){.type = FRAME_HANGUP};
        }
        ret->slot = slot;
        ret->member_id = peer->in_member;
        tcp->cursor = slot;
        tcp->cursor_whole = ret->type != FRAME_HANGUP && !ret->partial;
        return true;
    }
    return false;
}

static void op_consume(struct transport *t)
{
    struct tcp *tcp = tcp_of(t);
    struct peer *peer = &tcp->peers[tcp->cursor];
    if (tcp->cursor_whole) receive_consume(&peer->receive);
    tcp->cursor = (tcp->cursor + 1) % RAFT_MEMBERS_MAX;
    if (peer->in != NULL && receive_has_room(&peer->receive)) connection_poll(peer->in, UV_READABLE);
}

static void op_flush(struct transport *t)
{
    struct tcp *tcp = tcp_of(t);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct peer *peer = &tcp->peers[i];
        if (!peer->status.connected_out || sendq_empty(peer->queue)) continue;
        if (peer->out->events & UV_WRITABLE) continue; /* the socket is full and will call */
        out_write(peer);
    }
}

/* Memory for a slot that is used for the first time. It stays: whoever has the slot next takes it over. */
static int peer_memory(struct peer *peer)
{
    if (peer->queue != NULL) return 0;
    struct sendq *queue = NULL;
    int rc = sendq_open(RING_PIN_PEER + peer->slot, peer->tcp->queued_bytes_max, &queue);
    if (rc == 0) rc = receive_open(&peer->receive);
    if (rc != 0) {
        sendq_close(queue);
        return rc;
    }
    peer->queue = queue;
    return 0;
}

static int op_peer_set(struct transport *t, unsigned slot, const char *name, const char *address)
{
    struct tcp *tcp = tcp_of(t);
    struct peer *peer = peer_of(t, slot);
    char host[256], port[8];
    if (strcmp(peer->name, name) == 0 && strcmp(peer->address, address) == 0) return 0;
    if (strlen(name) >= sizeof peer->name || strlen(address) >= sizeof peer->address) return LOCKSTEP_EINVAL;
    if (address[0] != 0 && !tcp_address_split(address, host, port)) return LOCKSTEP_EINVAL;
    int rc = name[0] != 0 ? peer_memory(peer) : 0;
    if (rc != 0) return rc;
    if (peer->in != NULL) in_lost(peer);
    if (peer->out != NULL) peer_lost(peer);
    if (peer->queue != NULL) receive_reset(&peer->receive);
    if (peer->is_resolving) {
        peer->resolving_stale = true;
        (void)uv_cancel((uv_req_t *)&peer->resolving);
    }
    peer->hung_up = false;
    peer->backoff_ms = BACKOFF_MS_MIN;
    peer->retry_ms = uv_now(tcp->loop);
    peer->status = (struct transport_peer_status){0};
    (void)snprintf(peer->name, sizeof peer->name, "%s", name);
    (void)snprintf(peer->address, sizeof peer->address, "%s", address);
    peer_reason(peer, "%s", address[0] != 0 ? "not yet dialled" : "");
    timer_arm(tcp);
    return 0;
}

static void op_hello_set(struct transport *t, const struct transport_hello *hello)
{
    struct tcp *tcp = tcp_of(t);
    bool other = tcp->hello.cluster_id != hello->cluster_id || tcp->hello.member_id != hello->member_id;
    tcp->hello = *hello;
    for (unsigned i = 0; other && i < RAFT_MEMBERS_MAX; i++) {
        struct peer *peer = &tcp->peers[i];
        if (peer->out == NULL) continue;
        peer_reason(peer, "greeting it anew");
        peer->backoff_ms = BACKOFF_MS_MIN;
        peer_lost(peer);
        peer->retry_ms = uv_now(tcp->loop);
        timer_arm(tcp);
    }
}

static void op_peer_status(struct transport *t, unsigned slot, struct transport_peer_status *ret)
{
    *ret = peer_of(t, slot)->status;
}

static uint64_t op_frames_refused(struct transport *t)
{
    return tcp_of(t)->refused;
}

static void handle_closed(uv_handle_t *handle)
{
    handle_gone(handle->data);
}

static void op_close(struct transport *t)
{
    struct tcp *tcp = tcp_of(t);
    lk_assert(!tcp->closing);
    tcp->closing = true;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &tcp->connections[i];
        if (c->state != CONNECTION_FREE && c->state != CONNECTION_CLOSING) connection_close(c);
    }
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        if (tcp->peers[i].is_resolving) (void)uv_cancel((uv_req_t *)&tcp->peers[i].resolving);
    uv_close((uv_handle_t *)&tcp->listener, handle_closed);
    close(tcp->listen_fd);
    uv_close((uv_handle_t *)&tcp->timer, handle_closed);
}

static const struct transport_ops tcp_ops = {
    .send = op_send,
    .queued_bytes = op_queued_bytes,
    .blocks_idle = op_blocks_idle,
    .next = op_next,
    .consume = op_consume,
    .flush = op_flush,
    .peer_set = op_peer_set,
    .hello_set = op_hello_set,
    .peer_status = op_peer_status,
    .frames_refused = op_frames_refused,
    .close = op_close,
};

/* --- open --- */

/* The bound and listening socket, or an error with why. */
static int listen_on(const char *address, int *ret, char *why, size_t why_room)
{
    char host[256], port[8];
    struct addrinfo *found = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    const int on = 1;
    int fd = -1;
    int rc = LOCKSTEP_EINVAL;
    if (!tcp_address_split(address, host, port)) {
        (void)snprintf(why, why_room, "peer address %s: not HOST:PORT; write it like 127.0.0.1:7501", address);
        return LOCKSTEP_EINVAL;
    }
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) {
        (void)snprintf(why, why_room,
                       "peer address %s: cannot resolve it: %s; write listen_peer with an address of this host",
                       address, gai_strerror(error));
        return LOCKSTEP_EINVAL;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) goto fail;
    /* A restarted node takes its port again though old connections are still in TIME_WAIT. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0) goto fail;
    if (listen(fd, BACKLOG) != 0) goto fail;
    freeaddrinfo(found);
    *ret = fd;
    return 0;
fail:
    rc = errno == EADDRINUSE ? LOCKSTEP_EEXIST : LOCKSTEP_EIO;
    (void)snprintf(why, why_room, "peer address %s: cannot listen: %s; %s", address, strerror(errno),
                   errno == EADDRINUSE ? "end the process that has it, or give this node another port"
                                       : "write listen_peer with an address of this host");
    if (fd >= 0) close(fd);
    freeaddrinfo(found);
    return rc;
}

int tcp_open(const struct tcp_options *options, struct transport **ret, char *why, size_t why_room)
{
    lk_assert(options->peer_count <= RAFT_MEMBERS_MAX);
    lk_assert(options->self < options->peer_count);
    char host[256], port[8];
    for (unsigned i = 0; i < options->peer_count; i++) {
        if (options->peers[i].address[0] == 0 || tcp_address_split(options->peers[i].address, host, port)) continue;
        (void)snprintf(why, why_room, "peer address %s of node %s: not HOST:PORT; write it like 127.0.0.1:7501",
                       options->peers[i].address, options->peers[i].name);
        return LOCKSTEP_EINVAL;
    }
    struct tcp *tcp = calloc(1, sizeof *tcp);
    if (tcp == NULL) goto no_memory;
    tcp->base.ops = &tcp_ops;
    tcp->loop = options->loop;
    tcp->owner = options->owner;
    tcp->hello = options->hello;
    tcp->self = options->self;
    tcp->queued_bytes_max = options->queued_bytes_max;
    random_seed(&tcp->jitter, uv_hrtime());
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct peer *peer = &tcp->peers[i];
        peer->tcp = tcp;
        peer->slot = i;
        peer->backoff_ms = BACKOFF_MS_MIN;
        peer->retry_ms = uv_now(tcp->loop);
        if (i >= options->peer_count || options->peers[i].name[0] == 0) continue;
        (void)snprintf(peer->name, sizeof peer->name, "%s", options->peers[i].name);
        (void)snprintf(peer->address, sizeof peer->address, "%s", options->peers[i].address);
        peer_reason(peer, "not yet dialled");
        if (i != tcp->self && peer_memory(peer) != 0) goto no_memory;
    }
    int rc = listen_on(options->listen, &tcp->listen_fd, why, why_room);
    if (rc != 0) goto fail;
    /* From here on nothing fails: handles would have to be closed through the loop. */
    rc = uv_poll_init(tcp->loop, &tcp->listener, tcp->listen_fd);
    lk_assert(rc == 0);
    tcp->listener.data = tcp;
    (void)uv_poll_start(&tcp->listener, UV_READABLE, listener_event);
    rc = uv_timer_init(tcp->loop, &tcp->timer);
    lk_assert(rc == 0);
    tcp->timer.data = tcp;
    tcp->handles = 2;
    timer_arm(tcp);
    *ret = &tcp->base;
    return 0;
no_memory:
    rc = LOCKSTEP_ENOMEM;
    (void)snprintf(why, why_room, "peers: out of memory");
fail:
    for (unsigned i = 0; tcp != NULL && i < RAFT_MEMBERS_MAX; i++) {
        sendq_close(tcp->peers[i].queue);
        receive_close(&tcp->peers[i].receive);
    }
    free(tcp);
    return rc;
}
