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
 * Frames: {kind u8, state u8, 6 reserved} and a birth record where the kind has one.
 *   ASK       from a node without a complete record, to every peer, again and again
 *   STATE     the answer of a node without one
 *   STORE     first-listed to all: store this as pending
 *   STORED    done, durably (the record comes back, so that an old acknowledgement counts for nothing)
 *   COMPLETE  the record, to an id that it names
 *   REFUSED   the asking id is not in the record of a cluster that is complete */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/node_internal.h"

enum birth_kind { BIRTH_ASK = 1, BIRTH_STATE, BIRTH_STORE, BIRTH_STORED, BIRTH_COMPLETE, BIRTH_REFUSED };

struct birth_frame {
    uint8_t kind;
    uint8_t state; /* enum identity_state of the sender */
    uint8_t reserved[6];
};
static_assert(sizeof(struct birth_frame) == 8, "no padding on the wire");

static void birth_send(struct node *node, unsigned slot, enum birth_kind kind, const struct birth_record *record)
{
    uint8_t bytes[BIRTH_RECORD_BYTES_MAX];
    struct birth_frame frame = {.kind = (uint8_t)kind, .state = (uint8_t)node->identity.state};
    struct transport_send send = {
        .slot = slot,
        .type = FRAME_BIRTH,
        .body = &frame,
        .body_bytes = sizeof frame,
        .more = bytes,
        .more_bytes = record != NULL ? birth_record_write(record, bytes) : 0,
    };
    /* Not connected, or no room: everything here is asked again. */
    (void)node->transport->ops->send(node->transport, &send);
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

static int store(struct node *node, enum identity_state state, const struct birth_record *record)
{
    struct identity next = node->identity;
    next.state = state;
    next.birth = *record;
    int rc = identity_store(node->directory, &next);
    if (rc != 0) {
        node_fail(node, rc, "%s: cannot store the birth record: %s; free space or repair the disk, then start again",
                  node->options.data_directory, lockstep_error_text(rc));
        return rc;
    }
    node->identity = next;
    return 0;
}

static void become_complete(struct node *node, const struct birth_record *record)
{
    char why[NODE_WHY_BYTES_MAX];
    if (store(node, IDENTITY_COMPLETE, record) != 0) return;
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
                          .member_count = o->member_count},
    };
    snprintf(record.cluster, sizeof record.cluster, "%s", o->cluster);
    snprintf(record.machine, sizeof record.machine, "%s", o->plugin->name);
    for (unsigned i = 0; i < o->member_count; i++) {
        struct configuration_member *member = &record.configuration.members[i];
        member->id = i == o->self ? node->identity.member_id : node->birth.peers[i].id;
        member->role = member->role_before = CONFIGURATION_VOTER;
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
    for (unsigned i = 0; i < o->member_count; i++) node->birth.peers[i].stored = false;
    (void)store(node, IDENTITY_PENDING, &record);
}

/* First-listed node: go one step further, if all others have answered. */
static void birth_lead(struct node *node)
{
    const struct node_options *o = &node->options;
    for (unsigned i = 0; i < o->member_count; i++)
        if (i != o->self && !node->birth.peers[i].answered) return;
    record_make(node);
    if (node->failed != 0) return;
    bool all = true;
    for (unsigned i = 0; i < o->member_count; i++) {
        if (i == o->self || node->birth.peers[i].stored) continue;
        all = false;
        birth_send(node, i, BIRTH_STORE, &node->identity.birth);
    }
    if (!all) return;
    struct birth_record record = node->identity.birth;
    become_complete(node, &record);
    if (node->failed != 0) return;
    for (unsigned i = 0; i < o->member_count; i++)
        if (i != o->self) birth_send(node, i, BIRTH_COMPLETE, &record);
}

void node_birth_turn(struct node *node)
{
    if (node->now_ns < node->birth.retry_ns) return;
    node->birth.retry_ns = node->now_ns + NODE_BIRTH_RETRY_NS;
    for (unsigned i = 0; i < node->options.member_count; i++)
        if (i != node->options.self) birth_send(node, i, BIRTH_ASK, NULL);
    if (node->options.self == 0) birth_lead(node);
}

