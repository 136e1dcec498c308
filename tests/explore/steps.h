/* SPDX-License-Identifier: Apache-2.0 */
/* steps.h - every interleaving of a few processes that share words of memory.
 * Each process is a C function that reaches shared memory through ring_word_load(), ring_word_store(), ring_word_copy() and
 * steps_wait() alone, and is deterministic: what it does next depends on the values that it loaded, and on nothing else.
 * So it is run by itself, fed with values: a run goes to the first load whose value is not known. What it did is a
 * local state, remembered by what it loaded. The interleavings are then a graph of {local states, values of the words},
 * searched in depth; a state that was seen is not searched again (told by 128 bits). A process says where what it loaded
 * before is of no more importance (steps_merge()).
 *
 * A step is one access, or several that are glued. One that no other process can notice (nobody else stores this word; nor,
 * for a store, loads it) is taken at once: what else could happen first, happens as well behind it. Who touches which word is
 * learnt on the way, and the search repeated until nothing new is learnt.
 * Sequential consistency: the words are seq_cst, so there is nothing else to explore. */
#ifndef LOCKSTEP_TESTS_EXPLORE_STEPS_H
#define LOCKSTEP_TESTS_EXPLORE_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/ring_segment.h"

enum { STEPS_PROCESSES_MAX = 3, STEPS_WORDS_MAX = 32768 };

struct steps_process {
    const char *name;
    void (*reset)(void); /* its private memory, as at its start */
    void (*run)(void);
};

/* Memory at `at` is the words from first_word on. Several places may be the same words: an address space each. */
void steps_region(const volatile void *at, size_t bytes, uint32_t first_word);
void steps_initial(uint32_t word, uint64_t value); /* else 0 */
/* How a word is called in a path, and whether an access to it is glued to the one before. */
void steps_describe(void (*name)(uint32_t word, char *to, size_t room), bool (*glued)(uint32_t word));
void steps_forget(void); /* all of the above */

/* A process waits until the word is not 0, and takes it: it is 0 then. */
void steps_wait(ring_word *word);
/* What this process does from here on depends on `key` alone (and on words that it has yet to load), whatever it loaded before:
 * its local states with this key are one. The key tells also where in the program this is. */
void steps_merge(uint64_t key);
/* A process found that a rule is broken. Does not return. */
_Noreturn void steps_broken(const char *what);
#define steps_check(condition, what) ((condition) ? (void)0 : steps_broken(what))

struct steps_result {
    uint64_t states, steps, local_states;
    uint32_t longest;   /* accesses of one process */
    const char *broken; /* NULL: nothing; the path stands on stdout */
};
/* Outside of it, the accesses are what they are without all this. A process that makes more than accesses_max accesses does
 * not come to an end; one that waits when all others are done waits for ever. */
struct steps_result steps_explore(const struct steps_process *processes, unsigned count, uint32_t accesses_max);

#endif
