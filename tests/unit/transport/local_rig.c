/* SPDX-License-Identifier: Apache-2.0 */
/* local_rig.c - see local_rig.h. */
#include "tests/unit/transport/local_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "tests/support/unit.h"

struct rig_node rig[RIG_NODES];
uint64_t rig_now_ns;
uint64_t rig_spin_ns;
void (*rig_clock_looked)(void);

raft_member rig_member(unsigned node)
{
    return 0x1000 + node;
}

/* --- the transport beneath ---------------------------------------------------------------------------------------- */

static struct rig_node *node_of_inner(struct transport *t)
{
    return (struct rig_node *)t; /* its first member */
}

static int inner_send(struct transport *t, const struct transport_send *send)
{
    struct rig_node *node = node_of_inner(t);
    ck_assert_uint_lt(node->sent_count, RIG_FRAMES_MAX);
    struct rig_frame *frame = &node->sent[node->sent_count++];
    *frame = (struct rig_frame){
        .slot = send->slot, .type = send->type, .ring_bytes = send->ring_bytes, .blocks_bytes = send->blocks_bytes};
    if (send->message != NULL) frame->message = *send->message;
    return 0;
}

static uint64_t inner_queued_bytes(struct transport *t, unsigned slot)
{
    (void)t;
    return 100 + slot;
}

static bool inner_blocks_idle(struct transport *t, unsigned slot)
{
    (void)t;
    return slot == 2;
}

static bool inner_next(struct transport *t, struct transport_frame *ret)
{
    struct rig_node *node = node_of_inner(t);
    if (node->come_count == 0) return false;
    *ret = node->come[0];
    return true;
}

static void inner_consume(struct transport *t)
{
    struct rig_node *node = node_of_inner(t);
    node->inner_consumed++;
    memmove(node->come, node->come + 1, --node->come_count * sizeof node->come[0]);
}

static void inner_flush(struct transport *t)
{
    node_of_inner(t)->inner_flushes++;
}

static int inner_peer_set(struct transport *t, unsigned slot, const char *name, const char *address)
{
    struct rig_node *node = node_of_inner(t);
    (void)address;
    if (name[0] == '!') return LOCKSTEP_EINVAL;
    if (name[0] == '=') return 0; /* the same as before */
    node->status[slot] = (struct transport_peer_status){0};
    return 0;
}

static void inner_hello_set(struct transport *t, const struct transport_hello *hello)
{
    (void)t;
    (void)hello;
}

static void inner_peer_status(struct transport *t, unsigned slot, struct transport_peer_status *ret)
{
    *ret = slot < RIG_NODES ? node_of_inner(t)->status[slot] : (struct transport_peer_status){0};
}

static uint64_t inner_frames_refused(struct transport *t)
{
    (void)t;
    return 5;
}

static void inner_close(struct transport *t)
{
    (void)t;
}

static const struct transport_ops inner_ops = {
    .send = inner_send,
    .queued_bytes = inner_queued_bytes,
    .blocks_idle = inner_blocks_idle,
    .next = inner_next,
    .consume = inner_consume,
    .flush = inner_flush,
    .peer_set = inner_peer_set,
    .hello_set = inner_hello_set,
    .peer_status = inner_peer_status,
    .frames_refused = inner_frames_refused,
    .close = inner_close,
};

/* --- the link --------------------------------------------------------------------------------------------------------- */

static struct rig_node *node_of_link(struct local_link *link)
{
    return (struct rig_node *)(void *)((char *)link - offsetof(struct rig_node, link));
}

static unsigned connection_free(struct rig_node *node)
{
    for (unsigned i = 0; i < LOCAL_CONNECTIONS_MAX; i++)
        if (!node->connections[i].used) return i;
    ck_abort_msg("no connection is free");
}

static void link_attach(struct local_link *link, const struct local_link_owner *owner)
{
    node_of_link(link)->link_owner = *owner;
}

static int link_listen(struct local_link *link, uint64_t cluster_id, raft_member member_id)
{
    struct rig_node *node = node_of_link(link);
    node->listens++;
    if (node->listen_refused) return LOCKSTEP_EEXIST;
    ck_assert_uint_eq(cluster_id, RIG_CLUSTER);
    ck_assert_uint_ne(member_id, 0);
    node->listening = true;
    return 0;
}

