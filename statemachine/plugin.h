/* SPDX-License-Identifier: Apache-2.0 */
/* plugin.h - load a machine from a shared object.
 * M7  Loaded from a private copy named by content, RTLD_NOW | RTLD_LOCAL, never dlclosed. The only user of dlfcn.h. */
#ifndef LOCKSTEP_STATEMACHINE_PLUGIN_H
#define LOCKSTEP_STATEMACHINE_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lockstep/machine.h"

struct plugin {
    struct lockstep_machine machine; /* members that the plugin's size does not reach are NULL */
    char name[64], version[64];
    char path[4096];          /* as asked for */
    uint8_t content_hash[32]; /* SHA-256 of the file */
    char copy_made[4096];     /* the private copy, if this load made it; "" = it was there */
    bool folder_made;         /* and so its folder */
};

/* Load and check.
 * path               the file; a private copy is made in copy_directory
 * expected_name      NULL, or the name that the machine must have
 * why                on error a sentence for people: what, both versions where they differ, what to do
 * Nothing is left behind where it fails.
 * ENOTFOUND no file · EABI other ABI or no symbol · EFOREIGN another machine's name · EINVAL no shared object, broken
 * fields · EIO, ENOSPC the copy. Not thread-safe; allocates; before the loop. */
int plugin_load(const char *path, const char *copy_directory, const char *expected_name, struct plugin *ret, char *why,
                size_t why_room);

/* What this load wrote goes away again, and what it loaded stays: for a start that is refused. */
void plugin_copy_undo(const struct plugin *plugin);

/* Find the file for `machine` of a configuration: a path if it contains '/', relative to base_directory; else NAME.so
 * in $LOCKSTEP_MACHINES, in the folder beside the running program, or in the installed plug-in folder.
 * ENOTFOUND: why names every place that was looked at. */
int plugin_find(const char *machine, const char *base_directory, char *ret_path, size_t room, char *why,
                size_t why_room);

#endif
