/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_wire.c - any bytes as each of the hot messages: what is read comes out the same when it is written and read
 * again. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void *room_for(size_t bytes)
{
    void *room = malloc(bytes + 1);
    lk_assert(room != NULL);
    return room;
}

static void propose(const struct propose_request *request)
{
    size_t bytes = propose_request_bytes(request);
    uint8_t *to = room_for(bytes);
    struct propose_request again;
    lk_assert(propose_request_put(to, request) == to + bytes);
    lk_assert(propose_request_read(to, bytes, &again) == 0);
    lk_assert(again.command_bytes == request->command_bytes);
    lk_assert(again.session == request->session);
    lk_assert(again.seq == request->seq);
    lk_assert(again.entity == request->entity);
    free(to);
}

static void result(const struct propose_result *result)
{
    size_t bytes = propose_stream_response_item_bytes(result);
    uint8_t *to = room_for(bytes);
    struct propose_result again;
    struct wire wire = wire_of(to, bytes);
    lk_assert(propose_stream_response_item_put(to, result) == to + bytes);
    lk_assert(propose_stream_response_next(&wire, &again) == 1);
    lk_assert(again.outcome == result->outcome);
    lk_assert(again.error_bytes == result->error_bytes);
    if (result->outcome == PROPOSE_APPLIED) lk_assert(again.response.index == result->response.index);
    free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct propose_request request;
    struct propose_response response;
    struct propose_result one;
    struct query_request query;
    struct query_response answer;
    struct wire wire = wire_of(bytes, count);
    while (propose_stream_request_next(&wire, &request) == 1) propose(&request);
    wire = wire_of(bytes, count);
    while (propose_stream_response_next(&wire, &one) == 1) result(&one);
    if (propose_request_read(bytes, count, &request) == 0) propose(&request);
    propose_response_read(bytes, count, &response);
    query_request_read(bytes, count, &query);
    query_response_read(bytes, count, &answer);
    return 0;
}
