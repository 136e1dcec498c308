# SPDX-License-Identifier: Apache-2.0
"""The base of the system tests: a directory that goes, processes that end, the seed, and the tails of logs on failure."""
import faulthandler
import os
import random
import shutil
import signal
import sys
import tempfile
import unittest

from harness import settings
from harness.cluster import STEADY, Cluster
from harness.history import judge
from harness.load import Load


def say(text):
    print(text, flush=True)


class Case(unittest.TestCase):
    def run(self, result=None):
        """A test that hangs, whatever in, says where each of its threads stands, and ends."""
        if not settings.FULL:
            faulthandler.dump_traceback_later(settings.HANG_SECONDS, exit=True)
        self._result = result if result is not None else self.defaultTestResult()
        self._troubles = len(self._result.failures) + len(self._result.errors)
        try:
            return super().run(self._result)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def failed(self):
        return len(self._result.failures) + len(self._result.errors) > self._troubles

    def setUp(self):
        say(f"seed {settings.SEED}: LOCKSTEP_SEED={settings.SEED} replays the choices of {self.id()}")
        self.random = random.Random(f"{settings.SEED} {self.id()}")
        settings.TEMPORARY.mkdir(parents=True, exist_ok=True)
        self.directory = tempfile.mkdtemp(prefix=f"{self._testMethodName[:40]}-", dir=settings.TEMPORARY)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def cluster(self, **options):
        """A cluster whose processes end with this test. Not started."""
        cluster = Cluster(options.pop("directory", self.directory), **options)
        self.addCleanup(self._close, cluster)
        return cluster

    def _close(self, cluster):
        if self.failed():
            say(cluster.tails())
        cluster.close()

    def load(self, cluster, **options):
        return Load(cluster.endpoints(), self.seed(), **options)

    def seed(self):
        return self.random.getrandbits(32)

    def judge(self, cluster, load):
        """After the load has stopped: all nodes become equal, stop cleanly, and their logs bear out what clients saw."""
        statuses = cluster.wait_equal()
        cluster.wait_hashes()
        cluster.stop()
        logs = {node.name: node.dump() for node in cluster.nodes}
        applied = min(s.applied_index for s in statuses.values())
        say("verdict: " + judge(load.commands, load.reads, logs, applied))


class SharedCase(Case):
    """All tests of the class use one cluster of three, whose leader stays. Each finds it known to every node; none leaves a
    node down."""
    shared = None

    def setUp(self):
        super().setUp()
        kind = type(self)
        if kind.shared is None:
            directory = tempfile.mkdtemp(prefix=f"{kind.__name__}-", dir=settings.TEMPORARY)
            kind.addClassCleanup(shutil.rmtree, directory, ignore_errors=True)
            kind.shared = Cluster(directory, sections=STEADY)
            kind.addClassCleanup(kind.shared.close)
            kind.shared.start()
        self.nodes = kind.shared
        self.leader = self.nodes.settled()
        self.follower = self.nodes.followers(self.leader)[0]
        self.addCleanup(lambda: say(self.nodes.tails()) if self.failed() else None)


def main():
    """The process ends with its tests: threads that are not ours hold up nothing. Where meson ends it, it says where it stood."""
    faulthandler.register(signal.SIGTERM, all_threads=True, chain=True)
    result = unittest.main(verbosity=2, exit=False).result
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(not result.wasSuccessful())
