/* SPDX-License-Identifier: Apache-2.0 */
/* test_client.c - the client library against a cluster of another implementation (fake_cluster.py, on grpcio), whose
 * nodes refuse, lose and hang on request, and against listeners that are no lockstep servers at all.
 * C1 to C4 are client.h's rules. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/unit.h"
#include "tests/unit/client/fake.h"

/* --- proposals --- */

START_TEST(proposal_is_answered_with_reply_index_and_position)
{
    struct lockstep_client *client = client_of(fake.all);
    struct lockstep_result first = propose(client, "echo a", 0);
    check_reply(first, "a");
    ck_assert_int_eq(first.fate, LOCKSTEP_APPLIED);
    ck_assert_int_eq(first.code, 0);
    ck_assert_int_eq(first.durability, LOCKSTEP_DURABILITY_FSYNC);
    uint64_t position = first.position;
    struct lockstep_result second = propose(client, "echo b", 0);
    ck_assert_uint_eq(second.position, position + 1);
    ck_assert_uint_eq(second.index, second.position + 100);
    lockstep_client_close(client);
}
END_TEST

START_TEST(refusal_of_the_machine_is_an_answer_with_its_code)
{
    struct lockstep_client *client = client_of(fake.all);
    struct lockstep_result result = propose(client, "reject 42", 0);
    check_reply(result, "refused");
    ck_assert_int_eq(result.code, 42);
    ck_assert_int_eq(result.fate, LOCKSTEP_APPLIED);
    lockstep_client_close(client);
}
END_TEST

START_TEST(proposal_sent_to_a_follower_goes_to_the_leader_it_names) /* C2; the leader was not in the list */
{
    struct lockstep_client *client = client_of_node(1);
    struct lockstep_result result = propose(client, "echo redirected", 0);
    check_reply(result, "redirected"); /* by the leader itself, not forwarded */
    char leader[32];
    snprintf(leader, sizeof leader, "127.0.0.1:%d", fake.ports[0]);
    ck_assert_str_eq(result.endpoint, leader);
    ck_assert_int_eq(seen("echo redirected"), 1);
    lockstep_client_close(client);
}
END_TEST

START_TEST(refused_as_full_is_repeated_after_the_servers_pause) /* C2 */
{
    struct lockstep_client *client = client_of(fake.all);
    check_reply(propose(client, "full 3", 0), "3");
    ck_assert_int_eq(seen("full 3"), 4);
    lockstep_client_close(client);
}
END_TEST

START_TEST(refused_as_unavailable_is_repeated_until_there_is_a_leader) /* C2 */
{
    struct lockstep_client *client = client_of(fake.all);
    check_reply(propose(client, "unavailable 4", 0), "4");
    ck_assert_int_eq(seen("unavailable 4"), 5);
    lockstep_client_close(client);
}
END_TEST

START_TEST(proposal_ends_not_appended_when_the_deadline_comes_first) /* C1, C4 */
{
    struct lockstep_client *client = client_of_node(0); /* another one would say that it does not lead */
    struct lockstep_result result;
    int tries = 0;
    do { /* one that is answered later than at its deadline, or never sent, is no test of this */
        uint64_t begin = now_ms();
        result = propose(client, "unavailable 100000", 300);
        ck_assert_uint_ge(now_ms() - begin, 290);
    } while ((result.error == LOCKSTEP_ETIMEDOUT || result.error == LOCKSTEP_EUNREACHABLE) && ++tries < 10);
    ck_assert_int_eq(result.error, LOCKSTEP_EUNAVAILABLE);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    ck_assert_ptr_nonnull(strstr(result.text, "no leader is known"));
    lockstep_client_close(client);
}
END_TEST

/* The server asks for a pause that ends 40 ms before the deadline. An attempt that began then would still be out at the
 * deadline, and what was surely not appended would have become unknown. */
START_TEST(no_attempt_begins_just_before_the_deadline) /* C1 */
{
    struct lockstep_client *client = client_of(fake.all);
    struct lockstep_result result;
    uint64_t began;
    int tries = 0;
    do { /* one that is refused after its deadline, or never sent, is no test of this */
        char command[16];
        snprintf(command, sizeof command, "later %d", 1960 + tries); /* a second copy would never be answered */
        began = now_ms();
        result = propose(client, command, 2000);
        ck_assert_int_le(seen(command), 1);
    } while (result.error != LOCKSTEP_EFULL && ++tries < 10);
    ck_assert_int_eq(result.error, LOCKSTEP_EFULL);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    ck_assert_uint_ge(now_ms() - began, 1990);
    lockstep_client_close(client);
}
END_TEST

START_TEST(aborted_proposal_is_unknown_and_never_sent_again) /* C1, C2 */
{
    struct lockstep_client *client = client_of(fake.all);
    struct lockstep_result result = propose(client, "lost 1", 0);
    ck_assert_int_eq(result.error, LOCKSTEP_EUNKNOWN);
    ck_assert_int_eq(result.fate, LOCKSTEP_UNKNOWN);
    ck_assert_str_eq(result.text, "leadership was lost");
    ck_assert_int_eq(seen("lost 1"), 1);
    lockstep_client_close(client);
}
END_TEST

START_TEST(unavailable_without_the_trailer_is_unknown_and_never_sent_again) /* C1, C2: only the trailer says so */
{
    struct lockstep_client *client = client_of(fake.all);
    struct lockstep_result result = propose(client, "unsaid 1", 0);
    ck_assert_int_eq(result.error, LOCKSTEP_EUNKNOWN);
    ck_assert_int_eq(result.fate, LOCKSTEP_UNKNOWN);
    ck_assert_int_eq(seen("unsaid 1"), 1);
    lockstep_client_close(client);
}
END_TEST

