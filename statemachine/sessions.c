/* SPDX-License-Identifier: Apache-2.0 */
/* sessions.c - see sessions.h.
 *
 * Sessions lie in slots, found by id through buckets; a list goes through them from the one touched longest ago to the
 * one touched last, so that what is due stands at its beginning. A session's bits: seq s has bit s % 1024, and only seqs
 * in (highest - W, highest] have theirs set.
 *
 * Replies lie in a ring, one behind the other, each contiguous. An offset counts up for ever; its place is its low bits.
 *   - A reply is there while its offset is within replies_bytes of the end: new ones write over old ones, whoever's they
 *     are. That follows from offsets alone, so a restored table, which lacks what nobody can ask for any more, forgets the
 *     same replies at the same time.
 *   - Buckets hold the newest reply's offset, each reply the next older one's of its bucket: a chain ends where an offset
 *     is no longer there. Nothing is ever taken out of it.
 *   - A word with FILL says how many bytes mean nothing: at the ring's end, and where a restored table has no reply.
 *
 * Frozen, the state is written out step by step while commands go on to change it. Sessions and their buckets: what is about
 * to be changed is copied first, some of them at a time. Replies: only the oldest are ever written over, so the oldest are
 * written out first, and before anything takes their place. So no step costs more than was asked for, and no change much more
 * than itself. */
#include "statemachine/sessions.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"

#define NONE UINT32_MAX
#define FILL (UINT64_C(1) << 63) /* no position is so large, so no session's id */

enum {
    SEEN_WORDS = SESSIONS_WINDOW_MAX / 64,
    REPLY_BYTES_USUAL = 128, /* of the ring, a bucket */
    COPIED_ITEMS = 64,
    STATE_MAGIC = 0x53534b4c,
    STATE_VERSION = 1,
    FIRST_OFFSET = 8, /* 0 is no offset */
};

struct session {
    uint64_t id; /* 0 = free */
    uint64_t touched_ns;
    uint64_t highest;  /* seq; 0 = none yet */
    uint64_t seen_sum; /* of mix(seq) over the bits that are set, for the hash */
    uint64_t seen[SEEN_WORDS];
    uint32_t older, newer; /* by last touch */
    uint32_t next;         /* in the bucket, or of the free slots */
    uint32_t unused;
};

/* In front of a reply's bytes, which are padded to 8. */
struct reply {
    uint64_t session; /* or FILL | bytes, and nothing else */
    uint64_t seq;
    raft_index index;
    log_position position;
    uint64_t older; /* offset of the bucket's next one; in a written state: of this reply */
    uint32_t bytes;
    int32_t code;
};
static_assert(sizeof(struct reply) == 48, "the header is its bytes in a snapshot");

/* An array as it was: its items are copied before their first change. */
struct before {
    const uint8_t *now;
    uint8_t *then; /* the copies, at the same places */
    bool *copied;  /* by COPIED_ITEMS */
    size_t item_bytes;
    uint32_t count;
};

/* The state as it was, on its way to bytes. */
struct frozen {
    struct before slots, buckets;
    uint32_t slot;      /* of the next session to write; NONE = all are written */
    uint64_t next, end; /* offsets of replies */
    uint64_t reply_count;
    uint8_t *bytes, *session_to, *reply_to;
};

struct sessions {
    struct session_limits limits;
    uint64_t now_ns;
    uint64_t floor_ns; /* every session was touched then */
    struct session *slots;
    uint32_t used; /* slots that ever were */
    uint32_t free; /* first free one of them */
    uint32_t count;
    uint32_t oldest, newest;
    uint32_t *buckets; /* slot + 1; 0 = empty */
    uint32_t bucket_mask;
    uint8_t *replies;
    uint64_t first, end; /* offsets */
    uint64_t *reply_buckets;
    uint64_t reply_bucket_mask;
    struct lockstep_hash hash;
    struct frozen *frozen; /* NULL = it is not */
};

