/* SPDX-License-Identifier: Apache-2.0 */
/* operation.c - one request, one answer: attempts, pauses, deadlines, and what is known when it ends.
 * Thread: the owner's. Owns: operations, the heap of their times, the list of those that wait for a connection.
 *
 *   UNNUMBERED -> WAITING [operation_number] -> SENT [operation_place] -> free [operation_end]
 *                                                -> SLEEPING [attempt_failed] -> WAITING [operation_turn]
 *                                                -> UNNUMBERED [number_again]
 *   any state -> free at its deadline [operation_turn]
 *
 * C1, C2  (client.h) live in judge(): the one place that decides whether something is sent again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "client/internal.h"
#include "proto/messages.h"

static const char *const paths[] = {
    [OPERATION_PROPOSE] = "/lockstep.v1.Lockstep/Propose",
    [OPERATION_QUERY] = "/lockstep.v1.Lockstep/Query",
    [OPERATION_STATUS] = "/lockstep.v1.Admin/Status",
    [OPERATION_TRANSFER] = "/lockstep.v1.Admin/TransferLeader",
    [OPERATION_HEALTH] = "/grpc.health.v1.Health/Check",
    [OPERATION_OUTCOME] = "/lockstep.v1.Lockstep/Outcome",
    [OPERATION_OPEN_SESSION] = "/lockstep.v1.Lockstep/OpenSession",
    [OPERATION_KEEP_ALIVE] = "/lockstep.v1.Lockstep/KeepAlive",
    [OPERATION_MEMBER] = "/lockstep.v1.Admin/ChangeMember",
    [OPERATION_RECOVER] = "/lockstep.v1.Admin/Recover",
};

/* --- the heap of times: the earliest is heap[0] --- */

static void heap_set(struct lockstep_client *client, uint32_t at, struct operation *operation)
{
    client->heap[at] = operation;
    operation->heap_at = at;
}

/* Put the operation, whose time has changed, or that fills a hole at `at`, where it belongs. */
static void heap_move(struct lockstep_client *client, uint32_t at, struct operation *operation)
{
    while (at > 0 && operation->due_ns < client->heap[(at - 1) / 2]->due_ns) {
        heap_set(client, at, client->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= client->heap_count) break;
        if (child + 1 < client->heap_count && client->heap[child + 1]->due_ns < client->heap[child]->due_ns) child++;
        if (operation->due_ns <= client->heap[child]->due_ns) break;
        heap_set(client, at, client->heap[child]);
        at = child;
    }
    heap_set(client, at, operation);
}

static void heap_remove(struct lockstep_client *client, struct operation *operation)
{
    uint32_t at = operation->heap_at;
    lk_assert(at < client->heap_count);
    lk_assert(client->heap[at] == operation);
    struct operation *last = client->heap[--client->heap_count];
    if (last != operation) heap_move(client, at, last);
}

/* --- the lists of those that wait, for a connection or for a session --- */

static void list_add(struct operation_list *list, struct operation *operation)
{
    operation->next = NULL;
    operation->previous = list->last;
    if (list->last != NULL)
        list->last->next = operation;
    else
        list->first = operation;
    list->last = operation;
}

static void list_take(struct operation_list *list, struct operation *operation)
{
    if (operation->previous != NULL)
        operation->previous->next = operation->next;
    else
        list->first = operation->next;
    if (operation->next != NULL)
        operation->next->previous = operation->previous;
    else
        list->last = operation->previous;
}

static void wait_for_connection(struct lockstep_client *client, struct operation *operation)
{
    operation->state = OPERATION_WAITING;
    list_add(&client->waiting, operation);
    client->fresh = true;
}

static void wait_for_session(struct lockstep_client *client, struct operation *operation)
{
    operation->state = OPERATION_UNNUMBERED;
    list_add(&client->unnumbered, operation);
    client->fresh = true;
}

void operation_number(struct lockstep_client *client)
{
    struct client_session *session = &client->session;
    struct operation *operation;
    uint64_t seq;
    while ((operation = client->unnumbered.first) != NULL && session_next_seq(session, &seq)) {
        list_take(&client->unnumbered, operation);
        operation->session = session->id;
        operation->seq = seq;
        operation->request_bytes +=
            (uint32_t)message_number_write(operation->request + operation->request_bytes, session->id, seq);
        wait_for_connection(client, operation);
    }
}

