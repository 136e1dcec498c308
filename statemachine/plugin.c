/* SPDX-License-Identifier: Apache-2.0 */
/* plugin.c - see plugin.h. The only file that knows dlfcn.h.
 * Thread: whoever starts the node, before its threads.
 * M7  What runs is a private copy named by its content: a rebuild over the file of a running node changes nothing under
 *     it, and what a node runs can be named by a hash. RTLD_NOW: a missing function is found here, not in apply.
 *     RTLD_LOCAL: two machines may use the same names. Never dlclosed: a machine's threads or exit handlers would fall.
 * A plugin is code of the node's owner and trusted as such; what is checked here are mistakes: another ABI, another
 * machine, a file that is no plugin, members that are missing. */
#include "statemachine/plugin.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/assert.h"
#include "lockstep/errors.h"

enum {
    /* What every plugin of ABI 1 has: nothing behind apply is needed. */
    MACHINE_BYTES_MIN = offsetof(struct lockstep_machine, apply) + sizeof(void *),
    PLUGIN_FILE_BYTES_MAX = 1 << 30,
    HEX_BYTES = 64,
};
static_assert(offsetof(struct lockstep_machine, name) == 8, "size and abi come first, for ever");
static_assert(sizeof(struct lockstep_machine) % sizeof(void *) == 0, "nothing but pointers behind them");

/* Say why, and hand the code through. */
static int fail(int code, char *why, size_t why_room, const char *format, ...) __attribute__((format(printf, 4, 5)));
static int fail(int code, char *why, size_t why_room, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, why_room, format, arguments);
    va_end(arguments);
    return code;
}

static int code_of_errno(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR: return LOCKSTEP_ENOTFOUND;
    case ENOSPC:
    case EDQUOT: return LOCKSTEP_ENOSPC;
    case ENOMEM: return LOCKSTEP_ENOMEM;
    default: return LOCKSTEP_EIO;
    }
}

struct content {
    uint8_t *bytes;
    size_t count;
    uint8_t hash[32];
};

/* The whole file, in memory: what is hashed is what is copied, whatever happens to the file meanwhile.
 * On success the caller frees ret->bytes. */
static int read_file(const char *path, struct content *ret, char *why, size_t why_room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(code_of_errno(errno), why, why_room,
                    "plugin %s: cannot be read: %s; check the file and its permissions", path, strerror(errno));
    uint8_t *bytes = NULL;
    int rc = 0;
    struct stat about;
    if (fstat(fd, &about) != 0) {
        rc = fail(LOCKSTEP_EIO, why, why_room, "plugin %s: cannot be read: %s; check the file and its permissions",
                  path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(about.st_mode) || about.st_size <= 0 || about.st_size > PLUGIN_FILE_BYTES_MAX) {
        rc = fail(LOCKSTEP_EINVAL, why, why_room,
                  "plugin %s: not a shared object: %s; name the .so file that `cc -shared -fPIC` made", path,
                  S_ISDIR(about.st_mode)    ? "it is a directory"
                  : !S_ISREG(about.st_mode) ? "it is no regular file"
                  : about.st_size <= 0      ? "it is empty"
                                            : "it is larger than 1 GiB");
        goto out;
    }
    size_t room = (size_t)about.st_size, count = 0;
    bytes = malloc(room);
    if (bytes == NULL) {
        rc = fail(LOCKSTEP_ENOMEM, why, why_room, "plugin %s: no memory for its %zu bytes; free some", path, room);
        goto out;
    }
    while (count < room) {
        ssize_t got = read(fd, bytes + count, room - count);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            rc = fail(LOCKSTEP_EIO, why, why_room, "plugin %s: cannot be read: %s; check the file and its permissions",
                      path, strerror(errno));
            goto out;
        }
        if (got == 0) break; /* it has shrunk; the loader will say what it thinks of the rest */
        count += (size_t)got;
    }
    if (EVP_Digest(bytes, count, ret->hash, NULL, EVP_sha256(), NULL) != 1) {
        rc = fail(LOCKSTEP_EIO, why, why_room, "plugin %s: libcrypto computes no SHA-256", path);
        goto out;
    }
    ret->bytes = bytes;
    ret->count = count;
    bytes = NULL;
out:
    free(bytes);
    close(fd);
    return rc;
}

