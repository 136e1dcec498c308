# SPDX-License-Identifier: Apache-2.0
"""Nodes of one host follow through shared memory by themselves, and by TCP where they cannot; what dies, stops or lies there
costs the others a reconnect."""
import os
import re
import socket
import struct
import threading
import time
import urllib.request

from harness import process, settings
from harness.case import Case, main, say
from harness.cluster import STEADY, Office, until

ROUNDS = settings.by_length(1, 2, 10)
HOSTILE_SECONDS = settings.by_length(1, 3, 20)
SHARED, TCP = "shared memory", "tcp"


def address(cluster_id, member_id):
    return f"\0lockstep/{cluster_id:016x}/{member_id:016x}"


class SharedMemory(Case):
    """What both have."""

    def paths(self, node):
        """How this node and the others replicate, by name; None while it gives no answer."""
        status = node.status()
        return status and {m.name: m.path for m in status.members if m.name != node.name}

    def wait_paths(self, cluster, expected):
        """The leader says so of each of the others."""
        def so():
            leader = cluster.leader()
            paths = self.paths(leader)
            return paths is not None and all(path == expected(leader.name, name) for name, path in paths.items())
        until(so, settings.patience(30), lambda: f"the paths are as they should be: "
                                                 f"{[(n.name, self.paths(n)) for n in cluster.nodes]}\n{cluster.tails()}")

    def wait_shared(self, cluster):
        self.wait_paths(cluster, lambda leader, name: SHARED)


class OfOneHost(SharedMemory):
    def test_kills_and_stops_of_leader_and_follower_under_load_lose_nothing(self):
        cluster = self.cluster(nodes=3).start()
        self.wait_shared(cluster)
        with self.load(cluster) as load:
            for number in range(ROUNDS):
                for role in ("leader", "follower"):
                    leader = cluster.leader()
                    node = leader if role == "leader" else self.random.choice(cluster.followers(leader))
                    load.wait_in_flight(64, settings.patience(30))
                    node.kill()
                    load.wait_writable(time.monotonic(), settings.patience(30))
                    node.start()
                    self.wait_shared(cluster)
                    leader = cluster.leader()
                    node = leader if role == "leader" else self.random.choice(cluster.followers(leader))
                    load.wait_in_flight(64, settings.patience(30))
                    node.pause()
                    load.wait_writable(time.monotonic(), settings.patience(30))
                    load.wait_acknowledged(200, settings.patience(30))
                    node.resume()
                    self.wait_shared(cluster)
                say(f"round {number + 1}/{ROUNDS}: killed and stopped both, shared memory again")
        self.judge(cluster, load)

    def test_a_process_that_takes_a_followers_place_and_writes_garbage_costs_reconnects(self):
        """S4, S5. It has our user, a member's name and start, and writes where it may: all of its slot, and on its socket."""
        cluster = self.cluster(nodes=3, sections=STEADY).start()
        self.wait_shared(cluster)
        leader = cluster.settled()
        status = leader.status_now()
        office = Office(leader)
        follower = cluster.followers(leader)[0]
        boots = {n.name: int(re.findall(r" boot=(\d+) ", n.output.read_text())[-1]) for n in cluster.nodes}
        hello = struct.pack("<IIIIQQQQQQ", 0x4c48534c, 1, 1, 0, status.cluster_id, follower.status_now().member_id,
                            boots[follower.name], status.member_id, boots[leader.name], 0)
        ended, granted, errors = threading.Event(), [], []

        def attack():
            noise = self.random.randbytes
            while not ended.is_set():
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                    try:
                        s.settimeout(1)
                        s.connect(address(status.cluster_id, status.member_id))
                        s.send(hello)
                        reply, fds, _, _ = socket.recv_fds(s, 4096, 2)
                        if len(fds) != 2:
                            continue
                        granted.append(reply)
                        try:
                            with self.assertRaises(OSError):
                                os.pwrite(fds[0], b"mine", 0)
                            until_ns = time.monotonic() + 0.2
                            while time.monotonic() < until_ns:
                                os.pwrite(fds[1], noise(4096), 0)
                            for size in (1, 1, 2, 300):
                                s.send(noise(size))
                        finally:
                            for fd in fds:
                                os.close(fd)
                    except OSError:
                        pass  # it was thrown out: another attempt
                    except AssertionError as error:
                        errors.append(error)
                        return

        with self.load(cluster) as load:
            load.wait_in_flight(64, settings.patience(30))
            thread = threading.Thread(target=attack)
            thread.start()
            try:
                until(lambda: granted or errors, settings.patience(30), "it is let in")
                deadline = time.monotonic() + HOSTILE_SECONDS
                while time.monotonic() < deadline:
                    load.wait_acknowledged(100, settings.patience(30))
            finally:
                ended.set()
                thread.join(settings.patience(30))
            self.assertFalse(errors)
            self.wait_shared(cluster)
            load.wait_acknowledged(100, settings.patience(30))
        say(f"let in {len(granted)} times")
        office.check_kept()
        self.judge(cluster, load)


