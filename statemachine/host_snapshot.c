/* SPDX-License-Identifier: Apache-2.0 */
/* host_snapshot.c - the replicated state as bytes: taken at a block's end, read into a machine of its own, put in place.
 * Thread: marked in host.h. Owns: the frozen state, the state that waits to replace the machine's.
 *
 *   a snapshot   head (168 bytes), then sections, each {kind u32, zero u32} and runs {bytes u32, bytes} up to a run of 0:
 *                configuration {index u64, body} · sessions · machine · end
 *   head         0 magic u32  4 crc u32 (bytes 8..)  8 version u32  12 flags u32 (1: the machine has a hash)
 *               16 index  24 term  32 next_position  40 time_ns  48 block crc u32  52 crc u32 of configuration and sessions
 *               56 state hash  72 sessions' hash  88 reply hash: two u64 each   104 machine's name, ended with zeros
 *
 * The machine's bytes are a section in runs because nobody knows beforehand how many there are.
 * - Frozen, hashed and written are machine, sessions, configuration and the folded replies of one block's end (M1, M6).
 * - Nothing of this process enters the bytes: equal states give equal snapshots (T44).
 * - What is read comes from another process: lengths are bounded by what has come, kinds are known ones, in their order,
 *   and in the end machine and sessions must have the hashes that the head names.
 * - A state takes the machine's place only whole and checked; until then the old one answers (T40, T48). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "statemachine/host_internal.h"

enum {
    MAGIC = 0x4e53534c, /* "LSSN" */
    VERSION = 1,
    FLAG_HASH = 1,
    CRC_FROM = 8,
    RUN_BYTES_MAX = 1 << 16,
    FREEZE_STEP_BYTES = 256 << 10, /* some 50 us of the machine's time */
};

/* The next snapshot waits until the log behind this one is so many times its size: however large the state is, a fifth of
 * what a disk is given at most is snapshots (thesis 5.1.2). */
enum { LOG_PER_SNAPSHOT = 4 };

enum section { SECTION_END, SECTION_CONFIGURATION, SECTION_SESSIONS, SECTION_MACHINE };

struct head {
    uint32_t magic, crc, version, flags;
    uint64_t index, term, next_position, time_ns;
    uint32_t block_crc, parts_crc;
    struct lockstep_hash state_hash, sessions_hash, reply_hash;
    char machine[64];
};
static_assert(sizeof(struct head) == 168, "no padding is written");

static uint32_t head_crc(const struct head *head)
{
    return crc32c((const uint8_t *)head + CRC_FROM, sizeof *head - CRC_FROM);
}

static uint32_t configuration_crc(const struct host_configuration *configuration)
{
    return crc32c_extend(crc32c(&configuration->index, sizeof configuration->index), configuration->bytes,
                         configuration->count);
}

static bool can_snapshot(const struct host *host)
{
    return host->table->snapshot_begin != NULL && host->table->snapshot_write != NULL &&
           host->table->snapshot_end != NULL && host->table->restore != NULL;
}

/* The newest snapshot has so many bytes. */
static void snapshot_bytes_set(struct host *host, uint64_t bytes)
{
    uint64_t interval = LOG_PER_SNAPSHOT * bytes;
    if (interval < host->options.snapshot_after_bytes) interval = host->options.snapshot_after_bytes;
    atomic_store_explicit(&host->snapshot_interval, interval, memory_order_relaxed); /* it decides when, not what */
}

/* --- freezing: the machine's thread ------------------------------------------------------------------------------ */

