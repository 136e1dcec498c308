# SPDX-License-Identifier: Apache-2.0
"""What the host does to a node: no descriptors left, a standard error that nobody reads, peers that are not of this
cluster."""
import os
import shutil
import time

import grpc

from harness import process, settings
from harness.case import Case, main, say
from harness.cluster import STEADY, Office, until
from harness.http2 import Connection


class Hosts(Case):
    def test_a_node_whose_standard_error_is_a_full_pipe_serves_on(self):
        cluster = self.cluster(nodes=3)
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        node = cluster["n2"]
        node.environment["LOCKSTEP_DEBUG"] = "1"
        command = process.dies_with_us([settings.PROGRAM, "serve", "--config", cluster.config, "--node", node.name])
        node.popen = process.start_on(command, writer, node.environment)
        os.close(writer)
        cluster.start()
        cluster.leader()
        with self.load(cluster) as load:
            load.wait_acknowledged(1000, settings.patience(60))
            cluster.hand_over(node)
            load.wait_acknowledged(1000, settings.patience(60))
        self.judge(cluster, load)

    def test_a_node_without_descriptors_left_keeps_its_cluster(self):
        cluster = self.cluster(nodes=3, sections=STEADY)
        for node in cluster.nodes:
            node.prefix = ("prlimit", "--nofile=96:96", "--")
        cluster.start()
        leader = cluster.leader()
        office = Office(leader)
        with self.load(cluster, unary=8, streams=1, readers=1) as load:
            load.wait_acknowledged(100, settings.patience(30))
            greedy = []
            for _ in range(400):
                try:
                    greedy.append(Connection(leader.host, leader.client_port, 1))
                except OSError:
                    break
            began, cpu = time.monotonic(), process.cpu_seconds(leader.pid)
            load.wait_acknowledged(300, settings.patience(60))
            time.sleep(1)
            used = (process.cpu_seconds(leader.pid) - cpu) / (time.monotonic() - began)
            say(f"{len(greedy)} connections, {len(os.listdir(f'/proc/{leader.pid}/fd'))} descriptors, CPU {used:.0%}")
            for connection in greedy:
                connection.close()
            # A follower that starts again still finds a way in.
            follower = cluster.followers(leader)[0]
            follower.kill()
            follower.start()
            load.wait_acknowledged(300, settings.patience(60))
        self.assertEqual([c.why for c in load.commands if "many" in c.why.lower()], [])
        office.check_kept()
        self.judge(cluster, load)

    def test_a_peer_with_another_machine_is_refused_by_name_and_the_others_go_on(self):
        cluster = self.cluster(nodes=3)
        other = cluster.directory / "other.toml"
        other.write_text(cluster.config.read_text().replace('machine = "kv"', 'machine = "counter"'))
        cluster["n1"].start()
        cluster["n2"].start()
        stranger = cluster["n3"]
        stranger.popen = process.start([settings.PROGRAM, "serve", "--config", other, "--node", "n3"], stranger.output)
        for node in cluster.nodes[:2]:
            status = self.wait_note(node, "counter")
            self.assertEqual(status.role, "unborn", "born with a stranger")
        until(lambda: b"machine" in stranger.output.read_bytes().split(b"started:")[-1], settings.patience(10),
              lambda: stranger.tail())
        say(next(m.note for m in status.members if "counter" in m.note))
        stranger.kill()
        shutil.rmtree(stranger.data)
        cluster.start()
        self.assertEqual(cluster.leader().write(b"put k v").code, 0)

    def test_a_peer_of_another_cluster_is_refused_by_name(self):
        cluster = self.cluster(nodes=3)
        other = cluster.directory / "other.toml"
        other.write_text(cluster.config.read_text().replace('cluster = "system"', 'cluster = "elsewhere"'))
        cluster["n1"].start()
        cluster["n2"].start()
        stranger = cluster["n3"]
        stranger.popen = process.start([settings.PROGRAM, "serve", "--config", other, "--node", "n3"], stranger.output)
        status = self.wait_note(cluster["n1"], "elsewhere")
        self.assertEqual(status.role, "unborn", "born with a stranger")
        say(next(m.note for m in status.members if "elsewhere" in m.note))

    def wait_note(self, node, word):
        """Its status, once it says the word of another one."""
        def said():
            status = node.status_now()
            return any(word in m.note for m in status.members) and status
        return until(said, settings.patience(20), lambda: f"{node.name} says {word}: {node.status()}")


if __name__ == "__main__":
    main()
