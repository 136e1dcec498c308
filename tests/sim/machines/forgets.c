/* SPDX-License-Identifier: Apache-2.0 */
/* A machine with a mistake: part of its state is static. Two machines in one process share it, and a start forgets it. */
#include <stdlib.h>

#include "lockstep/machine.h"

static unsigned char applied;

static int machine_open(const struct lockstep_host *host, void **ret_machine)
{
    (void)host;
    *ret_machine = malloc(1);
    return *ret_machine != NULL ? 0 : -1;
}

static void machine_close(void *machine)
{
    free(machine);
}

static int machine_apply(void *machine, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    (void)machine;
    while (batch->next(batch) != NULL) {
        applied++;
        replies->answer(replies, LOCKSTEP_OK, 0, &applied, sizeof applied);
    }
    return 0;
}

const struct lockstep_machine lockstep_machine = {
    .size = sizeof(struct lockstep_machine),
    .abi = LOCKSTEP_MACHINE_ABI,
    .name = "forgets",
    .version = "1",
    .open = machine_open,
    .close = machine_close,
    .apply = machine_apply,
};