bool host_snapshot_after(struct host *host, const struct block_header *header, const uint8_t *block)
{
    host->base = block_base_after(header);
    if (header->type == BLOCK_CONFIGURATION) {
        uint32_t count = header->bytes - BLOCK_HEADER_BYTES;
        if (count > sizeof host->configuration.bytes) {
            host_log(host, "the configuration in block %" PRIu64 " is too long", header->index);
            host_stop(host, LOCKSTEP_ECORRUPT, header->index, 0);
            return true;
        }
        host->configuration.index = header->index;
        host->configuration.count = count;
        memcpy(host->configuration.bytes, block + BLOCK_HEADER_BYTES, count);
    }
    host->bytes_since += header->bytes;
    if (host->snapshot_ns == 0) host->snapshot_ns = header->time_ns;
    bool is_old =
        host->options.snapshot_age_ns != 0 && header->time_ns - host->snapshot_ns >= host->options.snapshot_age_ns;
    /* relaxed: they decide when, not what */
    host->snapshot_due = host->options.snapshot_after_bytes != 0 &&
                         (is_old || host->bytes_since >= host_snapshot_interval(host)) && can_snapshot(host) &&
                         atomic_load_explicit(&host->snapshot_allowed, memory_order_relaxed) &&
                         atomic_load_explicit(&host->frozen, memory_order_relaxed) == FROZEN_NONE;
    return host->snapshot_due;
}

static void freeze(struct host *host)
{
    host->snapshot_due = false;
    host->bytes_since = 0; /* also where it fails: tried again as much later */
    host->snapshot_ns = host->base.time_ns;
    if (host->table->snapshot_begin(host->machine, &host->frozen_machine) != 0) {
        host_log(host, "no snapshot at index %" PRIu64 ": %s cannot begin one", host->base.index,
                 host->options.plugin->name);
        return;
    }
    if (sessions_freeze(host->sessions) != 0) {
        host_log(host, "no snapshot at index %" PRIu64 ": out of memory", host->base.index);
        host->table->snapshot_end(host->machine, host->frozen_machine);
        return;
    }
    host->frozen_is.base = host->base;
    host->frozen_is.bytes = 0;
    host->frozen_is.configuration = host->configuration;
    host->frozen_is.reply_hash = host->reply_hash;
    host->frozen_is.sessions_hash = sessions_hash(host->sessions);
    host->frozen_is.state_hash = (struct lockstep_hash){0, 0};
    if (host->table->hash != NULL) host->frozen_is.state_hash = host->table->hash(host->machine);
    atomic_store_explicit(&host->frozen, FROZEN_FREEZING, memory_order_relaxed);
}

/* A little at a time, between runs. */
static void freeze_step(struct host *host)
{
    if (!sessions_freeze_step(host->sessions, FREEZE_STEP_BYTES)) return;
    host->frozen_sessions = sessions_thaw(host->sessions, &host->frozen_sessions_bytes);
    atomic_store_explicit(&host->frozen, FROZEN_READY, memory_order_release); /* pairs with host_snapshot_ready() */
    host->options.wake_snapshots(host->options.context);
}

static void let_go(struct host *host)
{
    host->table->snapshot_end(host->machine, host->frozen_machine);
    host->frozen_machine = NULL;
    if (host->frozen_is.bytes != 0) snapshot_bytes_set(host, host->frozen_is.bytes);
    atomic_store_explicit(&host->frozen, FROZEN_NONE, memory_order_relaxed);
}

static void take_place(struct host *host, struct host_state *state)
{
    host->table->close(host->machine);
    sessions_close(host->sessions);
    host->machine = state->machine;
    host->sessions = state->sessions;
    host->base = state->base;
    host->configuration = state->configuration;
    host->reply_hash = state->reply_hash;
    host->next_index = state->base.index + 1;
    host->next_offset = BLOCK_HEADER_BYTES;
    host->next_position = state->base.next_position;
    host->bytes_since = 0;
    host->snapshot_ns = host->base.time_ns;
    snapshot_bytes_set(host, state->bytes);
    free(state);
}

