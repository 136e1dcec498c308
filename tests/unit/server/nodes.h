/* SPDX-License-Identifier: Apache-2.0 */
/* nodes.h - how tests of whole nodes (tests/support/cluster.h) begin, and what they ask of them. */
#ifndef LOCKSTEP_TESTS_UNIT_SERVER_NODES_H
#define LOCKSTEP_TESTS_UNIT_SERVER_NODES_H

#include "tests/support/cluster.h"
#include "tests/support/unit.h"

#define SECOND (1000 * CLUSTER_MS)

/* A cluster all of whose nodes run. */
static inline struct cluster *nodes_start(const struct cluster_options *options)
{
    struct cluster *cluster = cluster_open(options);
    for (unsigned i = 0; i < options->nodes; i++) ck_assert_msg(cluster_start(cluster, i), "%s", cluster_why(cluster));
    return cluster;
}

/* Who leads and takes proposals; waited for. */
static inline unsigned leader_of(struct cluster *cluster)
{
    int leader = cluster_run_until_writable(cluster, 20 * SECOND);
    ck_assert_int_ge(leader, 0);
    return (unsigned)leader;
}

static inline struct node_status status_of(struct cluster *cluster, unsigned i)
{
    static struct node_status status; /* large */
    node_status_read(cluster_node(cluster, i), &status);
    return status;
}

/* `count` commands, a few a millisecond. */
static inline void propose_many(struct cluster *cluster, unsigned node, unsigned count, unsigned at_a_time)
{
    for (unsigned k = 0; k < count; k++) {
        cluster_propose(cluster, node, false);
        if (k % at_a_time == at_a_time - 1) cluster_run(cluster, CLUSTER_MS);
    }
}

#endif
