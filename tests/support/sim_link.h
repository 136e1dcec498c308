/* SPDX-License-Identifier: Apache-2.0 */
/* sim_link.h - the processes of a host behind transport/local_link.h: seeded lateness, refusals and hang-ups.
 * One thread. The memory that is handed over is real: all simulated processes live in this one, so what one writes the
 * others see at once; who works when is the world's affair. Everything else waits in the queue of who it is meant for until
 * its time has come and its process works. A bell is late, and never lost while its connection lives. No address and no
 * number of a descriptor decides anything. */
#ifndef LOCKSTEP_TESTS_SUPPORT_SIM_LINK_H
#define LOCKSTEP_TESTS_SUPPORT_SIM_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"
#include "transport/local_link.h"

enum { SIM_LINK_HELLO_MS = 2000 /* a dialler waits so long for an answer */ };

struct sim_links;

struct sim_link_faults {
    uint64_t delay_ns_min, delay_ns_max; /* of a bell, a packet, a step of a handshake, the news of a hang-up */
    uint32_t refused_per_1000;           /* nobody is found, or the name seems to be taken */
    uint32_t late_per_1000;              /* a step of a handshake takes up to three seconds */
    uint32_t hang_up_per_1000;           /* a connection ends between two steps of its handshake */
};

struct sim_links *sim_links_open(struct random *random, const uint64_t *now_ns);
void sim_links_close(struct sim_links *links); /* every end is closed */
void sim_links_faults_set(struct sim_links *links, const struct sim_link_faults *faults);

/* A process: number `end`, on this host; clock shows it its own time. ops->close ends it, as a kill does: the others hear of
 * it, late. */
struct local_link *sim_link_open(struct sim_links *links, unsigned end, unsigned host,
                                 uint64_t (*clock)(const void *context), const void *context);

/* The callbacks of what has come. In the process's turn, before it works. */
void sim_link_work(struct sim_links *links, unsigned end);
/* When the next of it comes; UINT64_MAX = nothing is on its way. */
uint64_t sim_link_first_ns(const struct sim_links *links, unsigned end);

/* All connections between the two end, whatever step they are at: both hear of it. */
void sim_link_hang_up(struct sim_links *links, unsigned a, unsigned b);
/* Nobody finds it and it finds nobody any more, and its connections end; or again. Also while it does not run. */
void sim_link_away(struct sim_links *links, unsigned end, bool away);
/* Nothing more leaves it until it is opened again: it died in the middle of a turn. */
void sim_link_mute(struct sim_links *links, unsigned end);

#endif
