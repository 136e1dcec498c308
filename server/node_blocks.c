/* SPDX-License-Identifier: Apache-2.0 */
/* node_blocks.c - a member asks for one block by its name, and whoever holds it gives it; no leader is needed (J7).
 * Thread: loop, but for node_blocks_control_work, which reads what has left the ring. Owns: what members have asked for.
 *
 *   BLOCK_GET  {group u32, header_crc u32, index u64}
 *   BLOCK      the same 16 bytes, and the block; nothing behind them: not held here under that name
 *
 *   IDLE -> READING [node_blocks_turn] -> DONE [node_blocks_control_work] -> IDLE [node_blocks_turn]
 *
 * - index and header_crc name a block's bytes: the header's checksum covers body, term and chain. The asker has it from
 *   the block behind, and checks what comes. So also what is not committed yet may be given.
 * - A member has one question at a time, a newer one takes an older one's place; one block is read from the log at a time.
 *   So members that ask a lot cost each other time, and memory for one block. */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

void node_block_get_frame(struct node *node, const struct transport_frame *frame)
{
    struct node_block_name name;
    if (frame->body_bytes != sizeof name || node->members.slots[frame->slot].kind != NODE_SLOT_MEMBER) goto refuse;
    memcpy(&name, frame->body, sizeof name);
    if (name.group != 0 || name.index == 0) goto refuse;
    node->blocks.asked[frame->slot] =
        (struct node_block_question){.from = frame->member_id, .index = name.index, .header_crc = name.header_crc};
    return;
refuse:
    node->frames_refused++;
}

/* Not connected, or no room: it asks again. */
static void answer(struct node *node, unsigned slot, const struct node_block_question *q, const uint8_t *block,
                   size_t bytes)
{
    const struct node_block_name name = {.header_crc = q->header_crc, .index = q->index};
    const struct transport_send send = {.slot = slot,
                                        .type = FRAME_BLOCK,
                                        .body = &name,
                                        .body_bytes = sizeof name,
                                        .more = block,
                                        .more_bytes = bytes};
    if (node->slot_id[slot] == q->from) (void)node->transport->ops->send(node->transport, &send);
}

static bool answer_from_ring(struct node *node, unsigned slot, const struct node_block_question *q)
{
    struct ring_slot at;
    if (ring_find(node->ring, q->index, &at) != 0) return false;
    bool same = at.header_crc == q->header_crc;
    answer(node, slot, q, same ? ring_at(node->ring, at.pos) : NULL, same ? at.bytes : 0);
    return true;
}

/* Whoever waits longest is next: the slots take turns. */
static void begin(struct node *node)
{
    struct node_blocks *b = &node->blocks;
    for (unsigned k = 1; k <= RAFT_MEMBERS_MAX; k++) {
        unsigned slot = (b->slot + k) % RAFT_MEMBERS_MAX;
        struct node_block_question q = b->asked[slot];
        if (q.index == 0) continue;
        b->asked[slot].index = 0;
        if (answer_from_ring(node, slot, &q)) continue;
        if (b->buffer == NULL) b->buffer = malloc(BLOCK_BYTES_MAX);
        if (q.index > storage_stored(node->storage) || b->buffer == NULL) {
            answer(node, slot, &q, NULL, 0);
            continue;
        }
        b->slot = slot;
        b->reading = q;
        /* release: pairs with the acquire load in node_blocks_control_work; the question must be visible before the state. */
        atomic_store_explicit(&b->state, NODE_LOAD_READING, memory_order_release);
        node->env.wake(node->env.context, NODE_CONTROL);
        return;
    }
}

void node_blocks_turn(struct node *node)
{
    struct node_blocks *b = &node->blocks;
    int state = atomic_load_explicit(&b->state, memory_order_acquire); /* pairs with control's release */
    if (state == NODE_LOAD_DONE) {
        atomic_store_explicit(&b->state, NODE_LOAD_IDLE, memory_order_relaxed);
        if (b->ret_error != 0) node_log_unreadable(node, b->reading.index, b->ret_error);
        answer(node, b->slot, &b->reading, b->buffer, b->ret_bytes);
    }
    if (state != NODE_LOAD_READING) begin(node);
}

void node_blocks_control_work(struct node *node)
{
    struct node_blocks *b = &node->blocks;
    const uint8_t *block;
    struct block_header header;
    /* acquire: pairs with begin()'s release */
    if (atomic_load_explicit(&b->state, memory_order_acquire) != NODE_LOAD_READING) return;
    b->ret_bytes = 0;
    int rc = storage_read(node->load_reader, b->reading.index, &block, &header);
    if (rc == 0 && header.header_crc == b->reading.header_crc) {
        memcpy(b->buffer, block, header.bytes);
        b->ret_bytes = header.bytes;
    }
    b->ret_error = rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EIO ? rc : 0;
    storage_read_end(node->load_reader);
    /* release: pairs with the acquire load in node_blocks_turn; the block before the state */
    atomic_store_explicit(&b->state, NODE_LOAD_DONE, memory_order_release);
    node->env.wake(node->env.context, NODE_LOOP);
}

void node_blocks_close(struct node *node)
{
    free(node->blocks.buffer);
    node->blocks.buffer = NULL;
}