START_TEST(unanswered_proposal_is_unknown_at_its_deadline) /* C1 */
{
    struct lockstep_client *client = client_of(fake.all);
    propose(client, "echo connect", 0);
    struct lockstep_result result = propose(client, "hang 1", 200);
    ck_assert_int_eq(result.error, LOCKSTEP_ETIMEDOUT);
    ck_assert_int_eq(result.fate, LOCKSTEP_UNKNOWN);
    lockstep_client_close(client);
}
END_TEST

START_TEST(invalid_proposal_ends_at_once_with_the_servers_words)
{
    struct lockstep_client *client = client_of(fake.all);
    struct lockstep_result result = propose(client, "invalid", 0);
    ck_assert_int_eq(result.error, LOCKSTEP_EINVAL);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    ck_assert_str_eq(result.text, "no such thing: 100% \xc3\xa4"); /* percent-encoded on the way */
    ck_assert_int_eq(seen("invalid"), 1);
    lockstep_client_close(client);
}
END_TEST

START_TEST(proposal_over_the_message_limit_is_refused_before_it_is_queued)
{
    struct lockstep_client *client = client_of(fake.all);
    char *big = calloc(1, LOCKSTEP_MESSAGE_BYTES_MAX);
    struct lockstep_proposal proposal = {.command = big, .command_bytes = LOCKSTEP_MESSAGE_BYTES_MAX};
    struct lockstep_result result;
    ck_assert_int_eq(lockstep_propose_wait(client, &proposal, &result), LOCKSTEP_ETOOBIG);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    free(big);
    lockstep_client_close(client);
}
END_TEST

struct count {
    int answered, unknown, not_appended, other;
    int expected_order; /* the next position's order, for streams */
    bool in_order;
};

static void count_result(void *context, const struct lockstep_result *result)
{
    struct count *count = context;
    if (result->error == 0)
        count->answered++;
    else if (result->fate == LOCKSTEP_UNKNOWN)
        count->unknown++;
    else if (result->fate == LOCKSTEP_NOT_APPENDED)
        count->not_appended++;
    else
        count->other++;
}

START_TEST(many_proposals_run_at_once_and_each_ends_once)
{
    struct lockstep_client *client = client_of(fake.all);
    struct count count = {0};
    enum { MANY = 500 };
    for (int i = 0; i < MANY; i++) {
        char command[32];
        snprintf(command, sizeof command, "echo many %d", i);
        struct lockstep_proposal proposal = {.command = command, .command_bytes = strlen(command)};
        ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    }
    ck_assert_uint_eq(lockstep_client_running(client), MANY);
    ck_assert_int_eq(count.answered, 0); /* nothing is called back but out of poll */
    POLL_UNTIL(client, lockstep_client_running(client) == 0);
    ck_assert_int_eq(count.answered, MANY);
    lockstep_client_close(client);
}
END_TEST

START_TEST(client_runs_in_a_foreign_loop_by_descriptor_and_timeout)
{
    struct lockstep_client *client = client_of_node(2); /* a redirect is on the way */
    struct count count = {0};
    struct lockstep_proposal proposal = {.command = "full 2", .command_bytes = 6};
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    ck_assert_int_eq(lockstep_client_timeout_ms(client), 0);
    int polls = 0;
    while (lockstep_client_running(client) > 0) {
        struct pollfd p = {.fd = lockstep_client_fd(client), .events = POLLIN};
        ck_assert_int_ge(poll(&p, 1, lockstep_client_timeout_ms(client)), 0);
        ck_assert_int_eq(lockstep_client_poll(client, 0), 0);
        ck_assert_int_lt(polls++, 1000); /* it waits, it does not spin */
    }
    ck_assert_int_eq(count.answered, 1);
    lockstep_client_close(client);
}
END_TEST

START_TEST(closing_ends_what_runs_with_its_fate) /* C1: sent is unknown, queued is not appended */
{
    struct lockstep_client *client = client_of(fake.all);
    struct count count = {0};
    propose(client, "echo connect", 0);
    struct lockstep_proposal proposal = {.command = "hang 2", .command_bytes = 6};
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    ck_assert_int_eq(lockstep_client_poll(client, 0), 0);
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    lockstep_client_close(client);
    ck_assert_int_eq(count.unknown, 1);
    ck_assert_int_eq(count.not_appended, 1);
}
END_TEST

START_TEST(operations_over_the_limit_are_refused_at_once)
{
    struct lockstep_client_options options = {
        .size = sizeof options, .no_session = true, .endpoints = fake.all, .operations_max = 2};
    struct lockstep_client *client;
    ck_assert_int_eq(lockstep_client_open(&options, &client, NULL, 0), 0);
    struct count count = {0};
    struct lockstep_proposal proposal = {.command = "echo x", .command_bytes = 6};
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), LOCKSTEP_EFULL);
    lockstep_client_close(client);
    ck_assert_int_eq(count.not_appended, 2);
}
END_TEST

/* --- failures of nodes --- */

/* Two streams: when the one is lost, its owner closes the other. */
struct pair {
    struct lockstep_stream *stream, *other;
    int losses;
};

static void count_nothing(void *context, uint64_t tag, const struct lockstep_result *results, uint32_t count)
{
    (void)context, (void)tag, (void)results, (void)count;
}

