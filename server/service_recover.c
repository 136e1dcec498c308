/* SPDX-License-Identifier: Apache-2.0 */
/* service_recover.c - Recover. Thread: loop. Cold: protobuf-c makes and reads the messages.
 * Nothing happens in here: the server closes the node, makes it the only member, and opens it again. */
#include <stdio.h>
#include <string.h>

#include "proto/lockstep.pb-c.h"
#include "proto/unpack.h"
#include "server/front_internal.h"

void recover_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = call->connection->front;
    char why[NODE_WHY_BYTES_MAX];
    arena_reset(&front->unpack);
    const Lockstep__V1__RecoverRequest *request = (const Lockstep__V1__RecoverRequest *)unpack(
        &front->unpack, &lockstep__v1__recover_request__descriptor, bytes, n);
    if (request == NULL) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    if (front->stopping) {
        call_fail(call, LOCKSTEP_EUNAVAILABLE, "the recovery");
        return;
    }
    const struct node_options *options = node_options_of(front->node);
    node_status_read(front->node, &front->status);
    const struct identity *identity = &front->status.identity;
    if (strcmp(request->cluster, options->cluster) != 0 || request->cluster_id != identity->birth.cluster_id ||
        request->member_id != identity->member_id) {
        call_finish(call, GRPC_FAILED_PRECONDITION,
                    "the plan is not this node's, or no longer: nothing was changed; make another one");
        return;
    }
    if (node_recover_check(front->node, why, sizeof why) != 0) {
        call_finish(call, GRPC_FAILED_PRECONDITION, why);
        return;
    }
    Lockstep__V1__RecoverResponse response;
    uint8_t answer[16];
    lockstep__v1__recover_response__init(&response);
    response.cluster_id = front->options.recover(front->options.recover_context);
    lk_assert(lockstep__v1__recover_response__get_packed_size(&response) <= sizeof answer);
    call_answer(call, answer, lockstep__v1__recover_response__pack(&response, answer));
}
