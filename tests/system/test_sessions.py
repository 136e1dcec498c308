# SPDX-License-Identifier: Apache-2.0
"""Exactly once, with the clients that a user would take: increments, sent again across leaders that are killed, stopped and
started, count exactly as often as they were acknowledged (M1; T59, T60). Each worker has a counter of its own, so the
reply to its n-th increment has to be n: one that was lost or applied twice would show at once.
"""
import json
import os
import subprocess
import sys
import threading
import time

import grpc

from harness import node, process, settings
from harness.api import again, pb, trailers
from harness.case import Case, main, say
from harness.cluster import STEADY, until

ROUNDS = settings.by_length(1, 3, 20)
EXAMPLES = settings.SOURCE / "examples"


class Wire(Case):
    def test_what_a_client_of_its_own_sees(self):
        """The calls of lockstep.proto, by hand: each answer and each refusal."""
        cluster = self.cluster(sections={**STEADY, "limits": {"session_expiry": "10s"}}).start()
        leader = cluster.settled()
        follower = cluster.followers(leader)[0]
        stub, other = leader.client.lockstep, follower.client.lockstep
        opened = stub.OpenSession(pb.OpenSessionRequest(), timeout=20)
        self.assertEqual((opened.expiry_ms, opened.window), (10000, 1024))
        first = stub.Propose(pb.ProposeRequest(command=b"incr n 5", session=opened.session, seq=1), timeout=20)
        again = other.Propose(pb.ProposeRequest(command=b"incr n 5", session=opened.session, seq=1), timeout=20)  # forwarded
        self.assertEqual((first.reply, again.reply, again.index, again.position), (b"5", b"5", first.index, first.position))
        refused = stub.Propose(pb.ProposeRequest(command=b"incr x y", session=opened.session, seq=2), timeout=20)
        self.assertEqual(stub.Propose(pb.ProposeRequest(command=b"incr x y", session=opened.session, seq=2), timeout=20).code,
                         refused.code)
        known = other.Outcome(pb.OutcomeRequest(session=opened.session, seq=1), timeout=20)
        self.assertEqual((known.outcome, known.response.position), (pb.OUTCOME_APPLIED, first.position))
        self.assertEqual(stub.Outcome(pb.OutcomeRequest(session=opened.session, seq=9), timeout=20).outcome, pb.OUTCOME_UNKNOWN)
        stub.Propose(pb.ProposeRequest(command=b"incr n 1", session=opened.session, seq=2000), timeout=20)
        self.refused(grpc.StatusCode.OUT_OF_RANGE, stub.Propose,
                     pb.ProposeRequest(command=b"incr n 1", session=opened.session, seq=900))
        self.refused(grpc.StatusCode.OUT_OF_RANGE, stub.Outcome, pb.OutcomeRequest(session=opened.session, seq=1))
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, stub.Propose,
                     pb.ProposeRequest(command=b"incr n 1", session=opened.session), "not-appended")
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, stub.Propose, pb.ProposeRequest(command=b"incr n 1", seq=3),
                     "not-appended")
        other.KeepAlive(pb.KeepAliveRequest(session=opened.session), timeout=20)
        second = other.OpenSession(pb.OpenSessionRequest(), timeout=20)
        stub.CloseSession(pb.CloseSessionRequest(session=second.session), timeout=20)
        self.refused(grpc.StatusCode.NOT_FOUND, stub.CloseSession, pb.CloseSessionRequest(session=second.session))
        # Nobody proposes anything, and the session ends on every node.
        until(lambda: all((s := n.status()) is not None and s.counters.sessions == 0 for n in cluster.nodes),
              settings.patience(30), "the session has ended")
        for call, request in ((stub.Propose, pb.ProposeRequest(command=b"incr n 1", session=opened.session, seq=2001)),
                              (stub.KeepAlive, pb.KeepAliveRequest(session=opened.session)),
                              (stub.Outcome, pb.OutcomeRequest(session=opened.session, seq=1))):
            self.refused(grpc.StatusCode.NOT_FOUND, call, request)
        self.assertEqual(leader.read(b"get n").reply, b"6")
        cluster.wait_equal()
        cluster.wait_hashes()

    def refused(self, status, call, request, outcome=None):
        with self.assertRaises(grpc.RpcError) as caught:
            call(request, timeout=20)
        self.assertEqual(caught.exception.code(), status, caught.exception.details())
        self.assertEqual(trailers(caught.exception).get("lockstep-outcome"), outcome)


