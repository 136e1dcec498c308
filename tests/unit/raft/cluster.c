/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.c - see cluster.h. */
#include "tests/unit/raft/cluster.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"

static const uint64_t MS = 1000000;

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15 + b + 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void *allocate(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    lk_assert(memory != NULL);
    return memory;
}

static uint64_t pack(void *context, raft_index first, raft_index last, uint64_t budget, raft_index *ret_last)
{
    const struct cluster_core *core = context;
    lk_assert(first <= last && last <= core->last);
    if (first < core->ring_first) return 0;
    uint64_t bytes = 0;
    raft_index at = first;
    for (; at <= last && at - first < CLUSTER_ENTRIES_MAX; at++) {
        if (at > first && bytes + core->log[at].bytes > budget) break;
        bytes += core->log[at].bytes;
    }
    *ret_last = at - 1;
    return bytes;
}

struct cluster *cluster_open(uint32_t count, uint32_t learners, uint64_t seed)
{
    lk_assert(count <= CLUSTER_CORES_MAX && learners < count);
    struct cluster *c = allocate(1, sizeof *c);
    c->count = count;
    c->now_ns = 1000 * MS;
    c->contents = seed;
    c->propose_at_once = c->leave_at_once = true;
    c->options = (struct raft_options){
        .election_timeout_ns_min = 300 * MS,
        .heartbeat_ns = 60 * MS,
        .append_bytes_max = 4096,
        .append_inflight_bytes_max = 65536,
        .uncommitted_bytes_max = 1 << 20,
        .random_seed = seed,
        .blocks_pack = pack,
    };
    c->committed = allocate(CLUSTER_BLOCKS_MAX, sizeof *c->committed);
    c->committed_in = allocate(CLUSTER_BLOCKS_MAX, sizeof *c->committed_in);
    c->configuration.count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct cluster_core *core = &c->cores[i];
        core->cluster = c;
        core->id = i + 1;
        core->memory = aligned_alloc(16, (raft_bytes() + 15) & ~(size_t)15);
        lk_assert(core->memory != NULL);
        core->effects = allocate(1, sizeof *core->effects);
        core->log = allocate(CLUSTER_BLOCKS_MAX, sizeof *core->log);
        core->disk = allocate(CLUSTER_BLOCKS_MAX, sizeof *core->disk);
        core->room_bytes = UINT64_MAX;
        c->configuration.members[i].id = core->id;
        c->configuration.members[i].role = i < count - learners ? RAFT_VOTER : RAFT_LEARNER;
    }
    return c;
}

void cluster_leave_out(struct cluster *c, uint32_t count)
{
    lk_assert(count < c->configuration.count);
    c->configuration.count -= count;
}

const struct raft_configuration *cluster_configuration(const struct cluster *c, uint32_t number)
{
    lk_assert(number <= c->configuration_count);
    return number == 0 ? &c->configuration : &c->configurations[number].configuration;
}

uint32_t cluster_configuration_add(struct cluster *c, const struct raft_configuration *configuration, raft_index index,
                                   uint32_t before)
{
    lk_assert(c->configuration_count + 1 < CLUSTER_CONFIGURATIONS_MAX);
    c->configurations[++c->configuration_count] =
        (struct cluster_configuration){.configuration = *configuration, .index = index, .before = before};
    return c->configuration_count;
}

/* What the block at index carries; NULL = nothing. */
static const struct raft_configuration *carried(const struct cluster *c, const struct cluster_block *block,
                                                raft_index index)
{
    bool carries = block->configuration != 0 && c->configurations[block->configuration].index == index;
    return carries ? &c->configurations[block->configuration].configuration : NULL;
}

static bool is_of_birth(const struct cluster *c, raft_member id)
{
    for (uint32_t i = 0; i < c->configuration.count; i++)
        if (c->configuration.members[i].id == id) return true;
    return false;
}

static void forget_pending(struct cluster_core *core)
{
    for (uint32_t i = 0; i < core->pending_count; i++) free(core->pending[i].blocks);
    core->pending_count = 0;
}

void cluster_close(struct cluster *c)
{
    if (c == NULL) return;
    for (uint32_t i = 0; i < c->count; i++) {
        struct cluster_core *core = &c->cores[i];
        forget_pending(core);
        free(core->memory);
        free(core->effects);
        free(core->log);
        free(core->disk);
    }
    while (c->message_count > 0) cluster_drop(c, 0);
    free(c->committed);
    free(c->committed_in);
    free(c);
}

struct cluster_core *cluster_core(struct cluster *c, raft_member id)
{
    lk_assert(id >= 1 && id <= c->count);
    return &c->cores[id - 1];
}