/* --- beginning and end --- */

static int heap_grow(struct lockstep_client *client)
{
    uint32_t room = client->heap_room == 0 ? 64 : client->heap_room * 2;
    struct operation **heap = realloc(client->heap, room * sizeof heap[0]);
    if (heap == NULL) return LOCKSTEP_ENOMEM;
    client->heap = heap;
    client->heap_room = room;
    return 0;
}

int operation_start(struct lockstep_client *client, enum operation_kind kind, size_t request_bytes,
                    uint32_t deadline_ms, struct operation **ret)
{
    if (client->closing) return LOCKSTEP_ECLOSED;
    if (request_bytes > LOCKSTEP_MESSAGE_BYTES_MAX) return LOCKSTEP_ETOOBIG;
    bool internal = kind == OPERATION_OPEN_SESSION || kind == OPERATION_KEEP_ALIVE; /* what others wait for */
    if (client->running - client->internal >= client->options.operations_max && !internal) return LOCKSTEP_EFULL;
    if (client->heap_count == client->heap_room && heap_grow(client) != 0) return LOCKSTEP_EFULL;
    struct operation *operation = client->free_operations;
    if (operation != NULL)
        client->free_operations = operation->next;
    else
        operation = malloc(sizeof *operation);
    if (operation == NULL) return LOCKSTEP_EFULL;
    uint8_t *request = pool_take(&client->requests, request_bytes + 1); /* an empty message is a message */
    if (request == NULL) {
        operation->next = client->free_operations;
        client->free_operations = operation;
        return LOCKSTEP_EFULL;
    }
    if (deadline_ms == 0) deadline_ms = client->options.deadline_ms;
    uint64_t now_ns = client_now_ns();
    memset(operation, 0, offsetof(struct operation, small));
    operation->owner = CALL_OPERATION;
    operation->client = client;
    operation->kind = kind;
    operation->request = request;
    operation->request_bytes = (uint32_t)request_bytes;
    operation->started_ns = now_ns;
    operation->deadline_ms = deadline_ms;
    operation->deadline_ns = now_ns + deadline_ms * CLIENT_MS_NS;
    operation->due_ns = operation->deadline_ns;
    client->running++;
    client->internal += internal;
    client->heap_count++;
    heap_move(client, client->heap_count - 1, operation);
    wait_for_connection(client, operation);
    *ret = operation;
    return 0;
}

/* Take it out of everything it is in; its memory stays until operation_free. */
static void retire(struct operation *operation)
{
    struct lockstep_client *client = operation->client;
    lk_assert(operation->state != OPERATION_FREE);
    if (operation->state == OPERATION_UNNUMBERED) list_take(&client->unnumbered, operation);
    if (operation->state == OPERATION_WAITING) list_take(&client->waiting, operation);
    if (operation->state == OPERATION_SENT) {
        endpoint_paid(operation->at, 1);
        if (operation->call != NULL) grpc_client_cancel(operation->call);
    }
    operation->state = OPERATION_FREE;
    heap_remove(client, operation);
    client->running--;
    client->internal -= operation->kind == OPERATION_OPEN_SESSION || operation->kind == OPERATION_KEEP_ALIVE;
    if (!operation->numbers_itself || operation->seq == 0) return;
    session_seq_ended(&client->session, operation->session, operation->seq);
    operation_number(client);
}

static void drop_answer(struct operation *operation)
{
    if (operation->answer != operation->small) pool_give(&operation->client->requests, operation->answer);
    operation->answer = NULL;
    operation->answered = operation->broken = false;
}

static void release(struct operation *operation)
{
    struct lockstep_client *client = operation->client;
    pool_give(&client->requests, operation->request);
    drop_answer(operation);
    operation->next = client->free_operations;
    client->free_operations = operation;
}

/* The callback sees an operation that has left: it may start others. */
static void operation_end(struct operation *operation, const struct lockstep_result *result,
                          const struct lockstep_status *status)
{
    retire(operation);
    operation->client->told = true;
    if (operation->kind == OPERATION_STATUS)
        operation->callback.status(operation->context, result, status);
    else
        operation->callback.result(operation->context, result);
    release(operation);
}

void operation_drop(struct operation *operation)
{
    retire(operation);
    release(operation);
}

