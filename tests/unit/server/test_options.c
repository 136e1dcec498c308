/* SPDX-License-Identifier: Apache-2.0 */
/* test_options.c - the configuration of a node: what it becomes, who wins, and every error with its place and its way
 * out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "server/server.h"
#include "tests/support/unit.h"

static char path[64];
static struct server_options options;
static char why[SERVER_WHY_BYTES_MAX];

static void set_up(void)
{
    snprintf(path, sizeof path, "/tmp/lockstep-options-%ld.toml", (long)getpid());
    static const char *const names[] = {"LOCKSTEP_NODE", "LOCKSTEP_LIMITS_RING", "LOCKSTEP_DURABILITY",
                                        "LOCKSTEP_DATA", "LOCKSTEP_FAULTS",      "LOCKSTEP_CLUSTER"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
}

static void tear_down(void)
{
    unlink(path);
}

#define HEAD "cluster = \"demo\"\nmachine = \"kv\"\n"
#define NODES                                                                                                          \
    "[node.n1]\nclient = \"127.0.0.1:7401\"\npeer = \"127.0.0.1:7501\"\ndata = \"n1\"\n"                               \
    "[node.n2]\nclient = \"127.0.0.1:7402\"\npeer = \"127.0.0.1:7502\"\ndata = \"/var/n2\"\n"                          \
    "listen_client = \"0.0.0.0:7402\"\nlisten_peer = \"[::]:7502\"\n"

static int read_with(const char *text, const char *node, const struct server_override *overrides, size_t count)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
    memset(&options, 0x5a, sizeof options);
    return server_options_read(path, node, overrides, count, &options, why);
}

static int read_text(const char *text)
{
    return read_with(text, "n1", NULL, 0);
}

START_TEST(defaults_are_as_documented)
{
    ck_assert_msg(read_text(HEAD NODES) == 0, "%s", why);
    ck_assert_str_eq(options.node.cluster, "demo");
    ck_assert_str_eq(options.machine, "kv");
    ck_assert_str_eq(options.base_directory, "/tmp");
    ck_assert_uint_eq(options.node.member_count, 2);
    ck_assert_uint_eq(options.node.self, 0);
    ck_assert_uint_eq(options.node.level, DURABILITY_LEVEL_FSYNC);
    ck_assert_uint_eq(options.node.election_timeout_ns, 300000000);
    ck_assert_uint_eq(options.node.heartbeat_ns, 60000000);
    ck_assert_uint_eq(options.node.command_bytes_max, 1 << 20);
    ck_assert_uint_eq(options.node.block_bytes_max, 2 << 20);
    ck_assert_uint_eq(options.grpc_message_bytes_max, 4 << 20);
    ck_assert_uint_eq(options.node.ring_bytes, 64 << 20);
    ck_assert_uint_eq(options.node.journal_bytes, 256 << 20);
    ck_assert_uint_eq(options.node.snapshot_after_bytes, 64 << 20);
    ck_assert_uint_eq(options.node.snapshot_age_ns, 86400 * UINT64_C(1000000000));
    ck_assert_uint_eq(options.node.append_inflight_bytes_max, 16 << 20);
    ck_assert_uint_eq(options.connections_max, 10000);
    ck_assert_uint_eq(options.node.sessions.sessions_max, 65536);
    ck_assert_uint_eq(options.node.sessions.expiry_ns, UINT64_C(60000000000));
    ck_assert_uint_eq(options.node.sessions.window, 1024);
    ck_assert_uint_eq(options.node.sessions.replies_bytes, 64 << 20);
    ck_assert_uint_eq(options.node.map_bytes, (uint64_t)1 << 40);
    ck_assert_str_eq(options.node.data_directory, "/tmp/n1");
    ck_assert_str_eq(options.node.journal_directory, "");
    ck_assert_str_eq(options.listen_client, "127.0.0.1:7401");
    ck_assert_str_eq(options.listen_peer, "127.0.0.1:7501");
    ck_assert_str_eq(options.faults, "");
    ck_assert(options.shared_memory);
    ck_assert_uint_eq(options.spin_ns, 0);
}
END_TEST

START_TEST(each_node_reads_its_own_table_of_the_same_file)
{
    ck_assert_int_eq(read_with(HEAD NODES, "n2", NULL, 0), 0);
    ck_assert_uint_eq(options.node.self, 1);
    ck_assert_str_eq(options.node.data_directory, "/var/n2");
    ck_assert_str_eq(options.listen_client, "0.0.0.0:7402");
    ck_assert_str_eq(options.listen_peer, "[::]:7502");
    ck_assert_str_eq(options.node.members[1].client, "127.0.0.1:7402");
    ck_assert_str_eq(options.node.members[0].peer, "127.0.0.1:7501");
}
END_TEST

START_TEST(all_keys_are_read)
{
    ck_assert_msg(
        read_text(
            HEAD
            "durability = \"fsync\"\n" NODES
            "[raft]\nelection_timeout = \"1s\"\nheartbeat = \"200ms\"\nlease_reads = true\n"
            "[limits]\ncommand = \"64KiB\"\nblock = \"128KiB\"\ngrpc_message = \"256KiB\"\n"
            "ring = \"8MiB\"\nappend_inflight = \"1MiB\"\nconnections = 50\nsessions = 7\nsession_expiry = \"5s\"\n"
            "[storage]\nmap = \"1GiB\"\njournal = \"32MiB\"\njournal_dir = \"fast\"\nsnapshot_after = \"8KiB\"\n"
            "snapshot_age = \"1h\"\n"
            "[transport]\nshared_memory = \"off\"\nspin = \"20us\"\n") == 0,
        "%s", why);
    ck_assert_uint_eq(options.node.election_timeout_ns, 1000000000);
    ck_assert_uint_eq(options.node.heartbeat_ns, 200000000);
    ck_assert(options.node.lease_reads);
    ck_assert_uint_eq(options.node.command_bytes_max, 64 << 10);
    ck_assert_uint_eq(options.node.block_bytes_max, 128 << 10);
    ck_assert_uint_eq(options.grpc_message_bytes_max, 256 << 10);
    ck_assert_uint_eq(options.node.ring_bytes, 8 << 20);
    ck_assert_uint_eq(options.node.append_inflight_bytes_max, 1 << 20);
    ck_assert_uint_eq(options.connections_max, 50);
    ck_assert_uint_eq(options.node.sessions.sessions_max, 7);
    ck_assert_uint_eq(options.node.sessions.expiry_ns, UINT64_C(5000000000));
    ck_assert_uint_eq(options.node.map_bytes, 1 << 30);
    ck_assert_uint_eq(options.node.journal_bytes, 32 << 20);
    ck_assert_uint_eq(options.node.snapshot_after_bytes, 8 << 10);
    ck_assert_uint_eq(options.node.snapshot_age_ns, 3600 * UINT64_C(1000000000));
    ck_assert(!options.shared_memory);
    ck_assert_uint_eq(options.spin_ns, 20000);
    ck_assert_str_eq(options.node.journal_directory, "/tmp/fast/n1"); /* nodes of one host do not share a journal */
}
END_TEST

