/* SPDX-License-Identifier: Apache-2.0 */
/* kv_lmdb_check.c - see kv_lmdb_check.h.
 * LMDB follows what its pages say: a page number, a place in a page, a length, without a checksum. One flipped bit there
 * ends in a SIGBUS, in a SIGSEGV, in an abort, or in a tree that no longer finds a key. So before it maps the file every
 * page that it could go to is looked at:
 *
 *   meta 0 │ meta 1     the newer one counts; both were written in turn, so their transactions are neighbours
 *     ├ free pages      by the transaction that freed them: 8 bytes count, 8 bytes a page, descending
 *     └ names           t0, t1, ...: each with the root of its tree
 *          └ tree       branch: {key, page}; leaf: {key, value} or {key, first of the pages that hold a large value}
 *
 * - A page says its own number and kind, its nodes fill it without gap or overlap, its keys ascend, and lie between those
 *   that led to it. All leaves lie equally deep. No page belongs to two, and none that is used is said to be free.
 * - Of the older meta page nothing but its age is known: LMDB leaves the roots of a transaction there that it could not end.
 *   So one flipped bit in the age of either can make the older one count: its tree is whole, and one transaction old.
 * The format is that of LMDB 0.9 on 64-bit little-endian machines; mdb.c calls these MDB_meta, MDB_db, MDB_page, MDB_node. */
#include "storage/kv_lmdb_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum {
    PAGE_HEADER_BYTES = 16,
    NODE_HEADER_BYTES = 8,
    PAGE_BYTES_MIN = 512,
    PAGE_BYTES_MAX = 65536,
    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_OVERFLOW = 4,
    PAGE_META = 8,
    NODE_LARGE = 1, /* its value lies on pages of its own */
    NODE_TABLE = 2, /* its value is a struct table */
    TABLE_INTEGER_KEYS = 8,
    TABLE_FLAGS = 0xff, /* what they may say about keys and values */
    META_VERSION = 1,
    META_FIRST_PAGES = 2,
    DEPTH_MAX = 32,
};

static const uint32_t META_MAGIC = 0xBEEFC0DE;
static const uint64_t NO_PAGE = UINT64_MAX;

struct table {
    uint32_t pad; /* of the free pages' one: the page size */
    uint16_t flags, depth;
    uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};
static_assert(sizeof(struct table) == 48, "MDB_db");

enum { FREE_PAGES, NAMES };

struct meta_page {
    uint64_t page;
    uint16_t pad, page_flags;
    uint32_t zero;
    uint32_t magic, version;
    uint64_t address, map_bytes;
    struct table tables[2];
    uint64_t last_page, transaction;
};
static_assert(sizeof(struct meta_page) == 152, "MDB_page and MDB_meta");

struct page_header {
    uint64_t page;
    uint16_t pad, flags;
    union {
        struct {
            uint16_t lower, upper; /* the free space between the places of the nodes and the nodes */
        };
        uint32_t pages; /* of a large value */
    };
};
static_assert(sizeof(struct page_header) == PAGE_HEADER_BYTES, "MDB_page");

/* A number that orders as the key does: an integer, or a name of up to 8 bytes. */
struct node {
    uint64_t key;
    uint64_t page;        /* branch: the child; leaf: the first one of a large value */
    uint64_t value_bytes; /* leaf */
    uint64_t begin, end;  /* in the page */
    uint64_t offset;      /* of an inline value */
    bool large;
};

enum tree_kind { TREE_FREE_PAGES, TREE_NAMES, TREE_VALUES };

struct walk {
    int fd;
    const char *path;
    uint64_t page_bytes, last_page, transaction;
    uint8_t *used;    /* a bit a page */
    uint8_t *pages;   /* the way from a root down, a page a level */
    uint8_t *covered; /* a byte for two of a page */
    struct table tables[64];
    uint32_t table_count; /* found among the names */
    char *why;
    size_t why_room;
};

struct tree {
    enum tree_kind kind;
    uint16_t depth;
};

__attribute__((format(printf, 3, 4))) static int damaged(const struct walk *w, uint64_t page, const char *format, ...)
{
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(w->why, w->why_room,
             "%s: damaged: page %" PRIu64
             " %s; keep it for examination, give the node an empty directory and run member replace",
             w->path, page, what);
    return LOCKSTEP_ECORRUPT;
}

static int read_at(const struct walk *w, uint64_t offset, void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(w->fd, (uint8_t *)to + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) return damaged(w, offset / w->page_bytes, "lies behind the end of the file");
        if (n < 0) {
            snprintf(w->why, w->why_room, "%s: cannot be read: %s; check the disk", w->path, strerror(errno));
            return LOCKSTEP_EIO;
        }
        done += (size_t)n;
    }
    return 0;
}

