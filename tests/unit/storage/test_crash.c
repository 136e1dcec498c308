/* SPDX-License-Identifier: Apache-2.0 */
/* test_crash.c - ring, journal and log over a disk that loses power at any operation, for ever opened again.
 *
 * The model is the list of what was submitted, one step a hard state or a block, in order. After any crash the log and
 * the hard state have to be those after some prefix of it, and at least after what was reported durable: so nothing that
 * was acknowledged is lost (R7), nothing that was truncated returns (T50), no vote goes back (T1), and no half of a
 * frame is seen (T53). What LMDB held before, it holds after. Crashes hit recovery itself, again and again (J3).
 *
 * Snapshots are taken and the log is compacted behind them; what is found is then compared from the base on, and the
 * snapshot's bytes must be those of its block (T43). A leader's snapshot may take the place of the whole log, at most once a
 * life: from the moment it was asked for the log may be empty behind it, from the moment it was reported it must be, and
 * nothing of the old log comes back, however much of the journal was not flushed (J4, T38, T40, T50). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/blocks.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

enum { LOG_MAX = 4096, STEPS_MAX = 16384 };

/* One step of what was submitted. */
struct step {
    raft_index index; /* 0 = a hard state */
    uint32_t crc;
    struct storage_hard_state hard_state;
    uint64_t seq; /* of its persist */
    bool install; /* the log is empty behind index */
};

struct view {
    raft_index base;
    raft_index last;
    uint32_t crcs[LOG_MAX];
    struct storage_hard_state hard_state;
};

static struct sim_disk *disk;
static struct sim_kv *kv;
static struct store store;
static struct random dice;
static struct view base_view; /* durable when the storage was opened */
static struct step steps[STEPS_MAX];
static uint32_t step_count, acked_count;
static raft_index commit, compacted_up_to;
static raft_term durable_term;
static uint64_t crashes, recovery_crashes, snapshots, compactions, installs, install_crashes, resumed;

/* What a block's base is, by index: of the version submitted last. */
static struct block_base known[LOG_MAX + 64];

/* The install of this life. */
static struct {
    struct storage_snapshot snapshot;
    bool offered, asked, done;
    uint32_t steps_before; /* when it was done */
} install;

/* How a life goes: each makes other states likely. */
static struct {
    uint32_t term, cut, commit, republish, log, journal, idle, append, snapshot, install; /* weights */
    uint32_t block_bytes_max;
} mood;

static void view_take(struct view *view, const struct step *step)
{
    if (step->index == 0) {
        view->hard_state = step->hard_state;
        return;
    }
    if (step->install) view->base = step->index;
    lk_assert(step->install || (step->index <= view->last + 1 && step->index < LOG_MAX));
    view->crcs[step->index] = step->crc;
    view->last = step->index;
}

static bool view_equal(const struct view *a, const struct view *b)
{
    raft_index from = a->base > b->base ? a->base : b->base; /* what is compacted shows no more */
    if (a->last != b->last || from > a->last) return false;
    if (a->hard_state.term != b->hard_state.term || a->hard_state.vote != b->hard_state.vote) return false;
    return memcmp(a->crcs + from, b->crcs + from, (a->last - from + 1) * sizeof a->crcs[0]) == 0;
}

