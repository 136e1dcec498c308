/* SPDX-License-Identifier: Apache-2.0 */
/* world.c - see world.h. */
#include "tests/unit/statemachine/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/log.h"

/* --- the log --- */

struct storage_reader {
    struct storage *storage;
    bool reading;
};

struct ring *storage_ring(struct storage *storage)
{
    return storage->ring;
}

int storage_reader_open(struct storage *storage, struct storage_reader **ret)
{
    struct storage_reader *reader = calloc(1, sizeof *reader);
    lk_assert(reader != NULL);
    reader->storage = storage;
    storage->readers++;
    *ret = reader;
    return 0;
}

void storage_reader_close(struct storage_reader *reader)
{
    if (reader == NULL) return;
    lk_assert(!reader->reading);
    reader->storage->readers--;
    free(reader);
}

int storage_read(struct storage_reader *reader, raft_index index, const uint8_t **ret_block,
                 struct block_header *ret_header)
{
    struct storage *storage = reader->storage;
    if (index == storage->fail_index) return storage->fail_error;
    if (index > atomic_load(&storage->stored)) return LOCKSTEP_ENOTFOUND;
    const uint8_t *block = storage->blocks[index];
    int rc = block_header_read(block, BLOCK_BYTES_MAX, ret_header);
    if (rc != 0) return rc;
    reader->reading = true;
    *ret_block = block;
    return block_body_check(block, ret_header);
}

void storage_read_end(struct storage_reader *reader)
{
    reader->reading = false;
}

/* --- the machine --- */

static struct probe probe;
static sem_t probe_hangs, probe_goes_on;
static char longest[LOCKSTEP_REPLY_BYTES_MAX + 1];

struct probe *world_probe(void)
{
    return &probe;
}

void probe_release(void)
{
    sem_post(&probe_goes_on);
}

void probe_await_hanging(void)
{
    sem_wait(&probe_hangs);
}

static int probe_open(const struct lockstep_host *host, void **ret_machine)
{
    memset(&probe, 0, sizeof probe);
    memset(longest, 'b', sizeof longest);
    probe.host = host;
    *ret_machine = &probe;
    return 0;
}

static void probe_close(void *machine)
{
    lk_assert(machine == &probe);
}

static void say(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code, const char *text,
                size_t bytes)
{
    replies->answer(replies, outcome, code, text, bytes);
}

static void probe_take(const struct lockstep_command *command)
{
    if (probe.applied < PROBE_SEEN_MAX)
        probe.seen[probe.applied] = (struct probe_seen){
            .index = command->index,
            .position = command->position,
            .term = command->term,
            .time_ns = command->time_ns,
            .session = command->session,
            .seq = command->seq,
            .entity = command->entity,
            .payload = command->payload,
            .payload_bytes = command->payload_bytes,
        };
    probe.applied++;
    for (size_t i = 0; i < command->payload_bytes; i++)
        probe.hash.low = (probe.hash.low ^ command->payload[i]) * UINT64_C(0x100000001b3);
    probe.hash.high += command->position;
}

static int probe_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    lk_assert(machine == &probe);
    lk_assert(batch->size == sizeof *batch);
    lk_assert(replies->size == sizeof *replies);
    probe.batches++;
    if (probe.fails_at_once) return -1;
    const struct lockstep_command *command;
    while ((command = batch->next(batch)) != NULL) {
        lk_assert(command->size == sizeof *command);
        probe_take(command);
        char text[64] = "";
        memcpy(text, command->payload, command->payload_bytes < 63 ? command->payload_bytes : 63);
        const char *rest = (const char *)command->payload + 1;
        size_t bytes = command->payload_bytes - 1;
        switch (command->payload_bytes > 0 ? command->payload[0] : 'n') {
        case 'e': say(replies, LOCKSTEP_OK, 0, rest, bytes); break;
        case 'r': say(replies, LOCKSTEP_REJECT, 7, rest, bytes); break;
        case 'n': break;
        case 'b': say(replies, LOCKSTEP_OK, 0, longest, strtoul(text + 1, NULL, 10)); break;
        case 'F': say(replies, LOCKSTEP_FATAL, 42, "out of memory", 13); break;
        case 'P': say(replies, LOCKSTEP_POISON, 0, NULL, 0); break;
        case 'U': say(replies, (enum lockstep_outcome)99, 0, NULL, 0); break;
        case 'E': return -3;
        case '2':
            say(replies, LOCKSTEP_OK, 0, "1", 1);
            say(replies, LOCKSTEP_OK, 0, "2", 1);
            break;
        case 'c': say(replies, LOCKSTEP_OK, 1, NULL, 0); break;
        case '0': say(replies, LOCKSTEP_REJECT, 0, NULL, 0); break;
        case 'L': say(replies, LOCKSTEP_OK, 0, longest, LOCKSTEP_REPLY_BYTES_MAX + 1); break;
        case 'N': say(replies, LOCKSTEP_OK, 0, NULL, 5); break;
        case 'q': return 0;
        case 'a':
            while (batch->next(batch) != NULL) continue;
            say(replies, LOCKSTEP_OK, 0, "late", 4);
            return 0;
        case 'h':
            sem_post(&probe_hangs);
            sem_wait(&probe_goes_on);
            say(replies, LOCKSTEP_OK, 0, NULL, 0);
            break;
        default: lk_unreachable();
        }
    }
    if (probe.at_end != NULL) probe.at_end();
    return 0;
}

