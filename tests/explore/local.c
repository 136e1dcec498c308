/* SPDX-License-Identifier: Apache-2.0 */
/* local.c - see local.h. Looks into the core (raft/internal.h): to put a core into a state that it was in before. */
#include "tests/explore/local.h"

#include <stdlib.h>
#include <string.h>

#include "raft/internal.h"
#include "tests/explore/intern.h"
#include "tests/scenario/show.h"

static const uint64_t MS = 1000000;
static const uint64_t NOW_NS = 1000000 * MS;

/* One byte wide, zero where unused: its bytes are its identity. */
struct pending {
    uint8_t has_hard_state, term, vote;
    uint8_t first, last, commit;
    struct local_block blocks[LOCAL_BLOCKS_MAX];
};

/* A member without its core. */
struct outside {
    uint8_t id;
    uint8_t last, commit;
    uint8_t disk_last, disk_commit, disk_term, disk_vote;
    uint8_t pending_count;
    struct local_block log[LOCAL_BLOCKS_MAX + 1], disk[LOCAL_BLOCKS_MAX + 1];
    struct pending pending[LOCAL_PERSISTS_MAX];
};
static_assert(sizeof(struct outside) == 8 + 2 * (LOCAL_BLOCKS_MAX + 1) * sizeof(struct local_block) +
                                            LOCAL_PERSISTS_MAX * sizeof(struct pending),
              "no padding");

enum { CONFIGURATIONS_MAX = 16 };

struct memory {
    uint64_t key;
    uint32_t outcome; /* + 1; 0 = free */
};

static struct local_options options;
static struct raft_configuration configurations[CONFIGURATIONS_MAX]; /* [0]: of the birth */
static uint32_t configuration_count;
static struct raft_configuration target;
static struct intern states, packets;
static struct local_view *views; /* by state */
static uint32_t views_max;
struct images {
    uint32_t of[LOCAL_RENAMINGS]; /* + 1; 0 = not computed yet */
};
static struct images *state_images, *packet_images; /* by state, by packet */
static uint32_t packet_images_max;
static struct memory *memories; /* (state, event) -> outcome */
static uint32_t memories_size;
static struct local_outcome **outcomes; /* in blocks of OUTCOMES_STEP: they never move */
static uint32_t outcome_count;
enum { OUTCOMES_STEP = 4096, OUTCOME_BLOCKS_MAX = 1 << 16 };

/* The member that is being stepped. */
static struct raft *raft;
static struct outside member;
static struct raft_effects *effects;
static struct local_outcome outcome;
static FILE *trace;
static struct show_before trace_before;

static void broken(const char *rule)
{
    if (outcome.broken == NULL) outcome.broken = rule;
}

/* ---- a core's state as bytes ---- */

struct cursor {
    uint8_t *at;
    bool restore;
};

static void carry(struct cursor *c, void *part, size_t bytes)
{
    if (c->restore)
        memcpy(part, c->at, bytes);
    else
        memcpy(c->at, part, bytes);
    c->at += bytes;
}

/* From one field to just before another, both of struct raft. */
#define CARRY_UNTIL(c, from, to)                                                                                       \
    carry((c), (uint8_t *)raft + offsetof(struct raft, from), offsetof(struct raft, to) - offsetof(struct raft, from))

/* All of the core, the unused ends of its large arrays aside. */
static void carry_core(struct cursor *c)
{
    CARRY_UNTIL(c, options, log.runs);
    carry(c, raft->log.runs, raft->log.run_count * sizeof raft->log.runs[0]);
    CARRY_UNTIL(c, persists, persists.queue);
    carry(c, raft->persists.queue, raft->persists.count * sizeof raft->persists.queue[0]);
    CARRY_UNTIL(c, commit, members);
    for (uint32_t i = 0; i < LOCAL_MEMBERS_MAX; i++) {
        struct progress *p = &raft->members[i].progress;
        carry(c, &raft->members[i].vote, sizeof raft->members[i].vote);
        carry(c, p, offsetof(struct progress, window));
        carry(c, p->window, p->window_count * sizeof p->window[0]);
    }
    CARRY_UNTIL(c, appends_inflight_max, replies);
    carry(c, &raft->shown, sizeof raft->shown);
}

static bool has_passed(uint64_t at_ns)
{
    return NOW_NS - at_ns >= raft->options.election_timeout_ns_min;
}

