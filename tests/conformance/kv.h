/* SPDX-License-Identifier: Apache-2.0 */
/* kv.h - what every storage/kv.h has to do, as one suite; run against LMDB and the simulated map. */
#ifndef LOCKSTEP_TESTS_CONFORMANCE_KV_H
#define LOCKSTEP_TESTS_CONFORMANCE_KV_H

#include <check.h>

#include "storage/kv.h"

/* Given by each runner: a map that does not exist yet, before each test; and its end, after it was closed. */
const struct kv *conformance_kv_begin(char directory[256]);
void conformance_kv_end(void);

void conformance_kv_add(TCase *tests);

#endif
