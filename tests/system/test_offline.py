# SPDX-License-Identifier: Apache-2.0
"""The commands for a stopped node's directory, on directories that real nodes have written under load: they show what is
there, name what is damaged, and leave every byte as it was."""
import json
import os
import shutil

from harness import process, settings
from harness.case import Case, main, say
from harness.cluster import until

FLIPS = settings.by_length(5, 20, 1000)
PUTS = settings.by_length(300, 2000, 20000)


def lockstep(*words, stdin=b""):
    return process.run([settings.PROGRAM, *words], seconds=settings.patience(60), stdin=stdin)


def as_json(*words):
    """Exit code, and the objects that it printed, one a line."""
    code, out, errors = lockstep(*words, "-o", "json")
    return code, [json.loads(line) for line in out.splitlines()], errors


def fingerprint(directory):
    """Everything that a write would change, access times apart."""
    seen = {}
    for folder, _, names in os.walk(directory):
        for name in [".", *names]:
            path = os.path.join(folder, name)
            stat = os.stat(path)
            seen[path] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return seen


class Offline(Case):
    def put(self, cluster, first, count):
        lines = b"".join(b"put key%d value-%d\n" % (n, n) for n in range(first, first + count))
        code, _, errors = lockstep("propose", "--to", ",".join(cluster.endpoints()), "--timeout", "60s", "-", stdin=lines)
        self.assertEqual(code, 0, errors)

    def killed_cluster(self, **options):
        """Three nodes that were killed, all at once, right behind their last answer."""
        cluster = self.cluster(nodes=3, **options).start()
        cluster.leader()
        self.put(cluster, 0, PUTS // 2)
        until(lambda: all((t := n.status()) and t.stored_index > 3 for n in cluster.nodes), settings.patience(30),
              "blocks in every data.mdb")
        self.put(cluster, PUTS // 2, PUTS - PUTS // 2)  # the journal alone holds the newest of these
        for node in cluster.nodes:
            node.kill()
        return cluster


class Log(Offline):
    def test_a_log_is_shown_and_found_whole_and_nothing_is_touched(self):
        cluster, complete = self.killed_cluster(), 0
        for node in cluster.nodes:
            before = fingerprint(node.data)
            code, out, errors = lockstep("log", "verify", node.data)
            self.assertEqual((code, errors), (0, ""), out)
            self.assertRegex(out, r": whole: blocks 1\.\.\d+, ")
            code, objects, _ = as_json("log", "inspect", node.data, "--commands", "--frames")
            self.assertEqual(code, 0)
            summary = objects[0]
            self.assertEqual((summary["node"], summary["cluster"], summary["findings"]), (node.name, "system", []))
            self.assertEqual([m["name"] for m in summary["members"]], ["n1", "n2", "n3"])
            blocks = [o for o in objects if "index" in o]
            self.assertEqual([b["index"] for b in blocks], list(range(1, summary["last"] + 1)))
            payloads = [c["payload"] for b in blocks for c in b.get("commands_in", []) if c["kind"] == "machine"]
            payloads = list(dict.fromkeys(payloads))  # one that was sent again may stand there twice, and counts once
            self.assertEqual(payloads, [f"put key{n} value-{n}" for n in range(len(payloads))])
            complete += len(payloads) == PUTS
            say(f"{node.name}: {summary['last']} blocks, {summary['last'] - summary['stored']} in the journal alone, "
                f"{sum('frame' in o for o in objects)} frames to replay")
            self.assertEqual(fingerprint(node.data), before)
        self.assertGreaterEqual(complete, 2, "what was acknowledged stands in the logs of a majority")
        # and the nodes find what was shown
        cluster.start()
        cluster.leader()
        self.put(cluster, PUTS, 10)
        cluster.wait_equal()

    def test_a_running_node_refuses_it_by_its_lock(self):
        cluster = self.cluster(nodes=1).start()
        cluster.leader()
        for words in (["log", "inspect"], ["log", "verify"]):
            code, _, errors = lockstep(*words, cluster["n1"].data)
            self.assertEqual(code, 5)
            self.assertIn("in use by another process, which holds its file 'lock'", errors)
            code, objects, _ = as_json(*words, cluster["n1"].data)
            self.assertEqual((code, objects[0]["error"], objects[0]["exit"]), (5, "refused", 5))

    def test_what_is_no_data_directory_is_a_usage_error(self):
        code, _, errors = lockstep("log", "verify", self.directory)
        self.assertEqual(code, 2)
        self.assertIn("holds no file 'identity'", errors)
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_damaged_byte_is_named_with_file_place_and_block(self):
        cluster = self.killed_cluster()
        data = cluster["n1"].data
        _, objects, _ = as_json("log", "inspect", data, "--from", "1")
        block = next(b for b in objects[1:] if b["file"] == "data.mdb" and b["bytes"] > 110)
        with open(data / "data.mdb", "r+b") as file:
            file.seek(block["offset"] + 100)
            byte = file.read(1)[0]
            file.seek(block["offset"] + 100)
            file.write(bytes([byte ^ 1]))
        code, out, errors = lockstep("log", "verify", data)
        self.assertEqual(code, 7, out)
        self.assertIn(f"data.mdb at byte {block['offset']}: block {block['index']} is damaged", errors)
        self.assertIn("member replace", errors)  # and what to do
        code, objects, _ = as_json("log", "verify", data)
        self.assertEqual(code, 7)
        finding = objects[0]["findings"][0]
        self.assertEqual((finding["file"], finding["offset"], finding["index"], finding["error"]),
                         ("data.mdb", block["offset"], block["index"], "ECORRUPT"))

    def test_flipped_bits_anywhere_end_in_an_answer(self):
        """A hostile or rotten file: never a crash, never a hang, and what is damaged is not called whole unless the bit
        lies where nothing is."""
        cluster = self.killed_cluster()
        whole, copy = cluster["n2"].data, cluster["n2"].data.with_name("copy")
        seen = {0: 0, 7: 0, 1: 0}
        for number in range(FLIPS):
            shutil.copytree(whole, copy)
            name = self.random.choice(["data.mdb", "data.mdb", "journal", "identity", "boot"])
            path = copy / name
            size = min(path.stat().st_size, 300000)  # behind that are zeros
            with open(path, "r+b") as file:
                for _ in range(self.random.choice([1, 1, 8, 64])):
                    at = self.random.randrange(size)
                    file.seek(at)
                    byte = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([byte ^ 1 << self.random.randrange(8)]))
            before = fingerprint(copy)
            code, out, errors = lockstep("log", "verify", copy)
            self.assertIn(code, seen, f"flip {number} in {name}: {out}{errors}")
            self.assertEqual(code == 0, errors == "", errors)
            self.assertEqual(fingerprint(copy), before)
            seen[code] += 1
            shutil.rmtree(copy)
        say(f"{FLIPS} damaged copies: {seen[7]} named, {seen[1]} taken for a newer format, {seen[0]} harmless")


class Epochs(Offline):
    """A cluster that begins again, from a backup or from what one node has: another cluster, to which the old members'
    directories are strangers."""

    def check_snapshot(self, data):
        """It is listed and whole; a damaged copy of it is named with its place."""
        code, objects, _ = as_json("snapshot", "list", data)
        listed = objects[0]["snapshots"]
        self.assertEqual((code, [s["state"] for s in listed]), (0, ["counts"]))
        code, out, errors = lockstep("snapshot", "verify", data)
        self.assertEqual((code, errors), (0, ""))
        self.assertIn("whole: every byte was checked", out)
        copy = data.with_name("copy")
        shutil.copytree(data, copy)
        with open(copy / listed[0]["file"], "r+b") as file:
            file.seek(-3, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-3, os.SEEK_END)
            file.write(bytes([byte ^ 4]))
        code, objects, _ = as_json("snapshot", "verify", copy)
        self.assertEqual(code, 7)
        finding = objects[0]["findings"][0]
        self.assertEqual((finding["file"], finding["index"], finding["error"]),
                         (listed[0]["file"], listed[0]["index"], "ECORRUPT"))
        self.assertGreaterEqual(finding["offset"], 4096)
        shutil.rmtree(copy)

    def keys_of(self, node):
        """The keys whose commands stand in the log of a stopped node; its log is whole."""
        _, objects, _ = as_json("log", "inspect", node.data, "--commands")
        commands = [c["payload"] for o in objects for c in o.get("commands_in", []) if c["kind"] == "machine"]
        return {int(c.split()[1][3:]) for c in commands}

    def check_keys(self, node, keys):
        for n in self.random.sample(sorted(keys), min(30, len(keys))):
            self.assertEqual(node.read(b"get key%d" % n).reply, b"value-%d" % n)

    def leads_alone(self, node):
        return until(lambda: (s := node.status()) is not None and s.role == "leader" and s.commit_index == s.last_index
                     and s, settings.patience(30), lambda: f"{node.name} leads\n{node.tail()}")

    def is_stranger(self, node):
        """Whether another node has told it that its cluster is not theirs."""
        status = node.status()
        return status is not None and any("was born in cluster" in m.note for m in status.members)

    def check_refused(self, node, old):
        """The old member's directory is that of another cluster, and both say so."""
        old.start()
        until(lambda: self.is_stranger(old), settings.patience(30), lambda: f"a refusal\n{node.tail()}\n{old.tail()}")
        self.assertEqual(node.status_now().role, "leader")
        self.assertNotEqual(old.status_now().role, "leader")
        old.terminate()

    def grow(self, cluster, node, others):
        """The others join, empty."""
        for other in others:
            shutil.rmtree(other.data)
            other.start()
            code, out, errors = lockstep("member", "add", other.name, "--client", other.client_endpoint, "--peer",
                                         other.peer_endpoint, "--to", node.client_endpoint, "--timeout", "60s")
            self.assertEqual(code, 0, errors)
            self.assertIn("is a voter now", out)
        cluster.wait_equal(settings.patience(60))

    def test_a_backup_becomes_a_cluster_and_the_old_members_are_refused(self):
        cluster = self.cluster(nodes=3, sections={"storage": {"snapshot_after": "8KiB"}}).start()
        cluster.leader()
        self.put(cluster, 0, PUTS)
        one, two, three = cluster.nodes
        until(lambda: (s := three.status()) and s.snapshot_index > 0, settings.patience(30), "a snapshot")
        self.assertEqual(three.terminate(), 0)
        self.put(cluster, PUTS, 100)  # behind the backup, while the others go on
        backup = cluster.directory / "backup"
        self.check_snapshot(three.data)
        before = fingerprint(three.data)
        code, objects, errors = as_json("backup", "create", three.data, "--to", backup)
        self.assertEqual(code, 0, errors)
        self.assertGreater(objects[0]["snapshot"], 0)
        self.assertEqual(fingerprint(three.data), before)
        code, checked, _ = as_json("backup", "verify", backup)
        self.assertEqual((code, checked), (0, objects))
        code, _, errors = lockstep("backup", "create", three.data, "--to", backup)
        self.assertEqual(code, 5)
        self.assertIn("is there already", errors)
        for node in (one, two):
            node.kill()
        say(f"backup: {backup.stat().st_size} bytes, snapshot of block {objects[0]['snapshot']}, last {objects[0]['last']}")

        restore = ("backup", "restore", backup, "--config", cluster.config, "--node", "n1")
        before = fingerprint(one.data)
        code, _, errors = lockstep(*restore)
        self.assertEqual(code, 5)
        self.assertIn("holds a node's files already", errors)
        self.assertEqual(fingerprint(one.data), before)
        one.data.rename(one.data.with_name("n1-old"))
        code, restored, errors = as_json(*restore)
        self.assertEqual(code, 0, errors)
        self.assertNotEqual(restored[0]["cluster_id"], restored[0]["old_cluster_id"])
        self.assertEqual(restored[0]["old_cluster_id"], objects[0]["cluster_id"])
        self.assertEqual(lockstep("log", "verify", one.data)[0], 0)

        one.start()
        self.leads_alone(one)
        self.check_keys(one, range(PUTS))
        self.assertEqual(one.read(b"get key%d" % PUTS).reply, b"no such key")
        self.check_refused(one, two)
        self.put(cluster, 5 * PUTS, 50)
        self.grow(cluster, one, [two, three])
        cluster.wait_hashes()
        for node in cluster.nodes:
            self.assertEqual(node.read(b"get key%d" % (5 * PUTS)).reply, b"value-%d" % (5 * PUTS))

    def test_a_damaged_backup_is_named_and_nothing_is_made_from_it(self):
        cluster = self.killed_cluster()
        backup, damaged = cluster.directory / "backup", cluster.directory / "damaged"
        self.assertEqual(lockstep("backup", "create", cluster["n1"].data, "--to", backup)[0], 0)
        shutil.rmtree(cluster["n2"].data)
        whole = backup.read_bytes()
        for number in range(FLIPS):
            content = bytearray(whole)
            if number % 4 == 0:
                del content[self.random.randrange(len(content)):]
            else:
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            damaged.write_bytes(content)
            code, out, errors = lockstep("backup", "verify", damaged)
            self.assertEqual(code, 7, f"damage {number}: {out}{errors}")
            self.assertIn("at byte ", errors)
        code, _, errors = lockstep("backup", "restore", damaged, "--config", cluster.config, "--node", "n2")
        self.assertEqual(code, 7)
        self.assertFalse(cluster["n2"].data.exists())
        say(f"{FLIPS} damaged backups of {len(whole)} bytes, each of them named")

    def test_one_survivor_of_three_goes_on_alone(self):
        cluster = self.killed_cluster()
        one, two, three = cluster.nodes
        held, before = self.keys_of(two), fingerprint(two.data)
        recover = ("recover", "--config", cluster.config, "--node", "n2")
        for words in ((), ("--confirm", "another")):
            code, out, errors = lockstep(*recover, *words)
            self.assertEqual(code, 5)
            self.assertIn("what may be lost", out)
            self.assertIn("nothing was changed", errors)
        self.assertEqual(fingerprint(two.data), before)
        code, objects, errors = as_json(*recover, "--confirm", "system")
        self.assertEqual(code, 0, errors)
        plan, done = objects
        self.assertEqual((plan["step"], plan["left_behind"], done["step"]), ("plan", ["n1", "n3"], "done"))
        self.assertEqual(done["last"], plan["last"] + 2)  # a joint configuration, and its end
        self.assertGreater(done["term"], plan["last_term"])
        self.assertNotEqual(done["cluster_id"], plan["cluster_id"])
        self.assertEqual(lockstep("log", "verify", two.data)[0], 0)

        two.start()
        self.leads_alone(two)
        self.check_keys(two, held)
        self.check_refused(two, one)
        self.put(cluster, PUTS, 50)
        self.grow(cluster, two, [one, three])
        cluster.wait_hashes()
        self.check_keys(one, held | set(range(PUTS, PUTS + 50)))

    def test_recover_cut_short_leads_nothing_and_can_be_run_again(self):
        cluster = self.killed_cluster()
        two = cluster["n2"]
        held = self.keys_of(two)
        # Cut short: the identity is new, the log is not.
        shutil.copytree(two.data, two.data.with_name("as-it-was"))
        recover = ("recover", "--config", cluster.config, "--node", "n2", "--confirm", "system")
        self.assertEqual(lockstep(*recover)[0], 0)
        identity = (two.data / "identity").read_bytes()
        shutil.rmtree(two.data)
        two.data.with_name("as-it-was").rename(two.data)
        (two.data / "identity").write_bytes(identity)
        for node in cluster.nodes:
            node.start()
        until(lambda: self.is_stranger(two), settings.patience(30), lambda: two.tail())
        self.assertNotEqual(two.status_now().role, "leader")
        for node in cluster.nodes:
            node.kill()
        code, out, errors = lockstep(*recover)
        self.assertEqual(code, 0, out + errors)
        two.start()
        self.leads_alone(two)
        self.check_keys(two, held)


if __name__ == "__main__":
    main()
