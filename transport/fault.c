/* SPDX-License-Identifier: Apache-2.0 */
/* fault.c - loss, delay, repetition and cuts in front of another transport. Thread: loop.
 * Owns: the inner transport, and copies of the frames that wait for their time.
 *
 *   send -> [dice] -> held, by peer, until due -> inner send           next <- held, by peer, until due <- [dice] <- inner
 *
 * F1  Order is kept: a frame never overtakes one of the same peer and direction, as on a TCP connection.
 * F2  Without a rule for a direction its frames pass untouched and uncopied, once those held before have gone.
 * F3  Bounded: a direction that holds FAULT_HELD_BYTES_MAX loses what comes on top.
 * Source: netem(8), which not every kernel has. */
#include "transport/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "base/random.h"
#include "base/text.h"
#include "lockstep/errors.h"

enum { FILE_POLL_MS = 20, RETRY_MS = 1, PARTS_A_WHOLE = 100000 /* three digits behind the point of a percentage */ };
enum direction { DIRECTION_OUT, DIRECTION_IN, DIRECTIONS };

struct behaviour {
    uint64_t delay_ns;
    uint32_t loss, duplicate; /* in PARTS_A_WHOLE */
    bool cut;
};

struct held {
    struct held *next;
    uint64_t due_ns;
    raft_member member_id;
    struct raft_message message;
    uint8_t type;
    size_t bytes;
    uint8_t body[];
};

struct lane {
    struct held *first, *last;
    uint64_t held_bytes;
};

struct rules {
    struct behaviour behaviour[RAFT_MEMBERS_MAX][DIRECTIONS];
};

struct fault {
    struct transport base;
    struct transport *inner;
    struct transport_owner owner;
    char peers[RAFT_MEMBERS_MAX][TRANSPORT_NAME_BYTES_MAX];
    struct rules rules;
    struct lane lanes[RAFT_MEMBERS_MAX][DIRECTIONS];
    struct random random;
    uint64_t lost[RAFT_MEMBERS_MAX];

    struct held *given; /* by next(), until consume(); NULL = the inner transport's own frame */
    unsigned given_slot;
    unsigned cursor;

    uv_timer_t timer;      /* the next held frame that falls due */
    uv_timer_t file_timer; /* only with a file */
    char *file;
    struct timespec file_time;
    ino_t file_inode;
    bool file_seen;
    void *report_context;
    void (*report)(void *context, const char *text);
    unsigned handles;
};

/* --- rules --- */

/* A percentage of up to three digits behind the point, as parts of PARTS_A_WHOLE. */
static bool parse_percent(const char *text, uint32_t *ret)
{
    size_t length = strlen(text);
    char whole[4] = "", part[4] = "000";
    if (length < 2 || text[length - 1] != '%') return false;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 3) return false;
    memcpy(whole, text, digits);
    if (text[digits] == '.') {
        size_t behind = length - 1 - (digits + 1);
        if (behind == 0 || behind > 3 || strspn(text + digits + 1, "0123456789") != behind) return false;
        memcpy(part, text + digits + 1, behind);
    } else if (digits != length - 1) {
        return false;
    }
    uint32_t value = (uint32_t)strtoul(whole, NULL, 10) * 1000 + (uint32_t)strtoul(part, NULL, 10);
    if (value > PARTS_A_WHOLE) return false;
    *ret = value;
    return true;
}

static char *trim(char *text)
{
    while (*text == ' ' || *text == '\t' || *text == '\r') text++;
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r", text[length - 1]) != NULL) text[--length] = 0;
    return text;
}

