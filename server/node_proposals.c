/* SPDX-License-Identifier: Apache-2.0 */
/* node_proposals.c - the open block, sealing, and the outcome of every proposal.
 * Thread: loop. Owns: the ring's open claim while this node leads, and the table of waiting proposals.
 *   - A command's bytes are copied once, into the open block, when it is proposed; no consensus yet.
 *   - Sealed at the end of a turn if fewer than NODE_SEALED_MAX sealed blocks are neither committed nor durable here,
 *     or at once when full; else it stays open and grows: at low load a command waits for nothing, under load blocks
 *     grow by themselves.
 *   - Positions have no gaps, so that the table of waiting proposals is a ring indexed by position.
 *   - When a session falls due and nothing else is appended, an empty block carries log time past it (M1).
 *   - Every accepted proposal gets exactly one outcome. When leadership ends, what was sealed is unknown, what was
 *     not is surely not appended. */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

int node_proposals_open(struct node *node)
{
    struct node_proposals *p = &node->proposals;
    lk_assert((node->options.proposals_max & (node->options.proposals_max - 1)) == 0);
    p->table = calloc(node->options.proposals_max, sizeof *p->table);
    if (p->table == NULL) return LOCKSTEP_ENOMEM;
    return 0;
}

void node_proposals_close(struct node *node)
{
    free(node->proposals.table);
    node->proposals.table = NULL;
}

bool node_proposals_idle(const struct node *node)
{
    return node->proposals.answered == node->proposals.next;
}

/* Log time: the last block's, and the monotonic time since, slewed towards the wall clock by at most 1 in 10. A clock
 * that jumps moves log time slowly, and never back. */
static uint64_t log_time(struct node *node, const struct block_base *last)
{
    uint64_t since = node->now_ns - node->proposals.last_append_ns;
    uint64_t time = last->time_ns + since;
    uint64_t wall = node->env.wall_ns(node->env.context);
    uint64_t most = since / 10;
    if (wall >= time) return time + (wall - time < most ? wall - time : most);
    return time - (time - wall < most ? time - wall : most);
}

static void settle(struct node *node, const struct node_pending *pending, const struct node_outcome *outcome)
{
    if (pending->origin == NODE_ORIGIN_HERE)
        node->owner.proposed(node->owner.context, pending->tag, outcome);
    else
        node_forward_outcome(node, pending->origin, pending->tag, outcome);
}

static struct node_pending *pending_at(struct node *node, log_position position)
{
    return &node->proposals.table[position & (node->options.proposals_max - 1)];
}

/* Publish the claimed block as the next one of this term and tell the core. */
static void publish(struct node *node, uint8_t *block, enum block_type type, uint32_t bytes, uint32_t count,
                    const struct raft_configuration *configuration)
{
    struct block_base last = ring_last(node->ring);
    struct block_header header = {
        .bytes = bytes,
        .type = (uint16_t)type,
        .count = count,
        .index = last.index + 1,
        .term = raft_current_term(node->raft),
        .time_ns = log_time(node, &last),
        .first_position = last.next_position,
        .previous_crc = last.crc,
    };
    lk_assert(header.index == raft_last_index(node->raft) + 1);
    block_seal(block, &header);
    ring_publish(node->ring, &header);
    node->proposals.last_append_ns = node->now_ns;
    node->counters.blocks_appended++;
    node->counters.bytes_appended += bytes;
    node->counters.commands_appended += count;
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE,
                               .now_ns = node->now_ns,
                               .as.propose = {.index = header.index, .bytes = bytes, .configuration = configuration}};
    struct raft_result result;
    node_step(node, &event, &result);
    lk_assert(result.error == 0); /* asked before: raft_may_propose, raft_persist_room */
}

static void seal(struct node *node)
{
    struct node_proposals *p = &node->proposals;
    uint8_t *block = p->open;
    lk_assert(block != NULL && p->open_count > 0);
    lk_assert(p->open_first == ring_last(node->ring).next_position);
    p->open = NULL;
    publish(node, block, BLOCK_COMMANDS, p->open_bytes, p->open_count, NULL);
}

static bool may_seal(const struct node *node)
{
    return raft_persist_room(node->raft) > NODE_PERSIST_ROOM_TO_SEAL &&
           storage_persist_fits(node->storage, node->proposals.open_bytes) &&
           raft_may_propose(node->raft, node->proposals.open_bytes);
}

/* The open block is full and more comes: seal it now, in the middle of a turn's input. The core is still what the
 * last turn left, so this is as if these commands had come before everything that waits to be stepped. */
