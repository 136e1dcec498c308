/* SPDX-License-Identifier: Apache-2.0 */
/* test_random.c - cores under random faults, then healed. cluster.c checks safety at every step; this file makes the
 * faults and asks for progress once they stop.
 * Time is virtual: the next thing due happens next. Messages are lost, doubled, delayed past each other; disks are
 * slow; cores crash with any part of their pending writes done, pause, and are cut off, also in one direction only;
 * connections end, with and without a crash behind it;
 * members come as learners, are promoted, demoted, replaced and removed, several at once, leaders too, get and lose
 * priority, and who was removed goes on asking for votes or comes back;
 * rings are full or have lost old blocks; logs are compacted, so that peers need snapshots; reads and transfers run
 * throughout. All drawn from one seed.
 * LOCKSTEP_SEED=N runs that seed alone; LOCKSTEP_SEEDS=N runs N seeds from the usual first one. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;

struct profile {
    uint32_t loss_percent, double_percent, slow_percent; /* of messages */
    uint64_t delay_ns_max, slow_ns_max;
    uint64_t disk_ns_max;
    uint32_t crash_percent, cut_percent, pause_percent, full_percent, hangup_percent, compact_percent; /* of actions */
};

struct world {
    struct cluster *c;
    struct random random;
    struct profile profile;
    uint64_t paused_until_ns[CLUSTER_CORES_MAX];
    uint64_t restart_at_ns[CLUSTER_CORES_MAX];
    uint64_t load_at_ns[CLUSTER_CORES_MAX];
    bool taken[CLUSTER_CORES_MAX]; /* false: steps were merged, a take is due */
    uint64_t action_at_ns;
    bool healed;
    uint32_t change_percent; /* of actions with a leader */
    bool forced;             /* a voter may have been taken that lacks thousands of blocks: all wait for it */
};

/* What all seeds together have seen: a fault that never happened tests nothing. */
static struct {
    uint64_t steps, elections, commits, cuts, loads, crashes, reads, refused_reads, transfers_won, transfers_lost;
    uint64_t full, inflight_max, hangups, compactions, installs;
    uint64_t changes[RAFT_CHANGE_LOSES_QUORUM + 1]; /* by answer */
    uint64_t joints, joints_inherited, configurations_cut, retired, removed_prevotes;
} seen;

static uint64_t draw(struct world *w, uint64_t below)
{
    return random_below(&w->random, below);
}

static bool chance(struct world *w, uint32_t percent)
{
    return draw(w, 100) < percent;
}

static bool is_member(const struct raft_configuration *configuration, raft_member id)
{
    for (uint32_t i = 0; i < configuration->count; i++)
        if (configuration->members[i].id == id) return true;
    return false;
}

static void watch(struct cluster_core *core, const struct raft_result *result, const struct raft_effects *effects)
{
    (void)core;
    if (result->cut != 0) seen.cuts++;
    if (effects->role_changed && effects->role == RAFT_LEADER) seen.elections++;
    struct raft_configuration now;
    raft_configuration_read(core->raft, false, &now);
    bool joint = raft_configuration_is_joint(&now), member = is_member(&now, core->id);
    if (effects->configuration_changed && effects->role == RAFT_LEADER) seen.joints += joint;
    if (effects->configuration_changed && result->cut != 0) seen.configurations_cut++;
    if (effects->role_changed && effects->role == RAFT_LEADER) seen.joints_inherited += joint;
    if (effects->role_changed && effects->role == RAFT_FOLLOWER && core->leads && !member) seen.retired++;
    if (effects->role_changed && effects->role == RAFT_PRECANDIDATE && !member) seen.removed_prevotes++;
    if (effects->transfer_done > 0) seen.transfers_won++;
    if (effects->transfer_done < 0) seen.transfers_lost++;
    for (uint32_t i = 0; i < effects->send_count; i++) {
        const struct raft_message *m = &effects->sends[i].message;
        if (m->type == RAFT_ACK && m->as.ack.full) seen.full++;
    }
}

