/* SPDX-License-Identifier: Apache-2.0 */
/* lives.c - see lives.h. */
#include "tests/support/lives.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/snapshot_file.h"

/* A sentence instead of an expression: tests run this in processes of their own. */
#define require(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (condition) break;                                                                                          \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                                \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fprintf(stderr, "\n");                                                                                         \
        abort();                                                                                                       \
    } while (0)

/* --- the promise -------------------------------------------------------------------------------------------------- */

static void view_take(struct lives_view *view, const struct lives_step *step)
{
    if (step->index == 0) {
        view->hard_state = step->hard_state;
        return;
    }
    if (step->install) view->base = step->index;
    lk_assert(step->install || (step->index <= view->last + 1 && step->index < LIVES_LOG_MAX));
    view->crcs[step->index] = step->crc;
    view->last = step->index;
}

static bool same_hard_state(const struct lives_view *a, const struct lives_view *b)
{
    return a->hard_state.term == b->hard_state.term && a->hard_state.vote == b->hard_state.vote;
}

/* Compared from the base on: what is compacted shows no more. */
static bool shows(const struct lives_view *found, const struct lives_view *expected)
{
    if (found->last != expected->last || found->base > found->last || found->base < expected->base) return false;
    if (!same_hard_state(found, expected)) return false;
    return memcmp(found->crcs + found->base, expected->crcs + found->base,
                  (found->last - found->base + 1) * sizeof found->crcs[0]) == 0;
}

/* Whether what was found may be the state after so many steps. */
static bool prefix_matches(const struct lives_promise *p, const struct lives_view *found,
                           const struct lives_view *expected, uint32_t count)
{
    bool with_old_log = !p->install.done || count > p->install.steps_before;
    if (with_old_log && shows(found, expected)) return true;
    if (!p->install.asked || (p->install.done && with_old_log)) return false;
    raft_index index = p->install.base.index; /* it stands in LMDB, whatever the journal had of the old log */
    return found->base == index && found->last == index && found->crcs[index] == p->install.base.crc &&
           same_hard_state(found, expected);
}

static bool opened_matches(const struct lives_promise *p, const struct lives_view *found, char *why, size_t room)
{
    static struct lives_view expected;
    expected = p->opened;
    bool matches = p->acked_count == 0 && prefix_matches(p, found, &expected, 0);
    for (uint32_t i = 0; i < p->step_count && !matches; i++) {
        view_take(&expected, &p->steps[i]);
        matches = i + 1 >= p->acked_count && prefix_matches(p, found, &expected, i + 1);
    }
    if (!matches) {
        snprintf(
            why, room,
            "base %lu, last %lu, term %lu, vote %lu, stored %lu is no prefix of the %u steps behind base %lu, last "
            "%lu, term %lu, vote %lu, of which %u are acknowledged",
            (unsigned long)found->base, (unsigned long)found->last, (unsigned long)found->hard_state.term,
            (unsigned long)found->hard_state.vote, (unsigned long)found->stored, p->step_count,
            (unsigned long)p->opened.base, (unsigned long)p->opened.last, (unsigned long)p->opened.hard_state.term,
            (unsigned long)p->opened.hard_state.vote, p->acked_count);
        return false;
    }
    raft_index commit = p->commit;
    if (p->install.asked && found->base == p->install.base.index && commit < found->base) commit = found->base;
    bool fits = found->base >= p->opened.base && found->stored >= p->opened.stored && found->commit >= found->stored &&
                found->commit <= found->last && found->commit <= commit;
    if (!fits)
        snprintf(why, room, "base %lu, stored %lu, commit %lu, last %lu, after base %lu, stored %lu, commit %lu",
                 (unsigned long)found->base, (unsigned long)found->stored, (unsigned long)found->commit,
                 (unsigned long)found->last, (unsigned long)p->opened.base, (unsigned long)p->opened.stored,
                 (unsigned long)commit);
    return fits;
}

