/* SPDX-License-Identifier: Apache-2.0 */
/* test_grpc_text.c - the text forms of gRPC, and the pool that its codecs live on. */
#include <string.h>

#include "lockstep/errors.h"
#include "proto/grpc.h"
#include "proto/pool.h"
#include "tests/support/unit.h"

START_TEST(a_status_message_is_percent_encoded)
{
    char to[64];
    size_t n = grpc_percent_encode(grpc_text("100% f\xc3\xbcr\n\x7f~ "), to, sizeof to);
    const char *expected = "100%25 f%C3%BCr%0A%7F~ ";
    ck_assert_uint_eq(n, strlen(expected));
    ck_assert_mem_eq(to, expected, n);
    n = grpc_percent_decode((struct grpc_text){to, n}, to, sizeof to);
    ck_assert_uint_eq(n, 13);
    ck_assert_mem_eq(to, "100% f\xc3\xbcr\n\x7f~ ", n);
}
END_TEST

START_TEST(an_encoded_message_is_never_cut_inside_an_escape)
{
    char to[8];
    ck_assert_uint_eq(grpc_percent_encode(grpc_text("ab\xff\xff"), to, 7), 5);
    ck_assert_uint_eq(grpc_percent_encode(grpc_text("ab\xff\xff"), to, 8), 8);
    ck_assert_uint_eq(grpc_percent_encode(grpc_text("abc"), to, 0), 0);
}
END_TEST

START_TEST(a_percent_sign_without_digits_stands_for_itself)
{
    char to[16];
    ck_assert_uint_eq(grpc_percent_decode(grpc_text("%zz%4"), to, sizeof to), 5);
    ck_assert_mem_eq(to, "%zz%4", 5);
    ck_assert_uint_eq(grpc_percent_decode(grpc_text("%41b"), to, 1), 1);
    ck_assert_mem_eq(to, "A", 1);
}
END_TEST

static uint64_t timeout(const char *text)
{
    uint64_t ns = 77;
    return grpc_timeout_parse(grpc_text(text), &ns) == 0 ? ns : 77;
}

START_TEST(timeouts_are_digits_and_a_unit)
{
    ck_assert_uint_eq(timeout("1S"), 1000000000);
    ck_assert_uint_eq(timeout("10m"), 10000000);
    ck_assert_uint_eq(timeout("5u"), 5000);
    ck_assert_uint_eq(timeout("99999999n"), 99999999);
    ck_assert_uint_eq(timeout("2M"), 120000000000);
    ck_assert_uint_eq(timeout("1H"), 3600000000000);
    ck_assert_uint_eq(timeout("99999999H"), UINT64_MAX); /* more than 64 bits of ns: as good as none */
    static const char *const refused[] = {"", "1", "S", "123456789S", "-1S", " 1S", "1s", "1.5S", "0x1S"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) ck_assert_uint_eq(timeout(refused[i]), 77);
}
END_TEST

START_TEST(a_formatted_timeout_is_never_shorter)
{
    const uint64_t values[] = {0, 1, 99999999, 100000000, 99999999999, 99999999001, 1500000000, UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[GRPC_TIMEOUT_TEXT_BYTES_MAX];
        uint64_t back = 0;
        size_t n = grpc_timeout_format(values[i], text);
        ck_assert_uint_le(n, 9);
        ck_assert_int_eq(grpc_timeout_parse((struct grpc_text){text, n}, &back), 0);
        ck_assert_uint_ge(back, values[i]);
        ck_assert(back == UINT64_MAX || back - values[i] <= values[i] / 10000000 + 1);
    }
}
END_TEST

START_TEST(a_budget_and_a_pool_are_hard_bounds)
{
    struct pool pool;
    pool_open(&pool, 10000);
    struct pool_budget one = {.pool = &pool, .bytes_max = 4096}, two = {.pool = &pool, .bytes_max = 100000};
    void *a = pool_take(&one, 2000);
    ck_assert_ptr_nonnull(a);
    ck_assert_uint_eq(one.bytes, 2048);
    ck_assert_ptr_null(pool_take(&one, 3000));
    ck_assert_ptr_null(pool_take(&one, SIZE_MAX));
    ck_assert_ptr_null(pool_take(&two, 9000)); /* 16384 bytes would be over the pool's bound */
    void *b = pool_take(&two, 4000);
    ck_assert_ptr_nonnull(b);
    ck_assert_ptr_null(pool_take(&two, 4000));
    pool_give(&one, a);
    pool_give(&two, b);
    ck_assert_uint_eq(one.bytes, 0);
    /* What lies on free lists makes room for another size. */
    void *c = pool_take(&two, 8000);
    ck_assert_ptr_nonnull(c);
    pool_give(&two, c);
    pool_close(&pool);
}
END_TEST

START_TEST(a_resized_piece_keeps_its_bytes)
{
    struct pool pool;
    pool_open(&pool, 1 << 20);
    struct pool_budget budget = {.pool = &pool, .bytes_max = 1 << 20};
    char *piece = pool_resize(&budget, NULL, 10);
    memcpy(piece, "012345678", 10);
    ck_assert_ptr_eq(pool_resize(&budget, piece, 40), piece); /* still fits its class */
    ck_assert_ptr_null(pool_resize(&budget, piece, 2 << 20));
    piece = pool_resize(&budget, piece, 100000);
    ck_assert_str_eq(piece, "012345678");
    pool_give(&budget, piece);
    ck_assert_uint_eq(budget.bytes, 0);
    pool_close(&pool);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_status_message_is_percent_encoded);
    tcase_add_test(tests, an_encoded_message_is_never_cut_inside_an_escape);
    tcase_add_test(tests, a_percent_sign_without_digits_stands_for_itself);
    tcase_add_test(tests, timeouts_are_digits_and_a_unit);
    tcase_add_test(tests, a_formatted_timeout_is_never_shorter);
    tcase_add_test(tests, a_budget_and_a_pool_are_hard_bounds);
    tcase_add_test(tests, a_resized_piece_keeps_its_bytes);
}

int main(void)
{
    return unit_main("grpc text", add);
}
