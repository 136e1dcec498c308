/* SPDX-License-Identifier: Apache-2.0 */
/* explore.c - every interleaving of a small cluster of real cores, within bounds.
 *   explore [--short] [--run NAME] [--bounds WORDS] [--states-max N] [--plant vote|flush]
 * Exit: 0 all was explored to its end and no rule was broken; 1 a rule is broken, the path to it was printed; 2 not all
 * was explored (states-max), or usage. With --plant, a bug of the disk: 0 if it is found, 1 if not.
 *
 * A state is the members' states (local.h), the packets on the network, what was ever promised (leaders, committed
 * blocks, reads that wait) and how many faults are left. From each state every event that can happen next is tried:
 * any packet is delivered, in any order, once or (a fault) twice; any disk completes its oldest persist; any member
 * crashes with any part of its persists done and starts again; any timer ends. A packet that is lost is one that is never
 * delivered, so loss needs no event of its own. States are visited in the order of their distance from the start: the
 * path that is printed is a shortest one.
 *
 * Checked after each event, beside what local.h lists: one leader a term; a leader holds all that was committed before
 * its term; equal (index, term) means equal logs before it, in memory and on disks; what was committed stays committed
 * everywhere; what is committed is durable on a majority; a read sees all that was committed when it was asked (R5).
 *
 * Left out of the network, because they change nothing and never will: answers to a term that is durably over where they
 * go; at the end each is delivered to each state that there was, to be sure. A delivery that changes nothing is not tried.
 * Source: model checking of real code after MODIST and TLC's state hashing; states are told apart by 128-bit hashes. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "tests/explore/intern.h"
#include "tests/explore/local.h"
#include "tests/scenario/show.h"

enum { PACKETS_MAX = 96 };

enum fault { FAULT_CRASH, FAULT_REPEAT, FAULT_QUORUM_LOST, FAULT_READ, FAULT_TRANSFER, FAULT_CHANGE, FAULTS };

static const char *const fault_names[FAULTS] = {"crash=", "repeat=", "quorum-lost=", "read=", "transfer=", "change="};

/* Bounds are words:
 *   elected        member 1 leads term 1, its first block is committed, nothing is on its way; else all starts empty
 *   logs=T/T/T     or with these terms of blocks on the members' disks: 12/1/13; nothing of it is known to be committed
 *   lease          pre-votes are messages, and who heard a leader refuses until time passes; else pre-votes always succeed
 *   terms=N blocks=N rounds=N   nobody campaigns, nothing is proposed, no heartbeat is sent beyond
 *   quiet          the first heartbeats of a new leader are lost
 *   crash=N repeat=N quorum-lost=N read=N transfer=N   so many of each, at any moment
 *   change=VVV>VV- one change of the configuration, from and to: V voter, L learner, - no member
 * level: 0 also where all is slow; 1 also in the short form; 2 in the full set. */
static const struct bounds {
    const char *name, *words;
    unsigned level;
} all_bounds[] = {
    {"birth", "terms=1 blocks=2 crash=1", 0},
    {"two-terms", "elected terms=2 blocks=2", 0},
    {"three-terms", "elected terms=3 blocks=1", 0},
    {"crash", "elected terms=2 blocks=2 crash=1", 1},
    {"quorum-lost", "elected terms=2 blocks=2 quorum-lost=1", 1},
    {"replaced", "elected terms=2 blocks=2 change=VVL>V-V", 1},
    {"removed-crash", "elected terms=2 blocks=1 change=VVV>VV- crash=1", 1},
    {"new-heartbeats", "elected terms=2 blocks=2 rounds=1", 1},
    {"replaced-cut", "elected terms=3 blocks=1 change=VVL>V-V", 1},
    {"crash-of-three", "elected terms=3 blocks=1 crash=1", 2},
    {"two-crashes", "elected terms=2 blocks=2 crash=2", 2},
    {"repeated", "elected terms=2 blocks=2 crash=1 repeat=1", 2},
    {"three-blocks", "elected terms=2 blocks=3", 2},
    {"uneven", "logs=111/12/12 terms=4", 2},
    {"heartbeats", "terms=1 blocks=2 rounds=1", 2},
    {"reads", "elected quiet terms=2 blocks=1 rounds=2 read=1", 2},
    {"transfer", "elected terms=2 blocks=2 transfer=1", 2},
    {"leases", "terms=1 blocks=1 lease", 2},
    {"removed", "elected terms=2 blocks=2 change=VVV>VV-", 2},
    {"leader-removed", "elected terms=2 blocks=2 change=VVV>-VV", 2},
    {"promoted-crash", "elected terms=2 blocks=1 change=VVL>VVV crash=1", 2},
};

