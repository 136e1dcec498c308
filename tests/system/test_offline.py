# SPDX-License-Identifier: Apache-2.0
"""The commands for a stopped node's directory, on directories that real nodes have written under load: they show what is
there, name what is damaged, and leave every byte as it was."""
import json
import os
import shutil

from harness import process, settings
from harness.case import Case, main, say
from harness.cluster import until

FLIPS = settings.by_length(10, 60, 1000)
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


if __name__ == "__main__":
    main()
