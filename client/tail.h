/* SPDX-License-Identifier: Apache-2.0 */
/* tail.h - what tests of tail.c need beside the installed header. Thread: the owner's. */
#ifndef LOCKSTEP_CLIENT_TAIL_H
#define LOCKSTEP_CLIENT_TAIL_H

#include "base/ids.h"
#include "lockstep/client.h"

/* As lockstep_tail_open(), of a node whose ids are known: its client port is not asked for them. */
int tail_open_member(const struct lockstep_tail_options *options, uint64_t cluster_id, raft_member member_id,
                     struct lockstep_tail **ret, char *why, size_t why_room);

#endif
