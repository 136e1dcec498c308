/* SPDX-License-Identifier: Apache-2.0 */
/* test_configuration.c - configurations as bytes, and what recovery hands out of them: all that a truncation can go back
 * to (R6, T31, T32). */
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/table.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_kv.h"
#include "tests/support/store.h"
#include "tests/support/unit.h"

static struct store store;
static struct sim_disk *disk;
static struct sim_kv *kv;

static void setup(void)
{
    disk = sim_disk_open(1);
    kv = sim_kv_open(disk);
    store_options(&store, "d", sim_disk(disk), sim_kv(kv));
}

static void teardown(void)
{
    store_close(&store);
    sim_kv_close(kv);
    sim_disk_close(disk);
}

static void member_set(struct configuration *c, uint32_t i, raft_member id, uint8_t role)
{
    struct configuration_member *m = &c->members[i];
    *m = (struct configuration_member){.id = id, .role = role, .priority = 3};
    snprintf(m->name, sizeof m->name, "n%u", i + 1);
    snprintf(m->client, sizeof m->client, "127.0.0.1:740%u", i + 1);
    snprintf(m->peer, sizeof m->peer, "[::1]:750%u", i + 1);
}

/* n1 to n3 vote. */
static struct configuration three(raft_member first_id)
{
    struct configuration c = {.uncommitted_bytes_max = 1 << 20, .level = DURABILITY_LEVEL_FSYNC, .member_count = 3};
    for (uint32_t i = 0; i < 3; i++) member_set(&c, i, first_id + i, CONFIGURATION_VOTER);
    return c;
}

static bool same(const struct configuration *a, const struct configuration *b)
{
    uint8_t a_bytes[CONFIGURATION_BYTES_MAX], b_bytes[CONFIGURATION_BYTES_MAX];
    uint32_t count = configuration_write(a, a_bytes);
    return count == configuration_write(b, b_bytes) && memcmp(a_bytes, b_bytes, count) == 0;
}

START_TEST(configuration_comes_back_from_its_bytes)
{
    struct configuration c = three(1), back;
    uint8_t bytes[CONFIGURATION_BYTES_MAX];
    c.session_window = 1024;
    c.sessions_max = 65536;
    c.session_replies_bytes = 64 << 20;
    c.session_expiry_ms = 60000;
    c.member_count = 5;
    member_set(&c, 2, 3, CONFIGURATION_LEAVING);   /* leaves */
    member_set(&c, 3, 40, CONFIGURATION_INCOMING); /* takes its place */
    member_set(&c, 4, 50, CONFIGURATION_LEARNER);
    uint32_t count = configuration_write(&c, bytes);
    ck_assert_uint_eq(count % 8, 0); /* a block's body */
    ck_assert_int_eq(configuration_read(bytes, count, &back), 0);
    ck_assert(configuration_is_joint(&back));
    ck_assert_uint_eq(back.member_count, 5);
    ck_assert_uint_eq(back.uncommitted_bytes_max, 1 << 20);
    ck_assert_uint_eq(back.session_window, 1024);
    ck_assert_uint_eq(back.sessions_max, 65536);
    ck_assert_uint_eq(back.session_replies_bytes, 64 << 20);
    ck_assert_uint_eq(back.session_expiry_ms, 60000);
    ck_assert_uint_eq(configuration_find(&back, 40)->role, CONFIGURATION_INCOMING);
    ck_assert_uint_eq(configuration_find(&back, 40)->priority, 3);
    ck_assert_str_eq(configuration_find(&back, 3)->peer, "[::1]:7503");
    ck_assert_ptr_null(configuration_find(&back, 4));
    ck_assert(same(&c, &back));
}
END_TEST

START_TEST(sixteen_members_fit)
{
    struct configuration c = three(1), back;
    uint8_t bytes[CONFIGURATION_BYTES_MAX];
    c.member_count = RAFT_MEMBERS_MAX;
    for (uint32_t i = 0; i < RAFT_MEMBERS_MAX; i++) member_set(&c, i, i + 1, CONFIGURATION_VOTER);
    ck_assert_uint_eq(configuration_write(&c, bytes), CONFIGURATION_BYTES_MAX);
    ck_assert_int_eq(configuration_read(bytes, CONFIGURATION_BYTES_MAX, &back), 0);
}
END_TEST

