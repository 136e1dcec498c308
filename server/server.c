/* SPDX-License-Identifier: Apache-2.0 */
/* server.c - one node as a process: everything that the node knows only as doors, opened around it and closed again.
 * Thread: the loop's, which is the process's first.
 *
 *   log -> machine -> loop -> client port -> node -> peer port (-> fault filter | shared memory) -> threads -> turns
 *
 * Start: an error is one line on stderr, `lockstep: what: why; what to do`, and everything opened is closed again.
 * Stop (SIGTERM, SIGINT): the node hands leadership over and lets what is appended finish, the front answers it; then
 * everything is closed in reverse order and the process exits 0. A second signal, or STOP_MS, ends the waiting.
 * Recover (a client's call): the same stop; then the storage is made another cluster's, with this node alone (epoch.h),
 * and everything is opened again. The process stays what it is: at level memory the member lives on by that.
 * Failure of a running node (R8, damage, FATAL): the reason goes to the log and the process ends at once, without
 * closing: a thread may stand in a flush that never returns, and nothing that is not durable was promised. */
#include "server/server.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "server/front.h"
#include "server/loop.h"
#include "transport/fault.h"
#include "transport/local.h"
#include "transport/local_unix.h"
#include "transport/tcp.h"

enum { STOP_MS = 8000, FILES_BESIDES_CONNECTIONS = 256 };

struct server {
    struct server_options options; /* a copy: plugin, disk and kv are filled in */
    struct plugin plugin;
    struct log *log;
    struct loop *loop;
    struct front *front;
    struct node *node;
    struct transport *transport;
    struct threads *threads;
    bool journal_folder_made; /* by this start */
    bool stopping, signalled;
    uint64_t stop_deadline_ns;
    uint64_t recover_id; /* the cluster's, after a stop that was begun for it; 0 = none was */
};

/* --- signals and limits of the process --- */

/* Memory that is mapped from a file went away under a reader: nothing can go on, and it must not look like a bug. */
static void on_bus_error(int number)
{
    static const char text[] =
        "lockstep: a mapped file could not be read (SIGBUS): it was truncated by somebody, or its disk failed; look at "
        "the kernel's log and the data directory, then start again\n";
    (void)number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(SERVER_EXIT_DAMAGED);
}

static void process_prepare(uint32_t connections)
{
    const struct sigaction bus = {.sa_handler = on_bus_error, .sa_flags = (int)SA_RESETHAND};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGBUS, &bus, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    rlim_t wanted = connections + FILES_BESIDES_CONNECTIONS;
    if (files.rlim_cur >= wanted) return;
    files.rlim_cur = wanted < files.rlim_max ? wanted : files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files); /* with fewer the front refuses earlier: no error */
}

/* --- turns --- */

static int exit_of(int error)
{
    switch (error) {
    case 0: return SERVER_EXIT_OK;
    case LOCKSTEP_EINVAL: return SERVER_EXIT_USAGE;
    case LOCKSTEP_ECORRUPT: return SERVER_EXIT_DAMAGED;
    default: return SERVER_EXIT_FAILED;
    }
}

_Noreturn static void end_failed(struct server *server, int error, const char *why)
{
    log_format(server->log, NODE_LOG_ERROR, "server", "the node ends: %s", why);
    log_close(server->log);
    /* EINVAL is no usage error once the node runs: the machine said FATAL. */
    _exit(error == LOCKSTEP_ECORRUPT ? SERVER_EXIT_DAMAGED : SERVER_EXIT_FAILED);
}

static void stop_begin(struct server *server, const char *why)
{
    const struct node_env *env = loop_env(server->loop);
    log_format(server->log, NODE_LOG_INFO, "server", "stopping: %s", why);
    server->stopping = true;
    server->stop_deadline_ns = env->now_ns(env->context) + STOP_MS * UINT64_C(1000000);
    node_stop(server->node);
    front_stop(server->front);
}

static uint64_t turn(void *context)
{
    struct server *server = context;
    const char *why = NULL;
    node_drain(server->node);
    front_flush(server->front);
    int failed = node_failed(server->node, &why);
    if (failed != 0) end_failed(server, failed, why);
    uint64_t deadline = node_deadline_ns(server->node);
    if (!server->stopping && node_removed(server->node)) {
        log_line(server->log, NODE_LOG_WARN, "server",
                 "this node was removed from its cluster and has nothing to do any "
                 "more: its data directory may be deleted");
        stop_begin(server, "removed");
    }
    if (!server->stopping && server->recover_id != 0)
        stop_begin(server, "the node goes on alone, as another cluster; what is appended finishes");
    if (!server->stopping) return deadline;
    const struct node_env *env = loop_env(server->loop);
    bool late = env->now_ns(env->context) >= server->stop_deadline_ns;
    if (late) log_line(server->log, NODE_LOG_WARN, "server", "not everything finished in time: stopping anyway");
    if (late || (node_drained(server->node) && front_drained(server->front))) loop_end(server->loop);
    return deadline < server->stop_deadline_ns ? deadline : server->stop_deadline_ns;
}

