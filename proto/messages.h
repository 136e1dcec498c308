/* SPDX-License-Identifier: Apache-2.0 */
/* messages.h - the hot messages of lockstep.v1, read where they lie and written into room that was sized before; both
 * directions, for server and client. The cold ones use protobuf-c.
 * Pure; any thread. Field numbers are those of lockstep/v1/lockstep.proto; unknown fields are skipped, a known field of
 * another wire type is unknown, and of a field that comes twice the last one counts, as in protobuf.
 * Errors of every *_read: LOCKSTEP_EINVAL, malformed; *ret is then undefined. Byte fields are views of the input. */
#ifndef LOCKSTEP_PROTO_MESSAGES_H
#define LOCKSTEP_PROTO_MESSAGES_H

#include <stddef.h>
#include <stdint.h>

#include "proto/wire.h"

/* ProposeRequest */
struct propose_request {
    const uint8_t *command;
    size_t command_bytes;
    uint64_t session, seq, entity;
};
int propose_request_read(const uint8_t *bytes, size_t count, struct propose_request *ret);
size_t propose_request_bytes(const struct propose_request *request);
uint8_t *propose_request_put(uint8_t *to, const struct propose_request *request);

/* ProposeStreamRequest: one command after the other.
 * ret  1: *ret is the next command; 0: there are no more. wire  wire_of(message) at first */
int propose_stream_request_next(struct wire *wire, struct propose_request *ret);
/* One command as a member of a ProposeStreamRequest; a message is any number of them, one behind the other. */
size_t propose_stream_request_item_bytes(const struct propose_request *request);
uint8_t *propose_stream_request_item_put(uint8_t *to, const struct propose_request *request);

/* ProposeResponse */
struct propose_response {
    const uint8_t *reply;
    size_t reply_bytes;
    int32_t code;
    uint64_t index, position;
    uint32_t durability; /* enum Durability */
};
int propose_response_read(const uint8_t *bytes, size_t count, struct propose_response *ret);
size_t propose_response_bytes(const struct propose_response *response);
uint8_t *propose_response_put(uint8_t *to, const struct propose_response *response);

/* ProposeResult */
enum propose_outcome {
    PROPOSE_UNSPECIFIED = 0,
    PROPOSE_APPLIED = 1,
    PROPOSE_NOT_APPENDED = 2,
    PROPOSE_UNKNOWN = 3,
    PROPOSE_REPLY_DROPPED = 4,
};
struct propose_result {
    uint32_t outcome;                 /* enum propose_outcome */
    struct propose_response response; /* with PROPOSE_APPLIED */
    const char *error;                /* otherwise; not terminated */
    size_t error_bytes;
    uint32_t status; /* and the gRPC status; 0: a server that does not say */
};
int propose_result_read(const uint8_t *bytes, size_t count, struct propose_result *ret);
size_t propose_result_bytes(const struct propose_result *result);
uint8_t *propose_result_put(uint8_t *to, const struct propose_result *result);
/* ProposeStreamResponse, as ProposeStreamRequest. */
int propose_stream_response_next(struct wire *wire, struct propose_result *ret);
size_t propose_stream_response_item_bytes(const struct propose_result *result);
uint8_t *propose_stream_response_item_put(uint8_t *to, const struct propose_result *result);

/* KeepAliveRequest, CloseSessionRequest (seq 0), OutcomeRequest */
struct session_request {
    uint64_t session, seq;
};
int session_request_read(const uint8_t *bytes, size_t count, struct session_request *ret);
size_t session_request_bytes(const struct session_request *request);
uint8_t *session_request_put(uint8_t *to, const struct session_request *request);

/* OpenSessionResponse */
struct session_response {
    uint64_t session, expiry_ms;
    uint32_t window;
};
int session_response_read(const uint8_t *bytes, size_t count, struct session_response *ret);
size_t session_response_bytes(const struct session_response *response);
uint8_t *session_response_put(uint8_t *to, const struct session_response *response);

/* QueryRequest */
struct query_request {
    const uint8_t *query;
    size_t query_bytes;
    uint64_t entity;
    uint32_t consistency; /* enum Consistency */
    uint64_t min_index;
    uint32_t max_staleness_ms;
};
int query_request_read(const uint8_t *bytes, size_t count, struct query_request *ret);
size_t query_request_bytes(const struct query_request *request);
uint8_t *query_request_put(uint8_t *to, const struct query_request *request);

/* QueryResponse */
struct query_response {
    const uint8_t *reply;
    size_t reply_bytes;
    int32_t code;
    uint64_t index;
};
int query_response_read(const uint8_t *bytes, size_t count, struct query_response *ret);
size_t query_response_bytes(const struct query_response *response);
uint8_t *query_response_put(uint8_t *to, const struct query_response *response);

#endif
