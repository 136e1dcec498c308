/* SPDX-License-Identifier: Apache-2.0 */
/* node_snapshot.c - snapshots: taken, brought to peers, taken in place of the log.
 * Thread: loop, but for what is marked control or snapshots. Owns: the install under way, what the core was told of the log's
 * base.
 *
 *   taken      machine freezes ── snapshots writes a file ──> log thread ── base moves ──> the core is told (COMPACTED)
 *   brought    the core asks for a piece ── control reads ──> PIECE ──> sent from the load buffer
 *   installed  piece -> log thread -> acked, and so on; whole: snapshots reads it into a machine of its own; the core agrees;
 *              the machine halts; one transaction; ring, core and machine begin anew behind it
 *
 * - Until the core agrees everything goes on as if no snapshot came, and nothing of it is lost by a restart (T40).
 * - What has not been read into a machine, with the right hash, never takes the log's place.
 * - While a peer gets on with a snapshot of ours none is taken: the log behind it, and its bytes, are still needed. A log
 *   that grew by HOLD_MAX snapshots' worth meanwhile is not kept for it (T63). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"
#include "server/pace.h"

enum { HOLD_MAX = 4 };
static_assert((int)SNAPSHOT_PIECE_BYTES_MAX <= (int)BLOCK_BYTES_MAX, "a load buffer holds a piece");

/* --- a snapshot's content ----------------------------------------------------------------------------------------- */

struct content_reader {
    struct lockstep_reader face; /* first */
    struct storage_content *content;
};

static int read_content(struct lockstep_reader *reader, void *to, size_t room, size_t *ret_count)
{
    const struct content_reader *from = (const struct content_reader *)(const void *)reader;
    return storage_content_read(from->content, to, room, ret_count);
}

struct lockstep_reader *node_snapshot_reader(struct storage_reader *reader, enum storage_which which)
{
    struct content_reader *from = calloc(1, sizeof *from);
    if (from == NULL || storage_content_open(reader, which, &from->content) != 0) {
        free(from);
        return NULL;
    }
    from->face = (struct lockstep_reader){.size = sizeof from->face, .read = read_content};
    return &from->face;
}

void node_snapshot_reader_close(struct lockstep_reader *reader)
{
    struct content_reader *from = (struct content_reader *)(void *)reader;
    if (from != NULL) storage_content_close(from->content);
    free(from);
}

/* --- taken: snapshots ---------------------------------------------------------------------------------------------- */

struct piece_writer {
    struct lockstep_writer face; /* first */
    struct node *node;
    uint64_t since_ns; /* it works without a rest */
    bool stopped;
};

static int write_pieces(struct lockstep_writer *writer, const void *bytes, size_t count)
{
    struct piece_writer *pieces = (struct piece_writer *)(void *)writer;
    const struct node_env *env = &pieces->node->env;
    for (size_t at = 0, step; at < count; at += step) {
        step = count - at < SNAPSHOT_STEP_BYTES ? count - at : SNAPSHOT_STEP_BYTES;
        int rc = storage_snapshot_write(pieces->node->storage, (const uint8_t *)bytes + at, step);
        if (rc != 0) return rc;
        uint64_t rest_ns = pace_rest_ns(env->now_ns(env->context) - pieces->since_ns);
        if (rest_ns == 0) continue;
        pieces->stopped = !env->pause(env->context, rest_ns);
        pieces->since_ns = env->now_ns(env->context);
        if (pieces->stopped) return LOCKSTEP_EUNAVAILABLE;
    }
    return 0;
}

static void take(struct node *node)
{
    struct block_base base;
    if (!host_snapshot_ready(node->host, &base)) return;
    struct piece_writer writer = {.face = {.size = sizeof writer.face, .write = write_pieces},
                                  .node = node,
                                  .since_ns = node->env.now_ns(node->env.context)};
    int rc = storage_snapshot_begin(node->storage, &base);
    if (rc == 0) {
        rc = host_snapshot_write(node->host, &writer.face);
        int error = storage_snapshot_end(node->storage, rc == 0);
        if (rc == 0) rc = error;
    }
    host_snapshot_done(node->host);
    if (rc != 0 && !writer.stopped)
        node_log(node, NODE_LOG_WARN, "snapshot given up: index=%llu: %s; the log is kept and the next one is tried",
                 (unsigned long long)base.index, lockstep_error_text(rc));
}

/* --- brought to peers ---------------------------------------------------------------------------------------------- */

