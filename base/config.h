/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - reads the configuration file: a subset of TOML, into a tree that knows where everything stood.
 * It knows the form only. What a key means, its unit and its range, is its reader's business, who says so in the same
 * words: config_complain() makes `file:line:column: what; what instead` from any value of the tree.
 * Subset: [table] and [table.below] headers, bare and quoted keys, "basic" and 'literal' strings, decimal integers,
 * true and false, arrays (mixed, nested, over several lines), comments. Sizes and durations are strings (base/text.h).
 * Not supported, and said so: dotted keys, inline tables, [[arrays of tables]], floats, dates, multi-line strings.
 * C1  What it accepts, TOML 1.0 accepts, with the same values in the same order.
 * C2  A key or a table header that stands twice is an error.
 * C3  Bounded: bytes, values and depth below. The tree's memory is one piece; nothing else is kept of the text.
 * Thread: any one; the tree is constant once made. */
#ifndef LOCKSTEP_BASE_CONFIG_H
#define LOCKSTEP_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CONFIG_BYTES_MAX = 1 << 20,
    CONFIG_VALUES_MAX = 16384, /* tables, keys and array elements together */
    CONFIG_DEPTH_MAX = 16,     /* names in a table header, arrays in arrays */
    CONFIG_ERROR_BYTES = 512,
};

enum config_type { CONFIG_STRING, CONFIG_INTEGER, CONFIG_BOOLEAN, CONFIG_ARRAY, CONFIG_TABLE };

/* A place in the file, from 1; columns count characters, not bytes. */
struct config_place {
    uint32_t line, column;
};

struct config_value {
    enum config_type type;
    struct config_place place;     /* of the value itself; of the first header that names it for a table */
    struct config_place key_place; /* the same as place in an array and at the root */
    const char *key;               /* UTF-8, ends in NUL; NULL in an array and at the root */
    struct config_value *next;     /* its next neighbour in the same table or array, as written; NULL = last */
    union {
        struct {
            const char *text; /* UTF-8 without NUL inside; ends in NUL */
            size_t bytes;
        } string;
        int64_t integer;
        bool boolean;
        struct {
            struct config_value *first, *last; /* NULL = empty */
            uint32_t count;
            bool by_header; /* a table that a header of its own has opened, not only one of a table below */
        } children;         /* of an array or a table */
    } as;
};

struct config;

/* One line for people, without a newline: `file:line:column: what; what instead`. */
struct config_error {
    char text[CONFIG_ERROR_BYTES];
};

/* name    what errors call the file; copied
 * text    any bytes; not kept
 * ret     the tree, until config_close(); untouched on failure
 * error   filled on failure
 * Errors  LOCKSTEP_EINVAL: not in the subset, or over a limit -> show error->text. LOCKSTEP_ENOMEM.
 * Allocates one piece of a few times `bytes`. */
int config_parse(const char *name, const char *text, size_t bytes, struct config **ret, struct config_error *error);

/* The same from a file. Errors  also LOCKSTEP_EIO: it cannot be read -> error->text says why. */
int config_read(const char *path, struct config **ret, struct config_error *error);

/* Takes NULL. Every value and string of the tree goes with it. */
void config_close(struct config *config);

/* The table of what stands before the first header, and of all tables. Never NULL. */
const struct config_value *config_root(const struct config *config);

/* The name given to config_parse(), or the path. */
const char *config_name(const struct config *config);

/* The value of key in a table, or NULL. O(keys of the table). To visit all in order, follow as.children.first, next. */
const struct config_value *config_find(const struct config_value *table, const char *key);

/* "a string", "a table" and so on, for messages. */
const char *config_type_name(enum config_type type);

/* Fill error with the place and a formatted `what; what instead`. */
void config_complain(const struct config *config, struct config_place place, struct config_error *error,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