static bool appends(const struct operation *operation)
{
    return operation->kind == OPERATION_PROPOSE;
}

/* What was lost on the way may have happened, and is not asked for again. */
static bool happens_once(const struct operation *operation)
{
    return operation->kind == OPERATION_TRANSFER || operation->kind == OPERATION_RECOVER;
}

/* A command with a seq is applied once, however often it is sent; what appends nothing, and what nobody minds having
 * twice, may be repeated as well. */
static bool is_repeatable(const struct operation *operation)
{
    if (happens_once(operation) || operation->kind == OPERATION_MEMBER) return false;
    return operation->kind != OPERATION_PROPOSE || (operation->session != 0 && operation->seq != 0);
}

static void end_failed(struct operation *operation, int error, bool may_be_appended, const char *text)
{
    bool unknown = appends(operation) && (may_be_appended || operation->may_be_applied);
    struct lockstep_result result = {
        .error = error,
        .fate = unknown ? LOCKSTEP_UNKNOWN : LOCKSTEP_NOT_APPENDED,
        .session = operation->session,
        .seq = operation->seq,
        .endpoint = operation->at != NULL ? operation->at->address : "",
        .text = text,
        .retry_after_ms = operation->retry_after_ms,
    };
    operation_end(operation, &result, NULL);
}

/* A node said so, and a moment later, or at another node, it may be otherwise. */
static bool is_passing(int error)
{
    return error == LOCKSTEP_ENOTLEADER || error == LOCKSTEP_EFULL || error == LOCKSTEP_EUNAVAILABLE;
}

void operation_fail_unnumbered(struct lockstep_client *client, uint64_t started_ns, int error, const char *text)
{
    struct operation *operation;
    /* It is asked for again, and whoever waits does so until its own deadline. */
    if (is_passing(error) || error == LOCKSTEP_ETIMEDOUT || error == LOCKSTEP_EUNKNOWN) return;
    while ((operation = client->unnumbered.first) != NULL && operation->started_ns <= started_ns)
        end_failed(operation, error, false, text);
}

void operation_close_all(struct lockstep_client *client)
{
    while (client->heap_count > 0) {
        struct operation *operation = client->heap[0];
        end_failed(operation, LOCKSTEP_ECLOSED, operation->state == OPERATION_SENT, "the client was closed");
    }
}

void operation_free_all(struct lockstep_client *client)
{
    while (client->free_operations != NULL) {
        struct operation *next = client->free_operations->next;
        free(client->free_operations);
        client->free_operations = next;
    }
    free(client->heap);
}

/* --- attempts --- */

/* Whether a node may forward this: only where this client has been unable, for a while, to reach the leader that the
 * cluster names. Otherwise it goes there itself: one hop less, and a forwarded command can be lost on one more link. */
static bool may_be_forwarded(const struct lockstep_client *client)
{
    return client->leader_hint != NULL && client->leader_hint->failures >= CLIENT_FORWARD_FAILURES;
}

/* When the connection has been silent for so long, the node may hang: each time we wait twice as long. */
static void look_again(struct operation *operation, uint64_t now_ns)
{
    operation->quiet_ms = operation->quiet_ms == 0 ? operation->client->quiet_ms : operation->quiet_ms * 2;
    uint64_t due_ns = now_ns + (operation->quiet_ms + 1) * CLIENT_MS_NS;
    operation->due_ns = due_ns < operation->deadline_ns ? due_ns : operation->deadline_ns;
    heap_move(operation->client, operation->heap_at, operation);
}

/* WAITING -> SENT. 0, or the codec's error: nothing was started then. */
static int attempt(struct operation *operation, struct endpoint *endpoint, uint64_t now_ns)
{
    static const struct grpc_pair no_forward = {{"lockstep-forward", 16}, {"no", 2}};
    bool by_leader = operation->kind != OPERATION_STATUS && operation->kind != OPERATION_TRANSFER &&
                     operation->kind != OPERATION_HEALTH && operation->kind != OPERATION_MEMBER;
    size_t pairs = by_leader && !may_be_forwarded(operation->client) ? 1 : 0;
    struct grpc_client_call *call;
    int rc = grpc_client_start(endpoint->codec, paths[operation->kind], operation->deadline_ns - now_ns, &no_forward,
                               pairs, operation, &call);
    if (rc != 0) return rc;
    rc = grpc_client_message(call, operation->request, operation->request_bytes);
    if (rc != 0) {
        grpc_client_cancel(call);
        return rc;
    }
    grpc_client_half_close(call);
    list_take(&operation->client->waiting, operation);
    operation->call = call;
    operation->at = endpoint;
    operation->state = OPERATION_SENT;
    operation->attempts++;
    endpoint_owe(endpoint, now_ns);
    if (is_repeatable(operation)) look_again(operation, now_ns);
    return 0;
}