static void normalise_progress(struct progress *p)
{
    uint32_t head = p->window_head;
    if (raft->role != RAFT_LEADER) {
        uint8_t load = p->load;
        memset(p, 0, sizeof *p); /* a new leader opens it again; only an answer to a load is still waited for */
        p->load = load;
        return;
    }
    for (uint32_t i = 0; head > 0 && i < p->window_count; i++)
        p->window[i] = p->window[(head + i) % PROGRESS_WINDOW_MAX]; /* far shorter than the ring: no overlap matters */
    p->window_head = 0;
    p->heard_ns = has_passed(p->heard_ns) ? NOW_NS - raft->options.election_timeout_ns_min : NOW_NS;
}

/* Equal situations get equal bytes. Nothing that a later step could tell apart is lost, time aside. */
static void normalise(void)
{
    struct raft_persists *p = &raft->persists;
    for (uint32_t i = 0; i < p->count; i++) {
        p->queue[i] = p->queue[(p->head + i) % RAFT_PERSISTS_MAX];
        p->queue[i].seq = i + 1;
    }
    p->head = 0;
    p->newest_seq = p->count;
    lk_assert(p->count == member.pending_count);

    uint64_t elapsed = raft->now_ns - NOW_NS;
    lk_assert(raft->now_ns >= NOW_NS);
    raft->now_ns = NOW_NS;
    memset(&raft->random, 0x5a, sizeof raft->random);
    bool fresh = options.lease && raft->contact_ns + raft->options.election_timeout_ns_min > NOW_NS + elapsed;
    raft->contact_ns = fresh ? NOW_NS : 0;
    raft->election_deadline_ns = NOW_NS + raft->options.election_timeout_ns_min;
    raft->ask_again_ns = NOW_NS + raft->options.heartbeat_ns;
    raft->heartbeat_due_ns = NOW_NS + raft->options.heartbeat_ns;
    raft->quorum_due_ns = NOW_NS + raft->options.election_timeout_ns_min;
    if (raft->transfer.target != 0) raft->transfer.deadline_ns = NOW_NS + raft->options.election_timeout_ns_min;
    raft->promise_ns = raft->promised_to = 0; /* read with leases alone, and those are a matter of time */
    memset(raft->reads.sent_ns, 0, sizeof raft->reads.sent_ns);
    raft->appends_inflight_max = 0;
    for (uint32_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        normalise_progress(&raft->members[i].progress);
        if (raft->role == RAFT_LEADER || raft->role == RAFT_FOLLOWER) raft->members[i].vote = VOTE_NOT_ASKED;
    }
    if (raft->role != RAFT_LEADER) { /* read by leaders alone, who set them first */
        raft->term_first_index = 0;
        raft->uncommitted_bytes = 0;
    }
    raft->recent_index = raft->recent_next_index = 0; /* who is caught up: explored changes do not ask */
    raft->recent_due_ns = NOW_NS + raft->options.heartbeat_ns;
    struct reads *reads = &raft->reads;
    if (reads->newest == reads->joined && reads->round == 0) /* all are answered: the next is the first again */
        reads->newest = reads->joined = reads->ready = reads->failed = reads->ready_index = reads->round_index = 0;
    lk_assert(raft->reply_count == 0 && !raft->must_take);
}

/* R6: the newest configuration of the log is in force. */
static bool is_newest_in_force(void)
{
    struct raft_configuration in_force;
    uint8_t at = member.last;
    while (at > 0 && member.log[at].configuration == 0) at--;
    raft_configuration_read(raft, false, &in_force);
    return raft_configuration_is_same(&in_force, &configurations[member.log[at].configuration]);
}

static void note_view(uint32_t state)
{
    if (state >= views_max) {
        views_max = views_max == 0 ? 1024 : views_max * 2;
        views = explore_resize(views, views_max * sizeof views[0]);
        state_images = explore_resize(state_images, views_max * sizeof state_images[0]);
    }
    state_images[state] = (struct images){{state + 1}};
    struct local_view *v = &views[state];
    *v = (struct local_view){
        .id = member.id,
        .role = (uint8_t)raft->role,
        .term = (uint8_t)raft->hard.term,
        .durable_term = member.disk_term,
        .last = member.last,
        .commit = member.commit,
        .disk_last = member.disk_last,
        .pending = member.pending_count,
        .round = (uint8_t)raft->round,
        .may_campaign = raft->role != RAFT_LEADER && raft_may_campaign(raft) && raft->hard.term < options.terms_max,
        .may_propose = raft_may_propose(raft, 1) && member.last < options.blocks_max,
        .may_transfer = raft_lead_established(raft) && raft->transfer.target == 0,
        .is_fresh = raft->role == RAFT_FOLLOWER && raft->leader != 0 && raft->contact_ns == NOW_NS,
        .reads = raft->reads.newest > 0,
    };
    memcpy(v->log, member.log, sizeof v->log);
    memcpy(v->disk, member.disk, sizeof v->disk);
}

