/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot_content.c - what a machine wrote into a snapshot, out of its pieces again.
 * Thread: the reader's. Owns: one piece, and the stream that expands it. */
#include <stdlib.h>

#include "lockstep/errors.h"
#include "storage/compress.h"
#include "storage/log.h"
#include "storage/snapshot.h"

struct storage_content {
    struct storage_reader *reader;
    enum storage_which which;
    struct expand *stream;
    struct storage_snapshot is;
    uint64_t next; /* offset of the piece behind this one */
    struct compress_in in;
    bool ended;
    uint8_t piece[SNAPSHOT_PIECE_BYTES_MAX];
};

int storage_content_open(struct storage_reader *reader, enum storage_which which, struct storage_content **ret)
{
    struct storage_content *content = malloc(sizeof *content);
    if (content == NULL) return LOCKSTEP_ENOMEM;
    content->reader = reader;
    content->which = which;
    content->is = (struct storage_snapshot){0};
    content->next = 0;
    content->in = (struct compress_in){.bytes = content->piece};
    content->ended = false;
    int rc = expand_open(&content->stream);
    if (rc != 0) {
        free(content);
        return rc;
    }
    *ret = content;
    return 0;
}

void storage_content_close(struct storage_content *content)
{
    if (content == NULL) return;
    expand_close(content->stream);
    free(content);
}

static int next_piece(struct storage_content *content)
{
    struct storage_snapshot is;
    if (content->next > 0 && content->next == content->is.bytes) return LOCKSTEP_ECORRUPT; /* the stream goes on */
    content->in.done = content->in.count = 0;
    int rc =
        storage_piece_read(content->reader, content->which, content->next, &is, content->piece, &content->in.count);
    if (rc != 0) return rc;
    if (content->next > 0 && is.checksum != content->is.checksum) return LOCKSTEP_EGONE;
    content->is = is;
    content->next += content->in.count;
    return 0;
}

int storage_content_read(struct storage_content *content, void *to, size_t room, size_t *ret_count)
{
    struct compress_out out = {.bytes = to, .room = room};
    *ret_count = 0;
    while (!content->ended && out.done == 0 && room > 0) {
        int rc = expand_work(content->stream, &content->in, &out, &content->ended);
        if (rc == 0 && !content->ended && out.done == 0) rc = next_piece(content);
        if (rc != 0) return rc;
    }
    if (content->ended && (content->in.done < content->in.count || content->next != content->is.bytes))
        return LOCKSTEP_ECORRUPT; /* bytes behind the stream */
    *ret_count = out.done;
    return 0;
}
