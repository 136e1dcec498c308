/* SPDX-License-Identifier: Apache-2.0 */
/* node_members.c - who the others are: configurations as the log has them, slots, and who may say hello.
 * Thread: loop. Owns: the list of configurations, the slots.
 * R6  The newest configuration in the log counts from the moment it is appended. All that a cut can go back to are kept:
 *     the newest committed one, and those above it (T31, T32).
 *   - Members and their addresses come from the log, not from the configuration file: the file says whom to ask before
 *     birth, and where it differs afterwards `status` says so.
 *   - A slot is this process's own number for a peer. It goes to another one only between turns, when no frame and no
 *     send of this turn refers to it.
 *
 *   slot   FREE -> LISTED   in the file; before birth             -> MEMBER  when a configuration names it
 *          FREE -> GUEST    speaks for a newer configuration      -> MEMBER, or FREE when one is known that does not
 *          FREE -> JOINING  dialled by `member add`               -> MEMBER, or FREE when the change ends
 *          MEMBER -> FREE   neither the committed configuration nor a later one names it
 *          GUEST -> FREE    also when its slot is the only one left for a MEMBER or JOINING
 *
 * A member that was removed hears so from any other one: ids are never used again, so a committed configuration that is
 * newer than all that admitted an id, and does not name it, says that it is gone for good. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "server/node_internal.h"

/* --- configurations ------------------------------------------------------------------------------------------ */

const struct storage_configuration *node_configuration(const struct node *node)
{
    const struct node_members *m = &node->members;
    return m->count > 0 ? &m->configurations[m->count - 1] : NULL;
}

const struct storage_configuration *node_configuration_known(const struct node *node)
{
    const struct storage_configuration *newest = node_configuration(node), *joined = &node->identity.joined;
    if (newest == NULL || joined->index > newest->index) return joined->index != 0 ? joined : newest;
    return newest;
}

int node_configuration_push(struct node *node, raft_index index, const struct configuration *configuration)
{
    struct node_members *m = &node->members;
    lk_assert(m->count == 0 || m->configurations[m->count - 1].index < index);
    if (m->count == m->room) {
        uint32_t room = m->room == 0 ? 4 : 2 * m->room;
        struct storage_configuration *more = realloc(m->configurations, room * sizeof *more);
        if (more == NULL) return LOCKSTEP_ENOMEM;
        m->configurations = more;
        m->room = room;
    }
    m->configurations[m->count].index = index;
    m->configurations[m->count++].configuration = *configuration;
    m->slots_due = true;
    node->changed = true;
    return 0;
}

void node_configurations_cut(struct node *node, raft_index cut)
{
    struct node_members *m = &node->members;
    while (m->count > 0 && m->configurations[m->count - 1].index >= cut) {
        m->count--;
        m->slots_due = true;
        node->changed = true;
    }
    lk_assert(m->count > 0); /* what is committed is never cut */
}

/* A committed configuration that does not name this node, and is newer than the one that admitted it. */
static void look_for_removal(struct node *node)
{
    const struct storage_configuration *committed = &node->members.configurations[0];
    if (node->members.removed || committed->index <= node->identity.joined.index) return;
    if (configuration_find(&committed->configuration, node->identity.member_id) != NULL) return;
    node_members_gone(node);
}

void node_configurations_commit(struct node *node, raft_index commit)
{
    struct node_members *m = &node->members;
    uint32_t old = 0;
    while (old + 1 < m->count && m->configurations[old + 1].index <= commit) old++;
    if (old == 0) return;
    memmove(m->configurations, m->configurations + old, (m->count - old) * sizeof *m->configurations);
    m->count -= old;
    node->changed = true;
    m->hello_due = m->slots_due = true;
    look_for_removal(node);
}

void node_configuration_install(struct node *node, raft_index index, const struct configuration *configuration)
{
    node->members.count = 0;
    int rc = node_configuration_push(node, index, configuration);
    lk_assert(rc == 0); /* there was room for one */
    node->members.hello_due = true;
    look_for_removal(node);
}

void node_members_open(struct node *node)
{
    const struct node_options *o = &node->options;
    node->listed_count = o->member_count;
    memcpy(node->listed, o->members, sizeof node->listed);
    for (unsigned slot = 0; slot < o->member_count; slot++) node->members.slots[slot].kind = NODE_SLOT_LISTED;
    node->options.member_count = RAFT_MEMBERS_MAX;
    node->members.slots_due = true;
}

