/* SPDX-License-Identifier: Apache-2.0 */
/* test_membership.c - members that come and go. Core 1 leads unless said otherwise; cores behind the members of the birth
 * run and wait to be added. That commits are durable on majorities of the configuration in force, and that it is the
 * newest one of the log, is checked by the cluster itself at every step. */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;
static struct cluster *c;
static struct cluster_core *lead;

static void open_started(uint32_t members, uint32_t waiting)
{
    c = cluster_open(members + waiting, 0, 11);
    if (waiting > 0) cluster_leave_out(c, waiting);
    cluster_start_all(c);
    lead = cluster_core(c, 1);
}

static void open_led(uint32_t members, uint32_t waiting)
{
    open_started(members, waiting);
    cluster_elect(c, 1);
    cluster_pass(c, 61 * MS, true);
}

static uint8_t role(raft_member at, raft_member of)
{
    struct raft_configuration configuration;
    raft_configuration_read(cluster_core(c, at)->raft, false, &configuration);
    for (uint32_t i = 0; i < configuration.count; i++)
        if (configuration.members[i].id == of) return configuration.members[i].role;
    return 0;
}

static bool is_committed(raft_member at)
{
    struct raft_status status = cluster_status(c, at);
    return status.configuration_index <= status.commit;
}

/* Nothing on its way, nothing waiting for a disk; and the heartbeats that define "caught up" have passed. */
static void rest(void)
{
    cluster_settle(c);
    cluster_pass(c, 180 * MS, true);
}

static void add_learner(raft_member id)
{
    ck_assert_int_eq(cluster_change_role(lead, id, RAFT_LEARNER), RAFT_CHANGE_MAY);
    rest();
    ck_assert_uint_eq(role(id, id), RAFT_LEARNER);
}

static void set_up(raft_member id, bool up)
{
    for (uint32_t i = 0; i < c->count; i++) c->cut[i][id - 1] = c->cut[id - 1][i] = !up;
}

/* Complete one core's disk. */
static void flush(raft_member id)
{
    while (cluster_core(c, id)->pending_count > 0) cluster_disk_done(cluster_core(c, id), false);
}

START_TEST(a_configuration_is_in_force_where_it_is_appended_and_not_when_committed) /* R6; T31: etcd 7625 */
{
    open_led(3, 1);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    ck_assert_uint_eq(role(1, 4), RAFT_LEARNER);
    ck_assert(!is_committed(1));
    ck_assert_ptr_nonnull(cluster_sent(c, 1, 4, RAFT_APPEND)); /* at once */
    cluster_deliver_to(c, 2);
    ck_assert_uint_eq(role(2, 4), RAFT_LEARNER); /* not even durable there */
    ck_assert_uint_eq(role(3, 4), 0);
    struct raft_configuration committed;
    raft_configuration_read(cluster_core(c, 2)->raft, true, &committed);
    ck_assert_uint_eq(committed.count, 3);
    cluster_settle(c);
    ck_assert(is_committed(1));
    raft_configuration_read(lead->raft, true, &committed);
    ck_assert_uint_eq(committed.count, 4);
    cluster_close(c);
}
END_TEST

START_TEST(the_effects_say_that_the_configuration_changed_once)
{
    open_led(3, 1);
    ck_assert(!lead->effects->configuration_changed);
    cluster_change_role(lead, 4, RAFT_LEARNER);
    ck_assert(lead->effects->configuration_changed);
    cluster_take(lead);
    ck_assert(!lead->effects->configuration_changed);
    cluster_close(c);
}
END_TEST

/* Core 1 leads alone: it has proposed to add learner 4, and nobody heard of it; then core 2 leads and the others follow. */
static void open_with_lost_change(void)
{
    open_led(3, 1);
    set_up(1, false);
    cluster_drop_all(c);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    flush(1);
    cluster_drop_all(c);
    c->now_ns += 700 * MS;
    cluster_elect(c, 2);
}

START_TEST(a_cut_brings_the_configuration_before_back) /* R6; T31, T32 */
{
    open_with_lost_change();
    ck_assert_uint_eq(role(1, 4), RAFT_LEARNER);
    set_up(1, true);
    cluster_pass(c, 400 * MS, true);
    ck_assert_uint_eq(role(1, 4), 0);
    ck_assert_uint_eq(cluster_status(c, 1).configuration_index, 0);
    cluster_close(c);
}
END_TEST

START_TEST(a_cut_goes_back_to_a_configuration_whose_block_is_compacted) /* T32: canonical 250, 323 */
{
    open_led(3, 2);
    add_learner(5);
    raft_index before = cluster_status(c, 1).configuration_index;
    cluster_propose(lead, 64, false);
    cluster_settle(c);
    set_up(1, false);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    flush(1);
    cluster_drop_all(c);
    cluster_compact(lead, lead->commit);
    ck_assert_uint_gt(lead->base, before);
    cluster_crash(c, 1, 0); /* and it knows it again after a restart */
    cluster_start(c, 1);
    ck_assert_uint_eq(role(1, 4), RAFT_LEARNER);
    c->now_ns += 700 * MS;
    cluster_elect(c, 2);
    set_up(1, true);
    cluster_pass(c, 400 * MS, true);
    ck_assert_uint_eq(role(1, 4), 0);
    ck_assert_uint_eq(role(1, 5), RAFT_LEARNER);
    ck_assert_uint_eq(cluster_status(c, 1).configuration_index, before);
    cluster_close(c);
}
END_TEST

