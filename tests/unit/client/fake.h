/* SPDX-License-Identifier: Apache-2.0 */
/* fake.h - what the tests of the client library share: the cluster of another implementation (fake_cluster.py), and
 * clients of it. Thread: the test's. */
#ifndef LOCKSTEP_TESTS_UNIT_CLIENT_FAKE_H
#define LOCKSTEP_TESTS_UNIT_CLIENT_FAKE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lockstep/client.h"

enum { NODES = 3 };

extern struct fake {
    pid_t pid;
    int input; /* closing it ends the cluster */
    int ports[NODES];
    char all[128]; /* endpoints */
} fake;

void fake_start(const char *script, const char *protos);
void fake_stop(void);
uint64_t now_ms(void);

/* Poll until `condition`; a test that waits for what never comes fails instead of hanging. */
#define POLL_UNTIL(client, condition)                                                                                  \
    do {                                                                                                               \
        uint64_t until_ms = now_ms() + 15000;                                                                          \
        while (!(condition)) {                                                                                         \
            ck_assert_msg(now_ms() < until_ms, "waited in vain: %s (%s)", #condition,                                  \
                          lockstep_client_trouble(client));                                                            \
            ck_assert_int_eq(lockstep_client_poll(client, 100), 0);                                                    \
        }                                                                                                              \
    } while (0)

/* Without sessions but where it is said. */
struct lockstep_client *client_of(const char *endpoints);
struct lockstep_client *client_with(const char *endpoints, bool session);
struct lockstep_client *client_of_node(int node);
struct lockstep_result propose(struct lockstep_client *client, const char *command, uint32_t deadline_ms);
struct lockstep_result query(struct lockstep_client *client, const char *text, enum lockstep_consistency how);
/* Change the fake cluster, through a client of its own: the one under test keeps what it knows. */
void tell(int node, const char *what);
/* How often a command reached any node; how often it was applied. */
int seen(const char *command);
int applied(const char *command);
void check_reply(struct lockstep_result result, const char *reply);

#endif