/* Whether the file is there and has this content. */
static bool holds_content(const char *path, const struct content *content)
{
    struct content found;
    char unused[1];
    if (read_file(path, &found, unused, sizeof unused) != 0) return false;
    bool same = memcmp(found.hash, content->hash, sizeof found.hash) == 0;
    free(found.bytes);
    return same;
}

static int write_file(const char *path, const struct content *content)
{
    unlink(path); /* of a process with this id that was killed half-way */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0500);
    if (fd < 0) return code_of_errno(errno);
    int rc = 0;
    for (size_t done = 0; done < content->count;) {
        ssize_t put = write(fd, content->bytes + done, content->count - done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) {
            rc = code_of_errno(errno);
            break;
        }
        done += (size_t)put;
    }
    if (close(fd) != 0 && rc == 0) rc = code_of_errno(errno);
    return rc;
}

/* Make the private copy, unless it is there: a node with a full disk must be able to start again. A copy that a crash
 * left half written has another hash and is replaced. */
static int make_copy(const char *directory, const struct content *content, struct plugin *plugin, char *ret_path,
                     size_t room, char *why, size_t why_room)
{
    lk_assert(room <= PATH_MAX);
    char hex[HEX_BYTES + 1];
    for (size_t i = 0; i < sizeof content->hash; i++) snprintf(hex + 2 * i, 3, "%02x", content->hash[i]);
    /* The dot-slash keeps the loader from searching its own folders for a name without a slash. */
    int count = snprintf(ret_path, room, "%s%s/%s.so", directory[0] == '/' ? "" : "./", directory, hex);
    char unfinished[PATH_MAX + 16];
    if (count < 0 || (size_t)count >= room)
        return fail(LOCKSTEP_EINVAL, why, why_room, "plugin folder %s: the path is too long; choose a shorter one",
                    directory);
    plugin->folder_made = mkdir(directory, 0700) == 0;
    if (!plugin->folder_made && errno != EEXIST)
        return fail(code_of_errno(errno), why, why_room,
                    "plugin folder %s: cannot be made: %s; check the folder above it and its permissions", directory,
                    strerror(errno));
    if (holds_content(ret_path, content)) return 0;
    snprintf(unfinished, sizeof unfinished, "%s.%ld", ret_path, (long)getpid());
    int rc = write_file(unfinished, content);
    if (rc == 0 && rename(unfinished, ret_path) != 0) rc = code_of_errno(errno);
    if (rc == 0) {
        snprintf(plugin->copy_made, sizeof plugin->copy_made, "%s", ret_path);
        return 0;
    }
    int error = errno;
    unlink(unfinished);
    if (plugin->folder_made) (void)rmdir(directory);
    return fail(rc, why, why_room, "plugin copy %s: cannot be written: %s; check the disk and its permissions",
                ret_path, strerror(error));
}

void plugin_copy_undo(const struct plugin *plugin)
{
    if (plugin->copy_made[0] == 0) return;
    (void)unlink(plugin->copy_made);
    char folder[sizeof plugin->copy_made];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(plugin->copy_made, '/') - plugin->copy_made),
             plugin->copy_made);
    if (plugin->folder_made) (void)rmdir(folder);
}

/* The table that the plugin exports; how many bytes of it there are, by the object's own symbol table. */
static const void *find_table(void *handle, size_t *ret_bytes)
{
    void *table = dlsym(handle, LOCKSTEP_MACHINE_SYMBOL);
    if (table == NULL) return NULL;
    Dl_info about;
    void *entry = NULL;
    if (dladdr1(table, &about, &entry, RTLD_DL_SYMENT) == 0 || entry == NULL) return NULL;
    const ElfW(Sym) *symbol = entry;
    if (ELF64_ST_TYPE(symbol->st_info) != STT_OBJECT) return NULL; /* a function of that name, say */
    *ret_bytes = symbol->st_size;
    return table;
}

