/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/linearizable.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { SET_WORDS = LINEARIZABLE_OPERATIONS_MAX / 64 };

struct state {
    bool there;
    int64_t number;
};

/* A call or a return, in a list by time. The list shrinks where an operation is taken as done, and is mended when the
 * search comes back. */
struct moment {
    struct moment *before, *after;
    struct moment *end; /* of a call: its return; of a return: NULL */
    uint32_t operation;
    uint64_t at_ns;
};

/* A set of operations that are done, and the state behind them: tried already. */
struct tried {
    uint64_t done[SET_WORDS];
    struct state state;
    bool used;
};

struct search {
    const struct linearizable_operation *operations;
    uint32_t count;
    struct moment head, *moments;
    struct {
        struct moment *call;
        struct state before;
    } * stack;
    uint64_t done[SET_WORDS];
    struct tried *table;
    uint64_t table_room, table_used; /* room is a power of two */
};

/* What the operation does to the state. False: it cannot have seen this state. */
static bool apply(const struct linearizable_operation *op, struct state *state)
{
    switch ((enum linearizable_kind)op->kind) {
    case LINEARIZABLE_GET:
        return !op->known || (op->done == state->there && (!op->done || op->result == state->number));
    case LINEARIZABLE_PUT: *state = (struct state){.there = true, .number = op->a}; return true;
    case LINEARIZABLE_DEL:
        if (op->known && op->done != state->there) return false;
        *state = (struct state){.there = false};
        return true;
    case LINEARIZABLE_CAS: {
        bool fits = state->there && state->number == op->a;
        if (op->known && op->done != fits) return false;
        if (fits) state->number = op->b;
        return true;
    }
    case LINEARIZABLE_ADD: {
        int64_t sum = (state->there ? state->number : 0) + op->a;
        if (op->known && op->result != sum) return false;
        *state = (struct state){.there = true, .number = sum};
        return true;
    }
    }
    return false;
}