class WhereNot(SharedMemory):
    def shown(self, node):
        """What `lockstep status` shows for PATH, by name, if that node is asked."""
        _, out, _ = process.run([settings.PROGRAM, "status", "--to", node.client_endpoint], seconds=settings.patience(30))
        return dict(re.findall(r"^[* ] +(n\d) .* (memory|tcp|-) +\S+@\d+ +\S+@\d+$", out, re.M))

    def test_nodes_of_one_host_use_it_by_themselves_and_those_that_are_told_not_to_do_not(self):
        cluster = self.cluster(nodes=3, sections=STEADY)
        cluster["n3"].environment["LOCKSTEP_TRANSPORT_SHARED_MEMORY"] = "off"
        cluster.start()
        for name in ("n1", "n3", "n2"):
            cluster.hand_over(cluster[name])
            self.wait_paths(cluster, lambda leader, name: TCP if "n3" in (leader, name) else SHARED)
            self.assertEqual(cluster.leader().write(b"put a 1").code, 0)
        follower = cluster["n1"]
        until(lambda: self.paths(follower) == {"n2": SHARED, "n3": TCP}, settings.patience(20), "a follower says the same")
        until(lambda: self.shown(follower) == {"n1": "memory", "n2": "-", "n3": "tcp"}, settings.patience(30),
              lambda: f"whoever is asked, what is shown is how the leader is followed: {self.shown(follower)}")
        cluster.wait_equal()
        status = cluster["n2"].status_now()
        self.assertEqual({m.lapped for m in status.members}, {0})
        self.assertEqual({m.lag_bytes for m in status.members}, {0})
        metrics = urllib.request.urlopen(f"http://{cluster['n2'].client_endpoint}/metrics", timeout=20).read().decode()
        values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
        self.assertEqual(values['lockstep_peer_shared_memory{peer="n1"}'], "1")
        self.assertEqual(values['lockstep_peer_shared_memory{peer="n3"}'], "0")
        self.assertGreater(int(values['lockstep_peer_bells_total{peer="n1"}']), 0)
        self.assertEqual(int(values["lockstep_ring_size_bytes"]), cluster.ring)
        for holder in ("journal", "machine", "log", "peers"):
            self.assertIn(f'lockstep_ring_held_bytes{{by="{holder}"}}', values)
            self.assertLess(float(values[f'lockstep_ring_held_seconds{{by="{holder}"}}']), settings.patience(60))

    def test_a_name_that_somebody_has_is_said_and_tcp_goes_on_until_it_is_free(self):
        cluster = self.cluster(nodes=3, sections=STEADY).start()
        self.wait_shared(cluster)
        node = cluster["n2"]
        status = node.status_now()
        self.assertEqual(node.terminate(), 0)
        squatter = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with squatter:
            squatter.bind(address(status.cluster_id, status.member_id))
            squatter.listen(1)
            node.start()
            cluster.hand_over(node)
            until(lambda: "another process has this node's local name" in node.tail(100), settings.patience(20),
                  lambda: f"it says so\n{node.tail()}")
            self.wait_paths(cluster, lambda leader, name: TCP if leader == "n2" else SHARED)
            self.assertEqual(cluster.leader().write(b"put a 1").code, 0)
        self.wait_shared(cluster)


if __name__ == "__main__":
    main()
