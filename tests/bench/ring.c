/* SPDX-License-Identifier: Apache-2.0 */
/* ring.c - a hop between two processes of one host: the ring and its reader beside a Unix socket and TCP on loopback, each
 * spinning and each asleep until it is woken.
 * Latency: one block with one command of 64 bytes goes over, an ack comes back, one at a time; a hop is half of that. The
 * ring's ack is its reader's slot, the sockets' one of 64 bytes. Asleep: poll(), then what it says; the ring's bell is one
 * byte on a socket, rung only for who sleeps.
 * Throughput: blocks of 1 and of 64 commands are made in place, sealed, sent, received, and their headers checked. The ring's
 * writer is held back as TCP's is, or it would lap the reader.
 * Usage: bench_ring [ROUNDS]. The paths take turns; of each figure the best round counts, since others share the machine.
 * Prints a table in Markdown. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "proto/ring_reader.h"
#include "storage/ring.h"

enum {
    RING_BYTES = 8 << 20,
    PAYLOAD = 64,
    BLOCK_COMMANDS_MOST = 64,
    BLOCK_BYTES_MOST = 8192,
    COPY_BYTES = 1 << 20,
    ACK_BYTES = 64,
    PINGS = 20000,
    PINGS_BEFORE = 1000, /* not counted */
    ROUNDS = 3,
};
static const uint64_t FLOOD_NS = 300000000;

enum medium { RING, UNIX_SOCKET, TCP };
static const struct path {
    const char *name;
    enum medium medium;
    bool sleeps;
} paths[] = {{"ring, spinning", RING, false},
             {"ring, doorbell", RING, true},
             {"Unix socket, spinning", UNIX_SOCKET, false},
             {"Unix socket, asleep", UNIX_SOCKET, true},
             {"TCP loopback, spinning", TCP, false},
             {"TCP loopback, asleep", TCP, true}};
enum { PATHS = sizeof paths / sizeof paths[0] };

struct figures {
    double p50, p99, p999;        /* us */
    double by_one, by_sixty_four; /* commands/s */
};

/* What parent and child tell each other about the measurement itself. */
struct shared {
    _Atomic bool stop;
    _Atomic uint64_t received; /* commands */
};

static const struct path *path;
static struct shared *shared;
static struct ring *ring;
static const struct ring_reader_slot *slot_seen;
static struct ring_reader_slot *slot;
static int ends[2], bells[2]; /* [0] the sender's, [1] the receiver's */
static struct block_base last;
static uint8_t body[BLOCK_BYTES_MOST];
static uint64_t rung;

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* --- bells and sockets -------------------------------------------------------------------------------------------- */

static void until_readable(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    while (poll(&pollfd, 1, -1) < 0 && errno == EINTR) continue;
}

static void bell_ring(int fd)
{
    (void)send(fd, "", 1, MSG_DONTWAIT);
}

static void bell_wait(int fd)
{
    char byte;
    until_readable(fd);
    while (recv(fd, &byte, 1, MSG_DONTWAIT) > 0) continue;
}

static void send_all(int fd, const uint8_t *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
        lk_assert(sent > 0 || errno == EINTR);
        if (sent < 0) continue;
        bytes += sent;
        count -= (size_t)sent;
    }
}

/* What is there, at least one byte; 0: stopped meanwhile. */
static size_t receive_some(int fd, uint8_t *to, size_t room)
{
    while (!atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        if (path->sleeps) until_readable(fd);
        ssize_t count = recv(fd, to, room, MSG_DONTWAIT);
        if (count > 0) return (size_t)count;
        lk_assert(count < 0 && (errno == EAGAIN || errno == EINTR));
        if (!path->sleeps) relax();
    }
    return 0;
}

