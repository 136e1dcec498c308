/* SPDX-License-Identifier: Apache-2.0 */
/* medium.c - see medium.h. The trace is our own recorder's: what does not fit is a bug, and asserted. */
#include "tests/powercut/medium.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/random.h"

enum { SECTOR_BYTES = 512, NAME_BYTES = 256, PATH_BYTES = 1024, IMAGE_FILES_MAX = 256 };

/* What a write made of one sector. */
struct version {
    uint64_t sector, record;
    uint8_t bytes[SECTOR_BYTES];
};

struct size_change {
    uint64_t bytes, record;
};

struct file {
    struct file *next;
    uint64_t inode;
    uint8_t *cached, *flushed; /* zero behind the sizes */
    uint64_t room, cached_bytes, flushed_bytes;
    struct version *versions; /* since their flush, in order */
    size_t version_count, version_room;
    struct size_change *sizes;
    size_t size_count, size_room;
};

/* A directory entry; a change of it when inode 0 says that it is gone. */
struct name {
    uint64_t parent, inode, record;
    bool is_directory;
    char name[NAME_BYTES];
};

struct names {
    struct name *list;
    size_t count, room;
};

struct medium {
    enum medium_lie lie;
    uint64_t root, record, begin; /* record: number of the next; begin: number of this process's first */
    struct file *files;
    struct names cached, flushed, changes; /* flushed, then changes in order, are cached */
};

static void *grown(void *list, size_t count, size_t *room, size_t item_bytes)
{
    if (count < *room) return list;
    *room = *room == 0 ? 64 : 2 * *room;
    list = realloc(list, *room * item_bytes);
    lk_assert(list != NULL);
    return list;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static struct file *file_find(const struct medium *m, uint64_t inode)
{
    struct file *file = m->files;
    while (file != NULL && file->inode != inode) file = file->next;
    return file;
}

static void file_reserve(struct file *file, uint64_t bytes)
{
    uint64_t room = file->room == 0 ? 65536 : file->room;
    while (room < bytes) room *= 2;
    if (room == file->room) return;
    file->cached = realloc(file->cached, room);
    file->flushed = realloc(file->flushed, room);
    lk_assert(file->cached != NULL && file->flushed != NULL);
    memset(file->cached + file->room, 0, room - file->room);
    memset(file->flushed + file->room, 0, room - file->room);
    file->room = room;
}

/* A new, empty one, also where a number is used again. */
static struct file *file_make(struct medium *m, uint64_t inode)
{
    struct file *file = file_find(m, inode);
    if (file == NULL) {
        file = calloc(1, sizeof *file);
        lk_assert(file != NULL);
        file->inode = inode;
        file->next = m->files;
        m->files = file;
    }
    if (file->room != 0) {
        memset(file->cached, 0, file->room);
        memset(file->flushed, 0, file->room);
    }
    file->cached_bytes = file->flushed_bytes = 0;
    file->version_count = file->size_count = 0;
    file_reserve(file, 1);
    return file;
}

/* Sectors first..end of the cache are versions of their own now. */
static void file_note(struct file *file, uint64_t record, uint64_t from, uint64_t to)
{
    if (from == to) return;
    for (uint64_t sector = from / SECTOR_BYTES; sector <= (to - 1) / SECTOR_BYTES; sector++) {
        file->versions = grown(file->versions, file->version_count, &file->version_room, sizeof *file->versions);
        struct version *version = &file->versions[file->version_count++];
        version->sector = sector;
        version->record = record;
        memcpy(version->bytes, file->cached + sector * SECTOR_BYTES, SECTOR_BYTES);
    }
}

static void file_size(struct file *file, uint64_t record, uint64_t bytes)
{
    if (bytes == file->cached_bytes) return;
    file_reserve(file, bytes);
    if (bytes < file->cached_bytes) {
        uint64_t was = file->cached_bytes;
        memset(file->cached + bytes, 0, was - bytes);
        file_note(file, record, bytes, was);
    }
    file->cached_bytes = bytes;
    file->sizes = grown(file->sizes, file->size_count, &file->size_room, sizeof *file->sizes);
    file->sizes[file->size_count++] = (struct size_change){.bytes = bytes, .record = record};
}

static void file_write(struct file *file, uint64_t record, uint64_t offset, const void *bytes, uint64_t count)
{
    file_reserve(file, offset + count + SECTOR_BYTES);
    memcpy(file->cached + offset, bytes, count);
    if (offset + count > file->cached_bytes) file_size(file, record, offset + count);
    file_note(file, record, offset, offset + count);
}

/* What stood there before record number `covers`, in the sectors of from..to, is on the medium. The size that these sectors
 * need is, too. */
static void file_flush(struct file *file, uint64_t covers, uint64_t from, uint64_t to)
{
    size_t kept = 0;
    for (size_t i = 0; i < file->version_count; i++) {
        struct version *version = &file->versions[i];
        uint64_t at = version->sector * SECTOR_BYTES;
        if (version->record < covers && at < to && at + SECTOR_BYTES > from)
            memcpy(file->flushed + at, version->bytes, SECTOR_BYTES);
        else
            file->versions[kept++] = *version;
    }
    file->version_count = kept;
    kept = 0;
    for (size_t i = 0; i < file->size_count; i++) {
        if (file->sizes[i].record < covers)
            file->flushed_bytes = file->sizes[i].bytes;
        else
            file->sizes[kept++] = file->sizes[i];
    }
    file->size_count = kept;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static struct name *names_find(const struct names *names, uint64_t parent, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (names->list[i].parent == parent && strcmp(names->list[i].name, name) == 0) return &names->list[i];
    return NULL;
}

static void names_push(struct names *names, const struct name *name)
{
    names->list = grown(names->list, names->count, &names->room, sizeof *names->list);
    names->list[names->count++] = *name;
}

static void names_apply(struct names *names, const struct name *change)
{
    struct name *there = names_find(names, change->parent, change->name);
    if (change->inode != 0 && there != NULL)
        *there = *change;
    else if (change->inode != 0)
        names_push(names, change);
    else if (there != NULL)
        memmove(there, there + 1, (size_t)(names->list + --names->count - there) * sizeof *there);
}

/* The directory that a path lies in, and its last name. */
static uint64_t parent_of(const struct medium *m, const char *path, const char **ret_name)
{
    uint64_t parent = m->root;
    const char *slash;
    while ((slash = strchr(path, '/')) != NULL) {
        char name[NAME_BYTES];
        lk_assert((size_t)(slash - path) < sizeof name);
        memcpy(name, path, (size_t)(slash - path));
        name[slash - path] = '\0';
        const struct name *directory = names_find(&m->cached, parent, name);
        lk_assert(directory != NULL && directory->is_directory);
        parent = directory->inode;
        path = slash + 1;
    }
    *ret_name = path;
    return parent;
}

static void change_name(struct medium *m, const char *path, uint64_t inode, bool is_directory)
{
    struct name change = {.inode = inode, .record = m->record, .is_directory = is_directory};
    const char *name;
    change.parent = parent_of(m, path, &name);
    lk_assert(strlen(name) < sizeof change.name);
    memcpy(change.name, name, strlen(name) + 1);
    names_apply(&m->cached, &change);
    names_push(&m->changes, &change);
}

/* The new name comes first: a crash in between finds both, never neither. */
static void rename_paths(struct medium *m, const char *from, const char *to)
{
    const char *name;
    uint64_t parent = parent_of(m, from, &name);
    const struct name *moved = names_find(&m->cached, parent, name);
    lk_assert(moved != NULL);
    lk_assert(parent_of(m, to, &name) == parent); /* between directories the order of two changes would be a guess */
    change_name(m, to, moved->inode, moved->is_directory);
    change_name(m, from, 0, false);
}

static void flush_names(struct medium *m, uint64_t directory, uint64_t covers)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->changes.count; i++) {
        const struct name *change = &m->changes.list[i];
        if (change->parent == directory && change->record < covers)
            names_apply(&m->flushed, change);
        else
            m->changes.list[kept++] = *change;
    }
    m->changes.count = kept;
}