/* One rule's words. False: `word` is the one that nobody understands. */
static bool rule_parse(const struct fault *fault, char *rule, struct rules *rules, char **word)
{
    struct behaviour b = {0};
    bool directions[DIRECTIONS] = {true, true}, meant = false;
    unsigned slot = RAFT_MEMBERS_MAX; /* all */
    char *rest = rule;
    while (rest != NULL) {
        *word = trim(strsep(&rest, ","));
        uint32_t *percent = NULL;
        if (strncmp(*word, "peer=", 5) == 0) {
            for (slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
                if (strcmp(fault->peers[slot], *word + 5) == 0) break;
            if (slot == RAFT_MEMBERS_MAX) return false;
        } else if (strcmp(*word, "dir=out") == 0) {
            directions[DIRECTION_IN] = false;
        } else if (strcmp(*word, "dir=in") == 0) {
            directions[DIRECTION_OUT] = false;
        } else if (strncmp(*word, "delay=", 6) == 0) {
            if (!text_parse_duration(*word + 6, &b.delay_ns)) return false;
            meant = true;
        } else if (strncmp(*word, "loss=", 5) == 0) {
            percent = &b.loss;
        } else if (strncmp(*word, "duplicate=", 10) == 0) {
            percent = &b.duplicate;
        } else if (strcmp(*word, "cut") == 0) {
            b.cut = meant = true;
        } else if (strcmp(*word, "none") == 0) {
            meant = true;
        } else {
            return false;
        }
        if (percent != NULL) {
            if (!parse_percent(strchr(*word, '=') + 1, percent)) return false;
            meant = true;
        }
    }
    if (!meant) return false; /* names a peer and says nothing of it */
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (slot != RAFT_MEMBERS_MAX && slot != i) continue;
        for (unsigned d = 0; d < DIRECTIONS; d++)
            if (directions[d]) rules->behaviour[i][d] = b;
    }
    return true;
}

static int rules_parse(const struct fault *fault, const char *text, struct rules *ret, char *why, size_t why_room)
{
    char copy[FAULT_RULES_BYTES_MAX];
    struct rules rules = {0};
    if (strlen(text) >= sizeof copy) {
        (void)snprintf(why, why_room, "fault rules: longer than %zu bytes", sizeof copy - 1);
        return LOCKSTEP_EINVAL;
    }
    memcpy(copy, text, strlen(text) + 1);
    char *rest = copy;
    while (rest != NULL) {
        char *line = strsep(&rest, "\n");
        line[strcspn(line, "#")] = 0;
        while (line != NULL) {
            char *rule = trim(strsep(&line, ";"));
            char *word = rule;
            if (*rule == 0) continue;
            if (rule_parse(fault, rule, &rules, &word)) continue;
            (void)snprintf(why, why_room,
                           "fault rules: \"%s\" is not understood; write peer=NAME, dir=in|out, delay=50ms, loss=1%%, "
                           "duplicate=1%%, cut or none",
                           word);
            return LOCKSTEP_EINVAL;
        }
    }
    *ret = rules;
    return 0;
}

static void file_look(struct fault *fault)
{
    struct stat now;
    char text[FAULT_RULES_BYTES_MAX + 1] = "", line[512];
    bool there = stat(fault->file, &now) == 0;
    if (!there && !fault->file_seen) return;
    if (there && fault->file_seen && now.st_ino == fault->file_inode && now.st_mtim.tv_sec == fault->file_time.tv_sec &&
        now.st_mtim.tv_nsec == fault->file_time.tv_nsec)
        return;
    fault->file_seen = there;
    if (there) {
        fault->file_inode = now.st_ino;
        fault->file_time = now.st_mtim;
        FILE *file = fopen(fault->file, "re");
        if (file == NULL) return; /* went meanwhile: the next look sees that */
        size_t bytes = fread(text, 1, sizeof text - 1, file);
        text[bytes] = 0;
        (void)fclose(file);
    }
    if (rules_parse(fault, text, &fault->rules, line, sizeof line) == 0)
        (void)snprintf(line, sizeof line, "fault rules: read again from %.400s", fault->file);
    fault->report(fault->report_context, line);
}

static void file_tick(uv_timer_t *timer)
{
    file_look(timer->data);
}

/* --- held frames --- */

static void tick(uv_timer_t *timer);

static void timer_arm(struct fault *fault, uint64_t due)
{
    uint64_t now = uv_hrtime();
    uint64_t ms = due > now ? (due - now) / 1000000 + 1 : RETRY_MS;
    if (uv_is_active((uv_handle_t *)&fault->timer) && uv_timer_get_due_in(&fault->timer) <= ms) return;
    (void)uv_timer_start(&fault->timer, tick, ms, 0);
}

