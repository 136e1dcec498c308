/* SPDX-License-Identifier: Apache-2.0 */
/* http1.c - parse one request: request line, header lines, body. */
#include "proto/http1.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum sniff proto_sniff(const uint8_t *bytes, size_t n)
{
    size_t length = sizeof PREFACE - 1;
    if (n > 0 && memcmp(bytes, PREFACE, n < length ? n : length) != 0) return SNIFF_HTTP1;
    return n < length ? SNIFF_MORE : SNIFF_HTTP2;
}

struct text {
    const char *at;
    size_t bytes;
};

static bool is(struct text text, const char *expected)
{
    return text.bytes == strlen(expected) && memcmp(text.at, expected, text.bytes) == 0;
}

/* Header names and the words of Connection do not tell upper from lower case. */
static bool is_word(struct text text, const char *expected)
{
    return text.bytes == strlen(expected) && strncasecmp(text.at, expected, text.bytes) == 0;
}

static bool is_token_char(char c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) return true;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_token(struct text text)
{
    for (size_t i = 0; i < text.bytes; i++)
        if (!is_token_char(text.at[i])) return false;
    return text.bytes > 0;
}

/* Printable, tab, and bytes of other character sets; above all no CR, LF or NUL. */
static bool is_value(struct text text)
{
    for (size_t i = 0; i < text.bytes; i++) {
        uint8_t byte = (uint8_t)text.at[i];
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) return false;
    }
    return true;
}

/* Split text at the first c: what is before it is returned, text moves behind it. false: there is no c. */
static bool split(struct text *text, char c, struct text *ret)
{
    const char *found = memchr(text->at, c, text->bytes);
    if (found == NULL) return false;
    *ret = (struct text){text->at, (size_t)(found - text->at)};
    text->bytes -= ret->bytes + 1;
    text->at = found + 1;
    return true;
}

static struct text trimmed(struct text text)
{
    while (text.bytes > 0 && (text.at[0] == ' ' || text.at[0] == '\t')) {
        text.at++;
        text.bytes--;
    }
    while (text.bytes > 0 && (text.at[text.bytes - 1] == ' ' || text.at[text.bytes - 1] == '\t')) text.bytes--;
    return text;
}

/* The next line of the head, which ends with CR LF; a CR or LF elsewhere is found by the checks of what is in it. */
static bool take_line(struct text *head, struct text *ret)
{
    if (!split(head, '\n', ret)) return false;
    if (ret->bytes == 0 || ret->at[ret->bytes - 1] != '\r') return false;
    ret->bytes--;
    return true;
}

/* What the header lines say, as far as it matters here. */
struct head {
    int minor; /* of HTTP/1.x */
    unsigned hosts, lengths;
    bool close, keep_alive, encoded, expects;
    size_t length;
};

static int parse_request_line(struct text line, struct head *head, struct http1_request *ret)
{
    struct text method, target;
    if (!split(&line, ' ', &method) || !split(&line, ' ', &target)) return 400;
    if (!is_token(method)) return 400;
    if (line.bytes != 8 || memcmp(line.at, "HTTP/", 5) != 0 || line.at[6] != '.') return 400;
    if (line.at[5] < '0' || line.at[5] > '9' || line.at[7] < '0' || line.at[7] > '9') return 400;
    if (line.at[5] != '1') return 505;
    head->minor = line.at[7] - '0';
    if (target.bytes == 0 || target.at[0] != '/') return 400;
    for (size_t i = 0; i < target.bytes; i++)
        if ((uint8_t)target.at[i] <= 0x20 || (uint8_t)target.at[i] >= 0x7f) return 400;
    if (is(method, "GET"))
        ret->method = HTTP1_GET;
    else if (is(method, "HEAD"))
        ret->method = HTTP1_HEAD;
    else if (is(method, "POST"))
        ret->method = HTTP1_POST;
    else
        return 501;
    const char *question = memchr(target.at, '?', target.bytes);
    ret->path = target.at;
    ret->path_bytes = question == NULL ? target.bytes : (size_t)(question - target.at);
    return 0;
}