bool lives_promise_take(struct lives_promise *p, const struct lives_note *note, char *why, size_t why_room)
{
    switch (note->type) {
    case LIVES_OPENED:
        if (!opened_matches(p, &note->view, why, why_room)) return false;
        p->opened = note->view;
        p->step_count = p->acked_count = 0;
        p->commit = note->view.commit;
        memset(&p->install, 0, sizeof p->install);
        return true;
    case LIVES_STEP:
        lk_assert(p->step_count < LIVES_STEPS_MAX);
        p->steps[p->step_count++] = note->step;
        return true;
    case LIVES_ACKED: p->acked_count = note->acked_count; return true;
    case LIVES_COMMIT: p->commit = note->commit; return true;
    case LIVES_INSTALL_ASKED:
        p->install.base = note->install;
        p->install.asked = true;
        return true;
    case LIVES_INSTALL_DONE:
        p->install.done = true;
        p->install.steps_before = p->step_count;
        p->commit = note->install.index;
        return true;
    }
    lk_unreachable();
}

size_t lives_note_bytes(const struct lives_note *note)
{
    if (note->type != LIVES_OPENED) return offsetof(struct lives_note, view) + sizeof note->step;
    return offsetof(struct lives_note, view) + offsetof(struct lives_view, crcs) +
           (note->view.last + 1) * sizeof note->view.crcs[0];
}

static void take(struct lives *l, const struct lives_note *note)
{
    char why[512];
    require(lives_promise_take(l->promise, note, why, sizeof why), "opened: %s", why);
    if (l->noted != NULL) l->noted(l->context, note);
}

/* --- snapshots: their bytes follow from their block ---------------------------------------------------------------- */

static uint64_t content_bytes(uint32_t crc)
{
    return 1 + crc % 3000;
}

static void content(uint32_t crc, uint8_t *to)
{
    struct random bytes;
    random_seed(&bytes, crc);
    for (uint64_t i = 0; i < content_bytes(crc); i++) to[i] = (uint8_t)random_u64(&bytes);
}

static void check_taken(const struct store *store, struct storage_reader *reader, const uint8_t *expected)
{
    const struct storage_snapshot *is = &store->recovered.snapshot;
    uint8_t bytes[LIVES_CONTENT_BYTES_MAX];
    struct storage_content *from;
    size_t at = 0, count = 0;
    int rc = storage_content_open(reader, STORAGE_SNAPSHOT_NEWEST, &from);
    do {
        if (rc == 0) rc = storage_content_read(from, bytes + at, sizeof bytes - at, &count);
        require(rc == 0, "snapshot of block %lu, behind byte %zu: %s", (unsigned long)is->base.index, at,
                lockstep_error_text(rc));
        at += count;
    } while (count > 0);
    storage_content_close(from);
    require(at == content_bytes(is->base.crc) && memcmp(bytes, expected, at) == 0,
            "snapshot of block %lu has other bytes", (unsigned long)is->base.index);
}

static void check_snapshot(const struct store *store, struct storage_reader *reader)
{
    uint8_t expected[LIVES_CONTENT_BYTES_MAX];
    const struct storage_snapshot *is = &store->recovered.snapshot;
    require(store->recovered.base.index <= is->base.index, "compacted beyond the snapshot");
    if (is->base.index == 0) return;
    require(is->base.index <= store->recovered.stored, "a snapshot of a block that is not stored");
    content(is->base.crc, expected);
    if (is->checksum !=
        crc32c(expected, content_bytes(is->base.crc))) { /* taken here, so compressed; a leader's are not */
        check_taken(store, reader, expected);
        return;
    }
    require(is->bytes == content_bytes(is->base.crc), "a snapshot of another length");
    for (uint64_t offset = 0; offset < is->bytes;) {
        struct storage_snapshot seen;
        static uint8_t bytes[SNAPSHOT_PIECE_BYTES_MAX];
        size_t count;
        int rc = storage_piece_read(reader, STORAGE_SNAPSHOT_NEWEST, offset, &seen, bytes, &count);
        require(rc == 0, "snapshot of block %lu, byte %lu: %s", (unsigned long)is->base.index, (unsigned long)offset,
                lockstep_error_text(rc));
        require(seen.base.crc == is->base.crc, "the piece of another snapshot");
        require(memcmp(bytes, expected + offset, count) == 0, "snapshot of block %lu has other bytes at %lu",
                (unsigned long)is->base.index, (unsigned long)offset);
        offset += count;
    }
}

