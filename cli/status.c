/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - `lockstep status`: what every member knows of itself, side by side.
 * The members' addresses come from whichever node answers first; then each is asked by itself, all at the same time, so
 * that a dead or hanging one costs a second, not one each.
 * Exit 3 without a leader, 7 where two nodes show different hashes for the same index. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/members.h"
#include "cli/output.h"

enum { STATUS_MEMBER_MS = 1000 };

static void status_came(void *context, const struct lockstep_result *result, const struct lockstep_status *status)
{
    struct member_view *member = context;
    if (result->error != 0) {
        snprintf(member->trouble, sizeof member->trouble, "%s", result->text);
        return;
    }
    member->reachable = true;
    member->status = *status;
}

static void poll_all(struct lockstep_client **clients, uint32_t count)
{
    struct pollfd fds[LOCKSTEP_MEMBERS_MAX];
    for (;;) {
        nfds_t running = 0;
        int wait_ms = -1;
        for (uint32_t i = 0; i < count; i++) {
            if (clients[i] == NULL || lockstep_client_running(clients[i]) == 0) continue;
            int ms = lockstep_client_timeout_ms(clients[i]);
            if (ms >= 0 && (wait_ms < 0 || ms < wait_ms)) wait_ms = ms;
            fds[running++] = (struct pollfd){.fd = lockstep_client_fd(clients[i]), .events = POLLIN};
        }
        if (running == 0) return;
        (void)poll(fds, running, wait_ms); /* interrupted: the clients look for themselves */
        for (uint32_t i = 0; i < count; i++)
            if (clients[i] != NULL) (void)lockstep_client_poll(clients[i], 0);
    }
}

void members_ask(const struct lockstep_status *from, uint32_t deadline_ms, struct members *ret)
{
    memset(ret, 0, sizeof *ret);
    struct lockstep_client *clients[LOCKSTEP_MEMBERS_MAX] = {NULL};
    ret->count = from->member_count;
    for (uint32_t i = 0; i < ret->count; i++) {
        struct member_view *member = &ret->members[i];
        member->listed = from->members[i];
        if (member->listed.client[0] == 0) { /* of one that the asked node has just met */
            snprintf(member->trouble, sizeof member->trouble, "%s does not know where its client port is", from->name);
            continue;
        }
        struct lockstep_client_options options = {
            .size = sizeof options, .endpoints = member->listed.client, .deadline_ms = deadline_ms};
        int rc = lockstep_client_open(&options, &clients[i], member->trouble, sizeof member->trouble);
        if (rc == 0) rc = lockstep_status(clients[i], 0, status_came, member);
        if (rc != 0 && member->trouble[0] == 0)
            snprintf(member->trouble, sizeof member->trouble, "%s", lockstep_error_text(rc));
    }
    poll_all(clients, ret->count);
    for (uint32_t i = 0; i < ret->count; i++) lockstep_client_close(clients[i]);
    members_judge(ret, from->cluster_id);
}

/* --- printing --- */

static void member_json(struct json *json, const struct members *members, const struct member_view *m)
{
    const struct lockstep_status *s = &m->status;
    json_object(json, NULL);
    json_text(json, "name", m->listed.name);
    json_id(json, "id", m->listed.id);
    json_text(json, "client", m->listed.client);
    json_text(json, "peer", m->listed.peer);
    json_bool(json, "voter", m->listed.voter);
    json_text(json, "member", m->listed.role);
    json_number(json, "priority", m->listed.priority);
    json_bool(json, "leader", m == members->leader);
    json_bool(json, "reachable", m->reachable);
    if (!m->reachable) {
        json_text(json, "trouble", m->trouble);
        json_end(json);
        return;
    }
    json_text(json, "role", s->role);
    json_number(json, "term", s->term);
    json_number(json, "last", s->last_index);
    json_number(json, "commit", s->commit_index);
    json_number(json, "applied", s->applied_index);
    json_number(json, "applied_position", s->applied_position);
    json_number(json, "durable", s->durable_index);
    json_number(json, "stored", s->stored_index);
    json_number(json, "base", s->base_index);
    json_number(json, "snapshot", s->snapshot_index);
    json_text(json, "note", m->listed.note);
    json_hash(json, "state_hash", s->state_hash, s->state_hash_bytes);
    json_hash(json, "reply_hash", s->reply_hash, s->reply_hash_bytes);
    json_number(json, "hash_index", s->hash_index);
    json_text(json, "version", s->version);
    json_array(json, "peers"); /* as this node sees them */
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct lockstep_member *peer = &s->members[i];
        if (strcmp(peer->name, s->name) == 0) continue;
        json_object(json, NULL);
        json_text(json, "name", peer->name);
        json_text(json, "path", peer->path);
        json_number(json, "lag_bytes", peer->lag_bytes);
        json_number(json, "lapped", peer->lapped);
        json_end(json);
    }
    json_end(json);
    json_object(json, "observers");
    json_number(json, "count", s->observers);
    json_number(json, "lag_bytes", s->observer_lag_bytes);
    json_number(json, "lapped", s->observer_lapped);
    json_end(json);
    json_array(json, "warnings");
    for (uint32_t i = 0; i < s->warning_count; i++) json_text(json, NULL, s->warnings[i]);
    json_end(json);
    const struct lockstep_counters *c = &s->counters;
    json_object(json, "counters");
    json_number(json, "commands_appended", c->commands_appended);
    json_number(json, "blocks_appended", c->blocks_appended);
    json_number(json, "bytes_appended", c->bytes_appended);
    json_number(json, "flushes", c->flushes);
    json_number(json, "appends_sent", c->appends_sent);
    json_number(json, "appends_inflight_max", c->appends_inflight_max);
    json_number(json, "elections", c->elections);
    json_number(json, "connections", c->connections);
    json_number(json, "connections_refused", c->connections_refused);
    json_number(json, "protocol_errors", c->protocol_errors);
    json_number(json, "rejected_full", c->rejected_full);
    json_number(json, "frames_refused", c->frames_refused);
    json_number(json, "commands_repeated", c->commands_repeated);
    json_number(json, "sessions", c->sessions);
    json_end(json);
    json_end(json);
}