/* Pages that are somebody's from now on. */
static int take(struct walk *w, uint64_t page, uint64_t count, uint64_t from)
{
    if (page < META_FIRST_PAGES || page > w->last_page || count - 1 > w->last_page - page)
        return damaged(w, from, "names page %" PRIu64 ", which there is not", page);
    for (uint64_t p = page; p < page + count; p++) {
        uint8_t bit = (uint8_t)(1u << (p & 7));
        if ((w->used[p >> 3] & bit) != 0) return damaged(w, from, "names page %" PRIu64 ", which is in use", p);
        w->used[p >> 3] |= bit;
    }
    return 0;
}

/* --- what a leaf holds --- */

static int take_large(struct walk *w, const struct node *node, uint64_t from)
{
    struct page_header header;
    uint64_t least = (PAGE_HEADER_BYTES + node->value_bytes + w->page_bytes - 1) / w->page_bytes;
    int rc = take(w, node->page, 1, from);
    if (rc == 0) rc = read_at(w, node->page * w->page_bytes, &header, sizeof header);
    if (rc != 0) return rc;
    if (header.page != node->page || header.flags != PAGE_OVERFLOW || header.pages < least)
        return damaged(w, node->page, "is not the first one of a large value");
    return header.pages == 1 ? 0 : take(w, node->page + 1, header.pages - 1, from);
}

/* Pages that are free: they must not be anybody's. */
static int take_free(struct walk *w, const struct node *node, uint64_t page)
{
    uint64_t numbers[64], count = 0, before = UINT64_MAX;
    uint64_t at = node->large ? node->page * w->page_bytes + PAGE_HEADER_BYTES : page * w->page_bytes + node->offset;
    if (node->key == 0 || node->key > w->transaction)
        return damaged(w, page, "holds what transaction %" PRIu64 " freed, the newest is %" PRIu64, node->key,
                       w->transaction);
    int rc = read_at(w, at, &count, sizeof count);
    if (rc != 0) return rc;
    if (node->value_bytes < sizeof count || count > node->value_bytes / sizeof count - 1)
        return damaged(w, page, "holds a list of free pages that is longer than its room");
    while (count > 0) {
        uint64_t some = count < 64 ? count : 64;
        at += sizeof count;
        rc = read_at(w, at, numbers, some * sizeof numbers[0]);
        for (uint64_t i = 0; rc == 0 && i < some; i++) {
            if (numbers[i] >= before) return damaged(w, page, "holds a list of free pages out of order");
            before = numbers[i];
            rc = take(w, before, 1, page);
        }
        if (rc != 0) return rc;
        count -= some;
        at += (some - 1) * sizeof count;
    }
    return 0;
}

static int take_name(struct walk *w, const struct node *node, const uint8_t *bytes, uint64_t page)
{
    struct table table;
    if (node->large || node->value_bytes != sizeof table || w->table_count == sizeof w->tables / sizeof table)
        return damaged(w, page, "holds a name without a tree");
    memcpy(&table, bytes + node->offset, sizeof table);
    if (table.flags != TABLE_INTEGER_KEYS) return damaged(w, page, "holds a tree of another kind");
    w->tables[w->table_count++] = table;
    return 0;
}

/* --- pages --- */

