/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_configuration.c - a configuration and a birth record from a stranger: as they are, and with magic, length and
 * checksums made right, so that what lies behind them is reached. What is accepted keeps the rules and has one form. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/little.h"
#include "storage/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void look(const uint8_t *bytes, size_t count)
{
    static uint8_t again[BIRTH_RECORD_BYTES_MAX];
    struct configuration configuration;
    struct birth_record record;
    if (configuration_read(bytes, count, &configuration) == 0) {
        lk_assert(configuration_valid(&configuration));
        lk_assert(configuration_write(&configuration, again) == count);
        lk_assert(memcmp(again, bytes, count) == 0);
    }
    if (birth_record_read(bytes, (uint32_t)count, &record) == 0) {
        lk_assert(configuration_valid(&record.configuration));
        lk_assert(birth_record_write(&record, again) == count);
    }
}

/* A configuration's head at the beginning of `at`. */
static void mend(uint8_t *at, size_t count, size_t members)
{
    memcpy(at, "LSCG", 4);
    little_put32(at + 8, 1);
    little_put32(at + 12, (uint32_t)count);
    little_put32(at + 24, 1 + (at[24] & 1));
    little_put32(at + 28, (uint32_t)members);
    for (size_t i = 0; i < members; i++) {
        uint8_t *member = at + 48 + i * 624;
        member[0] = (uint8_t)(i + 1);
        member[8] %= 6;
        memset(member + 10, 0, 6);
        for (size_t k = 16; k < 624; k++) member[k] = member[k] % 64 == 0 ? 0 : (uint8_t)('!' + member[k] % 90);
        for (size_t k = 16 + 8; k < 16 + 64; k++) member[k] = 0;
        for (size_t k = 80 + 8; k < 80 + 272; k++) member[k] = 0;
        for (size_t k = 352 + 8; k < 352 + 272; k++) member[k] = 0;
    }
    little_put32(at + 4, crc32c(at + 8, count - 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    look(bytes, count);
    if (count < 8) return 0;
    /* Few inputs are as long as a member: what came is repeated. */
    size_t members = 1 + bytes[0] % 3, whole = 160 + 48 + members * 624;
    uint8_t *made = malloc(whole);
    if (made == NULL) return 0;
    for (size_t i = 0; i < whole; i++) made[i] = bytes[i % count];
    mend(made + 160, whole - 160, members);
    look(made + 160, whole - 160);
    memcpy(made, "LSBT", 4);
    little_put32(made + 8, 1);
    little_put32(made + 12, (uint32_t)whole);
    for (size_t i = 32 + 8; i < 32 + 128; i++) made[i] = 0;
    little_put32(made + 4, crc32c(made + 8, whole - 8));
    look(made, whole);
    free(made);
    return 0;
}