/* The first that waits, began before that, and surely is not applied. */
static struct operation *first_unsent(const struct lockstep_client *client, uint64_t before_ns)
{
    struct operation *o = client->waiting.first;
    while (o != NULL && (o->may_be_applied || o->started_ns > before_ns)) o = o->next;
    return o;
}

/* Nobody can be reached: those that began before every listed endpoint was tried end now, not at their deadline. What
 * may be applied already stays: its outcome is worth waiting for. */
static void end_unreachable(struct lockstep_client *client)
{
    if (client->waiting.first == NULL || endpoint_any_hope(client)) return;
    uint64_t all_failed_ns = endpoint_all_failed_ns(client);
    struct operation *operation;
    /* From the front each time: a callback that closes a stream takes its operation out, whichever it is. */
    while ((operation = first_unsent(client, all_failed_ns)) != NULL)
        end_failed(operation, LOCKSTEP_EUNREACHABLE, false, lockstep_client_trouble(client));
}

void operation_place(struct lockstep_client *client, uint64_t now_ns)
{
    client->fresh = false;
    while (client->waiting.first != NULL) {
        struct endpoint *endpoint = endpoint_choose(client, now_ns);
        struct operation *operation = client->waiting.first; /* choosing may read a socket, and so call back */
        if (endpoint == NULL || operation == NULL) break;
        int rc = attempt(operation, endpoint, now_ns);
        if (rc == LOCKSTEP_ECLOSED) {
            endpoint_drain(endpoint); /* others take over; endpoint_turn closes it when its calls have ended */
            continue;
        }
        if (rc != 0) {
            /* As many calls as the server allows: the end of one brings us here again; a budget, time. */
            client->choose_again_ns = now_ns + CLIENT_RETRY_MS_MIN * CLIENT_MS_NS;
            break;
        }
    }
    end_unreachable(client);
}

static void attempt_failed(struct operation *operation, const struct attempt *failed, bool from_server);

/* SENT, and no answer for a while. */
static void is_overdue(struct operation *operation, uint64_t now_ns)
{
    if (!endpoint_is_quiet(operation->at, now_ns, operation->quiet_ms)) {
        operation->quiet_ms /= 2; /* it lives: as long again */
        look_again(operation, now_ns);
        return;
    }
    struct attempt failed = {.error = LOCKSTEP_EUNKNOWN};
    snprintf(failed.text, sizeof failed.text, "nothing was heard for %" PRIu32 " ms", operation->quiet_ms);
    snprintf(operation->at->cause, sizeof operation->at->cause, "%s", failed.text);
    grpc_client_cancel(operation->call);
    operation->call = NULL;
    endpoint_pass(operation->at, (struct grpc_text){NULL, 0});
    attempt_failed(operation, &failed, false);
}

static void deadline_passed(struct operation *operation)
{
    struct lockstep_client *client = operation->client;
    char text[LOCKSTEP_TEXT_BYTES_MAX];
    if (operation->state == OPERATION_SENT) {
        snprintf(text, sizeof text, "no answer within %" PRIu32 " ms", operation->deadline_ms);
        snprintf(operation->at->cause, sizeof operation->at->cause, "%s", text);
        end_failed(operation, LOCKSTEP_ETIMEDOUT, true, text);
        return;
    }
    int error = operation->last_error;
    if (operation->state == OPERATION_UNNUMBERED) {
        const struct operation *asking = client->session.asking;
        error = asking != NULL && asking->last_error != 0 ? asking->last_error : client->session.error;
        if (error == 0 && asking != NULL && asking->state == OPERATION_SENT) error = LOCKSTEP_ETIMEDOUT;
        if (error == LOCKSTEP_EUNKNOWN)
            error = LOCKSTEP_EUNAVAILABLE; /* of the session; nothing of this one was sent */
        if (client->session.state == SESSION_OPEN) error = LOCKSTEP_EFULL; /* as many run as the window allows */
    }
    if (operation->may_be_applied) error = LOCKSTEP_ETIMEDOUT;
    if (error == 0) error = LOCKSTEP_EUNREACHABLE;
    const char *trouble = lockstep_client_trouble(client);
    if (trouble[0] == 0) {
        snprintf(text, sizeof text, "no %s within %" PRIu32 " ms",
                 operation->may_be_applied ? "answer" : "connection took it", operation->deadline_ms);
        trouble = text;
    }
    end_failed(operation, error, false, trouble);
}

