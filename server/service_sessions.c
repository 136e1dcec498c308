/* SPDX-License-Identifier: Apache-2.0 */
/* service_sessions.c - OpenSession, KeepAlive, CloseSession: commands of the host; Outcome: a read of its table.
 * Thread: loop. What a session is worth is decided at apply alone: nothing is looked up here. */
#include <string.h>

#include "server/front_internal.h"

static void session_propose(struct call *call, enum command_kind kind, uint64_t session)
{
    struct front *front = call->connection->front;
    uint32_t work = work_take(front, WORK_SESSION, call);
    if (work == WORK_NONE) {
        call_fail(call, LOCKSTEP_EFULL, "the request");
        return;
    }
    struct node_command command = {.kind = (uint16_t)kind, .session = session};
    int rc = node_propose(front->node, &command, call->may_forward, work);
    if (rc != 0) {
        work_free(front, work);
        call_fail(call, rc, "the request");
        return;
    }
    call->session_command = kind;
    call->work = work;
}

/* ret  false: the call has ended */
static bool request_read(struct call *call, const uint8_t *bytes, size_t n, struct session_request *ret)
{
    if (session_request_read(bytes, n, ret) == 0 && ret->session != 0) return true;
    call_fail(call, LOCKSTEP_EINVAL, "the request");
    return false;
}

void open_session_message(struct call *call, const uint8_t *bytes, size_t n)
{
    (void)bytes;
    (void)n;
    session_propose(call, COMMAND_SESSION_OPEN, 0);
}

void keep_alive_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct session_request request;
    if (request_read(call, bytes, n, &request)) session_propose(call, COMMAND_SESSION_KEEP, request.session);
}

void close_session_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct session_request request;
    if (request_read(call, bytes, n, &request)) session_propose(call, COMMAND_SESSION_CLOSE, request.session);
}

void session_answered(struct front *front, struct work *work, const struct node_outcome *outcome)
{
    struct call *call = work->call;
    call->work = WORK_NONE; /* it is being freed by the caller */
    if (outcome->error == LOCKSTEP_EFULL) {
        call_fail_full(call, "as many sessions are open as the group allows; unused ones end after a while");
        return;
    }
    if (outcome->error != 0) {
        call_fail(call, outcome->error, "the request");
        return;
    }
    const struct session_limits *limits = node_sessions(front->node);
    uint8_t bytes[64];
    struct session_response response = {
        .session = outcome->position, .expiry_ms = limits->expiry_ns / FRONT_MS, .window = limits->window};
    size_t n = call->session_command == COMMAND_SESSION_OPEN ? session_response_bytes(&response) : 0;
    lk_assert(n <= sizeof bytes);
    if (n > 0) session_response_put(bytes, &response);
    call_answer(call, bytes, n);
}

void outcome_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = call->connection->front;
    struct session_request request;
    if (!request_read(call, bytes, n, &request)) return;
    uint32_t work = work_take(front, WORK_OUTCOME, call);
    if (work == WORK_NONE) {
        call_fail(call, LOCKSTEP_EFULL, "the request");
        return;
    }
    struct node_query query = {.consistency = NODE_LINEARIZABLE, .session = request.session, .seq = request.seq};
    int rc = node_query(front->node, &query, call->may_forward, work);
    if (rc != 0) {
        work_free(front, work);
        call_fail(call, rc, "the request");
        return;
    }
    call->work = work;
}

void outcome_answered(struct front *front, struct work *work, const struct node_answer *answer)
{
    struct call *call = work->call;
    uint8_t *to;
    call->work = WORK_NONE;
    if (answer->error != 0 && answer->error != LOCKSTEP_EREPLIED) {
        call_fail(call, answer->error, "the request");
        return;
    }
    struct propose_result result = {.outcome = error_outcome(answer->error)};
    if (answer->error == 0 && answer->position == 0) result.outcome = PROPOSE_UNKNOWN;
    if (result.outcome == PROPOSE_APPLIED)
        result.response = (struct propose_response){.reply = answer->reply,
                                                    .reply_bytes = answer->reply_bytes,
                                                    .code = answer->code,
                                                    .index = answer->index,
                                                    .position = answer->position,
                                                    .durability = front_durability(front)};
    if (grpc_call_claim(call->grpc, propose_result_bytes(&result), &to) != 0) {
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait on this connection; read them");
        return;
    }
    grpc_call_commit(call->grpc, (size_t)(propose_result_put(to, &result) - to));
    call_finish(call, GRPC_OK, "");
}
