/* SPDX-License-Identifier: Apache-2.0 */
/* local.c - followers of the same host read the leader's ring. Thread: loop.
 * Owns: the transport beneath, the link; of each peer that we may follow its ring, mapped read-only, and our slot there; of
 * each reader of our ring its slot, mapped read-only.
 *
 *   leader  send(APPEND, HEARTBEAT) --swallowed: it lies in the ring-->   . . . ring . . .   --copied, checked--> next  follower
 *           next <-- an ack, made of the slot <--  . . . slot . . .  <-- written -- send(ACK)
 *
 * A follower pulls from when its node says to L that their logs match, until something stands in the way: local_source.h.
 * While it pulls, its slot names the ring's epoch: then, and only then, the leader sends it neither blocks nor heartbeats.
 * What was swallowed and never read is lost as on a wire, and Raft repeats it (by TCP, since the slot's epoch is 0).
 *
 * S2  An ack counts for the epoch that it was written under, which must be the ring's present one.
 * S4  Whoever dies or stops anywhere: its words stay as they are. The link tells of a hang-up; Raft's timers of a stop.
 * S5  What comes from a slot is an ack like one from the wire: the core refuses what cannot be.
 * S6  The leader looks at one word of a follower that it swallows for. It copies nothing for it and waits for nothing.
 * S7  Publish, then look who sleeps (flush: bells); sleep: say so, then look once more (flush: go_to_sleep).
 *
 * Why a filter and not a transport: birth, votes, forwards, snapshots and old blocks need one anyway, and it takes over
 * at any moment without a handshake. */
#include "transport/local.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "proto/ring_reader.h"
#include "transport/local_source.h"

enum {
    NO_CONNECTION = LOCAL_CONNECTIONS_MAX,
    PULLS_A_TURN_MAX = 8, /* frames of all sources, so that the others' have their turn */
    ACK_LOOKS_MAX = 4,
    READERS_MAX = RAFT_MEMBERS_MAX + LOCAL_OBSERVERS_MAX,
};

/* Who reads our ring: by peer slot, then the observers. */
struct reader {
    unsigned connection; /* NO_CONNECTION */
    raft_member member;  /* 0 = an observer */
    const struct ring_reader_slot *slot;
    int slot_fd;
    struct ring_ack acked; /* handed to the node */
    bool served;           /* in this turn */
    uint64_t rung;
    struct transport_question question; /* an observer's; ticket 0 = it waits for no answer */
    bool taken;                         /* the node has it */
};

/* Beside the inner transport's status; for good, whoever has the slot. */
struct counters {
    uint64_t lapped, bells, bells_spared;
};

enum party_kind { PARTY_NONE, PARTY_SOURCE, PARTY_READER, PARTY_ENDED /* by us; the link has to be told */ };

struct party {
    uint8_t kind;
    uint8_t index;
};

enum given { GIVEN_NOTHING, GIVEN_INNER, GIVEN_OURS };

struct local {
    struct transport base;
    struct transport *inner;
    struct local_link *link;
    struct transport_owner owner;
    struct transport_hello hello;
    unsigned self;
    uint64_t spin_ns;
    void *report_context;
    void (*report)(void *context, const char *text);

    struct ring_reader *own; /* our own ring, as others see it */
    struct ring_view seen;   /* at the end of the turn before */
    struct source sources[RAFT_MEMBERS_MAX];
    struct reader readers[READERS_MAX];
    struct counters counters[RAFT_MEMBERS_MAX], of_observers;
    struct party parties[LOCAL_CONNECTIONS_MAX];
    uint64_t ticket;        /* of the newest question */
    unsigned observer_next; /* whose question is looked at first */

    uint64_t look_ns, listen_ns; /* when that is due */
    bool listening, listen_told, unfit;

    bool in_turn, asleep;
    bool exhausted;       /* the node has seen all there was in this turn */
    unsigned pulls;       /* of this turn */
    unsigned source_next; /* who is pulled from first: behind the one that brought something */
    enum given given;
    uint64_t led_epoch; /* of our ring, when our node last sent as a leader */
    raft_term led_term;
    bool beat_due;
    uint64_t beat_epoch, beat_round;

