/* SPDX-License-Identifier: Apache-2.0 */
/* recovery.c - see recovery.h.
 *
 * The list holds the live blocks that only the journal has, ascending without gaps. It starts at most one above the
 * log's last block; where it starts below, it stands in for the log's blocks from there on: those frames are older than
 * what the log holds, and newer frames bring the log's own blocks back.
 *
 *   the log      1 2 3 4 5 6            list starts at 5: an older, overwritten version of 5, 6, 7
 *   the list             5'6'7'         frame with 5 and 6 follows: cuts 5', so 7' does not come back (T50)
 *
 * At or below the base the log has nothing to compare with: what is there counts as committed. A list that starts there has
 * no predecessor to check; a recorded block there still cuts what lies above it (T50: the block that took its place may lie
 * below the base, and the cut ones above it), a packed one does not. What the list says there has to lead to the base.
 * A frame that was written before the record of an install holds only dead blocks: while the state record names an install
 * whose record has not been met, hard states alone are taken.
 *
 * A block that is already held, with the same checksum, cuts nothing: a truncation always puts another block at its
 * index, so only a packed rewrite brings the same one again, and it must not take away what lies above before its
 * second frame is there.
 * Source: etcd#22442 (T50); TigerBeetle's journal recovery (torn or damaged is a decision, not a guess). */
#include "storage/recovery.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/advice.h"

enum { SCAN_BYTES = 1 << 20 };

struct replay {
    const struct journal *journal;
    const struct kv *kv;
    struct kv_txn *txn;
    const struct table_state *state;
    const struct block_base *stored;
    const struct storage_patch *patches;
    uint32_t patch_count;
    struct recovery *out;
    char *why;
    size_t why_room;

    struct journal_place at;   /* behind the last frame taken */
    struct journal_place hole; /* before the first frame that left one */
    bool holed;                /* blocks of the list are missing, and some below those may have been overwritten */
    bool skipping;             /* towards the record of the install that the state record names */
    bool at_crc_known;         /* false behind a frame that was damaged but for what the log holds */
    uint8_t *buffer;           /* one frame */
    uint8_t *scan;
    struct recovery_block *parsed;
    size_t parsed_room;
    struct recovery_block *list;
    size_t list_count, list_room;
};

/* A frame that was read, and what is wrong with it if something is. */
struct read_frame {
    struct frame_header header; /* valid if header_good */
    bool header_good, good;
    uint64_t lap, offset;
    size_t parsed_count; /* blocks that were whole before the first bad one */
};

__attribute__((format(printf, 3, 4))) static int refuse(struct replay *r, int rc, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->why, r->why_room, format, arguments);
    va_end(arguments);
    return rc;
}

static int refuse_newer(struct replay *r, const char *what, uint32_t format, uint32_t known, uint64_t offset)
{
    return refuse(r, LOCKSTEP_EVERSION,
                  "journal: %s at byte %" PRIu64 " is of a newer version of lockstep (format %" PRIu32
                  ", this one reads up to %" PRIu32 "); install that version",
                  what, offset, format, known);
}

/* One whole block at `at`, of which `room` bytes may be read. ret->offset is left alone. */
static int parse_block(const uint8_t *at, uint32_t room, uint32_t group, struct recovery_block *ret)
{
    struct block_header header;
    int rc = block_header_read(at, room, &header);
    if (rc != 0) return rc == LOCKSTEP_EVERSION ? rc : LOCKSTEP_ECORRUPT;
    if (header.bytes > room || header.group != group || header.index == 0) return LOCKSTEP_ECORRUPT;
    rc = block_body_check(at, &header);
    if (rc != 0) return rc;
    ret->index = header.index;
    ret->term = header.term;
    ret->bytes = header.bytes;
    ret->crc = header.header_crc;
    ret->previous_crc = header.previous_crc;
    ret->crc_known = true;
    ret->patch = NULL;
    return 0;
}