static void tcp_pair(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    lk_assert(listener >= 0 && bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 1) == 0);
    lk_assert(getsockname(listener, (struct sockaddr *)&at, &length) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    lk_assert(connect(ends[0], (struct sockaddr *)&at, sizeof at) == 0);
    ends[1] = accept(listener, NULL, NULL);
    lk_assert(ends[1] >= 0);
    for (int i = 0; i < 2; i++) setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

static void body_make(void)
{
    uint8_t payload[PAYLOAD];
    const struct command_header command = {.bytes = PAYLOAD, .kind = 0};
    memset(payload, 0x5a, sizeof payload);
    size_t at = 0;
    for (int i = 0; i < BLOCK_COMMANDS_MOST; i++) at += command_write(body + at, &command, payload);
    lk_assert(at + BLOCK_HEADER_BYTES <= sizeof body);
}

static uint32_t block_bytes(uint32_t commands)
{
    return BLOCK_HEADER_BYTES + commands * (uint32_t)command_bytes(PAYLOAD);
}

static void block_make(uint8_t *to, uint32_t commands, struct block_header *ret)
{
    *ret = (struct block_header){.bytes = block_bytes(commands),
                                 .type = BLOCK_COMMANDS,
                                 .count = commands,
                                 .index = last.index + 1,
                                 .term = 1,
                                 .time_ns = last.time_ns + 1,
                                 .first_position = last.next_position,
                                 .previous_crc = last.crc};
    memcpy(to + BLOCK_HEADER_BYTES, body, ret->bytes - BLOCK_HEADER_BYTES);
    block_seal(to, ret);
    last = block_base_after(ret);
}

/* Checks the headers of the whole blocks in these bytes. Returns the bytes used. */
static size_t blocks_take(const uint8_t *bytes, size_t count, uint64_t *ret_commands)
{
    size_t at = 0;
    while (count - at >= BLOCK_HEADER_BYTES) {
        struct block_header header;
        int rc = block_header_read(bytes + at, count - at, &header);
        lk_assert(rc == 0);
        if (header.bytes > count - at) break;
        at += header.bytes;
        *ret_commands += header.count;
    }
    return at;
}

static void block_send(uint32_t commands)
{
    static uint8_t block[BLOCK_BYTES_MOST];
    struct block_header header;
    if (path->medium != RING) {
        block_make(block, commands, &header);
        send_all(ends[0], block, header.bytes);
        return;
    }
    uint8_t *at;
    int rc = ring_claim(ring, block_bytes(commands), &at);
    lk_assert(rc == 0);
    block_make(at, commands, &header);
    ring_publish(ring, &header);
    ring_commit(ring, header.index);
    ring_release(ring, header.index);
    if (path->sleeps && ring_sleeps_look(&slot_seen->sleeps, &rung)) bell_ring(bells[0]);
}

/* --- the receiver: a process of its own --------------------------------------------------------------------------- */

static void receive_from_ring(struct ring_reader *reader)
{
    static uint8_t bytes[COPY_BYTES];
    raft_index next = 1;
    uint64_t commands = 0, rung_by_us = 0;
    while (!atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        struct ring_view view;
        struct ring_blocks blocks;
        int rc = ring_reader_look(reader, &view);
        lk_assert(rc == 0);
        if (view.last_index < next) {
            if (!path->sleeps) {
                relax();
                continue;
            }
            ring_sleeps_store(&slot->sleeps, true);
            if (!ring_reader_moved(reader, &view)) bell_wait(bells[1]);
            ring_sleeps_store(&slot->sleeps, false);
            continue;
        }
        rc = ring_reader_copy(reader, &view, next, view.last_index, bytes, sizeof bytes, &blocks);
        lk_assert(rc == 0);
        size_t used = blocks_take(bytes, blocks.bytes, &commands);
        lk_assert(used == blocks.bytes);
        next = blocks.last + 1;
        ring_word_store(&slot->position, blocks.end);
        const struct ring_ack ack = {.epoch = view.epoch, .durable = blocks.last, .validated = blocks.last};
        ring_ack_store(slot, &ack);
        if (path->sleeps && ring_sleeps_look(ring_reader_writer_sleeps(reader), &rung_by_us)) bell_ring(bells[1]);
        atomic_store_explicit(&shared->received, commands, memory_order_release);
    }
}

static void receive_from_socket(bool acks)
{
    static uint8_t bytes[COPY_BYTES];
    static const uint8_t ack[ACK_BYTES];
    size_t have = 0;
    uint64_t commands = 0;
    for (;;) {
        size_t count = receive_some(ends[1], bytes + have, sizeof bytes - have);
        if (count == 0) return;
        have += count;
        size_t used = blocks_take(bytes, have, &commands);
        memmove(bytes, bytes + used, have - used);
        have -= used;
        if (acks && used > 0) send_all(ends[1], ack, sizeof ack);
        atomic_store_explicit(&shared->received, commands, memory_order_release);
    }
}

static void processor_take(int which)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)which, &set);
    (void)sched_setaffinity(0, sizeof set, &set); /* where there is only one, so be it */
}

