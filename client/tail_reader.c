/* SPDX-License-Identifier: Apache-2.0 */
/* tail_reader.c - see tail_reader.h. */
#include "client/tail_reader.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lockstep/errors.h"

enum { COPY_BYTES_MAX = 256 << 10 /* at once out of the ring, if not for one larger block: stays in the cache */ };

int tail_reader_open(struct tail_reader *reader, uint64_t from_position)
{
    *reader = (struct tail_reader){.from_position = from_position, .buffer = malloc(BLOCK_BYTES_MAX)};
    return reader->buffer != NULL ? 0 : LOCKSTEP_ENOMEM;
}

void tail_reader_close(struct tail_reader *reader)
{
    tail_reader_detach(reader);
    free(reader->buffer);
    reader->buffer = NULL;
}

int tail_reader_attach(struct tail_reader *reader, const struct local_reply *reply, int ring_fd, int slot_fd)
{
    int rc = ring_reader_open(ring_fd, &reader->ring);
    if (rc == 0) {
        struct ring_identity identity = ring_reader_identity(reader->ring);
        bool fits = identity.cluster_id == reply->cluster_id && identity.member_id == reply->member_id &&
                    identity.boot == reply->boot && identity.group == reply->group;
        rc = fits ? ring_reader_slot_map(slot_fd, &reader->slot) : LOCKSTEP_EPROTO;
    }
    if (rc != 0) tail_reader_detach(reader);
    reader->lapped = false;
    return rc;
}

void tail_reader_detach(struct tail_reader *reader)
{
    ring_reader_close(reader->ring);
    reader->ring = NULL;
    ring_reader_slot_unmap(reader->slot);
    reader->slot = NULL;
    reader->part_bytes = 0;
}

static enum tail_move stop(struct tail_reader *reader, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static enum tail_move stop(struct tail_reader *reader, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reader->why, sizeof reader->why, format, arguments);
    va_end(arguments);
    reader->error = error;
    return TAIL_STOPPED;
}

static enum tail_move damaged(struct tail_reader *reader, const char *what)
{
    return stop(reader, LOCKSTEP_ECORRUPT, "%s; look at the node's log ('lockstep log verify'), and begin a new tail",
                what);
}

static enum tail_move not_asked(struct tail_reader *reader, int error)
{
    return stop(reader, error, "the node answers what was not asked");
}

/* Of the next record. Blocks below from_position may have been read, and handed nothing out. */
static uint64_t wanted_position(const struct tail_reader *reader)
{
    uint64_t next = reader->chained ? reader->base.next_position : 0;
    return next > reader->from_position ? next : reader->from_position;
}

static enum tail_move gone(struct tail_reader *reader, log_position oldest)
{
    uint64_t wanted = wanted_position(reader);
    reader->oldest_position = oldest;
    return stop(reader, LOCKSTEP_EGONE,
                "position %" PRIu64 " is compacted away; the oldest that the log has is %" PRIu64 ": begin there",
                wanted, oldest);
}

/* --- out of the log ------------------------------------------------------------------------------------------------ */

static enum tail_move ask(struct tail_reader *reader, struct local_ask *ret_ask)
{
    *ret_ask = (struct local_ask){
        .number = ++reader->ask_number,
        .position = reader->next_index == 0 ? reader->from_position : 0,
        .index = reader->next_index,
        .offset = (uint32_t)reader->part_bytes,
    };
    return TAIL_ASK;
}

/* Bytes of the log: the first block whole, and others behind it; or a part of it. */
static enum tail_move take(struct tail_reader *reader, const struct local_answer *answer, const uint8_t *from,
                           size_t bytes, struct local_ask *ret_ask)
{
    struct block_header header;
    bool other = reader->next_index != 0 && answer->index != reader->next_index;
    if (other || answer->index == 0 || answer->offset != reader->part_bytes ||
        bytes > BLOCK_BYTES_MAX - reader->part_bytes)
        return not_asked(reader, LOCKSTEP_EPROTO);
    memcpy(reader->buffer + reader->part_bytes, from, bytes);
    reader->part_bytes += bytes;
    if (block_header_read(reader->buffer, reader->part_bytes, &header) != 0 || header.index != answer->index)
        return damaged(reader, "what the node told of its log is no block");
    reader->next_index = answer->index;
    if (reader->part_bytes < header.bytes) return ask(reader, ret_ask);
    reader->buffer_at = 0;
    reader->buffer_bytes = reader->part_bytes;
    reader->part_bytes = 0;
    return TAIL_MOVED;
}

enum tail_move tail_reader_told(struct tail_reader *reader, const uint8_t *packet, size_t bytes,
                                struct local_ask *ret_ask)
{
    struct local_answer answer;
    int rc = local_answer_read(packet, bytes, &answer);
    if (rc != 0 || answer.number != reader->ask_number)
        return not_asked(reader, rc == LOCKSTEP_EVERSION ? rc : LOCKSTEP_EPROTO);
    switch (answer.error) {
    case 0: return take(reader, &answer, packet + LOCAL_ANSWER_BYTES, bytes - LOCAL_ANSWER_BYTES, ret_ask);
    case LOCKSTEP_EGONE:
        if (reader->next_index == 0 || answer.oldest > wanted_position(reader)) return gone(reader, answer.oldest);
        reader->from_position = wanted_position(reader); /* the block is gone, and held nothing that is wanted */
        reader->chained = false;
        reader->next_index = 0;
        reader->part_bytes = 0;
        return TAIL_MOVED;
    case LOCKSTEP_ENOTFOUND: /* above what the log has: from there on, the ring does */
        if (reader->next_index == 0) reader->next_index = answer.index + 1;
        return TAIL_MOVED;
    case LOCKSTEP_EINVAL:
        return stop(reader, LOCKSTEP_ECORRUPT, "the node has another block %" PRIu64 " than before",
                    reader->next_index);
    default: return TAIL_MOVED; /* asked again */
    }
}

