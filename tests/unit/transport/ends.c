/* SPDX-License-Identifier: Apache-2.0 */
/* ends.c - see ends.h. */
#include "tests/unit/transport/ends.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "tests/support/unit.h"

static const char *const names[ENDS_MAX] = {"n1", "n2", "n3"};

raft_member end_member(unsigned slot)
{
    return 0x1000 + slot;
}

static void nothing(uv_timer_t *timer)
{
    (void)timer;
}

void ends_open(struct ends *ends, unsigned count)
{
    memset(ends, 0, sizeof *ends);
    ck_assert_int_eq(uv_loop_init(&ends->loop), 0);
    ck_assert_int_eq(uv_timer_init(&ends->loop, &ends->ticker), 0);
    ck_assert_int_eq(uv_timer_start(&ends->ticker, nothing, 2, 2), 0);
    ends->count = count;
    ends->queued_bytes_max = 16 << 20;
    for (unsigned i = 0; i < count; i++) {
        struct end *end = &ends->end[i];
        end->ends = ends;
        end->slot = i;
        end->port = unit_free_port();
        end->next_position = 1;
        const struct ring_options options = {.bytes = 1 << 20, .block_bytes_max = ENDS_BLOCK_BYTES_MAX};
        ck_assert_int_eq(ring_open(&options, &end->ring), 0);
        ring_start(end->ring, &(struct block_base){.next_position = 1});
    }
}

void end_forget(struct end *end)
{
    for (unsigned i = 0; i < end->frame_count; i++) free(end->frames[i].body);
    end->frame_count = 0;
}

void ends_close(struct ends *ends)
{
    for (unsigned i = 0; i < ends->count; i++) {
        end_close(&ends->end[i]);
        end_forget(&ends->end[i]);
        ring_close(ends->end[i].ring);
    }
    uv_close((uv_handle_t *)&ends->ticker, NULL);
    ck_assert_int_eq(uv_run(&ends->loop, UV_RUN_DEFAULT), 0);
    ck_assert_int_eq(uv_loop_close(&ends->loop), 0);
}

static void owner_wake(void *context)
{
    struct end *end = context;
    end->wakes++;
}

static struct ring *owner_ring(void *context)
{
    struct end *end = context;
    return end->ring;
}

static int owner_hello_check(void *context, unsigned *slot, const struct transport_hello *hello,
                             char reason[TRANSPORT_REASON_BYTES_MAX])
{
    struct end *end = context;
    for (unsigned i = 0; i < end->ends->count && *slot == RAFT_MEMBERS_MAX; i++)
        if (strcmp(hello->name, names[i]) == 0) *slot = i;
    if (*slot < end->ends->count && *slot != end->slot && end->refuse == NULL && hello->cluster_id == 7) return 0;
    snprintf(reason, TRANSPORT_REASON_BYTES_MAX, "%s", end->refuse != NULL ? end->refuse : "not one of us");
    return LOCKSTEP_EFOREIGN;
}

struct tcp_options end_options(struct end *end)
{
    static char addresses[ENDS_MAX][64];
    struct tcp_options options = {
        .loop = &end->ends->loop,
        .owner = {.context = end, .wake = owner_wake, .ring = owner_ring, .hello_check = owner_hello_check},
        .hello = {.protocol = 1, .cluster_id = 7, .member_id = end_member(end->slot), .boot = 1},
        .self = end->slot,
        .peer_count = end->ends->count,
        .queued_bytes_max = end->ends->queued_bytes_max,
    };
    snprintf(options.hello.name, sizeof options.hello.name, "%s", names[end->slot]);
    for (unsigned i = 0; i < end->ends->count; i++) {
        snprintf(addresses[i], sizeof addresses[i], "127.0.0.1:%d", end->ends->end[i].port);
        options.peers[i].name = names[i];
        options.peers[i].address = addresses[i];
    }
    options.listen = addresses[end->slot];
    return options;
}