int recovery_parse_blocks(const uint8_t *blocks, uint32_t bytes, uint32_t count, uint32_t group,
                          struct recovery_block *ret, size_t room)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i == room) return LOCKSTEP_ECORRUPT;
        int rc = parse_block(blocks + at, bytes - at, group, &ret[i]);
        if (rc != 0) return rc;
        ret[i].offset = at;
        at += ret[i].bytes;
    }
    return at == bytes ? 0 : LOCKSTEP_ECORRUPT;
}

/* --- reading frames --------------------------------------------------------------------------------------------- */

static int read_at(struct replay *r, void *to, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    int rc = r->journal->disk->pread(r->journal->file, to, bytes, offset, ret_bytes);
    if (rc == 0) return 0;
    return refuse(r, rc, "journal: cannot be read at byte %" PRIu64 ": %s; check the disk", offset,
                  lockstep_error_text(rc));
}

/* Whether the header is one of ours that may stand directly behind `at`. */
static bool chains(const struct replay *r, const struct read_frame *frame)
{
    const struct frame_header *h = &frame->header;
    return h->journal_id == r->state->journal_id && h->boot == r->state->boot && h->lap == frame->lap &&
           h->seq == r->at.seq + 1 && (!r->at_crc_known || h->previous_crc == r->at.crc) &&
           frame_bytes(h) <= r->state->shape.frame_bytes_max;
}

static int parsed_reserve(struct replay *r, size_t count)
{
    if (count <= r->parsed_room) return 0;
    struct recovery_block *more = realloc(r->parsed, count * sizeof *more);
    if (more == NULL) return refuse(r, LOCKSTEP_ENOMEM, "journal: out of memory while it is read; free some");
    r->parsed = more;
    r->parsed_room = count;
    return 0;
}

/* Read the frame behind `at`, wherever it lies. An error is one of the disk or a newer format; a bad frame is not. */
static int read_frame(struct replay *r, struct read_frame *ret)
{
    struct read_frame frame = {0};
    size_t count = 0;
    journal_next(&r->state->shape, &r->at, &frame.lap, &frame.offset);
    int rc = read_at(r, r->buffer, FRAME_PAGE_BYTES, frame.offset, &count);
    if (rc != 0) return rc;
    rc = frame_header_read(r->buffer, count, &frame.header);
    if (rc == LOCKSTEP_EVERSION) return refuse_newer(r, "a frame", frame.header.version, FRAME_VERSION, frame.offset);
    frame.header_good = rc == 0 && chains(r, &frame);
    if (!frame.header_good) goto out;
    const struct frame_header *h = &frame.header;
    if (h->block_count > h->blocks_bytes / BLOCK_HEADER_BYTES) goto out;
    rc = parsed_reserve(r, h->block_count);
    if (rc != 0) return rc;
    size_t whole = (size_t)h->header_bytes + h->blocks_bytes;
    rc = read_at(r, r->buffer, whole, frame.offset, &count);
    if (rc != 0) return rc;
    if (count != whole) goto out;
    for (uint32_t i = 0; i < h->block_count; i++) r->parsed[i].bytes = 0;
    rc = recovery_parse_blocks(r->buffer + h->header_bytes, h->blocks_bytes, h->block_count, r->state->group, r->parsed,
                               h->block_count);
    while (frame.parsed_count < h->block_count && r->parsed[frame.parsed_count].bytes != 0) frame.parsed_count++;
    if (rc == LOCKSTEP_EVERSION) {
        const struct recovery_block *before = frame.parsed_count != 0 ? &r->parsed[frame.parsed_count - 1] : NULL;
        uint64_t at = h->header_bytes + (before != NULL ? before->offset + before->bytes : 0);
        struct block_header newer;
        rc = block_header_read(r->buffer + at, whole - at, &newer);
        lk_assert(rc == LOCKSTEP_EVERSION);
        return refuse_newer(r, "a block", newer.version, BLOCK_VERSION, frame.offset + at);
    }
    frame.good = rc == 0;
    for (size_t i = 0; i < frame.parsed_count; i++) r->parsed[i].offset += frame.offset + h->header_bytes;
out:
    *ret = frame;
    return 0;
}

/* --- a bad frame ------------------------------------------------------------------------------------------------ */

