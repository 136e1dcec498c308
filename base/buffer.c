/* SPDX-License-Identifier: Apache-2.0 */
/* buffer.c - see buffer.h. */
#include "base/buffer.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 256 };

void buffer_open(struct buffer *buffer, size_t limit_bytes)
{
    lk_assert(limit_bytes > 0);
    lk_assert(limit_bytes <= SIZE_MAX / 4);
    *buffer = (struct buffer){.limit_bytes = limit_bytes};
}

void buffer_close(struct buffer *buffer)
{
    free(buffer->memory);
    memset(buffer, 0, sizeof *buffer);
}

const uint8_t *buffer_bytes(const struct buffer *buffer)
{
    return buffer->first < buffer->end ? buffer->memory + buffer->first : (const uint8_t *)"";
}

size_t buffer_count(const struct buffer *buffer)
{
    lk_assert(buffer->first <= buffer->end);
    return buffer->end - buffer->first;
}

/* count free bytes behind the end, whatever the limit says. */
static uint8_t *make_room(struct buffer *buffer, size_t count)
{
    size_t held = buffer_count(buffer);
    if (buffer->memory != NULL && count <= buffer->capacity_bytes - buffer->end) return buffer->memory + buffer->end;
    size_t capacity = buffer->capacity_bytes > 0 ? buffer->capacity_bytes : FIRST_BYTES;
    /* Slide to the front only when at least half is free by it: then each byte moves once at most, on average. */
    while (capacity - held < count || (capacity == buffer->capacity_bytes && held > capacity / 2)) capacity *= 2;
    if (capacity == buffer->capacity_bytes) {
        memmove(buffer->memory, buffer->memory + buffer->first, held);
    } else {
        uint8_t *memory = malloc(capacity);
        if (memory == NULL) return NULL;
        if (held > 0) memcpy(memory, buffer->memory + buffer->first, held);
        free(buffer->memory);
        buffer->memory = memory;
        buffer->capacity_bytes = capacity;
    }
    buffer->first = 0;
    buffer->end = held;
    return buffer->memory + held;
}

uint8_t *buffer_claim(struct buffer *buffer, size_t count)
{
    return count <= buffer->limit_bytes - buffer_count(buffer) ? make_room(buffer, count) : NULL;
}

void buffer_commit(struct buffer *buffer, size_t count)
{
    lk_assert(count <= buffer->capacity_bytes - buffer->end);
    buffer->end += count;
    lk_assert(buffer_count(buffer) <= buffer->limit_bytes);
}

bool buffer_append(struct buffer *buffer, const void *bytes, size_t count)
{
    if (count == 0) return true;
    uint8_t *at = buffer_claim(buffer, count);
    if (at == NULL) return false;
    memcpy(at, bytes, count);
    buffer_commit(buffer, count);
    return true;
}

bool buffer_print(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) return false;
    size_t count = (size_t)length;
    if (count > buffer->limit_bytes - buffer_count(buffer)) return false;
    uint8_t *at = make_room(buffer, count + 1); /* vsnprintf insists on a terminator; it is never committed */
    if (at == NULL) return false;
    va_start(arguments, format);
    vsnprintf((char *)at, count + 1, format, arguments);
    va_end(arguments);
    buffer_commit(buffer, count);
    return true;
}

void buffer_consume(struct buffer *buffer, size_t count)
{
    lk_assert(count <= buffer_count(buffer));
    buffer->first += count;
    if (buffer->first == buffer->end) buffer_clear(buffer);
}

void buffer_clear(struct buffer *buffer)
{
    buffer->first = 0;
    buffer->end = 0;
}