bool host_snapshot_step(struct host *host)
{
    if (host->snapshot_due && !host->stopped) freeze(host);
    if (atomic_load_explicit(&host->frozen, memory_order_relaxed) == FROZEN_FREEZING) {
        freeze_step(host);
        return true;
    }
    /* acquire: pairs with the release in host_snapshot_done(); its writer touches nothing of it any more. */
    if (atomic_load_explicit(&host->frozen, memory_order_acquire) == FROZEN_WRITTEN) let_go(host);
    if (atomic_load_explicit(&host->frozen, memory_order_relaxed) != FROZEN_NONE) return false;
    /* acquire: pairs with the release in host_replace(). What is frozen belongs to the old machine: it goes first (T41). */
    struct host_state *state = atomic_exchange_explicit(&host->replacement, NULL, memory_order_acquire);
    if (state == NULL) return false;
    take_place(host, state);
    atomic_store_explicit(&host->parked, false, memory_order_relaxed); /* the block that it did not know is behind it */
    host_publish_applied(host);
    host_publish_hashes(host, host->base.index);
    atomic_store_explicit(&host->halted, false, memory_order_relaxed);
    atomic_store_explicit(&host->halt, false, memory_order_release);
    host->options.wake_loop(host->options.context);
    return true;
}

bool host_is_halted(struct host *host)
{
    if (!atomic_load_explicit(&host->halt, memory_order_acquire)) return false;
    if (atomic_load_explicit(&host->halted, memory_order_relaxed)) return true;
    /* release: pairs with the acquire in host_halted(): no block is held, and none is looked for. */
    atomic_store_explicit(&host->halted, true, memory_order_release);
    host->options.wake_loop(host->options.context);
    return true;
}

/* --- writing: its own thread -------------------------------------------------------------------------------------- */

/* Gathers small writes into runs. */
struct sink {
    struct lockstep_writer face; /* what the machine holds; first */
    struct lockstep_writer *to;
    int error;
    uint64_t written;
    uint32_t held;
    uint8_t bytes[RUN_BYTES_MAX];
};

static void sink_out(struct sink *sink, const void *bytes, size_t count)
{
    sink->written += count;
    if (sink->error == 0) sink->error = sink->to->write(sink->to, bytes, count);
}

static void sink_run(struct sink *sink)
{
    if (sink->held == 0) return;
    sink_out(sink, &sink->held, sizeof sink->held);
    sink_out(sink, sink->bytes, sink->held);
    sink->held = 0;
}

static int sink_write(struct lockstep_writer *writer, const void *bytes, size_t count)
{
    struct sink *sink = (struct sink *)(void *)writer;
    const uint8_t *from = bytes;
    while (count > 0 && sink->error == 0) {
        size_t room = sizeof sink->bytes - sink->held, now = count < room ? count : room;
        memcpy(sink->bytes + sink->held, from, now);
        sink->held += (uint32_t)now;
        from += now;
        count -= now;
        if (sink->held == sizeof sink->bytes) sink_run(sink);
    }
    return sink->error;
}

static void section_begin(struct sink *sink, enum section kind)
{
    const uint32_t words[2] = {kind, 0};
    sink_out(sink, words, sizeof words);
}

static void section_end(struct sink *sink)
{
    const uint32_t none = 0;
    sink_run(sink);
    sink_out(sink, &none, sizeof none);
}

bool host_snapshot_ready(struct host *host, struct block_base *ret)
{
    if (atomic_load_explicit(&host->frozen, memory_order_acquire) != FROZEN_READY) return false;
    *ret = host->frozen_is.base;
    return true;
}

