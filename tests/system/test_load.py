# SPDX-License-Identifier: Apache-2.0
"""The load itself: it ends, whatever happens to it, and what happened is said."""
import asyncio
import gc
import socket
import threading

from harness import settings
from harness.case import Case, main
from harness.load import Load

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


class Ends(Case):
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


if __name__ == "__main__":
    main()
