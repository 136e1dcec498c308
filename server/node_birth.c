/* SPDX-License-Identifier: Apache-2.0 */
/* node_birth.c - how a cluster comes to be, once.
 * Thread: loop. Owns: the identity until it is complete.
 * I2  `fresh` = no complete birth record. The first-listed node asks all listed ones; if none has a complete record, it
 *     makes one (or goes on with its pending one, if all ids in it still match), and each node stores it as pending,
 *     durably, before it acknowledges. When all have acknowledged it is complete. A complete record goes, from any
 *     member, only to ids that it names, and beats any pending one there. A node without it neither votes nor
 *     campaigns: so a wiped node that starts with the old configuration is no voter.
 *
 *   fresh --store--> pending --all acknowledged / complete record seen--> complete
 *
 * A node that is admitted later stores the same complete record, and beside it the committed configuration that names its
 * id: it gets both from any member as soon as that configuration is committed there, because it goes on asking.
 *
 * Frames: {kind u8, state u8, 2 reserved, record_bytes u32}, and a birth record where the kind has one; with COMPLETE to a
 * node that joins, {index u64} and the configuration of that index behind it.
 *   ASK       from a node without a complete record, to every peer, again and again
 *   STATE     the answer of a node without one
 *   STORE     first-listed to all: store this as pending
 *   STORED    done, durably (the record comes back, so that an old acknowledgement counts for nothing)
 *   COMPLETE  the record, to an id that it names
 *   REFUSED   the asking id is in no record or committed configuration of a cluster that is complete; state 1: another
 *             id has its name there */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/node_internal.h"

enum { REFUSED_WIPED = 1 };
enum birth_kind { BIRTH_ASK = 1, BIRTH_STATE, BIRTH_STORE, BIRTH_STORED, BIRTH_COMPLETE, BIRTH_REFUSED };

struct birth_frame {
    uint8_t kind;
    uint8_t state; /* enum identity_state of the sender */
    uint8_t reserved[2];
    uint32_t record_bytes;
};
static_assert(sizeof(struct birth_frame) == 8, "no padding on the wire");

static void birth_send_all(struct node *node, unsigned slot, const struct birth_frame *head,
                           const struct birth_record *record, const struct storage_configuration *joined)
{
    uint8_t bytes[BIRTH_RECORD_BYTES_MAX + sizeof joined->index + CONFIGURATION_BYTES_MAX];
    struct birth_frame frame = *head;
    if (record != NULL) frame.record_bytes = birth_record_write(record, bytes);
    size_t count = frame.record_bytes;
    if (joined != NULL) {
        memcpy(bytes + count, &joined->index, sizeof joined->index);
        count += sizeof joined->index;
        count += configuration_write(&joined->configuration, bytes + count);
    }
    struct transport_send send = {
        .slot = slot,
        .type = FRAME_BIRTH,
        .body = &frame,
        .body_bytes = sizeof frame,
        .more = bytes,
        .more_bytes = count,
    };
    /* Not connected, or no room: everything here is asked again. */
    (void)node->transport->ops->send(node->transport, &send);
}

static void birth_send(struct node *node, unsigned slot, enum birth_kind kind, const struct birth_record *record)
{
    const struct birth_frame head = {.kind = (uint8_t)kind, .state = (uint8_t)node->identity.state};
    birth_send_all(node, slot, &head, record, NULL);
}

static bool same_record(const struct birth_record *a, const struct birth_record *b)
{
    uint8_t a_bytes[BIRTH_RECORD_BYTES_MAX], b_bytes[BIRTH_RECORD_BYTES_MAX];
    uint32_t a_count = birth_record_write(a, a_bytes), b_count = birth_record_write(b, b_bytes);
    return a_count == b_count && memcmp(a_bytes, b_bytes, a_count) == 0;
}

static bool names_id(const struct birth_record *record, raft_member id)
{
    return configuration_find(&record->configuration, id) != NULL;
}

static int store(struct node *node, enum identity_state state, const struct birth_record *record,
                 const struct storage_configuration *joined)
{
    struct identity next = node->identity;
    next.state = state;
    next.birth = *record;
    if (joined != NULL) next.joined = *joined;
    int rc = identity_store(node->directory, &next);
    if (rc != 0) {
        node_fail(node, rc, "%s: cannot store the birth record: %s; free space or repair the disk, then start again",
                  node->options.data_directory, lockstep_error_text(rc));
        return rc;
    }
    node->identity = next;
    return 0;
}

static void become_complete(struct node *node, const struct birth_record *record,
                            const struct storage_configuration *joined)
{
    char why[NODE_WHY_BYTES_MAX];
    if (store(node, IDENTITY_COMPLETE, record, joined) != 0) return;
    node->birth.refused = false;
    node_log(node, NODE_LOG_INFO, "birth record complete: cluster=%s id=%016llx members=%u", record->cluster,
             (unsigned long long)record->cluster_id, record->configuration.member_count);
    int rc = node_come_alive(node, why, sizeof why);
    if (rc != 0) {
        node_fail(node, rc, "%s", why);
        return;
    }
    struct transport_hello hello;
    node_transport_hello(node, &hello);
    node->transport->ops->hello_set(node->transport, &hello);
}

