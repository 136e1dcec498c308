/* SPDX-License-Identifier: Apache-2.0 */
/* run_machine.c - a plugin under a test host: run_machine FOLDER FILE.so NAME < lines
 * Each line of standard input is a command; a line that begins with "? " is a query. Prints `OK REPLY`,
 * `REJECT CODE REPLY` or `FATAL` for each, and at the end `hash LOW HIGH`. FOLDER is for the private copy. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "statemachine/plugin.h"
#include "tests/support/direct.h"

static struct plugin plugin;
static struct direct machine;

int main(int argc, char **argv)
{
    char line[65536], why[1024];
    if (argc != 4) return 2;
    if (plugin_load(argv[2], argv[1], argv[3], &plugin, why, sizeof why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    direct_open(&machine, &plugin.machine);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strncmp(line, "? ", 2) == 0)
            direct_ask(&machine, line + 2);
        else
            direct_say(&machine, line);
        if (machine.outcome == LOCKSTEP_OK)
            printf("OK %s\n", machine.reply);
        else if (machine.outcome == LOCKSTEP_REJECT)
            printf("REJECT %d %s\n", machine.code, machine.reply);
        else
            printf("FATAL\n");
    }
    struct lockstep_hash hash = direct_hash(&machine);
    printf("hash %016" PRIx64 " %016" PRIx64 "\n", hash.low, hash.high);
    direct_close(&machine);
    return 0;
}
