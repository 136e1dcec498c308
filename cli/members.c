/* SPDX-License-Identifier: Apache-2.0 */
/* members.c - what follows from what the members say: who leads, how many may be lost, whether states differ.
 * Pure; see members.h. */
#include "cli/members.h"

#include <inttypes.h>
#include <string.h>

/* The leader of the highest term. An old one that does not know of its end says leader, too, with a lower term. */
static const struct member_view *find_leader(const struct members *members)
{
    const struct member_view *leader = NULL;
    uint64_t term = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member_view *m = &members->members[i];
        if (!m->reachable) continue;
        if (m->status.term > term) term = m->status.term;
        if (strcmp(m->status.role, "leader") != 0) continue;
        if (leader == NULL || m->status.term > leader->status.term) leader = m;
    }
    return leader != NULL && leader->status.term == term ? leader : NULL;
}

/* Voters that the leader hears now, itself included, minus the majority that has to remain. */
static uint32_t count_may_lose(const struct members *members)
{
    if (members->leader == NULL) return 0;
    const struct lockstep_status *s = &members->leader->status;
    uint32_t voters = 0, alive = 0;
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct lockstep_member *m = &s->members[i];
        if (!m->voter) continue;
        voters++;
        if (m->connected || strcmp(m->name, s->name) == 0) alive++;
    }
    uint32_t majority = voters / 2 + 1;
    return alive > majority ? alive - majority : 0;
}

static bool differ(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes)
{
    if (a_bytes == 0 || b_bytes == 0) return false; /* a machine without a hash */
    return a_bytes != b_bytes || memcmp(a, b, a_bytes) != 0;
}

static void set_aside_if_foreign(struct member_view *m, uint64_t cluster_id)
{
    if (!m->reachable || m->status.cluster_id == cluster_id || m->status.cluster_id == 0 || cluster_id == 0) return;
    m->reachable = false;
    snprintf(m->trouble, sizeof m->trouble, "%s answers for another cluster, %s (%016" PRIx64 ")", m->listed.client,
             m->status.cluster, m->status.cluster_id);
}

void members_judge(struct members *members, uint64_t cluster_id)
{
    for (uint32_t i = 0; i < members->count; i++) set_aside_if_foreign(&members->members[i], cluster_id);
    members->leader = find_leader(members);
    members->may_lose = count_may_lose(members);
    members->diverged[0] = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        for (uint32_t j = i + 1; j < members->count; j++) {
            const struct lockstep_status *a = &members->members[i].status, *b = &members->members[j].status;
            if (!members->members[i].reachable || !members->members[j].reachable) continue;
            if (a->hash_index != b->hash_index || a->hash_index == 0) continue;
            const char *what = NULL;
            if (differ(a->reply_hash, a->reply_hash_bytes, b->reply_hash, b->reply_hash_bytes)) what = "replies";
            if (differ(a->state_hash, a->state_hash_bytes, b->state_hash, b->state_hash_bytes)) what = "states";
            if (what == NULL || members->diverged[0] != 0) continue;
            snprintf(members->diverged, sizeof members->diverged, "the %s of %s and %s differ at index %" PRIu64, what,
                     a->name, b->name, a->hash_index);
        }
    }
}