    uint8_t *buffer; /* BLOCK_BYTES_MAX: what next() hands out */
};

static struct local *local_of(struct transport *t)
{
    return (struct local *)t; /* base is the first member */
}

static struct ring *the_ring(struct local *local)
{
    return local->owner.ring(local->owner.context);
}

/* --- who is there ------------------------------------------------------------------------------------------------- */

/* Its connection is no more, or is to be ended by the next flush. */
static void source_drop(struct local *local, struct source *source)
{
    if (source->reader != NULL) source_stop(source);
    ring_reader_close(source->reader);
    ring_reader_slot_unmap(source->slot);
    *source = (struct source){.connection = NO_CONNECTION,
                              .told = source->told,
                              .retry_ns = local->link->ops->now_ns(local->link) + LOCAL_RETRY_MS * UINT64_C(1000000)};
}

static void reader_drop(struct local *local, struct reader *reader)
{
    if (reader->connection != NO_CONNECTION && reader->member == 0)
        local->of_observers.lapped += ring_word_load(&reader->slot->lapped);
    ring_reader_slot_unmap(reader->slot);
    if (reader->slot_fd >= 0) close(reader->slot_fd);
    *reader = (struct reader){.connection = NO_CONNECTION, .slot_fd = -1};
}

static void connection_end(struct local *local, unsigned connection)
{
    if (connection != NO_CONNECTION) local->parties[connection].kind = PARTY_ENDED;
}

static void source_end(struct local *local, struct source *source)
{
    connection_end(local, source->connection);
    source_drop(local, source);
}

static void reader_end(struct local *local, struct reader *reader)
{
    connection_end(local, reader->connection);
    reader_drop(local, reader);
}

static void everybody_end(struct local *local)
{
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        source_end(local, &local->sources[i]);
        local->sources[i].retry_ns = 0;
    }
    for (unsigned i = 0; i < READERS_MAX; i++) reader_end(local, &local->readers[i]);
}

static void report_of(struct local *local, struct source *source, const char *why)
{
    char text[512];
    if (source->told) return; /* it is tried again each second */
    source->told = true;
    (void)snprintf(text, sizeof text, "member %016" PRIx64 " of this host is not followed through shared memory: %s",
                   source->member, why);
    local->report(local->report_context, text);
}

/* --- callbacks of the link: between turns, and none of them calls it ------------------------------------------------ */

static void link_wake(void *context)
{
    struct local *local = context;
    local->owner.wake(local->owner.context);
}

/* A follower is who the transport beneath knows: connected there, with this member id and start. */
static struct reader *reader_place(struct local *local, const struct local_hello *hello)
{
    struct transport_peer_status status;
    if (hello->kind == LOCAL_OBSERVER) {
        for (unsigned i = RAFT_MEMBERS_MAX; i < READERS_MAX; i++)
            if (local->readers[i].connection == NO_CONNECTION) return &local->readers[i];
        return NULL;
    }
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX && hello->member_id != 0; i++) {
        if (i == local->self) continue;
        local->inner->ops->peer_status(local->inner, i, &status);
        if (!status.connected_in || status.member_id != hello->member_id) continue;
        return status.boot == 0 || status.boot == hello->boot ? &local->readers[i] : NULL;
    }
    return NULL;
}

