/* SPDX-License-Identifier: Apache-2.0 */
/* test_follower.c - what a follower makes of a leader's messages. Core 1 follows; its leaders are made up here.
 * Blocks are 100 bytes. The core's own checks run after every step. */
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/raft/cluster.h"

static const uint64_t MS = 1000000;
static struct cluster *c;
static struct cluster_core *core;

static void open_with(const raft_term *terms, uint32_t count, raft_index commit, raft_term term)
{
    c = cluster_open(3, 0, 1);
    core = cluster_core(c, 1);
    cluster_lay_log(c, 1, terms, count, commit, (struct raft_hard_state){.term = term});
    for (raft_index i = 1; i <= commit; i++) c->committed[i] = core->disk[i];
    c->committed_last = commit;
    cluster_start(c, 1);
}

/* Leader 2 of `term`: blocks of these terms behind (previous, previous_term), commit. */
static int append(raft_term term, raft_index previous, raft_term previous_term, const raft_term *terms, uint32_t count,
                  raft_index commit)
{
    struct raft_message m = {
        .type = RAFT_APPEND,
        .from = 2,
        .to = 1,
        .term = term,
        .as.append = {.previous_index = previous,
                      .previous_term = previous_term,
                      .last_index = previous + count,
                      .commit = commit,
                      .round = 1},
    };
    struct raft_entry entries[CLUSTER_ENTRIES_MAX];
    for (uint32_t i = 0; i < count; i++)
        entries[i] = (struct raft_entry){.index = previous + 1 + i, .term = terms[i], .bytes = 100};
    return cluster_inject(core, &m, entries, count);
}

static int heartbeat(raft_term term, raft_index match, raft_term match_term, raft_index commit, uint64_t round)
{
    struct raft_message m = {
        .type = RAFT_HEARTBEAT,
        .from = 2,
        .to = 1,
        .term = term,
        .as.heartbeat = {.match_index = match, .match_term = match_term, .commit = commit, .round = round},
    };
    return cluster_inject(core, &m, NULL, 0);
}

static void flush(void)
{
    while (core->pending_count > 0) cluster_disk_done(core, false);
}

static const struct raft_ack *ack(void)
{
    const struct raft_message *m = cluster_sent(c, 1, 2, RAFT_ACK);
    ck_assert_ptr_nonnull(m);
    return &m->as.ack;
}

#define TERMS(...)                                                                                                     \
    (const raft_term[]){__VA_ARGS__}, (uint32_t)(sizeof((const raft_term[]){__VA_ARGS__}) / sizeof(raft_term))

START_TEST(an_ack_is_held_until_the_term_and_the_block_are_durable) /* R7 */
{
    open_with(TERMS(1), 0, 1);
    ck_assert_int_eq(append(2, 1, 1, TERMS(2, 2), 0), 0);
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_ACK)); /* term 2 is not on disk */
    cluster_disk_done(core, false);
    ck_assert_uint_eq(ack()->durable_index, 3);
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_ACK), 1);
    cluster_drop_all(c);
    ck_assert_int_eq(append(2, 3, 2, TERMS(2), 0), 0);
    ck_assert_ptr_null(cluster_sent(c, 1, 2, RAFT_ACK)); /* one ack for one append: the flush brings it */
    cluster_disk_done(core, false);
    ck_assert_uint_eq(ack()->durable_index, 4);
    cluster_close(c);
}
END_TEST

START_TEST(an_ack_says_nothing_of_blocks_that_this_leader_did_not_show) /* R2: v; T19, T21, ra 508 */
{
    open_with(TERMS(1, 1, 1, 1, 1), 0, 1);
    ck_assert_int_eq(append(2, 1, 1, TERMS(1), 0), 0);
    flush();
    ck_assert_uint_eq(ack()->durable_index, 2); /* 3..5 are durable here, and may be another leader's */
    cluster_close(c);
}
END_TEST

