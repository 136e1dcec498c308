/* SPDX-License-Identifier: Apache-2.0 */
/* backup.c - `lockstep backup create | verify | restore`: what a cluster had committed, in one file, and a cluster from it. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "cli/offline.h"
#include "lockstep/errors.h"
#include "storage/backup.h"

static void summary_show(const struct cli *cli, struct json *json, const char *file, const struct backup_summary *s)
{
    const struct backup_head *head = &s->head;
    const struct configuration *members = &s->configuration.configuration;
    if (cli->json) {
        json_text(json, "file", file);
        json_number(json, "format", head->version);
        json_number(json, "made_ns", head->made_ns);
        json_text(json, "node", head->node);
        json_id(json, "member_id", head->member_id);
        json_text(json, "cluster", head->birth.cluster);
        json_id(json, "cluster_id", head->birth.cluster_id);
        json_text(json, "machine", head->birth.machine);
        json_text(json, "durability", offline_level_name(head->birth.configuration.level));
        json_number(json, "snapshot", head->snapshot.base.index);
        json_number(json, "snapshot_bytes", head->snapshot.bytes);
        json_number(json, "last", head->last);
        json_number(json, "last_term", s->base.term);
        json_number(json, "last_time_ns", s->base.time_ns);
        json_number(json, "blocks", s->blocks);
        json_number(json, "bytes", s->bytes);
        json_array(json, "members");
        for (uint32_t i = 0; i < members->member_count; i++) json_text(json, NULL, members->members[i].name);
        json_end(json);
        return;
    }
    printf("%s: cluster %s, id %016" PRIx64 ", machine %s\n", file, head->birth.cluster, head->birth.cluster_id,
           head->birth.machine);
    printf("made      %s, from %s\n", offline_time(head->made_ns), head->node);
    printf("holds     all that was committed up to block %" PRIu64 ", %s\n", head->last, offline_time(s->base.time_ns));
    if (head->snapshot.base.index != 0)
        printf("          a snapshot of block %" PRIu64 ", %s, and the %" PRIu64 " blocks behind it\n",
               head->snapshot.base.index, show_bytes(head->snapshot.bytes), s->blocks);
    else
        printf("          the whole log, %" PRIu64 " blocks\n", s->blocks);
    printf("members  ");
    for (uint32_t i = 0; i < members->member_count; i++) printf(" %s", members->members[i].name);
    printf("\nsize      %s\n", show_bytes(s->bytes));
}

/* --- create ----------------------------------------------------------------------------------------------------------- */

enum { CREATE_JOURNAL, CREATE_TO };

static int create_run(struct cli *cli)
{
    struct inspection *inspection;
    const char *path = cli->values[CREATE_TO];
    if (path == NULL) return cli_fail(cli, EXIT_USAGE, "backup create", "give --to FILE", "--to is missing");
    int code = offline_open(cli, cli->words[0], cli->values[CREATE_JOURNAL], &inspection);
    if (code != EXIT_OK) return code;
    struct timespec now;
    static struct backup_summary summary;
    char why[1024];
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    int rc = backup_create(inspection, disk_posix(), path, now_ns, &summary, why, sizeof why);
    inspect_close(inspection);
    if (rc != 0) return offline_fail(cli, rc, why);
    struct json json = json_to(stdout);
    if (cli->json) json_object(&json, NULL);
    summary_show(cli, &json, path, &summary);
    if (cli->json) json_end(&json);
    return EXIT_OK;
}

/* --- verify ----------------------------------------------------------------------------------------------------------- */

static int verify_run(struct cli *cli)
{
    static struct backup_summary summary;
    const char *path = cli->words[0];
    char why[1024];
    uint64_t offset = 0;
    int rc = backup_read_file(disk_posix(), path, NULL, &summary, &offset, why, sizeof why);
    if (rc != 0) {
        if (!cli->json) return cli_fail(cli, offline_exit_of(rc), path, "", "%s", why);
        struct json json = json_to(stdout);
        json_object(&json, NULL);
        json_text(&json, "error", cli_error_name(rc));
        json_text(&json, "file", path);
        json_number(&json, "offset", offset);
        json_text(&json, "text", why);
        json_signed(&json, "exit", offline_exit_of(rc));
        json_end(&json);
        return offline_exit_of(rc);
    }
    struct json json = json_to(stdout);
    if (cli->json) json_object(&json, NULL);
    summary_show(cli, &json, path, &summary);
    if (cli->json)
        json_end(&json);
    else
        printf("whole     every byte was checked\n");
    return EXIT_OK;
}