static int link_dial(struct local_link *link, const struct local_hello *hello, unsigned *ret_connection)
{
    struct rig_node *node = node_of_link(link);
    node->dials++;
    for (unsigned i = 0; i < RIG_NODES; i++) {
        if (&rig[i] == node || rig[i].transport == NULL || !rig[i].listening || rig_member(i) != hello->wanted_id)
            continue;
        *ret_connection = connection_free(node);
        node->connections[*ret_connection] = (struct rig_connection){.used = true, .node = i, .hello = *hello};
        return 0;
    }
    return LOCKSTEP_EUNREACHABLE;
}

static struct rig_connection *other_end(const struct rig_connection *c)
{
    return &rig[c->node].connections[c->connection];
}

static bool link_bell(struct local_link *link, unsigned connection)
{
    struct rig_connection *c = &node_of_link(link)->connections[connection];
    ck_assert(c->used && c->granted);
    if (node_of_link(link)->bells_refused) return false;
    other_end(c)->bells++;
    rig[c->node].link_owner.wake(rig[c->node].link_owner.context);
    return true;
}

static int link_send(struct local_link *link, unsigned connection, const void *bytes, size_t count)
{
    struct rig_node *node = node_of_link(link);
    (void)connection;
    (void)bytes;
    (void)count;
    if (node->send_refused) return LOCKSTEP_EFULL;
    node->packets++;
    return 0;
}

static void link_end(struct local_link *link, unsigned connection)
{
    struct rig_node *node = node_of_link(link);
    struct rig_connection *c = &node->connections[connection];
    ck_assert(c->used);
    node->ends++;
    c->used = false;
    if (!c->granted) return;
    struct rig_connection *other = other_end(c);
    other->used = false;
    if (rig[c->node].transport != NULL)
        rig[c->node].link_owner.ended(rig[c->node].link_owner.context, c->connection, "it closed the connection");
}

static uint64_t link_now_ns(struct local_link *link)
{
    (void)link;
    if (rig_clock_looked != NULL) rig_clock_looked();
    return rig_now_ns;
}

static uint64_t link_refused(const struct local_link *link)
{
    (void)link;
    return 2;
}

static void link_close(struct local_link *link)
{
    struct rig_node *node = node_of_link(link);
    for (unsigned i = 0; i < LOCAL_CONNECTIONS_MAX; i++)
        if (node->connections[i].used) link_end(link, i);
    node->listening = false;
}

static const struct local_link_ops link_ops = {
    .attach = link_attach,
    .listen = link_listen,
    .dial = link_dial,
    .bell = link_bell,
    .send = link_send,
    .end = link_end,
    .now_ns = link_now_ns,
    .refused = link_refused,
    .close = link_close,
};

void rig_link_turn(void)
{
    for (unsigned i = 0; i < RIG_NODES; i++)
        for (unsigned c = 0; c < LOCAL_CONNECTIONS_MAX; c++) {
            struct rig_connection *dialled = &rig[i].connections[c];
            if (!dialled->used || dialled->granted) continue;
            struct rig_node *to = &rig[dialled->node];
            struct local_reply reply = {0};
            struct local_grant grant;
            unsigned number = connection_free(to);
            int rc = to->link_owner.judge(to->link_owner.context, number, &dialled->hello, &reply, &grant);
            if (rc != 0) {
                dialled->used = false;
                rig[i].link_owner.ended(rig[i].link_owner.context, c, reply.why);
                continue;
            }
            to->connections[number] =
                (struct rig_connection){.used = true, .granted = true, .node = i, .connection = c};
            dialled->granted = true;
            dialled->connection = number;
            grant = (struct local_grant){.ring_fd = dup(grant.ring_fd), .slot_fd = dup(grant.slot_fd)};
            if (rig[i].link_owner.granted(rig[i].link_owner.context, c, &reply, &grant) == 0) continue;
            dialled->used = to->connections[number].used = false;
            to->link_owner.ended(to->link_owner.context, number, "it closed the connection");
        }
}

void rig_hang_up(unsigned node, unsigned connection)
{
    struct rig_connection *c = &rig[node].connections[connection];
    ck_assert(c->used && c->granted);
    c->used = other_end(c)->used = false;
    rig[node].link_owner.ended(rig[node].link_owner.context, connection, "it closed the connection");
    rig[c->node].link_owner.ended(rig[c->node].link_owner.context, c->connection, "it closed the connection");
}

unsigned rig_dialled(unsigned node, unsigned to)
{
    for (unsigned c = 0; c < LOCAL_CONNECTIONS_MAX; c++) {
        const struct rig_connection *dialled = &rig[node].connections[c];
        if (dialled->used && dialled->node == to && dialled->hello.wanted_id != 0) return c;
    }
    return LOCAL_CONNECTIONS_MAX;
}

