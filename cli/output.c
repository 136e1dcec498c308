/* SPDX-License-Identifier: Apache-2.0 */
/* output.c - see output.h. */
#include "cli/output.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/assert.h"
#include "lockstep/client.h"

/* --- UTF-8 --- */

/* Bytes of the character at `at`, 0 if there is none: overlong forms, surrogates and what is above 10FFFF are none. */
static size_t character_bytes(const uint8_t *at, const uint8_t *end)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (at[0] < 0x80) return 1;
    size_t bytes = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc0 ? 2 : 0;
    if (bytes == 0 || at[0] > 0xf7 || (size_t)(end - at) < bytes) return 0;
    uint32_t value = at[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
        value = value << 6 | (at[i] & 0x3fu);
    }
    if (value < smallest[bytes] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return 0;
    return bytes;
}

bool is_utf8(const uint8_t *bytes, size_t count)
{
    const uint8_t *end = bytes + count;
    while (bytes < end) {
        size_t n = character_bytes(bytes, end);
        if (n == 0) return false;
        bytes += n;
    }
    return true;
}

/* --- JSON --- */

struct json json_to(FILE *to)
{
    return (struct json){.to = to};
}

static void write_string(FILE *to, const uint8_t *bytes, size_t count)
{
    fputc('"', to);
    const uint8_t *end = bytes + count;
    while (bytes < end) {
        size_t n = character_bytes(bytes, end);
        if (n > 1) {
            fwrite(bytes, n, 1, to);
        } else if (n == 0) {
            fputs("\xef\xbf\xbd", to); /* U+FFFD: names and texts of others may hold anything */
        } else if (bytes[0] == '"' || bytes[0] == '\\') {
            fprintf(to, "\\%c", bytes[0]);
        } else if (bytes[0] == '\n') {
            fputs("\\n", to);
        } else if (bytes[0] < 0x20 || bytes[0] == 0x7f) {
            fprintf(to, "\\u%04x", bytes[0]);
        } else {
            fputc(bytes[0], to);
        }
        bytes += n > 0 ? n : 1;
    }
    fputc('"', to);
}

static void begin(struct json *json, const char *key)
{
    if (json->comma) fputs(", ", json->to);
    json->comma = true;
    if (key == NULL) return;
    write_string(json->to, (const uint8_t *)key, strlen(key));
    fputs(": ", json->to);
}

static void open_with(struct json *json, const char *key, char opener, char closer)
{
    lk_assert(json->depth < (int)sizeof json->closers);
    begin(json, key);
    fputc(opener, json->to);
    json->closers[json->depth++] = closer;
    json->comma = false;
}

void json_object(struct json *json, const char *key)
{
    open_with(json, key, '{', '}');
}

void json_array(struct json *json, const char *key)
{
    open_with(json, key, '[', ']');
}

void json_end(struct json *json)
{
    lk_assert(json->depth > 0);
    fputc(json->closers[--json->depth], json->to);
    json->comma = true;
    if (json->depth > 0) return;
    json->comma = false;
    fputc('\n', json->to);
    fflush(json->to);
}

void json_text(struct json *json, const char *key, const char *text)
{
    begin(json, key);
    write_string(json->to, (const uint8_t *)text, strlen(text));
}

void json_number(struct json *json, const char *key, uint64_t value)
{
    begin(json, key);
    fprintf(json->to, "%" PRIu64, value);
}

void json_signed(struct json *json, const char *key, int64_t value)
{
    begin(json, key);
    fprintf(json->to, "%" PRId64, value);
}

void json_decimal(struct json *json, const char *key, double value, int digits)
{
    begin(json, key);
    fprintf(json->to, "%.*f", digits, value);
}

void json_bool(struct json *json, const char *key, bool value)
{
    begin(json, key);
    fputs(value ? "true" : "false", json->to);
}

void json_null(struct json *json, const char *key)
{
    begin(json, key);
    fputs("null", json->to);
}

void json_id(struct json *json, const char *key, uint64_t id)
{
    char text[20];
    snprintf(text, sizeof text, "%016" PRIx64, id);
    json_text(json, key, text);
}

static void write_base64(FILE *to, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    fputc('"', to);
    for (size_t i = 0; i < count; i += 3) {
        size_t left = count - i;
        uint32_t three = (uint32_t)bytes[i] << 16;
        if (left > 1) three |= (uint32_t)bytes[i + 1] << 8;
        if (left > 2) three |= bytes[i + 2];
        fputc(digits[three >> 18], to);
        fputc(digits[three >> 12 & 63], to);
        fputc(left > 1 ? digits[three >> 6 & 63] : '=', to);
        fputc(left > 2 ? digits[three & 63] : '=', to);
    }
    fputc('"', to);
}

void json_bytes(struct json *json, const char *key, const uint8_t *bytes, size_t count)
{
    if (is_utf8(bytes, count)) {
        begin(json, key);
        write_string(json->to, bytes, count);
        return;
    }
    char name[64];
    snprintf(name, sizeof name, "%s_base64", key);
    begin(json, name);
    write_base64(json->to, bytes, count);
}