/* splitmix64's last step */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t power_of_two_above(uint64_t number)
{
    uint64_t power = 1;
    while (power < number) power <<= 1;
    return power;
}

/* --- what is frozen --- */

static bool before_open(struct before *before, const void *now, size_t item_bytes, uint32_t count)
{
    *before = (struct before){.now = now, .item_bytes = item_bytes, .count = count};
    before->then = malloc(count * item_bytes + 1); /* untouched until used */
    before->copied = calloc(count / COPIED_ITEMS + 1, sizeof *before->copied);
    return before->then != NULL && before->copied != NULL;
}

static void before_close(struct before *before)
{
    free(before->then);
    free(before->copied);
}

static void before_change(struct before *before, uint32_t item)
{
    if (item >= before->count || before->copied[item / COPIED_ITEMS]) return;
    uint32_t first = item - item % COPIED_ITEMS, left = before->count - first;
    size_t at = first * before->item_bytes;
    memcpy(before->then + at, before->now + at, (left < COPIED_ITEMS ? left : COPIED_ITEMS) * before->item_bytes);
    before->copied[item / COPIED_ITEMS] = true;
}

static const void *before_item(const struct before *before, uint32_t item)
{
    const uint8_t *from = before->copied[item / COPIED_ITEMS] ? before->then : before->now;
    return from + item * before->item_bytes;
}

static void frozen_free(struct frozen *frozen)
{
    if (frozen == NULL) return;
    before_close(&frozen->slots);
    before_close(&frozen->buckets);
    free(frozen->bytes);
    free(frozen);
}

/* A slot, a bucket is about to be changed. */
static void slot_changes(const struct sessions *s, uint32_t slot)
{
    if (s->frozen != NULL) before_change(&s->frozen->slots, slot);
}

static void bucket_changes(const struct sessions *s, const uint32_t *bucket)
{
    if (s->frozen != NULL) before_change(&s->frozen->buckets, (uint32_t)(bucket - s->buckets));
}

int sessions_open(const struct session_limits *limits, struct sessions **ret)
{
    if (limits->window == 0 || limits->window > SESSIONS_WINDOW_MAX || limits->sessions_max == 0 ||
        limits->sessions_max > SESSIONS_MAX || limits->expiry_ns == 0 || limits->expiry_ns > UINT64_MAX / 4 ||
        limits->replies_bytes < SESSIONS_REPLIES_BYTES_MIN ||
        (limits->replies_bytes & (limits->replies_bytes - 1)) != 0)
        return LOCKSTEP_EINVAL;
    struct sessions *s = calloc(1, sizeof *s);
    if (s == NULL) return LOCKSTEP_ENOMEM;
    uint64_t buckets = power_of_two_above(limits->sessions_max);
    uint64_t reply_buckets = limits->replies_bytes / REPLY_BYTES_USUAL;
    s->limits = *limits;
    s->free = s->oldest = s->newest = NONE;
    s->bucket_mask = (uint32_t)(buckets - 1);
    s->reply_bucket_mask = reply_buckets - 1;
    s->first = s->end = FIRST_OFFSET;
    s->slots = calloc(limits->sessions_max, sizeof *s->slots);
    s->buckets = calloc(buckets, sizeof *s->buckets);
    s->replies = calloc(1, limits->replies_bytes);
    s->reply_buckets = calloc(reply_buckets, sizeof *s->reply_buckets);
    if (s->slots == NULL || s->buckets == NULL || s->replies == NULL || s->reply_buckets == NULL) {
        sessions_close(s);
        return LOCKSTEP_ENOMEM;
    }
    *ret = s;
    return 0;
}

void sessions_close(struct sessions *sessions)
{
    if (sessions == NULL) return;
    frozen_free(sessions->frozen);
    free(sessions->slots);
    free(sessions->buckets);
    free(sessions->replies);
    free(sessions->reply_buckets);
    free(sessions);
}