struct run {
    const char *name;
    bool elected, lease, quiet;
    bool symmetric; /* members are alike: states that differ in their names alone are one */
    uint32_t members, terms, blocks, rounds;
    uint8_t faults[FAULTS];
    char configuration[LOCAL_MEMBERS_MAX + 1], target[LOCAL_MEMBERS_MAX + 1];
    char logs[LOCAL_MEMBERS_MAX * (LOCAL_BLOCKS_MAX + 1)];
};

struct global {
    uint32_t members[LOCAL_MEMBERS_MAX];
    uint8_t left[FAULTS];
    uint8_t leaders[LOCAL_TERMS_MAX]; /* by term */
    uint8_t committed_last;
    struct {
        uint8_t term, in; /* of the block; by a leader of which term */
    } committed[LOCAL_BLOCKS_MAX + 1];
    uint8_t read_needs[LOCAL_MEMBERS_MAX]; /* the commit that the waiting read has to see, + 1 */
    uint16_t packet_count;
    uint32_t packets[PACKETS_MAX]; /* ascending; the same packet twice is one */
};

struct action {
    uint8_t type; /* enum local_event_type */
    uint8_t member;
    bool keep; /* the packet stays on its way too */
    uint32_t argument;
};

struct record {
    struct hash128 hash;
    uint32_t before; /* the state that it was first reached from; its own number: a start */
    uint32_t action; /* packed */
};

static struct run run;
static uint32_t states_max = UINT32_MAX - 1;
static struct record *records;
static uint32_t record_count, records_max;
static uint32_t *table, table_size; /* number + 1 */
static struct global start_state;
static struct action prologue[256]; /* from empty members to the start */
static uint32_t prologue_count;
static uint32_t start_renaming;

/* What is being tried now. */
static uint32_t from_number;
static struct action action_now;
static bool is_reporting;

/* ---- states that wait to be expanded, oldest first ---- */

enum { CHUNK_BYTES = 1 << 22 };
struct chunk {
    struct chunk *next;
    uint32_t used;
    uint8_t bytes[CHUNK_BYTES];
};
static struct chunk *oldest, *newest;
static uint32_t read_at;

static uint32_t bytes_of(const struct global *g)
{
    return (uint32_t)(offsetof(struct global, packets) + g->packet_count * sizeof g->packets[0]);
}

static void push(const struct global *g)
{
    uint32_t bytes = bytes_of(g);
    if (newest == NULL || newest->used + bytes > CHUNK_BYTES) {
        struct chunk *c = explore_resize(NULL, sizeof *c);
        c->next = NULL;
        c->used = 0;
        if (newest != NULL)
            newest->next = c;
        else
            oldest = c;
        newest = c;
    }
    memcpy(newest->bytes + newest->used, g, bytes);
    newest->used += bytes;
}

static bool pop(struct global *ret)
{
    if (oldest != NULL && read_at == oldest->used) {
        struct chunk *done = oldest;
        oldest = oldest->next;
        if (oldest == NULL) newest = NULL;
        free(done);
        read_at = 0;
    }
    if (oldest == NULL) return false;
    memcpy(ret, oldest->bytes + read_at, offsetof(struct global, packets));
    memcpy(ret->packets, oldest->bytes + read_at + offsetof(struct global, packets),
           ret->packet_count * sizeof ret->packets[0]);
    read_at += bytes_of(ret);
    return true;
}

/* ---- states that were seen ---- */

static uint32_t pack_action(struct action a)
{
    lk_assert(a.argument < 1u << 24 && a.member < 4 && a.type < 32);
    return (uint32_t)a.type << 27 | (uint32_t)a.member << 25 | (uint32_t)a.keep << 24 | a.argument;
}

static struct action unpack_action(uint32_t packed)
{
    return (struct action){.type = (uint8_t)(packed >> 27),
                           .member = packed >> 25 & 3,
                           .keep = packed >> 24 & 1,
                           .argument = packed & 0xffffff};
}

