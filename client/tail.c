/* SPDX-License-Identifier: Apache-2.0 */
/* tail.c - follows what a node of this host commits, out of its ring; what has left the ring, out of its log.
 * Thread: the owner's. Owns: a client that asks the node who it is, one connection to the node's local socket, the reader.
 *
 *   LOOKING -> GREETING [found: its local socket takes our hello]     LOOKING -> PAUSING [not there, not ready]
 *   PAUSING -> LOOKING [after RETRY_MS]
 *   GREETING -> FOLLOWING [greeted: ring and slot are mapped]
 *   FOLLOWING <-> ASKING [ask: the block is in the log alone; told]
 *   GREETING, FOLLOWING, ASKING -> LOOKING [lost: hung up, or refused for now]
 *   any -> FAILED [fail: what no second try would mend]
 *
 * S6  All that the node ever does for a tail: a bell when it sleeps, and one answer to one question. A bell a millisecond at
 *     most: who was rung sleeps out the rest of it without asking for another.
 * What is read, how it is checked, and that it goes on without a gap: tail_reader.h. */
#include "client/tail.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fds.h"
#include "client/internal.h"
#include "client/tail_reader.h"
#include "proto/block.h"
#include "proto/local_dial.h"
#include "proto/ring_reader.h"

static_assert((int)LOCKSTEP_COMMAND_MACHINE == COMMAND_MACHINE &&
                  (int)LOCKSTEP_COMMAND_SESSION_OPEN == COMMAND_SESSION_OPEN &&
                  (int)LOCKSTEP_COMMAND_SESSION_KEEP == COMMAND_SESSION_KEEP &&
                  (int)LOCKSTEP_COMMAND_SESSION_CLOSE == COMMAND_SESSION_CLOSE,
              "as they stand in the log");

enum {
    RETRY_MS = 100,
    STATUS_MS = 2000,          /* for one answer to who the node is */
    PATIENCE_FIRST_MS = 2000,  /* it answers, and its local socket does not: it may have begun just now */
    PATIENCE_AGAIN_MS = 30000, /* after a restart there is more to do than the first time */
    BELL_MS = 1,
    BELLS_AT_ONCE_MAX = 64, /* one has a sense */
    MOVES_MAX = 256,        /* in a call whose time is over: a node may show blocks without commands for ever */
};

enum tail_state { TAIL_LOOKING, TAIL_PAUSING, TAIL_GREETING, TAIL_FOLLOWING, TAIL_ASKING, TAIL_FAILED };

struct lockstep_tail {
    enum tail_state state;
    int epoll_fd;
    char endpoint[LOCKSTEP_ENDPOINT_BYTES_MAX];
    uint64_t find_deadline_ns; /* until it was found once */
    bool found;                /* once */

    struct lockstep_client *client;
    bool asked_status, knows_member; /* it is not asked for: see tail_open_member() */
    uint64_t retry_ns, patience_ns;  /* PAUSING; since when the node answers, but not its local socket. 0 = not so */

    uint64_t cluster_id;
    raft_member member_id;
    uint64_t boot;
    int socket;
    uint64_t rung_ns;

    struct tail_reader reader;
    uint8_t *packet; /* LOCAL_ANSWER_BYTES_MAX */
    struct lockstep_tail_status status;
    int error;
    char text[LOCKSTEP_TEXT_BYTES_MAX * 2];
};

/* --- ends --------------------------------------------------------------------------------------------------------- */

static void say(struct lockstep_tail *tail, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct lockstep_tail *tail, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(tail->text, sizeof tail->text, format, arguments);
    va_end(arguments);
}

static void detach(struct lockstep_tail *tail)
{
    tail_reader_detach(&tail->reader);
    if (tail->socket >= 0) close(tail->socket); /* leaves the epoll set with it */
    tail->socket = -1;
    tail->status.attached = false;
}

/* say() has been called. */
static void fail(struct lockstep_tail *tail, int error)
{
    detach(tail);
    tail->error = error;
    tail->state = TAIL_FAILED;
}

static void pause_then_look(struct lockstep_tail *tail)
{
    detach(tail);
    tail->state = TAIL_PAUSING;
    tail->retry_ns = client_now_ns() + RETRY_MS * CLIENT_MS_NS;
}

/* The node hung up: it ended, or ended us. */
static void lost(struct lockstep_tail *tail, const char *why)
{
    say(tail, "%s: %s; it is looked for again", tail->endpoint, why);
    pause_then_look(tail);
}

