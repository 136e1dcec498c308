/* SPDX-License-Identifier: Apache-2.0 */
/* kv_lmdb.c - the ordered map in LMDB, behind kv.h.
 * Thread: one writer at a time; read transactions on any thread (MDB_NOTLS). Owns: data.mdb, data.mdb-lock.
 * J6  Full sync always: none of NOSYNC, NOMETASYNC, MAPASYNC, WRITEMAP. The map is reserved once and never resized.
 *     data.mdb is grown ahead in zero-filled, flushed steps.
 *
 * LMDB maps the file and goes where its pages say: a damaged one would be a SIGBUS or worse at some later read. So its
 * trees are checked before it is opened (kv_lmdb_check.h). A new map is made as data.mdb.new and renamed when it is
 * complete and flushed: a data.mdb that exists and has no good meta page is damage, never a crash at birth.
 * LMDB finds no damage in the values either; its callers check every one. */
#include "storage/kv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"
#include "storage/advice.h"
#include "storage/kv_lmdb_check.h"
#include "storage/record_file.h"

enum {
    TABLES_MAX = 64,
    GROW_STEP_BYTES_MIN = 1 << 20,
    GROW_STEP_BYTES_MAX = 16 << 20,
    LEFT_FREE_BYTES = 1 << 20, /* of the disk, to the small files: a node can be started though its disk is full */
};

static_assert(sizeof(size_t) == sizeof(uint64_t), "MDB_INTEGERKEY takes size_t");

struct kv_txn {
    struct kv_map *map;
    MDB_txn *txn;
    MDB_cursor *cursor; /* of the table seek() last went through; made when first needed, read transactions only */
    uint32_t cursor_table;
};

struct kv_map {
    MDB_env *env;
    int fd; /* for flush and growth */
    uint64_t page_bytes;
    uint64_t file_bytes; /* when it was opened */
    uint32_t tables;
    MDB_dbi dbi[TABLES_MAX];
    struct kv_txn write; /* the only write transaction */
    uint8_t *zeros;
    uint64_t grown_bytes; /* of the file, flushed with its size */
};

static int from_mdb(int rc)
{
    switch (rc) {
    case 0: return 0;
    case MDB_NOTFOUND: return LOCKSTEP_ENOTFOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return LOCKSTEP_ENOSPC;
    case MDB_READERS_FULL: return LOCKSTEP_EFULL;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID: return LOCKSTEP_ECORRUPT;
    case MDB_VERSION_MISMATCH: return LOCKSTEP_EVERSION;
    case ENOMEM: return LOCKSTEP_ENOMEM;
    default: return LOCKSTEP_EIO;
    }
}

static void table_name(uint32_t table, char to[16])
{
    snprintf(to, 16, "t%" PRIu32, table);
}

static int tables_open(struct kv_map *map, bool create)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(map->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    if (rc != 0) return rc;
    for (uint32_t i = 0; i < map->tables; i++) {
        char name[16];
        table_name(i, name);
        rc = mdb_dbi_open(txn, name, MDB_INTEGERKEY | (create ? MDB_CREATE : 0), &map->dbi[i]);
        if (rc != 0) {
            mdb_txn_abort(txn);
            return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        }
    }
    return mdb_txn_commit(txn);
}

static int env_open(const char *path, unsigned flags, uint64_t map_bytes, uint32_t tables, MDB_env **ret)
{
    MDB_env *env = NULL;
    int rc = mdb_env_create(&env);
    if (rc != 0) return rc;
    rc = mdb_env_set_mapsize(env, map_bytes);
    if (rc != 0) goto fail;
    rc = mdb_env_set_maxdbs(env, tables);
    if (rc != 0) goto fail;
    /* NOTLS: a reader may move between threads */
    rc = mdb_env_open(env, path, flags | MDB_NOSUBDIR | MDB_NOTLS, 0600);
    if (rc != 0) goto fail;
    *ret = env;
    return 0;
fail:
    mdb_env_close(env); /* required even where env_open failed */
    return rc;
}

