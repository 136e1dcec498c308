#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A user's machine: examples/own-machine is built by the very line of its README, from the source tree and from what is
installed, and runs; and machine.h is C11 and C++ to the strictest compilers at hand.

Arguments: the source folder, the build folder, the program run_machine, the command meson.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD, RUN_MACHINE, MESON = [os.path.abspath(a) for a in sys.argv[1:4]] + [sys.argv[4]]
EXAMPLE = os.path.join(SOURCE, "examples", "own-machine")

CONVERSATION = [
    ("open alice", "OK "),
    ("open alice", "REJECT 3 the account exists"),
    ("transfer alice bob 30", "REJECT 2 no such account"),
    ("open bob", "OK "),
    ("transfer alice bob 30", "REJECT 4 lack of funds"),
    ("deposit alice 100", "OK 100"),
    ("transfer alice bob 30", "OK 70"),
    ("transfer bob alice 31", "REJECT 4 lack of funds"),
    ("transfer bob bob 30", "OK 30"),
    ("? balance bob", "OK 30"),
    ("balance alice", "OK 70"),
    ("? balance nobody", "REJECT 2 no such account"),
    ("? deposit alice 1", "REJECT 1 balance ACCOUNT"),
    ("deposit alice 0", "REJECT 1 deposit ACCOUNT N"),
    ("deposit alice -5", "REJECT 1 deposit ACCOUNT N"),
    ("deposit alice 1000000000001", "REJECT 1 deposit ACCOUNT N"),
    ("open " + "x" * 32, "REJECT 1 open ACCOUNT"),
    ("open a/b", "REJECT 1 open ACCOUNT"),
    ("give me all", "REJECT 1 open | deposit | transfer | balance"),
    ("", "REJECT 1 open | deposit | transfer | balance"),
]

A_MACHINE_IN_CPP = """
#include <lockstep/errors.h>
#include <lockstep/machine.h>
static int open_it(const struct lockstep_host *, void **ret) { static int it; *ret = &it; return 0; }
static void close_it(void *) {}
static int apply_it(void *, struct lockstep_batch *batch, struct lockstep_replies *replies)
{
    while (const struct lockstep_command *command = batch->next(batch))
        replies->answer(replies, LOCKSTEP_OK, 0, command->payload, command->payload_bytes);
    return 0;
}
static struct lockstep_hash hash_it(void *) { struct lockstep_hash hash = {1, 2}; return hash; }
const struct lockstep_machine lockstep_machine = {
    sizeof(struct lockstep_machine), LOCKSTEP_MACHINE_ABI, "echo", "1", open_it, close_it, apply_it, nullptr, hash_it,
    nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
};
"""


def build_line():
    """The one line of the README that compiles."""
    with open(os.path.join(EXAMPLE, "README.md"), encoding="utf-8") as readme:
        lines = re.findall(r"^cc .*$", readme.read(), re.MULTILINE)
    assert len(lines) == 1, lines
    return lines[0]


def run(arguments, **options):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=120, **options)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def converse(folder, file, name, lines):
    given = "".join(line + "\n" for line in lines)
    return run([RUN_MACHINE, os.path.join(folder, "copies"), file, name], input=given).splitlines()


class OwnMachine(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lockstep-own-machine-")
        self.addCleanup(shutil.rmtree, self.folder)

    def build_example(self, where, environment):
        """Copies the project to `where`, runs the README's line there, and returns what the machine then says."""
        shutil.copytree(EXAMPLE, where, ignore=shutil.ignore_patterns("*.so"))
        said = run(["sh", "-c", build_line()], cwd=where, env=environment)
        self.assertEqual(said, "")  # no warnings
        return converse(self.folder, os.path.join(where, "bank.so"), "bank", [command for command, _ in CONVERSATION])

    def check(self, answers):
        self.assertEqual(len(answers), len(CONVERSATION) + 1)
        for (command, expected), answer in zip(CONVERSATION, answers):
            self.assertEqual(answer, expected, command)
        self.assertRegex(answers[-1], "^hash [0-9a-f]{16} [0-9a-f]{16}$")

    def test_the_line_of_the_readme_builds_from_the_source_tree(self):
        shutil.copytree(os.path.join(SOURCE, "include"), os.path.join(self.folder, "include"))
        environment = dict(os.environ, PKG_CONFIG_LIBDIR="/nowhere", PKG_CONFIG_PATH="")
        self.check(self.build_example(os.path.join(self.folder, "examples", "own-machine"), environment))

    def test_the_line_of_the_readme_builds_from_what_is_installed(self):
        root = os.path.join(self.folder, "root")
        run([MESON, "install", "-C", BUILD, "--no-rebuild", "--destdir", root, "--tags", "devel"])
        found = [folder for folder, _, files in os.walk(root) if "lockstep-machine.pc" in files]
        self.assertEqual(len(found), 1)
        environment = dict(os.environ, PKG_CONFIG_LIBDIR=found[0], PKG_CONFIG_PATH="", PKG_CONFIG_SYSROOT_DIR=root)
        flags = run(["pkg-config", "--cflags", "lockstep-machine"], env=environment)
        self.assertIn("-fvisibility=hidden", flags)
        self.assertIn("-ffp-contract=off", flags)
        where = os.path.join(self.folder, "elsewhere", "bank")
        self.check(self.build_example(where, environment))

    def test_two_replicas_that_end_alike_have_one_hash(self):
        shutil.copytree(os.path.join(SOURCE, "include"), os.path.join(self.folder, "include"))
        where = os.path.join(self.folder, "examples", "own-machine")
        self.build_example(where, dict(os.environ, PKG_CONFIG_LIBDIR="/nowhere"))
        file = os.path.join(where, "bank.so")
        one = converse(self.folder, file, "bank", ["open a", "open b", "deposit a 5", "transfer a b 2"])[-1]
        other = converse(self.folder, file, "bank", ["open b", "deposit b 2", "open a", "deposit a 3"])[-1]
        different = converse(self.folder, file, "bank", ["open b", "deposit b 3", "open a", "deposit a 2"])[-1]
        self.assertEqual(one, other)
        self.assertNotEqual(one, different)

    def test_the_headers_are_strict_c11(self):
        strict = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-I",
                  os.path.join(SOURCE, "include"), "-fsyntax-only", "-x", "c"]
        compilers = [c for c in ("gcc", "clang", "cc") if shutil.which(c)]
        self.assertTrue(compilers)
        for compiler in compilers:
            for header in ("machine.h", "errors.h"):
                run([compiler, *strict, "-"], input=f"#include <lockstep/{header}>\n#include <lockstep/{header}>\n")
            run([compiler, *strict, os.path.join(EXAMPLE, "bank.c")])

    def test_a_machine_in_cpp_is_compiled_without_a_warning_and_runs(self):
        # clang needs no library of C++ for this, gcc needs its package g++.
        compilers = [c for c in (["g++"], ["clang", "-x", "c++"]) if shutil.which(c[0])]
        self.assertTrue(compilers, "neither g++ nor clang")
        source, file = os.path.join(self.folder, "echo.cpp"), os.path.join(self.folder, "echo.so")
        with open(source, "w", encoding="utf-8") as out:
            out.write(A_MACHINE_IN_CPP)
        for compiler in compilers:
            for standard in ("c++11", "c++20"):
                run([*compiler, f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC",
                     "-fvisibility=hidden", "-I", os.path.join(SOURCE, "include"), source, "-o", file])
                self.assertEqual(converse(self.folder, file, "echo", ["hello"])[0], "OK hello")


unittest.main(argv=sys.argv[:1])