/* It is there, and not for us; perhaps later. */
static void not_yet(struct lockstep_tail *tail, int error, const char *why, const char *advice)
{
    uint64_t now_ns = client_now_ns();
    uint64_t patience_ns = (tail->found ? PATIENCE_AGAIN_MS : PATIENCE_FIRST_MS) * CLIENT_MS_NS;
    if (tail->patience_ns == 0) tail->patience_ns = now_ns;
    say(tail, "%s: %s; %s", tail->endpoint, why, advice);
    if (now_ns - tail->patience_ns >= patience_ns)
        fail(tail, error == LOCKSTEP_EFULL ? error : LOCKSTEP_EUNREACHABLE);
    else
        pause_then_look(tail);
}

/* Ours are used up: the node cannot help it, and looking again would need more of them. */
static void no_descriptor(struct lockstep_tail *tail, int number)
{
    say(tail, "no descriptor for the node's local socket or memory: %s; raise the limit of open files (ulimit -n)",
        strerror(number));
    fail(tail, LOCKSTEP_ENOMEM);
}

/* --- finding the node --------------------------------------------------------------------------------------------- */

#define ADVICE_HOST                                                                                                    \
    "run this on the node's host, as its user and in its network namespace; its file must not say shared_memory = "    \
    "\"off\""

static void dial(struct lockstep_tail *tail)
{
    const struct local_hello hello = {
        .kind = LOCAL_OBSERVER, .cluster_id = tail->cluster_id, .wanted_id = tail->member_id};
    struct epoll_event event = {.events = EPOLLIN};
    int rc = local_dial(&hello, &tail->socket);
    if (rc == LOCKSTEP_ENOMEM || (rc == 0 && epoll_ctl(tail->epoll_fd, EPOLL_CTL_ADD, tail->socket, &event) != 0)) {
        no_descriptor(tail, errno);
    } else if (rc == LOCKSTEP_EUNREACHABLE) {
        not_yet(tail, rc, "the node shares no memory with this process", ADVICE_HOST);
    } else if (rc == LOCKSTEP_EFOREIGN) {
        say(tail, "%s: the node runs as another user; run this as that one", tail->endpoint);
        fail(tail, LOCKSTEP_EUNREACHABLE);
    } else if (rc != 0) {
        lost(tail, "the node hung up");
    } else {
        tail->state = TAIL_GREETING;
    }
}

static void status_came(void *context, const struct lockstep_result *result, const struct lockstep_status *status)
{
    struct lockstep_tail *tail = context;
    tail->asked_status = false;
    if (result->error == LOCKSTEP_ECLOSED) return; /* the tail is being closed */
    if (result->error != 0 || status->cluster_id == 0) tail->patience_ns = 0;
    if (result->error != 0) {
        say(tail, "%s; is the node running, and is this where it listens for clients?", result->text);
        if (tail->found || result->error == LOCKSTEP_ETIMEDOUT || result->error == LOCKSTEP_EUNAVAILABLE)
            pause_then_look(tail);
        else
            fail(tail, result->error);
    } else if (status->cluster_id == 0) {
        say(tail, "%s: the node waits for the others of its cluster; start them", tail->endpoint);
        pause_then_look(tail);
    } else if (tail->found && status->cluster_id != tail->cluster_id) {
        say(tail, "%s: another cluster answers there now (%016" PRIx64 ", before %016" PRIx64 "); begin a new tail",
            tail->endpoint, status->cluster_id, tail->cluster_id);
        fail(tail, LOCKSTEP_EFOREIGN);
    } else {
        tail->cluster_id = status->cluster_id;
        tail->member_id = status->member_id;
        dial(tail);
    }
}

/* It stays open while the node is looked for; its descriptor leaves our set when it is closed. */
static int client_open(struct lockstep_tail *tail, char *why, size_t why_room)
{
    const struct lockstep_client_options options = {
        .size = sizeof options, .endpoints = tail->endpoint, .no_session = true};
    struct epoll_event event = {.events = EPOLLIN};
    int rc = lockstep_client_open(&options, &tail->client, why, why_room);
    if (rc != 0) return rc;
    if (epoll_ctl(tail->epoll_fd, EPOLL_CTL_ADD, lockstep_client_fd(tail->client), &event) == 0) return 0;
    snprintf(why, why_room, "%s", strerror(errno));
    return LOCKSTEP_ENOMEM;
}

