/* SPDX-License-Identifier: Apache-2.0 */
/* member.c - `lockstep member add | promote | remove | replace`: change who belongs to the cluster, while it runs.
 * One call to the leader, which goes on where it stopped when it is asked again: so the client library may repeat it when
 * the leader dies. Meanwhile the leader is asked how far it is, and that is shown on standard error. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

enum { DEADLINE_MS = 60000, LOOK_MS = 300 };

struct member_run {
    const struct cli *cli;
    struct lockstep_member_change change;
    bool was_there; /* remove: it was a member when this began */
    bool done;
    int exit_code;
    char shown[LOCKSTEP_TEXT_BYTES_MAX]; /* of the progress, last */
};

static void tell(const struct member_run *run, const char *text, uint64_t index)
{
    if (run->cli->json) {
        struct json json = json_to(stdout);
        json_object(&json, NULL);
        json_text(&json, "member", run->change.name);
        json_text(&json, "text", text);
        json_number(&json, "configuration", index);
        json_signed(&json, "exit", EXIT_OK);
        json_end(&json);
        return;
    }
    printf("%s: %s\n", run->change.name, text);
}

static void ended(void *context, const struct lockstep_result *result)
{
    static const char *const done[] = {[LOCKSTEP_MEMBER_ADD] = "is a voter now",
                                       [LOCKSTEP_MEMBER_PROMOTE] = "is a voter now",
                                       [LOCKSTEP_MEMBER_REMOVE] = "is a member no more",
                                       [LOCKSTEP_MEMBER_REPLACE] = "has taken the old one's place"};
    struct member_run *run = context;
    const char *name = run->cli->command->name;
    char text[LOCKSTEP_TEXT_BYTES_MAX];
    run->done = true;
    snprintf(text, sizeof text, "%.*s", (int)result->reply_bytes, (const char *)result->reply);
    if (strcmp(text, "done") == 0) {
        bool learner = run->change.kind == LOCKSTEP_MEMBER_ADD && run->change.learner;
        snprintf(text, sizeof text, "%s", learner ? "is a learner now" : done[run->change.kind]);
    }
    /* It was asked for once more after its leader had died, and had been done. */
    bool gone = result->error == LOCKSTEP_ENOTFOUND && run->change.kind == LOCKSTEP_MEMBER_REMOVE && run->was_there;
    if (result->error == 0 || gone)
        tell(run, gone ? done[LOCKSTEP_MEMBER_REMOVE] : text, result->index);
    else if (result->error == LOCKSTEP_ETIMEDOUT)
        run->exit_code =
            cli_fail(run->cli, EXIT_UNKNOWN, name, "'lockstep status' shows how far it is", "%s", result->text);
    else
        run->exit_code = cli_fail_result(run->cli, name, result);
}

/* --- progress --- */

static void progress_came(void *context, const struct lockstep_result *result, const struct lockstep_status *status)
{
    struct member_run *run = context;
    if (result->error != 0 || run->done || status->change[0] == 0 || strcmp(status->change, run->shown) == 0) return;
    snprintf(run->shown, sizeof run->shown, "%s", status->change);
    fprintf(stderr, "%s\n", run->shown);
}

/* The leader alone knows how far a change is: asked by a client of its own, so that the change has its connection. */
static void show_progress(struct member_run *run, struct lockstep_client *client, struct lockstep_client *watch)
{
    while (!run->done) {
        struct pollfd fds[2] = {{.fd = lockstep_client_fd(client), .events = POLLIN}};
        nfds_t count = 1;
        if (watch != NULL) {
            if (lockstep_client_running(watch) == 0) (void)lockstep_status(watch, LOOK_MS * 3, progress_came, run);
            fds[count++] = (struct pollfd){.fd = lockstep_client_fd(watch), .events = POLLIN};
        }
        int wait_ms = lockstep_client_timeout_ms(client);
        if (wait_ms < 0 || wait_ms > LOOK_MS) wait_ms = LOOK_MS;
        (void)poll(fds, count, wait_ms);
        (void)lockstep_client_poll(client, 0);
        if (watch != NULL) (void)lockstep_client_poll(watch, 0);
    }
}