/* What stands behind a bad frame s. */
struct evidence {
    bool flushed;             /* a frame of this boot says that s was flushed */
    bool next;                /* and frame s + 1 is whole */
    struct frame_header head; /* of s + 1 */
    uint64_t lap, offset;     /* of s + 1 */
};

static void look_at_page(const struct replay *r, const uint8_t *page, size_t room, uint64_t bad_seq, uint64_t offset,
                         struct evidence *evidence)
{
    struct frame_header header;
    if (frame_header_read(page, room, &header) != 0) return;
    if (header.journal_id != r->state->journal_id || header.boot != r->state->boot) return;
    if (header.seq <= bad_seq || header.flushed_seq < bad_seq) return;
    evidence->flushed = true;
    if (header.seq != bad_seq + 1) return;
    evidence->next = true;
    evidence->head = header;
    evidence->lap = header.lap;
    evidence->offset = offset;
}

/* Look at every page of the journal but the bad one: frames of this boot behind it can lie anywhere, and those before it
 * have lower seqs. All of it is read; a start that ends in a torn tail pays for certainty with one pass over the file. */
static int look_behind(struct replay *r, const struct read_frame *bad, struct evidence *ret)
{
    uint64_t bad_seq = r->at.seq + 1;
    *ret = (struct evidence){.flushed = bad_seq <= r->state->flushed_seq};
    for (uint64_t from = FRAME_PAGE_BYTES; from < r->state->shape.bytes; from += SCAN_BYTES) {
        size_t count = 0;
        int rc = read_at(r, r->scan, SCAN_BYTES, from, &count);
        if (rc != 0) return rc;
        for (size_t at = 0; at < count; at += FRAME_PAGE_BYTES) {
            if (from + at == bad->offset) continue;
            size_t room = count - at < FRAME_PAGE_BYTES ? count - at : FRAME_PAGE_BYTES;
            look_at_page(r, r->scan + at, room, bad_seq, from + at, ret);
        }
        if (count < SCAN_BYTES) break;
    }
    return 0;
}

static int stored_crc(struct replay *r, raft_index index, uint32_t *ret)
{
    if (index == r->state->base.index) {
        *ret = r->state->base.crc;
        return 0;
    }
    const uint8_t *block = NULL;
    struct block_header header;
    int rc = table_block_read(r->kv, r->txn, index, &block, &header);
    if (rc != 0)
        return refuse(r, rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc,
                      "log: block %" PRIu64 " is damaged or missing in data.mdb; restore the directory, or give the "
                      "node an empty one and run member replace",
                      index);
    *ret = header.header_crc;
    return 0;
}

static raft_index list_last(const struct replay *r)
{
    return r->list_count != 0 ? r->list[r->list_count - 1].index : r->stored->index;
}

/* Frame bad_seq is damaged, and it was flushed: say which blocks are lost. */
static int name_damage(struct replay *r, const struct read_frame *bad, const struct evidence *evidence)
{
    uint64_t bad_seq = r->at.seq + 1;
    raft_index first = list_last(r) + 1, last = 0;
    if (bad->parsed_count != 0) first = r->parsed[bad->parsed_count - 1].index + 1;
    if (bad->header_good && bad->header.has_group) last = bad->header.group.last_index;
    if (evidence->next && evidence->head.has_repeat) last = evidence->head.repeat.last_index;
    if (!evidence->next && !bad->header_good)
        return refuse(r, LOCKSTEP_ECORRUPT,
                      "journal: damaged: frame %" PRIu64 " at byte %" PRIu64 " and the one behind it cannot be read, "
                      "blocks from %" PRIu64 " on and votes may be lost; %s",
                      bad_seq, bad->offset, first, ADVICE_LOST);
    if (last < first) first = last; /* it overwrote what stood there */
    return refuse(r, LOCKSTEP_ECORRUPT,
                  "journal: damaged: block %" PRIu64 " (of those up to %" PRIu64 ") in frame %" PRIu64
                  " at byte %" PRIu64 "; %s",
                  first, last, bad_seq, bad->offset, ADVICE_LOST);
}

