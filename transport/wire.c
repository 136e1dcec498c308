/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - the fields of peer frames, to bytes and back. Any thread; owns nothing.
 * What is read here was covered by the frame's checksum: damage is out, a broken or hostile peer is not. */
#include "transport/wire.h"

#include <string.h>

#include "base/assert.h"
#include "base/little.h"
#include "lockstep/errors.h"

enum { FLAG_TRANSFER = 1, FLAG_GRANTED = 1, FLAG_REJECTED = 1, FLAG_FULL = 2 };
enum { MESSAGE_HEAD_BYTES = 32, HELLO_TEXTS_AT = 56, HELLO_ADDRESS_AT = HELLO_TEXTS_AT + 4 * TRANSPORT_NAME_BYTES_MAX };

/* The numbers of a type's arm, and the flags that it may carry. */
static bool arm_shape(uint8_t type, size_t *ret_numbers, uint8_t *ret_flags)
{
    *ret_flags = 0;
    switch (type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        *ret_numbers = 3;
        *ret_flags = FLAG_TRANSFER;
        return true;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
        *ret_numbers = 1;
        *ret_flags = FLAG_GRANTED;
        return true;
    case RAFT_APPEND: *ret_numbers = 5; return true;
    case RAFT_HEARTBEAT: *ret_numbers = 4; return true;
    case RAFT_ACK:
        *ret_numbers = 6;
        *ret_flags = FLAG_REJECTED | FLAG_FULL;
        return true;
    case RAFT_TIMEOUT_NOW: *ret_numbers = 0; return true;
    case RAFT_INSTALL: *ret_numbers = 8; return true;
    case RAFT_INSTALL_ACK: *ret_numbers = 3; return true;
    default: return false;
    }
}

size_t wire_message_write(const struct raft_message *message, uint8_t to[WIRE_MESSAGE_BYTES_MAX])
{
    uint64_t n[8] = {0};
    unsigned flags = 0;
    switch (message->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        n[0] = message->as.vote.campaign_term;
        n[1] = message->as.vote.last_index;
        n[2] = message->as.vote.last_term;
        flags = message->as.vote.transfer ? FLAG_TRANSFER : 0;
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
        n[0] = message->as.vote_reply.campaign_term;
        flags = message->as.vote_reply.granted ? FLAG_GRANTED : 0;
        break;
    case RAFT_APPEND:
        n[0] = message->as.append.previous_index;
        n[1] = message->as.append.previous_term;
        n[2] = message->as.append.last_index;
        n[3] = message->as.append.commit;
        n[4] = message->as.append.round;
        break;
    case RAFT_HEARTBEAT:
        n[0] = message->as.heartbeat.match_index;
        n[1] = message->as.heartbeat.match_term;
        n[2] = message->as.heartbeat.commit;
        n[3] = message->as.heartbeat.round;
        break;
    case RAFT_ACK:
        n[0] = message->as.ack.durable_index;
        n[1] = message->as.ack.validated_index;
        n[2] = message->as.ack.rejected_index;
        n[3] = message->as.ack.hint_index;
        n[4] = message->as.ack.hint_term;
        n[5] = message->as.ack.round;
        flags = (message->as.ack.rejected ? FLAG_REJECTED : 0) | (message->as.ack.full ? FLAG_FULL : 0);
        break;
    case RAFT_INSTALL:
        n[0] = message->as.install.snapshot.index;
        n[1] = message->as.install.snapshot.term;
        n[2] = message->as.install.snapshot.block_crc | (uint64_t)message->as.install.snapshot.checksum << 32;
        n[3] = message->as.install.snapshot.next_position;
        n[4] = message->as.install.snapshot.time_ns;
        n[5] = message->as.install.snapshot.bytes;
        n[6] = message->as.install.offset;
        n[7] = message->as.install.round;
        break;
    case RAFT_INSTALL_ACK:
        n[0] = message->as.install_ack.index;
        n[1] = message->as.install_ack.checksum;
        n[2] = message->as.install_ack.offset;
        break;
    case RAFT_TIMEOUT_NOW: break;
    default: lk_unreachable();
    }
    size_t numbers;
    uint8_t flags_allowed;
    bool known = arm_shape(message->type, &numbers, &flags_allowed);
    lk_assert(known);
    lk_assert((flags & ~(unsigned)flags_allowed) == 0);

    memset(to, 0, 8);
    to[0] = message->type;
    to[1] = (uint8_t)flags;
    little_put64(to + 8, message->from);
    little_put64(to + 16, message->to);
    little_put64(to + 24, message->term);
    for (size_t i = 0; i < numbers; i++) little_put64(to + MESSAGE_HEAD_BYTES + 8 * i, n[i]);
    return MESSAGE_HEAD_BYTES + 8 * numbers;
}

