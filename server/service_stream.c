/* SPDX-License-Identifier: Apache-2.0 */
/* service_stream.c - ProposeStream: many commands a message, one answer a message, in the order sent.
 * Thread: loop. Owns: the batches, one for each message that is not answered yet.
 *
 *   message -> proposed as far as the node has room -> all outcomes known -> answered, when it is the oldest
 *                 |  no room (EFULL), or leadership is being handed over: the rest waits, its credit is withheld, tried
 *                 |  again every turn
 *                 |  any other error: the rest is NOT_APPENDED, and the call ends when what is out is answered
 *
 *   - Commands of one stream are proposed in order, and after one that was not appended none behind it is: what is
 *     applied of a stream in one term is what was sent, without gaps.
 *   - What a session answers (ended, below its window, reply dropped) is a result like any other: the stream goes on.
 *   - The node answers one origin's commands in the order proposed, so that a batch's results are written as they come.
 *   - Credit for a message goes back when all of it is proposed: waiting commands are held by the client, not here.
 *   - At most STREAM_BATCHES_MAX messages of a stream are unanswered: a client that does not read gets no credit.
 *   - One stream has at most STREAM_COMMANDS_MAX commands and STREAM_BYTES_MAX bytes of messages in the node (one message
 *     always fits), a part of what the node holds: it waits for itself before it makes others wait.
 *   - So with all streams and calls of one connection: at most a share of what the node takes.
 *   - One message has at most MESSAGE_COMMANDS_MAX commands, and its answer at most ANSWER_BYTES_MAX, what gRPC's clients
 *     take by default: every outcome is told, and a reply that would pass that is left out and said to be.
 *   - A batch outlives its call while the node has its commands. */
#include <string.h>

#include "lockstep/machine.h"
#include "server/front_internal.h"

enum {
    STREAM_BATCHES_MAX = 64,
    STREAM_COMMANDS_MAX = 8192,
    STREAM_BYTES_MAX = 2 << 20,
    RESULTS_BYTES_MIN = 448,
    REFUSED_TEXT_BYTES = 128,
    MESSAGE_COMMANDS_MAX = 16384,
    ANSWER_BYTES_MAX = 4 << 20,
    BARE_RESULT_BYTES_MAX = 192, /* of a result without a reply */
};
static_assert(REFUSED_TEXT_BYTES + 64 <= BARE_RESULT_BYTES_MAX, "a text, four numbers, a code and three heads");
static_assert(MESSAGE_COMMANDS_MAX * BARE_RESULT_BYTES_MAX + LOCKSTEP_REPLY_BYTES_MAX <= ANSWER_BYTES_MAX,
              "all outcomes fit, and one reply of any size");

struct batch {
    struct batch *next;
    struct call *call;      /* NULL: the call has ended */
    uint32_t work;          /* the tag of all its commands; WORK_NONE: none was proposed yet */
    uint32_t outstanding;   /* commands that the node has */
    uint32_t results_left;  /* commands of the message that have no result yet */
    bool complete;          /* every command was proposed or refused */
    uint32_t refused_count; /* commands at its end that were not appended */
    int refused_error;
    uint8_t *rest; /* commands that wait for room: a copy of the message's end */
    size_t rest_bytes;
    size_t message_bytes; /* credit that goes back when complete */
    uint8_t *results;     /* the answer so far */
    size_t results_bytes, results_room;
};

static struct front *front_of(const struct call *call)
{
    return call->connection->front;
}

static void batch_free(struct front *front, struct batch *batch)
{
    lk_assert(batch->outstanding == 0);
    if (batch->work != WORK_NONE) work_free(front, batch->work);
    if (batch->call != NULL) {
        pool_give(&batch->call->connection->held, batch->rest);
        pool_give(&batch->call->connection->answers, batch->results);
    }
    pool_give(&front->budget, batch);
}

