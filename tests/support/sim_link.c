/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/sim_link.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum { PACKETS_WAITING_MAX = 8, MS = 1000000, LATE_MS_MAX = 3000 };

enum news_kind { NEWS_HELLO, NEWS_GRANTED, NEWS_REFUSED, NEWS_NO_ANSWER, NEWS_BELL, NEWS_PACKET, NEWS_ENDED };

/* One side of a connection: DIALLED, LISTENED. */
struct side {
    struct end *end;
    unsigned number;
    bool there;         /* its owner has it, or will be told of its end */
    bool granted;       /* judged and found good; told so */
    bool bell;          /* is on its way */
    bool end_announced; /* its end is on its way */
    uint64_t last_ns;   /* what comes next comes not before this */
    uint32_t packets;   /* on their way */
};
enum { DIALLED, LISTENED };

struct wire {
    struct wire *next;
    struct local_hello hello;
    struct side sides[2];
    uint32_t news; /* that wait for either side */
};

/* What comes to a side. */
struct news {
    struct news *next; /* by due time, then by sending */
    uint64_t due_ns;
    struct wire *wire;
    uint8_t to, kind;
    struct local_reply reply;
    struct local_grant grant;
    const char *why;
    size_t bytes;
    uint8_t packet[];
};

struct end {
    struct local_link link; /* first: ops find the end by it */
    struct sim_links *links;
    bool open, mute, away, working;
    unsigned host;
    uint64_t (*clock)(const void *context);
    const void *clock_context;
    struct local_link_owner owner;
    uint64_t cluster_id; /* 0 = it does not listen */
    raft_member member_id;
    struct side *numbers[LOCAL_CONNECTIONS_MAX];
    struct news *inbox;
    uint64_t refused;
};

struct sim_links {
    struct random *random;
    const uint64_t *now_ns;
    struct sim_link_faults faults;
    struct end ends[RAFT_MEMBERS_MAX];
    struct wire *wires;
};

struct sim_links *sim_links_open(struct random *random, const uint64_t *now_ns)
{
    struct sim_links *links = calloc(1, sizeof *links);
    lk_assert(links != NULL);
    links->random = random;
    links->now_ns = now_ns;
    return links;
}

void sim_links_faults_set(struct sim_links *links, const struct sim_link_faults *faults)
{
    links->faults = *faults;
}

/* --- news --------------------------------------------------------------------------------------------------------- */

static void news_free(struct news *news)
{
    news->wire->news--;
    if (news->kind == NEWS_GRANTED) {
        if (news->grant.ring_fd >= 0) close(news->grant.ring_fd);
        if (news->grant.slot_fd >= 0) close(news->grant.slot_fd);
    }
    free(news);
}

static struct news *news_new(struct wire *wire, unsigned to, enum news_kind kind, const void *bytes, size_t count)
{
    struct news *news = calloc(1, sizeof *news + count);
    lk_assert(news != NULL);
    wire->news++;
    news->wire = wire;
    news->to = (uint8_t)to;
    news->kind = (uint8_t)kind;
    news->bytes = count;
    if (count > 0) memcpy(news->packet, bytes, count);
    return news;
}

static void news_queue(struct news *news)
{
    struct news **at = &news->wire->sides[news->to].end->inbox;
    while (*at != NULL && (*at)->due_ns <= news->due_ns) at = &(*at)->next;
    news->next = *at;
    *at = news;
}

/* What is sent on a connection comes in the order of sending. */
static void news_send(struct news *news)
{
    struct side *side = &news->wire->sides[news->to];
    struct sim_links *links = side->end->links;
    const struct sim_link_faults *faults = &links->faults;
    bool handshake = news->kind == NEWS_HELLO || news->kind == NEWS_GRANTED || news->kind == NEWS_REFUSED;
    uint64_t delay = random_between(links->random, faults->delay_ns_min, faults->delay_ns_max);
    if (handshake && random_chance(links->random, faults->late_per_1000, 1000))
        delay = random_below(links->random, (uint64_t)LATE_MS_MAX * MS);
    news->due_ns = *links->now_ns + delay;
    if (news->due_ns < side->last_ns) news->due_ns = side->last_ns;
    side->last_ns = news->due_ns;
    news_queue(news);
}

/* --- connections -------------------------------------------------------------------------------------------------- */

static void wires_sweep(struct sim_links *links)
{
    for (struct wire **at = &links->wires; *at != NULL;) {
        struct wire *wire = *at;
        if (wire->news > 0 || wire->sides[DIALLED].there || wire->sides[LISTENED].there) {
            at = &wire->next;
            continue;
        }
        *at = wire->next;
        free(wire);
    }
}