int wire_message_read(const uint8_t *at, size_t bytes, struct raft_message *ret)
{
    static const uint8_t zeros[6];
    size_t numbers;
    uint8_t flags_allowed;
    if (bytes < MESSAGE_HEAD_BYTES) return LOCKSTEP_EPROTO;
    if (!arm_shape(at[0], &numbers, &flags_allowed)) return LOCKSTEP_EPROTO;
    if (bytes != MESSAGE_HEAD_BYTES + 8 * numbers) return LOCKSTEP_EPROTO;
    unsigned flags = at[1];
    if ((flags & ~(unsigned)flags_allowed) != 0) return LOCKSTEP_EPROTO;
    if (memcmp(at + 2, zeros, sizeof zeros) != 0) return LOCKSTEP_EPROTO;

    uint64_t n[8] = {0};
    for (size_t i = 0; i < numbers; i++) n[i] = little_get64(at + MESSAGE_HEAD_BYTES + 8 * i);
    struct raft_message m = {
        .type = at[0], .from = little_get64(at + 8), .to = little_get64(at + 16), .term = little_get64(at + 24)};
    switch (m.type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
        m.as.vote = (struct raft_vote_request){
            .campaign_term = n[0], .last_index = n[1], .last_term = n[2], .transfer = (flags & FLAG_TRANSFER) != 0};
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
        m.as.vote_reply = (struct raft_vote_reply){.campaign_term = n[0], .granted = (flags & FLAG_GRANTED) != 0};
        break;
    case RAFT_APPEND:
        m.as.append = (struct raft_append){
            .previous_index = n[0], .previous_term = n[1], .last_index = n[2], .commit = n[3], .round = n[4]};
        break;
    case RAFT_HEARTBEAT:
        m.as.heartbeat =
            (struct raft_heartbeat){.match_index = n[0], .match_term = n[1], .commit = n[2], .round = n[3]};
        break;
    case RAFT_ACK:
        m.as.ack = (struct raft_ack){.durable_index = n[0],
                                     .validated_index = n[1],
                                     .rejected_index = n[2],
                                     .hint_index = n[3],
                                     .hint_term = n[4],
                                     .round = n[5],
                                     .rejected = (flags & FLAG_REJECTED) != 0,
                                     .full = (flags & FLAG_FULL) != 0};
        break;
    case RAFT_INSTALL:
        m.as.install = (struct raft_install){.snapshot = {.index = n[0],
                                                          .term = n[1],
                                                          .block_crc = (uint32_t)n[2],
                                                          .checksum = (uint32_t)(n[2] >> 32),
                                                          .next_position = n[3],
                                                          .time_ns = n[4],
                                                          .bytes = n[5]},
                                             .offset = n[6],
                                             .round = n[7]};
        break;
    case RAFT_INSTALL_ACK:
        if (n[1] > UINT32_MAX) return LOCKSTEP_EPROTO;
        m.as.install_ack = (struct raft_install_ack){.index = n[0], .checksum = (uint32_t)n[1], .offset = n[2]};
        break;
    default: break; /* TIMEOUT_NOW has no arm */
    }
    *ret = m;
    return 0;
}

/* Text for people from another process: ends within its room, has no control characters (it goes into logs), and only
 * zeros behind it. */
