/* SPDX-License-Identifier: Apache-2.0 */
/* compress.h - a stream of bytes, smaller, and back (zstd). The only user of zstd.h.
 * Equal bytes in give equal bytes out, however they are cut, from the same version of the library.
 * Thread: one a stream. Allocates when opened, and with the first bytes; some 5 MiB to compress, 1 MiB to expand. */
#ifndef LOCKSTEP_STORAGE_COMPRESS_H
#define LOCKSTEP_STORAGE_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>

struct compress;
struct expand;

/* A range of bytes of which the first `done` are taken, or filled. */
struct compress_in {
    const void *bytes;
    size_t count, done;
};
struct compress_out {
    void *bytes;
    size_t room, done;
};

/* What comes in is compressed in blocks of so much: no call costs more than its bytes and one such, so who is in nobody's way
 * with short calls stays so. */
enum { COMPRESS_BLOCK_BYTES = 16 << 10 };

int compress_open(struct compress **ret); /* ENOMEM */
void compress_close(struct compress *stream);
/* Go on until `in` is taken or `out` is full. end: nothing comes behind `in`; *ret_ended says that all is out. ENOMEM */
int compress_work(struct compress *stream, struct compress_in *in, struct compress_out *out, bool end, bool *ret_ended);

int expand_open(struct expand **ret); /* ENOMEM */
void expand_close(struct expand *stream);
/* Go on until `in` is taken or `out` is full. *ret_ended: that was all; what `in` holds behind it is not taken.
 * ECORRUPT: no such stream, or one that needs more memory than those written here. ENOMEM */
int expand_work(struct expand *stream, struct compress_in *in, struct compress_out *out, bool *ret_ended);

#endif