START_TEST(every_level_is_read)
{
    static const struct {
        const char *text;
        enum durability_level level;
    } levels[] = {{HEAD "durability = \"fsync\"\n" NODES, DURABILITY_LEVEL_FSYNC},
                  {HEAD "durability = \"os\"\n" NODES, DURABILITY_LEVEL_OS},
                  {HEAD "durability = \"memory\"\n" NODES, DURABILITY_LEVEL_MEMORY}};
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        ck_assert_msg(read_text(levels[i].text) == 0, "%s", why);
        ck_assert_int_eq(options.node.level, levels[i].level);
    }
}
END_TEST

START_TEST(flags_beat_environment_beats_file_beats_defaults)
{
    static const char text[] = HEAD NODES "[limits]\nring = \"16MiB\"\n";
    ck_assert_int_eq(read_text(text), 0);
    ck_assert_uint_eq(options.node.ring_bytes, 16 << 20);
    setenv("LOCKSTEP_LIMITS_RING", "32MiB", 1);
    setenv("LOCKSTEP_DATA", "elsewhere", 1);
    setenv("LOCKSTEP_FAULTS", "delay=1ms", 1);
    ck_assert_int_eq(read_text(text), 0);
    ck_assert_uint_eq(options.node.ring_bytes, 32 << 20);
    ck_assert_str_eq(options.node.data_directory, "/tmp/elsewhere");
    ck_assert_str_eq(options.faults, "delay=1ms");
    const struct server_override flags[] = {{"limits.ring", "8MiB"}, {"listen_client", "127.0.0.1:9"}};
    ck_assert_int_eq(read_with(text, "n1", flags, 2), 0);
    ck_assert_uint_eq(options.node.ring_bytes, 8 << 20);
    ck_assert_str_eq(options.listen_client, "127.0.0.1:9");
    setenv("LOCKSTEP_RAFT_LEASE_READS", "yes", 1);
    ck_assert_int_eq(read_text(text), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "raft.lease_reads is \"yes\"; write true or false"));
    unsetenv("LOCKSTEP_RAFT_LEASE_READS");
    setenv("LOCKSTEP_LIMITS_RING", "a lot", 1); /* wrong, and of no account */
    ck_assert_int_eq(read_with(text, "n1", flags, 2), 0);
    ck_assert_uint_eq(options.node.ring_bytes, 8 << 20);
}
END_TEST