void node_configuration_core(const struct configuration *from, struct raft_configuration *ret)
{
    static_assert((int)CONFIGURATION_VOTER == (int)RAFT_VOTER && (int)CONFIGURATION_LEARNER == (int)RAFT_LEARNER &&
                      (int)CONFIGURATION_INCOMING == (int)RAFT_INCOMING &&
                      (int)CONFIGURATION_OUTGOING == (int)RAFT_OUTGOING &&
                      (int)CONFIGURATION_LEAVING == (int)RAFT_LEAVING,
                  "roles are the core's");
    *ret = (struct raft_configuration){.count = from->member_count};
    for (uint32_t i = 0; i < from->member_count; i++) {
        ret->members[i].id = from->members[i].id;
        ret->members[i].role = from->members[i].role;
        ret->members[i].priority = from->members[i].priority;
    }
}

void node_members_close(struct node *node)
{
    free(node->members.configurations);
    node->members.configurations = NULL;
}

void node_members_gone(struct node *node)
{
    struct node_members *m = &node->members;
    if (m->removed) return;
    m->removed = true;
    m->removed_ns = node->now_ns;
    node->changed = true;
    node_log(node, NODE_LOG_WARN, "removed: %s is no member of cluster %s any more: member=%016llx",
             node->options.members[node->options.self].name, node->options.cluster,
             (unsigned long long)node->identity.member_id);
}

bool node_removed(const struct node *node)
{
    /* A leader that removed itself tells the others for a while that this is committed (T35). */
    return node->members.removed && node->now_ns >= node->members.removed_ns + NODE_REMOVED_LINGER_NS;
}

/* --- slots --------------------------------------------------------------------------------------------------- */

static bool is_free(const struct node *node, unsigned slot)
{
    return slot != node->options.self && node->members.slots[slot].kind == NODE_SLOT_FREE;
}

static void slot_set(struct node *node, unsigned slot, enum node_slot_kind kind, raft_member id, const char *name,
                     const char *client, const char *peer)
{
    struct node_member_options *options = &node->options.members[slot];
    struct node_slot *s = &node->members.slots[slot];
    if (s->kind != kind || node->slot_id[slot] != id) node->changed = true;
    if (node->slot_id[slot] != id) node->boot_seen[slot] = s->hello_number = 0;
    s->kind = (uint8_t)kind;
    node->slot_id[slot] = id;
    snprintf(options->name, sizeof options->name, "%s", name);
    snprintf(options->client, sizeof options->client, "%s", client);
    snprintf(options->peer, sizeof options->peer, "%s", peer);
}

static void slot_free(struct node *node, unsigned slot)
{
    slot_set(node, slot, NODE_SLOT_FREE, 0, "", "", "");
    node->members.slots[slot] = (struct node_slot){.kind = NODE_SLOT_FREE};
    node->members.slots_due = true; /* the transport is told at the end of the turn */
}

/* The place of a guest, whose connections end: a member's place, or a newcomer's, is never a guest's. RAFT_MEMBERS_MAX:
 * there is none. */
static unsigned guest_evict(struct node *node)
{
    unsigned slot = 0;
    while (slot < RAFT_MEMBERS_MAX && node->members.slots[slot].kind != NODE_SLOT_GUEST) slot++;
    if (slot == RAFT_MEMBERS_MAX) return slot;
    slot_free(node, slot);
    int rc = node->transport->ops->peer_set(node->transport, slot, "", "");
    lk_assert(rc == 0); /* nothing is made anew */
    return slot;
}

unsigned node_slot_take(struct node *node, enum node_slot_kind kind, const char *name, const char *client,
                        const char *peer)
{
    unsigned slot = 0;
    while (slot < RAFT_MEMBERS_MAX && !is_free(node, slot)) slot++;
    if (slot == RAFT_MEMBERS_MAX && kind == NODE_SLOT_JOINING) slot = guest_evict(node);
    if (slot == RAFT_MEMBERS_MAX) return slot;
    slot_set(node, slot, kind, 0, name, client, peer);
    if (node->transport != NULL && node->transport->ops->peer_set(node->transport, slot, name, peer) != 0) {
        slot_free(node, slot);
        return RAFT_MEMBERS_MAX;
    }
    return slot;
}

