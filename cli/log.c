/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - `lockstep log inspect | verify DIR`: what a stopped node's data directory holds, and whether it is whole. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "cli/offline.h"
#include "lockstep/errors.h"

/* --- the summary --------------------------------------------------------------------------------------------------- */

static void summary_json(struct json *json, struct inspection *inspection, const char *directory)
{
    const struct inspect_view *v = inspect_view(inspection);
    json_text(json, "directory", directory);
    if (v->has_identity) {
        static const char *const states[] = {"fresh", "pending", "complete"};
        json_text(json, "node", v->identity.name);
        json_id(json, "member_id", v->identity.member_id);
        json_text(json, "state", states[v->identity.state]);
        if (v->identity.state != IDENTITY_FRESH) {
            json_text(json, "cluster", v->identity.birth.cluster);
            json_id(json, "cluster_id", v->identity.birth.cluster_id);
            json_text(json, "machine", v->identity.birth.machine);
            json_text(json, "durability", offline_level_name(v->identity.birth.configuration.level));
        }
    }
    if (v->has_boot) json_number(json, "boot", v->boot.boot);
    if (v->has_table) {
        json_number(json, "term", v->hard_state.term);
        json_id(json, "vote", v->hard_state.vote);
        json_number(json, "base", v->table.base.index);
        json_number(json, "stored", v->stored);
        json_number(json, "last", v->last);
        json_number(json, "commit", v->commit);
        json_number(json, "log_bytes", v->table.blocks_bytes);
        json_number(json, "tail_bytes", v->tail_bytes);
        json_number(json, "data_bytes", v->data_bytes);
        json_number(json, "snapshot", v->table.snapshot.base.index);
        json_number(json, "snapshot_bytes", v->table.snapshot.bytes);
        json_number(json, "journal_bytes", v->journal.bytes);
        json_number(json, "journal_from", v->table.q.seq);
        json_number(json, "journal_to", v->journal_end_seq);
    }
    if (v->configuration.configuration.member_count == 0) return;
    json_number(json, "configuration", v->configuration.index);
    json_array(json, "members");
    for (uint32_t i = 0; i < v->configuration.configuration.member_count; i++) {
        const struct configuration_member *m = &v->configuration.configuration.members[i];
        json_object(json, NULL);
        json_text(json, "name", m->name);
        json_id(json, "id", m->id);
        json_text(json, "role", offline_role_name(m->role));
        json_text(json, "client", m->client);
        json_text(json, "peer", m->peer);
        json_end(json);
    }
    json_end(json);
}

static void members_show(const struct inspect_view *v)
{
    static struct table table;
    const struct storage_configuration *c = &v->configuration;
    if (c->configuration.member_count == 0) return;
    if (c->index != 0)
        printf("\nmembers, by block %" PRIu64 "%s\n", c->index,
               c->index > v->commit ? ", not known to be committed" : "");
    else
        printf("\nmembers, by the birth record\n");
    table_clear(&table, 5);
    static const char *const heading[] = {"NODE", "MEMBER", "ROLE", "CLIENT", "PEER"};
    table_row(&table);
    for (size_t i = 0; i < 5; i++) table_cell(&table, "%s", heading[i]);
    for (uint32_t i = 0; i < c->configuration.member_count; i++) {
        const struct configuration_member *m = &c->configuration.members[i];
        table_row(&table);
        table_cell(&table, "%s", m->name);
        table_cell(&table, "%016" PRIx64, m->id);
        table_cell(&table, "%s", offline_role_name(m->role));
        table_cell(&table, "%s", m->client);
        table_cell(&table, "%s", m->peer);
    }
    table_print(&table, stdout);
}