/* ret  false: no memory */
static bool result_add(struct batch *batch, const struct propose_result *result)
{
    static const char left_out[] = "applied; its reply is left out, for the answer would be over 4 MiB: send fewer "
                                   "commands in a message";
    struct propose_result bare = *result;
    size_t needed = batch->results_bytes + propose_stream_response_item_bytes(result);
    lk_assert(batch->results_left > 0);
    batch->results_left--;
    if (needed + (size_t)batch->results_left * BARE_RESULT_BYTES_MAX > ANSWER_BYTES_MAX) {
        bare.response.reply_bytes = 0;
        static_assert(sizeof left_out - 1 <= REFUSED_TEXT_BYTES, "as any other text");
        bare.error = left_out;
        bare.error_bytes = sizeof left_out - 1;
        bare.status = GRPC_RESOURCE_EXHAUSTED;
        result = &bare;
        needed = batch->results_bytes + propose_stream_response_item_bytes(result);
    }
    if (needed > batch->results_room) {
        size_t room = 2 * needed < RESULTS_BYTES_MIN ? RESULTS_BYTES_MIN : 2 * needed;
        uint8_t *results = pool_resize(&batch->call->connection->answers, batch->results, room);
        if (results == NULL) return false;
        batch->results = results;
        batch->results_room = room;
    }
    propose_stream_response_item_put(batch->results + batch->results_bytes, result);
    batch->results_bytes = needed;
    return true;
}

/* Streams that wait for room in the node, first come, first served. */
static void wait_for_room(struct call *call)
{
    struct front *front = front_of(call);
    if (call->waiting) return;
    call->waiting = true;
    call->next_waiting = NULL;
    if (front->waiting_last != NULL)
        front->waiting_last->next_waiting = call;
    else
        front->waiting_first = call;
    front->waiting_last = call;
}

static void wait_no_more(struct call *call)
{
    struct front *front = front_of(call);
    if (!call->waiting) return;
    struct call *before = NULL;
    for (struct call *at = front->waiting_first; at != call; at = at->next_waiting) before = at;
    if (before != NULL)
        before->next_waiting = call->next_waiting;
    else
        front->waiting_first = call->next_waiting;
    if (front->waiting_last == call) front->waiting_last = before;
    call->waiting = false;
}

/* The stream's commands from here on are not appended: their results stand behind those of the ones that are. */
static void refuse_rest(struct batch *batch, struct wire wire, int error)
{
    struct propose_request request;
    if (batch->call->ending == 0) batch->call->ending = error;
    batch->refused_error = error;
    while (propose_stream_request_next(&wire, &request) == 1) batch->refused_count++;
}

/* ret  false: no memory */
static bool refused_add(struct front *front, struct batch *batch)
{
    char room[FRONT_ERROR_TEXT_BYTES_MAX];
    if (batch->refused_count == 0) return true;
    const char *text = error_text(front, batch->refused_error, "the command", room);
    struct propose_result result = {.outcome = PROPOSE_NOT_APPENDED,
                                    .error = text,
                                    .error_bytes = strnlen(text, REFUSED_TEXT_BYTES),
                                    .status = error_status(front, batch->refused_error)};
    for (; batch->refused_count > 0; batch->refused_count--)
        if (!result_add(batch, &result)) return false;
    return true;
}

/* Whether the stream may have one more message of n bytes in the node. */
static bool has_share(const struct call *call, size_t n)
{
    if (call->proposed_count == 0) return true;
    return call->proposed_count < STREAM_BATCHES_MAX && call->proposed_bytes + n <= STREAM_BYTES_MAX;
}

static int propose_one(struct batch *batch, const struct propose_request *request)
{
    struct front *front = front_of(batch->call);
    if (batch->call->outstanding >= STREAM_COMMANDS_MAX || has_its_share(batch->call->connection))
        return LOCKSTEP_EFULL;
    if (batch->work == WORK_NONE) {
        batch->work = work_take(front, WORK_BATCH, batch->call);
        if (batch->work == WORK_NONE) return LOCKSTEP_EFULL;
        front->works[batch->work].batch = batch;
    }
    struct node_command command = {.session = request->session,
                                   .seq = request->seq,
                                   .entity = request->entity,
                                   .payload = request->command,
                                   .payload_bytes = (uint32_t)request->command_bytes};
    int rc = node_propose(front->node, &command, false, batch->work);
    if (rc == 0) {
        batch->outstanding++;
        batch->call->outstanding++;
        batch->call->connection->asked++;
    }
    return rc;
}