START_TEST(node_is_named_by_flag_environment_or_being_alone)
{
    ck_assert_int_eq(read_with(HEAD NODES, NULL, NULL, 0), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "which node is this? say --node NAME, one of n1, n2"));
    setenv("LOCKSTEP_NODE", "n2", 1);
    ck_assert_int_eq(read_with(HEAD NODES, NULL, NULL, 0), 0);
    ck_assert_uint_eq(options.node.self, 1);
    unsetenv("LOCKSTEP_NODE");
    ck_assert_int_eq(read_with(HEAD "[node.only]\nclient = \"a:1\"\npeer = \"a:2\"\ndata = \"d\"\n", NULL, NULL, 0), 0);
    ck_assert_str_eq(options.node.members[0].name, "only");
}
END_TEST

/* --- errors --- */

struct error {
    const char *text;
    const char *place; /* ":line:column", or "" */
    const char *what;
};

static void fails_so(const struct error *errors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct server_options before;
        int rc = read_text(errors[i].text);
        memset(&before, 0x5a, sizeof before);
        ck_assert_msg(rc == LOCKSTEP_EINVAL, "%zu: rc %d for\n%s", i, rc, errors[i].text);
        char expected[512];
        snprintf(expected, sizeof expected, "%s%s: %s", path, errors[i].place, errors[i].what);
        ck_assert_str_eq(why, expected);
        ck_assert_mem_eq(&options, &before, sizeof options); /* set on success only */
    }
}

START_TEST(unknown_keys_and_tables_are_named_with_the_nearest)
{
    static const struct error errors[] = {
        {HEAD NODES "[limits]\nrnig = \"8MiB\"\n", ":14:1", "[limits] has no key \"rnig\"; did you mean \"ring\"?"},
        {HEAD NODES "[raft]\nx = 1\n", ":14:1",
         "[raft] has no key \"x\"; there is election_timeout, heartbeat, lease_reads"},
        {HEAD NODES "[limit]\n", ":13:2", "there is no table [limit]; did you mean \"limits\"?"},
        {HEAD "durabilty = \"fsync\"\n" NODES, ":3:1",
         "there is no key \"durabilty\" before the first table; did you mean \"durability\"?"},
        {HEAD NODES "lisen_peer = \"a:1\"\n", ":13:1",
         "[node.n2] has no key \"lisen_peer\"; did you mean \"listen_peer\"?"},
        {HEAD "[node]\nclient = \"a:1\"\n", ":4:1",
         "[node] has a key \"client\"; a node is a table of its own: [node.NAME]"},
    };
    fails_so(errors, sizeof errors / sizeof *errors);
}
END_TEST

