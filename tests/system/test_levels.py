# SPDX-License-Identifier: Apache-2.0
"""Durability levels under fsync. os: nothing is flushed before it is acknowledged; processes may die as they like, a host that
goes down without a clean stop takes its node's directory with it. The host's start is another boot id, in a mount namespace
of its own. memory: what a node holds ends with its process; the next one is a new member, which takes the old one's place."""
import shutil
import time
import uuid

from harness import process, settings
from harness.api import pb
from harness.case import Case, main, say
from harness.cluster import until

KILLS = settings.by_length(1, 2, 40)
RESTARTS = settings.by_length(2, 4, 60)


class Level(Case):
    level = None

    def make(self):
        cluster = self.cluster(nodes=3)
        for node in cluster.nodes:
            node.environment = {"LOCKSTEP_DURABILITY": self.level}
        cluster.start()
        cluster.leader()
        return cluster


class LevelOs(Level):
    level = "os"

    def start_after_reboot(self, cluster, node):
        """Its host was started anew, as far as it can tell."""
        identity = cluster.directory / f"boot-{uuid.uuid4()}"
        identity.write_text(f"{uuid.uuid4()}\n")
        node.prefix = ("unshare", "--mount", "sh", "-c",
                       f'mount --bind "{identity}" /proc/sys/kernel/random/boot_id && exec "$@"', "sh")
        node.start()

    def test_killed_processes_lose_nothing(self):
        cluster = self.make()
        with self.load(cluster) as load:
            for _ in range(KILLS):
                load.wait_in_flight(64, settings.patience(30))
                time.sleep(self.random.uniform(0, 0.2))
                for node in cluster.nodes:  # all of them, so that nobody has it in a process's memory
                    node.kill()
                cluster.start()
                cluster.leader()
                load.wait_acknowledged(100, settings.patience(60))
        say(f"{KILLS} times all three killed: {load.acknowledged} acknowledged")
        self.judge(cluster, load)

    def test_a_host_that_went_down_is_a_wiped_node_and_is_replaced(self):
        cluster = self.make()
        load = self.load(cluster)
        with load:
            load.wait_acknowledged(500, settings.patience(30))
            down = cluster.followers(cluster.leader())[0]
            down.kill()
            self.start_after_reboot(cluster, down)
            self.assertEqual(down.wait_exit(), 7)
            self.assertIn(b"counts as wiped", down.output.read_bytes())
            self.assertIn(b"member replace", down.output.read_bytes())
            code, _, errors = process.run([settings.PROGRAM, "log", "verify", down.data], prefix=down.prefix)
            self.assertEqual(code, 7)
            self.assertIn("counts as wiped", errors)
            shutil.rmtree(down.data)  # what it was told to do
            down.start()
            code, out, errors = cluster.member("replace", down.name)
            self.assertEqual(code, 0, f"{out}{errors}\n{cluster.tails()}")
            load.wait_acknowledged(500, settings.patience(30))
        cluster.wait_equal(settings.patience(60))

    def test_after_a_clean_stop_the_host_may_go_down(self):
        cluster = self.make()
        with self.load(cluster) as load:
            load.wait_acknowledged(500, settings.patience(30))
        cluster.wait_equal()
        cluster.stop()
        for node in cluster.nodes:
            self.start_after_reboot(cluster, node)
        cluster.leader()
        until(lambda: all(n.status() is not None for n in cluster.nodes), settings.patience(20), "all are there")
        self.judge(cluster, load)

    def test_the_level_stands_in_status_and_replies_and_stays_what_it_was_at_birth(self):
        cluster = self.make()
        self.assertEqual({n.status_now().durability for n in cluster.nodes}, {pb.DURABILITY_OS})
        self.assertEqual(cluster.leader().write(b"put a b").durability, pb.DURABILITY_OS)
        one = cluster.nodes[0]
        one.terminate()
        one.environment = {}
        one.start()
        self.assertEqual(one.wait_exit(), 1)
        self.assertIn(b'born with durability "os", the configuration says "fsync"', one.output.read_bytes())


class LevelMemory(Level):
    level = "memory"

    def member_ids(self, cluster):
        """Of the voters, by name, if there is nobody else."""
        status = cluster.leader().status_now()
        if status.joint or any(m.role != "voter" for m in status.members):
            return None
        return {m.name: m.id for m in status.members}

    def wait_whole(self, cluster):
        """Each process that runs now is a voter, and nobody else is a member. Returns their ids by name."""
        def whole():
            now = {n.name: s.member_id for n in cluster.nodes if (s := n.status()) is not None}
            return len(now) == len(cluster.nodes) and self.member_ids(cluster) == now and now
        return until(whole, settings.patience(60), lambda: f"the members are those that run\n{cluster.tails()}")

    def test_a_node_that_is_started_anew_takes_its_own_place_and_nothing_acknowledged_is_lost(self):
        cluster = self.make()
        with self.load(cluster) as load:
            for _ in range(RESTARTS):
                load.wait_acknowledged(100, settings.patience(60))
                victim = self.random.choice([*cluster.nodes, cluster.leader()])
                before = self.wait_whole(cluster)
                if self.random.random() < 0.3:
                    self.assertEqual(victim.terminate(), 0)  # a clean stop keeps nothing either
                else:
                    victim.kill()
                victim.start()
                after = self.wait_whole(cluster)
                self.assertEqual({name for name in after if after[name] != before[name]}, {victim.name})
        say(f"{RESTARTS} times one of three started anew: {load.acknowledged} acknowledged")
        self.judge(cluster, load)

    def test_the_level_stands_in_status_and_replies_and_in_the_log(self):
        cluster = self.make()
        self.assertEqual({n.status_now().durability for n in cluster.nodes}, {pb.DURABILITY_MEMORY})
        self.assertEqual(cluster.leader().write(b"put a b").durability, pb.DURABILITY_MEMORY)
        one = cluster.followers(cluster.leader())[0]
        one.kill()
        one.start()
        self.wait_whole(cluster)
        self.assertIn(b'a new member, as durability "memory" has it', one.output.read_bytes())
        one.terminate()
        one.environment = {}
        before = sorted((p.name, p.stat().st_mtime_ns) for p in one.data.iterdir() if p.name != "lock")
        one.start()
        self.assertEqual(one.wait_exit(), 1)
        self.assertIn(b'born with durability "memory", the configuration says "fsync"', one.output.read_bytes())
        self.assertEqual(sorted((p.name, p.stat().st_mtime_ns) for p in one.data.iterdir() if p.name != "lock"), before)

    def test_without_a_majority_everybody_says_what_to_do(self):
        cluster = self.make()
        cluster.leader().write(b"put a b")
        lives, *others = cluster.nodes
        for node in others:
            node.kill()
        for node in others:
            node.start()
        until(lambda: (s := lives.status()) is not None and any("recover --online" in w for w in s.warnings),
              settings.patience(30), lambda: cluster.tails())
        for node in others:
            until(lambda: b"recover --online" in node.output.read_bytes(), settings.patience(20), node.tail)
            self.assertEqual(node.status_now().role, "unborn")


if __name__ == "__main__":
    main()
