/* SPDX-License-Identifier: Apache-2.0 */
/* test_http1.c - what the HTTP/1.1 parser takes, and what it refuses with which status. Source: RFC 9112. */
#include <stdlib.h>
#include <string.h>

#include "proto/http1.h"
#include "tests/support/unit.h"

static struct http1_request request;
static size_t used;

static int parse(const char *text)
{
    return http1_parse((const uint8_t *)text, strlen(text), &request, &used);
}

#define HOST "Host: a\r\n"

START_TEST(a_request_is_parsed)
{
    const char *text =
        "GET /metrics?x=1 HTTP/1.1\r\nhost: 127.0.0.1:7401\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
    ck_assert_int_eq(parse(text), 200);
    ck_assert_int_eq((int)request.method, HTTP1_GET);
    ck_assert_uint_eq(request.path_bytes, 8);
    ck_assert_mem_eq(request.path, "/metrics", 8);
    ck_assert(request.keep_alive);
    ck_assert_uint_eq(request.body_bytes, 0);
    ck_assert_uint_eq(used, strlen(text));
    ck_assert_int_eq(parse("HEAD / HTTP/1.1\r\n" HOST "\r\n"), 200);
    ck_assert_int_eq((int)request.method, HTTP1_HEAD);
}
END_TEST

START_TEST(every_beginning_of_a_request_is_incomplete)
{
    const char *text = "POST /x HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello";
    for (size_t n = 0; n < strlen(text); n++)
        ck_assert_int_eq(http1_parse((const uint8_t *)text, n, &request, &used), 0);
    ck_assert_int_eq(parse(text), 200);
    ck_assert_int_eq((int)request.method, HTTP1_POST);
    ck_assert_uint_eq(request.body_bytes, 5);
    ck_assert_mem_eq(request.body, "hello", 5);
}
END_TEST

START_TEST(pipelined_requests_are_taken_one_by_one)
{
    const char *text = "GET /a HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n" HOST "\r\n";
    ck_assert_int_eq(parse(text), 200);
    ck_assert_mem_eq(request.path, "/a", 2);
    ck_assert_uint_eq(used, strlen(text) / 2);
    ck_assert_int_eq(parse(text + used), 200);
    ck_assert_mem_eq(request.path, "/b", 2);
}
END_TEST

START_TEST(keep_alive_is_as_the_version_and_the_connection_header_say)
{
    ck_assert_int_eq(parse("GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n"), 200);
    ck_assert(!request.keep_alive);
    ck_assert_int_eq(parse("GET / HTTP/1.1\r\n" HOST "Connection: TE, Close\r\n\r\n"), 200);
    ck_assert(!request.keep_alive);
    ck_assert_int_eq(parse("GET / HTTP/1.0\r\n\r\n"), 200);
    ck_assert(!request.keep_alive);
    ck_assert_int_eq(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), 200);
    ck_assert(request.keep_alive);
}
END_TEST

static const struct {
    const char *text;
    int status;
} refused[] = {
    {"\x16\x03\x01\x02\x01", 400}, /* a TLS client */
    {" GET / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.1\n" HOST "\n\r\n\r\n", 400}, /* bare LF */
    {"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400},      /* bare CR */
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", 400}, /* a folded line */
    {"GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n", 400},      /* space before the colon */
    {"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: \x01\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n\r\n", 400},              /* no Host */
    {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400}, /* two */
    {"GET  / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.1 \r\n" HOST "\r\n", 400},
    {"GET /\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.x\r\n" HOST "\r\n", 400},
    {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
    {"GET http://a/ HTTP/1.1\r\n" HOST "\r\n", 400}, /* a proxy's form */
    {"GET /\x80 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"DELETE / HTTP/1.1\r\n" HOST "\r\n", 501},
    {"G@T / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "\r\n", 411},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\na", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\na", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\na", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\na", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\na", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 65537\r\n\r\n", 413},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551617\r\n\r\na", 413}, /* 2^64 + 1 */
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nExpect: 100-continue\r\n\r\n", 417},
};

START_TEST(what_two_parsers_could_see_differently_is_refused)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        ck_assert_msg(parse(refused[i].text) == refused[i].status, "%s", refused[i].text);
    ck_assert_int_eq(http1_parse((const uint8_t *)"GET /\0 HTTP/1.1\r\n" HOST "\r\n", 28, &request, &used), 400);
}
END_TEST

START_TEST(a_head_over_8_KiB_is_refused_without_waiting_for_its_end)
{
    char *text = malloc(HTTP1_HEAD_BYTES_MAX);
    ck_assert_ptr_nonnull(text);
    memset(text, 'a', HTTP1_HEAD_BYTES_MAX);
    ck_assert_int_eq(http1_parse((uint8_t *)text, HTTP1_HEAD_BYTES_MAX - 1, &request, &used), 0);
    ck_assert_int_eq(http1_parse((uint8_t *)text, HTTP1_HEAD_BYTES_MAX, &request, &used), 431);
    free(text);
}
END_TEST

START_TEST(a_connection_is_told_by_its_first_bytes)
{
    const char *preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (size_t n = 0; n < 24; n++) ck_assert_int_eq((int)proto_sniff((const uint8_t *)preface, n), SNIFF_MORE);
    ck_assert_int_eq((int)proto_sniff((const uint8_t *)preface, 24), SNIFF_HTTP2);
    ck_assert_int_eq((int)proto_sniff((const uint8_t *)"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", 28), SNIFF_HTTP2);
    ck_assert_int_eq((int)proto_sniff((const uint8_t *)"P", 1), SNIFF_MORE);
    ck_assert_int_eq((int)proto_sniff((const uint8_t *)"PO", 2), SNIFF_HTTP1);
    ck_assert_int_eq((int)proto_sniff((const uint8_t *)"\x16", 1), SNIFF_HTTP1);
}
END_TEST

START_TEST(a_response_head_is_written)
{
    char head[HTTP1_RESPONSE_HEAD_BYTES_MAX];
    size_t n = http1_response_head(head, 404, "text/plain", 3, false);
    const char *expected = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
                           "Connection: close\r\n\r\n";
    ck_assert_uint_eq(n, strlen(expected));
    ck_assert_mem_eq(head, expected, n);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_request_is_parsed);
    tcase_add_test(tests, every_beginning_of_a_request_is_incomplete);
    tcase_add_test(tests, pipelined_requests_are_taken_one_by_one);
    tcase_add_test(tests, keep_alive_is_as_the_version_and_the_connection_header_say);
    tcase_add_test(tests, what_two_parsers_could_see_differently_is_refused);
    tcase_add_test(tests, a_head_over_8_KiB_is_refused_without_waiting_for_its_end);
    tcase_add_test(tests, a_connection_is_told_by_its_first_bytes);
    tcase_add_test(tests, a_response_head_is_written);
}

int main(void)
{
    return unit_main("http1", add);
}
