/* SPDX-License-Identifier: Apache-2.0 */
/* test_parts.c - the parts that know nothing of each other: term runs, persists, quorums, one peer's progress. */
#include <stdlib.h>

#include "raft/log.h"
#include "raft/persist.h"
#include "raft/progress.h"
#include "raft/quorum.h"
#include "tests/support/unit.h"

static struct raft_log *log_of(const raft_term *terms, uint32_t count, raft_index base_index, raft_term base_term)
{
    struct raft_log *log = malloc(sizeof *log);
    ck_assert_ptr_nonnull(log);
    struct raft_start start = {.base_index = base_index, .base_term = base_term, .last_index = base_index};
    raft_log_open(log, &start);
    for (uint32_t i = 0; i < count; i++) raft_log_append(log, terms[i]);
    raft_log_check(log);
    return log;
}

START_TEST(every_index_has_its_term_and_none_outside)
{
    static const raft_term terms[] = {1, 1, 2, 5, 5, 5, 6};
    struct raft_log *log = log_of(terms, 7, 0, 0);
    for (raft_index i = 1; i <= 7; i++) ck_assert_uint_eq(raft_log_term_at(log, i), terms[i - 1]);
    ck_assert_uint_eq(raft_log_term_at(log, 0), 0);
    ck_assert_uint_eq(raft_log_term_at(log, 8), 0);
    ck_assert_uint_eq(log->run_count, 4);
    free(log);
}
END_TEST

START_TEST(a_log_behind_a_base_knows_the_bases_term_and_nothing_before)
{
    static const raft_term terms[] = {4, 4, 7};
    struct raft_log *log = log_of(terms, 3, 10, 4);
    ck_assert_uint_eq(raft_log_term_at(log, 9), 0);
    ck_assert_uint_eq(raft_log_term_at(log, 10), 4);
    ck_assert_uint_eq(raft_log_term_at(log, 11), 4);
    ck_assert_uint_eq(raft_log_term_at(log, 13), 7);
    ck_assert_uint_eq(raft_log_last_at_or_below(log, 9, 9), 9);
    free(log);
}
END_TEST

START_TEST(a_cut_forgets_exactly_what_is_at_and_above_it)
{
    static const raft_term terms[] = {1, 1, 2, 2, 3};
    for (raft_index cut = 1; cut <= 5; cut++) {
        struct raft_log *log = log_of(terms, 5, 0, 0);
        raft_log_cut(log, cut);
        raft_log_check(log);
        ck_assert_uint_eq(log->last_index, cut - 1);
        for (raft_index i = 1; i <= 5; i++) ck_assert_uint_eq(raft_log_term_at(log, i), i < cut ? terms[i - 1] : 0);
        raft_log_append(log, 9);
        ck_assert_uint_eq(raft_log_term_at(log, cut), 9);
        free(log);
    }
}
END_TEST

START_TEST(term_runs_are_bounded_and_the_last_term_still_grows) /* bounded memory: 65,536 runs */
{
    struct raft_log *log = log_of(NULL, 0, 0, 0);
    for (raft_term term = 1; term <= RAFT_TERM_RUNS_MAX; term++) {
        ck_assert(raft_log_has_room(log, term));
        raft_log_append(log, term);
    }
    ck_assert(!raft_log_has_room(log, RAFT_TERM_RUNS_MAX + 1));
    ck_assert(raft_log_has_room(log, RAFT_TERM_RUNS_MAX));
    raft_log_append(log, RAFT_TERM_RUNS_MAX);
    ck_assert_uint_eq(raft_log_term_at(log, 1), 1);
    ck_assert_uint_eq(raft_log_term_at(log, 40000), 40000);
    raft_log_check(log);
    free(log);
}
END_TEST

