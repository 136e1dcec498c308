/* SPDX-License-Identifier: Apache-2.0 */
/* test_front.c - the client port: what clients ask and what they are told, over real sockets, with a played node. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/lockstep.pb-c.h"
#include "proto/messages.h"
#include "tests/support/unit.h"
#include "server/front_internal.h"
#include "tests/unit/server/front_rig.h"

static struct rig rig;
static struct client *client;

#define LOCKSTEP "/lockstep.v1.Lockstep/"

static void set_up(void)
{
    rig_init(&rig);
    rig_open(&rig);
    client = client_open(&rig, 0);
}

static const struct client_call *seen(unsigned index)
{
    return &client->calls[index];
}

static size_t propose_bytes(uint8_t *to, const char *command)
{
    struct propose_request request = {
        .command = (const uint8_t *)command, .command_bytes = strlen(command), .session = 3, .seq = 4, .entity = 5};
    return (size_t)(propose_request_put(to, &request) - to);
}

static void propose(unsigned index, const char *command)
{
    uint8_t bytes[256];
    client_call(client, index, LOCKSTEP "Propose", bytes, propose_bytes(bytes, command), false);
}

START_TEST(a_command_is_proposed_and_its_outcome_answered)
{
    set_up();
    propose(0, "put k v");
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 1);
    const struct node_command *command = &rig.node.asked[0].command;
    ck_assert_uint_eq(command->payload_bytes, 7);
    ck_assert_mem_eq(rig.node.asked[0].bytes, "put k v", 7);
    ck_assert_uint_eq(command->session, 3);
    ck_assert_uint_eq(command->seq, 4);
    ck_assert_uint_eq(command->entity, 5);
    ck_assert(rig.node.asked[0].may_forward);
    ck_assert_uint_eq(seen(0)->ends, 0);
    ck_assert(!front_drained(rig.front));
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(seen(0)->ends, 1);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    struct propose_response response;
    ck_assert_int_eq(propose_response_read(seen(0)->last, seen(0)->last_bytes, &response), 0);
    ck_assert_uint_eq(response.position, 1);
    ck_assert_uint_eq(response.index, 101);
    ck_assert_uint_eq(response.durability, 1);
    ck_assert_mem_eq(response.reply, "put k v", 7);
    ck_assert(front_drained(rig.front));
    rig_close(&rig);
}
END_TEST

START_TEST(forwarding_can_be_declined)
{
    set_up();
    uint8_t bytes[64];
    struct grpc_client_call *call =
        client_call_with(client, 0, LOCKSTEP "Propose", bytes, propose_bytes(bytes, "x"), 0, true);
    grpc_client_half_close(call);
    rig_settle(&rig);
    ck_assert(!rig.node.asked[0].may_forward);
    rig_close(&rig);
}
END_TEST

static const struct {
    int error, status;
    const char *leader, *retry_after, *outcome;
} refusals[] = {
    {LOCKSTEP_ENOTLEADER, GRPC_FAILED_PRECONDITION, "127.0.0.1:7402", "", "not-appended"},
    {LOCKSTEP_EFULL, GRPC_RESOURCE_EXHAUSTED, "", "25", "not-appended"},
    {LOCKSTEP_EUNAVAILABLE, GRPC_UNAVAILABLE, "", "", "not-appended"},
    {LOCKSTEP_ETOOBIG, GRPC_INVALID_ARGUMENT, "", "", "not-appended"},
    {LOCKSTEP_EUNKNOWN, GRPC_ABORTED, "", "", ""},
    {LOCKSTEP_ETIMEDOUT, GRPC_DEADLINE_EXCEEDED, "", "", ""},
    {LOCKSTEP_ENOTFOUND, GRPC_NOT_FOUND, "", "", ""}, /* of a session: an earlier copy may have been applied */
    {LOCKSTEP_EWINDOW, GRPC_OUT_OF_RANGE, "", "", ""},
    {LOCKSTEP_EREPLIED, GRPC_ALREADY_EXISTS, "", "", ""},
};

START_TEST(errors_are_told_by_status_and_trailers)
{
    set_up();
    rig.node.leader = 1;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        for (int later = 0; later < 2; later++) { /* refused at once, or as the outcome */
            rig.node.refuse = later ? 0 : refusals[i].error;
            propose(0, "x");
            rig_settle(&rig);
            if (later) fake_answer(&rig.node, 1, refusals[i].error);
            rig_settle(&rig);
            ck_assert_int_eq(seen(0)->status, refusals[i].status);
            ck_assert(seen(0)->from_server);
            ck_assert_str_eq(seen(0)->leader, refusals[i].leader);
            ck_assert_str_eq(seen(0)->retry_after, refusals[i].retry_after);
            ck_assert_str_eq(seen(0)->outcome, refusals[i].outcome);
            ck_assert_uint_gt(strlen(seen(0)->message), 10);
        }
    }
    rig.node.leader = RAFT_MEMBERS_MAX; /* nobody to send the client to */
    rig.node.refuse = LOCKSTEP_ENOTLEADER;
    propose(0, "x");
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_UNAVAILABLE);
    rig_close(&rig);
}
END_TEST

START_TEST(a_machines_refusal_is_an_answer)
{
    set_up();
    propose(0, "x");
    rig_settle(&rig);
    struct node_outcome outcome = {.code = -3, .index = 9, .position = 8};
    rig.node.answered_count = 1;
    rig.node.owner.proposed(rig.node.owner.context, rig.node.asked[0].tag, &outcome);
    rig_settle(&rig);
    struct propose_response response;
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    ck_assert_int_eq(propose_response_read(seen(0)->last, seen(0)->last_bytes, &response), 0);
    ck_assert_int_eq(response.code, -3);
    rig_close(&rig);
}
END_TEST