static void log_show(const struct inspect_view *v)
{
    printf("term      %" PRIu64, v->hard_state.term);
    if (v->hard_state.vote != 0)
        printf(", voted for %016" PRIx64 "\n", v->hard_state.vote);
    else
        printf(", voted for nobody\n");
    if (v->last >= v->first)
        printf("log       blocks %" PRIu64 "..%" PRIu64 ", known to be committed up to %" PRIu64 "\n", v->first,
               v->last, v->commit);
    else
        printf("log       no block behind %" PRIu64 "\n", v->last);
    if (v->stored >= v->first)
        printf("          in data.mdb: ..%" PRIu64 ", %s\n", v->stored, show_bytes(v->table.blocks_bytes));
    if (v->last > v->stored)
        printf("          in the journal alone: %" PRIu64 "..%" PRIu64 ", %s\n", v->stored + 1, v->last,
               show_bytes(v->tail_bytes));
    if (v->table.snapshot.base.index != 0)
        printf("snapshot  of block %" PRIu64 ", %s\n", v->table.snapshot.base.index,
               show_bytes(v->table.snapshot.bytes));
    else
        printf("snapshot  none\n");
    printf("journal   %s, ", show_bytes(v->journal.bytes));
    if (v->journal_end_seq > v->table.q.seq)
        printf("frames %" PRIu64 "..%" PRIu64 " are replayed at the next start\n", v->table.q.seq + 1,
               v->journal_end_seq);
    else
        printf("no frame has to be replayed at the next start\n");
}

static void summary_show(struct inspection *inspection, const char *directory)
{
    const struct inspect_view *v = inspect_view(inspection);
    if (v->has_identity) {
        const struct identity *is = &v->identity;
        printf("%s: node %s, member %016" PRIx64 "\n", directory, is->name, is->member_id);
        if (is->state == IDENTITY_FRESH)
            printf("cluster   none: it was never part of one\n");
        else
            printf("cluster   %s%s, id %016" PRIx64 ", machine %s, durable by %s\n", is->birth.cluster,
                   is->state == IDENTITY_PENDING ? " (not born yet)" : "", is->birth.cluster_id, is->birth.machine,
                   offline_level_name(is->birth.configuration.level));
    }
    if (v->has_boot) printf("starts    %" PRIu64 "\n", v->boot.boot);
    if (v->has_table) log_show(v);
    members_show(v);
}

/* --- blocks ----------------------------------------------------------------------------------------------------------- */

static void commands_show(const struct cli *cli, struct json *json, const uint8_t *block,
                          const struct block_header *header)
{
    struct block_cursor cursor = block_cursor(block, header);
    struct command_view view;
    if (cli->json) json_array(json, "commands_in");
    while (block_cursor_next(&cursor, &view)) {
        const struct command_header *c = &view.header;
        if (cli->json) {
            json_object(json, NULL);
            json_number(json, "position", view.position);
            json_text(json, "kind", show_command_kind(c->kind));
            json_number(json, "session", c->session);
            json_number(json, "seq", c->seq);
            json_number(json, "entity", c->entity);
            json_bytes(json, "payload", view.payload, c->bytes);
            json_end(json);
            continue;
        }
        printf("             %12" PRIu64 "  %s", view.position, show_command_kind(c->kind));
        if (c->session != 0) printf(" session=%" PRIu64 " seq=%" PRIu64, c->session, c->seq);
        if (c->entity != 0) printf(" entity=%" PRIu64, c->entity);
        printf(" bytes=%" PRIu32 "%s", c->bytes, c->bytes > 0 ? "  " : "");
        enum { SHOWN_BYTES_MAX = 120 };
        show_reply(stdout, true, view.payload, c->bytes < SHOWN_BYTES_MAX ? c->bytes : SHOWN_BYTES_MAX);
        printf("%s\n", c->bytes > SHOWN_BYTES_MAX ? "..." : "");
    }
    if (cli->json) json_end(json);
}

