/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_message.h - messages in a stream of bytes, and back: what both gRPC codecs do inside one call.
 * Thread: the codec's. Owns: the pieces of the pool that a message under way lies in.
 * 1  DATA frames' borders mean nothing: a message may come in any number of pieces, many may come in one.
 * 2  A length is checked before anything is allocated for it, and memory grows with the bytes that have come, never
 *    with the bytes that were announced.
 * 3  A message that lies whole in the bytes at hand is delivered where it lies: no copy. */
#ifndef LOCKSTEP_PROTO_GRPC_MESSAGE_H
#define LOCKSTEP_PROTO_GRPC_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/grpc.h"
#include "proto/pool.h"

/* The message that is coming in. All zero = empty. */
struct grpc_inbox {
    uint8_t prefix[GRPC_PREFIX_BYTES];
    uint8_t prefix_bytes; /* of the prefix that have come */
    bool delivered;       /* bytes holds a message that was delivered: given back before the next one */
    uint32_t length;      /* announced by the prefix */
    uint8_t *bytes;       /* NULL, or what has come of the message */
    size_t held, room;
};

/* Take bytes from *at, moving *at and *n on, until a message is complete or nothing is left.
 * ret       1: *message, *message_bytes are valid until the next call or until *at's memory dies -> call again;
 *           0: all is taken, the message goes on in later bytes
 * Errors    LOCKSTEP_ETOOBIG: longer than message_bytes_max; LOCKSTEP_EINVAL: flags, inbox->prefix[0] says which
 *           (1 = compressed); LOCKSTEP_ENOMEM: the budget is spent. After an error no more bytes are taken. */
int grpc_inbox_next(struct grpc_inbox *inbox, struct pool_budget *budget, size_t message_bytes_max, const uint8_t **at,
                    size_t *n, const uint8_t **message, size_t *message_bytes);

/* Length of the message under way, prefix included; 0 = none, or its length is not known yet. */
size_t grpc_inbox_expected(const struct grpc_inbox *inbox);
/* True between two messages: the only place where a stream may end. */
bool grpc_inbox_idle(const struct grpc_inbox *inbox);
void grpc_inbox_close(struct grpc_inbox *inbox, struct pool_budget *budget);

struct grpc_chunk;

/* Messages that wait to be sent, as one run of bytes. All zero = empty. */
struct grpc_outbox {
    struct grpc_chunk *first, *last;
    size_t bytes; /* that wait, prefixes included */
};

/* Room for one message of at most bytes_max; nothing waits until the commit. Errors  LOCKSTEP_ENOMEM. */
int grpc_outbox_claim(struct grpc_outbox *outbox, struct pool_budget *budget, size_t bytes_max, uint8_t **ret);
void grpc_outbox_commit(struct grpc_outbox *outbox, size_t bytes);
/* Move up to room bytes out. */
size_t grpc_outbox_read(struct grpc_outbox *outbox, struct pool_budget *budget, uint8_t *to, size_t room);
void grpc_outbox_close(struct grpc_outbox *outbox, struct pool_budget *budget);

#endif