static int flush_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) return errno;
    int rc = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

/* A complete, empty map under the name data.mdb.new, then renamed. ret as LMDB's. */
static int create(struct kv_map *map, const char *directory, const char *path, uint64_t map_bytes)
{
    char path_new[STORAGE_PATH_BYTES_MAX], lock_new[STORAGE_PATH_BYTES_MAX];
    if (storage_path(path_new, directory, "data.mdb.new") != 0) return EINVAL;
    if (storage_path(lock_new, directory, "data.mdb.new-lock") != 0) return EINVAL;
    if (unlink(path_new) != 0 && errno != ENOENT) return errno; /* left over from a crash */
    int rc = env_open(path_new, 0, map_bytes, map->tables, &map->env);
    if (rc != 0) return rc;
    rc = tables_open(map, true);
    mdb_env_close(map->env);
    map->env = NULL;
    if (rc != 0) return rc;
    unlink(lock_new);
    rc = flush_path(path_new, O_RDWR);
    if (rc != 0) return rc;
    if (rename(path_new, path) != 0) return errno;
    return flush_path(directory, O_RDONLY | O_DIRECTORY);
}

/* Flush what is there, drop the cache, and look at what LMDB will follow. */
static int check(struct kv_map *map, const char *path, bool read_only, char *why, size_t why_room)
{
    map->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    struct stat status;
    int error = map->fd < 0 || (!read_only && fsync(map->fd) != 0) ? errno : 0;
    if (error == 0) error = posix_fadvise(map->fd, 0, 0, POSIX_FADV_DONTNEED); /* leaves errno alone */
    if (error == 0 && fstat(map->fd, &status) != 0) error = errno;
    if (error != 0) {
        int rc = from_mdb(error);
        snprintf(why, why_room, "%s: cannot be read: %s; check the disk and its permissions", path,
                 lockstep_error_text(rc));
        return rc;
    }
    map->file_bytes = (uint64_t)status.st_size;
    map->grown_bytes = (uint64_t)status.st_size;
    return kv_lmdb_check(map->fd, path, map->file_bytes, &map->page_bytes, why, why_room);
}

static void lmdb_close(struct kv_map *map)
{
    if (map == NULL) return;
    if (map->env != NULL) mdb_env_close(map->env);
    if (map->fd >= 0) close(map->fd);
    free(map->zeros);
    free(map);
}

static int lmdb_remove(void *context, const char *directory)
{
    static const char *const names[] = {"data.mdb", "data.mdb-lock", "data.mdb.new", "data.mdb.new-lock"};
    (void)context;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[STORAGE_PATH_BYTES_MAX];
        int rc = storage_path(path, directory, names[i]);
        if (rc != 0) return rc;
        if (unlink(path) != 0 && errno != ENOENT) return from_mdb(errno);
    }
    return 0;
}

/* Where the system gives no address space for the map: what to do. rc is LMDB's; false: it is something else */
static bool refused_space(int rc, const char *path, uint64_t map_bytes, char *why, size_t why_room)
{
    if (rc != ENOMEM) return false;
    snprintf(why, why_room,
             "%s: no address space for a map of %" PRIu64 " bytes; lower storage.map, or raise the limit (ulimit -v)",
             path, map_bytes);
    return true;
}

