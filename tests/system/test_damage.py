# SPDX-License-Identifier: Apache-2.0
"""Damaged files of one of three real nodes: a start repairs them from the others or says what is wrong; nothing damaged is
served as good. LOCKSTEP_FULL=1: a thousand damages."""
import shutil

from harness import settings
from harness.case import Case, main, say
from harness.cluster import until

PAGE = 4096
BLOCK_MAGIC = b"LSLK"
FILES = ("journal", "data.mdb", "identity", "boot")


class Damage(Case):
    def begin(self, commands):
        """A cluster with some load behind it, one node killed, and a copy of that node's directory."""
        cluster = self.cluster(nodes=3, ring=8 << 20, journal=32 << 20)
        cluster.start()
        cluster.leader()
        with self.load(cluster, bytes_max=2000) as load:
            load.wait_acknowledged(commands, settings.patience(60))
        cluster.wait_equal()
        node = cluster.followers(cluster.leader())[0]
        until(lambda: BLOCK_MAGIC in (node.data / "data.mdb").read_bytes(), settings.patience(30), "blocks in the log")
        node.kill()
        copy = cluster.directory / "copy"
        shutil.copytree(node.data, copy)
        return cluster, load, node, copy

    def damage(self, node):
        """One bit, one sector or one page of one file, where something was written."""
        name = self.random.choices(FILES, weights=(60, 60, 2, 2))[0]
        path = node.data / name
        content = bytearray(path.read_bytes())
        used = len(content.rstrip(b"\0")) or 1
        at, kind = self.random.randrange(used), self.random.choice(("bit", "bit", "sector", "page"))
        if kind == "bit":
            content[at] ^= 1 << self.random.randrange(8)
        else:
            size = 512 if kind == "sector" else PAGE
            at -= at % size
            content[at:at + size] = self.random.randbytes(len(content[at:at + size]))
        path.write_bytes(content)
        return f"{kind} of {name} at {at}"

    def settle(self, cluster, node):
        """Until it has caught up with the others, or has ended. Returns its exit code, or None."""
        def settled():
            if not node.running():
                return True
            seen = [n.status(0.5) for n in cluster.nodes]
            return all(s is not None for s in seen) and len({s.applied_index for s in seen}) == 1
        until(settled, settings.patience(60), lambda: f"{node.name} is ready or ends\n{node.tail()}")
        return None if node.running() else node.wait_exit()

    def test_damages_of_a_minority_are_repaired_by_the_others_or_named(self):
        cluster, load, node, copy = self.begin(300)
        seen = {"as if nothing was": 0, "repaired": 0, "named": 0}
        for _ in range(settings.by_length(4, 12, 1000)):
            what = self.damage(node)
            node.output.write_bytes(b"")
            node.start()
            code = self.settle(cluster, node)
            text = node.output.read_text(errors="replace")
            if code is not None:
                self.assertEqual(code, 7, f"{what}\n{text}")
                self.assertIn(str(node.data), text.strip().splitlines()[-1], what)
                self.assertNotIn(" alive: ", text, what)  # it promised nothing: the copy may take its place
                seen["named"] += 1
                say(f"{what}: {text.strip().splitlines()[-1][:200]}")
                shutil.rmtree(node.data)
                shutil.copytree(copy, node.data)
                continue
            cluster.wait_hashes()
            node.kill()
            seen["repaired" if "repair: done" in text else "as if nothing was"] += 1
            shutil.rmtree(copy)
            shutil.copytree(node.data, copy)
        say(f"{seen}")
        node.start()
        self.judge(cluster, load)


if __name__ == "__main__":
    main()
