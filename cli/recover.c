/* SPDX-License-Identifier: Apache-2.0 */
/* recover.c - `lockstep recover`: the quorum is lost for good; a survivor goes on alone with what it has. Here from its
 * directory; while it runs, recover_online.c.
 * The plan is printed first, with what may be lost; nothing is changed before the cluster's name was given. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/offline.h"
#include "cli/recover.h"
#include "lockstep/errors.h"

enum { CONFIG, NODE, CONFIRM, ONLINE };

struct plan {
    const char *directory;
    struct inspect_view view;
    struct block_header last; /* index 0: the log is empty behind its base */
};

static void members_lost(const struct plan *plan, char *to, size_t room)
{
    const struct configuration *c = &plan->view.configuration.configuration;
    size_t used = 0;
    to[0] = 0;
    for (uint32_t i = 0; i < c->member_count && used + 1 < room; i++) {
        if (c->members[i].id == plan->view.identity.member_id) continue;
        int n = snprintf(to + used, room - used, "%s%s", used == 0 ? "" : ", ", c->members[i].name);
        used += n > 0 ? (size_t)n : 0;
    }
}

static void plan_show(const struct plan *plan)
{
    const struct inspect_view *v = &plan->view;
    char lost[1024];
    members_lost(plan, lost, sizeof lost);
    printf("plan: cluster %s goes on with %s alone, from %s\n", v->identity.birth.cluster, v->identity.name,
           plan->directory);
    printf("  it leaves behind    %s: their directories are refused from then on\n", lost[0] != 0 ? lost : "nobody");
    printf("  it has              all up to block %" PRIu64 " of term %" PRIu64 ", %s\n", v->last,
           plan->last.index != 0 ? plan->last.term : v->table.base.term,
           offline_time(plan->last.index != 0 ? plan->last.time_ns : v->table.base.time_ns));
    if (v->last > v->commit)
        printf("  it cannot know      whether blocks %" PRIu64 "..%" PRIu64
               " were committed: they count from then on, also where a client was\n"
               "                      told that their outcome is unknown\n",
               v->commit + 1, v->last);
    printf("  what may be lost    every block behind %" PRIu64
           " that the others had committed without this node, acknowledged to\n"
           "                      clients or not; nobody can tell from here whether there are any\n",
           v->last);
    printf(
        "better, if it can be done\n"
        "  start a majority of the members again: nothing is lost then\n"
        "  recover another survivor: 'lockstep log inspect' on each; the one with the highest term of its last block,\n"
        "  and among those with the highest last block, has the most\n");
}

static void plan_json(struct json *json, const struct plan *plan)
{
    const struct inspect_view *v = &plan->view;
    const struct configuration *c = &v->configuration.configuration;
    json_text(json, "directory", plan->directory);
    json_text(json, "node", v->identity.name);
    json_text(json, "cluster", v->identity.birth.cluster);
    json_id(json, "cluster_id", v->identity.birth.cluster_id);
    json_number(json, "last", v->last);
    json_number(json, "last_term", plan->last.index != 0 ? plan->last.term : v->table.base.term);
    json_number(json, "last_time_ns", plan->last.index != 0 ? plan->last.time_ns : v->table.base.time_ns);
    json_number(json, "commit", v->commit);
    json_array(json, "left_behind");
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].id != v->identity.member_id) json_text(json, NULL, c->members[i].name);
    json_end(json);
}

int recover_confirm(const struct cli *cli, const char *cluster)
{
    const char *given = cli->values[CONFIRM];
    char line[IDENTITY_NAME_BYTES_MAX + 2];
    if (given == NULL && (cli->json || !isatty(STDIN_FILENO)))
        return cli_fail(cli, EXIT_REFUSED, "recover", "if the plan is right, give --confirm with the cluster's name",
                        "nothing was changed: nobody confirmed it");
    if (given == NULL) {
        printf("to go on, type the cluster's name: ");
        fflush(stdout);
        if (fgets(line, sizeof line, stdin) == NULL) line[0] = 0;
        line[strcspn(line, "\r\n")] = 0;
        given = line;
    }
    if (strcmp(given, cluster) == 0) return EXIT_OK;
    return cli_fail(cli, EXIT_REFUSED, "recover", "", "nothing was changed: the cluster's name is not '%s'", given);
}