static bool is_name(const char *name)
{
    size_t count = strnlen(name, 64);
    return count >= 1 && count <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == count;
}

static bool is_printable(const char *text)
{
    size_t count = strnlen(text, 64);
    if (count < 1 || count > 63) return false;
    for (size_t i = 0; i < count; i++)
        if (text[i] < 0x20 || text[i] > 0x7e) return false;
    return true;
}

/* The first member that is missing or makes no sense; NULL: all is well. */
static const char *find_fault(const struct lockstep_machine *machine)
{
    if (machine->name == NULL || !is_name(machine->name)) return "its name is not 1 to 63 of a-z 0-9 - _";
    if (machine->version == NULL || !is_printable(machine->version))
        return "its version is not 1 to 63 printable characters";
    if (machine->open == NULL) return "it has no open";
    if (machine->close == NULL) return "it has no close";
    if (machine->apply == NULL) return "it has no apply";
    bool some = machine->snapshot_begin != NULL || machine->snapshot_write != NULL || machine->snapshot_end != NULL ||
                machine->restore != NULL;
    bool all = machine->snapshot_begin != NULL && machine->snapshot_write != NULL && machine->snapshot_end != NULL &&
               machine->restore != NULL;
    if (some && !all) return "snapshot_begin, snapshot_write, snapshot_end and restore come together or not at all";
    return NULL;
}

/* Copy what the plugin's table holds and this host knows. Members that its size does not reach stay NULL. */
static int read_table(const char *path, const void *table, size_t table_bytes, struct lockstep_machine *ret, char *why,
                      size_t why_room)
{
    uint32_t head[2] = {0, 0}; /* size, abi */
    if (table_bytes >= sizeof head) memcpy(head, table, sizeof head);
    if (head[1] != LOCKSTEP_MACHINE_ABI && table_bytes >= sizeof head)
        return fail(LOCKSTEP_EABI, why, why_room,
                    "plugin %s: built for ABI %u, this lockstep has ABI %d; build it again with this version's "
                    "lockstep/machine.h",
                    path, head[1], LOCKSTEP_MACHINE_ABI);
    size_t size = head[0];
    if (size < MACHINE_BYTES_MIN || size > table_bytes)
        return fail(LOCKSTEP_EINVAL, why, why_room,
                    "plugin %s: its table says %zu bytes, has %zu, and needs at least %d for ABI %d; set "
                    ".size = sizeof(struct lockstep_machine)",
                    path, size, table_bytes, MACHINE_BYTES_MIN, LOCKSTEP_MACHINE_ABI);
    if (size > sizeof *ret) size = sizeof *ret;
    memset(ret, 0, sizeof *ret);
    memcpy(ret, table, size - size % sizeof(void *)); /* half a member is none */
    return 0;
}

