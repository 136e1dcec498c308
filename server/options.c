/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - the configuration of one node: what its file, its environment and its flags say, checked.
 * Thread: the starting one, before any other. Owns: nothing that outlives the call.
 * O1  flags > environment > file > defaults, key by key. Each value remembers where it came from, so that an error in
 *     two values that do not go together names a place as well.
 * O2  Nothing is created, opened or resolved here: an error leaves no trace.
 * O3  The same file serves every node; only the name differs. Paths are relative to the file. */
#include "server/server.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/config.h"
#include "base/text.h"
#include "lockstep/errors.h"
#include "transport/tcp.h"

enum kind {
    KIND_TEXT,
    KIND_NAME,
    KIND_ADDRESS,
    KIND_LEVEL,
    KIND_BYTES,
    KIND_DURATION,
    KIND_COUNT,
    KIND_SWITCH,
    KIND_AUTO
};

/* A setting: TABLE.KEY, or KEY for what stands before the first table. */
struct setting {
    const char *key;
    enum kind kind;
    size_t offset; /* in struct server_options */
    size_t room;   /* of its text, or of its number: 4 or 8 */
    uint64_t min, max;
    const char *usual; /* NULL = the file has to say it */
};

#define PLACE(member) offsetof(struct server_options, member), sizeof(((struct server_options *)NULL)->member)

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define TIB ((uint64_t)1 << 40)
#define MS  UINT64_C(1000000)

enum {
    CLUSTER,
    MACHINE,
    DURABILITY,
    ELECTION_TIMEOUT,
    HEARTBEAT,
    LEASE_READS,
    COMMAND,
    BLOCK,
    GRPC_MESSAGE,
    RING,
    APPEND_INFLIGHT,
    CONNECTIONS,
    SESSIONS,
    SESSION_EXPIRY,
    MAP,
    JOURNAL,
    JOURNAL_DIR,
    SNAPSHOT_AFTER,
    SNAPSHOT_AGE,
    SHARED_MEMORY,
    SPIN,
    DATA,
    LISTEN_CLIENT,
    LISTEN_PEER,
    SETTINGS,
    SETTINGS_IN_FILE = DATA, /* the last three stand in the node's own table there */
};

static const struct setting settings[SETTINGS] = {
    [CLUSTER] = {"cluster", KIND_NAME, PLACE(node.cluster), 0, 0, NULL},
    [MACHINE] = {"machine", KIND_TEXT, PLACE(machine), 0, 0, NULL},
    [DURABILITY] = {"durability", KIND_LEVEL, PLACE(node.level), 0, 0, "fsync"},
    [ELECTION_TIMEOUT] = {"raft.election_timeout", KIND_DURATION, PLACE(node.election_timeout_ns), 10 * MS, 60000 * MS,
                          "300ms"},
    [HEARTBEAT] = {"raft.heartbeat", KIND_DURATION, PLACE(node.heartbeat_ns), MS, 30000 * MS, "60ms"},
    [LEASE_READS] = {"raft.lease_reads", KIND_SWITCH, PLACE(node.lease_reads), 0, 1, "false"},
    [COMMAND] = {"limits.command", KIND_BYTES, PLACE(node.command_bytes_max), KIB, BLOCK_BYTES_MAX, "1MiB"},
    [BLOCK] = {"limits.block", KIND_BYTES, PLACE(node.block_bytes_max), 4 * KIB, BLOCK_BYTES_MAX, "2MiB"},
    [GRPC_MESSAGE] = {"limits.grpc_message", KIND_BYTES, PLACE(grpc_message_bytes_max), 8 * KIB, 64 * MIB, "4MiB"},
    [RING] = {"limits.ring", KIND_BYTES, PLACE(node.ring_bytes), 8 * MIB, TIB / 4, "64MiB"},
    [APPEND_INFLIGHT] = {"limits.append_inflight", KIND_BYTES, PLACE(node.append_inflight_bytes_max), 64 * KIB, TIB,
                         "16MiB"},
    [CONNECTIONS] = {"limits.connections", KIND_COUNT, PLACE(connections_max), 1, 1000000, "10000"},
    [SESSIONS] = {"limits.sessions", KIND_COUNT, PLACE(node.sessions.sessions_max), 1, SESSIONS_MAX, "65536"},
    [SESSION_EXPIRY] = {"limits.session_expiry", KIND_DURATION, PLACE(node.sessions.expiry_ns), 100 * MS, 86400000 * MS,
                        "60s"},
    [MAP] = {"storage.map", KIND_BYTES, PLACE(node.map_bytes), 64 * MIB, 64 * TIB, "1TiB"},
    [JOURNAL] = {"storage.journal", KIND_BYTES, PLACE(node.journal_bytes), 32 * MIB, TIB, "256MiB"},
    [JOURNAL_DIR] = {"storage.journal_dir", KIND_TEXT, PLACE(node.journal_directory), 0, 0, ""},
    [SNAPSHOT_AFTER] = {"storage.snapshot_after", KIND_BYTES, PLACE(node.snapshot_after_bytes), 4 * KIB, 64 * TIB,
                        "64MiB"},
    [SNAPSHOT_AGE] = {"storage.snapshot_age", KIND_DURATION, PLACE(node.snapshot_age_ns), 1000 * MS,
                      UINT64_C(365) * 86400000 * MS, "24h"},
    [SHARED_MEMORY] = {"transport.shared_memory", KIND_AUTO, PLACE(shared_memory), 0, 1, "auto"},
    [SPIN] = {"transport.spin", KIND_DURATION, PLACE(spin_ns), 0, MS, "0us"},
    [DATA] = {"data", KIND_TEXT, PLACE(node.data_directory), 0, 0, NULL},
    [LISTEN_CLIENT] = {"listen_client", KIND_ADDRESS, PLACE(listen_client), 0, 0, NULL},
    [LISTEN_PEER] = {"listen_peer", KIND_ADDRESS, PLACE(listen_peer), 0, 0, NULL},
};
static_assert(RAFT_MEMBERS_MAX == 16, "said so in a message");