static uint32_t slot_of(struct hash128 hash)
{
    uint32_t at = (uint32_t)hash.low & (table_size - 1);
    while (table[at] != 0) {
        const struct record *r = &records[table[at] - 1];
        if (r->hash.low == hash.low && r->hash.high == hash.high) break;
        at = (at + 1) & (table_size - 1);
    }
    return at;
}

static void grow_table(void)
{
    table_size = table_size == 0 ? 1 << 16 : table_size * 2;
    free(table);
    table = explore_allocate(table_size * sizeof table[0]);
    for (uint32_t i = 0; i < record_count; i++) table[slot_of(records[i].hash)] = i + 1;
}

static void add_packet(struct global *g, uint32_t packet)
{
    uint32_t at = g->packet_count;
    while (at > 0 && g->packets[at - 1] > packet) at--;
    if (at > 0 && g->packets[at - 1] == packet) return;
    lk_assert(g->packet_count < PACKETS_MAX);
    memmove(&g->packets[at + 1], &g->packets[at], (g->packet_count - at) * sizeof g->packets[0]);
    g->packets[at] = packet;
    g->packet_count++;
}

/* ---- one state for all that differ in the members' names alone ---- */

static void rename_state(const struct global *g, uint32_t renaming, struct global *ret)
{
    const uint8_t *to = local_renamings[renaming];
    memcpy(ret, g, bytes_of(g));
    for (uint32_t i = 0; i < run.members; i++) {
        ret->members[to[i]] = local_rename(g->members[i], renaming);
        ret->read_needs[to[i]] = g->read_needs[i];
    }
    for (uint32_t i = 0; i < LOCAL_TERMS_MAX; i++)
        if (g->leaders[i] != 0) ret->leaders[i] = to[g->leaders[i] - 1] + 1;
    ret->packet_count = 0;
    for (uint32_t i = 0; i < g->packet_count; i++) add_packet(ret, local_rename_packet(g->packets[i], renaming));
}

static int compare_members(const struct global *a, uint32_t renaming_a, const struct global *b, uint32_t renaming_b)
{
    uint32_t x[LOCAL_MEMBERS_MAX], y[LOCAL_MEMBERS_MAX];
    for (uint32_t i = 0; i < run.members; i++) {
        x[local_renamings[renaming_a][i]] = local_rename(a->members[i], renaming_a);
        y[local_renamings[renaming_b][i]] = local_rename(b->members[i], renaming_b);
    }
    return memcmp(x, y, run.members * sizeof x[0]);
}

/* Give g the names that stand for all: the smallest. Returns the renaming. */
static uint32_t make_canonical(struct global *g)
{
    static struct global best, other;
    uint32_t renaming = 0;
    if (!run.symmetric) return 0;
    for (uint32_t i = 1; i < LOCAL_RENAMINGS; i++) {
        int order = compare_members(g, i, g, renaming);
        if (order > 0) continue;
        if (order == 0) { /* members that are alike: what else there is decides */
            rename_state(g, renaming, &best);
            rename_state(g, i, &other);
            if (bytes_of(&best) != bytes_of(&other) || memcmp(&other, &best, bytes_of(&best)) >= 0) continue;
        }
        renaming = i;
    }
    if (renaming == 0) return 0;
    rename_state(g, renaming, &best);
    memcpy(g, &best, bytes_of(&best));
    return renaming;
}

static void visit(const struct global *g)
{
    if (record_count / 3 >= table_size / 4) grow_table();
    struct hash128 hash = hash_bytes(g, bytes_of(g));
    uint32_t at = slot_of(hash);
    if (table[at] != 0) return;
    if (record_count == records_max) {
        records_max = records_max == 0 ? 1 << 16 : records_max + records_max / 2;
        records = explore_resize(records, records_max * sizeof records[0]);
    }
    records[record_count++] = (struct record){.hash = hash, .before = from_number, .action = pack_action(action_now)};
    table[at] = record_count;
    push(g);
}

/* ---- saying what was found ---- */

