/* SPDX-License-Identifier: Apache-2.0 */
/* grpc.h - facts that both sides of gRPC over HTTP/2 share: status codes, metadata, the text forms of messages and
 * timeouts. Pure functions; any thread.
 * Source: the gRPC project's PROTOCOL-HTTP2 document and statuscodes document. */
#ifndef LOCKSTEP_PROTO_GRPC_H
#define LOCKSTEP_PROTO_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
};

enum {
    GRPC_PREFIX_BYTES = 5,               /* one flag byte (1 = compressed), four bytes of length, big-endian */
    GRPC_HEADER_LIST_BYTES_MAX = 8192,   /* names, values and 32 bytes an entry, as HTTP/2 counts them */
    GRPC_STATUS_MESSAGE_BYTES_MAX = 384, /* a longer grpc-message is cut, after percent-encoding */
    GRPC_PAIRS_MAX = 4,                  /* metadata that is kept or sent, a call */
    GRPC_PAIRS_BYTES_MAX = 432,          /* of names and values together */
};

/* A piece of somebody else's text, not terminated. */
struct grpc_text {
    const char *at;
    size_t bytes;
};

/* One name and value of metadata; names are lower case. */
struct grpc_pair {
    struct grpc_text name;
    struct grpc_text value;
};

struct grpc_text grpc_text(const char *terminated);
bool grpc_text_equals(struct grpc_text text, const char *terminated);

/* "UNAVAILABLE" for 14; "status 99" does not exist: "UNKNOWN" for every code that is not in the list. */
const char *grpc_status_name(int status);

/* Percent-encode text for grpc-message: all but printable ASCII and '%' itself. (grpc-js drops a whole message that
 * holds a raw UTF-8 byte.) A text that does not fit is cut between two characters of the output.
 * ret  room bytes; ret  the bytes written */
size_t grpc_percent_encode(struct grpc_text text, char *to, size_t room);

/* The inverse; a '%' without two hex digits behind it stands for itself. to may be text.at. ret the bytes written, never more
 * than text.bytes or room. */
size_t grpc_percent_decode(struct grpc_text text, char *to, size_t room);

enum { GRPC_TIMEOUT_TEXT_BYTES_MAX = 10 };

/* grpc-timeout: 1 to 8 digits and a unit out of H M S m u n. ret 0 or LOCKSTEP_EINVAL, *ret untouched then. */
int grpc_timeout_parse(struct grpc_text text, uint64_t *ret_ns);

/* The shortest exact-or-rounded-up form; ret the bytes written, at most GRPC_TIMEOUT_TEXT_BYTES_MAX, no terminator. */
size_t grpc_timeout_format(uint64_t ns, char *to);

/* A status for a response without grpc-status, from its HTTP status (the document's table). */
enum grpc_status grpc_status_of_http(int http_status);

#endif