static void ask_about(const char *method, uint64_t session, uint64_t seq)
{
    uint8_t bytes[64];
    struct session_request request = {.session = session, .seq = seq};
    char path[64];
    snprintf(path, sizeof path, LOCKSTEP "%s", method);
    client_call(client, 0, path, bytes, (size_t)(session_request_put(bytes, &request) - bytes), false);
    rig_settle(&rig);
}

static void propose_ends(struct node_outcome outcome)
{
    const struct fake_asked *asked = &rig.node.asked[rig.node.answered_count++];
    rig.node.owner.proposed(rig.node.owner.context, asked->tag, &outcome);
    rig_settle(&rig);
}

START_TEST(sessions_are_commands_of_their_own_kind) /* M1 */
{
    set_up();
    client_call(client, 0, LOCKSTEP "OpenSession", "", 0, false);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked[0].command.kind, COMMAND_SESSION_OPEN);
    ck_assert(rig.node.asked[0].may_forward);
    propose_ends((struct node_outcome){.index = 3, .position = 17});
    struct session_response response;
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    ck_assert_int_eq(session_response_read(seen(0)->last, seen(0)->last_bytes, &response), 0);
    ck_assert_uint_eq(response.session, 17);
    ck_assert_uint_eq(response.expiry_ms, 30000);
    ck_assert_uint_eq(response.window, 64);
    static const struct {
        const char *method;
        enum command_kind kind;
    } others[] = {{"KeepAlive", COMMAND_SESSION_KEEP}, {"CloseSession", COMMAND_SESSION_CLOSE}};
    for (unsigned i = 0; i < 2; i++) {
        uint32_t at = rig.node.answered_count;
        ask_about(others[i].method, 17, 0);
        ck_assert_uint_eq(rig.node.asked[at].command.kind, others[i].kind);
        ck_assert_uint_eq(rig.node.asked[at].command.session, 17);
        ck_assert_uint_eq(rig.node.asked[at].command.payload_bytes, 0);
        propose_ends((struct node_outcome){.position = 18});
        ck_assert_int_eq(seen(0)->status, GRPC_OK);
        ck_assert_uint_eq(seen(0)->messages, 1);
        ck_assert_uint_eq(seen(0)->last_bytes, 0);
        ask_about(others[i].method, 17, 0);
        propose_ends((struct node_outcome){.error = LOCKSTEP_ENOTFOUND});
        ck_assert_int_eq(seen(0)->status, GRPC_NOT_FOUND);
        ask_about(others[i].method, 0, 0);
        ck_assert_int_eq(seen(0)->status, GRPC_INVALID_ARGUMENT);
    }
    client_call(client, 0, LOCKSTEP "OpenSession", "", 0, false);
    rig_settle(&rig);
    propose_ends((struct node_outcome){.error = LOCKSTEP_EFULL});
    ck_assert_int_eq(seen(0)->status, GRPC_RESOURCE_EXHAUSTED);
    ck_assert_str_eq(seen(0)->outcome, "not-appended");
    ck_assert_str_eq(seen(0)->retry_after, "1000");
    rig_close(&rig);
}
END_TEST

static struct propose_result outcome_of(struct node_answer answer)
{
    uint32_t at = rig.node.answered_count++;
    ask_about("Outcome", 17, 4);
    ck_assert(rig.node.asked[at].is_query);
    ck_assert_int_eq(rig.node.asked[at].query.consistency, NODE_LINEARIZABLE);
    ck_assert_uint_eq(rig.node.asked[at].query.session, 17);
    ck_assert_uint_eq(rig.node.asked[at].query.seq, 4);
    rig.node.owner.queried(rig.node.owner.context, rig.node.asked[at].tag, &answer);
    rig_settle(&rig);
    struct propose_result result = {0};
    if (seen(0)->status == GRPC_OK)
        ck_assert_int_eq(propose_result_read(seen(0)->last, seen(0)->last_bytes, &result), 0);
    return result;
}

START_TEST(what_became_of_a_command_is_told)
{
    set_up();
    struct propose_result result = outcome_of(
        (struct node_answer){.code = 6, .index = 5, .position = 9, .reply = (uint8_t *)"abc", .reply_bytes = 3});
    ck_assert_uint_eq(result.outcome, PROPOSE_APPLIED);
    ck_assert_int_eq(result.response.code, 6);
    ck_assert_uint_eq(result.response.index, 5);
    ck_assert_uint_eq(result.response.position, 9);
    ck_assert_uint_eq(result.response.durability, 1);
    ck_assert_mem_eq(result.response.reply, "abc", 3);
    ck_assert_uint_eq(outcome_of((struct node_answer){0}).outcome, PROPOSE_UNKNOWN);
    ck_assert_uint_eq(outcome_of((struct node_answer){.error = LOCKSTEP_EREPLIED}).outcome, PROPOSE_REPLY_DROPPED);
    outcome_of((struct node_answer){.error = LOCKSTEP_ENOTFOUND});
    ck_assert_int_eq(seen(0)->status, GRPC_NOT_FOUND);
    outcome_of((struct node_answer){.error = LOCKSTEP_EWINDOW});
    ck_assert_int_eq(seen(0)->status, GRPC_OUT_OF_RANGE);
    rig_close(&rig);
}
END_TEST

