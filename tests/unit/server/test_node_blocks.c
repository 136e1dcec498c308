/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_blocks.c - single blocks, asked for by their names: a member that speaks frames by hand asks whole nodes. */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"
#include "tests/unit/server/nodes.h"

enum { ASKER = 2 }; /* whose place at the network the test takes */

struct name {
    uint32_t group, header_crc;
    uint64_t index;
};

struct asker {
    struct cluster *cluster;
    struct transport *transport;
    uint8_t answer[sizeof(struct name) + BLOCK_BYTES_MAX];
    size_t answer_bytes;
};

static void no_wake(void *context)
{
    (void)context;
}

static struct ring *no_ring(void *context)
{
    (void)context;
    return NULL;
}

/* Slots are the ends of the network here. */
static int any_hello(void *context, unsigned *slot, const struct transport_hello *hello,
                     char reason[TRANSPORT_REASON_BYTES_MAX])
{
    (void)context;
    (void)reason;
    *slot = (unsigned)(hello->name[1] - '1');
    return 0;
}

static uint32_t crc_of(struct cluster *cluster, unsigned i, raft_index index)
{
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(cluster_node(cluster, i)->ring, index, &slot), 0);
    return slot.header_crc;
}

/* A cluster with a log, of which node ASKER has died: its place is taken by the test. */
static struct asker *ask_as_a_member(uint64_t seed, uint64_t snapshot_after_bytes)
{
    struct cluster_options options = {
        .nodes = 3, .seed = unit_seed(seed), .payload_bytes = 100, .snapshot_after_bytes = snapshot_after_bytes};
    struct asker *a = calloc(1, sizeof *a);
    ck_assert_ptr_nonnull(a);
    a->cluster = cluster_open(&options);
    for (unsigned i = 0; i < 3; i++) ck_assert(cluster_start(a->cluster, i));
    for (unsigned k = 0; k < 300; k++) {
        int leader = cluster_run_until_writable(a->cluster, 10 * SECOND);
        ck_assert_int_ge(leader, 0);
        cluster_propose(a->cluster, (unsigned)leader, false);
        cluster_run(a->cluster, CLUSTER_MS);
    }
    ck_assert(cluster_run_until_level(a->cluster, 10 * SECOND));
    struct transport_hello hello;
    node_transport_hello(cluster_node(a->cluster, ASKER), &hello);
    cluster_crash(a->cluster, ASKER);
    static const struct transport_owner owner = {.wake = no_wake, .ring = no_ring, .hello_check = any_hello};
    a->transport = sim_net_attach(cluster_net(a->cluster), ASKER, &owner, &hello);
    return a;
}

static void asker_close(struct asker *a)
{
    sim_net_detach(cluster_net(a->cluster), ASKER);
    cluster_close(a->cluster);
    free(a);
}

static void send_bytes(struct asker *a, unsigned node, const void *bytes, size_t count)
{
    const struct transport_send send = {.slot = node, .type = FRAME_BLOCK_GET, .body = bytes, .body_bytes = count};
    ck_assert_int_eq(a->transport->ops->send(a->transport, &send), 0);
}

/* The next BLOCK that comes; what else comes is passed over. */
static bool receive(struct asker *a, uint64_t ns)
{
    for (uint64_t waited = 0; waited < ns; waited += CLUSTER_MS) {
        struct transport_frame frame;
        while (a->transport->ops->next(a->transport, &frame)) {
            bool found = frame.type == FRAME_BLOCK;
            if (found) memcpy(a->answer, frame.body, a->answer_bytes = frame.body_bytes);
            a->transport->ops->consume(a->transport);
            if (found) return true;
        }
        cluster_run(a->cluster, CLUSTER_MS);
    }
    return false;
}

/* Ask for one block; its bytes, or none. */
static size_t ask(struct asker *a, unsigned node, raft_index index, uint32_t header_crc)
{
    const struct name name = {.index = index, .header_crc = header_crc};
    send_bytes(a, node, &name, sizeof name);
    ck_assert(receive(a, 5 * SECOND));
    ck_assert_uint_ge(a->answer_bytes, sizeof name);
    ck_assert_mem_eq(a->answer, &name, sizeof name);
    return a->answer_bytes - sizeof name;
}