static int link_judge(void *context, unsigned connection, const struct local_hello *hello,
                      struct local_reply *ret_reply, struct local_grant *ret_grant)
{
    struct local *local = context;
    struct ring *ring = the_ring(local);
    *ret_reply = (struct local_reply){
        .cluster_id = local->hello.cluster_id, .member_id = local->hello.member_id, .boot = local->hello.boot};
    if (ring == NULL || local->own == NULL || local->hello.cluster_id == 0) {
        (void)snprintf(ret_reply->why, sizeof ret_reply->why, "this node is not ready yet");
        return LOCKSTEP_EUNAVAILABLE;
    }
    ret_reply->group = ring_reader_identity(local->own).group;
    if (hello->cluster_id != local->hello.cluster_id || hello->wanted_id != local->hello.member_id ||
        (hello->wanted_boot != 0 && hello->wanted_boot != local->hello.boot) || hello->group != ret_reply->group) {
        (void)snprintf(ret_reply->why, sizeof ret_reply->why, "this is another cluster, member, start or group");
        return LOCKSTEP_EFOREIGN;
    }
    struct reader *reader = reader_place(local, hello);
    if (reader == NULL) {
        bool observes = hello->kind == LOCAL_OBSERVER;
        (void)snprintf(ret_reply->why, sizeof ret_reply->why,
                       observes ? "there are %d observers already" : "no such member is connected to this node",
                       LOCAL_OBSERVERS_MAX);
        return observes ? LOCKSTEP_EFULL : LOCKSTEP_EFOREIGN;
    }
    int slot_fd;
    const struct ring_reader_slot *slot;
    if (ring_reader_slot_make(&slot_fd, &slot) != 0) {
        (void)snprintf(ret_reply->why, sizeof ret_reply->why, "this node has no memory or descriptor left for a slot");
        return LOCKSTEP_ENOMEM;
    }
    reader_end(local, reader); /* the newer one is the living one */
    raft_member member = hello->kind == LOCAL_FOLLOWER ? hello->member_id : 0;
    *reader = (struct reader){.connection = connection, .member = member, .slot = slot, .slot_fd = slot_fd};
    local->parties[connection] = (struct party){PARTY_READER, (uint8_t)(reader - local->readers)};
    *ret_grant = (struct local_grant){.ring_fd = ring_fd(ring), .slot_fd = slot_fd};
    return 0;
}

static int source_map(struct local *local, struct source *source, const struct local_reply *reply,
                      const struct local_grant *grant)
{
    if (reply->cluster_id != local->hello.cluster_id || reply->member_id != source->member) return LOCKSTEP_EFOREIGN;
    int rc = ring_reader_open(grant->ring_fd, &source->reader);
    if (rc != 0) return rc;
    struct ring_identity identity = ring_reader_identity(source->reader);
    if (identity.cluster_id != reply->cluster_id || identity.member_id != reply->member_id ||
        identity.boot != reply->boot || identity.group != reply->group)
        return LOCKSTEP_EFOREIGN;
    return ring_reader_slot_map(grant->slot_fd, &source->slot);
}

static int link_granted(void *context, unsigned connection, const struct local_reply *reply,
                        const struct local_grant *grant)
{
    struct local *local = context;
    struct party *party = &local->parties[connection];
    int rc = LOCKSTEP_EPROTO;
    if (party->kind == PARTY_SOURCE) {
        struct source *source = &local->sources[party->index];
        rc = source_map(local, source, reply, grant);
        if (rc != 0) {
            report_of(local, source, lockstep_error_text(rc));
            source_drop(local, source);
        }
    }
    close(grant->ring_fd);
    close(grant->slot_fd);
    if (rc != 0) party->kind = PARTY_NONE;
    return rc;
}

/* An observer's question, the only one at a time. Members have no packets but bells. */
static int link_packet(void *context, unsigned connection, const uint8_t *bytes, size_t count)
{
    struct local *local = context;
    struct party party = local->parties[connection];
    if (party.kind != PARTY_READER || party.index < RAFT_MEMBERS_MAX) return LOCKSTEP_EPROTO;
    struct reader *reader = &local->readers[party.index];
    if (reader->question.ticket != 0) return LOCKSTEP_EPROTO;
    int rc = local_ask_read(bytes, count, &reader->question.ask);
    if (rc == 0) reader->question.ticket = ++local->ticket;
    return rc;
}

static void link_ended(void *context, unsigned connection, const char *why)
{
    struct local *local = context;
    struct party party = local->parties[connection];
    local->parties[connection].kind = PARTY_NONE;
    if (party.kind == PARTY_READER) reader_drop(local, &local->readers[party.index]);
    if (party.kind != PARTY_SOURCE) return;
    struct source *source = &local->sources[party.index];
    if (source->reader == NULL) report_of(local, source, why); /* refused; else it was there and is gone */
    source_drop(local, source);
}

