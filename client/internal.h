/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h - what the files of the client library share; nothing here is installed.
 * client.c     open, close, poll: one turn of the machinery, the descriptor, the timeout
 * endpoint.c   addresses and connections: dialling, greeting, bytes in and out; which endpoint is asked next
 * resolve.c    a name becomes addresses, in a thread of its own
 * session.c    sessions, and the numbers of commands
 * operation.c  one request, one answer: attempts, retries, deadlines, how each ends
 * stream.c     many commands a message, on one long call
 * message.c    lockstep.v1 messages, written and read by hand
 * wait.c       the wrappers that wait
 * Thread: the owner's, one. Times are CLOCK_MONOTONIC ns. */
#ifndef LOCKSTEP_CLIENT_INTERNAL_H
#define LOCKSTEP_CLIENT_INTERNAL_H

#include <stdarg.h>
#include <sys/socket.h>

#include "client/resolve.h"
#include "lockstep/client.h"
#include "proto/grpc_client.h"
#include "proto/pool.h"

#define CLIENT_MS_NS 1000000ull

enum {
    CLIENT_WHY_BYTES_MAX = 1024,
    CLIENT_IO_BYTES = 256 << 10,     /* one read; the send buffer of a connection */
    CLIENT_DIAL_MS = 900,            /* a connection that has not greeted by then has failed: causes in under 1 s */
    CLIENT_DIAL_NEXT_MS = 200,       /* a dial that takes longer is no reason to wait: the next one begins */
    CLIENT_DIAL_BACKOFF_MS_MIN = 20, /* between dials of one endpoint, doubling */
    CLIENT_DIAL_BACKOFF_MS_MAX = 500,
    CLIENT_RETRY_MS_MIN = 10,     /* between attempts of one operation, doubling */
    CLIENT_RETRY_MS_MAX = 160,    /* small beside an election, so that the new leader is found soon */
    CLIENT_LAST_ATTEMPT_MS = 50,  /* none begins later than this before the deadline */
    CLIENT_FORWARD_FAILURES = 6,  /* dials of the named leader, some 600 ms: then a follower may forward */
    CLIENT_REDIRECTS_AT_ONCE = 2, /* redirects followed without a pause; more means that nodes disagree */
    CLIENT_QUIET_MS = 1000,       /* a connection that owes answers and says nothing is passed by */
    CLIENT_WINDOW_MAX = 1024,     /* commands of one session that run at a time, whatever the cluster would allow */
    CLIENT_GOODBYE_MS = 1000,     /* for a CloseSession that nobody waits for */
    CLIENT_STREAM_MESSAGES_MAX = 4096,
    CLIENT_STREAM_COMMANDS_MAX = 16384, /* what a server takes in one message */
};

/* --- endpoints --- */

enum endpoint_state {
    ENDPOINT_IDLE,      /* -> RESOLVING [dial] */
    ENDPOINT_RESOLVING, /* a name is looked up -> DIALLING [connect_to] · IDLE [endpoint_fail] */
    ENDPOINT_DIALLING,  /* connect() runs   -> GREETING [connected] · IDLE [endpoint_fail] */
    ENDPOINT_GREETING,  /* waits for the server's settings -> READY [read_socket] · IDLE [endpoint_fail] */
    ENDPOINT_READY,     /* takes calls      -> IDLE [endpoint_fail] */
};

struct endpoint {
    struct lockstep_client *client;
    char address[LOCKSTEP_ENDPOINT_BYTES_MAX]; /* as it was given: HOST:PORT */
    bool listed;                               /* by the owner; else learnt from a redirect */
    enum endpoint_state state;
    bool watched_for_writing; /* EPOLLOUT is armed */
    bool draining;            /* the server said GOAWAY */
    int fd;
    struct lookup *lookup;     /* RESOLVING; IDLE: one that outlived its dial */
    struct grpc_client *codec; /* GREETING, READY */
    uint64_t dialled_ns;
    uint32_t owed;      /* answers: calls and stream messages */
    uint64_t heard_ns;  /* bytes came, or the first owed answer was asked for */
    uint64_t failed_ns; /* last failure; 0 = none yet */
    uint64_t retry_ns;  /* no dial before */
    uint32_t failures;  /* in a row */
    uint8_t *out;       /* CLIENT_IO_BYTES, from out_at to out_end not yet taken by the socket */
    size_t out_at, out_end;
    char cause[LOCKSTEP_TEXT_BYTES_MAX]; /* what is wrong with it now; "" = nothing known */
};

/* What the user pointer of a codec's call points at; the first member of both. */
enum call_owner { CALL_OPERATION = 1, CALL_STREAM = 2, CALL_NOBODY = 3 };