/* --- sessions --- */

static uint32_t *bucket_of(const struct sessions *s, uint64_t id)
{
    return &s->buckets[mix(id) & s->bucket_mask];
}

static uint32_t slot_of(const struct sessions *s, uint64_t id)
{
    uint32_t slot = *bucket_of(s, id) - 1; /* 0, empty, becomes NONE */
    while (slot != NONE && s->slots[slot].id != id) slot = s->slots[slot].next;
    return slot;
}

/* What a session adds to the hash of all: a sum, so that their order does not enter it, of products, so that a command
 * costs a few multiplications. An opponent could make two states meet; bugs and broken memory do not. */
static struct lockstep_hash hash_of(const struct session *session)
{
    uint64_t inner = session->touched_ns + session->highest * UINT64_C(0x9e3779b97f4a7c15) +
                     session->seen_sum * UINT64_C(0xc2b2ae3d27d4eb4f) + 1;
    uint64_t weight = mix(session->id) | 1;
    return (struct lockstep_hash){weight * inner, (weight ^ UINT64_C(0x165667b19e3779f9)) * (inner ^ inner >> 32)};
}

static void hash_add(struct sessions *s, const struct session *session)
{
    struct lockstep_hash hash = hash_of(session);
    s->hash.low += hash.low;
    s->hash.high += hash.high;
}

static void hash_take(struct sessions *s, const struct session *session)
{
    struct lockstep_hash hash = hash_of(session);
    s->hash.low -= hash.low;
    s->hash.high -= hash.high;
}

static void list_add(struct sessions *s, uint32_t slot)
{
    slot_changes(s, slot);
    slot_changes(s, s->newest);
    s->slots[slot].older = s->newest;
    s->slots[slot].newer = NONE;
    if (s->newest != NONE)
        s->slots[s->newest].newer = slot;
    else
        s->oldest = slot;
    s->newest = slot;
}

static void list_take(struct sessions *s, uint32_t slot)
{
    const struct session *session = &s->slots[slot];
    slot_changes(s, session->older); /* the newer one changes in `older` alone, which nobody freezes for */
    if (session->older != NONE)
        s->slots[session->older].newer = session->newer;
    else
        s->oldest = session->newer;
    if (session->newer != NONE)
        s->slots[session->newer].older = session->older;
    else
        s->newest = session->older;
}

/* A new slot, filled but for its id, touch and bits, the newest of the list. NONE: full */
static uint32_t slot_take(struct sessions *s, uint64_t id)
{
    uint32_t slot = s->free;
    if (slot != NONE)
        s->free = s->slots[slot].next;
    else if (s->used < s->limits.sessions_max)
        slot = s->used++;
    else
        return NONE;
    uint32_t *bucket = bucket_of(s, id);
    slot_changes(s, slot);
    bucket_changes(s, bucket);
    s->slots[slot] = (struct session){.id = id, .next = *bucket - 1};
    *bucket = slot + 1;
    list_add(s, slot);
    s->count++;
    return slot;
}

static void slot_give(struct sessions *s, uint32_t slot)
{
    struct session *session = &s->slots[slot];
    hash_take(s, session);
    list_take(s, slot);
    uint32_t *bucket = bucket_of(s, session->id);
    slot_changes(s, slot);
    bucket_changes(s, bucket);
    if (*bucket == slot + 1) {
        *bucket = session->next + 1;
    } else {
        uint32_t before = *bucket - 1;
        while (s->slots[before].next != slot) before = s->slots[before].next;
        slot_changes(s, before);
        s->slots[before].next = session->next;
    }
    session->id = 0;
    session->next = s->free;
    s->free = slot;
    s->count--;
}

/* Between hash_take and hash_add. */
static void touch(struct sessions *s, uint32_t slot)
{
    slot_changes(s, slot);
    s->slots[slot].touched_ns = s->now_ns;
    if (s->newest == slot) return;
    list_take(s, slot);
    list_add(s, slot);
}

