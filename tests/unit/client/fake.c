/* SPDX-License-Identifier: Apache-2.0 */
/* fake.c - see fake.h. */
#include "tests/unit/client/fake.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/internal.h"

struct fake fake;

/* Outside a test check has nobody to report to. */
static void must(bool condition)
{
    if (condition) return;
    fprintf(stderr, "the fake cluster did not start\n");
    exit(EXIT_FAILURE);
}

void fake_start(const char *script, const char *protos)
{
    int in[2], out[2];
    must(pipe(in) == 0);
    must(pipe(out) == 0);
    fake.pid = fork();
    must(fake.pid >= 0);
    if (fake.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        close(out[0]);
        char nodes[8];
        snprintf(nodes, sizeof nodes, "%d", NODES);
        execl("/usr/bin/python3", "python3", script, protos, nodes, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    fake.input = in[1];
    fake.output = fdopen(out[0], "r");
    must(fake.output != NULL);
    char line[64];
    must(fgets(line, sizeof line, fake.output) != NULL);
    must(sscanf(line, "%d %d %d", &fake.ports[0], &fake.ports[1], &fake.ports[2]) == NODES);
    snprintf(fake.all, sizeof fake.all, "127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", fake.ports[0], fake.ports[1],
             fake.ports[2]);
}

void fake_stop(void)
{
    close(fake.input);
    fclose(fake.output);
    waitpid(fake.pid, NULL, 0);
}

uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct lockstep_client *client_with(const char *endpoints, bool session)
{
    struct lockstep_client_options options = {.size = sizeof options, .endpoints = endpoints, .no_session = !session};
    struct lockstep_client *client;
    char why[256] = "";
    ck_assert_msg(lockstep_client_open(&options, &client, why, sizeof why) == 0, "%s", why);
    client->dial_ms = client->quiet_ms = 60000;
    return client;
}

void as_it_ships(struct lockstep_client *client)
{
    client->dial_ms = CLIENT_DIAL_MS;
    client->quiet_ms = CLIENT_QUIET_MS;
}

bool one_in_ten_takes_less(uint32_t ms, void (*what)(void))
{
    for (int i = 0; i < 10; i++) {
        uint64_t begin_ms = now_ms();
        what();
        if (now_ms() - begin_ms < ms) return true;
    }
    return false;
}

struct lockstep_client *client_of(const char *endpoints)
{
    return client_with(endpoints, false);
}

struct lockstep_client *client_of_node(int node)
{
    char endpoint[32];
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%d", fake.ports[node]);
    return client_of(endpoint);
}

struct lockstep_result propose(struct lockstep_client *client, const char *command, uint32_t deadline_ms)
{
    struct lockstep_proposal proposal = {
        .command = command, .command_bytes = strlen(command), .deadline_ms = deadline_ms};
    struct lockstep_result result;
    ck_assert_int_eq(lockstep_propose_wait(client, &proposal, &result), result.error);
    return result;
}

struct lockstep_result query(struct lockstep_client *client, const char *text, enum lockstep_consistency how)
{
    struct lockstep_query q = {.query = text, .query_bytes = strlen(text), .consistency = how};
    struct lockstep_result result;
    lockstep_query_wait(client, &q, &result);
    return result;
}

void ask(const char *what, char *answer, size_t room)
{
    char line[128];
    int n = snprintf(line, sizeof line, "%s\n", what);
    ck_assert_int_lt(n, sizeof line);
    ck_assert_int_eq(write(fake.input, line, (size_t)n), n);
    ck_assert_msg(fgets(answer, (int)room, fake.output) != NULL, "%s: the fake cluster died", what);
    answer[strcspn(answer, "\n")] = 0;
}

void tell(const char *format, ...)
{
    char what[128], answer[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    ask(what, answer, sizeof answer);
    ck_assert_str_eq(answer, "done");
}

static int count_of(const char *what, const char *command)
{
    char question[128], digits[32];
    snprintf(question, sizeof question, "%s %s", what, command);
    ask(question, digits, sizeof digits);
    return atoi(digits);
}

int seen(const char *command)
{
    return count_of("seen", command);
}

int applied(const char *command)
{
    return count_of("applied", command);
}

static char broken[256];

void expect(bool holds, const char *what, int64_t is, const char *text)
{
    if (holds || broken[0] != 0) return;
    snprintf(broken, sizeof broken, "in a callback: %s: %lld: %s", what, (long long)is, text);
}

void callbacks_were_right(void)
{
    char what[sizeof broken];
    memcpy(what, broken, sizeof what);
    broken[0] = 0; /* the next test begins anew */
    ck_assert_msg(what[0] == 0, "%s", what);
}

void check_reply(struct lockstep_result result, const char *reply)
{
    ck_assert_msg(result.error == 0, "%d: %s", result.error, result.text);
    ck_assert_uint_eq(result.reply_bytes, strlen(reply));
    ck_assert_mem_eq(result.reply, reply, strlen(reply));
}