void operation_turn(struct lockstep_client *client, uint64_t now_ns)
{
    session_turn(&client->session, client->unnumbered.first != NULL, now_ns);
    while (client->heap_count > 0 && client->heap[0]->due_ns <= now_ns) {
        struct operation *operation = client->heap[0];
        if (now_ns >= operation->deadline_ns) {
            deadline_passed(operation);
        } else if (operation->state == OPERATION_SLEEPING) {
            operation->due_ns = operation->deadline_ns;
            heap_move(client, 0, operation);
            wait_for_connection(client, operation);
        } else {
            lk_assert(operation->state == OPERATION_SENT);
            is_overdue(operation, now_ns);
        }
    }
}

static uint32_t number(struct grpc_text text)
{
    uint32_t value = 0;
    for (size_t i = 0; i < text.bytes && text.at[i] >= '0' && text.at[i] <= '9' && value < 100000; i++)
        value = value * 10 + (uint32_t)(text.at[i] - '0');
    return value;
}

int attempt_error(enum grpc_status status)
{
    switch (status) {
    case GRPC_OK: return 0;
    case GRPC_UNAVAILABLE: return LOCKSTEP_EUNAVAILABLE;
    case GRPC_FAILED_PRECONDITION: return LOCKSTEP_ENOTLEADER;
    case GRPC_RESOURCE_EXHAUSTED: return LOCKSTEP_EFULL;
    case GRPC_DEADLINE_EXCEEDED: return LOCKSTEP_ETIMEDOUT;
    case GRPC_ABORTED:
    case GRPC_CANCELLED: return LOCKSTEP_EUNKNOWN;
    case GRPC_UNIMPLEMENTED:
    case GRPC_INVALID_ARGUMENT: return LOCKSTEP_EINVAL;
    case GRPC_OUT_OF_RANGE: return LOCKSTEP_EWINDOW;
    case GRPC_NOT_FOUND: return LOCKSTEP_ENOTFOUND;
    case GRPC_ALREADY_EXISTS: return LOCKSTEP_EEXIST;
    case GRPC_DATA_LOSS: return LOCKSTEP_ECORRUPT;
    default: return LOCKSTEP_EPROTO;
    }
}

void attempt_read(const struct grpc_client_result *result, struct attempt *ret)
{
    *ret = (struct attempt){0};
    bool retry_after = false;
    for (size_t i = 0; i < result->pair_count; i++) {
        const struct grpc_pair *pair = &result->pairs[i];
        if (grpc_text_equals(pair->name, "lockstep-outcome")) {
            ret->not_appended = grpc_text_equals(pair->value, "not-appended");
        } else if (grpc_text_equals(pair->name, "lockstep-leader")) {
            ret->leader = pair->value;
        } else if (grpc_text_equals(pair->name, "lockstep-retry-after-ms")) {
            ret->retry_after_ms = number(pair->value);
            retry_after = true;
        }
    }
    ret->error = attempt_error((enum grpc_status)result->status);
    bool not_leader = ret->leader.bytes > 0 || ret->not_appended;
    if (result->status == GRPC_FAILED_PRECONDITION && !not_leader) ret->error = LOCKSTEP_EINVAL;
    if (result->status == GRPC_RESOURCE_EXHAUSTED && !retry_after) ret->error = LOCKSTEP_ETOOBIG;
    if (ret->error == 0) return;
    if (result->message.bytes > 0)
        snprintf(ret->text, sizeof ret->text, "%.*s", (int)result->message.bytes, result->message.at);
    else
        snprintf(ret->text, sizeof ret->text, "%s (%s)", lockstep_error_text(ret->error),
                 grpc_status_name(result->status));
}

