# SPDX-License-Identifier: Apache-2.0
"""Observers: processes of the host that follow what a node commits, out of its memory. They see each command once, and the
node does not notice whether they live, stand still, die or rave."""
import base64
import json
import mmap
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
import urllib.request

from harness import process, settings
from harness.api import APPLIED
from harness.case import Case, main, say
from harness.cluster import STEADY, Office, until

OBSERVERS = 16
PATIENT = ("--timeout", "60s")  # to find the node: a busy host
EAGER = settings.by_length(1, 1, 10)


class Tail:
    """`lockstep tail -o json` of a node, into a file."""

    def __init__(self, node, name, *arguments):
        self.node, self.output = node, node.cluster.directory / f"tail-{name}"
        self.errors = node.cluster.directory / f"tail-{name}.errors"
        with open(self.output, "wb") as out, open(self.errors, "wb") as errors:
            self.popen = subprocess.Popen([settings.PROGRAM, "tail", "--to", node.client_endpoint, "-o", "json", *PATIENT,
                                           *arguments],
                                          stdout=out, stderr=errors)

    def records(self):
        """Those that are whole."""
        whole = self.output.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def last(self):
        """The position of the newest one; 0 = none."""
        with open(self.output, "rb") as file:
            file.seek(max(0, self.output.stat().st_size - (2 << 20)))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return json.loads(lines[-1])["position"] if lines else 0

    def reaches(self, position, seconds=60):
        until(lambda: self.last() >= position or self.popen.poll() is not None, settings.patience(seconds),
              lambda: f"{self.output.name} sees position {position}: it is at {self.last()}: {self.errors.read_text()}")
        assert self.last() >= position, f"ended with {self.popen.poll()}: {self.errors.read_text()}"

    def end(self, number=signal.SIGKILL):
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(settings.patience(10))


def payload(record):
    return record["payload"].encode() if "payload" in record else base64.b64decode(record["payload_base64"])


class TailCase(Case):
    def make(self, nodes=3, sections=None, **options):
        return self.cluster(nodes=nodes, sections=sections, **options).start()

    def tail(self, node, name, *arguments):
        tail = Tail(node, name, *arguments)
        self.addCleanup(tail.end)
        return tail

    def run_tail(self, node, *arguments, seconds=60):
        """Exit code, standard output, standard error of one that ends."""
        return process.run([settings.PROGRAM, "tail", "--to", node.client_endpoint, *PATIENT, *arguments],
                           seconds=settings.patience(seconds))

    def put(self, cluster, count, size=10, first=0):
        lines = b"".join(b"put key%d %s\n" % (n, b"v" * size) for n in range(first, first + count))
        code, _, errors = process.run([settings.PROGRAM, "propose", "--to", ",".join(cluster.endpoints()), "--timeout", "60s", "-"],
                                      seconds=settings.patience(120), stdin=lines)
        self.assertEqual(code, 0, errors)

    def check_gapless(self, records, first=1):
        self.assertEqual([r["position"] for r in records], list(range(first, first + len(records))))


