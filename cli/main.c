/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - the program `lockstep`: find the command, read its arguments, run it.
 * Thread: main. The table of commands is the one source of help, of the check of arguments and of suggestions. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"

const struct command *const cli_commands[] = {
    &command_local,           &command_demo,           &command_bench,         &command_status,
    &command_propose,         &command_query,          &command_tail,          &command_leader_transfer,
    &command_member_add,      &command_member_promote, &command_member_remove, &command_member_replace,
    &command_serve,           &command_log_inspect,    &command_log_verify,    &command_snapshot_list,
    &command_snapshot_verify, &command_backup_create,  &command_backup_verify, &command_backup_restore,
    &command_recover,         &command_help,           &command_version,       NULL,
};

/* Whether the words at argv begin with the command's name; *ret_words says how many words it has. */
static bool is_named(const struct command *command, char **argv, int argc, int *ret_words)
{
    const char *name = command->name;
    for (int i = 0; i < argc; i++) {
        size_t bytes = strcspn(name, " ");
        if (strlen(argv[i]) != bytes || memcmp(argv[i], name, bytes) != 0) return false;
        if (name[bytes] == 0) {
            *ret_words = i + 1;
            return true;
        }
        name += bytes + 1;
    }
    return false;
}

/* One bad word gets one line, not the whole help. */
static int no_such_command(const struct cli *cli, char **argv, int argc)
{
    const char *names[32];
    char given[128];
    int count = 0;
    for (; cli_commands[count] != NULL; count++) {
        names[count] = cli_commands[count]->name;
        /* "leader": the first word of a command, and the second is missing. */
        size_t bytes = strlen(argv[0]);
        if (strncmp(names[count], argv[0], bytes) == 0 && names[count][bytes] == ' ') {
            snprintf(given, sizeof given, "%.60s%s%.60s", argv[0], argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
            return cli_fail(cli, EXIT_USAGE, given, "", "there is no such command; did you mean '%s'?", names[count]);
        }
    }
    if (argv[0][0] == '-')
        return cli_fail(cli, EXIT_USAGE, argv[0], "",
                        "flags stand behind the command, as in 'lockstep status -o json'");
    int nearest = cli_nearest(argv[0], names, count);
    snprintf(given, sizeof given, "%.100s", argv[0]);
    if (nearest >= 0)
        return cli_fail(cli, EXIT_USAGE, given, "", "there is no such command; did you mean '%s'?", names[nearest]);
    return cli_fail(cli, EXIT_USAGE, given, "'lockstep help' lists all", "there is no such command");
}

/* --- flags --- */

static const char *const common_names[] = {"output", "to", "timeout", "help"};

static int find_flag(const struct command *command, const char *name, size_t bytes)
{
    for (int i = 0; command->flags != NULL && command->flags[i].name != NULL; i++)
        if (strlen(command->flags[i].name) == bytes && memcmp(command->flags[i].name, name, bytes) == 0) return i;
    return -1;
}

static int no_such_flag(const struct cli *cli, const char *given)
{
    const struct command *command = cli->command;
    const char *names[CLI_FLAGS_MAX + 4];
    int count = 0;
    for (; command->flags != NULL && command->flags[count].name != NULL; count++)
        names[count] = command->flags[count].name;
    for (size_t i = 0; i < sizeof common_names / sizeof common_names[0]; i++) {
        bool talking = strcmp(common_names[i], "to") == 0 || strcmp(common_names[i], "timeout") == 0;
        if (command->talks || !talking) names[count++] = common_names[i];
    }
    char advice[128];
    int nearest = cli_nearest(given + strspn(given, "-"), names, count);
    if (nearest >= 0)
        snprintf(advice, sizeof advice, "did you mean --%s?", names[nearest]);
    else
        snprintf(advice, sizeof advice, "'lockstep help %s' lists its flags", command->name);
    return cli_fail(cli, EXIT_USAGE, command->name, advice, "there is no flag %.60s", given);
}

static const char *help_of(const struct command *command)
{
    static char text[64];
    snprintf(text, sizeof text, "'lockstep help %s' shows how", command->name);
    return text;
}

static int set_output(struct cli *cli, const char *value)
{
    if (strcmp(value, "json") == 0)
        cli->json = true;
    else if (strcmp(value, "table") != 0)
        return cli_fail(cli, EXIT_USAGE, "--output", "it is json or table", "'%.60s' is no form of output", value);
    return EXIT_OK;
}

static int set_timeout(struct cli *cli, const char *value)
{
    uint64_t ns;
    if (!text_parse_duration(value, &ns) || ns < 1000000 || ns > 86400000000000ull)
        return cli_fail(cli, EXIT_USAGE, "--timeout", "give " TEXT_DURATION_FORM ", from 1ms to 1d",
                        "'%.60s' is no duration", value);
    cli->timeout_ms = (uint32_t)(ns / 1000000);
    return EXIT_OK;
}

/* The value of a flag: behind its =, or the next word. */
static const char *value_of(const char *equals, char **argv, int argc, int *at)
{
    if (equals != NULL) return equals + 1;
    return *at + 1 < argc ? argv[++*at] : NULL;
}

static int read_flag(struct cli *cli, char **argv, int argc, int *at)
{
    const char *given = argv[*at];
    const char *name = strcmp(given, "-o") == 0 ? "output" : strcmp(given, "-h") == 0 ? "help" : given + 2;
    if (given[1] != '-' && name == given + 2) return no_such_flag(cli, given);
    const char *equals = strchr(name, '=');
    size_t bytes = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct command *command = cli->command;
#define IS(word) (bytes == sizeof(word) - 1 && memcmp(name, word, sizeof(word) - 1) == 0)
    if (IS("help")) {
        cli_help(cli, command);
        exit(EXIT_OK);
    }
    int flag = find_flag(command, name, bytes);
    bool is_output = IS("output"), is_to = command->talks && IS("to"), is_timeout = command->talks && IS("timeout");
#undef IS
    bool is_override = flag < 0 && command->overrides && memchr(name, '.', bytes) != NULL;
    if (flag < 0 && !is_output && !is_to && !is_timeout && !is_override) return no_such_flag(cli, given);
    if (flag >= 0 && command->flags[flag].value == NULL) {
        if (equals != NULL) return cli_fail(cli, EXIT_USAGE, given, "", "this flag takes no value");
        cli->values[flag] = "";
        return EXIT_OK;
    }
    const char *value = value_of(equals, argv, argc, at);
    if (value == NULL) return cli_fail(cli, EXIT_USAGE, given, help_of(command), "its value is missing");
    if (is_output) return set_output(cli, value);
    if (is_timeout) return set_timeout(cli, value);
    if (is_to) {
        cli->to = value;
    } else if (flag >= 0) {
        cli->values[flag] = value;
    } else {
        if (cli->override_count == CLI_OVERRIDES_MAX)
            return cli_fail(cli, EXIT_USAGE, given, "put them into the file", "more than %d settings",
                            CLI_OVERRIDES_MAX);
        char *key = strndup(name, bytes); /* lives as long as the process */
        if (key == NULL) return cli_fail(cli, EXIT_FAILED, given, "", "out of memory");
        cli->overrides[cli->override_count++] = (struct cli_override){key, value};
    }
    return EXIT_OK;
}

/* Flags and words may be mixed; behind `--` all are words, and `-` is one. Words are moved to the front of argv. */
static int read_arguments(struct cli *cli, char **argv, int argc)
{
    int words = 0;
    bool flags = true;
    for (int at = 0; at < argc; at++) {
        if (flags && strcmp(argv[at], "--") == 0) {
            flags = false;
        } else if (flags && argv[at][0] == '-' && argv[at][1] != 0) {
            int rc = read_flag(cli, argv, argc, &at);
            if (rc != EXIT_OK) return rc;
        } else {
            argv[words++] = argv[at];
        }
    }
    cli->words = (const char *const *)argv;
    cli->word_count = words;
    const struct command *command = cli->command;
    if (words < command->words_min)
        return cli_fail(cli, EXIT_USAGE, command->name, help_of(command), "%s is missing", command->words);
    if (words > command->words_max)
        return cli_fail(cli, EXIT_USAGE, command->name,
                        command->words_max == 0 ? "it takes flags only" : help_of(command),
                        "'%.60s' is one word too many", argv[command->words_max]);
    return EXIT_OK;
}

/* Errors found before all flags were read are told in the form that was asked for, too. */
static bool wants_json(char **argv, int argc)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if ((strcmp(argv[i], "-o") == 0 || strcmp(argv[i], "--output") == 0) && strcmp(value, "json") == 0) return true;
        if (strcmp(argv[i], "--output=json") == 0) return true;
    }
    return false;
}