/* No file of a snapshot but the one that counts, and what a leader brings (J4). */
static void check_file(void *context, const char *name)
{
    const struct store *store = context;
    char counts[SNAPSHOT_NAME_BYTES];
    if (strncmp(name, "snapshot", 8) != 0 || strcmp(name, SNAPSHOT_NAME_INCOMING) == 0) return;
    snapshot_file_name(counts, store->recovered.snapshot.base.index);
    require(strcmp(name, counts) == 0, "%s was left, %s counts", name, counts);
}

static void check_files(struct store *store)
{
    const struct disk *disk = store->options.disk;
    int rc = disk->list(disk->context, store->options.directory, check_file, store);
    require(rc == 0, "the directory cannot be listed: %s", lockstep_error_text(rc));
}

static void check_runs(const struct storage_recovered *r)
{
    if (r->last.index == r->base.index) {
        require(r->run_count == 0, "terms of no blocks");
        return;
    }
    require(r->run_count > 0 && r->runs[0].first_index == r->base.index + 1, "terms begin elsewhere than the log");
    require(r->runs[r->run_count - 1].term == r->last.term, "the last term is not the last block's");
    for (uint32_t i = 1; i < r->run_count; i++)
        require(r->runs[i].term > r->runs[i - 1].term && r->runs[i].first_index > r->runs[i - 1].first_index,
                "terms do not ascend");
}

/* LMDB's part through the reader, the rest from the ring. */
void lives_read(struct lives *l, struct lives_view *view)
{
    struct store *store = l->store;
    const struct storage_recovered *recovered = &store->recovered;
    struct storage_reader *reader = NULL;
    int rc = storage_reader_open(store->storage, &reader);
    require(rc == 0, "no reader: %s", lockstep_error_text(rc));
    memset(view, 0, sizeof *view);
    view->hard_state = recovered->hard_state;
    view->base = recovered->base.index;
    view->last = recovered->last.index;
    view->stored = recovered->stored;
    view->commit = recovered->commit;
    require(view->last < LIVES_LOG_MAX, "block %lu was never written", (unsigned long)view->last);
    view->crcs[view->base] = recovered->base.crc;
    l->known[view->base] = recovered->base;
    check_snapshot(store, reader);
    check_files(store);
    struct block_base chain = recovered->base;
    for (raft_index i = view->base + 1; i <= view->last; i++) {
        struct block_header header;
        const uint8_t *block;
        if (i <= recovered->stored) {
            rc = storage_read(reader, i, &block, &header);
        } else {
            struct ring_slot slot;
            rc = ring_find(store->ring, i, &slot);
            if (rc == 0) rc = block_header_read(block = ring_at(store->ring, slot.pos), slot.bytes, &header);
            if (rc == 0)
                rc = header.header_crc == slot.header_crc ? block_body_check(block, &header) : LOCKSTEP_ECORRUPT;
        }
        if (rc == 0) rc = block_chain_check(&chain, &header);
        require(rc == 0, "block %lu: %s", (unsigned long)i, lockstep_error_text(rc));
        chain = l->known[i] = block_base_after(&header);
        view->crcs[i] = header.header_crc;
    }
    storage_reader_close(reader);
    require(recovered->last.crc == view->crcs[view->last], "the last block is another one");
    check_runs(recovered);
}

/* --- what a node does -------------------------------------------------------------------------------------------- */

