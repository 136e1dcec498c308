/* SPDX-License-Identifier: Apache-2.0 */
/* ends.h - nodes' ends of the peer transport on one loop, over loopback, each with a real ring, for the tests of tcp and
 * of the filter in front of it. What arrives is copied and kept, in order. Thread: the test's main thread. */
#ifndef LOCKSTEP_TESTS_UNIT_TRANSPORT_ENDS_H
#define LOCKSTEP_TESTS_UNIT_TRANSPORT_ENDS_H

#include "transport/tcp.h"

enum { ENDS_MAX = 3, ENDS_FRAMES_MAX = 4096, ENDS_BLOCK_BYTES_MAX = 256 << 10 };

struct ends_frame {
    unsigned slot;
    raft_member member_id;
    uint8_t type;
    bool partial;
    struct raft_message message;
    uint8_t *body;
    size_t body_bytes;
};

struct ends;

struct end {
    struct ends *ends;
    unsigned slot;
    int port;
    struct transport *transport; /* NULL: closed */
    struct ring *ring;
    raft_index last_index;
    uint32_t last_crc;
    log_position next_position;
    const char *refuse; /* every hello, with this reason */
    bool deaf;          /* frames stay where they are */
    unsigned wakes;
    struct ends_frame frames[ENDS_FRAMES_MAX];
    unsigned frame_count;
};

struct ends {
    uv_loop_t loop;
    uv_timer_t ticker; /* bounds the sleep of a turn */
    unsigned count;
    uint64_t queued_bytes_max;
    struct end end[ENDS_MAX];
};

/* Ports are picked, nothing is open yet. */
void ends_open(struct ends *ends, unsigned count);
void ends_close(struct ends *ends);
/* The transport of one end. */
void end_open(struct end *end);
void end_close(struct end *end);
struct tcp_options end_options(struct end *end);

/* Turns of the loop, frames taken in and flushed, until condition(context) or for at most 5 s. ret  the condition. */
bool ends_run(struct ends *ends, bool (*condition)(struct ends *ends, const void *context), const void *context);
/* For this long, and for a number of turns: also where the process stood still. What is waited for has a condition. */
void ends_run_ms(struct ends *ends, unsigned ms);
bool ends_connected(struct ends *ends, const void *unused); /* all of them, both ways */
void ends_connect(struct ends *ends);                       /* open all, run until connected */

struct transport_peer_status end_status(struct end *end, unsigned slot);
unsigned end_whole_frames(const struct end *end); /* not partial */
void end_forget(struct end *end);                 /* frames so far */

/* Publish one block with a payload of so many bytes at the end's ring. EFULL as ring_claim. */
int end_publish(struct end *end, uint32_t payload_bytes);
/* Send blocks first..last of the end's ring as one APPEND. */
int end_append(struct end *end, unsigned to, raft_index first, raft_index last);
int end_send(struct end *end, unsigned to, const struct raft_message *message);
int end_send_body(struct end *end, unsigned to, uint8_t type, const void *body, size_t bytes);

/* A stranger's blocking socket to an end's listener; reads and writes give up after 3 s. */
int end_dial_raw(const struct end *end);

raft_member end_member(unsigned slot);

#endif