START_TEST(heartbeats_are_acked_at_once_while_the_disk_is_busy) /* R2: read rounds never queue behind the disk */
{
    open_with(TERMS(1), 0, 1);
    append(2, 1, 1, TERMS(2), 0);
    flush();
    append(2, 2, 2, TERMS(2), 0);
    cluster_drop_all(c);
    ck_assert_int_eq(heartbeat(2, 2, 2, 0, 5), 0);
    ck_assert_uint_eq(core->pending_count, 1);
    ck_assert_uint_eq(ack()->round, 5);
    ck_assert_uint_eq(ack()->durable_index, 2);
    cluster_close(c);
}
END_TEST

START_TEST(flushes_of_one_turn_are_acked_once)
{
    open_with(TERMS(1), 0, 1);
    append(1, 1, 1, TERMS(1), 0);
    append(1, 2, 1, TERMS(1), 0);
    cluster_disk_done(core, true);
    cluster_disk_done(core, true);
    cluster_take(core);
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_ACK), 1);
    ck_assert_uint_eq(ack()->durable_index, 3);
    cluster_close(c);
}
END_TEST

START_TEST(a_new_term_starts_with_nothing_validated) /* R2 */
{
    open_with(TERMS(1, 1), 0, 1);
    append(1, 2, 1, TERMS(1), 0);
    flush();
    ck_assert_uint_eq(cluster_status(c, 1).validated_index, 3);
    ck_assert_int_eq(heartbeat(2, 0, 0, 3, 1), 0);
    ck_assert_uint_eq(cluster_status(c, 1).validated_index, 0);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 0); /* R3 */
    cluster_close(c);
}
END_TEST

START_TEST(a_heartbeat_with_a_match_validates_and_commits_without_blocks) /* R2, R3; T24: the commit hint is not lost */
{
    open_with(TERMS(1, 1, 1), 0, 1);
    c->committed[1] = core->disk[1];
    c->committed[2] = core->disk[2];
    c->committed_last = 2;
    ck_assert_int_eq(heartbeat(1, 2, 1, 3, 1), 0);
    ck_assert_uint_eq(cluster_status(c, 1).validated_index, 2);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 2); /* not 3, though it is here */
    cluster_close(c);
}
END_TEST

START_TEST(commit_never_passes_what_this_message_showed) /* R3; T19 */
{
    open_with(TERMS(1, 1, 1, 1), 0, 1);
    c->committed[1] = core->disk[1];
    c->committed[2] = core->disk[2];
    c->committed_last = 2;
    ck_assert_int_eq(append(3, 1, 1, TERMS(1), 4), 0); /* the leader's 3 and 4 differ from ours */
    ck_assert_uint_eq(cluster_status(c, 1).commit, 2);
    cluster_close(c);
}
END_TEST

START_TEST(late_and_repeated_appends_leave_a_matching_log_alone) /* T20 */
{
    open_with(TERMS(1), 0, 1);
    append(2, 1, 1, TERMS(2, 2, 2, 2), 0);
    flush();
    ck_assert_int_eq(append(2, 1, 1, TERMS(2), 0), 0);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 5);
    ck_assert_uint_eq(cluster_status(c, 1).validated_index, 5);
    ck_assert_uint_eq(core->pending_count, 0);
    ck_assert_uint_eq(ack()->durable_index, 5);
    cluster_close(c);
}
END_TEST

START_TEST(only_a_contradicting_block_cuts_and_it_takes_the_place) /* thesis 3.5 */
{
    open_with(TERMS(1, 1, 1, 1), 0, 3);
    ck_assert_int_eq(append(3, 1, 1, TERMS(1, 3), 0), 0);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 3);
    ck_assert_uint_eq(raft_term_at(core->raft, 2), 1);
    ck_assert_uint_eq(raft_term_at(core->raft, 3), 3);
    ck_assert_uint_eq(cluster_status(c, 1).durable_index, 2);
    ck_assert_uint_eq(core->pending[0].first, 3);
    cluster_close(c);
}
END_TEST