enum { PROPOSALS_MAX = 65536, QUERIES_MAX = 16384 };

enum origin { ORIGIN_USUAL, ORIGIN_FILE, ORIGIN_ENVIRONMENT, ORIGIN_FLAG };

struct source {
    enum origin origin;
    const char *key;           /* ENVIRONMENT, FLAG */
    struct config_place place; /* FILE */
};

struct reader {
    const struct config *config;
    struct server_options *options;
    struct source sources[SETTINGS];
    struct source client[RAFT_MEMBERS_MAX], peer[RAFT_MEMBERS_MAX];
    const struct config_value *nodes[RAFT_MEMBERS_MAX];
    char *why;
};

static void environment_name(const char *key, char ret[64])
{
    int at = snprintf(ret, 64, "LOCKSTEP_");
    for (; *key != 0; key++) ret[at++] = *key == '.' ? '_' : (char)toupper((unsigned char)*key);
    ret[at] = 0;
}

/* `source: what; what instead` into why. Always EINVAL. */
__attribute__((format(printf, 3, 4))) static int complain(struct reader *reader, const struct source *source,
                                                          const char *format, ...)
{
    char text[CONFIG_ERROR_BYTES], name[64];
    struct config_error error;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    switch (source->origin) {
    case ORIGIN_FILE:
        config_complain(reader->config, source->place, &error, "%s", text);
        (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "%s", error.text);
        break;
    case ORIGIN_ENVIRONMENT:
        environment_name(source->key, name);
        (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "%s: %s", name, text);
        break;
    case ORIGIN_FLAG: (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "--%s: %s", source->key, text); break;
    case ORIGIN_USUAL: /* a default that does not go with another value: the file is where to say more */
        (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "%s: %s", config_name(reader->config), text);
        break;
    }
    return LOCKSTEP_EINVAL;
}

static struct source in_file(struct config_place place)
{
    return (struct source){.origin = ORIGIN_FILE, .place = place};
}

/* --- one value --- */

struct number_text {
    char text[32];
};

