/* SPDX-License-Identifier: Apache-2.0 */
/* test_config.c - the tree and its places (config.h C1 to C3). What is accepted and what is not: see
 * config_against_tomllib.py. */
#include "base/config.h"

#include "lockstep/errors.h"
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char sample[] = "cluster = \"demo\"\n"
                             "sizes = [1, \"zwei\", [true]]\n"
                             "[node.n2]\n"
                             "  client = 'x'   # comment\n"
                             "[node.n1]\n"
                             "[node]\n"
                             "\"größe\" = -5\n";

static struct config *parse(const char *text)
{
    struct config *config = NULL;
    struct config_error error;
    int rc = config_parse("sample.toml", text, strlen(text), &config, &error);
    ck_assert_msg(rc == 0, "%s", error.text);
    return config;
}

START_TEST(values_stand_in_the_tree_in_the_order_in_which_they_were_written)
{
    struct config *config = parse(sample);
    const struct config_value *root = config_root(config);
    ck_assert_int_eq(root->type, CONFIG_TABLE);
    ck_assert_uint_eq(root->as.children.count, 3);
    const struct config_value *cluster = root->as.children.first;
    ck_assert_str_eq(cluster->key, "cluster");
    ck_assert_int_eq(cluster->type, CONFIG_STRING);
    ck_assert_str_eq(cluster->as.string.text, "demo");
    const struct config_value *sizes = cluster->next;
    ck_assert_uint_eq(sizes->as.children.count, 3);
    ck_assert_int_eq(sizes->as.children.first->as.integer, 1);
    ck_assert_str_eq(sizes->as.children.first->next->as.string.text, "zwei");
    ck_assert(sizes->as.children.last->as.children.first->as.boolean);
    const struct config_value *node = sizes->next;
    ck_assert_ptr_null(node->next);
    ck_assert_str_eq(node->as.children.first->key, "n2");
    ck_assert_str_eq(node->as.children.first->next->key, "n1");
    ck_assert_int_eq(config_find(node, "größe")->as.integer, -5);
    ck_assert_ptr_null(config_find(node, "n"));
    ck_assert_ptr_null(config_find(node, "n22"));
    config_close(config);
}
END_TEST

static void check_place(struct config_place place, uint32_t line, uint32_t column)
{
    ck_assert_uint_eq(place.line, line);
    ck_assert_uint_eq(place.column, column);
}

START_TEST(every_value_knows_its_line_and_column)
{
    struct config *config = parse(sample);
    const struct config_value *root = config_root(config);
    check_place(config_find(root, "cluster")->key_place, 1, 1);
    check_place(config_find(root, "cluster")->place, 1, 11);
    const struct config_value *sizes = config_find(root, "sizes");
    check_place(sizes->as.children.first->place, 2, 10);
    check_place(sizes->as.children.last->place, 2, 21);
    const struct config_value *node = config_find(root, "node");
    check_place(node->key_place, 3, 2); /* where it was first named */
    check_place(node->place, 6, 1);     /* its own header */
    check_place(config_find(node, "n2")->place, 3, 1);
    check_place(config_find(config_find(node, "n2"), "client")->key_place, 4, 3);
    check_place(config_find(node, "größe")->place, 7, 11); /* characters, not bytes */
    config_close(config);
}
END_TEST

START_TEST(reader_of_the_tree_complains_in_the_same_form)
{
    struct config *config = parse(sample);
    struct config_error error;
    const struct config_value *cluster = config_find(config_root(config), "cluster");
    config_complain(config, cluster->place, &error, "'%s' is %s; write %s", cluster->key,
                    config_type_name(cluster->type), config_type_name(CONFIG_INTEGER));
    ck_assert_str_eq(error.text, "sample.toml:1:11: 'cluster' is a string; write an integer");
    ck_assert_str_eq(config_name(config), "sample.toml");
    config_close(config);
}
END_TEST

