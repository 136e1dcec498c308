/* SPDX-License-Identifier: Apache-2.0 */
/* stream.c - many commands a message on one long call, answered in the order sent.
 * Thread: the owner's. Owns: the ring of messages that were sent and not answered, room for one message's results.
 *
 *   SEEKING -> ASKING [stream_turn] -> OPEN [found] -> SEEKING [stream_call_end, overdue]
 *                                   -> SEEKING [found: this node does not lead]
 *
 * 1  A stream asks for the leader before it opens (one Status call), so that no message goes to a node that would
 *    refuse it.
 * 2  An answer belongs to the oldest message. One that does not fit it (other count, broken) ends the call.
 * 3  The oldest message's deadline is the stream's: messages are answered in order, so no later one can be due.
 * 4  In a session every message is kept as it was sent, and sent again on the next call, before any new one and in order,
 *    until it is answered or its deadline has passed. An answer in which any command lacks its outcome is no answer: the
 *    next one will have it.
 * 5  Without a session nothing is sent twice: what was unanswered when a call ended is unknown (C3). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "client/internal.h"

int lockstep_stream_open(struct lockstep_client *client, const struct lockstep_stream_options *options,
                         struct lockstep_stream **ret)
{
    if (client->closing) return LOCKSTEP_ECLOSED;
    struct lockstep_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return LOCKSTEP_ENOMEM;
    struct lockstep_stream_options *o = &stream->options;
    memcpy(o, options, options->size < sizeof *o ? options->size : sizeof *o);
    if (o->messages_max == 0) o->messages_max = 16;
    if (o->commands_max == 0) o->commands_max = 256;
    if (o->deadline_ms == 0) o->deadline_ms = client->options.deadline_ms;
    int rc = LOCKSTEP_EINVAL;
    stream->in_session = !client->options.no_session;
    uint32_t commands_max = stream->in_session ? CLIENT_WINDOW_MAX : CLIENT_STREAM_COMMANDS_MAX;
    if (o->answered == NULL || o->messages_max > CLIENT_STREAM_MESSAGES_MAX || o->commands_max > commands_max)
        goto fail;
    rc = LOCKSTEP_ENOMEM;
    stream->messages = calloc(o->messages_max, sizeof stream->messages[0]);
    stream->results = calloc(o->commands_max, sizeof stream->results[0]);
    if (stream->messages == NULL || stream->results == NULL) goto fail;
    stream->owner = CALL_STREAM;
    stream->client = client;
    session_init(&stream->session, client, stream);
    stream->quiet_ms = client->quiet_ms;
    stream->state = STREAM_SEEKING;
    stream->next = client->streams;
    if (client->streams != NULL) client->streams->previous = stream;
    client->streams = stream;
    *ret = stream;
    return 0;
fail:
    free(stream->messages);
    free(stream->results);
    free(stream);
    return rc;
}

static struct stream_message *message_at(struct lockstep_stream *stream, uint32_t nth)
{
    return &stream->messages[(stream->message_first + nth) % stream->options.messages_max];
}

/* The oldest message is answered, by stream->results. */
static void end_message(struct lockstep_stream *stream)
{
    struct stream_message message = *message_at(stream, 0);
    stream->message_first = (stream->message_first + 1) % stream->options.messages_max;
    stream->message_count--;
    stream->command_count -= message.count;
    if (stream->sent_count > 0) {
        stream->sent_count--;
        endpoint_paid(stream->at, 1);
    }
    pool_give(&stream->client->requests, message.bytes);
    for (uint32_t i = 0; i < message.count; i++) {
        stream->results[i].session = message.session;
        stream->results[i].seq = message.session != 0 ? message.first_seq + i : 0;
    }
    stream->client->told = true;
    stream->options.answered(stream->options.context, message.tag, stream->results, message.count);
}

/* The oldest message ends like this, all its commands. Its owner may send new ones into the room it gets, if the stream
 * is open; it is not when this is called. */
static void fail_message(struct lockstep_stream *stream, int error, enum lockstep_fate fate, const char *text)
{
    const char *endpoint = stream->at != NULL ? stream->at->address : "";
    for (uint32_t i = 0; i < message_at(stream, 0)->count; i++)
        stream->results[i] = (struct lockstep_result){.error = error, .fate = fate, .endpoint = endpoint, .text = text};
    end_message(stream);
}

