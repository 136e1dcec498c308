/* SPDX-License-Identifier: Apache-2.0 */
/* journal_work.c - the journal thread: everything that is queued becomes one frame, one write, one flush.
 * Thread: journal. Owns: the journal file, the batch, the entries of frames[] until it publishes them.
 * J1  One frame a flush; blocks are written straight from the ring, where the loop's pin holds them.
 * J2  1 ms after the last frame a marker says that it was flushed.
 * J5  No frame is written where an unreclaimed one lies: requests wait in the queue instead. */
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/state.h"

static const uint64_t MARKER_DELAY_NS = 1000000;

void storage_fail(struct storage *storage, int error, const char *why)
{
    lk_assert(error < 0);
    if (atomic_load_explicit(&storage->failed, memory_order_relaxed) != 0) return;
    atomic_store_explicit(&storage->failed_why, why, memory_order_relaxed);
    /* release: pairs with the acquire load in storage_failed(); the sentence before the code. */
    atomic_store_explicit(&storage->failed, error, memory_order_release);
}

bool storage_batch_add(struct storage *s, const struct request *request)
{
    if (s->batch_count != 0) {
        if (s->batch_count == JOURNAL_PARTS_MAX) return false;
        /* A pack's frames hold nothing else: replay and the log thread treat them differently. */
        if (s->batch[0].pack != request->pack) return false;
        if (s->batch[0].install || request->install) return false;
        if (FRAME_HEADER_BYTES_MAX + s->batch_bytes + request->bytes > s->journal.shape.frame_bytes_max) return false;
    }
    s->batch[s->batch_count++] = *request;
    s->batch_bytes += request->bytes;
    return true;
}

/* Fill the batch from the queue. */
static void take_requests(struct storage *s)
{
    if (s->has_next) {
        if (!storage_batch_add(s, &s->next)) return;
        s->has_next = false;
    }
    while (spsc_try_pop(&s->requests, &s->next)) {
        if (storage_batch_add(s, &s->next)) continue;
        s->has_next = true;
        return;
    }
}

/* Whether a frame of so many bytes may be written, with `reserve` left free behind it. */
static bool journal_has_room(struct storage *s, uint64_t bytes, uint64_t reserve)
{
    uint64_t limit = journal_span(&s->journal.shape);
    if (reserve > limit) return false;
    limit -= reserve;
    uint64_t end = journal_end_after(&s->journal, bytes);
    /* acquire: pairs with the release store after a transaction; the entries up to Q are free to be written again. */
    if (end - atomic_load_explicit(&s->reclaimed, memory_order_acquire) <= limit) return true;
    /* seq_cst, and look again: the log thread stores reclaimed, then looks at this flag. */
    atomic_store(&s->journal_waits, true);
    return end - atomic_load(&s->reclaimed) <= limit;
}

/* What has to stay free behind the batch's frame. A pack takes the room that was kept for it. Before that, hard states
 * may not take the last of their own: those that are queued ahead of a pack need it to get out of its way. */
static uint64_t batch_reserve(const struct storage *s)
{
    uint64_t reserve = s->batch[s->batch_count - 1].reserve_bytes;
    if (s->batch[0].pack || atomic_load_explicit(&s->pack_queued, memory_order_acquire)) return reserve;
    return s->batch_bytes == 0 ? reserve + storage_hard_state_room_bytes(s) / 2 : reserve;
}

