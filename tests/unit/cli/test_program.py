# SPDX-License-Identifier: Apache-2.0
"""The program without a cluster: words that every program knows, and a start that comes to nothing."""
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "system"))
from harness import ports, process
from harness.waiting import until

LOCKSTEP = sys.argv.pop(1)


def run(*words):
    done = subprocess.run([LOCKSTEP, *words], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


class Program(unittest.TestCase):
    def start_local(self, *words, environment=None):
        """`lockstep local`, which ends with this test, and a function that gives the events that it has told so far."""
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        output = os.path.join(directory, "local.out")
        local = process.start([LOCKSTEP, "local", "--dir", os.path.join(directory, "data"), "--port", ports.free_base(), "-o",
                               "json", *words], output, {**os.environ, **(environment or {})})

        def end():  # in order: its nodes end before it
            if local.poll() is None:
                local.send_signal(signal.SIGINT)
            try:
                local.wait(60)
            finally:
                process.end(local)
        self.addCleanup(end)

        def events():
            with open(output, encoding="utf-8") as file:
                return [json.loads(line) for line in file.read().splitlines(keepends=True) if line.endswith("}\n")]
        return local, events

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
        local, events = self.start_local(environment={"LOCKSTEP_FAULTS": "cut"})
        until(lambda: len(events()) == 3, 60, lambda: f"three nodes: {events()}")
        local.send_signal(signal.SIGINT)
        self.assertEqual(local.wait(60), 0, events())
        self.assertEqual([e["event"] for e in events()], ["started"] * 3)

    def test_local_exits_as_the_node_whose_file_is_wrong(self):
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "lockstep.toml"), "w", encoding="utf-8") as out:
                out.write('cluster = "c"\nmachine = "kv"\ndurability = "fast"\n[node.n1]\n'
                          f'client = "127.0.0.1:{ports.free_port()}"\npeer = "127.0.0.1:{ports.free_port()}"\ndata = "n1"\n')
            code, _, err = run("local", "--dir", directory)
            self.assertEqual(code, 2, err)
            self.assertIn("lockstep.toml:3:14", err)

    def test_what_could_not_be_written_is_an_error_in_every_form(self):
        for words in (("version",), ("version", "-o", "json"), ("help", "status")):
            with open("/dev/full", "w", encoding="utf-8") as full:
                done = subprocess.run([LOCKSTEP, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
            self.assertEqual((done.returncode, done.stderr), (1, "lockstep: standard output: cannot be written\n"), words)

    def test_closed_standard_descriptors_are_taken_by_nothing_else(self):
        """Not its log by a pipe that signals go through: SIGTERM is heard."""
        with tempfile.TemporaryDirectory() as directory:
            client = f"127.0.0.1:{ports.free_port()}"
            config = os.path.join(directory, "lockstep.toml")
            with open(config, "w", encoding="utf-8") as out:
                out.write(f'cluster = "c"\nmachine = "kv"\n[node.n1]\nclient = "{client}"\n'
                          f'peer = "127.0.0.1:{ports.free_port()}"\ndata = "n1"\n')
            node = subprocess.Popen(process.dies_with_us(
                ["sh", "-c", 'exec "$0" serve --config "$1" --node n1 <&- >&- 2>&-', LOCKSTEP, config]))
            self.addCleanup(process.end, node)
            until(lambda: run("status", "--to", client)[0] == 0 or node.poll() is not None, 60, "it leads")
            self.assertIsNone(node.poll())
            self.assertEqual([os.readlink(f"/proc/{node.pid}/fd/{fd}") for fd in range(3)], ["/dev/null"] * 3)
            node.send_signal(signal.SIGTERM)
            self.assertEqual(node.wait(60), 0)

    def test_a_line_that_is_too_long_does_not_hide_an_unknown_outcome(self):
        _, events = self.start_local("--nodes", "1")
        until(lambda: [e["event"] for e in events()] == ["started", "writable"], 60, lambda: f"it leads: {events()}")
        node = events()[0]
        with subprocess.Popen([LOCKSTEP, "propose", "-", "--to", node["client"], "--timeout", "5s"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as propose:
            self.addCleanup(process.end, propose)
            propose.stdin.write(b"put a 1\n")
            propose.stdin.flush()
            self.assertTrue(select.select([propose.stdout], [], [], 30)[0], "no answer while the input is open")
            self.assertEqual(propose.stdout.readline(), b"ok\n")
            os.kill(node["pid"], signal.SIGSTOP)
            self.addCleanup(os.kill, node["pid"], signal.SIGCONT)
            until(lambda: process.is_stopped(node["pid"]), 10, "the node stands still")
            propose.stdin.write(b"put b 2\n")  # no more is read before it is sent
            err = propose.communicate(b"x" * (2 << 20), timeout=60)[1].decode()
        self.assertIn("line 3 is longer", err)
        self.assertIn("line 2: ", err)
        self.assertEqual(propose.returncode, 6, err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
