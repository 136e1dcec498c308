/* SPDX-License-Identifier: Apache-2.0 */
/* test_sessions.c - applied once, answered from the table; windows, expiry by log time, limits, the state as bytes
 * (M1, E1 to E6; Raft thesis 6.3). */
#include "statemachine/sessions.h"

#include "tests/support/unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lockstep/errors.h"

#define SECOND UINT64_C(1000000000)

static const struct session_limits small = {
    .window = 8, .sessions_max = 4, .replies_bytes = 4096, .expiry_ns = 60 * SECOND};

static struct sessions *table;
static struct session_answer answer;

static void set_up_with(struct session_limits limits)
{
    sessions_close(table);
    ck_assert_int_eq(sessions_open(&limits, &table), 0);
    sessions_block(table, true, SECOND);
}

static void set_up(void)
{
    table = NULL;
    set_up_with(small);
}

static void tear_down(void)
{
    sessions_close(table);
    table = NULL;
}

/* The command (session, seq) stands in the log at `position`. True: it was applied, with this text as reply. */
static bool apply(uint64_t session, uint64_t seq, log_position position, const char *text)
{
    if (!sessions_judge(table, session, seq, &answer)) return false;
    answer = (struct session_answer){.index = position / 10,
                                     .position = position,
                                     .code = (int32_t)(position % 3),
                                     .reply = (const uint8_t *)text,
                                     .reply_bytes = (uint32_t)strlen(text)};
    sessions_answered(table, session, seq, &answer);
    return true;
}

static int refusal(uint64_t session, uint64_t seq)
{
    ck_assert(!sessions_judge(table, session, seq, &answer));
    return answer.error;
}

static bool hash_equal(struct lockstep_hash a, struct lockstep_hash b)
{
    return a.low == b.low && a.high == b.high;
}

START_TEST(a_command_that_comes_again_is_not_applied_and_gets_the_first_ones_answer) /* T59 */
{
    ck_assert_int_eq(sessions_begin(table, 7), 0);
    ck_assert(apply(7, 1, 20, "one"));
    ck_assert(apply(7, 2, 21, ""));
    for (int again = 0; again < 3; again++) {
        ck_assert(!apply(7, 1, 30, "another"));
        ck_assert_int_eq(answer.error, 0);
        ck_assert_int_eq(answer.code, 20 % 3);
        ck_assert_uint_eq(answer.index, 2);
        ck_assert_uint_eq(answer.position, 20);
        ck_assert_uint_eq(answer.reply_bytes, 3);
        ck_assert_mem_eq(answer.reply, "one", 3);
    }
    ck_assert(!apply(7, 2, 31, "another"));
    ck_assert_uint_eq(answer.position, 21);
    ck_assert_uint_eq(answer.reply_bytes, 0);
}
END_TEST

START_TEST(seqs_are_a_set_and_come_in_any_order) /* M1 */
{
    ck_assert_int_eq(sessions_begin(table, 7), 0);
    const uint64_t order[] = {5, 2, 8, 1, 3};
    for (size_t i = 0; i < 5; i++) ck_assert(apply(7, order[i], 20 + i, "x"));
    for (size_t i = 0; i < 5; i++) {
        ck_assert(!apply(7, order[i], 40, "x"));
        ck_assert_uint_eq(answer.position, 20 + i);
    }
    ck_assert(apply(7, 4, 50, "x"));
}
END_TEST

START_TEST(below_the_window_nothing_is_known_and_everything_refused) /* M1: at or below highest - W */
{
    ck_assert_int_eq(sessions_begin(table, 7), 0);
    ck_assert(apply(7, 2, 20, "two"));
    ck_assert(apply(7, 9, 21, "nine"));
    ck_assert_int_eq(refusal(7, 1), LOCKSTEP_EWINDOW); /* 9 - 8, and was not seen */
    ck_assert(!apply(7, 2, 22, ""));                   /* still inside */
    ck_assert_uint_eq(answer.position, 20);
    ck_assert(apply(7, 10, 23, "ten"));
    ck_assert_int_eq(refusal(7, 2), LOCKSTEP_EWINDOW); /* was seen; its reply is gone */
    ck_assert(apply(7, 3, 24, "three"));
    ck_assert(apply(7, 1000, 25, "far"));
    ck_assert_int_eq(refusal(7, 10), LOCKSTEP_EWINDOW);
    ck_assert_int_eq(refusal(7, 992), LOCKSTEP_EWINDOW);
    ck_assert(apply(7, 993, 26, "the lowest one that is inside"));
    ck_assert(apply(7, UINT64_MAX, 27, "the last there is"));
    ck_assert_int_eq(refusal(7, UINT64_MAX), 0);
    ck_assert_uint_eq(answer.position, 27);
    ck_assert_int_eq(refusal(7, UINT64_MAX - 8), LOCKSTEP_EWINDOW);
    ck_assert(apply(7, UINT64_MAX - 7, 28, ""));
}
END_TEST