/* Control. */
void node_snapshots_load(struct node *node, struct node_load *load)
{
    const struct raft_piece *piece = &load->piece;
    struct storage_snapshot is = {0};
    size_t count = 0;
    uint64_t offset = piece->offset;
    int rc = storage_piece_read(node->load_reader, STORAGE_SNAPSHOT_NEWEST, offset, &is, load->buffer, &count);
    bool other = rc == 0 && (is.base.index != piece->index || is.checksum != piece->checksum);
    if (offset != 0 && (other || rc == LOCKSTEP_ENOTFOUND)) {
        offset = 0;
        rc = storage_piece_read(node->load_reader, STORAGE_SNAPSHOT_NEWEST, offset, &is, load->buffer, &count);
    }
    load->ret_bytes = rc == 0 ? count : 0;
    load->ret_offset = offset;
    load->ret_snapshot = is;
    load->ret_error = rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EIO ? rc : 0; /* anything else passes */
}

void node_snapshots_loaded(struct node *node, unsigned slot)
{
    const struct node_load *load = &node->loads[slot];
    const struct storage_snapshot *is = &load->ret_snapshot;
    if (load->ret_error != 0) /* J7 */
        node_fail(
            node, load->ret_error,
            "%s: the snapshot of block %llu cannot be read at byte %llu: %s; the other nodes have the state: keep "
            "this directory and look at its disk",
            node->options.data_directory, (unsigned long long)load->piece.index, (unsigned long long)load->ret_offset,
            lockstep_error_text(load->ret_error));
    struct raft_event event = {.type = RAFT_EVENT_PIECE, .now_ns = node->now_ns};
    struct raft_result result;
    event.as.piece.peer = node->slot_id[slot];
    event.as.piece.offset = load->ret_offset;
    event.as.piece.bytes = load->ret_bytes;
    event.as.piece.snapshot = (struct raft_snapshot){.index = is->base.index,
                                                     .term = is->base.term,
                                                     .block_crc = is->base.crc,
                                                     .checksum = is->checksum,
                                                     .next_position = is->base.next_position,
                                                     .time_ns = is->base.time_ns,
                                                     .bytes = is->bytes};
    node_step(node, &event, &result);
}

/* --- installed ----------------------------------------------------------------------------------------------------- */

static int install_step(const struct node *node)
{
    return atomic_load_explicit(&node->install.step, memory_order_acquire); /* pairs with snapshots' release */
}

static void install_step_set(struct node *node, enum node_install_step step)
{
    atomic_store_explicit(&node->install.step, step, memory_order_release); /* pairs with snapshots' acquire */
}

static struct storage_snapshot for_storage(const struct raft_snapshot *from)
{
    return (struct storage_snapshot){.base = {.index = from->index,
                                              .term = from->term,
                                              .crc = from->block_crc,
                                              .next_position = from->next_position,
                                              .time_ns = from->time_ns},
                                     .bytes = from->bytes,
                                     .checksum = from->checksum};
}

static bool holds(const struct storage_incoming *held, const struct raft_snapshot *snapshot)
{
    return held->snapshot.base.index == snapshot->index && held->snapshot.base.term == snapshot->term &&
           held->snapshot.base.crc == snapshot->block_crc && held->snapshot.checksum == snapshot->checksum &&
           held->snapshot.bytes == snapshot->bytes;
}

/* Tell the leader how much of its snapshot is durable here. */
static void answer(struct node *node, const struct storage_incoming *held)
{
    struct raft_event event = {.type = RAFT_EVENT_INSTALL_STORED, .now_ns = node->now_ns};
    struct raft_result result;
    event.as.install_stored.index = node->install.snapshot.index;
    event.as.install_stored.checksum = node->install.snapshot.checksum;
    event.as.install_stored.offset = holds(held, &node->install.snapshot) ? held->offset : 0;
    node_step(node, &event, &result);
}

static void read_begin(struct node *node)
{
    node->install.error = 0;
    install_step_set(node, NODE_INSTALL_READING);
    node->env.wake(node->env.context, NODE_SNAPSHOTS);
}

void node_snapshots_piece(struct node *node, const struct raft_message *message, const uint8_t *bytes, size_t count)
{
    struct node_install *install = &node->install;
    const struct raft_install *m = &message->as.install;
    struct storage_incoming held;
    if (count > m->snapshot.bytes - m->offset) {
        node->frames_refused++;
        return;
    }
    if (!storage_incoming(node->storage, &held)) return; /* a piece is being stored: acked when it is */
    if (install_step(node) != NODE_INSTALL_NONE && !holds(&held, &m->snapshot)) return; /* one after the other */
    if (install->snapshot.index != m->snapshot.index || install->snapshot.checksum != m->snapshot.checksum)
        node_log(node, NODE_LOG_INFO, "install: index=%llu bytes=%llu held=%llu", (unsigned long long)m->snapshot.index,
                 (unsigned long long)m->snapshot.bytes,
                 (unsigned long long)(holds(&held, &m->snapshot) ? held.offset : 0));
    install->snapshot = m->snapshot;
    struct storage_snapshot snapshot = for_storage(&m->snapshot);
    int rc = storage_install_piece(node->storage, &snapshot, m->offset, bytes, count);
    if (rc == 0) {
        install->storing = true;
        return;
    }
    if (rc == LOCKSTEP_EINVAL) { /* pieces of another length than those that are held */
        node->frames_refused++;
        storage_install_drop(node->storage);
        return;
    }
    answer(node, &held);
    if (held.complete && holds(&held, &install->snapshot) && install_step(node) == NODE_INSTALL_NONE) read_begin(node);
}

