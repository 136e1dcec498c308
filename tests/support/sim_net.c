/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/sim_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"

struct packet {
    struct packet *next; /* by due time, then by sending */
    uint64_t due_ns;
    unsigned from;
    unsigned slot;       /* of the sender at the receiver */
    uint32_t generation; /* of that slot: a frame for another peer than has it now is lost with its connection */
    raft_member from_id;
    uint8_t type;
    struct raft_message message;
    size_t bytes;
    uint8_t body[];
};

struct end {
    struct transport transport; /* first: ops find the end by it */
    struct sim_net *net;
    unsigned slot;
    bool attached, mute;
    struct transport_owner owner;
    struct transport_hello hello;
    struct packet *inbox; /* ordered */
    struct packet *handed;
    unsigned end_of[RAFT_MEMBERS_MAX]; /* by slot; RAFT_MEMBERS_MAX = nobody, or not dialled */
    uint32_t generation[RAFT_MEMBERS_MAX];
    char peers[RAFT_MEMBERS_MAX][TRANSPORT_NAME_BYTES_MAX + TRANSPORT_ADDRESS_BYTES_MAX];
    int refused[RAFT_MEMBERS_MAX]; /* [slot]: our hello, with this code; refuses: we refused theirs */
    int refuses[RAFT_MEMBERS_MAX];
    raft_member accepted[RAFT_MEMBERS_MAX]; /* [slot]: who answered the last hello; 0 = nobody, or it is gone */
    char reason[RAFT_MEMBERS_MAX][TRANSPORT_REASON_BYTES_MAX];
};

struct sim_net {
    struct random *random;
    const uint64_t *now_ns;
    struct sim_net_faults faults;
    struct sim_net_watch watch;
    struct end ends[RAFT_MEMBERS_MAX];
    bool judging; /* a hello: who is asked about it may ask for a peer's status */
    bool cut[RAFT_MEMBERS_MAX][RAFT_MEMBERS_MAX];
};

struct sim_net *sim_net_open(struct random *random, const uint64_t *now_ns)
{
    struct sim_net *net = calloc(1, sizeof *net);
    lk_assert(net != NULL);
    net->random = random;
    net->now_ns = now_ns;
    return net;
}

static void inbox_clear(struct end *end)
{
    free(end->handed);
    end->handed = NULL;
    while (end->inbox != NULL) {
        struct packet *packet = end->inbox;
        end->inbox = packet->next;
        free(packet);
    }
}

void sim_net_close(struct sim_net *net)
{
    if (net == NULL) return;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) inbox_clear(&net->ends[i]);
    free(net);
}

void sim_net_faults_set(struct sim_net *net, const struct sim_net_faults *faults)
{
    net->faults = *faults;
}

void sim_net_cut(struct sim_net *net, unsigned from, unsigned to, bool cut)
{
    net->cut[from][to] = cut;
    if (!cut) return;
    for (struct packet **at = &net->ends[to].inbox; *at != NULL;) {
        struct packet *packet = *at;
        if (packet->from != from) {
            at = &packet->next;
            continue;
        }
        *at = packet->next;
        free(packet);
    }
}

/* On its way: the packet is the network's from here on. */
static void deliver(struct sim_net *net, struct end *to, struct packet *packet)
{
    packet->due_ns = *net->now_ns + random_between(net->random, net->faults.delay_ns_min, net->faults.delay_ns_max);
    struct packet **at = &to->inbox;
    while (*at != NULL && (*at)->due_ns <= packet->due_ns) at = &(*at)->next;
    packet->next = *at;
    *at = packet;
}

static struct packet *packet_copy(const struct packet *packet)
{
    struct packet *copy = malloc(sizeof *copy + packet->bytes);
    lk_assert(copy != NULL);
    memcpy(copy, packet, sizeof *copy + packet->bytes);
    return copy;
}

void sim_net_mute(struct sim_net *net, unsigned slot)
{
    net->ends[slot].mute = true;
}

void sim_net_watch_set(struct sim_net *net, const struct sim_net_watch *watch)
{
    net->watch = *watch;
}

