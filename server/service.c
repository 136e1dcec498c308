/* SPDX-License-Identifier: Apache-2.0 */
/* service.c - calls: which method, by when, how errors are told.
 * Thread: loop. Owns: the calls and the table of what waits for the node.
 *   - A call that ends leaves its work behind: the node still answers, and nobody is told.
 *   - Only the trailer `lockstep-outcome: not-appended` says that a command surely stands in no log. */
#include <stdio.h>
#include <string.h>

#include "server/front_internal.h"

static const struct method methods[] = {
    {.path = "/lockstep.v1.Lockstep/Propose", .unary = true, .message = propose_message},
    {.path = "/lockstep.v1.Lockstep/ProposeStream",
     .message = stream_message,
     .half_close = stream_half_close,
     .writable = stream_writable,
     .end = stream_end},
    {.path = "/lockstep.v1.Lockstep/Query", .unary = true, .message = query_message},
    {.path = "/lockstep.v1.Lockstep/OpenSession", .unary = true, .message = open_session_message},
    {.path = "/lockstep.v1.Lockstep/KeepAlive", .unary = true, .message = keep_alive_message},
    {.path = "/lockstep.v1.Lockstep/CloseSession", .unary = true, .message = close_session_message},
    {.path = "/lockstep.v1.Lockstep/Outcome", .unary = true, .message = outcome_message},
    {.path = "/lockstep.v1.Admin/Status", .unary = true, .message = status_message},
    {.path = "/lockstep.v1.Admin/TransferLeader", .unary = true, .message = transfer_message},
    {.path = "/lockstep.v1.Admin/ChangeMember", .unary = true, .message = change_member_message},
    {.path = "/lockstep.v1.Admin/Recover", .unary = true, .message = recover_message},
    {.path = "/grpc.health.v1.Health/Check", .unary = true, .message = health_check_message},
    {.path = "/grpc.health.v1.Health/Watch",
     .message = health_watch_message,
     .half_close = health_watch_half_close,
     .writable = health_watch_writable,
     .end = health_watch_end},
    {.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
     .message = reflection_message,
     .half_close = reflection_half_close},
    {.path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
     .message = reflection_message,
     .half_close = reflection_half_close},
};

/* ---- work ---- */

bool has_its_share(const struct connection *connection)
{
    return connection->asked >= connection->front->options.proposals_max / FRONT_CONN_SHARE;
}

static bool is_query(enum work_kind kind)
{
    return kind == WORK_QUERY || kind == WORK_OUTCOME;
}

uint32_t work_take(struct front *front, enum work_kind kind, struct call *call)
{
    uint32_t work = front->work_free;
    struct connection *connection = call->connection;
    if (work == WORK_NONE) return WORK_NONE;
    if (is_query(kind)) {
        if (connection->asked_queries >= front->options.queries_max / FRONT_CONN_SHARE) return WORK_NONE;
        connection->asked_queries++;
    } else if (kind != WORK_BATCH) {
        if (has_its_share(connection)) return WORK_NONE;
        connection->asked++;
    }
    front->work_free = front->works[work].next_free;
    front->works[work] = (struct work){.kind = kind, .call = call, .connection = connection};
    front->works_waiting++;
    return work;
}

void work_free(struct front *front, uint32_t work)
{
    struct work *w = &front->works[work];
    lk_assert(w->kind != WORK_FREE);
    if (w->call != NULL) front->works_waiting--;
    if (w->connection != NULL && is_query(w->kind))
        w->connection->asked_queries--;
    else if (w->connection != NULL && w->kind != WORK_BATCH)
        w->connection->asked--;
    *w = (struct work){.kind = WORK_FREE, .next_free = front->work_free};
    front->work_free = work;
}

void work_disown(struct connection *connection)
{
    struct front *front = connection->front;
    if (connection->asked == 0 && connection->asked_queries == 0) return;
    for (uint32_t i = 0; i < front->work_count; i++)
        if (front->works[i].connection == connection) front->works[i].connection = NULL;
}

