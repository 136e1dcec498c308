/* SPDX-License-Identifier: Apache-2.0 */
/* configuration.h - who the members of the group are, what each of them does, and what all of them agreed on at birth.
 * The same bytes are the body of a configuration block, a part of the birth record, and a row of the log's map.
 *   - A configuration takes effect when its block is appended, and is kept until the next one replaces it (R6). The one at
 *     index 0 is in the birth record.
 *   - While it is joint, decisions need a majority of the voters before the change and one of those after it.
 * Pure functions; any thread. What is read is outside data: a configuration that comes out of configuration_read keeps
 * every rule of configuration_valid. */
#ifndef LOCKSTEP_STORAGE_CONFIGURATION_H
#define LOCKSTEP_STORAGE_CONFIGURATION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"

enum {
    CONFIGURATION_VERSION = 1,
    CONFIGURATION_NAME_BYTES_MAX = 64, /* with their final 0 */
    CONFIGURATION_ADDRESS_BYTES_MAX = 272,
};

enum durability_level { DURABILITY_LEVEL_FSYNC = 1, DURABILITY_LEVEL_OS = 2, DURABILITY_LEVEL_MEMORY = 3 };

/* The same numbers as the core's (raft/raft.h). A configuration with one of the last three is joint. */
enum configuration_role {
    CONFIGURATION_VOTER = 1,
    CONFIGURATION_LEARNER = 2,  /* holds the log, counts for nothing */
    CONFIGURATION_INCOMING = 3, /* votes after the change alone */
    CONFIGURATION_OUTGOING = 4, /* votes before it alone, a learner after it */
    CONFIGURATION_LEAVING = 5,  /* votes before it alone, no member after it */
};

struct configuration_member {
    raft_member id;
    uint8_t role;                                 /* enum configuration_role */
    uint8_t priority;                             /* who should lead: the higher, the rather */
    char name[CONFIGURATION_NAME_BYTES_MAX];      /* a label: ids tell members apart */
    char client[CONFIGURATION_ADDRESS_BYTES_MAX]; /* HOST:PORT, as told to clients */
    char peer[CONFIGURATION_ADDRESS_BYTES_MAX];   /* HOST:PORT */
};

struct configuration {
    uint64_t uncommitted_bytes_max; /* R10; the group's constant */
    uint32_t level;                 /* enum durability_level */
    /* M1: of exactly-once sessions; the group's constants, so that all replicas decide alike. */
    uint32_t session_window, sessions_max, session_replies_bytes, session_expiry_ms;
    uint32_t member_count;
    struct configuration_member members[RAFT_MEMBERS_MAX];
};

/* The configuration of the block at this index. */
struct storage_configuration {
    raft_index index;
    struct configuration configuration;
};

/* What every configuration keeps: 1 to RAFT_MEMBERS_MAX members with different ids other than 0 and known roles; a voter
 * before the change and one after it; names and addresses are printable and not empty; the level is known. Names may
 * repeat: a replaced node and its replacement bear the same. */
bool configuration_valid(const struct configuration *configuration);
bool configuration_is_joint(const struct configuration *configuration);

/* The member with this id; NULL = none. */
const struct configuration_member *configuration_find(const struct configuration *configuration, raft_member id);

enum {
    CONFIGURATION_BYTES_MIN = 48 + 16 + 64 + 272 + 272,
    CONFIGURATION_BYTES_MAX = 48 + RAFT_MEMBERS_MAX * (16 + 64 + 272 + 272),
};
/* As bytes: little-endian, versioned, checksummed, a multiple of 8 long. lk_asserts that it is valid. */
uint32_t configuration_write(const struct configuration *configuration, uint8_t to[CONFIGURATION_BYTES_MAX]);
/* ECORRUPT: damaged, or no valid configuration; EVERSION: of a newer version. */
int configuration_read(const uint8_t *at, uint64_t bytes, struct configuration *ret);
/* The version of one for which configuration_read says EVERSION. */
uint32_t configuration_version(const uint8_t *at);

#endif
