/* SPDX-License-Identifier: Apache-2.0 */
/* test_server.c - a node as a process: how it starts, how it says that it cannot, and how it ends, by exit code and
 * sentence. Each is a child process with real files and ports; the client front is left out. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lockstep/errors.h"
#include "server/front.h"
#include "server/server.h"
#include "tests/support/unit.h"

/* --- a front without clients --- */

struct front {
    int unused;
};
static struct front no_clients;

int front_open(const struct front_options *options, struct front **ret, char *why, size_t why_room)
{
    (void)options;
    (void)why;
    (void)why_room;
    *ret = &no_clients;
    return 0;
}

static void proposed(void *context, uint64_t tag, const struct node_outcome *outcome)
{
    (void)context;
    (void)tag;
    (void)outcome;
}

static void queried(void *context, uint64_t tag, const struct node_answer *answer)
{
    (void)context;
    (void)tag;
    (void)answer;
}

static void transferred(void *context, uint64_t tag, int error)
{
    (void)context;
    (void)tag;
    (void)error;
}

static void member_changed(void *context, uint64_t tag, const struct node_change_result *result)
{
    (void)context;
    (void)tag;
    (void)result;
}

static void changed(void *context)
{
    (void)context;
}

struct node_owner front_node_owner(struct front *front)
{
    return (struct node_owner){front, proposed, queried, transferred, member_changed, changed};
}

void front_attach(struct front *front, struct node *node)
{
    (void)front;
    (void)node;
}

void front_flush(struct front *front)
{
    (void)front;
}

void front_stop(struct front *front)
{
    (void)front;
}

bool front_drained(const struct front *front)
{
    (void)front;
    return true;
}

void front_close(struct front *front)
{
    (void)front;
}

/* --- one node in a folder of its own --- */

static char folder[64];
static struct server_options options;

static void set_up(void)
{
    char path[128], why[SERVER_WHY_BYTES_MAX];
    snprintf(folder, sizeof folder, "/tmp/lockstep-server-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/lockstep.toml", folder);
    FILE *file = fopen(path, "w");
    fprintf(file,
            "cluster = \"test\"\nmachine = \"kv\"\n"
            "[node.n1]\nclient = \"127.0.0.1:%d\"\npeer = \"127.0.0.1:%d\"\ndata = \"n1\"\n"
            "[limits]\nring = \"8MiB\"\n[storage]\njournal = \"32MiB\"\nmap = \"1GiB\"\n",
            unit_free_port(), unit_free_port());
    fclose(file);
    int rc = server_options_read(path, "n1", NULL, 0, &options, why);
    ck_assert_msg(rc == 0, "%s", why);
}

static void tear_down(void)
{
    unit_folder_remove(folder);
}

/* A child that runs the server, stderr in folder/NAME. */
static pid_t start(const char *name)
{
    fflush(NULL);
    pid_t child = fork();
    if (child != 0) return child;
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDERR_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    _exit(server_run(&options));
}

static const char *said(const char *name)
{
    static char text[65536];
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    text[0] = 0;
    if (file == NULL) return text;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return text;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void wait_until_said(const char *name, const char *words)
{
    for (int i = 0; i < 10000 && strstr(said(name), words) == NULL; i++) sleep_ms(1);
    ck_assert_msg(strstr(said(name), words) != NULL, "\"%s\" not in: %s", words, said(name));
}

static void ends_with(pid_t child, const char *name, int code, const char *words)
{
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == code, "status %x instead of exit %d: %s",
                  (unsigned)status, code, said(name));
    ck_assert_msg(strstr(said(name), words) != NULL, "\"%s\" not in: %s", words, said(name));
}

START_TEST(single_node_is_born_leads_and_exits_0_on_sigterm)
{
    pid_t child = start("log");
    wait_until_said("log", "leader=n1");
    kill(child, SIGTERM);
    ends_with(child, "log", 0, " info n1 server: stopped\n");
    child = start("again"); /* and comes back to what it was */
    wait_until_said("again", "leader=n1");
    ck_assert_ptr_nonnull(strstr(said("again"), "boot=2 term=1"));
    kill(child, SIGINT);
    ends_with(child, "again", 0, " info n1 server: stopped\n");
}
END_TEST

