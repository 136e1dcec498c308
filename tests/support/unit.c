/* SPDX-License-Identifier: Apache-2.0 */
/* unit.c - see unit.h. */
#include "tests/support/unit.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int unit_main(const char *suite_name, void (*add)(TCase *tests))
{
    Suite *suite = suite_create(suite_name);
    TCase *tests = tcase_create(suite_name);
    tcase_set_timeout(tests, 0); /* meson's timeout is the bound; check's needs a fork */
    add(tests);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    int run = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed == 0 && run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

uint64_t unit_seed(uint64_t usual)
{
    const char *text = getenv("LOCKSTEP_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : usual;
    printf("LOCKSTEP_SEED=0x%" PRIx64 "\n", seed);
    return seed;
}

uint64_t unit_rounds(uint64_t usual)
{
    if (getenv("LOCKSTEP_FULL") != NULL) return usual * 10;
    if (getenv("LOCKSTEP_SHORT") != NULL) return usual < 10 ? 1 : usual / 10;
    return usual;
}

/* A socket that has this port, or -1: somebody else has. As the server's: connections that the kernel has not forgotten yet
 * (TIME_WAIT) are no hindrance. */
static int port_bind(int port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) == 0) return fd;
    close(fd);
    return -1;
}

static bool port_reserve(int port)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int bytes = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "lockstep-test-port-%d", port);
    socklen_t name_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)bytes);
    int mark = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), probe = port_bind(port);
    ck_assert_int_ge(mark, 0);
    bool ours = probe >= 0 && bind(mark, (struct sockaddr *)&name, name_bytes) == 0;
    if (probe >= 0) close(probe);
    if (!ours) close(mark); /* else it stays open: it is the mark */
    return ours;
}

int unit_free_port(void)
{
    enum { FIRST = 20000, COUNT = 9000 };
    static unsigned next;
    if (next == 0) next = (unsigned)getpid() * 37;
    for (int i = 0; i < COUNT; i++) {
        int port = (int)(FIRST + next++ % COUNT);
        if (port_reserve(port)) return port;
    }
    ck_abort_msg("no free port from %d to %d", FIRST, FIRST + COUNT - 1);
    return -1;
}

int unit_listen(int port)
{
    int fd = port_bind(port);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    return fd;
}

uint64_t unit_cluster_id(void)
{
    uint64_t id = 0;
    while (id == 0) ck_assert_int_eq(getrandom(&id, sizeof id, 0), sizeof id);
    return id;
}

int unit_next_descriptor(void)
{
    int fd = dup(STDOUT_FILENO);
    ck_assert_int_ge(fd, 0);
    close(fd);
    return fd;
}

void unit_folder_empty(const char *folder)
{
    DIR *list = opendir(folder);
    if (list == NULL) return;
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        char path[1024];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (unlink(path) != 0) unit_folder_remove(path);
    }
    closedir(list);
}

void unit_folder_remove(const char *folder)
{
    unit_folder_empty(folder);
    rmdir(folder);
}
