/* SPDX-License-Identifier: Apache-2.0 */
/* Histories that could have happened are accepted, histories that could not are refused: a checker that says yes to
 * everything is worse than none. */
#include "base/random.h"
#include "tests/sim/linearizable.h"
#include "tests/support/unit.h"

#define STEPS UINT64_C(1000000)
#define NEVER 0 /* returned_ns of an unknown outcome: means nothing */

static struct linearizable_operation get(int64_t result, uint64_t called, uint64_t returned)
{
    return (struct linearizable_operation){.kind = LINEARIZABLE_GET,
                                           .known = true,
                                           .done = true,
                                           .result = result,
                                           .called_ns = called,
                                           .returned_ns = returned};
}

static struct linearizable_operation get_nothing(uint64_t called, uint64_t returned)
{
    struct linearizable_operation op = get(0, called, returned);
    op.done = false;
    return op;
}

static struct linearizable_operation put(int64_t a, uint64_t called, uint64_t returned)
{
    return (struct linearizable_operation){.kind = LINEARIZABLE_PUT,
                                           .known = returned != NEVER,
                                           .done = true,
                                           .a = a,
                                           .called_ns = called,
                                           .returned_ns = returned};
}

static struct linearizable_operation del(bool done, uint64_t called, uint64_t returned)
{
    return (struct linearizable_operation){.kind = LINEARIZABLE_DEL,
                                           .known = returned != NEVER,
                                           .done = done,
                                           .called_ns = called,
                                           .returned_ns = returned};
}

static struct linearizable_operation cas(int64_t a, int64_t b, bool done, uint64_t called, uint64_t returned)
{
    return (struct linearizable_operation){.kind = LINEARIZABLE_CAS,
                                           .known = returned != NEVER,
                                           .done = done,
                                           .a = a,
                                           .b = b,
                                           .called_ns = called,
                                           .returned_ns = returned};
}

static struct linearizable_operation add(int64_t a, int64_t sum, uint64_t called, uint64_t returned)
{
    return (struct linearizable_operation){.kind = LINEARIZABLE_ADD,
                                           .known = returned != NEVER,
                                           .done = true,
                                           .a = a,
                                           .result = sum,
                                           .called_ns = called,
                                           .returned_ns = returned};
}

#define VERDICT(...)                                                                                                   \
    linearizable((struct linearizable_operation[]){__VA_ARGS__},                                                       \
                 sizeof((struct linearizable_operation[]){__VA_ARGS__}) / sizeof(struct linearizable_operation),       \
                 STEPS)
#define YES(...) ck_assert_int_eq(VERDICT(__VA_ARGS__), LINEARIZABLE_YES)
#define NO(...)  ck_assert_int_eq(VERDICT(__VA_ARGS__), LINEARIZABLE_NO)

START_TEST(nothing_at_all_is_linearizable)
{
    ck_assert_int_eq(linearizable(NULL, 0, STEPS), LINEARIZABLE_YES);
}
END_TEST

START_TEST(one_after_the_other_is_as_it_was_said)
{
    YES(get_nothing(1, 2), put(5, 3, 4), get(5, 5, 6), cas(5, 7, true, 7, 8), get(7, 9, 10), add(3, 10, 11, 12),
        del(true, 13, 14), get_nothing(15, 16), del(false, 17, 18), cas(1, 2, false, 19, 20), add(4, 4, 21, 22));
}
END_TEST

START_TEST(a_stale_read_is_refused)
{
    NO(put(1, 1, 2), put(2, 3, 4), get(1, 5, 6));
    NO(put(1, 1, 2), get_nothing(3, 4));
    NO(put(1, 1, 2), del(true, 3, 4), get(1, 5, 6));
}
END_TEST

START_TEST(two_reads_do_not_see_a_concurrent_write_come_and_go)
{
    YES(put(1, 1, 2), put(2, 3, 10), get(1, 4, 5), get(2, 6, 7));
    NO(put(1, 1, 2), put(2, 3, 10), get(2, 4, 5), get(1, 6, 7));
}
END_TEST

START_TEST(a_lost_update_is_refused)
{
    NO(add(1, 1, 1, 2), add(1, 1, 3, 4));
    NO(add(1, 1, 1, 9), add(1, 1, 2, 8)); /* also when both ran at once */
    YES(add(1, 1, 1, 9), add(1, 2, 2, 8));
    NO(put(1, 1, 2), cas(1, 2, true, 3, 9), cas(1, 3, true, 4, 8));
    YES(put(1, 1, 2), cas(1, 2, true, 3, 9), cas(1, 3, false, 4, 8));
}
END_TEST