static int make_room(struct node *node, uint32_t bytes)
{
    struct node_proposals *p = &node->proposals;
    if (p->open != NULL && p->open_bytes + bytes > node->options.block_bytes_max) {
        if (!may_seal(node)) return LOCKSTEP_EFULL;
        seal(node);
    }
    if (p->open == NULL) {
        if (!raft_may_propose(node->raft, BLOCK_HEADER_BYTES + bytes)) return LOCKSTEP_EFULL;
        if (!storage_persist_fits(node->storage, node->options.block_bytes_max)) return LOCKSTEP_EFULL;
        int rc = ring_claim(node->ring, node->options.block_bytes_max, &p->open);
        if (rc != 0) {
            p->open = NULL;
            return rc;
        }
        p->open_bytes = BLOCK_HEADER_BYTES;
        p->open_count = 0;
        p->open_first = ring_last(node->ring).next_position;
    }
    return raft_may_propose(node->raft, p->open_bytes + bytes) ? 0 : LOCKSTEP_EFULL;
}

int node_propose_from(struct node *node, const struct node_command *command, uint8_t origin, uint64_t tag)
{
    struct node_proposals *p = &node->proposals;
    if (!atomic_load_explicit(&node->born, memory_order_relaxed) || node->stopping) return LOCKSTEP_EUNAVAILABLE;
    if (!raft_is_leader(node->raft)) return node->leader != 0 ? LOCKSTEP_ENOTLEADER : LOCKSTEP_EUNAVAILABLE;
    if (command->payload_bytes > node->options.command_bytes_max) return LOCKSTEP_ETOOBIG;
    if (command->kind > COMMAND_SESSION_CLOSE) return LOCKSTEP_EINVAL;
    if (command->kind == COMMAND_MACHINE && (command->session == 0) != (command->seq == 0)) return LOCKSTEP_EINVAL;
    if (p->term_block_due || raft_is_transferring(node->raft)) return LOCKSTEP_EUNAVAILABLE;
    if (p->next - p->answered >= node->options.proposals_max) {
        node->counters.rejected_full++;
        return LOCKSTEP_EFULL;
    }
    int rc = make_room(node, (uint32_t)command_bytes(command->payload_bytes));
    if (rc != 0) {
        node->counters.rejected_full++;
        return rc;
    }
    struct command_header header = {
        .bytes = command->payload_bytes,
        .kind = command->kind,
        .flags = command->flags,
        .session = command->session,
        .seq = command->seq,
        .entity = command->entity,
    };
    p->open_bytes += (uint32_t)command_write(p->open + p->open_bytes, &header, command->payload);
    lk_assert(p->open_bytes <= node->options.block_bytes_max);
    lk_assert(p->next == p->open_first + p->open_count);
    *pending_at(node, p->next) = (struct node_pending){.tag = tag, .origin = origin};
    p->open_count++;
    p->next++;
    return 0;
}

void node_proposals_seal_turn(struct node *node)
{
    struct node_proposals *p = &node->proposals;
    if (!raft_is_leader(node->raft)) return;
    if (p->term_block_due) {
        uint8_t *block;
        if (raft_persist_room(node->raft) < 2 || !storage_persist_fits(node->storage, BLOCK_HEADER_BYTES)) return;
        if (ring_claim(node->ring, BLOCK_HEADER_BYTES, &block) != 0) return; /* tried again next turn */
        p->term_block_due = false;
        publish(node, block, BLOCK_TERM, BLOCK_HEADER_BYTES, 0, NULL);
        p->answered = p->next = ring_last(node->ring).next_position;
        host_answer_from(node->host, p->next);
        return;
    }
    if (p->open == NULL || p->open_count == 0) return;
    raft_index settled = raft_commit_index(node->raft);
    if (raft_durable_index(node->raft) > settled) settled = raft_durable_index(node->raft);
    if (raft_last_index(node->raft) - settled >= NODE_SEALED_MAX) return;
    if (may_seal(node)) seal(node);
}

/* M1: sessions end by log time, and log time stands still while nothing is appended. Once for a time: the machine may
 * be slow to apply what was sealed for it. */