/* ---- the life of a call ---- */

static void call_free(struct call *call)
{
    struct front *front = call->connection->front;
    if (call->method->end != NULL) call->method->end(call);
    if (call->work != WORK_NONE) {
        front->works[call->work].call = NULL;
        front->works_waiting--;
    }
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        front->calls = call->next;
    if (call->next != NULL) call->next->previous = call->previous;
    front->call_count--;
    call->connection->active_ns = front_now_ns(front);
    connection_touch(call->connection);
    pool_give(&front->budget, call);
}

static void finish(struct call *call, enum grpc_status status, const char *message, const struct grpc_pair *pairs,
                   size_t pair_count)
{
    grpc_call_finish(call->grpc, status, grpc_text(message), pairs, pair_count);
    call_free(call);
}

uint64_t call_left_ns(const struct call *call, unsigned answer_ms)
{
    uint64_t now_ns = front_now_ns(call->connection->front), answer_ns = (uint64_t)answer_ms * FRONT_MS;
    if (call->deadline_ns <= now_ns + 1) return 1; /* it ends with the next tick */
    uint64_t left_ns = call->deadline_ns - now_ns;
    return left_ns > 2 * answer_ns ? left_ns - answer_ns : left_ns / 2;
}

void call_finish(struct call *call, enum grpc_status status, const char *message)
{
    finish(call, status, message, NULL, 0);
}

void call_answer(struct call *call, const uint8_t *bytes, size_t n)
{
    if (grpc_call_reply(call->grpc, bytes, n) == 0)
        call_finish(call, GRPC_OK, "");
    else
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait on this connection; read them");
}

/* ---- errors ---- */

bool error_is_not_appended(int error)
{
    switch (error) {
    case LOCKSTEP_ENOTLEADER:
    case LOCKSTEP_EFULL:
    case LOCKSTEP_EUNAVAILABLE:
    case LOCKSTEP_ETOOBIG:
    case LOCKSTEP_EINVAL: return true;
    default: return false;
    }
}

uint32_t error_outcome(int error)
{
    switch (error) {
    case 0: return PROPOSE_APPLIED;
    case LOCKSTEP_EREPLIED: return PROPOSE_REPLY_DROPPED;
    default: return error_is_not_appended(error) ? PROPOSE_NOT_APPENDED : PROPOSE_UNKNOWN;
    }
}

/* The leader's member options; NULL while none is known. */
static const struct node_member_options *leader_of(const struct front *front)
{
    unsigned slot = node_leader(front->node);
    const struct node_options *options = node_options_of(front->node);
    return slot < options->member_count ? &options->members[slot] : NULL;
}

const char *error_text(struct front *front, int error, const char *what, char room[FRONT_ERROR_TEXT_BYTES_MAX])
{
    const struct node_member_options *leader;
    switch (error) {
    case LOCKSTEP_ENOTLEADER:
        leader = leader_of(front);
        if (leader == NULL) return "this node is not the leader and knows none; ask another node";
        snprintf(room, FRONT_ERROR_TEXT_BYTES_MAX, "this node is not the leader; ask %s at %s", leader->name,
                 leader->client);
        return room;
    case LOCKSTEP_EFULL: return "the node is full; back off and try again";
    case LOCKSTEP_EUNAVAILABLE:
        if (front->stopping) return "this node is stopping; ask another node";
        return node_leader(front->node) < RAFT_MEMBERS_MAX ? "not ready to serve this yet; try again"
                                                           : "no leader is known; try again";
    case LOCKSTEP_ETOOBIG:
        snprintf(room, FRONT_ERROR_TEXT_BYTES_MAX, "%s is over the limit of %u bytes; send a smaller one", what,
                 node_options_of(front->node)->command_bytes_max);
        return room;
    case LOCKSTEP_EINVAL: snprintf(room, FRONT_ERROR_TEXT_BYTES_MAX, "%s was refused as malformed", what); return room;
    case LOCKSTEP_EUNKNOWN:
        return "the command was appended and its outcome is unknown; retry only with the same session and seq";
    case LOCKSTEP_ENOTFOUND:
        return "the session has ended, or never was; what became of its unanswered commands is not known any more";
    case LOCKSTEP_EWINDOW: return "the seq is below the session's window: it was said to be answered";
    case LOCKSTEP_EREPLIED: return "the command was applied, once; its reply is kept no more";
    default: snprintf(room, FRONT_ERROR_TEXT_BYTES_MAX, "%s failed: %s", what, lockstep_error_text(error)); return room;
    }
}