static void close_the_other(void *context, int error, const char *text)
{
    struct pair *pair = context;
    (void)error, (void)text;
    pair->losses++;
    lockstep_stream_close(pair->other);
    pair->other = NULL;
}

static struct lockstep_stream *stream_of(struct lockstep_client *client, struct pair *lost, uint32_t deadline_ms)
{
    struct lockstep_stream_options options = {.size = sizeof options,
                                              .deadline_ms = deadline_ms,
                                              .context = lost,
                                              .answered = count_nothing,
                                              .lost = lost != NULL ? close_the_other : NULL};
    struct lockstep_stream *stream;
    ck_assert_int_eq(lockstep_stream_open(client, &options, &stream), 0);
    return stream;
}

START_TEST(proposal_finds_the_new_leader_when_the_old_one_died)
{
    struct lockstep_client *client = client_of(fake.all);
    propose(client, "echo before", 0);
    tell("stop 0");
    tell("leader 1");
    struct lockstep_result result = propose(client, "echo after", 0);
    check_reply(result, "after");
    tell("start 0");
    tell("leader 0");
    lockstep_client_close(client);
}
END_TEST

START_TEST(proposal_on_a_connection_that_breaks_is_unknown_and_not_repeated) /* C1, C2 */
{
    struct lockstep_client *client = client_of(fake.all);
    propose(client, "echo before", 0);
    struct count count = {0};
    struct lockstep_proposal proposal = {.command = "hang 3", .command_bytes = 6};
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    POLL_UNTIL(client, seen("hang 3") == 1);
    tell("stop 0");
    POLL_UNTIL(client, lockstep_client_running(client) == 0);
    ck_assert_int_eq(count.unknown, 1);
    tell("start 0");
    ck_assert_int_eq(seen("hang 3"), 1);
    lockstep_client_close(client);
}
END_TEST

START_TEST(follower_forwards_when_the_leader_it_names_cannot_be_reached)
{
    tell("hint 127.0.0.1:1"); /* refused */
    struct lockstep_client *client = client_of_node(1);
    struct lockstep_result result = propose(client, "echo far", 0);
    check_reply(result, "forwarded far");
    tell("hint ");
    lockstep_client_close(client);
}
END_TEST

START_TEST(leader_hint_that_is_no_address_is_passed_over) /* what a server says is input */
{
    tell("hint nonsense");
    struct lockstep_client *client = client_of_node(1);
    struct lockstep_result result;
    int tries = 0;
    do {
        result = propose(client, "echo nowhere", 400);
    } while ((result.error == LOCKSTEP_ETIMEDOUT || result.error == LOCKSTEP_EUNREACHABLE) && ++tries < 10);
    ck_assert_int_eq(result.error, LOCKSTEP_ENOTLEADER);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    tell("hint ");
    lockstep_client_close(client);
}
END_TEST

static void keep_endpoint(void *context, const struct lockstep_result *result)
{
    snprintf(context, LOCKSTEP_ENDPOINT_BYTES_MAX, "%s", result->endpoint);
}

START_TEST(addresses_that_nobody_uses_make_room_for_those_that_are_learnt) /* C2 */
{
    struct lockstep_client *client = client_of_node(1);
    struct count count = {0};
    char asked[LOCKSTEP_ENDPOINT_BYTES_MAX] = "none", hints[16], leader[32];
    const struct lockstep_proposal proposal = {.command = "later 60000", .command_bytes = 11, .deadline_ms = 3000};
    ck_assert_int_eq(lockstep_propose(client, &proposal, keep_endpoint, asked), 0); /* sleeps; it had asked node 0 */
    POLL_UNTIL(client, seen("later 60000") == 1);
    tell("hint new");
    tell("leader 2");
    tell("stop 0");
    const struct lockstep_query many = {.query = "state", .query_bytes = 5, .deadline_ms = 60000};
    for (int i = 0; i < 40; i++) ck_assert_int_eq(lockstep_query(client, &many, count_result, &count), 0);
    POLL_UNTIL(client, (ask("hints", hints, sizeof hints), atoi(hints)) > 3 * LOCKSTEP_ENDPOINTS_MAX);
    POLL_UNTIL(client, strcmp(asked, "none") != 0);
    ck_assert_msg(strncmp(asked, "127.0.1.", 8) != 0, "%s was never asked", asked);
    tell("hint ");
    POLL_UNTIL(client, lockstep_client_running(client) == 0);
    ck_assert_int_eq(count.answered, 40);
    struct lockstep_stream *stream = stream_of(client, NULL, 0); /* asks for the leader by itself */
    POLL_UNTIL(client, lockstep_stream_room(stream) > 0);
    snprintf(leader, sizeof leader, "127.0.0.1:%d", fake.ports[2]);
    ck_assert_str_eq(lockstep_stream_endpoint(stream), leader);
    tell("start 0");
    tell("leader 0");
    lockstep_client_close(client);
}
END_TEST

START_TEST(a_node_that_goes_away_is_named_while_its_last_calls_run) /* C4 */
{
    struct lockstep_client *client = client_of_node(0);
    struct count count = {0};
    struct lockstep_proposal proposal = {.command = "hang away", .command_bytes = 9};
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    POLL_UNTIL(client, seen("hang away") == 1);
    ck_assert_str_eq(lockstep_client_trouble(client), "");
    tell("drain 0");
    POLL_UNTIL(client, strstr(lockstep_client_trouble(client), "connection: the node is going away") != NULL);
    ck_assert_uint_eq(lockstep_client_running(client), 1);
    lockstep_client_close(client);
    ck_assert_int_eq(count.unknown, 1);
    tell("start 0");
}
END_TEST

