/* SPDX-License-Identifier: Apache-2.0 */
/* sendq.c - a peer's send queue. Thread: loop.
 * Why the pin is found by a walk: sends may go back (a probe repeats earlier blocks), so the lowest position is not
 * always the oldest; the table is short, and a walk is paid once a write, not once a frame. */
#include "transport/sendq.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "transport/wire.h"

enum {
    SEGMENTS_MAX = 2048,
    COPIED_BYTES_MAX = 8 << 20,
};
static_assert((SEGMENTS_MAX & (SEGMENTS_MAX - 1)) == 0, "a power of two: counters run on and are masked");
static_assert((COPIED_BYTES_MAX & (COPIED_BYTES_MAX - 1)) == 0, "the same");
static_assert((size_t)COPIED_BYTES_MAX >= PEER_FRAME_BYTES_MAX, "a maximal frame without ring bytes fits");

enum segment_kind { SEGMENT_COPIED, SEGMENT_RING, SEGMENT_MEMORY };

struct segment {
    enum segment_kind kind;
    uint64_t bytes;
    union {
        ring_pos from;         /* RING */
        const uint8_t *memory; /* MEMORY */
    };
};

struct sendq {
    unsigned pin;
    uint64_t bytes_max;
    uint8_t *copied;
    uint64_t copied_head, copied_tail;
    struct segment segments[SEGMENTS_MAX];
    uint32_t head, tail;
    uint64_t blocks_bytes; /* ring and memory, waiting */
    uint64_t memory_bytes;
    uint32_t ring_segments;
    ring_pos pinned; /* lowest ring position waiting, if ring_segments > 0 */
};

int sendq_open(unsigned pin, uint64_t bytes_max, struct sendq **ret)
{
    struct sendq *queue = calloc(1, sizeof *queue);
    if (queue == NULL) return LOCKSTEP_ENOMEM;
    void *at = mmap(NULL, COPIED_BYTES_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        free(queue);
        return LOCKSTEP_ENOMEM;
    }
    queue->pin = pin;
    queue->bytes_max = bytes_max;
    queue->copied = at;
    *ret = queue;
    return 0;
}

void sendq_close(struct sendq *queue)
{
    if (queue == NULL) return;
    munmap(queue->copied, COPIED_BYTES_MAX);
    free(queue);
}

static struct segment *segment_at(struct sendq *queue, uint32_t number)
{
    return &queue->segments[number & (SEGMENTS_MAX - 1)];
}

static void segment_add(struct sendq *queue, struct segment segment)
{
    lk_assert(queue->tail - queue->head < SEGMENTS_MAX);
    *segment_at(queue, queue->tail++) = segment;
}

static void copy_in(struct sendq *queue, const void *bytes, size_t count)
{
    size_t at = queue->copied_tail & (COPIED_BYTES_MAX - 1);
    size_t first = COPIED_BYTES_MAX - at < count ? COPIED_BYTES_MAX - at : count;
    if (count == 0) return;
    memcpy(queue->copied + at, bytes, first);
    memcpy(queue->copied, (const uint8_t *)bytes + first, count - first);
    queue->copied_tail += count;
}

int sendq_put(struct sendq *queue, struct ring *ring, const struct transport_send *send)
{
    uint8_t head[PEER_FRAME_HEADER_BYTES + WIRE_MESSAGE_BYTES_MAX];
    size_t fields_bytes = 0;
    uint32_t body_crc = 0;
    if (send->type == FRAME_RAFT) {
        fields_bytes = wire_message_write(send->message, head + PEER_FRAME_HEADER_BYTES);
    } else {
        lk_assert(send->ring_bytes == 0);
        lk_assert(send->blocks_bytes == 0);
        body_crc = crc32c_extend(crc32c(send->body, send->body_bytes), send->more, send->more_bytes);
    }
    uint64_t blocks_bytes = send->ring_bytes + send->blocks_bytes;
    size_t body_bytes = send->body_bytes + send->more_bytes;
    size_t copied_bytes = PEER_FRAME_HEADER_BYTES + fields_bytes + body_bytes;

    if (SEGMENTS_MAX - (queue->tail - queue->head) < 3) return LOCKSTEP_EFULL;
    if (COPIED_BYTES_MAX - (queue->copied_tail - queue->copied_head) < copied_bytes) return LOCKSTEP_EFULL;
    /* Flow control always allows one block, however small bytes_max is. */
    if (queue->blocks_bytes > 0 && queue->blocks_bytes + blocks_bytes > queue->bytes_max) return LOCKSTEP_EFULL;
    if (send->ring_bytes > 0 && (queue->ring_segments == 0 || send->ring_from < queue->pinned)) {
        int rc = ring_pin(ring, queue->pin, send->ring_from);
        if (rc != 0) return rc;
        queue->pinned = send->ring_from;
    }

    peer_frame_seal(head, send->type, 0, fields_bytes, body_bytes + blocks_bytes, body_crc);
    copy_in(queue, head, PEER_FRAME_HEADER_BYTES + fields_bytes);
    copy_in(queue, send->body, send->body_bytes);
    copy_in(queue, send->more, send->more_bytes);
    struct segment *last = queue->tail != queue->head ? segment_at(queue, queue->tail - 1) : NULL;
    if (last != NULL && last->kind == SEGMENT_COPIED)
        last->bytes += copied_bytes;
    else
        segment_add(queue, (struct segment){.kind = SEGMENT_COPIED, .bytes = copied_bytes});
    if (send->ring_bytes > 0) {
        segment_add(queue, (struct segment){.kind = SEGMENT_RING, .bytes = send->ring_bytes, .from = send->ring_from});
        queue->ring_segments++;
    }
    if (send->blocks_bytes > 0) {
        segment_add(queue,
                    (struct segment){.kind = SEGMENT_MEMORY, .bytes = send->blocks_bytes, .memory = send->blocks});
        queue->memory_bytes += send->blocks_bytes;
    }
    queue->blocks_bytes += blocks_bytes;
    return 0;
}