/* --- finding each other: in flush, so that it is in a turn ----------------------------------------------------------- */

static void source_dial(struct local *local, unsigned index, const struct transport_peer_status *status)
{
    struct source *source = &local->sources[index];
    const struct local_hello hello = {
        .kind = LOCAL_FOLLOWER,
        .group = ring_reader_identity(local->own).group,
        .cluster_id = local->hello.cluster_id,
        .member_id = local->hello.member_id,
        .boot = local->hello.boot,
        .wanted_id = status->member_id,
        .wanted_boot = status->boot,
    };
    source->member = status->member_id;
    source->retry_ns = local->link->ops->now_ns(local->link) + LOCAL_RETRY_MS * UINT64_C(1000000);
    unsigned connection;
    if (local->link->ops->dial(local->link, &hello, &connection) != 0) return; /* another host, as a rule */
    source->connection = connection;
    local->parties[connection] = (struct party){PARTY_SOURCE, (uint8_t)index};
}

static void listen_again(struct local *local, uint64_t now)
{
    local->listen_ns = now + LOCAL_RETRY_MS * UINT64_C(1000000);
    int rc = local->link->ops->listen(local->link, local->hello.cluster_id, local->hello.member_id);
    local->listening = rc == 0;
    if (rc == 0 || local->listen_told) return;
    local->listen_told = true;
    local->report(local->report_context,
                  rc == LOCKSTEP_EEXIST
                      ? "another process has this node's local name: peers of this host follow by TCP until it ends"
                      : "the system gives no local socket: peers of this host follow by TCP");
}

static void look_around(struct local *local, struct ring *ring)
{
    struct transport_peer_status status;
    uint64_t now = local->link->ops->now_ns(local->link);
    if (now < local->look_ns || local->unfit) return;
    local->look_ns = now + LOCAL_LOOK_MS * UINT64_C(1000000);
    if (local->hello.cluster_id == 0) return; /* not born yet */
    int rc = local->own != NULL  ? 0
             : ring_fd(ring) < 0 ? LOCKSTEP_EINVAL
                                 : ring_reader_open(ring_fd(ring), &local->own);
    if (rc == LOCKSTEP_ENOMEM) return; /* tried again */
    if (rc != 0) {
        local->unfit = true;
        local->report(local->report_context,
                      "this kernel seals no memory for readers: peers of this host follow by TCP");
        return;
    }
    if (!local->listening && now >= local->listen_ns) listen_again(local, now);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct source *source = &local->sources[i];
        struct reader *reader = &local->readers[i];
        if (i == local->self) continue;
        local->inner->ops->peer_status(local->inner, i, &status);
        if (source->connection != NO_CONNECTION && source->member != status.member_id) source_end(local, source);
        if (reader->connection != NO_CONNECTION && reader->member != status.member_id) reader_end(local, reader);
        if (source->connection == NO_CONNECTION && status.connected_out && status.member_id != 0 &&
            now >= source->retry_ns)
            source_dial(local, i, &status);
    }
}

/* --- the leader's side ------------------------------------------------------------------------------------------------ */

/* Whether this reader follows our ring under its present epoch. */
static bool follows(const struct reader *reader, uint64_t epoch)
{
    return reader->connection != NO_CONNECTION && reader->member != 0 && ring_word_load(&reader->slot->epoch) == epoch;
}

/* Our own ring's epoch, while our node leads under it; else 0. */
static uint64_t leading_epoch(struct local *local)
{
    return local->led_epoch != 0 && ring_epoch(the_ring(local)) == local->led_epoch ? local->led_epoch : 0;
}

/* A message that its reader finds in the ring. */
static bool swallow(struct local *local, const struct transport_send *send)
{
    const struct raft_message *m = send->message;
    const struct reader *reader = &local->readers[send->slot];
    if (reader->connection == NO_CONNECTION || reader->member != m->to) return false;
    uint64_t epoch = local->led_epoch;
    if (!follows(reader, epoch)) return false;
    if (m->type == RAFT_HEARTBEAT) { /* one for all of them, at the end of the turn */
        local->beat_round = !local->beat_due || local->beat_epoch != epoch || local->beat_round < m->as.heartbeat.round
                                ? m->as.heartbeat.round
                                : local->beat_round;
        local->beat_due = true;
        local->beat_epoch = epoch;
    }
    return true;
}

