/* SPDX-License-Identifier: Apache-2.0 */
/* host.c - see host.h.
 * Thread: marked in host.h. Owns: the machine, both queues, the reader of the log, the pin RING_PIN_MACHINE.
 *
 *   loop    host_commit ---- commit (atomic) -----------> host_work   machine's thread
 *           host_query  ---- queries (mailbox) ---------> host_work -> query -> answers
 *           host_answer_next <- answers (mailbox) ------- host_work -> apply -> answers, reply hash
 *
 * A run is what one step applies: committed blocks behind each other in the ring, under one pin, or one block from the
 * log. The machine sees its commands one by one; nothing is copied. Where apply goes on is {next_index, next_offset,
 * next_position}: an offset means the same in ring and log. A run ends
 *   - at the commit index, at batch_bytes_max, where the ring's blocks end, behind a block whose index is a multiple of
 *     HASH_EVERY, in front of a block of an unknown type;
 *   - in front of a command whose answer might not fit into `answers`: the longest reply has to, for nobody knows
 *     before apply how long it gets. Then the step says what it waits for and returns; the loop's pop wakes it.
 * H1  applied_index is raised only when every command of the block was applied, so it is never ahead of the state; the
 *     state may be ahead of it (a run that ended inside a block), and then queries wait.
 * H2  The reply hash folds each command by itself, so a run's borders do not enter it.
 * H3  Hashes are published whenever the machine has reached the commit index that it sees, and at every multiple of
 *     HASH_EVERY. Replicas at rest have the same commit index, every rise of it ends in a publication there, and
 *     nothing else is published behind it: so at rest all show the same index. A replica that never rests shows the
 *     multiples, which the others passed too.
 * M1  stage_command() is where a command goes to the machine or is done here; a machine sees none that it has applied.
 * H4  After the machine has stopped (M2) it is called no more; queries are answered with EUNAVAILABLE.
 * H5  Nothing is allocated after host_open. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "statemachine/host_internal.h"

/* --- what others see --- */

/* Only one thread writes a counter: no read-modify-write needed. */
static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

void host_log(struct host *host, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    host->options.log(host->options.context, line);
}

static void machine_log(void *context, const char *line)
{
    struct host *host = context;
    host->options.log(host->options.context, line);
}

void host_publish_hashes(struct host *host, raft_index index)
{
    struct lockstep_hash state = {0, 0};
    if (host->table->hash != NULL) state = host->table->hash(host->machine);
    uint64_t number = atomic_load_explicit(&host->hashes_published, memory_order_relaxed) + 1;
    struct hash_slot *slot = &host->hashes[number % HASH_SLOTS];
    /* release, each: a reader that meets a value of this publication (acquire) also meets the count before it, and so
     * sees that it was too slow. */
    atomic_store_explicit(&slot->index, index, memory_order_release);
    atomic_store_explicit(&slot->state_low, state.low, memory_order_release);
    atomic_store_explicit(&slot->state_high, state.high, memory_order_release);
    atomic_store_explicit(&slot->reply_low, host->reply_hash.low, memory_order_release);
    atomic_store_explicit(&slot->reply_high, host->reply_hash.high, memory_order_release);
    atomic_store_explicit(&host->hashes_published, number, memory_order_release);
}

static void read_hashes(const struct host *host, struct host_status *ret)
{
    uint64_t before, after;
    do {
        before = atomic_load_explicit(&host->hashes_published, memory_order_acquire);
        const struct hash_slot *slot = &host->hashes[before % HASH_SLOTS];
        ret->hash_index = atomic_load_explicit(&slot->index, memory_order_acquire);
        ret->state_hash.low = atomic_load_explicit(&slot->state_low, memory_order_acquire);
        ret->state_hash.high = atomic_load_explicit(&slot->state_high, memory_order_acquire);
        ret->reply_hash.low = atomic_load_explicit(&slot->reply_low, memory_order_acquire);
        ret->reply_hash.high = atomic_load_explicit(&slot->reply_high, memory_order_acquire);
        after = atomic_load_explicit(&host->hashes_published, memory_order_acquire);
    } while (after - before >= HASH_SLOTS - 1);
}

