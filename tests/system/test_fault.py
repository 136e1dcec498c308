# SPDX-License-Identifier: Apache-2.0
"""Delay and loss from the fault filter, which every node can put in front of its links (LOCKSTEP_FAULTS). The counters
show that appends are pipelined and that many blocks share one flush."""
import time

from harness import settings
from harness.case import Case, main, say
from harness.cluster import STEADY


class Faults(Case):
    def make(self, rules, **options):
        """Every node reads its rules from a file of its own, which may change while it runs."""
        cluster = self.cluster(nodes=3, **options)
        for node in cluster.nodes:
            node.environment["LOCKSTEP_FAULTS"] = f"@{cluster.directory / (node.name + '.faults')}"
        self.set(cluster, rules)
        return cluster.start()

    @staticmethod
    def set(cluster, rules):
        for node in cluster.nodes:
            path = cluster.directory / f"{node.name}.faults"
            new = path.with_suffix(".new")
            new.write_text(rules + "\n")
            new.rename(path)

    def test_with_50_ms_of_delay_more_than_one_append_is_in_flight(self):
        cluster = self.make("dir=out, delay=50ms", sections=STEADY)
        leader = cluster.leader()
        with self.load(cluster) as load:
            load.wait_in_flight(64, settings.patience(30))
            load.wait_acknowledged(1000, settings.patience(60))
            counters = leader.status_now().counters
        say(f"50 ms a link: at most {counters.appends_inflight_max} appends in flight, {counters.appends_sent} sent")
        self.assertGreater(counters.appends_inflight_max, 1)
        durations = sorted(c.ended - c.began for c in load.commands if c.outcome == "applied")
        say(f"{len(durations)} commands, median {durations[len(durations) // 2] * 1e3:.0f} ms")
        self.assertGreater(durations[0], 0.095, "two links of 50 ms each cannot be passed faster")
        self.judge(cluster, load)

    def test_under_load_there_are_fewer_flushes_than_blocks(self):
        """Flushes that take 4 ms more than they do here: while one runs, blocks gather for the next."""
        cluster = self.cluster(nodes=3, sections=STEADY)
        for node in cluster.nodes:
            node.environment.update(LD_PRELOAD=str(settings.BAD_DISK), BAD_DISK_FLUSH_US="4000")
        cluster.start()
        leader = cluster.leader()
        with self.load(cluster, unary=200, streams=16, messages=2) as load:
            load.wait_acknowledged(500, settings.patience(60))
            before = leader.status_now().counters
            load.wait_acknowledged(settings.by_length(1000, 10000, 50000), settings.patience(120))
            after = leader.status_now().counters
        commands = after.commands_appended - before.commands_appended
        blocks = after.blocks_appended - before.blocks_appended
        flushes = after.flushes - before.flushes
        say(f"{commands} commands in {blocks} blocks with {flushes} flushes")
        self.assertLess(flushes, blocks)
        self.assertLess(blocks, commands)
        self.judge(cluster, load)

    def test_loss_and_repetition_lose_and_repeat_nothing(self):
        cluster = self.make("")
        cluster.leader()
        with self.load(cluster) as load:
            for rules in ("loss=1%, duplicate=2%", "delay=5ms, loss=5%", "duplicate=20%", "loss=20%, delay=1ms"):
                self.set(cluster, rules)
                time.sleep(settings.by_length(0.5, 1.5, 10))
                say(f"{rules}: {load.acknowledged} acknowledged so far, last trouble: {load.last_trouble}")
            self.set(cluster, "")
            load.wait_writable(time.monotonic(), settings.patience(30))
            load.wait_acknowledged(300, settings.patience(30))
        self.judge(cluster, load)

    def test_links_cut_and_healed_again_and_again(self):
        """A random link of a random node, one way or both, every few hundred milliseconds."""
        cluster = self.make("")
        cluster.leader()
        with self.load(cluster) as load:
            for _ in range(settings.by_length(4, 12, 200)):
                node, other = self.random.sample(cluster.nodes, 2)
                way = self.random.choice(["", "dir=in, ", "dir=out, "])
                path = cluster.directory / f"{node.name}.faults"
                new = path.with_suffix(".new")
                new.write_text(f"peer={other.name}, {way}cut\n" if self.random.random() < 0.7 else "\n")
                new.rename(path)
                time.sleep(self.random.uniform(0.05, 0.6))
            self.set(cluster, "")
            load.wait_writable(time.monotonic(), settings.patience(30))
            load.wait_acknowledged(300, settings.patience(30))
        self.judge(cluster, load)

    def test_rules_that_are_wrong_are_named(self):
        cluster = self.cluster(nodes=1)
        cluster.nodes[0].environment["LOCKSTEP_FAULTS"] = "loss=nonsense"
        cluster.nodes[0].start()
        self.assertNotEqual(cluster.nodes[0].wait_exit(), 0)
        self.assertIn("nonsense", cluster.nodes[0].tail())


if __name__ == "__main__":
    main()