/* Whether a slot says what the node has not been told; then that, as far as it stands still. */
static bool reader_has_news(const struct reader *reader, uint64_t epoch, struct ring_ack *ret)
{
    struct ring_ack again;
    if (reader->connection == NO_CONNECTION || reader->member == 0) return false;
    if (!ring_ack_load(reader->slot, epoch, ret)) return false;
    for (unsigned i = 0; i < ACK_LOOKS_MAX; i++) { /* a round that is newer than the rest looks like a lost append */
        if (!ring_ack_load(reader->slot, epoch, &again)) return false;
        if (ring_acks_equal(&again, ret)) break;
        *ret = again;
    }
    return !ring_acks_equal(ret, &reader->acked);
}

static bool next_ack(struct local *local, struct transport_frame *ret)
{
    struct ring_ack ack;
    uint64_t epoch = leading_epoch(local);
    if (epoch == 0) return false;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct reader *reader = &local->readers[i];
        if (reader->served || !reader_has_news(reader, epoch, &ack)) continue;
        reader->served = true;
        reader->acked = ack;
        *ret = (struct transport_frame){.slot = i, .member_id = reader->member, .type = FRAME_RAFT};
        ret->message = (struct raft_message){
            .type = RAFT_ACK, .from = reader->member, .to = local->hello.member_id, .term = local->led_term};
        ret->message.as.ack =
            (struct raft_ack){.durable_index = ack.durable, .validated_index = ack.validated, .round = ack.round};
        return true;
    }
    return false;
}

/* --- the follower's side ---------------------------------------------------------------------------------------------- */

/* A frame of what moved in this ring since. */
static bool pull(struct local *local, unsigned index, struct transport_frame *ret)
{
    struct source *source = &local->sources[index];
    int rc = source_pull(source, local->hello.member_id, local->buffer, ret);
    if (rc == 0) {
        ret->slot = index;
        if (ret->body_bytes > 0) source->told = false;
        return true;
    }
    if (rc == LOCKSTEP_ELAPPED) {
        local->counters[index].lapped++;
        ring_word_store(&source->slot->lapped, local->counters[index].lapped);
    } else if (rc != LOCKSTEP_EUNAVAILABLE) {
        report_of(local, source, "there is nonsense in its ring");
        source_end(local, source);
    }
    return false;
}

static bool next_pull(struct local *local, struct transport_frame *ret)
{
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX && local->pulls < PULLS_A_TURN_MAX; i++) {
        unsigned index = (local->source_next + i) % RAFT_MEMBERS_MAX;
        if (local->sources[index].epoch == 0 || !pull(local, index, ret)) continue;
        local->source_next = index + 1;
        local->pulls++;
        return true;
    }
    return false;
}

/* --- the turn ----------------------------------------------------------------------------------------------------------- */

static void wake_up(struct local *local)
{
    struct ring *ring = the_ring(local);
    if (!local->asleep) return;
    local->asleep = false;
    if (ring != NULL) ring_sleeps(ring, false);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        if (local->sources[i].slot != NULL) ring_sleeps_store(&local->sources[i].slot->sleeps, false);
}

static bool anything_moved(struct local *local)
{
    struct ring_ack ack;
    uint64_t epoch = leading_epoch(local);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        if (source_has_news(&local->sources[i])) return true;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX && epoch != 0; i++)
        if (reader_has_news(&local->readers[i], epoch, &ack)) return true;
    return false;
}

/* Whether anybody would ring us. */
static bool has_company(const struct local *local)
{
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (local->sources[i].epoch != 0) return true;
        if (local->readers[i].connection != NO_CONNECTION && follows(&local->readers[i], local->seen.epoch))
            return true;
    }
    return false;
}

