/* SPDX-License-Identifier: Apache-2.0 */
/* epoch.c - see epoch.h. */
#include "storage/epoch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/builder.h"
#include "storage/record_file.h"

static struct storage_options storage_of(const struct epoch_options *options, const struct birth_record *birth,
                                         raft_member member_id)
{
    struct storage_options storage = options->storage;
    storage.member_id = member_id;
    storage.random_id = options->random_id;
    storage.level = (enum durability_level)birth->configuration.level;
    /* Left clean, as only os leaves it: of a directory at level memory that is what lets one start take it over. */
    if (storage.level == DURABILITY_LEVEL_MEMORY) storage.level = DURABILITY_LEVEL_OS;
    storage.birth = birth_record_base(birth);
    return storage;
}

/* The epoch's first blocks, and the end. */
static int begin(struct builder *builder, const struct epoch_options *options, const struct identity *identity,
                 struct epoch_result *ret, char *why, size_t why_room)
{
    struct configuration_member self = {.id = identity->member_id, .role = CONFIGURATION_VOTER};
    snprintf(self.name, sizeof self.name, "%s", options->node);
    snprintf(self.client, sizeof self.client, "%s", options->client);
    snprintf(self.peer, sizeof self.peer, "%s", options->peer);
    int rc = builder_alone(builder, &self);
    if (rc == 0) rc = builder_finish(builder, &ret->last);
    if (rc != 0) snprintf(why, why_room, "%s", builder_why(builder));
    ret->birth = identity->birth;
    ret->member_id = identity->member_id;
    ret->configuration = identity->birth.configuration;
    ret->configuration.member_count = 1;
    ret->configuration.members[0] = self;
    return rc;
}

/* --- restore ---------------------------------------------------------------------------------------------------------- */

struct restoring {
    const struct epoch_options *options;
    struct builder *builder;
    struct identity identity;
    struct storage_snapshot snapshot;
    struct storage_install_configuration configuration; /* at the snapshot */
    char *why;
    size_t why_room;
};

static int take_head(void *context, const struct backup_head *head)
{
    struct restoring *r = context;
    raft_member member_id = r->identity.member_id;
    r->identity.birth = head->birth; /* its time stays: the log's first block follows it */
    r->identity.birth.cluster_id = r->options->cluster_id;
    memset(r->identity.birth.cluster, 0, sizeof r->identity.birth.cluster);
    snprintf(r->identity.birth.cluster, sizeof r->identity.birth.cluster, "%s", r->options->cluster);
    r->snapshot = head->snapshot;
    const struct storage_options storage = storage_of(r->options, &r->identity.birth, member_id);
    r->configuration.index = head->configuration.index;
    if (head->configuration.index != 0)
        r->configuration.count = configuration_write(&head->configuration.configuration, r->configuration.bytes);
    return builder_open(&storage, &head->birth.configuration, &r->builder, r->why, r->why_room);
}

static int took(struct restoring *r, int rc)
{
    if (rc != 0) snprintf(r->why, r->why_room, "%s", builder_why(r->builder));
    return rc;
}

static int take_piece(void *context, const uint8_t *bytes, size_t count)
{
    struct restoring *r = context;
    return took(r, builder_snapshot(r->builder, &r->snapshot, bytes, count));
}

static int take_snapshot_end(void *context)
{
    struct restoring *r = context;
    return took(r, builder_install(r->builder, &r->snapshot, &r->configuration));
}

static int take_block(void *context, const uint8_t *block, const struct block_header *header)
{
    struct restoring *r = context;
    return took(r, builder_block(r->builder, block, header));
}