START_TEST(wrong_values_are_named_with_what_to_write)
{
    static const struct error errors[] = {
        {HEAD NODES "[limits]\nring = 64\n", ":14:8",
         "limits.ring is an integer; write a whole number with B, KiB, MiB, GiB or TiB, such as \"64MiB\""},
        {HEAD NODES "[limits]\nring = \"64MB\"\n", ":14:8",
         "limits.ring is \"64MB\"; write a whole number with B, KiB, MiB, GiB or TiB, such as \"64MiB\""},
        {HEAD NODES "[limits]\nring = \"4MiB\"\n", ":14:8", "limits.ring is 4MiB; it can be 8MiB to 256GiB"},
        {HEAD NODES "[limits]\nconnections = \"10\"\n", ":14:15",
         "limits.connections is a string; write a whole number without quotes"},
        {HEAD NODES "[limits]\nconnections = 0\n", ":14:15", "limits.connections is 0; it can be 1 to 1000000"},
        {HEAD NODES "[limits]\nconnections = -1\n", ":14:15",
         "limits.connections is \"-1\"; write a whole number, such as 10000"},
        {HEAD NODES "[raft]\nheartbeat = \"fast\"\n", ":14:13",
         "raft.heartbeat is \"fast\"; write a whole number with ns, us, ms, s, m, h or d, such as \"300ms\""},
        {HEAD NODES "[raft]\nheartbeat = \"1us\"\n", ":14:13", "raft.heartbeat is 1us; it can be 1ms to 30s"},
        {HEAD "durability = \"memory\"\n" NODES "[storage]\njournal_dir = \"fast\"\n", ":15:15",
         "storage.journal_dir is \"fast\", but durability \"memory\" keeps no journal; leave it out"},
        {HEAD "durability = \"fast\"\n" NODES, ":3:14",
         "durability is \"fast\"; write \"fsync\", \"os\" or \"memory\""},
        {HEAD NODES "[transport]\nshared_memory = \"on\"\n", ":14:17",
         "transport.shared_memory is \"on\"; write \"auto\" or \"off\""},
        {HEAD NODES "[transport]\nshared_memory = true\n", ":14:17",
         "transport.shared_memory is a boolean; write a string"},
        {HEAD NODES "[transport]\nspin = \"2ms\"\n", ":14:8", "transport.spin is 2ms; it can be 0s to 1ms"},
        {"cluster = \"a b\"\nmachine = \"kv\"\n" NODES, ":1:11",
         "cluster is \"a b\"; use 1 to 63 letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'"},
        {"cluster = \"demo\"\nmachine = \"\"\n" NODES, ":2:11", "machine is empty; leave it out or give it a value"},
        {HEAD "[node.n1]\nclient = \"7401\"\n", ":4:10",
         "client is \"7401\"; write HOST:PORT, such as \"127.0.0.1:7401\" or \"[::1]:7401\""},
        {HEAD "[node.n1]\nclient = \"h:0\"\n", ":4:10", "client has port 0; write the port that others can connect to"},
        {HEAD "[node.n1]\nclient = 7401\n", ":4:10", "client is an integer; write a string"},
        {HEAD "[node.\"n 1\"]\n", ":3:7",
         "node name \"n 1\"; use 1 to 63 letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'"},
    };
    fails_so(errors, sizeof errors / sizeof *errors);
}
END_TEST