static bool text_ok(const char *text, size_t room)
{
    size_t length = strnlen(text, room);
    if (length == room) return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f) return false;
    }
    for (size_t i = length; i < room; i++)
        if (text[i] != 0) return false;
    return true;
}

/* strncpy's one good use: fill up with zeros, so that no stale memory leaves this process. */
static void put_text(uint8_t *at, const char *text, size_t room)
{
    size_t length = strnlen(text, room - 1);
    memcpy(at, text, length);
    memset(at + length, 0, room - length);
}

void wire_hello_write(const struct transport_hello *hello, uint8_t to[WIRE_HELLO_BYTES])
{
    little_put32(to, hello->protocol);
    little_put32(to + 4, hello->format);
    little_put32(to + 8, hello->feature_level);
    little_put32(to + 12, hello->level);
    little_put64(to + 16, hello->cluster_id);
    little_put64(to + 24, hello->member_id);
    little_put64(to + 32, hello->boot);
    little_put64(to + 40, hello->configuration_index);
    little_put64(to + 48, hello->promise_ns);
    const char *texts[] = {hello->cluster, hello->name, hello->machine, hello->machine_version};
    for (size_t i = 0; i < 4; i++)
        put_text(to + HELLO_TEXTS_AT + i * TRANSPORT_NAME_BYTES_MAX, texts[i], TRANSPORT_NAME_BYTES_MAX);
    put_text(to + HELLO_ADDRESS_AT, hello->address, TRANSPORT_ADDRESS_BYTES_MAX);
}

int wire_hello_read(const uint8_t *at, size_t bytes, struct transport_hello *ret)
{
    if (bytes != WIRE_HELLO_BYTES) return LOCKSTEP_EPROTO;
    struct transport_hello h = {
        .protocol = little_get32(at),
        .format = little_get32(at + 4),
        .feature_level = little_get32(at + 8),
        .level = little_get32(at + 12),
        .cluster_id = little_get64(at + 16),
        .member_id = little_get64(at + 24),
        .boot = little_get64(at + 32),
        .configuration_index = little_get64(at + 40),
        .promise_ns = little_get64(at + 48),
    };
    char *texts[] = {h.cluster, h.name, h.machine, h.machine_version};
    for (size_t i = 0; i < 4; i++) {
        memcpy(texts[i], at + HELLO_TEXTS_AT + i * TRANSPORT_NAME_BYTES_MAX, TRANSPORT_NAME_BYTES_MAX);
        if (!text_ok(texts[i], TRANSPORT_NAME_BYTES_MAX)) return LOCKSTEP_EPROTO;
    }
    memcpy(h.address, at + HELLO_ADDRESS_AT, sizeof h.address);
    if (!text_ok(h.address, sizeof h.address)) return LOCKSTEP_EPROTO;
    *ret = h;
    return 0;
}

void wire_hello_reply_write(const struct wire_hello_reply *reply, uint8_t to[WIRE_HELLO_REPLY_BYTES])
{
    little_put32(to, reply->accepted ? 1 : 0);
    little_put32(to + 4, (uint32_t)reply->code);
    wire_hello_write(&reply->hello, to + 8);
    put_text(to + 8 + WIRE_HELLO_BYTES, reply->reason, TRANSPORT_REASON_BYTES_MAX);
}

int wire_hello_reply_read(const uint8_t *at, size_t bytes, struct wire_hello_reply *ret)
{
    if (bytes != WIRE_HELLO_REPLY_BYTES) return LOCKSTEP_EPROTO;
    struct wire_hello_reply r = {.accepted = little_get32(at) == 1, .code = (int32_t)little_get32(at + 4)};
    if ((!r.accepted && little_get32(at) != 0) || r.code > 0 || r.accepted != (r.code == 0)) return LOCKSTEP_EPROTO;
    int rc = wire_hello_read(at + 8, WIRE_HELLO_BYTES, &r.hello);
    if (rc != 0) return rc;
    memcpy(r.reason, at + 8 + WIRE_HELLO_BYTES, sizeof r.reason);
    if (!text_ok(r.reason, sizeof r.reason)) return LOCKSTEP_EPROTO;
    *ret = r;
    return 0;
}