void lives_note_acked(struct lives *l)
{
    const struct lives_promise *p = l->promise;
    uint64_t seq = storage_persisted(l->store->storage);
    uint32_t count = p->acked_count;
    while (count < p->step_count && p->steps[count].seq <= seq) {
        if (p->steps[count].index == 0) l->durable_term = p->steps[count].hard_state.term;
        count++;
    }
    if (count != p->acked_count) take(l, &(struct lives_note){.type = LIVES_ACKED, .acked_count = count});
}

void lives_persist(struct lives *l, raft_index first, bool with_hard_state)
{
    struct store *store = l->store;
    uint64_t seq = store_persist(store, first, with_hard_state); /* queued: nothing is written yet */
    struct lives_note note = {.type = LIVES_STEP, .step = {.hard_state = store->hard_state, .seq = seq}};
    if (with_hard_state) take(l, &note);
    for (raft_index i = first; first != 0 && i <= ring_last(store->ring).index; i++) {
        struct ring_slot slot;
        struct block_header header;
        int rc = ring_find(store->ring, i, &slot);
        lk_assert(rc == 0);
        memcpy(&header, ring_at(store->ring, slot.pos), sizeof header);
        l->known[i] = block_base_after(&header);
        note.step = (struct lives_step){.index = i, .crc = slot.header_crc, .seq = seq};
        take(l, &note);
    }
}

static bool append_some(struct lives *l)
{
    uint64_t count = random_between(l->dice, 1, 4);
    bool any = false;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bytes =
            (uint32_t)random_below(l->dice, random_chance(l->dice, 1, 8) ? 12000 : l->mood.block_bytes_max);
        if (!store_append(l->store, l->store->hard_state.term, bytes, random_u64(l->dice))) break;
        any = true;
    }
    return any;
}

static void do_append(struct lives *l)
{
    raft_index first = ring_last(l->store->ring).index + 1;
    if (append_some(l)) lives_persist(l, first, false);
}

static void do_term(struct lives *l)
{
    l->store->hard_state.term += random_between(l->dice, 1, 3);
    l->store->hard_state.vote = random_below(l->dice, 3);
    lives_persist(l, 0, true);
}

static void do_vote(struct lives *l)
{
    if (l->store->hard_state.vote != 0) return;
    l->store->hard_state.vote = random_between(l->dice, 1, 3);
    lives_persist(l, 0, true);
}

/* A new leader contradicts what is not committed. */
static void do_cut(struct lives *l)
{
    struct store *store = l->store;
    raft_index last = ring_last(store->ring).index, commit = l->promise->commit;
    if (last <= commit || !storage_persist_fits(store->storage, 4 * 12100)) return;
    if (ring_room(store->ring, 4 * 12100) < 4 * 12100) return;
    raft_index first = random_between(l->dice, commit + 1, last);
    store->hard_state.term++;
    store->hard_state.vote = 0;
    store_cut(store, first);
    bool any = append_some(l);
    lk_assert(any);
    lives_persist(l, first, true);
}

static void do_commit(struct lives *l)
{
    raft_index last = ring_last(l->store->ring).index;
    if (last <= l->promise->commit) return;
    raft_index commit =
        random_between(l->dice, l->promise->commit, last); /* also what is not durable here: two others have it */
    take(l, &(struct lives_note){.type = LIVES_COMMIT, .commit = commit});
    storage_commit(l->store->storage, commit);
}

static void do_republish(struct lives *l)
{
    struct ring *ring = l->store->ring;
    if (ring_last(ring).index <= l->promise->commit) return;
    ring_epoch_begin(ring);
    (void)ring_republish(ring, l->promise->commit + 1);
    ring_epoch_end(ring, l->store->hard_state.term, false);
}