struct raft_status cluster_status(struct cluster *c, raft_member id)
{
    struct raft_status status;
    raft_status_read(cluster_core(c, id)->raft, &status);
    return status;
}

raft_member cluster_leader(struct cluster *c)
{
    raft_member leader = 0;
    raft_term term = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct cluster_core *core = &c->cores[i];
        if (!core->up || !raft_is_leader(core->raft) || raft_current_term(core->raft) < term) continue;
        term = raft_current_term(core->raft);
        leader = core->id;
    }
    return leader;
}

void cluster_lay_log(struct cluster *c, raft_member id, const raft_term *terms, uint32_t count, raft_index commit,
                     struct raft_hard_state hard)
{
    struct cluster_core *core = cluster_core(c, id);
    lk_assert(!core->up && count < CLUSTER_BLOCKS_MAX);
    core->disk_last = count;
    core->disk_commit = commit;
    core->disk_hard = hard;
    for (uint32_t i = 1; i <= count; i++)
        core->disk[i] = (struct cluster_block){
            .term = terms[i - 1], .bytes = 100, .chain = mix(core->disk[i - 1].chain, terms[i - 1])};
}

void cluster_lay_configuration(struct cluster *c, raft_member id, raft_index index, uint32_t configuration)
{
    struct cluster_core *core = cluster_core(c, id);
    lk_assert(!core->up && index <= core->disk_last && c->configurations[configuration].index == index);
    for (raft_index i = index; i <= core->disk_last; i++) core->disk[i].configuration = configuration;
}

static raft_index start_configuration(const struct cluster_core *core, uint32_t number, struct raft_configuration *ret)
{
    const struct cluster *c = core->cluster;
    *ret = (struct raft_configuration){0};
    if (number != 0 || is_of_birth(c, core->id) || core->disk_base > 0) *ret = *cluster_configuration(c, number);
    return number != 0 ? c->configurations[number].index : 0;
}

void cluster_start(struct cluster *c, raft_member id)
{
    struct cluster_core *core = cluster_core(c, id);
    lk_assert(!core->up);
    static struct raft_term_run runs[CLUSTER_BLOCKS_MAX];
    uint32_t run_count = 0;
    core->last = core->disk_last;
    core->commit = core->disk_commit > core->disk_base ? core->disk_commit : core->disk_base;
    core->base = core->disk_base;
    core->ring_first = core->base + 1;
    core->installing = false;
    memcpy(core->log, core->disk, (core->disk_last + 1) * sizeof core->log[0]);
    for (raft_index i = core->base + 1; i <= core->last; i++)
        if (run_count == 0 || runs[run_count - 1].term != core->log[i].term)
            runs[run_count++] = (struct raft_term_run){.first_index = i, .term = core->log[i].term};
    struct raft_options options = c->options;
    options.self = id;
    options.random_seed = mix(c->options.random_seed, mix(id, core->persists));
    options.blocks_context = core;
    struct raft_start start = {
        .hard_state = core->disk_hard,
        .base_index = core->base,
        .base_term = core->log[core->base].term,
        .last_index = core->last,
        .commit = core->commit,
        .promise_ns = c->promise_ns,
        .runs = runs,
        .run_count = run_count,
    };
    uint32_t number = core->log[core->last].configuration;
    start.configuration_index = start_configuration(core, number, &start.configuration);
    if (start.configuration_index > core->commit)
        start.configuration_before_index =
            start_configuration(core, c->configurations[number].before, &start.configuration_before);
    core->raft = raft_open(core->memory, &options, &start, c->now_ns);
    core->up = true;
    core->leads = false;
    memset(core->loads, 0, sizeof core->loads);
    memset(core->pieces, 0, sizeof core->pieces);
    core->reads_ready = core->reads_failed = 0;
    cluster_take(core);
}

void cluster_start_all(struct cluster *c)
{
    for (raft_member id = 1; id <= c->count; id++) cluster_start(c, id);
}

/* One persist reaches the disk. Returns its seq. */
static uint64_t disk_write_oldest(struct cluster_core *core)
{
    lk_assert(core->pending_count > 0);
    struct cluster_persist *one = &core->pending[0];
    if (one->hard_state_due) core->disk_hard = one->hard_state;
    if (one->first != 0) {
        lk_assert(one->first <= core->disk_last + 1); /* storage has no holes */
        memcpy(&core->disk[one->first], one->blocks, (one->last - one->first + 1) * sizeof core->disk[0]);
        core->disk_last = one->last;
    }
    raft_index commit = one->commit < core->disk_last ? one->commit : core->disk_last;
    if (core->disk_commit < commit) core->disk_commit = commit;
    uint64_t seq = one->seq;
    free(one->blocks);
    memmove(one, one + 1, --core->pending_count * sizeof *one);
    return seq;
}

