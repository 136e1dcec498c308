/* SPDX-License-Identifier: Apache-2.0 */
/* unit.h - what every unit test shares: a main() in one line, seeds that replay, loops that scale.
 * Thread: the test's main thread. */
#ifndef LOCKSTEP_TESTS_SUPPORT_UNIT_H
#define LOCKSTEP_TESTS_SUPPORT_UNIT_H

#include <check.h>
#include <stdint.h>

/* Run the tests that add() puts into one case: `int main(void) { return unit_main("raft log", add); }`.
 * Without the fork that check makes by default: sanitizers and debuggers see one process.
 * ret     EXIT_SUCCESS or EXIT_FAILURE */
int unit_main(const char *suite_name, void (*add)(TCase *tests));

/* The seed of a randomised test: LOCKSTEP_SEED (decimal or 0x...) where it is set, else usual; printed, so that a
 * failure replays. Never from the clock: a test that fails now and then is found by changing the seed, not by luck. */
uint64_t unit_seed(uint64_t usual);

/* Rounds of a long loop: usual; a tenth (at least 1) under LOCKSTEP_SHORT (sanitizer runs); ten times as many under
 * LOCKSTEP_FULL, which beats LOCKSTEP_SHORT. */
uint64_t unit_rounds(uint64_t usual);

/* A port of 127.0.0.1 that is this process's until it ends, also while nobody listens there: from below the range that the
 * kernel takes ports from, and marked as tests/system/harness/ports.py marks its own. */
int unit_free_port(void);

/* Listens there, as the server does: connections that an earlier process had with this port, and that the kernel has not
 * forgotten yet (TIME_WAIT), are no hindrance. The caller closes it. */
int unit_listen(int port);

/* The id of a cluster that no other process of this network namespace has: abstract names, which all of them see, are made of
 * it. Not from process numbers: two containers may share the names and not the numbers. */
uint64_t unit_cluster_id(void);

/* The number that this process's next descriptor gets. Twice the same: none was left open between the two calls. As
 * RLIMIT_NOFILE: no more is to be had. */
int unit_next_descriptor(void);

/* Delete all that is in a folder, folders too; remove deletes the folder itself as well. A folder that is not there is
 * none: a teardown may call it twice. */
void unit_folder_empty(const char *folder);
void unit_folder_remove(const char *folder);

#endif
