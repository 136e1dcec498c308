/* SPDX-License-Identifier: Apache-2.0 */
/* service_admin.c - Status and TransferLeader. Thread: loop. Cold: protobuf-c makes and reads the messages. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/lockstep.pb-c.h"
#include "proto/unpack.h"
#include "server/front_internal.h"

static const char *role_text(const struct node_status *status)
{
    if (status->host.error != 0) return "stopped";
    if (!status->born) return "unborn";
    switch (status->raft.role) {
    case RAFT_FOLLOWER: return "follower";
    case RAFT_PRECANDIDATE:
    case RAFT_CANDIDATE: return "candidate";
    case RAFT_LEADER: return "leader";
    }
    return "unknown";
}

/* protobuf-c wants pointers to what may be const. It only reads what it packs. */
static char *unconst(const char *text)
{
    union {
        const char *from;
        char *to;
    } cast = {.from = text};
    return cast.to;
}

static void fill_counters(const struct front *front, Lockstep__V1__Counters *ret)
{
    const struct node_counters *node = &front->status.counters;
    lockstep__v1__counters__init(ret);
    ret->commands_appended = node->commands_appended;
    ret->blocks_appended = node->blocks_appended;
    ret->bytes_appended = node->bytes_appended;
    ret->flushes = front->status.storage.flushes;
    ret->appends_sent = node->appends_sent;
    ret->appends_inflight_max = node->appends_inflight_max;
    ret->elections = node->elections;
    ret->connections = front->connection_count;
    ret->connections_refused = front->counters.refused;
    ret->protocol_errors = front->counters.protocol_errors;
    ret->rejected_full = node->rejected_full;
    ret->frames_refused = node->frames_refused;
    ret->commands_repeated = front->status.host.repeated;
    ret->sessions = front->status.host.sessions;
}

static const char *member_role_text(const struct node_status *status, unsigned slot)
{
    if (status->members[slot].joining) return "dialled";
    switch (status->members[slot].role) {
    case CONFIGURATION_VOTER: return "voter";
    case CONFIGURATION_LEARNER: return "learner";
    case CONFIGURATION_INCOMING: return "joining";
    case CONFIGURATION_OUTGOING: return "demoted";
    case CONFIGURATION_LEAVING: return "leaving";
    default: return "";
    }
}

static const char *path_text(const struct front *front, unsigned slot)
{
    if (slot == node_options_of(front->node)->self) return "";
    if (front->status.members[slot].shared_memory) return "shared memory";
    return front->status.members[slot].connected ? "tcp" : "";
}

static void fill_member(struct front *front, unsigned slot, Lockstep__V1__MemberStatus *ret)
{
    const struct node_options *options = node_options_of(front->node);
    const struct node_status *status = &front->status;
    lockstep__v1__member_status__init(ret);
    ret->name = unconst(options->members[slot].name);
    ret->client = unconst(options->members[slot].client);
    ret->peer = unconst(options->members[slot].peer);
    ret->id = status->members[slot].id;
    ret->voter = status->members[slot].voter;
    ret->connected = slot == options->self || status->members[slot].connected;
    ret->match = status->members[slot].match;
    ret->note = unconst(status->members[slot].note);
    ret->role = unconst(member_role_text(status, slot));
    ret->priority = status->members[slot].priority;
    ret->path = unconst(path_text(front, slot));
    ret->lag_bytes = status->members[slot].lag_bytes;
    ret->lapped = status->members[slot].lapped;
}

static void hash_bytes(struct lockstep_hash hash, uint8_t to[16])
{
    for (int i = 0; i < 8; i++) {
        to[i] = (uint8_t)(hash.high >> (56 - 8 * i));
        to[8 + i] = (uint8_t)(hash.low >> (56 - 8 * i));
    }
}

