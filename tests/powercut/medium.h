/* SPDX-License-Identifier: Apache-2.0 */
/* medium.h - what is on the disk under a directory, and what is only in the cache: a trace replayed, record by record.
 *
 * From it crash images are made: what a machine might find after its power went at that very moment. Promised is what a
 * flush covered, and nothing else:
 *   content  each 512-byte sector holds what it held at its last flush, or what any later write made of it, by itself: writes
 *            are dropped, kept, reordered and torn
 *   size     the one at the last flush, or any later one
 *   names    a directory's entries at its last flush, and then a first part of what was done to them since; a flush of a
 *            file says nothing of its name. Half-way through a rename a file has both names
 *   O_DSYNC  the sectors of that write, at that moment; not what else the file has in the cache
 * A write below a sector's size is a new version of the whole sector, as the cache has it. One thread. */
#ifndef LOCKSTEP_TESTS_POWERCUT_MEDIUM_H
#define LOCKSTEP_TESTS_POWERCUT_MEDIUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/powercut/trace.h"

struct medium;

/* Which flushes lie, for the test of this test: they are taken for flushes by the program and do nothing. */
enum medium_lie { MEDIUM_HONEST, MEDIUM_FLUSHES_LIE, MEDIUM_DSYNC_LIES };

/* An empty directory of this inode. */
struct medium *medium_new(uint64_t root, enum medium_lie lie);
/* The directory as it is: all of it on the medium. */
struct medium *medium_open(const char *directory, enum medium_lie lie);
void medium_close(struct medium *medium); /* takes NULL */
void medium_take(struct medium *medium, const struct trace_record *record);
/* Whether a directory is what all the records say; else `why` names a file: it was changed behind the recorder's back. */
bool medium_compare(const struct medium *medium, const char *directory, char *why, size_t why_room);
/* One crash image, by the seed, into a directory that is empty. */
void medium_image(const struct medium *medium, uint64_t seed, const char *directory);

#endif
