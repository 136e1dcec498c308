/* SPDX-License-Identifier: Apache-2.0 */
/* kv_sim.c - the map suite against the simulated one. */
#include <stdio.h>

#include "tests/conformance/kv.h"
#include "tests/support/sim_kv.h"
#include "tests/support/unit.h"

static struct sim_disk *disk;
static struct sim_kv *map;

const struct kv *conformance_kv_begin(char directory[256])
{
    disk = sim_disk_open(3);
    map = sim_kv_open(disk);
    snprintf(directory, 256, "d");
    return sim_kv(map);
}

void conformance_kv_end(void)
{
    sim_kv_close(map);
    sim_disk_close(disk);
}

int main(void)
{
    return unit_main("kv: sim", conformance_kv_add);
}
