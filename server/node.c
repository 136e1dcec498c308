/* SPDX-License-Identifier: Apache-2.0 */
/* node.c - the whole node: its parts, its turn, its effects.
 * Thread: loop, but for node_work.
 *
 *   peers' frames ─┐                        ┌─> sends, straight from the ring
 *   completions ───┼─> raft_step ─ raft_take ┼─> persist: journal ──> PERSISTED
 *   time, reads ───┘                        ├─> commit: log thread, machine ──> answers
 *   proposals ──> open block ── seal ──────┘
 *
 * A turn: step all received events, perform effects where the core closes the merge; then seal, propose and publish,
 * only if still leader; perform; answer. Room in every queue is reserved before an event is stepped, so that no effect
 * can fail. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"
#include "storage/forget.h"

enum { MACHINE_BATCH_BYTES = 1 << 20 }; /* and at most an eighth of the ring: a hung machine keeps its batch (M4) */

void node_log(struct node *node, enum node_log_level level, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    node->env.log(node->env.context, level, "node", text);
}

void node_fail(struct node *node, int error, const char *format, ...)
{
    if (node->failed != 0) return; /* the first reason is the one that counts */
    va_list args;
    va_start(args, format);
    vsnprintf(node->failed_why, sizeof node->failed_why, format, args);
    va_end(args);
    node->failed = error;
}

unsigned node_slot_of(const struct node *node, raft_member id)
{
    for (unsigned slot = 0; id != 0 && slot < RAFT_MEMBERS_MAX; slot++)
        if (node->slot_id[slot] == id) return slot;
    return RAFT_MEMBERS_MAX;
}

/* --- open and close ------------------------------------------------------------------------------------------ */

static void storage_wake(void *context, enum storage_part part)
{
    static const enum node_part parts[] = {
        [STORAGE_LOOP] = NODE_LOOP, [STORAGE_JOURNAL] = NODE_JOURNAL, [STORAGE_LOG] = NODE_LOG};
    struct node *node = context;
    node->env.wake(node->env.context, parts[part]);
}

static void host_wake_loop(void *context)
{
    struct node *node = context;
    node->env.wake(node->env.context, NODE_LOOP);
}

static void host_wake_machine(void *context)
{
    struct node *node = context;
    node->env.wake(node->env.context, NODE_MACHINE);
}

static void host_wake_snapshots(void *context)
{
    struct node *node = context;
    node->env.wake(node->env.context, NODE_SNAPSHOTS);
}

static void host_log(void *context, const char *line)
{
    struct node *node = context;
    node->env.log(node->env.context, NODE_LOG_INFO, "machine", line);
}

static uint64_t pack_from_ring(void *context, raft_index first, raft_index last, uint64_t budget_bytes,
                               raft_index *ret_last)
{
    struct node *node = context;
    return ring_pack(node->ring, first, last, budget_bytes, ret_last);
}

/* R5: so long after it heard from this node a leader may read by its lease. */
static uint64_t lease_promise_ns(const struct node_options *options)
{
    return options->lease_reads ? options->election_timeout_ns : 0;
}

