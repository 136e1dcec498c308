/* SPDX-License-Identifier: Apache-2.0 */
/* node_reads.c - queries: what each has to wait for, and how fresh the state is that answers it.
 * Thread: loop. Owns: the table of queries, and three queues of those that wait.
 *
 *   LINEARIZABLE ─(leader)──> ROUNDS ── a round or the lease confirms: index ─┐
 *   FOLLOWER ─┬──(leader)──>                                                  ├─> is it committed here? ─yes─> machine, which
 *             └─(follower)─> INDEXES ── the leader was asked for an index ────┤    no: PARKED, until           runs it once
 *   BOUNDED_STALE ── an index known recently enough, else as FOLLOWER ────────┤    it is, or too late          it is applied
 *   LOCAL ── min_index, or none ──────────────────────────────────────────────┘
 *
 * R5  A read joins only a round, or a question for an index, that leaves after it arrived: all queries of a turn share one
 *     ticket, asked for after the turn's messages were stepped. It runs once the index is applied.
 * An index that was asked for at some moment shows all that was acknowledged before that moment. So BOUNDED_STALE needs no
 * clock but its own: the age of an index counts from when it was asked for, never from when something arrived.
 * What waits to be committed here waits in a queue of its own: it may be long, and holds up nobody but its like. */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

/* Room for waiting queries' bytes in each queue; a power of two. */
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
    bool made = r->table != NULL;
    for (unsigned i = 0; i < NODE_READ_QUEUES && made; i++) {
        r->queues[i].bytes = malloc(reads_capacity(node));
        made = r->queues[i].bytes != NULL;
    }
    if (!made) {
        node_reads_close(node);
        return LOCKSTEP_ENOMEM;
    }
    r->parked_due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < node->options.queries_max; i++)
        r->table[i].next_free = i + 1 < node->options.queries_max ? i + 1 : UINT32_MAX;
    r->free = 0;
    return 0;
}

