/* SPDX-License-Identifier: Apache-2.0 */
/* node_members_change.c - members are added, promoted, removed and replaced, by the leader, one change at a time.
 * Thread: loop. Owns: the change that runs.
 *
 *   add      DIAL ─> LEARN ─> CATCH_UP ─> VOTE ─> done        DIAL      the new node is asked who it is; nothing is
 *   promote                   CATCH_UP ─> VOTE ─> done                  appended unless it is fresh and alike (I2, R11)
 *   replace  DIAL ─> LEARN ─> CATCH_UP ─> VOTE ─> done        LEARN     its id is appended as a learner (T36)
 *   remove                                VOTE ─> done        CATCH_UP  it gets the log; the core says when that is enough
 *                                                             VOTE      voters change in one joint configuration
 *
 *   - Every step is a configuration in the log, and says itself how far it got: who asks again, here or at the next leader,
 *     goes on where it stopped, and asking for what is there already changes nothing.
 *   - The core decides what may follow what, whether somebody lags, and whether a quorum would be lost; a joint
 *     configuration is ended by whoever leads, not by the change that began it.
 *   - A silent voter is removed only if that was forced, and never if too few of those that remain are heard. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

enum change_step { CHANGE_NONE, CHANGE_DIAL, CHANGE_LEARN, CHANGE_CATCH_UP, CHANGE_VOTE };

/* --- proposing ----------------------------------------------------------------------------------------------- */

/* Names and addresses of `target`, and of those who leave from `now`, under the ids and roles of the core's plan. */
static void dress(const struct raft_configuration *plan, const struct configuration *target,
                  const struct configuration *now, struct configuration *ret)
{
    *ret = *target;
    ret->member_count = plan->count;
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct configuration_member *member = configuration_find(target, plan->members[i].id);
        if (member == NULL) member = configuration_find(now, plan->members[i].id);
        lk_assert(member != NULL);
        ret->members[i] = *member;
        ret->members[i].role = plan->members[i].role;
    }
}

void node_members_lead_turn(struct node *node)
{
    const struct storage_configuration *newest = node_configuration(node);
    struct raft_configuration joint, plan;
    struct configuration next;
    if (!node->effects.leave_joint || !raft_is_leader(node->raft)) return;
    if (newest->index > raft_commit_index(node->raft) || !configuration_is_joint(&newest->configuration)) return;
    node_configuration_core(&newest->configuration, &joint);
    raft_configuration_leave(&joint, &plan);
    dress(&plan, &newest->configuration, &newest->configuration, &next);
    if (node_proposals_clear(node) == 0) (void)node_propose_configuration(node, &next); /* no room: next turn */
}

/* --- the change that runs ------------------------------------------------------------------------------------ */

