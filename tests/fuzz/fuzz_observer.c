/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_observer.c - what processes of this host may say to a node: hellos, questions and what is neither, and anything in the
 * slots that they write. All that the node does with it is real: the packets' readers, transport/local.c, node_observers.c
 * and a log that holds compacted, small and large blocks. Here are the door (transport/local_link.h) and a count of what is
 * owed: each question that was taken is answered exactly once, to who asked it, with what the log holds. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "proto/ring_reader.h"
#include "server/node_internal.h"
#include "tests/fuzz/input.h"
#include "tests/support/cluster.h"
#include "transport/local.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum {
    BLOCKS_MAX = 512,
    PAYLOAD_BYTES = 30000, /* three of them are more than a packet */
    COMMANDS = 60,
    STEPS_MAX = 64,
    SEARCH_STEPS_MAX = 32, /* of the control thread for one question: halves of BLOCKS_MAX, some at a time */
};

/* An observer, as the door knows it. */
struct visitor {
    bool there, owed;
    struct local_ask ask;
    struct ring_reader_slot *slot; /* as its process has it: for writing */
};

static struct cluster *cluster;
static struct node *node;
static raft_index base, stored;
static uint8_t *blocks[BLOCKS_MAX]; /* of the log, base + 1 to stored, by index */
static struct block_header headers[BLOCKS_MAX];

static struct local_link door;
static struct local_link_owner owner;
static struct visitor visitors[LOCAL_CONNECTIONS_MAX];

static struct local_hello good_hello(void)
{
    struct transport_hello hello;
    node_transport_hello(node, &hello);
    return (struct local_hello){.kind = LOCAL_OBSERVER, .cluster_id = hello.cluster_id, .wanted_id = hello.member_id};
}

static unsigned observers(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < LOCAL_CONNECTIONS_MAX; i++) count += visitors[i].there;
    return count;
}

/* --- what the node tells --------------------------------------------------------------------------------------------- */

static void check_error(const struct local_ask *ask, const struct local_answer *answer)
{
    log_position end = block_base_after(&headers[stored]).next_position;
    switch (answer->error) {
    case LOCKSTEP_ENOTFOUND:
        lk_assert(answer->index == stored);
        lk_assert(ask->position != 0 ? ask->position >= end : ask->index > stored);
        break;
    case LOCKSTEP_EGONE:
        lk_assert(answer->oldest == headers[base + 1].first_position);
        lk_assert(ask->position != 0 ? ask->position < answer->oldest : ask->index <= base);
        break;
    case LOCKSTEP_EINVAL:
        lk_assert(ask->index > base && ask->index <= stored);
        lk_assert(ask->offset >= headers[ask->index].bytes);
        break;
    default: lk_unreachable(); /* nothing fails here */
    }
}

static void check_blocks(const struct local_ask *ask, const struct local_answer *answer, const uint8_t *at,
                         size_t count)
{
    raft_index index = answer->index;
    lk_assert(index > base && index <= stored);
    lk_assert(answer->offset == ask->offset);
    if (ask->position != 0) {
        lk_assert(headers[index].first_position <= ask->position);
        lk_assert(block_base_after(&headers[index]).next_position > ask->position);
    } else {
        lk_assert(index == ask->index);
    }
    uint32_t from = answer->offset;
    for (; count > 0; index++, from = 0) {
        lk_assert(index <= stored);
        lk_assert(answer->offset == 0 || index == answer->index); /* behind a part comes nothing else */
        lk_assert(from < headers[index].bytes);
        size_t piece = headers[index].bytes - from;
        if (piece > count) { /* a part: the only block */
            lk_assert(index == answer->index);
            piece = count;
        }
        lk_assert(memcmp(at, blocks[index] + from, piece) == 0);
        at += piece;
        count -= piece;
    }
}

static int door_send(struct local_link *link, unsigned connection, const void *bytes, size_t count)
{
    (void)link;
    lk_assert(connection < LOCAL_CONNECTIONS_MAX);
    struct visitor *visitor = &visitors[connection];
    struct local_answer answer;
    lk_assert(visitor->there && visitor->owed);
    lk_assert(local_answer_read(bytes, count, &answer) == 0); /* a tail takes it */
    lk_assert(answer.number == visitor->ask.number);
    visitor->owed = false;
    if (answer.error != 0)
        check_error(&visitor->ask, &answer);
    else
        check_blocks(&visitor->ask, &answer, (const uint8_t *)bytes + LOCAL_ANSWER_BYTES, count - LOCAL_ANSWER_BYTES);
    return 0;
}

/* --- the door -------------------------------------------------------------------------------------------------------- */

static void door_attach(struct local_link *link, const struct local_link_owner *given)
{
    (void)link;
    owner = *given;
}

static int door_listen(struct local_link *link, uint64_t cluster_id, raft_member member_id)
{
    (void)link;
    lk_assert(cluster_id != 0 && member_id != 0);
    return 0;
}

static int door_dial(struct local_link *link, const struct local_hello *hello, unsigned *ret_connection)
{
    (void)link;
    (void)hello;
    (void)ret_connection;
    lk_unreachable(); /* it has no peers */
}