/* An attempt that is still out at the deadline has an unknown outcome. So none begins just before it: what was surely not
 * appended until then ends as just that. */
static void sleep_until(struct operation *operation, uint64_t due_ns)
{
    bool too_late = due_ns + CLIENT_LAST_ATTEMPT_MS * CLIENT_MS_NS > operation->deadline_ns;
    operation->state = OPERATION_SLEEPING;
    operation->due_ns = too_late ? operation->deadline_ns : due_ns;
    heap_move(operation->client, operation->heap_at, operation);
}

/* The session has ended, and this attempt was not applied. If none before it may have been, the command gets a number of
 * another session; else the application has to know. */
static void number_again(struct operation *operation, const struct attempt *failed)
{
    struct lockstep_client *client = operation->client;
    session_ended(&client->session, operation->session);
    if (operation->may_be_applied || !operation->numbers_itself) {
        end_failed(operation, LOCKSTEP_ENOTFOUND, false, failed->text);
        return;
    }
    drop_answer(operation);
    endpoint_paid(operation->at, 1);
    operation->call = NULL;
    operation->request_bytes -= MESSAGE_NUMBER_BYTES;
    operation->session = operation->seq = 0;
    operation->due_ns = operation->deadline_ns;
    heap_move(client, operation->heap_at, operation);
    wait_for_session(client, operation);
}

static void end_replied(struct operation *operation, const struct attempt *failed)
{
    struct lockstep_result result = {.error = LOCKSTEP_EREPLIED,
                                     .fate = LOCKSTEP_APPLIED,
                                     .session = operation->session,
                                     .seq = operation->seq,
                                     .endpoint = operation->at->address,
                                     .text = failed->text};
    operation_end(operation, &result, NULL);
}

/* Whether the answer is about the session and the seq of a proposal. */
static bool is_of_session(const struct operation *operation, bool from_server)
{
    return from_server && appends(operation) && operation->session != 0;
}

/* What a call that has ended without an answer means: for its command, and for what is done next. */
struct verdict {
    int error;           /* for the application */
    bool may_be_applied; /* this attempt; of earlier ones the operation knows */
    bool again;
};

static struct verdict judge(const struct operation *operation, const struct attempt *failed, bool from_server)
{
    bool refused = failed->not_appended || (is_of_session(operation, from_server) && failed->error == LOCKSTEP_EWINDOW);
    bool passing = is_passing(failed->error);
    struct verdict verdict = {.error = failed->error, .may_be_applied = appends(operation) && !refused};
    /* Who cannot serve, and does not say that nothing was appended, may have appended it. */
    if (passing && verdict.may_be_applied) verdict.error = LOCKSTEP_EUNKNOWN;
    if (is_repeatable(operation)) {
        verdict.again = passing || failed->error == LOCKSTEP_EUNKNOWN;
    } else {
        bool undone = from_server || !happens_once(operation);
        verdict.again = passing && !verdict.may_be_applied && undone;
    }
    return verdict;
}

/* SENT -> WAITING, SLEEPING: where it goes next, and when. */
static void try_again(struct operation *operation, const struct attempt *failed, bool from_server)
{
    struct lockstep_client *client = operation->client;
    drop_answer(operation); /* there may be one: of a call that failed after it */
    endpoint_paid(operation->at, 1);
    operation->call = NULL;
    uint64_t now_ns = client_now_ns();
    if (operation->last_error == LOCKSTEP_EFULL) {
        uint32_t ms = failed->retry_after_ms;
        if (ms < 1) ms = 1;
        sleep_until(operation, now_ns + ms * CLIENT_MS_NS);
        return;
    }
    if (from_server) endpoint_pass(operation->at, failed->leader);
    bool at_once = failed->leader.bytes > 0 && operation->redirects++ < CLIENT_REDIRECTS_AT_ONCE;
    if (at_once) {
        operation->due_ns = operation->deadline_ns;
        heap_move(client, operation->heap_at, operation);
        wait_for_connection(client, operation);
        return;
    }
    operation->pause_ms = operation->pause_ms == 0 ? CLIENT_RETRY_MS_MIN : operation->pause_ms * 2;
    if (operation->pause_ms > CLIENT_RETRY_MS_MAX) operation->pause_ms = CLIENT_RETRY_MS_MAX;
    sleep_until(operation, now_ns + operation->pause_ms * CLIENT_MS_NS);
}

