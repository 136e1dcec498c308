/* SPDX-License-Identifier: Apache-2.0 */
/* node_disk.c - a disk that is full, or whose writes do not return (J8).
 * Thread: loop. It waits for nobody: what a disk does is seen by what gets on and what does not.
 *
 *   full     data.mdb cannot grow: blocks stay in ring and journal, then appends are refused; votes and reads go on.
 *            A leader offers leadership to the others, one after the other, and leads on where nobody takes it.
 *   stalled  nothing was flushed for NODE_STALL_TIMEOUTS election timeouts, though something was asked for: leadership is
 *            offered once, then given up; until a write returns this node neither leads nor votes.
 *   slow log the same of data.mdb: commands go on while the ring has room, so this is answered as a full disk is.
 *
 * All of it ends by itself. Time counts while turns are made: a process that was stopped accuses no disk. */
#include <stdio.h>
#include <string.h>

#include "server/node_internal.h"

enum trouble { TROUBLE_NONE, TROUBLE_FULL, TROUBLE_JOURNAL, TROUBLE_LOG };

static uint64_t bound_ns(const struct node *node)
{
    return NODE_STALL_TIMEOUTS * node->options.election_timeout_ns;
}

/* How long journal and log have not got on. */
static void measure(struct node *node, const struct storage_status *status)
{
    struct node_disk *d = &node->disk;
    uint64_t passed = node->now_ns - d->turn_ns, most = node->options.election_timeout_ns;
    if (d->turn_ns == 0) passed = 0;
    if (passed > most) passed = most; /* a turn is made more often, unless this process did not run */
    d->turn_ns = node->now_ns;
    bool journal_idle = node->persisted_seq >= d->asked_seq;
    d->journal_ns = journal_idle || node->persisted_seq != d->done_seq ? 0 : d->journal_ns + passed;
    d->done_seq = node->persisted_seq;
    raft_index may = raft_commit_index(node->raft); /* what is not durable here cannot be stored yet */
    if (raft_durable_index(node->raft) < may) may = raft_durable_index(node->raft);
    bool log_idle = status->stored >= may || storage_installing(node->storage);
    d->log_ns = log_idle || status->stored != d->stored ? 0 : d->log_ns + passed;
    d->stored = status->stored;
}

static enum trouble judge(const struct node *node, const struct storage_status *status)
{
    if (node->disk.journal_ns >= bound_ns(node)) return TROUBLE_JOURNAL;
    if (status->log_stalled) return TROUBLE_FULL;
    return node->disk.log_ns >= bound_ns(node) ? TROUBLE_LOG : TROUBLE_NONE;
}

static void say(struct node *node, enum trouble trouble)
{
    struct node_disk *d = &node->disk;
    const struct node_options *o = &node->options;
    const char *journal = o->journal_directory[0] != 0 ? o->journal_directory : o->data_directory;
    char why[NODE_WHY_BYTES_MAX] = "";
    switch (trouble) {
    case TROUBLE_NONE: break;
    case TROUBLE_FULL:
        snprintf(
            why, sizeof why,
            "the disk is full: the log in %.512s cannot grow, and commands are refused once ring and journal are full; "
            "free some space, it goes on by itself",
            o->data_directory);
        break;
    case TROUBLE_JOURNAL:
        snprintf(
            why, sizeof why,
            "the disk of the journal in %.512s does not complete a write; until it does this node neither leads nor "
            "votes",
            journal);
        break;
    case TROUBLE_LOG:
        snprintf(why, sizeof why,
                 "the disk of the log in %.512s does not complete a write; until it does this node gives leadership to "
                 "others, and commands are refused once the ring is full",
                 o->data_directory);
        break;
    }
    if (strcmp(why, d->why) == 0) return;
    if (why[0] != 0) {
        if (d->why[0] == 0) d->since_ns = node->now_ns;
        node_log(node, NODE_LOG_WARN, "%s", why);
    } else {
        node_log(node, NODE_LOG_INFO, "the disk is well again: after_ms=%llu",
                 (unsigned long long)((node->now_ns - d->since_ns) / NODE_MS));
        d->offers = 0;
    }
    snprintf(d->why, sizeof d->why, "%s", why);
    d->offer_ns = node->now_ns;
    node->changed = true;
}

/* To the other voters in turn: which of them has room is not known here. False: none of them can be asked. */
static bool offer_leadership(struct node *node)
{
    struct node_disk *d = &node->disk;
    const struct configuration *c = &node_configuration(node)->configuration;
    uint32_t self = 0;
    while (self < c->member_count && c->members[self].id != node->identity.member_id) self++;
    uint64_t wait_ns = bound_ns(node) << (d->offers < 16 ? d->offers : 16);
    d->offer_ns = node->now_ns + (wait_ns < NODE_HAND_OVER_NS_MAX ? wait_ns : NODE_HAND_OVER_NS_MAX);
    for (uint32_t i = 1; i <= c->member_count; i++) {
        uint32_t next = (self + i + d->offers) % c->member_count;
        if (next == self) continue;
        struct raft_event event = {
            .type = RAFT_EVENT_TRANSFER, .now_ns = node->now_ns, .as.transfer.target = c->members[next].id};
        struct raft_result result;
        node_step(node, &event, &result);
        if (result.error != 0) continue; /* a learner, or silent */
        d->offers++;
        return true;
    }
    return false;
}

static void abstain(struct node *node, bool abstains)
{
    struct raft_event event = {.type = RAFT_EVENT_ABSTAIN, .now_ns = node->now_ns, .as.abstain.abstains = abstains};
    struct raft_result result;
    if (node->disk.abstains == abstains) return;
    node->disk.abstains = abstains;
    node_step(node, &event, &result);
}

void node_disk_turn(struct node *node)
{
    struct node_disk *d = &node->disk;
    struct storage_status status;
    if (node->failed != 0) return;
    storage_status_read(node->storage, &status);
    measure(node, &status);
    enum trouble trouble = judge(node, &status);
    say(node, trouble);
    bool stalled = trouble == TROUBLE_JOURNAL, leads = raft_is_leader(node->raft);
    if (!stalled) {
        d->handing_over = false;
        abstain(node, false);
    } else if (!leads || d->handing_over) {
        if (!leads || !raft_is_transferring(node->raft)) abstain(node, true);
        return;
    }
    if (trouble == TROUBLE_NONE || !leads || raft_is_transferring(node->raft)) return;
    if (!stalled && node->now_ns < d->offer_ns) return;
    (void)offer_leadership(node);
    d->handing_over = stalled;
}
