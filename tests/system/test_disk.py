# SPDX-License-Identifier: Apache-2.0
"""Full disks: small file systems of our own, in a mount namespace of our own, which goes with this process."""
import ctypes
import os
import subprocess
import threading
import time

from harness import settings
from harness.case import Case, main, say
from harness.cluster import until

CLONE_NEWNS = 0x00020000
FULL = r"(?i)space|full|ENOSPC"


def enter():
    """Mounts made from here on are seen by nobody else."""
    assert threading.active_count() == 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise AssertionError(f"mount namespaces cannot be used here, and this test is nothing without them: "
                             f"{os.strerror(ctypes.get_errno())}; run it as root")
    mount("--make-rprivate", "/")


def mount(*words):
    done = subprocess.run(["mount", *words], capture_output=True, check=False, timeout=20)
    assert done.returncode == 0, f"mount {words}: {done.stderr.decode()}"


class FullDisks(Case):
    """A file system of 64 MiB holds the journal of 32 MiB and not much of a log."""

    def make(self, small):
        cluster = self.cluster(nodes=3, ring=8 << 20, journal=32 << 20)
        for node in cluster.nodes:
            if node.name in small:
                node.data.mkdir()
                mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(node.data))
                self.addCleanup(subprocess.run, ["umount", "--lazy", str(node.data)], check=False)
        return cluster.start()

    def fill(self, cluster, load, small, seconds):
        """Until a majority of the small disks' nodes say that they are full: nothing fills the others after that."""
        def full():
            cluster.check_alive()
            return sum(self.says_full(node) for node in small) > len(small) // 2
        until(full, settings.patience(seconds), lambda: f"the disks are full; {load.acknowledged} acknowledged")

    def grow(self, node):
        mount("-o", "remount,size=1g", str(node.data))

    @staticmethod
    def says_full(node):
        status = node.status()
        return status is not None and any("the disk is full" in warning for warning in status.warnings)

    def come_back(self, cluster, node):
        """It runs on, says what is wrong, and goes on by itself when its disk is larger."""
        cluster.check_alive()
        say(f"{node.name} runs on: {node.status() and node.status().role}")
        self.grow(node)
        until(lambda: node.status() is not None and not self.says_full(node), settings.patience(30), node.tail)

    def test_a_node_with_a_full_disk_says_so_and_the_others_go_on(self):
        cluster = self.make(["n2"])
        cluster.leader()
        node = cluster["n2"]
        with self.load(cluster, bytes_min=16 << 10, bytes_max=64 << 10, unary=16, streams=2, per_message=2) as load:
            self.fill(cluster, load, [node], 120)
            load.wait_writable(time.monotonic(), settings.patience(30))
            load.wait_acknowledged(200, settings.patience(30))
            until(lambda: cluster.leader() is not node, settings.patience(30), "another one leads")
            self.come_back(cluster, node)
            load.wait_acknowledged(200, settings.patience(30))
        self.judge(cluster, load)

    def test_all_disks_full_refuse_commands_answer_queries_and_go_on_with_room(self):
        cluster = self.make(["n1", "n2", "n3"])
        cluster.leader()
        with self.load(cluster, bytes_min=16 << 10, bytes_max=64 << 10, unary=16, streams=2, per_message=2) as load:
            self.fill(cluster, load, cluster.nodes, 120)
            say(f"full after {load.acknowledged} acknowledgements; last trouble: {load.last_trouble}")
            until(lambda: "RESOURCE_EXHAUSTED" in load.last_trouble, settings.patience(120),
                  lambda: f"ring and journal are full too, and refuse: {load.last_trouble}")
            reads = len(load.reads)
            until(lambda: len(load.reads) > reads + 100, settings.patience(60), "queries are answered")
        cluster.leader().kill()  # the others still vote, and a start needs no space
        cluster.leader()
        cluster.start()
        for node in cluster.nodes:
            self.come_back(cluster, node)
        with self.load(cluster, tag=b"b") as more:
            more.wait_writable(time.monotonic(), settings.patience(60))
        load.commands += more.commands
        load.reads += more.reads
        self.judge(cluster, load)

    def test_a_data_directory_on_a_disk_that_is_full_from_the_start_is_named(self):
        cluster = self.cluster(nodes=1, ring=8 << 20, journal=32 << 20)
        [node] = cluster.nodes
        node.data.mkdir()
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(node.data))
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(node.data)], check=False)
        node.start()
        self.assertEqual(node.wait_exit(), 1, node.tail())
        self.assertRegex(node.tail(), FULL)
        self.assertIn(str(node.data), node.tail())


if __name__ == "__main__":
    enter()
    main()
