/* SPDX-License-Identifier: Apache-2.0 */
/* demo.c - `lockstep demo`: a cluster that loses its leader under load, and loses nothing else.
 * Thread: main. Every line that is printed has been checked before; the first one that would be false ends the demo with
 * exit code 1, says what is false, and leaves the directory for looking.
 *
 * What "lost nothing" means is proved on the disks: after the nodes have stopped, each one's log is read block by block,
 * and every acknowledged command has to stand in it once, at the position that its answer named, byte for byte. Asking
 * the running nodes would show their states, not where a command stands; the states are compared by their hashes.
 *
 * LOCKSTEP_DEMO_BREAK=record makes the demo's memory of one acknowledged command wrong, before the logs are read. The
 * test uses it to see that a false line is noticed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/demo_load.h"
#include "cli/members.h"
#include "cli/output.h"
#include "storage/inspect.h"

enum {
    DEMO_START_MS = 30000,
    DEMO_WAIT_MS = 30000, /* for anything else; far more than it takes */
    DEMO_STOP_MS = 12000,
    DEMO_IN_FLIGHT_MIN = 64,
};

enum { NODES, COMMANDS, DIR, KEEP };
static const struct cli_flag flags[] = {
    [NODES] = {"nodes", "N", "3 (if not given) or 5"},
    [COMMANDS] = {"commands", "N", "how many to have acknowledged; 300000 if not given"},
    [DIR] = {"dir", "DIR", "where its temporary directory is made; else $TMPDIR, else /var/tmp"},
    [KEEP] = {"keep", NULL, "leave the directory there"},
    {NULL, NULL, NULL},
};

struct demo {
    const struct cli *cli;
    struct cluster cluster;
    struct demo_load *load;
    struct members members;
    uint64_t total;
    uint64_t began_ns;
    int line;
    uint32_t first_leader;
    uint64_t first_term;
    uint64_t writable_again_ns;
    uint64_t repeated; /* commands that stand in the logs a second time */
    uint64_t acknowledged_before;
};

/* One true line. */
static void say(struct demo *demo, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct demo *demo, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    demo->line++;
    if (!demo->cli->json) {
        printf("%2d  %s\n", demo->line, text);
        fflush(stdout);
        return;
    }
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_number(&json, "line", (uint64_t)demo->line);
    json_text(&json, "text", text);
    json_decimal(&json, "seconds", (double)(cli_now_ns() - demo->began_ns) / 1e9, 3);
    json_end(&json);
}

