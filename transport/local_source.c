/* SPDX-License-Identifier: Apache-2.0 */
/* local_source.c - see local_source.h. */
#include "transport/local_source.h"

#include "lockstep/errors.h"
#include "proto/block.h"

void source_stop(struct source *source)
{
    if (source->epoch == 0) return;
    source->epoch = 0;
    source->ack = (struct ring_ack){0};
    ring_ack_store(source->slot, &source->ack);
}

/* What comes next is the block behind this one. False, and nothing happened: the ring does not hold it. */
static bool stand_behind(struct source *source, const struct ring_view *view, raft_index validated)
{
    struct ring_slot at;
    if (validated > view->last_index || ring_reader_find(source->reader, view, validated, &at) != 0) return false;
    source->last = source->settled = validated;
    source->last_term = at.term;
    source->position = at.pos + at.bytes;
    ring_word_store(&source->slot->position, source->position);
    return true;
}

/* An ack that refuses nothing says: in this term, our logs match up to there. From there on we pull, if the ring has it. */
static bool ack_begins(struct source *source, const struct raft_message *m)
{
    struct ring_view view;
    if (ring_reader_look(source->reader, &view) != 0 || !view.leads || view.term != m->term) return false;
    if (!stand_behind(source, &view, m->as.ack.validated_index)) return false;
    source->epoch = view.epoch;
    source->term = m->term;
    source->commit = 0;
    source->beat = view.beat; /* that was sent */
    return true;
}

/* Blocks that came by TCP meanwhile need not come again. */
static void skip_to(struct source *source, raft_index validated)
{
    struct ring_view view;
    if (ring_reader_look(source->reader, &view) != 0 || view.epoch != source->epoch) return;
    (void)stand_behind(source, &view, validated);
}

bool source_speak(struct source *source, const struct raft_message *m)
{
    const struct raft_ack *ack = &m->as.ack;
    if (source->reader == NULL || source->member != m->to) return false;
    /* What was handed out in an earlier turn and is not validated was not taken: refused, or damaged. Raft repeats it. */
    bool bad = ack->rejected || ack->full || m->term != source->term || ack->validated_index < source->settled;
    if (source->epoch != 0 && bad) {
        source_stop(source);
        return false;
    }
    if (source->epoch == 0 && (ack->rejected || ack->full || !ack_begins(source, m))) return false;
    if (ack->validated_index > source->last) skip_to(source, ack->validated_index);
    const struct ring_ack news = {
        .epoch = source->epoch, .durable = ack->durable_index, .validated = ack->validated_index, .round = ack->round};
    if (ring_acks_equal(&news, &source->ack)) return true;
    source->ack = news;
    ring_ack_store(source->slot, &news);
    source->spoke = true;
    return true;
}

bool source_has_news(const struct source *source)
{
    struct ring_view view;
    if (source->epoch == 0) return false;
    int rc = ring_reader_look(source->reader, &view);
    /* Being changed: whoever does that rings when it is done. */
    if (rc != 0) return rc != LOCKSTEP_EUNAVAILABLE;
    /* A commit alone is worth no turn: it is read in the next one. */
    return view.epoch != source->epoch || view.last_index > source->last || view.beat != source->beat;
}

static struct raft_message message_from(const struct source *source, raft_member self, uint8_t type)
{
    return (struct raft_message){.type = type, .from = source->member, .to = self, .term = source->term};
}

/* The next blocks into the buffer. 0, or an error of ring_reader_copy. */
static int copy(const struct source *source, const struct ring_view *view, uint8_t *buffer, struct ring_blocks *blocks)
{
    raft_index first = source->last + 1;
    int rc =
        ring_reader_copy(source->reader, view, first, view->last_index, buffer, TRANSPORT_APPEND_BYTES_MAX, blocks);
    if (rc != LOCKSTEP_ETOOBIG) return rc;
    return ring_reader_copy(source->reader, view, first, first, buffer, BLOCK_BYTES_MAX, blocks);
}

int source_pull(struct source *source, raft_member self, uint8_t *buffer, struct transport_frame *ret)
{
    struct ring_view view;
    struct ring_blocks blocks;
    int rc = ring_reader_look(source->reader, &view);
    if (rc != 0) return rc;
    if (view.epoch != source->epoch) {
        source_stop(source);
        return LOCKSTEP_EUNAVAILABLE;
    }
    *ret = (struct transport_frame){.member_id = source->member, .type = FRAME_RAFT};
    bool blocks_came = view.last_index > source->last;
    /* A heartbeat is a frame of its own: its ack waits for no disk. */
    if (view.beat != source->beat || (!blocks_came && view.commit != source->commit)) {
        ret->message = message_from(source, self, RAFT_HEARTBEAT);
        ret->message.as.heartbeat = (struct raft_heartbeat){.commit = view.commit, .round = view.round};
        source->beat = view.beat;
        source->commit = view.commit;
        return 0;
    }
    if (!blocks_came) return LOCKSTEP_EUNAVAILABLE;
    rc = copy(source, &view, buffer, &blocks);
    if (rc == LOCKSTEP_ELAPPED || rc == LOCKSTEP_ENOTFOUND) {
        source_stop(source);
        return LOCKSTEP_ELAPPED;
    }
    if (rc != 0) return rc;
    ret->message = message_from(source, self, RAFT_APPEND);
    ret->message.as.append = (struct raft_append){.previous_index = source->last,
                                                  .previous_term = source->last_term,
                                                  .last_index = blocks.last,
                                                  .commit = view.commit,
                                                  .round = view.round};
    ret->body = buffer;
    ret->body_bytes = blocks.bytes;
    source->last = blocks.last;
    source->last_term = blocks.last_term;
    source->position = blocks.end;
    source->commit = view.commit;
    ring_word_store(&source->slot->position, blocks.end);
    return 0;
}