/* A record that every listed node has to store: the pending one, if it still names exactly the nodes that are here. */
static void record_make(struct node *node)
{
    const struct node_options *o = &node->options;
    struct birth_record record = {
        .cluster_id = node->env.random(node->env.context),
        .time_ns = node->env.wall_ns(node->env.context),
        .configuration = {.uncommitted_bytes_max = o->ring_bytes / 4,
                          .level = (uint32_t)o->level,
                          .session_window = o->sessions.window,
                          .sessions_max = o->sessions.sessions_max,
                          .session_replies_bytes = (uint32_t)o->sessions.replies_bytes,
                          .session_expiry_ms = (uint32_t)(o->sessions.expiry_ns / NODE_MS),
                          .member_count = node->listed_count},
    };
    snprintf(record.cluster, sizeof record.cluster, "%s", o->cluster);
    snprintf(record.machine, sizeof record.machine, "%s", o->plugin->name);
    for (unsigned i = 0; i < node->listed_count; i++) {
        struct configuration_member *member = &record.configuration.members[i];
        member->id = i == o->self ? node->identity.member_id : node->birth.peers[i].id;
        member->role = CONFIGURATION_VOTER;
        snprintf(member->name, sizeof member->name, "%s", o->members[i].name);
        snprintf(member->client, sizeof member->client, "%s", o->members[i].client);
        snprintf(member->peer, sizeof member->peer, "%s", o->members[i].peer);
    }
    if (node->identity.state == IDENTITY_PENDING) {
        struct birth_record again = record; /* what was drawn for the pending one stays */
        again.cluster_id = node->identity.birth.cluster_id;
        again.time_ns = node->identity.birth.time_ns;
        if (same_record(&again, &node->identity.birth)) return;
    }
    for (unsigned i = 0; i < node->listed_count; i++) node->birth.peers[i].stored = false;
    (void)store(node, IDENTITY_PENDING, &record, NULL);
}

/* First-listed node: go one step further, if all others have answered. */
static void birth_lead(struct node *node)
{
    const struct node_options *o = &node->options;
    for (unsigned i = 0; i < node->listed_count; i++)
        if (i != o->self && !node->birth.peers[i].answered) return;
    record_make(node);
    if (node->failed != 0) return;
    bool all = true;
    for (unsigned i = 0; i < node->listed_count; i++) {
        if (i == o->self || node->birth.peers[i].stored) continue;
        all = false;
        birth_send(node, i, BIRTH_STORE, &node->identity.birth);
    }
    if (!all) return;
    struct birth_record record = node->identity.birth;
    become_complete(node, &record, NULL);
    if (node->failed != 0) return;
    for (unsigned i = 0; i < node->listed_count; i++)
        if (i != o->self) birth_send(node, i, BIRTH_COMPLETE, &record);
}

void node_birth_turn(struct node *node)
{
    if (node->now_ns < node->birth.retry_ns) return;
    node->birth.retry_ns = node->now_ns + NODE_BIRTH_RETRY_NS;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        if (i != node->options.self && node->options.members[i].name[0] != 0) birth_send(node, i, BIRTH_ASK, NULL);
    if (node->options.self == 0) birth_lead(node);
}

/* What stands in a frame; joined->index is 0 where the frame has no such part. Negative: it is malformed. */
static int birth_read(const struct transport_frame *frame, struct birth_frame *ret_head,
                      struct birth_record *ret_record, struct storage_configuration *ret_joined)
{
    if (frame->body_bytes < sizeof *ret_head) return LOCKSTEP_EPROTO;
    memcpy(ret_head, frame->body, sizeof *ret_head);
    const uint8_t *at = frame->body + sizeof *ret_head;
    size_t left = frame->body_bytes - sizeof *ret_head;
    if (ret_head->record_bytes > left) return LOCKSTEP_EPROTO;
    if (ret_head->record_bytes != 0 && birth_record_read(at, ret_head->record_bytes, ret_record) != 0)
        return LOCKSTEP_EPROTO;
    at += ret_head->record_bytes;
    left -= ret_head->record_bytes;
    if (left == 0) return 0;
    if (left < sizeof ret_joined->index || ret_head->record_bytes == 0) return LOCKSTEP_EPROTO;
    memcpy(&ret_joined->index, at, sizeof ret_joined->index);
    return configuration_read(at + sizeof ret_joined->index, left - sizeof ret_joined->index,
                              &ret_joined->configuration);
}

/* Whether a member has the name of who asks, under another id. */
static bool is_wiped(const struct node *node, const struct transport_frame *frame)
{
    const struct configuration *c = &node_configuration_known(node)->configuration;
    const char *name = node->options.members[frame->slot].name;
    uint32_t i = 0;
    while (i < c->member_count && (strcmp(c->members[i].name, name) != 0 || c->members[i].id == frame->member_id)) i++;
    return i < c->member_count;
}