/* Give what was just put on the network or on a disk its time. */
static void schedule(struct world *w)
{
    struct cluster *c = w->c;
    for (uint32_t i = c->message_count; i > 0 && c->messages[i - 1]->deliver_at_ns == 0; i--) {
        uint64_t delay = 1 + draw(w, w->profile.delay_ns_max);
        if (chance(w, w->profile.slow_percent)) delay += draw(w, w->profile.slow_ns_max);
        c->messages[i - 1]->deliver_at_ns = c->now_ns + delay;
    }
    for (uint32_t i = 0; i < c->count; i++) {
        struct cluster_core *core = &c->cores[i];
        for (uint32_t k = core->pending_count; k > 0 && core->pending[k - 1].done_at_ns == 0; k--)
            core->pending[k - 1].done_at_ns = c->now_ns + 1 + draw(w, w->profile.disk_ns_max);
        bool asked = false;
        for (uint32_t k = 0; k < c->count; k++) asked |= core->loads[k].peer != 0 || core->pieces[k].peer != 0;
        asked |= core->incoming.index != 0 && core->incoming_offset == core->incoming.bytes;
        if (!asked)
            w->load_at_ns[i] = 0;
        else if (w->load_at_ns[i] == 0)
            w->load_at_ns[i] = c->now_ns + 1 + draw(w, w->profile.disk_ns_max);
    }
}

static bool merges(struct world *w, struct cluster_core *core)
{
    bool merge = chance(w, 30);
    w->taken[core->id - 1] = !merge;
    return merge;
}

static void deliver(struct world *w, uint32_t at)
{
    struct cluster *c = w->c;
    struct cluster_message *m = c->messages[at];
    struct cluster_core *core = cluster_core(c, m->message.to);
    if (chance(w, w->profile.loss_percent)) {
        cluster_drop(c, at);
        return;
    }
    bool keep = chance(w, w->profile.double_percent);
    if (m->entry_count > 0 && core->up && chance(w, 5)) { /* its header is here, its body is still coming */
        struct raft_event contact = {
            .type = RAFT_EVENT_CONTACT,
            .as.contact = {.from = m->message.from, .term = m->message.term},
        };
        cluster_step(core, &contact, false);
    }
    if (keep) m->deliver_at_ns = c->now_ns + 1 + draw(w, w->profile.slow_ns_max + 1);
    int rc = core->up ? cluster_deliver(c, at, keep, merges(w, core)) : cluster_deliver(c, at, keep, false);
    lk_assert(rc == 0); /* no core ever sends another what it would not take */
}

static void cut_links(struct world *w)
{
    uint32_t kind = (uint32_t)draw(w, 4);
    memset(w->c->cut, 0, sizeof w->c->cut);
    if (kind == 0) return; /* healed */
    for (uint32_t i = 0; i < w->c->count; i++)
        for (uint32_t k = 0; k < w->c->count; k++) {
            if (kind == 1) w->c->cut[i][k] = (i == draw(w, w->c->count)) != (k == draw(w, w->c->count));
            if (kind == 2) w->c->cut[i][k] = (i % 2) != (k % 2);
            if (kind == 3) w->c->cut[i][k] = chance(w, 30); /* one direction alone is usual */
        }
}

/* A core sees the connection from another one end; it may live or not. */
static void hang_up(struct world *w, struct cluster_core *core, raft_member from)
{
    struct raft_event event = {.type = RAFT_EVENT_HANGUP, .as.hangup = {.from = from}};
    if (!core->up || core->id == from) return;
    if (from == cluster_status(w->c, core->id).leader) seen.hangups++;
    cluster_step(core, &event, merges(w, core));
}

