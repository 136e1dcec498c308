/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_client.c - calls on an nghttp2 client session.
 * Thread: the owner's. Owns: the session, the calls.
 *
 * A call for its owner: started -> messages, both ways -> ended [end_call, once] or cancelled. Its memory lives on until
 * nghttp2 closes the stream, because frames of a call that has ended may still be queued or under way.
 * The end is told when the server's side ends, not when the stream closes: a server that answers before the request
 * is complete has answered.
 * Source: RFC 9113; the gRPC project's PROTOCOL-HTTP2 document. */
#include "proto/grpc_client.h"

#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "proto/grpc_message.h"
#include "proto/grpc_session.h"

struct grpc_client_call {
    struct grpc_client *client;
    struct grpc_client_call *previous, *next;
    void *user;
    int32_t stream;
    bool ended;       /* for the owner: no callbacks any more */
    bool sent;        /* the request's headers have left */
    bool half_closed; /* no more messages from this side */
    bool deferred;    /* nghttp2 asked for data and there was none */
    bool was_full;    /* call_writable is owed */
    int http_status;  /* 0 = none yet */
    int status;       /* grpc-status; -1 = none yet */
    size_t window;    /* of the stream; grown for a message that would not fit */
    size_t header_bytes;
    struct grpc_inbox inbox;
    struct grpc_outbox outbox;
    char *message; /* grpc-message, decoded; NULL = none */
    size_t message_bytes;
    struct grpc_pairs *pairs; /* NULL = none */
};

struct grpc_client {
    struct grpc_client_limits limits;
    struct grpc_client_ops ops;
    void *owner;
    struct pool_budget protocol; /* nghttp2's memory, calls, metadata: bounded by the server's limit of calls */
    struct pool_budget messages; /* inboxes and outboxes */
    nghttp2_mem mem;
    nghttp2_session *session;
    struct grpc_client_call *calls;  /* all, ended ones included */
    struct grpc_client_call *recent; /* of the last frame */
    uint32_t call_count;             /* not ended */
    uint32_t stream_count;           /* calls in the list */
    struct grpc_rest rest;
    bool call_full;
    bool greeted, draining, failed;
    char authority[272];
};

enum { STATUS_NONE = -1, MESSAGE_BYTES_MAX = 1008 /* of other servers' longer texts; fills a piece of the pool */ };

static struct grpc_client_call *find(struct grpc_client *client, int32_t stream)
{
    if (client->recent != NULL && client->recent->stream == stream) return client->recent;
    struct grpc_client_call *call = nghttp2_session_get_stream_user_data(client->session, stream);
    if (call != NULL) client->recent = call;
    return call;
}

static void submitted(struct grpc_client *client, int rc)
{
    if (nghttp2_is_fatal(rc)) client->failed = true;
}

/* ---- the end of a call ---- */

static void let_go(struct grpc_client_call *call)
{
    lk_assert(!call->ended);
    lk_assert(call->client->call_count > 0);
    call->ended = true;
    call->client->call_count--;
}

static void end_call(struct grpc_client_call *call, const struct grpc_client_result *result)
{
    let_go(call);
    call->client->ops.call_end(call->client->owner, call, result);
}

static void end_locally(struct grpc_client_call *call, int status, const char *message, bool untouched)
{
    struct grpc_client_result result = {.status = status, .message = grpc_text(message), .untouched = untouched};
    end_call(call, &result);
}

/* The server's side has ended in order. */
static void end_by_server(struct grpc_client_call *call)
{
    if (call->status == STATUS_NONE && call->http_status != 200) {
        end_locally(call, (int)grpc_status_of_http(call->http_status),
                    "the answer is not gRPC; is this a lockstep port?", false);
    } else if (call->status == STATUS_NONE) {
        end_locally(call, GRPC_INTERNAL, "the answer ended without a status", false);
    } else if (call->status == GRPC_OK && !grpc_inbox_idle(&call->inbox)) {
        end_locally(call, GRPC_INTERNAL, "the answer ends inside a message", false);
    } else {
        struct grpc_client_result result = {
            .status = call->status, .message = {call->message, call->message_bytes}, .from_server = true};
        if (call->pairs != NULL) {
            result.pairs = call->pairs->pair;
            result.pair_count = call->pairs->count;
        }
        end_call(call, &result);
    }
}

