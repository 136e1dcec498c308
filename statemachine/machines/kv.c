/* SPDX-License-Identifier: Apache-2.0 */
/* kv.c - the machine `kv`: keys and values, in text that a person can type.
 *
 *   put K V         set K                                  reply: empty
 *   get K           the value of K; also as a query        reply: the value
 *   del K           remove K                               reply: empty
 *   cas K OLD NEW   set K to NEW if it holds OLD           reply: empty
 *   incr K N        add N to the number in K (absent: 0)   reply: the new number
 *   append K V      add V to the end of K (absent: empty)  reply: the new length in bytes
 *
 * Words are separated by spaces. A word is bare (it does not begin with " and ends at the next space) or quoted:
 * "..." with the escapes \" \\ \n \t \xHH. The V of put and append is, unless quoted, the rest of the line: all bytes
 * behind the one space that follows K, spaces and quotes included. One newline at the very end of a command belongs
 * to no word. A key has 1 to 1024 bytes, a value 0 to 1 MiB; a number is a signed 64-bit decimal.
 *
 * REJECT codes, the reply being the text: 1 no such key, 2 not a number, 3 compare failed, 4 syntax: ..., 5 too long,
 * 6 out of range. A command that is rejected changed nothing. Out of memory is FATAL.
 * Thread: the machine's. Owns: the store, room for three unquoted words. Uses the public header alone. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lockstep/machine.h"
#include "statemachine/machines/kv_store.h"

enum {
    REJECT_NO_SUCH_KEY = 1,
    REJECT_NOT_A_NUMBER = 2,
    REJECT_COMPARE_FAILED = 3,
    REJECT_SYNTAX = 4,
    REJECT_TOO_LONG = 5,
    REJECT_OUT_OF_RANGE = 6,
};

struct kv {
    struct kv_store *store;
    /* Quoted words, unquoted: at most a key and two values a command. */
    uint8_t unquoted[KV_KEY_BYTES_MAX + 2 * KV_VALUE_BYTES_MAX];
};

/* What of a command is not read yet, and where its next unquoted word goes. */
struct text {
    const uint8_t *at, *end;
    uint8_t *unquoted;
};

/* --- answers --- */

static void answer(struct lockstep_replies *replies, const void *bytes, size_t count)
{
    replies->answer(replies, LOCKSTEP_OK, 0, bytes, count);
}

static void reject(struct lockstep_replies *replies, int32_t code, const char *usage)
{
    static const char *const texts[] = {
        [REJECT_NO_SUCH_KEY] = "no such key",       [REJECT_NOT_A_NUMBER] = "not a number",
        [REJECT_COMPARE_FAILED] = "compare failed", [REJECT_TOO_LONG] = "too long",
        [REJECT_OUT_OF_RANGE] = "out of range",
    };
    const char *text = code == REJECT_SYNTAX ? usage : texts[code];
    replies->answer(replies, LOCKSTEP_REJECT, code, text, strlen(text));
}

static void out_of_memory(struct lockstep_replies *replies)
{
    replies->answer(replies, LOCKSTEP_FATAL, 0, "out of memory", strlen("out of memory"));
}

/* --- words; each returns 0 or the code to REJECT with --- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The byte that the escape at text->at (behind the backslash) means. False: no escape. */
static bool read_escape(struct text *text, uint8_t *ret)
{
    if (text->at == text->end) return false;
    uint8_t c = *text->at++;
    switch (c) {
    case '"':
    case '\\': *ret = c; return true;
    case 'n': *ret = '\n'; return true;
    case 't': *ret = '\t'; return true;
    case 'x': {
        if (text->end - text->at < 2) return false;
        int high = hex_digit(text->at[0]), low = hex_digit(text->at[1]);
        if (high < 0 || low < 0) return false;
        *ret = (uint8_t)(high << 4 | low);
        text->at += 2;
        return true;
    }
    default: return false;
    }
}

