/* SPDX-License-Identifier: Apache-2.0 */
/* test_wire.c - the fields of peer frames: what is written is read, and nothing else is. */
#include <string.h>

#include "base/random.h"
#include "lockstep/errors.h"
#include "tests/support/unit.h"
#include "transport/wire.h"

static bool messages_equal(const struct raft_message *a, const struct raft_message *b)
{
    if (a->type != b->type || a->from != b->from || a->to != b->to || a->term != b->term) return false;
    switch (a->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        return a->as.vote.campaign_term == b->as.vote.campaign_term && a->as.vote.last_index == b->as.vote.last_index &&
               a->as.vote.last_term == b->as.vote.last_term && a->as.vote.transfer == b->as.vote.transfer;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
        return a->as.vote_reply.campaign_term == b->as.vote_reply.campaign_term &&
               a->as.vote_reply.granted == b->as.vote_reply.granted;
    case RAFT_APPEND:
        return a->as.append.previous_index == b->as.append.previous_index &&
               a->as.append.previous_term == b->as.append.previous_term &&
               a->as.append.last_index == b->as.append.last_index && a->as.append.commit == b->as.append.commit &&
               a->as.append.round == b->as.append.round;
    case RAFT_HEARTBEAT:
        return a->as.heartbeat.match_index == b->as.heartbeat.match_index &&
               a->as.heartbeat.match_term == b->as.heartbeat.match_term &&
               a->as.heartbeat.commit == b->as.heartbeat.commit && a->as.heartbeat.round == b->as.heartbeat.round;
    case RAFT_ACK:
        return a->as.ack.durable_index == b->as.ack.durable_index &&
               a->as.ack.validated_index == b->as.ack.validated_index &&
               a->as.ack.rejected_index == b->as.ack.rejected_index && a->as.ack.hint_index == b->as.ack.hint_index &&
               a->as.ack.hint_term == b->as.ack.hint_term && a->as.ack.round == b->as.ack.round &&
               a->as.ack.rejected == b->as.ack.rejected && a->as.ack.full == b->as.ack.full;
    case RAFT_INSTALL: {
        const struct raft_snapshot *x = &a->as.install.snapshot, *y = &b->as.install.snapshot;
        return x->index == y->index && x->term == y->term && x->block_crc == y->block_crc &&
               x->checksum == y->checksum && x->next_position == y->next_position && x->time_ns == y->time_ns &&
               x->bytes == y->bytes && a->as.install.offset == b->as.install.offset &&
               a->as.install.round == b->as.install.round;
    }
    case RAFT_INSTALL_ACK:
        return a->as.install_ack.index == b->as.install_ack.index &&
               a->as.install_ack.checksum == b->as.install_ack.checksum &&
               a->as.install_ack.offset == b->as.install_ack.offset;
    default: return true;
    }
}

static struct raft_message random_message(struct random *r, uint8_t type)
{
    struct raft_message m = {.type = type, .from = random_u64(r), .to = random_u64(r), .term = random_u64(r)};
    switch (type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        m.as.vote = (struct raft_vote_request){random_u64(r), random_u64(r), random_u64(r), random_chance(r, 1, 2)};
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY: m.as.vote_reply = (struct raft_vote_reply){random_u64(r), random_chance(r, 1, 2)}; break;
    case RAFT_APPEND:
        m.as.append = (struct raft_append){random_u64(r), random_u64(r), random_u64(r), random_u64(r), random_u64(r)};
        break;
    case RAFT_HEARTBEAT:
        m.as.heartbeat = (struct raft_heartbeat){random_u64(r), random_u64(r), random_u64(r), random_u64(r)};
        break;
    case RAFT_ACK:
        m.as.ack = (struct raft_ack){random_u64(r), random_u64(r), random_u64(r),          random_u64(r),
                                     random_u64(r), random_u64(r), random_chance(r, 1, 2), random_chance(r, 1, 2)};
        break;
    case RAFT_INSTALL:
        m.as.install = (struct raft_install){.snapshot = {.index = random_u64(r),
                                                          .term = random_u64(r),
                                                          .block_crc = (uint32_t)random_u64(r),
                                                          .checksum = (uint32_t)random_u64(r),
                                                          .next_position = random_u64(r),
                                                          .time_ns = random_u64(r),
                                                          .bytes = random_u64(r)},
                                             .offset = random_u64(r),
                                             .round = random_u64(r)};
        break;
    case RAFT_INSTALL_ACK:
        m.as.install_ack = (struct raft_install_ack){random_u64(r), (uint32_t)random_u64(r), random_u64(r)};
        break;
    default: break;
    }
    return m;
}

START_TEST(every_message_is_read_as_it_was_written)
{
    struct random r;
    random_seed(&r, unit_seed(0x57495245));
    for (unsigned round = 0; round < 100; round++)
        for (uint8_t type = RAFT_PREVOTE; type < RAFT_MESSAGE_TYPES; type++) {
            uint8_t bytes[WIRE_MESSAGE_BYTES_MAX];
            struct raft_message read, written = random_message(&r, type);
            size_t count = wire_message_write(&written, bytes);
            ck_assert_int_eq(wire_message_read(bytes, count, &read), 0);
            ck_assert(messages_equal(&written, &read));
        }
}
END_TEST