enum grpc_status error_status(const struct front *front, int error)
{
    switch (error) {
    case LOCKSTEP_ENOTLEADER: return leader_of(front) != NULL ? GRPC_FAILED_PRECONDITION : GRPC_UNAVAILABLE;
    case LOCKSTEP_EFULL: return GRPC_RESOURCE_EXHAUSTED;
    case LOCKSTEP_EUNAVAILABLE: return GRPC_UNAVAILABLE;
    case LOCKSTEP_ETOOBIG:
    case LOCKSTEP_EINVAL: return GRPC_INVALID_ARGUMENT;
    case LOCKSTEP_ENOTFOUND: return GRPC_NOT_FOUND;
    case LOCKSTEP_EWINDOW: return GRPC_OUT_OF_RANGE;
    case LOCKSTEP_EREPLIED:
    case LOCKSTEP_EEXIST: return GRPC_ALREADY_EXISTS;
    case LOCKSTEP_EUNKNOWN: return GRPC_ABORTED;
    case LOCKSTEP_ETIMEDOUT: return GRPC_DEADLINE_EXCEEDED;
    default: return GRPC_INTERNAL;
    }
}

void call_fail(struct call *call, int error, const char *what)
{
    struct front *front = call->connection->front;
    char text[FRONT_ERROR_TEXT_BYTES_MAX], retry[16];
    struct grpc_pair pairs[3];
    size_t count = 0;
    const struct node_member_options *leader = leader_of(front);
    if (error == LOCKSTEP_ENOTLEADER && leader != NULL)
        pairs[count++] = (struct grpc_pair){grpc_text("lockstep-leader"), grpc_text(leader->client)};
    if (error == LOCKSTEP_EFULL) {
        snprintf(retry, sizeof retry, "%u", node_retry_after_ms(front->node));
        pairs[count++] = (struct grpc_pair){grpc_text("lockstep-retry-after-ms"), grpc_text(retry)};
    }
    if (error_is_not_appended(error))
        pairs[count++] = (struct grpc_pair){grpc_text("lockstep-outcome"), grpc_text("not-appended")};
    finish(call, error_status(front, error), error_text(front, error, what, text), pairs, count);
}

void call_fail_full(struct call *call, const char *message)
{
    static const struct grpc_pair pairs[] = {{{"lockstep-retry-after-ms", 23}, {"1000", 4}},
                                             {{"lockstep-outcome", 16}, {"not-appended", 12}}};
    finish(call, GRPC_RESOURCE_EXHAUSTED, message, pairs, 2);
}

uint32_t front_durability(const struct front *front)
{
    switch (node_options_of(front->node)->level) {
    case DURABILITY_LEVEL_FSYNC: return 1;
    case DURABILITY_LEVEL_OS: return 2;
    case DURABILITY_LEVEL_MEMORY: return 3;
    }
    return 0;
}

static const struct grpc_pair not_appended = {{"lockstep-outcome", 16}, {"not-appended", 12}};

/* Deadlines. A unary command that the node has may still be applied: its outcome is unknown. */
static void deadline_passed(struct call *call)
{
    if (call->asked)
        finish(call, GRPC_DEADLINE_EXCEEDED, "the deadline passed before the outcome was known", NULL, 0);
    else
        finish(call, GRPC_DEADLINE_EXCEEDED, "the deadline passed before the request was complete", &not_appended,
               call->method->unary ? 1 : 0);
}

