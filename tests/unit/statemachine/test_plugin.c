/* SPDX-License-Identifier: Apache-2.0 */
/* test_plugin.c - plugins are found, copied, checked; every refusal says what and why (M7). Arguments: a folder for the
 * copies, the folder of the fixtures. */
#include "statemachine/plugin.h"

#include "tests/support/unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lockstep/errors.h"

static const char *copies, *fixtures;
static char why[1024], path[4096];

static const char *fixture(const char *name)
{
    snprintf(path, sizeof path, "%s/fixture_%s.so", fixtures, name);
    return path;
}

START_TEST(a_good_plugin_is_loaded_with_its_name_version_and_hash)
{
    struct plugin plugin;
    ck_assert_int_eq(plugin_load(fixture("good"), copies, "fixture", &plugin, why, sizeof why), 0);
    ck_assert_str_eq(plugin.name, "fixture");
    ck_assert_str_eq(plugin.version, "7.1");
    ck_assert_str_eq(plugin.path, path);
    ck_assert(plugin.machine.apply != NULL);
    ck_assert(plugin.machine.migrate == NULL);
    uint8_t any = 0;
    for (size_t i = 0; i < sizeof plugin.content_hash; i++) any |= plugin.content_hash[i];
    ck_assert_uint_ne(any, 0);
    ck_assert_int_eq(plugin_load(path, copies, NULL, &plugin, why, sizeof why), 0); /* any name will do */
}
END_TEST

static const struct refusal {
    const char *fixture;
    int code;
    const char *says[3];
} refusals[] = {
    {"newer_abi", LOCKSTEP_EABI, {"built for ABI 2", "this lockstep has ABI 1", "build it again"}},
    {"no_symbol", LOCKSTEP_EABI, {"exports no table `lockstep_machine`", "ABI 1", "as lockstep/machine.h shows"}},
    {"function", LOCKSTEP_EABI, {"exports no table `lockstep_machine`"}},
    {"tiny", LOCKSTEP_EINVAL, {"table says 0 bytes, has 4", "sizeof(struct lockstep_machine)"}},
    {"too_small", LOCKSTEP_EINVAL, {"table says 40 bytes", "needs at least 48 for ABI 1"}},
    {"beyond", LOCKSTEP_EINVAL, {"table says 4096 bytes, has"}},
    {"no_open", LOCKSTEP_EINVAL, {"it has no open"}},
    {"no_close", LOCKSTEP_EINVAL, {"it has no close"}},
    {"no_apply", LOCKSTEP_EINVAL, {"it has no apply"}},
    {"no_name", LOCKSTEP_EINVAL, {"its name is not 1 to 63 of a-z"}},
    {"bad_name", LOCKSTEP_EINVAL, {"its name is not 1 to 63 of a-z"}},
    {"long_name", LOCKSTEP_EINVAL, {"its name is not 1 to 63 of a-z"}},
    {"no_version", LOCKSTEP_EINVAL, {"its version is not"}},
    {"bad_version", LOCKSTEP_EINVAL, {"its version is not"}},
    {"half_snapshot", LOCKSTEP_EINVAL, {"come together or not at all"}},
    {"unresolved", LOCKSTEP_EINVAL, {"cannot be loaded", "defined_nowhere"}}, /* RTLD_NOW: here, and not in apply */
};

