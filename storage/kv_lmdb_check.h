/* SPDX-License-Identifier: Apache-2.0 */
/* kv_lmdb_check.h - whether LMDB can walk a data.mdb without leaving it: looked at before it is mapped.
 * Thread: the one that opens. Reads only, through the descriptor. */
#ifndef LOCKSTEP_STORAGE_KV_LMDB_CHECK_H
#define LOCKSTEP_STORAGE_KV_LMDB_CHECK_H

#include <stddef.h>
#include <stdint.h>

/* Meta pages, size, every page of every tree, and the list of free pages. What keys and values say is their
 * readers' to check.
 * path  for people
 * why   on error a sentence with the file, the page and what to do
 * ECORRUPT, EVERSION, EIO, ENOMEM. Cost: reads every page but what large values hold. Allocates a bit a page, gives it back. */
int kv_lmdb_check(int fd, const char *path, uint64_t file_bytes, uint64_t *ret_page_bytes, char *why, size_t why_room);

#endif
