/* SPDX-License-Identifier: Apache-2.0 */
/* bench.c - `lockstep bench`: how many commands a second, how long each takes, what it costs.
 * Thread: main, one for all connections. Without --to it makes a cluster of its own in a temporary directory, so that
 * what is measured, the servers' processor time included, is known; that directory must not be in memory at level fsync.
 *
 * A closed loop: so many commands are in flight, and each answer lets the next one go. Latency is from the send to the
 * answer of a command; of a stream's message, for each of its commands. What is answered in the window after the
 * warm-up counts. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/histogram.h"
#include "cli/bench_load.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/output.h"
#include "storage/disk.h"

enum {
    BENCH_CONNECTIONS_MAX = 1024,
    BENCH_INFLIGHT_MAX = 65536,
    BENCH_START_MS = 30000,
    BENCH_STOP_MS = 12000,
    BENCH_FLUSHES = 200,
};

enum {
    CONNECTIONS,
    INFLIGHT,
    BYTES,
    STREAM,
    BATCH,
    DURATION,
    WARMUP,
    COMMAND,
    LOCAL,
    DIR,
    MACHINE,
    DURABILITY,
    NO_SESSION
};
static const struct cli_flag flags[] = {
    [CONNECTIONS] = {"connections", "N", "connections, one stream on each with --stream; 1 if not given"},
    [INFLIGHT] = {"inflight", "N",
                  "unary: commands in flight, all connections together; 64 if not given. Streams: "
                  "messages in flight on each; 16"},
    [BYTES] = {"bytes", "SIZE", "bytes of a command; 64 if not given"},
    [STREAM] = {"stream", NULL, "ProposeStream instead of Propose"},
    [BATCH] = {"batch", "N", "commands in one message of a stream; 64 if not given"},
    [DURATION] = {"duration", "TIME", "of the measurement; 10s if not given"},
    [WARMUP] = {"warmup", "TIME", "before it; 2s if not given"},
    [COMMAND] = {"command", "TEXT", "what to propose, for machines other than kv and counter"},
    [LOCAL] = {"local", "N", "nodes of the bench's own cluster; 3 if not given"},
    [DIR] = {"dir", "DIR", "where its temporary directory is made; else $TMPDIR, else /var/tmp"},
    [MACHINE] = {"machine", "NAME|FILE.so", "of its own cluster; kv if not given"},
    [DURABILITY] = {"durability", "LEVEL", "of its own cluster: fsync; os, memory: not flushed"},
    [NO_SESSION] = {"no-session", NULL, "commands without session: nothing is applied once for sure"},
    {NULL, NULL, NULL},
};

/* What was measured, and on what. */
struct report {
    struct bench_options options;
    struct bench_result result;
    bool own; /* cluster */
    uint32_t nodes;
    char machine[LOCKSTEP_NAME_BYTES_MAX];
    enum lockstep_durability durability;
    char file_system[32];
    uint64_t flush_ns; /* median fdatasync; 0 = not known */
    uint64_t server_cpu_ns, client_cpu_ns;
    uint64_t resident_bytes;
    struct lockstep_counters before, after; /* the leader's */
    bool has_counters;                      /* the same node led before and after */
};

/* --- the disk --- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The median fdatasync of one 4 KiB page in a file that was filled with zeros before, as a journal's pages are. */
static uint64_t measure_flush(const char *directory)
{
    enum { PAGE = 4096 };
    static uint8_t page[PAGE];
    uint64_t took_ns[BENCH_FLUSHES];
    char path[4200];
    snprintf(path, sizeof path, "%s/flush", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return 0;
    uint64_t median_ns = 0;
    for (int i = 0; i < BENCH_FLUSHES; i++)
        if (pwrite(fd, page, PAGE, (off_t)i * PAGE) != PAGE) goto done;
    if (fsync(fd) != 0) goto done;
    memset(page, 0xa5, sizeof page);
    for (int i = 0; i < BENCH_FLUSHES; i++) {
        uint64_t begin_ns = cli_now_ns();
        if (pwrite(fd, page, PAGE, (off_t)i * PAGE) != PAGE || fdatasync(fd) != 0) goto done;
        took_ns[i] = cli_now_ns() - begin_ns;
    }
    qsort(took_ns, BENCH_FLUSHES, sizeof took_ns[0], compare_u64);
    median_ns = took_ns[BENCH_FLUSHES / 2];
done:
    close(fd);
    unlink(path);
    return median_ns;
}

static uint64_t own_cpu_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * 1000u;
}