static uint32_t save(void)
{
    static uint8_t bytes[16384];
    struct cursor c = {.at = bytes};
    normalise();
    carry(&c, &member, sizeof member);
    carry_core(&c);
    lk_assert((size_t)(c.at - bytes) <= sizeof bytes);
    bool is_new;
    if (!is_newest_in_force()) broken("R6: the newest configuration of the log is not in force");
    uint32_t state = intern_add(&states, bytes, (uint32_t)(c.at - bytes), &is_new);
    if (is_new) note_view(state);
    return state;
}

static void restore(uint32_t state)
{
    static uint8_t bytes[16384];
    struct intern_item item = intern_get(&states, state);
    memcpy(bytes, item.bytes, item.length);
    struct cursor c = {.at = bytes, .restore = true};
    carry(&c, &member, sizeof member);
    carry_core(&c);
}

/* ---- renaming ---- */

const uint8_t local_renamings[LOCAL_RENAMINGS][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

static raft_member renamed(raft_member id, uint32_t renaming)
{
    return id == 0 ? 0 : local_renamings[renaming][id - 1] + 1u;
}

#define RENAME_BYTE(place) ((place) = (uint8_t)renamed((place), renaming))
#define RENAME(place)      ((place) = renamed((place), renaming))

uint32_t local_rename(uint32_t state, uint32_t renaming)
{
    if (state_images[state].of[renaming] != 0) return state_images[state].of[renaming] - 1;
    static struct member members[3];
    lk_assert(options.members == 3);
    restore(state);
    RENAME_BYTE(member.id);
    RENAME_BYTE(member.disk_vote);
    for (uint8_t i = 0; i < member.pending_count; i++) RENAME_BYTE(member.pending[i].vote);
    RENAME(raft->options.self);
    RENAME(raft->hard.vote);
    RENAME(raft->leader);
    RENAME(raft->grant_to);
    RENAME(raft->shown.leader);
    RENAME(raft->transfer.target);
    RENAME(raft->persists.durable.vote);
    RENAME(raft->persists.handed.vote);
    for (uint32_t i = 0; i < raft->persists.count; i++) RENAME(raft->persists.queue[i].hard_state.vote);
    memcpy(members, raft->members, sizeof members);
    for (uint32_t i = 0; i < 3; i++) raft->members[local_renamings[renaming][i]] = members[i];
    uint32_t image = save();
    state_images[state].of[renaming] = image + 1;
    return image;
}

uint32_t local_rename_packet(uint32_t packet, uint32_t renaming)
{
    if (packet >= packet_images_max) {
        uint32_t before = packet_images_max;
        packet_images_max = packets.count + 1024;
        packet_images = explore_resize(packet_images, packet_images_max * sizeof packet_images[0]);
        memset(packet_images + before, 0, (packet_images_max - before) * sizeof packet_images[0]);
    }
    if (packet_images[packet].of[renaming] != 0) return packet_images[packet].of[renaming] - 1;
    struct local_packet p;
    bool is_new;
    memcpy(&p, intern_get(&packets, packet).bytes, sizeof p);
    RENAME(p.message.from);
    RENAME(p.message.to);
    uint32_t image = intern_add(&packets, &p, sizeof p, &is_new);
    packet_images[packet].of[renaming] = image + 1;
    return image;
}

struct local_event local_rename_event(struct local_event event, uint32_t renaming)
{
    if (event.type == LOCAL_DELIVER) event.argument = local_rename_packet(event.argument, renaming);
    if (event.type == LOCAL_TRANSFER) event.argument = (uint32_t)renamed(event.argument, renaming);
    return event;
}

/* ---- configurations ---- */

static uint8_t number_of(const struct raft_configuration *c)
{
    uint8_t number = 1;
    if (c == NULL) return 0;
    while (number < configuration_count && !raft_configuration_is_same(c, &configurations[number])) number++;
    lk_assert(number < CONFIGURATIONS_MAX);
    if (number == configuration_count) configurations[configuration_count++] = *c;
    return number;
}

const struct raft_configuration *local_configuration(uint8_t number)
{
    lk_assert(number < configuration_count);
    return &configurations[number];
}

static void read_letters(const char *letters, struct raft_configuration *ret)
{
    memset(ret, 0, sizeof *ret);
    for (uint32_t i = 0; letters != NULL && letters[i] != '\0'; i++) {
        if (letters[i] == '-') continue;
        ret->members[ret->count].id = i + 1;
        ret->members[ret->count++].role = letters[i] == 'V' ? RAFT_VOTER : RAFT_LEARNER;
    }
}

/* ---- the world around the core ---- */

static uint64_t pack(void *context, raft_index first, raft_index last, uint64_t budget, raft_index *ret_last)
{
    (void)context;
    lk_assert(first <= last && last <= member.last);
    uint64_t count = last - first + 1;
    if (count > budget) count = budget > 0 ? budget : 1;
    *ret_last = first + count - 1;
    return count; /* a byte each */
}

static void write_oldest(void)
{
    struct pending *one = &member.pending[0];
    if (one->has_hard_state) {
        if (one->term < member.disk_term) broken("a term falls on a disk");
        if (one->term == member.disk_term && member.disk_vote != 0 && one->vote != member.disk_vote)
            broken("one vote a term: a vote is changed on a disk");
        member.disk_term = one->term;
        member.disk_vote = one->vote;
    }
    if (one->first != 0) {
        lk_assert(one->first <= member.disk_last + 1);
        for (uint8_t i = one->first; i <= one->last; i++) member.disk[i] = one->blocks[i - one->first];
        for (uint8_t i = one->last + 1; i <= LOCAL_BLOCKS_MAX; i++) member.disk[i] = (struct local_block){0};
        member.disk_last = one->last;
    }
    uint8_t commit = one->commit < member.disk_last ? one->commit : member.disk_last;
    if (member.disk_commit < commit) member.disk_commit = commit;
    member.pending_count--;
    memmove(one, one + 1, member.pending_count * sizeof *one);
    memset(&member.pending[member.pending_count], 0, sizeof *one);
}

static void put_on_disk(void)
{
    lk_assert(member.pending_count < LOCAL_PERSISTS_MAX);
    struct pending *one = &member.pending[member.pending_count++];
    *one = (struct pending){
        .has_hard_state = effects->persist_hard_state,
        .first = (uint8_t)effects->persist_first,
        .last = (uint8_t)effects->persist_last,
        .commit = (uint8_t)effects->commit,
    };
    if (effects->persist_hard_state) {
        one->term = (uint8_t)effects->hard_state.term;
        one->vote = (uint8_t)effects->hard_state.vote;
    }
    if (one->first == 0) return;
    lk_assert(one->last == member.last);
    for (uint8_t i = one->first; i <= one->last; i++) one->blocks[i - one->first] = member.log[i];
}

/* R1, R2, R7: what leaves is durable. */
static void check_promise(const struct raft_message *m)
{
    if (m->term > member.disk_term) broken("R1: a message leaves with a term that is not durable");
    raft_member vote = 0;
    if (m->type == RAFT_VOTE) vote = member.id;
    if (m->type == RAFT_VOTE_REPLY && m->as.vote_reply.granted) vote = m->to;
    if (vote != 0 && (member.disk_term != m->term || member.disk_vote != vote))
        broken("R7: a vote leaves before it is durable");
    if (m->type != RAFT_ACK || m->as.ack.durable_index == 0) return;
    raft_index durable = m->as.ack.durable_index;
    if (member.disk_term != m->term) broken("R1: an ack leaves before its term is durable");
    if (durable > member.disk_last) {
        broken("R2: an ack leaves before its blocks are durable");
        return;
    }
    for (raft_index i = 1; i <= durable; i++)
        if (memcmp(&member.disk[i], &member.log[i], sizeof member.log[i]) != 0)
            broken("R2: other blocks are durable than those acked");
}

/* Field by field: what a struct has between its fields is no part of what it says. */
static void copy_message(const struct raft_message *m, struct raft_message *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->type = m->type;
    ret->from = m->from;
    ret->to = m->to;
    ret->term = m->term;
    switch ((enum raft_message_type)m->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        ret->as.vote.campaign_term = m->as.vote.campaign_term;
        ret->as.vote.last_index = m->as.vote.last_index;
        ret->as.vote.last_term = m->as.vote.last_term;
        ret->as.vote.transfer = m->as.vote.transfer;
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
        ret->as.vote_reply.campaign_term = m->as.vote_reply.campaign_term;
        ret->as.vote_reply.granted = m->as.vote_reply.granted;
        break;
    case RAFT_ACK:
        ret->as.ack.durable_index = m->as.ack.durable_index;
        ret->as.ack.validated_index = m->as.ack.validated_index;
        ret->as.ack.rejected_index = m->as.ack.rejected_index;
        ret->as.ack.hint_index = m->as.ack.hint_index;
        ret->as.ack.hint_term = m->as.ack.hint_term;
        ret->as.ack.round = m->as.ack.round;
        ret->as.ack.rejected = m->as.ack.rejected;
        ret->as.ack.full = m->as.ack.full;
        break;
    case RAFT_APPEND:
    case RAFT_HEARTBEAT:
    case RAFT_TIMEOUT_NOW:
    case RAFT_INSTALL: /* nothing is compacted here: no snapshots */
    case RAFT_INSTALL_ACK:
    case RAFT_MESSAGE_TYPES: ret->as = m->as; break;
    }
}

static void put_on_network(const struct raft_send *send)
{
    struct local_packet packet;
    memset(&packet, 0, sizeof packet);
    copy_message(&send->message, &packet.message);
    if (send->message.type == RAFT_HEARTBEAT &&
        (send->message.as.heartbeat.round > options.rounds_max || (options.quiet && effects->role_changed)))
        return;
    if (send->first != 0) {
        lk_assert(send->last <= member.last);
        packet.block_count = (uint32_t)(send->last - send->first + 1);
        for (uint32_t i = 0; i < packet.block_count; i++) packet.blocks[i] = member.log[send->first + i];
    }
    bool is_new;
    lk_assert(outcome.sent_count < LOCAL_SENT_MAX);
    outcome.sent[outcome.sent_count++] = intern_add(&packets, &packet, sizeof packet, &is_new);
}

static void check_commit(void)
{
    struct raft_status status;
    if (effects->commit == member.commit) return;
    raft_status_read(raft, &status);
    if (effects->commit < member.commit) broken("commit falls");
    if (effects->commit > member.last) broken("commit passes the log");
    if (status.role == RAFT_FOLLOWER && effects->commit > status.validated_index)
        broken("R3: a follower's commit passes v");
    if (status.role == RAFT_LEADER && member.log[effects->commit].term != status.term)
        broken("R4: a block of an earlier term is committed by counting");
    member.commit = (uint8_t)effects->commit;
}

static void propose(const struct raft_configuration *carried);

/* silent: what would leave is lost. */
static void take(const struct raft_result *result, bool silent)
{
    raft_take(raft, raft->now_ns, effects);
    raft_check(raft);
    if (trace != NULL) show_step(trace, member.id, raft, result, effects, &trace_before);
    check_commit();
    for (uint32_t i = 0; i < effects->send_count; i++) {
        check_promise(&effects->sends[i].message);
        if (!silent) put_on_network(&effects->sends[i]);
    }
    if (effects->persist_seq != 0) put_on_disk();
    lk_assert(effects->load_count == 0);
    if (effects->role_changed && effects->role == RAFT_LEADER) {
        outcome.became_leader = true;
        propose(NULL); /* a term's first block: its leader's caller does this at once */
    } else if (effects->leave_joint) {
        struct raft_configuration left;
        raft_configuration_leave(&raft->configuration, &left);
        propose(&left);
    }
}

static void step_core(struct raft_event *event, bool silent)
{
    struct raft_result result;
    event->now_ns = raft->now_ns > event->now_ns ? raft->now_ns : event->now_ns;
    raft_step(raft, event, &result);
    if (result.error == LOCKSTEP_EPROTO) broken("T14: a proof that safety is lost was reported");
    if (result.cut != 0 && result.cut <= member.commit) broken("a committed block is cut");
    if (result.accept_first != 0) {
        const struct raft_entry *entries = event->as.message.entries;
        raft_index behind = event->as.message.message->as.append.previous_index + 1;
        for (raft_index i = result.accept_first; i <= result.accept_last; i++)
            member.log[i] = (struct local_block){.term = (uint8_t)entries[i - behind].term,
                                                 .configuration = number_of(entries[i - behind].configuration)};
        for (raft_index i = result.accept_last + 1; i <= LOCAL_BLOCKS_MAX; i++) member.log[i] = (struct local_block){0};
        member.last = (uint8_t)result.accept_last;
    }
    take(&result, silent);
}

static void propose(const struct raft_configuration *carried)
{
    lk_assert(member.last < LOCAL_BLOCKS_MAX);
    uint8_t number = number_of(carried);
    member.log[++member.last] = (struct local_block){.term = (uint8_t)raft->hard.term, .configuration = number};
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE,
                               .as.propose = {.index = member.last, .bytes = 1, .configuration = carried}};
    step_core(&event, false);
    lk_assert(raft_last_index(raft) >= member.last);
}

