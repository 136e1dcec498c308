/* SPDX-License-Identifier: Apache-2.0 */
/* ring.c - every interleaving of a ring's writer and its readers, within bounds, on the real code: storage/ring.c and
 * proto/ring_reader.c, whose accesses to shared words are the steps of steps.h.
 *
 * A case is what its node does, once it stands where the case begins, and what its readers do meanwhile. First the node's
 * part is rehearsed alone: which blocks the log has under which epoch, which were committed, which left the ring. In the
 * exploration each reader compares all that it gets with that:
 *   a view's term, role, commit, last index and round are of its epoch
 *   a block that was copied is whole, and the one that the log has at its index under that epoch
 *   a block at or below the commit is the one that was committed
 *   who is told that it was lapped, was; nothing is ever called corrupt
 *   an ack that the node counts was given under its present epoch
 *   nobody waits for ever, and everybody comes to an end whatever the others do (they may stop at any step)
 * That the node waits for no reader (S6) needs no search: it loads no word that a reader stores but acks and sleep words. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "proto/ring_reader.h"
#include "storage/ring.h"
#include "tests/explore/steps.h"
#include "tests/support/blocks.h"

enum {
    BYTES = RING_BYTES_MIN,
    BYTES_AT = 4096 + BYTES / RING_BYTES_PER_SLOT * 32,
    READERS = 2,
    INDEX_MAX = 600,
    EPOCHS_MAX = 16,
    BEATS_MAX = 8,
    ACCESSES_MAX = 2000,
    /* Words: the segment, the readers' slots, what the harness adds. */
    WORDS_SLOT = (BYTES_AT + BYTES) / 8,
    SLOT_WORDS = 4096 / 8,
    WORDS_GHOST = WORDS_SLOT + READERS * SLOT_WORDS,
};

enum size { SHORT, USUAL, FULL, SIZES };

/* Shared words that are no part of the protocol. */
static struct ghost {
    ring_word acked[READERS]
                   [EPOCHS_MAX]; /* the highest index that a reader has acked, or is about to, under an epoch */
    ring_word bell[1 + READERS]; /* of the node, of the readers: something lies in the socket */
} ghost;

/* What the log was under one epoch. */
struct truth {
    bool known, leads;
    raft_term term;
    raft_index last;
    uint64_t round_max;
    uint32_t crc[INDEX_MAX];
};

struct scenario {
    const char *name, *what;
    void (*set_up)(void), (*node)(void), (*reader)(void);
    unsigned readers;
    uint32_t block_bytes;  /* of most blocks; they are copied and written in halves */
    raft_index first;      /* that a reader wants */
    unsigned looks[SIZES]; /* of each reader; 0 = left out */
};

static const struct scenario *now;
static struct truth truths[EPOCHS_MAX];
static uint32_t committed[INDEX_MAX];
static uint64_t beat_round[BEATS_MAX], beat_epoch[BEATS_MAX], beats;
static raft_index first_kept; /* of the ring, when all is done */
static bool rehearses;
static enum size size = USUAL;
static const char *plant = "";

static struct ring *ring;
static struct ring_reader *reader;
static uint8_t *node_image, *ring_image; /* of segment and struct ring, where the case begins */
static size_t ring_image_bytes;
static uint8_t *segment; /* as the node has it mapped */
static const struct ring_reader_slot *slots_seen[READERS];
static struct ring_reader_slot *slots[READERS];
static unsigned self; /* which reader runs */

static bool is_planted(const char *name)
{
    return strcmp(plant, name) == 0;
}

/* --- what the node does ------------------------------------------------------------------------------------------- */

static struct truth *truth_now(void)
{
    struct truth *t = &truths[ring_epoch(ring) / 2];
    lk_assert(ring_epoch(ring) / 2 < EPOCHS_MAX);
    return t;
}

static void publish_bytes(raft_term term, uint32_t bytes)
{
    static uint8_t block[BYTES / 2];
    struct block_base base = ring_last(ring);
    struct block_header header;
    uint8_t *at = NULL;
    bool has_command = bytes > BLOCK_HEADER_BYTES;
    uint32_t payload = has_command ? bytes - BLOCK_HEADER_BYTES - COMMAND_HEADER_BYTES : 0;
    blocks_make(block, &base, term, has_command ? 1 : 0, payload, base.index + term, &header);
    lk_assert(header.bytes == bytes && header.index < INDEX_MAX);
    int rc = ring_claim(ring, bytes, &at);
    lk_assert(rc == 0);
    ring_write(at, block, bytes);
    ring_publish(ring, &header);
    if (!rehearses) return;
    truth_now()->crc[header.index] = header.header_crc;
    truth_now()->last = header.index;
}

