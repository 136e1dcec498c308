/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/copies.h"

#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum { SEGMENTS_MAX = 8 };

struct segment {
    uint8_t *at;
    uint8_t *pristine;
    size_t bytes;
};

struct copy {
    struct plugin plugin;
    struct segment segments[SEGMENTS_MAX];
    unsigned segment_count;
};

struct copies {
    unsigned count;
    struct copy list[];
};

/* Byte by byte and unseen by sanitizers: what lies between a module's variables belongs to them. */
#if defined(__clang__)
#define UNSEEN __attribute__((no_sanitize("address", "thread", "undefined"), noinline))
#else
#define UNSEEN __attribute__((no_sanitize_address, no_sanitize_undefined, noinline))
#endif
UNSEEN static void copy_words(uint64_t *to, const uint64_t *from, size_t bytes)
{
    volatile uint64_t *unseen = to;
    for (size_t i = 0; i < bytes / sizeof *to; i++) unseen[i] = from[i];
}

struct search {
    const char *path;
    struct copy *copy;
};

/* The writable segments of the object with this path, without what the loader made read-only after relocation. */
static int note_segments(struct dl_phdr_info *info, size_t size, void *context)
{
    struct search *search = context;
    (void)size;
    if (strcmp(info->dlpi_name, search->path) != 0) return 0;
    uintptr_t fixed_end = 0;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_GNU_RELRO) fixed_end = info->dlpi_addr + header->p_vaddr + header->p_memsz;
    }
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    fixed_end = fixed_end & ~(page - 1);
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD || !(header->p_flags & PF_W)) continue;
        uintptr_t from = info->dlpi_addr + header->p_vaddr, to = from + header->p_memsz;
        if (from < fixed_end) from = fixed_end;
        from = (from + 7) & ~(uintptr_t)7;
        if (to <= from) continue;
        lk_assert(search->copy->segment_count < SEGMENTS_MAX);
        struct segment *segment = &search->copy->segments[search->copy->segment_count++];
        segment->at = (uint8_t *)from;
        segment->bytes = (to - from) & ~(size_t)7;
        segment->pristine = malloc(segment->bytes);
        lk_assert(segment->pristine != NULL);
        copy_words((uint64_t *)(void *)segment->pristine, (const uint64_t *)(const void *)segment->at, segment->bytes);
    }
    return 1;
}

static int copy_load(const char *path, const char *directory, struct copy *copy, char *why, size_t why_room)
{
    char file[4096];
    int rc = plugin_load(path, directory, NULL, &copy->plugin, why, why_room);
    if (rc != 0) return rc;
    int used = snprintf(file, sizeof file, "%s/", directory);
    for (size_t i = 0; i < sizeof copy->plugin.content_hash; i++)
        used += snprintf(file + used, sizeof file - (size_t)used, "%02x", copy->plugin.content_hash[i]);
    snprintf(file + used, sizeof file - (size_t)used, ".so");
    struct search search = {.path = file, .copy = copy};
    dl_iterate_phdr(note_segments, &search);
    unlink(file); /* the mapping stays */
    rmdir(directory);
    return 0;
}

int copies_open(const char *path, unsigned count, struct copies **ret, char *why, size_t why_room)
{
    const char *temporary = getenv("TMPDIR");
    char root[2048], directory[4096];
    snprintf(root, sizeof root, "%s/lockstep-sim.XXXXXX", temporary != NULL ? temporary : "/tmp");
    struct copies *copies = calloc(1, sizeof *copies + count * sizeof copies->list[0]);
    if (copies == NULL || mkdtemp(root) == NULL) {
        snprintf(why, why_room, "no place for copies of the machine at %s; set TMPDIR", root);
        free(copies);
        return LOCKSTEP_EIO;
    }
    int rc = 0;
    for (; rc == 0 && copies->count < count; copies->count++) {
        snprintf(directory, sizeof directory, "%s/n%u", root, copies->count + 1);
        rc = copy_load(path, directory, &copies->list[copies->count], why, why_room);
    }
    rmdir(root);
    if (rc != 0) {
        free(copies);
        return rc;
    }
    *ret = copies;
    return 0;
}

const struct plugin *copies_fresh(struct copies *copies, unsigned i)
{
    lk_assert(i < copies->count);
    struct copy *copy = &copies->list[i];
    for (unsigned k = 0; k < copy->segment_count; k++)
        copy_words((uint64_t *)(void *)copy->segments[k].at, (const uint64_t *)(const void *)copy->segments[k].pristine,
                   copy->segments[k].bytes);
    return &copy->plugin;
}