static void step_add(const struct step *step)
{
    ck_assert_uint_lt(step_count, STEPS_MAX);
    steps[step_count++] = *step;
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

static void check_snapshot(struct storage_reader *reader)
{
    static uint8_t expected[4096];
    const struct storage_snapshot *is = &store.recovered.snapshot;
    ck_assert_uint_le(store.recovered.base.index, is->base.index);
    if (is->base.index == 0) return;
    ck_assert_uint_le(is->base.index, store.recovered.stored);
    ck_assert_uint_eq(is->bytes, content_bytes(is->base.crc));
    content(is->base.crc, expected);
    for (uint64_t offset = 0; offset < is->bytes;) {
        struct storage_snapshot seen;
        const uint8_t *bytes;
        size_t count;
        ck_assert_int_eq(storage_piece_read(reader, STORAGE_SNAPSHOT_NEWEST, offset, &seen, &bytes, &count), 0);
        ck_assert_uint_eq(seen.base.crc, is->base.crc);
        ck_assert_mem_eq(bytes, expected + offset, count);
        offset += count;
    }
}

/* What the reopened storage shows, LMDB's part through the reader. */
static void view_read(struct view *view)
{
    struct storage_reader *reader = NULL;
    memset(view, 0, sizeof *view);
    view->hard_state = store.recovered.hard_state;
    view->last = store.recovered.last.index;
    ck_assert_int_eq(storage_reader_open(store.storage, &reader), 0);
    view->base = store.recovered.base.index;
    view->crcs[view->base] = store.recovered.base.crc;
    check_snapshot(reader);
    for (raft_index i = view->base + 1; i <= view->last; i++) {
        struct block_header header;
        const uint8_t *block;
        struct ring_slot slot;
        if (i <= store.recovered.stored) {
            ck_assert_int_eq(storage_read(reader, i, &block, &header), 0);
            view->crcs[i] = header.header_crc;
        } else {
            ck_assert_int_eq(ring_find(store.ring, i, &slot), 0);
            ck_assert_int_eq(block_header_read(ring_at(store.ring, slot.pos), slot.bytes, &header), 0);
            ck_assert_int_eq(block_body_check(ring_at(store.ring, slot.pos), &header), 0);
            ck_assert_uint_eq(header.index, i);
            view->crcs[i] = slot.header_crc;
        }
    }
    storage_reader_close(reader);
    if (view->last > store.recovered.stored) return;
    ck_assert_uint_eq(store.recovered.last.crc, view->crcs[view->last]);
}

static void check_runs(void)
{
    const struct storage_recovered *r = &store.recovered;
    if (r->last.index == r->base.index) {
        ck_assert_uint_eq(r->run_count, 0);
        return;
    }
    ck_assert_uint_gt(r->run_count, 0);
    ck_assert_uint_eq(r->runs[0].first_index, r->base.index + 1);
    ck_assert_uint_eq(r->runs[r->run_count - 1].term, r->last.term);
    for (uint32_t i = 1; i < r->run_count; i++) {
        ck_assert_uint_gt(r->runs[i].term, r->runs[i - 1].term);
        ck_assert_uint_gt(r->runs[i].first_index, r->runs[i - 1].first_index);
    }
}

/* Whether what was found is the state after so many steps. expected becomes what it really is. */
static bool prefix_matches(const struct view *found, struct view *expected, uint32_t count)
{
    if ((!install.done || count > install.steps_before) && view_equal(found, expected)) return true;
    if (!install.asked || (install.done && count > install.steps_before)) return false;
    raft_index index = install.snapshot.base.index; /* it stands in LMDB, whatever the journal had of the old log */
    if (found->base != index || found->last != index || found->crcs[index] != install.snapshot.base.crc) return false;
    if (found->hard_state.term != expected->hard_state.term || found->hard_state.vote != expected->hard_state.vote)
        return false;
    *expected = *found;
    if (!install.done) install_crashes++;
    install.done = true;
    return true;
}

/* Open until it succeeds; the power may go again in the middle. Then compare with the model. */
static void open_and_check(void)
{
    static struct view found, expected;
    sim_kv_capacity(kv, UINT64_MAX);
    for (;;) {
        if (random_chance(&dice, 1, 2)) sim_disk_power_cut_after(disk, random_below(&dice, 24));
        int rc = store_open(&store);
        if (rc == 0) break;
        ck_assert_msg(!sim_disk_powered(disk), "open failed with power on: %d %s", rc, store.why);
        sim_disk_power_on(disk);
        recovery_crashes++;
    }
    sim_disk_power_cut_after(disk, UINT64_MAX - sim_disk_operations(disk));
    view_read(&found);
    check_runs();
    expected = base_view;
    bool matches = acked_count == 0 && prefix_matches(&found, &expected, 0);
    for (uint32_t i = 0; i < step_count && !matches; i++) {
        view_take(&expected, &steps[i]);
        matches = i + 1 >= acked_count && prefix_matches(&found, &expected, i + 1);
    }
    ck_assert_msg(matches,
                  "recovered last=%lu term=%lu vote=%lu stored=%lu is no prefix of %u steps with %u acknowledged",
                  (unsigned long)found.last, (unsigned long)found.hard_state.term, (unsigned long)found.hard_state.vote,
                  (unsigned long)store.recovered.stored, step_count, acked_count);
    ck_assert_uint_le(store.recovered.commit, found.last);
    if (install.done && commit < install.snapshot.base.index) commit = install.snapshot.base.index;
    ck_assert_uint_le(store.recovered.commit, commit);
    ck_assert_uint_ge(store.recovered.commit, store.recovered.stored);
    base_view = expected;
    base_view.base = found.base;
    if (base_view.base > compacted_up_to) compactions++;
    compacted_up_to = base_view.base;
    step_count = acked_count = 0;
    commit = store.recovered.commit;
    memset(&install, 0, sizeof install);
    durable_term = store.recovered.hard_state.term;
}

/* --- what a node does -------------------------------------------------------------------------------------------- */

static void note_acked(void)
{
    uint64_t seq = storage_persisted(store.storage);
    while (acked_count < step_count && steps[acked_count].seq <= seq) {
        if (steps[acked_count].index == 0) durable_term = steps[acked_count].hard_state.term;
        acked_count++;
    }
}

static void persist(raft_index first, bool with_hard_state)
{
    uint64_t seq = store_persist(&store, first, with_hard_state);
    if (with_hard_state) step_add(&(struct step){.hard_state = store.hard_state, .seq = seq});
    for (raft_index i = first; first != 0 && i <= ring_last(store.ring).index; i++) {
        struct ring_slot slot;
        ck_assert_int_eq(ring_find(store.ring, i, &slot), 0);
        struct block_header header;
        memcpy(&header, ring_at(store.ring, slot.pos), sizeof header);
        known[i] = block_base_after(&header);
        step_add(&(struct step){.index = i, .crc = slot.header_crc, .seq = seq});
    }
}

static bool append_some(void)
{
    uint64_t count = random_between(&dice, 1, 4);
    bool any = false;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bytes = (uint32_t)random_below(&dice, random_chance(&dice, 1, 8) ? 12000 : mood.block_bytes_max);
        if (!store_append(&store, store.hard_state.term, bytes, random_u64(&dice))) break;
        any = true;
    }
    return any;
}

