/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c - any bytes as a configuration file: a tree whose places lie in the text, or a one-line error. */
#include "base/assert.h"
#include "base/config.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static uint32_t lines, values;

static void check(const struct config_value *value, uint32_t depth)
{
    lk_assert(depth <= 2 * CONFIG_DEPTH_MAX + 1); /* tables, then arrays */
    lk_assert(++values <= CONFIG_VALUES_MAX);
    lk_assert(value->place.line >= 1 && value->place.line <= lines && value->place.column >= 1);
    lk_assert(value->key_place.line >= 1 && value->key_place.line <= lines && value->key_place.column >= 1);
    if (value->type == CONFIG_STRING) lk_assert(strlen(value->as.string.text) == value->as.string.bytes);
    if (value->type != CONFIG_ARRAY && value->type != CONFIG_TABLE) return;
    uint32_t children = 0;
    const struct config_value *child = value->as.children.first;
    for (; child != NULL; child = child->next, children++) {
        lk_assert((child->key != NULL) == (value->type == CONFIG_TABLE));
        if (child->key != NULL) lk_assert(config_find(value, child->key) == child);
        if (child->next == NULL) lk_assert(value->as.children.last == child);
        check(child, depth + 1);
    }
    lk_assert(children == value->as.children.count);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    values = 0;
    lines = 1;
    for (size_t i = 0; i < count; i++) lines += bytes[i] == '\n';
    if (config_parse("fuzz", (const char *)bytes, count, &config, &error) == 0) {
        check(config_root(config), 0);
        config_close(config);
    } else {
        lk_assert(config == NULL);
        lk_assert(strncmp(error.text, "fuzz:", 5) == 0);
        lk_assert(strchr(error.text, '\n') == NULL);
        lk_assert(strstr(error.text, "; ") != NULL || strlen(error.text) == CONFIG_ERROR_BYTES - 1);
    }
    return 0;
}