START_TEST(a_new_leader_counts_by_the_configuration_that_it_found_uncommitted) /* T31: NuRaft 67 */
{
    open_led(3, 2);
    add_learner(4);
    add_learner(5);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_MAY);
    cluster_deliver_to(c, 2); /* 2 holds it, not committed */
    flush(2);
    set_up(1, false);
    cluster_drop_all(c);
    c->now_ns += 700 * MS;
    cluster_time(cluster_core(c, 2));
    ck_assert_ptr_nonnull(cluster_sent(c, 2, 4, RAFT_PREVOTE)); /* 4 is a voter there already */
    cluster_settle(c);
    ck_assert_uint_eq(cluster_leader(c), 2);
    ck_assert(is_committed(2));
    ck_assert_uint_eq(role(2, 4), RAFT_VOTER); /* and the joint one is left (T36) */
    cluster_close(c);
}
END_TEST

START_TEST(no_change_before_a_block_of_the_own_term_is_committed) /* T30: the bug of 2015 */
{
    open_started(4, 1);
    c->propose_at_once = false;
    c->now_ns += 600 * MS;
    cluster_time(lead);
    cluster_settle(c);
    ck_assert(raft_is_leader(lead->raft));
    ck_assert_int_eq(cluster_change_role(lead, 5, RAFT_LEARNER), RAFT_CHANGE_NOT_YET);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEAVING), RAFT_CHANGE_NOT_YET);
    cluster_propose(lead, 64, false);
    ck_assert_int_eq(cluster_change_role(lead, 5, RAFT_LEARNER), RAFT_CHANGE_NOT_YET);
    cluster_settle(c);
    cluster_pass(c, 61 * MS, true);
    ck_assert_int_eq(cluster_change_role(lead, 5, RAFT_LEARNER), RAFT_CHANGE_MAY);
    cluster_close(c);
}
END_TEST

START_TEST(one_change_at_a_time_also_of_priorities) /* T30; T31: NuRaft 651, two at once through a side door */
{
    open_led(3, 2);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    ck_assert_int_eq(cluster_change_role(lead, 5, RAFT_LEARNER), RAFT_CHANGE_RUNS);
    struct raft_configuration target;
    raft_configuration_read(lead->raft, false, &target);
    target.members[0].priority = 9;
    ck_assert_int_eq(cluster_change(lead, &target, true), RAFT_CHANGE_RUNS); /* forced or not */
    cluster_settle(c);
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    cluster_close(c);
}
END_TEST

START_TEST(
    removals_at_two_leaders_at_once_never_make_two_majorities) /* T30: hydro 3192, Remove(1) and Remove(2) of 4 */
{
    open_led(4, 0);
    rest();
    set_up(1, false); /* 1 thinks that it leads */
    ck_assert_int_eq(cluster_change_role(lead, 2, RAFT_LEAVING), RAFT_CHANGE_MAY);
    flush(1);
    cluster_drop_all(c);
    c->now_ns += 700 * MS;
    cluster_elect(c, 2);
    cluster_pass(c, 100 * MS, true);
    struct cluster_core *second = cluster_core(c, 2);
    set_up(1, true);
    set_up(2, false);
    ck_assert_int_eq(cluster_change_role(second, 1, RAFT_LEAVING), RAFT_CHANGE_MAY);
    flush(2);
    cluster_drop_all(c);
    set_up(2, true); /* the cluster checks all from here on */
    cluster_pass(c, 3000 * MS, true);
    raft_member leader = cluster_leader(c);
    ck_assert_uint_ne(leader, 0);
    ck_assert(is_committed(leader));
    cluster_close(c);
}
END_TEST

START_TEST(a_learner_becomes_a_voter_through_a_joint_configuration) /* paper, section 6; thesis 4.3 */
{
    open_led(3, 1);
    add_learner(4);
    c->leave_at_once = false;
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_MAY);
    ck_assert_uint_eq(role(1, 4), RAFT_INCOMING);
    ck_assert(cluster_status(c, 1).joint);
    ck_assert(!lead->effects->leave_joint);
    cluster_settle(c);
    ck_assert(is_committed(1));
    ck_assert(lead->effects->leave_joint);
    cluster_take(lead);
    ck_assert(lead->effects->leave_joint); /* until it is done */
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_RUNS);
    cluster_leave_joint(lead);
    ck_assert(!lead->effects->leave_joint);
    ck_assert_uint_eq(role(1, 4), RAFT_VOTER);
    cluster_settle(c);
    for (raft_member id = 1; id <= 4; id++) ck_assert_uint_eq(role(id, 4), RAFT_VOTER);
    cluster_close(c);
}
END_TEST

START_TEST(while_joint_a_block_needs_a_majority_of_the_old_and_of_the_new) /* paper, section 6 */
{
    open_led(3, 2);
    add_learner(4);
    add_learner(5);
    struct raft_configuration target = {.count = 3,
                                        .members = {{1, RAFT_VOTER, 0}, {4, RAFT_VOTER, 0}, {5, RAFT_VOTER, 0}}};
    set_up(4, false);
    set_up(5, false);
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    cluster_settle(c);
    ck_assert(!is_committed(1)); /* 1, 2, 3 hold it */
    cluster_close(c);

    open_led(3, 2);
    add_learner(4);
    add_learner(5);
    set_up(2, false);
    set_up(3, false);
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    cluster_settle(c);
    ck_assert(!is_committed(1)); /* 1, 4, 5 hold it */
    set_up(3, true);
    cluster_pass(c, 200 * MS, true);
    ck_assert(is_committed(1));
    cluster_close(c);
}
END_TEST

