/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_server.c - calls on an nghttp2 server session.
 * Thread: the owner's. Owns: the session, the calls.
 *
 * A call's answer:   (nothing) -> replies [submit_response] -> end of data [read_reply] -> trailers [submit_trailer]
 *                    (nothing) -> trailers-only [submit_only_trailers]
 *                    (nothing) -> plain HTTP refusal [refuse]
 * HEADERS, DATA*, trailers: the last DATA says EOF without END_STREAM, and the trailers are submitted from there, so
 * that they can never pass the HEADERS. A client that has not half-closed gets RST_STREAM(NO_ERROR) behind them.
 *
 * A call lives from its first header to the close of its stream; the owner sees the part from call_open to finish or
 * cancel (invariant 2 of the header). nghttp2 allocates from the connection's budget: when that is spent the session
 * fails, which is the hard bound of invariant 4.
 * Source: RFC 9113; the gRPC project's PROTOCOL-HTTP2 document. */
#include "proto/grpc_server.h"

#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "proto/grpc_message.h"
#include "proto/grpc_session.h"

enum {
    PATH_BYTES_MAX = 128,    /* the longest path is that of reflection v1alpha, 70 bytes */
    ENCODING_BYTES_MAX = 32, /* of grpc-encoding, for the error text */
};

/* Where a call's answer stands. */
enum call_answer {
    ANSWER_NONE,     /* nothing submitted */
    ANSWER_MESSAGES, /* HEADERS submitted, DATA provider attached */
    ANSWER_ENDED,    /* trailers (or a refusal) submitted */
};

struct grpc_call {
    struct grpc_conn *conn;
    struct grpc_call *previous, *next;
    void *user;
    int32_t stream;
    enum call_answer answer;
    bool opened;      /* call_open was called, and neither finish nor cancel since */
    bool finished;    /* no callbacks any more; what still comes in is dropped */
    bool half_closed; /* the client's side has ended */
    bool deferred;    /* nghttp2 asked for data and there was none */
    bool was_full;    /* call_writable is owed */
    bool is_post, is_grpc, timeout_bad, path_long;
    bool delivered; /* the owner has got a message */
    uint8_t path_bytes, encoding_bytes;
    size_t window;       /* of the stream; grown for a message that would not fit */
    size_t header_bytes; /* as HTTP/2 counts them */
    uint64_t timeout_ns;
    struct grpc_inbox inbox;
    struct grpc_outbox outbox;
    struct grpc_pairs *metadata; /* NULL = none */
    enum grpc_status status;     /* of the finish */
    struct grpc_pairs *trailers; /* of the finish, while replies wait; NULL = none */
    char path[PATH_BYTES_MAX];
    char encoding[ENCODING_BYTES_MAX];
};

struct grpc_conn {
    struct grpc_conn_limits limits;
    struct grpc_conn_ops ops;
    void *owner;
    struct pool_budget protocol; /* nghttp2's memory, calls, metadata */
    struct pool_budget messages; /* inboxes and outboxes */
    nghttp2_mem mem;
    nghttp2_session *session;
    struct grpc_call *calls;  /* all, finished ones that still send included */
    struct grpc_call *recent; /* the call of the last frame: headers and data come in runs */
    uint32_t call_count;      /* opened */
    size_t queued_bytes;
    struct grpc_rest rest;
    bool call_full; /* at least one call is owed a call_writable */
    bool failed;
};

static struct grpc_call *find(struct grpc_conn *conn, int32_t stream)
{
    if (conn->recent != NULL && conn->recent->stream == stream) return conn->recent;
    struct grpc_call *call = nghttp2_session_get_stream_user_data(conn->session, stream);
    if (call != NULL) conn->recent = call;
    return call;
}

/* A submit fails only for want of memory (invariant 4) or because the stream is closing: then its close frees the call. */
static void submitted(struct grpc_conn *conn, int rc)
{
    if (nghttp2_is_fatal(rc)) conn->failed = true;
}

/* ---- the end of an answer ---- */

enum { NV_MAX = GRPC_PAIRS_MAX + 1 + 3 };

static const char CONTENT_TYPE[] = "application/grpc";

