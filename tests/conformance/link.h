/* SPDX-License-Identifier: Apache-2.0 */
/* link.h - what every transport/local_link.h has to do, as one suite; run against Unix sockets and the simulated one. */
#ifndef LOCKSTEP_TESTS_CONFORMANCE_LINK_H
#define LOCKSTEP_TESTS_CONFORMANCE_LINK_H

#include <check.h>
#include <stdbool.h>

#include "transport/local_link.h"

/* Given by each runner. Two processes of one host, before each test, and their end: those that are closed are NULL. */
void conformance_link_begin(struct local_link *ret_links[2]);
void conformance_link_end(struct local_link *links[2]);
/* A cluster id that nobody on this host uses. */
uint64_t conformance_link_cluster(void);
/* Both go on for a while. False: that was long enough for anything to happen. */
bool conformance_link_turn(void);

void conformance_link_add(TCase *tests);

#endif