void status_message(struct call *call, const uint8_t *bytes, size_t n)
{
    (void)bytes; /* StatusRequest has no fields */
    (void)n;
    struct front *front = call->connection->front;
    const struct node_options *options = node_options_of(front->node);
    struct node_status *status = &front->status;
    node_status_read(front->node, status);

    Lockstep__V1__StatusResponse response;
    Lockstep__V1__Counters counters;
    Lockstep__V1__MemberStatus members[RAFT_MEMBERS_MAX], *member_pointers[RAFT_MEMBERS_MAX];
    char *warnings[sizeof status->warnings / sizeof status->warnings[0]];
    uint8_t state_hash[16], reply_hash[16];
    lockstep__v1__status_response__init(&response);
    response.cluster = unconst(options->cluster);
    response.cluster_id = status->identity.birth.cluster_id;
    response.name = unconst(options->members[options->self].name);
    response.member_id = status->identity.member_id;
    response.role = unconst(role_text(status));
    response.last_term = status->last_term;
    response.term = status->raft.term;
    if (status->leader_slot < options->member_count) {
        response.leader = unconst(options->members[status->leader_slot].name);
        response.leader_client = unconst(options->members[status->leader_slot].client);
    }
    response.last_index = status->raft.last_index;
    response.commit_index = status->raft.commit;
    response.applied_index = status->host.applied_index;
    response.applied_position = status->host.applied_position;
    response.durable_index = status->raft.durable_index;
    response.stored_index = status->storage.stored;
    hash_bytes(status->host.state_hash, state_hash);
    hash_bytes(status->host.reply_hash, reply_hash);
    if (status->host.has_state_hash) response.state_hash = (ProtobufCBinaryData){sizeof state_hash, state_hash};
    response.reply_hash = (ProtobufCBinaryData){sizeof reply_hash, reply_hash};
    response.hash_index = status->host.hash_index;
    response.machine = unconst(options->plugin->name);
    response.machine_version = unconst(options->plugin->version);
    response.durability = (Lockstep__V1__Durability)front_durability(front);
    for (unsigned slot = 0; slot < options->member_count; slot++) {
        if (options->members[slot].name[0] == 0) continue;
        member_pointers[response.n_members] = &members[response.n_members];
        fill_member(front, slot, &members[response.n_members++]);
    }
    response.members = member_pointers;
    fill_counters(front, &counters);
    response.counters = &counters;
    response.version = unconst(LOCKSTEP_VERSION);
    for (uint32_t i = 0; i < status->warning_count; i++) warnings[i] = status->warnings[i];
    response.n_warnings = status->warning_count;
    response.warnings = warnings;
    response.base_index = status->raft.base_index;
    response.snapshot_index = status->storage.snapshot;
    response.configuration_index = status->configuration_index;
    response.joint = status->joint;
    response.change = status->change;
    response.observers = status->observers.count;
    response.observer_lag_bytes = status->observers.lag_bytes;
    response.observer_lapped = status->observers.lapped;

    uint8_t *to;
    if (grpc_call_claim(call->grpc, lockstep__v1__status_response__get_packed_size(&response), &to) != 0) {
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait on this connection; read them");
        return;
    }
    grpc_call_commit(call->grpc, lockstep__v1__status_response__pack(&response, to));
    call_finish(call, GRPC_OK, "");
}

/* Why a transfer did not happen; NULL: as for every other error. named: its target was. */
static const char *transfer_text(int error, bool named)
{
    switch (error) {
    case LOCKSTEP_ENOTFOUND:
        return named ? "no other voter has this name; `lockstep status` shows the names"
                     : "there is no other voter; `lockstep member add` adds one";
    case LOCKSTEP_EEXIST: return "this member leads already";
    case LOCKSTEP_ETIMEDOUT: return "the target did not take over in time; is it up, and caught up?";
    case LOCKSTEP_EUNAVAILABLE:
        return "no transfer is possible now: there is no leader, one is under way, or no other member is caught up";
    default: return NULL;
    }
}

static void transfer_fail(struct call *call, int error, bool named)
{
    const char *text = transfer_text(error, named);
    if (text == NULL)
        call_fail(call, error, "the transfer");
    else if (error == LOCKSTEP_ENOTFOUND)
        call_finish(call, GRPC_NOT_FOUND, text);
    else if (error == LOCKSTEP_EEXIST)
        call_finish(call, GRPC_ALREADY_EXISTS, text);
    else if (error == LOCKSTEP_ETIMEDOUT)
        call_finish(call, GRPC_ABORTED, text);
    else
        call_finish(call, GRPC_UNAVAILABLE, text);
}

void transfer_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = call->connection->front;
    arena_reset(&front->unpack);
    const Lockstep__V1__TransferLeaderRequest *request = (const Lockstep__V1__TransferLeaderRequest *)unpack(
        &front->unpack, &lockstep__v1__transfer_leader_request__descriptor, bytes, n);
    if (request == NULL) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    uint32_t work = work_take(front, WORK_TRANSFER, call);
    if (work == WORK_NONE) {
        call_fail(call, LOCKSTEP_EFULL, "the transfer");
        return;
    }
    int rc = node_transfer(front->node, request->target, work);
    if (rc != 0) {
        work_free(front, work);
        transfer_fail(call, rc, request->target[0] != 0);
        return;
    }
    call->work = work;
}

static void transfer_tell(struct call *call)
{
    struct front *front = call->connection->front;
    const struct node_options *options = node_options_of(front->node);
    Lockstep__V1__TransferLeaderResponse response;
    uint8_t *to;
    node_status_read(front->node, &front->status);
    unsigned leader = front->status.leader_slot;
    lockstep__v1__transfer_leader_response__init(&response);
    if (leader < RAFT_MEMBERS_MAX) response.leader = unconst(options->members[leader].name);
    response.term = front->status.raft.term;
    if (grpc_call_claim(call->grpc, lockstep__v1__transfer_leader_response__get_packed_size(&response), &to) != 0) {
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait on this connection; read them");
        return;
    }
    grpc_call_commit(call->grpc, lockstep__v1__transfer_leader_response__pack(&response, to));
    call_finish(call, GRPC_OK, "");
}

void transfer_answered(struct front *front, struct work *work, int error)
{
    struct call *call = work->call;
    (void)front;
    call->work = WORK_NONE; /* it is being freed by the caller */
    if (error != 0)
        transfer_fail(call, error, true);
    else
        transfer_tell(call);
}
