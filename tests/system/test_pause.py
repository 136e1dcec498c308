# SPDX-License-Identifier: Apache-2.0
"""SIGSTOP: a process that stands still, is deposed, and wakes up believing that nothing happened."""
import threading
import time

import grpc

from harness import api, settings
from harness.api import Client, pb
from harness.case import Case, main, say
from harness.cluster import STEADY, STEADY_SECONDS, Office, until
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
                leader.pause()
                stopped = time.monotonic()
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
        cluster = self.cluster(nodes=3, sections=STEADY).start()
        leader = cluster.leader()
        office = Office(leader)  # pre-vote, check-quorum: who was away disturbs nobody
        with self.load(cluster) as load:
            load.wait_in_flight(64, settings.patience(30))
            follower = self.random.choice(cluster.followers(leader))
            follower.pause()
            time.sleep(STEADY_SECONDS * 2)  # so that it wakes up behind its time to hear of a leader
            load.wait_acknowledged(500, settings.patience(30))
            follower.resume()
            load.wait_acknowledged(500, settings.patience(30))
        office.check_kept()
        self.judge(cluster, load)

    def test_a_follower_that_the_ring_has_lapped_several_times_catches_up_from_the_log(self):
        cluster = self.cluster(nodes=3, ring=8 << 20, journal=32 << 20, sections=STEADY).start()
        leader = cluster.leader()
        follower = cluster.followers(leader)[0]
        with self.load(cluster, unary=16, streams=4, per_message=4, bytes_min=8 << 10, bytes_max=200 << 10) as load:
            load.wait_acknowledged(100, settings.patience(30))
            follower.pause()
            goal = leader.status_now().counters.bytes_appended + settings.by_length(20 << 20, 40 << 20, 200 << 20)
            until(lambda: leader.status_now().counters.bytes_appended > goal, settings.patience(120), "so much was written")
            behind = leader.status_now().commit_index
            follower.resume()
            began = time.monotonic()
            until(lambda: (s := follower.status()) is not None and s.applied_index >= behind, settings.patience(60),
                  lambda: f"{follower.name} has caught up\n{cluster.tails()}")
            say(f"caught up with index {behind} after {time.monotonic() - began:.2f} s, under load")
        self.judge(cluster, load)

    def test_a_deposed_leader_that_wakes_up_shows_no_stale_read_and_acknowledges_nothing_of_its_own(self):
        """The old leader is stopped with commands and reads already in its sockets; the others go on without it."""
        cluster = self.cluster(nodes=3).start()
        old = cluster.leader()
        late = Command(b"put late 1", time.monotonic())
        answers, threads = {}, []

        def ask(name, call):
            try:
                answers[name] = call()
            except grpc.RpcError as error:
                answers[name] = error
        with Client(old.client_endpoint) as client:
            api.again(lambda: client.propose(b"put k before"))
            old.pause()
            new = cluster.leader(among=[n for n in cluster.nodes if n is not old])
            index = new.write(b"put k after").index
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