static void look(struct lockstep_tail *tail)
{
    char why[256] = "";
    if (tail->knows_member) {
        dial(tail);
        return;
    }
    if (!tail->asked_status) {
        int rc = tail->client != NULL ? 0 : client_open(tail, why, sizeof why);
        if (rc == 0) rc = lockstep_status(tail->client, STATUS_MS, status_came, tail);
        if (rc != 0) {
            say(tail, "%s: %s", tail->endpoint, why[0] != 0 ? why : lockstep_error_text(rc));
            fail(tail, rc);
            return;
        }
        tail->asked_status = true;
    }
    if (lockstep_client_poll(tail->client, 0) != 0) {
        say(tail, "the system refused to wait for sockets (epoll)");
        fail(tail, LOCKSTEP_EIO);
    }
}

static void attach(struct lockstep_tail *tail, const struct local_reply *reply, int ring_fd, int slot_fd)
{
    bool wanted = reply->cluster_id == tail->cluster_id && reply->member_id == tail->member_id;
    int rc = wanted ? tail_reader_attach(&tail->reader, reply, ring_fd, slot_fd) : LOCKSTEP_EPROTO;
    close(ring_fd);
    close(slot_fd);
    if (rc == LOCKSTEP_EVERSION) {
        say(tail, "%s: the node's memory has the layout of another version; use its version of lockstep",
            tail->endpoint);
        fail(tail, rc);
    } else if (rc == LOCKSTEP_ENOMEM) {
        say(tail, "no memory to map the node's ring; free some, or raise the limit (ulimit -v)");
        fail(tail, rc);
    } else if (rc != 0) {
        say(tail, "%s: what the node handed over is no ring of its own", tail->endpoint);
        fail(tail, LOCKSTEP_EPROTO);
    } else {
        tail->state = TAIL_FOLLOWING;
        tail->status.restarts += tail->found;
        tail->found = true;
        lockstep_client_close(tail->client); /* it has said what it was for */
        tail->client = NULL;
        tail->patience_ns = 0;
        tail->boot = reply->boot;
        tail->status.attached = true;
        tail->text[0] = 0;
    }
}

static void refused(struct lockstep_tail *tail, const struct local_reply *reply)
{
    if (reply->error == LOCKSTEP_EFULL && !tail->found) {
        say(tail, "%s: %s; end one of them", tail->endpoint, reply->why);
        fail(tail, reply->error);
    } else {
        not_yet(tail, reply->error, reply->why, "look at the node's status");
    }
}

static bool greeted(struct lockstep_tail *tail)
{
    struct local_reply reply;
    int fds[LOCAL_FDS];
    int rc = local_greeted(tail->socket, &reply, fds);
    if (rc == LOCKSTEP_EUNAVAILABLE) return false;
    if (rc == LOCKSTEP_ECLOSED) {
        not_yet(tail, LOCKSTEP_EUNREACHABLE, "the node hung up without an answer", ADVICE_HOST);
    } else if (rc == LOCKSTEP_ENOMEM) {
        no_descriptor(tail, EMFILE);
    } else if (rc == LOCKSTEP_EVERSION || (rc == 0 && reply.error == LOCKSTEP_EVERSION)) {
        say(tail, "%s: the node speaks another version of the local protocol; use its version of lockstep",
            tail->endpoint);
        fail(tail, LOCKSTEP_EVERSION);
    } else if (rc != 0) {
        say(tail, "%s: what listens there does not speak the local protocol", tail->endpoint);
        fail(tail, LOCKSTEP_EPROTO);
    } else if (reply.error != 0) {
        refused(tail, &reply);
    } else {
        attach(tail, &reply, fds[0], fds[1]);
    }
    return true;
}

/* --- what the reader asks for -------------------------------------------------------------------------------------- */

/* A packet that is no bell: its bytes. 0: none now, or the connection is lost. */
static size_t receive(struct lockstep_tail *tail)
{
    for (int bells = 0; bells < BELLS_AT_ONCE_MAX; bells++) {
        ssize_t got = fds_receive(tail->socket, tail->packet, LOCAL_ANSWER_BYTES_MAX, NULL, 0);
        if (got == LOCKSTEP_EUNAVAILABLE) return 0;
        if (got < 0) {
            lost(tail, got == LOCKSTEP_EPROTO ? "the node broke the local protocol" : "the node hung up");
            return 0;
        }
        if (got > 1 || tail->packet[0] != LOCAL_BELL) return (size_t)got;
        tail->rung_ns = client_now_ns();
    }
    lost(tail, "the node rings without end");
    return 0;
}

static void ask(struct lockstep_tail *tail, const struct local_ask *question)
{
    uint8_t packet[LOCAL_ASK_BYTES];
    local_ask_write(question, packet);
    tail->state = TAIL_ASKING;
    if (fds_send(tail->socket, packet, sizeof packet, NULL, 0) != 0) lost(tail, "the node hung up");
}

