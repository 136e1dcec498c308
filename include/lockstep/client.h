/* SPDX-License-Identifier: Apache-2.0 */
/* client.h - the C client of a lockstep cluster: propose commands, read the machine's state, ask for status.
 *
 * One client belongs to one thread; only names are looked up beside it. Everything is non-blocking: an operation is queued
 * by its call, moves in lockstep_client_poll(), and ends exactly once, in its callback, which comes out of
 * lockstep_client_poll() or lockstep_client_close() and nowhere else. In a callback every call is allowed but poll,
 * close and the *_wait wrappers. For a program with a loop of its own there are a descriptor and a timeout; for one
 * without, the wrappers that end in _wait.
 *
 * What a client knows about a proposal that failed is its *fate*:
 * C1  LOCKSTEP_NOT_APPENDED is said in two cases only: the server's trailer says so, or no byte of the command was ever
 *     given to a connection. Every other failure is LOCKSTEP_UNKNOWN: it may be applied already, later, or never.
 * C2  The library opens a session and numbers its commands, so that the cluster applies each once however often it is
 *     sent. What is unknown is sent again with the same number, across leaders, until the deadline; so is what was surely
 *     not appended: at the address of the leader that the answer names, after the back-off that a full node asks for, or
 *     at another endpoint. Unknown is left for the deadline alone. Without a session (no_session) what is unknown is never
 *     sent again. Queries, status and health append nothing and are repeated freely.
 * C3  A stream has a session of its own. When it loses its server it sends what is unanswered again, in order, at the new
 *     leader. Without a session it repeats nothing, because the commands behind a lost one may be in the log already: what
 *     was unanswered is reported, each command with its fate.
 * C5  A session that the cluster has ended (nothing of it came for a minute) is told, ENOTFOUND, to commands that may have
 *     been applied in it. Commands that surely were not, and later ones, get a new session.
 * C4  A failure names its cause, endpoint by endpoint: resolve, connect, protocol, no leader.
 *
 * Errors are the codes of errors.h. No call aborts on what a server says. Strings are UTF-8 and end in 0. */
#ifndef LOCKSTEP_CLIENT_H
#define LOCKSTEP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lockstep/errors.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LOCKSTEP_DEADLINE_MS_DEFAULT = 10000,
    LOCKSTEP_ENDPOINTS_MAX = 32,       /* listed and learnt together; a learnt one that is not used makes room */
    LOCKSTEP_ENDPOINT_BYTES_MAX = 272, /* HOST:PORT with its final 0 */
    LOCKSTEP_NAME_BYTES_MAX = 64,
    LOCKSTEP_MEMBERS_MAX = 16,
    LOCKSTEP_TEXT_BYTES_MAX = 256,
    LOCKSTEP_MESSAGE_BYTES_MAX = 4 << 20, /* of one gRPC message */
};

struct lockstep_client;
struct lockstep_stream;

/* Members that are 0 mean the default. */
struct lockstep_client_options {
    uint32_t size;           /* sizeof(struct lockstep_client_options) */
    uint32_t deadline_ms;    /* of an operation, everything included, that names none itself. 0 = 10,000 */
    const char *endpoints;   /* HOST:PORT[,HOST:PORT...]; IPv6 as [::1]:7401. NULL: $LOCKSTEP_ENDPOINTS, else
                              * 127.0.0.1:7401 */
    uint32_t operations_max; /* that run at the same time. 0 = 65,536 */
    bool no_session;         /* do not open sessions; proposals may bring session and seq of their own */
    size_t memory_bytes_max; /* for copies of commands and for connections. 0 = 256 MiB */
};

/* Make a client. Nothing is dialled yet.
 * options  NULL = all defaults
 * why      on error a sentence for people (may be NULL)
 * Errors   EINVAL: an endpoint is no HOST:PORT; ENOMEM: no memory, or no descriptor. Allocates. */
int lockstep_client_open(const struct lockstep_client_options *options, struct lockstep_client **ret, char *why,
                         size_t why_room);

/* End every operation with ECLOSED (a proposal that was sent: fate UNKNOWN), close every stream, free all. Takes NULL. */
void lockstep_client_close(struct lockstep_client *client);