/* From the last block to the first, each named by the one behind it. Returns the first index that was not given. */
static raft_index read_backwards(struct asker *a, unsigned node, raft_index last, uint32_t crc)
{
    for (raft_index index = last; index > 0; index--) {
        struct block_header header;
        size_t bytes = ask(a, node, index, crc);
        const uint8_t *block = a->answer + sizeof(struct name);
        if (bytes == 0) return index;
        ck_assert_int_eq(block_header_read(block, bytes, &header), 0);
        ck_assert_uint_eq(header.bytes, bytes);
        ck_assert_uint_eq(header.index, index);
        ck_assert_uint_eq(header.header_crc, crc);
        ck_assert_int_eq(block_body_check(block, &header), 0);
        crc = header.previous_crc;
    }
    ck_assert_uint_eq(crc, 0);
    return 0;
}

START_TEST(any_member_gives_any_block_by_its_name_also_without_a_leader) /* J7 */
{
    struct asker *a = ask_as_a_member(1, 0);
    struct node_status status;
    node_status_read(cluster_node(a->cluster, 0), &status);
    raft_index last = status.raft.last_index;
    uint32_t crc = crc_of(a->cluster, 0, last);
    ck_assert_uint_eq(read_backwards(a, 0, last, crc), 0); /* from the ring */
    cluster_crash(a->cluster, 0);
    cluster_crash(a->cluster, 1);
    ck_assert(cluster_start(a->cluster, 1)); /* alone, with an empty ring */
    cluster_run(a->cluster, SECOND);
    ck_assert_uint_eq(read_backwards(a, 1, last, crc), 0);
    ck_assert_uint_eq(node_leader(cluster_node(a->cluster, 1)), RAFT_MEMBERS_MAX);
    asker_close(a);
}
END_TEST

START_TEST(block_that_is_not_held_under_that_name_is_said_to_be_missing)
{
    struct asker *a = ask_as_a_member(2, 10000);
    struct node_status status;
    node_status_read(cluster_node(a->cluster, 0), &status);
    raft_index last = status.raft.last_index;
    uint32_t crc = crc_of(a->cluster, 0, last);
    ck_assert_uint_eq(ask(a, 0, last, crc + 1), 0);
    cluster_crash(a->cluster, 0);
    ck_assert(cluster_start(a->cluster, 0));
    cluster_run(a->cluster, SECOND);
    node_status_read(cluster_node(a->cluster, 0), &status);
    ck_assert_uint_gt(status.raft.base_index, 1);
    raft_index missing = read_backwards(a, 0, last, crc);
    ck_assert(missing > 0 && missing <= status.raft.base_index); /* compacted; some may still lie in the ring */
    ck_assert_uint_eq(ask(a, 0, last, crc + 1), 0);
    ck_assert_uint_eq(ask(a, 0, last + 100, crc), 0);
    ck_assert_uint_eq(ask(a, 0, 1, crc), 0);
    cluster_run(a->cluster, SECOND);
    ck_assert(cluster_runs(a->cluster, 0));
    asker_close(a);
}
END_TEST

