/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_observers.c - what whole nodes answer to questions for old blocks. Who asks is the test, where the transport
 * would bring an observer's question. */
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"
#include "tests/unit/server/nodes.h"

static struct {
    bool asked, answered;
    struct transport_question question;
    uint8_t packet[LOCAL_ANSWER_BYTES_MAX];
    size_t bytes;
    struct local_answer answer;
} observer;

static struct transport_ops ops;

static bool asked(struct transport *t, struct transport_question *ret)
{
    (void)t;
    if (!observer.asked) return false;
    observer.asked = false;
    *ret = observer.question;
    return true;
}

static void answer(struct transport *t, uint64_t ticket, const void *packet, size_t bytes)
{
    (void)t;
    ck_assert_uint_eq(ticket, observer.question.ticket);
    ck_assert(!observer.answered);
    ck_assert_int_eq(local_answer_read(packet, bytes, &observer.answer), 0);
    ck_assert_uint_eq(observer.answer.number, observer.question.ask.number);
    memcpy(observer.packet, packet, bytes);
    observer.bytes = bytes - LOCAL_ANSWER_BYTES;
    observer.answered = true;
}

/* One node with `count` commands of payload_bytes, all in the log. */
static struct cluster *with_log(uint64_t seed, unsigned count, uint32_t payload_bytes, uint64_t snapshot_after_bytes)
{
    const struct cluster_options options = {.nodes = 1,
                                            .seed = unit_seed(seed),
                                            .payload_bytes = payload_bytes,
                                            .snapshot_after_bytes = snapshot_after_bytes};
    struct cluster *cluster = cluster_open(&options);
    ck_assert(cluster_start(cluster, 0));
    ck_assert_int_eq(cluster_run_until_writable(cluster, 10 * SECOND), 0);
    for (unsigned k = 0; k < count; k++) {
        cluster_propose(cluster, 0, false);
        if (k % 3 == 2) cluster_run(cluster, CLUSTER_MS);
    }
    ck_assert(cluster_run_until_level(cluster, 10 * SECOND));
    cluster_run(cluster, SECOND); /* stored, compacted */
    struct transport *transport = cluster_node(cluster, 0)->transport;
    ops = *transport->ops;
    ops.asked = asked;
    ops.answer = answer;
    transport->ops = &ops;
    return cluster;
}

static int ask(struct cluster *cluster, const struct local_ask *question)
{
    observer.question.ask = *question;
    observer.question.ask.number = ++observer.question.ticket;
    observer.asked = true;
    observer.answered = false;
    for (unsigned ms = 0; ms < 2000 && !observer.answered; ms++) cluster_run(cluster, CLUSTER_MS);
    ck_assert(observer.answered);
    return observer.answer.error;
}

static int ask_position(struct cluster *cluster, log_position position)
{
    return ask(cluster, &(struct local_ask){.position = position});
}

static int ask_index(struct cluster *cluster, raft_index index, uint32_t offset)
{
    return ask(cluster, &(struct local_ask){.index = index, .offset = offset});
}

/* The first block of the answer; whole. */
static struct block_header first_block(void)
{
    struct block_header header;
    const uint8_t *block = observer.packet + LOCAL_ANSWER_BYTES;
    ck_assert_int_eq(block_header_read(block, observer.bytes, &header), 0);
    ck_assert_uint_le(header.bytes, observer.bytes);
    ck_assert_int_eq(block_body_check(block, &header), 0);
    ck_assert_uint_eq(header.index, observer.answer.index);
    return header;
}

static struct storage_status storage_of(struct cluster *cluster)
{
    struct storage_status status;
    storage_status_read(cluster_node(cluster, 0)->storage, &status);
    return status;
}

START_TEST(the_log_is_told_from_any_position_to_its_end)
{
    struct cluster *cluster = with_log(1, 900, 100, 0); /* more than a packet takes */
    struct storage_status status = storage_of(cluster);
    uint64_t told = 0;
    for (log_position position = 1; position <= 900; position += 1 + position / 6) {
        struct block_base base = {0};
        ck_assert_int_eq(ask_position(cluster, position), 0);
        struct block_header header = first_block();
        raft_index first = header.index - 1;
        ck_assert_uint_le(header.first_position, position);
        ck_assert_uint_gt(block_base_after(&header).next_position, position);
        while (base.index < status.stored) { /* packet after packet, each of whole blocks that chain */
            size_t at = 0;
            while (at < observer.bytes) {
                const uint8_t *block = observer.packet + LOCAL_ANSWER_BYTES + at;
                ck_assert_int_eq(block_header_read(block, observer.bytes - at, &header), 0);
                ck_assert_int_eq(block_body_check(block, &header), 0);
                if (base.index != 0) ck_assert_int_eq(block_chain_check(&base, &header), 0);
                base = block_base_after(&header);
                at += header.bytes;
            }
            ck_assert_uint_eq(at, observer.bytes);
            if (base.index < status.stored) ck_assert_int_eq(ask_index(cluster, base.index + 1, 0), 0);
        }
        ck_assert_uint_eq(base.index, status.stored);
        told += status.stored - first;
    }
    ck_assert_uint_eq(status_of(cluster, 0).counters.observer_blocks, told);
    cluster_close(cluster);
}
END_TEST