/* M2: the machine is called no more. The first reason stays. */
void host_stop(struct host *host, int error, raft_index index, log_position position)
{
    if (host->stopped) return;
    host->stopped = true;
    atomic_store_explicit(&host->error_index, index, memory_order_relaxed);
    atomic_store_explicit(&host->error_position, position, memory_order_relaxed);
    atomic_store_explicit(&host->error, error, memory_order_release);
}

/* --- finding blocks --- */

/* Take block `index` from the ring. Under the pin its bytes stay; a block behind it in the same run makes the pin longer.
 * 0, ENOTFOUND (the ring does not have it, any more; or this run is long enough), ECORRUPT */
static int block_from_ring(struct host *host, raft_index index)
{
    struct run *run = &host->run;
    struct ring_slot slot;
    if (ring_find(host->ring, index, &slot) != 0) return LOCKSTEP_ENOTFOUND;
    if (run->pinned && slot.bytes > run->bytes_left) return LOCKSTEP_ENOTFOUND;
    ring_pos pin = run->pinned ? run->pin : slot.pos;
    if (ring_pin_batch(host->ring, pin, slot.pos + slot.bytes) != 0) return LOCKSTEP_ENOTFOUND;
    run->pinned = true;
    run->pin = pin;
    const uint8_t *at = ring_at(host->ring, slot.pos);
    struct block_header header;
    if (block_header_read(at, slot.bytes, &header) != 0) return LOCKSTEP_ECORRUPT;
    /* The slot was read before the pin stood: only now is it sure that both speak of the same block. */
    if (header.index != index || header.header_crc != slot.header_crc || header.bytes != slot.bytes)
        return LOCKSTEP_ECORRUPT;
    run->block = at;
    run->header = header;
    return 0;
}

static int block_from_log(struct host *host, raft_index index)
{
    struct run *run = &host->run;
    int rc = storage_read(host->reader, index, &run->block, &run->header);
    if (rc != 0) return rc;
    run->from_log = true;
    count(&host->log_reads);
    return 0;
}

/* The first block of a run: from the ring, else from the log. The ring gives a block up only after the log has it, so
 * one look at each, in this order, is enough. */
static int first_block(struct host *host)
{
    int rc = block_from_ring(host, host->next_index);
    if (rc == LOCKSTEP_ENOTFOUND) rc = block_from_log(host, host->next_index);
    return rc == LOCKSTEP_ENOTFOUND ? LOCKSTEP_ECORRUPT : rc; /* committed, and nowhere */
}

static void release_blocks(struct host *host)
{
    struct run *run = &host->run;
    if (run->pinned) ring_unpin(host->ring, RING_PIN_MACHINE);
    if (run->from_log) storage_read_end(host->reader);
    run->pinned = run->from_log = run->in_block = false;
}

