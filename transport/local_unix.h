/* SPDX-License-Identifier: Apache-2.0 */
/* local_unix.h - the real door to the processes of this host: Unix sockets. Thread: loop. See local_link.h. */
#ifndef LOCKSTEP_TRANSPORT_LOCAL_UNIX_H
#define LOCKSTEP_TRANSPORT_LOCAL_UNIX_H

#include <uv.h>

#include "transport/local_link.h"

/* Allocates; nothing is listened on yet. ENOMEM. Closed by its ops' close, after which the loop has to run until its
 * handles are closed. */
int local_unix_open(uv_loop_t *loop, struct local_link **ret);

#endif
