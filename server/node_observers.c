/* SPDX-License-Identifier: Apache-2.0 */
/* node_observers.c - processes of this host that follow what is committed ask for what has left the ring.
 * Thread: loop, but for node_observers_control_work, which reads the log. Owns: the one question that is being answered.
 *
 *   IDLE -> READING [begin] -> DONE [node_observers_control_work] -> IDLE [node_observers_turn: answered]
 *
 * - One question of all observers at a time, in turns; one packet of at most 64 KiB answers it. It is read after what
 *   peers that lag wait for, and a search for a position goes on in the next call after SEARCH_READS_MAX reads. So observers cost
 *   each other time, and the control thread little.
 * - Nothing is kept for an observer: each question says where to begin, also in the middle of a large block.
 * - Whether anybody takes the answer is the transport's affair: who does not is cut off there. */
#include <string.h>

#include "server/node_internal.h"

enum { SEARCH_READS_MAX = 4, ROOM = LOCAL_ANSWER_BYTES_MAX - LOCAL_ANSWER_BYTES };

static void answer_send(struct node *node)
{
    struct node_observers *o = &node->observers;
    local_answer_write(&o->answer, o->packet);
    node->counters.observer_blocks += o->ret_blocks;
    node->transport->ops->answer(node->transport, o->question.ticket, o->packet, LOCAL_ANSWER_BYTES + o->ret_bytes);
}

/* The position with which the log begins, if it is empty: that of the first block in the ring, or of the next one ever. */
static log_position oldest_of_empty(const struct node *node)
{
    struct ring_slot at;
    struct block_header header;
    if (ring_find(node->ring, node->observers.base + 1, &at) == 0 &&
        block_header_read(ring_at(node->ring, at.pos), at.bytes, &header) == 0)
        return header.first_position;
    return ring_last(node->ring).next_position;
}

/* Whether the control thread has to read for it; if not, the answer is there. */
static bool needs_log(struct node *node)
{
    struct node_observers *o = &node->observers;
    const struct local_ask *ask = &o->question.ask;
    if (o->base < o->stored && ask->index <= o->stored) return true;
    o->answer.error = LOCKSTEP_ENOTFOUND;
    o->answer.index = o->stored;
    if (o->base < o->stored) return false;
    log_position oldest = oldest_of_empty(node);
    bool gone = ask->position != 0 ? ask->position < oldest : ask->index <= o->base;
    if (gone) o->answer = (struct local_answer){.number = ask->number, .error = LOCKSTEP_EGONE, .oldest = oldest};
    return false;
}

static void begin(struct node *node)
{
    struct node_observers *o = &node->observers;
    struct storage_status status;
    if (!node->transport->ops->asked(node->transport, &o->question)) return;
    storage_status_read(node->storage, &status);
    o->base = status.base;
    o->stored = status.stored;
    o->low = o->base + 1;
    o->high = o->stored;
    o->ret_bytes = o->ret_blocks = 0;
    o->ret_error = 0;
    o->answer = (struct local_answer){
        .number = o->question.ask.number, .index = o->question.ask.index, .offset = o->question.ask.offset};
    if (!needs_log(node)) {
        answer_send(node);
        node->env.wake(node->env.context, NODE_LOOP); /* others may have asked */
        return;
    }
    /* release: pairs with the acquire load in node_observers_control_work; the question before the state */
    atomic_store_explicit(&o->state, NODE_LOAD_READING, memory_order_release);
    node->env.wake(node->env.context, NODE_CONTROL);
}

void node_observers_turn(struct node *node)
{
    struct node_observers *o = &node->observers;
    if (node->transport->ops->asked == NULL) return;
    int state = atomic_load_explicit(&o->state, memory_order_acquire); /* pairs with control's release */
    if (state == NODE_LOAD_DONE) {
        atomic_store_explicit(&o->state, NODE_LOAD_IDLE, memory_order_relaxed);
        if (o->ret_error != 0) node_log_unreadable(node, o->low, o->ret_error);
        answer_send(node);
    }
    if (state != NODE_LOAD_READING) begin(node);
}