/* Step into the block next_index. False: the run ends in front of it. */
static bool enter_block(struct host *host)
{
    struct run *run = &host->run;
    bool first = !run->pinned && !run->from_log;
    if (run->from_log) return false; /* a view of the log dies with the next read */
    int rc = first ? first_block(host) : block_from_ring(host, host->next_index);
    if (rc == LOCKSTEP_ENOTFOUND) return false;
    const struct block_header *header = &run->header;
    bool in_order = host->next_position == 0 || host->next_offset != BLOCK_HEADER_BYTES ||
                    header->first_position == host->next_position;
    if (rc == 0 && !in_order) rc = LOCKSTEP_ECORRUPT;
    if (rc != 0) {
        host_log(host, "block %" PRIu64 " cannot be applied: %s", host->next_index, lockstep_error_text(rc));
        host_stop(host, rc, host->next_index, 0);
        return false;
    }
    run->bytes_left -= header->bytes < run->bytes_left ? header->bytes : run->bytes_left;

    switch (header->type) {
    case BLOCK_COMMANDS:
        run->cursor = block_cursor(run->block, header);
        if (host->next_offset != BLOCK_HEADER_BYTES) {
            run->cursor.at = run->block + host->next_offset;
            run->cursor.position = host->next_position;
        }
        break;
    case BLOCK_TERM:
    case BLOCK_CONFIGURATION: run->cursor = (struct block_cursor){NULL, NULL, header->first_position}; break;
    default:
        if ((header->type & BLOCK_TYPE_IGNORABLE) == 0) {
            host_log(host, "block %" PRIu64 " is of type %u, which this version does not know: nothing is applied",
                     host->next_index, header->type);
            atomic_store_explicit(&host->parked, true, memory_order_relaxed);
            return false;
        }
        run->cursor = (struct block_cursor){NULL, NULL, header->first_position};
        break;
    }
    sessions_block(host->sessions, header->type == BLOCK_TERM, header->time_ns);
    run->in_block = true;
    return true;
}

static void leave_block(struct host *host)
{
    struct run *run = &host->run;
    host->next_index++;
    host->next_offset = BLOCK_HEADER_BYTES;
    host->next_position = run->header.first_position + run->header.count;
    run->in_block = false;
    if (host_snapshot_after(host, &run->header, run->block)) run->limit = host->next_index - 1;
}

/* Stand in front of the run's next command. False: there is none. */
static bool seek_command(struct host *host)
{
    struct run *run = &host->run;
    for (;;) {
        if (run->in_block) {
            if (run->cursor.at < run->cursor.end) return true;
            leave_block(host);
        }
        if (host->next_index > run->limit || !enter_block(host)) return false;
    }
}

/* Whether the run goes on with a command whose answer surely fits. */
static bool reserve_command(struct host *host)
{
    struct run *run = &host->run;
    run->answer = NULL;
    if (!seek_command(host)) return false;
    if (run->cursor.position < run->answer_from) return true;
    run->answer = mailbox_claim(&host->answers, ANSWER_BYTES_MAX);
    run->out_of_room = run->answer == NULL;
    return !run->out_of_room;
}

/* --- apply: what the machine calls --- */

/* The machine broke the contract or said that it cannot go on. */
static void machine_failed(struct host *host, const char *what)
{
    const struct lockstep_command *command = &host->run.command;
    host_log(host, "%s %s stops at index %" PRIu64 ", position %" PRIu64 ": %s", host->options.plugin->name,
             host->options.plugin->version, command->index, command->position, what);
    host_stop(host, LOCKSTEP_EINVAL, command->index, command->position);
}

/* M6, H2. */
static void fold_reply(struct host *host, int32_t code, const void *bytes, size_t bytes_count)
{
    struct {
        struct lockstep_hash before;
        raft_index index;
        log_position position;
        int64_t code; /* 0 = OK, which no REJECT has; below 0: the host's own refusal */
        XXH128_hash_t reply;
        struct lockstep_hash sessions;
    } record = {
        .sessions = sessions_hash(host->sessions),
        .before = host->reply_hash,
        .index = host->run.command.index,
        .position = host->run.command.position,
        .code = code,
        .reply = XXH3_128bits(bytes, bytes_count),
    };
    static_assert(sizeof record == 72, "no padding is hashed");
    XXH128_hash_t hash = XXH3_128bits(&record, sizeof record);
    host->reply_hash = (struct lockstep_hash){hash.low64, hash.high64};
}

static void announce(struct host *host)
{
    host->unannounced = 0;
    host->options.wake_loop(host->options.context);
}

static void push_answer(struct host *host, uint8_t *room, const struct answer_record *record, uint64_t reply_bytes)
{
    memcpy(room, record, sizeof *record);
    mailbox_publish(&host->answers, sizeof *record + reply_bytes);
    if (++host->unannounced == ANSWERS_A_WAKE) announce(host);
}