uint64_t sessions_due_ns(const struct sessions *sessions)
{
    if (sessions->count == 0) return UINT64_MAX;
    uint64_t touched_ns = sessions->slots[sessions->oldest].touched_ns;
    if (touched_ns < sessions->floor_ns) touched_ns = sessions->floor_ns;
    return touched_ns + sessions->limits.expiry_ns;
}

uint32_t sessions_count(const struct sessions *sessions)
{
    return sessions->count;
}

struct lockstep_hash sessions_hash(const struct sessions *sessions)
{
    return sessions->hash;
}

void sessions_block(struct sessions *sessions, bool first_of_term, uint64_t time_ns)
{
    lk_assert(time_ns >= sessions->now_ns);
    sessions->now_ns = time_ns;
    if (first_of_term) sessions->floor_ns = time_ns;
    while (sessions_due_ns(sessions) <= time_ns) slot_give(sessions, sessions->oldest);
}

int sessions_begin(struct sessions *sessions, log_position id)
{
    lk_assert(id != 0 && slot_of(sessions, id) == NONE);
    uint32_t slot = slot_take(sessions, id);
    if (slot == NONE) return LOCKSTEP_EFULL;
    sessions->slots[slot].touched_ns = sessions->now_ns;
    hash_add(sessions, &sessions->slots[slot]);
    return 0;
}

int sessions_keep(struct sessions *sessions, uint64_t id)
{
    uint32_t slot = slot_of(sessions, id);
    if (slot == NONE) return LOCKSTEP_ENOTFOUND;
    hash_take(sessions, &sessions->slots[slot]);
    touch(sessions, slot);
    hash_add(sessions, &sessions->slots[slot]);
    return 0;
}

int sessions_end(struct sessions *sessions, uint64_t id)
{
    uint32_t slot = slot_of(sessions, id);
    if (slot == NONE) return LOCKSTEP_ENOTFOUND;
    slot_give(sessions, slot);
    return 0;
}

/* --- seqs --- */

static bool is_below_window(const struct sessions *s, const struct session *session, uint64_t seq)
{
    return session->highest >= s->limits.window && seq <= session->highest - s->limits.window;
}

static bool is_seen(const struct session *session, uint64_t seq)
{
    return (session->seen[seq % SESSIONS_WINDOW_MAX / 64] >> (seq % 64) & 1) != 0;
}

static void see(struct session *session, uint64_t seq)
{
    session->seen[seq % SESSIONS_WINDOW_MAX / 64] |= UINT64_C(1) << (seq % 64);
    session->seen_sum += mix(seq);
}

static void forget(struct session *session, uint64_t seq)
{
    if (!is_seen(session, seq)) return;
    session->seen[seq % SESSIONS_WINDOW_MAX / 64] &= ~(UINT64_C(1) << (seq % 64));
    session->seen_sum -= mix(seq);
}

/* E2: the highest seq rises, and the window with it. */
static void raise(const struct sessions *s, struct session *session, uint64_t seq)
{
    uint64_t window = s->limits.window, before = session->highest;
    session->highest = seq;
    if (seq - before >= window) {
        memset(session->seen, 0, sizeof session->seen);
        session->seen_sum = 0;
        return;
    }
    if (seq <= window) return;
    for (uint64_t gone = before > window ? before - window + 1 : 1; gone <= seq - window; gone++) forget(session, gone);
}

/* --- replies --- */

static uint64_t *reply_bucket_of(const struct sessions *s, uint64_t session, uint64_t seq)
{
    return &s->reply_buckets[(mix(session) + seq) & s->reply_bucket_mask];
}

static uint8_t *at(const struct sessions *s, uint64_t offset)
{
    return s->replies + (offset & (s->limits.replies_bytes - 1));
}

static uint64_t reply_room(uint64_t bytes)
{
    return sizeof(struct reply) + ((bytes + 7) & ~UINT64_C(7));
}