class Installed(Case):
    SESSIONS = 6

    def apply(self, session, seq, number):
        """Sent again until it is answered, wherever it goes."""
        request = pb.ProposeRequest(command=b"incr n%d 1" % number, session=session, seq=seq)
        end = time.monotonic() + settings.patience(30)
        while True:
            try:
                return self.random.choice(self.nodes.running()).client.lockstep.Propose(request, timeout=3)
            except grpc.RpcError as error:
                if time.monotonic() > end or error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE):
                    raise
                time.sleep(0.02)

    def test_answers_outlive_an_install(self):
        """A node that was brought a snapshot leads, and every command that was answered before is answered alike (T59)."""
        self.nodes = self.cluster(sections={"storage": {"snapshot_after": "8KiB"}}).start()
        self.nodes.leader()
        stub = self.nodes.leader().client.lockstep
        sessions = [again(lambda: stub.OpenSession(pb.OpenSessionRequest(), timeout=20)).session
                    for _ in range(self.SESSIONS)]
        answers = {}
        seqs = [0] * self.SESSIONS
        for number in range(ROUNDS):
            leader = self.nodes.leader()
            victim = self.random.choice(self.nodes.followers(leader))
            behind = victim.status_now().last_index + 10  # and what may still come to it
            victim.kill()
            end = time.monotonic() + settings.patience(60)
            while any(node.status_now().base_index <= behind for node in self.nodes.running()):  # the log that it needs
                self.assertLess(time.monotonic(), end, "no snapshot is taken")
                i = self.random.randrange(self.SESSIONS)
                seqs[i] += 1
                answers[i, seqs[i]] = self.apply(sessions[i], seqs[i], i)
                self.assertEqual(answers[i, seqs[i]].reply, b"%d" % seqs[i])
            victim.output.write_bytes(b"")
            victim.start()
            until(lambda: b"installed: index=" in victim.output.read_bytes(), settings.patience(30), victim.tail)
            self.nodes.wait_equal()
            self.nodes.hand_over(victim)
            within = [(i, seq) for i, seq in sorted(answers) if seq > seqs[i] - 1000]  # of the session's window
            repeated = self.random.sample(within, min(60, len(within)))
            for i, seq in repeated:
                self.assertEqual(self.apply(sessions[i], seq, i), answers[i, seq])
                asked = pb.OutcomeRequest(session=sessions[i], seq=seq)
                known = again(lambda asked=asked: victim.client.lockstep.Outcome(asked, timeout=20))
                self.assertEqual(known.response, answers[i, seq])
            say(f"{number + 1}/{ROUNDS}: {victim.name} was brought a snapshot, and answers {len(repeated)} commands as before")
        for i, seq in enumerate(seqs):
            self.assertEqual(self.nodes.leader().read(b"get n%d" % i).reply, b"%d" % seq)
        self.nodes.wait_equal()
        self.nodes.wait_hashes()


