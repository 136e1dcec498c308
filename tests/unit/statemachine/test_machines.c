/* SPDX-License-Identifier: Apache-2.0 */
/* test_machines.c - the machines that are shipped, through nothing but their plugin. Arguments:
 * a folder for the copies, counter.so, kv.so. */
#include "tests/support/direct.h"
#include "tests/support/unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "statemachine/plugin.h"

static struct plugin counter_plugin, kv_plugin;
static struct direct machine, other;

#define says(command, expected_code, expected_reply)                                                                   \
    do {                                                                                                               \
        ck_assert_int_eq(direct_say(&machine, command), expected_code);                                                \
        ck_assert_str_eq((const char *)machine.reply, expected_reply);                                                 \
    } while (0)

#define asked(query, expected_code, expected_reply)                                                                    \
    do {                                                                                                               \
        ck_assert_int_eq(direct_ask(&machine, query), expected_code);                                                  \
        ck_assert_str_eq((const char *)machine.reply, expected_reply);                                                 \
    } while (0)

static bool hashes_equal(struct lockstep_hash a, struct lockstep_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* --- counter --- */

START_TEST(counter_adds_and_tells)
{
    direct_open(&machine, &counter_plugin.machine);
    says("get", 0, "0");
    says("add 5", 0, "5");
    says("add -7\n", 0, "-2");
    asked("get", 0, "-2");
    asked("get\n", 0, "-2");
    direct_close(&machine);
}
END_TEST

START_TEST(counter_rejects_what_leaves_64_bits_and_stays_as_it_was)
{
    direct_open(&machine, &counter_plugin.machine);
    says("add 9223372036854775807", 0, "9223372036854775807");
    says("add 1", 6, "out of range");
    says("add 9223372036854775808", 6, "out of range");
    says("get", 0, "9223372036854775807");
    says("add -9223372036854775808", 0, "-1");
    says("add -9223372036854775807", 0, "-9223372036854775808");
    says("add -1", 6, "out of range");
    says("add -99999999999999999999999999999999", 6, "out of range");
    says("get", 0, "-9223372036854775808");
    direct_close(&machine);
}
END_TEST

START_TEST(counter_rejects_what_is_no_number_or_no_command)
{
    direct_open(&machine, &counter_plugin.machine);
    says("add", 4, "syntax: add N | get");
    says("", 4, "syntax: add N | get");
    says("get 1", 4, "syntax: add N | get");
    says("add ", 2, "not a number");
    says("add -", 2, "not a number");
    says("add 1x", 2, "not a number");
    says("add 99999999999999999999x", 2, "not a number");
    says("add  1", 2, "not a number");
    asked("add 1", 4, "syntax: get");
    says("get", 0, "0");
    direct_close(&machine);
}
END_TEST

START_TEST(counter_hash_follows_the_value)
{
    direct_open(&machine, &counter_plugin.machine);
    struct lockstep_hash zero = direct_hash(&machine);
    direct_say(&machine, "add 3");
    ck_assert(!hashes_equal(zero, direct_hash(&machine)));
    direct_say(&machine, "add -3");
    ck_assert(hashes_equal(zero, direct_hash(&machine)));
    direct_close(&machine);
}
END_TEST

/* --- kv: text --- */

START_TEST(kv_does_what_its_six_words_say)
{
    direct_open(&machine, &kv_plugin.machine);
    says("get a", 1, "no such key");
    says("put a 1", 0, "");
    says("get a", 0, "1");
    asked("get a", 0, "1");
    says("del a", 0, "");
    says("del a", 1, "no such key");
    says("cas a 1 2", 1, "no such key");
    says("put a 1", 0, "");
    says("cas a 2 3", 3, "compare failed");
    says("cas a 11 3", 3, "compare failed");
    says("cas a 1 3", 0, "");
    says("get a", 0, "3");
    says("incr a 4", 0, "7");
    says("incr a -10", 0, "-3");
    says("incr new 1", 0, "1");
    says("append log one", 0, "3");
    says("append log , two", 0, "8");
    says("get log", 0, "one, two");
    says("incr log 1", 2, "not a number");
    direct_close(&machine);
}
END_TEST

START_TEST(kv_value_is_the_rest_of_the_line)
{
    direct_open(&machine, &kv_plugin.machine);
    says("put k a b  c ", 0, "");
    says("get k", 0, "a b  c ");
    says("put k  two spaces", 0, "");
    says("get k", 0, " two spaces");
    says("put k it says \"hello\"\n", 0, "");
    says("get k", 0, "it says \"hello\"");
    says("put k two\n\n", 0, "");
    says("get k", 0, "two\n");
    says("put k ", 0, "");
    says("get k", 0, "");
    says("  put   spaced v", 0, "");
    says("get   spaced  ", 0, "v");
    direct_close(&machine);
}
END_TEST

START_TEST(kv_quotes_hold_spaces_and_escapes)
{
    direct_open(&machine, &kv_plugin.machine);
    says("put \"a key\" \"a\\tvalue\\n\\\"\\\\\\x41\\x7a\"", 0, "");
    says("get \"a key\"", 0, "a\tvalue\n\"\\Az");
    says("cas \"a key\" \"a\\tvalue\\n\\\"\\\\Az\" \"new one\"", 0, "");
    says("get \"a key\"", 0, "new one");
    says("put e \"\"", 0, "");
    says("get e", 0, "");
    says("cas e \"\" x", 0, "");
    says("get e", 0, "x");
    says("put a\"b 1", 0, ""); /* a quote inside a bare word is a character like others */
    says("get \"a\\\"b\"", 0, "1");
    direct_apply(&machine, "put \"z\\x00\" \"\\x00\\xff\"", strlen("put \"z\\x00\" \"\\x00\\xff\""));
    direct_apply(&machine, "get z\0", 6);
    ck_assert_uint_eq(machine.reply_bytes, 2);
    ck_assert_mem_eq(machine.reply, "\0\xff", 2);
    direct_close(&machine);
}
END_TEST

START_TEST(kv_rejects_bad_syntax_and_changes_nothing)
{
    direct_open(&machine, &kv_plugin.machine);
    direct_say(&machine, "put k v");
    struct lockstep_hash before = direct_hash(&machine);
    static const char *const bad[] = {
        "",           "\n",        "   ",           "put",           "put k",          "put \"\" v",  "put \"k v",
        "put \"k\"v", "put k \"v", "put k \"v\" w", "put k \"\\q\"", "put k \"\\x4\"", "put k \"\\",  "get",
        "get k k",    "del",       "del k k",       "cas k",         "cas k v",        "cas k v w x", "incr k",
        "incr k 1 1", "append k",  "PUT k v",       "pu k v",        "\"put\" k v",    "putk v",      "get \"k\"x",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(direct_say(&machine, bad[i]) == 4, "%s: code %d", bad[i], machine.code);
        ck_assert_msg(strncmp((const char *)machine.reply, "syntax: ", 8) == 0, "%s", bad[i]);
    }
    static const char *const bad_queries[] = {"", "get", "put k v", "del k", "get k k", "incr k 1"};
    for (size_t i = 0; i < sizeof bad_queries / sizeof bad_queries[0]; i++)
        ck_assert_msg(direct_ask(&machine, bad_queries[i]) == 4, "%s", bad_queries[i]);
    ck_assert_int_eq(direct_ask(&machine, "get absent"), 1);
    ck_assert(hashes_equal(before, direct_hash(&machine)));
    says("get k", 0, "v");
    direct_close(&machine);
}
END_TEST

START_TEST(kv_numbers_have_64_bits_and_nothing_else)
{
    direct_open(&machine, &kv_plugin.machine);
    says("incr n 9223372036854775807", 0, "9223372036854775807");
    says("incr n 1", 6, "out of range");
    says("incr n 0", 0, "9223372036854775807");
    says("put n -9223372036854775808", 0, "");
    says("incr n -1", 6, "out of range");
    says("incr n 0", 0, "-9223372036854775808");
    says("incr n 9223372036854775808", 6, "out of range");
    says("incr n -9223372036854775809", 6, "out of range");
    says("incr n 1x", 2, "not a number");
    says("incr n +1", 2, "not a number");
    says("incr n \"\"", 2, "not a number");
    says("put n 1 ", 0, "");
    says("incr n 1", 2, "not a number");
    says("put n 99999999999999999999", 0, "");
    says("incr n 1", 6, "out of range");
    direct_close(&machine);
}
END_TEST

/* `prefix` and then `count` times c, as a command. Returns the code. */
static int32_t say_long(const char *prefix, size_t count, char c, const char *suffix)
{
    size_t before = strlen(prefix), behind = strlen(suffix);
    char *text = malloc(before + count + behind);
    memcpy(text, prefix, before);
    memset(text + before, c, count);
    memcpy(text + before + count, suffix, behind);
    direct_apply(&machine, text, before + count + behind);
    free(text);
    return machine.code;
}

START_TEST(kv_bounds_keys_and_values_so_that_every_reply_fits)
{
    enum { VALUE_MAX = LOCKSTEP_REPLY_BYTES_MAX, KEY_MAX = 1024 };
    direct_open(&machine, &kv_plugin.machine);
    ck_assert_int_eq(say_long("put ", KEY_MAX, 'k', " v"), 0);
    ck_assert_int_eq(say_long("put ", KEY_MAX + 1, 'k', " v"), 5);
    ck_assert_int_eq(say_long("get \"", KEY_MAX + 1, 'k', "\""), 5);
    ck_assert_int_eq(say_long("get \"", KEY_MAX, 'k', "\""), 0);
    ck_assert_int_eq(say_long("put v ", VALUE_MAX, 'x', ""), 0);
    ck_assert_int_eq(direct_say(&machine, "get v"), 0);
    ck_assert_uint_eq(machine.reply_bytes, VALUE_MAX);
    ck_assert_int_eq(direct_say(&machine, "append v y"), 5);
    ck_assert_int_eq(say_long("put v ", VALUE_MAX + 1, 'x', ""), 5);
    ck_assert_int_eq(say_long("put v \"", VALUE_MAX + 1, 'x', "\""), 5);
    ck_assert_int_eq(say_long("put v \"", VALUE_MAX, 'x', "\""), 0);
    ck_assert_int_eq(say_long("cas v a ", VALUE_MAX + 1, 'x', ""), 5);
    ck_assert_int_eq(say_long("\"", 3 * VALUE_MAX, 'x', "\" k v"), 4); /* a verb is not unquoted */
    ck_assert_int_eq(say_long("", 3 * VALUE_MAX, 'x', ""), 4);
    ck_assert_int_eq(direct_say(&machine, "get v"), 0);
    ck_assert_uint_eq(machine.reply_bytes, VALUE_MAX);
    direct_close(&machine);
}
END_TEST

START_TEST(kv_unquotes_a_key_and_two_values_of_full_length_at_once)
{
    enum { VALUE_MAX = LOCKSTEP_REPLY_BYTES_MAX, KEY_MAX = 1024 };
    direct_open(&machine, &kv_plugin.machine);
    size_t room = KEY_MAX + 2 * (size_t)VALUE_MAX + 64;
    char *text = malloc(room);
    size_t at = 0;
    memcpy(text, "put \"", 5), at = 5;
    memset(text + at, 'k', KEY_MAX), at += KEY_MAX;
    memcpy(text + at, "\" \"", 3), at += 3;
    memset(text + at, 'o', VALUE_MAX), at += VALUE_MAX;
    text[at++] = '"';
    direct_apply(&machine, text, at);
    ck_assert_int_eq(machine.code, 0);
    memcpy(text, "cas", 3);
    memcpy(text + at, " \"", 2), at += 2;
    memset(text + at, 'n', VALUE_MAX), at += VALUE_MAX;
    text[at++] = '"';
    direct_apply(&machine, text, at);
    ck_assert_int_eq(machine.code, 0);
    free(text);
    ck_assert_int_eq(say_long("get ", KEY_MAX, 'k', ""), 0);
    ck_assert_uint_eq(machine.reply_bytes, VALUE_MAX);
    ck_assert_int_eq(machine.reply[0], 'n');
    ck_assert_int_eq(machine.reply[VALUE_MAX - 1], 'n');
    direct_close(&machine);
}
END_TEST

/* --- kv: state --- */

START_TEST(kv_hash_depends_on_the_contents_and_not_on_how_they_came_about)
{
    direct_open(&machine, &kv_plugin.machine);
    direct_open(&other, &kv_plugin.machine);
    struct lockstep_hash empty = direct_hash(&machine);
    char text[64];
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "put key%d value%d", i, i);
        direct_say(&machine, text);
    }
    for (int i = 9999; i >= 0; i--) { /* the other way round, with detours, pieces and a larger table */
        snprintf(text, sizeof text, "put key%d val", i);
        direct_say(&other, text);
        snprintf(text, sizeof text, "append key%d ue%d", i, i);
        direct_say(&other, text);
    }
    for (int i = 5000; i < 10000; i++) {
        snprintf(text, sizeof text, "del key%d", i);
        direct_say(&other, text);
    }
    ck_assert(hashes_equal(direct_hash(&machine), direct_hash(&other)));
    direct_say(&other, "put key77 value78");
    ck_assert(!hashes_equal(direct_hash(&machine), direct_hash(&other)));
    direct_say(&other, "put key77 value77");
    ck_assert(hashes_equal(direct_hash(&machine), direct_hash(&other)));
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "del key%d", i);
        direct_say(&machine, text);
    }
    ck_assert(hashes_equal(direct_hash(&machine), empty));
    direct_close(&machine);
    direct_close(&other);
}
END_TEST

