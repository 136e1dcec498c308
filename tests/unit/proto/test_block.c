/* SPDX-License-Identifier: Apache-2.0 */
/* test_block.c - the block format: what is written is read back, and nothing damaged passes for good. */
#include <string.h>

#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "proto/block.h"
#include "tests/support/blocks.h"
#include "tests/support/unit.h"

static uint8_t block[4096];
static struct block_header header;
static struct block_base base;

static void make(uint32_t commands, uint32_t payload_bytes)
{
    base = (struct block_base){.index = 6, .term = 2, .crc = 77, .next_position = 41, .time_ns = 1000};
    struct block_base after = base;
    blocks_make(block, &after, 3, commands, payload_bytes, 5, &header);
}

static int check(void)
{
    struct block_header read;
    int rc = block_header_read(block, sizeof block, &read);
    return rc != 0 ? rc : block_body_check(block, &read);
}

/* The header was changed by hand: make its checksums right again, so that only the meaning is wrong. */
static void reseal(void)
{
    block_seal(block, &header);
}

START_TEST(header_bytes_are_where_the_format_says)
{
    make(2, 5);
    uint32_t magic, bytes, count, previous_crc;
    uint64_t index, term, first_position;
    memcpy(&magic, block, 4);
    memcpy(&bytes, block + 12, 4);
    memcpy(&count, block + 20, 4);
    memcpy(&index, block + 24, 8);
    memcpy(&term, block + 32, 8);
    memcpy(&first_position, block + 48, 8);
    memcpy(&previous_crc, block + 60, 4);
    ck_assert_mem_eq(block, "LSLK", 4);
    ck_assert_uint_eq(bytes, 64 + 2 * 40);
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(index, 7);
    ck_assert_uint_eq(term, 3);
    ck_assert_uint_eq(first_position, 41);
    ck_assert_uint_eq(previous_crc, 77);
}
END_TEST

START_TEST(commands_are_walked_in_order_with_their_positions)
{
    make(3, 13);
    ck_assert_int_eq(check(), 0);
    struct block_cursor cursor = block_cursor(block, &header);
    struct command_view view;
    for (log_position position = 41; position < 44; position++) {
        ck_assert(block_cursor_next(&cursor, &view));
        ck_assert_uint_eq(view.position, position);
        ck_assert_uint_eq(view.header.bytes, 13);
        ck_assert_uint_eq(view.header.entity, 5);
    }
    ck_assert(!block_cursor_next(&cursor, &view));
}
END_TEST

START_TEST(block_is_read_at_an_odd_address)
{
    make(3, 13);
    static uint8_t odd[4097];
    memcpy(odd + 1, block, header.bytes);
    struct block_header read;
    ck_assert_int_eq(block_header_read(odd + 1, header.bytes, &read), 0);
    ck_assert_int_eq(block_body_check(odd + 1, &read), 0);
    struct block_cursor cursor = block_cursor(odd + 1, &read);
    struct command_view view;
    uint32_t count = 0;
    while (block_cursor_next(&cursor, &view)) count++;
    ck_assert_uint_eq(count, 3);
}
END_TEST

START_TEST(empty_block_is_good_and_has_no_commands)
{
    make(0, 0);
    ck_assert_uint_eq(header.bytes, BLOCK_HEADER_BYTES);
    ck_assert_int_eq(check(), 0);
    struct block_cursor cursor = block_cursor(block, &header);
    struct command_view view;
    ck_assert(!block_cursor_next(&cursor, &view));
}
END_TEST

