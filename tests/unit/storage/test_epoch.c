/* SPDX-License-Identifier: Apache-2.0 */
/* test_epoch.c - backups, and clusters that begin again, on the real disk and LMDB: what was committed is there, configurations
 * lead from the old members to one by legal steps, a damaged backup makes nothing, and a directory in use stays as it was. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "lockstep/errors.h"
#include "storage/backup.h"
#include "storage/builder.h"
#include "storage/epoch.h"
#include "storage/forget.h"
#include "tests/support/blocks.h"
#include "tests/support/sim_disk.h"
#include "tests/support/unit.h"

enum { SELF = 0x1111, SECOND = 0x2222, THIRD = 0x3333, SNAPSHOT_AT = 5, BLOCKS = 24, CONFIGURATION_AT = 12 };

static char folder[64], path[384], why[1024];
static struct birth_record birth;

static const char *path_of(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void setup(void)
{
    snprintf(folder, sizeof folder, "/tmp/lockstep-epoch-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    birth = (struct birth_record){
        .cluster_id = 42,
        .time_ns = 1000,
        .cluster = "demo",
        .machine = "kv",
        .configuration = {
            .level = DURABILITY_LEVEL_FSYNC,
            .uncommitted_bytes_max = 16384,
            .member_count = 3,
            .members = {{.id = SELF, .role = CONFIGURATION_VOTER, .name = "n1", .client = "a:1", .peer = "a:2"},
                        {.id = SECOND, .role = CONFIGURATION_VOTER, .name = "n2", .client = "b:1", .peer = "b:2"},
                        {.id = THIRD, .role = CONFIGURATION_VOTER, .name = "n3", .client = "c:1", .peer = "c:2"}}}};
}

static void teardown(void)
{
    unit_folder_remove(folder);
}

static struct storage_options sizes(const char *directory)
{
    return (struct storage_options){.directory = directory,
                                    .ring_bytes = 65536,
                                    .journal_bytes = 4 * 65536,
                                    .map_bytes = 1 << 30,
                                    .block_bytes_max = BLOCK_BYTES_MAX,
                                    .keep_bytes = UINT64_MAX,
                                    .disk = disk_posix(),
                                    .kv = kv_lmdb()};
}

static void check(struct builder *builder, int rc)
{
    ck_assert_msg(rc == 0, "%s", builder_why(builder));
}

/* A snapshot's bytes: any, as long as they are the same again. */
static void state_make(uint8_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++) to[i] = (uint8_t)(i * 7 + i / 256);
}

/* The directory of n1 with blocks up to BLOCKS, that of index `changed_at` a configuration; behind a snapshot, if so, which may stand
 * for that one. */