START_TEST(the_best_place_to_agree_skips_whole_terms) /* thesis 3.5; T27 */
{
    static const raft_term terms[] = {1, 1, 3, 3, 3, 5, 5};
    struct raft_log *log = log_of(terms, 7, 0, 0);
    ck_assert_uint_eq(raft_log_last_at_or_below(log, 7, 4), 5);
    ck_assert_uint_eq(raft_log_last_at_or_below(log, 7, 3), 5);
    ck_assert_uint_eq(raft_log_last_at_or_below(log, 4, 3), 4);
    ck_assert_uint_eq(raft_log_last_at_or_below(log, 7, 2), 2);
    ck_assert_uint_eq(raft_log_last_at_or_below(log, 99, 9), 7);
    ck_assert_uint_eq(raft_log_last_at_or_below(log, 7, 0), 0);
    free(log);
}
END_TEST

static struct raft_effects effects;
static struct raft_persists persists;

static uint64_t hand_out(raft_term term, raft_member vote, raft_index last)
{
    raft_persists_take(&persists, &(struct raft_hard_state){.term = term, .vote = vote}, last, &effects);
    raft_persists_check(&persists, last);
    return effects.persist_seq;
}

static void open_persists(raft_index last)
{
    raft_persists_open(&persists, &(struct raft_start){.last_index = last, .hard_state = {.term = 1}});
}

START_TEST(one_persist_carries_all_that_is_new_and_nothing_else)
{
    open_persists(4);
    ck_assert_uint_eq(hand_out(1, 0, 4), 0);
    ck_assert_uint_eq(hand_out(1, 0, 6), 1);
    ck_assert(!effects.persist_hard_state);
    ck_assert_uint_eq(effects.persist_first, 5);
    ck_assert_uint_eq(effects.persist_last, 6);
    ck_assert_uint_eq(hand_out(2, 3, 6), 2);
    ck_assert(effects.persist_hard_state);
    ck_assert_uint_eq(effects.persist_first, 0);
    ck_assert_uint_eq(hand_out(2, 3, 6), 0);
}
END_TEST

START_TEST(a_completion_covers_all_persists_before_it_and_none_after) /* R2 */
{
    open_persists(0);
    hand_out(1, 0, 2);
    hand_out(1, 0, 4);
    hand_out(2, 0, 4);
    raft_persists_done(&persists, 2);
    ck_assert_uint_eq(persists.durable_index, 4);
    ck_assert_uint_eq(persists.durable.term, 1);
    raft_persists_done(&persists, 1); /* late, repeated */
    ck_assert_uint_eq(persists.durable_index, 4);
    raft_persists_done(&persists, 3);
    ck_assert_uint_eq(persists.durable.term, 2);
}
END_TEST

START_TEST(a_write_of_a_cut_block_that_completes_late_proves_nothing) /* R2, T22: the append race */
{
    open_persists(0);
    hand_out(1, 0, 5); /* seq 1: blocks 1..5 of an old term */
    raft_persists_cut(&persists, 3);
    hand_out(2, 0, 4); /* seq 2: other blocks 3, 4 */
    raft_persists_done(&persists, 1);
    ck_assert_uint_eq(persists.durable_index, 2);
    raft_persists_done(&persists, 2);
    ck_assert_uint_eq(persists.durable_index, 4);
}
END_TEST

START_TEST(a_cut_lowers_the_durable_mark_too) /* R2, T21 */
{
    open_persists(9);
    raft_persists_cut(&persists, 4);
    ck_assert_uint_eq(persists.durable_index, 3);
    ck_assert_uint_eq(hand_out(2, 0, 4), 1);
    ck_assert_uint_eq(effects.persist_first, 4);
}
END_TEST

START_TEST(two_cuts_leave_the_lower_one_standing) /* R2 */
{
    open_persists(0);
    hand_out(1, 0, 9);
    raft_persists_cut(&persists, 3);
    hand_out(2, 0, 9);
    raft_persists_cut(&persists, 6);
    hand_out(3, 0, 6);
    raft_persists_done(&persists, 1);
    ck_assert_uint_eq(persists.durable_index, 2);
    raft_persists_done(&persists, 2);
    ck_assert_uint_eq(persists.durable_index, 5);
    raft_persists_done(&persists, 3);
    ck_assert_uint_eq(persists.durable_index, 6);
}
END_TEST