/* The command taken last is answered so. */
static void answer_command(struct host *host, const struct session_answer *answer)
{
    struct run *run = &host->run;
    fold_reply(host, answer->error != 0 ? answer->error : answer->code, answer->reply, answer->reply_bytes);
    if (run->answer == NULL) return;
    if (answer->reply_bytes > 0) memcpy(run->answer + sizeof(struct answer_record), answer->reply, answer->reply_bytes);
    struct answer_record record = {
        .type = HOST_ANSWER_APPLIED,
        .error = answer->error,
        .code = answer->code,
        .index = run->command.index,
        .position = run->command.position,
        .first_index = answer->index,
        .first_position = answer->position,
    };
    push_answer(host, run->answer, &record, answer->reply_bytes);
}

/* Whether a machine may say this; NULL: yes. */
static const char *answer_fault(enum lockstep_outcome outcome, int32_t code, const void *bytes, size_t bytes_count)
{
    if (bytes_count > LOCKSTEP_REPLY_BYTES_MAX) return "its reply is longer than LOCKSTEP_REPLY_BYTES_MAX";
    if (bytes == NULL && bytes_count > 0) return "its reply is NULL, and not empty";
    if (outcome == LOCKSTEP_OK && code != 0) return "it answered OK with a code";
    if (outcome == LOCKSTEP_REJECT && code <= 0) return "it answered REJECT without a code above 0";
    return NULL;
}

static void apply_answer(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code,
                         const void *bytes, size_t bytes_count)
{
    struct host *host = (struct host *)(void *)((uint8_t *)replies - offsetof(struct host, replies));
    struct run *run = &host->run;
    if (host->stopped) return;
    const char *fault = answer_fault(outcome, code, bytes, bytes_count);
    if (!run->taken)
        fault = "it answered no command";
    else if (run->answered)
        fault = "it answered a command twice";
    if (fault != NULL) {
        machine_failed(host, fault);
        return;
    }
    if (outcome != LOCKSTEP_OK && outcome != LOCKSTEP_REJECT) { /* POISON is FATAL until a supervisor decides */
        char what[256];
        int text_bytes = bytes_count < 128 ? (int)bytes_count : 128;
        snprintf(what, sizeof what, "outcome %d, code %d: %.*s", (int)outcome, code, text_bytes,
                 bytes_count > 0 ? (const char *)bytes : "");
        machine_failed(host, what);
        return;
    }
    run->answered = true;
    struct session_answer answer = {
        .code = code,
        .index = run->command.index,
        .position = run->command.position,
        .reply = bytes,
        .reply_bytes = (uint32_t)bytes_count,
    };
    if (run->command.session != 0) sessions_answered(host->sessions, run->command.session, run->command.seq, &answer);
    answer_command(host, &answer);
}

/* All is done with the command: the next one may come. */
static void pass_command(struct host *host)
{
    struct run *run = &host->run;
    host->next_offset = (uint32_t)(run->cursor.at - run->block);
    host->next_position = run->cursor.position;
    count(&host->commands);
}

/* The machine is done with the command that it took. */
static void finish_command(struct host *host)
{
    struct run *run = &host->run;
    if (!run->taken) return;
    if (!run->answered) apply_answer(&host->replies, LOCKSTEP_OK, 0, NULL, 0);
    run->taken = false;
    pass_command(host);
}

/* M1. Do what the command says, if it is none of the machine's. False: the machine is to apply it. */
static bool apply_in_host(struct host *host)
{
    const struct lockstep_command *command = &host->run.command;
    struct session_answer answer = {.index = command->index, .position = command->position};
    switch (command->kind) {
    case COMMAND_MACHINE:
        if (command->session == 0) return false;
        if (sessions_judge(host->sessions, command->session, command->seq, &answer)) return false;
        if (answer.error == 0 || answer.error == LOCKSTEP_EREPLIED) count(&host->repeated);
        break;
    case COMMAND_SESSION_OPEN: answer.error = sessions_begin(host->sessions, command->position); break;
    case COMMAND_SESSION_KEEP: answer.error = sessions_keep(host->sessions, command->session); break;
    case COMMAND_SESSION_CLOSE: answer.error = sessions_end(host->sessions, command->session); break;
    default: /* T61: never passed over */
        host_log(host, "position %" PRIu64 " is of kind %" PRIu32 ", which this version does not know",
                 command->position, command->kind);
        host_stop(host, LOCKSTEP_EVERSION, command->index, command->position);
        return true;
    }
    answer_command(host, &answer);
    pass_command(host);
    return true;
}

