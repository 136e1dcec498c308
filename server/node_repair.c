/* SPDX-License-Identifier: Apache-2.0 */
/* node_repair.c - blocks that are damaged in journal or log come back from the other nodes (J7).
 * Thread: loop; the log is read for others by the control thread. Owns: what was given, until the storage is open.
 *
 *   opening -> alive: the storage names what is missing, {index, header_crc}. Until it is open the node is not alive: it
 *   neither votes, leads nor acks, it only asks, one block after the other, of one node after the other (node_blocks.c
 *   answers there; no leader is needed), and says so. With all of it the storage is opened again.
 * What comes is judged by its checksums alone: the name covers the header, the header the body and the block before. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/node_internal.h"

static const struct storage_patch *given(const struct node_repair *repair, raft_index index, uint32_t crc)
{
    for (uint32_t i = 0; i < repair->patch_count; i++)
        if (repair->patches[i].index == index && repair->patches[i].crc == crc) return &repair->patches[i];
    return NULL;
}

static void forget(struct node_repair *repair)
{
    for (uint32_t i = 0; i < repair->patch_count; i++) free((void *)(uintptr_t)repair->patches[i].block);
    free(repair->patches);
    repair->patches = NULL;
    repair->patch_count = repair->patch_room = 0;
}

void node_repair_close(struct node *node)
{
    forget(&node->repair);
}

bool node_repair_begin(struct node *node, const struct storage_recovered *recovered, const char *why)
{
    struct node_repair *repair = &node->repair;
    if (recovered->missing_count == 0 || node->identity.birth.configuration.member_count + node->listed_count < 3)
        return false; /* alone: nobody else ever had it */
    if (node_members_wait(node) != 0) return false;
    memcpy(repair->missing, recovered->missing, sizeof repair->missing);
    repair->missing_count = recovered->missing_count;
    repair->due_ns = node->now_ns;
    node->boot = recovered->boot; /* the others have seen none above it */
    snprintf(repair->why, sizeof repair->why,
             "block %" PRIu64
             " in %.512s is damaged: this node neither votes nor leads until another one has given it back",
             repair->missing[0].index, node->options.data_directory);
    if (!repair->opening) node_log(node, NODE_LOG_WARN, "%s", why);
    node_log(node, NODE_LOG_WARN, "repair: asks the others: blocks=%u first=%llu crc=%08x", repair->missing_count,
             (unsigned long long)repair->missing[0].index, repair->missing[0].crc);
    repair->opening = true;
    node->changed = true;
    return true;
}

/* The name of the next block to ask for: each that was given names the one before it. False: there is none. */
static bool next_name(const struct node_repair *repair, struct node_block_name *ret)
{
    for (uint32_t i = 0; i < repair->missing_count; i++) {
        const struct storage_missing *missing = &repair->missing[i];
        *ret = (struct node_block_name){.index = missing->index, .header_crc = missing->crc};
        while (ret->index >= missing->first) {
            const struct storage_patch *patch = given(repair, ret->index, ret->header_crc);
            struct block_header header;
            if (patch == NULL) return true;
            memcpy(&header, patch->block, sizeof header);
            ret->header_crc = header.previous_crc;
            ret->index--;
        }
    }
    return false;
}

/* All that was asked for is here: the storage may find that more is missing behind it. */
static void open_again(struct node *node)
{
    struct node_repair *repair = &node->repair;
    char why[NODE_WHY_BYTES_MAX] = "";
    uint32_t count = repair->patch_count;
    int rc = node_come_alive(node, why, sizeof why);
    if (rc == LOCKSTEP_EUNAVAILABLE) return;
    if (rc != 0) {
        node_fail(node, rc, "%s", why);
        return;
    }
    node_log(node, NODE_LOG_INFO, "repair: done: blocks=%u", count);
    repair->opening = false;
    repair->repaired += count;
    repair->missing_count = 0;
    forget(repair);
    node->members.hello_due = true; /* with the new boot */
    node->changed = true;
}

void node_repair_turn(struct node *node)
{
    struct node_repair *repair = &node->repair;
    struct node_block_name name;
    if (!next_name(repair, &name)) {
        open_again(node);
        return;
    }
    if (node->now_ns < repair->due_ns) return;
    repair->due_ns = node->now_ns + NODE_REPAIR_RETRY_NS;
    /* Who answered last is asked first; who did not, or has not got it, makes room for the next one. */
    for (unsigned i = repair->answered ? 0 : 1; i <= RAFT_MEMBERS_MAX; i++) {
        unsigned slot = (repair->slot + i) % RAFT_MEMBERS_MAX;
        struct transport_send send = {.slot = slot, .type = FRAME_BLOCK_GET, .body = &name, .body_bytes = sizeof name};
        if (slot == node->options.self || node->options.members[slot].name[0] == 0) continue;
        if (node->transport->ops->send(node->transport, &send) != 0) continue;
        repair->slot = slot;
        break;
    }
    repair->answered = false;
}

static int add_patch(struct node_repair *repair, const uint8_t *block, const struct block_header *header)
{
    if (repair->patch_count == repair->patch_room) {
        uint32_t room = repair->patch_room == 0 ? 64 : 2 * repair->patch_room;
        struct storage_patch *more = realloc(repair->patches, room * sizeof *more);
        if (more == NULL) return LOCKSTEP_ENOMEM;
        repair->patches = more;
        repair->patch_room = room;
    }
    uint8_t *copy = malloc(header->bytes);
    if (copy == NULL) return LOCKSTEP_ENOMEM;
    memcpy(copy, block, header->bytes);
    repair->patches[repair->patch_count++] = (struct storage_patch){
        .index = header->index, .crc = header->header_crc, .bytes = header->bytes, .block = copy};
    return 0;
}

void node_repair_block_frame(struct node *node, const struct transport_frame *frame)
{
    struct node_repair *repair = &node->repair;
    struct node_block_name name, wanted;
    struct block_header header;
    if (!repair->opening || frame->partial) return;
    if (frame->body_bytes < sizeof name) goto refuse;
    memcpy(&name, frame->body, sizeof name);
    const uint8_t *block = frame->body + sizeof name;
    size_t bytes = frame->body_bytes - sizeof name;
    if (!next_name(repair, &wanted) || memcmp(&name, &wanted, sizeof name) != 0) return; /* asked twice */
    if (bytes == 0) {
        snprintf(repair->why, sizeof repair->why,
                 "block %" PRIu64 " in %.512s is damaged and %s does not have it any more; if none has, give the node "
                 "an empty directory and run member replace",
                 name.index, node->options.data_directory, node->options.members[frame->slot].name);
        return;
    }
    if (block_header_read(block, bytes, &header) != 0 || header.bytes != bytes || header.index != name.index ||
        header.header_crc != name.header_crc || block_body_check(block, &header) != 0)
        goto refuse;
    if (add_patch(repair, block, &header) != 0)
        node_fail(node, LOCKSTEP_ENOMEM, "not enough memory for the blocks that repair %.512s",
                  node->options.data_directory);
    repair->answered = true;
    repair->due_ns = node->now_ns; /* the next one at once */
    return;
refuse:
    node->frames_refused++;
}
