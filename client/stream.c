/* SPDX-License-Identifier: Apache-2.0 */
/* stream.c - many commands a message on one long call, answered in the order sent.
 * Thread: the owner's. Owns: the ring of messages that were sent and not answered, room for one message's results.
 *
 *   SEEKING -> ASKING [stream_turn] -> OPEN [found] -> SEEKING [stream_call_end, overdue]
 *                                   -> SEEKING [found: this node does not lead]
 *
 * 1  A stream asks for the leader before it opens (one Status call), so that no message goes to a node that would
 *    refuse it: a refused message cannot be sent again without changing the order (C3).
 * 2  An answer belongs to the oldest message. One that does not fit it (other count, broken) ends the call: what it
 *    would have said is unknown.
 * 3  The oldest message's deadline is the stream's: messages are answered in order, so no later one can be due. */
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
    if (o->commands_max == 0) o->commands_max = 1024;
    if (o->deadline_ms == 0) o->deadline_ms = client->options.deadline_ms;
    int rc = LOCKSTEP_EINVAL;
    if (o->answered == NULL || o->messages_max > CLIENT_STREAM_MESSAGES_MAX ||
        o->commands_max > CLIENT_STREAM_COMMANDS_MAX)
        goto fail;
    rc = LOCKSTEP_ENOMEM;
    stream->messages = calloc(o->messages_max, sizeof stream->messages[0]);
    stream->results = calloc(o->commands_max, sizeof stream->results[0]);
    if (stream->messages == NULL || stream->results == NULL) goto fail;
    stream->owner = CALL_STREAM;
    stream->client = client;
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

/* Every message that is not answered ends like this. Its owner may send new ones into the room it gets, if the stream
 * is open; it is not when this is called. */
static void end_messages(struct lockstep_stream *stream, int error, enum lockstep_fate fate, const char *text)
{
    const char *endpoint = stream->at != NULL ? stream->at->address : "";
    while (stream->message_count > 0) {
        struct stream_message message = stream->messages[stream->message_first];
        stream->message_first = (stream->message_first + 1) % stream->options.messages_max;
        stream->message_count--;
        for (uint32_t i = 0; i < message.count; i++)
            stream->results[i] =
                (struct lockstep_result){.error = error, .fate = fate, .endpoint = endpoint, .text = text};
        stream->client->told = true;
        stream->options.answered(stream->options.context, message.tag, stream->results, message.count);
    }
}

/* Back to SEEKING; everything unanswered ends. */
static void lose(struct lockstep_stream *stream, int error, enum lockstep_fate fate, const char *text, bool at_once)
{
    if (at_once)
        stream->pause_ms = 0;
    else
        stream->pause_ms = stream->pause_ms == 0 ? CLIENT_RETRY_MS_MIN : stream->pause_ms * 2;
    if (stream->pause_ms > CLIENT_RETRY_MS_MAX) stream->pause_ms = CLIENT_RETRY_MS_MAX;
    stream->seek_ns = client_now_ns() + stream->pause_ms * CLIENT_MS_NS;
    if (stream->state == STREAM_OPEN) endpoint_paid(stream->at, stream->message_count);
    stream->state = STREAM_SEEKING;
    stream->call = NULL;
    end_messages(stream, error, fate, text);
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
        endpoint_paid(stream->at, stream->message_count);
    }
    stream->state = STREAM_SEEKING;
    stream->seek_ns = UINT64_MAX;
    end_messages(stream, LOCKSTEP_ECLOSED, LOCKSTEP_UNKNOWN, "the stream was closed");
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