START_TEST(kv_hash_tells_apart_what_looks_alike)
{
    /* Each pair has the same bytes in another division, or differs by zeros at the end. */
    static const char *const pairs[][2] = {
        {"put a bc", "put ab c"},
        {"put a \"\"", "put a \"\\x00\""},
        {"put a \"\\x00\"", "put a \"\\x00\\x00\""},
        {"put a 0123456789abcdef", "put a \"0123456789abcdef\\x00\""},
        {"put 0123456789abcdef x", "put 0123456789abcdefx \"\""},
        {"put a 0123456789abcdefFEDCBA9876543210", "put a FEDCBA98765432100123456789abcdef"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        direct_open(&machine, &kv_plugin.machine);
        direct_open(&other, &kv_plugin.machine);
        ck_assert_int_eq(direct_say(&machine, pairs[i][0]), 0);
        ck_assert_int_eq(direct_say(&other, pairs[i][1]), 0);
        ck_assert_msg(!hashes_equal(direct_hash(&machine), direct_hash(&other)), "%s", pairs[i][0]);
        direct_close(&machine);
        direct_close(&other);
    }
}
END_TEST

START_TEST(kv_hash_is_the_same_in_every_build) /* replicas may be built by other compilers */
{
    direct_open(&machine, &kv_plugin.machine);
    direct_say(&machine, "put alpha 1");
    direct_say(&machine, "put \"a key\" a value that is longer than sixteen bytes");
    direct_say(&machine, "incr n 41");
    ck_assert_uint_eq(direct_hash(&machine).low, UINT64_C(0x79dc2527cb88df32));
    ck_assert_uint_eq(direct_hash(&machine).high, UINT64_C(0x0164ac4d2b96adca));
    direct_close(&machine);
}
END_TEST

/* The same operations on a plain list. */
enum { MODEL_KEYS = 600, MODEL_VALUE_BYTES = 4096 };
static struct model_entry {
    bool there;
    size_t bytes;
    char value[MODEL_VALUE_BYTES];
} model[MODEL_KEYS];

START_TEST(kv_agrees_with_a_plain_list_over_random_commands)
{
    struct random random;
    random_seed(&random, unit_seed(0x6b765eed));
    memset(model, 0, sizeof model);
    direct_open(&machine, &kv_plugin.machine);
    static char text[MODEL_VALUE_BYTES + 64], piece[MODEL_VALUE_BYTES];
    uint64_t rounds = unit_rounds(200000);
    for (uint64_t round = 0; round < rounds; round++) {
        /* Waves: mostly puts, then mostly deletes, so that the table fills and empties while it moves. */
        bool filling = round / 5000 % 2 == 0;
        uint64_t key = random_below(&random, MODEL_KEYS);
        struct model_entry *entry = &model[key];
        uint64_t kind = random_below(&random, 10);
        size_t bytes = random_below(&random, 20) == 0 ? random_below(&random, 2000) : random_below(&random, 40);
        for (size_t i = 0; i < bytes; i++) piece[i] = (char)('a' + random_below(&random, 26));
        if (kind < (filling ? 5 : 1)) {
            snprintf(text, sizeof text, "put %llu %.*s", (unsigned long long)key, (int)bytes, piece);
            ck_assert_int_eq(direct_say(&machine, text), 0);
            entry->there = true;
            entry->bytes = bytes;
            memcpy(entry->value, piece, bytes);
        } else if (kind < 7) {
            snprintf(text, sizeof text, "del %llu", (unsigned long long)key);
            ck_assert_int_eq(direct_say(&machine, text), entry->there ? 0 : 1);
            entry->there = false;
            entry->bytes = 0;
        } else if (kind < 9 && entry->bytes + bytes <= MODEL_VALUE_BYTES) {
            snprintf(text, sizeof text, "append %llu %.*s", (unsigned long long)key, (int)bytes, piece);
            ck_assert_int_eq(direct_say(&machine, text), 0);
            memcpy(entry->value + entry->bytes, piece, bytes);
            entry->there = true;
            entry->bytes += bytes;
        }
        snprintf(text, sizeof text, "get %llu", (unsigned long long)random_below(&random, MODEL_KEYS));
        entry = &model[strtoull(text + 4, NULL, 10)];
        ck_assert_int_eq(direct_ask(&machine, text), entry->there ? 0 : 1);
        if (entry->there) {
            ck_assert_uint_eq(machine.reply_bytes, entry->bytes);
            ck_assert_mem_eq(machine.reply, entry->value, entry->bytes);
        }
    }
    /* A machine that was given the result alone has the same hash. */
    direct_open(&other, &kv_plugin.machine);
    for (unsigned key = 0; key < MODEL_KEYS; key++) {
        if (!model[key].there) continue;
        snprintf(text, sizeof text, "put %u %.*s", key, (int)model[key].bytes, model[key].value);
        direct_say(&other, text);
    }
    ck_assert(hashes_equal(direct_hash(&machine), direct_hash(&other)));
    direct_close(&machine);
    direct_close(&other);
}
END_TEST

START_TEST(kv_keeps_every_key_while_its_table_grows)
{
    direct_open(&machine, &kv_plugin.machine);
    char text[64], expected[32];
    int keys = (int)unit_rounds(60000); /* several doublings */
    for (int i = 0; i < keys; i++) {
        snprintf(text, sizeof text, "put %d v%d", i, i);
        direct_say(&machine, text);
        int back = i / 2; /* an older one, which may lie in either table */
        snprintf(text, sizeof text, "get %d", back);
        snprintf(expected, sizeof expected, "v%d", back);
        asked(text, 0, expected);
        if (i % 3 == 2) {
            snprintf(text, sizeof text, "del %d", i);
            says(text, 0, "");
            snprintf(text, sizeof text, "put %d v%d", i, i);
            says(text, 0, "");
        }
    }
    for (int i = 0; i < keys; i++) {
        snprintf(text, sizeof text, "get %d", i);
        snprintf(expected, sizeof expected, "v%d", i);
        asked(text, 0, expected);
    }
    direct_close(&machine);
}
END_TEST

START_TEST(kv_finds_every_key_while_keys_are_deleted_from_a_table_that_moves) /* K4 */
{
    enum { KEYS = 641 }; /* the 641st key makes a table of 1,024 slots too small */
    static bool there[KEYS];
    char text[64];
    direct_open(&machine, &kv_plugin.machine);
    for (int i = 0; i < KEYS; i++) {
        snprintf(text, sizeof text, "put %d v", i);
        says(text, 0, "");
        there[i] = true;
    }
    for (int gone = 0; gone < KEYS; gone += 5) { /* each deletion moves a few slots */
        snprintf(text, sizeof text, "del %d", gone);
        says(text, 0, "");
        there[gone] = false;
        for (int i = 0; i < KEYS; i++) {
            snprintf(text, sizeof text, "get %d", i);
            ck_assert_msg(direct_ask(&machine, text) == (there[i] ? 0 : 1), "%s after del %d", text, gone);
        }
    }
    direct_close(&machine);
}
END_TEST

/* --- snapshots --- */

/* Every cut and every flipped byte: refused, or another state than it was; never more than that. */
static void check_damage(const struct plugin *plugin, const uint8_t *bytes, size_t count, struct lockstep_hash hash)
{
    uint8_t *damaged = malloc(count + 1);
    ck_assert_ptr_nonnull(damaged);
    for (size_t cut = 0; cut < count; cut++) {
        direct_open(&other, &plugin->machine);
        ck_assert_int_lt(direct_restore(&other, bytes, cut, 7), 0);
        direct_close(&other);
    }
    for (size_t at = 0; at < count; at++) {
        memcpy(damaged, bytes, count);
        damaged[at] ^= (uint8_t)(1 + at % 255);
        direct_open(&other, &plugin->machine);
        if (direct_restore(&other, damaged, count, 4096) == 0) ck_assert(!hashes_equal(direct_hash(&other), hash));
        direct_close(&other);
    }
    memcpy(damaged, bytes, count);
    damaged[count] = 0;
    direct_open(&other, &plugin->machine);
    ck_assert_int_lt(direct_restore(&other, damaged, count + 1, 4096), 0); /* something behind the end */
    direct_close(&other);
    free(damaged);
}

START_TEST(counter_comes_back_from_its_snapshot)
{
    size_t count = 0;
    direct_open(&machine, &counter_plugin.machine);
    says("add -1234567890123", 0, "-1234567890123");
    uint8_t *bytes = direct_snapshot(&machine, &count);
    direct_open(&other, &counter_plugin.machine);
    ck_assert_int_eq(direct_restore(&other, bytes, count, 3), 0);
    ck_assert(hashes_equal(direct_hash(&other), direct_hash(&machine)));
    direct_close(&other);
    check_damage(&counter_plugin, bytes, count, direct_hash(&machine));
    free(bytes);
    direct_close(&machine);
}
END_TEST

START_TEST(kv_snapshots_of_equal_states_are_equal_bytes_whatever_came_before) /* T44 */
{
    char text[64];
    size_t count = 0, other_count = 0;
    direct_open(&machine, &kv_plugin.machine);
    direct_open(&other, &kv_plugin.machine);
    for (int i = 0; i < 3000; i++) {
        snprintf(text, sizeof text, "put key%d value %d", i, i);
        direct_say(&machine, text);
    }
    for (int i = 5000; i-- > 0;) { /* the other way round, with more in between that goes again */
        snprintf(text, sizeof text, "append key%d value", i);
        direct_say(&other, text);
        snprintf(text, sizeof text, "append key%d  %d", i, i);
        direct_say(&other, text);
    }
    for (int i = 3000; i < 5000; i++) {
        snprintf(text, sizeof text, "del key%d", i);
        direct_say(&other, text);
    }
    uint8_t *bytes = direct_snapshot(&machine, &count), *others = direct_snapshot(&other, &other_count);
    ck_assert(hashes_equal(direct_hash(&other), direct_hash(&machine)));
    ck_assert_uint_eq(count, other_count);
    ck_assert_mem_eq(bytes, others, count);
    free(others);
    direct_close(&other);
    direct_open(&other, &kv_plugin.machine);
    ck_assert_int_eq(direct_restore(&other, bytes, count, 61), 0);
    ck_assert(hashes_equal(direct_hash(&other), direct_hash(&machine)));
    others = direct_snapshot(&other, &other_count);
    ck_assert_uint_eq(count, other_count);
    ck_assert_mem_eq(bytes, others, count);
    free(others);
    free(bytes);
    direct_close(&other);
    direct_close(&machine);
}
END_TEST

START_TEST(kv_snapshot_shows_the_moment_it_began)
{
    size_t count = 0;
    direct_open(&machine, &kv_plugin.machine);
    says("put a 1", 0, "");
    says("put b 2", 0, "");
    struct lockstep_hash hash = direct_hash(&machine);
    void *frozen = direct_freeze(&machine);
    says("put a 3", 0, "");
    says("del b", 0, "");
    says("put c 4", 0, "");
    uint8_t *bytes = direct_frozen_bytes(&machine, frozen, &count);
    direct_open(&other, &kv_plugin.machine);
    ck_assert_int_eq(direct_restore(&other, bytes, count, 4096), 0);
    ck_assert(hashes_equal(direct_hash(&other), hash));
    direct_close(&other);
    free(bytes);
    direct_close(&machine);
}
END_TEST

/* A frozen state on its way out, in a thread of its own. */
struct outgoing {
    struct lockstep_writer face; /* first */
    void *frozen;
    uint8_t *bytes;
    size_t count, room;
    int rc;
};

static int outgoing_take(struct lockstep_writer *writer, const void *bytes, size_t count)
{
    struct outgoing *to = (struct outgoing *)(void *)writer;
    if (to->count + count > to->room) {
        to->room = 2 * (to->count + count);
        to->bytes = realloc(to->bytes, to->room);
    }
    memcpy(to->bytes + to->count, bytes, count);
    to->count += count;
    return 0;
}

static void *outgoing_run(void *context)
{
    struct outgoing *to = context;
    to->rc = machine.table->snapshot_write(machine.machine, to->frozen, &to->face);
    return NULL;
}

static void change_anything(struct random *random, unsigned keys)
{
    static char text[1 << 17], value[1 << 16];
    unsigned key = (unsigned)random_below(random, keys);
    size_t bytes = random_chance(random, 1, 500) ? 65530 : random_below(random, 120); /* of a slab, or of malloc */
    memset(value, 'a' + (int)random_below(random, 26), bytes);
    value[bytes] = 0;
    switch (random_below(random, 4)) {
    case 0: snprintf(text, sizeof text, "del key%u", key); break;
    case 1: snprintf(text, sizeof text, "append key%u x%.100s", key, value); break;
    default: snprintf(text, sizeof text, "put key%u x%s", key, value);
    }
    direct_say(&machine, text);
}

START_TEST(kv_state_that_is_frozen_stays_while_another_thread_writes_it_and_everything_changes) /* K5 */
{
    struct random random;
    random_seed(&random, unit_seed(0xf7023));
    direct_open(&machine, &kv_plugin.machine);
    unsigned keys = 100;
    for (uint64_t round = 0; round < unit_rounds(10);
         round++, keys = keys * 2 % 50000 + 50) { /* tables grow meanwhile */
        size_t expected_count = 0;
        uint8_t *expected = direct_snapshot(&machine, &expected_count);
        struct outgoing to = {.face = {.size = sizeof to.face, .write = outgoing_take}};
        to.frozen = direct_freeze(&machine);
        void *second;
        ck_assert_int_ne(machine.table->snapshot_begin(machine.machine, &second), 0); /* one at a time */
        unsigned before = round % 2 ? keys : 0; /* some changes surely come before the first byte is written */
        for (unsigned i = 0; i < before; i++) change_anything(&random, keys);
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, outgoing_run, &to), 0);
        for (unsigned i = 0; i < 2 * keys; i++) change_anything(&random, keys);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        ck_assert_int_eq(to.rc, 0);
        ck_assert_uint_eq(to.count, expected_count);
        ck_assert_mem_eq(to.bytes, expected, expected_count);
        if (round % 3 == 2) /* the changes while it is frozen leave a state like any other */
            for (unsigned i = 0; i < keys; i++) change_anything(&random, keys);
        machine.table->snapshot_end(machine.machine, to.frozen);
        free(to.bytes);
        free(expected);
        for (unsigned i = 0; i < keys; i++) change_anything(&random, keys); /* what was kept for it is used again */
        expected = direct_snapshot(&machine, &expected_count);
        direct_open(&other, &kv_plugin.machine);
        ck_assert_int_eq(direct_restore(&other, expected, expected_count, 4096), 0);
        ck_assert(hashes_equal(direct_hash(&other), direct_hash(&machine)));
        direct_close(&other);
        free(expected);
    }
    direct_close(&machine);
}
END_TEST

