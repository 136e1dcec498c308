/* SPDX-License-Identifier: Apache-2.0 */
/* propose.c - `lockstep propose`: one command from the words, or one a line from standard input on a stream.
 * Thread: main. In a session, so that what is unknown is sent again, and applied once; --no-session sends nothing twice.
 * From standard input the order is kept: at the first line that was not
 * applied nothing more is sent, and the line's number is said, so that a person can go on from there. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/output.h"

enum { ENTITY, NO_SESSION };
static const struct cli_flag flags[] = {
    [ENTITY] = {"entity", "N", "the entity that the command is for; 0 is the machine itself"},
    [NO_SESSION] = {"no-session", NULL, "one round trip less; what is unknown is not sent again, and stays unknown"},
    {NULL, NULL, NULL},
};

static void print_json(const struct lockstep_result *result, uint64_t line)
{
    static const char *const fates[] = {"", "applied", "not-appended", "unknown"};
    static const char *const levels[] = {"unspecified", "fsync", "os", "memory"};
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    if (line > 0) json_number(&json, "line", line);
    json_text(&json, "outcome", fates[result->fate]);
    if (result->error == 0) {
        json_signed(&json, "code", result->code);
        json_bytes(&json, "reply", result->reply, result->reply_bytes);
        json_number(&json, "index", result->index);
        json_number(&json, "position", result->position);
        json_text(&json, "durability", levels[result->durability]);
    } else {
        json_text(&json, "error", cli_error_name(result->error));
        json_text(&json, "text", result->text);
    }
    json_text(&json, "endpoint", result->endpoint);
    if (result->error != 0 || line == 0) json_number(&json, "exit", (uint64_t)cli_exit_of(result));
    json_end(&json);
}

static void print_reply(const struct cli *cli, const struct lockstep_result *result)
{
    if (result->reply_bytes == 0)
        fputs("ok", stdout);
    else
        show_reply(stdout, cli->terminal, result->reply, result->reply_bytes);
    fputc('\n', stdout);
}

/* --- one command --- */

struct propose_run {
    const struct cli *cli;
    int exit_code;
};

static void propose_ended(void *context, const struct lockstep_result *result)
{
    struct propose_run *run = context;
    run->exit_code = cli_exit_of(result);
    if (run->cli->json) {
        print_json(result, 0);
        if (result->error != 0) fprintf(stderr, "lockstep: propose: %s\n", result->text);
    } else if (result->error != 0) {
        run->exit_code = cli_fail_result(run->cli, "propose", result);
    } else if (result->code != 0) {
        fprintf(stderr, "lockstep: propose: the machine refused with code %d: ", result->code);
        show_reply(stderr, true, result->reply, result->reply_bytes);
        fputc('\n', stderr);
    } else {
        print_reply(run->cli, result);
    }
}

static int propose_words(const struct cli *cli, struct lockstep_client *client, uint64_t entity)
{
    char *text = cli_join_words(cli);
    if (text == NULL) return cli_fail(cli, EXIT_FAILED, "propose", "", "out of memory");
    struct propose_run run = {.cli = cli};
    struct lockstep_proposal proposal = {.command = text, .command_bytes = strlen(text), .entity = entity};
    int started = lockstep_propose(client, &proposal, propose_ended, &run);
    if (started == 0)
        cli_wait(cli, client);
    else
        run.exit_code = cli_fail(cli, EXIT_REFUSED, "propose", "", "%s", lockstep_error_text(started));
    free(text);
    return run.exit_code;
}

/* --- lines of standard input --- */

enum { LINES_COMMANDS_MAX = 256, LINES_MESSAGES_MAX = 16, LINES_BYTES = 1 << 20, LINE_BYTES_MAX = 1 << 20 };

struct lines {
    const struct cli *cli;
    uint64_t entity;
    char *text; /* LINES_BYTES + 1: what was read and not sent, from first to end */
    size_t first, end;
    bool at_end;  /* of standard input */
    bool stopped; /* nothing more is sent */
    int exit_code;
    uint64_t sent, answered, applied, refused; /* lines */
    uint64_t heard_ns;                         /* when something was answered or sent last */
    int lost_error;
    char lost_text[1024];
    struct lockstep_proposal proposals[LINES_COMMANDS_MAX];
};