START_TEST(a_full_queue_keeps_what_is_due_and_hands_it_out_merged_later)
{
    open_persists(0);
    for (raft_index i = 1; i <= RAFT_PERSISTS_MAX; i++) ck_assert_uint_eq(hand_out(1, 0, i), i);
    ck_assert_uint_eq(raft_persists_room(&persists), 0);
    ck_assert_uint_eq(hand_out(2, 0, 2000), 0);
    raft_persists_done(&persists, 1);
    ck_assert_uint_eq(hand_out(2, 0, 2001), RAFT_PERSISTS_MAX + 1);
    ck_assert(effects.persist_hard_state);
    ck_assert_uint_eq(effects.persist_first, RAFT_PERSISTS_MAX + 1);
    ck_assert_uint_eq(effects.persist_last, 2001);
}
END_TEST

START_TEST(a_quorum_is_more_than_half_for_every_size) /* T12: off by one for even sizes */
{
    for (uint32_t voters = 1; voters <= RAFT_MEMBERS_MAX; voters++) {
        struct raft_configuration configuration = {.count = voters};
        uint64_t values[RAFT_MEMBERS_MAX] = {0};
        for (uint32_t i = 0; i < voters; i++) {
            configuration.members[i].id = i + 1;
            configuration.members[i].role = RAFT_VOTER;
        }
        for (uint32_t reached = 1; reached <= voters; reached++) {
            values[reached - 1] = 7;
            ck_assert_uint_eq(raft_quorum_reached(&configuration, values), 2 * reached > voters ? 7 : 0);
        }
    }
}
END_TEST

START_TEST(a_quorum_takes_the_value_that_a_majority_has_reached)
{
    struct raft_configuration configuration = {.count = 5};
    for (uint32_t i = 0; i < 5; i++) {
        configuration.members[i].id = i + 1;
        configuration.members[i].role = RAFT_VOTER;
    }
    ck_assert_uint_eq(raft_quorum_reached(&configuration, (uint64_t[]){9, 3, 5, 1, 7}), 5);
    ck_assert_uint_eq(raft_quorum_reached(&configuration, (uint64_t[]){9, 9, 9, 0, 0}), 9);
    ck_assert_uint_eq(raft_quorum_reached(&configuration, (uint64_t[]){9, 9, 0, 0, 0}), 0);
}
END_TEST

START_TEST(learners_and_an_empty_configuration_make_no_quorum) /* T17; a node before its birth */
{
    struct raft_configuration configuration = {.count = 4,
                                               .members = {{.id = 1, .role = RAFT_VOTER},
                                                           {.id = 2, .role = RAFT_LEARNER},
                                                           {.id = 3, .role = RAFT_LEARNER},
                                                           {.id = 4, .role = RAFT_VOTER}}};
    ck_assert_uint_eq(raft_quorum_reached(&configuration, (uint64_t[]){9, 9, 9, 2}), 2);
    ck_assert_uint_eq(raft_quorum_reached(&(struct raft_configuration){0}, (uint64_t[]){0}), 0);
    ck_assert(!raft_configuration_is_voter(&configuration, 2));
    ck_assert(!raft_configuration_is_voter(&configuration, 77));
    ck_assert(raft_configuration_is_voter(&configuration, 4));
}
END_TEST

/* One peer, seen by a leader of term 2 with ten blocks. */
static const struct raft_options options = {
    .election_timeout_ns_min = 300,
    .heartbeat_ns = 60,
    .append_bytes_max = 100,
    .append_inflight_bytes_max = 250,
};
static struct raft_log *ten;
static struct progress peer;

static void open_peer(raft_index next)
{
    static const raft_term terms[] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 2};
    free(ten);
    ten = log_of(terms, 10, 0, 0);
    peer = (struct progress){0};
    raft_progress_open(&peer, next, 1000);
}