void sim_net_hang_up(struct sim_net *net, unsigned from, unsigned to)
{
    if (net->cut[from][to] || !net->ends[to].attached) return;
    unsigned slot = 0;
    while (slot < RAFT_MEMBERS_MAX && net->ends[to].end_of[slot] != from) slot++;
    if (slot == RAFT_MEMBERS_MAX) return; /* no peer of it: it did not listen */
    struct packet *packet = calloc(1, sizeof *packet);
    lk_assert(packet != NULL);
    packet->from = from;
    packet->slot = slot;
    packet->generation = net->ends[to].generation[slot];
    packet->from_id = net->ends[from].hello.member_id;
    packet->type = FRAME_HANGUP;
    packet->due_ns = *net->now_ns + random_between(net->random, net->faults.delay_ns_min, net->faults.delay_ns_max);
    struct packet **at = &net->ends[to].inbox, **behind = at;
    for (; *at != NULL; at = &(*at)->next) {
        if ((*at)->from == from && packet->due_ns < (*at)->due_ns) packet->due_ns = (*at)->due_ns;
        if ((*at)->from == from || (*at)->due_ns <= packet->due_ns) behind = &(*at)->next;
    }
    packet->next = *behind;
    *behind = packet;
}

/* Both say who they are, and each accepts the other; *ret_slot is the dialler's at the other end. */
static bool hello_accepted(struct end *end, unsigned slot, unsigned *ret_slot)
{
    if (end->end_of[slot] == RAFT_MEMBERS_MAX) return false;
    struct end *to = &end->net->ends[end->end_of[slot]];
    char *reason = end->reason[slot];
    unsigned dialled = slot;
    *ret_slot = RAFT_MEMBERS_MAX;
    if (!to->attached || to == end) {
        snprintf(reason, TRANSPORT_REASON_BYTES_MAX, "connection refused");
        return false;
    }
    lk_assert(!end->net->judging);
    end->net->judging = true;
    end->refused[slot] = to->owner.hello_check(to->owner.context, ret_slot, &end->hello, reason);
    if (end->refused[slot] == 0)
        end->refuses[slot] = end->owner.hello_check(end->owner.context, &dialled, &to->hello, reason);
    end->net->judging = false;
    bool accepted = end->refused[slot] == 0 && end->refuses[slot] == 0;
    end->accepted[slot] = accepted ? to->hello.member_id : 0;
    if (accepted) reason[0] = 0;
    return accepted;
}

static struct packet *packet_of(const struct end *end, const struct transport_send *send, unsigned slot,
                                uint32_t generation)
{
    size_t bytes = send->body_bytes + send->more_bytes + send->ring_bytes + send->blocks_bytes;
    struct packet *packet = malloc(sizeof *packet + bytes);
    lk_assert(packet != NULL);
    *packet = (struct packet){.from = end->slot,
                              .slot = slot,
                              .generation = generation,
                              .from_id = end->hello.member_id,
                              .type = send->type,
                              .bytes = bytes};
    if (send->message != NULL) packet->message = *send->message;
    uint8_t *to = packet->body;
    if (send->body_bytes > 0) memcpy(to, send->body, send->body_bytes);
    to += send->body_bytes;
    if (send->more_bytes > 0) memcpy(to, send->more, send->more_bytes);
    to += send->more_bytes;
    if (send->ring_bytes > 0)
        memcpy(to, ring_at(end->owner.ring(end->owner.context), send->ring_from), send->ring_bytes);
    else if (send->blocks_bytes > 0)
        memcpy(to, send->blocks, send->blocks_bytes);
    return packet;
}

static int net_send(struct transport *t, const struct transport_send *send)
{
    struct end *end = (struct end *)t;
    struct sim_net *net = end->net;
    unsigned slot, to = end->end_of[send->slot];
    if (end->mute) return LOCKSTEP_EUNREACHABLE;
    if (net->watch.sent != NULL && to != RAFT_MEMBERS_MAX) net->watch.sent(net->watch.context, end->slot, to, send);
    if (!hello_accepted(end, send->slot, &slot)) return LOCKSTEP_EUNREACHABLE;
    struct end *other = &net->ends[to];
    bool lost = net->cut[end->slot][to] || random_chance(net->random, net->faults.loss_per_1000, 1000);
    struct packet *packet = lost ? NULL : packet_of(end, send, slot, other->generation[slot]);
    if (!lost) deliver(net, other, packet);
    bool twice = send->type == FRAME_RAFT && random_chance(net->random, net->faults.duplicate_per_1000, 1000);
    if (!lost && twice) deliver(net, other, packet_copy(packet));
    return 0;
}

static uint64_t net_queued_bytes(struct transport *t, unsigned slot)
{
    (void)t;
    (void)slot;
    return 0;
}

static bool net_blocks_idle(struct transport *t, unsigned slot)
{
    (void)t;
    (void)slot;
    return true; /* copied at send */
}