static int lmdb_open(void *context, const char *directory, enum kv_mode mode, uint64_t map_bytes, uint32_t tables,
                     struct kv_map **ret, char *why, size_t why_room)
{
    (void)context;
    lk_assert(tables <= TABLES_MAX);
    char path[STORAGE_PATH_BYTES_MAX];
    struct kv_map *map = calloc(1, sizeof *map);
    if (map != NULL) map->zeros = calloc(1, GROW_STEP_BYTES_MIN);
    if (map == NULL || map->zeros == NULL) {
        snprintf(why, why_room, "%s: out of memory; free some", directory);
        free(map);
        return LOCKSTEP_ENOMEM;
    }
    map->fd = -1;
    map->tables = tables;
    int rc = storage_path(path, directory, "data.mdb");
    if (rc != 0) {
        snprintf(why, why_room, "%s: the path is too long; choose a shorter one", directory);
        goto fail;
    }
    bool there = access(path, F_OK) == 0;
    if (!there && mode != KV_CREATE) {
        rc = LOCKSTEP_ENOTFOUND;
        snprintf(why, why_room, "%s: is gone: the log was lost; " ADVICE_LOST, path);
        goto fail;
    }
    if (!there) {
        int made = create(map, directory, path, map_bytes);
        rc = from_mdb(made);
        if (rc != 0 && !refused_space(made, path, map_bytes, why, why_room))
            snprintf(why, why_room, "%s: cannot be made: %s; check the disk and its permissions", path,
                     lockstep_error_text(rc));
        if (rc != 0) goto fail;
    }
    bool read_only = mode == KV_READ;
    rc = check(map, path, read_only, why, why_room);
    if (rc != 0) goto fail;
    /* NOLOCK: LMDB's lock file would be written. */
    if (read_only) map_bytes = map->file_bytes;
    int mdb_rc = env_open(path, read_only ? MDB_RDONLY | MDB_NOLOCK : 0, map_bytes, tables, &map->env);
    if (mdb_rc == 0) mdb_rc = tables_open(map, false);
    if (mdb_rc != 0) {
        rc = from_mdb(mdb_rc);
        if (!refused_space(mdb_rc, path, map_bytes, why, why_room))
            snprintf(why, why_room, "%s: cannot be opened: %s; a map of %" PRIu64 " bytes was asked for", path,
                     mdb_strerror(mdb_rc), map_bytes);
        goto fail;
    }
    *ret = map;
    return 0;
fail:
    lmdb_close(map);
    return rc;
}

static int lmdb_begin_write(struct kv_map *map, struct kv_txn **ret)
{
    lk_assert(map->write.txn == NULL);
    int rc = mdb_txn_begin(map->env, NULL, 0, &map->write.txn);
    if (rc != 0) {
        map->write.txn = NULL;
        return from_mdb(rc);
    }
    map->write.map = map;
    *ret = &map->write;
    return 0;
}

static int lmdb_begin_read(struct kv_map *map, struct kv_txn **ret)
{
    struct kv_txn *txn = calloc(1, sizeof *txn);
    if (txn == NULL) return LOCKSTEP_ENOMEM;
    txn->map = map;
    int rc = mdb_txn_begin(map->env, NULL, MDB_RDONLY, &txn->txn);
    if (rc != 0) {
        free(txn);
        return from_mdb(rc);
    }
    *ret = txn;
    return 0;
}

static void cursor_drop(struct kv_txn *txn)
{
    if (txn->cursor != NULL) mdb_cursor_close(txn->cursor);
    txn->cursor = NULL;
}

static void txn_end(struct kv_txn *txn)
{
    if (txn == &txn->map->write)
        txn->txn = NULL;
    else
        free(txn);
}

static void lmdb_reset(struct kv_txn *txn)
{
    cursor_drop(txn);
    mdb_txn_reset(txn->txn);
}

static int lmdb_renew(struct kv_txn *txn)
{
    return from_mdb(mdb_txn_renew(txn->txn));
}

static MDB_val key_val(const uint64_t *key)
{
    return (MDB_val){.mv_size = sizeof *key, .mv_data = (void *)(uintptr_t)key};
}

static int lmdb_put(struct kv_txn *txn, uint32_t table, uint64_t key, const void *value, size_t bytes)
{
    MDB_val k = key_val(&key), v = {.mv_size = bytes, .mv_data = (void *)(uintptr_t)value};
    return from_mdb(mdb_put(txn->txn, txn->map->dbi[table], &k, &v, 0));
}

