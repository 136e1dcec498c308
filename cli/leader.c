/* SPDX-License-Identifier: Apache-2.0 */
/* leader.c - `lockstep leader transfer`: move leadership without an outage. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/output.h"

struct transfer_run {
    const struct cli *cli;
    int exit_code;
};

static void transfer_ended(void *context, const struct lockstep_result *result)
{
    struct transfer_run *run = context;
    if (result->error != 0) {
        run->exit_code = cli_fail_result(run->cli, "leader transfer", result);
        return;
    }
    if (run->cli->json) {
        struct json json = json_to(stdout);
        json_object(&json, NULL);
        json_bytes(&json, "leader", result->reply, result->reply_bytes);
        json_number(&json, "term", result->index);
        json_signed(&json, "exit", EXIT_OK);
        json_end(&json);
        return;
    }
    printf("%.*s leads in term %" PRIu64 "\n", (int)result->reply_bytes, (const char *)result->reply, result->index);
}

static int transfer_run(struct cli *cli)
{
    struct transfer_run run = {.cli = cli};
    struct lockstep_client *client;
    int rc = cli_connect(cli, &client);
    if (rc != EXIT_OK) return rc;
    int started = lockstep_transfer(client, cli->word_count > 0 ? cli->words[0] : "", 0, transfer_ended, &run);
    if (started == 0)
        cli_wait(cli, client);
    else
        run.exit_code = cli_fail(cli, EXIT_FAILED, "leader transfer", "", "%s", lockstep_error_text(started));
    lockstep_client_close(client);
    return run.exit_code;
}

const struct command command_leader_transfer = {
    .name = "leader transfer",
    .words = "[NAME]",
    .words_max = 1,
    .text = "move leadership to a member, or to the most caught-up one",
    .details =
        "Ends when the new leader leads, or with the reason why it does not. Exit: 5 where there is no such member.\n",
    .talks = true,
    .run = transfer_run,
};
