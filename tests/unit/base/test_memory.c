/* SPDX-License-Identifier: Apache-2.0 */
/* test_memory.c - the arena and the buffer keep to their limits and lose no byte. */
#include "base/arena.h"
#include "base/buffer.h"
#include "base/random.h"
#include "tests/support/unit.h"

#include <string.h>

START_TEST(arena_pieces_are_aligned_and_apart)
{
    struct arena arena;
    ck_assert(arena_open(&arena, 1000));
    uint8_t *previous = NULL;
    size_t previous_bytes = 0;
    for (size_t bytes = 0; bytes < 30; bytes++) {
        uint8_t *piece = arena_allocate(&arena, bytes);
        ck_assert_ptr_nonnull(piece);
        ck_assert_uint_eq((uintptr_t)piece % ARENA_ALIGNMENT, 0);
        if (previous != NULL) ck_assert(piece > previous && piece >= previous + previous_bytes);
        memset(piece, (int)bytes, bytes);
        previous = piece;
        previous_bytes = bytes;
    }
    arena_close(&arena);
    arena_close(&arena);
}
END_TEST

START_TEST(arena_refuses_what_exceeds_its_limit_and_gives_all_again_after_a_reset)
{
    struct arena arena;
    ck_assert(arena_open(&arena, 64));
    for (int lap = 0; lap < 2; lap++) {
        ck_assert_ptr_null(arena_allocate(&arena, 65));
        ck_assert_ptr_null(arena_allocate(&arena, SIZE_MAX)); /* rounding up would overflow to 0 */
        ck_assert_ptr_nonnull(arena_allocate(&arena, 33));    /* takes 48 */
        ck_assert_ptr_null(arena_allocate(&arena, 17));
        ck_assert_ptr_nonnull(arena_allocate(&arena, 16));
        ck_assert_ptr_null(arena_allocate(&arena, 0)); /* full is full */
        arena_reset(&arena);
    }
    arena_close(&arena);
}
END_TEST

START_TEST(buffer_refuses_what_exceeds_its_limit_and_stays_as_it_was)
{
    struct buffer buffer;
    buffer_open(&buffer, 10);
    ck_assert(buffer_append(&buffer, "12345678", 8));
    ck_assert(!buffer_append(&buffer, "abc", 3));
    ck_assert(!buffer_print(&buffer, "%d", 100));
    ck_assert_ptr_null(buffer_claim(&buffer, SIZE_MAX));
    ck_assert(buffer_print(&buffer, "%d", 90)); /* exactly full: the terminator is not counted */
    ck_assert_uint_eq(buffer_count(&buffer), 10);
    ck_assert_mem_eq(buffer_bytes(&buffer), "1234567890", 10);
    buffer_consume(&buffer, 9);
    ck_assert(buffer_append(&buffer, "abcdefghi", 9));
    ck_assert_mem_eq(buffer_bytes(&buffer), "0abcdefghi", 10);
    buffer_clear(&buffer);
    ck_assert_uint_eq(buffer_count(&buffer), 0);
    buffer_close(&buffer);
    buffer_close(&buffer);
}
END_TEST

START_TEST(buffer_bytes_leave_in_the_order_in_which_they_came)
{
    struct random r;
    random_seed(&r, unit_seed(0xb0f));
    struct buffer buffer;
    buffer_open(&buffer, 5000);
    uint32_t written = 0, consumed = 0; /* byte number n has the value n * 31 */
    for (uint64_t i = 0; i < unit_rounds(50000); i++) {
        uint8_t piece[1500];
        size_t count = random_below(&r, sizeof piece);
        for (size_t j = 0; j < count; j++) piece[j] = (uint8_t)((written + j) * 31);
        size_t held = buffer_count(&buffer);
        bool fits = held + count <= 5000;
        if (random_chance(&r, 1, 2)) {
            ck_assert_int_eq(buffer_append(&buffer, piece, count), fits);
        } else { /* in place, and fewer written than claimed */
            uint8_t *at = buffer_claim(&buffer, count);
            ck_assert_int_eq(at != NULL, fits);
            if (fits) {
                count = random_between(&r, 0, count);
                if (count > 0) memcpy(at, piece, count);
                buffer_commit(&buffer, count);
            }
        }
        if (fits) written += (uint32_t)count;
        ck_assert_uint_eq(buffer_count(&buffer), written - consumed);
        ck_assert_uint_le(buffer.capacity_bytes, 4 * 5000);
        size_t leave = random_between(&r, 0, buffer_count(&buffer));
        for (size_t j = 0; j < leave; j++)
            if (buffer_bytes(&buffer)[j] != (uint8_t)((consumed + j) * 31)) ck_abort_msg("byte changed");
        buffer_consume(&buffer, leave);
        consumed += (uint32_t)leave;
    }
    buffer_close(&buffer);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, arena_pieces_are_aligned_and_apart);
    tcase_add_test(tests, arena_refuses_what_exceeds_its_limit_and_gives_all_again_after_a_reset);
    tcase_add_test(tests, buffer_refuses_what_exceeds_its_limit_and_stays_as_it_was);
    tcase_add_test(tests, buffer_bytes_leave_in_the_order_in_which_they_came);
}

int main(void)
{
    return unit_main("base memory", add);
}
