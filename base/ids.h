/* SPDX-License-Identifier: Apache-2.0 */
/* ids.h - the numbers that every part speaks of.
 * An index counts blocks, a position counts commands, a ring position counts bytes: three kinds, three names. */
#ifndef LOCKSTEP_BASE_IDS_H
#define LOCKSTEP_BASE_IDS_H

#include <stdint.h>

typedef uint64_t raft_index;   /* a block's place in the log, from 1; 0 = before the first */
typedef uint64_t raft_term;    /* 0 = before the first election */
typedef uint64_t raft_member;  /* 64 random bits born with a data directory, never reused; 0 = nobody */
typedef uint64_t log_position; /* a command's place in the log, from 1 */
typedef uint64_t ring_pos;     /* bytes ever claimed in a ring before this place; never falls within a process */

enum { RAFT_MEMBERS_MAX = 16 }; /* learners included */

#endif