START_TEST(malformed_and_missing_and_second_messages_are_refused)
{
    set_up();
    client_call(client, 0, LOCKSTEP "Propose", "\x0a\x7f", 2, false);
    struct grpc_client_call *call;
    client->calls[1] = (struct client_call){0};
    ck_assert_int_eq(grpc_client_start(client->grpc, LOCKSTEP "Propose", 0, NULL, 0, &client->calls[1], &call), 0);
    client->calls[1].call = call;
    grpc_client_half_close(call);
    call = client_call(client, 2, LOCKSTEP "Propose", "", 0, true);
    ck_assert_int_eq(grpc_client_message(call, NULL, 0), 0);
    client_call(client, 3, LOCKSTEP "Nothing", "", 0, false);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_INVALID_ARGUMENT);
    ck_assert_int_eq(seen(1)->status, GRPC_INVALID_ARGUMENT);
    ck_assert_int_eq(seen(2)->status, GRPC_INVALID_ARGUMENT);
    ck_assert_int_eq(seen(3)->status, GRPC_UNIMPLEMENTED);
    ck_assert_str_eq(seen(1)->outcome, "not-appended"); /* none came */
    ck_assert_str_eq(seen(2)->outcome, "");             /* the first of the two may be applied */
    ck_assert_str_eq(seen(3)->outcome, "not-appended");
    if (rig.node.asked_count > 0) fake_answer(&rig.node, rig.node.asked_count, 0); /* nobody waits for it */
    rig_settle(&rig);
    rig_close(&rig);
}
END_TEST

START_TEST(a_message_over_the_limit_was_surely_not_appended)
{
    set_up();
    uint8_t *bytes = calloc(1, (4 << 20) + 1);
    ck_assert_ptr_nonnull(bytes);
    client_call(client, 0, LOCKSTEP "Propose", bytes, (4 << 20) + 1, false);
    for (int i = 0; i < 20 && seen(0)->ends == 0; i++) rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_RESOURCE_EXHAUSTED);
    ck_assert_str_eq(seen(0)->outcome, "not-appended");
    ck_assert_uint_eq(rig.node.asked_count, 0);
    free(bytes);
    rig_close(&rig);
}
END_TEST

START_TEST(queries_are_asked_and_answered)
{
    set_up();
    uint8_t bytes[64];
    struct query_request request = {.query = (const uint8_t *)"get k",
                                    .query_bytes = 5,
                                    .entity = 6,
                                    .consistency = 3,
                                    .min_index = 77,
                                    .max_staleness_ms = 250};
    size_t n = (size_t)(query_request_put(bytes, &request) - bytes);
    client_call(client, 0, LOCKSTEP "Query", bytes, n, false);
    rig_settle(&rig);
    ck_assert(rig.node.asked[0].is_query);
    ck_assert_int_eq((int)rig.node.asked[0].query.consistency, NODE_BOUNDED_STALE);
    ck_assert_uint_eq(rig.node.asked[0].query.max_staleness_ns, 250000000);
    ck_assert_uint_gt(rig.node.asked[0].query.timeout_ns, UINT64_C(1000000000));
    ck_assert_uint_lt(rig.node.asked[0].query.timeout_ns,
                      UINT64_C(10000000000)); /* the node answers before the deadline */
    ck_assert_uint_eq(rig.node.asked[0].query.min_index, 77);
    ck_assert_uint_eq(rig.node.asked[0].query.entity, 6);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    struct query_response response;
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    ck_assert_int_eq(query_response_read(seen(0)->last, seen(0)->last_bytes, &response), 0);
    ck_assert_mem_eq(response.reply, "get k", 5);
    ck_assert_uint_eq(response.index, 5);
    client_call(client, 0, LOCKSTEP "Query", bytes, n, false);
    client_call(client, 1, LOCKSTEP "Query", "\x18\x04", 2, false); /* consistency 4 does not exist */
    rig_settle(&rig);
    fake_answer(&rig.node, 1, LOCKSTEP_EINVAL);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_UNIMPLEMENTED);
    ck_assert_int_eq(seen(1)->status, GRPC_INVALID_ARGUMENT);
    rig_close(&rig);
}
END_TEST

START_TEST(a_query_of_little_time_has_half_of_it_to_wait)
{
    set_up();
    const uint64_t timeout_ns = 40000000; /* less than the front's own ticks */
    struct query_request request = {.min_index = 77, .consistency = NODE_LOCAL};
    uint8_t bytes[64];
    size_t n = (size_t)(query_request_put(bytes, &request) - bytes);
    grpc_client_half_close(client_call_with(client, 0, LOCKSTEP "Query", bytes, n, timeout_ns, false));
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 1);
    ck_assert_uint_gt(rig.node.asked[0].query.timeout_ns, 0);
    ck_assert_uint_le(rig.node.asked[0].query.timeout_ns, timeout_ns / 2);
    fake_answer(&rig.node, 1, LOCKSTEP_ETIMEDOUT);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_DEADLINE_EXCEEDED);
    ck_assert(seen(0)->from_server);
    rig_close(&rig);
}
END_TEST