static bool is_kept(const struct sessions *s, uint64_t bytes)
{
    return reply_room(bytes) <= s->limits.replies_bytes / 2;
}

static void frozen_replies(const struct sessions *s, struct frozen *frozen, uint64_t to);

/* Make the ring end at `end`: what lies too far behind it is no longer there. */
static void advance(struct sessions *s, uint64_t end)
{
    if (s->frozen != NULL && end > s->limits.replies_bytes) frozen_replies(s, s->frozen, end - s->limits.replies_bytes);
    s->end = end;
    while (end - s->first > s->limits.replies_bytes) {
        struct reply reply;
        memcpy(&reply.session, at(s, s->first), sizeof reply.session);
        if ((reply.session & FILL) != 0) {
            s->first += reply.session & ~FILL;
            continue;
        }
        memcpy(&reply, at(s, s->first), sizeof reply);
        s->first += reply_room(reply.bytes);
    }
    lk_assert(s->first <= end);
}

/* Bytes that mean nothing from the end on, up to `end`. */
static void fill_to(struct sessions *s, uint64_t end)
{
    uint64_t from = s->end;
    while (from < end) { /* a fill does not lie across the ring's end either */
        uint64_t room = s->limits.replies_bytes - (from & (s->limits.replies_bytes - 1));
        uint64_t bytes = end - from < room ? end - from : room;
        uint64_t word = FILL | bytes;
        advance(s, from + bytes);
        memcpy(at(s, from), &word, sizeof word);
        from += bytes;
    }
}

/* The offset at which a reply of so many bytes would lie. */
static uint64_t place_of(const struct sessions *s, uint64_t bytes)
{
    uint64_t room = s->limits.replies_bytes - (s->end & (s->limits.replies_bytes - 1));
    return reply_room(bytes) <= room ? s->end : s->end + room;
}

/* header->older is set here. */
static void reply_put(struct sessions *s, struct reply *header, const uint8_t *bytes)
{
    uint64_t offset = place_of(s, header->bytes);
    uint64_t *bucket = reply_bucket_of(s, header->session, header->seq);
    fill_to(s, offset);
    advance(s, offset + reply_room(header->bytes));
    header->older = *bucket;
    *bucket = offset;
    memcpy(at(s, offset), header, sizeof *header);
    if (header->bytes > 0) memcpy(at(s, offset) + sizeof *header, bytes, header->bytes);
}

/* False: it is kept no more. */
static bool reply_find(const struct sessions *s, uint64_t session, uint64_t seq, struct session_answer *ret)
{
    uint64_t offset = *reply_bucket_of(s, session, seq);
    struct reply reply;
    for (; offset >= s->first; offset = reply.older) {
        memcpy(&reply, at(s, offset), sizeof reply);
        if (reply.session != session || reply.seq != seq) continue;
        *ret = (struct session_answer){
            .code = reply.code,
            .index = reply.index,
            .position = reply.position,
            .reply = at(s, offset) + sizeof reply,
            .reply_bytes = reply.bytes,
        };
        return true;
    }
    return false;
}

/* --- commands --- */

/* As sessions_find, of a session that is there. */
static bool find(const struct sessions *s, const struct session *session, uint64_t seq, struct session_answer *ret)
{
    *ret = (struct session_answer){0};
    if (seq == 0)
        ret->error = LOCKSTEP_EINVAL;
    else if (is_below_window(s, session, seq))
        ret->error = LOCKSTEP_EWINDOW;
    else if (seq > session->highest || !is_seen(session, seq))
        return false;
    else if (!reply_find(s, session->id, seq, ret))
        ret->error = LOCKSTEP_EREPLIED;
    return true;
}

bool sessions_find(const struct sessions *sessions, uint64_t session, uint64_t seq, struct session_answer *ret)
{
    uint32_t slot = slot_of(sessions, session);
    if (slot != NONE) return find(sessions, &sessions->slots[slot], seq, ret);
    *ret = (struct session_answer){.error = LOCKSTEP_ENOTFOUND};
    return true;
}

