/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.h - a cluster of real `lockstep serve` processes on this host: made, started, watched, stopped.
 * Used by local, bench and demo. Thread: main. Owns: the children. They die with this process, however it ends (the
 * kernel kills them), and each is in a process group of its own, so that Ctrl-C reaches this process alone. */
#ifndef LOCKSTEP_CLI_CLUSTER_H
#define LOCKSTEP_CLI_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lockstep/client.h"

enum { CLUSTER_NODES_MAX = 16, CLUSTER_PEER_PORTS = 100, CLUSTER_RESTART_MS = 2000, CLUSTER_WHY_BYTES_MAX = 1024 };

struct cluster_options {
    const char *directory;      /* made if it is missing; its parent is not */
    const char *name;           /* of the cluster */
    uint32_t nodes;             /* 0 = not said: 3, or what the directory has */
    const char *machine;        /* NULL = not said: kv, or what the directory has */
    const char *durability;     /* NULL = fsync */
    const char *snapshot_after; /* as in the configuration; NULL = not said */
    uint32_t port;       /* first client port, peers CLUSTER_PEER_PORTS above. 0 = not said: 7401, or what is there */
    bool any_port;       /* with a new directory: ports that are free */
    const char *program; /* this program, for messages */
};

struct cluster_node {
    char name[8];
    char client[32], peer[32];
    char log[4096]; /* the file of its log lines */
    pid_t pid;      /* 0 = does not run */
    int exit_code;  /* of its last life; negative: the signal that ended it */
    uint64_t started_ns, ended_ns;
    uint32_t lives;
};

struct cluster {
    char directory[4096];
    char config[4200];
    char machine[4096];
    bool was_there; /* the directory had a cluster already */
    uint32_t count;
    struct cluster_node nodes[CLUSTER_NODES_MAX];
    char endpoints[CLUSTER_NODES_MAX * 32]; /* for a client */
};

/* Make the directory and its lockstep.toml, or read the one that is there; check that the ports are free. Starts
 * nothing.
 * why     on error `what: why; what to do`
 * EINVAL: what was said does not agree with what is there, or makes no sense · EEXIST: a port is in use · EIO, ENOMEM */
int cluster_open(const struct cluster_options *options, struct cluster *ret, char why[CLUSTER_WHY_BYTES_MAX]);

/* Start a node that does not run. LOCKSTEP_EIO: fork or exec refused */
int cluster_start(struct cluster *cluster, uint32_t node);

/* Notice children that ended. ret  the number of a node that has ended since the last call, or -1 */
int cluster_reap(struct cluster *cluster);

/* kill -9, and wait for its end. */
void cluster_kill(struct cluster *cluster, uint32_t node);

/* SIGTERM to one, or to all (-1), then wait until they have ended; after timeout_ms SIGKILL.
 * ret  0; LOCKSTEP_ETIMEDOUT: one had to be killed; LOCKSTEP_EIO: one ended with another exit code than 0 */
int cluster_stop(struct cluster *cluster, int node, uint32_t timeout_ms);

/* Poll until a leader has committed a block of its own term: then commands are taken.
 * ret_leader  its number
 * ETIMEDOUT · EIO: a node ended meanwhile; why has its last words */
int cluster_wait_writable(struct cluster *cluster, uint32_t timeout_ms, uint32_t *ret_leader,
                          char why[CLUSTER_WHY_BYTES_MAX]);

/* The number of the node with this name or client address; -1 = none. */
int cluster_find(const struct cluster *cluster, const char *name_or_client);

/* The last line of its log. */
void cluster_last_words(const struct cluster *cluster, uint32_t node, char *ret, size_t room);

/* Processor time of all nodes that run, since each began, and their resident memory now. From /proc. */
uint64_t cluster_cpu_ns(const struct cluster *cluster);
uint64_t cluster_resident_bytes(const struct cluster *cluster);

/* A new directory under `parent` (NULL: $TMPDIR, else /var/tmp, which survives a boot and so is rarely in memory).
 * ret  0, EIO */
int cluster_temporary(const char *parent, const char *what, char *ret, size_t room, char why[CLUSTER_WHY_BYTES_MAX]);
/* Remove the directory and all that is in it. Only for one made by cluster_temporary(). */
void cluster_remove(const char *directory);

/* From now on SIGINT, SIGTERM and SIGHUP only make cluster_interrupted() true, so that the owner can clean up. */
void cluster_catch_signals(void);
bool cluster_interrupted(void);

#endif
