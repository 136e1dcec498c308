# SPDX-License-Identifier: Apache-2.0
"""Cut links: namespaces and DROP rules. Clients reach every node all the time, also those that are cut off, which is
harder: an isolated leader is asked for reads and offered commands while the others have another one."""
import time

from harness import network, settings
from harness.api import APPLIED
from harness.case import Case, main, say
from harness.cluster import STEADY, Office, until
from harness.network import Network


class Links(Case):
    sections = None

    def setUp(self):
        super().setUp()
        self.names = [f"n{i + 1}" for i in range(self.size())]
        self.network = Network(self.names)
        self.addCleanup(self.network.close)
        self.nodes = self.cluster(nodes=len(self.names), network=self.network, sections=self.sections).start()
        self.nodes.leader()

    def size(self):
        return 5 if "of_five" in self._testMethodName else 3

    def others(self, *nodes):
        return [n for n in self.nodes.nodes if n not in nodes]

    def heal_and_judge(self, load):
        self.network.heal()
        load.wait_writable(time.monotonic(), settings.patience(30))
        load.wait_acknowledged(100, settings.patience(30))
        load.stop()
        self.judge(self.nodes, load)

    def wait_role(self, node, is_expected, what):
        """Clients reach it, though the others may not."""
        until(lambda: (s := node.status()) is not None and is_expected(s.role), settings.patience(20),
              lambda: f"{node.name} {what}\n{self.nodes.tails()}")

    def gives_up(self, leader):
        """Check-quorum: it does not go on believing that it leads."""
        self.wait_role(leader, lambda role: role != "leader", "gives up leading")


class LeaderGoes(Links):
    def test_an_isolated_leader_is_replaced_and_follows_when_the_links_are_back(self):
        with self.load(self.nodes) as load:
            load.wait_in_flight(64, settings.patience(30))
            leader = self.nodes.leader()
            self.network.isolate(leader.name)
            cut = time.monotonic()
            seconds = load.wait_writable(cut, settings.patience(30))
            say(f"leader isolated, writable again after {seconds * 1e3:.0f} ms")
            self.nodes.leader(among=self.others(leader))
            load.wait_acknowledged(500, settings.patience(30))
            self.gives_up(leader)
            self.heal_and_judge(load)

    def test_a_leader_that_hears_nobody_is_replaced(self):
        """One way: its messages leave, nothing comes back."""
        with self.load(self.nodes) as load:
            load.wait_in_flight(64, settings.patience(30))
            leader = self.nodes.leader()
            for other in self.others(leader):
                self.network.cut(other.name, leader.name)
            cut = time.monotonic()
            seconds = load.wait_writable(cut, settings.patience(30))
            say(f"leader deaf, writable again after {seconds * 1e3:.0f} ms")
            load.wait_acknowledged(300, settings.patience(30))
            self.heal_and_judge(load)

    def test_a_leader_that_nobody_hears_is_replaced(self):
        """One way: it hears everything, nothing of it arrives."""
        with self.load(self.nodes) as load:
            load.wait_in_flight(64, settings.patience(30))
            leader = self.nodes.leader()
            for other in self.others(leader):
                self.network.cut(leader.name, other.name)
            cut = time.monotonic()
            seconds = load.wait_writable(cut, settings.patience(30))
            say(f"leader mute, writable again after {seconds * 1e3:.0f} ms")
            load.wait_acknowledged(300, settings.patience(30))
            self.heal_and_judge(load)

    def test_two_of_five_on_the_leaders_side_commit_nothing(self):
        with self.load(self.nodes) as load:
            load.wait_in_flight(64, settings.patience(30))
            leader = self.nodes.leader()
            friend = self.random.choice(self.nodes.followers(leader))
            majority = self.others(leader, friend)
            for one in (leader, friend):
                for other in majority:
                    self.network.cut_both(one.name, other.name)
            cut = time.monotonic()
            seconds = load.wait_writable(cut, settings.patience(30))
            say(f"3 | 2 of five, writable again after {seconds * 1e3:.0f} ms")
            new = self.nodes.leader(among=majority)
            load.wait_acknowledged(300, settings.patience(30))
            self.assertIn(new, majority)
            for node in (leader, friend):  # what the others had said before the cut has been heard
                self.gives_up(node)
            commit = max(n.status_now().commit_index for n in (leader, friend))
            time.sleep(0.5)
            self.assertEqual(max(n.status_now().commit_index for n in (leader, friend)), commit,
                             "the side without a majority committed something")
            self.heal_and_judge(load)

    def test_three_sides_of_five_commit_nothing_until_two_of_them_meet(self):
        with self.load(self.nodes) as load:
            load.wait_in_flight(64, settings.patience(30))
            n = self.names
            sides = [n[:2], n[2:4], n[4:]]
            for a in range(3):
                for b in range(a + 1, 3):
                    for one in sides[a]:
                        for other in sides[b]:
                            self.network.cut_both(one, other)
            cut = time.monotonic()
            for node in self.nodes.nodes:
                self.gives_up(node)
            time.sleep(1.0)
            healed = time.monotonic()
            self.heal_and_judge(load)
        late = [c for c in load.commands if c.outcome == APPLIED and c.began > cut and c.ended < healed]
        self.assertEqual([c.payload for c in late][:5], [], "a side without a majority acknowledged a command")


class LeaderStays(Links):
    """Who is cut off asks for votes in vain (pre-vote), and deposes nobody when it comes back."""
    sections = STEADY

    def lead_on_without(self, load, leader, follower, cut):
        """cut it off until its time to hear of a leader is over."""
        office = Office(leader)  # who was away does not depose it
        cut()
        self.wait_role(follower, lambda role: role == "candidate", "asks for votes")
        load.wait_writable(time.monotonic(), settings.patience(30))
        load.wait_acknowledged(500, settings.patience(30))
        self.network.heal()
        load.wait_acknowledged(500, settings.patience(30))
        until(lambda: (s := follower.status()) is not None and s.leader == leader.name, settings.patience(20),
              f"{follower.name} follows {leader.name}")
        office.check_kept()

    def test_an_isolated_follower_does_not_disturb_when_it_comes_back(self):
        with self.load(self.nodes) as load:
            load.wait_in_flight(64, settings.patience(30))
            leader = self.nodes.leader()
            follower = self.random.choice(self.nodes.followers(leader))
            self.lead_on_without(load, leader, follower, lambda: self.network.isolate(follower.name))
            self.heal_and_judge(load)

    def test_a_leader_that_lost_one_follower_goes_on(self):
        """A partial partition: leader and one follower do not hear each other, the third hears both."""
        with self.load(self.nodes) as load:
            load.wait_in_flight(64, settings.patience(30))
            leader = self.nodes.leader()
            follower = self.random.choice(self.nodes.followers(leader))
            self.lead_on_without(load, leader, follower, lambda: self.network.cut_both(leader.name, follower.name))
            self.heal_and_judge(load)


class NoSharedMemory(Links):
    def test_nodes_that_do_not_see_each_others_local_sockets_follow_by_tcp(self):
        """As in containers: a node's socket has its name in its own network namespace alone."""
        self.assertEqual(self.nodes.leader().write(b"put a 1").code, 0)
        time.sleep(2)  # longer than between two attempts to find each other
        leader = self.nodes.leader()
        self.assertEqual({m.name: m.path for m in leader.status_now().members if m.name != leader.name},
                         {n.name: "tcp" for n in self.nodes.followers(leader)})
        self.nodes.wait_equal()


if __name__ == "__main__":
    network.enter()
    main()