/* ret  EXIT_OK, EXIT_DIVERGED */
static int block_show(const struct cli *cli, struct inspection *inspection, raft_index index, bool commands)
{
    const uint8_t *block;
    struct block_header header = {0};
    const char *file = "";
    uint64_t offset = UINT64_MAX;
    struct json json = json_to(stdout);
    int rc = inspect_block(inspection, index, &block, &header, &file, &offset);
    if (cli->json) {
        json_object(&json, NULL);
        json_number(&json, "index", index);
        json_text(&json, "file", file);
        if (offset != UINT64_MAX) json_number(&json, "offset", offset);
        if (rc != 0) {
            json_text(&json, "error", cli_error_name(rc));
        } else {
            json_number(&json, "term", header.term);
            json_text(&json, "type", offline_block_type_name(header.type));
            json_number(&json, "commands", header.count);
            json_number(&json, "bytes", header.bytes);
            json_number(&json, "first_position", header.first_position);
            json_number(&json, "time_ns", header.time_ns);
            json_bool(&json, "committed", index <= inspect_view(inspection)->commit);
            if (commands && header.type == BLOCK_COMMANDS) commands_show(cli, &json, block, &header);
        }
        json_end(&json);
    } else if (rc != 0) {
        printf("%10" PRIu64 "  %s (in %s)\n", index, lockstep_error_text(rc), file);
    } else {
        char place[64];
        snprintf(place, sizeof place, "%s@%" PRIu64, file, offset);
        printf("%10" PRIu64 " %6" PRIu64 "  %-13s %8" PRIu32 " %12" PRIu64 " %9" PRIu32 "  %s  %s%s\n", index,
               header.term, offline_block_type_name(header.type), header.count, header.first_position, header.bytes,
               offline_time(header.time_ns), place,
               index > inspect_view(inspection)->commit ? "  not known committed" : "");
        if (commands && header.type == BLOCK_COMMANDS) commands_show(cli, &json, block, &header);
    }
    return offline_exit_of(rc);
}

static int blocks_show(const struct cli *cli, struct inspection *inspection, uint64_t from, uint64_t to, bool commands)
{
    const struct inspect_view *v = inspect_view(inspection);
    int code = EXIT_OK;
    if (from < v->first) from = v->first;
    if (to > v->last) to = v->last;
    if (!v->has_table || from > to) return EXIT_OK;
    if (!cli->json)
        printf("\n%10s %6s  %-13s %8s %12s %9s  %-24s  %s\n", "BLOCK", "TERM", "TYPE", "COMMANDS", "POSITION", "BYTES",
               "TIME", "WHERE");
    for (uint64_t index = from; index <= to; index++) {
        int now = block_show(cli, inspection, index, commands);
        if (now != EXIT_OK) code = now;
    }
    return code;
}

/* --- frames ------------------------------------------------------------------------------------------------------------- */

static void frame_show(void *context, const struct inspect_frame *frame)
{
    static const char *const types[] = {
        [FRAME_RECORDS] = "records", [FRAME_MARKER] = "marker", [FRAME_PACK] = "pack", [FRAME_INSTALL] = "install"};
    const struct cli *cli = context;
    const struct frame_header *h = &frame->header;
    if (!cli->json) {
        printf("%10" PRIu64 "  %-8s %6" PRIu64 " %12" PRIu64 " %9" PRIu64 " %7" PRIu32 " %8" PRIu64 " %10" PRIu64
               " %10" PRIu64 "\n",
               h->seq, types[h->type], h->lap, frame->offset, frame->bytes, h->block_count, h->group.term,
               h->group.last_index, h->group.commit);
        return;
    }
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_number(&json, "frame", h->seq);
    json_text(&json, "type", types[h->type]);
    json_number(&json, "lap", h->lap);
    json_number(&json, "offset", frame->offset);
    json_number(&json, "bytes", frame->bytes);
    json_number(&json, "flushed", h->flushed_seq);
    json_number(&json, "blocks", h->block_count);
    if (h->has_group) {
        json_number(&json, "term", h->group.term);
        json_id(&json, "vote", h->group.vote);
        json_number(&json, "last", h->group.last_index);
        json_number(&json, "commit", h->group.commit);
    }
    json_end(&json);
}

/* --- the commands ------------------------------------------------------------------------------------------------------- */

enum { INSPECT_JOURNAL, INSPECT_FROM, INSPECT_TO, INSPECT_COMMANDS, INSPECT_FRAMES };

