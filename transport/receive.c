/* SPDX-License-Identifier: Apache-2.0 */
/* receive.c - a peer's received bytes become frames. Thread: loop.
 * Header and fields are checked before the body is waited for; a body that is not blocks is checked before it is
 * handed out; blocks carry their own checksums, which whoever takes them over checks. */
#include "transport/receive.h"

#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "transport/wire.h"

static_assert(RECEIVE_BYTES >= PEER_FRAME_BYTES_MAX + RECEIVE_READ_BYTES_MIN,
              "a maximal frame never stops the reading");

int receive_open(struct receive *receive)
{
    memset(receive, 0, sizeof *receive);
    void *at = mmap(NULL, RECEIVE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return LOCKSTEP_ENOMEM;
    receive->bytes = at;
    return 0;
}

void receive_close(struct receive *receive)
{
    if (receive->bytes != NULL) munmap(receive->bytes, RECEIVE_BYTES);
    memset(receive, 0, sizeof *receive);
}

void receive_reset(struct receive *receive)
{
    receive->head = receive->tail = 0;
    receive->checked = receive->partial_given = false;
}

uint8_t *receive_room(struct receive *receive, size_t *ret_room)
{
    if (receive->head == receive->tail) {
        receive->head = receive->tail = 0;
    } else if (receive->head > 0 && RECEIVE_BYTES - receive->tail < RECEIVE_READ_BYTES_MIN) {
        memmove(receive->bytes, receive->bytes + receive->head, receive->tail - receive->head);
        receive->tail -= receive->head;
        receive->head = 0;
    }
    *ret_room = RECEIVE_BYTES - receive->tail;
    return receive->bytes + receive->tail;
}

void receive_filled(struct receive *receive, size_t bytes)
{
    lk_assert(bytes <= RECEIVE_BYTES - receive->tail);
    receive->tail += bytes;
}

bool receive_has_room(const struct receive *receive)
{
    return receive->tail - receive->head < RECEIVE_BYTES / 2;
}

/* Header and fields of the frame at the head: 0, EINVAL (not all here), or framing is lost. */
static int check_head(struct receive *receive)
{
    const uint8_t *at = receive->bytes + receive->head;
    int rc = peer_frame_header_read(at, receive->tail - receive->head, &receive->header);
    if (rc != 0) return rc;
    const struct peer_frame_header *h = &receive->header;
    if (h->group != 0) return LOCKSTEP_EPROTO;
    switch (h->type) {
    case FRAME_RAFT:
        rc = wire_message_read(at + PEER_FRAME_HEADER_BYTES, h->fields_bytes, &receive->message);
        if (rc != 0) return rc;
        if (receive->message.type != RAFT_APPEND && receive->message.type != RAFT_INSTALL &&
            peer_frame_body_bytes(h) != 0)
            return LOCKSTEP_EPROTO;
        return 0;
    case FRAME_BIRTH:
    case FRAME_FORWARD:
    case FRAME_FORWARD_REPLY:
    case FRAME_BLOCK_GET:
    case FRAME_BLOCK: return h->fields_bytes == 0 ? 0 : LOCKSTEP_EPROTO;
    default: return LOCKSTEP_EPROTO; /* hellos are over when frames begin */
    }
}

int receive_next(struct receive *receive, struct transport_frame *ret)
{
    if (!receive->checked) {
        if (receive->head == receive->tail) return 0;
        int rc = check_head(receive);
        if (rc == LOCKSTEP_EINVAL) return 0;
        if (rc != 0) return rc;
        receive->checked = true;
        receive->partial_given = false;
    }
    const struct peer_frame_header *h = &receive->header;
    bool whole = receive->tail - receive->head >= h->bytes;
    if (!whole && (h->type != FRAME_RAFT || receive->partial_given)) return 0;

    const uint8_t *at = receive->bytes + receive->head;
    if (whole && h->type != FRAME_RAFT) {
        int rc = peer_frame_body_check(at, h);
        if (rc != 0) return rc;
    }
    *ret = (struct transport_frame){.type = (uint8_t)h->type, .partial = !whole};
    if (h->type == FRAME_RAFT) ret->message = receive->message;
    if (whole) {
        ret->body = at + PEER_FRAME_HEADER_BYTES + h->fields_bytes;
        ret->body_bytes = peer_frame_body_bytes(h);
    } else {
        receive->partial_given = true;
    }
    return 1;
}

void receive_consume(struct receive *receive)
{
    lk_assert(receive->checked);
    lk_assert(receive->tail - receive->head >= receive->header.bytes);
    receive->head += receive->header.bytes;
    receive->checked = receive->partial_given = false;
}
