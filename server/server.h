/* SPDX-License-Identifier: Apache-2.0 */
/* server.h - one node as a process: what `lockstep serve` runs.
 * Exit codes: 0 stopped by SIGTERM or SIGINT after draining · 1 failed · 2 wrong usage or configuration, nothing was
 * created · 7 damage in the data directory, or copies that differ. */
#ifndef LOCKSTEP_SERVER_SERVER_H
#define LOCKSTEP_SERVER_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "server/node.h"
#include "storage/epoch.h"

enum { SERVER_EXIT_OK = 0, SERVER_EXIT_FAILED = 1, SERVER_EXIT_USAGE = 2, SERVER_EXIT_DAMAGED = 7 };

struct server_options {
    struct node_options node; /* but for plugin, disk and kv, which server_run fills in */
    char machine[4096];       /* a name, or a path; relative ones are relative to base_directory */
    char base_directory[4096];
    char listen_client[NODE_ADDRESS_BYTES_MAX];
    char listen_peer[NODE_ADDRESS_BYTES_MAX];
    uint32_t grpc_message_bytes_max;
    uint32_t connections_max;
    bool shared_memory; /* peers of this host follow through it; not where faults are made */
    uint64_t spin_ns;   /* looks at the shared memory so long before it sleeps; 0 = not at all */
    char faults[4096];  /* rules of the fault filter, or @FILE; "" = no filter. LOCKSTEP_FAULTS, for tests */
};

/* A setting that beats the environment and the file: `--limits.ring 32MiB` is {"limits.ring", "32MiB"}.
 * Keys are those of the file, TABLE.KEY; `cluster`, `machine` and `durability` stand alone. */
struct server_override {
    const char *key, *value;
};

enum { SERVER_WHY_BYTES_MAX = 1024 };

/* Read the configuration of one node: overrides > environment (LOCKSTEP_LIMITS_RING, ...) > file > defaults.
 * path       the file
 * node_name  which [node.NAME] this process is; NULL: LOCKSTEP_NODE, or the only one in the file
 * ret        filled on success; nothing in it points elsewhere
 * why        on error one line for people, `file:line:column: what; what instead`
 * EINVAL: exit 2 · EIO: the file cannot be read, exit 2 · ENOMEM. Allocates while it runs. Before any thread. */
int server_options_read(const char *path, const char *node_name, const struct server_override *overrides,
                        size_t override_count, struct server_options *ret, char why[SERVER_WHY_BYTES_MAX]);

/* What epoch.h needs to know of this node, to begin another epoch with it; views of *options. */
void server_epoch_options(const struct server_options *options, uint64_t cluster_id, uint64_t random_id,
                          struct epoch_options *ret);

/* Run the node until it is stopped or fails. Errors are written to stderr as `lockstep: what: why; what to do`.
 * ret  the exit code of the process */
int server_run(const struct server_options *options);

#endif
