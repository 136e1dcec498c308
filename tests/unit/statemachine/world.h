/* SPDX-License-Identifier: Apache-2.0 */
/* world.h - a host and what is around it: the real ring, a log that can be told to fail, a machine that does what its
 * commands say, and doorbells that are counted.
 * Thread: the functions here are the loop's; host_work() may run on another thread.
 *
 * The probe machine. A command's first byte says what to do, the rest is its text:
 *     e OK, the text      r REJECT 7, the text    n no answer             b OK, as many bytes as the text says
 *     F FATAL             P POISON                U an unknown outcome    E apply returns -3
 *     2 answers twice     c OK with a code        0 REJECT without one    L a reply that is too long
 *     N NULL as a reply   q apply returns early   a answers too late      h waits for probe_release()
 * A query: count (commands applied) · echo:TEXT · r REJECT 7 · E returns -1 · 2 answers twice · F FATAL · n no answer
 * · L too long · b the longest reply */
#ifndef LOCKSTEP_TESTS_UNIT_STATEMACHINE_WORLD_H
#define LOCKSTEP_TESTS_UNIT_STATEMACHINE_WORLD_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "statemachine/host.h"
#include "storage/ring.h"

enum { WORLD_BLOCKS_MAX = 65536, PROBE_SEEN_MAX = 8192 };

/* What stands in for storage: blocks in malloc'ed copies, at odd addresses. */
struct storage {
    struct ring *ring;
    uint8_t *blocks[WORLD_BLOCKS_MAX]; /* by index */
    _Atomic raft_index stored;
    raft_index fail_index; /* this one cannot be read: */
    int fail_error;
    unsigned readers;
};

struct probe_seen {
    raft_index index;
    log_position position;
    uint64_t term, time_ns, session, seq, entity;
    const uint8_t *payload;
    size_t payload_bytes;
};

struct probe {
    uint64_t applied, batches;
    struct lockstep_hash hash;
    struct probe_seen seen[PROBE_SEEN_MAX]; /* the first ones */
    const struct lockstep_host *host;
    bool fails_at_once;   /* apply returns an error before it takes a command */
    void (*at_end)(void); /* called when next has returned NULL, if set */
};

struct world {
    struct storage storage;
    struct plugin plugin;
    struct host_options options;
    struct host *host;
    struct block_base last;
    struct block_header open; /* the block being written */
    uint8_t *claim;
    uint32_t claim_bytes;
    uint64_t session, seq, entity; /* of the next command */
    uint16_t kind;
    _Atomic unsigned loop_wakes, machine_wakes;
    sem_t machine_bell; /* posted with machine_wakes */
    char log[8192];     /* all lines */
};

/* Sets everything up but the host; change world->options before world_start(). */
void world_open(struct world *world, uint64_t ring_bytes);
void world_start(struct world *world);
void world_close(struct world *world);

/* The machine inside. */
struct probe *world_probe(void);
void probe_release(void);       /* lets one h go on */
void probe_await_hanging(void); /* until one h hangs */

/* Write a block of up to `bytes`. False: the ring is full. */
bool block_try_begin(struct world *world, uint32_t bytes);
void block_begin(struct world *world);
void block_add(struct world *world, const char *text);
void block_add_bytes(struct world *world, const void *payload, uint32_t bytes);
raft_index block_end(struct world *world, uint16_t type);
/* One block with these commands. */
#define block(world, ...) block_of(world, (const char *const[]){__VA_ARGS__, NULL})
raft_index block_of(struct world *world, const char *const *commands);
raft_index block_empty(struct world *world, uint16_t type);

/* Blocks up to index go to the log, and the ring's head may pass them. */
void world_store(struct world *world, raft_index index);
/* The ring gives up what is stored. */
void world_flush_ring(struct world *world);
/* Write large blocks, and store them, for two laps of the ring: nothing is pinned. */
void world_fill_ring(struct world *world);
void world_commit(struct world *world);  /* all blocks */
unsigned world_run(struct world *world); /* host_work until it has nothing to do; returns how often */
struct host_status world_status(struct world *world);

#endif