static void take_hard_state(struct recovery *out, const struct frame_group *group)
{
    struct storage_hard_state *held = &out->hard_state;
    if (group->term > held->term)
        *held = (struct storage_hard_state){.term = group->term, .vote = group->vote};
    else if (group->term == held->term && held->vote == 0)
        held->vote = group->vote;
    if (group->commit > out->commit) out->commit = group->commit;
}

/* A frame with a good header and damaged blocks: read it as if those that the log holds stood where they have to. Which
 * they are follows from the block before, or from the frame's last; how long they are, from the log. True: every other
 * block is whole, and r->parsed is the frame. */
static bool heal(struct replay *r, struct read_frame *frame)
{
    const struct frame_header *h = &frame->header;
    const uint8_t *blocks = r->buffer + h->header_bytes;
    raft_index index = h->group.last_index + 1 - h->block_count; /* unless it cut in its middle */
    uint32_t at = 0;
    for (uint32_t i = 0; i < h->block_count; i++) {
        struct recovery_block *block = &r->parsed[i];
        const uint8_t *stored = NULL;
        struct block_header header;
        if (parse_block(blocks + at, h->blocks_bytes - at, r->state->group, block) != 0) {
            if (index <= r->state->base.index || index > r->stored->index) return false;
            if (table_block_read(r->kv, r->txn, index, &stored, &header) != 0) return false;
            if (header.bytes > h->blocks_bytes - at) return false;
            *block = (struct recovery_block){.index = index,
                                             .term = header.term,
                                             .bytes = header.bytes,
                                             .crc = header.header_crc,
                                             .crc_known = true,
                                             .previous_crc = header.previous_crc};
        }
        block->offset = frame->offset + h->header_bytes + at;
        at += block->bytes;
        index = block->index + 1;
    }
    return at == h->blocks_bytes;
}

/* --- taking a good frame ---------------------------------------------------------------------------------------- */

static int list_push(struct replay *r, const struct recovery_block *block)
{
    if (r->list_count == r->list_room) {
        size_t room = r->list_room == 0 ? 1024 : r->list_room * 2;
        struct recovery_block *more = realloc(r->list, room * sizeof *more);
        if (more == NULL) return refuse(r, LOCKSTEP_ENOMEM, "journal: out of memory while it is read; free some");
        r->list = more;
        r->list_room = room;
    }
    r->list[r->list_count++] = *block;
    return 0;
}

static struct recovery_block missing_block(raft_index index, uint32_t crc)
{
    return (struct recovery_block){.index = index, .crc = crc, .crc_known = true};
}

static int bad_chain(struct replay *r, const struct recovery_block *block)
{
    return refuse(r, LOCKSTEP_ECORRUPT,
                  "journal: damaged: block %" PRIu64 " at byte %" PRIu64 " does not follow block %" PRIu64
                  "; " ADVICE_LOST,
                  block->index, block->offset, block->index - 1);
}

/* A block at or below the base, and below all that the list holds. */
static int take_compacted(struct replay *r, const struct recovery_block *block, bool packed)
{
    if (r->list_count != 0 && packed) return 0; /* the same block once more */
    r->list_count = 0;
    return list_push(r, block);
}

static int take_block(struct replay *r, const struct recovery_block *block, bool packed)
{
    raft_index first = r->list_count != 0 ? r->list[0].index : r->stored->index + 1;
    uint32_t held = 0;
    if (block->index > list_last(r) + 1) return bad_chain(r, block); /* a frame is missing */
    if (block->index < first && block->index <= r->state->base.index) return take_compacted(r, block, packed);
    if (block->index < first) {
        int rc = stored_crc(r, block->index, &held);
        if (rc != 0) return rc;
        if (held == block->crc) return 0;
        r->list_count = 0;
    } else if (block->index <= list_last(r)) {
        size_t place = (size_t)(block->index - first);
        struct recovery_block *there = &r->list[place];
        bool same = there->crc_known ? there->crc == block->crc : packed; /* what is not known is not cut by a copy */
        if (same && there->bytes == 0) *there = *block;
        if (same) return 0;
        r->list_count = place;
    }
    if (r->list_count != 0) {
        struct recovery_block *before = &r->list[r->list_count - 1];
        bool wrong = before->crc_known && before->crc != block->previous_crc;
        if (wrong && !r->holed) return bad_chain(r, block);
        if (wrong || !before->crc_known) *before = missing_block(before->index, block->previous_crc);
    } else {
        int rc = stored_crc(r, block->index - 1, &held);
        if (rc != 0) return rc;
        if (held != block->previous_crc) return bad_chain(r, block);
    }
    return list_push(r, block);
}

