# SPDX-License-Identifier: Apache-2.0
"""A cluster of real processes in one directory: started, killed, stopped for a while, asked, and read when stopped."""
import pathlib
import signal
import time

import grpc

from harness import process, settings
from harness.api import Client, again
from harness.history import parse_dump
from harness.ports import free_port
from harness.waiting import Stillness, until

# For what is said of a leader that stays: it stays though the host stands still for seconds.
STEADY_SECONDS = 8 if settings.SLOW else 3
STEADY = {"raft": {"election_timeout": f"{STEADY_SECONDS}s", "heartbeat": "60ms"}}


class Node:
    def __init__(self, cluster, name, host="127.0.0.1", prefix=(), ports=None):
        self.cluster, self.name, self.host, self.prefix = cluster, name, host, tuple(prefix)
        client, peer = ports or (free_port(), free_port())
        self.client_port, self.peer_port = client, peer
        self.client_endpoint, self.peer_endpoint = f"{host}:{client}", f"{host}:{peer}"
        self.data = cluster.directory / name
        self.output = cluster.directory / f"{name}.log"
        self.environment = {}
        self.config = cluster.config  # a node that joins later has its own
        self.popen = None
        self._client = None

    # ---- life and death ----

    def start(self, arguments=()):
        assert self.popen is None, f"{self.name} runs already"
        command = [settings.PROGRAM, "serve", "--config", self.config, "--node", self.name, *arguments]
        self.popen = process.start(command, self.output, self.environment, prefix=self.prefix)

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def kill(self):
        """kill -9. Checks that it was alive until now: a node that ended by itself is a bug, not a fault of ours."""
        assert self.running(), f"{self.name} ended by itself with {self.popen and self.popen.poll()}\n{self.tail()}"
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(settings.patience(15))
        self.popen = None

    def terminate(self, seconds=15):
        """SIGTERM. Returns the exit code."""
        assert self.running(), f"{self.name} ended by itself with {self.popen and self.popen.poll()}\n{self.tail()}"
        self.popen.send_signal(signal.SIGTERM)
        return self.wait_exit(seconds)

    def wait_exit(self, seconds=15):
        code = self.popen.wait(settings.patience(seconds))
        self.popen = None
        return code

    def pause(self):
        """SIGSTOP; returns when every thread stands still."""
        self.popen.send_signal(signal.SIGSTOP)
        until(lambda: process.is_stopped(self.pid), settings.patience(15), f"{self.name} stands still")

    def resume(self):
        self.popen.send_signal(signal.SIGCONT)

    # ---- asking ----

    @property
    def client(self):
        """A lasting connection. A node that starts again is dialled again by gRPC."""
        if self._client is None:
            self._client = Client(self.client_endpoint)
        return self._client

    def status(self, timeout=1.0):
        """Its status, or None if it gives no answer now."""
        if not self.running():
            return None
        try:
            return self.client.status(timeout)
        except grpc.RpcError:
            return None

    def status_now(self, seconds=20):
        """Its status, however long the answer takes."""
        return until(self.status, settings.patience(seconds), lambda: f"{self.name} says its status\n{self.tail()}")

    def write(self, command, **fields):
        """The answer to a command that may be applied twice, as a put may: proposed again while nobody leads."""
        return again(lambda: self.client.propose(command, **fields))

    def read(self, query, **fields):
        """The answer to a query, asked again while there is no leader."""
        return again(lambda: self.client.query(query, **fields))

    def resident_bytes(self):
        return process.resident_bytes(self.pid)

    def tail(self, lines=40):
        try:
            text = self.output.read_bytes().decode("utf-8", "replace").splitlines()[-lines:]
        except FileNotFoundError:
            text = []
        return f"---- {self.name}: the last of {self.output.name}\n" + "\n".join(text)

    def dump(self):
        """Its log, offline: the node is stopped."""
        assert not self.running()
        output = self.cluster.directory / f"{self.name}.dump"
        code, _, errors = process.run([settings.DUMP_LOG, self.data, self.name, output, self.cluster.ring, self.cluster.journal],
                                      seconds=settings.patience(60))
        assert code == 0, f"dump_log of {self.name}: exit {code}: {errors}"
        return parse_dump(output.read_bytes())

    def close(self):
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.popen is not None:
            self.popen.send_signal(signal.SIGKILL) if self.popen.poll() is None else None
            self.popen.wait(settings.patience(15))
            self.popen = None