/* text->at stands behind the opening quote. The closing one is followed by a space or the end. */
static int32_t read_quoted(struct text *text, size_t bytes_max, struct kv_bytes *ret)
{
    uint8_t *to = text->unquoted;
    size_t count = 0;
    for (;;) {
        if (text->at == text->end) return REJECT_SYNTAX;
        uint8_t c = *text->at++;
        if (c == '"') break;
        if (c == '\\' && !read_escape(text, &c)) return REJECT_SYNTAX;
        if (count == bytes_max) return REJECT_TOO_LONG;
        to[count++] = c;
    }
    if (text->at < text->end && *text->at != ' ') return REJECT_SYNTAX;
    text->unquoted += count;
    *ret = (struct kv_bytes){to, count};
    return 0;
}

static void skip_spaces(struct text *text)
{
    while (text->at < text->end && *text->at == ' ') text->at++;
}

/* All bytes up to the next space or the end; none at the end. */
static struct kv_bytes read_bare(struct text *text)
{
    struct kv_bytes word = {text->at, 0};
    while (text->at < text->end && *text->at != ' ') text->at++;
    word.count = (size_t)(text->at - word.at);
    return word;
}

static int32_t read_word(struct text *text, size_t bytes_max, struct kv_bytes *ret)
{
    skip_spaces(text);
    if (text->at == text->end) return REJECT_SYNTAX;
    if (*text->at == '"') {
        text->at++;
        return read_quoted(text, bytes_max, ret);
    }
    *ret = read_bare(text);
    return ret->count <= bytes_max ? 0 : REJECT_TOO_LONG;
}

static int32_t read_key(struct text *text, struct kv_bytes *ret)
{
    int32_t code = read_word(text, KV_KEY_BYTES_MAX, ret);
    return code == 0 && ret->count == 0 ? REJECT_SYNTAX : code;
}

static int32_t read_end(struct text *text)
{
    skip_spaces(text);
    return text->at == text->end ? 0 : REJECT_SYNTAX;
}

/* The V of put and append. */
static int32_t read_rest(struct text *text, struct kv_bytes *ret)
{
    if (text->at == text->end) return REJECT_SYNTAX;
    text->at++; /* the space that ended K */
    if (text->at < text->end && *text->at == '"') {
        text->at++;
        int32_t code = read_quoted(text, KV_VALUE_BYTES_MAX, ret);
        return code != 0 ? code : read_end(text);
    }
    *ret = (struct kv_bytes){text->at, (size_t)(text->end - text->at)};
    text->at = text->end;
    return ret->count <= KV_VALUE_BYTES_MAX ? 0 : REJECT_TOO_LONG;
}

/* A decimal number with an optional '-', and nothing else. */
static int32_t parse_number(struct kv_bytes digits, int64_t *ret)
{
    bool negative = digits.count > 0 && digits.at[0] == '-';
    size_t i = negative ? 1 : 0;
    if (i == digits.count) return REJECT_NOT_A_NUMBER;
    int64_t value = 0; /* counted downwards: there is one more number below zero than above */
    bool in_range = true;
    for (; i < digits.count; i++) {
        if (digits.at[i] < '0' || digits.at[i] > '9') return REJECT_NOT_A_NUMBER;
        int64_t lower = 0;
        in_range = in_range && !__builtin_mul_overflow(value, 10, &lower) &&
                   !__builtin_sub_overflow(lower, digits.at[i] - '0', &value);
    }
    if (!in_range || (!negative && value == INT64_MIN)) return REJECT_OUT_OF_RANGE;
    *ret = negative ? value : -value;
    return 0;
}

/* --- the commands; each returns 0 after it answered, or the code to REJECT with --- */

static int32_t do_put(struct kv *kv, struct text *text, struct lockstep_replies *replies)
{
    struct kv_bytes key, value;
    int32_t code;
    if ((code = read_key(text, &key)) != 0 || (code = read_rest(text, &value)) != 0) return code;
    if (kv_store_put(kv->store, key, value))
        answer(replies, NULL, 0);
    else
        out_of_memory(replies);
    return 0;
}

