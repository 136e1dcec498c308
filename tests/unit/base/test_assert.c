/* SPDX-License-Identifier: Apache-2.0 */
/* test_assert.c - lk_assert is on in this build, whatever its flags, and names the place and the condition. */
#include "base/assert.h"
#include "tests/support/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(true_condition_is_evaluated_once_and_passes)
{
    int calls = 0;
    lk_assert(++calls == 1);
    ck_assert_int_eq(calls, 1);
}
END_TEST

START_TEST(false_condition_names_file_line_and_expression_and_aborts)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        lk_assert(1 + 1 == 3);
        _exit(0);
    }
    close(ends[1]);
    char text[512];
    ssize_t bytes = read(ends[0], text, sizeof text - 1);
    ck_assert_int_gt(bytes, 0);
    text[bytes] = '\0';
    close(ends[0]);
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    ck_assert_ptr_nonnull(strstr(text, "test_assert.c:"));
    ck_assert_ptr_nonnull(strstr(text, "assertion failed: 1 + 1 == 3\n"));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, true_condition_is_evaluated_once_and_passes);
    tcase_add_test(tests, false_condition_names_file_line_and_expression_and_aborts);
}

int main(void)
{
    return unit_main("base assert", add);
}
