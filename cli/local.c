/* SPDX-License-Identifier: Apache-2.0 */
/* local.c - `lockstep local`: a cluster of real processes on this host, in the foreground.
 * Thread: main. A node that ends is started again after 2 s, unless it says that starting it is of no use (exit 2 or 7).
 * Ctrl-C and SIGTERM: every node gets SIGTERM and time to end in order. */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/output.h"

enum { LOCAL_WRITABLE_MS = 30000, LOCAL_STOP_MS = 12000 };

enum { NODES, DIR, MACHINE, PORT, DURABILITY, NO_RESTART };
static const struct cli_flag flags[] = {
    [NODES] = {"nodes", "N", "how many, 1 to 16; 3 if not given"},
    [DIR] = {"dir", "DIR", "where data and logs live; ./lockstep-data if not given"},
    [MACHINE] = {"machine", "NAME|FILE.so", "the state machine; kv if not given"},
    [PORT] = {"port", "BASE", "the first client port; 7401 if not given. Peers are 100 above"},
    [DURABILITY] = {"durability", "LEVEL",
                    "fsync; os: not flushed, a host that goes down loses it; memory: a process does"},
    [NO_RESTART] = {"no-restart", NULL, "leave a dead node dead"},
    {NULL, NULL, NULL},
};

static void event(const struct cli *cli, const char *what, const struct cluster_node *node)
{
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_text(&json, "event", what);
    json_text(&json, "node", node->name);
    if (node->pid != 0) {
        json_number(&json, "pid", (uint64_t)node->pid);
        json_text(&json, "client", node->client);
        json_text(&json, "peer", node->peer);
        json_text(&json, "log", node->log);
    } else {
        json_signed(&json, "exit_code", node->exit_code);
    }
    json_end(&json);
    (void)cli;
}

static int start(const struct cli *cli, struct cluster *cluster, uint32_t at)
{
    int rc = cluster_start(cluster, at);
    struct cluster_node *node = &cluster->nodes[at];
    if (rc != 0) return cli_fail(cli, EXIT_FAILED, node->name, "", "cannot be started: %s", lockstep_error_text(rc));
    if (cli->json)
        event(cli, "started", node);
    else
        printf("  %-4s %-16s pid %-8d log %s\n", node->name, node->client, (int)node->pid, node->log);
    return EXIT_OK;
}

static void print_ready(const struct cli *cli, const struct cluster *cluster, uint32_t leader, uint64_t took_ns)
{
    if (cli->json) {
        struct json json = json_to(stdout);
        json_object(&json, NULL);
        json_text(&json, "event", "writable");
        json_text(&json, "leader", cluster->nodes[leader].name);
        json_text(&json, "endpoints", cluster->endpoints);
        json_decimal(&json, "seconds", (double)took_ns / 1e9, 3);
        json_end(&json);
        return;
    }
    printf("writable after %s: %s leads\n\nTry, in another terminal:\n", show_duration(took_ns),
           cluster->nodes[leader].name);
    if (strcmp(cluster->nodes[0].client, "127.0.0.1:7401") != 0)
        printf("  export LOCKSTEP_ENDPOINTS=%s\n", cluster->endpoints);
    printf("  %s status\n", cli->program);
    if (strcmp(cluster->machine, "kv") == 0)
        printf("  %s propose put colour blue\n  %s query get colour\n", cli->program, cli->program);
    printf("  kill -9 %d        # %s leads: another one takes over\n", (int)cluster->nodes[leader].pid,
           cluster->nodes[leader].name);
    printf("Ctrl-C stops all nodes; the data stay in %s\n", cluster->directory);
    fflush(stdout);
}

static void print_end(const struct cli *cli, const struct cluster *cluster, uint32_t at, const char *next)
{
    const struct cluster_node *node = &cluster->nodes[at];
    if (cli->json) {
        event(cli, "ended", node);
        return;
    }
    char words[512];
    cluster_last_words(cluster, at, words, sizeof words);
    if (node->exit_code < 0)
        printf("%s was ended by signal %d%s\n", node->name, -node->exit_code, next);
    else
        printf("%s ended with exit code %d%s: %s\n", node->name, node->exit_code, next, words);
    fflush(stdout);
}

/* Starting it again would end the same way: its file or its data have to be looked at. */
static bool is_hopeless(const struct cluster_node *node)
{
    return node->exit_code == EXIT_USAGE || node->exit_code == EXIT_DIVERGED;
}

