# SPDX-License-Identifier: Apache-2.0
"""The program's commands against real nodes: what they print, as text and as JSON, and how they exit."""
import json
import os
import signal
import subprocess
import time

from harness import process, settings
from harness.case import Case, SharedCase, main, say
from harness.cluster import STEADY, until
from harness.ports import free_base

LOCKSTEP = settings.PROGRAM
NO_NAME = "x" * 64 + ".invalid"  # a label has at most 63 letters: no name server is asked


def run(*words, stdin=b"", seconds=30, **environment):
    return process.run([LOCKSTEP, *words], seconds=settings.patience(seconds), stdin=stdin, environment=environment)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


class WithoutCluster(Case):
    def test_every_command_has_help_for_people_and_as_json(self):
        code, out, _ = run("help")
        self.assertEqual(code, 0)
        for name in ("local", "status", "propose", "query", "leader transfer", "serve", "bench", "demo", "version"):
            self.assertIn(name, out)
            self.assertEqual(run("help", *name.split())[0], 0)
        code, out, _ = run("help", "-o", "json")
        self.assertEqual(code, 0)
        commands = lines(out)[0]
        self.assertIn("propose", [c["name"] for c in commands])
        for command in commands:
            self.assertIn("output", [f["name"] for f in command["flags"]])
        self.assertEqual(lines(run("version", "-o", "json")[1])[0].keys(), {"version"})

    def test_a_mistyped_word_gets_one_line_with_the_nearest(self):
        for words, wanted in ((["statsu"], "'status'"), (["querry", "get x"], "'query'"), (["leader"], "'leader transfer'"),
                              (["status", "--tu", "x"], "--to"), (["bench", "--conections=3"], "--connections"),
                              (["local", "--node", "3"], "--nodes")):
            code, out, err = run(*words)
            self.assertEqual(code, 2, words)
            self.assertEqual(out, "")
            self.assertRegex(err, r"^lockstep: [^\n]+\n$")
            self.assertIn(wanted, err)

    def test_usage_errors_say_what_instead(self):
        for words, wanted in ((["propose"], "COMMAND... is missing; 'lockstep help propose' shows how"),
                              (["-o", "json", "status"], "flags stand behind the command, as in 'lockstep status -o json'"),
                              (["status", "--timeout"], "its value is missing; 'lockstep help status' shows how"),
                              (["query", "q", "--max-staleness", "1s"], "add --consistency bounded-stale"),
                              (["status", "now"], "one word too many"),
                              (["status", "--timeout", "5"], "such as"), (["status", "-o", "yaml"], "json or table"),
                              (["local", "--nodes", "0"], "from 1 to 16"), (["query", "--min-index", "x", "get a"], "no whole number"),
                              (["status", "--to", "localhost"], "127.0.0.1:7401"), (["bench", "--batch", "3"], "--stream"),
                              (["bench", "--to", "127.0.0.1:1", "--local", "3"], "--local"), (["propose", "--entity"], "missing")):
            code, _, err = run(*words)
            self.assertEqual(code, 2, words)
            self.assertIn(wanted, err)

    def test_nobody_there_is_said_for_each_endpoint_at_once(self):
        """Long before its time is over, which is more than run() gives it."""
        begin = time.monotonic()
        for words in (["status"], ["propose", "put a 1"], ["query", "get a"], ["leader", "transfer"]):
            code, out, err = run(*words, "-o", "json", "--timeout", "1000s", "--to", f"127.0.0.1:1,{NO_NAME}:2")
            self.assertEqual(code, 4, words)
            self.assertIn("127.0.0.1:1: connect: Connection refused", err)
            self.assertIn(f"{NO_NAME}:2: resolve:", err)
            self.assertEqual(lines(out)[-1]["error"], "EUNREACHABLE")
            self.assertEqual(lines(out)[-1]["exit"], 4)
        code, _, err = run("propose", "-", "--timeout", "1000s", "--to", "127.0.0.1:1", stdin=b"put a 1\n")
        self.assertEqual(code, 4)
        say(f"nobody is there: five programs in {time.monotonic() - begin:.2f} s")

    def test_endpoints_come_from_the_environment_and_flags_beat_it(self):
        self.assertIn("127.0.0.1:3", run("status", LOCKSTEP_ENDPOINTS="127.0.0.1:3")[2])
        self.assertIn("127.0.0.1:4", run("status", "--to", "127.0.0.1:4", LOCKSTEP_ENDPOINTS="127.0.0.1:3")[2])