/* An own block is passed over by index and term: what follows would not chain to it. */
START_TEST(leader_with_another_block_of_the_same_index_and_term_is_the_proof_of_damage)
{
    struct asker *a = ask_as_a_member(4, 0);
    struct node_status status;
    raft_member asker = 0;
    ck_assert(cluster_run_until_level(a->cluster, 10 * SECOND));
    struct node *node = cluster_node(a->cluster, 0);
    node_status_read(node, &status);
    struct ring_slot slot;
    ck_assert_int_eq(ring_find(node->ring, status.raft.last_index, &slot), 0);
    const struct block_base own = ring_last(node->ring);
    uint8_t blocks[1024];
    struct block_header header, next;
    memcpy(blocks, ring_at(node->ring, slot.pos), slot.bytes);
    ck_assert_int_eq(block_header_read(blocks, slot.bytes, &header), 0);
    header.time_ns++;
    block_seal(blocks, &header);
    const struct block_base other = block_base_after(&header);
    next = (struct block_header){.bytes = BLOCK_HEADER_BYTES,
                                 .type = BLOCK_TERM,
                                 .index = header.index + 1,
                                 .term = status.raft.term + 1,
                                 .time_ns = header.time_ns,
                                 .first_position = other.next_position,
                                 .previous_crc = other.crc};
    block_seal(blocks + slot.bytes, &next);
    ck_assert_uint_ne(own.crc, other.crc);
    ck_assert_int_eq(ring_find(node->ring, header.index - 1, &slot), 0);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        if (strcmp(node->options.members[i].name, "n3") == 0) asker = node->slot_id[i];
    const struct raft_message append = {
        .type = RAFT_APPEND,
        .from = asker,
        .to = status.identity.member_id,
        .term = next.term,
        .as.append = {.previous_index = slot.index, .previous_term = slot.term, .last_index = next.index}};
    const struct transport_send send = {
        .slot = 0, .type = FRAME_RAFT, .message = &append, .blocks = blocks, .blocks_bytes = header.bytes + next.bytes};
    ck_assert_int_eq(a->transport->ops->send(a->transport, &send), 0);
    for (unsigned ms = 0; ms < 1000 && cluster_runs(a->cluster, 0); ms++) cluster_run(a->cluster, CLUSTER_MS);
    ck_assert(!cluster_runs(a->cluster, 0));
    ck_assert_msg(strstr(cluster_why(a->cluster), "safety is lost") != NULL, "%s", cluster_why(a->cluster));
    asker_close(a);
}
END_TEST

/* A piece of a snapshot was read there when leadership began anew: blocks were asked for, for nothing. */
START_TEST(load_that_found_another_one_running_is_asked_for_again)
{
    struct cluster *cluster = cluster_open(
        &(struct cluster_options){.nodes = 3, .seed = unit_seed(5), .ring_bytes = 1 << 20, .payload_bytes = 4000});
    for (unsigned i = 0; i < 3; i++) ck_assert(cluster_start(cluster, i));
    int leader = cluster_run_until_writable(cluster, 10 * SECOND);
    ck_assert_int_ge(leader, 0);
    unsigned lagging = ((unsigned)leader + 1) % 3;
    cluster_crash(cluster, lagging);
    for (unsigned k = 0; k < 500; k++) { /* 2 MB through a ring of 1 MiB */
        cluster_propose(cluster, (unsigned)leader, false);
        if (k % 4 == 3) cluster_run(cluster, CLUSTER_MS);
    }
    cluster_run(cluster, SECOND);
    struct node_load *load = &cluster_node(cluster, (unsigned)leader)->loads[lagging];
    load->is_piece = true;
    load->ret_bytes = 0;
    atomic_store(&load->state, NODE_LOAD_READING);
    ck_assert(cluster_start(cluster, lagging));
    for (unsigned ms = 0; ms < 5000 && !load->dropped; ms++) cluster_run(cluster, CLUSTER_MS);
    ck_assert(load->dropped);
    atomic_store(&load->state, NODE_LOAD_DONE);
    ck_assert(cluster_run_until_level(cluster, 20 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, lagging), 500);
    cluster_close(cluster);
}
END_TEST

START_TEST(forwarded_request_that_says_more_than_is_known_here_is_refused)
{
    struct asker *a = ask_as_a_member(6, 0);
    uint64_t refused = cluster_node(a->cluster, 0)->frames_refused;
    static const unsigned places[] = {9, 10, 14}; /* the reserved ones, and the flags of a command */
    for (unsigned i = 0; i < 3; i++) {
        uint8_t request[48] = {[0] = 1, [8] = 1};
        request[places[i]] = 1;
        const struct transport_send send = {
            .slot = 0, .type = FRAME_FORWARD, .body = request, .body_bytes = sizeof request};
        ck_assert_int_eq(a->transport->ops->send(a->transport, &send), 0);
    }
    cluster_run(a->cluster, SECOND);
    ck_assert_uint_eq(cluster_node(a->cluster, 0)->frames_refused, refused + 3);
    asker_close(a);
}
END_TEST