void node_slot_release(struct node *node, unsigned slot)
{
    if (slot < RAFT_MEMBERS_MAX && node->members.slots[slot].kind == NODE_SLOT_JOINING) slot_free(node, slot);
}

/* Where a configured member goes: the slot that has its id; one that waits under its name; any free one. */
static unsigned slot_for(const struct node *node, const struct configuration_member *member)
{
    const struct node_member_options *options = node->options.members;
    unsigned self = node->options.self;
    if (member->id == node->identity.member_id) return self;
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
        if (slot != self && node->slot_id[slot] == member->id) return slot;
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
        enum node_slot_kind kind = node->members.slots[slot].kind;
        if (slot == self || kind == NODE_SLOT_FREE || kind == NODE_SLOT_MEMBER || node->slot_id[slot] != 0) continue;
        if (strcmp(options[slot].name, member->name) == 0) return slot;
    }
    unsigned slot = 0;
    while (slot < RAFT_MEMBERS_MAX && !is_free(node, slot)) slot++;
    return slot;
}

/* Whether it is a member, or one until the newest configuration is committed: a leader that removes itself is heard until
 * then (T35). */
static bool names(const struct node *node, const struct storage_configuration *known, raft_member id)
{
    const struct node_members *m = &node->members;
    if (configuration_find(&known->configuration, id) != NULL) return true;
    for (uint32_t i = 0; i < m->count; i++)
        if (configuration_find(&m->configurations[i].configuration, id) != NULL) return true;
    return false;
}

static bool slot_stays(const struct node *node, unsigned slot, const struct storage_configuration *known)
{
    const struct node_slot *s = &node->members.slots[slot];
    switch (s->kind) {
    case NODE_SLOT_MEMBER: return names(node, known, node->slot_id[slot]);
    case NODE_SLOT_GUEST: return s->guest_index > known->index;
    case NODE_SLOT_JOINING: return true; /* its change lets it go */
    case NODE_SLOT_LISTED:
        for (uint32_t i = 0; i < known->configuration.member_count; i++)
            if (strcmp(known->configuration.members[i].name, node->options.members[slot].name) == 0) return true;
        return false;
    case NODE_SLOT_FREE: break;
    }
    return true;
}

static void slots_fill(struct node *node, const struct storage_configuration *known)
{
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
        if (slot != node->options.self && !slot_stays(node, slot, known)) slot_free(node, slot);
    for (uint32_t i = 0; i < known->configuration.member_count; i++) {
        const struct configuration_member *member = &known->configuration.members[i];
        unsigned slot = slot_for(node, member);
        if (slot == RAFT_MEMBERS_MAX) slot = guest_evict(node);
        if (slot == RAFT_MEMBERS_MAX) continue; /* only while we are no member ourselves: then there is one too many */
        slot_set(node, slot, NODE_SLOT_MEMBER, member->id, member->name, member->client, member->peer);
    }
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX;
         slot++) /* listed twice in the file's sense: the other one has it */
        if (slot != node->options.self && node->members.slots[slot].kind == NODE_SLOT_LISTED) slot_free(node, slot);
}

int node_members_wait(struct node *node)
{
    if (node->members.count > 0) return 0;
    int rc = node_configuration_push(node, 0, &node->identity.birth.configuration);
    if (rc == 0) slots_fill(node, node_configuration_known(node));
    return rc;
}

int node_members_recover(struct node *node, const struct storage_recovered *recovered)
{
    node->members.count = 0; /* what was known while the log could not be read */
    int rc = node_configuration_push(node, 0, &node->identity.birth.configuration);
    for (uint32_t i = 0; rc == 0 && i < recovered->configuration_count; i++)
        rc = node_configuration_push(node, recovered->configurations[i].index,
                                     &recovered->configurations[i].configuration);
    if (rc != 0) return rc;
    node_configurations_commit(node, recovered->commit);
    slots_fill(node, node_configuration_known(node));
    return 0;
}

/* Of several peers at one address - a replaced node and its replacement - the one is dialled that said hello last: it runs
 * there, also where the old directory came back before the change was over. None did: the one that stays, else the newest; who
 * holds nothing newer than the joint configuration has to be able to answer the replacement. */
