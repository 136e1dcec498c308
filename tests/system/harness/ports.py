# SPDX-License-Identifier: Apache-2.0
"""Ports for tests that run beside each other, each for one test alone."""
import itertools
import os
import socket

FIRST, COUNT = 20000, 9000  # below the range from which the kernel takes ports by itself
_marks = []
_ports = itertools.count(os.getpid() * 37)


def reserve(port):
    """Whether nobody listens there; then it is ours until this process ends, also while our node is down: a name in the
    abstract namespace says so to other tests."""
    mark = socket.socket(socket.AF_UNIX)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT is no hindrance
        try:
            mark.bind(f"\0lockstep-test-port-{port}")
            probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            return False
    _marks.append(mark)
    return True


def free_port(others=()):
    """A port, and those so far above it."""
    for _ in range(COUNT):
        port = FIRST + next(_ports) % COUNT
        if all(reserve(port + other) for other in (0, *others)):
            return port
    raise AssertionError(f"no free port from {FIRST} to {FIRST + COUNT - 1}")


def free_base():
    """For `lockstep local`: three client ports from here on, and three peer ports 100 above."""
    return free_port((1, 2, 100, 101, 102))