START_TEST(every_flipped_bit_is_found)
{
    make(2, 21);
    for (uint32_t bit = 0; bit < header.bytes * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    ck_assert_int_eq(check(), 0);
}
END_TEST

START_TEST(header_that_is_cut_short_is_not_looked_at)
{
    make(1, 8);
    struct block_header read;
    ck_assert_int_eq(block_header_read(block, BLOCK_HEADER_BYTES - 1, &read), LOCKSTEP_EINVAL);
}
END_TEST

START_TEST(newer_version_is_told_from_damage)
{
    make(1, 8);
    header.version = BLOCK_VERSION + 1;
    memcpy(block, &header, sizeof header);
    uint32_t crc = crc32c(block + 8, BLOCK_HEADER_BYTES - 8);
    memcpy(block + 4, &crc, 4);
    ck_assert_int_eq(check(), LOCKSTEP_EVERSION);
}
END_TEST

START_TEST(hostile_lengths_are_refused)
{
    static const uint32_t lengths[] = {0, 63, 65, 72 + 1, BLOCK_BYTES_MAX + 8, UINT32_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        make(1, 8);
        memcpy(block + 12, &lengths[i], 4);
        uint32_t crc = crc32c(block + 8, BLOCK_HEADER_BYTES - 8);
        memcpy(block + 4, &crc, 4);
        ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
    }
}
END_TEST

START_TEST(commands_must_fill_the_body_exactly)
{
    make(2, 8);
    header.count = 1; /* a command is left over */
    reseal();
    ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
    header.count = 3; /* one is missing */
    reseal();
    ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
    header.count = UINT32_MAX; /* T53: a corrupt header's huge count */
    reseal();
    ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
}
END_TEST

START_TEST(command_longer_than_the_body_is_refused)
{
    static const uint32_t lengths[] = {9, 41, 4096, UINT32_MAX - 7, UINT32_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        make(1, 8);
        memcpy(block + BLOCK_HEADER_BYTES, &lengths[i], 4);
        reseal();
        ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
    }
}
END_TEST

START_TEST(padding_that_is_not_zero_is_refused)
{
    make(1, 5);
    block[header.bytes - 1] = 1;
    reseal();
    ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
}
END_TEST

START_TEST(term_block_with_a_body_is_refused)
{
    make(1, 5);
    header.type = BLOCK_TERM;
    reseal();
    ck_assert_int_eq(check(), LOCKSTEP_ECORRUPT);
}
END_TEST

START_TEST(block_follows_only_the_block_it_names)
{
    make(2, 8);
    ck_assert_int_eq(block_chain_check(&base, &header), 0);
    struct block_header next = header;
    next.index++;
    ck_assert_int_eq(block_chain_check(&base, &next), LOCKSTEP_ECORRUPT);
    next = header;
    next.previous_crc ^= 1;
    ck_assert_int_eq(block_chain_check(&base, &next), LOCKSTEP_ECORRUPT);
    next = header;
    next.first_position++;
    ck_assert_int_eq(block_chain_check(&base, &next), LOCKSTEP_ECORRUPT);
    next = header;
    next.term = base.term - 1;
    ck_assert_int_eq(block_chain_check(&base, &next), LOCKSTEP_ECORRUPT);
    next = header;
    next.time_ns = base.time_ns - 1;
    ck_assert_int_eq(block_chain_check(&base, &next), LOCKSTEP_ECORRUPT);
    next = header;
    next.time_ns = base.time_ns; /* time may stand still */
    ck_assert_int_eq(block_chain_check(&base, &next), 0);
}
END_TEST

START_TEST(base_after_a_block_is_what_the_next_one_follows)
{
    make(4, 8);
    struct block_base after = block_base_after(&header);
    ck_assert_uint_eq(after.index, 7);
    ck_assert_uint_eq(after.next_position, 45);
    static uint8_t next[4096];
    struct block_header next_header;
    struct block_base moving = after;
    blocks_make(next, &moving, 3, 1, 8, 9, &next_header);
    ck_assert_int_eq(block_chain_check(&after, &next_header), 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, header_bytes_are_where_the_format_says);
    tcase_add_test(tests, commands_are_walked_in_order_with_their_positions);
    tcase_add_test(tests, block_is_read_at_an_odd_address);
    tcase_add_test(tests, empty_block_is_good_and_has_no_commands);
    tcase_add_test(tests, every_flipped_bit_is_found);
    tcase_add_test(tests, header_that_is_cut_short_is_not_looked_at);
    tcase_add_test(tests, newer_version_is_told_from_damage);
    tcase_add_test(tests, hostile_lengths_are_refused);
    tcase_add_test(tests, commands_must_fill_the_body_exactly);
    tcase_add_test(tests, command_longer_than_the_body_is_refused);
    tcase_add_test(tests, padding_that_is_not_zero_is_refused);
    tcase_add_test(tests, term_block_with_a_body_is_refused);
    tcase_add_test(tests, block_follows_only_the_block_it_names);
    tcase_add_test(tests, base_after_a_block_is_what_the_next_one_follows);
}

int main(void)
{
    return unit_main("proto block", add);
}