/* A listener; returns its port. */
static int listen_on(int *ret_fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    *ret_fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(*ret_fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(*ret_fd, 4), 0);
    ck_assert_int_eq(getsockname(*ret_fd, (struct sockaddr *)&address, &bytes), 0);
    return ntohs(address.sin_port);
}

static void connect_to_nobody(void)
{
    struct lockstep_client *client = client_of("127.0.0.1:1,127.0.0.1:2,no-such-host.invalid:7401");
    struct lockstep_result result = propose(client, "echo x", 0);
    ck_assert_int_eq(result.error, LOCKSTEP_EUNREACHABLE);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    ck_assert_ptr_nonnull(strstr(result.text, "127.0.0.1:1: connect: Connection refused"));
    ck_assert_ptr_nonnull(strstr(result.text, "127.0.0.1:2: connect: Connection refused"));
    ck_assert_ptr_nonnull(strstr(result.text, "no-such-host.invalid:7401: resolve: "));
    lockstep_client_close(client);
}

START_TEST(refused_connections_are_named_one_by_one_in_under_a_second) /* C4 */
{
    ck_assert(one_in_ten_takes_less(1000, connect_to_nobody));
}
END_TEST

/* 255.255.255.255 takes no connection, and the system says so in connect() itself: nothing is ever watched. */
static void connect_to_everybody(void)
{
    struct lockstep_client *client = client_of("255.255.255.255:7401");
    struct count count = {0};
    const struct lockstep_proposal proposal = {.command = "echo x", .command_bytes = 6};
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    ck_assert_int_eq(lockstep_client_poll(client, 5000), 0);
    ck_assert_uint_eq(lockstep_client_running(client), 0);
    lockstep_client_close(client);
}

START_TEST(what_fails_at_once_ends_the_poll_that_found_it)
{
    ck_assert(one_in_ten_takes_less(1000, connect_to_everybody));
}
END_TEST

static void connect_to_a_deaf_one(void)
{
    int fd;
    char endpoint[32];
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%d", listen_on(&fd));
    struct lockstep_client *client = client_of(endpoint);
    as_it_ships(client);
    struct lockstep_result result = propose(client, "echo x", 0);
    ck_assert_int_eq(result.error, LOCKSTEP_EUNREACHABLE);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    ck_assert_ptr_nonnull(strstr(result.text, "protocol: connected, but no greeting"));
    lockstep_client_close(client);
    close(fd);
}

START_TEST(deaf_server_is_named_in_about_a_second_and_got_no_command) /* C1, C4 */
{
    ck_assert(one_in_ten_takes_less(1500, connect_to_a_deaf_one));
}
END_TEST

START_TEST(server_of_another_protocol_is_named_and_got_no_command) /* C1, C4 */
{
    int fd;
    char endpoint[32];
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%d", listen_on(&fd));
    struct lockstep_client *client = client_of(endpoint);
    struct count count = {0};
    struct lockstep_proposal proposal = {.command = "echo x", .command_bytes = 6};
    ck_assert_int_eq(lockstep_propose(client, &proposal, count_result, &count), 0);
    ck_assert_int_eq(lockstep_client_poll(client, 0), 0);
    int accepted = accept(fd, NULL, NULL);
    ck_assert_int_ge(accepted, 0);
    static const char banner[] = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n";
    ck_assert_int_eq(write(accepted, banner, sizeof banner - 1), sizeof banner - 1);
    POLL_UNTIL(client, lockstep_client_trouble(client)[0] != 0);
    ck_assert_msg(strstr(lockstep_client_trouble(client), "protocol: this is no lockstep server") != NULL, "%s",
                  lockstep_client_trouble(client));
    close(accepted);
    close(fd);
    POLL_UNTIL(client, lockstep_client_running(client) == 0);
    ck_assert_int_eq(count.not_appended, 1);
    lockstep_client_close(client);
}
END_TEST

static void connect_to_a_deaf_and_a_good_one(void)
{
    int fd;
    char endpoints[64];
    snprintf(endpoints, sizeof endpoints, "127.0.0.1:%d,127.0.0.1:%d", listen_on(&fd), fake.ports[0]);
    struct lockstep_client *client = client_of(endpoints);
    as_it_ships(client);
    check_reply(propose(client, "echo x", 0), "x");
    lockstep_client_close(client);
    close(fd);
}

START_TEST(slow_endpoint_does_not_hold_up_a_good_one)
{
    ck_assert(one_in_ten_takes_less(800, connect_to_a_deaf_and_a_good_one));
}
END_TEST

START_TEST(endpoint_that_is_no_address_is_refused_with_the_form_it_should_have)
{
    static const char *const wrong[] = {"localhost",  ":7401",    "host:",    "host:0",   "host:70000",
                                        "host:7401x", "::1:7401", "a:1,,b:2", "[::1:7401"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct lockstep_client_options options = {.size = sizeof options, .no_session = true, .endpoints = wrong[i]};
        struct lockstep_client *client = NULL;
        char why[256] = "";
        ck_assert_int_eq(lockstep_client_open(&options, &client, why, sizeof why), LOCKSTEP_EINVAL);
        ck_assert_ptr_nonnull(strstr(why, "127.0.0.1:7401"));
        ck_assert_ptr_null(client);
    }
    lockstep_client_close(client_of("[::1]:7401, host.example:1"));
}
END_TEST

