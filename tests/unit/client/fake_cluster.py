#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster of nodes in one process that speaks lockstep.v1 with grpcio, an implementation that shares no code with ours,
and misbehaves on request. The test of the C client talks to it.

    fake_cluster.py PROTO_DIR NODES         prints the ports, one line; ends when its standard input does

Its owner orders and asks on its standard input, a line each, and is answered on standard output with one: not by the
protocol, whose queries may be repeated, so that a late copy could undo a later order. The orders:
    leader N · stop N · start N · drain N (as stop, when its calls have ended)
    hint HOST:PORT (what followers name as the leader) · hint new (another one each time, where nobody listens)
    sessions N (so many are allowed; -1: there is no such call) · refusals N (who asks for more gets no answer after so many)
    expiry MS (of sessions) · cluster ID (in its status; 0: it waits for others) · hints: how many new ones were named
    seen X, applied X: how often command X arrived, was applied · totals (of sessions)

A command says what shall happen to it; its first word is one of
    echo X           applied, the reply is X
    reject N         applied, refused by the machine with code N
    full N           RESOURCE_EXHAUSTED, surely not appended, N times; then applied
    later MS         RESOURCE_EXHAUSTED, surely not appended, try again in MS; the second copy is never answered
    unavailable N    UNAVAILABLE, surely not appended, N times; then applied
    unsaid           UNAVAILABLE without the trailer: whether it was appended is not said
    lost             appended, ABORTED: the outcome is unknown
    hang             appended, never answered
    invalid          INVALID_ARGUMENT, surely not appended
and in a session, where a command is applied once,
    lost1 X          applied; the first copy is answered ABORTED
    gone1 X          the first copy is not appended, and answered ABORTED
    hang1 X          applied; the first copy is never answered
    expire X         the session has ended before it came
    expire1 X        applied; the first copy is answered ABORTED, and then the session ends
and in a stream also
    end              the call ends as on a node that lost its leadership
    end1 X           applied; the call ends so at the first copy
    short            no result at all