/* Who started us may have closed them: then the first file, socket or pipe that is opened would get their number, and our
 * lines. Opened against their direction, so that it is an error still to write there. Source: gnulib's stdopen. */
static bool standard_descriptors_hold(void)
{
    static const int against[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", against[fd]) != fd) return false;
    return true;
}

int main(int argc, char **argv)
{
    if (!standard_descriptors_hold()) {
        fputs(
            "lockstep: a standard descriptor is closed, and /dev/null cannot be opened in its place; open all three\n",
            stderr);
        return EXIT_FAILED;
    }
    signal(SIGPIPE, SIG_IGN); /* a reader that left is an error of the write, not our death */
    struct cli cli = {.program = argv[0], .terminal = isatty(1) == 1, .json = wants_json(argv, argc)};
    argc--;
    argv++;
    if (argc == 0) {
        cli_help(&cli, NULL);
        return EXIT_USAGE;
    }
    static char help[] = "help", version[] = "version";
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) argv[0] = help;
    if (strcmp(argv[0], "--version") == 0) argv[0] = version;
    int words = 0;
    for (int i = 0; cli_commands[i] != NULL; i++) {
        if (!is_named(cli_commands[i], argv, argc, &words)) continue;
        cli.command = cli_commands[i];
        int rc = read_arguments(&cli, argv + words, argc - words);
        if (rc != EXIT_OK) return rc;
        rc = cli.command->run(&cli);
        bool unwritten = fflush(stdout) != 0 || ferror(stdout); /* now, or at any time before: what is lost is lost */
        if (unwritten && rc == EXIT_OK) rc = cli_fail(&cli, EXIT_FAILED, "standard output", "", "cannot be written");
        return rc;
    }
    return no_such_command(&cli, argv, argc);
}