static void end_by_reset(struct grpc_client_call *call, uint32_t error)
{
    switch (error) {
    case NGHTTP2_REFUSED_STREAM:
        end_locally(call, GRPC_UNAVAILABLE, "the server refused the call before looking at it", true);
        return;
    case NGHTTP2_CANCEL: end_locally(call, GRPC_CANCELLED, "the server cancelled the call", false); return;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        end_locally(call, GRPC_RESOURCE_EXHAUSTED, "the server asks for fewer calls", false);
        return;
    default: end_locally(call, GRPC_INTERNAL, nghttp2_http2_strerror(error), false); return;
    }
}

static void reset(struct grpc_client_call *call)
{
    struct grpc_client *client = call->client;
    submitted(client, nghttp2_submit_rst_stream(client->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL));
}

/* ---- what comes in ---- */

static int keep_pair(struct grpc_client_call *call, struct grpc_text name, struct grpc_text value)
{
    if (call->pairs == NULL) {
        call->pairs = pool_take(&call->client->protocol, sizeof *call->pairs);
        if (call->pairs == NULL) return NGHTTP2_ERR_CALLBACK_FAILURE;
        grpc_pairs_init(call->pairs);
    }
    grpc_pairs_add(call->pairs, name, value);
    return 0;
}

static int keep_message(struct grpc_client_call *call, struct grpc_text value)
{
    if (call->message == NULL) {
        call->message = pool_take(&call->client->protocol, MESSAGE_BYTES_MAX);
        if (call->message == NULL) return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    call->message_bytes = grpc_percent_decode(value, call->message, MESSAGE_BYTES_MAX);
    return 0;
}

/* Decimal digits, at most three; otherwise fallback. */
static int small_number(struct grpc_text text, int fallback)
{
    int value = 0;
    if (text.bytes < 1 || text.bytes > 3) return fallback;
    for (size_t i = 0; i < text.bytes; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') return fallback;
        value = value * 10 + (text.at[i] - '0');
    }
    return value;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct grpc_client_call *call = find(user, frame->hd.stream_id);
    if (call != NULL) call->header_bytes = 0;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name_bytes, size_t name_count,
                     const uint8_t *value_bytes, size_t value_count, uint8_t flags, void *user)
{
    (void)session;
    (void)flags;
    struct grpc_text name = {(const char *)name_bytes, name_count};
    struct grpc_text value = {(const char *)value_bytes, value_count};
    struct grpc_client_call *call = find(user, frame->hd.stream_id);
    if (call == NULL || call->ended) return 0;
    call->header_bytes += name_count + value_count + 32;
    if (call->header_bytes > GRPC_HEADER_LIST_BYTES_MAX) return 0;
    if (grpc_text_equals(name, "grpc-status"))
        call->status = small_number(value, GRPC_UNKNOWN);
    else if (grpc_text_equals(name, ":status"))
        call->http_status = small_number(value, 0);
    else if (grpc_text_equals(name, "grpc-message"))
        return keep_message(call, value);
    else if (grpc_pairs_wanted(name))
        return keep_pair(call, name, value);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct grpc_client *client = user;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        if (!client->draining && client->ops.draining != NULL) client->ops.draining(client->owner);
        client->draining = true;
        return 0;
    }
    if (frame->hd.type == NGHTTP2_SETTINGS) client->greeted = true;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    struct grpc_client_call *call = find(client, frame->hd.stream_id);
    if (call == NULL || call->ended) return 0;
    end_by_server(call);
    if (!call->half_closed) reset(call); /* the server has answered: what is left of the request is of no use */
    return 0;
}

