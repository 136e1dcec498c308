/* SPDX-License-Identifier: Apache-2.0 */
/* node_restarts.c - level memory: a member id lives as long as its process, so a node that was started anew is a new
 * member, and the leader puts it in the old one's place by itself.
 * Thread: loop. Owns nothing: what is to be done next stands in the configuration and in who is connected, so that any
 * leader goes on where the last one stopped.
 *
 *   a new directory asks under a member's name, whose process is gone     replace that member: learner first, then in one
 *                                                                         joint configuration (node_members_change.c)
 *   the same, and a learner of that name is not heard: the new one        remove that learner first
 *     was started anew before it had caught up
 *   a learner of that name is heard, the other member is not              go on: another leader began it
 *
 * Why this is safe: the old id never speaks again, so it counts as a voter that is gone; the new one has a vote only
 * through a configuration that a majority of the old voters committed. Without that majority nothing happens: whoever
 * lives is told of `recover --online` in its status. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "server/node_internal.h"

/* Who has a connection under this member's name without being it, and holds nothing. 0: nobody. */
static raft_member newcomer(const struct node *node, unsigned slot)
{
    struct transport_peer_status peer;
    const struct node_slot *s = &node->members.slots[slot];
    if (slot == node->options.self || s->kind != NODE_SLOT_MEMBER || s->hello_cluster_id != 0) return 0;
    node->transport->ops->peer_status(node->transport, slot, &peer);
    bool other = peer.member_id != 0 && peer.member_id != node->slot_id[slot];
    return other && (peer.connected_in || peer.connected_out) ? peer.member_id : 0;
}

static bool is_memory(const struct node *node)
{
    return atomic_load_explicit(&node->born, memory_order_relaxed) &&
           node->identity.birth.configuration.level == DURABILITY_LEVEL_MEMORY;
}

uint32_t node_restarted_voters(const struct node *node)
{
    uint32_t count = 0;
    if (!is_memory(node)) return 0;
    const struct configuration *c = &node_configuration(node)->configuration;
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
        const struct configuration_member *m = configuration_find(c, node->slot_id[slot]);
        if (m != NULL && m->role == CONFIGURATION_VOTER && newcomer(node, slot) != 0) count++;
    }
    return count;
}

static bool is_heard(const struct raft_status *status, raft_member id)
{
    for (uint32_t i = 0; i < status->peer_count; i++)
        if (status->peers[i].id == id) return status->peers[i].recently_active;
    return true; /* this node itself */
}

/* Somebody asks under this name. */
static bool asks(const struct node *node, const char *name)
{
    unsigned slot = 0;
    while (slot < RAFT_MEMBERS_MAX &&
           (strcmp(node->options.members[slot].name, name) != 0 || newcomer(node, slot) == 0))
        slot++;
    return slot < RAFT_MEMBERS_MAX;
}

/* Another member of this one's name. */
static const struct configuration_member *beside(const struct configuration *c, const struct configuration_member *m)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (&c->members[i] != m && strcmp(c->members[i].name, m->name) == 0) return &c->members[i];
    return NULL;
}

static void replace(struct node *node, const struct configuration_member *old)
{
    struct node_change_request request = {
        .kind = NODE_CHANGE_REPLACE, .priority = old->priority, .timeout_ns = NODE_RESTARTS_NS};
    snprintf(request.name, sizeof request.name, "%s", old->name);
    snprintf(request.old_name, sizeof request.old_name, "%016" PRIx64, old->id);
    if (node_change_own(node, &request))
        node_log(node, NODE_LOG_INFO, "%s was started anew: it takes its own place as a new member: before=%016" PRIx64,
                 old->name, old->id);
}

static void drop(struct node *node, const struct configuration_member *learner)
{
    struct node_change_request request = {.kind = NODE_CHANGE_REMOVE, .timeout_ns = NODE_RESTARTS_NS};
    snprintf(request.name, sizeof request.name, "%016" PRIx64, learner->id);
    (void)node_change_own(node, &request);
}

void node_restarts_look(struct node *node)
{
    struct raft_status status;
    if (!is_memory(node) || !raft_is_leader(node->raft)) return;
    const struct storage_configuration *newest = node_configuration(node);
    const struct configuration *c = &newest->configuration;
    raft_status_read(node->raft, &status);
    if (newest->index > status.commit || configuration_is_joint(c)) return;
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct configuration_member *m = &c->members[i], *other = beside(c, m);
        if (is_heard(&status, m->id)) continue;
        bool other_heard = other != NULL && is_heard(&status, other->id);
        if (!other_heard && !asks(node, m->name)) continue;
        if (other == NULL || (other_heard && other->role == CONFIGURATION_LEARNER)) {
            replace(node, m);
        } else {
            const struct configuration_member *gone = m->role == CONFIGURATION_LEARNER ? m : other;
            if (node->change.id == gone->id) node_change_own_end(node, "it was started anew meanwhile");
            drop(node, gone);
        }
        return; /* one at a time */
    }
}