/* The cluster exists. Only a committed configuration admits: another may still be cut, and who has a record is fresh no
 * more (R11). */
static void answer_complete(struct node *node, const struct transport_frame *frame)
{
    const struct storage_configuration *committed = &node->members.configurations[0];
    struct birth_frame head = {.kind = BIRTH_COMPLETE, .state = IDENTITY_COMPLETE};
    if (names_id(&node->identity.birth, frame->member_id)) {
        birth_send_all(node, frame->slot, &head, &node->identity.birth, NULL);
    } else if (configuration_find(&committed->configuration, frame->member_id) != NULL) {
        birth_send_all(node, frame->slot, &head, &node->identity.birth, committed);
    } else {
        head.kind = BIRTH_REFUSED;
        head.state = is_wiped(node, frame) ? REFUSED_WIPED : 0;
        birth_send_all(node, frame->slot, &head, NULL, NULL);
    }
}

void node_birth_refused(struct node *node, bool wiped)
{
    const struct node_options *o = &node->options;
    const struct node_member_options *self = &o->members[o->self];
    char waits[NODE_WHY_BYTES_MAX];
    if (wiped && o->level == DURABILITY_LEVEL_MEMORY)
        snprintf(
            waits, sizeof waits,
            "started anew at durability \"memory\", %s is a new member: the leader of cluster \"%s\" puts it in the "
            "old one's place; if a majority was started anew there is none: lockstep recover --online on a node "
            "that was not",
            self->name, o->cluster);
    else if (wiped)
        snprintf(
            waits, sizeof waits,
            "the data directory is new, but cluster \"%s\" knows %s by another one: an emptied node is no voter; bring "
            "the old directory back, or: lockstep member replace %s",
            o->cluster, self->name, self->name);
    else
        snprintf(waits, sizeof waits,
                 "waiting to be admitted to cluster \"%s\": lockstep member add %s --client %s --peer %s", o->cluster,
                 self->name, self->client, self->peer);
    if (node->birth.refused && strcmp(waits, node->birth.waits) == 0) return;
    node->birth.refused = true;
    memcpy(node->birth.waits, waits, sizeof waits);
    node->changed = true;
    node_log(node, wiped ? NODE_LOG_WARN : NODE_LOG_INFO, "%s", waits);
}

void node_birth_frame(struct node *node, const struct transport_frame *frame)
{
    struct birth_frame head;
    struct birth_record record;
    struct storage_configuration joined = {0};
    if (birth_read(frame, &head, &record, &joined) != 0) goto refuse;
    bool has_record = head.record_bytes != 0;
    bool complete = node->identity.state == IDENTITY_COMPLETE;
    bool first_listed = node->options.self == 0;
    switch (head.kind) {
    case BIRTH_ASK:
        if (complete)
            answer_complete(node, frame);
        else
            birth_send(node, frame->slot, BIRTH_STATE, NULL);
        return;
    case BIRTH_STATE:
        if (complete || !first_listed) return;
        if (node->birth.peers[frame->slot].id != frame->member_id) node->birth.peers[frame->slot].stored = false;
        node->birth.peers[frame->slot].answered = true;
        node->birth.peers[frame->slot].id = frame->member_id;
        return;
    case BIRTH_STORE:
        if (!has_record) goto refuse;
        if (complete || first_listed || frame->slot != 0) return;
        if (!names_id(&record, node->identity.member_id)) return; /* an older incarnation of this node was meant */
        if (strcmp(record.cluster, node->options.cluster) != 0 ||
            strcmp(record.machine, node->options.plugin->name) != 0)
            return; /* the hello refuses such a peer with words */
        bool stored = node->identity.state == IDENTITY_PENDING && same_record(&node->identity.birth, &record);
        if (!stored && store(node, IDENTITY_PENDING, &record, NULL) != 0) return;
        birth_send(node, frame->slot, BIRTH_STORED, &record);
        return;
    case BIRTH_STORED:
        if (!has_record) goto refuse;
        if (complete || !first_listed || node->identity.state != IDENTITY_PENDING) return;
        if (same_record(&record, &node->identity.birth)) {
            node->birth.peers[frame->slot].stored = true;
            birth_lead(node);
        }
        return;
    case BIRTH_COMPLETE:
        if (!has_record) goto refuse;
        if (complete || strcmp(record.cluster, node->options.cluster) != 0) return;
        if (names_id(&record, node->identity.member_id))
            become_complete(node, &record, NULL);
        else if (joined.index != 0 && configuration_find(&joined.configuration, node->identity.member_id) != NULL)
            become_complete(node, &record, &joined);
        return;
    case BIRTH_REFUSED:
        if (!complete) node_birth_refused(node, head.state == REFUSED_WIPED);
        return;
    default: break;
    }
refuse:
    node->frames_refused++;
}