START_TEST(missing_things_are_named)
{
    static const struct error errors[] = {
        {"machine = \"kv\"\n" NODES, "", "no cluster; write cluster = \"NAME\" before the first table"},
        {"cluster = \"demo\"\n" NODES, "", "no machine; write machine = \"NAME\" before the first table"},
        {HEAD, "", "no nodes; write a table [node.NAME] for each"},
        {HEAD "[node.n9]\nclient = \"a:1\"\npeer = \"a:2\"\ndata = \"d\"\n", "",
         "there is no [node.n1]; say --node with one of n9"},
        {HEAD "[node.n1]\npeer = \"a:2\"\ndata = \"d\"\n", ":3:1",
         "[node.n1] has no client; write client = \"HOST:PORT\""},
        {HEAD "[node.n1]\nclient = \"a:2\"\ndata = \"d\"\n", ":3:1",
         "[node.n1] has no peer; write peer = \"HOST:PORT\""},
        {HEAD "[node.n1]\nclient = \"a:1\"\npeer = \"a:2\"\n", ":3:1",
         "[node.n1] has no data; write data = \"FOLDER\""},
    };
    fails_so(errors, sizeof errors / sizeof *errors);
}
END_TEST

START_TEST(values_that_do_not_go_together_are_named)
{
    static const struct error errors[] = {
        {HEAD NODES "[raft]\nheartbeat = \"300ms\"\n", ":14:13",
         "raft.heartbeat 300ms is not below raft.election_timeout 300ms; a fifth of it is usual"},
        {HEAD NODES "[raft]\nelection_timeout = \"50ms\"\n", ":14:20",
         "raft.heartbeat 60ms is not below raft.election_timeout 50ms; a fifth of it is usual"},
        {HEAD NODES "[limits]\ncommand = \"2MiB\"\n", ":14:11",
         "limits.command 2MiB does not fit into limits.block 2MiB with its headers; command < block"},
        {HEAD NODES "[limits]\nblock = \"4MiB\"\n", ":14:9",
         "limits.block 4MiB is not below limits.grpc_message 4MiB; command < block < grpc_message"},
        {HEAD NODES "[limits]\nring = \"48MiB\"\n", ":14:8", "limits.ring 48MiB is no power of two; take 32MiB"},
        {HEAD NODES "[limits]\nring = \"8MiB\"\nblock = \"3MiB\"\n", ":14:8",
         "limits.block 3MiB is more than a quarter of limits.ring 8MiB; make the ring larger"},
        {HEAD NODES "[limits]\nring = \"128MiB\"\n", ":14:8",
         "storage.journal 256MiB is less than four times limits.ring 128MiB; make it at least 512MiB"},
        {HEAD NODES "[node.n3]\nclient = \"127.0.0.1:7403\"\npeer = \"127.0.0.1:7501\"\ndata = \"n3\"\n", ":15:8",
         "127.0.0.1:7501 is the peer address of node n1 too; give each its own"},
        {HEAD "[node.n1]\nclient = \"h:1\"\npeer = \"h:1\"\ndata = \"n1\"\n", ":5:8",
         "h:1 is the client address of node n1 too; give each its own"},
    };
    fails_so(errors, sizeof errors / sizeof *errors);
}
END_TEST

START_TEST(seventeenth_node_is_refused)
{
    char text[4096] = HEAD;
    size_t at = strlen(text);
    for (unsigned i = 1; i <= 17; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "[node.n%u]\nclient = \"h:%u\"\npeer = \"h:%u\"\ndata = \"d\"\n", i, i, 100 + i);
    ck_assert_int_eq(read_text(text), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, ":67:7: more than 16 nodes; a cluster has 1 to 16, usually 3 or 5"));
}
END_TEST