/* --- printing --- */

static uint64_t per_second(uint64_t count, uint64_t ns)
{
    return ns == 0 ? 0 : (uint64_t)((double)count * 1e9 / (double)ns);
}

static double seconds_a_million(uint64_t cpu_ns, uint64_t commands)
{
    return commands == 0 ? 0 : (double)cpu_ns / 1e9 * 1e6 / (double)commands;
}

static const struct {
    const char *name;
    const char *key;
    uint64_t numerator, denominator;
} quantiles[] = {
    {"p50", "p50", 50, 100}, {"p90", "p90", 90, 100}, {"p99", "p99", 99, 100}, {"p99.9", "p99_9", 999, 1000}};
enum { QUANTILES = sizeof quantiles / sizeof quantiles[0] };

static const char *const levels[] = {"unspecified", "fsync", "os", "memory"};

static void print_json(const struct report *r)
{
    const struct bench_result *b = &r->result;
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_text(&json, "mode", r->options.stream ? "stream" : "unary");
    json_number(&json, "connections", r->options.connections);
    json_number(&json, "inflight", r->options.inflight);
    if (r->options.stream) json_number(&json, "batch", r->options.batch);
    json_bool(&json, "session", !r->options.no_session);
    json_number(&json, "bytes", r->options.bytes);
    json_decimal(&json, "seconds", (double)b->window_ns / 1e9, 3);
    json_number(&json, "commands", b->applied);
    json_number(&json, "commands_per_second", per_second(b->applied, b->window_ns));
    json_object(&json, "latency_us");
    for (int i = 0; i < QUANTILES; i++)
        json_decimal(&json, quantiles[i].key,
                     (double)histogram_quantile(&b->latency, quantiles[i].numerator, quantiles[i].denominator) / 1e3,
                     1);
    json_decimal(&json, "max", (double)b->latency.max_ns / 1e3, 1);
    json_decimal(&json, "mean", b->latency.count == 0 ? 0 : (double)b->latency.sum_ns / (double)b->latency.count / 1e3,
                 1);
    json_end(&json);
    json_object(&json, "cpu_seconds_per_million");
    json_decimal(&json, "client", seconds_a_million(r->client_cpu_ns, b->applied), 3);
    if (r->own)
        json_decimal(&json, "servers", seconds_a_million(r->server_cpu_ns, b->applied), 3);
    else
        json_null(&json, "servers");
    json_end(&json);
    if (r->own)
        json_number(&json, "resident_bytes", r->resident_bytes);
    else
        json_null(&json, "resident_bytes");
    if (r->has_counters) {
        json_object(&json, "leader"); /* warm-up included */
        json_number(&json, "blocks", r->after.blocks_appended - r->before.blocks_appended);
        json_number(&json, "flushes", r->after.flushes - r->before.flushes);
        json_number(&json, "appends_inflight_max", r->after.appends_inflight_max);
        json_end(&json);
    }
    json_number(&json, "nodes", r->nodes);
    json_text(&json, "machine", r->machine);
    json_text(&json, "durability", levels[r->durability]);
    if (r->file_system[0] != 0)
        json_text(&json, "file_system", r->file_system);
    else
        json_null(&json, "file_system");
    if (r->flush_ns != 0)
        json_decimal(&json, "fdatasync_us", (double)r->flush_ns / 1e3, 1);
    else
        json_null(&json, "fdatasync_us");
    json_object(&json, "errors");
    json_number(&json, "refused", b->refused);
    json_number(&json, "not_appended", b->not_appended);
    json_number(&json, "unknown", b->unknown);
    json_end(&json);
    json_end(&json);
}

