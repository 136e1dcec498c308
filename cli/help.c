/* SPDX-License-Identifier: Apache-2.0 */
/* help.c - `lockstep help` and `lockstep version`. Everything said about commands comes from their table. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

#ifndef LOCKSTEP_VERSION
#error "the build says which version this is"
#endif

static const struct cli_flag talking_flags[] = {
    {"to", "HOST:PORT,...", "members to ask; else LOCKSTEP_ENDPOINTS, else 127.0.0.1:7401"},
    {"timeout", "TIME", "give up after this long, such as 500ms; 10s"},
    {NULL, NULL, NULL},
};
static const struct cli_flag common_flags[] = {
    {"output", "json|table", "or -o: for programs, or for people (the default)"},
    {NULL, NULL, NULL},
};

static void print_flags(const struct cli_flag *flags)
{
    for (; flags != NULL && flags->name != NULL; flags++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", flags->name, flags->value != NULL ? " " : "",
                 flags->value != NULL ? flags->value : "");
        printf("  %-24s %s\n", left, flags->text);
    }
}

static void flags_json(struct json *json, const struct cli_flag *flags)
{
    for (; flags != NULL && flags->name != NULL; flags++) {
        json_object(json, NULL);
        json_text(json, "name", flags->name);
        if (flags->value != NULL)
            json_text(json, "value", flags->value);
        else
            json_null(json, "value");
        json_text(json, "text", flags->text);
        json_end(json);
    }
}

static void command_json(struct json *json, const struct command *command)
{
    json_object(json, NULL);
    json_text(json, "name", command->name);
    json_text(json, "words", command->words);
    json_text(json, "text", command->text);
    json_array(json, "flags");
    flags_json(json, command->flags);
    if (command->talks) flags_json(json, talking_flags);
    flags_json(json, common_flags);
    json_end(json);
    json_end(json);
}

static void help_all(void)
{
    printf("lockstep keeps a deterministic state machine running, in step, on 3 or 5 nodes.\n\n"
           "usage: lockstep COMMAND [FLAGS] [WORDS]\n");
    for (int i = 0; cli_commands[i] != NULL; i++) {
        const struct command *command = cli_commands[i];
        char left[64];
        snprintf(left, sizeof left, "%s %s", command->name, command->words);
        printf("  %-24s %s\n", left, command->text);
    }
    printf(
        "\nA cluster on this host, to try it: lockstep local\n"
        "Every command takes -o json. 'lockstep help COMMAND' says more.\n"
        "Exit: 0 ok, 1 failed, 2 usage, 3 not ready, 4 unreachable, 5 refused by a precondition, 6 outcome unknown,\n"
        "7 damage or divergence.\n");
}

void cli_help(const struct cli *cli, const struct command *command)
{
    if (cli->json) {
        struct json json = json_to(stdout);
        if (command != NULL) {
            command_json(&json, command);
            return;
        }
        json_array(&json, NULL);
        for (int i = 0; cli_commands[i] != NULL; i++) command_json(&json, cli_commands[i]);
        json_end(&json);
        return;
    }
    if (command == NULL) {
        help_all();
        return;
    }
    printf("lockstep %s - %s\n\nusage: lockstep %s [FLAGS]%s%s\n", command->name, command->text, command->name,
           command->words[0] != 0 ? " " : "", command->words);
    print_flags(command->flags);
    if (command->overrides)
        printf("  %-24s %s\n", "--TABLE.KEY VALUE", "a setting that beats the file, such as --limits.ring 32MiB");
    if (command->talks) print_flags(talking_flags);
    print_flags(common_flags);
    if (command->details != NULL) printf("\n%s", command->details);
}

static int help_run(struct cli *cli)
{
    if (cli->word_count == 0) {
        cli_help(cli, NULL);
        return EXIT_OK;
    }
    char name[128];
    snprintf(name, sizeof name, "%.60s%s%.60s", cli->words[0], cli->word_count > 1 ? " " : "",
             cli->word_count > 1 ? cli->words[1] : "");
    const char *names[32];
    int count = 0;
    for (; cli_commands[count] != NULL; count++) {
        names[count] = cli_commands[count]->name;
        if (strcmp(names[count], name) == 0) {
            cli_help(cli, cli_commands[count]);
            return EXIT_OK;
        }
    }
    int nearest = cli_nearest(name, names, count);
    if (nearest >= 0)
        return cli_fail(cli, EXIT_USAGE, "help", "", "there is no command '%s'; did you mean '%s'?", name,
                        names[nearest]);
    return cli_fail(cli, EXIT_USAGE, "help", "'lockstep help' lists all", "there is no command '%s'", name);
}

static int version_run(struct cli *cli)
{
    if (!cli->json) {
        printf("lockstep %s\n", LOCKSTEP_VERSION);
        return EXIT_OK;
    }
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_text(&json, "version", LOCKSTEP_VERSION);
    json_end(&json);
    return EXIT_OK;
}

const struct command command_help = {
    .name = "help", .words = "[COMMAND]", .words_max = 2, .text = "what there is, or one command", .run = help_run};
const struct command command_version = {.name = "version", .words = "", .text = "the version", .run = version_run};
