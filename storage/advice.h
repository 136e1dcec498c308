/* SPDX-License-Identifier: Apache-2.0 */
/* advice.h - the next steps that sentences about a directory end with. */
#ifndef LOCKSTEP_STORAGE_ADVICE_H
#define LOCKSTEP_STORAGE_ADVICE_H

#define ADVICE_LOST                                                                                                    \
    "restore the directory from a copy or a backup, or give the node an empty one and run member replace"
#define ADVICE_DISK "check the disk and its permissions"

#endif
