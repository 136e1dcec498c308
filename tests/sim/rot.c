/* SPDX-License-Identifier: Apache-2.0 */
/* rot.c - bytes of a member's files change while it does not run (J7, T54): of one member at a time, so of a minority.
 * Its next start finds everything, asks the others for what is missing, or refuses. Where nobody else can help, somebody
 * brings the bytes back from a copy.
 * The journal's newest frames are left alone: what no later frame knows to have been flushed is a torn tail (J2), and a
 * power cut may take the newest one away. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "server/node_internal.h"
#include "storage/frame.h"
#include "storage/table.h"
#include "tests/sim/world.h"

enum { TRIES = 20, SECTOR_BYTES = 512 };

enum { ROT_JOURNAL = 1, ROT_BLOCK, ROT_STATE, ROT_SMALL_FILE };

static const char *const small_files[] = {"boot", "identity"};

/* Where its bytes lie now; NULL: there is no such place any more. */
static uint8_t *place(struct world *world, size_t *ret_bytes)
{
    const struct rot *rot = &world->rot;
    struct member *m = &world->members[rot->i];
    if (rot->where == ROT_BLOCK) return sim_kv_value(m->kv, TABLE_BLOCKS, rot->number, ret_bytes);
    if (rot->where == ROT_STATE) return sim_kv_value(m->kv, TABLE_STATE, rot->number, ret_bytes);
    char path[64];
    uint64_t bytes = 0;
    const char *name = rot->where == ROT_JOURNAL ? "journal" : small_files[rot->number];
    snprintf(path, sizeof path, "n%u/%s", rot->i + 1, name);
    uint8_t *at = sim_disk_bytes(m->disk, path, &bytes);
    *ret_bytes = (size_t)bytes;
    return at;
}

/* A frame that a later one of its boot knows to be flushed, and still will if a power cut takes the newest one. */
static bool pick_frame(struct world *world, const uint8_t *journal, size_t bytes, size_t *ret_at, size_t *ret_bytes)
{
    struct frame_header newest = {0}, frame;
    uint64_t count = 0;
    bool late = random_chance(&world->random, 1, 2); /* those hold what lies nowhere else */
    for (size_t at = FRAME_PAGE_BYTES; at < bytes; at += FRAME_PAGE_BYTES) {
        if (frame_header_read(journal + at, bytes - at, &frame) != 0) continue;
        if (frame.boot > newest.boot || (frame.boot == newest.boot && frame.seq > newest.seq)) newest = frame;
    }
    for (size_t at = FRAME_PAGE_BYTES; at < bytes; at += FRAME_PAGE_BYTES) {
        if (frame_header_read(journal + at, bytes - at, &frame) != 0) continue;
        if (frame.boot != newest.boot || frame.seq >= newest.flushed_seq) continue;
        bool last = late && frame.seq + 1 == newest.flushed_seq;
        if (!random_chance(&world->random, 1, ++count) && !last) continue; /* each as likely as the others */
        *ret_at = at;
        *ret_bytes = (size_t)frame_bytes(&frame);
        if (last) break;
    }
    return count > 0;
}

/* Which bytes: rot's place, offset and count. False: there is nothing to damage. */
static bool choose(struct world *world, struct member *m)
{
    struct rot *rot = &world->rot;
    size_t from = 0, bytes = 0, all = 0;
    uint64_t kind = random_below(&world->random, 20);
    rot->where = kind < 10 ? ROT_JOURNAL : kind < 18 ? ROT_BLOCK : kind < 19 ? ROT_STATE : ROT_SMALL_FILE;
    rot->number = rot->where == ROT_STATE ? 1 : rot->where == ROT_SMALL_FILE ? random_below(&world->random, 2) : 0;
    for (int tries = 0; rot->where == ROT_BLOCK && tries < TRIES && all == 0; tries++) {
        rot->number = 1 + random_below(&world->random, m->died_durable + 1);
        if (place(world, &all) == NULL) all = 0;
    }
    const uint8_t *at = place(world, &all);
    if (at == NULL || all == 0) return false;
    bytes = all;
    if (rot->where == ROT_JOURNAL && !pick_frame(world, at, all, &from, &bytes)) return false;
    rot->offset = from + random_below(&world->random, bytes);
    rot->count = 1;
    if (random_chance(&world->random, 1, 3)) {
        rot->offset -= rot->offset % SECTOR_BYTES;
        rot->count = SECTOR_BYTES;
    }
    if (rot->offset + rot->count > all) rot->count = (uint32_t)(all - rot->offset);
    return true;
}

void rot_happen(struct world *world, struct member *m, uint64_t until_ns)
{
    struct rot *rot = &world->rot;
    if (rot->on || m->id == 0 || !m->was_member || m->stopping) return;
    if (m->node != NULL) world_crash(world, m->i, random_chance(&world->random, 1, 2), until_ns);
    rot->i = m->i;
    if (m->died_term == 0 || !choose(world, m)) return;
    size_t all = 0;
    uint8_t *at = place(world, &all) + rot->offset;
    memcpy(rot->was, at, rot->count);
    for (uint32_t k = 0; k < rot->count; k++)
        at[k] ^= rot->count == 1 ? (uint8_t)(1u << random_below(&world->random, 8))
                                 : (uint8_t)random_below(&world->random, 256);
    memcpy(rot->is, at, rot->count);
    rot->on = true;
    rot->undo_ns = world->now_ns + random_between(&world->random, SIM_S, 20 * SIM_S);
    trace_event(&world->trace, world->now_ns, m->i, TRACE_ROT, rot->where, rot->number, rot->offset, rot->count);
}

bool rot_excuses(const struct member *m, int error)
{
    return m->world->rot.on && m->world->rot.i == m->i && (error == LOCKSTEP_ECORRUPT || error == LOCKSTEP_EVERSION);
}

void rot_undo(struct world *world)
{
    struct rot *rot = &world->rot;
    size_t all = 0;
    uint8_t *at = place(world, &all);
    /* What was given by others, or is written anew, stays. */
    if (at != NULL && rot->offset + rot->count <= all && memcmp(at + rot->offset, rot->is, rot->count) == 0)
        memcpy(at + rot->offset, rot->was, rot->count);
    trace_event(&world->trace, world->now_ns, rot->i, TRACE_ROT_UNDONE, rot->where);
    rot->on = false;
}

void rot_survived(struct member *m)
{
    struct world *world = m->world;
    if (!world->rot.on || world->rot.i != m->i) return;
    world->rot.on = false;
    world->repaired += m->node->repair.repaired;
}

void rot_work(struct world *world)
{
    struct rot *rot = &world->rot;
    if (!rot->on || rot->undo_ns > world->now_ns) return;
    struct member *m = &world->members[rot->i];
    rot->undo_ns = world->now_ns + SIM_S;
    if (m->node == NULL) return; /* it has not seen it yet */
    world_crash(world, m->i, false, world->now_ns + random_between(&world->random, SIM_MS, 500 * SIM_MS));
    rot_undo(world);
}

void rot_end(struct world *world)
{
    struct rot *rot = &world->rot;
    if (!rot->on) return;
    if (world->members[rot->i].node != NULL) world_crash(world, rot->i, false, world->now_ns + SIM_MS);
    rot_undo(world);
}
