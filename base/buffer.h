/* SPDX-License-Identifier: Apache-2.0 */
/* buffer.h - bytes that grow at their end, up to a limit, and are consumed from their front: what a connection has
 * received or has still to send, a text that is being written.
 * Thread: one owner each. Owns: its memory, which grows by doubling and moves when it does. */
#ifndef LOCKSTEP_BASE_BUFFER_H
#define LOCKSTEP_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *memory;
    size_t first, end; /* the bytes that count: memory[first..end) */
    size_t capacity_bytes, limit_bytes;
};

/* Allocates nothing yet. limit_bytes  how much may wait in it at one time; > 0 */
void buffer_open(struct buffer *buffer, size_t limit_bytes);

/* Takes a zeroed buffer too. */
void buffer_close(struct buffer *buffer);

/* What is in it. The pointer holds until the next call that adds. */
const uint8_t *buffer_bytes(const struct buffer *buffer);
size_t buffer_count(const struct buffer *buffer);

/* Add at the end. ret  false: over the limit or no memory, and the buffer is as before. May allocate. */
bool buffer_append(struct buffer *buffer, const void *bytes, size_t count);
bool buffer_print(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Add in place: count bytes to write into, then buffer_commit() how many of them were written. read(2) goes here.
 * ret  NULL: over the limit or no memory. May allocate. */
uint8_t *buffer_claim(struct buffer *buffer, size_t count);
void buffer_commit(struct buffer *buffer, size_t count);

/* Drop count bytes from the front; count <= buffer_count(). O(1). */
void buffer_consume(struct buffer *buffer, size_t count);

/* Drop all; keeps the memory. */
void buffer_clear(struct buffer *buffer);

#endif