static void publish(raft_term term)
{
    publish_bytes(term, now->block_bytes);
}

/* Term and role change; with cut, blocks from there on go. What else has to happen under the odd epoch, does. */
static void change(raft_term term, bool leads, raft_index cut, void (*meanwhile)(void))
{
    const struct truth *before = truth_now();
    bool same = term == before->term && leads == before->leads;
    ring_epoch_begin(ring);
    if (cut != 0) ring_cut(ring, cut);
    if (meanwhile != NULL) meanwhile();
    ring_epoch_end(ring, term, leads);
    if (!rehearses) return;
    struct truth *t = truth_now();
    *t = *before;
    *t = (struct truth){.known = true, .leads = leads, .term = term, .last = ring_last(ring).index};
    memcpy(t->crc, before->crc, sizeof t->crc);
    if (same) t->round_max = before->round_max;
    for (raft_index i = t->last + 1; i < INDEX_MAX; i++) t->crc[i] = 0;
}

static void commit(raft_index index)
{
    ring_commit(ring, index);
    for (raft_index i = 1; rehearses && i <= index; i++) {
        if (committed[i] == 0) committed[i] = truth_now()->crc[i];
    }
}

static void store(void)
{
    commit(ring_last(ring).index);
    ring_release(ring, ring_last(ring).index);
}

static void beat(uint64_t round)
{
    ring_beat(ring, round);
    if (!rehearses) return;
    beats++;
    lk_assert(beats < BEATS_MAX);
    beat_round[beats] = round;
    beat_epoch[beats] = ring_epoch(ring);
    truth_now()->round_max = round;
}

/* S2: what counts was given under this epoch. */
static raft_index count_ack(unsigned i)
{
    struct ring_ack ack;
    uint64_t epoch = ring_epoch(ring);
    if (!ring_ack_load(slots_seen[i], epoch, &ack)) return 0;
    steps_check(ack.durable <= ack.validated, "S2: durable, but not validated");
    steps_check(ack.validated <= ring_word_load(&ghost.acked[i][epoch / 2]), "S2: an ack of another epoch is counted");
    steps_check(ack.round <= truths[epoch / 2].round_max, "S2: a round of another term is counted");
    return ack.durable;
}

/* What the node does does not depend on the acks that it counts. `place`: in the program. */
static void count_acks(uint64_t place)
{
    for (unsigned i = 0; i < now->readers; i++) (void)count_ack(i);
    steps_merge(place);
}

/* --- what a reader does ------------------------------------------------------------------------------------------- */

static void view_check(const struct ring_view *view)
{
    steps_check(view->epoch % 2 == 0 && view->epoch / 2 < EPOCHS_MAX && truths[view->epoch / 2].known,
                "S3: a view of no epoch");
    const struct truth *t = &truths[view->epoch / 2];
    steps_check(view->term == t->term && view->leads == t->leads, "S3: term or role of another epoch");
    steps_check(view->last_index <= t->last, "S3: the last index of another epoch");
    steps_check(view->commit <= view->last_index, "a commit above the last index");
    steps_check(view->round <= t->round_max, "a round of another term");
    bool beat_is_of_epoch = view->beat != 0 && beat_epoch[view->beat] == view->epoch;
    steps_check(!beat_is_of_epoch || view->round >= beat_round[view->beat], "a heartbeat without its round");
}

static void blocks_check(const struct ring_view *view, const uint8_t *bytes, raft_index first,
                         const struct ring_blocks *blocks)
{
    size_t at = 0;
    for (raft_index i = first; i <= blocks->last; i++) {
        struct block_header header;
        steps_check(block_header_read(bytes + at, blocks->bytes - at, &header) == 0 &&
                        block_body_check(bytes + at, &header) == 0,
                    "S1: bytes that are no whole block");
        steps_check(header.index == i, "S1: another block than was asked for");
        steps_check(header.header_crc == truths[view->epoch / 2].crc[i], "S3: a block of another epoch");
        steps_check(i > view->commit || header.header_crc == committed[i], "a committed block that was not committed");
        steps_check(i != blocks->last || header.term == blocks->last_term, "the term of another block");
        at += header.bytes;
    }
    steps_check(at == blocks->bytes, "blocks that are not as long as was said");
}