static void do_append(void)
{
    raft_index first = ring_last(store.ring).index + 1;
    if (append_some()) persist(first, false);
}

static void do_term(void)
{
    store.hard_state.term += random_between(&dice, 1, 3);
    store.hard_state.vote = random_below(&dice, 3);
    persist(0, true);
}

static void do_vote(void)
{
    if (store.hard_state.vote != 0) return;
    store.hard_state.vote = random_between(&dice, 1, 3);
    persist(0, true);
}

/* A new leader contradicts what is not committed. */
static void do_cut(void)
{
    raft_index last = ring_last(store.ring).index;
    if (last <= commit || !storage_persist_fits(store.storage, 4 * 12100)) return;
    if (ring_room(store.ring, 4 * 12100) < 4 * 12100) return;
    raft_index first = random_between(&dice, commit + 1, last);
    store.hard_state.term++;
    store.hard_state.vote = 0;
    store_cut(&store, first);
    ck_assert(append_some());
    persist(first, true);
}

static void do_commit(void)
{
    raft_index last = ring_last(store.ring).index;
    if (last <= commit) return;
    commit = random_between(&dice, commit, last); /* also what is not durable here: two others have it */
    storage_commit(store.storage, commit);
}

static void do_republish(void)
{
    if (ring_last(store.ring).index <= commit) return;
    ring_epoch_begin(store.ring);
    (void)ring_republish(store.ring, commit + 1);
    ring_epoch_end(store.ring, store.hard_state.term, false);
}

/* This node takes a snapshot at some committed block, and may break it off. */
static void do_snapshot(void)
{
    static uint8_t bytes[4096];
    struct storage_status status;
    struct ring_slot slot;
    storage_status_read(store.storage, &status);
    if (commit <= status.snapshot || storage_installing(store.storage)) return;
    raft_index index = random_between(&dice, status.snapshot + 1, commit);
    if (ring_find(store.ring, index, &slot) != 0 || known[index].crc != slot.header_crc) return;
    if (storage_snapshot_begin(store.storage, &known[index]) != 0) return;
    uint64_t count = content_bytes(known[index].crc);
    content(known[index].crc, bytes);
    for (uint64_t at = 0; at < count;) {
        uint64_t now = random_between(&dice, 1, count - at);
        if (storage_snapshot_write(store.storage, bytes + at, now) != 0) break;
        at += now;
        if (random_chance(&dice, 1, 4)) store_run_log(&store, 0);
    }
    storage_snapshot_end(store.storage, random_chance(&dice, 9, 10));
    snapshots++;
}

