/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - see config.h. One pass, one character of look-ahead, no recursion deeper than CONFIG_DEPTH_MAX.
 * The text is copied first, with \r\n as \n and checked to be UTF-8 without control characters; then parsed. Strings and
 * values come from one arena that is sized from the text: a string is never longer than what it was written as. */
#include "base/config.h"

#include "base/arena.h"
#include "base/assert.h"
#include "lockstep/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct config {
    struct arena arena; /* everything below lives here */
    const char *name;
    struct config_value *root;
};

struct parser {
    struct config *config;
    const char *at, *end;   /* the text still to be read */
    const char *line_start; /* of the line that `at` is in */
    uint32_t line;
    const char *counted; /* place_of() has counted up to here */
    uint32_t counted_column;
    uint32_t values;            /* made so far */
    struct config_value *table; /* that keys go into */
    struct config_error *error;
};

/* One name of a key or header. */
struct name {
    const char *text;
    size_t bytes;
    struct config_place place;
};

/* at lies in the current line. Goes on from the place asked for before, so that a long line is counted once. */
static struct config_place place_of(struct parser *p, const char *at)
{
    if (p->counted < p->line_start || p->counted > at) {
        p->counted = p->line_start;
        p->counted_column = 1;
    }
    for (; p->counted < at; p->counted++) {
        if (((unsigned char)*p->counted & 0xc0) != 0x80) p->counted_column++; /* once each, however many bytes */
    }
    return (struct config_place){p->line, p->counted_column};
}

/* One line, whatever a quoted name holds: control characters become '?'. A text that is too long is cut. */
static void complain(const char *name, struct config_place place, struct config_error *error, const char *format,
                     va_list arguments) __attribute__((format(printf, 4, 0)));