/* Core 1 leads a joint configuration, committed and left by nobody: old voters 1 2 3, new ones 1 4 5. */
static void open_joint(void)
{
    open_led(3, 2);
    add_learner(4);
    add_learner(5);
    c->leave_at_once = false;
    struct raft_configuration target = {.count = 3,
                                        .members = {{1, RAFT_VOTER, 0}, {4, RAFT_VOTER, 0}, {5, RAFT_VOTER, 0}}};
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    rest();
    ck_assert(is_committed(1) && cluster_status(c, 1).joint);
}

START_TEST(while_joint_nobody_leads_without_both_majorities) /* paper, section 6 */
{
    for (raft_member down = 2; down <= 4; down += 2) {
        open_joint();
        set_up(1, false);
        cluster_crash(c, 1, 0);
        set_up(down, false); /* 2: of 1 2 3 only 3 is left; 4: of 1 4 5 only 5 */
        cluster_drop_all(c);
        cluster_pass(c, 3000 * MS, true);
        ck_assert_uint_eq(cluster_leader(c), 0);
        set_up(down, true);
        cluster_pass(c, 3000 * MS, true);
        ck_assert_uint_ne(cluster_leader(c), 0);
        cluster_close(c);
    }
}
END_TEST

START_TEST(while_joint_a_leader_that_misses_one_majority_steps_down) /* T17: leases count both */
{
    for (raft_member down = 2; down <= 4; down += 2) {
        open_joint();
        set_up(down, false);
        set_up(down + 1, false);
        cluster_pass(c, 700 * MS, true);
        ck_assert(!raft_is_leader(lead->raft));
        cluster_close(c);
    }
}
END_TEST

START_TEST(while_joint_a_read_needs_both_majorities) /* R5 */
{
    for (raft_member down = 2; down <= 4; down += 2) {
        open_joint();
        set_up(down, false);
        set_up(down + 1, false);
        uint64_t ticket;
        ck_assert_int_eq(cluster_read(lead, &ticket), 0);
        cluster_settle(c);
        ck_assert_uint_lt(lead->reads_ready, ticket);
        set_up(down, true);
        cluster_pass(c, 100 * MS, true);
        ck_assert_uint_ge(lead->reads_ready, ticket);
        cluster_close(c);
    }
}
END_TEST

START_TEST(a_new_leader_leaves_the_joint_configuration_that_it_found) /* T36: etcd 12359 */
{
    open_joint();
    raft_index joint = cluster_status(c, 1).configuration_index;
    c->leave_at_once = true;
    cluster_crash(c, 1, 0);
    cluster_pass(c, 2000 * MS, true);
    raft_member leader = cluster_leader(c);
    ck_assert_uint_ne(leader, 0);
    cluster_pass(c, 1000 * MS, true);
    leader = cluster_leader(c);
    ck_assert(leader == 4 || leader == 5); /* 2 and 3 are gone */
    ck_assert(is_committed(leader) && !cluster_status(c, leader).joint);
    ck_assert_uint_gt(cluster_status(c, leader).configuration_index, joint);
    ck_assert_uint_eq(role(leader, 2), 0);
    cluster_close(c);
}
END_TEST

START_TEST(who_was_no_member_is_a_learner_first) /* T36: the phantom voter */
{
    open_led(3, 1);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_NO_LEARNER);
    ck_assert_uint_eq(cluster_status(c, 1).configuration_index, 0);
    cluster_close(c);
}
END_TEST

START_TEST(who_lags_or_is_silent_is_not_promoted_unless_forced) /* T36; thesis 4.2.1 */
{
    open_led(3, 1);
    set_up(4, false);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    rest();
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_LAGS); /* it never spoke */
    set_up(4, true);
    cluster_core(c, 4)->room_bytes = 0; /* it speaks and takes nothing */
    cluster_pass(c, 200 * MS, true);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_LAGS);
    cluster_core(c, 4)->room_bytes = UINT64_MAX;
    cluster_pass(c, 700 * MS, true);
    for (uint32_t i = 0; i < 20; i++) cluster_propose(lead, 64, false); /* what came just now may be missing */
    struct raft_configuration next, target;
    raft_member about;
    raft_configuration_read(lead->raft, false, &target);
    target.members[3].role = RAFT_VOTER;
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, false, &next, &about), RAFT_CHANGE_MAY);
    cluster_settle(c);
    cluster_pass(c, 200 * MS, true);
    set_up(4, false); /* it holds everything, and is gone */
    cluster_pass(c, 400 * MS, true);
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, false, &next, &about), RAFT_CHANGE_LAGS);
    ck_assert_uint_eq(about, 4);
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, true, &next, &about), RAFT_CHANGE_MAY);
    cluster_close(c);
}
END_TEST

START_TEST(a_change_that_would_lose_the_quorum_is_refused_unless_forced)
{
    open_led(3, 0);
    set_up(3, false);
    cluster_pass(c, 400 * MS, true);
    struct raft_configuration target = {.count = 2, .members = {{1, RAFT_VOTER, 0}, {3, RAFT_VOTER, 0}}}, next;
    raft_member about = 0;
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, false, &next, &about), RAFT_CHANGE_LOSES_QUORUM);
    ck_assert_uint_eq(about, 3);
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, true, &next, &about), RAFT_CHANGE_MAY);
    ck_assert_int_eq(cluster_change_role(lead, 3, RAFT_LEAVING), RAFT_CHANGE_MAY); /* the dead one may go */
    cluster_settle(c);
    ck_assert(is_committed(1) && !cluster_status(c, 1).joint);
    cluster_close(c);
}
END_TEST

