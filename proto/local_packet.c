/* SPDX-License-Identifier: Apache-2.0 */
/* local_packet.c - see local_packet.h. */
#include "proto/local_packet.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum {
    HELLO_MAGIC = 0x4c48534c,  /* "LSHL" */
    REPLY_MAGIC = 0x5248534c,  /* "LSHR" */
    ASK_MAGIC = 0x5141534c,    /* "LSAQ" */
    ANSWER_MAGIC = 0x5241534c, /* "LSAR" */
};

/* As they lie in a packet. */
struct hello_packet {
    uint32_t magic, version;
    uint32_t kind, group;
    uint64_t cluster_id, member_id, boot, wanted_id, wanted_boot;
    uint64_t zero;
};
static_assert(sizeof(struct hello_packet) == LOCAL_HELLO_BYTES, "no holes: no stale memory leaves this process");

struct reply_packet {
    uint32_t magic, version;
    int32_t error;
    uint32_t group;
    uint64_t cluster_id, member_id, boot;
    uint64_t zero;
    char why[LOCAL_WHY_BYTES_MAX];
};
static_assert(sizeof(struct reply_packet) == LOCAL_REPLY_BYTES, "no holes");

struct ask_packet {
    uint32_t magic, version;
    uint64_t number, position, index;
    uint32_t offset, zero;
};
static_assert(sizeof(struct ask_packet) == LOCAL_ASK_BYTES, "no holes");

struct answer_packet {
    uint32_t magic, version;
    int32_t error;
    uint32_t offset;
    uint64_t number, index, oldest, zero;
};
static_assert(sizeof(struct answer_packet) == LOCAL_ANSWER_BYTES, "no holes");

