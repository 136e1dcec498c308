/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.c - one plugin in many builds, each with one fault, for the tests of the loader. */
#include <stddef.h>
#include <stdint.h>

#if defined(FIXTURE_FUNCTION)

/* The right name on the wrong thing. */
__attribute__((visibility("default"))) int lockstep_machine(void);
int lockstep_machine(void)
{
    return 1;
}

#elif defined(FIXTURE_TINY)

__attribute__((visibility("default"))) extern const uint32_t lockstep_machine;
const uint32_t lockstep_machine = 4;

#else

#include "lockstep/machine.h"

#ifndef FIXTURE_ABI
#define FIXTURE_ABI LOCKSTEP_MACHINE_ABI
#endif
#ifndef FIXTURE_SIZE
#define FIXTURE_SIZE sizeof(struct lockstep_machine)
#endif
#ifndef FIXTURE_NAME
#define FIXTURE_NAME "fixture"
#endif
#ifndef FIXTURE_VERSION
#define FIXTURE_VERSION "7.1"
#endif

#define UNUSED __attribute__((unused)) /* each build leaves something out */

#if defined(FIXTURE_UNRESOLVED)
int defined_nowhere(void);
#define RESULT defined_nowhere()
#else
#define RESULT 0
#endif

UNUSED static int fixture_open(const struct lockstep_host *host, void **ret_machine)
{
    static const int nothing = 0;
    (void)host;
    *ret_machine = (void *)(uintptr_t)&nothing;
    return RESULT;
}

UNUSED static void fixture_close(void *machine)
{
    (void)machine;
}

UNUSED static int fixture_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    (void)machine;
    (void)replies;
    while (batch->next(batch) != NULL) continue;
    return 0;
}

UNUSED static int fixture_begin(void *machine, void **ret_snapshot)
{
    (void)machine;
    (void)ret_snapshot;
    return -1;
}

static int fixture_query(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                         struct lockstep_replies *replies)
{
    (void)machine;
    (void)entity;
    (void)query;
    (void)query_bytes;
    (void)replies;
    return 0;
}

#define FIXTURE_TABLE                                                                                                  \
    .size = (uint32_t)(FIXTURE_SIZE), .abi = FIXTURE_ABI, .name = FIXTURE_NAME, .version = FIXTURE_VERSION,            \
    .open = FIXTURE_OPEN, .close = FIXTURE_CLOSE, .apply = FIXTURE_APPLY, .snapshot_begin = FIXTURE_BEGIN,             \
    .query = fixture_query
#ifndef FIXTURE_OPEN
#define FIXTURE_OPEN fixture_open
#endif
#ifndef FIXTURE_CLOSE
#define FIXTURE_CLOSE fixture_close
#endif
#ifndef FIXTURE_APPLY
#define FIXTURE_APPLY fixture_apply
#endif
#ifndef FIXTURE_BEGIN
#define FIXTURE_BEGIN NULL
#endif

#if defined(FIXTURE_NEWER)

/* As a later header would declare it: one member more. */
struct newer_machine {
    struct lockstep_machine known;
    int (*added_later)(void *machine);
};
extern LOCKSTEP_MACHINE_EXPORT const struct newer_machine newer __asm__("lockstep_machine");
const struct newer_machine newer = {.known = {FIXTURE_TABLE}, .added_later = (int (*)(void *))1};

#else

LOCKSTEP_MACHINE_EXPORT const struct lockstep_machine
#if defined(FIXTURE_NO_SYMBOL)
    another_name
#else
    lockstep_machine
#endif
    = {FIXTURE_TABLE};

#endif
#endif
