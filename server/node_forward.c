/* SPDX-License-Identifier: Apache-2.0 */
/* node_forward.c - what a follower asks of the leader, once, over the peer link: commands and queries that it sends on, and
 * the index that a read of its own has to wait for.
 * Thread: loop. Owns: the table of forwards that wait for the leader's answer.
 *   request  {id u64, kind u8, zero u8, flags u16, command_kind u16, zero u16, session u64, seq u64, entity u64,
 *             min_index u64} and the payload; there are no flags yet
 *   reply    {id u64, error i32, code i32, index u64, position u64} and the machine's reply
 * A leader that is asked answers every request, also with a refusal; it never forwards again. A forward whose answer
 * cannot come any more is unknown if it is a command, and nothing if it is a query: reading twice harms nobody. That is
 * so at once when the connection ends on which answers come or when another node leads, and else, a request or an answer
 * having been lost, after NODE_FORWARD_TIMEOUT_NS. */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

enum { FORWARD_COMMAND = 1, FORWARD_QUERY = 2, FORWARD_INDEX = 3 /* what is committed? */ };

struct forward_request {
    uint64_t id;
    uint8_t kind;
    uint8_t zero8;
    uint16_t flags;
    uint16_t command_kind;
    uint16_t zero16;
    uint64_t session, seq, entity;
    uint64_t min_index;
};
static_assert(sizeof(struct forward_request) == 48, "no padding on the wire");

struct forward_reply {
    uint64_t id;
    int32_t error;
    int32_t code;
    uint64_t index;
    uint64_t position;
};
static_assert(sizeof(struct forward_reply) == 32, "no padding on the wire");

int node_forwards_open(struct node *node)
{
    /* Ids of the process before this one must mean nothing: the leader may still be about to answer them (T59). */
    node->forward_id = node->env.random(node->env.context);
    node->forwards = calloc(NODE_FORWARDS_MAX, sizeof *node->forwards);
    return node->forwards != NULL ? 0 : LOCKSTEP_ENOMEM;
}

void node_forwards_close(struct node *node)
{
    free(node->forwards);
    node->forwards = NULL;
}

/* Ids count up; an entry's place is its id modulo the table, so that a reply finds it at once. A place that is still
 * taken by an old, slow forward is passed over. */
static struct node_forward_entry *entry_take(struct node *node)
{
    if (node->forward_count == NODE_FORWARDS_MAX) return NULL;
    for (;;) {
        struct node_forward_entry *entry = &node->forwards[++node->forward_id % NODE_FORWARDS_MAX];
        if (entry->id == 0 && node->forward_id != 0) return entry;
    }
}

static void settle(struct node *node, struct node_forward_entry *entry, const struct forward_reply *reply,
                   const uint8_t *bytes, uint32_t count)
{
    struct node_forward_entry done = *entry;
    entry->id = 0;
    node->forward_count--;
    if (done.kind == FORWARD_COMMAND) {
        struct node_outcome outcome = {.error = reply->error,
                                       .code = reply->code,
                                       .index = reply->index,
                                       .position = reply->position,
                                       .reply = bytes,
                                       .reply_bytes = count};
        node->owner.proposed(node->owner.context, done.tag, &outcome);
    } else if (done.kind == FORWARD_INDEX) {
        node_reads_index(node, done.tag, reply->error, reply->index);
    } else {
        struct node_answer answer = {.error = reply->error,
                                     .code = reply->code,
                                     .index = reply->index,
                                     .position = reply->position,
                                     .reply = bytes,
                                     .reply_bytes = count};
        node->owner.queried(node->owner.context, done.tag, &answer);
    }
}

static void give_up(struct node *node, struct node_forward_entry *entry)
{
    struct forward_reply reply = {.error = entry->kind == FORWARD_COMMAND ? LOCKSTEP_EUNKNOWN : LOCKSTEP_EUNAVAILABLE};
    settle(node, entry, &reply, NULL, 0);
}

static int forward(struct node *node, struct forward_request *request, const uint8_t *payload, uint32_t bytes,
                   uint64_t tag)
{
    unsigned slot = node_slot_of(node, node->leader);
    if (slot == RAFT_MEMBERS_MAX) return LOCKSTEP_EUNAVAILABLE;
    struct node_forward_entry *entry = entry_take(node);
    if (entry == NULL) return LOCKSTEP_EFULL;
    request->id = node->forward_id;
    struct transport_send send = {
        .slot = slot,
        .type = FRAME_FORWARD,
        .body = request,
        .body_bytes = sizeof *request,
        .more = payload,
        .more_bytes = bytes,
    };
    int rc = node->transport->ops->send(node->transport, &send);
    if (rc == LOCKSTEP_EUNREACHABLE) return LOCKSTEP_ENOTLEADER; /* the caller may still find the leader by itself */
    if (rc != 0) return rc;
    *entry = (struct node_forward_entry){
        .id = request->id, .tag = tag, .sent_ns = node->now_ns, .kind = request->kind, .slot = (uint8_t)slot};
    node->forward_count++;
    return 0;
}

int node_forward_command(struct node *node, const struct node_command *command, uint64_t tag)
{
    struct forward_request request = {
        .kind = FORWARD_COMMAND,
        .flags = command->flags,
        .command_kind = command->kind,
        .session = command->session,
        .seq = command->seq,
        .entity = command->entity,
    };
    return forward(node, &request, command->payload, command->payload_bytes, tag);
}