static bool spin(struct local *local)
{
    uint64_t end = local->link->ops->now_ns(local->link) + local->spin_ns;
    do {
        if (anything_moved(local)) return true;
    } while (local->link->ops->now_ns(local->link) < end);
    return false;
}

/* S7: say that we sleep, then look. */
static void go_to_sleep(struct local *local, struct ring *ring)
{
    if (local->spin_ns > 0 && has_company(local) && spin(local)) {
        local->owner.wake(local->owner.context);
        return;
    }
    local->asleep = true;
    ring_sleeps(ring, true);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        if (local->sources[i].epoch != 0) ring_sleeps_store(&local->sources[i].slot->sleeps, true);
    if (anything_moved(local)) local->owner.wake(local->owner.context);
}

static void bell(struct local *local, unsigned connection, const ring_word *sleeps, uint64_t *rung,
                 struct counters *counters)
{
    if (ring_sleeps_look(sleeps, rung)) {
        if (!local->link->ops->bell(local->link, connection)) *rung = 0; /* by the next that moves */
        counters->bells++;
    } else {
        counters->bells_spared++;
    }
}

/* S7: what we did stands in memory; who of those that it concerns sleeps? */
static void bells(struct local *local)
{
    struct ring_view view;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct source *source = &local->sources[i];
        source->settled = source->last;
        if (!source->spoke) continue;
        source->spoke = false;
        bell(local, source->connection, ring_reader_writer_sleeps(source->reader), &source->rung, &local->counters[i]);
    }
    if (local->own == NULL || ring_reader_look(local->own, &view) != 0) return;
    bool committed = view.commit != local->seen.commit, other_epoch = view.epoch != local->seen.epoch;
    /* A commit alone wakes no follower: it comes with the next blocks or beat, as on a wire, or when it is awake anyway. */
    bool followers = other_epoch || view.tail != local->seen.tail || view.beat != local->seen.beat;
    bool moved = followers || committed;
    for (unsigned i = 0; i < READERS_MAX && moved; i++) {
        struct reader *reader = &local->readers[i];
        if (reader->connection == NO_CONNECTION) continue;
        bool concerned = committed || other_epoch; /* an observer */
        if (reader->member != 0)
            concerned =
                followers && (follows(reader, view.epoch) || (other_epoch && follows(reader, local->seen.epoch)));
        if (!concerned) continue;
        bell(local, reader->connection, &reader->slot->sleeps, &reader->rung,
             i < RAFT_MEMBERS_MAX ? &local->counters[i] : &local->of_observers);
    }
    local->seen = view;
}

static void end_connections(struct local *local)
{
    for (unsigned i = 0; i < LOCAL_CONNECTIONS_MAX; i++) {
        if (local->parties[i].kind != PARTY_ENDED) continue;
        local->parties[i].kind = PARTY_NONE;
        local->link->ops->end(local->link, i);
    }
}

/* --- transport_ops -------------------------------------------------------------------------------------------------------- */

static int op_send(struct transport *t, const struct transport_send *send)
{
    struct local *local = local_of(t);
    if (send->type == FRAME_RAFT) {
        uint8_t type = send->message->type;
        if (type == RAFT_ACK && source_speak(&local->sources[send->slot], send->message)) return 0;
        if (type == RAFT_HEARTBEAT || type == RAFT_APPEND) {
            local->led_epoch = ring_epoch(the_ring(local));
            local->led_term = send->message->term;
            if (send->blocks_bytes == 0 && swallow(local, send)) return 0;
        }
    }
    return local->inner->ops->send(local->inner, send);
}

static uint64_t op_queued_bytes(struct transport *t, unsigned slot)
{
    return local_of(t)->inner->ops->queued_bytes(local_of(t)->inner, slot);
}

static bool op_blocks_idle(struct transport *t, unsigned slot)
{
    return local_of(t)->inner->ops->blocks_idle(local_of(t)->inner, slot);
}