static void print_json(const struct lockstep_status *from, const struct members *members, int exit_code)
{
    static const char *const levels[] = {"unspecified", "fsync", "os", "memory"};
    struct json json = json_to(stdout);
    json_object(&json, NULL);
    json_text(&json, "cluster", from->cluster);
    json_id(&json, "cluster_id", from->cluster_id);
    json_text(&json, "machine", from->machine);
    json_text(&json, "machine_version", from->machine_version);
    json_text(&json, "durability", levels[from->durability]);
    if (members->leader != NULL)
        json_text(&json, "leader", members->leader->listed.name);
    else
        json_null(&json, "leader");
    json_number(&json, "term", members->leader != NULL ? members->leader->status.term : from->term);
    json_number(&json, "may_lose", members->may_lose);
    const struct lockstep_status *known = members->leader != NULL ? &members->leader->status : from;
    json_number(&json, "configuration", known->configuration_index);
    json_bool(&json, "joint", known->joint);
    json_text(&json, "change", known->change);
    if (members->diverged[0] != 0)
        json_text(&json, "diverged", members->diverged);
    else
        json_null(&json, "diverged");
    json_array(&json, "nodes");
    for (uint32_t i = 0; i < members->count; i++) member_json(&json, members, &members->members[i]);
    json_end(&json);
    json_number(&json, "exit", (uint64_t)exit_code);
    json_end(&json);
}

/* How a member follows: as the leader sees it, whoever was asked; as the asked node does, if nobody leads. */
static const struct lockstep_member *following(const struct members *members, const struct member_view *m)
{
    const struct lockstep_status *s = members->leader != NULL ? &members->leader->status : NULL;
    for (uint32_t i = 0; s != NULL && i < s->member_count; i++)
        if (s->members[i].id == m->listed.id) return &s->members[i];
    return &m->listed;
}

static const char *path_of(const struct members *members, const struct member_view *m)
{
    const char *path = following(members, m)->path;
    if (path[0] == 0) return "-";
    return strcmp(path, "shared memory") == 0 ? "memory" : path;
}

void members_print(const struct members *members, FILE *to)
{
    static struct table table;
    table_clear(&table, 12);
    table_row(&table);
    static const char *const heads[] = {"",       "NODE",    "CLIENT",  "MEMBER", "ROLE",       "TERM",
                                        "COMMIT", "APPLIED", "DURABLE", "PATH",   "STATE HASH", "REPLY HASH"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) table_cell(&table, "%s", i == 0 ? " " : heads[i]);
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member_view *m = &members->members[i];
        const struct lockstep_status *s = &m->status;
        table_row(&table);
        table_cell(&table, "%s", m == members->leader ? "*" : " ");
        table_cell(&table, "%s", m->listed.name);
        table_cell(&table, "%s", m->listed.client);
        table_cell(&table, "%s", m->listed.role[0] != 0 ? m->listed.role : "-");
        table_cell(&table, "%s", m->reachable ? s->role : "unreachable");
        if (!m->reachable) {
            for (int rest = 0; rest < 7; rest++) table_cell(&table, "-");
            continue;
        }
        table_cell(&table, "%" PRIu64, s->term);
        table_cell(&table, "%" PRIu64, s->commit_index);
        table_cell(&table, "%" PRIu64, s->applied_index);
        table_cell(&table, "%" PRIu64, s->durable_index);
        table_cell(&table, "%s", path_of(members, m));
        /* Eight digits tell nodes apart for a person; -o json has them all. */
        char at[24] = "";
        snprintf(at, sizeof at, "@%" PRIu64, s->hash_index);
        table_cell(&table, "%.8s%s", s->state_hash_bytes > 0 ? show_hex(s->state_hash, s->state_hash_bytes) : "none",
                   at);
        table_cell(&table, "%.8s%s", s->reply_hash_bytes > 0 ? show_hex(s->reply_hash, s->reply_hash_bytes) : "none",
                   at);
    }
    table_print(&table, to);
}