/* Back to SEEKING. Outside of a session everything unanswered ends; in one, what is late. */
static void lose(struct lockstep_stream *stream, int error, enum lockstep_fate fate, const char *text, bool at_once)
{
    uint64_t now_ns = client_now_ns();
    if (at_once)
        stream->pause_ms = 0;
    else
        stream->pause_ms = stream->pause_ms == 0 ? CLIENT_RETRY_MS_MIN : stream->pause_ms * 2;
    if (stream->pause_ms > CLIENT_RETRY_MS_MAX) stream->pause_ms = CLIENT_RETRY_MS_MAX;
    stream->seek_ns = now_ns + stream->pause_ms * CLIENT_MS_NS;
    if (stream->state == STREAM_OPEN) endpoint_paid(stream->at, stream->sent_count);
    stream->sent_count = 0;
    stream->state = STREAM_SEEKING;
    stream->call = NULL;
    while (stream->message_count > 0 && (!stream->in_session || message_at(stream, 0)->deadline_ns <= now_ns))
        fail_message(stream, error, fate, text);
    stream->client->told = true;
    if (stream->options.lost != NULL) stream->options.lost(stream->options.context, error, text);
}

void lockstep_stream_close(struct lockstep_stream *stream)
{
    if (stream == NULL) return;
    struct lockstep_client *client = stream->client;
    if (stream->state == STREAM_ASKING) operation_drop(stream->asking);
    if (stream->state == STREAM_OPEN) {
        grpc_client_cancel(stream->call);
        endpoint_paid(stream->at, stream->sent_count);
    }
    stream->sent_count = 0;
    stream->state = STREAM_SEEKING;
    stream->seek_ns = UINT64_MAX;
    while (stream->message_count > 0) fail_message(stream, LOCKSTEP_ECLOSED, LOCKSTEP_UNKNOWN, "the stream was closed");
    session_close(&stream->session);
    if (stream->previous != NULL)
        stream->previous->next = stream->next;
    else
        client->streams = stream->next;
    if (stream->next != NULL) stream->next->previous = stream->previous;
    free(stream->messages);
    free(stream->results);
    free(stream);
}

/* --- finding the leader --- */

static void open_call(struct lockstep_stream *stream, struct endpoint *endpoint)
{
    struct grpc_client_call *call;
    int rc = endpoint->state == ENDPOINT_READY && !endpoint->draining
                 ? grpc_client_start(endpoint->codec, "/lockstep.v1.Lockstep/ProposeStream", 0, NULL, 0, stream, &call)
                 : LOCKSTEP_ECLOSED;
    if (rc != 0) {
        lose(stream, LOCKSTEP_EUNAVAILABLE, LOCKSTEP_NOT_APPENDED, lockstep_error_text(rc), false);
        return;
    }
    endpoint->cause[0] = 0;
    stream->state = STREAM_OPEN;
    stream->pause_ms = 0;
    stream->call = call;
    stream->at = endpoint;
}

/* Messages that this call does not have yet, in order, as far as it takes them. */
static void send_again(struct lockstep_stream *stream, uint64_t now_ns)
{
    while (stream->state == STREAM_OPEN && stream->sent_count < stream->message_count) {
        struct stream_message *message = message_at(stream, stream->sent_count);
        if (grpc_client_message(stream->call, message->bytes, message->bytes_count) != 0) return;
        message->attempts++;
        stream->sent_count++;
        endpoint_owe(stream->at, now_ns);
    }
}

static void found(void *context, const struct lockstep_result *result, const struct lockstep_status *status)
{
    struct lockstep_stream *stream = context;
    struct endpoint *endpoint = stream->asking->at; /* NULL: nobody was asked */
    stream->state = STREAM_SEEKING;
    stream->asking = NULL;
    if (stream->client->closing) return;
    if (result->error != 0) {
        lose(stream, result->error, LOCKSTEP_NOT_APPENDED, result->text, false);
        return;
    }
    if (strcmp(status->role, "leader") == 0) {
        open_call(stream, endpoint);
        return;
    }
    /* The first hop to the leader is made at once; after that, nodes that disagree are given time. */
    bool at_once = status->leader_client[0] != 0 && stream->pause_ms == 0;
    if (status->leader_client[0] == 0)
        snprintf(endpoint->cause, sizeof endpoint->cause, "no leader is known (%s)", status->role);
    endpoint_pass(endpoint, grpc_text(status->leader_client));
    stream->pause_ms = stream->pause_ms == 0 ? CLIENT_RETRY_MS_MIN : stream->pause_ms * 2;
    if (stream->pause_ms > CLIENT_RETRY_MS_MAX) stream->pause_ms = CLIENT_RETRY_MS_MAX;
    stream->seek_ns = at_once ? 0 : client_now_ns() + stream->pause_ms * CLIENT_MS_NS;
}