static void stopped(struct lockstep_tail *tail)
{
    say(tail, "%s: %s", tail->endpoint, tail->reader.why);
    fail(tail, tail->reader.error);
}

static bool moved(struct lockstep_tail *tail, enum tail_move move, const struct local_ask *question)
{
    if (move == TAIL_ASK) ask(tail, question);
    if (move == TAIL_STOPPED) stopped(tail);
    return move != TAIL_NOTHING;
}

static bool told(struct lockstep_tail *tail)
{
    struct local_ask question;
    size_t bytes = receive(tail);
    if (bytes == 0) return tail->state != TAIL_ASKING;
    tail->state = TAIL_FOLLOWING;
    return moved(tail, tail_reader_told(&tail->reader, tail->packet, bytes, &question), &question);
}

static bool follow(struct lockstep_tail *tail)
{
    struct local_ask question;
    if (moved(tail, tail_reader_pull(&tail->reader, &question), &question)) return true;
    if (receive(tail) == 0) return tail->state != TAIL_FOLLOWING;
    say(tail, "%s: the node sent what nobody asked for", tail->endpoint);
    fail(tail, LOCKSTEP_EPROTO);
    return true;
}

static bool record_next(struct lockstep_tail *tail, struct lockstep_tail_record *ret)
{
    if (tail_reader_record(&tail->reader, ret)) return true;
    if (tail->reader.error != 0 && tail->state != TAIL_FAILED) stopped(tail);
    return false;
}

/* --- the owner's calls ---------------------------------------------------------------------------------------------- */

static bool step(struct lockstep_tail *tail)
{
    switch (tail->state) {
    case TAIL_LOOKING: look(tail); return tail->state != TAIL_LOOKING;
    case TAIL_PAUSING:
        if (client_now_ns() < tail->retry_ns) return false;
        tail->state = TAIL_LOOKING;
        return true;
    case TAIL_GREETING: return greeted(tail);
    case TAIL_FOLLOWING: return follow(tail);
    case TAIL_ASKING: return told(tail);
    default: return true;
    }
}

/* False: nothing moves before the descriptor is readable or the timeout is over. */
static bool move(struct lockstep_tail *tail)
{
    if (step(tail)) return true;
    if (tail->found || client_now_ns() < tail->find_deadline_ns) return false;
    char why[sizeof tail->text];
    memcpy(why, tail->text, sizeof why);
    say(tail, "the node was not found in time%s%.400s", why[0] != 0 ? ": " : "", why);
    fail(tail, LOCKSTEP_ETIMEDOUT);
    return true;
}

static int until_ms(uint64_t due_ns)
{
    uint64_t now_ns = client_now_ns();
    return now_ns >= due_ns ? 0 : (int)((due_ns - now_ns + CLIENT_MS_NS - 1) / CLIENT_MS_NS);
}

static int min_timeout(int a, int b)
{
    if (a < 0 || b < 0) return a < 0 ? b : a;
    return a < b ? a : b;
}

int lockstep_tail_timeout_ms(struct lockstep_tail *tail)
{
    int found_ms = tail->found ? -1 : until_ms(tail->find_deadline_ns);
    if (tail_reader_has_more(&tail->reader)) return 0;
    switch (tail->state) {
    case TAIL_LOOKING:
        return tail->client == NULL ? 0 : min_timeout(found_ms, lockstep_client_timeout_ms(tail->client));
    case TAIL_PAUSING: return min_timeout(found_ms, until_ms(tail->retry_ns));
    case TAIL_GREETING:
    case TAIL_ASKING: return found_ms;
    case TAIL_FOLLOWING:
        if (client_now_ns() - tail->rung_ns < BELL_MS * CLIENT_MS_NS) return BELL_MS;
        return tail_reader_sleep(&tail->reader) ? -1 : 0;
    default: return 0;
    }
}

int lockstep_tail_next(struct lockstep_tail *tail, struct lockstep_tail_record *ret, int timeout_ms)
{
    if (record_next(tail, ret)) return 0;
    uint64_t deadline_ns = timeout_ms < 0 ? UINT64_MAX : client_now_ns() + CLIENT_MS_NS * (unsigned)timeout_ms;
    tail_reader_wake(&tail->reader);
    for (int moves = 0;; moves++) {
        if (tail->state == TAIL_FAILED) return tail->error;
        bool moved = move(tail);
        if (record_next(tail, ret)) return 0;
        if (moved && moves < MOVES_MAX) continue;
        int left_ms = deadline_ns == UINT64_MAX ? -1 : until_ms(deadline_ns);
        if (left_ms == 0) return LOCKSTEP_EUNAVAILABLE;
        struct epoll_event event;
        int count = epoll_wait(tail->epoll_fd, &event, 1, min_timeout(left_ms, lockstep_tail_timeout_ms(tail)));
        if (count < 0 && errno == EINTR) return LOCKSTEP_EUNAVAILABLE; /* a signal: its owner may want to end */
        if (count < 0) {
            say(tail, "the system refused to wait for sockets: %s", strerror(errno));
            fail(tail, LOCKSTEP_EIO);
        }
        tail_reader_wake(&tail->reader);
    }
}

