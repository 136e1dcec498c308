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
        """Until small disks have made a majority of their nodes end or refuse: nothing fills the others after that."""
        def full():
            with_room = 0
            for node in small:
                stat = os.statvfs(node.data)
                with_room += node.running() and stat.f_bavail * stat.f_bsize > 4 << 20
            return with_room <= (len(small) - 1) // 2
        until(full, settings.patience(seconds), lambda: f"the disks are full; {load.acknowledged} acknowledged")
        time.sleep(2)

    def grow(self, node):
        mount("-o", "remount,size=1g", str(node.data))

    def come_back(self, cluster, node):
        """What happened to a node whose disk was full, told; then its disk is larger and it is started if it ended."""
        if node.running():
            say(f"{node.name} runs on: {node.status() and node.status().role}")
            self.grow(node)
            return
        code = node.popen.poll()
        node.popen = None
        say(f"{node.name} ended with {code}: {node.tail(2)}")
        self.assertGreater(code, 0, "ended by a signal")
        self.assertRegex(node.tail(10), FULL)
        self.grow(node)
        node.start()

    def test_a_node_with_a_full_disk_says_so_and_the_others_go_on(self):
        cluster = self.make(["n2"])
        cluster.check_alive = lambda: None  # n2 may end
        cluster.leader()
        node = cluster["n2"]
        with self.load(cluster, bytes_min=16 << 10, bytes_max=64 << 10, unary=16, streams=2, per_message=2) as load:
            self.fill(cluster, load, [node], 120)
            load.wait_writable(time.monotonic(), settings.patience(30))
            load.wait_acknowledged(200, settings.patience(30))
            self.come_back(cluster, node)
            load.wait_acknowledged(200, settings.patience(30))
        self.judge(cluster, load)

    def test_nothing_acknowledged_is_lost_when_all_disks_are_full(self):
        cluster = self.make(["n1", "n2", "n3"])
        cluster.check_alive = lambda: None
        cluster.leader()
        with self.load(cluster, bytes_min=16 << 10, bytes_max=64 << 10, unary=16, streams=2, per_message=2) as load:
            self.fill(cluster, load, cluster.nodes, 120)
            say(f"full after {load.acknowledged} acknowledgements; last trouble: {load.last_trouble}")
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
