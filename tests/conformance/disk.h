/* SPDX-License-Identifier: Apache-2.0 */
/* disk.h - what every storage/disk.h has to do, as one suite; run against the real disk and the simulated one. */
#ifndef LOCKSTEP_TESTS_CONFORMANCE_DISK_H
#define LOCKSTEP_TESTS_CONFORMANCE_DISK_H

#include <check.h>

#include "storage/disk.h"

/* Given by each runner: a fresh, empty directory on the disk, before each test; and its end. */
const struct disk *conformance_disk_begin(char directory[256]);
void conformance_disk_end(void);

void conformance_disk_add(TCase *tests);

#endif