class ToAll:
    def run_to(self, *words, **options):
        return run(*words, "--to", ",".join(self.nodes.endpoints()), **options)


class WithCluster(ToAll, SharedCase):
    def test_proposals_and_queries(self):
        self.assertEqual(self.run_to("propose", "put", "colour", "light blue")[:2], (0, "ok\n"))
        self.assertEqual(self.run_to("propose", "incr n 5")[:2], (0, "5\n"))
        self.assertEqual(self.run_to("query", "get", "colour")[:2], (0, "light blue\n"))
        self.assertEqual(self.run_to("query", "--local", "--min-index", "1", "get n")[:2], (0, "5\n"))
        self.assertEqual(self.run_to("query", "-", stdin=b"get n\n")[:2], (0, "5\n"))
        code, out, err = self.run_to("propose", "cas colour red green")
        self.assertEqual((code, out), (5, ""))
        self.assertIn("refused with code 3", err)
        self.assertEqual(self.run_to("query", "get nothing")[0], 5)
        answer = lines(self.run_to("propose", "incr n 1", "-o", "json")[1])[0]
        self.assertEqual((answer["outcome"], answer["code"], answer["reply"], answer["durability"]),
                         ("applied", 0, "6", "fsync"))
        following = lines(self.run_to("propose", "incr n 1", "--no-session", "-o", "json")[1])[0]
        self.assertEqual(following["reply"], "7")
        self.assertGreater(following["position"], answer["position"])

        def sessions():
            nodes = lines(self.run_to("status", "-o", "json")[1])[0]["nodes"]
            return [n["counters"]["sessions"] for n in nodes]
        until(lambda: sessions() == [0, 0, 0], settings.patience(20), "every program has said goodbye to its session")
        answer = lines(self.run_to("query", "get n", "-o", "json")[1])[0]
        self.assertEqual((answer["code"], answer["reply"]), (0, "7"))

    def test_every_node_answers_reads_as_fresh_as_they_are_asked_for(self):
        for number in range(3):
            self.assertEqual(self.run_to("propose", "put", "fresh", str(number))[0], 0)
            for node in self.nodes.nodes:
                for how in (["--consistency", "follower"], ["--consistency", "linearizable"],
                            ["--consistency", "bounded-stale", "--max-staleness", "1ms"]):
                    answer = run("query", *how, "get fresh", "--to", node.client_endpoint)
                    self.assertEqual(answer[:2], (0, f"{number}\n"), (how, node.name, answer))
        code, out, _ = run("query", "get fresh", "--consistency", "follower", "-o", "json", "--to",
                           self.follower.client_endpoint)
        self.assertEqual(code, 0)
        self.assertNotEqual(lines(out)[0]["endpoint"], self.leader.client_endpoint)
        code, _, err = self.run_to("query", "--consistency", "bounded", "get fresh")
        self.assertEqual(code, 2)
        self.assertIn("linearizable, follower, bounded-stale or local", err)
        self.assertEqual(self.run_to("query", "--max-staleness", "1s", "get fresh")[0], 2)
        index = lines(self.run_to("query", "get fresh", "-o", "json")[1])[0]["index"]
        code, _, err = self.run_to("query", "--local", "--min-index", str(index + 1000), "get fresh", "--timeout", "1s")
        self.assertEqual(code, 3, err)

    def test_lines_of_standard_input_are_applied_in_order(self):
        text = "".join(f"append log {i}.\n" for i in range(5000)) + "get log"
        code, out, err = self.run_to("propose", "-", "-o", "json", stdin=text.encode())
        self.assertEqual(code, 0, err)
        answers = lines(out)
        self.assertEqual([a["line"] for a in answers], list(range(1, 5002)))
        positions = [a["position"] for a in answers]
        self.assertEqual(positions, list(range(positions[0], positions[0] + 5001)))
        self.assertEqual(answers[-1]["reply"], "".join(f"{i}." for i in range(5000)))
        code, out, err = self.run_to("propose", "-", stdin=b"put a 1\nnonsense\nincr a 1\n")
        self.assertEqual(code, 5)
        self.assertRegex(out, r"^ok\nrefused 4: .*\n2\n$")
        self.assertIn("3 of 3 lines applied, 1 refused", err)

    def test_a_reply_that_is_no_text_is_base64_in_json(self):
        self.assertEqual(self.run_to("propose", 'put k "\\xff\\x00a"')[0], 0)
        answer = lines(self.run_to("query", "get k", "-o", "json")[1])[0]
        self.assertEqual(answer["reply_base64"], "/wBh")

    def test_leadership_is_moved_by_name(self):
        leader = lines(self.run_to("status", "-o", "json")[1])[0]["leader"]
        target = next(n.name for n in self.nodes.nodes if n.name != leader)
        answer = lines(self.run_to("leader", "transfer", target, "-o", "json")[1])[0]
        self.assertEqual(answer["leader"], target)
        code, _, err = self.run_to("leader", "transfer", "n9")
        self.assertEqual(code, 5)
        self.assertIn("no other voter has this name; `lockstep status`", err)