static void message_refused(struct grpc_client_call *call, int error)
{
    if (error == LOCKSTEP_ETOOBIG)
        end_locally(call, GRPC_RESOURCE_EXHAUSTED, "the answer is over this client's message limit", false);
    else if (error == LOCKSTEP_ENOMEM)
        end_locally(call, GRPC_RESOURCE_EXHAUSTED, "the answer is over this connection's memory budget", false);
    else
        end_locally(call, GRPC_INTERNAL, "the answer is compressed, which was not asked for", false);
    reset(call);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t n, void *user)
{
    (void)flags;
    struct grpc_client *client = user;
    int rc = nghttp2_session_consume_connection(session, n);
    if (rc != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
    struct grpc_client_call *call = find(client, stream);
    if (call == NULL) return 0;
    size_t prefixes_bytes = 0;
    while (!call->ended) {
        const uint8_t *message;
        size_t message_bytes;
        rc = grpc_inbox_next(&call->inbox, &client->messages, client->limits.message_bytes_max, &bytes, &n, &message,
                             &message_bytes);
        if (rc < 0) message_refused(call, rc);
        if (rc <= 0) break;
        prefixes_bytes += GRPC_PREFIX_BYTES;
        client->ops.call_message(client->owner, call, message, message_bytes);
    }
    if (call->ended) return 0;
    if (prefixes_bytes > 0) rc = nghttp2_session_consume_stream(session, stream, prefixes_bytes);
    if (rc == 0) rc = grpc_session_window_fits(session, stream, &call->inbox, &call->window);
    return rc == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    if (frame->hd.type != NGHTTP2_HEADERS) return 0;
    struct grpc_client_call *call = find(user, frame->hd.stream_id);
    if (call != NULL) call->sent = true;
    return 0;
}

static void call_free(struct grpc_client_call *call)
{
    struct grpc_client *client = call->client;
    grpc_inbox_close(&call->inbox, &client->messages);
    grpc_outbox_close(&call->outbox, &client->messages);
    pool_give(&client->protocol, call->message);
    pool_give(&client->protocol, call->pairs);
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        client->calls = call->next;
    if (call->next != NULL) call->next->previous = call->previous;
    if (client->recent == call) client->recent = NULL;
    client->stream_count--;
    pool_give(&client->protocol, call);
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
    (void)session;
    struct grpc_client_call *call = find(user, stream);
    if (call == NULL) return 0;
    if (!call->ended) end_by_reset(call, error);
    call_free(call);
    return 0;
}

/* ---- what goes out ---- */

static ssize_t read_messages(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                             nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)stream;
    struct grpc_client *client = user;
    struct grpc_client_call *call = source->ptr;
    size_t used = grpc_outbox_read(&call->outbox, &client->messages, to, room);
    if (call->outbox.bytes == 0 && call->half_closed) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (used == 0) {
        call->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)used;
}

static void resume(struct grpc_client_call *call)
{
    if (!call->deferred) return;
    call->deferred = false;
    submitted(call->client, nghttp2_session_resume_data(call->client->session, call->stream));
}

