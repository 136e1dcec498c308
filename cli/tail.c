/* SPDX-License-Identifier: Apache-2.0 */
/* tail.c - `lockstep tail`: the committed commands of a node of this host, one a line, as they are committed. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/output.h"

enum { FROM, COUNT };
static const struct cli_flag flags[] = {
    [FROM] = {"from", "POSITION",
              "begin with this command of the log, from 1; else with what is committed from now on"},
    [COUNT] = {"count", "N", "end after so many commands"},
    {NULL, NULL, NULL},
};

enum { LOOK_AGAIN_S = 1 };

static volatile sig_atomic_t ended;

/* The record that is being printed is still printed whole, if its reader goes on. */
static void on_end(int number)
{
    (void)number;
    if (!ended) (void)alarm(LOOK_AGAIN_S);
    ended = 1;
}

/* It has not ended. If a write that nobody takes holds it, this is the end: interrupted, stdio would only try the rest of the
 * record, and wait again. There is nothing to tidy up: the node sees that we left. */
static void on_alarm(int number)
{
    (void)number;
    const int error = errno;
    struct pollfd fds[] = {{.fd = STDOUT_FILENO, .events = POLLOUT}, {.fd = STDERR_FILENO, .events = POLLOUT}};
    if (poll(fds, 2, 0) < 2) _exit(EXIT_OK);
    (void)alarm(LOOK_AGAIN_S); /* slow, as its host may be */
    errno = error;
}

/* What they interrupt is restarted, but for waiting. */
static void signals_take(void)
{
    const struct sigaction end = {.sa_handler = on_end, .sa_flags = SA_RESTART};
    const struct sigaction look = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    (void)sigaction(SIGALRM, &look, NULL);
    (void)sigaction(SIGINT, &end, NULL);
    (void)sigaction(SIGTERM, &end, NULL);
}

/* None comes between the look at `ended` and the waiting. */
static int wait_unless_ended(struct pollfd *fds, nfds_t count, const struct timespec *timeout)
{
    sigset_t held, before;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &held, &before);
    int ready = ended ? 0 : ppoll(fds, count, timeout, &before);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return ready;
}

/* A line each: a newline in a payload is escaped, as all that is no text. */
static void payload_show(const struct lockstep_tail_record *record)
{
    const uint8_t *at = record->payload, *end = at + record->payload_bytes;
    while (at < end) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        size_t bytes = (size_t)((newline != NULL ? newline : end) - at);
        show_reply(stdout, true, at, bytes);
        at += bytes;
        if (newline == NULL) break;
        fputs("\\x0a", stdout);
        at++;
    }
}

static void record_show(const struct cli *cli, const struct lockstep_tail_record *record)
{
    if (cli->json) {
        struct json json = json_to(stdout);
        json_object(&json, NULL);
        json_number(&json, "position", record->position);
        json_number(&json, "index", record->index);
        json_number(&json, "term", record->term);
        json_number(&json, "time_ns", record->time_ns);
        json_text(&json, "kind", show_command_kind(record->kind));
        json_number(&json, "session", record->session);
        json_number(&json, "seq", record->seq);
        json_number(&json, "entity", record->entity);
        json_bytes(&json, "payload", record->payload, record->payload_bytes);
        json_end(&json);
        return;
    }
    printf("%12" PRIu64 "  %s index=%" PRIu64, record->position, show_command_kind(record->kind), record->index);
    if (record->session != 0) printf(" session=%" PRIu64, record->session);
    if (record->seq != 0) printf(" seq=%" PRIu64, record->seq);
    if (record->entity != 0) printf(" entity=%" PRIu64, record->entity);
    printf(" bytes=%" PRIu32, record->payload_bytes);
    if (record->payload_bytes > 0) fputs("  ", stdout);
    payload_show(record);
    putchar('\n');
}