/* As people write it: the largest unit that leaves a whole number. */
static struct number_text number_write(enum kind kind, uint64_t value)
{
    static const struct {
        const char *name;
        uint64_t factor;
    } bytes[] = {{"TiB", TIB}, {"GiB", KIB * MIB}, {"MiB", MIB}, {"KiB", KIB}, {"B", 1}},
      durations[] = {{"s", 1000 * MS}, {"ms", MS}, {"us", 1000}, {"ns", 1}};
    struct number_text ret;
    if (kind == KIND_COUNT) {
        (void)snprintf(ret.text, sizeof ret.text, "%llu", (unsigned long long)value);
        return ret;
    }
    size_t i = 0;
    const char *name;
    if (kind == KIND_BYTES) {
        while (value % bytes[i].factor != 0) i++;
        value /= bytes[i].factor;
        name = bytes[i].name;
    } else {
        while (value % durations[i].factor != 0) i++;
        value /= durations[i].factor;
        name = durations[i].name;
    }
    (void)snprintf(ret.text, sizeof ret.text, "%llu%s", (unsigned long long)value, name);
    return ret;
}

static bool name_ok(const char *text)
{
    size_t length = strlen(text);
    return length > 0 && length < IDENTITY_NAME_BYTES_MAX &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == length &&
           text[0] != '.' && text[0] != '-';
}

#define NAME_FORM "use 1 to 63 letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'"

static int address_check(struct reader *reader, const struct source *source, const char *key, const char *text)
{
    char host[256], port[8];
    if (!tcp_address_split(text, host, port))
        return complain(reader, source, "%s is \"%s\"; write HOST:PORT, such as \"127.0.0.1:7401\" or \"[::1]:7401\"",
                        key, text);
    if (strtoul(port, NULL, 10) == 0)
        return complain(reader, source, "%s has port 0; write the port that others can connect to", key);
    return 0;
}

static int text_store(struct reader *reader, const struct source *source, const char *key, const char *text, void *to,
                      size_t room)
{
    if (strlen(text) >= room) return complain(reader, source, "%s is longer than %zu bytes; shorten it", key, room - 1);
    memcpy(to, text, strlen(text) + 1);
    return 0;
}

static int number_store(struct reader *reader, const struct source *source, const struct setting *setting,
                        const char *text, void *to)
{
    uint64_t value;
    bool parsed = false;
    const char *form = "a whole number, such as 10000";
    switch (setting->kind) {
    case KIND_BYTES:
        parsed = text_parse_bytes(text, &value);
        form = TEXT_BYTES_FORM;
        break;
    case KIND_DURATION:
        parsed = text_parse_duration(text, &value);
        form = TEXT_DURATION_FORM;
        break;
    default: parsed = text_parse_u64(text, &value); break;
    }
    if (!parsed) return complain(reader, source, "%s is \"%s\"; write %s", setting->key, text, form);
    if (value < setting->min || value > setting->max)
        return complain(reader, source, "%s is %s; it can be %s to %s", setting->key, text,
                        number_write(setting->kind, setting->min).text, number_write(setting->kind, setting->max).text);
    if (setting->room == sizeof(uint32_t)) {
        uint32_t narrow = (uint32_t)value;
        memcpy(to, &narrow, sizeof narrow);
    } else {
        memcpy(to, &value, sizeof value);
    }
    return 0;
}

static int level_store(struct reader *reader, const struct source *source, const char *text, enum durability_level *to)
{
    if (strcmp(text, "fsync") == 0)
        *to = DURABILITY_LEVEL_FSYNC;
    else if (strcmp(text, "os") == 0)
        *to = DURABILITY_LEVEL_OS;
    else if (strcmp(text, "memory") == 0)
        *to = DURABILITY_LEVEL_MEMORY;
    else
        return complain(reader, source, "durability is \"%s\"; write \"fsync\", \"os\" or \"memory\"", text);
    return 0;
}

static int switch_store(struct reader *reader, const struct source *source, const char *key, const char *text, bool *to)
{
    *to = strcmp(text, "true") == 0;
    if (*to || strcmp(text, "false") == 0) return 0;
    return complain(reader, source, "%s is \"%s\"; write true or false", key, text);
}

static int auto_store(struct reader *reader, const struct source *source, const char *key, const char *text, bool *to)
{
    *to = strcmp(text, "auto") == 0;
    if (*to || strcmp(text, "off") == 0) return 0;
    return complain(reader, source, "%s is \"%s\"; write \"auto\" or \"off\"", key, text);
}