START_TEST(machine_that_is_nowhere_exits_2_and_creates_nothing)
{
    char data[128];
    snprintf(options.machine, sizeof options.machine, "nosuch");
    ends_with(start("log"), "log", 2, "lockstep: machine nosuch: ");
    snprintf(data, sizeof data, "%s/n1", folder);
    ck_assert_int_eq(access(data, F_OK), -1);
}
END_TEST

START_TEST(plugin_that_is_none_exits_2)
{
    snprintf(options.machine, sizeof options.machine, "%s/lockstep.toml", folder);
    ends_with(start("log"), "log", 2, "lockstep: plugin ");
}
END_TEST

START_TEST(data_directory_that_cannot_be_made_exits_1)
{
    snprintf(options.node.data_directory, sizeof options.node.data_directory, "%s/no/where", folder);
    ends_with(start("log"), "log", 1, "cannot be made: No such file or directory; make the folder above it");
}
END_TEST

START_TEST(peer_port_in_use_exits_1)
{
    int fd = unit_listen(atoi(strrchr(options.listen_peer, ':') + 1));
    ends_with(start("log"), "log", 1, "cannot listen: Address already in use");
    close(fd);
}
END_TEST

START_TEST(second_process_on_a_directory_exits_1_and_the_first_goes_on)
{
    pid_t first = start("first");
    wait_until_said("first", "leader=n1");
    ends_with(start("second"), "second", 1,
              "in use by another process, which holds its file 'lock'; stop that one first");
    ck_assert_int_eq(waitpid(first, NULL, WNOHANG), 0);
    kill(first, SIGTERM);
    ends_with(first, "first", 0, "stopped");
}
END_TEST

START_TEST(directory_of_another_node_exits_1)
{
    pid_t child = start("log");
    wait_until_said("log", "leader=n1");
    kill(child, SIGTERM);
    ends_with(child, "log", 0, "stopped");
    snprintf(options.node.members[0].name, sizeof options.node.members[0].name, "n7");
    ends_with(start("log"), "log", 1, "belongs to node 'n1', but this is node 'n7'");
}
END_TEST

START_TEST(damaged_identity_exits_7)
{
    char path[128];
    pid_t child = start("log");
    wait_until_said("log", "leader=n1");
    kill(child, SIGTERM);
    ends_with(child, "log", 0, "stopped");
    snprintf(path, sizeof path, "%s/n1/identity", folder);
    int fd = open(path, O_RDWR);
    uint8_t byte;
    ck_assert_int_eq(pread(fd, &byte, 1, 40), 1);
    byte ^= 1;
    ck_assert_int_eq(pwrite(fd, &byte, 1, 40), 1);
    close(fd);
    ends_with(start("log"), "log", 7, "'identity' is damaged");
}
END_TEST

START_TEST(wrong_fault_rules_exit_2)
{
    snprintf(options.faults, sizeof options.faults, "los=1%%");
    ends_with(start("log"), "log", 2, "lockstep: fault rules: \"los=1%\" is not understood");
}
END_TEST

START_TEST(bus_error_exits_7_with_a_sentence) /* a mapped file that somebody truncated */
{
    pid_t child = start("log");
    wait_until_said("log", "leader=n1");
    kill(child, SIGBUS);
    ends_with(child, "log", 7, "lockstep: a mapped file could not be read (SIGBUS)");
}
END_TEST

static void add(TCase *tests)
{
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, single_node_is_born_leads_and_exits_0_on_sigterm);
    tcase_add_test(tests, machine_that_is_nowhere_exits_2_and_creates_nothing);
    tcase_add_test(tests, plugin_that_is_none_exits_2);
    tcase_add_test(tests, data_directory_that_cannot_be_made_exits_1);
    tcase_add_test(tests, peer_port_in_use_exits_1);
    tcase_add_test(tests, second_process_on_a_directory_exits_1_and_the_first_goes_on);
    tcase_add_test(tests, directory_of_another_node_exits_1);
    tcase_add_test(tests, damaged_identity_exits_7);
    tcase_add_test(tests, wrong_fault_rules_exit_2);
    tcase_add_test(tests, bus_error_exits_7_with_a_sentence);
}

int main(void)
{
    return unit_main("server process", add);
}
