/* SPDX-License-Identifier: Apache-2.0 */
/* local.h - a filter in front of another transport: peers on the same host follow through shared memory. Thread: loop.
 * What cannot go that way goes through the transport beneath; Raft sees the same messages, or sees them lost, late or
 * twice, as on any wire. */
#ifndef LOCKSTEP_TRANSPORT_LOCAL_H
#define LOCKSTEP_TRANSPORT_LOCAL_H

#include "transport/local_link.h"
#include "transport/transport.h"

enum { LOCAL_LOOK_MS = 50, LOCAL_RETRY_MS = 1000 };

struct local_options {
    struct transport_owner owner; /* the same as the inner transport's */
    struct transport *inner;      /* closed with this one */
    struct local_link *link;      /* likewise */
    struct transport_hello hello; /* as the inner transport's at its opening */
    unsigned self;
    uint64_t spin_ns; /* so long it looks at the memory before it sleeps; 0 = not at all */
    /* Something worth knowing; a line for people. */
    void *report_context;
    void (*report)(void *context, const char *text);
};

/* Allocates: a buffer for one block, and for each peer that it follows a mapping of that peer's ring. ENOMEM: inner and link
 * stay the caller's. */
int local_open(const struct local_options *options, struct transport **ret);

#endif
