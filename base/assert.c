/* SPDX-License-Identifier: Apache-2.0 */
/* assert.c - see assert.h. Any thread; allocates nothing, since memory may be what is broken. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void lk_assert_failed(const char *file, int line, const char *function, const char *expression)
{
    char text[512];
    int length = snprintf(text, sizeof text, "%s:%d: %s: assertion failed: %s\n", file, line, function, expression);
    if (length > 0) {
        size_t bytes = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
        ssize_t written = write(STDERR_FILENO, text, bytes); /* one write: lines of two threads do not mix */
        (void)written;                                       /* nobody is left to tell */
    }
    abort();
}
