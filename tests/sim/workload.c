/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/workload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum {
    LINE_BYTES_MAX = 65536,
    KEYS_AT_A_TIME = 4,
    OPERATIONS_A_WINDOW = 160, /* then clients go to new keys: a history stays short enough to be judged */
    BYTES_MAX = 64,            /* of random ones */
};

struct lines {
    char **list;
    size_t count, room;
};

struct workload {
    bool kv;
    struct lines commands, queries;
    char text[LINE_BYTES_MAX];
};

static void lines_add(struct lines *lines, const char *text)
{
    if (lines->count == lines->room) {
        lines->room = lines->room == 0 ? 16 : 2 * lines->room;
        lines->list = realloc(lines->list, lines->room * sizeof *lines->list);
        lk_assert(lines->list != NULL);
    }
    lines->list[lines->count] = strdup(text);
    lk_assert(lines->list[lines->count] != NULL);
    lines->count++;
}

static bool lines_read(struct lines *lines, const char *path, char *why, size_t why_room)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t used;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        snprintf(why, why_room, "%s: %s", path, strerror(errno));
        return false;
    }
    while ((used = getline(&line, &room, file)) >= 0) {
        if (used > 0 && line[used - 1] == '\n') line[--used] = 0;
        if (used > 0) lines_add(lines, line);
    }
    free(line);
    fclose(file);
    if (lines->count == 0) snprintf(why, why_room, "%s: has no lines", path);
    return lines->count > 0;
}

struct workload *workload_open(const char *machine, const char *commands_path, const char *queries_path, char *why,
                               size_t why_room)
{
    struct workload *workload = calloc(1, sizeof *workload);
    lk_assert(workload != NULL);
    if (commands_path != NULL && !lines_read(&workload->commands, commands_path, why, why_room)) goto fail;
    if (queries_path != NULL && !lines_read(&workload->queries, queries_path, why, why_room)) goto fail;
    if (commands_path != NULL || queries_path != NULL) return workload;
    if (strcmp(machine, "kv") == 0) {
        workload->kv = true;
    } else if (strcmp(machine, "counter") == 0) {
        lines_add(&workload->commands, "add {1..1000}");
        lines_add(&workload->commands, "add -{1..1000}");
        lines_add(&workload->commands, "get");
        lines_add(&workload->queries, "get");
    }
    return workload;
fail:
    workload_close(workload);
    return NULL;
}

static void lines_close(struct lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) free(lines->list[i]);
    free(lines->list);
}

void workload_close(struct workload *workload)
{
    if (workload == NULL) return;
    lines_close(&workload->commands);
    lines_close(&workload->queries);
    free(workload);
}

static void payload_set(struct workload_operation *op, const void *bytes, size_t count)
{
    op->payload = malloc(count + 1);
    lk_assert(op->payload != NULL);
    if (count > 0) memcpy(op->payload, bytes, count);
    op->payload_bytes = (uint32_t)count;
}

/* --- kv ------------------------------------------------------------------------------------------------------- */

/* A value that somebody may have put there: they are the numbers of operations. */
static int64_t some_value(struct random *r, uint32_t number)
{
    uint64_t back = random_below(r, 12);
    return back < number ? (int64_t)(number - back) : 0;
}

static void kv_large(struct workload *workload, struct random *r, const struct sim_plan *plan, uint32_t number,
                     struct workload_operation *op)
{
    size_t room = plan->command_bytes_max < sizeof workload->text ? plan->command_bytes_max : sizeof workload->text;
    int used =
        snprintf(workload->text, sizeof workload->text, "put large%" PRIu64 " %" PRIu32, random_below(r, 4), number);
    size_t bytes = (size_t)random_between(r, (uint64_t)used, room - 1);
    memset(workload->text + used, '.', bytes - (size_t)used);
    payload_set(op, workload->text, bytes);
}