static void change_configuration(void)
{
    struct raft_configuration next;
    raft_member about;
    if (raft_change_plan(raft, &target, true, &next, &about) == RAFT_CHANGE_MAY) propose(&next);
}

static void deliver(uint32_t packet)
{
    struct local_packet p;
    struct raft_entry entries[LOCAL_BLOCKS_MAX];
    memcpy(&p, intern_get(&packets, packet).bytes, sizeof p);
    for (uint32_t i = 0; i < p.block_count; i++)
        entries[i] = (struct raft_entry){
            .index = p.message.as.append.previous_index + 1 + i,
            .term = p.blocks[i].term,
            .bytes = 1,
            .configuration = p.blocks[i].configuration != 0 ? &configurations[p.blocks[i].configuration] : NULL,
        };
    struct raft_event event = {
        .type = RAFT_EVENT_MESSAGE,
        .as.message = {
            .message = &p.message, .entries = entries, .entry_count = p.block_count, .room_bytes = UINT64_MAX}};
    step_core(&event, false);
}

/* The core starts from its disk. */
static void start(void)
{
    struct raft_term_run runs[LOCAL_BLOCKS_MAX];
    uint32_t run_count = 0;
    memcpy(member.log, member.disk, sizeof member.log);
    member.last = member.disk_last;
    member.commit = member.disk_commit;
    for (uint8_t i = 1; i <= member.last; i++)
        if (run_count == 0 || runs[run_count - 1].term != member.log[i].term)
            runs[run_count++] = (struct raft_term_run){.first_index = i, .term = member.log[i].term};
    struct raft_options raft_options = {
        .self = member.id,
        .election_timeout_ns_min = 300 * MS,
        .heartbeat_ns = 60 * MS,
        .append_bytes_max = LOCAL_BLOCKS_MAX,
        .append_inflight_bytes_max = LOCAL_BLOCKS_MAX,
        .uncommitted_bytes_max = LOCAL_BLOCKS_MAX,
        .blocks_pack = pack,
    };
    struct raft_start from = {
        .hard_state = {.term = member.disk_term, .vote = member.disk_vote},
        .last_index = member.last,
        .commit = member.commit,
        .runs = runs,
        .run_count = run_count,
        .configuration = configurations[0],
    };
    for (uint8_t i = 1; i <= member.last; i++) {
        if (member.log[i].configuration == 0) continue;
        from.configuration_before = from.configuration;
        from.configuration_before_index = from.configuration_index;
        from.configuration = configurations[member.log[i].configuration];
        from.configuration_index = i;
    }
    raft = raft_open(raft, &raft_options, &from, NOW_NS);
    raft->contact_ns = 0;
    take(&(struct raft_result){0}, false);
}