void node_birth_frame(struct node *node, const struct transport_frame *frame)
{
    struct birth_frame head;
    struct birth_record record;
    bool has_record = false;
    if (frame->body_bytes < sizeof head || frame->slot >= node->options.member_count) goto refuse;
    memcpy(&head, frame->body, sizeof head);
    if (frame->body_bytes > sizeof head) {
        if (birth_record_read(frame->body + sizeof head, (uint32_t)(frame->body_bytes - sizeof head), &record) != 0)
            goto refuse;
        has_record = true;
    }
    bool complete = node->identity.state == IDENTITY_COMPLETE;
    bool first_listed = node->options.self == 0;
    switch (head.kind) {
    case BIRTH_ASK:
        if (!complete)
            birth_send(node, frame->slot, BIRTH_STATE, NULL);
        else if (names_id(&node->identity.birth, frame->member_id))
            birth_send(node, frame->slot, BIRTH_COMPLETE, &node->identity.birth);
        else
            birth_send(node, frame->slot, BIRTH_REFUSED, NULL);
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
        if (!stored && store(node, IDENTITY_PENDING, &record) != 0) return;
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
        if (complete || !names_id(&record, node->identity.member_id)) return;
        if (strcmp(record.cluster, node->options.cluster) != 0) return;
        become_complete(node, &record);
        return;
    case BIRTH_REFUSED:
        if (complete) return;
        node_fail(node, LOCKSTEP_EFOREIGN,
                  "%s: this data directory is new, but cluster \"%s\" was born with another one for %s: an emptied "
                  "node is no voter; bring the old directory back",
                  node->options.data_directory, node->options.cluster, node->options.members[node->options.self].name);
        return;
    default: break;
    }
refuse:
    node->frames_refused++;
}

/* --- hello --------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 5))) static int refuse_hello(struct node *node, char *reason, int code,
                                                              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(reason, TRANSPORT_REASON_BYTES_MAX, format, args);
    va_end(args);
    node_log(node, NODE_LOG_WARN, "hello refused: %s", reason);
    return code;
}

int node_hello_check(void *context, unsigned slot, const struct transport_hello *hello,
                     char reason[TRANSPORT_REASON_BYTES_MAX])
{
    struct node *node = context;
    const struct node_options *o = &node->options;
    const char *self = o->members[o->self].name;
    if (hello->protocol != NODE_PROTOCOL)
        return refuse_hello(node, reason, LOCKSTEP_EVERSION,
                            "%s speaks protocol %u, %s speaks %u; run the same version", hello->name, hello->protocol,
                            self, NODE_PROTOCOL);
    if (strcmp(hello->cluster, o->cluster) != 0)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s belongs to cluster \"%s\", %s to \"%s\"; check addresses and configuration",
                            hello->name, hello->cluster, self, o->cluster);
    if (slot >= o->member_count)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s is not in the configuration of %s; give all nodes the same file", hello->name, self);
    if (slot == o->self)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "two nodes call themselves %s; start each with its own --node", hello->name);
    if (hello->format != STORAGE_FORMAT)
        return refuse_hello(node, reason, LOCKSTEP_EVERSION,
                            "%s has storage format %u, %s has %u; run the same version", hello->name, hello->format,
                            self, STORAGE_FORMAT);
    if (strcmp(hello->machine, o->plugin->name) != 0 || strcmp(hello->machine_version, o->plugin->version) != 0)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s runs machine %s %s, %s runs %s %s; give all nodes the same plugin", hello->name,
                            hello->machine, hello->machine_version, self, o->plugin->name, o->plugin->version);
    if (node->identity.state != IDENTITY_COMPLETE || hello->cluster_id == 0) return 0; /* birth will tell */
    if (hello->cluster_id != node->identity.birth.cluster_id)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s was born in cluster %016llx, %s in %016llx; one of them has a foreign directory",
                            hello->name, (unsigned long long)hello->cluster_id, self,
                            (unsigned long long)node->identity.birth.cluster_id);
    if (hello->member_id != node->slot_id[slot])
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s has member id %016llx, the cluster knows %016llx; bring its own directory back",
                            hello->name, (unsigned long long)hello->member_id, (unsigned long long)node->slot_id[slot]);
    if (hello->boot < node->boot_seen[slot])
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s starts as boot %llu but was seen at %llu: its directory is an old copy", hello->name,
                            (unsigned long long)hello->boot, (unsigned long long)node->boot_seen[slot]);
    node->boot_seen[slot] = hello->boot;
    return 0;
}

void node_transport_hello(const struct node *node, struct transport_hello *ret)
{
    const struct node_options *o = &node->options;
    *ret = (struct transport_hello){
        .protocol = NODE_PROTOCOL,
        .format = STORAGE_FORMAT,
        .feature_level = 1,
        .cluster_id = node->identity.state == IDENTITY_COMPLETE ? node->identity.birth.cluster_id : 0,
        .member_id = node->identity.member_id,
        .boot = node->boot,
    };
    snprintf(ret->cluster, sizeof ret->cluster, "%s", o->cluster);
    snprintf(ret->name, sizeof ret->name, "%s", o->members[o->self].name);
    snprintf(ret->machine, sizeof ret->machine, "%s", o->plugin->name);
    snprintf(ret->machine_version, sizeof ret->machine_version, "%s", o->plugin->version);
}
