# SPDX-License-Identifier: Apache-2.0
"""Real processes whose logs are compacted: a node that was away for longer than the log reaches comes back by an install, also
when it, or the leader, is killed in the middle of it again and again."""
import random
import threading
import time

from harness import process, settings
from harness.case import Case, main, say
from harness.cluster import until

KEYS = settings.by_length(2000, 10000, 40000)
VALUE = b"v" * 1000
ROUNDS = settings.by_length(2, 6, 40)


class Snapshots(Case):
    def make(self):
        cluster = self.cluster(nodes=3, sections={"storage": {"snapshot_after": "512KiB"}})
        return cluster.start()

    def put(self, cluster, first, count, seconds=120):
        """Stream `put keyN ...` until all are applied, exactly once (a session)."""
        lines = b"".join(b"put key%d %d %s\n" % (n, n, VALUE) for n in range(first, first + count))
        code, _, errors = process.run(
            [settings.PROGRAM, "propose", "--to", ",".join(cluster.endpoints()), "--timeout", "60s", "-"],
            seconds=settings.patience(seconds), stdin=lines)
        self.assertEqual(code, 0, errors)

    def check_keys(self, cluster, count):
        for node in cluster.nodes:
            for n in random.Random(settings.SEED).sample(range(count), 20):
                self.assertEqual(node.read(b"get key%d" % n).reply, b"%d %s" % (n, VALUE))

    def check_equal(self, cluster):
        statuses = cluster.wait_equal(settings.patience(60))
        until(lambda: len({(s.hash_index, s.state_hash, s.reply_hash) for n in cluster.nodes
                           if (s := n.status()) is not None}) == 1, settings.patience(30), "equal hashes")
        return statuses

    def test_a_node_behind_a_dropped_log_comes_back_while_commands_go_on(self):
        cluster = self.make()
        leader = cluster.leader()
        away = cluster.followers(leader)[0]
        self.put(cluster, 0, 100)
        away.kill()
        began = time.monotonic()
        self.put(cluster, 100, KEYS - 100)
        say(f"{KEYS} keys of 1 kB in {time.monotonic() - began:.1f} s with a snapshot every 512 KiB")
        status = until(lambda: (s := cluster.leader().status_now()).base_index > 0 and s, settings.patience(60),
                       lambda: f"a log without its beginning\n{cluster.tails()}")
        self.assertGreaterEqual(status.snapshot_index, status.base_index)
        more = threading.Thread(target=self.put, args=(cluster, KEYS, 500))
        more.start()
        began = time.monotonic()
        away.start()
        until(lambda: b"installed: index=" in away.output.read_bytes(), settings.patience(60),
              lambda: f"an install\n{cluster.tails()}")
        say(f"installed {time.monotonic() - began:.2f} s after the start")
        more.join()
        statuses = self.check_equal(cluster)
        self.check_keys(cluster, KEYS + 500)
        self.assertEqual(len({s.applied_position for s in statuses.values()}), 1)
        # and it starts from what it was given
        cluster.stop()
        cluster.start()
        cluster.leader()
        self.check_equal(cluster)
        self.check_keys(cluster, KEYS + 500)
        self.assertGreater(away.status_now().base_index, 0)

    def test_a_log_of_few_bytes_is_compacted_when_it_is_old(self):
        cluster = self.cluster(nodes=3, sections={"storage": {"snapshot_age": "1s"}}).start()
        node = cluster.nodes[0]
        first = node.write(b"put old kept").index

        def compacted():
            node.write(b"put new 1")
            statuses = [n.status() for n in cluster.nodes]
            return all(s is not None and s.base_index >= first for s in statuses) and statuses
        statuses = until(compacted, settings.patience(60), lambda: f"logs that begin behind {first}\n{cluster.tails()}")
        for status in statuses:
            self.assertGreaterEqual(status.snapshot_index, status.base_index)
        cluster.wait_equal()
        cluster.stop()
        cluster.start()
        cluster.wait_equal()
        for node in cluster.nodes:
            self.assertEqual(node.read(b"get old").reply, b"kept")

    def test_kills_in_the_middle_of_installs(self):
        cluster = self.make()
        leader = cluster.leader()
        away = cluster.followers(leader)[0]
        away.kill()
        self.put(cluster, 0, KEYS)
        dice = random.Random(settings.SEED)
        for number in range(ROUNDS):
            self.put(cluster, 0, 1000)  # more than the log keeps
            away.start()
            time.sleep(dice.uniform(0.05, 0.6))
            if number % 3 == 2:  # the one that sends goes; the other two elect
                leader = cluster.leader()
                if leader is not away:
                    leader.kill()
                    time.sleep(dice.uniform(0, 0.2))
                    leader.start()
                    cluster.leader()
            away.kill()
        away.start()
        cluster.leader()
        self.check_equal(cluster)
        self.check_keys(cluster, KEYS)
        text = away.output.read_bytes()
        say(f"{ROUNDS} kills: {text.count(b'installed: index=')} installs done, {text.count(b'install: index=')} begun")
        self.put(cluster, KEYS, 100)
        self.check_equal(cluster)


if __name__ == "__main__":
    main()
