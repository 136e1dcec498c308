/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h - a filter in front of another transport that loses, delays, repeats or cuts frames, for tests.
 * Thread: loop. Delayed frames are copied to the heap: this is the one transport that allocates while it runs.
 *
 * Rules, one a line or separated by ';', later ones win where they overlap, '#' begins a comment:
 *     peer=n2, dir=out, delay=50ms        what this node sends to n2 arrives 50 ms later, in order
 *     loss=1%, duplicate=2%               all peers, both directions: the usual meaning of a left-out peer= and dir=
 *     peer=n3, cut                        nothing passes to or from n3
 *     peer=n3, dir=in, cut                only what comes from n3 is lost
 *     peer=n2, none                       n2 without faults
 * Each rule replaces the whole behaviour of the directions that it names. Percentages are whole numbers or have up to
 * three digits behind the point.
 * "@FILE" instead of rules names a file of them, looked at every 20 ms and read again when it has changed (write a new
 * one and rename it). A file that is missing means no faults; one with an error is reported and changes nothing. */
#ifndef LOCKSTEP_TRANSPORT_FAULT_H
#define LOCKSTEP_TRANSPORT_FAULT_H

#include <uv.h>

#include "transport/transport.h"

enum { FAULT_RULES_BYTES_MAX = 4096, FAULT_HELD_BYTES_MAX = 256 << 20 /* of one direction of one peer */ };

struct fault_options {
    uv_loop_t *loop;
    struct transport_owner owner; /* the same as the inner transport's */
    struct transport *inner;      /* closed with this one */
    unsigned peer_count;
    const char *peers[RAFT_MEMBERS_MAX]; /* names by slot; copied */
    const char *rules;                   /* or "@FILE" */
    uint64_t seed;
    /* Rules were read, or could not be. A line for people. */
    void *report_context;
    void (*report)(void *context, const char *text);
};

/* EINVAL: why names the rule · ENOMEM. On error inner stays the caller's. */
int fault_open(const struct fault_options *options, struct transport **ret, char *why, size_t why_room);

#endif