class Following(TailCase):
    def test_every_acknowledged_command_is_seen_once_and_in_order_while_leaders_are_killed(self):
        cluster = self.make()
        cluster.leader()
        tails = [self.tail(node, node.name, "--from", "1") for node in cluster.nodes]
        with self.load(cluster, unary=8, streams=2, readers=0) as load:
            for tail in tails:
                tail.reaches(1)
            for number in range(EAGER + 1):
                load.wait_acknowledged(300, settings.patience(60))
                leader = cluster.leader()
                killed = time.monotonic()
                leader.kill()
                load.wait_writable(killed, settings.patience(60))
                leader.start()
                load.wait_acknowledged(300, settings.patience(60))
                cluster.settled()
        statuses = cluster.wait_equal()
        last = max(s.applied_position for s in statuses.values())
        for tail in tails:
            tail.reaches(last)
        applied = [c for c in load.commands if c.outcome == APPLIED]
        for tail in tails:
            records = tail.records()
            self.check_gapless(records)
            for command in applied:
                record = records[command.position - 1]
                self.assertEqual((payload(record), record["index"]), (command.payload, command.index))
            tail.end()
        self.assertEqual(tails[0].records(), tails[1].records())
        self.assertEqual(tails[0].records(), tails[2].records())
        say(f"{len(tails)} tails saw {len(applied)} acknowledged commands, each once; {last} positions")
        self.judge(cluster, load)

    def test_an_observer_that_stood_still_while_the_ring_went_round_goes_on_from_the_log(self):
        cluster = self.make(nodes=1, ring=8 << 20, journal=32 << 20)
        node = cluster.leader()
        tail = self.tail(node, "stopped", "--from", "1")
        self.put(cluster, 10)
        tail.reaches(10)
        tail.popen.send_signal(signal.SIGSTOP)
        until(lambda: process.is_stopped(tail.popen.pid), settings.patience(10), "it stands still")
        before = node.status_now().counters.bytes_appended
        self.put(cluster, 60, size=300 << 10, first=10)  # blocks larger than a packet, too
        self.assertGreater(node.status_now().counters.bytes_appended - before, 16 << 20, "twice round the ring")
        self.put(cluster, 10, first=100)
        status = node.status_now()
        last = status.applied_position
        self.assertEqual(status.observers, 1)
        self.assertGreater(status.observer_lag_bytes, 16 << 20)
        tail.popen.send_signal(signal.SIGCONT)
        tail.reaches(last)
        until(lambda: node.status_now().observer_lag_bytes == 0, settings.patience(20), "it says that it is there")
        self.assertGreater(node.status_now().observer_lapped, 0)
        _, out, _ = process.run([settings.PROGRAM, "status", "--to", node.client_endpoint], seconds=settings.patience(20))
        self.assertRegex(out, r"\nn1: 1 observer, at most 0 bytes behind, lapped [1-9]\d* times\n")
        metrics = self.metrics(node)
        self.assertEqual(metrics["lockstep_observers"], 1)
        self.assertGreater(metrics["lockstep_observer_blocks_total"], 0)
        self.assertGreater(metrics["lockstep_observer_lapped_total"], 0)
        self.assertIn("lockstep_observer_lag_bytes", metrics)
        self.assertIn("lockstep_observer_bells_spared_total", metrics)
        self.put(cluster, 1, first=200)
        tail.reaches(node.status_now().applied_position)
        until(lambda: self.metrics(node)["lockstep_observer_bells_total"] > 0, settings.patience(20), "it was rung")
        tail.end()
        until(lambda: node.status_now().observers == 0, settings.patience(20), "it is gone")
        self.assertGreater(node.status_now().observer_lapped, 0)
        records = tail.records()
        self.check_gapless(records)
        puts = list({(r["session"], r["seq"]): payload(r) for r in records if r["kind"] == "machine"}.values())  # once each
        self.assertEqual(len(puts), 81)
        self.assertEqual(puts[10], b"put key10 " + b"v" * (300 << 10))

    def test_a_position_that_is_compacted_away_is_refused_with_the_oldest_one(self):
        cluster = self.make(nodes=1, sections={"storage": {"snapshot_after": "512KiB"}})
        node = cluster.leader()
        for number in range(20):
            self.put(cluster, 300, size=1000, first=300 * number)
            if node.status_now().base_index > 0:
                break
        until(lambda: node.status_now().base_index > 0, settings.patience(60), "a log without its beginning")
        code, _, errors = self.run_tail(node, "--from", "1")
        self.assertEqual(code, 5, errors)
        oldest = self.oldest_of(errors)
        self.assertGreater(oldest, 1)
        last = node.status_now().applied_position
        for distance in (0, 1, 77):
            while True:
                first = min(oldest + distance, last)
                code, out, errors = self.run_tail(node, "--from", str(first), "--count", str(min(5, last - first + 1)),
                                                  "-o", "json")
                if code != 5:
                    break
                newer = self.oldest_of(errors)  # the next snapshot was taken meanwhile
                self.assertGreater(newer, first)
                oldest = newer
            self.assertEqual(code, 0, errors)
            self.check_gapless([json.loads(line) for line in out.splitlines()], first)

    def metrics(self, node):
        text = urllib.request.urlopen(f"http://{node.client_endpoint}/metrics", timeout=settings.patience(20)).read().decode()
        return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines())
                if name.startswith("lockstep_observer")}

    def oldest_of(self, errors):
        return int(re.search(r"the oldest that the log has is (\d+)", errors)[1])


