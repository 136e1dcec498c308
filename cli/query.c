/* SPDX-License-Identifier: Apache-2.0 */
/* query.c - `lockstep query`: read the machine's state. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/output.h"

enum { CONSISTENCY, MAX_STALENESS, LOCAL, MIN_INDEX, ENTITY };
static const struct cli_flag flags[] = {
    [CONSISTENCY] =
        {"consistency", "HOW",
         "linearizable (usual: the leader answers), follower (the same, but the node that is asked answers), "
         "bounded-stale, or local"},
    [MAX_STALENESS] = {"max-staleness", "TIME",
                       "with bounded-stale: the state may be so old, 10s at most; 1s if not given"},
    [LOCAL] = {"local", NULL, "the state of the node that is asked, as it is: --consistency local"},
    [MIN_INDEX] = {"min-index", "N", "answer only from a state that has applied this index; wait for it"},
    [ENTITY] = {"entity", "N", "the entity that is asked; 0 is the machine itself"},
    {NULL, NULL, NULL},
};

struct query_run {
    const struct cli *cli;
    int exit_code;
};

static void query_ended(void *context, const struct lockstep_result *result)
{
    struct query_run *run = context;
    const struct cli *cli = run->cli;
    run->exit_code = cli_exit_of(result);
    if (result->error != 0) {
        run->exit_code = cli_fail_result(cli, "query", result);
        return;
    }
    if (cli->json) {
        struct json json = json_to(stdout);
        json_object(&json, NULL);
        json_signed(&json, "code", result->code);
        json_bytes(&json, "reply", result->reply, result->reply_bytes);
        json_number(&json, "index", result->index);
        json_text(&json, "endpoint", result->endpoint);
        json_signed(&json, "exit", run->exit_code);
        json_end(&json);
        return;
    }
    if (result->code != 0) {
        fprintf(stderr, "lockstep: query: the machine refused with code %d: ", result->code);
        show_reply(stderr, true, result->reply, result->reply_bytes);
        fputc('\n', stderr);
        return;
    }
    show_reply(stdout, cli->terminal, result->reply, result->reply_bytes);
    fputc('\n', stdout);
}

/* `-`: all of standard input, but for one newline at its end. From malloc. */
static char *read_all(size_t *ret_bytes)
{
    size_t bytes = 0, room = 65536;
    char *text = malloc(room);
    while (text != NULL) {
        bytes += fread(text + bytes, 1, room - bytes, stdin);
        if (bytes < room || room > LOCKSTEP_MESSAGE_BYTES_MAX) break;
        char *larger = realloc(text, room *= 2);
        if (larger == NULL) free(text);
        text = larger;
    }
    if (bytes > 0 && text != NULL && text[bytes - 1] == '\n') bytes--;
    *ret_bytes = bytes;
    return text;
}

static int consistency_read(const struct cli *cli, struct lockstep_query *query)
{
    static const char *const names[] = {[LOCKSTEP_LINEARIZABLE] = "linearizable",
                                        [LOCKSTEP_LOCAL] = "local",
                                        [LOCKSTEP_FOLLOWER] = "follower",
                                        [LOCKSTEP_BOUNDED_STALE] = "bounded-stale"};
    const char *text = cli->values[CONSISTENCY];
    unsigned how = LOCKSTEP_LINEARIZABLE;
    uint64_t staleness_ns = 1000000000;
    if (cli->values[LOCAL] != NULL) how = LOCKSTEP_LOCAL;
    if (text != NULL) {
        for (how = 0; how < sizeof names / sizeof names[0] && strcmp(text, names[how]) != 0;) how++;
        if (how == sizeof names / sizeof names[0])
            return cli_fail(cli, EXIT_USAGE, "--consistency", "write linearizable, follower, bounded-stale or local",
                            "there is no '%.60s'", text);
        if (cli->values[LOCAL] != NULL && how != LOCKSTEP_LOCAL)
            return cli_fail(cli, EXIT_USAGE, "--local", "leave one of them out", "--consistency says %s", text);
    }
    int rc = cli_duration(cli, MAX_STALENESS, 1000000, 10000000000, &staleness_ns);
    if (rc != EXIT_OK) return rc;
    if (cli->values[MAX_STALENESS] != NULL && how != LOCKSTEP_BOUNDED_STALE)
        return cli_fail(cli, EXIT_USAGE, "--max-staleness", "add --consistency bounded-stale",
                        "it is for bounded-stale reads alone");
    query->consistency = (enum lockstep_consistency)how;
    query->max_staleness_ms = (uint32_t)(staleness_ns / 1000000);
    return EXIT_OK;
}

static int query_run(struct cli *cli)
{
    struct query_run run = {.cli = cli};
    struct lockstep_query query = {0};
    int rc = consistency_read(cli, &query);
    if (rc == EXIT_OK) rc = cli_number(cli, MIN_INDEX, 0, UINT64_MAX, &query.min_index);
    if (rc == EXIT_OK) rc = cli_number(cli, ENTITY, 0, UINT64_MAX, &query.entity);
    if (rc != EXIT_OK) return rc;
    bool from_input = cli->word_count == 1 && strcmp(cli->words[0], "-") == 0;
    char *text = from_input ? read_all(&query.query_bytes) : cli_join_words(cli);
    if (text == NULL) return cli_fail(cli, EXIT_FAILED, "query", "", "out of memory");
    if (!from_input) query.query_bytes = strlen(text);
    query.query = text;
    struct lockstep_client *client;
    rc = cli_connect(cli, &client);
    if (rc == EXIT_OK) {
        int started = lockstep_query(client, &query, query_ended, &run);
        if (started == 0)
            cli_wait(cli, client);
        else
            run.exit_code = cli_fail(cli, EXIT_USAGE, "query", "", "%s", lockstep_error_text(started));
        lockstep_client_close(client);
        rc = run.exit_code;
    }
    free(text);
    return rc;
}

const struct command command_query = {
    .name = "query",
    .words = "QUERY...",
    .words_min = 1,
    .words_max = 1000,
    .text = "read the machine's state",
    .details = "The words are joined by one space; - reads the query from standard input. With the machine kv:\n"
               "  lockstep query get colour\n"
               "  lockstep query --consistency bounded-stale --max-staleness 500ms get colour\n"
               "Exit: 5 where the machine refuses.\n",
    .talks = true,
    .flags = flags,
    .run = query_run,
};
