/* SPDX-License-Identifier: Apache-2.0 */
/* wire.h - the fields of peer frames as bytes: the core's messages, and who speaks. Little-endian.
 *
 *   message   0 type u8   1 flags u8   2 zero (6 bytes)   8 from   16 to   24 term   32 the type's arm, u64 each:
 *     PREVOTE, VOTE              campaign_term last_index last_term                             flags: transfer
 *     PREVOTE_REPLY, VOTE_REPLY  campaign_term                                                  flags: granted
 *     APPEND                     previous_index previous_term last_index commit round
 *     HEARTBEAT                  match_index match_term commit round
 *     ACK                        durable validated rejected hint_index hint_term round          flags: rejected, full
 *     TIMEOUT_NOW                nothing
 *     INSTALL                    index term block_crc|checksum<<32 next_position time_ns bytes offset round
 *     INSTALL_ACK                index checksum offset
 *   hello     0 protocol u32  4 format u32  8 feature_level u32  12 level u32  16 cluster_id  24 member_id  32 boot
 *             40 configuration_index  48 promise_ns  56 cluster, name, machine, machine_version: 64 bytes each, ended and
 *             filled up with zeros  312 address: 272 bytes, so too
 *   reply     0 accepted u32  4 why not: an error's code, i32  8 hello of who answers  592 reason: 256 bytes
 *
 * A message has exactly the length of its type: more or less is a broken peer. Any thread; pure functions. */
#ifndef LOCKSTEP_TRANSPORT_WIRE_H
#define LOCKSTEP_TRANSPORT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/peer_frame.h"
#include "transport/transport.h"

enum {
    WIRE_MESSAGE_BYTES_MAX = 32 + 8 * 8,
    WIRE_HELLO_BYTES = 56 + 4 * TRANSPORT_NAME_BYTES_MAX + TRANSPORT_ADDRESS_BYTES_MAX,
    WIRE_HELLO_REPLY_BYTES = 8 + WIRE_HELLO_BYTES + TRANSPORT_REASON_BYTES_MAX,
};
_Static_assert((int)WIRE_HELLO_REPLY_BYTES <= (int)PEER_FRAME_FIELDS_BYTES_MAX, "a reply is all fields");

/* Returns the bytes written. The message's type is one of enum raft_message_type. */
size_t wire_message_write(const struct raft_message *message, uint8_t to[WIRE_MESSAGE_BYTES_MAX]);
/* Errors: LOCKSTEP_EPROTO: no such type, another length, or a bit that no version of this protocol sets. */
int wire_message_read(const uint8_t *at, size_t bytes, struct raft_message *ret);

void wire_hello_write(const struct transport_hello *hello, uint8_t to[WIRE_HELLO_BYTES]);
/* Errors: LOCKSTEP_EPROTO: another length, or a name that does not end or holds control characters. */
int wire_hello_read(const uint8_t *at, size_t bytes, struct transport_hello *ret);

struct wire_hello_reply {
    bool accepted;
    int code;                     /* 0 if accepted, else an error of errors.h */
    struct transport_hello hello; /* of who answers */
    char reason[TRANSPORT_REASON_BYTES_MAX];
};
void wire_hello_reply_write(const struct wire_hello_reply *reply, uint8_t to[WIRE_HELLO_REPLY_BYTES]);
int wire_hello_reply_read(const uint8_t *at, size_t bytes, struct wire_hello_reply *ret); /* as wire_hello_read */

#endif