static void line_ended(struct lines *lines, const struct lockstep_result *result)
{
    uint64_t line = ++lines->answered;
    if (lines->cli->json) print_json(result, line);
    if (result->error != 0) {
        /* The first line that was not applied decides; those behind it were on the way already. */
        int code = cli_exit_of(result);
        if (!lines->stopped || code == EXIT_UNKNOWN) {
            lines->exit_code = code;
            fprintf(stderr, "lockstep: propose: line %" PRIu64 ": %s; %s\n", line, result->text,
                    code == EXIT_UNKNOWN ? "it may have been applied: look before you send it again"
                                         : "it was surely not applied");
        }
        lines->stopped = true;
        return;
    }
    lines->applied++;
    if (result->code != 0) {
        lines->refused++;
        if (lines->exit_code == EXIT_OK) lines->exit_code = EXIT_REFUSED;
    }
    if (lines->cli->json) return;
    if (result->code == 0) {
        print_reply(lines->cli, result);
        return;
    }
    printf("refused %d: ", result->code);
    show_reply(stdout, lines->cli->terminal, result->reply, result->reply_bytes);
    fputc('\n', stdout);
}

static void lines_answered(void *context, uint64_t tag, const struct lockstep_result *results, uint32_t count)
{
    (void)tag;
    struct lines *lines = context;
    for (uint32_t i = 0; i < count; i++) line_ended(lines, &results[i]);
    (void)fflush(stdout); /* who writes the next line may wait for this answer; errors are met at the end */
    lines->heard_ns = cli_now_ns();
}

static void lines_lost(void *context, int error, const char *text)
{
    struct lines *lines = context;
    lines->lost_error = error;
    snprintf(lines->lost_text, sizeof lines->lost_text, "%s", text);
}

/* Read what is there. ret  false: the line is too long */
static bool read_some(struct lines *lines)
{
    if (lines->first > 0) {
        memmove(lines->text, lines->text + lines->first, lines->end - lines->first);
        lines->end -= lines->first;
        lines->first = 0;
    }
    if (lines->end == LINES_BYTES) return false;
    ssize_t n = read(0, lines->text + lines->end, LINES_BYTES - lines->end);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (n > 0) {
        lines->end += (size_t)n;
        return true;
    }
    lines->at_end = true;
    if (lines->end > 0 && lines->text[lines->end - 1] != '\n')
        lines->text[lines->end++] = '\n'; /* room for it is kept */
    return true;
}

/* The complete lines that are there, as many as one message takes. ret  their number */
static uint32_t cut(struct lines *lines, size_t *ret_bytes)
{
    uint32_t count = 0;
    size_t at = lines->first;
    while (count < LINES_COMMANDS_MAX && at < lines->end) {
        const char *line = lines->text + at;
        const char *newline = memchr(line, '\n', lines->end - at);
        if (newline == NULL) break;
        lines->proposals[count++] = (struct lockstep_proposal){
            .command = line, .command_bytes = (size_t)(newline - line), .entity = lines->entity};
        at += (size_t)(newline - line) + 1;
    }
    *ret_bytes = at - lines->first;
    return count;
}

static bool has_line(const struct lines *lines)
{
    return lines->first < lines->end && memchr(lines->text + lines->first, '\n', lines->end - lines->first) != NULL;
}

static void send_some(struct lines *lines, struct lockstep_stream *stream)
{
    while (!lines->stopped && lockstep_stream_room(stream) > 0) {
        size_t bytes;
        uint32_t count = cut(lines, &bytes);
        if (count == 0 || lockstep_stream_send(stream, lines->proposals, count, 0) != 0) return;
        lines->first += bytes;
        lines->sent += count;
        lines->heard_ns = cli_now_ns();
    }
}

/* No leader was found, though there is something to send. ret  true: give up */
static bool in_vain(struct lines *lines, const struct lockstep_stream *stream, struct lockstep_client *client)
{
    if (lines->sent > lines->answered || !has_line(lines) || lockstep_stream_room(stream) > 0) return false;
    bool unreachable = lines->lost_error == LOCKSTEP_EUNREACHABLE;
    uint64_t timeout_ms = lines->cli->timeout_ms != 0 ? lines->cli->timeout_ms : LOCKSTEP_DEADLINE_MS_DEFAULT;
    if (!unreachable && cli_now_ns() < lines->heard_ns + timeout_ms * 1000000) return false;
    struct lockstep_result result = {.error = unreachable ? LOCKSTEP_EUNREACHABLE : LOCKSTEP_EUNAVAILABLE,
                                     .fate = LOCKSTEP_NOT_APPENDED,
                                     .text = unreachable ? lines->lost_text : lockstep_client_trouble(client)};
    if (result.text[0] == 0) result.text = "no leader was found in time";
    lines->exit_code = cli_fail_result(lines->cli, "propose", &result);
    return true;
}

