/* SPDX-License-Identifier: Apache-2.0 */
/* tcp.h - peers over TCP. Thread: loop.
 * Each node dials every other one and sends on what it dialled; it receives on what it accepted. */
#ifndef LOCKSTEP_TRANSPORT_TCP_H
#define LOCKSTEP_TRANSPORT_TCP_H

#include <uv.h>

#include "transport/transport.h"

struct tcp_options {
    uv_loop_t *loop;
    struct transport_owner owner;
    struct transport_hello hello; /* what we say of ourselves; transport_ops.hello_set changes it */
    unsigned self;                /* our slot: nobody is dialled for it */
    unsigned peer_count;          /* slots given here; transport_ops.peer_set changes them, and gives more */
    struct {
        const char *name;      /* as its hello says; "" = the slot is free */
        const char *address;   /* HOST:PORT, or [IPV6]:PORT; resolved at every attempt to connect; "" = not dialled */
    } peers[RAFT_MEMBERS_MAX]; /* strings are copied */
    const char *listen;        /* HOST:PORT to bind */
    uint64_t queued_bytes_max; /* ring and memory blocks waiting for one peer */
};

/* Bind, listen, and begin to dial. Blocks while the listen address is resolved: before the loop runs. Allocates.
 * why     filled on error with a sentence for people
 * Errors  EINVAL: an address that cannot be read or resolved; EEXIST: in use; EIO: other refusals of the system; ENOMEM
 * ret     closed by its ops' close, after which the loop has to run until its handles are closed; close calls nobody
 *         back and touches no ring, so that the node may be gone already. */
int tcp_open(const struct tcp_options *options, struct transport **ret, char *why, size_t why_room);

/* Split HOST:PORT or [IPV6]:PORT. False: not of this form, port 0..65535 as decimal digits. */
bool tcp_address_split(const char *address, char host[256], char port[8]);

#endif