int grpc_client_start(struct grpc_client *client, const char *path, uint64_t timeout_ns, const struct grpc_pair *pairs,
                      size_t pair_count, void *user, struct grpc_client_call **ret)
{
    lk_assert(pair_count <= GRPC_PAIRS_MAX);
    if (client->failed || client->draining) return LOCKSTEP_ECLOSED;
    if (client->stream_count >=
        nghttp2_session_get_remote_settings(client->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
        return LOCKSTEP_EFULL;
    struct grpc_client_call *call = pool_take(&client->protocol, sizeof *call);
    if (call == NULL) return LOCKSTEP_EFULL;
    *call = (struct grpc_client_call){
        .client = client, .user = user, .status = STATUS_NONE, .window = client->limits.call_window_bytes};

    nghttp2_nv nv[GRPC_PAIRS_MAX + 8];
    size_t count = 0;
    char timeout[GRPC_TIMEOUT_TEXT_BYTES_MAX];
    nv[count++] = grpc_nv_static(":method", "POST");
    nv[count++] = grpc_nv_static(":scheme", "http");
    nv[count++] = grpc_nv_static(":path", path);
    nv[count++] = grpc_nv_static(":authority", client->authority);
    nv[count++] = grpc_nv_static("te", "trailers");
    nv[count++] = grpc_nv_static("content-type", "application/grpc");
    nv[count++] = grpc_nv_static("user-agent", "lockstep-c");
    if (timeout_ns != 0) {
        struct grpc_text value = {timeout, grpc_timeout_format(timeout_ns, timeout)};
        nv[count++] = grpc_nv_copied(grpc_text("grpc-timeout"), value);
    }
    for (size_t i = 0; i < pair_count; i++) nv[count++] = grpc_nv_copied(pairs[i].name, pairs[i].value);
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_messages};
    call->stream = nghttp2_submit_request(client->session, NULL, nv, count, &provider, call);
    if (call->stream < 0) {
        int rc = call->stream == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE ? LOCKSTEP_ECLOSED : LOCKSTEP_EFULL;
        client->draining |= rc == LOCKSTEP_ECLOSED; /* 2^30 calls: this connection is used up */
        pool_give(&client->protocol, call);
        return rc;
    }
    call->next = client->calls;
    if (client->calls != NULL) client->calls->previous = call;
    client->calls = call;
    client->stream_count++;
    client->call_count++;
    *ret = call;
    return 0;
}

void *grpc_client_user(const struct grpc_client_call *call)
{
    return call->user;
}

int grpc_client_claim(struct grpc_client_call *call, size_t bytes_max, uint8_t **ret)
{
    lk_assert(!call->ended);
    lk_assert(!call->half_closed);
    size_t waiting = call->outbox.bytes;
    if (waiting == 0 || waiting + bytes_max + GRPC_PREFIX_BYTES <= call->client->limits.call_send_bytes_max)
        return grpc_outbox_claim(&call->outbox, &call->client->messages, bytes_max, ret);
    call->was_full = true;
    call->client->call_full = true;
    return LOCKSTEP_EFULL;
}

void grpc_client_commit(struct grpc_client_call *call, size_t bytes)
{
    grpc_outbox_commit(&call->outbox, bytes);
    resume(call);
}

int grpc_client_message(struct grpc_client_call *call, const uint8_t *bytes, size_t n)
{
    uint8_t *to;
    int rc = grpc_client_claim(call, n, &to);
    if (rc != 0) return rc;
    if (n > 0) memcpy(to, bytes, n);
    grpc_client_commit(call, n);
    return 0;
}

void grpc_client_half_close(struct grpc_client_call *call)
{
    lk_assert(!call->ended);
    call->half_closed = true;
    resume(call);
}

void grpc_client_consumed(struct grpc_client_call *call, size_t n)
{
    lk_assert(!call->ended);
    submitted(call->client, nghttp2_session_consume_stream(call->client->session, call->stream, n));
}

void grpc_client_cancel(struct grpc_client_call *call)
{
    let_go(call);
    reset(call);
}

/* ---- the connection ---- */

static int session_open(struct grpc_client *client)
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
    client->mem = grpc_session_memory(&client->protocol);
    rc = nghttp2_session_client_new3(&client->session, callbacks, client, option, &client->mem);
done:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return rc;
}

