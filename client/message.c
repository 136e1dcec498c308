/* SPDX-License-Identifier: Apache-2.0 */
/* message.c - between client.h's structs and the messages of lockstep.v1. The hot ones are proto/messages.h's; the cold
 * ones are read here field by field, so that the library needs no memory for them.
 * Pure. What a server says is input: texts are cut to their room, unknown fields are passed over. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "client/internal.h"
#include "proto/messages.h"
#include "proto/wire.h"

static struct propose_request request_of(const struct lockstep_proposal *proposal)
{
    return (struct propose_request){
        .command = proposal->command,
        .command_bytes = proposal->command_bytes,
        .session = proposal->session,
        .seq = proposal->seq,
        .entity = proposal->entity,
    };
}

size_t message_proposal_bytes(const struct lockstep_proposal *proposal)
{
    struct propose_request request = request_of(proposal);
    return propose_request_bytes(&request);
}

size_t message_proposal_write(uint8_t *to, const struct lockstep_proposal *proposal)
{
    struct propose_request request = request_of(proposal);
    return (size_t)(propose_request_put(to, &request) - to);
}

size_t message_number_write(uint8_t *to, uint64_t session, uint64_t seq)
{
    lk_assert(session != 0 && seq != 0);
    struct propose_request number = {.session = session, .seq = seq};
    lk_assert(propose_request_bytes(&number) == MESSAGE_NUMBER_BYTES);
    return (size_t)(propose_request_put(to, &number) - to); /* a message behind a message is both of them */
}

static struct propose_request numbered(const struct lockstep_proposal *proposal, uint64_t session, uint64_t seq)
{
    struct propose_request request = request_of(proposal);
    if (session != 0) {
        request.session = session;
        request.seq = seq;
    }
    return request;
}

size_t message_proposals_bytes(const struct lockstep_proposal *proposals, uint32_t count, uint64_t session,
                               uint64_t first_seq)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct propose_request request = numbered(&proposals[i], session, first_seq + i);
        bytes += propose_stream_request_item_bytes(&request);
    }
    return bytes;
}

size_t message_proposals_write(uint8_t *to, const struct lockstep_proposal *proposals, uint32_t count, uint64_t session,
                               uint64_t first_seq)
{
    uint8_t *at = to;
    for (uint32_t i = 0; i < count; i++) {
        struct propose_request request = numbered(&proposals[i], session, first_seq + i);
        at = propose_stream_request_item_put(at, &request);
    }
    return (size_t)(at - to);
}

static void applied(const struct propose_response *response, struct lockstep_result *ret)
{
    *ret = (struct lockstep_result){
        .fate = LOCKSTEP_APPLIED,
        .code = response->code,
        .durability = response->durability <= LOCKSTEP_DURABILITY_MEMORY
                          ? (enum lockstep_durability)response->durability
                          : LOCKSTEP_DURABILITY_UNSPECIFIED,
        .index = response->index,
        .position = response->position,
        .reply = response->reply,
        .reply_bytes = response->reply_bytes,
        .endpoint = ret->endpoint,
        .text = "",
    };
}

int message_proposal_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret)
{
    struct propose_response response;
    if (propose_response_read(bytes, n, &response) != 0) return LOCKSTEP_EPROTO;
    applied(&response, ret);
    return 0;
}

/* Why a command has no answer of the machine. */
static int refusal_of(const struct propose_result *result)
{
    int error = attempt_error((enum grpc_status)result->status);
    if (result->outcome == PROPOSE_REPLY_DROPPED) return LOCKSTEP_EREPLIED;
    if (result->outcome == PROPOSE_NOT_APPENDED) return error != 0 ? error : LOCKSTEP_EUNAVAILABLE;
    return error == LOCKSTEP_ENOTFOUND || error == LOCKSTEP_EWINDOW ? error : LOCKSTEP_EUNKNOWN;
}