/* Copy at most two blocks from *next on, and check them. True: some came. */
static bool copy_some(const struct ring_view *view, raft_index *next, bool acks)
{
    static uint8_t bytes[BYTES];
    struct ring_blocks blocks;
    int rc = ring_reader_copy(reader, view, *next, *next + 1, bytes, sizeof bytes, &blocks);
    steps_check(rc != LOCKSTEP_ECORRUPT && rc != LOCKSTEP_ETOOBIG, "S5: what an honest node wrote is called corrupt");
    steps_check(rc != LOCKSTEP_ENOTFOUND || *next > view->last_index, "a block that is there is not found");
    steps_check(rc != LOCKSTEP_ELAPPED || *next < first_kept, "S1: lapped, but it was not");
    if (rc == LOCKSTEP_ELAPPED) ++*next;
    if (rc != 0) return false;
    blocks_check(view, bytes, *next, &blocks);
    *next = blocks.last + 1;
    if (!acks || !view->leads) return true;
    ring_word_store(&ghost.acked[self][view->epoch / 2], blocks.last);
    const struct ring_ack ack = {
        .epoch = view->epoch, .durable = blocks.last, .validated = blocks.last, .round = view->round};
    ring_ack_store(slots[self], &ack);
    return true;
}

static void look_often(bool acks)
{
    raft_index next = now->first;
    uint64_t epoch = 0;
    for (unsigned looks = now->looks[size]; looks > 0; looks--) {
        struct ring_view view;
        steps_merge(looks | epoch << 8 | next << 16 | ring_word_own(&slots[self]->epoch) << 32);
        int rc = ring_reader_look(reader, &view);
        steps_check(rc == 0 || rc == LOCKSTEP_EUNAVAILABLE, "S5: what an honest node wrote is called corrupt");
        if (rc != 0) continue;
        view_check(&view);
        if (view.epoch != epoch) next = now->first;
        epoch = view.epoch;
        (void)copy_some(&view, &next, acks);
    }
}

static void watch(void)
{
    look_often(false);
}

static void follow(void)
{
    look_often(true);
}

static void look_only(void)
{
    for (unsigned looks = now->looks[size]; looks > 0; looks--) {
        struct ring_view view;
        steps_merge(looks);
        if (ring_reader_look(reader, &view) == 0) view_check(&view);
    }
}

/* --- the cases ---------------------------------------------------------------------------------------------------- */

static void lead(void)
{
    change(1, true, 0, NULL);
}

static void publish_three(void)
{
    publish(1);
    commit(1);
    publish(1);
    publish(1);
    commit(2);
}

/* 64 KiB of blocks that may go. */
static void fill_bytes(void)
{
    lead();
    for (int i = 0; i < 64; i++) publish(1);
    store();
}

/* As many small blocks as the index map has slots. */
static void fill_map(void)
{
    lead();
    for (int i = 0; i < BYTES / RING_BYTES_PER_SLOT; i++) publish(1);
    store();
}

static void fill_unevenly(void)
{
    lead();
    publish_bytes(1, 512);
    for (int i = 0; i < 63; i++) publish(1);
    store();
}

static void publish_two(void)
{
    publish(1);
    publish(1);
    if (size == FULL) publish(1);
}

static void follow_with_three(void)
{
    change(1, false, 0, NULL);
    for (int i = 0; i < 3; i++) publish(1);
    commit(1);
}

static void cut_and_go_on(void)
{
    change(2, false, 2, NULL);
    publish(2);
    publish(2);
    commit(2);
}

static void cut_twice(void)
{
    change(2, false, 3, NULL);
    publish(2);
    change(3, false, 2, NULL);
    publish(3);
}

static void lead_with_three(void)
{
    lead();
    for (int i = 0; i < 3; i++) publish(1);
    commit(1);
}

static void republish(void)
{
    int rc = ring_republish(ring, ring_last(ring).index - 1);
    lk_assert(rc == 0);
}

