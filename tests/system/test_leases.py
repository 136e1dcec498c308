# SPDX-License-Identifier: Apache-2.0
"""raft.lease_reads: a leader answers reads by its lease, also for a while when it is cut off or has stood still. Readers ask it
all the time, while the others have another leader that takes writes: V6 finds what is stale."""
import time

import grpc

from harness import network, settings
from harness.api import pb, rpc
from harness.case import Case, main, say
from harness.cluster import until
from harness.history import REGISTER, Read
from harness.network import Network

READERS = 9
ROUNDS = settings.by_length(1, 2, 10)


class Leases(Case):
    def start(self, **options):
        self.nodes = self.cluster(nodes=3, **options)
        for node in self.nodes.nodes:
            node.environment["LOCKSTEP_RAFT_LEASE_READS"] = "true"
        self.nodes.start()
        self.nodes.leader()

    def others(self, leader):
        return [n for n in self.nodes.nodes if n is not leader]

    def go_on_and_judge(self, load):
        load.wait_writable(time.monotonic(), settings.patience(30))
        load.wait_acknowledged(100, settings.patience(30))
        load.stop()
        self.assertTrue(load.reads)
        self.judge(self.nodes, load)

    def test_a_leader_that_is_cut_off_answers_no_stale_read(self):
        names = ["n1", "n2", "n3"]
        links = Network(names)
        self.addCleanup(links.close)
        self.start(network=links)
        with self.load(self.nodes, readers=READERS) as load:
            for _ in range(ROUNDS):
                load.wait_in_flight(64, settings.patience(30))
                leader = self.nodes.leader()
                links.isolate(leader.name)
                cut = time.monotonic()
                seconds = load.wait_writable(cut, settings.patience(30))
                say(f"leader isolated, writable again after {seconds * 1e3:.0f} ms")
                self.nodes.leader(among=self.others(leader))
                until(lambda: (s := leader.status()) is not None and s.role != "leader", settings.patience(20),
                      f"{leader.name} gives up leading")
                links.heal()
                load.wait_writable(time.monotonic(), settings.patience(30))
            self.go_on_and_judge(load)

    def test_a_leader_that_stood_still_answers_no_stale_read(self):
        """What was asked before it stopped and while it stood is there when it wakes up: its clock has gone on."""
        self.start()
        with self.load(self.nodes, readers=READERS) as load:
            for _ in range(ROUNDS):
                load.wait_in_flight(64, settings.patience(30))
                leader = self.nodes.leader()
                leader.pause()
                stopped = time.monotonic()
                load.wait_writable(stopped, settings.patience(30))
                load.wait_acknowledged(200, settings.patience(30))
                with grpc.insecure_channel(leader.client_endpoint) as channel:
                    stub, began = rpc.LockstepStub(channel), time.monotonic()
                    asked = [stub.Query.future(pb.QueryRequest(query=b"get " + REGISTER), timeout=30) for _ in range(64)]
                    time.sleep(0.1)  # they lie in its socket
                    leader.resume()
                    for future in asked:
                        if future.exception() is None:
                            load.reads.append(Read(began, time.monotonic(), future.result()))
                load.wait_writable(time.monotonic(), settings.patience(30))
            self.go_on_and_judge(load)


if __name__ == "__main__":
    network.enter()
    main()
