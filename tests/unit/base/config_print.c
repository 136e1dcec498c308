/* SPDX-License-Identifier: Apache-2.0 */
/* config_print.c - reads samples from standard input, each as a decimal byte count on a line and then the bytes; prints
 * for each one line of JSON: {"tree": ...} or {"error": "..."}. The other half of config_against_tomllib.py. */
#include "base/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void print_string(const char *text)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (*c < 0x20 || *c == '"' || *c == '\\') {
            printf("\\u%04x", *c);
        } else {
            putchar(*c);
        }
    }
    putchar('"');
}

static void print_value(const struct config_value *value)
{
    switch (value->type) {
    case CONFIG_STRING: print_string(value->as.string.text); break;
    case CONFIG_INTEGER: printf("%" PRId64, value->as.integer); break;
    case CONFIG_BOOLEAN: printf("%s", value->as.boolean ? "true" : "false"); break;
    case CONFIG_ARRAY:
    case CONFIG_TABLE:
        putchar(value->type == CONFIG_TABLE ? '{' : '[');
        for (const struct config_value *child = value->as.children.first; child != NULL; child = child->next) {
            if (value->type == CONFIG_TABLE) {
                print_string(child->key);
                putchar(':');
            }
            print_value(child);
            if (child->next != NULL) putchar(',');
        }
        putchar(value->type == CONFIG_TABLE ? '}' : ']');
        break;
    }
}

int main(void)
{
    static char text[CONFIG_BYTES_MAX + 2];
    size_t bytes = 0;
    while (scanf("%zu", &bytes) == 1 && getchar() == '\n' && bytes <= sizeof text) {
        if (fread(text, 1, bytes, stdin) != bytes) return EXIT_FAILURE;
        struct config *config;
        struct config_error error;
        if (config_parse("sample", text, bytes, &config, &error) == 0) {
            printf("{\"tree\":");
            print_value(config_root(config));
            config_close(config);
        } else {
            printf("{\"error\":");
            print_string(error.text);
        }
        printf("}\n");
    }
    return feof(stdin) ? EXIT_SUCCESS : EXIT_FAILURE;
}
