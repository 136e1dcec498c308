/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_peer_frame.c - any bytes from a peer: frames that lie within what came and say what their bytes say, or framing
 * is lost. Twice: as they are, and cut into frames with good checksums, since else nothing gets behind those. */
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "transport/receive.h"
#include "transport/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static struct receive receive; /* one for all runs: it maps memory */

static void check(const struct transport_frame *frame)
{
    const uint8_t *at = receive.bytes + receive.head;
    size_t here = receive.tail - receive.head;
    if (frame->type == FRAME_RAFT) {
        uint8_t again[WIRE_MESSAGE_BYTES_MAX];
        size_t fields = wire_message_write(&frame->message, again);
        lk_assert(fields == receive.header.fields_bytes);
        lk_assert(memcmp(at + PEER_FRAME_HEADER_BYTES, again, fields) == 0);
    }
    if (frame->partial) {
        lk_assert(frame->body == NULL);
        lk_assert(here < receive.header.bytes);
    } else {
        lk_assert(frame->body >= at + PEER_FRAME_HEADER_BYTES);
        lk_assert(frame->body + frame->body_bytes == at + receive.header.bytes);
        lk_assert(here >= receive.header.bytes);
    }
}

/* Feed in pieces, as a socket would; ret  false: framing was lost. */
static bool feed(const uint8_t *bytes, size_t count, size_t piece)
{
    while (count > 0) {
        size_t room;
        uint8_t *at = receive_room(&receive, &room);
        size_t part = count < piece ? count : piece;
        lk_assert(room >= part);
        memcpy(at, bytes, part);
        receive_filled(&receive, part);
        bytes += part;
        count -= part;
        struct transport_frame frame;
        int rc;
        while ((rc = receive_next(&receive, &frame)) == 1) {
            check(&frame);
            if (!frame.partial) receive_consume(&receive);
        }
        if (rc < 0) {
            lk_assert(rc == LOCKSTEP_ECORRUPT || rc == LOCKSTEP_EVERSION || rc == LOCKSTEP_EPROTO);
            return false;
        }
    }
    return true;
}

/* The next frame from the bytes themselves: {type, fields, body} chosen by the first ones, checksums made good. */
static size_t make_frame(const uint8_t *bytes, size_t count, uint8_t frame[1024])
{
    size_t fields = count > 1 ? bytes[1] % 96 : 0, body = count > 2 ? bytes[2] : 0;
    size_t have = count > 3 ? count - 3 : 0;
    memset(frame, 0, 1024);
    memcpy(frame + PEER_FRAME_HEADER_BYTES, bytes + (count - have), have < fields + body ? have : fields + body);
    uint16_t type = bytes[0] % (FRAME_TYPES + 1);
    if (type == FRAME_RAFT && fields >= 8) { /* a length that fits the type, in one of two cases */
        static const uint8_t lengths[] = {32, 56, 40, 56, 40, 72, 64, 80, 32};
        uint8_t *message = frame + PEER_FRAME_HEADER_BYTES;
        message[0] %= sizeof lengths + 1;
        if (bytes[0] & 0x40) memset(message + 2, 0, 6);
        if (bytes[0] & 0x80 && message[0] < sizeof lengths) fields = lengths[message[0]];
    }
    uint32_t crc = type == FRAME_RAFT ? 0 : crc32c(frame + PEER_FRAME_HEADER_BYTES + fields, body);
    peer_frame_seal(frame, type, 0, fields, body, crc);
    return PEER_FRAME_HEADER_BYTES + fields + body;
}

static void greet(const uint8_t *bytes, size_t count)
{
    uint8_t raw[WIRE_HELLO_REPLY_BYTES] = {0}, again[WIRE_HELLO_REPLY_BYTES];
    struct transport_hello hello;
    struct wire_hello_reply reply;
    memcpy(raw, bytes, count < sizeof raw ? count : sizeof raw);
    if (wire_hello_read(raw, WIRE_HELLO_BYTES, &hello) == 0) {
        wire_hello_write(&hello, again);
        lk_assert(memcmp(raw, again, WIRE_HELLO_BYTES) == 0);
    }
    if (wire_hello_reply_read(raw, WIRE_HELLO_REPLY_BYTES, &reply) == 0) {
        wire_hello_reply_write(&reply, again);
        lk_assert(memcmp(raw, again, WIRE_HELLO_REPLY_BYTES) == 0);
    }
    lk_assert(wire_hello_read(raw, count < WIRE_HELLO_BYTES ? count : 0, &hello) == LOCKSTEP_EPROTO);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (receive.bytes == NULL) lk_assert(receive_open(&receive) == 0);
    receive_reset(&receive);
    size_t piece = count > 0 ? 1 + bytes[0] : 1;
    (void)feed(bytes, count, piece);

    receive_reset(&receive);
    while (count > 0) {
        uint8_t frame[1024];
        if (!feed(frame, make_frame(bytes, count, frame), piece)) break;
        size_t used = count < 40 ? count : 40;
        bytes += used;
        count -= used;
        if (count > 0) greet(bytes, count);
    }
    return 0;
}