START_TEST(what_no_group_could_work_with_is_refused)
{
    static const struct {
        const char *what;
        uint8_t role;
        raft_member id;
        char name_byte;
    } cases[] = {
        {"id 0", 1, 0, 'n'},
        {"an id twice", 1, 2, 'n'},
        {"no role", 0, 9, 'n'},
        {"an unknown role", 6, 9, 'n'},
        {"an empty name", 1, 9, 0},
        {"a name with a line end", 1, 9, '\n'},
        {"a name with a blank", 1, 9, ' '},
        {"a name with an odd byte", 1, 9, (char)0xe4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct configuration c = three(1);
        ck_assert(configuration_valid(&c));
        ck_assert(!configuration_is_joint(&c));
        c.members[0].id = cases[i].id;
        c.members[0].role = cases[i].role;
        c.members[0].name[0] = cases[i].name_byte;
        ck_assert_msg(!configuration_valid(&c), "%s", cases[i].what);
    }
    struct configuration c = three(1);
    c.member_count = 0;
    ck_assert(!configuration_valid(&c));
    c.member_count = RAFT_MEMBERS_MAX + 1;
    ck_assert(!configuration_valid(&c));
    c = three(1);
    c.level = 4;
    ck_assert(!configuration_valid(&c));
    c = three(1); /* nobody would vote */
    for (uint32_t i = 0; i < 3; i++) c.members[i].role = CONFIGURATION_LEARNER;
    ck_assert(!configuration_valid(&c));
    for (uint32_t i = 0; i < 3; i++) c.members[i].role = CONFIGURATION_LEAVING;
    ck_assert(!configuration_valid(&c));
    for (uint32_t i = 0; i < 3; i++) c.members[i].role = CONFIGURATION_INCOMING;
    ck_assert(!configuration_valid(&c));
    c = three(1);
    memset(c.members[1].peer, 'x', sizeof c.members[1].peer); /* without an end */
    ck_assert(!configuration_valid(&c));
}
END_TEST

START_TEST(damaged_bytes_are_refused)
{
    struct configuration c = three(1), back;
    uint8_t bytes[CONFIGURATION_BYTES_MAX];
    uint32_t count = configuration_write(&c, bytes);
    for (uint32_t bit = 0; bit < count * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_int_eq(configuration_read(bytes, count, &back), LOCKSTEP_ECORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (uint32_t less = 0; less < count; less++)
        ck_assert_int_eq(configuration_read(bytes, less, &back), LOCKSTEP_ECORRUPT);
    ck_assert_int_eq(configuration_read(bytes, count, &back), 0);
}
END_TEST

static void reseal(uint8_t *bytes, uint32_t count)
{
    uint32_t crc = crc32c(bytes + 8, count - 8);
    memcpy(bytes + 4, &crc, sizeof crc);
}

START_TEST(right_checksum_over_wrong_fields_is_refused)
{
    struct configuration c = three(1), back;
    uint8_t bytes[CONFIGURATION_BYTES_MAX];
    uint32_t count = configuration_write(&c, bytes);
    const struct {
        uint32_t at;
        uint8_t value;
        int rc;
    } cases[] = {
        {8, 2, LOCKSTEP_EVERSION},          {28, 4, LOCKSTEP_ECORRUPT},     {28, 255, LOCKSTEP_ECORRUPT},
        {48 + 10, 1, LOCKSTEP_ECORRUPT},    {48 + 8, 7, LOCKSTEP_ECORRUPT}, {48 + 79, 1, LOCKSTEP_ECORRUPT},
        {48 + 351, 'x', LOCKSTEP_ECORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t held = bytes[cases[i].at];
        bytes[cases[i].at] = cases[i].value;
        reseal(bytes, count);
        ck_assert_int_eq(configuration_read(bytes, count, &back), cases[i].rc);
        bytes[cases[i].at] = held;
    }
}
END_TEST

/* --- what recovery hands out ------------------------------------------------------------------------------------ */

static void append_configuration(raft_term term, const struct configuration *c)
{
    uint8_t body[CONFIGURATION_BYTES_MAX], *at = NULL;
    uint32_t count = configuration_write(c, body);
    struct block_base base = ring_last(store.ring);
    ck_assert(storage_persist_fits(store.storage, BLOCK_HEADER_BYTES + count));
    ck_assert_int_eq(ring_claim(store.ring, BLOCK_HEADER_BYTES + count, &at), 0);
    memcpy(at + BLOCK_HEADER_BYTES, body, count);
    struct block_header header = {.bytes = BLOCK_HEADER_BYTES + count,
                                  .type = BLOCK_CONFIGURATION,
                                  .index = base.index + 1,
                                  .term = term,
                                  .time_ns = base.time_ns + 1,
                                  .first_position = base.next_position,
                                  .previous_crc = base.crc};
    block_seal(at, &header);
    ring_publish(store.ring, &header);
}

static void persist_all_from(raft_index first)
{
    store_persist(&store, first, false);
    store_run_journal(&store, 0);
}

static void reopen(void)
{
    store_close(&store);
    ck_assert_msg(store_open(&store) == 0, "%s", store.why);
}

START_TEST(configurations_of_the_live_tail_are_handed_out) /* R6, T31 */
{
    struct configuration a = three(10), b = three(20);
    ck_assert_int_eq(store_open(&store), 0);
    ck_assert_uint_eq(store.recovered.configuration_count, 0); /* the birth record has it */
    store_append(&store, 1, 100, 1);
    append_configuration(1, &a);
    store_append(&store, 1, 100, 1);
    append_configuration(1, &b);
    persist_all_from(1);
    reopen();
    ck_assert_uint_eq(store.recovered.configuration_count, 2);
    ck_assert_uint_eq(store.recovered.configurations[0].index, 2);
    ck_assert_uint_eq(store.recovered.configurations[1].index, 4);
    ck_assert(same(&store.recovered.configurations[0].configuration, &a));
    ck_assert(same(&store.recovered.configurations[1].configuration, &b));
}
END_TEST

START_TEST(truncated_configuration_does_not_come_back) /* T31 */
{
    struct configuration a = three(10), b = three(20);
    ck_assert_int_eq(store_open(&store), 0);
    append_configuration(1, &a);
    append_configuration(1, &b);
    persist_all_from(1);
    store_cut(&store, 2);
    store_append(&store, 2, 100, 2);
    persist_all_from(2);
    reopen();
    ck_assert_uint_eq(store.recovered.last.index, 2);
    ck_assert_uint_eq(store.recovered.configuration_count, 1);
    ck_assert_uint_eq(store.recovered.configurations[0].index, 1);
    ck_assert(same(&store.recovered.configurations[0].configuration, &a));
}
END_TEST

START_TEST(
    stored_configuration_stays_below_the_live_ones) /* T32: an uncommitted one goes back to one in the map alone */
{
    struct configuration a = three(10), b = three(20), c = three(30);
    ck_assert_int_eq(store_open(&store), 0);
    append_configuration(1, &a);
    append_configuration(1, &b);
    store_append(&store, 1, 100, 1);
    persist_all_from(1);
    storage_commit(store.storage, 3);
    store_run_log(&store, UINT64_C(1000000000));
    ck_assert_uint_eq(storage_stored(store.storage), 3);
    append_configuration(1, &c);
    persist_all_from(4);
    reopen();
    ck_assert_uint_eq(store.recovered.stored, 3);
    ck_assert_uint_eq(store.recovered.configuration_count, 2);
    ck_assert_uint_eq(store.recovered.configurations[0].index, 2); /* b; a is final history */
    ck_assert(same(&store.recovered.configurations[0].configuration, &b));
    ck_assert_uint_eq(store.recovered.configurations[1].index, 4);
    ck_assert(same(&store.recovered.configurations[1].configuration, &c));
}
END_TEST

START_TEST(damaged_row_is_found_and_named) /* the map finds no damage by itself */
{
    struct configuration a = three(10);
    ck_assert_int_eq(store_open(&store), 0);
    append_configuration(1, &a);
    persist_all_from(1);
    storage_commit(store.storage, 1);
    store_run_log(&store, UINT64_C(1000000000));
    store_close(&store);
    size_t bytes;
    sim_kv_value(kv, TABLE_CONFIGURATIONS, 1, &bytes)[50] ^= 1;
    ck_assert_int_eq(store_open(&store), LOCKSTEP_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(store.why, "configuration of block 1"));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, configuration_comes_back_from_its_bytes);
    tcase_add_test(tests, sixteen_members_fit);
    tcase_add_test(tests, what_no_group_could_work_with_is_refused);
    tcase_add_test(tests, damaged_bytes_are_refused);
    tcase_add_test(tests, right_checksum_over_wrong_fields_is_refused);
    tcase_add_test(tests, configurations_of_the_live_tail_are_handed_out);
    tcase_add_test(tests, truncated_configuration_does_not_come_back);
    tcase_add_test(tests, stored_configuration_stays_below_the_live_ones);
    tcase_add_test(tests, damaged_row_is_found_and_named);
}

int main(void)
{
    return unit_main("storage configuration", add);
}
