/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_ring.c - a segment from a hostile process, through all that a reader does with one: first what it says of itself, as
 * a descriptor of its own; then words, index map and bytes of one that was opened. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "proto/block.h"
#include "proto/ring_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { RING_BYTES = RING_BYTES_MIN, SLOTS = RING_BYTES / RING_BYTES_PER_SLOT };
enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE };

static struct ring_segment *segment; /* mapped for writing before it was sealed */
static struct ring_reader *reader;

static struct ring_segment good_header(void)
{
    struct ring_segment header;
    memset(&header, 0, sizeof header);
    header.magic = RING_SEGMENT_MAGIC;
    header.version = RING_SEGMENT_VERSION;
    header.slot_count = SLOTS;
    header.bytes = RING_BYTES;
    header.bytes_at = ring_segment_bytes_at(SLOTS);
    return header;
}

static size_t file_bytes(void)
{
    return (size_t)ring_segment_bytes_at(SLOTS) + RING_BYTES;
}

static int make(const struct ring_segment *header)
{
    int fd = ring_segment_make("fuzz", file_bytes());
    lk_assert(fd >= 0);
    lk_assert(pwrite(fd, header, sizeof *header, 0) == (ssize_t)sizeof *header);
    return fd;
}

static void open_once(void)
{
    const struct ring_segment header = good_header();
    int fd = make(&header);
    void *at = mmap(NULL, file_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    lk_assert(at != MAP_FAILED);
    lk_assert(fcntl(fd, F_ADD_SEALS, SEALS) == 0);
    segment = at;
    int rc = ring_reader_open(fd, &reader);
    lk_assert(rc == 0);
    close(fd);
}

/* What it says of itself: most of it as it should be. */
static void open_strange(const uint8_t *bytes, size_t count)
{
    struct ring_segment header = good_header();
    const size_t constant = offsetof(struct ring_segment, epoch);
    size_t at = bytes[0] % constant, room = constant - at;
    memcpy((uint8_t *)(void *)&header + at, bytes + 1, count - 1 < room ? count - 1 : room);
    struct ring_reader *strange = NULL;
    int fd = make(&header);
    lk_assert(fcntl(fd, F_ADD_SEALS, SEALS) == 0);
    if (ring_reader_open(fd, &strange) == 0) lk_assert(ring_reader_identity(strange).bytes == RING_BYTES);
    ring_reader_close(strange);
    close(fd);
}

/* Numbers of the input, without end: the input once more, when it is used up. */
struct numbers {
    const uint8_t *bytes;
    size_t count, at;
};

static uint64_t number(struct numbers *n)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++, n->at++) value |= (uint64_t)n->bytes[n->at % n->count] << (8 * i);
    return value;
}

/* Any number; or, three times in four, one that leads further: small and a multiple of 8. */
static uint64_t likely(struct numbers *n, uint64_t below)
{
    uint64_t value = number(n);
    return value % 4 == 0 ? value : value % below & ~(uint64_t)7;
}

static void write_words(struct numbers *n)
{
    struct ring_map_slot *slots = (struct ring_map_slot *)(void *)((uint8_t *)segment + RING_SEGMENT_PAGE_BYTES);
    uint64_t tail = likely(n, (uint64_t)16 * RING_BYTES);
    ring_word_store(&segment->epoch, number(n) % 8 == 0 ? number(n) : 2);
    ring_word_store(&segment->term, number(n));
    ring_word_store(&segment->leads, number(n));
    ring_word_store(&segment->tail, tail);
    ring_word_store(&segment->head, tail > RING_BYTES ? tail - likely(n, RING_BYTES) : 0);
    ring_word_store(&segment->last_index, number(n) % 4 == 0 ? number(n) : SLOTS);
    ring_word_store(&segment->commit, number(n) % 4 == 0 ? number(n) : 0);
    ring_pos pos = tail - likely(n, RING_BYTES);
    for (raft_index i = 1; i <= SLOTS; i++) {
        uint64_t bytes = likely(n, 1024) + 64;
        ring_word_store(&slots[i % SLOTS].index, number(n) % 16 == 0 ? number(n) : i);
        ring_word_store(&slots[i % SLOTS].pos, pos);
        ring_word_store(&slots[i % SLOTS].bytes_crc, bytes);
        pos = number(n) % 16 == 0 ? number(n) : pos + (uint32_t)bytes;
    }
}

static void read_all(struct numbers *n)
{
    struct ring_view view;
    if (ring_reader_look(reader, &view) != 0) return;
    for (raft_index first = 0; first <= SLOTS + 1; first += 1 + number(n) % 64) {
        size_t room = (size_t)(number(n) % ((uint64_t)2 * RING_BYTES));
        uint8_t *to = malloc(room + 1); /* of this size: AddressSanitizer sees a write behind it */
        struct ring_blocks blocks;
        struct ring_slot slot;
        lk_assert(to != NULL);
        int found = ring_reader_find(reader, &view, first, &slot);
        int rc = ring_reader_copy(reader, &view, first, number(n) % 2 == 0 ? UINT64_MAX : first, to, room, &blocks);
        lk_assert(found == 0 ? rc == 0 || slot.bytes > room : rc == found);
        if (rc == 0) lk_assert(blocks.bytes <= room && blocks.bytes <= RING_BYTES && blocks.end <= view.tail);
        free(to);
    }
    lk_assert(!ring_reader_moved(reader, &view));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (reader == NULL) open_once();
    if (count < 2) return 0;
    if (bytes[1] % 4 == 0) open_strange(bytes, count);
    struct numbers n = {.bytes = bytes, .count = count};
    write_words(&n);
    read_all(&n);
    return 0;
}
