/* SPDX-License-Identifier: Apache-2.0 */
/* boot.c - see boot.h.
 *    0 magic u32   4 crc u32 (bytes 8..)   8 version u32   12 complete u32   16 boot u64   24 member_id u64 */
#include "storage/boot.h"

#include <stddef.h>
#include <string.h>

#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/record_file.h"

enum { BOOT_MAGIC = 0x5442534c /* "LSBT" */ };

struct boot_bytes {
    uint32_t magic, crc, version, complete;
    uint64_t boot, member_id;
};

static uint32_t boot_crc(const struct boot_bytes *bytes)
{
    return crc32c(&bytes->version, sizeof *bytes - offsetof(struct boot_bytes, version));
}

int boot_read(const struct disk *disk, const char *directory, struct boot *ret)
{
    uint8_t file[RECORD_FILE_BYTES_MAX];
    size_t count = 0;
    struct boot_bytes bytes;
    int rc = record_file_read(disk, directory, "boot", file, &count);
    if (rc != 0) return rc;
    if (count < sizeof bytes) return LOCKSTEP_ECORRUPT;
    memcpy(&bytes, file, sizeof bytes);
    if (bytes.magic != BOOT_MAGIC || bytes.crc != boot_crc(&bytes)) return LOCKSTEP_ECORRUPT;
    *ret = (struct boot){.version = bytes.version};
    if (bytes.version > BOOT_VERSION) return LOCKSTEP_EVERSION;
    ret->boot = bytes.boot;
    ret->complete = bytes.complete != 0;
    ret->member_id = bytes.member_id;
    return 0;
}

int boot_write(const struct disk *disk, const char *directory, const struct boot *boot)
{
    struct boot_bytes bytes = {.magic = BOOT_MAGIC,
                               .version = BOOT_VERSION,
                               .complete = boot->complete,
                               .boot = boot->boot,
                               .member_id = boot->member_id};
    bytes.crc = boot_crc(&bytes);
    return record_file_replace(disk, directory, "boot", &bytes, sizeof bytes);
}
