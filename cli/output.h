/* SPDX-License-Identifier: Apache-2.0 */
/* output.h - what the program prints: JSON for programs, tables and rounded numbers for people.
 * Thread: main. Everything goes to standard output unless it says otherwise. */
#ifndef LOCKSTEP_CLI_OUTPUT_H
#define LOCKSTEP_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* --- JSON: one value a line. Commas and the final newline come by themselves. --- */

struct json {
    FILE *to;
    int depth;
    bool comma;
    char closers[16];
};

struct json json_to(FILE *to);
/* key  NULL at the top and in arrays, everywhere below */
void json_object(struct json *json, const char *key);
void json_array(struct json *json, const char *key);
/* Closes the innermost object or array; the outermost ends the line and flushes. */
void json_end(struct json *json);
void json_text(struct json *json, const char *key, const char *text);
void json_number(struct json *json, const char *key, uint64_t value);
void json_signed(struct json *json, const char *key, int64_t value);
void json_decimal(struct json *json, const char *key, double value, int digits);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);
/* 64-bit identities do not fit a JSON number: 16 hex digits as text. */
void json_id(struct json *json, const char *key, uint64_t id);
/* Bytes as text where they are UTF-8, else under KEY_base64. */
void json_bytes(struct json *json, const char *key, const uint8_t *bytes, size_t count);
/* Hex; null for none. */
void json_hash(struct json *json, const char *key, const uint8_t *bytes, size_t count);

/* --- tables: columns as wide as their widest cell --- */

enum { TABLE_COLUMNS_MAX = 16, TABLE_ROWS_MAX = 32, TABLE_CELL_BYTES_MAX = 64 };

struct table {
    int columns, rows; /* the first row is the heading */
    char cells[TABLE_ROWS_MAX][TABLE_COLUMNS_MAX][TABLE_CELL_BYTES_MAX];
};

void table_clear(struct table *table, int columns);
void table_row(struct table *table);
/* The next cell of the last row. */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *table, FILE *to);

/* --- numbers for people; each returns the next of a few static buffers, good for some calls more --- */

const char *show_count(uint64_t value);                   /* 1,234,567 */
const char *show_duration(uint64_t ns);                   /* 280 us, 12.3 ms, 4.56 s */
const char *show_bytes(uint64_t bytes);                   /* 64 B, 1.5 MiB */
const char *show_hex(const uint8_t *bytes, size_t count); /* at most 16 bytes */

/* What a command of the log is for. */
const char *show_command_kind(uint32_t kind);

/* Bytes of a reply for people: as they are to a pipe; control characters and what is no UTF-8 as \xHH to a terminal. */
void show_reply(FILE *to, bool terminal, const uint8_t *bytes, size_t count);

bool is_utf8(const uint8_t *bytes, size_t count);

#endif