static bool op_next(struct transport *t, struct transport_frame *ret)
{
    struct local *local = local_of(t);
    if (!local->in_turn) {
        local->in_turn = true;
        wake_up(local);
    }
    local->given = GIVEN_OURS;
    if (next_ack(local, ret) || next_pull(local, ret)) return true;
    local->given = GIVEN_INNER;
    if (local->inner->ops->next(local->inner, ret)) {
        /* Its process ended, or so it seems: nothing of it comes behind that any more. */
        if (ret->type == FRAME_HANGUP) source_end(local, &local->sources[ret->slot]);
        return true;
    }
    local->given = GIVEN_NOTHING;
    local->exhausted = true;
    return false;
}

static void op_consume(struct transport *t)
{
    struct local *local = local_of(t);
    lk_assert(local->given != GIVEN_NOTHING);
    if (local->given == GIVEN_INNER) local->inner->ops->consume(local->inner);
    local->given = GIVEN_NOTHING;
}

static void op_flush(struct transport *t)
{
    struct local *local = local_of(t);
    struct ring *ring = the_ring(local);
    local->inner->ops->flush(local->inner);
    if (ring == NULL) return; /* before birth */
    look_around(local, ring);
    if (local->beat_due && ring_epoch(ring) == local->beat_epoch) ring_beat(ring, local->beat_round);
    local->beat_due = false;
    bells(local);
    end_connections(local);
    /* Where the node left frames lying it comes back by itself, and looks before it sleeps then. */
    if (local->exhausted) go_to_sleep(local, ring);
    local->in_turn = local->exhausted = false;
    local->pulls = 0;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) local->readers[i].served = false;
}

static int op_peer_set(struct transport *t, unsigned slot, const char *name, const char *address)
{
    struct local *local = local_of(t);
    struct transport_peer_status status;
    int rc = local->inner->ops->peer_set(local->inner, slot, name, address);
    if (rc != 0) return rc;
    local->inner->ops->peer_status(local->inner, slot, &status);
    struct source *source = &local->sources[slot];
    struct reader *reader = &local->readers[slot];
    if (source->connection != NO_CONNECTION && source->member != status.member_id) source_end(local, source);
    if (reader->connection != NO_CONNECTION && reader->member != status.member_id) reader_end(local, reader);
    return 0;
}

static void op_hello_set(struct transport *t, const struct transport_hello *hello)
{
    struct local *local = local_of(t);
    bool other = local->hello.cluster_id != hello->cluster_id || local->hello.member_id != hello->member_id ||
                 local->hello.boot != hello->boot;
    local->hello = *hello;
    local->inner->ops->hello_set(local->inner, hello);
    if (!other) return;
    everybody_end(local);
    local->listening = local->listen_told = false;
    local->listen_ns = local->look_ns = 0;
}

static void op_peer_status(struct transport *t, unsigned slot, struct transport_peer_status *ret)
{
    struct local *local = local_of(t);
    const struct source *source = &local->sources[slot];
    const struct reader *reader = &local->readers[slot];
    struct ring_view view;
    local->inner->ops->peer_status(local->inner, slot, ret);
    ret->lapped = local->counters[slot].lapped;
    ret->bells = local->counters[slot].bells;
    ret->bells_spared = local->counters[slot].bells_spared;
    ring_pos position = 0;
    if (source->epoch != 0 && ring_reader_look(source->reader, &view) == 0) {
        ret->shared_memory = view.epoch == source->epoch;
        position = source->position;
    } else if (local->own != NULL && ring_reader_look(local->own, &view) == 0 && view.leads &&
               follows(reader, view.epoch)) {
        ret->shared_memory = true;
        position = ring_word_load(&reader->slot->position); /* another process's word */
        ret->lapped += ring_word_load(&reader->slot->lapped);
    }
    if (!ret->shared_memory || position >= view.tail) return;
    ret->lag_bytes = view.tail - position;
}

static uint64_t op_frames_refused(struct transport *t)
{
    struct local *local = local_of(t);
    return local->inner->ops->frames_refused(local->inner) + local->link->ops->refused(local->link);
}