static void crash(uint32_t persists_done)
{
    for (uint32_t i = 0; i < persists_done; i++) write_oldest();
    memset(member.pending, 0, sizeof member.pending);
    member.pending_count = 0;
    if (options.plant == PLANT_VOTE) member.disk_vote = 0;
    if (options.plant == PLANT_FLUSH && member.disk_last > member.disk_commit)
        member.disk[member.disk_last--] = (struct local_block){0};
    start();
}

/* The election timer ends. Without leases the pre-vote is won at once: it protects no rule, only a working leader. */
static void time_out(void)
{
    struct raft_event event = {.type = RAFT_EVENT_TIME, .now_ns = raft->election_deadline_ns};
    step_core(&event, !options.lease);
    for (uint32_t i = 0; !options.lease && raft->role == RAFT_PRECANDIDATE && i < options.members; i++) {
        if (i + 1 == member.id) continue;
        struct raft_message granted = {
            .type = RAFT_PREVOTE_REPLY,
            .from = i + 1,
            .to = member.id,
            .as.vote_reply = {.campaign_term = raft->hard.term + 1, .granted = true},
        };
        struct raft_event reply = {.type = RAFT_EVENT_MESSAGE, .as.message = {.message = &granted}};
        step_core(&reply, false);
    }
}

static void silence(void)
{
    for (uint32_t i = 0; i < LOCAL_MEMBERS_MAX; i++)
        raft->members[i].progress.heard_ns = NOW_NS - raft->options.election_timeout_ns_min;
}

