/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_tail.c - what a node, or what claims to be one, may say to a tail (client/tail.c): replies with and without memory,
 * answers out of a log, bells, hang-ups, and anything else in their places; over a real socket, with a real ring. The tail
 * is the real one; its clock is the input's, so that a run is the same each time.
 * Whatever comes, what is handed out are commands one behind the other. As long as no block was forged, checksums and all,
 * they are those of the log, and committed. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fds.h"
#include "client/tail.h"
#include "lockstep/errors.h"
#include "proto/local_packet.h"
#include "proto/ring_reader.h"
#include "storage/ring.h"
#include "tests/fuzz/input.h"
#include "tests/support/blocks.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);
uint64_t __wrap_client_now_ns(void); /* the linker puts it in the place of client_now_ns() */

enum {
    RING_BYTES = RING_BYTES_MIN,
    BLOCKS = 48, /* together more than the ring takes */
    BLOCK_BYTES = 4096,
    STEPS_MAX = 200,
    CALLS_MAX = 32, /* of the tail between two steps: of a block with fewer commands */
    MEMBER = 0x3e,
};
#define MS UINT64_C(1000000)

/* The log that is told of: once. */
static uint64_t cluster_id;
static int listener = -1;
static uint8_t blocks[BLOCKS + 1][BLOCK_BYTES]; /* by index */
static struct block_header headers[BLOCKS + 1];

/* A run. */
static uint64_t now_ns, boot;
static struct lockstep_tail *tail;
static struct ring *ring;
static int connection = -1;
static bool granted, owed, damaged;
static struct local_ask question;
static raft_index stored, committed, ever_committed; /* the last one: a node that starts again has its log alone */
static bool forged;            /* a block that is none of the log's, and whose checksums say that it is good */
static uint64_t from_position; /* of the tail */
static uint64_t last_position; /* handed out; 0 = nothing */

uint64_t __wrap_client_now_ns(void)
{
    return now_ns;
}

/* --- the node -------------------------------------------------------------------------------------------------------- */

static void start(void)
{
    struct sockaddr_un address;
    struct block_base base = {.next_position = 1};
    for (raft_index i = 1; i <= BLOCKS; i++) {
        uint32_t commands = i % 7 == 0 ? 0 : 1 + (uint32_t)(i % 4), payload = (uint32_t)(i * 37 % 700);
        lk_assert(blocks_bytes(commands, payload) <= BLOCK_BYTES);
        blocks_make(blocks[i], &base, 1 + i / 20, commands, payload, i, &headers[i]);
    }
    /* abstract names are everybody's on this host: not from a seed */
    lk_assert(getrandom(&cluster_id, sizeof cluster_id, 0) == (ssize_t)sizeof cluster_id);
    socklen_t bytes = local_address(cluster_id, MEMBER, &address);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    lk_assert(listener >= 0 && bind(listener, (const struct sockaddr *)&address, bytes) == 0);
    lk_assert(listen(listener, 8) == 0);
}

static void ring_up(void)
{
    const struct ring_options options = {.bytes = RING_BYTES,
                                         .block_bytes_max = RING_BYTES / 4,
                                         .cluster_id = cluster_id,
                                         .member_id = MEMBER,
                                         .boot = ++boot};
    const struct block_base base = stored == 0 ? (struct block_base){.next_position = 1}
                                               : block_base_after(&headers[stored]); /* it has started again */
    ring_close(ring);
    damaged = false;
    lk_assert(ring_open(&options, &ring) == 0);
    ring_start(ring, &base);
    committed = stored;
}

static void hang_up(void)
{
    if (connection >= 0) close(connection);
    connection = -1;
    granted = owed = false;
}