static void ack(raft_index durable, raft_index validated, uint64_t round)
{
    struct raft_ack a = {.durable_index = durable, .validated_index = validated, .round = round};
    raft_progress_ack(&peer, &a, ten, &options, 1100);
    raft_progress_check(&peer, 10);
}

static void refuse(raft_index rejected, raft_index hint, raft_term hint_term)
{
    struct raft_ack a = {.rejected = true, .rejected_index = rejected, .hint_index = hint, .hint_term = hint_term};
    raft_progress_ack(&peer, &a, ten, &options, 1100);
    raft_progress_check(&peer, 10);
}

START_TEST(a_probe_is_one_block_and_waits_for_its_answer)
{
    open_peer(7);
    ck_assert_uint_eq(raft_progress_budget(&peer, &options), 1);
    ck_assert(raft_progress_may_send(&peer, 1000));
    raft_progress_sent(&peer, 7, 50);
    ck_assert(!raft_progress_may_send(&peer, 1000));
    ck_assert_uint_eq(peer.next, 7);
    ack(0, 7, 0);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE);
    ck_assert_uint_eq(peer.next, 8); /* held there: go on, though nothing is durable yet */
    ck_assert_uint_eq(peer.match, 0);
}
END_TEST

START_TEST(bytes_in_flight_are_bounded_and_freed_by_durable_acks_only)
{
    open_peer(1);
    ack(0, 0, 0);
    ck_assert_uint_eq(raft_progress_budget(&peer, &options), 100);
    raft_progress_sent(&peer, 2, 100);
    raft_progress_sent(&peer, 4, 100);
    ck_assert_uint_eq(raft_progress_budget(&peer, &options), 50);
    raft_progress_sent(&peer, 5, 50);
    ck_assert_uint_eq(raft_progress_budget(&peer, &options), 0);
    ack(0, 5, 0);
    ck_assert_uint_eq(raft_progress_budget(&peer, &options), 0);
    ack(2, 5, 0);
    ck_assert_uint_eq(raft_progress_budget(&peer, &options), 100);
    ack(5, 5, 0);
    ck_assert_uint_eq(peer.window_bytes, 0);
}
END_TEST

START_TEST(the_window_counts_appends_too)
{
    open_peer(1);
    ack(0, 0, 0);
    for (uint32_t i = 1; i <= PROGRESS_WINDOW_MAX; i++) {
        ck_assert(raft_progress_may_send(&peer, 2000));
        raft_progress_sent(&peer, i, 0);
    }
    ck_assert(!raft_progress_may_send(&peer, 2000));
}
END_TEST

START_TEST(an_old_or_repeated_ack_takes_nothing_back) /* T21 */
{
    open_peer(1);
    ack(0, 0, 0);
    raft_progress_sent(&peer, 5, 50);
    ack(5, 5, 3);
    ack(2, 2, 1);
    ck_assert_uint_eq(peer.match, 5);
    ck_assert_uint_eq(peer.next, 6);
    ck_assert_uint_eq(peer.round, 3);
}
END_TEST

START_TEST(a_refusal_of_what_is_acked_by_now_is_ignored) /* T20: a stale refusal must not roll back */
{
    open_peer(1);
    ack(6, 6, 0);
    refuse(4, 2, 1);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE);
    ck_assert_uint_eq(peer.next, 7);
    ck_assert_uint_eq(peer.match, 6);
}
END_TEST

START_TEST(a_refusal_answers_only_the_probe_that_is_out)
{
    open_peer(9);
    raft_progress_sent(&peer, 9, 50);
    refuse(8, 5, 1);
    ck_assert_uint_eq(peer.next, 6);
    raft_progress_sent(&peer, 6, 50);
    refuse(8, 3, 1); /* the first refusal again */
    ck_assert_uint_eq(peer.next, 6);
    refuse(3, 1, 1); /* one from long ago */
    ck_assert_uint_eq(peer.next, 6);
    ck_assert(peer.probe_sent);
}
END_TEST

