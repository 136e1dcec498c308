# SPDX-License-Identifier: Apache-2.0
"""What the tests stand on: a load ends, whatever happens to it, and says what; a leader that is deposed is an error that says
how long the host stood still."""
import asyncio
import gc
import os
import socket
import subprocess
import threading
import types

from harness import settings
from harness.case import Case, main
from harness.cluster import STEADY_SECONDS, Office
from harness.load import Load
from harness.waiting import Stillness

MANY = 1000  # commands; events of gRPC that its poller tells asyncio's loop of: many more than fit between them


class Broken(Load):
    """One of its workers fails when all the others wait for answers."""
    trouble = AssertionError("a worker's trouble")

    async def _writer(self, worker):
        while self.in_flight < MANY:
            await asyncio.sleep(0.01)
        raise self.trouble


class Cancelled(Broken):
    trouble = asyncio.CancelledError()


class LoadEnds(Case):
    def setUp(self):
        super().setUp()
        listener = socket.create_server(("127.0.0.1", 0), backlog=16)  # connected, and silent
        self.addCleanup(listener.close)
        self.endpoint = "127.0.0.1:%d" % listener.getsockname()[1]

    def meets_trouble(self, kind):
        said, gone = [], threading.Event()

        def use():
            load = kind([self.endpoint], self.seed(), unary=MANY)
            try:
                with load:
                    load.wait(lambda: False, settings.patience(20), "never")
            except BaseException as trouble:
                said.append(trouble)
            said[0].__traceback__ = None
            del load
            gc.collect()  # gRPC's last channel goes
            gone.set()
        threading.Thread(target=use, daemon=True).start()
        self.assertTrue(gone.wait(settings.patience(60)), f"it is given up; said until now: {said}")
        return said[0]

    def test_with_commands_in_flight_after_a_workers_failure(self):
        self.assertIs(self.meets_trouble(Broken), Broken.trouble)

    def test_with_commands_in_flight_after_a_cancellation(self):
        self.assertIsInstance(self.meets_trouble(Cancelled), asyncio.CancelledError)


class Offices(Case):
    def office(self, still):
        """Of a leader of term 1, and its status; the host stood still for so many seconds."""
        status = types.SimpleNamespace(role="leader", term=1)
        leader = types.SimpleNamespace(name="n1", status_now=lambda: status, cluster=types.SimpleNamespace(tails=str))
        office = Office(leader)
        office._stillness.end()
        office._stillness = types.SimpleNamespace(end=lambda: still)
        return office, status

    def test_a_leader_that_stays_has_kept_it(self):
        self.office(STEADY_SECONDS)[0].check_kept()

    def test_a_leader_that_was_deposed_is_an_error_that_says_how_long_the_host_stood_still(self):
        for role, term in (("follower", 1), ("leader", 2), ("follower", 2)):
            office, status = self.office(STEADY_SECONDS + 0.5)
            status.role, status.term = role, term
            with self.assertRaisesRegex(AssertionError, rf"stood still for {STEADY_SECONDS}\.5 s"):
                office.check_kept()

    def test_a_process_knows_how_long_it_stood_still(self):
        stillness = Stillness()
        subprocess.run(["sh", "-c", f"kill -STOP {os.getpid()}; sleep 1; kill -CONT {os.getpid()}"], check=True, timeout=60)
        self.assertGreater(stillness.end(), 0.8)


if __name__ == "__main__":
    main()