static void stop(void *context, unsigned count)
{
    struct server *server = context;
    const struct node_env *env = loop_env(server->loop);
    server->signalled = true;
    if (count > 1) {
        log_line(server->log, NODE_LOG_WARN, "server", "second signal: stopping at once");
        server->stop_deadline_ns = env->now_ns(env->context);
        return;
    }
    if (!server->stopping) stop_begin(server, "handing leadership over, finishing what is appended");
}

static uint64_t begin_recover(void *context)
{
    struct server *server = context;
    const struct node_env *env = loop_env(server->loop);
    if (server->recover_id == 0) server->recover_id = env->random(env->context);
    return server->recover_id;
}

static uint64_t work(void *context, enum node_part part)
{
    return node_work(context, part);
}

static void report_transport(void *context, const char *text)
{
    log_line(context, NODE_LOG_WARN, "transport", text);
}

static void front_log(void *context, enum node_log_level level, const char *part, const char *text)
{
    log_line(context, level, part, text);
}

/* --- opening, each with the sentence that people see --- */

static int folder_make(const char *what, const char *path, char *why, size_t why_room)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST) return 0;
    (void)snprintf(why, why_room, "%s %.800s: cannot be made: %s; make the folder above it", what, path,
                   strerror(errno));
    return LOCKSTEP_EIO;
}

static int machine_open(struct server *server, char *why, size_t why_room)
{
    const struct server_options *o = &server->options;
    const char *data = o->node.data_directory;
    char path[4096], copies[4096 + 16];
    int rc = plugin_find(o->machine, o->base_directory, path, sizeof path, why, why_room);
    if (rc != 0) return rc;
    rc = folder_make("data directory", data, why, why_room);
    if (rc == 0 && o->node.journal_directory[0] != 0) {
        server->journal_folder_made = access(o->node.journal_directory, F_OK) != 0;
        rc = folder_make("journal directory", o->node.journal_directory, why, why_room);
    }
    if (rc != 0) return rc;
    (void)snprintf(copies, sizeof copies, "%s/plugins", data);
    return plugin_load(path, copies, NULL, &server->plugin, why, why_room);
}

static int client_port_open(struct server *server, char *why, size_t why_room)
{
    const struct server_options *o = &server->options;
    const struct front_options options = {
        .loop = loop_uv(server->loop),
        .listen = o->listen_client,
        .connections_max = o->connections_max,
        .grpc_message_bytes_max = o->grpc_message_bytes_max,
        .proposals_max = o->node.proposals_max,
        .queries_max = o->node.queries_max,
        .recover_context = server,
        .recover = begin_recover,
        .log_context = server->log,
        .log = front_log,
    };
    return front_open(&options, &server->front, why, why_room);
}

static int node_start(struct server *server, char *why, size_t why_room)
{
    struct node_options *o = &server->options.node;
    o->plugin = &server->plugin;
    o->disk = disk_posix();
    o->kv = kv_lmdb();
    const struct node_owner owner = front_node_owner(server->front);
    return node_open(o, loop_env(server->loop), &owner, &server->node, why, why_room);
}

/* Peers of the same host follow through memory; everything else goes by the transport that is there. */
static int shared_memory_open(struct server *server, const struct tcp_options *tcp, char *why, size_t why_room)
{
    struct local_options local = {
        .owner = tcp->owner,
        .inner = server->transport,
        .hello = tcp->hello,
        .self = tcp->self,
        .spin_ns = server->options.spin_ns,
        .report_context = server->log,
        .report = report_transport,
    };
    int rc = local_unix_open(tcp->loop, &local.link);
    if (rc == 0) rc = local_open(&local, &server->transport);
    if (rc != 0 && local.link != NULL) local.link->ops->close(local.link);
    if (rc != 0) (void)snprintf(why, why_room, "shared memory: %s", lockstep_error_text(rc));
    return rc;
}

static int peer_port_open(struct server *server, char *why, size_t why_room)
{
    const struct server_options *o = &server->options;
    const struct node_options *node = node_options_of(server->node); /* members as the log has them, if it has any */
    struct tcp_options tcp = {
        .loop = loop_uv(server->loop),
        .owner = node_transport_owner(server->node),
        .self = o->node.self,
        .peer_count = node->member_count,
        .listen = o->listen_peer,
        .queued_bytes_max = o->node.append_inflight_bytes_max,
    };
    struct fault_options fault = {
        .loop = tcp.loop,
        .owner = tcp.owner,
        .peer_count = tcp.peer_count,
        .rules = o->faults,
        .seed = loop_env(server->loop)->random(loop_env(server->loop)->context),
        .report_context = server->log,
        .report = report_transport,
    };
    node_transport_hello(server->node, &tcp.hello);
    for (unsigned i = 0; i < tcp.peer_count; i++) {
        tcp.peers[i].name = fault.peers[i] = node->members[i].name;
        tcp.peers[i].address = node->members[i].peer;
    }
    int rc = tcp_open(&tcp, &server->transport, why, why_room);
    if (rc != 0) return rc;
    if (o->faults[0] == 0) return o->shared_memory ? shared_memory_open(server, &tcp, why, why_room) : 0;
    fault.inner = server->transport;
    rc = fault_open(&fault, &server->transport, why, why_room);
    if (rc == 0)
        log_format(server->log, NODE_LOG_WARN, "transport", "faults are being made, no shared memory: rules=%s",
                   o->faults);
    return rc;
}