static int probe_query(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                       struct lockstep_replies *replies)
{
    char text[32] = "";
    lk_assert(machine == &probe);
    memcpy(text, query, query_bytes < 31 ? query_bytes : 31);
    if (strcmp(text, "count") == 0) {
        int count = snprintf(text, sizeof text, "%llu", (unsigned long long)probe.applied);
        say(replies, LOCKSTEP_OK, 0, text, (size_t)count);
    } else if (strncmp(text, "echo:", 5) == 0) {
        say(replies, LOCKSTEP_OK, 0, (const char *)query + 5, query_bytes - 5);
    } else if (text[0] == 'r') {
        int count = snprintf(text, sizeof text, "entity %llu", (unsigned long long)entity);
        say(replies, LOCKSTEP_REJECT, 7, text, (size_t)count);
    } else if (text[0] == 'E') {
        say(replies, LOCKSTEP_OK, 0, "ignored", 7);
        return -1;
    } else if (text[0] == '2') {
        say(replies, LOCKSTEP_OK, 0, "1", 1);
        say(replies, LOCKSTEP_OK, 0, "2", 1);
    } else if (text[0] == 'F') {
        say(replies, LOCKSTEP_FATAL, 0, NULL, 0);
    } else if (text[0] == 'L') {
        say(replies, LOCKSTEP_OK, 0, longest, LOCKSTEP_REPLY_BYTES_MAX + 1);
    } else if (text[0] == 'b') {
        say(replies, LOCKSTEP_OK, 0, longest, LOCKSTEP_REPLY_BYTES_MAX);
    } else {
        lk_assert(text[0] == 'n');
    }
    return 0;
}

static struct lockstep_hash probe_hash(void *machine)
{
    lk_assert(machine == &probe);
    return probe.hash;
}

/* --- the world --- */

static void wake_loop(void *context)
{
    struct world *world = context;
    world->loop_wakes++;
}

static void wake_machine(void *context)
{
    struct world *world = context;
    world->machine_wakes++;
    sem_post(&world->machine_bell);
}

static void log_line(void *context, const char *line)
{
    struct world *world = context;
    size_t used = strlen(world->log);
    snprintf(world->log + used, sizeof world->log - used, "%s\n", line);
}

void world_open(struct world *world, uint64_t ring_bytes)
{
    memset(world, 0, sizeof *world);
    struct ring_options ring_options = {.bytes = ring_bytes, .block_bytes_max = (uint32_t)(ring_bytes / 4)};
    int rc = ring_open(&ring_options, &world->storage.ring);
    lk_assert(rc == 0);
    world->last = (struct block_base){.next_position = 1};
    sem_init(&probe_hangs, 0, 0);
    sem_init(&probe_goes_on, 0, 0);
    sem_init(&world->machine_bell, 0, 0);
    world->plugin = (struct plugin){
        .machine =
            {
                .size = sizeof world->plugin.machine,
                .abi = LOCKSTEP_MACHINE_ABI,
                .name = "probe",
                .version = "1",
                .open = probe_open,
                .close = probe_close,
                .apply = probe_apply,
                .query = probe_query,
                .hash = probe_hash,
            },
        .name = "probe",
        .version = "1",
    };
    world->options = (struct host_options){
        .plugin = &world->plugin,
        .storage = &world->storage,
        .start_index = 1,
        .replies_bytes = HOST_REPLIES_BYTES_MIN,
        .queries_bytes = 4096,
        .batch_bytes_max = 1 << 20,
        .sessions = {.window = 8, .sessions_max = 16, .replies_bytes = 1 << 16, .expiry_ns = 100000},
        .wake_loop = wake_loop,
        .wake_machine = wake_machine,
        .log = log_line,
        .context = world,
    };
}