/* Some members, or cores that are none, get another role or priority, or leave; mostly one at a time. */
static void change_members(struct world *w, struct cluster_core *lead)
{
    struct raft_configuration target;
    if (w->c->configuration_count + 2 >= CLUSTER_CONFIGURATIONS_MAX || lead->last >= CLUSTER_BLOCKS_MAX - 64) return;
    raft_configuration_read(lead->raft, false, &target);
    if (raft_configuration_is_joint(&target)) raft_configuration_leave(&target, &target);
    for (uint64_t n = 1 + (chance(w, 30) ? draw(w, 4) : 0); n > 0; n--) {
        raft_member id = 1 + draw(w, w->c->count);
        uint32_t at = 0;
        while (at < target.count && target.members[at].id != id) at++;
        if (at == target.count) {
            target.members[target.count].id = id;
            target.members[target.count].priority = 0;
            target.members[target.count++].role = chance(w, 90) ? RAFT_LEARNER : RAFT_VOTER;
        } else if (chance(w, 15)) {
            target.members[at].priority = (uint8_t)draw(w, 3);
        } else if (target.members[at].role == RAFT_LEARNER && chance(w, 70)) {
            target.members[at].role = RAFT_VOTER;
        } else if (target.members[at].role == RAFT_VOTER && chance(w, 40)) {
            target.members[at].role = RAFT_LEARNER;
        } else if (chance(w, 50)) {
            target.members[at] = target.members[--target.count];
        }
    }
    bool forced = chance(w, 30);
    seen.changes[cluster_change(lead, &target, forced)]++;
    w->forced |= forced;
    w->taken[lead->id - 1] = true;
}

static void act(struct world *w)
{
    struct cluster *c = w->c;
    struct cluster_core *core = &c->cores[draw(w, c->count)];
    uint32_t place = (uint32_t)core->id - 1;
    raft_member leader = cluster_leader(c);
    w->action_at_ns = c->now_ns + 1 + draw(w, w->healed ? 200 * MS : 20 * MS);

    if (leader != 0 && chance(w, 80)) {
        struct cluster_core *lead = cluster_core(c, chance(w, 90) ? leader : core->id);
        if (lead->up && lead->last < CLUSTER_BLOCKS_MAX - 2048)
            for (uint64_t n = draw(w, 20); n > 0 && raft_is_leader(lead->raft); n--)
                cluster_propose(lead, 64 + (uint32_t)draw(w, chance(w, 10) ? 6000 : 400), merges(w, lead));
        if (lead->up && chance(w, 40)) cluster_read(lead, NULL);
        if (lead->up && !w->healed && chance(w, w->change_percent)) change_members(w, lead);
        if (lead->up && !w->healed && chance(w, 2)) cluster_transfer(lead, draw(w, c->count + 1));
    }
    if (w->healed) return;
    if (chance(w, w->profile.cut_percent)) cut_links(w);
    if (chance(w, w->profile.pause_percent)) w->paused_until_ns[place] = c->now_ns + draw(w, 1500 * MS);
    if (chance(w, w->profile.full_percent)) core->room_bytes = chance(w, 50) ? UINT64_MAX : draw(w, 2000);
    if (core->up && chance(w, 10) && core->commit > core->ring_first)
        core->ring_first += draw(w, core->commit - core->ring_first + 1);
    if (core->up && !core->installing && chance(w, w->profile.compact_percent)) {
        raft_index most = core->commit < core->disk_last ? core->commit : core->disk_last;
        if (most > core->base) {
            cluster_compact(core, most - draw(w, most - core->base) / 2);
            seen.compactions++;
        }
    }
    if (chance(w, w->profile.hangup_percent)) hang_up(w, core, 1 + draw(w, c->count));
    if (core->up && chance(w, w->profile.crash_percent)) {
        cluster_crash(c, core->id, (uint32_t)draw(w, core->pending_count + 1));
        w->restart_at_ns[place] = c->now_ns + draw(w, 1000 * MS);
        w->taken[place] = true;
        seen.crashes++;
        for (uint32_t i = 0; i < c->count; i++)
            if (chance(w, 70)) hang_up(w, &c->cores[i], core->id);
    }
}

/* Take what merged steps have left; false if nothing was left. */
static bool end_turns(struct world *w)
{
    bool any = false;
    for (uint32_t i = 0; i < w->c->count; i++) {
        if (!w->taken[i]) cluster_take(&w->c->cores[i]);
        any |= !w->taken[i];
        w->taken[i] = true;
    }
    if (any) schedule(w);
    return any;
}