/* --- records ------------------------------------------------------------------------------------------------------ */

void medium_take(struct medium *m, const struct trace_record *record)
{
    const void *payload = trace_payload(record);
    struct file *file = file_find(m, record->inode);
    uint64_t covers = m->begin + record->covers;
    switch ((enum trace_type)record->type) {
    case TRACE_BEGIN:
        lk_assert(record->inode == m->root);
        m->begin = m->record;
        break;
    case TRACE_CREATE:
        file_make(m, record->inode);
        change_name(m, payload, record->inode, false);
        break;
    case TRACE_DIRECTORY: change_name(m, payload, record->inode, true); break;
    case TRACE_WRITE:
        lk_assert(file != NULL);
        file_write(file, m->record, record->offset, payload, record->bytes);
        break;
    case TRACE_SIZE:
        lk_assert(file != NULL);
        file_size(file, m->record, record->offset);
        break;
    case TRACE_FLUSH:
        lk_assert(file != NULL);
        if (m->lie != MEDIUM_FLUSHES_LIE) file_flush(file, covers, 0, UINT64_MAX);
        break;
    case TRACE_FLUSH_RANGE:
        lk_assert(file != NULL);
        if (m->lie == MEDIUM_HONEST) file_flush(file, covers, record->offset, record->offset + record->count);
        break;
    case TRACE_FLUSH_NAMES:
        if (m->lie != MEDIUM_FLUSHES_LIE) flush_names(m, record->inode, covers);
        break;
    case TRACE_RENAME: rename_paths(m, payload, (const char *)payload + strlen(payload) + 1); break;
    case TRACE_UNLINK: change_name(m, payload, 0, false); break;
    case TRACE_NOTE: break;
    }
    m->record++;
}