/* A leader brings a snapshot of a log that this one contradicts or does not reach: the next piece, or what follows. */
static void do_install(void)
{
    static uint8_t bytes[4096];
    struct storage_incoming held;
    struct block_base last = ring_last(store.ring);
    if (install.done || install.asked) return;
    if (!install.offered) {
        install.snapshot = (struct storage_snapshot){.base = last};
        install.snapshot.base.index = last.index > commit && random_chance(&dice, 1, 2)
                                          ? random_between(&dice, commit + 1, last.index)
                                          : last.index + random_between(&dice, 1, 20);
        install.snapshot.base.term = store.hard_state.term;
        install.snapshot.base.crc = (uint32_t)random_u64(&dice);
        install.snapshot.bytes = content_bytes(install.snapshot.base.crc);
        content(install.snapshot.base.crc, bytes);
        install.snapshot.checksum = crc32c(bytes, install.snapshot.bytes);
        install.offered = true;
        if (storage_incoming(store.storage, &held) && held.offset > 0 && !held.complete &&
            held.snapshot.base.index > commit && held.snapshot.base.term <= store.hard_state.term) {
            install.snapshot = held.snapshot; /* the one of an earlier life goes on */
            resumed++;
        }
    }
    if (install.snapshot.base.index <= commit) {
        if (storage_incoming(store.storage, &held)) storage_install_drop(store.storage);
        install.offered = false;
        return;
    }
    if (!storage_incoming(store.storage, &held)) return;
    bool ours = held.snapshot.base.crc == install.snapshot.base.crc;
    if (!ours || !held.complete) {
        uint64_t offset = ours ? held.offset : 0, left = install.snapshot.bytes - offset;
        content(install.snapshot.base.crc, bytes);
        int rc =
            storage_install_piece(store.storage, &install.snapshot, offset, bytes + offset, left < 512 ? left : 512);
        ck_assert_int_eq(rc, 0);
        return;
    }
    /* The term is durable before (the core sees to that); blocks, and votes, may be anywhere. */
    if (store.hard_state.term != durable_term) return;
    static struct storage_install_configuration none;
    install.asked = true;
    storage_install(store.storage, &none);
}

static void look_for_install(void)
{
    struct block_base base;
    ring_epoch_begin(store.ring);
    bool done = storage_install_done(store.storage, &base);
    ring_epoch_end(store.ring, store.hard_state.term, false);
    if (!done) return;
    ck_assert_uint_eq(base.index, install.snapshot.base.index);
    ck_assert_uint_eq(ring_last(store.ring).crc, base.crc);
    install.done = true;
    install.steps_before = step_count;
    commit = base.index;
    known[base.index] = base;
    step_add(&(struct step){.index = base.index, .crc = base.crc, .seq = store.seq, .install = true});
    installs++;
}

static void choose_mood(void)
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
    uint64_t face = random_below(&dice, sizeof moods / sizeof moods[0]);
    memcpy(&mood, &moods[face], sizeof mood);
    sim_kv_capacity(kv, random_chance(&dice, 1, 8) ? 0 : UINT64_MAX); /* or: no space for the log */
}

static void one_turn(void)
{
    if (store.hard_state.term == 0) do_term(); /* no block before the first term */
    uint64_t face = random_below(&dice, mood.term + mood.cut + mood.commit + mood.republish + mood.log + mood.journal +
                                            mood.idle + mood.append + mood.snapshot + mood.install);
    bool installing = storage_installing(store.storage); /* then no block is published */
    if (face < mood.term) {
        if (random_chance(&dice, 1, 2))
            do_term();
        else
            do_vote();
    } else if ((face -= mood.term) < mood.cut) {
        if (!installing) do_cut();
    } else if ((face -= mood.cut) < mood.commit) {
        if (!installing) do_commit();
    } else if ((face -= mood.commit) < mood.republish) {
        if (!installing) do_republish();
    } else if ((face -= mood.republish) < mood.log) {
        store_run_log(&store, random_chance(&dice, 1, 2) ? 1000000000 : 0);
    } else if ((face -= mood.log) < mood.journal) {
        store_run_journal(&store, 0);
    } else if ((face -= mood.journal) < mood.idle) {
        store_run_journal(&store, 5000000);
    } else if ((face -= mood.idle) < mood.append) {
        if (!installing) do_append();
    } else if ((face -= mood.append) < mood.snapshot) {
        do_snapshot();
    } else {
        do_install();
    }
    look_for_install();
    note_acked();
}

