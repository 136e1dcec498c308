/* SPDX-License-Identifier: Apache-2.0 */
/* test_resolve.c - names that take long to resolve, or for ever, hold nobody up. getaddrinfo is wrapped: a name that ends in
 * .hangs waits for the test, then is 127.0.0.1. */
#include <netdb.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "lockstep/client.h"
#include "tests/support/unit.h"

static _Atomic int lookups;
static sem_t answer, answered;

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret);

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
    if (strstr(host, ".hangs") == NULL) return __real_getaddrinfo(host, port, hints, ret);
    if ((hints->ai_flags & AI_NUMERICHOST) != 0) return EAI_NONAME;
    atomic_fetch_add(&lookups, 1);
    sem_wait(&answer);
    sem_post(&answered);
    return __real_getaddrinfo("127.0.0.1", port, hints, ret);
}

static void setup(void)
{
    atomic_store(&lookups, 0);
    sem_init(&answer, 0, 0);
    sem_init(&answered, 0, 0);
}

static void answer_lookup(void)
{
    sem_post(&answer);
    sem_wait(&answered);
}

static struct lockstep_client *client_of(const char *endpoints)
{
    struct lockstep_client_options options = {.size = sizeof options, .endpoints = endpoints};
    struct lockstep_client *client;
    char why[256] = "";
    ck_assert_msg(lockstep_client_open(&options, &client, why, sizeof why) == 0, "%s", why);
    return client;
}

static struct lockstep_result propose(struct lockstep_client *client, uint32_t deadline_ms)
{
    struct lockstep_proposal proposal = {.command = "x", .command_bytes = 1, .deadline_ms = deadline_ms};
    struct lockstep_result result;
    lockstep_propose_wait(client, &proposal, &result);
    return result;
}

START_TEST(resolver_that_hangs_holds_up_neither_poll_nor_deadline)
{
    struct lockstep_client *client = client_of("node.hangs:1");
    struct lockstep_result result = propose(client, 100);
    ck_assert_int_eq(result.error, LOCKSTEP_EUNREACHABLE);
    ck_assert_int_eq(result.fate, LOCKSTEP_NOT_APPENDED);
    ck_assert_ptr_nonnull(strstr(result.text, "within 100 ms"));
    lockstep_client_close(client); /* while the lookup runs */
    answer_lookup();
}
END_TEST

START_TEST(name_that_is_not_resolved_in_time_is_named_and_asked_for_once) /* C4 */
{
    struct lockstep_client *client = client_of("node.hangs:1,127.0.0.1:1");
    for (int i = 0; i < 2; i++) {
        struct lockstep_result result = propose(client, 5000);
        ck_assert_int_eq(result.error, LOCKSTEP_EUNREACHABLE);
        ck_assert_ptr_nonnull(strstr(result.text, "node.hangs:1: resolve: no answer in time"));
        ck_assert_ptr_nonnull(strstr(result.text, "127.0.0.1:1: connect: Connection refused"));
    }
    ck_assert_int_eq(atomic_load(&lookups), 1);
    lockstep_client_close(client);
    answer_lookup();
}
END_TEST

START_TEST(answer_that_comes_after_its_dial_serves_the_next)
{
    struct lockstep_client *client = client_of("node.hangs:1");
    struct lockstep_result result = propose(client, 5000);
    ck_assert_ptr_nonnull(strstr(result.text, "node.hangs:1: resolve: no answer in time"));
    answer_lookup();
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 1000 && strstr(result.text, "resolve") != NULL; i++) {
        result = propose(client, 5000);
        nanosleep(&pause, NULL);
    }
    ck_assert_ptr_nonnull(strstr(result.text, "node.hangs:1: connect: Connection refused"));
    lockstep_client_close(client);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, resolver_that_hangs_holds_up_neither_poll_nor_deadline);
    tcase_add_test(tests, name_that_is_not_resolved_in_time_is_named_and_asked_for_once);
    tcase_add_test(tests, answer_that_comes_after_its_dial_serves_the_next);
}

int main(void)
{
    return unit_main("client resolve", add);
}