static void show_action(FILE *out, struct action a)
{
    static const char *const names[] = {
        [LOCAL_DISK] = "disk",           [LOCAL_CRASH] = "crash",
        [LOCAL_TIMEOUT] = "timeout",     [LOCAL_STALE] = "the leader is not heard for a while at",
        [LOCAL_HEARTBEAT] = "heartbeat", [LOCAL_QUORUM_LOST] = "no majority is heard by",
        [LOCAL_PROPOSE] = "propose",     [LOCAL_READ] = "read",
        [LOCAL_TRANSFER] = "transfer",   [LOCAL_CHANGE] = "change the configuration at",
    };
    if (a.type == LOCAL_DELIVER) {
        const struct raft_message *m = &local_packet_of(a.argument)->message;
        fprintf(out, "> %s %" PRIu64 ">%" PRIu64 " ", a.keep ? "repeat" : "deliver", m->from, m->to);
        show_message(out, m);
        return;
    }
    fprintf(out, "> %s %u", names[a.type], a.member + 1u);
    if (a.type == LOCAL_CRASH) fprintf(out, " with %u persists done, start %u", a.argument, a.member + 1u);
    if (a.type == LOCAL_TRANSFER) fprintf(out, " %u", a.argument);
    fprintf(out, "\n");
}

static void show_member(FILE *out, const struct local_view *v)
{
    fprintf(out, "  %u %s term %u, last %u commit %u, log", v->id, show_role(v->role), v->term, v->last, v->commit);
    for (uint32_t k = 1; k <= v->last; k++) fprintf(out, " %u", v->log[k].term);
    fprintf(out, "; durable: term %u, log", v->durable_term);
    for (uint32_t k = 1; k <= v->disk_last; k++) fprintf(out, " %u", v->disk[k].term);
    fprintf(out, "\n");
}

static struct local_event event_of(struct action a)
{
    return (struct local_event){.type = a.type, .argument = a.argument};
}

static void show_taken(FILE *out, uint32_t *members, struct action a)
{
    show_action(out, a);
    local_replay(members[a.member], event_of(a), out);
    members[a.member] = local_step(members[a.member], event_of(a))->after;
}

static bool take_action(const struct global *g, struct action a, struct global *ret);

/* How the members of the path are called in one of its states: that of the state is shown[i] of the path. */
static uint32_t renaming_of(const uint8_t *shown)
{
    uint32_t renaming = 0;
    while (memcmp(local_renamings[renaming], shown, 3) != 0) renaming++;
    return renaming;
}

static struct action shown_action(struct action a, const uint8_t *shown)
{
    if (!run.symmetric) return a;
    a.argument = local_rename_event(event_of(a), renaming_of(shown)).argument;
    a.member = shown[a.member];
    return a;
}

/* The path to the broken rule, as a transcript. aborted: the last action cannot be run again. */
static void report(const char *rule, bool aborted)
{
    static struct global g, next;
    struct action last = action_now;
    uint32_t members[LOCAL_MEMBERS_MAX], *path = NULL, length = 0;
    uint8_t shown[LOCAL_MEMBERS_MAX] = {0, 1, 2, 3}, before[LOCAL_MEMBERS_MAX];
    is_reporting = true;
    for (uint32_t at = from_number; record_count > 0 && records[at].before != at; at = records[at].before) {
        path = explore_resize(path, (length + 1) * sizeof path[0]);
        path[length++] = records[at].action;
    }
    printf("# %s: broken: %s\n# after %u steps from the start:\n", run.name, rule, length + 1);
    for (uint32_t i = 0; i < run.members; i++) members[i] = local_first(i + 1);
    for (uint32_t i = 0; i < prologue_count; i++) show_taken(stdout, members, prologue[i]);
    printf("# the start\n");
    for (uint32_t i = 0; i < run.members; i++) show_member(stdout, local_view_of(members[i]));
    memcpy(&g, &start_state, sizeof g);
    for (uint32_t renaming = start_renaming;;) {
        memcpy(before, shown, sizeof before);
        for (uint32_t i = 0; run.symmetric && i < run.members; i++) shown[local_renamings[renaming][i]] = before[i];
        if (length == 0) break;
        struct action a = unpack_action(path[--length]);
        show_taken(stdout, members, shown_action(a, shown));
        take_action(&g, a, &next);
        renaming = make_canonical(&next);
        memcpy(&g, &next, sizeof g);
    }
    if (aborted)
        show_action(stdout, shown_action(last, shown));
    else
        show_taken(stdout, members, shown_action(last, shown));
    printf("# broken: %s\n", rule);
    for (uint32_t i = 0; i < run.members; i++) show_member(stdout, local_view_of(members[i]));
    fflush(stdout);
    free(path);
}

static bool is_planted; /* then a broken rule is what is wanted */