START_TEST(file_is_read_and_one_that_cannot_be_read_is_named)
{
    char path[] = "/tmp/lockstep-config-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, sample, sizeof sample - 1), sizeof sample - 1);
    close(fd);
    struct config *config = NULL;
    struct config_error error;
    ck_assert_int_eq(config_read(path, &config, &error), 0);
    ck_assert_str_eq(config_find(config_root(config), "cluster")->as.string.text, "demo");
    config_close(config);
    unlink(path);

    config = NULL;
    ck_assert_int_eq(config_read("/nonexistent/lockstep.toml", &config, &error), LOCKSTEP_EIO);
    ck_assert_str_eq(error.text, "/nonexistent/lockstep.toml: cannot be read: No such file or directory; give the "
                                 "path of a readable file");
    ck_assert_int_eq(config_read("/", &config, &error), LOCKSTEP_EIO);
    ck_assert_ptr_nonnull(strstr(error.text, "Is a directory"));
    ck_assert_ptr_null(config);
    config_close(NULL);
}
END_TEST

START_TEST(text_beyond_the_limit_is_refused_before_it_is_looked_at) /* C3 */
{
    char *text = malloc(CONFIG_BYTES_MAX + 1);
    ck_assert_ptr_nonnull(text);
    memset(text, '\n', CONFIG_BYTES_MAX + 1);
    struct config *config = NULL;
    struct config_error error;
    ck_assert_int_eq(config_parse("big", text, CONFIG_BYTES_MAX + 1, &config, &error), LOCKSTEP_EINVAL);
    ck_assert_str_eq(error.text, "big:1:1: more than 1048576 bytes, over the limit; write less");
    ck_assert_int_eq(config_parse("big", text, CONFIG_BYTES_MAX, &config, &error), 0);
    config_close(config);
    free(text);
}
END_TEST

/* The densest texts: were the sum of what the tree needs too small, an assertion would end the test. */
START_TEST(densest_texts_fit_the_memory_that_was_set_aside) /* C3 */
{
    static const struct {
        const char *begin, *repeat;
        int times;
    } dense[] = {{"a=[", "1,", CONFIG_VALUES_MAX},       {"a=[", "[],", CONFIG_VALUES_MAX},
                 {"a=[", "\"\",", CONFIG_VALUES_MAX},    {"[", "\"\".", CONFIG_DEPTH_MAX},
                 {"a=[", "\"\\n\",", CONFIG_VALUES_MAX}, {"a=[", "'12345678901234567',", CONFIG_VALUES_MAX}};
    static char text[CONFIG_BYTES_MAX];
    for (size_t i = 0; i < sizeof dense / sizeof dense[0]; i++) {
        for (int times = 1; times <= dense[i].times; times = times < 100 ? times + 1 : times * 3) {
            size_t bytes = (size_t)sprintf(text, "%s", dense[i].begin);
            for (int t = 0; t < times; t++) bytes += (size_t)sprintf(text + bytes, "%s", dense[i].repeat);
            text[bytes - 1] = ']'; /* over the last comma or dot */
            struct config *config = NULL;
            struct config_error error;
            if (config_parse("dense", text, bytes, &config, &error) == 0) config_close(config);
        }
    }
    size_t bytes = 0; /* headers that name an old table by quoted names make strings without making values */
    for (int i = 0; i < 10000; i++) bytes += (size_t)sprintf(text + bytes, "['']\n");
    for (int i = 0; bytes + 64 < sizeof text && i < 10000; i++)
        bytes += (size_t)sprintf(text + bytes, "[''.''.''.''.''.''.''.''.''.''.''.''.''.''.''.%d]\n", i);
    struct config *config = NULL;
    struct config_error error;
    ck_assert_int_eq(config_parse("dense", text, bytes, &config, &error), LOCKSTEP_EINVAL); /* [''] twice */
    ck_assert_int_eq(config_parse("dense", text + 5 * 10000, bytes - 5 * 10000, &config, &error), 0);
    config_close(config);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, values_stand_in_the_tree_in_the_order_in_which_they_were_written);
    tcase_add_test(tests, every_value_knows_its_line_and_column);
    tcase_add_test(tests, reader_of_the_tree_complains_in_the_same_form);
    tcase_add_test(tests, file_is_read_and_one_that_cannot_be_read_is_named);
    tcase_add_test(tests, text_beyond_the_limit_is_refused_before_it_is_looked_at);
    tcase_add_test(tests, densest_texts_fit_the_memory_that_was_set_aside);
}

int main(void)
{
    return unit_main("base config", add);
}