static int parts_open(struct server *server, char *why, size_t why_room)
{
    int rc = loop_open(server->log, &server->loop);
    if (rc != 0) (void)snprintf(why, why_room, "event loop: %s", lockstep_error_text(rc));
    if (rc == 0) rc = client_port_open(server, why, why_room);
    if (rc == 0) rc = node_start(server, why, why_room);
    if (rc == 0) rc = peer_port_open(server, why, why_room);
    if (rc != 0) return rc;
    node_attach(server->node, server->transport);
    rc = threads_open(work, server->node, loop_threads(server->loop));
    server->threads = *loop_threads(server->loop);
    if (rc != 0) (void)snprintf(why, why_room, "threads: the system starts no more of them");
    if (rc == 0) front_attach(server->front, server->node);
    return rc;
}

/* All but log and machine; what was not opened counts as closed. */
static void parts_close(struct server *server)
{
    threads_close(server->threads);
    if (server->loop != NULL) *loop_threads(server->loop) = NULL;
    if (server->transport != NULL) server->transport->ops->close(server->transport);
    front_close(server->front);
    loop_close(server->loop);
    node_close(server->node);
    server->threads = NULL;
    server->transport = NULL;
    server->front = NULL;
    server->loop = NULL;
    server->node = NULL;
    server->stopping = false;
}

static int failed_to_start(struct server *server, int code, const char *why)
{
    parts_close(server);
    if (server->journal_folder_made) /* a disk that is not mounted gets nothing; a journal stays */
        (void)rmdir(server->options.node.journal_directory);
    log_close(server->log);
    (void)fprintf(stderr, "lockstep: %s\n", why);
    free(server);
    return code;
}

/* --- recover --- */

/* Everything was stopped for it. 0: it is open again, as the only member of another cluster, or as it was, if a majority came
 * back meanwhile. Else the process has to end, and what to do stands in why. */
static int recover(struct server *server, char *why, size_t why_room)
{
    struct epoch_options options;
    struct epoch_result result;
    const struct node_env *env = loop_env(server->loop);
    int rc = node_recover_check(server->node, why, why_room);
    server_epoch_options(&server->options, server->recover_id, env->random(env->context), &options);
    server->recover_id = 0;
    parts_close(server);
    if (rc != 0) {
        log_format(server->log, NODE_LOG_WARN, "server", "recovery given up: %s", why);
    } else {
        rc = epoch_recover(&options, &result, why, why_room);
        if (rc != 0) return rc;
        log_format(server->log, NODE_LOG_WARN, "server",
                   "recovered: cluster=%s id=%016llx member=%016llx last=%llu: this node is its only member",
                   result.birth.cluster, (unsigned long long)result.birth.cluster_id,
                   (unsigned long long)result.member_id, (unsigned long long)result.last.index);
    }
    return parts_open(server, why, why_room);
}

int server_run(const struct server_options *options)
{
    char why[NODE_WHY_BYTES_MAX] = "out of memory";
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        (void)fprintf(stderr, "lockstep: %s\n", why);
        return SERVER_EXIT_FAILED;
    }
    server->options = *options;
    const struct node_options *o = &server->options.node;
    const char *debug = getenv("LOCKSTEP_DEBUG");
    process_prepare(options->connections_max);

    int rc = log_open(o->members[o->self].name, STDERR_FILENO, debug != NULL && *debug != 0, &server->log);
    if (rc != 0) return failed_to_start(server, exit_of(rc), why);
    rc = machine_open(server, why, sizeof why);
    if (rc == LOCKSTEP_EIO || rc == LOCKSTEP_ENOSPC || rc == LOCKSTEP_ENOMEM)
        return failed_to_start(server, SERVER_EXIT_FAILED, why);
    if (rc != 0) return failed_to_start(server, SERVER_EXIT_USAGE, why); /* not this file, not this machine */
    rc = parts_open(server, why, sizeof why);
    if (rc != 0) {
        if (server->threads == NULL && server->transport == NULL)
            plugin_copy_undo(&server->plugin); /* a directory that is refused stays as it was */
        return failed_to_start(server, exit_of(rc), why);
    }
    log_format(server->log, NODE_LOG_INFO, "server", "started: cluster=%s client=%s peer=%s machine=%s/%s data=%s",
               o->cluster, options->listen_client, options->listen_peer, server->plugin.name, server->plugin.version,
               o->data_directory);

    const struct loop_owner owner = {.context = server, .turn = turn, .stop = stop};
    for (;;) {
        loop_run(server->loop, &owner);
        if (server->recover_id == 0 || server->signalled) break;
        rc = recover(server, why, sizeof why);
        if (rc != 0) end_failed(server, rc, why);
    }
    log_line(server->log, NODE_LOG_INFO, "server", "stopped");
    parts_close(server);
    log_close(server->log);
    free(server);
    return SERVER_EXIT_OK;
}