/* Take the run's next command that is the machine's; what is the host's in front of it is done on the way. */
static bool stage_command(struct host *host)
{
    struct run *run = &host->run;
    do {
        if (host->stopped || !reserve_command(host)) return false;
        struct command_view view;
        bool found = block_cursor_next(&run->cursor, &view);
        lk_assert(found);
        run->command = (struct lockstep_command){
            .size = sizeof run->command,
            .kind = view.header.kind,
            .index = run->header.index,
            .position = view.position,
            .term = run->header.term,
            .time_ns = run->header.time_ns,
            .session = view.header.session,
            .seq = view.header.seq,
            .entity = view.header.entity,
            .payload = view.payload,
            .payload_bytes = view.header.bytes,
        };
    } while (apply_in_host(host));
    run->staged = true;
    return true;
}

static const struct lockstep_command *apply_next(struct lockstep_batch *batch)
{
    struct run *run = (struct run *)(void *)batch;
    struct host *host = run->host;
    if (host->stopped || run->ended) return NULL;
    finish_command(host);
    if (!run->staged && !stage_command(host)) {
        run->ended = true;
        return NULL;
    }
    run->staged = false;
    run->taken = true;
    run->answered = false;
    return &run->command;
}

/* --- one step --- */

void host_publish_applied(struct host *host)
{
    if (host->next_position > 0)
        atomic_store_explicit(&host->applied_position, host->next_position - 1, memory_order_relaxed);
    atomic_store_explicit(&host->session_count, sessions_count(host->sessions), memory_order_relaxed);
    atomic_store_explicit(&host->session_due_ns, sessions_due_ns(host->sessions), memory_order_relaxed);
    /* release: pairs with the acquire in host_applied_index() */
    atomic_store_explicit(&host->applied_index, host->next_index - 1, memory_order_release);
}

/* Apply one run. */
static void apply_run(struct host *host, raft_index commit)
{
    struct run *run = &host->run;
    raft_index hash_due = (host->next_index + HASH_EVERY - 1) / HASH_EVERY * HASH_EVERY;
    run->limit = commit < hash_due ? commit : hash_due;
    run->bytes_left = host->options.batch_bytes_max;
    run->answer_from = atomic_load_explicit(&host->answer_from, memory_order_relaxed); /* set before that commit */
    run->staged = run->taken = run->ended = run->out_of_room = false;
    if (stage_command(host)) {
        int rc = host->table->apply(host->machine, &run->face, &host->replies);
        if (rc != 0) machine_failed(host, "its apply returned an error");
        if (!host->stopped) finish_command(host);
        if (!host->stopped && !run->ended) machine_failed(host, "its apply returned before the end of the batch");
        count(&host->batches);
    }
    release_blocks(host);

    raft_index applied = host->next_index - 1;
    bool raised = applied != atomic_load_explicit(&host->applied_index, memory_order_relaxed);
    host_publish_applied(host);
    if (host->stopped || !raised || (applied != commit && applied % HASH_EVERY != 0)) return;
    lk_assert(host->next_offset == BLOCK_HEADER_BYTES); /* the run's limit was this very index */
    host_publish_hashes(host, applied);
}