bool sessions_judge(struct sessions *sessions, uint64_t session, uint64_t seq, struct session_answer *ret)
{
    uint32_t slot = slot_of(sessions, session);
    if (slot == NONE) {
        *ret = (struct session_answer){.error = LOCKSTEP_ENOTFOUND};
        return false;
    }
    struct session *known = &sessions->slots[slot];
    bool is_new = !find(sessions, known, seq, ret);
    hash_take(sessions, known);
    touch(sessions, slot);
    if (is_new) {
        if (seq > known->highest) raise(sessions, known, seq);
        see(known, seq);
    }
    hash_add(sessions, known);
    return is_new;
}

void sessions_answered(struct sessions *sessions, uint64_t session, uint64_t seq, const struct session_answer *answer)
{
    lk_assert(answer->error == 0);
    struct reply header = {
        .session = session,
        .seq = seq,
        .index = answer->index,
        .position = answer->position,
        .bytes = answer->reply_bytes,
        .code = answer->code,
    };
    if (is_kept(sessions, header.bytes)) reply_put(sessions, &header, answer->reply);
}

/* --- the state as bytes: header, sessions from the one touched longest ago on, replies from the oldest on --- */

struct state_header {
    uint32_t magic, version;
    uint32_t window, sessions_max;
    uint64_t replies_bytes, expiry_ns;
    uint64_t now_ns, floor_ns;
    uint64_t end; /* of the ring of replies */
    uint64_t reply_count;
    uint32_t count; /* of sessions */
    uint32_t unused;
};
static_assert(sizeof(struct state_header) == 72, "no padding is written");

struct state_session {
    uint64_t id, touched_ns, highest;
    uint64_t seen[SEEN_WORDS];
};
static_assert(sizeof(struct state_session) == 24 + SESSIONS_WINDOW_MAX / 8, "no padding is written");

int sessions_freeze(struct sessions *sessions)
{
    lk_assert(sessions->frozen == NULL);
    struct frozen *frozen = calloc(1, sizeof *frozen);
    if (frozen == NULL) return LOCKSTEP_ENOMEM;
    struct state_header header = {
        .magic = STATE_MAGIC,
        .version = STATE_VERSION,
        .window = sessions->limits.window,
        .sessions_max = sessions->limits.sessions_max,
        .replies_bytes = sessions->limits.replies_bytes,
        .expiry_ns = sessions->limits.expiry_ns,
        .now_ns = sessions->now_ns,
        .floor_ns = sessions->floor_ns,
        .end = sessions->end,
        .count = sessions->count,
    };
    uint64_t sessions_bytes = sizeof header + header.count * sizeof(struct state_session);
    frozen->bytes = malloc(sessions_bytes + (sessions->end - sessions->first)); /* at most; untouched until used */
    if (!before_open(&frozen->slots, sessions->slots, sizeof *sessions->slots, sessions->used) ||
        !before_open(&frozen->buckets, sessions->buckets, sizeof *sessions->buckets, sessions->bucket_mask + 1) ||
        frozen->bytes == NULL) {
        frozen_free(frozen);
        return LOCKSTEP_ENOMEM;
    }
    memcpy(frozen->bytes, &header, sizeof header);
    frozen->session_to = frozen->bytes + sizeof header;
    frozen->reply_to = frozen->bytes + sessions_bytes;
    frozen->slot = sessions->oldest;
    frozen->next = sessions->first;
    frozen->end = sessions->end;
    sessions->frozen = frozen;
    return 0;
}

static const struct session *frozen_session(const struct frozen *frozen, uint32_t slot)
{
    return before_item(&frozen->slots, slot);
}