/* A journal of somebody's in a folder of its own must not be written over. */
static int journal_absent(const struct storage_options *storage, char *why, size_t why_room)
{
    char path[STORAGE_PATH_BYTES_MAX];
    bool there = false;
    if (storage->journal_directory == NULL) return 0;
    int rc = storage_path(path, storage->journal_directory, "journal");
    if (rc == 0) rc = storage->disk->exists(storage->disk->context, path, &there);
    if (rc != 0)
        snprintf(why, why_room, "a journal in %s: cannot be looked for: %s; check the folder and its permissions",
                 storage->journal_directory, lockstep_error_text(rc));
    if (rc != 0 || !there) return rc;
    snprintf(why, why_room, "%s: is there already; nothing was changed: name another journal_dir, or move it away",
             path);
    return LOCKSTEP_EEXIST;
}

int epoch_restore(const struct epoch_options *options, const char *backup, struct backup_summary *ret_backup,
                  struct epoch_result *ret, char *why, size_t why_room)
{
    const struct disk *disk = options->storage.disk;
    struct identity_directory *directory = NULL;
    struct restoring r = {.options = options, .why = why, .why_room = why_room};
    const struct backup_sink sink = {
        .context = &r, .head = take_head, .piece = take_piece, .snapshot_end = take_snapshot_end, .block = take_block};
    char reason[512] = "";
    uint64_t offset;
    lk_assert(options->random_id != 0 && options->cluster_id != 0);
    int rc = backup_read_file(disk, backup, NULL, ret_backup, &offset, reason, sizeof reason);
    if (rc != 0) {
        snprintf(why, why_room, "%s: %s", backup, reason);
        return rc;
    }
    rc = journal_absent(&options->storage, why, why_room);
    if (rc == 0) rc = identity_claim(disk, options->storage.directory, &directory, why, why_room);
    if (rc != 0) return rc;
    r.identity = (struct identity){.member_id = options->random_id, .state = IDENTITY_COMPLETE};
    snprintf(r.identity.name, sizeof r.identity.name, "%s", options->node);
    rc = backup_read_file(disk, backup, &sink, ret_backup, &offset, reason, sizeof reason);
    if (rc != 0 && reason[0] != 0) snprintf(why, why_room, "%s: %s", backup, reason);
    if (rc == 0) rc = begin(r.builder, options, &r.identity, ret, why, why_room);
    builder_close(r.builder);
    if (rc == 0) {
        /* The birth record's members are the old cluster's: this one was admitted by the configuration just made. */
        r.identity.joined =
            (struct storage_configuration){.index = ret->last.index, .configuration = ret->configuration};
        rc = identity_store(directory, &r.identity);
        if (rc != 0)
            snprintf(why, why_room, "data directory %s: its identity cannot be stored: %s; check the disk",
                     options->storage.directory, lockstep_error_text(rc));
    }
    identity_close(directory);
    return rc;
}

/* --- recover ---------------------------------------------------------------------------------------------------------- */

int epoch_recover(const struct epoch_options *options, struct epoch_result *ret, char *why, size_t why_room)
{
    const char *path = options->storage.directory;
    struct identity_directory *directory;
    struct identity identity;
    struct builder *builder = NULL;
    int rc = identity_open(options->storage.disk, path, options->node, options->random_id, &directory, &identity, why,
                           why_room);
    if (rc != 0) return rc;
    if (identity.state != IDENTITY_COMPLETE) {
        snprintf(why, why_room, "data directory %s: the node was never part of a cluster; start it as it is", path);
        rc = LOCKSTEP_EINVAL;
        goto out;
    }
    /* Nothing but the cluster's id: as long as the old configuration counts, this node needs the others, who refuse it. */
    identity.birth.cluster_id = options->cluster_id;
    rc = identity_renew(directory, &identity);
    if (rc != 0) {
        snprintf(why, why_room, "data directory %s: its identity cannot be stored: %s; check the disk", path,
                 lockstep_error_text(rc));
        goto out;
    }
    const struct storage_options storage = storage_of(options, &identity.birth, identity.member_id);
    rc = builder_open(&storage, &identity.birth.configuration, &builder, why, why_room);
    if (rc == 0) rc = begin(builder, options, &identity, ret, why, why_room);
    builder_close(builder);
out:
    identity_close(directory);
    return rc;
}