START_TEST(a_new_leader_does_not_take_a_voter_for_alive_that_it_never_heard)
{
    open_led(3, 0);
    set_up(3, false);
    cluster_pass(c, 400 * MS, true);
    cluster_transfer(lead, 2);
    cluster_settle(c);
    lead = cluster_core(c, 2);
    ck_assert(raft_is_leader(lead->raft));
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEAVING), RAFT_CHANGE_LOSES_QUORUM);
    cluster_close(c);
}
END_TEST

START_TEST(what_cannot_be_a_target_is_refused)
{
    open_led(3, 4);
    struct raft_configuration target, next;
    raft_member about;
    raft_configuration_read(lead->raft, false, &target);
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, false, &next, &about), RAFT_CHANGE_SAME);
    target.members[2].role = RAFT_OUTGOING;
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, false, &next, &about), RAFT_CHANGE_INVALID);
    target.members[2].role = RAFT_VOTER;
    target.members[2].id = 2;
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, false, &next, &about), RAFT_CHANGE_INVALID);
    target = (struct raft_configuration){.count = RAFT_MEMBERS_MAX, .members = {{1, RAFT_VOTER, 0}}};
    for (uint32_t i = 1; i < RAFT_MEMBERS_MAX; i++) {
        target.members[i].id = 50 + i;
        target.members[i].role = RAFT_LEARNER;
    }
    ck_assert_int_eq(raft_change_plan(lead->raft, &target, true, &next, &about),
                     RAFT_CHANGE_INVALID); /* 2 and 3 need room */
    ck_assert_int_eq(cluster_change_role(cluster_core(c, 2), 4, RAFT_LEARNER), RAFT_CHANGE_NOT_LEADER);
    cluster_transfer(lead, 2);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_NOT_YET); /* T15 */
    cluster_close(c);
}
END_TEST

START_TEST(a_smaller_quorum_commits_what_waited_for_the_larger) /* T28: NuRaft 488 */
{
    open_led(3, 0);
    rest();
    c->leave_at_once = false;
    struct raft_configuration target = {.count = 1, .members = {{1, RAFT_VOTER, 0}}};
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    cluster_settle(c);
    set_up(2, false);
    set_up(3, false);
    cluster_propose(lead, 64, false);
    cluster_settle(c);
    raft_index waits = lead->last;
    ck_assert_uint_eq(lead->commit, waits - 1);
    cluster_leave_joint(lead); /* in force at once, and nobody else is asked from here on */
    ck_assert_uint_eq(lead->commit, waits);
    cluster_settle(c);
    ck_assert_uint_eq(lead->commit, waits + 1); /* itself only when it is durable */
    cluster_propose(lead, 64, false);
    ck_assert_uint_eq(lead->commit, waits + 1);
    flush(1);
    ck_assert_uint_eq(lead->commit, waits + 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_smaller_quorum_answers_reads_that_waited_for_the_larger) /* T28, R5 */
{
    open_led(3, 0);
    rest();
    c->leave_at_once = false;
    struct raft_configuration target = {.count = 1, .members = {{1, RAFT_VOTER, 0}}};
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    cluster_settle(c);
    set_up(2, false);
    set_up(3, false);
    uint64_t ticket;
    ck_assert_int_eq(cluster_read(lead, &ticket), 0);
    ck_assert_uint_lt(lead->reads_ready, ticket);
    cluster_leave_joint(lead);
    ck_assert_uint_eq(lead->reads_ready, ticket);
    cluster_close(c);
}
END_TEST

START_TEST(a_removed_leader_leads_until_that_is_committed_and_then_hands_over) /* T35; thesis 4.2.2 */
{
    open_led(3, 0);
    rest();
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEAVING), RAFT_CHANGE_MAY);
    flush(1);
    cluster_deliver_to(c, 2);
    cluster_deliver_to(c, 3);
    flush(2);
    flush(3);
    cluster_deliver_to(c, 1); /* the joint one is committed, the next on its way */
    ck_assert_uint_eq(role(1, 1), 0);
    ck_assert(!is_committed(1));
    ck_assert(raft_is_leader(lead->raft));
    uint64_t term = cluster_status(c, 1).term;
    cluster_settle(c);
    cluster_pass(c, 5 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 1); /* handed over, no timeout */
    ck_assert_uint_eq(cluster_status(c, cluster_leader(c)).term, term + 1);
    cluster_pass(c, 70 * MS, true);
    ck_assert(!raft_is_leader(lead->raft)); /* the next heartbeat's answers tell it */
    cluster_pass(c, 3000 * MS, true);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    ck_assert_uint_eq(cluster_status(c, cluster_leader(c)).term, term + 1);
    cluster_close(c);
}
END_TEST

START_TEST(a_removed_leader_counts_only_the_others) /* thesis 4.2.2 */
{
    open_led(3, 0);
    rest();
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEAVING), RAFT_CHANGE_MAY);
    flush(1);
    cluster_deliver_to(c, 2);
    flush(2);
    cluster_deliver_to(c, 1);
    ck_assert_uint_ne(role(1, 1), 0); /* of 2 and 3 only one holds it: 1 and 2 are not enough */
    set_up(3, false);
    cluster_settle(c);
    ck_assert(!is_committed(1));
    cluster_close(c);
}
END_TEST