/* --- operations --- */

enum operation_kind {
    OPERATION_PROPOSE,
    OPERATION_QUERY,
    OPERATION_STATUS,
    OPERATION_TRANSFER,
    OPERATION_HEALTH,
    OPERATION_MEMBER,
    OPERATION_RECOVER,
    OPERATION_OUTCOME,
    OPERATION_OPEN_SESSION,
    OPERATION_KEEP_ALIVE,
};

enum operation_state {
    OPERATION_FREE,
    OPERATION_UNNUMBERED, /* in client->unnumbered, for a session with room -> WAITING [operation_number] */
    OPERATION_WAITING,    /* in client->waiting, for a connection   -> SENT [operation_place] */
    OPERATION_SLEEPING,   /* until due_ns                           -> WAITING [client_turn] */
    OPERATION_SENT,       /* a call runs -> SLEEPING, WAITING [attempt_failed] · FREE [operation_end] */
};

struct operation {
    enum call_owner owner;             /* CALL_OPERATION */
    struct operation *previous, *next; /* UNNUMBERED, WAITING, FREE */
    struct lockstep_client *client;
    enum operation_kind kind;
    enum operation_state state;
    uint64_t started_ns, deadline_ns;
    uint64_t due_ns; /* of the heap: the deadline, or earlier the end of a sleep */
    uint32_t heap_at;
    uint32_t deadline_ms;
    uint32_t attempts, redirects, pause_ms;
    struct endpoint *at; /* asked last; NULL = nobody yet */
    struct grpc_client_call *call;
    uint8_t *request; /* encoded, kept for another attempt */
    uint32_t request_bytes;
    uint64_t session, seq; /* of a proposal; 0 = none, or not yet */
    bool numbers_itself;   /* session and seq are this client's, at the end of the request */
    bool may_be_applied;   /* an earlier attempt has no answer that says otherwise */
    uint32_t quiet_ms;     /* after which an attempt on a quiet connection is given up; 0 = never */
    uint8_t *answer;       /* encoded; `small` if it fits */
    uint32_t answer_bytes;
    bool answered;
    bool broken;    /* a second answer, or one that found no memory */
    int last_error; /* of the last attempt; 0 = none yet */
    uint32_t retry_after_ms;
    union {
        lockstep_result_callback *result;
        lockstep_status_callback *status;
    } callback;
    void *context;
    uint8_t small[192];
};

struct operation_list {
    struct operation *first, *last;
};

/* --- sessions --- */

enum session_state { SESSION_NONE, SESSION_OPENING, SESSION_OPEN };

struct client_session {
    struct lockstep_client *client;
    struct lockstep_stream *stream; /* whose it is; NULL: of the proposals outside of streams */
    enum session_state state;
    uint64_t id;
    uint32_t window;
    uint32_t pause_ms;
    uint64_t expiry_ns;
    uint64_t touched_ns;      /* the cluster answered something of it last */
    uint64_t retry_ns;        /* nothing is asked before */
    struct operation *asking; /* OpenSession or KeepAlive that runs */
    int error;                /* why none could be opened; 0 = none was refused yet */
    uint64_t next_seq;
    uint64_t lowest; /* all below it have ended */
    bool runs[CLIENT_WINDOW_MAX];
};

/* --- streams --- */

enum stream_state {
    STREAM_SEEKING, /* which node leads? -> ASKING [stream_turn] */
    STREAM_ASKING,  /* a status operation runs -> OPEN, SEEKING [found] */
    STREAM_OPEN,    /* a call runs -> SEEKING [stream_call_end] */
};

struct stream_message {
    uint64_t tag;
    uint64_t deadline_ns;
    uint32_t count;
    uint32_t attempts; /* calls that it was sent on */
    uint64_t session, first_seq;
    uint8_t *bytes; /* in a session: kept for another attempt */
    size_t bytes_count;
};

struct lockstep_stream {
    enum call_owner owner; /* CALL_STREAM */
    struct lockstep_client *client;
    struct lockstep_stream *previous, *next;
    struct lockstep_stream_options options;
    enum stream_state state;
    struct operation *asking; /* ASKING */
    struct endpoint *at;
    struct grpc_client_call *call;
    uint64_t seek_ns; /* not before */
    uint32_t pause_ms;
    bool in_session;
    struct client_session session;
    uint32_t message_first, message_count; /* of the ring: taken, not answered */
    uint32_t sent_count;                   /* those of them that this call has */
    uint32_t command_count;                /* in all of them */
    uint32_t quiet_ms;                     /* after which a silent call is given up */
    struct stream_message *messages;       /* options.messages_max */
    struct lockstep_result *results;       /* options.commands_max */
};

