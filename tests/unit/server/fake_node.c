/* SPDX-License-Identifier: Apache-2.0 */
/* fake_node.c - see fake_node.h. */
#include "tests/unit/server/fake_node.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

void fake_node_init(struct node *node)
{
    memset(node, 0, sizeof *node);
    node->options.member_count = 3;
    node->options.level = DURABILITY_LEVEL_FSYNC;
    node->options.command_bytes_max = 1 << 20;
    snprintf(node->options.cluster, sizeof node->options.cluster, "demo");
    for (int i = 0; i < 3; i++) {
        struct node_member_options *member = &node->options.members[i];
        snprintf(member->name, sizeof member->name, "n%d", i + 1);
        snprintf(member->client, sizeof member->client, "127.0.0.1:%d", 7401 + i);
        snprintf(member->peer, sizeof member->peer, "127.0.0.1:%d", 7501 + i);
    }
    snprintf(node->plugin.name, sizeof node->plugin.name, "kv");
    snprintf(node->plugin.version, sizeof node->plugin.version, "1");
    node->options.plugin = &node->plugin;
    node->room = UINT32_MAX;
    node->status.born = true;
    node->status.ready = true;
    node->status.raft.role = RAFT_LEADER;
    node->status.raft.writable = true;
    node->status.raft.term = 7;
    node->status.raft.commit = 42;
    node->status.host.has_state_hash = true;
    node->status.host.applied_position = 41;
    node->status.host.state_hash = (struct lockstep_hash){.low = 2, .high = 1};
}

static int ask(struct node *node, uint64_t tag, struct fake_asked **ret)
{
    lk_assert(!node->draining);
    if (node->refuse != 0) return node->refuse;
    lk_assert(node->asked_count < FAKE_ASKED_MAX);
    *ret = &node->asked[node->asked_count++];
    **ret = (struct fake_asked){.tag = tag};
    return 0;
}

static void keep(struct fake_asked *asked, const uint8_t *bytes, uint32_t n)
{
    if (n > 0) memcpy(asked->bytes, bytes, n < sizeof asked->bytes ? n : sizeof asked->bytes);
}

int node_propose(struct node *node, const struct node_command *command, bool may_forward, uint64_t tag)
{
    struct fake_asked *asked;
    if (command->payload_bytes > node->options.command_bytes_max) return LOCKSTEP_ETOOBIG;
    if (node->refuse == 0 && node->room == 0) return LOCKSTEP_EFULL;
    int rc = ask(node, tag, &asked);
    if (rc != 0) return rc;
    if (node->room != UINT32_MAX) node->room--;
    asked->command = *command;
    asked->may_forward = may_forward;
    keep(asked, command->payload, command->payload_bytes);
    return 0;
}

int node_query(struct node *node, const struct node_query *query, bool may_forward, uint64_t tag)
{
    struct fake_asked *asked;
    int rc = ask(node, tag, &asked);
    if (rc != 0) return rc;
    asked->is_query = true;
    asked->query = *query;
    asked->may_forward = may_forward;
    keep(asked, query->query, query->query_bytes);
    return 0;
}

int node_transfer(struct node *node, const char *target, uint64_t tag)
{
    struct fake_asked *asked;
    int rc = ask(node, tag, &asked);
    if (rc != 0) return rc;
    asked->is_transfer = true;
    snprintf(asked->target, sizeof asked->target, "%s", target);
    return 0;
}

int node_change_members(struct node *node, const struct node_change_request *request, uint64_t tag)
{
    struct fake_asked *asked;
    int rc = ask(node, tag, &asked);
    if (rc != 0) return rc;
    asked->is_change = true;
    asked->change = *request;
    return 0;
}

bool node_hands_over(const struct node *node)
{
    return node->hands_over;
}

int node_recover_check(const struct node *node, char *why, size_t why_room)
{
    if (node->refuse != 0) snprintf(why, why_room, "nothing is lost");
    return node->refuse;
}

unsigned node_leader(const struct node *node)
{
    return node->leader;
}

uint32_t node_retry_after_ms(const struct node *node)
{
    (void)node;
    return 25;
}

void node_status_read(struct node *node, struct node_status *ret)
{
    *ret = node->status;
    ret->leader_slot = node->leader;
}

const struct node_options *node_options_of(const struct node *node)
{
    return &node->options;
}

const struct session_limits *node_sessions(const struct node *node)
{
    static const struct session_limits limits = {.window = 64, .expiry_ns = UINT64_C(30000000000)};
    (void)node;
    return &limits;
}

static void answer_one(struct node *node, int error)
{
    struct fake_asked *asked = &node->asked[node->answered_count++];
    if (asked->is_change) {
        struct node_change_result result = {.error = error, .id = 77, .index = 9};
        snprintf(result.why, sizeof result.why, "%s", error == 0 ? "done" : "because of this and that");
        node->owner.member_changed(node->owner.context, asked->tag, &result);
    } else if (asked->is_transfer) {
        node->owner.transferred(node->owner.context, asked->tag, error);
    } else if (asked->is_query) {
        uint32_t n = asked->query.query_bytes;
        struct node_answer answer = {.error = error, .index = 5};
        if (error == 0) answer.reply = asked->bytes, answer.reply_bytes = n < 64 ? n : 64;
        node->owner.queried(node->owner.context, asked->tag, &answer);
    } else {
        uint32_t n = asked->command.payload_bytes;
        struct node_outcome outcome = {.error = error};
        if (error == 0) {
            outcome.reply = asked->bytes;
            outcome.reply_bytes = n < 64 ? n : 64;
            if (node->reply != NULL) outcome.reply = node->reply, outcome.reply_bytes = node->reply_bytes;
            outcome.position = ++node->position;
            outcome.index = 100 + node->position;
        }
        node->owner.proposed(node->owner.context, asked->tag, &outcome);
    }
}

void fake_answer(struct node *node, uint32_t count, int error)
{
    node->draining = true;
    while (count-- > 0) {
        lk_assert(node->answered_count < node->asked_count);
        answer_one(node, error);
    }
    node->draining = false;
}

void fake_drain(struct node *node)
{
    if (node->auto_answer) fake_answer(node, node->asked_count - node->answered_count, 0);
    if (node->answered_count == node->asked_count) node->answered_count = node->asked_count = 0;
}
