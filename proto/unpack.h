/* SPDX-License-Identifier: Apache-2.0 */
/* unpack.h - protobuf-c on a byte budget, for the cold messages.
 * protobuf-c allocates 42 to 67 MiB for 1 MiB of empty repeated or unknown fields; here the arena's limit is the most it
 * gets, and the decode fails beyond it. It also recurses without a limit: no message of ours, nor of health and
 * reflection, nests itself.
 * Thread: the arena's owner. */
#ifndef LOCKSTEP_PROTO_UNPACK_H
#define LOCKSTEP_PROTO_UNPACK_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"

/* Decode a message; it lives in the arena until arena_reset() (never call its free_unpacked function).
 * ret  NULL: malformed, or larger than the arena's limit allows */
ProtobufCMessage *unpack(struct arena *arena, const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                         size_t count);

#endif