static const char *address_to_dial(const struct node *node, unsigned slot)
{
    const struct storage_configuration *known = node_configuration_known(node);
    const char *peer = node->options.members[slot].peer;
    if (node->members.slots[slot].kind != NODE_SLOT_MEMBER || known == NULL) return peer;
    if (strcmp(peer, node->options.members[node->options.self].peer) == 0) return "";
    const struct configuration_member *own = configuration_find(&known->configuration, node->slot_id[slot]);
    bool leaves = own == NULL || own->role == CONFIGURATION_LEAVING;
    uint64_t own_hello = node->members.slots[slot].hello_number;
    for (uint32_t i = 0; i < known->configuration.member_count; i++) {
        const struct configuration_member *other = &known->configuration.members[i];
        bool other_leaves = other->role == CONFIGURATION_LEAVING;
        if (other == own || strcmp(other->peer, peer) != 0) continue;
        unsigned other_slot = node_slot_of(node, other->id);
        uint64_t other_hello = other_slot < RAFT_MEMBERS_MAX ? node->members.slots[other_slot].hello_number : 0;
        if (other_hello > own_hello) return "";
        if (other_hello < own_hello) continue;
        if (leaves != other_leaves ? leaves : other > own) return "";
    }
    for (unsigned other = 0; other < RAFT_MEMBERS_MAX; other++)
        if (node->members.slots[other].kind == NODE_SLOT_JOINING &&
            strcmp(node->options.members[other].peer, peer) == 0)
            return "";
    return peer;
}

void node_members_turn(struct node *node)
{
    struct node_members *m = &node->members;
    const struct storage_configuration *known = node_configuration_known(node);
    if (m->slots_due) {
        if (node->identity.state == IDENTITY_COMPLETE && known != NULL) slots_fill(node, known);
        m->slots_due = false;
        for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
            if (slot == node->options.self) continue;
            int rc = node->transport->ops->peer_set(node->transport, slot, node->options.members[slot].name,
                                                    address_to_dial(node, slot));
            if (rc != 0) /* addresses were checked before they came into the log */
                node_log(node, NODE_LOG_WARN, "member %s cannot be connected to: address=%s: %s",
                         node->options.members[slot].name, node->options.members[slot].peer, lockstep_error_text(rc));
        }
    }
    if (m->hello_due) {
        struct transport_hello hello;
        m->hello_due = false;
        node_transport_hello(node, &hello);
        node->transport->ops->hello_set(node->transport, &hello);
    }
    if (node->now_ns < m->look_ns) return;
    m->look_ns = node->now_ns + NODE_MEMBERS_LOOK_NS;
    node_restarts_look(node);
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
        struct transport_peer_status peer;
        if (slot == node->options.self || m->slots[slot].kind == NODE_SLOT_FREE) continue;
        node->transport->ops->peer_status(node->transport, slot, &peer);
        if (peer.refused == LOCKSTEP_EGONE) node_members_gone(node);
        bool refused = peer.refused == LOCKSTEP_ENOTFOUND || peer.refused == LOCKSTEP_EEXIST;
        if (refused && node->identity.state != IDENTITY_COMPLETE)
            node_birth_refused(node, peer.refused == LOCKSTEP_EEXIST);
    }
}

/* --- hello --------------------------------------------------------------------------------------------------- */

/* What the log had lately is told to the peer alone: a node that waits to be admitted asks all the time. */
__attribute__((format(printf, 4, 5))) static int refuse_hello(struct node *node, char *reason, int code,
                                                              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(reason, TRANSPORT_REASON_BYTES_MAX, format, args);
    va_end(args);
    struct node_members *m = &node->members;
    uint32_t crc = crc32c(reason, strlen(reason));
    for (unsigned i = 0; i < NODE_REFUSALS_REMEMBERED; i++)
        if (m->refused_said[i] == crc) return code;
    m->refused_said[m->refused_next++ % NODE_REFUSALS_REMEMBERED] = crc;
    node_log(node, NODE_LOG_WARN, "hello refused: %s", reason);
    return code;
}

