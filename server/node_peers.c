/* SPDX-License-Identifier: Apache-2.0 */
/* node_peers.c - frames of peers in, messages of the core out.
 * Thread: loop, but for node_control_work, which reads old blocks for peers that lag.
 *   - Blocks of an APPEND are checked one by one (header, body, chain) where they were received, judged by the core,
 *     and copied into the ring only if accepted. A claim never waits for a socket.
 *   - Sends hold ring positions. What the ring has no more is read from the log by the control thread into the peer's
 *     load buffer: a page fault there delays no heartbeat.
 *   - A full ring never stops this node reading: without room the core drops the payload and says so (R10). */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

static_assert((int)TRANSPORT_APPEND_BYTES_MAX <= (int)BLOCK_BYTES_MAX, "a load buffer holds one append or one block");

/* --- receiving ----------------------------------------------------------------------------------------------- */

static void safety_lost(struct node *node, const struct transport_frame *frame)
{
    const struct raft_message *message = &frame->message;
    node_fail(node, LOCKSTEP_ECORRUPT,
              "a message from %s (type %u, term %llu) proves that the group's safety is lost: two leaders in a term "
              "or a committed block contradicted; keep all data directories as they are and find the damaged one",
              node->options.members[frame->slot].name, message->type, (unsigned long long)message->term);
}

/* Check an APPEND's blocks into node->entries. Returns their count, or -1: something is wrong with them, or with us. */
static int entries_read(struct node *node, const struct transport_frame *frame)
{
    const struct raft_append *append = &frame->message.as.append;
    const uint8_t *at = frame->body;
    size_t left = frame->body_bytes;
    int count = 0;
    struct block_base previous;
    struct ring_slot slot;
    struct block_header header;
    struct configuration configuration;
    uint32_t configurations = 0;
    bool chained = false;
    if (append->last_index < append->previous_index) return -1;
    /* The block before the first, if it is the same one here: then the first has to chain to it. */
    struct block_base last = ring_last(node->ring);
    if (last.index == append->previous_index && last.term == append->previous_term) {
        previous = last;
        chained = true;
    } else if (ring_find(node->ring, append->previous_index, &slot) == 0 && slot.term == append->previous_term &&
               block_header_read(ring_at(node->ring, slot.pos), slot.bytes, &header) == 0) {
        previous = block_base_after(&header);
        chained = true;
    }
    while (left > 0) {
        if (count == NODE_ENTRIES_MAX || block_header_read(at, left, &header) != 0 || header.bytes > left) return -1;
        if (header.index != append->previous_index + 1 + (uint64_t)count) return -1;
        if (chained && block_chain_check(&previous, &header) != 0) return -1;
        if (header.term > frame->message.term || block_body_check(at, &header) != 0) return -1;
        /* The core takes index and term for the block: one leader made one of them. */
        if (ring_find(node->ring, header.index, &slot) == 0 && slot.term == header.term &&
            slot.header_crc != header.header_crc) {
            safety_lost(node, frame);
            return -1;
        }
        const struct raft_configuration *carried = NULL;
        if (header.type == BLOCK_CONFIGURATION) {
            if (configuration_read(at + BLOCK_HEADER_BYTES, header.bytes - BLOCK_HEADER_BYTES, &configuration) != 0)
                return -1;
            if (configurations == NODE_ENTRY_CONFIGURATIONS_MAX) return -1;
            node_configuration_core(&configuration, &node->entry_configurations[configurations]);
            carried = &node->entry_configurations[configurations++];
        }
        node->entries[count++] = (struct raft_entry){
            .index = header.index, .term = header.term, .bytes = header.bytes, .configuration = carried};
        previous = block_base_after(&header);
        chained = true;
        at += header.bytes;
        left -= header.bytes;
    }
    return append->last_index == append->previous_index + (uint64_t)count ? count : -1;
}

/* R6: it counts from now on. entries_read has checked it. */
static void configuration_appended(struct node *node, const uint8_t *block, const struct block_header *header)
{
    struct configuration configuration;
    int rc = configuration_read(block + BLOCK_HEADER_BYTES, header->bytes - BLOCK_HEADER_BYTES, &configuration);
    lk_assert(rc == 0);
    if (node_configuration_push(node, header->index, &configuration) != 0)
        node_fail(node, LOCKSTEP_ENOMEM, "not enough memory for the configuration of block %llu",
                  (unsigned long long)header->index);
}

