/* SPDX-License-Identifier: Apache-2.0 */
/* test_node_repair.c - whole nodes whose journal or log is damaged: blocks come back from the others (J7, T53, T54). */
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "storage/frame.h"
#include "tests/unit/server/nodes.h"

static struct cluster *start(uint64_t seed)
{
    return nodes_start(
        &(struct cluster_options){.nodes = 3, .seed = seed, .ring_bytes = 1 << 20, .payload_bytes = 300});
}

static void propose(struct cluster *cluster, unsigned count)
{
    unsigned leader = leader_of(cluster);
    for (unsigned k = 0; k < count; k++) {
        cluster_propose(cluster, leader, false);
        if (k % 4 == 3) cluster_run(cluster, CLUSTER_MS);
    }
    cluster_run(cluster, 100 * CLUSTER_MS);
}

START_TEST(damaged_block_of_the_log_comes_back_from_another_node) /* J7 */
{
    struct cluster *cluster = start(unit_seed(41));
    propose(cluster, 200);
    cluster_run(cluster, SECOND);
    unsigned hurt = (leader_of(cluster) + 1) % 3;
    raft_index stored = status_of(cluster, hurt).storage.stored;
    cluster_crash(cluster, hurt);
    for (raft_index index = 3; index < stored; index += 5) cluster_damage(cluster, hurt, index);
    cluster_damage(cluster, hurt, stored); /* the last one, by the state record's name */
    propose(cluster, 20);
    ck_assert_msg(cluster_start(cluster, hurt), "%s", cluster_why(cluster));
    ck_assert(!status_of(cluster, hurt).ready);
    ck_assert_ptr_nonnull(strstr(status_of(cluster, hurt).not_ready, "is damaged"));
    ck_assert(cluster_run_until_level(cluster, 60 * SECOND));
    ck_assert_uint_eq(cluster_applied_count(cluster, hurt), 220);
    cluster_check(cluster);
    cluster_crash(cluster, hurt);
    ck_assert(cluster_start(cluster, hurt));
    ck_assert(status_of(cluster, hurt).born); /* at once: nothing is missing any more */
    cluster_close(cluster);
}
END_TEST

START_TEST(who_waits_for_a_block_neither_votes_nor_leads) /* J7 */
{
    struct cluster *cluster = start(unit_seed(42));
    propose(cluster, 50);
    cluster_run(cluster, SECOND);
    for (unsigned i = 0; i < 3; i++) cluster_crash(cluster, i);
    for (unsigned i = 0; i < 2; i++) cluster_damage(cluster, i, 7);
    ck_assert(cluster_start(cluster, 0) && cluster_start(cluster, 1));
    ck_assert_int_eq(cluster_run_until_writable(cluster, 10 * SECOND),
                     -1); /* a majority runs, and cannot read its log */
    for (unsigned i = 0; i < 2; i++) ck_assert(!status_of(cluster, i).born);
    ck_assert(cluster_start(cluster, 2));
    leader_of(cluster);
    ck_assert(cluster_run_until_level(cluster, 60 * SECOND));
    for (unsigned i = 0; i < 3; i++) ck_assert_uint_eq(cluster_applied_count(cluster, i), 50);
    cluster_check(cluster);
    cluster_close(cluster);
}
END_TEST

/* A place of what frames were written to, as far as the first pages that were never. */
static void damage_journal(struct cluster *cluster, unsigned i, struct random *dice)
{
    uint64_t bytes, end = FRAME_PAGE_BYTES;
    uint8_t *file = cluster_file(cluster, i, "journal", &bytes);
    while (end < bytes && file[end] != 0) end += FRAME_PAGE_BYTES;
    uint64_t at = FRAME_PAGE_BYTES + random_below(dice, end - FRAME_PAGE_BYTES);
    uint64_t length = random_chance(dice, 1, 2) ? 1 : 512;
    if (length > 1) at &= ~UINT64_C(511);
    for (uint64_t k = 0; k < length; k++) file[at + k] ^= (uint8_t)(1 + random_below(dice, 255));
}

START_TEST(damage_on_a_minority_is_repaired_or_named) /* J7 */
{
    uint64_t seed = unit_seed(0x3a37), named = 0, waited = 0, rounds = unit_rounds(60);
    for (uint64_t round = 0; round < rounds; round++) {
        struct cluster *cluster = start(seed + round);
        struct random dice;
        random_seed(&dice, seed ^ round);
        propose(cluster, 20 + (unsigned)random_below(&dice, 100));
        cluster_run(cluster, random_below(&dice, 300) * CLUSTER_MS);
        unsigned hurt = (unsigned)random_below(&dice, 3);
        propose(cluster, 1 + (unsigned)random_below(&dice, 40));
        raft_index stored = status_of(cluster, hurt).storage.stored;
        cluster_crash(cluster, hurt);
        if (stored > 0 && random_chance(&dice, 1, 3))
            cluster_damage(cluster, hurt, 1 + random_below(&dice, stored));
        else
            damage_journal(cluster, hurt, &dice);
        propose(cluster, 10);
        if (!cluster_start(cluster, hurt)) {
            ck_assert_msg(strstr(cluster_why(cluster), "member replace") != NULL, "%s", cluster_why(cluster));
            named++;
        } else {
            waited += !status_of(cluster, hurt).born;
            ck_assert_msg(cluster_run_until_level(cluster, 60 * SECOND), "round %lu: %s", (unsigned long)round,
                          cluster_runs(cluster, hurt) ? status_of(cluster, hurt).not_ready : cluster_why(cluster));
            ck_assert(cluster_runs(cluster, hurt));
        }
        cluster_check(cluster);
        cluster_close(cluster);
    }
    printf("%lu damages: %lu repaired by the others, %lu named\n", (unsigned long)rounds, (unsigned long)waited,
           (unsigned long)named);
    if (rounds >= 60) ck_assert_uint_gt(waited, 0); /* a few may all be harmless */
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, damaged_block_of_the_log_comes_back_from_another_node);
    tcase_add_test(tests, who_waits_for_a_block_neither_votes_nor_leads);
    tcase_add_test(tests, damage_on_a_minority_is_repaired_or_named);
}

int main(void)
{
    return unit_main("node repair", add);
}