void cluster_crash(struct cluster *c, raft_member id, uint32_t persists_done)
{
    struct cluster_core *core = cluster_core(c, id);
    lk_assert(core->up);
    for (uint32_t i = 0; i < persists_done && core->pending_count > 0; i++) disk_write_oldest(core);
    forget_pending(core);
    core->up = false;
    core->leads = false;
    memset(core->memory, 0xa5, raft_bytes());
    memset(core->log, 0xa5, CLUSTER_BLOCKS_MAX * sizeof core->log[0]);
}

/* ---- what must hold, at every step ---- */

static bool same_block(const struct cluster_block *a, const struct cluster_block *b)
{
    return a->term == b->term && a->chain == b->chain && a->bytes == b->bytes && a->configuration == b->configuration;
}

/* R6: the newest configuration of the log is in force, committed or not. */
static void check_configuration(const struct cluster_core *core)
{
    struct raft_configuration effective;
    raft_configuration_read(core->raft, false, &effective);
    uint32_t number = core->log[core->last].configuration;
    bool of_birth = number != 0 || is_of_birth(core->cluster, core->id);
    if (!of_birth && effective.count == 0) return; /* it joins, and no block and no snapshot has told it */
    lk_assert(raft_configuration_is_same(&effective, cluster_configuration(core->cluster, number)));
}

/* Whether more than half of the voters, of the old ones or of the new ones, have this block on disk. */
static bool half_holds(const struct cluster_core *leader, const struct raft_configuration *configuration, bool of_new,
                       raft_index index)
{
    const struct cluster *c = leader->cluster;
    uint32_t voters = 0, hold = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint8_t role = configuration->members[i].role;
        bool votes =
            role == RAFT_VOTER || (of_new ? role == RAFT_INCOMING : role == RAFT_OUTGOING || role == RAFT_LEAVING);
        if (!votes) continue;
        const struct cluster_core *core = &c->cores[configuration->members[i].id - 1];
        voters++;
        hold += core->disk_last >= index && same_block(&core->disk[index], &leader->log[index]);
    }
    return hold >= voters / 2 + 1;
}

static void check_promise(const struct cluster_core *core, const struct raft_message *m)
{
    struct cluster *c = core->cluster;
    lk_assert(m->term <= core->disk_hard.term); /* R1 */
    raft_member vote_for = 0;
    if (m->type == RAFT_VOTE) vote_for = core->id;
    if (m->type == RAFT_VOTE_REPLY && m->as.vote_reply.granted) vote_for = m->to;
    if (vote_for != 0) {
        lk_assert(core->disk_hard.term == m->term && core->disk_hard.vote == vote_for); /* R7 */
        raft_member *vote = &c->votes[core->id - 1][m->term];
        lk_assert(*vote == 0 || *vote == vote_for); /* one vote a term */
        *vote = vote_for;
    }
    if (m->type == RAFT_INSTALL_ACK) lk_assert(m->as.install_ack.offset <= core->incoming_offset);
    if (m->type == RAFT_ACK && m->as.ack.durable_index > 0) {
        lk_assert(core->disk_hard.term == m->term);
        lk_assert(m->as.ack.durable_index <= core->disk_last); /* R2 */
        lk_assert(same_block(&core->disk[m->as.ack.durable_index], &core->log[m->as.ack.durable_index]));
    }
}

static void check_commit(struct cluster_core *core, raft_index commit, bool leads, raft_term term)
{
    struct cluster *c = core->cluster;
    lk_assert(commit >= core->commit);
    lk_assert(commit <= core->last);
    for (raft_index i = core->commit + 1; i <= commit; i++) {
        if (i <= c->committed_last)
            lk_assert(same_block(&core->log[i], &c->committed[i])); /* committed is final */
        else {
            c->committed[i] = core->log[i];
            c->committed_in[i] = term;
        }
    }
    if (commit > c->committed_last) {
        lk_assert(leads); /* nobody knows before a leader does */
        c->committed_last = commit;
        const struct raft_configuration *now = cluster_configuration(c, core->log[core->last].configuration);
        lk_assert(half_holds(core, now, false, commit) && half_holds(core, now, true, commit));
    }
    core->commit = commit;
}