static void run_event(struct local_event local)
{
    struct raft_event event = {.type = RAFT_EVENT_TIME};
    switch ((enum local_event_type)local.type) {
    case LOCAL_DELIVER: deliver(local.argument); break;
    case LOCAL_DISK:
        write_oldest();
        event = (struct raft_event){.type = RAFT_EVENT_PERSISTED, .as.persisted = {.seq = 1}};
        step_core(&event, false);
        break;
    case LOCAL_CRASH: crash(local.argument); break;
    case LOCAL_TIMEOUT: time_out(); break;
    case LOCAL_STALE: raft->contact_ns = 0; break;
    case LOCAL_HEARTBEAT:
        silence();
        raft->heartbeat_due_ns = NOW_NS;
        step_core(&event, false);
        break;
    case LOCAL_QUORUM_LOST:
        silence();
        raft->quorum_due_ns = NOW_NS;
        step_core(&event, false);
        break;
    case LOCAL_PROPOSE: propose(NULL); break;
    case LOCAL_READ:
        event.type = RAFT_EVENT_READ;
        step_core(&event, false);
        break;
    case LOCAL_TRANSFER:
        event.type = RAFT_EVENT_TRANSFER;
        event.as.transfer.target = local.argument;
        step_core(&event, false);
        break;
    case LOCAL_CHANGE: change_configuration(); break;
    }
}