START_TEST(client_without_a_descriptor_says_what_to_raise)
{
    struct rlimit before;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct lockstep_client *client = NULL;
    char why[256] = "";
    int rc = lockstep_client_open(NULL, &client, why, sizeof why);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(rc, LOCKSTEP_ENOMEM);
    ck_assert_ptr_nonnull(strstr(why, "ulimit -n"));
    ck_assert_ptr_null(client);
}
END_TEST

/* --- queries, status, transfer, health --- */

START_TEST(linearizable_query_goes_to_the_leader_and_local_one_to_any_node)
{
    struct lockstep_client *client = client_of_node(1);
    check_reply(query(client, "state", LOCKSTEP_LOCAL), "local");
    struct lockstep_result result = query(client, "state", LOCKSTEP_LINEARIZABLE);
    check_reply(result, "linearizable");
    ck_assert_uint_eq(result.index, 7);
    lockstep_client_close(client);
}
END_TEST

START_TEST(query_is_repeated_even_when_the_server_does_not_say_why) /* C2: it appends nothing */
{
    struct lockstep_client *client = client_of(fake.all);
    check_reply(query(client, "reset 1", LOCKSTEP_LOCAL), "local");
    lockstep_client_close(client);
}
END_TEST

START_TEST(status_is_read_whole)
{
    struct lockstep_client *client = client_of_node(2);
    struct lockstep_result result;
    static struct lockstep_status status;
    ck_assert_int_eq(lockstep_status_wait(client, 0, &result, &status), 0);
    ck_assert_str_eq(status.cluster, "fake");
    ck_assert_uint_eq(status.cluster_id, 1ull << 63);
    ck_assert_str_eq(status.name, "n2");
    ck_assert_str_eq(status.role, "follower");
    ck_assert_str_eq(status.leader, "n0");
    ck_assert_uint_eq(status.term, 3);
    ck_assert_uint_eq(status.last_index, 12);
    ck_assert_uint_eq(status.stored_index, 7);
    ck_assert_uint_eq(status.hash_index, 6);
    ck_assert_uint_eq(status.state_hash_bytes, 16);
    ck_assert_uint_eq(status.state_hash[15], 15);
    ck_assert_uint_eq(status.reply_hash[0], 0xff);
    ck_assert_int_eq(status.durability, LOCKSTEP_DURABILITY_FSYNC);
    ck_assert_uint_eq(status.member_count, 3);
    ck_assert_str_eq(status.members[1].name, "n1");
    ck_assert(status.members[1].voter && status.members[1].connected);
    ck_assert_uint_eq(status.counters.commands_appended, 1000000);
    ck_assert_uint_eq(status.counters.frames_refused, 12);
    ck_assert_uint_eq(status.warning_count, 2);
    ck_assert_str_eq(status.warnings[0], "n2: another address");
    ck_assert_uint_eq(strlen(status.warnings[1]), LOCKSTEP_TEXT_BYTES_MAX - 1); /* cut, not overrun */
    lockstep_client_close(client);
}
END_TEST

/* Whether a tail, once it says `text`, goes on looking. */
static bool tail_goes_on(struct lockstep_tail *tail, const char *text)
{
    struct lockstep_tail_record record;
    int rc = LOCKSTEP_EUNAVAILABLE;
    while (rc == LOCKSTEP_EUNAVAILABLE && strstr(lockstep_tail_text(tail), text) == NULL)
        rc = lockstep_tail_next(tail, &record, 5);
    return rc == LOCKSTEP_EUNAVAILABLE;
}

static bool tail_is_patient_anew(void)
{
    static const uint32_t patience_ms = 2000; /* of a tail that never found its node */
    char endpoint[32], why[256];
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%d", fake.ports[1]);
    const struct lockstep_tail_options options = {.size = sizeof options, .endpoint = endpoint, .deadline_ms = 60000};
    struct lockstep_tail *tail;
    ck_assert_int_eq(lockstep_tail_open(&options, &tail, why, sizeof why), 0);
    bool goes_on = tail_goes_on(tail, "shares no memory");
    uint64_t begin_ms = now_ms();
    tell("cluster 0");
    goes_on = goes_on && tail_goes_on(tail, "waits for the others");
    while (goes_on && now_ms() - begin_ms <= patience_ms) usleep(10000);
    tell("cluster %llu", 1ull << 63);
    goes_on = goes_on && tail_goes_on(tail, "shares no memory");
    lockstep_tail_close(tail);
    return goes_on;
}

START_TEST(tail_is_patient_anew_with_a_node_that_was_not_ready_meanwhile)
{
    bool is = false; /* on a machine that stalls, patience may end at any time; one try of ten suffices */
    for (int i = 0; i < 10 && !is; i++) is = tail_is_patient_anew();
    ck_assert(is);
}
END_TEST

START_TEST(transfer_moves_the_leader_and_names_it)
{
    struct lockstep_client *client = client_of_node(2);
    struct lockstep_result result;
    ck_assert_int_eq(lockstep_transfer_wait(client, "n2", 0, &result), 0);
    check_reply(result, "n2");
    ck_assert_uint_eq(result.index, 4);
    ck_assert_int_eq(lockstep_transfer_wait(client, "n0", 0, &result), 0);
    ck_assert_int_eq(lockstep_transfer_wait(client, "n9", 0, &result), LOCKSTEP_ENOTFOUND);
    ck_assert_str_eq(result.text, "no member is called 'n9'");
    lockstep_client_close(client);
}
END_TEST