START_TEST(a_removed_leader_that_nobody_can_follow_stops_all_the_same) /* T35 */
{
    open_led(2, 0);
    rest();
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEAVING), RAFT_CHANGE_MAY);
    for (uint32_t i = 0; i < 100 && (role(1, 1) != 0 || !is_committed(1)); i++) {
        flush(1);
        flush(2);
        cluster_deliver_to(c, 2);
        flush(2);
        cluster_deliver_to(c, 1);
    }
    ck_assert(is_committed(1));
    ck_assert_uint_eq(role(1, 1), 0);
    cluster_crash(c, 2, 0);
    cluster_pass(c, 1 * MS, true);
    ck_assert_int_eq(cluster_propose(lead, 64, false), LOCKSTEP_EUNAVAILABLE); /* it hands over (T15) */
    cluster_pass(c, 400 * MS, true);
    ck_assert(!raft_is_leader(lead->raft));
    cluster_pass(c, 3000 * MS, true);
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER); /* and stays out */
    cluster_close(c);
}
END_TEST

START_TEST(a_removed_leader_whose_removal_is_not_committed_goes_on) /* T35: canonical 235 */
{
    open_led(3, 0);
    rest();
    c->leave_at_once = false;
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEAVING), RAFT_CHANGE_MAY);
    cluster_settle(c);
    set_up(3, false);
    cluster_leave_joint(lead);
    cluster_settle(c); /* of 2 and 3 one is not enough */
    ck_assert(!is_committed(1));
    cluster_pass(c, 100 * MS, true);
    ck_assert(cluster_status(c, 1).writable);
    set_up(3, true);
    cluster_pass(c, 200 * MS, true);
    ck_assert(!raft_is_leader(lead->raft));
    cluster_close(c);
}
END_TEST

START_TEST(a_removed_leader_tries_to_hand_over_once) /* T35: and blocks the others no longer */
{
    open_led(3, 0);
    rest();
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEAVING), RAFT_CHANGE_MAY);
    cluster_settle(c);
    uint64_t until = c->now_ns + 400 * MS;
    while (c->now_ns < until) {
        cluster_pass(c, 10 * MS, false);
        for (uint32_t i = 0; i < c->message_count;) /* the others do all they should, but never hear TIMEOUT_NOW */
            if (c->messages[i]->message.type == RAFT_TIMEOUT_NOW)
                cluster_drop(c, i);
            else
                i++;
        cluster_settle(c);
    }
    ck_assert(!raft_is_leader(lead->raft));
    cluster_pass(c, 2000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 0);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_that_becomes_a_learner_stops_too) /* T35: etcd-io/raft 1ebcc2d */
{
    open_led(3, 0);
    rest();
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEARNER), RAFT_CHANGE_MAY);
    cluster_settle(c);
    cluster_pass(c, 400 * MS, true);
    raft_member leader = cluster_leader(c);
    ck_assert(leader == 2 || leader == 3);
    ck_assert_uint_eq(role(leader, 1), RAFT_LEARNER);
    cluster_propose(cluster_core(c, leader), 64, false);
    cluster_settle(c);
    ck_assert_uint_eq(lead->last, cluster_core(c, leader)->last);
    cluster_close(c);
}
END_TEST

START_TEST(
    who_leaves_may_be_the_only_one_that_can_lead) /* thesis 4.2.2: it holds the block, and the rest need its vote */
{
    open_led(2, 0);
    rest();
    c->leave_at_once = false;
    ck_assert_int_eq(cluster_change_role(lead, 1, RAFT_LEAVING), RAFT_CHANGE_MAY);
    cluster_settle(c);
    cluster_leave_joint(lead);
    flush(1);
    cluster_drop_all(c);
    cluster_crash(c, 1, 0);
    cluster_start(c, 1);
    ck_assert_uint_eq(role(1, 1), 0);
    ck_assert(!is_committed(1));
    cluster_pass(c, 3000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 2); /* 1 led, committed it, and handed over */
    ck_assert_uint_eq(role(2, 1), 0);
    ck_assert(is_committed(2));
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    cluster_close(c);
}
END_TEST

START_TEST(who_knows_that_it_was_removed_never_campaigns) /* T12 */
{
    open_led(3, 0);
    rest();
    cluster_change_role(lead, 1, RAFT_LEAVING);
    cluster_settle(c);
    cluster_pass(c, 400 * MS, true);
    ck_assert(is_committed(1));
    cluster_drop_all(c);
    for (uint32_t i = 0; i < 20; i++) {
        c->now_ns += 600 * MS;
        cluster_time(lead);
    }
    ck_assert_int_eq(cluster_status(c, 1).role, RAFT_FOLLOWER);
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_PREVOTE), 0);
    cluster_close(c);
}
END_TEST

START_TEST(who_does_not_know_that_it_was_removed_disturbs_nobody) /* T12; thesis 4.2.3 */
{
    open_led(3, 0);
    rest();
    cluster_change_role(lead, 3, RAFT_LEAVING);
    cluster_deliver_to(c, 3); /* the joint one; of leaving it, it never hears */
    flush(3);
    cluster_settle(c);
    ck_assert_uint_eq(role(1, 3), 0);
    ck_assert_uint_eq(role(3, 3), RAFT_LEAVING);
    raft_term term = cluster_status(c, 1).term;
    cluster_pass(c, 10000 * MS, true); /* it asks again and again */
    ck_assert_int_eq(cluster_status(c, 3).role, RAFT_PRECANDIDATE);
    ck_assert_uint_eq(cluster_leader(c), 1);
    ck_assert_uint_eq(cluster_status(c, 1).term, term);
    cluster_crash(c, 1, 0); /* nor does it win when nobody leads: the others hold the block that it lacks */
    cluster_pass(c, 3000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 3);
    cluster_close(c);
}
END_TEST

