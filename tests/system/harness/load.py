# SPDX-License-Identifier: Apache-2.0
"""Load from asynchronous grpcio clients in a thread of its own; the fate of every command is recorded exactly.

Workers come in kinds: unary (one command in flight each), streams (several messages in flight each, several commands a
message) and readers (linearizable queries for the register, which one more worker writes). Each begins at another node,
follows lockstep-leader and goes on to the next node after any failure. One more unary worker stays with each node, whatever
it answers: a stopped leader that holds all the others' commands is not the end of the load. No command is ever sent twice:
a failed one keeps its outcome and the next one is another command.
"""
import asyncio
import collections
import itertools
import random
import threading
import time

import grpc
import grpc.aio

from harness import api, settings
from harness.api import APPLIED, NOT_APPENDED, pb, rpc
from harness.history import REGISTER, Command, Read
from harness.waiting import until

COMMAND_SECONDS = 5.0  # deadline of a unary command; half of what a stream's answer may take
PAUSE_SECONDS = 0.005  # after a failure, so that a cluster without leader is not asked in a circle


class Load:
    """with Load(cluster.endpoints(), seed) as load: ...; load.commands and load.reads belong to the caller after it."""

    def __init__(self, endpoints, seed, unary=24, streams=4, messages=3, per_message=8, readers=3, bytes_min=0,
                 bytes_max=512, forward=True, tag=b"", deadline=COMMAND_SECONDS):
        self.endpoints = list(endpoints)
        self.seed = seed
        self.shape = (unary, streams, messages, per_message, readers)
        self.bytes = (bytes_min, bytes_max)
        self.tag = tag  # tells this load's commands from another one's on the same cluster
        self.forward = forward
        self.deadline = deadline
        self.commands, self.reads = [], []
        self.in_flight = 0
        self.in_flight_max = 0
        self.acknowledged = 0
        self.last_trouble = ""
        self._workers = unary + streams + len(self.endpoints) + (readers > 0)  # those that propose
        self._found = set()  # workers that have had an acknowledgement
        self._newest_began = 0.0  # of all commands that were acknowledged: when the one sent last was sent
        self._stopping = False
        self._trouble = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    # ---- the caller's thread ----

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, seconds=60):
        """Send no more, wait for what is in flight, bounded."""
        self._stopping = True
        seconds = settings.patience(seconds)
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise AssertionError(f"{self.in_flight} commands got no answer within {seconds} s of the last one sent")
        if self._trouble is not None:
            raise self._trouble

    def wait(self, condition, seconds, what):
        def so():
            if self._trouble is not None:
                raise self._trouble
            return condition()
        until(so, seconds, lambda: f"{what}; in flight {self.in_flight}, acknowledged {self.acknowledged}, last trouble: "
                                   f"{self.last_trouble}", pause=0.002)

    def wait_in_flight(self, count=64, seconds=30):
        """So many commands are in flight at this moment, and acknowledgements come in."""
        before = self.acknowledged
        self.wait(lambda: self.in_flight >= count and self.acknowledged > before, seconds, f"{count} commands in flight")

    def wait_found(self, seconds=30):
        """Every worker has found the leader: it has had an acknowledgement."""
        self.wait(lambda: len(self._found) == self._workers, seconds, f"{self._workers} workers find the leader")

    def wait_acknowledged(self, more, seconds=30):
        goal = self.acknowledged + more
        self.wait(lambda: self.acknowledged >= goal, seconds, f"{more} acknowledgements")

    def wait_writable(self, since, seconds=30):
        """Until a command that was sent after `since` is acknowledged. Returns the seconds that it took."""
        self.wait(lambda: self._newest_began > since, seconds, "a command sent after the fault is acknowledged")
        return min(c.ended for c in list(self.commands) if c.outcome == APPLIED and c.began > since) - since

    # ---- the load's thread ----

    def _run(self):
        try:
            asyncio.run(self._main())
        except BaseException as trouble:  # shown to the caller by wait() and stop(); asyncio's own are no Exceptions
            self._trouble = trouble

    async def _main(self):
        unary, streams, messages, per_message, readers = self.shape
        channels = api.aio_channels(self.endpoints)
        self._stubs = [rpc.LockstepStub(channel) for channel in channels]
        workers = [self._unary(n) for n in range(unary)]
        workers += [self._staying(500 + at, at) for at in range(len(self.endpoints))]
        workers += [self._stream(1000 + n, messages, per_message) for n in range(streams)]
        if readers > 0:
            workers += [self._writer(2000)] + [self._reader(3000 + n) for n in range(readers)]
        try:
            await asyncio.gather(*workers)
        finally:
            for channel in channels:
                await channel.close()

    def _command(self, worker, number, rng):
        """The next command of a worker: its payload is found nowhere else."""
        verb = rng.randrange(4)
        if verb == 0:
            payload = b"incr total%s%d %d" % (self.tag, worker, number + 1)
        elif verb == 1:
            payload = b"append log%s%d %d." % (self.tag, worker, number)
        else:
            low, high = self.bytes
            size = rng.randrange(low, high if rng.randrange(8) == 0 else low + 48)
            payload = b"put key%s%d.%d =" % (self.tag, worker, number) + rng.randbytes(size).replace(b"\n", b"_")
        return self._begin(payload, worker)

    def _begin(self, payload, worker):
        command = Command(payload, time.monotonic(), worker)
        self.commands.append(command)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        return command

    def _applied(self, command, response):
        command.applied(response, time.monotonic())
        self.in_flight -= 1
        self.acknowledged += 1
        self._found.add(command.worker)
        self._newest_began = max(self._newest_began, command.began)

    def _failed(self, command, outcome, why):
        command.failed(outcome, why, time.monotonic())
        self.in_flight -= 1
        self.last_trouble = why

    def _next(self, at, trailers):
        """Where to go after a failure: to the leader that the node names, else to the next node."""
        leader = trailers.get("lockstep-leader")
        return self.endpoints.index(leader) if leader in self.endpoints else (at + 1) % len(self.endpoints)

    async def _propose(self, at, command, metadata):
        try:
            response = await self._stubs[at].Propose(pb.ProposeRequest(command=command.payload),
                                                     timeout=self.deadline, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            self._failed(command, api.fate(error), f"{self.endpoints[at]}: {error.code().name}: {error.details()}")
            await asyncio.sleep(PAUSE_SECONDS)
            return self._next(at, api.trailers(error))
        self._applied(command, response)
        return at

    async def _unary(self, worker):
        rng = random.Random(self.seed * 10007 + worker)
        at, number = worker % len(self.endpoints), 0
        metadata = () if self.forward and worker % 2 == 0 else api.NO_FORWARD
        while not self._stopping:
            at = await self._propose(at, self._command(worker, number, rng), metadata)
            number += 1

    async def _staying(self, worker, at):
        rng = random.Random(self.seed * 10007 + worker)
        number = 0
        while not self._stopping:
            await self._propose(at, self._command(worker, number, rng), ())
            number += 1

    async def _writer(self, worker):
        at, number = worker % len(self.endpoints), 0
        while not self._stopping:
            number += 1
            at = await self._propose(at, self._begin(b"put %s %s%d" % (REGISTER, self.tag, number), worker), ())
            await asyncio.sleep(0.001)

    async def _reader(self, worker):
        """Goes round: each read asks another node, followers too, so that a stale one is noticed."""
        at = worker
        while not self._stopping:
            at = (at + 1) % len(self.endpoints)
            began = time.monotonic()
            try:
                response = await self._stubs[at].Query(pb.QueryRequest(query=b"get " + REGISTER), timeout=0.5)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self.reads.append(Read(began, time.monotonic(), response))
            await asyncio.sleep(0.002)

    async def _stream(self, worker, messages, per_message):
        """Reads and writes side by side: grpc.aio's write waits for a status that only a reader lets through."""
        rng = random.Random(self.seed * 10007 + worker)
        at, numbers = worker % len(self.endpoints), itertools.count()
        while not self._stopping:
            call = self._stubs[at].ProposeStream()
            waiting = collections.deque()  # messages sent and not answered, oldest first
            room = asyncio.Semaphore(messages)

            async def write():
                while True:
                    await room.acquire()
                    if self._stopping:
                        await call.done_writing()
                        return
                    batch = [self._command(worker, next(numbers), rng) for _ in range(per_message)]
                    waiting.append(batch)
                    await call.write(pb.ProposeStreamRequest(
                        commands=[pb.ProposeRequest(command=c.payload) for c in batch]))
            writer = asyncio.create_task(write())
            error = None
            try:
                while (answer := await asyncio.wait_for(call.read(), self.deadline * 2)) is not grpc.aio.EOF:
                    self._answered(waiting.popleft(), answer)
                    room.release()
            except (grpc.aio.AioRpcError, asyncio.TimeoutError) as e:
                error = e
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)  # what went wrong there, the reader has seen
            at = await self._stream_ended(call, at, waiting, error)

    def _answered(self, batch, answer):
        if len(answer.results) != len(batch):
            raise AssertionError(f"{len(batch)} commands got {len(answer.results)} results in one answer")
        for command, result in zip(batch, answer.results):
            outcome = api.OUTCOMES.get(result.outcome)
            if outcome == APPLIED:
                self._applied(command, result.response)
            elif outcome is None:
                raise AssertionError(f"a result without outcome: {result}")
            else:
                self._failed(command, outcome, f"stream: {result.error}")

    async def _stream_ended(self, call, at, waiting, error):
        """What was not answered is unknown, unless the trailer says that nothing of the stream's rest was appended."""
        try:
            if isinstance(error, asyncio.TimeoutError):
                call.cancel()
            code, details = await asyncio.wait_for(call.code(), COMMAND_SECONDS), await call.details()
            found = api.trailers_of(await call.trailing_metadata())
        except (grpc.aio.AioRpcError, asyncio.TimeoutError) as e:
            code, details, found = "no status", str(e), {}
        outcome = NOT_APPENDED if found.get("lockstep-outcome") == "not-appended" else api.UNKNOWN
        for batch in waiting:
            for command in batch:
                self._failed(command, outcome, f"{self.endpoints[at]}: stream: {code}: {details}: {error!r}")
        if code == grpc.StatusCode.OK and not waiting:
            return at
        await asyncio.sleep(PAUSE_SECONDS)
        return self._next(at, found)