/* What must be the same on both sides, whoever they are. */
static int check_alike(struct node *node, const struct transport_hello *hello, char *reason)
{
    const struct node_options *o = &node->options;
    const char *self = o->members[o->self].name;
    if (hello->name[0] == 0 || hello->member_id == 0)
        return refuse_hello(node, reason, LOCKSTEP_EINVAL, "a node without name or member id said hello to %s", self);
    if (hello->protocol != NODE_PROTOCOL)
        return refuse_hello(node, reason, LOCKSTEP_EVERSION,
                            "%s speaks protocol %u, %s speaks %u; run the same version", hello->name, hello->protocol,
                            self, NODE_PROTOCOL);
    if (strcmp(hello->cluster, o->cluster) != 0)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s belongs to cluster \"%s\", %s to \"%s\"; check addresses and configuration",
                            hello->name, hello->cluster, self, o->cluster);
    if (hello->member_id == node->identity.member_id)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s has the member id of %s: its directory is a copy; give each node its own", hello->name,
                            self);
    if (hello->format != STORAGE_FORMAT || hello->feature_level != NODE_FEATURE_LEVEL)
        return refuse_hello(node, reason, LOCKSTEP_EVERSION,
                            "%s has storage format %u and feature level %u, %s has %u and %u; run the same version",
                            hello->name, hello->format, hello->feature_level, self, STORAGE_FORMAT, NODE_FEATURE_LEVEL);
    if (strcmp(hello->machine, o->plugin->name) != 0 || strcmp(hello->machine_version, o->plugin->version) != 0)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s runs machine %s %s, %s runs %s %s; give all nodes the same plugin", hello->name,
                            hello->machine, hello->machine_version, self, o->plugin->name, o->plugin->version);
    if (hello->level != (uint32_t)o->level)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s has durability level %u, %s has %u; give all nodes the same", hello->name, hello->level,
                            self, (unsigned)o->level);
    /* A lease stands on what the others promise. */
    uint64_t promise_ns = o->lease_reads ? o->election_timeout_ns : 0;
    if (hello->promise_ns != promise_ns && (hello->promise_ns == 0 || promise_ns == 0))
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s has raft.lease_reads %s, %s has it %s; give all nodes the same and restart them all",
                            hello->name, hello->promise_ns != 0 ? "on" : "off", self, promise_ns != 0 ? "on" : "off");
    if (hello->promise_ns != promise_ns)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s has an election timeout of %llu ms, %s of %llu ms; with raft.lease_reads give all "
                            "nodes the same and restart them all",
                            hello->name, (unsigned long long)(hello->promise_ns / NODE_MS), self,
                            (unsigned long long)(promise_ns / NODE_MS));
    if (node->identity.state != IDENTITY_COMPLETE || hello->cluster_id == 0) return 0; /* birth will tell */
    if (hello->cluster_id != node->identity.birth.cluster_id)
        return refuse_hello(
            node, reason, LOCKSTEP_EFOREIGN,
            "%s was born in cluster %016llx, %s in %016llx; one of them has a foreign directory, or one "
            "from before a restore or recover: empty it, and member add",
            hello->name, (unsigned long long)hello->cluster_id, self,
            (unsigned long long)node->identity.birth.cluster_id);
    return 0;
}

/* It runs at its address, whoever was looked for there. */
static void said_hello(struct node *node, unsigned slot)
{
    struct node_members *m = &node->members;
    uint64_t before = m->slots[slot].hello_number;
    m->slots[slot].hello_number = ++m->hello_count;
    for (unsigned other = 0; other < RAFT_MEMBERS_MAX; other++)
        if (other != slot && m->slots[other].kind == NODE_SLOT_MEMBER && m->slots[other].hello_number >= before &&
            strcmp(node->options.members[other].peer, node->options.members[slot].peer) == 0)
            m->slots_due = true; /* which of them is dialled changes */
}

