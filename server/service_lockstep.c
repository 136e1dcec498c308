/* SPDX-License-Identifier: Apache-2.0 */
/* service_lockstep.c - Propose and Query: one message, one answer. Thread: loop.
 * The command's bytes go from the bytes received straight into the open block; the reply goes from the machine's reply
 * queue straight into what is to be sent. */
#include <string.h>

#include "server/front_internal.h"

void propose_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = call->connection->front;
    struct propose_request request;
    if (propose_request_read(bytes, n, &request) != 0) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    uint32_t work = work_take(front, WORK_PROPOSE, call);
    if (work == WORK_NONE) {
        call_fail(call, LOCKSTEP_EFULL, "the command");
        return;
    }
    struct node_command command = {.session = request.session,
                                   .seq = request.seq,
                                   .entity = request.entity,
                                   .payload = request.command,
                                   .payload_bytes = (uint32_t)request.command_bytes};
    int rc = node_propose(front->node, &command, call->may_forward, work);
    if (rc != 0) {
        work_free(front, work);
        call_fail(call, rc, "the command");
        return;
    }
    call->work = work;
}

void propose_answered(struct front *front, struct work *work, const struct node_outcome *outcome)
{
    struct call *call = work->call;
    uint8_t *to;
    call->work = WORK_NONE; /* it is being freed by the caller */
    if (outcome->error != 0) {
        call_fail(call, outcome->error, "the command");
        return;
    }
    struct propose_response response = {.reply = outcome->reply,
                                        .reply_bytes = outcome->reply_bytes,
                                        .code = outcome->code,
                                        .index = outcome->index,
                                        .position = outcome->position,
                                        .durability = front_durability(front)};
    if (grpc_call_claim(call->grpc, propose_response_bytes(&response), &to) != 0) {
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "applied, but too many answers wait on this connection; read them");
        return;
    }
    grpc_call_commit(call->grpc, (size_t)(propose_response_put(to, &response) - to));
    call_finish(call, GRPC_OK, "");
}

void query_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = call->connection->front;
    struct query_request request;
    if (query_request_read(bytes, n, &request) != 0 || request.consistency > NODE_BOUNDED_STALE) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    uint32_t work = work_take(front, WORK_QUERY, call);
    if (work == WORK_NONE) {
        call_fail(call, LOCKSTEP_EFULL, "the query");
        return;
    }
    struct node_query query = {.entity = request.entity,
                               .consistency = (enum node_consistency)request.consistency,
                               .min_index = request.min_index,
                               .max_staleness_ns = (uint64_t)request.max_staleness_ms * FRONT_MS,
                               .timeout_ns = call_left_ns(call, FRONT_TICK_MS),
                               .query = request.query,
                               .query_bytes = (uint32_t)request.query_bytes};
    int rc = node_query(front->node, &query, call->may_forward, work);
    if (rc != 0) {
        work_free(front, work);
        call_fail(call, rc, "the query");
        return;
    }
    call->work = work;
}

void query_answered(struct front *front, struct work *work, const struct node_answer *answer)
{
    (void)front;
    struct call *call = work->call;
    uint8_t *to;
    call->work = WORK_NONE;
    if (answer->error == LOCKSTEP_EINVAL) {
        call_finish(call, GRPC_UNIMPLEMENTED, "this machine does not answer this query");
        return;
    }
    if (answer->error == LOCKSTEP_ETIMEDOUT) {
        call_finish(call, GRPC_DEADLINE_EXCEEDED,
                    "this node did not reach the index that was asked for in time; wait longer, or ask another node");
        return;
    }
    if (answer->error != 0) {
        call_fail(call, answer->error, "the query");
        return;
    }
    struct query_response response = {
        .reply = answer->reply, .reply_bytes = answer->reply_bytes, .code = answer->code, .index = answer->index};
    if (grpc_call_claim(call->grpc, query_response_bytes(&response), &to) != 0) {
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait on this connection; read them");
        return;
    }
    grpc_call_commit(call->grpc, (size_t)(query_response_put(to, &response) - to));
    call_finish(call, GRPC_OK, "");
}
