/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_session.h - what both gRPC codecs need around nghttp2: memory from a budget, the pull side, metadata.
 * For grpc_server.c and grpc_client.c alone. Thread: the codec's. */
#ifndef LOCKSTEP_PROTO_GRPC_SESSION_H
#define LOCKSTEP_PROTO_GRPC_SESSION_H

#include <nghttp2/nghttp2.h>

#include "proto/grpc.h"
#include "proto/grpc_message.h"
#include "proto/pool.h"

/* Credit for the whole connection; it goes back as bytes come in, so it only has to cover what is on the way. */
enum { GRPC_CONNECTION_WINDOW_BYTES = 4 << 20 };

/* nghttp2's allocator on a budget, which must outlive the session. */
nghttp2_mem grpc_session_memory(struct pool_budget *budget);

/* Bytes that nghttp2 made and that did not fit the last time; valid until its next call. */
struct grpc_rest {
    const uint8_t *at;
    size_t bytes;
};

/* Fill up to room bytes of to; *ret_failed is set when the session is of no more use. */
size_t grpc_session_send(nghttp2_session *session, struct grpc_rest *rest, uint8_t *to, size_t room, bool *ret_failed);

/* Widen the stream's window, *window bytes of credit, for the message that comes: nghttp2 announces credit when half of a
 * window is used up, so a message must fit into the other half. Nonzero: nghttp2 has no memory for it. */
int grpc_session_window_fits(nghttp2_session *session, int32_t stream, const struct grpc_inbox *inbox, size_t *window);

/* Names and values, copied, bounded. */
struct grpc_pairs {
    size_t count, bytes;
    struct grpc_pair pair[GRPC_PAIRS_MAX + 1];                            /* a status message, and the owner's */
    char text[GRPC_STATUS_MESSAGE_BYTES_MAX + GRPC_PAIRS_BYTES_MAX + 16]; /* in all: one piece of 1 KiB */
};

void grpc_pairs_init(struct grpc_pairs *pairs);
void grpc_pairs_copy(struct grpc_pairs *to, const struct grpc_pairs *from);
/* Add a pair; one that does not fit is left out. */
void grpc_pairs_add(struct grpc_pairs *pairs, struct grpc_text name, struct grpc_text value);
/* Add grpc-message, percent-encoded. */
void grpc_pairs_add_message(struct grpc_pairs *pairs, struct grpc_text message);
/* Only what lockstep itself says travels beyond the codec. */
bool grpc_pairs_wanted(struct grpc_text name);

/* A header of static text: nghttp2 keeps the pointers. */
nghttp2_nv grpc_nv_static(const char *name, const char *value);
/* A header of text that may change after the submit: nghttp2 copies it. */
nghttp2_nv grpc_nv_copied(struct grpc_text name, struct grpc_text value);

/* "0" to "16"; static. */
const char *grpc_status_text(enum grpc_status status);

#endif
