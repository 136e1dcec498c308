/* SPDX-License-Identifier: Apache-2.0 */
/* resolve.h - a name becomes addresses without holding up the owner's thread.
 * getaddrinfo() may wait for a name server for as long as that likes; so it runs in a thread of its own, which lives for
 * one lookup and touches nothing but that lookup. Who asked may stop to care at any time: the last of both frees it.
 * Thread: the owner's. Source: libcurl's threaded resolver. */
#ifndef LOCKSTEP_CLIENT_RESOLVE_H
#define LOCKSTEP_CLIENT_RESOLVE_H

#include <netdb.h>
#include <stdbool.h>

struct lookup;

/* HOST is numeric: its address now, no thread. NULL: it is a name. Freed by freeaddrinfo. */
struct addrinfo *resolve_numeric(const char *host, const char *port);

/* Begin to resolve. Allocates; 0, or an errno. */
int lookup_start(const char *host, const char *port, struct lookup **ret);
/* Readable once it is done. Closed by lookup_drop at the earliest. */
int lookup_fd(const struct lookup *lookup);
bool lookup_done(const struct lookup *lookup);
/* Done: 0 and the addresses, which live as long as the lookup; or what getaddrinfo said. */
int lookup_result(const struct lookup *lookup, const struct addrinfo **ret);
void lookup_drop(struct lookup *lookup); /* done or not; takes NULL */

#endif
