# SPDX-License-Identifier: Apache-2.0
"""The clients of examples/ against a real cluster: a follower is asked first, and a dead endpoint stands in the list."""
import re

from harness import node, process, settings
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


if __name__ == "__main__":
    main()
