/* SPDX-License-Identifier: Apache-2.0 */
/* configuration.c - see configuration.h.
 *
 * configuration  0 magic u32   4 crc u32 (bytes 8..)   8 version u32   12 bytes u32 (all)
 *               16 uncommitted_bytes_max u64   24 level u32   28 member_count u32
 *               32 session_window u32  36 sessions_max u32   40 session_replies_bytes u32   44 session_expiry_ms u32
 *               48 members
 * member         0 id u64   8 role u8   9 priority u8  10 zero[6]
 *               16 name[64]   80 client[272]  352 peer[272]: ended and filled up with zeros */
#include "storage/configuration.h"

#include <assert.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"

enum { MAGIC = 0x4743534c /* "LSCG" */, CRC_FROM = 8 };

struct head_bytes {
    uint32_t magic, crc, version, bytes;
    uint64_t uncommitted_bytes_max;
    uint32_t level, member_count;
    uint32_t session_window, sessions_max, session_replies_bytes, session_expiry_ms;
};

struct member_bytes {
    uint64_t id;
    uint8_t role, priority, zero[6];
    char name[CONFIGURATION_NAME_BYTES_MAX];
    char client[CONFIGURATION_ADDRESS_BYTES_MAX];
    char peer[CONFIGURATION_ADDRESS_BYTES_MAX];
};
static_assert(sizeof(struct head_bytes) == 48, "as documented");
static_assert(sizeof(struct member_bytes) == 624, "as documented");
static_assert(sizeof(struct head_bytes) + RAFT_MEMBERS_MAX * sizeof(struct member_bytes) == CONFIGURATION_BYTES_MAX,
              "the header promises room for every configuration");

/* Ends within its room, printable, not empty. */
static bool text_valid(const char *text, size_t room)
{
    size_t bytes = strnlen(text, room);
    if (bytes == 0 || bytes == room) return false;
    for (size_t i = 0; i < bytes; i++)
        if (text[i] <= ' ' || text[i] > '~') return false;
    return true;
}

static bool member_valid(const struct configuration_member *m)
{
    if (m->id == 0 || m->role < CONFIGURATION_VOTER || m->role > CONFIGURATION_LEAVING) return false;
    return text_valid(m->name, sizeof m->name) && text_valid(m->client, sizeof m->client) &&
           text_valid(m->peer, sizeof m->peer);
}

bool configuration_valid(const struct configuration *c)
{
    unsigned before = 0, after = 0;
    if (c->member_count == 0 || c->member_count > RAFT_MEMBERS_MAX) return false;
    if (c->level < DURABILITY_LEVEL_FSYNC || c->level > DURABILITY_LEVEL_MEMORY) return false;
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct configuration_member *m = &c->members[i];
        if (!member_valid(m)) return false;
        for (uint32_t k = 0; k < i; k++)
            if (c->members[k].id == m->id) return false;
        if (m->role != CONFIGURATION_LEARNER && m->role != CONFIGURATION_INCOMING) before++;
        if (m->role == CONFIGURATION_VOTER || m->role == CONFIGURATION_INCOMING) after++;
    }
    return before > 0 && after > 0;
}

bool configuration_is_joint(const struct configuration *c)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].role >= CONFIGURATION_INCOMING) return true;
    return false;
}

const struct configuration_member *configuration_find(const struct configuration *c, raft_member id)
{
    for (uint32_t i = 0; i < c->member_count; i++)
        if (c->members[i].id == id) return &c->members[i];
    return NULL;
}

uint32_t configuration_write(const struct configuration *c, uint8_t to[CONFIGURATION_BYTES_MAX])
{
    lk_assert(configuration_valid(c));
    struct head_bytes head = {
        .magic = MAGIC,
        .version = CONFIGURATION_VERSION,
        .bytes = (uint32_t)(sizeof head + c->member_count * sizeof(struct member_bytes)),
        .uncommitted_bytes_max = c->uncommitted_bytes_max,
        .level = c->level,
        .member_count = c->member_count,
        .session_window = c->session_window,
        .sessions_max = c->sessions_max,
        .session_replies_bytes = c->session_replies_bytes,
        .session_expiry_ms = c->session_expiry_ms,
    };
    for (uint32_t i = 0; i < c->member_count; i++) {
        const struct configuration_member *m = &c->members[i];
        struct member_bytes bytes = {.id = m->id, .role = m->role, .priority = m->priority};
        memcpy(bytes.name, m->name, strlen(m->name));
        memcpy(bytes.client, m->client, strlen(m->client));
        memcpy(bytes.peer, m->peer, strlen(m->peer));
        memcpy(to + sizeof head + i * sizeof bytes, &bytes, sizeof bytes);
    }
    memcpy(to, &head, sizeof head);
    head.crc = crc32c(to + CRC_FROM, head.bytes - CRC_FROM);
    memcpy(to, &head, sizeof head);
    return head.bytes;
}

uint32_t configuration_version(const uint8_t *at)
{
    struct head_bytes head;
    memcpy(&head, at, sizeof head);
    return head.version;
}

/* Copied only up to its end: what stands behind it has to be zero, so that a configuration has one form. */
static bool text_read(const char *from, size_t room, char *to)
{
    size_t bytes = strnlen(from, room);
    for (size_t i = bytes; i < room; i++)
        if (from[i] != 0) return false;
    memcpy(to, from, room);
    return bytes < room;
}

static bool member_read(const uint8_t *at, struct configuration_member *ret)
{
    static const uint8_t zero[sizeof((struct member_bytes *)0)->zero];
    struct member_bytes bytes;
    memcpy(&bytes, at, sizeof bytes);
    *ret = (struct configuration_member){.id = bytes.id, .role = bytes.role, .priority = bytes.priority};
    return memcmp(bytes.zero, zero, sizeof zero) == 0 && text_read(bytes.name, sizeof bytes.name, ret->name) &&
           text_read(bytes.client, sizeof bytes.client, ret->client) &&
           text_read(bytes.peer, sizeof bytes.peer, ret->peer);
}

int configuration_read(const uint8_t *at, uint64_t bytes, struct configuration *ret)
{
    struct head_bytes head;
    if (bytes < sizeof head || bytes > CONFIGURATION_BYTES_MAX) return LOCKSTEP_ECORRUPT;
    memcpy(&head, at, sizeof head);
    if (head.magic != MAGIC || head.bytes != bytes) return LOCKSTEP_ECORRUPT;
    if (head.crc != crc32c(at + CRC_FROM, head.bytes - CRC_FROM)) return LOCKSTEP_ECORRUPT;
    if (head.version > CONFIGURATION_VERSION) return LOCKSTEP_EVERSION;
    if (head.member_count > RAFT_MEMBERS_MAX) return LOCKSTEP_ECORRUPT;
    if (bytes != sizeof head + head.member_count * sizeof(struct member_bytes)) return LOCKSTEP_ECORRUPT;
    struct configuration c = {
        .uncommitted_bytes_max = head.uncommitted_bytes_max,
        .level = head.level,
        .session_window = head.session_window,
        .sessions_max = head.sessions_max,
        .session_replies_bytes = head.session_replies_bytes,
        .session_expiry_ms = head.session_expiry_ms,
        .member_count = head.member_count,
    };
    for (uint32_t i = 0; i < head.member_count; i++)
        if (!member_read(at + sizeof head + i * sizeof(struct member_bytes), &c.members[i])) return LOCKSTEP_ECORRUPT;
    if (!configuration_valid(&c)) return LOCKSTEP_ECORRUPT;
    *ret = c;
    return 0;
}
