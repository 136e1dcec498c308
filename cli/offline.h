/* SPDX-License-Identifier: Apache-2.0 */
/* offline.h - what the commands share that look at a data directory while its node is stopped.
 * Thread: main. Nothing in the directory is written. */
#ifndef LOCKSTEP_CLI_OFFLINE_H
#define LOCKSTEP_CLI_OFFLINE_H

#include "cli/cli.h"
#include "cli/output.h"
#include "server/server.h"
#include "storage/epoch.h"
#include "storage/inspect.h"

#define OFFLINE_JOURNAL_FLAG                                                                                           \
    {                                                                                                                  \
        "journal", "DIR", "the folder of its journal, if the configuration names a journal_dir"                        \
    }
#define OFFLINE_DETAILS                                                                                                \
    "DIR is a node's data directory; the node is stopped. Nothing in it is written.\n"                                 \
    "Exit: 5 in use by a running node, 7 damaged, with each place; 1 of a newer version, or it cannot be read.\n"

/* Open a data directory; the journal is in it if journal is NULL. ret  EXIT_OK, or the exit code with the error written */
int offline_open(const struct cli *cli, const char *directory, const char *journal, struct inspection **ret);
/* The exit code that belongs to an error of storage/. */
int offline_exit_of(int error);
/* Errors come here once they have no better sentence. */
int offline_fail(const struct cli *cli, int error, const char *why);

/* What is wrong: lines on standard error for people, an array for programs.
 * about  files whose names begin so alone; NULL = all
 * ret  the exit code, EXIT_OK if there is none */
int offline_findings(const struct cli *cli, const struct inspection *inspection, const char *about, struct json *json);

/* The epoch that a command begins on the node that --config and --node name: sizes and addresses from its file, ids drawn.
 * options: what epoch.h takes; it points into *ret_server. ret  EXIT_OK, or the exit code with the error written */
int offline_epoch(const struct cli *cli, const char *config, const char *node, struct server_options *ret_server,
                  struct epoch_options *ret);
/* What has to be done next: the node is started, the others are admitted. */
void offline_epoch_next(const struct cli *cli, struct json *json, const struct server_options *server,
                        const char *config);

/* Names for what stands in files as a number. */
const char *offline_level_name(uint32_t level);
const char *offline_role_name(uint8_t role);
const char *offline_block_type_name(uint16_t type);
/* A time of the log, as UTC; the next of a few static buffers. */
const char *offline_time(uint64_t time_ns);

#endif