static int core_open(struct node *node, const struct storage_recovered *recovered)
{
    const struct node_options *o = &node->options;
    const struct birth_record *birth = &node->identity.birth;
    struct raft_options options = {
        .self = node->identity.member_id,
        .election_timeout_ns_min = o->election_timeout_ns,
        .heartbeat_ns = o->heartbeat_ns,
        .append_bytes_max = TRANSPORT_APPEND_BYTES_MAX,
        .append_inflight_bytes_max = o->append_inflight_bytes_max,
        .uncommitted_bytes_max = birth->configuration.uncommitted_bytes_max,
        /* A leader's clock that is 5 % slow and a voter's that is 5 % fast still end the lease before the promise. */
        .lease_ns = o->lease_reads ? o->election_timeout_ns - o->election_timeout_ns / 10 : 0,
        .random_seed = node->env.random(node->env.context),
        .blocks_pack = pack_from_ring,
        .blocks_context = node,
    };
    if (options.uncommitted_bytes_max > o->ring_bytes / 4) options.uncommitted_bytes_max = o->ring_bytes / 4;
    struct raft_start start = {
        .hard_state = {.term = recovered->hard_state.term, .vote = recovered->hard_state.vote},
        .base_index = recovered->base.index,
        .base_term = recovered->base.term,
        .last_index = recovered->last.index,
        .commit = recovered->commit,
        .run_count = recovered->run_count,
    };
    if (recovered->promise_ns > lease_promise_ns(o)) { /* by a longer timeout, or with leases that are off now */
        start.promise_ns = 2 * recovered->promise_ns;
        node->promise_over_ns = node->now_ns + start.promise_ns;
    }
    const struct storage_configuration *newest = node_configuration(node);
    node_configuration_core(&newest->configuration, &start.configuration);
    start.configuration_index = newest->index;
    if (node->members.count > 1) { /* the newest may still be cut */
        node_configuration_core(&newest[-1].configuration, &start.configuration_before);
        start.configuration_before_index = newest[-1].index;
    }
    struct raft_term_run *runs = calloc(recovered->run_count + 1, sizeof *runs);
    node->raft_memory = aligned_alloc(64, (raft_bytes() + 63) & ~(size_t)63);
    if (runs == NULL || node->raft_memory == NULL) {
        free(runs);
        return LOCKSTEP_ENOMEM;
    }
    for (uint32_t i = 0; i < recovered->run_count; i++)
        runs[i] = (struct raft_term_run){recovered->runs[i].first_index, recovered->runs[i].term};
    start.runs = runs;
    node->raft = raft_open(node->raft_memory, &options, &start, node->now_ns);
    free(runs);
    return 0;
}