/* Move everything that can move: send, receive, call back, redial. Waits up to timeout_ms for something to happen
 * (0 = not at all, -1 = until something does). Blocks nowhere else.
 * Errors  EIO: the host refused epoll; the client is of no more use. */
int lockstep_client_poll(struct lockstep_client *client, int timeout_ms);

/* For another loop: wait until this descriptor is *readable* (it is an epoll set: watch for reading alone) or the
 * timeout is over, then call lockstep_client_poll(client, 0). The descriptor never changes. The timeout does, with
 * every call: ask for it last before waiting. 0 = poll now, -1 = no limit. */
int lockstep_client_fd(const struct lockstep_client *client);
int lockstep_client_timeout_ms(const struct lockstep_client *client);

/* Operations that were started and have not ended; streams do not count. */
uint32_t lockstep_client_running(const struct lockstep_client *client);

/* What is wrong now, endpoint by endpoint, as "HOST:PORT: connect: Connection refused; HOST:PORT: no leader"; "" when
 * nothing is. Valid until the next call on this client. */
const char *lockstep_client_trouble(struct lockstep_client *client);

/* --- proposals and queries --- */

enum lockstep_fate {
    LOCKSTEP_APPLIED = 1,      /* committed by a majority, durable at the cluster's level, applied. Queries: answered */
    LOCKSTEP_NOT_APPENDED = 2, /* surely not applied (C1); may be proposed again. Queries: not answered */
    LOCKSTEP_UNKNOWN = 3,      /* may be applied already, later, or never */
};

enum lockstep_durability {
    LOCKSTEP_DURABILITY_UNSPECIFIED = 0,
    LOCKSTEP_DURABILITY_FSYNC = 1,
    LOCKSTEP_DURABILITY_OS = 2,
    LOCKSTEP_DURABILITY_MEMORY = 3,
};

struct lockstep_proposal {
    const void *command;
    size_t command_bytes;
    uint64_t session, seq; /* 0: the client's own. Else the application's: it keeps to the rules of lockstep.proto */
    uint64_t entity;       /* 0: the machine itself */
    uint32_t deadline_ms;  /* 0: the client's */
    uint32_t reserved;
};

enum lockstep_consistency {
    LOCKSTEP_LINEARIZABLE = 0, /* sees every proposal that was answered before this query began */
    LOCKSTEP_LOCAL = 1,        /* the state of the node that is asked, as it is */
    LOCKSTEP_FOLLOWER = 2, /* as LINEARIZABLE, answered by the node that is asked: it asks the leader for an index */
    LOCKSTEP_BOUNDED_STALE = 3, /* sees at least every proposal that was answered max_staleness_ms before */
};

struct lockstep_query {
    const void *query;
    size_t query_bytes;
    uint64_t entity;
    enum lockstep_consistency consistency;
    uint32_t deadline_ms;      /* 0: the client's */
    uint64_t min_index;        /* answer only from a state that has applied this index; waited for */
    uint32_t max_staleness_ms; /* with LOCKSTEP_BOUNDED_STALE */
    uint32_t reserved;
};

/* How a proposal or a query ended. Pointers are valid during the callback (after a _wait: until the next call on the
 * client). */
struct lockstep_result {
    int error; /* 0, or LOCKSTEP_E*: EUNAVAILABLE no leader in time · EFULL · ENOTLEADER · EUNREACHABLE no
                               * endpoint answers · ETOOBIG · EINVAL · EUNKNOWN · ETIMEDOUT · EPROTO · ECLOSED · with a
                               * session ENOTFOUND it has ended (C5) · EREPLIED applied, but its reply is kept no more */
    enum lockstep_fate fate; /* what is known, whatever the error */
    int32_t code;            /* error 0: 0 = done, else the machine refused with this code of its own */
    enum lockstep_durability durability;
    uint64_t index, position; /* error 0 */
    const uint8_t *reply;     /* error 0: the machine's answer */
    size_t reply_bytes;
    const char *endpoint;    /* who answered, or who was asked last; "" = nobody */
    const char *text;        /* error: what happened, for people; "" otherwise */
    uint32_t retry_after_ms; /* EFULL: the server's wish */
    uint64_t session, seq;   /* of a proposal: with which it was sent; 0 = none. lockstep_outcome() takes them */
};