static int32_t do_get(struct kv *kv, struct text *text, struct lockstep_replies *replies)
{
    struct kv_bytes key, value;
    int32_t code;
    if ((code = read_key(text, &key)) != 0 || (code = read_end(text)) != 0) return code;
    if (!kv_store_get(kv->store, key, &value)) return REJECT_NO_SUCH_KEY;
    answer(replies, value.at, value.count);
    return 0;
}

static int32_t do_del(struct kv *kv, struct text *text, struct lockstep_replies *replies)
{
    struct kv_bytes key;
    int32_t code;
    if ((code = read_key(text, &key)) != 0 || (code = read_end(text)) != 0) return code;
    int deleted = kv_store_delete(kv->store, key);
    if (deleted == 0) return REJECT_NO_SUCH_KEY;
    if (deleted > 0)
        answer(replies, NULL, 0);
    else
        out_of_memory(replies);
    return 0;
}

static int32_t do_cas(struct kv *kv, struct text *text, struct lockstep_replies *replies)
{
    struct kv_bytes key, expected, value, present;
    int32_t code;
    if ((code = read_key(text, &key)) != 0 || (code = read_word(text, KV_VALUE_BYTES_MAX, &expected)) != 0 ||
        (code = read_word(text, KV_VALUE_BYTES_MAX, &value)) != 0 || (code = read_end(text)) != 0)
        return code;
    if (!kv_store_get(kv->store, key, &present)) return REJECT_NO_SUCH_KEY;
    if (present.count != expected.count || memcmp(present.at, expected.at, present.count) != 0)
        return REJECT_COMPARE_FAILED;
    if (kv_store_put(kv->store, key, value))
        answer(replies, NULL, 0);
    else
        out_of_memory(replies);
    return 0;
}

static int32_t do_incr(struct kv *kv, struct text *text, struct lockstep_replies *replies)
{
    struct kv_bytes key, digits, present;
    int64_t number = 0, amount = 0;
    int32_t code;
    if ((code = read_key(text, &key)) != 0 || (code = read_word(text, KV_VALUE_BYTES_MAX, &digits)) != 0 ||
        (code = read_end(text)) != 0 || (code = parse_number(digits, &amount)) != 0)
        return code;
    if (kv_store_get(kv->store, key, &present) && (code = parse_number(present, &number)) != 0) return code;
    if (__builtin_add_overflow(number, amount, &number)) return REJECT_OUT_OF_RANGE;
    char sum[24];
    int count = snprintf(sum, sizeof sum, "%" PRId64, number);
    if (kv_store_put(kv->store, key, (struct kv_bytes){(const uint8_t *)sum, (size_t)count}))
        answer(replies, sum, (size_t)count);
    else
        out_of_memory(replies);
    return 0;
}

static int32_t do_append(struct kv *kv, struct text *text, struct lockstep_replies *replies)
{
    struct kv_bytes key, bytes, present = {NULL, 0};
    int32_t code;
    if ((code = read_key(text, &key)) != 0 || (code = read_rest(text, &bytes)) != 0) return code;
    (void)kv_store_get(kv->store, key, &present); /* absent: empty */
    if (bytes.count > KV_VALUE_BYTES_MAX - present.count) return REJECT_TOO_LONG;
    char length[24];
    int count = snprintf(length, sizeof length, "%zu", present.count + bytes.count);
    if (kv_store_append(kv->store, key, bytes))
        answer(replies, length, (size_t)count);
    else
        out_of_memory(replies);
    return 0;
}