static void complain(const char *name, struct config_place place, struct config_error *error, const char *format,
                     va_list arguments)
{
    int used = snprintf(error->text, sizeof error->text, "%s:%u:%u: ", name, place.line, place.column);
    if (used > 0 && (size_t)used < sizeof error->text) {
        vsnprintf(error->text + used, sizeof error->text - (size_t)used, format, arguments);
    }
    for (char *c = error->text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
}

void config_complain(const struct config *config, struct config_place place, struct config_error *error,
                     const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(config->name, place, error, format, arguments);
    va_end(arguments);
}

/* ret  LOCKSTEP_EINVAL, so that callers write `return fail(...)` */
static int fail_at(struct parser *p, struct config_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int fail_at(struct parser *p, struct config_place place, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(p->config->name, place, p->error, format, arguments);
    va_end(arguments);
    return LOCKSTEP_EINVAL;
}

#define fail(p, ...) fail_at(p, place_of(p, (p)->at), __VA_ARGS__)

/* The next character, or NUL at the end: a NUL in the text was refused before. */
static char peek(const struct parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static bool starts_with(const struct parser *p, const char *prefix)
{
    size_t bytes = strlen(prefix);
    return (size_t)(p->end - p->at) >= bytes && memcmp(p->at, prefix, bytes) == 0;
}

static void skip_blanks(struct parser *p)
{
    while (peek(p) == ' ' || peek(p) == '\t') p->at++;
}

static void skip_newline(struct parser *p)
{
    lk_assert(peek(p) == '\n');
    p->at++;
    p->line++;
    p->line_start = p->at;
}

static void skip_comment(struct parser *p)
{
    if (peek(p) != '#') return;
    while (p->at < p->end && *p->at != '\n') p->at++;
}

/* Blanks, comments and newlines: between the elements of an array. */
static void skip_lines(struct parser *p)
{
    for (;;) {
        skip_blanks(p);
        skip_comment(p);
        if (peek(p) != '\n') return;
        skip_newline(p);
    }
}

static int expect_line_end(struct parser *p, const char *behind)
{
    skip_blanks(p);
    skip_comment(p);
    if (p->at == p->end || *p->at == '\n') return 0;
    return fail(p, "something stands behind %s; begin a new line, or write # before a comment", behind);
}

static int new_value(struct parser *p, enum config_type type, struct config_place place, struct config_value **ret)
{
    if (p->values == CONFIG_VALUES_MAX) {
        return fail_at(p, place, "more than %d values, over the limit; write less", CONFIG_VALUES_MAX);
    }
    p->values++;
    struct config_value *value = arena_allocate(&p->config->arena, sizeof *value);
    lk_assert(value != NULL); /* tree_bytes() counted it */
    memset(value, 0, sizeof *value);
    value->type = type;
    value->place = place;
    value->key_place = place;
    *ret = value;
    return 0;
}

static void append_child(struct config_value *parent, struct config_value *child)
{
    lk_assert(child->next == NULL);
    if (parent->as.children.last == NULL) {
        parent->as.children.first = child;
    } else {
        parent->as.children.last->next = child;
    }
    parent->as.children.last = child;
    parent->as.children.count++;
}

static bool is_name(const struct config_value *value, const struct name *name)
{
    return strncmp(value->key, name->text, name->bytes) == 0 && value->key[name->bytes] == '\0';
}

static struct config_value *find(const struct config_value *table, const struct name *name)
{
    struct config_value *child = table->as.children.first;
    while (child != NULL && !is_name(child, name)) child = child->next;
    return child;
}

/* ---- strings ---- */

static size_t put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char first[] = {0, 0xc0, 0xe0, 0xf0};
    to[0] = (char)(first[more] | code >> (6 * more));
    for (size_t i = 1; i <= more; i++) to[i] = (char)(0x80 | (code >> (6 * (more - i)) & 0x3f));
    return more + 1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* \uXXXX or \UXXXXXXXX; `at` stands on the u. */
static int parse_unicode_escape(struct parser *p, char *to, size_t *ret_bytes)
{
    struct config_place place = place_of(p, p->at - 1);
    int digits = *p->at++ == 'u' ? 4 : 8;
    uint32_t code = 0;
    for (int i = 0; i < digits; i++) {
        int digit = hex_digit(peek(p));
        if (digit < 0) return fail_at(p, place, "an escape with fewer than %d hexadecimal digits; add zeros", digits);
        code = code << 4 | (uint32_t)digit;
        p->at++;
    }
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        return fail_at(p, place, "an escape that is no Unicode character; write one of U+0001 to U+10FFFF");
    }
    if (code == 0) return fail_at(p, place, "a NUL character in a string is not supported; leave it out");
    *ret_bytes = put_utf8(to, code);
    return 0;
}

static int parse_escape(struct parser *p, char *to, size_t *ret_bytes)
{
    lk_assert(peek(p) == '\\');
    p->at++;
    static const char names[] = "btnfr\"\\", meant[] = "\b\t\n\f\r\"\\";
    char c = peek(p);
    if (c == 'u' || c == 'U') return parse_unicode_escape(p, to, ret_bytes);
    const char *known = c != '\0' ? strchr(names, c) : NULL;
    if (known == NULL) {
        p->at--;
        return fail(p, "an unknown escape; write \\\\ for a backslash, or put the string in 'single quotes'");
    }
    *to = meant[known - names];
    *ret_bytes = 1;
    p->at++;
    return 0;
}

/* "basic" or 'literal'; `at` stands on the opening quote. The text comes from the arena and ends in NUL. */
static int parse_string(struct parser *p, const char **ret, size_t *ret_bytes)
{
    char quote = *p->at;
    if (starts_with(p, "\"\"\"") || starts_with(p, "'''")) {
        return fail(p, "multi-line strings are not supported; write a \"string\" on one line, with \\n for a new line");
    }
    struct config_place opened = place_of(p, p->at);
    const char *close = p->at + 1; /* first to the closing quote: how much memory it takes at most */
    while (close < p->end && *close != quote && *close != '\n') close += quote == '"' && *close == '\\' ? 2 : 1;
    if (close >= p->end || *close != quote) {
        return fail_at(p, opened, "a string without its closing quote; write %c at its end", quote);
    }
    char *text = arena_allocate(&p->config->arena, (size_t)(close - p->at));
    lk_assert(text != NULL); /* tree_bytes() counted it */
    size_t bytes = 0;
    p->at++;
    while (p->at < close) {
        size_t piece = 1;
        if (quote == '"' && *p->at == '\\') {
            int rc = parse_escape(p, text + bytes, &piece);
            if (rc != 0) return rc;
        } else {
            text[bytes] = *p->at++;
        }
        bytes += piece;
    }
    lk_assert(p->at == close);
    p->at++;
    text[bytes] = '\0';
    *ret = text;
    *ret_bytes = bytes;
    return 0;
}

/* ---- names ---- */

static bool is_bare(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static int parse_name(struct parser *p, struct name *ret)
{
    ret->place = place_of(p, p->at);
    if (peek(p) == '"' || peek(p) == '\'') return parse_string(p, &ret->text, &ret->bytes);
    const char *start = p->at;
    while (is_bare(peek(p))) p->at++;
    if (p->at == start) return fail(p, "a name is missing; write letters, digits, - and _, or a \"quoted name\"");
    ret->text = start;
    ret->bytes = (size_t)(p->at - start);
    return 0;
}

static void add_named(struct parser *p, struct config_value *table, const struct name *name, struct config_value *value)
{
    value->key_place = name->place;
    char *key = arena_allocate(&p->config->arena, name->bytes + 1);
    lk_assert(key != NULL); /* tree_bytes() counted it */
    memcpy(key, name->text, name->bytes);
    key[name->bytes] = '\0';
    value->key = key;
    append_child(table, value);
}

/* ---- values ---- */

static int parse_value(struct parser *p, uint32_t depth, struct config_value **ret);

static int bad_value(struct parser *p)
{
    return fail(p,
                "this is not a value; write a \"string\", a decimal integer, true, false or an [array] (floats, dates, "
                "inline tables and other number systems are not supported)");
}

static int parse_integer(struct parser *p, struct config_value **ret)
{
    const char *at = p->at, *end = p->at;
    while (end < p->end && (is_bare(*end) || *end == '+' || *end == '.' || *end == ':')) end++; /* the whole word */
    bool negative = *at == '-';
    if (*at == '-' || *at == '+') at++;
    const char *first = at;
    uint64_t limit = (uint64_t)INT64_MAX + (negative ? 1 : 0), number = 0;
    for (bool digit_before = false; at < end; at++) {
        if (*at == '_' && digit_before && at + 1 < end) {
            digit_before = false;
            continue;
        }
        if (*at < '0' || *at > '9') return bad_value(p);
        digit_before = true;
        uint64_t digit = (uint64_t)(*at - '0');
        if (number > (limit - digit) / 10)
            return fail(p, "an integer beyond 64 bits is not supported; write a smaller one");
        number = number * 10 + digit;
    }
    if (at == first) return bad_value(p);
    if (*first == '0' && at - first > 1) return fail(p, "an integer that begins with 0; leave the zeros out");
    int rc = new_value(p, CONFIG_INTEGER, place_of(p, p->at), ret);
    if (rc != 0) return rc;
    (*ret)->as.integer = negative ? (int64_t)(0 - number) : (int64_t)number;
    p->at = end;
    return 0;
}

static int parse_array(struct parser *p, uint32_t depth, struct config_value **ret)
{
    if (depth == CONFIG_DEPTH_MAX)
        return fail(p, "arrays nested deeper than the limit of %d; flatten them", CONFIG_DEPTH_MAX);
    struct config_place opened = place_of(p, p->at);
    int rc = new_value(p, CONFIG_ARRAY, opened, ret);
    if (rc != 0) return rc;
    p->at++;
    for (;;) {
        skip_lines(p);
        if (p->at == p->end) return fail_at(p, opened, "an array without its end; write ] behind the last element");
        if (peek(p) == ']') break;
        struct config_value *element;
        rc = parse_value(p, depth + 1, &element);
        if (rc != 0) return rc;
        append_child(*ret, element);
        skip_lines(p);
        if (peek(p) == ',') {
            p->at++;
        } else if (p->at < p->end && peek(p) != ']') {
            return fail(p, "neither , nor ] stands behind an element of an array; write one of them");
        }
    }
    p->at++;
    return 0;
}

static int parse_value(struct parser *p, uint32_t depth, struct config_value **ret)
{
    struct config_place place = place_of(p, p->at);
    char c = peek(p);
    if (c == '"' || c == '\'') {
        const char *text;
        size_t bytes;
        int rc = parse_string(p, &text, &bytes);
        if (rc == 0) rc = new_value(p, CONFIG_STRING, place, ret);
        if (rc != 0) return rc;
        (*ret)->as.string.text = text;
        (*ret)->as.string.bytes = bytes;
        return 0;
    }
    if (c == '[') return parse_array(p, depth, ret);
    if ((c >= '0' && c <= '9') || c == '+' || c == '-') return parse_integer(p, ret);
    if (starts_with(p, "true") || starts_with(p, "false")) {
        int rc = new_value(p, CONFIG_BOOLEAN, place, ret);
        if (rc != 0) return rc;
        (*ret)->as.boolean = c == 't';
        p->at += c == 't' ? 4 : 5;
        return 0;
    }
    if (c == '\n' || c == '\0' || c == '#') return fail(p, "a value is missing; write one behind the =");
    return bad_value(p);
}

/* ---- lines ---- */

/* key = value */
static int parse_pair(struct parser *p)
{
    struct name name;
    int rc = parse_name(p, &name);
    if (rc != 0) return rc;
    skip_blanks(p);
    if (peek(p) == '.') return fail(p, "dotted keys are not supported; write the key under a [table] header");
    if (peek(p) != '=')
        return fail(p, "no = stands behind the key '%.*s'; write key = value", (int)name.bytes, name.text);
    p->at++;
    skip_blanks(p);
    const struct config_value *earlier = find(p->table, &name);
    if (earlier != NULL) {
        return fail_at(p, name.place, "'%.*s' stands at line %u already; keep one of the two", (int)name.bytes,
                       name.text, earlier->key_place.line);
    }
    struct config_value *value;
    rc = parse_value(p, 0, &value);
    if (rc != 0) return rc;
    add_named(p, p->table, &name, value);
    return expect_line_end(p, "the value");
}

/* Into the table below `table` that has this name, made if it is new. */
static int enter_table(struct parser *p, struct config_value *table, const struct name *name, struct config_value **ret)
{
    struct config_value *below = find(table, name);
    if (below != NULL && below->type != CONFIG_TABLE) {
        return fail_at(p, name->place, "'%.*s' is %s at line %u already; name the table differently", (int)name->bytes,
                       name->text, config_type_name(below->type), below->key_place.line);
    }
    if (below == NULL) {
        int rc = new_value(p, CONFIG_TABLE, name->place, &below);
        if (rc != 0) return rc;
        add_named(p, table, name, below);
    }
    *ret = below;
    return 0;
}

/* [name.name] */
static int parse_header(struct parser *p)
{
    struct config_place opened = place_of(p, p->at);
    if (starts_with(p, "[[")) return fail(p, "arrays of tables are not supported; write [table.NAME] for each");
    p->at++;
    struct config_value *table = p->config->root;
    for (uint32_t depth = 0;; depth++) {
        if (depth == CONFIG_DEPTH_MAX)
            return fail(p, "tables nested deeper than the limit of %d; flatten them", CONFIG_DEPTH_MAX);
        struct name name;
        skip_blanks(p);
        int rc = parse_name(p, &name);
        if (rc == 0) rc = enter_table(p, table, &name, &table);
        if (rc != 0) return rc;
        skip_blanks(p);
        if (peek(p) == ']') break;
        if (peek(p) != '.')
            return fail(p, "neither . nor ] stands behind a table's name; write [name] or [name.below]");
        p->at++;
    }
    p->at++;
    if (table->as.children.by_header) {
        return fail_at(p, opened, "the table [%s] stands at line %u already; put its keys together", table->key,
                       table->place.line);
    }
    table->as.children.by_header = true;
    table->place = opened; /* rather than that of a header of a table below */
    p->table = table;
    return expect_line_end(p, "the table header");
}

static int parse_lines(struct parser *p)
{
    for (;;) {
        skip_lines(p);
        if (p->at == p->end) return 0;
        int rc = peek(p) == '[' ? parse_header(p) : parse_pair(p);
        if (rc != 0) return rc;
    }
}

/* ---- the whole text ---- */

/* The length of the well-formed UTF-8 character at `at`, or 0: no overlong form, no surrogate, none beyond U+10FFFF. */
static size_t utf8_length(const unsigned char *at, size_t room)
{
    if (at[0] < 0x80) return 1;
    size_t length = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc2 || at[0] > 0xf4 || room < length) return 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
    }
    if (at[0] == 0xe0 && at[1] < 0xa0) return 0;
    if (at[0] == 0xed && at[1] > 0x9f) return 0;
    if (at[0] == 0xf0 && at[1] < 0x90) return 0;
    if (at[0] == 0xf4 && at[1] > 0x8f) return 0;
    return length;
}

/* Refuse what may stand nowhere in the text; turn \r\n into \n in place. */
static int clean(struct parser *p, char *text, size_t bytes, size_t *ret_bytes)
{
    size_t kept = 0;
    p->line_start = text;
    for (size_t i = 0; i < bytes;) {
        if (text[i] == '\r' && i + 1 < bytes && text[i + 1] == '\n') i++;
        unsigned char c = (unsigned char)text[i];
        size_t length = utf8_length((const unsigned char *)text + i, bytes - i);
        if (length == 0)
            return fail_at(p, place_of(p, text + kept), "bytes that are not UTF-8; save the file as UTF-8");
        if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7f) {
            return fail_at(p, place_of(p, text + kept),
                           "a control character; remove it, or write it as an escape in a \"string\"");
        }
        memmove(text + kept, text + i, length);
        i += length;
        kept += length;
        if (c == '\n') {
            p->line++;
            p->line_start = text + kept;
        }
    }
    *ret_bytes = kept;
    return 0;
}

