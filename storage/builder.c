/* SPDX-License-Identifier: Apache-2.0 */
/* builder.c - see builder.h.
 * Time is a number here: the work functions ask to be called again later only to gather more, and there is no more. */
#include "storage/builder.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum { PERSIST_BYTES = 1 << 20 /* blocks are flushed in frames of about so much */ };

static const uint64_t LATER_NS = 1000000000ull; /* beyond any lingering */

struct builder {
    struct storage *storage;
    struct ring *ring;
    struct storage_hard_state hard_state;
    uint64_t seq, now_ns;
    raft_index persisted; /* the newest block that was submitted */
    uint64_t unsubmitted_bytes;
    struct configuration newest;
    char why[512];
};

static void no_wake(void *context, enum storage_part part)
{
    (void)context;
    (void)part; /* every call here does all the work that there is */
}

__attribute__((format(printf, 3, 4))) static int refuse(struct builder *b, int rc, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(b->why, sizeof b->why, format, arguments);
    va_end(arguments);
    return rc;
}

int builder_open(const struct storage_options *options, const struct configuration *birth, struct builder **ret,
                 char *why, size_t why_room)
{
    struct storage_options own = *options;
    struct storage_recovered recovered;
    struct builder *b = calloc(1, sizeof *b);
    if (b == NULL) {
        snprintf(why, why_room, "out of memory; free some");
        return LOCKSTEP_ENOMEM;
    }
    own.wake = no_wake;
    int rc = storage_open(&own, &b->storage, &recovered, why, why_room);
    if (rc != 0) {
        free(b);
        return rc;
    }
    b->ring = storage_ring(b->storage);
    b->hard_state = recovered.hard_state;
    b->persisted = recovered.last.index;
    b->newest = *birth;
    if (recovered.configuration_count != 0)
        b->newest = recovered.configurations[recovered.configuration_count - 1].configuration;
    storage_commit(b->storage, recovered.commit);
    *ret = b;
    return 0;
}

void builder_close(struct builder *b)
{
    if (b == NULL) return;
    storage_close(b->storage);
    free(b);
}

const char *builder_why(const struct builder *b)
{
    return b->why;
}

/* The journal's work and the log's, until neither has any. */
static int work(struct builder *b)
{
    const char *why = "";
    b->now_ns += LATER_NS;
    while (storage_journal_work(b->storage, b->now_ns) == 0) continue;
    storage_reclaim(b->storage);
    for (int idle = 0; idle < 2;) { /* a transaction that moved Q lets another one find work */
        idle = storage_log_work(b->storage, b->now_ns) == 0 ? 0 : idle + 1;
        b->now_ns += LATER_NS;
    }
    storage_reclaim(b->storage);
    int rc = storage_failed(b->storage, &why);
    if (rc != 0) return refuse(b, rc, "%s", why);
    struct storage_status status;
    storage_status_read(b->storage, &status);
    if (status.log_stalled) return refuse(b, LOCKSTEP_ENOSPC, "no space for data.mdb to grow; free some");
    return 0;
}

/* What was published becomes durable, and committed: there is nobody else to ask. */
static int settle(struct builder *b)
{
    raft_index last = ring_last(b->ring).index;
    if (last == b->persisted) return work(b);
    const struct storage_persist persist = {
        .seq = ++b->seq, .first = b->persisted + 1, .last = last, .has_hard_state = true, .hard_state = b->hard_state};
    storage_persist(b->storage, &persist);
    b->persisted = last;
    b->unsubmitted_bytes = 0;
    int rc = work(b);
    if (rc != 0) return rc;
    storage_commit(b->storage, last);
    return work(b);
}

int builder_snapshot(struct builder *b, const struct storage_snapshot *snapshot, const uint8_t *bytes, size_t count)
{
    struct storage_incoming held;
    if (!storage_incoming(b->storage, &held)) lk_assert(false); /* work() leaves no command behind */
    uint64_t before = held.snapshot.base.index == snapshot->base.index ? held.offset : 0;
    int rc = storage_install_piece(b->storage, snapshot, before, bytes, count);
    if (rc != 0)
        return refuse(b, LOCKSTEP_ECORRUPT, "byte %" PRIu64 " of the snapshot cannot have a piece of %zu bytes", before,
                      count);
    rc = work(b);
    if (rc != 0) return rc;
    if (!storage_incoming(b->storage, &held)) lk_assert(false);
    if (held.offset == before + count) return 0;
    if (before + count == snapshot->bytes)
        return refuse(b, LOCKSTEP_ECORRUPT, "the snapshot's bytes are not those that its record names");
    return refuse(b, LOCKSTEP_ENOSPC, "no space for the snapshot of %" PRIu64 " bytes; free some", snapshot->bytes);
}

int builder_install(struct builder *b, const struct storage_snapshot *snapshot,
                    const struct storage_install_configuration *configuration)
{
    struct storage_incoming held;
    struct block_base base;
    if (!storage_incoming(b->storage, &held) || !held.complete || held.snapshot.base.index != snapshot->base.index)
        return refuse(b, LOCKSTEP_ECORRUPT, "the snapshot is not whole");
    if (configuration->index != 0 && configuration_read(configuration->bytes, configuration->count, &b->newest) != 0)
        return refuse(b, LOCKSTEP_ECORRUPT, "the configuration of the snapshot is damaged");
    storage_install(b->storage, configuration);
    int rc = work(b);
    if (rc != 0) return rc;
    ring_epoch_begin(b->ring);
    bool done = storage_install_done(b->storage, &base);
    ring_epoch_end(b->ring, b->hard_state.term, false);
    if (!done) return refuse(b, LOCKSTEP_ENOSPC, "no space to make the snapshot the beginning of the log; free some");
    b->persisted = base.index;
    b->hard_state.term = base.term;
    return work(b);
}

