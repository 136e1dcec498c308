# SPDX-License-Identifier: Apache-2.0
"""Exit codes of the program in trouble: 3 not ready, 4 unreachable, 6 outcome unknown. The rest is in test_cli.py."""
import json

from harness import process, settings
from harness.case import Case, main
from harness.cluster import STEADY, until


NO_NAME = "x" * 64 + ".invalid"  # a label has at most 63 letters: no name server is asked


def lockstep(*arguments):
    return process.run([settings.PROGRAM, *arguments], seconds=settings.patience(30))


class ExitCodes(Case):
    def test_a_name_that_does_not_resolve_is_exit_4_even_if_it_is_the_only_one(self):
        """It fails before any socket exists: nothing would ever wake a client that then waits."""
        for command in (["status"], ["propose", "put a b"], ["query", "get a"], ["leader", "transfer"]):
            code, _, err = lockstep(*command, "--to", f"{NO_NAME}:7401")
            self.assertEqual(code, 4, err)
            self.assertIn(f"{NO_NAME}:7401: resolve: ", err)

    def test_a_cluster_without_a_quorum_is_exit_3_and_an_unknown_outcome_exit_6(self):
        cluster = self.cluster(nodes=3, sections=STEADY).start()
        leader = cluster.leader()
        leader.write(b"put before x")
        for node in cluster.followers(leader):
            node.pause()
        # The leader still leads: it appends, and nobody acknowledges.
        code, out, err = lockstep("propose", "--to", leader.client_endpoint, "--timeout", "1s", "--no-session", "put", "a", "b")
        self.assertEqual(code, 6, out + err)
        self.assertIn("may have been applied", err)
        # With a session nothing was sent yet: there is no session before it is committed.
        code, out, err = lockstep("propose", "--to", leader.client_endpoint, "--timeout", "1s", "put", "a", "b")
        self.assertEqual(code, 3, out + err)
        until(lambda: leader.status_now().role != "leader", settings.patience(20), "the leader gives up")
        for command in (("propose", "put", "a", "b"), ("query", "get", "a")):
            code, out, err = lockstep(*command, "--to", leader.client_endpoint, "--timeout", "2s")
            self.assertEqual(code, 3, out + err)
            self.assertIn("leader", err)
        code, out, err = lockstep("status", "--to", leader.client_endpoint, "--timeout", "5s", "-o", "json")
        status = json.loads(out)
        self.assertEqual(sorted(n["reachable"] for n in status["nodes"]), [False, False, True])
        self.assertEqual(code, 3, out + err)
        for node in cluster.nodes:
            if node is not leader:
                node.resume()
        self.assertEqual(cluster.leader().write(b"put after x").code, 0)

    def test_a_refused_line_is_exit_5_as_a_refused_command_is(self):
        """A result in a stream says why, as the status of a call of its own does."""
        cluster = self.cluster(nodes=1, sections={"limits": {"command": "1KiB"}}).start()
        to = cluster.leader().client_endpoint
        long = "put a " + 2000 * "x"
        code, _, err = lockstep("propose", "--to", to, long)
        self.assertEqual(code, 5, err)
        code, out, err = process.run([settings.PROGRAM, "propose", "-", "--to", to], seconds=settings.patience(20),
                                     stdin=f"put b 1\n{long}\n".encode())
        self.assertEqual((code, out), (5, "ok\n"), err)
        self.assertIn("line 2: the command is over the limit of 1024 bytes", err)

    def test_help_and_version_are_flags_too(self):
        for words, pattern in ((["--help"], "usage|serve"), (["-h"], "usage|serve"), (["--version"], r"\d+\.\d+")):
            code, out, err = lockstep(*words)
            self.assertEqual((code, err), (0, ""))
            self.assertRegex(out, pattern)


if __name__ == "__main__":
    main()