/* Blocks that a later one of the same frame cuts: what they follow may be gone, with frames that Q passed because of that
 * very cut. */
static void mark_dead(struct replay *r, uint32_t count)
{
    raft_index lowest = UINT64_MAX;
    for (uint32_t i = count; i-- > 0;) {
        r->parsed[i].dead = r->parsed[i].index >= lowest;
        if (!r->parsed[i].dead) lowest = r->parsed[i].index;
    }
}

static int take_frame(struct replay *r, const struct read_frame *frame)
{
    const struct frame_header *h = &frame->header;
    mark_dead(r, h->block_count);
    for (uint32_t i = 0; i < h->block_count && !r->skipping; i++) {
        if (r->parsed[i].dead) continue;
        int rc = take_block(r, &r->parsed[i], h->type == FRAME_PACK);
        if (rc != 0) return rc;
    }
    if (h->has_group) take_hard_state(r->out, &h->group);
    if (h->type == FRAME_INSTALL) {
        if (h->group.last_index > r->state->base.index)
            return refuse(r, LOCKSTEP_ECORRUPT,
                          "journal: names a snapshot of block %" PRIu64
                          " that data.mdb does not have; one of the two files is "
                          "from another time: restore both from one copy, or give the node an empty directory and run "
                          "member replace",
                          h->group.last_index);
        r->list_count = 0;
        if (h->group.last_index == r->state->install_index) r->skipping = false;
    }
    /* The frame says which block was its group's last: nothing is missing. A pack's frames come one after the other and
     * speak of the end from the first on. */
    if (r->skipping) {
        lk_assert(r->list_count == 0);
    } else if (h->type == FRAME_RECORDS && h->has_group && r->list_count != 0) {
        struct recovery_block *last = &r->list[r->list_count - 1];
        if (!last->crc_known) *last = missing_block(last->index, h->group.last_crc);
        if (last->index != h->group.last_index || last->crc != h->group.last_crc) return bad_chain(r, last);
    } else if (h->type == FRAME_RECORDS && h->has_group && h->group.last_index > r->stored->index) {
        return refuse(r, LOCKSTEP_ECORRUPT,
                      "journal: damaged: block %" PRIu64 " is missing before byte %" PRIu64 "; " ADVICE_LOST,
                      h->group.last_index, frame->offset);
    }
    r->at = (struct journal_place){.seq = h->seq,
                                   .boot = h->boot,
                                   .lap = frame->lap,
                                   .offset = frame->offset + frame_bytes(h),
                                   .crc = h->header_crc};
    r->at_crc_known = true;
    return 0;
}

/* --- a frame that cannot be read, and what is missing by it ---------------------------------------------------- */

/* By its own length, if that is known; else just before s + 1, whose own place is. */
static void go_behind(struct replay *r, const struct read_frame *bad, const struct evidence *evidence)
{
    const struct frame_header *h = &bad->header;
    if (bad->header_good) {
        r->at = (struct journal_place){.seq = h->seq,
                                       .boot = h->boot,
                                       .lap = bad->lap,
                                       .offset = bad->offset + frame_bytes(h),
                                       .crc = h->header_crc};
    } else {
        r->at = (struct journal_place){
            .seq = evidence->head.seq - 1, .boot = r->state->boot, .lap = evidence->lap, .offset = evidence->offset};
    }
    r->at_crc_known = bad->header_good;
}

/* J7: its blocks are nowhere here. What it left behind is known: the last block. Blocks up to that one are missing, from
 * the first on that was not whole; which of those below it overwrote, their successors tell when they are there. */
