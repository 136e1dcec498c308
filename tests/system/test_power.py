# SPDX-License-Identifier: Apache-2.0
"""Real nodes under load lose their power. Their calls are recorded below them (tests/powercut), and crash images are made from the
recordings: of one node, killed and started meanwhile, read offline as it would open them; and of all three at one instant,
from which the cluster then starts. Every command that a client had an answer to at that moment is there, where the answer
said (J3 too: what a killed process had only in the cache is nothing that the next one may answer for)."""
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
CUTS = settings.by_length(1, 1, 20)
WHOLE_LOG = 1 << 62


def recorded(node):
    """From its first start on. Returns the trace, and the path that kills it between two of its calls while it exists."""
    trace, kill = (node.cluster.directory / f"{node.name}.{what}" for what in ("trace", "kill"))
    node.environment.update(LD_PRELOAD=str(settings.RECORDER), RECORDER_DIRECTORY=str(node.cluster.directory),
                            RECORDER_TRACE=str(trace), RECORDER_KILL_WHILE=str(kill))
    return trace, kill


def known_by(commands, moment):
    """The commands as clients knew them then: what was answered later may be there or not."""
    then = []
    for command in commands:
        if command.outcome == APPLIED and command.ended > moment:
            command = copy.copy(command)
            command.outcome = UNKNOWN
        then.append(command)
    return then


class PowerCuts(Case):
    def test_what_clients_were_told_is_in_every_crash_image(self):
        cluster = self.cluster(nodes=1, ring=8 << 20, journal=32 << 20)
        [node] = cluster.nodes
        trace, kill = recorded(node)
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

    def test_a_cluster_that_loses_its_power_at_once_has_all_that_clients_were_told(self):
        for number in range(CUTS):
            cluster = self.cluster(directory=f"{self.directory}/cut{number}", nodes=3, ring=8 << 20, journal=32 << 20)
            traces = {node.name: recorded(node)[0] for node in cluster.nodes}
            cluster.start().leader()
            with self.load(cluster) as load:
                load.wait_acknowledged(self.random.randrange(1, 1000), settings.patience(60))
                load.wait_in_flight(64, settings.patience(30))
                moment = time.monotonic_ns()
                load.wait_acknowledged(100, settings.patience(60))
            for node in cluster.nodes:
                node.kill()
                self.put_image(node, traces[node.name], moment)
            cluster.start().leader()
            with self.load(cluster, tag=b"b") as more:
                more.wait_acknowledged(100, settings.patience(60))
            load.commands = known_by(load.commands, moment / 1e9) + more.commands
            load.reads = [read for read in load.reads if read.ended <= moment / 1e9] + more.reads
            self.judge(cluster, load)
            cluster.close()

    def put_image(self, node, trace, moment):
        """In place of its data directory, what the disk held at that moment."""
        folder = node.cluster.directory / f"{node.name}.image"
        folder.mkdir()
        code, _, errors = process.run([settings.CUT, trace, folder, f"@{moment}", self.seed()], stdin=b"\n",
                                      seconds=settings.patience(60))
        self.assertEqual(code, 0, errors)
        shutil.rmtree(node.data)
        (folder / "0" / node.name).rename(node.data)
        node.environment.clear()

    def look_at_images(self, node, commands, trace, *lie):
        """How many of them had something to hold."""
        memory = pathlib.Path("/dev/shm")
        if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 1 << 30:
            memory = self.directory
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
        """How many commands were acknowledged before the cut."""
        then = known_by(commands, cut_at)
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