START_TEST(health_says_serving_not_serving_or_unknown_service)
{
    struct lockstep_client *client = client_of_node(1);
    struct lockstep_result result;
    ck_assert_int_eq(lockstep_health_wait(client, "", 0, &result), 0);
    ck_assert_int_eq(result.code, 1);
    ck_assert_int_eq(lockstep_health_wait(client, "lockstep.leader", 0, &result), 0);
    ck_assert_int_eq(result.code, 2);
    ck_assert_int_eq(lockstep_health_wait(client, "other", 0, &result), LOCKSTEP_ENOTFOUND);
    lockstep_client_close(client);
}
END_TEST

START_TEST(an_answer_whose_call_fails_after_all_is_dropped_and_asked_for_again) /* C2; what a server says is input */
{
    struct lockstep_client *client = client_of_node(0);
    struct lockstep_result result;
    ck_assert_int_eq(lockstep_health_wait(client, "halves", 0, &result), 0);
    ck_assert_int_eq(result.code, 1);
    lockstep_client_close(client); /* finds that all memory came back */
}
END_TEST

/* --- streams --- */

struct stream_test {
    struct lockstep_client *client;
    struct lockstep_stream *stream;
    struct count count;
    uint64_t next_tag; /* answers come in the order sent */
    int losses;
    int last_error;
    uint64_t last_position;
};

static void stream_answered(void *context, uint64_t tag, const struct lockstep_result *results, uint32_t count)
{
    struct stream_test *t = context;
    expect(tag == t->next_tag, "not the next message", (int64_t)tag, "");
    t->next_tag++;
    for (uint32_t i = 0; i < count; i++) {
        count_result(&t->count, &results[i]);
        if (results[i].error != 0) continue;
        expect(results[i].position > t->last_position, "a position not behind the last", (int64_t)results[i].position,
               "");
        t->last_position = results[i].position;
    }
}

static void stream_was_lost(void *context, int error, const char *text)
{
    struct stream_test *t = context;
    expect(text[0] != 0, "lost without a word", error, text);
    t->losses++;
    t->last_error = error;
}

static void stream_test_open(struct stream_test *t, int node, uint32_t deadline_ms)
{
    *t = (struct stream_test){.client = client_of_node(node)};
    struct lockstep_stream_options options = {.size = sizeof options,
                                              .messages_max = 4,
                                              .context = t,
                                              .deadline_ms = deadline_ms,
                                              .answered = stream_answered,
                                              .lost = stream_was_lost};
    ck_assert_int_eq(lockstep_stream_open(t->client, &options, &t->stream), 0);
    ck_assert_uint_eq(lockstep_stream_room(t->stream), 0);
}

static void until_room(struct stream_test *t, uint32_t room)
{
    POLL_UNTIL(t->client, lockstep_stream_room(t->stream) >= room);
}

static void send_one(struct stream_test *t, uint64_t tag, const char *command)
{
    struct lockstep_proposal proposal = {.command = command, .command_bytes = strlen(command)};
    ck_assert_int_eq(lockstep_stream_send(t->stream, &proposal, 1, tag), 0);
}

static void stream_test_close(struct stream_test *t)
{
    lockstep_stream_close(t->stream);
    lockstep_client_close(t->client);
}

START_TEST(stream_finds_the_leader_before_it_takes_messages_and_answers_in_order)
{
    struct stream_test t;
    stream_test_open(&t, 1, 0); /* a follower */
    until_room(&t, 4);
    char leader[32];
    snprintf(leader, sizeof leader, "127.0.0.1:%d", fake.ports[0]);
    ck_assert_str_eq(lockstep_stream_endpoint(t.stream), leader);
    enum { MESSAGES = 50, COMMANDS = 20 };
    uint64_t tag = 0;
    while (t.next_tag < MESSAGES) {
        struct lockstep_proposal proposals[COMMANDS];
        for (int i = 0; i < COMMANDS; i++)
            proposals[i] = (struct lockstep_proposal){.command = "echo streamed", .command_bytes = 13};
        while (tag < MESSAGES && lockstep_stream_room(t.stream) > 0)
            ck_assert_int_eq(lockstep_stream_send(t.stream, proposals, COMMANDS, tag++), 0);
        lockstep_client_poll(t.client, -1);
    }
    ck_assert_int_eq(t.count.answered, MESSAGES * COMMANDS);
    ck_assert_int_eq(t.losses, 0);
    stream_test_close(&t);
}
END_TEST

START_TEST(stream_takes_no_more_messages_than_its_window)
{
    struct stream_test t;
    stream_test_open(&t, 0, 0);
    until_room(&t, 4);
    for (uint64_t tag = 0; tag < 4; tag++) send_one(&t, tag, "echo x");
    ck_assert_uint_eq(lockstep_stream_room(t.stream), 0);
    struct lockstep_proposal proposal = {.command = "echo x", .command_bytes = 6};
    ck_assert_int_eq(lockstep_stream_send(t.stream, &proposal, 1, 4), LOCKSTEP_EFULL);
    ck_assert_int_eq(lockstep_stream_send(t.stream, &proposal, 0, 4), LOCKSTEP_EINVAL);
    until_room(&t, 4);
    ck_assert_int_eq(t.count.answered, 4);
    stream_test_close(&t);
}
END_TEST