/* Node i of a page whose header is good, within its page. */
static int node_read(struct walk *w, const uint8_t *bytes, enum tree_kind kind, unsigned i, struct node *ret)
{
    struct page_header header;
    uint16_t place, low, high, flags, key_bytes;
    memcpy(&header, bytes, sizeof header);
    bool leaf = header.flags == PAGE_LEAF;
    memcpy(&place, bytes + PAGE_HEADER_BYTES + i * sizeof place, sizeof place);
    if ((place & 1) != 0 || place < header.upper || place > w->page_bytes - NODE_HEADER_BYTES)
        return damaged(w, header.page, "has node %u at byte %u", i, place);
    memcpy(&low, bytes + place, sizeof low);
    memcpy(&high, bytes + place + 2, sizeof high);
    memcpy(&flags, bytes + place + 4, sizeof flags);
    memcpy(&key_bytes, bytes + place + 6, sizeof key_bytes);
    *ret = (struct node){.begin = place, .offset = (uint64_t)place + NODE_HEADER_BYTES + key_bytes};
    uint64_t inline_bytes = 0;
    if (leaf) {
        ret->value_bytes = low | (uint32_t)high << 16;
        ret->large = (flags & NODE_LARGE) != 0;
        inline_bytes = ret->large ? sizeof ret->page : ret->value_bytes;
        if ((flags & ~NODE_LARGE) != (kind == TREE_NAMES ? NODE_TABLE : 0))
            return damaged(w, header.page, "has node %u of another kind", i);
    } else {
        ret->page = low | (uint64_t)high << 16 | (uint64_t)flags << 32;
    }
    bool first_of_branch = !leaf && i == 0; /* its key is never looked at, and may be left out */
    bool key_good = kind == TREE_NAMES ? key_bytes >= 1 && key_bytes <= sizeof ret->key : key_bytes == sizeof ret->key;
    if (!key_good && !(first_of_branch && key_bytes == 0))
        return damaged(w, header.page, "has a key of %u bytes in node %u", key_bytes, i);
    ret->end = ret->offset + inline_bytes;
    ret->end += ret->end & 1;
    if (ret->end > w->page_bytes) return damaged(w, header.page, "has node %u over its end", i);
    memcpy(&ret->key, bytes + place + NODE_HEADER_BYTES, key_bytes);
    if (kind == TREE_NAMES) ret->key = __builtin_bswap64(ret->key);
    if (ret->large) memcpy(&ret->page, bytes + ret->offset, sizeof ret->page);
    return 0;
}

/* Header, nodes and keys of a page; no other page is looked at. Every key lies in first..last. */
static int page_check(struct walk *w, const uint8_t *bytes, uint64_t page, const struct tree *tree, bool leaf,
                      uint64_t first, uint64_t last, unsigned *ret_count)
{
    struct page_header header;
    struct node node;
    memcpy(&header, bytes, sizeof header);
    if (header.page != page || header.flags != (leaf ? PAGE_LEAF : PAGE_BRANCH))
        return damaged(w, page, "is not the %s page that it should be", leaf ? "leaf" : "branch");
    if (header.lower <= PAGE_HEADER_BYTES || (header.lower & 1) != 0 || header.upper < header.lower ||
        header.upper > w->page_bytes)
        return damaged(w, page, "has its nodes from byte %u to byte %u", header.lower, header.upper);
    unsigned count = (header.lower - PAGE_HEADER_BYTES) / 2u;
    if (!leaf && count < 2 && tree->kind != TREE_FREE_PAGES) return damaged(w, page, "is a branch with one child");
    memset(w->covered, 0, w->page_bytes / 2);
    for (unsigned i = 0; i < count; i++) {
        int rc = node_read(w, bytes, tree->kind, i, &node);
        if (rc != 0) return rc;
        for (uint64_t at = node.begin; at < node.end; at += 2)
            if (w->covered[at / 2]++ != 0) return damaged(w, page, "has node %u over another one", i);
        if (!leaf && i == 0) continue;
        if (node.key < first || node.key > last) return damaged(w, page, "has key %" PRIu64 " out of order", node.key);
        if (i + 1 < count && node.key == UINT64_MAX) return damaged(w, page, "has a key behind the last one");
        first = node.key + 1;
    }
    for (uint64_t at = header.upper; at < w->page_bytes; at += 2)
        if (w->covered[at / 2] == 0) return damaged(w, page, "has a hole at byte %" PRIu64, at);
    *ret_count = count;
    return 0;
}

static int walk_page(struct walk *w, const struct tree *tree, unsigned level, uint64_t page, uint64_t from,
                     uint64_t first, uint64_t last)
{
    uint8_t *bytes = w->pages + level * w->page_bytes;
    bool leaf = level + 1u == tree->depth;
    unsigned count = 0;
    struct node node, next;
    int rc = take(w, page, 1, from);
    if (rc == 0) rc = read_at(w, page * w->page_bytes, bytes, w->page_bytes);
    if (rc == 0) rc = page_check(w, bytes, page, tree, leaf, first, last, &count);
    if (rc == 0) rc = node_read(w, bytes, tree->kind, 0, &next);
    for (unsigned i = 0; i < count && rc == 0; i++) {
        node = next;
        if (i + 1 < count) rc = node_read(w, bytes, tree->kind, i + 1, &next);
        if (rc != 0) break;
        if (!leaf) {
            rc = walk_page(w, tree, level + 1, node.page, page, i == 0 ? first : node.key,
                           i + 1 < count ? next.key - 1 : last);
            continue;
        }
        if (node.large) rc = take_large(w, &node, page);
        if (rc == 0 && tree->kind == TREE_FREE_PAGES) rc = take_free(w, &node, page);
        if (rc == 0 && tree->kind == TREE_NAMES) rc = take_name(w, &node, bytes, page);
    }
    return rc;
}