static void publish_again(void)
{
    change(1, true, 0, republish);
    publish(1);
}

static void restart(void)
{
    const struct block_base base = {.index = 100, .term = 1, .crc = 77, .next_position = 1000, .time_ns = 5};
    ring_restart(ring, &base);
}

static void start_behind_a_snapshot(void)
{
    change(2, false, 0, restart);
    publish(2);
    publish(2);
}

static void lose_and_lead_again(void)
{
    publish(1);
    count_acks(1);
    change(2, false, 2, NULL);
    publish(2);
    change(3, true, 0, NULL);
    count_acks(2);
    publish(3);
    count_acks(3);
}

static void cut_and_lead_again(void)
{
    count_acks(1);
    change(2, false, 2, NULL);
    change(3, true, 0, NULL);
    publish(3);
    count_acks(2);
    count_acks(3);
}

static void beat_in_two_terms(void)
{
    beat(5);
    beat(6);
    change(2, true, 0, NULL);
    beat(2);
    if (size == FULL) beat(3);
}

static void count_two(void)
{
    publish(1);
    count_acks(1);
    change(2, true, 0, NULL);
    count_acks(2);
}

/* S7 as node and follower do it: each sleeps when there is nothing, and is woken by what the other published. */
static uint64_t rung_by_node, rung_by_reader;

static void node_bell(unsigned i)
{
    if (ring_sleeps_look(&slots_seen[i]->sleeps, &rung_by_node)) ring_word_store(&ghost.bell[1 + i], 1);
}

static const struct ring_segment *node_segment(void)
{
    return (const struct ring_segment *)(const void *)segment;
}

static void publish_and_wait_for_acks(void)
{
    raft_index wanted = now->looks[size];
    for (raft_index i = 1; i <= wanted; i++) {
        if (is_planted("bell-before-publish")) node_bell(0);
        publish(1);
        if (!is_planted("bell-before-publish")) node_bell(0);
        for (;;) {
            steps_merge(i | ring_word_own(&node_segment()->sleeps) << 8 | rung_by_node << 16);
            if (count_ack(0) >= i || rehearses) break;
            if (is_planted("flag-after-look")) {
                bool moved = count_ack(0) >= i;
                ring_sleeps(ring, true);
                if (!moved) steps_wait(&ghost.bell[0]);
            } else {
                ring_sleeps(ring, true);
                if (count_ack(0) < i) steps_wait(&ghost.bell[0]);
            }
            ring_sleeps(ring, false);
        }
    }
}

static void follow_and_sleep(void)
{
    raft_index next = 1, wanted = now->looks[size];
    while (next <= wanted) {
        struct ring_view view;
        const struct ring_reader_slot *slot = slots[self];
        steps_merge(next | ring_word_own(&slot->sleeps) << 8 | rung_by_reader << 16 |
                    ring_word_own(&slot->epoch) << 32);
        int rc = ring_reader_look(reader, &view);
        steps_check(rc == 0, "a view is not to be had though nothing is being changed");
        view_check(&view);
        if (view.last_index >= next) {
            (void)copy_some(&view, &next, true);
            if (ring_sleeps_look(ring_reader_writer_sleeps(reader), &rung_by_reader))
                ring_word_store(&ghost.bell[0], 1);
            continue;
        }
        ring_sleeps_store(&slots[self]->sleeps, true);
        if (!ring_reader_moved(reader, &view)) steps_wait(&ghost.bell[1 + self]);
        ring_sleeps_store(&slots[self]->sleeps, false);
    }
}