void end_open(struct end *end)
{
    char why[256] = "";
    const struct tcp_options options = end_options(end);
    int rc = tcp_open(&options, &end->transport, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
}

void end_close(struct end *end)
{
    if (end->transport != NULL) end->transport->ops->close(end->transport);
    end->transport = NULL;
}

static void take_frames(struct end *end)
{
    struct transport_frame frame;
    while (end->transport->ops->next(end->transport, &frame)) {
        ck_assert_uint_lt(end->frame_count, ENDS_FRAMES_MAX);
        struct ends_frame *kept = &end->frames[end->frame_count++];
        *kept = (struct ends_frame){.slot = frame.slot,
                                    .member_id = frame.member_id,
                                    .type = frame.type,
                                    .partial = frame.partial,
                                    .message = frame.message,
                                    .body_bytes = frame.body_bytes};
        if (frame.body_bytes > 0) {
            kept->body = malloc(frame.body_bytes);
            memcpy(kept->body, frame.body, frame.body_bytes);
        }
        end->transport->ops->consume(end->transport);
    }
}

bool ends_run(struct ends *ends, bool (*condition)(struct ends *ends, const void *context), const void *context)
{
    uint64_t end_ns = uv_hrtime() + UINT64_C(60000000000); /* for what never comes */
    while (uv_hrtime() < end_ns) {
        for (unsigned i = 0; i < ends->count; i++) {
            struct end *end = &ends->end[i];
            if (end->transport == NULL) continue;
            if (!end->deaf) take_frames(end);
            end->transport->ops->flush(end->transport);
        }
        if (condition(ends, context)) return true;
        uv_run(&ends->loop, UV_RUN_ONCE);
    }
    return false;
}

struct span {
    uint64_t end_ns;
    unsigned *turns_left;
};

static bool span_is_over(struct ends *ends, const void *context)
{
    (void)ends;
    const struct span *span = context;
    if (*span->turns_left > 0) (*span->turns_left)--;
    return *span->turns_left == 0 && uv_hrtime() >= span->end_ns;
}

void ends_run_ms(struct ends *ends, unsigned ms)
{
    unsigned turns_left = ms / 4 + 2;
    const struct span span = {.end_ns = uv_hrtime() + ms * UINT64_C(1000000), .turns_left = &turns_left};
    ends_run(ends, span_is_over, &span);
}

struct transport_peer_status end_status(struct end *end, unsigned slot)
{
    struct transport_peer_status status;
    end->transport->ops->peer_status(end->transport, slot, &status);
    return status;
}

bool ends_connected(struct ends *ends, const void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < ends->count; i++)
        for (unsigned j = 0; j < ends->count; j++) {
            if (i == j || ends->end[i].transport == NULL || ends->end[j].transport == NULL) continue;
            struct transport_peer_status status = end_status(&ends->end[i], j);
            if (!status.connected_in || !status.connected_out) return false;
        }
    return true;
}

void ends_connect(struct ends *ends)
{
    for (unsigned i = 0; i < ends->count; i++) end_open(&ends->end[i]);
    ck_assert(ends_run(ends, ends_connected, NULL));
}

unsigned end_whole_frames(const struct end *end)
{
    unsigned count = 0;
    for (unsigned i = 0; i < end->frame_count; i++) count += !end->frames[i].partial;
    return count;
}

int end_publish(struct end *end, uint32_t payload_bytes)
{
    uint8_t *at;
    uint32_t bytes = (uint32_t)(BLOCK_HEADER_BYTES + command_bytes(payload_bytes));
    int rc = ring_claim(end->ring, bytes, &at);
    if (rc != 0) return rc;
    uint8_t *payload = malloc(payload_bytes);
    for (uint32_t i = 0; i < payload_bytes; i++) payload[i] = (uint8_t)(end->last_index * 31 + i);
    const struct command_header command = {.bytes = payload_bytes};
    command_write(at + BLOCK_HEADER_BYTES, &command, payload);
    free(payload);
    struct block_header header = {
        .bytes = bytes,
        .type = BLOCK_COMMANDS,
        .count = 1,
        .index = end->last_index + 1,
        .term = 1,
        .time_ns = end->last_index + 1,
        .first_position = end->next_position,
        .previous_crc = end->last_crc,
    };
    block_seal(at, &header);
    ring_publish(end->ring, &header);
    end->last_index++;
    end->next_position++;
    end->last_crc = header.header_crc;
    return 0;
}

int end_append(struct end *end, unsigned to, raft_index first, raft_index last)
{
    struct ring_slot slot;
    raft_index packed;
    ck_assert_int_eq(ring_find(end->ring, first, &slot), 0);
    struct raft_message message = {.type = RAFT_APPEND, .from = end_member(end->slot), .to = end_member(to), .term = 1};
    message.as.append.previous_index = first - 1;
    message.as.append.last_index = last;
    struct transport_send send = {.slot = to, .type = FRAME_RAFT, .message = &message, .ring_from = slot.pos};
    send.ring_bytes = ring_pack(end->ring, first, last, UINT64_MAX, &packed);
    ck_assert_uint_eq(packed, last);
    return end->transport->ops->send(end->transport, &send);
}

int end_send(struct end *end, unsigned to, const struct raft_message *message)
{
    const struct transport_send send = {.slot = to, .type = FRAME_RAFT, .message = message};
    return end->transport->ops->send(end->transport, &send);
}

int end_send_body(struct end *end, unsigned to, uint8_t type, const void *body, size_t bytes)
{
    const struct transport_send send = {.slot = to, .type = type, .body = body, .body_bytes = bytes};
    return end->transport->ops->send(end->transport, &send);
}

int end_dial_raw(const struct end *end)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)end->port)};
    const struct timeval patience = {.tv_sec = 3};
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience), 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}