/* What is on its way to it comes to nobody. */
static void side_deaf(struct side *side, struct wire *wire)
{
    for (struct news **at = &side->end->inbox; *at != NULL;) {
        struct news *news = *at;
        if (news->wire != wire || &wire->sides[news->to] != side) {
            at = &news->next;
            continue;
        }
        *at = news->next;
        news_free(news);
    }
}

static void side_gone(struct side *side)
{
    lk_assert(side->there);
    side->there = false;
    side->end->numbers[side->number] = NULL;
}

/* The side hears that its connection has ended, behind what is on its way to it. */
static void side_end(struct wire *wire, unsigned which, const char *why)
{
    struct side *side = &wire->sides[which];
    if (!side->there || side->end_announced) return;
    side->end_announced = true;
    struct news *news = news_new(wire, which, NEWS_ENDED, NULL, 0);
    news->why = why;
    news_send(news);
}

static bool side_open(struct side *side)
{
    unsigned number = 0;
    while (number < LOCAL_CONNECTIONS_MAX && side->end->numbers[number] != NULL) number++;
    if (number == LOCAL_CONNECTIONS_MAX) return false;
    side->number = number;
    side->there = true;
    side->end->numbers[number] = side;
    return true;
}

/* A hello that nobody has read yet: its reader is gone, and the dialler hears of it. */
static void hellos_lost(struct end *end)
{
    for (struct news **at = &end->inbox; *at != NULL;) {
        struct news *news = *at;
        if (news->kind != NEWS_HELLO) {
            at = &news->next;
            continue;
        }
        *at = news->next;
        side_end(news->wire, DIALLED, "it closed the connection without an answer");
        news_free(news);
    }
}

static struct wire *wire_of(struct side *side, unsigned *ret_which)
{
    for (struct wire *wire = side->end->links->wires; wire != NULL; wire = wire->next)
        for (unsigned which = DIALLED; which <= LISTENED; which++)
            if (&wire->sides[which] == side) {
                *ret_which = which;
                return wire;
            }
    lk_unreachable();
}

/* --- callbacks ---------------------------------------------------------------------------------------------------- */

static void hello_came(struct news *news)
{
    struct wire *wire = news->wire;
    struct side *side = &wire->sides[LISTENED];
    struct end *end = side->end;
    struct local_reply reply = {0};
    struct local_grant grant = {.ring_fd = -1, .slot_fd = -1};
    if (!side_open(side)) {
        end->refused++;
        side_end(wire, DIALLED, "it closed the connection without an answer");
        return;
    }
    int rc = end->owner.judge(end->owner.context, side->number, &wire->hello, &reply, &grant);
    reply.error = rc;
    const struct side *dialler = &wire->sides[DIALLED];
    if (rc != 0) {
        side_gone(side);
        if (!dialler->there || dialler->end_announced) return;
        struct news *refusal = news_new(wire, DIALLED, NEWS_REFUSED, NULL, 0);
        refusal->reply = reply;
        news_send(refusal);
        return;
    }
    side->granted = true;
    struct news *answer = news_new(wire, DIALLED, NEWS_GRANTED, NULL, 0);
    answer->reply = reply;
    answer->grant.ring_fd = fcntl(grant.ring_fd, F_DUPFD_CLOEXEC, 0);
    answer->grant.slot_fd = fcntl(grant.slot_fd, F_DUPFD_CLOEXEC, 0);
    lk_assert(answer->grant.ring_fd >= 0 && answer->grant.slot_fd >= 0);
    struct sim_links *links = end->links;
    if (random_chance(links->random, links->faults.hang_up_per_1000, 1000))
        side_end(wire, DIALLED, "it closed the connection without an answer");
    if (dialler->there && !dialler->end_announced) {
        news_send(answer);
    } else {
        news_free(answer);
        side_end(wire, LISTENED, "it did not take the answer");
    }
    end->owner.wake(end->owner.context);
}

static void grant_came(struct news *news)
{
    struct wire *wire = news->wire;
    struct side *side = &wire->sides[DIALLED];
    struct end *end = side->end;
    struct sim_links *links = end->links;
    const struct local_grant grant = news->grant;
    news->grant = (struct local_grant){.ring_fd = -1, .slot_fd = -1}; /* the owner's */
    side->granted = true;
    if (end->owner.granted(end->owner.context, side->number, &news->reply, &grant) != 0) {
        end->refused++;
        side_gone(side);
        side_end(wire, LISTENED, "it closed the connection");
    } else if (random_chance(links->random, links->faults.hang_up_per_1000, 1000)) {
        side_end(wire, DIALLED, "its connection failed");
        side_end(wire, LISTENED, "its connection failed");
    }
    end->owner.wake(end->owner.context);
}

static void ended(struct side *side, const char *why)
{
    struct end *end = side->end;
    side_gone(side);
    end->owner.ended(end->owner.context, side->number, why);
    end->owner.wake(end->owner.context);
}