static void query_answer(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code,
                         const void *bytes, size_t bytes_count)
{
    struct query_run *query = (struct query_run *)(void *)replies;
    if (query->answered || (outcome != LOCKSTEP_OK && outcome != LOCKSTEP_REJECT) ||
        answer_fault(outcome, code, bytes, bytes_count) != NULL) {
        query->failed = true;
        return;
    }
    query->answered = true;
    query->code = code;
    query->reply_bytes = bytes_count;
    if (bytes_count > 0) memcpy(query->answer + sizeof(struct answer_record), bytes, bytes_count);
}

/* Ask the machine; the reply's bytes go straight to their place in the queue. */
static void run_query(struct host *host, const struct query_record *record, const uint8_t *bytes, uint64_t bytes_count,
                      uint8_t *room)
{
    struct query_run *query = &host->query;
    query->answer = room;
    query->answered = query->failed = false;
    query->code = 0;
    query->reply_bytes = 0;
    int error = LOCKSTEP_EINVAL;
    if (host->table->query != NULL) {
        int rc = host->table->query(host->machine, record->entity, bytes, (size_t)bytes_count, &query->face);
        if (rc == 0 && query->answered && !query->failed) error = 0;
        count(&host->queries_run);
    }
    struct answer_record answer = {
        .type = HOST_ANSWER_QUERY,
        .error = error,
        .code = error == 0 ? query->code : 0,
        .tag = record->tag,
        .index = host->next_index - 1,
    };
    push_answer(host, room, &answer, error == 0 ? query->reply_bytes : 0);
}

/* What became of a session's command; its reply goes straight to its place, too. */
static void run_outcome(struct host *host, const struct query_record *record, uint8_t *room)
{
    struct session_answer found = {0};
    (void)sessions_find(host->sessions, record->session, record->seq, &found);
    if (found.reply_bytes > 0) memcpy(room + sizeof(struct answer_record), found.reply, found.reply_bytes);
    struct answer_record answer = {
        .type = HOST_ANSWER_OUTCOME,
        .error = found.error,
        .code = found.code,
        .tag = record->tag,
        .index = host->next_index - 1,
        .first_index = found.index,
        .first_position = found.position,
    };
    count(&host->queries_run);
    push_answer(host, room, &answer, found.reply_bytes);
}

static bool is_parked(const struct host *host)
{
    return atomic_load_explicit(&host->parked, memory_order_relaxed);
}

enum query_step { QUERY_NONE, QUERY_WAITS, QUERY_NO_ROOM, QUERY_DONE };

/* Answer the oldest query if its time has come. */
static enum query_step step_query(struct host *host)
{
    uint64_t bytes;
    const uint8_t *at = mailbox_peek(&host->queries, &bytes);
    if (at == NULL) return QUERY_NONE;
    struct query_record record;
    memcpy(&record, at, sizeof record);
    bool reached = record.min_index < host->next_index;
    bool ended = host->stopped || (is_parked(host) && !reached); /* it will never be */
    if (!ended && (!reached || host->next_offset != BLOCK_HEADER_BYTES)) return QUERY_WAITS;
    uint8_t *room = mailbox_claim(&host->answers, ANSWER_BYTES_MAX);
    if (room == NULL) return QUERY_NO_ROOM;
    if (ended) {
        struct answer_record answer = {
            .type = record.session != 0 ? HOST_ANSWER_OUTCOME : HOST_ANSWER_QUERY,
            .error = LOCKSTEP_EUNAVAILABLE,
            .tag = record.tag,
            .index = host->next_index - 1,
        };
        push_answer(host, room, &answer, 0);
    } else if (record.session != 0) {
        run_outcome(host, &record, room);
    } else {
        run_query(host, &record, at + sizeof record, bytes - sizeof record, room);
    }
    (void)mailbox_pop(&host->queries); /* the loop never sleeps for room: it refuses */
    return QUERY_DONE;
}