static size_t nv_add_trailers(nghttp2_nv *nv, size_t count, enum grpc_status status, const struct grpc_pairs *pairs)
{
    nv[count++] = grpc_nv_static("grpc-status", grpc_status_text(status));
    for (size_t i = 0; pairs != NULL && i < pairs->count; i++)
        nv[count++] = grpc_nv_copied(pairs->pair[i].name, pairs->pair[i].value);
    return count;
}

static void submit_only_trailers(struct grpc_call *call, enum grpc_status status, const struct grpc_pairs *pairs)
{
    nghttp2_nv nv[NV_MAX];
    nv[0] = grpc_nv_static(":status", "200");
    nv[1] = grpc_nv_static("content-type", CONTENT_TYPE);
    size_t count = nv_add_trailers(nv, 2, status, pairs);
    call->answer = ANSWER_ENDED;
    submitted(call->conn, nghttp2_submit_response(call->conn->session, call->stream, nv, count, NULL));
}

static int submit_trailers(struct grpc_call *call)
{
    nghttp2_nv nv[NV_MAX];
    size_t count = nv_add_trailers(nv, 0, call->status, call->trailers);
    call->answer = ANSWER_ENDED;
    return nghttp2_submit_trailer(call->conn->session, call->stream, nv, count);
}

/* Not gRPC: an HTTP status and nothing else. */
static void refuse(struct grpc_call *call, const char *http_status)
{
    nghttp2_nv nv = grpc_nv_static(":status", http_status);
    call->finished = true;
    call->answer = ANSWER_ENDED;
    submitted(call->conn, nghttp2_submit_response(call->conn->session, call->stream, &nv, 1, NULL));
}

static void resume(struct grpc_call *call)
{
    if (!call->deferred) return;
    call->deferred = false;
    submitted(call->conn, nghttp2_session_resume_data(call->conn->session, call->stream));
}

static void end_answer(struct grpc_call *call, enum grpc_status status, const struct grpc_pairs *pairs)
{
    struct grpc_conn *conn = call->conn;
    lk_assert(!call->finished);
    call->finished = true;
    if (call->answer == ANSWER_NONE) {
        submit_only_trailers(call, status, pairs);
        return;
    }
    lk_assert(call->answer == ANSWER_MESSAGES);
    call->status = status;
    if (pairs->count > 0) {
        call->trailers = pool_take(&conn->protocol, sizeof *pairs);
        if (call->trailers == NULL) { /* a status that lost its outcome would say less than is true */
            conn->failed = true;
            return;
        }
        grpc_pairs_copy(call->trailers, pairs);
    }
    resume(call);
}

/* The owner's part is over. */
static void let_go(struct grpc_call *call)
{
    lk_assert(call->opened);
    lk_assert(call->conn->call_count > 0);
    call->opened = false;
    call->conn->call_count--;
}

static void cancel(struct grpc_call *call)
{
    if (!call->opened) return;
    let_go(call);
    call->conn->ops.call_cancel(call->conn->owner, call);
}

/* This codec ends a call for what the client sent. */
static void end_by_codec(struct grpc_call *call, enum grpc_status status, const char *message)
{
    struct grpc_pairs pairs;
    grpc_pairs_init(&pairs);
    cancel(call);
    grpc_inbox_close(&call->inbox, &call->conn->messages);
    grpc_pairs_add_message(&pairs, grpc_text(message));
    if (status == GRPC_UNIMPLEMENTED) grpc_pairs_add(&pairs, grpc_text("grpc-accept-encoding"), grpc_text("identity"));
    struct grpc_pair untouched = call->conn->limits.untouched;
    if (!call->delivered && untouched.name.bytes > 0) grpc_pairs_add(&pairs, untouched.name, untouched.value);
    end_answer(call, status, &pairs);
}

/* ---- what comes in ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_conn *conn = user;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0; /* a request's trailers say nothing in gRPC */
    struct grpc_call *call = pool_take(&conn->protocol, sizeof *call);
    if (call == NULL) return NGHTTP2_ERR_CALLBACK_FAILURE;
    memset(call, 0, offsetof(struct grpc_call, path));
    call->conn = conn;
    call->stream = frame->hd.stream_id;
    call->window = conn->limits.call_window_bytes;
    call->next = conn->calls;
    if (conn->calls != NULL) conn->calls->previous = call;
    conn->calls = call;
    conn->recent = call;
    return nghttp2_session_set_stream_user_data(session, call->stream, call);
}