typedef void lockstep_result_callback(void *context, const struct lockstep_result *result);

/* Start one. Bytes are copied before it returns.
 * Errors  EFULL: operations_max or memory_bytes_max is reached, poll first; ETOOBIG; EINVAL: an unknown consistency.
 *         On error nothing was started and the callback is not called. Allocates until pools have grown to the load. */
int lockstep_propose(struct lockstep_client *client, const struct lockstep_proposal *proposal,
                     lockstep_result_callback *callback, void *context);
int lockstep_query(struct lockstep_client *client, const struct lockstep_query *query,
                   lockstep_result_callback *callback, void *context);

/* What became of a proposal that ended unknown? error 0 and fate APPLIED: this, as its own result would have said. Fate
 * UNKNOWN: it has not been applied; a copy that is still on its way may be. EREPLIED: applied, its reply is kept no more.
 * ENOTFOUND: its session has ended, nobody knows any more. */
int lockstep_outcome(struct lockstep_client *client, uint64_t session, uint64_t seq, uint32_t deadline_ms,
                     lockstep_result_callback *callback, void *context);

/* --- streams: many commands a message, answered in order --- */

struct lockstep_stream_options {
    uint32_t size;         /* sizeof(struct lockstep_stream_options) */
    uint32_t messages_max; /* sent and not answered. 0 = 16, at most 4,096 */
    uint32_t commands_max; /* in one message. 0 = 256, at most 16,384; in a session 1,024 */
    uint32_t deadline_ms;  /* of an answer to a message, sending it again included. 0 = the client's */
    void *context;         /* of both callbacks */
    /* The answers to one message: one result for each of its commands, in order. Called exactly once for every message
     * that lockstep_stream_send() took. */
    void (*answered)(void *context, uint64_t tag, const struct lockstep_result *results, uint32_t count);
    /* The stream lost its server, or is refused a session (each time that it asks): it takes nothing until it has both.
     * It tries again by itself. text says why. May be NULL. */
    void (*lost)(void *context, int error, const char *text);
};

/* Open a stream; it looks for the leader in lockstep_client_poll(), and again whenever it was lost, until it is closed.
 * Errors  EINVAL, ENOMEM. Allocates. */
int lockstep_stream_open(struct lockstep_client *client, const struct lockstep_stream_options *options,
                         struct lockstep_stream **ret);

/* Give the stream up. Messages that are not answered end now, through answered(), with ECLOSED and fate UNKNOWN. Not in
 * one of the stream's own callbacks. Takes NULL. */
void lockstep_stream_close(struct lockstep_stream *stream);

/* How many messages lockstep_stream_send() takes now; 0 while there is no leader. In a session at most 1,024 commands are
 * unanswered at a time. */
uint32_t lockstep_stream_room(const struct lockstep_stream *stream);

/* The address that the stream is connected to; "" = none now. */
const char *lockstep_stream_endpoint(const struct lockstep_stream *stream);

/* Send one message. Bytes are copied before it returns.
 * count   1..commands_max; a proposal's own deadline_ms has no meaning here
 * tag     given back by answered()
 * Errors  EFULL: no room now, poll first; ETOOBIG: the message is over 4 MiB; EINVAL: count, or a session
 *         of its own in a stream that has one. Nothing was sent then. */
int lockstep_stream_send(struct lockstep_stream *stream, const struct lockstep_proposal *proposals, uint32_t count,
                         uint64_t tag);

/* --- the cluster --- */

struct lockstep_member {
    char name[LOCKSTEP_NAME_BYTES_MAX];
    uint64_t id;
    char client[LOCKSTEP_ENDPOINT_BYTES_MAX];
    char peer[LOCKSTEP_ENDPOINT_BYTES_MAX];
    bool voter;
    bool connected; /* as the answering node sees it */
    uint64_t match; /* from the leader: last index that the member has durable */
    char note[LOCKSTEP_TEXT_BYTES_MAX];
    char role[16]; /* voter, learner, joining, leaving, demoted, dialled; "" = no member */
    uint32_t priority;
    char path[16]; /* how the answering node and it replicate: "shared memory", "tcp"; "" = itself, or not connected */
    uint64_t lag_bytes; /* of the ring that the reader of the two has not read; shared memory only */
    uint64_t lapped;    /* how often it was too late for the ring, and went on by tcp */
};

