/* SPDX-License-Identifier: Apache-2.0 */
/* test_fault.c - the filter between a node and its peers does what its rules say, and nothing without them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "tests/unit/transport/ends.h"
#include "transport/fault.h"

static struct ends ends;
static char reported[512];

static void set_up(void)
{
    ends_open(&ends, 2);
    reported[0] = 0;
}

static void tear_down(void)
{
    ends_close(&ends);
}

static void report(void *context, const char *text)
{
    (void)context;
    snprintf(reported, sizeof reported, "%s", text);
}

static struct fault_options options(const char *rules)
{
    return (struct fault_options){
        .loop = &ends.loop,
        .owner = end_options(&ends.end[0]).owner,
        .inner = ends.end[0].transport,
        .peer_count = 2,
        .peers = {"n1", "n2"},
        .rules = rules,
        .seed = 1,
        .report = report,
    };
}

/* Connect both ends, with the filter at n1. */
static void connect_with(const char *rules)
{
    char why[512] = "";
    ends_connect(&ends);
    const struct fault_options o = options(rules);
    int rc = fault_open(&o, &ends.end[0].transport, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
}

static void beat(unsigned from, unsigned to, unsigned count)
{
    struct raft_message message = {.type = RAFT_HEARTBEAT, .from = end_member(from), .to = end_member(to)};
    for (unsigned i = 0; i < count; i++) {
        message.as.heartbeat.round = i;
        ck_assert_int_eq(end_send(&ends.end[from], to, &message), 0);
    }
}

struct expected {
    const struct end *end;
    unsigned frames;
};

static bool frames_arrived(struct ends *unused, const void *context)
{
    (void)unused;
    const struct expected *expected = context;
    return end_whole_frames(expected->end) >= expected->frames;
}

static bool arrive(unsigned slot, unsigned frames)
{
    return ends_run(&ends, frames_arrived, &(struct expected){&ends.end[slot], frames});
}

static void in_order(unsigned slot, unsigned count)
{
    ck_assert_uint_eq(end_whole_frames(&ends.end[slot]), count);
    for (unsigned i = 0; i < count; i++) ck_assert_uint_eq(ends.end[slot].frames[i].message.as.heartbeat.round, i);
}

static double seconds_until_arrival(unsigned slot, unsigned frames)
{
    uint64_t from_ns = uv_hrtime();
    ck_assert(arrive(slot, frames));
    return (double)(uv_hrtime() - from_ns) / 1e9;
}

START_TEST(without_rules_frames_pass_both_ways)
{
    connect_with("");
    beat(0, 1, 10);
    beat(1, 0, 10);
    ck_assert(arrive(1, 10));
    ck_assert(arrive(0, 10));
    in_order(0, 10);
    in_order(1, 10);
}
END_TEST

START_TEST(delay_out_holds_frames_in_order_for_its_time)
{
    connect_with("peer=n2, dir=out, delay=1s");
    uint64_t from_ns = uv_hrtime();
    beat(0, 1, 100);
    beat(1, 0, 1);
    ck_assert(arrive(0, 1));
    ck_assert_uint_eq(end_whole_frames(&ends.end[1]), 0); /* nobody else waits */
    ck_assert(arrive(1, 100));
    ck_assert_uint_ge(uv_hrtime() - from_ns, UINT64_C(990000000));
    in_order(1, 100);
}
END_TEST

START_TEST(delay_in_holds_what_comes)
{
    connect_with("peer=n2, dir=in, delay=50ms");
    beat(1, 0, 100);
    double seconds = seconds_until_arrival(0, 100);
    ck_assert_double_ge(seconds, 0.049);
    in_order(0, 100);
}
END_TEST

START_TEST(delayed_blocks_are_the_bytes_of_when_they_were_sent)
{
    connect_with("delay=30ms");
    ck_assert_int_eq(end_publish(&ends.end[0], 20000), 0);
    struct ring *ring = ends.end[0].ring;
    uint8_t *copy = malloc(20096);
    memcpy(copy, ring_at(ring, 0), 20096);
    ck_assert_int_eq(end_append(&ends.end[0], 1, 1, 1), 0);
    ring_commit(ring, 1);
    ring_release(ring, 1);
    for (unsigned i = 0; i < 12; i++) { /* over the place where it lay */
        ck_assert_int_eq(end_publish(&ends.end[0], 100000), 0);
        ring_commit(ring, ends.end[0].last_index);
        ring_release(ring, ends.end[0].last_index);
    }
    ck_assert(arrive(1, 1));
    const struct ends_frame *f = &ends.end[1].frames[ends.end[1].frame_count - 1];
    ck_assert_uint_eq(f->body_bytes, 20096);
    ck_assert_mem_eq(f->body, copy, 20096);
    free(copy);
}
END_TEST

static bool has_dropped(struct ends *unused, const void *count)
{
    (void)unused;
    return end_status(&ends.end[0], 1).frames_dropped >= *(const unsigned *)count;
}

START_TEST(cut_loses_everything_and_is_not_noticed_by_the_sender)
{
    connect_with("peer=n2, cut");
    beat(0, 1, 10);
    beat(1, 0, 10);
    ck_assert(ends_run(&ends, has_dropped, &(unsigned){20}));
    ends_run_ms(&ends, 20);
    ck_assert_uint_eq(end_whole_frames(&ends.end[0]), 0);
    ck_assert_uint_eq(end_whole_frames(&ends.end[1]), 0);
    ck_assert_uint_eq(end_status(&ends.end[0], 1).frames_dropped, 20);
    ck_assert(end_status(&ends.end[0], 1).connected_out);
}
END_TEST

START_TEST(cut_in_one_direction_is_one_direction)
{
    connect_with("peer=n2, dir=in, cut");
    beat(1, 0, 10);
    beat(0, 1, 10);
    ck_assert(arrive(1, 10));
    ck_assert_uint_eq(end_whole_frames(&ends.end[0]), 0);
}
END_TEST

static bool has_lost_n2(struct ends *unused, const void *context)
{
    (void)unused;
    (void)context;
    return !end_status(&ends.end[0], 1).connected_in;
}

START_TEST(cut_hides_a_hang_up)
{
    connect_with("peer=n2, dir=in, cut");
    end_close(&ends.end[1]);
    ck_assert(ends_run(&ends, has_lost_n2, NULL));
    ends_run_ms(&ends, 20);
    ck_assert_uint_eq(ends.end[0].frame_count, 0);
}
END_TEST

START_TEST(hang_up_waits_behind_delayed_frames)
{
    connect_with("peer=n2, dir=in, delay=50ms");
    beat(1, 0, 10);
    ends.end[1].transport->ops->flush(ends.end[1].transport);
    end_close(&ends.end[1]);
    double seconds = seconds_until_arrival(0, 11);
    ck_assert_double_ge(seconds, 0.049);
    for (unsigned i = 0; i < 10; i++) ck_assert_uint_eq(ends.end[0].frames[i].type, FRAME_RAFT);
    ck_assert_uint_eq(ends.end[0].frames[10].type, FRAME_HANGUP);
}
END_TEST

START_TEST(loss_of_every_frame_loses_no_hang_up)
{
    connect_with("peer=n2, dir=in, loss=100%");
    beat(1, 0, 10);
    ends.end[1].transport->ops->flush(ends.end[1].transport);
    end_close(&ends.end[1]);
    ck_assert(arrive(0, 1));
    ck_assert_uint_eq(ends.end[0].frames[0].type, FRAME_HANGUP);
}
END_TEST

START_TEST(loss_loses_about_its_share)
{
    connect_with("dir=out, loss=25%");
    beat(0, 1, 2000);
    ck_assert(arrive(1, 1301));
    ends_run_ms(&ends, 100);
    ck_assert_uint_lt(end_whole_frames(&ends.end[1]), 1700);
}
END_TEST

START_TEST(duplicates_arrive_twice_in_both_directions)
{
    connect_with("duplicate=100%");
    beat(0, 1, 10);
    beat(1, 0, 10);
    ck_assert(arrive(1, 20));
    ck_assert(arrive(0, 20));
    for (unsigned end = 0; end < 2; end++)
        for (unsigned i = 0; i < 20; i++) ck_assert_uint_eq(ends.end[end].frames[i].message.as.heartbeat.round, i / 2);
}
END_TEST

START_TEST(later_rule_replaces_the_behaviour_of_what_it_names)
{
    connect_with("cut; peer=n2, dir=out, none");
    beat(0, 1, 5);
    beat(1, 0, 5);
    ck_assert(arrive(1, 5));
    ck_assert_uint_eq(end_whole_frames(&ends.end[0]), 0);
}
END_TEST

static bool was_reported(struct ends *unused, const void *context)
{
    (void)unused;
    return strstr(reported, context) != NULL;
}

static void write_file(const char *path, const char *text)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
    ck_assert_int_eq(rename(fresh, path), 0);
}

