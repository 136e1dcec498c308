/* SPDX-License-Identifier: Apache-2.0 */
/* persist.c - see persist.h. */
#include "raft/persist.h"

#include "base/assert.h"

static raft_index index_min(raft_index a, raft_index b)
{
    return a < b ? a : b;
}

static struct raft_persist *queue_at(struct raft_persists *p, uint32_t place)
{
    return &p->queue[(p->head + place) % RAFT_PERSISTS_MAX];
}

void raft_persists_open(struct raft_persists *p, const struct raft_start *start)
{
    p->durable_index = p->handed_index = start->last_index;
    p->durable = p->handed = start->hard_state;
    p->newest_seq = 0;
    p->head = p->count = 0;
}

uint32_t raft_persists_room(const struct raft_persists *p)
{
    return RAFT_PERSISTS_MAX - p->count;
}

void raft_persists_take(struct raft_persists *p, const struct raft_hard_state *current, raft_index last_index,
                        struct raft_effects *ret)
{
    bool hard_state = current->term != p->handed.term || current->vote != p->handed.vote;
    bool blocks = last_index > p->handed_index;
    ret->persist_seq = 0;
    ret->persist_hard_state = false;
    ret->persist_first = ret->persist_last = 0;
    if ((!hard_state && !blocks) || raft_persists_room(p) == 0) return;

    ret->persist_seq = ++p->newest_seq;
    ret->persist_hard_state = hard_state;
    ret->hard_state = *current;
    if (blocks) {
        ret->persist_first = p->handed_index + 1;
        ret->persist_last = last_index;
    }
    p->handed_index = last_index;
    p->handed = *current;
    *queue_at(p, p->count++) =
        (struct raft_persist){.seq = p->newest_seq, .last_index = last_index, .hard_state = *current};
}

void raft_persists_done(struct raft_persists *p, uint64_t seq)
{
    while (p->count > 0 && queue_at(p, 0)->seq <= seq) {
        const struct raft_persist *done = queue_at(p, 0);
        /* not always a raise: the log was cut and grew again while this one was on its way */
        if (p->durable_index < done->last_index) p->durable_index = done->last_index;
        p->durable = done->hard_state;
        p->head = (p->head + 1) % RAFT_PERSISTS_MAX;
        p->count--;
    }
}

void raft_persists_cut(struct raft_persists *p, raft_index index)
{
    p->durable_index = index_min(p->durable_index, index - 1);
    p->handed_index = index_min(p->handed_index, index - 1);
    for (uint32_t i = 0; i < p->count; i++) {
        struct raft_persist *one = queue_at(p, i);
        one->last_index = index_min(one->last_index, index - 1);
    }
}

void raft_persists_reset(struct raft_persists *p, raft_index index)
{
    p->durable_index = p->handed_index = index;
    for (uint32_t i = 0; i < p->count; i++) queue_at(p, i)->last_index = 0;
}

void raft_persists_check(const struct raft_persists *p, raft_index last_index)
{
    lk_assert(p->durable_index <= p->handed_index);
    lk_assert(p->handed_index <= last_index);
    lk_assert(p->count <= RAFT_PERSISTS_MAX);
    lk_assert(p->durable.term <= p->handed.term);
    uint64_t seq = p->newest_seq - p->count;
    raft_term term = p->durable.term;
    for (uint32_t i = 0; i < p->count; i++) {
        const struct raft_persist *one = &p->queue[(p->head + i) % RAFT_PERSISTS_MAX];
        lk_assert(one->seq == ++seq);
        lk_assert(one->last_index <= p->handed_index);
        lk_assert(one->hard_state.term >= term);
        term = one->hard_state.term;
    }
}