static void broken(const char *rule)
{
    report(rule, false);
    exit(is_planted ? 0 : 1);
}

/* An assertion of the core itself. */
static void on_abort(int signal)
{
    (void)signal;
    if (!is_reporting) report("an assertion of the core; it stands above", true);
    fflush(stdout);
    _exit(is_planted ? 0 : 1);
}

/* ---- what must hold ---- */

static bool same_log(const struct local_block *a, const struct local_block *b, uint8_t last)
{
    return memcmp(a + 1, b + 1, last * sizeof a[0]) == 0;
}

static bool logs_match(const struct local_block *a, uint8_t a_last, const struct local_block *b, uint8_t b_last)
{
    uint8_t at = a_last < b_last ? a_last : b_last;
    while (at > 0 && a[at].term != b[at].term) at--;
    return same_log(a, b, at);
}

static void check_matching(const struct global *g, uint32_t member)
{
    const struct local_view *v = local_view_of(g->members[member]);
    if (!logs_match(v->log, v->last, v->disk, v->disk_last)) broken("log matching: memory and disk of one member");
    for (uint32_t i = 0; i < run.members; i++) {
        if (i == member) continue;
        const struct local_view *other = local_view_of(g->members[i]);
        if (!logs_match(v->log, v->last, other->log, other->last) ||
            !logs_match(v->log, v->last, other->disk, other->disk_last) ||
            !logs_match(v->disk, v->disk_last, other->log, other->last) ||
            !logs_match(v->disk, v->disk_last, other->disk, other->disk_last))
            broken("log matching: equal index and term, different logs before it");
    }
}

static bool holds(const struct local_view *v, const struct global *g, uint8_t index)
{
    return v->last >= index && v->log[index].term == g->committed[index].term;
}

static void check_leader(struct global *g, const struct local_view *v)
{
    if (g->leaders[v->term] != 0 && g->leaders[v->term] != v->id) broken("two leaders in one term");
    g->leaders[v->term] = v->id;
    for (uint8_t i = 1; i <= g->committed_last; i++)
        if (g->committed[i].in < v->term && !holds(v, g, i))
            broken("leader completeness: a new leader lacks a committed block");
}

/* Of the voters that the newest configuration in the leader's log names; while it is joint, of old and of new ones. */
static bool is_durable_on_majority(const struct global *g, const struct local_view *v)
{
    uint8_t at = v->last;
    while (at > 0 && v->log[at].configuration == 0) at--;
    const struct raft_configuration *c = local_configuration(v->log[at].configuration);
    uint32_t old_voters = 0, old_hold = 0, new_voters = 0, new_hold = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct local_view *other = local_view_of(g->members[c->members[i].id - 1]);
        bool holds_it = other->disk_last >= v->commit && same_log(other->disk, v->log, v->commit);
        uint8_t role = c->members[i].role;
        bool is_old = role == RAFT_VOTER || role == RAFT_OUTGOING || role == RAFT_LEAVING;
        bool is_new = role == RAFT_VOTER || role == RAFT_INCOMING;
        old_voters += is_old;
        new_voters += is_new;
        old_hold += is_old && holds_it;
        new_hold += is_new && holds_it;
    }
    return old_hold > old_voters / 2 && new_hold > new_voters / 2;
}

static void check_commit(struct global *g, const struct local_view *v)
{
    for (uint8_t i = 1; i <= v->commit && i <= g->committed_last; i++)
        if (v->log[i].term != g->committed[i].term)
            broken("state machine safety: two blocks are committed at one index");
    if (v->commit <= g->committed_last) return;
    if (v->role != RAFT_LEADER) broken("a follower commits what no leader has committed");
    if (!is_durable_on_majority(g, v)) broken("committed without being durable on a majority");
    while (g->committed_last < v->commit) {
        uint8_t index = ++g->committed_last;
        g->committed[index].term = v->log[index].term;
        g->committed[index].in = v->term;
    }
    for (uint32_t i = 0; i < run.members; i++) {
        const struct local_view *other = local_view_of(g->members[i]);
        if (other->role == RAFT_LEADER && other->term > v->term && !holds(other, g, g->committed_last))
            broken("leader completeness: committed, and a newer leader lacks it");
    }
}

