/* SPDX-License-Identifier: Apache-2.0 */
/* messages.c - the hot messages. A field is told by number and wire type together. */
#include "proto/messages.h"

#include <string.h>

#include "lockstep/errors.h"

#define FIELD(number, type) ((uint32_t)(number) << 3 | (uint32_t)(type))

static uint32_t key(const struct wire_field *field)
{
    return field->number << 3 | (uint32_t)field->type;
}

/* protobuf sends a negative int32 as ten bytes: the sign goes up to 64 bits. */
static uint64_t int32_out(int32_t value)
{
    return (uint64_t)(int64_t)value;
}

static int32_t int32_in(uint64_t value)
{
    return (int32_t)(uint32_t)value;
}

int propose_request_read(const uint8_t *bytes, size_t count, struct propose_request *ret)
{
    struct wire wire = wire_of(bytes, count);
    struct wire_field field;
    int rc;
    *ret = (struct propose_request){0};
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (key(&field)) {
        case FIELD(1, WIRE_BYTES):
            ret->command = field.bytes;
            ret->command_bytes = field.count;
            break;
        case FIELD(2, WIRE_FIXED64): ret->session = field.value; break;
        case FIELD(3, WIRE_FIXED64): ret->seq = field.value; break;
        case FIELD(4, WIRE_FIXED64): ret->entity = field.value; break;
        default: break;
        }
    }
    return rc;
}

size_t propose_request_bytes(const struct propose_request *request)
{
    return wire_bytes_bytes(request->command_bytes) + wire_fixed64_bytes(request->session) +
           wire_fixed64_bytes(request->seq) + wire_fixed64_bytes(request->entity);
}

uint8_t *propose_request_put(uint8_t *to, const struct propose_request *request)
{
    to = wire_put_bytes(to, 1, request->command, request->command_bytes);
    to = wire_put_fixed64(to, 2, request->session);
    to = wire_put_fixed64(to, 3, request->seq);
    return wire_put_fixed64(to, 4, request->entity);
}

/* The next field 1 that is a nested message. */
static int next_item(struct wire *wire, struct wire_field *field)
{
    int rc;
    while ((rc = wire_next(wire, field)) == 1)
        if (key(field) == FIELD(1, WIRE_BYTES)) return 1;
    return rc;
}

int propose_stream_request_next(struct wire *wire, struct propose_request *ret)
{
    struct wire_field field;
    int rc = next_item(wire, &field);
    if (rc != 1) return rc;
    rc = propose_request_read(field.bytes, field.count, ret);
    return rc == 0 ? 1 : rc;
}

size_t propose_stream_request_item_bytes(const struct propose_request *request)
{
    size_t bytes = propose_request_bytes(request);
    return wire_head_bytes(bytes) + bytes;
}

uint8_t *propose_stream_request_item_put(uint8_t *to, const struct propose_request *request)
{
    return propose_request_put(wire_put_head(to, 1, propose_request_bytes(request)), request);
}

int propose_response_read(const uint8_t *bytes, size_t count, struct propose_response *ret)
{
    struct wire wire = wire_of(bytes, count);
    struct wire_field field;
    int rc;
    *ret = (struct propose_response){0};
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (key(&field)) {
        case FIELD(1, WIRE_BYTES):
            ret->reply = field.bytes;
            ret->reply_bytes = field.count;
            break;
        case FIELD(2, WIRE_VARINT): ret->code = int32_in(field.value); break;
        case FIELD(3, WIRE_FIXED64): ret->index = field.value; break;
        case FIELD(4, WIRE_FIXED64): ret->position = field.value; break;
        case FIELD(5, WIRE_VARINT): ret->durability = (uint32_t)field.value; break;
        default: break;
        }
    }
    return rc;
}

size_t propose_response_bytes(const struct propose_response *response)
{
    return wire_bytes_bytes(response->reply_bytes) + wire_uint_bytes(int32_out(response->code)) +
           wire_fixed64_bytes(response->index) + wire_fixed64_bytes(response->position) +
           wire_uint_bytes(response->durability);
}

uint8_t *propose_response_put(uint8_t *to, const struct propose_response *response)
{
    to = wire_put_bytes(to, 1, response->reply, response->reply_bytes);
    to = wire_put_uint(to, 2, int32_out(response->code));
    to = wire_put_fixed64(to, 3, response->index);
    to = wire_put_fixed64(to, 4, response->position);
    return wire_put_uint(to, 5, response->durability);
}

int propose_result_read(const uint8_t *bytes, size_t count, struct propose_result *ret)
{
    struct wire wire = wire_of(bytes, count);
    struct wire_field field;
    int rc;
    *ret = (struct propose_result){0};
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (key(&field)) {
        case FIELD(1, WIRE_VARINT): ret->outcome = (uint32_t)field.value; break;
        case FIELD(2, WIRE_BYTES):
            rc = propose_response_read(field.bytes, field.count, &ret->response);
            if (rc != 0) return rc;
            break;
        case FIELD(3, WIRE_BYTES):
            ret->error = (const char *)field.bytes;
            ret->error_bytes = field.count;
            break;
        case FIELD(4, WIRE_VARINT): ret->status = (uint32_t)field.value; break;
        default: break;
        }
    }
    return rc;
}

int propose_stream_response_next(struct wire *wire, struct propose_result *ret)
{
    struct wire_field field;
    int rc = next_item(wire, &field);
    if (rc != 1) return rc;
    rc = propose_result_read(field.bytes, field.count, ret);
    return rc == 0 ? 1 : rc;
}