/* --- real directories --------------------------------------------------------------------------------------------- */

static bool is_scratch(const char *name)
{
    size_t bytes = strlen(name);
    return bytes >= 5 && strcmp(name + bytes - 5, "-lock") == 0;
}

static void path_in(char to[PATH_BYTES], const char *directory, const char *name)
{
    int bytes = snprintf(to, PATH_BYTES, "%s/%s", directory, name);
    lk_assert(bytes > 0 && bytes < PATH_BYTES);
}

static void read_file(const char *path, struct file *file, uint64_t bytes)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    lk_assert(descriptor >= 0);
    file_reserve(file, bytes + SECTOR_BYTES);
    for (uint64_t at = 0; at < bytes;) {
        ssize_t n = pread(descriptor, file->cached + at, bytes - at, (off_t)at);
        lk_assert(n > 0);
        at += (uint64_t)n;
    }
    close(descriptor);
    memcpy(file->flushed, file->cached, bytes);
    file->cached_bytes = file->flushed_bytes = bytes;
}

static void scan(struct medium *m, const char *directory, uint64_t inode)
{
    DIR *list = opendir(directory);
    lk_assert(list != NULL);
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        char path[PATH_BYTES];
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || is_scratch(entry->d_name)) continue;
        path_in(path, directory, entry->d_name);
        int rc = lstat(path, &status);
        lk_assert(rc == 0);
        struct name name = {.parent = inode, .inode = status.st_ino, .is_directory = S_ISDIR(status.st_mode)};
        lk_assert(name.is_directory || S_ISREG(status.st_mode));
        memcpy(name.name, entry->d_name, strlen(entry->d_name) + 1);
        names_push(&m->cached, &name);
        names_push(&m->flushed, &name);
        if (name.is_directory)
            scan(m, path, name.inode);
        else
            read_file(path, file_make(m, name.inode), (uint64_t)status.st_size);
    }
    closedir(list);
}

struct medium *medium_new(uint64_t root, enum medium_lie lie)
{
    struct medium *m = calloc(1, sizeof *m);
    lk_assert(m != NULL);
    m->lie = lie;
    m->root = root;
    return m;
}

struct medium *medium_open(const char *directory, enum medium_lie lie)
{
    struct stat status;
    int rc = stat(directory, &status);
    lk_assert(rc == 0);
    struct medium *m = medium_new(status.st_ino, lie);
    scan(m, directory, m->root);
    return m;
}

void medium_close(struct medium *m)
{
    if (m == NULL) return;
    while (m->files != NULL) {
        struct file *file = m->files;
        m->files = file->next;
        free(file->cached);
        free(file->flushed);
        free(file->versions);
        free(file->sizes);
        free(file);
    }
    free(m->cached.list);
    free(m->flushed.list);
    free(m->changes.list);
    free(m);
}

bool medium_compare(const struct medium *m, const char *directory, char *why, size_t why_room)
{
    struct medium *real = medium_open(directory, MEDIUM_HONEST);
    bool same = real->cached.count == m->cached.count;
    snprintf(why, why_room, "%s holds %zu names, recorded are %zu", directory, real->cached.count, m->cached.count);
    for (size_t i = 0; i < m->cached.count && same; i++) {
        const struct name *name = &m->cached.list[i], *there = names_find(&real->cached, name->parent, name->name);
        const struct file *file = file_find(m, name->inode), *held = file_find(real, name->inode);
        snprintf(why, why_room, "%s is not what was recorded", name->name);
        same = there != NULL && there->inode == name->inode && there->is_directory == name->is_directory;
        if (!same || name->is_directory) continue;
        same = file != NULL && held != NULL && file->cached_bytes == held->cached_bytes &&
               memcmp(file->cached, held->cached, file->cached_bytes) == 0;
    }
    medium_close(real);
    return same;
}

/* --- images ------------------------------------------------------------------------------------------------------- */

/* How much of what was not flushed reached the medium. */
enum luck { LUCK_ALL, LUCK_NONE, LUCK_HALF, LUCK_MOST, LUCK_FEW, LUCK_FIRST_PART, LUCKS };

static bool reached(struct random *dice, enum luck luck, size_t i, size_t first_part)
{
    switch (luck) {
    case LUCK_ALL: return true;
    case LUCK_HALF: return random_chance(dice, 1, 2);
    case LUCK_MOST: return random_chance(dice, 7, 8);
    case LUCK_FEW: return random_chance(dice, 1, 8);
    case LUCK_FIRST_PART: return i < first_part;
    case LUCK_NONE:
    case LUCKS: break;
    }
    return false;
}