class NoEffect(TailCase):
    def test_killed_observers_leave_nothing_behind_and_the_seventeenth_is_refused(self):
        cluster = self.make(sections=STEADY)
        leader = cluster.settled()
        office = Office(leader)
        with self.load(cluster, unary=8, streams=1, readers=0) as load:
            for number in range(3 * EAGER):  # killed at whatever they do
                tails = [self.tail(leader, f"killed{n}", "--from", "1") for n in range(4)]
                for tail in tails:
                    time.sleep(self.random.uniform(0, 0.1))
                    tail.end()
            tails = [self.tail(leader, f"one{n}", "--from", "1") for n in range(OBSERVERS)]
            for tail in tails:
                tail.reaches(1)
            code, _, errors = self.run_tail(leader, "--from", "1")
            self.assertEqual(code, 3, errors)
            self.assertIn("there are 16 observers", errors)
            load.wait_acknowledged(100, settings.patience(60))
            for tail in tails:
                tail.end()
            until(lambda: self.run_tail(leader, "--from", "1", "--count", "1")[0] == 0, settings.patience(30), "room again")
        office.check_kept()
        self.judge(cluster, load)

    def test_hostile_observers_lose_their_connections_and_nobody_else_notices(self):
        cluster = self.make(sections=STEADY)
        leader = cluster.settled()
        status = leader.status_now()
        office = Office(leader)
        honest = self.tail(leader, "honest", "--from", "1")
        with self.load(cluster, unary=8, streams=1, readers=0) as load:
            load.wait_acknowledged(100, settings.patience(60))
            for number in range(4 * EAGER):
                for rave in (self.garbage_for_hello, self.garbage_for_questions, self.flood_of_questions, self.deaf):
                    rave(status)
            load.wait_acknowledged(100, settings.patience(60))
        office.check_kept()
        statuses = cluster.wait_equal()
        honest.reaches(max(s.applied_position for s in statuses.values()))
        self.check_gapless(honest.records())
        self.judge(cluster, load)

    def dial(self, status):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(s.close)
        # connect() waits for room too
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", settings.patience(10), 0))
        s.connect(f"\0lockstep/{status.cluster_id:016x}/{status.member_id:016x}")
        s.settimeout(settings.patience(10))
        return s

    def greet(self, status):
        s = self.dial(status)
        s.send(struct.pack("<4I6Q", 0x4c48534c, 1, 2, 0, status.cluster_id, 0, 0, status.member_id, 0, 0))
        reply, fds, _, _ = socket.recv_fds(s, 4096, 4)
        self.assertEqual(struct.unpack_from("<i", reply, 8), (0,), reply)
        self.assertEqual(len(fds), 2)
        ring, slot = (open(fd, "r+b", buffering=0, closefd=True) for fd in fds)
        self.addCleanup(ring.close)
        self.addCleanup(slot.close)
        return s, ring, slot

    def expect_hangup(self, s):
        try:
            while s.recv(1 << 20):
                pass
        except ConnectionError:
            pass
        s.close()

    def garbage_for_hello(self, status):
        s = self.dial(status)
        s.send(self.random.randbytes(self.random.randrange(1, 200)))
        self.expect_hangup(s)

    def garbage_for_questions(self, status):
        s, _, _ = self.greet(status)
        s.send(b"\x02" + self.random.randbytes(self.random.randrange(1, 5000)))
        self.expect_hangup(s)

    def flood_of_questions(self, status):
        s, _, _ = self.greet(status)
        index = self.random.randrange(1, 1 << 40)
        question = struct.pack("<2I3Q2I", 0x5141534c, 1, 7, 0, index, 0, 0)
        s.setblocking(False)

        def is_closed():
            try:
                s.send(question)
            except BlockingIOError:
                pass  # one a turn is taken
            except ConnectionError:
                return True
            return False
        end = time.monotonic() + settings.patience(20)
        while not is_closed():  # its answers are not read: they fill the socket
            self.assertLess(time.monotonic(), end, "a flood ends the connection")

    def deaf(self, status):
        """Says that it sleeps, each moment anew, asks, and reads neither bells nor answers. What it cannot do is cost more
        than its connection."""
        s, ring, slot = self.greet(status)
        with self.assertRaises((PermissionError, OSError, ValueError)):
            mmap.mmap(ring.fileno(), 4096, access=mmap.ACCESS_WRITE)
        words = mmap.mmap(slot.fileno(), 4096)
        for number in range(200):
            words[:4096] = self.random.randbytes(4096)
            struct.pack_into("<Q", words, 48, 2 * number + 1)
            try:
                if number % 20 == 0:
                    s.send(struct.pack("<2I3Q2I", 0x5141534c, 1, number, 1, 0, 0, 0))
            except (BrokenPipeError, ConnectionError):
                break
            time.sleep(0.0005)
        words.close()
        s.close()