/* This node takes a snapshot at some committed block, and may break it off. */
static void do_snapshot(struct lives *l)
{
    uint8_t bytes[LIVES_CONTENT_BYTES_MAX];
    struct storage *storage = l->store->storage;
    struct storage_status status;
    struct ring_slot slot;
    storage_status_read(storage, &status);
    if (l->promise->commit <= status.snapshot || storage_installing(storage)) return;
    raft_index index = random_between(l->dice, status.snapshot + 1, l->promise->commit);
    if (ring_find(l->store->ring, index, &slot) != 0 || l->known[index].crc != slot.header_crc) return;
    if (storage_snapshot_begin(storage, &l->known[index]) != 0) return;
    uint64_t count = content_bytes(l->known[index].crc);
    content(l->known[index].crc, bytes);
    for (uint64_t at = 0; at < count;) {
        uint64_t now = random_between(l->dice, 1, count - at);
        if (storage_snapshot_write(storage, bytes + at, now) != 0) break;
        at += now;
        if (random_chance(l->dice, 1, 4)) store_run_log(l->store, 0);
    }
    (void)storage_snapshot_end(storage, random_chance(l->dice, 9, 10));
    l->counts.snapshots++;
}

/* Which snapshot the leader brings in this life: one of a log that this one contradicts or does not reach, or the one of an
 * earlier life, which goes on. */
static void choose_offer(struct lives *l)
{
    uint8_t bytes[LIVES_CONTENT_BYTES_MAX];
    struct storage_incoming held;
    struct block_base last = ring_last(l->store->ring);
    raft_index commit = l->promise->commit;
    struct storage_snapshot *offered = &l->offered;
    *offered = (struct storage_snapshot){.base = last};
    offered->base.index = last.index > commit && random_chance(l->dice, 1, 2)
                              ? random_between(l->dice, commit + 1, last.index)
                              : last.index + random_between(l->dice, 1, 20);
    offered->base.term = l->store->hard_state.term;
    offered->base.crc = (uint32_t)random_u64(l->dice);
    offered->bytes = content_bytes(offered->base.crc);
    content(offered->base.crc, bytes);
    offered->checksum = crc32c(bytes, offered->bytes);
    if (storage_incoming(l->store->storage, &held) && held.offset > 0 && !held.complete &&
        held.snapshot.base.index > commit && held.snapshot.base.term <= l->store->hard_state.term) {
        *offered = held.snapshot;
        l->counts.resumed++;
    }
}

/* A leader brings a snapshot: the next piece, or what follows. */
static void do_install(struct lives *l)
{
    static const struct storage_install_configuration none;
    uint8_t bytes[LIVES_CONTENT_BYTES_MAX];
    struct storage *storage = l->store->storage;
    struct storage_incoming held;
    if (l->promise->install.asked) return;
    if (l->offered.base.index == 0) choose_offer(l);
    if (l->offered.base.index <= l->promise->commit) {
        if (storage_incoming(storage, &held)) storage_install_drop(storage);
        l->offered.base.index = 0;
        return;
    }
    if (!storage_incoming(storage, &held)) return;
    bool ours = held.snapshot.base.crc == l->offered.base.crc;
    if (!ours || !held.complete) {
        uint64_t offset = ours ? held.offset : 0, left = l->offered.bytes - offset;
        content(l->offered.base.crc, bytes);
        int rc = storage_install_piece(storage, &l->offered, offset, bytes + offset, left < 512 ? left : 512);
        require(rc == 0, "a piece was refused: %s", lockstep_error_text(rc));
        return;
    }
    /* The term is durable before (the core sees to that); blocks, and votes, may be anywhere. */
    if (l->store->hard_state.term != l->durable_term) return;
    take(l, &(struct lives_note){.type = LIVES_INSTALL_ASKED, .install = l->offered.base});
    storage_install(storage, &none);
}

static void look_for_install(struct lives *l)
{
    struct block_base base;
    struct ring *ring = l->store->ring;
    ring_epoch_begin(ring);
    bool done = storage_install_done(l->store->storage, &base);
    ring_epoch_end(ring, l->store->hard_state.term, false);
    if (!done) return;
    require(base.index == l->offered.base.index && ring_last(ring).crc == base.crc, "another snapshot was installed");
    l->known[base.index] = base;
    take(l, &(struct lives_note){.type = LIVES_INSTALL_DONE, .install = base});
    take(l,
         &(struct lives_note){.type = LIVES_STEP,
                              .step = {.index = base.index, .crc = base.crc, .seq = l->store->seq, .install = true}});
    l->counts.installs++;
}