static int setting_apply(struct reader *reader, unsigned number, const char *text, struct source source)
{
    const struct setting *setting = &settings[number];
    void *to = (uint8_t *)reader->options + setting->offset;
    int rc = 0;
    switch (setting->kind) {
    case KIND_NAME:
        if (!name_ok(text)) return complain(reader, &source, "%s is \"%s\"; " NAME_FORM, setting->key, text);
        rc = text_store(reader, &source, setting->key, text, to, setting->room);
        break;
    case KIND_ADDRESS:
        rc = address_check(reader, &source, setting->key, text);
        if (rc == 0) rc = text_store(reader, &source, setting->key, text, to, setting->room);
        break;
    case KIND_TEXT:
        if (*text == 0 && source.origin != ORIGIN_USUAL)
            return complain(reader, &source, "%s is empty; leave it out or give it a value", setting->key);
        rc = text_store(reader, &source, setting->key, text, to, setting->room);
        break;
    case KIND_LEVEL: rc = level_store(reader, &source, text, to); break;
    case KIND_AUTO: rc = auto_store(reader, &source, setting->key, text, to); break;
    case KIND_SWITCH: rc = switch_store(reader, &source, setting->key, text, to); break;
    default: rc = number_store(reader, &source, setting, text, to); break;
    }
    if (rc == 0) reader->sources[number] = source;
    return rc;
}

/* --- the file --- */

/* `did you mean "x"?` or the list of what there is. */
struct hint {
    char text[440]; /* all settings and the sentence around them fit into an error's text */
};

static const char hint_more[] = ", ...";

/* One more word of a list; of words that do not fit any more, all that is said is that there are some. */
static void hint_add(struct hint *hint, const char *separator, const char *word)
{
    size_t used = strlen(hint->text), more = sizeof hint_more - 1;
    if (used >= more && strcmp(hint->text + used - more, hint_more) == 0) return;
    bool fits = used + strlen(separator) + strlen(word) + more < sizeof hint->text;
    (void)snprintf(hint->text + used, sizeof hint->text - used, "%s%s", fits ? separator : hint_more, fits ? word : "");
}

static struct hint hint_of(const char *word, const char *const *words, size_t count)
{
    struct hint ret = {""};
    const char *nearest = text_nearest(word, words, count);
    if (nearest != NULL)
        (void)snprintf(ret.text, sizeof ret.text, "did you mean \"%s\"?", nearest);
    else
        for (size_t i = 0; i < count; i++) hint_add(&ret, i == 0 ? "there is " : ", ", words[i]);
    return ret;
}

/* Keys of one table: what stands behind "TABLE." in the settings, or without a dot for "". */
static size_t keys_of(const char *table, const char *ret[SETTINGS])
{
    size_t count = 0, length = strlen(table);
    for (unsigned i = 0; i < SETTINGS_IN_FILE; i++) {
        const char *key = settings[i].key;
        const char *dot = strchr(key, '.');
        if (length == 0 && dot == NULL) ret[count++] = key;
        if (length > 0 && dot == key + length && strncmp(key, table, length) == 0) ret[count++] = dot + 1;
    }
    return count;
}

static int value_apply(struct reader *reader, unsigned number, const struct config_value *value)
{
    const struct setting *setting = &settings[number];
    char digits[32];
    const char *text = digits;
    if (setting->kind == KIND_COUNT && value->type == CONFIG_INTEGER) {
        (void)snprintf(digits, sizeof digits, "%lld", (long long)value->as.integer);
    } else if (setting->kind == KIND_SWITCH && value->type == CONFIG_BOOLEAN) {
        text = value->as.boolean ? "true" : "false";
    } else if (setting->kind != KIND_COUNT && setting->kind != KIND_SWITCH && value->type == CONFIG_STRING) {
        text = value->as.string.text;
    } else {
        const char *form = "a string";
        if (setting->kind == KIND_COUNT) form = "a whole number without quotes";
        if (setting->kind == KIND_SWITCH) form = "true or false, without quotes";
        if (setting->kind == KIND_BYTES) form = TEXT_BYTES_FORM;
        if (setting->kind == KIND_DURATION) form = TEXT_DURATION_FORM;
        struct source source = in_file(value->place);
        return complain(reader, &source, "%s is %s; write %s", setting->key, config_type_name(value->type), form);
    }
    return setting_apply(reader, number, text, in_file(value->place));
}