int node_come_alive(struct node *node, char *why, size_t why_room)
{
    const struct node_options *o = &node->options;
    const struct birth_record *birth = &node->identity.birth;
    if (node->identity.joined.index == 0 &&
        configuration_find(&birth->configuration, node->identity.member_id) == NULL) {
        snprintf(why, why_room,
                 "%s: the cluster's birth record does not know %s by this directory; start it with its own name",
                 o->data_directory, o->members[o->self].name);
        return LOCKSTEP_EFOREIGN;
    }
    struct storage_options storage_options = {
        .directory = o->data_directory,
        .journal_directory = o->journal_directory[0] != 0 ? o->journal_directory : NULL,
        .ring_bytes = o->ring_bytes,
        .journal_bytes = o->journal_bytes,
        .map_bytes = o->map_bytes,
        .block_bytes_max = BLOCK_BYTES_MAX,
        .cluster_id = birth->cluster_id,
        .member_id = node->identity.member_id,
        .random_id = node->env.random(node->env.context),
        .level = (enum durability_level)birth->configuration.level,
        .promise_ns = lease_promise_ns(o),
        .birth = birth_record_base(birth),
        .disk = o->disk,
        .kv = o->kv,
        .piece_bytes = o->piece_bytes,
        .keep_bytes = o->snapshot_after_bytes / 4,
        .keep_ns = o->snapshot_age_ns,
        .wake = storage_wake,
        .wake_context = node,
        .patches = node->repair.patches,
        .patch_count = node->repair.patch_count,
    };
    struct storage_recovered recovered;
    int rc = storage_open(&storage_options, &node->storage, &recovered, why, why_room);
    if (rc == LOCKSTEP_ECORRUPT && node_repair_begin(node, &recovered, why)) return LOCKSTEP_EUNAVAILABLE;
    if (rc != 0) return rc;
    node->ring = storage_ring(node->storage);
    node->boot = recovered.boot;
    const struct configuration *first = &birth->configuration;
    node->sessions = (struct session_limits){.window = first->session_window,
                                             .sessions_max = first->sessions_max,
                                             .replies_bytes = first->session_replies_bytes,
                                             .expiry_ns = first->session_expiry_ms * NODE_MS};
    struct host_options host_options = {
        .plugin = o->plugin,
        .storage = node->storage,
        .start_index = recovered.base.index + 1,
        .replies_bytes = o->replies_bytes != 0 ? o->replies_bytes : 16 << 20,
        .queries_bytes = o->queries_bytes != 0 ? o->queries_bytes : 16 << 20,
        .batch_bytes_max =
            (uint32_t)(o->ring_bytes / 8 < MACHINE_BATCH_BYTES ? o->ring_bytes / 8 : MACHINE_BATCH_BYTES),
        .sessions = node->sessions,
        .wake_loop = host_wake_loop,
        .wake_machine = host_wake_machine,
        .wake_snapshots = host_wake_snapshots,
        .snapshot_after_bytes = o->snapshot_after_bytes,
        .snapshot_age_ns = o->snapshot_age_ns,
        .log = host_log,
        .context = node,
    };
    rc = storage_reader_open(node->storage, &node->load_reader);
    if (rc == 0) rc = storage_reader_open(node->storage, &node->snapshot_reader);
    if (rc != 0) {
        snprintf(why, why_room, "%s: the log cannot be read: %s; check the disk and its permissions", o->data_directory,
                 lockstep_error_text(rc));
        return rc;
    }
    if (recovered.snapshot.base.index != 0)
        host_options.restore = node_snapshot_reader(node->snapshot_reader, STORAGE_SNAPSHOT_NEWEST);
    rc = host_open(&host_options, &node->host);
    node_snapshot_reader_close(host_options.restore);
    if (rc != 0 && recovered.snapshot.base.index != 0) {
        snprintf(
            why, why_room,
            "%s: machine %s cannot be started from the snapshot of block %llu: %s; start the version that wrote it, "
            "or give the node an empty directory and run member replace",
            o->data_directory, o->plugin->name, (unsigned long long)recovered.snapshot.base.index,
            lockstep_error_text(rc));
        return rc;
    }
    if (rc != 0) {
        snprintf(why, why_room, "machine %s: cannot be opened: %s", o->plugin->name, lockstep_error_text(rc));
        return rc;
    }
    node->base_told = recovered.base.index;
    node->snapshot_told = recovered.snapshot.base.index;
    rc = node_members_recover(node, &recovered);
    if (rc == 0) rc = core_open(node, &recovered);
    if (rc != 0) {
        snprintf(why, why_room, "not enough memory for the core: %zu bytes", raft_bytes());
        return rc;
    }
    node->proposals.last_append_ns = node->now_ns;
    node->proposals.answered = node->proposals.next = recovered.last.next_position;
    host_answer_from(node->host, UINT64_MAX);
    host_commit(node->host, recovered.commit);
    storage_commit(node->storage, recovered.commit);
    ring_commit(node->ring, recovered.commit);
    node_ring_follow_raft(node, 0);
    node->changed = true;
    node_log(node, NODE_LOG_INFO,
             "alive: member=%016llx boot=%llu term=%llu base=%llu snapshot=%llu last=%llu commit=%llu stored=%llu",
             (unsigned long long)node->identity.member_id, (unsigned long long)recovered.boot,
             (unsigned long long)recovered.hard_state.term, (unsigned long long)recovered.base.index,
             (unsigned long long)recovered.snapshot.base.index, (unsigned long long)recovered.last.index,
             (unsigned long long)recovered.commit, (unsigned long long)recovered.stored);
    /* release: pairs with the acquire load in node_work; storage and host must be visible before the flag. */
    atomic_store_explicit(&node->born, true, memory_order_release);
    for (enum node_part part = NODE_JOURNAL; part < NODE_PARTS; part++) node->env.wake(node->env.context, part);
    return 0;
}

static const char *level_name(uint32_t level)
{
    switch (level) {
    case DURABILITY_LEVEL_FSYNC: return "fsync";
    case DURABILITY_LEVEL_OS: return "os";
    case DURABILITY_LEVEL_MEMORY: return "memory";
    default: return "a newer one";
    }
}

/* Level memory: the member that the directory was ended with its process. */
static int forget(struct node *node, char *why, size_t why_room)
{
    const struct node_options *o = &node->options;
    raft_member before = node->identity.member_id;
    const char *journal = o->journal_directory[0] != 0 ? o->journal_directory : NULL;
    int rc = storage_forget(o->disk, o->kv, o->data_directory, journal, node->directory,
                            node->env.random(node->env.context), &node->identity, why, why_room);
    if (rc == 0 && node->identity.state != IDENTITY_COMPLETE)
        node_log(node, NODE_LOG_INFO, "a new member, as durability \"memory\" has it: member=%016llx before=%016llx",
                 (unsigned long long)node->identity.member_id, (unsigned long long)before);
    return rc;
}