static void end(struct node *node, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void end(struct node *node, int error, const char *format, ...)
{
    struct node_change *c = &node->change;
    struct node_change_result result = {.error = error, .id = c->id, .index = node_configuration(node)->index};
    va_list args;
    va_start(args, format);
    vsnprintf(result.why, sizeof result.why, format, args);
    va_end(args);
    node_slot_release(node, c->slot);
    c->step = CHANGE_NONE;
    c->progress[0] = 0;
    node->changed = true;
    if (error != 0) node_log(node, NODE_LOG_WARN, "member change ends: name=%s: %s", c->request.name, result.why);
    if (!c->is_own)
        node->owner.member_changed(node->owner.context, c->tag, &result);
    else if (error != 0)
        c->own_again_ns = node->now_ns + NODE_RESTARTS_AGAIN_NS;
    c->is_own = false;
}

static void progress(struct node *node, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void progress(struct node *node, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(node->change.progress, sizeof node->change.progress, format, args);
    va_end(args);
}

static void step_to(struct node *node, enum change_step step)
{
    node->change.step = (uint8_t)step;
    node->change.waits_index = 0;
}

/* Who is not heard, for people. */
static const char *name_of(const struct node *node, raft_member id)
{
    const struct configuration_member *m = configuration_find(&node_configuration(node)->configuration, id);
    return m != NULL ? m->name : node->change.request.name;
}

/* Ask the core for `target` and append what it says. True: appended, and waits_index is its block. */
static bool propose(struct node *node, const struct configuration *target)
{
    struct node_change *c = &node->change;
    struct raft_configuration wanted, plan;
    raft_member about;
    const struct configuration *now = &node_configuration(node)->configuration;
    /* What is in the open block comes first: after the plan nothing may come between. */
    int rc = node_proposals_clear(node);
    if (rc != 0) return false;
    node_configuration_core(target, &wanted);
    enum raft_change may = raft_change_plan(node->raft, &wanted, false, &plan, &about);
    switch (may) {
    case RAFT_CHANGE_MAY: {
        struct configuration next;
        dress(&plan, target, now, &next);
        if (node_propose_configuration(node, &next) != 0) return false;
        c->waits_index = node_configuration(node)->index;
        return true;
    }
    case RAFT_CHANGE_NOT_LEADER: return false; /* the turn finds out */
    case RAFT_CHANGE_NOT_YET: progress(node, "this leader is not ready yet"); return false;
    case RAFT_CHANGE_RUNS: progress(node, "another change is being finished"); return false;
    case RAFT_CHANGE_SAME: end(node, 0, "it is so already"); return false;
    case RAFT_CHANGE_NO_LEARNER:
    case RAFT_CHANGE_INVALID:
        end(node, LOCKSTEP_EINVAL, "no such configuration is possible: at least one voter, at most %d members",
            RAFT_MEMBERS_MAX);
        return false;
    case RAFT_CHANGE_LAGS: return false; /* CATCH_UP says how far it is */
    case RAFT_CHANGE_LOSES_QUORUM:
        progress(node, "%s is not heard", name_of(node, about));
        if (node->now_ns < c->hear_deadline_ns) return false; /* a new leader has not heard anybody yet */
        end(node, LOCKSTEP_EINVAL,
            "the quorum would be lost: %s is not heard, and without it too few voters would be left to commit "
            "anything; "
            "start it first",
            name_of(node, about));
        return false;
    }
    lk_unreachable();
}

/* --- who is meant -------------------------------------------------------------------------------------------- */

/* A name, or an id as sixteen hexadecimal digits. Of two that share a name, a replaced node and its replacement, the voter
 * is meant. NULL: nobody. */
static const struct configuration_member *find_member(const struct configuration *c, const char *name)
{
    const struct configuration_member *found = NULL;
    char *rest;
    uint64_t id = strtoull(name, &rest, 16);
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct configuration_member *m = &c->members[i];
        bool voter = m->role != CONFIGURATION_LEARNER && m->role != CONFIGURATION_INCOMING;
        if (strcmp(m->name, name) == 0 && (found == NULL || voter)) found = m;
    }
    if (found == NULL && strlen(name) == 16 && *rest == 0) found = configuration_find(c, id);
    return found;
}

raft_member node_member_named(const struct node *node, const char *name)
{
    const struct storage_configuration *newest = node_configuration(node);
    const struct configuration_member *m = newest != NULL ? find_member(&newest->configuration, name) : NULL;
    return m != NULL ? m->id : 0;
}

/* The member that has the name or the address of the node that is to come, but for `except`. */
static const struct configuration_member *find_taken(const struct configuration *c,
                                                     const struct node_change_request *request, raft_member except)
{
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct configuration_member *m = &c->members[i];
        if (m->id == except) continue;
        if (strcmp(m->name, request->name) == 0 || strcmp(m->peer, request->peer) == 0 ||
            strcmp(m->client, request->client) == 0)
            return m;
    }
    return NULL;
}

static bool is_as_asked(const struct configuration_member *m, const struct node_change_request *request)
{
    return strcmp(m->name, request->name) == 0 && (request->peer[0] == 0 || strcmp(m->peer, request->peer) == 0) &&
           (request->client[0] == 0 || strcmp(m->client, request->client) == 0);
}

static bool stays_learner(const struct node_change_request *request)
{
    return request->kind == NODE_CHANGE_ADD && request->learner;
}

