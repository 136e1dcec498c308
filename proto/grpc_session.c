/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_session.c - around nghttp2. */
#include "proto/grpc_session.h"

#include <string.h>

#include "base/assert.h"

static void *take(size_t bytes, void *budget)
{
    return pool_take(budget, bytes);
}

static void give(void *piece, void *budget)
{
    pool_give(budget, piece);
}

static void *take_cleared(size_t count, size_t each, void *budget)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, each, &bytes)) return NULL;
    void *piece = pool_take(budget, bytes);
    if (piece != NULL) memset(piece, 0, bytes);
    return piece;
}

static void *resize(void *piece, size_t bytes, void *budget)
{
    return pool_resize(budget, piece, bytes);
}

nghttp2_mem grpc_session_memory(struct pool_budget *budget)
{
    return (nghttp2_mem){
        .mem_user_data = budget, .malloc = take, .free = give, .calloc = take_cleared, .realloc = resize};
}

size_t grpc_session_send(nghttp2_session *session, struct grpc_rest *rest, uint8_t *to, size_t room, bool *ret_failed)
{
    size_t used = 0;
    while (used < room) {
        if (rest->bytes == 0) {
            ssize_t made = nghttp2_session_mem_send(session, &rest->at);
            if (made < 0) *ret_failed = true;
            if (made <= 0) break;
            rest->bytes = (size_t)made;
        }
        size_t count = rest->bytes < room - used ? rest->bytes : room - used;
        memcpy(to + used, rest->at, count);
        rest->at += count;
        rest->bytes -= count;
        used += count;
    }
    return used;
}

int grpc_session_window_fits(nghttp2_session *session, int32_t stream, const struct grpc_inbox *inbox, size_t *window)
{
    size_t needed = 2 * grpc_inbox_expected(inbox);
    if (needed <= *window) return 0;
    *window = needed;
    return nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, stream, (int32_t)needed);
}

void grpc_pairs_init(struct grpc_pairs *pairs)
{
    pairs->count = pairs->bytes = 0;
}

void grpc_pairs_copy(struct grpc_pairs *to, const struct grpc_pairs *from)
{
    grpc_pairs_init(to);
    for (size_t i = 0; i < from->count; i++) grpc_pairs_add(to, from->pair[i].name, from->pair[i].value);
}

static char *append(struct grpc_pairs *pairs, struct grpc_text text)
{
    char *to = pairs->text + pairs->bytes;
    memcpy(to, text.at, text.bytes);
    pairs->bytes += text.bytes;
    return to;
}

void grpc_pairs_add(struct grpc_pairs *pairs, struct grpc_text name, struct grpc_text value)
{
    if (pairs->count == sizeof pairs->pair / sizeof pairs->pair[0]) return;
    size_t room = sizeof pairs->text - pairs->bytes;
    if (name.bytes > room || value.bytes > room - name.bytes) return;
    struct grpc_pair *pair = &pairs->pair[pairs->count++];
    pair->name = (struct grpc_text){append(pairs, name), name.bytes};
    pair->value = (struct grpc_text){append(pairs, value), value.bytes};
}

void grpc_pairs_add_message(struct grpc_pairs *pairs, struct grpc_text message)
{
    char encoded[GRPC_STATUS_MESSAGE_BYTES_MAX];
    size_t bytes = grpc_percent_encode(message, encoded, sizeof encoded);
    if (bytes > 0) grpc_pairs_add(pairs, grpc_text("grpc-message"), (struct grpc_text){encoded, bytes});
}

bool grpc_pairs_wanted(struct grpc_text name)
{
    static const char prefix[] = "lockstep-";
    return name.bytes >= sizeof prefix - 1 && memcmp(name.at, prefix, sizeof prefix - 1) == 0;
}

/* nghttp2 asks for uint8_t * where it only reads. */
static uint8_t *unconst(const char *text)
{
    union {
        const char *from;
        uint8_t *to;
    } cast = {.from = text};
    return cast.to;
}

nghttp2_nv grpc_nv_static(const char *name, const char *value)
{
    return (nghttp2_nv){.name = unconst(name),
                        .value = unconst(value),
                        .namelen = strlen(name),
                        .valuelen = strlen(value),
                        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

nghttp2_nv grpc_nv_copied(struct grpc_text name, struct grpc_text value)
{
    return (nghttp2_nv){.name = unconst(name.at),
                        .value = unconst(value.at),
                        .namelen = name.bytes,
                        .valuelen = value.bytes,
                        .flags = NGHTTP2_NV_FLAG_NONE};
}

const char *grpc_status_text(enum grpc_status status)
{
    static const char *const digits[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                         "9", "10", "11", "12", "13", "14", "15", "16"};
    lk_assert((int)status >= 0);
    lk_assert((size_t)status < sizeof digits / sizeof digits[0]);
    return digits[status];
}