int node_open(const struct node_options *options, const struct node_env *env, const struct node_owner *owner,
              struct node **ret, char *why, size_t why_room)
{
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL) goto no_memory;
    node->options = *options;
    if (options->sessions.window == 0) node->options.sessions = session_limits_usual();
    node_members_open(node);
    node->env = *env;
    node->owner = *owner;
    node->proposals.session_due_ns = UINT64_MAX;
    node->now_ns = env->now_ns(env->context);
    node->entries = malloc(NODE_ENTRIES_MAX * sizeof *node->entries);
    node->entry_configurations = malloc(NODE_ENTRY_CONFIGURATIONS_MAX * sizeof *node->entry_configurations);
    if (node->entries == NULL || node->entry_configurations == NULL || node_proposals_open(node) != 0 ||
        node_reads_open(node) != 0 || node_forwards_open(node) != 0)
        goto no_memory;
    int rc = identity_open(options->disk, options->data_directory, options->members[options->self].name,
                           env->random(env->context), &node->directory, &node->identity, why, why_room);
    if (rc != 0) goto fail;
    const struct birth_record *birth = &node->identity.birth;
    if (node->identity.state == IDENTITY_COMPLETE) {
        rc = LOCKSTEP_EFOREIGN;
        if (strcmp(birth->cluster, options->cluster) != 0) {
            snprintf(why, why_room,
                     "%s: belongs to cluster \"%s\", the configuration says \"%s\"; give it its own configuration",
                     options->data_directory, birth->cluster, options->cluster);
            goto fail;
        }
        if (strcmp(birth->machine, options->plugin->name) != 0) {
            snprintf(why, why_room,
                     "%s: its log is for machine \"%s\", the configuration names \"%s\"; name the same one",
                     options->data_directory, birth->machine, options->plugin->name);
            goto fail;
        }
        if (birth->configuration.level != (uint32_t)options->level) {
            snprintf(why, why_room, "%s: born with durability \"%s\", the configuration says \"%s\"; write the former",
                     options->data_directory, level_name(birth->configuration.level), level_name(options->level));
            goto fail;
        }
        rc = birth->configuration.level == DURABILITY_LEVEL_MEMORY ? forget(node, why, why_room) : 0;
        if (rc == 0 && node->identity.state == IDENTITY_COMPLETE) rc = node_come_alive(node, why, why_room);
        if (rc != 0 && !node->repair.opening) goto fail;
    }
    *ret = node;
    return 0;
no_memory:
    snprintf(why, why_room, "not enough memory to open the node");
    rc = LOCKSTEP_ENOMEM;
fail:
    node_close(node);
    return rc;
}

void node_close(struct node *node)
{
    if (node == NULL) return;
    storage_reader_close(node->load_reader);
    storage_reader_close(node->snapshot_reader);
    node_repair_close(node);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) free(node->loads[i].buffer);
    node_blocks_close(node);
    if (node->install.state != NULL) host_state_free(node->host, node->install.state);
    host_close(node->host);
    storage_close(node->storage);
    free(node->raft_memory);
    identity_close(node->directory);
    node_forwards_close(node);
    node_reads_close(node);
    node_proposals_close(node);
    node_members_close(node);
    free(node->entry_configurations);
    free(node->entries);
    free(node);
}

static void owner_wake(void *context)
{
    struct node *node = context;
    node->env.wake(node->env.context, NODE_LOOP);
}

static struct ring *owner_ring(void *context)
{
    struct node *node = context;
    return node->ring;
}

struct transport_owner node_transport_owner(struct node *node)
{
    return (struct transport_owner){
        .context = node, .wake = owner_wake, .ring = owner_ring, .hello_check = node_hello_check};
}

void node_attach(struct node *node, struct transport *transport)
{
    lk_assert(node->transport == NULL);
    node->transport = transport;
}

/* --- the turn ------------------------------------------------------------------------------------------------ */

/* S2: the epoch changes before anything of a new term touches the ring. */
void node_ring_follow_raft(struct node *node, raft_index cut)
{
    raft_term term = raft_current_term(node->raft);
    bool leads = raft_is_leader(node->raft);
    if (cut == 0 && term == node->ring_term && leads == node->ring_leads) return;
    ring_epoch_begin(node->ring);
    if (cut != 0) ring_cut(node->ring, cut);
    node->ring_term = term;
    node->ring_leads = leads;
    ring_epoch_end(node->ring, term, leads);
}

