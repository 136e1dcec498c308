/* SPDX-License-Identifier: Apache-2.0 */
/* recover.h - what the two ways to recover share: from the directory of a node that is stopped, and of one that runs. */
#ifndef LOCKSTEP_CLI_RECOVER_H
#define LOCKSTEP_CLI_RECOVER_H

#include "cli/cli.h"

/* Ask for the cluster's name, or take --confirm. ret  EXIT_OK: it was given; else the exit code with the error written */
int recover_confirm(const struct cli *cli, const char *cluster);
int recover_online(const struct cli *cli);

#endif
