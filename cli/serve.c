/* SPDX-License-Identifier: Apache-2.0 */
/* serve.c - `lockstep serve`: one node, in the foreground, until SIGTERM. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "server/server.h"

enum { CONFIG, NODE, CLUSTER, MACHINE, DURABILITY };
static const struct cli_flag flags[] = {
    [CONFIG] = {"config", "FILE", "the cluster's file, the same on every node; lockstep.toml if not given"},
    [NODE] = {"node", "NAME", "which [node.NAME] of the file this is; else LOCKSTEP_NODE"},
    [CLUSTER] = {"cluster", "NAME", "as in the file"},
    [MACHINE] = {"machine", "NAME|FILE.so", "as in the file"},
    [DURABILITY] = {"durability", "LEVEL", "as in the file"},
    {NULL, NULL, NULL},
};

static int serve_run(struct cli *cli)
{
    struct server_override overrides[CLI_OVERRIDES_MAX + 3];
    size_t count = 0;
    static const int alone[] = {CLUSTER, MACHINE, DURABILITY};
    for (size_t i = 0; i < sizeof alone / sizeof alone[0]; i++)
        if (cli->values[alone[i]] != NULL)
            overrides[count++] = (struct server_override){flags[alone[i]].name, cli->values[alone[i]]};
    for (int i = 0; i < cli->override_count; i++)
        overrides[count++] = (struct server_override){cli->overrides[i].key, cli->overrides[i].value};
    static struct server_options options; /* large */
    const char *config = cli->values[CONFIG] != NULL ? cli->values[CONFIG] : "lockstep.toml";
    char why[SERVER_WHY_BYTES_MAX];
    int rc = server_options_read(config, cli->values[NODE], overrides, count, &options, why);
    if (rc == LOCKSTEP_ENOMEM) return cli_fail(cli, EXIT_FAILED, "serve", "", "%s", why);
    if (rc != 0) return cli_fail(cli, EXIT_USAGE, "serve", "", "%s", why);
    return server_run(&options);
}

const struct command command_serve = {
    .name = "serve",
    .words = "",
    .text = "run one node in the foreground",
    .details = "Log lines go to standard error. SIGTERM hands leadership over, finishes what runs and exits 0.\n"
               "Settings: flags beat the environment (LOCKSTEP_LIMITS_RING=32MiB), which beats the file.\n"
               "Exit: 2 where flags, file or machine are wrong: nothing was created; 7 where data are damaged.\n",
    .overrides = true,
    .flags = flags,
    .run = serve_run,
};