static uint64_t hash_of(const uint64_t done[SET_WORDS], const struct state *state)
{
    uint64_t hash = (uint64_t)state->number * 2 + state->there;
    for (unsigned i = 0; i < SET_WORDS; i++) {
        hash = (hash ^ done[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return hash;
}

static bool same(const struct tried *tried, const uint64_t done[SET_WORDS], const struct state *state)
{
    return tried->state.there == state->there && tried->state.number == state->number &&
           memcmp(tried->done, done, sizeof tried->done) == 0;
}

static void table_grow(struct search *s)
{
    struct tried *old = s->table;
    uint64_t old_room = s->table_room;
    s->table_room = old_room == 0 ? 1024 : 2 * old_room;
    s->table = calloc(s->table_room, sizeof *s->table);
    lk_assert(s->table != NULL);
    for (uint64_t i = 0; i < old_room; i++) {
        if (!old[i].used) continue;
        uint64_t at = hash_of(old[i].done, &old[i].state) & (s->table_room - 1);
        while (s->table[at].used) at = (at + 1) & (s->table_room - 1);
        s->table[at] = old[i];
    }
    free(old);
}

/* Note it. False: it was tried before. */
static bool note(struct search *s, const struct state *state)
{
    if (2 * s->table_used >= s->table_room) table_grow(s);
    uint64_t at = hash_of(s->done, state) & (s->table_room - 1);
    for (; s->table[at].used; at = (at + 1) & (s->table_room - 1))
        if (same(&s->table[at], s->done, state)) return false;
    s->table[at] = (struct tried){.state = *state, .used = true};
    memcpy(s->table[at].done, s->done, sizeof s->done);
    s->table_used++;
    return true;
}

static void take_out(struct moment *moment)
{
    moment->before->after = moment->after;
    if (moment->after != NULL) moment->after->before = moment->before;
}

static void put_back(struct moment *moment)
{
    moment->before->after = moment;
    if (moment->after != NULL) moment->after->before = moment;
}

/* By time; calls before returns of the same instant, so that they count as having overlapped. */
static int by_time(const void *left, const void *right)
{
    const struct moment *a = left, *b = right;
    if (a->at_ns != b->at_ns) return a->at_ns < b->at_ns ? -1 : 1;
    bool a_returns = a->end == NULL, b_returns = b->end == NULL;
    if (a_returns != b_returns) return a_returns ? 1 : -1;
    return a->operation < b->operation ? -1 : a->operation > b->operation;
}

/* Where nobody knows the outcome, there is no return: the search ends when every known operation is done. */
static void list_build(struct search *s, uint32_t *ret_known)
{
    static struct moment a_return; /* marks calls while the list is being sorted */
    uint32_t used = 0;
    *ret_known = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct linearizable_operation *op = &s->operations[i];
        s->moments[used++] = (struct moment){.operation = i, .at_ns = op->called_ns, .end = &a_return};
        if (!op->known) continue;
        (*ret_known)++;
        s->moments[used++] = (struct moment){.operation = i, .at_ns = op->returned_ns};
    }
    qsort(s->moments, used, sizeof *s->moments, by_time);
    struct moment **calls = calloc(s->count + 1, sizeof(struct moment *));
    lk_assert(calls != NULL);
    struct moment *last = &s->head;
    for (uint32_t i = 0; i < used; i++) {
        struct moment *moment = &s->moments[i];
        if (moment->end != NULL) {
            calls[moment->operation] = moment;
        } else {
            calls[moment->operation]->end = moment;
        }
        moment->before = last;
        last->after = moment;
        last = moment;
    }
    free(calls);
    for (uint32_t i = 0; i < used; i++)
        if (s->moments[i].end == &a_return) s->moments[i].end = NULL;
    /* From here on a return is a moment of a known operation at its returned_ns behind its call: see is_return(). */
}

enum linearizable_verdict linearizable(const struct linearizable_operation *operations, uint32_t count,
                                       uint64_t steps_max)
{
    lk_assert(count <= LINEARIZABLE_OPERATIONS_MAX);
    struct search s = {.operations = operations, .count = count};
    uint32_t known, depth = 0;
    struct state state = {.there = false};
    enum linearizable_verdict verdict = LINEARIZABLE_YES;
    s.moments = calloc(2 * (size_t)count + 1, sizeof *s.moments);
    s.stack = calloc((size_t)count + 1, sizeof *s.stack);
    lk_assert(s.moments != NULL && s.stack != NULL);
    list_build(&s, &known);
    struct moment *at = s.head.after;
    while (known > 0) {
        if (steps_max-- == 0) {
            verdict = LINEARIZABLE_UNDECIDED;
            break;
        }
        bool is_return = at == NULL || (at->end == NULL && s.operations[at->operation].known);
        if (!is_return) {
            uint32_t i = at->operation;
            struct state next = state;
            s.done[i / 64] |= UINT64_C(1) << i % 64;
            if (apply(&operations[i], &next) && note(&s, &next)) {
                s.stack[depth].call = at;
                s.stack[depth++].before = state;
                state = next;
                take_out(at);
                if (at->end != NULL) take_out(at->end);
                if (operations[i].known) known--;
                at = s.head.after;
                continue;
            }
            s.done[i / 64] &= ~(UINT64_C(1) << i % 64);
            at = at->after;
            continue;
        }
        /* A known operation returned and cannot be placed here: take back the last one placed, and try it later. With a
         * read that fitted no more is possible later than now: what was placed before it is the choice. */
        bool is_choice = false;
        while (!is_choice && depth > 0) {
            struct moment *call = s.stack[--depth].call;
            state = s.stack[depth].before;
            s.done[call->operation / 64] &= ~(UINT64_C(1) << call->operation % 64);
            if (operations[call->operation].known) known++;
            if (call->end != NULL) put_back(call->end);
            put_back(call);
            at = call->after;
            is_choice = operations[call->operation].kind != LINEARIZABLE_GET;
        }
        if (!is_choice) {
            verdict = LINEARIZABLE_NO;
            break;
        }
    }
    free(s.moments);
    free(s.stack);
    free(s.table);
    return verdict;
}