/* What the batch is as a frame. commit_durable: the last block that was durable before it. */
static struct frame_header batch_header(const struct storage *s, struct frame_entry *entry, struct frame_group *group)
{
    struct frame_header header = {.type = s->batch[0].pack ? FRAME_PACK : FRAME_RECORDS, .has_group = true};
    raft_index durable_last = group->last_index;
    *entry = (struct frame_entry){.cut = UINT64_MAX};
    if (s->batch[0].install) {
        header.type = FRAME_INSTALL;
        entry->install_index = s->batch[0].last;
        entry->cut = 1; /* every block before it is dead */
        group->last_index = durable_last = s->batch[0].last;
        group->last_crc = s->batch[0].last_crc;
    }
    for (uint32_t i = 0; i < s->batch_count; i++) {
        const struct request *r = &s->batch[i];
        if (r->has_hard_state) {
            group->term = r->hard_state.term;
            group->vote = r->hard_state.vote;
        }
        raft_index commit = r->commit < durable_last ? r->commit : durable_last;
        if (commit > group->commit) group->commit = commit;
        if (r->count == 0) continue;
        header.block_count += r->count;
        header.blocks_bytes += r->bytes;
        entry->last = r->last;
        if (r->pack) continue;
        if (r->first < entry->cut) entry->cut = r->first;
        group->last_index = r->last;
        group->last_crc = r->last_crc;
    }
    header.group = *group;
    entry->hard_state = (struct storage_hard_state){.term = group->term, .vote = group->vote};
    return header;
}

/* The batch's ranges as parts, neighbours merged. parts[0] is the header's. */
static int batch_parts(const struct storage *s, struct iovec *parts)
{
    int count = 0;
    ring_pos end = 0;
    for (uint32_t i = 0; i < s->batch_count; i++) {
        const struct request *r = &s->batch[i];
        if (r->count == 0) continue;
        if (count != 0 && r->pos == end) {
            parts[count].iov_len += r->bytes;
        } else {
            count++;
            parts[count].iov_base = (void *)(uintptr_t)ring_at(s->ring, r->pos);
            parts[count].iov_len = r->bytes;
        }
        end = r->pos + r->bytes;
    }
    return count;
}

/* A frame is flushed: hand its entry to the log thread. */
static void publish_entry(struct storage *s, struct frame_entry *entry)
{
    const struct journal_place *place = &s->journal.last;
    entry->place = *place;
    entry->linear_end = journal_linear(&s->journal.shape, place->lap, place->offset);
    s->frames[place->seq % s->frame_room] = *entry;
    /* release: pairs with the acquire load in storage_frames_look(). */
    atomic_store_explicit(&s->frames_flushed, place->seq, memory_order_release);
    atomic_store_explicit(&s->journal_end, entry->linear_end, memory_order_release);
    atomic_fetch_add_explicit(&s->flushes, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->frame_count, 1, memory_order_relaxed);
}

int storage_frame_write(struct storage *s)
{
    lk_assert(s->batch_count != 0);
    struct iovec parts[JOURNAL_PARTS_MAX + 2];
    struct frame_entry entry;
    struct frame_group group = s->group_now;
    struct frame_header header = batch_header(s, &entry, &group);
    const struct request *last = &s->batch[s->batch_count - 1];
    if (last->pack && s->pack_from_seq == 0) {
        s->pack_from_seq = s->journal.last.seq + 1;
        s->pack_first = s->batch[0].first;
    }
    int rc = journal_append(&s->journal, &header, parts, batch_parts(s, parts));
    if (rc != 0) return rc;
    s->group_now = group;
    if (last->pack_last) {
        entry.pack_from_seq = s->pack_from_seq;
        entry.pack_first = s->pack_first;
        s->pack_from_seq = 0;
    }
    publish_entry(s, &entry);

    uint64_t room_bytes = 0;
    ring_pos pos = atomic_load_explicit(&s->durable_pos, memory_order_relaxed);
    for (uint32_t i = 0; i < s->batch_count; i++) {
        const struct request *r = &s->batch[i];
        room_bytes += r->room_bytes;
        if (r->count != 0 && r->pos + r->bytes > pos) pos = r->pos + r->bytes;
    }
    atomic_fetch_add_explicit(&s->block_count, header.block_count, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->block_bytes, header.blocks_bytes, memory_order_relaxed);
    /* release, each: a reader that sees the new value sees what came before, journal_end above all. */
    atomic_store_explicit(&s->durable_pos, pos, memory_order_release);
    atomic_fetch_add_explicit(&s->taken_room_bytes, room_bytes, memory_order_release);
    atomic_store_explicit(&s->durable_ticket, last->ticket, memory_order_release);
    s->batch_count = 0;
    s->batch_bytes = 0;
    s->last_reserve_bytes = last->reserve_bytes + storage_hard_state_room_bytes(s) / 2;
    s->marker_due = true;
    return 0;
}