static enum lockstep_fate fate_of(const struct propose_result *result)
{
    switch (result->outcome) {
    case PROPOSE_APPLIED:
    case PROPOSE_REPLY_DROPPED: return LOCKSTEP_APPLIED;
    case PROPOSE_NOT_APPENDED: return LOCKSTEP_NOT_APPENDED;
    default: return LOCKSTEP_UNKNOWN;
    }
}

int message_results_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret, uint32_t count, char *text)
{
    struct wire wire = wire_of(bytes, n);
    struct propose_result result;
    uint32_t at = 0;
    text[0] = 0;
    int rc;
    while ((rc = propose_stream_response_next(&wire, &result)) == 1) {
        if (at == count) return LOCKSTEP_EPROTO;
        struct lockstep_result *r = &ret[at++];
        if (result.outcome == PROPOSE_APPLIED) {
            r->endpoint = "";
            applied(&result.response, r);
            if (result.status == 0) continue;
            r->error = LOCKSTEP_ETOOBIG; /* applied all the same: only the reply is not here */
            r->text = "applied; the reply is left out: the answer to the whole message would be over 4 MiB";
            continue;
        }
        /* What fails in one message fails for one reason: the first one's text stands for all. */
        if (text[0] == 0)
            message_text(text, LOCKSTEP_TEXT_BYTES_MAX, (const uint8_t *)result.error, result.error_bytes);
        *r = (struct lockstep_result){
            .error = refusal_of(&result),
            .fate = fate_of(&result),
            .text = text,
        };
    }
    return rc == 0 && at == count ? 0 : LOCKSTEP_EPROTO;
}

int message_outcome_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret)
{
    struct propose_result result;
    if (propose_result_read(bytes, n, &result) != 0) return LOCKSTEP_EPROTO;
    if (result.outcome == PROPOSE_APPLIED) {
        applied(&result.response, ret);
    } else {
        ret->fate = fate_of(&result);
        ret->error = result.outcome == PROPOSE_REPLY_DROPPED ? LOCKSTEP_EREPLIED : 0;
    }
    return 0;
}

int message_query_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret)
{
    struct query_response response;
    if (query_response_read(bytes, n, &response) != 0) return LOCKSTEP_EPROTO;
    ret->code = response.code;
    ret->index = response.index;
    ret->reply = response.reply;
    ret->reply_bytes = response.reply_bytes;
    return 0;
}

size_t message_query_bytes(const struct lockstep_query *query)
{
    struct query_request request = {.query = query->query,
                                    .query_bytes = query->query_bytes,
                                    .entity = query->entity,
                                    .consistency = (uint32_t)query->consistency,
                                    .min_index = query->min_index,
                                    .max_staleness_ms = query->max_staleness_ms};
    return query_request_bytes(&request);
}

size_t message_query_write(uint8_t *to, const struct lockstep_query *query)
{
    struct query_request request = {.query = query->query,
                                    .query_bytes = query->query_bytes,
                                    .entity = query->entity,
                                    .consistency = (uint32_t)query->consistency,
                                    .min_index = query->min_index,
                                    .max_staleness_ms = query->max_staleness_ms};
    return (size_t)(query_request_put(to, &request) - to);
}

size_t message_name_bytes(const char *name)
{
    return wire_bytes_bytes(strlen(name));
}

size_t message_name_write(uint8_t *to, const char *name)
{
    return (size_t)(wire_put_bytes(to, 1, name, strlen(name)) - to);
}

static const char *text_of(const char *text)
{
    return text != NULL ? text : "";
}

size_t message_member_change_bytes(const struct lockstep_member_change *change)
{
    const char *texts[] = {change->name, change->old_name, change->client, change->peer};
    size_t bytes = wire_uint_bytes((uint64_t)change->kind) + wire_uint_bytes(change->learner) +
                   wire_uint_bytes(change->force) + wire_uint_bytes(change->priority);
    for (size_t i = 0; i < 4; i++) bytes += wire_bytes_bytes(strlen(text_of(texts[i])));
    return bytes;
}

