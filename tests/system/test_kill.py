# SPDX-License-Identifier: Apache-2.0
"""kill -9 of leaders and followers under load, and restarts: nothing acknowledged is lost, nothing is applied twice.

How long until a command that was sent after the kill is acknowledged is measured and printed, not asserted.
"""
import statistics
import time

from harness import settings
from harness.api import APPLIED
from harness.case import Case, main, say
from harness.cluster import until

ROUNDS = settings.by_length(1, 3, 20)
KILLS = settings.by_length(3, 5, 200)


class Kills:
    nodes = 3

    def test_nothing_acknowledged_is_lost_when_leader_and_followers_are_killed(self):
        cluster = self.cluster(nodes=self.nodes).start()
        cluster.leader()
        times = {"leader": [], "follower": []}
        with self.load(cluster) as load:
            for number in range(ROUNDS):
                for role in ("leader", "follower"):
                    seconds = self.kill_one(cluster, load, role)
                    times[role].append(seconds)
                    say(f"round {number + 1}/{ROUNDS}: {role} killed, writable again after {seconds * 1e3:.0f} ms")
            load.wait_in_flight(64, settings.patience(30))
        for role, seconds in times.items():
            say(f"{self.nodes} nodes, {role} killed {len(seconds)} times: writable again after median "
                f"{statistics.median(seconds) * 1e3:.0f} ms, max {max(seconds) * 1e3:.0f} ms")
        say(f"at most {load.in_flight_max} in flight")
        self.judge(cluster, load)

    def kill_one(self, cluster, load, role):
        leader = cluster.leader()
        victim = leader if role == "leader" else self.random.choice(cluster.followers(leader))
        time.sleep(self.random.uniform(0, 0.1))
        load.wait_in_flight(64, settings.patience(30))
        killed = time.monotonic()
        victim.kill()
        dead = time.monotonic()  # what was sent before may have been answered by the victim
        seconds = load.wait_writable(dead, settings.patience(30)) + dead - killed
        load.wait_acknowledged(200, settings.patience(30))
        victim.start()
        goal = cluster.leader().status_now().commit_index
        until(lambda: (s := victim.status()) is not None and s.applied_index >= goal, settings.patience(30),
              lambda: f"{victim.name} has caught up with index {goal}: {victim.status()}\n{cluster.tails()}")
        return seconds


class KillsOfThree(Kills, Case):
    nodes = 3


class KillsOfFive(Kills, Case):
    nodes = 5


class TwoOfFive(Case):
    def test_five_nodes_go_on_without_two_and_stop_without_three(self):
        cluster = self.cluster(nodes=5).start()
        first = cluster.leader()
        with self.load(cluster) as load:
            load.wait_in_flight(64, settings.patience(30))
            first.kill()
            second = cluster.leader()
            second.kill()
            killed = time.monotonic()
            load.wait_writable(killed, settings.patience(30))
            load.wait_acknowledged(100, settings.patience(30))
            third = cluster.leader()
            third.kill()
            killed = time.monotonic()
            time.sleep(2.5)
            revived = time.monotonic()
            first.start()
            load.wait_writable(time.monotonic(), settings.patience(30))
            second.start()
            third.start()
        late = [c.payload for c in load.commands if c.outcome == APPLIED and c.began > killed and c.ended < revived]
        self.assertEqual(late[:5], [], "two of five acknowledged a command")
        self.judge(cluster, load)


class KillLoop:
    """Any node, at any moment, again and again, also while it starts. A small journal: laps and packs."""
    nodes = 1

    def test_what_was_acknowledged_outlives_a_loop_of_kills(self):
        cluster = self.cluster(nodes=self.nodes, ring=8 << 20, journal=32 << 20)
        cluster.start()
        cluster.leader()
        in_start = 0
        with self.load(cluster, unary=16, streams=2, bytes_max=8192) as load:
            for number in range(KILLS):
                victim = self.random.choice(cluster.nodes)
                if self.random.random() < 0.25:  # soon after its start
                    time.sleep(self.random.uniform(0, 0.1))
                    in_start += 1
                else:
                    load.wait_acknowledged(self.random.randrange(1, 400), settings.patience(60))
                victim.kill()
                victim.start()
            load.wait_writable(time.monotonic(), settings.patience(60))
            say(f"{self.nodes} nodes: {KILLS} kills, {in_start} of them soon after a start; {load.acknowledged} acknowledged")
        self.judge(cluster, load)


class OneInALoop(KillLoop, Case):
    """Nobody else could give back what this one loses."""
    nodes = 1


class ThreeInALoop(KillLoop, Case):
    nodes = 3


if __name__ == "__main__":
    main()