void service_tick(struct front *front, uint64_t now_ns)
{
    struct call *next;
    for (struct call *call = front->calls; call != NULL; call = next) {
        next = call->next;
        if (call->deadline_ns <= now_ns) deadline_passed(call);
    }
}

/* ---- from the codec ---- */

static const struct method *method_of(struct grpc_text path)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (grpc_text_equals(path, methods[i].path)) return &methods[i];
    return NULL;
}

static bool says_no_forward(const struct grpc_request *request)
{
    for (size_t i = 0; i < request->pair_count; i++)
        if (grpc_text_equals(request->pairs[i].name, "lockstep-forward") &&
            grpc_text_equals(request->pairs[i].value, "no"))
            return true;
    return false;
}

static uint64_t deadline_of(const struct front *front, const struct method *method, uint64_t timeout_ns)
{
    static const uint64_t usual_ns = (uint64_t)FRONT_DEADLINE_DEFAULT_MS * FRONT_MS;
    static const uint64_t max_ns = (uint64_t)FRONT_DEADLINE_MAX_MS * FRONT_MS;
    uint64_t now_ns = front_now_ns(front), deadline_ns;
    if (timeout_ns == 0 && !method->unary) return UINT64_MAX;
    if (timeout_ns == 0) timeout_ns = usual_ns;
    if (method->unary && timeout_ns > max_ns) timeout_ns = max_ns;
    return __builtin_add_overflow(now_ns, timeout_ns, &deadline_ns) ? UINT64_MAX : deadline_ns;
}

static void on_open(void *owner, struct grpc_call *grpc, const struct grpc_request *request)
{
    struct connection *connection = owner;
    struct front *front = connection->front;
    const struct method *method = method_of(request->path);
    front->counters.calls++;
    if (method == NULL) {
        grpc_call_finish(grpc, GRPC_UNIMPLEMENTED, grpc_text("there is no such method"), &not_appended, 1);
        return;
    }
    struct call *call = pool_take(&front->budget, sizeof *call);
    if (call == NULL) {
        grpc_call_finish(grpc, GRPC_RESOURCE_EXHAUSTED, grpc_text("out of memory for calls; try again"), &not_appended,
                         1);
        return;
    }
    *call = (struct call){.grpc = grpc,
                          .connection = connection,
                          .method = method,
                          .next = front->calls,
                          .deadline_ns = deadline_of(front, method, request->timeout_ns),
                          .work = WORK_NONE,
                          .may_forward = !says_no_forward(request),
                          .service = -1,
                          .watch_status = -1};
    if (front->calls != NULL) front->calls->previous = call;
    front->calls = call;
    front->call_count++;
    grpc_call_user_set(grpc, call);
}

static void on_message(void *owner, struct grpc_call *grpc, const uint8_t *bytes, size_t n)
{
    (void)owner;
    struct call *call = grpc_call_user(grpc);
    if (call->method->unary && call->asked) {
        call_finish(call, GRPC_INVALID_ARGUMENT, "this method takes one message");
        return;
    }
    call->asked = true;
    call->method->message(call, bytes, n);
}

static void on_half_close(void *owner, struct grpc_call *grpc)
{
    (void)owner;
    struct call *call = grpc_call_user(grpc);
    call->half_closed = true;
    if (call->method->unary) {
        if (!call->asked) finish(call, GRPC_INVALID_ARGUMENT, "this method takes one message", &not_appended, 1);
        return;
    }
    call->method->half_close(call);
}

static void on_cancel(void *owner, struct grpc_call *grpc)
{
    (void)owner;
    call_free(grpc_call_user(grpc));
}

static void on_writable(void *owner, struct grpc_call *grpc)
{
    (void)owner;
    struct call *call = grpc_call_user(grpc);
    if (call->method->writable != NULL) call->method->writable(call);
}

const struct grpc_conn_ops service_ops = {.call_open = on_open,
                                          .call_message = on_message,
                                          .call_half_close = on_half_close,
                                          .call_cancel = on_cancel,
                                          .call_writable = on_writable};
