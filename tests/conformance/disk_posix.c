/* SPDX-License-Identifier: Apache-2.0 */
/* disk_posix.c - the disk suite against the real one. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/conformance/disk.h"
#include "tests/support/unit.h"

static char at[64];

const struct disk *conformance_disk_begin(char directory[256])
{
    snprintf(at, sizeof at, "/tmp/lockstep-disk-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(at));
    snprintf(directory, 256, "%s", at);
    return disk_posix();
}

void conformance_disk_end(void)
{
    unit_folder_remove(at);
}

int main(void)
{
    return unit_main("disk: posix", conformance_disk_add);
}