/* --- the steps ----------------------------------------------------------------------------------------------- */

static void begin_dial(struct node *node)
{
    struct node_change *c = &node->change;
    const struct node_change_request *r = &c->request;
    if (node_configuration(node)->configuration.member_count == RAFT_MEMBERS_MAX) {
        end(node, LOCKSTEP_EINVAL, "the cluster has %d members, which is as many as it can have", RAFT_MEMBERS_MAX);
        return;
    }
    c->slot = node_slot_take(node, NODE_SLOT_JOINING, r->name, r->client, r->peer);
    if (c->slot == RAFT_MEMBERS_MAX) {
        end(node, LOCKSTEP_EINVAL, "%s cannot be dialled at %s: not HOST:PORT, or no room for one more", r->name,
            r->peer);
        return;
    }
    node->members.slots_due = true; /* another member at this address is not dialled meanwhile */
    c->dial_deadline_ns = node->now_ns + NODE_CHANGE_DIAL_NS;
    step_to(node, CHANGE_DIAL);
}

/* Whoever answers there has said hello, and the hello was accepted on both sides: cluster, versions, machine, level. */
static void dial_turn(struct node *node)
{
    struct node_change *c = &node->change;
    const struct configuration *now = &node_configuration(node)->configuration;
    struct transport_peer_status peer;
    node->transport->ops->peer_status(node->transport, c->slot, &peer);
    int refused = peer.refused != 0 ? peer.refused : peer.refuses;
    if (refused == LOCKSTEP_EFOREIGN || refused == LOCKSTEP_EVERSION) {
        end(node, LOCKSTEP_EINVAL, "%s", peer.reason);
        return;
    }
    raft_member id = node->slot_id[c->slot];
    if (peer.connected_out && node->members.slots[c->slot].hello_cluster_id != 0) { /* it needs not dial back */
        c->id = id;
        /* Under the old one's name it may be the new one already: asked for again, that is no error. By its id it is not. */
        bool is_old = id == c->old_id && strcmp(c->request.old_name, c->request.name) != 0;
        if (is_old)
            end(node, LOCKSTEP_EINVAL,
                "%s runs with the directory that is to go (%016" PRIx64
                "), nothing was changed; to replace it, stop it, "
                "give it an empty directory, start it and ask again",
                c->request.name, id);
        else if (configuration_find(now, id) != NULL)
            end(node, 0, "it is a member already");
        else
            end(node, LOCKSTEP_EINVAL,
                "%s has a directory that was a member of this cluster before; give it an empty one: ids are never used "
                "again",
                c->request.name);
        return;
    }
    if (!peer.connected_out || !peer.connected_in || id == 0) {
        progress(node, "dialling %s at %s: %s", c->request.name, c->request.peer,
                 peer.reason[0] != 0 ? peer.reason : "waiting for it to dial back");
        if (node->now_ns < c->dial_deadline_ns) return;
        end(node, LOCKSTEP_EUNAVAILABLE, "%s", c->progress);
        return;
    }
    c->id = id;
    step_to(node, CHANGE_LEARN);
}

static void learn_turn(struct node *node)
{
    struct node_change *c = &node->change;
    if (c->waits_index == 0) {
        struct configuration target = node_configuration(node)->configuration;
        if (configuration_is_joint(&target)) return; /* whoever began it: it is being ended */
        struct configuration_member member = {
            .id = c->id, .role = CONFIGURATION_LEARNER, .priority = c->request.priority};
        snprintf(member.name, sizeof member.name, "%s", c->request.name);
        snprintf(member.client, sizeof member.client, "%s", c->request.client);
        snprintf(member.peer, sizeof member.peer, "%s", c->request.peer);
        lk_assert(target.member_count < RAFT_MEMBERS_MAX);
        target.members[target.member_count++] = member;
        if (!propose(node, &target)) return;
    }
    progress(node, "admitting %s as a learner", c->request.name);
    if (node->members.configurations[0].index < c->waits_index) return;
    step_to(node, CHANGE_CATCH_UP);
}

