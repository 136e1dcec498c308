/* SPDX-License-Identifier: Apache-2.0 */
/* local_unix.c - processes of this host over Unix sockets. Thread: loop. Owns: the listener, every connection.
 *
 *   dialled                                        accepted
 *   FREE -> GREETING [dial: connected, HELLO]      FREE -> STRANGER    [accept_all: same user]
 *   GREETING -> OPEN [greeted: granted]            STRANGER -> OPEN    [stranger_hello: judged, answered]
 *   any -> CLOSING -> FREE  [refused, slow, garbage, hung up, ended by the owner]
 *
 * A connection of the face is a place in the table that is not CLOSING; a place is used again only when its handle is
 * closed, so the face's numbers are an index of their own (`number`).
 *
 * Why a bell is a packet and not an eventfd: an eventfd is one open file for both processes. Whoever has it can clear
 * O_NONBLOCK on it and fill the counter, and then our write blocks for ever; or empty it, and our read does. MSG_DONTWAIT is
 * of the call alone: nothing that the other side does to its socket makes ours wait (S6). Who does not read its bells gets
 * no more of them; one that is on its way is enough.
 * Bounded: LOCAL_STRANGERS_MAX that have HELLO_MS each, BELLS_MAX bells at once, one other packet a turn.
 * Source: unix(7): abstract names, SO_PEERCRED, SCM_RIGHTS. */
#include "transport/local_unix.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fds.h"
#include "lockstep/errors.h"
#include "proto/local_dial.h"

enum {
    HELLO_MS = 2000,       /* for a stranger's hello, and for the answer to ours */
    LATE_MS = 100,         /* for the end of that: whoever is later had no time to look either */
    LISTEN_PAUSE_MS = 100, /* no file descriptor was left */
    ACCEPTS_A_TURN_MAX = 16,
    BELLS_MAX = 64,   /* that lie there at once: one has a sense */
    BELLS_QUICK = 16, /* in a millisecond, before anybody looks how many there are */
    BACKLOG = 64,
    PLACES_MAX = 2 * LOCAL_CONNECTIONS_MAX, /* as many again that are being closed in this turn */
};

enum place_state { PLACE_FREE, PLACE_GREETING, PLACE_STRANGER, PLACE_OPEN, PLACE_CLOSING };

struct unix_link;

struct place {
    uv_poll_t poll;
    struct unix_link *link;
    enum place_state state;
    int fd;
    unsigned number;      /* of the connection, as the face knows it */
    uint64_t deadline_ms; /* GREETING, STRANGER */
    uint64_t bell_ms;     /* when the newest bells came, and how many did in that millisecond */
    unsigned bells;
};

struct unix_link {
    struct local_link base;
    uv_loop_t *loop;
    struct local_link_owner owner;
    uv_poll_t *listener; /* of its own memory: another name may be listened on while it closes. NULL = not listening */
    int listen_fd;
    uint64_t listen_paused_until_ms; /* 0 = it listens */
    uv_timer_t timer;
    struct place places[PLACES_MAX];
    struct place *numbers[LOCAL_CONNECTIONS_MAX];
    unsigned stranger_count;
    uint64_t refused;
    bool closing;
    unsigned handles; /* open ones: the last frees this */
    uint8_t packet[LOCAL_ANSWER_BYTES_MAX];
};

static void timer_arm(struct unix_link *link);
static void place_event(uv_poll_t *poll, int status, int events);

/* --- places ------------------------------------------------------------------------------------------------------- */

static void handle_gone(struct unix_link *link)
{
    lk_assert(link->handles > 0);
    if (--link->handles == 0 && link->closing) free(link);
}

static void place_closed(uv_handle_t *handle)
{
    struct place *place = handle->data;
    lk_assert(place->state == PLACE_CLOSING);
    place->state = PLACE_FREE;
    handle_gone(place->link);
}

/* Takes the fd over, also on failure (NULL): then it is closed. */
static struct place *place_open(struct unix_link *link, int fd, enum place_state state)
{
    unsigned number = 0;
    while (number < LOCAL_CONNECTIONS_MAX && link->numbers[number] != NULL) number++;
    for (unsigned i = 0; i < PLACES_MAX && number < LOCAL_CONNECTIONS_MAX; i++) {
        struct place *place = &link->places[i];
        if (place->state != PLACE_FREE) continue;
        if (uv_poll_init(link->loop, &place->poll, fd) != 0) break;
        place->poll.data = place;
        place->link = link;
        place->state = state;
        place->fd = fd;
        place->number = number;
        place->bells = 0;
        place->deadline_ms = uv_now(link->loop) + HELLO_MS;
        link->numbers[number] = place;
        link->handles++;
        if (state == PLACE_STRANGER) link->stranger_count++;
        (void)uv_poll_start(&place->poll, UV_READABLE, place_event);
        timer_arm(link);
        return place;
    }
    close(fd);
    return NULL;
}

