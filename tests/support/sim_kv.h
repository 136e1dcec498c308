/* SPDX-License-Identifier: Apache-2.0 */
/* sim_kv.h - an ordered map in memory behind storage/kv.h. A commit is atomic and durable, and shares its disk's power:
 * one that meets a power cut has happened or not, as the seed decides. One thread. */
#ifndef LOCKSTEP_TESTS_SUPPORT_SIM_KV_H
#define LOCKSTEP_TESTS_SUPPORT_SIM_KV_H

#include "storage/kv.h"
#include "tests/support/sim_disk.h"

struct sim_kv;

struct sim_kv *sim_kv_open(struct sim_disk *disk);
void sim_kv_close(struct sim_kv *sim); /* before its disk; takes NULL */
const struct kv *sim_kv(struct sim_kv *sim);

/* It may not grow beyond so many bytes of values: ENOSPC. UINT64_MAX = no limit. */
void sim_kv_capacity(struct sim_kv *sim, uint64_t bytes);

uint64_t sim_kv_bytes(const struct sim_kv *sim); /* of values, now */

/* So many more readers are opened; those behind them find no memory: ENOMEM. */
void sim_kv_readers_left(struct sim_kv *sim, uint32_t count);

/* A value's bytes, for tests that damage them; NULL = none. */
uint8_t *sim_kv_value(struct sim_kv *sim, uint32_t table, uint64_t key, size_t *ret_bytes);

#endif
