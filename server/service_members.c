/* SPDX-License-Identifier: Apache-2.0 */
/* service_members.c - ChangeMember. Thread: loop. Cold: protobuf-c makes and reads the messages.
 * The call waits until the change has ended; when the call ends before, the change goes on until the call's deadline. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/lockstep.pb-c.h"
#include "proto/unpack.h"
#include "server/front_internal.h"

/* The change ends a little before the call does, so that its words arrive. */
enum { ANSWER_MS = 300 };

static bool text_copy(char *to, size_t room, const char *from)
{
    size_t bytes = strlen(from);
    if (bytes >= room) return false;
    memcpy(to, from, bytes + 1);
    return true;
}

static bool is_text(const char *text)
{
    for (; *text != 0; text++)
        if (*text <= ' ' || *text > '~') return false;
    return true;
}

/* Why the request cannot be meant; NULL: it can. */
static const char *request_read(const Lockstep__V1__ChangeMemberRequest *from, struct node_change_request *ret)
{
    static const enum node_change_kind kinds[] = {
        [LOCKSTEP__V1__MEMBER_CHANGE__MEMBER_CHANGE_ADD] = NODE_CHANGE_ADD,
        [LOCKSTEP__V1__MEMBER_CHANGE__MEMBER_CHANGE_PROMOTE] = NODE_CHANGE_PROMOTE,
        [LOCKSTEP__V1__MEMBER_CHANGE__MEMBER_CHANGE_REMOVE] = NODE_CHANGE_REMOVE,
        [LOCKSTEP__V1__MEMBER_CHANGE__MEMBER_CHANGE_REPLACE] = NODE_CHANGE_REPLACE,
    };
    size_t kind = (size_t)from->change;
    if (kind == 0 || kind >= sizeof kinds / sizeof kinds[0]) return "the change is none that this version knows";
    *ret = (struct node_change_request){.kind = kinds[kind], .learner = from->learner, .force = from->force};
    if (from->priority > UINT8_MAX) return "the priority is above 255";
    ret->priority = (uint8_t)from->priority;
    if (!text_copy(ret->name, sizeof ret->name, from->name) ||
        !text_copy(ret->old_name, sizeof ret->old_name, from->old_name) || !is_text(from->name))
        return "a name is longer than 63 bytes, or holds blanks or control characters";
    if (!text_copy(ret->client, sizeof ret->client, from->client) ||
        !text_copy(ret->peer, sizeof ret->peer, from->peer) || !is_text(from->client) || !is_text(from->peer))
        return "an address is longer than 271 bytes, or holds blanks or control characters";
    if (ret->name[0] == 0) return "the name is missing";
    if (ret->kind == NODE_CHANGE_REPLACE && ret->old_name[0] == 0) return "the name of the member that goes is missing";
    if (ret->kind == NODE_CHANGE_ADD && (ret->client[0] == 0 || ret->peer[0] == 0))
        return "the client or the peer address is missing";
    return NULL;
}

void change_member_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = call->connection->front;
    arena_reset(&front->unpack);
    const Lockstep__V1__ChangeMemberRequest *message = (const Lockstep__V1__ChangeMemberRequest *)unpack(
        &front->unpack, &lockstep__v1__change_member_request__descriptor, bytes, n);
    if (message == NULL) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    struct node_change_request request;
    const char *why = request_read(message, &request);
    if (why != NULL) {
        call_finish(call, GRPC_INVALID_ARGUMENT, why);
        return;
    }
    request.timeout_ns = call_left_ns(call, ANSWER_MS);
    uint32_t work = work_take(front, WORK_CHANGE, call);
    if (work == WORK_NONE) {
        call_fail(call, LOCKSTEP_EFULL, "the change");
        return;
    }
    int rc = node_change_members(front->node, &request, work);
    if (rc == 0) {
        call->work = work;
        return;
    }
    work_free(front, work);
    if (rc == LOCKSTEP_EUNAVAILABLE && !front->stopping && node_leader(front->node) < RAFT_MEMBERS_MAX)
        call_finish(call, GRPC_UNAVAILABLE, "another change of members is under way; `lockstep status` shows it");
    else
        call_fail(call, rc, "the change");
}

static enum grpc_status status_of(int error)
{
    switch (error) {
    case LOCKSTEP_EINVAL: return GRPC_FAILED_PRECONDITION;
    case LOCKSTEP_ENOTFOUND: return GRPC_NOT_FOUND;
    case LOCKSTEP_ETIMEDOUT: return GRPC_DEADLINE_EXCEEDED;
    default: return GRPC_UNAVAILABLE;
    }
}

void change_answered(struct front *front, struct work *work, const struct node_change_result *result)
{
    struct call *call = work->call;
    (void)front;
    call->work = WORK_NONE; /* it is being freed by the caller */
    if (result->error != 0) {
        call_finish(call, status_of(result->error), result->why);
        return;
    }
    Lockstep__V1__ChangeMemberResponse response;
    char text[NODE_WHY_BYTES_MAX];
    uint8_t *to;
    lockstep__v1__change_member_response__init(&response);
    response.configuration_index = result->index;
    response.member_id = result->id;
    memcpy(text, result->why, sizeof text);
    response.text = text;
    if (grpc_call_claim(call->grpc, lockstep__v1__change_member_response__get_packed_size(&response), &to) != 0) {
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait on this connection; read them");
        return;
    }
    grpc_call_commit(call->grpc, lockstep__v1__change_member_response__pack(&response, to));
    call_finish(call, GRPC_OK, "");
}