static void check_leader(const struct cluster_core *core, raft_term term)
{
    struct cluster *c = core->cluster;
    lk_assert(term < CLUSTER_TERMS_MAX);
    lk_assert(c->leaders[term] == 0 || c->leaders[term] == core->id);
    c->leaders[term] = core->id;
    /* leader completeness, for what leaders of earlier terms committed: later ones may be ahead of an old leader */
    raft_index i = c->committed_last;
    while (i > 0 && c->committed_in[i] >= term) i--;
    lk_assert(core->last >= i);
    if (i > 0) lk_assert(same_block(&core->log[i], &c->committed[i]));
}

/* Equal (index, term) means equal logs; checked at the last common index and at the commit. */
static void check_log_matching(const struct cluster_core *core)
{
    const struct cluster *c = core->cluster;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct cluster_core *other = &c->cores[i];
        if (!other->up || other == core) continue;
        raft_index common = core->last < other->last ? core->last : other->last;
        if (common > 0 && core->log[common].term == other->log[common].term)
            lk_assert(core->log[common].chain == other->log[common].chain);
    }
}

static void check_reads(struct cluster_core *core, const struct raft_effects *fx)
{
    struct cluster *c = core->cluster;
    lk_assert(fx->reads_ready >= core->reads_ready && fx->reads_failed >= core->reads_failed);
    uint64_t answered = core->reads_ready > core->reads_failed ? core->reads_ready : core->reads_failed;
    for (uint64_t ticket = answered + 1; ticket <= fx->reads_ready; ticket++) {
        uint64_t need = core->reads_at[ticket % CLUSTER_READS_MAX];
        lk_assert(need > 0);
        lk_assert(fx->reads_index >= need - 1); /* R5 */
        lk_assert(fx->reads_index <= fx->commit);
        c->reads_answered++;
    }
    if (fx->reads_ready > answered) answered = fx->reads_ready;
    if (fx->reads_failed > answered) c->reads_refused += fx->reads_failed - answered;
    core->reads_ready = fx->reads_ready;
    core->reads_failed = fx->reads_failed;
}

/* ---- performing ---- */

static void put_on_network(struct cluster_core *core, const struct raft_send *send)
{
    struct cluster *c = core->cluster;
    raft_member to = send->message.to;
    if (to >= 1 && to <= c->count && c->cut[core->id - 1][to - 1]) return;
    if (c->message_count == CLUSTER_MESSAGES_MAX) return; /* lost, like any message */
    struct cluster_message *m = allocate(1, sizeof *m);
    m->message = send->message;
    if (send->first != 0) {
        lk_assert(send->message.type == RAFT_APPEND);
        lk_assert(send->first == send->message.as.append.previous_index + 1);
        lk_assert(send->last == send->message.as.append.last_index && send->last <= core->last);
        lk_assert(send->loaded || send->first >= core->ring_first);
        m->entry_count = (uint32_t)(send->last - send->first + 1);
        lk_assert(m->entry_count <= CLUSTER_ENTRIES_MAX);
        memcpy(m->blocks, &core->log[send->first], m->entry_count * sizeof m->blocks[0]);
    }
    c->messages[c->message_count++] = m;
}

static void put_on_disk(struct cluster_core *core, const struct raft_effects *fx)
{
    lk_assert(core->pending_count < RAFT_PERSISTS_MAX);
    struct cluster_persist *one = &core->pending[core->pending_count++];
    *one = (struct cluster_persist){
        .seq = fx->persist_seq,
        .hard_state_due = fx->persist_hard_state,
        .hard_state = fx->hard_state,
        .first = fx->persist_first,
        .last = fx->persist_last,
        .commit = fx->commit,
    };
    core->persists++;
    if (one->first == 0) return;
    lk_assert(one->first <= one->last && one->last == core->last);
    one->blocks = allocate(one->last - one->first + 1, sizeof one->blocks[0]);
    memcpy(one->blocks, &core->log[one->first], (one->last - one->first + 1) * sizeof one->blocks[0]);
}