void node_reads_close(struct node *node)
{
    free(node->reads.table);
    for (unsigned i = 0; i < NODE_READ_QUEUES; i++) free(node->reads.queues[i].bytes);
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

/* --- the queues --- */

static uint64_t read_room(uint32_t bytes)
{
    return (sizeof(struct node_read) + bytes + 7) & ~UINT64_C(7);
}

/* A record never wraps: what is left at the end of the memory is skipped by a record of query UINT32_MAX, or by
 * nothing at all if not even a record's head fits there. False: no room. */
static bool read_put(struct node *node, struct node_read_queue *q, const struct node_read *read, const uint8_t *query)
{
    uint64_t capacity = reads_capacity(node), room = read_room(read->bytes);
    uint64_t to_end = capacity - (q->tail & (capacity - 1));
    uint64_t skip = to_end < room ? to_end : 0;
    if (room > capacity || q->tail + skip + room - q->head > capacity) return false;
    if (skip >= sizeof(struct node_read)) {
        struct node_read filler = {.query = UINT32_MAX, .bytes = (uint32_t)(skip - sizeof(struct node_read))};
        memcpy(q->bytes + (q->tail & (capacity - 1)), &filler, sizeof filler);
    }
    uint8_t *at = q->bytes + ((q->tail + skip) & (capacity - 1));
    memcpy(at, read, sizeof *read);
    if (read->bytes > 0) memcpy(at + sizeof *read, query, read->bytes);
    q->tail += skip + room;
    return true;
}

/* The record at *position, past anything skipped; NULL at the tail. *position becomes the record's own. */
static struct node_read *read_at(struct node *node, struct node_read_queue *q, uint64_t *position)
{
    uint64_t capacity = reads_capacity(node);
    while (*position != q->tail) {
        uint64_t to_end = capacity - (*position & (capacity - 1));
        struct node_read *read = (struct node_read *)(void *)(q->bytes + (*position & (capacity - 1)));
        if (to_end < sizeof *read)
            *position += to_end;
        else if (read->query == UINT32_MAX)
            *position += read_room(read->bytes);
        else
            return read;
    }
    return NULL;
}

/* --- one query --- */

static int ask_machine(struct node *node, const struct node_read *read, const uint8_t *query)
{
    if (read->session != 0) return host_outcome(node->host, read->query, read->session, read->seq, read->min_index);
    return host_query(node->host, read->query, read->entity, read->min_index, query, read->bytes);
}

/* Its index is known. Where that is not committed here yet, the machine's mailbox is no place to wait: it keeps its order.
 * Error: it cannot wait either. */
static int run(struct node *node, const struct node_read *read, const uint8_t *query)
{
    struct node_reads *r = &node->reads;
    int rc;
    if (read->min_index <= raft_commit_index(node->raft)) {
        rc = ask_machine(node, read, query);
        if (rc == 0) r->table[read->query].state = NODE_QUERY_RUNNING;
    } else {
        rc = read_put(node, &r->queues[NODE_READS_PARKED], read, query) ? 0 : LOCKSTEP_EFULL;
        if (rc == 0 && read->deadline_ns < r->parked_due_ns) r->parked_due_ns = read->deadline_ns;
    }
    if (rc == LOCKSTEP_EFULL) node->counters.rejected_full++;
    return rc;
}

/* The leader's index for a read that joined at read->asked_ns, or error. */
static void read_release(struct node *node, struct node_read *read, int error, raft_index index)
{
    struct node_reads *r = &node->reads;
    if (error == 0 && read->asked_ns > r->known_ns) {
        r->known_ns = read->asked_ns;
        r->known_index = index;
    }
    if (error == 0 && read->index_only) {
        settle(node, read->query, &(struct node_answer){.index = index});
        return;
    }
    if (read->min_index < index) read->min_index = index;
    if (error == 0) error = run(node, read, (const uint8_t *)(read + 1));
    if (error != 0) settle(node, read->query, &(struct node_answer){.error = error});
}

static void queue_release(struct node *node, struct node_read_queue *q, uint64_t ready_ticket, uint64_t failed_ticket,
                          raft_index index)
{
    while (q->head != q->ticketed) {
        struct node_read *read = read_at(node, q, &q->head);
        if (read == NULL || q->head >= q->ticketed) break;
        bool ready = read->ticket != 0 && read->ticket <= ready_ticket;
        if (!ready && read->ticket > failed_ticket) break;
        /* Who wanted the leader is told to go there; a follower's question is as well asked here again. */
        bool other_leads = node->leader != 0 && node->leader != node->identity.member_id;
        bool go_there = other_leads && q == &node->reads.queues[NODE_READS_ROUNDS];
        q->head += read_room(read->bytes);
        read_release(node, read, ready ? 0 : go_there ? LOCKSTEP_ENOTLEADER : LOCKSTEP_EUNAVAILABLE, index);
    }
}

/* Which queue a query joins first, or NODE_READ_QUEUES: none, its min_index is all that it waits for. */
static int queue_choose(const struct node *node, const struct node_query *query, uint64_t now_ns, unsigned *ret_queue,
                        raft_index *ret_index)
{
    const struct node_reads *r = &node->reads;
    bool leads = raft_is_leader(node->raft);
    *ret_queue = leads ? NODE_READS_ROUNDS : NODE_READS_INDEXES;
    *ret_index = 0;
    switch (query->consistency) {
    case NODE_LINEARIZABLE:
        if (leads) return 0;
        return node->leader != 0 ? LOCKSTEP_ENOTLEADER : LOCKSTEP_EUNAVAILABLE;
    case NODE_LOCAL: *ret_queue = NODE_READ_QUEUES; return 0;
    case NODE_BOUNDED_STALE:
        if (r->known_ns != 0 && now_ns - r->known_ns <= query->max_staleness_ns) {
            *ret_queue = NODE_READ_QUEUES;
            *ret_index = r->known_index;
            return 0;
        }
        break;
    case NODE_FOLLOWER: break;
    }
    return leads || node->leader != 0 ? 0 : LOCKSTEP_EUNAVAILABLE;
}

static int query_take(struct node *node, const struct node_query *query, bool index_only, uint8_t origin, uint64_t tag)
{
    struct node_reads *r = &node->reads;
    if (!atomic_load_explicit(&node->born, memory_order_relaxed)) return LOCKSTEP_EUNAVAILABLE;
    if (query->query_bytes > node->options.command_bytes_max) return LOCKSTEP_ETOOBIG;
    uint64_t now_ns = node->env.now_ns(node->env.context);
    unsigned queue;
    raft_index index;
    int rc = queue_choose(node, query, now_ns, &queue, &index);
    if (rc != 0) return rc;
    if (r->free == UINT32_MAX) {
        node->counters.rejected_full++;
        return LOCKSTEP_EFULL;
    }
    struct node_read read = {
        .entity = query->entity,
        .min_index = query->min_index > index ? query->min_index : index,
        .session = query->session,
        .seq = query->seq,
        .deadline_ns = now_ns + (query->timeout_ns != 0 ? query->timeout_ns : NODE_READ_WAIT_NS),
        .query = entry_take(node, origin, tag),
        .bytes = query->query_bytes,
        .index_only = index_only,
    };
    if (queue == NODE_READ_QUEUES) {
        rc = run(node, &read, query->query);
    } else if (!read_put(node, &r->queues[queue], &read, query->query)) {
        node->counters.rejected_full++;
        rc = LOCKSTEP_EFULL;
    }
    if (rc != 0) entry_free(node, read.query);
    return rc;
}

int node_query_from(struct node *node, const struct node_query *query, uint8_t origin, uint64_t tag)
{
    return query_take(node, query, false, origin, tag);
}

int node_index_from(struct node *node, uint8_t origin, uint64_t tag)
{
    const struct node_query query = {.consistency = NODE_LINEARIZABLE};
    return query_take(node, &query, true, origin, tag);
}

/* --- the turn --- */

void node_reads_ask_round(struct node *node)
{
    struct node_read_queue *q = &node->reads.queues[NODE_READS_ROUNDS];
    struct node_read *read = read_at(node, q, &q->ticketed);
    if (read == NULL) return;
    /* The clock after the reads: a lease that holds now held when they were asked. */
    struct raft_event event = {.type = RAFT_EVENT_READ, .now_ns = node->env.now_ns(node->env.context)};
    struct raft_result result;
    node_step(node, &event, &result);
    if (result.error == LOCKSTEP_EFULL) return; /* asked again next turn */
    for (; read != NULL; read = read_at(node, q, &q->ticketed)) {
        /* Without leadership there is no ticket: 0 is released, as failed, with everything before it. */
        read->ticket = result.error == 0 ? result.read_ticket : 0;
        read->asked_ns = event.now_ns;
        q->ticketed += read_room(read->bytes);
    }
    if (result.error != 0) queue_release(node, q, 0, UINT64_MAX, 0);
}

void node_reads_release(struct node *node, uint64_t ready_ticket, uint64_t failed_ticket, raft_index index)
{
    queue_release(node, &node->reads.queues[NODE_READS_ROUNDS], ready_ticket, failed_ticket, index);
}

/* One question at a time is on its way to the leader; who comes meanwhile joins the next. */
static void ask_index(struct node *node)
{
    struct node_reads *r = &node->reads;
    struct node_read_queue *q = &r->queues[NODE_READS_INDEXES];
    struct node_read *read = read_at(node, q, &q->ticketed);
    if (read == NULL || r->index_asked) return;
    uint64_t ticket = r->index_ticket + 1, now_ns = node->env.now_ns(node->env.context);
    bool may_ask = !raft_is_leader(node->raft) && !node->stopping;
    int rc = may_ask ? node_forward_index(node, ticket) : LOCKSTEP_EUNAVAILABLE;
    if (rc == LOCKSTEP_EFULL) return; /* next turn */
    r->index_ticket = ticket;
    r->index_asked = rc == 0;
    for (; read != NULL; read = read_at(node, q, &q->ticketed)) {
        read->ticket = ticket;
        read->asked_ns = now_ns;
        q->ticketed += read_room(read->bytes);
    }
    if (rc != 0) queue_release(node, q, 0, ticket, 0);
}

void node_reads_index(struct node *node, uint64_t ticket, int error, raft_index index)
{
    struct node_reads *r = &node->reads;
    lk_assert(r->index_asked && ticket == r->index_ticket);
    r->index_asked = false;
    queue_release(node, &r->queues[NODE_READS_INDEXES], error == 0 ? ticket : 0, ticket, index);
}

/* Those whose index is committed now run; those whose time is over are told so. One that finds the mailbox full stays with
 * all behind it. */
static void unpark(struct node *node)
{
    struct node_reads *r = &node->reads;
    struct node_read_queue *q = &r->queues[NODE_READS_PARKED];
    raft_index commit = raft_commit_index(node->raft);
    bool too_late = node->now_ns >= r->parked_due_ns;
    if (q->head == q->tail || (commit == r->parked_commit && !too_late && !node->stopping)) return;
    r->parked_commit = commit;
    r->parked_due_ns = UINT64_MAX;
    struct node_read *read;
    for (uint64_t at = q->head; (read = read_at(node, q, &at)) != NULL; at += read_room(read->bytes)) {
        int error = node->stopping ? LOCKSTEP_EUNAVAILABLE : node->now_ns >= read->deadline_ns ? LOCKSTEP_ETIMEDOUT : 0;
        if (error == 0 && read->min_index > commit) {
            if (read->deadline_ns < r->parked_due_ns) r->parked_due_ns = read->deadline_ns;
            continue;
        }
        if (error == 0) error = run(node, read, (const uint8_t *)(read + 1));
        if (error == LOCKSTEP_EFULL) { /* the mailbox: the machine's answers bring the next turn */
            r->parked_commit = 0;
            r->parked_due_ns = read->deadline_ns < r->parked_due_ns ? read->deadline_ns : r->parked_due_ns;
            break;
        }
        if (error != 0) settle(node, read->query, &(struct node_answer){.error = error});
        read->query = UINT32_MAX; /* skipped from now on */
    }
    (void)read_at(node, q, &q->head);
}

void node_reads_turn(struct node *node)
{
    unpark(node);
    ask_index(node);
}

uint64_t node_reads_deadline_ns(const struct node *node)
{
    return node->reads.parked_due_ns;
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
