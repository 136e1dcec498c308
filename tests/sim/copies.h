/* SPDX-License-Identifier: Apache-2.0 */
/* copies.h - a copy of the machine's shared object for each node, as new at each start of the node.
 * A process loads a shared object once, however many nodes use it; so a machine that keeps state in static variables
 * would find there what another node put. Here each node has its own mapping of its own copy of the file (M7), and a
 * start puts back what the copy's writable memory held when it was loaded, as a new process would find it. */
#ifndef LOCKSTEP_TESTS_SIM_COPIES_H
#define LOCKSTEP_TESTS_SIM_COPIES_H

#include <stddef.h>

#include "statemachine/plugin.h"

struct copies;

/* Load `count` copies of the file. Errors and `why` as plugin_load. Allocates; for the life of the process. */
int copies_open(const char *path, unsigned count, struct copies **ret, char *why, size_t why_room);
/* Copy i, as it was when loaded. No machine of it may be open. */
const struct plugin *copies_fresh(struct copies *copies, unsigned i);

#endif
