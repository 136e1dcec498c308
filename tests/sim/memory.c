/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c - nodes of one host share memory: the real filter (transport/local.c) over the simulated network and the
 * simulated door to the host's processes; and between it and the node somebody who looks at what passes.
 *
 *   node <-- watch, here <-- transport/local.c <-- sim_net
 *                                    ^-- sim_link, and the rings of the others
 *
 * A process that ends leaves its ring to its readers as it was: they keep it mapped until they hear of the hang-up. */
#include <stdlib.h>

#include "base/assert.h"
#include "server/node_internal.h"
#include "tests/sim/world.h"
#include "transport/local.h"

struct watch {
    struct transport base; /* first: ops find the watch by it */
    struct transport *inner;
    struct member *m;
    /* By slot: the term in which it read that one's ring, until it falls to TCP; and how often it was lapped before. */
    raft_term pulled_in[RAFT_MEMBERS_MAX];
    uint64_t lapped[RAFT_MEMBERS_MAX];
};

static struct watch *watch_of(struct transport *t)
{
    return (struct watch *)t;
}

static int watch_send(struct transport *t, const struct transport_send *send)
{
    struct watch *watch = watch_of(t);
    if (send->type == FRAME_RAFT) checks_said(watch->m, send->message);
    return watch->inner->ops->send(watch->inner, send);
}

static uint64_t watch_queued_bytes(struct transport *t, unsigned slot)
{
    return watch_of(t)->inner->ops->queued_bytes(watch_of(t)->inner, slot);
}

static bool watch_blocks_idle(struct transport *t, unsigned slot)
{
    return watch_of(t)->inner->ops->blocks_idle(watch_of(t)->inner, slot);
}

static void from_memory(struct watch *watch, const struct transport_frame *frame)
{
    struct world *world = watch->m->world;
    const struct raft_message *message = &frame->message;
    if (frame->type != FRAME_RAFT) world_violated(world, "a frame of type %u comes from memory", frame->type);
    checks_shared(watch->m, frame);
    switch (message->type) {
    case RAFT_APPEND:
        world->memory.blocks += message->as.append.last_index - message->as.append.previous_index;
        watch->pulled_in[frame->slot] = message->term;
        break;
    case RAFT_HEARTBEAT: world->memory.beats++; break;
    default: world->memory.acks++;
    }
}

static void fell(struct watch *watch, unsigned slot)
{
    struct memory_counts *counts = &watch->m->world->memory;
    struct transport_peer_status status;
    watch->inner->ops->peer_status(watch->inner, slot, &status);
    if (status.lapped > watch->lapped[slot]) counts->lapped++;
    counts->falls++;
    watch->lapped[slot] = status.lapped;
    watch->pulled_in[slot] = 0;
}

static bool watch_next(struct transport *t, struct transport_frame *ret)
{
    struct watch *watch = watch_of(t);
    if (!watch->inner->ops->next(watch->inner, ret)) return false;
    if (!sim_net_hands(watch->m->world->net, watch->m->i)) {
        from_memory(watch, ret);
    } else if (ret->type == FRAME_RAFT && ret->message.type == RAFT_APPEND && ret->body_bytes > 0 &&
               ret->message.term == watch->pulled_in[ret->slot]) {
        fell(watch, ret->slot);
    }
    return true;
}

static void watch_consume(struct transport *t)
{
    watch_of(t)->inner->ops->consume(watch_of(t)->inner);
}

static void watch_flush(struct transport *t)
{
    watch_of(t)->inner->ops->flush(watch_of(t)->inner);
}

static int watch_peer_set(struct transport *t, unsigned slot, const char *name, const char *address)
{
    return watch_of(t)->inner->ops->peer_set(watch_of(t)->inner, slot, name, address);
}

static void watch_hello_set(struct transport *t, const struct transport_hello *hello)
{
    watch_of(t)->inner->ops->hello_set(watch_of(t)->inner, hello);
}

static void watch_peer_status(struct transport *t, unsigned slot, struct transport_peer_status *ret)
{
    watch_of(t)->inner->ops->peer_status(watch_of(t)->inner, slot, ret);
}

static uint64_t watch_frames_refused(struct transport *t)
{
    return watch_of(t)->inner->ops->frames_refused(watch_of(t)->inner);
}

static void watch_observers(struct transport *t, struct transport_observers *ret)
{
    watch_of(t)->inner->ops->observers(watch_of(t)->inner, ret);
}

static bool watch_asked(struct transport *t, struct transport_question *ret)
{
    return watch_of(t)->inner->ops->asked(watch_of(t)->inner, ret);
}

static void watch_answer(struct transport *t, uint64_t ticket, const void *packet, size_t bytes)
{
    watch_of(t)->inner->ops->answer(watch_of(t)->inner, ticket, packet, bytes);
}

static void watch_close(struct transport *t)
{
    struct watch *watch = watch_of(t);
    watch->inner->ops->close(watch->inner);
    free(watch);
}

static const struct transport_ops watch_ops = {
    .send = watch_send,
    .queued_bytes = watch_queued_bytes,
    .blocks_idle = watch_blocks_idle,
    .next = watch_next,
    .consume = watch_consume,
    .flush = watch_flush,
    .peer_set = watch_peer_set,
    .hello_set = watch_hello_set,
    .peer_status = watch_peer_status,
    .frames_refused = watch_frames_refused,
    .observers = watch_observers,
    .asked = watch_asked,
    .answer = watch_answer,
    .close = watch_close,
};

static uint64_t link_clock(const void *context)
{
    return world_clock(context);
}

static void report(void *context, const char *text)
{
    struct member *m = context;
    world_log(m, "transport", text);
}

struct transport *memory_open(struct member *m, struct transport *beneath, const struct transport_owner *owner,
                              const struct transport_hello *hello)
{
    struct world *world = m->world;
    struct watch *watch = calloc(1, sizeof *watch);
    lk_assert(watch != NULL);
    const struct local_options options = {
        .owner = *owner,
        .inner = beneath,
        .link = sim_link_open(world->links, m->i, world->plan.host[m->i], link_clock, m),
        .hello = *hello,
        .self = node_options_of(m->node)->self,
        .report_context = m,
        .report = report,
    };
    int rc = local_open(&options, &watch->inner);
    lk_assert(rc == 0);
    watch->base.ops = &watch_ops;
    watch->m = m;
    return &watch->base;
}