/* Copy a frame into its lane. parts: its body, in order. Allocates. */
static void hold(struct fault *fault, unsigned slot, enum direction direction, struct held head,
                 const struct iovec *parts, size_t part_count)
{
    struct lane *lane = &fault->lanes[slot][direction];
    head.bytes = 0;
    for (size_t i = 0; i < part_count; i++) head.bytes += parts[i].iov_len;
    struct held *held = NULL;
    if (lane->held_bytes + head.bytes <= FAULT_HELD_BYTES_MAX) held = malloc(sizeof *held + head.bytes);
    if (held == NULL) {
        fault->lost[slot]++;
        return;
    }
    *held = head;
    held->next = NULL;
    held->due_ns = uv_hrtime() + fault->rules.behaviour[slot][direction].delay_ns;
    /* A shorter delay than the last frame's does not make it overtake (F1). */
    if (lane->last != NULL && held->due_ns < lane->last->due_ns) held->due_ns = lane->last->due_ns;
    size_t at = 0;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].iov_len > 0) memcpy(held->body + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    if (lane->last != NULL)
        lane->last->next = held;
    else
        lane->first = held;
    lane->last = held;
    lane->held_bytes += held->bytes;
    timer_arm(fault, held->due_ns);
}

static void lane_pop(struct lane *lane)
{
    struct held *held = lane->first;
    lk_assert(held != NULL);
    lane->first = held->next;
    if (lane->first == NULL) lane->last = NULL;
    lane->held_bytes -= held->bytes;
    free(held);
}

enum fate { FATE_LOST, FATE_PASSES, FATE_HELD, FATE_HELD_TWICE };

/* Only Raft's frames are doubled: a connection never doubles a forwarded command, and nothing would make it safe. A
 * hang-up is no frame on a wire: it waits behind those before it, a cut hides it, and it is never lost otherwise. */
static enum fate throw_dice(struct fault *fault, unsigned slot, enum direction direction, uint8_t type)
{
    const struct behaviour *b = &fault->rules.behaviour[slot][direction];
    if (b->cut || (type != FRAME_HANGUP && b->loss > 0 && random_chance(&fault->random, b->loss, PARTS_A_WHOLE))) {
        fault->lost[slot]++;
        return FATE_LOST;
    }
    if (type == FRAME_RAFT && b->duplicate > 0 && random_chance(&fault->random, b->duplicate, PARTS_A_WHOLE))
        return FATE_HELD_TWICE;
    return b->delay_ns > 0 || fault->lanes[slot][direction].first != NULL ? FATE_HELD : FATE_PASSES;
}

/* Frames to this peer whose time has come go on. A full inner queue is asked again soon. */
static bool release(struct fault *fault, unsigned slot)
{
    struct lane *lane = &fault->lanes[slot][DIRECTION_OUT];
    bool sent = false;
    while (lane->first != NULL && lane->first->due_ns <= uv_hrtime()) {
        const struct held *held = lane->first;
        const struct transport_send send = {
            .slot = slot, .type = held->type, .message = &held->message, .body = held->body, .body_bytes = held->bytes};
        if (fault->inner->ops->send(fault->inner, &send) == LOCKSTEP_EFULL) break;
        lane_pop(lane);
        sent = true;
    }
    return sent;
}

static void tick(uv_timer_t *timer)
{
    struct fault *fault = timer->data;
    bool sent = false, received = false;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        const struct held *in = fault->lanes[i][DIRECTION_IN].first;
        if (release(fault, i)) sent = true;
        if (in != NULL && in->due_ns <= uv_hrtime()) received = true;
    }
    if (sent) fault->inner->ops->flush(fault->inner);
    if (received) fault->owner.wake(fault->owner.context);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        for (unsigned d = 0; d < DIRECTIONS; d++)
            if (fault->lanes[i][d].first != NULL) timer_arm(fault, fault->lanes[i][d].first->due_ns);
}

/* --- transport_ops --- */