/* What should have been the next line is not so. */
static int untrue(struct demo *demo, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int untrue(struct demo *demo, const char *format, ...)
{
    char text[1024], what[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(what, sizeof what, "demo: line %d does not hold", demo->line + 1);
    return cli_fail(demo->cli, EXIT_FAILED, what, "", "%s", cluster_interrupted() ? "interrupted" : text);
}

static const char *name_of(const struct demo *demo, uint32_t node)
{
    return demo->cluster.nodes[node].name;
}

/* What every node says of itself now. */
static int ask_members(struct demo *demo)
{
    static struct lockstep_status status; /* large */
    struct lockstep_client_options options = {
        .size = sizeof options, .endpoints = demo->cluster.endpoints, .deadline_ms = 2000};
    struct lockstep_client *client;
    struct lockstep_result result;
    int rc = lockstep_client_open(&options, &client, NULL, 0);
    if (rc != 0) return rc;
    rc = lockstep_status_wait(client, 0, &result, &status);
    lockstep_client_close(client);
    if (rc == 0) members_ask(&status, 1000, &demo->members);
    return rc;
}

/* --- the chapters: each returns an exit code --- */

static int start(struct demo *demo)
{
    struct cluster *cluster = &demo->cluster;
    char why[CLUSTER_WHY_BYTES_MAX];
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < cluster->count; i++) rc = cluster_start(cluster, i);
    if (rc != 0) return untrue(demo, "a node cannot be started: %s", lockstep_error_text(rc));
    rc = cluster_wait_writable(cluster, DEMO_START_MS, &demo->first_leader, why);
    if (rc != 0) return untrue(demo, "%s", why);
    say(demo, "%" PRIu32 " nodes run as processes of their own on this host, %s to %s, data in %s", cluster->count,
        cluster->nodes[0].client, cluster->nodes[cluster->count - 1].client, cluster->directory);
    if (ask_members(demo) != 0 || demo->members.leader == NULL) return untrue(demo, "no node says that it leads");
    demo->first_term = demo->members.leader->status.term;
    int leader = cluster_find(cluster, demo->members.leader->listed.name);
    if (leader < 0) return untrue(demo, "a stranger leads: %s", demo->members.leader->listed.name);
    demo->first_leader = (uint32_t)leader;
    say(demo, "%s was elected and leads in term %" PRIu64, name_of(demo, demo->first_leader), demo->first_term);
    return EXIT_OK;
}

/* Send until so many are acknowledged. */
static int load_until(struct demo *demo, uint64_t acknowledged)
{
    uint64_t until_ns = cli_now_ns() + DEMO_WAIT_MS * 1000000ull;
    while (demo_load_counts(demo->load).acknowledged < acknowledged) {
        if (demo_load_turn(demo->load, true, 20) != 0 || cluster_interrupted()) return LOCKSTEP_EIO;
        if (cli_now_ns() > until_ns) return LOCKSTEP_ETIMEDOUT;
    }
    return 0;
}

static int load_before(struct demo *demo)
{
    if (demo_load_open(demo->cluster.endpoints, demo->total, &demo->load) != 0) return untrue(demo, "out of memory");
    uint64_t begin_ns = cli_now_ns();
    if (load_until(demo, demo->total / 2) != 0)
        return untrue(demo, "only %s commands were acknowledged in time: %s",
                      show_count(demo_load_counts(demo->load).acknowledged), demo_load_trouble(demo->load));
    uint64_t took_ns = cli_now_ns() - begin_ns;
    struct demo_counts counts = demo_load_counts(demo->load);
    if (counts.unknown + counts.not_appended + counts.refused > 0)
        return untrue(demo, "a command failed while nothing was broken: %s", demo_load_trouble(demo->load));
    demo->acknowledged_before = counts.acknowledged;
    say(demo, "%s commands were acknowledged in %s, each durable on a majority first (%s a second)",
        show_count(counts.acknowledged), show_duration(took_ns),
        show_count((uint64_t)((double)counts.acknowledged * 1e9 / (double)took_ns)));
    return EXIT_OK;
}

static int kill_leader(struct demo *demo)
{
    uint64_t until_ns = cli_now_ns() + DEMO_WAIT_MS * 1000000ull;
    /* Leadership may have moved by itself since the beginning: it is the present leader that has to go. */
    if (ask_members(demo) != 0 || demo->members.leader == NULL) return untrue(demo, "nobody leads before the kill");
    int leader = cluster_find(&demo->cluster, demo->members.leader->listed.name);
    if (leader < 0) return untrue(demo, "a stranger leads");
    demo->first_leader = (uint32_t)leader;
    demo->first_term = demo->members.leader->status.term;
    /* All that was in flight may have been answered meanwhile: one turn takes the answers, the next one fills and flushes
     * the streams. What is in flight then is on its way to the leader or through it. */
    uint64_t in_flight;
    do {
        if (demo_load_turn(demo->load, true, 0) != 0 || cli_now_ns() > until_ns)
            return untrue(demo, "there are never %d commands in flight", DEMO_IN_FLIGHT_MIN);
        in_flight = demo_load_counts(demo->load).in_flight;
    } while (in_flight < DEMO_IN_FLIGHT_MIN);
    demo_load_mark(demo->load);
    uint64_t killed_ns = cli_now_ns();
    cluster_kill(&demo->cluster, demo->first_leader);
    say(demo, "kill -9 of %s, the leader, with %s commands in flight", name_of(demo, demo->first_leader),
        show_count(in_flight));

    while (demo_load_marked_ns(demo->load) == 0) {
        if (demo_load_turn(demo->load, true, 5) != 0 || cluster_interrupted() || cli_now_ns() > until_ns)
            return untrue(demo, "no command was acknowledged after the kill: %s", demo_load_trouble(demo->load));
    }
    demo->writable_again_ns = demo_load_marked_ns(demo->load) - killed_ns;
    if (ask_members(demo) != 0 || demo->members.leader == NULL) return untrue(demo, "nobody leads after the kill");
    const struct member_view *leader_now = demo->members.leader;
    if (strcmp(leader_now->listed.name, name_of(demo, demo->first_leader)) == 0 ||
        leader_now->status.term <= demo->first_term)
        return untrue(demo, "%s leads in term %" PRIu64, leader_now->listed.name, leader_now->status.term);
    say(demo, "%s was elected and leads in term %" PRIu64 ": %s after the kill a new command was acknowledged",
        leader_now->listed.name, leader_now->status.term, show_duration(demo->writable_again_ns));
    return EXIT_OK;
}

static int load_after(struct demo *demo)
{
    if (load_until(demo, demo->total) != 0)
        return untrue(demo, "only %s commands were acknowledged in time: %s",
                      show_count(demo_load_counts(demo->load).acknowledged), demo_load_trouble(demo->load));
    uint64_t until_ns = cli_now_ns() + DEMO_WAIT_MS * 1000000ull;
    while (demo_load_counts(demo->load).in_flight > 0)
        if (demo_load_turn(demo->load, false, 20) != 0 || cli_now_ns() > until_ns)
            return untrue(demo, "%" PRIu64 " commands were never answered", demo_load_counts(demo->load).in_flight);
    struct demo_counts counts = demo_load_counts(demo->load);
    if (counts.refused > 0) return untrue(demo, "the machine refused %" PRIu64 " commands", counts.refused);
    if (counts.unknown + counts.not_appended > 0)
        return untrue(demo, "%" PRIu64 " commands ended unknown, %" PRIu64 " were not appended: %s", counts.unknown,
                      counts.not_appended, demo_load_trouble(demo->load));
    say(demo,
        "%s commands are acknowledged now, and none has an unknown outcome: what the dead leader left unanswered was "
        "sent "
        "again",
        show_count(counts.acknowledged));
    return EXIT_OK;
}

/* Same applied position and same hashes' index on all. */
static bool are_level(const struct members *members)
{
    for (uint32_t i = 0; i < members->count; i++) {
        const struct lockstep_status *s = &members->members[i].status, *first = &members->members[0].status;
        if (!members->members[i].reachable || s->hash_index == 0) return false;
        if (s->applied_position != first->applied_position || s->applied_index != first->applied_index) return false;
        if (s->hash_index != first->hash_index || s->hash_index != s->applied_index) return false;
    }
    return members->count > 0;
}

static int take_back(struct demo *demo)
{
    uint64_t begin_ns = cli_now_ns(), until_ns = begin_ns + DEMO_WAIT_MS * 1000000ull;
    int rc = cluster_start(&demo->cluster, demo->first_leader);
    if (rc != 0) return untrue(demo, "%s cannot be started again", name_of(demo, demo->first_leader));
    do {
        int gone = cluster_reap(&demo->cluster);
        if (gone >= 0) {
            char words[512];
            cluster_last_words(&demo->cluster, (uint32_t)gone, words, sizeof words);
            return untrue(demo, "%s ended: %s", name_of(demo, (uint32_t)gone), words);
        }
        if (cli_now_ns() > until_ns || cluster_interrupted()) {
            if (!demo->cli->json) members_print(&demo->members, stderr);
            return untrue(demo, "%s does not catch up", name_of(demo, demo->first_leader));
        }
    } while (ask_members(demo) != 0 || !are_level(&demo->members));
    say(demo, "%s is back as a follower, and has caught up after %s", name_of(demo, demo->first_leader),
        show_duration(cli_now_ns() - begin_ns));
    return EXIT_OK;
}

static int compare_states(struct demo *demo)
{
    const struct lockstep_status *first = &demo->members.members[0].status;
    if (demo->members.diverged[0] != 0) return untrue(demo, "%s", demo->members.diverged);
    if (first->state_hash_bytes == 0 || first->reply_hash_bytes == 0) return untrue(demo, "a node shows no hash");
    say(demo, "at index %" PRIu64 " all %" PRIu32 " nodes have the state hash %s and the reply hash %s",
        first->hash_index, demo->members.count, show_hex(first->state_hash, first->state_hash_bytes),
        show_hex(first->reply_hash, first->reply_hash_bytes));
    if (!demo->cli->json) {
        printf("\n");
        members_print(&demo->members, stdout);
        printf("\n");
        fflush(stdout);
    }
    return EXIT_OK;
}

/* The newest value of each stream, asked of every node by itself. */
static int read_back(struct demo *demo)
{
    uint32_t read = 0;
    for (uint32_t node = 0; node < demo->cluster.count; node++) {
        struct lockstep_client_options options = {
            .size = sizeof options, .endpoints = demo->cluster.nodes[node].client, .deadline_ms = 2000};
        struct lockstep_client *client;
        if (lockstep_client_open(&options, &client, NULL, 0) != 0) return untrue(demo, "out of memory");
        for (uint32_t stream = 0; stream < DEMO_STREAMS; stream++) {
            char query[DEMO_COMMAND_BYTES_MAX], value[DEMO_COMMAND_BYTES_MAX];
            if (!demo_load_newest(demo->load, stream, query, value)) continue;
            struct lockstep_query q = {.query = query, .query_bytes = strlen(query), .consistency = LOCKSTEP_LOCAL};
            struct lockstep_result result;
            lockstep_query_wait(client, &q, &result);
            bool equal = result.error == 0 && result.code == 0 && result.reply_bytes == strlen(value) &&
                         memcmp(result.reply, value, result.reply_bytes) == 0;
            if (!equal) {
                int rc = untrue(demo, "'%s' on %s gives '%.*s' %s, not '%s'", query, name_of(demo, node),
                                (int)result.reply_bytes, (const char *)result.reply, result.text, value);
                lockstep_client_close(client);
                return rc;
            }
            read++;
        }
        lockstep_client_close(client);
    }
    say(demo, "the last acknowledged keys read back on each node by itself: %" PRIu32 " of %" PRIu32 " queries right",
        read, demo->cluster.count * DEMO_STREAMS);
    return EXIT_OK;
}

struct log_extent {
    uint64_t blocks, commands;
};

/* Every command of a block. False: one that is false. */
static bool read_commands(struct demo *demo, const uint8_t *block, const struct block_header *header,
                          struct log_extent *extent)
{
    struct block_cursor cursor = block_cursor(block, header);
    struct command_view view;
    while (block_cursor_next(&cursor, &view)) {
        extent->commands++;
        if (!demo_check_command(demo->load, &view)) return false;
    }
    return true;
}

/* Every block of a stopped node's log, from the first one on, as its next start would find them; nothing is written. */
static int read_log(struct demo *demo, uint32_t node, struct log_extent *ret)
{
    char directory[sizeof demo->cluster.directory + sizeof demo->cluster.nodes[0].name + 1], why[1024];
    struct inspection *inspection;
    const struct inspect_options options = {.directory = directory, .disk = disk_posix(), .kv = kv_lmdb()};
    snprintf(directory, sizeof directory, "%s/%s", demo->cluster.directory, name_of(demo, node));
    *ret = (struct log_extent){0};
    if (inspect_open(&options, &inspection, why, sizeof why) != 0)
        return untrue(demo, "the log of %s: %s", name_of(demo, node), why);
    const struct inspect_view *v = inspect_view(inspection);
    size_t count;
    const struct inspect_finding *findings = inspect_findings(inspection, &count);
    int code = EXIT_OK;
    if (count != 0)
        code = untrue(demo, "the log of %s: %s: %s", name_of(demo, node), findings[0].file, findings[0].text);
    else if (v->first != 1)
        code = untrue(demo, "the log of %s begins at block %" PRIu64, name_of(demo, node), v->first);
    struct block_base base = birth_record_base(&v->identity.birth);
    for (raft_index index = 1; code == EXIT_OK && index <= v->last; index++) {
        const uint8_t *block;
        struct block_header header;
        int rc = inspect_block(inspection, index, &block, &header, NULL, NULL);
        if (rc == 0) rc = block_chain_check(&base, &header); /* each block follows the one before it */
        if (rc != 0) {
            code = untrue(demo, "the log of %s: block %" PRIu64 ": %s", name_of(demo, node), index,
                          lockstep_error_text(rc));
            break;
        }
        base = block_base_after(&header);
        ret->blocks++;
        if (header.type == BLOCK_COMMANDS && !read_commands(demo, block, &header, ret)) break;
    }
    inspect_close(inspection);
    return code;
}

static int read_logs(struct demo *demo)
{
    struct cluster *cluster = &demo->cluster;
    int rc = cluster_stop(cluster, -1, DEMO_STOP_MS);
    if (rc != 0) return untrue(demo, "a node did not end in order on SIGTERM: %s", lockstep_error_text(rc));
    say(demo, "all nodes have ended in order");
    const char *broken = getenv("LOCKSTEP_DEMO_BREAK");
    if (broken != NULL && strcmp(broken, "record") == 0) demo_load_falsify(demo->load);
    struct demo_counts counts = demo_load_counts(demo->load);
    struct demo_found found = {0};
    for (uint32_t node = 0; node < cluster->count; node++) {
        struct log_extent extent;
        demo_check_begin(demo->load, node);
        rc = read_log(demo, node, &extent);
        if (rc != EXIT_OK) return rc;
        demo_check_end(demo->load, &found);
        if (found.false_because[0] != 0)
            return untrue(demo, "the log of %s: %s", name_of(demo, node), found.false_because);
        say(demo,
            "the log of %s, read from its disk: %s blocks, %s commands; all %s acknowledged ones stand there, at "
            "their positions, byte for byte",
            name_of(demo, node), show_count(extent.blocks), show_count(extent.commands),
            show_count(found.acknowledged));
        if (found.acknowledged != counts.acknowledged || cluster_interrupted())
            return untrue(demo, "%s were acknowledged", show_count(counts.acknowledged));
    }
    demo->repeated = found.repeated;
    say(demo, "%s of them stand there a second time, sent again under the same session and seq: each was applied once",
        show_count(found.repeated));
    return EXIT_OK;
}

static int play(struct demo *demo)
{
    int (*const chapters[])(struct demo *) = {start,     load_before,    kill_leader, load_after,
                                              take_back, compare_states, read_back,   read_logs};
    for (size_t i = 0; i < sizeof chapters / sizeof chapters[0]; i++) {
        int rc = chapters[i](demo);
        if (rc != EXIT_OK) return rc;
    }
    struct demo_counts counts = demo_load_counts(demo->load);
    uint64_t took_ns = cli_now_ns() - demo->began_ns;
    if (!demo->cli->json) {
        printf("\nEvery line above was checked. %s in all.\n", show_duration(took_ns));
        return EXIT_OK;
    }
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_bool(&json, "ok", true);
    json_number(&json, "acknowledged", counts.acknowledged);
    json_number(&json, "unknown", counts.unknown);
    json_number(&json, "repeated", demo->repeated);
    json_number(&json, "not_appended", counts.not_appended);
    json_decimal(&json, "writable_again_ms", (double)demo->writable_again_ns / 1e6, 1);
    json_decimal(&json, "seconds", (double)took_ns / 1e9, 3);
    json_end(&json);
    return EXIT_OK;
}

static int demo_run(struct cli *cli)
{
    static struct demo demo; /* large */
    uint64_t nodes = 3;
    demo.cli = cli;
    demo.total = 300000;
    int rc = cli_number(cli, NODES, 3, 5, &nodes);
    if (rc == EXIT_OK) rc = cli_number(cli, COMMANDS, 2000, 10000000, &demo.total);
    if (rc != EXIT_OK) return rc;
    char directory[4096], why[CLUSTER_WHY_BYTES_MAX];
    if (cluster_temporary(cli->values[DIR], "demo", directory, sizeof directory, why) != 0)
        return cli_fail(cli, EXIT_USAGE, "demo", "", "%s", why);
    cluster_catch_signals();
    demo.began_ns = cli_now_ns();
    struct cluster_options options = {
        .directory = directory,
        .name = "demo",
        .nodes = (uint32_t)nodes,
        .machine = "kv",
        .snapshot_after = "1TiB", /* the whole log is kept, to be read: far more than COMMANDS can take */
        .any_port = true};
    rc = cluster_open(&options, &demo.cluster, why);
    if (rc != 0) {
        rc = cli_fail(cli, EXIT_FAILED, "demo", "", "%s", why);
    } else {
        rc = play(&demo);
        demo_load_close(demo.load);
        (void)cluster_stop(&demo.cluster, -1, DEMO_STOP_MS); /* what still runs after a false line */
    }
    if (rc == EXIT_OK && cli->values[KEEP] == NULL)
        cluster_remove(directory);
    else
        fprintf(stderr, "lockstep: demo: data and logs are in %s\n", directory);
    return rc;
}

const struct command command_demo = {
    .name = "demo",
    .words = "",
    .text = "a cluster that loses its leader under load, and nothing else",
    .details =
        "Starts real nodes, loads them with commands that are all different, kills the leader, and looks for every\n"
        "acknowledged command by position and content in every node's log. Ends in well under a minute.\n"
        "Exit: 1 as soon as a line would not be true.\n",
    .flags = flags,
    .run = demo_run,
};