static const struct scenario scenarios[] = {
    {"publish", "claim, publish, commit", lead, publish_three, watch, 1, 64, 1, {3, 3, 4}},
    {"lap", "blocks over those that are read", fill_bytes, publish_two, watch, 1, 1024, 1, {2, 2, 3}},
    {"map", "slots of the index map are taken again", fill_map, publish_two, watch, 1, 64, 1, {2, 2, 3}},
    {"end",
     "a block across the end of memory, over the oldest",
     fill_unevenly,
     publish_two,
     watch,
     1,
     1024,
     64,
     {2, 2, 3}},
    {"cut", "a follower's log is cut, and goes on", follow_with_three, cut_and_go_on, watch, 1, 64, 2, {2, 3, 4}},
    {"cut-twice", "and once more", follow_with_three, cut_twice, watch, 1, 64, 2, {1, 2, 3}},
    {"again",
     "blocks are published again behind dead bytes",
     lead_with_three,
     publish_again,
     watch,
     1,
     64,
     2,
     {2, 2, 3}},
    {"restart",
     "a snapshot takes the place of the log",
     lead_with_three,
     start_behind_a_snapshot,
     watch,
     1,
     64,
     1,
     {2, 2, 3}},
    {"beat", "heartbeats, and a new term", lead, beat_in_two_terms, look_only, 1, 64, 1, {2, 3, 3}},
    {"ack", "a leader loses its role and leads again, later", lead, lose_and_lead_again, follow, 1, 64, 1, {0, 2, 3}},
    {"ack-cut", "acks of blocks that are cut then", lead_with_three, cut_and_lead_again, follow, 1, 64, 2, {2, 2, 3}},
    {"two", "two readers ack", lead, count_two, follow, 2, 64, 1, {0, 1, 1}},
    {"sleep",
     "both sleep when there is nothing to do",
     lead,
     publish_and_wait_for_acks,
     follow_and_sleep,
     1,
     64,
     1,
     {2, 3, 4}},
};

/* --- running them ------------------------------------------------------------------------------------------------- */

static void node_reset(void)
{
    memcpy(ring, ring_image, ring_image_bytes);
    memcpy(segment, node_image, BYTES_AT + BYTES);
    rung_by_node = 0;
}

static void reader_reset(unsigned which)
{
    self = which;
    memset((void *)slots[which], 0, RING_SEGMENT_PAGE_BYTES);
    rung_by_reader = 0;
}

static void first_reader_reset(void)
{
    reader_reset(0);
}

static void second_reader_reset(void)
{
    reader_reset(1);
}

static bool word_is_glued(uint32_t word)
{
    uint32_t at = word * 8;
    return at >= BYTES_AT && at < BYTES_AT + BYTES && (at - BYTES_AT) % (now->block_bytes / 2) != 0;
}

static void word_name(uint32_t word, char *to, size_t room)
{
    static const char *const of_segment[] = {"epoch",  "term",       "leads", "head",  "tail",
                                             "commit", "last_index", "beat",  "round", "sleeps"};
    static const char *const of_map[] = {"index", "term", "pos", "bytes_crc"};
    static const char *const of_slot[] = {"epoch", "durable", "validated", "round", "position", "lapped", "sleeps"};
    uint32_t at = word * 8, first = offsetof(struct ring_segment, epoch);
    if (at < RING_SEGMENT_PAGE_BYTES) {
        snprintf(to, room, "%s", at >= first && (at - first) / 8 < 10 ? of_segment[(at - first) / 8] : "constant");
    } else if (at < BYTES_AT) {
        snprintf(to, room, "map[%u].%s", (at - RING_SEGMENT_PAGE_BYTES) / 32, of_map[at / 8 % 4]);
    } else if (word < WORDS_SLOT) {
        snprintf(to, room, "bytes[%u]", at - BYTES_AT);
    } else if (word < WORDS_GHOST) {
        uint32_t in_slot = (word - WORDS_SLOT) % SLOT_WORDS;
        snprintf(to, room, "slot %u.%s", (word - WORDS_SLOT) / SLOT_WORDS, in_slot < 7 ? of_slot[in_slot] : "nothing");
    } else {
        uint32_t in_ghost = word - WORDS_GHOST;
        bool bell = in_ghost >= READERS * EPOCHS_MAX;
        snprintf(to, room, "(%s %u)", bell ? "bell" : "acked", bell ? in_ghost - READERS * EPOCHS_MAX : in_ghost);
    }
}

static void open_all(void)
{
    const struct ring_options options = {.bytes = BYTES, .block_bytes_max = BYTES / 4};
    int rc = ring_open(&options, &ring);
    lk_assert(rc == 0);
    ring_start(ring, &(struct block_base){.next_position = 1});
    rc = ring_reader_open(ring_fd(ring), &reader);
    lk_assert(rc == 0);
    for (unsigned i = 0; i < READERS; i++) {
        int fd;
        rc = ring_reader_slot_make(&fd, &slots_seen[i]);
        if (rc == 0) rc = ring_reader_slot_map(fd, &slots[i]);
        lk_assert(rc == 0);
        close(fd);
    }
    memset(&ghost, 0, sizeof ghost);
    memset(truths, 0, sizeof truths);
    memset(committed, 0, sizeof committed);
    beats = 0;
    truth_now()->known = true;
}