static struct fault *fault_of(struct transport *t)
{
    return (struct fault *)t; /* base is the first member */
}

static int op_send(struct transport *t, const struct transport_send *send)
{
    struct fault *fault = fault_of(t);
    enum fate fate = throw_dice(fault, send->slot, DIRECTION_OUT, send->type);
    if (fate == FATE_LOST) return 0;
    if (fate == FATE_PASSES) return fault->inner->ops->send(fault->inner, send);

    struct held head = {.type = send->type};
    if (send->message != NULL) head.message = *send->message;
    const uint8_t *ring_bytes = NULL;
    if (send->ring_bytes > 0) ring_bytes = ring_at(fault->owner.ring(fault->owner.context), send->ring_from);
    /* iovecs have no const; nobody writes through them */
    const struct iovec parts[] = {
        {(void *)(uintptr_t)send->body, send->body_bytes},
        {(void *)(uintptr_t)send->more, send->more_bytes},
        {(void *)(uintptr_t)ring_bytes, send->ring_bytes},
        {(void *)(uintptr_t)send->blocks, send->blocks_bytes},
    };
    for (unsigned i = fate == FATE_HELD_TWICE ? 0 : 1; i < 2; i++)
        hold(fault, send->slot, DIRECTION_OUT, head, parts, 4);
    return 0;
}

static uint64_t op_queued_bytes(struct transport *t, unsigned slot)
{
    return fault_of(t)->inner->ops->queued_bytes(fault_of(t)->inner, slot);
}

static bool op_blocks_idle(struct transport *t, unsigned slot)
{
    return fault_of(t)->inner->ops->blocks_idle(fault_of(t)->inner, slot);
}

/* A held frame from a peer whose time has come, round robin. */
static bool next_held(struct fault *fault, struct transport_frame *ret)
{
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        unsigned slot = (fault->cursor + i) % RAFT_MEMBERS_MAX;
        struct held *held = fault->lanes[slot][DIRECTION_IN].first;
        if (held == NULL || held->due_ns > uv_hrtime()) continue;
        *ret = (struct transport_frame){.slot = slot,
                                        .member_id = held->member_id,
                                        .type = held->type,
                                        .message = held->message,
                                        .body = held->body,
                                        .body_bytes = held->bytes};
        fault->given = held;
        fault->given_slot = slot;
        fault->cursor = slot + 1;
        return true;
    }
    return false;
}

static bool op_next(struct transport *t, struct transport_frame *ret)
{
    struct fault *fault = fault_of(t);
    fault->given = NULL;
    if (next_held(fault, ret)) return true;
    while (fault->inner->ops->next(fault->inner, ret)) {
        enum fate fate = throw_dice(fault, ret->slot, DIRECTION_IN, ret->type);
        if (fate == FATE_PASSES) return true;
        const struct held head = {.type = ret->type, .member_id = ret->member_id, .message = ret->message};
        const struct iovec body = {(void *)(uintptr_t)ret->body, ret->body_bytes};
        /* A partial frame only announces another that follows: it is not worth holding. */
        if (fate != FATE_LOST && !ret->partial)
            for (unsigned i = fate == FATE_HELD_TWICE ? 0 : 1; i < 2; i++)
                hold(fault, ret->slot, DIRECTION_IN, head, &body, 1);
        fault->inner->ops->consume(fault->inner);
    }
    return next_held(fault, ret); /* a repeated frame without delay */
}

static void op_consume(struct transport *t)
{
    struct fault *fault = fault_of(t);
    if (fault->given == NULL) {
        fault->inner->ops->consume(fault->inner);
        return;
    }
    lk_assert(fault->lanes[fault->given_slot][DIRECTION_IN].first == fault->given);
    lane_pop(&fault->lanes[fault->given_slot][DIRECTION_IN]);
    fault->given = NULL;
}

static void op_flush(struct transport *t)
{
    fault_of(t)->inner->ops->flush(fault_of(t)->inner);
}