int grpc_client_open(struct pool *pool, const struct grpc_client_limits *limits, const struct grpc_client_ops *ops,
                     void *owner, const char *authority, struct grpc_client **ret)
{
    lk_assert(limits->message_bytes_max < INT32_MAX / 4);
    lk_assert(limits->call_window_bytes <= INT32_MAX);
    if (strlen(authority) >= sizeof((struct grpc_client *)0)->authority) return LOCKSTEP_EINVAL;
    struct grpc_client *client = malloc(sizeof *client);
    if (client == NULL) return LOCKSTEP_ENOMEM;
    *client = (struct grpc_client){.limits = *limits,
                                   .ops = *ops,
                                   .owner = owner,
                                   .protocol = {.pool = pool, .bytes_max = pool->bytes_max},
                                   .messages = {.pool = pool, .bytes_max = limits->messages_bytes_max}};
    memcpy(client->authority, authority, strlen(authority) + 1);
    if (session_open(client) != 0) goto fail;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)limits->call_window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GRPC_HEADER_LIST_BYTES_MAX},
    };
    if (nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) !=
        0)
        goto fail;
    if (nghttp2_session_set_local_window_size(client->session, NGHTTP2_FLAG_NONE, 0, GRPC_CONNECTION_WINDOW_BYTES) != 0)
        goto fail;
    *ret = client;
    return 0;
fail:
    grpc_client_close(client); /* only memory can be short */
    return LOCKSTEP_ENOMEM;
}

void grpc_client_close(struct grpc_client *client)
{
    if (client == NULL) return;
    client->draining = true; /* a callback that starts a call is told so */
    for (struct grpc_client_call *call = client->calls; call != NULL; call = call->next)
        if (!call->ended) end_locally(call, GRPC_UNAVAILABLE, "the connection was lost", !call->sent);
    nghttp2_session_del(client->session);
    while (client->calls != NULL) call_free(client->calls);
    lk_assert(client->call_count == 0);
    lk_assert(client->protocol.bytes == 0);
    lk_assert(client->messages.bytes == 0);
    free(client);
}

int grpc_client_receive(struct grpc_client *client, const uint8_t *bytes, size_t n)
{
    if (client->failed) return LOCKSTEP_EPROTO;
    ssize_t rc = nghttp2_session_mem_recv(client->session, bytes, n);
    if (rc >= 0 && !client->failed) return 0;
    client->failed = true;
    return rc == NGHTTP2_ERR_NOMEM || rc == NGHTTP2_ERR_CALLBACK_FAILURE ? LOCKSTEP_ENOMEM : LOCKSTEP_EPROTO;
}

/* Callbacks may end calls, but calls are freed only inside nghttp2; started ones come in at the list's head. */
static void tell_writable(struct grpc_client *client)
{
    if (!client->call_full) return;
    bool left = false;
    for (struct grpc_client_call *call = client->calls; call != NULL; call = call->next) {
        if (!call->was_full || call->ended) continue;
        if (call->outbox.bytes <= client->limits.call_send_bytes_max / 2) {
            call->was_full = false;
            if (client->ops.call_writable != NULL) client->ops.call_writable(client->owner, call);
        }
        left |= call->was_full;
    }
    client->call_full = left;
}

size_t grpc_client_send(struct grpc_client *client, uint8_t *to, size_t room)
{
    size_t used = grpc_session_send(client->session, &client->rest, to, room, &client->failed);
    if (used > 0) tell_writable(client);
    return used;
}

bool grpc_client_wants_write(const struct grpc_client *client)
{
    return client->rest.bytes > 0 || (!client->failed && nghttp2_session_want_write(client->session));
}

bool grpc_client_greeted(const struct grpc_client *client)
{
    return client->greeted;
}

bool grpc_client_finished(const struct grpc_client *client)
{
    if (client->rest.bytes > 0) return false;
    return client->failed || (client->draining && client->stream_count == 0) ||
           (!nghttp2_session_want_read(client->session) && !nghttp2_session_want_write(client->session));
}

uint32_t grpc_client_call_count(const struct grpc_client *client)
{
    return client->call_count;
}
