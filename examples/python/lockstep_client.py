# SPDX-License-Identifier: Apache-2.0
"""A small client of a lockstep cluster on grpcio: propose and query, redirects followed, every command applied once.

Copy it into your project; it needs python3-grpcio and python3-protobuf (Debian), and the stubs (see stubs.py).
The client opens a session and numbers its commands. What fails with an unknown outcome is sent again with the same number,
to whichever node leads then; the cluster applies it once, and answers as it did the first time. So OutcomeUnknown is left
for what has no answer when the time is over. Only the trailer `lockstep-outcome: not-appended` says that a copy surely
stands in no log. One thread uses a client at a time; a thread of its own keeps the session alive."""
import threading
import time

import grpc

import stubs

pb, rpc = stubs.load()

OPTIONS = [("grpc.enable_retries", 0)]  # what is sent again, and when, is decided here
ATTEMPT = 2.0  # seconds after which a node that does not answer is left for another
FINAL = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.OUT_OF_RANGE,
         grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND)  # it would be refused again


class Error(Exception):
    """The command was surely not applied, and could not be in time. A query: it was not answered."""


class OutcomeUnknown(Exception):
    """The command may have been applied, or be applied later: there was no answer in time, or its session has ended."""


class ReplyGone(Exception):
    """The command was applied, once, but so long ago that the cluster keeps its reply no more."""


class Refused(Exception):
    """The machine applied the command by refusing it, with a code of its own."""

    def __init__(self, code, reply):
        super().__init__(f"refused with code {code}: {reply.decode(errors='replace')}")
        self.code, self.reply = code, reply


class Attempts:
    """What is known after the attempts so far."""

    def __init__(self):
        self.unsure = False  # one of them may have been appended
        self.why = "no endpoint answers"


class Client:
    def __init__(self, endpoints, timeout=10.0):
        """endpoints: ["HOST:PORT", ...]; timeout: seconds for one call, everything included."""
        self.endpoints = list(endpoints)
        self.timeout = timeout
        self.current = self.endpoints[0]
        self.channels = {}
        self.session = None  # an OpenSessionResponse
        self.seq = 0
        self.used = 0.0  # when the cluster heard of the session last
        self.closed = threading.Event()

    def propose(self, command):
        """Have a command (bytes) applied, once. Returns a ProposeResponse. Raises Refused, Error, OutcomeUnknown, ReplyGone."""
        end = time.monotonic() + self.timeout
        while True:
            if self.session is None:
                self._open(end)
            self.seq += 1
            # At most one command runs at a time, so all below this one are answered: the session's window is never full.
            request = pb.ProposeRequest(command=command, session=self.session.session, seq=self.seq)
            attempts = Attempts()
            try:
                response = self._run("Propose", request, end, attempts)
                self.used = time.monotonic()
                return self._answer(response)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.ALREADY_EXISTS:
                    raise ReplyGone(attempts.why) from error
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    self.session = None
                    if not attempts.unsure:
                        continue  # surely not applied in the session that has ended: a new one, and a new number
                raise (OutcomeUnknown if attempts.unsure else Error)(attempts.why) from error

    def query(self, text, consistency=pb.CONSISTENCY_LINEARIZABLE, max_staleness_ms=0):
        """Read the machine's state. Returns a QueryResponse. CONSISTENCY_FOLLOWER, _BOUNDED_STALE and _LOCAL are answered
        by any node. Raises Refused, Error."""
        attempts = Attempts()
        try:
            request = pb.QueryRequest(query=text, consistency=consistency, max_staleness_ms=max_staleness_ms)
            return self._answer(self._run("Query", request, time.monotonic() + self.timeout, attempts))
        except (grpc.RpcError, OutcomeUnknown) as error:  # it changed nothing, whatever became of it
            raise Error(attempts.why) from error

    def close(self):
        self.closed.set()
        if self.session is not None:
            try:
                self._run("CloseSession", pb.CloseSessionRequest(session=self.session.session), time.monotonic() + 1.0,
                          Attempts())
            except (grpc.RpcError, Error, OutcomeUnknown):
                pass  # it ends by itself
        time.sleep(0.25)  # grpcio's watcher of a channel complains about one that is closed within 0.2 s
        for channel in list(self.channels.values()):
            channel.close()

    @staticmethod
    def _answer(response):
        if response.code != 0:
            raise Refused(response.code, response.reply)
        return response

    def _open(self, end):
        """A session that was opened twice harms nobody: the one that nobody knows ends by itself."""
        attempts = Attempts()
        try:
            self.session = self._run("OpenSession", pb.OpenSessionRequest(), end, attempts)
        except (grpc.RpcError, OutcomeUnknown) as error:
            raise Error(attempts.why) from error
        self.seq = 0
        self.used = time.monotonic()
        threading.Thread(target=self._keep, args=[self.session], daemon=True).start()

    def _keep(self, session):
        third = session.expiry_ms / 3000
        while not self.closed.wait(third / 4):
            if self.session is not session:
                return
            if time.monotonic() < self.used + third:
                continue
            try:
                self._run("KeepAlive", pb.KeepAliveRequest(session=session.session), time.monotonic() + third, Attempts())
                self.used = time.monotonic()
            except (grpc.RpcError, Error, OutcomeUnknown):
                pass  # the next propose finds out

    def _connected(self, endpoint, seconds):
        """A channel that is ready: what fails before that was never sent."""
        if endpoint not in self.channels:
            self.channels[endpoint] = grpc.insecure_channel(endpoint, options=OPTIONS)
        ready = grpc.channel_ready_future(self.channels[endpoint])
        try:
            ready.result(timeout=seconds)
            return self.channels[endpoint]
        except grpc.FutureTimeoutError:
            return None  # the channel goes on dialling, for the next time
        finally:
            ready.cancel()

    def _pass(self, leader):
        """Ask another node next: the leader, if it was named."""
        if leader:
            self.current = leader
        elif self.current in self.endpoints:
            self.current = self.endpoints[(self.endpoints.index(self.current) + 1) % len(self.endpoints)]
        else:
            self.current = self.endpoints[0]

    def _run(self, method, request, end, attempts):
        """The same request until it is answered. Nothing here may be wrong to send twice: commands are numbered."""
        pause = 0.01
        while (left := end - time.monotonic()) > 0:
            endpoint = self.current
            channel = self._connected(endpoint, min(1.0, left))
            if channel is None:
                attempts.why = f"{endpoint}: cannot be reached"
                self._pass(None)
                continue
            try:
                return getattr(rpc.LockstepStub(channel), method)(request, timeout=min(ATTEMPT, left),
                                                                  metadata=[("lockstep-forward", "no")])
            except grpc.RpcError as error:
                trailers = dict(error.trailing_metadata() or ())
                attempts.why = f"{endpoint}: {error.details()}"
                if error.code() in FINAL:
                    raise
                attempts.unsure = attempts.unsure or trailers.get("lockstep-outcome") != "not-appended"
                leader = trailers.get("lockstep-leader")
                if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    if "lockstep-retry-after-ms" not in trailers:
                        raise  # too large
                    time.sleep(int(trailers["lockstep-retry-after-ms"]) / 1000)
                else:
                    self._pass(leader if leader != endpoint else None)
            time.sleep(pause)
            pause = min(pause * 2, 0.16)
        raise (OutcomeUnknown if attempts.unsure else Error)(attempts.why)