static int lmdb_get(struct kv_txn *txn, uint32_t table, uint64_t key, const void **ret, size_t *ret_bytes)
{
    MDB_val k = key_val(&key), v;
    int rc = mdb_get(txn->txn, txn->map->dbi[table], &k, &v);
    if (rc != 0) return from_mdb(rc);
    *ret = v.mv_data;
    *ret_bytes = v.mv_size;
    return 0;
}

static int lmdb_erase(struct kv_txn *txn, uint32_t table, uint64_t key)
{
    MDB_val k = key_val(&key);
    return from_mdb(mdb_del(txn->txn, txn->map->dbi[table], &k, NULL));
}

/* Go to a key by one of LMDB's cursor operations. */
static int cursor_go(struct kv_txn *txn, uint32_t table, MDB_cursor_op op, uint64_t key, uint64_t *ret_key)
{
    if (txn->cursor != NULL && txn->cursor_table != table) cursor_drop(txn);
    MDB_cursor *cursor = txn->cursor;
    int rc = 0;
    if (cursor == NULL) rc = mdb_cursor_open(txn->txn, txn->map->dbi[table], &cursor);
    if (rc != 0) return from_mdb(rc);
    MDB_val k = key_val(&key), v;
    rc = mdb_cursor_get(cursor, &k, &v, op);
    if (rc == 0 && k.mv_size != sizeof *ret_key) rc = MDB_CORRUPTED;
    if (rc == 0) memcpy(ret_key, k.mv_data, sizeof *ret_key);
    if (txn == &txn->map->write) { /* a write transaction frees its cursors behind our back */
        mdb_cursor_close(cursor);
    } else {
        txn->cursor = cursor;
        txn->cursor_table = table;
    }
    return from_mdb(rc);
}

static int lmdb_first(struct kv_txn *txn, uint32_t table, uint64_t *ret_key)
{
    return cursor_go(txn, table, MDB_FIRST, 0, ret_key);
}

static int lmdb_last(struct kv_txn *txn, uint32_t table, uint64_t *ret_key)
{
    return cursor_go(txn, table, MDB_LAST, 0, ret_key);
}

static int lmdb_seek(struct kv_txn *txn, uint32_t table, uint64_t key, uint64_t *ret_key)
{
    return cursor_go(txn, table, MDB_SET_RANGE, key, ret_key);
}

static int lmdb_commit(struct kv_txn *txn)
{
    cursor_drop(txn);
    int rc = from_mdb(mdb_txn_commit(txn->txn));
    txn_end(txn);
    return rc;
}

static void lmdb_abort(struct kv_txn *txn)
{
    if (txn == NULL) return;
    cursor_drop(txn);
    mdb_txn_abort(txn->txn);
    txn_end(txn);
}

static int used_bytes(struct kv_map *map, uint64_t *ret_used, uint64_t *ret_map_bytes)
{
    MDB_envinfo info;
    int rc = mdb_env_info(map->env, &info);
    if (rc != 0) return from_mdb(rc);
    *ret_used = (info.me_last_pgno + 1) * map->page_bytes;
    *ret_map_bytes = info.me_mapsize;
    return 0;
}

/* 0, or why the file may not take so many bytes more. */
static int may_take(const struct kv_map *map, uint64_t bytes)
{
    struct statvfs disk;
    if (fstatvfs(map->fd, &disk) != 0) return LOCKSTEP_EIO;
    return disk.f_bavail * disk.f_frsize < bytes + LEFT_FREE_BYTES ? LOCKSTEP_ENOSPC : 0;
}