START_TEST(nothing_from_a_removed_member_counts) /* T12, T25, R11 */
{
    open_led(3, 0);
    rest();
    cluster_change_role(lead, 3, RAFT_LEAVING);
    cluster_settle(c);
    set_up(2, false);
    cluster_propose(lead, 64, false);
    flush(1);
    cluster_drop_all(c);
    raft_index last = lead->last;
    struct raft_message m = {.type = RAFT_ACK,
                             .from = 3,
                             .to = 1,
                             .term = cluster_status(c, 1).term,
                             .as.ack = {.durable_index = last, .validated_index = last, .round = 1}};
    ck_assert_int_eq(cluster_inject(lead, &m, NULL, 0), 0);
    ck_assert_uint_lt(lead->commit, last);
    cluster_close(c);
}
END_TEST

START_TEST(an_ack_from_before_a_removal_does_not_count_after_the_return) /* R11; T25: raft-rejoin-bug */
{
    open_led(3, 1);
    add_learner(4);
    cluster_propose(lead, 64, false);
    cluster_deliver_to(c, 4);
    flush(4);
    const struct raft_message *ack = cluster_sent(c, 4, 1, RAFT_ACK);
    ck_assert_ptr_nonnull(ack);
    struct raft_message late = *ack;
    cluster_drop_all(c);
    ck_assert_uint_eq(late.as.ack.durable_index, lead->last);
    cluster_settle(c); /* no heartbeat passes between the two memberships */
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEAVING), RAFT_CHANGE_MAY);
    cluster_settle(c);
    set_up(4, false); /* the one that comes back has lost everything */
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    cluster_settle(c);
    ck_assert_int_eq(cluster_inject(lead, &late, NULL, 0), 0);
    struct raft_status status = cluster_status(c, 1);
    ck_assert_uint_eq(status.peers[status.peer_count - 1].id, 4);
    ck_assert_uint_eq(status.peers[status.peer_count - 1].match, 0);
    set_up(4, true);
    cluster_pass(c, 400 * MS, true); /* what it says now counts */
    status = cluster_status(c, 1);
    ck_assert_uint_eq(status.peers[status.peer_count - 1].match, lead->last);
    cluster_close(c);
}
END_TEST

START_TEST(a_promoted_learner_that_does_not_know_it_votes) /* T11: etcd-io/raft abb533c */
{
    open_led(3, 1);
    add_learner(4);
    set_up(4, false);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_MAY);
    cluster_settle(c);
    ck_assert_uint_eq(role(1, 4), RAFT_VOTER);
    ck_assert_uint_eq(role(4, 4), RAFT_LEARNER);
    cluster_crash(c, 1, 0);
    cluster_crash(c, 3, 0);
    set_up(4, true); /* of 1 2 3 4 only 2 and 4 are left, and 1 comes back: 2 needs the vote of 4 as well */
    cluster_start(c, 1);
    set_up(1, false);
    cluster_drop_all(c);
    cluster_pass(c, 2000 * MS, true);
    ck_assert_uint_eq(cluster_leader(c), 0); /* two of four are none */
    cluster_start(c, 3);
    set_up(3, true);
    set_up(1, false);
    cluster_pass(c, 3000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 0);
    ck_assert_uint_eq(role(4, 4), RAFT_VOTER);
    cluster_close(c);
}
END_TEST

START_TEST(who_joins_reads_old_configurations_without_itself_and_stays) /* T35: NuRaft 78 */
{
    open_led(3, 2);
    add_learner(5);
    cluster_change_role(lead, 5, RAFT_LEAVING);
    cluster_settle(c);
    c->options.append_bytes_max = 64; /* a block a message: it sees every one of the past */
    add_learner(4);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_MAY);
    rest();
    ck_assert_uint_eq(role(4, 4), RAFT_VOTER);
    ck_assert_uint_eq(cluster_core(c, 4)->last, lead->last);
    cluster_crash(c, 1, 0);
    cluster_crash(c, 2, 0);
    cluster_start(c, 2);
    cluster_pass(c, 3000 * MS, true);
    ck_assert_uint_ne(cluster_leader(c), 0);
    cluster_close(c);
}
END_TEST

START_TEST(a_change_during_a_partition_loses_nothing) /* T37: redisraft 17, 28, 44 */
{
    open_led(5, 0);
    rest();
    set_up(4, false);
    set_up(5, false);
    cluster_propose(lead, 64, false);
    cluster_settle(c);
    ck_assert_int_eq(cluster_change_role(lead, 5, RAFT_LEAVING), RAFT_CHANGE_MAY);
    cluster_settle(c);
    cluster_pass(c, 400 * MS, true);
    struct raft_configuration two = {.count = 2, .members = {{1, RAFT_VOTER, 0}, {4, RAFT_VOTER, 0}}};
    ck_assert_int_eq(cluster_change(lead, &two, false), RAFT_CHANGE_LOSES_QUORUM);
    cluster_propose(lead, 64, false);
    cluster_settle(c);
    raft_index last = lead->commit;
    ck_assert_uint_eq(last, lead->last);
    set_up(1, false);
    set_up(4, true);
    set_up(5, true); /* 2 3 4 and the removed 5 see each other */
    c->cut[0][3] = c->cut[3][0] = c->cut[0][4] = c->cut[4][0] = true;
    cluster_pass(c, 4000 * MS, true);
    raft_member leader = cluster_leader(c);
    ck_assert(leader == 2 || leader == 3); /* 4 lacks what was committed */
    ck_assert_uint_ge(cluster_core(c, leader)->commit, last);
    cluster_close(c);
}
END_TEST

