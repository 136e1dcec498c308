# SPDX-License-Identifier: Apache-2.0
"""The demo shows only what is true, and the bench measures what it says."""
import json
import os

from harness import process, settings
from harness.case import Case, main

# In its long form more than the 64 MiB of blocks behind which a node of another configuration compacts its log.
COMMANDS = str(settings.by_length(20000, 100000, 1600000))


def run(*words, seconds=120, **environment):
    return process.run([settings.PROGRAM, *words], seconds=settings.patience(seconds), environment=environment)


class Demo(Case):
    def test_every_line_holds(self):
        code, out, err = run("demo", "--commands", COMMANDS, "--dir", self.directory, "-o", "json")
        print(out)
        self.assertEqual(code, 0, err)
        last = json.loads(out.splitlines()[-1])
        self.assertTrue(last["ok"])
        self.assertGreaterEqual(last["acknowledged"], int(COMMANDS))
        self.assertFalse([name for name in os.listdir(self.directory) if name.startswith("lockstep-")])

    def test_five_nodes(self):
        code, _, err = run("demo", "--nodes", "5", "--commands", "20000", "--dir", self.directory)
        self.assertEqual(code, 0, err)

    def test_a_false_line_is_noticed(self):
        """The demo's memory of one acknowledged command is made wrong: the logs, read afterwards, must not bear it out."""
        code, out, err = run("demo", "--commands", "20000", "--dir", self.directory, LOCKSTEP_DEMO_BREAK="record")
        self.assertEqual(code, 1)
        self.assertRegex(err, r"line \d+ does not hold: the log of n1: 'put d\d-\d+ [0-9a-f]+' was acknowledged at position")
        self.assertNotIn("Every line above was checked", out)
        self.assertTrue([name for name in os.listdir(self.directory) if name.startswith("lockstep-demo-")])


class Bench(Case):
    def test_both_modes_report_the_same_fields(self):
        for mode in (["--inflight", "32", "--connections", "3"], ["--stream", "--connections", "2", "--inflight", "4"]):
            code, out, err = run("bench", *mode, "--duration", "1s", "--warmup", "500ms", "--dir", self.directory, "-o",
                                 "json", LOCKSTEP_RAFT_ELECTION_TIMEOUT="3s")  # who leads stays
            self.assertEqual(code, 0, err)
            report = json.loads(out)
            self.assertGreater(report["commands_per_second"], 0)
            self.assertGreater(report["latency_us"]["p50"], 0)
            order = [report["latency_us"][k] for k in ("p50", "p90", "p99", "p99_9", "max")]
            self.assertEqual(order, sorted(order))
            self.assertGreater(report["cpu_seconds_per_million"]["servers"], 0)
            self.assertGreater(report["fdatasync_us"], 0)
            self.assertEqual(report["durability"], "fsync")
            self.assertEqual(report["errors"], {"refused": 0, "not_appended": 0, "unknown": 0})
        self.assertFalse(os.listdir(self.directory))

    def test_memory_is_no_disk(self):
        code, _, err = run("bench", "--dir", "/dev/shm")
        self.assertEqual(code, 5)
        self.assertIn("tmpfs", err)
        code, out, err = run("bench", "--dir", "/dev/shm", "--durability", "memory", "--duration", "300ms", "--warmup", "0s",
                             "-o", "json", LOCKSTEP_RAFT_ELECTION_TIMEOUT="3s")
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out)["durability"], "memory")


if __name__ == "__main__":
    main()