static void check_reads(struct global *g, uint32_t member, const struct local_outcome *o)
{
    uint8_t *need = &g->read_needs[member];
    if (o->read_ready && *need == 0) broken("a read is answered that nobody asked");
    if (o->read_ready && o->read_index + 1 < *need) broken("R5: a read misses what was committed before it was asked");
    if (o->read_ready || o->read_refused) *need = 0;
}

/* ---- what can happen ---- */

static void remove_packet(struct global *g, uint32_t packet)
{
    uint32_t at = 0;
    while (g->packets[at] != packet) at++;
    g->packet_count--;
    memmove(&g->packets[at], &g->packets[at + 1], (g->packet_count - at) * sizeof g->packets[0]);
}

static void forget_dead(struct global *g)
{
    uint16_t kept = 0;
    for (uint16_t i = 0; i < g->packet_count; i++) {
        const struct raft_message *m = &local_packet_of(g->packets[i])->message;
        if (!local_is_dead(g->packets[i], local_view_of(g->members[m->to - 1]))) g->packets[kept++] = g->packets[i];
    }
    g->packet_count = kept;
}

/* Take the action; false: it changes nothing. */
static bool take_action(const struct global *g, struct action a, struct global *ret)
{
    action_now = a;
    const struct local_outcome *o = local_step(g->members[a.member], event_of(a));
    if (o->broken != NULL) broken(o->broken);
    if (o->after == g->members[a.member] && o->sent_count == 0) return false;

    memcpy(ret, g, bytes_of(g));
    const struct local_view *before = local_view_of(g->members[a.member]), *after = local_view_of(o->after);
    ret->members[a.member] = o->after;
    switch ((enum local_event_type)a.type) {
    case LOCAL_DELIVER:
        if (a.keep)
            ret->left[FAULT_REPEAT]--;
        else
            remove_packet(ret, a.argument);
        break;
    case LOCAL_CRASH:
        ret->left[FAULT_CRASH]--;
        ret->read_needs[a.member] = 0;
        break;
    case LOCAL_QUORUM_LOST: ret->left[FAULT_QUORUM_LOST]--; break;
    case LOCAL_READ:
        ret->left[FAULT_READ]--;
        ret->read_needs[a.member] = g->committed_last + 1;
        break;
    case LOCAL_TRANSFER: ret->left[FAULT_TRANSFER]--; break;
    case LOCAL_CHANGE: ret->left[FAULT_CHANGE]--; break;
    default: break;
    }
    for (uint32_t i = 0; i < o->sent_count; i++) add_packet(ret, o->sent[i]);
    forget_dead(ret);

    if (memcmp(before->log, after->log, sizeof after->log) != 0 ||
        memcmp(before->disk, after->disk, sizeof after->disk) != 0)
        check_matching(ret, a.member);
    if (o->became_leader) check_leader(ret, after);
    if (after->commit > before->commit) check_commit(ret, after);
    if (o->read_ready || o->read_refused) check_reads(ret, a.member, o);
    return true;
}

static void try_action(const struct global *g, struct action a)
{
    static struct global next;
    if (!take_action(g, a, &next)) return;
    make_canonical(&next);
    visit(&next);
}

static void expand(const struct global *g)
{
    for (uint32_t i = 0; i < g->packet_count; i++) {
        struct action a = {.type = LOCAL_DELIVER, .argument = g->packets[i]};
        a.member = (uint8_t)(local_packet_of(g->packets[i])->message.to - 1);
        try_action(g, a);
        a.keep = true;
        if (g->left[FAULT_REPEAT] > 0) try_action(g, a);
    }
    for (uint8_t m = 0; m < run.members; m++) {
        const struct local_view v = *local_view_of(g->members[m]); /* a copy: views move when states come */
        bool leads = v.role == RAFT_LEADER;
        if (v.pending > 0) try_action(g, (struct action){.type = LOCAL_DISK, .member = m});
        if (v.may_campaign) try_action(g, (struct action){.type = LOCAL_TIMEOUT, .member = m});
        if (run.lease && v.is_fresh) try_action(g, (struct action){.type = LOCAL_STALE, .member = m});
        if (v.may_propose) try_action(g, (struct action){.type = LOCAL_PROPOSE, .member = m});
        if (leads && v.round < run.rounds) try_action(g, (struct action){.type = LOCAL_HEARTBEAT, .member = m});
        if (leads && g->left[FAULT_QUORUM_LOST] > 0)
            try_action(g, (struct action){.type = LOCAL_QUORUM_LOST, .member = m});
        if (leads && g->left[FAULT_READ] > 0 && !v.reads)
            try_action(g, (struct action){.type = LOCAL_READ, .member = m});
        if (v.may_transfer && g->left[FAULT_TRANSFER] > 0)
            for (uint8_t to = 0; to < run.members; to++)
                if (to != m) try_action(g, (struct action){.type = LOCAL_TRANSFER, .member = m, .argument = to + 1u});
        if (leads && g->left[FAULT_CHANGE] > 0) try_action(g, (struct action){.type = LOCAL_CHANGE, .member = m});
        for (uint32_t done = 0; g->left[FAULT_CRASH] > 0 && done <= v.pending; done++)
            try_action(g, (struct action){.type = LOCAL_CRASH, .member = m, .argument = done});
    }
}