static void place_close(struct place *place)
{
    lk_assert(place->state != PLACE_FREE && place->state != PLACE_CLOSING);
    struct unix_link *link = place->link;
    if (place->state == PLACE_STRANGER) link->stranger_count--;
    place->state = PLACE_CLOSING;
    link->numbers[place->number] = NULL;
    uv_close((uv_handle_t *)&place->poll, place_closed); /* stops polling at once: the fd may go */
    close(place->fd);
    place->fd = -1;
}

/* For a reason that is the other side's. */
static void place_lost(struct place *place, const char *why)
{
    struct unix_link *link = place->link;
    unsigned number = place->number;
    bool known = place->state != PLACE_STRANGER; /* of a stranger the owner has never heard */
    place_close(place);
    if (!known) {
        link->refused++;
        return;
    }
    link->owner.ended(link->owner.context, number, why);
    link->owner.wake(link->owner.context);
}

/* --- dialled ------------------------------------------------------------------------------------------------------ */

static struct unix_link *link_of(struct local_link *link)
{
    return (struct unix_link *)link; /* base is the first member */
}

static int op_dial(struct local_link *base, const struct local_hello *hello, unsigned *ret_connection)
{
    struct unix_link *link = link_of(base);
    int fd, rc = local_dial(hello, &fd);
    if (rc == LOCKSTEP_EFOREIGN) link->refused++;
    if (rc != 0) return rc == LOCKSTEP_ENOMEM ? LOCKSTEP_EFULL : LOCKSTEP_EUNREACHABLE;
    struct place *place = place_open(link, fd, PLACE_GREETING);
    if (place == NULL) return LOCKSTEP_EFULL;
    *ret_connection = place->number;
    return 0;
}

/* Why there is no grant, for people. */
static const char *greeting_text(int rc, const struct local_reply *reply)
{
    switch (rc) {
    case 0: return reply->why;
    case LOCKSTEP_ECLOSED: return "it closed the connection without an answer";
    case LOCKSTEP_EVERSION: return "it speaks another version of the local protocol";
    case LOCKSTEP_ENOMEM: return "no descriptor is free here for its memory; raise the limit of open files (ulimit -n)";
    default: return "it does not speak the local protocol";
    }
}

static void greeted(struct place *place)
{
    struct unix_link *link = place->link;
    struct local_reply reply;
    int fds[LOCAL_FDS];
    int rc = local_greeted(place->fd, &reply, fds);
    if (rc == LOCKSTEP_EUNAVAILABLE) return;
    if (rc != 0 || reply.error != 0) {
        if (rc == LOCKSTEP_EVERSION || rc == LOCKSTEP_EPROTO) link->refused++;
        place_lost(place, greeting_text(rc, &reply));
        return;
    }
    const struct local_grant grant = {.ring_fd = fds[0], .slot_fd = fds[1]};
    place->state = PLACE_OPEN;
    if (link->owner.granted(link->owner.context, place->number, &reply, &grant) != 0) {
        link->refused++;
        place_close(place);
    }
    link->owner.wake(link->owner.context);
}

/* --- accepted ----------------------------------------------------------------------------------------------------- */

static void strangers_crowd_out(struct unix_link *link)
{
    struct place *oldest = NULL;
    for (unsigned i = 0; i < PLACES_MAX; i++) {
        struct place *place = &link->places[i];
        if (place->state != PLACE_STRANGER) continue;
        if (oldest == NULL || place->deadline_ms < oldest->deadline_ms) oldest = place;
    }
    lk_assert(oldest != NULL);
    place_lost(oldest, "");
}

static void accept_all(struct unix_link *link)
{
    for (unsigned i = 0; i < ACCEPTS_A_TURN_MAX; i++) {
        int fd = accept4(link->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == ECONNABORTED || errno == EINTR) continue;
            if (errno != EAGAIN) { /* no file descriptors, no memory: level-triggered, it would spin */
                (void)uv_poll_stop(link->listener);
                link->listen_paused_until_ms = uv_now(link->loop) + LISTEN_PAUSE_MS;
                timer_arm(link);
            }
            return;
        }
        if (!fds_is_same_user(fd)) {
            link->refused++;
            close(fd);
            continue;
        }
        if (link->stranger_count == LOCAL_STRANGERS_MAX) strangers_crowd_out(link);
        if (place_open(link, fd, PLACE_STRANGER) == NULL) link->refused++;
    }
}