bool host_work(struct host *host)
{
    bool had_stopped = host->stopped, was_parked = is_parked(host), no_room = false;
    /* acquire: pairs with the release in host_commit(); the blocks, and where answers begin, come before it. */
    raft_index commit = atomic_load_explicit(&host->commit, memory_order_acquire);
    bool halted = host_is_halted(host);
    if (!halted && !host->stopped && !was_parked && host->next_index <= commit) {
        apply_run(host, commit);
        no_room = host->run.out_of_room;
    }
    bool more = host_snapshot_step(host);
    enum query_step query = QUERY_DONE;
    for (unsigned i = 0; i < QUERIES_A_STEP_MAX && query == QUERY_DONE; i++) query = step_query(host);
    if (query == QUERY_NO_ROOM) no_room = true;

    if (host->unannounced > 0 || host->stopped != had_stopped || is_parked(host) != was_parked) announce(host);
    if (query == QUERY_DONE || more) return true;
    if (no_room) return mailbox_await_room(&host->answers, ANSWER_BYTES_MAX);
    commit = atomic_load_explicit(&host->commit, memory_order_relaxed);
    return !halted && !host->stopped && !is_parked(host) && host->next_index <= commit;
}

/* --- open, close --- */

static bool is_power_of_two(uint64_t number)
{
    return number != 0 && (number & (number - 1)) == 0;
}

int host_open(const struct host_options *options, struct host **ret)
{
    if (!is_power_of_two(options->replies_bytes) || options->replies_bytes < HOST_REPLIES_BYTES_MIN ||
        !is_power_of_two(options->queries_bytes) || options->queries_bytes < 4096 || options->start_index == 0)
        return LOCKSTEP_EINVAL;
    struct host *host = calloc(1, sizeof *host);
    if (host == NULL) return LOCKSTEP_ENOMEM;
    host->options = *options;
    host->table = &options->plugin->machine;
    host->ring = storage_ring(options->storage);
    host->next_index = options->start_index;
    host->next_offset = BLOCK_HEADER_BYTES;
    host->run.face.size = sizeof host->run.face;
    host->run.face.next = apply_next;
    host->run.host = host;
    host->replies = (struct lockstep_replies){.size = sizeof host->replies, .answer = apply_answer};
    host->query.face = (struct lockstep_replies){.size = sizeof host->query.face, .answer = query_answer};
    atomic_init(&host->answer_from, UINT64_MAX);
    atomic_init(&host->commit, options->start_index - 1);
    atomic_init(&host->applied_index, options->start_index - 1);
    host->services = (struct lockstep_host){
        .size = sizeof host->services, .abi = LOCKSTEP_MACHINE_ABI, .context = host, .log = machine_log};

    atomic_init(&host->session_due_ns, UINT64_MAX);

    int rc = sessions_open(&options->sessions, &host->sessions);
    if (rc != 0) goto fail;
    rc = LOCKSTEP_ENOMEM;
    if (!mailbox_open(&host->queries, options->queries_bytes)) goto fail;
    if (!mailbox_open(&host->answers, options->replies_bytes)) goto fail;
    rc = storage_reader_open(options->storage, &host->reader);
    if (rc != 0) goto fail;
    if (host->table->open(&host->services, &host->machine) != 0) {
        host->machine = NULL; /* whatever it wrote: there is nothing to close */
        rc = LOCKSTEP_EINVAL;
        goto fail;
    }
    rc = host_snapshot_open(host);
    if (rc != 0) goto fail;
    host_publish_hashes(host, host->next_index - 1);
    *ret = host;
    return 0;
fail:
    host_close(host);
    return rc;
}

void host_close(struct host *host)
{
    if (host == NULL) return;
    host_snapshot_close(host);
    if (host->machine != NULL) host->table->close(host->machine);
    storage_reader_close(host->reader);
    mailbox_close(&host->answers);
    mailbox_close(&host->queries);
    sessions_close(host->sessions);
    free(host);
}

/* --- the loop's side --- */

void host_commit(struct host *host, raft_index commit)
{
    if (commit <= atomic_load_explicit(&host->commit, memory_order_relaxed)) return; /* our own */
    /* release: pairs with the acquire in host_work() */
    atomic_store_explicit(&host->commit, commit, memory_order_release);
    host->options.wake_machine(host->options.context);
}