START_TEST(status_tells_what_the_node_knows)
{
    set_up();
    rig.node.status.observers = (struct transport_observers){.count = 2, .lag_bytes = 640, .lapped = 3};
    client_call(client, 0, "/lockstep.v1.Admin/Status", "", 0, false);
    rig_settle(&rig);
    Lockstep__V1__StatusResponse *status =
        lockstep__v1__status_response__unpack(NULL, seen(0)->last_bytes, seen(0)->last);
    ck_assert_ptr_nonnull(status);
    ck_assert_str_eq(status->cluster, "demo");
    ck_assert_str_eq(status->name, "n1");
    ck_assert_str_eq(status->role, "leader");
    ck_assert_str_eq(status->leader, "n1");
    ck_assert_str_eq(status->leader_client, "127.0.0.1:7401");
    ck_assert_uint_eq(status->term, 7);
    ck_assert_uint_eq(status->commit_index, 42);
    ck_assert_uint_eq(status->applied_position, 41);
    ck_assert_uint_eq(status->n_members, 3);
    ck_assert_str_eq(status->members[2]->client, "127.0.0.1:7403");
    ck_assert_uint_eq(status->state_hash.len, 16);
    ck_assert_uint_eq(status->state_hash.data[7], 1);
    ck_assert_uint_eq(status->state_hash.data[15], 2);
    ck_assert_str_eq(status->machine, "kv");
    ck_assert_uint_eq(status->counters->connections, 1);
    ck_assert_uint_eq(status->observers, 2);
    ck_assert_uint_eq(status->observer_lag_bytes, 640);
    ck_assert_uint_eq(status->observer_lapped, 3);
    lockstep__v1__status_response__free_unpacked(status, NULL);
    rig_close(&rig);
}
END_TEST

START_TEST(leadership_is_transferred_on_request)
{
    set_up();
    client_call(client, 0, "/lockstep.v1.Admin/TransferLeader", "\x0a\x02n2", 4, false);
    rig_settle(&rig);
    ck_assert(rig.node.asked[0].is_transfer);
    ck_assert_str_eq(rig.node.asked[0].target, "n2");
    ck_assert_uint_eq(seen(0)->ends, 0);
    rig.node.leader = 1;
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    ck_assert_mem_eq(seen(0)->last, "\x0a\x02n2", 4);
    client_call(client, 0, "/lockstep.v1.Admin/TransferLeader", "\x0a\x02n2", 4, false);
    rig_settle(&rig);
    fake_answer(&rig.node, 1, LOCKSTEP_ETIMEDOUT);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_ABORTED);
    rig.node.refuse = LOCKSTEP_ENOTFOUND;
    client_call(client, 0, "/lockstep.v1.Admin/TransferLeader", "\x0a\x02n9", 4, false);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_NOT_FOUND);
    rig_close(&rig);
}
END_TEST

static void change_member(const Lockstep__V1__ChangeMemberRequest *request)
{
    uint8_t bytes[1024];
    size_t n = lockstep__v1__change_member_request__pack(request, bytes);
    client_call(client, 0, "/lockstep.v1.Admin/ChangeMember", bytes, n, false);
    rig_settle(&rig);
}

START_TEST(change_of_members_is_answered_when_it_has_ended)
{
    static char name[] = "n4", at[] = "127.0.0.1:7404", peer[] = "127.0.0.1:7504", blank[] = "n 4";
    Lockstep__V1__ChangeMemberRequest request;
    lockstep__v1__change_member_request__init(&request);
    request.change = LOCKSTEP__V1__MEMBER_CHANGE__MEMBER_CHANGE_ADD;
    request.name = name;
    request.client = at;
    request.peer = peer;
    request.learner = true;
    request.priority = 7;
    set_up();
    change_member(&request);
    ck_assert(rig.node.asked[0].is_change);
    const struct node_change_request *asked = &rig.node.asked[0].change;
    ck_assert_int_eq(asked->kind, NODE_CHANGE_ADD);
    ck_assert_str_eq(asked->name, "n4");
    ck_assert_str_eq(asked->peer, "127.0.0.1:7504");
    ck_assert(asked->learner);
    ck_assert_uint_eq(asked->priority, 7);
    ck_assert_uint_gt(asked->timeout_ns, 0);
    ck_assert_uint_eq(seen(0)->ends, 0);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    const struct {
        int error;
        enum grpc_status status;
    } ends[] = {{LOCKSTEP_EINVAL, GRPC_FAILED_PRECONDITION},
                {LOCKSTEP_ENOTFOUND, GRPC_NOT_FOUND},
                {LOCKSTEP_EUNAVAILABLE, GRPC_UNAVAILABLE},
                {LOCKSTEP_ETIMEDOUT, GRPC_DEADLINE_EXCEEDED}};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        change_member(&request);
        fake_answer(&rig.node, 1, ends[i].error);
        rig_settle(&rig);
        ck_assert_int_eq(seen(0)->status, (int)ends[i].status);
        ck_assert_str_eq(seen(0)->message, "because of this and that");
    }
    unsigned so_far = rig.node.asked_count;
    request.name = blank; /* outside data is checked before the node hears of it */
    change_member(&request);
    ck_assert_int_eq(seen(0)->status, GRPC_INVALID_ARGUMENT);
    request.name = name;
    request.change = 9;
    change_member(&request);
    ck_assert_int_eq(seen(0)->status, GRPC_INVALID_ARGUMENT);
    ck_assert_uint_eq(rig.node.asked_count, so_far);
    rig_close(&rig);
}
END_TEST

