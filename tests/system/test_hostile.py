# SPDX-License-Identifier: Apache-2.0
"""Hostile clients and peers. While each of them does its worst, other clients' commands all succeed: that is the rule
that every test here asserts at its end, together with a bound on the memory of every node."""
import resource
import socket
import struct
import subprocess
import sys
import time

import grpc

from harness import http2, process, settings
from harness.api import APPLIED, Client, pb
from harness.case import SharedCase, main, say
from harness.cluster import Office, until
from harness.http2 import Connection

MEMORY_BYTES = 96 << 20  # what all the mischief of one test may add to a node

VICTIM = """
import sys, threading
from harness.api import Client, pb
client = Client(sys.argv[1])
message = pb.ProposeStreamRequest(commands=[pb.ProposeRequest(command=b"append half-way x" * 1)] * 32)
def messages():
    while True:
        yield message
print("running", flush=True)
for answer in client.lockstep.ProposeStream(messages()):
    pass
"""


class Hostile(SharedCase):
    def setUp(self):
        super().setUp()
        self.others = self.load(self.nodes, unary=8, streams=1, messages=2, per_message=4, readers=1,
                                deadline=settings.patience(20)).__enter__()
        self.addCleanup(self.others.stop)
        self.others.wait_found(settings.patience(30))  # while it looks for the leader, a command may fail; none behind that
        self.others.wait_acknowledged(100, settings.patience(30))
        self.memory = {n.name: n.resident_bytes() for n in self.nodes.nodes}
        self.office = Office(self.leader)
        self.began = len(self.others.commands)

    def assert_nobody_noticed(self):
        self.others.wait_acknowledged(100, settings.patience(30))
        self.others.stop()
        self.nodes.check_alive()
        self.office.check_kept()
        commands = self.others.commands[self.began:]
        failed = [c for c in commands if c.outcome != APPLIED]
        self.assertEqual([(c.outcome, c.why) for c in failed][:5], [], f"{len(failed)} of {len(commands)} failed")
        slowest = max(c.ended - c.began for c in commands)
        grown = {n.name: n.resident_bytes() - self.memory[n.name] for n in self.nodes.nodes}
        say(f"{len(commands)} commands of others, none failed, the slowest took {slowest * 1e3:.0f} ms; memory grew by "
            + ", ".join(f"{name} {count >> 10} KiB" for name, count in grown.items()))
        if not settings.SLOW:
            self.assertLess(max(grown.values()), MEMORY_BYTES)

    def connect(self, node=None, port=None):
        node = node or self.leader
        connection = Connection(node.host, port or node.client_port)
        self.addCleanup(connection.close)
        return connection

    def assert_closed(self, connection, seconds, what):
        self.assertTrue(connection.read_until_close(settings.patience(seconds))[1], f"not closed in {seconds} s: {what}")

    # ---- the client port ----

    def test_clients_that_are_killed_half_way(self):
        for _ in range(settings.by_length(2, 5, 20)):
            victim = subprocess.Popen(process.dies_with_us([sys.executable, "-c", VICTIM, self.leader.client_endpoint]),
                                      stdout=subprocess.PIPE, env=process.clean_environment(
                                          {"LOCKSTEP_BUILD": str(settings.BUILD)}))
            victim.stdout.readline()
            time.sleep(self.random.uniform(0.05, 0.3))
            process.end(victim)
            victim.stdout.close()
        until(lambda: self.leader.status_now().counters.connections < 20, settings.patience(20),
              lambda: f"their connections are closed: {self.leader.status_now().counters.connections}")
        self.assert_nobody_noticed()

    def test_garbage(self):
        """Random bytes, and random bytes behind a beginning that looks right."""
        beginnings = [b"", http2.PREFACE, http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0), b"GET /livez HTTP/1.1\r\n",
                      b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                      http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0) + b"\0\xff\xff"]
        for number in range(settings.by_length(30, 120, 2000)):
            connection = self.connect(self.random.choice(self.nodes.nodes))
            connection.send(beginnings[number % len(beginnings)] + self.random.randbytes(self.random.randrange(1, 5000)))
            if number % 3 == 0:
                connection.read_until_close(0.05)
            connection.close()
        self.assertGreater(sum(n.status_now().counters.protocol_errors for n in self.nodes.nodes), 0)
        self.assert_nobody_noticed()

    def test_bytes_that_are_no_protocol_close_the_connection(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100, b"SSH-2.0-OpenSSH_9.2\r\n",
                     b"x" * 20000, b"GET " + b"/" * 20000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000):
            connection = self.connect()
            connection.send(data)
            self.assert_closed(connection, 20, data[:20])
        self.assert_nobody_noticed()

    def test_a_frame_that_is_longer_than_allowed(self):
        for length in (16385, 1 << 20, 0xffffff):
            connection = self.connect()
            connection.greet()
            connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request(b"/lockstep.v1.Lockstep/Propose"))
                            + http2.frame(http2.DATA, 0, 1, b"x" * 100, length=length))
            self.assert_closed(connection, 5, f"a frame of {length} bytes")
        self.assert_nobody_noticed()

    def test_a_message_that_claims_to_be_longer_than_allowed_is_refused_before_it_is_sent(self):
        def is_answered(data):
            return any(kind in (http2.HEADERS, http2.RST_STREAM) and stream == 1 for kind, stream in http2.frames(data))
        for length in ((4 << 20) + 1, 0x7fffffff, 0xffffffff):
            for method in (b"/lockstep.v1.Lockstep/Propose", b"/lockstep.v1.Lockstep/ProposeStream",
                           b"/lockstep.v1.Admin/Status", b"/grpc.health.v1.Health/Check"):
                connection = self.connect()
                connection.greet()
                connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request(method)) +
                                http2.frame(http2.DATA, 0, 1, http2.message(b"x" * 100, length=length)))
                data, closed = connection.read_until_close(settings.patience(20), is_answered)
                self.assertTrue(is_answered(data) or closed, f"{method}: a message of {length} bytes is waited for")
                connection.close()
        self.assert_nobody_noticed()

    def test_nesting_and_millions_of_empty_fields(self):
        def nested(levels):
            data = b""
            for _ in range(levels):
                data = b"\x0a" + varint(len(data)) + data
            return data

        def varint(value):
            out = b""
            while value > 0x7f:
                out += bytes([value & 0x7f | 0x80])
                value >>= 7
            return out + bytes([value])
        payloads = {
            "10,000 levels": nested(10000),
            "10,000 groups": b"\x0b" * 10000 + b"\x0c" * 10000,
            "1 MiB of empty fields 1": b"\x0a\x00" * (1 << 19),
            "1 MiB of unknown empty fields": b"\xfa\x01\x00" * 350000,
            "1 MiB of unknown numbers": b"\xf8\x01\x00" * 350000,
            "a length over 2^63": b"\x0a" + b"\xff" * 9 + b"\x01",
        }
        methods = ["lockstep.v1.Lockstep/Propose", "lockstep.v1.Lockstep/Query", "lockstep.v1.Admin/Status",
                   "lockstep.v1.Admin/TransferLeader", "grpc.health.v1.Health/Check"]
        streams = ["lockstep.v1.Lockstep/ProposeStream",
                   "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
        with Client(self.follower.client_endpoint) as follower, Client(self.leader.client_endpoint) as leader:
            for name, payload in payloads.items():
                seen = []
                for client in (leader, follower):
                    for method in methods:
                        try:
                            client.channel.unary_unary("/" + method)(payload, timeout=settings.patience(10))
                            seen.append("OK")
                        except grpc.RpcError as error:
                            seen.append(error.code().name)
                            self.assertNotEqual(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED, f"{method}: {name}")
                for method in streams:
                    try:
                        answers = list(leader.channel.stream_stream("/" + method)(iter([payload]),
                                                                                  timeout=settings.patience(20)))
                        seen.append(f"{len(answers)} answers")
                    except grpc.RpcError as error:
                        seen.append(error.code().name)
                say(f"{name}: {seen}")
        self.assert_nobody_noticed()

    def test_a_thousand_idle_connections(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        count = settings.by_length(200, 1000, 1000)
        connections = []
        for number in range(count):
            connection = self.connect()
            if number % 4 == 1:
                connection.greet()
            elif number % 4 == 2:
                connection.send(http2.PREFACE[:10])
            elif number % 4 == 3:
                connection.send(b"GET /livez HT")
            connections.append(connection)
        until(lambda: self.leader.status_now().counters.connections >= count * 3 // 4, settings.patience(10),
              lambda: f"they are accepted: {self.leader.status_now().counters.connections}")
        self.others.wait_acknowledged(1000, settings.patience(60))
        say(f"{self.leader.status_now().counters.connections} connections at {self.leader.name}")
        self.assert_nobody_noticed()

    def test_a_client_that_never_reads(self):
        """It asks and asks, its windows are wide open, and it reads nothing."""
        deaf = []
        for node in self.nodes.nodes:
            connection = self.connect(node)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.socket.settimeout(0.2)
            connection.greet(http2.setting(4, 0x7fffffff))
            connection.send(http2.window(0, 0x7fff0000 - 65535))
            deaf.append(connection)
        for connection in deaf:
            for stream in range(1, 40001, 2):
                head = http2.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.request(b"/lockstep.v1.Admin/Status"))
                if not connection.send(head + http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b""))):
                    break
        plain = self.connect()
        plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.socket.settimeout(0.2)
        for _ in range(20000):
            if not plain.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
                break
        self.others.wait_acknowledged(1000, settings.patience(60))
        self.assert_nobody_noticed()

    def test_a_stream_that_is_never_read(self):
        """Commands without end, answers that nobody takes: flow control stops it, nothing grows."""
        sent = 0

        def messages():
            nonlocal sent
            message = pb.ProposeStreamRequest(commands=[pb.ProposeRequest(command=b"put deaf x" * 10)] * 100)
            while True:
                sent += message.ByteSize()
                yield message
        with Client(self.leader.client_endpoint) as client:
            call = client.lockstep.ProposeStream(messages())
            seen = 0
            while sent > seen:  # until it stands still for a second
                seen = sent
                time.sleep(1)
            say(f"{sent} bytes until flow control stopped it")
            self.assertLess(sent, 64 << 20)
            self.others.wait_acknowledged(300, settings.patience(60))
            call.cancel()
        self.assert_nobody_noticed()

    def test_a_client_that_heeds_no_window(self):
        connection = self.connect()
        connection.socket.settimeout(0.5)
        connection.greet()
        batch = pb.ProposeStreamRequest(commands=[pb.ProposeRequest(command=b"put deaf x")] * 100).SerializeToString()
        data = http2.message(batch)
        connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1,
                                    http2.request(b"/lockstep.v1.Lockstep/ProposeStream")))
        sent = 0
        while sent < 64 << 20 and connection.send(http2.frame(http2.DATA, 0, 1, data)):
            sent += len(data)
        say(f"{sent} bytes sent")
        self.assert_nobody_noticed()

    def test_a_stream_with_hundreds_of_thousands_of_commands_leaves_room_for_others(self):
        with Client(self.leader.client_endpoint) as client:
            message = pb.ProposeStreamRequest(commands=[pb.ProposeRequest()] * 200000)
            outcomes = []
            try:
                for answer in client.lockstep.ProposeStream(iter([message] * 3), timeout=settings.patience(30)):
                    outcomes.append(len(answer.results))
            except grpc.RpcError as error:
                outcomes.append(error.code().name)
            say(f"{outcomes}")
        self.assert_nobody_noticed()

    def test_slow_loris(self):
        """Byte by byte. Nobody waits for them for ever."""
        slow = []
        for beginning in (b"GET /livez HTTP/1.1\r\nHost: ", http2.PREFACE[:5], b"P"):
            for _ in range(20):
                connection = self.connect()
                connection.send(beginning)
                slow.append(connection)
        closed = 0
        end = time.monotonic() + settings.patience(20)
        while slow and time.monotonic() < end:
            for connection in list(slow):
                if not connection.send(b"x") or connection.read_until_close(0.001)[1]:
                    slow.remove(connection)
                    closed += 1
            time.sleep(0.3)
        say(f"{closed} closed, {len(slow)} still open")
        self.assertEqual(slow, [], "they are waited for for ever")
        self.assert_nobody_noticed()

    def test_floods_of_resets_pings_settings_and_continuations(self):
        def flood(make, count=30000):
            connection = self.connect()
            connection.socket.settimeout(1)
            connection.greet()
            for number in range(count):
                if not connection.send(make(number)):
                    return number
            return count
        head = http2.request(b"/lockstep.v1.Lockstep/Propose")
        floods = {
            "resets": lambda n: http2.frame(http2.HEADERS, http2.END_HEADERS, 2 * n + 1, head) +
            http2.frame(http2.RST_STREAM, 0, 2 * n + 1, struct.pack(">I", 8)),
            "pings": lambda n: http2.frame(http2.PING, 0, 0, b"12345678"),
            "settings": lambda n: http2.frame(http2.SETTINGS, 0, 0, http2.setting(4, 65535 + n)),
            "continuations": lambda n: http2.frame(http2.HEADERS if n == 0 else http2.CONTINUATION, 0, 1,
                                                   http2.field(b"a%d" % n, b"b" * 100)),
            "streams": lambda n: http2.frame(http2.HEADERS, http2.END_HEADERS, 2 * n + 1, head),
        }
        for name, make in floods.items():
            say(f"{name}: {flood(make)} sent until the connection was closed or the flood was over")
        self.assert_nobody_noticed()

    # ---- the peer port ----

    def test_garbage_at_the_peer_port(self):
        hello = b"".join(struct.pack("<I", n) for n in (0, 1, 2, 3))
        for number in range(settings.by_length(30, 120, 2000)):
            node = self.random.choice(self.nodes.nodes)
            connection = self.connect(node, node.peer_port)
            connection.send((hello if number % 2 else b"") + self.random.randbytes(self.random.randrange(1, 5000)))
            if number % 10 == 0:
                self.assert_closed(connection, 10, "garbage at the peer port")
            connection.close()
        self.assertGreater(sum(n.status_now().counters.frames_refused for n in self.nodes.nodes), 0)
        self.assert_nobody_noticed()

    def test_silent_connections_at_the_peer_port(self):
        silent = []
        for node in self.nodes.nodes:
            for _ in range(settings.by_length(20, 100, 100)):
                silent.append(self.connect(node, node.peer_port))
        self.others.wait_acknowledged(500, settings.patience(60))
        # A node that is killed comes back and is dialled by the others though strangers hold connections.
        self.others.stop()
        self.follower.kill()
        self.follower.start()
        self.nodes.wait_equal()
        self.nodes.check_alive()


if __name__ == "__main__":
    main()