static void leader_changed(struct node *node, const struct raft_effects *effects)
{
    const struct node_options *o = &node->options;
    if (effects->role == RAFT_CANDIDATE) node->counters.elections++;
    if (effects->leader != node->leader) {
        unsigned slot = node_slot_of(node, effects->leader);
        node_log(node, NODE_LOG_INFO, "leader: term=%llu leader=%s", (unsigned long long)effects->term,
                 slot < RAFT_MEMBERS_MAX ? o->members[slot].name : "none");
    }
    bool other = effects->leader != node->leader;
    node->leader = effects->leader;
    if (other) node_forwards_leader_changed(node);
    node->changed = true;
}

static void transfer_settle(struct node *node, int error)
{
    if (!node->transfer_waits) return;
    node->transfer_waits = false;
    node->owner.transferred(node->owner.context, node->transfer_tag, error);
}

void node_take_and_perform(struct node *node)
{
    struct raft_effects *fx = &node->effects;
    raft_take(node->raft, node->now_ns, fx);
    node_peers_send(node, fx);
    if (fx->persist_seq != 0) {
        struct storage_persist persist = {
            .seq = fx->persist_seq,
            .has_hard_state = fx->persist_hard_state,
            .hard_state = {.term = fx->hard_state.term, .vote = fx->hard_state.vote},
            .first = fx->persist_first,
            .last = fx->persist_last,
            .commit = fx->commit,
        };
        storage_persist(node->storage, &persist);
        node->disk.asked_seq = fx->persist_seq;
    }
    storage_commit(node->storage, fx->commit);
    host_commit(node->host, fx->commit);
    ring_commit(node->ring, fx->commit);
    node_configurations_commit(node, fx->commit);
    if (fx->role_changed) leader_changed(node, fx);
    node_reads_release(node, fx->reads_ready, fx->reads_failed, fx->reads_index);
    if (fx->transfer_done < 0) transfer_settle(node, LOCKSTEP_ETIMEDOUT);
    if (fx->transfer_done > 0) node->transfer_left = true;
    /* This node left for a higher term; who leads there it hears a message later, and so does who asked. */
    if (node->transfer_left && node->leader != 0) {
        node->transfer_left = false;
        raft_member target = node->transfer_target;
        bool done = target != 0 ? node->leader == target : node->leader != node->identity.member_id;
        transfer_settle(node, done ? 0 : LOCKSTEP_ETIMEDOUT);
    }
    node->deadline_ns = fx->deadline_ns;
}

void node_step(struct node *node, const struct raft_event *event, struct raft_result *ret)
{
    /* A change of role or term, or a cut, closed the merge: its effects come before the next event. */
    if (raft_must_take(node->raft)) node_take_and_perform(node);
    bool led = raft_is_leader(node->raft);
    raft_step(node->raft, event, ret);
    /* Lost leadership: the open claim goes before blocks of another leader come into the ring. */
    if (led && !raft_is_leader(node->raft)) node_proposals_lose(node);
    /* Won it: from this very event on, nothing is proposed before the term's first block. */
    if (!led && raft_is_leader(node->raft)) node_proposals_lead(node);
    node_ring_follow_raft(node, ret->cut);
    if (ret->cut != 0) node_configurations_cut(node, ret->cut);
}

static void step_completions(struct node *node)
{
    struct raft_result result;
    const char *why;
    int error = storage_failed(node->storage, &why);
    if (error != 0 && node->failed == 0) {
        node_fail(node, error, "%s: %s", node->options.data_directory, why);
        struct raft_event event = {.type = RAFT_EVENT_DISK_FAILED, .now_ns = node->now_ns};
        node_step(node, &event, &result);
    }
    uint64_t seq = storage_persisted(node->storage);
    if (seq == node->persisted_seq) return;
    node->persisted_seq = seq;
    struct raft_event event = {.type = RAFT_EVENT_PERSISTED, .now_ns = node->now_ns, .as.persisted.seq = seq};
    node_step(node, &event, &result);
}

static void answers(struct node *node)
{
    struct host_answer answer;
    while (host_answer_next(node->host, &answer)) {
        if (answer.type == HOST_ANSWER_APPLIED)
            node_proposals_answer(node, &answer);
        else
            node_reads_answer(node, &answer);
    }
}

