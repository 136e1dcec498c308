# SPDX-License-Identifier: Apache-2.0
"""The clients of examples/ against a real cluster: a follower is asked first, and a dead endpoint stands in the list.
And against a node that is not ours, for what no healthy cluster does: it counts, and reads fail."""
import re
from concurrent import futures

import grpc

from harness import node, process, settings
from harness.api import pb, rpc
from harness.case import Case, main

EXAMPLES = settings.SOURCE / "examples"


class Examples(Case):
    def setUp(self):
        super().setUp()
        self.nodes = self.cluster().start()
        self.nodes.leader()

    def endpoints(self):
        leader = self.nodes.leader()
        followers = [n.client_endpoint for n in self.nodes.nodes if n.name != leader.name]
        return ",".join(["127.0.0.1:1", *followers])  # the leader is only found by the redirect

    def check(self, command, directory=None):
        for visit in (1, 2):
            code, out, err = process.run([*command, self.endpoints()], seconds=settings.patience(30), directory=directory)
            self.assertEqual(code, 0, err)
            self.assertRegex(out, re.compile(rf"^visit {visit}, at position \d+.*\nthe cluster says: {visit}\n.*code 3", re.M))

    def test_python(self):
        self.check(["/usr/bin/python3", EXAMPLES / "python" / "example.py"])

    def test_node(self):
        self.check(["node", "example.js"], directory=node.example())


class Counter(rpc.LockstepServicer):
    """Applies whatever comes, and fails reads as it is told."""
    status = None

    def __init__(self):
        self.count = 0
        self.staleness = []

    def OpenSession(self, request, context):
        return pb.OpenSessionResponse(session=1, expiry_ms=60000, window=8)

    def CloseSession(self, request, context):
        return pb.CloseSessionResponse()

    def Propose(self, request, context):
        self.count += 1
        return pb.ProposeResponse(reply=b"%d" % self.count, position=self.count, durability=pb.DURABILITY_FSYNC)

    def Query(self, request, context):
        self.staleness.append(request.max_staleness_ms)
        if self.status is not None:
            context.abort(self.status, "not today")
        return pb.QueryResponse(reply=b"%d" % self.count)


READ_NODE = """
const { Client } = require('./client');
const client = new Client([process.argv[1]], 1000 * process.argv[2]);
client.query('get visits', 'CONSISTENCY_BOUNDED_STALE', 700)
  .then((answer) => console.log(`read ${answer.reply}`), (error) => console.log(error.constructor.name))
  .then(() => client.close());
"""
READ_PYTHON = """
import sys
from lockstep_client import Client, pb
client = Client([sys.argv[1]], timeout=float(sys.argv[2]))
try:
    print("read", client.query(b"get visits", pb.CONSISTENCY_BOUNDED_STALE, 700).reply.decode())
except Exception as error:
    print(type(error).__name__)
client.close()
"""


class Reads(Case):
    def setUp(self):
        super().setUp()
        self.counter = Counter()
        server = grpc.server(futures.ThreadPoolExecutor(8))
        rpc.add_LockstepServicer_to_server(self.counter, server)
        self.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(server.stop, 0)
        self.commands = {"python": (["/usr/bin/python3"], EXAMPLES / "python", ".py", "-c", READ_PYTHON, "Error"),
                         "node": (["node"], node.example(), ".js", "-e", READ_NODE, "NotApplied")}

    def run_in(self, language, *arguments, seconds=20):
        program, directory = self.commands[language][:2]
        return process.run([*program, *arguments, self.endpoint, seconds], seconds=settings.patience(30), directory=directory,
                           environment={"PYTHONDONTWRITEBYTECODE": "1"})

    def check(self, language):
        _, _, suffix, inline, read, failure = self.commands[language]
        code, out, err = self.run_in(language, inline, read)
        self.assertEqual((code, out), (0, "read 0\n"), err)
        self.assertEqual(set(self.counter.staleness), {700})
        self.counter.status = grpc.StatusCode.ABORTED  # asked again until the time is over: a read has no fate
        code, out, err = self.run_in(language, inline, read, seconds=1)
        self.assertEqual((code, out), (0, f"{failure}\n"), err)
        self.counter.status = grpc.StatusCode.INVALID_ARGUMENT
        code, out, err = self.run_in(language, f"example{suffix}")
        self.assertEqual(code, 1, err)
        self.assertRegex(out, r"^visit \d+, at position \d+,")
        self.assertRegex(err, r"^it was counted; then: .*not today")

    def test_python(self):
        self.check("python")

    def test_node(self):
        self.check("node")


if __name__ == "__main__":
    main()