static void recover(const char *cluster, uint64_t cluster_id, uint64_t member_id)
{
    uint8_t bytes[64], *at = wire_put_bytes(bytes, 1, cluster, strlen(cluster));
    at = wire_put_fixed64(at, 2, cluster_id);
    at = wire_put_fixed64(at, 3, member_id);
    client_call(client, 0, "/lockstep.v1.Admin/Recover", bytes, (size_t)(at - bytes), false);
    rig_settle(&rig);
}

START_TEST(recovery_begins_only_for_the_plan_that_was_confirmed)
{
    set_up();
    rig.node.status.identity.birth.cluster_id = 42;
    rig.node.status.identity.member_id = 7;
    recover("demo", 42, 8);
    ck_assert_int_eq(seen(0)->status, GRPC_FAILED_PRECONDITION);
    recover("demo", 43, 7);
    ck_assert_int_eq(seen(0)->status, GRPC_FAILED_PRECONDITION);
    recover("other", 42, 7);
    ck_assert_int_eq(seen(0)->status, GRPC_FAILED_PRECONDITION);
    rig.node.refuse = LOCKSTEP_EINVAL;
    recover("demo", 42, 7);
    ck_assert_int_eq(seen(0)->status, GRPC_FAILED_PRECONDITION);
    ck_assert_str_eq(seen(0)->message, "nothing is lost");
    ck_assert_uint_eq(rig.recoveries, 0);
    rig.node.refuse = 0;
    recover("demo", 42, 7);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    ck_assert_uint_eq(rig.recoveries, 1);
    ck_assert_mem_eq(seen(0)->last, "\x09\x67\x12\0\0\0\0\0\0", 9); /* the new cluster's id */
    rig_close(&rig);
}
END_TEST

static int health(const char *service)
{
    uint8_t bytes[64];
    size_t n = (size_t)(wire_put_bytes(bytes, 1, service, strlen(service)) - bytes);
    client_call(client, 9, "/grpc.health.v1.Health/Check", bytes, n, false);
    rig_settle(&rig);
    return seen(9)->status == GRPC_OK ? seen(9)->last[1] : -seen(9)->status;
}

START_TEST(health_tells_ready_and_leading_apart)
{
    enum { SERVING = 1, NOT_SERVING = 2 };
    set_up();
    ck_assert_int_eq(health(""), SERVING);
    ck_assert_int_eq(health("lockstep.v1.Lockstep"), SERVING);
    ck_assert_int_eq(health("lockstep.leader"), SERVING);
    ck_assert_int_eq(health("other"), -GRPC_NOT_FOUND);
    rig.node.status.raft.role = RAFT_FOLLOWER;
    ck_assert_int_eq(health("lockstep.v1.Lockstep"), SERVING);
    ck_assert_int_eq(health("lockstep.leader"), NOT_SERVING);
    rig.node.status.ready = false;
    ck_assert_int_eq(health("lockstep.v1.Lockstep"), NOT_SERVING);
    ck_assert_int_eq(health(""), SERVING);
    rig_close(&rig);
}
END_TEST

START_TEST(a_health_watcher_is_told_every_change_once)
{
    set_up();
    client_call(client, 0, "/grpc.health.v1.Health/Watch", "\x0a\x0flockstep.leader", 17, false);
    client_call(client, 1, "/grpc.health.v1.Health/Watch", "\x0a\x05other", 7, false);
    rig_settle(&rig);
    ck_assert_uint_eq(seen(0)->messages, 1);
    ck_assert_int_eq(seen(0)->last[1], 1);
    ck_assert_uint_eq(seen(1)->messages, 1);
    ck_assert_int_eq(seen(1)->last[1], 3); /* unknown, and the call goes on */
    rig.node.owner.changed(rig.node.owner.context);
    rig_settle(&rig);
    ck_assert_uint_eq(seen(0)->messages, 1);
    rig.node.status.raft.role = RAFT_FOLLOWER;
    rig.node.owner.changed(rig.node.owner.context);
    rig_settle(&rig);
    ck_assert_uint_eq(seen(0)->messages, 2);
    ck_assert_int_eq(seen(0)->last[1], 2);
    ck_assert_uint_eq(seen(0)->ends, 0);
    rig.node.status.raft.role = RAFT_LEADER; /* without a word from the node: found at the next tick */
    rig_wait(&rig, 120);
    ck_assert_uint_eq(seen(0)->messages, 3);
    ck_assert_int_eq(seen(0)->last[1], 1);
    grpc_client_cancel(client->calls[0].call);
    client->calls[0].call = NULL;
    rig_settle(&rig);
    rig.node.status.raft.role = RAFT_FOLLOWER;
    rig.node.owner.changed(rig.node.owner.context);
    rig_settle(&rig);
    ck_assert_uint_eq(seen(0)->messages, 3);
    rig_close(&rig);
}
END_TEST

static bool last_has(unsigned index, const char *text)
{
    return memmem(seen(index)->last, seen(index)->last_bytes, text, strlen(text)) != NULL;
}

