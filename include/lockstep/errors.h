/* SPDX-License-Identifier: Apache-2.0 */
/* errors.h - the one list of error codes, each with the caller's next move.
 * Negative; never mixed with counts or offsets. 0 is success. */
#ifndef LOCKSTEP_ERRORS_H
#define LOCKSTEP_ERRORS_H

#define LOCKSTEP_ERRORS(X)                                                                                             \
    X(LOCKSTEP_EFULL, -1, "limit reached, retry later")                                                                \
    X(LOCKSTEP_ENOTLEADER, -2, "not the leader, ask the leader")                                                       \
    X(LOCKSTEP_EUNAVAILABLE, -3, "no leader, starting or draining, retry")                                             \
    X(LOCKSTEP_EINVAL, -4, "invalid argument, do not retry")                                                           \
    X(LOCKSTEP_ECORRUPT, -5, "damaged: a checksum or a chain does not match")                                          \
    X(LOCKSTEP_EIO, -6, "input/output error, final for this process")                                                  \
    X(LOCKSTEP_ENOSPC, -7, "no space left, free some")                                                                 \
    X(LOCKSTEP_ENOMEM, -8, "out of memory")                                                                            \
    X(LOCKSTEP_ETOOBIG, -9, "larger than the limit, send less")                                                        \
    X(LOCKSTEP_ELAPPED, -10, "overwritten meanwhile, read it from the log")                                            \
    X(LOCKSTEP_EGONE, -11, "compacted away, only a snapshot has it")                                                   \
    X(LOCKSTEP_EVERSION, -12, "written by a newer version, upgrade")                                                   \
    X(LOCKSTEP_EFOREIGN, -13, "belongs to another cluster or member")                                                  \
    X(LOCKSTEP_ELOCKED, -14, "in use by another process")                                                              \
    X(LOCKSTEP_EUNKNOWN, -15, "appended, outcome unknown: retry only with the same session and seq")                   \
    X(LOCKSTEP_ETIMEDOUT, -16, "deadline passed, outcome unknown")                                                     \
    X(LOCKSTEP_ENOTFOUND, -17, "there is no such thing")                                                               \
    X(LOCKSTEP_EUNREACHABLE, -18, "no endpoint could be reached")                                                      \
    X(LOCKSTEP_EPROTO, -19, "the other side broke the protocol")                                                       \
    X(LOCKSTEP_ECLOSED, -20, "closed")                                                                                 \
    X(LOCKSTEP_EABI, -21, "plugin of another ABI or without the symbol")                                               \
    X(LOCKSTEP_EEXIST, -22, "exists already")                                                                          \
    X(LOCKSTEP_EWINDOW, -23, "seq is below the session's window: all of those were said to be answered")               \
    X(LOCKSTEP_EREPLIED, -24, "applied, once; its reply is kept no more")

enum lockstep_error {
#define LOCKSTEP_ERROR_VALUE(name, value, text) name = (value),
    LOCKSTEP_ERRORS(LOCKSTEP_ERROR_VALUE)
#undef LOCKSTEP_ERROR_VALUE
};

/* What a code means and what to do, for people. Static; never NULL. Any thread. */
static inline const char *lockstep_error_text(int code)
{
    switch (code) {
    case 0: return "ok";
#define LOCKSTEP_ERROR_TEXT(name, value, text)                                                                         \
    case value: return text;
        LOCKSTEP_ERRORS(LOCKSTEP_ERROR_TEXT)
#undef LOCKSTEP_ERROR_TEXT
    default: return "unknown error";
    }
}

#endif