static void stranger_hello(struct place *place)
{
    struct unix_link *link = place->link;
    uint8_t packet[LOCAL_REPLY_BYTES];
    struct local_hello hello;
    struct local_reply reply = {0};
    struct local_grant grant = {.ring_fd = -1, .slot_fd = -1};
    ssize_t got = fds_receive(place->fd, packet, sizeof packet, NULL, 0);
    if (got == LOCKSTEP_EUNAVAILABLE) return;
    int rc = got < 0 ? (int)got : local_hello_read(packet, (size_t)got, &hello);
    if (rc == LOCKSTEP_EVERSION)
        (void)snprintf(reply.why, sizeof reply.why, "this node speaks version %d of the local protocol",
                       LOCAL_PACKET_VERSION);
    if (rc == 0) {
        rc = link->owner.judge(link->owner.context, place->number, &hello, &reply, &grant);
        if (rc == 0) { /* it is the owner's from here on */
            place->state = PLACE_OPEN;
            link->stranger_count--;
        }
    }
    if (got < 0) {
        place_lost(place, "");
        return;
    }
    reply.error = rc;
    local_reply_write(&reply, packet);
    const int fds[LOCAL_FDS] = {grant.ring_fd, grant.slot_fd};
    int sent = fds_send(place->fd, packet, sizeof packet, fds, rc == 0 ? LOCAL_FDS : 0);
    if (rc != 0 || sent != 0)
        place_lost(place, "it did not take the answer");
    else
        link->owner.wake(link->owner.context);
}

/* --- open --------------------------------------------------------------------------------------------------------- */

/* One packet an event: where a bell came, there is no other one, as a rule, and no need to ask. 0: there is none, 1: a bell. */
static int open_packet(struct place *place)
{
    struct unix_link *link = place->link;
    ssize_t got = fds_receive(place->fd, link->packet, sizeof link->packet, NULL, 0);
    if (got == LOCKSTEP_EUNAVAILABLE) return 0;
    if (got == 1 && link->packet[0] == LOCAL_BELL) return 1;
    if (got == LOCKSTEP_ECLOSED) {
        place_lost(place, "it closed the connection");
    } else if (got < 0) {
        link->refused++;
        place_lost(place, "it broke the local protocol");
    } else if (link->owner.packet(link->owner.context, place->number, link->packet, (size_t)got) != 0) {
        link->refused++;
        place_lost(place, "it sent what nobody understands");
    }
    return -1;
}

static void open_readable(struct place *place)
{
    struct unix_link *link = place->link;
    int got = open_packet(place);
    if (got == 0) return;
    link->owner.wake(link->owner.context);
    if (got < 0) return;
    uint64_t now = uv_now(link->loop);
    if (place->bell_ms != now) {
        place->bell_ms = now;
        place->bells = 0;
    }
    if (++place->bells < BELLS_QUICK) return;
    for (unsigned bells = 0; bells < BELLS_MAX; bells++)
        if (open_packet(place) != 1) return;
    link->refused++;
    place_lost(place, "it rings without end");
}

static void place_event(uv_poll_t *poll, int status, int events)
{
    struct place *place = poll->data;
    (void)events;
    switch (place->state) {
    case PLACE_GREETING: greeted(place); break;
    case PLACE_STRANGER: stranger_hello(place); break;
    case PLACE_OPEN: open_readable(place); break;
    default: lk_unreachable();
    }
    /* Polling has stopped: where the calls above saw no error, it cannot be served any more all the same. */
    if (status != 0 && place->state != PLACE_CLOSING) place_lost(place, "its connection failed");
}

static void listener_event(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    accept_all(poll->data);
}

static void tick(uv_timer_t *timer)
{
    struct unix_link *link = timer->data;
    uint64_t now = uv_now(link->loop);
    for (unsigned i = 0; i < PLACES_MAX; i++) {
        struct place *place = &link->places[i];
        bool waits = place->state == PLACE_GREETING || place->state == PLACE_STRANGER;
        if (!waits || now < place->deadline_ms) continue;
        if (now < place->deadline_ms + LATE_MS)
            place_lost(place, "it does not answer");
        else
            place->deadline_ms = now + HELLO_MS; /* this process stood still, and its host perhaps */
    }
    if (link->listen_paused_until_ms != 0 && now >= link->listen_paused_until_ms) {
        link->listen_paused_until_ms = 0;
        if (link->listener != NULL) (void)uv_poll_start(link->listener, UV_READABLE, listener_event);
    }
    timer_arm(link);
}

