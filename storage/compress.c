/* SPDX-License-Identifier: Apache-2.0 */
/* compress.c - see compress.h.
 * Level 1: the state is written while commands are applied on the same processors, so speed counts before size. The window
 * bounds what a reader allocates, whatever the bytes say. */
#include "storage/compress.h"

#include <stdint.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "lockstep/errors.h"

enum { LEVEL = 1, WINDOW_LOG = 19 };

struct compress {
    ZSTD_CCtx *context;
    size_t block_bytes; /* taken since the last whole block */
};

struct expand {
    ZSTD_DCtx *context;
    bool ended;
};

static int from_zstd(size_t rc)
{
    if (!ZSTD_isError(rc)) return 0;
    return ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation ? LOCKSTEP_ENOMEM : LOCKSTEP_ECORRUPT;
}

int compress_open(struct compress **ret)
{
    struct compress *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return LOCKSTEP_ENOMEM;
    stream->context = ZSTD_createCCtx();
    if (stream->context == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(stream->context, ZSTD_c_compressionLevel, LEVEL)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(stream->context, ZSTD_c_windowLog, WINDOW_LOG))) {
        compress_close(stream);
        return LOCKSTEP_ENOMEM;
    }
    *ret = stream;
    return 0;
}

void compress_close(struct compress *stream)
{
    if (stream == NULL) return;
    ZSTD_freeCCtx(stream->context);
    free(stream);
}

int compress_work(struct compress *stream, struct compress_in *in, struct compress_out *out, bool end, bool *ret_ended)
{
    ZSTD_inBuffer from = {.src = in->bytes, .pos = in->done};
    ZSTD_outBuffer to = {.dst = out->bytes, .size = out->room, .pos = out->done};
    ZSTD_EndDirective then;
    size_t rc;
    do {
        size_t before = from.pos, left = COMPRESS_BLOCK_BYTES - stream->block_bytes;
        bool all = in->count - before < left;
        from.size = all ? in->count : before + left;
        then = !all ? ZSTD_e_flush : end ? ZSTD_e_end : ZSTD_e_continue;
        rc = ZSTD_compressStream2(stream->context, &to, &from, then);
        stream->block_bytes += from.pos - before;
        if (then == ZSTD_e_flush && rc == 0) stream->block_bytes = 0;
        *ret_ended = then == ZSTD_e_end && rc == 0;
    } while (!ZSTD_isError(rc) && to.pos < to.size &&
             (from.pos < in->count || (then != ZSTD_e_continue && rc > 0) || (end && !*ret_ended)));
    in->done = from.pos;
    out->done = to.pos;
    return from_zstd(rc);
}

int expand_open(struct expand **ret)
{
    struct expand *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return LOCKSTEP_ENOMEM;
    stream->context = ZSTD_createDCtx();
    if (stream->context == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(stream->context, ZSTD_d_windowLogMax, WINDOW_LOG))) {
        expand_close(stream);
        return LOCKSTEP_ENOMEM;
    }
    *ret = stream;
    return 0;
}

void expand_close(struct expand *stream)
{
    if (stream == NULL) return;
    ZSTD_freeDCtx(stream->context);
    free(stream);
}

int expand_work(struct expand *stream, struct compress_in *in, struct compress_out *out, bool *ret_ended)
{
    ZSTD_inBuffer from = {.src = in->bytes, .size = in->count, .pos = in->done};
    ZSTD_outBuffer to = {.dst = out->bytes, .size = out->room, .pos = out->done};
    size_t rc = 1, before;
    /* The library may hold bytes that did not fit before: it is asked once even where nothing more comes in. */
    do {
        before = from.pos + to.pos;
        if (stream->ended) break;
        rc = ZSTD_decompressStream(stream->context, &to, &from);
        stream->ended = rc == 0;
    } while (!ZSTD_isError(rc) && to.pos < to.size && from.pos + to.pos > before);
    in->done = from.pos;
    out->done = to.pos;
    *ret_ended = stream->ended;
    return from_zstd(rc);
}