void world_start(struct world *world)
{
    int rc = host_open(&world->options, &world->host);
    lk_assert(rc == 0);
}

void world_close(struct world *world)
{
    host_close(world->host);
    lk_assert(world->storage.readers == 0);
    ring_close(world->storage.ring);
    for (raft_index i = 1; i < WORLD_BLOCKS_MAX; i++)
        if (world->storage.blocks[i] != NULL) free(world->storage.blocks[i] - 1);
    sem_destroy(&world->machine_bell);
}

bool block_try_begin(struct world *world, uint32_t bytes)
{
    if (ring_claim(world->storage.ring, bytes, &world->claim) != 0) return false;
    world->claim_bytes = bytes;
    world->open = (struct block_header){
        .bytes = BLOCK_HEADER_BYTES,
        .type = BLOCK_COMMANDS,
        .index = world->last.index + 1,
        .term = 3,
        .time_ns = 1000 * (world->last.index + 1),
        .first_position = world->last.next_position,
        .previous_crc = world->last.crc,
    };
    return true;
}

void block_begin(struct world *world)
{
    bool claimed = block_try_begin(world, 4096);
    lk_assert(claimed);
}

void block_add_bytes(struct world *world, const void *payload, uint32_t bytes)
{
    struct command_header command = {
        .bytes = bytes, .kind = world->kind, .session = world->session, .seq = world->seq, .entity = world->entity};
    lk_assert(world->open.bytes + command_bytes(bytes) <= world->claim_bytes);
    world->open.bytes += (uint32_t)command_write(world->claim + world->open.bytes, &command, payload);
    world->open.count++;
}

void block_add(struct world *world, const char *text)
{
    block_add_bytes(world, text, (uint32_t)strlen(text));
}

raft_index block_end(struct world *world, uint16_t type)
{
    world->open.type = type;
    block_seal(world->claim, &world->open);
    ring_publish(world->storage.ring, &world->open);
    world->last = block_base_after(&world->open);
    return world->open.index;
}

raft_index block_of(struct world *world, const char *const *commands)
{
    block_begin(world);
    for (; *commands != NULL; commands++) block_add(world, *commands);
    return block_end(world, BLOCK_COMMANDS);
}

raft_index block_empty(struct world *world, uint16_t type)
{
    block_begin(world);
    return block_end(world, type);
}

void world_store(struct world *world, raft_index index)
{
    struct storage *storage = &world->storage;
    ring_commit(storage->ring, index);
    for (raft_index i = atomic_load(&storage->stored) + 1; i <= index; i++) {
        struct ring_slot slot;
        int rc = ring_find(storage->ring, i, &slot);
        lk_assert(rc == 0);
        lk_assert(i < WORLD_BLOCKS_MAX);
        uint8_t *copy = malloc(slot.bytes + 1);
        lk_assert(copy != NULL);
        storage->blocks[i] = copy + 1;
        memcpy(copy + 1, ring_at(storage->ring, slot.pos), slot.bytes);
        atomic_store(&storage->stored, i);
    }
    ring_release(storage->ring, index);
}

void world_flush_ring(struct world *world)
{
    struct ring_status status;
    struct ring_slot slot;
    ring_status_read(world->storage.ring, &status);
    (void)ring_room(world->storage.ring, status.bytes);
    lk_assert(ring_find(world->storage.ring, 1, &slot) == LOCKSTEP_ENOTFOUND);
}

void world_fill_ring(struct world *world)
{
    static uint8_t payload[100000];
    struct ring_status status;
    ring_status_read(world->storage.ring, &status);
    for (uint64_t bytes = 0; bytes < 2 * status.bytes; bytes += sizeof payload) {
        bool claimed = block_try_begin(world, sizeof payload + 200);
        lk_assert(claimed);
        block_add_bytes(world, payload, sizeof payload);
        world_store(world, block_end(world, BLOCK_COMMANDS));
    }
}

void world_commit(struct world *world)
{
    ring_commit(world->storage.ring, world->last.index);
    host_commit(world->host, world->last.index);
}

unsigned world_run(struct world *world)
{
    unsigned steps = 1;
    while (host_work(world->host)) {
        steps++;
        lk_assert(steps < 100000);
    }
    return steps;
}

struct host_status world_status(struct world *world)
{
    struct host_status status;
    host_status_read(world->host, &status);
    return status;
}