START_TEST(a_gap_is_refused_with_our_end_as_hint)
{
    open_with(TERMS(1, 1), 0, 2);
    ck_assert_int_eq(append(2, 7, 2, TERMS(2), 0), 0);
    ck_assert(ack()->rejected);
    ck_assert_uint_eq(ack()->rejected_index, 7);
    ck_assert_uint_eq(ack()->hint_index, 2);
    ck_assert_uint_eq(ack()->hint_term, 1);
    ck_assert_uint_eq(ack()->durable_index, 0);
    cluster_close(c);
}
END_TEST

START_TEST(a_mismatch_is_refused_with_the_last_term_that_may_agree) /* thesis 3.5; T27 */
{
    open_with(TERMS(1, 1, 4, 4, 4), 0, 6);
    ck_assert_int_eq(append(6, 5, 3, TERMS(6), 0),
                     0); /* the leader's block 5 is of term 3: ours of term 4 are not its */
    ck_assert(ack()->rejected);
    ck_assert_uint_eq(ack()->hint_index, 2);
    ck_assert_uint_eq(ack()->hint_term, 1);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 5);
    cluster_close(c);
}
END_TEST

START_TEST(a_refusal_stands_when_its_gap_is_filled_in_the_same_turn) /* what it refused is still missing */
{
    open_with(TERMS(1), 0, 2);
    heartbeat(2, 0, 0, 0, 1);
    cluster_drop_all(c);
    struct raft_message late = {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 2, .as.append = {2, 2, 3, 0, 1}};
    struct raft_entry third = {3, 2, 100, NULL};
    struct raft_event event = {
        .type = RAFT_EVENT_MESSAGE, .now_ns = c->now_ns, .as.message = {&late, &third, 1, UINT64_MAX}};
    struct raft_result result;
    raft_step(core->raft, &event, &result); /* not taken yet */
    ck_assert_uint_eq(result.accept_first, 0);
    append(2, 1, 1, TERMS(2), 0);
    ck_assert_uint_eq(cluster_sent_count(c, 1, 2, RAFT_ACK), 1);
    ck_assert(ack()->rejected);
    ck_assert_uint_eq(ack()->rejected_index, 2);
    ck_assert_uint_eq(ack()->validated_index, 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_late_write_of_cut_blocks_is_not_acked) /* T22: etcd raft, append race */
{
    open_with(TERMS(1), 0, 1);
    append(1, 1, 1, TERMS(1, 1), 0); /* persist 1: blocks 2, 3 of term 1 */
    append(2, 1, 1, TERMS(2, 2), 0); /* persist 2: cut, other blocks 2, 3, and term 2 */
    cluster_disk_done(core, false);  /* the old one is done */
    ck_assert_uint_eq(cluster_status(c, 1).durable_index, 1);
    const struct raft_message *m = cluster_sent(c, 1, 2, RAFT_ACK);
    ck_assert(m == NULL || m->as.ack.durable_index <= 1);
    cluster_disk_done(core, false);
    ck_assert_uint_eq(ack()->durable_index, 3);
    cluster_close(c);
}
END_TEST

START_TEST(a_full_ring_drops_the_payload_says_so_and_keeps_the_old_log) /* R10; T23 */
{
    open_with(TERMS(1, 1, 1), 0, 2);
    core->room_bytes = 99;
    ck_assert_int_eq(append(2, 1, 1, TERMS(2, 2), 0), 0);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 3); /* nothing is cut without its replacement */
    ck_assert(ack()->full);
    ck_assert_uint_eq(ack()->validated_index, 1);
    cluster_drop_all(c);
    core->room_bytes = 199; /* one of two */
    ck_assert_int_eq(append(2, 1, 1, TERMS(2, 2), 0), 0);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 2);
    ck_assert_uint_eq(raft_term_at(core->raft, 2), 2);
    ck_assert(ack()->full);
    ck_assert_uint_eq(ack()->validated_index, 2);
    cluster_close(c);
}
END_TEST

START_TEST(a_full_ring_still_hears_its_leader) /* R10 */
{
    open_with(TERMS(1), 0, 2);
    core->room_bytes = 0;
    append(2, 1, 1, TERMS(2), 0);
    ck_assert_uint_eq(cluster_status(c, 1).leader, 2);
    ck_assert_uint_ge(core->deadline_ns, c->now_ns + 300 * MS);
    cluster_close(c);
}
END_TEST