static void old_directory_at(const char *directory, bool snapshot, const struct configuration *configuration,
                             raft_index changed_at)
{
    static uint8_t block[65536], state[3000];
    struct identity_directory *own;
    struct builder *builder;
    struct storage_options options = sizes(directory);
    struct block_base base = {.next_position = 1, .time_ns = birth.time_ns};
    options.member_id = SELF;
    options.random_id = 77;
    options.level = DURABILITY_LEVEL_FSYNC;
    options.birth = base;
    ck_assert_int_eq(identity_claim(disk_posix(), directory, &own, why, sizeof why), 0);
    int rc = builder_open(&options, &birth.configuration, &builder, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
    if (snapshot) {
        struct storage_snapshot is = {.base = {.index = SNAPSHOT_AT, .term = 1, .next_position = 9, .crc = 5},
                                      .bytes = sizeof state};
        static struct storage_install_configuration counts;
        counts.index = changed_at < SNAPSHOT_AT ? changed_at : 0;
        counts.count = configuration_write(configuration, counts.bytes);
        is.base.time_ns = 2000;
        state_make(state, sizeof state);
        is.checksum = crc32c(state, sizeof state);
        for (size_t at = 0; at < sizeof state; at += 1000)
            check(builder, builder_snapshot(builder, &is, state + at, 1000));
        check(builder, builder_install(builder, &is, &counts));
        base = is.base;
    }
    while (base.index < BLOCKS) {
        struct block_header header;
        if (base.index + 1 == changed_at) {
            uint32_t bytes = configuration_write(configuration, block + BLOCK_HEADER_BYTES);
            header = (struct block_header){.type = BLOCK_CONFIGURATION,
                                           .bytes = BLOCK_HEADER_BYTES + bytes,
                                           .index = base.index + 1,
                                           .term = 1,
                                           .time_ns = base.time_ns,
                                           .first_position = base.next_position,
                                           .previous_crc = base.crc};
            block_seal(block, &header);
            base = block_base_after(&header);
        } else {
            blocks_make(block, &base, base.index < 15 ? 1 : 4, 2, 100, base.index, &header);
        }
        check(builder, builder_block(builder, block, &header));
    }
    check(builder, builder_finish(builder, &base));
    ck_assert_uint_eq(base.index, BLOCKS);
    builder_close(builder);
    struct identity identity = {.member_id = SELF, .name = "n1", .state = IDENTITY_COMPLETE, .birth = birth};
    ck_assert_int_eq(identity_store(own, &identity), 0);
    identity_close(own);
}

static void old_directory(const char *directory, bool snapshot, const struct configuration *configuration)
{
    old_directory_at(directory, snapshot, configuration, CONFIGURATION_AT);
}

static struct inspection *look(const char *directory)
{
    const struct inspect_options options = {.directory = directory, .disk = disk_posix(), .kv = kv_lmdb()};
    struct inspection *inspection;
    size_t count;
    int rc = inspect_open(&options, &inspection, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
    ck_assert_int_eq(inspect_verify(inspection), 0);
    const struct inspect_finding *findings = inspect_findings(inspection, &count);
    ck_assert_msg(count == 0, "%s: %s", findings[0].file, findings[0].text);
    return inspection;
}

static void backup_make(const char *directory, const char *file)
{
    struct backup_summary summary;
    struct inspection *inspection = look(directory);
    int rc = backup_create(inspection, disk_posix(), file, 5000, &summary, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
    ck_assert_uint_eq(summary.head.last, BLOCKS);
    inspect_close(inspection);
}

static struct epoch_options epoch_of(const char *directory)
{
    return (struct epoch_options){.storage = sizes(directory),
                                  .cluster = "again",
                                  .node = "n1",
                                  .client = "x:1",
                                  .peer = "x:2",
                                  .cluster_id = 4711,
                                  .random_id = 0xabc};
}

/* Block `index` of both is the same. */
static void check_same(struct inspection *one, struct inspection *other, raft_index index)
{
    struct block_header h, o;
    const uint8_t *block;
    ck_assert_int_eq(inspect_block(one, index, &block, &h, NULL, NULL), 0);
    ck_assert_int_eq(inspect_block(other, index, &block, &o, NULL, NULL), 0);
    ck_assert_uint_eq(h.header_crc, o.header_crc); /* which names it, and all before it */
}

static struct configuration configuration_in(struct inspection *inspection, raft_index index)
{
    const uint8_t *block;
    struct block_header header;
    struct configuration configuration;
    ck_assert_int_eq(inspect_block(inspection, index, &block, &header, NULL, NULL), 0);
    ck_assert_uint_eq(header.type, BLOCK_CONFIGURATION);
    ck_assert_int_eq(configuration_read(block + BLOCK_HEADER_BYTES, header.bytes - BLOCK_HEADER_BYTES, &configuration),
                     0);
    return configuration;
}

static void check_alone(const struct configuration *configuration, raft_member id)
{
    ck_assert_uint_eq(configuration->member_count, 1);
    ck_assert_uint_eq(configuration->members[0].id, id);
    ck_assert_int_eq(configuration->members[0].role, CONFIGURATION_VOTER);
    ck_assert_str_eq(configuration->members[0].peer, "x:2");
    ck_assert_uint_eq(configuration->uncommitted_bytes_max, 16384); /* the group's constants stay */
}

START_TEST(a_restored_directory_holds_all_that_was_committed_and_is_another_cluster)
{
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        char old[128], file[128], again[128];
        struct backup_summary summary;
        struct epoch_result result;
        snprintf(old, sizeof old, "%s/old%d", folder, snapshot);
        snprintf(file, sizeof file, "%s/file%d", folder, snapshot);
        snprintf(again, sizeof again, "%s/again%d", folder, snapshot);
        old_directory(old, snapshot != 0, &birth.configuration);
        backup_make(old, file);
        const struct epoch_options options = epoch_of(again);
        int rc = epoch_restore(&options, file, &summary, &result, why, sizeof why);
        ck_assert_msg(rc == 0, "%s", why);
        struct inspection *before = look(old), *after = look(again);
        const struct inspect_view *v = inspect_view(after);
        for (raft_index i = snapshot != 0 ? SNAPSHOT_AT + 1 : 1; i <= BLOCKS; i++) check_same(before, after, i);
        ck_assert_uint_eq(v->table.snapshot.base.index, snapshot != 0 ? SNAPSHOT_AT : 0);
        ck_assert_uint_eq(v->last, BLOCKS + 2);
        ck_assert_uint_eq(v->commit, BLOCKS + 2);
        ck_assert_uint_eq(v->identity.birth.cluster_id, 4711);
        ck_assert_str_eq(v->identity.birth.cluster, "again");
        ck_assert_uint_eq(v->identity.member_id, 0xabc);
        ck_assert_int_eq(v->identity.state, IDENTITY_COMPLETE);
        ck_assert_uint_eq(v->identity.joined.index, BLOCKS + 2);
        ck_assert_uint_gt(v->hard_state.term, 4);
        /* By legal steps (R6): a joint configuration with the old voters, then the new one alone. */
        struct configuration joint = configuration_in(after, BLOCKS + 1), alone = configuration_in(after, BLOCKS + 2);
        ck_assert_uint_eq(joint.member_count, 4);
        ck_assert_int_eq(configuration_find(&joint, 0xabc)->role, CONFIGURATION_INCOMING);
        ck_assert_int_eq(configuration_find(&joint, SECOND)->role, CONFIGURATION_LEAVING);
        check_alone(&alone, 0xabc);
        inspect_close(before);
        inspect_close(after);
    }
}
END_TEST

START_TEST(the_members_that_a_backups_snapshot_stands_for_are_those_who_leave) /* R6 */
{
    char old[128], file[128], again[128];
    struct backup_summary summary;
    struct epoch_result result;
    struct configuration later = birth.configuration;
    struct storage_configuration there;
    later.members[2] = (struct configuration_member){
        .id = 0x4444, .role = CONFIGURATION_VOTER, .name = "n4", .client = "d:1", .peer = "d:2"};
    snprintf(old, sizeof old, "%s/old", folder);
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(again, sizeof again, "%s/again", folder);
    old_directory_at(old, true, &later, SNAPSHOT_AT - 2);
    backup_make(old, file);
    const struct epoch_options options = epoch_of(again);
    int rc = epoch_restore(&options, file, &summary, &result, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
    struct inspection *after = look(again);
    struct configuration joint = configuration_in(after, BLOCKS + 1), alone = configuration_in(after, BLOCKS + 2);
    ck_assert_ptr_null(configuration_find(&joint, THIRD));
    ck_assert_ptr_nonnull(configuration_find(&joint, 0x4444));
    ck_assert_int_eq(configuration_find(&joint, 0x4444)->role, CONFIGURATION_LEAVING);
    check_alone(&alone, 0xabc);
    inspect_configuration(after, SNAPSHOT_AT, &there);
    ck_assert_uint_eq(there.index, SNAPSHOT_AT - 2);
    ck_assert_ptr_nonnull(configuration_find(&there.configuration, 0x4444));
    inspect_close(after);
}
END_TEST

START_TEST(a_directory_that_holds_a_node_is_not_restored_into)
{
    char old[128], file[128];
    struct backup_summary summary;
    struct epoch_result result;
    snprintf(old, sizeof old, "%s/old", folder);
    snprintf(file, sizeof file, "%s/file", folder);
    old_directory(old, false, &birth.configuration);
    backup_make(old, file);
    const struct epoch_options options = epoch_of(old);
    ck_assert_int_eq(epoch_restore(&options, file, &summary, &result, why, sizeof why), LOCKSTEP_EEXIST);
    ck_assert_ptr_nonnull(strstr(why, "nothing was changed"));
    struct inspection *inspection = look(old);
    ck_assert_uint_eq(inspect_view(inspection)->identity.birth.cluster_id, 42);
    ck_assert_uint_eq(inspect_view(inspection)->last, BLOCKS);
    inspect_close(inspection);
}
END_TEST

START_TEST(a_directory_that_was_half_restored_is_refused_by_a_start_and_by_a_restore)
{
    struct identity_directory *own;
    struct identity identity;
    ck_assert_int_eq(identity_claim(disk_posix(), path_of("half"), &own, why, sizeof why), 0);
    identity_close(own);
    char boot[400];
    snprintf(boot, sizeof boot, "%s/boot", path_of("half"));
    int fd = open(boot, O_CREAT | O_WRONLY, 0600); /* the storage's first file; the identity comes last */
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(identity_open(disk_posix(), path_of("half"), "n1", 1, &own, &identity, why, sizeof why),
                     LOCKSTEP_ECORRUPT);
    ck_assert_int_eq(identity_claim(disk_posix(), path_of("half"), &own, why, sizeof why), LOCKSTEP_EEXIST);
}
END_TEST

START_TEST(a_survivor_goes_on_alone_with_all_that_it_has)
{
    char old[128];
    struct epoch_result result;
    snprintf(old, sizeof old, "%s/old", folder);
    old_directory(old, true, &birth.configuration);
    const struct epoch_options options = epoch_of(old);
    int rc = epoch_recover(&options, &result, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
    ck_assert_uint_eq(result.last.index, BLOCKS + 2);
    struct inspection *inspection = look(old);
    const struct inspect_view *v = inspect_view(inspection);
    ck_assert_uint_eq(v->identity.birth.cluster_id, 4711);
    ck_assert_uint_eq(v->identity.member_id, SELF);
    ck_assert_uint_eq(v->commit, BLOCKS + 2);
    struct configuration joint = configuration_in(inspection, BLOCKS + 1),
                         alone = configuration_in(inspection, BLOCKS + 2);
    ck_assert_int_eq(configuration_find(&joint, SELF)->role, CONFIGURATION_VOTER);
    ck_assert_int_eq(configuration_find(&joint, THIRD)->role, CONFIGURATION_LEAVING);
    check_alone(&alone, SELF);
    inspect_close(inspection);
}
END_TEST

/* What a start at level memory finds. True: it takes it over. */
static bool taken_over(const char *directory, const char *journal)
{
    struct identity_directory *own;
    struct identity identity;
    ck_assert_int_eq(identity_open(disk_posix(), directory, "n1", 0x99, &own, &identity, why, sizeof why), 0);
    raft_member before = identity.member_id;
    int rc = storage_forget(disk_posix(), kv_lmdb(), directory, journal, own, 0x77, &identity, why, sizeof why);
    ck_assert_msg(rc == 0, "%s", why);
    bool kept = identity.state == IDENTITY_COMPLETE;
    ck_assert_uint_eq(identity.member_id, kept ? before : 0x77);
    if (kept) { /* its start */
        struct storage_options options = sizes(directory);
        struct storage_recovered recovered;
        struct storage *storage;
        options.member_id = before;
        options.level = DURABILITY_LEVEL_MEMORY;
        options.journal_directory = journal;
        options.birth = (struct block_base){.next_position = 1, .time_ns = birth.time_ns};
        rc = storage_open(&options, &storage, &recovered, why, sizeof why);
        ck_assert_msg(rc == 0, "%s", why);
        ck_assert_uint_eq(recovered.last.index, BLOCKS + 2);
        storage_close(storage);
    }
    identity_close(own);
    return kept;
}

START_TEST(at_level_memory_what_restore_and_recover_wrote_is_taken_over_by_one_start)
{
    char old[128], file[128], again[128], fast[128];
    struct backup_summary summary;
    struct epoch_result result;
    birth.configuration.level = DURABILITY_LEVEL_MEMORY;
    snprintf(old, sizeof old, "%s/old", folder);
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(again, sizeof again, "%s/again", folder);
    old_directory(old, true, &birth.configuration);
    backup_make(old, file); /* of a stopped process all is there until the next one starts */
    struct epoch_options options = epoch_of(again);
    snprintf(fast, sizeof fast, "%s/fast", folder);
    ck_assert_int_eq(mkdir(fast, 0700), 0);
    options.storage.journal_directory = fast; /* its journal lies elsewhere */
    ck_assert_int_eq(epoch_restore(&options, file, &summary, &result, why, sizeof why), 0);
    options = epoch_of(old);
    ck_assert_int_eq(epoch_recover(&options, &result, why, sizeof why), 0);
    const char *directories[] = {old, again, fast}, *journals[] = {NULL, fast};
    for (unsigned i = 0; i < 2; i++) {
        ck_assert(taken_over(directories[i], journals[i]));
        ck_assert(!taken_over(directories[i], journals[i]));
    }
    for (unsigned i = 0; i < 3; i++) {
        static const char *const gone[] = {"boot", "journal", "data.mdb", "data.mdb-lock", "snapshot-5"};
        for (size_t k = 0; k < sizeof gone / sizeof gone[0]; k++) {
            char name[200];
            snprintf(name, sizeof name, "%s/%s", directories[i], gone[k]);
            ck_assert_msg(access(name, F_OK) != 0, "%s", name);
        }
    }
}
END_TEST

START_TEST(a_change_of_members_that_was_under_way_is_ended_first) /* R6 */
{
    char old[128];
    struct epoch_result result;
    struct configuration joint = birth.configuration;
    joint.members[1].role = CONFIGURATION_LEAVING;
    joint.members[joint.member_count++] = (struct configuration_member){
        .id = 0x4444, .role = CONFIGURATION_INCOMING, .name = "n4", .client = "d:1", .peer = "d:2"};
    snprintf(old, sizeof old, "%s/old", folder);
    old_directory(old, false, &joint);
    const struct epoch_options options = epoch_of(old);
    ck_assert_int_eq(epoch_recover(&options, &result, why, sizeof why), 0);
    ck_assert_uint_eq(result.last.index, BLOCKS + 3);
    struct inspection *inspection = look(old);
    struct configuration ended = configuration_in(inspection, BLOCKS + 1),
                         next = configuration_in(inspection, BLOCKS + 2),
                         alone = configuration_in(inspection, BLOCKS + 3);
    ck_assert(!configuration_is_joint(&ended));
    ck_assert_ptr_null(configuration_find(&ended, SECOND));
    ck_assert_int_eq(configuration_find(&ended, 0x4444)->role, CONFIGURATION_VOTER);
    ck_assert_int_eq(configuration_find(&next, 0x4444)->role, CONFIGURATION_LEAVING);
    check_alone(&alone, SELF);
    inspect_close(inspection);
}
END_TEST

/* --- reading a backup --------------------------------------------------------------------------------------------------- */

struct memory {
    const uint8_t *bytes;
    size_t count;
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

static int read_bytes(const uint8_t *bytes, size_t count)
{
    struct memory memory = {bytes, count};
    const struct backup_source source = {.context = &memory, .read = read_memory};
    struct backup_summary summary;
    uint64_t offset;
    why[0] = 0;
    int rc = backup_read(&source, NULL, &summary, &offset, why, sizeof why);
    ck_assert_uint_le(offset, count);
    return rc;
}

static uint8_t *backup_bytes(size_t *ret_count)
{
    char old[128], file[128];
    struct stat status;
    snprintf(old, sizeof old, "%s/old", folder);
    snprintf(file, sizeof file, "%s/file", folder);
    old_directory(old, true, &birth.configuration);
    backup_make(old, file);
    int fd = open(file, O_RDONLY);
    ck_assert_int_eq(fstat(fd, &status), 0);
    uint8_t *bytes = malloc((size_t)status.st_size + 1);
    ck_assert_int_eq(read(fd, bytes, (size_t)status.st_size), status.st_size);
    close(fd);
    *ret_count = (size_t)status.st_size;
    return bytes;
}

START_TEST(a_backup_with_any_byte_changed_or_missing_is_refused_with_its_place)
{
    size_t count;
    uint8_t *bytes = backup_bytes(&count);
    ck_assert_int_eq(read_bytes(bytes, count), 0);
    for (size_t i = 0; i < count; i++) {
        bytes[i] ^= (uint8_t)(1u << i % 8);
        ck_assert_msg(read_bytes(bytes, count) == LOCKSTEP_ECORRUPT, "byte %zu: %s", i, why);
        ck_assert_ptr_nonnull(strstr(why, "at byte"));
        bytes[i] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t i = 0; i < count; i += 13) ck_assert_int_eq(read_bytes(bytes, i), LOCKSTEP_ECORRUPT);
    bytes[count] = 0;
    ck_assert_int_eq(read_bytes(bytes, count + 1), LOCKSTEP_ECORRUPT);
    free(bytes);
}
END_TEST

START_TEST(a_backup_of_another_format_is_refused_with_both_numbers)
{
    size_t count;
    uint32_t head_bytes, version = 9;
    uint8_t *bytes = backup_bytes(&count);
    memcpy(&head_bytes, bytes + 12, sizeof head_bytes);
    memcpy(bytes + 8, &version, sizeof version);
    uint32_t crc = crc32c(bytes + 8, head_bytes - 8);
    memcpy(bytes + 4, &crc, sizeof crc);
    ck_assert_int_eq(read_bytes(bytes, count), LOCKSTEP_EVERSION);
    ck_assert_ptr_nonnull(strstr(why, "(format 9, this one knows 1)"));
    free(bytes);
}
END_TEST

START_TEST(a_damaged_backup_makes_no_directory)
{
    size_t count;
    char file[128], again[128];
    struct backup_summary summary;
    struct epoch_result result;
    struct stat status;
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(again, sizeof again, "%s/again", folder);
    free(backup_bytes(&count));
    ck_assert_int_eq(truncate(file, (off_t)count - 1), 0);
    const struct epoch_options options = epoch_of(again);
    ck_assert_int_eq(epoch_restore(&options, file, &summary, &result, why, sizeof why), LOCKSTEP_ECORRUPT);
    ck_assert_int_ne(stat(again, &status), 0);
}
END_TEST

START_TEST(a_backup_that_cannot_get_its_name_leaves_nothing) /* so that the next one can */
{
    char old[128];
    const enum sim_disk_full_at full[] = {SIM_DISK_FULL_AT_RENAME, SIM_DISK_FULL_AT_NAMES, SIM_DISK_FULL_NOWHERE};
    struct sim_disk *disk = sim_disk_open(1);
    snprintf(old, sizeof old, "%s/old", folder);
    old_directory(old, true, &birth.configuration);
    for (int i = 0; i < 3; i++) {
        struct inspection *inspection = look(old);
        struct backup_summary summary;
        bool there = false;
        sim_disk_full_at(disk, full[i]);
        why[0] = 0;
        int rc = backup_create(inspection, sim_disk(disk), "b/file", 1, &summary, why, sizeof why);
        ck_assert_msg(rc == (i < 2 ? LOCKSTEP_ENOSPC : 0), "%d: %d %s", i, rc, why);
        ck_assert_int_eq(sim_disk(disk)->exists(sim_disk(disk)->context, "b/file", &there), 0);
        ck_assert_msg(there == (i == 2), "%d: %s", i, why);
        ck_assert_int_eq(sim_disk(disk)->exists(sim_disk(disk)->context, "b/file.new", &there), 0);
        ck_assert(!there);
        inspect_close(inspection);
    }
    sim_disk_close(disk);
}
END_TEST

static int no_pread(struct disk_file *file, void *to, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    (void)file;
    (void)to;
    (void)bytes;
    (void)offset;
    (void)ret_bytes;
    return LOCKSTEP_EIO;
}

START_TEST(a_snapshot_that_cannot_be_read_is_not_called_a_file_that_cannot_be_written)
{
    char old[128];
    struct disk disk = *disk_posix();
    const struct inspect_options options = {.directory = old, .disk = &disk, .kv = kv_lmdb()};
    struct inspection *inspection;
    struct backup_summary summary;
    snprintf(old, sizeof old, "%s/old", folder);
    old_directory(old, true, &birth.configuration);
    ck_assert_int_eq(inspect_open(&options, &inspection, why, sizeof why), 0);
    disk.pread = no_pread;
    ck_assert_int_eq(backup_create(inspection, disk_posix(), path_of("file"), 1, &summary, why, sizeof why),
                     LOCKSTEP_EIO);
    ck_assert_msg(strstr(why, "its snapshot cannot be read") != NULL && strstr(why, "another node") != NULL, "%s", why);
    inspect_close(inspection);
}
END_TEST

START_TEST(a_damaged_directory_is_not_backed_up)
{
    char old[128], file[128];
    struct backup_summary summary;
    struct inspection *inspection;
    struct stat status;
    snprintf(old, sizeof old, "%s/old", folder);
    snprintf(file, sizeof file, "%s/file", folder);
    old_directory(old, false, &birth.configuration);
    snprintf(why, sizeof why, "%s/boot", old);
    ck_assert_int_eq(truncate(why, 10), 0);
    const struct inspect_options options = {.directory = old, .disk = disk_posix(), .kv = kv_lmdb()};
    ck_assert_int_eq(inspect_open(&options, &inspection, why, sizeof why), 0);
    ck_assert_int_eq(backup_create(inspection, disk_posix(), file, 1, &summary, why, sizeof why), LOCKSTEP_ECORRUPT);
    inspect_close(inspection);
    ck_assert_int_ne(stat(file, &status), 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_restored_directory_holds_all_that_was_committed_and_is_another_cluster);
    tcase_add_test(tests, the_members_that_a_backups_snapshot_stands_for_are_those_who_leave);
    tcase_add_test(tests, a_directory_that_holds_a_node_is_not_restored_into);
    tcase_add_test(tests, a_directory_that_was_half_restored_is_refused_by_a_start_and_by_a_restore);
    tcase_add_test(tests, a_survivor_goes_on_alone_with_all_that_it_has);
    tcase_add_test(tests, at_level_memory_what_restore_and_recover_wrote_is_taken_over_by_one_start);
    tcase_add_test(tests, a_change_of_members_that_was_under_way_is_ended_first);
    tcase_add_test(tests, a_backup_with_any_byte_changed_or_missing_is_refused_with_its_place);
    tcase_add_test(tests, a_backup_of_another_format_is_refused_with_both_numbers);
    tcase_add_test(tests, a_damaged_backup_makes_no_directory);
    tcase_add_test(tests, a_backup_that_cannot_get_its_name_leaves_nothing);
    tcase_add_test(tests, a_snapshot_that_cannot_be_read_is_not_called_a_file_that_cannot_be_written);
    tcase_add_test(tests, a_damaged_directory_is_not_backed_up);
}

int main(void)
{
    return unit_main("storage epoch", add);
}