static void op_observers(struct transport *t, struct transport_observers *ret)
{
    struct local *local = local_of(t);
    struct ring_view view;
    bool seen = local->own != NULL && ring_reader_look(local->own, &view) == 0;
    *ret = (struct transport_observers){.lapped = local->of_observers.lapped,
                                        .bells = local->of_observers.bells,
                                        .bells_spared = local->of_observers.bells_spared};
    for (unsigned i = RAFT_MEMBERS_MAX; i < READERS_MAX; i++) {
        const struct reader *reader = &local->readers[i];
        if (reader->connection == NO_CONNECTION) continue;
        ring_pos position = ring_word_load(&reader->slot->position); /* another process's words */
        ret->count++;
        ret->lapped += ring_word_load(&reader->slot->lapped);
        if (seen && position < view.tail && view.tail - position > ret->lag_bytes)
            ret->lag_bytes = view.tail - position;
    }
}

static bool op_asked(struct transport *t, struct transport_question *ret)
{
    struct local *local = local_of(t);
    for (unsigned i = 0; i < LOCAL_OBSERVERS_MAX; i++) {
        unsigned observer = (local->observer_next + i) % LOCAL_OBSERVERS_MAX;
        struct reader *reader = &local->readers[RAFT_MEMBERS_MAX + observer];
        if (reader->question.ticket == 0 || reader->taken) continue;
        reader->taken = true;
        local->observer_next = observer + 1;
        *ret = reader->question;
        return true;
    }
    return false;
}

static void op_answer(struct transport *t, uint64_t ticket, const void *packet, size_t bytes)
{
    struct local *local = local_of(t);
    for (unsigned i = RAFT_MEMBERS_MAX; i < READERS_MAX; i++) {
        struct reader *reader = &local->readers[i];
        if (reader->question.ticket != ticket) continue;
        reader->question.ticket = 0;
        reader->taken = false;
        /* Who asks takes the answer before it asks again: there is room, or it does not read. */
        if (local->link->ops->send(local->link, reader->connection, packet, bytes) != 0) reader_end(local, reader);
        return;
    }
}

static void op_close(struct transport *t)
{
    struct local *local = local_of(t);
    local->link->ops->close(local->link);
    local->inner->ops->close(local->inner);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        ring_reader_close(local->sources[i].reader);
        ring_reader_slot_unmap(local->sources[i].slot);
    }
    for (unsigned i = 0; i < READERS_MAX; i++) reader_drop(local, &local->readers[i]);
    ring_reader_close(local->own);
    free(local->buffer);
    free(local);
}

static const struct transport_ops local_ops = {
    .send = op_send,
    .queued_bytes = op_queued_bytes,
    .blocks_idle = op_blocks_idle,
    .next = op_next,
    .consume = op_consume,
    .flush = op_flush,
    .peer_set = op_peer_set,
    .hello_set = op_hello_set,
    .peer_status = op_peer_status,
    .frames_refused = op_frames_refused,
    .observers = op_observers,
    .asked = op_asked,
    .answer = op_answer,
    .close = op_close,
};

int local_open(const struct local_options *options, struct transport **ret)
{
    struct local *local = calloc(1, sizeof *local);
    uint8_t *buffer = malloc(BLOCK_BYTES_MAX);
    if (local == NULL || buffer == NULL) {
        free(local);
        free(buffer);
        return LOCKSTEP_ENOMEM;
    }
    local->base.ops = &local_ops;
    local->inner = options->inner;
    local->link = options->link;
    local->owner = options->owner;
    local->hello = options->hello;
    local->self = options->self;
    local->spin_ns = options->spin_ns;
    local->report_context = options->report_context;
    local->report = options->report;
    local->buffer = buffer;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) local->sources[i].connection = NO_CONNECTION;
    for (unsigned i = 0; i < READERS_MAX; i++) {
        local->readers[i].connection = NO_CONNECTION;
        local->readers[i].slot_fd = -1;
    }
    const struct local_link_owner owner = {.context = local,
                                           .wake = link_wake,
                                           .judge = link_judge,
                                           .granted = link_granted,
                                           .packet = link_packet,
                                           .ended = link_ended};
    local->link->ops->attach(local->link, &owner);
    *ret = &local->base;
    return 0;
}