/* NULL: it had ended. */
static const struct session *frozen_find(const struct sessions *s, const struct frozen *frozen, uint64_t id)
{
    const uint32_t *bucket = before_item(&frozen->buckets, (uint32_t)(mix(id) & s->bucket_mask));
    uint32_t slot = *bucket - 1;
    while (slot != NONE && frozen_session(frozen, slot)->id != id) slot = frozen_session(frozen, slot)->next;
    return slot != NONE ? frozen_session(frozen, slot) : NULL;
}

/* Write those that lie before the offset `to` and that somebody can still ask for. */
static void frozen_replies(const struct sessions *s, struct frozen *frozen, uint64_t to)
{
    while (frozen->next < to && frozen->next < frozen->end) {
        struct reply reply;
        uint64_t offset = frozen->next;
        memcpy(&reply.session, at(s, offset), sizeof reply.session);
        if ((reply.session & FILL) != 0) {
            frozen->next += reply.session & ~FILL;
            continue;
        }
        memcpy(&reply, at(s, offset), sizeof reply);
        uint64_t bytes = reply.bytes, room = reply_room(bytes);
        frozen->next += room;
        const struct session *session = frozen_find(s, frozen, reply.session);
        if (session == NULL || is_below_window(s, session, reply.seq)) continue;
        reply.older = offset;
        memcpy(frozen->reply_to, &reply, sizeof reply);
        memset(frozen->reply_to + room - 8, 0, bytes > 0 ? 8 : 0); /* behind a reply's bytes nothing is anybody's */
        memcpy(frozen->reply_to + sizeof reply, at(s, offset) + sizeof reply, bytes);
        frozen->reply_to += room;
        frozen->reply_count++;
    }
}

bool sessions_freeze_step(struct sessions *sessions, uint64_t bytes)
{
    struct frozen *frozen = sessions->frozen;
    for (; frozen->slot != NONE; bytes -= sizeof(struct state_session)) {
        if (bytes < sizeof(struct state_session)) return false;
        const struct session *session = frozen_session(frozen, frozen->slot);
        struct state_session state = {
            .id = session->id, .touched_ns = session->touched_ns, .highest = session->highest};
        memcpy(state.seen, session->seen, sizeof state.seen);
        memcpy(frozen->session_to, &state, sizeof state);
        frozen->session_to += sizeof state;
        frozen->slot = session->newer;
    }
    frozen_replies(sessions, frozen, frozen->next + bytes);
    return frozen->next == frozen->end;
}

uint8_t *sessions_thaw(struct sessions *sessions, uint64_t *ret_bytes)
{
    struct frozen *frozen = sessions->frozen;
    lk_assert(frozen->slot == NONE && frozen->next == frozen->end);
    uint8_t *bytes = frozen->bytes;
    memcpy(bytes + offsetof(struct state_header, reply_count), &frozen->reply_count, sizeof frozen->reply_count);
    *ret_bytes = (uint64_t)(frozen->reply_to - bytes);
    frozen->bytes = NULL;
    frozen_free(frozen);
    sessions->frozen = NULL;
    return bytes;
}

static int session_read(struct sessions *s, const uint8_t *from)
{
    struct state_session state;
    memcpy(&state, from, sizeof state);
    uint64_t newest_ns = s->newest != NONE ? s->slots[s->newest].touched_ns : 0;
    if (state.id == 0 || (state.id & FILL) != 0 || slot_of(s, state.id) != NONE) return LOCKSTEP_ECORRUPT;
    if (state.touched_ns < newest_ns || state.touched_ns > s->now_ns) return LOCKSTEP_ECORRUPT;
    uint32_t slot = slot_take(s, state.id);
    if (slot == NONE) return LOCKSTEP_ECORRUPT;
    struct session *session = &s->slots[slot];
    session->touched_ns = state.touched_ns;
    session->highest = state.highest;
    uint64_t seen = 0, found = 0;
    for (unsigned i = 0; i < SEEN_WORDS; i++) seen += (uint64_t)__builtin_popcountll(state.seen[i]);
    memcpy(session->seen, state.seen, sizeof state.seen);
    for (uint64_t seq = state.highest; seq > 0 && !is_below_window(s, session, seq); seq--) {
        if (!is_seen(session, seq)) continue;
        session->seen_sum += mix(seq);
        found++;
    }
    hash_add(s, session);
    return seen == found && (state.highest == 0 || is_seen(session, state.highest)) ? 0 : LOCKSTEP_ECORRUPT;
}