int node_forward_query(struct node *node, const struct node_query *query, uint64_t tag)
{
    struct forward_request request = {.kind = FORWARD_QUERY,
                                      .session = query->session,
                                      .seq = query->seq,
                                      .entity = query->entity,
                                      .min_index = query->min_index};
    return forward(node, &request, query->query, query->query_bytes, tag);
}

int node_forward_index(struct node *node, uint64_t ticket)
{
    struct forward_request request = {.kind = FORWARD_INDEX};
    return forward(node, &request, NULL, 0, ticket);
}

static void reply_send(struct node *node, uint8_t slot, const struct forward_reply *reply, const uint8_t *bytes,
                       uint32_t count)
{
    struct transport_send send = {
        .slot = slot,
        .type = FRAME_FORWARD_REPLY,
        .body = reply,
        .body_bytes = sizeof *reply,
        .more = bytes,
        .more_bytes = count,
    };
    /* An answer that finds no room is lost; the asking node gives up by its own clock: the outcome is unknown there. */
    (void)node->transport->ops->send(node->transport, &send);
}

void node_forward_outcome(struct node *node, uint8_t origin, uint64_t id, const struct node_outcome *outcome)
{
    struct forward_reply reply = {.id = id,
                                  .error = outcome->error,
                                  .code = outcome->code,
                                  .index = outcome->index,
                                  .position = outcome->position};
    reply_send(node, origin, &reply, outcome->reply, outcome->reply_bytes);
}

void node_forward_answer(struct node *node, uint8_t origin, uint64_t id, const struct node_answer *answer)
{
    struct forward_reply reply = {
        .id = id, .error = answer->error, .code = answer->code, .index = answer->index, .position = answer->position};
    reply_send(node, origin, &reply, answer->reply, answer->reply_bytes);
}

static void requested(struct node *node, const struct transport_frame *frame)
{
    struct forward_request request;
    if (frame->body_bytes < sizeof request) {
        node->frames_refused++;
        return;
    }
    memcpy(&request, frame->body, sizeof request);
    if (request.zero8 != 0 || request.zero16 != 0 ||
        request.flags != 0) { /* of a version that says more than we know */
        node->frames_refused++;
        return;
    }
    const uint8_t *payload = frame->body + sizeof request;
    size_t bytes = frame->body_bytes - sizeof request;
    int rc;
    if (bytes > node->options.command_bytes_max) {
        rc = LOCKSTEP_ETOOBIG;
    } else if (request.kind == FORWARD_COMMAND) {
        struct node_command command = {
            .kind = request.command_kind,
            .flags = request.flags,
            .session = request.session,
            .seq = request.seq,
            .entity = request.entity,
            .payload = payload,
            .payload_bytes = (uint32_t)bytes,
        };
        rc = node_propose_from(node, &command, (uint8_t)frame->slot, request.id);
    } else if (request.kind == FORWARD_QUERY) {
        struct node_query query = {
            .entity = request.entity,
            .min_index = request.min_index,
            .session = request.session,
            .seq = request.seq,
            .query = payload,
            .query_bytes = (uint32_t)bytes,
        };
        rc = node_query_from(node, &query, (uint8_t)frame->slot, request.id);
    } else if (request.kind == FORWARD_INDEX) {
        rc = node_index_from(node, (uint8_t)frame->slot, request.id);
    } else {
        node->frames_refused++;
        return;
    }
    if (rc != 0)
        reply_send(node, (uint8_t)frame->slot, &(struct forward_reply){.id = request.id, .error = rc}, NULL, 0);
}

static void replied(struct node *node, const struct transport_frame *frame)
{
    struct forward_reply reply;
    if (frame->body_bytes < sizeof reply) {
        node->frames_refused++;
        return;
    }
    memcpy(&reply, frame->body, sizeof reply);
    struct node_forward_entry *entry = &node->forwards[reply.id % NODE_FORWARDS_MAX];
    if (reply.id == 0 || entry->id != reply.id || entry->slot != frame->slot) return; /* given up before */
    settle(node, entry, &reply, frame->body + sizeof reply, (uint32_t)(frame->body_bytes - sizeof reply));
}

void node_forward_frame(struct node *node, const struct transport_frame *frame)
{
    if (frame->type == FRAME_FORWARD)
        requested(node, frame);
    else
        replied(node, frame);
}

void node_forwards_leader_changed(struct node *node)
{
    for (uint32_t i = 0; node->forward_count > 0 && i < NODE_FORWARDS_MAX; i++)
        if (node->forwards[i].id != 0) give_up(node, &node->forwards[i]);
}

void node_forwards_hangup(struct node *node, unsigned slot)
{
    for (uint32_t i = 0; node->forward_count > 0 && i < NODE_FORWARDS_MAX; i++)
        if (node->forwards[i].id != 0 && node->forwards[i].slot == slot) give_up(node, &node->forwards[i]);
}

void node_forwards_turn(struct node *node)
{
    if (node->now_ns < node->forward_sweep_ns) return;
    node->forward_sweep_ns = node->now_ns + NODE_FORWARD_SWEEP_NS;
    for (uint32_t i = 0; node->forward_count > 0 && i < NODE_FORWARDS_MAX; i++) {
        struct node_forward_entry *entry = &node->forwards[i];
        if (entry->id != 0 && node->now_ns - entry->sent_ns > NODE_FORWARD_TIMEOUT_NS) give_up(node, entry);
    }
}