static void news_came(struct news *news)
{
    struct wire *wire = news->wire;
    struct side *side = &wire->sides[news->to];
    struct end *end = side->end;
    if (news->kind == NEWS_HELLO) {
        hello_came(news);
        return;
    }
    if (!side->there) return;
    switch (news->kind) {
    case NEWS_GRANTED: grant_came(news); break;
    case NEWS_REFUSED: ended(side, news->reply.why); break;
    case NEWS_NO_ANSWER:
        if (side->granted) break;
        side_end(wire, LISTENED, "it closed the connection");
        ended(side, "it does not answer");
        break;
    case NEWS_BELL:
        side->bell = false;
        end->owner.wake(end->owner.context);
        break;
    case NEWS_PACKET:
        side->packets--;
        if (end->owner.packet(end->owner.context, side->number, news->packet, news->bytes) != 0) {
            end->refused++;
            side_end(wire, 1u - news->to, "it closed the connection");
            ended(side, "it sent what nobody understands");
        } else {
            end->owner.wake(end->owner.context);
        }
        break;
    case NEWS_ENDED: ended(side, news->why); break;
    default: lk_unreachable();
    }
}

void sim_link_work(struct sim_links *links, unsigned number)
{
    struct end *end = &links->ends[number];
    end->working = true;
    while (end->inbox != NULL && end->inbox->due_ns <= *links->now_ns) {
        struct news *news = end->inbox;
        end->inbox = news->next;
        news_came(news);
        if (!news->wire->sides[news->to].there) side_deaf(&news->wire->sides[news->to], news->wire);
        news_free(news);
    }
    end->working = false;
    wires_sweep(links);
}

uint64_t sim_link_first_ns(const struct sim_links *links, unsigned end)
{
    return links->ends[end].inbox == NULL ? UINT64_MAX : links->ends[end].inbox->due_ns;
}

/* --- local_link_ops ----------------------------------------------------------------------------------------------- */

static struct end *end_of(struct local_link *link)
{
    struct end *end = (struct end *)link;
    lk_assert(end->open);
    lk_assert(!end->working); /* no callback calls the link */
    return end;
}

static struct side *side_of(struct end *end, unsigned connection)
{
    lk_assert(connection < LOCAL_CONNECTIONS_MAX);
    lk_assert(end->numbers[connection] != NULL);
    return end->numbers[connection];
}

static void op_attach(struct local_link *link, const struct local_link_owner *owner)
{
    end_of(link)->owner = *owner;
}

static struct end *who_listens(struct end *from, uint64_t cluster_id, raft_member member_id)
{
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) {
        struct end *end = &from->links->ends[i];
        if (!end->open || end->host != from->host || end->cluster_id == 0) continue;
        if (end->cluster_id == cluster_id && end->member_id == member_id) return end;
    }
    return NULL;
}

static int op_listen(struct local_link *link, uint64_t cluster_id, raft_member member_id)
{
    struct end *end = end_of(link);
    struct sim_links *links = end->links;
    hellos_lost(end);
    end->cluster_id = 0;
    if (cluster_id == 0) return 0;
    if (who_listens(end, cluster_id, member_id) != NULL) return LOCKSTEP_EEXIST;
    if (random_chance(links->random, links->faults.refused_per_1000, 1000))
        return random_chance(links->random, 1, 2) ? LOCKSTEP_EEXIST : LOCKSTEP_EIO;
    end->cluster_id = cluster_id;
    end->member_id = member_id;
    return 0;
}

static int op_dial(struct local_link *link, const struct local_hello *hello, unsigned *ret_connection)
{
    struct end *end = end_of(link), *to = who_listens(end, hello->cluster_id, hello->wanted_id);
    struct sim_links *links = end->links;
    if (to == NULL || to->away || end->away || end->mute) return LOCKSTEP_EUNREACHABLE;
    if (random_chance(links->random, links->faults.refused_per_1000, 1000))
        return random_chance(links->random, 1, 2) ? LOCKSTEP_EUNREACHABLE : LOCKSTEP_EFULL;
    struct wire *wire = calloc(1, sizeof *wire);
    lk_assert(wire != NULL);
    wire->hello = *hello;
    wire->sides[DIALLED].end = end;
    wire->sides[LISTENED].end = to;
    if (!side_open(&wire->sides[DIALLED])) {
        free(wire);
        return LOCKSTEP_EFULL;
    }
    wire->next = links->wires;
    links->wires = wire;
    news_send(news_new(wire, LISTENED, NEWS_HELLO, NULL, 0));
    struct news *patience = news_new(wire, DIALLED, NEWS_NO_ANSWER, NULL, 0);
    patience->due_ns = *links->now_ns + (uint64_t)SIM_LINK_HELLO_MS * MS;
    news_queue(patience); /* not in the order of the connection: nobody sends it */
    *ret_connection = wire->sides[DIALLED].number;
    return 0;
}