/* Whose connection this is, by its id; a node that has no record yet, by the name under which it is waited for. */
static unsigned slot_of_hello(const struct node *node, const struct transport_hello *hello)
{
    static const enum node_slot_kind order[] = {NODE_SLOT_JOINING, NODE_SLOT_LISTED, NODE_SLOT_MEMBER};
    unsigned slot = node_slot_of(node, hello->member_id);
    if (slot != RAFT_MEMBERS_MAX) return slot;
    bool by_name = hello->cluster_id == 0 || node->identity.state != IDENTITY_COMPLETE;
    for (size_t i = 0; by_name && i < sizeof order / sizeof order[0]; i++)
        for (slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
            if (slot != node->options.self && node->members.slots[slot].kind == order[i] &&
                strcmp(node->options.members[slot].name, hello->name) == 0)
                return slot;
    return RAFT_MEMBERS_MAX;
}

/* A new directory under the name of a member that lives: its connection is not for sale. */
static bool is_of_another(struct node *node, unsigned slot, const struct transport_hello *hello)
{
    struct transport_peer_status peer;
    if (slot == RAFT_MEMBERS_MAX || node->members.slots[slot].kind != NODE_SLOT_MEMBER) return false;
    if (hello->cluster_id != 0 || hello->member_id == node->slot_id[slot]) return false;
    node->transport->ops->peer_status(node->transport, slot, &peer);
    return peer.connected_in && peer.member_id == node->slot_id[slot];
}

/* Nobody whom we know. Who speaks for a cluster while we wait to be admitted to it, or for a newer configuration than any
 * that we have, gets a slot: without it we would never catch up. */
static int welcome_guest(struct node *node, unsigned *slot, const struct transport_hello *hello, char *reason)
{
    const struct node_options *o = &node->options;
    const char *self = o->members[o->self].name;
    bool complete = node->identity.state == IDENTITY_COMPLETE;
    const struct node_members *m = &node->members;
    if (!complete && hello->cluster_id == 0)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s is not in the configuration of %s; give all nodes the same file", hello->name, self);
    if (complete && hello->cluster_id == 0)
        return refuse_hello(node, reason, LOCKSTEP_ENOTFOUND,
                            "%s is no member of cluster \"%s\"; admit it: lockstep member add %s --client HOST:PORT "
                            "--peer HOST:PORT",
                            hello->name, o->cluster, hello->name);
    if (complete && hello->configuration_index <= node_configuration_known(node)->index) {
        if (names(node, node_configuration_known(node), hello->member_id))
            return refuse_hello(node, reason, LOCKSTEP_EUNAVAILABLE, "%s is being admitted", hello->name);
        if (hello->configuration_index < m->configurations[0].index)
            return refuse_hello(node, reason, LOCKSTEP_EGONE,
                                "%s (member %016llx) was removed from cluster \"%s\"; its directory is of no more use",
                                hello->name, (unsigned long long)hello->member_id, o->cluster);
        return refuse_hello(node, reason, LOCKSTEP_EUNAVAILABLE, "%s is not known to %s", hello->name, self);
    }
    *slot = node_slot_take(node, NODE_SLOT_GUEST, hello->name, "", hello->address);
    if (*slot == RAFT_MEMBERS_MAX)
        return refuse_hello(node, reason, LOCKSTEP_EFULL, "%s has no room for %s: it knows %d others", self,
                            hello->name, RAFT_MEMBERS_MAX - 1);
    node->slot_id[*slot] = hello->member_id;
    node->members.slots[*slot].guest_index = hello->configuration_index;
    return 0;
}

int node_hello_check(void *context, unsigned *slot, const struct transport_hello *hello,
                     char reason[TRANSPORT_REASON_BYTES_MAX])
{
    struct node *node = context;
    const struct node_options *o = &node->options;
    int rc = check_alike(node, hello, reason);
    if (rc != 0) return rc;
    if (*slot == RAFT_MEMBERS_MAX) {
        *slot = slot_of_hello(node, hello);
        if (is_of_another(node, *slot, hello))
            return refuse_hello(node, reason, LOCKSTEP_EEXIST,
                                "%s with another directory is a member of cluster \"%s\" and runs", hello->name,
                                o->cluster);
    }
    if (*slot == RAFT_MEMBERS_MAX || *slot == o->self) {
        if (strcmp(hello->name, o->members[o->self].name) == 0 && hello->cluster_id == 0 &&
            node->identity.state != IDENTITY_COMPLETE)
            return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                                "two nodes call themselves %s; start each with its own --node", hello->name);
        *slot = RAFT_MEMBERS_MAX;
        return welcome_guest(node, slot, hello, reason);
    }
    struct node_slot *s = &node->members.slots[*slot];
    raft_member known = node->slot_id[*slot];
    s->hello_cluster_id = hello->cluster_id;
    if (s->kind == NODE_SLOT_JOINING) node->slot_id[*slot] = known = hello->member_id;
    unsigned there = node_slot_of(node, hello->member_id);
    if (there != RAFT_MEMBERS_MAX) said_hello(node, there);
    if (known == 0 || hello->cluster_id == 0 || node->identity.state != IDENTITY_COMPLETE) return 0;
    if (hello->member_id != known)
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s has member id %016llx, the cluster knows %016llx; bring its own directory back",
                            hello->name, (unsigned long long)hello->member_id, (unsigned long long)known);
    if (hello->boot < node->boot_seen[*slot])
        return refuse_hello(node, reason, LOCKSTEP_EFOREIGN,
                            "%s starts as boot %llu but was seen at %llu: its directory is an old copy", hello->name,
                            (unsigned long long)hello->boot, (unsigned long long)node->boot_seen[*slot]);
    node->boot_seen[*slot] = hello->boot;
    return 0;
}