/* Copy accepted blocks first..last of the frame into the ring. The core counted their bytes against the ring's room. */
static void entries_copy(struct node *node, const struct transport_frame *frame, raft_index first, raft_index last)
{
    const uint8_t *at = frame->body;
    for (raft_index index = frame->message.as.append.previous_index + 1; index <= last; index++) {
        struct block_header header;
        memcpy(&header, at, sizeof header);
        if (index >= first) {
            uint8_t *to;
            int rc = ring_claim(node->ring, header.bytes, &to);
            lk_assert(rc == 0);
            memcpy(to, at, header.bytes);
            ring_publish(node->ring, &header);
            if (header.type == BLOCK_CONFIGURATION) configuration_appended(node, at, &header);
        }
        at += header.bytes;
    }
    node->proposals.last_append_ns = node->now_ns;
}

/* Room for a follower's blocks. Where only dead bytes stand in the way, the live ones go behind them (R10). */
static uint64_t room_for(struct node *node, uint64_t bytes)
{
    if (bytes == 0) return 0;
    if (!storage_persist_fits(node->storage, bytes)) return 0;
    uint64_t room = ring_room(node->ring, bytes);
    if (room >= bytes || raft_is_leader(node->raft)) return room;
    struct ring_status status;
    ring_status_read(node->ring, &status);
    if (status.dead_bytes > 0) {
        ring_epoch_begin(node->ring);
        (void)ring_republish(node->ring, raft_commit_index(node->raft) + 1);
        ring_epoch_end(node->ring, node->ring_term, node->ring_leads);
        room = ring_room(node->ring, bytes);
    }
    return room;
}

/* Blocks that may cut others need more: the cut ones stay as dead bytes, and then room is kept to publish every block
 * that is not stored once more. Without that much, nothing is taken: the leader asks again. */
static uint64_t room_for_append(struct node *node, const struct raft_append *append, uint64_t bytes)
{
    uint64_t room = room_for(node, bytes);
    if (append->previous_index >= raft_last_index(node->raft)) return room;
    if (room < bytes) return 0; /* nor for a part of them, which may cut as well */
    struct ring_status status;
    ring_status_read(node->ring, &status);
    uint64_t need =
        2 * bytes + status.live_bytes; /* blocks that are published again keep their places in the index map */
    return ring_room_bytes(node->ring, need) >= need ? room : 0;
}

static void raft_frame(struct node *node, const struct transport_frame *frame)
{
    const struct raft_message *message = &frame->message;
    if (message->from != frame->member_id || message->to != node->identity.member_id) {
        node->frames_refused++;
        return;
    }
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_ns = node->now_ns};
    struct raft_result result;
    if (frame->partial) {
        event.type = RAFT_EVENT_CONTACT;
        event.as.contact.from = message->from;
        event.as.contact.term = message->term;
        node_step(node, &event, &result);
        return;
    }
    int count = 0;
    if (message->type == RAFT_APPEND) {
        count = entries_read(node, frame);
        if (node->failed != 0) return;
        if (count < 0) {
            node->frames_refused++;
            node_log(node, NODE_LOG_WARN, "append refused: damaged or out of chain: from=%s first=%llu",
                     node->options.members[frame->slot].name,
                     (unsigned long long)message->as.append.previous_index + 1);
            return;
        }
    }
    event.as.message.message = message;
    event.as.message.entries = node->entries;
    event.as.message.entry_count = (uint32_t)count;
    if (count > 0) event.as.message.room_bytes = room_for_append(node, &message->as.append, frame->body_bytes);
    node_step(node, &event, &result);
    if (result.error == LOCKSTEP_EINVAL) node->frames_refused++;
    if (result.error == LOCKSTEP_EPROTO) safety_lost(node, frame);
    if (result.accept_first != 0) entries_copy(node, frame, result.accept_first, result.accept_last);
    if (result.install) node_snapshots_piece(node, message, frame->body, frame->body_bytes);
}

/* The core asks the others soon if this was our leader; what the hang-up cost besides, Raft repeats. */
static void hangup(struct node *node, const struct transport_frame *frame)
{
    struct raft_event event = {.type = RAFT_EVENT_HANGUP, .now_ns = node->now_ns};
    struct raft_result result;
    event.as.hangup.from = frame->member_id;
    node_step(node, &event, &result);
    node_forwards_hangup(node, frame->slot);
}