static int leave_hole(struct replay *r, const struct read_frame *bad, const struct evidence *evidence)
{
    const struct frame_group *group = NULL;
    int damaged = r->holed ? LOCKSTEP_ECORRUPT : name_damage(r, bad, evidence), rc = 0;
    if (!r->holed) r->hole = r->at;
    if (bad->header_good && bad->header.has_group) group = &bad->header.group;
    if (group == NULL && evidence->next && evidence->head.has_repeat) group = &evidence->head.repeat;
    if (group == NULL) return damaged;
    bool packed = bad->header_good && bad->header.type == FRAME_PACK;
    for (size_t i = 0; i < bad->parsed_count && rc == 0 && !r->skipping; i++) {
        if (r->parsed[i].index > list_last(r) + 1) break; /* dead: it was cut in what cannot be read */
        rc = take_block(r, &r->parsed[i], packed);
    }
    if (rc != 0) return rc;
    take_hard_state(r->out, group);
    go_behind(r, bad, evidence);
    if (r->skipping) return 0;
    r->holed = true;
    raft_index last = list_last(r);
    if (group->last_index > last) {
        for (raft_index i = last + 1; i <= group->last_index && rc == 0; i++)
            rc = list_push(r, &(struct recovery_block){.index = i});
        if (rc == 0) r->list[r->list_count - 1] = missing_block(group->last_index, group->last_crc);
        return rc;
    }
    if (r->list_count == 0 || group->last_index < r->list[0].index) return damaged;
    r->list_count = (size_t)(group->last_index - r->list[0].index) + 1;
    struct recovery_block *left = &r->list[r->list_count - 1];
    if (!left->crc_known || left->crc != group->last_crc) *left = missing_block(group->last_index, group->last_crc);
    return 0;
}

/* A frame that was flushed cannot be read. Go on if the frame behind it shows that the log holds all its blocks. */
static int pass_damage(struct replay *r, const struct read_frame *bad, const struct evidence *evidence)
{
    if (!evidence->next) return leave_hole(r, bad, evidence);
    const struct frame_header *next = &evidence->head;
    if (next->has_repeat) {
        uint32_t crc = next->repeat.last_crc;
        if (next->repeat.last_index > r->stored->index && !r->skipping) return leave_hole(r, bad, evidence);
        if (next->repeat.last_index >= r->state->base.index && !r->skipping) {
            int rc = stored_crc(r, next->repeat.last_index, &crc);
            if (rc != 0) return rc;
        }
        if (crc != next->repeat.last_crc) return name_damage(r, bad, evidence);
        /* it may have been the install's record itself: its group says so */
        if (next->repeat.last_index == r->state->install_index) r->skipping = false;
        take_hard_state(r->out, &next->repeat);
        r->list_count = 0; /* its last block was one that the log holds: what lay above was cut */
    }
    go_behind(r, bad, evidence);
    return 0;
}

static int replay(struct replay *r)
{
    for (;;) {
        struct read_frame frame;
        int rc = read_frame(r, &frame);
        if (rc != 0) return rc;
        if (frame.good) {
            rc = take_frame(r, &frame);
            if (rc != 0) return rc;
            continue;
        }
        struct evidence evidence;
        rc = look_behind(r, &frame, &evidence);
        if (rc != 0) return rc;
        if (!evidence.flushed) return 0; /* a torn tail: it was promised to nobody */
        if (frame.header_good && heal(r, &frame))
            rc = take_frame(r, &frame);
        else
            rc = pass_damage(r, &frame, &evidence);
        if (rc != 0) return rc;
    }
}

static const struct storage_patch *patch_find(const struct replay *r, const struct recovery_block *block)
{
    for (uint32_t i = 0; i < r->patch_count; i++)
        if (r->patches[i].index == block->index && r->patches[i].crc == block->crc) return &r->patches[i];
    return NULL;
}