static int exit_of(int error)
{
    switch (error) {
    case LOCKSTEP_EUNREACHABLE: return EXIT_UNREACHABLE;
    case LOCKSTEP_EFULL:
    case LOCKSTEP_ETIMEDOUT: return EXIT_NOT_READY;
    case LOCKSTEP_EGONE:
    case LOCKSTEP_EFOREIGN: return EXIT_REFUSED;
    case LOCKSTEP_ECORRUPT: return EXIT_DIVERGED;
    default: return EXIT_FAILED;
    }
}

/* Whether anybody may read still. Who left is no error: `lockstep tail | head`. */
static bool is_read(bool left)
{
    if (!left && !ferror(stdout)) return true;
    left = left || errno == EPIPE;
    /* What was not written is nobody's: else the end of the program reports it. */
    if (left && freopen("/dev/null", "w", stdout) == NULL) clearerr(stdout);
    return false;
}

/* Nothing is there: let what was printed out, and wait. False: our reader has left. */
static bool wait_more(struct lockstep_tail *tail)
{
    errno = 0;
    if (fflush(stdout) != 0) return is_read(false);
    struct pollfd fds[] = {{.fd = lockstep_tail_fd(tail), .events = POLLIN}, {.fd = STDOUT_FILENO}};
    int ms = lockstep_tail_timeout_ms(tail); /* last before waiting */
    const struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    if (wait_unless_ended(fds, 2, ms < 0 ? NULL : &timeout) <= 0) return true;
    return is_read((fds[1].revents & (POLLERR | POLLHUP)) != 0);
}

static int follow(const struct cli *cli, struct lockstep_tail *tail, uint64_t count)
{
    struct lockstep_tail_record record;
    char said[512] = "";
    signals_take();
    while (count > 0 && !ended) {
        int rc = lockstep_tail_next(tail, &record, 0);
        if (rc == 0) {
            errno = 0;
            said[0] = 0; /* what it waited for came */
            record_show(cli, &record);
            if (!is_read(false)) break;
            count--;
            continue;
        }
        const char *text = lockstep_tail_text(tail);
        if (rc != LOCKSTEP_EUNAVAILABLE) return cli_fail(cli, exit_of(rc), "tail", "", "%s", text);
        if (text[0] != 0 && strcmp(text, said) != 0) { /* it waits for the node */
            snprintf(said, sizeof said, "%s", text);
            fprintf(stderr, "lockstep: tail: still trying: %s\n", text);
        }
        if (!wait_more(tail)) break;
    }
    return EXIT_OK;
}

static int tail_run(struct cli *cli)
{
    uint64_t count = UINT64_MAX;
    char why[512];
    struct lockstep_tail *tail;
    struct lockstep_tail_options options = {
        .size = sizeof options, .endpoint = cli->to, .deadline_ms = cli->timeout_ms};
    int rc = cli_number(cli, FROM, 1, UINT64_MAX, &options.from_position);
    if (rc == EXIT_OK) rc = cli_number(cli, COUNT, 1, UINT64_MAX, &count);
    if (rc != EXIT_OK) return rc;
    rc = lockstep_tail_open(&options, &tail, why, sizeof why);
    if (rc == LOCKSTEP_EINVAL)
        return cli_fail(cli, EXIT_USAGE, cli->to != NULL ? "--to" : "LOCKSTEP_ENDPOINTS", "", "%s", why);
    if (rc != 0) return cli_fail(cli, EXIT_FAILED, "tail", "", "%s", why);
    rc = follow(cli, tail, count);
    lockstep_tail_close(tail);
    return rc;
}

const struct command command_tail = {
    .name = "tail",
    .words = "",
    .text = "print what a node of this host commits, as it does",
    .details =
        "Reads the memory of one node of this host and user, and the node's log for what is older; all that the\n"
        "node does for it is to wake it. Each committed command comes once, in order, also when the node is started "
        "again.\n"
        "  lockstep tail --to 127.0.0.1:7402 --from 1 --count 10\n"
        "--to names one node. Exit: 0 after --count, SIGINT, SIGTERM, or when nobody reads any more; 4 the node is\n"
        "not there or not on this host; 5 the position is compacted away: the message has the oldest one.\n",
    .talks = true,
    .flags = flags,
    .run = tail_run,
};
