/* SPDX-License-Identifier: Apache-2.0 */
/* fake_node.h - a node that the test plays: it takes what the front asks, and answers what and when the test says.
 * Thread: the test's. */
#ifndef LOCKSTEP_TESTS_UNIT_SERVER_FAKE_NODE_H
#define LOCKSTEP_TESTS_UNIT_SERVER_FAKE_NODE_H

#include "server/node.h"

enum { FAKE_ASKED_MAX = 4096 };

struct fake_asked {
    bool is_query, is_transfer, is_change;
    struct node_change_request change;
    uint64_t tag;
    bool may_forward;
    struct node_command command; /* payload: see bytes */
    struct node_query query;
    char target[64];
    uint8_t bytes[64]; /* the beginning of the payload or query */
};

struct node {
    struct node_options options;
    struct plugin plugin;
    struct node_owner owner;
    struct node_status status;
    unsigned leader; /* slot */
    int refuse;      /* what node_propose, node_query and node_transfer say; 0: they take it */
    bool hands_over;
    uint32_t room; /* proposals taken before EFULL; UINT32_MAX: all */
    uint32_t asked_count, answered_count;
    struct fake_asked asked[FAKE_ASKED_MAX];
    uint64_t position;    /* of the last one applied */
    const uint8_t *reply; /* NULL: the payload is the reply; else this is */
    uint32_t reply_bytes;
    bool draining; /* inside fake_drain: the front must not ask for anything */
    bool auto_answer;
};

void fake_node_init(struct node *node);
/* Answer the oldest unanswered ones; the reply is the payload. With error != 0 they fail with it. */
void fake_answer(struct node *node, uint32_t count, int error);
/* One turn: with auto_answer, everything asked is answered. */
void fake_drain(struct node *node);

#endif
