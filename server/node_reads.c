/* SPDX-License-Identifier: Apache-2.0 */
/* node_reads.c - queries. A local one goes straight to the machine; a linearizable one first waits for a read round.
 * Thread: loop. Owns: the table of queries and the queue of those that wait for a round.
 * R5  A read joins only a round that was sent after it arrived: all queries of a turn share one ticket, asked for
 *     after the turn's messages were stepped. It runs once the round's index is applied. */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

/* Room for waiting queries' bytes; a power of two. */
static uint64_t reads_capacity(const struct node *node)
{
    uint64_t bytes = 1 << 16;
    while (bytes < 4 * (uint64_t)node->options.command_bytes_max + (1 << 20)) bytes *= 2;
    return bytes;
}

int node_reads_open(struct node *node)
{
    struct node_reads *r = &node->reads;
    r->table = calloc(node->options.queries_max, sizeof *r->table);
    r->bytes = malloc(reads_capacity(node));
    if (r->table == NULL || r->bytes == NULL) {
        node_reads_close(node);
        return LOCKSTEP_ENOMEM;
    }
    for (uint32_t i = 0; i < node->options.queries_max; i++)
        r->table[i].next_free = i + 1 < node->options.queries_max ? i + 1 : UINT32_MAX;
    r->free = 0;
    return 0;
}

void node_reads_close(struct node *node)
{
    free(node->reads.table);
    free(node->reads.bytes);
    node->reads = (struct node_reads){0};
}

static uint32_t entry_take(struct node *node, uint8_t origin, uint64_t tag)
{
    struct node_reads *r = &node->reads;
    uint32_t query = r->free;
    r->free = r->table[query].next_free;
    r->table[query] = (struct node_query_entry){.tag = tag, .origin = origin, .state = NODE_QUERY_WAITING};
    return query;
}

static void entry_free(struct node *node, uint32_t query)
{
    node->reads.table[query].state = NODE_QUERY_FREE;
    node->reads.table[query].next_free = node->reads.free;
    node->reads.free = query;
}

static void settle(struct node *node, uint32_t query, const struct node_answer *answer)
{
    struct node_query_entry entry = node->reads.table[query];
    entry_free(node, query);
    if (entry.origin == NODE_ORIGIN_HERE)
        node->owner.queried(node->owner.context, entry.tag, answer);
    else
        node_forward_answer(node, entry.origin, entry.tag, answer);
}

static uint64_t read_room(uint32_t bytes)
{
    return (sizeof(struct node_read) + bytes + 7) & ~UINT64_C(7);
}

/* A record never wraps: what is left at the end of the memory is skipped by a record of query UINT32_MAX, or by
 * nothing at all if not even a record's head fits there. */
static uint8_t *read_reserve(struct node *node, uint32_t bytes)
{
    struct node_reads *r = &node->reads;
    uint64_t capacity = reads_capacity(node), room = read_room(bytes);
    uint64_t to_end = capacity - (r->tail & (capacity - 1));
    uint64_t skip = to_end < room ? to_end : 0;
    if (room > capacity || r->tail + skip + room - r->head > capacity) return NULL;
    if (skip >= sizeof(struct node_read)) {
        struct node_read filler = {.query = UINT32_MAX, .bytes = (uint32_t)(skip - sizeof(struct node_read))};
        memcpy(r->bytes + (r->tail & (capacity - 1)), &filler, sizeof filler);
    }
    uint8_t *at = r->bytes + ((r->tail + skip) & (capacity - 1));
    r->tail += skip + room;
    return at;
}

/* The record at *position, past anything skipped; NULL at the tail. *position becomes the record's own. */
static struct node_read *read_at(struct node *node, uint64_t *position)
{
    struct node_reads *r = &node->reads;
    uint64_t capacity = reads_capacity(node);
    while (*position != r->tail) {
        uint64_t to_end = capacity - (*position & (capacity - 1));
        struct node_read *read = (struct node_read *)(void *)(r->bytes + (*position & (capacity - 1)));
        if (to_end < sizeof *read || read->query == UINT32_MAX) {
            *position += to_end;
            continue;
        }
        return read;
    }
    return NULL;
}

static int ask_machine(struct node *node, uint32_t entry, const struct node_query *query)
{
    if (query->session != 0) return host_outcome(node->host, entry, query->session, query->seq, query->min_index);
    return host_query(node->host, entry, query->entity, query->min_index, query->query, query->query_bytes);
}