/* Nothing of the message waits any more. */
static void completed(struct batch *batch)
{
    struct call *call = batch->call;
    batch->complete = true;
    call->proposed_count++;
    call->proposed_bytes += batch->message_bytes;
    call->unproposed = batch->next;
    grpc_call_consumed(call->grpc, batch->message_bytes);
    pool_give(&call->connection->held, batch->rest);
    batch->rest = NULL;
}

/* Propose as much of a batch as the node has room for.
 * ret  0: it is complete, or its rest waits; LOCKSTEP_ENOMEM: the call cannot go on */
static int propose(struct batch *batch, struct wire wire)
{
    struct call *call = batch->call;
    struct propose_request request;
    struct wire before = wire;
    for (;;) {
        if (propose_stream_request_next(&wire, &request) != 1) { /* it was checked when it came */
            completed(batch);
            return 0;
        }
        int rc = call->ending != 0 ? call->ending : propose_one(batch, &request);
        if (rc == LOCKSTEP_EFULL) break;
        if (rc == LOCKSTEP_EUNAVAILABLE && node_hands_over(front_of(call)->node)) break;
        if (rc != 0) {
            refuse_rest(batch, before, rc);
            completed(batch);
            return 0;
        }
        before = wire;
    }
    size_t left = (size_t)(before.end - before.at);
    if (batch->rest == NULL) {
        batch->rest = pool_take(&call->connection->held, left);
        if (batch->rest == NULL) return LOCKSTEP_ENOMEM;
        memcpy(batch->rest, before.at, left);
    } else {
        memmove(batch->rest, before.at, left);
    }
    batch->rest_bytes = left;
    wait_for_room(call);
    return 0;
}

static void no_memory(struct call *call)
{
    call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too much waits on this connection; send less at a time");
}

/* Whom to ask instead may be known only now. */
static int ending_now(const struct call *call)
{
    const struct node *node = call->connection->front->node;
    if (call->ending != LOCKSTEP_ENOTLEADER && call->ending != LOCKSTEP_EUNAVAILABLE) return call->ending;
    unsigned leader = node_leader(node);
    return leader < RAFT_MEMBERS_MAX && leader != node_options_of(node)->self ? LOCKSTEP_ENOTLEADER
                                                                              : LOCKSTEP_EUNAVAILABLE;
}

/* Send the answers that are due, oldest first; end the call when nothing is left of it. The call may be dead then. */
static void answer(struct call *call)
{
    struct front *front = front_of(call);
    while (call->first != NULL) {
        struct batch *batch = call->first;
        if (!batch->complete || batch->outstanding > 0) break;
        int rc = refused_add(front, batch) ? 0 : LOCKSTEP_ENOMEM;
        if (rc == 0) rc = grpc_call_reply(call->grpc, batch->results, batch->results_bytes);
        if (rc == LOCKSTEP_EFULL) return; /* stream_writable goes on */
        if (rc != 0) {
            no_memory(call);
            return;
        }
        connection_touch(call->connection);
        call->first = batch->next;
        if (call->first == NULL) call->last = NULL;
        call->proposed_count--;
        call->proposed_bytes -= batch->message_bytes;
        batch_free(front, batch);
    }
    if (call->first != NULL) return;
    if (call->ending != 0)
        call_fail(call, ending_now(call), call->too_many ? "a message of more than 16384 commands" : "the command");
    else if (call->half_closed)
        call_finish(call, GRPC_OK, "");
}

/* ret  false: malformed */
static bool count_commands(struct wire wire, uint32_t *ret)
{
    struct propose_request request;
    int rc;
    *ret = 0;
    while ((rc = propose_stream_request_next(&wire, &request)) == 1) (*ret)++;
    return rc == 0;
}

void stream_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct front *front = front_of(call);
    if (call->ending != 0) return; /* the call's end says that this was not appended */
    uint32_t count;
    bool read = count_commands(wire_of(bytes, n), &count);
    call->too_many = read && count > MESSAGE_COMMANDS_MAX;
    if (!read || call->too_many) {
        call->ending = LOCKSTEP_EINVAL;
        answer(call);
        return;
    }
    struct batch *batch = pool_take(&front->budget, sizeof *batch);
    if (batch == NULL) {
        no_memory(call);
        return;
    }
    *batch = (struct batch){.call = call, .work = WORK_NONE, .results_left = count, .message_bytes = n};
    bool others_first = call->unproposed != NULL || !has_share(call, n);
    if (call->last != NULL)
        call->last->next = batch;
    else
        call->first = batch;
    call->last = batch;
    if (call->unproposed == NULL) call->unproposed = batch;
    int rc = 0;
    if (others_first) {
        batch->rest = pool_take(&call->connection->held, n);
        if (batch->rest == NULL)
            rc = LOCKSTEP_ENOMEM;
        else
            memcpy(batch->rest, bytes, n);
        batch->rest_bytes = n;
        wait_for_room(call);
    } else {
        rc = propose(batch, wire_of(bytes, n));
    }
    if (rc != 0)
        no_memory(call);
    else
        answer(call); /* a message that is empty or refused as a whole is answered at once */
}