class WithTrouble(ToAll, Case):
    def setUp(self):
        super().setUp()
        self.nodes = self.cluster(sections=STEADY).start()
        self.nodes.settled()

    def test_status_marks_the_leader_and_says_how_many_may_be_lost(self):
        code, out, _ = self.run_to("status")
        self.assertEqual(code, 0)
        self.assertIn("1 more node may be lost", out)
        self.assertEqual(sum(line.startswith("*") for line in out.splitlines()), 1)
        status = lines(self.run_to("status", "-o", "json")[1])[0]
        self.assertEqual(status["may_lose"], 1)
        self.assertEqual(status["durability"], "fsync")
        for node in status["nodes"]:
            self.assertLessEqual({"name", "client", "role", "term", "commit", "applied", "durable", "state_hash",
                                  "reply_hash", "reachable"}, node.keys())
        follower = next(n for n in self.nodes.nodes if n.name != status["leader"])
        follower.kill()
        until(lambda: lines(self.run_to("status", "-o", "json")[1])[0]["may_lose"] == 0, settings.patience(20), "may_lose 0")
        code, out, _ = self.run_to("status")
        self.assertEqual(code, 0)
        self.assertIn("unreachable", out)
        self.assertIn("Connection refused", out)
        self.nodes[status["leader"]].kill()
        until(lambda: self.run_to("status")[0] == 3, settings.patience(20), "exit 3")
        code, _, err = self.run_to("propose", "put a 1", "--timeout", "2s")
        self.assertEqual(code, 3)
        self.assertIn("no leader", err)

    def test_an_unknown_outcome_exits_6_and_names_the_line(self):
        """The leader takes the second line and hangs: whether it will be applied nobody can know."""
        status = lines(self.run_to("status", "-o", "json")[1])[0]
        leader = self.nodes[status["leader"]]
        with subprocess.Popen([LOCKSTEP, "propose", "-", "--timeout", "5s", "--to", leader.client_endpoint],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=process.clean_environment()) as client:
            self.addCleanup(process.end, client)
            client.stdin.write(b"put a 1\n")
            client.stdin.flush()
            self.assertEqual(client.stdout.readline(), b"ok\n")
            leader.pause()
            self.addCleanup(leader.resume)
            client.stdin.write(b"put a 2\nput a 3\n")
            client.stdin.flush()
            self.assertEqual(client.wait(settings.patience(20)), 6)
            error = client.stderr.read().decode()
        self.assertIn("line 2: no answer within 5000 ms; it may have been applied", error)