static bool door_bell(struct local_link *link, unsigned connection)
{
    (void)link;
    lk_assert(connection < LOCAL_CONNECTIONS_MAX && visitors[connection].there);
    return true;
}

static void door_end(struct local_link *link, unsigned connection)
{
    (void)link;
    (void)connection;
    lk_unreachable(); /* who breaks the protocol is ended by the door itself */
}

static uint64_t door_now_ns(struct local_link *link)
{
    (void)link;
    return 1;
}

static uint64_t door_refused(const struct local_link *link)
{
    (void)link;
    return 0;
}

static void door_close(struct local_link *link)
{
    (void)link;
}

static const struct local_link_ops door_ops = {
    .attach = door_attach,
    .listen = door_listen,
    .dial = door_dial,
    .bell = door_bell,
    .send = door_send,
    .end = door_end,
    .now_ns = door_now_ns,
    .refused = door_refused,
    .close = door_close,
};

static void forget(struct visitor *visitor)
{
    ring_reader_slot_unmap(visitor->slot);
    *visitor = (struct visitor){0};
}

static void hang_up(unsigned connection)
{
    forget(&visitors[connection]);
    owner.ended(owner.context, connection, "it closed the connection");
}

/* --- the node, once ---------------------------------------------------------------------------------------------------- */

static void nothing(void *context)
{
    (void)context;
}

static struct ring *the_ring(void *context)
{
    (void)context;
    return node->ring;
}

static void report(void *context, const char *text)
{
    (void)context;
    (void)text;
}

static void log_copy(void)
{
    struct storage_status status;
    storage_status_read(node->storage, &status);
    base = status.base;
    stored = status.stored;
    lk_assert(base > 1 && base + 1 < stored && stored < BLOCKS_MAX);
    bool large = false;
    for (raft_index index = base + 1; index <= stored; index++) {
        const uint8_t *block;
        lk_assert(storage_read(node->load_reader, index, &block, &headers[index]) == 0);
        blocks[index] = malloc(headers[index].bytes);
        lk_assert(blocks[index] != NULL);
        memcpy(blocks[index], block, headers[index].bytes);
        large = large || headers[index].bytes > LOCAL_ANSWER_BYTES_MAX;
    }
    storage_read_end(node->load_reader);
    lk_assert(large);
}

static void start(void)
{
    const struct cluster_options options = {
        .nodes = 1, .seed = 1, .payload_bytes = PAYLOAD_BYTES, .snapshot_after_bytes = 20 * PAYLOAD_BYTES};
    cluster = cluster_open(&options);
    lk_assert(cluster_start(cluster, 0));
    lk_assert(cluster_run_until_writable(cluster, 10000 * CLUSTER_MS) == 0);
    for (unsigned i = 0; i < COMMANDS; i++) { /* blocks of one to three */
        cluster_propose(cluster, 0, false);
        if (i % 6 != 0 && i % 6 != 1 && i % 6 != 3) cluster_run(cluster, CLUSTER_MS);
    }
    lk_assert(cluster_run_until_level(cluster, 10000 * CLUSTER_MS));
    cluster_run(cluster, 1000 * CLUSTER_MS); /* stored, compacted */
    node = cluster_node(cluster, 0);
    log_copy();
    door.ops = &door_ops;
    struct local_options local = {
        .owner = {.wake = nothing, .ring = the_ring}, .inner = node->transport, .link = &door, .report = report};
    node_transport_hello(node, &local.hello);
    lk_assert(local_open(&local, &node->transport) == 0); /* closed with the node: with the process */
    node->transport->ops->flush(node->transport);         /* it looks at its ring, and listens */
}

/* --- what comes -------------------------------------------------------------------------------------------------------- */

/* One time in four as it should be; else with some bytes of the input in it, longer, or cut. Returns its length. */
static size_t spoil(struct input *input, uint8_t *packet, size_t whole)
{
    uint8_t how = input_byte(input);
    if (how % 4 == 0) return whole;
    for (unsigned i = how % 4; i > 0; i--) {
        size_t at = input_byte(input) % whole;
        packet[at] = input_byte(input);
    }
    if (how < 224) return whole;
    return input_byte(input) % (whole + 8);
}

static void hello(struct input *input)
{
    uint8_t packet[LOCAL_HELLO_BYTES + 8] = {0}, again[LOCAL_HELLO_BYTES];
    const struct local_hello good = good_hello();
    struct local_hello said;
    struct local_reply reply;
    struct local_grant grant;
    unsigned connection = 0, before = observers();
    local_hello_write(&good, packet);
    size_t count = spoil(input, packet, LOCAL_HELLO_BYTES);
    if (local_hello_read(packet, count, &said) != 0) return; /* the door turns it away */
    lk_assert(count == LOCAL_HELLO_BYTES);
    local_hello_write(&said, again);
    lk_assert(memcmp(packet, again, sizeof again) == 0);
    while (visitors[connection].there) connection++;
    int rc = owner.judge(owner.context, connection, &said, &reply, &grant);
    bool named = said.cluster_id == good.cluster_id && said.wanted_id == good.wanted_id && said.group == good.group &&
                 (said.wanted_boot == 0 || said.wanted_boot == reply.boot);
    int expected = !named || said.kind != LOCAL_OBSERVER ? LOCKSTEP_EFOREIGN
                   : before == LOCAL_OBSERVERS_MAX       ? LOCKSTEP_EFULL
                                                         : 0;
    lk_assert(rc == expected);
    reply.error = rc;
    uint8_t told[LOCAL_REPLY_BYTES];
    struct local_reply read;
    local_reply_write(&reply, told);
    lk_assert(local_reply_read(told, sizeof told, &read) == 0 && read.error == rc); /* a tail takes it */
    if (rc != 0) return;
    visitors[connection].there = true;
    lk_assert(ring_reader_slot_map(grant.slot_fd, &visitors[connection].slot) == 0);
}