static int table_read(struct reader *reader, const struct config_value *table)
{
    for (const struct config_value *value = table->as.children.first; value != NULL; value = value->next) {
        char key[128];
        (void)snprintf(key, sizeof key, "%s.%s", table->key, value->key);
        unsigned i = 0;
        while (i < SETTINGS_IN_FILE && strcmp(settings[i].key, key) != 0) i++;
        if (i == SETTINGS_IN_FILE) {
            const char *keys[SETTINGS];
            size_t count = keys_of(table->key, keys);
            struct source source = in_file(value->key_place);
            return complain(reader, &source, "[%s] has no key \"%.64s\"; %s", table->key, value->key,
                            hint_of(value->key, keys, count).text);
        }
        int rc = value_apply(reader, i, value);
        if (rc != 0) return rc;
    }
    return 0;
}

static int node_read(struct reader *reader, const struct config_value *table)
{
    static const char *const keys[] = {"client", "peer", "data", "listen_client", "listen_peer"};
    struct node_options *node = &reader->options->node;
    struct source source = in_file(table->key_place);
    if (table->type != CONFIG_TABLE)
        return complain(reader, &source, "[node] has a key \"%.64s\"; a node is a table of its own: [node.NAME]",
                        table->key);
    if (!name_ok(table->key)) return complain(reader, &source, "node name \"%.80s\"; " NAME_FORM, table->key);
    if (node->member_count == RAFT_MEMBERS_MAX)
        return complain(reader, &source, "more than 16 nodes; a cluster has 1 to 16, usually 3 or 5");

    unsigned slot = node->member_count++;
    struct node_member_options *member = &node->members[slot];
    reader->nodes[slot] = table;
    (void)snprintf(member->name, sizeof member->name, "%s", table->key);
    for (const struct config_value *value = table->as.children.first; value != NULL; value = value->next) {
        size_t i = 0;
        while (i < 5 && strcmp(keys[i], value->key) != 0) i++;
        source = in_file(value->key_place);
        if (i == 5)
            return complain(reader, &source, "[node.%s] has no key \"%.64s\"; %s", table->key, value->key,
                            hint_of(value->key, keys, 5).text);
        source = in_file(value->place);
        if (value->type != CONFIG_STRING)
            return complain(reader, &source, "%s is %s; write a string", value->key, config_type_name(value->type));
        if (i >= 2) continue; /* this node's alone are read when it is known which one that is */
        int rc = address_check(reader, &source, value->key, value->as.string.text);
        if (rc == 0)
            rc = text_store(reader, &source, value->key, value->as.string.text, i == 0 ? member->client : member->peer,
                            NODE_ADDRESS_BYTES_MAX);
        if (rc != 0) return rc;
        *(i == 0 ? &reader->client[slot] : &reader->peer[slot]) = source;
    }
    source = in_file(table->place);
    if (member->client[0] == 0)
        return complain(reader, &source, "[node.%s] has no client; write client = \"HOST:PORT\"", table->key);
    if (member->peer[0] == 0)
        return complain(reader, &source, "[node.%s] has no peer; write peer = \"HOST:PORT\"", table->key);
    if (config_find(table, "data") == NULL)
        return complain(reader, &source, "[node.%s] has no data; write data = \"FOLDER\"", table->key);
    return 0;
}

static int file_read(struct reader *reader)
{
    static const char *const tables[] = {"node", "raft", "limits", "storage", "transport"};
    const size_t table_count = sizeof tables / sizeof *tables;
    const struct config_value *root = config_root(reader->config);
    for (const struct config_value *value = root->as.children.first; value != NULL; value = value->next) {
        struct source source = in_file(value->key_place);
        int rc = 0;
        if (value->type == CONFIG_TABLE) {
            size_t i = 0;
            while (i < table_count && strcmp(tables[i], value->key) != 0) i++;
            if (i == table_count)
                return complain(reader, &source, "there is no table [%.64s]; %s", value->key,
                                hint_of(value->key, tables, table_count).text);
            if (i > 0)
                rc = table_read(reader, value);
            else
                for (const struct config_value *node = value->as.children.first; node != NULL && rc == 0;
                     node = node->next)
                    rc = node_read(reader, node);
        } else {
            unsigned i = 0;
            while (i < SETTINGS_IN_FILE && strcmp(settings[i].key, value->key) != 0) i++;
            if (i == SETTINGS_IN_FILE) {
                const char *keys[SETTINGS];
                size_t count = keys_of("", keys);
                return complain(reader, &source, "there is no key \"%.64s\" before the first table; %s", value->key,
                                hint_of(value->key, keys, count).text);
            }
            rc = value_apply(reader, i, value);
        }
        if (rc != 0) return rc;
    }
    return 0;
}