struct lockstep_counters {
    uint64_t commands_appended, blocks_appended, bytes_appended;
    uint64_t flushes;
    uint64_t appends_sent, appends_inflight_max;
    uint64_t elections;
    uint64_t connections, connections_refused;
    uint64_t protocol_errors, rejected_full, frames_refused;
    uint64_t commands_repeated; /* dropped: they had been applied before */
    uint64_t sessions;          /* open now */
};

/* What one node knows. */
struct lockstep_status {
    char cluster[LOCKSTEP_NAME_BYTES_MAX];
    uint64_t cluster_id;
    char name[LOCKSTEP_NAME_BYTES_MAX];
    uint64_t member_id;
    char role[16]; /* leader, candidate, follower, unborn, stopped */
    uint64_t term;
    char leader[LOCKSTEP_NAME_BYTES_MAX]; /* "" = none is known */
    char leader_client[LOCKSTEP_ENDPOINT_BYTES_MAX];
    uint64_t last_index, commit_index, applied_index, applied_position, durable_index, stored_index;
    uint8_t state_hash[16], reply_hash[16]; /* at hash_index */
    uint32_t state_hash_bytes;              /* 0: this machine has none */
    uint32_t reply_hash_bytes;
    uint64_t hash_index;
    char machine[LOCKSTEP_NAME_BYTES_MAX];
    char machine_version[LOCKSTEP_NAME_BYTES_MAX];
    enum lockstep_durability durability;
    char version[LOCKSTEP_NAME_BYTES_MAX];
    struct lockstep_counters counters;
    uint32_t member_count;
    uint32_t warning_count;
    struct lockstep_member members[LOCKSTEP_MEMBERS_MAX];
    char warnings[8][LOCKSTEP_TEXT_BYTES_MAX];
    uint64_t configuration_index;         /* of the block that says who the members are; 0: since birth */
    bool joint;                           /* voters are being changed */
    char change[LOCKSTEP_TEXT_BYTES_MAX]; /* from the leader: how far a change of members is; "" = none runs */
    uint64_t base_index;                  /* the log begins behind this block */
    uint64_t snapshot_index;              /* the newest snapshot's; 0: none */
    uint64_t last_term;                   /* of block last_index */
    uint32_t observers;                   /* processes of its host that follow what it commits, now */
    uint64_t observer_lag_bytes;          /* of its ring that the last of them has not read */
    uint64_t observer_lapped;             /* how often they were too late for the ring, and asked for the log */
};

/* status is NULL unless result->error is 0. result->endpoint says which node answered: with several endpoints any one
 * may; a client opened for a single endpoint asks that node. */
typedef void lockstep_status_callback(void *context, const struct lockstep_result *result,
                                      const struct lockstep_status *status);
/* deadline_ms 0: the client's. Errors as lockstep_propose(). */
int lockstep_status(struct lockstep_client *client, uint32_t deadline_ms, lockstep_status_callback *callback,
                    void *context);

/* Move leadership to the member of this name; "" = the most caught-up follower. The result's reply is the new leader's
 * name, index its term. ENOTFOUND: no such member. */
int lockstep_transfer(struct lockstep_client *client, const char *target, uint32_t deadline_ms,
                      lockstep_result_callback *callback, void *context);

enum lockstep_member_change_kind {
    LOCKSTEP_MEMBER_ADD = 1, /* it is dialled, admitted as a learner, and votes when it has caught up */
    LOCKSTEP_MEMBER_PROMOTE, /* a learner votes */
    LOCKSTEP_MEMBER_REMOVE,
    LOCKSTEP_MEMBER_REPLACE, /* as ADD, and in the same step the old one is removed */
};

