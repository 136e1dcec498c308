# SPDX-License-Identifier: Apache-2.0
"""Members are added, removed and replaced by the command line while clients write and read: what was acknowledged stays.

The programs and disks are real; how long a change takes is printed, not asserted.
"""
import json
import shutil
import threading
import time

import grpc

from harness import settings
from harness.case import Case, main, say
from harness.cluster import Node, until
from harness.load import Load

ROUNDS = settings.by_length(1, 1, 12)


class Members(Case):
    def newcomer(self, cluster, name):
        """A node that is no member: its own file is the cluster's, and its own section behind it."""
        node = Node(cluster, name)
        node.config = cluster.directory / f"{name}.toml"
        text = cluster.config.read_text()
        section = (f'[node.{name}]\nclient = "{node.client_endpoint}"\npeer = "{node.peer_endpoint}"\n'
                   f'data = "{name}"\n')
        at = text.index("[limits]")
        node.config.write_text(text[:at] + section + text[at:])
        self.addCleanup(node.close)
        return node

    def change(self, cluster, *words):
        began = time.monotonic()
        code, out, errors = cluster.member(*words)
        self.assertEqual(code, 0, f"{words}: {out}{errors}\n{cluster.tails()}")
        say(f"member {' '.join(words[:2])}: {(time.monotonic() - began) * 1e3:.0f} ms")
        return out

    def add(self, cluster, node):
        node.start()
        node.status_now()
        self.change(cluster, "add", node.name, "--client", node.client_endpoint, "--peer", node.peer_endpoint)
        cluster.nodes.append(node)

    def remove(self, cluster, node, *flags):
        """It is told, and ends by itself with 0."""
        self.change(cluster, "remove", node.name, *flags)
        cluster.nodes.remove(node)
        if node.popen is not None:
            self.assertEqual(node.wait_exit(30), 0, node.tail())
            self.assertIn(b"removed from its cluster", node.output.read_bytes())

    def roles(self, cluster):
        status = cluster.leader().status_now()
        return {m.name: m.role for m in status.members}

    def load_on(self, cluster, *more):
        return Load(cluster.endpoints() + [n.client_endpoint for n in more], self.seed())


class GrowAndShrink(Members):
    def test_three_become_five_and_three_others_under_load(self):
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        more = [self.newcomer(cluster, name) for name in ("n4", "n5")]
        with self.load_on(cluster, *more) as load:
            load.wait_acknowledged(500, settings.patience(60))
            for node in more:
                self.add(cluster, node)
                load.wait_writable(time.monotonic(), settings.patience(30))
                load.wait_acknowledged(200, settings.patience(60))
            self.assertEqual(self.roles(cluster), {f"n{i + 1}": "voter" for i in range(5)})
            self.remove(cluster, cluster.leader())  # T35: the leader goes by itself
            load.wait_writable(time.monotonic(), settings.patience(30))
            self.remove(cluster, self.random.choice(cluster.followers(cluster.leader())))
            load.wait_writable(time.monotonic(), settings.patience(30))
            load.wait_acknowledged(200, settings.patience(60))
        self.assertEqual(set(self.roles(cluster).values()), {"voter"})
        self.assertEqual(len(self.roles(cluster)), 3)
        self.judge(cluster, load)

    def test_files_that_never_heard_of_the_new_members_are_enough_after_a_restart(self):
        """Members and addresses come from the log."""
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        self.add(cluster, self.newcomer(cluster, "n4"))
        cluster.wait_equal()
        cluster.stop()
        cluster.start()
        cluster.leader()
        cluster.wait_equal()
        warnings = cluster["n1"].status_now().warnings
        self.assertIn("member n4 is not in the configuration file", list(warnings))
        self.assertEqual(self.roles(cluster)["n4"], "voter")


class Replace(Members):
    def test_an_emptied_node_is_replaced_under_load(self):
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        with self.load(cluster) as load:
            for number in range(ROUNDS):
                load.wait_acknowledged(500, settings.patience(60))
                victim = self.random.choice(cluster.nodes)
                victim.kill()
                shutil.rmtree(victim.data)
                victim.start()
                load.wait_writable(time.monotonic(), settings.patience(30))
                until(lambda: b"no voter" in victim.output.read_bytes(), settings.patience(20), victim.tail)
                self.change(cluster, "replace", victim.name)
                victim.output.write_bytes(b"")
                load.wait_acknowledged(200, settings.patience(60))
                say(f"{number + 1}/{ROUNDS}: {victim.name} replaced")
        self.assertEqual(self.roles(cluster), {f"n{i + 1}": "voter" for i in range(3)})
        self.judge(cluster, load)

    def test_a_lost_node_is_replaced_by_one_of_another_name(self):
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        lost = cluster.followers(cluster.leader())[0]
        code, _, errors = cluster.member("replace", lost.name)  # it is there, with its directory
        self.assertEqual(code, 5, errors)
        self.assertIn("give it an empty directory", errors)
        lost.kill()
        cluster.nodes.remove(lost)
        other = self.newcomer(cluster, "n9")
        other.start()
        self.change(cluster, "replace", lost.name, "n9", "--client", other.client_endpoint, "--peer",
                    other.peer_endpoint)
        cluster.nodes.append(other)
        cluster.wait_equal()
        self.assertEqual(set(self.roles(cluster)), {n.name for n in cluster.nodes})

    def test_a_replacement_that_was_begun_does_not_shut_the_old_directory_out(self):
        """The successor was a learner when it was lost, and the old disk turned up again: that one is a voter still, and
        two nodes of three are a majority."""
        cluster = self.cluster(nodes=3).start()
        leader = cluster.leader()
        back, other = cluster.followers(leader)
        for i in range(48):  # so that the successor is a learner for a while
            leader.write(b"put large%d " % i + b"x" * 500_000)
        aside = back.data.with_suffix(".aside")
        for attempt in range(20):
            back.kill()
            shutil.rmtree(aside, ignore_errors=True)
            back.data.rename(aside)
            back.output.write_bytes(b"")
            back.start()
            until(lambda: b"no voter" in back.output.read_bytes(), settings.patience(20), back.tail)
            asked = threading.Thread(target=cluster.member, args=["replace", back.name], kwargs={"timeout": 1})
            asked.start()
            until(lambda: not asked.is_alive() or any(m.role == "learner" for m in leader.status_now().members),
                  settings.patience(20), "the successor is a learner")
            back.pause()
            asked.join()
            learners = [m.id for m in leader.status_now().members if m.role == "learner"]
            if learners:
                break
            back.resume()
        self.assertEqual(len(learners), 1, "never caught while it was a learner")
        back.kill()
        shutil.rmtree(back.data)
        aside.rename(back.data)
        back.start()
        other.kill()
        until(lambda: self.applied(leader, b"put after it"), settings.patience(30), cluster.tails)
        other.start()
        self.change(cluster, "remove", f"{learners[0]:016x}")
        cluster.wait_equal()
        self.assertEqual(self.roles(cluster), {f"n{i + 1}": "voter" for i in range(3)})

    def applied(self, node, command):
        try:
            return node.client.propose(command, timeout=1).code == 0
        except grpc.RpcError:
            return False


