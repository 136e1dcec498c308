/* SPDX-License-Identifier: Apache-2.0 */
/* log_reader.h - every command in the log of a stopped node, in order, with its position. Thread: main.
 * The directory is opened as the node itself opens it: its lock is taken, its journal recovered, every block checked.
 * Why offline: a running node can only be asked for its state; what stands where in its log is on its disk. */
#ifndef LOCKSTEP_CLI_LOG_READER_H
#define LOCKSTEP_CLI_LOG_READER_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/block.h"

struct log_extent {
    raft_index first, last, commit; /* blocks */
    uint64_t blocks, commands;
};

/* config, node_name  as for `lockstep serve`
 * command  called for each; false ends the reading
 * why      on error a sentence for people
 * Errors   as storage_open; ELOCKED: the node runs. */
int log_read(const char *config, const char *node_name, bool (*command)(void *context, const struct command_view *view),
             void *context, struct log_extent *ret, char *why, size_t why_room);

#endif