/* --- restore ---------------------------------------------------------------------------------------------------------- */

enum { RESTORE_CONFIG, RESTORE_NODE };

static int restore_run(struct cli *cli)
{
    static struct server_options server;
    static struct backup_summary summary;
    struct epoch_options options;
    struct epoch_result result;
    const char *config = cli->values[RESTORE_CONFIG] != NULL ? cli->values[RESTORE_CONFIG] : "lockstep.toml";
    char why[1024];
    int code = offline_epoch(cli, config, cli->values[RESTORE_NODE], &server, &options);
    if (code != EXIT_OK) return code;
    int rc = epoch_restore(&options, cli->words[0], &summary, &result, why, sizeof why);
    if (rc != 0) return offline_fail(cli, rc, why);
    struct json json = json_to(stdout);
    if (cli->json) {
        json_object(&json, NULL);
        json_text(&json, "directory", options.storage.directory);
        json_text(&json, "node", options.node);
        json_id(&json, "member_id", result.member_id);
        json_text(&json, "cluster", result.birth.cluster);
        json_id(&json, "cluster_id", result.birth.cluster_id);
        json_id(&json, "old_cluster_id", summary.head.birth.cluster_id);
        json_number(&json, "last", result.last.index);
    } else {
        printf("%s: restored from %s: all that was committed up to block %" PRIu64 ", %s\n", options.storage.directory,
               cli->words[0], summary.head.last, offline_time(summary.base.time_ns));
        printf("cluster %s begins again as %016" PRIx64 " (it was %016" PRIx64
               "), with %s alone; members of the old one are refused\n",
               result.birth.cluster, result.birth.cluster_id, summary.head.birth.cluster_id, options.node);
    }
    offline_epoch_next(cli, &json, &server, config);
    if (cli->json) json_end(&json);
    return EXIT_OK;
}

static const struct cli_flag create_flags[] = {
    [CREATE_JOURNAL] = OFFLINE_JOURNAL_FLAG,
    [CREATE_TO] = {"to", "FILE", "the backup; it is not there yet"},
    {NULL, NULL, NULL},
};

static const struct cli_flag restore_flags[] = {
    [RESTORE_CONFIG] = {"config", "FILE", "of the new cluster; lockstep.toml if not given"},
    [RESTORE_NODE] = {"node", "NAME", "its first node, whose data directory is made; else LOCKSTEP_NODE"},
    {NULL, NULL, NULL},
};

const struct command command_backup_create = {
    .name = "backup create",
    .words = "DIR",
    .words_min = 1,
    .words_max = 1,
    .text = "put what a stopped node holds as committed into one file",
    .details =
        "Snapshot and blocks, checked as they are read, with checksums of their own. The others go on meanwhile: stop "
        "a\nfollower. The file appears when it is complete and durable.\n" OFFLINE_DETAILS "\n"
        "  lockstep backup create data/n3 --to /backup/demo-2026-11-21\n",
    .flags = create_flags,
    .run = create_run,
};

const struct command command_backup_verify = {
    .name = "backup verify",
    .words = "FILE",
    .words_min = 1,
    .words_max = 1,
    .text = "check every byte of a backup, and say what it holds",
    .details = "Exit: 7 damaged, with the place; 1 of another version, or it cannot be read.\n\n"
               "  lockstep backup verify /backup/demo-2026-11-21\n",
    .run = verify_run,
};

const struct command command_backup_restore = {
    .name = "backup restore",
    .words = "FILE",
    .words_min = 1,
    .words_max = 1,
    .text = "begin a cluster again from a backup, with one node",
    .details = "Makes the node's data directory, which must be new or empty. The cluster gets a new id, so that no "
               "node of the old\n"
               "one is listened to any more; the others are added to it with empty directories.\n"
               "Exit: 5 the directory holds a node's files, 7 the backup is damaged: nothing was made.\n\n"
               "  lockstep backup restore /backup/demo-2026-11-21 --config lockstep.toml --node n1\n",
    .flags = restore_flags,
    .run = restore_run,
};
