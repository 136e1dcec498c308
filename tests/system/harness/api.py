# SPDX-License-Identifier: Apache-2.0
"""grpcio as a client of lockstep: the stubs, channels without retries, and what an answer says of a command's fate."""
import socket
import time
from unittest import mock

import grpc
import grpc.aio

from harness import settings  # it puts the stubs on the path
from lockstep.v1 import lockstep_pb2 as pb
from lockstep.v1 import lockstep_pb2_grpc as rpc

APPLIED, NOT_APPENDED, UNKNOWN = "applied", "not-appended", "unknown"

# gRPC's own retries would hide what we count. A node that comes back is dialled again at once. A dial itself has the 20 s that
# it has by default: min_reconnect_backoff_ms, in spite of its name, would be its deadline.
OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.use_local_subchannel_pool", 1),  # else two channels to one address share its connection
)
NO_FORWARD = (("lockstep-forward", "no"),)
CALL_SECONDS = settings.patience(10)  # the deadline of a call that shall have an answer: only a hang reaches it


def aio_channels(endpoints):
    """Channels whose end nothing holds up. gRPC's poller tells asyncio's loop of each event by a byte, and waits while some
    280 of them lie unread: if the loop has ended by then it waits for ever, and so does who gives up the last channel
    (grpc/grpc#40989). So no byte is waited for: one that lies there already wakes the loop as well."""
    made = socket.socketpair

    def pair(*arguments):
        ends = made(*arguments)
        for end in ends:
            end.setblocking(False)
        return ends
    with mock.patch("socket.socketpair", pair):
        return [grpc.aio.insecure_channel(endpoint, options=OPTIONS) for endpoint in endpoints]


def trailers_of(metadata):
    return {key: value for key, value in (metadata or ())}  # dict() would take grpc.aio's metadata for a mapping


def trailers(error):
    """Trailing metadata of a failed or finished call as a dict."""
    return trailers_of(error.trailing_metadata())


def fate(error):
    """Of a command whose call failed: only the trailer says that it surely was not appended."""
    return NOT_APPENDED if trailers(error).get("lockstep-outcome") == "not-appended" else UNKNOWN


OUTCOMES = {pb.OUTCOME_APPLIED: APPLIED, pb.OUTCOME_NOT_APPENDED: NOT_APPENDED, pb.OUTCOME_UNKNOWN: UNKNOWN}


PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def again(call, seconds=30, codes=PASSING):
    """Call it until it is answered, bounded, over changes of the leader and full rings: what it asks for may happen twice."""
    end = time.monotonic() + settings.patience(seconds)
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in codes or time.monotonic() > end:
                raise
        time.sleep(0.05)


class Client:
    """The blocking one, to one endpoint."""

    def __init__(self, endpoint, options=()):
        self.endpoint = endpoint
        self.channel = grpc.insecure_channel(endpoint, options=(*OPTIONS, *options))
        self.lockstep = rpc.LockstepStub(self.channel)
        self.admin = rpc.AdminStub(self.channel)

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def status(self, timeout=CALL_SECONDS):
        """wait_for_ready: a blocking grpcio drives a connection only while a call waits for it."""
        return self.admin.Status(pb.StatusRequest(), timeout=timeout, wait_for_ready=True)

    def propose(self, command, timeout=CALL_SECONDS, forward=True, **fields):
        return self.lockstep.Propose(pb.ProposeRequest(command=command, **fields), timeout=timeout,
                                     metadata=() if forward else NO_FORWARD)

    def query(self, query, timeout=CALL_SECONDS, forward=True, **fields):
        return self.lockstep.Query(pb.QueryRequest(query=query, **fields), timeout=timeout,
                                   metadata=() if forward else NO_FORWARD)

    def transfer(self, target="", timeout=CALL_SECONDS):
        """A leader that is not established yet, or has just not heard of the target, says UNAVAILABLE: try again."""
        return again(lambda: self.admin.TransferLeader(pb.TransferLeaderRequest(target=target), timeout=timeout),
                     codes=(grpc.StatusCode.UNAVAILABLE,))