START_TEST(a_refusal_skips_the_terms_that_cannot_match) /* thesis 3.5; T27 */
{
    open_peer(10);
    raft_progress_sent(&peer, 10, 50);
    refuse(9, 8, 1); /* its block 8 is of term 1: ours of term 2 begin at 7 */
    ck_assert_uint_eq(peer.next, 7);
}
END_TEST

START_TEST(a_lost_append_is_found_by_two_heartbeat_rounds) /* T24: one round of grace for reordering */
{
    open_peer(1);
    ack(0, 0, 0);
    raft_progress_sent(&peer, 4, 50);
    raft_progress_heartbeat(&peer, 7);
    ack(0, 0, 7);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE); /* the heartbeat may have overtaken it */
    ack(0, 0, 8);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_PROBE);
    ck_assert_uint_eq(peer.next, 1);
    ck_assert(raft_progress_may_send(&peer, 2000));
}
END_TEST

START_TEST(the_first_word_after_a_long_silence_says_what_was_lost)
{
    open_peer(1);
    ack(0, 0, 0);
    raft_progress_sent(&peer, 4, 50);
    struct raft_ack back = {.validated_index = 2, .durable_index = 2};
    raft_progress_ack(&peer, &back, ten, &options, 1100 + options.election_timeout_ns_min - 1);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE);
    raft_progress_ack(&peer, &back, ten, &options, 9000);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_PROBE);
    ck_assert_uint_eq(peer.next, 3);
}
END_TEST

START_TEST(a_silence_with_nothing_outstanding_changes_nothing)
{
    open_peer(1);
    ack(0, 0, 0);
    raft_progress_sent(&peer, 4, 50);
    ack(4, 4, 0);
    struct raft_ack back = {.validated_index = 4, .durable_index = 4};
    raft_progress_ack(&peer, &back, ten, &options, 9000);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE);
}
END_TEST

START_TEST(an_answer_to_a_heartbeat_does_not_send_a_probe_twice)
{
    open_peer(7);
    raft_progress_sent(&peer, 7, 50);
    ack(6, 6, 1); /* the probe will fit, and is still on its way */
    ck_assert(!raft_progress_may_send(&peer, 1100));
    ack(6, 7, 1);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE);
    ck_assert_uint_eq(peer.next, 8);
}
END_TEST

START_TEST(a_slow_disk_is_not_taken_for_a_loss)
{
    open_peer(1);
    ack(0, 0, 0);
    raft_progress_sent(&peer, 4, 50);
    raft_progress_heartbeat(&peer, 7);
    ack(0, 4, 8);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE);
    ck_assert_uint_eq(peer.next, 5);
}
END_TEST

START_TEST(blocks_that_a_restart_forgot_are_sent_again)
{
    open_peer(1);
    ack(0, 0, 0);
    raft_progress_sent(&peer, 4, 50);
    ack(2, 4, 1); /* it holds 4, two of them durably, and crashes */
    raft_progress_heartbeat(&peer, 5);
    ack(2, 2, 6);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_PROBE);
    ck_assert_uint_eq(peer.next, 3);
}
END_TEST

START_TEST(a_lost_probe_is_sent_again)
{
    open_peer(7);
    raft_progress_sent(&peer, 7, 50);
    raft_progress_heartbeat(&peer, 1);
    ack(0, 0, 1);
    ck_assert(!raft_progress_may_send(&peer, 2000));
    ack(0, 0, 2);
    ck_assert(raft_progress_may_send(&peer, 2000));
    ck_assert_uint_eq(peer.next, 7);
}
END_TEST

