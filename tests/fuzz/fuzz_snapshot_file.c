/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_snapshot_file.c - the bytes of a snapshot's file, and of the stream in its pieces: refused, or read within bounds.
 * Checksums are put right first, since nothing behind a wrong one is looked at. Input: piece_bytes and bytes of the head (8
 * bytes, of which few bits count), then what the pieces hold. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "storage/compress.h"
#include "storage/snapshot_file.h"
#include "tests/support/sim_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { PIECE_MAX = 256 };

static void expand(const uint8_t *bytes, size_t count)
{
    uint8_t to[512];
    struct expand *stream;
    struct compress_in in = {.bytes = bytes, .count = count};
    bool ended = false;
    if (expand_open(&stream) != 0) abort();
    for (int turns = 0; turns < 10000 && !ended; turns++) {
        struct compress_out out = {.bytes = to, .room = sizeof to};
        if (expand_work(stream, &in, &out, &ended) != 0) break;
        lk_assert(out.done <= out.room);
        lk_assert(in.done <= in.count);
        if (out.done == 0 && in.done == in.count) break;
    }
    expand_close(stream);
}

/* The stream of these bytes gives them back; damaged by the first few, it is refused or gives others. */
static void there_and_back(const uint8_t *bytes, size_t count)
{
    static uint8_t made[1 << 17], again[1 << 17];
    struct compress *stream;
    struct expand *back;
    bool ended = false;
    if (count > sizeof again / 2) count = sizeof again / 2;
    if (compress_open(&stream) != 0) abort();
    struct compress_in in = {.bytes = bytes, .count = count};
    struct compress_out out = {.bytes = made, .room = sizeof made};
    int rc = compress_work(stream, &in, &out, true, &ended);
    lk_assert(rc == 0);
    lk_assert(ended);
    compress_close(stream);
    if (expand_open(&back) != 0) abort();
    struct compress_in from = {.bytes = made, .count = out.done};
    struct compress_out to = {.bytes = again, .room = sizeof again};
    rc = expand_work(back, &from, &to, &ended);
    lk_assert(rc == 0);
    lk_assert(ended);
    lk_assert(to.done == count);
    lk_assert(count == 0 || memcmp(again, bytes, count) == 0);
    expand_close(back);
    for (size_t i = 0; i + 2 < count && i < 9; i += 3)
        made[((uint64_t)bytes[i] << 8 | bytes[i + 1]) % out.done] ^= bytes[i + 2];
    expand(made, out.done);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static uint8_t piece[SNAPSHOT_PIECE_BYTES_MAX];
    struct snapshot_file *file = NULL;
    struct snapshot_file_head head = {.version = SNAPSHOT_FILE_VERSION, .piece_bytes = PIECE_MAX};
    if (count < 8) return 0;
    struct sim_disk *sim = sim_disk_open(1);
    const struct disk *disk = sim_disk(sim);
    head.piece_bytes = 1 + bytes[0];
    head.version += bytes[1] == 77;
    head.group = bytes[2] & 1;
    head.is.base.index = bytes[3];
    head.is.bytes = bytes[4] | (uint64_t)(bytes[5] & 63) << 8 | (uint64_t)(bytes[6] & 1) << 40;
    const uint8_t *from = bytes + 8;
    size_t left = count - 8;
    if (snapshot_file_create(disk, "d", "f", &file) != 0 || snapshot_file_write_head(file, &head) != 0) abort();
    for (uint32_t number = 0; left > 0 && number < 64; number++) {
        uint32_t now = left < head.piece_bytes ? (uint32_t)left : head.piece_bytes;
        if (snapshot_file_write(file, head.piece_bytes, number + (bytes[7] == number), from, now) != 0) abort();
        from += now;
        left -= now;
    }
    snapshot_file_close(file);
    file = NULL;
    if (snapshot_file_open(disk, "d", "f", false, &file, &head) == 0) {
        uint64_t offset;
        uint32_t checksum;
        int rc = snapshot_file_scan(file, &head, piece, &offset, &checksum);
        lk_assert(rc == 0);
        lk_assert(offset <= head.is.bytes);
    }
    snapshot_file_close(file);
    sim_disk_close(sim);
    expand(bytes + 8, count - 8);
    there_and_back(bytes, count);
    return 0;
}