/* The oldest message is late, or nothing is heard of it. ret  true: the call was given up */
static bool give_up(struct lockstep_stream *stream, uint64_t now_ns)
{
    char text[LOCKSTEP_TEXT_BYTES_MAX];
    if (stream->message_count == 0) return false;
    bool late = now_ns >= message_at(stream, 0)->deadline_ns;
    bool open = stream->state == STREAM_OPEN;
    bool quiet = open && stream->in_session && endpoint_is_quiet(stream->at, now_ns, stream->quiet_ms);
    if (!late && !quiet) return false;
    if (late)
        snprintf(text, sizeof text, "no answer within %" PRIu32 " ms", stream->options.deadline_ms);
    else
        snprintf(text, sizeof text, "nothing was heard for %" PRIu32 " ms", stream->quiet_ms);
    if (!open) { /* in a session: the next call is being sought */
        while (stream->message_count > 0 && now_ns >= message_at(stream, 0)->deadline_ns)
            fail_message(stream, LOCKSTEP_ETIMEDOUT, LOCKSTEP_UNKNOWN, text);
        return false;
    }
    uint32_t quiet_ms = stream->quiet_ms;
    snprintf(stream->at->cause, sizeof stream->at->cause, "%s", text);
    grpc_client_cancel(stream->call);
    endpoint_pass(stream->at, (struct grpc_text){NULL, 0});
    lose(stream, late ? LOCKSTEP_ETIMEDOUT : LOCKSTEP_EUNKNOWN, LOCKSTEP_UNKNOWN, text, false);
    stream->quiet_ms =
        2 * quiet_ms; /* of the next one: a cluster that is only slow must not be asked ever more often */
    return true;
}

void stream_turn(struct lockstep_stream *stream, uint64_t now_ns)
{
    if (stream->in_session) session_turn(&stream->session, true, now_ns);
    if (give_up(stream, now_ns)) return;
    send_again(stream, now_ns);
    if (stream->state != STREAM_SEEKING || now_ns < stream->seek_ns) return;
    struct operation *operation;
    if (operation_start(stream->client, OPERATION_STATUS, 0, stream->options.deadline_ms, &operation) != 0) {
        stream->seek_ns = now_ns + CLIENT_RETRY_MS_MIN * CLIENT_MS_NS; /* as many operations as are allowed */
        return;
    }
    operation->callback.status = found;
    operation->context = stream;
    stream->asking = operation;
    stream->state = STREAM_ASKING;
}

uint64_t stream_deadline_ns(const struct lockstep_stream *stream)
{
    uint64_t deadline_ns = stream->state == STREAM_SEEKING ? stream->seek_ns : UINT64_MAX;
    uint64_t session_ns = stream->in_session ? session_deadline_ns(&stream->session, true) : UINT64_MAX;
    if (session_ns < deadline_ns) deadline_ns = session_ns;
    if (stream->message_count == 0) return deadline_ns;
    uint64_t late_ns = stream->messages[stream->message_first].deadline_ns;
    if (late_ns < deadline_ns) deadline_ns = late_ns;
    if (stream->state != STREAM_OPEN || !stream->in_session || stream->at->owed == 0) return deadline_ns;
    uint64_t quiet_ns = stream->at->heard_ns + (stream->quiet_ms + 1) * CLIENT_MS_NS;
    return quiet_ns < deadline_ns ? quiet_ns : deadline_ns;
}

/* --- messages --- */

/* A message of so many commands may be sent now. */
static bool takes(const struct lockstep_stream *stream, uint32_t count)
{
    if (stream->state != STREAM_OPEN || stream->sent_count < stream->message_count) return false;
    if (stream->message_count == stream->options.messages_max) return false;
    if (!stream->in_session) return true;
    return stream->session.state == SESSION_OPEN && stream->command_count + count <= stream->session.window;
}

uint32_t lockstep_stream_room(const struct lockstep_stream *stream)
{
    if (!takes(stream, stream->options.commands_max)) return 0;
    uint32_t room = stream->options.messages_max - stream->message_count;
    if (!stream->in_session) return room;
    uint32_t by_window = (stream->session.window - stream->command_count) / stream->options.commands_max;
    return by_window < room ? by_window : room;
}

const char *lockstep_stream_endpoint(const struct lockstep_stream *stream)
{
    return stream->state == STREAM_OPEN ? stream->at->address : "";
}

