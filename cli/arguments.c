/* SPDX-License-Identifier: Apache-2.0 */
/* arguments.c - values of flags, nearest words, errors and their exit codes, the way to a cluster. See cli.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/output.h"

/* --- errors --- */

static int fail(const struct cli *cli, int code, const char *error, const char *what, const char *advice,
                const char *why)
{
    bool has_advice = advice != NULL && advice[0] != 0;
    fprintf(stderr, "lockstep: %s: %s%s%s\n", what, why, has_advice ? "; " : "", has_advice ? advice : "");
    if (!cli->json) return code;
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_text(&json, "error", error);
    json_text(&json, "what", what);
    json_text(&json, "text", why);
    json_number(&json, "exit", (uint64_t)code);
    json_end(&json);
    return code;
}

int cli_fail(const struct cli *cli, int code, const char *what, const char *advice, const char *why, ...)
{
    static const char *const names[] = {"ok",          "failed",  "usage",   "not-ready",
                                        "unreachable", "refused", "unknown", "diverged"};
    char text[4096];
    va_list arguments;
    va_start(arguments, why);
    vsnprintf(text, sizeof text, why, arguments);
    va_end(arguments);
    return fail(cli, code, names[code], what, advice, text);
}

const char *cli_error_name(int error)
{
    switch (error) {
    case 0: return "ok";
#define NAME(name, value, text)                                                                                        \
    case value: return &#name[sizeof "LOCKSTEP_" - 1];
        LOCKSTEP_ERRORS(NAME)
#undef NAME
    default: return "EOTHER";
    }
}

int cli_exit_of(const struct lockstep_result *result)
{
    if (result->error == 0) return result->code == 0 ? EXIT_OK : EXIT_REFUSED;
    if (result->fate == LOCKSTEP_UNKNOWN) return EXIT_UNKNOWN;
    switch (result->error) {
    case LOCKSTEP_EUNREACHABLE: return EXIT_UNREACHABLE;
    case LOCKSTEP_EUNAVAILABLE:
    case LOCKSTEP_ENOTLEADER:
    case LOCKSTEP_EFULL:
    case LOCKSTEP_ETIMEDOUT: return EXIT_NOT_READY;
    case LOCKSTEP_EINVAL:
    case LOCKSTEP_ETOOBIG:
    case LOCKSTEP_ENOTFOUND:
    case LOCKSTEP_EWINDOW:
    case LOCKSTEP_EEXIST: return EXIT_REFUSED;
    case LOCKSTEP_ECORRUPT: return EXIT_DIVERGED;
    default: return EXIT_FAILED;
    }
}

int cli_fail_result(const struct cli *cli, const char *what, const struct lockstep_result *result)
{
    int code = cli_exit_of(result);
    const char *advice = "";
    if (code == EXIT_UNREACHABLE) advice = "is it running? --to HOST:PORT or LOCKSTEP_ENDPOINTS says where";
    if (code == EXIT_NOT_READY) advice = "nothing was changed; 'lockstep status' says what is missing";
    if (code == EXIT_UNKNOWN) advice = "it may have been applied: look before you send it again";
    return fail(cli, code, cli_error_name(result->error), what, advice, result->text);
}

/* --- values of flags --- */

int cli_number(const struct cli *cli, int flag, uint64_t min, uint64_t max, uint64_t *ret)
{
    const char *text = cli->values[flag];
    if (text == NULL) return EXIT_OK;
    uint64_t value;
    if (text_parse_u64(text, &value) && value >= min && value <= max) {
        *ret = value;
        return EXIT_OK;
    }
    char what[64];
    snprintf(what, sizeof what, "--%s", cli->command->flags[flag].name);
    return cli_fail(cli, EXIT_USAGE, what, "", "'%.60s' is no whole number from %" PRIu64 " to %" PRIu64, text, min,
                    max);
}

int cli_bytes(const struct cli *cli, int flag, uint64_t min, uint64_t max, uint64_t *ret)
{
    const char *text = cli->values[flag];
    if (text == NULL) return EXIT_OK;
    uint64_t value;
    /* Sizes of payloads are small: plain bytes are as clear as a unit. */
    if ((text_parse_u64(text, &value) || text_parse_bytes(text, &value)) && value >= min && value <= max) {
        *ret = value;
        return EXIT_OK;
    }
    char what[64];
    snprintf(what, sizeof what, "--%s", cli->command->flags[flag].name);
    return cli_fail(cli, EXIT_USAGE, what, "give bytes, or a whole number with KiB or MiB",
                    "'%.60s' is no size from %" PRIu64 " to %" PRIu64 " bytes", text, min, max);
}