class Office:
    """That a leader of a STEADY cluster stays one, whatever is done to it from here on. Only a host that stands still for
    STEADY_SECONDS deposes it too: for how long it did is said, so that people see which of both it was."""

    def __init__(self, leader):
        self.leader, self.term = leader, leader.status_now().term
        self._stillness = Stillness()

    def check_kept(self):
        still, status = self._stillness.end(), self.leader.status_now()
        assert (status.role, status.term) == ("leader", self.term), (
            f"{self.leader.name} led in term {self.term}, now it is {status.role} in term {status.term}; this host stood still "
            f"for {still:.1f} s at a time\n{self.leader.cluster.tails()}")


class Cluster:
    """nodes: how many. sections: {"limits": {"ring": "8MiB"}, ...} over the defaults below.
    network: a harness.network.Network that gives every node an address of its own."""

    def __init__(self, directory, nodes=3, machine="kv", name="system", sections=None, network=None, ring=16 << 20,
                 journal=64 << 20):
        self.ring, self.journal = ring, journal
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.name, self.machine = name, machine
        self.config = self.directory / "lockstep.toml"
        names = [f"n{i + 1}" for i in range(nodes)]
        if network is None:
            self.nodes = [Node(self, n) for n in names]
        else:
            self.nodes = [Node(self, n, network.address(n), network.prefix(n), (7401, 7501)) for n in names]
        self.sections = {
            "raft": {"election_timeout": "1000ms", "heartbeat": "200ms"} if settings.SLOW else {},
            "limits": {"ring": f"{self.ring}B"},
            # Whole logs are what judge() looks at; test_snapshot.py has them compacted.
            "storage": {"journal": f"{self.journal}B", "map": "16GiB", "snapshot_after": "1TiB"},
        }
        if settings.SHARED_MEMORY:
            self.sections["transport"] = {"shared_memory": settings.SHARED_MEMORY}
        for section, values in (sections or {}).items():
            self.sections.setdefault(section, {}).update(values)
        self.write_config()

    def write_config(self):
        text = f'cluster = "{self.name}"\nmachine = "{self.machine}"\n'
        for node in self.nodes:
            text += (f'[node.{node.name}]\nclient = "{node.client_endpoint}"\npeer = "{node.peer_endpoint}"\n'
                     f'data = "{node.name}"\n')
        for section, values in self.sections.items():
            if values:
                text += f"[{section}]\n" + "".join(
                    f'{k} = {v if isinstance(v, int) else chr(34) + v + chr(34)}\n' for k, v in values.items())
        self.config.write_text(text)

    def __getitem__(self, name):
        return next(n for n in self.nodes if n.name == name)

    def endpoints(self):
        return [n.client_endpoint for n in self.nodes]

    def running(self):
        return [n for n in self.nodes if n.running()]

    def start(self):
        for node in self.nodes:
            if not node.running():
                node.start()
        return self

    def tails(self):
        return "\n".join(n.tail() for n in self.nodes)

    # ---- waiting, always bounded ----

    def check_alive(self):
        for node in self.nodes:
            if node.popen is not None and node.popen.poll() is not None:
                raise AssertionError(f"{node.name} ended by itself with {node.popen.poll()}\n{node.tail()}")

    def leader(self, seconds=20, among=None):
        """The node that leads in the highest term, known to a majority of those that run."""
        def find():
            self.check_alive()
            seen = [(n, s) for n in (among or self.running()) if (s := n.status(0.5)) is not None]
            leaders = [(s.term, n) for n, s in seen if s.role == "leader"]
            if not leaders:
                return None
            term, leader = max(leaders, key=lambda pair: pair[0])
            agree = sum(1 for _, s in seen if s.term == term and s.leader == leader.name)
            return leader if agree * 2 > len(self.nodes) else None
        return until(find, settings.patience(seconds), lambda: f"a leader\n{self.tails()}")

    def settled(self, seconds=20):
        """The leader, once every node that runs names it: each of them forwards to it now, and says where it is."""
        def find():
            self.check_alive()
            seen = [(n, n.status()) for n in self.running()]
            if any(s is None for _, s in seen) or len({(s.term, s.leader) for _, s in seen}) != 1:
                return None
            return next((n for n, s in seen if s.role == "leader"), None)
        return until(find, settings.patience(seconds), lambda: f"a leader that every node names\n{self.tails()}")

    def followers(self, leader):
        return [n for n in self.running() if n is not leader]

    def hand_over(self, node, seconds=30):
        """Until it leads: whoever leads is asked to hand over to it."""
        def leads():
            leader = self.leader()
            if leader is not node:
                try:
                    leader.client.transfer(node.name)
                except grpc.RpcError:  # it leads no more, or could not: seen by who leads next
                    pass
            return leader is node
        until(leads, settings.patience(seconds), lambda: f"{node.name} leads\n{self.tails()}")

    def member(self, *words, timeout=60):
        """lockstep member ...: exit code, standard output, standard error."""
        endpoints = ",".join(n.client_endpoint for n in self.running())
        seconds = settings.patience(timeout)
        return process.run([settings.PROGRAM, "member", *words, "--to", endpoints, "--timeout", f"{seconds}s"],
                           seconds=seconds + 20)

    def wait_equal(self, seconds=30):
        """Every node has applied the same, which is all that the leader has. Returns the statuses by name.
        Nobody proposes meanwhile."""
        def equal():
            self.check_alive()
            seen = {n.name: n.status() for n in self.nodes}
            if any(s is None for s in seen.values()) or sum(s.role == "leader" for s in seen.values()) != 1:
                return None
            applied = {(s.last_index, s.commit_index, s.applied_index, s.applied_position) for s in seen.values()}
            if len(applied) != 1:
                return None
            last, commit, index, _ = applied.pop()
            return seen if last == commit == index else None

        def shown():
            lines = [f"{n.name}: {s and (s.role, s.term, s.last_index, s.commit_index, s.applied_index)}"
                     for n in self.nodes for s in [n.status()]]
            return "all nodes equal\n" + "\n".join(lines) + "\n" + self.tails()
        return until(equal, settings.patience(seconds), shown)

    def wait_hashes(self, seconds=15):
        """State and reply hashes are equal at an equal index. Nobody proposes meanwhile."""
        def equal():
            seen = [n.status() for n in self.nodes]
            if any(s is None for s in seen) or len({s.hash_index for s in seen}) != 1:
                return None
            return seen if seen[0].hash_index > 0 else None
        seen = until(equal, settings.patience(seconds), "hashes at an equal index")
        for what in ("state_hash", "reply_hash"):
            values = {s.name: getattr(s, what).hex() for s in seen}
            assert len(set(values.values())) == 1, f"{what} differs at index {seen[0].hash_index}: {values}"
            assert all(values.values()), f"{what} is empty: {values}"
        return seen

    # ---- ending ----

    def stop(self):
        """SIGTERM to all, one after the other; every exit code is 0."""
        for node in self.nodes:
            if node.running():
                code = node.terminate()
                assert code == 0, f"{node.name} answered SIGTERM with exit {code}\n{node.tail()}"

    def close(self):
        """Kill what runs. Raises if a node ended by itself or a sanitizer or an assertion spoke."""
        trouble = [f"{n.name} ended by itself with {n.popen.poll()}\n{n.tail()}" for n in self.nodes
                   if n.popen is not None and n.popen.poll() is not None]
        for node in self.nodes:
            node.close()
        for node in self.nodes:
            if node.output.exists():
                data = node.output.read_bytes()
                for report in process.REPORTS:
                    if report in data:
                        at = data.index(report)
                        trouble.append(f"{node.name} reports:\n" + data[at:at + 6000].decode("utf-8", "replace"))
        if trouble:
            raise AssertionError("\n".join(trouble))