/* --- a life ------------------------------------------------------------------------------------------------------- */

void lives_options(struct store *store)
{
    store->options.piece_bytes = 512;
    store->options.keep_bytes = 4000;
}

static void choose_mood(struct lives *l)
{
    static const struct {
        uint32_t term, cut, commit, republish, log, journal, idle, append, snapshot, install, block_bytes_max;
    } moods[] = {
        {2, 2, 2, 1, 2, 2, 1, 4, 1, 0, 900},   /* a bit of everything */
        {1, 1, 0, 1, 1, 4, 1, 12, 0, 0, 6000}, /* nothing is committed: the ring fills */
        {8, 1, 0, 1, 2, 8, 1, 2, 0, 1, 6000},  /* terms and votes over blocks that stay: Q cannot move, packs */
        {1, 4, 4, 0, 4, 1, 0, 8, 2, 0, 300},   /* much in one frame: cuts behind what they cut */
        {1, 1, 6, 0, 6, 6, 1, 12, 2, 0, 9000}, /* load: laps */
        {2, 2, 1, 0, 4, 3, 1, 3, 1, 8, 900},   /* a leader brings a snapshot */
    };
    uint64_t face = random_below(l->dice, sizeof moods / sizeof moods[0]);
    memcpy(&l->mood, &moods[face], sizeof l->mood);
}

void lives_begin(struct lives *l)
{
    static struct lives_note note;
    note.type = LIVES_OPENED;
    lives_read(l, &note.view);
    take(l, &note);
    l->durable_term = note.view.hard_state.term;
    l->offered.base.index = 0;
    choose_mood(l);
}

bool lives_goes_on(const struct lives *l)
{
    return ring_last(l->store->ring).index < LIVES_LOG_MAX - 64 && l->promise->step_count < LIVES_STEPS_MAX - 64;
}

void lives_turn(struct lives *l)
{
    if (l->store->hard_state.term == 0) do_term(l); /* no block before the first term */
    uint64_t face =
        random_below(l->dice, l->mood.term + l->mood.cut + l->mood.commit + l->mood.republish + l->mood.log +
                                  l->mood.journal + l->mood.idle + l->mood.append + l->mood.snapshot + l->mood.install);
    bool installing = storage_installing(l->store->storage); /* then no block is published */
    if (face < l->mood.term) {
        if (random_chance(l->dice, 1, 2))
            do_term(l);
        else
            do_vote(l);
    } else if ((face -= l->mood.term) < l->mood.cut) {
        if (!installing) do_cut(l);
    } else if ((face -= l->mood.cut) < l->mood.commit) {
        if (!installing) do_commit(l);
    } else if ((face -= l->mood.commit) < l->mood.republish) {
        if (!installing) do_republish(l);
    } else if ((face -= l->mood.republish) < l->mood.log) {
        store_run_log(l->store, random_chance(l->dice, 1, 2) ? 1000000000 : 0);
    } else if ((face -= l->mood.log) < l->mood.journal) {
        store_run_journal(l->store, 0);
    } else if ((face -= l->mood.journal) < l->mood.idle) {
        store_run_journal(l->store, 5000000);
    } else if ((face -= l->mood.idle) < l->mood.append) {
        if (!installing) do_append(l);
    } else if ((face -= l->mood.append) < l->mood.snapshot) {
        do_snapshot(l);
    } else {
        do_install(l);
    }
    look_for_install(l);
    lives_note_acked(l);
}

void lives_end(struct lives *l)
{
    struct storage_status status;
    storage_status_read(l->store->storage, &status);
    l->counts.frames += status.frames; /* of a page at least */
    l->counts.packs += status.packs;
    l->counts.refusals += !storage_persist_fits(l->store->storage, 16384);
}