/* --- the client --- */

struct lockstep_client {
    struct lockstep_client_options options;
    int epoll_fd;
    bool polling;               /* lk_asserts that nobody polls out of a callback */
    bool closing;               /* takes nothing new */
    bool fresh;                 /* an operation was queued since the last turn */
    bool told;                  /* a callback came out of this poll: what its caller waits for may be over */
    uint32_t dial_ms, quiet_ms; /* CLIENT_DIAL_MS, CLIENT_QUIET_MS; tests on a machine that stalls wait longer */
    struct pool pool;
    struct pool_budget requests; /* copies of requests and answers */
    uint32_t endpoint_count;
    uint32_t current;                   /* the endpoint that is asked next */
    uint64_t choose_again_ns;           /* as endpoint_choose left it, while operations wait */
    const struct endpoint *leader_hint; /* named by a redirect, last; NULL = none yet */
    struct endpoint endpoints[LOCKSTEP_ENDPOINTS_MAX];
    struct client_session session; /* of proposals outside of streams */
    struct operation_list waiting, unnumbered;
    struct operation *free_operations;
    struct operation **heap; /* by due_ns; operations_max */
    uint32_t heap_count;
    uint32_t heap_room;
    uint32_t running, internal; /* internal: those of them that nobody but the client asked for */
    struct lockstep_stream *streams;
    uint8_t *in; /* CLIENT_IO_BYTES */
    char trouble[CLIENT_WHY_BYTES_MAX * 4];
    struct {
        uint8_t *reply; /* from malloc */
        size_t reply_room;
        char endpoint[LOCKSTEP_ENDPOINT_BYTES_MAX];
        char text[CLIENT_WHY_BYTES_MAX * 4];
    } kept; /* what a _wait returns */
};

uint64_t client_now_ns(void);

/* Parse one HOST:PORT and add it, or find it. Where there is no room, a learnt one that nobody uses is forgotten.
 * Errors  LOCKSTEP_EINVAL with why; LOCKSTEP_EFULL: all are listed or in use. */
int endpoint_add(struct lockstep_client *client, const char *address, bool listed, struct endpoint **ret, char *why,
                 size_t why_room);
/* Work towards one READY endpoint, and return it if calls may be started on it now; NULL = wait. */
struct endpoint *endpoint_choose(struct lockstep_client *client, uint64_t now_ns);
/* The endpoint does not lead or cannot serve now: ask another one next. leader "" = not known. */
void endpoint_pass(struct endpoint *endpoint, struct grpc_text leader);
/* Close its connection, if any, and note why. Every call on it ends. */
void endpoint_fail(struct endpoint *endpoint, const char *phase, const char *cause, uint64_t now_ns);
/* It takes no new calls. */
void endpoint_drain(struct endpoint *endpoint);
/* Readiness from epoll. */
void endpoint_ready(struct endpoint *endpoint, uint32_t events);
/* Give the socket what the codec has. */
void endpoint_write(struct endpoint *endpoint);
/* An answer is expected, `count` have come or will not come. */
void endpoint_owe(struct endpoint *endpoint, uint64_t now_ns);
void endpoint_paid(struct endpoint *endpoint, uint32_t count);
/* It owes answers and has been silent for so long. */
bool endpoint_is_quiet(const struct endpoint *endpoint, uint64_t now_ns, uint32_t quiet_ms);
/* Whether any endpoint is connected or may be soon. */
bool endpoint_any_hope(const struct lockstep_client *client);
/* The time since when every listed endpoint has failed to be dialled at least once; 0 = not all have. */
uint64_t endpoint_all_failed_ns(const struct lockstep_client *client);
/* Dials that take too long, connections that were drained. */
void endpoint_turn(struct endpoint *endpoint, uint64_t now_ns);
/* When endpoint_turn or endpoint_write has something to do though nothing was received; UINT64_MAX = never. */
uint64_t endpoint_deadline_ns(const struct endpoint *endpoint);
void endpoint_close(struct endpoint *endpoint);

/* How one call ended, in the library's words. */
struct attempt {
    int error;
    bool not_appended; /* the trailer said so */
    uint32_t retry_after_ms;
    struct grpc_text leader; /* the trailer; empty = none */
    char text[LOCKSTEP_TEXT_BYTES_MAX];
};
/* What a status means by itself. */
int attempt_error(enum grpc_status status);
void attempt_read(const struct grpc_client_result *result, struct attempt *ret);

/* Queue one, with room for its request, whose request_bytes the caller fills.
 * Errors  EFULL, ETOOBIG, ECLOSED. Allocates while the number of running operations grows. */