/* --- the owner ---------------------------------------------------------------------------------------------------------- */

static void owner_wake(void *context)
{
    struct rig_node *node = context;
    node->wakes++;
}

static struct ring *owner_ring(void *context)
{
    struct rig_node *node = context;
    return node->ring_shown;
}

static void report(void *context, const char *text)
{
    struct rig_node *node = context;
    node->reports++;
    snprintf(node->report, sizeof node->report, "%s", text);
}

void rig_open(void)
{
    rig_now_ns = 1;
    memset(rig, 0, sizeof rig);
    for (unsigned i = 0; i < RIG_NODES; i++) {
        struct rig_node *node = &rig[i];
        node->inner.ops = &inner_ops;
        node->link.ops = &link_ops;
        node->slot = i;
        node->next_position = 1;
        const struct ring_options options = {.bytes = 1 << 20,
                                             .block_bytes_max = RIG_BLOCK_BYTES_MAX,
                                             .cluster_id = RIG_CLUSTER,
                                             .member_id = rig_member(i),
                                             .boot = 10 + i};
        ck_assert_int_eq(ring_open(&options, &node->ring), 0);
        ring_start(node->ring, &(struct block_base){.next_position = 1});
        node->ring_shown = node->ring;
        for (unsigned j = 0; j < RIG_NODES; j++)
            node->status[j] = (struct transport_peer_status){
                .connected_in = true, .connected_out = true, .member_id = rig_member(j), .boot = 10 + j};
        const struct local_options local = {
            .owner = {.context = node, .wake = owner_wake, .ring = owner_ring},
            .inner = &node->inner,
            .link = &node->link,
            .hello = {.cluster_id = RIG_CLUSTER, .member_id = rig_member(i), .boot = 10 + i},
            .self = i,
            .spin_ns = rig_spin_ns,
            .report_context = node,
            .report = report,
        };
        ck_assert_int_eq(local_open(&local, &node->transport), 0);
    }
}

void rig_node_close(unsigned node)
{
    struct transport *t = rig[node].transport;
    rig[node].transport = NULL;
    if (t != NULL) t->ops->close(t);
}

void rig_close(void)
{
    rig_forget();
    for (unsigned i = 0; i < RIG_NODES; i++) rig_node_close(i);
    for (unsigned i = 0; i < RIG_NODES; i++) ring_close(rig[i].ring);
}

static void frames_free(struct rig_frame *frames, unsigned *count)
{
    for (unsigned i = 0; i < *count; i++) free(frames[i].body);
    *count = 0;
}

void rig_forget(void)
{
    for (unsigned i = 0; i < RIG_NODES; i++) {
        frames_free(rig[i].sent, &rig[i].sent_count);
        frames_free(rig[i].got, &rig[i].got_count);
        for (unsigned c = 0; c < LOCAL_CONNECTIONS_MAX; c++) rig[i].connections[c].bells = 0;
        rig[i].wakes = rig[i].ends = 0;
    }
}

void rig_turn(unsigned number)
{
    struct rig_node *node = &rig[number];
    struct transport_frame frame;
    while (node->transport->ops->next(node->transport, &frame)) {
        ck_assert_uint_lt(node->got_count, RIG_FRAMES_MAX);
        struct rig_frame *got = &node->got[node->got_count++];
        *got = (struct rig_frame){
            .slot = frame.slot, .type = frame.type, .message = frame.message, .body_bytes = frame.body_bytes};
        if (frame.body_bytes > 0) {
            got->body = malloc(frame.body_bytes);
            memcpy(got->body, frame.body, frame.body_bytes);
        }
        node->transport->ops->consume(node->transport);
    }
    node->transport->ops->flush(node->transport);
}

void rig_settle(void)
{
    for (unsigned round = 0; round < 6; round++) { /* longer than LOCAL_RETRY_MS: who came first found nobody */
        rig_now_ns += LOCAL_RETRY_MS / 4 * UINT64_C(1000000);
        for (unsigned i = 0; i < RIG_NODES; i++)
            if (rig[i].transport != NULL) rig_turn(i);
        rig_link_turn();
    }
}

/* --- what the nodes do ------------------------------------------------------------------------------------------------- */

void rig_role(unsigned node, raft_term term, bool leads)
{
    ring_epoch_begin(rig[node].ring);
    ring_epoch_end(rig[node].ring, term, leads);
    if (!leads) return;
    unsigned sent = rig[node].sent_count; /* a new leader says so at once */
    for (unsigned i = 0; i < RIG_NODES; i++)
        if (i != node) ck_assert_int_eq(rig_heartbeat(node, i, term, 0), 0);
    ck_assert_uint_eq(rig[node].sent_count, sent + RIG_NODES - 1); /* to nobody through memory yet */
    rig[node].sent_count = sent;
}