/* What the arena must hold, so that no allocation in it can fail. Most of it is never touched. */
static size_t tree_bytes(size_t name_bytes, size_t text_bytes)
{
    size_t values = text_bytes / 2 + 2; /* the root; and a value takes two characters: itself and what ends it */
    if (values > CONFIG_VALUES_MAX) values = CONFIG_VALUES_MAX;
    size_t strings = text_bytes / 2; /* each has two quotes */
    size_t sum = 0;
    sum += name_bytes + 1 + ARENA_ALIGNMENT;
    sum += text_bytes + ARENA_ALIGNMENT;
    sum += values * (sizeof(struct config_value) + ARENA_ALIGNMENT);
    sum += text_bytes + strings * ARENA_ALIGNMENT;    /* strings, never longer than they were written */
    sum += text_bytes + values * ARENA_ALIGNMENT * 2; /* keys, with their NUL */
    return sum;
}

int config_parse(const char *name, const char *text, size_t bytes, struct config **ret, struct config_error *error)
{
    if (bytes > CONFIG_BYTES_MAX) {
        snprintf(error->text, sizeof error->text, "%s:1:1: more than %d bytes, over the limit; write less", name,
                 CONFIG_BYTES_MAX);
        return LOCKSTEP_EINVAL;
    }
    struct config *config = calloc(1, sizeof *config);
    size_t name_bytes = strlen(name);
    if (config == NULL || !arena_open(&config->arena, tree_bytes(name_bytes, bytes))) {
        snprintf(error->text, sizeof error->text, "%s:1:1: out of memory; free some", name);
        free(config);
        return LOCKSTEP_ENOMEM;
    }
    char *name_copy = arena_allocate(&config->arena, name_bytes + 1);
    memcpy(name_copy, name, name_bytes + 1);
    config->name = name_copy;
    char *copy = arena_allocate(&config->arena, bytes);
    if (bytes > 0) memcpy(copy, text, bytes);

    struct parser p = {.config = config, .line = 1, .error = error};
    size_t clean_bytes = 0;
    int rc = clean(&p, copy, bytes, &clean_bytes);
    if (rc == 0) {
        p.at = copy;
        p.end = copy + clean_bytes;
        p.line = 1;
        p.line_start = copy;
        rc = new_value(&p, CONFIG_TABLE, (struct config_place){1, 1}, &config->root);
    }
    if (rc == 0) {
        p.table = config->root;
        rc = parse_lines(&p);
    }
    if (rc != 0) {
        config_close(config);
        return rc;
    }
    *ret = config;
    return 0;
}