/* What voters are to become: who replaces a learner is one. */
static void vote_target(struct node *node, struct configuration *ret)
{
    struct node_change *c = &node->change;
    const struct configuration *now = &node_configuration(node)->configuration;
    const struct configuration_member *old = configuration_find(now, c->old_id);
    c->votes = c->request.kind != NODE_CHANGE_REPLACE || (old != NULL && old->role == CONFIGURATION_VOTER);
    *ret = *now;
    ret->member_count = 0;
    for (uint32_t i = 0; i < now->member_count; i++) {
        struct configuration_member m = now->members[i];
        if (m.id == c->old_id) continue;
        if (m.id == c->id && c->votes) m.role = CONFIGURATION_VOTER;
        ret->members[ret->member_count++] = m;
    }
}

static bool peer_of(const struct node *node, raft_member id, struct raft_status *status, uint32_t *ret)
{
    raft_status_read(node->raft, status);
    for (*ret = 0; *ret < status->peer_count; (*ret)++)
        if (status->peers[*ret].id == id) return true;
    return false;
}

static void catch_up_turn(struct node *node)
{
    struct node_change *c = &node->change;
    struct raft_status status;
    uint32_t at;
    if (!peer_of(node, c->id, &status, &at)) {
        end(node, LOCKSTEP_EINVAL, "%s was removed meanwhile", c->request.name);
        return;
    }
    if (status.peers[at].recently_active)
        progress(node, "%s catches up: it has block %" PRIu64 " of %" PRIu64, c->request.name, status.peers[at].match,
                 status.last_index);
    else
        progress(node,
                 "%s is not heard: start it; if its directory is gone, it cannot come back: lockstep member remove "
                 "%016" PRIx64,
                 c->request.name, c->id);
    if (!status.peers[at].caught_up || !status.peers[at].recently_active) return;
    if (stays_learner(&c->request))
        end(node, 0, "done");
    else
        step_to(node, CHANGE_VOTE);
}

/* What was asked for is committed, whoever led meanwhile: a leader that removes itself learns it when it leads no more. */
static bool is_done(const struct node *node)
{
    const struct node_change *c = &node->change;
    const struct storage_configuration *committed = &node->members.configurations[0];
    const struct configuration_member *member = configuration_find(&committed->configuration, c->id);
    if (c->step != CHANGE_VOTE || c->waits_index == 0 || committed->index < c->waits_index) return false;
    if (configuration_is_joint(&committed->configuration)) return false;
    if (configuration_find(&committed->configuration, c->old_id) != NULL) return false;
    return c->id == 0 || (member != NULL && (member->role == CONFIGURATION_VOTER || !c->votes));
}

/* A voter that is to be removed and is not heard: it may be dead, or slow, or its link cut. */
static bool is_silent(const struct node *node, raft_member id)
{
    struct raft_status status;
    uint32_t at;
    return node->change.request.kind == NODE_CHANGE_REMOVE && id != node->identity.member_id &&
           peer_of(node, id, &status, &at) && status.peers[at].role == RAFT_VOTER && !status.peers[at].recently_active;
}

static void vote_turn(struct node *node)
{
    struct node_change *c = &node->change;
    if (c->waits_index == 0) {
        struct configuration target;
        if (configuration_is_joint(&node_configuration(node)->configuration)) return;
        if (!c->request.force && is_silent(node, c->old_id)) {
            progress(node, "%s is not heard", name_of(node, c->old_id));
            if (node->now_ns < c->hear_deadline_ns) return;
            end(node, LOCKSTEP_EINVAL,
                "%s is not heard: start it, or force its removal if it is gone for good (--force): it could not vote "
                "again with its directory",
                name_of(node, c->old_id));
            return;
        }
        vote_target(node, &target);
        if (!propose(node, &target)) {
            if (c->step == CHANGE_VOTE && c->request.kind != NODE_CHANGE_REMOVE) step_to(node, CHANGE_CATCH_UP);
            return;
        }
    }
    progress(node, c->request.kind == NODE_CHANGE_REMOVE ? "removing %s" : "%s becomes a voter", c->request.name);
}