void node_proposals_sessions_turn(struct node *node)
{
    struct node_proposals *p = &node->proposals;
    uint64_t due_ns = host_session_due_ns(node->host);
    p->session_due_ns = UINT64_MAX;
    bool waits = raft_is_leader(node->raft) && !p->term_block_due && (p->open == NULL || p->open_count == 0);
    if (!waits || due_ns == UINT64_MAX || due_ns == p->session_served) return;
    struct block_base last = ring_last(node->ring);
    uint64_t log_ns = log_time(node, &last);
    if (log_ns < due_ns) {
        p->session_due_ns = node->now_ns + (due_ns - log_ns);
        return;
    }
    if (last.time_ns < due_ns) {
        if (raft_persist_room(node->raft) < 2 || !storage_persist_fits(node->storage, BLOCK_HEADER_BYTES) ||
            !raft_may_propose(node->raft, BLOCK_HEADER_BYTES))
            return; /* blocks are on their way: their end gives a turn */
        uint8_t *block = p->open;
        if (block == NULL && ring_claim(node->ring, BLOCK_HEADER_BYTES, &block) != 0) return;
        p->open = NULL;
        publish(node, block, BLOCK_COMMANDS, BLOCK_HEADER_BYTES, 0, NULL);
    }
    p->session_served = due_ns;
}

int node_proposals_clear(struct node *node)
{
    struct node_proposals *p = &node->proposals;
    if (p->term_block_due) return LOCKSTEP_EUNAVAILABLE;
    if (p->open == NULL) return 0;
    if (p->open_count > 0) {
        if (!may_seal(node)) return LOCKSTEP_EFULL;
        seal(node);
        return 0;
    }
    ring_abandon(node->ring);
    p->open = NULL;
    return 0;
}

int node_propose_configuration(struct node *node, const struct configuration *configuration)
{
    uint8_t body[CONFIGURATION_BYTES_MAX], *block;
    struct raft_configuration core;
    uint32_t body_bytes = configuration_write(configuration, body), bytes = BLOCK_HEADER_BYTES + body_bytes;
    lk_assert(node->proposals.open == NULL && raft_is_leader(node->raft));
    if (raft_is_transferring(node->raft))
        return LOCKSTEP_EUNAVAILABLE; /* the next leader does it, or we, if there is none */
    if (raft_persist_room(node->raft) < 2 || !storage_persist_fits(node->storage, bytes)) return LOCKSTEP_EFULL;
    if (ring_claim(node->ring, bytes, &block) != 0) return LOCKSTEP_EFULL;
    int rc = node_configuration_push(node, ring_last(node->ring).index + 1, configuration);
    if (rc != 0) {
        ring_abandon(node->ring);
        return rc;
    }
    memcpy(block + BLOCK_HEADER_BYTES, body, body_bytes);
    node_configuration_core(configuration, &core);
    publish(node, block, BLOCK_CONFIGURATION, bytes, 0, &core);
    return 0;
}

void node_proposals_lead(struct node *node)
{
    struct node_proposals *p = &node->proposals;
    lk_assert(p->open == NULL && p->next == p->answered);
    p->term_block_due = true;
}

void node_proposals_lose(struct node *node)
{
    struct node_proposals *p = &node->proposals;
    log_position sealed_end = p->next;
    if (p->open != NULL) {
        sealed_end = p->open_first;
        ring_abandon(node->ring);
        p->open = NULL;
    }
    host_answer_from(node->host, UINT64_MAX);
    while (p->answered != p->next) {
        struct node_outcome outcome = {.error = p->answered < sealed_end ? LOCKSTEP_EUNKNOWN : LOCKSTEP_ENOTLEADER};
        struct node_pending pending = *pending_at(node, p->answered++);
        settle(node, &pending, &outcome);
    }
    p->term_block_due = false;
}

void node_proposals_answer(struct node *node, const struct host_answer *answer)
{
    struct node_proposals *p = &node->proposals;
    if (answer->position < p->answered || answer->position >= p->next) return; /* of an earlier leadership */
    lk_assert(answer->position == p->answered);
    struct node_pending pending = *pending_at(node, p->answered++);
    struct node_outcome outcome = {
        .error = answer->error,
        .code = answer->code,
        .index = answer->first_index,
        .position = answer->first_position,
        .reply = answer->reply,
        .reply_bytes = answer->reply_bytes,
    };
    settle(node, &pending, &outcome);
}

int node_propose(struct node *node, const struct node_command *command, bool may_forward, uint64_t tag)
{
    lk_assert(!node->in_turn);
    node->env.wake(node->env.context, NODE_LOOP);
    int rc = node_propose_from(node, command, NODE_ORIGIN_HERE, tag);
    if (rc != LOCKSTEP_ENOTLEADER || !may_forward) return rc;
    if (command->payload_bytes > node->options.command_bytes_max) return LOCKSTEP_ETOOBIG;
    return node_forward_command(node, command, tag);
}
