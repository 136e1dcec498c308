/* SPDX-License-Identifier: Apache-2.0 */
/* demo_load.c - see demo_load.h. */
#include "cli/demo_load.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "cli/cli.h"

/* What is known of a command; anything else is the position that its answer named. */
#define DEMO_SENT         UINT64_C(0)
#define DEMO_UNKNOWN      UINT64_MAX
#define DEMO_NOT_APPENDED (UINT64_MAX - 1)

/* What makes two copies of a command one. */
struct demo_name {
    uint64_t session, seq;
};

struct demo_stream {
    struct demo_load *load;
    uint32_t number;
    struct lockstep_client *client;
    struct lockstep_stream *stream;
    uint64_t next;           /* command: the next to send */
    uint64_t answered;       /* commands, in order */
    uint64_t marked_next;    /* the first command that is sent after the mark */
    uint64_t newest;         /* acknowledged; UINT64_MAX = none */
    uint64_t *said;          /* by command */
    uint64_t *found;         /* position in the first log that has it; 0 = none has it yet */
    struct demo_name *names; /* with found */
    uint32_t *seen;          /* which logs have it, a bit each */
};

struct demo_load {
    uint64_t room; /* commands a stream */
    struct demo_counts counts;
    bool marked;
    uint64_t marked_ns;
    char trouble[512];
    uint32_t node; /* whose log is read */
    struct demo_found check;
    struct demo_stream streams[DEMO_STREAMS];
};

/* --- commands: `put d2-00012345 9f3c...` --- */

/* 64 bits that look random and follow from the number (splitmix64's last step). */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void put_digits(char *to, int digits, uint64_t value)
{
    for (int i = digits - 1; i >= 0; i--, value /= 10) to[i] = (char)('0' + value % 10);
}

static void put_hex(char *to, uint64_t value)
{
    for (int i = 15; i >= 0; i--, value >>= 4) to[i] = "0123456789abcdef"[value & 15];
}

enum {
    KEY_AT = 4,
    STREAM_AT = 5,
    NUMBER_AT = 7,
    NUMBER_DIGITS = 8,
    VALUE_AT = NUMBER_AT + NUMBER_DIGITS + 1,
    COMMAND_BYTES = VALUE_AT + 16,
};

static void make_command(char to[COMMAND_BYTES], uint32_t stream, uint64_t number)
{
    memcpy(to, "put d0-00000000 ", VALUE_AT);
    to[STREAM_AT] = (char)('0' + stream);
    put_digits(to + NUMBER_AT, NUMBER_DIGITS, number);
    put_hex(to + VALUE_AT, mix((uint64_t)stream << 32 | number));
}

/* Which one it is; false: none of ours. */
static bool read_command(const struct demo_load *load, const uint8_t *bytes, size_t count, uint32_t *ret_stream,
                         uint64_t *ret_number)
{
    if (count != COMMAND_BYTES) return false;
    uint32_t stream = (uint32_t)(bytes[STREAM_AT] - '0');
    uint64_t number = 0;
    for (int i = 0; i < NUMBER_DIGITS; i++) number = number * 10 + (uint64_t)(bytes[NUMBER_AT + i] - '0');
    if (stream >= DEMO_STREAMS || number >= load->streams[stream].next) return false;
    char expected[COMMAND_BYTES];
    make_command(expected, stream, number);
    if (memcmp(expected, bytes, COMMAND_BYTES) != 0) return false;
    *ret_stream = stream;
    *ret_number = number;
    return true;
}

/* --- sending and receiving --- */

static void answered(void *context, uint64_t tag, const struct lockstep_result *results, uint32_t count)
{
    struct demo_stream *stream = context;
    struct demo_load *load = stream->load;
    lk_assert(tag == stream->answered);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = stream->answered++;
        const struct lockstep_result *result = &results[i];
        load->counts.in_flight--;
        if (result->error == 0) {
            stream->said[number] = result->position;
            stream->newest = number;
            load->counts.acknowledged++;
            if (result->code != 0) load->counts.refused++;
            if (load->marked && load->marked_ns == 0 && number >= stream->marked_next) load->marked_ns = cli_now_ns();
        } else if (result->fate == LOCKSTEP_NOT_APPENDED) {
            stream->said[number] = DEMO_NOT_APPENDED;
            load->counts.not_appended++;
        } else {
            stream->said[number] = DEMO_UNKNOWN;
            load->counts.unknown++;
        }
    }
}

static void lost(void *context, int error, const char *text)
{
    struct demo_stream *stream = context;
    (void)error;
    snprintf(stream->load->trouble, sizeof stream->load->trouble, "%s", text);
}

