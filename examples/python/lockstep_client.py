# SPDX-License-Identifier: Apache-2.0
"""A small client of a lockstep cluster on grpcio: propose and query, redirects followed, unknown outcomes kept apart.

Copy it into your project; it needs python3-grpcio and python3-protobuf (Debian), and the stubs (see stubs.py).
Only the trailer `lockstep-outcome: not-appended` says that a failed command surely stands in no log. Every other failure,
also one that grpcio itself made, leaves the outcome unknown: this client raises OutcomeUnknown and never sends again."""
import time

import grpc

import stubs

pb, rpc = stubs.load()

OPTIONS = [("grpc.enable_retries", 0)]  # grpcio must not send a command again behind our back


class Error(Exception):
    """The command was surely not applied, and could not be in time."""


class OutcomeUnknown(Exception):
    """The command may have been applied already, or be applied later. Look before you send it again."""


class Refused(Exception):
    """The machine applied the command by refusing it, with a code of its own."""

    def __init__(self, code, reply):
        super().__init__(f"refused with code {code}: {reply.decode(errors='replace')}")
        self.code, self.reply = code, reply


class Client:
    def __init__(self, endpoints, timeout=10.0):
        """endpoints: ["HOST:PORT", ...]; timeout: seconds for one call, everything included."""
        self.endpoints = list(endpoints)
        self.timeout = timeout
        self.current = self.endpoints[0]
        self.channels = {}

    def propose(self, command):
        """Have a command (bytes) applied. Returns a ProposeResponse. Raises Refused, Error, OutcomeUnknown."""
        def call(channel, timeout):
            return rpc.LockstepStub(channel).Propose(pb.ProposeRequest(command=command), timeout=timeout,
                                                     metadata=[("lockstep-forward", "no")])
        return self._answer(self._run(call, appends=True))

    def query(self, text, consistency=pb.CONSISTENCY_LINEARIZABLE):
        """Read the machine's state. Returns a QueryResponse."""
        def call(channel, timeout):
            return rpc.LockstepStub(channel).Query(pb.QueryRequest(query=text, consistency=consistency),
                                                   timeout=timeout, metadata=[("lockstep-forward", "no")])
        return self._answer(self._run(call, appends=False))

    def close(self):
        time.sleep(0.25)  # grpcio's watcher of a channel complains about one that is closed within 0.2 s
        for channel in self.channels.values():
            channel.close()

    @staticmethod
    def _answer(response):
        if response.code != 0:
            raise Refused(response.code, response.reply)
        return response

    def _connected(self, seconds):
        """A channel to the current endpoint that is ready: what fails before that was never sent."""
        if self.current not in self.channels:
            self.channels[self.current] = grpc.insecure_channel(self.current, options=OPTIONS)
        channel = self.channels[self.current]
        ready = grpc.channel_ready_future(channel)
        try:
            ready.result(timeout=seconds)
            return channel
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

    def _run(self, call, appends):
        end = time.monotonic() + self.timeout
        why = "no endpoint answers"
        pause = 0.01
        while (left := end - time.monotonic()) > 0:
            channel = self._connected(min(1.0, left))
            if channel is None:
                why = f"{self.current}: cannot be reached"
                self._pass(None)
                continue
            try:
                return call(channel, left)
            except grpc.RpcError as error:
                trailers = dict(error.trailing_metadata() or ())
                why = f"{self.current}: {error.details()}"
                if appends and trailers.get("lockstep-outcome") != "not-appended":
                    raise OutcomeUnknown(why) from error
                leader = trailers.get("lockstep-leader")
                if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "lockstep-retry-after-ms" in trailers:
                    time.sleep(int(trailers["lockstep-retry-after-ms"]) / 1000)
                elif leader and leader != self.current:
                    self._pass(leader)
                elif leader or error.code() == grpc.StatusCode.UNAVAILABLE:
                    self._pass(None)
                else:
                    raise Error(why) from error  # it would be refused again
            time.sleep(pause)
            pause = min(pause * 2, 0.16)
        raise Error(why)