int host_snapshot_write(struct host *host, struct lockstep_writer *writer)
{
    const struct block_base *base = &host->frozen_is.base;
    const struct host_configuration *configuration = &host->frozen_is.configuration;
    struct head head = {
        .magic = MAGIC,
        .version = VERSION,
        .flags = host->table->hash != NULL ? FLAG_HASH : 0,
        .index = base->index,
        .term = base->term,
        .next_position = base->next_position,
        .time_ns = base->time_ns,
        .block_crc = base->crc,
        .parts_crc =
            crc32c_extend(configuration_crc(configuration), host->frozen_sessions, host->frozen_sessions_bytes),
        .state_hash = host->frozen_is.state_hash,
        .sessions_hash = host->frozen_is.sessions_hash,
        .reply_hash = host->frozen_is.reply_hash,
    };
    snprintf(head.machine, sizeof head.machine, "%s", host->options.plugin->name);
    head.crc = head_crc(&head);
    struct sink *sink = malloc(sizeof *sink);
    if (sink == NULL) return LOCKSTEP_ENOMEM;
    sink->face = (struct lockstep_writer){.size = sizeof sink->face, .write = sink_write};
    sink->to = writer;
    sink->error = 0;
    sink->written = 0;
    sink->held = 0;
    sink_out(sink, &head, sizeof head);
    section_begin(sink, SECTION_CONFIGURATION);
    sink_write(&sink->face, &configuration->index, sizeof configuration->index);
    sink_write(&sink->face, configuration->bytes, configuration->count);
    section_end(sink);
    section_begin(sink, SECTION_SESSIONS);
    sink_write(&sink->face, host->frozen_sessions, host->frozen_sessions_bytes);
    section_end(sink);
    section_begin(sink, SECTION_MACHINE);
    int rc = sink->error;
    if (rc == 0) rc = host->table->snapshot_write(host->machine, host->frozen_machine, &sink->face);
    section_end(sink);
    section_begin(sink, SECTION_END);
    if (rc == 0) rc = sink->error;
    if (rc == 0) host->frozen_is.bytes = sink->written;
    free(sink);
    return rc;
}

void host_snapshot_done(struct host *host)
{
    free(host->frozen_sessions);
    host->frozen_sessions = NULL;
    atomic_store_explicit(&host->frozen, FROZEN_WRITTEN, memory_order_release);
    host->options.wake_machine(host->options.context);
}

/* --- reading: any thread ------------------------------------------------------------------------------------------ */

struct source {
    struct lockstep_reader face; /* what the machine holds; first */
    struct lockstep_reader *from;
    int error;
    uint64_t taken;
    uint32_t run_left;
    bool ended; /* the section's last run was met */
};

/* Exactly so many bytes. False: sink->error says why. */
static bool source_take(struct source *source, void *to, size_t count)
{
    uint8_t *at = to;
    while (count > 0 && source->error == 0) {
        size_t got = 0;
        source->error = source->from->read(source->from, at, count, &got);
        if (source->error == 0 && (got == 0 || got > count)) source->error = LOCKSTEP_ECORRUPT;
        at += got;
        count -= got;
        source->taken += got;
    }
    return source->error == 0;
}

static int source_read(struct lockstep_reader *reader, void *to, size_t room, size_t *ret_count)
{
    struct source *source = (struct source *)(void *)reader;
    *ret_count = 0;
    if (source->run_left == 0 && !source->ended && room > 0) {
        if (!source_take(source, &source->run_left, sizeof source->run_left)) return source->error;
        if (source->run_left > RUN_BYTES_MAX) source->error = LOCKSTEP_ECORRUPT;
        source->ended = source->run_left == 0;
    }
    if (source->error != 0 || source->ended) return source->error;
    size_t count = room < source->run_left ? room : source->run_left;
    if (!source_take(source, to, count)) return source->error;
    source->run_left -= (uint32_t)count;
    *ret_count = count;
    return 0;
}

static bool section_open(struct source *source, enum section kind)
{
    uint32_t words[2];
    if (!source_take(source, words, sizeof words)) return false;
    if (words[0] > SECTION_MACHINE)
        source->error = LOCKSTEP_EVERSION;
    else if (words[0] != kind || words[1] != 0)
        source->error = LOCKSTEP_ECORRUPT;
    source->run_left = 0;
    source->ended = false;
    return source->error == 0;
}

/* Nothing of the section is left (T42). */
static bool section_close(struct source *source)
{
    uint8_t more;
    size_t count = 0;
    if (source->error == 0 && !source->ended) (void)source_read(&source->face, &more, 1, &count);
    if (source->error == 0 && count != 0) source->error = LOCKSTEP_ECORRUPT;
    return source->error == 0;
}

