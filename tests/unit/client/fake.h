/* SPDX-License-Identifier: Apache-2.0 */
/* fake.h - what the tests of the client library share: the cluster of another implementation (fake_cluster.py), and
 * clients of it. Thread: the test's. */
#ifndef LOCKSTEP_TESTS_UNIT_CLIENT_FAKE_H
#define LOCKSTEP_TESTS_UNIT_CLIENT_FAKE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "lockstep/client.h"

enum { NODES = 3 };

extern struct fake {
    pid_t pid;
    int input; /* closing it ends the cluster */
    FILE *output;
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
            callbacks_were_right();                                                                                    \
        }                                                                                                              \
    } while (0)

/* Without sessions but where it is said. A dial, and a node that is silent, are given up after a minute: on a machine
 * that stalls, a test could not count what is sent, and to whom. Where giving up is the test, it says as_it_ships(). */
struct lockstep_client *client_of(const char *endpoints);
struct lockstep_client *client_with(const char *endpoints, bool session);
struct lockstep_client *client_of_node(int node);
void as_it_ships(struct lockstep_client *client);
/* Bounds on time hold on a machine that has it: one try of ten suffices, and what is too slow never makes it. */
bool one_in_ten_takes_less(uint32_t ms, void (*what)(void));
struct lockstep_result propose(struct lockstep_client *client, const char *command, uint32_t deadline_ms);
struct lockstep_result query(struct lockstep_client *client, const char *text, enum lockstep_consistency how);
/* Give the fake cluster an order, or ask it something, and wait for its one-line answer (fake_cluster.py lists them). */
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ask(const char *what, char *answer, size_t room);
/* How often a command reached any node; how often it was applied. */
int seen(const char *command);
int applied(const char *command);
/* A check in a callback: a failed one of check's would jump out of the client's poll. The first one that does not hold is
 * told by callbacks_were_right(), which POLL_UNTIL and the end of a test ask. */
void expect(bool holds, const char *what, int64_t is, const char *text);
void callbacks_were_right(void);
void check_reply(struct lockstep_result result, const char *reply);

#endif