size_t sendq_peek(struct sendq *queue, const struct ring *ring, struct iovec *iov, size_t iov_max)
{
    size_t count = 0;
    uint64_t copied = queue->copied_head;
    lk_assert(iov_max >= 2);
    for (uint32_t i = queue->head; i != queue->tail && iov_max - count >= 2; i++) {
        const struct segment *s = segment_at(queue, i);
        switch (s->kind) {
        case SEGMENT_COPIED: {
            size_t at = copied & (COPIED_BYTES_MAX - 1);
            size_t first = COPIED_BYTES_MAX - at < s->bytes ? COPIED_BYTES_MAX - at : (size_t)s->bytes;
            iov[count++] = (struct iovec){queue->copied + at, first};
            if (first < s->bytes) iov[count++] = (struct iovec){queue->copied, (size_t)s->bytes - first};
            copied += s->bytes;
            break;
        }
        /* iovecs have no const; nobody writes through them */
        case SEGMENT_RING: iov[count++] = (struct iovec){(void *)(uintptr_t)ring_at(ring, s->from), s->bytes}; break;
        case SEGMENT_MEMORY: iov[count++] = (struct iovec){(void *)(uintptr_t)s->memory, s->bytes}; break;
        }
    }
    return count;
}

static void pin_lowest(struct sendq *queue, struct ring *ring)
{
    if (queue->ring_segments == 0) {
        ring_unpin(ring, queue->pin);
        return;
    }
    ring_pos lowest = UINT64_MAX;
    for (uint32_t i = queue->head; i != queue->tail; i++) {
        const struct segment *s = segment_at(queue, i);
        if (s->kind == SEGMENT_RING && s->from < lowest) lowest = s->from;
    }
    lk_assert(lowest >= queue->pinned);
    int rc = ring_pin(ring, queue->pin, lowest);
    lk_assert(rc == 0); /* a pin moves up freely */
    queue->pinned = lowest;
}

void sendq_written(struct sendq *queue, struct ring *ring, size_t bytes)
{
    bool ring_moved = false;
    while (bytes > 0) {
        lk_assert(queue->head != queue->tail);
        struct segment *s = segment_at(queue, queue->head);
        uint64_t part = bytes < s->bytes ? bytes : s->bytes;
        s->bytes -= part;
        bytes -= (size_t)part;
        switch (s->kind) {
        case SEGMENT_COPIED: queue->copied_head += part; break;
        case SEGMENT_RING:
            s->from += part;
            queue->blocks_bytes -= part;
            ring_moved = true;
            if (s->bytes == 0) queue->ring_segments--;
            break;
        case SEGMENT_MEMORY:
            s->memory += part;
            queue->blocks_bytes -= part;
            queue->memory_bytes -= part;
            break;
        }
        if (s->bytes == 0) queue->head++;
    }
    if (ring_moved) pin_lowest(queue, ring);
    /* Empty is the usual case: the same cache lines again, not eight megabytes of them one after the other. */
    if (queue->head == queue->tail) queue->copied_head = queue->copied_tail = 0;
}

void sendq_clear(struct sendq *queue, struct ring *ring)
{
    if (queue->ring_segments > 0) ring_unpin(ring, queue->pin);
    queue->head = queue->tail = 0;
    queue->copied_head = queue->copied_tail = 0;
    queue->blocks_bytes = queue->memory_bytes = 0;
    queue->ring_segments = 0;
}

bool sendq_empty(const struct sendq *queue)
{
    return queue->head == queue->tail;
}

uint64_t sendq_blocks_queued_bytes(const struct sendq *queue)
{
    return queue->blocks_bytes;
}

bool sendq_memory_idle(const struct sendq *queue)
{
    return queue->memory_bytes == 0;
}
