/* SPDX-License-Identifier: Apache-2.0 */
/* machine.h - the plug-in ABI: what a replicated state machine is to lockstep. C11 and C++.
 *
 * A machine is one shared object that exports one symbol, `lockstep_machine`. It needs this header and nothing else:
 *     cc -shared -fPIC -fvisibility=hidden -ffp-contract=off $(pkg-config --cflags lockstep-machine) bank.c -o bank.so
 *
 * Determinism. Every replica applies the same commands in the same order and must come to the same state and the same
 * replies, byte for byte. So inside apply():
 *   - decide by the command, its position, term and time_ns, and the state; by nothing else
 *   - no clock, no randomness, no environment, no files, no threads, no addresses (not even for ordering or hashing)
 *   - no state outside the machine that open() returned: several may live in one process, so nothing static that changes
 *   - no iteration in an order that depends on addresses or on a seeded hash; no uninitialised bytes in replies
 *   - floating point only if you know that every host computes the same (compile with -ffp-contract=off)
 *   - an out-of-memory is FATAL (this replica stops), never a REJECT: other replicas may have memory left
 * lockstep folds a hash over all replies and compares hash() between replicas, so that a mistake is found, not hidden.
 *
 * Threads. All calls on one machine come one after the other, never two at once (snapshot_write is the exception).
 * Versions. `size` comes first in every struct; members are only ever added at the end. A member beyond the other
 * side's size is not there: look at `size` before using a member that this header says was added later. Function
 * pointers that a machine does not offer are NULL; open, close and apply must be there. */
#ifndef LOCKSTEP_MACHINE_H
#define LOCKSTEP_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOCKSTEP_MACHINE_ABI    1
#define LOCKSTEP_MACHINE_SYMBOL "lockstep_machine"

/* The longest reply. A part of the ABI and no setting: were it one, nodes could differ in what a machine may answer. */
#define LOCKSTEP_REPLY_BYTES_MAX 1048576

#if defined(__GNUC__)
#define LOCKSTEP_MACHINE_EXPORT __attribute__((visibility("default")))
#else
#define LOCKSTEP_MACHINE_EXPORT
#endif

/* One command. The struct is good until batch->next is called again. payload lies in the log where it was written: it has
 * NO alignment (read numbers with memcpy), and dies when apply() returns. */
struct lockstep_command {
    uint32_t size;
    uint32_t kind;     /* reserved, 0 */
    uint64_t index;    /* of the block */
    uint64_t position; /* of the command, from 1, without gaps */
    uint64_t term;
    uint64_t time_ns; /* log time: never falls, the same on every replica */
    uint64_t session, seq;
    uint64_t entity; /* 0 = the machine itself */
    const uint8_t *payload;
    size_t payload_bytes;
};

/* The commands to apply, in order. Take one after the other with batch->next until it returns NULL, and answer each
 * once before taking the next one; one that is not answered counts as OK with an empty reply. A machine that returns
 * from apply() before next said NULL, or answers twice, has broken the contract: that is FATAL. */
struct lockstep_batch {
    uint32_t size;
    uint32_t reserved;
    const struct lockstep_command *(*next)(struct lockstep_batch *batch);
};

enum lockstep_outcome {
    LOCKSTEP_OK = 0,
    LOCKSTEP_REJECT = 1, /* refused, deterministically; the client gets the code (nonzero) and the reply */
    LOCKSTEP_POISON = 2, /* this command must not be applied; the supervisor's strategy decides */
    LOCKSTEP_FATAL = 3,  /* this replica cannot go on (out of memory, a broken invariant): it stops, others go on */
};

/* Where replies go. `bytes` are copied before the call returns; at most LOCKSTEP_REPLY_BYTES_MAX, more is FATAL. */
struct lockstep_replies {
    uint32_t size;
    uint32_t reserved;
    /* Answer the command that batch->next returned last, or the query. code: 0 with OK, the machine's own (1 and up)
     * with REJECT, anything with POISON and FATAL (it is logged); an OK with a code or a REJECT without one is FATAL.
     * After POISON or FATAL next returns NULL. */
    void (*answer)(struct lockstep_replies *replies, enum lockstep_outcome outcome, int32_t code, const void *bytes,
                   size_t count);
};

/* Services of the host. Only valid during the machine's life. */
struct lockstep_host {
    uint32_t size;
    uint32_t abi; /* LOCKSTEP_MACHINE_ABI of the host */
    void *context;
    /* One line to the node's log, on behalf of a call that the host made. */
    void (*log)(void *context, const char *line);
};

/* 128 bits over the whole state: equal states give equal hashes on every host, unequal ones should not. */
struct lockstep_hash {
    uint64_t low, high;
};

/* Bytes out (snapshots); 0 or a negative error that the machine returns at once. */
struct lockstep_writer {
    uint32_t size;
    uint32_t reserved;
    int (*write)(struct lockstep_writer *writer, const void *bytes, size_t count);
};

/* Bytes in; *ret_count = 0 at the end. */
struct lockstep_reader {
    uint32_t size;
    uint32_t reserved;
    int (*read)(struct lockstep_reader *reader, void *to, size_t room, size_t *ret_count);
};

struct lockstep_machine {
    uint32_t size;       /* sizeof(struct lockstep_machine) of the plugin */
    uint32_t abi;        /* LOCKSTEP_MACHINE_ABI of the plugin */
    const char *name;    /* 1..63 of a-z 0-9 - _ */
    const char *version; /* 1..63 printable characters */

    /* Make a machine with an empty state. 0, or a negative number: the node does not start. */
    int (*open)(const struct lockstep_host *host, void **ret_machine);
    /* Free everything. */
    void (*close)(void *machine);
    /* Apply a batch. 0, or a negative number = FATAL. Batches are cut differently on different replicas: a batch's
     * borders must mean nothing. */
    int (*apply)(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies);
    /* Read the state, changing nothing: answer once. `query` has no alignment and dies when this returns. May be NULL.
     * OK and REJECT as in apply; any other outcome, or a negative number, fails this query alone. */
    int (*query)(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                 struct lockstep_replies *replies);
    /* Hash the state; cost is the machine's choice (keep it up to date in apply: it is asked for often). NULL: none. */
    struct lockstep_hash (*hash)(void *machine);

    /* Snapshots: freeze the state in O(1), write the frozen state from another thread while apply goes on, let go. */
    int (*snapshot_begin)(void *machine, void **ret_snapshot);
    int (*snapshot_write)(void *machine, void *snapshot, struct lockstep_writer *writer);
    void (*snapshot_end)(void *machine, void *snapshot);
    /* Replace the empty state of a newly opened machine. */
    int (*restore)(void *machine, struct lockstep_reader *reader);
    /* The state, or one entity of it, for people. */
    int (*inspect)(void *machine, uint64_t entity, struct lockstep_writer *writer);
    /* Turn the state of version `from` into that of version `to`. */
    int (*migrate)(void *machine, const char *from, const char *to);
};

/* The one symbol a plugin exports. Define it so; that it is visible is said here:
 *     const struct lockstep_machine lockstep_machine = {.size = sizeof(struct lockstep_machine), .abi = ..., ...}; */
extern LOCKSTEP_MACHINE_EXPORT const struct lockstep_machine lockstep_machine;

#ifdef __cplusplus
}
#endif

#endif