static int lines_loop(struct lines *lines, struct lockstep_stream *stream, struct lockstep_client *client)
{
    for (;;) {
        send_some(lines, stream);
        bool all_answered = lines->sent == lines->answered;
        if (all_answered && (lines->stopped || (lines->at_end && !has_line(lines)))) return lines->exit_code;
        if (in_vain(lines, stream, client)) return lines->exit_code;
        /* Read on while the window takes more; what cannot be sent is not read, and whoever writes to us waits. */
        bool reads = !lines->at_end && !lines->stopped && !has_line(lines);
        fflush(stdout); /* whoever writes line by line into a pipe wants to read answers likewise */
        int wait_ms = lockstep_client_timeout_ms(client);
        struct pollfd fds[2] = {{.fd = lockstep_client_fd(client), .events = POLLIN},
                                {.fd = reads ? 0 : -1, .events = POLLIN}};
        if (poll(fds, 2, wait_ms < 0 || wait_ms > 100 ? 100 : wait_ms) < 0 && errno != EINTR)
            return cli_fail(lines->cli, EXIT_FAILED, "poll", "", "%s", strerror(errno));
        if (lockstep_client_poll(client, 0) != 0) return cli_fail(lines->cli, EXIT_FAILED, "poll", "", "no epoll");
        if (fds[1].revents != 0 && !read_some(lines)) {
            lines->exit_code = cli_fail(lines->cli, EXIT_REFUSED, "propose", "one command is one line",
                                        "line %" PRIu64 " is longer than %s", lines->sent + 1, show_bytes(LINES_BYTES));
            lines->stopped = true; /* what was sent is still answered: its fate may be worse than this */
        }
    }
}

static int propose_lines(const struct cli *cli, struct lockstep_client *client, uint64_t entity)
{
    static struct lines lines;
    lines = (struct lines){.cli = cli, .entity = entity, .heard_ns = cli_now_ns()};
    lines.text = malloc(LINES_BYTES + 1);
    struct lockstep_stream_options options = {
        .size = sizeof options,
        .messages_max = LINES_MESSAGES_MAX,
        .commands_max = LINES_COMMANDS_MAX,
        .deadline_ms = cli->timeout_ms,
        .context = &lines,
        .answered = lines_answered,
        .lost = lines_lost,
    };
    struct lockstep_stream *stream = NULL;
    int rc;
    if (lines.text == NULL || lockstep_stream_open(client, &options, &stream) != 0)
        rc = cli_fail(cli, EXIT_FAILED, "propose", "", "out of memory");
    else
        rc = lines_loop(&lines, stream, client);
    lockstep_stream_close(stream);
    bool speaks = !cli->json || rc != EXIT_OK;
    if (speaks) fprintf(stderr, "%s of %s lines applied", show_count(lines.applied), show_count(lines.sent));
    if (speaks && lines.refused > 0) fprintf(stderr, ", %s refused by the machine", show_count(lines.refused));
    if (speaks) fputc('\n', stderr);
    free(lines.text);
    return rc;
}

static int propose_run(struct cli *cli)
{
    uint64_t entity = 0;
    int rc = cli_number(cli, ENTITY, 0, UINT64_MAX, &entity);
    if (rc != EXIT_OK) return rc;
    struct lockstep_client *client;
    cli->no_session = cli->values[NO_SESSION] != NULL;
    rc = cli_connect(cli, &client);
    if (rc != EXIT_OK) return rc;
    if (cli->word_count == 1 && strcmp(cli->words[0], "-") == 0)
        rc = propose_lines(cli, client, entity);
    else
        rc = propose_words(cli, client, entity);
    lockstep_client_close(client);
    return rc;
}

const struct command command_propose = {
    .name = "propose",
    .words = "COMMAND...",
    .words_min = 1,
    .words_max = 1000,
    .text = "have a command applied, on every node, once",
    .details =
        "The words are joined by one space. With the machine kv:\n"
        "  lockstep propose put colour blue\n"
        "- reads commands from standard input, one a line, and streams them: they are applied in that order. At\n"
        "the first line that is not applied nothing more is sent, and its number is said.\n"
        "A command whose outcome is unknown is sent again until --timeout, and applied once (a session).\n"
        "Exit: 5 where the machine refuses, 6 where the outcome is unknown even then.\n",
    .talks = true,
    .flags = flags,
    .run = propose_run,
};
