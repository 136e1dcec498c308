/* SPDX-License-Identifier: Apache-2.0 */
/* assert.h - assertions that stay on in every build.
 * They find our own bugs. What a peer, a client or a disk says is input: check it, return a code, never assert on it. */
#ifndef LOCKSTEP_BASE_ASSERT_H
#define LOCKSTEP_BASE_ASSERT_H

#include <assert.h> /* static_assert, for everyone; assert() itself is not used: NDEBUG would switch it off */

/* One condition each. On failure: `file:line: function: assertion failed: expression` on stderr, then abort(). */
#define lk_assert(condition)                                                                                           \
    (__builtin_expect(!(condition), 0) ? lk_assert_failed(__FILE__, __LINE__, __func__, #condition) : (void)0)

/* A place that no path reaches. */
#define lk_unreachable() lk_assert_failed(__FILE__, __LINE__, __func__, "unreachable")

_Noreturn void lk_assert_failed(const char *file, int line, const char *function, const char *expression)
    __attribute__((cold));

#endif