static void accept_next(void)
{
    if (connection < 0) connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void say(const void *bytes, size_t count, const int *fds, unsigned fd_count)
{
    if (connection >= 0 && count > 0) (void)fds_send(connection, bytes, count, fds, fd_count);
}

/* Some bytes of a good packet changed, or its end. */
static size_t spoil(struct input *input, uint8_t *packet, size_t whole, size_t room)
{
    uint8_t how = input_byte(input);
    for (unsigned i = 1 + how % 3; i > 0; i--) {
        size_t at = (size_t)(input_byte(input) << 8 | input_byte(input)) % whole;
        packet[at] = input_byte(input);
    }
    if (how < 192) return whole;
    size_t cut = (size_t)(input_byte(input) << 8 | input_byte(input));
    return cut < room ? cut : room;
}

static void reply(struct input *input, bool good)
{
    struct local_reply r = {.cluster_id = cluster_id, .member_id = MEMBER, .boot = boot}, read;
    uint8_t packet[LOCAL_REPLY_BYTES + 8] = {0}, again[LOCAL_REPLY_BYTES];
    size_t count = LOCAL_REPLY_BYTES;
    uint8_t how = good ? 0 : input_byte(input);
    int slot_fd;
    const struct ring_reader_slot *slot;
    if (how % 8 == 1) {
        r.error = -(int)(input_byte(input) % 24);
        memcpy(r.why, "no", 3);
    }
    local_reply_write(&r, packet);
    if (how % 8 > 4) count = spoil(input, packet, count, sizeof packet);
    if (local_reply_read(packet, count, &read) == 0) {
        local_reply_write(&read, again);
        read = (struct local_reply){0};
        lk_assert(local_reply_read(again, sizeof again, &read) == 0);
    }
    lk_assert(ring_reader_slot_make(&slot_fd, &slot) == 0);
    int fds[FDS_MAX] = {ring_fd(ring), slot_fd, slot_fd, listener};
    unsigned fd_count = r.error == 0 ? LOCAL_FDS : 0;
    if (how % 8 == 2) fds[0] = slot_fd; /* sealed memory, and no ring */
    if (how % 8 == 3) fds[1] = listener;
    if (how % 8 == 4) fd_count = input_byte(input) % (FDS_MAX + 1);
    say(packet, count, fds, fd_count);
    ring_reader_slot_unmap(slot);
    close(slot_fd);
    granted = true;
}

static void append(void)
{
    uint8_t *to;
    raft_index index = ring_last(ring).index + 1;
    if (index > BLOCKS || ring_claim(ring, headers[index].bytes, &to) != 0) return;
    memcpy(to, blocks[index], headers[index].bytes);
    ring_publish(ring, &headers[index]);
}

static void commit(unsigned count)
{
    raft_index last = ring_last(ring).index;
    committed = count > last - committed ? last : committed + count;
    ring_commit(ring, committed);
    if (committed > ever_committed) ever_committed = committed;
}

static void store(void)
{
    stored = committed;
    ring_release(ring, stored);
}

/* Another leader: what is not committed goes, and comes again. (A ring that lies reads its own bytes when it cuts.) */
static void change_epoch(struct input *input)
{
    raft_index last = ring_last(ring).index;
    ring_epoch_begin(ring);
    if (last > committed && !damaged) ring_cut(ring, committed + 1 + input_byte(input) % (last - committed));
    ring_epoch_end(ring, 1 + input_byte(input), false);
}

/* In a block that readers see: what is written there does not match its checksum any more. */
static void damage(struct input *input)
{
    struct ring_slot at;
    raft_index index = 1 + input_byte(input) % BLOCKS;
    if (ring_find(ring, index, &at) != 0) return;
    uint8_t *block = (uint8_t *)(uintptr_t)ring_at(ring, at.pos);
    damaged = true;
    block[(size_t)(input_byte(input) << 8 | input_byte(input)) % at.bytes] ^= (uint8_t)(1u << (input_byte(input) % 8));
}

/* --- answers --------------------------------------------------------------------------------------------------------- */

static raft_index asked_index(void)
{
    if (question.index != 0) return question.index;
    raft_index index = 1;
    while (index <= stored && block_base_after(&headers[index]).next_position <= question.position) index++;
    return index;
}

/* As a node answers, but in parts of any size; `to` has room for LOCAL_ANSWER_BYTES_MAX. */
static size_t answer_make(struct input *input, uint8_t *to)
{
    struct local_answer a = {.number = question.number, .offset = question.offset, .index = asked_index()};
    size_t count = 0;
    uint8_t kind = input_byte(input);
    if (a.index > stored || a.offset >= headers[a.index].bytes) {
        a.error = a.index > stored ? LOCKSTEP_ENOTFOUND : LOCKSTEP_EINVAL;
        a.index = stored;
    } else if (kind % 16 == 1) {
        a.error = LOCKSTEP_EGONE;
        a.oldest = 1 + input_byte(input);
    } else if (kind % 16 == 2) {
        a.error = LOCKSTEP_EUNAVAILABLE;
    } else {
        raft_index last = a.offset == 0 ? a.index + kind % 4 : a.index;
        for (raft_index i = a.index; i <= stored && i <= last; i++) {
            uint32_t from = i == a.index ? a.offset : 0;
            memcpy(to + LOCAL_ANSWER_BYTES + count, blocks[i] + from, headers[i].bytes - from);
            count += headers[i].bytes - from;
        }
        size_t part = BLOCK_HEADER_BYTES + (size_t)input_byte(input);
        if (last == a.index && kind >= 128 && part < count) count = part;
    }
    local_answer_write(&a, to);
    return LOCAL_ANSWER_BYTES + count;
}

/* The body says something else, or the header; and the checksums agree. */
static void forge(struct input *input, uint8_t *block, size_t count)
{
    struct block_header header;
    if (block_header_read(block, count, &header) != 0 || header.bytes > count) return;
    for (unsigned i = 1 + input_byte(input) % 4; i > 0; i--) {
        size_t at = (size_t)(input_byte(input) << 8 | input_byte(input)) % header.bytes;
        block[at] = input_byte(input);
    }
    memcpy(&header, block, sizeof header);
    if (header.bytes < BLOCK_HEADER_BYTES || header.bytes > count || header.bytes % 8 != 0) return;
    block_seal(block, &header);
    forged = true;
}

static void answer(struct input *input)
{
    static uint8_t packet[LOCAL_ANSWER_BYTES_MAX + 8];
    struct local_answer read;
    memset(packet, 0, LOCAL_ANSWER_BYTES);
    size_t count = answer_make(input, packet);
    uint8_t how = input_byte(input);
    if (how % 8 == 1) forge(input, packet + LOCAL_ANSWER_BYTES, count - LOCAL_ANSWER_BYTES);
    if (how % 8 == 2) count = spoil(input, packet, LOCAL_ANSWER_BYTES, sizeof packet);
    if (how % 8 == 3) count = spoil(input, packet, count, count);
    if (local_answer_read(packet, count, &read) == 0) {
        uint8_t again[LOCAL_ANSWER_BYTES];
        local_answer_write(&read, again);
        lk_assert(memcmp(packet, again, sizeof again) == 0);
    }
    say(packet, count, NULL, 0);
    owed = false;
}

/* What the tail says is always what a node understands. */
static void listen_to_it(void)
{
    uint8_t packet[128];
    ssize_t got;
    if (connection < 0) return;
    while ((got = fds_receive(connection, packet, sizeof packet, NULL, 0)) > 0) {
        struct local_hello hello;
        if (local_hello_read(packet, (size_t)got, &hello) == 0) {
            lk_assert(hello.kind == LOCAL_OBSERVER && hello.cluster_id == cluster_id && hello.wanted_id == MEMBER);
            continue;
        }
        lk_assert(local_ask_read(packet, (size_t)got, &question) == 0);
        owed = true;
    }
    if (got == LOCKSTEP_ECLOSED) hang_up();
}

/* --- what the tail hands out ------------------------------------------------------------------------------------------- */

static void check(const struct lockstep_tail_record *record)
{
    static uint8_t copy[BLOCK_BYTES_MAX];
    memcpy(copy, record->payload, record->payload_bytes); /* it is there, all of it */
    uint64_t next = last_position != 0 ? last_position + 1 : from_position;
    lk_assert(record->position == next || next == LOCKSTEP_TAIL_NOW);
    last_position = record->position;
    if (forged) return;
    lk_assert(record->index >= 1 && record->index <= ever_committed);
    const struct block_header *header = &headers[record->index];
    struct block_cursor cursor = block_cursor(blocks[record->index], header);
    struct command_view view;
    lk_assert(record->position >= header->first_position);
    do lk_assert(block_cursor_next(&cursor, &view));
    while (view.position < record->position);
    lk_assert(record->term == header->term && record->time_ns == header->time_ns);
    lk_assert(record->payload_bytes == view.header.bytes);
    lk_assert(memcmp(record->payload, view.payload, view.header.bytes) == 0);
}

/* False: it has ended. */
static bool follow(void)
{
    struct lockstep_tail_record record;
    int rc = 0;
    for (int i = 0; i < CALLS_MAX && rc == 0; i++) {
        rc = lockstep_tail_next(tail, &record, 0);
        if (rc == 0) check(&record);
    }
    if (rc == 0 || rc == LOCKSTEP_EUNAVAILABLE) return true;
    lk_assert(lockstep_tail_text(tail)[0] != 0);
    lk_assert(lockstep_tail_next(tail, &record, 0) == rc);
    return false;
}

static void step(struct input *input)
{
    uint8_t what = input_byte(input);
    if (connection >= 0 && !granted) {
        reply(input, what < 224);
        return;
    }
    if (owed && what % 4 != 0) {
        answer(input);
        return;
    }
    switch (what / 4 % 16) {
    case 0:
    case 1:
    case 2:
    case 3: append(); break;
    case 4:
    case 5: commit(input_byte(input)); break;
    case 6: store(); break;
    case 7: say(&(uint8_t){LOCAL_BELL}, 1, NULL, 0); break;
    case 8: say(input->at, input->left < 100 ? input->left : 100, NULL, 0); break;
    case 9: hang_up(); break;
    case 10: now_ns += 50 * MS * input_byte(input); break;
    case 11: change_epoch(input); break;
    case 12: damage(input); break;
    case 13:
        hang_up();
        ring_up();
        break;
    case 14: (void)lockstep_tail_timeout_ms(tail); break;
    default: /* many at once */
        for (unsigned i = input_byte(input) % BLOCKS; i > 0; i--) {
            append();
            commit(1);
            store();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct input input = {.at = bytes, .left = count};
    const uint64_t begins[] = {LOCKSTEP_TAIL_NOW, 1, 1, 1 + input_byte(&input) % 64};
    const struct lockstep_tail_options options = {
        .size = sizeof options, .endpoint = "127.0.0.1:1", .from_position = begins[input_byte(&input) % 4]};
    if (listener < 0) start();
    now_ns = 1000 * MS;
    boot = 0;
    stored = committed = ever_committed = 0;
    granted = owed = forged = false;
    from_position = options.from_position;
    last_position = 0;
    ring_up();
    lk_assert(tail_open_member(&options, cluster_id, MEMBER, &tail, NULL, 0) == 0);
    for (unsigned i = 0; i < STEPS_MAX && input.left > 0 && follow(); i++) {
        listen_to_it();
        accept_next();
        step(&input);
    }
    lockstep_tail_close(tail);
    tail = NULL;
    hang_up();
    accept_next(); /* so that nobody waits there for the next run */
    hang_up();
    ring_close(ring);
    ring = NULL;
    return 0;
}
