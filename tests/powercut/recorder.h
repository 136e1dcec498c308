/* SPDX-License-Identifier: Apache-2.0 */
/* recorder.h - how a program speaks to the recorder that is preloaded into it (LD_PRELOAD). Weak: NULL where it is not.
 * A program that knows nothing of it is recorded too, by its environment: RECORDER_DIRECTORY, RECORDER_TRACE (appended to), and
 * RECORDER_KILL_WHILE, a path: while it exists, the next operation is a SIGKILL instead. A kill from outside could hit
 * between a call and its record. */
#ifndef LOCKSTEP_TESTS_POWERCUT_RECORDER_H
#define LOCKSTEP_TESTS_POWERCUT_RECORDER_H

#include <stdint.h>

#pragma weak recorder_start
#pragma weak recorder_note
#pragma weak recorder_kill_after

/* From now on, what happens below `directory` (absolute, there) is appended to the descriptor `trace`. Once a process. */
void recorder_start(const char *directory, int trace);
void recorder_note(const void *bytes, uint32_t count);
/* SIGKILL to this process in place of the n-th operation from now; 0 = of the next one. */
void recorder_kill_after(uint64_t count);

#endif