static int claim(struct builder *b, uint32_t bytes, uint8_t **ret)
{
    if (b->unsubmitted_bytes + bytes > PERSIST_BYTES || !storage_persist_fits(b->storage, bytes)) {
        int rc = settle(b);
        if (rc != 0) return rc;
    }
    if (!storage_persist_fits(b->storage, bytes) || ring_claim(b->ring, bytes, ret) != 0)
        return refuse(b, LOCKSTEP_EFULL,
                      "a block of %" PRIu32 " bytes does not fit; set [limits] ring and [storage] journal larger",
                      bytes);
    b->unsubmitted_bytes += bytes;
    return 0;
}

int builder_block(struct builder *b, const uint8_t *block, const struct block_header *header)
{
    uint8_t *to;
    struct block_base last = ring_last(b->ring);
    int rc = block_chain_check(&last, header);
    if (rc != 0) return refuse(b, rc, "block %" PRIu64 " does not follow block %" PRIu64, header->index, last.index);
    if (header->type == BLOCK_CONFIGURATION &&
        configuration_read(block + BLOCK_HEADER_BYTES, header->bytes - BLOCK_HEADER_BYTES, &b->newest) != 0)
        return refuse(b, LOCKSTEP_ECORRUPT, "the configuration in block %" PRIu64 " is damaged", header->index);
    rc = claim(b, header->bytes, &to);
    if (rc != 0) return rc;
    memcpy(to, block, header->bytes);
    ring_publish(b->ring, header);
    if (header->term > b->hard_state.term) b->hard_state = (struct storage_hard_state){.term = header->term};
    return 0;
}

static int append(struct builder *b, const struct configuration *configuration)
{
    uint8_t body[CONFIGURATION_BYTES_MAX], *to;
    uint32_t bytes = configuration_write(configuration, body);
    int rc = claim(b, BLOCK_HEADER_BYTES + bytes, &to);
    if (rc != 0) return rc;
    struct block_base last = ring_last(b->ring);
    struct block_header header = {.type = BLOCK_CONFIGURATION,
                                  .bytes = BLOCK_HEADER_BYTES + bytes,
                                  .index = last.index + 1,
                                  .term = b->hard_state.term,
                                  .time_ns = last.time_ns,
                                  .first_position = last.next_position,
                                  .previous_crc = last.crc};
    memcpy(to + BLOCK_HEADER_BYTES, body, bytes);
    block_seal(to, &header);
    ring_publish(b->ring, &header);
    b->newest = *configuration;
    return 0;
}

/* What a joint configuration leads to. */
static struct configuration after(const struct configuration *joint)
{
    struct configuration next = *joint;
    next.member_count = 0;
    for (uint32_t i = 0; i < joint->member_count; i++) {
        uint8_t role = joint->members[i].role;
        if (role == CONFIGURATION_LEAVING) continue;
        struct configuration_member *to = &next.members[next.member_count++];
        *to = joint->members[i];
        to->role =
            role == CONFIGURATION_VOTER || role == CONFIGURATION_INCOMING ? CONFIGURATION_VOTER : CONFIGURATION_LEARNER;
    }
    return next;
}

int builder_alone(struct builder *b, const struct configuration_member *self)
{
    raft_term last_term = ring_last(b->ring).term;
    if (last_term > b->hard_state.term) b->hard_state.term = last_term;
    b->hard_state = (struct storage_hard_state){.term = b->hard_state.term + 1, .vote = self->id};
    int rc = 0;
    if (configuration_is_joint(&b->newest)) {
        const struct configuration left = after(&b->newest);
        rc = append(b, &left);
    }
    /* Learners may go in any step; voters leave through a joint configuration. */
    struct configuration joint = b->newest, alone = b->newest;
    alone.member_count = joint.member_count = 1;
    alone.members[0] = joint.members[0] = *self;
    alone.members[0].role = CONFIGURATION_VOTER;
    joint.members[0].role = CONFIGURATION_INCOMING;
    for (uint32_t i = 0; i < b->newest.member_count; i++) {
        const struct configuration_member *member = &b->newest.members[i];
        if (member->role != CONFIGURATION_VOTER) continue;
        if (member->id == self->id) {
            joint.members[0].role = CONFIGURATION_VOTER;
            continue;
        }
        if (joint.member_count == RAFT_MEMBERS_MAX)
            return refuse(b, LOCKSTEP_EFULL, "the cluster has %d voters: there is no room for a step",
                          RAFT_MEMBERS_MAX);
        joint.members[joint.member_count] = *member;
        joint.members[joint.member_count++].role = CONFIGURATION_LEAVING;
    }
    if (rc == 0 && configuration_is_joint(&joint)) rc = append(b, &joint);
    return rc == 0 ? append(b, &alone) : rc;
}

int builder_finish(struct builder *b, struct block_base *ret)
{
    int rc = settle(b);
    if (rc == 0 && storage_stored(b->storage) != ring_last(b->ring).index) {
        storage_commit(b->storage, ring_last(b->ring).index);
        rc = work(b);
    }
    if (rc != 0) return rc;
    *ret = ring_last(b->ring);
    if (storage_stored(b->storage) == ret->index) return 0;
    return refuse(b, LOCKSTEP_EIO, "block %" PRIu64 " did not reach data.mdb", ret->index);
}
