/* SPDX-License-Identifier: Apache-2.0 */
/* fake.c - see fake.h. */
#include "tests/unit/client/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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
    FILE *ports = fdopen(out[0], "r");
    for (int i = 0; i < NODES; i++) must(fscanf(ports, "%d", &fake.ports[i]) == 1);
    fclose(ports);
    snprintf(fake.all, sizeof fake.all, "127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", fake.ports[0], fake.ports[1],
             fake.ports[2]);
}

void fake_stop(void)
{
    close(fake.input);
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
    return client;
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

/* Change the fake cluster, through a client of its own: the one under test keeps what it knows. */
void tell(int node, const char *what)
{
    struct lockstep_client *client = client_of_node(node);
    struct lockstep_result result = query(client, what, LOCKSTEP_LOCAL);
    ck_assert_msg(result.error == 0, "%s: %s", what, result.text);
    lockstep_client_close(client);
}

static int count_of(const char *what, const char *command)
{
    struct lockstep_client *client = client_of_node(0);
    char text[128];
    snprintf(text, sizeof text, "%s %s", what, command);
    struct lockstep_result result = query(client, text, LOCKSTEP_LOCAL);
    ck_assert_int_eq(result.error, 0);
    char digits[16] = "";
    memcpy(digits, result.reply, result.reply_bytes < 15 ? result.reply_bytes : 15);
    lockstep_client_close(client);
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

void check_reply(struct lockstep_result result, const char *reply)
{
    ck_assert_msg(result.error == 0, "%d: %s", result.error, result.text);
    ck_assert_uint_eq(result.reply_bytes, strlen(reply));
    ck_assert_mem_eq(result.reply, reply, strlen(reply));
}