int node_query_from(struct node *node, const struct node_query *query, uint8_t origin, uint64_t tag)
{
    if (!atomic_load_explicit(&node->born, memory_order_relaxed)) return LOCKSTEP_EUNAVAILABLE;
    if (query->query_bytes > node->options.command_bytes_max) return LOCKSTEP_ETOOBIG;
    if (query->consistency == NODE_LINEARIZABLE && !raft_is_leader(node->raft))
        return node->leader != 0 ? LOCKSTEP_ENOTLEADER : LOCKSTEP_EUNAVAILABLE;
    /* Not known to be committed: it might never be, and what waits in the mailbox waits in order. */
    if (query->min_index > raft_commit_index(node->raft)) return LOCKSTEP_EUNAVAILABLE;
    if (node->reads.free == UINT32_MAX) {
        node->counters.rejected_full++;
        return LOCKSTEP_EFULL;
    }
    if (query->consistency == NODE_LOCAL) {
        uint32_t entry = entry_take(node, origin, tag);
        int rc = ask_machine(node, entry, query);
        if (rc != 0) {
            entry_free(node, entry);
            node->counters.rejected_full++;
            return rc;
        }
        node->reads.table[entry].state = NODE_QUERY_RUNNING;
        return 0;
    }
    uint8_t *at = read_reserve(node, query->query_bytes);
    if (at == NULL) {
        node->counters.rejected_full++;
        return LOCKSTEP_EFULL;
    }
    struct node_read read = {
        .entity = query->entity,
        .min_index = query->min_index,
        .session = query->session,
        .seq = query->seq,
        .query = entry_take(node, origin, tag),
        .bytes = query->query_bytes,
    };
    memcpy(at, &read, sizeof read);
    if (query->query_bytes > 0) memcpy(at + sizeof read, query->query, query->query_bytes);
    return 0;
}

void node_reads_ask_round(struct node *node)
{
    struct node_reads *r = &node->reads;
    struct node_read *read = read_at(node, &r->ticketed);
    if (read == NULL) return;
    struct raft_event event = {.type = RAFT_EVENT_READ, .now_ns = node->now_ns};
    struct raft_result result;
    node_step(node, &event, &result);
    if (result.error == LOCKSTEP_EFULL) return; /* asked again next turn */
    for (; read != NULL; read = read_at(node, &r->ticketed)) {
        /* Without leadership there is no ticket: 0 is released, as failed, with everything before it. */
        read->ticket = result.error == 0 ? result.read_ticket : 0;
        r->ticketed += read_room(read->bytes);
    }
    if (result.error != 0) node_reads_release(node, 0, UINT64_MAX, 0);
}

void node_reads_release(struct node *node, uint64_t ready_ticket, uint64_t failed_ticket, raft_index index)
{
    struct node_reads *r = &node->reads;
    while (r->head != r->ticketed) {
        struct node_read *read = read_at(node, &r->head);
        if (read == NULL || r->head >= r->ticketed) break;
        bool ready = read->ticket != 0 && read->ticket <= ready_ticket;
        if (!ready && read->ticket > failed_ticket) break;
        int error =
            node->leader != 0 && node->leader != node->identity.member_id ? LOCKSTEP_ENOTLEADER : LOCKSTEP_EUNAVAILABLE;
        if (ready) {
            struct node_query at_least = {
                .entity = read->entity,
                .min_index = read->min_index > index ? read->min_index : index,
                .session = read->session,
                .seq = read->seq,
                .query = (const uint8_t *)(read + 1),
                .query_bytes = read->bytes,
            };
            error = ask_machine(node, read->query, &at_least);
        }
        uint32_t query = read->query;
        r->head += read_room(read->bytes);
        if (error == 0)
            r->table[query].state = NODE_QUERY_RUNNING;
        else
            settle(node, query, &(struct node_answer){.error = error});
    }
}

void node_reads_answer(struct node *node, const struct host_answer *answer)
{
    lk_assert(answer->tag < node->options.queries_max);
    lk_assert(node->reads.table[answer->tag].state == NODE_QUERY_RUNNING);
    struct node_answer out = {
        .error = answer->error,
        .code = answer->code,
        .index = answer->type == HOST_ANSWER_OUTCOME ? answer->first_index : answer->index,
        .position = answer->first_position,
        .reply = answer->reply,
        .reply_bytes = answer->reply_bytes,
    };
    settle(node, (uint32_t)answer->tag, &out);
}

int node_query(struct node *node, const struct node_query *query, bool may_forward, uint64_t tag)
{
    lk_assert(!node->in_turn);
    node->env.wake(node->env.context, NODE_LOOP);
    int rc = node_query_from(node, query, NODE_ORIGIN_HERE, tag);
    if (rc != LOCKSTEP_ENOTLEADER || !may_forward) return rc;
    return node_forward_query(node, query, tag);
}
