/* SPDX-License-Identifier: Apache-2.0 */
/* unit.c - see unit.h. */
#include "tests/support/unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int unit_main(const char *suite_name, void (*add)(TCase *tests))
{
    Suite *suite = suite_create(suite_name);
    TCase *tests = tcase_create(suite_name);
    tcase_set_timeout(tests, 0); /* meson's timeout is the bound; check's needs a fork */
    add(tests);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    int run = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed == 0 && run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

uint64_t unit_seed(uint64_t usual)
{
    const char *text = getenv("LOCKSTEP_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : usual;
    printf("LOCKSTEP_SEED=0x%" PRIx64 "\n", seed);
    return seed;
}

uint64_t unit_rounds(uint64_t usual)
{
    if (getenv("LOCKSTEP_FULL") != NULL) return usual * 10;
    if (getenv("LOCKSTEP_SHORT") != NULL) return usual < 10 ? 1 : usual / 10;
    return usual;
}
