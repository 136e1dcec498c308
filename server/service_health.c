/* SPDX-License-Identifier: Apache-2.0 */
/* service_health.c - grpc.health.v1: Check and Watch. Thread: loop.
 *   ""                     this process serves
 *   "lockstep.v1.Lockstep" commands and queries can be served from here: this node is ready (a leader is known, it has
 *                          applied up to a recent commit)
 *   "lockstep.leader"      this node leads: a balancer that watches it finds the leader
 * HealthCheckRequest {string service = 1}, HealthCheckResponse {ServingStatus status = 1}. */
#include <string.h>

#include "server/front_internal.h"

enum health_service { HEALTH_PROCESS, HEALTH_LOCKSTEP, HEALTH_LEADER, HEALTH_UNKNOWN };
enum serving { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

static int service_read(const uint8_t *bytes, size_t n, enum health_service *ret)
{
    static const char *const names[] = {
        [HEALTH_PROCESS] = "", [HEALTH_LOCKSTEP] = "lockstep.v1.Lockstep", [HEALTH_LEADER] = "lockstep.leader"};
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    struct grpc_text name = {"", 0};
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1)
        if (field.number == 1 && field.type == WIRE_BYTES)
            name = (struct grpc_text){(const char *)field.bytes, field.count};
    *ret = HEALTH_UNKNOWN;
    for (int i = 0; i < HEALTH_UNKNOWN; i++)
        if (grpc_text_equals(name, names[i])) *ret = (enum health_service)i;
    return rc;
}

static enum serving status_of(struct front *front, enum health_service service)
{
    if (service == HEALTH_UNKNOWN) return SERVICE_UNKNOWN;
    if (front->stopping) return NOT_SERVING;
    if (service == HEALTH_PROCESS) return SERVING;
    node_status_read(front->node, &front->status);
    if (service == HEALTH_LOCKSTEP) return front->status.ready ? SERVING : NOT_SERVING;
    return front->status.raft.role == RAFT_LEADER && front->status.raft.writable ? SERVING : NOT_SERVING;
}

static size_t response_put(uint8_t to[2], enum serving status)
{
    return (size_t)(wire_put_uint(to, 1, status) - to);
}

void health_check_message(struct call *call, const uint8_t *bytes, size_t n)
{
    enum health_service service;
    uint8_t response[2];
    if (service_read(bytes, n, &service) != 0) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    enum serving status = status_of(call->connection->front, service);
    if (status == SERVICE_UNKNOWN)
        call_finish(call, GRPC_NOT_FOUND, "no such service; known are \"\", lockstep.v1.Lockstep and lockstep.leader");
    else
        call_answer(call, response, response_put(response, status));
}

/* Tell a watcher what has changed; one that does not read is told when it does. */
void health_watch_writable(struct call *call)
{
    uint8_t response[2];
    enum serving status = status_of(call->connection->front, (enum health_service)call->service);
    if ((int)status == call->watch_status) return;
    if (grpc_call_reply(call->grpc, response, response_put(response, status)) != 0) return;
    call->watch_status = (int)status;
    connection_touch(call->connection);
}

void health_watch_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = call->connection->front;
    enum health_service service;
    if (call->service >= 0) {
        call_finish(call, GRPC_INVALID_ARGUMENT, "this method takes one message");
        return;
    }
    if (service_read(bytes, n, &service) != 0) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    call->service = (int)service;
    call->next_watch = front->watches;
    front->watches = call;
    health_watch_writable(call);
}

void health_watch_half_close(struct call *call)
{
    if (call->service < 0) call_finish(call, GRPC_INVALID_ARGUMENT, "this method takes one message");
}

void health_watch_end(struct call *call)
{
    struct call **at = &call->connection->front->watches;
    while (*at != NULL && *at != call) at = &(*at)->next_watch;
    if (*at == call) *at = call->next_watch;
}

void health_tell(struct front *front)
{
    for (struct call *call = front->watches; call != NULL; call = call->next_watch) health_watch_writable(call);
}