/* The next thing that is due, of any kind; times of paused cores are moved to the end of their pause. */
static void run_one(struct world *w)
{
    struct cluster *c = w->c;
    enum { ACT, TIME, DISK, LOAD, RESTART, MESSAGE } what = ACT;
    uint64_t due = w->action_at_ns;
    uint32_t which = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        struct cluster_core *core = &c->cores[i];
        uint64_t not_before = w->paused_until_ns[i];
#define CONSIDER(kind, at_ns, place)                                                                                   \
    do {                                                                                                               \
        uint64_t at = (at_ns) > not_before ? (at_ns) : not_before;                                                     \
        if (at < due) due = at, what = (kind), which = (place);                                                        \
    } while (0)
        if (!core->up) {
            CONSIDER(RESTART, w->restart_at_ns[i], i);
            continue;
        }
        CONSIDER(TIME, core->deadline_ns, i);
        if (core->pending_count > 0) CONSIDER(DISK, core->pending[0].done_at_ns, i);
        if (w->load_at_ns[i] != 0) CONSIDER(LOAD, w->load_at_ns[i], i);
    }
    for (uint32_t i = 0; i < c->message_count; i++) {
        uint64_t not_before = w->paused_until_ns[c->messages[i]->message.to - 1];
        CONSIDER(MESSAGE, c->messages[i]->deliver_at_ns, i);
    }
#undef CONSIDER
    if (c->now_ns < due && end_turns(w)) return; /* what the takes bring may be due earlier */
    if (c->now_ns < due) c->now_ns = due;
    struct cluster_core *core = &c->cores[what == MESSAGE ? 0 : which]; /* else it is the place of a message */
    switch (what) {
    case ACT: act(w); break;
    case TIME: cluster_time(core); break;
    case DISK: cluster_disk_done(core, merges(w, core)); break;
    case LOAD:
        seen.loads++;
        w->load_at_ns[which] = 0;
        cluster_load_done(core, chance(w, 80) || w->healed, false);
        cluster_piece_done(core, chance(w, 80) || w->healed, merges(w, core));
        cluster_install_step(core, merges(w, core));
        break;
    case RESTART: cluster_start(c, core->id); break;
    case MESSAGE: deliver(w, which); break;
    }
    schedule(w);
    seen.steps++;
}

static void run_until(struct world *w, uint64_t until_ns)
{
    while (w->c->now_ns < until_ns) run_one(w);
}

static void heal(struct world *w)
{
    w->healed = true;
    w->profile = (struct profile){.delay_ns_max = 2 * MS, .slow_ns_max = 1, .disk_ns_max = 2 * MS};
    memset(w->c->cut, 0, sizeof w->c->cut);
    for (uint32_t i = 0; i < w->c->count; i++) {
        w->paused_until_ns[i] = 0;
        w->restart_at_ns[i] = w->c->now_ns;
        w->c->cores[i].room_bytes = UINT64_MAX;
        for (uint32_t k = 0; k < w->c->cores[i].pending_count; k++) {
            uint64_t soon = w->c->now_ns + MS;
            if (w->c->cores[i].pending[k].done_at_ns > soon) w->c->cores[i].pending[k].done_at_ns = soon;
        }
    }
}

/* Somebody leads and takes proposals, within `ns`; a hand-over to a voter of higher priority may run for a moment. */
static struct cluster_core *await_leader(struct world *w, uint64_t ns)
{
    struct cluster *c = w->c;
    uint64_t until = c->now_ns + ns;
    raft_member leader = cluster_leader(c);
    while (c->now_ns < until && (leader == 0 || !cluster_status(c, leader).writable)) {
        run_until(w, c->now_ns + 20 * MS);
        leader = cluster_leader(c);
    }
    lk_assert(leader != 0 && cluster_status(c, leader).writable);
    return cluster_core(c, leader);
}

