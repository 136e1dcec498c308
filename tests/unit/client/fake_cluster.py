#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster of nodes in one process that speaks lockstep.v1 with grpcio, an implementation that shares no code with ours,
and misbehaves on request. The test of the C client talks to it.

    fake_cluster.py PROTO_DIR NODES         prints the ports, one line; ends when its standard input does

A command says what shall happen to it; its first word is one of
    echo X           applied, the reply is X
    reject N         applied, refused by the machine with code N
    full N           RESOURCE_EXHAUSTED, surely not appended, N times; then applied
    unavailable N    UNAVAILABLE, surely not appended, N times; then applied
    unsaid           UNAVAILABLE without the trailer: whether it was appended is not said
    lost             appended, ABORTED: the outcome is unknown
    hang             appended, never answered
    invalid          INVALID_ARGUMENT, surely not appended
and in a stream also
    end              the call ends as on a node that lost its leadership
    short            no result at all
A query that begins with ! changes the cluster: !leader N, !stop N, !start N, !hint HOST:PORT (what followers name as the
leader). "seen X" answers how often command X arrived; "reset X" fails once; any other "linearizable" or "local", as
it was asked.
"""
import importlib
import os
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


class Cluster:
    def __init__(self, count):
        self.lock = threading.Lock()
        self.leader = 0
        self.hint = None
        self.position = 0
        self.seen = {}
        self.nodes = [Node(self, i) for i in range(count)]

    def hinted(self):
        return self.hint or self.nodes[self.leader].address

    def see(self, command):
        """Returns how often it came before."""
        with self.lock:
            before = self.seen.get(command, 0)
            self.seen[command] = before + 1
            return before

    def append(self, reply, code=0):
        with self.lock:
            self.position += 1
            return pb.ProposeResponse(reply=reply, code=code, index=self.position + 100, position=self.position,
                                      durability=pb.DURABILITY_FSYNC)


class Node(rpc.LockstepServicer, rpc.AdminServicer):
    def __init__(self, cluster, number):
        self.cluster = cluster
        self.number = number
        self.port = 0
        self.start()

    def start(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        rpc.add_LockstepServicer_to_server(self, self.server)
        rpc.add_AdminServicer_to_server(self, self.server)
        check = grpc.unary_unary_rpc_method_handler(self.health)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),))
        port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        if port == 0:
            raise RuntimeError(f"port {self.port} is busy")
        self.port = port
        self.address = f"127.0.0.1:{port}"
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
        before = self.cluster.see(request.command)
        if word == b"full" and before < int(rest):
            self.refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too much waits",
                        ("lockstep-retry-after-ms", "5"), NOT_APPENDED)
        if word == b"unavailable" and before < int(rest):
            self.refuse(context, grpc.StatusCode.UNAVAILABLE, "no leader is known", NOT_APPENDED)
        if word == b"unsaid":
            self.refuse(context, grpc.StatusCode.UNAVAILABLE, "something happened")
        if word == b"lost":
            self.refuse(context, grpc.StatusCode.ABORTED, "leadership was lost")
        if word == b"invalid":
            self.refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "no such thing: 100% ä", NOT_APPENDED)
        if word == b"hang":
            self.hang(context)
        if word == b"reject":
            return self.cluster.append(b"refused", int(rest))
        return self.cluster.append(rest if led else b"forwarded " + rest)

    def ProposeStream(self, requests, context):
        if not self.leads():
            self.refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "not the leader",
                        ("lockstep-leader", self.cluster.hinted()), NOT_APPENDED)
        for message in requests:
            results = []
            for request in message.commands:
                word, _, rest = request.command.partition(b" ")
                self.cluster.see(request.command)
                if word == b"end":
                    self.refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "not the leader any more",
                                ("lockstep-leader", self.cluster.hinted()))
                if word == b"hang":
                    self.hang(context)
                if word == b"unavailable":
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_NOT_APPENDED, error="draining"))
                elif word == b"lost":
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_UNKNOWN, error="leadership was lost"))
                elif word != b"short":
                    results.append(pb.ProposeResult(outcome=pb.OUTCOME_APPLIED, response=self.cluster.append(rest)))
            yield pb.ProposeStreamResponse(results=results)

    def Query(self, request, context):
        word, _, rest = request.query.partition(b" ")
        cluster = self.cluster
        if word == b"!leader":
            cluster.leader = int(rest)
        elif word == b"!hint":
            cluster.hint = rest.decode() or None
        elif word == b"!stop":
            cluster.nodes[int(rest)].server.stop(0).wait()
        elif word == b"!start":
            cluster.nodes[int(rest)].start()
        elif word == b"seen":
            return pb.QueryResponse(reply=str(cluster.seen.get(rest, 0)).encode(), index=7)
        elif word == b"reset" and cluster.see(request.query) == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "try again")
        if request.consistency == pb.CONSISTENCY_LINEARIZABLE:
            self.lead_or_refuse(context)
            return pb.QueryResponse(reply=b"linearizable", index=7)
        return pb.QueryResponse(reply=b"local", index=7)

    def Status(self, request, context):
        cluster = self.cluster
        status = pb.StatusResponse(
            cluster="fake", cluster_id=1 << 63, name=f"n{self.number}", member_id=self.number + 1,
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
            return b"\x08\x01"
        if request == b"\x0a\x0flockstep.leader":
            return b"\x08\x01" if self.leads() else b"\x08\x02"
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")


cluster = Cluster(int(sys.argv[2]))
print(" ".join(str(node.port) for node in cluster.nodes), flush=True)
sys.stdin.read()
stubs.cleanup()
os._exit(0)  # without waiting for the calls that hang
