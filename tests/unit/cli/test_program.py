# SPDX-License-Identifier: Apache-2.0
"""The program without a cluster: words that every program knows, and a start that comes to nothing."""
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LOCKSTEP = sys.argv.pop(1)


def run(*words):
    done = subprocess.run([LOCKSTEP, *words], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


class Program(unittest.TestCase):
    def test_flags_in_the_place_of_a_command_are_help_and_version(self):
        self.assertEqual(run("--version"), run("version"))
        self.assertRegex(run("--version")[1], r"^lockstep \d")
        self.assertEqual(run("--help"), run("help"))
        self.assertEqual(run("-h"), run("help"))
        self.assertEqual(run("help")[0], 0)

    def test_a_level_that_is_not_offered_is_refused_before_anything_is_made(self):
        with tempfile.TemporaryDirectory() as parent:
            for command, directory in (("local", os.path.join(parent, "data")), ("bench", parent)):
                code, out, err = run(command, "--dir", directory, "--durability", "memory")
                self.assertEqual((code, out), (2, ""))
                self.assertIn("fsync", err)
                self.assertFalse(os.path.exists(os.path.join(directory, "lockstep.toml")))

    def test_local_that_finds_no_leader_ends_when_it_is_told_to(self):
        with tempfile.TemporaryDirectory() as parent:
            environment = dict(os.environ, LOCKSTEP_FAULTS="cut")
            local = subprocess.Popen([LOCKSTEP, "local", "--dir", os.path.join(parent, "data"), "--port", "27401"],
                                     env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(2)
            begin = time.monotonic()
            local.send_signal(signal.SIGINT)
            out, err = local.communicate(timeout=60)
            self.assertLess(time.monotonic() - begin, 20)
            self.assertEqual((local.returncode, err), (0, ""), out)
            self.assertNotIn("writable", out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