size_t message_member_change_write(uint8_t *to, const struct lockstep_member_change *change)
{
    const char *texts[] = {change->name, change->old_name, change->client, change->peer};
    uint8_t *at = wire_put_uint(to, 1, (uint64_t)change->kind);
    for (uint32_t i = 0; i < 4; i++) at = wire_put_bytes(at, 2 + i, text_of(texts[i]), strlen(text_of(texts[i])));
    at = wire_put_uint(at, 6, change->learner);
    at = wire_put_uint(at, 7, change->force);
    at = wire_put_uint(at, 8, change->priority);
    return (size_t)(at - to);
}

/* --- cold answers --- */

void message_text(char *to, size_t room, const uint8_t *bytes, size_t n)
{
    if (n >= room) n = room - 1;
    if (n > 0) memcpy(to, bytes, n);
    to[n] = 0;
}

#define TEXT(field, to) message_text(to, sizeof(to), (field).bytes, (field).type == WIRE_BYTES ? (field).count : 0)

/* Numbers of another wire type than the proto's are 0, as unknown fields are. */
static uint64_t number(const struct wire_field *field)
{
    return field->type == WIRE_FIXED64 || field->type == WIRE_VARINT ? field->value : 0;
}

static int read_member(const uint8_t *bytes, size_t n, struct lockstep_member *ret)
{
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (field.number) {
        case 1: TEXT(field, ret->name); break;
        case 2: ret->id = number(&field); break;
        case 3: TEXT(field, ret->client); break;
        case 4: TEXT(field, ret->peer); break;
        case 5: ret->voter = number(&field) != 0; break;
        case 6: ret->connected = number(&field) != 0; break;
        case 7: ret->match = number(&field); break;
        case 8: TEXT(field, ret->note); break;
        case 9: TEXT(field, ret->role); break;
        case 10: ret->priority = (uint32_t)number(&field); break;
        case 11: TEXT(field, ret->path); break;
        case 12: ret->lag_bytes = number(&field); break;
        case 13: ret->lapped = number(&field); break;
        default: break;
        }
    }
    return rc;
}

static int read_counters(const uint8_t *bytes, size_t n, struct lockstep_counters *ret)
{
    uint64_t *const members[] = {
        &ret->commands_appended, &ret->blocks_appended, &ret->bytes_appended,
        &ret->flushes,           &ret->appends_sent,    &ret->appends_inflight_max,
        &ret->elections,         &ret->connections,     &ret->connections_refused,
        &ret->protocol_errors,   &ret->rejected_full,   &ret->frames_refused,
        &ret->commands_repeated, &ret->sessions,
    };
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1)
        if (field.number <= sizeof members / sizeof members[0]) *members[field.number - 1] = number(&field);
    return rc;
}

static uint32_t read_hash(const struct wire_field *field, uint8_t ret[16])
{
    if (field->type != WIRE_BYTES || field->count > 16) return 0;
    memcpy(ret, field->bytes, field->count);
    return (uint32_t)field->count;
}