/* Snapshots: the whole snapshot into a machine of its own. */
static void install_read(struct node *node)
{
    struct node_install *install = &node->install;
    if (install_step(node) != NODE_INSTALL_READING) return;
    struct lockstep_reader *reader = node_snapshot_reader(node->snapshot_reader, STORAGE_SNAPSHOT_INCOMING);
    install->state = NULL;
    install->error = LOCKSTEP_ENOMEM;
    snprintf(install->why, sizeof install->why, "%s", lockstep_error_text(LOCKSTEP_ENOMEM));
    if (reader != NULL)
        install->error = host_state_read(node->host, reader, &install->state, install->why, sizeof install->why);
    node_snapshot_reader_close(reader);
    install_step_set(node, NODE_INSTALL_READ);
    node->env.wake(node->env.context, NODE_LOOP);
}

static void install_give_up(struct node *node)
{
    host_state_free(node->host, node->install.state);
    node->install.state = NULL;
    storage_install_drop(node->storage);
    install_step_set(node, NODE_INSTALL_NONE);
}

/* Its configuration, checked: what the snapshot says, or the birth record's. */
static bool configuration_of(struct node *node, struct configuration *ret)
{
    const struct host_configuration *from = host_state_configuration(node->install.state);
    if (from->index == 0) {
        *ret = node->identity.birth.configuration;
        return true;
    }
    return from->index <= host_state_base(node->install.state).index &&
           configuration_read(from->bytes, from->count, ret) == 0;
}

/* It is read: does the core still want it? */
static void install_ask(struct node *node)
{
    struct node_install *install = &node->install;
    struct storage_incoming held;
    struct configuration configuration;
    struct raft_event event = {.type = RAFT_EVENT_INSTALL, .now_ns = node->now_ns};
    struct raft_result result;
    if (!storage_incoming(node->storage, &held)) return;
    if (!host_goes_on(node->host)) return; /* a slow machine has not taken the state of the install before yet */
    struct block_base base = held.snapshot.base;
    bool whole = install->error == 0 && held.complete && holds(&held, &install->snapshot);
    if (whole) {
        struct block_base read = host_state_base(install->state);
        whole = read.index == base.index && read.term == base.term && read.crc == base.crc &&
                read.next_position == base.next_position && read.time_ns == base.time_ns &&
                configuration_of(node, &configuration);
    }
    if (!whole) {
        node_log(node, NODE_LOG_WARN, "install given up: index=%llu: %s; it is asked for again",
                 (unsigned long long)base.index,
                 install->error != 0 ? install->why : "the snapshot is not what its sender says that it is");
        install_give_up(node);
        return;
    }
    event.as.install.index = base.index;
    event.as.install.term = base.term;
    node_step(node, &event, &result);
    if (result.error == LOCKSTEP_EUNAVAILABLE) return; /* asked again when the term is durable */
    if (result.error == LOCKSTEP_EPROTO)
        node_fail(
            node, LOCKSTEP_ECORRUPT,
            "a snapshot of block %llu contradicts what is committed here: the group's safety is lost; keep all data "
            "directories as they are and find the damaged one",
            (unsigned long long)base.index);
    if (result.error != 0) {
        install_give_up(node);
        return;
    }
    host_halt(node->host);
    install_step_set(node, NODE_INSTALL_HALTING);
}

static void install_store(struct node *node)
{
    struct storage_incoming held;
    if (!host_halted(node->host) || !storage_incoming(node->storage, &held)) return;
    const struct host_configuration *from = host_state_configuration(node->install.state);
    struct storage_install_configuration configuration = {.index = from->index, .count = from->count};
    static_assert((int)HOST_CONFIGURATION_BYTES_MAX >= (int)CONFIGURATION_BYTES_MAX, "every configuration fits");
    memcpy(configuration.bytes, from->bytes, from->count); /* configuration_read() took it */
    storage_install(node->storage, &configuration);
    install_step_set(node, NODE_INSTALL_STORING);
}

