/* SPDX-License-Identifier: Apache-2.0 */
/* recover_online.c - `lockstep recover --online`: a survivor that runs goes on alone, with what it has.
 *   status of the node ─> plan ─> the cluster's name ─> Recover ─> the node closes and opens ─> status until it leads
 * The node is asked for exactly what the plan was made of: another member, or another cluster, refuses. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/output.h"
#include "cli/recover.h"
#include "lockstep/errors.h"

enum { DEADLINE_MS = 60000, LOOK_MS = 100, ANSWER_MS = 5000 };

static const char *const WHAT = "recover";

static bool is_other(const struct lockstep_status *s, const struct lockstep_member *m)
{
    return m->role[0] != 0 && m->id != s->member_id;
}

static void plan_show(const struct lockstep_status *s, const char *endpoint)
{
    printf("plan: cluster %s goes on with %s alone, which runs at %s\n", s->cluster, s->name, endpoint);
    printf("  it leaves behind    ");
    bool any = false;
    for (uint32_t i = 0; i < s->member_count; i++) {
        if (!is_other(s, &s->members[i])) continue;
        printf("%s%s", any ? ", " : "", s->members[i].name);
        any = true;
    }
    printf("%s: their directories are refused from then on\n", any ? "" : "nobody");
    printf("  it has              all up to block %" PRIu64 " of term %" PRIu64 "\n", s->last_index, s->last_term);
    if (s->last_index > s->commit_index)
        printf("  it cannot know      whether blocks %" PRIu64 "..%" PRIu64
               " were committed: they count from then on, also where a client was\n"
               "                      told that their outcome is unknown\n",
               s->commit_index + 1, s->last_index);
    printf(
        "  what may be lost    every block behind %" PRIu64
        " that the others had committed without this node, acknowledged to\n"
        "                      clients or not; nobody can tell from here whether there are any\n"
        "  meanwhile           it closes all connections and opens again; commands that wait have an unknown outcome\n",
        s->last_index);
    printf("better, if it can be done\n"
           "  %s\n"
           "  recover another survivor: the one with the highest term of its last block, and among those with the "
           "highest\n"
           "  last block, has the most\n",
           s->durability == LOCKSTEP_DURABILITY_MEMORY
               ? "reach a majority of the members that still run, if the network is what is wrong: nothing is lost then"
               : "start a majority of the members again: nothing is lost then");
}

static void plan_json(struct json *json, const struct lockstep_status *s, const char *endpoint)
{
    json_text(json, "endpoint", endpoint);
    json_text(json, "node", s->name);
    json_text(json, "cluster", s->cluster);
    json_id(json, "cluster_id", s->cluster_id);
    json_number(json, "last", s->last_index);
    json_number(json, "last_term", s->last_term);
    json_number(json, "commit", s->commit_index);
    json_array(json, "left_behind");
    for (uint32_t i = 0; i < s->member_count; i++)
        if (is_other(s, &s->members[i])) json_text(json, NULL, s->members[i].name);
    json_end(json);
}

/* The commands that bring the others back. */
static void next_show(const struct cli *cli, struct json *json, const struct lockstep_status *before,
                      const char *endpoint)
{
    char line[1024];
    if (cli->json)
        json_array(json, "next");
    else
        printf("next, for each that is to come back, started with an empty directory:\n");
    for (uint32_t i = 0; i < before->member_count; i++) {
        const struct lockstep_member *m = &before->members[i];
        if (!is_other(before, m)) continue;
        bool again = false; /* a node and its replacement share a name */
        for (uint32_t k = 0; k < i; k++)
            again = again || (is_other(before, &before->members[k]) && strcmp(before->members[k].name, m->name) == 0);
        if (again) continue;
        snprintf(line, sizeof line, "lockstep member add %s --client %s --peer %s --to %s", m->name, m->client, m->peer,
                 endpoint);
        if (cli->json)
            json_text(json, NULL, line);
        else
            printf("  %s\n", line);
    }
    if (cli->json) json_end(json);
}