void node_transport_hello(const struct node *node, struct transport_hello *ret)
{
    const struct node_options *o = &node->options;
    *ret = (struct transport_hello){
        .protocol = NODE_PROTOCOL,
        .format = STORAGE_FORMAT,
        .feature_level = NODE_FEATURE_LEVEL,
        .level = (uint32_t)o->level,
        .cluster_id = node->identity.state == IDENTITY_COMPLETE ? node->identity.birth.cluster_id : 0,
        .member_id = node->identity.member_id,
        .boot = node->boot,
        .promise_ns = o->lease_reads ? o->election_timeout_ns : 0,
    };
    if (node->members.count > 0) ret->configuration_index = node->members.configurations[0].index;
    if (node->identity.joined.index > ret->configuration_index) ret->configuration_index = node->identity.joined.index;
    snprintf(ret->cluster, sizeof ret->cluster, "%s", o->cluster);
    snprintf(ret->name, sizeof ret->name, "%s", o->members[o->self].name);
    snprintf(ret->machine, sizeof ret->machine, "%s", o->plugin->name);
    snprintf(ret->machine_version, sizeof ret->machine_version, "%s", o->plugin->version);
    snprintf(ret->address, sizeof ret->address, "%s", o->members[o->self].peer);
}

/* --- status -------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void warn(struct node_status *ret, const char *format, ...)
{
    if (ret->warning_count == sizeof ret->warnings / sizeof ret->warnings[0]) return;
    va_list args;
    va_start(args, format);
    vsnprintf(ret->warnings[ret->warning_count++], sizeof ret->warnings[0], format, args);
    va_end(args);
}

/* Where the file says something else than the log, which is what counts. */
static void warn_of_differences(const struct node *node, struct node_status *ret)
{
    const struct configuration *known = &node_configuration_known(node)->configuration;
    for (uint32_t i = 0; i < known->member_count; i++) {
        const struct configuration_member *m = &known->members[i];
        uint32_t k = 0;
        while (k < node->listed_count && strcmp(node->listed[k].name, m->name) != 0) k++;
        if (k == node->listed_count)
            warn(ret, "member %.63s is not in the configuration file", m->name);
        else if (strcmp(node->listed[k].peer, m->peer) != 0)
            warn(ret, "the file says that %.63s has peer address %.80s, the cluster says %.80s", m->name,
                 node->listed[k].peer, m->peer);
        else if (strcmp(node->listed[k].client, m->client) != 0)
            warn(ret, "the file says that %.63s has client address %.80s, the cluster says %.80s", m->name,
                 node->listed[k].client, m->client);
    }
    for (uint32_t k = 0; k < node->listed_count; k++) {
        uint32_t i = 0;
        while (i < known->member_count && strcmp(known->members[i].name, node->listed[k].name) != 0) i++;
        if (i == known->member_count)
            warn(ret, "%.63s is in the configuration file, but no member of the cluster", node->listed[k].name);
    }
}

/* What the leader knows of a peer. */
static void peer_status(struct node_status *ret, unsigned slot, uint32_t peer)
{
    ret->members[slot].match = ret->raft.peers[peer].match;
    if (ret->raft.peers[peer].state != RAFT_PROGRESS_SNAPSHOT || ret->members[slot].note[0] != 0) return;
    snprintf(
        ret->members[slot].note, sizeof ret->members[slot].note,
        "is behind the log, which begins at block %llu: it is brought the snapshot of block %llu, %llu of %llu bytes",
        (unsigned long long)ret->raft.base_index + 1, (unsigned long long)ret->raft.peers[peer].install_index,
        (unsigned long long)ret->raft.peers[peer].install_offset,
        (unsigned long long)ret->raft.peers[peer].install_bytes);
}