START_TEST(stream_tells_the_fate_of_each_command_of_a_message)
{
    struct stream_test t;
    stream_test_open(&t, 0, 0);
    until_room(&t, 1);
    struct lockstep_proposal proposals[] = {{.command = "echo a", .command_bytes = 6},
                                            {.command = "unavailable", .command_bytes = 11},
                                            {.command = "lost", .command_bytes = 4},
                                            {.command = "echo b", .command_bytes = 6}};
    ck_assert_int_eq(lockstep_stream_send(t.stream, proposals, 4, 0), 0);
    until_room(&t, 4);
    ck_assert_int_eq(t.count.answered, 2);
    ck_assert_int_eq(t.count.not_appended, 1);
    ck_assert_int_eq(t.count.unknown, 1);
    stream_test_close(&t);
}
END_TEST

START_TEST(stream_that_ends_leaves_its_messages_unknown_and_goes_to_the_new_leader) /* C3 */
{
    struct stream_test t;
    stream_test_open(&t, 0, 0);
    until_room(&t, 4);
    send_one(&t, 0, "echo before"); /* the node has taken the call: else it would refuse it, as a follower */
    until_room(&t, 4);
    tell("leader 2");
    send_one(&t, 1, "end stream");
    send_one(&t, 2, "echo behind");
    POLL_UNTIL(t.client, t.losses > 0);
    ck_assert_int_eq(t.count.unknown, 2); /* the trailer did not say not-appended */
    until_room(&t, 4);
    char leader[32];
    snprintf(leader, sizeof leader, "127.0.0.1:%d", fake.ports[2]);
    ck_assert_str_eq(lockstep_stream_endpoint(t.stream), leader);
    send_one(&t, 3, "echo at the new one");
    until_room(&t, 4);
    ck_assert_int_eq(t.count.answered, 2);
    ck_assert_int_eq(seen("end stream"), 1);
    stream_test_close(&t);
    tell("leader 0");
}
END_TEST

START_TEST(stream_message_without_an_answer_is_unknown_at_the_deadline)
{
    struct stream_test t;
    stream_test_open(&t, 0, 200);
    until_room(&t, 4);
    send_one(&t, 0, "hang stream");
    POLL_UNTIL(t.client, t.losses > 0);
    ck_assert_int_eq(t.last_error, LOCKSTEP_ETIMEDOUT);
    ck_assert_int_eq(t.count.unknown, 1);
    until_room(&t, 4); /* opens again */
    stream_test_close(&t);
}
END_TEST

START_TEST(stream_answer_of_another_count_ends_the_call_as_unknown)
{
    struct stream_test t;
    stream_test_open(&t, 0, 0);
    until_room(&t, 4);
    send_one(&t, 0, "short");
    POLL_UNTIL(t.client, t.losses > 0);
    ck_assert_int_eq(t.last_error, LOCKSTEP_EPROTO);
    ck_assert_int_eq(t.count.unknown, 1);
    stream_test_close(&t);
}
END_TEST

START_TEST(stream_survives_the_death_of_its_node)
{
    struct stream_test t;
    stream_test_open(&t, 0, 0);
    until_room(&t, 4);
    send_one(&t, 0, "echo before");
    until_room(&t, 4);
    /* The client was opened for node 0 alone; a redirect to node 1 teaches it another address first. */
    tell("leader 1");
    send_one(&t, 1, "end death");
    until_room(&t, 4);
    send_one(&t, 2, "hang death");
    POLL_UNTIL(t.client, seen("hang death") == 1);
    tell("stop 1");
    tell("leader 0");
    POLL_UNTIL(t.client, t.losses >= 2);
    until_room(&t, 4);
    send_one(&t, 3, "echo alive");
    until_room(&t, 4);
    ck_assert_int_eq(t.count.answered, 2);
    ck_assert_int_eq(t.count.unknown, 2);
    tell("start 1");
    stream_test_close(&t);
}
END_TEST

START_TEST(closing_a_stream_ends_its_messages)
{
    struct stream_test t;
    stream_test_open(&t, 0, 0);
    until_room(&t, 4);
    send_one(&t, 0, "hang close");
    lockstep_stream_close(t.stream);
    ck_assert_int_eq(t.count.unknown, 1);
    struct lockstep_result result = propose(t.client, "echo still here", 0);
    check_reply(result, "still here");
    lockstep_client_close(t.client);
}
END_TEST

/* --- what a callback may close --- */

START_TEST(a_stream_that_looks_for_its_leader_may_be_closed_when_another_one_finds_nobody)
{
    struct lockstep_client *client = client_of("127.0.0.1:1");
    struct pair pair = {0};
    pair.other = stream_of(client, NULL, 0); /* both ask for the leader, and end together: nobody is there */
    pair.stream = stream_of(client, &pair, 0);
    POLL_UNTIL(client, pair.losses >= 2);
    lockstep_client_close(client);
}
END_TEST

START_TEST(a_stream_may_be_closed_when_another_one_has_no_answer_in_time)
{
    struct lockstep_client *client = client_of_node(0);
    struct pair pair = {0};
    struct lockstep_stream *other = stream_of(client, NULL, 0);
    pair.stream = stream_of(client, &pair, 300);
    POLL_UNTIL(client, lockstep_stream_room(other) > 0 && lockstep_stream_room(pair.stream) > 0);
    pair = (struct pair){.stream = pair.stream, .other = other};
    const struct lockstep_proposal proposal = {.command = "hang pair", .command_bytes = 9};
    ck_assert_int_eq(lockstep_stream_send(pair.stream, &proposal, 1, 0), 0);
    POLL_UNTIL(client, pair.losses > 0);
    POLL_UNTIL(client, lockstep_stream_room(pair.stream) > 0);
    lockstep_client_close(client);
}
END_TEST

