# SPDX-License-Identifier: Apache-2.0
"""A real node under load loses its power. Its calls are recorded below it (tests/powercut), kill -9 and starts between them
included; from the recording crash images are made, and each is read offline as the node would open it: every command that a
client had an answer to at that moment stands in it, where the answer said (J3 too: what a killed process had only in the
cache is nothing that the next one may answer for)."""
import copy
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from harness import process, settings
from harness.api import APPLIED, UNKNOWN
from harness.case import Case, main, say
from harness.history import judge, parse_dump

KILLS = settings.by_length(1, 3, 20)
IMAGES = settings.by_length(12, 12, 300)
WHOLE_LOG = 1 << 62


class PowerCuts(Case):
    def test_what_clients_were_told_is_in_every_crash_image(self):
        cluster = self.cluster(nodes=1, ring=8 << 20, journal=32 << 20)
        [node] = cluster.nodes
        trace, kill = cluster.directory / "trace", cluster.directory / "kill"
        node.environment.update(LD_PRELOAD=str(settings.RECORDER), RECORDER_DIRECTORY=str(cluster.directory),
                                RECORDER_TRACE=str(trace), RECORDER_KILL_WHILE=str(kill))
        cluster.start().leader()
        with self.load(cluster, unary=16, streams=2) as load:
            for _ in range(KILLS):
                load.wait_acknowledged(self.random.randrange(1, 500), settings.patience(60))
                kill.touch()
                self.assertEqual(node.wait_exit(), -signal.SIGKILL, node.tail())
                kill.unlink()
                node.start()
            load.wait_writable(time.monotonic(), settings.patience(60))
        node.kill()
        say(f"{load.acknowledged} acknowledged, {KILLS} kills; a trace of {trace.stat().st_size >> 20} MiB")
        born = self.look_at_images(node, load.commands, trace)
        say(f"{IMAGES} images, {born} of them after the first acknowledgement")
        with self.assertRaises(AssertionError, msg="a disk whose flushes do nothing goes unnoticed"):
            self.look_at_images(node, load.commands, trace, "flushes-lie")

    def look_at_images(self, node, commands, trace, *lie):
        """How many of them had something to hold."""
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else self.directory
        folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-power-", dir=memory))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        command = process.dies_with_us([settings.CUT, trace, folder, IMAGES, self.seed(), *lie])
        born = number = 0
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cut:
            for line in cut.stdout:
                number, nanoseconds = map(int, line.split())
                born += self.judge_image(node, folder / str(number), commands, nanoseconds / 1e9) > 0
                shutil.rmtree(folder / str(number))
                cut.stdin.write("\n")
                cut.stdin.flush()
        self.assertEqual((cut.returncode, number + 1), (0, IMAGES))
        return born

    def judge_image(self, node, image, commands, cut_at):
        """How many commands were acknowledged before the cut. What was answered later may be there or not."""
        then = []
        for command in commands:
            if command.outcome == APPLIED and command.ended > cut_at:
                command = copy.copy(command)
                command.outcome = UNKNOWN
            then.append(command)
        acknowledged = sum(command.outcome == APPLIED for command in then)
        dump = node.cluster.directory / "image.dump"
        code, _, errors = process.run([settings.DUMP_LOG, image / node.name, node.name, dump, node.cluster.ring,
                                       node.cluster.journal], seconds=settings.patience(60))
        if code != 0:
            self.assertEqual(acknowledged, 0, f"{acknowledged} commands were acknowledged: {errors}")
            self.assertRegex(errors, "holds no complete birth record|cannot be made")
            return 0
        judge(then, [], {node.name: parse_dump(dump.read_bytes())}, WHOLE_LOG)
        return acknowledged


if __name__ == "__main__":
    main()