void json_hash(struct json *json, const char *key, const uint8_t *bytes, size_t count)
{
    if (count == 0)
        json_null(json, key);
    else
        json_text(json, key, show_hex(bytes, count));
}

/* --- tables --- */

void table_clear(struct table *table, int columns)
{
    lk_assert(columns <= TABLE_COLUMNS_MAX);
    memset(table, 0, sizeof *table);
    table->columns = columns;
}

void table_row(struct table *table)
{
    lk_assert(table->rows < TABLE_ROWS_MAX);
    table->rows++;
}

void table_cell(struct table *table, const char *format, ...)
{
    lk_assert(table->rows > 0);
    int column = 0;
    while (column < table->columns && table->cells[table->rows - 1][column][0] != 0) column++;
    lk_assert(column < table->columns);
    char *cell = table->cells[table->rows - 1][column];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cell, TABLE_CELL_BYTES_MAX, format, arguments);
    va_end(arguments);
    if (cell[0] == 0) memcpy(cell, "-", 2); /* an empty cell would be taken for a free one, and read as a mistake */
}

void table_print(const struct table *table, FILE *to)
{
    int widths[TABLE_COLUMNS_MAX] = {0};
    for (int row = 0; row < table->rows; row++)
        for (int column = 0; column < table->columns; column++) {
            int width = (int)strlen(table->cells[row][column]);
            if (width > widths[column]) widths[column] = width;
        }
    for (int row = 0; row < table->rows; row++)
        for (int column = 0; column < table->columns; column++) {
            if (column + 1 < table->columns)
                fprintf(to, "%-*s  ", widths[column], table->cells[row][column]);
            else
                fprintf(to, "%s\n", table->cells[row][column]);
        }
}

/* --- numbers --- */

enum { SHOWN = 16, SHOWN_BYTES = 40 };

static char *next_shown(void)
{
    static char shown[SHOWN][SHOWN_BYTES];
    static int next;
    return shown[next++ % SHOWN];
}

const char *show_count(uint64_t value)
{
    char digits[24];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, value);
    char *shown = next_shown(), *at = shown;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) *at++ = ',';
        *at++ = digits[i];
    }
    *at = 0;
    return shown;
}

/* Three digits that count. */
static void show_scaled(char *shown, double value, const char *unit)
{
    int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    snprintf(shown, SHOWN_BYTES, "%.*f %s", digits, value, unit);
}

const char *show_duration(uint64_t ns)
{
    char *shown = next_shown();
    if (ns < 1000)
        snprintf(shown, SHOWN_BYTES, "%" PRIu64 " ns", ns);
    else if (ns < 999500)
        show_scaled(shown, (double)ns / 1e3, "us");
    else if (ns < 999500000)
        show_scaled(shown, (double)ns / 1e6, "ms");
    else
        show_scaled(shown, (double)ns / 1e9, "s");
    return shown;
}

const char *show_bytes(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    char *shown = next_shown();
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1023.5 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(shown, SHOWN_BYTES, "%" PRIu64 " B", bytes);
    else
        show_scaled(shown, value, units[unit]);
    return shown;
}

const char *show_hex(const uint8_t *bytes, size_t count)
{
    char *shown = next_shown();
    lk_assert(count * 2 < SHOWN_BYTES);
    shown[0] = 0;
    for (size_t i = 0; i < count; i++) snprintf(shown + 2 * i, 3, "%02x", bytes[i]);
    return shown;
}

const char *show_command_kind(uint32_t kind)
{
    switch (kind) {
    case LOCKSTEP_COMMAND_MACHINE: return "machine";
    case LOCKSTEP_COMMAND_SESSION_OPEN: return "session open";
    case LOCKSTEP_COMMAND_SESSION_KEEP: return "session keep";
    case LOCKSTEP_COMMAND_SESSION_CLOSE: return "session close";
    default: return "unknown";
    }
}

/* Bytes of the character at `at` if a terminal may have it as it is, else 0. */
static size_t plain_bytes(const uint8_t *at, const uint8_t *end)
{
    if (*at >= 0x20 && *at < 0x7f) return 1;
    size_t n = character_bytes(at, end);
    if (n == 2 && at[0] == 0xc2 && at[1] < 0xa0)
        return 0; /* U+0080 to U+009F: control characters too; one begins sequences */
    return n > 1 || *at == '\n' || *at == '\t' ? n : 0;
}

void show_reply(FILE *to, bool terminal, const uint8_t *bytes, size_t count)
{
    if (!terminal) {
        fwrite(bytes, 1, count, to);
        return;
    }
    const uint8_t *end = bytes + count;
    while (bytes < end) {
        const uint8_t *at = bytes;
        for (size_t n; at < end && (n = plain_bytes(at, end)) > 0;) at += n;
        fwrite(bytes, 1, (size_t)(at - bytes), to); /* all that is plain at once */
        if (at < end) fprintf(to, "\\x%02x", *at++);
        bytes = at;
    }
}