static const struct verb {
    const char *name;
    int32_t (*run)(struct kv *kv, struct text *text, struct lockstep_replies *replies);
    const char *usage;
} verbs[] = {
    {"put", do_put, "syntax: put K V"},    {"get", do_get, "syntax: get K"},
    {"del", do_del, "syntax: del K"},      {"cas", do_cas, "syntax: cas K OLD NEW"},
    {"incr", do_incr, "syntax: incr K N"}, {"append", do_append, "syntax: append K V"},
};

/* A verb is always bare: there is no room to unquote it. */
static const struct verb *read_verb(struct text *text)
{
    skip_spaces(text);
    struct kv_bytes name = read_bare(text);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (name.count == strlen(verbs[i].name) && memcmp(name.at, verbs[i].name, name.count) == 0) return &verbs[i];
    return NULL;
}

static struct text text_of(struct kv *kv, const uint8_t *bytes, size_t count)
{
    if (count > 0 && bytes[count - 1] == '\n') count--;
    return (struct text){bytes, bytes + count, kv->unquoted};
}

/* --- the machine --- */

static int kv_open(const struct lockstep_host *host, void **ret_machine)
{
    (void)host;
    struct kv *kv = malloc(sizeof *kv);
    if (kv == NULL) return -1;
    kv->store = kv_store_open();
    if (kv->store == NULL) {
        free(kv);
        return -1;
    }
    *ret_machine = kv;
    return 0;
}

static void kv_close(void *machine)
{
    struct kv *kv = machine;
    kv_store_close(kv->store);
    free(kv);
}

static void apply_one(struct kv *kv, const struct lockstep_command *command, struct lockstep_replies *replies)
{
    struct text text = text_of(kv, command->payload, command->payload_bytes);
    const struct verb *verb = read_verb(&text);
    if (verb == NULL) {
        reject(replies, REJECT_SYNTAX, "syntax: put K V | get K | del K | cas K OLD NEW | incr K N | append K V");
        return;
    }
    int32_t code = verb->run(kv, &text, replies);
    if (code != 0) reject(replies, code, verb->usage);
}

static int kv_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    const struct lockstep_command *command;
    while ((command = batch->next(batch)) != NULL) apply_one(machine, command, replies);
    return 0;
}

static int kv_query(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                    struct lockstep_replies *replies)
{
    (void)entity;
    struct kv *kv = machine;
    struct text text = text_of(kv, query, query_bytes);
    const struct verb *verb = read_verb(&text);
    int32_t code = verb != NULL && verb->run == do_get ? do_get(kv, &text, replies) : REJECT_SYNTAX;
    if (code != 0) reject(replies, code, "syntax: get K (only get is a query)");
    return 0;
}

static struct lockstep_hash kv_hash(void *machine)
{
    const struct kv *kv = machine;
    return kv_store_hash(kv->store);
}

static int kv_snapshot_begin(void *machine, void **ret_snapshot)
{
    const struct kv *kv = machine;
    *ret_snapshot = kv_store_freeze(kv->store);
    return *ret_snapshot != NULL ? 0 : -1;
}

static int kv_write(void *machine, void *snapshot, struct lockstep_writer *writer)
{
    (void)machine;
    return kv_snapshot_write(snapshot, writer);
}

static void kv_snapshot_end(void *machine, void *snapshot)
{
    const struct kv *kv = machine;
    kv_store_thaw(kv->store, snapshot);
}

static int kv_restore(void *machine, struct lockstep_reader *reader)
{
    const struct kv *kv = machine;
    return kv_snapshot_restore(kv->store, reader);
}

const struct lockstep_machine lockstep_machine = {
    .size = sizeof(struct lockstep_machine),
    .abi = LOCKSTEP_MACHINE_ABI,
    .name = "kv",
    .version = "1",
    .open = kv_open,
    .close = kv_close,
    .apply = kv_apply,
    .query = kv_query,
    .hash = kv_hash,
    .snapshot_begin = kv_snapshot_begin,
    .snapshot_write = kv_write,
    .snapshot_end = kv_snapshot_end,
    .restore = kv_restore,
};