/* --- environment and flags --- */

static bool is_overridden(const char *key, const struct server_override *overrides, size_t count)
{
    for (size_t o = 0; o < count; o++)
        if (strcmp(overrides[o].key, key) == 0) return true;
    return false;
}

/* What a flag overrides is not looked at. */
static int environment_read(struct reader *reader, const struct server_override *overrides, size_t count)
{
    for (unsigned i = 0; i < SETTINGS; i++) {
        char name[64];
        environment_name(settings[i].key, name);
        const char *text = getenv(name);
        if (text == NULL || is_overridden(settings[i].key, overrides, count)) continue;
        int rc = setting_apply(reader, i, text, (struct source){.origin = ORIGIN_ENVIRONMENT, .key = settings[i].key});
        if (rc != 0) return rc;
    }
    const char *faults = getenv("LOCKSTEP_FAULTS");
    const struct source source = {.origin = ORIGIN_ENVIRONMENT, .key = "faults"};
    if (faults == NULL) return 0;
    return text_store(reader, &source, "faults", faults, reader->options->faults, sizeof reader->options->faults);
}

static int overrides_read(struct reader *reader, const struct server_override *overrides, size_t count)
{
    for (size_t o = 0; o < count; o++) {
        const struct source source = {.origin = ORIGIN_FLAG, .key = overrides[o].key};
        const char *keys[SETTINGS];
        unsigned i = 0;
        for (unsigned k = 0; k < SETTINGS; k++) keys[k] = settings[k].key;
        while (i < SETTINGS && strcmp(settings[i].key, overrides[o].key) != 0) i++;
        if (i == SETTINGS)
            return complain(reader, &source, "there is no such setting; %s",
                            hint_of(overrides[o].key, keys, SETTINGS).text);
        int rc = setting_apply(reader, i, overrides[o].value, source);
        if (rc != 0) return rc;
    }
    return 0;
}

/* --- who this is, and what goes together --- */

static struct hint member_names(const struct node_options *node)
{
    struct hint ret = {""};
    for (unsigned i = 0; i < node->member_count; i++) hint_add(&ret, i == 0 ? "" : ", ", node->members[i].name);
    return ret;
}

static int self_find(struct reader *reader, const char *name)
{
    struct node_options *node = &reader->options->node;
    const char *file = config_name(reader->config);
    if (name == NULL) name = getenv("LOCKSTEP_NODE");
    if (node->member_count == 0) {
        (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "%s: no nodes; write a table [node.NAME] for each", file);
        return LOCKSTEP_EINVAL;
    }
    if (name == NULL && node->member_count == 1) name = node->members[0].name;
    if (name == NULL) {
        (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "%s: which node is this? say --node NAME, one of %s", file,
                       member_names(node).text);
        return LOCKSTEP_EINVAL;
    }
    while (node->self < node->member_count && strcmp(node->members[node->self].name, name) != 0) node->self++;
    if (node->self == node->member_count) {
        (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "%s: there is no [node.%.64s]; say --node with one of %s",
                       file, name, member_names(node).text);
        return LOCKSTEP_EINVAL;
    }
    const struct config_value *table = reader->nodes[node->self];
    struct node_member_options *self = &node->members[node->self];
    int rc = 0;
    for (unsigned i = SETTINGS_IN_FILE; i < SETTINGS && rc == 0; i++) {
        const struct config_value *value = config_find(table, settings[i].key);
        if (value != NULL)
            rc = setting_apply(reader, i, value->as.string.text, in_file(value->place));
        else if (i == LISTEN_CLIENT)
            rc = setting_apply(reader, i, self->client, reader->client[node->self]);
        else
            rc = setting_apply(reader, i, self->peer, reader->peer[node->self]);
    }
    return rc;
}

static int addresses_check(struct reader *reader)
{
    const struct node_options *node = &reader->options->node;
    for (unsigned a = 0; a < 2 * node->member_count; a++)
        for (unsigned b = 0; b < a; b++) {
            const struct node_member_options *one = &node->members[a / 2], *other = &node->members[b / 2];
            const char *mine = a % 2 == 0 ? one->client : one->peer;
            const char *yours = b % 2 == 0 ? other->client : other->peer;
            if (strcmp(mine, yours) != 0) continue;
            const struct source *source = a % 2 == 0 ? &reader->client[a / 2] : &reader->peer[a / 2];
            return complain(reader, source, "%s is the %s address of node %s too; give each its own", mine,
                            b % 2 == 0 ? "client" : "peer", other->name);
        }
    return 0;
}