static void print_people(const struct report *r)
{
    const struct bench_result *b = &r->result;
    printf("%" PRIu32 " %s%s, %s", r->nodes, r->nodes == 1 ? "node" : "nodes", r->own ? " on this host" : "",
           levels[r->durability]);
    if (r->file_system[0] != 0) printf(", %s", r->file_system);
    if (r->flush_ns != 0) printf(" (fdatasync %s, median)", show_duration(r->flush_ns));
    printf(", machine %s\n", r->machine);
    if (r->options.stream)
        printf("%" PRIu32 " %s, %" PRIu32 " %s of %" PRIu32 " commands in flight on each, %s a command\n",
               r->options.connections, r->options.connections == 1 ? "stream" : "streams", r->options.inflight,
               r->options.inflight == 1 ? "message" : "messages", r->options.batch, show_bytes(r->options.bytes));
    else
        printf("%" PRIu32 " unary in flight on %" PRIu32 " %s, %s a command\n", r->options.inflight,
               r->options.connections, r->options.connections == 1 ? "connection" : "connections",
               show_bytes(r->options.bytes));
    printf("  throughput  %s commands/s (%s in %s)\n", show_count(per_second(b->applied, b->window_ns)),
           show_count(b->applied), show_duration(b->window_ns));
    printf("  latency   ");
    for (int i = 0; i < QUANTILES; i++)
        printf("  %s %s", quantiles[i].name,
               show_duration(histogram_quantile(&b->latency, quantiles[i].numerator, quantiles[i].denominator)));
    printf("  max %s\n", show_duration(b->latency.max_ns));
    printf("  processor   ");
    if (r->own) printf("servers %.2f s, ", seconds_a_million(r->server_cpu_ns, b->applied));
    printf("client %.2f s for a million commands\n", seconds_a_million(r->client_cpu_ns, b->applied));
    if (r->own) printf("  memory      servers %s resident\n", show_bytes(r->resident_bytes));
    if (r->has_counters)
        printf("  leader      %s blocks, %s flushes, warm-up included\n",
               show_count(r->after.blocks_appended - r->before.blocks_appended),
               show_count(r->after.flushes - r->before.flushes));
    if (b->refused + b->not_appended + b->unknown > 0)
        printf("  errors      %s refused by the machine, %s not appended, %s unknown\n", show_count(b->refused),
               show_count(b->not_appended), show_count(b->unknown));
}

/* --- the run --- */

struct progress {
    const struct cli *cli;
    bool shown;
};

static void show_progress(void *context, bool warming, uint64_t since_ns, uint64_t rate)
{
    struct progress *progress = context;
    if (!isatty(2)) return;
    fprintf(stderr, "\r%s %2" PRIu64 " s  %s commands/s     ", warming ? "warming up" : "measuring ",
            since_ns / 1000000000u, show_count(rate));
    fflush(stderr);
    progress->shown = true;
}

/* The cluster as it is now: its machine, its level, how many nodes, the leader's counters. */
static int look(const struct cli *cli, const char *endpoints, struct report *r, struct lockstep_counters *ret_counters,
                char ret_leader[LOCKSTEP_NAME_BYTES_MAX])
{
    static struct lockstep_status status; /* large */
    struct lockstep_client_options options = {
        .size = sizeof options, .endpoints = endpoints, .deadline_ms = cli->timeout_ms};
    struct lockstep_client *client;
    struct lockstep_result result;
    char why[256], leader[LOCKSTEP_ENDPOINT_BYTES_MAX];
    if (lockstep_client_open(&options, &client, why, sizeof why) != 0)
        return cli_fail(cli, EXIT_USAGE, "--to", "", "%s", why);
    int rc = lockstep_status_wait(client, 0, &result, &status) == 0 ? EXIT_OK : cli_fail_result(cli, "bench", &result);
    lockstep_client_close(client);
    if (rc != EXIT_OK) return rc;
    r->nodes = status.member_count;
    r->durability = status.durability;
    memcpy(r->machine, status.machine, sizeof r->machine);
    memcpy(ret_leader, status.leader, LOCKSTEP_NAME_BYTES_MAX);
    memcpy(leader, status.leader_client, sizeof leader);
    if (leader[0] == 0)
        return cli_fail(cli, EXIT_NOT_READY, "bench", "'lockstep status' says what is missing", "there is no leader");
    options.endpoints = leader;
    if (lockstep_client_open(&options, &client, why, sizeof why) != 0) return EXIT_OK; /* an odd address: no counters */
    if (lockstep_status_wait(client, 2000, &result, &status) == 0) *ret_counters = status.counters;
    lockstep_client_close(client);
    return EXIT_OK;
}

struct cpu_mark {
    struct report *report;
    struct cluster *cluster; /* NULL = not ours */
};