/* --- control's thread ------------------------------------------------------------------------------------------- */

/* False: the answer says why not. */
static bool read_block(struct node *node, raft_index index, const uint8_t **ret_block, struct block_header *ret)
{
    struct node_observers *o = &node->observers;
    int rc = storage_read(node->load_reader, index, ret_block, ret);
    if (rc == 0) return true;
    /* Anything else passes: it was compacted just now, or there is no memory. It is asked for again. */
    if (rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EIO) {
        o->ret_error = rc;
        o->low = index;
    }
    o->answer.error = LOCKSTEP_EUNAVAILABLE;
    return false;
}

static void say_gone(struct node_observers *o, const struct block_header *oldest)
{
    o->answer.error = LOCKSTEP_EGONE;
    o->answer.oldest = oldest->first_position;
}

/* The block that holds a position is the last one of low..high that does not begin above it. True: it is answer.index, or the
 * answer is an error. */
static bool search(struct node *node)
{
    struct node_observers *o = &node->observers;
    const log_position wanted = o->question.ask.position;
    const uint8_t *block;
    struct block_header header;
    for (unsigned reads = 0; reads < SEARCH_READS_MAX; reads++) {
        raft_index middle = o->low + (o->high - o->low + 1) / 2;
        if (!read_block(node, middle, &block, &header)) return true;
        if (header.first_position > wanted && o->low == o->high) { /* so it is the oldest */
            say_gone(o, &header);
            return true;
        }
        if (header.first_position > wanted) {
            o->high = middle - 1;
        } else if (o->low < o->high) {
            o->low = middle;
        } else {
            o->answer.index = middle;
            if (block_base_after(&header).next_position > wanted) return true;
            o->answer.error = LOCKSTEP_ENOTFOUND;
            o->answer.index = o->stored;
            return true;
        }
    }
    return false;
}

/* Blocks from answer.index on, as many whole ones as one packet takes; or a part of one. */
static void tell(struct node *node)
{
    struct node_observers *o = &node->observers;
    const uint8_t *block;
    struct block_header header;
    uint8_t *to = o->packet + LOCAL_ANSWER_BYTES;
    if (o->answer.index <= o->base) {
        if (read_block(node, o->base + 1, &block, &header)) say_gone(o, &header);
        return;
    }
    for (raft_index index = o->answer.index; index <= o->stored; index++) {
        uint32_t from = index == o->answer.index ? o->answer.offset : 0, room = ROOM - o->ret_bytes;
        if (!read_block(node, index, &block, &header)) break;
        if (from >= header.bytes) {
            o->answer.error = LOCKSTEP_EINVAL;
            break;
        }
        uint32_t bytes = header.bytes - from;
        if (bytes > room && o->ret_bytes > 0) break;
        if (bytes > room) bytes = room;
        memcpy(to + o->ret_bytes, block + from, bytes);
        o->ret_bytes += bytes;
        o->ret_blocks += from + bytes == header.bytes;
        if (from + bytes < header.bytes || from > 0) break;
    }
    if (o->ret_bytes > 0) o->answer.error = 0; /* what came after it is asked for then */
}

void node_observers_control_work(struct node *node)
{
    struct node_observers *o = &node->observers;
    /* acquire: pairs with begin()'s release */
    if (atomic_load_explicit(&o->state, memory_order_acquire) != NODE_LOAD_READING) return;
    bool found = o->answer.index != 0 || search(node);
    if (found && o->answer.error == 0) tell(node);
    storage_read_end(node->load_reader);
    if (!found) {
        node->env.wake(node->env.context, NODE_CONTROL);
        return;
    }
    /* release: pairs with the acquire load in node_observers_turn; the answer before the state */
    atomic_store_explicit(&o->state, NODE_LOAD_DONE, memory_order_release);
    node->env.wake(node->env.context, NODE_LOOP);
}