/* The one of two settings that the user wrote last is the one to complain of. */
static const struct source *blame(const struct reader *reader, unsigned a, unsigned b)
{
    return reader->sources[a].origin >= reader->sources[b].origin ? &reader->sources[a] : &reader->sources[b];
}

static int together_check(struct reader *reader)
{
    const struct server_options *o = reader->options;
    const struct node_options *n = &o->node;
    if (n->heartbeat_ns >= n->election_timeout_ns)
        return complain(reader, blame(reader, HEARTBEAT, ELECTION_TIMEOUT),
                        "raft.heartbeat %s is not below raft.election_timeout %s; a fifth of it is usual",
                        number_write(KIND_DURATION, n->heartbeat_ns).text,
                        number_write(KIND_DURATION, n->election_timeout_ns).text);
    if (BLOCK_HEADER_BYTES + command_bytes(n->command_bytes_max) > n->block_bytes_max)
        return complain(reader, blame(reader, COMMAND, BLOCK),
                        "limits.command %s does not fit into limits.block %s with its headers; command < block",
                        number_write(KIND_BYTES, n->command_bytes_max).text,
                        number_write(KIND_BYTES, n->block_bytes_max).text);
    if (n->block_bytes_max >= o->grpc_message_bytes_max)
        return complain(reader, blame(reader, BLOCK, GRPC_MESSAGE),
                        "limits.block %s is not below limits.grpc_message %s; command < block < grpc_message",
                        number_write(KIND_BYTES, n->block_bytes_max).text,
                        number_write(KIND_BYTES, o->grpc_message_bytes_max).text);
    if ((n->ring_bytes & (n->ring_bytes - 1)) != 0)
        return complain(reader, &reader->sources[RING], "limits.ring %s is no power of two; take %s",
                        number_write(KIND_BYTES, n->ring_bytes).text,
                        number_write(KIND_BYTES, (uint64_t)1 << (63 - __builtin_clzll(n->ring_bytes))).text);
    if (n->ring_bytes / 4 < n->block_bytes_max) /* R10: uncommitted bytes are at most a quarter of the ring */
        return complain(reader, blame(reader, RING, BLOCK),
                        "limits.block %s is more than a quarter of limits.ring %s; make the ring larger",
                        number_write(KIND_BYTES, n->block_bytes_max).text,
                        number_write(KIND_BYTES, n->ring_bytes).text);
    if (n->journal_bytes / 4 < n->ring_bytes)
        return complain(reader, blame(reader, JOURNAL, RING),
                        "storage.journal %s is less than four times limits.ring %s; make it at least %s",
                        number_write(KIND_BYTES, n->journal_bytes).text, number_write(KIND_BYTES, n->ring_bytes).text,
                        number_write(KIND_BYTES, 4 * n->ring_bytes).text);
    if (n->level == DURABILITY_LEVEL_MEMORY && n->journal_directory[0] != 0)
        return complain(reader, blame(reader, JOURNAL_DIR, DURABILITY),
                        "storage.journal_dir is \"%s\", but durability \"memory\" keeps no journal; leave it out",
                        n->journal_directory);
    return 0;
}

/* --- paths --- */

static int path_join(struct reader *reader, const struct source *source, char *path, size_t room)
{
    char joined[2 * 4096];
    if (path[0] == '/') return 0;
    (void)snprintf(joined, sizeof joined, "%s/%s", reader->options->base_directory, path);
    return text_store(reader, source, "path", joined, path, room);
}

