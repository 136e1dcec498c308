#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A user's program: compiled and linked against what is installed, with the flags of pkg-config and nothing else.

Arguments: the build folder, the command meson.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD, MESON = os.path.abspath(sys.argv[1]), sys.argv[2]

PROGRAM = """
#include <lockstep/client.h>
#include <stdio.h>
int main(void)
{
    struct lockstep_client_options options = {.size = sizeof options, .endpoints = "127.0.0.1:1"};
    struct lockstep_client *client;
    char why[256] = "";
    if (lockstep_client_open(&options, &client, why, sizeof why) != 0) return 1;
    struct lockstep_proposal proposal = {.command = "x", .command_bytes = 1};
    struct lockstep_result result;
    int rc = lockstep_propose_wait(client, &proposal, &result);
    printf("%s|%s|%d\\n", lockstep_error_text(rc), result.text, result.fate == LOCKSTEP_NOT_APPENDED);
    lockstep_client_close(client);
    return 0;
}
"""


def run(arguments, **options):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=120, **options)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


class Installed(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lockstep-installed-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.root = os.path.join(self.folder, "root")
        run([MESON, "install", "-C", BUILD, "--no-rebuild", "--destdir", self.root, "--tags", "devel,runtime"])
        found = {file: folder for folder, _, files in os.walk(self.root) for file in files}
        self.libraries = found["liblockstep-client.so"]
        self.header = os.path.join(found["client.h"], "client.h")
        self.environment = dict(os.environ, PKG_CONFIG_LIBDIR=found["lockstep-client.pc"], PKG_CONFIG_PATH="",
                                PKG_CONFIG_SYSROOT_DIR=self.root, LD_LIBRARY_PATH=self.libraries)

    def test_a_program_builds_by_pkg_config_and_runs(self):
        source, program = os.path.join(self.folder, "it.c"), os.path.join(self.folder, "it")
        with open(source, "w", encoding="utf-8") as out:
            out.write(PROGRAM)
        line = f"cc -std=c11 -Wall -Wextra -Wpedantic -Werror {source} -o {program} $(pkg-config --cflags --libs lockstep-client)"
        run(["sh", "-c", line], env=self.environment)
        said = run([program], env=self.environment)
        self.assertEqual(said, "no endpoint could be reached|127.0.0.1:1: connect: Connection refused|1\n")

    def test_the_library_exports_the_functions_of_its_header_and_no_others(self):
        listed = run(["nm", "-D", "--defined-only", os.path.join(self.libraries, "liblockstep-client.so")])
        exported = {line.split()[2].split("@")[0] for line in listed.splitlines() if " T " in line}
        with open(self.header, encoding="utf-8") as header:
            declared = set(re.findall(r"^[a-z][^\n;(]*?\b(lockstep_\w+)\(", header.read(), re.MULTILINE))
        declared -= {"lockstep_result_callback", "lockstep_status_callback"}  # types
        self.assertEqual(exported, declared)


unittest.main(argv=sys.argv[:1])