socklen_t local_address(uint64_t cluster_id, raft_member member_id, struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->sun_family = AF_UNIX;
    /* sun_path[0] stays 0: the name is abstract */
    int length = snprintf(ret->sun_path + 1, sizeof ret->sun_path - 1, "lockstep/%016llx/%016llx",
                          (unsigned long long)cluster_id, (unsigned long long)member_id);
    lk_assert(length > 0 && (size_t)length < sizeof ret->sun_path - 1);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

void local_hello_write(const struct local_hello *hello, uint8_t to[LOCAL_HELLO_BYTES])
{
    const struct hello_packet p = {
        .magic = HELLO_MAGIC,
        .version = LOCAL_PACKET_VERSION,
        .kind = hello->kind,
        .group = hello->group,
        .cluster_id = hello->cluster_id,
        .member_id = hello->member_id,
        .boot = hello->boot,
        .wanted_id = hello->wanted_id,
        .wanted_boot = hello->wanted_boot,
    };
    memcpy(to, &p, sizeof p);
}

/* Magic and version stand in the same place in every packet of every version. */
static int head_check(const uint8_t *at, size_t bytes, uint32_t magic, size_t whole_bytes)
{
    uint32_t head[2];
    if (bytes < sizeof head) return LOCKSTEP_EPROTO;
    memcpy(head, at, sizeof head);
    if (head[0] != magic) return LOCKSTEP_EPROTO;
    if (head[1] != LOCAL_PACKET_VERSION) return LOCKSTEP_EVERSION;
    return bytes == whole_bytes ? 0 : LOCKSTEP_EPROTO;
}

int local_hello_read(const uint8_t *at, size_t bytes, struct local_hello *ret)
{
    struct hello_packet p;
    int rc = head_check(at, bytes, HELLO_MAGIC, sizeof p);
    if (rc != 0) return rc;
    memcpy(&p, at, sizeof p);
    if (p.kind != LOCAL_FOLLOWER && p.kind != LOCAL_OBSERVER) return LOCKSTEP_EPROTO;
    if (p.zero != 0) return LOCKSTEP_EPROTO;
    *ret = (struct local_hello){.kind = p.kind,
                                .group = p.group,
                                .cluster_id = p.cluster_id,
                                .member_id = p.member_id,
                                .boot = p.boot,
                                .wanted_id = p.wanted_id,
                                .wanted_boot = p.wanted_boot};
    return 0;
}

void local_reply_write(const struct local_reply *reply, uint8_t to[LOCAL_REPLY_BYTES])
{
    struct reply_packet p = {
        .magic = REPLY_MAGIC,
        .version = LOCAL_PACKET_VERSION,
        .error = reply->error,
        .group = reply->group,
        .cluster_id = reply->cluster_id,
        .member_id = reply->member_id,
        .boot = reply->boot,
    };
    memcpy(p.why, reply->why, strnlen(reply->why, sizeof p.why - 1));
    memcpy(to, &p, sizeof p);
}

int local_reply_read(const uint8_t *at, size_t bytes, struct local_reply *ret)
{
    struct reply_packet p;
    int rc = head_check(at, bytes, REPLY_MAGIC, sizeof p);
    if (rc != 0) return rc;
    memcpy(&p, at, sizeof p);
    size_t length = strnlen(p.why, sizeof p.why);
    if (p.zero != 0 || p.error > 0 || length == sizeof p.why) return LOCKSTEP_EPROTO;
    for (size_t i = 0; i < length; i++) /* it goes into logs */
        if ((unsigned char)p.why[i] < 0x20 || p.why[i] == 0x7f) return LOCKSTEP_EPROTO;
    *ret = (struct local_reply){
        .error = p.error, .group = p.group, .cluster_id = p.cluster_id, .member_id = p.member_id, .boot = p.boot};
    memcpy(ret->why, p.why, length);
    return 0;
}

void local_ask_write(const struct local_ask *ask, uint8_t to[LOCAL_ASK_BYTES])
{
    const struct ask_packet p = {
        .magic = ASK_MAGIC,
        .version = LOCAL_PACKET_VERSION,
        .number = ask->number,
        .position = ask->position,
        .index = ask->index,
        .offset = ask->offset,
    };
    memcpy(to, &p, sizeof p);
}

int local_ask_read(const uint8_t *at, size_t bytes, struct local_ask *ret)
{
    struct ask_packet p;
    int rc = head_check(at, bytes, ASK_MAGIC, sizeof p);
    if (rc != 0) return rc;
    memcpy(&p, at, sizeof p);
    bool by_position = p.position != 0 && p.index == 0 && p.offset == 0, by_index = p.position == 0 && p.index != 0;
    if (p.zero != 0 || !(by_position || by_index)) return LOCKSTEP_EPROTO;
    *ret = (struct local_ask){.number = p.number, .position = p.position, .index = p.index, .offset = p.offset};
    return 0;
}

void local_answer_write(const struct local_answer *answer, uint8_t to[LOCAL_ANSWER_BYTES])
{
    const struct answer_packet p = {
        .magic = ANSWER_MAGIC,
        .version = LOCAL_PACKET_VERSION,
        .error = answer->error,
        .offset = answer->offset,
        .number = answer->number,
        .index = answer->index,
        .oldest = answer->oldest,
    };
    memcpy(to, &p, sizeof p);
}

int local_answer_read(const uint8_t *at, size_t bytes, struct local_answer *ret)
{
    struct answer_packet p;
    if (bytes > LOCAL_ANSWER_BYTES_MAX) return LOCKSTEP_EPROTO;
    int rc = head_check(at, bytes < sizeof p ? bytes : sizeof p, ANSWER_MAGIC, sizeof p);
    if (rc != 0) return rc;
    memcpy(&p, at, sizeof p);
    if (p.zero != 0 || p.error > 0 || (p.error == 0) != (bytes > sizeof p)) return LOCKSTEP_EPROTO;
    *ret = (struct local_answer){
        .error = p.error, .offset = p.offset, .number = p.number, .index = p.index, .oldest = p.oldest};
    return 0;
}