static int watch(const struct cli *cli, struct cluster *cluster, int signals)
{
    bool restart = cli->values[NO_RESTART] == NULL;
    bool is_due[CLUSTER_NODES_MAX] = {false}; /* to be started again */
    for (;;) {
        struct pollfd fd = {.fd = signals, .events = POLLIN};
        (void)poll(&fd, 1, 100);
        struct signalfd_siginfo info;
        while (read(signals, &info, sizeof info) == (ssize_t)sizeof info)
            if (info.ssi_signo != SIGCHLD) return EXIT_OK;
        for (int gone = cluster_reap(cluster); gone >= 0; gone = cluster_reap(cluster)) {
            /* What ended in order was told to: by somebody, or because it was removed from the cluster. */
            bool in_order = cluster->nodes[gone].exit_code == EXIT_OK;
            is_due[gone] = restart && !in_order && !is_hopeless(&cluster->nodes[gone]);
            print_end(cli, cluster, (uint32_t)gone, is_due[gone] ? ", starts again in 2 s" : ", stays down");
        }
        uint32_t alive = 0;
        for (uint32_t i = 0; i < cluster->count; i++) {
            if (is_due[i] && cli_now_ns() >= cluster->nodes[i].ended_ns + CLUSTER_RESTART_MS * 1000000ull) {
                is_due[i] = false;
                int rc = start(cli, cluster, i);
                if (rc != EXIT_OK) return rc;
                fflush(stdout);
            }
            if (is_due[i] || cluster->nodes[i].pid != 0) alive++;
        }
        if (alive == 0) return cli_fail(cli, EXIT_FAILED, "local", "their logs say why", "no node runs any more");
    }
}

/* A node that says that its file or its data are at fault says it for the whole cluster. */
static int exit_of(const struct cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i].pid == 0 && is_hopeless(&cluster->nodes[i])) return cluster->nodes[i].exit_code;
    return EXIT_FAILED;
}

static int run_cluster(const struct cli *cli, struct cluster *cluster, int signals)
{
    if (!cli->json)
        printf("%" PRIu32 " %s on this host, machine %s, in %s%s\n", cluster->count,
               cluster->count == 1 ? "node" : "nodes", cluster->machine, cluster->directory,
               cluster->was_there ? ", going on with the data that are there" : "");
    for (uint32_t i = 0; i < cluster->count; i++) {
        int rc = start(cli, cluster, i);
        if (rc != EXIT_OK) return rc;
    }
    fflush(stdout);
    uint64_t began_ns = cli_now_ns();
    char why[CLUSTER_WHY_BYTES_MAX];
    uint32_t leader;
    int rc = cluster_wait_writable(cluster, LOCAL_WRITABLE_MS, &leader, why);
    if (rc == LOCKSTEP_ETIMEDOUT && cluster_interrupted()) return EXIT_OK;
    if (rc == LOCKSTEP_EIO) return cli_fail(cli, exit_of(cluster), "local", "", "%s", why);
    if (rc != 0) return cli_fail(cli, EXIT_NOT_READY, "local", "", "%s", why);
    print_ready(cli, cluster, leader, cli_now_ns() - began_ns);
    return watch(cli, cluster, signals);
}

static int local_run(struct cli *cli)
{
    uint64_t nodes = 0, port = 0;
    int rc = cli_number(cli, NODES, 1, CLUSTER_NODES_MAX, &nodes);
    if (rc == EXIT_OK) rc = cli_number(cli, PORT, 1024, 65535 - CLUSTER_PEER_PORTS - CLUSTER_NODES_MAX, &port);
    if (rc != EXIT_OK) return rc;
    struct cluster_options options = {
        .directory = cli->values[DIR] != NULL ? cli->values[DIR] : "./lockstep-data",
        .name = "local",
        .nodes = (uint32_t)nodes,
        .machine = cli->values[MACHINE],
        .durability = cli->values[DURABILITY],
        .port = (uint32_t)port,
    };
    static struct cluster cluster; /* large */
    char why[CLUSTER_WHY_BYTES_MAX];
    rc = cluster_open(&options, &cluster, why);
    if (rc == LOCKSTEP_EINVAL || rc == LOCKSTEP_EEXIST) return cli_fail(cli, EXIT_USAGE, "local", "", "%s", why);
    if (rc != 0) return cli_fail(cli, EXIT_FAILED, "local", "", "%s", why);

    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals < 0) return cli_fail(cli, EXIT_FAILED, "local", "", "signalfd refused");
    rc = run_cluster(cli, &cluster, signals);
    if (!cli->json) printf("stopping %s\n", cluster.count == 1 ? "the node" : "all nodes");
    fflush(stdout);
    int stopped = cluster_stop(&cluster, -1, LOCAL_STOP_MS);
    close(signals);
    if (rc == EXIT_OK && stopped == LOCKSTEP_ETIMEDOUT)
        rc = cli_fail(cli, EXIT_FAILED, "local", "look into the logs", "a node did not stop in time and was killed");
    return rc;
}

const struct command command_local = {
    .name = "local",
    .words = "",
    .text = "a cluster of real processes on this host, to try things",
    .details =
        "Goes on with the data of an existing directory. A node that dies is started again after 2 s; all die with\n"
        "this process. The directory's lockstep.toml is an ordinary one.\n"
        "Exit: 2 where a port is in use, or the directory has another cluster than the flags say.\n",
    .flags = flags,
    .run = local_run,
};