static int lmdb_grow(struct kv_map *map, uint64_t bytes)
{
    struct stat status;
    uint64_t used = 0, map_bytes = 0;
    int rc = used_bytes(map, &used, &map_bytes);
    if (rc != 0) return rc;
    if (map->grown_bytes >= used + bytes) return 0;
    if (fstat(map->fd, &status) != 0) return LOCKSTEP_EIO;
    uint64_t size = (uint64_t)status.st_size;
    /* Steps grow with the file: a first start waits for little, a busy node flushes seldom. */
    uint64_t step = used < GROW_STEP_BYTES_MIN ? GROW_STEP_BYTES_MIN : used;
    if (step > GROW_STEP_BYTES_MAX) step = GROW_STEP_BYTES_MAX;
    uint64_t end = used + bytes + step;
    if (end > map_bytes) end = map_bytes;
    if (end < used + bytes) return LOCKSTEP_ENOSPC; /* the address space that was reserved is full */
    while (size < end) {
        uint64_t now = end - size < GROW_STEP_BYTES_MIN ? end - size : GROW_STEP_BYTES_MIN;
        rc = may_take(map, now);
        if (rc != 0) break;
        ssize_t n = pwrite(map->fd, map->zeros, now, (off_t)size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            rc = from_mdb(errno);
            break;
        }
        size += (uint64_t)n;
    }
    if (rc != 0 && rc != LOCKSTEP_ENOSPC) return rc;
    if (size > map->grown_bytes && fsync(map->fd) != 0) return LOCKSTEP_EIO; /* with the size */
    map->grown_bytes = size;
    return size >= used + bytes ? 0 : LOCKSTEP_ENOSPC;
}

/* The pages of LMDB's list of free ones (its table 0): each value begins with how many it names. */
static int lmdb_room(struct kv_map *map, uint64_t *ret_behind, uint64_t *ret_free)
{
    struct kv_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    uint64_t used = 0, map_bytes = 0, pages = 0;
    int rc = used_bytes(map, &used, &map_bytes);
    if (rc != 0) return rc;
    rc = lmdb_begin_read(map, &txn);
    if (rc != 0) return rc;
    int mdb_rc = mdb_cursor_open(txn->txn, 0, &cursor);
    while (mdb_rc == 0 && (mdb_rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        uint64_t count = 0;
        if (value.mv_size >= sizeof count) memcpy(&count, value.mv_data, sizeof count);
        pages += count;
    }
    if (cursor != NULL) mdb_cursor_close(cursor);
    lmdb_abort(txn);
    if (mdb_rc != MDB_NOTFOUND) return from_mdb(mdb_rc);
    *ret_behind = map->grown_bytes > used ? map->grown_bytes - used : 0;
    *ret_free = pages * map->page_bytes;
    return 0;
}

static uint64_t lmdb_file_bytes(struct kv_map *map)
{
    struct stat status;
    return fstat(map->fd, &status) == 0 ? (uint64_t)status.st_size : 0;
}

/* A value lies on a page that says its own number; a large one begins on its first page. */
static uint64_t lmdb_offset_of(struct kv_txn *txn, const void *value)
{
    const struct kv_map *map = txn->map;
    uint64_t in_page = (uint64_t)(uintptr_t)value & (map->page_bytes - 1), page;
    memcpy(&page, (const uint8_t *)value - in_page, sizeof page);
    if (page >= map->file_bytes / map->page_bytes) return UINT64_MAX; /* the page is damaged */
    return page * map->page_bytes + in_page;
}

const struct kv *kv_lmdb(void)
{
    static const struct kv kv = {.open = lmdb_open,
                                 .close = lmdb_close,
                                 .remove = lmdb_remove,
                                 .begin_write = lmdb_begin_write,
                                 .begin_read = lmdb_begin_read,
                                 .reset = lmdb_reset,
                                 .renew = lmdb_renew,
                                 .put = lmdb_put,
                                 .get = lmdb_get,
                                 .erase = lmdb_erase,
                                 .first = lmdb_first,
                                 .last = lmdb_last,
                                 .seek = lmdb_seek,
                                 .commit = lmdb_commit,
                                 .abort = lmdb_abort,
                                 .grow = lmdb_grow,
                                 .file_bytes = lmdb_file_bytes,
                                 .offset_of = lmdb_offset_of,
                                 .room = lmdb_room};
    return &kv;
}