START_TEST(a_bad_plugin_is_refused_with_the_reason)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct plugin plugin;
        memset(&plugin, 0x5a, sizeof plugin);
        const struct refusal *refusal = &refusals[i];
        int rc = plugin_load(fixture(refusal->fixture), copies, NULL, &plugin, why, sizeof why);
        ck_assert_msg(rc == refusal->code, "%s: %d, %s", refusal->fixture, rc, why);
        ck_assert_msg(strstr(why, path) != NULL, "%s is not named in: %s", path, why);
        for (size_t j = 0; j < 3 && refusal->says[j] != NULL; j++)
            ck_assert_msg(strstr(why, refusal->says[j]) != NULL, "\"%s\" is not in: %s", refusal->says[j], why);
        ck_assert_int_eq(plugin.name[0], 0x5a); /* untouched */
    }
    char own[4096];
    struct plugin plugin;
    snprintf(own, sizeof own, "%s/own", copies);
    ck_assert_int_eq(plugin_load(fixture("bad_version"), own, NULL, &plugin, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_int_eq(access(own, F_OK), -1);
}
END_TEST

START_TEST(a_start_that_is_refused_takes_its_copy_away_and_no_other)
{
    struct plugin plugin, again;
    void *machine;
    char own[4096];
    snprintf(own, sizeof own, "%s/own", copies);
    ck_assert_int_eq(plugin_load(fixture("good"), own, NULL, &plugin, why, sizeof why), 0);
    ck_assert_int_eq(plugin_load(fixture("good"), own, NULL, &again, why, sizeof why), 0);
    plugin_copy_undo(&again); /* it was there */
    ck_assert_int_eq(access(plugin.copy_made, R_OK), 0);
    plugin_copy_undo(&plugin);
    ck_assert_int_eq(access(own, F_OK), -1);
    ck_assert_int_eq(plugin.machine.open(NULL, &machine), 0); /* what is loaded stays */
    plugin.machine.close(machine);
}
END_TEST

START_TEST(another_machine_is_refused_with_both_names)
{
    struct plugin plugin;
    int rc = plugin_load(fixture("good"), copies, "bank", &plugin, why, sizeof why);
    ck_assert_int_eq(rc, LOCKSTEP_EFOREIGN);
    ck_assert_ptr_nonnull(strstr(why, "`fixture` version 7.1"));
    ck_assert_ptr_nonnull(strstr(why, "`bank` is wanted"));
}
END_TEST

START_TEST(an_older_table_is_taken_and_what_it_lacks_is_null)
{
    struct plugin plugin;
    ck_assert_int_eq(plugin_load(fixture("older"), copies, NULL, &plugin, why, sizeof why), 0);
    ck_assert(plugin.machine.apply != NULL);
    ck_assert(plugin.machine.query == NULL); /* it stands in the file, behind the size that the plugin says */
    ck_assert_int_eq(plugin_load(fixture("older_cut"), copies, NULL, &plugin, why, sizeof why), 0);
    ck_assert(plugin.machine.query == NULL); /* half a member is none */
}
END_TEST

START_TEST(a_newer_table_of_the_same_abi_is_taken)
{
    struct plugin plugin;
    ck_assert_int_eq(plugin_load(fixture("newer"), copies, NULL, &plugin, why, sizeof why), 0);
    ck_assert_uint_gt(plugin.machine.size, sizeof plugin.machine);
    ck_assert(plugin.machine.apply != NULL);
}
END_TEST

static void write_text(const char *to, const char *text, size_t bytes)
{
    unlink(to);
    FILE *file = fopen(to, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(what_is_no_shared_object_is_refused)
{
    struct plugin plugin;
    ck_assert_int_eq(plugin_load("/nowhere/bank.so", copies, NULL, &plugin, why, sizeof why), LOCKSTEP_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(why, "/nowhere/bank.so: cannot be read: No such file"));
    ck_assert_int_eq(plugin_load(fixtures, copies, NULL, &plugin, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "it is a directory"));
    ck_assert_int_eq(plugin_load("/dev/null", copies, NULL, &plugin, why, sizeof why), LOCKSTEP_EINVAL);
    char file[4096];
    snprintf(file, sizeof file, "%s/text.so", copies);
    write_text(file, "", 0);
    ck_assert_int_eq(plugin_load(file, copies, NULL, &plugin, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "it is empty"));
    write_text(file, "int main(void) {}", 17);
    ck_assert_int_eq(plugin_load(file, copies, NULL, &plugin, why, sizeof why), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "cannot be loaded"));
    unlink(file);
}
END_TEST

/* The copy that plugin_load made. */
static void copy_path(const struct plugin *plugin, char *ret, size_t room)
{
    char hex[65];
    for (size_t i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", plugin->content_hash[i]);
    snprintf(ret, room, "%s/%s.so", copies, hex);
}

START_TEST(the_copy_is_named_by_content_kept_and_replaced_when_damaged)
{
    struct plugin plugin;
    struct stat first, second;
    char copy[4096];
    ck_assert_int_eq(plugin_load(fixture("older"), copies, NULL, &plugin, why, sizeof why), 0);
    copy_path(&plugin, copy, sizeof copy);
    ck_assert_int_eq(stat(copy, &first), 0);
    ck_assert_int_eq(plugin_load(path, copies, NULL, &plugin, why, sizeof why), 0);
    ck_assert_int_eq(stat(copy, &second), 0);
    ck_assert_uint_eq(first.st_ino, second.st_ino); /* not written again: a full disk does not stop a restart */
    write_text(copy, "half", 4);
    ck_assert_int_eq(plugin_load(path, copies, NULL, &plugin, why, sizeof why), 0);
    ck_assert_int_eq(stat(copy, &second), 0);
    ck_assert_int_eq(first.st_size, second.st_size);
    DIR *folder = opendir(copies);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        ck_assert_msg(entry->d_name[0] == '.' || strlen(entry->d_name) == 67, "%s was left", entry->d_name);
    closedir(folder);
}
END_TEST

START_TEST(a_build_over_the_file_of_a_running_plugin_changes_nothing)
{
    struct plugin plugin;
    char file[4096], copy[4096];
    snprintf(file, sizeof file, "%s/../moving.so", copies);
    ck_assert_int_eq(plugin_load(fixture("good"), copies, NULL, &plugin, why, sizeof why), 0);
    copy_path(&plugin, copy, sizeof copy);
    FILE *from = fopen(copy, "rb");
    static char bytes[1 << 20];
    size_t count = fread(bytes, 1, sizeof bytes, from);
    fclose(from);
    write_text(file, bytes, count);
    struct plugin moving;
    ck_assert_int_eq(plugin_load(file, copies, NULL, &moving, why, sizeof why), 0);
    ck_assert_mem_eq(moving.content_hash, plugin.content_hash, sizeof plugin.content_hash);
    FILE *over = fopen(file, "r+b"); /* the same inode, in place, as a linker or cp does */
    memset(bytes, 0xcc, count);
    fwrite(bytes, 1, count, over);
    fclose(over);
    void *machine = NULL;
    ck_assert_int_eq(moving.machine.open(NULL, &machine), 0);
    moving.machine.close(machine);
    unlink(file);
}
END_TEST

START_TEST(a_folder_for_copies_that_cannot_be_made_is_named)
{
    struct plugin plugin;
    ck_assert_int_eq(plugin_load(fixture("good"), "/nowhere/copies", NULL, &plugin, why, sizeof why),
                     LOCKSTEP_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(why, "/nowhere/copies: cannot be made"));
}
END_TEST

START_TEST(a_machine_is_found_by_name_in_the_folder_of_the_environment)
{
    char found[4096];
    setenv("LOCKSTEP_MACHINES", fixtures, 1);
    ck_assert_int_eq(plugin_find("fixture_good", "/base", found, sizeof found, why, sizeof why), 0);
    ck_assert_str_eq(found, fixture("good"));
    unsetenv("LOCKSTEP_MACHINES");
}
END_TEST

START_TEST(a_machine_is_found_by_path_relative_to_the_configuration)
{
    char found[4096];
    ck_assert_int_eq(plugin_find("./fixture_good.so", fixtures, found, sizeof found, why, sizeof why), 0);
    ck_assert_int_eq(access(found, R_OK), 0);
    ck_assert_int_eq(plugin_find(fixture("good"), "/base", found, sizeof found, why, sizeof why), 0);
    ck_assert_str_eq(found, path);
    ck_assert_int_eq(plugin_find("./bank.so", "/base", found, sizeof found, why, sizeof why), LOCKSTEP_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(why, "/base/./bank.so"));
}
END_TEST

START_TEST(a_machine_that_is_nowhere_is_refused_with_every_place)
{
    char found[4096];
    setenv("LOCKSTEP_MACHINES", "/from/environment", 1);
    int rc = plugin_find("absent", "/base", found, sizeof found, why, sizeof why);
    unsetenv("LOCKSTEP_MACHINES");
    ck_assert_int_eq(rc, LOCKSTEP_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(why, "absent.so"));
    ck_assert_ptr_nonnull(strstr(why, "/from/environment"));
    char program[4096];
    ssize_t count = readlink("/proc/self/exe", program, sizeof program - 1);
    program[count] = '\0';
    *strrchr(program, '/') = '\0';
    ck_assert_ptr_nonnull(strstr(why, program));
    ck_assert_ptr_nonnull(strstr(why, "lockstep/machines"));
    ck_assert_int_eq(plugin_find("", "/base", found, sizeof found, why, sizeof why), LOCKSTEP_EINVAL);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_good_plugin_is_loaded_with_its_name_version_and_hash);
    tcase_add_test(tests, a_bad_plugin_is_refused_with_the_reason);
    tcase_add_test(tests, a_start_that_is_refused_takes_its_copy_away_and_no_other);
    tcase_add_test(tests, another_machine_is_refused_with_both_names);
    tcase_add_test(tests, an_older_table_is_taken_and_what_it_lacks_is_null);
    tcase_add_test(tests, a_newer_table_of_the_same_abi_is_taken);
    tcase_add_test(tests, what_is_no_shared_object_is_refused);
    tcase_add_test(tests, the_copy_is_named_by_content_kept_and_replaced_when_damaged);
    tcase_add_test(tests, a_build_over_the_file_of_a_running_plugin_changes_nothing);
    tcase_add_test(tests, a_folder_for_copies_that_cannot_be_made_is_named);
    tcase_add_test(tests, a_machine_is_found_by_name_in_the_folder_of_the_environment);
    tcase_add_test(tests, a_machine_is_found_by_path_relative_to_the_configuration);
    tcase_add_test(tests, a_machine_that_is_nowhere_is_refused_with_every_place);
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    copies = argv[1];
    fixtures = argv[2];
    return unit_main("plugin", add);
}
