/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.c - see cluster.h. The configuration that is written is an ordinary one: `lockstep serve --config` on it, by
 * hand, is the same node. */
#include "cli/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/config.h"
#include "cli/cli.h"
#include "statemachine/plugin.h"

enum { PORT_DEFAULT = 7401, PORT_ANY_FIRST = 10000, PORT_ANY_LAST = 14500, NODES_DEFAULT = 3 };

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void cluster_catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) (void)sigaction(numbers[i], &action, NULL);
}

bool cluster_interrupted(void)
{
    sigset_t pending; /* of an owner that blocks them, to read them from a descriptor */
    if (interrupted != 0) return true;
    return sigpending(&pending) == 0 && (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
                                         sigismember(&pending, SIGHUP) == 1);
}

static void text_to(char *to, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void text_to(char *to, size_t room, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(to, room, format, arguments);
    va_end(arguments);
}

#define COMPLAIN(...) text_to(why, CLUSTER_WHY_BYTES_MAX, __VA_ARGS__)

/* --- ports --- */

static bool port_is_free(uint32_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* as the server: TIME_WAIT is no hindrance */
    bool is_free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return is_free;
}

static uint32_t any_ports(uint32_t nodes)
{
    uint32_t span = PORT_ANY_LAST - PORT_ANY_FIRST;
    uint32_t begin = (uint32_t)getpid() * 211 % span; /* two at the same time begin at different places */
    for (uint32_t tried = 0; tried < span; tried += 7) {
        uint32_t port = PORT_ANY_FIRST + (begin + tried) % span;
        uint32_t i = 0;
        while (i < nodes && port_is_free(port + i) && port_is_free(port + CLUSTER_PEER_PORTS + i)) i++;
        if (i == nodes) return port;
    }
    return 0;
}

static int check_ports(const struct cluster *cluster, char why[CLUSTER_WHY_BYTES_MAX])
{
    for (uint32_t i = 0; i < cluster->count; i++) {
        const char *const addresses[] = {cluster->nodes[i].client, cluster->nodes[i].peer};
        for (int k = 0; k < 2; k++) {
            const char *colon = strrchr(addresses[k], ':');
            if (port_is_free((uint32_t)strtoul(colon + 1, NULL, 10))) continue;
            COMPLAIN("%s of %s: the port is in use by another process; %s", addresses[k], cluster->nodes[i].name,
                     cluster->was_there ? "end that process first: it may be this very cluster"
                                        : "choose others with --port");
            return LOCKSTEP_EEXIST;
        }
    }
    return 0;
}

/* --- the file --- */

static void write_quoted(FILE *file, const char *text)
{
    fputc('"', file);
    for (; *text != 0; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

static int write_config(const struct cluster *cluster, const struct cluster_options *options,
                        char why[CLUSTER_WHY_BYTES_MAX])
{
    /* Under another name first: a file that stands there is whole. */
    char path[sizeof cluster->config + 8];
    snprintf(path, sizeof path, "%s.new", cluster->config);
    FILE *file = fopen(path, "we");
    if (file == NULL) goto fail;
    fputs("# The same file for every node: lockstep serve --config THIS --node NAME\ncluster = ", file);
    write_quoted(file, options->name);
    fputs("\nmachine = ", file);
    write_quoted(file, cluster->machine);
    fprintf(file, "\ndurability = \"%s\"\n", options->durability != NULL ? options->durability : "fsync");
    if (options->snapshot_after != NULL)
        fprintf(file, "\n[storage]\nsnapshot_after = \"%s\"\n", options->snapshot_after);
    for (uint32_t i = 0; i < cluster->count; i++) {
        const struct cluster_node *node = &cluster->nodes[i];
        fprintf(file, "\n[node.%s]\nclient = \"%s\"\npeer = \"%s\"\ndata = \"%s\"\n", node->name, node->client,
                node->peer, node->name);
    }
    bool written = ferror(file) == 0;
    if (fclose(file) == 0 && written && rename(path, cluster->config) == 0) return 0;
fail:
    COMPLAIN("%s: cannot be written: %s", path, strerror(errno));
    return LOCKSTEP_EIO;
}

/* A path becomes absolute: the file that it is written into lies elsewhere. */
static int set_machine(struct cluster *cluster, const char *machine, char why[CLUSTER_WHY_BYTES_MAX])
{
    size_t bytes = strlen(machine);
    bool is_path = strchr(machine, '/') != NULL || (bytes > 3 && strcmp(machine + bytes - 3, ".so") == 0);
    if (!is_path) { /* the nodes look for it as this does: better one error now than one from each of them */
        char found[4096];
        snprintf(cluster->machine, sizeof cluster->machine, "%s", machine);
        return plugin_find(machine, ".", found, sizeof found, why, CLUSTER_WHY_BYTES_MAX) == 0 ? 0 : LOCKSTEP_EINVAL;
    }
    char *path = realpath(machine, NULL);
    if (path == NULL) {
        COMPLAIN("machine %s: %s; build it first, or give the name of one that is shipped", machine, strerror(errno));
        return LOCKSTEP_EINVAL;
    }
    snprintf(cluster->machine, sizeof cluster->machine, "%s", path);
    free(path);
    return 0;
}

static void set_node(struct cluster *cluster, uint32_t at, const char *name, const char *client, const char *peer)
{
    struct cluster_node *node = &cluster->nodes[at];
    snprintf(node->name, sizeof node->name, "%s", name);
    snprintf(node->client, sizeof node->client, "%s", client);
    snprintf(node->peer, sizeof node->peer, "%s", peer);
    text_to(node->log, sizeof node->log, "%s/%s.log", cluster->directory, node->name);
}

static int make_config(struct cluster *cluster, const struct cluster_options *options, char why[CLUSTER_WHY_BYTES_MAX])
{
    cluster->count = options->nodes != 0 ? options->nodes : NODES_DEFAULT;
    if (options->durability != NULL && strcmp(options->durability, "fsync") != 0 &&
        strcmp(options->durability, "os") != 0 && strcmp(options->durability, "memory") != 0) {
        COMPLAIN("durability is \"%s\"; write \"fsync\", \"os\" or \"memory\"", options->durability);
        return LOCKSTEP_EINVAL;
    }
    int rc = set_machine(cluster, options->machine != NULL ? options->machine : "kv", why);
    if (rc != 0) return rc;
    uint32_t port = options->port != 0 ? options->port : PORT_DEFAULT;
    if (options->any_port) port = any_ports(cluster->count);
    if (port == 0) {
        COMPLAIN("ports: none are free from %d to %d", PORT_ANY_FIRST, PORT_ANY_LAST);
        return LOCKSTEP_EEXIST;
    }
    for (uint32_t i = 0; i < cluster->count; i++) {
        char name[8], client[32], peer[32];
        snprintf(name, sizeof name, "n%" PRIu32, (i + 1) % 100);
        snprintf(client, sizeof client, "127.0.0.1:%" PRIu32, port + i);
        snprintf(peer, sizeof peer, "127.0.0.1:%" PRIu32, port + CLUSTER_PEER_PORTS + i);
        set_node(cluster, i, name, client, peer);
    }
    rc = check_ports(cluster, why);
    return rc != 0 ? rc : write_config(cluster, options, why);
}

static const char *text_of(const struct config_value *table, const char *key)
{
    const struct config_value *value = table != NULL ? config_find(table, key) : NULL;
    return value != NULL && value->type == CONFIG_STRING ? value->as.string.text : NULL;
}

/* Take the nodes from the file that is there. What else it says is `serve`'s business. */
static int read_nodes(struct cluster *cluster, const struct config *config, char why[CLUSTER_WHY_BYTES_MAX])
{
    const struct config_value *nodes = config_find(config_root(config), "node");
    const char *machine = text_of(config_root(config), "machine");
    snprintf(cluster->machine, sizeof cluster->machine, "%s", machine != NULL ? machine : "");
    const struct config_value *node = nodes != NULL && nodes->type == CONFIG_TABLE ? nodes->as.children.first : NULL;
    for (; node != NULL && cluster->count < CLUSTER_NODES_MAX; node = node->next) {
        const char *client = node->type == CONFIG_TABLE ? text_of(node, "client") : NULL;
        const char *peer = node->type == CONFIG_TABLE ? text_of(node, "peer") : NULL;
        if (client == NULL || peer == NULL || strlen(node->key) >= sizeof cluster->nodes[0].name ||
            strchr(client, ':') == NULL || strchr(peer, ':') == NULL) {
            COMPLAIN("%s: node '%.60s' is not one that 'local' made; start it with 'serve'", cluster->config,
                     node->key);
            return LOCKSTEP_EINVAL;
        }
        set_node(cluster, cluster->count++, node->key, client, peer);
    }
    if (cluster->count > 0) return 0;
    COMPLAIN("%s: names no nodes; give another directory", cluster->config);
    return LOCKSTEP_EINVAL;
}

static int check_agrees(const struct cluster *cluster, const struct cluster_options *options,
                        char why[CLUSTER_WHY_BYTES_MAX])
{
    if (options->nodes != 0 && options->nodes != cluster->count) {
        COMPLAIN("%s has %" PRIu32 " nodes, --nodes says %" PRIu32 "; leave the flag away, or give another directory",
                 cluster->directory, cluster->count, options->nodes);
        return LOCKSTEP_EINVAL;
    }
    char first[32];
    snprintf(first, sizeof first, "127.0.0.1:%" PRIu32, options->port);
    if (options->port != 0 && strcmp(first, cluster->nodes[0].client) != 0) {
        COMPLAIN("%s begins at %s, --port says %" PRIu32 "; leave the flag away, or give another directory",
                 cluster->directory, cluster->nodes[0].client, options->port);
        return LOCKSTEP_EINVAL;
    }
    if (options->machine == NULL) return 0;
    static struct cluster asked; /* for its room */
    int rc = set_machine(&asked, options->machine, why);
    if (rc != 0) return rc;
    if (strcmp(asked.machine, cluster->machine) == 0) return 0;
    COMPLAIN("%s runs the machine %.200s, --machine says %.200s; leave the flag away, or give another directory",
             cluster->directory, cluster->machine, asked.machine);
    return LOCKSTEP_EINVAL;
}

int cluster_open(const struct cluster_options *options, struct cluster *ret, char why[CLUSTER_WHY_BYTES_MAX])
{
    memset(ret, 0, sizeof *ret);
    bool made = mkdir(options->directory, 0777) == 0;
    if (!made && errno != EEXIST) {
        COMPLAIN("directory %s: %s; name another one with --dir", options->directory, strerror(errno));
        return LOCKSTEP_EINVAL;
    }
    snprintf(ret->directory, sizeof ret->directory, "%.4000s", options->directory);
    text_to(ret->config, sizeof ret->config, "%s/lockstep.toml", ret->directory);
    ret->was_there = access(ret->config, F_OK) == 0;
    int rc;
    if (ret->was_there) {
        struct config *config;
        struct config_error error;
        rc = config_read(ret->config, &config, &error);
        if (rc != 0) {
            COMPLAIN("%s", error.text);
            return LOCKSTEP_EINVAL;
        }
        rc = read_nodes(ret, config, why);
        config_close(config);
        if (rc == 0) rc = check_agrees(ret, options, why);
        if (rc == 0) rc = check_ports(ret, why);
    } else {
        rc = make_config(ret, options, why);
    }
    char *at = ret->endpoints; /* has room for all of them */
    for (uint32_t i = 0; rc == 0 && i < ret->count; i++) {
        if (i > 0) *at++ = ',';
        at = stpcpy(at, ret->nodes[i].client);
    }
    if (rc != 0 && made) rmdir(options->directory); /* an error leaves no trace */
    return rc;
}

/* --- processes --- */

static void become_node(const struct cluster *cluster, const struct cluster_node *node, pid_t parent)
{
    char program[4096];
    ssize_t bytes = readlink("/proc/self/exe", program, sizeof program - 1);
    if (bytes <= 0) _exit(127);
    program[bytes] = 0;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);    /* certain; a node is made to survive it */
    if (getppid() != parent) _exit(127); /* it died before the line above */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int in = open("/dev/null", O_RDONLY), out = open(node->log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (in < 0 || out < 0) _exit(127);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    if (in > 2) close(in);
    if (out > 2) close(out);
    execl(program, "lockstep", "serve", "--config", cluster->config, "--node", node->name, (char *)NULL);
    dprintf(2, "lockstep: %s: cannot be run: %s; was it replaced since 'local' began?\n", program, strerror(errno));
    _exit(127);
}

int cluster_start(struct cluster *cluster, uint32_t at)
{
    struct cluster_node *node = &cluster->nodes[at];
    lk_assert(node->pid == 0);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) return LOCKSTEP_EIO;
    if (pid == 0) become_node(cluster, node, parent);
    node->pid = pid;
    node->lives++;
    node->started_ns = cli_now_ns();
    return 0;
}

static void ended(struct cluster_node *node, int status)
{
    node->pid = 0;
    node->ended_ns = cli_now_ns();
    node->exit_code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int cluster_reap(struct cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->count; i++) {
        struct cluster_node *node = &cluster->nodes[i];
        int status;
        if (node->pid == 0 || waitpid(node->pid, &status, WNOHANG) != node->pid) continue;
        ended(node, status);
        return (int)i;
    }
    return -1;
}

void cluster_kill(struct cluster *cluster, uint32_t at)
{
    struct cluster_node *node = &cluster->nodes[at];
    int status;
    if (node->pid == 0) return;
    kill(node->pid, SIGKILL);
    while (waitpid(node->pid, &status, 0) < 0 && errno == EINTR) {
    }
    ended(node, status);
}

int cluster_stop(struct cluster *cluster, int which, uint32_t timeout_ms)
{
    uint64_t until_ns = cli_now_ns() + timeout_ms * 1000000ull;
    int rc = 0;
    bool told[CLUSTER_NODES_MAX] = {false};
    for (uint32_t i = 0; i < cluster->count; i++) {
        if (cluster->nodes[i].pid == 0 || (which >= 0 && (int)i != which)) continue;
        kill(cluster->nodes[i].pid, SIGTERM);
        told[i] = true;
    }
    for (uint32_t i = 0; i < cluster->count; i++) {
        struct cluster_node *node = &cluster->nodes[i];
        if (!told[i]) continue;
        int status;
        while (node->pid != 0) {
            if (waitpid(node->pid, &status, WNOHANG) == node->pid) {
                ended(node, status);
                if (node->exit_code != 0 && rc == 0) rc = LOCKSTEP_EIO;
            } else if (cli_now_ns() > until_ns) {
                cluster_kill(cluster, i);
                rc = LOCKSTEP_ETIMEDOUT;
            } else {
                (void)poll(NULL, 0, 5);
            }
        }
    }
    return rc;
}

int cluster_find(const struct cluster *cluster, const char *name_or_client)
{
    for (uint32_t i = 0; i < cluster->count; i++)
        if (strcmp(cluster->nodes[i].name, name_or_client) == 0 ||
            strcmp(cluster->nodes[i].client, name_or_client) == 0)
            return (int)i;
    return -1;
}

void cluster_last_words(const struct cluster *cluster, uint32_t node, char *ret, size_t room)
{
    char tail[2048];
    ssize_t bytes = 0;
    int fd = open(cluster->nodes[node].log, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        off_t size = lseek(fd, 0, SEEK_END);
        bytes = pread(fd, tail, sizeof tail - 1, size > (off_t)sizeof tail ? size - (off_t)sizeof tail + 1 : 0);
        close(fd);
    }
    if (bytes < 0) bytes = 0;
    while (bytes > 0 && tail[bytes - 1] == '\n') bytes--;
    tail[bytes] = 0;
    char *newline = strrchr(tail, '\n');
    snprintf(ret, room, "%s", newline != NULL ? newline + 1 : tail);
}

/* --- is it writable? --- */

struct writable {
    struct cluster *cluster;
    int leader;
};

static void status_came(void *context, const struct lockstep_result *result, const struct lockstep_status *status)
{
    struct writable *writable = context;
    if (result->error != 0 || strcmp(status->role, "leader") != 0) return;
    /* A leader's last block is at least the first one of its term. */
    if (status->last_index == 0 || status->commit_index < status->last_index) return;
    writable->leader = cluster_find(writable->cluster, status->name);
}

/* Each node by itself: a client with all endpoints would ask only one of them. */
static int ask_all(struct cluster *cluster, struct lockstep_client **clients)
{
    struct writable writable = {.cluster = cluster, .leader = -1};
    for (uint32_t i = 0; i < cluster->count; i++) {
        if (clients[i] == NULL) {
            struct lockstep_client_options options = {.size = sizeof options, .endpoints = cluster->nodes[i].client};
            if (lockstep_client_open(&options, &clients[i], NULL, 0) != 0) continue;
        }
        if (lockstep_status(clients[i], 300, status_came, &writable) != 0) continue;
        while (lockstep_client_running(clients[i]) > 0)
            if (lockstep_client_poll(clients[i], -1) != 0) break;
    }
    return writable.leader;
}

int cluster_wait_writable(struct cluster *cluster, uint32_t timeout_ms, uint32_t *ret_leader,
                          char why[CLUSTER_WHY_BYTES_MAX])
{
    struct lockstep_client *clients[CLUSTER_NODES_MAX] = {NULL};
    uint64_t until_ns = cli_now_ns() + timeout_ms * 1000000ull;
    int rc = LOCKSTEP_ETIMEDOUT;
    COMPLAIN("no leader within %" PRIu32 " s; the nodes' logs are in %s", timeout_ms / 1000, cluster->directory);
    while (rc == LOCKSTEP_ETIMEDOUT && cli_now_ns() < until_ns && !cluster_interrupted()) {
        int gone = cluster_reap(cluster);
        if (gone >= 0) {
            char words[600];
            cluster_last_words(cluster, (uint32_t)gone, words, sizeof words);
            COMPLAIN("%s ended with exit code %d: %s", cluster->nodes[gone].name, cluster->nodes[gone].exit_code,
                     words);
            rc = LOCKSTEP_EIO;
            break;
        }
        int leader = ask_all(cluster, clients);
        if (leader >= 0) {
            *ret_leader = (uint32_t)leader;
            rc = 0;
        } else {
            (void)poll(NULL, 0, 10);
        }
    }
    for (uint32_t i = 0; i < cluster->count; i++) lockstep_client_close(clients[i]);
    return rc;
}

/* --- what it costs --- */

/* The number behind `field` of /proc/PID/FILE, as the format finds it. */
static uint64_t cpu_ticks(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[bytes] = 0;
    const char *at = strrchr(text, ')'); /* the name may hold anything */
    uint64_t user = 0, system = 0;
    if (at == NULL ||
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user, &system) != 2)
        return 0;
    return user + system;
}

uint64_t cluster_cpu_ns(const struct cluster *cluster)
{
    uint64_t ticks = 0;
    for (uint32_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i].pid != 0) ticks += cpu_ticks(cluster->nodes[i].pid);
    return ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

uint64_t cluster_resident_bytes(const struct cluster *cluster)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < cluster->count; i++) {
        if (cluster->nodes[i].pid == 0) continue;
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/statm", (int)cluster->nodes[i].pid);
        FILE *file = fopen(path, "re");
        uint64_t pages = 0;
        if (file == NULL) continue;
        if (fscanf(file, "%*u %" SCNu64, &pages) == 1) bytes += pages * (uint64_t)sysconf(_SC_PAGESIZE);
        fclose(file);
    }
    return bytes;
}

/* --- temporary directories --- */

int cluster_temporary(const char *parent, const char *what, char *ret, size_t room, char why[CLUSTER_WHY_BYTES_MAX])
{
    if (parent == NULL) parent = getenv("TMPDIR");
    if (parent == NULL || parent[0] == 0) parent = "/var/tmp";
    snprintf(ret, room, "%.3900s/lockstep-%s-XXXXXX", parent, what);
    if (mkdtemp(ret) != NULL) return 0;
    COMPLAIN("directory %s: %s; name another one with --dir", ret, strerror(errno));
    return LOCKSTEP_EIO;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    (void)remove(path);
    return 0;
}

void cluster_remove(const char *directory)
{
    lk_assert(strstr(directory, "/lockstep-") != NULL);
    (void)nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