/* Hand over first what would otherwise be cut off: what is appended finishes, then leadership moves, then we go. */
static void stop_turn(struct node *node)
{
    if (!node->stopping || node->stop_transfer_asked || !raft_is_leader(node->raft)) return;
    if (!node_proposals_idle(node) && node->now_ns < node->stop_deadline_ns) return;
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .now_ns = node->now_ns};
    struct raft_result result;
    node_step(node, &event, &result);
    /* Not now: nothing is heard of the others, or the term's first block is not committed. Asked again next turn. */
    bool later = result.error == LOCKSTEP_EUNAVAILABLE && node->now_ns < node->stop_deadline_ns;
    node->stop_transfer_asked = !later;
}

/* The control thread notes it durably, for the next start. */
static void promise_turn(struct node *node)
{
    if (node->promise_over_ns == 0 || node->now_ns < node->promise_over_ns) return;
    node->promise_over_ns = 0;
    /* release: pairs with the exchange in node_control_work */
    atomic_store_explicit(&node->promise_over, true, memory_order_release);
    node->env.wake(node->env.context, NODE_CONTROL);
}

/* M5: who cannot apply what is committed does not lead: nobody would be answered. It votes on. */
static void parked_turn(struct node *node, bool parked)
{
    if (parked == node->stands_back) return;
    struct raft_event event = {.type = RAFT_EVENT_STAND_BACK, .now_ns = node->now_ns};
    struct raft_result result;
    node->stands_back = event.as.stand_back.stands_back = parked;
    node_step(node, &event, &result);
    node->env.wake(node->env.context, NODE_LOOP); /* the next turn hands over */
    node->changed = true;
}

/* How long the oldest byte that somebody holds has been that: by looking once a turn. */
static void holds_look(struct node *node)
{
    ring_pos lowest[NODE_HOLDERS] = {[NODE_HOLDER_JOURNAL] = ring_pinned(node->ring, RING_PIN_JOURNAL),
                                     [NODE_HOLDER_MACHINE] = ring_pinned(node->ring, RING_PIN_MACHINE),
                                     [NODE_HOLDER_LOG] = ring_pinned(node->ring, RING_PIN_LOG),
                                     [NODE_HOLDER_PEERS] = UINT64_MAX};
    for (unsigned slot = 0; slot < RAFT_MEMBERS_MAX; slot++) {
        ring_pos pos = ring_pinned(node->ring, RING_PIN_PEER + slot);
        if (pos < lowest[NODE_HOLDER_PEERS]) lowest[NODE_HOLDER_PEERS] = pos;
    }
    for (unsigned i = 0; i < NODE_HOLDERS; i++) {
        if (lowest[i] == node->holds[i].pos) continue;
        node->holds[i].pos = lowest[i];
        node->holds[i].since_ns = node->now_ns;
    }
}

static void holds_read(const struct node *node, struct node_status *ret)
{
    ring_status_read(node->ring, &ret->ring);
    for (unsigned i = 0; i < NODE_HOLDERS; i++) {
        if (node->holds[i].pos >= ret->ring.tail) continue; /* none, or all of it was read */
        ret->holds[i].bytes = ret->ring.tail - node->holds[i].pos;
        ret->holds[i].held_ns = node->now_ns - node->holds[i].since_ns;
    }
}

static void alive_turn(struct node *node)
{
    struct raft_result result;
    struct raft_event time = {.type = RAFT_EVENT_TIME, .now_ns = node->now_ns};
    node_change_begin_turn(node);
    step_completions(node);
    node_disk_turn(node);
    node_peers_receive(node);
    node_loads_turn(node);
    node_blocks_turn(node);
    node_observers_turn(node);
    node_snapshots_turn(node);
    node_step(node, &time, &result);
    stop_turn(node);
    node_reads_ask_round(node);
    node_members_lead_turn(node);
    node_change_turn(node);
    node_proposals_seal_turn(node);
    node_proposals_sessions_turn(node);
    node_take_and_perform(node);
    answers(node);
    node_reads_turn(node);
    node_forwards_turn(node);
    promise_turn(node);
    storage_reclaim(node->storage);
    holds_look(node);
    struct host_status host;
    host_status_read(node->host, &host);
    parked_turn(node, host.parked);
    if (host.error == LOCKSTEP_ECORRUPT)
        node_fail(node, host.error,
                  "%s: block %llu of the log is damaged, machine %s cannot go on behind it; start the node again: it "
                  "gets the block back from the others; and look at its disk",
                  node->options.data_directory, (unsigned long long)host.error_index, node->options.plugin->name);
    else if (host.error != 0)
        node_fail(node, host.error, "machine %s stopped at index %llu, position %llu: %s", node->options.plugin->name,
                  (unsigned long long)host.error_index, (unsigned long long)host.error_position,
                  host.error == LOCKSTEP_EINVAL ? "it said FATAL; this replica cannot go on, the others can"
                                                : lockstep_error_text(host.error));
}