/* One proposal and one read; false if the leader handed over meanwhile. */
static bool goes_on(struct world *w, struct cluster_core *lead)
{
    uint64_t ticket;
    lk_assert(cluster_propose(lead, 100, false) == 0);
    lk_assert(cluster_read(lead, &ticket) == 0);
    schedule(w);
    run_until(w, w->c->now_ns + 500 * MS);
    if (!cluster_status(w->c, lead->id).writable) return false;
    lk_assert(lead->reads_ready == ticket);
    return true;
}

static void check_progress(struct world *w)
{
    struct cluster *c = w->c;
    heal(w);
    /* a few timeouts for an election, then everybody catches up at one append a round trip at worst */
    run_until(w, c->now_ns + 6000 * MS);
    await_leader(w, w->forced ? 60000 * MS : 400 * MS);
    w->action_at_ns = UINT64_MAX / 2; /* nothing new comes in */
    run_until(w, c->now_ns + 2000 * MS);
    struct cluster_core *lead = await_leader(w, 400 * MS);
    while (!goes_on(w, lead)) lead = await_leader(w, 1000 * MS);
    struct raft_configuration members;
    raft_configuration_read(lead->raft, true, &members);
    lk_assert(cluster_status(c, lead->id).configuration_index <= lead->commit &&
              !raft_configuration_is_joint(&members));
    for (uint32_t i = 0; i < c->count; i++) {
        if (!is_member(&members, i + 1)) continue;
        lk_assert(c->cores[i].last == lead->last);
        lk_assert(c->cores[i].commit == lead->last);
        lk_assert(c->cores[i].disk_last == lead->last);
        lk_assert(c->cores[i].disk[lead->last].chain == lead->log[lead->last].chain);
    }
}

static void run_seed(uint64_t seed, uint64_t steps)
{
    static const uint32_t counts[] = {3, 3, 5, 5, 3, 5, 1, 4, 2};
    struct world w = {0};
    random_seed(&w.random, seed);
    uint32_t count = counts[draw(&w, sizeof counts / sizeof counts[0])];
    uint32_t learners = count > 2 && chance(&w, 20) ? 1 : 0;
    uint32_t waiting = chance(&w, 60) ? (uint32_t)draw(&w, CLUSTER_CORES_MAX - count + 1) : 0; /* to become members */
    w.change_percent = waiting > 0 || chance(&w, 20) ? 1 + (uint32_t)draw(&w, 15) : 0;
    count += waiting;
    bool calm = chance(&w, 25); /* few faults: long pipelines, many commits */
    w.profile = (struct profile){
        .loss_percent = calm ? 1 : (uint32_t)draw(&w, 20),
        .double_percent = (uint32_t)draw(&w, 10),
        .slow_percent = calm ? 1 : (uint32_t)draw(&w, 20),
        .delay_ns_max = 1 + draw(&w, calm ? 5 * MS : 50 * MS),
        .slow_ns_max = 1 + draw(&w, 900 * MS),
        .disk_ns_max = 1 + draw(&w, chance(&w, 30) ? 200 * MS : 5 * MS),
        .crash_percent = calm ? 0 : (uint32_t)draw(&w, 4),
        .cut_percent = calm ? 0 : (uint32_t)draw(&w, 4),
        .pause_percent = calm ? 0 : (uint32_t)draw(&w, 3),
        .full_percent = (uint32_t)draw(&w, 5),
        .hangup_percent = calm ? 0 : (uint32_t)draw(&w, 10),
        .compact_percent = chance(&w, 50) ? (uint32_t)draw(&w, 20) : 0,
    };
    w.c = cluster_open(count, learners > 0 ? learners + waiting : 0, seed);
    if (waiting > 0) cluster_leave_out(w.c, waiting);
    w.c->watch = watch;
    if (chance(&w, 50)) w.c->options.uncommitted_bytes_max = 4000 + draw(&w, 30000);
    if (chance(&w, 50)) w.c->options.append_inflight_bytes_max = 1000 + draw(&w, 20000);
    if (chance(&w, 50)) w.c->options.lease_ns = w.c->options.election_timeout_ns_min; /* one clock: nothing drifts */
    for (uint32_t i = 0; i < count; i++) {
        w.taken[i] = true;
        cluster_start(w.c, i + 1);
    }
    for (uint64_t i = 0; i < steps; i++) run_one(&w);
    check_progress(&w);
    seen.commits += w.c->committed_last;
    seen.reads += w.c->reads_answered;
    seen.refused_reads += w.c->reads_refused;
    for (uint32_t i = 0; i < count; i++) {
        seen.installs += w.c->cores[i].installs;
        struct raft_status status = cluster_status(w.c, i + 1);
        if (seen.inflight_max < status.appends_inflight_max) seen.inflight_max = status.appends_inflight_max;
    }
    cluster_close(w.c);
}