static int walk_tree(struct walk *w, const struct table *table, enum tree_kind kind, uint64_t from)
{
    const struct tree tree = {.kind = kind, .depth = table->depth};
    if ((table->root == NO_PAGE) != (table->depth == 0) || table->depth > DEPTH_MAX)
        return damaged(w, from, "has a tree of depth %u", table->depth);
    return table->root == NO_PAGE ? 0 : walk_page(w, &tree, 0, table->root, from, 0, UINT64_MAX);
}

/* What a meta page leads to. */
static int walk_meta(struct walk *w, const struct meta_page *meta)
{
    w->last_page = meta->last_page;
    w->transaction = meta->transaction;
    uint64_t page_count = meta->last_page + 1;
    w->used = calloc(1, page_count / 8 + 1);
    w->pages = malloc(DEPTH_MAX * w->page_bytes);
    w->covered = malloc(w->page_bytes / 2);
    int rc = w->used != NULL && w->pages != NULL && w->covered != NULL ? 0 : LOCKSTEP_ENOMEM;
    if (rc != 0) snprintf(w->why, w->why_room, "%s: out of memory; free some", w->path);
    if (rc == 0) rc = walk_tree(w, &meta->tables[NAMES], TREE_NAMES, meta->page);
    for (uint32_t i = 0; rc == 0 && i < w->table_count; i++)
        rc = walk_tree(w, &w->tables[i], TREE_VALUES, meta->tables[NAMES].root);
    if (rc == 0) rc = walk_tree(w, &meta->tables[FREE_PAGES], TREE_FREE_PAGES, meta->page);
    free(w->covered);
    free(w->pages);
    free(w->used);
    return rc;
}

/* --- meta pages --- */

static int meta_read(struct walk *w, uint64_t page, struct meta_page *ret)
{
    int rc = read_at(w, page * w->page_bytes, ret, sizeof *ret);
    if (rc != 0) return rc;
    if (ret->magic != META_MAGIC) return damaged(w, page, "is not one of a map's first two");
    if (ret->version > META_VERSION) {
        snprintf(w->why, w->why_room,
                 "%s: written by a newer version of LMDB (format %" PRIu32 ", this one reads up to %d); "
                 "install that version",
                 w->path, ret->version, META_VERSION);
        return LOCKSTEP_EVERSION;
    }
    const struct table *tables = ret->tables;
    uint32_t page_bytes = tables[FREE_PAGES].pad;
    bool size_good =
        page_bytes >= PAGE_BYTES_MIN && page_bytes <= PAGE_BYTES_MAX && (page_bytes & (page_bytes - 1)) == 0;
    if (!size_good || ret->page != page || ret->page_flags != PAGE_META || ret->version != META_VERSION ||
        (tables[FREE_PAGES].flags & TABLE_FLAGS) != TABLE_INTEGER_KEYS || tables[NAMES].flags != 0 ||
        ret->last_page >= (uint64_t)INT64_MAX / page_bytes)
        return damaged(w, page, "is not one of a map's first two");
    w->page_bytes = page_bytes;
    return 0;
}

int kv_lmdb_check(int fd, const char *path, uint64_t file_bytes, uint64_t *ret_page_bytes, char *why, size_t why_room)
{
    struct walk w = {.fd = fd, .path = path, .page_bytes = PAGE_BYTES_MIN, .why = why, .why_room = why_room};
    struct meta_page metas[2];
    int rc = meta_read(&w, 0, &metas[0]);
    if (rc == 0) rc = meta_read(&w, 1, &metas[1]);
    if (rc != 0) return rc;
    bool second = metas[1].transaction > metas[0].transaction;
    const struct meta_page *newest = &metas[second], *older = &metas[!second];
    if (metas[0].tables[FREE_PAGES].pad != metas[1].tables[FREE_PAGES].pad ||
        newest->transaction - older->transaction != 1 || (metas[0].transaction & 1) != 0)
        return damaged(&w, newest->page, "and the other one of the first two are not of one map");
    uint64_t least = (newest->last_page + 1) * w.page_bytes;
    if (file_bytes < least) {
        snprintf(why, why_room,
                 "%s: truncated: %" PRIu64 " bytes of at least %" PRIu64 "; keep it for examination, give the node an "
                 "empty directory and run member replace",
                 path, file_bytes, least);
        return LOCKSTEP_ECORRUPT;
    }
    rc = walk_meta(&w, newest);
    *ret_page_bytes = w.page_bytes;
    return rc;
}