void node_drain(struct node *node)
{
    node->now_ns = node->env.now_ns(node->env.context);
    lk_assert(!node->in_turn);
    node->in_turn = true;
    if (atomic_load_explicit(&node->born, memory_order_relaxed)) {
        alive_turn(node);
    } else {
        node_peers_receive(node);
        if (node->repair.opening)
            node_repair_turn(node);
        else if (!atomic_load_explicit(&node->born, memory_order_relaxed))
            node_birth_turn(node);
        node->deadline_ns = node->repair.opening ? node->repair.due_ns : node->birth.retry_ns;
        if (atomic_load_explicit(&node->born, memory_order_relaxed)) node->deadline_ns = node->now_ns;
    }
    node_members_turn(node);
    if (node->changed) {
        node->changed = false;
        node->owner.changed(node->owner.context);
    }
    node->transport->ops->flush(node->transport);
    node->in_turn = false;
}

/* What a stop waits for has a time in which it is to be done, and one after which nothing is waited for. */
static uint64_t stop_due_ns(const struct node *node)
{
    if (!node->stopping) return UINT64_MAX;
    if (node->now_ns < node->stop_deadline_ns) return node->stop_deadline_ns;
    uint64_t cut_off_ns = node->stop_deadline_ns + NODE_STOP_NS;
    return node->now_ns < cut_off_ns ? cut_off_ns : UINT64_MAX;
}

uint64_t node_deadline_ns(const struct node *node)
{
    uint64_t deadline = node->deadline_ns;
    if (node->forward_count > 0 && node->forward_sweep_ns < deadline) deadline = node->forward_sweep_ns;
    if (node_reads_deadline_ns(node) < deadline) deadline = node_reads_deadline_ns(node);
    if (node->proposals.session_due_ns < deadline) deadline = node->proposals.session_due_ns;
    if (stop_due_ns(node) < deadline) deadline = stop_due_ns(node);
    if (node->members.look_ns < deadline) deadline = node->members.look_ns;
    if (node_change_deadline_ns(node) < deadline) deadline = node_change_deadline_ns(node);
    return deadline;
}

uint64_t node_work(struct node *node, enum node_part part)
{
    /* acquire: pairs with the release store in node_come_alive */
    if (!atomic_load_explicit(&node->born, memory_order_acquire)) return UINT64_MAX;
    switch (part) {
    case NODE_JOURNAL: return storage_journal_work(node->storage, node->env.now_ns(node->env.context));
    case NODE_LOG: return storage_log_work(node->storage, node->env.now_ns(node->env.context));
    case NODE_MACHINE: return host_work(node->host) ? 0 : UINT64_MAX;
    case NODE_CONTROL: node_control_work(node); return UINT64_MAX;
    case NODE_SNAPSHOTS: node_snapshots_work(node); return UINT64_MAX;
    case NODE_LOOP:
    case NODE_PARTS: break;
    }
    lk_assert(part != NODE_LOOP && part != NODE_PARTS);
    return UINT64_MAX;
}

/* --- leadership, stop, status -------------------------------------------------------------------------------- */

bool node_hands_over(const struct node *node)
{
    return atomic_load_explicit(&node->born, memory_order_relaxed) && !node->stopping &&
           raft_is_transferring(node->raft);
}

unsigned node_leader(const struct node *node)
{
    return node_slot_of(node, node->leader);
}

uint32_t node_retry_after_ms(const struct node *node)
{
    (void)node;
    return 20; /* a few flushes: what is full now has moved by then, if it moves at all */
}