size_t propose_result_bytes(const struct propose_result *result)
{
    size_t bytes =
        wire_uint_bytes(result->outcome) + wire_bytes_bytes(result->error_bytes) + wire_uint_bytes(result->status);
    if (result->outcome != PROPOSE_APPLIED) return bytes;
    size_t response = propose_response_bytes(&result->response);
    return bytes + wire_head_bytes(response) + response;
}

size_t propose_stream_response_item_bytes(const struct propose_result *result)
{
    size_t bytes = propose_result_bytes(result);
    return wire_head_bytes(bytes) + bytes;
}

uint8_t *propose_result_put(uint8_t *to, const struct propose_result *result)
{
    to = wire_put_uint(to, 1, result->outcome);
    if (result->outcome == PROPOSE_APPLIED) {
        to = wire_put_head(to, 2, propose_response_bytes(&result->response));
        to = propose_response_put(to, &result->response);
    }
    to = wire_put_bytes(to, 3, result->error, result->error_bytes);
    return wire_put_uint(to, 4, result->status);
}

uint8_t *propose_stream_response_item_put(uint8_t *to, const struct propose_result *result)
{
    return propose_result_put(wire_put_head(to, 1, propose_result_bytes(result)), result);
}

int session_request_read(const uint8_t *bytes, size_t count, struct session_request *ret)
{
    struct wire wire = wire_of(bytes, count);
    struct wire_field field;
    int rc;
    *ret = (struct session_request){0};
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (key(&field)) {
        case FIELD(1, WIRE_FIXED64): ret->session = field.value; break;
        case FIELD(2, WIRE_FIXED64): ret->seq = field.value; break;
        default: break;
        }
    }
    return rc;
}

size_t session_request_bytes(const struct session_request *request)
{
    return wire_fixed64_bytes(request->session) + wire_fixed64_bytes(request->seq);
}

uint8_t *session_request_put(uint8_t *to, const struct session_request *request)
{
    to = wire_put_fixed64(to, 1, request->session);
    return wire_put_fixed64(to, 2, request->seq);
}

int session_response_read(const uint8_t *bytes, size_t count, struct session_response *ret)
{
    struct wire wire = wire_of(bytes, count);
    struct wire_field field;
    int rc;
    *ret = (struct session_response){0};
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (key(&field)) {
        case FIELD(1, WIRE_FIXED64): ret->session = field.value; break;
        case FIELD(2, WIRE_FIXED64): ret->expiry_ms = field.value; break;
        case FIELD(3, WIRE_VARINT): ret->window = (uint32_t)field.value; break;
        default: break;
        }
    }
    return rc;
}

size_t session_response_bytes(const struct session_response *response)
{
    return wire_fixed64_bytes(response->session) + wire_fixed64_bytes(response->expiry_ms) +
           wire_uint_bytes(response->window);
}

uint8_t *session_response_put(uint8_t *to, const struct session_response *response)
{
    to = wire_put_fixed64(to, 1, response->session);
    to = wire_put_fixed64(to, 2, response->expiry_ms);
    return wire_put_uint(to, 3, response->window);
}

int query_request_read(const uint8_t *bytes, size_t count, struct query_request *ret)
{
    struct wire wire = wire_of(bytes, count);
    struct wire_field field;
    int rc;
    *ret = (struct query_request){0};
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (key(&field)) {
        case FIELD(1, WIRE_BYTES):
            ret->query = field.bytes;
            ret->query_bytes = field.count;
            break;
        case FIELD(2, WIRE_FIXED64): ret->entity = field.value; break;
        case FIELD(3, WIRE_VARINT): ret->consistency = (uint32_t)field.value; break;
        case FIELD(4, WIRE_FIXED64): ret->min_index = field.value; break;
        case FIELD(5, WIRE_VARINT): ret->max_staleness_ms = (uint32_t)field.value; break;
        default: break;
        }
    }
    return rc;
}

size_t query_request_bytes(const struct query_request *request)
{
    return wire_bytes_bytes(request->query_bytes) + wire_fixed64_bytes(request->entity) +
           wire_uint_bytes(request->consistency) + wire_fixed64_bytes(request->min_index) +
           wire_uint_bytes(request->max_staleness_ms);
}

uint8_t *query_request_put(uint8_t *to, const struct query_request *request)
{
    to = wire_put_bytes(to, 1, request->query, request->query_bytes);
    to = wire_put_fixed64(to, 2, request->entity);
    to = wire_put_uint(to, 3, request->consistency);
    to = wire_put_fixed64(to, 4, request->min_index);
    return wire_put_uint(to, 5, request->max_staleness_ms);
}

int query_response_read(const uint8_t *bytes, size_t count, struct query_response *ret)
{
    struct wire wire = wire_of(bytes, count);
    struct wire_field field;
    int rc;
    *ret = (struct query_response){0};
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (key(&field)) {
        case FIELD(1, WIRE_BYTES):
            ret->reply = field.bytes;
            ret->reply_bytes = field.count;
            break;
        case FIELD(2, WIRE_VARINT): ret->code = int32_in(field.value); break;
        case FIELD(3, WIRE_FIXED64): ret->index = field.value; break;
        default: break;
        }
    }
    return rc;
}

size_t query_response_bytes(const struct query_response *response)
{
    return wire_bytes_bytes(response->reply_bytes) + wire_uint_bytes(int32_out(response->code)) +
           wire_fixed64_bytes(response->index);
}

uint8_t *query_response_put(uint8_t *to, const struct query_response *response)
{
    to = wire_put_bytes(to, 1, response->reply, response->reply_bytes);
    to = wire_put_uint(to, 2, int32_out(response->code));
    return wire_put_fixed64(to, 3, response->index);
}
