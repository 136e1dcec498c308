/* SPDX-License-Identifier: Apache-2.0 */
/* resolve.c - see resolve.h.
 * Thread: the owner's, and one a lookup. Owns: the lookup, held by both of them. */
#include "client/resolve.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct lookup {
    _Atomic int holders;
    _Atomic bool done; /* release: pairs with the acquire in lookup_done(); rc and list before it */
    int fd, rc;
    struct addrinfo *list;
    char host[256], port[8];
};

static int ask(const char *host, const char *port, int flags, struct addrinfo **ret)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    return getaddrinfo(host, port, &hints, ret);
}

struct addrinfo *resolve_numeric(const char *host, const char *port)
{
    struct addrinfo *list;
    return ask(host, port, AI_NUMERICHOST, &list) == 0 ? list : NULL;
}

void lookup_drop(struct lookup *lookup)
{
    /* acq_rel: what the other holder did comes before the free */
    if (lookup == NULL || atomic_fetch_sub_explicit(&lookup->holders, 1, memory_order_acq_rel) > 1) return;
    if (lookup->list != NULL) freeaddrinfo(lookup->list);
    close(lookup->fd);
    free(lookup);
}

static void *run(void *argument)
{
    struct lookup *lookup = argument;
    lookup->rc = ask(lookup->host, lookup->port, 0, &lookup->list);
    if (lookup->rc != 0) lookup->list = NULL;
    atomic_store_explicit(&lookup->done, true, memory_order_release);
    (void)eventfd_write(lookup->fd, 1);
    lookup_drop(lookup);
    return NULL;
}

int lookup_start(const char *host, const char *port, struct lookup **ret)
{
    struct lookup *lookup = calloc(1, sizeof *lookup);
    if (lookup == NULL) return ENOMEM;
    atomic_init(&lookup->holders, 2);
    snprintf(lookup->host, sizeof lookup->host, "%s", host);
    snprintf(lookup->port, sizeof lookup->port, "%s", port);
    lookup->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (lookup->fd < 0) {
        int cause = errno;
        free(lookup);
        return cause;
    }
    /* The program's signals are its own threads' affair. */
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, NULL, run, lookup);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        close(lookup->fd);
        free(lookup);
        return rc;
    }
    pthread_detach(thread);
    *ret = lookup;
    return 0;
}

int lookup_fd(const struct lookup *lookup)
{
    return lookup->fd;
}

bool lookup_done(const struct lookup *lookup)
{
    return atomic_load_explicit(&lookup->done, memory_order_acquire);
}

int lookup_result(const struct lookup *lookup, const struct addrinfo **ret)
{
    *ret = lookup->list;
    return lookup->rc;
}
