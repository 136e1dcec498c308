# SPDX-License-Identifier: Apache-2.0
"""How a cluster comes to be, once, whatever happens to its processes meanwhile; and processes that die while they start."""
import shutil
import time

import grpc

from harness import settings
from harness.case import Case, main, say
from harness.cluster import until

ROUNDS = settings.by_length(3, 8, 60)


class Births(Case):
    def assert_one_cluster(self, cluster):
        seen = cluster.wait_equal(60)
        self.assertEqual(len({s.cluster_id for s in seen.values()}), 1)
        self.assertNotEqual(seen["n1"].cluster_id, 0)
        self.assertEqual(len({s.member_id for s in seen.values()}), len(cluster.nodes))
        members = {tuple(sorted((m.name, m.id) for m in s.members)) for s in seen.values()}
        self.assertEqual(len(members), 1, "the nodes disagree on who is a member")
        self.assertEqual(cluster.leader().write(b"put born x").code, 0)
        cluster.wait_equal()
        cluster.wait_hashes()

    def test_nodes_that_are_killed_while_the_cluster_is_born_are_born_once(self):
        for number in range(ROUNDS):
            cluster = self.cluster(nodes=self.random.choice([3, 5]), directory=f"{self.directory}/{number}",
                                   ring=8 << 20, journal=32 << 20)
            end = time.monotonic() + self.random.uniform(0.1, 1.2)
            kills = 0
            while time.monotonic() < end:
                cluster.start()
                time.sleep(self.random.expovariate(1 / 0.05))
                victim = self.random.choice(cluster.nodes)
                cluster.check_alive()
                victim.kill()
                kills += 1
            cluster.start()
            began = time.monotonic()
            self.assert_one_cluster(cluster)
            say(f"{number + 1}/{ROUNDS}: {len(cluster.nodes)} nodes, {kills} kills, one cluster after another "
                f"{(time.monotonic() - began) * 1e3:.0f} ms")
            cluster.close()

    def test_nodes_may_come_one_by_one_and_nothing_happens_before_the_last(self):
        cluster = self.cluster(nodes=3)
        for node in reversed(cluster.nodes):
            for running in cluster.running():
                self.assertEqual(running.status_now().role, "unborn")
                with self.assertRaises(grpc.RpcError) as caught:
                    running.client.propose(b"put too early")
                self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
            node.start()
            until(node.status, settings.patience(10), f"{node.name} answers")
            time.sleep(0.3)
        self.assert_one_cluster(cluster)

    def test_a_node_that_was_emptied_before_the_birth_was_complete_everywhere_takes_part(self):
        """Nobody has promised anything yet."""
        cluster = self.cluster(nodes=3)
        for node in cluster.nodes[:2]:
            node.start()
        until(lambda: any(m.name == "n2" and m.connected for m in cluster["n1"].status_now().members),
              settings.patience(20), cluster.tails)
        cluster["n2"].kill()
        shutil.rmtree(cluster["n2"].data)
        cluster.start()
        self.assert_one_cluster(cluster)


class Starts(Case):
    def test_processes_that_die_while_they_start_lose_nothing(self):
        """Under load: a node is killed, and killed again while it recovers, several times over."""
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        with self.load(cluster) as load:
            for number in range(ROUNDS):
                load.wait_acknowledged(300, settings.patience(60))
                victims = self.random.sample(cluster.nodes, self.random.choice([1, 1, 2, 3]))
                for node in victims:
                    node.kill()
                for _ in range(self.random.randrange(4)):
                    for node in victims:
                        node.start()
                    time.sleep(self.random.uniform(0, 0.2))
                    for node in victims:
                        node.kill()
                cluster.start()
                seconds = load.wait_writable(time.monotonic(), settings.patience(60))
                say(f"{number + 1}/{ROUNDS}: {len(victims)} nodes, writable after {seconds * 1e3:.0f} ms")
        self.judge(cluster, load)

    def test_all_nodes_stopped_at_once_under_load_end_with_0(self):
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        with self.load(cluster) as load:
            load.wait_in_flight(64, settings.patience(30))
            for node in cluster.nodes:
                node.popen.terminate()
            began = time.monotonic()
            codes = {node.name: node.wait_exit(20) for node in cluster.nodes}
            say(f"all stopped in {time.monotonic() - began:.2f} s")
            self.assertEqual(set(codes.values()), {0}, cluster.tails())
            cluster.start()
            load.wait_writable(time.monotonic(), settings.patience(30))
        self.judge(cluster, load)


if __name__ == "__main__":
    main()