static pid_t receiver_start(bool acks)
{
    *shared = (struct shared){0};
    last = (struct block_base){.next_position = 1};
    rung = 0;
    lk_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, bells) == 0);
    if (path->medium == RING) {
        const struct ring_options options = {.bytes = RING_BYTES, .block_bytes_max = BLOCK_BYTES_MOST};
        int fd, rc = ring_open(&options, &ring);
        lk_assert(rc == 0);
        ring_start(ring, &last);
        rc = ring_reader_slot_make(&fd, &slot_seen);
        lk_assert(rc == 0);
        rc = ring_reader_slot_map(fd, &slot);
        lk_assert(rc == 0);
        close(fd);
    } else if (path->medium == UNIX_SOCKET) {
        lk_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    } else {
        tcp_pair();
    }
    pid_t pid = fork();
    lk_assert(pid >= 0);
    if (pid != 0) return pid;
    processor_take(1);
    if (path->medium == RING) {
        struct ring_reader *reader;
        int rc = ring_reader_open(ring_fd(ring), &reader);
        lk_assert(rc == 0);
        receive_from_ring(reader);
    } else {
        receive_from_socket(acks);
    }
    _exit(0);
}

static void receiver_end(pid_t pid)
{
    int status;
    atomic_store(&shared->stop, true);
    bell_ring(bells[0]);
    if (path->medium != RING) send_all(ends[0], body, 1);
    lk_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < 2; i++) {
        close(bells[i]);
        if (path->medium != RING) close(ends[i]);
    }
    if (path->medium != RING) return;
    ring_close(ring);
    ring_reader_slot_unmap(slot);
    ring_reader_slot_unmap(slot_seen);
}

/* --- measuring ---------------------------------------------------------------------------------------------------- */

static bool ring_acked(void)
{
    struct ring_ack ack;
    return ring_ack_load(slot_seen, ring_epoch(ring), &ack) && ack.durable == last.index;
}

static void ack_wait(void)
{
    uint8_t ack[ACK_BYTES];
    if (path->medium != RING) {
        for (size_t have = 0; have < sizeof ack;) have += receive_some(ends[0], ack + have, sizeof ack - have);
        return;
    }
    while (!ring_acked()) {
        if (!path->sleeps) {
            relax();
            continue;
        }
        ring_sleeps(ring, true);
        if (!ring_acked()) bell_wait(bells[0]);
        ring_sleeps(ring, false);
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void ping(struct figures *best)
{
    static uint64_t ns[PINGS];
    pid_t pid = receiver_start(true);
    for (int i = -PINGS_BEFORE; i < PINGS; i++) {
        uint64_t from = now_ns();
        block_send(1);
        ack_wait();
        if (i >= 0) ns[i] = now_ns() - from;
    }
    receiver_end(pid);
    qsort(ns, PINGS, sizeof ns[0], by_value);
    double p50 = (double)ns[PINGS / 2] / 2e3;
    if (best->p50 != 0 && p50 >= best->p50) return;
    best->p50 = p50;
    best->p99 = (double)ns[PINGS / 100 * 99] / 2e3;
    best->p999 = (double)ns[PINGS / 1000 * 999] / 2e3;
}

static void flood(uint32_t commands, double *best)
{
    pid_t pid = receiver_start(false);
    uint64_t from = now_ns(), sent = 0;
    do {
        for (int i = 0; i < 64; i++) {
            if (path->medium == RING) {
                uint64_t end = last.index * block_bytes(commands); /* no gaps here: positions are what was sent */
                while (end - ring_word_load(&slot_seen->position) > RING_BYTES / 2) relax();
            }
            block_send(commands);
            sent += commands;
        }
    } while (now_ns() - from < FLOOD_NS);
    while (atomic_load_explicit(&shared->received, memory_order_acquire) < sent) relax();
    double rate = (double)sent * 1e9 / (double)(now_ns() - from);
    receiver_end(pid);
    if (rate > *best) *best = rate;
}

int main(int argc, char **argv)
{
    static struct figures best[PATHS];
    int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
    void *at = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    lk_assert(at != MAP_FAILED);
    shared = at;
    body_make();
    processor_take(0);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < PATHS; i++) {
            path = &paths[i];
            ping(&best[i]);
            flood(1, &best[i].by_one);
            flood(BLOCK_COMMANDS_MOST, &best[i].by_sixty_four);
        }
    }
    printf(
        "| path | hop p50 us | p99 us | p99.9 us | commands/s, 1 a block | 64 a block |\n|---|---|---|---|---|---|\n");
    for (int i = 0; i < PATHS; i++) {
        const struct figures *f = &best[i];
        printf("| %s | %.2f | %.2f | %.1f | %.1f million | %.1f million |\n", paths[i].name, f->p50, f->p99, f->p999,
               f->by_one / 1e6, f->by_sixty_four / 1e6);
    }
    return 0;
}
