/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - what a seed decides before its world begins: sizes, delays, rates of faults, clients.
 * Each kind of fault is there in some seeds and not in others: where all happen at once, they hide each other. */
#ifndef LOCKSTEP_TESTS_SIM_PLAN_H
#define LOCKSTEP_TESTS_SIM_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/random.h"
#include "server/node_env.h"
#include "statemachine/sessions.h"
#include "storage/configuration.h"

#define SIM_US UINT64_C(1000)
#define SIM_MS UINT64_C(1000000)
#define SIM_S  UINT64_C(1000000000)

enum { SIM_NODES_MAX = 7, SIM_OBSERVERS_MAX = 3 };

/* Something that comes again and again; the mean time between two. 0 = never. */
enum plan_fault {
    FAULT_POWER_CUT,  /* at the n-th changing operation of a disk from now, in the middle of it */
    FAULT_KILL,       /* of a process between two steps: what it wrote stays, unflushed */
    FAULT_ALL_DOWN,   /* the power of the whole room */
    FAULT_STOP,       /* as SIGTERM does it */
    FAULT_FLUSH,      /* a flush fails, and all later ones of this process */
    FAULT_FULL,       /* others fill the disk, or the log's alone */
    FAULT_ISOLATE,    /* a node hears nobody, or nobody hears it, or both */
    FAULT_SPLIT,      /* two halves */
    FAULT_LINK,       /* one link, one way */
    FAULT_HANG_UP,    /* a connection ends */
    FAULT_PAUSE,      /* a whole process stands still */
    FAULT_SLOW_DISK,  /* the journal's flush takes long */
    FAULT_SLOW_PART,  /* machine, log or control thread stands still */
    FAULT_WALL_CLOCK, /* jumps */
    FAULT_TRANSFER,   /* somebody moves leadership */
    FAULT_MEMBERS,    /* somebody changes the members, or takes a member's disk away and replaces it */
    FAULT_ROT,        /* bytes of a member's files change while it is down; one member at a time */
    FAULT_LOCAL,      /* the connections between two processes of a host end */
    FAULT_AWAY,       /* nobody of its host finds it for a while, or it finds nobody */
    FAULTS,
};

struct sim_plan {
    uint64_t seed;
    unsigned nodes;  /* all there are */
    unsigned listed; /* those that are born together; the others may be added */
    uint64_t ring_bytes, journal_bytes;
    uint64_t snapshot_after_bytes; /* 0 = none is taken */
    uint64_t snapshot_age_ns;      /* 0 = by bytes alone */
    uint32_t piece_bytes;
    uint32_t command_bytes_max, block_bytes_max;
    uint64_t election_timeout_ns, heartbeat_ns;
    uint64_t delay_ns_min, delay_ns_max;
    uint32_t loss_per_1000, duplicate_per_1000;
    uint64_t work_ns_min[NODE_PARTS], work_ns_max[NODE_PARTS]; /* from a wake-up to the work's end */
    uint64_t fault_ns[FAULTS];                                 /* enum plan_fault: mean time between two */
    uint64_t fault_length_ns_max;                              /* of pauses, cuts, slowness; and until a restart */
    uint32_t drift_ppm_max;                                    /* of a node's clock; leases bear 5 % */
    bool lease_reads;
    enum durability_level level; /* memory: whoever dies is lost, so nobody dies but by FAULT_MEMBERS */
    bool faults_from_birth;      /* else they begin when the cluster is born */
    uint64_t safety_ns;          /* how long faults go on */
    unsigned clients;
    uint64_t think_ns_max;
    uint32_t large_per_1000; /* commands of up to command_bytes_max */
    uint32_t query_per_1000;
    uint32_t forward_per_1000; /* of those asked at a follower */
    uint32_t sessions_per_100; /* of the clients, those that have sessions */
    struct session_limits sessions;
    uint64_t client_timeout_ns;
    /* Nodes of one host share memory. */
    bool shares_memory; /* else nobody does */
    bool laps;          /* who does not lead stands still, and is lapped */
    uint8_t host[SIM_NODES_MAX];
    unsigned observers;                                        /* other processes, that follow what is committed */
    uint64_t observer_ns_max;                                  /* between two looks of theirs */
    uint64_t bell_ns_min, bell_ns_max;                         /* until who sleeps hears it */
    uint32_t refused_per_1000, late_per_1000, broken_per_1000; /* of what it takes to share it */
    bool lying_disk;                                           /* the canary */
};

void plan_of_seed(struct sim_plan *plan, uint64_t seed);
/* One line of words and numbers. */
void plan_print(const struct sim_plan *plan, FILE *to);

#endif