A query "reset X" fails once; any other is answered "linearizable" or "local", as it was asked. The health of "halves" is
answered, in 4 KiB, and fails then, once.
"""
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc

stubs = tempfile.TemporaryDirectory()
subprocess.run(
    ["protoc", "-I", sys.argv[1], f"--python_out={stubs.name}", f"--grpc_out={stubs.name}",
     "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "lockstep/v1/lockstep.proto"],
    check=True)
sys.path.insert(0, stubs.name)
pb = importlib.import_module("lockstep.v1.lockstep_pb2")
rpc = importlib.import_module("lockstep.v1.lockstep_pb2_grpc")

NOT_APPENDED = ("lockstep-outcome", "not-appended")
WINDOW = 8


class Cluster:
    def __init__(self, count):
        self.lock = threading.RLock()
        self.leader = 0
        self.cluster_id = 1 << 63
        self.hint = None
        self.hints = 0
        self.position = 0
        self.seen = {}
        self.applied = {}
        self.sessions = {}  # id -> {seq: response}
        self.sessions_max = 1000
        self.refusals = 1000000
        self.expiry_ms = 60000
        self.sessions_opened = self.sessions_kept = self.sessions_closed = 0
        self.nodes = [Node(self, i) for i in range(count)]

    def hinted(self):
        if self.hint != "new":
            return self.hint or self.nodes[self.leader].address
        with self.lock:
            self.hints += 1
            return f"127.0.1.{self.hints % 250 + 1}:1"

    def see(self, command):
        """Returns how often it came before."""
        with self.lock:
            before = self.seen.get(command, 0)
            self.seen[command] = before + 1
            return before

    def append(self, reply, code=0, request=None):
        with self.lock:
            answers = self.sessions.get(request.session) if request and request.session else None
            if answers is not None and request.seq in answers:
                return answers[request.seq]
            if request:
                self.applied[request.command] = self.applied.get(request.command, 0) + 1
            response = self.respond(reply, code)
            if answers is not None:
                answers[request.seq] = response
            return response

    def respond(self, reply, code):
        self.position += 1
        return pb.ProposeResponse(reply=reply, code=code, index=self.position + 100, position=self.position,
                                  durability=pb.DURABILITY_FSYNC)


class Node(rpc.LockstepServicer, rpc.AdminServicer):
    def __init__(self, cluster, number):
        self.cluster = cluster
        self.number = number
        # Bound and never listening: nobody else gets the port while the node is stopped.
        self.holds_port = socket.socket()
        self.holds_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.holds_port.bind(("127.0.0.1", 0))
        self.port = self.holds_port.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 1)])
        rpc.add_LockstepServicer_to_server(self, self.server)
        rpc.add_AdminServicer_to_server(self, self.server)
        check = grpc.unary_stream_rpc_method_handler(self.health)  # so that it may answer, and fail then
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),))
        if self.server.add_insecure_port(self.address) != self.port:
            raise RuntimeError(f"port {self.port} is busy")
        self.server.start()

    def refuse(self, context, status, text, *pairs):
        context.set_trailing_metadata(pairs)
        context.abort(status, text)

    def hang(self, context):
        while context.is_active():
            time.sleep(0.02)

    def leads(self):
        return self.cluster.leader == self.number

    def lead_or_refuse(self, context):
        """True: this node leads. False: it forwards."""
        if self.leads():
            return True
        metadata = dict(context.invocation_metadata())
        if metadata.get("lockstep-forward") == "no":
            self.refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "not the leader",
                        ("lockstep-leader", self.cluster.hinted()), NOT_APPENDED)
        return False

    def Propose(self, request, context):
        word, _, rest = request.command.partition(b" ")
        led = self.lead_or_refuse(context)
        with self.cluster.lock:  # a second copy finds all that the first one left
            before = self.cluster.see(request.command)
            hangs = self.in_session(request, word, before, context)
        if word == b"full" and before < int(rest):
            self.refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too much waits",
                        ("lockstep-retry-after-ms", "5"), NOT_APPENDED)
        if word == b"later" and before == 0:
            self.refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too much waits",
                        ("lockstep-retry-after-ms", rest.decode()), NOT_APPENDED)
        if word == b"unavailable" and before < int(rest):
            self.refuse(context, grpc.StatusCode.UNAVAILABLE, "no leader is known", NOT_APPENDED)
        if word == b"unsaid":
            self.refuse(context, grpc.StatusCode.UNAVAILABLE, "something happened")
        if word == b"lost":
            self.refuse(context, grpc.StatusCode.ABORTED, "leadership was lost")
        if word == b"invalid":
            self.refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "no such thing: 100% ä", NOT_APPENDED)
        if hangs or word in (b"hang", b"later"):
            self.hang(context)
        if word == b"reject":
            return self.cluster.append(b"refused", int(rest), request)
        return self.cluster.append(rest if led else b"forwarded " + rest, 0, request)

    def in_session(self, request, word, before, context):
        """What is said of a session's command before it is applied. Returns whether nothing will be."""
        cluster = self.cluster
        if not request.session:
            return False
        if word == b"expire":
            cluster.sessions.pop(request.session, None) if before == 0 else None
        if request.session not in cluster.sessions:
            self.refuse(context, grpc.StatusCode.NOT_FOUND, "the session has ended")
        if word in (b"lost1", b"hang1", b"expire1") and before == 0:
            cluster.append(b"once", 0, request)
            if word == b"expire1":
                cluster.sessions.pop(request.session)
        if word in (b"lost1", b"gone1", b"expire1") and before == 0:
            self.refuse(context, grpc.StatusCode.ABORTED, "leadership was lost")
        return word == b"hang1" and before == 0

    def OpenSession(self, request, context):
        self.lead_or_refuse(context)
        cluster = self.cluster
        if cluster.sessions_max < 0:
            self.refuse(context, grpc.StatusCode.UNIMPLEMENTED, "no such call")
        if len(cluster.sessions) >= cluster.sessions_max:
            cluster.refusals -= 1
            if cluster.refusals < 0:
                self.hang(context)
            self.refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too many sessions",
                        ("lockstep-retry-after-ms", "5"), NOT_APPENDED)
        with cluster.lock:
            cluster.position += 1
            cluster.sessions_opened += 1
            cluster.sessions[cluster.position] = {}
            return pb.OpenSessionResponse(session=cluster.position, expiry_ms=cluster.expiry_ms, window=WINDOW)

    def KeepAlive(self, request, context):
        self.lead_or_refuse(context)
        if request.session not in self.cluster.sessions:
            self.refuse(context, grpc.StatusCode.NOT_FOUND, "the session has ended")
        self.cluster.sessions_kept += 1
        return pb.KeepAliveResponse()

    def CloseSession(self, request, context):
        if self.cluster.sessions.pop(request.session, None) is None:
            self.refuse(context, grpc.StatusCode.NOT_FOUND, "the session has ended")
        self.cluster.sessions_closed += 1
        return pb.CloseSessionResponse()

    def Outcome(self, request, context):
        self.lead_or_refuse(context)
        answers = self.cluster.sessions.get(request.session)
        if answers is None:
            self.refuse(context, grpc.StatusCode.NOT_FOUND, "the session has ended")
        if request.seq not in answers:
            return pb.ProposeResult(outcome=pb.OUTCOME_UNKNOWN)
        return pb.ProposeResult(outcome=pb.OUTCOME_APPLIED, response=answers[request.seq])

    def ProposeStream(self, requests, context):
        if not self.leads():
            self.refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "not the leader",
                        ("lockstep-leader", self.cluster.hinted()), NOT_APPENDED)
        for message in requests:
            results = []
            for request in message.commands:
                word, _, rest = request.command.partition(b" ")
                before = self.cluster.see(request.command)
                if word == b"expire":
                    self.cluster.sessions.pop(request.session, None)
                if request.session and request.session not in self.cluster.sessions:
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_UNKNOWN, error="the session has ended",
                                                    status=grpc.StatusCode.NOT_FOUND.value[0]))
                    continue
                if word in (b"lost1", b"hang1", b"end1") and before == 0:
                    self.cluster.append(b"once", 0, request)
                if word in (b"lost1", b"gone1") and before == 0:
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_UNKNOWN, error="leadership was lost",
                                                    status=grpc.StatusCode.ABORTED.value[0]))
                    continue
                if word == b"hang1" and before == 0:
                    self.hang(context)
                if word == b"end" or (word == b"end1" and before == 0):
                    self.refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "not the leader any more",
                                ("lockstep-leader", self.cluster.hinted()))
                if word == b"hang":
                    self.hang(context)
                if word == b"unavailable":
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_NOT_APPENDED, error="draining"))
                elif word == b"lost":
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_UNKNOWN, error="leadership was lost"))
                elif word != b"short":
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_APPLIED, response=self.cluster.append(rest, 0, request)))
            yield pb.ProposeStreamResponse(results=results)

    def Query(self, request, context):
        if request.query.startswith(b"reset ") and self.cluster.see(request.query) == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "try again")
        if request.consistency == pb.CONSISTENCY_LINEARIZABLE:
            self.lead_or_refuse(context)
            return pb.QueryResponse(reply=b"linearizable", index=7)
        return pb.QueryResponse(reply=b"local", index=7)

    def Status(self, request, context):
        cluster = self.cluster
        status = pb.StatusResponse(
            cluster="fake", cluster_id=cluster.cluster_id, name=f"n{self.number}", member_id=self.number + 1,
            role="leader" if self.leads() else "follower", term=3, leader=f"n{cluster.leader}",
            leader_client=cluster.hinted(), last_index=12, commit_index=11, applied_index=10, applied_position=9,
            durable_index=8, stored_index=7, state_hash=bytes(range(16)), reply_hash=b"\xff" * 16, hash_index=6,
            machine="kv", machine_version="1.0", durability=pb.DURABILITY_FSYNC, version="0.1",
            warnings=["n2: another address", "x" * 1000])
        status.counters.commands_appended = 1000000
        status.counters.frames_refused = 12
        for node in cluster.nodes:
            status.members.add(name=f"n{node.number}", id=node.number + 1, client=node.address, peer="127.0.0.1:1",
                               voter=True, connected=True, match=11, note="")
        return status

    def TransferLeader(self, request, context):
        if not self.leads():
            self.refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "not the leader",
                        ("lockstep-leader", self.cluster.hinted()), NOT_APPENDED)
        names = [f"n{n.number}" for n in self.cluster.nodes]
        if request.target not in names:
            self.refuse(context, grpc.StatusCode.NOT_FOUND, f"no member is called '{request.target}'", NOT_APPENDED)
        self.cluster.leader = names.index(request.target)
        return pb.TransferLeaderResponse(leader=request.target, term=4)

    def health(self, request, context):
        if request == b"":
            yield b"\x08\x01"
        elif request == b"\x0a\x0flockstep.leader":
            yield b"\x08\x01" if self.leads() else b"\x08\x02"
        elif request.startswith(b"\x0a\x06halves"):
            yield b"\x08\x01" + b"\x12\x80\x20" + bytes(4096)  # and a field of 4 KiB that nobody knows
            if self.cluster.see(request) == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "that was all")
        else:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")