static void begin_add(struct node *node)
{
    struct node_change *c = &node->change;
    const struct configuration *now = &node_configuration(node)->configuration;
    const struct configuration_member *taken = find_taken(now, &c->request, 0);
    if (taken == NULL) {
        begin_dial(node);
    } else if (!is_as_asked(taken, &c->request)) {
        end(node, LOCKSTEP_EINVAL, "the member %s has this name or address already: client %s, peer %s", taken->name,
            taken->client, taken->peer);
    } else if (taken->role == CONFIGURATION_VOTER) {
        c->id = taken->id;
        end(node, 0, "it is a voter already");
    } else {
        c->id = taken->id;
        step_to(node, CHANGE_CATCH_UP);
    }
}

static void begin_replace(struct node *node)
{
    struct node_change *c = &node->change;
    const struct configuration *now = &node_configuration(node)->configuration;
    const struct configuration_member *old = find_member(now, c->request.old_name), *taken;
    if (old == NULL) {
        taken = find_member(now, c->request.name);
        if (taken != NULL) c->id = taken->id;
        if (taken != NULL && is_as_asked(taken, &c->request)) /* it was asked for before */
            end(node, 0, "it has taken the old one's place already");
        else
            end(node, LOCKSTEP_ENOTFOUND, "no member is called %s; `lockstep status` shows the names",
                c->request.old_name);
        return;
    }
    if (old->id == node->identity.member_id) {
        end(node, LOCKSTEP_EINVAL, "%s leads: it is not gone; move leadership first: lockstep leader transfer",
            old->name);
        return;
    }
    c->old_id = old->id;
    if (c->request.client[0] == 0) memcpy(c->request.client, old->client, sizeof c->request.client);
    if (c->request.peer[0] == 0) memcpy(c->request.peer, old->peer, sizeof c->request.peer);
    taken = find_taken(now, &c->request, old->id);
    if (taken == NULL) {
        begin_dial(node);
    } else if (!is_as_asked(taken, &c->request) || taken->role != CONFIGURATION_LEARNER) {
        end(node, LOCKSTEP_EINVAL, "the member %s has this name or address already: client %s, peer %s", taken->name,
            taken->client, taken->peer);
    } else {
        c->id = taken->id;
        step_to(node, CHANGE_CATCH_UP);
    }
}

static void begin_with_member(struct node *node)
{
    struct node_change *c = &node->change;
    const struct configuration *now = &node_configuration(node)->configuration;
    const struct configuration_member *m = find_member(now, c->request.name);
    if (m == NULL) {
        end(node, LOCKSTEP_ENOTFOUND, "no member is called %s; `lockstep status` shows the names", c->request.name);
    } else if (c->request.kind == NODE_CHANGE_PROMOTE && m->role == CONFIGURATION_VOTER) {
        c->id = m->id;
        end(node, 0, "it is a voter already");
    } else if (c->request.kind == NODE_CHANGE_PROMOTE) {
        c->id = m->id;
        step_to(node, CHANGE_CATCH_UP);
    } else {
        c->old_id = m->id;
        step_to(node, CHANGE_VOTE);
    }
}

void node_change_turn(struct node *node)
{
    struct node_change *c = &node->change;
    if (c->step == CHANGE_NONE) return;
    /* A leader that removed itself steps down in the very event that commits it, before the effects say so. */
    node_configurations_commit(node, raft_commit_index(node->raft));
    if (is_done(node)) {
        end(node, 0, "done");
        return;
    }
    if (!raft_is_leader(node->raft)) {
        end(node, LOCKSTEP_EUNAVAILABLE, "leadership was lost; ask again: it goes on where it stopped");
        return;
    }
    if (node->now_ns >= c->deadline_ns) {
        if (c->step == CHANGE_DIAL) /* nothing was appended */
            end(node, LOCKSTEP_EUNAVAILABLE, "%s", c->progress);
        else
            end(node, LOCKSTEP_ETIMEDOUT, "%s; ask again: it goes on where it stopped",
                c->progress[0] != 0 ? c->progress : "not done in time");
        return;
    }
    if (c->step == CHANGE_DIAL) dial_turn(node);
    if (c->step == CHANGE_LEARN) learn_turn(node);
    if (c->step == CHANGE_CATCH_UP) catch_up_turn(node);
    if (c->step == CHANGE_VOTE) vote_turn(node);
}

