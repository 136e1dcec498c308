/* SPDX-License-Identifier: Apache-2.0 */
/* unpack.c - an arena as ProtobufCAllocator. Giving back is the arena's reset. */
#include "proto/unpack.h"

static void *take(void *arena, size_t bytes)
{
    return arena_allocate(arena, bytes);
}

static void give(void *arena, void *piece)
{
    (void)arena;
    (void)piece;
}

ProtobufCMessage *unpack(struct arena *arena, const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                         size_t count)
{
    ProtobufCAllocator allocator = {.alloc = take, .free = give, .allocator_data = arena};
    return protobuf_c_message_unpack(type, &allocator, count, bytes);
}