def obey(order):
    word, _, rest = order.rstrip("\n").partition(" ")
    if word == "leader":
        cluster.leader = int(rest)
    elif word == "hint":
        cluster.hint = rest or None
    elif word == "stop":
        cluster.nodes[int(rest)].server.stop(0).wait()
    elif word == "drain":
        cluster.nodes[int(rest)].server.stop(30)
    elif word == "start":
        cluster.nodes[int(rest)].start()
    elif word == "sessions":
        cluster.sessions_max = int(rest)
    elif word == "refusals":
        cluster.refusals = int(rest)
    elif word == "expiry":
        cluster.expiry_ms = int(rest)
    elif word == "cluster":
        cluster.cluster_id = int(rest)
    elif word == "hints":
        return cluster.hints
    elif word == "seen":
        return cluster.seen.get(rest.encode(), 0)
    elif word == "applied":
        return cluster.applied.get(rest.encode(), 0)
    elif word == "totals":
        return f"{cluster.sessions_opened} opened {cluster.sessions_kept} kept {cluster.sessions_closed} closed"
    else:
        return f"no such order: {order}"
    return "done"


cluster = Cluster(int(sys.argv[2]))
print(" ".join(str(node.port) for node in cluster.nodes), flush=True)
for line in sys.stdin:
    print(obey(line), flush=True)
stubs.cleanup()
os._exit(0)  # without waiting for the calls that hang
