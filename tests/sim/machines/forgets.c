/* SPDX-License-Identifier: Apache-2.0 */
/* A machine with a mistake: part of its state is static, so no snapshot carries it, and a start forgets it. */
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

static int machine_snapshot_begin(void *machine, void **ret_snapshot)
{
    *ret_snapshot = machine;
    return 0;
}

static int machine_snapshot_write(void *machine, void *snapshot, struct lockstep_writer *writer)
{
    (void)machine;
    (void)snapshot;
    return writer->write(writer, "all", 3);
}

static void machine_snapshot_end(void *machine, void *snapshot)
{
    (void)machine;
    (void)snapshot;
}

static int machine_restore(void *machine, struct lockstep_reader *reader)
{
    (void)machine;
    char bytes[16];
    size_t count;
    do {
        int rc = reader->read(reader, bytes, sizeof bytes, &count);
        if (rc != 0) return rc;
    } while (count > 0);
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
    .snapshot_begin = machine_snapshot_begin,
    .snapshot_write = machine_snapshot_write,
    .snapshot_end = machine_snapshot_end,
    .restore = machine_restore,
};