/* J7: from its end down, each block names the one before it. What is missing is taken from the patches, or asked for. */
static int fill_holes(struct replay *r)
{
    for (size_t i = r->list_count; r->holed && i-- > 0;) {
        struct recovery_block *block = &r->list[i];
        if (block->bytes == 0) {
            lk_assert(block->crc_known); /* by its successor, or as what a frame left behind */
            const struct storage_patch *patch = patch_find(r, block);
            struct recovery_block given;
            if (patch == NULL || parse_block(patch->block, patch->bytes, r->state->group, &given) != 0 ||
                given.index != block->index || given.crc != block->crc) {
                size_t low = i;
                while (low > 0 && r->list[low - 1].bytes == 0) low--;
                r->out->missing =
                    (struct storage_missing){.index = block->index, .first = r->list[low].index, .crc = block->crc};
                r->at = r->hole;
                return LOCKSTEP_ECORRUPT; /* why says what the frame lost */
            }
            *block = given;
            block->patch = patch->block;
        }
        if (i == 0) break;
        struct recovery_block *before = &r->list[i - 1];
        if (!before->crc_known || before->crc != block->previous_crc)
            *before = missing_block(before->index, block->previous_crc);
    }
    if (!r->holed || r->list_count == 0 || r->list[0].index <= r->state->base.index) return 0;
    uint32_t held = 0;
    int rc = stored_crc(r, r->list[0].index - 1, &held);
    if (rc == 0 && held != r->list[0].previous_crc) rc = bad_chain(r, &r->list[0]);
    return rc;
}

/* What the list says at or below the log's last must be what the log says; above, it is the live tail. */
static int settle(struct replay *r)
{
    size_t skip = 0;
    while (skip < r->list_count && r->list[skip].index <= r->stored->index) skip++;
    if (skip != 0) {
        const struct recovery_block *last = &r->list[skip - 1];
        uint32_t held = last->crc;
        if (last->index >= r->state->base.index) {
            int rc = stored_crc(r, last->index, &held);
            if (rc != 0) return rc;
        }
        if (held != last->crc)
            return refuse(r, LOCKSTEP_ECORRUPT,
                          "journal: contradicts the log: its block %" PRIu64
                          " is not the one in data.mdb; one of the two "
                          "files is from another time: restore both from one copy, or give the node an empty directory "
                          "and run member replace",
                          last->index);
        memmove(r->list, r->list + skip, (r->list_count - skip) * sizeof *r->list);
        r->list_count -= skip;
    }
    for (size_t i = 0; i < r->list_count; i++) r->out->blocks_bytes += r->list[i].bytes;
    raft_index last = list_last(r);
    if (r->out->commit < r->stored->index) r->out->commit = r->stored->index;
    if (r->out->commit > last) r->out->commit = last;
    r->out->blocks = r->list;
    r->out->block_count = r->list_count;
    r->list = NULL;
    return 0;
}

int recovery_replay(const struct journal *journal, const struct kv *kv, struct kv_txn *txn,
                    const struct table_state *state, const struct block_base *stored,
                    const struct storage_patch *patches, uint32_t patch_count, struct recovery *ret, char *why,
                    size_t why_room)
{
    *ret = (struct recovery){.hard_state = state->hard_state};
    struct replay r = {.journal = journal,
                       .kv = kv,
                       .txn = txn,
                       .state = state,
                       .stored = stored,
                       .patches = patches,
                       .patch_count = patch_count,
                       .out = ret,
                       .why = why,
                       .why_room = why_room,
                       .at = state->q,
                       .skipping = state->install_index != 0,
                       .at_crc_known = true};
    r.buffer = malloc(state->shape.frame_bytes_max);
    r.scan = malloc(SCAN_BYTES);
    int rc = r.buffer != NULL && r.scan != NULL ? 0 : refuse(&r, LOCKSTEP_ENOMEM, "journal: out of memory; free some");
    if (rc == 0) rc = replay(&r);
    if (rc == 0) rc = fill_holes(&r);
    if (rc == 0) rc = settle(&r);
    free(r.buffer);
    free(r.scan);
    free(r.parsed);
    free(r.list);
    ret->end = r.at;
    if (rc != 0) recovery_free(ret);
    return rc;
}

void recovery_free(struct recovery *recovery)
{
    free(recovery->blocks);
    recovery->blocks = NULL;
    recovery->block_count = 0;
}
