/* SPDX-License-Identifier: Apache-2.0 */
/* http1.h - the little HTTP/1.1 that a client port needs beside gRPC: GET, HEAD and POST with Content-Length, for
 * /metrics and the probes. Pure; any thread. The parser keeps nothing: it is given all bytes of a request that have come.
 * Strict about what lets two parsers see different requests (smuggling): a bare CR or LF, a folded line, white space
 * before the colon, two Content-Length or Host lines, Transfer-Encoding: all refused, and the connection closed.
 * Source: RFC 9112, section 11.2 of it above all. */
#ifndef LOCKSTEP_PROTO_HTTP1_H
#define LOCKSTEP_PROTO_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP1_HEAD_BYTES_MAX = 8192, HTTP1_BODY_BYTES_MAX = 65536, HTTP1_RESPONSE_HEAD_BYTES_MAX = 256 };

enum sniff { SNIFF_MORE, SNIFF_HTTP1, SNIFF_HTTP2 };

/* What a connection speaks, from its first bytes: SNIFF_MORE while they are a beginning of the HTTP/2 preface, which is
 * 24 bytes long. What is neither is HTTP/1.1, whose parser refuses it in words. */
enum sniff proto_sniff(const uint8_t *bytes, size_t n);

enum http1_method { HTTP1_GET, HTTP1_HEAD, HTTP1_POST };

/* Views of the parsed bytes. */
struct http1_request {
    enum http1_method method;
    const char *path; /* begins with '/'; not terminated; without what follows a '?' */
    size_t path_bytes;
    const uint8_t *body;
    size_t body_bytes;
    bool keep_alive;
};

/* Parse the first request in bytes.
 * ret  0: incomplete, call again with more behind it (at most HTTP1_HEAD_BYTES_MAX + HTTP1_BODY_BYTES_MAX are ever
 *      wanted); 200: *ret, *used are filled; otherwise the status of a refusal: answer it, then close, for where the
 *      next request begins is not known */
int http1_parse(const uint8_t *bytes, size_t n, struct http1_request *ret, size_t *used);

/* The head of a response; its body follows unless it was a HEAD request.
 * to  HTTP1_RESPONSE_HEAD_BYTES_MAX bytes; ret  how many were written */
size_t http1_response_head(char *to, int status, const char *content_type, size_t body_bytes, bool keep_alive);

/* "Not Found"; static, never NULL. */
const char *http1_reason(int status);

#endif