/* What the lives went through, so that a test that reaches nothing does not pass. */
static uint64_t frames, world_frames, laps, packs, refusals;

static void count_what_happened(void)
{
    struct storage_status status;
    storage_status_read(store.storage, &status);
    world_frames += status.frames; /* of a page at least */
    packs += status.packs;
    refusals += !storage_persist_fits(store.storage, 16384);
}

/* One process's life, until the power goes, or it is killed: then what the page cache holds survives. */
static void live(void)
{
    bool power = random_chance(&dice, 3, 4);
    uint64_t turns = random_between(&dice, 5, 300);
    choose_mood();
    if (power) sim_disk_power_cut_after(disk, random_below(&dice, random_chance(&dice, 1, 2) ? 40 : 400));
    for (uint64_t i = 0; i < turns && ring_last(store.ring).index < LOG_MAX - 64 && step_count < STEPS_MAX - 64; i++) {
        one_turn();
        if (storage_failed(store.storage, NULL) != 0) break;
    }
    ck_assert_msg(storage_failed(store.storage, NULL) == 0 || !sim_disk_powered(disk), "failed with power on");
    if (power && sim_disk_powered(disk)) sim_disk_power_cut(disk);
    note_acked();
    count_what_happened();
    store_close(&store);
    if (!sim_disk_powered(disk)) sim_disk_power_on(disk);
    crashes++;
}

static void world_open(uint64_t seed)
{
    random_seed(&dice, seed);
    disk = sim_disk_open(random_u64(&dice));
    kv = sim_kv_open(disk);
    store_options(&store, "d", sim_disk(disk), sim_kv(kv));
    ck_assert_int_eq(sim_disk(disk)->make_directory(sim_disk(disk)->context, "d"), 0);
    ck_assert_int_eq(sim_disk(disk)->flush_directory(sim_disk(disk)->context, "."), 0);
    store.options.piece_bytes = 512;
    store.options.keep_bytes = 4000;
    compacted_up_to = 0;
    memset(&base_view, 0, sizeof base_view);
    step_count = acked_count = 0;
    commit = 0;
}

static void world_close(void)
{
    store_close(&store);
    sim_kv_close(kv);
    sim_disk_close(disk);
}

START_TEST(every_crash_leaves_a_prefix_with_all_that_was_acknowledged) /* J1 to J5, T49, T50, T52, T53 */
{
    uint64_t seed = unit_seed(0x5eed41), worlds = unit_rounds(60);
    for (uint64_t world = 0; world < worlds; world++) {
        if (worlds > 1) printf("world seed 0x%lx\n", (unsigned long)(seed + world));
        world_open(seed + world);
        for (int lives = 0; lives < 25; lives++) {
            open_and_check();
            if (ring_last(store.ring).index >= LOG_MAX - 64) break;
            live();
        }
        open_and_check();
        frames += world_frames;
        laps += world_frames * 4096 / store.options.journal_bytes;
        world_frames = 0;
        world_close();
    }
    printf("crashes %lu, in recovery %lu, frames %lu, laps at least %lu, packs %lu, ends with a full journal %lu\n",
           (unsigned long)crashes, (unsigned long)recovery_crashes, (unsigned long)frames, (unsigned long)laps,
           (unsigned long)packs, (unsigned long)refusals);
    printf("snapshots %lu, bases moved %lu, installs %lu, taken up again %lu, cut off in the last step but there %lu\n",
           (unsigned long)snapshots, (unsigned long)compactions, (unsigned long)installs, (unsigned long)resumed,
           (unsigned long)install_crashes);
    ck_assert_uint_gt(recovery_crashes, 0);
    ck_assert_uint_gt(laps, 0);
    ck_assert_uint_gt(packs, 0);
    ck_assert_uint_gt(refusals, 0);
    ck_assert_uint_gt(compactions, 0);
    ck_assert_uint_gt(installs, 0);
    ck_assert_uint_gt(resumed, 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, every_crash_leaves_a_prefix_with_all_that_was_acknowledged);
}

int main(void)
{
    return unit_main("storage crash", add);
}