static char running[64];

/* An assertion in a core or in the cluster aborts: say which seed it was. */
static void say_seed(int signal)
{
    (void)signal;
    ssize_t written = write(STDERR_FILENO, running, strlen(running));
    (void)written;
}

START_TEST(cores_stay_safe_under_faults_and_go_on_after_them)
{
    const char *one = getenv("LOCKSTEP_SEED"), *many = getenv("LOCKSTEP_SEEDS");
    uint64_t first = unit_seed(0x10ad);
    signal(SIGABRT, say_seed);
    uint64_t seeds = one != NULL ? 1 : many != NULL ? strtoull(many, NULL, 0) : unit_rounds(200);
    for (uint64_t i = 0; i < seeds; i++) {
        snprintf(running, sizeof running, "replay with LOCKSTEP_SEED=0x%" PRIx64 "\n", first + i);
        run_seed(first + i, 12000);
    }
    printf("steps %" PRIu64 ", elections %" PRIu64 ", committed %" PRIu64 ", cuts %" PRIu64 ", loads %" PRIu64
           ", crashes %" PRIu64 ", reads %" PRIu64 " + %" PRIu64 " refused, transfers %" PRIu64 " + %" PRIu64
           " failed, full %" PRIu64 ", in flight at most %" PRIu64 ", hang-ups of leaders %" PRIu64
           ", compactions %" PRIu64 ", installs %" PRIu64 "\n",
           seen.steps, seen.elections, seen.commits, seen.cuts, seen.loads, seen.crashes, seen.reads,
           seen.refused_reads, seen.transfers_won, seen.transfers_lost, seen.full, seen.inflight_max, seen.hangups,
           seen.compactions, seen.installs);
    printf("changes %" PRIu64 ", joint %" PRIu64 ", inherited %" PRIu64 ", cut %" PRIu64 ", leaders retired %" PRIu64
           ", removed that asked %" PRIu64 "; refused: not yet %" PRIu64 ", runs %" PRIu64 ", no learner %" PRIu64
           ", lags %" PRIu64 ", loses the quorum %" PRIu64 "\n",
           seen.changes[RAFT_CHANGE_MAY], seen.joints, seen.joints_inherited, seen.configurations_cut, seen.retired,
           seen.removed_prevotes, seen.changes[RAFT_CHANGE_NOT_YET], seen.changes[RAFT_CHANGE_RUNS],
           seen.changes[RAFT_CHANGE_NO_LEARNER], seen.changes[RAFT_CHANGE_LAGS],
           seen.changes[RAFT_CHANGE_LOSES_QUORUM]);
    if (seeds < 20) return;
    ck_assert(seen.elections > 0 && seen.cuts > 0 && seen.loads > 0 && seen.crashes > 0);
    ck_assert(seen.reads > 0 && seen.refused_reads > 0 && seen.transfers_won > 0 && seen.transfers_lost > 0);
    ck_assert(seen.full > 0 && seen.inflight_max > 1 && seen.hangups > 0);
    ck_assert(seen.compactions > 0 && seen.installs > 0);
    if (seeds < 200) return;
    ck_assert(seen.joints > 0 && seen.joints_inherited > 0 && seen.configurations_cut > 0 && seen.retired > 0);
    ck_assert(seen.removed_prevotes > 0);
    for (int i = 0; i <= RAFT_CHANGE_LOSES_QUORUM; i++) ck_assert(seen.changes[i] > 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, cores_stay_safe_under_faults_and_go_on_after_them);
}

int main(void)
{
    return unit_main("raft random", add);
}