/* Called when the window begins and when it ends. */
static void mark_cpu(void *context, bool begins)
{
    struct cpu_mark *mark = context;
    struct report *r = mark->report;
    uint64_t servers_ns = mark->cluster != NULL ? cluster_cpu_ns(mark->cluster) : 0, client_ns = own_cpu_ns();
    r->server_cpu_ns = begins ? servers_ns : servers_ns - r->server_cpu_ns;
    r->client_cpu_ns = begins ? client_ns : client_ns - r->client_cpu_ns;
    if (!begins && mark->cluster != NULL) r->resident_bytes = cluster_resident_bytes(mark->cluster);
}

static int run_against(const struct cli *cli, const char *endpoints, struct cluster *cluster, struct report *r)
{
    char led_before[LOCKSTEP_NAME_BYTES_MAX], led_after[LOCKSTEP_NAME_BYTES_MAX];
    int rc = look(cli, endpoints, r, &r->before, led_before);
    if (rc != EXIT_OK) return rc;
    if (r->options.command == NULL && strcmp(r->machine, "kv") != 0 && strcmp(r->machine, "counter") != 0)
        return cli_fail(cli, EXIT_USAGE, "bench", "give --command TEXT", "what does the machine %s take?", r->machine);
    r->options.endpoints = endpoints;
    r->options.machine = r->machine;
    struct progress progress = {.cli = cli};
    struct cpu_mark mark = {.report = r, .cluster = cluster};
    r->options.progress = show_progress;
    r->options.progress_context = &progress;
    r->options.window = mark_cpu;
    r->options.window_context = &mark;
    char why[1024];
    int error = bench_load(&r->options, &r->result, why, sizeof why);
    if (progress.shown) fprintf(stderr, "\r%60s\r", "");
    if (error == LOCKSTEP_EUNREACHABLE) return cli_fail(cli, EXIT_UNREACHABLE, "bench", "", "%s", why);
    if (error != 0) return cli_fail(cli, EXIT_FAILED, "bench", "", "%s", why);
    if (cluster_interrupted()) return cli_fail(cli, EXIT_FAILED, "bench", "", "interrupted");
    rc = look(cli, endpoints, r, &r->after, led_after);
    if (rc != EXIT_OK) return rc;
    r->has_counters = strcmp(led_before, led_after) == 0 && r->after.blocks_appended >= r->before.blocks_appended;
    if (r->result.applied == 0) return cli_fail(cli, EXIT_FAILED, "bench", "", "nothing was applied: %s", why);
    if (cli->json)
        print_json(r);
    else
        print_people(r);
    return EXIT_OK;
}

static int run_own(const struct cli *cli, uint32_t nodes, struct report *r)
{
    char directory[4096], why[CLUSTER_WHY_BYTES_MAX];
    int rc = cluster_temporary(cli->values[DIR], "bench", directory, sizeof directory, why);
    if (rc != 0) return cli_fail(cli, EXIT_USAGE, "bench", "", "%s", why);
    r->own = true;
    (void)disk_posix()->file_system(NULL, directory, r->file_system, sizeof r->file_system);
    bool fsync_level = cli->values[DURABILITY] == NULL || strcmp(cli->values[DURABILITY], "fsync") == 0;
    if (fsync_level && strcmp(r->file_system, "tmpfs") == 0) {
        rc = cli_fail(cli, EXIT_REFUSED, "bench", "give --dir on a disk",
                      "%s is in memory (tmpfs): a flush there costs nothing and says nothing", directory);
        cluster_remove(directory);
        return rc;
    }
    r->flush_ns = measure_flush(directory);
    struct cluster_options options = {
        .directory = directory,
        .name = "bench",
        .nodes = nodes,
        .machine = cli->values[MACHINE],
        .durability = cli->values[DURABILITY],
        .any_port = true,
    };
    static struct cluster cluster; /* large */
    uint32_t leader;
    rc = cluster_open(&options, &cluster, why);
    for (uint32_t i = 0; rc == 0 && i < cluster.count; i++) rc = cluster_start(&cluster, i);
    if (rc == 0) rc = cluster_wait_writable(&cluster, BENCH_START_MS, &leader, why);
    if (rc == 0)
        rc = run_against(cli, cluster.endpoints, &cluster, r);
    else
        rc = cli_fail(cli, rc == LOCKSTEP_EINVAL ? EXIT_USAGE : EXIT_FAILED, "bench", "", "%s", why);
    (void)cluster_stop(&cluster, -1, BENCH_STOP_MS); /* its data go now */
    cluster_remove(directory);
    return rc;
}

