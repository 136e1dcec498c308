# SPDX-License-Identifier: Apache-2.0
"""A disk that fails the flushed write of LMDB's meta page, which no failing fdatasync reaches (failing_meta.c): the node ends
with a clear message, the others go on, and nothing acknowledged is lost."""
import errno
import os
import random

from harness import settings
from harness.case import Case, main, say

ERRORS = ("EIO", "ENOSPC") if settings.FULL else (random.Random(settings.SEED).choice(("EIO", "ENOSPC")),)


class FailingMeta(Case):
    def prepare(self, node, error):
        trigger = node.cluster.directory / f"{node.name}.fails"
        node.environment.update(LD_PRELOAD=str(settings.FAILING_META), FAIL_META=str(getattr(errno, error)),
                                FAIL_META_WHILE=str(trigger))
        return trigger

    def ended(self, node, expected):
        code = node.wait_exit(30)
        say(f"{node.name} ended with {code}: {node.tail(2)}")
        self.assertEqual(code, 1, node.tail())
        self.assertRegex(node.tail(10), expected)

    def test_a_node_whose_meta_page_fails_ends_and_the_others_go_on(self):
        for error in ERRORS:
            with self.subTest(error):
                cluster = self.cluster(directory=os.path.join(self.directory, error), nodes=3)
                node = cluster["n2"]
                trigger = self.prepare(node, error)
                cluster.start().leader()
                with self.load(cluster) as load:
                    load.wait_in_flight(64, settings.patience(30))
                    trigger.touch()
                    self.ended(node, r"data\.mdb could not be written or flushed.*replace the disk")
                    load.wait_acknowledged(200, settings.patience(60))
                    trigger.unlink()
                    node.start()
                    load.wait_acknowledged(200, settings.patience(60))
                self.judge(cluster, load)

    def test_a_start_whose_meta_page_fails_is_refused_and_the_next_one_finds_everything(self):
        for error in ERRORS:
            with self.subTest(error):
                cluster = self.cluster(directory=os.path.join(self.directory, error), nodes=1)
                [node] = cluster.nodes
                trigger = self.prepare(node, error)
                cluster.start().leader()
                with self.load(cluster) as load:
                    load.wait_acknowledged(200, settings.patience(60))
                    node.kill()
                    trigger.touch()
                    node.start()
                    self.ended(node, r"data\.mdb cannot be written.*check the disk")
                    trigger.unlink()
                    node.start()
                    load.wait_acknowledged(200, settings.patience(60))
                self.judge(cluster, load)


if __name__ == "__main__":
    main()