int cli_duration(const struct cli *cli, int flag, uint64_t min_ns, uint64_t max_ns, uint64_t *ret_ns)
{
    const char *text = cli->values[flag];
    if (text == NULL) return EXIT_OK;
    uint64_t value;
    if (text_parse_duration(text, &value) && value >= min_ns && value <= max_ns) {
        *ret_ns = value;
        return EXIT_OK;
    }
    char what[64];
    snprintf(what, sizeof what, "--%s", cli->command->flags[flag].name);
    return cli_fail(cli, EXIT_USAGE, what, "give " TEXT_DURATION_FORM, "'%.60s' is no duration from %s to %s", text,
                    show_duration(min_ns), show_duration(max_ns));
}

char *cli_join_words(const struct cli *cli)
{
    size_t bytes = 1;
    for (int i = 0; i < cli->word_count; i++) bytes += strlen(cli->words[i]) + 1;
    char *text = malloc(bytes), *at = text;
    if (text == NULL) return NULL;
    for (int i = 0; i < cli->word_count; i++) {
        if (i > 0) *at++ = ' ';
        at = stpcpy(at, cli->words[i]);
    }
    *at = 0;
    return text;
}

/* --- the nearest word: letters changed, left out, put in or swapped --- */

enum { WORD_BYTES_MAX = 24 };

static int distance(const char *a, const char *b)
{
    int rows[WORD_BYTES_MAX + 1][WORD_BYTES_MAX + 1];
    int m = (int)strlen(a), n = (int)strlen(b);
    if (m > WORD_BYTES_MAX || n > WORD_BYTES_MAX) return WORD_BYTES_MAX;
    for (int i = 0; i <= m; i++) {
        for (int j = 0; j <= n; j++) {
            if (i == 0 || j == 0) {
                rows[i][j] = i + j;
                continue;
            }
            int best = rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (rows[i - 1][j] + 1 < best) best = rows[i - 1][j] + 1;
            if (rows[i][j - 1] + 1 < best) best = rows[i][j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && rows[i - 2][j - 2] + 1 < best) best = rows[i - 2][j - 2] + 1;
            rows[i][j] = best;
        }
    }
    return rows[m][n];
}

int cli_nearest(const char *word, const char *const *names, int count)
{
    int best = -1, best_distance = 0;
    for (int i = 0; i < count; i++) {
        int d = distance(word, names[i]);
        /* A beginning counts as near: "stat" is status. */
        if (strlen(word) >= 3 && strncmp(word, names[i], strlen(word)) == 0) d = 1;
        bool near = d <= 1 || d * 3 <= (int)strlen(names[i]);
        if (near && (best < 0 || d < best_distance)) {
            best = i;
            best_distance = d;
        }
    }
    return best;
}

/* --- the way to a cluster --- */

int cli_connect(const struct cli *cli, struct lockstep_client **ret)
{
    struct lockstep_client_options options = {
        .size = sizeof options, .endpoints = cli->to, .deadline_ms = cli->timeout_ms, .no_session = cli->no_session};
    char why[512];
    int rc = lockstep_client_open(&options, ret, why, sizeof why);
    if (rc == LOCKSTEP_EINVAL)
        return cli_fail(cli, EXIT_USAGE, cli->to != NULL ? "--to" : "LOCKSTEP_ENDPOINTS", "", "%s", why);
    if (rc != 0) return cli_fail(cli, EXIT_FAILED, "client", "", "%s", why);
    return EXIT_OK;
}

uint64_t cli_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void cli_wait(const struct cli *cli, struct lockstep_client *client)
{
    uint64_t say_ns = cli_now_ns() + 900 * UINT64_C(1000000);
    while (lockstep_client_running(client) > 0) {
        if (lockstep_client_poll(client, say_ns == UINT64_MAX ? -1 : 100) != 0) break;
        if (cli_now_ns() < say_ns || lockstep_client_running(client) == 0) continue;
        const char *trouble = lockstep_client_trouble(client);
        if (trouble[0] == 0) continue;
        fprintf(stderr, "lockstep: %s: still trying: %s\n", cli->command->name, trouble);
        say_ns = UINT64_MAX;
    }
}