/* Whether the voters before a change, or those after it, are a majority that this node hears. */
static bool hears_majority(const struct node *node, const struct configuration *c, bool after)
{
    unsigned voters = 0, heard = 0;
    for (uint32_t i = 0; i < c->member_count; i++) {
        struct transport_peer_status peer = {0};
        uint8_t role = c->members[i].role;
        bool votes =
            role == CONFIGURATION_VOTER ||
            (after ? role == CONFIGURATION_INCOMING : role == CONFIGURATION_OUTGOING || role == CONFIGURATION_LEAVING);
        if (!votes) continue;
        voters++;
        unsigned slot = node_slot_of(node, c->members[i].id);
        bool self = c->members[i].id == node->identity.member_id;
        if (!self && slot < RAFT_MEMBERS_MAX) node->transport->ops->peer_status(node->transport, slot, &peer);
        heard += self || (peer.connected_in && peer.connected_out && peer.member_id == c->members[i].id);
    }
    return heard > voters / 2;
}

int node_recover_check(const struct node *node, char *why, size_t why_room)
{
    const struct node_options *o = &node->options;
    if (!atomic_load_explicit(&node->born, memory_order_relaxed) || node->members.removed || node->failed != 0) {
        snprintf(why, why_room, "%s is no member that runs: recover another one", o->members[o->self].name);
        return LOCKSTEP_EINVAL;
    }
    const struct configuration *c = &node_configuration(node)->configuration;
    unsigned leader = node_leader(node);
    if (leader < RAFT_MEMBERS_MAX) {
        snprintf(why, why_room, "the cluster has a leader, %s: nothing is lost", o->members[leader].name);
        return LOCKSTEP_EINVAL;
    }
    if (hears_majority(node, c, false) && hears_majority(node, c, true)) {
        snprintf(why, why_room,
                 "%s is connected to a majority of the voters: they will choose a leader, nothing is lost",
                 o->members[o->self].name);
        return LOCKSTEP_EINVAL;
    }
    return 0;
}

void node_members_status(struct node *node, struct node_status *ret)
{
    const struct node_options *o = &node->options;
    const struct storage_configuration *newest = node_configuration(node);
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
        struct transport_peer_status peer;
        if (o->members[slot].name[0] == 0) continue;
        ret->members[slot].id = node->slot_id[slot];
        ret->members[slot].joining = node->members.slots[slot].kind == NODE_SLOT_JOINING;
        const struct configuration_member *member =
            newest != NULL && node->slot_id[slot] != 0 ? configuration_find(&newest->configuration, node->slot_id[slot])
                                                       : NULL;
        if (member != NULL) {
            ret->members[slot].role = member->role;
            ret->members[slot].priority = member->priority;
            ret->members[slot].voter = member->role != CONFIGURATION_LEARNER;
        }
        if (slot == o->self) {
            ret->members[slot].connected = true;
            ret->members[slot].match = ret->raft.durable_index;
            continue;
        }
        node->transport->ops->peer_status(node->transport, slot, &peer);
        ret->members[slot].connected = peer.connected_in && peer.connected_out;
        ret->members[slot].shared_memory = peer.shared_memory;
        ret->members[slot].lag_bytes = peer.lag_bytes;
        ret->members[slot].lapped = peer.lapped;
        ret->members[slot].bells = peer.bells;
        ret->members[slot].bells_spared = peer.bells_spared;
        snprintf(ret->members[slot].note, sizeof ret->members[slot].note, "%s", peer.reason);
        for (uint32_t i = 0; i < ret->raft.peer_count; i++)
            if (ret->raft.peers[i].id == node->slot_id[slot]) peer_status(ret, slot, i);
    }
    if (node->transport->ops->observers != NULL) node->transport->ops->observers(node->transport, &ret->observers);
    if (node->birth.refused) warn(ret, "%s", node->birth.waits);
    if (node->repair.opening) warn(ret, "%s", node->repair.why);
    if (node->disk.why[0] != 0) warn(ret, "%s", node->disk.why);
    if (ret->born && node->leader == 0 && node_restarted_voters(node) > 0)
        warn(ret,
             "%u of the voters were started anew, which loses what they held at durability \"memory\"; if those that "
             "were not are no majority: lockstep recover --online on one of them",
             node_restarted_voters(node));
    if (newest == NULL) return;
    ret->configuration_index = newest->index;
    ret->joint = configuration_is_joint(&newest->configuration);
    snprintf(ret->change, sizeof ret->change, "%.255s", node->change.progress);
    warn_of_differences(node, ret);
}
