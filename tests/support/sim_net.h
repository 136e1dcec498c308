/* SPDX-License-Identifier: Apache-2.0 */
/* sim_net.h - a network in memory behind transport/transport.h: seeded loss, delay, duplication and cuts.
 * One thread. Frames are copied at send (ring bytes included), wait on their link until their time has come, and are
 * handed out in order of that time; equal times in order of sending. No pointer or hash order decides anything. */
#ifndef LOCKSTEP_TESTS_SUPPORT_SIM_NET_H
#define LOCKSTEP_TESTS_SUPPORT_SIM_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"
#include "transport/transport.h"

struct sim_net;

struct sim_net_faults {
    uint64_t delay_ns_min, delay_ns_max; /* of every frame, each drawn anew: frames overtake each other */
    uint32_t loss_per_1000;
    uint32_t duplicate_per_1000; /* of Raft's frames: a forwarded command arrives at most once on any connection */
};

struct sim_net *sim_net_open(struct random *random, const uint64_t *now_ns);
void sim_net_close(struct sim_net *net);
void sim_net_faults_set(struct sim_net *net, const struct sim_net_faults *faults);
/* One direction. What is on its way is lost. */
void sim_net_cut(struct sim_net *net, unsigned from, unsigned to, bool cut);

/* The connection on which `to` receives from `from` ends: `to` sees a hang-up behind what is on its way to it, unless it
 * is cut. The next frame connects again. */
void sim_net_hang_up(struct sim_net *net, unsigned from, unsigned to);

/* A node's end, number `end`. Its slots mean the ends of the same numbers, until the owner gives one to the peer whose
 * address is "END:..." (peer_set). Its peers see it once it is attached; detaching (a crash) loses what is on its way to it, and hangs up on
 * all peers. */
struct transport *sim_net_attach(struct sim_net *net, unsigned end, const struct transport_owner *owner,
                                 const struct transport_hello *hello);
void sim_net_detach(struct sim_net *net, unsigned end);
/* Nothing that this node sends leaves any more, until it is attached again: its power went in the middle of a turn. */
void sim_net_mute(struct sim_net *net, unsigned end);

/* Is told of every frame that a node sends to an end, before the network decides what becomes of it. */
struct sim_net_watch {
    void *context;
    void (*sent)(void *context, unsigned from, unsigned to, const struct transport_send *send);
};
void sim_net_watch_set(struct sim_net *net, const struct sim_net_watch *watch);

/* When the next frame of this node becomes due; UINT64_MAX = none is on its way. */
uint64_t sim_net_first_ns(const struct sim_net *net, unsigned end);
/* When the next frame becomes due anywhere, after now; UINT64_MAX = none. */
uint64_t sim_net_next_ns(const struct sim_net *net);
bool sim_net_due(const struct sim_net *net, unsigned end);
/* Whether the frame that lies there, to be consumed, is one of this network's: another part may hand out its own. */
bool sim_net_hands(const struct sim_net *net, unsigned end);

#endif