/* ---- one run ---- */

static void prologue_take(struct action a)
{
    struct global next;
    lk_assert(prologue_count < sizeof prologue / sizeof prologue[0]);
    bool changed = take_action(&start_state, a, &next);
    prologue[prologue_count++] = a; /* now: what breaks a rule is shown apart */
    if (changed)
        memcpy(&start_state, &next, bytes_of(&next));
    else
        remove_packet(&start_state, a.argument);
}

/* Member 1 is elected, and everything on its way arrives. */
static void elect_first(void)
{
    prologue_take((struct action){.type = LOCAL_TIMEOUT});
    for (bool any = true; any;) {
        any = false;
        for (uint8_t m = 0; m < run.members && !any; m++)
            if ((any = local_view_of(start_state.members[m])->pending > 0))
                prologue_take((struct action){.type = LOCAL_DISK, .member = m});
        if (any || start_state.packet_count == 0) continue;
        any = true;
        uint32_t packet = start_state.packets[0];
        prologue_take((struct action){
            .type = LOCAL_DELIVER, .member = (uint8_t)(local_packet_of(packet)->message.to - 1), .argument = packet});
    }
    lk_assert(local_view_of(start_state.members[0])->role == RAFT_LEADER && start_state.committed_last == 1);
}

/* "terms=2" and "terms=": 2 */
static bool is_number_of(const char *word, const char *name, uint64_t *ret)
{
    size_t length = strlen(name);
    char *end;
    if (strncmp(word, name, length) != 0) return false;
    *ret = strtoull(word + length, &end, 10);
    return end != word + length && *end == '\0';
}

/* False: a word is not understood. */
static bool read_word(const char *word)
{
    uint64_t number;
    if (strcmp(word, "elected") == 0) return run.elected = true;
    if (strcmp(word, "lease") == 0) return run.lease = true;
    if (strcmp(word, "quiet") == 0) return run.quiet = true;
    if (sscanf(word, "change=%3[VL-]>%3[VL-]", run.configuration, run.target) == 2) {
        run.symmetric = false;
        run.faults[FAULT_CHANGE] = 1;
        return true;
    }
    if (sscanf(word, "logs=%15[1-5/]", run.logs) == 1) return true;
    if (is_number_of(word, "terms=", &number))
        run.terms = (uint32_t)number;
    else if (is_number_of(word, "blocks=", &number))
        run.blocks = (uint32_t)number;
    else if (is_number_of(word, "rounds=", &number))
        run.rounds = (uint32_t)number;
    else {
        uint32_t fault = 0;
        while (fault < FAULT_CHANGE && !is_number_of(word, fault_names[fault], &number)) fault++;
        if (fault == FAULT_CHANGE) return false;
        run.faults[fault] = (uint8_t)number;
    }
    return true;
}

