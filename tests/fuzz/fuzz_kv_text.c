/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_kv_text.c - any bytes as kv's text: each line a command, applied by two machines, which agree; what is rejected
 * changes nothing. And any bytes, quoted, come back as they were. The contract of answers is checked by direct.c. */
#include "base/assert.h"
#include "tests/support/direct.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* Opening a machine costs more than a command: they live for a number of inputs, and die so that leaks are seen. */
enum { INPUTS_A_LIFE = 512 };

static struct direct one, other;
static unsigned inputs;

static bool hashes_equal(struct lockstep_hash a, struct lockstep_hash b)
{
    return a.low == b.low && a.high == b.high;
}

static void apply_line(const uint8_t *line, size_t count)
{
    struct lockstep_hash before = direct_hash(&one);
    direct_apply(&one, line, count);
    if (one.outcome == LOCKSTEP_REJECT) lk_assert(hashes_equal(before, direct_hash(&one)));
    direct_apply(&other, line, count);
    lk_assert(one.outcome == other.outcome);
    lk_assert(one.code == other.code);
    lk_assert(one.reply_bytes == other.reply_bytes);
    lk_assert(memcmp(one.reply, other.reply, one.reply_bytes) == 0);
    struct lockstep_hash behind = direct_hash(&one);
    lk_assert(hashes_equal(behind, direct_hash(&other)));
    direct_query(&one, line, count); /* as a query the same bytes change nothing, whatever they say */
    lk_assert(hashes_equal(behind, direct_hash(&one)));
}

/* Write bytes as a quoted word. Returns its length. */
static size_t quote(char *to, const uint8_t *bytes, size_t count)
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;
    to[at++] = '"';
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] == '"' || bytes[i] == '\\') to[at++] = '\\';
        if (bytes[i] >= 0x20 || i % 2 == 0) { /* bare control characters are allowed inside quotes; a newline, too */
            to[at++] = (char)bytes[i];
            continue;
        }
        to[at++] = '\\';
        to[at++] = 'x';
        to[at++] = hex[bytes[i] >> 4];
        to[at++] = hex[bytes[i] & 15];
    }
    to[at++] = '"';
    return at;
}

/* In both machines, so that they stay alike. */
static void put_and_get(const uint8_t *bytes, size_t count)
{
    size_t key_bytes = count < 1024 ? count : 1024;
    char *text = malloc(16 + 4 * key_bytes + 4 * count);
    lk_assert(text != NULL);
    memcpy(text, "put ", 4);
    size_t at = 4 + quote(text + 4, bytes, key_bytes);
    text[at++] = ' ';
    at += quote(text + at, bytes, count);
    direct_apply(&other, text, at);
    direct_apply(&one, text, at);
    lk_assert(one.code == (count == 0 ? 4 : 0)); /* an empty key is bad syntax */
    memcpy(text, "get ", 4);
    at = 4 + quote(text + 4, bytes, key_bytes);
    direct_query(&one, text, at);
    if (count > 0) {
        lk_assert(one.code == 0);
        lk_assert(one.reply_bytes == count);
        lk_assert(memcmp(one.reply, bytes, count) == 0);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (inputs++ % INPUTS_A_LIFE == 0) {
        if (inputs > 1) direct_close(&one);
        if (inputs > 1) direct_close(&other);
        direct_open(&one, &lockstep_machine);
        direct_open(&other, &lockstep_machine);
    }
    const uint8_t *end = bytes + count;
    for (const uint8_t *line = bytes; line < end;) {
        const uint8_t *newline = memchr(line, '\n', (size_t)(end - line));
        const uint8_t *next = newline != NULL ? newline + 1 : end;
        apply_line(line, (size_t)(next - line));
        line = next;
    }
    if (count <= LOCKSTEP_REPLY_BYTES_MAX) put_and_get(bytes, count);
    return 0;
}