void node_change_begin_turn(struct node *node)
{
    struct node_change *c = &node->change;
    if (c->superseded) { /* asked again, its first asker probably gone: the newer one hears the end */
        const struct node_change_result result = {.error = LOCKSTEP_EUNAVAILABLE,
                                                  .why = "the same change was asked for by another call"};
        c->superseded = false;
        node->owner.member_changed(node->owner.context, c->superseded_tag, &result);
    }
    if (!c->begins) return;
    c->begins = false;
    c->id = c->old_id = 0;
    c->slot = RAFT_MEMBERS_MAX;
    c->progress[0] = 0;
    c->hear_deadline_ns = node->now_ns + 2 * node->options.election_timeout_ns;
    step_to(node, CHANGE_VOTE);              /* until the kind says otherwise: end() wants a running one */
    if (!raft_is_leader(node->raft)) return; /* the turn of the change says so */
    switch (c->request.kind) {
    case NODE_CHANGE_ADD: begin_add(node); break;
    case NODE_CHANGE_REPLACE: begin_replace(node); break;
    case NODE_CHANGE_PROMOTE:
    case NODE_CHANGE_REMOVE: begin_with_member(node); break;
    }
}

uint64_t node_change_deadline_ns(const struct node *node)
{
    if (node->change.begins) return node->now_ns;
    return node->change.step != CHANGE_NONE ? node->now_ns + NODE_CHANGE_LOOK_NS : UINT64_MAX;
}

/* An old member may be named in two ways. */
static bool is_same(const struct node *node, const struct node_change_request *a, const struct node_change_request *b)
{
    if (a->kind != b->kind || strcmp(a->name, b->name) != 0) return false;
    raft_member old = node_member_named(node, a->old_name);
    return strcmp(a->old_name, b->old_name) == 0 || (old != 0 && old == node_member_named(node, b->old_name));
}

bool node_change_own(struct node *node, const struct node_change_request *request)
{
    struct node_change *c = &node->change;
    if (c->begins || c->superseded || c->step != CHANGE_NONE || node->stopping || node->now_ns < c->own_again_ns)
        return false;
    c->request = *request;
    c->deadline_ns = node->now_ns + request->timeout_ns;
    c->is_own = c->begins = true;
    return true;
}

void node_change_own_end(struct node *node, const char *why)
{
    struct node_change *c = &node->change;
    if (c->is_own && c->step == CHANGE_CATCH_UP) end(node, LOCKSTEP_EUNAVAILABLE, "%s", why);
    c->own_again_ns = 0;
}

int node_change_members(struct node *node, const struct node_change_request *request, uint64_t tag)
{
    struct node_change *c = &node->change;
    lk_assert(!node->in_turn);
    node->env.wake(node->env.context, NODE_LOOP);
    if (!atomic_load_explicit(&node->born, memory_order_relaxed) || node->stopping) return LOCKSTEP_EUNAVAILABLE;
    if (!raft_is_leader(node->raft)) return node->leader != 0 ? LOCKSTEP_ENOTLEADER : LOCKSTEP_EUNAVAILABLE;
    if (c->begins || c->superseded || (c->step != CHANGE_NONE && !is_same(node, &c->request, request)))
        return LOCKSTEP_EUNAVAILABLE;
    if (c->step != CHANGE_NONE) {
        c->superseded = !c->is_own; /* nobody hears the end of the node's own */
        c->is_own = false;
        c->superseded_tag = c->tag;
        c->tag = tag;
        c->deadline_ns = node->env.now_ns(node->env.context) + request->timeout_ns;
        return 0;
    }
    c->request = *request;
    c->deadline_ns = node->env.now_ns(node->env.context) + request->timeout_ns;
    c->tag = tag;
    c->begins = true;
    return 0;
}
