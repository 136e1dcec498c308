/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - see log.h. */
#include "raft/log.h"

#include <string.h>

#include "base/assert.h"

/* The run that holds index; base_index < index <= last_index. */
static uint32_t run_of(const struct raft_log *log, raft_index index)
{
    uint32_t low = 0, high = log->run_count - 1;
    if (log->runs[high].first_index <= index) return high; /* nearly every look-up is near the end */
    while (low < high) {                                   /* last run with first_index <= index */
        uint32_t middle = low + (high - low + 1) / 2;
        if (log->runs[middle].first_index <= index)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

void raft_log_open(struct raft_log *log, const struct raft_start *start)
{
    lk_assert(start->run_count <= RAFT_TERM_RUNS_MAX);
    log->base_index = start->base_index;
    log->base_term = start->base_term;
    log->last_index = start->last_index;
    log->run_count = start->run_count;
    if (start->run_count > 0) memcpy(log->runs, start->runs, start->run_count * sizeof log->runs[0]);
    raft_log_check(log);
}

raft_term raft_log_term_at(const struct raft_log *log, raft_index index)
{
    if (index > log->last_index || index < log->base_index) return 0;
    if (index == log->base_index) return log->base_term;
    return log->runs[run_of(log, index)].term;
}

raft_term raft_log_last_term(const struct raft_log *log)
{
    return log->run_count > 0 ? log->runs[log->run_count - 1].term : log->base_term;
}

bool raft_log_has_room(const struct raft_log *log, raft_term term)
{
    return log->run_count < RAFT_TERM_RUNS_MAX || raft_log_last_term(log) == term;
}

void raft_log_append(struct raft_log *log, raft_term term)
{
    lk_assert(term >= raft_log_last_term(log));
    lk_assert(raft_log_has_room(log, term));
    log->last_index++;
    if (log->run_count == 0 || log->runs[log->run_count - 1].term != term)
        log->runs[log->run_count++] = (struct raft_term_run){.first_index = log->last_index, .term = term};
}

void raft_log_cut(struct raft_log *log, raft_index index)
{
    lk_assert(index > log->base_index);
    lk_assert(index <= log->last_index);
    log->last_index = index - 1;
    while (log->run_count > 0 && log->runs[log->run_count - 1].first_index >= index) log->run_count--;
}

void raft_log_compact(struct raft_log *log, raft_index index)
{
    lk_assert(index >= log->base_index && index <= log->last_index);
    if (index == log->base_index) return;
    uint32_t gone = run_of(log, index); /* runs before that of index, and that one too if it ends there */
    log->base_term = log->runs[gone].term;
    raft_index run_last = gone + 1 < log->run_count ? log->runs[gone + 1].first_index - 1 : log->last_index;
    if (run_last == index)
        gone++;
    else
        log->runs[gone].first_index = index + 1;
    log->base_index = index;
    log->run_count -= gone;
    if (gone > 0) memmove(log->runs, log->runs + gone, log->run_count * sizeof log->runs[0]);
}

void raft_log_reset(struct raft_log *log, raft_index base_index, raft_term base_term)
{
    log->base_index = log->last_index = base_index;
    log->base_term = base_term;
    log->run_count = 0;
}

raft_index raft_log_last_at_or_below(const struct raft_log *log, raft_index from, raft_term term)
{
    if (from > log->last_index) from = log->last_index;
    if (from <= log->base_index) return from; /* terms below the base are not known: the caller sees it is too low */
    for (uint32_t run = run_of(log, from);; run--) {
        if (log->runs[run].term <= term) return from;
        from = log->runs[run].first_index - 1;
        if (run == 0) return from;
    }
}

void raft_log_check(const struct raft_log *log)
{
    lk_assert(log->base_index <= log->last_index);
    lk_assert((log->run_count == 0) == (log->base_index == log->last_index));
    raft_index first = log->base_index;
    raft_term term = log->base_term;
    for (uint32_t i = 0; i < log->run_count; i++) {
        lk_assert(i > 0 ? log->runs[i].first_index > first : log->runs[i].first_index == first + 1);
        /* a base and the block behind it may share a term; two runs never do */
        lk_assert(i > 0 ? log->runs[i].term > term : log->runs[i].term >= term);
        first = log->runs[i].first_index;
        term = log->runs[i].term;
    }
    if (log->run_count > 0) lk_assert(first <= log->last_index);
}