/* The call has ended without an answer. Send it again, or end it? */
static void attempt_failed(struct operation *operation, const struct attempt *failed, bool from_server)
{
    bool of_session = is_of_session(operation, from_server);
    if (of_session && failed->error == LOCKSTEP_EEXIST) {
        end_replied(operation, failed);
        return;
    }
    if (of_session && failed->error == LOCKSTEP_ENOTFOUND) {
        number_again(operation, failed);
        return;
    }
    struct verdict verdict = judge(operation, failed, from_server);
    operation->retry_after_ms = failed->retry_after_ms;
    if (from_server && (verdict.again || is_passing(failed->error)))
        snprintf(operation->at->cause, sizeof operation->at->cause, "%s", failed->text);
    if (!verdict.again) {
        end_failed(operation, verdict.error, verdict.may_be_applied, failed->text);
        return;
    }
    operation->may_be_applied = operation->may_be_applied || verdict.may_be_applied;
    operation->last_error = verdict.error;
    try_again(operation, failed, from_server);
}

void operation_answer(struct operation *operation, const uint8_t *bytes, size_t n)
{
    operation->broken = operation->answered; /* one request, one answer */
    if (operation->answered) return;
    operation->answered = true;
    operation->answer = n <= sizeof operation->small ? operation->small : pool_take(&operation->client->requests, n);
    if (operation->answer == NULL) {
        operation->broken = true;
        return;
    }
    if (n > 0) memcpy(operation->answer, bytes, n);
    operation->answer_bytes = (uint32_t)n;
}

static int read_answer(const struct operation *operation, struct lockstep_result *result,
                       struct lockstep_status *status)
{
    const uint8_t *bytes = operation->answer;
    size_t n = operation->answer_bytes;
    switch (operation->kind) {
    case OPERATION_PROPOSE: return message_proposal_read(bytes, n, result);
    case OPERATION_QUERY: return message_query_read(bytes, n, result);
    case OPERATION_STATUS: return message_status_read(bytes, n, status);
    case OPERATION_TRANSFER: return message_transfer_read(bytes, n, result);
    case OPERATION_HEALTH: return message_health_read(bytes, n, result);
    case OPERATION_MEMBER: return message_member_change_read(bytes, n, result);
    case OPERATION_RECOVER: return message_recover_read(bytes, n, result);
    case OPERATION_OUTCOME: return message_outcome_read(bytes, n, result);
    case OPERATION_OPEN_SESSION:
    case OPERATION_KEEP_ALIVE:
        result->reply = bytes; /* who asked reads it */
        result->reply_bytes = n;
        return 0;
    }
    lk_unreachable();
}

void operation_call_end(struct operation *operation, const struct grpc_client_result *call_result)
{
    lk_assert(operation->state == OPERATION_SENT);
    operation->call = NULL; /* dead when this returns */
    struct attempt attempt;
    attempt_read(call_result, &attempt);
    if (attempt.error != 0) {
        attempt_failed(operation, &attempt, call_result->from_server);
        return;
    }
    struct lockstep_result result = {.fate = LOCKSTEP_APPLIED, .endpoint = operation->at->address, .text = ""};
    struct lockstep_status status;
    int rc = operation->answered && !operation->broken ? read_answer(operation, &result, &status) : LOCKSTEP_EPROTO;
    if (rc != 0) {
        end_failed(operation, LOCKSTEP_EPROTO, true, "the answer is not what lockstep.v1 says");
        return;
    }
    if (!operation->at->draining) operation->at->cause[0] = 0;
    result.session = operation->session;
    result.seq = operation->seq;
    if (operation->numbers_itself) session_touched(&operation->client->session, operation->session);
    operation_end(operation, &result, &status);
}

/* --- what client.h offers --- */

int lockstep_propose(struct lockstep_client *client, const struct lockstep_proposal *proposal,
                     lockstep_result_callback *callback, void *context)
{
    struct operation *operation;
    bool numbers_itself = !client->options.no_session && proposal->session == 0;
    size_t bytes = message_proposal_bytes(proposal);
    int rc = operation_start(client, OPERATION_PROPOSE, bytes + (numbers_itself ? MESSAGE_NUMBER_BYTES : 0),
                             proposal->deadline_ms, &operation);
    if (rc != 0) return rc;
    message_proposal_write(operation->request, proposal);
    operation->callback.result = callback;
    operation->context = context;
    operation->session = proposal->session;
    operation->seq = proposal->session != 0 ? proposal->seq : 0;
    if (!numbers_itself) return 0;
    operation->numbers_itself = true;
    operation->request_bytes = (uint32_t)bytes;
    list_take(&client->waiting, operation);
    wait_for_session(client, operation);
    operation_number(client);
    return 0;
}