struct lockstep_member_change {
    uint32_t size; /* sizeof(struct lockstep_member_change) */
    enum lockstep_member_change_kind kind;
    const char *name;     /* whom it is about; PROMOTE, REMOVE: or its id, 16 hexadecimal digits */
    const char *old_name; /* REPLACE: the member that goes, or its id */
    const char *client;   /* HOST:PORT; ADD; REPLACE: NULL = as the old one */
    const char *peer;
    bool learner; /* ADD: it stays one */
    bool force;   /* REMOVE: though it is not heard */
    uint32_t priority;
    uint32_t deadline_ms; /* 0 = the client's; catching up may take long */
};

/* Change who belongs to the cluster. Every step is in the log: asked again, it goes on where it stopped, so the library
 * repeats it when the leader goes. The result's index is the configuration's, its reply says "done" or that it was so
 * already. EINVAL: refused, for the reason in text; ENOTFOUND: nobody has that name; ETIMEDOUT: it is not done yet. Other
 * errors as lockstep_propose(). */
int lockstep_member_change(struct lockstep_client *client, const struct lockstep_member_change *change,
                           lockstep_result_callback *callback, void *context);

/* A majority is lost for good: the one node that this client was opened for goes on alone, with what it has, as another
 * cluster of the same name. What the others had committed without it is lost. cluster, cluster_id and member_id are those of
 * its status, from which somebody made and confirmed a plan. The result comes when it begins; its index is the new
 * cluster's id, which stands in the node's status when it is done.
 * EINVAL: refused, for the reason in text (a leader, or a majority, is heard). Other errors as lockstep_transfer(). */
int lockstep_recover(struct lockstep_client *client, const char *cluster, uint64_t cluster_id, uint64_t member_id,
                     uint32_t deadline_ms, lockstep_result_callback *callback, void *context);

/* The standard health check. service: "", "lockstep.v1.Lockstep" (ready), "lockstep.leader". The result's code is 1 for
 * serving, 2 for not serving. ENOTFOUND: the node does not know the service. */
int lockstep_health(struct lockstep_client *client, const char *service, uint32_t deadline_ms,
                    lockstep_result_callback *callback, void *context);

/* --- tail: what is committed, as a node of this host commits it ---
 * Follows the committed commands of one node from another process of its host and user: out of the node's memory, which is
 * mapped read-only, so that it costs the node nothing but a bell for who sleeps (1,000 a second, at most). What the memory
 * holds no more comes from the node's log; when the node is started again, the tail goes on behind what it handed out.
 * Each command comes once, in the order of positions, without a gap. All bytes are copied and checked before they are
 * handed out. A tail needs no client; it belongs to one thread. A node has 16 observers at most. */

struct lockstep_tail;

enum { LOCKSTEP_TAIL_NOW = 0 /* from_position: what is committed after the tail has found the node */ };

struct lockstep_tail_options {
    uint32_t size;          /* sizeof(struct lockstep_tail_options) */
    uint32_t deadline_ms;   /* to find the node for the first time. 0 = 10,000 */
    const char *endpoint;   /* HOST:PORT on which it listens for clients. NULL: the first of $LOCKSTEP_ENDPOINTS, else
                             * 127.0.0.1:7401 */
    uint64_t from_position; /* of the first command wanted, from 1; LOCKSTEP_TAIL_NOW */
};

enum lockstep_command_kind {
    LOCKSTEP_COMMAND_MACHINE = 0,
    LOCKSTEP_COMMAND_SESSION_OPEN = 1,  /* its position is the session's id */
    LOCKSTEP_COMMAND_SESSION_KEEP = 2,  /* session: which one; as below */
    LOCKSTEP_COMMAND_SESSION_CLOSE = 3, /* other kinds may come to be: pass them over */
};

/* One command, as it stands in the log. One that its client had to send twice may stand there twice, with the same session
 * and seq: machines apply the first. */
struct lockstep_tail_record {
    uint64_t index; /* of its block */
    uint64_t position, term, time_ns;
    uint64_t session, seq, entity; /* 0 = none; none; the machine itself */
    uint32_t kind;                 /* enum lockstep_command_kind */
    uint32_t payload_bytes;
    const void *payload; /* without alignment; valid until the next call on the tail */
};

