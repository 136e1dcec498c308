/* SPDX-License-Identifier: Apache-2.0 */
/* message.h - what one core says to another. Values only: no pointers, no bytes of blocks.
 * The peer frame carries these fields; blocks follow an APPEND as bytes and are checked before the core sees them. */
#ifndef LOCKSTEP_RAFT_MESSAGE_H
#define LOCKSTEP_RAFT_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"

enum raft_message_type {
    RAFT_PREVOTE = 1,
    RAFT_PREVOTE_REPLY,
    RAFT_VOTE,
    RAFT_VOTE_REPLY,
    RAFT_APPEND,
    RAFT_HEARTBEAT,
    RAFT_ACK, /* answers RAFT_APPEND and RAFT_HEARTBEAT, and leaves again whenever a flush completes */
    RAFT_TIMEOUT_NOW,
    RAFT_INSTALL,     /* a piece of a snapshot, for a peer that needs blocks which are compacted; its bytes follow */
    RAFT_INSTALL_ACK, /* how much of a snapshot the peer holds */
    RAFT_MESSAGE_TYPES,
};

/* PREVOTE asks for campaign_term = term + 1 without taking it; VOTE has campaign_term = term. */
struct raft_vote_request {
    raft_term campaign_term;
    raft_index last_index;
    raft_term last_term;
    bool transfer; /* the leader asked for this election: its lease does not count */
};

struct raft_vote_reply {
    raft_term campaign_term; /* echoed: a reply to an older round counts for nothing */
    bool granted;
};

/* Blocks first..last follow; first = previous_index + 1. */
struct raft_append {
    raft_index previous_index;
    raft_term previous_term;
    raft_index last_index;
    raft_index commit;
    uint64_t round; /* newest read round; 0 = none */
};

/* match_index/match_term: the newest block that the leader knows this follower to hold. */
struct raft_heartbeat {
    raft_index match_index;
    raft_term match_term;
    raft_index commit;
    uint64_t round;
};

struct raft_ack {
    raft_index durable_index;   /* min(validated_index, durable mark): what counts for commit */
    raft_index validated_index; /* last that this term's leader validated there; a promise of nothing: it tells a slow
                                 * disk from a lost append */
    raft_index rejected_index;  /* previous_index of a refused append; 0 = nothing refused */
    raft_index hint_index;      /* with a refusal: the follower's best place to try next, with its term there */
    raft_term hint_term;
    uint64_t round; /* echoed */
    bool rejected;
    bool full; /* the payload was dropped for lack of room: probe with back-off */
};

/* Which snapshot: the block that its state stands behind, and what its bytes are. Equal records mean equal bytes,
 * whoever made them. */
struct raft_snapshot {
    raft_index index; /* 0 = none */
    raft_term term;
    uint32_t block_crc; /* header_crc of that block */
    uint32_t checksum;  /* crc32c of all bytes */
    log_position next_position;
    uint64_t time_ns;
    uint64_t bytes;
};

/* The bytes from `offset` on follow; none with offset = snapshot.bytes: a question how far the peer is. */
struct raft_install {
    struct raft_snapshot snapshot;
    uint64_t offset;
    uint64_t round;
};

struct raft_install_ack {
    raft_index index;
    uint32_t checksum;
    uint64_t offset; /* held durably up to here: what to send next */
};

struct raft_message {
    uint8_t type;
    raft_member from, to;
    raft_term term; /* the sender's */
    union {
        struct raft_vote_request vote; /* PREVOTE, VOTE */
        struct raft_vote_reply vote_reply;
        struct raft_append append;
        struct raft_heartbeat heartbeat;
        struct raft_ack ack;
        struct raft_install install;
        struct raft_install_ack install_ack;
    } as;
};

#endif