/* The test leads by hand, and commits a block of a kind that comes with a later version. */
START_TEST(node_with_a_block_of_an_unknown_type_votes_and_does_not_lead) /* M5 */
{
    struct asker *a = ask_as_a_member(7, 0);
    struct node_status status;
    ck_assert(cluster_run_until_level(a->cluster, 10 * SECOND));
    struct node *node = cluster_node(a->cluster, 0);
    node_status_read(node, &status);
    const struct block_base own = ring_last(node->ring);
    raft_member asker = 0;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        if (strcmp(node->options.members[i].name, "n3") == 0) asker = node->slot_id[i];
    uint8_t block[BLOCK_HEADER_BYTES];
    struct block_header header = {.bytes = BLOCK_HEADER_BYTES,
                                  .type = 77,
                                  .index = own.index + 1,
                                  .term = status.raft.term + 1,
                                  .time_ns = own.time_ns,
                                  .first_position = own.next_position,
                                  .previous_crc = own.crc};
    block_seal(block, &header);
    for (unsigned i = 0; i < 2; i++) { /* node 1 does not hear that it is committed */
        struct node_status to;
        node_status_read(cluster_node(a->cluster, i), &to);
        const struct raft_message append = {.type = RAFT_APPEND,
                                            .from = asker,
                                            .to = to.identity.member_id,
                                            .term = header.term,
                                            .as.append = {.previous_index = own.index,
                                                          .previous_term = own.term,
                                                          .last_index = header.index,
                                                          .commit = own.index + (i == 0)}};
        const struct transport_send send = {
            .slot = i, .type = FRAME_RAFT, .message = &append, .blocks = block, .blocks_bytes = sizeof block};
        ck_assert_int_eq(a->transport->ops->send(a->transport, &send), 0);
    }
    bool led = false;
    for (unsigned ms = 0; ms < 8000; ms++) {
        cluster_run(a->cluster, CLUSTER_MS);
        node_status_read(cluster_node(a->cluster, 0), &status);
        if (ms > 100) ck_assert_int_ne(status.raft.role, RAFT_LEADER); /* before, the block was on its way */
        node_status_read(cluster_node(a->cluster, 1), &status);
        led |= status.raft.role == RAFT_LEADER; /* by node 0's vote; then it meets the block, and stands back too */
    }
    ck_assert(led);
    ck_assert(status.host.parked);
    ck_assert_int_ne(status.raft.role, RAFT_LEADER);
    asker_close(a);
}
END_TEST

START_TEST(malformed_questions_are_counted_and_many_are_answered_one_by_one)
{
    struct asker *a = ask_as_a_member(3, 0);
    uint64_t refused = cluster_node(a->cluster, 0)->frames_refused;
    struct name name = {.index = 5};
    send_bytes(a, 0, &name, sizeof name - 1);
    send_bytes(a, 0, NULL, 0);
    name.group = 1;
    send_bytes(a, 0, &name, sizeof name);
    name = (struct name){0};
    send_bytes(a, 0, &name, sizeof name);
    ck_assert(!receive(a, SECOND));
    ck_assert_uint_eq(cluster_node(a->cluster, 0)->frames_refused, refused + 4);
    cluster_crash(a->cluster, 0);
    ck_assert(cluster_start(a->cluster, 0)); /* its ring is empty: what is asked for is read from the log */
    cluster_run(a->cluster, SECOND);
    for (uint64_t index = 1; index <= 100; index++) {
        name = (struct name){.index = index};
        send_bytes(a, 0, &name, sizeof name);
    }
    unsigned answers = 0;
    while (receive(a, SECOND)) answers++;
    ck_assert(answers >= 1 && answers <= 100); /* newer questions took older ones' places */
    ck_assert_uint_eq(ask(a, 0, 7, 1), 0);
    asker_close(a);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, any_member_gives_any_block_by_its_name_also_without_a_leader);
    tcase_add_test(tests, block_that_is_not_held_under_that_name_is_said_to_be_missing);
    tcase_add_test(tests, leader_with_another_block_of_the_same_index_and_term_is_the_proof_of_damage);
    tcase_add_test(tests, load_that_found_another_one_running_is_asked_for_again);
    tcase_add_test(tests, forwarded_request_that_says_more_than_is_known_here_is_refused);
    tcase_add_test(tests, node_with_a_block_of_an_unknown_type_votes_and_does_not_lead);
    tcase_add_test(tests, malformed_questions_are_counted_and_many_are_answered_one_by_one);
}

int main(void)
{
    return unit_main("node blocks", add);
}