static void send_some(struct demo_stream *stream)
{
    while (lockstep_stream_room(stream->stream) > 0 && stream->next + DEMO_BATCH <= stream->load->room) {
        char commands[DEMO_BATCH][COMMAND_BYTES];
        struct lockstep_proposal proposals[DEMO_BATCH];
        for (uint32_t i = 0; i < DEMO_BATCH; i++) {
            make_command(commands[i], stream->number, stream->next + i);
            proposals[i] = (struct lockstep_proposal){.command = commands[i], .command_bytes = COMMAND_BYTES};
        }
        if (lockstep_stream_send(stream->stream, proposals, DEMO_BATCH, stream->next) != 0) return;
        stream->next += DEMO_BATCH;
        stream->load->counts.sent += DEMO_BATCH;
        stream->load->counts.in_flight += DEMO_BATCH;
    }
}

int demo_load_turn(struct demo_load *load, bool sending, int wait_ms)
{
    struct pollfd fds[DEMO_STREAMS];
    for (uint32_t i = 0; i < DEMO_STREAMS; i++) {
        struct demo_stream *stream = &load->streams[i];
        if (sending) send_some(stream);
        int ms = lockstep_client_timeout_ms(stream->client);
        if (ms >= 0 && ms < wait_ms) wait_ms = ms;
        fds[i] = (struct pollfd){.fd = lockstep_client_fd(stream->client), .events = POLLIN};
    }
    (void)poll(fds, DEMO_STREAMS, wait_ms);
    for (uint32_t i = 0; i < DEMO_STREAMS; i++) {
        int rc = lockstep_client_poll(load->streams[i].client, 0);
        if (rc != 0) return rc;
    }
    return 0;
}

int demo_load_open(const char *endpoints, uint64_t total, struct demo_load **ret)
{
    struct demo_load *load = calloc(1, sizeof *load);
    if (load == NULL) return LOCKSTEP_ENOMEM;
    /* One stream may do more than its share, and commands are spent on the outage. */
    load->room = (2 * total / DEMO_BATCH + 1) * DEMO_BATCH;
    int rc = LOCKSTEP_ENOMEM;
    for (uint32_t i = 0; i < DEMO_STREAMS; i++) {
        struct demo_stream *stream = &load->streams[i];
        stream->load = load;
        stream->number = i;
        stream->newest = UINT64_MAX;
        stream->said = calloc(load->room, sizeof stream->said[0]);
        stream->found = calloc(load->room, sizeof stream->found[0]);
        stream->names = calloc(load->room, sizeof stream->names[0]);
        stream->seen = calloc(load->room, sizeof stream->seen[0]);
        if (stream->said == NULL || stream->found == NULL || stream->names == NULL || stream->seen == NULL) goto fail;
        struct lockstep_client_options options = {
            .size = sizeof options, .endpoints = endpoints, .deadline_ms = DEMO_DEADLINE_MS};
        rc = lockstep_client_open(&options, &stream->client, NULL, 0);
        if (rc != 0) goto fail;
        struct lockstep_stream_options stream_options = {.size = sizeof stream_options,
                                                         .messages_max = DEMO_MESSAGES,
                                                         .commands_max = DEMO_BATCH,
                                                         .context = stream,
                                                         .answered = answered,
                                                         .lost = lost};
        rc = lockstep_stream_open(stream->client, &stream_options, &stream->stream);
        if (rc != 0) goto fail;
    }
    *ret = load;
    return 0;
fail:
    demo_load_close(load);
    return rc;
}

void demo_load_close(struct demo_load *load)
{
    if (load == NULL) return;
    for (uint32_t i = 0; i < DEMO_STREAMS; i++) {
        struct demo_stream *stream = &load->streams[i];
        lockstep_stream_close(stream->stream);
        lockstep_client_close(stream->client);
        free(stream->said);
        free(stream->found);
        free(stream->names);
        free(stream->seen);
    }
    free(load);
}

struct demo_counts demo_load_counts(const struct demo_load *load)
{
    return load->counts;
}

void demo_load_mark(struct demo_load *load)
{
    load->marked = true;
    load->marked_ns = 0;
    for (uint32_t i = 0; i < DEMO_STREAMS; i++) load->streams[i].marked_next = load->streams[i].next;
}

uint64_t demo_load_marked_ns(const struct demo_load *load)
{
    return load->marked_ns;
}

const char *demo_load_trouble(const struct demo_load *load)
{
    return load->trouble;
}