int lockstep_tail_fd(const struct lockstep_tail *tail)
{
    return tail->epoll_fd;
}

void lockstep_tail_status(const struct lockstep_tail *tail, struct lockstep_tail_status *ret)
{
    const struct tail_reader *r = &tail->reader;
    *ret = tail->status;
    ret->cluster_id = tail->cluster_id;
    ret->member_id = tail->member_id;
    ret->boot = tail->boot;
    ret->next_index = r->next_index;
    ret->next_position = r->handed_position != 0 ? r->handed_position + 1 : r->from_position;
    ret->commit_index = r->commit_index;
    ret->lapped = r->lapped_count;
    ret->oldest_position = r->oldest_position;
}

const char *lockstep_tail_text(const struct lockstep_tail *tail)
{
    return tail->text;
}

/* --- open, close ---------------------------------------------------------------------------------------------------- */

static int endpoint_read(struct lockstep_tail *tail, const char *endpoint, char *why, size_t why_room)
{
    const char *several = endpoint == NULL ? NULL : strchr(endpoint, ',');
    if (several != NULL) {
        snprintf(why, why_room, "a tail follows one node: name one of '%.200s'", endpoint);
        return LOCKSTEP_EINVAL;
    }
    if (endpoint == NULL) endpoint = getenv("LOCKSTEP_ENDPOINTS");
    if (endpoint == NULL || endpoint[0] == 0) endpoint = "127.0.0.1:7401";
    size_t bytes = strcspn(endpoint, ",");
    if (bytes >= sizeof tail->endpoint) bytes = sizeof tail->endpoint - 1;
    memcpy(tail->endpoint, endpoint, bytes);
    return 0;
}

static int tail_open(const struct lockstep_tail_options *given, struct lockstep_tail **ret, char *why, size_t why_room)
{
    char unused[CLIENT_WHY_BYTES_MAX];
    struct lockstep_tail_options options = {0};
    if (why == NULL) {
        why = unused;
        why_room = sizeof unused;
    }
    if (given != NULL) memcpy(&options, given, given->size < sizeof options ? given->size : sizeof options);
    if (options.deadline_ms == 0) options.deadline_ms = LOCKSTEP_DEADLINE_MS_DEFAULT;
    struct lockstep_tail *tail = calloc(1, sizeof *tail);
    int rc = LOCKSTEP_ENOMEM;
    snprintf(why, why_room, "no memory or descriptor for a tail; free some");
    if (tail == NULL) return rc;
    tail->socket = -1;
    tail->find_deadline_ns = client_now_ns() + options.deadline_ms * CLIENT_MS_NS;
    tail->packet = malloc(LOCAL_ANSWER_BYTES_MAX);
    tail->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (tail_reader_open(&tail->reader, options.from_position) != 0 || tail->packet == NULL || tail->epoll_fd < 0)
        goto fail;
    rc = endpoint_read(tail, options.endpoint, why, why_room);
    if (rc != 0) goto fail;
    rc = client_open(tail, why, why_room); /* now, because it knows what an address is */
    if (rc != 0) goto fail;
    *ret = tail;
    return 0;
fail:
    lockstep_tail_close(tail);
    return rc;
}

int lockstep_tail_open(const struct lockstep_tail_options *options, struct lockstep_tail **ret, char *why,
                       size_t why_room)
{
    return tail_open(options, ret, why, why_room);
}

int tail_open_member(const struct lockstep_tail_options *options, uint64_t cluster_id, raft_member member_id,
                     struct lockstep_tail **ret, char *why, size_t why_room)
{
    int rc = tail_open(options, ret, why, why_room);
    if (rc != 0) return rc;
    (*ret)->knows_member = true;
    (*ret)->cluster_id = cluster_id;
    (*ret)->member_id = member_id;
    return 0;
}

void lockstep_tail_close(struct lockstep_tail *tail)
{
    if (tail == NULL) return;
    detach(tail);
    lockstep_client_close(tail->client);
    if (tail->epoll_fd >= 0) close(tail->epoll_fd);
    tail_reader_close(&tail->reader);
    free(tail->packet);
    free(tail);
}
