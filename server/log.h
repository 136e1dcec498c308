/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - lines for people on stderr: `time level node part: text key=value`.
 * Thread: any thread writes, and never waits: lines go through a bounded queue to a thread of their own, since a stderr
 * that nobody reads blocks whoever writes to it. Owns: the queue and that thread.
 * L1  A full queue drops the line and counts it; the count is a line of its own as soon as there is room.
 * L2  Lines of one thread stay in order; a line is written whole, with control characters replaced. */
#ifndef LOCKSTEP_SERVER_LOG_H
#define LOCKSTEP_SERVER_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "server/node_env.h"

enum { LOG_LINE_BYTES_MAX = 1000, LOG_LINES_MAX = 1024 };

struct log;

/* node  the name in each line; copied. fd: where lines go, not closed. debug: NODE_LOG_DEBUG lines too.
 * Allocates, starts a thread. ENOMEM. */
int log_open(const char *node, int fd, bool debug, struct log **ret);
/* Write what waits, for at most 500 ms, and end. A reader that sleeps keeps its lines; the thread is left to it. Takes
 * NULL. */
void log_close(struct log *log);

/* One line. text: without newline, cut at LOG_LINE_BYTES_MAX. Any thread. */
void log_line(struct log *log, enum node_log_level level, const char *part, const char *text);
void log_format(struct log *log, enum node_log_level level, const char *part, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