/* ---- the doors ---- */

void local_open(const struct local_options *wanted)
{
    options = *wanted;
    lk_assert(options.members <= LOCAL_MEMBERS_MAX);
    lk_assert(options.blocks_max + options.terms_max + 2 <=
              LOCAL_BLOCKS_MAX); /* first blocks and configurations always pass */
    lk_assert(options.terms_max < LOCAL_TERMS_MAX);
    if (raft == NULL) raft = explore_allocate((raft_bytes() + 15) & ~(size_t)15);
    if (effects == NULL) effects = explore_allocate(sizeof *effects);
    if (outcomes == NULL) outcomes = explore_allocate(OUTCOME_BLOCKS_MAX * sizeof outcomes[0]);
    intern_clear(&states);
    intern_clear(&packets);
    packet_images_max = 0;
    for (uint32_t i = 0; i * OUTCOMES_STEP < outcome_count; i++) free(outcomes[i]);
    outcome_count = 0;
    free(memories);
    memories_size = 1 << 16;
    memories = explore_allocate(memories_size * sizeof memories[0]);
    read_letters(options.configuration, &configurations[0]);
    read_letters(options.target, &target);
    configuration_count = 1;
}

/* The disk of a member at the start. */
static void lay_log(raft_member id)
{
    raft_member at = 1;
    for (const char *c = options.logs; *c != '\0'; c++) {
        if (*c == '/') {
            at++;
            continue;
        }
        uint8_t term = (uint8_t)(*c - '0');
        if (member.disk_term < term) member.disk_term = term;
        if (at == id) member.disk[++member.disk_last] = (struct local_block){.term = term};
    }
}

uint32_t local_first(raft_member id)
{
    memset(&member, 0, sizeof member);
    memset(&outcome, 0, sizeof outcome);
    member.id = (uint8_t)id;
    lay_log(id);
    start();
    return save();
}

const struct local_view *local_view_of(uint32_t state)
{
    return &views[state];
}

const struct local_packet *local_packet_of(uint32_t packet)
{
    return (const struct local_packet *)(const void *)intern_get(&packets, packet).bytes;
}

static uint32_t slot_of(uint64_t key)
{
    uint32_t at = (uint32_t)hash_bytes(&key, sizeof key).low & (memories_size - 1);
    while (memories[at].outcome != 0 && memories[at].key != key) at = (at + 1) & (memories_size - 1);
    return at;
}