static bool net_next(struct transport *t, struct transport_frame *ret)
{
    struct end *end = (struct end *)t;
    lk_assert(end->handed == NULL);
    struct packet *packet;
    for (;;) {
        packet = end->inbox;
        if (packet == NULL || packet->due_ns > *end->net->now_ns) return false;
        end->inbox = packet->next;
        if (packet->generation == end->generation[packet->slot]) break;
        free(packet);
    }
    end->handed = packet;
    *ret = (struct transport_frame){.slot = packet->slot,
                                    .member_id = packet->from_id,
                                    .type = packet->type,
                                    .message = packet->message,
                                    .body = packet->body,
                                    .body_bytes = packet->bytes};
    return true;
}

static void net_consume(struct transport *t)
{
    struct end *end = (struct end *)t;
    lk_assert(end->handed != NULL);
    free(end->handed);
    end->handed = NULL;
}

static void net_flush(struct transport *t)
{
    (void)t;
}

static int net_peer_set(struct transport *t, unsigned slot, const char *name, const char *address)
{
    struct end *end = (struct end *)t;
    char peer[sizeof end->peers[0]];
    snprintf(peer, sizeof peer, "%s %s", name, address);
    if (strcmp(peer, end->peers[slot]) == 0) return 0;
    memcpy(end->peers[slot], peer, sizeof peer);
    end->generation[slot]++;
    end->refused[slot] = end->refuses[slot] = 0;
    end->accepted[slot] = 0;
    end->reason[slot][0] = 0;
    end->end_of[slot] = name[0] != 0 && address[0] != 0 ? (unsigned)atoi(address) : RAFT_MEMBERS_MAX;
    return 0;
}

static void net_hello_set(struct transport *t, const struct transport_hello *hello)
{
    ((struct end *)t)->hello = *hello;
}

static void net_peer_status(struct transport *t, unsigned slot, struct transport_peer_status *ret)
{
    struct end *end = (struct end *)t;
    unsigned there;
    *ret = (struct transport_peer_status){0};
    /* Whoever asks while a hello is judged is told what was known before: a status asks nobody. */
    ret->connected_out = end->net->judging ? end->accepted[slot] != 0 : hello_accepted(end, slot, &there);
    ret->connected_in = ret->connected_out;
    if (ret->connected_out) ret->member_id = end->accepted[slot];
    if (ret->connected_out) ret->boot = end->net->ends[end->end_of[slot]].hello.boot;
    ret->refused = end->refused[slot];
    ret->refuses = end->refuses[slot];
    snprintf(ret->reason, sizeof ret->reason, "%s", end->reason[slot]);
}

static uint64_t net_frames_refused(struct transport *t)
{
    (void)t;
    return 0;
}

static void net_close(struct transport *t)
{
    struct end *end = (struct end *)t;
    sim_net_detach(end->net, end->slot);
}

static const struct transport_ops net_ops = {
    .send = net_send,
    .queued_bytes = net_queued_bytes,
    .blocks_idle = net_blocks_idle,
    .next = net_next,
    .consume = net_consume,
    .flush = net_flush,
    .peer_set = net_peer_set,
    .hello_set = net_hello_set,
    .peer_status = net_peer_status,
    .frames_refused = net_frames_refused,
    .close = net_close,
};

struct transport *sim_net_attach(struct sim_net *net, unsigned slot, const struct transport_owner *owner,
                                 const struct transport_hello *hello)
{
    struct end *end = &net->ends[slot];
    lk_assert(!end->attached);
    *end = (struct end){.transport.ops = &net_ops, .net = net, .slot = slot, .attached = true};
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) end->end_of[i] = i;
    end->owner = *owner;
    end->hello = *hello;
    return &end->transport;
}

void sim_net_detach(struct sim_net *net, unsigned slot)
{
    inbox_clear(&net->ends[slot]);
    net->ends[slot].attached = false;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++)
        for (unsigned peer = 0; peer < RAFT_MEMBERS_MAX; peer++)
            if (net->ends[i].end_of[peer] == slot) net->ends[i].accepted[peer] = 0;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) sim_net_hang_up(net, slot, i);
}

uint64_t sim_net_first_ns(const struct sim_net *net, unsigned slot)
{
    return net->ends[slot].inbox == NULL ? UINT64_MAX : net->ends[slot].inbox->due_ns;
}

uint64_t sim_net_next_ns(const struct sim_net *net)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        const struct packet *packet = net->ends[i].inbox;
        while (packet != NULL && packet->due_ns <= *net->now_ns) packet = packet->next;
        if (packet != NULL && packet->due_ns < next) next = packet->due_ns;
    }
    return next;
}

bool sim_net_due(const struct sim_net *net, unsigned slot)
{
    return net->ends[slot].inbox != NULL && net->ends[slot].inbox->due_ns <= *net->now_ns;
}

bool sim_net_hands(const struct sim_net *net, unsigned slot)
{
    return net->ends[slot].handed != NULL;
}
