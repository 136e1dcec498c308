/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_backup.c - a backup from anywhere: as it is, and as a list of bytes to change in a whole one; then with the checksums of
 * its head and its parts made right, so that what stands behind them is judged too. What is handed out is whole by itself. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/backup.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { HEAD_BYTES = 176, PART_BYTES = 24 };

struct memory {
    const uint8_t *bytes;
    size_t count;
    raft_index last;
};

static int read_memory(void *context, void *to, size_t bytes, uint64_t offset, size_t *ret_count)
{
    const struct memory *from = context;
    *ret_count = 0;
    if (offset >= from->count) return 0;
    *ret_count = bytes < from->count - offset ? bytes : from->count - (size_t)offset;
    memcpy(to, from->bytes + offset, *ret_count);
    return 0;
}

static int take_head(void *context, const struct backup_head *head)
{
    struct memory *memory = context;
    lk_assert(configuration_valid(&head->birth.configuration));
    memory->last = head->snapshot.base.index;
    return 0;
}

static int take_block(void *context, const uint8_t *block, const struct block_header *header)
{
    struct memory *memory = context;
    lk_assert(header->index == ++memory->last);
    lk_assert(block_body_check(block, header) == 0);
    return 0;
}

static int look(const uint8_t *bytes, size_t count)
{
    struct memory memory = {.bytes = bytes, .count = count};
    const struct backup_source source = {.context = &memory, .read = read_memory};
    const struct backup_sink sink = {.context = &memory, .head = take_head, .block = take_block};
    struct backup_summary summary;
    uint64_t offset;
    char why[512] = "";
    int rc = backup_read(&source, &sink, &summary, &offset, why, sizeof why);
    lk_assert(offset <= count);
    lk_assert(rc != 0 || (summary.bytes == count && memory.last == summary.head.last));
    lk_assert(rc == 0 || why[0] != 0);
    return rc;
}

static void seal(uint8_t *at, size_t from, size_t end)
{
    uint32_t crc = crc32c(at + from + 8, end - from - 8);
    memcpy(at + from + 4, &crc, sizeof crc);
}

static int look_sealed(const uint8_t *bytes, size_t count)
{
    static const uint32_t head_magic = 0x4b42534c, part_magic = 0x5042534c, version = BACKUP_VERSION;
    uint32_t length;
    if (count < HEAD_BYTES || count > 65536) return LOCKSTEP_ECORRUPT;
    uint8_t *sealed = malloc(count);
    if (sealed == NULL) return LOCKSTEP_ENOMEM;
    memcpy(sealed, bytes, count);
    memcpy(&length, sealed + 12, sizeof length);
    if (length < HEAD_BYTES || length > count) length = HEAD_BYTES;
    memcpy(sealed, &head_magic, sizeof head_magic);
    memcpy(sealed + 8, &version, sizeof version);
    memcpy(sealed + 12, &length, sizeof length);
    seal(sealed, 0, length);
    uint64_t number = 1;
    for (size_t at = length; count - at >= PART_BYTES; number++) {
        memcpy(&length, sealed + at + 12, sizeof length);
        if (length > count - at - PART_BYTES) length = (uint32_t)(count - at - PART_BYTES);
        memcpy(sealed + at, &part_magic, sizeof part_magic);
        memcpy(sealed + at + 12, &length, sizeof length);
        memcpy(sealed + at + 16, &number, sizeof number);
        seal(sealed, at, at + PART_BYTES + length);
        at += PART_BYTES + length;
    }
    int rc = look(sealed, count);
    free(sealed);
    return rc;
}

static uint8_t *part(uint8_t *at, uint32_t kind, const void *bytes, uint32_t count)
{
    memcpy(at + 8, &kind, sizeof kind);
    memcpy(at + 12, &count, sizeof count);
    memcpy(at + PART_BYTES, bytes, count);
    return at + PART_BYTES + count;
}

/* A whole one, but for magic, numbers and checksums: birth, two blocks, the end. */
static size_t whole(uint8_t *to)
{
    struct birth_record birth = {.cluster_id = 1, .time_ns = 5, .cluster = "c", .machine = "m"};
    birth.configuration = (struct configuration){
        .level = DURABILITY_LEVEL_FSYNC,
        .member_count = 1,
        .members = {{.id = 7, .role = CONFIGURATION_VOTER, .name = "n", .client = "a:1", .peer = "a:2"}}};
    struct block_base base = {.next_position = 1, .time_ns = 5};
    const uint64_t last = 2;
    uint8_t block[BLOCK_HEADER_BYTES];
    memset(to, 0, HEAD_BYTES);
    uint32_t birth_bytes = birth_record_write(&birth, to + HEAD_BYTES), head_bytes = HEAD_BYTES + birth_bytes;
    memcpy(to + 12, &head_bytes, sizeof head_bytes);
    to[32] = 'n';
    memcpy(to + 152, &last, sizeof last);
    memcpy(to + 168, &birth_bytes, sizeof birth_bytes);
    uint8_t *at = to + head_bytes;
    for (raft_index i = 1; i <= last; i++) {
        struct block_header header = {.type = BLOCK_TERM,
                                      .bytes = sizeof block,
                                      .index = i,
                                      .term = i,
                                      .time_ns = 9,
                                      .first_position = 1,
                                      .previous_crc = base.crc};
        block_seal(block, &header);
        base = block_base_after(&header);
        at = part(at, 2, block, sizeof block);
    }
    const uint64_t end[] = {last, base.index, base.term, base.next_position, base.time_ns, base.crc};
    return (size_t)(part(at, 3, end, sizeof end) - to);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static uint8_t changed[65536];
    (void)look(bytes, count);
    (void)look_sealed(bytes, count);
    size_t changed_count = whole(changed);
    for (size_t i = 0; i + 3 <= count && i < 24; i += 3) {
        uint16_t at;
        memcpy(&at, bytes + i, sizeof at);
        changed[at % changed_count] ^= bytes[i + 2];
    }
    int rc = look_sealed(changed, changed_count);
    lk_assert(rc == 0 || count >= 3); /* unchanged, it is whole */
    return 0;
}