START_TEST(environment_and_flags_are_named_as_the_place)
{
    setenv("LOCKSTEP_LIMITS_RING", "12", 1);
    ck_assert_int_eq(read_text(HEAD NODES), LOCKSTEP_EINVAL);
    ck_assert_ptr_eq(strstr(why, "LOCKSTEP_LIMITS_RING: limits.ring is \"12\"; write"), why);
    unsetenv("LOCKSTEP_LIMITS_RING");
    const struct server_override unknown = {"limits.rings", "8MiB"}, wrong = {"raft.heartbeat", "1h"};
    ck_assert_int_eq(read_with(HEAD NODES, "n1", &unknown, 1), LOCKSTEP_EINVAL);
    ck_assert_str_eq(why, "--limits.rings: there is no such setting; did you mean \"limits.ring\"?");
    ck_assert_int_eq(read_with(HEAD NODES, "n1", &wrong, 1), LOCKSTEP_EINVAL);
    ck_assert_str_eq(why, "--raft.heartbeat: raft.heartbeat is 1h; it can be 1ms to 30s");
    const struct server_override together = {"raft.heartbeat", "1s"};
    ck_assert_int_eq(read_with(HEAD NODES, "n1", &together, 1), LOCKSTEP_EINVAL);
    ck_assert_str_eq(why, "--raft.heartbeat: raft.heartbeat 1s is not below raft.election_timeout 300ms; a fifth of it "
                          "is usual");
}
END_TEST

START_TEST(a_setting_like_no_other_is_answered_by_all_there_are)
{
    const struct server_override unknown = {"zzzzzzzzzz.qqqqqqqqqqqqq", "1"};
    ck_assert_int_eq(read_with(HEAD NODES, "n1", &unknown, 1), LOCKSTEP_EINVAL);
    ck_assert_ptr_eq(strstr(why, "--zzzzzzzzzz.qqqqqqqqqqqqq: there is no such setting; there is cluster, machine, "),
                     why);
    ck_assert_ptr_nonnull(strstr(why, ", listen_peer")); /* the last one */
}
END_TEST

START_TEST(a_list_of_names_longer_than_its_room_ends_in_dots)
{
    char text[8192] = HEAD;
    size_t at = strlen(text);
    for (unsigned i = 1; i <= 16; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "[node.n%062u]\nclient = \"h:%u\"\npeer = \"h:%u\"\ndata = \"d\"\n", i, i, 100 + i);
    ck_assert_int_eq(read_with(text, NULL, NULL, 0), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "say --node NAME, one of n000"));
    ck_assert_str_eq(why + strlen(why) - 5, ", ...");
}
END_TEST

START_TEST(file_that_is_not_there_and_broken_toml_are_named)
{
    ck_assert_int_eq(server_options_read("/nowhere/x.toml", "n1", NULL, 0, &options, why), LOCKSTEP_EIO);
    ck_assert_ptr_nonnull(strstr(why, "/nowhere/x.toml"));
    ck_assert_int_eq(read_text("cluster = \n"), LOCKSTEP_EINVAL);
    ck_assert_ptr_nonnull(strstr(why, ".toml:1:"));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, defaults_are_as_documented);
    tcase_add_test(tests, each_node_reads_its_own_table_of_the_same_file);
    tcase_add_test(tests, all_keys_are_read);
    tcase_add_test(tests, every_level_is_read);
    tcase_add_test(tests, flags_beat_environment_beats_file_beats_defaults);
    tcase_add_test(tests, node_is_named_by_flag_environment_or_being_alone);
    tcase_add_test(tests, unknown_keys_and_tables_are_named_with_the_nearest);
    tcase_add_test(tests, wrong_values_are_named_with_what_to_write);
    tcase_add_test(tests, missing_things_are_named);
    tcase_add_test(tests, values_that_do_not_go_together_are_named);
    tcase_add_test(tests, seventeenth_node_is_refused);
    tcase_add_test(tests, environment_and_flags_are_named_as_the_place);
    tcase_add_test(tests, a_setting_like_no_other_is_answered_by_all_there_are);
    tcase_add_test(tests, a_list_of_names_longer_than_its_room_ends_in_dots);
    tcase_add_test(tests, file_that_is_not_there_and_broken_toml_are_named);
}

int main(void)
{
    return unit_main("server options", add);
}