START_TEST(an_installed_snapshot_brings_its_configuration) /* T33: openraft 1808 */
{
    open_led(3, 2);
    set_up(3, false);
    add_learner(4);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_MAY);
    rest();
    cluster_compact(lead, lead->commit);
    cluster_compact(cluster_core(c, 2), cluster_core(c, 2)->commit);
    cluster_compact(cluster_core(c, 4), cluster_core(c, 4)->commit);
    set_up(3, true);
    cluster_pass(c, 3000 * MS, true);
    ck_assert_uint_eq(cluster_core(c, 3)->installs, 1);
    ck_assert_uint_eq(role(3, 4), RAFT_VOTER);
    ck_assert_uint_eq(cluster_status(c, 3).configuration_index, cluster_status(c, 1).configuration_index);
    cluster_crash(c, 3, 0);
    cluster_start(c, 3);
    ck_assert_uint_eq(role(3, 4), RAFT_VOTER);
    cluster_close(c);
}
END_TEST

START_TEST(who_joins_behind_a_compacted_log_gets_a_snapshot)
{
    open_led(3, 1);
    for (uint32_t i = 0; i < 10; i++) cluster_propose(lead, 64, false);
    cluster_settle(c);
    cluster_compact(lead, lead->commit);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    cluster_pass(c, 3000 * MS, true);
    ck_assert_uint_eq(cluster_core(c, 4)->installs, 1);
    ck_assert_uint_eq(role(4, 4), RAFT_LEARNER);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_VOTER), RAFT_CHANGE_MAY);
    cluster_settle(c);
    ck_assert_uint_eq(role(4, 4), RAFT_VOTER);
    cluster_close(c);
}
END_TEST

START_TEST(a_load_that_was_asked_for_a_removed_member_is_dropped)
{
    open_led(3, 1);
    add_learner(4);
    set_up(4, false);
    for (uint32_t i = 0; i < 5; i++) cluster_propose(lead, 64, false);
    cluster_settle(c);
    lead->ring_first = lead->commit + 1;
    set_up(4, true);
    for (uint32_t i = 0; i < 100 && lead->loads[3].peer == 0; i++) {
        c->now_ns += 10 * MS;
        cluster_time(lead);
        cluster_deliver_to(c, 4);
        flush(4);
        cluster_deliver_to(c, 1);
    }
    ck_assert_uint_eq(lead->loads[3].peer, 4);
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEAVING), RAFT_CHANGE_MAY);
    ck_assert(cluster_load_done(lead, true, false));
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_RUNS);
    cluster_settle(c);
    cluster_close(c);
}
END_TEST

START_TEST(a_configuration_passes_where_uncommitted_bytes_are_at_their_bound) /* R10: the reserve */
{
    c = cluster_open(4, 0, 11);
    cluster_leave_out(c, 1);
    c->options.uncommitted_bytes_max = 1000;
    cluster_start_all(c);
    lead = cluster_core(c, 1);
    cluster_elect(c, 1);
    cluster_pass(c, 61 * MS, true);
    while (cluster_propose(lead, 100, false) == 0) {
    }
    ck_assert_int_eq(cluster_change_role(lead, 4, RAFT_LEARNER), RAFT_CHANGE_MAY);
    cluster_settle(c);
    ck_assert(is_committed(1));
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_that_skips_the_joint_configuration_is_reported) /* T34: historical configurations, {n3} alone */
{
    open_started(3, 0);
    struct raft_configuration alone = {.count = 1, .members = {{3, RAFT_VOTER, 0}}};
    struct raft_entry entry = {.index = 1, .term = 1, .bytes = 64, .configuration = &alone};
    struct raft_message m = {
        .type = RAFT_APPEND, .from = 3, .to = 1, .term = 1, .as.append = {.previous_index = 0, .last_index = 1}};
    ck_assert_int_eq(cluster_inject(lead, &m, &entry, 1), LOCKSTEP_EPROTO);
    ck_assert_uint_eq(lead->last, 0);
    ck_assert_uint_eq(role(1, 2), RAFT_VOTER);
    alone.members[0].id = 0; /* no configuration at all */
    ck_assert_int_eq(cluster_inject(lead, &m, &entry, 1), LOCKSTEP_EINVAL);
    cluster_close(c);
}
END_TEST

START_TEST(a_cut_below_a_replaced_configuration_is_reported) /* it was committed, known here or not (T30, T14) */
{
    open_started(3, 0);
    struct raft_configuration first = c->configuration, second = c->configuration;
    first.members[0].priority = 1;
    second.members[0].priority = 2;
    struct raft_entry entries[] = {{1, 1, 64, &first}, {2, 1, 64, &second}};
    struct raft_message m = {
        .type = RAFT_APPEND, .from = 3, .to = 1, .term = 1, .as.append = {.previous_index = 0, .last_index = 2}};
    ck_assert_int_eq(cluster_inject(lead, &m, entries, 2), 0);
    flush(1);
    struct raft_entry other = {.index = 1, .term = 2, .bytes = 64};
    m.from = 2;
    m.term = 2;
    m.as.append.last_index = 1;
    ck_assert_int_eq(cluster_inject(lead, &m, &other, 1), LOCKSTEP_EPROTO);
    ck_assert_uint_eq(lead->last, 2);
    other.index = 2; /* the newest may go */
    m.as.append = (struct raft_append){.previous_index = 1, .previous_term = 1, .last_index = 2};
    ck_assert_int_eq(cluster_inject(lead, &m, &other, 1), 0);
    struct raft_configuration now;
    raft_configuration_read(lead->raft, false, &now);
    ck_assert_uint_eq(now.members[0].priority, 1);
    raft_configuration_read(lead->raft, true, &now); /* it was replaced once, so it is the committed one */
    ck_assert_uint_eq(now.count, 3);
    ck_assert_uint_eq(now.members[0].priority, 1);
    flush(1);
    other = (struct raft_entry){.index = 1, .term = 3, .bytes = 64}; /* and that one stays, also at a second cut */
    m.term = 3;
    m.as.append = (struct raft_append){.previous_index = 0, .last_index = 1};
    ck_assert_int_eq(cluster_inject(lead, &m, &other, 1), LOCKSTEP_EPROTO);
    cluster_close(c);
}
END_TEST

