/* SPDX-License-Identifier: Apache-2.0 */
/* offline.c - see offline.h.
 * LMDB finds no damage in its own pages and follows what they say: a page that points out of the file ends the process by a
 * signal, which becomes a sentence and exit 7 here. */
#include "cli/offline.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/random.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "storage/advice.h"

static bool signals_json;

static void on_bad_page(int number)
{
    static const char text[] = "data.mdb: damaged: one of its inner pages points out of the file; " ADVICE_LOST;
    static const char before[] = "lockstep: ", json_before[] = "{\"error\": \"ECORRUPT\", \"text\": \"",
                      json_after[] = "\", \"exit\": 7}\n";
    (void)number;
    (void)!write(STDERR_FILENO, before, sizeof before - 1);
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, "\n", 1);
    if (signals_json) {
        (void)!write(STDOUT_FILENO, json_before, sizeof json_before - 1);
        (void)!write(STDOUT_FILENO, text, sizeof text - 1);
        (void)!write(STDOUT_FILENO, json_after, sizeof json_after - 1);
    }
    _exit(EXIT_DIVERGED);
}

int offline_exit_of(int error)
{
    switch (error) {
    case 0: return EXIT_OK;
    case LOCKSTEP_ECORRUPT: return EXIT_DIVERGED;
    case LOCKSTEP_ELOCKED:
    case LOCKSTEP_EEXIST:
    case LOCKSTEP_EFOREIGN: return EXIT_REFUSED;
    case LOCKSTEP_ENOTFOUND:
    case LOCKSTEP_EINVAL: return EXIT_USAGE;
    default: return EXIT_FAILED;
    }
}

int offline_fail(const struct cli *cli, int error, const char *why)
{
    return cli_fail(cli, offline_exit_of(error), cli->command->name, "", "%s", why);
}

int offline_open(const struct cli *cli, const char *directory, const char *journal, struct inspection **ret)
{
    const struct sigaction action = {.sa_handler = on_bad_page, .sa_flags = (int)SA_RESETHAND};
    const struct inspect_options options = {
        .directory = directory, .journal_directory = journal, .disk = disk_posix(), .kv = kv_lmdb()};
    char why[2048];
    signals_json = cli->json;
    (void)sigaction(SIGBUS, &action, NULL);
    (void)sigaction(SIGSEGV, &action, NULL);
    int rc = inspect_open(&options, ret, why, sizeof why);
    return rc == 0 ? EXIT_OK : offline_fail(cli, rc, why);
}

int offline_findings(const struct cli *cli, const struct inspection *inspection, const char *about, struct json *json)
{
    size_t count;
    const struct inspect_finding *findings = inspect_findings(inspection, &count);
    int code = EXIT_OK;
    if (cli->json) json_array(json, "findings");
    for (size_t i = 0; i < count; i++) {
        const struct inspect_finding *f = &findings[i];
        if (about != NULL && strncmp(f->file, about, strlen(about)) != 0) continue;
        int now = f->error == LOCKSTEP_EFOREIGN ? EXIT_DIVERGED : offline_exit_of(f->error);
        if (code != EXIT_DIVERGED) code = now;
        if (cli->json) {
            json_object(json, NULL);
            json_text(json, "error", cli_error_name(f->error));
            json_text(json, "file", f->file);
            if (f->offset != UINT64_MAX)
                json_number(json, "offset", f->offset);
            else
                json_null(json, "offset");
            if (f->index != 0)
                json_number(json, "index", f->index);
            else
                json_null(json, "index");
            json_text(json, "text", f->text);
            json_end(json);
        } else if (f->offset != UINT64_MAX && f->offset != 0) {
            fprintf(stderr, "lockstep: %s: %s at byte %" PRIu64 ": %s\n", cli->command->name, f->file, f->offset,
                    f->text);
        } else {
            fprintf(stderr, "lockstep: %s: %s: %s\n", cli->command->name, f->file, f->text);
        }
    }
    if (cli->json) json_end(json);
    return code;
}

int offline_epoch(const struct cli *cli, const char *config, const char *node, struct server_options *server,
                  struct epoch_options *ret)
{
    char why[SERVER_WHY_BYTES_MAX];
    const char *what = cli->command->name;
    uint64_t random[2];
    int rc = server_options_read(config, node, NULL, 0, server, why);
    if (rc != 0) return cli_fail(cli, rc == LOCKSTEP_ENOMEM ? EXIT_FAILED : EXIT_USAGE, what, "", "%s", why);
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random || random[0] == 0 || random[1] == 0)
        return cli_fail(cli, EXIT_FAILED, what, "run it again", "the system gives no random numbers");
    server_epoch_options(server, random[0], random[1], ret);
    return EXIT_OK;
}

void offline_epoch_next(const struct cli *cli, struct json *json, const struct server_options *server,
                        const char *config)
{
    const struct node_options *o = &server->node;
    const struct node_member_options *self = &o->members[o->self];
    if (cli->json)
        json_array(json, "next");
    else
        printf("next, in this order:\n");
    for (uint32_t i = 0; i <= o->member_count; i++) {
        char line[1024];
        if (i == 0) {
            snprintf(line, sizeof line, "lockstep serve --config %s --node %s", config, self->name);
        } else if (i - 1 != o->self) {
            const struct node_member_options *m = &o->members[i - 1];
            snprintf(line, sizeof line, "lockstep member add %s --client %s --peer %s --to %s", m->name, m->client,
                     m->peer, self->client);
        } else {
            continue;
        }
        if (cli->json)
            json_text(json, NULL, line);
        else
            printf("  %s%s\n", line, i > 1 || (i == 1 && o->self != 0) ? "   # started with an empty directory" : "");
    }
    if (cli->json) json_end(json);
}

const char *offline_level_name(uint32_t level)
{
    switch (level) {
    case DURABILITY_LEVEL_FSYNC: return "fsync";
    case DURABILITY_LEVEL_OS: return "os";
    case DURABILITY_LEVEL_MEMORY: return "memory";
    default: return "unknown";
    }
}

const char *offline_role_name(uint8_t role)
{
    switch (role) {
    case CONFIGURATION_VOTER: return "voter";
    case CONFIGURATION_LEARNER: return "learner";
    case CONFIGURATION_INCOMING: return "incoming";
    case CONFIGURATION_OUTGOING: return "outgoing";
    case CONFIGURATION_LEAVING: return "leaving";
    default: return "unknown";
    }
}

const char *offline_block_type_name(uint16_t type)
{
    switch (type) {
    case BLOCK_COMMANDS: return "commands";
    case BLOCK_TERM: return "term";
    case BLOCK_CONFIGURATION: return "configuration";
    default: return "unknown";
    }
}

const char *offline_time(uint64_t time_ns)
{
    static char buffers[4][40];
    static unsigned next;
    char *to = buffers[next++ % 4];
    time_t seconds = (time_t)(time_ns / 1000000000u);
    struct tm parts;
    char date[32];
    if (gmtime_r(&seconds, &parts) == NULL) return "-";
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(to, sizeof buffers[0], "%s.%03uZ", date, (unsigned)(time_ns / 1000000 % 1000));
    return to;
}