void node_peers_receive(struct node *node)
{
    struct transport_frame frame;
    const struct transport_ops *ops = node->transport->ops;
    for (int i = 0; i < NODE_FRAMES_A_TURN_MAX; i++) {
        bool alive = atomic_load_explicit(&node->born, memory_order_relaxed);
        /* A step may need a persist: without room for one the peers' frames wait where they are. */
        if (alive && raft_persist_room(node->raft) < NODE_PERSIST_ROOM_TO_READ) return;
        if (!ops->next(node->transport, &frame)) return;
        switch (frame.type) {
        case FRAME_BIRTH:
            if (!node->repair.opening) node_birth_frame(node, &frame);
            break;
        case FRAME_BLOCK: node_repair_block_frame(node, &frame); break;
        case FRAME_RAFT:
            if (alive) raft_frame(node, &frame);
            break;
        case FRAME_FORWARD:
        case FRAME_FORWARD_REPLY:
            if (alive && !frame.partial) node_forward_frame(node, &frame);
            break;
        case FRAME_BLOCK_GET:
            if (alive) node_block_get_frame(node, &frame);
            break;
        case FRAME_HANGUP:
            if (alive) hangup(node, &frame);
            break;
        default: node->frames_refused++;
        }
        ops->consume(node->transport);
        if (node->failed != 0) return;
    }
    node->env.wake(node->env.context, NODE_LOOP); /* more is waiting: the next turn goes on */
}

/* --- sending ------------------------------------------------------------------------------------------------- */

void node_peers_send(struct node *node, const struct raft_effects *effects)
{
    for (uint32_t i = 0; i < effects->send_count; i++) {
        const struct raft_send *s = &effects->sends[i];
        struct transport_send send = {.type = FRAME_RAFT, .message = &s->message};
        send.slot = node_slot_of(node, s->message.to);
        if (send.slot == RAFT_MEMBERS_MAX) continue; /* not in our configuration: nowhere to send it */
        if (s->first != 0) node->counters.appends_sent++;
        if (s->loaded) {
            struct node_load *load = &node->loads[send.slot];
            if (load->is_piece)
                lk_assert(s->message.type == RAFT_INSTALL && s->message.as.install.offset == load->ret_offset);
            else
                lk_assert(s->first == load->first && s->last <= load->ret_last);
            send.blocks = load->buffer;
            send.blocks_bytes = load->ret_bytes;
            load->on_its_way = true;
        } else if (s->first != 0) {
            struct ring_slot slot;
            raft_index last;
            int rc = ring_find(node->ring, s->first, &slot);
            lk_assert(rc == 0); /* packed in this very take */
            send.ring_from = slot.pos;
            send.ring_bytes = ring_pack(node->ring, s->first, s->last, UINT64_MAX, &last);
            lk_assert(last == s->last);
        }
        /* Not connected or no room: lost like any message, Raft repeats what matters. */
        (void)node->transport->ops->send(node->transport, &send);
    }
    for (uint32_t i = 0; i < effects->load_count; i++) {
        const struct raft_load *l = &effects->loads[i];
        unsigned slot = node_slot_of(node, l->peer);
        if (slot == RAFT_MEMBERS_MAX) continue;
        struct node_load *load = &node->loads[slot];
        int state = atomic_load_explicit(&load->state, memory_order_acquire); /* pairs with control's release */
        if (state == NODE_LOAD_READING) { /* for an earlier leadership, or who had the slot before */
            load->dropped = true;
            continue;
        }
        load->first = l->first;
        load->last = l->last;
        load->bytes_max = l->bytes_max;
        load->is_piece = false;
        atomic_store_explicit(&load->state, NODE_LOAD_WANTED, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < effects->piece_count; i++) {
        unsigned slot = node_slot_of(node, effects->pieces[i].peer);
        if (slot == RAFT_MEMBERS_MAX) continue;
        struct node_load *load = &node->loads[slot];
        if (atomic_load_explicit(&load->state, memory_order_acquire) == NODE_LOAD_READING) {
            load->dropped = true;
            continue;
        }
        load->is_piece = true;
        load->piece = effects->pieces[i];
        atomic_store_explicit(&load->state, NODE_LOAD_WANTED, memory_order_relaxed);
    }
}

/* --- old blocks ---------------------------------------------------------------------------------------------- */

static void load_begin(struct node *node, unsigned slot)
{
    struct node_load *load = &node->loads[slot];
    if (load->on_its_way && !node->transport->ops->blocks_idle(node->transport, slot)) return;
    load->on_its_way = false;
    if (load->buffer == NULL) {
        load->buffer_bytes = BLOCK_BYTES_MAX;
        load->buffer = malloc(load->buffer_bytes);
        if (load->buffer == NULL) return; /* tried again every turn */
    }
    /* release: pairs with the acquire load in node_control_work; the request must be visible before the state. */
    atomic_store_explicit(&load->state, NODE_LOAD_READING, memory_order_release);
    node->env.wake(node->env.context, NODE_CONTROL);
}

void node_log_unreadable(struct node *node, raft_index index, int error)
{
    node_fail(node, error,
              "%s: block %llu of the log cannot be read: %s; start the node again: it gets the block back from the "
              "others; and look at its disk",
              node->options.data_directory, (unsigned long long)index, lockstep_error_text(error));
}

/* Blocks that lie ready for the peer in this slot, or none: then the core asks again. */
static void loaded(struct node *node, unsigned slot, raft_index first, raft_index last, uint64_t bytes)
{
    struct raft_event event = {.type = RAFT_EVENT_LOADED, .now_ns = node->now_ns};
    struct raft_result result;
    event.as.loaded.peer = node->slot_id[slot];
    event.as.loaded.first = first;
    event.as.loaded.last = last;
    event.as.loaded.bytes = bytes;
    node_step(node, &event, &result);
}

/* What was read may be of the other kind than what was asked for meanwhile: neither is on its way. */
static void ask_again(struct node *node, unsigned slot)
{
    struct raft_event event = {.type = RAFT_EVENT_PIECE, .now_ns = node->now_ns};
    struct raft_result result;
    node->loads[slot].dropped = false;
    event.as.piece.peer = node->slot_id[slot];
    node_step(node, &event, &result);
    loaded(node, slot, 1, 0, 0);
}

void node_loads_turn(struct node *node)
{
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
        struct node_load *load = &node->loads[slot];
        int state = atomic_load_explicit(&load->state, memory_order_acquire); /* pairs with control's release */
        if (state == NODE_LOAD_WANTED) load_begin(node, slot);
        if (state != NODE_LOAD_DONE) continue;
        atomic_store_explicit(&load->state, NODE_LOAD_IDLE, memory_order_relaxed);
        if (load->is_piece) {
            node_snapshots_loaded(node, slot);
        } else {
            if (load->ret_error != 0) node_log_unreadable(node, load->ret_last + 1, load->ret_error);
            loaded(node, slot, load->first, load->ret_last, load->ret_bytes);
        }
        if (load->dropped) ask_again(node, slot);
    }
}