/* Of two members that share the name, a node and its replacement, the voter goes. 0: not known. */
static uint64_t id_of(const struct lockstep_status *status, const char *name)
{
    uint64_t ret = 0;
    for (uint32_t i = 0; i < status->member_count; i++)
        if (strcmp(status->members[i].name, name) == 0 && (ret == 0 || status->members[i].voter))
            ret = status->members[i].id;
    return ret;
}

static int member_run(struct member_run *run)
{
    const struct cli *cli = run->cli;
    struct lockstep_client *client, *watch = NULL;
    static struct lockstep_status status;
    struct lockstep_result result;
    char why[512], old_id[17];
    int rc = cli_connect(cli, &client);
    if (rc != EXIT_OK) return rc;
    if (lockstep_status_wait(client, 2000, &result, &status) == 0) {
        for (uint32_t i = 0; i < status.member_count; i++)
            if (strcmp(status.members[i].name, run->change.name) == 0) run->was_there = true;
        struct lockstep_client_options options = {.size = sizeof options, .endpoints = status.leader_client};
        if (status.leader_client[0] != 0 && lockstep_client_open(&options, &watch, why, sizeof why) != 0)
            watch = NULL; /* then without it */
    }
    /* Old and new may have one name. Who goes is told by its id, so that the leader knows them apart, also when it is asked
     * once more for what was done. */
    if (run->change.kind == LOCKSTEP_MEMBER_REPLACE && watch != NULL &&
        lockstep_status_wait(watch, 2000, &result, &status) == 0 && id_of(&status, run->change.old_name) != 0) {
        snprintf(old_id, sizeof old_id, "%016" PRIx64, id_of(&status, run->change.old_name));
        run->change.old_name = old_id;
    }
    run->change.size = sizeof run->change;
    run->change.deadline_ms = cli->timeout_ms != 0 ? cli->timeout_ms : DEADLINE_MS;
    int started = lockstep_member_change(client, &run->change, ended, run);
    if (started == 0)
        show_progress(run, client, cli->json ? NULL : watch);
    else
        run->exit_code = cli_fail(cli, EXIT_FAILED, cli->command->name, "", "%s", lockstep_error_text(started));
    lockstep_client_close(watch);
    lockstep_client_close(client);
    return run->exit_code;
}

/* --- the commands --- */

enum { FLAG_CLIENT, FLAG_PEER, FLAG_LEARNER, FLAG_PRIORITY };
enum { FLAG_FORCE = 0 };

static int read_priority(const struct cli *cli, int flag, struct member_run *run)
{
    uint64_t priority = 0;
    int rc = cli_number(cli, flag, 0, 255, &priority);
    run->change.priority = (uint32_t)priority;
    return rc;
}

static int add_run(struct cli *cli)
{
    struct member_run run = {.cli = cli};
    run.change.kind = LOCKSTEP_MEMBER_ADD;
    run.change.name = cli->words[0];
    run.change.client = cli->values[FLAG_CLIENT];
    run.change.peer = cli->values[FLAG_PEER];
    run.change.learner = cli->values[FLAG_LEARNER] != NULL;
    if (run.change.client == NULL || run.change.peer == NULL)
        return cli_fail(cli, EXIT_USAGE, cli->command->name, "give --client HOST:PORT and --peer HOST:PORT",
                        "%s is missing", run.change.client == NULL ? "--client" : "--peer");
    int rc = read_priority(cli, FLAG_PRIORITY, &run);
    return rc != EXIT_OK ? rc : member_run(&run);
}

static int promote_run(struct cli *cli)
{
    struct member_run run = {.cli = cli};
    run.change.kind = LOCKSTEP_MEMBER_PROMOTE;
    run.change.name = cli->words[0];
    return member_run(&run);
}