struct lockstep_tail_status {
    bool attached;       /* to the node's memory, now */
    uint64_t cluster_id; /* 0 = the node was not found yet, as the next two */
    uint64_t member_id;
    uint64_t boot;            /* of the node: its starts, counted */
    uint64_t next_position;   /* of the next record; 0 = not known before the first block */
    uint64_t next_index;      /* of the next block; 0 likewise */
    uint64_t commit_index;    /* of the node, when it was looked at last */
    uint64_t lapped;          /* how often the memory held the next block no more, and the log was asked */
    uint64_t restarts;        /* how often the node had to be found again */
    uint64_t oldest_position; /* with EGONE: the log begins there */
};

/* Nothing is dialled yet. why: as lockstep_client_open(). EINVAL: the endpoint is none, or more than one; ENOMEM. Allocates
 * some 5 MiB. */
int lockstep_tail_open(const struct lockstep_tail_options *options, struct lockstep_tail **ret, char *why,
                       size_t why_room);
void lockstep_tail_close(struct lockstep_tail *tail); /* takes NULL */

/* The next command, waited for up to timeout_ms (0 = not at all, -1 = until it is there).
 * 0 and *ret, or
 * EUNAVAILABLE: none yet, or a signal came; ask again. lockstep_tail_text() says what is wrong, if anything is.
 * Anything else is final, and lockstep_tail_text() says what to do:
 * EUNREACHABLE: no such node; it is on another host or of another user, or does not share its memory · EFULL: it has 16
 * observers · EGONE: the position is compacted away; the status has the oldest one · EFOREIGN: another cluster answers at
 * this address · EVERSION: node and library do not fit · ECORRUPT, EPROTO: what the node shows is damaged · ETIMEDOUT: the
 * node was not found in time · ENOMEM · EIO. */
int lockstep_tail_next(struct lockstep_tail *tail, struct lockstep_tail_record *ret, int timeout_ms);

/* For another loop, as lockstep_client_fd() and lockstep_client_timeout_ms(): after EUNAVAILABLE ask for the timeout, last
 * before waiting: it tells the node that this tail sleeps. Wait until the descriptor is readable or the timeout is over. */
int lockstep_tail_fd(const struct lockstep_tail *tail);
int lockstep_tail_timeout_ms(struct lockstep_tail *tail);

void lockstep_tail_status(const struct lockstep_tail *tail, struct lockstep_tail_status *ret);
/* The last error in words, with what to do; what it waits for; "" = all is well. Valid until the next call on the tail. */
const char *lockstep_tail_text(const struct lockstep_tail *tail);

/* --- the same, waiting ---
 * Each starts one operation and polls until it has ended; other operations and streams of the client go on meanwhile.
 * ret     what the callback would have got; pointers in it are valid until the next call on the client
 * return  ret->error, or the error of starting it (ret is filled for that too) */
int lockstep_propose_wait(struct lockstep_client *client, const struct lockstep_proposal *proposal,
                          struct lockstep_result *ret);
int lockstep_outcome_wait(struct lockstep_client *client, uint64_t session, uint64_t seq, uint32_t deadline_ms,
                          struct lockstep_result *ret);
int lockstep_query_wait(struct lockstep_client *client, const struct lockstep_query *query,
                        struct lockstep_result *ret);
int lockstep_status_wait(struct lockstep_client *client, uint32_t deadline_ms, struct lockstep_result *ret,
                         struct lockstep_status *ret_status);
int lockstep_transfer_wait(struct lockstep_client *client, const char *target, uint32_t deadline_ms,
                           struct lockstep_result *ret);
int lockstep_recover_wait(struct lockstep_client *client, const char *cluster, uint64_t cluster_id, uint64_t member_id,
                          uint32_t deadline_ms, struct lockstep_result *ret);
int lockstep_member_change_wait(struct lockstep_client *client, const struct lockstep_member_change *change,
                                struct lockstep_result *ret);
int lockstep_health_wait(struct lockstep_client *client, const char *service, uint32_t deadline_ms,
                         struct lockstep_result *ret);

#ifdef __cplusplus
}
#endif

#endif
