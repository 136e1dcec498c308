/* SPDX-License-Identifier: Apache-2.0 */
/* session.c - sessions: opened, kept, said goodbye to; and the numbers of the proposals that are not in a stream.
 * Thread: the owner's. Owns: nothing but what client and streams embed.
 *
 *   NONE -> OPENING [session_turn] -> OPEN [opened] -> NONE [session_ended: the cluster says that it is no more]
 *
 * 1  A session is opened when somebody waits for it, and kept by a KeepAlive whenever nothing was answered for a third
 *    of its time. To open one twice harms nobody: the one that nobody knows ends.
 * 2  A seq is one command for ever. It is given when the window has room, so seq s is never sent before all at or below
 *    s - window have ended.
 * 3  A session that has ended is replaced for commands that surely nobody applied, and for no others. */
#include <string.h>

#include "base/assert.h"
#include "client/internal.h"
#include "proto/messages.h"

static enum call_owner nobody = CALL_NOBODY;

void session_init(struct client_session *session, struct lockstep_client *client, struct lockstep_stream *stream)
{
    *session = (struct client_session){.client = client, .stream = stream, .state = SESSION_NONE};
}

static void pause_session(struct client_session *session)
{
    session->pause_ms = session->pause_ms == 0 ? CLIENT_RETRY_MS_MIN : session->pause_ms * 2;
    if (session->pause_ms > CLIENT_RETRY_MS_MAX) session->pause_ms = CLIENT_RETRY_MS_MAX;
    session->retry_ns = client_now_ns() + session->pause_ms * CLIENT_MS_NS;
}

static void opened(void *context, const struct lockstep_result *result)
{
    struct client_session *session = context;
    struct lockstep_client *client = session->client;
    uint64_t asked_ns = session->asking->started_ns;
    const char *text = result->text;
    struct session_response response = {0};
    session->asking = NULL;
    session->state = SESSION_NONE;
    session->error = result->error;
    if (client->closing) return;
    if (result->error == 0 && (session_response_read(result->reply, result->reply_bytes, &response) != 0 ||
                               response.session == 0 || response.window == 0 || response.expiry_ms == 0)) {
        session->error = LOCKSTEP_EPROTO;
        text = "the answer to OpenSession is not what lockstep.v1 says";
    }
    if (session->error != 0) {
        pause_session(session);
        if (session->stream == NULL)
            operation_fail_unnumbered(client, asked_ns, session->error, text);
        else
            stream_refused(session->stream, session->error, text);
        return;
    }
    session->state = SESSION_OPEN;
    session->id = response.session;
    session->window = response.window < CLIENT_WINDOW_MAX ? response.window : CLIENT_WINDOW_MAX;
    session->expiry_ns = response.expiry_ms * CLIENT_MS_NS;
    session->touched_ns = client_now_ns();
    session->pause_ms = 0;
    session->next_seq = session->lowest = 1;
    memset(session->runs, 0, sizeof session->runs);
    if (session->stream == NULL) operation_number(client);
}

static void kept(void *context, const struct lockstep_result *result)
{
    struct client_session *session = context;
    session->asking = NULL;
    if (result->error == 0) {
        session->touched_ns = client_now_ns();
        session->pause_ms = 0;
    } else if (result->error == LOCKSTEP_ENOTFOUND) {
        session_ended(session, session->id);
    } else {
        pause_session(session);
    }
}

static uint64_t keep_due_ns(const struct client_session *session)
{
    uint64_t due_ns = session->touched_ns + session->expiry_ns / 3;
    return due_ns > session->retry_ns ? due_ns : session->retry_ns;
}

uint64_t session_deadline_ns(const struct client_session *session, bool wanted)
{
    if (session->asking != NULL) return UINT64_MAX;
    if (session->state == SESSION_OPEN) return keep_due_ns(session);
    return wanted ? session->retry_ns : UINT64_MAX;
}

void session_turn(struct client_session *session, bool wanted, uint64_t now_ns)
{
    if (now_ns < session_deadline_ns(session, wanted)) return;
    bool keeps = session->state == SESSION_OPEN;
    struct session_request request = {.session = session->id};
    uint64_t keep_ms = session->expiry_ns / 3 / CLIENT_MS_NS + 1;
    uint32_t deadline_ms = keeps && keep_ms < session->client->options.deadline_ms ? (uint32_t)keep_ms : 0;
    struct operation *operation;
    int rc = operation_start(session->client, keeps ? OPERATION_KEEP_ALIVE : OPERATION_OPEN_SESSION,
                             keeps ? session_request_bytes(&request) : 0, deadline_ms, &operation);
    if (rc != 0) {
        pause_session(session);
        return;
    }
    if (keeps) session_request_put(operation->request, &request);
    operation->callback.result = keeps ? kept : opened;
    operation->context = session;
    session->asking = operation;
    if (!keeps) session->state = SESSION_OPENING;
}

void session_touched(struct client_session *session, uint64_t id)
{
    if (session->state == SESSION_OPEN && session->id == id) session->touched_ns = client_now_ns();
}

void session_ended(struct client_session *session, uint64_t id)
{
    if (session->state != SESSION_OPEN || session->id != id) return;
    if (session->asking != NULL) operation_drop(session->asking);
    session->asking = NULL;
    session->state = SESSION_NONE;
    session->error = 0; /* of the next one, nothing is known yet */
}

void session_close(struct client_session *session)
{
    if (session->asking != NULL) operation_drop(session->asking);
    session->asking = NULL;
    if (session->state != SESSION_OPEN) return;
    session->state = SESSION_NONE;
    struct lockstep_client *client = session->client;
    struct session_request request = {.session = session->id};
    uint8_t bytes[32];
    lk_assert(session_request_bytes(&request) <= sizeof bytes);
    size_t n = (size_t)(session_request_put(bytes, &request) - bytes);
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        struct endpoint *endpoint = &client->endpoints[(client->current + i) % client->endpoint_count];
        struct grpc_client_call *call;
        if (endpoint->state != ENDPOINT_READY || endpoint->draining) continue;
        if (grpc_client_start(endpoint->codec, "/lockstep.v1.Lockstep/CloseSession", CLIENT_GOODBYE_MS * CLIENT_MS_NS,
                              NULL, 0, &nobody, &call) != 0)
            continue;
        if (grpc_client_message(call, bytes, n) == 0)
            grpc_client_half_close(call);
        else
            grpc_client_cancel(call);
        return;
    }
}

/* --- seqs of proposals --- */

bool session_next_seq(struct client_session *session, uint64_t *ret)
{
    if (session->state != SESSION_OPEN || session->next_seq - session->lowest >= session->window) return false;
    *ret = session->next_seq++;
    session->runs[*ret % CLIENT_WINDOW_MAX] = true;
    return true;
}

void session_seq_ended(struct client_session *session, uint64_t id, uint64_t seq)
{
    if (session->state != SESSION_OPEN || session->id != id) return;
    session->runs[seq % CLIENT_WINDOW_MAX] = false;
    while (session->lowest < session->next_seq && !session->runs[session->lowest % CLIENT_WINDOW_MAX])
        session->lowest++;
}