START_TEST(what_is_above_the_log_is_in_the_ring)
{
    struct cluster *cluster = with_log(2, 50, 100, 0);
    struct storage_status status = storage_of(cluster);
    ck_assert_int_eq(ask_index(cluster, status.stored + 1, 0), LOCKSTEP_ENOTFOUND);
    ck_assert_uint_eq(observer.answer.index, status.stored);
    ck_assert_int_eq(ask_index(cluster, UINT64_MAX, UINT32_MAX), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(ask_position(cluster, 51), LOCKSTEP_ENOTFOUND);
    ck_assert_uint_eq(observer.answer.index, status.stored);
    ck_assert_int_eq(ask_position(cluster, UINT64_MAX), LOCKSTEP_ENOTFOUND);
    ck_assert_int_eq(ask_position(cluster, 50), 0);
    cluster_close(cluster);
}
END_TEST

START_TEST(what_is_compacted_is_refused_with_the_oldest_position)
{
    struct cluster *cluster = with_log(3, 400, 1000, 65536);
    struct storage_status status = storage_of(cluster);
    ck_assert_uint_gt(status.base, 1);
    ck_assert_uint_lt(status.base, status.stored);
    ck_assert_int_eq(ask_index(cluster, status.base + 1, 0), 0);
    log_position oldest = first_block().first_position;
    ck_assert_uint_gt(oldest, 1);
    const raft_index indexes[] = {1, status.base - 1, status.base};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(ask_index(cluster, indexes[i], 0), LOCKSTEP_EGONE);
        ck_assert_uint_eq(observer.answer.oldest, oldest);
    }
    const log_position positions[] = {1, oldest / 2, oldest - 1};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(ask_position(cluster, positions[i]), LOCKSTEP_EGONE);
        ck_assert_uint_eq(observer.answer.oldest, oldest);
    }
    ck_assert_int_eq(ask_position(cluster, oldest), 0);
    ck_assert_uint_eq(first_block().first_position, oldest);
    cluster_close(cluster);
}
END_TEST

START_TEST(a_block_larger_than_a_packet_comes_in_parts_and_never_from_behind_its_end)
{
    struct cluster *cluster = with_log(4, 9, 60000, 0);
    struct storage_status status = storage_of(cluster);
    uint8_t *block = malloc(BLOCK_BYTES_MAX);
    ck_assert_ptr_nonnull(block);
    struct block_header header;
    bool larger = false;
    for (raft_index index = 1; index <= status.stored; index++) {
        uint64_t told = status_of(cluster, 0).counters.observer_blocks;
        size_t have = 0;
        do {
            ck_assert_int_eq(ask_index(cluster, index, (uint32_t)have), 0);
            ck_assert_uint_eq(observer.answer.offset, have);
            memcpy(block + have, observer.packet + LOCAL_ANSWER_BYTES, observer.bytes);
            have += observer.bytes;
            ck_assert_int_eq(block_header_read(block, have, &header), 0);
            ck_assert_uint_eq(status_of(cluster, 0).counters.observer_blocks > told, have >= header.bytes);
        } while (have < header.bytes);
        ck_assert_int_eq(block_body_check(block, &header), 0);
        larger = larger || header.bytes > LOCAL_ANSWER_BYTES_MAX;
        ck_assert_int_eq(ask_index(cluster, index, header.bytes), LOCKSTEP_EINVAL);
        ck_assert_int_eq(ask_index(cluster, index, UINT32_MAX), LOCKSTEP_EINVAL);
        ck_assert_int_eq(ask_index(cluster, index, header.bytes - 1), 0);
        ck_assert_uint_eq(observer.bytes, 1);
    }
    ck_assert(larger);
    free(block);
    cluster_close(cluster);
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, the_log_is_told_from_any_position_to_its_end);
    tcase_add_test(tests, what_is_above_the_log_is_in_the_ring);
    tcase_add_test(tests, what_is_compacted_is_refused_with_the_oldest_position);
    tcase_add_test(tests, a_block_larger_than_a_packet_comes_in_parts_and_never_from_behind_its_end);
}

int main(void)
{
    return unit_main("node observers", add);
}