static bool read_bounds(const struct bounds *bounds)
{
    char words[256];
    run = (struct run){
        .name = bounds->name, .symmetric = true, .members = 3, .terms = 1, .blocks = 1, .configuration = "VVV"};
    snprintf(words, sizeof words, "%s", bounds->words);
    for (const char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
        if (!read_word(word)) return false;
    return run.terms < LOCAL_TERMS_MAX && run.blocks + run.terms + 2 <= LOCAL_BLOCKS_MAX;
}

/* What was left out of the network really means nothing. */
static void check_dead(void)
{
    uint32_t state, packet;
    if (local_check_dead(&state, &packet)) return;
    printf("# %s: broken: an answer to a term that is over changes something\n# in this state:\n", run.name);
    const struct local_view *v = local_view_of(state);
    show_member(stdout, v);
    show_action(stdout, (struct action){.type = LOCAL_DELIVER, .member = v->id - 1, .argument = packet});
    local_replay(state, (struct local_event){.type = LOCAL_DELIVER, .argument = packet}, stdout);
    fflush(stdout);
    exit(is_planted ? 0 : 1);
}

/* True: to its end. */
static bool explore(enum local_plant plant)
{
    local_open(&(struct local_options){
        .members = run.members,
        .configuration = run.configuration,
        .target = run.target,
        .logs = run.logs,
        .terms_max = run.terms,
        .blocks_max = run.blocks,
        .rounds_max = run.rounds,
        .quiet = run.quiet,
        .lease = run.lease,
        .symmetric = run.symmetric,
        .plant = plant,
    });
    record_count = prologue_count = from_number = 0;
    if (table_size > 0) memset(table, 0, table_size * sizeof table[0]);
    memset(&start_state, 0, sizeof start_state);
    memcpy(start_state.left, run.faults, sizeof start_state.left);
    for (uint32_t i = 0; i < run.members; i++) start_state.members[i] = local_first(i + 1);
    if (run.elected) elect_first();
    start_renaming = make_canonical(&start_state);
    action_now = (struct action){0};
    visit(&start_state);

    static struct global g;
    uint64_t expanded = 0;
    for (; record_count < states_max && pop(&g); expanded++) {
        from_number = (uint32_t)expanded;
        expand(&g);
    }
    bool complete = expanded == record_count;
    is_reporting = true; /* an assertion from here on has no path */
    check_dead();
    is_reporting = false;
    uint32_t states, packets, steps;
    local_counts(&states, &packets, &steps);
    printf("%-14s %9u states%s, of a member %u, packets %u, steps of the core %u: %s\n", run.name, record_count,
           complete ? "" : " and more", states, packets, steps, complete ? "nothing is broken" : "NOT TO ITS END");
    fflush(stdout);
    while (pop(&g)) continue;
    return complete;
}

static int usage(void)
{
    fprintf(stderr, "explore [--short] [--run NAME] [--bounds WORDS] [--states-max N] [--plant vote|flush]\n");
    for (uint32_t i = 0; i < sizeof all_bounds / sizeof all_bounds[0]; i++)
        fprintf(stderr, "  %-14s %s%s\n", all_bounds[i].name, all_bounds[i].words,
                all_bounds[i].level < 2 ? " (short)" : "");
    return 2;
}

int main(int argc, char **argv)
{
    unsigned level = 2;
    const char *only = NULL;
    struct bounds own = {.name = "own"};
    enum local_plant plant = PLANT_NOTHING;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--short") == 0) {
            level = getenv("LOCKSTEP_SHORT") != NULL && getenv("LOCKSTEP_FULL") == NULL ? 0 : 1;
            continue;
        }
        if (strcmp(argv[i], "--run") == 0)
            only = value;
        else if (strcmp(argv[i], "--bounds") == 0)
            own.words = value;
        else if (strcmp(argv[i], "--states-max") == 0)
            states_max = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--plant") == 0 && strcmp(value, "vote") == 0)
            plant = PLANT_VOTE;
        else if (strcmp(argv[i], "--plant") == 0 && strcmp(value, "flush") == 0)
            plant = PLANT_FLUSH;
        else
            return usage();
        i++;
    }
    signal(SIGABRT, on_abort);
    is_planted = plant != PLANT_NOTHING;
    bool complete = true;
    uint32_t count = 0;
    uint64_t total = 0;
    for (uint32_t i = 0; i < (own.words != NULL ? 1 : sizeof all_bounds / sizeof all_bounds[0]); i++) {
        const struct bounds *bounds = own.words != NULL ? &own : &all_bounds[i];
        if (only != NULL ? strcmp(only, bounds->name) != 0 : bounds->level > level) continue;
        if (!read_bounds(bounds)) return usage();
        complete &= explore(plant);
        total += record_count;
        count++;
    }
    if (count == 0) return usage();
    printf("%u explored, %" PRIu64 " states: %s\n", count, total, complete ? "no rule is broken" : "NOT TO THE END");
    if (is_planted) printf("the planted bug was NOT found\n");
    return is_planted ? 1 : complete ? 0 : 2;
}