/* It is durable: everything begins anew behind it. */
static void install_finish(struct node *node)
{
    struct node_install *install = &node->install;
    struct configuration configuration;
    struct raft_configuration core;
    struct block_base base;
    struct raft_result result;
    struct raft_event event = {.type = RAFT_EVENT_INSTALLED, .now_ns = node->now_ns};
    struct storage_incoming held;
    if (!storage_incoming(node->storage, &held)) return; /* not yet */
    node_take_and_perform(node); /* what refers to the old log is handed out while it is there */
    ring_epoch_begin(node->ring);
    bool done = storage_install_done(node->storage, &base);
    ring_epoch_end(node->ring, node->ring_term, node->ring_leads);
    if (!done) return;
    bool known = configuration_of(node, &configuration);
    lk_assert(known);
    raft_index configuration_index = host_state_configuration(install->state)->index;
    node_configuration_install(node, configuration_index, &configuration);
    node_configuration_core(&configuration, &core);
    event.as.install.index = base.index;
    event.as.install.term = base.term;
    event.as.install.configuration = &core;
    event.as.install.configuration_index = configuration_index;
    raft_step(node->raft, &event, &result);
    node->base_told = base.index;
    node->proposals.answered = node->proposals.next = base.next_position;
    node->proposals.last_append_ns = node->now_ns;
    host_replace(node->host, install->state);
    install->state = NULL;
    host_commit(node->host, base.index);
    install_step_set(node, NODE_INSTALL_NONE);
    node_log(node, NODE_LOG_INFO, "installed: index=%llu term=%llu bytes=%llu", (unsigned long long)base.index,
             (unsigned long long)base.term, (unsigned long long)install->snapshot.bytes);
}

static void install_turn(struct node *node)
{
    struct node_install *install = &node->install;
    struct storage_incoming held;
    if (install->storing && storage_incoming(node->storage, &held)) {
        install->storing = false;
        answer(node, &held);
        if (held.complete && holds(&held, &install->snapshot)) read_begin(node);
    }
    if (install_step(node) == NODE_INSTALL_READ) install_ask(node);
    if (install_step(node) == NODE_INSTALL_HALTING) install_store(node);
    if (install_step(node) == NODE_INSTALL_STORING) install_finish(node);
}

/* --- the turn ------------------------------------------------------------------------------------------------------ */

static void tell_base(struct node *node, const struct storage_status *status)
{
    if (install_step(node) == NODE_INSTALL_STORING || status->base <= node->base_told) return;
    struct raft_event event = {.type = RAFT_EVENT_COMPACTED, .now_ns = node->now_ns};
    struct raft_result result;
    event.as.compacted.index = node->base_told = status->base;
    node_step(node, &event, &result);
}

/* Lines for people: a snapshot counts; a peer is brought one, or has it. */
static void tell_people(struct node *node, const struct storage_status *status)
{
    if (status->snapshot > node->snapshot_told && install_step(node) != NODE_INSTALL_STORING) {
        node->snapshot_told = status->snapshot;
        node_log(node, NODE_LOG_INFO, "snapshot: index=%llu log_bytes=%llu", (unsigned long long)status->snapshot,
                 (unsigned long long)status->log_bytes);
    }
    if (!raft_is_leader(node->raft)) {
        memset(node->install_told, 0, sizeof node->install_told);
        return;
    }
    struct raft_status raft;
    raft_status_read(node->raft, &raft);
    for (uint32_t i = 0; i < raft.peer_count; i++) {
        unsigned slot = node_slot_of(node, raft.peers[i].id);
        if (slot == RAFT_MEMBERS_MAX) continue;
        raft_index now = raft.peers[i].state == RAFT_PROGRESS_SNAPSHOT ? raft.peers[i].install_index : 0;
        if (now == node->install_told[slot]) continue;
        const char *name = node->options.members[slot].name;
        if (now != 0)
            node_log(node, NODE_LOG_INFO, "snapshot for %s: index=%llu bytes=%llu: it needs blocks up from %llu", name,
                     (unsigned long long)now, (unsigned long long)raft.peers[i].install_bytes,
                     (unsigned long long)raft.peers[i].next);
        else
            node_log(node, NODE_LOG_INFO, "snapshot for %s: done: it holds block %llu", name,
                     (unsigned long long)raft.peers[i].match);
        node->install_told[slot] = now;
    }
}

void node_snapshots_turn(struct node *node)
{
    struct storage_status status;
    install_turn(node);
    storage_status_read(node->storage, &status);
    tell_base(node, &status);
    tell_people(node, &status);
    bool needed = raft_installs_run(node->raft) && status.log_bytes < HOLD_MAX * host_snapshot_interval(node->host);
    host_snapshot_allow(node->host,
                        !needed && !storage_snapshot_busy(node->storage) && install_step(node) == NODE_INSTALL_NONE);
}

/* Snapshots. Long work, in one go: a thread for it alone, so that loads wait for none of it. */
void node_snapshots_work(struct node *node)
{
    install_read(node);
    take(node);
}
