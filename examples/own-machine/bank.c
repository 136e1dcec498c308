/* SPDX-License-Identifier: Apache-2.0 */
/* bank.c - a machine of your own: accounts that never go below zero. Take it as a beginning.
 *
 *   open ACCOUNT               a new account with nothing in it      reply: empty
 *   deposit ACCOUNT N          money from outside                    reply: the new balance
 *   transfer FROM TO N         all of N, or nothing                  reply: the new balance of FROM
 *   balance ACCOUNT            also as a query                       reply: the balance
 *
 * ACCOUNT is 1 to 31 letters, digits, '-' or '_'. N is 1 to 1,000,000,000,000.
 *
 * What every machine has to get right, and where you see it here:
 *   - apply() decides by the command and the state alone: no clock, no randomness, no addresses
 *   - a refusal is LOCKSTEP_REJECT with a code and a text, and changes nothing
 *   - running out of memory is LOCKSTEP_FATAL: this replica stops, the others go on; it is never a REJECT, because the
 *     others may have memory left
 *   - the payload has no alignment and does not end with a zero: its length says where it ends
 *   - hash() covers the whole state and is cheap: it is kept up to date by each change */
#include <lockstep/machine.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_BYTES_MAX = 31,
    REJECT_SYNTAX = 1,
    REJECT_NO_SUCH_ACCOUNT = 2,
    REJECT_EXISTS = 3,
    REJECT_LACK_OF_FUNDS = 4,
    REJECT_TOO_MUCH = 5,
};

#define AMOUNT_MAX  INT64_C(1000000000000)
#define BALANCE_MAX INT64_C(1000000000000000000)

struct account {
    char name[NAME_BYTES_MAX + 1]; /* filled up with zeros */
    int64_t balance;
};

/* Accounts, sorted by name: an order that is the same everywhere. */
struct bank {
    struct account *accounts;
    size_t count, room;
    struct lockstep_hash hash; /* the sum of all accounts' hashes */
};

/* --- the state --- */

/* A hash of one account. Sums of such hashes do not depend on the order of the accounts. */
static struct lockstep_hash account_hash(const struct account *account)
{
    struct lockstep_hash hash = {UINT64_C(0xcbf29ce484222325), UINT64_C(0x9e3779b97f4a7c15)};
    const unsigned char *name = (const unsigned char *)account->name;
    for (size_t i = 0; i < sizeof account->name; i++) hash.low = (hash.low ^ name[i]) * UINT64_C(0x100000001b3);
    hash.low = (hash.low ^ (uint64_t)account->balance) * UINT64_C(0xff51afd7ed558ccd);
    hash.low ^= hash.low >> 33;
    hash.high = (hash.high ^ hash.low) * UINT64_C(0xc4ceb9fe1a85ec53);
    hash.high ^= hash.high >> 29;
    return hash;
}

static void hash_add(struct bank *bank, const struct account *account)
{
    struct lockstep_hash hash = account_hash(account);
    bank->hash.low += hash.low;
    bank->hash.high += hash.high;
}

static void hash_take(struct bank *bank, const struct account *account)
{
    struct lockstep_hash hash = account_hash(account);
    bank->hash.low -= hash.low;
    bank->hash.high -= hash.high;
}

static void set_balance(struct bank *bank, struct account *account, int64_t balance)
{
    hash_take(bank, account);
    account->balance = balance;
    hash_add(bank, account);
}