static int inspect_run(struct cli *cli)
{
    struct inspection *inspection;
    uint64_t from = 1, to = UINT64_MAX;
    int code = cli_number(cli, INSPECT_FROM, 1, UINT64_MAX, &from);
    if (code == EXIT_OK) code = cli_number(cli, INSPECT_TO, 1, UINT64_MAX, &to);
    if (code == EXIT_OK) code = offline_open(cli, cli->words[0], cli->values[INSPECT_JOURNAL], &inspection);
    if (code != EXIT_OK) return code;
    struct json json = json_to(stdout);
    if (cli->json) {
        json_object(&json, NULL);
        summary_json(&json, inspection, cli->words[0]);
    } else {
        summary_show(inspection, cli->words[0]);
    }
    code = offline_findings(cli, inspection, NULL, &json);
    if (cli->json) {
        json_signed(&json, "exit", code);
        json_end(&json);
    }
    bool commands = cli->values[INSPECT_COMMANDS] != NULL;
    if (commands || cli->values[INSPECT_FROM] != NULL || cli->values[INSPECT_TO] != NULL) {
        int blocks = blocks_show(cli, inspection, from, to, commands);
        if (code == EXIT_OK) code = blocks;
    }
    if (cli->values[INSPECT_FRAMES] != NULL) {
        if (!cli->json)
            printf("\n%10s  %-8s %6s %12s %9s %7s %8s %10s %10s\n", "FRAME", "TYPE", "LAP", "BYTE", "BYTES", "BLOCKS",
                   "TERM", "LAST", "COMMIT");
        int rc = inspect_frames(inspection, frame_show, cli);
        if (rc != 0) code = offline_fail(cli, rc, "the journal cannot be read; look at the disk");
    }
    inspect_close(inspection);
    return code;
}

static int verify_run(struct cli *cli)
{
    struct inspection *inspection;
    int code = offline_open(cli, cli->words[0], cli->values[0], &inspection);
    if (code != EXIT_OK) return code;
    int rc = inspect_verify(inspection);
    if (rc != 0) {
        inspect_close(inspection);
        return offline_fail(cli, rc, "out of memory; free some");
    }
    const struct inspect_view *v = inspect_view(inspection);
    struct json json = json_to(stdout);
    if (cli->json) {
        json_object(&json, NULL);
        summary_json(&json, inspection, cli->words[0]);
    }
    code = offline_findings(cli, inspection, NULL, &json);
    if (cli->json) {
        json_signed(&json, "exit", code);
        json_end(&json);
    } else if (code == EXIT_OK && v->has_table && v->last >= v->first) {
        printf("%s: whole: blocks %" PRIu64 "..%" PRIu64 ", %s%s\n", cli->words[0], v->first, v->last,
               show_bytes(v->table.blocks_bytes + v->tail_bytes),
               v->table.snapshot.base.index != 0 ? ", and its snapshot" : "");
    } else if (code == EXIT_OK) {
        printf("%s: whole: its log is empty%s\n", cli->words[0],
               v->table.snapshot.base.index != 0 ? " behind its snapshot, which is whole" : "");
    } else {
        size_t count;
        (void)inspect_findings(inspection, &count);
        printf("%s: not whole: %zu finding%s\n", cli->words[0], count, count == 1 ? "" : "s");
    }
    inspect_close(inspection);
    return code;
}

static const struct cli_flag inspect_flags[] = {
    [INSPECT_JOURNAL] = OFFLINE_JOURNAL_FLAG,
    [INSPECT_FROM] = {"from", "INDEX", "list blocks, from this one on"},
    [INSPECT_TO] = {"to", "INDEX", "list blocks, up to this one"},
    [INSPECT_COMMANDS] = {"commands", NULL, "list blocks with the commands in them"},
    [INSPECT_FRAMES] = {"frames", NULL, "list the journal's frames that the next start replays"},
    {NULL, NULL, NULL},
};

static const struct cli_flag verify_flags[] = {OFFLINE_JOURNAL_FLAG, {NULL, NULL, NULL}};

const struct command command_log_inspect = {
    .name = "log inspect",
    .words = "DIR",
    .words_min = 1,
    .words_max = 1,
    .text = "what a stopped node's data directory holds",
    .details = OFFLINE_DETAILS "\n"
                               "  lockstep log inspect /var/lib/lockstep\n"
                               "  lockstep log inspect data/n1 --from 100 --to 120 --commands\n"
                               "  lockstep log inspect data/n1 --frames -o json\n",
    .flags = inspect_flags,
    .run = inspect_run,
};

const struct command command_log_verify = {
    .name = "log verify",
    .words = "DIR",
    .words_min = 1,
    .words_max = 1,
    .text = "check every block, term, configuration and snapshot in it",
    .details = OFFLINE_DETAILS "\n"
                               "  lockstep log verify /var/lib/lockstep\n"
                               "  lockstep log verify data/n1 --journal /fast/n1 -o json\n",
    .flags = verify_flags,
    .run = verify_run,
};