void rig_publish(unsigned number, raft_term term, uint32_t payload_bytes)
{
    struct rig_node *node = &rig[number];
    uint8_t *at;
    uint32_t bytes = (uint32_t)(BLOCK_HEADER_BYTES + command_bytes(payload_bytes));
    ck_assert_int_eq(ring_claim(node->ring, bytes, &at), 0);
    uint8_t *payload = malloc(payload_bytes + 1);
    for (uint32_t i = 0; i < payload_bytes; i++) payload[i] = (uint8_t)(node->last_index * 31 + i);
    const struct command_header command = {.bytes = payload_bytes};
    command_write(at + BLOCK_HEADER_BYTES, &command, payload);
    free(payload);
    struct block_header header = {
        .bytes = bytes,
        .type = BLOCK_COMMANDS,
        .count = 1,
        .index = node->last_index + 1,
        .term = term,
        .time_ns = node->last_index + 1,
        .first_position = node->next_position,
        .previous_crc = node->last_crc,
    };
    block_seal(at, &header);
    ring_publish(node->ring, &header);
    node->last_index++;
    node->next_position++;
    node->last_crc = header.header_crc;
}

int rig_send(unsigned node, unsigned to, const struct raft_message *message, uint64_t ring_bytes, uint64_t blocks_bytes)
{
    static const uint8_t blocks[64];
    const struct transport_send send = {.slot = to,
                                        .type = FRAME_RAFT,
                                        .message = message,
                                        .ring_bytes = ring_bytes,
                                        .blocks = blocks_bytes > 0 ? blocks : NULL,
                                        .blocks_bytes = blocks_bytes};
    return rig[node].transport->ops->send(rig[node].transport, &send);
}

static struct raft_message message_of(unsigned node, unsigned to, uint8_t type, raft_term term)
{
    return (struct raft_message){.type = type, .from = rig_member(node), .to = rig_member(to), .term = term};
}

void rig_ack(unsigned node, unsigned to, raft_term term, raft_index validated, raft_index durable, uint64_t round)
{
    struct raft_message m = message_of(node, to, RAFT_ACK, term);
    m.as.ack = (struct raft_ack){.durable_index = durable, .validated_index = validated, .round = round};
    ck_assert_int_eq(rig_send(node, to, &m, 0, 0), 0);
}

int rig_append(unsigned node, unsigned to, raft_term term, raft_index first)
{
    struct raft_message m = message_of(node, to, RAFT_APPEND, term);
    m.as.append = (struct raft_append){.previous_index = first - 1, .last_index = first};
    return rig_send(node, to, &m, 64, 0);
}

int rig_heartbeat(unsigned node, unsigned to, raft_term term, uint64_t round)
{
    struct raft_message m = message_of(node, to, RAFT_HEARTBEAT, term);
    m.as.heartbeat.round = round;
    return rig_send(node, to, &m, 0, 0);
}

struct transport_peer_status rig_status(unsigned node, unsigned peer)
{
    struct transport_peer_status status;
    rig[node].transport->ops->peer_status(rig[node].transport, peer, &status);
    return status;
}

unsigned rig_count(const struct rig_frame *frames, unsigned count, uint8_t raft_type)
{
    unsigned ret = 0;
    for (unsigned i = 0; i < count; i++)
        ret += frames[i].type == FRAME_RAFT && (raft_type == 0 || frames[i].message.type == raft_type);
    return ret;
}

const struct rig_frame *rig_last(const struct rig_frame *frames, unsigned count, uint8_t raft_type)
{
    for (unsigned i = count; i-- > 0;)
        if (frames[i].type == FRAME_RAFT && frames[i].message.type == raft_type) return &frames[i];
    return NULL;
}

void rig_follow(unsigned blocks)
{
    rig_settle();
    rig_role(0, 1, true);
    for (unsigned i = 0; i < blocks; i++) rig_publish(0, 1, 8);
    for (unsigned i = 1; i < RIG_NODES; i++) {
        ck_assert_uint_ne(rig_dialled(i, 0), LOCAL_CONNECTIONS_MAX);
        rig_ack(i, 0, 1, 1, 0, 0);
        rig_turn(i);
        rig_ack(i, 0, 1, blocks, 0, 0);
        rig_turn(i);
    }
    rig_turn(0);
    rig_settle();
    rig_forget();
}