START_TEST(kv_refuses_damaged_snapshots)
{
    size_t count = 0;
    direct_open(&machine, &kv_plugin.machine);
    says("put a 1", 0, "");
    says("put ab", 4, "syntax: put K V");
    says("put ab \"\"", 0, "");
    says("put b some longer value than that", 0, "");
    uint8_t *bytes = direct_snapshot(&machine, &count);
    check_damage(&kv_plugin, bytes, count, direct_hash(&machine));
    free(bytes);
    direct_close(&machine);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, counter_adds_and_tells);
    tcase_add_test(tests, counter_rejects_what_leaves_64_bits_and_stays_as_it_was);
    tcase_add_test(tests, counter_rejects_what_is_no_number_or_no_command);
    tcase_add_test(tests, counter_hash_follows_the_value);
    tcase_add_test(tests, kv_does_what_its_six_words_say);
    tcase_add_test(tests, kv_value_is_the_rest_of_the_line);
    tcase_add_test(tests, kv_quotes_hold_spaces_and_escapes);
    tcase_add_test(tests, kv_rejects_bad_syntax_and_changes_nothing);
    tcase_add_test(tests, kv_numbers_have_64_bits_and_nothing_else);
    tcase_add_test(tests, kv_bounds_keys_and_values_so_that_every_reply_fits);
    tcase_add_test(tests, kv_unquotes_a_key_and_two_values_of_full_length_at_once);
    tcase_add_test(tests, kv_hash_depends_on_the_contents_and_not_on_how_they_came_about);
    tcase_add_test(tests, kv_hash_tells_apart_what_looks_alike);
    tcase_add_test(tests, kv_hash_is_the_same_in_every_build);
    tcase_add_test(tests, kv_agrees_with_a_plain_list_over_random_commands);
    tcase_add_test(tests, kv_finds_every_key_while_keys_are_deleted_from_a_table_that_moves);
    tcase_add_test(tests, kv_keeps_every_key_while_its_table_grows);
    tcase_add_test(tests, counter_comes_back_from_its_snapshot);
    tcase_add_test(tests, kv_snapshots_of_equal_states_are_equal_bytes_whatever_came_before);
    tcase_add_test(tests, kv_snapshot_shows_the_moment_it_began);
    tcase_add_test(tests, kv_state_that_is_frozen_stays_while_another_thread_writes_it_and_everything_changes);
    tcase_add_test(tests, kv_refuses_damaged_snapshots);
}

int main(int argc, char **argv)
{
    char why[1024];
    if (argc != 4) return 2;
    if (plugin_load(argv[2], argv[1], "counter", &counter_plugin, why, sizeof why) != 0 ||
        plugin_load(argv[3], argv[1], "kv", &kv_plugin, why, sizeof why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    return unit_main("machines", add);
}
