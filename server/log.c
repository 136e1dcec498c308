/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - see log.h. Thread: any, and the writing one.
 * Why a thread and not O_NONBLOCK: the flag belongs to the open file, which is shared with the shell and with other
 * nodes on the same terminal; and poll() tells nothing when several processes write to one pipe. */
#include "server/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/queue.h"
#include "lockstep/errors.h"
#include "server/park.h"

enum { CLOSE_MS = 500 };

struct line {
    uint16_t bytes;
    char text[LOG_LINE_BYTES_MAX + 1];
};

struct log {
    struct mpsc lines;
    struct park park;
    pthread_t thread;
    int fd;
    bool debug;
    char node[64];
    _Atomic uint64_t dropped;
    _Atomic bool closing;
    _Atomic unsigned left; /* of two: the thread that ends, the closer that gives up. The second frees. */
};

static void write_all(int fd, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, text, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return; /* nobody is there to be told */
        text += n;
        bytes -= (size_t)n;
    }
}

static void line_make(const struct log *log, struct line *line, enum node_log_level level, const char *part,
                      const char *text)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t at = strftime(line->text, sizeof line->text, "%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(line->text + at, sizeof line->text - at, ".%03ldZ %s %s %s: %s", now.tv_nsec / 1000000,
                        levels[level], log->node, part, text);
    size_t bytes = at + (size_t)more;
    if (bytes > LOG_LINE_BYTES_MAX) bytes = LOG_LINE_BYTES_MAX;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)line->text[i];
        if (c < 0x20 || c == 0x7f) line->text[i] = ' ';
    }
    line->text[bytes] = '\n';
    line->bytes = (uint16_t)(bytes + 1);
}

static void log_free(struct log *log)
{
    mpsc_close(&log->lines);
    free(log);
}

static void *run(void *context)
{
    struct log *log = context;
    uint64_t told = 0;
    for (;;) {
        struct line line;
        while (mpsc_try_pop(&log->lines, &line)) write_all(log->fd, line.text, line.bytes);
        uint64_t dropped = atomic_load_explicit(&log->dropped, memory_order_relaxed);
        if (dropped != told) {
            char text[64];
            (void)snprintf(text, sizeof text, "lines dropped: count=%llu total=%llu",
                           (unsigned long long)(dropped - told), (unsigned long long)dropped);
            told = dropped;
            line_make(log, &line, NODE_LOG_WARN, "log", text);
            write_all(log->fd, line.text, line.bytes);
            continue;
        }
        /* acquire: pairs with log_close's release; the lines before it are in the queue. */
        bool closing = atomic_load_explicit(&log->closing, memory_order_acquire);
        if (closing && !mpsc_try_pop(&log->lines, &line)) break;
        if (closing) {
            write_all(log->fd, line.text, line.bytes);
            continue;
        }
        park_sleep(&log->park, UINT64_MAX);
    }
    if (atomic_fetch_add(&log->left, 1) == 1) log_free(log);
    return NULL;
}

int log_open(const char *node, int fd, bool debug, struct log **ret)
{
    struct log *log = calloc(1, sizeof *log);
    if (log == NULL) return LOCKSTEP_ENOMEM;
    log->fd = fd;
    log->debug = debug;
    (void)snprintf(log->node, sizeof log->node, "%s", node);
    if (!mpsc_open(&log->lines, LOG_LINES_MAX, sizeof(struct line))) goto fail;
    park_open(&log->park);
    if (park_thread_start(&log->thread, "ls-log", run, log) != 0) goto fail;
    *ret = log;
    return 0;
fail:
    log_free(log);
    return LOCKSTEP_ENOMEM;
}

void log_close(struct log *log)
{
    if (log == NULL) return;
    /* release: pairs with the acquire load in run(). */
    atomic_store_explicit(&log->closing, true, memory_order_release);
    park_wake(&log->park);
    for (int ms = 0; ms < CLOSE_MS && atomic_load(&log->left) == 0; ms++)
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (atomic_load(&log->left) == 1) {
        (void)pthread_join(log->thread, NULL);
        log_free(log);
        return;
    }
    (void)pthread_detach(log->thread); /* stuck in write(); the process is about to end */
    if (atomic_fetch_add(&log->left, 1) == 1) log_free(log);
}

void log_line(struct log *log, enum node_log_level level, const char *part, const char *text)
{
    struct line line;
    if (level == NODE_LOG_DEBUG && !log->debug) return;
    line_make(log, &line, level, part, text);
    if (!mpsc_try_push(&log->lines, &line)) atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
    park_wake(&log->park);
}

void log_format(struct log *log, enum node_log_level level, const char *part, const char *format, ...)
{
    char text[LOG_LINE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_line(log, level, part, text);
}