START_TEST(reflection_tells_services_and_files)
{
    static const char *const versions[] = {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                           "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
    for (unsigned i = 0; i < 2; i++) {
        set_up();
        struct grpc_client_call *call = client_call(client, 0, versions[i], "\x3a\x01*", 3, true); /* list_services */
        rig_settle(&rig);
        ck_assert_uint_eq(seen(0)->messages, 1);
        ck_assert(last_has(0, "lockstep.v1.Lockstep"));
        ck_assert(last_has(0, "lockstep.v1.Admin"));
        ck_assert(last_has(0, "grpc.health.v1.Health"));
        ck_assert(last_has(0, "grpc.reflection.v1alpha.ServerReflection"));
        static const char *const symbols[] = {"lockstep.v1.Lockstep", "lockstep.v1.Lockstep.Propose",
                                              "lockstep.v1.ProposeRequest", "lockstep.v1.Outcome"};
        for (unsigned s = 0; s < 4; s++) {
            uint8_t bytes[64];
            size_t n = (size_t)(wire_put_bytes(bytes, 4, symbols[s], strlen(symbols[s])) - bytes);
            ck_assert_int_eq(grpc_client_message(call, bytes, n), 0);
            rig_settle(&rig);
            ck_assert(last_has(0, "lockstep/v1/lockstep.proto"));
            ck_assert(last_has(0, "ProposeStreamResponse"));
        }
        uint8_t bytes[64];
        const char *nested = "grpc.health.v1.HealthCheckResponse.ServingStatus";
        ck_assert_int_eq(
            grpc_client_message(call, bytes, (size_t)(wire_put_bytes(bytes, 4, nested, strlen(nested)) - bytes)), 0);
        rig_settle(&rig);
        ck_assert(last_has(0, "grpc/health/v1/health.proto"));
        const char *missing = "lockstep.v1.Lockstep.Proposes";
        ck_assert_int_eq(
            grpc_client_message(call, bytes, (size_t)(wire_put_bytes(bytes, 4, missing, strlen(missing)) - bytes)), 0);
        rig_settle(&rig);
        ck_assert(last_has(0, "no such file or symbol"));
        grpc_client_half_close(call);
        rig_settle(&rig);
        ck_assert_int_eq(seen(0)->status, GRPC_OK);
        ck_assert_uint_eq(seen(0)->messages, 7);
        rig_close(&rig);
    }
}
END_TEST

START_TEST(a_deadline_ends_the_wait_and_not_the_command)
{
    set_up();
    uint8_t bytes[64];
    struct grpc_client_call *call =
        client_call_with(client, 0, LOCKSTEP "Propose", bytes, propose_bytes(bytes, "x"), 100000000, false);
    grpc_client_half_close(call);
    client->calls[1] = (struct client_call){0}; /* and one whose message never comes */
    ck_assert_int_eq(grpc_client_start(client->grpc, LOCKSTEP "Propose", 100000000, NULL, 0, &client->calls[1], &call),
                     0);
    client->calls[1].call = call;
    rig_wait(&rig, 300);
    ck_assert_int_eq(seen(0)->status, GRPC_DEADLINE_EXCEEDED);
    ck_assert_str_eq(seen(0)->outcome, "");
    ck_assert_int_eq(seen(1)->status, GRPC_DEADLINE_EXCEEDED);
    ck_assert_str_eq(seen(1)->outcome, "not-appended");
    fake_answer(&rig.node, 1, 0); /* the node comes to it all the same */
    rig_settle(&rig);
    rig_close(&rig);
}
END_TEST

START_TEST(a_unary_call_waits_ten_minutes_at_most)
{
    set_up();
    uint8_t bytes[64];
    struct grpc_client_call *call = client_call_with(client, 0, LOCKSTEP "Propose", bytes, propose_bytes(bytes, "x"),
                                                     UINT64_C(99999999) * 3600 * 1000000000 / 1000, false);
    grpc_client_half_close(call);
    rig_settle(&rig);
    ck_assert_ptr_nonnull(rig.front->calls);
    ck_assert_uint_le(rig.front->calls->deadline_ns, front_now_ns(rig.front) + UINT64_C(600000000000));
    rig_close(&rig);
}
END_TEST

START_TEST(a_cancelled_call_and_a_lost_connection_leave_the_command)
{
    set_up();
    propose(0, "x");
    rig_settle(&rig);
    grpc_client_cancel(client->calls[0].call);
    rig_settle(&rig);
    ck_assert(front_drained(rig.front));
    propose(1, "y");
    rig_settle(&rig);
    client_close(client);
    rig_settle(&rig);
    ck_assert(front_drained(rig.front));
    fake_answer(&rig.node, 2, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(proposals_are_bounded)
{
    rig_init(&rig);
    rig.options.proposals_max = 16; /* a connection's share: 4 */
    rig_open(&rig);
    client = client_open(&rig, 0);
    for (unsigned i = 0; i < 7; i++) propose(i, "x");
    rig_settle(&rig);
    ck_assert_uint_eq(rig.node.asked_count, 4);
    ck_assert_int_eq(seen(6)->status, GRPC_RESOURCE_EXHAUSTED);
    ck_assert_str_eq(seen(6)->outcome, "not-appended");
    rig_close(&rig);
}
END_TEST

START_TEST(a_stopping_front_finishes_what_runs_and_says_goaway)
{
    set_up();
    propose(0, "x");
    rig_settle(&rig);
    front_stop(rig.front);
    rig.node.refuse = LOCKSTEP_EUNAVAILABLE;
    rig_settle(&rig);
    ck_assert_uint_eq(client->drains, 1);
    ck_assert(!front_drained(rig.front));
    ck_assert_uint_eq(seen(0)->ends, 0);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    ck_assert(front_drained(rig.front));
    ck_assert(client->closed);
    rig_close(&rig);
}
END_TEST

START_TEST(http_paths_are_served)
{
    bool closed;
    set_up();
    const char *text = rig_http(&rig, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", &closed);
    ck_assert_ptr_nonnull(strstr(text, "HTTP/1.1 200 OK\r\n"));
    ck_assert_ptr_nonnull(strstr(text, "\r\n\r\nok\n"));
    ck_assert(!closed);
    rig.node.status.ready = false;
    rig.node.status.not_ready = "no leader is known";
    text = rig_http(&rig, "GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &closed);
    ck_assert_ptr_nonnull(strstr(text, "HTTP/1.1 503"));
    ck_assert_ptr_nonnull(strstr(text, "no leader is known"));
    ck_assert(closed);
    text = rig_http(&rig, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\nHEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n", &closed);
    ck_assert_uint_gt(strlen(text), 150);
    ck_assert_ptr_nonnull(strstr(text + 20, "HTTP/1.1 200"));
    ck_assert_str_eq(text + strlen(text) - 4, "\r\n\r\n"); /* the HEAD's answer has no body */
    text = rig_http(&rig, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
    ck_assert_ptr_nonnull(strstr(text, "404"));
    text = rig_http(&rig, "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", NULL);
    ck_assert_ptr_nonnull(strstr(text, "405"));
    text = rig_http(&rig, "POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &closed);
    ck_assert_ptr_nonnull(strstr(text, "501"));
    ck_assert(closed);
    ck_assert_int_eq(rig_metric(&rig, "applied_position"), 41);
    rig.node.status.observers =
        (struct transport_observers){.count = 2, .lag_bytes = 640, .lapped = 3, .bells = 4, .bells_spared = 5};
    rig.node.status.counters.observer_blocks = 6;
    ck_assert_int_eq(rig_metric(&rig, "observers"), 2);
    ck_assert_int_eq(rig_metric(&rig, "observer_lag_bytes"), 640);
    ck_assert_int_eq(rig_metric(&rig, "observer_lapped_total"), 3);
    ck_assert_int_eq(rig_metric(&rig, "observer_bells_total"), 4);
    ck_assert_int_eq(rig_metric(&rig, "observer_bells_spared_total"), 5);
    ck_assert_int_eq(rig_metric(&rig, "observer_blocks_total"), 6);
    ck_assert_int_ge(rig_metric(&rig, "client_http_requests_total"), 8);
    rig_close(&rig);
}
END_TEST

START_TEST(a_client_that_closes_its_side_behind_the_request_gets_its_answer)
{
    static const char request[] = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    char answer[256];
    set_up();
    int fd = rig_connect(&rig);
    ck_assert_int_eq(send(fd, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    rig_settle(&rig);
    ssize_t n = recv(fd, answer, sizeof answer - 1, 0);
    ck_assert_int_gt(n, 0);
    answer[n] = 0;
    ck_assert_ptr_nonnull(strstr(answer, "200 OK"));
    ck_assert_int_eq(recv(fd, answer, sizeof answer, 0), 0);
    close(fd);
    rig_close(&rig);
}
END_TEST

START_TEST(garbage_is_refused_and_counted_and_nobody_else_notices)
{
    bool closed;
    set_up();
    propose(0, "x");
    const char *text = rig_http(&rig, "\x16\x03\x01\x02 hello", &closed);
    ck_assert_ptr_nonnull(strstr(text, "400"));
    ck_assert(closed);
    text = rig_http(&rig, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage garbage garbage garbage", &closed);
    ck_assert(closed);
    (void)text;
    ck_assert_int_ge(rig_metric(&rig, "client_protocol_errors_total"), 1);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    rig_close(&rig);
}
END_TEST

START_TEST(connections_over_the_limit_are_closed_and_counted)
{
    rig_init(&rig);
    rig.options.connections_max = 2;
    rig_open(&rig);
    client = client_open(&rig, 0);
    client_open(&rig, 1);
    client_open(&rig, 2);
    rig_settle(&rig);
    ck_assert(!rig.clients[0].closed);
    ck_assert(!rig.clients[1].closed);
    ck_assert(rig.clients[2].closed);
    client_close(&rig.clients[1]);
    rig_settle(&rig);
    ck_assert_int_eq(rig_metric(&rig, "client_connections_refused_total"), 1);
    rig_close(&rig);
}
END_TEST

START_TEST(silent_and_idle_connections_are_closed)
{
    rig_init(&rig);
    rig.options.silence_ns_max = 200000000;
    rig.options.idle_ns_max = 200000000;
    rig_open(&rig);
    client = client_open(&rig, 0);
    client_open(&rig, 1);
    client_call(&rig.clients[1], 0, LOCKSTEP "Propose", "", 0, false); /* it waits: not idle */
    int silent = rig_connect(&rig), slow = rig_connect(&rig);
    char byte;
    static const uint8_t ping[17] = {[2] = 8, [3] = 6};
    for (int i = 0; i < 24; i++) { /* a header line, letter by letter; and PINGs are no calls */
        send(client->fd, ping, sizeof ping, MSG_NOSIGNAL);
        send(slow, i == 0 ? "G" : "x", 1, MSG_NOSIGNAL);
        rig_wait(&rig, 100);
    }
    ck_assert_int_eq(recv(silent, &byte, 1, 0), 0);
    ck_assert_int_le(recv(slow, &byte, 1, 0), 0);
    ck_assert_int_lt(send(slow, "x", 1, MSG_NOSIGNAL), 1);
    ck_assert(client->closed);
    ck_assert_uint_eq(client->drains, 1); /* it was told, and may open another one */
    ck_assert(!rig.clients[1].closed);
    close(silent);
    close(slow);
    rig_close(&rig);
}
END_TEST

START_TEST(a_deaf_client_is_closed_and_the_others_go_on)
{
    rig_init(&rig);
    rig.options.stall_ns_max = 500000000;
    rig_open(&rig);
    rig.node.auto_answer = true;
    client = client_open(&rig, 0);
    struct client *deaf = client_open(&rig, 1);
    deaf->deaf = true;
    int small = 4096;
    setsockopt(deaf->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    /* Descriptors of some KB are asked for again and again; the answers stay. */
    uint8_t bytes[64];
    size_t n = (size_t)(wire_put_bytes(bytes, 4, "lockstep.v1.Lockstep", 20) - bytes);
    for (unsigned i = 0; i < 500; i++) {
        struct grpc_client_call *call;
        ck_assert_int_eq(grpc_client_start(deaf->grpc, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 0,
                                           NULL, 0, &deaf->calls[0], &call),
                         0);
        for (int k = 0; k < 10; k++) grpc_client_message(call, bytes, n);
        if (i % 50 == 49) rig_settle(&rig);
    }
    for (int i = 0; i < 40 && rig_metric(&rig, "client_deaf_closed_total") == 0; i++) rig_wait(&rig, 100);
    ck_assert_int_eq(rig_metric(&rig, "client_deaf_closed_total"), 1);
    propose(0, "x");
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    rig_close(&rig);
}
END_TEST

/* Both ends of a thousand connections are in this process; 1024 descriptors are what a login gives. */
static void allow_many_descriptors(void)
{
    struct rlimit files;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
    if (files.rlim_cur < 4096 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
    }
}

START_TEST(a_thousand_idle_connections_cost_little)
{
    allow_many_descriptors();
    enum { CONNECTIONS = 1000 };
    static int fds[CONNECTIONS];
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    set_up();
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = rig_connect(&rig);
        ck_assert_int_eq(send(fds[i], preface, sizeof preface, MSG_NOSIGNAL), sizeof preface);
        if (i % 100 == 99) rig_settle(&rig);
    }
    rig_settle(&rig);
    ck_assert_int_eq(rig_metric(&rig, "client_connections"), CONNECTIONS + 2);
    ck_assert_int_lt(rig_metric(&rig, "client_memory_bytes"), CONNECTIONS * 65536);
    propose(0, "x");
    rig_settle(&rig);
    fake_answer(&rig.node, 1, 0);
    rig_settle(&rig);
    ck_assert_int_eq(seen(0)->status, GRPC_OK);
    for (int i = 0; i < CONNECTIONS; i++) close(fds[i]);
    rig_close(&rig);
}
END_TEST

START_TEST(a_taken_port_is_named)
{
    set_up();
    char why[256];
    struct front *second;
    ck_assert_int_eq(front_open(&rig.options, &second, why, sizeof why), LOCKSTEP_EEXIST);
    ck_assert_ptr_nonnull(strstr(why, rig.address));
    ck_assert_ptr_nonnull(strstr(why, "in use"));
    struct front_options options = rig.options;
    options.listen = "nonsense";
    ck_assert_int_eq(front_open(&options, &second, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "HOST:PORT"));
    rig_close(&rig);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_command_is_proposed_and_its_outcome_answered);
    tcase_add_test(tests, forwarding_can_be_declined);
    tcase_add_test(tests, errors_are_told_by_status_and_trailers);
    tcase_add_test(tests, a_machines_refusal_is_an_answer);
    tcase_add_test(tests, sessions_are_commands_of_their_own_kind);
    tcase_add_test(tests, what_became_of_a_command_is_told);
    tcase_add_test(tests, malformed_and_missing_and_second_messages_are_refused);
    tcase_add_test(tests, a_message_over_the_limit_was_surely_not_appended);
    tcase_add_test(tests, queries_are_asked_and_answered);
    tcase_add_test(tests, a_query_of_little_time_has_half_of_it_to_wait);
    tcase_add_test(tests, status_tells_what_the_node_knows);
    tcase_add_test(tests, leadership_is_transferred_on_request);
    tcase_add_test(tests, change_of_members_is_answered_when_it_has_ended);
    tcase_add_test(tests, recovery_begins_only_for_the_plan_that_was_confirmed);
    tcase_add_test(tests, health_tells_ready_and_leading_apart);
    tcase_add_test(tests, a_health_watcher_is_told_every_change_once);
    tcase_add_test(tests, reflection_tells_services_and_files);
    tcase_add_test(tests, a_deadline_ends_the_wait_and_not_the_command);
    tcase_add_test(tests, a_unary_call_waits_ten_minutes_at_most);
    tcase_add_test(tests, a_cancelled_call_and_a_lost_connection_leave_the_command);
    tcase_add_test(tests, proposals_are_bounded);
    tcase_add_test(tests, a_stopping_front_finishes_what_runs_and_says_goaway);
    tcase_add_test(tests, http_paths_are_served);
    tcase_add_test(tests, a_client_that_closes_its_side_behind_the_request_gets_its_answer);
    tcase_add_test(tests, garbage_is_refused_and_counted_and_nobody_else_notices);
    tcase_add_test(tests, connections_over_the_limit_are_closed_and_counted);
    tcase_add_test(tests, silent_and_idle_connections_are_closed);
    tcase_add_test(tests, a_deaf_client_is_closed_and_the_others_go_on);
    tcase_add_test(tests, a_thousand_idle_connections_cost_little);
    tcase_add_test(tests, a_taken_port_is_named);
}

int main(void)
{
    return unit_main("front", add);
}
