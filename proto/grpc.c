/* SPDX-License-Identifier: Apache-2.0 */
/* grpc.c - the text forms of gRPC. */
#include "proto/grpc.h"

#include <string.h>

#include "lockstep/errors.h"

struct grpc_text grpc_text(const char *terminated)
{
    return (struct grpc_text){terminated, strlen(terminated)};
}

bool grpc_text_equals(struct grpc_text text, const char *terminated)
{
    size_t bytes = strlen(terminated);
    return text.bytes == bytes && (bytes == 0 || memcmp(text.at, terminated, bytes) == 0);
}

const char *grpc_status_name(int status)
{
    static const char *const names[] = {
        "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED",
    };
    if (status < 0 || status >= (int)(sizeof names / sizeof names[0])) return "UNKNOWN";
    return names[status];
}

size_t grpc_percent_encode(struct grpc_text text, char *to, size_t room)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t used = 0;
    for (size_t i = 0; i < text.bytes; i++) {
        uint8_t byte = (uint8_t)text.at[i];
        if (byte >= 0x20 && byte <= 0x7e && byte != '%') {
            if (room - used < 1) break;
            to[used++] = (char)byte;
        } else {
            if (room - used < 3) break;
            to[used++] = '%';
            to[used++] = hex[byte >> 4];
            to[used++] = hex[byte & 15];
        }
    }
    return used;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

size_t grpc_percent_decode(struct grpc_text text, char *to, size_t room)
{
    size_t used = 0;
    for (size_t i = 0; i < text.bytes && used < room; i++) {
        int high = -1, low = -1;
        if (text.at[i] == '%' && text.bytes - i > 2) {
            high = hex_digit(text.at[i + 1]);
            low = hex_digit(text.at[i + 2]);
        }
        if (high >= 0 && low >= 0) {
            to[used++] = (char)(uint8_t)(high << 4 | low);
            i += 2;
        } else {
            to[used++] = text.at[i];
        }
    }
    return used;
}

/* From the largest to the smallest. Eight digits of hours, 1.1e4 years, are more than 64 bits of ns hold. */
static const struct {
    char unit;
    uint64_t ns;
} timeout_units[] = {
    {'H', 3600000000000u}, {'M', 60000000000u}, {'S', 1000000000u}, {'m', 1000000u}, {'u', 1000u}, {'n', 1u},
};

int grpc_timeout_parse(struct grpc_text text, uint64_t *ret_ns)
{
    if (text.bytes < 2 || text.bytes > 9) return LOCKSTEP_EINVAL;
    uint64_t value = 0;
    for (size_t i = 0; i + 1 < text.bytes; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') return LOCKSTEP_EINVAL;
        value = value * 10 + (uint64_t)(text.at[i] - '0');
    }
    for (size_t i = 0; i < sizeof timeout_units / sizeof timeout_units[0]; i++) {
        if (timeout_units[i].unit != text.at[text.bytes - 1]) continue;
        uint64_t ns;
        *ret_ns = __builtin_mul_overflow(value, timeout_units[i].ns, &ns) ? UINT64_MAX : ns;
        return 0;
    }
    return LOCKSTEP_EINVAL;
}

size_t grpc_timeout_format(uint64_t ns, char *to)
{
    size_t unit = sizeof timeout_units / sizeof timeout_units[0] - 1;
    uint64_t value = ns;
    /* The smallest unit whose value has at most 8 digits. Rounded up: a deadline must not come before it is due. */
    while (value > 99999999) {
        unit--;
        value = ns / timeout_units[unit].ns + (ns % timeout_units[unit].ns != 0);
    }
    char digits[8];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    for (size_t i = 0; i < count; i++) to[i] = digits[count - 1 - i];
    to[count] = timeout_units[unit].unit;
    return count + 1;
}

enum grpc_status grpc_status_of_http(int http_status)
{
    switch (http_status) {
    case 400: return GRPC_INTERNAL;
    case 401: return GRPC_UNAUTHENTICATED;
    case 403: return GRPC_PERMISSION_DENIED;
    case 404: return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504: return GRPC_UNAVAILABLE;
    default: return GRPC_UNKNOWN;
    }
}
