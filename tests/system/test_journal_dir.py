# SPDX-License-Identifier: Apache-2.0
"""storage.journal_dir: the journals lie on another disk, in a folder of each node's own. A folder that is missing, or another
node's, is named and refused, and nothing is changed; a journal that is lost takes its node with it, and that is replaced."""
import hashlib
import shutil

import grpc

from harness import process, settings
from harness.case import Case, main
from harness.cluster import free_port, until


class JournalDir(Case):
    def make(self):
        cluster = self.cluster(nodes=3, sections={"storage": {"journal_dir": f"{self.directory}/journals"}})
        self.journals = cluster.directory / "journals"
        self.journals.mkdir()
        cluster.start()
        for number in range(50):
            self.ask(cluster, lambda client: client.propose(b"put key%d value%d" % (number, number)))
        return cluster

    def ask(self, cluster, what):
        """Of whoever leads, again if it does not any more: each of these may be asked twice."""
        def asked():
            try:
                return what(cluster.leader().client)
            except grpc.RpcError:
                return None
        return until(asked, settings.patience(60), cluster.tails)

    def values(self, cluster):
        for number in (0, 17, 49):
            answer = self.ask(cluster, lambda client: client.query(b"get key%d" % number))
            self.assertEqual(answer.reply, b"value%d" % number)

    def contents(self, node):
        """Of its two folders, but for the files that lock them."""
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
                for folder in (node.data, self.journals / node.name) for path in sorted(folder.rglob("*"))
                if not path.name.endswith("lock")}

    def refused(self, node, code, *words):
        before = self.contents(node)
        node.output.write_bytes(b"")
        node.start()
        self.assertEqual(node.wait_exit(), code, node.tail())
        for word in words:
            self.assertIn(word, node.output.read_text())
        self.assertEqual(self.contents(node), before)

    def test_what_was_acknowledged_is_in_the_journals_of_killed_nodes(self):
        cluster = self.make()
        for node in cluster.nodes:
            self.assertTrue((self.journals / node.name / "journal").exists())
            self.assertFalse((node.data / "journal").exists())
        for node in cluster.nodes:
            node.kill()
        cluster.start()
        self.values(cluster)
        cluster.stop()

    def test_a_wrong_or_missing_folder_is_named_and_changed_by_nobody(self):
        cluster = self.make()
        one, other = cluster.followers(cluster.leader())
        own, others = self.journals / one.name, self.journals / other.name
        one.kill()
        other.kill()
        own.rename(self.journals / "kept")
        self.refused(one, 7, str(own), "mount its disk, or name the right journal_dir")
        self.assertFalse(own.exists())
        self.journals.rename(cluster.directory / "unmounted")  # no disk at all
        one.output.write_bytes(b"")
        one.start()
        self.assertEqual(one.wait_exit(), 1, one.tail())
        self.assertIn(f"journal directory {own}: cannot be made", one.output.read_text())
        self.assertFalse(self.journals.exists())
        (cluster.directory / "unmounted").rename(self.journals)
        shutil.copytree(others, own)
        self.refused(one, 1, str(own), "belongs to another directory")
        shutil.rmtree(own)
        (self.journals / "kept").rename(own)
        cluster.start()
        cluster.wait_equal()
        self.values(cluster)

    def test_two_copies_of_a_directory_do_not_share_its_journal(self):
        cluster = self.make()
        one = cluster.followers(cluster.leader())[0]
        one.terminate()
        copy = cluster.directory / "copy"
        shutil.copytree(one.data, copy)
        one.start()
        until(lambda: one.status() is not None, settings.patience(20), one.tail)
        config = cluster.directory / "copy.toml"
        text = cluster.config.read_text().replace(f'data = "{one.name}"', 'data = "copy"')
        for endpoint in (one.client_endpoint, one.peer_endpoint):
            text = text.replace(endpoint, f"127.0.0.1:{free_port()}")
        config.write_text(text)
        code, _, errors = process.run([settings.PROGRAM, "serve", "--config", config, "--node", one.name],
                                      seconds=settings.patience(30))
        self.assertEqual(code, 1, errors)
        self.assertIn("is in use by another process, which runs in a copy of this directory", errors)
        cluster.wait_equal()
        self.values(cluster)

    def test_a_node_whose_journal_is_lost_is_replaced(self):
        cluster = self.make()
        lost = cluster.followers(cluster.leader())[0]
        lost.kill()
        shutil.rmtree(self.journals / lost.name)
        self.refused(lost, 7, "if it is lost, so is what was promised", "member replace")
        shutil.rmtree(lost.data)  # what it was told to do
        lost.start()
        until(lambda: b"no voter" in lost.output.read_bytes(), settings.patience(30), lost.tail)
        code, out, errors = cluster.member("replace", lost.name)
        self.assertEqual(code, 0, f"{out}{errors}\n{cluster.tails()}")
        self.assertTrue((self.journals / lost.name / "journal").exists())
        cluster.wait_equal(settings.patience(60))
        self.values(cluster)


if __name__ == "__main__":
    main()