int lockstep_outcome(struct lockstep_client *client, uint64_t session, uint64_t seq, uint32_t deadline_ms,
                     lockstep_result_callback *callback, void *context)
{
    struct session_request request = {.session = session, .seq = seq};
    if (session == 0 || seq == 0) return LOCKSTEP_EINVAL;
    struct operation *operation;
    int rc = operation_start(client, OPERATION_OUTCOME, session_request_bytes(&request), deadline_ms, &operation);
    if (rc != 0) return rc;
    session_request_put(operation->request, &request);
    operation->callback.result = callback;
    operation->context = context;
    operation->session = session;
    operation->seq = seq;
    return 0;
}

int lockstep_query(struct lockstep_client *client, const struct lockstep_query *query,
                   lockstep_result_callback *callback, void *context)
{
    if ((unsigned)query->consistency > LOCKSTEP_BOUNDED_STALE) return LOCKSTEP_EINVAL;
    struct operation *operation;
    int rc = operation_start(client, OPERATION_QUERY, message_query_bytes(query), query->deadline_ms, &operation);
    if (rc != 0) return rc;
    message_query_write(operation->request, query);
    operation->callback.result = callback;
    operation->context = context;
    return 0;
}

int lockstep_status(struct lockstep_client *client, uint32_t deadline_ms, lockstep_status_callback *callback,
                    void *context)
{
    struct operation *operation;
    int rc = operation_start(client, OPERATION_STATUS, 0, deadline_ms, &operation);
    if (rc != 0) return rc;
    operation->callback.status = callback;
    operation->context = context;
    return 0;
}

static int start_named(struct lockstep_client *client, enum operation_kind kind, const char *name, uint32_t deadline_ms,
                       lockstep_result_callback *callback, void *context)
{
    struct operation *operation;
    int rc = operation_start(client, kind, message_name_bytes(name), deadline_ms, &operation);
    if (rc != 0) return rc;
    message_name_write(operation->request, name);
    operation->callback.result = callback;
    operation->context = context;
    return 0;
}

int lockstep_transfer(struct lockstep_client *client, const char *target, uint32_t deadline_ms,
                      lockstep_result_callback *callback, void *context)
{
    return start_named(client, OPERATION_TRANSFER, target, deadline_ms, callback, context);
}

int lockstep_recover(struct lockstep_client *client, const char *cluster, uint64_t cluster_id, uint64_t member_id,
                     uint32_t deadline_ms, lockstep_result_callback *callback, void *context)
{
    struct operation *operation;
    int rc = operation_start(client, OPERATION_RECOVER, message_recover_bytes(cluster, cluster_id, member_id),
                             deadline_ms, &operation);
    if (rc != 0) return rc;
    message_recover_write(operation->request, cluster, cluster_id, member_id);
    operation->callback.result = callback;
    operation->context = context;
    return 0;
}

int lockstep_member_change(struct lockstep_client *client, const struct lockstep_member_change *change,
                           lockstep_result_callback *callback, void *context)
{
    struct lockstep_member_change whole = {0}; /* a caller of an older version knows less of it */
    struct operation *operation;
    if (change->size < offsetof(struct lockstep_member_change, deadline_ms) || change->name == NULL)
        return LOCKSTEP_EINVAL;
    memcpy(&whole, change, change->size < sizeof whole ? change->size : sizeof whole);
    int rc =
        operation_start(client, OPERATION_MEMBER, message_member_change_bytes(&whole), whole.deadline_ms, &operation);
    if (rc != 0) return rc;
    message_member_change_write(operation->request, &whole);
    operation->callback.result = callback;
    operation->context = context;
    return 0;
}

int lockstep_health(struct lockstep_client *client, const char *service, uint32_t deadline_ms,
                    lockstep_result_callback *callback, void *context)
{
    return start_named(client, OPERATION_HEALTH, service, deadline_ms, callback, context);
}