START_TEST(a_full_peer_is_probed_with_back_off_until_it_takes_a_block) /* R10 */
{
    open_peer(1);
    ack(0, 0, 0);
    raft_progress_sent(&peer, 4, 50);
    struct raft_ack full = {.validated_index = 2, .durable_index = 2, .full = true};
    uint64_t now = 5000, pause = 0;
    for (uint32_t i = 0; i < 10; i++) {
        raft_progress_ack(&peer, &full, ten, &options, now);
        ck_assert_int_eq(peer.state, RAFT_PROGRESS_PROBE);
        ck_assert_uint_eq(peer.next, 3);
        ck_assert(!raft_progress_may_send(&peer, now));
        ck_assert(peer.pause_until_ns - now >= pause);
        pause = peer.pause_until_ns - now;
        ck_assert_uint_le(pause, options.election_timeout_ns_min);
        raft_progress_ack(&peer, &full, ten, &options, now + 1); /* of an append sent before: no longer pause */
        ck_assert_uint_eq(peer.pause_until_ns, now + pause);
        now = peer.pause_until_ns;
        ck_assert(raft_progress_may_send(&peer, now));
        raft_progress_sent(&peer, 3, 10);
    }
    ck_assert_uint_eq(pause, options.election_timeout_ns_min);
    ack(2, 2, 9); /* an answer to a heartbeat: it is still full */
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_PROBE);
    ack(2, 3, 9);
    ck_assert_int_eq(peer.state, RAFT_PROGRESS_REPLICATE);
    ck_assert_uint_eq(peer.backoff_ns, 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, every_index_has_its_term_and_none_outside);
    tcase_add_test(tests, a_log_behind_a_base_knows_the_bases_term_and_nothing_before);
    tcase_add_test(tests, a_cut_forgets_exactly_what_is_at_and_above_it);
    tcase_add_test(tests, term_runs_are_bounded_and_the_last_term_still_grows);
    tcase_add_test(tests, the_best_place_to_agree_skips_whole_terms);
    tcase_add_test(tests, one_persist_carries_all_that_is_new_and_nothing_else);
    tcase_add_test(tests, a_completion_covers_all_persists_before_it_and_none_after);
    tcase_add_test(tests, a_write_of_a_cut_block_that_completes_late_proves_nothing);
    tcase_add_test(tests, a_cut_lowers_the_durable_mark_too);
    tcase_add_test(tests, two_cuts_leave_the_lower_one_standing);
    tcase_add_test(tests, a_full_queue_keeps_what_is_due_and_hands_it_out_merged_later);
    tcase_add_test(tests, a_quorum_is_more_than_half_for_every_size);
    tcase_add_test(tests, a_quorum_takes_the_value_that_a_majority_has_reached);
    tcase_add_test(tests, learners_and_an_empty_configuration_make_no_quorum);
    tcase_add_test(tests, a_probe_is_one_block_and_waits_for_its_answer);
    tcase_add_test(tests, bytes_in_flight_are_bounded_and_freed_by_durable_acks_only);
    tcase_add_test(tests, the_window_counts_appends_too);
    tcase_add_test(tests, an_old_or_repeated_ack_takes_nothing_back);
    tcase_add_test(tests, a_refusal_of_what_is_acked_by_now_is_ignored);
    tcase_add_test(tests, a_refusal_answers_only_the_probe_that_is_out);
    tcase_add_test(tests, a_refusal_skips_the_terms_that_cannot_match);
    tcase_add_test(tests, a_lost_append_is_found_by_two_heartbeat_rounds);
    tcase_add_test(tests, the_first_word_after_a_long_silence_says_what_was_lost);
    tcase_add_test(tests, a_silence_with_nothing_outstanding_changes_nothing);
    tcase_add_test(tests, an_answer_to_a_heartbeat_does_not_send_a_probe_twice);
    tcase_add_test(tests, a_slow_disk_is_not_taken_for_a_loss);
    tcase_add_test(tests, blocks_that_a_restart_forgot_are_sent_again);
    tcase_add_test(tests, a_lost_probe_is_sent_again);
    tcase_add_test(tests, a_full_peer_is_probed_with_back_off_until_it_takes_a_block);
}

int main(void)
{
    int rc = unit_main("raft parts", add);
    free(ten);
    return rc;
}