bool demo_load_newest(const struct demo_load *load, uint32_t stream, char query[DEMO_COMMAND_BYTES_MAX],
                      char value[DEMO_COMMAND_BYTES_MAX])
{
    uint64_t number = load->streams[stream].newest;
    if (number == UINT64_MAX) return false;
    char command[COMMAND_BYTES];
    make_command(command, stream, number);
    snprintf(query, DEMO_COMMAND_BYTES_MAX, "get %.*s", VALUE_AT - 1 - KEY_AT, command + KEY_AT);
    snprintf(value, DEMO_COMMAND_BYTES_MAX, "%.*s", COMMAND_BYTES - VALUE_AT, command + VALUE_AT);
    return true;
}

/* --- looking for them --- */

void demo_check_begin(struct demo_load *load, uint32_t node)
{
    lk_assert(node < DEMO_NODES_MAX);
    load->node = node;
    load->check = (struct demo_found){0};
}

static bool is_false(struct demo_load *load, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool is_false(struct demo_load *load, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(load->check.false_because, sizeof load->check.false_because, format, arguments);
    va_end(arguments);
    return false;
}

bool demo_check_command(void *context, const struct command_view *view)
{
    struct demo_load *load = context;
    uint32_t number_of_stream;
    uint64_t number;
    if (view->header.kind != COMMAND_MACHINE) return true; /* of the sessions */
    load->check.commands++;
    if (!read_command(load, view->payload, view->header.bytes, &number_of_stream, &number))
        return is_false(load, "position %" PRIu64 " holds what nobody sent", view->position);
    struct demo_stream *stream = &load->streams[number_of_stream];
    char text[COMMAND_BYTES];
    make_command(text, number_of_stream, number);
    struct demo_name name = {view->header.session, view->header.seq}, *first = &stream->names[number];
    if ((stream->seen[number] & 1u << load->node) != 0) {
        if (name.session == 0 || name.session != first->session || name.seq != first->seq)
            return is_false(load, "'%.*s' stands there twice, again at position %" PRIu64 ", under another name",
                            COMMAND_BYTES, text, view->position);
        load->check.repeated++;
        return true;
    }
    stream->seen[number] |= 1u << load->node;
    *first = name;
    if (stream->found[number] != 0 && stream->found[number] != view->position)
        return is_false(load, "'%.*s' stands at position %" PRIu64 " here and at %" PRIu64 " on another node",
                        COMMAND_BYTES, text, view->position, stream->found[number]);
    stream->found[number] = view->position;
    uint64_t said = stream->said[number];
    if (said == DEMO_NOT_APPENDED)
        return is_false(load, "'%.*s' was surely not appended, and stands at position %" PRIu64, COMMAND_BYTES, text,
                        view->position);
    if (said == DEMO_UNKNOWN || said == DEMO_SENT) {
        load->check.unknown++;
        return true;
    }
    if (said != view->position)
        return is_false(load, "'%.*s' was acknowledged at position %" PRIu64 ", and stands at %" PRIu64, COMMAND_BYTES,
                        text, said, view->position);
    load->check.acknowledged++;
    return true;
}

void demo_check_end(struct demo_load *load, struct demo_found *ret)
{
    for (uint32_t i = 0; i < DEMO_STREAMS && load->check.false_because[0] == 0; i++) {
        const struct demo_stream *stream = &load->streams[i];
        for (uint64_t number = 0; number < stream->next && load->check.false_because[0] == 0; number++) {
            bool here = (stream->seen[number] & 1u << load->node) != 0;
            uint64_t said = stream->said[number];
            bool acknowledged = said != DEMO_SENT && said != DEMO_UNKNOWN && said != DEMO_NOT_APPENDED;
            if (here) continue;
            char text[COMMAND_BYTES];
            make_command(text, i, number);
            if (acknowledged)
                is_false(load, "'%.*s' was acknowledged at position %" PRIu64 ", and is not there", COMMAND_BYTES, text,
                         said);
            else if (stream->found[number] != 0)
                is_false(load, "'%.*s' stands on another node at position %" PRIu64 ", and not here", COMMAND_BYTES,
                         text, stream->found[number]);
        }
    }
    *ret = load->check;
}

void demo_load_falsify(struct demo_load *load)
{
    for (uint32_t i = 0; i < DEMO_STREAMS; i++) {
        struct demo_stream *stream = &load->streams[i];
        if (stream->newest == UINT64_MAX) continue;
        stream->said[stream->newest]++; /* the position of its neighbour */
        return;
    }
}