static int remove_run(struct cli *cli)
{
    struct member_run run = {.cli = cli};
    run.change.kind = LOCKSTEP_MEMBER_REMOVE;
    run.change.name = cli->words[0];
    run.change.force = cli->values[FLAG_FORCE] != NULL;
    return member_run(&run);
}

static int replace_run(struct cli *cli)
{
    struct member_run run = {.cli = cli};
    run.change.kind = LOCKSTEP_MEMBER_REPLACE;
    run.change.old_name = cli->words[0];
    run.change.name = cli->words[cli->word_count - 1]; /* the same name, if only one is given */
    run.change.client = cli->values[FLAG_CLIENT];
    run.change.peer = cli->values[FLAG_PEER];
    int rc = read_priority(cli, FLAG_LEARNER, &run); /* its third flag */
    return rc != EXIT_OK ? rc : member_run(&run);
}

#define DETAILS_ENDS                                                                                                   \
    "Shows on standard error how far it is. Asked again, it goes on where it stopped. Exit: 3 not ready (another\n"    \
    "change runs, the new node cannot be reached), 5 refused, with the reason, 6 not done in time.\n"

static const struct cli_flag add_flags[] = {
    [FLAG_CLIENT] = {"client", "HOST:PORT", "where clients reach it"},
    [FLAG_PEER] = {"peer", "HOST:PORT", "where the other nodes reach it"},
    [FLAG_LEARNER] = {"learner", NULL, "it stays a learner: holds the log, does not vote"},
    [FLAG_PRIORITY] = {"priority", "0..255", "the higher, the rather it leads"},
    {NULL, NULL, NULL},
};

static const struct cli_flag remove_flags[] = {
    [FLAG_FORCE] = {"force", NULL, "though it is not heard; never if the quorum would be lost"},
    {NULL, NULL, NULL},
};

static const struct cli_flag replace_flags[] = {
    {"client", "HOST:PORT", "where clients reach the new one; as the old one's"},
    {"peer", "HOST:PORT", "where the other nodes reach the new one; as the old one's"},
    {"priority", "0..255", "the higher, the rather it leads"},
    {NULL, NULL, NULL},
};

const struct command command_member_add = {
    .name = "member add",
    .words = "NAME",
    .words_min = 1,
    .words_max = 1,
    .text = "admit a new node: it learns, catches up, and votes",
    .details =
        "Start it first, with an empty data directory, the cluster's file and its own [node.NAME] section: it waits.\n"
        "The leader dials it, and appends nothing unless cluster, versions, machine and durability "
        "agree.\n" DETAILS_ENDS,
    .talks = true,
    .flags = add_flags,
    .run = add_run,
};

const struct command command_member_promote = {
    .name = "member promote",
    .words = "NAME",
    .words_min = 1,
    .words_max = 1,
    .text = "let a learner vote, when it has caught up",
    .details = DETAILS_ENDS,
    .talks = true,
    .run = promote_run,
};

const struct command command_member_remove = {
    .name = "member remove",
    .words = "NAME",
    .words_min = 1,
    .words_max = 1,
    .text = "remove a member; its process ends by itself",
    .details =
        "NAME or the id that 'lockstep status -o json' shows. A voter that is not heard is removed with --force only,\n"
        "and nothing is removed that would lose the quorum. Its directory is of no more use afterwards.\n" DETAILS_ENDS,
    .talks = true,
    .flags = remove_flags,
    .run = remove_run,
};

const struct command command_member_replace = {
    .name = "member replace",
    .words = "OLD [NEW]",
    .words_min = 1,
    .words_max = 2,
    .text = "put a new node in the place of one that was lost or emptied",
    .details =
        "Without NEW the new node has the name and the addresses of the old one: start it with an empty directory.\n"
        "It learns and catches up; then it takes the old one's place in one step, so that no quorum "
        "shrinks.\n" DETAILS_ENDS,
    .talks = true,
    .flags = replace_flags,
    .run = replace_run,
};
