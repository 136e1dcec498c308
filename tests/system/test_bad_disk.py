# SPDX-License-Identifier: Apache-2.0
"""Disks that hang or fail under a real node: bad_disk.so is preloaded and does what files tell it to."""
import time
import urllib.error
import urllib.request

from harness import settings
from harness.case import Case, main, say
from harness.cluster import until

FAULTS = ("HANG", "FAIL", "FAIL_WRITE")


def readyz(node):
    """HTTP status and text; status 0 if it gives no answer now."""
    try:
        with urllib.request.urlopen(f"http://{node.client_endpoint}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


class BadDisks(Case):
    def make(self, nodes=3):
        cluster = self.cluster(nodes=nodes)
        for node in cluster.nodes:
            node.environment["LD_PRELOAD"] = str(settings.BAD_DISK)
            for fault in FAULTS:
                node.environment[f"BAD_DISK_{fault}"] = str(self.switch(cluster, node, fault))
        return cluster.start()

    @staticmethod
    def switch(cluster, node, fault):
        return cluster.directory / f"{node.name}.{fault}"

    def test_a_leader_whose_flush_hangs_is_replaced_and_comes_back(self):
        cluster = self.make()
        old = cluster.leader()
        others = cluster.followers(old)
        with self.load(cluster) as load:
            load.wait_acknowledged(200, settings.patience(30))
            began = time.monotonic()
            self.switch(cluster, old, "HANG").touch()
            new = until(lambda: next((n for n in others if (s := n.status()) and s.role == "leader"), None),
                        settings.patience(60), lambda: f"another leader\n{cluster.tails()}")
            say(f"{new.name} leads {time.monotonic() - began:.1f} s after the flush of {old.name} began to hang")
            load.wait_acknowledged(200, settings.patience(30))
            code, text = until(lambda: "does not complete a write" in (answer := readyz(old))[1] and answer,
                               settings.patience(30), lambda: f"{readyz(old)}")
            self.assertEqual(code, 503)
            self.assertIn(str(old.data), text)
            self.assertTrue(any("does not complete a write" in w for w in old.status_now().warnings), old.status())
            self.assertNotEqual(old.status_now().role, "leader")
            self.switch(cluster, old, "HANG").unlink()
            until(lambda: readyz(old)[0] == 200, settings.patience(60), lambda: f"{readyz(old)}\n{old.tail()}")
            load.wait_acknowledged(200, settings.patience(30))
        self.assertIn("the disk is well again", old.tail(200))
        self.judge(cluster, load)

    def ends(self, fault, text):
        """One follower and then the leader: each ends with the sentence, the others go on, and it starts again."""
        cluster = self.make()
        cluster.leader()
        cluster.check_alive = lambda: None  # the one may end
        with self.load(cluster) as load:
            for leads in (False, True):
                leader = cluster.leader()
                node = leader if leads else cluster.followers(leader)[0]
                load.wait_acknowledged(100, settings.patience(30))
                switch = self.switch(cluster, node, fault)
                switch.touch()
                until(lambda: not node.running(), settings.patience(60), lambda: f"it ends\n{node.tail()}")
                self.assertEqual(node.wait_exit(), 1, node.tail())
                self.assertRegex(node.tail(10), text)
                self.assertIn(str(node.data), node.tail(10))
                switch.unlink()
                load.wait_acknowledged(100, settings.patience(60))
                node.start()
                load.wait_acknowledged(100, settings.patience(60))
        self.judge(cluster, load)

    def test_a_failed_flush_ends_the_node_and_nothing_acknowledged_is_lost(self):
        self.ends("FAIL", "could not be written or flushed")

    def test_a_failed_write_ends_the_node_and_nothing_acknowledged_is_lost(self):
        self.ends("FAIL_WRITE", "could not be written or flushed")


if __name__ == "__main__":
    main()