static void grow_memories(void)
{
    struct memory *old = memories;
    uint32_t old_size = memories_size;
    memories_size *= 2;
    memories = explore_allocate(memories_size * sizeof memories[0]);
    for (uint32_t i = 0; i < old_size; i++)
        if (old[i].outcome != 0) memories[slot_of(old[i].key)] = old[i];
    free(old);
}

static struct local_outcome *outcome_at(uint32_t number)
{
    return &outcomes[number / OUTCOMES_STEP][number % OUTCOMES_STEP];
}

static void compute(uint32_t state, struct local_event event)
{
    restore(state);
    memset(&outcome, 0, sizeof outcome);
    uint64_t ready = raft->reads.ready, failed = raft->reads.failed;
    trace_before = (struct show_before){.commit = member.commit, .ready = ready, .failed = failed};
    run_event(event);
    outcome.read_ready = raft->reads.ready > ready;
    outcome.read_refused = raft->reads.failed > failed;
    outcome.read_index = (uint8_t)raft->reads.ready_index;
    outcome.after = save();
}

/* A field that names a member and is not renamed above would make different states the same: it shows here. */
static void check_symmetry(uint32_t state, struct local_event event)
{
    uint32_t renaming = 1 + state % (LOCAL_RENAMINGS - 1);
    struct local_outcome straight = outcome;
    compute(local_rename(state, renaming), local_rename_event(event, renaming));
    lk_assert(outcome.after == local_rename(straight.after, renaming));
    lk_assert(outcome.sent_count == straight.sent_count);
    for (uint32_t i = 0; i < straight.sent_count; i++) {
        uint32_t k = 0, sent = local_rename_packet(straight.sent[i], renaming);
        while (k < outcome.sent_count && outcome.sent[k] != sent) k++;
        lk_assert(k < outcome.sent_count);
    }
    outcome = straight;
}

const struct local_outcome *local_step(uint32_t state, struct local_event event)
{
    lk_assert(state < 1u << 28 && event.type < 16);
    uint64_t key = (uint64_t)state << 36 | (uint64_t)event.type << 32 | event.argument;
    uint32_t at = slot_of(key);
    if (memories[at].outcome != 0) return outcome_at(memories[at].outcome - 1);

    compute(state, event);
    if (options.symmetric && outcome.broken == NULL) check_symmetry(state, event);

    if (outcome_count % OUTCOMES_STEP == 0) {
        lk_assert(outcome_count / OUTCOMES_STEP < OUTCOME_BLOCKS_MAX);
        outcomes[outcome_count / OUTCOMES_STEP] = explore_allocate(OUTCOMES_STEP * sizeof(struct local_outcome));
    }
    *outcome_at(outcome_count) = outcome;
    if (2 * (outcome_count + 1) > memories_size) grow_memories();
    memories[slot_of(key)] = (struct memory){.key = key, .outcome = ++outcome_count};
    return outcome_at(outcome_count - 1);
}

void local_replay(uint32_t state, struct local_event event, FILE *out)
{
    trace = out;
    compute(state, event);
    trace = NULL;
}

bool local_is_dead(uint32_t packet, const struct local_view *to)
{
    const struct raft_message *m = &local_packet_of(packet)->message;
    if (m->to != to->id) return false;
    switch ((enum raft_message_type)m->type) {
    case RAFT_PREVOTE_REPLY: return m->as.vote_reply.campaign_term <= to->durable_term && m->term <= to->durable_term;
    case RAFT_VOTE_REPLY:
    case RAFT_ACK:
    case RAFT_TIMEOUT_NOW: return m->term < to->durable_term;
    default: return false;
    }
}

bool local_check_dead(uint32_t *ret_state, uint32_t *ret_packet)
{
    uint32_t state_count = states.count, packet_count = packets.count;
    for (uint32_t state = 0; state < state_count; state++)
        for (uint32_t packet = 0; packet < packet_count; packet++) {
            if (!local_is_dead(packet, &views[state])) continue;
            compute(state, (struct local_event){.type = LOCAL_DELIVER, .argument = packet});
            if (outcome.after == state && outcome.sent_count == 0 && outcome.broken == NULL) continue;
            *ret_state = state;
            *ret_packet = packet;
            return false;
        }
    return true;
}

void local_counts(uint32_t *ret_states, uint32_t *ret_packets, uint32_t *ret_steps)
{
    *ret_states = states.count;
    *ret_packets = packets.count;
    *ret_steps = outcome_count;
}