class Ends(TailCase):
    def test_it_ends_in_order_when_it_is_told_to_or_nobody_reads(self):
        cluster = self.make(nodes=1)
        node = cluster.leader()
        self.put(cluster, 20)
        tail = self.tail(node, "interrupted", "--from", "1")
        tail.reaches(20)
        self.assertEqual(tail.end(signal.SIGINT), 0)
        self.check_got_over(tail.errors.read_text())
        program = subprocess.Popen([settings.PROGRAM, "tail", "--to", node.client_endpoint, "--from", "1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(program.kill)
        self.assertIn(b"session open", program.stdout.readline())
        program.stdout.close()  # and nothing is committed any more
        self.assertEqual(program.wait(settings.patience(20)), 0)
        with program.stderr:
            self.check_got_over(program.stderr.read().decode())

    def test_a_signal_ends_it_while_its_reader_stands_still(self):
        node = self.make_full()
        readers = [(number, *self.piped(node)) for number in (signal.SIGINT, signal.SIGTERM)]
        for number, program, _ in readers:
            program.send_signal(number)
        for number, program, _ in readers:
            self.assertEqual(program.wait(settings.patience(20)), 0, number)

    def test_a_signal_ends_it_amid_records_that_are_there_already(self):
        node = self.make_full()
        last = node.status_now().applied_position
        for number in (signal.SIGINT, signal.SIGTERM):
            program, reader = self.piped(node, "-o", "json")
            signalled = time.monotonic()
            program.send_signal(number)  # it has not written all: that is more than a pipe holds
            lines = reader.read()
            self.assertEqual(program.wait(settings.patience(20)), 0, number)
            if time.monotonic() < signalled + 1:  # else nobody may have read for that second in which it waits
                self.assertEqual(lines[-1:], b"\n")
            lines = lines[:lines.rfind(b"\n") + 1]
            records = [json.loads(line) for line in lines.splitlines()]
            self.check_gapless(records)
            self.assertLess(len(records), last)

    def test_a_command_is_a_line_whatever_it_holds(self):
        cluster = self.make(nodes=1)
        node = cluster.leader()
        words = "put k \x1b[1m\x9b1m\xe9\t\n9 machine index=9", "put k \udcff"
        for word in words:
            process.run([settings.PROGRAM, "propose", "--to", node.client_endpoint, "--timeout", "60s", "--", word],
                        seconds=settings.patience(120))
        last = node.status_now().applied_position
        code, out, errors = self.run_tail(node, "--from", "1", "--count", str(last))
        self.assertEqual(code, 0, errors)
        self.assertEqual(out[-1:], "\n")
        form = re.compile(r" *(\d+)  (machine|session open|session close) index=\d+(?: session=\d+)?(?: seq=\d+)? bytes=(\d+)"
                          r"(?:  (.+))?")
        lines = [form.fullmatch(line) for line in out[:-1].split("\n")]
        self.assertNotIn(None, lines, out)
        self.assertEqual([int(line[1]) for line in lines], list(range(1, last + 1)))
        self.assertEqual({line[3] for line in lines if line[2] == "session open"}, {"0"})
        shown = dict.fromkeys((line[3], line[4]) for line in lines if line[2] == "machine")  # what was sent again stands twice
        self.assertEqual(list(shown), [("35", "put k \\x1b[1m\\xc2\\x9b1m\xe9\t\\x0a9 machine index=9"), ("7", "put k \\xff")])

    def test_a_disk_that_takes_no_more_ends_it_and_is_no_success(self):
        cluster = self.make(nodes=1)
        node = cluster.leader()
        self.put(cluster, 20)
        for form in ("table", "json"):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([settings.PROGRAM, "tail", "--to", node.client_endpoint, "--from", "1", "-o", form,
                                       *PATIENT], stdout=full, stderr=subprocess.PIPE, timeout=settings.patience(60))
            self.assertEqual(done.returncode, 1, (form, done.stderr))
            self.assertIn(b"standard output: cannot be written", done.stderr)

    def make_full(self):
        """A node with more in its log than a pipe holds."""
        cluster = self.make(nodes=1)
        node = cluster.leader()
        self.put(cluster, 1000, size=1000)
        return node

    def piped(self, node, *arguments):
        """A program whose standard output is a full pipe, and that pipe's other end."""
        read_end, write_end = os.pipe()
        reader = self.enterContext(open(read_end, "rb"))
        errors = node.cluster.directory / "tail-piped.errors"
        with open(write_end, "wb") as writer, open(errors, "ab") as error_file:
            program = subprocess.Popen([settings.PROGRAM, "tail", "--to", node.client_endpoint, "--from", "1", *PATIENT,
                                        *arguments], stdout=writer, stderr=error_file)
            self.addCleanup(process.end, program)
            until(lambda: not select.select([], [writer], [], 0)[1] or program.poll() is not None, settings.patience(60),
                  lambda: f"it fills the pipe: {errors.read_text()}")
            self.assertIsNone(program.poll(), errors.read_text())
        return program, reader

    def check_got_over(self, errors):
        """It said nothing but what it waited for: hosts stand still."""
        for line in errors.splitlines():
            self.assertTrue(line.startswith("lockstep: tail: still trying: "), errors)

    def test_another_cluster_at_the_nodes_address_is_not_followed(self):
        cluster = self.make(nodes=1)
        node = cluster.leader()
        self.put(cluster, 5)
        tail = self.tail(node, "before", "--from", "1")
        tail.reaches(5)
        node.kill()
        shutil.rmtree(node.data)
        node.start()
        self.assertEqual(tail.popen.wait(settings.patience(60)), 5, tail.errors.read_text())
        self.assertIn("another cluster answers there now", tail.errors.read_text())

    def test_errors_say_what_to_do(self):
        cluster = self.make(nodes=1, sections={"transport": {"shared_memory": "off"}})
        node = cluster.leader()
        code, _, errors = self.run_tail(node)
        self.assertEqual(code, 4, errors)
        self.assertIn('shared_memory = "off"', errors)
        node.kill()
        code, _, errors = self.run_tail(node)
        self.assertEqual(code, 4, errors)
        self.assertIn("is the node running", errors)
        code, _, errors = self.run_tail(node, "--from", "0")
        self.assertEqual(code, 2, errors)


if __name__ == "__main__":
    main()