/* One of those that are there; NULL: nobody is. */
static struct visitor *somebody(struct input *input)
{
    unsigned count = observers(), which = input_byte(input);
    for (unsigned i = 0; count > 0 && i < LOCAL_CONNECTIONS_MAX; i++)
        if (visitors[i].there && which-- % count == 0) return &visitors[i];
    return NULL;
}

static void ask(struct input *input)
{
    struct visitor *visitor = somebody(input);
    if (visitor == NULL) return;
    uint8_t packet[LOCAL_ASK_BYTES + 8] = {0}, again[LOCAL_ASK_BYTES];
    uint8_t kind = input_byte(input);
    struct local_ask good = {.number = kind}, said;
    log_position end = block_base_after(&headers[stored]).next_position;
    if (kind % 2 == 0) {
        good.position = 1 + input_byte(input) % (end + 4);
    } else {
        good.index = 1 + input_byte(input) % (stored + 4);
        if (kind & 2) good.offset = (uint32_t)(input_byte(input) << 9 | input_byte(input));
        if (kind & 4 && good.index <= stored) good.offset = headers[good.index].bytes - 1 + input_byte(input) % 3;
    }
    local_ask_write(&good, packet);
    size_t count = spoil(input, packet, LOCAL_ASK_BYTES);
    int rc = local_ask_read(packet, count, &said);
    if (rc == 0) {
        lk_assert(count == LOCAL_ASK_BYTES);
        local_ask_write(&said, again);
        lk_assert(memcmp(packet, again, sizeof again) == 0);
    }
    if (visitor->owed) rc = LOCKSTEP_EPROTO; /* one at a time */
    unsigned connection = (unsigned)(visitor - visitors);
    lk_assert(owner.packet(owner.context, connection, packet, count) == rc);
    if (rc != 0) {
        hang_up(connection);
        return;
    }
    visitor->owed = true;
    visitor->ask = said;
}

static void write_slot(struct input *input)
{
    struct visitor *visitor = somebody(input);
    if (visitor == NULL) return;
    uint64_t value = input_byte(input) % 2 == 0 ? UINT64_MAX - input_byte(input) : input_byte(input);
    switch (input_byte(input) % 4) {
    case 0: ring_word_store(&visitor->slot->epoch, value); break;
    case 1: ring_word_store(&visitor->slot->position, value); break;
    case 2: ring_word_store(&visitor->slot->lapped, value); break;
    default: ring_word_store(&visitor->slot->sleeps, value); break;
    }
}

static void turn(void)
{
    struct transport_frame frame;
    while (node->transport->ops->next(node->transport, &frame)) node->transport->ops->consume(node->transport);
    node_observers_turn(node);
    node->transport->ops->flush(node->transport);
    node_observers_control_work(node);
}

static bool anybody_owed(void)
{
    for (unsigned i = 0; i < LOCAL_CONNECTIONS_MAX; i++)
        if (visitors[i].owed) return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct input input = {.at = bytes, .left = count};
    struct visitor *visitor;
    if (cluster == NULL) start();
    for (unsigned step = 0; step < STEPS_MAX && input.left > 0; step++) {
        uint8_t what = input_byte(&input);
        if (step == 0) what = 0; /* nothing else has a sense */
        switch (what % 16) {
        case 0:
        case 1:
        case 2: hello(&input); break;
        case 3: write_slot(&input); break;
        case 4:
            visitor = somebody(&input);
            if (visitor != NULL) hang_up((unsigned)(visitor - visitors)); /* also while it is owed an answer */
            break;
        case 5:
        case 6:
        case 7:
        case 8:
        case 9: turn(); break;
        default: ask(&input);
        }
    }
    for (unsigned i = 0; i < SEARCH_STEPS_MAX * LOCAL_OBSERVERS_MAX && anybody_owed(); i++) turn();
    lk_assert(!anybody_owed());
    for (unsigned i = 0; i < LOCAL_CONNECTIONS_MAX; i++)
        if (visitors[i].there) hang_up(i);
    turn(); /* what was asked by who is gone */
    for (unsigned i = 0; i < SEARCH_STEPS_MAX && node->observers.state != NODE_LOAD_IDLE; i++) turn();
    lk_assert(node->observers.state == NODE_LOAD_IDLE);
    return 0;
}