START_TEST(the_largest_window_remembers_exactly_itself)
{
    struct session_limits limits = small;
    limits.window = SESSIONS_WINDOW_MAX;
    limits.replies_bytes = 1 << 20;
    set_up_with(limits);
    ck_assert_int_eq(sessions_begin(table, 7), 0);
    for (uint64_t seq = 1; seq <= 5000; seq++) ck_assert(apply(7, seq, 10 + seq, "r"));
    for (uint64_t seq = 1; seq <= 5000; seq++) {
        ck_assert(!apply(7, seq, 9000, "r"));
        ck_assert_int_eq(answer.error, seq <= 5000 - SESSIONS_WINDOW_MAX ? LOCKSTEP_EWINDOW : 0);
        if (answer.error == 0) ck_assert_uint_eq(answer.position, 10 + seq);
    }
}
END_TEST

START_TEST(a_session_that_never_was_or_is_no_more_is_told_so)
{
    ck_assert_int_eq(refusal(7, 1), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(sessions_keep(table, 7), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(sessions_end(table, 7), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(sessions_begin(table, 7), 0);
    ck_assert_int_eq(refusal(7, 0), LOCKSTEP_EINVAL);
    ck_assert(apply(7, 1, 20, "one"));
    ck_assert_int_eq(sessions_end(table, 7), 0);
    ck_assert_int_eq(refusal(7, 1), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(refusal(7, 2), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(refusal(UINT64_MAX, 2), LOCKSTEP_ENOTFOUND);
    ck_assert(hash_equal(sessions_hash(table), (struct lockstep_hash){0, 0}));
}
END_TEST

START_TEST(sessions_end_by_log_time_alone_and_the_one_touched_longest_ago_first) /* R9 */
{
    ck_assert_uint_eq(sessions_due_ns(table), UINT64_MAX);
    for (uint64_t id = 1; id <= 3; id++) {
        sessions_block(table, false, id * 10 * SECOND);
        ck_assert_int_eq(sessions_begin(table, id), 0);
    }
    ck_assert_uint_eq(sessions_due_ns(table), 70 * SECOND);
    sessions_block(table, false, 50 * SECOND);
    ck_assert(apply(1, 1, 20, "a command touches"));
    sessions_block(table, false, 55 * SECOND);
    ck_assert_int_eq(sessions_keep(table, 2), 0);
    ck_assert_uint_eq(sessions_due_ns(table), 90 * SECOND); /* 3 */
    sessions_block(table, false, 90 * SECOND - 1);
    ck_assert_uint_eq(sessions_count(table), 3);
    sessions_block(table, false, 90 * SECOND);
    ck_assert_uint_eq(sessions_count(table), 2);
    ck_assert_int_eq(refusal(3, 1), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(refusal(1, 1), 0); /* a repetition touches, too */
    sessions_block(table, false, 115 * SECOND);
    ck_assert_int_eq(sessions_keep(table, 2), LOCKSTEP_ENOTFOUND);
    sessions_block(table, false, 150 * SECOND);
    ck_assert_uint_eq(sessions_count(table), 0);
    ck_assert_uint_eq(sessions_due_ns(table), UINT64_MAX);
}
END_TEST

START_TEST(a_terms_first_block_touches_every_session_however_late_it_comes) /* T64 */
{
    ck_assert_int_eq(sessions_begin(table, 1), 0);
    sessions_block(table, false, 30 * SECOND);
    ck_assert_int_eq(sessions_begin(table, 2), 0);
    sessions_block(table, true, 1000 * SECOND); /* nobody led for a quarter of an hour */
    ck_assert_uint_eq(sessions_count(table), 2);
    ck_assert_uint_eq(sessions_due_ns(table), 1060 * SECOND);
    sessions_block(table, false, 1060 * SECOND - 1);
    ck_assert_int_eq(sessions_keep(table, 2), 0);
    sessions_block(table, false, 1060 * SECOND);
    ck_assert_uint_eq(sessions_count(table), 1);
    ck_assert_int_eq(refusal(1, 1), LOCKSTEP_ENOTFOUND);
    sessions_block(table, false, 1060 * SECOND); /* the same block, entered again */
    ck_assert_uint_eq(sessions_count(table), 1);
}
END_TEST

START_TEST(a_full_table_opens_no_session_and_ends_none_for_it)
{
    for (uint64_t id = 1; id <= 4; id++) ck_assert_int_eq(sessions_begin(table, id), 0);
    struct lockstep_hash before = sessions_hash(table);
    ck_assert_int_eq(sessions_begin(table, 5), LOCKSTEP_EFULL);
    ck_assert(hash_equal(sessions_hash(table), before));
    ck_assert_int_eq(sessions_end(table, 2), 0);
    ck_assert_int_eq(sessions_begin(table, 6), 0);
    ck_assert_int_eq(sessions_begin(table, 7), LOCKSTEP_EFULL);
    for (uint64_t id = 1; id <= 7; id++)
        ck_assert_int_eq(sessions_keep(table, id), id == 2 || id == 5 || id == 7 ? LOCKSTEP_ENOTFOUND : 0);
}
END_TEST

START_TEST(a_command_stays_applied_once_when_its_reply_is_kept_no_more) /* E3 */
{
    char text[1001];
    memset(text, 'x', 1000);
    text[1000] = 0;
    ck_assert_int_eq(sessions_begin(table, 1), 0);
    ck_assert_int_eq(sessions_begin(table, 2), 0);
    ck_assert(apply(1, 1, 20, "of a quiet client"));
    for (uint64_t seq = 1; seq <= 3; seq++) ck_assert(apply(2, seq, 30 + seq, text));
    ck_assert(!apply(1, 1, 40, ""));
    ck_assert_int_eq(answer.error, 0);
    ck_assert(apply(2, 4, 34, text));
    ck_assert_int_eq(refusal(1, 1), LOCKSTEP_EREPLIED);
    ck_assert(apply(1, 2, 41, ""));
    static char long_text[2100]; /* with its header over half of what is kept in all */
    memset(long_text, 'y', sizeof long_text - 1);
    ck_assert(apply(1, 3, 42, long_text));
    ck_assert_int_eq(refusal(1, 3), LOCKSTEP_EREPLIED);
    ck_assert_int_eq(refusal(1, 2), 0);
}
END_TEST

START_TEST(looking_changes_nothing)
{
    ck_assert_int_eq(sessions_begin(table, 1), 0);
    ck_assert(apply(1, 10, 20, "ten"));
    struct lockstep_hash before = sessions_hash(table);
    sessions_block(table, false, 2 * SECOND);
    ck_assert(!sessions_find(table, 1, 9, &answer));
    ck_assert(!sessions_find(table, 1, 5000, &answer));
    ck_assert(sessions_find(table, 1, 10, &answer));
    ck_assert_int_eq(answer.error, 0);
    ck_assert_uint_eq(answer.position, 20);
    ck_assert(sessions_find(table, 1, 2, &answer));
    ck_assert_int_eq(answer.error, LOCKSTEP_EWINDOW);
    ck_assert(sessions_find(table, 2, 2, &answer));
    ck_assert_int_eq(answer.error, LOCKSTEP_ENOTFOUND);
    ck_assert(hash_equal(sessions_hash(table), before));
    ck_assert_uint_eq(sessions_due_ns(table), 61 * SECOND);
}
END_TEST

START_TEST(the_hash_tells_states_apart)
{
    struct lockstep_hash seen[6];
    unsigned count = 0;
    ck_assert_int_eq(sessions_begin(table, 1), 0);
    seen[count++] = sessions_hash(table);
    ck_assert(apply(1, 2, 20, ""));
    seen[count++] = sessions_hash(table);
    ck_assert(apply(1, 1, 21, ""));
    seen[count++] = sessions_hash(table);
    sessions_block(table, false, 2 * SECOND);
    ck_assert_int_eq(sessions_keep(table, 1), 0);
    seen[count++] = sessions_hash(table);
    ck_assert_int_eq(sessions_begin(table, 3), 0);
    seen[count++] = sessions_hash(table);
    ck_assert_int_eq(sessions_end(table, 1), 0);
    seen[count++] = sessions_hash(table);
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < i; k++) ck_assert(!hash_equal(seen[i], seen[k]));
}
END_TEST

START_TEST(limits_out_of_range_open_no_table)
{
    struct session_limits limits[7];
    for (int i = 0; i < 7; i++) limits[i] = small;
    limits[0].window = 0;
    limits[1].window = SESSIONS_WINDOW_MAX + 1;
    limits[2].sessions_max = 0;
    limits[3].sessions_max = SESSIONS_MAX + 1;
    limits[4].replies_bytes = 2048;
    limits[5].replies_bytes = 5000;
    limits[6].expiry_ns = 0;
    struct sessions *none = NULL;
    for (int i = 0; i < 7; i++) ck_assert_int_eq(sessions_open(&limits[i], &none), LOCKSTEP_EINVAL);
    ck_assert_ptr_null(none);
}
END_TEST

/* --- the state as bytes --- */

static uint8_t *written(struct sessions *sessions, uint64_t *ret_bytes)
{
    ck_assert_int_eq(sessions_freeze(sessions), 0);
    while (!sessions_freeze_step(sessions, SESSIONS_STEP_BYTES_MIN)) {
    }
    return sessions_thaw(sessions, ret_bytes);
}

/* A second table, read from the first one's bytes, that gives the same bytes again. */
static struct sessions *copy_of(struct sessions *sessions, const struct session_limits *limits)
{
    uint64_t bytes, again_bytes;
    uint8_t *first = written(sessions, &bytes);
    struct sessions *copy;
    ck_assert_int_eq(sessions_open(limits, &copy), 0);
    ck_assert_int_eq(sessions_read(copy, first, bytes), 0);
    uint8_t *again = written(copy, &again_bytes);
    ck_assert_uint_eq(again_bytes, bytes);
    ck_assert_mem_eq(again, first, bytes);
    ck_assert(hash_equal(sessions_hash(copy), sessions_hash(sessions)));
    ck_assert_uint_eq(sessions_due_ns(copy), sessions_due_ns(sessions));
    free(first);
    free(again);
    return copy;
}

START_TEST(an_empty_table_can_be_written_and_read)
{
    sessions_close(copy_of(table, &small));
    ck_assert_int_eq(sessions_begin(table, 1), 0);
    char text[1001];
    memset(text, 'x', 1000);
    text[1000] = 0;
    for (uint64_t seq = 1; seq <= 30; seq++) ck_assert(apply(1, seq, 20 + seq, text)); /* the ring goes round */
    ck_assert_int_eq(sessions_end(table, 1), 0);
    sessions_close(copy_of(table, &small)); /* no reply is left, but where the ring ends */
}
END_TEST

/* Something happens to one of many sessions. */
static void happen(struct random *random, log_position position)
{
    static const uint8_t reply[1024];
    uint64_t id = random_below(random, position), seq = random_below(random, 60);
    switch (random_below(random, 16)) {
    case 0: sessions_block(table, random_below(random, 8) == 0, SECOND + position); break;
    case 1: (void)sessions_end(table, id); break;
    case 2: (void)sessions_keep(table, id); break;
    case 3:
    case 4:
    case 5: (void)sessions_begin(table, position); break;
    default:
        if (!sessions_judge(table, id, seq, &answer)) break;
        answer = (struct session_answer){
            .position = position, .reply = reply, .reply_bytes = (uint32_t)random_below(random, sizeof reply)};
        sessions_answered(table, id, seq, &answer);
    }
}

START_TEST(what_was_frozen_is_what_is_written_whatever_happens_meanwhile) /* M1, T44 */
{
    struct random random;
    random_seed(&random, unit_seed(0xf702e4));
    log_position position = 1;
    tear_down();
    set_up_with((struct session_limits){.window = 16, .sessions_max = 300, .replies_bytes = 1 << 15, .expiry_ns = 600});
    for (uint64_t rounds = unit_rounds(300); rounds > 0; rounds--) {
        for (uint64_t k = random_below(&random, 400); k > 0; k--) happen(&random, position++);
        uint64_t expected_bytes, bytes, busy = random_below(&random, 3) * random_below(&random, 40);
        uint8_t *expected = written(table, &expected_bytes);
        ck_assert_int_eq(sessions_freeze(table), 0);
        do
            for (uint64_t k = busy; k > 0; k--) happen(&random, position++);
        while (!sessions_freeze_step(table, random_between(&random, SESSIONS_STEP_BYTES_MIN, 4096)));
        uint8_t *found = sessions_thaw(table, &bytes);
        ck_assert_uint_eq(bytes, expected_bytes);
        ck_assert_mem_eq(found, expected, bytes);
        free(found);
        free(expected);
        sessions_close(copy_of(
            table,
            &(struct session_limits){.window = 16, .sessions_max = 300, .replies_bytes = 1 << 15, .expiry_ns = 600}));
    }
}
END_TEST

START_TEST(a_step_of_a_frozen_state_writes_no_more_than_was_asked_for)
{
    char text[101];
    memset(text, 'x', 100);
    text[100] = 0;
    for (log_position id = 1; id <= small.sessions_max; id++) ck_assert_int_eq(sessions_begin(table, id), 0);
    for (uint64_t seq = 1; seq <= 10; seq++) ck_assert(apply(1, seq, 100 + seq, text));
    uint64_t bytes, steps = 0;
    ck_assert_int_eq(sessions_freeze(table), 0);
    do steps++;
    while (!sessions_freeze_step(table, SESSIONS_STEP_BYTES_MIN));
    free(sessions_thaw(table, &bytes));
    ck_assert_uint_ge(steps, bytes / (2 * SESSIONS_STEP_BYTES_MIN)); /* a reply is not cut */
    ck_assert_uint_gt(steps, 4);
    ck_assert_int_eq(sessions_freeze(table), 0);
    tear_down(); /* what is frozen goes along */
}
END_TEST

START_TEST(a_table_with_other_limits_or_of_a_newer_version_is_not_read)
{
    ck_assert_int_eq(sessions_begin(table, 1), 0);
    uint64_t bytes;
    uint8_t *state = written(table, &bytes);
    for (int i = 0; i < 4; i++) {
        struct session_limits limits = small;
        if (i == 0) limits.window = 7;
        if (i == 1) limits.sessions_max = 5;
        if (i == 2) limits.replies_bytes = 8192;
        if (i == 3) limits.expiry_ns++;
        struct sessions *other;
        ck_assert_int_eq(sessions_open(&limits, &other), 0);
        ck_assert_int_eq(sessions_read(other, state, bytes), LOCKSTEP_EFOREIGN);
        sessions_close(other);
    }
    state[4] = 2;
    struct sessions *other;
    ck_assert_int_eq(sessions_open(&small, &other), 0);
    ck_assert_int_eq(sessions_read(other, state, bytes), LOCKSTEP_EVERSION);
    sessions_close(other);
    free(state);
}
END_TEST

START_TEST(damaged_bytes_are_refused_or_make_a_table_that_works)
{
    struct random random;
    random_seed(&random, unit_seed(0x73657373));
    for (uint64_t id = 1; id <= 3; id++) ck_assert_int_eq(sessions_begin(table, id), 0);
    for (uint64_t i = 0; i < 60; i++) apply(1 + i % 3, 1 + i / 4, 20 + i, "some reply");
    uint64_t bytes;
    uint8_t *state = written(table, &bytes);
    struct sessions *other;
    ck_assert_int_eq(sessions_open(&small, &other), 0);
    for (uint64_t cut = 0; cut < bytes; cut++) ck_assert_int_ne(sessions_read(other, state, cut), 0);
    ck_assert_int_eq(sessions_count(other), 0);
    sessions_close(other);
    for (unsigned round = 0; round < unit_rounds(20000); round++) {
        uint64_t where = random_below(&random, bytes);
        uint8_t was = state[where];
        state[where] ^= (uint8_t)random_between(&random, 1, 255);
        ck_assert_int_eq(sessions_open(&small, &other), 0);
        if (sessions_read(other, state, bytes) == 0) {
            uint64_t out_bytes;
            uint8_t *out = written(other, &out_bytes);
            free(out);
            for (uint64_t seq = 1; seq < 40; seq++) {
                struct session_answer found = {0};
                if (sessions_judge(other, 1 + seq % 3, seq, &found))
                    sessions_answered(other, 1 + seq % 3, seq, &(struct session_answer){.position = 1});
            }
        } else {
            ck_assert_uint_eq(sessions_count(other), 0);
        }
        sessions_close(other);
        state[where] = was;
    }
    free(state);
}
END_TEST

/* --- against a model that forgets nothing --- */

enum { MODEL_SESSIONS = 2000, MODEL_SEQS = 400 };

struct model_session {
    bool open;
    uint64_t touched_ns, highest;
    struct {
        log_position position; /* 0 = not seen */
        uint64_t reply_offset, reply_bytes;
    } seqs[MODEL_SEQS];
};

struct model {
    struct session_limits limits;
    uint64_t now_ns, floor_ns, reply_end;
    uint32_t count;
    struct model_session *sessions; /* by id */
};

static uint64_t model_touched(const struct model *m, const struct model_session *s)
{
    return s->touched_ns > m->floor_ns ? s->touched_ns : m->floor_ns;
}

static void model_block(struct model *m, bool term, uint64_t now_ns, uint64_t ids)
{
    m->now_ns = now_ns;
    if (term) m->floor_ns = now_ns;
    for (uint64_t id = 1; id < ids; id++) {
        struct model_session *s = &m->sessions[id];
        if (!s->open || model_touched(m, s) + m->limits.expiry_ns > now_ns) continue;
        s->open = false;
        m->count--;
    }
}

/* What the table must say to (id, seq): 1 = new. */
static int model_judge(const struct model *m, uint64_t id, uint64_t seq)
{
    const struct model_session *s = &m->sessions[id];
    if (!s->open) return LOCKSTEP_ENOTFOUND;
    if (s->highest >= m->limits.window && seq <= s->highest - m->limits.window) return LOCKSTEP_EWINDOW;
    if (s->seqs[seq].position == 0) return 1;
    bool is_kept = 48 + (s->seqs[seq].reply_bytes + 7) / 8 * 8 <= m->limits.replies_bytes / 2;
    if (!is_kept || m->reply_end - s->seqs[seq].reply_offset > m->limits.replies_bytes) return LOCKSTEP_EREPLIED;
    return 0;
}

static void model_see(struct model *m, uint64_t id, uint64_t seq, log_position position, uint64_t reply_bytes)
{
    struct model_session *s = &m->sessions[id];
    uint64_t ring = m->limits.replies_bytes, room = 48 + (reply_bytes + 7) / 8 * 8;
    if (seq > s->highest) s->highest = seq;
    s->seqs[seq].position = position;
    s->seqs[seq].reply_bytes = reply_bytes;
    if (room > ring / 2) return;
    if (m->reply_end % ring + room > ring) m->reply_end = (m->reply_end / ring + 1) * ring;
    s->seqs[seq].reply_offset = m->reply_end;
    m->reply_end += room;
}

/* The bytes of the reply that stands at a position. */
static uint8_t reply_byte(log_position position, uint64_t i)
{
    return (uint8_t)(position * 31 + i);
}

START_TEST(whatever_happens_the_table_says_what_a_model_says_that_forgets_nothing) /* M1 */
{
    struct random random;
    random_seed(&random, unit_seed(0x6d6f6465));
    static uint8_t reply[4096];
    struct model model = {.sessions = calloc(MODEL_SESSIONS, sizeof *model.sessions)};
    for (uint64_t rounds = unit_rounds(40); rounds > 0; rounds--) {
        model.limits = (struct session_limits){
            .window = (uint32_t)random_between(&random, 1, 40),
            .sessions_max = (uint32_t)random_between(&random, 1, 12),
            .replies_bytes = UINT64_C(4096) << random_below(&random, 4),
            .expiry_ns = random_between(&random, 1, 400),
        };
        memset(model.sessions, 0, MODEL_SESSIONS * sizeof *model.sessions);
        model.now_ns = model.floor_ns = model.count = 0;
        model.reply_end = 8;
        sessions_close(table);
        ck_assert_int_eq(sessions_open(&model.limits, &table), 0);
        uint64_t ids = 1, reply_bytes_max = random_below(&random, 2) == 0 ? 40 : 3000;
        for (log_position position = 1; position < 4000 && ids < MODEL_SESSIONS; position++) {
            uint64_t id = ids == 1 ? 1 : random_between(&random, ids > 16 ? ids - 16 : 1, ids - 1);
            struct model_session *s = &model.sessions[id];
            switch (random_below(&random, 12)) {
            case 0: {
                bool term = random_below(&random, 8) == 0;
                uint64_t now_ns = model.now_ns + random_below(&random, 60);
                sessions_block(table, term, now_ns);
                model_block(&model, term, now_ns, ids);
                break;
            }
            case 1: {
                bool full = model.count == model.limits.sessions_max;
                ck_assert_int_eq(sessions_begin(table, ids), full ? LOCKSTEP_EFULL : 0);
                if (!full) model.sessions[ids] = (struct model_session){.open = true, .touched_ns = model.now_ns};
                if (!full) model.count++;
                ids++;
                break;
            }
            case 2:
                ck_assert_int_eq(sessions_keep(table, id), s->open ? 0 : LOCKSTEP_ENOTFOUND);
                s->touched_ns = model.now_ns;
                break;
            case 3:
                if (random_below(&random, 6) != 0) break;
                ck_assert_int_eq(sessions_end(table, id), s->open ? 0 : LOCKSTEP_ENOTFOUND);
                if (s->open) model.count--;
                s->open = false;
                break;
            case 4: {
                if (random_below(&random, 4) != 0) break;
                struct sessions *copy = copy_of(table, &model.limits); /* go on with the copy: nobody may notice */
                sessions_close(table);
                table = copy;
                break;
            }
            default: {
                uint64_t above = random_below(&random, 10) == 0 ? 60 : 3;
                uint64_t seq = s->highest + above > 20 ? s->highest + above - random_below(&random, 20) : 1;
                if (seq >= MODEL_SEQS) break;
                struct session_answer found = {0};
                int expected = model_judge(&model, id, seq);
                ck_assert_int_eq(sessions_find(table, id, seq, &found), expected != 1);
                bool is_new = sessions_judge(table, id, seq, &found);
                s->touched_ns = model.now_ns;
                ck_assert_int_eq(is_new, expected == 1);
                if (!is_new) {
                    ck_assert_int_eq(found.error, expected);
                    if (expected != 0) break;
                    ck_assert_uint_eq(found.position, s->seqs[seq].position);
                    ck_assert_uint_eq(found.reply_bytes, s->seqs[seq].reply_bytes);
                    for (uint64_t i = 0; i < found.reply_bytes; i++)
                        if (found.reply[i] != reply_byte(found.position, i)) ck_abort_msg("another reply");
                    break;
                }
                uint64_t bytes = random_below(&random, reply_bytes_max);
                for (uint64_t i = 0; i < bytes; i++) reply[i] = reply_byte(position, i);
                sessions_answered(
                    table, id, seq,
                    &(struct session_answer){.position = position, .reply = reply, .reply_bytes = (uint32_t)bytes});
                model_see(&model, id, seq, position, bytes);
                break;
            }
            }
            ck_assert_uint_eq(sessions_count(table), model.count);
        }
    }
    free(model.sessions);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_command_that_comes_again_is_not_applied_and_gets_the_first_ones_answer);
    tcase_add_test(tests, seqs_are_a_set_and_come_in_any_order);
    tcase_add_test(tests, below_the_window_nothing_is_known_and_everything_refused);
    tcase_add_test(tests, the_largest_window_remembers_exactly_itself);
    tcase_add_test(tests, a_session_that_never_was_or_is_no_more_is_told_so);
    tcase_add_test(tests, sessions_end_by_log_time_alone_and_the_one_touched_longest_ago_first);
    tcase_add_test(tests, a_terms_first_block_touches_every_session_however_late_it_comes);
    tcase_add_test(tests, a_full_table_opens_no_session_and_ends_none_for_it);
    tcase_add_test(tests, a_command_stays_applied_once_when_its_reply_is_kept_no_more);
    tcase_add_test(tests, looking_changes_nothing);
    tcase_add_test(tests, the_hash_tells_states_apart);
    tcase_add_test(tests, limits_out_of_range_open_no_table);
    tcase_add_test(tests, an_empty_table_can_be_written_and_read);
    tcase_add_test(tests, what_was_frozen_is_what_is_written_whatever_happens_meanwhile);
    tcase_add_test(tests, a_step_of_a_frozen_state_writes_no_more_than_was_asked_for);
    tcase_add_test(tests, a_table_with_other_limits_or_of_a_newer_version_is_not_read);
    tcase_add_test(tests, damaged_bytes_are_refused_or_make_a_table_that_works);
    tcase_add_test(tests, whatever_happens_the_table_says_what_a_model_says_that_forgets_nothing);
}

int main(void)
{
    return unit_main("sessions", add);
}