/* One timer for everything that has an end: armed for the earliest. */
static void timer_arm(struct unix_link *link)
{
    uint64_t due = UINT64_MAX, now = uv_now(link->loop);
    for (unsigned i = 0; i < PLACES_MAX; i++) {
        const struct place *place = &link->places[i];
        bool waits = place->state == PLACE_GREETING || place->state == PLACE_STRANGER;
        if (waits && place->deadline_ms < due) due = place->deadline_ms;
    }
    if (link->listen_paused_until_ms != 0 && link->listen_paused_until_ms < due) due = link->listen_paused_until_ms;
    if (due == UINT64_MAX)
        (void)uv_timer_stop(&link->timer);
    else
        (void)uv_timer_start(&link->timer, tick, due > now ? due - now : 0, 0);
}

/* --- local_link_ops ----------------------------------------------------------------------------------------------- */

static void op_attach(struct local_link *base, const struct local_link_owner *owner)
{
    link_of(base)->owner = *owner;
}

static void listener_closed(uv_handle_t *handle)
{
    struct unix_link *link = handle->data;
    free(handle);
    handle_gone(link);
}

static void listener_close(struct unix_link *link)
{
    if (link->listener == NULL) return;
    uv_close((uv_handle_t *)link->listener, listener_closed);
    close(link->listen_fd);
    link->listener = NULL;
    link->listen_paused_until_ms = 0;
}

static int op_listen(struct local_link *base, uint64_t cluster_id, raft_member member_id)
{
    struct unix_link *link = link_of(base);
    struct sockaddr_un address;
    listener_close(link);
    if (cluster_id == 0) return 0;
    socklen_t bytes = local_address(cluster_id, member_id, &address);
    int rc = LOCKSTEP_EIO;
    uv_poll_t *listener = malloc(sizeof *listener);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || listener == NULL) goto fail;
    if (bind(fd, (const struct sockaddr *)&address, bytes) != 0) {
        rc = errno == EADDRINUSE ? LOCKSTEP_EEXIST : LOCKSTEP_EIO;
        goto fail;
    }
    if (listen(fd, BACKLOG) != 0 || uv_poll_init(link->loop, listener, fd) != 0) goto fail;
    listener->data = link;
    link->handles++;
    link->listener = listener;
    link->listen_fd = fd;
    (void)uv_poll_start(listener, UV_READABLE, listener_event);
    return 0;
fail:
    if (fd >= 0) close(fd);
    free(listener);
    return rc;
}

static struct place *place_of(struct local_link *base, unsigned connection)
{
    lk_assert(connection < LOCAL_CONNECTIONS_MAX);
    struct place *place = link_of(base)->numbers[connection];
    lk_assert(place != NULL);
    return place;
}

static bool op_bell(struct local_link *base, unsigned connection)
{
    static const uint8_t bell = LOCAL_BELL;
    /* Full: one is there already. Gone: the poll says so. */
    return fds_send(place_of(base, connection)->fd, &bell, 1, NULL, 0) != LOCKSTEP_EIO;
}

static int op_send(struct local_link *base, unsigned connection, const void *bytes, size_t count)
{
    lk_assert(count > 1 && count <= LOCAL_ANSWER_BYTES_MAX);
    return fds_send(place_of(base, connection)->fd, bytes, count, NULL, 0);
}

static void op_end(struct local_link *base, unsigned connection)
{
    place_close(place_of(base, connection));
}

static uint64_t op_now_ns(struct local_link *base)
{
    (void)base;
    return uv_hrtime();
}

static uint64_t op_refused(const struct local_link *base)
{
    return ((const struct unix_link *)base)->refused;
}

static void timer_closed(uv_handle_t *handle)
{
    handle_gone(handle->data);
}

static void op_close(struct local_link *base)
{
    struct unix_link *link = link_of(base);
    lk_assert(!link->closing);
    link->closing = true;
    listener_close(link);
    for (unsigned i = 0; i < PLACES_MAX; i++) {
        struct place *place = &link->places[i];
        if (place->state != PLACE_FREE && place->state != PLACE_CLOSING) place_close(place);
    }
    uv_close((uv_handle_t *)&link->timer, timer_closed);
}

static const struct local_link_ops unix_ops = {
    .attach = op_attach,
    .listen = op_listen,
    .dial = op_dial,
    .bell = op_bell,
    .send = op_send,
    .end = op_end,
    .now_ns = op_now_ns,
    .refused = op_refused,
    .close = op_close,
};

int local_unix_open(uv_loop_t *loop, struct local_link **ret)
{
    struct unix_link *link = calloc(1, sizeof *link);
    if (link == NULL) return LOCKSTEP_ENOMEM;
    link->base.ops = &unix_ops;
    link->loop = loop;
    int rc = uv_timer_init(loop, &link->timer);
    lk_assert(rc == 0);
    link->timer.data = link;
    link->handles = 1;
    *ret = &link->base;
    return 0;
}