class Local(Case):
    def start_local(self, *words, port):
        output = os.path.join(self.directory, "local.out")
        local = process.start([LOCKSTEP, "local", "--dir", os.path.join(self.directory, "data"), "--port", port,
                               "-o", "json", *words], output)
        self.addCleanup(process.end, local)

        def events():
            with open(output, encoding="utf-8") as file:
                text = file.read()
            self.assertIsNone(local.poll() if "writable" not in text else None, text)
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]

        until(lambda: any(e["event"] == "writable" for e in events()), settings.patience(30), "writable")
        return local, events

    def test_a_cluster_is_made_continued_and_ended_in_order(self):
        port = str(free_base())
        local, events = self.start_local("--nodes", "1", port=port)
        to = f"127.0.0.1:{port}"
        self.assertEqual(run("propose", "put a 1", "--to", to)[0], 0)
        code, _, err = run("local", "--dir", os.path.join(self.directory, "other"), "--port", port)
        self.assertEqual(code, 2)
        self.assertIn("in use", err)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "other")))
        local.send_signal(signal.SIGINT)
        self.assertEqual(local.wait(settings.patience(20)), 0)
        self.assertFalse(any(process.is_alive(e["pid"]) for e in events() if e["event"] == "started"))
        code, _, err = run("local", "--dir", os.path.join(self.directory, "data"), "--nodes", "3")
        self.assertEqual(code, 2)
        self.assertIn("has 1 nodes, --nodes says 3", err)
        code, _, err = run("local", "--dir", os.path.join(self.directory, "data"), "--machine", "counter")
        self.assertEqual(code, 2)
        self.assertIn("--machine says counter", err)
        os.remove(os.path.join(self.directory, "local.out"))
        local, _ = self.start_local(port=port)
        self.assertEqual(run("query", "get a", "--to", to)[1], "1\n")
        local.terminate()
        self.assertEqual(local.wait(settings.patience(20)), 0)

    def test_a_dead_node_is_started_again_and_all_die_with_local(self):
        local, events = self.start_local(port=str(free_base()))
        pids = {e["node"]: e["pid"] for e in events() if e["event"] == "started"}
        self.assertEqual(len(pids), 3)
        for node, pid in pids.items():
            held = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            self.assertEqual(sorted(fd for fd, name in held.items() if name.endswith(f"/{node}.log")), ["1", "2"], held)
        os.kill(pids["n2"], signal.SIGKILL)
        until(lambda: sum(e["event"] == "started" and e["node"] == "n2" for e in events()) == 2, settings.patience(20),
              "n2 again")
        ended = next(e for e in events() if e["event"] == "ended")
        self.assertEqual((ended["node"], ended["exit_code"]), ("n2", -signal.SIGKILL))
        local.kill()
        local.wait(settings.patience(15))
        started = [e["pid"] for e in events() if e["event"] == "started"]
        until(lambda: not any(process.is_alive(pid) for pid in started), settings.patience(20), "no node left")

    def test_no_restart_leaves_a_dead_node_dead(self):
        local, events = self.start_local("--no-restart", port=str(free_base()))
        os.kill(next(e["pid"] for e in events() if e["event"] == "started"), signal.SIGKILL)
        until(lambda: any(e["event"] == "ended" for e in events()), settings.patience(20), "ended")
        time.sleep(3)
        self.assertEqual(sum(e["event"] == "started" for e in events()), 3)
        local.terminate()
        self.assertEqual(local.wait(settings.patience(20)), 0)

    def test_an_unknown_machine_is_named_before_anything_is_made(self):
        code, _, err = run("local", "--dir", os.path.join(self.directory, "data"), "--machine", "nonesuch")
        self.assertEqual(code, 2)
        self.assertIn("nonesuch", err)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "data")))


if __name__ == "__main__":
    main()