void host_answer_from(struct host *host, log_position first)
{
    /* relaxed: the commit that follows releases it */
    atomic_store_explicit(&host->answer_from, first, memory_order_relaxed);
}

static int push_query(struct host *host, const struct query_record *record, const uint8_t *query, uint32_t bytes)
{
    if (sizeof *record + bytes > mailbox_record_bytes_max(host->options.queries_bytes)) return LOCKSTEP_ETOOBIG;
    uint8_t *room = mailbox_claim(&host->queries, sizeof *record + bytes);
    if (room == NULL) return LOCKSTEP_EFULL;
    memcpy(room, record, sizeof *record);
    if (bytes > 0) memcpy(room + sizeof *record, query, bytes);
    mailbox_publish(&host->queries, sizeof *record + bytes);
    host->options.wake_machine(host->options.context);
    return 0;
}

int host_query(struct host *host, uint64_t tag, uint64_t entity, raft_index min_index, const uint8_t *query,
               uint32_t bytes)
{
    struct query_record record = {.tag = tag, .entity = entity, .min_index = min_index};
    return push_query(host, &record, query, bytes);
}

int host_outcome(struct host *host, uint64_t tag, uint64_t session, uint64_t seq, raft_index min_index)
{
    struct query_record record = {.tag = tag, .min_index = min_index, .session = session, .seq = seq};
    if (session == 0) return LOCKSTEP_EINVAL;
    return push_query(host, &record, NULL, 0);
}

bool host_answer_next(struct host *host, struct host_answer *ret)
{
    if (host->answer_held && mailbox_pop(&host->answers)) host->options.wake_machine(host->options.context);
    uint64_t bytes;
    const uint8_t *at = mailbox_peek(&host->answers, &bytes);
    host->answer_held = at != NULL;
    if (at == NULL) return false;
    struct answer_record record;
    memcpy(&record, at, sizeof record);
    *ret = (struct host_answer){
        .type = (uint8_t)record.type,
        .error = record.error,
        .code = record.code,
        .tag = record.tag,
        .index = record.index,
        .position = record.position,
        .first_index = record.first_index,
        .first_position = record.first_position,
        .reply = at + sizeof record,
        .reply_bytes = (uint32_t)(bytes - sizeof record),
    };
    return true;
}

/* --- any thread --- */

void host_status_read(const struct host *host, struct host_status *ret)
{
    read_hashes(host, ret);
    ret->has_state_hash = host->table->hash != NULL;
    ret->can_snapshot = host->table->snapshot_begin != NULL && host->table->restore != NULL;
    ret->applied_index = host_applied_index(host);
    ret->applied_position = atomic_load_explicit(&host->applied_position, memory_order_relaxed);
    ret->error = atomic_load_explicit(&host->error, memory_order_acquire);
    ret->error_index = atomic_load_explicit(&host->error_index, memory_order_relaxed);
    ret->error_position = atomic_load_explicit(&host->error_position, memory_order_relaxed);
    ret->parked = is_parked(host);
    ret->queries = atomic_load_explicit(&host->queries_run, memory_order_relaxed);
    ret->commands = atomic_load_explicit(&host->commands, memory_order_relaxed);
    ret->batches = atomic_load_explicit(&host->batches, memory_order_relaxed);
    ret->log_reads = atomic_load_explicit(&host->log_reads, memory_order_relaxed);
    ret->repeated = atomic_load_explicit(&host->repeated, memory_order_relaxed);
    ret->sessions = atomic_load_explicit(&host->session_count, memory_order_relaxed);
    ret->session_due_ns = atomic_load_explicit(&host->session_due_ns, memory_order_relaxed);
}

raft_index host_applied_index(const struct host *host)
{
    return atomic_load_explicit(&host->applied_index, memory_order_acquire);
}

uint64_t host_session_due_ns(const struct host *host)
{
    return atomic_load_explicit(&host->session_due_ns, memory_order_relaxed);
}