void cluster_take(struct cluster_core *core)
{
    struct cluster *c = core->cluster;
    struct raft_effects *fx = core->effects;
    raft_take(core->raft, c->now_ns, fx);
    raft_check(core->raft);
    if (fx->role == RAFT_LEADER && fx->role_changed) check_leader(core, fx->term);
    check_commit(core, fx->commit, fx->role == RAFT_LEADER, fx->term);
    check_reads(core, fx);
    check_log_matching(core);
    check_configuration(core);
    for (uint32_t i = 0; i < fx->send_count; i++) {
        check_promise(core, &fx->sends[i].message);
        put_on_network(core, &fx->sends[i]);
    }
    if (fx->persist_seq != 0) put_on_disk(core, fx);
    for (uint32_t i = 0; i < fx->load_count; i++) {
        struct raft_load *load = &core->loads[fx->loads[i].peer - 1];
        lk_assert(load->peer == 0 || c->configuration_count > 0); /* one a peer; who came back is asked for anew */
        *load = fx->loads[i];
        lk_assert(load->first <= load->last && load->last <= core->commit);
    }
    for (uint32_t i = 0; i < fx->piece_count; i++) {
        struct raft_piece *piece = &core->pieces[fx->pieces[i].peer - 1];
        lk_assert((piece->peer == 0 || c->configuration_count > 0) && core->base > 0);
        *piece = fx->pieces[i];
    }
    core->deadline_ns = fx->deadline_ns;
    if (c->watch != NULL) c->watch(core, &core->last_result, fx);
    core->last_result = (struct raft_result){0};
    bool leads = fx->role == RAFT_LEADER;
    bool now_leads = leads && !core->leads;
    core->leads = leads;
    bool leave_joint = fx->leave_joint;
    if (now_leads && c->propose_at_once) cluster_propose(core, 64, false);
    if (leave_joint && c->leave_at_once) cluster_leave_joint(core);
}

static struct raft_snapshot snapshot_at(const struct cluster_core *core, raft_index index)
{
    return (struct raft_snapshot){.index = index,
                                  .term = core->log[index].term,
                                  .checksum = (uint32_t)core->log[index].chain,
                                  .bytes = CLUSTER_SNAPSHOT_PIECES};
}

/* A piece comes and is durable at once; one that is not the next is answered with what is held. */
static void keep_piece(struct cluster_core *core, const struct raft_message *m)
{
    const struct raft_install *in = &m->as.install;
    lk_assert(in->snapshot.index > core->commit); /* T38: what is committed is never replaced */
    lk_assert(in->snapshot.index > core->last || core->log[in->snapshot.index].term != in->snapshot.term);
    if (core->installing) return;
    if (core->incoming.index != in->snapshot.index || core->incoming.checksum != in->snapshot.checksum) {
        core->incoming = in->snapshot;
        core->incoming_offset = 0;
    }
    if (in->offset == core->incoming_offset && in->offset < in->snapshot.bytes) core->incoming_offset++;
    core->piece_kept = true;
}

int cluster_step(struct cluster_core *core, struct raft_event *event, bool merge)
{
    struct raft_result result;
    event->now_ns = core->cluster->now_ns;
    raft_step(core->raft, event, &result);
    core->last_error = result.error;
    core->last_result = result;
    if (result.cut != 0) {
        lk_assert(result.cut > core->commit && result.cut <= core->last);
        lk_assert(result.accept_first == result.cut);
    }
    if (result.install) keep_piece(core, event->as.message.message);
    if (result.accept_first != 0) {
        const struct raft_entry *entries = event->as.message.entries;
        const struct cluster_message *m = (const struct cluster_message *)(const void *)event->as.message.message;
        raft_index base = entries[0].index;
        core->last = result.accept_last;
        for (raft_index i = result.accept_first; i <= result.accept_last; i++) core->log[i] = m->blocks[i - base];
    }
    lk_assert(raft_last_index(core->raft) == core->last || event->type == RAFT_EVENT_PROPOSE);
    raft_check(core->raft);
    if (!merge || raft_must_take(core->raft)) cluster_take(core);
    if (core->piece_kept) {
        core->piece_kept = false;
        struct raft_event stored = {.type = RAFT_EVENT_INSTALL_STORED,
                                    .as.install_stored = {.index = core->incoming.index,
                                                          .checksum = core->incoming.checksum,
                                                          .offset = core->incoming_offset}};
        cluster_step(core, &stored, merge);
    }
    return result.error;
}

int cluster_time(struct cluster_core *core)
{
    struct raft_event event = {.type = RAFT_EVENT_TIME};
    int rc = cluster_step(core, &event, false);
    lk_assert(core->deadline_ns > core->cluster->now_ns); /* else its caller would spin */
    return rc;
}

int cluster_propose(struct cluster_core *core, uint32_t bytes, bool merge)
{
    struct cluster *c = core->cluster;
    if (!raft_is_leader(core->raft)) return LOCKSTEP_ENOTLEADER;
    if (!raft_may_propose(core->raft, bytes) || core->last + 1 == CLUSTER_BLOCKS_MAX)
        return cluster_status(c, core->id).transferring ? LOCKSTEP_EUNAVAILABLE : LOCKSTEP_EFULL;
    lk_assert(!cluster_status(c, core->id).transferring); /* T15 */
    uint64_t uncommitted = 0;
    for (raft_index i = core->commit + 1; i <= core->last; i++) uncommitted += core->log[i].bytes;
    bool first_of_term = raft_term_at(core->raft, core->last) != raft_current_term(core->raft);
    lk_assert(first_of_term || uncommitted == 0 || uncommitted + bytes <= c->options.uncommitted_bytes_max); /* R10 */
    raft_index index = core->last + 1;
    core->log[index] = (struct cluster_block){
        .term = raft_current_term(core->raft),
        .bytes = bytes,
        .configuration = core->log[core->last].configuration,
        .chain = mix(core->log[core->last].chain, ++c->contents),
    };
    core->last = index; /* sealed into the ring */
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .as.propose = {.index = index, .bytes = bytes}};
    int rc = cluster_step(core, &event, merge);
    lk_assert(rc == 0);
    lk_assert(raft_last_index(core->raft) == index);
    return 0;
}

