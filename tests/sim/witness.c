/* SPDX-License-Identifier: Apache-2.0 */
/* witness.c - stands between host and machine. It hands everything through, and tells checks.c what it saw: each command
 * with its reply, the state's hash at the end of each batch and behind each snapshot, each query. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tests/sim/world.h"

struct witness {
    struct member *m;
    const struct lockstep_machine *inner_table;
    void *inner;
    log_position position; /* of the last command applied */

    /* The call under way. */
    struct lockstep_batch batch, *outer_batch;
    struct lockstep_replies replies, *outer_replies;
    const struct lockstep_command *command; /* taken and not answered */
    uint64_t query_hash;
};

static struct witness *of_batch(struct lockstep_batch *batch)
{
    return (struct witness *)((uint8_t *)batch - offsetof(struct witness, batch));
}

static struct witness *of_replies(struct lockstep_replies *replies)
{
    return (struct witness *)((uint8_t *)replies - offsetof(struct witness, replies));
}

static const struct lockstep_command *next(struct lockstep_batch *batch)
{
    struct witness *w = of_batch(batch);
    if (w->command != NULL) checks_applied(w->m, w->command, LOCKSTEP_OK, 0, NULL, 0); /* not answered: an empty OK */
    w->command = w->outer_batch->next(w->outer_batch);
    if (w->command != NULL) {
        checks_skipped(w->m, w->position, w->command->position);
        w->position = w->command->position;
    }
    return w->command;
}

static void answer(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code, const void *bytes,
                   size_t count)
{
    struct witness *w = of_replies(replies);
    if (w->command != NULL) checks_applied(w->m, w->command, (int)outcome, code, bytes, count);
    w->command = NULL;
    w->outer_replies->answer(w->outer_replies, outcome, code, bytes, count);
}

static int witness_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    struct witness *w = machine;
    w->outer_batch = batch;
    w->outer_replies = replies;
    w->batch = (struct lockstep_batch){.size = sizeof w->batch, .next = next};
    w->replies = (struct lockstep_replies){.size = sizeof w->replies, .answer = answer};
    w->command = NULL;
    int rc = w->inner_table->apply(w->inner, &w->batch, &w->replies);
    if (rc == 0 && w->inner_table->hash != NULL) checks_state(w->m, w->position, w->inner_table->hash(w->inner));
    return rc;
}

static void query_answer(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code,
                         const void *bytes, size_t count)
{
    struct witness *w = of_replies(replies);
    uint64_t head[2] = {(uint64_t)outcome, (uint64_t)(int64_t)code};
    checks_queried(w->m, w->position, w->query_hash, trace_hash(trace_hash(0, head, sizeof head), bytes, count));
    w->outer_replies->answer(w->outer_replies, outcome, code, bytes, count);
}

static int witness_query(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                         struct lockstep_replies *replies)
{
    struct witness *w = machine;
    w->query_hash = trace_hash(entity, query, query_bytes);
    w->outer_replies = replies;
    w->replies = (struct lockstep_replies){.size = sizeof w->replies, .answer = query_answer};
    return w->inner_table->query(w->inner, entity, query, query_bytes, &w->replies);
}

static struct lockstep_hash witness_hash(void *machine)
{
    struct witness *w = machine;
    return w->inner_table->hash(w->inner);
}

/* --- snapshots: the witness's position, then the machine's bytes --------------------------------------------- */

struct frozen {
    log_position position;
    void *inner;
};

static int witness_snapshot_begin(void *machine, void **ret_snapshot)
{
    struct witness *w = machine;
    struct frozen *frozen = calloc(1, sizeof *frozen);
    lk_assert(frozen != NULL);
    frozen->position = w->position;
    int rc = w->inner_table->snapshot_begin(w->inner, &frozen->inner);
    if (rc != 0)
        free(frozen);
    else
        *ret_snapshot = frozen;
    return rc;
}

static int witness_snapshot_write(void *machine, void *snapshot, struct lockstep_writer *writer)
{
    struct witness *w = machine;
    struct frozen *frozen = snapshot;
    int rc = writer->write(writer, &frozen->position, sizeof frozen->position);
    if (rc == 0) rc = w->inner_table->snapshot_write(w->inner, frozen->inner, writer);
    checks_snapshot(w->m, frozen->position, rc);
    return rc;
}

static void witness_snapshot_end(void *machine, void *snapshot)
{
    struct witness *w = machine;
    struct frozen *frozen = snapshot;
    w->inner_table->snapshot_end(w->inner, frozen->inner);
    free(frozen);
}

static int witness_restore(void *machine, struct lockstep_reader *reader)
{
    struct witness *w = machine;
    uint8_t *at = (uint8_t *)&w->position;
    for (size_t used = 0, count; used < sizeof w->position; used += count) {
        int rc = reader->read(reader, at + used, sizeof w->position - used, &count);
        if (rc != 0) return rc;
        if (count == 0) return -1;
    }
    int rc = w->inner_table->restore(w->inner, reader);
    if (rc == 0 && w->inner_table->hash != NULL) checks_state(w->m, w->position, w->inner_table->hash(w->inner));
    return rc;
}

static int witness_open_machine(const struct lockstep_host *host, void **ret_machine)
{
    struct member *m = world_opening;
    struct witness *w = calloc(1, sizeof *w);
    lk_assert(w != NULL);
    w->m = m;
    w->inner_table = &m->inner->machine;
    int rc = w->inner_table->open(host, &w->inner);
    if (rc != 0) {
        free(w);
        return rc;
    }
    *ret_machine = w;
    return 0;
}

static void witness_close_machine(void *machine)
{
    struct witness *w = machine;
    w->inner_table->close(w->inner);
    free(w);
}

void witness_open(struct member *m, const struct plugin *inner)
{
    m->inner = inner;
    m->plugin = *inner;
    struct lockstep_machine *table = &m->plugin.machine;
    const char *name = table->name, *version = table->version;
    *table = (struct lockstep_machine){
        .size = sizeof *table,
        .abi = table->abi,
        .name = name,
        .version = version,
        .open = witness_open_machine,
        .close = witness_close_machine,
        .apply = witness_apply,
        .query = inner->machine.query != NULL ? witness_query : NULL,
        .hash = inner->machine.hash != NULL ? witness_hash : NULL,
    };
    if (inner->machine.snapshot_begin == NULL) return;
    table->snapshot_begin = witness_snapshot_begin;
    table->snapshot_write = witness_snapshot_write;
    table->snapshot_end = witness_snapshot_end;
    table->restore = witness_restore;
}