static int parse_length(struct text value, struct head *head)
{
    if (value.bytes == 0) return 400;
    size_t length = 0;
    for (size_t i = 0; i < value.bytes; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') return 400;
        if (length <= HTTP1_BODY_BYTES_MAX) length = length * 10 + (size_t)(value.at[i] - '0');
    }
    head->length = length;
    head->lengths++;
    return 0;
}

static void parse_connection(struct text value, struct head *head)
{
    struct text word;
    for (bool more = true; more;) {
        more = split(&value, ',', &word);
        word = trimmed(more ? word : value);
        if (is_word(word, "close")) head->close = true;
        if (is_word(word, "keep-alive")) head->keep_alive = true;
    }
}

static int parse_header(struct text line, struct head *head)
{
    struct text name;
    if (!split(&line, ':', &name)) return 400;
    if (!is_token(name)) return 400; /* a folded line and a space before the colon end here */
    struct text value = trimmed(line);
    if (!is_value(value)) return 400;
    if (is_word(name, "content-length")) return parse_length(value, head);
    if (is_word(name, "connection"))
        parse_connection(value, head);
    else if (is_word(name, "host"))
        head->hosts++;
    else if (is_word(name, "transfer-encoding"))
        head->encoded = true;
    else if (is_word(name, "expect"))
        head->expects = true;
    return 0;
}

static int check_head(const struct head *head, enum http1_method method)
{
    if (head->hosts > 1 || (head->hosts == 0 && head->minor > 0)) return 400;
    if (head->lengths > 1 || (head->lengths > 0 && head->encoded)) return 400;
    if (head->encoded) return 501;
    if (head->expects) return 417;
    if (method == HTTP1_POST && head->lengths == 0) return 411;
    if (head->length > HTTP1_BODY_BYTES_MAX) return 413;
    return 0;
}

int http1_parse(const uint8_t *bytes, size_t n, struct http1_request *ret, size_t *used)
{
    struct head head = {0};
    struct http1_request request = {0};
    struct text line, rest = {(const char *)bytes, n < HTTP1_HEAD_BYTES_MAX ? n : HTTP1_HEAD_BYTES_MAX};
    const char *end = rest.bytes > 0 ? memmem(rest.at, rest.bytes, "\r\n\r\n", 4) : NULL;
    if (end == NULL) {
        /* Say early that this is not HTTP: garbage need not fill the buffer to be refused. */
        if (n > 0 && !is_token_char(rest.at[0])) return 400;
        return n >= HTTP1_HEAD_BYTES_MAX ? 431 : 0;
    }
    rest.bytes = (size_t)(end - rest.at) + 2;
    size_t head_bytes = rest.bytes + 2;
    if (!take_line(&rest, &line)) return 400;
    int status = parse_request_line(line, &head, &request);
    while (status == 0 && rest.bytes > 0) status = take_line(&rest, &line) ? parse_header(line, &head) : 400;
    if (status == 0) status = check_head(&head, request.method);
    if (status != 0) return status;
    if (n - head_bytes < head.length) return 0;
    request.body = bytes + head_bytes;
    request.body_bytes = head.length;
    request.keep_alive = !head.close && (head.minor > 0 || head.keep_alive);
    *ret = request;
    *used = head_bytes + head.length;
    return 200;
}

const char *http1_reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 417: return "Expectation Failed";
    case 431: return "Request Header Fields Too Large";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Unknown";
    }
}

size_t http1_response_head(char *to, int status, const char *content_type, size_t body_bytes, bool keep_alive)
{
    int used = snprintf(to, HTTP1_RESPONSE_HEAD_BYTES_MAX,
                        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n", status,
                        http1_reason(status), content_type, body_bytes, keep_alive ? "" : "Connection: close\r\n");
    lk_assert(used > 0);
    lk_assert(used < HTTP1_RESPONSE_HEAD_BYTES_MAX);
    return (size_t)used;
}
