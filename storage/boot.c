/* SPDX-License-Identifier: Apache-2.0 */
/* boot.c - see boot.h.
 *    0 magic u32   4 crc u32 (bytes 8..)   8 version u32   12 complete u32   16 boot u64   24 member_id u64
 *   32 host_boot u64   40 clean u32   44 zero u32: from version 2 on   48 promise_ns u64: from version 3 on */
#include "storage/boot.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/record_file.h"

enum { BOOT_MAGIC = 0x5442534c /* "LSBT" */ };

struct boot_bytes {
    uint32_t magic, crc, version, complete;
    uint64_t boot, member_id;
    uint64_t host_boot;
    uint32_t clean, zero;
    uint64_t promise_ns;
};
static_assert(sizeof(struct boot_bytes) == 56, "as documented");

enum { VERSION_1_BYTES = 32, VERSION_2_BYTES = 48 };

static uint32_t boot_crc(const struct boot_bytes *bytes, size_t count)
{
    return crc32c(&bytes->version, count - offsetof(struct boot_bytes, version));
}

bool boot_counts_as_wiped(const struct boot *boot, enum durability_level level, uint64_t host_boot)
{
    bool flushes = level != DURABILITY_LEVEL_OS && level != DURABILITY_LEVEL_MEMORY;
    return !flushes && !boot->clean && boot->host_boot != host_boot;
}

int boot_read(const struct disk *disk, const char *directory, struct boot *ret)
{
    uint8_t file[RECORD_FILE_BYTES_MAX];
    size_t count = 0;
    struct boot_bytes bytes = {0};
    int rc = record_file_read(disk, directory, "boot", file, &count);
    if (rc != 0) return rc;
    if (count < VERSION_1_BYTES) return LOCKSTEP_ECORRUPT;
    memcpy(&bytes, file, VERSION_1_BYTES);
    size_t length = bytes.version == 1 ? VERSION_1_BYTES : bytes.version == 2 ? VERSION_2_BYTES : sizeof bytes;
    if (count < length) return LOCKSTEP_ECORRUPT;
    memcpy(&bytes, file, length);
    if (bytes.magic != BOOT_MAGIC || bytes.crc != boot_crc(&bytes, length)) return LOCKSTEP_ECORRUPT;
    *ret = (struct boot){.version = bytes.version};
    if (bytes.version > BOOT_VERSION) return LOCKSTEP_EVERSION;
    ret->boot = bytes.boot;
    ret->complete = bytes.complete != 0;
    ret->member_id = bytes.member_id;
    ret->host_boot = bytes.host_boot;
    ret->clean = bytes.clean != 0;
    ret->promise_ns = bytes.promise_ns;
    return 0;
}

int boot_write(const struct disk *disk, const char *directory, const struct boot *boot)
{
    struct boot_bytes bytes = {.magic = BOOT_MAGIC,
                               .version = BOOT_VERSION,
                               .complete = boot->complete,
                               .boot = boot->boot,
                               .member_id = boot->member_id,
                               .host_boot = boot->host_boot,
                               .clean = boot->clean,
                               .promise_ns = boot->promise_ns};
    bytes.crc = boot_crc(&bytes, sizeof bytes);
    return record_file_replace(disk, directory, "boot", &bytes, sizeof bytes);
}