static int read_options(const struct cli *cli, struct bench_options *o, uint64_t *ret_nodes)
{
    o->stream = cli->values[STREAM] != NULL;
    uint64_t connections = 1, inflight = o->stream ? 16 : 64, bytes = 64, batch = 64;
    o->duration_ns = 10000000000u;
    o->warmup_ns = 2000000000u;
    o->command = cli->values[COMMAND];
    const uint64_t second_ns = 1000000000u;
    int rc = cli_number(cli, CONNECTIONS, 1, BENCH_CONNECTIONS_MAX, &connections);
    if (rc == EXIT_OK) rc = cli_number(cli, INFLIGHT, 1, o->stream ? 4096 : BENCH_INFLIGHT_MAX, &inflight);
    if (rc == EXIT_OK) rc = cli_number(cli, BATCH, 1, BENCH_BATCH_MAX, &batch);
    if (rc == EXIT_OK) rc = cli_bytes(cli, BYTES, BENCH_BYTES_MIN, 1 << 20, &bytes);
    if (rc == EXIT_OK) rc = cli_duration(cli, DURATION, second_ns / 10, 3600 * second_ns, &o->duration_ns);
    if (rc == EXIT_OK) rc = cli_duration(cli, WARMUP, 0, 600 * second_ns, &o->warmup_ns);
    if (rc == EXIT_OK) rc = cli_number(cli, LOCAL, 1, CLUSTER_NODES_MAX, ret_nodes);
    if (rc != EXIT_OK) return rc;
    if (!o->stream && cli->values[BATCH] != NULL)
        return cli_fail(cli, EXIT_USAGE, "--batch", "add --stream", "a unary call carries one command");
    if (!o->stream && inflight < connections)
        return cli_fail(cli, EXIT_USAGE, "--inflight", "",
                        "%" PRIu64 " in flight do not keep %" PRIu64 " connections busy", inflight, connections);
    if (o->stream && batch * (bytes + 48) > LOCKSTEP_MESSAGE_BYTES_MAX)
        return cli_fail(cli, EXIT_USAGE, "--batch", "", "%" PRIu64 " commands of %s do not fit a message of %s", batch,
                        show_bytes(bytes), show_bytes(LOCKSTEP_MESSAGE_BYTES_MAX));
    o->no_session = cli->values[NO_SESSION] != NULL;
    if (o->stream && !o->no_session && batch > BENCH_WINDOW)
        return cli_fail(cli, EXIT_USAGE, "--batch", "take less, or --no-session",
                        "a session has at most %d commands in flight", BENCH_WINDOW);
    o->connections = (uint32_t)connections;
    o->inflight = (uint32_t)inflight;
    o->bytes = (uint32_t)bytes;
    o->batch = o->stream ? (uint32_t)batch : 1;
    return EXIT_OK;
}

static int bench_run(struct cli *cli)
{
    static struct report report; /* large */
    uint64_t nodes = 3;
    int rc = read_options(cli, &report.options, &nodes);
    if (rc != EXIT_OK) return rc;
    static const int own_only[] = {LOCAL, DIR, MACHINE, DURABILITY};
    for (size_t i = 0; cli->to != NULL && i < sizeof own_only / sizeof own_only[0]; i++)
        if (cli->values[own_only[i]] != NULL)
            return cli_fail(cli, EXIT_USAGE, "bench", "leave one of them away",
                            "--to names a cluster, and --%s is for one that bench makes", flags[own_only[i]].name);
    cluster_catch_signals();
    if (cli->to != NULL) return run_against(cli, cli->to, NULL, &report);
    return run_own(cli, (uint32_t)nodes, &report);
}

const struct command command_bench = {
    .name = "bench",
    .words = "",
    .text = "how fast it is, and what that costs",
    .details =
        "Makes a cluster of its own on this host and takes it away again; another one is loaded only when --to\n"
        "names it. A closed loop: each answer lets the next command go. Latency runs from the send of a command,\n"
        "or of its message, to its answer. The commands overwrite 10,000 keys a connection (kv), so that\n"
        "memory does not grow.\n"
        "Exit: 5 where the directory is in memory (tmpfs) and the level is fsync.\n",
    .talks = true,
    .flags = flags,
    .run = bench_run,
};