/* A section's bytes, at most `room` of them. */
static bool section_bytes(struct source *source, void *to, size_t room, size_t *ret_count)
{
    size_t count = 0;
    *ret_count = 0;
    do {
        if (source_read(&source->face, (uint8_t *)to + *ret_count, room - *ret_count, &count) != 0) return false;
        *ret_count += count;
    } while (count > 0);
    return section_close(source);
}

static bool read_configuration(struct source *source, struct host_configuration *ret)
{
    uint8_t bytes[sizeof ret->index + sizeof ret->bytes];
    size_t count = 0;
    if (!section_open(source, SECTION_CONFIGURATION) || !section_bytes(source, bytes, sizeof bytes, &count))
        return false;
    if (count < sizeof ret->index) {
        source->error = LOCKSTEP_ECORRUPT;
        return false;
    }
    memcpy(&ret->index, bytes, sizeof ret->index);
    ret->count = (uint32_t)(count - sizeof ret->index);
    memcpy(ret->bytes, bytes + sizeof ret->index, ret->count);
    return true;
}

/* Memory follows what has come, not what somebody says that will. */
static bool read_sessions(struct source *source, struct sessions *sessions, uint32_t crc, uint32_t parts_crc)
{
    uint8_t *bytes = NULL;
    size_t held = 0, room = 0, count = 0;
    if (!section_open(source, SECTION_SESSIONS)) return false;
    do {
        if (held == room) {
            room = room == 0 ? RUN_BYTES_MAX : 2 * room;
            uint8_t *more = realloc(bytes, room);
            if (more == NULL) source->error = LOCKSTEP_ENOMEM;
            if (more != NULL) bytes = more;
        }
        if (source->error == 0) (void)source_read(&source->face, bytes + held, room - held, &count);
        held += count;
    } while (source->error == 0 && count > 0);
    if (section_close(source) && crc32c_extend(crc, bytes, held) != parts_crc) source->error = LOCKSTEP_ECORRUPT;
    if (source->error == 0) source->error = sessions_read(sessions, bytes, held);
    free(bytes);
    return source->error == 0;
}

static bool read_machine(struct host *host, struct source *source, void *machine)
{
    if (!section_open(source, SECTION_MACHINE)) return false;
    int rc = host->table->restore(machine, &source->face);
    if (source->error == 0 && rc != 0) source->error = LOCKSTEP_ECORRUPT;
    return section_close(source);
}