void stream_half_close(struct call *call)
{
    answer(call);
}

void stream_writable(struct call *call)
{
    answer(call);
}

void stream_end(struct call *call)
{
    struct front *front = front_of(call);
    wait_no_more(call);
    while (call->first != NULL) {
        struct batch *batch = call->first;
        call->first = batch->next;
        if (batch->outstanding == 0) {
            batch_free(front, batch);
            continue;
        }
        pool_give(&call->connection->held, batch->rest);
        pool_give(&call->connection->answers, batch->results);
        batch->rest = batch->results = NULL;
        front->works[batch->work].call = NULL;
        front->works_waiting--;
        batch->call = NULL;
    }
    call->last = NULL;
}

void stream_answered(struct front *front, uint32_t work, const struct node_outcome *outcome)
{
    struct batch *batch = front->works[work].batch;
    struct call *call = batch->call;
    char room[FRONT_ERROR_TEXT_BYTES_MAX];
    lk_assert(batch->outstanding > 0);
    batch->outstanding--;
    if (front->works[work].connection != NULL) front->works[work].connection->asked--;
    if (call == NULL) {
        if (batch->outstanding == 0) batch_free(front, batch);
        return;
    }
    call->outstanding--;
    struct propose_result result = {0};
    if (outcome->error == 0) {
        result.outcome = PROPOSE_APPLIED;
        result.response = (struct propose_response){.reply = outcome->reply,
                                                    .reply_bytes = outcome->reply_bytes,
                                                    .code = outcome->code,
                                                    .index = outcome->index,
                                                    .position = outcome->position,
                                                    .durability = front_durability(front)};
    } else {
        result.outcome = error_outcome(outcome->error);
        result.error = error_text(front, outcome->error, "the command", room);
        result.error_bytes = strnlen(result.error, REFUSED_TEXT_BYTES);
        result.status = error_status(front, outcome->error);
        bool is_lost = error_is_not_appended(outcome->error) || outcome->error == LOCKSTEP_EUNKNOWN;
        if (is_lost && call->ending == 0) call->ending = LOCKSTEP_EUNAVAILABLE;
    }
    if (!result_add(batch, &result)) {
        no_memory(call);
        return;
    }
    if (batch->complete && batch->outstanding == 0 && batch == call->first) answer(call);
}

/* Go on with one stream's waiting messages. ret  false: the node is full */
static bool propose_waiting_of(struct call *call)
{
    while (call->unproposed != NULL) {
        struct batch *batch = call->unproposed;
        if (call->ending == 0 && !has_share(call, batch->message_bytes)) return true;
        if (propose(batch, wire_of(batch->rest, batch->rest_bytes)) != 0) {
            no_memory(call);
            return true;
        }
        if (!batch->complete) return call->outstanding >= STREAM_COMMANDS_MAX || has_its_share(call->connection);
    }
    wait_no_more(call);
    answer(call);
    return true;
}

void stream_propose_waiting(struct front *front)
{
    /* What a stream has too many unanswered messages for waits without holding the others up. */
    struct call *last = front->waiting_last, *call = front->waiting_first;
    while (call != NULL) {
        struct call *next = call == last ? NULL : call->next_waiting;
        if (!propose_waiting_of(call)) return;
        call = next;
    }
}

void stream_forget(struct front *front)
{
    for (uint32_t i = 0; i < front->work_count; i++) {
        if (front->works[i].kind != WORK_BATCH) continue;
        struct batch *batch = front->works[i].batch;
        lk_assert(batch->call == NULL);
        batch->outstanding = 0;
        batch_free(front, batch);
    }
}