/* Rules name peers: they are read again, so that a name that was not known has its own from now on. */
static int op_peer_set(struct transport *t, unsigned slot, const char *name, const char *address)
{
    struct fault *fault = fault_of(t);
    int rc = fault->inner->ops->peer_set(fault->inner, slot, name, address);
    if (rc != 0 || strcmp(fault->peers[slot], name) == 0) return rc;
    for (unsigned d = 0; d < DIRECTIONS; d++)
        while (fault->lanes[slot][d].first != NULL) lane_pop(&fault->lanes[slot][d]);
    (void)snprintf(fault->peers[slot], sizeof fault->peers[slot], "%s", name);
    memset(fault->rules.behaviour[slot], 0, sizeof fault->rules.behaviour[slot]);
    fault->file_seen = false;
    if (fault->file != NULL) file_look(fault);
    return 0;
}

static void op_hello_set(struct transport *t, const struct transport_hello *hello)
{
    fault_of(t)->inner->ops->hello_set(fault_of(t)->inner, hello);
}

static void op_peer_status(struct transport *t, unsigned slot, struct transport_peer_status *ret)
{
    fault_of(t)->inner->ops->peer_status(fault_of(t)->inner, slot, ret);
    ret->frames_dropped += fault_of(t)->lost[slot];
}

static uint64_t op_frames_refused(struct transport *t)
{
    return fault_of(t)->inner->ops->frames_refused(fault_of(t)->inner);
}

static void handle_closed(uv_handle_t *handle)
{
    struct fault *fault = handle->data;
    if (--fault->handles > 0) return;
    free(fault->file);
    free(fault);
}

static void op_close(struct transport *t)
{
    struct fault *fault = fault_of(t);
    fault->inner->ops->close(fault->inner);
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        for (unsigned d = 0; d < DIRECTIONS; d++)
            while (fault->lanes[i][d].first != NULL) lane_pop(&fault->lanes[i][d]);
    uv_close((uv_handle_t *)&fault->timer, handle_closed);
    uv_close((uv_handle_t *)&fault->file_timer, handle_closed);
}

static const struct transport_ops fault_ops = {
    .send = op_send,
    .queued_bytes = op_queued_bytes,
    .blocks_idle = op_blocks_idle,
    .next = op_next,
    .consume = op_consume,
    .flush = op_flush,
    .peer_set = op_peer_set,
    .hello_set = op_hello_set,
    .peer_status = op_peer_status,
    .frames_refused = op_frames_refused,
    .close = op_close,
};

int fault_open(const struct fault_options *options, struct transport **ret, char *why, size_t why_room)
{
    lk_assert(options->peer_count <= RAFT_MEMBERS_MAX);
    int rc = LOCKSTEP_ENOMEM;
    struct fault *fault = calloc(1, sizeof *fault);
    if (fault == NULL) goto fail;
    fault->base.ops = &fault_ops;
    fault->inner = options->inner;
    fault->owner = options->owner;
    fault->report_context = options->report_context;
    fault->report = options->report;
    random_seed(&fault->random, options->seed);
    for (unsigned i = 0; i < options->peer_count; i++)
        (void)snprintf(fault->peers[i], sizeof fault->peers[i], "%s", options->peers[i]);
    if (options->rules[0] == '@') {
        fault->file = strdup(options->rules + 1);
        if (fault->file == NULL) goto fail;
    } else {
        rc = rules_parse(fault, options->rules, &fault->rules, why, why_room);
        if (rc != 0) goto fail_said;
    }
    /* From here on nothing fails: these two calls never do. */
    (void)uv_timer_init(options->loop, &fault->timer);
    (void)uv_timer_init(options->loop, &fault->file_timer);
    fault->timer.data = fault->file_timer.data = fault;
    fault->handles = 2;
    if (fault->file != NULL) {
        file_look(fault);
        (void)uv_timer_start(&fault->file_timer, file_tick, FILE_POLL_MS, FILE_POLL_MS);
    }
    *ret = &fault->base;
    return 0;
fail:
    (void)snprintf(why, why_room, "fault rules: out of memory");
fail_said:
    if (fault != NULL) free(fault->file);
    free(fault);
    return rc;
}
