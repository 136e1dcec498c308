/* SPDX-License-Identifier: Apache-2.0 */
/* ring_reader.c - see ring_reader.h. The geometry is copied out of the descriptor once, checked against its size, and never
 * read again: with it every position, whatever it is, leads to a place within the mapping. */
#include "proto/ring_reader.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "proto/block.h"

enum {
    FILESYSTEM_TMPFS = 0x01021994, /* where memfds of normal pages live; a hole in one of huge pages may be a SIGBUS */
    LOOKS_MAX = 8,                 /* at an epoch that is odd or changes */
};

struct ring_reader {
    uint8_t *mapping;
    size_t mapping_bytes;
    const struct ring_segment *segment;
    const struct ring_map_slot *slots;
    const uint8_t *bytes_at;
    uint64_t bytes;
    uint32_t slot_count;
    struct ring_identity identity;
};

/* --- opening ------------------------------------------------------------------------------------------------------ */

/* The size of a memfd all of whose memory is there and stays so, or -1. A look into a hole would take memory for this process
 * to pay for, as much as whoever made it likes. */
static int64_t sealed_bytes(int fd, int seals_wanted)
{
    struct statfs filesystem;
    struct stat file;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & seals_wanted) != seals_wanted) return -1;
    if (fstatfs(fd, &filesystem) != 0 || filesystem.f_type != FILESYSTEM_TMPFS) return -1;
    if (fstat(fd, &file) != 0 || file.st_blocks < file.st_size / S_BLKSIZE) return -1;
    return file.st_size;
}

static int geometry_check(const struct ring_segment *segment, uint64_t file_bytes)
{
    if (segment->magic != RING_SEGMENT_MAGIC) return LOCKSTEP_EINVAL;
    if (segment->version != RING_SEGMENT_VERSION) return LOCKSTEP_EVERSION;
    uint64_t bytes = segment->bytes;
    if (bytes < RING_BYTES_MIN || bytes > RING_BYTES_MAX || (bytes & (bytes - 1)) != 0) return LOCKSTEP_EINVAL;
    if (segment->slot_count != ring_segment_slots(bytes)) return LOCKSTEP_EINVAL;
    if (segment->bytes_at != ring_segment_bytes_at(segment->slot_count)) return LOCKSTEP_EINVAL;
    return segment->bytes_at + bytes == file_bytes ? 0 : LOCKSTEP_EINVAL;
}

int ring_reader_open(int fd, struct ring_reader **ret)
{
    int64_t file_bytes = sealed_bytes(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
    if (file_bytes < 0) return LOCKSTEP_EINVAL;
    struct ring_segment segment; /* a copy: what is checked is what is used */
    if (pread(fd, &segment, sizeof segment, 0) != (ssize_t)sizeof segment) return LOCKSTEP_EINVAL;
    int rc = geometry_check(&segment, (uint64_t)file_bytes);
    if (rc != 0) return rc;
    struct ring_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) return LOCKSTEP_ENOMEM;
    reader->mapping = ring_segment_map(fd, segment.bytes_at, segment.bytes, false);
    if (reader->mapping == NULL) {
        free(reader);
        return LOCKSTEP_ENOMEM;
    }
    reader->mapping_bytes = ring_segment_map_bytes(segment.bytes_at, segment.bytes);
    reader->segment = (const struct ring_segment *)(const void *)reader->mapping;
    reader->slots = (const struct ring_map_slot *)(const void *)(reader->mapping + RING_SEGMENT_PAGE_BYTES);
    reader->bytes_at = reader->mapping + segment.bytes_at;
    reader->bytes = segment.bytes;
    reader->slot_count = segment.slot_count;
    reader->identity = (struct ring_identity){.group = segment.group,
                                              .cluster_id = segment.cluster_id,
                                              .member_id = segment.member_id,
                                              .boot = segment.boot,
                                              .bytes = segment.bytes};
    *ret = reader;
    return 0;
}

void ring_reader_close(struct ring_reader *reader)
{
    if (reader == NULL) return;
    munmap(reader->mapping, reader->mapping_bytes);
    free(reader);
}

