# SPDX-License-Identifier: Apache-2.0
"""SIGSTOP: a process that stands still, is deposed, and wakes up believing that nothing happened."""
import threading
import time

import grpc

from harness import api, settings
from harness.api import Client, pb
from harness.case import Case, main, say
from harness.cluster import until
from harness.history import Command

ROUNDS = settings.by_length(1, 2, 10)


class Pauses(Case):
    def test_a_stopped_leader_is_deposed_and_loses_nothing_when_it_goes_on(self):
        cluster = self.cluster(nodes=3).start()
        cluster.leader()
        with self.load(cluster) as load:
            for number in range(ROUNDS):
                leader = cluster.leader()
                load.wait_in_flight(64, settings.patience(30))
                stopped = time.monotonic()
                leader.pause()
                seconds = load.wait_writable(stopped, settings.patience(30))
                say(f"round {number + 1}/{ROUNDS}: leader stopped, writable again after {seconds * 1e3:.0f} ms")
                others = [n for n in cluster.nodes if n is not leader]
                cluster.leader(among=others)
                load.wait_acknowledged(500, settings.patience(30))
                leader.resume()
                until(lambda: (s := leader.status()) is not None and s.role == "follower", settings.patience(20),
                      f"{leader.name} follows")
        self.judge(cluster, load)

    def test_a_stopped_follower_changes_nothing_and_catches_up(self):
        cluster = self.cluster(nodes=3).start()
        leader = cluster.leader()
        term = leader.status().term
        with self.load(cluster) as load:
            load.wait_in_flight(64, settings.patience(30))
            follower = self.random.choice(cluster.followers(leader))
            follower.pause()
            time.sleep(1.5)
            load.wait_acknowledged(500, settings.patience(30))
            follower.resume()
            load.wait_acknowledged(500, settings.patience(30))
        statuses = cluster.wait_equal()
        if not settings.SLOW:  # pre-vote and check-quorum: who was away disturbs nobody
            self.assertEqual({s.term for s in statuses.values()}, {term})
        self.judge(cluster, load)

    def test_a_deposed_leader_that_wakes_up_shows_no_stale_read_and_acknowledges_nothing_of_its_own(self):
        """The old leader is stopped with commands and reads already in its sockets; the others go on without it."""
        cluster = self.cluster(nodes=3).start()
        old = cluster.leader()
        old.client.propose(b"put k before")
        old.pause()
        others = [n for n in cluster.nodes if n is not old]
        new = cluster.leader(among=others)
        index = new.client.propose(b"put k after").index
        answers = {}

        def ask(name, call):
            try:
                answers[name] = call()
            except grpc.RpcError as error:
                answers[name] = error
        late = Command(b"put late 1", time.monotonic())
        threads = []
        with Client(old.client_endpoint) as client:
            for name, call in (("read", lambda: client.query(b"get k", timeout=10, forward=False)),
                               ("write", lambda: client.propose(late.payload, timeout=10, forward=False))):
                threads.append(threading.Thread(target=ask, args=(name, call)))
                threads[-1].start()
            time.sleep(0.5)  # they lie in the stopped process's sockets
            old.resume()
            for thread in threads:
                thread.join(30)
        read, write = answers["read"], answers["write"]
        say(f"read: {read!r}"[:300])
        say(f"write: {write!r}"[:300])
        if isinstance(read, pb.QueryResponse):
            self.assertEqual(read.reply, b"after")
            self.assertGreaterEqual(read.index, index)
        if isinstance(write, pb.ProposeResponse):
            self.assertGreater(write.index, index, "acknowledged below what the new leader had acknowledged")
        cluster.wait_equal()
        cluster.stop()
        count = sum(c.payload == late.payload for c in cluster["n1"].dump())
        if isinstance(write, pb.ProposeResponse):
            self.assertEqual(count, 1)
        elif api.fate(write) == api.NOT_APPENDED:
            self.assertEqual(count, 0)
        self.assertLessEqual(count, 1)


if __name__ == "__main__":
    main()