class Sessions(Case):
    def setUp(self):
        super().setUp()
        self.nodes = self.cluster().start()
        self.nodes.leader()

    def kill_leaders(self, progress):
        """progress: () -> increments so far. Every round a leader dies under load, and comes back."""
        for number in range(ROUNDS):
            self.await_more(progress, 20)
            leader = self.nodes.leader()
            time.sleep(self.random.uniform(0, 0.1))
            if number % 3 == 2:
                leader.pause()  # a hung one: its connections stay
                self.await_more(progress, 20)
                leader.resume()
            else:
                leader.kill()
                self.await_more(progress, 20)
                leader.start()
            say(f"round {number + 1}/{ROUNDS}: {leader.name} {'hung' if number % 3 == 2 else 'killed'}, "
                f"{progress()} increments so far")
        self.await_more(progress, 20)

    def await_more(self, progress, count):
        goal = progress() + count
        until(lambda: progress() >= goal, settings.patience(60), lambda: f"{goal} increments: {progress()}")

    def judge_counters(self, counted):
        """counted: name -> replies, in the order answered to one worker."""
        self.nodes.wait_equal()
        self.nodes.wait_hashes()
        leader = self.nodes.leader()
        for name, replies in counted.items():
            self.assertEqual(replies, list(range(1, len(replies) + 1)), f"{name}: an increment was lost or came twice")
            self.assertEqual(leader.read(f"get {name}".encode()).reply, str(len(replies)).encode(), name)
        repeated = leader.status_now().counters.commands_repeated
        say(f"{sum(map(len, counted.values()))} increments, {repeated} copies were dropped")

    def test_python(self):
        sys.path.insert(0, str(EXAMPLES / "python"))
        self.addCleanup(sys.path.remove, str(EXAMPLES / "python"))
        import lockstep_client
        counted = {f"python{i}": [] for i in range(4)}
        errors, stopped = [], threading.Event()

        def work(name):
            endpoints = self.nodes.endpoints()
            client = lockstep_client.Client(endpoints, timeout=60.0)
            try:
                while not stopped.is_set():
                    counted[name].append(int(client.propose(f"incr {name} 1".encode()).reply))
            except Exception as error:  # any at all is a failure of this test
                errors.append(f"{name}: {error!r}")
            finally:
                client.close()

        threads = [threading.Thread(target=work, args=[name], daemon=True) for name in counted]
        for thread in threads:
            thread.start()
        try:
            self.kill_leaders(lambda: sum(map(len, counted.values())))
        finally:
            stopped.set()
            for thread in threads:
                thread.join(settings.patience(90))
        self.assertEqual(errors, [])
        self.judge_counters(counted)

    def test_node(self):
        tree = node.example()
        output = os.path.join(self.directory, "counting.out")
        with open(output, "wb") as out, subprocess.Popen(
                ["node", settings.SOURCE / "tests" / "system" / "counting.js", tree / "client.js",
                 ",".join(self.nodes.endpoints()), "4"], cwd=tree, stdin=subprocess.PIPE, stdout=out) as client:
            self.addCleanup(process.end, client)

            def said():
                with open(output, encoding="utf-8") as file:
                    return [json.loads(line) for line in file.read().splitlines(keepends=True) if line.endswith("\n")]

            def progress():
                return max([0, *(line["done"] for line in said() if "done" in line)])
            self.kill_leaders(progress)
            client.stdin.close()
            self.assertEqual(client.wait(settings.patience(90)), 0)
        workers = said()[-1]["workers"]
        self.assertEqual([w["errors"] for w in workers], [[]] * 4)
        self.judge_counters({f"node{i}": worker["replies"] for i, worker in enumerate(workers)})

    def test_a_stream_of_the_program(self):
        """`lockstep propose -`: the C client's stream, in order, across the same deaths."""
        output = os.path.join(self.directory, "propose.out")
        with open(output, "wb") as out, subprocess.Popen(
                [settings.PROGRAM, "propose", "-", "--timeout", "60s", "--to", ",".join(self.nodes.endpoints())],
                stdin=subprocess.PIPE, stdout=out, env=process.clean_environment()) as client:
            self.addCleanup(process.end, client)
            stopped = threading.Event()

            def feed():
                while not stopped.is_set():
                    client.stdin.write(b"incr stream 1\n" * 32)
                    client.stdin.flush()
                    time.sleep(0.002)
                client.stdin.close()
            feeder = threading.Thread(target=feed, daemon=True)
            feeder.start()
            try:
                self.kill_leaders(lambda: os.path.getsize(output) // 8)
            finally:
                stopped.set()
            feeder.join(settings.patience(30))
            self.assertEqual(client.wait(settings.patience(90)), 0)
        with open(output, encoding="utf-8") as file:
            self.judge_counters({"stream": [int(line) for line in file.read().split()]})


if __name__ == "__main__":
    main()
