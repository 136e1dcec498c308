/* SPDX-License-Identifier: Apache-2.0 */
/* trace.h - what the recorder writes down: everything that a process did to the files below one directory, in order.
 *
 *   record {header, payload, zeros up to 8 bytes} │ record │ ...
 *
 * A file is named by its inode, so that renames change nothing of what was written to it. Paths are relative to the
 * recorded directory, "." is itself. A record stands there once the call had its effect; only writes are put down before
 * anybody else may see them. */
#ifndef LOCKSTEP_TESTS_POWERCUT_TRACE_H
#define LOCKSTEP_TESTS_POWERCUT_TRACE_H

#include <stddef.h>
#include <stdint.h>

enum trace_type {
    TRACE_BEGIN = 1,       /* a process begins; inode: the directory's */
    TRACE_CREATE = 2,      /* a new, empty file; payload: its path */
    TRACE_DIRECTORY = 3,   /* a new directory; payload: its path */
    TRACE_WRITE = 4,       /* payload at offset */
    TRACE_SIZE = 5,        /* the size becomes offset: truncated, or room was made */
    TRACE_FLUSH = 6,       /* all of the file that stood before record number `covers` */
    TRACE_FLUSH_RANGE = 7, /* a write through O_DSYNC: covers, and nothing outside of offset, count */
    TRACE_FLUSH_NAMES = 8, /* a directory's own entries; covers */
    TRACE_RENAME = 9,      /* payload: from, 0, to, 0 */
    TRACE_UNLINK = 10,     /* payload: path */
    TRACE_NOTE = 11,       /* the program's own: what it was promised; no operation */
};

struct trace_record {
    uint32_t type, bytes; /* of the payload; paths with their final 0 */
    uint64_t inode, offset, count;
    uint64_t covers;  /* records of this trace before the flush began */
    uint64_t time_ns; /* CLOCK_MONOTONIC */
};

static inline const void *trace_payload(const struct trace_record *record)
{
    return record + 1;
}

static inline size_t trace_record_bytes(const struct trace_record *record)
{
    return sizeof *record + ((record->bytes + 7u) & ~(size_t)7);
}

#endif
