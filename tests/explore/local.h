/* SPDX-License-Identifier: Apache-2.0 */
/* local.h - one member of the explored cluster: the real core, its log in memory, its disk. What an event does to it.
 * The state of a member is a number (intern.h), so is a packet on the network; an event turns a number into another and
 * sends packets. That is a pure function: it is computed once, by the core itself, and remembered.
 *
 * - Time is a choice, not a number: after each event all of a core's times are set to where they stand relative to its
 *   clock (fresh or past), so that equal situations are equal states. Every deadline may pass at any moment: R9 lets
 *   clocks run as they like.
 * - All of a core's fields count as its state, apart from what no later step reads (written in normalise()). A field
 *   that is added later counts by itself.
 * - Checked at each event: the core's own raft_check; nothing leaves before what it promises is durable (R1, R2, R7);
 *   one vote a term; commit never falls within a life and never passes v (R3); counting commits only the own term (R4);
 *   no proof of lost safety (T14) is ever reported.
 * Allocates as it grows. One run at a time: it is the program's only state. */
#ifndef LOCKSTEP_TESTS_EXPLORE_LOCAL_H
#define LOCKSTEP_TESTS_EXPLORE_LOCAL_H

#include <stdio.h>

#include "raft/raft.h"

enum {
    LOCAL_MEMBERS_MAX = 4,
    LOCAL_BLOCKS_MAX = 8,
    LOCAL_PERSISTS_MAX = 8,
    LOCAL_SENT_MAX = 16,
    LOCAL_TERMS_MAX = 6,
};

/* Bugs of the world around the core, to show that exploration finds such things. */
enum local_plant {
    PLANT_NOTHING,
    PLANT_VOTE,  /* a crash loses the vote */
    PLANT_FLUSH, /* a crash loses the newest flushed block that is not known committed */
};

struct local_options {
    uint32_t members;
    /* A letter a member, in order: V voter, L learner, - no member yet or no more. What a change leads to; may be NULL. */
    const char *configuration, *target;
    /* What the disks hold at the start: "111/12/12" is the terms of each member's blocks. All have heard of the newest
     * term. Empty: nothing. */
    const char *logs;
    uint32_t terms_max, blocks_max; /* nobody campaigns, nothing is proposed beyond */
    uint32_t rounds_max;            /* heartbeats of later rounds are lost */
    bool quiet;                     /* and those of a new leader */
    bool lease;     /* pre-votes are messages, and whoever heard a leader refuses until time passes; else a pre-vote
                    * always succeeds and nobody refuses: more can happen */
    bool symmetric; /* check, at each step that is computed, that members can be renamed */
    enum local_plant plant;
};

/* Within a term there is one leader, and it proposes an index once: term and index name a block's content. */
struct local_block {
    uint8_t term;
    uint8_t configuration; /* that it carries, by number; 0 = none */
};

enum local_event_type {
    LOCAL_DELIVER = 1, /* argument: packet */
    LOCAL_DISK,        /* the oldest persist is done */
    LOCAL_CRASH,       /* argument: so many persists reach the disk first; then it starts again */
    LOCAL_TIMEOUT,     /* who does not lead campaigns */
    LOCAL_STALE,       /* the leader has not been heard for a while */
    LOCAL_HEARTBEAT,   /* the leader's is due; nobody was heard for long, so what was lost is found out */
    LOCAL_QUORUM_LOST, /* a leader hears no majority */
    LOCAL_PROPOSE,
    LOCAL_READ,
    LOCAL_TRANSFER, /* argument: target */
    LOCAL_CHANGE,   /* the leader begins to change the configuration to the run's target, if it may */
};

struct local_event {
    uint8_t type;
    uint32_t argument;
};

/* What can be seen of a member's state. */
struct local_view {
    uint8_t id, role;
    uint8_t term, durable_term;
    uint8_t last, commit, disk_last;
    uint8_t pending; /* persists */
    uint8_t round;
    bool may_campaign, may_propose, may_transfer, is_fresh, reads;
    struct local_block log[LOCAL_BLOCKS_MAX + 1], disk[LOCAL_BLOCKS_MAX + 1];
};

struct local_outcome {
    uint32_t after;
    const char *broken; /* NULL: no rule was */
    bool became_leader;
    bool read_ready, read_refused;
    uint8_t read_index;
    uint8_t sent_count;
    uint32_t sent[LOCAL_SENT_MAX];
};

struct local_packet {
    struct raft_message message;
    uint32_t block_count;
    struct local_block blocks[LOCAL_BLOCKS_MAX];
};

/* Forget all of the run before. */
void local_open(const struct local_options *options);
/* A member that has just started for the first time. */
uint32_t local_first(raft_member id);
const struct local_view *local_view_of(uint32_t state); /* until the next local_step that is computed */
const struct local_packet *local_packet_of(uint32_t packet);
/* Configuration `number` of a block; 0: the one that the cluster was born with. */
const struct raft_configuration *local_configuration(uint8_t number);
const struct local_outcome *local_step(uint32_t state, struct local_event event);
/* Whether the packet can never change anything where it goes: an answer, and that term is durably over there. What is dead
 * is left out of the exploration. */
bool local_is_dead(uint32_t packet, const struct local_view *to);
/* That this is so: deliver each dead packet to each state that there was. False: one changed something; *ret_state and
 * *ret_packet say which. */
bool local_check_dead(uint32_t *ret_state, uint32_t *ret_packet);
/* The same, computed anew; everything visible goes to `out`. */
void local_replay(uint32_t state, struct local_event event, FILE *out);

/* The same with members renamed: member i + 1 becomes local_renamings[renaming][i] + 1. 0 renames nobody. The core treats
 * all members alike, so renamed states have renamed futures, and one of them stands for all. For clusters of three. */
enum { LOCAL_RENAMINGS = 6 };
extern const uint8_t local_renamings[LOCAL_RENAMINGS][3];
uint32_t local_rename(uint32_t state, uint32_t renaming);
uint32_t local_rename_packet(uint32_t packet, uint32_t renaming);
struct local_event local_rename_event(struct local_event event, uint32_t renaming);

/* How many different member states, packets and (state, event) pairs there were. */
void local_counts(uint32_t *ret_states, uint32_t *ret_packets, uint32_t *ret_steps);

#endif