static bool hashes_equal(struct lockstep_hash a, struct lockstep_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* The head, checked by itself. */
static int read_head(struct host *host, struct source *source, struct head *head)
{
    if (!source_take(source, head, sizeof *head)) return source->error;
    if (head->magic != MAGIC || head->crc != head_crc(head)) return LOCKSTEP_ECORRUPT;
    if (head->version != VERSION || (head->flags & ~(uint32_t)FLAG_HASH) != 0) return LOCKSTEP_EVERSION;
    if (head->machine[sizeof head->machine - 1] != 0 || head->index == 0) return LOCKSTEP_ECORRUPT;
    return strcmp(head->machine, host->options.plugin->name) == 0 ? 0 : LOCKSTEP_EFOREIGN;
}

static int read_state(struct host *host, struct source *source, struct host_state *state, const char **ret_what)
{
    struct head head;
    *ret_what = "its head";
    int rc = read_head(host, source, &head);
    if (rc != 0) return rc;
    state->base = (struct block_base){.index = head.index,
                                      .term = head.term,
                                      .crc = head.block_crc,
                                      .next_position = head.next_position,
                                      .time_ns = head.time_ns};
    state->reply_hash = head.reply_hash;
    *ret_what = "its configuration";
    if (!read_configuration(source, &state->configuration)) return source->error;
    uint32_t crc = configuration_crc(&state->configuration);
    *ret_what = "its sessions";
    rc = sessions_open(&host->options.sessions, &state->sessions);
    if (rc != 0) return rc;
    if (!read_sessions(source, state->sessions, crc, head.parts_crc)) return source->error;
    if (!hashes_equal(sessions_hash(state->sessions), head.sessions_hash)) return LOCKSTEP_ECORRUPT;
    *ret_what = "the machine's state";
    if (host->table->open(&host->services, &state->machine) != 0) {
        state->machine = NULL;
        return LOCKSTEP_ENOMEM;
    }
    if (!read_machine(host, source, state->machine)) return source->error;
    if (host->table->hash != NULL && (head.flags & FLAG_HASH) != 0 &&
        !hashes_equal(host->table->hash(state->machine), head.state_hash))
        return LOCKSTEP_ECORRUPT;
    *ret_what = "its end";
    if (!section_open(source, SECTION_END)) return source->error;
    state->bytes = source->taken;
    return 0;
}

int host_state_read(struct host *host, struct lockstep_reader *reader, struct host_state **ret, char *why,
                    size_t why_room)
{
    struct source source = {.face = {.size = sizeof source.face, .read = source_read}, .from = reader};
    const char *what = "it";
    if (host->table->restore == NULL) {
        snprintf(why, why_room, "machine %s has no restore", host->options.plugin->name);
        return LOCKSTEP_EINVAL;
    }
    struct host_state *state = calloc(1, sizeof *state);
    int rc = state != NULL ? read_state(host, &source, state, &what) : LOCKSTEP_ENOMEM;
    if (rc == 0) {
        *ret = state;
        return 0;
    }
    snprintf(why, why_room, "a snapshot for machine %s %s cannot be read: %s: %s", host->options.plugin->name,
             host->options.plugin->version, what, lockstep_error_text(rc));
    host_state_free(host, state);
    return rc;
}

void host_state_free(struct host *host, struct host_state *state)
{
    if (state == NULL) return;
    if (state->machine != NULL) host->table->close(state->machine);
    sessions_close(state->sessions);
    free(state);
}

struct block_base host_state_base(const struct host_state *state)
{
    return state->base;
}

const struct host_configuration *host_state_configuration(const struct host_state *state)
{
    return &state->configuration;
}

uint64_t host_snapshot_interval(const struct host *host)
{
    return atomic_load_explicit(&host->snapshot_interval, memory_order_relaxed);
}

/* --- the loop's side ---------------------------------------------------------------------------------------------- */

void host_snapshot_allow(struct host *host, bool allow)
{
    atomic_store_explicit(&host->snapshot_allowed, allow, memory_order_relaxed);
}

void host_halt(struct host *host)
{
    atomic_store_explicit(&host->halt, true, memory_order_release);
    host->options.wake_machine(host->options.context);
}

bool host_halted(const struct host *host)
{
    return atomic_load_explicit(&host->halted, memory_order_acquire);
}

bool host_goes_on(const struct host *host)
{
    return !atomic_load_explicit(&host->halt, memory_order_acquire);
}

void host_replace(struct host *host, struct host_state *state)
{
    lk_assert(host_halted(host));
    struct host_state *before = atomic_exchange_explicit(&host->replacement, state, memory_order_release);
    lk_assert(before == NULL);
    host->options.wake_machine(host->options.context);
}

/* --- open and close ----------------------------------------------------------------------------------------------- */

int host_snapshot_open(struct host *host)
{
    snapshot_bytes_set(host, 0);
    if (host->options.restore == NULL) return 0;
    struct host_state *state = NULL;
    char why[256];
    int rc = host_state_read(host, host->options.restore, &state, why, sizeof why);
    if (rc != 0) {
        host_log(host, "%s", why);
        return rc;
    }
    take_place(host, state);
    atomic_store_explicit(&host->commit, host->base.index, memory_order_relaxed);
    host_publish_applied(host);
    return 0;
}

void host_snapshot_close(struct host *host)
{
    host_state_free(host, atomic_load_explicit(&host->replacement, memory_order_relaxed));
    if (atomic_load_explicit(&host->frozen, memory_order_relaxed) != FROZEN_NONE) let_go(host);
    free(host->frozen_sessions); /* nobody wrote it */
}