static void write_file(const char *path, const uint8_t *bytes, uint64_t count)
{
    static const uint8_t zeros[4096];
    int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    lk_assert(descriptor >= 0);
    int rc = ftruncate(descriptor, (off_t)count);
    lk_assert(rc == 0);
    for (uint64_t at = 0; at < count; at += sizeof zeros) {
        uint64_t now = count - at < sizeof zeros ? count - at : sizeof zeros;
        if (memcmp(bytes + at, zeros, now) == 0) continue;
        ssize_t n = pwrite(descriptor, bytes + at, now, (off_t)at);
        lk_assert(n == (ssize_t)now);
    }
    close(descriptor);
}

static void image_file(const struct file *file, struct random *dice, enum luck luck, const char *path)
{
    uint64_t bytes = file->flushed_bytes;
    size_t first_part = (size_t)random_below(dice, file->version_count + 1);
    if (luck == LUCK_ALL) {
        bytes = file->cached_bytes;
    } else if (luck != LUCK_NONE && file->size_count != 0) {
        size_t size = (size_t)random_below(dice, file->size_count + 1);
        if (size != 0) bytes = file->sizes[size - 1].bytes;
    }
    uint8_t *content = malloc(file->room);
    lk_assert(content != NULL);
    memcpy(content, file->flushed, file->room);
    for (size_t i = 0; i < file->version_count; i++) {
        const struct version *version = &file->versions[i];
        if (reached(dice, luck, i, first_part))
            memcpy(content + version->sector * SECTOR_BYTES, version->bytes, SECTOR_BYTES);
    }
    write_file(path, content, bytes);
    free(content);
}

static enum luck choose_luck(struct random *dice, enum luck common)
{
    return common != LUCKS ? common : (enum luck)random_below(dice, LUCKS);
}

/* Of each directory's changes a first part. */
static void image_names(const struct medium *m, struct random *dice, enum luck common, struct names *names)
{
    for (size_t i = 0; i < m->flushed.count; i++) names_push(names, &m->flushed.list[i]);
    for (size_t first = 0; first < m->changes.count; first++) {
        uint64_t parent = m->changes.list[first].parent;
        size_t earlier = 0, count = 0;
        while (m->changes.list[earlier].parent != parent) earlier++;
        if (earlier < first) continue; /* this directory is done */
        for (size_t i = first; i < m->changes.count; i++) count += m->changes.list[i].parent == parent;
        enum luck luck = choose_luck(dice, common);
        size_t kept = luck == LUCK_ALL ? count : luck == LUCK_NONE ? 0 : (size_t)random_below(dice, count + 1);
        for (size_t i = first; i < m->changes.count && kept > 0; i++) {
            if (m->changes.list[i].parent != parent) continue;
            names_apply(names, &m->changes.list[i]);
            kept--;
        }
    }
}

struct image {
    const struct medium *medium;
    struct random dice;
    enum luck common;
    struct names names;
    struct {
        uint64_t inode;
        char path[PATH_BYTES];
    } files[IMAGE_FILES_MAX]; /* those that have a name already */
    size_t file_count;
};

static void image_directory(struct image *image, uint64_t inode, const char *directory)
{
    for (size_t i = 0; i < image->names.count; i++) {
        const struct name *name = &image->names.list[i];
        char path[PATH_BYTES];
        if (name->parent != inode) continue;
        path_in(path, directory, name->name);
        if (name->is_directory) {
            int rc = mkdir(path, 0700);
            lk_assert(rc == 0);
            image_directory(image, name->inode, path);
            continue;
        }
        size_t twin = 0;
        while (twin < image->file_count && image->files[twin].inode != name->inode) twin++;
        if (twin < image->file_count) {
            int rc = link(image->files[twin].path, path);
            lk_assert(rc == 0);
            continue;
        }
        const struct file *file = file_find(image->medium, name->inode);
        lk_assert(file != NULL && image->file_count < IMAGE_FILES_MAX);
        image_file(file, &image->dice, choose_luck(&image->dice, image->common), path);
        image->files[image->file_count].inode = name->inode;
        memcpy(image->files[image->file_count++].path, path, sizeof path);
    }
}

void medium_image(const struct medium *medium, uint64_t seed, const char *directory)
{
    struct image *image = calloc(1, sizeof *image);
    lk_assert(image != NULL);
    image->medium = medium;
    random_seed(&image->dice, seed);
    /* Half of the images treat all files alike, above all: nothing that was not flushed is there. */
    image->common = random_chance(&image->dice, 1, 2) ? LUCKS : (enum luck)random_below(&image->dice, LUCKS);
    image_names(medium, &image->dice, image->common, &image->names);
    image_directory(image, medium->root, directory);
    free(image->names.list);
    free(image);
}
