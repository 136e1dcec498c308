/* SPDX-License-Identifier: Apache-2.0 */
/* test_wire.c - protobuf's wire format and the hot messages; protobuf-c is the judge of both directions. */
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "proto/lockstep.pb-c.h"
#include "proto/messages.h"
#include "proto/unpack.h"
#include "tests/support/unit.h"

static int next(const char *bytes, size_t n, struct wire_field *ret)
{
    struct wire wire = wire_of((const uint8_t *)bytes, n);
    return wire_next(&wire, ret);
}

START_TEST(fields_of_every_type_are_read)
{
    struct wire_field field;
    ck_assert_int_eq(next("", 0, &field), 0);
    ck_assert_int_eq(next("\x08\x96\x01", 3, &field), 1);
    ck_assert_uint_eq(field.number, 1);
    ck_assert_uint_eq(field.value, 150);
    ck_assert_int_eq(next("\x11\1\2\3\4\5\6\7\x08", 9, &field), 1);
    ck_assert_uint_eq(field.number, 2);
    ck_assert_uint_eq(field.value, 0x0807060504030201);
    ck_assert_int_eq(next("\x1d\1\2\3\4", 5, &field), 1);
    ck_assert_uint_eq(field.value, 0x04030201);
    ck_assert_int_eq(next("\x22\3abc", 5, &field), 1);
    ck_assert_uint_eq(field.count, 3);
    ck_assert_mem_eq(field.bytes, "abc", 3);
    ck_assert_int_eq(next("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, &field), 1);
    ck_assert_uint_eq(field.value, UINT64_MAX);
}
END_TEST

START_TEST(malformed_fields_are_refused)
{
    static const struct {
        const char *bytes;
        size_t n;
    } malformed[] = {
        {"\x80", 1},                                              /* a tag without its end */
        {"\x08", 1},                                              /* no value */
        {"\x08\x80", 2},                                          /* half a value */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11},     /* 65 bits */
        {"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12}, /* 11 bytes */
        {"\x11\1\2\3\4\5\6\7", 8},
        {"\x1d\1\2\3", 4},
        {"\x22\4abc", 5},                                     /* a byte is missing */
        {"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, /* 2^64 - 1 bytes */
        {"\x00\x01", 2},                                      /* field 0 */
        {"\x0b\x0c", 2},                                      /* a group */
        {"\x0c", 1},
        {"\x0e", 1}, /* types 6 and 7 */
        {"\x0f", 1},
        {"\x80\x80\x80\x80\x10\x01", 6}, /* a field number over 2^29 - 1 */
    };
    struct wire_field field;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        ck_assert_msg(next(malformed[i].bytes, malformed[i].n, &field) == LOCKSTEP_EINVAL, "case %zu", i);
}
END_TEST

START_TEST(varints_have_the_length_that_is_computed)
{
    uint8_t bytes[WIRE_VARINT_BYTES_MAX];
    for (unsigned bit = 0; bit < 64; bit++) {
        for (uint64_t near = 0; near < 3; near++) {
            uint64_t value = (UINT64_C(1) << bit) - 1 + near;
            size_t n = (size_t)(wire_put_varint(bytes, value) - bytes);
            ck_assert_uint_eq(n, wire_varint_bytes(value));
        }
    }
}
END_TEST

static uint64_t numbers[] = {0, 1, 127, 128, UINT32_MAX, UINT64_MAX};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

static struct arena arena;

static void *decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n)
{
    arena_reset(&arena);
    ProtobufCMessage *message = unpack(&arena, type, bytes, n);
    ck_assert_ptr_nonnull(message);
    return message;
}

START_TEST(a_propose_request_is_what_protobuf_says)
{
    uint8_t bytes[512], again[512];
    struct propose_request read;
    ck_assert(arena_open(&arena, 1 << 16));
    for (size_t i = 0; i < NUMBERS; i++) {
        struct propose_request sent = {.command = (const uint8_t *)"put k v",
                                       .command_bytes = i,
                                       .session = numbers[i],
                                       .seq = numbers[(i + 1) % NUMBERS],
                                       .entity = numbers[(i + 2) % NUMBERS]};
        size_t n = (size_t)(propose_request_put(bytes, &sent) - bytes);
        ck_assert_uint_eq(n, propose_request_bytes(&sent));
        Lockstep__V1__ProposeRequest *judge = decode(&lockstep__v1__propose_request__descriptor, bytes, n);
        ck_assert_uint_eq(judge->session, sent.session);
        ck_assert_uint_eq(judge->seq, sent.seq);
        ck_assert_uint_eq(judge->entity, sent.entity);
        ck_assert_uint_eq(judge->command.len, i);
        ck_assert_uint_eq(lockstep__v1__propose_request__pack(judge, again), n);
        ck_assert_int_eq(propose_request_read(again, n, &read), 0);
        ck_assert_uint_eq(read.session, sent.session);
        ck_assert_uint_eq(read.seq, sent.seq);
        ck_assert_uint_eq(read.entity, sent.entity);
        ck_assert_uint_eq(read.command_bytes, i);
        if (i > 0) ck_assert_mem_eq(read.command, "put k v", i);
    }
    arena_close(&arena);
}
END_TEST

START_TEST(a_stream_message_carries_many)
{
    uint8_t bytes[512], *to = bytes;
    ck_assert(arena_open(&arena, 1 << 16));
    for (uint64_t i = 0; i < 5; i++) {
        struct propose_request sent = {.command = (const uint8_t *)"abcde", .command_bytes = i, .seq = i};
        size_t item = propose_stream_request_item_bytes(&sent);
        uint8_t *end = propose_stream_request_item_put(to, &sent);
        ck_assert_uint_eq((size_t)(end - to), item);
        to = end;
    }
    size_t n = (size_t)(to - bytes);
    Lockstep__V1__ProposeStreamRequest *judge = decode(&lockstep__v1__propose_stream_request__descriptor, bytes, n);
    ck_assert_uint_eq(judge->n_commands, 5);
    struct wire wire = wire_of(bytes, n);
    struct propose_request read;
    for (uint64_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(judge->commands[i]->seq, i);
        ck_assert_int_eq(propose_stream_request_next(&wire, &read), 1);
        ck_assert_uint_eq(read.seq, i);
        ck_assert_uint_eq(read.command_bytes, i);
    }
    ck_assert_int_eq(propose_stream_request_next(&wire, &read), 0);
    arena_close(&arena);
}
END_TEST

START_TEST(a_stream_response_carries_outcomes_in_order)
{
    uint8_t bytes[1024], *to = bytes;
    ck_assert(arena_open(&arena, 1 << 16));
    const struct propose_result sent[] = {
        {.outcome = PROPOSE_APPLIED,
         .response = {.reply = (const uint8_t *)"ok",
                      .reply_bytes = 2,
                      .code = -5,
                      .index = 7,
                      .position = 8,
                      .durability = 1}},
        {.outcome = PROPOSE_NOT_APPENDED, .error = "full", .error_bytes = 4, .status = 8},
        {.outcome = PROPOSE_APPLIED},
    };
    for (size_t i = 0; i < 3; i++) {
        uint8_t *end = propose_stream_response_item_put(to, &sent[i]);
        ck_assert_uint_eq((size_t)(end - to), propose_stream_response_item_bytes(&sent[i]));
        to = end;
    }
    size_t n = (size_t)(to - bytes);
    Lockstep__V1__ProposeStreamResponse *judge = decode(&lockstep__v1__propose_stream_response__descriptor, bytes, n);
    ck_assert_uint_eq(judge->n_results, 3);
    ck_assert_int_eq(judge->results[0]->response->code, -5);
    ck_assert_uint_eq(judge->results[0]->response->index, 7);
    ck_assert_ptr_nonnull(judge->results[2]->response);
    ck_assert_str_eq(judge->results[1]->error, "full");
    struct wire wire = wire_of(bytes, n);
    struct propose_result read;
    ck_assert_int_eq(propose_stream_response_next(&wire, &read), 1);
    ck_assert_int_eq(read.response.code, -5);
    ck_assert_uint_eq(read.response.position, 8);
    ck_assert_mem_eq(read.response.reply, "ok", 2);
    ck_assert_int_eq(propose_stream_response_next(&wire, &read), 1);
    ck_assert_uint_eq(read.outcome, PROPOSE_NOT_APPENDED);
    ck_assert_uint_eq(read.status, 8);
    ck_assert_mem_eq(read.error, "full", 4);
    ck_assert_int_eq(propose_stream_response_next(&wire, &read), 1);
    ck_assert_int_eq(propose_stream_response_next(&wire, &read), 0);
    arena_close(&arena);
}
END_TEST

START_TEST(queries_are_what_protobuf_says)
{
    uint8_t bytes[256];
    ck_assert(arena_open(&arena, 1 << 16));
    struct query_request sent = {
        .query = (const uint8_t *)"get k", .query_bytes = 5, .consistency = 1, .min_index = 9, .max_staleness_ms = 7};
    size_t n = (size_t)(query_request_put(bytes, &sent) - bytes);
    ck_assert_uint_eq(n, query_request_bytes(&sent));
    Lockstep__V1__QueryRequest *judge = decode(&lockstep__v1__query_request__descriptor, bytes, n);
    ck_assert_int_eq((int)judge->consistency, LOCKSTEP__V1__CONSISTENCY__CONSISTENCY_LOCAL);
    ck_assert_uint_eq(judge->min_index, 9);
    ck_assert_uint_eq(judge->max_staleness_ms, 7);
    struct query_request read;
    ck_assert_int_eq(query_request_read(bytes, n, &read), 0);
    ck_assert_uint_eq(read.min_index, 9);
    ck_assert_uint_eq(read.max_staleness_ms, 7);
    ck_assert_mem_eq(read.query, "get k", 5);
    struct query_response answer = {.reply = (const uint8_t *)"v", .reply_bytes = 1, .code = 3, .index = 4}, got;
    n = (size_t)(query_response_put(bytes, &answer) - bytes);
    ck_assert_uint_eq(n, query_response_bytes(&answer));
    ck_assert_int_eq(query_response_read(bytes, n, &got), 0);
    ck_assert_int_eq(got.code, 3);
    ck_assert_uint_eq(got.index, 4);
    arena_close(&arena);
}
END_TEST

START_TEST(unknown_fields_are_skipped)
{
    struct propose_request read;
    /* field 20 as varint, field 1 as a varint instead of bytes, field 31 as bytes, then seq */
    const char bytes[] = "\xa0\x01\x05\x08\x07\xfa\x01\x02xy\x19\x09\0\0\0\0\0\0";
    ck_assert_int_eq(propose_request_read((const uint8_t *)bytes, sizeof bytes, &read), 0);
    ck_assert_uint_eq(read.seq, 9);
    ck_assert_uint_eq(read.command_bytes, 0);
}
END_TEST

/* protobuf-c allocates some 60 bytes for each byte of this. */
START_TEST(a_decode_stops_at_its_byte_budget)
{
    uint8_t *bytes = malloc(20000);
    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < 20000; i += 2) memcpy(bytes + i, "\x0a", 2); /* 10,000 empty commands */
    ck_assert(arena_open(&arena, 64 << 10));
    ck_assert_ptr_null(unpack(&arena, &lockstep__v1__propose_stream_request__descriptor, bytes, 20000));
    ck_assert_ptr_null(unpack(&arena, &lockstep__v1__propose_stream_request__descriptor, bytes, 19999));
    arena_close(&arena);
    free(bytes);
}
END_TEST

START_TEST(random_bytes_are_read_or_refused)
{
    struct random random;
    random_seed(&random, unit_seed(0x10c4));
    for (uint64_t round = 0; round < unit_rounds(20000); round++) {
        uint8_t bytes[64];
        size_t n = random_below(&random, sizeof bytes);
        random_fill(&random, bytes, n);
        uint8_t *exact = malloc(n + 1); /* so that a read behind it is seen */
        ck_assert_ptr_nonnull(exact);
        memcpy(exact + 1, bytes, n);
        struct propose_request request;
        struct propose_result result;
        struct wire wire = wire_of(exact + 1, n);
        propose_request_read(exact + 1, n, &request);
        while (propose_stream_response_next(&wire, &result) == 1) {
        }
        free(exact);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, fields_of_every_type_are_read);
    tcase_add_test(tests, malformed_fields_are_refused);
    tcase_add_test(tests, varints_have_the_length_that_is_computed);
    tcase_add_test(tests, a_propose_request_is_what_protobuf_says);
    tcase_add_test(tests, a_stream_message_carries_many);
    tcase_add_test(tests, a_stream_response_carries_outcomes_in_order);
    tcase_add_test(tests, queries_are_what_protobuf_says);
    tcase_add_test(tests, unknown_fields_are_skipped);
    tcase_add_test(tests, a_decode_stops_at_its_byte_budget);
    tcase_add_test(tests, random_bytes_are_read_or_refused);
}

int main(void)
{
    return unit_main("wire", add);
}