class KillInTheMiddle(Members):
    def test_a_change_goes_on_though_its_leader_is_killed(self):
        """T30, T35, T36: kill -9 at any moment of an addition or a removal; the command line asks the next leader."""
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        fourth = self.newcomer(cluster, "n4")
        fourth.start()
        with self.load_on(cluster, fourth) as load:
            for number in range(ROUNDS):
                for words in (("add", "n4", "--client", fourth.client_endpoint, "--peer", fourth.peer_endpoint),
                              ("remove", "n4")):
                    load.wait_acknowledged(300, settings.patience(60))
                    leader = cluster.leader()
                    if leader is fourth:  # its own removal has a test of its own
                        leader = cluster["n1"]
                        cluster.hand_over(leader)
                    answer = []
                    asked = threading.Thread(target=lambda: answer.append(cluster.member(*words)))
                    asked.start()
                    time.sleep(self.random.uniform(0, 0.08))
                    leader.kill()
                    load.wait_writable(time.monotonic(), settings.patience(60))
                    asked.join(settings.patience(90))
                    leader.start()
                    code, out, errors = answer[0]
                    self.assertEqual(code, 0, f"{words}: {out}{errors}\n{cluster.tails()}\n{fourth.tail()}")
                    say(f"{number + 1}/{ROUNDS}: {words[0]}, {leader.name} killed: {out.strip()}")
                    if words[0] == "add":
                        cluster.nodes.append(fourth)
                        self.assertEqual(self.roles(cluster)["n4"], "voter")
                    else:
                        cluster.nodes.remove(fourth)
                        self.assertEqual(fourth.wait_exit(60), 0, fourth.tail())
                        shutil.rmtree(fourth.data)
                        fourth.start()
        self.judge(cluster, load)


class Refusals(Members):
    def test_what_cannot_be_done_is_refused_with_the_reason(self):
        seconds = 1.5  # a leader waits twice as long to hear of somebody, before it refuses what that one is needed for
        cluster = self.cluster(nodes=3, sections={"raft": {"election_timeout": f"{seconds * 1e3:.0f}ms"}}).start()
        leader = cluster.leader()
        follower, dead = cluster.followers(leader)

        def refused(code, words, *texts, timeout=30):
            got, out, errors = cluster.member(*words, timeout=timeout)
            self.assertEqual(got, code, f"{words}: {out}{errors}")
            for text in texts:
                self.assertIn(text, errors)
            say(errors.strip().splitlines()[-1])

        refused(2, ("add", "n4"), "--client is missing")
        refused(5, ("remove", "n7"), "no member is called n7")
        refused(5, ("add", "n7", "--client", follower.client_endpoint, "--peer", "127.0.0.1:1"), "already")
        refused(3, ("add", "n7", "--client", "127.0.0.1:1", "--peer", "127.0.0.1:2"), "127.0.0.1:2", "refused", timeout=3)

        foreign = self.cluster(directory=self.directory + "/foreign", nodes=1, name="other").start()
        foreign.leader()
        refused(5, ("add", "n7", "--client", foreign["n1"].client_endpoint, "--peer", foreign["n1"].peer_endpoint),
                'to "other"')
        foreign.stop()

        dead.kill()
        until(lambda: any(m.name == dead.name and not m.connected for m in leader.status_now().members),
              settings.patience(20), "the leader does not hear it")
        time.sleep(2 * seconds)  # an election timeout, and more
        refused(5, ("remove", dead.name), "is not heard", "--force")
        refused(5, ("remove", follower.name), "quorum would be lost", dead.name)
        refused(5, ("remove", follower.name, "--force"), "quorum would be lost")
        code, out, _ = cluster.member("remove", dead.name, "--force", "-o", "json")
        self.assertEqual(code, 0)
        answer = json.loads(out)
        self.assertEqual((answer["member"], answer["exit"]), (dead.name, 0))
        cluster.nodes.remove(dead)

        dead.start()  # T12: it disturbs nobody, is told, and ends
        self.assertEqual(dead.wait_exit(30), 0)
        dead.start()
        refused(5, ("add", dead.name, "--client", dead.client_endpoint, "--peer", dead.peer_endpoint), "empty")
        dead.close()
        self.assertEqual(cluster.leader(), leader)
        self.assertEqual(leader.write(b"put after all").code, 0)


if __name__ == "__main__":
    main()