static bool op_bell(struct local_link *link, unsigned connection)
{
    unsigned which;
    struct side *side = side_of(end_of(link), connection);
    struct wire *wire = wire_of(side, &which);
    struct side *to = &wire->sides[1 - which];
    if (side->end->mute || !to->there || to->end_announced || to->bell)
        return true; /* one that is on its way is enough */
    to->bell = true;
    news_send(news_new(wire, 1 - which, NEWS_BELL, NULL, 0));
    return true;
}

static int op_send(struct local_link *link, unsigned connection, const void *bytes, size_t count)
{
    unsigned which;
    struct side *side = side_of(end_of(link), connection);
    struct wire *wire = wire_of(side, &which);
    struct side *to = &wire->sides[1 - which];
    lk_assert(count > 1 && count <= LOCAL_ANSWER_BYTES_MAX);
    if (side->end->mute || !to->there || to->end_announced) return LOCKSTEP_ECLOSED;
    if (to->packets == PACKETS_WAITING_MAX) return LOCKSTEP_EFULL;
    to->packets++;
    news_send(news_new(wire, 1 - which, NEWS_PACKET, bytes, count));
    return 0;
}

static void side_close(struct side *side)
{
    unsigned which;
    struct wire *wire = wire_of(side, &which);
    side_gone(side);
    side_deaf(side, wire);
    side_end(wire, 1 - which, "it closed the connection");
}

static void op_end(struct local_link *link, unsigned connection)
{
    struct end *end = end_of(link);
    side_close(side_of(end, connection));
    wires_sweep(end->links);
}

static uint64_t op_now_ns(struct local_link *link)
{
    const struct end *end = (struct end *)link; /* callbacks may ask, too */
    return end->clock(end->clock_context);
}

static uint64_t op_refused(const struct local_link *link)
{
    return ((const struct end *)link)->refused;
}

static void op_close(struct local_link *link)
{
    struct end *end = end_of(link);
    hellos_lost(end);
    for (unsigned i = 0; i < LOCAL_CONNECTIONS_MAX; i++)
        if (end->numbers[i] != NULL) side_close(end->numbers[i]);
    end->open = false;
    end->cluster_id = 0;
    lk_assert(end->inbox == NULL);
    wires_sweep(end->links);
}

static const struct local_link_ops ops = {
    .attach = op_attach,
    .listen = op_listen,
    .dial = op_dial,
    .bell = op_bell,
    .send = op_send,
    .end = op_end,
    .now_ns = op_now_ns,
    .refused = op_refused,
    .close = op_close,
};

struct local_link *sim_link_open(struct sim_links *links, unsigned number, unsigned host,
                                 uint64_t (*clock)(const void *context), const void *context)
{
    struct end *end = &links->ends[number];
    lk_assert(!end->open);
    lk_assert(end->inbox == NULL);
    *end = (struct end){.link.ops = &ops,
                        .links = links,
                        .open = true,
                        .away = end->away,
                        .host = host,
                        .clock = clock,
                        .clock_context = context};
    return &end->link;
}

/* --- the world ---------------------------------------------------------------------------------------------------- */

static void wire_fails(struct wire *wire)
{
    side_end(wire, DIALLED, "its connection failed");
    side_end(wire, LISTENED, "its connection failed");
}

void sim_link_hang_up(struct sim_links *links, unsigned a, unsigned b)
{
    for (struct wire *wire = links->wires; wire != NULL; wire = wire->next) {
        const struct end *dialled = wire->sides[DIALLED].end, *listened = wire->sides[LISTENED].end;
        if ((dialled == &links->ends[a] && listened == &links->ends[b]) ||
            (dialled == &links->ends[b] && listened == &links->ends[a]))
            wire_fails(wire);
    }
}

void sim_link_away(struct sim_links *links, unsigned end, bool away)
{
    links->ends[end].away = away;
    for (struct wire *wire = links->wires; wire != NULL && away; wire = wire->next)
        if (wire->sides[DIALLED].end == &links->ends[end] || wire->sides[LISTENED].end == &links->ends[end])
            wire_fails(wire);
}

void sim_link_mute(struct sim_links *links, unsigned end)
{
    links->ends[end].mute = true;
}

void sim_links_close(struct sim_links *links)
{
    if (links == NULL) return;
    for (unsigned i = 0; i < RAFT_MEMBERS_MAX; i++) lk_assert(!links->ends[i].open);
    wires_sweep(links);
    lk_assert(links->wires == NULL);
    free(links);
}