/* Thread: control. */
static void load_read(struct node *node, struct node_load *load)
{
    load->ret_bytes = 0;
    load->ret_last = load->first - 1;
    load->ret_error = 0;
    for (raft_index index = load->first; index <= load->last; index++) {
        const uint8_t *block;
        struct block_header header;
        int rc = storage_read(node->load_reader, index, &block, &header);
        if (rc != 0) {
            /* Anything else passes: what is not stored yet, or a moment without memory. The core asks again. */
            if (rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EIO) load->ret_error = rc;
            break;
        }
        if (load->ret_bytes > 0 && load->ret_bytes + header.bytes > load->bytes_max) break;
        if (load->ret_bytes + header.bytes > load->buffer_bytes) break;
        memcpy(load->buffer + load->ret_bytes, block, header.bytes);
        load->ret_bytes += header.bytes;
        load->ret_last = index;
    }
    storage_read_end(node->load_reader);
}

void node_control_work(struct node *node)
{
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
        struct node_load *load = &node->loads[slot];
        /* acquire: pairs with load_begin's release */
        if (atomic_load_explicit(&load->state, memory_order_acquire) != NODE_LOAD_READING) continue;
        if (load->is_piece)
            node_snapshots_load(node, load);
        else
            load_read(node, load);
        /* release: pairs with the acquire loads on the loop; blocks before state */
        atomic_store_explicit(&load->state, NODE_LOAD_DONE, memory_order_release);
        node->env.wake(node->env.context, NODE_LOOP);
    }
    node_blocks_control_work(node);
    node_observers_control_work(node);
    /* acquire: pairs with promise_turn's release */
    if (atomic_exchange_explicit(&node->promise_over, false, memory_order_acquire))
        (void)storage_promise_over(node->storage);
}