/* "application/grpc", alone or with "+proto", perhaps with parameters. */
static bool content_type_is_grpc(struct grpc_text value)
{
    static const char proto[] = "+proto";
    size_t bytes = sizeof CONTENT_TYPE - 1;
    if (value.bytes < bytes || memcmp(value.at, CONTENT_TYPE, bytes) != 0) return false;
    if (value.bytes >= bytes + sizeof proto - 1 && memcmp(value.at + bytes, proto, sizeof proto - 1) == 0)
        bytes += sizeof proto - 1;
    return value.bytes == bytes || value.at[bytes] == ';' || value.at[bytes] == ' ';
}

static int keep_metadata(struct grpc_call *call, struct grpc_text name, struct grpc_text value)
{
    if (call->metadata == NULL) {
        call->metadata = pool_take(&call->conn->protocol, sizeof *call->metadata);
        if (call->metadata == NULL) return NGHTTP2_ERR_CALLBACK_FAILURE;
        grpc_pairs_init(call->metadata);
    }
    grpc_pairs_add(call->metadata, name, value);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name_bytes, size_t name_count,
                     const uint8_t *value_bytes, size_t value_count, uint8_t flags, void *user)
{
    (void)session;
    (void)flags;
    struct grpc_conn *conn = user;
    struct grpc_text name = {(const char *)name_bytes, name_count};
    struct grpc_text value = {(const char *)value_bytes, value_count};
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct grpc_call *call = find(conn, frame->hd.stream_id);
    if (call == NULL) return 0;
    call->header_bytes += name_count + value_count + 32;
    if (call->header_bytes > GRPC_HEADER_LIST_BYTES_MAX) return 0; /* refused when the list is complete */
    switch (name_count) { /* most names are told apart by their length, so that each costs one comparison */
    case 5:
        if (!grpc_text_equals(name, ":path")) return 0;
        call->path_long = value_count > PATH_BYTES_MAX;
        if (call->path_long) return 0;
        memcpy(call->path, value.at, value_count);
        call->path_bytes = (uint8_t)value_count;
        return 0;
    case 7:
        if (grpc_text_equals(name, ":method")) call->is_post = grpc_text_equals(value, "POST");
        return 0;
    case 12:
        if (grpc_text_equals(name, "content-type"))
            call->is_grpc = content_type_is_grpc(value);
        else if (grpc_text_equals(name, "grpc-timeout"))
            call->timeout_bad = grpc_timeout_parse(value, &call->timeout_ns) != 0;
        return 0;
    case 13:
        if (!grpc_text_equals(name, "grpc-encoding")) break;
        if (value_count > ENCODING_BYTES_MAX) value_count = ENCODING_BYTES_MAX;
        memcpy(call->encoding, value.at, value_count);
        call->encoding_bytes = (uint8_t)value_count;
        return 0;
    default: break;
    }
    return grpc_pairs_wanted(name) ? keep_metadata(call, name, value) : 0;
}

static void request_complete(struct grpc_call *call)
{
    struct grpc_conn *conn = call->conn;
    if (call->header_bytes > GRPC_HEADER_LIST_BYTES_MAX) {
        end_by_codec(call, GRPC_RESOURCE_EXHAUSTED, "the header list is over 8192 bytes; send less metadata");
    } else if (!call->is_post) {
        refuse(call, "405");
    } else if (!call->is_grpc) {
        refuse(call, "415");
    } else if (call->path_long) {
        end_by_codec(call, GRPC_UNIMPLEMENTED, "there is no such method");
    } else if (call->timeout_bad) {
        end_by_codec(call, GRPC_INVALID_ARGUMENT, "grpc-timeout is not 1 to 8 digits and a unit");
    } else {
        struct grpc_request request = {.path = {call->path, call->path_bytes}, .timeout_ns = call->timeout_ns};
        if (call->metadata != NULL) {
            request.pairs = call->metadata->pair;
            request.pair_count = call->metadata->count;
        }
        call->opened = true;
        conn->call_count++;
        conn->ops.call_open(conn->owner, call, &request);
    }
}