/* --- out of the ring ----------------------------------------------------------------------------------------------- */

/* How far we are, for whoever asks the node. */
static void tell_position(struct tail_reader *reader, ring_pos position)
{
    if (ring_word_load(&reader->slot->position) != position) ring_word_store(&reader->slot->position, position);
}

enum tail_move tail_reader_pull(struct tail_reader *reader, struct local_ask *ret_ask)
{
    struct ring_view view;
    struct ring_blocks blocks;
    int rc = ring_reader_look(reader->ring, &view);
    if (rc == 0) {
        reader->commit_index = view.commit;
        if (reader->next_index == 0 && reader->from_position != LOCKSTEP_TAIL_NOW) return ask(reader, ret_ask);
        if (reader->next_index == 0) reader->next_index = view.commit + 1;
        if (reader->next_index > view.commit) {
            tell_position(reader, view.tail);
            return TAIL_NOTHING;
        }
        rc = ring_reader_copy(reader->ring, &view, reader->next_index, view.commit, reader->buffer, COPY_BYTES_MAX,
                              &blocks);
        if (rc == LOCKSTEP_ETOOBIG)
            rc = ring_reader_copy(reader->ring, &view, reader->next_index, reader->next_index, reader->buffer,
                                  BLOCK_BYTES_MAX, &blocks);
    }
    switch (rc) {
    case 0:
        reader->buffer_at = 0;
        reader->buffer_bytes = blocks.bytes;
        reader->lapped = false;
        tell_position(reader, blocks.end);
        return TAIL_MOVED;
    case LOCKSTEP_EUNAVAILABLE: return TAIL_NOTHING; /* another epoch; who changes it rings when it is done */
    case LOCKSTEP_ELAPPED:
        if (!reader->lapped) {
            reader->lapped_count++;
            ring_word_store(&reader->slot->lapped,
                            ring_word_load(&reader->slot->lapped) + 1); /* ours alone; since attach */
        }
        reader->lapped = true;
        return ask(reader, ret_ask);
    default: return damaged(reader, "there is nonsense in its ring");
    }
}

/* --- records ------------------------------------------------------------------------------------------------------- */

/* The next block of the buffer, checked. False: there is none, or something is wrong with it. */
static bool block_open(struct tail_reader *reader)
{
    struct block_header header;
    const size_t at = reader->buffer_at, end = reader->buffer_bytes;
    const uint8_t *block = reader->buffer + at;
    size_t left = end - at;
    if (left == 0) return false;
    reader->buffer_at = reader->buffer_bytes = 0; /* until it is known to be good */
    if (block_header_read(block, left, &header) != 0 || header.bytes > left || header.index != reader->next_index ||
        block_body_check(block, &header) != 0) {
        damaged(reader, "a block does not match its checksum");
        return false;
    }
    if (reader->chained && block_chain_check(&reader->base, &header) != 0) {
        damaged(reader, "its log does not go on from the block that was handed out last");
        return false;
    }
    if (!reader->chained && header.first_position > reader->from_position &&
        reader->from_position != LOCKSTEP_TAIL_NOW) {
        gone(reader, header.first_position);
        return false;
    }
    reader->buffer_at = at + header.bytes;
    reader->buffer_bytes = end;
    reader->base = block_base_after(&header);
    reader->chained = true;
    reader->next_index = header.index + 1;
    reader->block_index = header.index;
    reader->block_term = header.term;
    reader->block_time_ns = header.time_ns;
    reader->cursor = header.type == BLOCK_COMMANDS ? block_cursor(block, &header) : (struct block_cursor){0};
    return true;
}

bool tail_reader_record(struct tail_reader *reader, struct lockstep_tail_record *ret)
{
    struct command_view view;
    do {
        while (reader->cursor.at != NULL && block_cursor_next(&reader->cursor, &view)) {
            if (view.position < reader->from_position) continue;
            *ret = (struct lockstep_tail_record){
                .index = reader->block_index,
                .position = view.position,
                .term = reader->block_term,
                .time_ns = reader->block_time_ns,
                .session = view.header.session,
                .seq = view.header.seq,
                .entity = view.header.entity,
                .kind = view.header.kind,
                .payload_bytes = view.header.bytes,
                .payload = view.payload,
            };
            reader->handed_position = view.position;
            return true;
        }
        reader->cursor.at = NULL;
    } while (block_open(reader));
    return false;
}

bool tail_reader_has_more(const struct tail_reader *reader)
{
    return reader->cursor.at != NULL || reader->buffer_at < reader->buffer_bytes;
}

/* --- sleep --------------------------------------------------------------------------------------------------------- */

bool tail_reader_sleep(struct tail_reader *reader)
{
    struct ring_view view;
    ring_sleeps_store(&reader->slot->sleeps, true);
    int rc = ring_reader_look(reader->ring, &view);
    return rc == LOCKSTEP_EUNAVAILABLE || (rc == 0 && view.commit < reader->next_index);
}

void tail_reader_wake(struct tail_reader *reader)
{
    if (reader->slot != NULL) ring_sleeps_store(&reader->slot->sleeps, false);
}