static void kv_make(struct workload *workload, struct random *r, const struct sim_plan *plan, uint32_t number,
                    struct workload_operation *op)
{
    if (!op->query && random_chance(r, plan->large_per_1000, 1000)) {
        kv_large(workload, r, plan, number, op);
        return;
    }
    struct linearizable_operation *seen = &op->seen;
    op->key = number / OPERATIONS_A_WINDOW * KEYS_AT_A_TIME + random_below(r, KEYS_AT_A_TIME);
    op->has_history = !op->query || op->consistency != NODE_LOCAL;
    uint64_t pick = op->query ? 0 : random_below(r, 100);
    seen->a = (int64_t)number + 1;
    int used = 0;
    char *text = workload->text;
    size_t room = sizeof workload->text;
    if (pick < 10) {
        seen->kind = LINEARIZABLE_GET;
        used = snprintf(text, room, "get k%" PRIu64, op->key);
    } else if (pick < 40) {
        seen->kind = LINEARIZABLE_PUT;
        used = snprintf(text, room, "put k%" PRIu64 " %" PRId64, op->key, seen->a);
    } else if (pick < 65) {
        seen->kind = LINEARIZABLE_CAS;
        seen->a = some_value(r, number);
        seen->b = (int64_t)number + 1;
        used = snprintf(text, room, "cas k%" PRIu64 " %" PRId64 " %" PRId64, op->key, seen->a, seen->b);
    } else if (pick < 92) {
        seen->kind = LINEARIZABLE_ADD;
        seen->a = (int64_t)random_between(r, 1, 9);
        used = snprintf(text, room, "incr k%" PRIu64 " %" PRId64, op->key, seen->a);
    } else {
        seen->kind = LINEARIZABLE_DEL;
        used = snprintf(text, room, "del k%" PRIu64, op->key);
    }
    payload_set(op, text, (size_t)used);
}

void workload_understand(const struct workload *workload, struct workload_operation *op, int32_t code,
                         const uint8_t *reply, uint32_t reply_bytes)
{
    char text[WORKLOAD_REPLY_BYTES_MAX + 1];
    if (!workload->kv || !op->has_history) return;
    memcpy(text, reply, reply_bytes);
    text[reply_bytes] = 0;
    op->seen.done = code == 0;
    op->seen.result = code == 0 ? strtoll(text, NULL, 10) : 0;
}

/* --- lines and bytes ------------------------------------------------------------------------------------------ */

static size_t line_fill(struct workload *workload, struct random *r, const char *line, uint32_t number)
{
    size_t used = 0, room = sizeof workload->text - 32;
    while (*line != 0 && used < room) {
        long long first, last;
        int consumed = 0;
        if (strncmp(line, "{id}", 4) == 0) {
            used += (size_t)snprintf(workload->text + used, 32, "%" PRIu32, number);
            line += 4;
        } else if (sscanf(line, "{%lld..%lld}%n", &first, &last, &consumed) == 2 && consumed > 0 && first <= last) {
            uint64_t step = random_between(r, 0, (uint64_t)last - (uint64_t)first);
            used += (size_t)snprintf(workload->text + used, 32, "%lld", first + (long long)step);
            line += consumed;
        } else {
            workload->text[used++] = *line++;
        }
    }
    return used;
}

static void any_make(struct workload *workload, struct random *r, const struct lines *lines, uint32_t number,
                     struct workload_operation *op)
{
    size_t bytes;
    if (lines->count > 0) {
        bytes = line_fill(workload, r, lines->list[random_below(r, lines->count)], number);
    } else {
        bytes = (size_t)random_below(r, BYTES_MAX + 1);
        random_fill(r, workload->text, bytes);
    }
    payload_set(op, workload->text, bytes);
}

static void read_make(struct random *r, struct workload_operation *op)
{
    uint64_t pick = random_below(r, 5);
    op->consistency = pick < 2    ? NODE_LINEARIZABLE
                      : pick == 2 ? NODE_FOLLOWER
                      : pick == 3 ? NODE_BOUNDED_STALE
                                  : NODE_LOCAL;
    if (op->consistency == NODE_BOUNDED_STALE) op->max_staleness_ns = SIM_MS << random_below(r, 14);
    op->has_min_index = random_chance(r, 1, 2);
    if (op->has_min_index && random_chance(r, 1, 8)) op->blocks_ahead = (uint32_t)random_below(r, 4);
}

void workload_make(struct workload *workload, struct random *r, const struct sim_plan *plan, uint32_t number,
                   struct workload_operation *op)
{
    op->query = random_chance(r, plan->query_per_1000, 1000);
    if (!workload->kv && op->query && workload->queries.count == 0 && workload->commands.count > 0) op->query = false;
    if (op->query) read_make(r, op);
    if (workload->kv)
        kv_make(workload, r, plan, number, op);
    else
        any_make(workload, r, op->query ? &workload->queries : &workload->commands, number, op);
}
