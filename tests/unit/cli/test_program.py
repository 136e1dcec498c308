# SPDX-License-Identifier: Apache-2.0
"""The program without a cluster: words that every program knows, and a start that comes to nothing."""
import json
import os
import select
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

    def test_a_level_that_there_is_not_is_refused_before_anything_is_made(self):
        with tempfile.TemporaryDirectory() as parent:
            for command, directory in (("local", os.path.join(parent, "data")), ("bench", parent)):
                code, out, err = run(command, "--dir", directory, "--durability", "fast")
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

    def test_local_exits_as_the_node_whose_file_is_wrong(self):
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "lockstep.toml"), "w", encoding="utf-8") as out:
                out.write('cluster = "c"\nmachine = "kv"\ndurability = "fast"\n[node.n1]\nclient = "127.0.0.1:27411"\n'
                          'peer = "127.0.0.1:27511"\ndata = "n1"\n')
            code, _, err = run("local", "--dir", directory)
            self.assertEqual(code, 2, err)
            self.assertIn("lockstep.toml:3:14", err)

    def test_a_line_that_is_too_long_does_not_hide_an_unknown_outcome(self):
        with tempfile.TemporaryDirectory() as directory:
            local = subprocess.Popen([LOCKSTEP, "local", "--nodes", "1", "--dir", directory, "--port", "27421", "-o", "json"],
                                     stdout=subprocess.PIPE, text=True)
            try:
                events = [json.loads(local.stdout.readline()) for _ in range(2)]
                self.assertEqual([e["event"] for e in events], ["started", "writable"])
                with subprocess.Popen([LOCKSTEP, "propose", "-", "--to", events[0]["client"], "--timeout", "3s"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as propose:
                    propose.stdin.write(b"put a 1\n")
                    propose.stdin.flush()
                    self.assertTrue(select.select([propose.stdout], [], [], 10)[0], "no answer while the input is open")
                    self.assertEqual(propose.stdout.readline(), b"ok\n")
                    os.kill(events[0]["pid"], signal.SIGSTOP)
                    try:
                        propose.stdin.write(b"put b 2\n")
                        propose.stdin.flush()
                        time.sleep(0.3)
                        err = propose.communicate(b"x" * (2 << 20), timeout=30)[1].decode()
                    finally:
                        os.kill(events[0]["pid"], signal.SIGCONT)
                self.assertIn("line 3 is longer", err)
                self.assertIn("line 2: ", err)
                self.assertEqual(propose.returncode, 6, err)
            finally:
                local.send_signal(signal.SIGINT)
                local.communicate(timeout=60)


if __name__ == "__main__":
    unittest.main(verbosity=2)