int message_status_read(const uint8_t *bytes, size_t n, struct lockstep_status *ret)
{
    memset(ret, 0, sizeof *ret);
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1) {
        switch (field.number) {
        case 1: TEXT(field, ret->cluster); break;
        case 2: ret->cluster_id = number(&field); break;
        case 3: TEXT(field, ret->name); break;
        case 4: ret->member_id = number(&field); break;
        case 5: TEXT(field, ret->role); break;
        case 6: ret->term = number(&field); break;
        case 7: TEXT(field, ret->leader); break;
        case 8: TEXT(field, ret->leader_client); break;
        case 9: ret->last_index = number(&field); break;
        case 10: ret->commit_index = number(&field); break;
        case 11: ret->applied_index = number(&field); break;
        case 12: ret->applied_position = number(&field); break;
        case 13: ret->durable_index = number(&field); break;
        case 14: ret->stored_index = number(&field); break;
        case 15: ret->state_hash_bytes = read_hash(&field, ret->state_hash); break;
        case 16: ret->reply_hash_bytes = read_hash(&field, ret->reply_hash); break;
        case 17: ret->hash_index = number(&field); break;
        case 18: TEXT(field, ret->machine); break;
        case 19: TEXT(field, ret->machine_version); break;
        case 20:
            if (number(&field) <= LOCKSTEP_DURABILITY_MEMORY)
                ret->durability = (enum lockstep_durability)number(&field);
            break;
        case 21:
            if (field.type != WIRE_BYTES || ret->member_count == LOCKSTEP_MEMBERS_MAX) break;
            if (read_member(field.bytes, field.count, &ret->members[ret->member_count++]) != 0) return LOCKSTEP_EPROTO;
            break;
        case 22:
            if (field.type != WIRE_BYTES) break;
            if (read_counters(field.bytes, field.count, &ret->counters) != 0) return LOCKSTEP_EPROTO;
            break;
        case 23: TEXT(field, ret->version); break;
        case 24:
            if (ret->warning_count == sizeof ret->warnings / sizeof ret->warnings[0]) break;
            TEXT(field, ret->warnings[ret->warning_count]);
            ret->warning_count++;
            break;
        case 25: ret->base_index = number(&field); break;
        case 26: ret->snapshot_index = number(&field); break;
        case 30: ret->configuration_index = number(&field); break;
        case 31: ret->joint = number(&field) != 0; break;
        case 32: TEXT(field, ret->change); break;
        case 33: ret->last_term = number(&field); break;
        case 34: ret->observers = (uint32_t)number(&field); break;
        case 35: ret->observer_lag_bytes = number(&field); break;
        case 36: ret->observer_lapped = number(&field); break;
        default: break;
        }
    }
    return rc == 0 ? 0 : LOCKSTEP_EPROTO;
}

size_t message_recover_bytes(const char *cluster, uint64_t cluster_id, uint64_t member_id)
{
    return wire_bytes_bytes(strlen(cluster)) + wire_fixed64_bytes(cluster_id) + wire_fixed64_bytes(member_id);
}

size_t message_recover_write(uint8_t *to, const char *cluster, uint64_t cluster_id, uint64_t member_id)
{
    uint8_t *at = wire_put_bytes(to, 1, cluster, strlen(cluster));
    at = wire_put_fixed64(at, 2, cluster_id);
    at = wire_put_fixed64(at, 3, member_id);
    return (size_t)(at - to);
}

int message_recover_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret)
{
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1)
        if (field.number == 1) ret->index = number(&field);
    return rc == 0 ? 0 : LOCKSTEP_EPROTO;
}

int message_transfer_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret)
{
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1) {
        if (field.number == 1 && field.type == WIRE_BYTES) {
            ret->reply = field.bytes;
            ret->reply_bytes = field.count;
        } else if (field.number == 2) {
            ret->index = number(&field);
        }
    }
    return rc == 0 ? 0 : LOCKSTEP_EPROTO;
}

int message_member_change_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret)
{
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1) {
        if (field.number == 1) {
            ret->index = number(&field);
        } else if (field.number == 3 && field.type == WIRE_BYTES) {
            ret->reply = field.bytes;
            ret->reply_bytes = field.count;
        }
    }
    return rc == 0 ? 0 : LOCKSTEP_EPROTO;
}

int message_health_read(const uint8_t *bytes, size_t n, struct lockstep_result *ret)
{
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1)
        if (field.number == 1 && field.type == WIRE_VARINT) ret->code = (int32_t)(field.value & 0x7f);
    return rc == 0 ? 0 : LOCKSTEP_EPROTO;
}