static void half_close(struct grpc_call *call)
{
    call->half_closed = true;
    if (call->finished) return;
    if (!grpc_inbox_idle(&call->inbox))
        end_by_codec(call, GRPC_INTERNAL, "the request ends inside a message");
    else
        call->conn->ops.call_half_close(call->conn->owner, call);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct grpc_conn *conn = user;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    struct grpc_call *call = find(conn, frame->hd.stream_id);
    if (call == NULL) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        /* Known before the owner answers: a refusal then needs no RST_STREAM behind it. */
        call->half_closed = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
        request_complete(call);
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) half_close(call);
    return 0;
}

static void message_refused(struct grpc_call *call, int error)
{
    struct grpc_text encoding = {call->encoding, call->encoding_bytes};
    switch (error) {
    case LOCKSTEP_ETOOBIG:
        end_by_codec(call, GRPC_RESOURCE_EXHAUSTED, "the message is over this server's limit; send a smaller one");
        return;
    case LOCKSTEP_ENOMEM:
        end_by_codec(call, GRPC_RESOURCE_EXHAUSTED,
                     "this connection has too many unfinished messages under way; send fewer at a time");
        return;
    default: break;
    }
    if (call->inbox.prefix[0] != 1)
        end_by_codec(call, GRPC_INTERNAL, "the message has unknown flags");
    else if (encoding.bytes == 0 || grpc_text_equals(encoding, "identity"))
        end_by_codec(call, GRPC_INTERNAL, "the message is compressed, and grpc-encoding names no compression");
    else
        end_by_codec(call, GRPC_UNIMPLEMENTED, "compressed messages are not supported; send identity");
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t n, void *user)
{
    (void)flags;
    struct grpc_conn *conn = user;
    int rc = nghttp2_session_consume_connection(session, n);
    if (rc != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
    struct grpc_call *call = find(conn, stream);
    if (call == NULL) return 0;
    size_t prefixes_bytes = 0;
    while (!call->finished) {
        const uint8_t *message;
        size_t message_bytes;
        rc = grpc_inbox_next(&call->inbox, &conn->messages, conn->limits.message_bytes_max, &bytes, &n, &message,
                             &message_bytes);
        if (rc < 0) message_refused(call, rc);
        if (rc <= 0) break;
        prefixes_bytes += GRPC_PREFIX_BYTES;
        call->delivered = true;
        conn->ops.call_message(conn->owner, call, message, message_bytes);
    }
    if (call->finished) return 0;
    if (prefixes_bytes > 0) rc = nghttp2_session_consume_stream(session, stream, prefixes_bytes);
    if (rc == 0) rc = grpc_session_window_fits(session, stream, &call->inbox, &call->window);
    return rc == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_conn *conn = user;
    if (frame->hd.type != NGHTTP2_HEADERS || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    struct grpc_call *call = find(conn, frame->hd.stream_id);
    if (call == NULL || call->half_closed) return 0;
    /* The answer is complete and the client still sends: tell it to stop (RFC 9113, 8.1). */
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
}

static void call_free(struct grpc_call *call)
{
    struct grpc_conn *conn = call->conn;
    lk_assert(conn->queued_bytes >= call->outbox.bytes);
    conn->queued_bytes -= call->outbox.bytes;
    grpc_inbox_close(&call->inbox, &conn->messages);
    grpc_outbox_close(&call->outbox, &conn->messages);
    pool_give(&conn->protocol, call->metadata);
    pool_give(&conn->protocol, call->trailers);
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        conn->calls = call->next;
    if (call->next != NULL) call->next->previous = call->previous;
    if (conn->recent == call) conn->recent = NULL;
    pool_give(&conn->protocol, call);
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
    (void)session;
    (void)error;
    struct grpc_call *call = find(user, stream);
    if (call == NULL) return 0;
    cancel(call);
    call_free(call);
    return 0;
}

/* ---- what goes out ---- */

static ssize_t read_replies(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                            nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)stream;
    struct grpc_conn *conn = user;
    struct grpc_call *call = source->ptr;
    size_t used = grpc_outbox_read(&call->outbox, &conn->messages, to, room);
    conn->queued_bytes -= used;
    if (call->outbox.bytes > 0) return (ssize_t)used;
    if (call->finished) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        int rc = submit_trailers(call);
        return nghttp2_is_fatal(rc) ? NGHTTP2_ERR_CALLBACK_FAILURE : (ssize_t)used;
    }
    if (used > 0) return (ssize_t)used;
    call->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
}