static void propose_configuration(struct cluster_core *core, const struct raft_configuration *configuration)
{
    struct cluster *c = core->cluster;
    raft_index index = core->last + 1;
    lk_assert(index < CLUSTER_BLOCKS_MAX);
    core->log[index] = (struct cluster_block){
        .term = raft_current_term(core->raft),
        .bytes = 64,
        .configuration = cluster_configuration_add(c, configuration, index, core->log[core->last].configuration),
        .chain = mix(core->log[core->last].chain, ++c->contents),
    };
    core->last = index;
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE,
                               .as.propose = {.index = index, .bytes = 64, .configuration = configuration}};
    int rc = cluster_step(core, &event, false);
    lk_assert(rc == 0);
    lk_assert(raft_last_index(core->raft) >= index);
}

enum raft_change cluster_change(struct cluster_core *core, const struct raft_configuration *target, bool forced)
{
    struct raft_configuration next;
    raft_member about;
    cluster_take(core); /* what is committed until now is counted by the configuration until now */
    enum raft_change may = raft_change_plan(core->raft, target, forced, &next, &about);
    if (may == RAFT_CHANGE_MAY) propose_configuration(core, &next);
    return may;
}

enum raft_change cluster_change_role(struct cluster_core *core, raft_member id, enum raft_member_role role)
{
    struct raft_configuration target;
    raft_configuration_read(core->raft, false, &target);
    uint32_t at = 0;
    while (at < target.count && target.members[at].id != id) at++;
    if (at == target.count) {
        lk_assert(target.count < RAFT_MEMBERS_MAX);
        target.members[target.count++].priority = 0;
    }
    target.members[at].id = id;
    target.members[at].role = (uint8_t)role;
    if (role == RAFT_LEAVING) target.members[at] = target.members[--target.count];
    return cluster_change(core, &target, false);
}

void cluster_leave_joint(struct cluster_core *core)
{
    struct raft_configuration joint, next;
    raft_configuration_read(core->raft, false, &joint);
    raft_configuration_leave(&joint, &next);
    propose_configuration(core, &next);
}

int cluster_read(struct cluster_core *core, uint64_t *ret_ticket)
{
    struct raft_event event = {.type = RAFT_EVENT_READ, .now_ns = core->cluster->now_ns};
    struct raft_result result;
    raft_step(core->raft, &event, &result);
    if (result.error == 0) core->reads_at[result.read_ticket % CLUSTER_READS_MAX] = core->cluster->committed_last + 1;
    if (ret_ticket != NULL) *ret_ticket = result.read_ticket;
    cluster_take(core);
    return result.error;
}

int cluster_transfer(struct cluster_core *core, raft_member target)
{
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .as.transfer = {.target = target}};
    return cluster_step(core, &event, false);
}

void cluster_disk_done(struct cluster_core *core, bool merge)
{
    struct raft_event event = {.type = RAFT_EVENT_PERSISTED, .as.persisted = {.seq = disk_write_oldest(core)}};
    cluster_step(core, &event, merge);
}

bool cluster_load_done(struct cluster_core *core, bool readable, bool merge)
{
    struct raft_load load = {0};
    for (uint32_t i = 0; i < core->cluster->count && load.peer == 0; i++) {
        load = core->loads[i];
        core->loads[i].peer = 0;
    }
    if (load.peer == 0) return false;
    raft_index last = load.first;
    uint64_t bytes = core->log[last].bytes;
    while (last < load.last && last - load.first + 1 < CLUSTER_ENTRIES_MAX &&
           bytes + core->log[last + 1].bytes <= load.bytes_max)
        bytes += core->log[++last].bytes;
    if (!readable) last = load.first - 1;
    struct raft_event event = {
        .type = RAFT_EVENT_LOADED,
        .as.loaded = {.peer = load.peer, .first = load.first, .last = last, .bytes = bytes},
    };
    cluster_step(core, &event, merge);
    return true;
}