/* ret  the bytes that it took; 0: damaged */
static uint64_t reply_read(struct sessions *s, const uint8_t *from, uint64_t bytes, uint64_t end)
{
    struct reply reply;
    if (bytes < sizeof reply) return 0;
    memcpy(&reply, from, sizeof reply);
    uint64_t offset = reply.older, room = reply_room(reply.bytes);
    uint32_t slot = slot_of(s, reply.session);
    if (slot == NONE || room > bytes || !is_kept(s, reply.bytes)) return 0;
    const struct session *session = &s->slots[slot];
    if (reply.seq == 0 || reply.seq > session->highest || is_below_window(s, session, reply.seq) ||
        !is_seen(session, reply.seq))
        return 0;
    if (offset < s->end || offset % 8 != 0 || offset >= end || end - offset < room ||
        end - offset > s->limits.replies_bytes)
        return 0;
    if (s->first == s->end) s->first = s->end = offset; /* nothing in front of the first one is there */
    fill_to(s, offset);
    if (place_of(s, reply.bytes) != offset) return 0;
    reply_put(s, &reply, from + sizeof reply);
    return room;
}

static void empty(struct sessions *s)
{
    while (s->count > 0) slot_give(s, s->oldest);
    memset(s->reply_buckets, 0, (s->reply_bucket_mask + 1) * sizeof *s->reply_buckets);
    s->first = s->end = FIRST_OFFSET;
    s->now_ns = s->floor_ns = 0;
}

int sessions_read(struct sessions *sessions, const uint8_t *from, uint64_t bytes)
{
    const struct session_limits *limits = &sessions->limits;
    struct state_header header;
    lk_assert(sessions->count == 0 && sessions->end == FIRST_OFFSET);
    if (bytes < sizeof header) return LOCKSTEP_ECORRUPT;
    memcpy(&header, from, sizeof header);
    if (header.magic != STATE_MAGIC) return LOCKSTEP_ECORRUPT;
    if (header.version != STATE_VERSION) return LOCKSTEP_EVERSION;
    if (header.window != limits->window || header.sessions_max != limits->sessions_max ||
        header.replies_bytes != limits->replies_bytes || header.expiry_ns != limits->expiry_ns)
        return LOCKSTEP_EFOREIGN;
    if (header.count > limits->sessions_max || header.floor_ns > header.now_ns || header.now_ns > UINT64_MAX / 4 ||
        header.end < FIRST_OFFSET || header.end % 8 != 0 || header.unused != 0)
        return LOCKSTEP_ECORRUPT;
    from += sizeof header;
    bytes -= sizeof header;
    if (bytes / sizeof(struct state_session) < header.count) return LOCKSTEP_ECORRUPT;
    sessions->now_ns = header.now_ns;
    sessions->floor_ns = header.floor_ns;
    for (uint32_t i = 0; i < header.count; i++) {
        if (session_read(sessions, from) != 0) goto damaged;
        from += sizeof(struct state_session);
        bytes -= sizeof(struct state_session);
    }
    for (uint64_t i = 0; i < header.reply_count; i++) {
        uint64_t took = reply_read(sessions, from, bytes, header.end);
        if (took == 0) goto damaged;
        from += took;
        bytes -= took;
    }
    if (bytes != 0) goto damaged;
    if (sessions->first == sessions->end)
        sessions->first = sessions->end = header.end;
    else
        fill_to(sessions, header.end);
    return 0;
damaged:
    empty(sessions);
    return LOCKSTEP_ECORRUPT;
}