static bool fits(const struct grpc_call *call, size_t bytes)
{
    const struct grpc_conn *conn = call->conn;
    size_t all = bytes + GRPC_PREFIX_BYTES;
    if (call->outbox.bytes > 0 && call->outbox.bytes + all > conn->limits.call_send_bytes_max) return false;
    return conn->queued_bytes == 0 || conn->queued_bytes + all <= conn->limits.conn_send_bytes_max;
}

int grpc_call_claim(struct grpc_call *call, size_t bytes_max, uint8_t **ret)
{
    lk_assert(call->opened);
    if (fits(call, bytes_max)) return grpc_outbox_claim(&call->outbox, &call->conn->messages, bytes_max, ret);
    call->was_full = true;
    call->conn->call_full = true;
    return LOCKSTEP_EFULL;
}

void grpc_call_commit(struct grpc_call *call, size_t bytes)
{
    struct grpc_conn *conn = call->conn;
    lk_assert(call->opened);
    grpc_outbox_commit(&call->outbox, bytes);
    conn->queued_bytes += bytes + GRPC_PREFIX_BYTES;
    if (call->answer == ANSWER_NONE) {
        nghttp2_nv nv[] = {grpc_nv_static(":status", "200"), grpc_nv_static("content-type", CONTENT_TYPE)};
        nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_replies};
        call->answer = ANSWER_MESSAGES;
        submitted(conn, nghttp2_submit_response(conn->session, call->stream, nv, 2, &provider));
    } else {
        resume(call);
    }
}

int grpc_call_reply(struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    uint8_t *to;
    int rc = grpc_call_claim(call, n, &to);
    if (rc != 0) return rc;
    if (n > 0) memcpy(to, bytes, n);
    grpc_call_commit(call, n);
    return 0;
}

void grpc_call_finish(struct grpc_call *call, enum grpc_status status, struct grpc_text message,
                      const struct grpc_pair *pairs, size_t pair_count)
{
    struct grpc_pairs all;
    lk_assert(pair_count <= GRPC_PAIRS_MAX);
    let_go(call);
    grpc_pairs_init(&all);
    if (message.bytes > 0) grpc_pairs_add_message(&all, message);
    for (size_t i = 0; i < pair_count; i++) grpc_pairs_add(&all, pairs[i].name, pairs[i].value);
    end_answer(call, status, &all);
}

void grpc_call_consumed(struct grpc_call *call, size_t n)
{
    lk_assert(call->opened);
    if (call->half_closed) return; /* nothing more comes: credit would be of no use */
    submitted(call->conn, nghttp2_session_consume_stream(call->conn->session, call->stream, n));
}

void grpc_call_user_set(struct grpc_call *call, void *user)
{
    call->user = user;
}

void *grpc_call_user(const struct grpc_call *call)
{
    return call->user;
}

/* ---- the connection ---- */

static int session_open(struct grpc_conn *conn)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int rc = nghttp2_session_callbacks_new(&callbacks);
    if (rc != 0) goto done;
    rc = nghttp2_option_new(&option);
    if (rc != 0) goto done;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);

    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_continuations(option, 8);
    /* A client whose deadlines all pass at once resets every call it has; a hostile one never stops. */
    nghttp2_option_set_stream_reset_rate_limit(option, 4 * (uint64_t)conn->limits.calls_max, conn->limits.calls_max);
    conn->mem = grpc_session_memory(&conn->protocol);
    rc = nghttp2_session_server_new3(&conn->session, callbacks, conn, option, &conn->mem);
done:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return rc;
}