/* What the directory holds; refused unless all of it can be read. */
static int look(const struct cli *cli, const struct epoch_options *options, struct plan *ret)
{
    const char *word = options->storage.directory;
    struct inspection *inspection;
    int code = offline_open(cli, word, options->storage.journal_directory, &inspection);
    if (code != EXIT_OK) return code;
    size_t count;
    (void)inspect_findings(inspection, &count);
    *ret = (struct plan){.directory = options->storage.directory, .view = *inspect_view(inspection)};
    if (count != 0)
        code = cli_fail(cli, EXIT_DIVERGED, "recover",
                        "'lockstep log verify' says where; recover another survivor, or restore a backup",
                        "%s is damaged", word);
    else if (!ret->view.has_tail || ret->view.identity.state != IDENTITY_COMPLETE)
        code = cli_fail(cli, EXIT_REFUSED, "recover", "start it as it is", "%s was never part of a cluster", word);
    else if (ret->view.last >= ret->view.first) {
        const uint8_t *block;
        int rc = inspect_block(inspection, ret->view.last, &block, &ret->last, NULL, NULL);
        if (rc != 0) code = offline_fail(cli, rc, "the last block cannot be read");
    }
    inspect_close(inspection);
    return code;
}

static int recover_run(struct cli *cli)
{
    static struct server_options server;
    static struct plan plan;
    struct epoch_options options;
    struct epoch_result result;
    const char *config = cli->values[CONFIG] != NULL ? cli->values[CONFIG] : "lockstep.toml";
    char why[1024];
    if (cli->values[ONLINE] != NULL && (cli->values[CONFIG] != NULL || cli->values[NODE] != NULL))
        return cli_fail(cli, EXIT_USAGE, "recover", "leave them out: --to names the node", "%s",
                        "--config and --node are of a node that is stopped");
    if (cli->values[ONLINE] != NULL) return recover_online(cli);
    if (cli->to != NULL)
        return cli_fail(cli, EXIT_USAGE, "recover", "to ask a running node, give --online too",
                        "--to is of a node that runs");
    int code = offline_epoch(cli, config, cli->values[NODE], &server, &options);
    if (code == EXIT_OK) code = look(cli, &options, &plan);
    if (code != EXIT_OK) return code;
    if (strcmp(plan.view.identity.birth.cluster, options.cluster) != 0)
        return cli_fail(cli, EXIT_REFUSED, "recover", "give the file of its own cluster",
                        "%s belongs to cluster \"%s\", %s says \"%s\"", plan.directory,
                        plan.view.identity.birth.cluster, config, options.cluster);
    struct json json = json_to(stdout);
    if (cli->json) {
        json_object(&json, NULL);
        json_text(&json, "step", "plan");
        plan_json(&json, &plan);
        json_end(&json);
    } else {
        plan_show(&plan);
    }
    code = recover_confirm(cli, plan.view.identity.birth.cluster);
    if (code != EXIT_OK) return code;
    int rc = epoch_recover(&options, &result, why, sizeof why);
    if (rc != 0) return offline_fail(cli, rc, why);
    if (cli->json) {
        json_object(&json, NULL);
        json_text(&json, "step", "done");
        json_id(&json, "cluster_id", result.birth.cluster_id);
        json_number(&json, "last", result.last.index);
        json_number(&json, "term", result.last.term);
    } else {
        printf("done: cluster %s is %016" PRIx64 " from now on, with %s alone\n", result.birth.cluster,
               result.birth.cluster_id, options.node);
    }
    offline_epoch_next(cli, &json, &server, config);
    if (cli->json) json_end(&json);
    return EXIT_OK;
}

static const struct cli_flag flags[] = {
    [CONFIG] = {"config", "FILE", "the cluster's file; lockstep.toml if not given"},
    [NODE] = {"node", "NAME", "the survivor, on whose host this runs; else LOCKSTEP_NODE"},
    [CONFIRM] = {"confirm", "CLUSTER", "the cluster's name, instead of typing it"},
    [ONLINE] = {"online", NULL, "the survivor runs: it is asked at --to, and keeps running"},
    {NULL, NULL, NULL},
};

const struct command command_recover = {
    .name = "recover",
    .words = "",
    .text = "a majority is lost for good: go on with this node alone",
    .details =
        "Prints its plan and what may be lost, and asks for the cluster's name before it changes anything. Every node "
        "of the\n"
        "cluster that still runs has to be stopped. The cluster gets a new id: no other member's directory is taken\n"
        "again; the others are added with empty ones. Cut short, it can be run again.\n"
        "With --online the survivor that runs at --to does it; at durability \"memory\" a restart would empty it. It "
        "closes,\n"
        "makes itself the only member, and opens again, in a moment; clients have to connect anew.\n"
        "Exit: 5 not confirmed, in use by a running node, or, online, a majority is heard; 7 the directory is "
        "damaged:\n"
        "nothing was changed. 6: it was begun, and is not known to be done.\n\n"
        "  lockstep recover --config lockstep.toml --node n2\n"
        "  lockstep recover --config lockstep.toml --node n2 --confirm demo -o json\n"
        "  lockstep recover --online --to 10.0.0.2:7401\n",
    .talks = true,
    .flags = flags,
    .run = recover_run,
};