/* Where the name stands, or would stand. */
static size_t position_of(const struct bank *bank, const char *name)
{
    size_t low = 0, high = bank->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(bank->accounts[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct account *find(const struct bank *bank, const char *name)
{
    size_t at = position_of(bank, name);
    return at < bank->count && strcmp(bank->accounts[at].name, name) == 0 ? &bank->accounts[at] : NULL;
}

/* False: out of memory. */
static bool add_account(struct bank *bank, const char *name)
{
    if (bank->count == bank->room) {
        size_t room = bank->room == 0 ? 64 : bank->room * 2;
        struct account *accounts = realloc(bank->accounts, room * sizeof *accounts);
        if (accounts == NULL) return false;
        bank->accounts = accounts;
        bank->room = room;
    }
    size_t at = position_of(bank, name);
    memmove(&bank->accounts[at + 1], &bank->accounts[at], (bank->count - at) * sizeof *bank->accounts);
    memset(&bank->accounts[at], 0, sizeof bank->accounts[at]);
    strcpy(bank->accounts[at].name, name);
    bank->count++;
    hash_add(bank, &bank->accounts[at]);
    return true;
}

/* --- reading commands --- */

struct text {
    const uint8_t *at, *end;
};

/* The next word, as a string. False: there is none, or it is longer than a name may be. */
static bool read_word(struct text *text, char ret[NAME_BYTES_MAX + 1])
{
    size_t count = 0;
    while (text->at < text->end && *text->at == ' ') text->at++;
    for (; text->at < text->end && *text->at != ' ' && *text->at != '\n'; text->at++) {
        if (count == NAME_BYTES_MAX) return false;
        ret[count++] = (char)*text->at;
    }
    ret[count] = '\0';
    return count > 0;
}

static bool read_name(struct text *text, char ret[NAME_BYTES_MAX + 1])
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    return read_word(text, ret) && ret[strspn(ret, allowed)] == '\0';
}

static bool read_amount(struct text *text, int64_t *ret)
{
    char word[NAME_BYTES_MAX + 1];
    if (!read_word(text, word)) return false;
    int64_t amount = 0;
    for (const char *digit = word; *digit != '\0'; digit++) {
        if (*digit < '0' || *digit > '9') return false;
        amount = amount * 10 + (*digit - '0');
        if (amount > AMOUNT_MAX) return false;
    }
    *ret = amount;
    return amount > 0;
}

/* Nothing but one newline may be left. */
static bool read_end(struct text *text)
{
    if (text->at < text->end && *text->at == '\n') text->at++;
    return text->at == text->end;
}

/* --- answers --- */

static void reject(struct lockstep_replies *replies, int32_t code, const char *why)
{
    replies->answer(replies, LOCKSTEP_REJECT, code, why, strlen(why));
}

static void answer_balance(struct lockstep_replies *replies, const struct account *account)
{
    char text[24];
    int count = snprintf(text, sizeof text, "%" PRId64, account->balance);
    replies->answer(replies, LOCKSTEP_OK, 0, text, (size_t)count);
}

/* --- commands --- */

static void do_open(struct bank *bank, struct text *text, struct lockstep_replies *replies)
{
    char name[NAME_BYTES_MAX + 1];
    if (!read_name(text, name) || !read_end(text))
        reject(replies, REJECT_SYNTAX, "open ACCOUNT");
    else if (find(bank, name) != NULL)
        reject(replies, REJECT_EXISTS, "the account exists");
    else if (add_account(bank, name))
        replies->answer(replies, LOCKSTEP_OK, 0, NULL, 0);
    else
        replies->answer(replies, LOCKSTEP_FATAL, 0, "out of memory", strlen("out of memory"));
}

static void do_deposit(struct bank *bank, struct text *text, struct lockstep_replies *replies)
{
    char name[NAME_BYTES_MAX + 1];
    int64_t amount;
    if (!read_name(text, name) || !read_amount(text, &amount) || !read_end(text)) {
        reject(replies, REJECT_SYNTAX, "deposit ACCOUNT N");
        return;
    }
    struct account *account = find(bank, name);
    if (account == NULL) {
        reject(replies, REJECT_NO_SUCH_ACCOUNT, "no such account");
    } else if (amount > BALANCE_MAX - account->balance) {
        reject(replies, REJECT_TOO_MUCH, "more than an account can hold");
    } else {
        set_balance(bank, account, account->balance + amount);
        answer_balance(replies, account);
    }
}

static void do_transfer(struct bank *bank, struct text *text, struct lockstep_replies *replies)
{
    char from_name[NAME_BYTES_MAX + 1], to_name[NAME_BYTES_MAX + 1];
    int64_t amount;
    if (!read_name(text, from_name) || !read_name(text, to_name) || !read_amount(text, &amount) || !read_end(text)) {
        reject(replies, REJECT_SYNTAX, "transfer FROM TO N");
        return;
    }
    struct account *from = find(bank, from_name), *to = find(bank, to_name);
    if (from == NULL || to == NULL) {
        reject(replies, REJECT_NO_SUCH_ACCOUNT, "no such account");
    } else if (from->balance < amount) {
        reject(replies, REJECT_LACK_OF_FUNDS, "lack of funds");
    } else if (from != to && amount > BALANCE_MAX - to->balance) {
        reject(replies, REJECT_TOO_MUCH, "more than an account can hold");
    } else {
        set_balance(bank, from, from->balance - amount);
        set_balance(bank, to, to->balance + amount);
        answer_balance(replies, from);
    }
}

static void do_balance(const struct bank *bank, struct text *text, struct lockstep_replies *replies)
{
    char name[NAME_BYTES_MAX + 1];
    if (!read_name(text, name) || !read_end(text)) {
        reject(replies, REJECT_SYNTAX, "balance ACCOUNT");
        return;
    }
    const struct account *account = find(bank, name);
    if (account == NULL)
        reject(replies, REJECT_NO_SUCH_ACCOUNT, "no such account");
    else
        answer_balance(replies, account);
}

/* --- the machine --- */

static int bank_open(const struct lockstep_host *host, void **ret_machine)
{
    (void)host;
    *ret_machine = calloc(1, sizeof(struct bank));
    return *ret_machine != NULL ? 0 : -1;
}

static void bank_close(void *machine)
{
    struct bank *bank = machine;
    free(bank->accounts);
    free(bank);
}

static int bank_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    struct bank *bank = machine;
    const struct lockstep_command *command;
    while ((command = batch->next(batch)) != NULL) {
        struct text text = {command->payload, command->payload + command->payload_bytes};
        char verb[NAME_BYTES_MAX + 1];
        if (!read_word(&text, verb)) verb[0] = '\0';
        if (strcmp(verb, "open") == 0)
            do_open(bank, &text, replies);
        else if (strcmp(verb, "deposit") == 0)
            do_deposit(bank, &text, replies);
        else if (strcmp(verb, "transfer") == 0)
            do_transfer(bank, &text, replies);
        else if (strcmp(verb, "balance") == 0)
            do_balance(bank, &text, replies);
        else
            reject(replies, REJECT_SYNTAX, "open | deposit | transfer | balance");
    }
    return 0;
}

static int bank_query(void *machine, uint64_t entity, const uint8_t *query, size_t query_bytes,
                      struct lockstep_replies *replies)
{
    (void)entity;
    struct text text = {query, query + query_bytes};
    char verb[NAME_BYTES_MAX + 1];
    if (read_word(&text, verb) && strcmp(verb, "balance") == 0)
        do_balance(machine, &text, replies);
    else
        reject(replies, REJECT_SYNTAX, "balance ACCOUNT");
    return 0;
}

static struct lockstep_hash bank_hash(void *machine)
{
    const struct bank *bank = machine;
    return bank->hash;
}

const struct lockstep_machine lockstep_machine = {
    .size = sizeof(struct lockstep_machine),
    .abi = LOCKSTEP_MACHINE_ABI,
    .name = "bank",
    .version = "1",
    .open = bank_open,
    .close = bank_close,
    .apply = bank_apply,
    .query = bank_query,
    .hash = bank_hash,
};