/* Until the node leads its new cluster. False: not in time. */
static bool wait_done(struct lockstep_client *client, uint64_t cluster_id, uint64_t end_ns,
                      struct lockstep_status *status)
{
    struct lockstep_result result;
    while (cli_now_ns() < end_ns) {
        const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000};
        int rc = lockstep_status_wait(client, ANSWER_MS, &result, status);
        if (rc == 0 && status->cluster_id == cluster_id && strcmp(status->role, "leader") == 0) return true;
        (void)nanosleep(&pause, NULL);
    }
    return false;
}

static int recover(const struct cli *cli, struct lockstep_client *client)
{
    static struct lockstep_status before, after;
    struct lockstep_result result;
    char endpoint[sizeof before.leader_client];
    if (lockstep_status_wait(client, cli->timeout_ms, &result, &before) != 0)
        return cli_fail_result(cli, WHAT, &result);
    snprintf(endpoint, sizeof endpoint, "%s", result.endpoint);
    if (before.cluster_id == 0)
        return cli_fail(cli, EXIT_REFUSED, WHAT, "ask one that was not started anew",
                        "%s at %s holds nothing: it is no member", before.name, endpoint);
    struct json json = json_to(stdout);
    if (cli->json) {
        json_object(&json, NULL);
        json_text(&json, "step", "plan");
        plan_json(&json, &before, endpoint);
        json_end(&json);
    } else {
        plan_show(&before, endpoint);
    }
    int code = recover_confirm(cli, before.cluster);
    if (code != EXIT_OK) return code;
    /* From here on: a person takes the time that it takes to read the plan. */
    uint64_t end_ns = cli_now_ns() + (cli->timeout_ms != 0 ? cli->timeout_ms : DEADLINE_MS) * UINT64_C(1000000);
    if (lockstep_recover_wait(client, before.cluster, before.cluster_id, before.member_id, ANSWER_MS, &result) != 0) {
        if (result.error == LOCKSTEP_EINVAL)
            return cli_fail(cli, EXIT_REFUSED, WHAT, "", "nothing was changed: %s", result.text);
        if (result.error == LOCKSTEP_EUNKNOWN || result.error == LOCKSTEP_ETIMEDOUT)
            return cli_fail(cli, EXIT_UNKNOWN, WHAT, "'lockstep status' shows whether it is another cluster now", "%s",
                            result.text);
        return cli_fail_result(cli, WHAT, &result);
    }
    uint64_t cluster_id = result.index;
    if (!wait_done(client, cluster_id, end_ns, &after))
        return cli_fail(cli, EXIT_UNKNOWN, WHAT, "look at its log and at 'lockstep status'",
                        "%s was told to, and does not lead cluster %016" PRIx64 " yet", before.name, cluster_id);
    if (cli->json) {
        json_object(&json, NULL);
        json_text(&json, "step", "done");
        json_id(&json, "cluster_id", cluster_id);
        json_number(&json, "last", after.last_index);
        json_number(&json, "term", after.term);
    } else {
        printf("done: cluster %s is %016" PRIx64 " from now on, with %s alone\n", after.cluster, cluster_id,
               after.name);
    }
    next_show(cli, &json, &before, endpoint);
    if (cli->json) json_end(&json);
    return EXIT_OK;
}

int recover_online(const struct cli *cli)
{
    struct lockstep_client *client;
    const char *to = cli->to != NULL ? cli->to : getenv("LOCKSTEP_ENDPOINTS");
    if (to == NULL || strchr(to, ',') != NULL)
        return cli_fail(cli, EXIT_USAGE, WHAT, "give --to HOST:PORT of the survivor", "--online asks one node");
    int code = cli_connect(cli, &client);
    if (code != EXIT_OK) return code;
    code = recover(cli, client);
    lockstep_client_close(client);
    return code;
}