void cluster_compact(struct cluster_core *core, raft_index index)
{
    lk_assert(index <= core->commit && index <= core->disk_last && !core->installing);
    if (index <= core->base) return;
    core->base = core->disk_base = index;
    if (core->disk_commit < index) core->disk_commit = index;
    if (core->ring_first <= index) core->ring_first = index + 1;
    struct raft_event event = {.type = RAFT_EVENT_COMPACTED, .as.compacted = {.index = index}};
    cluster_step(core, &event, false);
}

bool cluster_piece_done(struct cluster_core *core, bool readable, bool merge)
{
    struct raft_piece piece = {0};
    for (uint32_t i = 0; i < core->cluster->count && piece.peer == 0; i++) {
        piece = core->pieces[i];
        core->pieces[i].peer = 0;
    }
    if (piece.peer == 0) return false;
    struct raft_snapshot newest = snapshot_at(core, core->base);
    bool same = piece.index == newest.index && piece.checksum == newest.checksum;
    struct raft_event event = {
        .type = RAFT_EVENT_PIECE,
        .as.piece = {
            .peer = piece.peer, .snapshot = newest, .offset = same ? piece.offset : 0, .bytes = readable ? 1 : 0}};
    cluster_step(core, &event, merge);
    return true;
}

bool cluster_install_step(struct cluster_core *core, bool merge)
{
    struct cluster *c = core->cluster;
    raft_index index = core->incoming.index;
    if (index == 0 || core->incoming_offset < core->incoming.bytes) return false;
    struct raft_event event = {.type = core->installing ? RAFT_EVENT_INSTALLED : RAFT_EVENT_INSTALL,
                               .as.install = {.index = index, .term = core->incoming.term}};
    if (!core->installing) {
        int rc = cluster_step(core, &event, merge);
        if (rc == LOCKSTEP_EUNAVAILABLE) return false;
        lk_assert(rc == 0 || rc == LOCKSTEP_EEXIST);
        core->installing = rc == 0;
        if (rc != 0) core->incoming = (struct raft_snapshot){0};
        return true;
    }
    lk_assert(index <= c->committed_last && core->incoming.checksum == (uint32_t)c->committed[index].chain);
    uint32_t number = c->committed[index].configuration;
    event.as.install.configuration = cluster_configuration(c, number);
    event.as.install.configuration_index = number != 0 ? c->configurations[number].index : 0;
    memcpy(&core->log[1], &c->committed[1], index * sizeof core->log[0]);
    memcpy(&core->disk[1], &c->committed[1], index * sizeof core->disk[0]);
    core->last = core->disk_last = core->commit = core->disk_commit = core->base = core->disk_base = index;
    core->ring_first = index + 1;
    for (uint32_t i = 0; i < core->pending_count; i++) /* blocks ahead of it in the journal are dead */
        core->pending[i].first = 0;
    core->incoming = (struct raft_snapshot){0};
    core->incoming_offset = 0;
    core->installing = false;
    core->installs++;
    cluster_step(core, &event, merge);
    return true;
}

int cluster_deliver(struct cluster *c, uint32_t at, bool keep, bool merge)
{
    lk_assert(at < c->message_count);
    struct cluster_message *m = c->messages[at];
    int rc = 0;
    if (m->message.to >= 1 && m->message.to <= c->count && cluster_core(c, m->message.to)->up) {
        struct cluster_message copy = *m;
        struct cluster_core *core = cluster_core(c, m->message.to);
        struct raft_entry entries[CLUSTER_ENTRIES_MAX];
        for (uint32_t i = 0; i < copy.entry_count; i++)
            entries[i] = (struct raft_entry){
                .index = copy.message.as.append.previous_index + 1 + i,
                .term = copy.blocks[i].term,
                .bytes = copy.blocks[i].bytes,
                .configuration = carried(c, &copy.blocks[i], copy.message.as.append.previous_index + 1 + i),
            };
        struct raft_event event = {
            .type = RAFT_EVENT_MESSAGE,
            .as.message = {.message = &copy.message,
                           .entries = entries,
                           .entry_count = copy.entry_count,
                           .room_bytes = core->room_bytes},
        };
        if (!keep) cluster_drop(c, at);
        rc = cluster_step(core, &event, merge);
    } else if (!keep) {
        cluster_drop(c, at);
    }
    return rc;
}

void cluster_drop(struct cluster *c, uint32_t at)
{
    lk_assert(at < c->message_count);
    free(c->messages[at]);
    memmove(&c->messages[at], &c->messages[at + 1], (--c->message_count - at) * sizeof c->messages[0]);
}