static void print_people(const struct lockstep_status *from, const struct members *members)
{
    static const char *const levels[] = {"", ", durable by fsync", ", durable by the page cache", ", in memory only"};
    printf("cluster %s, machine %s %s%s\n", from->cluster[0] != 0 ? from->cluster : "(not born yet)", from->machine,
           from->machine_version, levels[from->durability]);
    if (members->leader != NULL)
        printf("%s leads in term %" PRIu64 "; %" PRIu32 " more %s may be lost\n", members->leader->listed.name,
               members->leader->status.term, members->may_lose, members->may_lose == 1 ? "node" : "nodes");
    const struct lockstep_status *known = members->leader != NULL ? &members->leader->status : from;
    if (known->change[0] != 0) printf("members are being changed: %s\n", known->change);
    if (known->joint)
        printf("configuration %" PRIu64 " is joint: old and new voters have to agree\n", known->configuration_index);
    members_print(members, stdout);
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member_view *m = &members->members[i];
        if (!m->reachable) printf("%s: %s\n", m->listed.name, m->trouble);
        if (m->listed.note[0] != 0 && m->reachable) printf("%s: %s\n", m->listed.name, m->listed.note);
        const struct lockstep_member *f = following(members, m);
        if (f->lag_bytes > 0 || f->lapped > 0)
            printf("%s: %" PRIu64 " bytes behind in shared memory, lapped %" PRIu64 " times\n", m->listed.name,
                   f->lag_bytes, f->lapped);
        if (m->status.observers > 0)
            printf("%s: %" PRIu32 " %s, at most %" PRIu64 " bytes behind, lapped %" PRIu64 " times\n", m->listed.name,
                   m->status.observers, m->status.observers == 1 ? "observer" : "observers",
                   m->status.observer_lag_bytes, m->status.observer_lapped);
        for (uint32_t w = 0; w < m->status.warning_count; w++)
            printf("%s: %s\n", m->listed.name, m->status.warnings[w]);
    }
}

static int status_run(struct cli *cli)
{
    struct lockstep_client *client;
    int rc = cli_connect(cli, &client);
    if (rc != EXIT_OK) return rc;
    static struct members members; /* large */
    static struct lockstep_status from;
    struct lockstep_result result;
    uint32_t deadline_ms = cli->timeout_ms != 0 ? cli->timeout_ms : 2000;
    if (lockstep_status_wait(client, deadline_ms, &result, &from) != 0) {
        rc = cli_fail_result(cli, "status", &result);
        lockstep_client_close(client);
        return rc;
    }
    lockstep_client_close(client);
    members_ask(&from, deadline_ms < STATUS_MEMBER_MS ? deadline_ms : STATUS_MEMBER_MS, &members);
    if (members.diverged[0] != 0)
        rc = EXIT_DIVERGED;
    else if (members.leader == NULL)
        rc = EXIT_NOT_READY;
    if (cli->json) {
        print_json(&from, &members, rc);
        return rc;
    }
    print_people(&from, &members);
    fflush(stdout);
    if (rc == EXIT_DIVERGED)
        return cli_fail(cli, EXIT_DIVERGED, "status", "stop the cluster and keep the data directories", "%s",
                        members.diverged);
    if (rc == EXIT_NOT_READY)
        return cli_fail(cli, EXIT_NOT_READY, "status", "start the nodes that are unreachable", "there is no leader");
    return EXIT_OK;
}

const struct command command_status = {
    .name = "status",
    .words = "",
    .text = "every member, side by side; who leads, how many may be lost",
    .details =
        "Asks one node for the members, then each of them. * marks the leader. A hash is shown with the index it is\n"
        "of: equal indexes must show equal hashes. Exit: 3 without a leader, 7 where hashes differ.\n",
    .talks = true,
    .run = status_run,
};