START_TEST(file_of_rules_is_read_again_when_it_changes)
{
    char folder[] = "/tmp/lockstep-fault-XXXXXX", path[64], rules[80];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/rules", folder);
    snprintf(rules, sizeof rules, "@%s", path);
    connect_with(rules); /* not there: no faults */
    beat(0, 1, 1);
    ck_assert(arrive(1, 1));

    write_file(path, "# nothing passes\npeer=n2, cut\n");
    ck_assert(ends_run(&ends, was_reported, "read again"));
    beat(0, 1, 1);
    ends_run_ms(&ends, 30);
    ck_assert_uint_eq(end_whole_frames(&ends.end[1]), 1);

    write_file(path, "peer=n9, cut\n"); /* wrong: said, and changes nothing */
    ck_assert(ends_run(&ends, was_reported, "peer=n9"));
    beat(0, 1, 1);
    ends_run_ms(&ends, 30);
    ck_assert_uint_eq(end_whole_frames(&ends.end[1]), 1);

    reported[0] = 0;
    unlink(path);
    ck_assert(ends_run(&ends, was_reported, "read again"));
    beat(0, 1, 1);
    ck_assert(arrive(1, 2));
    rmdir(folder);
}
END_TEST

START_TEST(rules_with_an_error_are_refused_with_the_word)
{
    static const char *const wrong[][2] = {
        {"peer=n9, cut", "\"peer=n9\""},      {"delay=50", "\"delay=50\""}, {"loss=101%", "\"loss=101%\""},
        {"loss=1.2345%", "\"loss=1.2345%\""}, {"loss=%", "\"loss=%\""},     {"dir=up, cut", "\"dir=up\""},
        {"peer=n2", "\"peer=n2\""},           {"cut; slow", "\"slow\""},    {"loss=5", "\"loss=5\""},
    };
    end_open(&ends.end[0]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char why[512] = "";
        struct transport *t;
        const struct fault_options o = options(wrong[i][0]);
        ck_assert_int_eq(fault_open(&o, &t, why, sizeof why), LOCKSTEP_EINVAL);
        ck_assert_msg(strstr(why, wrong[i][1]) != NULL, "%s: %s", wrong[i][0], why);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, without_rules_frames_pass_both_ways);
    tcase_add_test(tests, delay_out_holds_frames_in_order_for_its_time);
    tcase_add_test(tests, delay_in_holds_what_comes);
    tcase_add_test(tests, delayed_blocks_are_the_bytes_of_when_they_were_sent);
    tcase_add_test(tests, cut_loses_everything_and_is_not_noticed_by_the_sender);
    tcase_add_test(tests, cut_in_one_direction_is_one_direction);
    tcase_add_test(tests, cut_hides_a_hang_up);
    tcase_add_test(tests, hang_up_waits_behind_delayed_frames);
    tcase_add_test(tests, loss_of_every_frame_loses_no_hang_up);
    tcase_add_test(tests, loss_loses_about_its_share);
    tcase_add_test(tests, duplicates_arrive_twice_in_both_directions);
    tcase_add_test(tests, later_rule_replaces_the_behaviour_of_what_it_names);
    tcase_add_test(tests, file_of_rules_is_read_again_when_it_changes);
    tcase_add_test(tests, rules_with_an_error_are_refused_with_the_word);
}

int main(void)
{
    return unit_main("transport fault", add);
}
