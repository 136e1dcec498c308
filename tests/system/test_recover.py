# SPDX-License-Identifier: Apache-2.0
"""A majority is lost for good, and a survivor that runs is told to go on alone: `lockstep recover --online`."""
import json
import os
import subprocess
import time

from harness import process, settings
from harness.case import Case, main
from harness.cluster import until


class RecoverOnline(Case):
    def make(self, level):
        cluster = self.cluster(nodes=3)
        for node in cluster.nodes:
            node.environment = {"LOCKSTEP_DURABILITY": level}
        cluster.start()
        leader = cluster.leader()
        for number in range(50):
            leader.write(b"put key%d value%d" % (number, number))
        cluster.wait_equal()
        return cluster

    def recover(self, node, *flags, to=None):
        """lockstep recover --online: exit code, standard output, standard error."""
        return process.run([settings.PROGRAM, "recover", "--online", "--to", to or node.client_endpoint, *flags],
                           seconds=settings.patience(90))

    def typed(self, node, name, after, *flags):
        """The same by somebody at a terminal, who reads the plan for so many seconds."""
        terminal, its_end = os.openpty()
        command = [settings.PROGRAM, "recover", "--online", "--to", node.client_endpoint, *flags]
        popen = subprocess.Popen(process.dies_with_us(command), stdin=its_end, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, env=process.clean_environment(None))
        os.close(its_end)
        try:
            time.sleep(after)
            os.write(terminal, name.encode() + b"\n")
            out = popen.communicate(timeout=settings.patience(90))[0].decode()
        finally:
            process.end(popen)
            os.close(terminal)
        return popen.returncode, out

    def lose(self, lost, keep):
        for node in lost:
            node.kill()
        until(lambda: (s := keep.status()) is not None and not s.leader, settings.patience(30), keep.tail)

    def recovered(self, cluster, keep):
        """Told to, it does it; the process stays. What its output said, line by line."""
        before, pid = keep.status_now(), keep.pid
        code, out, errors = self.recover(keep, "--confirm", cluster.name, "-o", "json")
        self.assertEqual(code, 0, f"{out}{errors}\n{keep.tail()}")
        plan, done = map(json.loads, out.splitlines())
        self.assertEqual((plan["step"], done["step"], keep.pid), ("plan", "done", pid))
        self.assertEqual(plan["last"], before.last_index)
        after = keep.status_now()  # its connections were closed
        self.assertEqual(f"{after.cluster_id:016x}", done["cluster_id"])
        self.assertNotEqual(after.cluster_id, before.cluster_id)
        self.assertEqual((after.role, after.member_id), ("leader", before.member_id))
        self.assertEqual([m.name for m in after.members if m.role == "voter"], [keep.name])
        self.values(keep)
        return plan, done

    def values(self, node):
        for number in (0, 17, 49):
            self.assertEqual(node.read(b"get key%d" % number).reply, b"value%d" % number)

    def admit(self, cluster, done):
        """What it said is next."""
        self.assertEqual(len(done["next"]), 2)
        for line in done["next"]:
            words = line.split()
            self.assertEqual(words[:3], ["lockstep", "member", "add"])
            code, out, errors = process.run([settings.PROGRAM, *words[1:], "--timeout", "60s"],
                                            seconds=settings.patience(90))
            self.assertEqual(code, 0, f"{out}{errors}\n{cluster.tails()}")
        cluster.leader().write(b"put more 1")
        cluster.wait_equal(settings.patience(60))
        cluster.wait_hashes()

    def test_at_level_memory_a_survivor_of_restarts_goes_on_with_all_that_it_has(self):
        cluster = self.make("memory")
        keep = cluster.leader()
        others = cluster.followers(keep)
        self.lose(others, keep)
        for node in others:
            node.start()
        until(lambda: (s := keep.status()) is not None and any("2 of the voters were started anew" in w for w in s.warnings),
              settings.patience(30), cluster.tails)
        plan, done = self.recovered(cluster, keep)
        self.assertEqual(sorted(plan["left_behind"]), sorted(n.name for n in others))
        self.admit(cluster, done)
        # And it is a cluster like any other: who is started anew is replaced.
        keep.kill()
        keep.start()
        cluster.leader()
        cluster.wait_equal(settings.patience(60))
        self.values(keep)

    def test_at_level_fsync_it_goes_on_and_is_there_after_a_restart(self):
        cluster = self.make("fsync")
        leader = cluster.leader()
        keep, *others = [*cluster.followers(leader), leader]
        self.lose(others, keep)
        before = keep.status_now().cluster_id
        code, out = self.typed(keep, "another", 0)
        self.assertEqual((code, keep.status_now().cluster_id), (5, before), out)
        after, flags = settings.by_length((0, ()), (0, ()), (11, ("--timeout", "10s")))  # nobody is hurried
        code, out = self.typed(keep, cluster.name, after, *flags)
        self.assertEqual(code, 0, f"{out}\n{keep.tail()}")
        self.assertIn("what may be lost", out)
        self.assertNotEqual(keep.status_now().cluster_id, before)
        self.values(keep)
        keep.write(b"put alone 1")
        self.assertEqual(keep.terminate(), 0)
        keep.start()
        until(lambda: (s := keep.status()) is not None and s.role == "leader", settings.patience(20), keep.tail)
        self.values(keep)
        self.assertEqual(keep.read(b"get alone").reply, b"1")
        others[0].start()  # with its directory of the cluster before: it is refused
        until(lambda: b"was born in cluster" in keep.output.read_bytes(), settings.patience(20), keep.tail)
        self.assertEqual(keep.status_now().role, "leader")

    def test_nothing_is_changed_where_nothing_is_lost_or_nobody_confirmed_it(self):
        cluster = self.make("os")
        leader = cluster.leader()
        keep, *others = [*cluster.followers(leader), leader]
        before = keep.status_now().cluster_id
        code, _, errors = self.recover(keep, "--confirm", cluster.name)
        self.assertEqual(code, 5, errors)
        self.assertIn("nothing was changed: ", errors)
        self.assertRegex(errors, "has a leader|connected to a majority")
        self.lose(others, keep)
        code, out, errors = self.recover(keep)  # nobody is there to type it
        self.assertEqual(code, 5, errors)
        self.assertIn("what may be lost", out)
        self.assertIn("nobody confirmed it", errors)
        code, _, errors = self.recover(keep, "--confirm", "another")
        self.assertEqual(code, 5, errors)
        code, _, errors = self.recover(keep, to=",".join(cluster.endpoints()))
        self.assertEqual(code, 2, errors)
        self.assertIn("--online asks one node", errors)
        code, _, errors = process.run([settings.PROGRAM, "recover", "--online", "--node", "n1", "--to",
                                       keep.client_endpoint])
        self.assertEqual(code, 2, errors)
        self.assertEqual(keep.status_now().cluster_id, before)
        for node in others:
            node.start()
        cluster.leader()
        cluster.wait_equal()
        self.values(keep)


if __name__ == "__main__":
    main()