int grpc_conn_open(struct pool *pool, const struct grpc_conn_limits *limits, const struct grpc_conn_ops *ops,
                   void *owner, struct grpc_conn **ret)
{
    lk_assert(limits->message_bytes_max < INT32_MAX / 4);
    lk_assert(limits->call_window_bytes <= INT32_MAX);
    struct grpc_conn *conn = malloc(sizeof *conn);
    if (conn == NULL) return LOCKSTEP_ENOMEM;
    *conn = (struct grpc_conn){
        .limits = *limits,
        .ops = *ops,
        .owner = owner,
        .protocol = {.pool = pool, .bytes_max = GRPC_CONN_BYTES + (size_t)limits->calls_max * GRPC_CALL_BYTES},
        .messages = {.pool = pool, .bytes_max = limits->messages_bytes_max}};
    if (session_open(conn) != 0) goto fail;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits->calls_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)limits->call_window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GRPC_HEADER_LIST_BYTES_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    if (nghttp2_submit_settings(conn->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) != 0)
        goto fail;
    if (nghttp2_session_set_local_window_size(conn->session, NGHTTP2_FLAG_NONE, 0, GRPC_CONNECTION_WINDOW_BYTES) != 0)
        goto fail;
    *ret = conn;
    return 0;
fail:
    grpc_conn_close(conn); /* only memory can be short */
    return LOCKSTEP_ENOMEM;
}

void grpc_conn_close(struct grpc_conn *conn)
{
    if (conn == NULL) return;
    for (struct grpc_call *call = conn->calls; call != NULL; call = call->next) cancel(call);
    nghttp2_session_del(conn->session);
    while (conn->calls != NULL) call_free(conn->calls);
    lk_assert(conn->call_count == 0);
    lk_assert(conn->queued_bytes == 0);
    lk_assert(conn->protocol.bytes == 0);
    lk_assert(conn->messages.bytes == 0);
    free(conn);
}

int grpc_conn_receive(struct grpc_conn *conn, const uint8_t *bytes, size_t n)
{
    if (conn->failed) return LOCKSTEP_EPROTO;
    ssize_t rc = nghttp2_session_mem_recv(conn->session, bytes, n);
    if (rc >= 0 && !conn->failed) return 0;
    conn->failed = true;
    return rc == NGHTTP2_ERR_NOMEM || rc == NGHTTP2_ERR_CALLBACK_FAILURE ? LOCKSTEP_ENOMEM : LOCKSTEP_EPROTO;
}

/* Callbacks may finish calls, but calls are freed only inside nghttp2: the list stands still. */
static void tell_writable(struct grpc_conn *conn)
{
    if (!conn->call_full || conn->queued_bytes > conn->limits.conn_send_bytes_max / 2) return;
    bool left = false;
    for (struct grpc_call *call = conn->calls; call != NULL; call = call->next) {
        if (!call->was_full || !call->opened) continue;
        if (call->outbox.bytes > conn->limits.call_send_bytes_max / 2) {
            left = true;
            continue;
        }
        call->was_full = false;
        conn->ops.call_writable(conn->owner, call);
        left |= call->was_full;
    }
    conn->call_full = left;
}

size_t grpc_conn_send(struct grpc_conn *conn, uint8_t *to, size_t room)
{
    size_t used = grpc_session_send(conn->session, &conn->rest, to, room, &conn->failed);
    if (used > 0) tell_writable(conn);
    return used;
}

void grpc_conn_drain(struct grpc_conn *conn)
{
    submitted(conn,
              nghttp2_submit_goaway(conn->session, NGHTTP2_FLAG_NONE,
                                    nghttp2_session_get_last_proc_stream_id(conn->session), NGHTTP2_NO_ERROR, NULL, 0));
}

bool grpc_conn_finished(const struct grpc_conn *conn)
{
    if (conn->rest.bytes > 0) return false;
    return conn->failed || (!nghttp2_session_want_read(conn->session) && !nghttp2_session_want_write(conn->session));
}

uint32_t grpc_conn_call_count(const struct grpc_conn *conn)
{
    return conn->call_count;
}

size_t grpc_conn_queued_bytes(const struct grpc_conn *conn)
{
    return conn->queued_bytes + conn->rest.bytes;
}

size_t grpc_conn_held_bytes(const struct grpc_conn *conn)
{
    return conn->protocol.bytes + conn->messages.bytes;
}