START_TEST(a_contradiction_of_the_committed_is_reported_and_changes_no_block) /* T14, T20; CCF 5991 */
{
    open_with(TERMS(1, 1, 1), 2, 2);
    ck_assert_int_eq(append(2, 1, 1, TERMS(2), 0), LOCKSTEP_EPROTO); /* block 2 is committed */
    ck_assert_int_eq(append(2, 2, 2, TERMS(2), 0), LOCKSTEP_EPROTO); /* so is its term */
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 3);
    ck_assert_uint_eq(raft_term_at(core->raft, 2), 1);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_that_contradicts_itself_is_reported) /* T14 */
{
    open_with(TERMS(1), 0, 1);
    append(3, 1, 1, TERMS(2, 2), 0);
    ck_assert_int_eq(append(3, 1, 1, TERMS(2, 3), 0), LOCKSTEP_EPROTO);
    ck_assert_int_eq(append(3, 3, 3, TERMS(3), 0), LOCKSTEP_EPROTO);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 3);
    cluster_close(c);
}
END_TEST

START_TEST(a_leader_that_knows_of_acked_blocks_that_are_gone_is_believed) /* T14: our disk forgot a promise */
{
    open_with(TERMS(1, 1), 0, 1);
    ck_assert_int_eq(heartbeat(1, 5, 1, 0, 1), LOCKSTEP_EPROTO);
    ck_assert_uint_eq(cluster_status(c, 1).validated_index, 0);
    cluster_close(c);
}
END_TEST

START_TEST(malformed_appends_are_refused_whole)
{
    open_with(TERMS(1), 0, 1);
    ck_assert_int_eq(append(3, 1, 1, TERMS(3, 2), 0), LOCKSTEP_EINVAL); /* terms fall */
    ck_assert_int_eq(append(3, 1, 1, TERMS(4), 0), LOCKSTEP_EINVAL);    /* a term to come */
    ck_assert_int_eq(append(3, 0, 0, TERMS(0), 0), LOCKSTEP_EINVAL);
    ck_assert_int_eq(append(3, 1, 3, TERMS(2), 0), LOCKSTEP_EINVAL);
    struct raft_message m = {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 3, .as.append = {1, 1, 2, 0, 0}};
    struct raft_entry gap[] = {{3, 3, 100, NULL}};
    ck_assert_int_eq(cluster_inject(core, &m, gap, 1), LOCKSTEP_EINVAL);
    struct raft_entry more[] = {{2, 3, 100, NULL}, {3, 3, 100, NULL}};
    ck_assert_int_eq(cluster_inject(core, &m, more, 2), LOCKSTEP_EINVAL);
    ck_assert_uint_eq(cluster_status(c, 1).term, 1);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 1);
    cluster_close(c);
}
END_TEST

START_TEST(appends_of_an_old_term_change_nothing)
{
    open_with(TERMS(1, 1), 0, 5);
    ck_assert_int_eq(append(4, 1, 1, TERMS(4), 2), 0);
    ck_assert_uint_eq(cluster_status(c, 1).last_index, 2);
    ck_assert_uint_eq(raft_term_at(core->raft, 2), 1);
    ck_assert_uint_eq(cluster_status(c, 1).leader, 0);
    ck_assert_uint_eq(cluster_status(c, 1).commit, 0);
    ck_assert_uint_eq(ack()->durable_index, 0);
    cluster_close(c);
}
END_TEST