/* The log thread is asked when the journal fills: at a quarter, and at each sixteenth from there on; and when somebody waits
 * for room, which any frame may let it free. */
static void wake_log_under_pressure(struct storage *s, uint64_t end_before)
{
    uint64_t span = journal_span(&s->journal.shape), end = atomic_load_explicit(&s->journal_end, memory_order_relaxed);
    bool fills = end - atomic_load_explicit(&s->reclaimed, memory_order_relaxed) >= span / 4 &&
                 end / (span / 16) != end_before / (span / 16);
    if (fills || atomic_load(&s->room_wanted)) s->wake(s->wake_context, STORAGE_LOG);
}

/* Says durably that the frame before it was flushed. It touches no group, so the next frame repeats nothing. */
static int marker_write(struct storage *s)
{
    struct iovec parts[2];
    struct frame_header header = {.type = FRAME_MARKER};
    struct frame_entry entry = {.cut = UINT64_MAX,
                                .hard_state = {.term = s->group_now.term, .vote = s->group_now.vote}};
    int rc = journal_append(&s->journal, &header, parts, 0);
    if (rc != 0) return rc;
    publish_entry(s, &entry);
    s->marker_due = false;
    return 0;
}

static uint64_t failed(struct storage *s, int rc)
{
    storage_fail(
        s, rc,
        "the journal could not be written or flushed: what was promised last is not safe on this disk; replace "
        "the disk or free space, then start again");
    s->wake(s->wake_context, STORAGE_LOOP);
    return UINT64_MAX;
}

/* Nothing is queued: the marker, then zeros ahead of the first lap. */
static uint64_t idle_work(struct storage *s, uint64_t now_ns)
{
    if (s->marker_due) {
        uint64_t due_ns = s->last_frame_ns + MARKER_DELAY_NS;
        if (now_ns < due_ns) return due_ns - now_ns;
        if (!journal_has_room(s, FRAME_PAGE_BYTES, s->last_reserve_bytes)) return UINT64_MAX;
        int rc = marker_write(s);
        return rc == 0 ? 0 : failed(s, rc);
    }
    if (!journal_wants_fill(&s->journal)) return UINT64_MAX;
    int rc = journal_fill(&s->journal);
    return rc == 0 ? 0 : failed(s, rc); /* one step, then look at the queue again */
}

uint64_t storage_journal_work(struct storage *s, uint64_t now_ns)
{
    if (atomic_load_explicit(&s->failed, memory_order_acquire) != 0) return UINT64_MAX;
    take_requests(s);
    if (s->batch_count == 0) return idle_work(s, now_ns);
    do {
        uint64_t end_before = atomic_load_explicit(&s->journal_end, memory_order_relaxed);
        uint64_t bytes = FRAME_HEADER_BYTES_MAX + s->batch_bytes + FRAME_PAGE_BYTES;
        if (!journal_has_room(s, bytes, batch_reserve(s))) {
            s->wake(s->wake_context, STORAGE_LOG);
            return UINT64_MAX; /* woken when a transaction has moved Q */
        }
        int rc = storage_frame_write(s);
        if (rc != 0) return failed(s, rc);
        s->wake(s->wake_context, STORAGE_LOOP);
        wake_log_under_pressure(s, end_before);
        take_requests(s);
    } while (s->batch_count != 0);
    s->last_frame_ns = now_ns;
    return MARKER_DELAY_NS;
}
