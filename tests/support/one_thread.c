/* SPDX-License-Identifier: Apache-2.0 */
/* one_thread.c - linked into programs that are said to have one thread: it stands before libc's pthread_create, for libraries
 * too, and lets none begin. Why: TSan is spared these programs. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

int pthread_create(pthread_t *ret, const pthread_attr_t *attributes, void *(*body)(void *context), void *context)
{
    (void)ret, (void)attributes, (void)body, (void)context;
    fputs("a second thread in a program that is said to have one: TSan has to run it, see tests/meson.build\n", stderr);
    abort();
}
