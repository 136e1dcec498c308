/* SPDX-License-Identifier: Apache-2.0 */
/* A machine with a mistake: where a batch begins means something to it, and replicas cut batches differently. */
#include <stdlib.h>

#include "lockstep/machine.h"

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
    unsigned char number = 0;
    while (batch->next(batch) != NULL) {
        number++;
        replies->answer(replies, LOCKSTEP_OK, 0, &number, sizeof number);
    }
    return 0;
}

const struct lockstep_machine lockstep_machine = {
    .size = sizeof(struct lockstep_machine),
    .abi = LOCKSTEP_MACHINE_ABI,
    .name = "borders",
    .version = "1",
    .open = machine_open,
    .close = machine_close,
    .apply = machine_apply,
};
