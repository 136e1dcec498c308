/* SPDX-License-Identifier: Apache-2.0 */
/* workers.h - the real threads of a storage's parts, and a bell for who plays the loop.
 * Each sleeps until it is woken, or until the time that its work asked for. One storage at a time. */
#ifndef LOCKSTEP_TESTS_SUPPORT_WORKERS_H
#define LOCKSTEP_TESTS_SUPPORT_WORKERS_H

#include <stdint.h>

#include "storage/storage.h"

/* Before the storage is opened. */
void workers_prepare(void);
/* The storage's option of that name; any thread. */
void workers_wake(void *context, enum storage_part part);
/* Journal and log run from here on, until they are stopped. */
void workers_start(struct storage *storage);
void workers_stop(void);
/* The loop's sleep: until it is woken, at most so long. */
void workers_sleep(uint64_t ns);
/* CLOCK_MONOTONIC. */
uint64_t workers_now_ns(void);

#endif