int node_transfer(struct node *node, const char *target, uint64_t tag)
{
    lk_assert(!node->in_turn);
    node->env.wake(node->env.context, NODE_LOOP);
    if (!atomic_load_explicit(&node->born, memory_order_relaxed)) return LOCKSTEP_EUNAVAILABLE;
    if (!raft_is_leader(node->raft)) return node->leader != 0 ? LOCKSTEP_ENOTLEADER : LOCKSTEP_EUNAVAILABLE;
    if (node->transfer_waits) return LOCKSTEP_EUNAVAILABLE;
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .now_ns = node->now_ns};
    if (target[0] != 0) {
        event.as.transfer.target = node_member_named(node, target);
        if (event.as.transfer.target == 0) return LOCKSTEP_ENOTFOUND;
        if (event.as.transfer.target == node->identity.member_id) return LOCKSTEP_EEXIST;
    }
    struct raft_result result;
    node_step(node, &event, &result);
    if (result.error != 0) return result.error;
    node->transfer_waits = true;
    node->transfer_target = event.as.transfer.target;
    node->transfer_tag = tag;
    return 0;
}

void node_stop(struct node *node)
{
    if (node->stopping) return;
    node->env.wake(node->env.context, NODE_LOOP);
    node->stopping = true;
    node->stop_deadline_ns = node->now_ns + NODE_STOP_NS;
    node->stop_index = atomic_load_explicit(&node->born, memory_order_relaxed) ? raft_last_index(node->raft) : 0;
    node->changed = true;
}

bool node_drained(const struct node *node)
{
    if (!node->stopping) return false;
    if (!atomic_load_explicit(&node->born, memory_order_relaxed) || node->failed != 0) return true;
    if (node->now_ns >= node->stop_deadline_ns + NODE_STOP_NS) return true;
    /* What others made durable may be applied here before it is on this disk; a clean stop leaves it there. */
    raft_index last = raft_last_index(node->raft);
    if (raft_durable_index(node->raft) < (last < node->stop_index ? last : node->stop_index)) return false;
    if (raft_is_leader(node->raft)) {
        struct raft_status status;
        raft_status_read(node->raft, &status);
        return node->stop_transfer_asked && !status.transferring;
    }
    return node_proposals_idle(node) && (node->forward_count == 0 || node->now_ns >= node->stop_deadline_ns);
}

int node_failed(const struct node *node, const char **why)
{
    if (node->failed != 0 && why != NULL) *why = node->failed_why;
    return node->failed;
}

const struct node_options *node_options_of(const struct node *node)
{
    return &node->options;
}

const struct session_limits *node_sessions(const struct node *node)
{
    return atomic_load_explicit(&node->born, memory_order_relaxed) ? &node->sessions : &node->options.sessions;
}

static const char *why_not_ready(const struct node *node, const struct node_status *status)
{
    if (node->failed != 0) return node->failed_why;
    if (node->members.removed) return "no member of the cluster any more: it was removed";
    if (node->stopping) return "draining";
    if (node->disk.why[0] != 0) return node->disk.why;
    if (node->leader == 0) return "no leader is known";
    if (status->host.parked) return "the machine is parked at a block it does not know; upgrade this node";
    if (status->host.applied_index + NODE_READY_LAG_BLOCKS < status->raft.commit) return "catching up";
    return NULL;
}

void node_status_read(struct node *node, struct node_status *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->born = atomic_load_explicit(&node->born, memory_order_relaxed);
    ret->identity = node->identity;
    ret->counters = node->counters;
    ret->counters.frames_refused = node->frames_refused + node->transport->ops->frames_refused(node->transport);
    ret->leader_slot = RAFT_MEMBERS_MAX;
    ret->not_ready = node->failed != 0      ? node->failed_why
                     : node->repair.opening ? node->repair.why
                     : node->birth.refused  ? node->birth.waits
                                            : "waiting for the other nodes, to be born";
    if (ret->born) {
        raft_status_read(node->raft, &ret->raft);
        storage_status_read(node->storage, &ret->storage);
        host_status_read(node->host, &ret->host);
        ret->leader_slot = node_leader(node);
        holds_read(node, ret);
        ret->last_term = ring_last(node->ring).term;
        ret->counters.appends_inflight_max = ret->raft.appends_inflight_max;
        ret->not_ready = why_not_ready(node, ret);
    }
    ret->ready = ret->not_ready == NULL;
    node_members_status(node, ret);
}