/* What is where in whose address space. The node's mapping and the reader's are the same words. */
static void regions_set(void)
{
    segment = (uint8_t *)(uintptr_t)ring_at(ring, 0) - BYTES_AT;
    const uint8_t *mapped = (const uint8_t *)ring_reader_writer_sleeps(reader) - offsetof(struct ring_segment, sleeps);
    const uint8_t *const of_both[] = {segment, mapped};
    for (int i = 0; i < 2; i++) {
        steps_region(of_both[i], BYTES_AT + BYTES, 0);
        steps_region(of_both[i] + BYTES_AT + BYTES, BYTES, BYTES_AT / 8);
    }
    for (unsigned i = 0; i < READERS; i++) {
        steps_region(slots[i], RING_SEGMENT_PAGE_BYTES, WORDS_SLOT + i * SLOT_WORDS);
        steps_region(slots_seen[i], RING_SEGMENT_PAGE_BYTES, WORDS_SLOT + i * SLOT_WORDS);
    }
    steps_region(&ghost, sizeof ghost, WORDS_GHOST);
    for (uint32_t word = 0; word < (BYTES_AT + BYTES) / 8; word++) {
        uint64_t value;
        memcpy(&value, segment + (size_t)word * 8, sizeof value);
        steps_initial(word, value);
    }
    steps_describe(word_name, word_is_glued);
}

static void close_all(void)
{
    steps_forget();
    ring_reader_close(reader);
    ring_close(ring);
    for (unsigned i = 0; i < READERS; i++) {
        ring_reader_slot_unmap(slots[i]);
        ring_reader_slot_unmap(slots_seen[i]);
    }
    free(node_image);
    free(ring_image);
}

static bool run(const struct scenario *scenario)
{
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    now = scenario;
    open_all();
    rehearses = true;
    now->set_up();
    segment = (uint8_t *)(uintptr_t)ring_at(ring, 0) - BYTES_AT;
    ring_image_bytes = malloc_usable_size(ring);
    ring_image = malloc(ring_image_bytes);
    node_image = malloc(BYTES_AT + BYTES);
    lk_assert(ring_image != NULL && node_image != NULL);
    memcpy(ring_image, ring, ring_image_bytes);
    memcpy(node_image, segment, BYTES_AT + BYTES);
    now->node();
    first_kept = ring_first_index(ring);
    rehearses = false;
    node_reset();
    regions_set();
    const struct steps_process processes[] = {{"node", node_reset, now->node},
                                              {"reader", first_reader_reset, now->reader},
                                              {"reader 2", second_reader_reset, now->reader}};
    struct steps_result result = steps_explore(processes, 1 + now->readers, ACCESSES_MAX);
    close_all();
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("%-10s %9" PRIu64 " states %9" PRIu64 " steps  %7" PRIu64 " local  longest %4u  %6.2f s  %s\n", now->name,
           result.states, result.steps, result.local_states, result.longest, seconds,
           result.broken != NULL ? result.broken : now->what);
    fflush(stdout);
    return result.broken == NULL;
}

int main(int argc, char **argv)
{
    const char *only = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--short") == 0) {
            size = SHORT;
        } else if (strcmp(argv[i], "--full") == 0) {
            size = FULL;
        } else if (strcmp(argv[i], "--run") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else if (strcmp(argv[i], "--plant") == 0 && i + 1 < argc) {
            plant = argv[++i];
        } else {
            fprintf(stderr,
                    "usage: ring [--short|--full] [--run CASE] [--plant bell-before-publish|flag-after-look]\n");
            return 2;
        }
    }
    unsigned ran = 0, found = 0;
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (only != NULL && strcmp(only, scenarios[i].name) != 0) continue;
        if (scenarios[i].looks[size] == 0) continue;
        ran++;
        if (!run(&scenarios[i])) found++;
    }
    printf("ring: %u cases, %u found\n", ran, found);
    return ran == 0 ? 2 : found == 0 ? 0 : 1;
}