/* Up to `room` bytes of the file. */
static int read_all(int fd, char *to, size_t room, size_t *ret_bytes)
{
    size_t bytes = 0;
    while (bytes < room) {
        ssize_t got = read(fd, to + bytes, room - bytes);
        if (got == 0) break;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return LOCKSTEP_EIO;
        bytes += (size_t)got;
    }
    *ret_bytes = bytes;
    return 0;
}

int config_read(const char *path, struct config **ret, struct config_error *error)
{
    int rc = LOCKSTEP_EIO;
    size_t room = CONFIG_BYTES_MAX + 1, bytes = 0; /* one more than allowed: config_parse() refuses it */
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) goto fail_errno;
    text = malloc(room);
    if (text == NULL) goto fail_errno;
    rc = read_all(fd, text, room, &bytes);
    if (rc != 0) goto fail_errno;
    rc = config_parse(path, text, bytes, ret, error);
    goto out;
fail_errno:
    snprintf(error->text, sizeof error->text, "%s: cannot be read: %s; give the path of a readable file", path,
             strerror(errno));
out:
    free(text);
    if (fd >= 0) close(fd);
    return rc;
}

void config_close(struct config *config)
{
    if (config == NULL) return;
    arena_close(&config->arena);
    free(config);
}

const struct config_value *config_root(const struct config *config)
{
    return config->root;
}

const char *config_name(const struct config *config)
{
    return config->name;
}

const struct config_value *config_find(const struct config_value *table, const char *key)
{
    lk_assert(table->type == CONFIG_TABLE);
    return find(table, &(struct name){.text = key, .bytes = strlen(key)});
}

const char *config_type_name(enum config_type type)
{
    switch (type) {
    case CONFIG_STRING: return "a string";
    case CONFIG_INTEGER: return "an integer";
    case CONFIG_BOOLEAN: return "a boolean";
    case CONFIG_ARRAY: return "an array";
    case CONFIG_TABLE: return "a table";
    }
    lk_unreachable();
}