START_TEST(a_command_applied_twice_is_refused)
{
    NO(add(1, 1, 1, 2), get(2, 3, 4));
    NO(add(5, 5, 1, 2), add(1, 11, 3, 4));
}
END_TEST

START_TEST(a_value_that_nobody_wrote_is_refused)
{
    NO(put(1, 1, 2), get(9, 3, 4));
}
END_TEST

START_TEST(an_unknown_outcome_may_have_been_at_any_time_or_never)
{
    YES(put(1, 1, NEVER), get_nothing(2, 3));
    YES(put(1, 1, NEVER), get(1, 2, 3));
    YES(put(1, 1, NEVER), get_nothing(2, 3), get(1, 4, 5)); /* it was late */
    YES(add(1, 0, 1, NEVER), add(1, 2, 2, 3));
    YES(add(1, 0, 1, NEVER), add(1, 1, 2, 3), add(1, 3, 4, 5));
    YES(del(false, 1, NEVER), put(1, 2, 3), get_nothing(4, 5));
}
END_TEST

START_TEST(an_unknown_outcome_is_neither_early_nor_twice_nor_undone)
{
    NO(get(1, 1, 2), put(1, 3, NEVER));
    NO(add(1, 0, 1, NEVER), add(1, 3, 2, 3));
    NO(put(1, 1, NEVER), get(1, 2, 3), get_nothing(4, 5));
}
END_TEST

START_TEST(calls_that_touch_at_one_instant_have_overlapped)
{
    YES(put(1, 1, 2), get_nothing(2, 3), get(1, 4, 5));
}
END_TEST

START_TEST(a_search_that_takes_too_long_is_undecided)
{
    struct linearizable_operation history[40];
    for (unsigned i = 0; i < 39; i++) history[i] = put((int64_t)i, 1, 100);
    history[39] = get(77, 101, 102);
    ck_assert_int_eq(linearizable(history, 40, 1000), LINEARIZABLE_UNDECIDED);
}
END_TEST

enum { WITNESSES = 24 };

/* A history that did happen: each operation took effect at its own instant, in the order of the array. */
static void happened(struct random *r, struct linearizable_operation history[WITNESSES])
{
    bool there = false;
    int64_t number = 0;
    for (unsigned i = 0; i < WITNESSES; i++) {
        uint64_t at = 1000 + 10 * i, called = at - random_below(r, 40), returned = at + random_below(r, 40);
        int64_t value = (int64_t)random_below(r, 4);
        switch (random_below(r, 5)) {
        case 0: history[i] = there ? get(number, called, returned) : get_nothing(called, returned); break;
        case 1:
            history[i] = put(value, called, returned);
            there = true;
            number = value;
            break;
        case 2:
            history[i] = del(there, called, returned);
            there = false;
            break;
        case 3: {
            bool fits = there && number == value;
            history[i] = cas(value, value + 1, fits, called, returned);
            if (fits) number = value + 1;
            break;
        }
        default:
            number = (there ? number : 0) + value;
            there = true;
            history[i] = add(value, number, called, returned);
        }
        if (history[i].kind != LINEARIZABLE_GET && random_chance(r, 1, 8)) history[i].known = false;
    }
}

START_TEST(whatever_did_happen_is_accepted)
{
    struct random r;
    struct linearizable_operation history[WITNESSES];
    random_seed(&r, unit_seed(0x11ea7));
    for (unsigned round = 0; round < unit_rounds(500); round++) {
        happened(&r, history);
        ck_assert_int_eq(linearizable(history, WITNESSES, STEPS), LINEARIZABLE_YES);
    }
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_add_test(tests, nothing_at_all_is_linearizable);
    tcase_add_test(tests, one_after_the_other_is_as_it_was_said);
    tcase_add_test(tests, a_stale_read_is_refused);
    tcase_add_test(tests, two_reads_do_not_see_a_concurrent_write_come_and_go);
    tcase_add_test(tests, a_lost_update_is_refused);
    tcase_add_test(tests, a_command_applied_twice_is_refused);
    tcase_add_test(tests, a_value_that_nobody_wrote_is_refused);
    tcase_add_test(tests, an_unknown_outcome_may_have_been_at_any_time_or_never);
    tcase_add_test(tests, an_unknown_outcome_is_neither_early_nor_twice_nor_undone);
    tcase_add_test(tests, calls_that_touch_at_one_instant_have_overlapped);
    tcase_add_test(tests, a_search_that_takes_too_long_is_undecided);
    tcase_add_test(tests, whatever_did_happen_is_accepted);
}

int main(void)
{
    return unit_main("sim linearizable", add_tests);
}