/* Load the copy, and check what it says of itself. */
static int load_copy(const char *path, const char *copy, const char *expected_name, struct plugin *plugin, char *why,
                     size_t why_room)
{
    void *handle = dlopen(copy, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return fail(LOCKSTEP_EINVAL, why, why_room,
                    "plugin %s: cannot be loaded: %s; build it with `cc -shared -fPIC`, for this machine", path,
                    dlerror());
    size_t table_bytes = 0;
    const void *table = find_table(handle, &table_bytes);
    if (table == NULL)
        return fail(LOCKSTEP_EABI, why, why_room,
                    "plugin %s: it exports no table `%s`, so its ABI is unknown (this lockstep has ABI %d); define it "
                    "as lockstep/machine.h shows at its end",
                    path, LOCKSTEP_MACHINE_SYMBOL, LOCKSTEP_MACHINE_ABI);
    int rc = read_table(path, table, table_bytes, &plugin->machine, why, why_room);
    if (rc != 0) return rc;
    const char *fault = find_fault(&plugin->machine);
    if (fault != NULL)
        return fail(LOCKSTEP_EINVAL, why, why_room, "plugin %s: %s; see lockstep/machine.h of ABI %d", path, fault,
                    LOCKSTEP_MACHINE_ABI);
    if (expected_name != NULL && strcmp(expected_name, plugin->machine.name) != 0)
        return fail(LOCKSTEP_EFOREIGN, why, why_room,
                    "plugin %s: holds the machine `%s` version %s, and `%s` is wanted; name the right file, or make "
                    "both names the same",
                    path, plugin->machine.name, plugin->machine.version, expected_name);
    snprintf(plugin->name, sizeof plugin->name, "%s", plugin->machine.name);
    snprintf(plugin->version, sizeof plugin->version, "%s", plugin->machine.version);
    return 0;
}

int plugin_load(const char *path, const char *copy_directory, const char *expected_name, struct plugin *ret, char *why,
                size_t why_room)
{
    struct content content;
    struct plugin plugin = {.name = ""};
    char copy[PATH_MAX];
    if (strlen(path) >= sizeof plugin.path)
        return fail(LOCKSTEP_EINVAL, why, why_room, "plugin: the path is longer than %zu bytes; choose a shorter one",
                    sizeof plugin.path - 1);
    snprintf(plugin.path, sizeof plugin.path, "%s", path);
    int rc = read_file(path, &content, why, why_room);
    if (rc != 0) return rc;
    memcpy(plugin.content_hash, content.hash, sizeof plugin.content_hash);
    rc = make_copy(copy_directory, &content, &plugin, copy, sizeof copy, why, why_room);
    free(content.bytes);
    if (rc != 0) return rc;
    rc = load_copy(path, copy, expected_name, &plugin, why, why_room);
    if (rc != 0) {
        plugin_copy_undo(&plugin);
        return rc;
    }
    *ret = plugin;
    return 0;
}

/* --- finding the file --- */

static bool is_file(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && !S_ISDIR(about.st_mode);
}

/* The folder that the running program lies in; "" if /proc does not say. */
static void program_directory(char *ret, size_t room)
{
    ssize_t count = readlink("/proc/self/exe", ret, room - 1);
    ret[count > 0 ? count : 0] = '\0';
    char *slash = strrchr(ret, '/');
    if (slash != NULL) *slash = '\0';
}

int plugin_find(const char *machine, const char *base_directory, char *ret_path, size_t room, char *why,
                size_t why_room)
{
    if (machine[0] == '\0')
        return fail(LOCKSTEP_EINVAL, why, why_room,
                    "machine: the name is empty; name one that is shipped, as \"kv\", or a file");
    if (strchr(machine, '/') != NULL) {
        bool absolute = machine[0] == '/';
        int count = snprintf(ret_path, room, "%s%s%s", absolute ? "" : base_directory, absolute ? "" : "/", machine);
        if (count < 0 || (size_t)count >= room)
            return fail(LOCKSTEP_EINVAL, why, why_room, "machine %s: the path is too long; choose a shorter one",
                        machine);
        if (is_file(ret_path)) return 0;
        return fail(LOCKSTEP_ENOTFOUND, why, why_room,
                    "machine %s: there is no file %s; build it first, or name another one", machine, ret_path);
    }
    char beside[PATH_MAX];
    program_directory(beside, sizeof beside);
    const char *places[] = {getenv("LOCKSTEP_MACHINES"), beside, LOCKSTEP_MACHINES_DIRECTORY};
    char tried[2048] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (places[i] == NULL || places[i][0] == '\0') continue;
        int count = snprintf(ret_path, room, "%s/%s.so", places[i], machine);
        if (count < 0 || (size_t)count >= room) continue;
        if (is_file(ret_path)) return 0;
        if (used < sizeof tried)
            used += (size_t)snprintf(tried + used, sizeof tried - used, "%s%s", used > 0 ? ", " : "", places[i]);
    }
    return fail(LOCKSTEP_ENOTFOUND, why, why_room,
                "machine %s: there is no %s.so in %s; set LOCKSTEP_MACHINES, or name a file by a path with a '/'",
                machine, machine, tried);
}