struct ring_identity ring_reader_identity(const struct ring_reader *reader)
{
    return reader->identity;
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static bool view_is_sane(const struct ring_view *view)
{
    return view->epoch != 0 && view->head <= view->tail && view->head % 8 == 0 && view->tail % 8 == 0 &&
           view->commit <= view->last_index;
}

int ring_reader_look(const struct ring_reader *reader, struct ring_view *ret)
{
    const struct ring_segment *segment = reader->segment;
    for (int tries = 0; tries < LOOKS_MAX; tries++) {
        struct ring_view view = {.epoch = ring_word_load(&segment->epoch)};
        if (view.epoch % 2 == 1) continue;
        view.term = ring_word_load(&segment->term);
        view.leads = ring_word_load(&segment->leads) != 0;
        /* Against the writer's order: what is loaded later covers what was loaded before. */
        view.beat = ring_word_load(&segment->beat);
        view.round = ring_word_load(&segment->round);
        view.commit = ring_word_load(&segment->commit);
        view.last_index = ring_word_load(&segment->last_index);
        view.head = ring_word_load(&segment->head);
        view.tail = ring_word_load(&segment->tail);
        if (ring_word_load(&segment->epoch) != view.epoch) continue;
        if (!view_is_sane(&view)) return LOCKSTEP_ECORRUPT;
        *ret = view;
        return 0;
    }
    return LOCKSTEP_EUNAVAILABLE;
}

bool ring_reader_moved(const struct ring_reader *reader, const struct ring_view *view)
{
    const struct ring_segment *segment = reader->segment;
    /* Not the tail: a view may have it from after a block whose last_index was still to come. */
    return ring_word_load(&segment->epoch) != view->epoch || ring_word_load(&segment->last_index) != view->last_index ||
           ring_word_load(&segment->commit) != view->commit || ring_word_load(&segment->beat) != view->beat;
}

const ring_word *ring_reader_writer_sleeps(const struct ring_reader *reader)
{
    return &reader->segment->sleeps;
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

/* What the index map says, if it can be: within what was published, a block's size. Nothing is said of the epoch yet. */
static int locate(const struct ring_reader *reader, const struct ring_view *view, raft_index index,
                  struct ring_slot *ret)
{
    if (!ring_map_read(&reader->slots[index % reader->slot_count], index, ret)) return LOCKSTEP_ELAPPED;
    bool is_size = ret->bytes >= BLOCK_HEADER_BYTES && ret->bytes <= BLOCK_BYTES_MAX && ret->bytes % 8 == 0 &&
                   ret->bytes <= reader->bytes;
    bool is_place = ret->pos % 8 == 0 && ret->pos <= view->tail && ret->bytes <= view->tail - ret->pos;
    return is_size && is_place ? 0 : LOCKSTEP_ECORRUPT;
}

/* S1, S3: what was read before this call, at pos and above, is what rc says only if the ring is still as in view. */
static int recheck(const struct ring_reader *reader, const struct ring_view *view, ring_pos pos, int rc)
{
    ring_pos head = ring_word_load(&reader->segment->head);
    if (ring_word_load(&reader->segment->epoch) != view->epoch) return LOCKSTEP_EUNAVAILABLE;
    if (rc != 0) return rc;
    return head <= pos ? 0 : LOCKSTEP_ELAPPED;
}

int ring_reader_find(const struct ring_reader *reader, const struct ring_view *view, raft_index index,
                     struct ring_slot *ret)
{
    if (index > view->last_index) return LOCKSTEP_ENOTFOUND;
    struct ring_slot slot = {.index = 0};
    int rc = locate(reader, view, index, &slot);
    rc = recheck(reader, view, slot.pos, rc);
    if (rc == 0) *ret = slot;
    return rc;
}

int ring_reader_copy(const struct ring_reader *reader, const struct ring_view *view, raft_index first, raft_index last,
                     uint8_t *to, size_t room, struct ring_blocks *ret)
{
    struct ring_slot slot;
    int rc = ring_reader_find(reader, view, first, &slot);
    if (rc != 0) return rc;
    if (slot.bytes > room) {
        ret->bytes = slot.bytes;
        return LOCKSTEP_ETOOBIG;
    }
    if (last > view->last_index) last = view->last_index;
    if (room > reader->bytes) room = (size_t)reader->bytes;
    struct ring_blocks blocks = {
        .last = first, .last_term = slot.term, .bytes = slot.bytes, .end = slot.pos + slot.bytes};
    const ring_pos start = slot.pos;
    while (blocks.last < last && locate(reader, view, blocks.last + 1, &slot) == 0) {
        if (slot.pos != blocks.end || slot.bytes > room - blocks.bytes) break;
        blocks.last++;
        blocks.last_term = slot.term;
        blocks.bytes += slot.bytes;
        blocks.end += slot.bytes;
    }
    ring_copy(to, reader->bytes_at + start % reader->bytes, blocks.bytes);
    rc = recheck(reader, view, start, 0);
    if (rc == 0) *ret = blocks;
    return rc;
}

/* --- a reader's slot ---------------------------------------------------------------------------------------------- */

int ring_reader_slot_make(int *ret_fd, const struct ring_reader_slot **ret)
{
    int fd = ring_segment_make("lockstep-slot", RING_SEGMENT_PAGE_BYTES);
    if (fd < 0) return LOCKSTEP_ENOMEM;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) goto fail;
    void *at = mmap(NULL, RING_SEGMENT_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) goto fail;
    *ret_fd = fd;
    *ret = at;
    return 0;
fail:
    close(fd);
    return LOCKSTEP_ENOMEM;
}

int ring_reader_slot_map(int fd, struct ring_reader_slot **ret)
{
    if (sealed_bytes(fd, F_SEAL_SHRINK | F_SEAL_GROW) != RING_SEGMENT_PAGE_BYTES) return LOCKSTEP_EINVAL;
    void *at = mmap(NULL, RING_SEGMENT_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return LOCKSTEP_ENOMEM;
    *ret = at;
    return 0;
}

void ring_reader_slot_unmap(const struct ring_reader_slot *slot)
{
    if (slot != NULL) munmap((void *)(uintptr_t)slot, RING_SEGMENT_PAGE_BYTES);
}