static int paths_resolve(struct reader *reader, const char *config_path)
{
    struct server_options *o = reader->options;
    struct node_options *n = &o->node;
    const char *slash = strrchr(config_path, '/');
    if (slash == NULL)
        (void)snprintf(o->base_directory, sizeof o->base_directory, ".");
    else if (slash == config_path)
        (void)snprintf(o->base_directory, sizeof o->base_directory, "/");
    else
        (void)snprintf(o->base_directory, sizeof o->base_directory, "%.*s", (int)(slash - config_path), config_path);
    int rc = path_join(reader, &reader->sources[DATA], n->data_directory, sizeof n->data_directory);
    if (rc != 0 || n->journal_directory[0] == 0) return rc;
    /* The file is the same for all nodes, which may share a host and this disk: each has a folder of its own there. */
    char own[sizeof n->journal_directory + IDENTITY_NAME_BYTES_MAX];
    (void)snprintf(own, sizeof own, "%s/%s", n->journal_directory, n->members[n->self].name);
    rc = text_store(reader, &reader->sources[JOURNAL_DIR], "storage.journal_dir", own, n->journal_directory,
                    sizeof n->journal_directory);
    if (rc != 0) return rc;
    return path_join(reader, &reader->sources[JOURNAL_DIR], n->journal_directory, sizeof n->journal_directory);
}

/* --- all of it --- */

static int required_check(struct reader *reader)
{
    static const unsigned required[] = {CLUSTER, MACHINE};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        const struct setting *setting = &settings[required[i]];
        if (*((const char *)reader->options + setting->offset) != 0) continue;
        (void)snprintf(reader->why, SERVER_WHY_BYTES_MAX, "%s: no %s; write %s = \"NAME\" before the first table",
                       config_name(reader->config), setting->key, setting->key);
        return LOCKSTEP_EINVAL;
    }
    return 0;
}

int server_options_read(const char *path, const char *node_name, const struct server_override *overrides,
                        size_t override_count, struct server_options *ret, char why[SERVER_WHY_BYTES_MAX])
{
    struct config *config = NULL;
    struct config_error error;
    struct server_options *options = calloc(1, sizeof *options); /* large for a stack, and ret only on success */
    struct reader *reader = calloc(1, sizeof *reader);
    int rc = LOCKSTEP_ENOMEM;
    (void)snprintf(why, SERVER_WHY_BYTES_MAX, "%s: out of memory", path);
    if (options == NULL || reader == NULL) goto out;
    rc = config_read(path, &config, &error);
    if (rc != 0) {
        if (rc != LOCKSTEP_ENOMEM) (void)snprintf(why, SERVER_WHY_BYTES_MAX, "%s", error.text);
        goto out;
    }
    reader->config = config;
    reader->options = options;
    reader->why = why;
    options->node.proposals_max = PROPOSALS_MAX;
    options->node.queries_max = QUERIES_MAX;
    options->node.sessions = session_limits_usual();
    for (unsigned i = 0; i < SETTINGS; i++) {
        if (settings[i].usual == NULL) continue;
        rc = setting_apply(reader, i, settings[i].usual, (struct source){.origin = ORIGIN_USUAL});
        lk_assert(rc == 0);
    }
    rc = file_read(reader);
    if (rc == 0) rc = self_find(reader, node_name);
    if (rc == 0) rc = environment_read(reader, overrides, override_count);
    if (rc == 0) rc = overrides_read(reader, overrides, override_count);
    if (rc == 0) rc = required_check(reader);
    if (rc == 0) rc = addresses_check(reader);
    if (rc == 0) rc = together_check(reader);
    if (rc == 0) rc = paths_resolve(reader, path);
    if (rc != 0) goto out;
    why[0] = 0;
    *ret = *options;
out:
    config_close(config);
    free(reader);
    free(options);
    return rc;
}

void server_epoch_options(const struct server_options *options, uint64_t cluster_id, uint64_t random_id,
                          struct epoch_options *ret)
{
    const struct node_options *o = &options->node;
    const struct node_member_options *self = &o->members[o->self];
    *ret = (struct epoch_options){
        .storage = {.directory = o->data_directory,
                    .journal_directory = o->journal_directory[0] != 0 ? o->journal_directory : NULL,
                    .ring_bytes = o->ring_bytes,
                    .journal_bytes = o->journal_bytes,
                    .map_bytes = o->map_bytes,
                    .block_bytes_max = BLOCK_BYTES_MAX,
                    .keep_bytes = UINT64_MAX, /* nothing is compacted: the node does that by its own rules */
                    .disk = disk_posix(),
                    .kv = kv_lmdb()},
        .cluster = o->cluster,
        .node = self->name,
        .client = self->client,
        .peer = self->peer,
        .cluster_id = cluster_id,
        .random_id = random_id};
}