START_TEST(who_leaves_is_no_target_of_a_transfer) /* T15: a demoted target */
{
    open_joint();
    ck_assert_int_eq(cluster_transfer(lead, 2), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(cluster_transfer(lead, 4), 0);
    cluster_settle(c);
    ck_assert_uint_eq(cluster_leader(c), 4);
    cluster_close(c);
}
END_TEST

START_TEST(several_members_are_replaced_at_once) /* thesis 4.3: what single steps cannot do */
{
    open_led(3, 3);
    for (raft_member id = 4; id <= 6; id++) add_learner(id);
    struct raft_configuration target = {.count = 3,
                                        .members = {{4, RAFT_VOTER, 0}, {5, RAFT_VOTER, 0}, {6, RAFT_VOTER, 0}}};
    ck_assert_int_eq(cluster_change(lead, &target, false), RAFT_CHANGE_MAY);
    cluster_settle(c);
    cluster_pass(c, 400 * MS, true);
    raft_member leader = cluster_leader(c);
    ck_assert_uint_ge(leader, 4);
    struct raft_configuration now;
    raft_configuration_read(cluster_core(c, leader)->raft, true, &now);
    ck_assert(raft_configuration_is_same(&now, &target));
    cluster_close(c);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_configuration_is_in_force_where_it_is_appended_and_not_when_committed);
    tcase_add_test(tests, the_effects_say_that_the_configuration_changed_once);
    tcase_add_test(tests, a_cut_brings_the_configuration_before_back);
    tcase_add_test(tests, a_cut_goes_back_to_a_configuration_whose_block_is_compacted);
    tcase_add_test(tests, a_new_leader_counts_by_the_configuration_that_it_found_uncommitted);
    tcase_add_test(tests, no_change_before_a_block_of_the_own_term_is_committed);
    tcase_add_test(tests, one_change_at_a_time_also_of_priorities);
    tcase_add_test(tests, removals_at_two_leaders_at_once_never_make_two_majorities);
    tcase_add_test(tests, a_learner_becomes_a_voter_through_a_joint_configuration);
    tcase_add_test(tests, while_joint_a_block_needs_a_majority_of_the_old_and_of_the_new);
    tcase_add_test(tests, while_joint_nobody_leads_without_both_majorities);
    tcase_add_test(tests, while_joint_a_leader_that_misses_one_majority_steps_down);
    tcase_add_test(tests, while_joint_a_read_needs_both_majorities);
    tcase_add_test(tests, a_new_leader_leaves_the_joint_configuration_that_it_found);
    tcase_add_test(tests, who_was_no_member_is_a_learner_first);
    tcase_add_test(tests, who_lags_or_is_silent_is_not_promoted_unless_forced);
    tcase_add_test(tests, a_change_that_would_lose_the_quorum_is_refused_unless_forced);
    tcase_add_test(tests, a_new_leader_does_not_take_a_voter_for_alive_that_it_never_heard);
    tcase_add_test(tests, what_cannot_be_a_target_is_refused);
    tcase_add_test(tests, a_smaller_quorum_commits_what_waited_for_the_larger);
    tcase_add_test(tests, a_smaller_quorum_answers_reads_that_waited_for_the_larger);
    tcase_add_test(tests, a_removed_leader_whose_removal_is_not_committed_goes_on);
    tcase_add_test(tests, a_removed_leader_tries_to_hand_over_once);
    tcase_add_test(tests, a_removed_leader_leads_until_that_is_committed_and_then_hands_over);
    tcase_add_test(tests, a_removed_leader_counts_only_the_others);
    tcase_add_test(tests, a_removed_leader_that_nobody_can_follow_stops_all_the_same);
    tcase_add_test(tests, a_leader_that_becomes_a_learner_stops_too);
    tcase_add_test(tests, who_leaves_may_be_the_only_one_that_can_lead);
    tcase_add_test(tests, who_knows_that_it_was_removed_never_campaigns);
    tcase_add_test(tests, who_does_not_know_that_it_was_removed_disturbs_nobody);
    tcase_add_test(tests, nothing_from_a_removed_member_counts);
    tcase_add_test(tests, an_ack_from_before_a_removal_does_not_count_after_the_return);
    tcase_add_test(tests, a_promoted_learner_that_does_not_know_it_votes);
    tcase_add_test(tests, who_joins_reads_old_configurations_without_itself_and_stays);
    tcase_add_test(tests, a_change_during_a_partition_loses_nothing);
    tcase_add_test(tests, an_installed_snapshot_brings_its_configuration);
    tcase_add_test(tests, who_joins_behind_a_compacted_log_gets_a_snapshot);
    tcase_add_test(tests, a_load_that_was_asked_for_a_removed_member_is_dropped);
    tcase_add_test(tests, a_configuration_passes_where_uncommitted_bytes_are_at_their_bound);
    tcase_add_test(tests, a_leader_that_skips_the_joint_configuration_is_reported);
    tcase_add_test(tests, a_cut_below_a_replaced_configuration_is_reported);
    tcase_add_test(tests, who_leaves_is_no_target_of_a_transfer);
    tcase_add_test(tests, several_members_are_replaced_at_once);
}

int main(void)
{
    return unit_main("raft membership", add);
}