START_TEST(an_append_that_begins_below_the_base_is_taken_from_where_it_counts)
{
    static char memory_bytes[4 << 20] __attribute__((aligned(16)));
    static struct raft_effects fx;
    ck_assert_uint_le(raft_bytes(), sizeof memory_bytes);
    struct raft_term_run run = {11, 3};
    struct raft_start start = {.hard_state = {.term = 3},
                               .base_index = 10,
                               .base_term = 2,
                               .last_index = 12,
                               .commit = 10,
                               .runs = &run,
                               .run_count = 1};
    c = cluster_open(3, 0, 1);
    struct raft_options options = c->options;
    options.self = 1;
    start.configuration = c->configuration;
    struct raft *r = raft_open(memory_bytes, &options, &start, 0);
    struct raft_message m = {.type = RAFT_APPEND, .from = 2, .to = 1, .term = 3, .as.append = {8, 2, 13, 10, 0}};
    struct raft_entry entries[] = {
        {9, 2, 1, NULL}, {10, 2, 1, NULL}, {11, 3, 1, NULL}, {12, 3, 1, NULL}, {13, 3, 1, NULL}};
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .as.message = {&m, entries, 5, UINT64_MAX}};
    struct raft_result result;
    raft_step(r, &event, &result);
    ck_assert_int_eq(result.error, 0);
    ck_assert_uint_eq(result.accept_first, 13);
    raft_take(r, 0, &fx);
    raft_check(r);
    entries[1].term = 3; /* contradicts the base, which is committed */
    m.as.append.last_index = 10;
    event.as.message.entry_count = 2;
    raft_step(r, &event, &result);
    ck_assert_int_eq(result.error, LOCKSTEP_EPROTO);
    cluster_close(c);
}
END_TEST

START_TEST(
    a_snapshot_takes_the_logs_place_only_when_its_term_is_durable) /* R1: what is on the disk is of no later term */
{
    open_with((raft_term[]){1}, 1, 1, 1);
    ck_assert_int_eq(heartbeat(5, 0, 0, 0, 1), 0);
    struct raft_event event = {.type = RAFT_EVENT_INSTALL, .as.install = {.index = 9, .term = 5}};
    ck_assert_int_eq(cluster_step(core, &event, false), LOCKSTEP_EUNAVAILABLE);
    ck_assert(!cluster_status(c, 1).installing);
    flush();
    ck_assert_int_eq(cluster_step(core, &event, false), 0);
    ck_assert(cluster_status(c, 1).installing);
    cluster_close(c);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, an_ack_is_held_until_the_term_and_the_block_are_durable);
    tcase_add_test(tests, an_ack_says_nothing_of_blocks_that_this_leader_did_not_show);
    tcase_add_test(tests, heartbeats_are_acked_at_once_while_the_disk_is_busy);
    tcase_add_test(tests, flushes_of_one_turn_are_acked_once);
    tcase_add_test(tests, a_new_term_starts_with_nothing_validated);
    tcase_add_test(tests, a_heartbeat_with_a_match_validates_and_commits_without_blocks);
    tcase_add_test(tests, commit_never_passes_what_this_message_showed);
    tcase_add_test(tests, late_and_repeated_appends_leave_a_matching_log_alone);
    tcase_add_test(tests, only_a_contradicting_block_cuts_and_it_takes_the_place);
    tcase_add_test(tests, a_gap_is_refused_with_our_end_as_hint);
    tcase_add_test(tests, a_mismatch_is_refused_with_the_last_term_that_may_agree);
    tcase_add_test(tests, a_refusal_stands_when_its_gap_is_filled_in_the_same_turn);
    tcase_add_test(tests, a_late_write_of_cut_blocks_is_not_acked);
    tcase_add_test(tests, a_full_ring_drops_the_payload_says_so_and_keeps_the_old_log);
    tcase_add_test(tests, a_full_ring_still_hears_its_leader);
    tcase_add_test(tests, a_contradiction_of_the_committed_is_reported_and_changes_no_block);
    tcase_add_test(tests, a_leader_that_contradicts_itself_is_reported);
    tcase_add_test(tests, a_leader_that_knows_of_acked_blocks_that_are_gone_is_believed);
    tcase_add_test(tests, malformed_appends_are_refused_whole);
    tcase_add_test(tests, appends_of_an_old_term_change_nothing);
    tcase_add_test(tests, an_append_that_begins_below_the_base_is_taken_from_where_it_counts);
    tcase_add_test(tests, a_snapshot_takes_the_logs_place_only_when_its_term_is_durable);
}

int main(void)
{
    return unit_main("raft follower", add);
}