/* The end of an idle connection is read when somebody wants to use it: here that somebody is closed by it. */
START_TEST(a_stream_that_waits_for_a_connection_may_be_closed_when_another_one_loses_its_own)
{
    struct lockstep_client *client = client_of(fake.all);
    struct pair pair = {0};
    tell("leader 1");
    check_reply(propose(client, "echo there", 0), "there");
    tell("leader 0");
    check_reply(propose(client, "echo back", 0), "back"); /* connected to both, this one is asked first */
    pair.stream = stream_of(client, &pair, 0);
    POLL_UNTIL(client, lockstep_stream_room(pair.stream) > 0);
    tell("leader 1");
    tell("stop 0");
    pair.other = stream_of(client, NULL, 0);
    POLL_UNTIL(client, pair.losses > 0);
    POLL_UNTIL(client, lockstep_stream_room(pair.stream) > 0);
    tell("start 0");
    tell("leader 0");
    lockstep_client_close(client);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, NULL, callbacks_were_right);
    tcase_add_test(tests, proposal_is_answered_with_reply_index_and_position);
    tcase_add_test(tests, refusal_of_the_machine_is_an_answer_with_its_code);
    tcase_add_test(tests, proposal_sent_to_a_follower_goes_to_the_leader_it_names);
    tcase_add_test(tests, refused_as_full_is_repeated_after_the_servers_pause);
    tcase_add_test(tests, refused_as_unavailable_is_repeated_until_there_is_a_leader);
    tcase_add_test(tests, proposal_ends_not_appended_when_the_deadline_comes_first);
    tcase_add_test(tests, no_attempt_begins_just_before_the_deadline);
    tcase_add_test(tests, aborted_proposal_is_unknown_and_never_sent_again);
    tcase_add_test(tests, unavailable_without_the_trailer_is_unknown_and_never_sent_again);
    tcase_add_test(tests, unanswered_proposal_is_unknown_at_its_deadline);
    tcase_add_test(tests, invalid_proposal_ends_at_once_with_the_servers_words);
    tcase_add_test(tests, proposal_over_the_message_limit_is_refused_before_it_is_queued);
    tcase_add_test(tests, many_proposals_run_at_once_and_each_ends_once);
    tcase_add_test(tests, client_runs_in_a_foreign_loop_by_descriptor_and_timeout);
    tcase_add_test(tests, closing_ends_what_runs_with_its_fate);
    tcase_add_test(tests, operations_over_the_limit_are_refused_at_once);
    tcase_add_test(tests, proposal_finds_the_new_leader_when_the_old_one_died);
    tcase_add_test(tests, proposal_on_a_connection_that_breaks_is_unknown_and_not_repeated);
    tcase_add_test(tests, follower_forwards_when_the_leader_it_names_cannot_be_reached);
    tcase_add_test(tests, leader_hint_that_is_no_address_is_passed_over);
    tcase_add_test(tests, addresses_that_nobody_uses_make_room_for_those_that_are_learnt);
    tcase_add_test(tests, a_node_that_goes_away_is_named_while_its_last_calls_run);
    tcase_add_test(tests, refused_connections_are_named_one_by_one_in_under_a_second);
    tcase_add_test(tests, what_fails_at_once_ends_the_poll_that_found_it);
    tcase_add_test(tests, deaf_server_is_named_in_about_a_second_and_got_no_command);
    tcase_add_test(tests, server_of_another_protocol_is_named_and_got_no_command);
    tcase_add_test(tests, slow_endpoint_does_not_hold_up_a_good_one);
    tcase_add_test(tests, endpoint_that_is_no_address_is_refused_with_the_form_it_should_have);
    tcase_add_test(tests, client_without_a_descriptor_says_what_to_raise);
    tcase_add_test(tests, linearizable_query_goes_to_the_leader_and_local_one_to_any_node);
    tcase_add_test(tests, query_is_repeated_even_when_the_server_does_not_say_why);
    tcase_add_test(tests, status_is_read_whole);
    tcase_add_test(tests, tail_is_patient_anew_with_a_node_that_was_not_ready_meanwhile);
    tcase_add_test(tests, transfer_moves_the_leader_and_names_it);
    tcase_add_test(tests, health_says_serving_not_serving_or_unknown_service);
    tcase_add_test(tests, an_answer_whose_call_fails_after_all_is_dropped_and_asked_for_again);
    tcase_add_test(tests, stream_finds_the_leader_before_it_takes_messages_and_answers_in_order);
    tcase_add_test(tests, stream_takes_no_more_messages_than_its_window);
    tcase_add_test(tests, stream_tells_the_fate_of_each_command_of_a_message);
    tcase_add_test(tests, stream_that_ends_leaves_its_messages_unknown_and_goes_to_the_new_leader);
    tcase_add_test(tests, stream_message_without_an_answer_is_unknown_at_the_deadline);
    tcase_add_test(tests, stream_answer_of_another_count_ends_the_call_as_unknown);
    tcase_add_test(tests, stream_survives_the_death_of_its_node);
    tcase_add_test(tests, closing_a_stream_ends_its_messages);
    tcase_add_test(tests, a_stream_that_looks_for_its_leader_may_be_closed_when_another_one_finds_nobody);
    tcase_add_test(tests, a_stream_may_be_closed_when_another_one_has_no_answer_in_time);
    tcase_add_test(tests, a_stream_that_waits_for_a_connection_may_be_closed_when_another_one_loses_its_own);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "use: test_client fake_cluster.py PROTO_DIR\n");
        return 2;
    }
    fake_start(argv[1], argv[2]);
    int rc = unit_main("client library", add);
    fake_stop();
    return rc;
}
