/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c - `lockstep snapshot list | verify DIR`: the states that a stopped node's data directory keeps. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/offline.h"
#include "storage/snapshot_file.h"

static void show(const struct cli *cli, struct json *json, enum storage_which which, const struct storage_snapshot *is,
                 uint64_t held)
{
    char file[SNAPSHOT_NAME_BYTES] = SNAPSHOT_NAME_INCOMING;
    const char *state = which == STORAGE_SNAPSHOT_NEWEST ? "counts" : held == is->bytes ? "arrived" : "arriving";
    if (which == STORAGE_SNAPSHOT_NEWEST) snapshot_file_name(file, is->base.index);
    if (cli->json) {
        json_object(json, NULL);
        json_text(json, "file", file);
        json_number(json, "index", is->base.index);
        json_number(json, "term", is->base.term);
        json_number(json, "next_position", is->base.next_position);
        json_number(json, "time_ns", is->base.time_ns);
        json_number(json, "bytes", is->bytes);
        json_number(json, "held_bytes", held);
        json_number(json, "checksum", is->checksum);
        json_text(json, "state", state);
        json_end(json);
        return;
    }
    printf("%-29s %10" PRIu64 " %6" PRIu64 "  %-24s  %10s  %08" PRIx32 "  %s", file, is->base.index, is->base.term,
           offline_time(is->base.time_ns), show_bytes(is->bytes), is->checksum, state);
    if (held != is->bytes) printf(", %s of it", show_bytes(held));
    printf("\n");
}

static int snapshots_run(struct cli *cli, bool check)
{
    static const enum storage_which both[] = {STORAGE_SNAPSHOT_NEWEST, STORAGE_SNAPSHOT_INCOMING};
    struct inspection *inspection;
    int code = offline_open(cli, cli->words[0], NULL, &inspection);
    if (code != EXIT_OK) return code;
    const struct inspect_view *v = inspect_view(inspection);
    struct json json = json_to(stdout);
    if (cli->json) {
        json_object(&json, NULL);
        json_text(&json, "directory", cli->words[0]);
        json_array(&json, "snapshots");
    }
    unsigned count = 0;
    for (unsigned i = 0; i < 2; i++) {
        struct storage_snapshot is;
        uint64_t held;
        inspect_snapshot(inspection, both[i], &is, &held);
        if (is.base.index == 0) continue;
        if (count++ == 0 && !cli->json)
            printf("%-29s %10s %6s  %-24s  %10s  %-8s  %s\n", "FILE", "BLOCK", "TERM", "TIME", "SIZE", "CHECKSUM",
                   "STATE");
        show(cli, &json, both[i], &is, held);
    }
    if (cli->json) json_end(&json);
    if (check) inspect_verify_snapshot(inspection);
    bool readable = v->has_table || !v->has_boot; /* the record that names the one that counts */
    code = offline_findings(cli, inspection, readable ? "snapshot" : NULL, &json);
    if (cli->json) {
        json_signed(&json, "exit", code);
        json_end(&json);
    } else if (code == EXIT_OK && count == 0) {
        printf("%s: no snapshot: the whole log is kept\n", cli->words[0]);
    } else if (code == EXIT_OK && check) {
        printf("%s: whole: every byte was checked\n", cli->words[0]);
    }
    inspect_close(inspection);
    return code;
}

static int list_run(struct cli *cli)
{
    return snapshots_run(cli, false);
}

static int verify_run(struct cli *cli)
{
    return snapshots_run(cli, true);
}

const struct command command_snapshot_list = {
    .name = "snapshot list",
    .words = "DIR",
    .words_min = 1,
    .words_max = 1,
    .text = "the snapshots in a stopped node's data directory",
    .details = OFFLINE_DETAILS "\n  lockstep snapshot list data/n1\n  lockstep snapshot list data/n1 -o json\n",
    .run = list_run,
};

const struct command command_snapshot_verify = {
    .name = "snapshot verify",
    .words = "DIR",
    .words_min = 1,
    .words_max = 1,
    .text = "read them, and check every byte",
    .details = OFFLINE_DETAILS "\n  lockstep snapshot verify data/n1\n  lockstep snapshot verify data/n1 -o json\n",
    .run = verify_run,
};