void stream_turn(struct lockstep_stream *stream, uint64_t now_ns)
{
    if (stream->state == STREAM_SEEKING && now_ns >= stream->seek_ns) {
        struct operation *operation;
        if (operation_start(stream->client, OPERATION_STATUS, 0, stream->options.deadline_ms, &operation) != 0) {
            stream->seek_ns = now_ns + CLIENT_RETRY_MS_MIN * CLIENT_MS_NS; /* as many operations as are allowed */
            return;
        }
        operation->callback.status = found;
        operation->context = stream;
        stream->asking = operation;
        stream->state = STREAM_ASKING;
        return;
    }
    if (stream->state != STREAM_OPEN || stream->message_count == 0) return;
    if (now_ns < stream->messages[stream->message_first].deadline_ns) return;
    char text[LOCKSTEP_TEXT_BYTES_MAX];
    snprintf(text, sizeof text, "no answer within %" PRIu32 " ms", stream->options.deadline_ms);
    snprintf(stream->at->cause, sizeof stream->at->cause, "%s", text);
    grpc_client_cancel(stream->call);
    endpoint_pass(stream->at, (struct grpc_text){NULL, 0});
    lose(stream, LOCKSTEP_ETIMEDOUT, LOCKSTEP_UNKNOWN, text, false);
}

uint64_t stream_deadline_ns(const struct lockstep_stream *stream)
{
    if (stream->state == STREAM_SEEKING) return stream->seek_ns;
    if (stream->state == STREAM_OPEN && stream->message_count > 0)
        return stream->messages[stream->message_first].deadline_ns;
    return UINT64_MAX;
}

/* --- messages --- */

uint32_t lockstep_stream_room(const struct lockstep_stream *stream)
{
    return stream->state == STREAM_OPEN ? stream->options.messages_max - stream->message_count : 0;
}

const char *lockstep_stream_endpoint(const struct lockstep_stream *stream)
{
    return stream->state == STREAM_OPEN ? stream->at->address : "";
}

int lockstep_stream_send(struct lockstep_stream *stream, const struct lockstep_proposal *proposals, uint32_t count,
                         uint64_t tag)
{
    if (count == 0 || count > stream->options.commands_max) return LOCKSTEP_EINVAL;
    size_t bytes = message_proposals_bytes(proposals, count);
    if (bytes > LOCKSTEP_MESSAGE_BYTES_MAX) return LOCKSTEP_ETOOBIG;
    if (lockstep_stream_room(stream) == 0) return LOCKSTEP_EFULL;
    uint8_t *to;
    if (grpc_client_claim(stream->call, bytes, &to) != 0) return LOCKSTEP_EFULL;
    grpc_client_commit(stream->call, message_proposals_write(to, proposals, count));
    uint32_t at = (stream->message_first + stream->message_count++) % stream->options.messages_max;
    uint64_t now_ns = client_now_ns();
    stream->messages[at] = (struct stream_message){
        .tag = tag, .count = count, .deadline_ns = now_ns + stream->options.deadline_ms * CLIENT_MS_NS};
    endpoint_owe(stream->at, now_ns);
    return 0;
}

void stream_answer(struct lockstep_stream *stream, const uint8_t *bytes, size_t n)
{
    lk_assert(stream->state == STREAM_OPEN);
    struct stream_message message = {0};
    if (stream->message_count > 0) message = stream->messages[stream->message_first];
    char text[LOCKSTEP_TEXT_BYTES_MAX];
    if (stream->message_count == 0 || message_results_read(bytes, n, stream->results, message.count, text) != 0) {
        grpc_client_cancel(stream->call);
        lose(stream, LOCKSTEP_EPROTO, LOCKSTEP_UNKNOWN, "the answer is not what lockstep.v1 says", false);
        return;
    }
    for (uint32_t i = 0; i < message.count; i++) stream->results[i].endpoint = stream->at->address;
    stream->message_first = (stream->message_first + 1) % stream->options.messages_max;
    stream->message_count--;
    endpoint_paid(stream->at, 1);
    stream->options.answered(stream->options.context, message.tag, stream->results, message.count);
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
    enum lockstep_fate fate = attempt.not_appended ? LOCKSTEP_NOT_APPENDED : LOCKSTEP_UNKNOWN;
    bool passing = attempt.error == LOCKSTEP_ENOTLEADER || attempt.error == LOCKSTEP_EUNAVAILABLE;
    if (passing && !attempt.not_appended && stream->message_count > 0) attempt.error = LOCKSTEP_EUNKNOWN;
    lose(stream, attempt.error, fate, attempt.text, attempt.leader.bytes > 0);
}