START_TEST(message_of_another_length_type_or_unknown_bit_is_refused)
{
    struct random r;
    random_seed(&r, 1);
    for (uint8_t type = RAFT_PREVOTE; type < RAFT_MESSAGE_TYPES; type++) {
        uint8_t bytes[WIRE_MESSAGE_BYTES_MAX + 8] = {0};
        struct raft_message read, written = random_message(&r, type);
        size_t count = wire_message_write(&written, bytes);
        for (size_t other = 0; other <= sizeof bytes; other++)
            if (other != count) ck_assert_int_eq(wire_message_read(bytes, other, &read), LOCKSTEP_EPROTO);
        bytes[1] |= 0x80;
        ck_assert_int_eq(wire_message_read(bytes, count, &read), LOCKSTEP_EPROTO);
        bytes[1] &= 0x7f;
        bytes[7] = 1;
        ck_assert_int_eq(wire_message_read(bytes, count, &read), LOCKSTEP_EPROTO);
        bytes[7] = 0;
        ck_assert_int_eq(wire_message_read(bytes, count, &read), 0);
        bytes[0] = 0;
        ck_assert_int_eq(wire_message_read(bytes, count, &read), LOCKSTEP_EPROTO);
        bytes[0] = RAFT_MESSAGE_TYPES;
        ck_assert_int_eq(wire_message_read(bytes, count, &read), LOCKSTEP_EPROTO);
    }
}
END_TEST

START_TEST(hello_and_reply_are_read_as_they_were_written)
{
    struct wire_hello_reply read, written = {
                                      .accepted = true,
                                      .hello = {.protocol = 1,
                                                .format = 2,
                                                .feature_level = 3,
                                                .level = 1,
                                                .promise_ns = 300000000,
                                                .configuration_index = 7,
                                                .cluster_id = 4,
                                                .member_id = 5,
                                                .boot = 6,
                                                .cluster = "demo",
                                                .name = "n1",
                                                .machine = "kv",
                                                .machine_version = "1.0",
                                                .address = "[::1]:7501"},
                                      .reason = "because",
                                  };
    uint8_t bytes[WIRE_HELLO_REPLY_BYTES];
    wire_hello_reply_write(&written, bytes);
    ck_assert_int_eq(wire_hello_reply_read(bytes, sizeof bytes, &read), 0);
    ck_assert(read.accepted);
    ck_assert_str_eq(read.reason, "because");
    ck_assert_mem_eq(&read.hello, &written.hello, sizeof read.hello);
    written.accepted = false;
    written.code = LOCKSTEP_EGONE;
    wire_hello_reply_write(&written, bytes);
    ck_assert_int_eq(wire_hello_reply_read(bytes, sizeof bytes, &read), 0);
    ck_assert_int_eq(read.code, LOCKSTEP_EGONE);
}
END_TEST

START_TEST(reply_that_contradicts_itself_is_refused) /* accepted with an error, refused without one, an error above 0 */
{
    static const struct wire_hello_reply cases[] = {
        {.accepted = true, .code = LOCKSTEP_EGONE}, {.accepted = false, .code = 0}, {.accepted = false, .code = 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[WIRE_HELLO_REPLY_BYTES];
        struct wire_hello_reply read;
        wire_hello_reply_write(&cases[i], bytes);
        ck_assert_int_eq(wire_hello_reply_read(bytes, sizeof bytes, &read), LOCKSTEP_EPROTO);
    }
}
END_TEST

START_TEST(names_that_do_not_end_or_hold_control_characters_are_refused) /* they go into logs and on terminals */
{
    struct transport_hello read, hello = {.name = "n1"};
    uint8_t bytes[WIRE_HELLO_BYTES];
    wire_hello_write(&hello, bytes);
    ck_assert_int_eq(wire_hello_read(bytes, sizeof bytes, &read), 0);
    uint8_t *name = bytes + 48 + TRANSPORT_NAME_BYTES_MAX;
    name[1] = '\n';
    ck_assert_int_eq(wire_hello_read(bytes, sizeof bytes, &read), LOCKSTEP_EPROTO);
    name[1] = 0x1b;
    ck_assert_int_eq(wire_hello_read(bytes, sizeof bytes, &read), LOCKSTEP_EPROTO);
    memset(name, 'n', TRANSPORT_NAME_BYTES_MAX);
    ck_assert_int_eq(wire_hello_read(bytes, sizeof bytes, &read), LOCKSTEP_EPROTO);
    memcpy(name, "n\0x", 4);
    ck_assert_int_eq(wire_hello_read(bytes, sizeof bytes, &read), LOCKSTEP_EPROTO);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, every_message_is_read_as_it_was_written);
    tcase_add_test(tests, message_of_another_length_type_or_unknown_bit_is_refused);
    tcase_add_test(tests, hello_and_reply_are_read_as_they_were_written);
    tcase_add_test(tests, reply_that_contradicts_itself_is_refused);
    tcase_add_test(tests, names_that_do_not_end_or_hold_control_characters_are_refused);
}

int main(void)
{
    return unit_main("transport wire", add);
}