int lockstep_stream_send(struct lockstep_stream *stream, const struct lockstep_proposal *proposals, uint32_t count,
                         uint64_t tag)
{
    if (count == 0 || count > stream->options.commands_max) return LOCKSTEP_EINVAL;
    uint64_t session = stream->in_session ? stream->session.id : 0, first_seq = stream->session.next_seq;
    for (uint32_t i = 0; stream->in_session && i < count; i++)
        if (proposals[i].session != 0) return LOCKSTEP_EINVAL;
    if (!takes(stream, count)) return LOCKSTEP_EFULL;
    size_t bytes = message_proposals_bytes(proposals, count, session, first_seq);
    if (bytes > LOCKSTEP_MESSAGE_BYTES_MAX) return LOCKSTEP_ETOOBIG;
    uint8_t *kept = NULL, *to;
    if (stream->in_session) {
        kept = pool_take(&stream->client->requests, bytes + 1);
        if (kept == NULL) return LOCKSTEP_EFULL;
    }
    if (grpc_client_claim(stream->call, bytes, &to) != 0) {
        pool_give(&stream->client->requests, kept);
        return LOCKSTEP_EFULL;
    }
    message_proposals_write(to, proposals, count, session, first_seq);
    if (kept != NULL) memcpy(kept, to, bytes);
    grpc_client_commit(stream->call, bytes);
    uint64_t now_ns = client_now_ns();
    *message_at(stream, stream->message_count) = (struct stream_message){
        .tag = tag,
        .count = count,
        .deadline_ns = now_ns + stream->options.deadline_ms * CLIENT_MS_NS,
        .attempts = 1,
        .session = session,
        .first_seq = first_seq,
        .bytes = kept,
        .bytes_count = bytes,
    };
    stream->message_count++;
    stream->sent_count++;
    stream->command_count += count;
    if (stream->in_session) stream->session.next_seq += count;
    endpoint_owe(stream->at, now_ns);
    return 0;
}

/* Whether a command may still get its outcome by being sent again. */
static bool is_open(const struct lockstep_result *result)
{
    switch (result->error) {
    case LOCKSTEP_EUNKNOWN:
    case LOCKSTEP_EUNAVAILABLE:
    case LOCKSTEP_ENOTLEADER:
    case LOCKSTEP_EFULL: return true;
    default: return false;
    }
}

/* The session has ended: what was sent once only is surely not applied, the rest may be. */
static void session_gone(struct lockstep_stream *stream, const struct stream_message *message)
{
    session_ended(&stream->session, message->session);
    if (message->attempts > 1) return;
    for (uint32_t i = 0; i < message->count; i++)
        if (stream->results[i].error == LOCKSTEP_ENOTFOUND) stream->results[i].fate = LOCKSTEP_NOT_APPENDED;
}

void stream_answer(struct lockstep_stream *stream, const uint8_t *bytes, size_t n)
{
    lk_assert(stream->state == STREAM_OPEN);
    struct stream_message message = {0};
    if (stream->sent_count > 0) message = *message_at(stream, 0);
    char text[LOCKSTEP_TEXT_BYTES_MAX];
    if (stream->sent_count == 0 || message_results_read(bytes, n, stream->results, message.count, text) != 0) {
        grpc_client_cancel(stream->call);
        lose(stream, LOCKSTEP_EPROTO, LOCKSTEP_UNKNOWN, "the answer is not what lockstep.v1 says", false);
        return;
    }
    stream->quiet_ms = stream->client->quiet_ms;
    bool open = false, gone = false;
    for (uint32_t i = 0; i < message.count; i++) {
        stream->results[i].endpoint = stream->at->address;
        open = open || is_open(&stream->results[i]);
        gone = gone || stream->results[i].error == LOCKSTEP_ENOTFOUND;
    }
    if (stream->in_session && open) {
        grpc_client_cancel(stream->call);
        endpoint_pass(stream->at, (struct grpc_text){NULL, 0});
        lose(stream, LOCKSTEP_EUNKNOWN, LOCKSTEP_UNKNOWN, text, false);
        return;
    }
    if (stream->in_session && gone)
        session_gone(stream, &message);
    else if (stream->in_session)
        session_touched(&stream->session, message.session);
    end_message(stream);
}

void stream_refused(struct lockstep_stream *stream, int error, const char *text)
{
    if (stream->state != STREAM_OPEN) return; /* it has no server either: who looks for one says why */
    if (stream->options.lost != NULL) stream->options.lost(stream->options.context, error, text);
}

void stream_call_end(struct lockstep_stream *stream, const struct grpc_client_result *result)
{
    struct attempt attempt;
    attempt_read(result, &attempt);
    if (attempt.error == 0) { /* a server that ends a stream before we do */
        attempt.error = LOCKSTEP_EUNAVAILABLE;
        snprintf(attempt.text, sizeof attempt.text, "the node ended the stream");
    }
    if (result->from_server) {
        snprintf(stream->at->cause, sizeof stream->at->cause, "%s", attempt.text);
        endpoint_pass(stream->at, attempt.leader);
    }
    enum lockstep_fate fate = attempt.not_appended && !stream->in_session ? LOCKSTEP_NOT_APPENDED : LOCKSTEP_UNKNOWN;
    bool passing = attempt.error == LOCKSTEP_ENOTLEADER || attempt.error == LOCKSTEP_EUNAVAILABLE;
    if (passing && !attempt.not_appended && stream->message_count > 0) attempt.error = LOCKSTEP_EUNKNOWN;
    lose(stream, attempt.error, fate, attempt.text, attempt.leader.bytes > 0);
}