static bool is_message(const struct raft_message *m, raft_member from, raft_member to, enum raft_message_type type)
{
    return m->from == from && m->to == to && m->type == type;
}

const struct raft_message *cluster_sent(const struct cluster *c, raft_member from, raft_member to,
                                        enum raft_message_type type)
{
    for (uint32_t i = c->message_count; i > 0; i--)
        if (is_message(&c->messages[i - 1]->message, from, to, type)) return &c->messages[i - 1]->message;
    return NULL;
}

uint32_t cluster_sent_count(const struct cluster *c, raft_member from, raft_member to, enum raft_message_type type)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->message_count; i++) count += is_message(&c->messages[i]->message, from, to, type);
    return count;
}

void cluster_drop_all(struct cluster *c)
{
    while (c->message_count > 0) cluster_drop(c, c->message_count - 1);
}

void cluster_deliver_to(struct cluster *c, raft_member to)
{
    for (uint32_t i = 0; i < c->message_count;)
        if (c->messages[i]->message.to == to)
            cluster_deliver(c, i, false, false);
        else
            i++;
}

int cluster_inject(struct cluster_core *core, const struct raft_message *message, const struct raft_entry *entries,
                   uint32_t entry_count)
{
    struct cluster_message m = {.message = *message, .entry_count = entry_count};
    uint32_t number =
        entry_count > 0 && entries[0].index <= core->last + 1 ? core->log[entries[0].index - 1].configuration : 0;
    for (uint32_t i = 0; i < entry_count; i++) {
        if (entries[i].configuration != NULL)
            number = cluster_configuration_add(core->cluster, entries[i].configuration, entries[i].index, number);
        m.blocks[i] = (struct cluster_block){.term = entries[i].term,
                                             .bytes = entries[i].bytes,
                                             .configuration = number,
                                             .chain = mix(entries[i].index, entries[i].term)};
    }
    struct raft_event event = {
        .type = RAFT_EVENT_MESSAGE,
        .as.message = {
            .message = &m.message, .entries = entries, .entry_count = entry_count, .room_bytes = core->room_bytes}};
    return cluster_step(core, &event, false);
}

static bool settle_once(struct cluster *c)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct cluster_core *core = &c->cores[i];
        if (!core->up) continue;
        if (core->pending_count > 0) {
            cluster_disk_done(core, false);
            return true;
        }
        if (cluster_load_done(core, true, false)) return true;
        if (cluster_piece_done(core, true, false)) return true;
        if (cluster_install_step(core, false)) return true;
    }
    if (c->message_count == 0) return false;
    int rc = cluster_deliver(c, 0, false, false);
    lk_assert(rc == 0);
    return true;
}

void cluster_settle(struct cluster *c)
{
    uint32_t steps = 0;
    while (settle_once(c)) lk_assert(++steps < 100000); /* it ends, or something echoes for ever */
}

void cluster_elect(struct cluster *c, raft_member id)
{
    struct cluster_core *core = cluster_core(c, id);
    if (c->now_ns < core->deadline_ns) c->now_ns = core->deadline_ns;
    cluster_time(core);
    cluster_settle(c);
    lk_assert(raft_is_leader(core->raft));
    lk_assert(raft_commit_index(core->raft) == core->last);
}

struct cluster *cluster_open_led(uint32_t count)
{
    struct cluster *c = cluster_open(count, 0, 3);
    cluster_start_all(c);
    cluster_elect(c, 1);
    cluster_pass(c, c->options.heartbeat_ns + MS, true);
    return c;
}

void cluster_lead_uncommitted(struct cluster *c)
{
    c->propose_at_once = false;
    for (raft_member id = 1; id <= c->count; id++)
        cluster_lay_log(c, id, (raft_term[]){1}, 1, 0, (struct raft_hard_state){.term = 1});
    cluster_start_all(c);
    c->now_ns += 2 * c->options.election_timeout_ns_min;
    cluster_time(cluster_core(c, 1));
    cluster_settle(c);
    lk_assert(raft_is_leader(cluster_core(c, 1)->raft));
}

void cluster_pass(struct cluster *c, uint64_t ns, bool settle)
{
    uint64_t until = c->now_ns + ns;
    for (;;) {
        struct cluster_core *next = NULL;
        for (uint32_t i = 0; i < c->count; i++)
            if (c->cores[i].up && (next == NULL || c->cores[i].deadline_ns < next->deadline_ns)) next = &c->cores[i];
        if (next == NULL || next->deadline_ns > until) break;
        if (c->now_ns < next->deadline_ns) c->now_ns = next->deadline_ns;
        cluster_time(next);
        if (settle) cluster_settle(c);
    }
    c->now_ns = until;
}
