# SPDX-License-Identifier: Apache-2.0
"""All nodes at once: killed under load, stopped on purpose, started again."""
import signal
import time

from harness import settings
from harness.case import Case, main, say
from harness.cluster import until

ROUNDS = settings.by_length(1, 2, 10)


class Restarts(Case):
    def test_everything_acknowledged_is_there_when_all_nodes_were_killed_at_once(self):
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        with self.load(cluster) as load:
            for number in range(ROUNDS):
                load.wait_acknowledged(2000, settings.patience(60))
                load.wait_in_flight(64, settings.patience(30))
                for node in cluster.nodes:  # no wait in between
                    node.popen.send_signal(signal.SIGKILL)
                for node in cluster.nodes:
                    node.popen.wait(settings.patience(15))
                    node.popen = None
                time.sleep(0.2)
                started = time.monotonic()
                cluster.start()
                seconds = load.wait_writable(started, settings.patience(60))
                say(f"round {number + 1}/{ROUNDS}: all killed, writable {seconds * 1e3:.0f} ms after the start")
        self.judge(cluster, load)

    def test_sigterm_hands_leadership_over_drains_and_exits_with_0(self):
        cluster = self.cluster(nodes=3).start()
        leader = cluster.leader()
        with self.load(cluster) as load:
            load.wait_in_flight(64, settings.patience(30))
            began = time.monotonic()
            self.assertEqual(leader.terminate(), 0, leader.tail())
            ended = time.monotonic()
            seconds = load.wait_writable(began, settings.patience(30))
            say(f"leader stopped in {(ended - began) * 1e3:.0f} ms, writable after {seconds * 1e3:.0f} ms")
            new = cluster.leader()
            self.assertIsNot(new, leader)
            load.wait_acknowledged(300, settings.patience(30))
            leader.start()
        unknown = [c.why for c in load.commands if c.outcome == "unknown"]
        say(f"{len(unknown)} commands of unknown outcome, e.g. {unknown[:3]}")
        self.judge(cluster, load)

    def test_a_cluster_that_was_stopped_goes_on_with_state_and_hashes(self):
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        with self.load(cluster) as load:
            load.wait_acknowledged(1000, settings.patience(60))
        before = cluster.wait_equal()["n1"]
        register = cluster["n1"].read(b"get register").reply
        cluster.stop()
        cluster.start()
        leader = cluster.leader()
        after = until(lambda: (s := leader.status()) and s.applied_position >= before.applied_position and s,
                      settings.patience(30), "everything is applied again")
        self.assertEqual((after.applied_position, after.cluster_id), (before.applied_position, before.cluster_id))
        self.assertEqual(leader.read(b"get register").reply, register)
        self.judge(cluster, load)

    def test_a_second_signal_does_not_hurt_a_node_that_is_draining(self):
        cluster = self.cluster(nodes=3).start()
        leader = cluster.leader()
        leader.popen.send_signal(signal.SIGTERM)
        leader.popen.send_signal(signal.SIGTERM)
        self.assertEqual(leader.wait_exit(), 0, leader.tail())
        node = cluster.running()[0]
        node.popen.send_signal(signal.SIGINT)
        self.assertEqual(node.wait_exit(), 0, node.tail())


if __name__ == "__main__":
    main()