int operation_start(struct lockstep_client *client, enum operation_kind kind, size_t request_bytes,
                    uint32_t deadline_ms, struct operation **ret);
/* End it without a callback. */
void operation_drop(struct operation *operation);
/* Give waiting operations to the chosen endpoint. */
void operation_place(struct lockstep_client *client, uint64_t now_ns);
/* Ends of sleeps, deadlines. */
void operation_turn(struct lockstep_client *client, uint64_t now_ns);
void operation_answer(struct operation *operation, const uint8_t *bytes, size_t n);
void operation_call_end(struct operation *operation, const struct grpc_client_result *result);
/* Give seqs, as far as the session's window goes. */
void operation_number(struct lockstep_client *client);
/* No session was to be had: those that began before that end, unless time may help. */
void operation_fail_unnumbered(struct lockstep_client *client, uint64_t started_ns, int error, const char *text);
/* End all with ECLOSED; then free the free ones. */
void operation_close_all(struct lockstep_client *client);
void operation_free_all(struct lockstep_client *client);

void session_init(struct client_session *session, struct lockstep_client *client, struct lockstep_stream *stream);
/* Open it if it is wanted, keep it if it is there. */
void session_turn(struct client_session *session, bool wanted, uint64_t now_ns);
uint64_t session_deadline_ns(const struct client_session *session, bool wanted);
/* The cluster answered something of session id; it said that there is no such session. */
void session_touched(struct client_session *session, uint64_t id);
void session_ended(struct client_session *session, uint64_t id);
/* Say goodbye to the cluster without waiting for an answer. */
void session_close(struct client_session *session);
/* The next seq; false: no session, or its window is full. It runs until it has ended. */
bool session_next_seq(struct client_session *session, uint64_t *ret);
void session_seq_ended(struct client_session *session, uint64_t id, uint64_t seq);

void stream_turn(struct lockstep_stream *stream, uint64_t now_ns);
uint64_t stream_deadline_ns(const struct lockstep_stream *stream);
void stream_answer(struct lockstep_stream *stream, const uint8_t *bytes, size_t n);
void stream_call_end(struct lockstep_stream *stream, const struct grpc_client_result *result);
/* There is no session for it now. */
void stream_refused(struct lockstep_stream *stream, int error, const char *text);

/* --- messages: the sizes are exact --- */

size_t message_proposal_bytes(const struct lockstep_proposal *proposal);
size_t message_proposal_write(uint8_t *to, const struct lockstep_proposal *proposal);
/* Session and seq behind a proposal that was written without them. */
enum { MESSAGE_NUMBER_BYTES = 18 };
size_t message_number_write(uint8_t *to, uint64_t session, uint64_t seq);
/* session 0: each has its own session and seq; else theirs are that one and first_seq, first_seq + 1, ... */
size_t message_proposals_bytes(const struct lockstep_proposal *proposals, uint32_t count, uint64_t session,
                               uint64_t first_seq);
size_t message_proposals_write(uint8_t *to, const struct lockstep_proposal *proposals, uint32_t count, uint64_t session,
                               uint64_t first_seq);
size_t message_query_bytes(const struct lockstep_query *query);
size_t message_query_write(uint8_t *to, const struct lockstep_query *query);
/* A message whose field 1 is a name: TransferLeaderRequest, HealthCheckRequest. */
size_t message_name_bytes(const char *name);
size_t message_name_write(uint8_t *to, const char *name);

/* What answers say, into *ret; views of the input. LOCKSTEP_EPROTO: not such a message. */
int message_proposal_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret);
int message_outcome_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret);
int message_query_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret);
int message_status_read(const uint8_t *bytes, size_t n, struct lockstep_status *ret);
size_t message_member_change_bytes(const struct lockstep_member_change *change);
size_t message_member_change_write(uint8_t *to, const struct lockstep_member_change *change);
int message_member_change_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret);
int message_transfer_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret);
size_t message_recover_bytes(const char *cluster, uint64_t cluster_id, uint64_t member_id);
size_t message_recover_write(uint8_t *to, const char *cluster, uint64_t cluster_id, uint64_t member_id);
int message_recover_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret);
int message_health_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret);
/* The results of one stream message; EPROTO also when they are not exactly `count`.
 * text  LOCKSTEP_TEXT_BYTES_MAX bytes that the results of failed commands point into */
int message_results_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret, uint32_t count, char *text);
/* Copy at most room - 1 bytes and end them with 0. */
void message_text(char *to, size_t room, const uint8_t *bytes, size_t n);

#endif
